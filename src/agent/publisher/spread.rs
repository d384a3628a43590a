//! Spreads a fleet started together, as after a power cut: each agent has its place in a flush interval and its pace of retries.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

/// Fraction from 0 to 1, evenly distributed over names and constant for one name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread(f64);

impl Spread {
    pub fn of(agent: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        agent.hash(&mut hasher);
        Self((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    pub(super) fn within(self, interval: Duration) -> Duration {
        interval.mul_f64(self.0)
    }

    pub(super) fn shorten(self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.0 / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_spread_over_the_whole_interval() {
        let minute = Duration::from_secs(60);
        let mut flushes = [0; 10];
        for number in 0..1_000 {
            let spread = Spread::of(&format!("gw-{number:03}"));
            let phase = spread.within(minute);
            assert!(phase < minute && phase == Spread::of(&format!("gw-{number:03}")).within(minute));
            assert!((minute / 2..=minute).contains(&spread.shorten(minute)));
            flushes[phase.as_secs() as usize / 6] += 1;
        }
        assert!(flushes.iter().all(|flushes| (60..=140).contains(flushes)), "{flushes:?}");
    }
}
