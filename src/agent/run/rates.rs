use std::time::Duration;

use super::Agent;
use crate::agent::config::{Rates, Settings};
use crate::agent::detector::rate_window::RateWindows;
use crate::agent::journal::{DurableJournal, Journal as _};
use crate::agent::publisher::{self, Encoding, Publisher};
use crate::config::TopicRole;
use crate::message::{Body, NewEvent, RateWindow, Stamp};
use crate::process::clock::Clock;
use crate::process::exit::chain;
use crate::wire::Key;

/// Time after which the connection, which rates use once in a while, is closed.
const LINGER: Duration = Duration::from_secs(10);

/// Rates have a publisher of their own: what keeps events from their topic does not keep rates from theirs.
pub(super) struct RateStream {
    windows: Option<RateWindows>,
    complete: Vec<RateWindow>,
    pub(super) publisher: Publisher,
}

impl RateStream {
    pub(super) fn new(settings: &Settings, journal: &mut DurableJournal, clock: &dyn Clock) -> Self {
        let mut stream = Self {
            windows: settings.rates.map(|rates| RateWindows::new(rates.window)),
            complete: Vec::new(),
            publisher: Publisher::new(publisher_settings(settings), false, clock.monotonic()).for_rates(),
        };
        stream.look_up(settings, clock.monotonic());
        match (journal.open_window(), &mut stream.windows) {
            (Ok(Some(NewEvent { body: Body::Rates(window), .. })), Some(windows)) => {
                windows.resume(window, clock.wall(), clock.boottime(), &mut stream.complete);
            }
            (Err(error), _) => log::error!("the open window of rates could not be read: {}", chain(&error)),
            _ => {}
        }
        stream
    }

    pub(super) fn reconfigure(&mut self, settings: &Settings, now: Duration) {
        match (&mut self.windows, settings.rates) {
            (Some(windows), Some(rates)) => windows.reconfigure(rates.window, &mut self.complete),
            (Some(windows), None) => {
                windows.finish(&mut self.complete);
                self.windows = None;
            }
            (None, rates) => self.windows = rates.map(|rates| RateWindows::new(rates.window)),
        }
        self.publisher.reconfigure(publisher_settings(settings), now);
        self.look_up(settings, now);
    }

    /// Demands that a missing topic is reported now rather than at the end of the first window.
    fn look_up(&mut self, settings: &Settings, now: Duration) {
        match settings.rates {
            Some(_) => self.publisher.look_up(now),
            None => self.publisher.cancel_look_up(),
        }
    }
}

/// Flushes without events come at the agent's own time, since the windows of a whole fleet end at one moment.
fn publisher_settings(settings: &Settings) -> publisher::Settings {
    let events = settings.publisher.clone();
    publisher::Settings {
        topic: settings.topics.names.of(TopicRole::Rates).clone(),
        encoding: Encoding { key: Key::Agent, ..events.encoding },
        interval: settings.rates.map_or(events.interval, |rates| rates.max_delay),
        linger: events.linger.min(LINGER),
        urgent: Vec::new(),
        events_max: u64::MAX,
        waiting: "the rates stay in the journal",
        ..events
    }
}

impl Agent {
    pub(super) fn add_rates(&mut self, is_read: bool, now: &Stamp) {
        let RateStream { windows, complete, .. } = &mut self.rates;
        if let Some(windows) = windows {
            windows.begin(now.observed_at, Duration::from_millis(now.monotonic_ms), complete);
            if is_read {
                self.detector.readings().for_each(|link| windows.read(link));
            }
            windows.end(complete);
        }
        self.register_rates(now);
        let monotonic = self.clock.monotonic();
        if let Some(interval) = self.settings.heartbeat
            && monotonic.saturating_sub(self.heartbeat_at) >= interval
        {
            self.heartbeat_at = monotonic;
            self.add_at(vec![Body::Heartbeat(super::lifecycle(None))], now);
        }
    }

    fn register_rates(&mut self, now: &Stamp) {
        if self.rates.complete.is_empty() {
            return;
        }
        let new_events =
            std::mem::take(&mut self.rates.complete).into_iter().map(|window| rates(window, now)).collect();
        if let Err(error) = self.system.add_events(new_events) {
            log::error!("rates could not be registered: {}", chain(&error));
        }
        for failure in self.system.failures() {
            self.report_error(&chain(&failure));
        }
        if self.settings.rates.is_some_and(|rates: Rates| rates.max_delay.is_zero()) {
            self.rates.publisher.flush();
        }
    }

    pub(super) fn save_open_window(&mut self) {
        let now = self.stamp();
        let RateStream { windows, complete, .. } = &mut self.rates;
        let Some(windows) = windows else { return };
        windows.close_ended(complete);
        let open = windows.open();
        self.register_rates(&now);
        let kept = open.map(|window| self.system.journal().save_open_window(rates(window, &now)));
        if let Some(Err(error)) = kept {
            self.report_error(&format!("the open window of rates could not be kept: {}", chain(&error)));
        }
    }
}

fn rates(window: RateWindow, now: &Stamp) -> NewEvent {
    let length = chrono::TimeDelta::milliseconds(i64::try_from(window.duration_ms).unwrap_or(i64::MAX));
    let observed_at = window.started_at.checked_add_signed(length).unwrap_or(now.observed_at);
    NewEvent { stamp: Stamp { observed_at, ..now.clone() }, body: Body::Rates(window) }
}
