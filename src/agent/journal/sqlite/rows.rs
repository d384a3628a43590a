//! The journal's rows: what a transaction does to them.

use std::sync::Arc;

use chrono::DateTime;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Transaction, params};

use super::super::loss::{Cause, OpenLoss, by_epoch, declare, grow, hull, split};
use super::super::{JournalError, Pending, Position, Rank, Stored, breach_change};
use super::PAGE_BYTES;
use super::state::State;
use crate::agent::event_system::Draft;
use crate::event::{Body, Epoch, Event, EventId, Reason, Stamp};
use crate::wire;

/// Room is made for so many events at once.
const EVICTED_AT_ONCE: usize = 64;

pub(super) fn register(
    transaction: &Transaction<'_>,
    state: &mut State,
    draft: Draft,
) -> Result<Arc<Event>, JournalError> {
    let id = EventId { epoch: state.epoch, seq: state.next_seq };
    let event = Arc::new(Event { id, stamp: draft.stamp, body: draft.body });
    state.next_seq += 1;
    insert(transaction, state, &event)?;
    keep_breach(transaction, &event)?;
    Ok(event)
}

pub(super) fn insert(transaction: &Transaction<'_>, state: &mut State, event: &Event) -> Result<(), JournalError> {
    let position = Position(state.next_position);
    state.next_position += 1;
    let payload = wire::to_json(event);
    let [epoch, seq, rank, observed_us] = columns(event);
    transaction.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![
            position.0 as i64,
            epoch,
            seq,
            rank,
            observed_us,
            event_crc([epoch, seq, rank, observed_us], &payload),
            payload
        ],
    )?;
    if matches!(event.body, Body::Loss(_)) {
        state.open_loss = Some(OpenLoss { position, event: event.clone() });
    }
    state.pending.events += 1;
    state.pending.bytes += payload.len() as u64;
    state.pending.oldest.get_or_insert(event.stamp.observed_at);
    state.spans.add(event.id);
    state.declared.extend(hull(&event.body).map(|hull| (event.id, hull)));
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
    lose(transaction, state, &lost, (&Reason::Evicted).into(), stamp)
}

/// Declares that events are lost, which were taken.
pub(super) fn lose(
    transaction: &Transaction<'_>,
    state: &mut State,
    ids: &[EventId],
    cause: Cause<'_>,
    stamp: &Stamp,
) -> Result<(), JournalError> {
    find_oldest(transaction, state)?;
    for (epoch, ids) in by_epoch(ids) {
        match grow(&mut state.open_loss, epoch, &ids, cause) {
            Some(OpenLoss { position, event }) => rewrite(transaction, &mut state.pending, *position, event)?,
            None => {
                let body = Body::Loss(declare(epoch, &ids, cause));
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
    let row = params![event_crc(columns(event), &payload), payload, position.0 as i64];
    transaction.execute("UPDATE events SET crc = ?, payload = ? WHERE position = ?", row)?;
    Ok(())
}

/// The open declaration grows no more; what of it one event does not carry gets events of its own.
pub(super) fn fix_loss(transaction: &Transaction<'_>, state: &mut State) -> Result<(), JournalError> {
    if let Some(OpenLoss { position, mut event }) = state.open_loss.take() {
        state.declared.extend(hull(&event.body).map(|hull| (event.id, hull)));
        let rest = split(&mut event);
        if !rest.is_empty() {
            rewrite(transaction, &mut state.pending, position, &event)?;
        }
        for draft in rest {
            register(transaction, state, draft)?;
        }
    }
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
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let Some((epoch, seq, bytes)) = transaction.query_row(sql, [position.0 as i64], row).optional()? else {
        return Ok(None);
    };
    let id = EventId { epoch: Epoch(epoch as u64), seq: seq as u64 };
    state.handed.remove(&id);
    state.spans.take(id);
    state.declared.remove(&id);
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

/// The events after `after`, as many as fit.
///
/// # Errors
/// [`JournalError::Damaged`] where one of them is not what was written.
pub(super) fn read(
    connection: &Connection,
    after: Position,
    events_max: usize,
    bytes_max: usize,
) -> Result<Vec<Stored>, JournalError> {
    let sql = format!("SELECT {EVENT} FROM events WHERE position > ? ORDER BY position LIMIT ?");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params![after.0 as i64, events_max as i64])?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let position = unsigned(row.get(0)?);
        let Some((event, payload)) = whole_event(row) else {
            return Err(JournalError::Damaged(format!("the event at {} is not what was written", position.0)));
        };
        bytes += payload.len();
        if bytes > bytes_max && !batch.is_empty() {
            break;
        }
        batch.push(Stored { position, event: event.into(), payload: Some(payload) });
    }
    Ok(batch)
}

/// What [`whole_event`] reads of a row.
pub(super) const EVENT: &str = "position, epoch, seq, rank, observed_us, crc, payload";

/// The event of a row of `events`, and its JSON, if all of the row is what was written.
pub(super) fn whole_event(row: &Row<'_>) -> Option<(Event, Vec<u8>)> {
    let column = |at| row.get::<_, i64>(at).ok();
    let (epoch, seq, payload) = (column(1)?, column(2)?, row.get::<_, Vec<u8>>(6).ok()?);
    if column(5)? != event_crc([epoch, seq, column(3)?, column(4)?], &payload) {
        return None;
    }
    let event = wire::from_json(&payload).ok()?;
    (signed(event.id.epoch) == epoch && event.id.seq.cast_signed() == seq).then_some((event, payload))
}

/// `epoch, seq, rank, observed_us`.
fn columns(event: &Event) -> [i64; 4] {
    let observed_us = event.stamp.observed_at.timestamp_micros();
    [signed(event.id.epoch), event.id.seq.cast_signed(), Rank::of(&event.body) as i64, observed_us]
}

/// Of the [`columns`] and the payload.
pub(in crate::agent::journal) fn event_crc(columns: [i64; 4], payload: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    columns.iter().for_each(|column| hasher.update(&column.to_le_bytes()));
    hasher.update(payload);
    hasher.finalize().into()
}

/// The event of a row, if it is what was written: its checksum stands at `column`, its payload behind it.
pub(super) fn whole(row: &Row<'_>, column: usize) -> Option<(Event, Vec<u8>)> {
    let (crc, payload): (i64, Vec<u8>) = (row.get(column).ok()?, row.get(column + 1).ok()?);
    if i64::from(crc32fast::hash(&payload)) != crc {
        return None;
    }
    Some((wire::from_json(&payload).ok()?, payload))
}

/// After some were taken.
pub(super) fn find_oldest(connection: &Connection, state: &mut State) -> Result<(), JournalError> {
    let sql = "SELECT epoch, seq, observed_us FROM events ORDER BY position LIMIT 1";
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let oldest = connection.query_row(sql, [], row).optional()?;
    if let Some((epoch, seq, _)) = oldest {
        state.spans.begin_at(EventId { epoch: Epoch(epoch.cast_unsigned()), seq: seq.cast_unsigned() });
    }
    state.pending.oldest = oldest.and_then(|(_, _, observed_us)| DateTime::from_timestamp_micros(observed_us));
    Ok(())
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
