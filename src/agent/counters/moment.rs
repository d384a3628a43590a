//! The moment of a reading, by two clocks at once.

use std::time::Duration;

use super::Reading;
use crate::process::clock::Clock;

/// Longest time that reading both clocks may take; if it takes longer, the process was not running in between.
const APART_MAX: Duration = Duration::from_millis(1);
const ATTEMPTS_MAX: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    monotonic: Duration,
    boottime: Duration,
}

impl Moment {
    pub(super) fn now(clock: &dyn Clock) -> Self {
        let mut before = clock.monotonic();
        for attempt in 1.. {
            let boottime = clock.boottime();
            let after = clock.monotonic();
            let apart = after.saturating_sub(before);
            if apart <= APART_MAX || attempt == ATTEMPTS_MAX {
                return Self { monotonic: before + apart / 2, boottime };
            }
            before = after;
        }
        unreachable!("the last attempt returns")
    }

    pub(super) fn midway(self, later: Self) -> Self {
        let middle = |from: Duration, to: Duration| from + to.saturating_sub(from) / 2;
        Self { monotonic: middle(self.monotonic, later.monotonic), boottime: middle(self.boottime, later.boottime) }
    }

    pub(super) fn stamp(self, reading: &mut Reading) {
        (reading.at, reading.boottime) = (self.monotonic, self.boottime);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use chrono::{DateTime, Utc};

    use super::*;
    use crate::process::clock::ManualClock;

    /// A clock on which time passes as it is read: before each read, by the next of `pauses`, or by 1 µs.
    pub(in super::super) struct BusyClock {
        clock: ManualClock,
        pauses: RefCell<VecDeque<Duration>>,
    }

    impl BusyClock {
        pub(in super::super) fn new(pauses_ms: &[u64]) -> Self {
            let pauses = pauses_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
            Self { clock: ManualClock::new(DateTime::UNIX_EPOCH), pauses: RefCell::new(pauses) }
        }

        fn pass(&self) {
            self.clock.advance(self.pauses.borrow_mut().pop_front().unwrap_or(Duration::from_micros(1)));
        }
    }

    impl Clock for BusyClock {
        fn monotonic(&self) -> Duration {
            self.pass();
            self.clock.monotonic()
        }

        fn boottime(&self) -> Duration {
            self.pass();
            self.clock.boottime()
        }

        fn wall(&self) -> DateTime<Utc> {
            self.clock.wall()
        }

        fn synced(&self) -> Option<bool> {
            self.clock.synced()
        }
    }

    fn apart(moment: Moment) -> Duration {
        moment.boottime.abs_diff(moment.monotonic)
    }

    #[test]
    fn both_clocks_are_of_one_moment_whatever_comes_between() {
        for pauses_ms in [&[0][..], &[0, 100, 0], &[0, 0, 250, 0], &[0, 90, 90, 90, 0]] {
            let moment = Moment::now(&BusyClock::new(pauses_ms));
            assert!(apart(moment) <= APART_MAX, "{pauses_ms:?}: {moment:?}");
        }
        // A clock that never settles: the attempts end all the same.
        let moment = Moment::now(&BusyClock::new(&[100; 50]));
        assert!(apart(moment) <= Duration::from_millis(100));
    }

    #[test]
    fn a_slow_reading_is_stamped_in_its_middle_by_both_clocks() {
        let clock = BusyClock::new(&[0, 0, 0, 400]);
        let start = Moment::now(&clock);
        let middle = start.midway(Moment::now(&clock));
        assert!(apart(middle) <= APART_MAX, "{middle:?}");
        let after = middle.monotonic - start.monotonic;
        assert!(after.abs_diff(Duration::from_millis(200)) < APART_MAX, "{after:?}");
    }
}
