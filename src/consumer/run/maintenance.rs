//! Retention, on a thread with a session of its own: storing never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{Clock as _, SystemClock};
use crate::consumer::config::Settings;
use crate::consumer::store::{Maintained, StoreError};
use crate::failpoints;
use crate::kafka::LogThrottle;
use crate::units::counted;

const FIRST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(3600);
const PAUSE_UNFINISHED: Duration = Duration::from_secs(60);
const BUDGET: Duration = Duration::from_secs(300);
const HEARS: Duration = Duration::from_millis(200);

/// The thread; it ends when this is dropped.
pub(super) struct MaintenanceThread(Arc<AtomicBool>);

impl MaintenanceThread {
    pub(super) fn start(settings: &Settings, instance: String) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, retention) = (Arc::clone(&stop), settings.retention);
        let mut maintenance = settings.store.maintenance(&settings.store_options(instance));
        let rounds = move || {
            let (clock, trouble) = (SystemClock::default(), LogThrottle::default());
            let mut pause = failpoints::duration("maintenance-first-s", FIRST);
            while sleep(&clock, pause, &stopped) {
                let result = maintenance.run(&retention, clock.wall(), BUDGET, &stopped);
                pause = if tell(&result, &trouble, clock.monotonic()) { PAUSE } else { PAUSE_UNFINISHED };
            }
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

fn sleep(clock: &SystemClock, pause: Duration, stop: &AtomicBool) -> bool {
    let until = clock.monotonic() + pause;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(HEARS));
    }
    false
}

fn tell(result: &Result<Maintained, StoreError>, trouble: &LogThrottle, now: Duration) -> bool {
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
            if let Some(why) = unfinished {
                log::info!("retention: {why}; going on in a minute");
            }
            unfinished.is_none()
        }
        Err(error) => {
            if let Some(line) = trouble.seen(&error.to_string(), now) {
                log::warn!("retention: {line}; trying again in a minute");
            }
            false
        }
    }
}
