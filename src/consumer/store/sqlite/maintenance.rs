//! Retention in a SQLite file, on a connection of its own, in pieces: no transaction keeps the store waiting for long.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Error, ErrorCode, ToSql, Transaction, TransactionBehavior, params};

use super::{open_existing, text};
use crate::consumer::store::retention::{ExpiredRows, Retained, WITH_OLD_PAYLOADS};
use crate::consumer::store::tables::PARTITIONED;
use crate::consumer::store::{Maintained, Maintenance, Retention, StoreError, StoreProgress};
use crate::process::clock::{Clock as _, SystemClock};

pub(in crate::consumer::store) struct SqliteMaintenance {
    path: PathBuf,
    progress: Arc<StoreProgress>,
}

const BUSY: Duration = Duration::from_secs(1);

const PIECE: usize = 10_000;

const GAPS: usize = 1_000;

/// Expired rows of messages. Rows of a wrong clock, observed after 2100, expire by the time of storing alone, as in PostgreSQL.
const ROWS: &str = "(observed_at < $1 OR observed_at >= '2100') AND stored_at < $1";

/// Ranges after a gap noticed before `?1`, with the start of the range to merge each into. Last first, so that merges accumulate.
const CLOSED: &str = "
    SELECT agent, epoch, first_seq, before FROM (
        SELECT agent, epoch, first_seq, first_stored_at,
               lag(first_seq) OVER (PARTITION BY agent, epoch ORDER BY first_seq) AS before
        FROM agent_sequences)
    WHERE first_stored_at < ?1 AND before IS NOT NULL ORDER BY agent, epoch, first_seq DESC LIMIT ?2";

const WITHOUT_FIRST: &str = "first_stored_at < $1 AND first_seq > 1 AND NOT EXISTS (
    SELECT 1 FROM agent_sequences p WHERE p.agent = agent_sequences.agent AND p.epoch = agent_sequences.epoch
                                      AND p.first_seq < agent_sequences.first_seq)";

impl SqliteMaintenance {
    pub(in crate::consumer::store) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), progress: Arc::default() }
    }
}

impl Maintenance for SqliteMaintenance {
    fn progress(&self) -> Arc<StoreProgress> {
        Arc::clone(&self.progress)
    }

    fn run(
        &mut self,
        retention: &Retention,
        now: Option<DateTime<Utc>>,
        budget: Duration,
    ) -> Result<Maintained, StoreError> {
        let mut maintained = Maintained::default();
        let Some(connection) = open_existing(&self.path, BUSY)? else { return Ok(maintained) };
        let clock = SystemClock::default();
        let now = now.unwrap_or_else(|| clock.wall());
        let until = clock.monotonic() + budget;
        let ended = || {
            self.progress.count_answer();
            self.progress.is_stopped() || clock.monotonic() >= until
        };
        let deleted = &mut maintained.deleted;
        match (FileRound { connection: &connection, retention, now, ended: &ended, deleted }).all() {
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

struct FileRound<'a> {
    connection: &'a Connection,
    retention: &'a Retention,
    now: DateTime<Utc>,
    ended: &'a dyn Fn() -> bool,
    deleted: &'a mut BTreeMap<&'static str, u64>,
}

/// Each function returns false if the round ended before it was done.
impl FileRound<'_> {
    fn all(&mut self) -> Result<bool, Error> {
        // SQLite numbers parameters in the order in which they come.
        let expire = "UPDATE dead_letters SET headers = NULL, key = NULL, payload = NULL, dropped_at = $now, drop_reason = 'retention'";
        let (events, letters) = (self.before(Retained::Events), self.before(Retained::DeadLetters));
        let now = text(self.now);
        for table in PARTITIONED {
            let condition = if table.is_kept_since_stored() { ROWS } else { "observed_at < $1" };
            if !self.delete(table.name(), condition, &self.before(Retained::of(table)))? {
                return Ok(false);
            }
        }
        Ok(self.delete_all(&ExpiredRows::by_age("substr($1, 1, 10)"))?
            && self.in_pieces(("dead_letters", expire), WITH_OLD_PAYLOADS, &[&now, &letters])?
            && self.close_gaps(&events)?
            && self.delete_all(&ExpiredRows::after_gaps())?)
    }

    fn before(&self, kept: Retained) -> String {
        text(kept.before(self.retention, self.now))
    }

    fn delete_all(&mut self, expired: &[ExpiredRows]) -> Result<bool, Error> {
        for ExpiredRows { table, condition, kept } in expired {
            if !self.delete(table, condition, &self.before(*kept))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn delete(&mut self, table: &'static str, condition: &str, before: &str) -> Result<bool, Error> {
        self.in_pieces((table, &format!("DELETE FROM {table}")), condition, &[&before])
    }

    fn in_pieces(
        &mut self,
        (table, sql): (&'static str, &str),
        condition: &str,
        parameters: &[&dyn ToSql],
    ) -> Result<bool, Error> {
        let sql = format!("{sql} WHERE rowid IN (SELECT rowid FROM {table} WHERE {condition} LIMIT {PIECE})");
        while !(self.ended)() {
            let some = self.connection.execute(&sql, parameters)?;
            if some > 0 {
                *self.deleted.entry(table).or_default() += some as u64;
            }
            if some < PIECE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn close_gaps(&self, before: &str) -> Result<bool, Error> {
        let first = format!(
            "UPDATE agent_sequences SET first_seq = 1
             WHERE rowid IN (SELECT rowid FROM agent_sequences WHERE {WITHOUT_FIRST} LIMIT {GAPS})"
        );
        while !(self.ended)() {
            let transaction = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)?;
            let closed = transaction.execute(&first, [before])?.max(merge(&transaction, before)?);
            transaction.commit()?;
            if closed < GAPS {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn merge(transaction: &Transaction<'_>, before: &str) -> Result<usize, Error> {
    let mut closed = transaction.prepare(CLOSED)?;
    let rows = closed.query_map(params![before, GAPS as i64], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
    })?;
    let rows: Vec<(String, String, i64, i64)> = rows.collect::<Result<_, _>>()?;
    for (agent, epoch, first, before) in &rows {
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
    Ok(rows.len())
}
