//! From the journal to Kafka: decides when to send, keeps what is in flight, and removes what Kafka has acknowledged.
//!
//! The tick's thread decides and keeps the journal; a worker thread owns the producer. Events go one way over a channel, reports
//! the other, and neither thread waits for the other. The producer outlives a flush: a new one needs connection, handshake and
//! metadata, and leaves an id on the broker for a day. It ends after a time without events, so that an idle host sends no byte.
//! ```text
//!  tick    trigger ─► journal's batch ─► under way ──events──►  worker   unacked ─► producer ─► Kafka
//!          journal: removed ◄── acknowledged ◄──reports──────            session's end ◄─ reports, errors
//! ```
//! Whatever fails, the next producer sends all that is unacked again, in order: an event may be sent twice, never not at all.

mod commands;
mod encoding;
pub(in crate::agent) mod in_flight;
mod producer;
mod progress;
mod reaper;
mod session;
mod session_end;
mod spread;
mod trial;
mod trigger;
mod worker;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use log::{debug, error, info};
use rustc_hash::FxHashSet;

use self::commands::{Acknowledgement, OutgoingEvent, WorkerCommand, WorkerReport};
use self::encoding::Encoder;
pub use self::encoding::{Encoding, look_up_schema};
use self::producer::{BATCH_MAX, Producer};
pub use self::progress::Progress;
pub use self::reaper::await_tear_down;
pub use self::spread::Spread;
use self::trigger::{Trigger, TriggerObserver};
use self::worker::Worker;
use crate::agent::event_system::{EventSystem, Observer};
use crate::agent::journal::{JournalError, Position, QueuedEvent};
use crate::agent::publisher::in_flight::InFlight;
use crate::config::Invalid;
use crate::kafka::schema_registry::RegistryAddress;
use crate::kafka::{Connection, TopicPlan};
use crate::message::{EventId, Severity, Stamp};
use crate::process::failpoints;
use crate::process::signals::Waker;
use crate::units::counted;

/// Spread of the first events of a fleet that starts together; short, so that a missing broker or topic is reported soon.
const FIRST_FLUSH_MAX: Duration = Duration::from_secs(3);
/// Number of threads that may hang in their producers before no new one is started.
const ENDING_MAX: usize = 4;

#[derive(Clone, Debug)]
pub struct Settings {
    pub connection: Connection,
    pub topic: String,
    pub encoding: Encoding,
    pub in_flight: InFlightLimits,
    /// Zero sends each event at once.
    pub interval: Duration,
    pub linger: Duration,
    pub spread: Spread,
    pub urgent: Vec<Severity>,
    pub events_max: u64,
    /// Size of the journal, a quarter of which may be in flight at most, so that there is always something to evict.
    pub journal_bytes: u64,
    /// End of log lines about problems: what waits, and where, such as "the events stay in the journal".
    pub waiting: &'static str,
    pub create_topics: Option<TopicPlan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightLimits {
    pub events: usize,
    /// Limit of librdkafka's queue (`queue.buffering.max.kbytes`) as well.
    pub bytes: usize,
    pub poll: Duration,
    /// True for large requests, which get librdkafka's own timeouts.
    pub long_timeouts: bool,
}

impl InFlightLimits {
    /// Limits of an agent: little memory, few wake-ups.
    pub const SMALL: Self =
        Self { events: 5_000, bytes: 2 << 20, poll: Duration::from_millis(20), long_timeouts: false };
    /// Limits of simulations and replays: these many breaches fill librdkafka's five requests of a megabyte in flight.
    pub const WIDE: Self = Self { events: 8_500, bytes: 32 << 20, poll: Duration::from_millis(2), long_timeouts: true };
}

pub struct Publisher {
    settings: Settings,
    trigger: Rc<Trigger>,
    start: Position,
    cursor: Position,
    generation: u64,
    encoder: Encoder,
    batch_max: Arc<AtomicUsize>,
    first_flush: Option<Duration>,
    next_flush: Duration,
    flushing: bool,
    look_up_at: Option<Duration>,
    is_looking: bool,
    has_sent: bool,
    in_flight: InFlight<EventId>,
    /// Events in flight when the journals changed, which the cursor meets again in the new one.
    already_in_flight: FxHashSet<EventId>,
    bytes_in_flight: usize,
    running: Option<Running>,
    last_busy_at: Duration,
    closing_threads: Vec<JoinHandle<()>>,
    progress: Progress,
    delivered_logged: u64,
    start_error: Option<String>,
}

struct Running {
    commands: Sender<WorkerCommand>,
    reports: Receiver<WorkerReport>,
    thread: JoinHandle<()>,
}

impl Settings {
    /// Checks, without connecting, that files exist and librdkafka accepts the properties. Errors name the key.
    pub fn check(&self) -> Result<(), Invalid> {
        self.encoding.registry.as_ref().map_or(Ok(()), RegistryAddress::check)?;
        Producer::check(&self.connection, self.in_flight)
    }

    fn held_back_max(&self) -> u64 {
        if self.interval.is_zero() { 1 } else { self.events_max }
    }
}

impl Publisher {
    pub fn new(settings: Settings, backlog: bool, now: Duration) -> Self {
        let first_within = settings.interval.min(FIRST_FLUSH_MAX);
        let trigger = Trigger {
            urgent: RefCell::new(settings.urgent.clone()),
            events_max: Cell::new(settings.held_back_max()),
            held_back: Cell::new(0),
            due: Cell::new(backlog && settings.interval.is_zero()),
        };
        Self {
            first_flush: (!first_within.is_zero()).then(|| now + settings.spread.within(first_within)),
            next_flush: now + settings.spread.within(settings.interval),
            encoder: Encoder::new(settings.encoding.clone(), &settings.topic),
            batch_max: Arc::new(BATCH_MAX.into()),
            settings,
            trigger: Rc::new(trigger),
            start: Position::START,
            cursor: Position::START,
            generation: 0,
            flushing: false,
            look_up_at: None,
            is_looking: false,
            has_sent: false,
            in_flight: InFlight::from(0),
            already_in_flight: FxHashSet::default(),
            bytes_in_flight: 0,
            running: None,
            last_busy_at: now,
            closing_threads: Vec::new(),
            progress: Progress::default(),
            delivered_logged: 0,
            start_error: None,
        }
    }

    pub fn for_rates(self) -> Self {
        Self { start: Position::RATES, cursor: Position::RATES, ..self }
    }

    /// Schedules a look-up of the topic within a few seconds of `now`, since its first events may come much later.
    pub fn look_up(&mut self, now: Duration) {
        self.look_up_at = Some(now + self.settings.spread.within(FIRST_FLUSH_MAX));
    }

    pub fn cancel_look_up(&mut self) {
        self.look_up_at = None;
        if self.is_looking {
            self.closing_threads.extend(self.running.take().map(|running| running.thread));
            self.reset_in_flight();
            self.progress.recover();
        }
    }

    /// Returns true if events were handed to Kafka since the last call: rates may go along.
    pub fn take_sent(&mut self) -> bool {
        std::mem::take(&mut self.has_sent)
    }

    pub fn flush(&self) {
        self.trigger.due.set(true);
    }

    /// Changes the settings. If the destination changes, events in flight are given up and sent again to the new one.
    pub fn reconfigure(&mut self, settings: Settings, now: Duration) {
        let way = |settings: &Settings| {
            let Settings { connection, topic, encoding, create_topics, .. } = settings.clone();
            (connection, topic, encoding, create_topics)
        };
        let moved = way(&settings) != way(&self.settings);
        if let Some(Running { thread, .. }) = self.running.take_if(|_| moved) {
            self.closing_threads.push(thread);
            self.reset_in_flight();
        }
        if moved {
            self.encoder = Encoder::new(settings.encoding.clone(), &settings.topic);
            self.batch_max = Arc::new(BATCH_MAX.into());
            self.progress.offsets.clear();
        }
        // An unchanged interval must not postpone the flush.
        if settings.interval != self.settings.interval {
            self.next_flush = now + settings.spread.within(settings.interval);
        }
        self.trigger.urgent.replace(settings.urgent.clone());
        self.trigger.events_max.set(settings.held_back_max());
        if self.trigger.held_back.get() >= settings.held_back_max() {
            self.flush();
        }
        self.settings = settings;
    }

    pub fn observer(&self) -> Box<dyn Observer> {
        Box::new(TriggerObserver(Rc::clone(&self.trigger)))
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the next flush by the monotonic clock; `None` if each event is sent at once.
    pub fn next_flush(&self) -> Option<Duration> {
        (!self.settings.interval.is_zero()).then_some(self.next_flush)
    }

    /// Processes the worker's reports, and hands it events during a flush. Does not block; an error of the journal loses no event.
    pub fn poll(
        &mut self,
        system: &mut EventSystem,
        now: Duration,
        stamp: impl Fn() -> Stamp,
        waker: impl Fn() -> io::Result<Waker>,
    ) -> Result<(), JournalError> {
        let reports: Vec<WorkerReport> = self.running.iter().flat_map(|running| running.reports.try_iter()).collect();
        self.process_reports(reports, system, &stamp)?;
        self.closing_threads.retain(|thread| !thread.is_finished());
        if self.running.as_ref().is_some_and(|running| running.thread.is_finished()) {
            self.worker_died();
        }
        if system.journal().generation() != self.generation {
            (self.generation, self.cursor) = (system.journal().generation(), self.start);
            self.already_in_flight = self.in_flight.since(0).map(|(_, id)| *id).collect();
        }
        if self.trigger.due.take() || self.first_flush.take_if(|at| now >= *at).is_some() {
            self.flushing = true;
        }
        if now >= self.next_flush && !self.settings.interval.is_zero() {
            self.next_flush = now + self.settings.interval;
            self.flushing = true;
        }
        if self.flushing {
            self.send_batches(system, stamp().monotonic_ms, &waker)?;
            // Having nothing to send does not mean that a missing topic exists now.
            if self.flushing || !self.is_looking {
                self.progress.flushing(self.flushing, stamp().monotonic_ms);
            }
        }
        if self.look_up_at.take_if(|at| now >= *at).is_some() && self.running.is_none() {
            self.is_looking = self.send_command(WorkerCommand::LookUp, stamp().monotonic_ms, &waker);
        }
        if !self.in_flight.is_empty() || self.is_looking {
            self.last_busy_at = now;
        } else if now.saturating_sub(self.last_busy_at) >= self.settings.linger {
            self.close_idle();
        }
        Ok(())
    }

    pub fn flush_now(&mut self) {
        self.flush();
        if let Some(running) = &self.running {
            let _ = running.commands.send(WorkerCommand::TryNow);
        }
    }

    pub fn idle(&self) -> bool {
        !self.flushing && !self.trigger.due.get() && self.in_flight.is_empty()
    }

    /// Returns the threads that still have a producer, to be joined before the program ends, lest OpenSSL is unloaded under them.
    pub fn close(mut self) -> Vec<JoinHandle<()>> {
        self.closing_threads.extend(self.running.take().map(|running| running.thread));
        self.closing_threads
    }

    fn process_reports(
        &mut self,
        reports: Vec<WorkerReport>,
        system: &mut EventSystem,
        stamp: &impl Fn() -> Stamp,
    ) -> Result<(), JournalError> {
        let (mut delivered, mut rejected) = (Vec::new(), Vec::new());
        for report in reports {
            match report {
                WorkerReport::Delivered(receipts) => {
                    delivered.reserve(receipts.len());
                    for Acknowledgement { serial, bytes, partition, offset } in receipts {
                        delivered.extend(self.acknowledge(serial, bytes));
                        self.progress.offsets.insert(partition, offset);
                    }
                }
                WorkerReport::Rejected { serial, bytes, reason } => {
                    rejected.extend(self.acknowledge(serial, bytes).map(|id| (id, reason)));
                }
                WorkerReport::Problem { what, gave_up } => {
                    self.progress.retries += u64::from(gave_up);
                    self.progress.problems.start(stamp().monotonic_ms, &what);
                }
                WorkerReport::Refusing { what } => {
                    self.progress.problems.start(stamp().monotonic_ms, &what);
                    self.progress.refusing = true;
                }
                WorkerReport::Retrying { cause } => self.progress.retrying = Some(cause),
                WorkerReport::Recovered => self.progress.recover(),
                WorkerReport::LookedUp => {
                    self.is_looking = false;
                    if self.in_flight.is_empty() {
                        self.progress.recover();
                    }
                }
            }
        }
        if !delivered.is_empty() {
            self.progress.delivered += delivered.len() as u64;
            debug!("Kafka acknowledged {}", counted(delivered.len() as u64, "event"));
            failpoints::hit("report-after");
        }
        let mut done = system.remove_events(&delivered);
        for (id, reason) in rejected {
            let rejected = system.reject_event(id, &reason, stamp());
            if rejected.is_ok() {
                error!("Kafka rejects event {id}: {reason}; it is declared lost");
                self.progress.rejected += 1;
            }
            done = done.and(rejected);
        }
        done
    }

    fn acknowledge(&mut self, serial: usize, bytes: usize) -> Option<EventId> {
        let id = self.in_flight.take(serial)?;
        self.bytes_in_flight -= bytes;
        Some(id)
    }

    fn send_batches(
        &mut self,
        system: &mut EventSystem,
        now_ms: u64,
        waker: &impl Fn() -> io::Result<Waker>,
    ) -> Result<(), JournalError> {
        let InFlightLimits { events, bytes, .. } = self.settings.in_flight;
        let bytes = bytes.min(usize::try_from(self.settings.journal_bytes / 4).unwrap_or(bytes));
        while self.in_flight.len() < events && self.bytes_in_flight < bytes {
            let batch = system.batch(self.cursor, events - self.in_flight.len(), bytes - self.bytes_in_flight)?;
            let Some(last) = batch.last() else {
                self.trigger.held_back.set(0);
                if self.in_flight.is_empty() {
                    self.end_flush();
                }
                return Ok(());
            };
            let after = last.position;
            let mut outgoing = Vec::with_capacity(batch.len());
            for QueuedEvent { event, payload: json, .. } in batch {
                if !self.already_in_flight.contains(&event.id) {
                    outgoing.push(OutgoingEvent { event, json });
                }
            }
            let added: usize = outgoing.iter().map(OutgoingEvent::bytes).sum();
            let ids: Vec<EventId> = outgoing.iter().map(|outgoing| outgoing.event.id).collect();
            if !self.send_command(WorkerCommand::Send(outgoing), now_ms, waker) {
                return Ok(());
            }
            for id in ids {
                self.in_flight.push(id);
            }
            self.bytes_in_flight += added;
            self.cursor = after;
            self.has_sent = true;
        }
        Ok(())
    }

    fn send_command(&mut self, command: WorkerCommand, now_ms: u64, waker: &impl Fn() -> io::Result<Waker>) -> bool {
        if self.running.is_none() {
            let started = match self.closing_threads.len() {
                ENDING_MAX.. => Err(format!("{ENDING_MAX} connections are still being closed")),
                _ => self.start(waker).map_err(|error| format!("no thread could be started: {error}")),
            };
            match started {
                Ok(running) => {
                    self.running = Some(running);
                    if self.start_error.take().is_some() {
                        self.progress.problems.resolve();
                    }
                }
                Err(why) => {
                    if self.start_error.as_ref() != Some(&why) {
                        error!("cannot publish: {why}; {}", self.settings.waiting);
                        self.progress.problems.start(now_ms, &format!("cannot publish: {why}"));
                        self.start_error = Some(why);
                    }
                    return false;
                }
            }
        }
        self.running.as_ref().is_some_and(|running| running.commands.send(command).is_ok())
    }

    fn start(&mut self, waker: &impl Fn() -> io::Result<Waker>) -> io::Result<Running> {
        self.in_flight = InFlight::from(0);
        let (commands, incoming) = channel();
        let (outgoing, reports) = channel();
        let (settings, encoder, batch_max) = (self.settings.clone(), self.encoder.clone(), Arc::clone(&self.batch_max));
        let has_delivered = self.progress.delivered > 0;
        let worker = Worker::new(settings, encoder, batch_max, incoming, (outgoing, waker()?), has_delivered);
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || worker.run())?;
        debug!("publishing to {} at {}", self.settings.topic, self.settings.connection.brokers());
        Ok(Running { commands, reports, thread })
    }

    fn end_flush(&mut self) {
        self.flushing = false;
        let delivered =
            self.progress.delivered - std::mem::replace(&mut self.delivered_logged, self.progress.delivered);
        if delivered > 0 {
            info!("{} delivered to {}", counted(delivered, "event"), self.settings.topic);
        }
    }

    fn close_idle(&mut self) {
        if let Some(Running { thread, .. }) = self.running.take() {
            debug!("no event for a while: closing the connection to {}", self.settings.connection.brokers());
            self.closing_threads.push(thread);
        }
    }

    fn worker_died(&mut self) {
        error!("the publisher's thread has ended unexpectedly; what it had not delivered is sent again");
        self.running = None;
        self.reset_in_flight();
    }

    fn reset_in_flight(&mut self) {
        self.in_flight = InFlight::from(0);
        self.already_in_flight.clear();
        self.bytes_in_flight = 0;
        self.is_looking = false;
        self.cursor = self.start;
    }
}

#[cfg(test)]
mod tests;
