use std::collections::BTreeMap;
use std::time::Duration;

use crate::agent::event_system::{EventSystem, Observer, stamp};
use crate::agent::journal::JournalError;
use crate::agent::publisher::{self, InFlightLimits, Publisher, await_tear_down};
use crate::agent::toolbox::FleetJournal;
use crate::message::{EventId, NewEvent};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::{Failure, chain};
use crate::process::failpoints;
use crate::process::signals::SignalPipe;
use crate::units::lasting;

/// Publishes a one-shot command's events with back-pressure, and counts those delivered.
pub struct EventSender {
    system: EventSystem,
    publisher: Option<Publisher>,
    pub(super) signals: SignalPipe,
    pub(crate) clock: SystemClock,
    events: u64,
    /// Number of acknowledged events, and the time at which it last grew, or at which nothing was pending.
    acknowledged: (u64, Duration),
    is_stalled: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    pub events: u64,
    pub delivered: u64,
    pub failed: u64,
    pub last_offsets: BTreeMap<i32, i64>,
    pub oldest_pending: Option<chrono::DateTime<chrono::Utc>>,
    pub problem: Option<String>,
}

const AHEAD_MAX: u64 = 1_000;
const LAST_MAX: Duration = Duration::from_secs(10);
/// A slow connection takes over two minutes to be recognised.
const STALLED_AFTER: Duration = Duration::from_secs(300);

impl EventSender {
    pub fn new(
        journal: FleetJournal,
        to: Option<publisher::Settings>,
        observers: Vec<Box<dyn Observer>>,
    ) -> Result<Self, Failure> {
        let signals = SignalPipe::new().map_err(Failure::failed)?;
        signals.listen_to_signals().map_err(Failure::failed)?;
        let clock = SystemClock::default();
        let mut system = EventSystem::new(Box::new(journal));
        for observer in observers {
            system.subscribe(observer);
        }
        let publisher = to.map(|settings| {
            let bytes = 4 * InFlightLimits::WIDE.bytes as u64;
            let settings = publisher::Settings {
                in_flight: InFlightLimits::WIDE,
                interval: Duration::ZERO,
                linger: Duration::MAX,
                journal_bytes: bytes,
                waiting: "the events wait in memory",
                ..settings
            };
            Publisher::new(settings, false, clock.monotonic())
        });
        if let Some(publisher) = &publisher {
            system.subscribe(publisher.observer());
        }
        let acknowledged = (0, clock.monotonic());
        Ok(Self { system, publisher, signals, clock, events: 0, acknowledged, is_stalled: false })
    }

    /// Returns true after a signal, or if waiting is useless: the topic refuses every event, or Kafka acknowledges none.
    pub fn stopped(&self) -> bool {
        self.signals.stop_requested() || self.gives_up()
    }

    fn gives_up(&self) -> bool {
        self.is_stalled || self.publisher.as_ref().is_some_and(|publisher| publisher.progress().refusing)
    }

    /// Adds events, blocking while too many are pending. Fails if an observer does, as when a file cannot be written.
    pub fn add(&mut self, new_events: Vec<NewEvent>) -> Result<(), Failure> {
        if self.system.pending().events == 0 {
            // Since the last poll no event was waited for, however long ago that was.
            self.acknowledged.1 = self.clock.monotonic();
        }
        let events = self.system.add_events(new_events).map_err(Failure::failed)?;
        self.events += events.len() as u64;
        if let Some(failure) = self.system.failures().pop() {
            return Err(Failure::failed(chain(&failure)));
        }
        if self.publisher.is_none() {
            let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
            self.system.remove_events(&ids).map_err(Failure::failed)?;
        }
        drop(events);
        self.poll()?;
        while self.system.pending().events > InFlightLimits::WIDE.events as u64 + AHEAD_MAX && !self.stopped() {
            self.signals.sleep(Duration::from_millis(100));
            self.poll()?;
        }
        Ok(())
    }

    /// Counts events that an earlier run delivered, without sending them.
    pub fn skip_delivered(&mut self, new_events: Vec<NewEvent>) -> Result<(), Failure> {
        let passed = self.system.journal().append(new_events).and_then(|events| {
            let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
            self.system.journal().remove(&ids)
        });
        passed.map_err(Failure::failed)
    }

    pub fn wait(&mut self, until: Duration) -> Result<(), Failure> {
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() || self.stopped() {
                return Ok(());
            }
            self.poll()?;
            self.signals.sleep(left);
        }
    }

    pub fn oldest_pending(&self) -> Option<chrono::DateTime<chrono::Utc>> {
        self.system.pending().oldest
    }

    /// Waits until Kafka has acknowledged all, or waiting is useless; after an interruption, for 10 s at most.
    pub fn finish(mut self) -> Result<Delivery, Failure> {
        self.system.flush();
        if let Some(failure) = self.system.failures().pop() {
            return Err(Failure::failed(chain(&failure)));
        }
        let mut stop_at = None;
        loop {
            self.poll()?;
            let now = self.clock.monotonic();
            let is_late = self.signals.stop_requested() && now >= *stop_at.get_or_insert(now + LAST_MAX);
            if is_late || self.gives_up() || self.system.pending().events == 0 {
                break;
            }
            self.signals.sleep(Duration::from_millis(100));
        }
        let mut delivery =
            Delivery { events: self.events, oldest_pending: self.system.pending().oldest, ..Delivery::default() };
        let Some(publisher) = self.publisher else { return Ok(delivery) };
        let progress = publisher.progress().clone();
        let pending = self.system.pending().events;
        delivery.failed = progress.rejected + pending;
        let gave_up =
            if self.is_stalled { format!("gave up after {}: ", lasting(STALLED_AFTER)) } else { String::new() };
        delivery.problem = (pending > 0).then(|| format!("{gave_up}{}", progress.problem()));
        (delivery.delivered, delivery.last_offsets) = (progress.delivered, progress.offsets);
        await_tear_down(&publisher.close(), &self.clock);
        Ok(delivery)
    }

    fn poll(&mut self) -> Result<(), Failure> {
        let Self { system, publisher, signals, clock, acknowledged, .. } = self;
        let Some(publisher) = publisher else { return Ok(()) };
        // Stamp of a loss, into which the journal puts the agent's name.
        let stamp = || stamp("", "", clock);
        let turned = publisher.poll(system, clock.monotonic(), stamp, || signals.waker());
        turned.map_err(|error: JournalError| Failure::failed(error))?;
        let (delivered, now) = (publisher.progress().delivered, clock.monotonic());
        if delivered != acknowledged.0 || system.pending().events == 0 {
            *acknowledged = (delivered, now);
        }
        self.is_stalled = now.saturating_sub(acknowledged.1) >= failpoints::duration("stalled-s", STALLED_AFTER);
        Ok(())
    }
}
