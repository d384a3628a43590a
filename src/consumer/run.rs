//! The one loop: read, store, and wait out what is wrong.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::backoff::Backoff;
use super::batch::{Batch, Record};
use super::config::{Settings, Start};
use super::place::{Place, Reading, Verdict};
use super::source::{Polled, Source};
use super::store::{Applied, Fault, Store};
use super::watchdog::Heart;
use crate::clock::{Clock as _, SystemClock};
use crate::event::Event;
use crate::exit::{Failure, Status};
use crate::kafka::Trouble;

/// How a run differs from the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// End when all that was there at the start is stored.
    pub until_end: bool,
    /// End the whole process if the loop gets stuck: for a process that has nothing else to do.
    pub watchdog: bool,
}

/// An event that has just been stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Where it came from.
    pub topic: &'a str,
    /// Where it came from.
    pub partition: i32,
    /// Where it came from.
    pub offset: i64,
    /// What it says.
    pub event: &'a Event,
}

/// Stores what comes until `stop` is set, or, if asked, until all is stored that was there at the start. Tells `observer` of
/// each event after the transaction that stored it.
///
/// # Errors
/// Settings that librdkafka does not take; with `until_end`, a topic that is not there.
pub fn run(
    settings: &Settings,
    options: Options,
    observer: &mut dyn FnMut(&Stored<'_>),
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut consumer = Consumer::new(settings, options, observer)?;
    log::info!(
        "storing {} from {} in {}",
        settings.membership.topic,
        settings.connection.brokers(),
        settings.store
    );
    let result = loop {
        if stop.load(Ordering::Relaxed) {
            log::info!("ending as asked");
            break Ok(());
        }
        match consumer.round(stop) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    consumer.end();
    result
}

/// How long one poll may take: rebalances and signals wait for it.
const POLL: Duration = Duration::from_millis(100);
/// How long a batch waits for the next message before it counts as all there is.
const LINGER: Duration = Duration::from_millis(5);
/// How often it is seen whether the store has finished.
const FINISHED: Duration = Duration::from_millis(1);
/// How long a slow store may keep the next batch, which is full by then, from being read on; then Kafka is paused, so that
/// polling can go on.
const FULL_MAX: Duration = Duration::from_secs(20);
/// How long a batch may collect.
const BATCH_AGE_MAX: Duration = Duration::from_secs(1);
/// How often a topic is looked at: is it still the same?
const ANCHOR_EVERY: Duration = Duration::from_secs(30);
/// How long the looking may take when a partition is placed.
const ANCHOR_MAX: Duration = Duration::from_secs(10);
/// How often offsets without records are passed.
const PASS_EVERY: Duration = Duration::from_secs(1);
const RETIRE_EVERY: Duration = Duration::from_secs(3600);
/// After retention could not do its work.
const RETIRE_AGAIN: Duration = Duration::from_secs(60);
/// How often it is asked whether all is stored.
const END_EVERY: Duration = Duration::from_millis(200);
/// How long a topic may be unknown to a run that wants its end.
const TOPIC_UNKNOWN_MAX: Duration = Duration::from_secs(10);

struct Consumer<'a> {
    settings: &'a Settings,
    options: Options,
    observer: &'a mut dyn FnMut(&Stored<'_>),
    clock: SystemClock,
    heart: Heart,
    source: Source,
    store: Box<dyn Store + Send>,
    state: State,
    /// The partitions that the group gave us.
    assigned: Vec<i32>,
    /// Those that are placed, as the database has them.
    places: BTreeMap<i32, Place>,
    intake: Intake,
    /// The batch that the store has or had in hand.
    storing: Option<Batch>,
    /// What was heard, while a batch was stored, that is no record.
    heard: Option<Polled>,
    backoff: Backoff,
    store_trouble: Trouble,
    kafka_trouble: Trouble,
    anchors: Option<Anchors>,
    due: Due,
    /// With `until_end`: where each partition ended at the start.
    ends: Option<BTreeMap<i32, (i64, i64)>>,
    started: Duration,
}

/// What the loop may do now.
///
/// ```text
///              assigned, place()              store is away
///  Unplaced ───────────────────────► Reading ───────────────► Holding
///     ▲                                │  ▲   stored at last     │
///     │  rebalance, misplaced, moved   │  └─────────────────────┤
///     └────────────────────────────────┴────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is read: there is no partition, or it is not known from where. Tried at this time.
    Unplaced(Duration),
    /// All is well.
    Reading,
    /// The store is away: the batch is kept, Kafka paused. Tried again at this time.
    Holding(Duration),
}

/// What was read and not yet given to the store.
struct Intake {
    batch: Batch,
    since: Duration,
    /// Each partition's generation, and how far it was read: what is between `next` and this is in a batch.
    read: BTreeMap<i32, (i32, i64)>,
}

/// When the next of each chore is due.
#[derive(Default)]
struct Due {
    anchors: Duration,
    passing: Duration,
    retiring: Duration,
    ending: Duration,
}

/// A look at the anchors that is under way.
struct Anchors {
    found: std::sync::mpsc::Receiver<BTreeMap<i32, Reading>>,
    /// What was last before it: the next anchors.
    before: BTreeMap<i32, Place>,
}

/// Why something could not be done now.
enum Hindrance {
    Store(Fault),
    Kafka(String),
}

impl From<Fault> for Hindrance {
    fn from(fault: Fault) -> Self {
        Self::Store(fault)
    }
}

impl From<String> for Hindrance {
    fn from(trouble: String) -> Self {
        Self::Kafka(trouble)
    }
}

impl<'a> Consumer<'a> {
    fn new(
        settings: &'a Settings,
        options: Options,
        observer: &'a mut dyn FnMut(&Stored<'_>),
    ) -> Result<Self, Failure> {
        let clock = SystemClock::default();
        let heart = Heart::default();
        let started = clock.monotonic();
        heart.beat(started);
        if options.watchdog {
            heart.watch().map_err(Failure::failed)?;
        }
        let membership = &settings.membership;
        let instance = match membership.instance.as_str() {
            "" => std::process::id().to_string(),
            name => name.to_owned(),
        };
        Ok(Self {
            settings,
            options,
            observer,
            clock,
            heart,
            source: Source::new(&settings.connection, membership).map_err(Failure::config)?,
            store: settings.store.open(&instance),
            state: State::Unplaced(Duration::ZERO),
            assigned: Vec::new(),
            places: BTreeMap::new(),
            intake: Intake::new(&membership.topic),
            storing: None,
            heard: None,
            backoff: Backoff::default(),
            store_trouble: Trouble::default(),
            kafka_trouble: Trouble::default(),
            anchors: None,
            due: Due::default(),
            ends: None,
            started,
        })
    }

    /// One round; whether there is to be another.
    fn round(&mut self, stop: &AtomicBool) -> Result<bool, Failure> {
        let now = self.clock.monotonic();
        self.heart.beat(now);
        match self.state {
            State::Unplaced(at) if now >= at && !self.assigned.is_empty() => self.place_all(),
            State::Holding(at) if now >= at => self.store_batch(),
            State::Reading if self.intake.is_due(now) => self.store_batch(),
            _ => {}
        }
        let collecting = self.state == State::Reading && !self.intake.batch.is_empty();
        let polled = match self.heard.take() {
            Some(heard) => heard,
            None => self.source.poll(if collecting { LINGER } else { POLL }),
        };
        match polled {
            Polled::Record(partition, record) => self.intake.take(partition, record, now),
            Polled::Nothing if collecting => self.store_batch(),
            Polled::Nothing => return self.idle(),
            Polled::Assigned(partitions) => self.reassign(partitions),
            Polled::Misplaced(why) => {
                log::info!("{}: {why}; looking where to go on", self.settings.membership.topic);
                self.unplace(Duration::ZERO);
            }
            Polled::Trouble(trouble) => {
                self.kafka_says(&trouble);
                return self.idle();
            }
            Polled::Fatal(why) => self.renew_source(&why, stop),
        }
        Ok(true)
    }

    fn reassign(&mut self, partitions: Vec<i32>) {
        let topic = &self.settings.membership.topic;
        match partitions.as_slice() {
            [] => log::info!("{topic}: no partition now"),
            some => log::info!("{topic}: partitions {some:?}"),
        }
        self.assigned = partitions;
        self.unplace(Duration::ZERO);
    }

    /// Forgets what is not stored: it is read again from where the database stands.
    fn unplace(&mut self, at: Duration) {
        self.intake = Intake::new(&self.settings.membership.topic);
        self.storing = None;
        self.places.clear();
        self.anchors = None;
        self.state = State::Unplaced(at);
    }

    fn place_all(&mut self) {
        match self.try_to_place() {
            Ok(()) => {
                self.state = State::Reading;
                self.well();
                self.due.anchors = self.clock.monotonic() + ANCHOR_EVERY;
            }
            Err(hindrance) => {
                let at = self.hindered(&hindrance);
                self.unplace(at);
            }
        }
    }

    /// Finds where each partition goes on, and reads on from there.
    fn try_to_place(&mut self) -> Result<(), Hindrance> {
        let topic = self.settings.membership.topic.clone();
        let cluster = self.source.cluster();
        let mut stored = self.store.places(&topic)?;
        stored.retain(|partition, _| self.assigned.contains(partition));
        let found = self.look_at_anchors(&stored)?;
        let strangers: Vec<i32> = self.assigned.iter().copied().filter(|p| !stored.contains_key(p)).collect();
        let committed =
            if strangers.is_empty() { BTreeMap::new() } else { self.source.committed(&strangers)? };
        let mut places = BTreeMap::new();
        for &partition in &self.assigned.clone() {
            let (low, high) = self.source.watermarks(partition)?;
            let place = match stored.get(&partition) {
                Some(old) => {
                    let verdict = old.judge(cluster.as_deref(), found.get(&partition).copied(), low, high);
                    self.go_on(partition, old, cluster.as_deref(), &verdict, low)?
                }
                None => {
                    let committed = committed.get(&partition).copied().filter(|next| *next <= high);
                    self.begin(partition, committed, cluster.as_deref(), low, high)?
                }
            };
            places.insert(partition, place);
        }
        self.source.place(&places.iter().map(|(partition, place)| (*partition, place.next)).collect())?;
        self.intake.read =
            places.iter().map(|(partition, place)| (*partition, (place.generation, place.next))).collect();
        self.places = places;
        Ok(())
    }

    /// A partition that the database knows.
    fn go_on(
        &mut self,
        partition: i32,
        old: &Place,
        cluster: Option<&str>,
        verdict: &Verdict,
        low: i64,
    ) -> Result<Place, Fault> {
        let topic = &self.settings.membership.topic;
        let (new, gap) = match *verdict {
            Verdict::Same => (old.anchored(old.last), None),
            Verdict::Anew(why) => {
                log::error!("{topic}[{partition}] was made anew ({why}): reading it from its start, {low}");
                (old.anew(cluster, low), None)
            }
            Verdict::Gap(first, last) => {
                log::error!("{topic}[{partition}]: Kafka dropped offsets {first} to {last} before they were read");
                (Place { next: last + 1, ..old.clone() }, Some((first, last)))
            }
        };
        let new = Place { cluster: cluster.map(str::to_owned).or(new.cluster), ..new };
        if new != *old {
            self.store.replace(topic, partition, old, &new, gap)?;
        }
        Ok(new)
    }

    /// A partition that the database does not know.
    fn begin(
        &mut self,
        partition: i32,
        committed: Option<i64>,
        cluster: Option<&str>,
        low: i64,
        high: i64,
    ) -> Result<Place, Fault> {
        let topic = &self.settings.membership.topic;
        let next = committed.unwrap_or(match self.settings.start {
            Start::Earliest => low,
            Start::Latest => high,
        });
        let first = Place { next, cluster: cluster.map(str::to_owned), ..Place::default() };
        let place = self.store.found(topic, partition, &first)?;
        if place.next >= low || place != first {
            return Ok(place);
        }
        self.go_on(partition, &place, cluster, &Verdict::Gap(place.next, low - 1), low)
    }

    fn look_at_anchors(&mut self, places: &BTreeMap<i32, Place>) -> Result<BTreeMap<i32, Reading>, Hindrance> {
        let wanted = anchors(places);
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = self.source.read_again(&wanted)?;
        found.recv_timeout(ANCHOR_MAX).map_err(|_| Hindrance::Kafka("old records cannot be read again yet".to_owned()))
    }

    fn store_batch(&mut self) {
        if self.storing.is_none() && !self.intake.batch.is_empty() {
            self.storing = Some(self.intake.hand_over());
        }
        if self.storing.is_none() {
            return self.resume();
        }
        if let Err(hindrance) = self.try_to_store() {
            let at = self.hindered(&hindrance);
            match hindrance {
                Hindrance::Store(Fault::Moved(_)) => self.unplace(at),
                _ => self.hold(at),
            }
        }
    }

    fn try_to_store(&mut self) -> Result<(), Hindrance> {
        let topic = &self.settings.membership.topic;
        let Some(batch) = &mut self.storing else { return Ok(()) };
        for (&partition, slice) in batch.slices.iter_mut().filter(|(_, slice)| !slice.holes.is_empty()) {
            let (low, _) = self.source.watermarks(partition)?;
            slice.judge_holes(low);
            for (first, last) in &slice.gaps {
                log::error!("{topic}[{partition}]: Kafka dropped offsets {first} to {last} before they were read");
            }
        }
        let applied = self.apply_while_reading()?;
        let Some(batch) = self.storing.take() else { return Ok(()) };
        for (partition, slice) in &batch.slices {
            let floor = applied.floors.get(partition).copied().unwrap_or(slice.from);
            if let Some(place) = self.places.get_mut(partition) {
                *place = place.advanced(slice.to.max(floor), slice.last());
            }
        }
        self.tell(&batch, &applied);
        let next = batch.slices.keys().filter_map(|p| Some((*p, self.places.get(p)?.next))).collect();
        if let Err(error) = self.source.commit(&next) {
            log::debug!("Kafka: offsets not committed: {error}");
        }
        self.resume();
        self.well();
        Ok(())
    }

    /// Lets the store work on a thread of its own, and reads the next batch meanwhile: half of the time is the database's, and
    /// the group must not think us dead while it is slow.
    fn apply_while_reading(&mut self) -> Result<Applied, Fault> {
        let Self { storing, store, intake, source, heard, clock, assigned, .. } = self;
        let Some(batch) = storing.as_ref() else { return Ok(Applied::default()) };
        let wall = clock.wall();
        let full_until = clock.monotonic() + FULL_MAX;
        let mut paused = false;
        let result = std::thread::scope(|scope| {
            let work = scope.spawn(|| store.apply(batch, wall));
            while !work.is_finished() {
                let now = clock.monotonic();
                if heard.is_some() || intake.batch.is_full() && now < full_until {
                    std::thread::sleep(FINISHED);
                    continue;
                }
                if intake.batch.is_full() && !paused {
                    paused = source.pause(assigned).is_ok();
                }
                match source.poll(FINISHED) {
                    Polled::Record(partition, record) => intake.take(partition, record, now),
                    Polled::Nothing => {}
                    other => *heard = Some(other),
                }
            }
            work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        if paused && let Err(error) = self.source.resume(&self.assigned) {
            self.kafka_says(&error);
        }
        result
    }

    /// Says what became of the batch.
    fn tell(&mut self, batch: &Batch, applied: &Applied) {
        /// Lines about one batch.
        const LINES_MAX: usize = 3;
        for refused in applied.refused.iter().take(LINES_MAX) {
            log::warn!("dead letter: {}[{}] at {}: {}", batch.topic, refused.partition, refused.offset, refused.error);
        }
        if applied.refused.len() > LINES_MAX {
            log::warn!("and {} dead letters more", applied.refused.len() - LINES_MAX);
        }
        for identity in applied.doubled.iter().take(LINES_MAX) {
            log::error!("{identity} came with two times: is a state directory in use twice, or an old copy of one?");
        }
        if applied.doubled.len() > LINES_MAX {
            log::error!("and {} such identities more", applied.doubled.len() - LINES_MAX);
        }
        let refused: HashSet<(i32, i64)> = applied.refused.iter().map(|r| (r.partition, r.offset)).collect();
        for (&partition, slice) in &batch.slices {
            let floor = applied.floors.get(&partition).copied().unwrap_or(slice.from);
            for record in slice.records.iter().filter(|record| record.offset >= floor) {
                if let (Ok(event), false) = (&record.content, refused.contains(&(partition, record.offset))) {
                    (self.observer)(&Stored { topic: &batch.topic, partition, offset: record.offset, event });
                }
            }
        }
        log::debug!("{}: {} rows, {} dead letters", batch.topic, applied.inserted, applied.refused.len());
    }

    fn hold(&mut self, at: Duration) {
        if self.state == State::Reading
            && let Err(error) = self.source.pause(&self.assigned)
        {
            self.kafka_says(&error);
        }
        self.state = State::Holding(at);
    }

    fn resume(&mut self) {
        if matches!(self.state, State::Holding(_))
            && let Err(error) = self.source.resume(&self.assigned)
        {
            self.kafka_says(&error);
        }
        self.state = State::Reading;
    }

    /// Says what hinders; when to try again.
    fn hindered(&mut self, hindrance: &Hindrance) -> Duration {
        let now = self.clock.monotonic();
        let wait = match hindrance {
            Hindrance::Store(Fault::Misconfigured(_)) => self.backoff.slow(),
            _ => self.backoff.next(),
        };
        match hindrance {
            Hindrance::Kafka(trouble) => self.kafka_says(trouble),
            Hindrance::Store(fault) => {
                if let Some(line) = self.store_trouble.seen(&fault.to_string(), now) {
                    match fault {
                        Fault::Misconfigured(_) => log::error!("{line}; nothing is skipped, trying again each minute"),
                        Fault::Away(_) => log::warn!("{line}; nothing is skipped, trying again"),
                        Fault::Moved(_) => log::warn!("{line}; going on from where it stands"),
                    }
                }
            }
        }
        now + wait
    }

    fn kafka_says(&self, trouble: &str) {
        if let Some(line) = self.kafka_trouble.seen(trouble, self.clock.monotonic()) {
            log::warn!("Kafka: {line}");
        }
    }

    fn well(&mut self) {
        self.backoff.reset();
        if self.store_trouble.over() {
            log::info!("storing again in {}", self.settings.store);
        }
        if self.kafka_trouble.over() {
            log::info!("Kafka: reading again");
        }
    }

    /// Chores, while nothing waits; whether there is more to do at all.
    fn idle(&mut self) -> Result<bool, Failure> {
        let now = self.clock.monotonic();
        if self.state == State::Reading {
            if now >= self.due.passing {
                self.due.passing = now + PASS_EVERY;
                self.pass_empty_offsets();
            }
            self.mind_anchors(now);
        }
        if now >= self.due.retiring && !matches!(self.state, State::Holding(_)) {
            self.due.retiring = now + if self.retire() { RETIRE_EVERY } else { RETIRE_AGAIN };
        }
        if self.options.until_end && now >= self.due.ending {
            self.due.ending = self.clock.monotonic() + END_EVERY;
            return self.is_at_end(now).map(|end| !end);
        }
        Ok(true)
    }

    /// Lets `next` follow over transaction markers and their like, which no message tells of.
    fn pass_empty_offsets(&mut self) {
        for (partition, position) in self.source.positions() {
            self.intake.pass(partition, position);
        }
        if !self.intake.batch.is_empty() {
            self.store_batch();
        }
    }

    /// A topic that was made anew under our eyes brings neither an error nor a rebalance: old records tell.
    fn mind_anchors(&mut self, now: Duration) {
        if let Some(Anchors { found, before }) = &self.anchors {
            match found.try_recv() {
                Ok(found) => {
                    let before = before.clone();
                    self.anchors = None;
                    self.judge_anchors(&found, &before);
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => self.anchors = None,
            }
        } else if now >= self.due.anchors {
            self.due.anchors = now + ANCHOR_EVERY;
            let wanted = anchors(&self.places);
            if wanted.is_empty() {
                return;
            }
            match self.source.read_again(&wanted) {
                Ok(found) => self.anchors = Some(Anchors { found, before: self.places.clone() }),
                Err(error) => self.kafka_says(&error),
            }
        }
    }

    fn judge_anchors(&mut self, found: &BTreeMap<i32, Reading>, before: &BTreeMap<i32, Place>) {
        let topic = &self.settings.membership.topic;
        for (&partition, &reading) in found {
            let (Some(place), Some(before)) = (self.places.get(&partition).cloned(), before.get(&partition)) else {
                continue;
            };
            let watermarks = match reading {
                Reading::Gone => self.source.watermarks(partition).ok(),
                Reading::Record(_) => Some((0, i64::MAX)),
            };
            let Some((low, high)) = watermarks else { continue };
            if let Verdict::Anew(why) = place.judge(None, Some(reading), low, high) {
                log::info!("{topic}[{partition}]: {why}; looking again");
                return self.unplace(Duration::ZERO);
            }
            let new = place.anchored(before.last);
            if new != place {
                if let Err(fault) = self.store.replace(topic, partition, &place, &new, None) {
                    let at = self.hindered(&fault.clone().into());
                    return match fault {
                        Fault::Moved(_) => self.unplace(at),
                        _ => self.hold(at),
                    };
                }
                self.places.insert(partition, new);
            }
        }
    }

    fn retire(&mut self) -> bool {
        match self.store.retire(&self.settings.retention, self.clock.wall()) {
            Ok(retired) => {
                for day in &retired.days {
                    log::info!("retention: dropped {day}");
                }
                if retired.events + retired.dead_letters > 0 {
                    log::info!("retention: {} events, {} dead letters", retired.events, retired.dead_letters);
                }
                for day in &retired.busy {
                    log::info!("retention: {day} is in use, tried again later");
                }
                retired.busy.is_empty()
            }
            Err(fault) => {
                if let Some(line) = self.store_trouble.seen(&fault.to_string(), self.clock.monotonic()) {
                    log::warn!("{line}");
                }
                false
            }
        }
    }

    /// With `until_end`: whether all is stored that was there at the start, whoever stored it.
    fn is_at_end(&mut self, now: Duration) -> Result<bool, Failure> {
        let Some(ends) = &self.ends else {
            match self.look_for_ends() {
                Ok(ends) => self.ends = Some(ends),
                Err(error) => {
                    let unknown = error.contains("no such topic") || error.contains("Unknown topic");
                    if unknown && now.saturating_sub(self.started) > TOPIC_UNKNOWN_MAX {
                        return Err(Failure::new(Status::Unavailable, error));
                    }
                    self.kafka_says(&error);
                }
            }
            return Ok(false);
        };
        match self.store.places(&self.settings.membership.topic) {
            Ok(places) => Ok(ends.iter().all(|(partition, (low, high))| match places.get(partition) {
                Some(place) => place.next >= *high,
                None => low == high,
            })),
            Err(fault) => {
                self.hindered(&fault.into());
                Ok(false)
            }
        }
    }

    fn look_for_ends(&self) -> Result<BTreeMap<i32, (i64, i64)>, String> {
        let partitions = self.source.partitions()?;
        partitions.into_iter().map(|partition| Ok((partition, self.source.watermarks(partition)?))).collect()
    }

    /// librdkafka gave up: a new client, after a while.
    fn renew_source(&mut self, why: &str, stop: &AtomicBool) {
        log::error!("Kafka: {why}; connecting anew");
        self.assigned.clear();
        self.unplace(Duration::ZERO);
        loop {
            let until = self.clock.monotonic() + self.backoff.next();
            while self.clock.monotonic() < until {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(POLL);
            }
            self.heart.beat(self.clock.monotonic());
            match Source::new(&self.settings.connection, &self.settings.membership) {
                Ok(source) => return std::mem::replace(&mut self.source, source).close(),
                Err(error) => self.kafka_says(&error),
            }
        }
    }

    /// Stores what is in hand, if that goes at once, and leaves the group.
    fn end(mut self) {
        if !self.intake.batch.is_empty() && self.state == State::Reading {
            self.store_batch();
        }
        self.source.close();
    }
}

impl Intake {
    fn new(topic: &str) -> Self {
        Self { batch: Batch::new(topic), since: Duration::ZERO, read: BTreeMap::new() }
    }

    /// A record; what comes from a partition that is not placed is from before.
    fn take(&mut self, partition: i32, record: Record, now: Duration) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if self.batch.is_empty() {
            self.since = now;
        }
        let (generation, from) = (*generation, *read);
        *read = from.max(record.offset + 1);
        self.batch.push(partition, record, || (generation, from));
    }

    /// Offsets up to `position` were passed without a record.
    fn pass(&mut self, partition: i32, position: i64) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if position > *read {
            self.batch.pass(partition, *generation, *read, position);
            *read = position;
        }
    }

    fn is_due(&self, now: Duration) -> bool {
        self.batch.is_full() || !self.batch.is_empty() && now.saturating_sub(self.since) >= BATCH_AGE_MAX
    }

    fn hand_over(&mut self) -> Batch {
        let next = Batch::new(&self.batch.topic);
        std::mem::replace(&mut self.batch, next)
    }
}

/// Where each anchor stands.
fn anchors(places: &BTreeMap<i32, Place>) -> BTreeMap<i32, i64> {
    places.iter().filter_map(|(partition, place)| Some((*partition, place.anchor?.offset))).collect()
}
