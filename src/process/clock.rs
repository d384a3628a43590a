//! Clocks: the only place that asks the time. All other code takes it as an argument.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, SubsecRound as _, TimeDelta, Utc};
use rustix::time::{ClockId, clock_gettime};

/// `monotonic` is `CLOCK_MONOTONIC` (time awake, for rates), `boottime` is `CLOCK_BOOTTIME` (time suspended too). `wall` has whole
/// microseconds, the precision of PostgreSQL, so that a stored time equals the one sent.
pub trait Clock {
    fn monotonic(&self) -> Duration;

    fn boottime(&self) -> Duration;

    fn wall(&self) -> DateTime<Utc>;

    fn synced(&self) -> Option<bool>;
}

#[derive(Clone, Debug)]
pub struct SystemClock {
    root: PathBuf,
    synced: Cell<Option<(Duration, Option<bool>)>>,
}

/// Time for which `synced` is not asked again: a clock is synchronised once after a boot, not worth a file access each tick.
const SYNCED_FOR: Duration = Duration::from_secs(10);

/// 2025-01-01: a clock before it was never set, as on machines without a battery.
const NEVER_SET_BEFORE_S: i64 = 1_735_689_600;

impl SystemClock {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), synced: Cell::new(None) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new(Path::new("/"))
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        since_zero(ClockId::Monotonic)
    }

    fn boottime(&self) -> Duration {
        since_zero(BOOTTIME)
    }

    fn wall(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }

    /// Looks for the file that systemd-timesyncd creates once it has set the clock (systemd-timesyncd.service(8)).
    fn synced(&self) -> Option<bool> {
        if self.wall().timestamp() < NEVER_SET_BEFORE_S {
            return Some(false);
        }
        let now = self.monotonic();
        match self.synced.get() {
            Some((until, synced)) if now < until => synced,
            _ => {
                let synced = self.root.join("run/systemd/timesync/synchronized").exists().then_some(true);
                self.synced.set(Some((now + SYNCED_FOR, synced)));
                synced
            }
        }
    }
}

/// Formats in whole seconds: `2026-11-20T12:00:00Z`.
pub fn rfc3339_seconds(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(target_os = "linux")]
const BOOTTIME: ClockId = ClockId::Boottime;
/// Other systems have no such clock: a suspend cannot be detected there.
#[cfg(not(target_os = "linux"))]
const BOOTTIME: ClockId = ClockId::Monotonic;

fn since_zero(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Clock that only its owner moves: monotonic, boot and wall time, which clones share.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Rc<Cell<(Duration, Duration, DateTime<Utc>)>>,
    synced: Option<bool>,
}

impl ManualClock {
    pub fn new(wall: DateTime<Utc>) -> Self {
        let hour = Duration::from_secs(3600);
        Self { now: Rc::new(Cell::new((hour, hour, wall))), synced: Some(true) }
    }

    pub fn advance(&self, by: Duration) {
        let (monotonic, boottime, wall) = self.now.get();
        self.now.set((monotonic + by, boottime + by, shifted(wall, by)));
    }

    pub fn suspend(&self, by: Duration) {
        let (monotonic, boottime, wall) = self.now.get();
        self.now.set((monotonic, boottime + by, shifted(wall, by)));
    }
}

fn shifted(wall: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    wall + TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX)
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.now.get().0
    }

    fn boottime(&self) -> Duration {
        self.now.get().1
    }

    fn wall(&self) -> DateTime<Utc> {
        self.now.get().2
    }

    fn synced(&self) -> Option<bool> {
        self.synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clocks_go_forward() {
        let clock = SystemClock::default();
        let before = (clock.monotonic(), clock.boottime());
        assert!(clock.monotonic() >= before.0 && clock.boottime() >= before.1);
        assert_eq!(clock.wall().timestamp_subsec_nanos() % 1_000, 0);
    }

    #[test]
    fn says_that_the_clock_is_synchronised_only_where_somebody_says_so() {
        let root = tempfile::tempdir().unwrap();
        let clock = SystemClock::new(root.path());
        assert_eq!(clock.synced(), None);
        std::fs::create_dir_all(root.path().join("run/systemd/timesync")).unwrap();
        std::fs::write(root.path().join("run/systemd/timesync/synchronized"), "").unwrap();
        assert_eq!(clock.synced(), None, "it is not asked each tick");
        assert_eq!(SystemClock::new(root.path()).synced(), Some(true));
    }

    #[test]
    fn a_suspend_moves_all_but_the_monotonic_clock() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let (monotonic, boottime) = (clock.monotonic(), clock.boottime());
        clock.suspend(Duration::from_secs(60));
        assert_eq!(clock.monotonic(), monotonic);
        assert_eq!(clock.boottime(), boottime + Duration::from_secs(60));
        assert_eq!(clock.wall().timestamp(), 60);
    }
}
