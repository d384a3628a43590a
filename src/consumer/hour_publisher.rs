//! Publishes merged hours: JSON with bins, counts and sums beside the histogram's bytes, for libraries of other languages.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use serde::Serialize;

use super::store::{HourKey, MergedHour, TrafficSeries};
use crate::config::Invalid;
use crate::kafka::{ClientError, Connection, Reports, missing_right, missing_topic_of_histograms, not_created};
use crate::message::histogram::RateHistogram;
use crate::process::clock::{Clock as _, SystemClock, rfc3339_seconds};

pub(super) struct HourPublisher {
    connection: Connection,
    topic: String,
    /// Dropped after each failure, so that nothing of an earlier try is sent later, when the hour may have changed.
    producer: Option<BaseProducer<Acknowledgements>>,
}

const FIXED: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "20000"),   // the database keeps what is not acknowledged
    ("partitioner", "murmur2_random"), // as the Java client's
];

const DEFAULTS: &[(&str, &str)] = &[
    ("linger.ms", "5"),
    ("compression.type", "zstd"),
    ("reconnect.backoff.max.ms", "10000"),
    ("topic.metadata.refresh.interval.ms", "-1"),
    // A topic that is missing is reported after this time.
    ("topic.metadata.propagation.max.ms", "5000"),
];

const BATCH_MAX: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(100);

const HOUR_S: u32 = 3_600;

#[derive(Serialize)]
struct HourMessage<'a> {
    agent: &'a str,
    interface: &'a str,
    direction: &'a str,
    starts_at: String,
    duration_s: u32,
    version: i64,
    windows: i64,
    late_windows: i64,
    measured_s: i64,
    unmeasured_s: i64,
    bytes: i64,
    packets: Option<i64>,
    errors: Option<i64>,
    drops: Option<i64>,
    min_bps: Option<i64>,
    mean_bps: Option<i64>,
    max_bps: Option<i64>,
    p50_bps: Option<i64>,
    p95_bps: Option<i64>,
    p99_bps: Option<i64>,
    /// From a rate to below another one, and the number of seconds.
    bins: Vec<[u64; 3]>,
    histogram: Option<String>,
}

impl HourPublisher {
    pub(super) fn new(connection: &Connection, topic: &str) -> Self {
        Self { connection: connection.clone(), topic: topic.to_owned(), producer: None }
    }

    /// Returns the hours that Kafka has acknowledged, with their versions, and why the others were not.
    pub(super) fn publish(&mut self, hours: &[MergedHour]) -> (Vec<(HourKey, i64)>, Result<(), String>) {
        let producer = match self.producer.take().map_or_else(|| create(&self.connection), Ok) {
            Ok(producer) => producer,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let sent = send(&producer, &self.topic, hours);
        let deliveries = producer.context().take();
        let done = deliveries.iter().filter(|(_, result)| result.is_ok());
        let done = done.map(|(index, _)| (hours[*index].key.clone(), hours[*index].version)).collect();
        let refused = deliveries.iter().find_map(|(_, result)| result.err());
        let result = match refused {
            Some(code) => Err(self.explained(code, producer.context())),
            None => sent
                .map_err(|error| self.explained(error.rdkafka_error_code().unwrap_or(Code::Fail), producer.context())),
        };
        if result.is_ok() {
            self.producer = Some(producer);
        }
        (done, result)
    }

    fn explained(&self, code: Code, context: &Acknowledgements) -> String {
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                missing_topic_of_histograms(&self.topic, self.connection.brokers())
            }
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                format!("{code}: {}; or set topics.histograms = \"\"", missing_right("Write", "topic", &[&self.topic]))
            }
            code => match context.reports.last() {
                Some(cause) => format!("{}: {code}: {cause}", self.topic),
                None => format!("{}: {code}", self.topic),
            },
        }
    }
}

pub(super) fn check_producer(connection: &Connection) -> Result<(), Invalid> {
    connection.check::<BaseProducer>(config)
}

fn config(connection: &Connection) -> Result<ClientConfig, ClientError> {
    connection.client(FIXED, DEFAULTS)
}

fn create(connection: &Connection) -> Result<BaseProducer<Acknowledgements>, String> {
    let context = Acknowledgements { reports: Reports::new(connection.brokers()), deliveries: Mutex::default() };
    config(connection)?.create_with_context(context).map_err(|error| not_created(&error))
}

fn send(producer: &BaseProducer<Acknowledgements>, topic: &str, hours: &[MergedHour]) -> Result<(), KafkaError> {
    let clock = SystemClock::default();
    let until = clock.monotonic() + BATCH_MAX;
    for (index, hour) in hours.iter().enumerate() {
        let (key, payload) = (message_key(&hour.key), payload(hour));
        let mut record = BaseRecord::with_opaque_to(topic, index).key(&key).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(Code::QueueFull) || clock.monotonic() > until {
                return Err(error);
            }
            producer.poll(POLL);
            record = back;
        }
    }
    while producer.in_flight_count() > 0 {
        if clock.monotonic() > until {
            return Err(KafkaError::Flush(Code::OperationTimedOut));
        }
        producer.poll(POLL);
    }
    Ok(())
}

fn message_key(HourKey { series, starts_at }: &HourKey) -> String {
    let TrafficSeries { agent, interface, direction } = series;
    format!("{agent}/{interface}/{direction}/{}", rfc3339_seconds(*starts_at))
}

fn payload(MergedHour { key: HourKey { series, starts_at }, summary, version }: &MergedHour) -> Vec<u8> {
    let histogram = summary.histogram.as_deref();
    let read = histogram.and_then(|bytes| RateHistogram::decode(bytes).ok());
    let bins = read.iter().flat_map(|read| read.bins().map(|bin| [bin.from_bps, bin.to_bps, bin.count]));
    let message = HourMessage {
        agent: &series.agent,
        interface: &series.interface,
        direction: &series.direction,
        starts_at: rfc3339_seconds(*starts_at),
        duration_s: HOUR_S,
        version: *version,
        windows: summary.windows,
        late_windows: summary.late_windows,
        measured_s: summary.measured_s,
        unmeasured_s: summary.unmeasured_s,
        bytes: summary.bytes,
        packets: summary.packets,
        errors: summary.errors,
        drops: summary.drops,
        min_bps: summary.min_bps,
        mean_bps: summary.mean_bps,
        max_bps: summary.max_bps,
        p50_bps: summary.p50_bps,
        p95_bps: summary.p95_bps,
        p99_bps: summary.p99_bps,
        bins: bins.collect(),
        histogram: histogram.map(|bytes| BASE64_STANDARD.encode(bytes)),
    };
    serde_json::to_vec(&message).expect("texts and numbers")
}

struct Acknowledgements {
    reports: Reports,
    deliveries: Mutex<Vec<(usize, Result<(), Code>)>>,
}

impl Acknowledgements {
    fn take(&self) -> Vec<(usize, Result<(), Code>)> {
        std::mem::take(&mut *self.deliveries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Acknowledgements {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.reports.log(level, facility, line);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::consumer::store::TrafficSummary;
    use crate::kafka::RawConnection;

    fn merged(version: i64) -> MergedHour {
        let mut histogram = RateHistogram::<u64>::default();
        histogram.record(5_000_000, 300);
        let summary = TrafficSummary {
            windows: 1,
            measured_s: 300,
            bytes: 187_500_000,
            packets: Some(150_000),
            errors: Some(3),
            p50_bps: Some(5_007_000),
            histogram: Some(histogram.encode()),
            ..TrafficSummary::default()
        };
        let series = TrafficSeries { agent: "gw-1".into(), interface: "eth0".into(), direction: "rx".into() };
        MergedHour { key: HourKey { series, starts_at: "2026-11-29T10:00:00Z".parse().unwrap() }, summary, version }
    }

    #[test]
    fn a_message_names_its_hour_and_has_bins_that_add_up() {
        let hour = merged(7);
        assert_eq!(message_key(&hour.key), "gw-1/eth0/rx/2026-11-29T10:00:00Z");
        let message: serde_json::Value = serde_json::from_slice(&payload(&hour)).unwrap();
        assert_eq!((&message["version"], &message["duration_s"]), (&7.into(), &3600.into()));
        assert_eq!(message["starts_at"], "2026-11-29T10:00:00Z");
        assert_eq!([&message["packets"], &message["errors"]], [150_000, 3]);
        assert_eq!(message["drops"], serde_json::Value::Null, "a window did not know them");
        assert_eq!((&message["min_bps"], &message["p50_bps"]), (&serde_json::Value::Null, &5_007_000.into()));
        assert_eq!(message["bins"], serde_json::json!([[4_992_000, 5_024_000, 300]]));
        let bytes = BASE64_STANDARD.decode(message["histogram"].as_str().unwrap()).unwrap();
        assert_eq!(RateHistogram::decode(&bytes).unwrap().seconds(), 300);
    }

    #[test]
    fn what_kafka_has_is_told_from_what_it_has_not() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("histograms", 1, 1).unwrap();
        let raw = RawConnection { brokers: Some(mock.bootstrap_servers()), ..RawConnection::default() };
        let connection = Connection::new(raw, None).unwrap();
        let mut publisher = HourPublisher::new(&connection, "histograms");
        let (done, result) = publisher.publish(&[merged(1), merged(2)]);
        assert_eq!((done, result), (vec![(merged(1).key, 1), (merged(1).key, 2)], Ok(())));
        check_producer(&connection).unwrap();
    }
}
