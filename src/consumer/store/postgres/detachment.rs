//! Detaching partitions whose rows have expired, without a lock that a query of their table would wait for (PostgreSQL 14 or later).
//! A mark in `partition_notes` comes first: a marked partition takes no more rows, and what was interrupted goes on from there.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use postgres::error::SqlState;
use postgres::{Client, Error, Transaction};

use super::partitions::{self, Partition};
use super::sqlstate::{Class, class};
use super::{MAINTENANCE_SETTINGS, quoted};

pub(super) enum Detachment {
    Done,
    NotOld,
    Blocked(String),
}

/// Longest wait for a transaction that had begun to use the table. If it locked the partition by its own name, or if an interrupted
/// detachment is completed, no writer can attach a partition meanwhile: less than the 5 s in which an event has to be stored.
const WAIT_MAX: &str = "3s";

const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// Time by which the newest row of a partition may be newer than its note: see [`partitions`].
const NOTE_AGE: TimeDelta = TimeDelta::days(1);

/// State of partition `$2` of table `$1`: its mark, the one partition of the table that is pending, and whether it can be detached
/// beside queries (not with PostgreSQL 13, nor beside a DEFAULT partition, which would have to be locked).
const STATE: &str = "
    SELECT n.detaching_since IS NOT NULL, p.inhrelid::regclass::text, p.inhrelid IS NOT DISTINCT FROM i.inhrelid,
           current_setting('server_version_num')::int >= 140000 AND t.partdefid = 0
    FROM pg_inherits i JOIN pg_partitioned_table t ON t.partrelid = i.inhparent
         LEFT JOIN partition_notes n ON n.partition = $2
         LEFT JOIN pg_inherits p ON p.inhparent = i.inhparent AND (to_jsonb(p) ->> 'inhdetachpending')::boolean
    WHERE i.inhparent = $1::text::regclass AND i.inhrelid = to_regclass(quote_ident($2))";

/// Another session uses relation `$1`, or a prepared transaction does.
const IS_USED: &str = "
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND relation = to_regclass(quote_ident($1)) AND pid IS DISTINCT FROM pg_backend_pid())";

/// Detaches a partition if all its rows were stored before `before`. Waits at most `left`.
pub(super) fn detach(
    client: &mut Client,
    partition: &Partition,
    before: DateTime<Utc>,
    left: Duration,
) -> Result<Detachment, Error> {
    let (table, name) = (partition.table.name(), &partition.name);
    let in_use = || Ok(Detachment::Blocked(format!("{name} is in use")));
    let mut transaction = client.transaction()?;
    partitions::lock(&mut transaction)?;
    let Some(state) = transaction.query_opt(STATE, &[&table, name])? else { return Ok(Detachment::NotOld) };
    let (is_marked, pending, is_pending): (bool, Option<String>, bool) = (state.get(0), state.get(1), state.get(2));
    let can_be_concurrent: bool = state.get(3);
    let finalizes = is_marked && is_pending;
    // A mark can be taken back, unlike what is pending: retention may be longer by now, or a restored dump brought the mark.
    if !finalizes && !is_old(&mut transaction, partition, before)? {
        mark(&mut transaction, name, false)?;
        transaction.commit()?;
        return Ok(Detachment::NotOld);
    }
    if let Some(pending) = pending.filter(|_| !finalizes) {
        let finalize = format!("ALTER TABLE {table} DETACH PARTITION {pending} FINALIZE");
        let by_other =
            format!("another session detaches {pending}; if that was interrupted, `{finalize}` completes it");
        return Ok(Detachment::Blocked(by_other));
    }
    if finalizes && transaction.query_one(IS_USED, &[name])?.get(0) {
        return in_use();
    }
    mark(&mut transaction, name, true)?;
    let detach = format!("ALTER TABLE {table} DETACH PARTITION {}", quoted(name));
    if !finalizes && !can_be_concurrent {
        return match transaction.batch_execute(&detach).and_then(|()| transaction.commit()) {
            Ok(()) => Ok(Detachment::Done),
            Err(error) if is_timeout(&error) => in_use(),
            Err(error) => Err(error),
        };
    }
    transaction.commit()?;
    let how = if finalizes { "FINALIZE" } else { "CONCURRENTLY" };
    let longest = left.min(STATEMENT_MAX).as_millis().max(1);
    client.batch_execute(&format!("SET lock_timeout = '{WAIT_MAX}'; SET statement_timeout = {longest}"))?;
    let detached = client.batch_execute(&format!("{detach} {how}"));
    client.batch_execute(MAINTENANCE_SETTINGS)?;
    let Err(error) = detached else { return Ok(Detachment::Done) };
    // A mark without a detachment of ours would drop what an operator detaches.
    let mut transaction = client.transaction()?;
    let state = transaction.query_opt(STATE, &[&table, name])?;
    let is_ours = is_timeout(&error) && state.is_some_and(|state| state.get(2));
    mark(&mut transaction, name, is_ours)?;
    transaction.commit()?;
    if is_timeout(&error) { in_use() } else { Err(error) }
}

fn is_timeout(error: &Error) -> bool {
    class(error) == Class::Locked || error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Returns whether all rows of a partition are old. Writers note a new row under the same lock: none comes after the mark.
fn is_old(transaction: &mut Transaction<'_>, partition: &Partition, before: DateTime<Utc>) -> Result<bool, Error> {
    Ok(partition.to <= before
        && (!partition.table.is_kept_since_stored() || newest_stored_at(transaction, partition)? + NOTE_AGE < before))
}

fn mark(transaction: &mut Transaction<'_>, name: &str, is_marked: bool) -> Result<(), Error> {
    let sql = if is_marked {
        "INSERT INTO partition_notes (partition, newest_stored_at, outside, detaching_since) VALUES ($1, now(), false, now())
         ON CONFLICT (partition) DO UPDATE SET detaching_since = coalesce(partition_notes.detaching_since, now())"
    } else {
        "UPDATE partition_notes SET detaching_since = NULL WHERE partition = $1 AND detaching_since IS NOT NULL"
    };
    transaction.execute(sql, &[&name]).map(drop)
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
pub(super) fn drop_table(client: &mut Client, name: &str) -> Result<bool, Error> {
    let mut transaction = client.transaction()?;
    match transaction.batch_execute(&format!("DROP TABLE IF EXISTS {}", quoted(name))) {
        Err(error) if is_timeout(&error) => return Ok(false),
        dropped => dropped?,
    }
    transaction.execute("DELETE FROM partition_notes WHERE partition = $1", &[&name])?;
    transaction.commit()?;
    Ok(true)
}
