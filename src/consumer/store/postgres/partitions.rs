//! Partitions of the tables of messages: made before the batch that needs them, detached and dropped by maintenance.
//! `partition_notes` has how new the rows of each may be: noted before a day's first row, so that retention needs no scan, and no
//! writer waits for another.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use postgres::types::Type;
use postgres::{Client, Error, Transaction};

use super::quoted;
use super::sqlstate::{Class, class};
use crate::consumer::store::apply::UnpartitionedRow;
use crate::consumer::store::query::Locks;
use crate::consumer::store::retention::Retained;
use crate::consumer::store::rows::Row;
use crate::consumer::store::tables::{PARTITIONED, Table};
use crate::consumer::store::{PartitionWidth, Retention, StoreError, StoreOptions};
use crate::process::clock::{Clock as _, SystemClock};

const LOCK: i64 = 0x6877_7061_7274; // "hwpart"

const NOTE_EVERY: Duration = Duration::from_secs(86_400);

/// New partitions of a table per hour for times outside the retention period: a wrong clock must not fill the catalog.
const OUTSIDE_MAX: i64 = 12;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) name: String,
    pub(super) table: Table,
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
    /// False once retention has marked it, or while it is being detached: PostgreSQL then accepts no other one for its rows.
    pub(super) takes_rows: bool,
}

impl Partition {
    fn holds(&self, table: Table, time: DateTime<Utc>) -> bool {
        self.table == table && (self.from..self.to).contains(&time)
    }
}

pub(super) struct Partitions {
    width: PartitionWidth,
    retention: Retention,
    clock: SystemClock,
    known: Vec<Partition>,
    noted: HashMap<String, Duration>,
}

impl Partitions {
    pub(super) fn new(options: &StoreOptions) -> Self {
        Self {
            width: options.partition,
            retention: options.retention,
            clock: SystemClock::default(),
            known: Vec::new(),
            noted: HashMap::new(),
        }
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    pub(super) fn create_missing<'a>(
        &mut self,
        client: &mut Client,
        rows: &[Row<'a>],
    ) -> Result<Vec<UnpartitionedRow<'a>>, StoreError> {
        let now = self.clock.monotonic();
        let is_current = |partition: &Partition| {
            let noted = self.noted.get(&partition.name);
            noted.is_some_and(|at| now.saturating_sub(*at) < NOTE_EVERY)
        };
        // Most rows belong to the partition of the row before.
        let mut last: [Option<&Partition>; PARTITIONED.len()] = [None; PARTITIONED.len()];
        let all_are_current = places(rows).all(|(_, table, time)| {
            let last = &mut last[table as usize];
            if !last.is_some_and(|partition| partition.holds(table, time)) {
                *last = self.find(table, time).filter(|partition| is_current(partition));
            }
            last.is_some()
        });
        if all_are_current {
            return Ok(Vec::new());
        }
        let mut transaction = client.transaction()?;
        lock(&mut transaction)?;
        self.known = read(&mut transaction)?;
        let (mut outside, mut expired) = (Vec::new(), Vec::new());
        for (row, table, time) in places(rows) {
            if self.find(table, time).is_none() && !self.create(&mut transaction, table, time)? {
                outside.push(unpartitioned(row, &too_many_outside(row)));
            }
            if let Some(partition) = self.find(table, time).filter(|partition| !partition.takes_rows) {
                expired.push(unpartitioned(row, &being_detached(partition)));
            }
        }
        let touched = places(rows).filter_map(|(_, table, time)| self.find(table, time));
        let touched = touched.filter(|partition| partition.takes_rows);
        let mut names: Vec<String> = touched.map(|partition| partition.name.clone()).collect();
        names.sort();
        names.dedup();
        transaction.execute(
            "INSERT INTO partition_notes AS n (partition, newest_stored_at, outside)
             SELECT name, now(), false FROM unnest($1::text[]) AS name
             ON CONFLICT (partition) DO UPDATE SET newest_stored_at = greatest(n.newest_stored_at, excluded.newest_stored_at)",
            &[&names],
        )?;
        transaction.commit()?;
        self.noted.extend(names.into_iter().map(|name| (name, now)));
        warn_of_clocks(&outside);
        outside.append(&mut expired);
        Ok(outside)
    }

    fn find(&self, table: Table, time: DateTime<Utc>) -> Option<&Partition> {
        let after = self.known.partition_point(|partition| (partition.table, partition.from) <= (table, time));
        let partition = self.known.get(after.checked_sub(1)?)?;
        partition.holds(table, time).then_some(partition)
    }

    /// Returns false if there were too many. Queries and inserts go on, unlike with `PARTITION OF`.
    fn create(&mut self, transaction: &mut Transaction<'_>, table: Table, time: DateTime<Utc>) -> Result<bool, Error> {
        let (from, to) = self.free_period(table, time, table.width(self.width));
        let now: DateTime<Utc> = transaction.query_one("SELECT now()", &[])?.get(0);
        let outside = to <= Retained::of(table).before(&self.retention, now) || from > now + TimeDelta::days(32);
        if outside && table.is_limited_outside() && count_recent_outside(transaction, table)? >= OUTSIDE_MAX {
            return Ok(false);
        }
        let mut name = free_name(transaction, &format!("{}_{}", table.name(), from.format("%Y%m%d")))?;
        let create = format!(
            "CREATE TABLE {} (LIKE {} INCLUDING ALL);
             ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM (to_timestamp({})) TO (to_timestamp({}))",
            quoted(&name),
            table.name(),
            table.name(),
            quoted(&name),
            from.timestamp(),
            to.timestamp()
        );
        let mut attempt = transaction.savepoint("create_partition")?;
        match attempt.batch_execute(&create) {
            Ok(()) => {
                attempt.execute(
                    "INSERT INTO partition_notes (partition, newest_stored_at, outside) VALUES ($1, now(), $2)
                     ON CONFLICT (partition) DO UPDATE SET newest_stored_at = now(), made_at = now(), outside = excluded.outside,
                         detaching_since = NULL",
                    &[&name, &outside],
                )?;
                attempt.commit()?;
            }
            Err(error) => {
                attempt.rollback()?;
                name = default_partition(&error).ok_or(error)?;
                log::warn!(
                    "PostgreSQL: the DEFAULT partition {name} has rows from {} to {}, and takes those to come: retention does not \
                     delete them",
                    from.date_naive(),
                    to.date_naive()
                );
            }
        }
        self.known.push(Partition { name, table, from, to, takes_rows: true });
        self.known.sort_by_key(|partition| (partition.table, partition.from));
        Ok(true)
    }

    fn free_period(&self, table: Table, time: DateTime<Utc>, width: PartitionWidth) -> (DateTime<Utc>, DateTime<Utc>) {
        let (mut from, mut to) = period(time, width);
        for partition in self.known.iter().filter(|partition| partition.table == table) {
            if partition.to <= time {
                from = from.max(partition.to);
            } else if partition.from > time {
                to = to.min(partition.from);
            }
        }
        (from, to)
    }
}

fn places<'r, 'a>(rows: &'r [Row<'a>]) -> impl Iterator<Item = (&'r Row<'a>, Table, DateTime<Utc>)> {
    rows.iter().flat_map(|row| row.tables().map(move |table| (row, table, row.event.stamp.observed_at)))
}

pub(super) fn locks(transaction: &mut Transaction<'_>) -> Result<Locks, Error> {
    let names = PARTITIONED.map(Table::name);
    let row = transaction.query_typed_one(
        "SELECT current_setting('max_locks_per_transaction')::bigint
                * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint),
                count(i.inhrelid), t.number - 1
         FROM unnest($1::text[]) WITH ORDINALITY AS t (name, number)
         LEFT JOIN pg_inherits i ON i.inhparent = t.name::regclass
         GROUP BY t.number ORDER BY count(i.inhrelid) DESC, t.number LIMIT 1",
        &[(&names.as_slice(), Type::TEXT_ARRAY)],
    )?;
    let number = |at| row.get::<_, i64>(at).unsigned_abs();
    Ok(Locks { table: names[usize::try_from(number(2)).unwrap_or(0)], partitions: number(1), room: number(0) })
}

fn unpartitioned<'a>(row: &Row<'a>, why: &str) -> UnpartitionedRow<'a> {
    let error = format!(
        "no partition for {}: {why}; `highwater-consumer dead-letters retry` stores it later",
        row.event.stamp.observed_at.date_naive()
    );
    UnpartitionedRow { row: *row, error }
}

fn too_many_outside(row: &Row<'_>) -> String {
    format!(
        "{OUTSIDE_MAX} were created in the last hour for times outside the retention period; is the clock of {} right?",
        row.event.stamp.agent
    )
}

fn being_detached(partition: &Partition) -> String {
    format!("{} has expired, and is being detached", partition.name)
}

fn warn_of_clocks(outside: &[UnpartitionedRow<'_>]) {
    let mut agents: Vec<&str> = outside.iter().map(|outside| outside.row.event.stamp.agent.as_str()).collect();
    agents.sort_unstable();
    agents.dedup();
    for agent in agents {
        log::error!(
            "PostgreSQL: {agent} sends too many events with times outside the retention period, which become dead letters: is its \
             clock right?"
        );
    }
}

/// Returns the operator's DEFAULT partition that has rows of the new one.
fn default_partition(error: &Error) -> Option<String> {
    if class(error) != Class::NoPartition {
        return None;
    }
    error.as_db_error()?.table().map(str::to_owned)
}

fn free_name(transaction: &mut Transaction<'_>, name: &str) -> Result<String, Error> {
    let mut free = name.to_owned();
    for number in 2.. {
        if !transaction.query_one("SELECT to_regclass($1) IS NOT NULL", &[&free])?.get::<_, bool>(0) {
            break;
        }
        free = format!("{name}_{number}");
    }
    Ok(free)
}

fn count_recent_outside(transaction: &mut Transaction<'_>, table: Table) -> Result<i64, Error> {
    let made = "SELECT count(*) FROM partition_notes n JOIN pg_inherits i ON i.inhrelid = to_regclass(quote_ident(n.partition))
                WHERE i.inhparent = $1::text::regclass AND n.outside AND n.made_at > now() - interval '1 hour'";
    Ok(transaction.query_one(made, &[&table.name()])?.get(0))
}

fn period(time: DateTime<Utc>, width: PartitionWidth) -> (DateTime<Utc>, DateTime<Utc>) {
    let day = time.date_naive();
    let (from, to) = match width {
        PartitionWidth::Day => (day, day + Days::new(1)),
        PartitionWidth::Week => {
            let monday = day - Days::new(day.weekday().num_days_from_monday().into());
            (monday, monday + Days::new(7))
        }
        PartitionWidth::Month => {
            let first = day.with_day(1).unwrap_or(day);
            (first, first + Months::new(1))
        }
    };
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    (midnight(from), midnight(to))
}

pub(super) fn read(transaction: &mut Transaction<'_>) -> Result<Vec<Partition>, Error> {
    transaction.batch_execute("SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'")?;
    let mut partitions = Vec::new();
    for table in PARTITIONED {
        let rows = transaction.query(
            // PostgreSQL 13 has no column inhdetachpending.
            "SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid),
                    n.detaching_since IS NULL AND (to_jsonb(i) ->> 'inhdetachpending')::boolean IS NOT TRUE
             FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN partition_notes n ON n.partition = c.relname
             WHERE i.inhparent = $1::text::regclass",
            &[&table.name()],
        )?;
        for row in rows {
            // An operator's DEFAULT partition has no bounds.
            let Some((from, to)) = bounds_of(row.get(1)) else { continue };
            partitions.push(Partition { name: row.get(0), table, from, to, takes_rows: row.get(2) });
        }
    }
    partitions.sort_by_key(|partition| (partition.table, partition.from));
    Ok(partitions)
}

/// Parses `FOR VALUES FROM ('2026-11-01 00:00:00+00') TO (MAXVALUE)`.
fn bounds_of(text: &str) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let (from, to) = text.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?.split_once(") TO (")?;
    let time = |text: &str| match text {
        "MINVALUE" => Some(DateTime::<Utc>::MIN_UTC),
        "MAXVALUE" => Some(DateTime::<Utc>::MAX_UTC),
        text => {
            let text = text.trim_matches('\'').strip_suffix("+00")?;
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok().map(|time| time.and_utc())
        }
    };
    Some((time(from)?, time(to)?))
}

pub(super) fn lock(transaction: &mut Transaction<'_>) -> Result<(), Error> {
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn partition(from: &str, to: &str) -> Partition {
        let (from, to) = (at(from), at(to));
        Partition { name: from.to_string(), table: Table::Events, from, to, takes_rows: true }
    }

    #[test]
    fn a_period_is_a_day_a_week_from_monday_or_a_month() {
        let time = at("2026-11-28T23:59:59.999999Z");
        let text = |width| {
            let (from, to) = period(time, width);
            (from.date_naive().to_string(), to.date_naive().to_string())
        };
        assert_eq!(text(PartitionWidth::Day), ("2026-11-28".into(), "2026-11-29".into()));
        assert_eq!(text(PartitionWidth::Week), ("2026-11-23".into(), "2026-11-30".into()));
        assert_eq!(text(PartitionWidth::Month), ("2026-11-01".into(), "2026-12-01".into()));
    }

    #[test]
    fn a_new_width_takes_what_the_old_one_left() {
        let mut partitions = Partitions::new(&StoreOptions::default());
        partitions.known = vec![
            partition("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"),
            partition("2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z"),
            partition("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"),
        ];
        let free = |time| partitions.free_period(Table::Events, at(time), PartitionWidth::Month);
        assert_eq!(free("2026-11-10T00:00:00Z"), (at("2026-11-03T00:00:00Z"), at("2026-11-20T00:00:00Z")));
        assert_eq!(free("2026-11-28T00:00:00Z"), (at("2026-11-21T00:00:00Z"), at("2026-12-01T00:00:00Z")));
        assert_eq!(
            partitions.find(Table::Events, at("2026-11-02T23:59:59Z")).unwrap().from,
            at("2026-11-02T00:00:00Z")
        );
        assert_eq!(partitions.find(Table::Events, at("2026-11-03T00:00:00Z")), None);
        assert_eq!(partitions.find(Table::Samples, at("2026-11-02T00:00:00Z")), None);
    }

    #[test]
    fn bounds_are_read_as_postgresql_writes_them() {
        let text = "FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00')";
        assert_eq!(bounds_of(text), Some((at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"))));
        assert_eq!(
            bounds_of("FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00')"),
            Some((DateTime::<Utc>::MIN_UTC, at("2020-01-01T00:00:00Z")))
        );
        assert_eq!(bounds_of("DEFAULT"), None);
    }
}
