//! A Kafka consumer that is assigned partitions by hand: it joins no group, and never commits an offset.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;

use super::headers::headers;
use super::unreadable::{self, Repetitions, is_unreadable};
use super::{ASK_MAX, standalone_client};
use crate::consumer::batch::Record;
use crate::kafka::offsets::{self, PartitionsError, list};
use crate::kafka::{Connection, DRAIN, Reports};
use crate::wire::Decoder;

pub struct StandaloneConsumer {
    consumer: BaseConsumer<Reports>,
    topic: String,
    connection: Connection,
    decoder: Decoder,
    positions: BTreeMap<i32, i64>,
    repetitions: Repetitions,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, and nearly all are the large one")]
pub enum Fetched {
    Record(i32, Record),
    End(i32),
    NoMessage,
    Error(String),
}

impl StandaloneConsumer {
    /// Makes a client that connects at its first use. Fails on secrets that can't be read, and properties that librdkafka refuses.
    pub fn new(connection: &Connection, topic: &str, group: &str, decoder: Decoder) -> Result<Self, String> {
        let consumer =
            standalone_client(connection, group, &[topic.to_owned()], &[("queued.max.messages.kbytes", "8192")])?;
        let (topic, connection) = (topic.to_owned(), connection.clone());
        Ok(Self {
            consumer,
            topic,
            connection,
            decoder,
            positions: BTreeMap::new(),
            repetitions: Repetitions::default(),
        })
    }

    pub fn partitions(&self) -> Result<Vec<i32>, PartitionsError> {
        let reported = || self.reported_by_now();
        Ok(offsets::partitions(&self.consumer, &self.topic, self.connection.brokers(), ASK_MAX, reported)?.all)
    }

    pub fn cluster(&self) -> String {
        self.consumer.client().fetch_cluster_id(ASK_MAX).unwrap_or_default()
    }

    /// Returns the first offset, and the one after the last that a reader may see (the last stable offset).
    pub fn watermarks(&self, partition: i32) -> Result<(i64, i64), String> {
        let topic = &self.topic;
        let watermarks = offsets::watermarks(self.consumer.client(), topic, partition, ASK_MAX);
        watermarks.map_err(|error| format!("{topic}[{partition}]: {}", self.unanswered(&error)))
    }

    /// Returns the first offset whose message is not older than `time_ms` (since 1970), if there is one.
    pub fn offsets_at(&self, partitions: &[i32], time_ms: i64) -> Result<BTreeMap<i32, i64>, String> {
        let times = list(&self.topic, &partitions.iter().map(|partition| (*partition, time_ms)).collect())?;
        offsets::at_times(&self.consumer, &times, ASK_MAX).map_err(|error| self.unanswered(&error))
    }

    pub fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, String> {
        let committed = offsets::committed(&self.consumer, &self.topic, partitions, ASK_MAX);
        committed.map_err(|error| self.unanswered(&error))
    }

    fn unanswered(&self, error: &KafkaError) -> String {
        self.reported_by_now().unwrap_or_else(|| error.to_string())
    }

    fn reported_by_now(&self) -> Option<String> {
        // Polling brings the reports; before an assignment it loses no message.
        while self.consumer.poll(DRAIN).is_some() {}
        let refused_group = self.consumer.context().take_refused_group();
        self.reported().or(refused_group)
    }

    fn reported(&self) -> Option<String> {
        let reports = self.consumer.context();
        reports.take_refused().or_else(|| reports.take_error())
    }

    pub fn assign_from(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), String> {
        self.positions = offsets.clone();
        self.consumer.assign(&list(&self.topic, offsets)?).map_err(|e| e.to_string())
    }

    pub fn poll(&mut self, timeout: Duration) -> Fetched {
        let unreadable = match self.consumer.poll(timeout) {
            None => return self.reported().map_or(Fetched::NoMessage, Fetched::Error),
            Some(Err(KafkaError::PartitionEOF(partition))) => return Fetched::End(partition),
            Some(Err(error)) if is_unreadable(&error) => error,
            // librdkafka looks for the coordinator of a group that this client never joins.
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                return Fetched::NoMessage;
            }
            Some(Err(error)) => return Fetched::Error(self.reported().unwrap_or_else(|| error.to_string())),
            Some(Ok(message)) => {
                let (payload, headers) = (message.payload(), headers(&message));
                let decoded = self.decoder.decode(payload.unwrap_or_default(), || headers.get("content-type"));
                let decoded = decoded.map_err(|error| error.to_string());
                let timestamp_ms = message.timestamp().to_millis();
                let parts = (message.key(), payload, headers);
                let record = Record::decoded(message.offset(), timestamp_ms, parts, decoded);
                self.positions.insert(message.partition(), record.offset + 1);
                return Fetched::Record(message.partition(), record);
            }
        };
        self.note_unreadable(&unreadable)
    }

    fn note_unreadable(&mut self, error: &KafkaError) -> Fetched {
        let reported = self.reported().unwrap_or_else(|| error.to_string());
        if !self.repetitions.is_permanent(&reported) {
            return Fetched::Error(reported);
        }
        let found = unreadable::find(&self.consumer, &self.topic, &self.positions);
        let descriptions: Vec<String> =
            found.iter().map(|unreadable| unreadable.description(&self.topic, &self.connection)).collect();
        let mut positions = self.positions.clone();
        positions.extend(found.iter().map(|unreadable| (unreadable.partition, unreadable.end)));
        match self.assign_from(&positions) {
            Ok(()) if found.is_empty() => Fetched::Error(reported),
            Ok(()) => Fetched::Error(descriptions.join("; ")),
            Err(error) => Fetched::Error(error),
        }
    }
}
