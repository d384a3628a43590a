mod check;
mod histograms;
mod maintenance;
mod reader;
mod transaction;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior, params};

use self::transaction::{ONE_DEAD_LETTER, SqliteSession, put_gap};
use super::{
    Applied, DeadLetterKey, RetriedRecord, RetrySummary, Store, StoreError, StoreOptions, StoreProgress, apply,
};
use crate::consumer::batch::{Batch, Fingerprint, Gap, TopicId};
use crate::consumer::checkpoint::Checkpoint;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::failpoints;
use crate::wire;

pub(super) use self::check::check;
pub(super) use self::histograms::SqliteHistograms;
pub(super) use self::maintenance::SqliteMaintenance;
pub(super) use self::reader::SqliteReader;

/// Store in a SQLite file, which is opened when it is first needed and again after an error.
pub(super) struct Sqlite {
    path: PathBuf,
    silent_after: Option<Duration>,
    session: Option<SqliteSession>,
    progress: Arc<StoreProgress>,
}

const BUSY: Duration = Duration::from_secs(10);

const MIGRATIONS: [&str; 1] = [include_str!("migrations/v1.sql")];

/// Mark of this program's files; `user_version` counts something else in those of others.
const APPLICATION_ID: i64 = 0x6877_7374; // "hwst"

const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -8192;
    PRAGMA foreign_keys = ON;";

const CHECKPOINT: &str = "
    SELECT next_offset, topic_generation, last_offset, last_timestamp, last_digest, anchor_offset, anchor_timestamp, anchor_digest,
           kafka_partition
    FROM kafka_offsets WHERE kafka_cluster = ?1 AND kafka_topic = ?2";

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = format!("SQLite: {error}");
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::PermissionDenied) => {
                Self::Misconfigured(text)
            }
            _ => Self::Unavailable(text),
        }
    }
}

impl Sqlite {
    pub(super) fn new(path: &Path, options: &StoreOptions) -> Self {
        Self { path: path.to_owned(), silent_after: options.silent_after, session: None, progress: Arc::default() }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut SqliteSession) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                SqliteSession(open(&self.path, self.silent_after, &self.progress).map_err(|error| match error {
                    StoreError::Unavailable(text) => {
                        StoreError::Unavailable(format!("{}: {text}", self.path.display()))
                    }
                    StoreError::Misconfigured(text) => {
                        StoreError::Misconfigured(format!("{}: {text}", self.path.display()))
                    }
                    error @ (StoreError::Pooled(_) | StoreError::Incompatible(_) | StoreError::Conflict(_)) => error,
                })?)
            }
        };
        let result = work(&mut session);
        if matches!(result, Ok(_) | Err(StoreError::Conflict(_))) {
            self.session = Some(session);
        }
        result
    }
}

/// Returns the number of migrations that the file has, 0 for a file of another program. Refuses a file of a newer version.
fn applied_version(connection: &Connection) -> Result<usize, StoreError> {
    let pragma = |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (id, version) = (pragma("application_id")?, pragma("user_version")?);
    match usize::try_from(version) {
        Ok(applied) if id == APPLICATION_ID && applied > MIGRATIONS.len() => Err(StoreError::Incompatible(format!(
            "{} has the tables of a newer version of this program (version {version}; this one, {}, knows {}): install that \
             version; to go back, restore a backup from before its first start",
            connection.path().unwrap_or_default(),
            env!("CARGO_PKG_VERSION"),
            MIGRATIONS.len()
        ))),
        Ok(applied) if id == APPLICATION_ID => Ok(applied),
        _ => Ok(0),
    }
}

fn own_version(connection: &Connection) -> Result<usize, StoreError> {
    let applied = applied_version(connection)?;
    let has_tables = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table')";
    if applied == 0 && connection.query_row(has_tables, [], |row| row.get(0))? {
        return Err(StoreError::Misconfigured(
            "has tables of another program; name another file in store.url, which is then created".to_owned(),
        ));
    }
    Ok(applied)
}

/// Opens the file for work beside the store's; `None` before the store has made it.
fn open_existing(path: &Path, busy: Duration) -> Result<Option<Connection>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(busy)?;
    Ok((applied_version(&connection)? >= MIGRATIONS.len()).then_some(connection))
}

/// Refuses a path for which SQLite would report an I/O error.
fn refuse_directory(path: &Path) -> Result<(), String> {
    match path.is_dir() {
        true => Err(format!("{} is a directory; name a file in it in store.url", path.display())),
        false => Ok(()),
    }
}

fn open(path: &Path, silent_after: Option<Duration>, progress: &StoreProgress) -> Result<Connection, StoreError> {
    refuse_directory(path).map_err(StoreError::Misconfigured)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // A file that is refused is not changed: the settings would convert it.
    let reading = connection.transaction()?;
    own_version(&reading)?;
    drop(reading);
    connection.execute_batch(SETTINGS)?;
    let migrated = migrate(&mut connection, silent_after, progress);
    progress.set_migration(None);
    migrated?;
    Ok(connection)
}

/// Brings tables and settings up to date in one transaction. Its commit counts as a part of the last migration.
fn migrate(
    connection: &mut Connection,
    silent_after: Option<Duration>,
    progress: &StoreProgress,
) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let applied = own_version(&transaction)?;
    for (number, step) in (1..).zip(MIGRATIONS).skip(applied) {
        progress.set_migration(Some(format!("v{number}")));
        std::thread::sleep(failpoints::duration("migration-s", Duration::ZERO));
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    let silent_after = silent_after.map(|after| after.as_secs().cast_signed());
    transaction.execute("UPDATE settings SET silent_after = ?1 WHERE silent_after <> ?1", [silent_after])?;
    Ok(transaction.commit()?)
}

impl Store for Sqlite {
    fn progress(&self) -> Arc<StoreProgress> {
        Arc::clone(&self.progress)
    }

    fn checkpoints(&mut self, topic: &TopicId) -> Result<BTreeMap<i32, Checkpoint>, StoreError> {
        self.with(|SqliteSession(connection)| {
            let mut statement = connection.prepare(CHECKPOINT)?;
            let rows = statement.query_map([&topic.cluster, &topic.name], |row| Ok((row.get(8)?, checkpoint(row)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn insert_checkpoints(
        &mut self,
        topic: &TopicId,
        first: &BTreeMap<i32, (Checkpoint, Vec<Gap>)>,
    ) -> Result<BTreeMap<i32, Checkpoint>, StoreError> {
        self.with(|SqliteSession(connection)| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let now = text(SystemClock::default().wall());
            for (&partition, (Checkpoint { next_offset, generation, .. }, gaps)) in first {
                let inserted = transaction.execute(
                    "INSERT INTO kafka_offsets
                         (kafka_cluster, kafka_topic, kafka_partition, next_offset, topic_generation, updated_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                    params![topic.cluster, topic.name, partition, next_offset, generation, now],
                )?;
                for gap in gaps.iter().filter(|_| inserted > 0) {
                    put_gap(&transaction, topic, partition, *generation, *gap, &now)?;
                }
            }
            transaction.commit()?;
            Ok(())
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
        self.with(|SqliteSession(connection)| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let now = text(SystemClock::default().wall());
            let replaced = transaction.execute(
                "UPDATE kafka_offsets
                 SET next_offset = ?4, topic_generation = ?5, last_offset = ?6, last_timestamp = ?7, last_digest = ?8,
                     anchor_offset = ?9, anchor_timestamp = ?10, anchor_digest = ?11, updated_at = ?14
                 WHERE kafka_cluster = ?1 AND kafka_topic = ?2 AND kafka_partition = ?3 AND next_offset = ?12
                   AND topic_generation = ?13",
                params![
                    topic.cluster,
                    topic.name,
                    partition,
                    new.next_offset,
                    new.generation,
                    new.last.map(|print| print.offset),
                    new.last.map(|print| print.timestamp_ms),
                    new.last.map(|print| print.digest),
                    new.anchor.map(|print| print.offset),
                    new.anchor.map(|print| print.timestamp_ms),
                    new.anchor.map(|print| print.digest),
                    old.next_offset,
                    old.generation,
                    now,
                ],
            )?;
            if replaced == 0 {
                return Err(StoreError::Conflict(format!("{topic}[{partition}]: another consumer was here")));
            }
            if let Some(gap) = gap {
                put_gap(&transaction, topic, partition, new.generation, gap, &now)?;
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
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        self.with(|SqliteSession(connection)| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (mut dropped, now) = (0, text(now));
            for (partition, generation, offset) in letters {
                let (set, which) = ("UPDATE dead_letters", ONE_DEAD_LETTER.trim_start_matches("dead_letters"));
                let sql = format!(
                    "{set} SET headers = NULL, key = NULL, payload = NULL, dropped_at = ?6, drop_reason = ?7
                     {which} AND dropped_at IS NULL"
                );
                let key = params![topic.cluster, topic.name, partition, generation, offset, now, reason];
                dropped += transaction.prepare(&sql)?.execute(key)? as u64;
            }
            transaction.commit()?;
            Ok(dropped)
        })
    }
}

/// Formats whole microseconds, so that text sorts by time.
fn text(time: DateTime<Utc>) -> String {
    wire::rfc3339(time).to_string()
}

fn checkpoint(row: &rusqlite::Row<'_>) -> Result<Checkpoint, Error> {
    let fingerprint = |first: usize| -> Result<Option<Fingerprint>, Error> {
        let Some(offset) = row.get(first)? else { return Ok(None) };
        Ok(Some(Fingerprint { offset, timestamp_ms: row.get(first + 1)?, digest: row.get(first + 2)? }))
    };
    Ok(Checkpoint { next_offset: row.get(0)?, generation: row.get(1)?, last: fingerprint(2)?, anchor: fingerprint(5)? })
}
