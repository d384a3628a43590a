use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::stream;
use crate::cli::output::Value;
use crate::consumer::batch::{PackedHeaders, Record, TopicId};
use crate::consumer::store::ColumnType::{Blob, Number, Text, Time};
use crate::consumer::store::{ColumnType, Query, Reader, RetriedRecord, RetryOutcome, Store, StoreError};
use crate::process::clock::Clock;
use crate::wire::{Decoder, Undecoded};

/// A dead letter; its payload has `bytes` (`None`: a tombstone). Agent, epoch and seq are as claimed by payload, headers or key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub at: KafkaPosition,
    pub kafka_timestamp: Option<DateTime<Utc>>,
    pub stored_at: Option<DateTime<Utc>>,
    pub error: String,
    pub bytes: Option<i64>,
    pub agent: Option<String>,
    pub epoch: Option<String>,
    pub seq: Option<i64>,
    pub dropped: Option<(DateTime<Utc>, String)>,
    pub key: Option<Vec<u8>>,
    pub headers: PackedHeaders,
    pub payload: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    Begin(i64),
    Whole,
}

/// Dead letters are read in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KafkaPosition {
    pub topic: TopicId,
    pub partition: i32,
    pub generation: i32,
    pub offset: i64,
}

#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub first: Option<i64>,
    pub last: Option<i64>,
    pub agent: Option<String>,
    pub error: Option<String>,
    pub with_dropped: bool,
}

const PAGE: i64 = 100;
const PAGE_BYTES: usize = 4 << 20;
/// Longest wait for a registry that does not answer.
const REGISTRY_AWAY_MAX: Duration = Duration::from_secs(15);

const COLUMNS: &str = "SELECT kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset, kafka_timestamp, \
                       stored_at, error, bytes, agent, epoch, seq, dropped_at, drop_reason, key, headers,";
const KINDS: &[ColumnType] =
    &[Text, Text, Number, Number, Number, Time, Time, Text, Number, Text, Text, Number, Time, Text, Blob, Blob, Blob];

pub fn read(
    reader: &mut dyn Reader,
    filter: &DeadLetterFilter,
    payloads: Payloads,
    mut print: impl FnMut(DeadLetter) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    stream(reader, &query(filter, payloads, None), |row| print(DeadLetter::from_row(row)))
}

/// Decodes dead letters again, and stores those that are events now, each in the transaction that removes the dead letter. Calls
/// `each` with every outcome, and returns the number of new rows; what was reported before an error has happened.
pub fn retry(
    store: &mut dyn Store,
    reader: &mut dyn Reader,
    filter: &DeadLetterFilter,
    (decoder, clock): (&mut Decoder, &dyn Clock),
    mut each: impl FnMut(&KafkaPosition, &RetryOutcome),
) -> Result<u64, StoreError> {
    let filter = DeadLetterFilter { with_dropped: false, ..filter.clone() };
    let (mut after, mut inserted) = (None, 0);
    loop {
        let letters = page(reader, &filter, Payloads::Whole, after.as_ref())?;
        let Some(last) = letters.last() else { return Ok(inserted) };
        after = Some(last.at.clone());
        for of_a_topic in letters.chunk_by(|a, b| a.at.topic == b.at.topic) {
            let records: Result<Vec<RetriedRecord>, StoreError> =
                of_a_topic.iter().map(|letter| letter.retried(decoder)).collect();
            let records = records?;
            let retried = store.retry(&of_a_topic[0].at.topic, &records, clock.wall())?;
            inserted += retried.inserted;
            for (letter, outcome) in of_a_topic.iter().zip(&retried.outcomes) {
                each(&letter.at, outcome);
            }
        }
    }
}

/// Removes the bytes of dead letters, and keeps `reason`. Returns their number, or an error with the number so far.
pub fn drop_all(
    store: &mut dyn Store,
    reader: &mut dyn Reader,
    filter: &DeadLetterFilter,
    reason: &str,
    clock: &dyn Clock,
) -> Result<u64, (StoreError, u64)> {
    let filter = DeadLetterFilter { with_dropped: false, ..filter.clone() };
    let (mut after, mut dropped) = (None, 0);
    loop {
        let letters = page(reader, &filter, Payloads::Begin(0), after.as_ref()).map_err(|error| (error, dropped))?;
        let Some(last) = letters.last() else { return Ok(dropped) };
        after = Some(last.at.clone());
        for of_a_topic in letters.chunk_by(|a, b| a.at.topic == b.at.topic) {
            let place = |letter: &DeadLetter| (letter.at.partition, letter.at.generation, letter.at.offset);
            let places: Vec<_> = of_a_topic.iter().map(place).collect();
            let count = store.drop_dead_letters(&of_a_topic[0].at.topic, &places, reason, clock.wall());
            dropped += count.map_err(|error| (error, dropped))?;
        }
    }
}

fn page(
    reader: &mut dyn Reader,
    filter: &DeadLetterFilter,
    payloads: Payloads,
    after: Option<&KafkaPosition>,
) -> Result<Vec<DeadLetter>, StoreError> {
    let (mut letters, mut bytes) = (Vec::new(), 0);
    reader.read(&query(filter, payloads, after).with("LIMIT ?", PAGE), &mut |row| {
        let letter = DeadLetter::from_row(row);
        bytes += letter.payload.as_ref().map_or(0, Vec::len);
        letters.push(letter);
        if bytes < PAGE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(letters)
}

fn query(filter: &DeadLetterFilter, payloads: Payloads, after: Option<&KafkaPosition>) -> Query {
    let query = match payloads {
        Payloads::Begin(bytes) => Query::new(COLUMNS, KINDS)
            .with("substr(payload, 1, CAST(? AS integer)) FROM dead_letters WHERE true", bytes),
        Payloads::Whole => Query::new(COLUMNS, KINDS).then("payload FROM dead_letters WHERE true"),
    };
    let query = query
        .with_any("AND kafka_topic = ?", filter.topic.as_deref())
        .with_any("AND kafka_partition = ?", filter.partition)
        .with_any("AND kafka_offset >= ?", filter.first)
        .with_any("AND kafka_offset <= ?", filter.last)
        .with_any("AND agent = ?", filter.agent.as_deref())
        .with_any("AND lower(error) LIKE lower(?) ESCAPE '!'", filter.error.as_deref().map(containing).as_deref());
    let query = if filter.with_dropped { query } else { query.then("AND dropped_at IS NULL") };
    let query = match after {
        None => query,
        Some(KafkaPosition { topic, partition, generation, offset }) => query
            .with(
                "AND (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset) > (?,",
                &*topic.cluster,
            )
            .with("?,", &*topic.name)
            .with("?,", *partition)
            .with("?,", *generation)
            .with("?)", *offset),
    };
    query.then("ORDER BY kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset")
}

fn containing(text: &str) -> String {
    format!("%{}%", text.replace('!', "!!").replace('%', "!%").replace('_', "!_"))
}

impl DeadLetter {
    fn from_row(row: Vec<Value>) -> Self {
        let mut row = row.into_iter();
        let mut next = || row.next().unwrap_or(Value::Null);
        let topic =
            TopicId { cluster: next().into_text().unwrap_or_default(), name: next().into_text().unwrap_or_default() };
        let at = KafkaPosition {
            topic,
            partition: next().into_number().unwrap_or_default(),
            generation: next().into_number().unwrap_or_default(),
            offset: next().into_number().unwrap_or_default(),
        };
        Self {
            at,
            kafka_timestamp: next().into_time(),
            stored_at: next().into_time(),
            error: next().into_text().unwrap_or_default(),
            bytes: next().into_number(),
            agent: next().into_text(),
            epoch: next().into_text(),
            seq: next().into_number(),
            dropped: next().into_time().zip(next().into_text()),
            key: next().into_blob(),
            headers: PackedHeaders::from_bytes(next().into_blob().unwrap_or_default()),
            payload: next().into_blob(),
        }
    }

    fn retried(&self, decoder: &mut Decoder) -> Result<RetriedRecord, StoreError> {
        let (key, payload) = (self.key.as_deref(), self.payload.as_deref());
        let decoded = loop {
            match decoder.decode(payload.unwrap_or_default(), || self.headers.get("content-type")) {
                Ok(decoded) => break Ok(decoded),
                Err(Undecoded::Permanent(error)) => break Err(error.to_string()),
                // A first answer may be slow, and would be lost with this process.
                Err(Undecoded::Transient { wait, lasted, .. }) if lasted + wait < REGISTRY_AWAY_MAX => {
                    std::thread::sleep(wait);
                }
                Err(Undecoded::Transient { why, .. }) => return Err(StoreError::Unavailable(why)),
            }
        };
        let timestamp_ms = self.kafka_timestamp.map(|time| time.timestamp_millis());
        Ok(RetriedRecord {
            partition: self.at.partition,
            generation: self.at.generation,
            record: Record::decoded(self.at.offset, timestamp_ms, (key, payload, self.headers.clone()), decoded),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_looked_for_as_it_is() {
        assert_eq!(containing("100%_!"), "%100!%!_!!%");
    }
}
