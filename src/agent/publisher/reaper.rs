use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::producer::Producer;
use crate::process::clock::Clock;

/// Drops producers on threads of their own, because dropping one can hang; on the caller's thread if too many hang.
#[derive(Default)]
pub(super) struct Reaper {
    closing: Arc<AtomicUsize>,
}

const TEAR_DOWNS_MAX: usize = 4;

const TEAR_DOWN_MAX: Duration = Duration::from_secs(2);

/// Waits for producers, so that OpenSSL is not unloaded under them.
pub fn await_tear_down(threads: &[JoinHandle<()>], clock: &dyn Clock) {
    let until = clock.monotonic() + TEAR_DOWN_MAX;
    while threads.iter().any(|thread| !thread.is_finished()) && clock.monotonic() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Reaper {
    pub(super) fn add(&self, producer: Producer) {
        let closing = Arc::clone(&self.closing);
        let take_down = move || {
            drop(producer);
            closing.fetch_sub(1, Ordering::Relaxed);
        };
        if self.closing.fetch_add(1, Ordering::Relaxed) < TEAR_DOWNS_MAX {
            std::thread::spawn(take_down);
        } else {
            take_down();
        }
    }
}
