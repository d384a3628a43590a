//! Transactions in PostgreSQL.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;

use chrono::{DateTime, NaiveDate, Utc};
use postgres::Statement;
use postgres::types::ToSql;

use super::columns::ColumnArray;
use super::sqlstate::{self, Class};
use super::statements::Statements;
use super::{PostgresSession, copy};
use crate::consumer::batch::{Fingerprint, Gap, TopicId};
use crate::consumer::store::apply::{self, AttemptError, Unplaceable};
use crate::consumer::store::rows::{
    self, Bounds, BreachChanges, BreachKey, DeadLetterRow, KnownBreach, LastWord, Lost, RangeChanges, Rank, Row,
    SeriesRanges,
};
use crate::consumer::store::sequences::SequenceRange;
use crate::consumer::store::tables::{self, Table};
use crate::consumer::store::{StoreError, TotalKey};
use crate::event::Epoch;
use crate::failpoints;

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

    fn make_partitions(&mut self, rows: &[Row<'_>]) -> Result<Vec<Unplaceable>, StoreError> {
        self.partitions.make(&mut self.client, rows)
    }

    fn forget_partitions(&mut self) {
        self.partitions.forget();
    }

    fn end_holders(&mut self, topic: &TopicId, partitions: &[i32]) -> StoreError {
        super::end_holders(&mut self.client, topic, partitions).unwrap_or_else(Into::into)
    }

    fn read_back(&mut self, topic: &TopicId, bounds: &Bounds) -> Result<bool, AttemptError> {
        let partitions: Vec<i32> = bounds.keys().copied().collect();
        let rows = self.client.query(&self.sql.read_back, &[&topic.cluster, &topic.name, &partitions])?;
        let next: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(bounds.iter().all(|(partition, (_, to))| next.get(partition).is_some_and(|next| next >= to)))
    }
}

impl PostgresTransaction<'_> {
    /// Updates first: most are there already, and an update is half the work of an upsert.
    fn add_totals(&mut self, totals: &BTreeMap<(TotalKey, NaiveDate), (i64, i64)>) -> Result<(), AttemptError> {
        let mut all: Vec<_> = totals.iter().collect();
        for statement in [&self.sql.add_totals, &self.sql.put_totals] {
            if all.is_empty() {
                break;
            }
            let text =
                |part: fn(&TotalKey) -> &str| -> Vec<&str> { all.iter().map(|((key, _), _)| part(key)).collect() };
            let days: Vec<NaiveDate> = all.iter().map(|((_, day), _)| *day).collect();
            let breaches: Vec<i64> = all.iter().map(|(_, (breaches, _))| *breaches).collect();
            let bytes: Vec<i64> = all.iter().map(|(_, (_, bytes))| *bytes).collect();
            let parameters: [&(dyn ToSql + Sync); 7] = [
                &text(|key| &key.agent),
                &text(|key| &key.interface),
                &text(|key| key.direction),
                &text(|key| &key.limit_name),
                &days,
                &breaches,
                &bytes,
            ];
            let done = indices(&self.inner.query(statement, &parameters)?);
            let mut index = 0..;
            all.retain(|_| index.next().is_some_and(|index| !done.contains(&index)));
        }
        Ok(())
    }

    fn indices(&mut self, statement: &Statement, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError> {
        let agents: Vec<&str> = rows.iter().map(|row| row.event.stamp.agent.as_str()).collect();
        let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.event.stamp.observed_at).collect();
        let epochs: Vec<String> = rows.iter().map(|row| row.event.id.epoch.to_string()).collect();
        let seqs: Vec<i64> = rows.iter().map(|row| row.event.id.seq.cast_signed()).collect();
        Ok(indices(&self.inner.query(statement, &[&agents, &times, &epochs, &seqs])?))
    }
}

/// Reads row numbers, from 1, as indices.
fn indices(rows: &[postgres::Row]) -> HashSet<usize> {
    rows.iter().map(|row| usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX)).collect()
}

fn series<'a>(all: impl Iterator<Item = rows::Series<'a>>) -> (Vec<&'a str>, Vec<String>) {
    all.map(|(agent, epoch)| (agent, epoch.to_string())).unzip()
}

/// Fails if what was read without a lock has been changed since: the transaction is then tried again.
fn expect_all(what: &str, expected: usize, written: u64) -> Result<(), AttemptError> {
    if written == expected as u64 {
        return Ok(());
    }
    Err(AttemptError::Again(StoreError::Unavailable(format!("PostgreSQL: another consumer wrote the same {what}"))))
}

impl apply::Transaction for PostgresTransaction<'_> {
    fn lock_checkpoints(
        &mut self,
        topic: &TopicId,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, (i64, i32)>, AttemptError> {
        let found = self.inner.query(&self.sql.lock_checkpoints, &[&topic.cluster, &topic.name, &partitions]).map_err(
            |error| match sqlstate::class(&error) {
                Class::Locked => AttemptError::Held,
                _ => error.into(),
            },
        )?;
        Ok(found.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    fn known_ranges<'a>(&mut self, seen: &SeriesRanges<'a>) -> Result<SeriesRanges<'a>, AttemptError> {
        let flat = || seen.iter().flat_map(|(series, ranges)| ranges.iter().map(|range| (*series, range)));
        let agents: Vec<&str> = flat().map(|((agent, _), _)| agent).collect();
        let epochs: Vec<String> = flat().map(|((_, epoch), _)| epoch.to_string()).collect();
        let firsts: Vec<i64> = flat().map(|(_, range)| range.first).collect();
        let lasts: Vec<i64> = flat().map(|(_, range)| range.last).collect();
        let all: Vec<rows::Series<'a>> = seen.keys().copied().collect();
        let mut known: SeriesRanges<'a> = BTreeMap::new();
        for row in self.inner.query(self.sql.known_ranges.of(self.locking), &[&agents, &epochs, &firsts, &lasts])? {
            let (agent, epoch): (&str, &str) = (row.get(0), row.get(1));
            let epoch = epoch.parse().unwrap_or(Epoch(0));
            let range = SequenceRange {
                first: row.get(2),
                last: row.get(3),
                of_samples: row.get(4),
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
        let bytes = copy::encode(table, &topic.name, rows);
        copy_in(&mut self.inner, &self.sql.of(table).copy, &bytes, self.desynced).map_err(|error| {
            let line = sqlstate::copy_line(&error).and_then(|line| rows.get(line));
            match AttemptError::from(error) {
                AttemptError::Rejected { error, otherwise, passing, .. } => {
                    let at = line.map(|row| (row.partition, row.record.offset));
                    AttemptError::Rejected { at, error, otherwise, passing }
                }
                other => other,
            }
        })
    }

    fn put_ranges(&mut self, RangeChanges { new, changed, gone }: RangeChanges<'_>) -> Result<(), AttemptError> {
        if !gone.is_empty() {
            let (agents, epochs) = series(gone.iter().map(|(series, _)| *series));
            let number =
                |value: fn(&SequenceRange) -> i64| -> Vec<i64> { gone.iter().map(|(_, range)| value(range)).collect() };
            let parameters: [&(dyn ToSql + Sync); 5] = [
                &agents,
                &epochs,
                &number(|range| range.first),
                &number(|range| range.last),
                &number(|range| range.identity_conflicts),
            ];
            let there = self.inner.execute(&self.sql.drop_ranges, &parameters)?;
            expect_all("ranges", gone.len(), there)?;
        }
        if !changed.is_empty() {
            let (agents, epochs) = series(changed.iter().map(|(series, ..)| *series));
            let number = |value: fn(&SequenceRange, &SequenceRange) -> i64| -> Vec<i64> {
                changed.iter().map(|(_, old, new)| value(old, new)).collect()
            };
            let begins: Vec<Option<DateTime<Utc>>> = changed.iter().map(|(.., new)| new.first_stored_at).collect();
            let parameters: [&(dyn ToSql + Sync); 8] = [
                &agents,
                &epochs,
                &number(|_, new| new.first),
                &number(|old, _| old.last),
                &number(|_, new| new.last),
                &begins,
                &number(|old, _| old.identity_conflicts),
                &number(|_, new| new.identity_conflicts),
            ];
            expect_all("ranges", changed.len(), self.inner.execute(&self.sql.change_ranges, &parameters)?)?;
        }
        if !new.is_empty() {
            let (agents, epochs) = series(new.iter().map(|(series, _)| *series));
            let number =
                |value: fn(&SequenceRange) -> i64| -> Vec<i64> { new.iter().map(|(_, range)| value(range)).collect() };
            let of_samples: Vec<bool> = new.iter().map(|(_, range)| range.of_samples).collect();
            let begins: Vec<Option<DateTime<Utc>>> = new.iter().map(|(_, range)| range.first_stored_at).collect();
            let parameters: [&(dyn ToSql + Sync); 7] = [
                &agents,
                &epochs,
                &number(|range| range.first),
                &number(|range| range.last),
                &of_samples,
                &begins,
                &number(|range| range.identity_conflicts),
            ];
            expect_all("ranges", new.len(), self.inner.execute(&self.sql.insert_ranges, &parameters)?)?;
        }
        Ok(())
    }

    fn known_breaches<'a>(
        &mut self,
        breaches: &[BreachKey<'a>],
    ) -> Result<HashMap<BreachKey<'a>, KnownBreach>, AttemptError> {
        let agents: Vec<&str> = breaches.iter().map(|(agent, _)| *agent).collect();
        let ids: Vec<&str> = breaches.iter().map(|(_, id)| *id).collect();
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
            let there = put_last_words(&mut self.inner, &self.sql.insert_breaches, &changes.new, &[])?;
            expect_all("breaches", changes.new.len(), there)?;
        }
        if !changes.changed.is_empty() {
            let (words, known): (Vec<LastWord<'_>>, Vec<KnownBreach>) = changes.changed.iter().copied().unzip();
            let there = put_last_words(&mut self.inner, &self.sql.change_breaches, &words, &known)?;
            expect_all("breaches", words.len(), there)?;
        }
        if !changes.counted.is_empty() {
            let text =
                |value: fn(&LastWord<'_>) -> String| changes.counted.iter().map(|(word, _)| value(word)).collect();
            let (agents, ids): (Vec<String>, Vec<String>) =
                (text(|word| word.event.stamp.agent.to_string()), text(|word| word.breach.breach_id.to_string()));
            let before: Vec<i64> = changes.counted.iter().map(|(_, known)| known.counted_bytes).collect();
            let bytes: Vec<i64> = changes.counted.iter().map(|(word, _)| word.counted_bytes).collect();
            let there = self.inner.execute(&self.sql.count_breaches, &[&agents, &ids, &before, &bytes])?;
            expect_all("breaches", changes.counted.len(), there)?;
        }
        self.add_totals(&changes.totals)
    }

    fn put_losses(&mut self, losses: &[Lost<'_>]) -> Result<(), AttemptError> {
        let agents: Vec<&str> = losses.iter().map(|lost| lost.event.stamp.agent.as_str()).collect();
        let epochs: Vec<String> = losses.iter().map(|lost| lost.epoch.to_string()).collect();
        let firsts: Vec<i64> = losses.iter().map(|lost| lost.first).collect();
        let lasts: Vec<i64> = losses.iter().map(|lost| lost.last).collect();
        let own_epochs: Vec<String> = losses.iter().map(|lost| lost.event.id.epoch.to_string()).collect();
        let own_seqs: Vec<i64> = losses.iter().map(|lost| lost.event.id.seq.cast_signed()).collect();
        let times: Vec<DateTime<Utc>> = losses.iter().map(|lost| lost.event.stamp.observed_at).collect();
        let reasons: Vec<&str> = losses.iter().map(|lost| lost.reason).collect();
        let details: Vec<Option<&str>> = losses.iter().map(|lost| lost.detail).collect();
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&agents, &epochs, &firsts, &lasts, &own_epochs, &own_seqs, &times, &reasons, &details];
        self.inner.execute(&self.sql.put_losses, &parameters)?;
        Ok(())
    }

    fn put_dead_letters(&mut self, topic: &TopicId, letters: &[DeadLetterRow<'_>]) -> Result<(), AttemptError> {
        let partitions: Vec<i32> = letters.iter().map(|letter| letter.partition).collect();
        let generations: Vec<i32> = letters.iter().map(|letter| letter.generation).collect();
        let offsets: Vec<i64> = letters.iter().map(|letter| letter.record.offset).collect();
        let times: Vec<Option<DateTime<Utc>>> = letters.iter().map(|letter| letter.record.timestamp()).collect();
        let headers: Vec<&[u8]> = letters.iter().map(|letter| letter.record.headers.as_bytes()).collect();
        let keys: Vec<Option<&[u8]>> = letters.iter().map(|letter| letter.record.key.as_deref()).collect();
        let payloads: Vec<Option<&[u8]>> = letters.iter().map(|letter| letter.record.payload.as_deref()).collect();
        let errors: Vec<&str> = letters.iter().map(|letter| letter.error.as_str()).collect();
        let agents: Vec<Option<&str>> = letters.iter().map(|letter| letter.claimed.agent.as_deref()).collect();
        let epochs: Vec<Option<String>> = letters.iter().map(|letter| Some(letter.claimed.id?.0.to_string())).collect();
        let seqs: Vec<Option<i64>> = letters.iter().map(|letter| Some(letter.claimed.id?.1)).collect();
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &topic.cluster,
            &topic.name,
            &partitions,
            &generations,
            &offsets,
            &times,
            &headers,
            &keys,
            &payloads,
            &errors,
            &agents,
            &epochs,
            &seqs,
        ];
        self.inner.execute(&self.sql.put_dead_letters, &parameters)?;
        Ok(())
    }

    fn put_gap(&mut self, topic: &TopicId, partition: i32, generation: i32, gap: Gap) -> Result<(), AttemptError> {
        let cause = gap.cause.as_str();
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&topic.cluster, &topic.name, &partition, &generation, &gap.first, &gap.last, &cause];
        self.inner.execute(&self.sql.put_gap, &parameters)?;
        Ok(())
    }

    fn advance(
        &mut self,
        topic: &TopicId,
        ahead: &[(i32, (i64, i64), Option<Fingerprint>)],
    ) -> Result<usize, AttemptError> {
        let partitions: Vec<i32> = ahead.iter().map(|(partition, ..)| *partition).collect();
        let old: Vec<i64> = ahead.iter().map(|(_, (from, _), _)| *from).collect();
        let new: Vec<i64> = ahead.iter().map(|(_, (_, to), _)| *to).collect();
        let part = |part: fn(Fingerprint) -> i64| -> Vec<Option<i64>> {
            ahead.iter().map(|(_, _, last)| last.map(part)).collect()
        };
        let (offsets, times, digests) =
            (part(|last| last.offset), part(|last| last.timestamp_ms), part(|last| last.digest));
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&topic.cluster, &topic.name, &partitions, &old, &new, &offsets, &times, &digests];
        Ok(self.inner.execute(&self.sql.advance, &parameters)? as usize)
    }

    fn lock_dead_letters(
        &mut self,
        topic: &TopicId,
        letters: &[(i32, i32, i64)],
    ) -> Result<HashSet<(i32, i32, i64)>, AttemptError> {
        let (partitions, generations, offsets) = positions(letters);
        let parameters: [&(dyn ToSql + Sync); 5] = [&topic.cluster, &topic.name, &partitions, &generations, &offsets];
        let there = self.inner.query(&self.sql.lock_dead_letters, &parameters)?;
        Ok(there.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }

    fn delete_dead_letters(&mut self, topic: &TopicId, letters: &[(i32, i32, i64)]) -> Result<(), AttemptError> {
        let (partitions, generations, offsets) = positions(letters);
        let parameters: [&(dyn ToSql + Sync); 5] = [&topic.cluster, &topic.name, &partitions, &generations, &offsets];
        self.inner.execute(&self.sql.delete_dead_letters, &parameters)?;
        Ok(())
    }

    fn commit(self) -> Result<(), AttemptError> {
        Ok(self.inner.commit()?)
    }
}

pub(super) fn positions(letters: &[(i32, i32, i64)]) -> (Vec<i32>, Vec<i32>, Vec<i64>) {
    let partitions = letters.iter().map(|(partition, ..)| *partition).collect();
    let generations = letters.iter().map(|(_, generation, _)| *generation).collect();
    (partitions, generations, letters.iter().map(|(.., offset)| *offset).collect())
}

fn copy_in(
    transaction: &mut postgres::Transaction<'_>,
    statement: &str,
    bytes: &[u8],
    desynced: &Cell<bool>,
) -> Result<(), postgres::Error> {
    let mut writer = transaction.copy_in(statement).inspect_err(|_| desynced.set(true))?;
    // The server's error is within; the writer, dropped unfinished, ends the COPY.
    if let Err(error) = writer.write_all(bytes)
        && let Some(inner) = error.into_inner()
        && let Ok(sql) = inner.downcast::<postgres::Error>()
    {
        return Err(*sql);
    }
    failpoints::pass("copying");
    writer.finish().map(drop)
}

/// Writes rows of `breach_state`, over what was `known` of them or where there were none. Returns how many.
fn put_last_words(
    transaction: &mut postgres::Transaction<'_>,
    statement: &Statement,
    words: &[LastWord<'_>],
    known: &[KnownBreach],
) -> Result<u64, postgres::Error> {
    let mut columns: Vec<ColumnArray<'_>> = tables::breach_state_fields().map(ColumnArray::of).collect();
    for word in words {
        let mut next = columns.iter_mut();
        word.event.visit_all(|field, value| {
            if tables::is_of_breach_state(field)
                && let Some(column) = next.next()
            {
                column.push(value);
            }
        });
    }
    let states: Vec<_> = words.iter().map(LastWord::state).collect();
    let counted_bytes: Vec<_> = words.iter().map(|word| word.counted_bytes).collect();
    let mut new: Vec<&(dyn ToSql + Sync)> = columns.iter().map(ColumnArray::parameter).collect();
    new.push(&states);
    new.push(&counted_bytes);
    if known.is_empty() {
        return transaction.execute(statement, &new);
    }
    let old: [&(dyn ToSql + Sync); 3] = [
        &known.iter().map(|known| known.rank.epoch.to_string()).collect::<Vec<_>>(),
        &known.iter().map(|known| known.rank.seq).collect::<Vec<_>>(),
        &known.iter().map(|known| known.counted_bytes).collect::<Vec<_>>(),
    ];
    transaction.execute(statement, &[&new[..], &old[..]].concat())
}
