//! Notifications to systemd over the socket that it names (sd_notify(3)). Without one, nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

#[derive(Debug)]
pub struct Service {
    every: Option<Duration>,
    next: Duration,
}

impl Service {
    pub fn ready(round: Duration) -> Self {
        let mut service = Self { every: None, next: Duration::ZERO };
        service.go_on(round);
        service
    }

    pub fn lives(&mut self, now: Duration) {
        if let Some(every) = self.every.filter(|_| now >= self.next) {
            self.next = now + every;
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Reports that the configuration is reloaded from `now` on (`CLOCK_MONOTONIC`), until [`Service::reloaded`].
    pub fn reloads(&self, now: Duration) {
        tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now.as_micros().cast_signed())]);
    }

    pub fn reloaded(&mut self, round: Duration) {
        self.go_on(round);
    }

    pub fn stops(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Reports readiness; asks for a longer time-out if three rounds take longer than the manager's own (`WatchdogSec=`).
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
        log::warn!("cannot notify systemd: {error}");
    }
}
