//! Databases of events: one row each, stored in one transaction with the offsets they came from. Every implementation keeps this:
//! - A record below `kafka_offsets.next_offset` is stored, is a dead letter, or is named in `kafka_gaps`.
//! - `next_offset` moves only in the transaction that stores what it passes, and only from where the batch began (guard 1 reads it
//!   under a lock, guard 3 sets it only from its old value).
//! - One `(agent, observed_at, epoch, seq)` is one row (guard 2: the primary key).

mod agents;
mod apply;
mod histograms;
mod open;
mod postgres;
mod query;
mod retention;
mod rows;
mod sequences;

mod sqlite;
mod tables;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::batch::{Batch, Gap, Record, TopicId};
use super::checkpoint::Checkpoint;

pub use self::histograms::{TrafficSeries, TrafficSummary};
pub use self::open::StoreUrl;
pub use self::query::{ColumnType, Parameter, Query, Reader};

pub trait Store {
    fn progress(&self) -> Arc<StoreProgress>;

    fn checkpoints(&mut self, topic: &TopicId) -> Result<BTreeMap<i32, Checkpoint>, StoreError>;

    /// Inserts checkpoints that the database does not have yet, and the gaps before them. Returns those it has afterwards.
    fn insert_checkpoints(
        &mut self,
        topic: &TopicId,
        first: &BTreeMap<i32, (Checkpoint, Vec<Gap>)>,
    ) -> Result<BTreeMap<i32, Checkpoint>, StoreError>;

    /// Replaces `old` by `new`, and records the gap between them. Fails with [`StoreError::Conflict`] if `old` is no longer there.
    fn replace_checkpoint(
        &mut self,
        topic: &TopicId,
        partition: i32,
        old: &Checkpoint,
        new: &Checkpoint,
        gap: Option<Gap>,
    ) -> Result<(), StoreError>;

    /// Stores a batch in one transaction, or in several after the database refused a row; [`StoreProgress::stop`] ends it between
    /// two. Fails with [`StoreError::Conflict`] if `next_offset` is before the batch, or its topic was recreated.
    fn apply(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Applied, StoreError>;

    /// Stores events of dead letters, each in the transaction that removes the letter. After an error some may be stored.
    fn retry(
        &mut self,
        topic: &TopicId,
        records: &[RetriedRecord],
        now: DateTime<Utc>,
    ) -> Result<RetrySummary, StoreError>;

    fn drop_dead_letters(
        &mut self,
        topic: &TopicId,
        letters: &[DeadLetterKey],
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError>;
}

pub trait Maintenance {
    fn progress(&self) -> Arc<StoreProgress>;

    /// Deletes expired rows until none is left, another session holds a lock, `budget` is used up, or [`StoreProgress::stop`]; an
    /// error undoes one piece. Without `now`, the earlier of the host's and the server's clock counts: one may have jumped ahead.
    fn run(
        &mut self,
        retention: &Retention,
        now: Option<DateTime<Utc>>,
        budget: Duration,
    ) -> Result<Maintained, StoreError>;
}

pub trait HistogramStore {
    /// Derives some of the hours that have new windows. Does nothing while another consumer derives.
    fn derive(&mut self, now: DateTime<Utc>) -> Result<Derived, StoreError>;

    /// Returns some hours that Kafka has not acknowledged, those after `after` first; none while another consumer derives.
    fn unpublished(&mut self, after: Option<&HourKey>) -> Result<Vec<MergedHour>, StoreError>;

    /// Records which versions Kafka has. An hour that has changed since is published again.
    fn acknowledge(&mut self, published: &[(HourKey, i64)], now: DateTime<Utc>) -> Result<(), StoreError>;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Derived {
    pub hours: u64,
    pub has_more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HourKey {
    pub series: TrafficSeries,
    pub starts_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedHour {
    pub key: HourKey,
    pub summary: TrafficSummary,
    pub version: i64,
}

#[derive(Clone, Debug)]
pub struct RetriedRecord {
    pub partition: i32,
    pub generation: i32,
    pub record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryOutcome {
    Stored,
    Stays(String),
    Gone,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct RetrySummary {
    pub outcomes: Vec<RetryOutcome>,
    pub inserted: u64,
}

/// Ages at which rows expire. Events, samples and rates have to be that old since they were observed and since they were stored.
/// Losses and gaps are kept like events, totals since their day, series of agents that are gone like events and totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub events: Duration,
    pub dead_letters: Duration,
    pub totals: Duration,
    pub rates: Duration,
    pub histograms: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        // Events: a year to compare with, and a month to do it in. Totals: five years.
        Self { events: days(400), dead_letters: days(90), totals: days(1826), rates: days(90), histograms: days(400) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionWidth {
    Day,
    Week,
    #[default]
    Month,
}

/// First offset and exclusive end, by partition.
pub type OffsetRanges = BTreeMap<i32, (i64, i64)>;

/// Partition, generation of the topic, and offset.
pub type DeadLetterKey = (i32, i32, i64);

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub inserted: u64,
    pub without_histograms: u64,
    /// Less than the batch if it was stopped.
    pub stored: OffsetRanges,
    pub rejected: Vec<Rejected>,
    pub identity_conflicts: Vec<String>,
    pub added_totals: BTreeMap<TotalKey, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotalKey {
    pub agent: String,
    /// `*` for the sum over the host.
    pub interface: String,
    pub direction: &'static str,
    pub limit_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub partition: i32,
    pub offset: i64,
    pub error: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    pub deleted: BTreeMap<&'static str, u64>,
    pub dropped: Vec<String>,
    pub unfinished: Option<String>,
}

/// Errors of the database, not of a record: the batch is retried or read again, and nothing is skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Unavailable(String),
    /// An operator has to act: password, database, rights, schema.
    #[error("{0}")]
    Misconfigured(String),
    /// A pooler in transaction mode. Each session of a consumer meets it, and the one that stores reports it.
    #[error("{0}")]
    Pooled(String),
    /// Tables of another version of this program. The consumer ends: newer members of its group then get its partitions.
    #[error("{0}")]
    Incompatible(String),
    /// The database is not where this consumer is: read its checkpoints again.
    #[error("{0}")]
    Conflict(String),
}

#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub instance: String,
    pub partition: PartitionWidth,
    pub retention: Retention,
    /// `None` leaves what is stored, which only `run` writes.
    pub silent_after: Option<Duration>,
    pub publishes: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            instance: String::new(),
            partition: PartitionWidth::default(),
            retention: Retention::default(),
            silent_after: None,
            publishes: true,
        }
    }
}

#[derive(Debug, Default)]
pub struct StoreProgress {
    migration: Mutex<Option<String>>,
    answers: AtomicU64,
    stop: AtomicBool,
}

impl StoreProgress {
    pub fn migration(&self) -> Option<String> {
        self.migration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn set_migration(&self, migration: Option<String>) {
        *self.migration.lock().unwrap_or_else(PoisonError::into_inner) = migration;
    }
}
