//! Databases as operators have them: busy, locked, pooled, shared, with settings and triggers of their own. Storing goes on, or
//! reports what would mend it; nothing is skipped.

mod maintenance;
mod migrations;
mod partitions;
mod refused_rows;
mod rights;
mod schema;
mod settings;

use chrono::Utc;
use highwater::consumer::batch::{Batch, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Applied, PartitionWidth, Store, StoreError, StoreOptions, StoreUrl};
use highwater::message::Event;
use highwater::wire;

use crate::support::consumer::{Database, Postgres, insert_checkpoint};
use crate::support::events::updated;
use crate::support::failpoints;
use crate::support::services::Kafka;

fn servers(test: &str) -> Option<(Kafka, Postgres)> {
    let test = format!("consumer_database::{test}");
    failpoints::or_skip(&test)?;
    Some((Kafka::or_skip(&test)?, Postgres::or_skip(&test)?))
}

fn postgres(test: &str) -> Option<Postgres> {
    Postgres::or_skip(&format!("consumer_database::{test}"))
}

fn topic() -> TopicId {
    TopicId { cluster: "c".into(), name: "t".into() }
}

fn options(partition: PartitionWidth) -> StoreOptions {
    StoreOptions { instance: "test".into(), partition, ..StoreOptions::default() }
}

fn open(url: &str, schema: Option<&str>) -> Box<dyn Store + Send> {
    StoreUrl::parse(url, None, schema).unwrap().open(&options(PartitionWidth::Month))
}

fn batch(from: i64, events: &[Event]) -> Batch {
    let mut batch = Batch::new(&topic());
    for (offset, event) in (from..).zip(events) {
        batch.push(0, Record::new(offset, Some(7), Some(b"k"), Some(&wire::to_json(event))), || (0, from));
    }
    batch
}

fn store(store: &mut dyn Store, events: &[Event]) -> Result<Applied, StoreError> {
    insert_checkpoint(&mut *store, &topic(), 0, &Checkpoint::default(), None)?;
    store.apply(&batch(0, events), Utc::now())
}

fn events(seqs: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    seqs.map(|seq| updated("gw", seq)).collect()
}

/// Returns the database's URL for another role.
fn url_of(database: &Database, role: &str) -> String {
    let (_, server) = database.url.split_once('@').unwrap();
    format!("postgres://{role}:secret@{server}")
}
