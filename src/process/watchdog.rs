//! Watches a loop from a thread of its own: a loop that is stuck in a call without a time-out cannot report that itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::process::clock::{Clock as _, SystemClock};

#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Step>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    doing: Option<&'static str>,
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub doing: &'static str,
    pub time: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Step { doing: None, since: Duration::ZERO })))
    }
}

impl Heartbeat {
    pub fn enter(&self, doing: &'static str, now: Duration) {
        self.set(Step { doing: Some(doing), since: now });
    }

    pub fn idle(&self) {
        self.set(Step { doing: None, since: Duration::ZERO });
    }

    fn set(&self, step: Step) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// Checks until the heartbeat is dropped; calls `alarm` once for each step longer than `longest`.
    pub fn watch(
        &self,
        every: Duration,
        longest: Duration,
        mut alarm: impl FnMut(Stall) + Send + 'static,
    ) -> std::io::Result<()> {
        let heartbeat = Arc::downgrade(&self.0);
        let watch = move || {
            let clock = SystemClock::default();
            let mut reported = None;
            while let Some(step) =
                heartbeat.upgrade().map(|heartbeat| *heartbeat.lock().unwrap_or_else(PoisonError::into_inner))
            {
                if let Some(stuck) = stuck(step, clock.monotonic(), longest)
                    && reported.replace(step) != Some(step)
                {
                    alarm(stuck);
                }
                std::thread::sleep(every);
            }
        };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch).map(drop)
    }
}

fn stuck(step: Step, now: Duration, longest: Duration) -> Option<Stall> {
    let time = now.saturating_sub(step.since);
    Some(Stall { doing: step.doing.filter(|_| time > longest)?, time })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn only_a_long_step_is_stuck() {
        let since = Duration::from_secs(100);
        let step = Step { doing: Some("storing"), since };
        assert_eq!(stuck(step, since + LONGEST, LONGEST), None);
        let time = LONGEST + Duration::from_secs(1);
        assert_eq!(stuck(step, since + time, LONGEST), Some(Stall { doing: "storing", time }));
        assert_eq!(stuck(step, Duration::from_secs(1), LONGEST), None);
        assert_eq!(stuck(Step { doing: None, since }, since + time, LONGEST), None, "it sleeps");
    }

    #[test]
    fn one_alarm_a_step_as_long_as_the_loop_is_there() {
        let (sender, alarms) = channel();
        let heartbeat = Heartbeat::default();
        // Both steps began, by their time, when the machine did.
        heartbeat.enter("reading", Duration::ZERO);
        heartbeat
            .watch(Duration::from_millis(1), Duration::from_nanos(1), move |stuck| {
                let _ = sender.send(stuck);
            })
            .unwrap();
        assert_eq!(alarms.recv().unwrap().doing, "reading");
        heartbeat.enter("writing", Duration::ZERO);
        assert_eq!(alarms.recv().unwrap().doing, "writing");
        drop(heartbeat);
        // The thread ends, and its sender with it.
        assert!(alarms.recv().is_err());
    }
}
