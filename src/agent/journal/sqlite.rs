//! The durable journal: one SQLite database, one connection, exclusive, write-ahead log, `synchronous=FULL`.
//!
//! It is written only by a tick that makes an event, and when Kafka has acknowledged some.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, params};

use super::loss::{OpenLoss, by_epoch, declare, grow};
use super::{Journal, JournalError, Pending, Position, Rank, Stored, breach_change, random_epoch};
use crate::agent::event_system::Draft;
use crate::event::{Body, Epoch, Event, EventId, Stamp};
use crate::units::ByteCount;
use crate::wire;

const SCHEMA: &str = include_str!("sqlite/schema.sql");
const PAGE_BYTES: i64 = 4_096;
/// The write-ahead log is copied back at so many pages (256 KiB): it counts against the journal's size.
const WAL_PAGES: i64 = 64;
/// Room is made for so many events at once.
const EVICTED_AT_ONCE: usize = 64;

/// A journal that survives the process, the power, and a full disk.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    pages_max: i64,
    state: State,
}

/// What memory knows of the database; replaced as a whole when a transaction is committed.
#[derive(Clone, Debug)]
struct State {
    epoch: Epoch,
    next_seq: u64,
    next_position: u64,
    pending: Pending,
    open_loss: Option<OpenLoss>,
    /// Where the events stand that were handed out.
    handed: BTreeMap<EventId, Position>,
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
        let pages_max = (size_max.bytes() as i64 / PAGE_BYTES - WAL_PAGES).max(WAL_PAGES);
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

    /// Takes over events that have their identity already, and the breaches that are open with them.
    ///
    /// # Errors
    /// None of them was taken.
    pub fn adopt<'a>(
        &mut self,
        rest: impl IntoIterator<Item = &'a Event>,
        breaches: impl IntoIterator<Item = &'a Event>,
    ) -> Result<(), JournalError> {
        self.transaction(|transaction, state| {
            for event in rest {
                insert(transaction, state, event)?;
            }
            // Some of them may have been handed out: nothing among them grows.
            transaction.execute("UPDATE events SET fixed = 1 WHERE fixed = 0", [])?;
            state.open_loss = None;
            transaction.execute("DELETE FROM open_breaches", [])?;
            breaches.into_iter().try_for_each(|event| keep_breach(transaction, event))
        })
    }

    /// The events that can still be read from a damaged journal, and the epoch in which it counted.
    pub fn salvage(path: &Path) -> (Option<Epoch>, Vec<Event>) {
        let Ok(connection) = Connection::open(path) else { return (None, Vec::new()) };
        let epoch = connection.query_row("SELECT epoch FROM meta", [], |row| row.get::<_, i64>(0)).ok();
        let mut events = BTreeMap::new();
        // A damaged page ends a reading: come from both sides.
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT position, crc, payload FROM events ORDER BY position {order}");
            let Ok(mut statement) = connection.prepare(&sql) else { continue };
            let Ok(mut rows) = statement.query([]) else { continue };
            while let Ok(Some(row)) = rows.next() {
                let (Ok(position), Ok(crc), Ok(payload)) = (row.get::<_, i64>(0), row.get(1), row.get(2)) else {
                    continue;
                };
                if let Ok((event, _)) = checked(crc, payload) {
                    events.insert(position, event);
                }
            }
        }
        (epoch.map(|epoch| Epoch(epoch as u64)), events.into_values().collect())
    }

    /// Declares that events of `epoch` are lost, with numbers where they are known.
    ///
    /// # Errors
    /// Nothing is declared.
    pub fn declare(&mut self, epoch: Epoch, ids: &[EventId], reason: &str, stamp: &Stamp) -> Result<(), JournalError> {
        let loss = declare(epoch, ids, reason);
        self.append(vec![Draft { stamp: stamp.clone(), body: Body::Loss(loss) }]).map(drop)
    }

    /// Drops events observed before `oldest_us`, declared as `expired`.
    ///
    /// # Errors
    /// They are still there.
    pub fn expire(&mut self, oldest_us: i64, stamp: &Stamp) -> Result<(), JournalError> {
        let old: Vec<Position> = {
            let sql = "SELECT position FROM events WHERE observed_us < ? AND rank < ? ORDER BY position";
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map(params![oldest_us, Rank::Loss as u8], |row| row.get(0).map(unsigned))?;
            rows.collect::<Result<_, _>>()?
        };
        if old.is_empty() {
            return Ok(());
        }
        self.transaction(|transaction, state| {
            let ids = old.iter().map(|position| take(transaction, state, *position)).collect::<Result<Vec<_>, _>>()?;
            lose(transaction, state, &ids.into_iter().flatten().collect::<Vec<_>>(), "expired", stamp)
        })
    }

    /// Runs `what` in a transaction of its own; memory follows the database, or neither moves.
    fn transaction<T>(
        &mut self,
        what: impl FnOnce(&Transaction<'_>, &mut State) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let mut state = self.state.clone();
        let transaction = self.connection.transaction()?;
        let done = what(&transaction, &mut state)?;
        transaction.commit()?;
        self.state = state;
        Ok(done)
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
            }
            Ok(events)
        })
        .map_err(damaged)
    }

    /// Without a sync: a removal that a power cut undoes is one more harmless copy.
    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
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
        self.connection.pragma_update(None, "synchronous", "FULL")?;
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
        let batch = read(&self.connection, after, events_max, bytes_max).map_err(damaged)?;
        let fixes = self
            .state
            .open_loss
            .as_ref()
            .is_some_and(|loss| batch.iter().any(|stored| stored.position == loss.position));
        if fixes {
            self.transaction(|transaction, state| {
                transaction.execute("UPDATE events SET fixed = 1 WHERE fixed = 0", [])?;
                state.open_loss = None;
                Ok(())
            })?;
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
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.map(|row| row.map_err(JournalError::from).and_then(|(crc, payload)| checked(crc, payload)))
            .map(|checked| checked.map(|(event, _)| event))
            .collect()
    }

    fn upkeep(&mut self, _stamp: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }
}

impl State {
    fn load(connection: &Connection, machine_id: &str) -> Result<Self, JournalError> {
        let row = "SELECT epoch, next_seq, machine_id FROM meta";
        let meta: Option<(i64, i64, String)> = connection
            .query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
            .map_err(damage)?;
        let (epoch, next_seq) = match meta {
            Some((epoch, next_seq, machine)) if machine == machine_id => (Epoch(epoch as u64), next_seq as u64),
            // A new journal, or one that came here on a copied disk: the original goes on counting, so we must not.
            other => {
                let epoch = random_epoch();
                let begin = connection.unchecked_transaction()?;
                if other.is_some() {
                    begin.execute("DELETE FROM open_breaches", [])?;
                }
                begin.execute("DELETE FROM meta", [])?;
                begin.execute("INSERT INTO meta VALUES (1, ?, 1, ?)", params![signed(epoch), machine_id])?;
                begin.commit()?;
                (epoch, 1)
            }
        };
        let last: Option<i64> =
            connection.query_row("SELECT max(position) FROM events", [], |row| row.get(0)).map_err(damage)?;
        Ok(Self {
            epoch,
            next_seq,
            next_position: last.unwrap_or(0) as u64 + 1,
            pending: count(connection)?,
            open_loss: open_loss(connection)?,
            handed: BTreeMap::new(),
        })
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_PAGES * PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -256)?; // KiB
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn register(transaction: &Transaction<'_>, state: &mut State, draft: Draft) -> Result<Event, JournalError> {
    let event = Event { id: EventId { epoch: state.epoch, seq: state.next_seq }, stamp: draft.stamp, body: draft.body };
    state.next_seq += 1;
    insert(transaction, state, &event)?;
    transaction.execute("UPDATE meta SET next_seq = ?", [state.next_seq as i64])?;
    keep_breach(transaction, &event)?;
    Ok(event)
}

fn insert(transaction: &Transaction<'_>, state: &mut State, event: &Event) -> Result<(), JournalError> {
    let position = Position(state.next_position);
    state.next_position += 1;
    let payload = wire::to_json(event);
    transaction.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
        params![
            position.0 as i64,
            signed(event.id.epoch),
            event.id.seq as i64,
            Rank::of(&event.body) as u8,
            event.stamp.observed_at.timestamp_micros(),
            crc32fast::hash(&payload),
            payload
        ],
    )?;
    if matches!(event.body, Body::Loss(_)) {
        state.open_loss = Some(OpenLoss { position, event: event.clone() });
    }
    state.pending.events += 1;
    state.pending.bytes += payload.len() as u64;
    state.pending.oldest.get_or_insert(event.stamp.observed_at);
    Ok(())
}

fn keep_breach(transaction: &Transaction<'_>, event: &Event) -> Result<(), JournalError> {
    match breach_change(&event.body) {
        Some((breach_id, true)) => {
            let payload = wire::to_json(event);
            let row = params![breach_id, crc32fast::hash(&payload), payload];
            transaction.execute("INSERT OR REPLACE INTO open_breaches VALUES (?, ?, ?)", row)?;
        }
        Some((breach_id, false)) => {
            transaction.execute("DELETE FROM open_breaches WHERE breach_id = ?", [breach_id])?;
        }
        None => {}
    }
    Ok(())
}

/// Makes room: first among those that nobody was handed.
fn evict(transaction: &Transaction<'_>, state: &mut State, pages_max: i64, stamp: &Stamp) -> Result<(), JournalError> {
    if used_pages(transaction)? <= pages_max {
        return Ok(());
    }
    // Open breaches are few, and never go: were they many, they would still not drive out every event.
    let sql = "SELECT coalesce(sum(length(payload)), 0) FROM open_breaches";
    let breach_pages = transaction.query_row(sql, [], |row| row.get::<_, i64>(0))? * 3 / 2 / PAGE_BYTES;
    // A few pages more than needed, so that not every event has to make its own room.
    let target = pages_max - pages_max / 32 + breach_pages;
    let last_handed = state.handed.values().copied().max().unwrap_or_default();
    let mut lost = Vec::new();
    for after in [last_handed, Position::START] {
        while used_pages(transaction)? > target {
            let sql = "SELECT position FROM events WHERE position > ? AND rank < ? ORDER BY rank, position LIMIT ?";
            let victims: Vec<Position> = transaction
                .prepare(sql)?
                .query_map(params![after.0 as i64, Rank::Loss as u8, EVICTED_AT_ONCE as i64], |row| {
                    row.get(0).map(unsigned)
                })?
                .collect::<Result<_, _>>()?;
            if victims.is_empty() {
                break;
            }
            for position in victims {
                lost.extend(take(transaction, state, position)?);
            }
        }
    }
    state.pending.oldest = oldest(transaction)?;
    lose(transaction, state, &lost, "evicted", stamp)
}

fn lose(
    transaction: &Transaction<'_>,
    state: &mut State,
    ids: &[EventId],
    reason: &str,
    stamp: &Stamp,
) -> Result<(), JournalError> {
    for (epoch, ids) in by_epoch(ids) {
        match grow(&mut state.open_loss, epoch, &ids, reason) {
            Some(OpenLoss { position, event }) => {
                let payload = wire::to_json(event);
                let row = params![crc32fast::hash(&payload), payload, position.0 as i64];
                transaction.execute("UPDATE events SET crc = ?, payload = ? WHERE position = ?", row)?;
            }
            None => {
                let body = Body::Loss(declare(epoch, &ids, reason));
                register(transaction, state, Draft { stamp: stamp.clone(), body })?;
            }
        }
    }
    Ok(())
}

/// Deletes the event at `position`; its identity.
fn take(transaction: &Transaction<'_>, state: &mut State, position: Position) -> Result<Option<EventId>, JournalError> {
    let sql = "DELETE FROM events WHERE position = ? RETURNING epoch, seq, length(payload)";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let Some((epoch, seq, bytes)) = transaction.query_row(sql, [position.0 as i64], row).optional()? else {
        return Ok(None);
    };
    let id = EventId { epoch: Epoch(epoch as u64), seq: seq as u64 };
    state.handed.remove(&id);
    state.pending.events = state.pending.events.saturating_sub(1);
    state.pending.bytes = state.pending.bytes.saturating_sub(bytes as u64);
    Ok(Some(id))
}

fn find(transaction: &Transaction<'_>, state: &State, id: EventId) -> Result<Option<Position>, JournalError> {
    if let Some(position) = state.handed.get(&id) {
        return Ok(Some(*position));
    }
    let sql = "SELECT position FROM events WHERE epoch = ? AND seq = ?";
    let row = transaction.query_row(sql, params![signed(id.epoch), id.seq as i64], |row| row.get(0).map(unsigned));
    Ok(row.optional()?)
}

fn read(
    connection: &Connection,
    after: Position,
    events_max: usize,
    bytes_max: usize,
) -> Result<Vec<Stored>, JournalError> {
    let sql = "SELECT position, crc, payload FROM events WHERE position > ? ORDER BY position LIMIT ?";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![after.0 as i64, events_max as i64])?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let (event, payload) = checked(row.get(1)?, row.get(2)?)?;
        bytes += payload.len();
        if bytes > bytes_max && !batch.is_empty() {
            break;
        }
        batch.push(Stored { position: unsigned(row.get(0)?), event, payload });
    }
    Ok(batch)
}

fn checked(crc: u32, payload: Vec<u8>) -> Result<(Event, Vec<u8>), JournalError> {
    if crc32fast::hash(&payload) != crc {
        return Err(JournalError::Damaged("an event's checksum is wrong".to_owned()));
    }
    match wire::decode(&payload) {
        Ok(event) => Ok((event, payload)),
        Err(error) => Err(JournalError::Damaged(error.to_string())),
    }
}

fn count(connection: &Connection) -> Result<Pending, JournalError> {
    let sql = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM events";
    let (events, bytes): (i64, i64) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(damage)?;
    Ok(Pending { events: events as u64, bytes: bytes as u64, oldest: oldest(connection)? })
}

fn oldest(connection: &Connection) -> Result<Option<chrono::DateTime<chrono::Utc>>, JournalError> {
    let sql = "SELECT observed_us FROM events ORDER BY position LIMIT 1";
    let observed_us: Option<i64> = connection.query_row(sql, [], |row| row.get(0)).optional().map_err(damage)?;
    Ok(observed_us.and_then(chrono::DateTime::from_timestamp_micros))
}

fn open_loss(connection: &Connection) -> Result<Option<OpenLoss>, JournalError> {
    let sql = "SELECT position, crc, payload FROM events WHERE rank = ? AND fixed = 0 ORDER BY position DESC LIMIT 1";
    let row = connection
        .query_row(sql, [Rank::Loss as u8], |row| Ok((row.get(0).map(unsigned)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(damage)?;
    let Some((position, crc, payload)) = row else { return Ok(None) };
    let (event, _) = checked(crc, payload)?;
    Ok(Some(OpenLoss { position, event }))
}

fn used_pages(connection: &Connection) -> Result<i64, JournalError> {
    let pragma = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    Ok(pragma("PRAGMA page_count")? - pragma("PRAGMA freelist_count")?)
}

/// SQLite has signed numbers only.
fn signed(epoch: Epoch) -> i64 {
    epoch.0 as i64
}

fn unsigned(position: i64) -> Position {
    Position(position as u64)
}

/// Tells a damaged file from a refusing disk.
fn damage(error: rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => JournalError::Damaged(error.to_string()),
        // The schema is not ours: a table is missing, a column is of another type.
        Some(ErrorCode::Unknown) => JournalError::Damaged(error.to_string()),
        None => JournalError::Damaged(error.to_string()),
        _ => JournalError::Sqlite(error),
    }
}

fn damaged(error: JournalError) -> JournalError {
    match error {
        JournalError::Sqlite(error) => damage(error),
        other => other,
    }
}
