//! Databases as operators have them: busy, locked, pooled, shared, with settings and triggers of their own. Storing goes on, or
//! reports what would mend it; nothing is skipped.

mod detachment;
mod maintenance;
mod migrations;
mod partitions;
mod refused_rows;
mod rights;
mod schema;
mod settings;

use std::time::Duration;

use chrono::Utc;
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Applied, PartitionWidth, Retention, Store, StoreError, StoreOptions, StoreUrl};
use highwater::message::Event;

use crate::support::failpoints;
use crate::support::postgres::Postgres;
use crate::support::services::{Kafka, kafka_and_postgres};
use crate::support::stores::{batch_of_events, insert_checkpoint, store_options, topic_id};

fn servers_with_fail_points(test: &str) -> Option<(Kafka, Postgres)> {
    let test = format!("consumer_database::{test}");
    failpoints::or_skip(&test)?;
    kafka_and_postgres(&test)
}

fn postgres(test: &str) -> Option<Postgres> {
    Postgres::or_skip(&format!("consumer_database::{test}"))
}

/// Options under which the events, whose times are fixed, stay within the retention whenever a test runs.
fn options_for(partition: PartitionWidth) -> StoreOptions {
    let retention = Retention { events: Duration::from_secs(100 * 366 * 86_400), ..Retention::default() };
    StoreOptions { partition, retention, ..store_options("test") }
}

fn open_store(url: &str, schema: Option<&str>) -> Box<dyn Store + Send> {
    StoreUrl::parse(url, None, schema).unwrap().open(&options_for(PartitionWidth::Month))
}

/// Stores the first events of a partition.
fn store_first(store: &mut dyn Store, events: &[Event]) -> Result<Applied, StoreError> {
    insert_checkpoint(&mut *store, &topic_id("events"), 0, &Checkpoint::default(), None)?;
    store.apply(&batch_of_events(0, events), Utc::now())
}
