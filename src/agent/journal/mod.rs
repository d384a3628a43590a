//! Registers events until Kafka has acknowledged them, in a [`SqliteJournal`] on disk or in memory. An agent has a
//! [`DurableJournal`], which changes from disk to memory while the disk cannot be written.
//!
//! ```text
//!  append ─► registered, synced ─► handed out ─► acknowledged by Kafka ─► removed
//!                 └─► evicted, expired, damaged ─► in the range of a loss, in the same transaction
//! ```
//! A power cut after `append` costs nothing, one after the removal a duplicate. A mark shows if SQLite's
//! files went back in time. On a full or failing disk, events wait in memory, and are written back.
//!
//! Invariants of every implementation:
//! - An event returned by [`Journal::append`] stays until it is removed, or its loss is declared by a `loss` event that is
//!   registered in the same transaction.
//! - `seq` counts from 1 in each epoch, without gaps. No number is given twice to events that were visible outside.
//! - The size is bounded. A full journal evicts the oldest of the least severe events first, and never a `loss`.
//! - A `loss` grows until it is handed out; from then on its content is fixed.
//! - An epoch belongs to one agent name on one machine; another name or machine begins a new epoch.
//! - Rates have an epoch of their own, so that readers of events alone see no holes; they are handed out apart from events, and
//!   evicted before all of them. Their losses are declared by events.

mod failover;
mod files;
mod loss;
mod mark;
mod outage;
mod quarantine;
mod snapshot;
mod sqlite;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use smol_str::SmolStr;

pub use self::failover::DurableJournal;
pub use self::loss::LossCounts;
#[cfg(feature = "toolbox")]
pub(in crate::agent) use self::loss::declare;
pub(in crate::agent) use self::loss::union;
pub use self::snapshot::{Snapshot, is_held};
pub use self::sqlite::SqliteJournal;
use crate::message::{Body, Epoch, Event, EventId, NewEvent, Severity, Stamp};
use crate::process::problems::ProblemLog;
use crate::process::random::random;
use crate::units::ByteCount;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(in crate::agent) u64);

impl Position {
    pub const START: Self = Self(0);
    /// Position before the first rates, which follow all events.
    pub const RATES: Self = Self(1 << 61);

    fn series(self) -> JournalSeries {
        if self < Self::RATES { JournalSeries::Events } else { JournalSeries::Rates }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalSeries {
    Events,
    Rates,
}

impl JournalSeries {
    const ALL: [Self; 2] = [Self::Events, Self::Rates];

    fn of(body: &Body) -> Self {
        match body {
            Body::Rates(_) => Self::Rates,
            _ => Self::Events,
        }
    }

    fn start(self) -> Position {
        match self {
            Self::Events => Position::START,
            Self::Rates => Position::RATES,
        }
    }

    fn end(self) -> Position {
        match self {
            Self::Events => Position::RATES,
            Self::Rates => Position(1 << 62),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueuedEvent {
    pub position: Position,
    pub event: Arc<Event>,
    /// JSON as committed; `None` where the journal keeps only the event.
    pub payload: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Includes `rates`.
    pub events: u64,
    pub rates: u64,
    pub bytes: u64,
    pub oldest: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
pub struct JournalConfig {
    pub directory: PathBuf,
    /// Includes the write-ahead log.
    pub size_max: ByteCount,
    pub age_max: Duration,
    pub identity: Identity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub agent: SmolStr,
    pub machine_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    OnDisk,
    InMemory,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("another agent runs on {}; give each agent a state_dir of its own", .0.display())]
    Locked(PathBuf),
    #[error(transparent)]
    NotPermitted(#[from] files::NotPermitted),
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("journal")]
    Sqlite(#[from] rusqlite::Error),
    #[error("journal damaged: {0}")]
    Damaged(String),
    #[error(
        "{} is the journal of a newer agent (version {version}; this one, {}, knows {known}): install that agent again; or move \
         journal.db and journal.db-wal away, and the events in them that Kafka does not have are declared lost",
        path.display(), env!("CARGO_PKG_VERSION")
    )]
    Newer { path: PathBuf, version: u32, known: u32 },
}

pub trait Journal {
    /// Registers all events or none, and tracks the breaches that they open and close.
    fn append(&mut self, new_events: Vec<NewEvent>) -> Result<Vec<Arc<Event>>, JournalError>;

    /// Removes events, ignoring unknown ones. After an error all are still there.
    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError>;

    /// Replaces an event that Kafka rejected by its loss, with the broker's error as `detail`. Ignores an unknown event.
    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError>;

    /// Takes what the journal registered by itself: losses, which may grow until handed out, and ends of breaches after a rename.
    fn take_own_events(&mut self) -> Vec<Arc<Event>> {
        Vec::new()
    }

    fn lost(&self) -> LossCounts {
        LossCounts::default()
    }

    /// Hands out what follows `after` in its series (events or rates), the first even above `bytes_max`. They are evicted last.
    fn batch(&mut self, after: Position, events_max: usize, bytes_max: usize)
    -> Result<Vec<QueuedEvent>, JournalError>;

    fn pending(&self) -> Pending;

    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError> {
        Ok(Vec::new())
    }

    /// Keeps the open window of rates for the next start, until rates are registered; not in memory.
    fn save_open_window(&mut self, _window: NewEvent) -> Result<(), JournalError> {
        Ok(())
    }

    fn open_window(&mut self) -> Result<Option<NewEvent>, JournalError> {
        Ok(None)
    }

    /// Records the first sample that Kafka may not have, since samples are in memory only; `None` once all are declared. A new
    /// epoch is noted at once, else with the next transaction. A start that finds a note declares that samples may be missing.
    fn note_samples(&mut self, _first: Option<EventId>) -> Result<(), JournalError> {
        Ok(())
    }

    /// Returns the first number neither acknowledged nor declared lost; without any, the next number to be given.
    fn first_unsettled(&self) -> Option<EventId> {
        None
    }

    /// Drops expired events, and retries a disk that could not be written. To be called every second; most calls do nothing.
    fn upkeep(&mut self, _now: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }

    /// Changes the bounds, and gives up what exceeds them: at once, or after an error with one of the next events.
    fn reconfigure(&mut self, _size_max: ByteCount, _age_max: Duration, _now: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }

    /// Retries the disk. After an error, events only in memory are lost with the process.
    fn close(&mut self, _now: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }

    fn durability(&self) -> Durability {
        Durability::InMemory
    }

    fn next_id(&self) -> Option<EventId> {
        None
    }

    fn problems(&self) -> ProblemLog {
        ProblemLog::default()
    }

    /// Returns a number that changes when earlier positions become invalid: readers then start again at the first.
    fn generation(&self) -> u64 {
        0
    }
}

/// Lowest priority is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum EvictionPriority {
    Rates,
    WarningUpdate,
    CriticalUpdate,
    Other,
    Warning,
    Critical,
    Loss,
}

impl EvictionPriority {
    fn of(body: &Body) -> Self {
        match body {
            Body::BreachUpdated(breach) if breach.severity == Severity::Warning => Self::WarningUpdate,
            Body::BreachUpdated(_) => Self::CriticalUpdate,
            Body::BreachRaised(breach) | Body::BreachCleared(breach) if breach.severity == Severity::Warning => {
                Self::Warning
            }
            Body::BreachRaised(_) | Body::BreachCleared(_) => Self::Critical,
            Body::Loss(_) => Self::Loss,
            Body::Rates(_) => Self::Rates,
            _ => Self::Other,
        }
    }
}

fn breach_change(body: &Body) -> Option<(&str, bool)> {
    body.breach().map(|breach| (breach.breach_id.as_str(), !matches!(body, Body::BreachCleared(_))))
}

pub(in crate::agent) fn random_epoch() -> Epoch {
    Epoch(random())
}

#[cfg(test)]
mod tests;
