//! Detaching partitions whose rows have expired, without a lock that a query of their table would wait for (PostgreSQL 14 or later).
//! A mark in `partition_notes` comes first: a marked partition takes no more rows, and what was interrupted goes on from there.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use postgres::error::SqlState;
use postgres::{Client, Error, Transaction};

use super::partitions::{self, Partition};
use super::sqlstate::{Class, class};
use super::{MAINTENANCE_SETTINGS, quoted};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detached {
    Yes,
    /// Some of its rows are not old, or an operator detaches it.
    No,
    InUse,
}

/// Longest wait for transactions that use the table. Where one has lasted longer, a detachment does not begin.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Time by which the newest row of a partition may be newer than its note: see [`partitions`].
const NOTE_AGE: TimeDelta = TimeDelta::days(1);

/// A session uses partition `$2` of table `$1`, and not only in a transaction that is young enough to be waited for. While the end
/// of a detachment waits for one that locked the partition by its own name, or before (`$3`), no partition can be attached.
const IS_IN_USE: &str = "
    WITH holders AS (
        SELECT pid, bool_or(relation = $1::text::regclass) AS of_table, bool_or(relation = $2::text::regclass) AS of_partition
        FROM pg_locks
        WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND relation IN ($1::text::regclass, $2::text::regclass) AND pid <> pg_backend_pid()
        GROUP BY pid)
    SELECT EXISTS (
        SELECT FROM holders h LEFT JOIN pg_stat_activity a USING (pid)
        WHERE a.backend_type IS DISTINCT FROM 'autovacuum worker'
          AND (a.xact_start < now() - make_interval(secs => $4) OR h.of_partition AND ($3 OR NOT h.of_table)))";

/// Server from 14 on, and no DEFAULT partition, which PostgreSQL would have to lock.
const CAN_DETACH_CONCURRENTLY: &str = "
    SELECT current_setting('server_version_num')::int >= 140000 AND partdefid = 0
    FROM pg_partitioned_table WHERE partrelid = $1::text::regclass";

/// Detaches a partition if all its rows were stored before `before`. Waits at most `left`.
pub(super) fn detach(
    client: &mut Client,
    partition: &Partition,
    before: DateTime<Utc>,
    left: Duration,
) -> Result<Detached, Error> {
    let (table, name) = (partition.table.name(), quoted(&partition.name));
    if partition.is_pending && !partition.is_marked {
        return Ok(Detached::No);
    }
    let detach = format!("ALTER TABLE {table} DETACH PARTITION {name}");
    let concurrently = if partition.is_pending {
        Some("FINALIZE")
    } else {
        client.query_one(CAN_DETACH_CONCURRENTLY, &[&table])?.get::<_, bool>(0).then_some("CONCURRENTLY")
    };
    let mut transaction = client.transaction()?;
    partitions::lock(&mut transaction)?;
    if !partition.is_marked && !mark(&mut transaction, partition, before)? {
        transaction.commit()?;
        return Ok(Detached::No);
    }
    let longest = WAIT_MAX.as_secs_f64();
    if transaction.query_one(IS_IN_USE, &[&table, &name, &partition.is_pending, &longest])?.get(0) {
        return Ok(Detached::InUse);
    }
    let done = match concurrently {
        None => transaction.batch_execute(&detach).and_then(|()| transaction.commit()),
        Some(how) => {
            transaction.commit()?;
            let wait = left.min(WAIT_MAX).as_millis().max(1);
            client.batch_execute(&format!("SET lock_timeout = 0; SET statement_timeout = {wait}"))?;
            let done = client.batch_execute(&format!("{detach} {how}"));
            client.batch_execute(MAINTENANCE_SETTINGS)?;
            done
        }
    };
    match done {
        Ok(()) => Ok(Detached::Yes),
        Err(error) if class(&error) == Class::Locked || error.code() == Some(&SqlState::QUERY_CANCELED) => {
            Ok(Detached::InUse)
        }
        Err(error) => Err(error),
    }
}

/// Marks a partition if all its rows are old. Writers note a new row under the same lock: none comes after the mark.
fn mark(transaction: &mut Transaction<'_>, partition: &Partition, before: DateTime<Utc>) -> Result<bool, Error> {
    if partition.table.is_kept_since_stored() && newest_stored_at(transaction, partition)? + NOTE_AGE >= before {
        return Ok(false);
    }
    transaction.execute(
        "INSERT INTO partition_notes (partition, newest_stored_at, outside, detaching_since) VALUES ($1, now(), false, now())
         ON CONFLICT (partition) DO UPDATE SET detaching_since = now()",
        &[&partition.name],
    )?;
    Ok(true)
}

/// Returns when a partition's newest row was stored, by its note; a missing note is created from the rows.
fn newest_stored_at(transaction: &mut Transaction<'_>, partition: &Partition) -> Result<DateTime<Utc>, Error> {
    transaction.execute(
        &format!(
            "INSERT INTO partition_notes (partition, newest_stored_at, outside)
             SELECT $1, coalesce((SELECT max(stored_at) FROM {}), now()), false
             WHERE NOT EXISTS (SELECT FROM partition_notes WHERE partition = $1)",
            quoted(&partition.name)
        ),
        &[&partition.name],
    )?;
    let newest = "SELECT newest_stored_at FROM partition_notes WHERE partition = $1";
    Ok(transaction.query_one(newest, &[&partition.name])?.get(0))
}

/// Returns the partitions that retention has detached and not dropped: not those that an operator detached.
pub(super) fn detached(client: &mut Client) -> Result<Vec<String>, Error> {
    let detached = "SELECT partition FROM partition_notes WHERE detaching_since IS NOT NULL AND NOT EXISTS (
                        SELECT FROM pg_inherits WHERE inhrelid = to_regclass(quote_ident(partition)))";
    Ok(client.query(detached, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Drops a detached partition, and returns false if a session uses it.
pub(super) fn drop(client: &mut Client, name: &str) -> Result<bool, Error> {
    let mut transaction = client.transaction()?;
    match transaction.batch_execute(&format!("DROP TABLE IF EXISTS {}", quoted(name))) {
        Err(error) if class(&error) == Class::Locked => return Ok(false),
        dropped => dropped?,
    }
    transaction.execute("DELETE FROM partition_notes WHERE partition = $1", &[&name])?;
    transaction.commit()?;
    Ok(true)
}
