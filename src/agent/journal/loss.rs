use log::error;

use super::Position;
use crate::message::{Body, Epoch, Event, EventId, Loss, NewEvent, Reason};
use crate::units::counted;

/// Ranges in one event, of at most 40 bytes each: the event must fit into a message.
const RANGES_MAX: usize = 500;
const LOG_EVERY_MS: u64 = 60_000;

/// Inclusive and ascending ranges of numbers of one epoch.
pub(in crate::agent) type Ranges = Vec<(u64, u64)>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounts {
    pub evicted: u64,
    pub expired: u64,
    pub rejected: u64,
    pub damaged: u64,
}

impl LossCounts {
    pub fn total(&self) -> u64 {
        self.evicted + self.expired + self.rejected + self.damaged
    }

    pub(super) fn add(&mut self, loss: &Loss, events: u64) {
        let count = match loss.reason {
            Reason::Evicted => &mut self.evicted,
            Reason::Expired => &mut self.expired,
            Reason::Damaged => &mut self.damaged,
            // The number of samples lost is not known.
            Reason::Interrupted => return,
            _ => &mut self.rejected,
        };
        *count = count.saturating_add(events);
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            evicted: self.evicted.saturating_add(other.evicted),
            expired: self.expired.saturating_add(other.expired),
            rejected: self.rejected.saturating_add(other.rejected),
            damaged: self.damaged.saturating_add(other.damaged),
        }
    }
}

/// Logs losses by reason, many evictions in one line. Losses of a damaged journal are logged where it is replaced.
#[derive(Debug, Default)]
pub(super) struct LossLog {
    evicted: Logged,
    expired: Logged,
    rejected: Logged,
}

#[derive(Debug, Default)]
struct Logged {
    events: u64,
    next_ms: u64,
}

impl LossLog {
    pub(super) fn log(&mut self, lost: &LossCounts, now_ms: u64) {
        for line in self.lines(lost, now_ms) {
            error!("{line}");
        }
    }

    fn lines(&mut self, lost: &LossCounts, now_ms: u64) -> Vec<String> {
        let reasons = [
            (&mut self.evicted, lost.evicted, "evicted, because the journal is full (journal.max_size)"),
            (&mut self.expired, lost.expired, "expired, because they are older than journal.max_age"),
            (&mut self.rejected, lost.rejected, "rejected by Kafka"),
        ];
        let due = reasons.into_iter().filter(|(logged, lost, _)| *lost > logged.events && now_ms >= logged.next_ms);
        due.map(|(logged, lost, reason)| {
            let events = lost - logged.events;
            *logged = Logged { events: lost, next_ms: now_ms.saturating_add(LOG_EVERY_MS) };
            format!("{} lost, and declared: {reason}; {lost} since the start", counted(events, "event"))
        })
        .collect()
    }
}

#[derive(Clone, Debug)]
pub(super) struct OpenDeclaration {
    pub(super) position: Position,
    pub(super) event: Event,
}

pub(super) fn extend<'a>(open: &'a mut Option<OpenDeclaration>, more: &Loss) -> Option<&'a OpenDeclaration> {
    let open = open.as_mut()?;
    match &mut open.event.body {
        Body::Loss(loss) if (loss.epoch, &loss.reason, &loss.detail) == (more.epoch, &more.reason, &more.detail) => {
            loss.ranges = union(loss.ranges.iter().chain(&more.ranges).copied());
        }
        _ => return None,
    }
    Some(open)
}

pub(super) fn bounds(body: &Body) -> Option<(Epoch, (u64, u64))> {
    let Body::Loss(Loss { epoch, ranges, .. }) = body else { return None };
    Some((*epoch, (ranges.first()?.0, ranges.last()?.1)))
}

pub(in crate::agent) fn declare(ids: &[EventId], reason: &Reason, detail: Option<&str>) -> Vec<Loss> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let epochs = ids.chunk_by(|a, b| a.epoch == b.epoch);
    let loss = |ids: &[EventId]| Loss {
        epoch: ids[0].epoch,
        ranges: union(ids.iter().map(|id| (id.seq, id.seq))),
        reason: reason.clone(),
        detail: detail.map(str::to_owned),
    };
    epochs.map(loss).collect()
}

/// Limits a `loss` event to [`RANGES_MAX`] ranges, and returns the others as further `loss` events.
pub(super) fn split(event: &mut Event) -> Vec<NewEvent> {
    let Body::Loss(loss) = &mut event.body else { return Vec::new() };
    let rest = loss.ranges.split_off(loss.ranges.len().min(RANGES_MAX));
    let part = |ranges: &[_]| Body::Loss(Loss { ranges: ranges.to_vec(), ..loss.clone() });
    rest.chunks(RANGES_MAX).map(|ranges| NewEvent { stamp: event.stamp.clone(), body: part(ranges) }).collect()
}

pub(in crate::agent) fn union(ranges: impl IntoIterator<Item = (u64, u64)>) -> Ranges {
    let mut all: Ranges = ranges.into_iter().collect();
    all.sort_unstable();
    let mut apart = Ranges::new();
    for (from, to) in all {
        match apart.last_mut() {
            Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
            _ => apart.push((from, to)),
        }
    }
    apart
}

pub(super) fn subtract(ranges: &[(u64, u64)], known: impl IntoIterator<Item = (u64, u64)>) -> Ranges {
    let known = union(known);
    let mut rest = Ranges::new();
    for &(first, last) in ranges {
        let mut from = Some(first);
        for &(known_first, known_last) in &known[known.partition_point(|(_, to)| *to < first)..] {
            let Some(begin) = from.filter(|begin| *begin <= last) else { break };
            if known_first > last {
                break;
            }
            if begin < known_first {
                rest.push((begin, known_first - 1));
            }
            from = known_last.checked_add(1);
        }
        if let Some(begin) = from.filter(|begin| *begin <= last) {
            rest.push((begin, last));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(from, to)| *from..=*to).collect()
    }

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_lost(lost in proptest::collection::btree_set(1..200_u64, 2..60)) {
            let epoch = Epoch(7);
            let ids: Vec<_> = lost.iter().map(|seq| EventId { epoch, seq: *seq }).collect();
            let (first, second) = ids.split_at(ids.len() / 2);
            let [first, second] = [first, second].map(|ids| declare(ids, &Reason::Evicted, None).remove(0).ranges);
            let ranges = union(second.into_iter().chain(first));
            prop_assert_eq!(numbers(&ranges), lost);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }

        #[test]
        fn subtraction_leaves_what_is_not_known(
            lost in proptest::collection::btree_set(0..60_u64, 0..40),
            known in proptest::collection::vec((0..60_u64, 0..9_u64), 0..8),
        ) {
            let known: Ranges = known.into_iter().map(|(first, length)| (first, first + length)).collect();
            let ranges = union(lost.iter().map(|seq| (*seq, *seq)));
            let rest = numbers(&subtract(&ranges, known.iter().copied()));
            prop_assert_eq!(rest, &lost - &numbers(&known));
        }
    }

    #[test]
    fn subtraction_reaches_the_last_number() {
        assert_eq!(subtract(&[(1, u64::MAX)], [(5, u64::MAX)]), [(1, 4)]);
        assert_eq!(subtract(&[(1, u64::MAX)], [(0, 7)]), [(8, u64::MAX)]);
    }

    #[test]
    fn many_losses_are_one_line_in_a_minute_and_none_is_left_out() {
        let mut log = LossLog::default();
        let lost = |evicted, expired| LossCounts { evicted, expired, ..LossCounts::default() };
        assert!(log.lines(&lost(0, 0), 1_000).is_empty());
        assert!(log.lines(&lost(64, 0), 2_000)[0].starts_with("64 events lost, and declared: evicted"));
        for second in 3..60 {
            assert!(log.lines(&lost(64 * second, 0), second * 1_000).is_empty());
        }
        assert!(log.lines(&lost(3_776, 2), 60_000)[0].starts_with("2 events lost, and declared: expired"));
        let line = &log.lines(&lost(5_952, 2), 62_000)[0];
        assert!(line.starts_with("5888 events lost") && line.ends_with("5952 since the start"), "{line}");
    }
}
