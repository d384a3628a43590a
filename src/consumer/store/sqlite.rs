//! SQLite: one file, nothing to install, the same tables.
//!
//! One writer at a time is SQLite's own rule (`BEGIN IMMEDIATE`), which makes the guards cheap; they hold all the same, since
//! several consumers may share the file.

mod apply;
mod reader;
mod revive;
mod samples;
mod totals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rusqlite::{Connection, Error, ErrorCode, TransactionBehavior, params};

use super::rows::{TABLES, Table};
use super::{Applied, Fault, Retention, Retired, Returning, Revived, Store};
use crate::consumer::batch::{Batch, Mark};
use crate::consumer::place::Place;

pub(super) use self::reader::SqliteReader;

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
                apply::put_gap(&transaction, topic, partition, new.generation, gap)?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn apply(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Applied, Fault> {
        self.with(|connection| apply::apply(connection, batch, now))
    }

    fn revive(&mut self, topic: &str, letters: &[Returning], now: DateTime<Utc>) -> Result<Revived, Fault> {
        self.with(|connection| revive::revive(connection, topic, letters, now))
    }

    fn retire(&mut self, retention: &Retention, now: DateTime<Utc>) -> Result<Retired, Fault> {
        self.with(|connection| {
            let mut retired = Retired::default();
            if let Some(before) = before(now, retention.events) {
                for table in TABLES.map(Table::name) {
                    let sql = format!(
                        "DELETE FROM {table} WHERE rowid IN
                         (SELECT rowid FROM {table} WHERE observed_at < ?1 AND stored_at < ?1 LIMIT ?2)"
                    );
                    retired.events += in_pieces(connection, &sql, &before)?;
                }
                connection.execute(
                    "DELETE FROM breach_state WHERE observed_at < ?1 AND NOT EXISTS (
                         SELECT 1 FROM events e
                         WHERE e.agent = breach_state.agent AND e.epoch = breach_state.epoch
                           AND e.seq = breach_state.seq AND e.observed_at = breach_state.observed_at)",
                    [&before],
                )?;
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
