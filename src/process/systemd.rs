//! A service's side of systemd: its directories, and notifications (sd_notify(3)), if systemd names a socket.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use sd_notify::NotifyState;

#[derive(Debug)]
pub struct Notifier {
    every: Option<Duration>,
    next: Duration,
}

/// Directories that systemd names in the environment: `StateDirectory=` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directories {
    pub state: Option<PathBuf>,
    pub runtime: Option<PathBuf>,
    pub credentials: Option<PathBuf>,
}

impl Directories {
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// Treats an empty variable as unset. Several directories would be separated by colons: our units have one of each.
    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let directory = |name| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            state: directory("STATE_DIRECTORY"),
            runtime: directory("RUNTIME_DIRECTORY"),
            credentials: directory("CREDENTIALS_DIRECTORY"),
        }
    }
}

impl Notifier {
    pub fn ready(round: Duration) -> Self {
        let mut notifier = Self { every: None, next: Duration::ZERO };
        notifier.reloaded(round);
        notifier
    }

    pub fn ping(&mut self, now: Duration) {
        if let Some(every) = self.every.filter(|_| now >= self.next) {
            self.next = now + every;
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// Reports a reload from `now` (`CLOCK_MONOTONIC`) until [`Notifier::reloaded`].
    pub fn reloading(&self, now: Duration) {
        notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now.as_micros().cast_signed())]);
    }

    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// Reports readiness. Requests a longer watchdog time-out if three rounds take longer than the unit's (`WatchdogSec=`).
    pub fn reloaded(&mut self, round: Duration) {
        let Some(patience) = sd_notify::watchdog_enabled() else { return notify(&[NotifyState::Ready]) };
        let asked = patience.max(round * 3);
        let asked_us = u32::try_from(asked.as_micros()).unwrap_or(u32::MAX); // 71 min is the most that can be asked for
        notify(&[NotifyState::Ready, NotifyState::WatchdogUsec(asked_us)]);
        (self.every, self.next) = (Some(asked / 4), Duration::ZERO);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_unset() {
        let directories = Directories::from_variables(|name| match name {
            "STATE_DIRECTORY" => Some("/var/lib/highwater".into()),
            "RUNTIME_DIRECTORY" => Some("".into()),
            _ => None,
        });
        assert_eq!(directories, Directories { state: Some("/var/lib/highwater".into()), ..Directories::default() });
    }
}
