//! Retention in PostgreSQL, in a session of its own: partitions are detached and dropped, rows deleted in pieces, up to the first
//! held lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use postgres::{Client, Error, IsolationLevel};

use super::address::Address;
use super::detachment::{self, Detachment};
use super::partitions;
use super::session::Connector;
use super::sqlstate::{Class, class};
use super::{HELD_MAX, MAINTENANCE_SETTINGS, migrations};
use crate::consumer::store::retention::{ExpiredRows, Retained, WITH_OLD_PAYLOADS};
use crate::consumer::store::tables::PARTITIONED;
use crate::consumer::store::{Maintained, Maintenance, Retention, StoreError, StoreOptions, StoreProgress};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::failpoints;

pub(in crate::consumer::store) struct PostgresMaintenance {
    address: Address,
    application: String,
    progress: Arc<StoreProgress>,
}

/// Advisory lock of a round: of several consumers of a database, one does it.
const LOCK: i64 = 0x6877_6d61_696e; // "hwmain"

/// Ends a session that holds the lock and was silent: its connection was lost on our side, unnoticed by the server.
pub(super) fn end_lock_holder(client: &mut Client, lock: i64, silent_max: &str) -> Result<u64, Error> {
    let sql = format!(
        "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32) + l.objid::bigint = $1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND a.usename = current_user AND a.state = 'idle' AND a.state_change < now() - interval '{silent_max}'"
    );
    client.execute(&sql, &[&lock])
}

const PIECE: i64 = 10_000;

/// Series with a gap that was noticed before `$1`: below the first range, or between two.
const WITH_OLD_GAPS: &str = "
    SELECT DISTINCT agent, epoch FROM (
        SELECT agent, epoch, first_seq, first_stored_at,
               coalesce(lag(last_seq) OVER (PARTITION BY agent, epoch ORDER BY first_seq), 0) AS before
        FROM agent_sequences) AS ranges
    WHERE first_stored_at < $1 AND first_seq > before + 1";

/// Merges the ranges around gaps of series `$2`, `$3` noticed before `$1`: their declarations can then be deleted.
const CLOSE_GAPS: &str = "
    WITH ranges AS (
        SELECT s.*, s.first_stored_at >= $1 OR lag(s.first_seq) OVER same IS NULL AS begins,
               CASE WHEN s.first_stored_at < $1 AND lag(s.first_seq) OVER same IS NULL THEN 1 ELSE s.first_seq END AS closed_from
        FROM agent_sequences s JOIN unnest($2::text[], $3::text[]) AS w (agent, epoch) ON s.agent = w.agent AND s.epoch = w.epoch
        WINDOW same AS (PARTITION BY s.agent, s.epoch ORDER BY s.first_seq)),
    runs AS (SELECT *, sum(begins::integer) OVER (PARTITION BY agent, epoch ORDER BY first_seq) AS run FROM ranges),
    merged AS (
        SELECT agent, epoch, min(first_seq) AS first, min(closed_from) AS closed_from, max(last_seq) AS last,
               sum(identity_conflicts)::bigint AS conflicts
        FROM runs GROUP BY agent, epoch, run HAVING count(*) > 1 OR min(closed_from) < min(first_seq)),
    gone AS (
        DELETE FROM agent_sequences s USING merged m
        WHERE s.agent = m.agent AND s.epoch = m.epoch AND s.first_seq > m.first AND s.first_seq <= m.last)
    UPDATE agent_sequences s SET first_seq = m.closed_from, last_seq = m.last, identity_conflicts = m.conflicts FROM merged m
    WHERE s.agent = m.agent AND s.epoch = m.epoch AND s.first_seq = m.first";

/// Bound of a transaction: a series that is extended meanwhile fails only its own.
const SERIES_AT_ONCE: usize = 100;

enum MaintenanceEnd {
    Unfinished(String),
    Error(StoreError),
}

impl From<Error> for MaintenanceEnd {
    fn from(error: Error) -> Self {
        match class(&error) {
            Class::Locked | Class::ConcurrentWrite => Self::Unfinished("a table is in use".to_owned()),
            _ => Self::Error(error.into()),
        }
    }
}

impl PostgresMaintenance {
    pub(in crate::consumer::store) fn new(address: Address, options: &StoreOptions) -> Self {
        let application = format!("highwater-consumer/{}/maintenance", options.instance);
        Self { address, application, progress: Arc::default() }
    }
}

impl Maintenance for PostgresMaintenance {
    fn progress(&self) -> Arc<StoreProgress> {
        Arc::clone(&self.progress)
    }

    fn run(
        &mut self,
        retention: &Retention,
        now: Option<DateTime<Utc>>,
        budget: Duration,
    ) -> Result<Maintained, StoreError> {
        let mut client = Connector::new(self.address.clone(), self.application.clone()).connect()?;
        client.batch_execute(MAINTENANCE_SETTINGS)?;
        let mut maintained = Maintained::default();
        let locked = client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])?;
        self.progress.count_answer();
        if migrations::applied_version(&mut client)?? < migrations::version() {
            return Ok(maintained);
        }
        if !locked.get::<_, bool>(0) {
            let was_dead = end_lock_holder(&mut client, LOCK, HELD_MAX)? > 0;
            let holder = if was_dead { "a session whose connection was lost held" } else { "another session holds" };
            maintained.unfinished = Some(format!("{holder} its lock"));
            return Ok(maintained);
        }
        if let Some(seconds) = failpoints::value("maintenance-s").and_then(|seconds| seconds.parse::<f64>().ok()) {
            client.batch_execute("SET statement_timeout = 0")?;
            client.execute("SELECT pg_sleep($1)", &[&seconds])?;
            client.batch_execute(MAINTENANCE_SETTINGS)?;
        }
        let clock = SystemClock::default();
        let now = match now {
            Some(now) => now,
            None => clock.wall().min(client.query_one("SELECT now()", &[])?.get(0)),
        };
        let (until, progress) = (clock.monotonic() + budget, &self.progress);
        let mut round = Round { client, now, retention, until, clock, progress, blocked: None };
        match round.all(&mut maintained) {
            Ok(()) => {}
            Err(MaintenanceEnd::Unfinished(why)) => maintained.unfinished = Some(why),
            Err(MaintenanceEnd::Error(error)) => return Err(error),
        }
        Ok(maintained)
    }
}

struct Round<'a> {
    client: Client,
    now: DateTime<Utc>,
    retention: &'a Retention,
    until: Duration,
    clock: SystemClock,
    progress: &'a StoreProgress,
    blocked: Option<String>,
}

impl Round<'_> {
    fn all(&mut self, maintained: &mut Maintained) -> Result<(), MaintenanceEnd> {
        self.drop_partitions(maintained)?;
        for table in PARTITIONED {
            let before = Retained::of(table).before(self.retention, self.now);
            for partition in table.outermost() {
                self.delete(partition, "stored_at < $1", before, &mut maintained.deleted)?;
            }
        }
        let before = Retained::Events.before(self.retention, self.now);
        self.delete_all(&ExpiredRows::by_age("($1 AT TIME ZONE 'UTC')::date"), maintained)?;
        let expire = "UPDATE dead_letters SET headers = NULL, key = NULL, payload = NULL, dropped_at = now(), drop_reason = 'retention'";
        let letters = Retained::DeadLetters.before(self.retention, self.now);
        self.in_pieces(("dead_letters", expire), WITH_OLD_PAYLOADS, letters, &mut maintained.deleted)?;
        let are_closed = self.close_gaps(before)?;
        self.delete_all(&ExpiredRows::after_gaps(), maintained)?;
        let unclosed = (!are_closed).then(|| "series of numbers are in use".to_owned());
        match self.blocked.take().or(unclosed) {
            Some(why) => Err(MaintenanceEnd::Unfinished(why)),
            None => Ok(()),
        }
    }

    /// Returns false if a series was extended meanwhile: it must not be set back (repeatable read).
    fn close_gaps(&mut self, before: DateTime<Utc>) -> Result<bool, MaintenanceEnd> {
        let series = self.client.query(WITH_OLD_GAPS, &[&before])?;
        let mut all_closed = true;
        for some in series.chunks(SERIES_AT_ONCE) {
            self.check_budget()?;
            let agents: Vec<&str> = some.iter().map(|row| row.get(0)).collect();
            let epochs: Vec<&str> = some.iter().map(|row| row.get(1)).collect();
            let repeatable = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
            let mut transaction = repeatable.start()?;
            let closed =
                transaction.execute(CLOSE_GAPS, &[&before, &agents, &epochs]).and_then(|_| transaction.commit());
            match closed.map_err(MaintenanceEnd::from) {
                Ok(()) => {}
                Err(MaintenanceEnd::Unfinished(_)) => all_closed = false,
                Err(error) => return Err(error),
            }
        }
        Ok(all_closed)
    }

    /// Counts an answer of the database, and ends the round when its time is over.
    fn check_budget(&self) -> Result<(), MaintenanceEnd> {
        self.progress.count_answer();
        if self.progress.is_stopped() || self.clock.monotonic() >= self.until {
            return Err(MaintenanceEnd::Unfinished("its time was up".to_owned()));
        }
        Ok(())
    }

    fn delete_all(&mut self, expired: &[ExpiredRows], maintained: &mut Maintained) -> Result<(), MaintenanceEnd> {
        for ExpiredRows { table, condition, kept } in expired {
            let before = kept.before(self.retention, self.now);
            self.delete(table, condition, before, &mut maintained.deleted)?;
        }
        Ok(())
    }

    fn delete(
        &mut self,
        table: &'static str,
        condition: &str,
        before: DateTime<Utc>,
        deleted: &mut BTreeMap<&'static str, u64>,
    ) -> Result<(), MaintenanceEnd> {
        self.in_pieces((table, &format!("DELETE FROM {table}")), condition, before, deleted)
    }

    fn in_pieces(
        &mut self,
        (table, sql): (&'static str, &str),
        condition: &str,
        before: DateTime<Utc>,
        changed: &mut BTreeMap<&'static str, u64>,
    ) -> Result<(), MaintenanceEnd> {
        // Rows are checked again once locked: one may have been updated since it was found.
        let sql = format!(
            "{sql} WHERE ctid = ANY (ARRAY (SELECT ctid FROM {table} WHERE {condition} LIMIT $2)) AND ({condition})"
        );
        loop {
            self.check_budget()?;
            let some = self.client.execute(&sql, &[&before, &PIECE])?;
            if some > 0 {
                *changed.entry(table).or_default() += some;
            }
            if some < PIECE.unsigned_abs() {
                return Ok(());
            }
        }
    }

    /// Detaches and drops expired partitions. One in use holds back only those of its own table.
    fn drop_partitions(&mut self, maintained: &mut Maintained) -> Result<(), MaintenanceEnd> {
        self.drop_detached(maintained)?;
        let mut transaction = self.client.transaction()?;
        let mut attached = partitions::read(&mut transaction)?;
        transaction.commit()?;
        // A table has at most one whose detachment was interrupted: it goes first.
        attached.sort_by_key(|partition| partition.takes_rows);
        let mut blocked = Vec::new();
        // MINVALUE's partition is never dropped: its rows are deleted in pieces.
        for partition in attached.iter().filter(|partition| partition.from > DateTime::<Utc>::MIN_UTC) {
            let before = Retained::of(partition.table).before(self.retention, self.now);
            if blocked.contains(&partition.table) || partition.takes_rows && partition.to > before {
                continue;
            }
            self.check_budget()?;
            let left = self.until.saturating_sub(self.clock.monotonic());
            match detachment::detach(&mut self.client, partition, before, left)? {
                Detachment::Done => self.drop_detached(maintained)?,
                Detachment::NotOld => {}
                Detachment::Blocked(why) => {
                    blocked.push(partition.table);
                    self.blocked = Some(why);
                }
            }
        }
        Ok(())
    }

    fn drop_detached(&mut self, maintained: &mut Maintained) -> Result<(), MaintenanceEnd> {
        for name in detachment::detached(&mut self.client)? {
            self.check_budget()?;
            if detachment::drop_table(&mut self.client, &name)? {
                maintained.dropped.push(name);
            } else {
                self.blocked = Some(format!("{name} is in use"));
            }
        }
        Ok(())
    }
}
