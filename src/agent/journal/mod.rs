//! Where events are registered until Kafka has acknowledged them: in a [`SqliteJournal`], on disk or in memory. An agent has a
//! [`DurableJournal`], which is on disk as long as that can be written, and in memory until it can be written again.
//!
//! Invariants, whatever the implementation:
//!
//! - An event that [`Journal::append`] returned stays until it is removed, or until its loss is declared by a `loss` event that
//!   is registered in the same transaction.
//! - `seq` counts from 1 in each epoch, without holes. No number is given twice to events that anybody has seen.
//! - What is kept is bounded. When it is full, the oldest of the least severe goes first; a `loss` never goes.
//! - A `loss` that nobody was handed yet grows; once handed, its content is fixed.
//! - An epoch belongs to one name on one machine: what counts under another one begins an epoch of its own.

mod failover;
mod files;
#[cfg(feature = "toolbox")]
mod fleet;
mod loss;
mod mark;
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
#[cfg(feature = "toolbox")]
pub use self::fleet::FleetJournal;
pub use self::loss::LossCounts;
pub use self::snapshot::{Snapshot, is_held};
pub use self::sqlite::SqliteJournal;
use crate::agent::event_system::Draft;
use crate::agent::mishap::Mishaps;
use crate::event::{Body, Epoch, Event, EventId, Severity, Stamp};
use crate::units::ByteCount;

/// A place in the order in which events were registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// Before all events.
    pub const START: Self = Self(0);
}

/// A registered event.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Where it stands.
    pub position: Position,
    /// The event; shared with whoever keeps it.
    pub event: Arc<Event>,
    /// Its JSON, as it was committed; `None` where the journal keeps the event alone.
    pub payload: Option<Vec<u8>>,
}

/// How much is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Number of events.
    pub events: u64,
    /// Bytes of their JSON.
    pub bytes: u64,
    /// `observed_at` of the one registered first.
    pub oldest: Option<DateTime<Utc>>,
}

/// The place and the bounds of an agent's journal.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The state directory; made if it is missing.
    pub directory: PathBuf,
    /// Bounds the file, and what is kept in memory while the file can't be written.
    pub size_max: ByteCount,
    /// Events older than this are given up.
    pub age_max: Duration,
    pub identity: Identity,
}

/// Who counts in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The agent's name in events.
    pub agent: SmolStr,
    /// `/etc/machine-id`, empty where there is none.
    pub machine_id: String,
}

/// Where events are kept at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the file: they survive the process.
    OnDisk,
    /// In memory, because the disk can't be written: they don't.
    InMemory,
}

/// Why a journal could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent holds the state directory.
    #[error("another agent runs on {}; give each agent a state_dir of its own", .0.display())]
    Locked(PathBuf),
    /// A file or directory belongs to another user.
    #[error(transparent)]
    NotPermitted(#[from] files::NotPermitted),
    /// A file or directory refuses.
    #[error("{}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite refuses: disk full, read-only, an I/O error.
    #[error("journal")]
    Sqlite(#[from] rusqlite::Error),
    /// What stands in the file is not what was written there.
    #[error("journal damaged: {0}")]
    Damaged(String),
}

/// A bounded, ordered store of events.
pub trait Journal {
    /// Registers events, all or none, and keeps the breaches that they open and close.
    ///
    /// # Errors
    /// None of them is registered.
    fn append(&mut self, drafts: Vec<Draft>) -> Result<Vec<Arc<Event>>, JournalError>;

    /// Forgets events; those it does not know are passed over.
    ///
    /// # Errors
    /// They are still there.
    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError>;

    /// Gives up an event that was rejected, and registers its loss, with what the broker said of it, in the same transaction.
    ///
    /// # Errors
    /// It is still there.
    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError>;

    /// The events that the journal registered by itself since the last call: declarations of losses, and the ends of breaches
    /// of an agent that has another name now. A declaration may grow until it is handed out.
    fn take_own_events(&mut self) -> Vec<Arc<Event>> {
        Vec::new()
    }

    /// The number of events given up since the start.
    fn lost(&self) -> LossCounts {
        LossCounts::default()
    }

    /// The events after `after`, in order, as many as fit; at least one where there is one. They are handed out: from now on they
    /// are evicted last.
    ///
    /// # Errors
    /// Nothing was handed out.
    fn batch(&mut self, after: Position, events_max: usize, bytes_max: usize) -> Result<Vec<Stored>, JournalError>;

    /// What is registered.
    fn pending(&self) -> Pending;

    /// The last event of each breach that is not cleared.
    ///
    /// # Errors
    /// They can't be read.
    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError>;

    /// Drops what is older than the journal keeps, tries a refusing disk again. Call it every second; most calls do nothing.
    ///
    /// # Errors
    /// Something was tried and did not succeed.
    fn upkeep(&mut self, stamp: &Stamp) -> Result<(), JournalError>;

    /// Takes other bounds: what exceeds them is given up at once.
    ///
    /// # Errors
    /// What exceeds them is still there, and goes with one of the next events.
    fn reconfigure(&mut self, _size_max: ByteCount, _age_max: Duration, _now: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }

    /// Prepares for the end of the process: tries a disk once more that could not be written.
    ///
    /// # Errors
    /// What is kept in memory alone is lost with the process.
    fn close(&mut self, _now: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }

    /// Whether events survive the process at the moment.
    fn durability(&self) -> Durability {
        Durability::InMemory
    }

    /// The identity of the next event, where there is one count for all.
    fn next_id(&self) -> Option<EventId> {
        None
    }

    /// What its disk refused.
    fn mishaps(&self) -> Mishaps {
        Mishaps::default()
    }

    /// Changes whenever positions given before mean nothing any more: begin again at [`Position::START`].
    fn generation(&self) -> u64 {
        0
    }
}

/// The order in which events go when room is short: the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum EvictionPriority {
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
            _ => Self::Other,
        }
    }
}

/// What an event does to the breaches that are kept.
fn breach_change(body: &Body) -> Option<(&str, bool)> {
    body.breach().map(|breach| (breach.breach_id.as_str(), !matches!(body, Body::BreachCleared(_))))
}

/// Draws an epoch from the operating system: a seeded generator could repeat itself on the next machine.
///
/// # Panics
/// Where the system has no random numbers, as the standard library's maps do.
fn random_epoch() -> Epoch {
    Epoch(getrandom::u64().expect("the system has random numbers"))
}

#[cfg(test)]
mod tests;
