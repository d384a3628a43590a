//! One batch, one transaction.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use postgres::{Error, Statement, Transaction};
use std::io::Write as _;

use super::copy;
use super::fault::{self, Class};
use super::refused::{pick, probe, put_letters};
use super::session::{Session, Statements};
use crate::consumer::batch::Batch;
use crate::consumer::store::rows::{self, Count, Letter, Renewed, Row, Table};
use crate::consumer::store::sequences::{self, Range};
use crate::consumer::store::{Applied, Fault};
use crate::event::{Epoch, Event};
use crate::failpoints;

/// Why a try did not come to its end; nothing of it is stored.
#[derive(Debug)]
pub(super) enum Stop {
    /// The database stands further than thought: try again from there.
    Floors(BTreeMap<i32, i64>),
    /// The lock of guard 1 was not to be had.
    Held,
    /// PostgreSQL said no.
    Sql(Error),
    /// No more to try.
    Fault(Fault),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Floors(_) => Self::Moved("PostgreSQL: another consumer went on".to_owned()),
            Stop::Held => Self::Away("PostgreSQL: another session holds what is needed".to_owned()),
            Stop::Sql(error) => error.into(),
            Stop::Fault(fault) => fault,
        }
    }
}

/// Whether rows that the database refuses are to be found one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Rows that are all new go straight into `events`, others as with `Swift`; a refusal ends the try.
    Straight,
    /// All rows by way of `incoming`, in one go; a refusal ends the try.
    Swift,
    /// Refused rows become dead letters.
    Picky,
}

/// Stores what of `batch` is not below `floors`; `rows` and `letters` are exactly that.
pub(super) fn attempt<'a>(
    session: &mut Session,
    batch: &'a Batch,
    floors: &BTreeMap<i32, i64>,
    rows: &mut Vec<Row<'a>>,
    mut letters: Vec<Letter<'a>>,
    care: Care,
) -> Result<Applied, Stop> {
    failpoints::pass("guard-1-before");
    let Session { client, sql } = session;
    let mut applied = Applied { floors: floors.clone(), ..Applied::default() };
    let mut transaction = client.transaction()?;
    rows::mark_latest(rows);
    match care {
        Care::Straight => {
            guard(&mut transaction, sql, batch, floors)?;
            if !write_straight(&mut transaction, sql, &batch.topic, rows, &mut applied)? {
                copy_in(&mut transaction, sql, rows)?;
                write(&mut transaction, sql, &batch.topic, rows, &mut applied)?;
            }
        }
        Care::Swift => {
            // The copying comes before the lock, so that nobody waits for our bytes.
            copy_in(&mut transaction, sql, rows)?;
            guard(&mut transaction, sql, batch, floors)?;
            write(&mut transaction, sql, &batch.topic, rows, &mut applied)?;
        }
        Care::Picky => {
            guard(&mut transaction, sql, batch, floors)?;
            let refused = pick(&mut transaction, sql, &batch.topic, rows, &mut applied)?;
            if refused.len() == rows.len() {
                probe(&mut transaction, sql, &batch.topic, rows)?;
            }
            letters.extend(refused);
        }
    }
    put_letters(&mut transaction, sql, batch, &letters)?;
    applied.refused = letters.iter().map(Letter::refused).collect();
    for (partition, slice) in &batch.slices {
        for (first, last) in &slice.gaps {
            transaction.execute(&sql.gaps, &[&batch.topic, partition, &slice.generation, first, last])?;
        }
    }
    advance(&mut transaction, sql, batch, floors)?;
    failpoints::pass("database-before-commit");
    transaction.commit()?;
    failpoints::pass("database-after-commit");
    read_back(session, batch)?;
    Ok(applied)
}

pub(super) fn copy_in(transaction: &mut Transaction<'_>, sql: &Statements, rows: &[Row<'_>]) -> Result<(), Error> {
    for table in rows::tables(rows) {
        send(transaction, &sql.of(table).copy, &copy::for_incoming(table, rows))?;
    }
    Ok(())
}

fn send(transaction: &mut Transaction<'_>, copy: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut writer = transaction.copy_in(copy)?;
    // What the server said is within; the writer, dropped unfinished, ends the COPY.
    if let Err(error) = writer.write_all(bytes)
        && let Some(inner) = error.into_inner()
        && let Ok(sql) = inner.downcast::<Error>()
    {
        return Err(*sql);
    }
    failpoints::pass("copying");
    writer.finish().map(drop)
}

/// Rows of which none was seen before, straight into their tables: one index less to fill, and nothing is written twice. Whether they
/// are such. The lock of guard 1 is held meanwhile: a session that is stopped in the middle of it is ended by its successor.
fn write_straight(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    topic: &str,
    rows: &[Row<'_>],
    applied: &mut Applied,
) -> Result<bool, Error> {
    let seen = rows::ranges(rows);
    let known = known_ranges(transaction, sql, &seen)?;
    let again = seen.iter().any(|(count, seen)| known.get(count).is_some_and(|known| sequences::meet(known, seen)));
    if rows.is_empty() || again || !rows::are_distinct(rows) {
        return Ok(false);
    }
    for table in rows::tables(rows) {
        send(transaction, &sql.of(table).copy_straight, &copy::straight(table, rows, topic))?;
    }
    applied.inserted += rows.len() as u64;
    put_ranges(transaction, sql, rows::renewed(&known, seen, &[]))?;
    if rows::latest(rows).next().is_some() {
        let latest = copy::for_incoming(Table::Events, rows::latest(rows));
        send(transaction, &sql.of(Table::Events).copy, &latest)?;
        put_breaches(transaction, sql, applied)?;
    }
    put_losses(transaction, sql, rows)?;
    Ok(true)
}

/// Guard 1: where the database stands, under a lock.
fn guard(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    batch: &Batch,
    floors: &BTreeMap<i32, i64>,
) -> Result<(), Stop> {
    let partitions: Vec<i32> = batch.slices.keys().copied().collect();
    let found = transaction
        .query(&sql.lock, &[&batch.topic, &partitions])
        .map_err(|error| if fault::class(&error) == Class::Locked { Stop::Held } else { Stop::Sql(error) })?;
    let found: BTreeMap<i32, (i64, i32)> = found.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let mut standing = floors.clone();
    for (&partition, slice) in &batch.slices {
        let moved = |what: String| Stop::Fault(Fault::Moved(format!("{}[{partition}] {what}", batch.topic)));
        let Some(&(next, generation)) = found.get(&partition) else {
            return Err(moved("has no row in kafka_offsets any more".to_owned()));
        };
        if generation != slice.generation {
            return Err(moved("was made anew, as another consumer found".to_owned()));
        }
        if next < slice.from && !failpoints::is_out("guard-1-gap") {
            return Err(moved(format!("stands at {next} in the database, before {} which was read", slice.from)));
        }
        if !failpoints::is_out("guard-1-skip") {
            standing.insert(partition, next);
        }
    }
    failpoints::pass("guard-1-after");
    if standing == *floors { Ok(()) } else { Err(Stop::Floors(standing)) }
}

/// What `incoming` and its like hold, into all tables that follow from it.
pub(super) fn write<'a>(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    topic: &str,
    rows: &[Row<'a>],
    applied: &mut Applied,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let seen = rows::ranges(rows);
    let known = known_ranges(transaction, sql, &seen)?;
    let mut doubled: Vec<&Event> = rows::twins(rows, &known);
    if seen.iter().any(|(count, seen)| known.get(count).is_some_and(|known| sequences::meet(known, seen))) {
        // Some numbers were seen before. Rows of them that are new all the same have another observed_at.
        for table in rows::tables(rows) {
            let new = transaction.query(&sql.of(table).insert_returning, &[&topic])?;
            applied.inserted += new.len() as u64;
            let mut suspects = rows::suspects(rows, table, &known);
            let new: std::collections::HashSet<(&str, &str, i64, DateTime<Utc>)> =
                new.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
            suspects.retain(|event| {
                let Event { id, stamp, .. } = event;
                new.contains(&(&stamp.agent, &id.epoch.to_string(), id.seq.cast_signed(), stamp.observed_at))
            });
            doubled.extend(with_other_times(transaction, &sql.of(table).other_times, &suspects)?);
        }
    } else {
        for table in rows::tables(rows) {
            applied.inserted += transaction.execute(&sql.of(table).insert, &[&topic])?;
        }
    }
    doubled.sort_by_key(|event| (&event.stamp.agent, event.id));
    doubled.dedup_by_key(|event| (&event.stamp.agent, event.id));
    applied.doubled.extend(doubled.iter().map(|event| format!("{} {}", event.stamp.agent, event.id)));
    let doubled: Vec<(&str, Epoch, i64)> =
        doubled.iter().map(|e| (e.stamp.agent.as_str(), e.id.epoch, e.id.seq.cast_signed())).collect();
    put_ranges(transaction, sql, rows::renewed(&known, seen, &doubled))?;
    if rows::latest(rows).next().is_some() {
        put_breaches(transaction, sql, applied)?;
    }
    put_losses(transaction, sql, rows)
}

fn known_ranges<'a>(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    seen: &BTreeMap<Count<'a>, Vec<Range>>,
) -> Result<BTreeMap<Count<'a>, Vec<Range>>, Error> {
    let flat: Vec<(Count<'a>, &Range)> =
        seen.iter().flat_map(|(count, ranges)| ranges.iter().map(|range| (*count, range))).collect();
    let agents: Vec<&str> = flat.iter().map(|((agent, _), _)| *agent).collect();
    let epochs: Vec<String> = flat.iter().map(|((_, epoch), _)| epoch.to_string()).collect();
    let firsts: Vec<i64> = flat.iter().map(|(_, range)| range.first).collect();
    let lasts: Vec<i64> = flat.iter().map(|(_, range)| range.last).collect();
    let counts: Vec<Count<'a>> = seen.keys().copied().collect();
    let mut known: BTreeMap<Count<'a>, Vec<Range>> = BTreeMap::new();
    for row in transaction.query(&sql.known_ranges, &[&agents, &epochs, &firsts, &lasts])? {
        let range = Range { first: row.get(2), last: row.get(3), began: Some(row.get(4)), doubled: row.get(5) };
        let (agent, epoch): (&str, &str) = (row.get(0), row.get(1));
        let epoch = epoch.parse().unwrap_or(Epoch(0));
        if let Ok(index) = counts.binary_search_by(|count| (count.0, count.1).cmp(&(agent, epoch))) {
            known.entry(counts[index]).or_default().push(range);
        }
    }
    Ok(known)
}

fn with_other_times<'a>(
    transaction: &mut Transaction<'_>,
    other_times: &Statement,
    suspects: &[&'a Event],
) -> Result<Vec<&'a Event>, Error> {
    if suspects.is_empty() {
        return Ok(Vec::new());
    }
    let agents: Vec<&str> = suspects.iter().map(|event| event.stamp.agent.as_str()).collect();
    let epochs: Vec<String> = suspects.iter().map(|event| event.id.epoch.to_string()).collect();
    let seqs: Vec<i64> = suspects.iter().map(|event| event.id.seq.cast_signed()).collect();
    let times: Vec<DateTime<Utc>> = suspects.iter().map(|event| event.stamp.observed_at).collect();
    let found = transaction.query(other_times, &[&agents, &epochs, &seqs, &times])?;
    let found: std::collections::HashSet<(&str, &str, i64)> =
        found.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let is_found =
        |event: &Event| found.contains(&(&event.stamp.agent, &event.id.epoch.to_string(), event.id.seq.cast_signed()));
    Ok(suspects.iter().copied().filter(|event| is_found(event)).collect())
}

fn put_ranges(transaction: &mut Transaction<'_>, sql: &Statements, (standing, gone): Renewed<'_>) -> Result<(), Error> {
    if !gone.is_empty() {
        let agents: Vec<&str> = gone.iter().map(|((agent, _), _)| *agent).collect();
        let epochs: Vec<String> = gone.iter().map(|((_, epoch), _)| epoch.to_string()).collect();
        let firsts: Vec<i64> = gone.iter().map(|(_, first)| *first).collect();
        transaction.execute(&sql.drop_ranges, &[&agents, &epochs, &firsts])?;
    }
    let agents: Vec<&str> = standing.iter().map(|((agent, _), _)| *agent).collect();
    let epochs: Vec<String> = standing.iter().map(|((_, epoch), _)| epoch.to_string()).collect();
    let firsts: Vec<i64> = standing.iter().map(|(_, range)| range.first).collect();
    let lasts: Vec<i64> = standing.iter().map(|(_, range)| range.last).collect();
    let begins: Vec<Option<DateTime<Utc>>> = standing.iter().map(|(_, range)| range.began).collect();
    let doubled: Vec<i64> = standing.iter().map(|(_, range)| range.doubled).collect();
    transaction.execute(&sql.put_ranges, &[&agents, &epochs, &firsts, &lasts, &begins, &doubled]).map(drop)
}

/// The breaches that `incoming` tells most of, and what they add to the totals.
fn put_breaches(transaction: &mut Transaction<'_>, sql: &Statements, applied: &mut Applied) -> Result<(), Error> {
    transaction.execute(&sql.breaches, &[])?;
    for row in transaction.query(&sql.totals, &[])? {
        let bytes: i64 = row.get(2);
        applied.add(row.get(0), row.get(1), bytes.unsigned_abs());
    }
    Ok(())
}

fn put_losses(transaction: &mut Transaction<'_>, sql: &Statements, rows: &[Row<'_>]) -> Result<(), Error> {
    let losses = rows::losses(rows);
    for of_one in losses.chunk_by(|a, b| std::ptr::eq(a.event, b.event)) {
        let Event { id, stamp, .. } = of_one[0].event;
        let all = of_one.len();
        let epochs: Vec<String> = of_one.iter().map(|lost| lost.epoch.to_string()).collect();
        let firsts: Vec<i64> = of_one.iter().map(|lost| lost.first).collect();
        let lasts: Vec<i64> = of_one.iter().map(|lost| lost.last).collect();
        transaction.execute(
            &sql.losses,
            &[
                &vec![stamp.agent.as_str(); all],
                &epochs,
                &firsts,
                &lasts,
                &vec![id.epoch.to_string(); all],
                &vec![id.seq.cast_signed(); all],
                &vec![stamp.observed_at; all],
                &of_one[0].reason,
                &of_one[0].detail,
            ],
        )?;
    }
    Ok(())
}

/// Guard 3.
fn advance(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    batch: &Batch,
    floors: &BTreeMap<i32, i64>,
) -> Result<(), Stop> {
    let ahead: Vec<_> = batch.slices.iter().filter(|(partition, slice)| floors[partition] < slice.to).collect();
    let partitions: Vec<i32> = ahead.iter().map(|(partition, _)| **partition).collect();
    let old: Vec<i64> = partitions.iter().map(|partition| floors[partition]).collect();
    let new: Vec<i64> = ahead.iter().map(|(_, slice)| slice.to).collect();
    let marks: Vec<_> = ahead.iter().map(|(_, slice)| slice.last()).collect();
    let offsets: Vec<Option<i64>> = marks.iter().map(|mark| mark.map(|mark| mark.offset)).collect();
    let times: Vec<Option<i64>> = marks.iter().map(|mark| mark.map(|mark| mark.timestamp_ms)).collect();
    let digests: Vec<Option<i64>> = marks.iter().map(|mark| mark.map(|mark| mark.digest)).collect();
    let moved =
        transaction.execute(&sql.advance, &[&batch.topic, &partitions, &old, &new, &offsets, &times, &digests])?;
    if moved == partitions.len() as u64 {
        Ok(())
    } else {
        Err(Stop::Fault(Fault::Moved(format!("{}: another consumer took a partition", batch.topic))))
    }
}

/// A commit that says it went well is believed when `next` says so too.
fn read_back(session: &mut Session, batch: &Batch) -> Result<(), Stop> {
    let partitions: Vec<i32> = batch.slices.keys().copied().collect();
    let rows = session.client.query(&session.sql.read_back, &[&batch.topic, &partitions])?;
    let next: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let holds = batch.slices.iter().all(|(partition, slice)| next.get(partition).is_some_and(|next| *next >= slice.to));
    if holds {
        Ok(())
    } else {
        Err(Stop::Fault(Fault::Moved(format!("{}: PostgreSQL did not keep what it committed", batch.topic))))
    }
}
