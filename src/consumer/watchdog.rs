//! Ends a process that is stuck: in a call that no time-out bounds. Being ended is harmless, which is the promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};

/// How long one round of the loop may take: more than all the time-outs within it.
const STUCK: Duration = Duration::from_secs(15 * 60);

/// Where the loop shows that it lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Heart(Arc<AtomicU64>);

impl Heart {
    /// A round has begun.
    pub(super) fn beat(&self, now: Duration) {
        self.0.store(now.as_secs(), Ordering::Relaxed);
    }

    /// Watches it from a thread of its own, as long as it lives.
    pub(super) fn watch(&self) -> std::io::Result<()> {
        let heart = Arc::downgrade(&self.0);
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let clock = SystemClock::default();
            while let Some(heart) = heart.upgrade() {
                if stuck(heart.load(Ordering::Relaxed), clock.monotonic()) {
                    log::error!("stuck for {} minutes: ending, to be started anew", STUCK.as_secs() / 60);
                    std::process::exit(1);
                }
                drop(heart);
                std::thread::sleep(Duration::from_secs(1));
            }
        })?;
        Ok(())
    }
}

fn stuck(beat_s: u64, now: Duration) -> bool {
    now.as_secs().saturating_sub(beat_s) > STUCK.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_silence_is_death() {
        assert!(!stuck(100, Duration::from_secs(100) + STUCK));
        assert!(stuck(100, Duration::from_secs(101) + STUCK));
        assert!(!stuck(100, Duration::from_secs(1)));
    }
}
