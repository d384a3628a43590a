//! The journal's rows: what a transaction does to them, and what memory knows of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, params};

use super::super::loss::{OpenLoss, by_epoch, declare, grow, split};
use super::super::{JournalError, Pending, Position, Rank, Stored, breach_change, random_epoch};
use super::PAGE_BYTES;
use crate::agent::event_system::Draft;
use crate::event::{Body, Epoch, Event, EventId, Stamp};
use crate::wire;

/// Room is made for so many events at once.
const EVICTED_AT_ONCE: usize = 64;

/// A billion positions a second would come to it in a century.
const POSITION_MAX: i64 = i64::MAX >> 1;

/// What memory knows of the database; replaced as a whole when a transaction is committed.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) next_position: u64,
    pub(super) pending: Pending,
    pub(super) open_loss: Option<OpenLoss>,
    /// The last one that was written, for a declaration that comes between events.
    pub(super) stamp: Option<Stamp>,
    /// Where the events stand that were handed out.
    pub(super) handed: BTreeMap<EventId, Position>,
}

impl State {
    pub(super) fn load(connection: &Connection, machine_id: &str) -> Result<Self, JournalError> {
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
        let sql = "SELECT coalesce(min(position), 1), coalesce(max(position), 0), max(seq) FILTER (WHERE epoch = ?) FROM events";
        let (first, last, seq): (i64, i64, Option<i64>) = connection
            .query_row(sql, [signed(epoch)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(damage)?;
        if first < 1 || last > POSITION_MAX || next_seq < 1 || seq.is_some_and(|seq| seq >= next_seq as i64) {
            return Err(JournalError::Damaged("positions or numbers are not those that were given".to_owned()));
        }
        Ok(Self {
            epoch,
            next_seq,
            next_position: last as u64 + 1,
            pending: count(connection)?,
            open_loss: open_loss(connection)?,
            stamp: None,
            handed: BTreeMap::new(),
        })
    }
}

pub(super) fn register(transaction: &Transaction<'_>, state: &mut State, draft: Draft) -> Result<Event, JournalError> {
    let event = Event { id: EventId { epoch: state.epoch, seq: state.next_seq }, stamp: draft.stamp, body: draft.body };
    state.next_seq += 1;
    insert(transaction, state, &event)?;
    transaction.execute("UPDATE meta SET next_seq = ?", [state.next_seq as i64])?;
    keep_breach(transaction, &event)?;
    Ok(event)
}

pub(super) fn insert(transaction: &Transaction<'_>, state: &mut State, event: &Event) -> Result<(), JournalError> {
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

pub(super) fn keep_breach(transaction: &Transaction<'_>, event: &Event) -> Result<(), JournalError> {
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
pub(super) fn evict(
    transaction: &Transaction<'_>,
    state: &mut State,
    pages_max: i64,
    stamp: &Stamp,
) -> Result<(), JournalError> {
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
    lose(transaction, state, &lost, "evicted", stamp)
}

/// Declares that events are lost, which were taken.
pub(super) fn lose(
    transaction: &Transaction<'_>,
    state: &mut State,
    ids: &[EventId],
    reason: &str,
    stamp: &Stamp,
) -> Result<(), JournalError> {
    state.pending.oldest = oldest(transaction)?;
    for (epoch, ids) in by_epoch(ids) {
        match grow(&mut state.open_loss, epoch, &ids, reason) {
            Some(OpenLoss { position, event }) => rewrite(transaction, &mut state.pending, *position, event)?,
            None => {
                let body = Body::Loss(declare(epoch, &ids, reason));
                register(transaction, state, Draft { stamp: stamp.clone(), body })?;
            }
        }
    }
    Ok(())
}

fn rewrite(
    transaction: &Transaction<'_>,
    pending: &mut Pending,
    position: Position,
    event: &Event,
) -> Result<(), JournalError> {
    let payload = wire::to_json(event);
    let sql = "SELECT length(payload) FROM events WHERE position = ?";
    let before: i64 = transaction.query_row(sql, [position.0 as i64], |row| row.get(0))?;
    pending.bytes = (pending.bytes + payload.len() as u64).saturating_sub(before as u64);
    let row = params![crc32fast::hash(&payload), payload, position.0 as i64];
    transaction.execute("UPDATE events SET crc = ?, payload = ? WHERE position = ?", row)?;
    Ok(())
}

/// The open declaration grows no more; what of it one event does not carry gets events of its own.
pub(super) fn fix_loss(transaction: &Transaction<'_>, state: &mut State) -> Result<(), JournalError> {
    if let Some(OpenLoss { position, mut event }) = state.open_loss.take() {
        let rest = split(&mut event);
        if !rest.is_empty() {
            rewrite(transaction, &mut state.pending, position, &event)?;
        }
        for draft in rest {
            register(transaction, state, draft)?;
        }
    }
    transaction.execute("UPDATE events SET fixed = 1 WHERE fixed = 0", [])?;
    state.open_loss = None;
    Ok(())
}

/// Deletes the event at `position`; its identity.
pub(super) fn take(
    transaction: &Transaction<'_>,
    state: &mut State,
    position: Position,
) -> Result<Option<EventId>, JournalError> {
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

pub(super) fn find(
    transaction: &Transaction<'_>,
    state: &State,
    id: EventId,
) -> Result<Option<Position>, JournalError> {
    if let Some(position) = state.handed.get(&id) {
        return Ok(Some(*position));
    }
    let sql = "SELECT position FROM events WHERE epoch = ? AND seq = ?";
    let row = transaction.query_row(sql, params![signed(id.epoch), id.seq as i64], |row| row.get(0).map(unsigned));
    Ok(row.optional()?)
}

/// The events after `after`, as many as fit, and where those stand among them that can't be read.
pub(super) fn read(
    connection: &Connection,
    after: Position,
    events_max: usize,
    bytes_max: usize,
) -> Result<(Vec<Stored>, Vec<Position>), JournalError> {
    let sql = "SELECT position, crc, payload FROM events WHERE position > ? ORDER BY position LIMIT ?";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![after.0 as i64, events_max as i64])?;
    let (mut batch, mut unreadable, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let position = unsigned(row.get(0)?);
        let Some((event, payload)) = whole(row, 1) else {
            unreadable.push(position);
            continue;
        };
        bytes += payload.len();
        if bytes > bytes_max && !batch.is_empty() {
            break;
        }
        batch.push(Stored { position, event, payload });
    }
    Ok((batch, unreadable))
}

/// The event of a row, if it is what was written: its checksum stands at `column`, its payload behind it.
pub(super) fn whole(row: &rusqlite::Row<'_>, column: usize) -> Option<(Event, Vec<u8>)> {
    let (crc, payload): (i64, Vec<u8>) = (row.get(column).ok()?, row.get(column + 1).ok()?);
    if i64::from(crc32fast::hash(&payload)) != crc {
        return None;
    }
    Some((wire::from_json(&payload).ok()?, payload))
}

pub(super) fn count(connection: &Connection) -> Result<Pending, JournalError> {
    let sql = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM events";
    let (events, bytes): (i64, i64) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(damage)?;
    Ok(Pending { events: events as u64, bytes: bytes as u64, oldest: oldest(connection)? })
}

pub(super) fn oldest(connection: &Connection) -> Result<Option<DateTime<Utc>>, JournalError> {
    let sql = "SELECT observed_us FROM events ORDER BY position LIMIT 1";
    let observed_us: Option<i64> = connection.query_row(sql, [], |row| row.get(0)).optional().map_err(damage)?;
    Ok(observed_us.and_then(DateTime::from_timestamp_micros))
}

pub(super) fn open_loss(connection: &Connection) -> Result<Option<OpenLoss>, JournalError> {
    let sql = "SELECT position, crc, payload FROM events WHERE rank = ? AND fixed = 0 ORDER BY position DESC LIMIT 1";
    let row = connection
        .query_row(sql, [Rank::Loss as u8], |row| Ok((row.get(0).map(unsigned)?, whole(row, 1))))
        .optional()
        .map_err(damage)?;
    // One that can't be read grows no more; it is found and declared when it is to be handed out.
    Ok(row.and_then(|(position, whole)| Some(OpenLoss { position, event: whole?.0 })))
}

pub(super) fn used_pages(connection: &Connection) -> Result<i64, JournalError> {
    let pragma = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    Ok(pragma("PRAGMA page_count")? - pragma("PRAGMA freelist_count")?)
}

/// SQLite has signed numbers only.
pub(super) fn signed(epoch: Epoch) -> i64 {
    epoch.0 as i64
}

pub(super) fn unsigned(position: i64) -> Position {
    Position(position as u64)
}

/// Tells a damaged file from a refusing disk.
pub(super) fn damage(error: rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        // The last two: the schema is not ours. A table is missing, a column is of another type.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) | None => {
            JournalError::Damaged(error.to_string())
        }
        _ => JournalError::Sqlite(error),
    }
}

pub(super) fn damaged(error: JournalError) -> JournalError {
    match error {
        JournalError::Sqlite(error) => damage(error),
        other => other,
    }
}
