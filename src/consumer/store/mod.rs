//! Where events end: one row each, in one transaction with the offsets they came from.
//!
//! What holds whatever happens, in every implementation:
//!
//! - A record below `kafka_offsets.next` is stored, is a dead letter, or is named in `kafka_gaps`.
//! - `next` moves only in the transaction that stores what it passes, and only from where the batch began (guard 1 reads it
//!   under a lock, guard 3 sets it only from its old value).
//! - One `(agent, epoch, seq, observed_at)` is one row (guard 2: the primary key).

mod postgres;
mod query;
mod rows;
mod sequences;
mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::batch::{Batch, Record};
use super::letters::Fate;
use super::place::Place;
use crate::config::SecretFile;

pub use self::query::{Kind, Parameter, Query, Reader};

/// A database that events end in.
pub trait Store {
    /// What is remembered of the topic's partitions.
    ///
    /// # Errors
    /// See [`Fault`]; the same for all others.
    fn places(&mut self, topic: &str) -> Result<BTreeMap<i32, Place>, Fault>;

    /// Remembers a partition for the first time; what stands there then, which another consumer may have written.
    ///
    /// # Errors
    /// See [`Fault`].
    fn found(&mut self, topic: &str, partition: i32, place: &Place) -> Result<Place, Fault>;

    /// Puts `new` in the place of `old`, and writes down what Kafka has dropped between them.
    ///
    /// # Errors
    /// [`Fault::Moved`] where `old` no longer stands there.
    fn replace(
        &mut self,
        topic: &str,
        partition: i32,
        old: &Place,
        new: &Place,
        gap: Option<(i64, i64)>,
    ) -> Result<(), Fault>;

    /// Stores a batch, whole or not at all. What the database refuses becomes a dead letter in the same transaction.
    ///
    /// # Errors
    /// [`Fault::Moved`] where the database does not stand where the batch begins.
    fn apply(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Applied, Fault>;

    /// Stores the events of dead letters of `topic`, each in the transaction that removes its letter, as [`Store::apply`] would
    /// have.
    ///
    /// # Errors
    /// See [`Fault`]; nothing has changed then.
    fn revive(&mut self, topic: &str, letters: &[Returning], now: DateTime<Utc>) -> Result<Revived, Fault>;

    /// Drops what is older than it has to be kept; a breach goes with the event that had the last word on it.
    ///
    /// # Errors
    /// See [`Fault`].
    fn retire(&mut self, retention: &Retention, now: DateTime<Utc>) -> Result<Retired, Fault>;
}

/// A dead letter that is to become a row.
#[derive(Clone, Debug)]
pub struct Returning {
    /// Its partition.
    pub partition: i32,
    /// How often its topic had been made anew.
    pub generation: i32,
    /// What it says now.
    pub record: Record,
}

/// What became of dead letters that were tried again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Revived {
    /// Of each, in their order.
    pub fates: Vec<Fate>,
    /// Rows that were not there before.
    pub inserted: u64,
}

/// How long rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Both of an event, or a sample: since it was observed and since it was stored.
    pub events: Duration,
    /// Since it was stored.
    pub dead_letters: Duration,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that were not there before.
    pub inserted: u64,
    /// The first offset of each partition that was not stored before.
    pub floors: BTreeMap<i32, i64>,
    /// What became dead letters, and why.
    pub refused: Vec<Refused>,
    /// Identities that now have a second `observed_at`: `AGENT EPOCH-SEQ`.
    pub doubled: Vec<String>,
    /// Bytes over limit that the totals have more now, by agent and interface.
    pub grown: BTreeMap<(String, String), u64>,
}

impl Applied {
    fn add(&mut self, agent: &str, interface: &str, bytes: u64) {
        let sum = self.grown.entry((agent.to_owned(), interface.to_owned())).or_default();
        *sum = sum.saturating_add(bytes);
    }
}

/// A message that can't be a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Why.
    pub error: String,
}

/// What retention did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Events and samples, where they are counted one by one.
    pub events: u64,
    /// Names of the days dropped whole.
    pub days: Vec<String>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Days whose time has come, but which are in use: tried again the next time.
    pub busy: Vec<String>,
}

/// Why the store did not do it. Nothing is skipped for any of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It may come back by itself, soon.
    #[error("{0}")]
    Away(String),
    /// Somebody has to do something: password, database, rights, schema.
    #[error("{0}")]
    Misconfigured(String),
    /// The database does not stand where this consumer does: ask it where, and go on from there.
    #[error("{0}")]
    Moved(String),
}

/// Which database.
#[derive(Clone, Debug)]
pub struct Location(Which);

#[derive(Clone, Debug)]
enum Which {
    Postgres(Box<postgres::Address>),
    Sqlite(PathBuf),
}

impl Location {
    /// Understands `postgres://…` and `sqlite:PATH`.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(url: &str, password: Option<SecretFile>) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return match path {
                "" => Err("names no file; write it as \"sqlite:/var/lib/highwater/highwater.db\"".to_owned()),
                path => Ok(Self::sqlite(Path::new(path))),
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return postgres::Address::parse(url, password).map(|address| Self(Which::Postgres(Box::new(address))));
        }
        Err("is neither \"postgres://USER@HOST/DATABASE\" nor \"sqlite:PATH\"".to_owned())
    }

    /// A SQLite file.
    pub fn sqlite(path: &Path) -> Self {
        Self(Which::Sqlite(path.to_owned()))
    }

    /// What only looks at the store there; it connects when it is first asked.
    pub fn reader(&self) -> Box<dyn Reader + Send> {
        match &self.0 {
            Which::Postgres(address) => Box::new(postgres::PostgresReader::new((**address).clone())),
            Which::Sqlite(path) => Box::new(sqlite::SqliteReader::new(path)),
        }
    }

    /// The store there; it connects when it is first needed. `instance` is how it names itself.
    pub fn open(&self, instance: &str) -> Box<dyn Store + Send> {
        match &self.0 {
            Which::Postgres(address) => Box::new(postgres::Postgres::new((**address).clone(), instance)),
            Which::Sqlite(path) => Box::new(sqlite::Sqlite::new(path)),
        }
    }
}

impl fmt::Display for Location {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Which::Postgres(address) => address.fmt(f),
            Which::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
