//! SQLite has one writer at a time (`BEGIN IMMEDIATE`); the guards hold all the same, since consumers may share the file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use rusqlite::types::{Null, ToSqlOutput};
use rusqlite::{
    Connection, Error, ErrorCode, OptionalExtension as _, Statement, TransactionBehavior, params, params_from_iter,
};

use super::text;
use crate::consumer::batch::{Fingerprint, Gap, TopicId};
use crate::consumer::store::agents::{AgentChange, KnownAgent};
use crate::consumer::store::apply::{self, AttemptError, UnpartitionedRow};
use crate::consumer::store::rows::{
    self, BreachChanges, BreachKey, DeadLetterRow, KnownBreach, LatestBreach, LatestBreaches, LossRow, RangeChanges,
    Rank, Row, SeriesRanges, TouchedHour,
};
use crate::consumer::store::sequences::SequenceRange;
use crate::consumer::store::tables::{self, Table};
use crate::consumer::store::{DeadLetterKey, OffsetRanges, StoreError};
use crate::message::fields::FieldValue;
use crate::message::{Epoch, Event, LinkRates};

pub(super) struct SqliteSession(pub(super) Connection);

pub(super) struct SqliteTransaction<'s> {
    inner: rusqlite::Transaction<'s>,
    now: String,
}

const ADD_TOTAL: &str = "
    INSERT INTO totals (agent, interface, direction, limit_name, day, breaches, excess_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (agent, interface, direction, limit_name, day) DO UPDATE
    SET breaches = totals.breaches + excluded.breaches,
        excess_bytes = CASE WHEN totals.excess_bytes > 9223372036854775807 - excluded.excess_bytes THEN 9223372036854775807
                            ELSE totals.excess_bytes + excluded.excess_bytes END";

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                Self::Rejected { at: None, error: error.to_string(), store_error: error.into(), is_transient: false }
            }
            _ => Self::Store(error.into()),
        }
    }
}

impl apply::Session for SqliteSession {
    type Transaction<'s> = SqliteTransaction<'s>;

    fn begin(&mut self, now: DateTime<Utc>, _locking: bool) -> Result<SqliteTransaction<'_>, AttemptError> {
        let inner = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(SqliteTransaction { inner, now: text(now) })
    }

    fn create_partitions<'a>(&mut self, _: &[Row<'a>]) -> Result<Vec<UnpartitionedRow<'a>>, StoreError> {
        Ok(Vec::new())
    }

    fn forget_partitions(&mut self) {}

    fn end_checkpoint_holders(&mut self, _: &TopicId, _: &[i32]) -> StoreError {
        StoreError::Unavailable("SQLite: another program writes".to_owned())
    }

    fn read_back(&mut self, topic: &TopicId, bounds: &OffsetRanges) -> Result<bool, AttemptError> {
        let mut next = self.0.prepare(
            "SELECT next_offset FROM kafka_offsets WHERE kafka_cluster = ?1 AND kafka_topic = ?2 AND kafka_partition = ?3",
        )?;
        for (partition, (_, to)) in bounds {
            let found: Option<i64> =
                next.query_row(params![topic.cluster, topic.name, partition], |row| row.get(0)).optional()?;
            if found.is_none_or(|next| next < *to) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl apply::Transaction for SqliteTransaction<'_> {
    fn lock_checkpoints(
        &mut self,
        topic: &TopicId,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, (i64, i32)>, AttemptError> {
        let mut statement = self.inner.prepare(
            "SELECT next_offset, topic_generation FROM kafka_offsets
             WHERE kafka_cluster = ?1 AND kafka_topic = ?2 AND kafka_partition = ?3",
        )?;
        let mut found = BTreeMap::new();
        for partition in partitions {
            let row = statement
                .query_row(params![topic.cluster, topic.name, partition], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            found.extend(row.map(|row| (*partition, row)));
        }
        Ok(found)
    }

    fn known_ranges<'a>(&mut self, seen: &SeriesRanges<'a>) -> Result<SeriesRanges<'a>, AttemptError> {
        let mut statement = self.inner.prepare(
            "SELECT first_seq, last_seq, counted, first_stored_at, identity_conflicts FROM agent_sequences
             WHERE agent = ?1 AND epoch = ?2 AND first_seq <= ?4 + 1 AND last_seq >= ?3 - 1
               AND first_seq >= coalesce((SELECT max(first_seq) FROM agent_sequences
                                          WHERE agent = ?1 AND epoch = ?2 AND first_seq < ?3), 0)
             ORDER BY first_seq",
        )?;
        let mut known: SeriesRanges<'a> = BTreeMap::new();
        for (&(agent, epoch), ranges) in seen {
            let of_one = known.entry((agent, epoch)).or_default();
            for range in ranges {
                let found = statement.query_map(params![agent, epoch.to_string(), range.first, range.last], |row| {
                    Ok(SequenceRange {
                        first: row.get(0)?,
                        last: row.get(1)?,
                        counted: Table::named(&row.get::<_, String>(2)?),
                        first_stored_at: time(&row.get::<_, String>(3)?),
                        identity_conflicts: row.get(4)?,
                    })
                })?;
                for range in found {
                    let range = range?;
                    if of_one.last() != Some(&range) {
                        of_one.push(range);
                    }
                }
            }
        }
        Ok(known)
    }

    fn existing(&mut self, table: Table, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError> {
        self.indices(&format!("{} AND observed_at = ?4", one_of(table)), rows)
    }

    fn have_other_times(&mut self, table: Table, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError> {
        self.indices(&format!("{} AND observed_at <> ?4", one_of(table)), rows)
    }

    fn insert(&mut self, table: Table, topic: &TopicId, rows: &[&Row<'_>]) -> Result<(), AttemptError> {
        let mut statement = self.inner.prepare(&insert_statement(table))?;
        if table.is_by_link() {
            for (row, link) in rows::links(table, rows) {
                let inserted = insert_link(&mut statement, table, &topic.name, (row, link), &self.now);
                inserted.map_err(|error| AttemptError::from(error).of_record(Some(row.kafka_position())))?;
            }
            return Ok(());
        }
        for row in rows {
            let inserted = insert_row(&mut statement, table, &topic.name, row, &self.now);
            inserted.map_err(|error| AttemptError::from(error).of_record(Some(row.kafka_position())))?;
        }
        Ok(())
    }

    fn put_ranges(&mut self, changes: RangeChanges<'_>) -> Result<(), AttemptError> {
        let mut delete =
            self.inner.prepare("DELETE FROM agent_sequences WHERE agent = ?1 AND epoch = ?2 AND first_seq = ?3")?;
        for ((agent, epoch), range) in changes.gone {
            delete.execute(params![agent, epoch.to_string(), range.first])?;
        }
        let changed = changes.changed.into_iter().map(|(series, _, range)| (series, range));
        let mut put = self.inner.prepare(
            "INSERT INTO agent_sequences (agent, epoch, first_seq, last_seq, counted, first_stored_at, last_stored_at,
                                          identity_conflicts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (agent, epoch, first_seq) DO UPDATE
             SET last_seq = excluded.last_seq, first_stored_at = excluded.first_stored_at,
                 last_stored_at = excluded.last_stored_at, identity_conflicts = excluded.identity_conflicts",
        )?;
        for ((agent, epoch), range) in changes.new.into_iter().chain(changed) {
            let SequenceRange { first, last, counted, first_stored_at, identity_conflicts } = range;
            let begin = first_stored_at.map_or_else(|| self.now.clone(), text);
            put.execute(params![
                agent,
                epoch.to_string(),
                first,
                last,
                counted.name(),
                begin,
                self.now,
                identity_conflicts
            ])?;
        }
        Ok(())
    }

    fn known_breaches<'a>(
        &mut self,
        breaches: &LatestBreaches<'a>,
    ) -> Result<HashMap<BreachKey<'a>, KnownBreach>, AttemptError> {
        let mut statement = self.inner.prepare(
            "SELECT state = 'cleared', duration_ms, epoch, seq, observed_at, counted_bytes FROM breach_state
             WHERE agent = ?1 AND breach_id = ?2",
        )?;
        let mut known = HashMap::new();
        for (agent, id) in breaches.keys() {
            let found = statement.query_row(params![agent, id], |row| {
                let rank = Rank {
                    cleared: row.get(0)?,
                    duration_ms: row.get(1)?,
                    epoch: row.get::<_, String>(2)?.parse().unwrap_or(Epoch(0)),
                    seq: row.get(3)?,
                    observed_at: time(&row.get::<_, String>(4)?).unwrap_or_default(),
                };
                Ok(KnownBreach { rank, counted_bytes: row.get(5)? })
            });
            known.extend(found.optional()?.map(|found| ((*agent, *id), found)));
        }
        Ok(known)
    }

    fn put_breaches(&mut self, changes: &BreachChanges<'_>) -> Result<(), AttemptError> {
        let mut put = self.inner.prepare(&put_breach_statement())?;
        for latest in changes.new.iter().chain(changes.changed.iter().map(|(latest, _)| latest)) {
            put_breach(&mut put, latest, &self.now)?;
        }
        let mut count =
            self.inner.prepare("UPDATE breach_state SET counted_bytes = ?3 WHERE agent = ?1 AND breach_id = ?2")?;
        for (LatestBreach { event, breach, counted_bytes, .. }, _) in &changes.counted {
            count.execute(params![event.stamp.agent.as_str(), breach.breach_id.as_str(), counted_bytes])?;
        }
        let mut add = self.inner.prepare(ADD_TOTAL)?;
        for ((key, day), (breaches, bytes)) in &changes.totals {
            let day = day.to_string();
            add.execute(params![key.agent, key.interface, key.direction, key.limit_name, day, breaches, bytes])?;
        }
        Ok(())
    }

    fn put_losses(&mut self, losses: &[LossRow<'_>]) -> Result<(), AttemptError> {
        let mut put = self.inner.prepare(
            "INSERT INTO losses (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at, stored_at, reason, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
        )?;
        for LossRow { event, epoch, first, last, reason, detail } in losses {
            let Event { id, stamp, .. } = event;
            let (epoch, own) = (epoch.to_string(), id.epoch.to_string());
            let (agent, seq, observed_at) = (stamp.agent.as_str(), id.seq.cast_signed(), text(stamp.observed_at));
            put.execute(params![agent, epoch, first, last, own, seq, observed_at, self.now, reason, detail])?;
        }
        Ok(())
    }

    fn put_touched_hours(&mut self, hours: &[TouchedHour<'_>]) -> Result<(), AttemptError> {
        let mut put = self.inner.prepare("INSERT INTO touched_hours (agent, starts_at) VALUES (?1, ?2)")?;
        for (agent, starts_at) in hours {
            put.execute(params![agent, text(*starts_at)])?;
        }
        Ok(())
    }

    fn known_agents<'a>(&mut self, agents: &[&'a str]) -> Result<HashMap<&'a str, KnownAgent>, AttemptError> {
        let mut statement = self.inner.prepare(
            "SELECT epoch, seq, observed_at, state = 'running', version, clock_synced, last_started_at FROM agent_state
             WHERE agent = ?1",
        )?;
        let mut known = HashMap::new();
        for agent in agents {
            let found = statement.query_row([agent], |row| {
                Ok(KnownAgent {
                    epoch: row.get::<_, String>(0)?.parse().unwrap_or(Epoch(0)),
                    seq: row.get(1)?,
                    observed_at: time(&row.get::<_, String>(2)?).unwrap_or_default(),
                    is_running: row.get(3)?,
                    version: row.get(4)?,
                    clock_synced: row.get(5)?,
                    last_started_at: row.get::<_, Option<String>>(6)?.as_deref().and_then(time),
                })
            });
            known.extend(found.optional()?.map(|state| (*agent, state)));
        }
        Ok(known)
    }

    fn put_agents(&mut self, changes: &[AgentChange<'_>]) -> Result<(), AttemptError> {
        let mut put = self.inner.prepare(
            "INSERT OR REPLACE INTO agent_state
                 (agent, epoch, seq, observed_at, stored_at, state, version, clock_synced, last_started_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for AgentChange { agent, new, .. } in changes {
            put.execute(params![
                agent,
                new.epoch.to_string(),
                new.seq,
                text(new.observed_at),
                self.now,
                new.state(),
                new.version,
                new.clock_synced,
                new.last_started_at.map(text)
            ])?;
        }
        Ok(())
    }

    fn put_dead_letters(&mut self, topic: &TopicId, letters: &[DeadLetterRow<'_>]) -> Result<(), AttemptError> {
        let mut put = self.inner.prepare(
            "INSERT INTO dead_letters (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset, kafka_timestamp,
                                       headers, key, payload, bytes, error, stored_at, agent, epoch, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT DO NOTHING",
        )?;
        for DeadLetterRow { record, partition, generation, error, claimed } in letters {
            put.execute(params![
                topic.cluster,
                topic.name,
                partition,
                generation,
                record.offset,
                record.timestamp().map(text),
                record.headers.as_bytes(),
                record.key,
                record.payload,
                record.payload.as_ref().map(|payload| payload.len() as i64),
                error,
                self.now,
                claimed.agent,
                claimed.id.map(|(epoch, _)| epoch.to_string()),
                claimed.id.map(|(_, seq)| seq),
            ])?;
        }
        Ok(())
    }

    fn put_gap(&mut self, topic: &TopicId, partition: i32, generation: i32, gap: Gap) -> Result<(), AttemptError> {
        Ok(put_gap(&self.inner, topic, partition, generation, gap, &self.now)?)
    }

    fn advance(
        &mut self,
        topic: &TopicId,
        ahead: &[(i32, (i64, i64), Option<Fingerprint>)],
    ) -> Result<usize, AttemptError> {
        let mut statement = self.inner.prepare(
            "UPDATE kafka_offsets
             SET next_offset = ?5, updated_at = ?9,
                 last_offset = coalesce(?6, last_offset), last_timestamp = coalesce(?7, last_timestamp),
                 last_digest = coalesce(?8, last_digest), anchor_offset = coalesce(anchor_offset, ?6),
                 anchor_timestamp = coalesce(anchor_timestamp, ?7), anchor_digest = coalesce(anchor_digest, ?8)
             WHERE kafka_cluster = ?1 AND kafka_topic = ?2 AND kafka_partition = ?3 AND next_offset = ?4",
        )?;
        let mut moved = 0;
        for (partition, (from, to), last) in ahead {
            moved += statement.execute(params![
                topic.cluster,
                topic.name,
                partition,
                from,
                to,
                last.map(|last| last.offset),
                last.map(|last| last.timestamp_ms),
                last.map(|last| last.digest),
                self.now
            ])?;
        }
        Ok(moved)
    }

    fn lock_dead_letters(
        &mut self,
        topic: &TopicId,
        letters: &[DeadLetterKey],
    ) -> Result<HashSet<DeadLetterKey>, AttemptError> {
        let mut there = self.inner.prepare(&format!("SELECT 1 FROM {ONE_DEAD_LETTER} AND dropped_at IS NULL"))?;
        let mut found = HashSet::new();
        for letter in letters {
            let (partition, generation, offset) = letter;
            if there.exists(params![topic.cluster, topic.name, partition, generation, offset])? {
                found.insert(*letter);
            }
        }
        Ok(found)
    }

    fn delete_dead_letters(&mut self, topic: &TopicId, letters: &[DeadLetterKey]) -> Result<(), AttemptError> {
        let mut delete = self.inner.prepare(&format!("DELETE FROM {ONE_DEAD_LETTER}"))?;
        for (partition, generation, offset) in letters {
            delete.execute(params![topic.cluster, topic.name, partition, generation, offset])?;
        }
        Ok(())
    }

    fn commit(self) -> Result<(), AttemptError> {
        Ok(self.inner.commit()?)
    }
}

pub(super) const ONE_DEAD_LETTER: &str = "dead_letters
    WHERE kafka_cluster = ?1 AND kafka_topic = ?2 AND kafka_partition = ?3 AND topic_generation = ?4 AND kafka_offset = ?5";

fn one_of(table: Table) -> String {
    format!("SELECT 1 FROM {} WHERE agent = ?1 AND epoch = ?2 AND seq = ?3", table.name())
}

impl SqliteTransaction<'_> {
    fn indices(&mut self, question: &str, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError> {
        let mut statement = self.inner.prepare(question)?;
        let mut found = HashSet::new();
        for (index, row) in rows.iter().enumerate() {
            let Event { id, stamp, .. } = row.event;
            let key =
                params![stamp.agent.as_str(), id.epoch.to_string(), id.seq.cast_signed(), text(stamp.observed_at)];
            if statement.exists(key)? {
                found.insert(index);
            }
        }
        Ok(found)
    }
}

pub(super) fn put_gap(
    connection: &Connection,
    topic: &TopicId,
    partition: i32,
    generation: i32,
    gap: Gap,
    now: &str,
) -> Result<(), Error> {
    let Gap { first, last, cause } = gap;
    connection.execute(
        "INSERT INTO kafka_gaps (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset, last_offset, cause,
                                 noticed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        params![topic.cluster, topic.name, partition, generation, first, last, cause.as_str(), now],
    )?;
    Ok(())
}

pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

fn insert_statement(table: Table) -> String {
    let mut columns = table.columns();
    columns.extend(table.is_kept_since_stored().then_some("stored_at"));
    let places = vec!["?"; columns.len()].join(", ");
    format!("INSERT INTO {} ({}) VALUES ({places})", table.name(), columns.join(", "))
}

fn insert_row(statement: &mut Statement<'_>, table: Table, topic: &str, row: &Row<'_>, now: &str) -> Result<(), Error> {
    let mut values: Vec<ToSqlOutput<'_>> = Vec::with_capacity(statement.parameter_count());
    row.event.visit_all(|field, value| {
        if table.has(field) {
            values.push(value.map_or(Null.into(), sql_value));
        }
    });
    values.extend([topic.into(), row.partition.into(), row.record.offset.into()]);
    if table.has_raw() {
        values.push(row.record.raw.as_deref().map_or(Null.into(), ToSqlOutput::from));
    }
    values.push(now.into());
    statement.execute(params_from_iter(values))?;
    Ok(())
}

fn insert_link(
    statement: &mut Statement<'_>,
    table: Table,
    topic: &str,
    (row, link): (&Row<'_>, &LinkRates),
    now: &str,
) -> Result<(), Error> {
    let mut values: Vec<ToSqlOutput<'_>> = Vec::with_capacity(statement.parameter_count());
    tables::visit_link(table, row.event, link, |value| values.push(value.map_or(Null.into(), sql_value)));
    if table == Table::Rates {
        let (partition, offset) = row.kafka_position();
        values.extend([topic.into(), partition.into(), offset.into(), row.has_histogram(link).into(), now.into()]);
    }
    statement.execute(params_from_iter(values))?;
    Ok(())
}

fn sql_value(value: FieldValue<'_>) -> ToSqlOutput<'_> {
    match value {
        FieldValue::Text(Cow::Borrowed(text)) => text.into(),
        FieldValue::Text(Cow::Owned(text)) => text.into(),
        FieldValue::Epoch(epoch) => epoch.to_string().into(),
        FieldValue::Number(number) => number.cast_signed().into(),
        FieldValue::Time(time) => text(time).into(),
        FieldValue::Bool(truth) => truth.into(),
        FieldValue::Ranges(ranges) => serde_json::to_string(&ranges).expect("whole numbers").into(),
        FieldValue::OverLimits(over) => serde_json::to_string(&over).expect("names and whole numbers").into(),
        FieldValue::Bytes(Cow::Borrowed(bytes)) => bytes.into(),
        FieldValue::Bytes(Cow::Owned(bytes)) => bytes.into(),
        FieldValue::Links(_) => unreachable!("links are rows"),
    }
}

fn put_breach_statement() -> String {
    let columns: Vec<&str> =
        tables::breach_state_fields().map(|field| field.name).chain(["stored_at", "state", "counted_bytes"]).collect();
    let places = vec!["?"; columns.len()].join(", ");
    let values: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO breach_state ({}) VALUES ({places}) ON CONFLICT (agent, breach_id) DO UPDATE SET {}",
        columns.join(", "),
        values.join(", ")
    )
}

fn put_breach(statement: &mut Statement<'_>, latest: &LatestBreach<'_>, now: &str) -> Result<(), Error> {
    let mut values: Vec<ToSqlOutput<'_>> = Vec::with_capacity(statement.parameter_count());
    latest.event.visit_all(|field, value| {
        if tables::is_of_breach_state(field) {
            values.push(value.map_or(Null.into(), sql_value));
        }
    });
    values.extend([now.into(), latest.state().into(), latest.counted_bytes.into()]);
    statement.execute(params_from_iter(values))?;
    Ok(())
}
