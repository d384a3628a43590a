//! Retention on a thread of its own: storing never waits for it. A round's own thread is abandoned if the database never answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use log::Level;

use super::store_thread::AnswerDeadline;
use crate::consumer::config::Settings;
use crate::consumer::store::{Maintained, Maintenance, Retention, StoreError};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::failpoints;
use crate::process::log_throttle::LogThrottle;
use crate::units::{counted, lasting};

const FIRST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(3600);
const PAUSE_UNFINISHED: Duration = Duration::from_secs(60);
const BUDGET: Duration = Duration::from_secs(300);
const STOP_POLL: Duration = Duration::from_millis(200);

/// Time without a finished round after which this is a warning: tables grow, and the lock is not that of a short query.
const UNFINISHED_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) struct MaintenanceThread(Arc<AtomicBool>);

impl MaintenanceThread {
    pub(super) fn start(settings: &Settings, instance: String) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, retention) = (Arc::clone(&stop), settings.retention);
        let (url, options) = (settings.store.clone(), settings.store_options(instance));
        let rounds = move || {
            let (clock, mut log) = (SystemClock::default(), RoundLog::default());
            let sleep = |pause| sleep(&clock, pause, &stopped);
            repeat(sleep, || {
                let result = round(url.maintenance(&options), retention, &clock, &stopped);
                // After a reload another thread begins a round of its own.
                log.write(&result, stopped.load(Ordering::Relaxed), clock.monotonic())
            });
        };
        std::thread::Builder::new().name("maintenance".into()).spawn(rounds)?;
        Ok(Self(stop))
    }
}

impl Drop for MaintenanceThread {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Repeats `round`, which returns whether it was finished. However long that took, the database rests for a pause after it.
fn repeat(sleep: impl Fn(Duration) -> bool, mut round: impl FnMut() -> bool) {
    let mut pause = failpoints::duration("maintenance-first-s", FIRST);
    while sleep(pause) {
        pause = if round() { PAUSE } else { PAUSE_UNFINISHED };
        pause = failpoints::duration("maintenance-pause-s", pause);
    }
}

fn round(
    mut maintenance: Box<dyn Maintenance + Send>,
    retention: Retention,
    clock: &SystemClock,
    stop: &AtomicBool,
) -> Result<Maintained, StoreError> {
    let progress = maintenance.progress();
    let (sender, answer) = channel();
    let work = move || {
        let _ = sender.send(maintenance.run(&retention, None, BUDGET));
    };
    let thread = std::thread::Builder::new().name("retention".into()).spawn(work);
    thread.map_err(|error| StoreError::Unavailable(format!("no thread could be started: {error}")))?;
    let (mut wait, mut stopped) = (AnswerDeadline::new(clock.monotonic(), &progress), None);
    loop {
        match answer.recv_timeout(STOP_POLL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(StoreError::Unavailable("its thread has ended; see above".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = clock.monotonic();
        let stopping_for = stop.load(Ordering::Relaxed).then(|| now.saturating_sub(*stopped.get_or_insert(now)));
        if let Some(error) = wait.check(&progress, now, stopping_for) {
            // Should the answer come after all, the round ends with it.
            progress.stop();
            return Err(error);
        }
    }
}

fn sleep(clock: &SystemClock, pause: Duration, stop: &AtomicBool) -> bool {
    let until = clock.monotonic() + pause;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(STOP_POLL));
    }
    false
}

#[derive(Default)]
struct RoundLog {
    throttle: LogThrottle,
    unfinished_since: Option<Duration>,
}

impl RoundLog {
    fn write(&mut self, result: &Result<Maintained, StoreError>, is_stopped: bool, now: Duration) -> bool {
        match result {
            Ok(Maintained { deleted, dropped, unfinished }) => {
                for partition in dropped {
                    log::info!("retention: dropped {partition}");
                }
                if !deleted.is_empty() {
                    let deleted: Vec<String> =
                        deleted.iter().map(|(table, rows)| format!("{} of {table}", counted(*rows, "row"))).collect();
                    log::info!("retention: deleted {}", deleted.join(", "));
                }
                match unfinished {
                    Some(_) if is_stopped => {}
                    Some(why) => {
                        if let Some((level, line)) = self.unfinished(why, now) {
                            log::log!(level, "retention: {line}");
                        }
                    }
                    None => self.unfinished_since = None,
                }
                unfinished.is_none()
            }
            Err(_) if is_stopped => false,
            Err(error @ StoreError::Pooled(_)) => {
                // The store's thread reports it as an ERROR.
                log::debug!("retention: {error}; retrying in a minute");
                false
            }
            Err(error) => {
                if let Some(line) = self.throttle.admit(&error.to_string(), now) {
                    log::warn!("retention: {line}; retrying in a minute");
                }
                false
            }
        }
    }

    fn unfinished(&mut self, why: &str, now: Duration) -> Option<(Level, String)> {
        let unfinished_for = now.saturating_sub(*self.unfinished_since.get_or_insert(now));
        let why = self.throttle.admit(why, now)?;
        if unfinished_for < UNFINISHED_MAX {
            return Some((Level::Info, format!("{why}; continuing in a minute")));
        }
        Some((Level::Warn, format!("{why}; not finished for {}; retrying in a minute", lasting(unfinished_for))))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn a_pause_is_counted_from_the_end_of_a_round() {
        let (now, slept) = (Cell::new(Duration::ZERO), RefCell::new(Vec::new()));
        let sleep = |pause: Duration| {
            slept.borrow_mut().push((now.get(), pause));
            now.set(now.get() + pause);
            slept.borrow().len() < 4
        };
        let mut ends = [false, true, false].into_iter();
        let round_takes = Duration::from_secs(1000);
        repeat(sleep, || {
            now.set(now.get() + round_takes);
            ends.next().expect("no round after the stop")
        });
        let (mut at, mut expected) = (Duration::ZERO, Vec::new());
        for pause in [FIRST, PAUSE_UNFINISHED, PAUSE, PAUSE_UNFINISHED] {
            expected.push((at, pause));
            at += pause + round_takes;
        }
        assert_eq!(*slept.borrow(), expected);
    }

    #[test]
    fn a_table_that_is_never_free_becomes_a_warning() {
        let (mut log, in_use) = (RoundLog::default(), "events_20261124 is in use");
        let unfinished = || Ok(Maintained { unfinished: Some(in_use.to_owned()), ..Maintained::default() });
        let first = (Level::Info, format!("{in_use}; continuing in a minute"));
        assert_eq!(log.unfinished(in_use, Duration::ZERO), Some(first.clone()));
        assert_eq!(log.unfinished(in_use, PAUSE_UNFINISHED), None, "once a minute would fill the log");
        let (level, line) = log.unfinished(in_use, UNFINISHED_MAX).expect("it was silent for a day");
        assert_eq!(level, Level::Warn);
        assert!(line.contains(in_use) && line.contains("not finished for 1 d"), "{line}");
        assert!(log.write(&Ok(Maintained::default()), false, UNFINISHED_MAX), "it is finished");
        assert!(!log.write(&unfinished(), false, UNFINISHED_MAX * 2));
        assert_eq!(log.unfinished(in_use, UNFINISHED_MAX * 3 - PAUSE).map(|(level, _)| level), Some(Level::Info));
    }
}
