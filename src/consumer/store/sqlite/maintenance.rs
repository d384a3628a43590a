//! Retention in a SQLite file, on a connection of its own, in pieces: no transaction keeps the store waiting for long.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, params};

use super::{MIGRATIONS, text};
use crate::clock::{Clock as _, SystemClock};
use crate::consumer::store::tables::{TABLES, nothing_is_left};
use crate::consumer::store::{Maintained, Maintenance, Retention, StoreError, StoreProgress};

pub(in crate::consumer::store) struct SqliteMaintenance {
    path: PathBuf,
    progress: Arc<StoreProgress>,
}

const BUSY: Duration = Duration::from_secs(1);

const PIECE: usize = 10_000;

/// Condition of an expired row of a message. What a clock that is wrong observed after 2100 goes by the time of storing alone, as in
/// PostgreSQL.
const ROWS: &str = "(observed_at < ?1 OR observed_at >= '2100') AND stored_at < ?1";

/// Other tables, and the conditions of expired rows; `?1` is the time before which rows expire.
const EXPIRED: &[(&str, &str)] = &[
    // A breach is kept as long as the event that it was last written from.
    (
        "breach_state",
        "raised_at < ?1 AND observed_at < ?1 AND NOT EXISTS (
             SELECT 1 FROM events e WHERE (e.agent, e.observed_at, e.epoch, e.seq)
                                        = (breach_state.agent, breach_state.observed_at, breach_state.epoch, breach_state.seq))",
    ),
    // What a start left out explains the numbers before it for as long as the topic is read.
    ("kafka_gaps", "noticed_at < ?1 AND cause NOT IN ('expired_before_start', 'skipped_at_start')"),
];

/// Series that have stored nothing since `?1`, and of which nothing is declared or kept as a dead letter: a part of one would make
/// the rest of it a gap.
const ENDED: &str = "last_stored_at < ?1
    AND NOT EXISTS (SELECT 1 FROM agent_sequences s WHERE s.agent = agent_sequences.agent AND s.epoch = agent_sequences.epoch
                                                      AND s.last_stored_at >= ?1)
    AND NOT EXISTS (SELECT 1 FROM losses l WHERE l.agent = agent_sequences.agent AND l.epoch = agent_sequences.epoch)
    AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.agent = agent_sequences.agent AND d.epoch = agent_sequences.epoch)";

/// Series of an agent that has stored in another epoch since.
const SUPERSEDED: &str = "EXISTS (
    SELECT 1 FROM agent_sequences n WHERE n.agent = agent_sequences.agent AND n.epoch <> agent_sequences.epoch
                                      AND n.of_samples = agent_sequences.of_samples AND n.last_stored_at >= ?1)";

/// Ranges around a gap that was noticed before `?1` are merged; its declaration can then be deleted.
const CLOSED: &str = "
    SELECT agent, epoch, first_seq, last_seq, before FROM (
        SELECT agent, epoch, first_seq, last_seq, first_stored_at,
               lag(first_seq) OVER (PARTITION BY agent, epoch ORDER BY first_seq) AS before
        FROM agent_sequences)
    WHERE first_stored_at < ?1 AND before IS NOT NULL ORDER BY agent, epoch, first_seq DESC";

const CLOSE_FIRST: &str = "
    UPDATE agent_sequences SET first_seq = 1
    WHERE first_stored_at < ?1 AND first_seq > 1 AND NOT EXISTS (
        SELECT 1 FROM agent_sequences p WHERE p.agent = agent_sequences.agent AND p.epoch = agent_sequences.epoch
                                          AND p.first_seq < agent_sequences.first_seq)";

const EXPIRE_PAYLOADS: &str = "
    UPDATE dead_letters SET headers = NULL, key = NULL, payload = NULL, dropped_at = ?2, drop_reason = 'retention'
    WHERE stored_at < ?1 AND dropped_at IS NULL";

const LOSSES: &str = "stored_at < ?1 AND NOT EXISTS (
    SELECT 1 FROM agent_sequences s WHERE s.agent = losses.agent AND s.epoch = losses.epoch
                                      AND s.first_seq > losses.last_seq AND s.first_stored_at >= ?1)";

impl SqliteMaintenance {
    pub(in crate::consumer::store) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), progress: Arc::default() }
    }
}

impl Maintenance for SqliteMaintenance {
    fn progress(&self) -> Arc<StoreProgress> {
        Arc::clone(&self.progress)
    }

    fn run(&mut self, retention: &Retention, now: DateTime<Utc>, budget: Duration) -> Result<Maintained, StoreError> {
        let mut maintained = Maintained::default();
        if !self.path.exists() {
            return Ok(maintained);
        }
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(BUSY)?;
        let taken: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if (taken as usize) < MIGRATIONS.len() {
            return Ok(maintained);
        }
        let clock = SystemClock::default();
        let until = clock.monotonic() + budget;
        let ended = || {
            self.progress.count_answer();
            self.progress.is_stopped() || clock.monotonic() >= until
        };
        match all(&connection, retention, now, &ended, &mut maintained) {
            Ok(true) => {}
            Ok(false) => maintained.unfinished = Some("its time was up".to_owned()),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                maintained.unfinished = Some("another program writes".to_owned());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(maintained)
    }
}

fn all(
    connection: &Connection,
    retention: &Retention,
    now: DateTime<Utc>,
    ended: &dyn Fn() -> bool,
    maintained: &mut Maintained,
) -> Result<bool, Error> {
    let before = |keep: Duration| {
        let before = TimeDelta::from_std(keep).ok().and_then(|keep| now.checked_sub_signed(keep));
        text(before.unwrap_or(DateTime::UNIX_EPOCH))
    };
    let (events, letters) = (before(retention.events), before(retention.dead_letters));
    let totals = before(retention.totals);
    let tables = TABLES.iter().map(|table| (table.name(), ROWS, &events));
    let tables = tables.chain(EXPIRED.iter().map(|(table, condition)| (*table, *condition, &events)));
    // Dead letters lose their bytes first, and go with the events: until then their numbers are accounted for.
    let expired = connection.execute(EXPIRE_PAYLOADS, params![letters, text(now)])?;
    if expired > 0 {
        *maintained.deleted.entry("dead_letters").or_default() += expired as u64;
    }
    let others =
        [("dead_letters", "stored_at < ?1", (&events).min(&letters)), ("totals", "day < substr(?1, 1, 10)", &totals)];
    for (table, condition, before) in tables.chain(others) {
        if !delete(connection, table, condition, before, ended, maintained)? {
            return Ok(false);
        }
    }
    close_gaps(connection, &events)?;
    // By now each series that has ended is one range.
    let (superseded, gone) = (format!("{ENDED} AND {SUPERSEDED}"), format!("{ENDED} AND {}", nothing_is_left()));
    let last = [
        ("losses", LOSSES, &events),
        ("agent_sequences", &superseded, &events),
        ("agent_sequences", &gone, (&events).min(&totals)),
    ];
    for (table, condition, before) in last {
        if !delete(connection, table, condition, before, ended, maintained)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn delete(
    connection: &Connection,
    table: &'static str,
    condition: &str,
    before: &str,
    ended: &dyn Fn() -> bool,
    maintained: &mut Maintained,
) -> Result<bool, Error> {
    let sql = format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {condition} LIMIT {PIECE})");
    while !ended() {
        let gone = connection.execute(&sql, [before])?;
        if gone > 0 {
            *maintained.deleted.entry(table).or_default() += gone as u64;
        }
        if gone < PIECE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Merges from the last range of a series to its first: each is extended by the one after it.
fn close_gaps(connection: &Connection, before: &str) -> Result<(), Error> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute(CLOSE_FIRST, [before])?;
    {
        let mut closed = transaction.prepare(CLOSED)?;
        let rows = closed.query_map([before], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(4)?))
        })?;
        let rows: Vec<(String, String, i64, i64)> = rows.collect::<Result<_, _>>()?;
        for (agent, epoch, first, before) in rows {
            transaction.execute(
                "UPDATE agent_sequences AS s
                 SET last_seq = max(s.last_seq, gone.last_seq),
                     identity_conflicts = s.identity_conflicts + gone.identity_conflicts
                 FROM agent_sequences AS gone
                 WHERE (gone.agent, gone.epoch, gone.first_seq) = (?1, ?2, ?3)
                   AND (s.agent, s.epoch, s.first_seq) = (?1, ?2, ?4)",
                params![agent, epoch, first, before],
            )?;
            transaction.execute(
                "DELETE FROM agent_sequences WHERE agent = ?1 AND epoch = ?2 AND first_seq = ?3",
                params![agent, epoch, first],
            )?;
        }
    }
    transaction.commit()
}
