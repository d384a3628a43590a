use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use chrono::{DateTime, NaiveDate, Utc};
use postgres::types::ToSql;
use postgres::{CopyInWriter, Statement};

use super::columns::{ColumnArray, column, index};
use super::sqlstate::{self, Class};
use super::statements::Statements;
use super::{PostgresSession, copy};
use crate::consumer::batch::{Fingerprint, Gap, TopicId};
use crate::consumer::store::agents::{AgentChange, KnownAgent};
use crate::consumer::store::apply::{self, AttemptError, UnpartitionedRow};
use crate::consumer::store::rows::{
    self, BreachChanges, BreachKey, DeadLetterRow, KnownBreach, LatestBreach, LatestBreaches, LossRow, RangeChanges,
    Rank, Row, SeriesRanges, TouchedHour,
};
use crate::consumer::store::sequences::SequenceRange;
use crate::consumer::store::tables::{self, Table};
use crate::consumer::store::{DeadLetterKey, OffsetRanges, StoreError, TotalKey};
use crate::message::Epoch;
use crate::process::failpoints;

/// Bound of memory: if each event is another agent's, the arrays of a statement would be most of it.
const CHANGED_AT_ONCE: usize = 1_000;

pub(super) struct PostgresTransaction<'s> {
    inner: postgres::Transaction<'s>,
    sql: &'s Statements,
    locking: bool,
    desynced: &'s Cell<bool>,
}

impl apply::Session for PostgresSession {
    type Transaction<'s> = PostgresTransaction<'s>;

    fn begin(&mut self, _now: DateTime<Utc>, locking: bool) -> Result<PostgresTransaction<'_>, AttemptError> {
        self.resync()?;
        Ok(PostgresTransaction { inner: self.client.transaction()?, sql: &self.sql, locking, desynced: &self.desynced })
    }

    fn create_partitions<'a>(&mut self, rows: &[Row<'a>]) -> Result<Vec<UnpartitionedRow<'a>>, StoreError> {
        self.partitions.create_missing(&mut self.client, rows)
    }

    fn forget_partitions(&mut self) {
        self.partitions.forget();
    }

    fn end_checkpoint_holders(&mut self, topic: &TopicId, partitions: &[i32]) -> StoreError {
        super::end_checkpoint_holders(&mut self.client, topic, partitions).unwrap_or_else(Into::into)
    }

    fn read_back(&mut self, topic: &TopicId, bounds: &OffsetRanges) -> Result<bool, AttemptError> {
        let partitions: Vec<i32> = bounds.keys().copied().collect();
        let rows = self.client.query(&self.sql.read_back, &[&topic.cluster, &topic.name, &partitions])?;
        let next: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(bounds.iter().all(|(partition, (_, to))| next.get(partition).is_some_and(|next| next >= to)))
    }
}

impl PostgresTransaction<'_> {
    /// Updates first: most rows exist, and an update is half the work of an upsert.
    fn add_totals(&mut self, totals: &BTreeMap<(TotalKey, NaiveDate), (i64, i64)>) -> Result<(), AttemptError> {
        let mut all: Vec<_> = totals.iter().collect();
        for statement in [&self.sql.add_totals, &self.sql.put_totals] {
            if all.is_empty() {
                break;
            }
            let parameters: [&(dyn ToSql + Sync); 7] = [
                &column(&all, |((key, _), _)| key.agent.as_str()),
                &column(&all, |((key, _), _)| key.interface.as_str()),
                &column(&all, |((key, _), _)| key.direction),
                &column(&all, |((key, _), _)| key.limit_name.as_str()),
                &column(&all, |((_, day), _)| *day),
                &column(&all, |(_, (breaches, _))| *breaches),
                &column(&all, |(_, (_, bytes))| *bytes),
            ];
            let done = indices(&self.inner.query(statement, &parameters)?);
            let mut index = 0..;
            all.retain(|_| index.next().is_some_and(|index| !done.contains(&index)));
        }
        Ok(())
    }

    fn indices(&mut self, statement: &Statement, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError> {
        let parameters: [&(dyn ToSql + Sync); 4] = [
            &column(rows, |row| row.event.stamp.agent.as_str()),
            &column(rows, |row| row.event.stamp.observed_at),
            &column(rows, |row| row.event.id.epoch.to_string()),
            &column(rows, |row| row.event.id.seq.cast_signed()),
        ];
        Ok(indices(&self.inner.query(statement, &parameters)?))
    }
}

fn of_line(error: postgres::Error, place: impl FnOnce(usize) -> Option<(i32, i64)>) -> AttemptError {
    let at = sqlstate::copy_line(&error).and_then(place);
    AttemptError::from(error).of_record(at)
}

fn indices(rows: &[postgres::Row]) -> HashSet<usize> {
    rows.iter().map(index).collect()
}

/// Fails if what was read without a lock has changed since.
fn expect_all(what: &str, expected: usize, written: u64) -> Result<(), AttemptError> {
    if written == expected as u64 {
        return Ok(());
    }
    Err(AttemptError::ConcurrentWrite(StoreError::Unavailable(format!(
        "PostgreSQL: another consumer wrote the same {what}"
    ))))
}

impl apply::Transaction for PostgresTransaction<'_> {
    fn lock_checkpoints(
        &mut self,
        topic: &TopicId,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, (i64, i32)>, AttemptError> {
        let found = self.inner.query(&self.sql.lock_checkpoints, &[&topic.cluster, &topic.name, &partitions]).map_err(
            |error| match sqlstate::class(&error) {
                Class::Locked => AttemptError::CheckpointLocked,
                _ => error.into(),
            },
        )?;
        Ok(found.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    fn known_ranges<'a>(&mut self, seen: &SeriesRanges<'a>) -> Result<SeriesRanges<'a>, AttemptError> {
        let flat = seen.iter().flat_map(|(series, ranges)| ranges.iter().map(move |range| (*series, range)));
        let flat: Vec<_> = flat.collect();
        let parameters: [&(dyn ToSql + Sync); 4] = [
            &column(&flat, |((agent, _), _)| *agent),
            &column(&flat, |((_, epoch), _)| epoch.to_string()),
            &column(&flat, |(_, range)| range.first),
            &column(&flat, |(_, range)| range.last),
        ];
        let all: Vec<rows::Series<'a>> = seen.keys().copied().collect();
        let mut known: SeriesRanges<'a> = BTreeMap::new();
        for row in self.inner.query(self.sql.known_ranges.of(self.locking), &parameters)? {
            let (agent, epoch): (&str, &str) = (row.get(0), row.get(1));
            let epoch = epoch.parse().unwrap_or(Epoch(0));
            let range = SequenceRange {
                first: row.get(2),
                last: row.get(3),
                counted: Table::named(row.get(4)),
                first_stored_at: Some(row.get(5)),
                identity_conflicts: row.get(6),
            };
            let Ok(index) = all.binary_search(&(agent, epoch)) else { continue };
            let of_one = known.entry(all[index]).or_default();
            // Two of the requested ranges may touch the same one.
            if of_one.last() != Some(&range) {
                of_one.push(range);
            }
        }
        Ok(known)
    }

    fn existing(&mut self, table: Table, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError> {
        self.indices(&self.sql.of(table).existing, rows)
    }

    fn have_other_times(&mut self, table: Table, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError> {
        self.indices(&self.sql.of(table).other_times, rows)
    }

    fn insert(&mut self, table: Table, topic: &TopicId, rows: &[&Row<'_>]) -> Result<(), AttemptError> {
        let statement = self.sql.copy(table);
        if !table.is_by_link() {
            let write = |out: &mut CopyInWriter<'_>| copy::write_rows(out, table, &topic.name, rows);
            return copy_in(&mut self.inner, statement, write, self.desynced)
                .map_err(|error| of_line(error, |line| Some(rows.get(line)?.kafka_position())));
        }
        let links = rows::links(table, rows);
        if links.is_empty() {
            return Ok(());
        }
        let write = |out: &mut CopyInWriter<'_>| copy::write_links(out, table, &topic.name, &links);
        copy_in(&mut self.inner, statement, write, self.desynced)
            .map_err(|error| of_line(error, |line| Some(links.get(line)?.0.kafka_position())))
    }

    fn put_ranges(&mut self, RangeChanges { new, changed, gone }: RangeChanges<'_>) -> Result<(), AttemptError> {
        if !gone.is_empty() {
            let parameters: [&(dyn ToSql + Sync); 5] = [
                &column(&gone, |((agent, _), _)| *agent),
                &column(&gone, |((_, epoch), _)| epoch.to_string()),
                &column(&gone, |(_, range)| range.first),
                &column(&gone, |(_, range)| range.last),
                &column(&gone, |(_, range)| range.identity_conflicts),
            ];
            let there = self.inner.execute(&self.sql.drop_ranges, &parameters)?;
            expect_all("ranges", gone.len(), there)?;
        }
        for changed in changed.chunks(CHANGED_AT_ONCE) {
            let parameters: [&(dyn ToSql + Sync); 8] = [
                &column(changed, |((agent, _), ..)| *agent),
                &column(changed, |((_, epoch), ..)| epoch.to_string()),
                &column(changed, |(.., new)| new.first),
                &column(changed, |(_, old, _)| old.last),
                &column(changed, |(.., new)| new.last),
                &column(changed, |(.., new)| new.first_stored_at),
                &column(changed, |(_, old, _)| old.identity_conflicts),
                &column(changed, |(.., new)| new.identity_conflicts),
            ];
            expect_all("ranges", changed.len(), self.inner.execute(&self.sql.change_ranges, &parameters)?)?;
        }
        if !new.is_empty() {
            let parameters: [&(dyn ToSql + Sync); 7] = [
                &column(&new, |((agent, _), _)| *agent),
                &column(&new, |((_, epoch), _)| epoch.to_string()),
                &column(&new, |(_, range)| range.first),
                &column(&new, |(_, range)| range.last),
                &column(&new, |(_, range)| range.counted.name()),
                &column(&new, |(_, range)| range.first_stored_at),
                &column(&new, |(_, range)| range.identity_conflicts),
            ];
            expect_all("ranges", new.len(), self.inner.execute(&self.sql.insert_ranges, &parameters)?)?;
        }
        Ok(())
    }

    fn known_breaches<'a>(
        &mut self,
        breaches: &LatestBreaches<'a>,
    ) -> Result<HashMap<BreachKey<'a>, KnownBreach>, AttemptError> {
        let asked = breaches.iter().filter(|(_, latest)| self.locking || !latest.is_new);
        let breaches: Vec<BreachKey<'a>> = asked.map(|(key, _)| *key).collect();
        let (agents, ids) = (column(&breaches, |(agent, _)| *agent), column(&breaches, |(_, id)| *id));
        let mut known = HashMap::new();
        for row in self.inner.query(self.sql.known_breaches.of(self.locking), &[&agents, &ids])? {
            let Ok(index) = breaches.binary_search(&(row.get(0), row.get(1))) else { continue };
            let rank = Rank {
                cleared: row.get(2),
                duration_ms: row.get(3),
                epoch: row.get::<_, &str>(4).parse().unwrap_or(Epoch(0)),
                seq: row.get(5),
                observed_at: row.get(6),
            };
            known.insert(breaches[index], KnownBreach { rank, counted_bytes: row.get(7) });
        }
        Ok(known)
    }

    fn put_breaches(&mut self, changes: &BreachChanges<'_>) -> Result<(), AttemptError> {
        if !changes.new.is_empty() {
            let write = |out: &mut CopyInWriter<'_>| copy::write_breaches(out, &changes.new);
            copy_in(&mut self.inner, &self.sql.copy_breaches, write, self.desynced).map_err(|error| {
                match error.into() {
                    // Another consumer has written it since, or it was wrongly taken for new.
                    AttemptError::Duplicate(error) => AttemptError::ConcurrentWrite(error),
                    other => other,
                }
            })?;
        }
        for changed in changes.changed.chunks(CHANGED_AT_ONCE) {
            let (breaches, known): (Vec<LatestBreach<'_>>, Vec<KnownBreach>) = changed.iter().copied().unzip();
            let there = change_breaches(&mut self.inner, &self.sql.change_breaches, &breaches, &known)?;
            expect_all("breaches", breaches.len(), there)?;
        }
        if !changes.counted.is_empty() {
            let parameters: [&(dyn ToSql + Sync); 4] = [
                &column(&changes.counted, |(latest, _)| latest.event.stamp.agent.as_str()),
                &column(&changes.counted, |(latest, _)| latest.breach.breach_id.as_str()),
                &column(&changes.counted, |(_, known)| known.counted_bytes),
                &column(&changes.counted, |(latest, _)| latest.counted_bytes),
            ];
            let there = self.inner.execute(&self.sql.count_breaches, &parameters)?;
            expect_all("breaches", changes.counted.len(), there)?;
        }
        self.add_totals(&changes.totals)
    }

    fn put_losses(&mut self, losses: &[LossRow<'_>]) -> Result<(), AttemptError> {
        let parameters: [&(dyn ToSql + Sync); 9] = [
            &column(losses, |lost| lost.event.stamp.agent.as_str()),
            &column(losses, |lost| lost.epoch.to_string()),
            &column(losses, |lost| lost.first),
            &column(losses, |lost| lost.last),
            &column(losses, |lost| lost.event.id.epoch.to_string()),
            &column(losses, |lost| lost.event.id.seq.cast_signed()),
            &column(losses, |lost| lost.event.stamp.observed_at),
            &column(losses, |lost| lost.reason),
            &column(losses, |lost| lost.detail),
        ];
        self.inner.execute(&self.sql.put_losses, &parameters)?;
        Ok(())
    }

    fn put_touched_hours(&mut self, hours: &[TouchedHour<'_>]) -> Result<(), AttemptError> {
        let (agents, starts) = (column(hours, |(agent, _)| *agent), column(hours, |(_, starts_at)| *starts_at));
        self.inner.execute(&self.sql.put_touched_hours, &[&agents, &starts])?;
        Ok(())
    }

    fn known_agents<'a>(&mut self, agents: &[&'a str]) -> Result<HashMap<&'a str, KnownAgent>, AttemptError> {
        let mut known = HashMap::new();
        for row in self.inner.query(self.sql.known_agents.of(self.locking), &[&agents])? {
            let Ok(index) = agents.binary_search(&row.get(0)) else { continue };
            let state = KnownAgent {
                epoch: row.get::<_, &str>(1).parse().unwrap_or(Epoch(0)),
                seq: row.get(2),
                observed_at: row.get(3),
                is_running: row.get(4),
                version: row.get(5),
                clock_synced: row.get(6),
                last_started_at: row.get(7),
            };
            known.insert(agents[index], state);
        }
        Ok(known)
    }

    fn put_agents(&mut self, changes: &[AgentChange<'_>]) -> Result<(), AttemptError> {
        for changes in changes.chunks(CHANGED_AT_ONCE) {
            let parameters: [&(dyn ToSql + Sync); 10] = [
                &column(changes, |change| change.agent),
                &column(changes, |change| change.new.epoch.to_string()),
                &column(changes, |change| change.new.seq),
                &column(changes, |change| change.new.observed_at),
                &column(changes, |change| change.new.state()),
                &column(changes, |change| change.new.version.as_deref()),
                &column(changes, |change| change.new.clock_synced),
                &column(changes, |change| change.new.last_started_at),
                &column(changes, |change| change.old.as_ref().map(|old| old.epoch.to_string())),
                &column(changes, |change| change.old.as_ref().map(|old| old.seq)),
            ];
            let written = self.inner.execute(&self.sql.insert_agents, &parameters)?
                + self.inner.execute(&self.sql.change_agents, &parameters)?;
            expect_all("agents", changes.len(), written)?;
        }
        Ok(())
    }

    fn put_dead_letters(&mut self, topic: &TopicId, letters: &[DeadLetterRow<'_>]) -> Result<(), AttemptError> {
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &topic.cluster,
            &topic.name,
            &column(letters, |letter| letter.partition),
            &column(letters, |letter| letter.generation),
            &column(letters, |letter| letter.record.offset),
            &column(letters, |letter| letter.record.timestamp()),
            &column(letters, |letter| letter.record.headers.as_bytes()),
            &column(letters, |letter| letter.record.key.as_deref()),
            &column(letters, |letter| letter.record.payload.as_deref()),
            &column(letters, |letter| letter.error.as_str()),
            &column(letters, |letter| letter.claimed.agent.as_deref()),
            &column(letters, |letter| letter.claimed.id.map(|(epoch, _)| epoch.to_string())),
            &column(letters, |letter| letter.claimed.id.map(|(_, seq)| seq)),
        ];
        self.inner.execute(&self.sql.put_dead_letters, &parameters)?;
        Ok(())
    }

    fn put_gap(&mut self, topic: &TopicId, partition: i32, generation: i32, gap: Gap) -> Result<(), AttemptError> {
        Ok(super::put_gap(&mut self.inner, &self.sql.put_gap, topic, partition, generation, gap)?)
    }

    fn advance(
        &mut self,
        topic: &TopicId,
        ahead: &[(i32, (i64, i64), Option<Fingerprint>)],
    ) -> Result<usize, AttemptError> {
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &topic.cluster,
            &topic.name,
            &column(ahead, |(partition, ..)| *partition),
            &column(ahead, |(_, (from, _), _)| *from),
            &column(ahead, |(_, (_, to), _)| *to),
            &column(ahead, |(.., last)| last.map(|last| last.offset)),
            &column(ahead, |(.., last)| last.map(|last| last.timestamp_ms)),
            &column(ahead, |(.., last)| last.map(|last| last.digest)),
        ];
        Ok(self.inner.execute(&self.sql.advance, &parameters)? as usize)
    }

    fn lock_dead_letters(
        &mut self,
        topic: &TopicId,
        letters: &[DeadLetterKey],
    ) -> Result<HashSet<DeadLetterKey>, AttemptError> {
        let (partitions, generations, offsets) = dead_letter_columns(letters);
        let parameters: [&(dyn ToSql + Sync); 5] = [&topic.cluster, &topic.name, &partitions, &generations, &offsets];
        let there = self.inner.query(&self.sql.lock_dead_letters, &parameters)?;
        Ok(there.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }

    fn delete_dead_letters(&mut self, topic: &TopicId, letters: &[DeadLetterKey]) -> Result<(), AttemptError> {
        let (partitions, generations, offsets) = dead_letter_columns(letters);
        let parameters: [&(dyn ToSql + Sync); 5] = [&topic.cluster, &topic.name, &partitions, &generations, &offsets];
        self.inner.execute(&self.sql.delete_dead_letters, &parameters)?;
        Ok(())
    }

    fn commit(self) -> Result<(), AttemptError> {
        Ok(self.inner.commit()?)
    }
}

pub(super) fn dead_letter_columns(letters: &[DeadLetterKey]) -> (Vec<i32>, Vec<i32>, Vec<i64>) {
    let partitions = column(letters, |(partition, ..)| *partition);
    let generations = column(letters, |(_, generation, _)| *generation);
    (partitions, generations, column(letters, |(.., offset)| *offset))
}

fn copy_in(
    transaction: &mut postgres::Transaction<'_>,
    statement: &str,
    write: impl FnOnce(&mut CopyInWriter<'_>) -> io::Result<()>,
    desynced: &Cell<bool>,
) -> Result<(), postgres::Error> {
    let mut writer = transaction.copy_in(statement).inspect_err(|_| desynced.set(true))?;
    // The server's error is within; the writer, dropped unfinished, ends the COPY.
    if let Err(error) = write(&mut writer)
        && let Some(inner) = error.into_inner()
        && let Ok(sql) = inner.downcast::<postgres::Error>()
    {
        return Err(*sql);
    }
    failpoints::hit("copying");
    writer.finish().map(drop)
}

fn change_breaches(
    transaction: &mut postgres::Transaction<'_>,
    statement: &Statement,
    breaches: &[LatestBreach<'_>],
    known: &[KnownBreach],
) -> Result<u64, postgres::Error> {
    let mut columns: Vec<ColumnArray<'_>> = tables::breach_state_fields().map(ColumnArray::of).collect();
    for latest in breaches {
        let mut next = columns.iter_mut();
        latest.event.visit_all(|field, value| {
            if tables::is_of_breach_state(field)
                && let Some(column) = next.next()
            {
                column.push(value);
            }
        });
    }
    let states = column(breaches, LatestBreach::state);
    let counted_bytes = column(breaches, |latest| latest.counted_bytes);
    let mut new: Vec<&(dyn ToSql + Sync)> = columns.iter().map(ColumnArray::parameter).collect();
    new.push(&states);
    new.push(&counted_bytes);
    let old: [&(dyn ToSql + Sync); 3] = [
        &column(known, |known| known.rank.epoch.to_string()),
        &column(known, |known| known.rank.seq),
        &column(known, |known| known.counted_bytes),
    ];
    transaction.execute(statement, &[&new[..], &old[..]].concat())
}
