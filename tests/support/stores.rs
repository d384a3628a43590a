//! Stores as the consumer calls them: options, batches, checkpoints, and the hours that are made of windows.

use chrono::{DateTime, Utc};
use highwater::consumer::batch::{Batch, Gap, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Store, StoreError, StoreOptions, StoreUrl};
use highwater::message::Event;
use highwater::wire;

use super::postgres::{Database, Postgres};

/// Database of a store under test, asked over a connection that is not the store's.
pub(crate) enum StoreDatabase {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

impl StoreDatabase {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn postgres(postgres: &Postgres, name: &str) -> Self {
        Self::Postgres(postgres.database(name))
    }

    /// Returns the database on PostgreSQL, in a test that is of PostgreSQL alone.
    pub(crate) fn server(&self) -> &Database {
        match self {
            Self::Postgres(database) => database,
            Self::Sqlite(_) => panic!("the test is of PostgreSQL"),
        }
    }

    pub(crate) fn url(&self) -> StoreUrl {
        match self {
            Self::Sqlite(directory) => StoreUrl::sqlite(&directory.path().join("h.db")),
            Self::Postgres(database) => StoreUrl::parse(&database.url, None, None).expect("a URL"),
        }
    }

    /// Returns rows as text, sorted, with commas between columns. Bytes are in hexadecimal; whole numbers and texts look the same in
    /// both databases.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        let mut rows = match self {
            Self::Postgres(database) => rows_of_postgres(database, sql),
            Self::Sqlite(directory) => rows_of_sqlite(&connection(directory), sql),
        };
        rows.sort();
        rows
    }

    /// Returns [`rows`](Self::rows) separated by blanks.
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.rows(sql).join(" ")
    }

    pub(crate) fn run(&self, sql: &str) {
        match self {
            Self::Postgres(database) => database.client().batch_execute(sql).expect("PostgreSQL runs it"),
            Self::Sqlite(directory) => connection(directory).execute_batch(sql).expect("SQLite runs it"),
        }
    }
}

fn connection(directory: &tempfile::TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.path().join("h.db")).expect("a database")
}

fn rows_of_postgres(database: &Database, sql: &str) -> Vec<String> {
    let answer = database.client().simple_query(sql).expect("the question is right");
    let rows = answer.into_iter().filter_map(|message| match message {
        ::postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| {
        let texts: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or("")).collect();
        texts.join(",").replace("\\x", "")
    })
    .collect()
}

fn rows_of_sqlite(connection: &rusqlite::Connection, sql: &str) -> Vec<String> {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare(sql).expect("the question is right");
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let texts = (0..columns).map(|column| match row.get_ref(column).expect("a column") {
            ValueRef::Null => String::new(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            other => other.as_str().expect("text").to_owned(),
        });
        Ok(texts.collect::<Vec<_>>().join(","))
    });
    rows.expect("an answer").map(|row| row.expect("a row")).collect()
}

/// Makes the identity of a topic of a cluster that does not exist.
pub(crate) fn topic_id(name: &str) -> TopicId {
    TopicId { cluster: "c".into(), name: name.into() }
}

pub(crate) fn store_options(instance: &str) -> StoreOptions {
    StoreOptions { instance: instance.to_owned(), ..StoreOptions::default() }
}

/// Makes a batch of partition 0 of the topic `events`, whose offsets begin at `from`.
pub(crate) fn batch_of(from: i64, payloads: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new(&topic_id("events"));
    for (offset, payload) in (from..).zip(payloads) {
        batch.push(0, Record::new(offset, Some(7), Some(b"k"), Some(payload)), || (0, from));
    }
    batch
}

/// Makes the batch of these events; see [`batch_of`].
pub(crate) fn batch_of_events(from: i64, events: &[Event]) -> Batch {
    batch_of(from, &events.iter().map(wire::to_json).collect::<Vec<_>>())
}

/// Inserts the first checkpoint of one partition, and the gap before it; returns the one in the database then.
pub(crate) fn insert_checkpoint(
    store: &mut dyn Store,
    topic: &TopicId,
    partition: i32,
    first: &Checkpoint,
    gap: Option<Gap>,
) -> Result<Checkpoint, StoreError> {
    let first = [(partition, (first.clone(), gap.into_iter().collect()))];
    store.insert_checkpoints(topic, &first.into()).map(|all| all[&partition].clone())
}

/// Makes hours and days of all windows that are stored.
pub(crate) fn derive_histograms(url: &str, options: &StoreOptions, now: DateTime<Utc>) {
    let mut histograms = StoreUrl::parse(url, None, None).expect("a URL").histograms(options);
    while histograms.derive(now).expect("hours can be made").has_more {}
}
