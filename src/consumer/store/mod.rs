//! Where events end: one row each, in one transaction with the offsets they came from.
//!
//! What holds whatever happens, in every implementation:
//!
//! - A record below `kafka_offsets.next_offset` is stored, is a dead letter, or is named in `kafka_gaps`.
//! - `next_offset` moves only in the transaction that stores what it passes, and only from where the batch began (guard 1 reads it
//!   under a lock, guard 3 sets it only from its old value).
//! - One `(agent, observed_at, epoch, seq)` is one row (guard 2: the primary key).

mod apply;
mod open;
mod postgres;
mod query;
mod rows;
mod sequences;

mod sqlite;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::batch::{Batch, Gap, Record, TopicId};
use super::checkpoint::Checkpoint;

pub use self::open::StoreUrl;
pub use self::query::{Kind, Locks, Parameter, Query, Reader};

/// A database that events end in.
pub trait Store {
    /// How it gets on while a call is under way.
    fn progress(&self) -> Arc<Progress>;

    /// What is remembered of the topic's partitions.
    ///
    /// # Errors
    /// See [`StoreError`]; the same for all others.
    fn checkpoints(&mut self, topic: &TopicId) -> Result<BTreeMap<i32, Checkpoint>, StoreError>;

    /// Remembers a partition for the first time, and what is never read of it. Returns what stands there then, which another
    /// consumer may have written.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn insert_checkpoint(
        &mut self,
        topic: &TopicId,
        partition: i32,
        checkpoint: &Checkpoint,
        gap: Option<Gap>,
    ) -> Result<Checkpoint, StoreError>;

    /// Puts `new` in the place of `old`, and writes down what is never read between them.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where `old` no longer stands there.
    fn replace_checkpoint(
        &mut self,
        topic: &TopicId,
        partition: i32,
        old: &Checkpoint,
        new: &Checkpoint,
        gap: Option<Gap>,
    ) -> Result<(), StoreError>;

    /// Stores a batch. What the database rejects becomes a dead letter in the transaction that passes it; only then the batch is
    /// stored in more than one transaction, and [`Progress::stop`] ends it between two of them.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the database does not stand where the batch begins.
    fn apply(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Applied, StoreError>;

    /// Stores the events of dead letters of `topic`, each in the transaction that removes its dead letter, as [`Store::apply`]
    /// would have.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing has changed then.
    fn retry(
        &mut self,
        topic: &TopicId,
        records: &[RetriedRecord],
        now: DateTime<Utc>,
    ) -> Result<RetrySummary, StoreError>;

    /// Gives up the bytes of dead letters, and keeps that they were there and `reason`. Returns how many those were.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing has changed then.
    fn drop_dead_letters(
        &mut self,
        topic: &TopicId,
        letters: &[(i32, i32, i64)],
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError>;
}

/// Keeps a database small: its own session, beside the one that stores.
pub trait Maintenance {
    /// Drops what is older than it has to be kept, in pieces. Ends when all is done, at the first lock that somebody holds, when
    /// `budget` is used up, or at `stop`.
    ///
    /// # Errors
    /// See [`StoreError`]; what was done by then is done.
    fn run(
        &mut self,
        retention: &Retention,
        now: DateTime<Utc>,
        budget: Duration,
        stop: &AtomicBool,
    ) -> Result<Maintained, StoreError>;
}

/// A dead letter that is to become a row.
#[derive(Clone, Debug)]
pub struct RetriedRecord {
    /// Its partition.
    pub partition: i32,
    /// How often its topic had been made anew.
    pub generation: i32,
    /// What it says now.
    pub record: Record,
}

/// What became of a dead letter that was tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryOutcome {
    /// Its event is a row, and it is no dead letter any more.
    Stored,
    /// It stays, for this reason.
    Stays(String),
    /// Somebody else took it meanwhile: another retry, a drop, or retention.
    Gone,
}

/// What became of dead letters that were tried again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RetrySummary {
    /// Of each, in their order.
    pub outcomes: Vec<RetryOutcome>,
    /// Rows that were not there before.
    pub inserted: u64,
}

/// How long rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Both of an event, or a sample: since it was observed and since it was stored. So long, too, declared losses and gaps.
    pub events: Duration,
    /// Since it was stored.
    pub dead_letters: Duration,
    /// Since the day that it sums.
    pub totals: Duration,
}

/// How much time one partition of `events` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionWidth {
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A calendar month.
    #[default]
    Month,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that were not there before.
    pub inserted: u64,
    /// What was stored of each partition now: from the first of these offsets to before the second. Where this ends before the
    /// batch does, it was stopped.
    pub stored: BTreeMap<i32, (i64, i64)>,
    /// What became dead letters, and why.
    pub rejected: Vec<Rejected>,
    /// Identities that now have a second `observed_at`: `AGENT EPOCH-SEQ`.
    pub identity_conflicts: Vec<String>,
    /// Bytes over limit that the totals have more now.
    pub grown: BTreeMap<TotalKey, u64>,
}

/// What bytes over limit are summed by, beside the day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotalKey {
    /// The agent.
    pub agent: String,
    /// The interface, `*` for the sum over the host.
    pub interface: String,
    /// `rx` or `tx`.
    pub direction: &'static str,
    /// The limit.
    pub limit_name: String,
}

/// A message that can't be a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Why.
    pub error: String,
}

/// What one run of the maintenance did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Rows deleted, by table.
    pub deleted: BTreeMap<&'static str, u64>,
    /// Names of the partitions dropped whole.
    pub dropped: Vec<String>,
    /// Why it ended before all was done: what is in use, or that its time was up.
    pub unfinished: Option<String>,
}

/// Why the store did not do it. Nothing is skipped for any of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It may come back by itself, soon.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody has to do something: password, database, rights, schema.
    #[error("{0}")]
    Misconfigured(String),
    /// The database does not stand where this consumer does: ask it where, and go on from there.
    #[error("{0}")]
    Conflict(String),
}

/// What a store is made with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How it names itself to the database.
    pub instance: String,
    /// How much time a new partition of `events` takes.
    pub partition: PartitionWidth,
    /// How long events are kept: partitions outside of it are made only now and then.
    pub keep: Duration,
}

/// How a store gets on, for whoever waits for it on another thread.
#[derive(Debug, Default)]
pub struct Progress {
    migration: Mutex<Option<String>>,
    transactions: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// The migration that it is at. Migrations may take hours.
    pub fn migration(&self) -> Option<String> {
        self.migration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many transactions it has committed.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    /// Asks it to end between two transactions.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count_transaction(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    fn set_migration(&self, migration: Option<String>) {
        *self.migration.lock().unwrap_or_else(PoisonError::into_inner) = migration;
    }
}
