//! Stores as the consumer calls them: options, batches, checkpoints, and the hours that are made of windows.

use chrono::{DateTime, Utc};
use highwater::consumer::batch::{Batch, Gap, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Store, StoreError, StoreOptions, StoreUrl};
use highwater::message::Event;
use highwater::wire;

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
