use rusqlite::Row;

use crate::agent::journal::{EvictionPriority, Position};
use crate::message::{Epoch, Event};
use crate::wire;

pub(super) const EVENT: &str = "position, epoch, seq, rank, observed_us, crc, payload";

/// Returns event and JSON of a row of `events`; `None` if a checksum is wrong.
pub(super) fn verified_event(row: &Row<'_>) -> Option<(Event, Vec<u8>)> {
    let column = |at| row.get::<_, i64>(at).ok();
    let (epoch, seq, payload) = (column(1)?, column(2)?, row.get::<_, Vec<u8>>(6).ok()?);
    if column(5)? != event_crc([epoch, seq, column(3)?, column(4)?], &payload) {
        return None;
    }
    let event = wire::from_json(&payload).ok()?;
    (signed(event.id.epoch) == epoch && event.id.seq.cast_signed() == seq).then_some((event, payload))
}

pub(super) fn columns(event: &Event) -> [i64; 4] {
    let observed_us = event.stamp.observed_at.timestamp_micros();
    [signed(event.id.epoch), event.id.seq.cast_signed(), EvictionPriority::of(&event.body) as i64, observed_us]
}

pub(in crate::agent::journal) fn event_crc(columns: [i64; 4], payload: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    columns.iter().for_each(|column| hasher.update(&column.to_le_bytes()));
    hasher.update(payload);
    hasher.finalize().into()
}

/// Returns event and JSON of a row of `open_breaches`, whose CRC is in `column`, before the payload.
pub(super) fn verified_breach(row: &Row<'_>, column: usize) -> Option<(Event, Vec<u8>)> {
    let (crc, payload): (i64, Vec<u8>) = (row.get(column).ok()?, row.get(column + 1).ok()?);
    if i64::from(crc32fast::hash(&payload)) != crc {
        return None;
    }
    Some((wire::from_json(&payload).ok()?, payload))
}

pub(super) fn signed(epoch: Epoch) -> i64 {
    epoch.0 as i64
}

pub(super) fn unsigned(position: i64) -> Position {
    Position(position as u64)
}
