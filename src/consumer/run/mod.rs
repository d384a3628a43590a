//! The consumer's loop: reads all topics on one thread, stores their batches one after the other, and waits out what is wrong.
//!
//! ```text
//!  Kafka                                                        threads of their own
//!    │ one member of the group          ┌─ topic ──────────┐
//!    ▼                                  │ batcher          │ batch
//!  membership ──── records ───────────► │ positions        │ ─────► writer ──► store
//!    │   ▲    by topic and partition    │ state, back-off  │          │
//!    │   └─ place, pause, commit ────── │ end              │ ◄────────┘ stored, or why not
//!    │                                  └──────────────────┘ one for each topic
//!    └─ overlap: reads on while the store works                         histograms, maintenance, totals
//! ```
//! Each part owns its fields and knows none of its neighbours; the loop passes on what one has for another. A topic in trouble backs
//! off by itself: it is paused or not placed, while the others are read and stored.

mod batcher;
mod histograms;
mod maintenance;
mod membership;
mod overlap;
mod positions;
mod pulse;
mod reload;
mod topic;
mod totals;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use self::batcher::LINGER;
use self::histograms::HistogramThread;
use self::maintenance::MaintenanceThread;
use self::membership::Member;
use self::overlap::Overlap;
use self::positions::Checkpoints;
use self::pulse::Pulse;
pub use self::reload::{Reload, run, run_reloading};
use self::topic::{End, Ends, InOrder, Topic, TopicState, is_whole, log_rejected, observe, read};
use self::totals::TotalsLog;
use self::writer::{STOP_MAX, Writer};
use super::batch::{Batch, Gap, TopicId};
use super::checkpoint::Checkpoint;
use super::config::{Settings, Start};
use super::source::{Known, Polled, TopicPartition, is_unknown_topic};
use super::store::{Applied, Store, StoreError};
use crate::kafka::offsets::PartitionNumbers;
use crate::message::Event;
use crate::process::backoff::Backoff;
use crate::process::checks::{Finding, Grade};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::{Failure, Status};
use crate::process::failpoints;
use crate::process::log_throttle::LogThrottle;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub until_end: bool,
    /// End the process if the loop gets stuck: for one that has nothing else to do.
    pub watchdog: bool,
    pub log_totals: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct StoredEvent<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub event: &'a Event,
}

/// Longest poll; rebalances and signals wait for it.
const POLL: Duration = Duration::from_millis(100);
const PASS_EVERY: Duration = Duration::from_secs(1);
const END_EVERY: Duration = Duration::from_millis(200);
/// Time after which the failures of a database are looked for, unless it was asked before.
const LOOK_AFTER: Duration = Duration::from_secs(3);
const TOPIC_UNKNOWN_MAX: Duration = Duration::from_secs(10);
const ANCHOR_MAX: Duration = Duration::from_secs(10);

const LATE_WINDOWS: &str = "windows of more than 37 days ago, or more than a day ahead, are stored as numbers, without their histograms; \
                            late_windows in histograms counts them";

struct Consumer<'a> {
    settings: &'a Settings,
    options: Options,
    observer: &'a mut dyn FnMut(&StoredEvent<'_>),
    pulse: Pulse<'a>,
    member: Member,
    topics: Vec<Topic>,
    writer: Writer,
    /// Stored batch: it is reported and freed after the next one was handed over, which takes less time.
    spent: Option<(Arc<Batch>, Applied)>,
    totals: Option<TotalsLog>,
    late: LogThrottle,
    misplaced: Backoff,
    histograms: Option<HistogramThread>,
    _maintenance: MaintenanceThread,
    incompatible: Option<StoreError>,
    started: Duration,
    look_at: Option<Duration>,
    pass_at: Duration,
    end_at: Duration,
}

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("{0}")]
    Store(StoreError),
    #[error("{0}")]
    Kafka(String),
}

impl From<StoreError> for RoundError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<String> for RoundError {
    fn from(error: String) -> Self {
        Self::Kafka(error)
    }
}

impl<'a> Consumer<'a> {
    fn new(
        settings: &'a Settings,
        options: Options,
        observer: &'a mut dyn FnMut(&StoredEvent<'_>),
        stop: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let instance = match settings.instance.as_str() {
            "" => std::process::id().to_string(),
            name => name.to_owned(),
        };
        let member = Member::join(settings).map_err(Failure::config)?;
        log_check(settings, Grade::Warning);
        let pulse = Pulse::start(options.watchdog, stop).map_err(Failure::failed)?;
        Ok(Self {
            settings,
            options,
            observer,
            started: pulse.now(),
            look_at: Some(pulse.now() + LOOK_AFTER),
            pulse,
            topics: member.source.topics().iter().map(|_| Topic::new()).collect(),
            member,
            writer: Writer::new(&settings.store, settings.store_options(instance.clone())),
            spent: None,
            histograms: HistogramThread::start(settings, instance.clone()).map_err(Failure::failed)?,
            _maintenance: MaintenanceThread::start(settings, instance).map_err(Failure::failed)?,
            totals: match options.log_totals {
                true => Some(TotalsLog::start(settings.store.reader()).map_err(Failure::failed)?),
                false => None,
            },
            late: LogThrottle::default(),
            misplaced: Backoff::default(),
            incompatible: None,
            pass_at: Duration::ZERO,
            end_at: Duration::ZERO,
        })
    }

    fn round(&mut self) -> Result<bool, Failure> {
        if let Some(error) = self.incompatible.take() {
            return Err(Failure::config(error));
        }
        let now = self.pulse.step("querying the offsets");
        if self.options.until_end && self.has_ended(now)? {
            return Ok(false);
        }
        self.check_member(now);
        self.check_store(now);
        self.pass_empty_offsets(now);
        for topic in 0..self.topics.len() {
            // After a rebalance a topic may be another member's.
            if self.member.is_displaced() || self.pulse.is_stopping() {
                break;
            }
            self.work_on(topic, now);
        }
        // The database waits for the full batch. Kafka is polled while that is stored.
        if self.topics.iter().any(Topic::is_full) && !self.member.has_news() {
            return Ok(true);
        }
        report(&mut self.spent, self.observer);
        self.pulse.step("waiting for Kafka");
        let is_collecting = self.topics.iter().any(Topic::is_collecting);
        let timeout = if is_collecting { LINGER } else { POLL };
        let Self { topics, member, pulse, .. } = self;
        let news = read(topics, timeout, || pulse.now(), |timeout| member.poll(timeout));
        let now = self.pulse.step("processing messages");
        self.pulse.notifier.ping(now);
        if let Some(news) = news {
            self.deal_with(news, now);
        }
        Ok(true)
    }

    fn work_on(&mut self, topic: usize, now: Duration) {
        match self.topics[topic].state {
            TopicState::Unplaced(at) if now >= at && self.member.has_partitions(topic) => self.place(topic),
            TopicState::Holding(at) if now >= at => self.store(topic),
            TopicState::Reading => {
                self.check_anchors(topic, now);
                if self.topics[topic].is_reading() && self.topics[topic].builder.is_due(now) {
                    self.store(topic);
                }
                if self.topics[topic].is_reading() && self.topics[topic].left_out.is_due(now) {
                    self.unplace(topic, Duration::ZERO);
                }
            }
            _ => {}
        }
    }

    fn deal_with(&mut self, news: Polled, now: Duration) {
        match news {
            Polled::Nothing | Polled::Record(..) | Polled::Unreadable(..) => {}
            Polled::Assigned(partitions) => {
                self.member.assign(partitions);
                self.unplace_all(Duration::ZERO);
            }
            Polled::Misplaced(why) => self.place_again(&why, now),
            Polled::UnknownTopic => self.member.log_unknown_topic(now),
            Polled::Trouble(trouble) => self.member.log_trouble(&trouble, now),
            Polled::Refused(why) => self.member.log_refusal(&why, now),
            Polled::Fatal(why) => self.renew_client(&why),
        }
    }

    /// Stores and places all topics again, after a pause that grows. A report that comes while none is placed is an echo.
    fn place_again(&mut self, why: &str, now: Duration) {
        if !self.topics.iter().any(|topic| topic.state.is_placed()) {
            return;
        }
        log::info!("{}: {why}; looking up where to resume", self.member.source.topics().join(", "));
        self.member.pause(None, now);
        for topic in 0..self.topics.len() {
            if self.topics[topic].is_collecting() {
                self.store(topic);
            }
        }
        let at = now + self.misplaced.pause();
        self.unplace_all(at);
    }

    fn check_member(&mut self, now: Duration) {
        if let Some(why) = self.member.check_adrift(now) {
            self.renew_client(&why);
        }
        if self.member.check_refusal(self.settings, now) {
            self.unplace_all(Duration::ZERO);
        }
    }

    /// Logs what fails in the database, if no partition was there since the start to ask about: it shows before the topics are there.
    fn check_store(&mut self, now: Duration) {
        let is_due = self.look_at.take_if(|at| now >= *at).is_some();
        if is_due && self.member.assigned(None).is_empty() {
            log_check(self.settings, Grade::Failed);
        }
    }

    fn renew_client(&mut self, why: &str) {
        self.unplace_all(Duration::ZERO);
        self.member.renew(self.settings, &self.pulse, why);
    }

    /// Forgets what is not stored of a topic, and has it placed from `at` on. Kafka is paused meanwhile: its position is unknown.
    fn unplace(&mut self, topic: usize, at: Duration) {
        if self.topics[topic].is_reading() {
            self.member.pause(Some(topic), self.pulse.now());
        }
        self.topics[topic].unplace(at);
    }

    fn unplace_all(&mut self, at: Duration) {
        (0..self.topics.len()).for_each(|topic| self.unplace(topic, at));
    }

    fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Self { writer, member, topics, pulse, spent, observer, .. } = self;
        let mut overlap = Overlap::begin(pulse.now());
        let meanwhile = |now| {
            report(spent, *observer);
            overlap.read_on(member, topics, now)
        };
        let answered = writer.ask(pulse, meanwhile, work);
        overlap.end(member, pulse.now());
        if let Err(error @ StoreError::Incompatible(_)) = &answered {
            self.incompatible = Some(error.clone());
        }
        answered
    }

    fn place(&mut self, topic: usize) {
        match self.try_to_place(topic) {
            Ok(()) if self.topics[topic].is_reading() => self.recovered(topic),
            Ok(()) => {}
            Err(error) => {
                let at = self.back_off(topic, &error);
                self.unplace(topic, at);
            }
        }
    }

    /// Finds where the partitions of a topic resume, and reads them; those that do not answer are left out.
    fn try_to_place(&mut self, topic: usize) -> Result<(), RoundError> {
        let (id, PartitionNumbers { all, leaderless }) = self.member.source.describe(topic)?;
        let (asked, assigned) = (id.clone(), self.member.assigned(Some(topic)));
        let mut left_out: BTreeSet<i32> = leaderless.into_iter().collect();
        let mut stored = self.ask(move |store| store.checkpoints(&asked))?;
        // `start` is for topics new to the database. A partition added later is read from its beginning: all was sent since.
        if stored.is_empty() {
            let can_begin: Vec<i32> = match self.settings.start {
                Start::Latest => all,
                Start::Earliest => all.into_iter().filter(|partition| !left_out.contains(partition)).collect(),
            };
            stored = self.begin(topic, &id, self.settings.start, &can_begin)?;
        }
        left_out.retain(|partition| assigned.iter().any(|at| at.partition == *partition));
        stored.retain(|partition, _| {
            assigned.iter().any(|at| at.partition == *partition) && !left_out.contains(partition)
        });
        let found = self.known_records(topic, &stored)?;
        left_out
            .extend(positions::with_records(&stored).into_keys().filter(|partition| !found.contains_key(partition)));
        if !assigned.is_empty() && assigned.len() == left_out.len() {
            return Err(RoundError::Kafka(format!("{id}: no partition can be read yet")));
        }
        let mut checkpoints = Checkpoints::new();
        for at in assigned.into_iter().filter(|at| !left_out.contains(&at.partition)) {
            if self.pulse.is_stopping() {
                return Ok(());
            }
            self.pulse.step("looking up where a partition resumes");
            let watermarks = self.member.source.watermarks(at)?;
            let partition = at.partition;
            let checkpoint = if let Some(old) = stored.get(&partition) {
                let found = found.get(&partition).map_or(&[][..], Vec::as_slice);
                let (new, gap) = positions::resume((&id, partition), old, found, watermarks);
                if new != *old {
                    self.replace_checkpoint(&id, partition, old, &new, gap)?;
                }
                new
            } else {
                let mut begun = self.begin(topic, &id, Start::Earliest, &[partition])?;
                begun.remove(&partition).ok_or_else(|| format!("{id}[{partition}] has no checkpoint"))?
            };
            checkpoints.insert(partition, checkpoint);
        }
        if self.member.is_displaced() {
            return Ok(());
        }
        self.topics[topic].left_out.replace(&id, left_out, self.pulse.now());
        self.read_from(topic, &id, checkpoints)
    }

    fn begin(
        &mut self,
        topic: usize,
        id: &TopicId,
        start: Start,
        partitions: &[i32],
    ) -> Result<Checkpoints, RoundError> {
        let mut first = BTreeMap::new();
        for &partition in partitions {
            self.pulse.step("looking up where a partition begins");
            let watermarks = self.member.source.watermarks(TopicPartition { topic, partition })?;
            first.insert(partition, positions::first_checkpoint(start, watermarks));
        }
        let id = id.clone();
        Ok(self.ask(move |store| store.insert_checkpoints(&id, &first))?)
    }

    fn read_from(&mut self, topic: usize, id: &TopicId, checkpoints: Checkpoints) -> Result<(), RoundError> {
        let now = self.pulse.now();
        self.topics[topic].place(id, checkpoints, now);
        let mut offsets = BTreeMap::new();
        for (topic, state) in self.topics.iter_mut().enumerate() {
            match state.state {
                TopicState::Unplaced(_) => {}
                TopicState::Holding(at) => state.unplace(at),
                TopicState::Reading => {
                    let each = state.builder.offsets();
                    offsets.extend(each.map(|(partition, offset)| (TopicPartition { topic, partition }, offset)));
                }
            }
        }
        let placed = self.member.source.place(&offsets);
        if placed.is_err() {
            self.unplace_all(Duration::ZERO);
        }
        Ok(placed?)
    }

    fn known_records(&mut self, topic: usize, stored: &Checkpoints) -> Result<Known, RoundError> {
        let known = positions::with_records(stored);
        if known.is_empty() {
            return Ok(Known::new());
        }
        let answer = self.member.source.read_again(topic, &known)?;
        let until = self.pulse.now() + ANCHOR_MAX;
        let (mut overlap, mut pause) = (Overlap::begin(self.pulse.now()), Duration::ZERO);
        let found = loop {
            let now = self.pulse.now();
            match answer.recv_timeout(pause) {
                Ok(found) => break Some(found),
                Err(RecvTimeoutError::Timeout) if now < until && !self.pulse.is_stopping() => {}
                Err(_) => break None,
            }
            pause = overlap.read_on(&mut self.member, &mut self.topics, now);
        };
        overlap.end(&mut self.member, self.pulse.now());
        found.ok_or_else(|| RoundError::Kafka("old records cannot be read again yet".to_owned()))
    }

    fn replace_checkpoint(
        &mut self,
        topic: &TopicId,
        partition: i32,
        old: &Checkpoint,
        new: &Checkpoint,
        gap: Option<Gap>,
    ) -> Result<(), StoreError> {
        let (topic, old, new) = (topic.clone(), old.clone(), new.clone());
        self.ask(move |store| store.replace_checkpoint(&topic, partition, &old, &new, gap))
    }

    fn check_anchors(&mut self, topic: usize, now: Duration) {
        let Self { topics, member, .. } = self;
        match topics[topic].positions.read_anchors(now, |known| member.source.read_again(topic, known)) {
            Ok(None) => {}
            Ok(Some((found, before))) => self.judge_anchors(topic, &found, &before),
            Err(error) => member.log(&error, now),
        }
    }

    fn judge_anchors(&mut self, topic: usize, found: &Known, before: &Checkpoints) {
        let id = self.topics[topic].builder.topic().clone();
        for (&partition, found) in found {
            let (Some(place), Some(before)) =
                (self.topics[topic].positions.get(partition).cloned(), before.get(&partition))
            else {
                continue;
            };
            let watermarks = || self.member.source.watermarks(TopicPartition { topic, partition }).ok();
            let new = match positions::judge_anchor(&place, before, found, watermarks) {
                Ok(new) => new,
                Err(why) => {
                    log::info!("{id}[{partition}]: {why}; looking up where to resume");
                    return self.unplace(topic, Duration::ZERO);
                }
            };
            if new != place {
                if let Err(error) = self.replace_checkpoint(&id, partition, &place, &new, None) {
                    return self.give_way(topic, &error.into());
                }
                self.topics[topic].positions.set(partition, new);
            }
        }
    }

    /// Moves `next_offset` over transaction markers and the like, which no message reports.
    fn pass_empty_offsets(&mut self, now: Duration) {
        if now >= self.pass_at {
            self.pass_at = now + PASS_EVERY;
            for (at, position) in self.member.source.positions() {
                self.topics[at.topic].pass(at.partition, position);
            }
        }
    }

    fn store(&mut self, topic: usize) {
        match self.try_to_store(topic) {
            Ok(is_stored) => {
                if matches!(self.topics[topic].state, TopicState::Holding(_)) {
                    self.member.resume(Some(topic), self.pulse.now());
                }
                self.topics[topic].state = TopicState::Reading;
                if is_stored {
                    self.recovered(topic);
                }
            }
            Err(error) => self.give_way(topic, &error),
        }
    }

    fn try_to_store(&mut self, topic: usize) -> Result<bool, RoundError> {
        let Self { topics, member, .. } = self;
        let Some(batch) = topics[topic].batch_to_store() else { return Ok(false) };
        // The store has no reference before the first try, and only then are there missing offsets to judge.
        if let Some(batch) = Arc::get_mut(batch) {
            let low = |partition| Ok(member.source.watermarks(TopicPartition { topic, partition })?.0);
            positions::judge_missing(batch, low)?;
        }
        let (batch, wall) = (Arc::clone(batch), self.pulse.wall());
        let applied = self.ask({
            let batch = Arc::clone(&batch);
            move |store| store.apply(&batch, wall)
        })?;
        self.misplaced.reset();
        let next = self.topics[topic].advance(&batch, &applied);
        log_rejected(&batch, &applied);
        self.log_without_histograms(&applied);
        if let Some(totals) = &self.totals {
            totals.log(&applied.grown);
        }
        failpoints::pass("kafka-before-commit");
        if let Err(error) = self.member.source.commit(topic, &next) {
            log::debug!("Kafka: offsets not committed: {error}");
        }
        failpoints::pass("kafka-after-commit");
        if !is_whole(&batch, &applied) {
            return Err(StoreError::Conflict("a batch was stored in part, before the end".to_owned()).into());
        }
        self.spent = Some((batch, applied));
        if !self.topics[topic].is_collecting() {
            self.end_at = Duration::ZERO;
        }
        Ok(true)
    }

    fn log_without_histograms(&self, applied: &Applied) {
        if applied.without_histograms > 0
            && let Some(line) = self.late.admit(LATE_WINDOWS, self.pulse.now())
        {
            log::warn!("{line}");
        }
    }

    /// Keeps a batch for a later try, or forgets it where the database is somewhere else.
    fn give_way(&mut self, topic: usize, error: &RoundError) {
        let at = self.back_off(topic, error);
        if matches!(error, RoundError::Store(StoreError::Conflict(_))) {
            return self.unplace(topic, at);
        }
        if self.topics[topic].is_reading() {
            self.member.pause(Some(topic), self.pulse.now());
        }
        self.topics[topic].state = TopicState::Holding(at);
    }

    fn back_off(&mut self, topic: usize, error: &RoundError) -> Duration {
        let now = self.pulse.now();
        match error {
            RoundError::Kafka(trouble) => self.member.log(trouble, now),
            RoundError::Store(error) => self.writer.log(error, now),
        }
        let backoff = &mut self.topics[topic].backoff;
        now + match error {
            RoundError::Store(StoreError::Misconfigured(_) | StoreError::Pooled(_)) => backoff.slow_pause(),
            _ => backoff.pause(),
        }
    }

    fn recovered(&mut self, topic: usize) {
        self.topics[topic].backoff.reset();
        let ours = (0..self.topics.len()).filter(|other| self.member.has_partitions(*other));
        let InOrder { kafka, store } = InOrder::of(ours.map(|topic| self.topics[topic].state));
        if kafka {
            self.member.recovered();
        }
        if store {
            self.writer.recovered();
        }
    }

    /// Returns whether `until_end` is reached, at an interval, also while more messages keep coming.
    fn has_ended(&mut self, now: Duration) -> Result<bool, Failure> {
        if now < self.end_at {
            return Ok(false);
        }
        self.end_at = now + END_EVERY;
        let mut all = true;
        for topic in 0..self.topics.len() {
            all &= !self.pulse.is_stopping() && self.is_at_end(topic, now)?;
        }
        Ok(all)
    }

    /// Returns whether the database has all of a topic, whichever member stored it.
    fn is_at_end(&mut self, topic: usize, now: Duration) -> Result<bool, Failure> {
        let ends = match &self.topics[topic].end {
            End::Reached => return Ok(true),
            End::At(ends) => Arc::clone(ends),
            End::Unknown => {
                match Ends::look(&self.member.source, topic) {
                    Ok(ends) => self.topics[topic].end = End::At(Arc::new(ends)),
                    Err(error) if !is_unknown_topic(&error) => self.member.log(&error, now),
                    // Not asked again: an answer waits for the broker's fetch that finds nothing.
                    Err(_) if self.settings.may_be_missing(&self.member.source.topics()[topic]) => {
                        self.topics[topic].end = End::Reached;
                        return Ok(true);
                    }
                    Err(error) if now.saturating_sub(self.started) > TOPIC_UNKNOWN_MAX => {
                        return Err(Failure::new(Status::Unavailable, error));
                    }
                    Err(_) => {}
                }
                return Ok(false);
            }
        };
        match self.ask(move |store| Ok(ends.are_reached(&store.checkpoints(&ends.topic)?))) {
            Ok(true) => self.topics[topic].end = End::Reached,
            Ok(false) => {}
            Err(error) => self.writer.log(&error, now),
        }
        Ok(self.topics[topic].end == End::Reached)
    }

    fn end(mut self) {
        for topic in 0..self.topics.len() {
            let now = self.pulse.now();
            let is_time_left = self.pulse.stopping_for(now).is_none_or(|time| time <= STOP_MAX);
            if self.topics[topic].is_collecting() && is_time_left {
                self.store(topic);
            }
            let name = &self.member.source.topics()[topic];
            if !self.settings.may_be_missing(name) || self.topics[topic].has_stored() {
                self.topics[topic].log_end(name);
            }
        }
        if let Some(histograms) = self.histograms.filter(|_| !self.pulse.is_stopping()) {
            histograms.finish();
        }
        report(&mut self.spent, self.observer);
        self.member.source.close();
    }
}

/// Logs the findings of this grade about the database. Failures are the store's own to report, once it is asked.
fn log_check(settings: &Settings, grade: Grade) {
    let (store, wall) = (settings.store.clone(), SystemClock::default().wall());
    // A database may never answer; the thread ends with the program.
    std::thread::spawn(move || {
        // Each session of the store warns of too few locks by itself.
        let is_ours = |finding: &Finding| finding.grade == grade && finding.about != "locks";
        for finding in store.check(wall).into_iter().filter(is_ours) {
            log::warn!("{}: {}", finding.about, finding.text);
        }
    });
}

fn report(spent: &mut Option<(Arc<Batch>, Applied)>, observer: &mut dyn FnMut(&StoredEvent<'_>)) {
    if let Some((batch, applied)) = spent.take() {
        observe(&batch, &applied, observer);
    }
}

#[cfg(test)]
mod tests;
