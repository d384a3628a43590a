//! Rows that the database refuses: which they are, and where they go.

use postgres::{Error, Transaction};

use super::apply::{Stop, copy_in, write};
use super::fault::{self, Class};
use super::session::Statements;
use super::tables::CLEAR;
use crate::consumer::batch::{Batch, Record};
use crate::consumer::store::rows::{self, Letter, Row, Table};
use crate::consumer::store::{Applied, Fault};
use crate::event::{Body, Epoch, Event, EventId, Sample, Stamp};

/// Stores `rows` but those that the database refuses alone, found by halving; those come back as letters.
pub(super) fn pick<'a>(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    topic: &str,
    rows: &mut [Row<'a>],
    applied: &mut Applied,
) -> Result<Vec<Letter<'a>>, Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut part = Applied::default();
    let mut savepoint = transaction.savepoint("part")?;
    rows::mark_latest(rows);
    let result = copy_in(&mut savepoint, sql, rows).and_then(|()| write(&mut savepoint, sql, topic, rows, &mut part));
    let error = match result {
        Ok(()) => {
            savepoint.batch_execute(CLEAR)?;
            savepoint.commit()?;
            applied.inserted += part.inserted;
            applied.doubled.append(&mut part.doubled);
            for ((agent, interface), bytes) in part.grown {
                applied.add(&agent, &interface, bytes);
            }
            return Ok(Vec::new());
        }
        Err(error) if fault::class(&error) == Class::Refused => error,
        Err(error) => return Err(error),
    };
    savepoint.rollback()?;
    if let [row] = rows {
        return Ok(vec![Letter::new(row.record, row.partition, &fault::text(&error))]);
    }
    let (left, right) = rows.split_at_mut(rows.len() / 2);
    let mut refused = pick(transaction, sql, topic, left, applied)?;
    refused.append(&mut pick(transaction, sql, topic, right, applied)?);
    Ok(refused)
}

/// Every row was refused: are they bad, or is the database? It is asked with a row of ours for the same table and day, which is
/// then taken back.
pub(super) fn probe(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    topic: &str,
    rows: &[Row<'_>],
) -> Result<(), Stop> {
    let Some(of_a_known_day) = rows.first() else { return Ok(()) };
    let event = Event {
        id: EventId { epoch: Epoch(0), seq: 1 },
        stamp: Stamp {
            agent: "highwater-consumer-probe".into(),
            observed_at: of_a_known_day.event.stamp.observed_at,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: None,
        },
        body: match Table::of(of_a_known_day.event) {
            Table::Events => Body::Unknown("probe".to_owned()),
            Table::Samples => Body::Sample(Sample::default()),
        },
    };
    let record =
        Record { offset: 0, timestamp_ms: None, key: None, payload: None, content: Err(String::new()), raw: None };
    let row = Row { event: &event, record: &record, partition: 0, greatest_bytes: None };
    let mut savepoint = transaction.savepoint("probe")?;
    let result = copy_in(&mut savepoint, sql, &[row])
        .and_then(|()| write(&mut savepoint, sql, topic, &[row], &mut Applied::default()));
    match result {
        Ok(()) => Ok(savepoint.rollback()?),
        Err(error) if fault::class(&error) == Class::Refused => Err(Stop::Fault(Fault::Misconfigured(format!(
            "PostgreSQL refuses every row, even one of ours: {}",
            fault::text(&error)
        )))),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn put_letters(
    transaction: &mut Transaction<'_>,
    sql: &Statements,
    batch: &Batch,
    letters: &[Letter<'_>],
) -> Result<(), Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let partitions: Vec<i32> = letters.iter().map(|letter| letter.partition).collect();
    let generations: Vec<i32> = partitions.iter().map(|partition| batch.slices[partition].generation).collect();
    let offsets: Vec<i64> = letters.iter().map(|letter| letter.record.offset).collect();
    let keys: Vec<Option<&[u8]>> = letters.iter().map(|letter| letter.record.key.as_deref()).collect();
    let payloads: Vec<Option<&[u8]>> = letters.iter().map(|letter| letter.record.payload.as_deref()).collect();
    let errors: Vec<&str> = letters.iter().map(|letter| letter.error.as_str()).collect();
    transaction
        .execute(&sql.letters, &[&batch.topic, &partitions, &generations, &offsets, &keys, &payloads, &errors])
        .map(drop)
}
