//! Time of the loop, and its sign of life for systemd and for a watchdog of its own, which ends a process that is stuck in a call
//! without a time-out (a paused server, a connection that drops packets). Nothing is lost: the next process connects again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use signal_hook::low_level;

use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Status;
use crate::process::failpoints;
use crate::process::systemd::Notifier;
use crate::process::watchdog::{Heartbeat, Stall};
use crate::units::lasting;

/// Longest step of a round: more than any statement of one may take.
const STEP_MAX: Duration = Duration::from_secs(5 * 60);
const WATCHDOG_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Liveness<'a> {
    clock: SystemClock,
    heartbeat: Heartbeat,
    pub(super) notifier: Notifier,
    stop: &'a AtomicBool,
    stopped: Option<Duration>,
}

impl<'a> Liveness<'a> {
    pub(super) fn start(watchdog: bool, stop: &'a AtomicBool) -> std::io::Result<Self> {
        let heartbeat = Heartbeat::default();
        if watchdog {
            heartbeat.watch(WATCHDOG_EVERY, failpoints::duration("step-max-s", STEP_MAX), exit_stuck)?;
        }
        Ok(Self {
            clock: SystemClock::default(),
            heartbeat,
            notifier: Notifier::ready(Duration::ZERO),
            stop,
            stopped: None,
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn wall(&self) -> DateTime<Utc> {
        self.clock.wall()
    }

    pub(super) fn step(&self, doing: &'static str) -> Duration {
        let now = self.now();
        self.heartbeat.enter(doing, now);
        now
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn stopping_for(&mut self, now: Duration) -> Option<Duration> {
        self.is_stopping().then(|| now.saturating_sub(*self.stopped.get_or_insert(now)))
    }
}

/// Exits at once: an orderly end may get stuck as well.
fn exit_stuck(Stall { doing, time }: Stall) {
    log::error!("the consumer has been stuck for {}, {doing}: exiting, so that systemd restarts it", lasting(time));
    low_level::exit(Status::Failed as i32);
}
