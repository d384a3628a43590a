//! Watches a loop from a thread of its own: a loop that is stuck in a call without a time-out cannot report that itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::process::clock::{Clock as _, SystemClock};

#[derive(Clone, Debug)]
pub struct Heart(Arc<Mutex<Beat>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beat {
    doing: Option<&'static str>,
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    pub doing: &'static str,
    pub time: Duration,
}

impl Default for Heart {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Beat { doing: None, since: Duration::ZERO })))
    }
}

impl Heart {
    pub fn beat(&self, doing: &'static str, now: Duration) {
        self.set(Beat { doing: Some(doing), since: now });
    }

    pub fn rest(&self) {
        self.set(Beat { doing: None, since: Duration::ZERO });
    }

    fn set(&self, beat: Beat) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = beat;
    }

    /// Checks until the heart is dropped; calls `alarm` once for each step longer than `longest`.
    pub fn watch(
        &self,
        every: Duration,
        longest: Duration,
        mut alarm: impl FnMut(Stuck) + Send + 'static,
    ) -> std::io::Result<()> {
        let heart = Arc::downgrade(&self.0);
        let watch = move || {
            let clock = SystemClock::default();
            let mut told = None;
            while let Some(beat) = heart.upgrade().map(|heart| *heart.lock().unwrap_or_else(PoisonError::into_inner)) {
                if let Some(stuck) = stuck(beat, clock.monotonic(), longest)
                    && told.replace(beat) != Some(beat)
                {
                    alarm(stuck);
                }
                std::thread::sleep(every);
            }
        };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch).map(drop)
    }
}

fn stuck(beat: Beat, now: Duration, longest: Duration) -> Option<Stuck> {
    let time = now.saturating_sub(beat.since);
    Some(Stuck { doing: beat.doing.filter(|_| time > longest)?, time })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn only_a_long_step_is_stuck() {
        let since = Duration::from_secs(100);
        let step = Beat { doing: Some("storing"), since };
        assert_eq!(stuck(step, since + LONGEST, LONGEST), None);
        let time = LONGEST + Duration::from_secs(1);
        assert_eq!(stuck(step, since + time, LONGEST), Some(Stuck { doing: "storing", time }));
        assert_eq!(stuck(step, Duration::from_secs(1), LONGEST), None);
        assert_eq!(stuck(Beat { doing: None, since }, since + time, LONGEST), None, "it sleeps");
    }

    #[test]
    fn one_alarm_a_step_as_long_as_the_loop_is_there() {
        let (sender, alarms) = channel();
        let heart = Heart::default();
        // Both steps began, by their time, when the machine did.
        heart.beat("reading", Duration::ZERO);
        heart
            .watch(Duration::from_millis(1), Duration::from_nanos(1), move |stuck| {
                let _ = sender.send(stuck);
            })
            .unwrap();
        assert_eq!(alarms.recv().unwrap().doing, "reading");
        heart.beat("writing", Duration::ZERO);
        assert_eq!(alarms.recv().unwrap().doing, "writing");
        drop(heart);
        // The thread ends, and its sender with it.
        assert!(alarms.recv().is_err());
    }
}
