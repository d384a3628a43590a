//! The consumer's loop: reads, stores, and waits out what is wrong.

mod chores;
mod intake;
mod joining;
mod maintenance;
mod placing;
mod reload;
mod storing;
mod stuck;
mod totals;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::chores::Due;
use self::intake::Intake;
use self::maintenance::MaintenanceThread;
use self::placing::Anchors;
pub use self::reload::{Reload, run, run_reloading};
use self::totals::TotalsLog;
use self::writer::Writer;
use super::backoff::Backoff;
use super::batch::{Batch, TopicId};
use super::checkpoint::Checkpoint;
use super::config::Settings;
use super::source::{Polled, Source};
use super::store::StoreError;
use crate::clock::{Clock as _, SystemClock};
use crate::event::Event;
use crate::exit::Failure;
use crate::kafka::LogThrottle;
use crate::service::Service;
use crate::units::counted;
use crate::watchdog::Heart;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// End when all that was there at the start is stored.
    pub until_end: bool,
    /// End the whole process if the loop gets stuck: for a process that has nothing else to do.
    pub watchdog: bool,
    /// Log each total of bytes over limit that a batch has changed.
    pub log_totals: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct StoredEvent<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub event: &'a Event,
}

/// Longest poll: rebalances and signals wait for it.
const POLL: Duration = Duration::from_millis(100);
/// Time without a further message after which a batch is stored.
const LINGER: Duration = Duration::from_millis(5);

struct Consumer<'a> {
    settings: &'a Settings,
    options: Options,
    observer: &'a mut dyn FnMut(&StoredEvent<'_>),
    clock: SystemClock,
    heart: Heart,
    service: Service,
    source: Source,
    writer: Writer,
    _maintenance: MaintenanceThread,
    stop: &'a AtomicBool,
    state: ConsumerState,
    assigned: Vec<i32>,
    /// Start of a time without partitions after an error.
    adrift: Option<Duration>,
    /// After one side rejected the other: time to look whether certificates or secrets have changed.
    refused: Option<Duration>,
    places: BTreeMap<i32, Checkpoint>,
    intake: Intake,
    storing: Option<Arc<Batch>>,
    heard: Option<Polled>,
    backoff: Backoff,
    store_trouble: LogThrottle,
    kafka_trouble: LogThrottle,
    anchors: Option<Anchors>,
    due: Due,
    totals: Option<TotalsLog>,
    ends: Option<Ends>,
    told: Told,
    started: Duration,
}

type Ends = (TopicId, BTreeMap<i32, (i64, i64)>);

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    rows: u64,
    dead_letters: u64,
    gaps: u64,
}

/// State of the loop.
///
/// ```text
///              assigned, place()              store is away
///  Unplaced ───────────────────────► Reading ───────────────► Holding
///     ▲                                │  ▲   stored at last     │
///     │  rebalance, misplaced, moved   │  └─────────────────────┤
///     └────────────────────────────────┴────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConsumerState {
    /// No partition, or it is not known from which offset to read. Tried at this time.
    Unplaced(Duration),
    Reading,
    /// The store is unavailable: the batch is kept, Kafka paused. Tried again at this time.
    Holding(Duration),
}

enum Hindrance {
    Store(StoreError),
    Kafka(String),
}

impl From<StoreError> for Hindrance {
    fn from(fault: StoreError) -> Self {
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
        observer: &'a mut dyn FnMut(&StoredEvent<'_>),
        stop: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let clock = SystemClock::default();
        let heart = Heart::default();
        if options.watchdog {
            stuck::watch(&heart).map_err(Failure::failed)?;
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
            started: clock.monotonic(),
            clock,
            heart,
            source: Source::new(&settings.connection, membership, settings.decoder(), settings.give_up)
                .map_err(Failure::config)?,
            service: Service::ready(Duration::ZERO),
            writer: Writer::new(&settings.store, settings.store_options(instance.clone())),
            _maintenance: MaintenanceThread::start(settings, instance).map_err(Failure::failed)?,
            stop,
            state: ConsumerState::Unplaced(Duration::ZERO),
            assigned: Vec::new(),
            adrift: None,
            refused: None,
            places: BTreeMap::new(),
            intake: Intake::new(&TopicId { cluster: String::new(), name: membership.topic.clone() }),
            storing: None,
            heard: None,
            backoff: Backoff::default(),
            store_trouble: LogThrottle::default(),
            kafka_trouble: LogThrottle::default(),
            anchors: None,
            due: Due::default(),
            totals: match options.log_totals {
                true => Some(TotalsLog::start(settings.store.reader()).map_err(Failure::failed)?),
                false => None,
            },
            ends: None,
            told: Told::default(),
        })
    }

    fn round(&mut self) -> Result<bool, Failure> {
        let now = self.clock.monotonic();
        self.heart.beat("asking how far it is", now);
        if self.has_ended(now)? {
            return Ok(false);
        }
        self.mind_membership(now);
        self.mind_refusal(now);
        self.chores(now);
        self.heart.beat("waiting for Kafka", self.clock.monotonic());
        match self.state {
            ConsumerState::Unplaced(at) if now >= at && !self.assigned.is_empty() => self.place_all(),
            ConsumerState::Holding(at) if now >= at => self.store_batch(),
            ConsumerState::Reading if self.intake.is_due(now) => self.store_batch(),
            _ => {}
        }
        let collecting = self.state == ConsumerState::Reading && !self.intake.batch.is_empty();
        let polled = match self.heard.take() {
            Some(heard) => heard,
            None => self.source.poll(if collecting { LINGER } else { POLL }),
        };
        let now = self.clock.monotonic();
        self.heart.beat("dealing with what Kafka said", now);
        self.service.lives(now);
        match polled {
            Polled::Record(partition, record) => self.intake.take(partition, record, now),
            Polled::Unreadable(unreadable) => self.intake.pass_unreadable(unreadable, now),
            Polled::Nothing if collecting => self.store_batch(),
            Polled::Nothing => {}
            Polled::Assigned(partitions) => self.reassign(partitions),
            Polled::Misplaced(why) => {
                log::info!("{}: {why}; looking where to go on", self.settings.membership.topic);
                self.unplace(Duration::ZERO);
            }
            Polled::Trouble(trouble) => {
                self.kafka_says(&trouble);
                if self.assigned.is_empty() {
                    self.adrift.get_or_insert(now);
                }
            }
            Polled::Refused(why) => {
                self.kafka_says(&format!("{why}; nothing is skipped, trying again"));
                self.refused.get_or_insert(now);
            }
            Polled::Fatal(why) => self.renew_source(&why),
        }
        Ok(true)
    }

    /// Forgets what is not stored: it is read again from where the database is.
    fn unplace(&mut self, at: Duration) {
        self.intake = Intake::new(&self.intake.batch.topic.clone());
        self.storing = None;
        self.places.clear();
        self.anchors = None;
        self.state = ConsumerState::Unplaced(at);
    }

    fn hold(&mut self, at: Duration) {
        if self.state == ConsumerState::Reading
            && let Err(error) = self.source.pause(&self.assigned)
        {
            self.kafka_says(&error);
        }
        self.state = ConsumerState::Holding(at);
    }

    fn resume(&mut self) {
        if matches!(self.state, ConsumerState::Holding(_))
            && let Err(error) = self.source.resume(&self.assigned)
        {
            self.kafka_says(&error);
        }
        self.state = ConsumerState::Reading;
    }

    fn hindered(&mut self, hindrance: &Hindrance) -> Duration {
        let now = self.clock.monotonic();
        let wait = match hindrance {
            Hindrance::Store(StoreError::Misconfigured(_)) => self.backoff.slow(),
            _ => self.backoff.next(),
        };
        match hindrance {
            Hindrance::Kafka(trouble) => self.kafka_says(trouble),
            Hindrance::Store(fault) => {
                if let Some(line) = self.store_trouble.seen(&fault.to_string(), now) {
                    match fault {
                        StoreError::Misconfigured(_) => {
                            log::error!("{line}; nothing is skipped, trying again at least each minute");
                        }
                        StoreError::Unavailable(_) => log::warn!("{line}; nothing is skipped, trying again"),
                        StoreError::Conflict(_) => log::warn!("{line}; going on from where it stands"),
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
        self.refused = None;
        if self.store_trouble.over() {
            log::info!("storing again in {}", self.settings.store);
        }
        if self.kafka_trouble.over() {
            log::info!("Kafka: reading again");
        }
    }

    fn end(mut self) {
        if !self.intake.batch.is_empty() && self.state == ConsumerState::Reading {
            self.store_batch();
        }
        let Told { rows, dead_letters, gaps } = self.told;
        let gaps = if gaps > 0 { format!(", {}", counted(gaps, "gap")) } else { String::new() };
        let topic = &self.settings.membership.topic;
        log::info!("{topic}: stored {}, {}{gaps}", counted(rows, "event"), counted(dead_letters, "dead letter"));
        self.source.close();
    }
}
