//! Breaches that were open when the agent ended: whether they go on, or were interrupted.
//!
//! Pure. In one boot their age is told by `CLOCK_BOOTTIME`; after a reboot by the wall clock, once it is synchronised.

use std::time::Duration;

use crate::event::{Breach, Direction, Reason, Stamp};

/// The breaches that wait to be taken up.
#[derive(Debug, Default)]
pub struct Resume {
    open: Vec<(Breach, Stamp)>,
    within_ms: u64,
    began_ms: u64,
}

/// What becomes of a breach whose link has a rate again.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is none.
    None,
    /// Nobody knows yet what time it is.
    Wait,
    /// It goes on, so long after its `ended_at`.
    Resumed(Breach, Duration),
    /// Too much time has passed, or nobody can say how much: it ends.
    Interrupted(Breach),
}

impl Resume {
    /// Each breach as it stood, and when; `within` is measured from there.
    pub fn new(open: Vec<(Breach, Stamp)>, within: Duration, now: &Stamp) -> Self {
        Self { open, within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX), began_ms: now.monotonic_ms }
    }

    /// Those that nothing has taken up yet.
    pub fn waiting(&self) -> &[(Breach, Stamp)] {
        &self.open
    }

    /// A rate of `interface` is about to be held against `limit`: is a breach of it waiting?
    pub fn decide(&mut self, limit: &str, interface: &str, direction: Direction, now: &Stamp) -> Decision {
        let found = self.open.iter().position(|(breach, _)| {
            breach.limit_name == limit && breach.interface == interface && breach.direction == direction
        });
        let Some(at) = found else { return Decision::None };
        let age = age_ms(&self.open[at].1, now);
        if age == Age::Unknown && now.monotonic_ms.saturating_sub(self.began_ms) <= self.within_ms {
            return Decision::Wait;
        }
        let (breach, stamp) = self.open.remove(at);
        match age {
            Age::Ms(age) if age <= self.within_ms => {
                let until_event = (stamp.observed_at - breach.ended_at).to_std().unwrap_or_default();
                Decision::Resumed(breach, until_event + Duration::from_millis(age))
            }
            _ => Decision::Interrupted(interrupted(breach, Reason::Interrupted)),
        }
    }

    /// Those that nothing can take up any more: their time is over, or `known` no longer has their limit.
    pub fn overdue(&mut self, now: &Stamp, known: impl Fn(&str) -> bool) -> Vec<Breach> {
        let (within_ms, waited_ms) = (self.within_ms, now.monotonic_ms.saturating_sub(self.began_ms));
        let gone = self.open.extract_if(.., |(breach, stamp)| {
            let late = match age_ms(stamp, now) {
                Age::Ms(age) => age > within_ms,
                Age::Unknown => waited_ms > within_ms,
                Age::Future => true,
            };
            late || !known(&breach.limit_name)
        });
        gone.map(|(breach, _)| {
            let reason = if known(&breach.limit_name) { Reason::Interrupted } else { Reason::LimitRemoved };
            interrupted(breach, reason)
        })
        .collect()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Age {
    Ms(u64),
    /// The clock is behind the event.
    Future,
    /// The clock was never set.
    Unknown,
}

fn age_ms(event: &Stamp, now: &Stamp) -> Age {
    if event.boot_id == now.boot_id && !now.boot_id.is_empty() {
        return now.monotonic_ms.checked_sub(event.monotonic_ms).map_or(Age::Future, Age::Ms);
    }
    if now.clock_synced == Some(false) {
        return Age::Unknown;
    }
    u64::try_from((now.observed_at - event.observed_at).num_milliseconds()).map_or(Age::Future, Age::Ms)
}

fn interrupted(breach: Breach, reason: Reason) -> Breach {
    Breach { reason: Some(reason), detail: None, ..breach }
}
