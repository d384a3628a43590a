use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use super::producer::Producer;
use crate::process::clock::Clock;

/// Producers of all publishers that are being dropped on threads of their own.
static CLOSING: AtomicUsize = AtomicUsize::new(0);

const TEAR_DOWNS_MAX: usize = 4;

const TEAR_DOWN_MAX: Duration = Duration::from_secs(2);

struct ClosingProducer(Option<Producer>);

impl Drop for ClosingProducer {
    fn drop(&mut self) {
        drop(self.0.take());
        CLOSING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Drops a producer on a thread of its own, because that can hang; on the caller's if too many hang, or none can be started.
pub(super) fn tear_down(producer: Producer) {
    let others = CLOSING.fetch_add(1, Ordering::Relaxed);
    let closing = ClosingProducer(Some(producer));
    if others < TEAR_DOWNS_MAX {
        let _ = Builder::new().name("closing".into()).spawn(move || drop(closing));
    }
}

/// Waits for producers, so that OpenSSL is not unloaded under them.
pub fn await_tear_down(threads: &[JoinHandle<()>], clock: &dyn Clock) {
    let until = clock.monotonic() + TEAR_DOWN_MAX;
    let goes_on = || CLOSING.load(Ordering::Relaxed) > 0 || threads.iter().any(|thread| !thread.is_finished());
    while goes_on() && clock.monotonic() < until {
        sleep(Duration::from_millis(5));
    }
}
