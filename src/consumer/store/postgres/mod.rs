mod address;
mod check;
mod columns;
mod copy;
mod detachment;
mod histograms;
mod maintenance;
mod migrations;
mod partitions;
mod pooler;
mod reader;
mod session;
mod sqlstate;
mod statements;
mod tls;
mod transaction;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use postgres::types::ToSql;
use postgres::{Client, Error, Row as SqlRow, ToStatement};

use self::session::{Connector, PostgresSession};
use self::transaction::dead_letter_columns;
use super::{
    Applied, DeadLetterKey, RetriedRecord, RetrySummary, Store, StoreError, StoreOptions, StoreProgress, apply,
};
use crate::consumer::batch::{Batch, Fingerprint, Gap, TopicId};
use crate::consumer::checkpoint::Checkpoint;

/// Time-outs, not the role's, which could end large batches or idle sessions. None ends a COPY: see [`end_checkpoint_holders`].
const SETTINGS: &str = "
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '30s';
    SET statement_timeout = '60s';
    SET timezone = 'UTC';
    SET datestyle = 'ISO';
    SET default_transaction_isolation = 'read committed';
    SET client_min_messages = 'warning';
    SELECT set_config(name, '0', false) FROM unnest(ARRAY['transaction_timeout', 'idle_session_timeout']) AS name
    WHERE current_setting(name, true) IS NOT NULL;";

const MAINTENANCE_SETTINGS: &str = "SET lock_timeout = '500ms'; SET statement_timeout = '60s'";

pub(super) use self::address::Address;
pub(super) use self::check::check;
pub(super) use self::histograms::PostgresHistograms;
pub(super) use self::maintenance::PostgresMaintenance;
pub(super) use self::reader::PostgresReader;

/// Store in PostgreSQL, which connects and migrates when it is first needed and after each error.
pub(super) struct Postgres {
    connector: Connector,
    options: StoreOptions,
    session: Option<PostgresSession>,
    progress: Arc<StoreProgress>,
}

/// Age of a transaction that holds a row of `kafka_offsets` at which its session is ended.
const HELD_MAX: &str = "10 seconds";

const CHECKPOINT: &str = "
    SELECT next_offset, topic_generation, last_offset, last_timestamp, last_digest, anchor_offset, anchor_timestamp, anchor_digest,
           kafka_partition
    FROM kafka_offsets WHERE kafka_cluster = $1 AND kafka_topic = $2";

impl Postgres {
    pub(super) fn new(address: Address, options: &StoreOptions) -> Self {
        let application = format!("highwater-consumer/{}", options.instance);
        let connector = Connector::new(address, application);
        Self { connector, options: options.clone(), session: None, progress: Arc::default() }
    }

    /// Runs `work` in the session, which an error ends: its state is not worth guessing.
    fn with<T>(&mut self, work: impl FnOnce(&mut PostgresSession) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => PostgresSession::open(&mut self.connector, &self.options, &self.progress)?,
        };
        let result = work(&mut session);
        if matches!(result, Ok(_) | Err(StoreError::Conflict(_))) {
            self.session = Some(session);
        }
        result
    }
}

impl Store for Postgres {
    fn progress(&self) -> Arc<StoreProgress> {
        Arc::clone(&self.progress)
    }

    fn checkpoints(&mut self, topic: &TopicId) -> Result<BTreeMap<i32, Checkpoint>, StoreError> {
        self.with(|session| {
            let rows = session.client.query(CHECKPOINT, &[&topic.cluster, &topic.name])?;
            Ok(rows.iter().map(|row| (row.get(8), checkpoint(row))).collect())
        })
    }

    fn insert_checkpoints(
        &mut self,
        topic: &TopicId,
        first: &BTreeMap<i32, (Checkpoint, Vec<Gap>)>,
    ) -> Result<BTreeMap<i32, Checkpoint>, StoreError> {
        self.with(|session| {
            let mut transaction = session.client.transaction()?;
            for (partition, (Checkpoint { next_offset, generation, .. }, gaps)) in first {
                let inserted = transaction.execute(
                    "INSERT INTO kafka_offsets (kafka_cluster, kafka_topic, kafka_partition, next_offset, topic_generation)
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                    &[&topic.cluster, &topic.name, partition, next_offset, generation],
                )?;
                for gap in gaps.iter().filter(|_| inserted > 0) {
                    put_gap(&mut transaction, statements::PUT_GAP, topic, *partition, *generation, *gap)?;
                }
            }
            Ok(transaction.commit()?)
        })?;
        self.checkpoints(topic)
    }

    fn replace_checkpoint(
        &mut self,
        topic: &TopicId,
        partition: i32,
        old: &Checkpoint,
        new: &Checkpoint,
        gap: Option<Gap>,
    ) -> Result<(), StoreError> {
        self.with(|session| {
            let mut transaction = session.client.transaction()?;
            let parameters: [&(dyn ToSql + Sync); 13] = [
                &topic.cluster,
                &topic.name,
                &partition,
                &new.next_offset,
                &new.generation,
                &new.last.map(|print| print.offset),
                &new.last.map(|print| print.timestamp_ms),
                &new.last.map(|print| print.digest),
                &new.anchor.map(|print| print.offset),
                &new.anchor.map(|print| print.timestamp_ms),
                &new.anchor.map(|print| print.digest),
                &old.next_offset,
                &old.generation,
            ];
            let replaced = transaction.execute(
                "UPDATE kafka_offsets
                 SET next_offset = $4, topic_generation = $5, last_offset = $6, last_timestamp = $7, last_digest = $8,
                     anchor_offset = $9, anchor_timestamp = $10, anchor_digest = $11, updated_at = now()
                 WHERE kafka_cluster = $1 AND kafka_topic = $2 AND kafka_partition = $3 AND next_offset = $12
                   AND topic_generation = $13",
                &parameters,
            )?;
            if replaced == 0 {
                transaction.rollback()?;
                return Err(StoreError::Conflict(format!("{topic}[{partition}]: another consumer was here")));
            }
            if let Some(gap) = gap {
                put_gap(&mut transaction, statements::PUT_GAP, topic, partition, new.generation, gap)?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn apply(&mut self, batch: &Batch, now: DateTime<Utc>) -> Result<Applied, StoreError> {
        let progress = Arc::clone(&self.progress);
        self.with(|session| apply::apply(session, batch, now, &progress))
    }

    fn retry(
        &mut self,
        topic: &TopicId,
        records: &[RetriedRecord],
        now: DateTime<Utc>,
    ) -> Result<RetrySummary, StoreError> {
        self.with(|session| apply::retry(session, topic, records, now))
    }

    fn drop_dead_letters(
        &mut self,
        topic: &TopicId,
        letters: &[DeadLetterKey],
        reason: &str,
        _now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        self.with(|session| {
            let (partitions, generations, offsets) = dead_letter_columns(letters);
            let parameters: [&(dyn ToSql + Sync); 6] =
                [&topic.cluster, &topic.name, &partitions, &generations, &offsets, &reason];
            Ok(session.client.execute(statements::DROP_DEAD_LETTERS, &parameters)?)
        })
    }
}

fn put_gap(
    transaction: &mut postgres::Transaction<'_>,
    statement: &(impl ToStatement + ?Sized),
    topic: &TopicId,
    partition: i32,
    generation: i32,
    gap: Gap,
) -> Result<(), Error> {
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&topic.cluster, &topic.name, &partition, &generation, &gap.first, &gap.last, &gap.cause.as_str()];
    transaction.execute(statement, &parameters).map(drop)
}

fn checkpoint(row: &SqlRow) -> Checkpoint {
    let fingerprint = |first: usize| {
        let offset: Option<i64> = row.get(first);
        let (time, digest): (Option<i64>, Option<i64>) = (row.get(first + 1), row.get(first + 2));
        Some(Fingerprint { offset: offset?, timestamp_ms: time?, digest: digest? })
    };
    Checkpoint { next_offset: row.get(0), generation: row.get(1), last: fingerprint(2), anchor: fingerprint(5) }
}

/// Ends sessions of our role that hold the partitions' rows after guard 1 has timed out: perhaps a consumer that was stopped in a
/// COPY, which no time-out of PostgreSQL ends. The row's `xmax` finds them; `pg_blocking_pids` is empty once the wait is over.
fn end_checkpoint_holders(client: &mut Client, topic: &TopicId, partitions: &[i32]) -> Result<StoreError, Error> {
    let ended = client.query(
        &format!(
            "SELECT a.pid, a.application_name, pg_terminate_backend(a.pid)
             FROM kafka_offsets o
             JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = o.xmax AND l.granted
             JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE o.kafka_cluster = $1 AND o.kafka_topic = $2 AND o.kafka_partition = ANY($3) AND a.usename = current_user
               AND a.pid <> pg_backend_pid() AND a.xact_start < now() - interval '{HELD_MAX}'"
        ),
        &[&topic.cluster, &topic.name, &partitions],
    )?;
    for row in &ended {
        let (pid, application): (i32, &str) = (row.get(0), row.get(1));
        log::warn!(
            "PostgreSQL: terminated session {pid} ({application}), which had held a lock on a partition in kafka_offsets for over \
         {HELD_MAX}"
        );
    }
    Ok(StoreError::Unavailable(format!(
        "PostgreSQL: another session had locked a partition in kafka_offsets; {} ended",
        ended.len()
    )))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
