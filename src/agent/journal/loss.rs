//! The declaration of lost events, as long as it may still grow.

use super::Position;
use crate::agent::event_system::Draft;
use crate::event::{Body, Epoch, Event, EventId, Loss, Reason};

/// So many ranges are handed out in one event, which must fit into a message: 40 bytes each at most.
const RANGES_MAX: usize = 500;

/// A `loss` event that nobody has seen.
#[derive(Clone, Debug)]
pub(super) struct OpenLoss {
    pub(super) position: Position,
    pub(super) event: Event,
}

/// Why events are lost, as their declaration says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause<'a> {
    pub(super) reason: &'a Reason,
    pub(super) detail: Option<&'a str>,
}

impl<'a> Cause<'a> {
    pub(super) fn rejected(detail: &'a str) -> Self {
        Self { reason: &Reason::Rejected, detail: Some(detail) }
    }
}

impl<'a> From<&'a Reason> for Cause<'a> {
    fn from(reason: &'a Reason) -> Self {
        Self { reason, detail: None }
    }
}

/// Takes `ids` into the open declaration, if there is one of the same epoch and cause; what it is now.
pub(super) fn grow<'a>(
    open: &'a mut Option<OpenLoss>,
    epoch: Epoch,
    ids: &[EventId],
    cause: Cause<'_>,
) -> Option<&'a OpenLoss> {
    let open = open.as_mut()?;
    match &mut open.event.body {
        Body::Loss(loss)
            if loss.epoch == epoch && loss.reason == *cause.reason && loss.detail.as_deref() == cause.detail =>
        {
            insert(loss, ids);
        }
        _ => return None,
    }
    Some(open)
}

/// The first and the last number that an event declares to be lost, if it does.
pub(super) fn hull(body: &Body) -> Option<(Epoch, (u64, u64))> {
    let Body::Loss(Loss { epoch, ranges, .. }) = body else { return None };
    Some((*epoch, (ranges.first()?.0, ranges.last()?.1)))
}

/// A new declaration.
pub(super) fn declare(epoch: Epoch, ids: &[EventId], cause: Cause<'_>) -> Loss {
    let Cause { reason, detail } = cause;
    let mut loss = Loss { epoch, ranges: Vec::new(), reason: reason.clone(), detail: detail.map(str::to_owned) };
    insert(&mut loss, ids);
    loss
}

/// Cuts a declaration down to what one event carries; the rest, for events of their own.
pub(super) fn split(event: &mut Event) -> Vec<Draft> {
    let Body::Loss(loss) = &mut event.body else { return Vec::new() };
    let rest = loss.ranges.split_off(loss.ranges.len().min(RANGES_MAX));
    let part = |ranges: &[_]| Body::Loss(Loss { ranges: ranges.to_vec(), ..loss.clone() });
    rest.chunks(RANGES_MAX).map(|ranges| Draft { stamp: event.stamp.clone(), body: part(ranges) }).collect()
}

/// By epoch, each ascending.
pub(super) fn by_epoch(ids: &[EventId]) -> Vec<(Epoch, Vec<EventId>)> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.chunk_by(|a, b| a.epoch == b.epoch).map(|chunk| (chunk[0].epoch, chunk.to_vec())).collect()
}

/// Keeps ranges ascending, and apart from each other by at least one number.
fn insert(loss: &mut Loss, ids: &[EventId]) {
    let mut all = std::mem::take(&mut loss.ranges);
    all.extend(ids.iter().map(|id| (id.seq, id.seq)));
    all.sort_unstable();
    for (from, to) in all {
        match loss.ranges.last_mut() {
            Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
            _ => loss.ranges.push((from, to)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_lost(numbers in proptest::collection::btree_set(1..200_u64, 1..60)) {
            let epoch = Epoch(7);
            let ids: Vec<_> = numbers.iter().map(|seq| EventId { epoch, seq: *seq }).collect();
            let (first, second) = ids.split_at(ids.len() / 2);
            let mut loss = declare(epoch, second, (&Reason::Evicted).into());
            insert(&mut loss, first);
            let held: Vec<u64> = loss.ranges.iter().flat_map(|(from, to)| *from..=*to).collect();
            prop_assert_eq!(held, numbers.into_iter().collect::<Vec<_>>());
            prop_assert!(loss.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
