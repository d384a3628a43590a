//! From the journal to Kafka: decides when to send, keeps what is in flight, and removes what Kafka has acknowledged.
//!
//! The tick's thread decides and keeps the journal; a worker thread owns the producer. Events go one way over a channel, reports
//! the other, and neither thread waits for the other. The producer outlives a flush: a new one needs connection, handshake and
//! metadata, and leaves an id on the broker for a day. It ends after a time without events, so that an idle host sends no byte.
//! ```text
//!  tick    trigger ─► journal's batch ─► under way ──events──►  worker   unacked ─► producer ─► Kafka
//!          journal: removed ◄── acknowledged ◄──reports──────            session's end ◄─ reports, errors
//! ```
//! Whatever goes wrong, a session ends for a `SessionEnd`, and the next producer sends all that is unacked
//! again, in order. An event that Kafka has and the journal still holds is sent twice, never not at all.

mod backoff;
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
    pub window: Window,
    /// Zero sends each event at once.
    pub interval: Duration,
    pub linger: Duration,
    pub spread: Spread,
    pub urgent: Vec<Severity>,
    pub events_max: u64,
    /// Size of the journal, a quarter of which may be in flight at most, so that there is always something to evict.
    pub journal_bytes: u64,
    /// End of the log lines about trouble: what waits, and where, such as "the events stay in the journal".
    pub waiting: &'static str,
    pub create_topics: Option<TopicPlan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub events: usize,
    /// Limit of librdkafka's queue (`queue.buffering.max.kbytes`) as well.
    pub bytes: usize,
    pub poll: Duration,
    /// True for large requests, which get librdkafka's own timeouts.
    pub patient: bool,
}

impl Window {
    /// Window of an agent: little memory, few wake-ups.
    pub const SMALL: Self = Self { events: 5_000, bytes: 2 << 20, poll: Duration::from_millis(20), patient: false };
    /// Window of simulations and replays: these many breaches fill librdkafka's five requests of a megabyte in flight.
    pub const WIDE: Self = Self { events: 8_500, bytes: 32 << 20, poll: Duration::from_millis(2), patient: true };
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
    under_way: InFlight<EventId>,
    /// Events in flight when the journals changed, which the cursor meets again in the new one.
    met_again: FxHashSet<EventId>,
    bytes_under_way: usize,
    running: Option<Running>,
    busy: Duration,
    ending: Vec<JoinHandle<()>>,
    progress: Progress,
    told: u64,
    unstarted: Option<String>,
}

struct Running {
    orders: Sender<WorkerCommand>,
    reports: Receiver<WorkerReport>,
    thread: JoinHandle<()>,
}

impl Settings {
    /// Checks without sending that files exist and librdkafka makes a producer. An error names the key.
    pub fn check(&self) -> Result<(), Invalid> {
        self.encoding.registry.as_ref().map_or(Ok(()), RegistryAddress::check)?;
        Producer::check(&self.connection, self.window)
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
            under_way: InFlight::from(0),
            met_again: FxHashSet::default(),
            bytes_under_way: 0,
            running: None,
            busy: now,
            ending: Vec::new(),
            progress: Progress::default(),
            told: 0,
            unstarted: None,
        }
    }

    pub fn of_rates(self) -> Self {
        Self { start: Position::RATES, cursor: Position::RATES, ..self }
    }

    /// Demands a look at the topic, at the agent's own time within a few seconds from `now`: its events may be long in coming.
    pub fn look_up(&mut self, now: Duration) {
        self.look_up_at = Some(now + self.settings.spread.within(FIRST_FLUSH_MAX));
    }

    /// Gives up looking for the topic, and forgets the problem that was found.
    pub fn look_no_more(&mut self) {
        self.look_up_at = None;
        if self.is_looking {
            self.ending.extend(self.running.take().map(|running| running.thread));
            self.begin_anew();
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
            self.ending.push(thread);
            self.begin_anew();
        }
        if moved {
            self.encoder = Encoder::new(settings.encoding.clone(), &settings.topic);
            self.batch_max = Arc::new(BATCH_MAX.into());
        }
        // An unchanged interval must not postpone the flush.
        if settings.interval != self.settings.interval {
            self.next_flush = now + settings.spread.within(settings.interval);
        }
        self.trigger.urgent.replace(settings.urgent.clone());
        self.trigger.events_max.set(settings.held_back_max());
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
    pub fn turn(
        &mut self,
        system: &mut EventSystem,
        now: Duration,
        stamp: impl Fn() -> Stamp,
        waker: impl Fn() -> io::Result<Waker>,
    ) -> Result<(), JournalError> {
        let reports: Vec<WorkerReport> = self.running.iter().flat_map(|running| running.reports.try_iter()).collect();
        self.take_in(reports, system, &stamp)?;
        self.ending.retain(|thread| !thread.is_finished());
        if self.running.as_ref().is_some_and(|running| running.thread.is_finished()) {
            self.worker_died();
        }
        if system.journal().generation() != self.generation {
            (self.generation, self.cursor) = (system.journal().generation(), self.start);
            self.met_again = self.under_way.since(0).map(|(_, id)| *id).collect();
        }
        if self.trigger.due.take() || self.first_flush.take_if(|at| now >= *at).is_some() {
            self.flushing = true;
        }
        if now >= self.next_flush && !self.settings.interval.is_zero() {
            self.next_flush = now + self.settings.interval;
            self.flushing = true;
        }
        if self.flushing {
            self.hand_out(system, stamp().monotonic_ms, &waker)?;
            // A missing topic is not there because nothing is to be sent.
            if self.flushing || !self.is_looking {
                self.progress.flushing(self.flushing, stamp().monotonic_ms);
            }
        }
        if self.look_up_at.take_if(|at| now >= *at).is_some() && self.running.is_none() {
            self.is_looking = self.give(WorkerCommand::LookUp, stamp().monotonic_ms, &waker);
        }
        if !self.under_way.is_empty() || self.is_looking {
            self.busy = now;
        } else if now.saturating_sub(self.busy) >= self.settings.linger {
            self.let_go();
        }
        Ok(())
    }

    pub fn hurry(&mut self) {
        self.flush();
        if let Some(running) = &self.running {
            let _ = running.orders.send(WorkerCommand::TryNow);
        }
    }

    pub fn idle(&self) -> bool {
        !self.flushing && !self.trigger.due.get() && self.under_way.is_empty()
    }

    /// Returns the threads that still have a producer, to be joined before the program ends, lest OpenSSL is unloaded under them.
    pub fn close(mut self) -> Vec<JoinHandle<()>> {
        self.ending.extend(self.running.take().map(|running| running.thread));
        self.ending
    }

    fn take_in(
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
                WorkerReport::Trouble { what, gave_up } => {
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
                    if self.under_way.is_empty() {
                        self.progress.recover();
                    }
                }
            }
        }
        if !delivered.is_empty() {
            self.progress.delivered += delivered.len() as u64;
            debug!("Kafka acknowledged {}", counted(delivered.len() as u64, "event"));
            failpoints::pass("report-after");
        }
        let mut done = system.remove_events(&delivered);
        for (id, reason) in rejected {
            error!("Kafka rejects event {id}: {reason}; it is declared lost");
            self.progress.rejected += 1;
            done = done.and(system.reject_event(id, &reason, stamp()));
        }
        done
    }

    fn acknowledge(&mut self, serial: usize, bytes: usize) -> Option<EventId> {
        let id = self.under_way.take(serial)?;
        self.bytes_under_way -= bytes;
        Some(id)
    }

    fn hand_out(
        &mut self,
        system: &mut EventSystem,
        now_ms: u64,
        waker: &impl Fn() -> io::Result<Waker>,
    ) -> Result<(), JournalError> {
        let Window { events, bytes, .. } = self.settings.window;
        let bytes = bytes.min(usize::try_from(self.settings.journal_bytes / 4).unwrap_or(bytes));
        while self.under_way.len() < events && self.bytes_under_way < bytes {
            let batch = system.batch(self.cursor, events - self.under_way.len(), bytes - self.bytes_under_way)?;
            let Some(last) = batch.last() else {
                self.trigger.held_back.set(0);
                if self.under_way.is_empty() {
                    self.end_flush();
                }
                return Ok(());
            };
            let after = last.position;
            let mut outgoing = Vec::with_capacity(batch.len());
            for QueuedEvent { event, payload: json, .. } in batch {
                if !self.met_again.contains(&event.id) {
                    outgoing.push(OutgoingEvent { event, json });
                }
            }
            let added: usize = outgoing.iter().map(OutgoingEvent::bytes).sum();
            let ids: Vec<EventId> = outgoing.iter().map(|outgoing| outgoing.event.id).collect();
            if !self.give(WorkerCommand::Send(outgoing), now_ms, waker) {
                return Ok(());
            }
            for id in ids {
                self.under_way.push(id);
            }
            self.bytes_under_way += added;
            self.cursor = after;
            self.has_sent = true;
        }
        Ok(())
    }

    fn give(&mut self, order: WorkerCommand, now_ms: u64, waker: &impl Fn() -> io::Result<Waker>) -> bool {
        if self.running.is_none() {
            let started = match self.ending.len() {
                ENDING_MAX.. => Err(format!("{ENDING_MAX} connections are still being closed")),
                _ => self.start(waker).map_err(|error| format!("no thread could be started: {error}")),
            };
            match started {
                Ok(running) => {
                    self.running = Some(running);
                    if self.unstarted.take().is_some() {
                        self.progress.problems.resolve();
                    }
                }
                Err(why) => {
                    if self.unstarted.as_ref() != Some(&why) {
                        error!("cannot publish: {why}; {}", self.settings.waiting);
                        self.progress.problems.start(now_ms, &format!("cannot publish: {why}"));
                        self.unstarted = Some(why);
                    }
                    return false;
                }
            }
        }
        self.running.as_ref().is_some_and(|running| running.orders.send(order).is_ok())
    }

    fn start(&mut self, waker: &impl Fn() -> io::Result<Waker>) -> io::Result<Running> {
        self.under_way = InFlight::from(0);
        let (orders, incoming) = channel();
        let (outgoing, reports) = channel();
        let (settings, encoder, batch_max) = (self.settings.clone(), self.encoder.clone(), Arc::clone(&self.batch_max));
        let has_delivered = self.progress.delivered > 0;
        let worker = Worker::new(settings, encoder, batch_max, incoming, (outgoing, waker()?), has_delivered);
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || worker.run())?;
        debug!("publishing to {} at {}", self.settings.topic, self.settings.connection.brokers());
        Ok(Running { orders, reports, thread })
    }

    fn end_flush(&mut self) {
        self.flushing = false;
        let delivered = self.progress.delivered - std::mem::replace(&mut self.told, self.progress.delivered);
        if delivered > 0 {
            info!("{} delivered to {}", counted(delivered, "event"), self.settings.topic);
        }
    }

    fn let_go(&mut self) {
        if let Some(Running { thread, .. }) = self.running.take() {
            debug!("no event for a while: closing the connection to {}", self.settings.connection.brokers());
            self.ending.push(thread);
        }
    }

    fn worker_died(&mut self) {
        error!("the publisher's thread has ended unexpectedly; what it had not delivered is sent again");
        self.running = None;
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.under_way = InFlight::from(0);
        self.met_again.clear();
        self.bytes_under_way = 0;
        self.is_looking = false;
        self.cursor = self.start;
    }
}

#[cfg(test)]
mod tests;
