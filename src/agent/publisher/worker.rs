//! The thread that owns the producer. It has one answer to every failure: give this producer up, wait, make a new one, and send
//! everything that is not acknowledged again, in order, from the oldest.
//!
//! ```text
//!             ┌───────────── back-off over, flush demanded ───────────────┐
//!             ▼                                                           │
//!   start ► Sending ── fatal error, failed delivery, no progress ──► Waiting   1 → 60 s
//!             │  ├──── topic, authorization, authentication, TLS ──► Waiting   5 → 300 s, alarm
//!             │  └──── batch too large, event refused ─────────────► Sending   smaller batches, one by one
//!             └─────── no events for a while, or reconfigured ─────► ended
//! ```
//!
//! No event overtakes those that are sent again: the producer numbers its messages, Kafka accepts none that skips a number, and
//! after a refusal librdkafka numbers no further (`enable.gapless.guarantee`). From a producer that has written nothing yet Kafka
//! accepts any number, so the first message goes alone. Only what a topic refuses alone is overtaken (see [`Trial`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use log::{info, warn};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::Settings;
use super::commands::{Acknowledgement, OutgoingEvent, WorkerCommand, WorkerReport};
use super::encoding::Encoder;
use super::producer::{BATCH_MAX, DeliveryReport, Producer, SendError, Tuning};
use super::reaper::tear_down;
use super::session::{ProducerSession, UNREACHABLE_AFTER};
use super::session_end::SessionEnd;
use super::spread::Spread;
use super::trial::{Refused, Trial, TrialVerdict};
use crate::agent::publisher::in_flight::InFlight;
use crate::kafka;
use crate::kafka::admin::{Admin, TopicLookup};
use crate::kafka::schema_registry::{self, RegistryAddress};
use crate::message::Body;
use crate::process::backoff::Backoff;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::failpoints;
use crate::process::log_throttle::LogThrottle;
use crate::process::signals::Waker;
use crate::units::lasting;
use crate::wire;

pub(super) struct Worker {
    settings: Settings,
    encoder: Encoder,
    batch_max: Arc<AtomicUsize>,
    commands: Receiver<WorkerCommand>,
    reports: Sender<WorkerReport>,
    waker: Waker,
    clock: SystemClock,
    unacked: InFlight<OutgoingEvent>,
    written: Vec<u8>,
    trial: Option<Trial>,
    slow_until: Option<Duration>,
    throttle: LogThrottle,
    has_problem: bool,
    backoff: Backoff,
    spread: Spread,
    /// True once missing topics were looked for, and created, after the last report that one was missing.
    has_topics: bool,
    overdue_after: Duration,
}

const POLL_UNREACHABLE: Duration = Duration::from_millis(250);
const POLL_ALONE: Duration = Duration::from_millis(2);
const POLL_IDLE: Duration = Duration::from_secs(5);
const ID_REQUEST_TIMEOUT: Duration = Duration::from_millis(100);
const FATAL_POLL_PAUSE: Duration = Duration::from_millis(10);
const STUCK_AFTER: Duration = Duration::from_secs(600);
/// Time-outs in a row, each on a working connection, after which it counts as slow: larger requests take longer.
const TIMEOUTS_MAX: u32 = 2;
/// Time after which a slow connection is tried as a fast one, so that a lost one is noticed soon again.
const SLOW_FOR: Duration = Duration::from_secs(600);
const BATCH_SLOW: usize = 64 << 10;
/// Size in bytes below which batches are not reduced further: events then go one by one.
const BATCH_MIN: usize = 1_000;
const FILES_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Time without an acknowledgement after which this is reported; sooner before the first one ever, when a new user waits for the
/// reason.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);
const FIRST_OVERDUE_AFTER: Duration = Duration::from_secs(6);

impl Worker {
    pub(super) fn new(
        settings: Settings,
        encoder: Encoder,
        batch_max: Arc<AtomicUsize>,
        commands: Receiver<WorkerCommand>,
        (reports, waker): (Sender<WorkerReport>, Waker),
        has_delivered: bool,
    ) -> Self {
        Self {
            overdue_after: if has_delivered { OVERDUE_AFTER } else { FIRST_OVERDUE_AFTER },
            backoff: Backoff::default(),
            spread: settings.spread,
            settings,
            encoder,
            batch_max,
            commands,
            reports,
            waker,
            clock: SystemClock::default(),
            unacked: InFlight::from(0),
            written: Vec::new(),
            trial: None,
            slow_until: None,
            throttle: LogThrottle::default(),
            has_problem: false,
            has_topics: false,
        }
    }

    pub(super) fn run(mut self) {
        while self.has_events() {
            let files = self.files();
            let end = match self.open(files) {
                Ok(mut session) => {
                    let end = self.serve(&mut session);
                    if matches!(end, SessionEnd::Closed) {
                        return; // drops the producer on this thread, which may hang
                    }
                    tear_down(session.producer);
                    end
                }
                Err(end) => end,
            };
            if !self.prepare_next(end, files) {
                return;
            }
        }
    }

    /// Waits for the first events, so that no producer is kept without any. Returns false when no more will come.
    fn has_events(&mut self) -> bool {
        while self.unacked.is_empty() {
            let goes_on = match self.commands.recv() {
                Ok(WorkerCommand::LookUp) => self.look_up(),
                Ok(command) => {
                    self.accept(command);
                    true
                }
                Err(_) => false,
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    /// Looks the topic up until it is there, or there are events, which find out by themselves. Each time a connection is made and
    /// closed. An unreachable broker is reported only once there are events to send. Returns false when no events will come.
    fn look_up(&mut self) -> bool {
        while self.unacked.is_empty() {
            let files = self.files();
            let goes_on = match self.look_at_topic() {
                Some(Ok(())) => break,
                Some(Err(refused)) => self.prepare_next(refused, files),
                None => {
                    let pause = self.back_off(1, 60);
                    self.wait(pause, files)
                }
            };
            if !goes_on {
                return false;
            }
        }
        self.backoff.reset();
        if self.unacked.is_empty() {
            self.recover();
        }
        let _ = self.reports.send(WorkerReport::LookedUp);
        self.waker.wake();
        true
    }

    /// Returns what the cluster says about the topic, after missing ones were created; `None` if it does not answer.
    fn look_at_topic(&mut self) -> Option<Result<(), SessionEnd>> {
        let admin = Admin::new(&self.settings.connection).ok()?;
        let mut found = admin.look_up(&self.settings.topic).ok()?;
        if matches!(found, TopicLookup::Missing) && self.settings.create_topics.is_some() {
            self.create_topics();
            found = admin.look_up(&self.settings.topic).ok()?;
        }
        let (topic, brokers) = (&self.settings.topic, self.settings.connection.brokers());
        Some(match found {
            TopicLookup::Found { .. } => Ok(()),
            TopicLookup::Missing => Err(SessionEnd::of(Code::UnknownTopicOrPartition, topic, brokers)),
            TopicLookup::Denied(_) => Err(SessionEnd::of(Code::TopicAuthorizationFailed, topic, brokers)),
        })
    }

    /// Creates missing topics, if configured. Failures are only logged: the producer finds out what follows from them.
    fn create_topics(&mut self) {
        let Some(plan) = self.settings.create_topics.as_ref().filter(|_| !self.has_topics) else { return };
        let (created, result) = plan.create_missing(&self.settings.connection);
        created.iter().for_each(|name| info!("created topic {name}"));
        match result {
            Ok(()) => self.has_topics = true,
            Err(why) => {
                self.log_throttled(&format!("cannot create topics: {why}"));
            }
        }
    }

    fn open(&mut self, files: (u64, u64)) -> Result<ProducerSession, SessionEnd> {
        self.create_topics();
        self.encoder.prepare().map_err(|refusal| match refusal {
            schema_registry::RegistryError::Unavailable(why) => SessionEnd::Retry(why),
            schema_registry::RegistryError::Misconfigured(why) | schema_registry::RegistryError::NotFound(why) => {
                SessionEnd::NeedsOperator(why)
            }
        })?;
        let batch_max = self.batch_max.load(Ordering::Relaxed);
        let long_timeouts = self.slow_until.is_some();
        let batch_max = if long_timeouts { batch_max.min(BATCH_SLOW) } else { batch_max };
        let tuning = Tuning { batch_max, one_by_one: self.trial.is_some(), long_timeouts };
        let producer = Producer::new(&self.settings.connection, self.settings.in_flight, tuning);
        let producer = producer.map_err(SessionEnd::NeedsOperator)?;
        let (first, now) = (self.unacked.first(), self.clock.monotonic());
        Ok(ProducerSession::new(producer, files, first, self.overdue_after, now))
    }

    /// Prepares the next session, after a pause if necessary. Returns false when no more events will come.
    fn prepare_next(&mut self, end: SessionEnd, files: (u64, u64)) -> bool {
        let topic = &self.settings.topic;
        let (first, longest, why) = match end {
            SessionEnd::Closed => return false,
            SessionEnd::Replace => return true,
            SessionEnd::SlowConnection => {
                info!("the connection to Kafka is slow: waiting longer for its answers, and sending less at once");
                self.slow_until = Some(self.clock.monotonic() + failpoints::duration("patience-s", SLOW_FOR));
                return true;
            }
            SessionEnd::ReduceBatch(bytes, code) => {
                info!("{topic} refuses a batch ({code}): sending at most {bytes} bytes at once from now on");
                self.batch_max.store(bytes, Ordering::Relaxed);
                return true;
            }
            SessionEnd::OneByOne(code) => {
                info!("{topic} refuses an event ({code}): sending one by one");
                self.trial.get_or_insert_default();
                return true;
            }
            SessionEnd::InBatches => {
                info!("{topic} accepts events: sending in batches again");
                self.trial = None;
                self.batch_max.store(BATCH_MAX, Ordering::Relaxed);
                return true;
            }
            SessionEnd::Unreachable(reason) => {
                self.report_unreachable(&reason, true);
                let pause = self.back_off(1, 60);
                return self.wait(pause, files);
            }
            SessionEnd::Retry(why) => (1, 60, why),
            SessionEnd::NeedsOperator(why) => (5, 300, why),
        };
        // A topic may have been deleted meanwhile.
        self.has_topics = false;
        let pause = self.back_off(first, longest);
        self.log_throttled(&format!(
            "cannot publish: {why}; {}, next attempt in {}",
            self.settings.waiting,
            lasting(pause)
        ));
        self.report_problem(WorkerReport::Problem { what: format!("cannot publish: {why}"), gave_up: true });
        self.wait(pause, files)
    }

    fn serve(&mut self, session: &mut ProducerSession) -> SessionEnd {
        loop {
            if let Err(end) = self.step(session) {
                return end;
            }
        }
    }

    fn step(&mut self, session: &mut ProducerSession) -> Result<(), SessionEnd> {
        self.receive_commands(session)?;
        match self.trial {
            Some(_) => self.send_one(session),
            None => self.send_unacked(session)?,
        }
        let deliveries = session.producer.deliveries();
        if !deliveries.is_empty() {
            if let Some(end) = self.take_reports(session, deliveries) {
                self.take_remaining_reports(session);
                return Err(end);
            }
            // More deliveries may follow, but the room made by these is used first.
            return Ok(());
        }
        if session.fatal_polls_left > 0 && session.producer.fatal().is_some() {
            // Delivery reports are more precise than the fatal error, and follow it.
            session.fatal_polls_left -= 1;
            std::thread::sleep(FATAL_POLL_PAUSE);
            return Ok(());
        }
        self.check_client_errors(session)?;
        if self.trial.as_ref().is_some_and(|trial| trial.is_over(&self.unacked)) {
            return Err(SessionEnd::InBatches);
        }
        if self.unacked.is_empty() {
            return Ok(());
        }
        let pause = self.pause(session)?;
        match self.commands.recv_timeout(pause) {
            Ok(command) => self.accept_during(session, command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(SessionEnd::Closed),
        }
        Ok(())
    }

    fn receive_commands(&mut self, session: &mut ProducerSession) -> Result<(), SessionEnd> {
        if self.unacked.is_empty() {
            while self.unacked.is_empty() {
                match self.commands.recv_timeout(POLL_IDLE) {
                    Ok(command) => self.accept_during(session, command),
                    Err(RecvTimeoutError::Timeout) if session.producer.idle() => {}
                    Err(RecvTimeoutError::Timeout) => return Err(SessionEnd::Replace),
                    Err(RecvTimeoutError::Disconnected) => return Err(SessionEnd::Closed),
                }
            }
            let now = self.clock.monotonic();
            session.begin_to_await(self.unacked.first(), now);
            let was_slow = self.slow_until.take_if(|until| now >= *until).is_some();
            if was_slow {
                info!("the connection to Kafka has the usual timeouts again");
            }
            if was_slow || !session.producer.idle() || self.files() != session.files {
                return Err(SessionEnd::Replace);
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.accept_during(session, command),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(SessionEnd::Closed),
            }
        }
    }

    fn accept_during(&mut self, session: &mut ProducerSession, command: WorkerCommand) {
        if !self.accept(command) {
            return;
        }
        session.retry_requested = true;
        if let Some(trial) = &mut self.trial {
            trial.begin_round();
            session.held_until = None;
        }
    }

    /// Returns true if the command requests a retry, and has no events.
    fn accept(&mut self, command: WorkerCommand) -> bool {
        let WorkerCommand::Send(outgoing) = command else { return true };
        for outgoing in outgoing {
            self.unacked.push(outgoing);
        }
        false
    }

    fn send_unacked(&mut self, session: &mut ProducerSession) -> Result<(), SessionEnd> {
        let oldest = self.unacked.first();
        for (serial, outgoing) in self.unacked.since(session.next) {
            if serial != oldest && !session.has_delivered {
                break;
            }
            let (_, sent) =
                send(&session.producer, &self.encoder, &self.settings.topic, serial, outgoing, &mut self.written);
            match sent {
                Ok(()) => session.next = serial + 1,
                // The delivery of an earlier message reports the fatal error.
                Err(SendError::Full | SendError::Never(Code::Fatal)) => break,
                Err(SendError::Never(code)) => return Err(SessionEnd::OneByOne(code)),
            }
        }
        Ok(())
    }

    fn send_one(&mut self, session: &mut ProducerSession) {
        let Some(serial) = self.trial.as_ref().and_then(|trial| trial.next(&self.unacked)) else { return };
        let Some((_, outgoing)) = self.unacked.since(serial).next().filter(|_| session.in_flight_alone.is_none())
        else {
            return;
        };
        let (bytes, sent) =
            send(&session.producer, &self.encoder, &self.settings.topic, serial, outgoing, &mut self.written);
        match sent {
            Ok(()) => {
                session.in_flight_alone = Some((serial, bytes));
                session.begin_to_await(serial, self.clock.monotonic());
            }
            Err(SendError::Full | SendError::Never(Code::Fatal)) => {}
            Err(SendError::Never(code)) => self.on_refused(session, (serial, bytes), code),
        }
    }

    fn take_reports(
        &mut self,
        session: &mut ProducerSession,
        deliveries: Vec<(usize, DeliveryReport)>,
    ) -> Option<SessionEnd> {
        let mut end = None;
        let mut receipts = Vec::with_capacity(deliveries.len());
        for (serial, delivery) in deliveries {
            let alone = session.in_flight_alone.take_if(|(alone, _)| *alone == serial);
            match delivery {
                Ok((partition, offset)) => {
                    session.has_delivered = true;
                    if let Some(trial) = &mut self.trial {
                        trial.accept(serial);
                    }
                    if let Some(outgoing) = self.unacked.take(serial) {
                        receipts.push(Acknowledgement { serial, bytes: outgoing.bytes(), partition, offset });
                    }
                }
                // Purged after a fatal error, which is handled next.
                Err(Code::PurgeQueue | Code::PurgeInflight) => {}
                Err(code) => match alone.filter(|_| is_refusal(code)) {
                    Some(alone) => self.on_refused(session, alone, code),
                    None => end = end.or(Some(self.failed(session, code))),
                },
            }
        }
        if !receipts.is_empty() {
            failpoints::hit("report-before");
            let _ = self.reports.send(WorkerReport::Delivered(receipts));
            self.backoff.reset();
            (self.overdue_after, session.overdue_after) = (OVERDUE_AFTER, OVERDUE_AFTER);
            (session.held_until, session.retry_requested) = (None, false);
            session.forget_timeouts();
            let is_held = self.trial.as_ref().is_some_and(|trial| trial.held() > 0);
            if !is_held && session.has_moved_to(self.unacked.first()) {
                self.recover();
            }
            self.waker.wake();
        }
        end
    }

    /// Reports the remaining deliveries, so that the next producer does not send these events again.
    fn take_remaining_reports(&mut self, session: &mut ProducerSession) {
        loop {
            let deliveries = session.producer.deliveries();
            if deliveries.is_empty() {
                return;
            }
            // The first failure has already decided how the session ends.
            let _ = self.take_reports(session, deliveries);
        }
    }

    fn on_refused(&mut self, session: &mut ProducerSession, (serial, bytes): (usize, usize), code: Code) {
        let Some(trial) = &mut self.trial else { return };
        let is_loss = |outgoing: &OutgoingEvent| matches!(outgoing.event.body, Body::Loss(_));
        let is_loss = self.unacked.since(serial).next().is_some_and(|(_, outgoing)| is_loss(outgoing));
        session.refused_by = Some(code);
        let verdict = trial.refuse(Refused { serial, bytes, for_its_size: is_about_size(code), is_loss });
        if verdict == TrialVerdict::AtFault
            && let Some(outgoing) = self.unacked.take(serial)
        {
            let bytes = outgoing.bytes();
            let _ = self.reports.send(WorkerReport::Rejected { serial, bytes, reason: code.to_string() });
            self.waker.wake();
        }
    }

    fn failed(&self, session: &ProducerSession, code: Code) -> SessionEnd {
        if !is_refusal(code) {
            return SessionEnd::of(code, &self.settings.topic, self.settings.connection.brokers());
        }
        let smaller = self.batch_max.load(Ordering::Relaxed) / 8;
        // The first message of a producer is a batch by itself.
        if is_about_size(code) && session.has_delivered && smaller >= BATCH_MIN {
            SessionEnd::ReduceBatch(smaller, code)
        } else {
            SessionEnd::OneByOne(code)
        }
    }

    fn check_client_errors(&mut self, session: &mut ProducerSession) -> Result<(), SessionEnd> {
        if let Some(fatal) = session.producer.fatal() {
            return Err(SessionEnd::Retry(fatal));
        }
        if let Some(cause) = session.producer.cause()
            && session.cause.replace(cause.clone()).as_ref() != Some(&cause)
        {
            self.report_problem(WorkerReport::Retrying { cause });
        }
        if session.producer.timed_out()
            && session.count_timeout(self.clock.monotonic()) >= TIMEOUTS_MAX
            && self.slow_until.is_none()
        {
            return Err(SessionEnd::SlowConnection);
        }
        for (code, reason) in session.producer.errors() {
            if let Some(refusal) = kafka::refusal(code, &reason) {
                return Err(SessionEnd::NeedsOperator(refusal));
            }
            match code {
                Code::Fatal => return Err(SessionEnd::Retry(reason)),
                Code::AllBrokersDown => {
                    // The error before this one names a broker, and is more precise.
                    let reason = session.cause.clone().unwrap_or(reason);
                    self.report_unreachable(&reason, false);
                    session.unreachable = Some(reason);
                }
                // The other brokers may do. Events that wait for this one are reported as overdue, with this cause.
                _ => session.cause = Some(kafka::explained(&reason, self.settings.connection.brokers())),
            }
        }
        Ok(())
    }

    /// Returns the pause before the next session, which doubles up to `longest_s` and starts over after a delivery.
    fn back_off(&mut self, first_s: u64, longest_s: u64) -> Duration {
        self.spread.shorten(self.backoff.next(Duration::from_secs(first_s), Duration::from_secs(longest_s)))
    }

    fn pause(&mut self, session: &mut ProducerSession) -> Result<Duration, SessionEnd> {
        let now = self.clock.monotonic();
        let is_refused = |trial: &Trial| session.in_flight_alone.is_none() && trial.next(&self.unacked).is_none();
        if self.trial.as_ref().is_some_and(is_refused) {
            return Ok(self.wait_before_round(session, now));
        }
        let awaited = session.in_flight_alone.map_or(self.unacked.first(), |(serial, _)| serial);
        let waited = session.waited(awaited, now);
        let unreachable_max = session.unreachable_max();
        if let Some(reason) = session.unreachable.take_if(|_| waited >= unreachable_max) {
            return Err(SessionEnd::Unreachable(reason));
        }
        if waited > STUCK_AFTER {
            return Err(SessionEnd::Retry(format!("nothing was delivered for {}", lasting(STUCK_AFTER))));
        }
        if std::mem::take(&mut session.retry_requested) && waited >= UNREACHABLE_AFTER {
            // A new producer connects at once; this one has its own back-off, of up to a minute.
            return Err(SessionEnd::Replace);
        }
        if session.is_overdue(now) {
            self.report_overdue(session);
        }
        Ok(match waited {
            _ if waited >= UNREACHABLE_AFTER => POLL_UNREACHABLE,
            _ if !session.has_delivered && session.id_requests_left > 0 => {
                session.id_requests_left -= 1;
                session.producer.request_producer_id(&self.settings.topic, ID_REQUEST_TIMEOUT);
                POLL_ALONE
            }
            _ if session.in_flight_alone.is_some() => POLL_ALONE,
            _ => self.settings.in_flight.poll,
        })
    }

    fn wait_before_round(&mut self, session: &mut ProducerSession, now: Duration) -> Duration {
        match session.held_until {
            Some(until) if now < until => POLL_UNREACHABLE.min(until - now),
            Some(_) => {
                session.held_until = None;
                if let Some(trial) = &mut self.trial {
                    trial.begin_round();
                }
                Duration::ZERO
            }
            None => {
                session.held_until = Some(now + self.back_off(5, 300));
                let topic = &self.settings.topic;
                let (code, remedy) = match session.refused_by {
                    Some(code) if is_about_size(code) => (code, "raise its max.message.bytes"),
                    code => (code.unwrap_or(Code::Fail), "the broker's log says why"),
                };
                let what = format!("topic {topic} refuses events: {code}; {remedy}");
                self.log_throttled(&format!("cannot publish: {what}; {} and are tried again", self.settings.waiting));
                self.report_problem(WorkerReport::Refusing { what });
                POLL_UNREACHABLE
            }
        }
    }

    fn report_unreachable(&mut self, reason: &str, gave_up: bool) {
        let is_new = self.log_throttled(&format!("cannot reach Kafka, {}: {reason}", self.settings.waiting));
        if is_new || gave_up {
            self.report_problem(WorkerReport::Problem { what: format!("cannot reach Kafka: {reason}"), gave_up });
        }
    }

    fn report_overdue(&mut self, session: &ProducerSession) {
        let cause = session.cause.clone().or_else(|| session.producer.diagnose(&self.settings.topic));
        let cause = cause.unwrap_or_else(|| "the brokers report no cause".to_owned());
        let overdue = lasting(session.overdue_after);
        let what = format!("Kafka has not acknowledged an event for over {overdue}: {cause}");
        if self.log_throttled(&format!("{what}; {}", self.settings.waiting)) {
            self.report_problem(WorkerReport::Problem { what, gave_up: false });
        }
    }

    /// Waits for `pause`, taking commands, or until a certificate or secret changes. Returns false when no more events will come.
    fn wait(&mut self, pause: Duration, files: (u64, u64)) -> bool {
        let until = self.clock.monotonic() + pause;
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            match self.commands.recv_timeout(left.min(FILES_CHECK_INTERVAL)) {
                Ok(command) => {
                    if self.accept(command) {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Timeout) if left <= FILES_CHECK_INTERVAL || self.files() != files => return true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn files(&self) -> (u64, u64) {
        let registry = self.settings.encoding.registry.as_ref();
        (self.settings.connection.files(), registry.map_or(0, RegistryAddress::files))
    }

    fn log_throttled(&self, message: &str) -> bool {
        let line = self.throttle.admit(message, self.clock.monotonic());
        line.inspect(|line| warn!("{line}")).is_some()
    }

    fn report_problem(&mut self, report: WorkerReport) {
        self.has_problem = true;
        let _ = self.reports.send(report);
        self.waker.wake();
    }

    fn recover(&mut self) {
        if self.throttle.clear() {
            info!("publishing again to {}", self.settings.topic);
        }
        if std::mem::take(&mut self.has_problem) {
            let _ = self.reports.send(WorkerReport::Recovered);
        }
    }
}

fn send(
    producer: &Producer,
    encoder: &Encoder,
    topic: &str,
    serial: usize,
    outgoing: &OutgoingEvent,
    written: &mut Vec<u8>,
) -> (usize, Result<(), SendError>) {
    let json = outgoing.json.as_deref().unwrap_or_else(|| {
        written.clear();
        wire::write_json(&outgoing.event, written);
        written
    });
    let message = encoder.message(&outgoing.event, json);
    failpoints::hit("send-before");
    let sent = producer.send(topic, serial, &message);
    if sent.is_ok() {
        failpoints::hit("send-after");
    }
    (message.key.len() + message.payload.len(), sent)
}

fn is_refusal(code: Code) -> bool {
    is_about_size(code) || matches!(code, Code::InvalidMessage | Code::InvalidRecord | Code::InvalidDifferentRecord)
}

fn is_about_size(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge)
}
