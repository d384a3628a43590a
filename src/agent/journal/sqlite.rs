//! The durable journal: one SQLite database, one connection, exclusive, write-ahead log, `synchronous=FULL`.
//!
//! It is written only by a tick that makes an event, and when Kafka has acknowledged some.

mod rows;

use std::collections::BTreeMap;
use std::path::Path;

use log::error;
use rusqlite::types::FromSql;
use rusqlite::{Connection, DropBehavior, Transaction, params};

use self::rows::{
    State, count, damage, damaged, evict, find, fix_loss, insert, keep_breach, lose, oldest, open_loss, read, register,
    signed, take, unsigned, whole,
};
use super::loss::{declare, split};
use super::{Journal, JournalError, Pending, Position, Rank, Stored};
use crate::agent::event_system::Draft;
use crate::event::{Body, Epoch, Event, EventId, Loss, Stamp};
use crate::failpoints;
use crate::units::ByteCount;

const SCHEMA: &str = include_str!("sqlite/schema.sql");
const PAGE_BYTES: i64 = 4_096;
/// The write-ahead log is copied back at so many pages (256 KiB): it counts against the journal's size.
const WAL_PAGES: i64 = 64;

/// So many events are taken over before it is seen whether there is room for more.
const ADOPTED_AT_ONCE: usize = 256;

/// What was read of a damaged journal.
#[derive(Debug, Default)]
pub struct Saved {
    /// In which it counted.
    pub epoch: Option<Epoch>,
    /// In order.
    pub events: Vec<Event>,
    /// The last event of each breach that was open.
    pub breaches: Vec<Event>,
}

/// A journal that survives the process, the power, and a full disk.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    pages_max: i64,
    state: State,
}

impl SqliteJournal {
    /// Opens the journal at `path`, or makes one, and keeps it within `size_max`.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where the file is no journal, or no whole one; else what SQLite says.
    pub fn open(path: &Path, size_max: ByteCount, machine_id: &str) -> Result<Self, JournalError> {
        let connection = Connection::open(path).map_err(damage)?;
        configure(&connection).map_err(damage)?;
        let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damage)?;
        if sound != "ok" {
            return Err(JournalError::Damaged(sound));
        }
        let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damage)?;
        if version == 0 {
            let schema = format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;");
            connection.execute_batch(&schema).map_err(damage)?;
        }
        let state = State::load(&connection, machine_id)?;
        let pages_max = ((size_max.bytes() / PAGE_BYTES as u64) as i64 - WAL_PAGES).max(WAL_PAGES);
        Ok(Self { connection, pages_max, state })
    }

    /// The epoch in which it counts, and the number of the next event.
    pub fn next_id(&self) -> EventId {
        EventId { epoch: self.state.epoch, seq: self.state.next_seq }
    }

    /// Forgets the events of its own epoch from `seq` on: they were refused, whatever reached the disk.
    ///
    /// # Errors
    /// They are still there.
    pub fn take_back(&mut self, from: EventId) -> Result<(), JournalError> {
        if from.epoch != self.state.epoch || from.seq >= self.state.next_seq {
            return Ok(());
        }
        self.transaction(|transaction, state| {
            transaction.execute(
                "DELETE FROM events WHERE epoch = ? AND seq >= ?",
                params![signed(from.epoch), from.seq as i64],
            )?;
            transaction.execute("UPDATE meta SET next_seq = ?", [from.seq as i64])?;
            state.next_seq = from.seq;
            state.pending = count(transaction)?;
            state.open_loss = open_loss(transaction)?;
            Ok(())
        })
    }

    /// Takes over events that have their identity already, and the breaches that are open with them. Where they are more than
    /// fits, the least severe are evicted.
    ///
    /// # Errors
    /// None of them was taken.
    pub fn adopt<'a>(
        &mut self,
        rest: impl IntoIterator<Item = &'a Event>,
        breaches: impl IntoIterator<Item = &'a Event>,
        stamp: &Stamp,
    ) -> Result<(), JournalError> {
        self.take_over(rest, breaches, None, stamp)
    }

    /// The same of what was saved from a damaged journal, with the declaration that there may have been more.
    ///
    /// # Errors
    /// None of them was taken, and nothing is declared.
    pub fn inherit<'a>(
        &mut self,
        saved: &'a Saved,
        breaches: impl IntoIterator<Item = &'a Event>,
        why: &str,
        stamp: &Stamp,
    ) -> Result<(), JournalError> {
        let lost = saved.epoch.or(saved.events.last().map(|event| event.id.epoch)).unwrap_or(Epoch(0));
        let loss = declare(lost, &[], &format!("journal damaged: {why}; {} events were saved", saved.events.len()));
        self.take_over(&saved.events, breaches, Some(loss), stamp)
    }

    fn take_over<'a>(
        &mut self,
        rest: impl IntoIterator<Item = &'a Event>,
        breaches: impl IntoIterator<Item = &'a Event>,
        loss: Option<Loss>,
        stamp: &Stamp,
    ) -> Result<(), JournalError> {
        let pages_max = self.pages_max;
        self.transaction(|transaction, state| {
            for (nth, event) in rest.into_iter().enumerate() {
                let mut event = event.clone();
                let more = split(&mut event);
                insert(transaction, state, &event)?;
                for draft in more {
                    register(transaction, state, draft)?;
                }
                // Some of them may have been handed out: nothing among them grows.
                state.open_loss = None;
                if nth % ADOPTED_AT_ONCE == 0 {
                    evict(transaction, state, pages_max, stamp)?;
                }
            }
            transaction.execute("DELETE FROM open_breaches", [])?;
            breaches.into_iter().try_for_each(|event| keep_breach(transaction, event))?;
            if let Some(loss) = loss {
                register(transaction, state, Draft { stamp: stamp.clone(), body: Body::Loss(loss) })?;
            }
            evict(transaction, state, pages_max, stamp)?;
            transaction.execute("UPDATE events SET fixed = 1 WHERE fixed = 0", [])?;
            state.open_loss = None;
            Ok(())
        })
    }

    /// What can still be read of a damaged journal.
    pub fn salvage(path: &Path) -> Saved {
        let mut saved = Saved::default();
        let Ok(connection) = Connection::open(path) else { return saved };
        let epoch = connection.query_row("SELECT epoch FROM meta", [], |row| row.get::<_, i64>(0)).ok();
        saved.epoch = epoch.map(|epoch| Epoch(epoch as u64));
        saved.events = readable::<i64>(&connection, "SELECT position, crc, payload FROM events ORDER BY position");
        saved.breaches =
            readable::<String>(&connection, "SELECT breach_id, crc, payload FROM open_breaches ORDER BY breach_id");
        saved
    }

    /// Copies the log back into the file, which then is all there is.
    ///
    /// # Errors
    /// Some of it still stands in the log.
    pub fn close(self) -> Result<(), JournalError> {
        let busy: i64 = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy != 0 {
            return Err(JournalError::Damaged("its log cannot be copied back".to_owned()));
        }
        self.connection.close().map_err(|(_, error)| error.into())
    }

    /// Drops events observed before `oldest_us`, declared as `expired`.
    ///
    /// # Errors
    /// They are still there.
    pub fn expire(&mut self, oldest_us: i64, stamp: &Stamp) -> Result<(), JournalError> {
        let old: Vec<Position> = {
            let sql = "SELECT position, crc, payload FROM events WHERE observed_us < ? AND rank < ? ORDER BY position";
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query(params![oldest_us, Rank::Loss as u8])?;
            let mut old = Vec::new();
            while let Some(row) = rows.next()? {
                if whole(row, 1).is_none_or(|(event, _)| is_older(&event.stamp, stamp, oldest_us)) {
                    old.push(unsigned(row.get(0)?));
                }
            }
            old
        };
        if old.is_empty() {
            return Ok(());
        }
        self.transaction(|transaction, state| {
            let ids = old.iter().map(|position| take(transaction, state, *position)).collect::<Result<Vec<_>, _>>()?;
            lose(transaction, state, &ids.into_iter().flatten().collect::<Vec<_>>(), "expired", stamp)
        })
    }

    /// Declares events lost whose content is not what was written.
    fn give_up(&mut self, unreadable: &[Position]) -> Result<(), JournalError> {
        let Some(stamp) = self.state.stamp.clone() else { return Ok(()) };
        self.transaction(|transaction, state| {
            let ids = unreadable.iter().map(|position| take(transaction, state, *position));
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            lose(
                transaction,
                state,
                &ids.into_iter().flatten().collect::<Vec<_>>(),
                "journal damaged: checksum",
                &stamp,
            )
        })
    }

    /// Runs `what` in a transaction of its own; memory follows the database, or neither moves.
    fn transaction<T>(
        &mut self,
        what: impl FnOnce(&Transaction<'_>, &mut State) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.commit_held_back()?;
        let mut state = self.state.clone();
        let transaction = self.connection.transaction()?;
        let done = what(&transaction, &mut state)?;
        commit(transaction)?;
        self.state = state;
        Ok(done)
    }

    /// What a test held back when it took that guard out.
    fn commit_held_back(&self) -> Result<(), JournalError> {
        if failpoints::is_out(COMMIT_FIRST) && !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT")?;
        }
        Ok(())
    }
}

impl Journal for SqliteJournal {
    fn append(&mut self, drafts: Vec<Draft>) -> Result<Vec<Event>, JournalError> {
        let pages_max = self.pages_max;
        self.transaction(|transaction, state| {
            let stamp = drafts.last().map(|draft| draft.stamp.clone());
            let events =
                drafts.into_iter().map(|draft| register(transaction, state, draft)).collect::<Result<Vec<_>, _>>()?;
            if let Some(stamp) = stamp {
                evict(transaction, state, pages_max, &stamp)?;
                state.stamp = Some(stamp);
            }
            failpoints::pass("journal-before-commit");
            Ok(events)
        })
        .inspect(|_| failpoints::pass("journal-after-commit"))
        .map_err(damaged)
    }

    /// Without a sync: a removal that a power cut undoes is one more harmless copy.
    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        self.commit_held_back()?;
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        let removed = self.transaction(|transaction, state| {
            for id in ids {
                if let Some(position) = find(transaction, state, *id)? {
                    take(transaction, state, position)?;
                }
            }
            state.pending.oldest = oldest(transaction)?;
            Ok(())
        });
        self.commit_held_back()?;
        self.connection.pragma_update(None, "synchronous", synchronous())?;
        removed.map_err(damaged)
    }

    fn reject(&mut self, id: EventId, reason: &str, stamp: Stamp) -> Result<(), JournalError> {
        self.transaction(|transaction, state| {
            let Some(position) = find(transaction, state, id)? else { return Ok(()) };
            take(transaction, state, position)?;
            lose(transaction, state, &[id], reason, &stamp)
        })
        .map_err(damaged)
    }

    fn batch(&mut self, after: Position, events_max: usize, bytes_max: usize) -> Result<Vec<Stored>, JournalError> {
        let (batch, unreadable) = read(&self.connection, after, events_max, bytes_max).map_err(damaged)?;
        if !unreadable.is_empty() {
            self.give_up(&unreadable)?;
        }
        let fixes = self
            .state
            .open_loss
            .as_ref()
            .is_some_and(|loss| batch.iter().any(|stored| stored.position == loss.position));
        if fixes {
            self.transaction(fix_loss)?;
            return self.batch(after, events_max, bytes_max);
        }
        for stored in &batch {
            self.state.handed.insert(stored.event.id, stored.position);
        }
        Ok(batch)
    }

    fn pending(&self) -> Pending {
        self.state.pending
    }

    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError> {
        let mut statement = self.connection.prepare("SELECT crc, payload FROM open_breaches ORDER BY breach_id")?;
        let events = statement.query_map([], |row| Ok(whole(row, 0)))?.collect::<Result<Vec<_>, _>>()?;
        let damaged = events.iter().filter(|event| event.is_none()).count();
        if damaged > 0 {
            error!("journal damaged: {damaged} open breaches cannot be read, so nobody will be told of their end");
        }
        Ok(events.into_iter().flatten().map(|(event, _)| event).collect())
    }

    fn upkeep(&mut self, _stamp: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }
}

/// The events of a damaged table, by their key. A damaged page ends a reading: it is come from both sides.
fn readable<K: FromSql + Ord>(connection: &Connection, sql: &str) -> Vec<Event> {
    let mut events = BTreeMap::new();
    for order in ["ASC", "DESC"] {
        let Ok(mut statement) = connection.prepare(&format!("{sql} {order}")) else { continue };
        let Ok(mut rows) = statement.query([]) else { continue };
        while let Ok(Some(row)) = rows.next() {
            if let (Ok(key), Some((event, _))) = (row.get::<_, K>(0), whole(row, 1)) {
                events.insert(key, event);
            }
        }
    }
    events.into_values().collect()
}

/// The guard: an event is committed before anybody sees it.
const COMMIT_FIRST: &str = "commit-before-send";

/// Without the guard the transaction stays open until the next one.
fn commit(mut transaction: Transaction<'_>) -> rusqlite::Result<()> {
    if failpoints::is_out(COMMIT_FIRST) {
        transaction.set_drop_behavior(DropBehavior::Ignore);
        return Ok(());
    }
    transaction.commit()
}

/// The guard: an event is on the disk before anybody sees it.
fn synchronous() -> &'static str {
    if failpoints::is_out("synchronous-full") { "OFF" } else { "FULL" }
}

/// Whether `event` was observed before `oldest_us`. In the same boot the monotonic clock says so, whatever became of the wall
/// clock; and nobody knows how old an event is that was observed before that was set.
fn is_older(event: &Stamp, now: &Stamp, oldest_us: i64) -> bool {
    if event.boot_id == now.boot_id && !now.boot_id.is_empty() {
        let longest_ms = now.observed_at.timestamp_micros().saturating_sub(oldest_us) / 1_000;
        return now.monotonic_ms.saturating_sub(event.monotonic_ms) > longest_ms.max(0).cast_unsigned();
    }
    event.clock_synced != Some(false)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous())?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_PAGES * PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -256)?; // KiB
    connection.pragma_update(None, "temp_store", "MEMORY")
}
