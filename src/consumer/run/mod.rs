//! The consumer's loop: reads all topics on one thread, stores their batches one after the other, and waits out what is wrong.
//!
//! ```text
//!  Kafka                                                          threads of their own
//!    │ one member of the group          ┌─ topic ──────────┐
//!    ▼                                  │ batcher          │ batch
//!  membership ──── records ───────────► │ checkpoints      │ ─────► store_thread ──► store
//!    │   ▲    by topic and partition    │ state, back-off  │            │
//!    │   └─ assign, pause, commit ───── │ end              │ ◄──────────┘ stored, or why not
//!    │                                  └──────────────────┘ one for each topic
//!    └─ read_ahead: reads on while the store works                histograms, maintenance, totals
//! ```
//! Each part owns its fields and knows none of its neighbours; the loop passes on what one has for another. A topic in trouble backs
//! off by itself: it is paused, or its offsets are looked up later, while the others are read and stored.

mod batcher;
mod checkpoints;
mod histograms;
mod liveness;
mod maintenance;
mod membership;
mod read_ahead;
mod reload;
mod store_thread;
mod topic;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use self::batcher::LINGER;
use self::checkpoints::Checkpoints;
use self::histograms::HistogramThread;
use self::liveness::Liveness;
use self::maintenance::MaintenanceThread;
use self::membership::Member;
use self::read_ahead::ReadAhead;
pub use self::reload::{Reload, run, run_reloading};
use self::store_thread::{STOP_MAX, StoreThread};
use self::topic::{EndOffsets, EndState, Health, Topic, TopicState, is_whole, log_rejected, observe, read};
use self::totals::TotalsLog;
use super::batch::{Batch, Gap, TopicId};
use super::checkpoint::Checkpoint;
use super::config::{Settings, Start};
use super::source::{AnchorRecords, Polled, TopicPartition};
use super::store::{Applied, Store, StoreError};
use crate::kafka::offsets::{PartitionNumbers, PartitionsError};
use crate::message::Event;
use crate::process::backoff::Backoff;
use crate::process::checks::Finding;
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
const SKIP_EVERY: Duration = Duration::from_secs(1);
const END_EVERY: Duration = Duration::from_millis(200);
const TOPIC_UNKNOWN_MAX: Duration = Duration::from_secs(10);
const ANCHOR_MAX: Duration = Duration::from_secs(10);

const LATE_WINDOWS: &str = "windows from over 37 days ago, or over a day ahead, are stored without their histograms; late_windows in \
                            histograms counts them";

struct Consumer<'a> {
    settings: &'a Settings,
    options: Options,
    observer: &'a mut dyn FnMut(&StoredEvent<'_>),
    liveness: Liveness<'a>,
    member: Member,
    topics: Vec<Topic>,
    store_thread: StoreThread,
    /// Stored batch: it is reported and freed after the next one was handed over, which takes less time.
    unreported: Option<(Arc<Batch>, Applied)>,
    totals: Option<TotalsLog>,
    late: LogThrottle,
    lost_positions: Backoff,
    histograms: Option<HistogramThread>,
    _maintenance: MaintenanceThread,
    incompatible: Option<StoreError>,
    started: Duration,
    skip_at: Duration,
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
        log_store_check(settings);
        let liveness = Liveness::start(options.watchdog, stop).map_err(Failure::failed)?;
        Ok(Self {
            settings,
            options,
            observer,
            started: liveness.now(),
            liveness,
            topics: member.source.topics().iter().map(|_| Topic::new()).collect(),
            member,
            store_thread: StoreThread::new(&settings.store, settings.store_options(instance.clone())),
            unreported: None,
            histograms: HistogramThread::start(settings, instance.clone()).map_err(Failure::failed)?,
            _maintenance: MaintenanceThread::start(settings, instance).map_err(Failure::failed)?,
            totals: match options.log_totals {
                true => Some(TotalsLog::start(settings.store.reader()).map_err(Failure::failed)?),
                false => None,
            },
            late: LogThrottle::default(),
            lost_positions: Backoff::default(),
            incompatible: None,
            skip_at: Duration::ZERO,
            end_at: Duration::ZERO,
        })
    }

    fn round(&mut self) -> Result<bool, Failure> {
        if let Some(error) = self.incompatible.take() {
            return Err(Failure::config(error));
        }
        if self.member.is_renewing() {
            let now = self.liveness.step("connecting to Kafka");
            self.liveness.notifier.ping(now);
            self.member.make_new_client(self.settings, now);
            std::thread::sleep(POLL);
            return Ok(true);
        }
        let now = self.liveness.step("querying the offsets");
        if self.options.until_end && self.has_ended(now)? {
            return Ok(false);
        }
        self.check_member(now);
        if self.member.is_renewing() {
            return Ok(true);
        }
        self.skip_empty_offsets(now);
        for topic in 0..self.topics.len() {
            // After a rebalance a topic may be another member's.
            if self.member.loses_positions() || self.liveness.is_stopping() {
                break;
            }
            self.advance(topic, now);
        }
        // The database waits for the full batch. Kafka is polled while that is stored.
        if self.topics.iter().any(Topic::is_full) && !self.member.has_pending() {
            return Ok(true);
        }
        report(&mut self.unreported, self.observer);
        self.liveness.step("waiting for Kafka");
        let is_collecting = self.topics.iter().any(Topic::is_collecting);
        let timeout = if is_collecting { LINGER } else { POLL };
        let Self { topics, member, liveness, .. } = self;
        let news = read(topics, timeout, || liveness.now(), |timeout| member.poll(timeout));
        let now = self.liveness.step("processing messages");
        self.liveness.notifier.ping(now);
        if let Some(news) = news {
            self.handle(news, now);
        }
        Ok(true)
    }

    fn advance(&mut self, topic: usize, now: Duration) {
        match self.topics[topic].state {
            TopicState::AwaitingOffsets(at) if now >= at && self.member.has_partitions(topic) => {
                self.start_reading(topic);
            }
            TopicState::Paused(at) if now >= at => self.store(topic),
            TopicState::Reading => {
                self.check_anchors(topic, now);
                if self.topics[topic].is_reading() && self.topics[topic].builder.is_due(now) {
                    self.store(topic);
                }
                if self.topics[topic].is_reading() && self.topics[topic].unavailable.is_due(now) {
                    self.stop_reading(topic, Duration::ZERO);
                }
            }
            _ => {}
        }
    }

    fn handle(&mut self, news: Polled, now: Duration) {
        match news {
            Polled::NoMessage | Polled::Record(..) | Polled::Unreadable(..) => {}
            Polled::Assigned(partitions) => {
                self.member.assign(partitions);
                self.stop_reading_all(Duration::ZERO);
            }
            Polled::PositionLost(why) => self.look_up_again(&why, now),
            Polled::UnknownTopic => self.member.log_unknown_topic(now),
            Polled::Error(error) => self.member.log_error(&error, now),
            Polled::Refused(why) => self.member.log_refusal(&why, now),
            Polled::Fatal(why) => self.renew_client(&why),
        }
    }

    /// Stores what was read, and looks up all offsets again after a growing pause. Ignores repeated reports while no topic is read.
    fn look_up_again(&mut self, why: &str, now: Duration) {
        if !self.topics.iter().any(|topic| topic.state.has_offsets()) {
            return;
        }
        log::info!("{}: {why}; looking up where to resume", self.member.source.topics().join(", "));
        self.member.pause(None, now);
        for topic in 0..self.topics.len() {
            if self.topics[topic].is_collecting() {
                self.store(topic);
            }
        }
        let at = now + self.lost_positions.pause();
        self.stop_reading_all(at);
    }

    fn check_member(&mut self, now: Duration) {
        if let Some(why) = self.member.check_unassigned(now) {
            self.renew_client(&why);
        }
        if self.member.check_refusal(self.settings, now) {
            self.stop_reading_all(Duration::ZERO);
        }
    }

    fn renew_client(&mut self, why: &str) {
        self.stop_reading_all(Duration::ZERO);
        self.member.renew(why, self.liveness.now());
    }

    /// Forgets what is not stored of a topic, whose offsets are looked up again at `at`. Kafka is paused until then.
    fn stop_reading(&mut self, topic: usize, at: Duration) {
        if self.topics[topic].is_reading() {
            self.member.pause(Some(topic), self.liveness.now());
        }
        self.topics[topic].stop_reading(at);
    }

    fn stop_reading_all(&mut self, at: Duration) {
        (0..self.topics.len()).for_each(|topic| self.stop_reading(topic, at));
    }

    fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Self { store_thread, member, topics, liveness, unreported, observer, .. } = self;
        let mut read_ahead = ReadAhead::begin(liveness.now());
        let meanwhile = |now| {
            report(unreported, *observer);
            read_ahead.poll(member, topics, now)
        };
        let answered = store_thread.ask(liveness, meanwhile, work);
        read_ahead.end(member, liveness.now());
        if let Err(error @ StoreError::Incompatible(_)) = &answered {
            self.incompatible = Some(error.clone());
        }
        answered
    }

    fn start_reading(&mut self, topic: usize) {
        match self.try_to_start(topic) {
            Ok(()) if self.topics[topic].is_reading() => self.recovered(topic),
            Ok(()) => {}
            Err(error) => {
                let at = self.back_off(topic, &error);
                self.stop_reading(topic, at);
            }
        }
    }

    /// Finds where the partitions of a topic resume, and reads them; those that do not answer are left out.
    fn try_to_start(&mut self, topic: usize) -> Result<(), RoundError> {
        let (id, PartitionNumbers { all, leaderless }) = self.member.source.describe(topic).map_err(String::from)?;
        let (asked, assigned) = (id.clone(), self.member.assigned(Some(topic)));
        let mut unavailable: BTreeSet<i32> = leaderless.into_iter().collect();
        let mut stored = self.ask(move |store| store.checkpoints(&asked))?;
        // `start` is for topics new to the database. A partition added later is read from its beginning: all was sent since.
        if stored.is_empty() {
            let can_begin: Vec<i32> = match self.settings.start {
                Start::Latest => all,
                Start::Earliest => all.into_iter().filter(|partition| !unavailable.contains(partition)).collect(),
            };
            stored = self.insert_first_checkpoints(topic, &id, self.settings.start, &can_begin)?;
        }
        unavailable.retain(|partition| assigned.iter().any(|at| at.partition == *partition));
        stored.retain(|partition, _| {
            assigned.iter().any(|at| at.partition == *partition) && !unavailable.contains(partition)
        });
        let found = self.known_records(topic, &stored)?;
        unavailable
            .extend(checkpoints::with_records(&stored).into_keys().filter(|partition| !found.contains_key(partition)));
        if !assigned.is_empty() && assigned.len() == unavailable.len() {
            return Err(RoundError::Kafka(format!("{id}: no partition can be read yet")));
        }
        let mut checkpoints = Checkpoints::new();
        for at in assigned.into_iter().filter(|at| !unavailable.contains(&at.partition)) {
            if self.liveness.is_stopping() {
                return Ok(());
            }
            self.liveness.step("looking up where a partition resumes");
            let watermarks = self.member.source.watermarks(at)?;
            let partition = at.partition;
            let checkpoint = if let Some(old) = stored.get(&partition) {
                let found = found.get(&partition).map_or(&[][..], Vec::as_slice);
                let (new, gap) = checkpoints::resume((&id, partition), old, found, watermarks);
                if new != *old {
                    self.replace_checkpoint(&id, partition, old, &new, gap)?;
                }
                new
            } else {
                let mut begun = self.insert_first_checkpoints(topic, &id, Start::Earliest, &[partition])?;
                begun.remove(&partition).ok_or_else(|| format!("{id}[{partition}] has no checkpoint"))?
            };
            checkpoints.insert(partition, checkpoint);
        }
        if self.member.loses_positions() {
            return Ok(());
        }
        self.topics[topic].unavailable.replace(&id, unavailable, self.liveness.now());
        self.read_from(topic, &id, checkpoints)
    }

    fn insert_first_checkpoints(
        &mut self,
        topic: usize,
        id: &TopicId,
        start: Start,
        partitions: &[i32],
    ) -> Result<Checkpoints, RoundError> {
        let mut first = BTreeMap::new();
        for &partition in partitions {
            self.liveness.step("looking up where a partition begins");
            let watermarks = self.member.source.watermarks(TopicPartition { topic, partition })?;
            first.insert(partition, checkpoints::first_checkpoint(start, watermarks));
        }
        let id = id.clone();
        Ok(self.ask(move |store| store.insert_checkpoints(&id, &first))?)
    }

    fn read_from(&mut self, topic: usize, id: &TopicId, checkpoints: Checkpoints) -> Result<(), RoundError> {
        let now = self.liveness.now();
        self.topics[topic].start_reading(id, checkpoints, now);
        let mut offsets = BTreeMap::new();
        for (topic, state) in self.topics.iter_mut().enumerate() {
            match state.state {
                TopicState::AwaitingOffsets(_) => {}
                TopicState::Paused(at) => state.stop_reading(at),
                TopicState::Reading => {
                    let each = state.builder.offsets();
                    offsets.extend(each.map(|(partition, offset)| (TopicPartition { topic, partition }, offset)));
                }
            }
        }
        let assigned = self.member.source.assign_offsets(&offsets);
        if assigned.is_err() {
            self.stop_reading_all(Duration::ZERO);
        }
        Ok(assigned?)
    }

    fn known_records(&mut self, topic: usize, stored: &Checkpoints) -> Result<AnchorRecords, RoundError> {
        let known = checkpoints::with_records(stored);
        if known.is_empty() {
            return Ok(AnchorRecords::new());
        }
        let answer = self.member.source.read_again(topic, &known)?;
        let until = self.liveness.now() + ANCHOR_MAX;
        let (mut read_ahead, mut pause) = (ReadAhead::begin(self.liveness.now()), Duration::ZERO);
        let found = loop {
            let now = self.liveness.now();
            match answer.recv_timeout(pause) {
                Ok(found) => break Some(found),
                Err(RecvTimeoutError::Timeout) if now < until && !self.liveness.is_stopping() => {}
                Err(_) => break None,
            }
            pause = read_ahead.poll(&mut self.member, &mut self.topics, now);
        };
        read_ahead.end(&mut self.member, self.liveness.now());
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
        match topics[topic].checkpoints.read_anchors(now, |known| member.source.read_again(topic, known)) {
            Ok(None) => {}
            Ok(Some((found, before))) => self.verify_anchors(topic, &found, &before),
            Err(error) => member.log(&error, now),
        }
    }

    fn verify_anchors(&mut self, topic: usize, found: &AnchorRecords, before: &Checkpoints) {
        let id = self.topics[topic].builder.topic().clone();
        for (&partition, found) in found {
            let (Some(checkpoint), Some(before)) =
                (self.topics[topic].checkpoints.get(partition).cloned(), before.get(&partition))
            else {
                continue;
            };
            let watermarks = || self.member.source.watermarks(TopicPartition { topic, partition }).ok();
            let new = match checkpoints::verify_anchor(&checkpoint, before, found, watermarks) {
                Ok(new) => new,
                Err(why) => {
                    log::info!("{id}[{partition}]: {why}; looking up where to resume");
                    return self.stop_reading(topic, Duration::ZERO);
                }
            };
            if new != checkpoint {
                if let Err(error) = self.replace_checkpoint(&id, partition, &checkpoint, &new, None) {
                    return self.handle_store_error(topic, &error.into());
                }
                self.topics[topic].checkpoints.set(partition, new);
            }
        }
    }

    /// Moves `next_offset` over transaction markers and the like, which no message reports.
    fn skip_empty_offsets(&mut self, now: Duration) {
        if now >= self.skip_at {
            self.skip_at = now + SKIP_EVERY;
            for (at, position) in self.member.source.positions() {
                self.topics[at.topic].skip_to(at.partition, position);
            }
        }
    }

    fn store(&mut self, topic: usize) {
        match self.try_to_store(topic) {
            Ok(is_stored) => {
                if matches!(self.topics[topic].state, TopicState::Paused(_)) {
                    self.member.resume(Some(topic), self.liveness.now());
                }
                self.topics[topic].state = TopicState::Reading;
                if is_stored {
                    self.recovered(topic);
                }
            }
            Err(error) => self.handle_store_error(topic, &error),
        }
    }

    fn try_to_store(&mut self, topic: usize) -> Result<bool, RoundError> {
        let Self { topics, member, .. } = self;
        let Some(batch) = topics[topic].batch_to_store() else { return Ok(false) };
        // The store has no reference before the first try, and only then are there missing offsets to judge.
        if let Some(batch) = Arc::get_mut(batch) {
            let low = |partition| Ok(member.source.watermarks(TopicPartition { topic, partition })?.0);
            checkpoints::record_expired(batch, low)?;
        }
        let (batch, wall) = (Arc::clone(batch), self.liveness.wall());
        let applied = self.ask({
            let batch = Arc::clone(&batch);
            move |store| store.apply(&batch, wall)
        })?;
        self.lost_positions.reset();
        let next = self.topics[topic].advance(&batch, &applied);
        log_rejected(&batch, &applied);
        self.log_without_histograms(&applied);
        if let Some(totals) = &self.totals {
            totals.log(&applied.added_totals);
        }
        failpoints::hit("kafka-before-commit");
        if let Err(error) = self.member.source.commit(topic, &next) {
            log::debug!("Kafka: offsets not committed: {error}");
        }
        failpoints::hit("kafka-after-commit");
        if !is_whole(&batch, &applied) {
            return Err(StoreError::Conflict("a batch was stored in part, before the end".to_owned()).into());
        }
        self.unreported = Some((batch, applied));
        if !self.topics[topic].is_collecting() {
            self.end_at = Duration::ZERO;
        }
        Ok(true)
    }

    fn log_without_histograms(&self, applied: &Applied) {
        if applied.without_histograms > 0
            && let Some(line) = self.late.admit(LATE_WINDOWS, self.liveness.now())
        {
            log::warn!("{line}");
        }
    }

    /// Keeps a batch for a later try, or forgets it where the database is somewhere else.
    fn handle_store_error(&mut self, topic: usize, error: &RoundError) {
        let at = self.back_off(topic, error);
        if matches!(error, RoundError::Store(StoreError::Conflict(_))) {
            return self.stop_reading(topic, at);
        }
        if self.topics[topic].is_reading() {
            self.member.pause(Some(topic), self.liveness.now());
        }
        self.topics[topic].state = TopicState::Paused(at);
    }

    fn back_off(&mut self, topic: usize, error: &RoundError) -> Duration {
        let now = self.liveness.now();
        match error {
            RoundError::Kafka(error) => self.member.log(error, now),
            RoundError::Store(error) => self.store_thread.log(error, now),
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
        let Health { kafka, store } = Health::of(ours.map(|topic| self.topics[topic].state));
        if kafka {
            self.member.recovered();
        }
        if store {
            self.store_thread.recovered();
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
            all &= !self.liveness.is_stopping() && self.is_at_end(topic, now)?;
        }
        Ok(all)
    }

    /// Returns whether the database has all of a topic, whichever member stored it.
    fn is_at_end(&mut self, topic: usize, now: Duration) -> Result<bool, Failure> {
        let ends = match &self.topics[topic].end {
            EndState::Reached => return Ok(true),
            EndState::At(ends) => Arc::clone(ends),
            EndState::Unknown => {
                match EndOffsets::fetch(&self.member.source, topic) {
                    Ok(ends) => self.topics[topic].end = EndState::At(Arc::new(ends)),
                    Err(PartitionsError::Failed(error)) => self.member.log(&error, now),
                    // Not asked again: an answer waits for the broker's fetch that finds nothing.
                    Err(PartitionsError::UnknownTopic(_))
                        if self.settings.may_be_missing(&self.member.source.topics()[topic]) =>
                    {
                        self.topics[topic].end = EndState::Reached;
                        return Ok(true);
                    }
                    Err(PartitionsError::UnknownTopic(error))
                        if now.saturating_sub(self.started) > TOPIC_UNKNOWN_MAX =>
                    {
                        return Err(Failure::new(Status::Unavailable, error));
                    }
                    Err(PartitionsError::UnknownTopic(_)) => {}
                }
                return Ok(false);
            }
        };
        match self.ask(move |store| Ok(ends.are_reached(&store.checkpoints(&ends.topic)?))) {
            Ok(true) => self.topics[topic].end = EndState::Reached,
            Ok(false) => {}
            Err(error) => self.store_thread.log(&error, now),
        }
        Ok(self.topics[topic].end == EndState::Reached)
    }

    fn end(mut self) {
        for topic in 0..self.topics.len() {
            let now = self.liveness.now();
            let is_time_left = self.liveness.stopping_for(now).is_none_or(|time| time <= STOP_MAX);
            if self.topics[topic].is_collecting() && is_time_left {
                self.store(topic);
            }
            let name = &self.member.source.topics()[topic];
            if !self.settings.may_be_missing(name) || self.topics[topic].has_stored() {
                self.topics[topic].log_stored(name);
            }
        }
        if let Some(histograms) = self.histograms.filter(|_| !self.liveness.is_stopping()) {
            histograms.finish();
        }
        report(&mut self.unreported, self.observer);
        self.member.source.close();
    }
}

/// Logs what is wrong with the database at the start: the store itself is asked only once partitions are assigned.
fn log_store_check(settings: &Settings) {
    let (store, wall) = (settings.store.clone(), SystemClock::default().wall());
    // A database may never answer; the thread ends with the program.
    std::thread::spawn(move || {
        // Each session of the store warns of too few locks by itself.
        let is_ours = |finding: &Finding| finding.is_problem() && finding.about != "locks";
        for finding in store.check(wall).into_iter().filter(is_ours) {
            log::warn!("{}: {}", finding.about, finding.text);
        }
    });
}

fn report(unreported: &mut Option<(Arc<Batch>, Applied)>, observer: &mut dyn FnMut(&StoredEvent<'_>)) {
    if let Some((batch, applied)) = unreported.take() {
        observe(&batch, &applied, observer);
    }
}

#[cfg(test)]
mod tests;
