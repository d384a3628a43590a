//! The agent's main loop: ticks at absolute deadlines of the monotonic clock, so that a late one does not delay the next, and
//! between them whatever wakes it. A tick blocks only on the kernel's counters and, if it made an event, on the journal's disk.

pub mod check;
mod cost;
mod rates;
mod reload;
mod samples;
mod skipped;
mod status;

use std::path::Path;
use std::time::Duration;

use chrono::SubsecRound as _;
use log::{error, info, warn};

use self::rates::RateStream;
use self::samples::SampleStream;
use self::skipped::SkippedReadings;
use self::status::AgentHealth;
use crate::agent::config::Settings;
use crate::agent::counters::{self, CounterSource, Reading};
use crate::agent::detector::{Detections, Detector};
use crate::agent::event_system::{EventSystem, Observer, stamp};
use crate::agent::journal::{Durability, DurableJournal, Identity, Journal as _, JournalConfig, JournalError};
use crate::agent::observers::log::LogObserver;
use crate::agent::publisher::{Publisher, await_tear_down};
use crate::agent::status::{StatusSocket, socket_path};
use crate::message::{Body, Lifecycle, NewEvent, Reason, Stamp};
use crate::process::clock::{Clock, SystemClock};
use crate::process::exit::{Failure, chain};
use crate::process::host::{boot_id, machine_id};
use crate::process::log_throttle::LogThrottle;
use crate::process::random::random;
use crate::process::signals::SignalPipe;
use crate::process::systemd::{Directories, Notifier};
use crate::process::watchdog::{Heartbeat, Stall};
use crate::units::{counted, lasting};

pub struct Run<'a> {
    pub signals: &'a SignalPipe,
    pub duration: Option<Duration>,
    pub observers: Vec<Box<dyn Observer>>,
    pub reload: &'a dyn Fn() -> Result<Settings, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub ticks: u64,
    pub skipped: u64,
    pub lateness_max: Duration,
    pub delivered: u64,
    pub pending: u64,
    /// Events that were in memory only, since the disk failed, and are lost with the process.
    pub lost: u64,
    pub problem: Option<String>,
}

impl Outcome {
    pub fn all_delivered(self) -> Result<(), Failure> {
        let left = match (self.pending, self.lost) {
            (0, 0) => return Ok(()),
            (pending, 0) => format!("{} left in the journal", counted(pending, "event")),
            (_, lost) => format!("{} lost", counted(lost, "event")),
        };
        let why = self.problem.map(|why| format!(": {why}")).unwrap_or_default();
        Err(Failure::failed(format!("{left}{why}")))
    }
}

const FINAL_FLUSH_MAX: Duration = Duration::from_secs(10);
/// Extra readings after a tick, which reveal a driver that counts in software; used from last to first.
const PROBE_AFTER: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(20)];

const STEP_MAX: Duration = Duration::from_secs(10);
const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(5);

struct Agent {
    settings: Settings,
    clock: Box<dyn Clock>,
    boot_id: String,
    source: Box<dyn CounterSource>,
    detector: Detector,
    /// Dropped before the journal's lock: an agent that takes the lock finds no other one listening.
    status: StatusSocket,
    system: EventSystem,
    publisher: Publisher,
    rates: RateStream,
    samples: Option<SampleStream>,
    heartbeat_at: Duration,
    reading: Reading,
    detections: Detections,
    throttle: LogThrottle,
    skipped: SkippedReadings,
    heartbeat: Heartbeat,
    health: AgentHealth,
    outcome: Outcome,
    notifier: Notifier,
}

/// Runs an agent. Fails if no counters can be read, or another agent uses the state directory.
pub fn run(settings: Settings, run: Run<'_>) -> Result<Outcome, Failure> {
    let mut agent = Agent::start(settings, run.observers, Box::<SystemClock>::default())?;
    watch_ticks(&agent.heartbeat).map_err(Failure::failed)?;
    agent.watch(run.signals, run.duration, run.reload);
    Ok(agent.finish(run.signals))
}

/// Logs a tick while it is stuck; it may never return.
fn watch_ticks(heartbeat: &Heartbeat) -> std::io::Result<()> {
    heartbeat.watch(STALL_CHECK_INTERVAL, STEP_MAX, |Stall { doing, time }| {
        error!("the tick is stuck: {doing} for {}; nothing is measured meanwhile", lasting(time));
    })
}

impl Agent {
    fn start(settings: Settings, observers: Vec<Box<dyn Observer>>, clock: Box<dyn Clock>) -> Result<Self, Failure> {
        let boot_id = boot_id();
        let now = stamp(&settings.agent, &boot_id, &*clock);
        let config = JournalConfig {
            directory: settings.state_dir.clone(),
            size_max: settings.journal_size,
            age_max: settings.journal_age,
            identity: Identity { agent: settings.agent.as_str().into(), machine_id: machine_id() },
        };
        let mut journal = DurableJournal::open(config, &now).map_err(refused)?;
        let source = open_source(&settings).map_err(Failure::failed)?;
        let mut detector = detector(&settings);
        match journal.open_breaches() {
            Ok(open) => {
                let open = open.into_iter().filter_map(|event| Some((event.body.breach()?.clone(), event.stamp)));
                detector.resume(open.collect(), settings.resume_within, &now);
            }
            Err(error) => error!("the open breaches could not be read, so they are not resumed: {}", chain(&error)),
        }
        let backlog = journal.pending().events > journal.pending().rates;
        let rates = RateStream::new(&settings, &mut journal, &*clock);
        let samples =
            settings.samples.then(|| SampleStream::new(&settings, &*clock)).transpose().map_err(Failure::failed)?;
        let heartbeat_at = clock.monotonic();
        let mut system = EventSystem::new(Box::new(journal));
        system.subscribe(Box::new(LogObserver));
        let publisher = Publisher::new(settings.publisher.clone(), backlog, clock.monotonic());
        system.subscribe(publisher.observer());
        for observer in observers {
            system.subscribe(observer);
        }
        let Directories { runtime, .. } = Directories::from_environment();
        let status = StatusSocket::open(socket_path(runtime.as_deref(), &settings.state_dir), clock.monotonic());
        let health = AgentHealth { started_ms: now.monotonic_ms, ..AgentHealth::default() };
        let (reading, detections, throttle, skipped, heartbeat, outcome) = Default::default();
        let notifier = Notifier::ready(settings.interval);
        let mut agent = Self {
            settings,
            clock,
            boot_id,
            source,
            detector,
            status,
            system,
            publisher,
            rates,
            samples,
            heartbeat_at,
            reading,
            detections,
            throttle,
            skipped,
            heartbeat,
            health,
            outcome,
            notifier,
        };
        agent.note_samples();
        agent.log_start();
        agent.system.notify_own_events();
        agent.add(vec![Body::AgentStarted(lifecycle(None))]);
        Ok(agent)
    }

    fn log_start(&self) {
        let Settings { agent, interval, limits, state_dir, publisher, .. } = &self.settings;
        info!(
            "agent {agent} started: reading by {} every {}, {}; journal in {}; publishing to {} at {} every {}",
            self.source.name(),
            lasting(*interval),
            counted(limits.len() as u64, "limit"),
            state_dir.display(),
            publisher.topic,
            publisher.connection.brokers(),
            lasting(publisher.interval)
        );
        let of_disk = check::check_state_dir(&self.settings);
        for finding in of_disk.iter().chain([&check::check_clock(&*self.clock)]).filter(|finding| finding.is_problem())
        {
            warn!("{}: {}", finding.about, finding.text);
        }
    }

    fn watch(
        &mut self,
        signals: &SignalPipe,
        duration: Option<Duration>,
        reload: &dyn Fn() -> Result<Settings, String>,
    ) {
        let started = self.clock.monotonic();
        let end = duration.map(|duration| started + duration);
        let mut deadline = started;
        let mut probes: Vec<Duration> = Vec::new();
        let mut has_client = false;
        loop {
            let now = self.clock.monotonic();
            let mut ticked = false;
            if signals.stop_requested() || end.is_some_and(|end| now >= end) {
                return;
            }
            if now >= deadline {
                self.outcome.lateness_max = self.outcome.lateness_max.max(now - deadline);
                self.outcome.ticks += 1;
                self.tick();
                ticked = true;
                probes.clear();
                if self.detector.wants_probe() {
                    let read = self.clock.monotonic();
                    probes.extend(PROBE_AFTER.map(|after| read + after));
                }
                deadline = self.next_deadline(deadline);
            }
            if probes.pop_if(|at| now >= *at).is_some() {
                self.probe();
            }
            if signals.take_flush_request() {
                info!("flushing on signal: {} pending", counted(self.system.pending().events, "event"));
                self.flush();
            }
            if signals.take_reload_request() {
                let interval = self.settings.interval;
                self.reload(reload);
                if self.settings.interval != interval {
                    deadline = self.clock.monotonic() + self.settings.interval;
                }
            }
            self.publish(signals);
            if ticked {
                self.notifier.ping(self.clock.monotonic());
            }
            if has_client {
                self.answer();
            }
            self.heartbeat.idle();
            let next = [end, probes.last().copied()].into_iter().flatten().fold(deadline, Duration::min);
            has_client = signals.wait(self.status.listener(), next.saturating_sub(self.clock.monotonic()));
        }
    }

    /// Returns the deadline of the next tick in the future; those that are over are counted as skipped.
    fn next_deadline(&mut self, deadline: Duration) -> Duration {
        let interval = self.settings.interval;
        let (next, now) = (deadline + interval, self.clock.monotonic());
        let missed = missed(next, now, interval);
        self.outcome.skipped += u64::from(missed);
        if let Some(line) = self.skipped.count(missed, now) {
            warn!("{line}");
        }
        next + interval * missed
    }

    fn tick(&mut self) {
        self.heartbeat.enter("reading the counters", self.clock.monotonic());
        self.status.upkeep(self.clock.monotonic());
        if let Err(error) = self.source.read(&*self.clock, &mut self.reading) {
            let what = format!("the counters could not be read: {}", chain(&error));
            let now = self.stamp();
            self.health.counters.start(now.monotonic_ms, &what);
            self.log_error(&what);
            self.add_rates(false, &now);
            self.maintain_journal(&now);
            return;
        }
        let now = self.stamp_of_reading();
        self.health.counters.resolve();
        self.health.last_tick_ms = Some(now.monotonic_ms);
        self.detector.observe(&self.reading, &now, &mut self.detections);
        if self.outcome.ticks == 1 && self.settings.limits.is_empty() {
            warn!("{}", check::no_limit(&self.settings, &self.detector));
        }
        self.heartbeat.enter(JOURNAL, self.clock.monotonic());
        self.add_detected(&now);
        self.add_rates(true, &now);
        if let Some(samples) = &mut self.samples
            && let Err(error) = samples.add(&self.detector, &now)
        {
            self.report_error(&format!("samples: {}", chain(&error)));
        }
        if let Some(line) = self.samples.as_mut().and_then(|samples| samples.given_up(self.clock.monotonic())) {
            error!("{line}");
        }
        self.maintain_journal(&now);
    }

    fn maintain_journal(&mut self, now: &Stamp) {
        self.heartbeat.enter(JOURNAL, self.clock.monotonic());
        if let Err(error) = self.system.upkeep(now) {
            self.report_error(&chain(&error));
        }
    }

    fn probe(&mut self) {
        if self.source.read(&*self.clock, &mut self.reading).is_ok() {
            self.detector.probe(&self.reading, &mut self.detections);
            let now = self.stamp_of_reading();
            self.add_detected(&now);
        }
    }

    fn add_detected(&mut self, now: &Stamp) {
        for notice in self.detections.notices.drain(..) {
            warn!("{notice}");
        }
        let bodies = std::mem::take(&mut self.detections.bodies);
        self.add_at(bodies, now);
    }

    fn add(&mut self, bodies: Vec<Body>) -> bool {
        let now = self.stamp();
        self.add_at(bodies, &now)
    }

    /// Returns whether the events were registered.
    fn add_at(&mut self, bodies: Vec<Body>, now: &Stamp) -> bool {
        if bodies.is_empty() {
            return true;
        }
        let new_events = bodies.into_iter().map(|body| NewEvent { stamp: now.clone(), body }).collect();
        let added = self.system.add_events(new_events);
        if let Err(error) = &added {
            error!("events could not be registered: {}", chain(error));
        }
        let is_registered = added.is_ok();
        for failure in self.system.failures() {
            self.report_error(&chain(&failure));
        }
        is_registered
    }

    fn publish(&mut self, signals: &SignalPipe) {
        self.heartbeat.enter(JOURNAL, self.clock.monotonic());
        let Self { publisher, rates, samples, system, settings, boot_id, clock, .. } = self;
        let now = || stamp(&settings.agent, boot_id, &**clock);
        let monotonic = clock.monotonic();
        let mut done = publisher.poll(system, monotonic, now, || signals.waker());
        if publisher.take_sent() {
            rates.publisher.flush();
        }
        done = done.and(rates.publisher.poll(system, monotonic, now, || signals.waker()));
        let sampled = samples.as_mut().map_or(Ok(()), |samples| samples.publish(monotonic, now, || signals.waker()));
        if let Err(error) = done {
            self.report_error(&format!("the journal: {}", chain(&error)));
        }
        if let Err(error) = sampled {
            self.report_error(&format!("samples: {}", chain(&error)));
        }
        self.note_samples();
    }

    fn flush(&mut self) {
        self.system.flush();
        self.publisher.flush_now();
        self.rates.publisher.flush_now();
        self.samples.iter_mut().for_each(SampleStream::flush_now);
    }

    fn finish(mut self, signals: &SignalPipe) -> Outcome {
        self.notifier.stopping();
        self.health.ending = true;
        let reason = if signals.stop_requested() { Reason::Signal } else { Reason::Finished };
        self.add_last_events(reason);
        self.save_open_window();
        self.flush();
        self.publish_last(signals);
        let now = self.stamp();
        let samples = self.samples.take();
        let samples = samples.map(|samples| self.end_samples(samples));
        if let Err(error) = self.system.journal().close(&now) {
            self.report_error(&chain(&error));
        }
        let (pending, durability) = (self.system.pending(), self.system.journal().durability());
        // Rates go with a later flush.
        let pending = pending.events - pending.rates;
        let (pending, lost) = if durability == Durability::OnDisk { (pending, 0) } else { (0, pending) };
        let delivered = self.publisher.progress().delivered;
        let problem = (pending + lost > 0).then(|| self.publisher.progress().problem().to_owned());
        let outcome = Outcome { delivered, pending, lost, problem, ..self.outcome };
        info!(
            "stopped after {} ({} skipped, at most {:.1} ms late): {} delivered, {}",
            counted(outcome.ticks, "reading"),
            outcome.skipped,
            outcome.lateness_max.as_secs_f64() * 1_000.0,
            counted(delivered, "event"),
            if durability == Durability::OnDisk {
                format!("{pending} left in the journal")
            } else {
                format!("{lost} lost")
            }
        );
        if lost > 0 {
            error!("lost {}: kept in memory only, because the journal cannot be written", counted(lost, "event"));
        }
        drop(self.status);
        drop(self.system);
        let mut threads = self.publisher.close();
        threads.extend(self.rates.publisher.close());
        threads.extend(samples.into_iter().flatten());
        await_tear_down(&threads, &*self.clock);
        outcome
    }

    /// Publishes until nothing is left, for at most [`FINAL_FLUSH_MAX`].
    fn publish_last(&mut self, signals: &SignalPipe) {
        let until = self.clock.monotonic() + FINAL_FLUSH_MAX;
        let mut has_client = false;
        loop {
            self.publish(signals);
            if has_client {
                self.answer();
            }
            let left = until.saturating_sub(self.clock.monotonic());
            // Rates that wait for a missing topic do not delay the stop.
            let is_idle = |publisher: &Publisher| publisher.idle() || publisher.progress().problems.ongoing.is_some();
            let others = self.samples.as_ref().is_none_or(|samples| is_idle(samples.publisher()))
                && is_idle(&self.rates.publisher);
            if self.publisher.idle() && others || left.is_zero() {
                return;
            }
            has_client = signals.wait(self.status.listener(), left.min(Duration::from_millis(100)));
        }
    }

    fn add_last_events(&mut self, reason: Reason) {
        let mut last = self.detector.last_updates();
        last.push(Body::AgentStopped(lifecycle(Some(reason))));
        self.add(last);
    }

    fn stamp(&self) -> Stamp {
        stamp(&self.settings.agent, &self.boot_id, &*self.clock)
    }

    fn stamp_of_reading(&self) -> Stamp {
        let now = self.stamp();
        let since = self.clock.boottime().saturating_sub(self.reading.boottime);
        Stamp {
            observed_at: (now.observed_at - since).trunc_subsecs(6),
            monotonic_ms: u64::try_from(self.reading.boottime.as_millis()).unwrap_or(u64::MAX),
            ..now
        }
    }

    fn report_error(&mut self, message: &str) {
        self.health.others.note(self.stamp().monotonic_ms, message);
        self.log_error(message);
    }

    fn log_error(&self, message: &str) {
        if let Some(line) = self.throttle.admit(message, self.clock.monotonic()) {
            error!("{line}");
        }
    }
}

fn refused(error: JournalError) -> Failure {
    match error {
        // Another start would not help.
        JournalError::Newer { .. } => Failure::config(error),
        error => Failure::failed(error),
    }
}

fn detector(settings: &Settings) -> Detector {
    Detector::new(settings.limits.clone(), settings.interval, random())
}

fn open_source(settings: &Settings) -> Result<Box<dyn CounterSource>, counters::CounterError> {
    counters::open(settings.source.clone(), Path::new("/"), settings.selection())
}

fn lifecycle(reason: Option<Reason>) -> Lifecycle {
    Lifecycle { version: env!("CARGO_PKG_VERSION").to_owned(), reason, detail: None }
}

fn missed(deadline: Duration, now: Duration, interval: Duration) -> u32 {
    match now.checked_sub(deadline) {
        Some(late) => (late.as_nanos() / interval.as_nanos()) as u32 + 1,
        None => 0,
    }
}

const JOURNAL: &str = "waiting for the journal's disk";

#[cfg(test)]
mod tests;
