//! librdkafka's producer, polled without blocking, and what its callbacks report.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{debug, trace};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::InFlightLimits;
use crate::config::Invalid;
use crate::kafka::{self, ClientError, Connection};
use crate::wire::{Headers, Message};

/// Settings that the promises of delivery require; see `Connection::client` for those of both programs.
const FIXED: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),       // the journal bounds the waiting
    ("partitioner", "murmur2_random"), // as the Java client's
];

const DEFAULTS: &[(&str, &str)] = &[
    ("linger.ms", "5"),
    ("compression.type", "zstd"),
    ("reconnect.backoff.max.ms", "60000"),
    // Refusals and an unreachable leader refresh the metadata by themselves; cached ones expire after 15 minutes.
    ("topic.metadata.refresh.interval.ms", "-1"),
    ("topic.metadata.propagation.max.ms", "5000"),
    // The only way in which librdkafka names the cause of its own retries; see `DeliveryContext::log`.
    ("debug", "msg"),
];

/// Time-outs by which a lost connection is noticed soon. The shorter one is the broker's, for its replicas.
const SHORT_TIMEOUTS: &[(&str, &str)] = &[("socket.timeout.ms", "10000"), ("request.timeout.ms", "8000")];
const LONG_TIMEOUTS: &[(&str, &str)] = &[("socket.timeout.ms", "60000"), ("request.timeout.ms", "30000")];

pub(super) const BATCH_MAX: usize = 1_000_000;

const KINDS_MAX: usize = 16;

const TIMED_OUT: &str = "Local: Timed out";

const DIAGNOSIS_MAX: Duration = Duration::from_secs(1);

/// Partition and offset.
pub(super) type DeliveryReport = Result<(i32, i64), RDKafkaErrorCode>;

pub(super) struct Producer {
    client: BaseProducer<DeliveryContext>,
    headers: RefCell<Vec<([Vec<u8>; 3], OwnedHeaders)>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    pub(super) batch_max: usize,
    /// True sends one message at a time; each may be refused. Otherwise a refusal is fatal, so that no later message overtakes it.
    pub(super) one_by_one: bool,
    pub(super) long_timeouts: bool,
}

#[derive(Default)]
struct DeliveryContext(Mutex<CallbackReports>);

#[derive(Default)]
struct CallbackReports {
    events: u64,
    deliveries: Vec<(usize, DeliveryReport)>,
    errors: Vec<(RDKafkaErrorCode, String)>,
    cause: Option<String>,
    timed_out: bool,
}

pub(super) enum SendError {
    Full,
    Never(RDKafkaErrorCode),
}

impl Producer {
    pub(super) fn new(connection: &Connection, limits: InFlightLimits, tuning: Tuning) -> Result<Self, String> {
        let config = Self::config(connection, limits, tuning)?;
        let client = BaseProducer::from_config_and_context(&config, DeliveryContext::default());
        let client = client.map_err(|error| kafka::not_created(&error))?;
        Ok(Self { client, headers: RefCell::default() })
    }

    pub(super) fn check(connection: &Connection, limits: InFlightLimits) -> Result<(), Invalid> {
        let tuning = Tuning { batch_max: BATCH_MAX, one_by_one: false, long_timeouts: false };
        connection.check::<BaseProducer>(|connection| Self::config(connection, limits, tuning))
    }

    fn config(connection: &Connection, limits: InFlightLimits, tuning: Tuning) -> Result<ClientConfig, ClientError> {
        let Tuning { batch_max, one_by_one, long_timeouts } = tuning;
        let times = if long_timeouts || limits.long_timeouts { LONG_TIMEOUTS } else { SHORT_TIMEOUTS };
        let mut config = connection.client(FIXED, &[DEFAULTS, times].concat())?;
        let theirs = config.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_MAX);
        config.set("enable.gapless.guarantee", (!one_by_one).to_string());
        if one_by_one {
            config.set("linger.ms", "0");
        }
        config.set("batch.size", batch_max.min(theirs).to_string());
        // Room for the messages of a replaced producer, too; headers do not count as bytes.
        config.set("queue.buffering.max.messages", (2 * limits.events).to_string());
        config.set("queue.buffering.max.kbytes", (limits.bytes >> 10).to_string());
        config.set_log_level(RDKafkaLogLevel::Debug);
        Ok(config)
    }

    pub(super) fn send(&self, topic: &str, serial: usize, message: &Message<'_>) -> Result<(), SendError> {
        let record = BaseRecord::with_opaque_to(topic, serial)
            .key(&*message.key)
            .payload(&*message.payload)
            .headers(with(self.common_headers(message), message.own_headers()));
        match self.client.send(record) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Err(SendError::Full),
            Err((error, _)) => Err(SendError::Never(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))),
        }
    }

    /// Clones the headers of the first message of this kind, which is cheaper than building them again.
    fn common_headers(&self, message: &Message<'_>) -> OwnedHeaders {
        let mut kinds = self.headers.borrow_mut();
        let headers = message.common_headers();
        let values = headers.map(|(_, value)| value);
        if let Some((_, of_this_kind)) = kinds.iter().find(|(kind, _)| kind.each_ref().map(Vec::as_slice) == values) {
            return of_this_kind.clone();
        }
        let of_this_kind = with(OwnedHeaders::new(), headers);
        kinds.truncate(KINDS_MAX - 1);
        kinds.insert(0, (values.map(<[u8]>::to_vec), of_this_kind.clone()));
        of_this_kind
    }

    /// Returns at most a request's messages. Does not block: rust-rdkafka's poll spins through its last millisecond.
    pub(super) fn deliveries(&self) -> Vec<(usize, DeliveryReport)> {
        loop {
            let events_before = self.reports().events;
            // Serves one report of any kind.
            self.client.poll(Duration::ZERO);
            let mut reports = self.reports();
            if !reports.deliveries.is_empty() || reports.events == events_before {
                return std::mem::take(&mut reports.deliveries);
            }
        }
    }

    /// Discards reports, as of a broker that closed an unused connection. Returns true if this producer can still be used.
    pub(super) fn idle(&self) -> bool {
        self.deliveries();
        let mut reports = self.reports();
        (reports.errors, reports.cause, reports.timed_out) = Default::default();
        drop(reports);
        self.fatal().is_none()
    }

    /// Makes librdkafka request the producer id, without which it sends nothing; else it looks for a broker every 500 ms.
    pub(super) fn request_producer_id(&self, topic: &str, longest: Duration) {
        if let Err(error) = self.client.client().fetch_metadata(Some(topic), longest) {
            debug!("no metadata yet: {error}");
        }
    }

    /// Asks the cluster for the topic's error, or for an unreachable broker. Blocks for seconds, or as long as the resolver does.
    pub(super) fn diagnose(&self, topic: &str) -> Option<String> {
        let metadata = match self.client.client().fetch_metadata(Some(topic), DIAGNOSIS_MAX) {
            Ok(metadata) => metadata,
            Err(error) => return Some(format!("no broker answers in time: {error}")),
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic)?;
        if let Some(error) = found.error() {
            return Some(format!("topic {topic}: {}", RDKafkaErrorCode::from(error)));
        }
        let leaderless = found.partitions().iter().find(|partition| partition.leader() < 0);
        let leaderless = leaderless.map(|partition| format!("partition {} of {topic} has no leader", partition.id()));
        leaderless.or_else(|| kafka::unreachable_broker(&metadata))
    }

    pub(super) fn errors(&self) -> Vec<(RDKafkaErrorCode, String)> {
        std::mem::take(&mut self.reports().errors)
    }

    pub(super) fn cause(&self) -> Option<String> {
        self.reports().cause.take()
    }

    /// Returns true if, since the last call, a batch was not answered in time. librdkafka has then closed the connection.
    pub(super) fn timed_out(&self) -> bool {
        std::mem::take(&mut self.reports().timed_out)
    }

    fn reports(&self) -> MutexGuard<'_, CallbackReports> {
        self.client.context().reports()
    }

    pub(super) fn fatal(&self) -> Option<String> {
        self.client.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"))
    }
}

fn with(headers: OwnedHeaders, more: Headers<'_>) -> OwnedHeaders {
    more.into_iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

impl DeliveryContext {
    fn reports(&self) -> MutexGuard<'_, CallbackReports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TOO_FEW_REPLICAS: [&str; 2] =
    ["Broker: Not enough in-sync replicas", "Broker: Message(s) written to insufficient number of in-sync replicas"];

fn with_remedy(error: &str) -> String {
    if TOO_FEW_REPLICAS.contains(&error) {
        return format!("{error}: start the brokers of its other replicas, or lower its min.insync.replicas");
    }
    error.to_owned()
}

/// Parses `… encountered error: Broker: Not enough in-sync replicas (actions Retry)`.
fn batch_error(line: &str) -> Option<&str> {
    let (_, error) = line.split_once(" encountered error: ")?;
    Some(error.split(" (actions ").next().unwrap_or(error))
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let mut reports = self.reports();
        reports.events += 1;
        if let ("MSGSET", Some(error)) = (facility, batch_error(line)) {
            reports.timed_out |= error == TIMED_OUT;
            reports.cause = Some(with_remedy(error));
        }
        if let Some(reason) = kafka::closed_at_once(line) {
            reports.errors.push((RDKafkaErrorCode::BrokerTransportFailure, reason));
        }
        match level {
            RDKafkaLogLevel::Debug => trace!("librdkafka: {facility} {line}"),
            _ => debug!("librdkafka: {facility} {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let mut reports = self.reports();
        reports.events += 1;
        reports.errors.push((code, reason.to_owned()));
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, serial: usize) {
        let delivery = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        let mut reports = self.reports();
        reports.events += 1;
        reports.deliveries.push((serial, delivery));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_retry_is_found_in_the_line_about_its_batch() {
        let line = "[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/1: t [0]: MessageSet with 5 message(s) (MsgId 1, BaseSeq 0) \
                    encountered error: Broker: Not enough in-sync replicas (actions Retry,MsgNotPersisted)";
        assert_eq!(batch_error(line), Some("Broker: Not enough in-sync replicas"));
        assert_eq!(batch_error("t [0]: MessageSet with 1 message(s) (MsgId 1, BaseSeq 0) delivered"), None);
    }
}
