//! One batch, one transaction.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::{
    Connection, Error, ErrorCode, OptionalExtension as _, Statement, Transaction, TransactionBehavior, params,
};

use super::{samples, text, totals};
use crate::consumer::batch::Batch;
use crate::consumer::store::rows::{self, Count, Letter, Renewed, Row, Table};
use crate::consumer::store::sequences::Range;
use crate::consumer::store::{Applied, Fault};
use crate::event::{Body, Epoch, Event, Reason};
use crate::failpoints;

const INSERT: &str = "
    INSERT INTO events (agent, epoch, seq, observed_at, kind, stored_at, kafka_topic, kafka_partition, kafka_offset, boot_id,
        monotonic_ms, clock_synced, breach_id, started_at, raised_at, ended_at, limit_name, severity, interface, ifindex,
        direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, measured_ms, excess_bytes, speed_bps, lost_epoch,
        ranges, version, reason, detail, raw)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
        ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35)
    ON CONFLICT (agent, epoch, seq, observed_at) DO NOTHING";

/// The order of `rows::by_rank`.
const BREACH: &str = "
    INSERT INTO breach_state (agent, breach_id, epoch, seq, observed_at, state, started_at, raised_at, ended_at, limit_name,
        severity, interface, direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, measured_ms, excess_bytes, reason,
        detail)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
    ON CONFLICT (agent, breach_id) DO UPDATE
    SET epoch = excluded.epoch, seq = excluded.seq, observed_at = excluded.observed_at, state = excluded.state,
        started_at = excluded.started_at, raised_at = excluded.raised_at, ended_at = excluded.ended_at,
        limit_name = excluded.limit_name, severity = excluded.severity, interface = excluded.interface,
        direction = excluded.direction, limit_bps = excluded.limit_bps, rate_bps = excluded.rate_bps,
        peak_bps = excluded.peak_bps, mean_bps = excluded.mean_bps, duration_ms = excluded.duration_ms,
        measured_ms = excluded.measured_ms, excess_bytes = excluded.excess_bytes, reason = excluded.reason,
        detail = excluded.detail
    WHERE CASE WHEN excluded.epoch = breach_state.epoch
               THEN (excluded.state = 'cleared', excluded.duration_ms, excluded.seq, excluded.observed_at)
                    > (breach_state.state = 'cleared', breach_state.duration_ms, breach_state.seq, breach_state.observed_at)
               ELSE (excluded.state = 'cleared', excluded.duration_ms, excluded.observed_at, excluded.epoch)
                    > (breach_state.state = 'cleared', breach_state.duration_ms, breach_state.observed_at, breach_state.epoch) END";

/// Stores `batch`, whole or not at all.
pub(super) fn apply(connection: &mut Connection, batch: &Batch, now: DateTime<Utc>) -> Result<Applied, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let floors = guard(&transaction, batch)?;
    let mut applied = Applied { floors, ..Applied::default() };
    let (mut rows, mut letters) = rows::split(batch, &applied.floors);
    write(&transaction, &batch.topic, &mut rows, &mut letters, &mut applied, &text(now))?;
    put_letters(&transaction, batch, &letters, &text(now))?;
    applied.refused = letters.iter().map(Letter::refused).collect();
    for (&partition, slice) in &batch.slices {
        for gap in &slice.gaps {
            put_gap(&transaction, &batch.topic, partition, slice.generation, *gap)?;
        }
    }
    advance(&transaction, batch, &applied.floors, &text(now))?;
    failpoints::pass("database-before-commit");
    transaction.commit()?;
    failpoints::pass("database-after-commit");
    Ok(applied)
}

/// Whether the row is what SQLite does not want.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

/// Guard 1: where the database stands; nobody else writes until we are done.
fn guard(transaction: &Transaction<'_>, batch: &Batch) -> Result<BTreeMap<i32, i64>, Fault> {
    let mut floors = BTreeMap::new();
    let mut statement =
        transaction.prepare("SELECT next, generation FROM kafka_offsets WHERE topic = ?1 AND partition = ?2")?;
    for (&partition, slice) in &batch.slices {
        let moved = |what: String| Err(Fault::Moved(format!("{}[{partition}] {what}", batch.topic)));
        let found = statement
            .query_row(params![batch.topic, partition], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i32>(1)?)))
            .optional()?;
        match found {
            None => return moved("has no row in kafka_offsets any more".to_owned()),
            Some((_, generation)) if generation != slice.generation => {
                return moved("was made anew, as another consumer found".to_owned());
            }
            Some((next, _)) if next < slice.from => {
                return moved(format!("stands at {next} in the database, before {} which was read", slice.from));
            }
            Some((next, _)) => floors.insert(partition, next),
        };
    }
    Ok(floors)
}

/// All tables that follow from the rows; those that SQLite refuses become letters.
pub(super) fn write<'a>(
    transaction: &Transaction<'_>,
    topic: &str,
    rows: &mut Vec<Row<'a>>,
    letters: &mut Vec<Letter<'a>>,
    applied: &mut Applied,
    now: &str,
) -> Result<(), Fault> {
    let mut new = Vec::with_capacity(rows.len());
    let mut refusal = None;
    let mut events = transaction.prepare(INSERT)?;
    let mut samples = transaction.prepare(samples::INSERT)?;
    let mut insert = |row: &Row<'_>| match &row.event.body {
        Body::Sample(sample) => samples::insert(&mut samples, topic, row, sample, now),
        _ => insert(&mut events, topic, row, now),
    };
    rows.retain(|row| match insert(row) {
        Ok(is_new) => {
            new.push(is_new);
            true
        }
        Err(error) if is_refusal(&error) => {
            letters.push(Letter::new(row.record, row.partition, &error.to_string()));
            false
        }
        Err(error) => {
            refusal.get_or_insert(error);
            true
        }
    });
    if let Some(error) = refusal {
        return Err(error.into());
    }
    applied.inserted = new.iter().filter(|new| **new).count() as u64;
    let seen = rows::ranges(rows);
    let known = known_ranges(transaction, &seen)?;
    let mut doubled: Vec<&Event> = rows::twins(rows, &known);
    for (row, is_new) in rows.iter().zip(&new) {
        if *is_new && rows::was_seen(row.event, &known) && has_other_time(transaction, row.event)? {
            doubled.push(row.event);
        }
    }
    doubled.sort_by_key(|event| (&event.stamp.agent, event.id));
    doubled.dedup_by_key(|event| (&event.stamp.agent, event.id));
    applied.doubled = doubled.iter().map(|event| format!("{} {}", event.stamp.agent, event.id)).collect();
    let doubled: Vec<(&str, Epoch, i64)> =
        doubled.iter().map(|e| (e.stamp.agent.as_str(), e.id.epoch, e.id.seq.cast_signed())).collect();
    put_ranges(transaction, rows::renewed(&known, seen, &doubled), now)?;
    rows::mark_latest(rows);
    let mut statement = transaction.prepare(BREACH)?;
    for row in rows::latest(rows) {
        put_breach(&mut statement, row)?;
    }
    totals::put(transaction, rows, applied)?;
    put_losses(transaction, rows, now)?;
    Ok(())
}

fn insert(statement: &mut Statement<'_>, topic: &str, row: &Row<'_>, now: &str) -> Result<bool, Error> {
    let Event { id, stamp, body } = row.event;
    let (breach, loss, link, lifecycle) = match body {
        Body::BreachRaised(breach) | Body::BreachUpdated(breach) | Body::BreachCleared(breach) => {
            (Some(breach), None, None, None)
        }
        Body::Loss(loss) => (None, Some(loss), None, None),
        Body::LinkAdded(link) | Body::LinkRemoved(link) | Body::LinkChanged(link) => (None, None, Some(link), None),
        Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) => (None, None, None, Some(lifecycle)),
        // A sample has a table of its own.
        Body::Sample(_) | Body::Unknown(_) => (None, None, None, None),
    };
    let changed = statement.execute(params![
        stamp.agent.as_str(),
        id.epoch.to_string(),
        id.seq.cast_signed(),
        text(stamp.observed_at),
        body.kind(),
        now,
        topic,
        row.partition,
        row.record.offset,
        stamp.boot_id,
        stamp.monotonic_ms.cast_signed(),
        stamp.clock_synced,
        breach.map(|breach| breach.breach_id.as_str()),
        breach.map(|breach| text(breach.started_at)),
        breach.map(|breach| text(breach.raised_at)),
        breach.map(|breach| text(breach.ended_at)),
        breach.map(|breach| breach.limit_name.as_str()),
        breach.map(|breach| breach.severity.as_str()),
        breach.map(|breach| breach.interface.as_str()).or(link.map(|link| link.interface.as_str())),
        breach.and_then(|breach| breach.ifindex).or(link.map(|link| link.ifindex)),
        breach.map(|breach| breach.direction.as_str()),
        breach.map(|breach| breach.limit_bps.cast_signed()),
        breach.map(|breach| breach.rate_bps.cast_signed()),
        breach.map(|breach| breach.peak_bps.cast_signed()),
        breach.map(|breach| breach.mean_bps.cast_signed()),
        breach.map(|breach| breach.duration_ms.cast_signed()),
        breach.map(|breach| breach.measured_ms.cast_signed()),
        breach.map(|breach| breach.excess_bytes.cast_signed()),
        link.and_then(|link| link.speed_bps).map(u64::cast_signed),
        loss.map(|loss| loss.epoch.to_string()),
        loss.map(|loss| serde_json::to_string(&loss.ranges).expect("whole numbers")),
        lifecycle.map(|lifecycle| &lifecycle.version),
        body.reason().map(Reason::as_str),
        body.detail(),
        row.record.raw.as_deref(),
    ])?;
    Ok(changed > 0)
}

fn known_ranges<'a>(
    transaction: &Transaction<'_>,
    seen: &BTreeMap<Count<'a>, Vec<Range>>,
) -> Result<BTreeMap<Count<'a>, Vec<Range>>, Error> {
    let mut statement = transaction.prepare(
        "SELECT first, last, began, doubled FROM agent_sequences
         WHERE agent = ?1 AND epoch = ?2 AND first - 1 <= ?4 AND last >= ?3 - 1 ORDER BY first",
    )?;
    let mut known: BTreeMap<Count<'a>, Vec<Range>> = BTreeMap::new();
    for (&(agent, epoch), ranges) in seen {
        let of_one = known.entry((agent, epoch)).or_default();
        for range in ranges {
            let found = statement.query_map(params![agent, epoch.to_string(), range.first, range.last], |row| {
                let began: String = row.get(2)?;
                let began = DateTime::parse_from_rfc3339(&began).ok().map(|time| time.to_utc());
                Ok(Range { first: row.get(0)?, last: row.get(1)?, began, doubled: row.get(3)? })
            })?;
            for range in found {
                let range = range?;
                if !of_one.contains(&range) {
                    of_one.push(range);
                }
            }
        }
    }
    Ok(known)
}

fn has_other_time(transaction: &Transaction<'_>, event: &Event) -> Result<bool, Error> {
    let table = Table::of(event).name();
    transaction
        .prepare(&format!(
            "SELECT EXISTS (SELECT 1 FROM {table} WHERE agent = ?1 AND epoch = ?2 AND seq = ?3 AND observed_at <> ?4)"
        ))?
        .query_row(
            params![
                event.stamp.agent.as_str(),
                event.id.epoch.to_string(),
                event.id.seq.cast_signed(),
                text(event.stamp.observed_at)
            ],
            |row| row.get(0),
        )
}

fn put_ranges(transaction: &Transaction<'_>, (standing, gone): Renewed<'_>, now: &str) -> Result<(), Error> {
    let mut drop = transaction.prepare("DELETE FROM agent_sequences WHERE agent = ?1 AND epoch = ?2 AND first = ?3")?;
    for ((agent, epoch), first) in gone {
        drop.execute(params![agent, epoch.to_string(), first])?;
    }
    let mut put = transaction.prepare(
        "INSERT INTO agent_sequences (agent, epoch, first, last, began, doubled) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (agent, epoch, first) DO UPDATE
         SET last = excluded.last, began = excluded.began, doubled = excluded.doubled",
    )?;
    for ((agent, epoch), range) in standing {
        let began = range.began.map_or_else(|| now.to_owned(), text);
        put.execute(params![agent, epoch.to_string(), range.first, range.last, began, range.doubled])?;
    }
    Ok(())
}

fn put_breach(statement: &mut Statement<'_>, row: &Row<'_>) -> Result<(), Error> {
    let Some(breach) = rows::breach(row) else { return Ok(()) };
    let Event { id, stamp, .. } = row.event;
    statement.execute(params![
        stamp.agent.as_str(),
        breach.breach_id.as_str(),
        id.epoch.to_string(),
        id.seq.cast_signed(),
        text(stamp.observed_at),
        if rows::is_cleared(row.event) { "cleared" } else { "open" },
        text(breach.started_at),
        text(breach.raised_at),
        text(breach.ended_at),
        breach.limit_name.as_str(),
        breach.severity.as_str(),
        breach.interface.as_str(),
        breach.direction.as_str(),
        breach.limit_bps.cast_signed(),
        breach.rate_bps.cast_signed(),
        breach.peak_bps.cast_signed(),
        breach.mean_bps.cast_signed(),
        breach.duration_ms.cast_signed(),
        breach.measured_ms.cast_signed(),
        breach.excess_bytes.cast_signed(),
        breach.reason.as_ref().map(Reason::as_str),
        breach.detail,
    ])?;
    Ok(())
}

fn put_losses(transaction: &Transaction<'_>, rows: &[Row<'_>], now: &str) -> Result<(), Error> {
    let mut put = transaction.prepare(
        "INSERT INTO losses (agent, epoch, first, last, loss_epoch, loss_seq, observed_at, stored_at, reason, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
    )?;
    for lost in rows::losses(rows) {
        let Event { id, stamp, .. } = lost.event;
        let (epoch, own) = (lost.epoch.to_string(), id.epoch.to_string());
        let (agent, seq, observed_at) = (stamp.agent.as_str(), id.seq.cast_signed(), text(stamp.observed_at));
        let (first, last, reason, detail) = (lost.first, lost.last, lost.reason, lost.detail);
        put.execute(params![agent, epoch, first, last, own, seq, observed_at, now, reason, detail])?;
    }
    Ok(())
}

fn put_letters(transaction: &Transaction<'_>, batch: &Batch, letters: &[Letter<'_>], now: &str) -> Result<(), Error> {
    let mut put = transaction.prepare(
        "INSERT INTO dead_letters (topic, partition, generation, \"offset\", key, payload, error, stored_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    )?;
    for Letter { record, partition, error } in letters {
        let generation = batch.slices[partition].generation;
        put.execute(params![
            batch.topic,
            partition,
            generation,
            record.offset,
            record.key,
            record.payload,
            error,
            now
        ])?;
    }
    Ok(())
}

pub(super) fn put_gap(
    transaction: &Transaction<'_>,
    topic: &str,
    partition: i32,
    generation: i32,
    (first, last): (i64, i64),
) -> Result<(), Error> {
    transaction.execute(
        "INSERT INTO kafka_gaps (topic, partition, generation, first, last, noticed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) ON CONFLICT DO NOTHING",
        params![topic, partition, generation, first, last],
    )?;
    Ok(())
}

/// Guard 3: from the old value only.
fn advance(transaction: &Transaction<'_>, batch: &Batch, floors: &BTreeMap<i32, i64>, now: &str) -> Result<(), Fault> {
    let mut statement = transaction.prepare(
        "UPDATE kafka_offsets
         SET next = ?4, updated_at = ?8,
             last_offset = coalesce(?5, last_offset), last_time = coalesce(?6, last_time),
             last_digest = coalesce(?7, last_digest), anchor_offset = coalesce(anchor_offset, ?5),
             anchor_time = coalesce(anchor_time, ?6), anchor_digest = coalesce(anchor_digest, ?7)
         WHERE topic = ?1 AND partition = ?2 AND next = ?3",
    )?;
    for (partition, slice) in batch.slices.iter().filter(|(partition, slice)| floors[partition] < slice.to) {
        let last = slice.last();
        let moved = statement.execute(params![
            batch.topic,
            partition,
            floors[partition],
            slice.to,
            last.map(|mark| mark.offset),
            last.map(|mark| mark.timestamp_ms),
            last.map(|mark| mark.digest),
            now
        ])?;
        if moved == 0 {
            return Err(Fault::Moved(format!("{}[{partition}]: another consumer took it", batch.topic)));
        }
    }
    Ok(())
}
