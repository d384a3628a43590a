//! The durable journal: one SQLite database, one connection, exclusive, write-ahead log, `synchronous=FULL`.
//!
//! It is written only by a tick that makes an event, and when Kafka has acknowledged some.

mod rows;
mod salvage;
mod state;

use std::path::Path;
use std::sync::Arc;

use log::error;
use rusqlite::{Connection, DropBehavior, Transaction, params};

#[cfg(test)]
pub(super) use self::rows::event_crc;
use self::rows::{
    EVENT, damage, damaged, evict, find, find_oldest, fix_loss, insert, keep_breach, lose, read, register, signed,
    take, unsigned, whole, whole_event,
};
pub(super) use self::salvage::{Saved, Since};
use self::state::{Meta, State, keep_count};
use super::loss::{Cause, split};
use super::mark::MarkFile;
use super::{Journal, JournalError, Pending, Position, Rank, Stored};
use crate::agent::event_system::Draft;
use crate::event::{Body, Event, EventId, Loss, Reason, Stamp};
use crate::failpoints;
use crate::units::ByteCount;

const SCHEMA: &str = include_str!("sqlite/schema.sql");
/// Stands at the schema's end.
const VERSION: u32 = 1;
const PAGE_BYTES: i64 = 4_096;
/// The write-ahead log is copied back at so many pages (256 KiB): it counts against the journal's size.
const WAL_PAGES: i64 = 64;

/// So many events are taken over before it is seen whether there is room for more.
const ADOPTED_AT_ONCE: usize = 256;

/// A journal that survives the process, the power, and a full disk.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    pages_max: i64,
    state: State,
    /// None while it does not yet have its place.
    mark: Option<MarkFile>,
}

impl SqliteJournal {
    /// Opens the journal at `path`, or makes one, and keeps it within `size_max`.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where the file is no journal, no whole one, or knows less than was once registered; else what
    /// SQLite says.
    pub fn open(path: &Path, size_max: ByteCount, machine_id: &str) -> Result<Self, JournalError> {
        let file = mark_beside(path);
        let mark = file.read().unwrap_or_default();
        let connection = Connection::open(path).map_err(damage)?;
        configure(&connection).map_err(damage)?;
        check(&connection)?;
        if mark.commits > 0 && Meta::read(&connection)?.is_none() {
            return Err(JournalError::Damaged("it is empty".to_owned()));
        }
        let state = State::load(&connection, machine_id, 0)?;
        let lost = mark.commits.saturating_sub(state.commits);
        if lost > 0 {
            return Err(JournalError::Damaged(format!("its last {lost} transactions are missing")));
        }
        Ok(Self::of(connection, state, size_max, Some(file)))
    }

    /// A new journal at `path`, which gets its place later; it counts on after `commits`.
    fn make(path: &Path, size_max: ByteCount, machine_id: &str, commits: u64) -> Result<Self, JournalError> {
        let connection = Connection::open(path)?;
        configure(&connection)?;
        check(&connection)?;
        let state = State::load(&connection, machine_id, commits)?;
        Ok(Self::of(connection, state, size_max, None))
    }

    fn of(connection: Connection, state: State, size_max: ByteCount, mark: Option<MarkFile>) -> Self {
        let pages_max = ((size_max.bytes() / PAGE_BYTES as u64) as i64 - WAL_PAGES).max(WAL_PAGES);
        let mut journal = Self { connection, pages_max, state, mark };
        journal.write_mark();
        journal
    }

    /// The epoch in which it counts, and the number of the next event.
    pub fn next_id(&self) -> EventId {
        EventId { epoch: self.state.epoch, seq: self.state.next_seq }
    }

    /// Forgets the events of an epoch from this one on: they were refused, whatever reached the disk. Its own numbers it gives
    /// anew.
    ///
    /// # Errors
    /// They are still there.
    pub fn take_back(&mut self, from: EventId) -> Result<(), JournalError> {
        let is_own = from.epoch == self.state.epoch;
        if is_own && from.seq >= self.state.next_seq {
            return Ok(());
        }
        self.transaction(|transaction, state| {
            transaction.execute(
                "DELETE FROM events WHERE epoch = ? AND seq >= ?",
                params![signed(from.epoch), from.seq as i64],
            )?;
            if is_own {
                state.next_seq = from.seq;
            }
            state.survey(transaction)
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
        self.take_over(rest, breaches, Vec::new(), stamp)
    }

    fn take_over<'a>(
        &mut self,
        rest: impl IntoIterator<Item = &'a Event>,
        breaches: impl IntoIterator<Item = &'a Event>,
        losses: Vec<Loss>,
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
            for loss in losses {
                register(transaction, state, Draft { stamp: stamp.clone(), body: Body::Loss(loss) })?;
                fix_loss(transaction, state)?;
            }
            evict(transaction, state, pages_max, stamp)?;
            fix_loss(transaction, state)
        })
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
            let sql = format!("SELECT {EVENT} FROM events WHERE observed_us < ? AND rank < ? ORDER BY position");
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query(params![oldest_us, Rank::Loss as u8])?;
            let mut old = Vec::new();
            while let Some(row) = rows.next()? {
                // One that can't be read is noticed when it is handed out.
                if whole_event(row).is_some_and(|(event, _)| is_older(&event.stamp, stamp, oldest_us)) {
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
            lose(transaction, state, &ids.into_iter().flatten().collect::<Vec<_>>(), (&Reason::Expired).into(), stamp)
        })
    }

    /// Runs `what` in a synced transaction of its own, and counts it; memory follows the database, or neither moves.
    fn transaction<T>(
        &mut self,
        what: impl FnOnce(&Transaction<'_>, &mut State) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.commit_held_back()?;
        let mut state = self.state.clone();
        let transaction = self.connection.transaction()?;
        let done = what(&transaction, &mut state)?;
        state.commits += 1;
        keep_count(&transaction, &state)?;
        commit(transaction)?;
        self.state = state;
        self.write_mark();
        Ok(done)
    }

    /// Forgets events, without a sync: a removal that a power cut undoes is one more harmless copy. The mark goes ahead, so that
    /// it never knows of events that are no more.
    fn forget(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        let mut state = self.state.clone();
        let transaction = self.connection.transaction()?;
        for id in ids {
            if let Some(position) = find(&transaction, &state, *id)? {
                take(&transaction, &mut state, position)?;
            }
        }
        find_oldest(&transaction, &mut state)?;
        keep_count(&transaction, &state)?;
        if let Some(mark) = &mut self.mark {
            mark.write(&state.mark());
        }
        commit(transaction)?;
        self.state = state;
        Ok(())
    }

    /// Only of what is committed: a test may hold that back.
    fn write_mark(&mut self) {
        if let Some(mark) = &mut self.mark
            && self.connection.is_autocommit()
        {
            mark.write(&self.state.mark());
        }
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
    fn append(&mut self, drafts: Vec<Draft>) -> Result<Vec<Arc<Event>>, JournalError> {
        let pages_max = self.pages_max;
        self.transaction(|transaction, state| {
            let stamp = drafts.last().map(|draft| draft.stamp.clone());
            let events =
                drafts.into_iter().map(|draft| register(transaction, state, draft)).collect::<Result<Vec<_>, _>>()?;
            if let Some(stamp) = stamp {
                evict(transaction, state, pages_max, &stamp)?;
            }
            failpoints::pass("journal-before-commit");
            Ok(events)
        })
        .inspect(|_| failpoints::pass("journal-after-commit"))
        .map_err(damaged)
    }

    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        self.commit_held_back()?;
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        let removed = self.forget(ids);
        self.commit_held_back()?;
        self.connection.pragma_update(None, "synchronous", synchronous())?;
        removed.map_err(damaged)
    }

    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError> {
        self.transaction(|transaction, state| {
            let Some(position) = find(transaction, state, id)? else { return Ok(()) };
            take(transaction, state, position)?;
            lose(transaction, state, &[id], Cause::rejected(detail), &stamp)
        })
        .map_err(damaged)
    }

    fn batch(&mut self, after: Position, events_max: usize, bytes_max: usize) -> Result<Vec<Stored>, JournalError> {
        let batch = read(&self.connection, after, events_max, bytes_max).map_err(damaged)?;
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

/// Whether the database is sound and of this version; a new one is given its tables.
fn check(connection: &Connection) -> Result<(), JournalError> {
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damage)?;
    if sound != "ok" {
        return Err(JournalError::Damaged(sound));
    }
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damage)?;
    match version {
        0 => connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;")).map_err(damage),
        VERSION => check_tables(connection),
        other => Err(JournalError::Damaged(format!("it is of version {other}, and this program knows {VERSION}"))),
    }
}

/// Whether the tables are those of [`SCHEMA`], to the letter: SQLite finds a damaged column's name sound, until it is asked for.
fn check_tables(connection: &Connection) -> Result<(), JournalError> {
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").map_err(damage)?;
    let tables = statement.query_map([], |row| row.get::<_, String>(0)).map_err(damage)?;
    let tables = tables.collect::<Result<Vec<_>, _>>().map_err(damage)?;
    let are_all_there = tables.len() == SCHEMA.matches("CREATE TABLE").count();
    if are_all_there && tables.iter().all(|table| SCHEMA.contains(table.as_str())) {
        return Ok(());
    }
    Err(JournalError::Damaged("its tables are not those that this program makes".to_owned()))
}

fn mark_beside(path: &Path) -> MarkFile {
    let mut name = path.as_os_str().to_owned();
    name.push(".mark");
    MarkFile::new(name.into())
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
