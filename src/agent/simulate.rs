//! Agents that do not exist, on hosts that do not exist: made-up counters through the real rates, limits and detector.
//!
//! A fleet lives in steps of a simulated second. What its agents see follows from the seed alone; their epochs do not, so that a
//! second run adds to the first.

use std::time::Duration;

use chrono::{DateTime, Utc};
use smol_str::format_smolstr;

use crate::agent::counters::synthetic::{Shape, Synthetic};
use crate::agent::counters::{CounterError, CounterSource as _, Reading};
use crate::agent::detector::{Detections, Detector};
use crate::agent::event_system::Draft;
use crate::agent::limit::Limit;
use crate::agent::watch::Selection;
use crate::clock::{Clock as _, ManualClock};
use crate::event::Stamp;

/// A tick of simulated time.
pub const TICK: Duration = Duration::from_secs(1);

/// Agents that live at the same time.
pub struct Fleet {
    agents: Vec<Agent>,
    clock: ManualClock,
    reading: Reading,
    detections: Detections,
    /// How many events the last second had.
    told: usize,
}

struct Agent {
    source: Synthetic,
    detector: Detector,
    stamp: Stamp,
}

impl Fleet {
    /// The agents of these numbers, from `start` on.
    pub fn new(numbers: std::ops::Range<u32>, shape: Shape, limits: &[Limit], start: DateTime<Utc>) -> Self {
        let agents = numbers.map(|number| Agent::new(number, shape, limits, start)).collect();
        let (reading, detections) = Default::default();
        Self { agents, clock: ManualClock::new(start), reading, detections, told: 0 }
    }

    /// Lets a second pass; what the agents have to tell.
    ///
    /// # Errors
    /// None, as long as made-up counters can be read.
    pub fn tick(&mut self) -> Result<Vec<Draft>, CounterError> {
        let Self { agents, clock, reading, detections, told } = self;
        let (observed_at, monotonic_ms) = (clock.wall(), clock.boottime().as_millis() as u64);
        // A second has about as much to tell as the one before.
        let mut drafts = Vec::with_capacity(*told + *told / 8);
        for Agent { source, detector, stamp } in agents {
            (stamp.observed_at, stamp.monotonic_ms) = (observed_at, monotonic_ms);
            source.read(&*clock, reading)?;
            detector.observe(reading, stamp, detections);
            drafts.extend(detections.bodies.drain(..).map(|body| Draft { stamp: stamp.clone(), body }));
        }
        clock.advance(TICK);
        *told = drafts.len();
        Ok(drafts)
    }
}

impl Agent {
    fn new(number: u32, shape: Shape, limits: &[Limit], start: DateTime<Utc>) -> Self {
        let seed = fastrand::Rng::with_seed(shape.seed ^ (u64::from(number) << 32)).u64(..);
        let stamp = Stamp {
            agent: format_smolstr!("sim-{number:06}"),
            observed_at: start,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: Some(true),
        };
        Self {
            source: Synthetic::new(Shape { seed, ..shape }, Selection::default()),
            // Breaches are told apart from run to run, and so their ids are not seeded.
            detector: Detector::new(limits.to_vec(), TICK, fastrand::u64(..)),
            stamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::limit::{Level, Scope};
    use crate::event::{Body, Direction, Severity};
    use crate::units::BitRate;

    fn limit() -> Limit {
        Limit {
            name: "simulated".into(),
            scope: Scope::Interface("*".into()),
            directions: vec![Direction::Rx],
            raise_at: Level::Rate(BitRate::from_bps(20_000_000)),
            clear_at: Level::Rate(BitRate::from_bps(18_000_000)),
            hold: Duration::ZERO,
            clear_hold: Duration::ZERO,
            severity: Severity::Warning,
            update_every: TICK,
        }
    }

    #[test]
    fn the_seed_makes_the_series() {
        let run = |seed| {
            let shape = Shape { seed, interfaces: 4, troubles: true };
            let mut fleet = Fleet::new(3..6, shape, &[limit()], DateTime::UNIX_EPOCH);
            let drafts: Vec<Draft> = (0..600).flat_map(|_| fleet.tick().unwrap()).collect();
            let told = |draft: &Draft| {
                let rate = draft.body.breach().map(|breach| (breach.interface.clone(), breach.rate_bps));
                (draft.stamp.clone(), draft.body.kind().to_owned(), rate)
            };
            drafts.iter().map(told).collect::<Vec<_>>()
        };
        let first = run(1);
        assert_eq!(first, run(1));
        assert_ne!(first, run(2));
        let agents: std::collections::BTreeSet<_> = first.iter().map(|(stamp, ..)| &stamp.agent).collect();
        assert_eq!(agents.len(), 3);
        for kind in ["breach_raised", "breach_updated", "breach_cleared", "link_removed", "link_added"] {
            assert!(first.iter().any(|(_, told, _)| told == kind), "{kind}");
        }
    }

    #[test]
    fn no_trouble_of_a_counter_is_told_as_traffic() {
        let shape = Shape { seed: 3, interfaces: 8, troubles: true };
        let mut fleet = Fleet::new(0..5, shape, &[limit()], DateTime::UNIX_EPOCH);
        for draft in (0..3_000).flat_map(|_| fleet.tick().unwrap()) {
            if let Body::BreachRaised(breach) | Body::BreachUpdated(breach) = &draft.body {
                assert!(breach.peak_bps <= 100_000_000, "{breach:?}");
            }
        }
    }
}
