//! Promises of every store: one body of tests, run against SQLite and against a real PostgreSQL.

mod breaches;
mod dead_letters;
mod exactly_once;
mod missing_events;
mod postgres;
mod retention;
mod rows;
mod samples;
mod totals;

use std::time::Duration;

use chrono::{DateTime, Utc};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Applied, Maintained, Retention, Store, StoreUrl};
use highwater::message::Event;
use highwater::wire;

use crate::support::consumer::{Database, Postgres};
use crate::support::events::updated;
use crate::support::stores::{batch_of, insert_checkpoint, store_options, topic_id};

const BUDGET: Duration = Duration::from_secs(60);

/// A store under test, and a connection that is not the store's.
struct Bench {
    store: Box<dyn Store + Send>,
    look: Look,
    next: i64,
}

enum Look {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

impl Bench {
    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreUrl::sqlite(&directory.path().join("h.db")).open(&store_options("test"));
        Self::from_start(store, Look::Sqlite(directory))
    }

    fn postgres(postgres: &Postgres) -> Self {
        let database = postgres.database("store");
        let store = StoreUrl::parse(&database.url, None, None).unwrap().open(&store_options("test"));
        Self::from_start(store, Look::Postgres(database))
    }

    fn from_start(mut store: Box<dyn Store + Send>, look: Look) -> Self {
        assert_eq!(
            insert_checkpoint(&mut *store, &topic_id("events"), 0, &Checkpoint::default(), None).unwrap(),
            Checkpoint::default()
        );
        Self { store, look, next: 0 }
    }

    fn another_store(&self) -> Box<dyn Store + Send> {
        match &self.look {
            Look::Sqlite(directory) => StoreUrl::sqlite(&directory.path().join("h.db")).open(&store_options("other")),
            Look::Postgres(database) => {
                StoreUrl::parse(&database.url, None, None).unwrap().open(&store_options("other"))
            }
        }
    }

    /// Runs `sql`; rows are separated by spaces, columns by commas. Both databases print whole numbers and text the same.
    fn ask(&self, sql: &str) -> String {
        match &self.look {
            Look::Postgres(database) => {
                let answer = database.ask(sql);
                answer.replace(['(', ')'], "")
            }
            Look::Sqlite(directory) => {
                let connection = rusqlite::Connection::open(directory.path().join("h.db")).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                let columns = statement.column_count();
                let rows = statement.query_map([], |row| {
                    let texts = (0..columns).map(|column| match row.get_ref(column).unwrap() {
                        rusqlite::types::ValueRef::Null => String::new(),
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        other => other.as_str().unwrap().to_owned(),
                    });
                    Ok(texts.collect::<Vec<_>>().join(","))
                });
                let mut rows: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
                rows.sort();
                rows.join(" ")
            }
        }
    }

    fn store(&mut self, payloads: &[Vec<u8>]) -> Applied {
        let batch = batch_of(self.next, payloads);
        self.next += payloads.len() as i64;
        self.store.apply(&batch, Utc::now()).unwrap()
    }

    fn store_events(&mut self, events: &[Event]) -> Applied {
        self.store(&events.iter().map(wire::to_json).collect::<Vec<_>>())
    }

    fn retire(&self, days: u64, now: DateTime<Utc>) -> Maintained {
        self.retain(days as u32, 1, now)
    }

    fn retain(&self, days: u32, dead_letter_days: u32, now: DateTime<Utc>) -> Maintained {
        self.retain_within(BUDGET, days, dead_letter_days, now)
    }

    fn retain_within(&self, budget: Duration, days: u32, dead_letter_days: u32, now: DateTime<Utc>) -> Maintained {
        let url = match &self.look {
            Look::Sqlite(directory) => StoreUrl::sqlite(&directory.path().join("h.db")),
            Look::Postgres(database) => StoreUrl::parse(&database.url, None, None).unwrap(),
        };
        let day = Duration::from_secs(86_400);
        let keep = Retention { events: day * days, dead_letters: day * dead_letter_days, ..Retention::default() };
        url.maintenance(&store_options("maintenance")).run(&keep, Some(now), budget).unwrap()
    }

    fn run(&self, sql: &str) {
        match &self.look {
            Look::Postgres(database) => database.client().batch_execute(sql).unwrap(),
            Look::Sqlite(directory) => {
                rusqlite::Connection::open(directory.path().join("h.db")).unwrap().execute_batch(sql).unwrap();
            }
        }
    }

    /// Makes rows old, and the notes of their partitions.
    fn age(&self, table: &str, which: &str) {
        self.run(&format!("UPDATE {table} SET stored_at = '2020-01-01T00:00:00.000000Z' WHERE {which}"));
        if matches!(self.look, Look::Postgres(_)) {
            self.run(&format!(
                "UPDATE partition_notes SET newest_stored_at = '2020-01-01'
                 WHERE partition IN (SELECT tableoid::regclass::text FROM {table} WHERE {which})"
            ));
        }
    }

    fn checkpoint(&mut self) -> Checkpoint {
        self.store.checkpoints(&topic_id("events")).unwrap()[&0].clone()
    }
}

fn payloads(seqs: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
    seqs.into_iter().map(|seq| wire::to_json(&updated("gw", seq))).collect()
}

/// Makes a test for SQLite and one for PostgreSQL of each function; `$module` is the module that calls it.
macro_rules! on_both {
    ($module:literal: $($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&mut crate::consumer_store::Bench::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() {
                let test = concat!($module, "::postgres::", stringify!($name));
                let Some(postgres) = crate::support::consumer::Postgres::or_skip(test) else { return };
                super::$name(&mut crate::consumer_store::Bench::postgres(&postgres));
            })*
        }
    };
}
pub(crate) use on_both;
