//! The agent's publisher alone: a journal in memory, and a broker that a test may let fail.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::agent::event_system::EventSystem;
use highwater::agent::publisher::{Encoding, InFlightLimits, Progress, Publisher, Settings, Spread};
use highwater::agent::toolbox::FleetJournal;
use highwater::kafka::{Connection, RawConnection};
use highwater::message::{Body, Event, NewEvent, Stamp};
use highwater::process::clock::{Clock as _, SystemClock};
use highwater::process::signals::SignalPipe;

use super::events::updated;
use super::process::until;

/// A publisher that sends each event at once, and the loop around it.
pub(crate) struct Publishing {
    system: EventSystem,
    publisher: Publisher,
    signals: SignalPipe,
    clock: SystemClock,
    added: u64,
    threads_fail: bool,
}

impl Publishing {
    pub(crate) fn new(brokers: &str, topic: &str, properties: &[(&str, &str)]) -> Self {
        let text = |value: &str| toml::Value::String(value.to_owned());
        let properties: BTreeMap<_, _> =
            properties.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        let connection = RawConnection { brokers: Some(brokers.to_owned()), properties, ..RawConnection::default() };
        let settings = Settings {
            connection: Connection::new(connection, None).expect("it can work"),
            topic: topic.to_owned(),
            encoding: Encoding::default(),
            in_flight: InFlightLimits::SMALL,
            interval: Duration::ZERO,
            linger: Duration::from_secs(3_600),
            spread: Spread::default(),
            urgent: Vec::new(),
            events_max: 500,
            journal_bytes: 16 << 20,
            waiting: "the events wait in memory",
            create_topics: None,
        };
        let clock = SystemClock::default();
        let publisher = Publisher::new(settings, false, clock.monotonic());
        let mut system = EventSystem::new(Box::new(FleetJournal::new()));
        system.subscribe(publisher.observer());
        let signals = SignalPipe::new().expect("a pipe");
        Self { system, publisher, signals, clock, added: 0, threads_fail: false }
    }

    pub(crate) fn add(&mut self, events: u64) {
        let bodies: Vec<Body> = (0..events).map(|seq| updated("gw", seq).body).collect();
        self.add_bodies(bodies);
    }

    pub(crate) fn add_bodies(&mut self, bodies: Vec<Body>) {
        let Event { stamp, .. } = updated("gw", 1);
        self.added += bodies.len() as u64;
        let new_events = bodies.into_iter().map(|body| NewEvent { stamp: stamp.clone(), body }).collect();
        self.system.add_events(new_events).expect("the journal takes them");
        self.poll();
    }

    fn poll(&mut self) {
        let Self { system, publisher, signals, clock, .. } = self;
        let stamp = || Stamp { agent: "gw".into(), ..updated("gw", 1).stamp };
        let waker = || if self.threads_fail { Err(std::io::ErrorKind::OutOfMemory.into()) } else { signals.waker() };
        publisher.poll(system, clock.monotonic(), stamp, waker).expect("the journal works");
    }

    /// Makes the system refuse resources for another thread, or give them again.
    pub(crate) fn set_threads_fail(&mut self, threads_fail: bool) {
        self.threads_fail = threads_fail;
    }

    pub(crate) fn look_up(&mut self) {
        self.publisher.look_up(self.clock.monotonic());
        self.poll();
    }

    pub(crate) fn flush_now(&mut self) {
        self.publisher.flush_now();
        self.poll();
    }

    pub(crate) fn until(&mut self, name: &str, is_so: impl Fn(&Progress) -> bool) {
        until(name, || {
            self.signals.sleep(Duration::from_millis(20));
            self.poll();
            is_so(self.publisher.progress()).then_some(())
        });
    }

    pub(crate) fn until_delivered(&mut self) {
        let added = self.added;
        self.until("all is delivered", |progress| progress.delivered >= added);
    }

    pub(crate) fn progress(&self) -> &Progress {
        self.publisher.progress()
    }

    pub(crate) fn pending(&self) -> u64 {
        self.system.pending().events
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("how publishing goes: {:?}, pending {}", self.publisher.progress(), self.pending());
        }
    }
}
