//! Breaches open when the agent ended, resumed or interrupted by `CLOCK_BOOTTIME`; after a reboot, by a synchronised wall clock.

use std::time::Duration;

use crate::message::age::Age;
use crate::message::{Breach, Direction, Reason, Stamp};

#[derive(Debug, Default)]
pub struct Resume {
    open: Vec<(Breach, Stamp)>,
    within: Duration,
    began_ms: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    None,
    Wait,
    Resumed(Breach, Duration),
    Interrupted(Breach),
}

impl Resume {
    pub fn new(open: Vec<(Breach, Stamp)>, within: Duration, now: &Stamp) -> Self {
        Self { open, within, began_ms: now.monotonic_ms }
    }

    pub fn waiting(&self) -> &[(Breach, Stamp)] {
        &self.open
    }

    pub fn decide(&mut self, limit: &str, interface: &str, direction: Direction, now: &Stamp) -> Decision {
        let found = self.open.iter().position(|(breach, _)| {
            breach.limit_name == limit && breach.interface == interface && breach.direction == direction
        });
        let Some(at) = found else { return Decision::None };
        let age = Age::of(&self.open[at].1, now);
        if age == Age::NotYetKnown && self.waited(now) <= self.within {
            return Decision::Wait;
        }
        let (breach, stamp) = self.open.remove(at);
        match age {
            Age::Known(age) if age <= self.within => {
                let until_event = (stamp.observed_at - breach.ended_at).to_std().unwrap_or_default();
                Decision::Resumed(breach, until_event + age)
            }
            _ => Decision::Interrupted(interrupted(breach, Reason::Interrupted)),
        }
    }

    pub fn overdue(&mut self, now: &Stamp, known: impl Fn(&str) -> bool) -> Vec<Breach> {
        let (within, waited) = (self.within, self.waited(now));
        let gone = self.open.extract_if(.., |(breach, stamp)| {
            let late = match Age::of(stamp, now) {
                Age::Known(age) => age > within,
                Age::NotYetKnown => waited > within,
                Age::Future | Age::Unknown => true,
            };
            late || !known(&breach.limit_name)
        });
        gone.map(|(breach, _)| {
            let reason = if known(&breach.limit_name) { Reason::Interrupted } else { Reason::LimitRemoved };
            interrupted(breach, reason)
        })
        .collect()
    }

    fn waited(&self, now: &Stamp) -> Duration {
        Duration::from_millis(now.monotonic_ms.saturating_sub(self.began_ms))
    }
}

fn interrupted(breach: Breach, reason: Reason) -> Breach {
    Breach { reason: Some(reason), detail: None, ..breach }
}
