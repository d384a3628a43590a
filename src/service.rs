//! What a service manager is told: systemd, by the socket that it names (sd_notify(3)). Without one nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// The line to the service manager.
#[derive(Debug)]
pub struct Service {
    /// A sign of life comes so often; `None` where nobody waits for one.
    every: Option<Duration>,
    next: Duration,
}

impl Service {
    /// It is ready. In good health a sign of life comes each `round` or more often.
    pub fn ready(round: Duration) -> Self {
        let mut service = Self { every: None, next: Duration::ZERO };
        service.go_on(round);
        service
    }

    /// A round has come to its end at `now`: it lives. Said no more often than need be.
    pub fn lives(&mut self, now: Duration) {
        if let Some(every) = self.every.filter(|_| now >= self.next) {
            self.next = now + every;
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// It reads its configuration anew, from `now` on (`CLOCK_MONOTONIC`), until [`Service::reloaded`].
    pub fn reloads(&self, now: Duration) {
        tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now.as_micros().cast_signed())]);
    }

    /// It goes on, with the new configuration or the old one: rounds may have become longer.
    pub fn reloaded(&mut self, round: Duration) {
        self.go_on(round);
    }

    /// It has begun to end.
    pub fn stops(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Says that it is ready; where the manager would lose its patience (`WatchdogSec=`) too soon, it is asked for more.
    fn go_on(&mut self, round: Duration) {
        let Some(patience) = sd_notify::watchdog_enabled() else { return tell(&[NotifyState::Ready]) };
        let asked = patience.max(round * 3);
        let asked_us = u32::try_from(asked.as_micros()).unwrap_or(u32::MAX); // 71 min is the most that can be asked for
        tell(&[NotifyState::Ready, NotifyState::WatchdogUsec(asked_us)]);
        (self.every, self.next) = (Some(asked / 4), Duration::ZERO);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("the service manager cannot be told: {error}");
    }
}
