//! Commands that read the store, as their users run them, on both databases.

mod check;
mod dead_letters;
mod losses;
mod output;
mod refusals;

use std::process::Output;

use chrono::Utc;
use highwater::consumer::batch::{Batch, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Store, StoreUrl};
use highwater::message::Event;
use highwater::wire;
use serde_json::Value;

use crate::support::consumer::command;
use crate::support::postgres::{Database, Postgres};
use crate::support::process::texts_of;
use crate::support::stores::{insert_checkpoint, store_options};

pub(crate) const TOPIC: &str = "events";

pub(crate) struct CommandFixture {
    pub(crate) url: String,
    pub(crate) store: Box<dyn Store + Send>,
    next: i64,
    home: Home,
}

enum Home {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

fn stage_topic() -> TopicId {
    TopicId { cluster: String::new(), name: TOPIC.into() }
}

impl CommandFixture {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("h.db").display());
        Self::from_start(url, Home::Sqlite(directory))
    }

    pub(crate) fn postgres(test: &str) -> Option<Self> {
        let database = Postgres::or_skip(test)?.database("commands");
        Some(Self::from_start(database.url.clone(), Home::Postgres(database)))
    }

    fn from_start(url: String, home: Home) -> Self {
        let mut store = StoreUrl::parse(&url, None, None).unwrap().open(&store_options("fixture"));
        insert_checkpoint(&mut *store, &stage_topic(), 0, &Checkpoint::default(), None).unwrap();
        Self { url, store, next: 0, home }
    }

    pub(crate) fn store(&mut self, payloads: &[Vec<u8>]) {
        let record = |(offset, payload): (i64, &Vec<u8>)| Record::new(offset, Some(7), Some(b"gw"), Some(payload));
        self.store_records((self.next..).zip(payloads).map(record).collect());
    }

    fn store_records(&mut self, records: Vec<Record>) {
        let mut batch = Batch::new(&stage_topic());
        let from = self.next;
        self.next += records.len() as i64;
        for record in records {
            batch.push(0, record, || (0, from));
        }
        self.store.apply(&batch, Utc::now()).unwrap();
    }

    pub(crate) fn store_events(&mut self, events: &[Event]) {
        self.store(&events.iter().map(wire::to_json).collect::<Vec<_>>());
    }

    /// Stores dead letters as an older version, or a stricter database, would have.
    pub(crate) fn put_aside(&self, letters: &[(i64, Vec<u8>)]) {
        let sql = "INSERT INTO dead_letters (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset, payload,
                                             bytes, error, stored_at)
                   VALUES ('', 'old', 3, 0, $1, $2, $3, 'unknown format', '2026-11-20T12:00:00.000000Z')";
        match &self.home {
            Home::Postgres(database) => {
                let mut client = database.client();
                for (offset, payload) in letters {
                    client.execute(sql, &[offset, payload, &(payload.len() as i64)]).unwrap();
                }
            }
            Home::Sqlite(directory) => {
                let connection = rusqlite::Connection::open(directory.path().join("h.db")).unwrap();
                for (offset, payload) in letters {
                    connection.execute(sql, rusqlite::params![offset, payload, payload.len() as i64]).unwrap();
                }
            }
        }
    }

    pub(crate) fn numbers<const N: usize>(&self, sql: &str) -> [i64; N] {
        match &self.home {
            Home::Postgres(database) => {
                let row = database.client().query_one(sql, &[]).unwrap();
                std::array::from_fn(|at| row.get(at))
            }
            Home::Sqlite(directory) => {
                let connection = rusqlite::Connection::open(directory.path().join("h.db")).unwrap();
                connection.query_row(sql, [], |row| Ok(std::array::from_fn(|at| row.get(at).unwrap()))).unwrap()
            }
        }
    }

    pub(crate) fn run(&self, sql: &str) {
        match &self.home {
            Home::Postgres(database) => database.client().batch_execute(sql).unwrap(),
            Home::Sqlite(directory) => {
                rusqlite::Connection::open(directory.path().join("h.db")).unwrap().execute_batch(sql).unwrap();
            }
        }
    }

    pub(crate) fn raw_output(&self, arguments: &[&str]) -> Output {
        command().args(arguments).env("HIGHWATER_STORE__URL", &self.url).output().unwrap()
    }

    /// Returns the exit code, standard output and standard error.
    pub(crate) fn output(&self, arguments: &[&str]) -> (i32, String, String) {
        texts_of(&self.raw_output(arguments))
    }

    /// Returns the exit code, and the rows printed as JSON.
    pub(crate) fn rows(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let (code, out, err) = self.output(&[arguments, &["--format", "json"]].concat());
        let rows = out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line} {err}")));
        (code, rows.collect())
    }
}

pub(crate) fn fields(rows: &[Value], names: &[&str]) -> Vec<String> {
    let field = |row: &Value, name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    rows.iter().map(|row| names.iter().map(|name| field(row, name)).collect::<Vec<_>>().join(" ")).collect()
}

/// Makes a test for SQLite and one for PostgreSQL of each function; `$module` is the module that calls it.
macro_rules! on_both {
    ($module:literal: $($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(crate::consumer_commands::CommandFixture::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() {
                let test = concat!($module, "::postgres::", stringify!($name));
                if let Some(fixture) = crate::consumer_commands::CommandFixture::postgres(test) {
                    super::$name(fixture);
                }
            })*
        }
    };
}
pub(crate) use on_both;

const MAKE_OLD: &str = "UPDATE agent_sequences SET first_stored_at = '2026-11-20T12:00:00.000000Z';
                   UPDATE dead_letters SET stored_at = '2026-11-20T12:30:00.000000Z';
                   UPDATE losses SET stored_at = '2026-11-20T11:00:00.000000Z'";

fn sql_of_gap(cause: &str, first: i64, last: i64, noticed_at: &str) -> String {
    format!(
        "INSERT INTO kafka_gaps (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset, last_offset, cause, \
         noticed_at) VALUES ('', 'events', 0, 0, {first}, {last}, '{cause}', '{noticed_at}');"
    )
}

/// Settings of a server that change how text is read and written, and what a transaction may do.
pub(crate) const TEXT_SETTINGS: &[&str] = &[
    "DateStyle = 'SQL, MDY'",
    "DateStyle = 'German'",
    "DateStyle = 'Postgres, DMY'",
    "IntervalStyle = 'iso_8601'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "TimeZone = 'Pacific/Kiritimati'",
    "lc_time = 'de_DE.UTF-8'",
    "lc_numeric = 'de_DE.UTF-8'",
    "lc_monetary = 'de_DE.UTF-8'",
    "lc_messages = 'de_DE.UTF-8'",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "client_encoding = 'LATIN1'",
    "quote_all_identifiers = on",
];
