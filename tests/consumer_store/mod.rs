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
use highwater::consumer::store::{Applied, Maintained, Retention, Store};
use highwater::message::Event;
use highwater::wire;

use crate::support::events::updated;
use crate::support::postgres::Postgres;
use crate::support::stores::{StoreDatabase, batch_of, insert_checkpoint, store_options, topic_id};

const BUDGET: Duration = Duration::from_secs(60);

/// A store under test.
struct StoreFixture {
    store: Box<dyn Store + Send>,
    database: StoreDatabase,
    next: i64,
}

impl StoreFixture {
    fn sqlite() -> Self {
        Self::from_start(StoreDatabase::sqlite())
    }

    fn postgres(postgres: &Postgres) -> Self {
        Self::from_start(StoreDatabase::postgres(postgres, "store"))
    }

    fn from_start(database: StoreDatabase) -> Self {
        let mut store = database.url().open(&store_options("test"));
        assert_eq!(
            insert_checkpoint(&mut *store, &topic_id("events"), 0, &Checkpoint::default(), None).unwrap(),
            Checkpoint::default()
        );
        Self { store, database, next: 0 }
    }

    fn another_store(&self) -> Box<dyn Store + Send> {
        self.database.url().open(&store_options("other"))
    }

    fn ask(&self, sql: &str) -> String {
        self.database.ask(sql)
    }

    fn run(&self, sql: &str) {
        self.database.run(sql);
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
        let day = Duration::from_secs(86_400);
        let keep = Retention { events: day * days, dead_letters: day * dead_letter_days, ..Retention::default() };
        self.database.url().maintenance(&store_options("maintenance")).run(&keep, Some(now), budget).unwrap()
    }

    /// Makes rows old, and the notes of their partitions.
    fn age(&self, table: &str, which: &str) {
        self.run(&format!("UPDATE {table} SET stored_at = '2020-01-01T00:00:00.000000Z' WHERE {which}"));
        if matches!(self.database, StoreDatabase::Postgres(_)) {
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
            $(#[test] fn $name() { super::$name(&mut crate::consumer_store::StoreFixture::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() {
                let test = concat!($module, "::postgres::", stringify!($name));
                let Some(postgres) = crate::support::postgres::Postgres::or_skip(test) else { return };
                super::$name(&mut crate::consumer_store::StoreFixture::postgres(&postgres));
            })*
        }
    };
}
pub(crate) use on_both;
