//! One librdkafka producer: its settings, and what it says.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::debug;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::Window;
use crate::kafka::Connection;
use crate::wire::{Headers, Message};

/// What the promises need; see `Connection::client` for what both programs have.
const FIXED: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),       // the journal bounds the waiting
    ("partitioner", "murmur2_random"), // as the Java client's
];

/// What a property of the operator's may change.
const DEFAULTS: &[(&str, &str)] =
    &[("linger.ms", "5"), ("compression.type", "zstd"), ("reconnect.backoff.max.ms", "60000")];

/// librdkafka's own `batch.size`.
pub(super) const BATCH_MAX: usize = 1_000_000;

/// Of so many kinds the headers are kept: more than there are.
const KINDS_MAX: usize = 16;

/// What became of a message.
pub(super) type Delivery = Result<(i32, i64), RDKafkaErrorCode>;

/// A producer, polled by its owner.
pub(super) struct Producer {
    client: BaseProducer<Context>,
    /// What the messages of each kind have in common, by its values.
    headers: RefCell<Vec<([Vec<u8>; 3], OwnedHeaders)>>,
}

#[derive(Default)]
struct Context {
    deliveries: Mutex<Vec<(usize, Delivery)>>,
    errors: Mutex<Vec<(RDKafkaErrorCode, String)>>,
}

/// Why a message was not taken.
pub(super) enum Refusal {
    /// The queue is full: poll, and try again.
    Full,
    /// It never will be.
    Never(RDKafkaErrorCode),
}

impl Producer {
    /// Sends batches of no more than `batch_max` bytes, or of one message. A refusal is fatal, so that nothing overtakes what was
    /// refused, but where a message is `alone` under way.
    pub(super) fn new(connection: &Connection, window: Window, batch_max: usize, alone: bool) -> Result<Self, String> {
        let mut config = connection.client(FIXED)?;
        for (name, value) in DEFAULTS {
            if config.get(name).is_none() {
                config.set(*name, *value);
            }
        }
        let theirs = config.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_MAX);
        config.set("enable.gapless.guarantee", (!alone).to_string());
        if alone {
            config.set("linger.ms", "0");
        }
        config.set("batch.size", batch_max.min(theirs).to_string());
        // Room for what was given up elsewhere, too. Headers are not counted in the bytes.
        config.set("queue.buffering.max.messages", (2 * window.events).to_string());
        config.set("queue.buffering.max.kbytes", (window.bytes >> 10).to_string());
        let client =
            BaseProducer::from_config_and_context(&config, Context::default()).map_err(|error| error.to_string())?;
        Ok(Self { client, headers: RefCell::default() })
    }

    /// Hands a message to librdkafka; its delivery will bear `serial`.
    pub(super) fn send(&self, topic: &str, serial: usize, message: &Message<'_>) -> Result<(), Refusal> {
        let record = BaseRecord::with_opaque_to(topic, serial)
            .key(&*message.key)
            .payload(&*message.payload)
            .headers(with(self.common_headers(message), message.own_headers()));
        match self.client.send(record) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Err(Refusal::Full),
            Err((error, _)) => Err(Refusal::Never(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))),
        }
    }

    /// A copy of what was put together for the first message of this kind: cheaper than to do it for each.
    fn common_headers(&self, message: &Message<'_>) -> OwnedHeaders {
        let mut kinds = self.headers.borrow_mut();
        let headers = message.common_headers();
        let values = headers.map(|(_, value)| value);
        if let Some((_, of_this_kind)) = kinds.iter().find(|(kind, _)| kind.each_ref().map(Vec::as_slice) == values) {
            return of_this_kind.clone();
        }
        let of_this_kind = with(OwnedHeaders::new(), headers);
        // A newer agent's journal can name other kinds than we know.
        kinds.truncate(KINDS_MAX - 1);
        kinds.insert(0, (values.map(<[u8]>::to_vec), of_this_kind.clone()));
        of_this_kind
    }

    /// What was delivered by now, a request's messages at a time. Does not wait: rust-rdkafka's poll spins through the last
    /// millisecond of its time-out.
    pub(super) fn deliveries(&self) -> Vec<(usize, Delivery)> {
        let Context { deliveries, errors } = &**self.client.context();
        loop {
            let errors_before = locked(errors).len();
            self.client.poll(Duration::ZERO);
            let deliveries = std::mem::take(&mut *locked(deliveries));
            if !deliveries.is_empty() || locked(errors).len() == errors_before {
                return deliveries;
            }
        }
    }

    /// Asks for metadata, and waits for them no longer than `longest`. When they come librdkafka asks for the producer id, without
    /// which no message goes; else it looks only each 500 ms whether a broker is there that it can ask.
    pub(super) fn introduce(&self, topic: &str, longest: Duration) {
        if let Err(error) = self.client.client().fetch_metadata(Some(topic), longest) {
            debug!("no metadata yet: {error}");
        }
    }

    /// What went wrong with the client as a whole.
    pub(super) fn errors(&self) -> Vec<(RDKafkaErrorCode, String)> {
        std::mem::take(&mut *locked(&self.client.context().errors))
    }

    /// An error after which this producer is of no more use.
    pub(super) fn fatal(&self) -> Option<String> {
        self.client.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"))
    }
}

fn with(headers: OwnedHeaders, more: Headers<'_>) -> OwnedHeaders {
    more.into_iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        debug!("librdkafka: {facility} {line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        locked(&self.errors).push((code, reason.to_owned()));
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, serial: usize) {
        let delivery = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        locked(&self.deliveries).push((serial, delivery));
    }
}
