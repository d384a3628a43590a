//! The partitions of `events` and `samples`, one a day of `observed_at`: made before the batch that needs them, dropped by retention.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use postgres::{Client, Error, Transaction};

use super::fault::{Class, class};
use crate::consumer::store::rows::{Row, TABLES, Table};
use crate::event::Event;

/// Taken by all who make or drop a day: one at a time.
const LOCK: i64 = 0x6877_6461_7973; // "hwdays"

/// How long a day's dropping may hold up the readers behind it.
const DETACH_WAIT: &str = "SET LOCAL lock_timeout = '1s'";

/// A partition: a day of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Day {
    table: Table,
    date: NaiveDate,
}

/// The days that are known to be there.
#[derive(Debug, Default)]
pub(super) struct KnownDays(BTreeSet<Day>);

impl KnownDays {
    /// Makes the days that `rows` need and that are not there yet, in a transaction of their own.
    pub(super) fn make(&mut self, client: &mut Client, rows: &[Row<'_>]) -> Result<(), Error> {
        let needed: BTreeSet<Day> = rows.iter().map(|row| Day::of(row.event)).collect();
        let missing: Vec<Day> = needed.difference(&self.0).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut transaction = client.transaction()?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
        let standing = days(&mut transaction)?;
        for day in missing.iter().filter(|day| standing.get(day) != Some(&true)) {
            attach(&mut transaction, *day, standing.contains_key(day))?;
        }
        transaction.commit()?;
        self.0.extend(missing);
        Ok(())
    }

    /// Forgets all: one was not there after all.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Day {
    fn of(event: &Event) -> Self {
        Self { table: Table::of(event), date: event.stamp.observed_at.date_naive() }
    }

    /// `events_20261121`.
    fn name(self) -> String {
        format!("{}_{}", self.table.name(), self.date.format("%Y%m%d"))
    }

    fn parse(name: &str) -> Option<Self> {
        let (table, date) = name.split_once('_')?;
        let table = TABLES.into_iter().find(|known| known.name() == table)?;
        Some(Self { table, date: NaiveDate::parse_from_str(date, "%Y%m%d").ok()? })
    }

    /// Its first second, since 1970.
    fn begin(self) -> i64 {
        self.date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp()
    }

    /// The first second after it.
    fn end(self) -> i64 {
        self.begin() + 86_400
    }
}

/// Makes the day's table, unless it `stands` there detached (a dropping that was cut short), and attaches it. Queries and
/// inserts go on meanwhile; `CREATE TABLE … PARTITION OF` would hold them all up.
fn attach(transaction: &mut Transaction<'_>, day: Day, stands: bool) -> Result<(), Error> {
    let (table, name) = (day.table.name(), day.name());
    if !stands {
        transaction.batch_execute(&format!("CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))?;
    }
    transaction.batch_execute(&format!(
        "ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM (to_timestamp({})) TO (to_timestamp({}))",
        day.begin(),
        day.end()
    ))
}

/// All days' tables in the schema of `events`, and whether they are attached.
fn days(transaction: &mut Transaction<'_>) -> Result<BTreeMap<Day, bool>, Error> {
    let rows = transaction.query(
        "SELECT c.relname::text, c.relispartition FROM pg_class c
         WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)
           AND c.relkind = 'r' AND c.relname ~ '^(events|samples)_[0-9]{8}$'",
        &[],
    )?;
    Ok(rows.iter().filter_map(|row| Some((Day::parse(row.get(0))?, row.get(1)))).collect())
}

/// Drops the days of which both the end and the newest row's `stored_at` are older than `keep`; an empty day stays. The
/// names of those dropped, and of those that were in use.
pub(super) fn retire(
    client: &mut Client,
    keep: Duration,
    now: DateTime<Utc>,
) -> Result<(Vec<String>, Vec<String>), Error> {
    let Ok(Some(before)) = chrono::TimeDelta::from_std(keep).map(|keep| now.checked_sub_signed(keep)) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (mut dropped, mut busy) = (Vec::new(), Vec::new());
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK])?;
    let mut looked = || {
        let standing = {
            let mut transaction = client.transaction()?;
            let standing = days(&mut transaction)?;
            transaction.commit()?;
            standing
        };
        for (day, attached) in standing {
            let over = day.end() <= before.timestamp();
            if !attached || over && is_old(client, day, before)? {
                match drop_day(client, day, attached, before)? {
                    Dropped::Yes => dropped.push(day.name()),
                    Dropped::No => {}
                    Dropped::Busy => busy.push(day.name()),
                }
            }
        }
        Ok(())
    };
    let result = looked();
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK])?;
    result.map(|()| (dropped, busy))
}

enum Dropped {
    Yes,
    No,
    Busy,
}

/// Detaches the day, looks at it once more now that nobody can write to it, and drops it or attaches it again.
fn drop_day(client: &mut Client, day: Day, attached: bool, before: DateTime<Utc>) -> Result<Dropped, Error> {
    if attached {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(DETACH_WAIT)?;
        let detach = format!("ALTER TABLE {} DETACH PARTITION {}", day.table.name(), day.name());
        match transaction.batch_execute(&detach) {
            Ok(()) => transaction.commit()?,
            Err(error) if class(&error) == Class::Locked => {
                transaction.rollback()?;
                return Ok(Dropped::Busy);
            }
            Err(error) => return Err(error),
        }
    }
    let old = is_old(client, day, before)?;
    let mut transaction = client.transaction()?;
    if old {
        transaction.batch_execute(&format!("DROP TABLE {}", day.name()))?;
    } else {
        attach(&mut transaction, day, true)?;
    }
    transaction.commit()?;
    Ok(if old { Dropped::Yes } else { Dropped::No })
}

/// Whether the day's newest row was stored before `before`. A day without rows is not old.
fn is_old(client: &mut Client, day: Day, before: DateTime<Utc>) -> Result<bool, Error> {
    let row = client.query_one(&format!("SELECT max(stored_at) < $1 FROM {}", day.name()), &[&before])?;
    Ok(row.get::<_, Option<bool>>(0).unwrap_or(false))
}
