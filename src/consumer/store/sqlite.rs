//! SQLite: one file, nothing to install, the same tables.
//!
//! One writer at a time is SQLite's own rule (`BEGIN IMMEDIATE`), which makes the guards cheap; they hold all the same, since
//! several consumers may share the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rusqlite::{
    Connection, Error, ErrorCode, OptionalExtension as _, Statement, Transaction, TransactionBehavior, params,
};

use super::rows::{self, Count, Letter, Row};
use super::sequences::{self, Range};
use super::{Applied, Fault, Retention, Retired, Store};
use crate::consumer::batch::{Batch, Mark};
use crate::consumer::place::Place;
use crate::event::{Body, Epoch, Event};

/// A store in a SQLite file, opened when it is first needed and again after a fault.
pub(super) struct Sqlite {
    path: PathBuf,
    connection: Option<Connection>,
}

/// How long another writer is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// Events and dead letters are dropped in pieces, so that no transaction grows without bound.
const RETIRE_ROWS: u32 = 10_000;

/// The schema's steps; `user_version` counts those taken.
const MIGRATIONS: [&str; 1] = [include_str!("sqlite/v1.sql")];

const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -8192;
    PRAGMA foreign_keys = ON;";

const INSERT: &str = "
    INSERT INTO events (agent, epoch, seq, observed_at, kind, stored_at, topic, partition, \"offset\", boot_id, monotonic_ms,
        clock_synced, breach_id, raised_at, \"limit\", severity, interface, ifindex, direction, limit_bps, rate_bps, peak_bps,
        mean_bps, duration_ms, measured_ms, excess_bytes, speed_bps, lost_epoch, ranges, version, reason, raw)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
        ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32)
    ON CONFLICT (agent, epoch, seq, observed_at) DO NOTHING";

/// The order of `rows::rank`.
const BREACH: &str = "
    INSERT INTO breach_state (agent, breach_id, epoch, seq, observed_at, cleared, raised_at, \"limit\", severity, interface,
        direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, measured_ms, excess_bytes, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
    ON CONFLICT (agent, breach_id) DO UPDATE
    SET epoch = excluded.epoch, seq = excluded.seq, observed_at = excluded.observed_at, cleared = excluded.cleared,
        raised_at = excluded.raised_at, \"limit\" = excluded.\"limit\", severity = excluded.severity,
        interface = excluded.interface, direction = excluded.direction, limit_bps = excluded.limit_bps,
        rate_bps = excluded.rate_bps, peak_bps = excluded.peak_bps, mean_bps = excluded.mean_bps,
        duration_ms = excluded.duration_ms, measured_ms = excluded.measured_ms,
        excess_bytes = excluded.excess_bytes, reason = excluded.reason
    WHERE (excluded.cleared, excluded.duration_ms, excluded.epoch, excluded.seq, excluded.observed_at)
        > (breach_state.cleared, breach_state.duration_ms, breach_state.epoch, breach_state.seq, breach_state.observed_at)";

const PLACE: &str = "
    SELECT next, generation, cluster, last_offset, last_time, last_digest, anchor_offset, anchor_time, anchor_digest, partition
    FROM kafka_offsets WHERE topic = ?1";

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = format!("SQLite: {error}");
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::PermissionDenied) => {
                Self::Misconfigured(text)
            }
            _ => Self::Away(text),
        }
    }
}

/// Whether the row is what SQLite does not want.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

impl Sqlite {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: None }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.path).map_err(|fault| match fault {
                Fault::Away(text) => Fault::Away(format!("{}: {text}", self.path.display())),
                Fault::Misconfigured(text) => Fault::Misconfigured(format!("{}: {text}", self.path.display())),
                moved @ Fault::Moved(_) => moved,
            })?,
        };
        let result = work(&mut connection);
        if matches!(result, Ok(_) | Err(Fault::Moved(_))) {
            self.connection = Some(connection);
        }
        result
    }
}

fn open(path: &Path) -> Result<Connection, Fault> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(SETTINGS)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let taken = taken as usize;
    if taken > MIGRATIONS.len() {
        return Err(Fault::Misconfigured("was written by a newer version of this program".to_owned()));
    }
    for step in &MIGRATIONS[taken..] {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {}", MIGRATIONS.len()))?;
    transaction.commit()?;
    Ok(connection)
}

impl Store for Sqlite {
    fn places(&mut self, topic: &str) -> Result<BTreeMap<i32, Place>, Fault> {
        self.with(|connection| {
            let mut statement = connection.prepare(PLACE)?;
            let rows = statement.query_map([topic], |row| Ok((row.get(9)?, place(row)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn found(&mut self, topic: &str, partition: i32, place: &Place) -> Result<Place, Fault> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO kafka_offsets (topic, partition, next, generation, cluster, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) ON CONFLICT DO NOTHING",
                params![topic, partition, place.next, place.generation, place.cluster],
            )?;
            Ok(connection.query_row(&format!("{PLACE} AND partition = ?2"), params![topic, partition], self::place)?)
        })
    }

    fn replace(
        &mut self,
        topic: &str,
        partition: i32,
        old: &Place,
        new: &Place,
        gap: Option<(i64, i64)>,
    ) -> Result<(), Fault> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let replaced = transaction.execute(
                "UPDATE kafka_offsets
                 SET next = ?3, generation = ?4, cluster = ?5, last_offset = ?6, last_time = ?7, last_digest = ?8,
                     anchor_offset = ?9, anchor_time = ?10, anchor_digest = ?11,
                     updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
                 WHERE topic = ?1 AND partition = ?2 AND next = ?12 AND generation = ?13",
                params![
                    topic,
                    partition,
                    new.next,
                    new.generation,
                    new.cluster,
                    new.last.map(|mark| mark.offset),
                    new.last.map(|mark| mark.timestamp_ms),
                    new.last.map(|mark| mark.digest),
                    new.anchor.map(|mark| mark.offset),
                    new.anchor.map(|mark| mark.timestamp_ms),
                    new.anchor.map(|mark| mark.digest),
                    old.next,
                    old.generation,
                ],
            )?;
            if replaced == 0 {
                return Err(Fault::Moved(format!("{topic}[{partition}]: another consumer was here")));
            }
            if let Some(gap) = gap {
                put_gap(&transaction, topic, partition, new.generation, gap)?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn apply(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Applied, Fault> {
        self.with(|connection| {
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
            transaction.commit()?;
            Ok(applied)
        })
    }

    fn retire(&mut self, retention: &Retention, now: DateTime<Utc>) -> Result<Retired, Fault> {
        self.with(|connection| {
            let mut retired = Retired::default();
            if let Some(before) = before(now, retention.events) {
                let sql = "DELETE FROM events WHERE rowid IN
                           (SELECT rowid FROM events WHERE observed_at < ?1 AND stored_at < ?1 LIMIT ?2)";
                retired.events = in_pieces(connection, sql, &before)?;
            }
            if let Some(before) = before(now, retention.dead_letters) {
                let sql = "DELETE FROM dead_letters WHERE rowid IN
                           (SELECT rowid FROM dead_letters WHERE stored_at < ?1 LIMIT ?2)";
                retired.dead_letters = in_pieces(connection, sql, &before)?;
            }
            Ok(retired)
        })
    }
}

/// As PostgreSQL keeps it: whole microseconds; text that sorts by time.
fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn before(now: DateTime<Utc>, keep: Duration) -> Option<String> {
    now.checked_sub_signed(TimeDelta::from_std(keep).ok()?).map(text)
}

fn in_pieces(connection: &Connection, sql: &str, before: &str) -> Result<u64, Error> {
    let mut all = 0;
    loop {
        let gone = connection.execute(sql, params![before, RETIRE_ROWS])?;
        all += gone as u64;
        if gone < RETIRE_ROWS as usize {
            return Ok(all);
        }
    }
}

fn place(row: &rusqlite::Row<'_>) -> Result<Place, Error> {
    let mark = |first: usize| -> Result<Option<Mark>, Error> {
        let Some(offset) = row.get(first)? else { return Ok(None) };
        Ok(Some(Mark { offset, timestamp_ms: row.get(first + 1)?, digest: row.get(first + 2)? }))
    };
    Ok(Place { next: row.get(0)?, generation: row.get(1)?, cluster: row.get(2)?, last: mark(3)?, anchor: mark(6)? })
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
fn write<'a>(
    transaction: &Transaction<'_>,
    topic: &str,
    rows: &mut Vec<Row<'a>>,
    letters: &mut Vec<Letter<'a>>,
    applied: &mut Applied,
    now: &str,
) -> Result<(), Fault> {
    let mut new = Vec::with_capacity(rows.len());
    let mut refusal = None;
    let mut statement = transaction.prepare(INSERT)?;
    rows.retain(|row| match insert(&mut statement, topic, row, now) {
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
    let mut doubled: Vec<&Event> = rows::twins(rows).collect();
    for (row, is_new) in rows.iter().zip(&new) {
        if *is_new && was_seen(row.event, &known) && has_other_time(transaction, row.event)? {
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
    for row in rows.iter().filter(|row| row.latest) {
        put_breach(&mut statement, row)?;
    }
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
        Body::LinkAdded(link) | Body::LinkRemoved(link) => (None, None, Some(link), None),
        Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) => (None, None, None, Some(lifecycle)),
        Body::Unknown(_) => (None, None, None, None),
    };
    let reason = breach
        .and_then(|breach| breach.reason.as_deref())
        .or(loss.map(|loss| loss.reason.as_str()))
        .or(link.and_then(|link| link.reason.as_deref()))
        .or(lifecycle.and_then(|lifecycle| lifecycle.reason.as_deref()));
    let changed = statement.execute(params![
        stamp.agent,
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
        breach.map(|breach| &breach.breach_id),
        breach.map(|breach| text(breach.raised_at)),
        breach.map(|breach| &breach.limit),
        breach.map(|breach| breach.severity.as_str()),
        breach.map(|breach| &breach.interface).or(link.map(|link| &link.interface)),
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
        reason,
        row.record.raw(),
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

fn was_seen(event: &Event, known: &BTreeMap<Count<'_>, Vec<Range>>) -> bool {
    let known = known.get(&(event.stamp.agent.as_str(), event.id.epoch));
    known.is_some_and(|known| sequences::contain(known, event.id.seq.cast_signed()))
}

fn has_other_time(transaction: &Transaction<'_>, event: &Event) -> Result<bool, Error> {
    transaction
        .prepare(
            "SELECT EXISTS (SELECT 1 FROM events WHERE agent = ?1 AND epoch = ?2 AND seq = ?3 AND observed_at <> ?4)",
        )?
        .query_row(
            params![
                event.stamp.agent,
                event.id.epoch.to_string(),
                event.id.seq.cast_signed(),
                text(event.stamp.observed_at)
            ],
            |row| row.get(0),
        )
}

type Renewed<'a> = (Vec<(Count<'a>, Range)>, Vec<(Count<'a>, i64)>);

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
        stamp.agent,
        breach.breach_id,
        id.epoch.to_string(),
        id.seq.cast_signed(),
        text(stamp.observed_at),
        rows::is_cleared(row.event),
        text(breach.raised_at),
        breach.limit,
        breach.severity.as_str(),
        breach.interface,
        breach.direction.as_str(),
        breach.limit_bps.cast_signed(),
        breach.rate_bps.cast_signed(),
        breach.peak_bps.cast_signed(),
        breach.mean_bps.cast_signed(),
        breach.duration_ms.cast_signed(),
        breach.measured_ms.cast_signed(),
        breach.excess_bytes.cast_signed(),
        breach.reason,
    ])?;
    Ok(())
}

fn put_losses(transaction: &Transaction<'_>, rows: &[Row<'_>], now: &str) -> Result<(), Error> {
    let mut put = transaction.prepare(
        "INSERT INTO losses (agent, epoch, first, last, loss_epoch, loss_seq, observed_at, stored_at, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
    )?;
    for lost in rows::losses(rows) {
        let Event { id, stamp, .. } = lost.event;
        let (epoch, own) = (lost.epoch.to_string(), id.epoch.to_string());
        let (seq, observed_at) = (id.seq.cast_signed(), text(stamp.observed_at));
        put.execute(params![stamp.agent, epoch, lost.first, lost.last, own, seq, observed_at, now, lost.reason])?;
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

fn put_gap(
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
