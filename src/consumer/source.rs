//! Kafka, as a member of a group that places every partition itself.
//!
//! librdkafka is told nothing of offsets: no automatic commit, no automatic reset, and an assignment is answered with an empty
//! one until the database has said where to read. Offsets are committed as a hint for other tools, never read back but for a
//! partition that the database does not know.

mod context;
mod standalone;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::batch::{Fingerprint, Headers, Record};
use super::checkpoint::AnchorRecord;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Invalid;
use crate::kafka::{Connection, not_created};
use crate::wire::{Decoder, Undecoded};

use self::context::Context;
pub use self::standalone::{Seen, StandaloneConsumer};

/// What the broker is asked for at most while it is waited for. Longer, and the loop stands.
const ASK_MAX: Duration = Duration::from_secs(5);

/// How long a consumer may take to leave its group; it can hang.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// How long old records may take to be read again.
const AGAIN_MAX: Duration = Duration::from_secs(8);

/// What no setting may change: each carries a promise.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // The program places every partition; a reset behind its back would rewind, and guard 1 would skip what is new.
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
    ("group.protocol", "classic"),
    ("queued.max.messages.kbytes", "8192"),
];

/// What a property of the operator's may change.
const DEFAULTS: &[(&str, &str)] = &[
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "2000"),
    // So long a rebalance waits for a member that is in a call of the store.
    ("max.poll.interval.ms", "90000"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("partition.assignment.strategy", "range"),
    ("queued.min.messages", "10000"),
    // librdkafka's second of rest once its queue is full would be most of the time.
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "4194304"),
    ("reconnect.backoff.max.ms", "10000"),
];

/// Who reads what.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// `group.instance.id`, empty for none.
    pub instance: String,
}

/// The consumer's end of Kafka.
pub(super) struct Source {
    consumer: Option<BaseConsumer<Context>>,
    connection: Connection,
    membership: Membership,
    decoder: Decoder,
    /// The certificates and secrets that this client has read.
    files: u64,
}

/// What a poll brings.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and nearly all are the large one")]
pub(super) enum Polled {
    /// Nothing waits.
    Nothing,
    /// A message, and its partition.
    Record(i32, Record),
    /// The partitions are these from now on; none is read before [`Source::place`].
    Assigned(Vec<i32>),
    /// What the message at this partition and offset is can't be told now: it has to be read again, after this time.
    Undecided { at: (i32, i64), why: String, wait: Duration },
    /// What is being read is not where it was thought: place all anew.
    Misplaced(String),
    /// Something is wrong; librdkafka goes on trying.
    Trouble(String),
    /// One side turned the other away; librdkafka goes on trying with the certificates and secrets that it has read once.
    Refused(String),
    /// This client can do no more: make another one.
    Fatal(String),
}

impl Source {
    /// Joins the group; nothing is waited for.
    ///
    /// # Errors
    /// A secret that can't be read, or a property that librdkafka does not take.
    pub(super) fn new(connection: &Connection, membership: &Membership, decoder: Decoder) -> Result<Self, String> {
        let files = connection.files();
        let mut source =
            Self { consumer: None, connection: connection.clone(), membership: membership.clone(), decoder, files };
        let mut config = client(&source.connection, &source.membership, FIXED)?;
        if !source.membership.instance.is_empty() {
            config.set("group.instance.id", &source.membership.instance);
        }
        let consumer: BaseConsumer<Context> =
            config.create_with_context(Context::new(connection.brokers())).map_err(|e| not_created(&e))?;
        consumer.subscribe(&[&source.membership.topic]).map_err(|e| e.to_string())?;
        source.consumer = Some(consumer);
        Ok(source)
    }

    fn consumer(&self) -> &BaseConsumer<Context> {
        self.consumer.as_ref().expect("only close() takes it, and the source with it")
    }

    /// Whether certificates and secrets are others than those that this client has read.
    pub(super) fn is_outdated(&self) -> bool {
        self.connection.files() != self.files
    }

    /// Waits at most `timeout` for what comes next.
    pub(super) fn poll(&mut self, timeout: Duration) -> Polled {
        let consumer = self.consumer.as_ref().expect("only close() takes it, and the source with it");
        let polled = consumer.poll(timeout);
        let (assigned, refused, trouble) =
            consumer.context().hear(|heard| (heard.assigned.take(), heard.refused.take(), heard.trouble.take()));
        if let Some(partitions) = assigned {
            // A message polled together with a new assignment is from the old one.
            return Polled::Assigned(partitions);
        }
        match polled {
            Some(Ok(message)) => {
                // Said when nothing else is to be told.
                consumer.context().hear(|heard| (heard.refused, heard.trouble) = (refused, trouble));
                let decoded = self.decoder.decode(message.payload().unwrap_or_default(), content_type(&message));
                let decoded = match decoded {
                    Ok(decoded) => Ok(decoded),
                    Err(Undecoded::Never(error)) => Err(error.to_string()),
                    Err(Undecoded::NotNow { why, wait }) => {
                        return Polled::Undecided { at: (message.partition(), message.offset()), why, wait };
                    }
                };
                let timestamp_ms = message.timestamp().to_millis();
                let parts = (message.key(), message.payload(), headers(&message));
                let record = Record::decoded(message.offset(), timestamp_ms, parts, decoded);
                Polled::Record(message.partition(), record)
            }
            Some(Err(error)) if is_misplaced(&error) => Polled::Misplaced(error.to_string()),
            Some(Err(error)) => self.misfortune(refused, trouble.or_else(|| said(&error))),
            None => self.misfortune(refused, trouble),
        }
    }

    /// What a poll without a message comes to. An error that it brings was told by callback too, and in more words.
    fn misfortune(&self, refused: Option<String>, trouble: Option<String>) -> Polled {
        match (refused, trouble) {
            (Some(refused), _) => Polled::Refused(refused),
            (None, Some(trouble)) => self.fatal().unwrap_or(Polled::Trouble(trouble)),
            (None, None) => Polled::Nothing,
        }
    }

    fn fatal(&self) -> Option<Polled> {
        let (code, reason) = self.consumer().client().fatal_error()?;
        Some(Polled::Fatal(format!("{code}: {reason}")))
    }

    /// Reads on from `offsets`, and nothing else; what was fetched before is forgotten.
    pub(super) fn place(&self, offsets: &BTreeMap<i32, i64>) -> Result<(), String> {
        self.consumer().assign(&self.list(offsets)?).map_err(|e| e.to_string())
    }

    /// Fetches no more until [`Source::resume`], but stays in the group.
    pub(super) fn pause(&self, partitions: &[i32]) -> Result<(), String> {
        self.consumer().pause(&self.names(partitions)).map_err(|e| e.to_string())
    }

    pub(super) fn resume(&self, partitions: &[i32]) -> Result<(), String> {
        self.consumer().resume(&self.names(partitions)).map_err(|e| e.to_string())
    }

    /// Tells Kafka what is stored. A hint: nothing depends on it.
    pub(super) fn commit(&self, offsets: &BTreeMap<i32, i64>) -> Result<(), String> {
        self.consumer().commit(&self.list(offsets)?, CommitMode::Async).map_err(|e| e.to_string())
    }

    /// How far reading has come in each partition, records or not: transaction markers count.
    pub(super) fn positions(&self) -> BTreeMap<i32, i64> {
        let Ok(list) = self.consumer().position() else { return BTreeMap::new() };
        list.elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            })
            .collect()
    }

    /// What the group committed, where it did.
    pub(super) fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, String> {
        let list = self.consumer().committed_offsets(self.names(partitions), ASK_MAX).map_err(|e| e.to_string())?;
        let mut committed = BTreeMap::new();
        for element in list.elements() {
            element.error().map_err(|e| e.to_string())?;
            if let Offset::Offset(offset) = element.offset() {
                committed.insert(element.partition(), offset);
            }
        }
        Ok(committed)
    }

    /// The first offset there is, and the one after the last that a reader may see.
    pub(super) fn watermarks(&self, partition: i32) -> Result<(i64, i64), String> {
        let topic = &self.membership.topic;
        self.consumer().fetch_watermarks(topic, partition, ASK_MAX).map_err(|e| format!("{topic}[{partition}]: {e}"))
    }

    /// The topic's partitions.
    pub(super) fn partitions(&self) -> Result<Vec<i32>, String> {
        partitions(self.consumer(), &self.membership.topic)
    }

    /// The cluster's id, empty where it has none.
    pub(super) fn cluster(&self) -> Result<String, String> {
        // Without an answer there is no id either: that would be another key in the database.
        self.partitions()?;
        Ok(self.consumer().client().fetch_cluster_id(ASK_MAX).unwrap_or_default())
    }

    /// Reads again what stands at `offsets`, with a short-lived client on a thread of its own. The channel closes without a
    /// word if that can't be told.
    pub(super) fn read_again(
        &self,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<Receiver<BTreeMap<i32, AnchorRecord>>, String> {
        let fixed = [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "earliest"),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
            ("isolation.level", "read_committed"),
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "1024"),
        ];
        let mut config = client(&self.connection, &self.membership, &fixed)?;
        config.set("fetch.message.max.bytes", "16384");
        let consumer: BaseConsumer = config.create().map_err(|e| not_created(&e))?;
        consumer.assign(&self.list(offsets)?).map_err(|e| e.to_string())?;
        let (sender, receiver) = mpsc::channel();
        let wanted = offsets.clone();
        std::thread::Builder::new()
            .name("anchors".into())
            .spawn(move || {
                if let Some(found) = read_all(&consumer, &wanted) {
                    // Nobody listens any more after a rebalance.
                    let _ = sender.send(found);
                }
            })
            .map_err(|e| e.to_string())?;
        Ok(receiver)
    }

    /// Leaves the group, so that the others need not wait for the session to run out.
    pub(super) fn close(mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        let (done, closed) = mpsc::channel();
        let spawned = std::thread::Builder::new().name("leave".into()).spawn(move || {
            drop(consumer);
            let _ = done.send(());
        });
        if spawned.is_err() || closed.recv_timeout(CLOSE_MAX).is_err() {
            log::warn!("Kafka: leaving the group takes too long; gone without");
        }
    }

    fn list(&self, offsets: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, String> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (&partition, &offset) in offsets {
            list.add_partition_offset(&self.membership.topic, partition, Offset::Offset(offset))
                .map_err(|e| e.to_string())?;
        }
        Ok(list)
    }

    fn names(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.membership.topic, partition);
        }
        list
    }
}

/// Checks that librdkafka makes a client of these, and that the files that they name are there.
///
/// # Errors
/// What is missing or refused, by its key.
pub(super) fn check_client(connection: &Connection, membership: &Membership) -> Result<(), Invalid> {
    connection.check::<BaseConsumer>(|connection| client(connection, membership, FIXED))
}

/// A client's configuration: what is fixed, then the operator's properties, then our defaults.
fn client(connection: &Connection, membership: &Membership, fixed: &[(&str, &str)]) -> Result<ClientConfig, String> {
    let mut config = connection.client(fixed)?;
    config.set("group.id", &membership.group);
    for (name, value) in DEFAULTS {
        if config.get(name).is_none() {
            config.set(*name, *value);
        }
    }
    Ok(config)
}

fn is_misplaced(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    use RDKafkaErrorCode::{AutoOffsetReset, LogTruncation, OffsetOutOfRange};
    matches!(code, Some(AutoOffsetReset | OffsetOutOfRange | LogTruncation))
}

/// That no broker is left says nothing new.
fn said(error: &KafkaError) -> Option<String> {
    (error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown)).then(|| error.to_string())
}

/// What a topic that Kafka does not know is called.
const NO_TOPIC: &str = "there is no topic";

fn no_topic(name: &str) -> String {
    format!("{NO_TOPIC} {name}; `highwater-agent topics` makes it, or set kafka.topic")
}

/// Whether what [`Source`] said is that the topic does not exist.
pub(super) fn is_unknown_topic(error: &str) -> bool {
    error.starts_with(NO_TOPIC)
}

fn partitions<C: ConsumerContext>(consumer: &BaseConsumer<C>, name: &str) -> Result<Vec<i32>, String> {
    let metadata = consumer.fetch_metadata(Some(name), ASK_MAX).map_err(|e| e.to_string())?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    match topic.map(|topic| (topic.error(), topic.partitions())) {
        Some((None, partitions)) if !partitions.is_empty() => {
            Ok(partitions.iter().map(rdkafka::metadata::MetadataPartition::id).collect())
        }
        Some((Some(error), _)) if RDKafkaErrorCode::from(error) == RDKafkaErrorCode::UnknownTopicOrPartition => {
            Err(no_topic(name))
        }
        Some((Some(error), _)) => Err(format!("{name}: {}", RDKafkaErrorCode::from(error))),
        _ => Err(no_topic(name)),
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(headers) = message.headers() else { return Headers::default() };
    Headers::pack(headers.iter().map(|header| (header.key, header.value)))
}

fn content_type<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    let headers = message.headers()?;
    headers.iter().find(|header| header.key == "content-type")?.value
}

/// What stands at each of `wanted`; `None` if one stays unknown.
fn read_all(consumer: &BaseConsumer, wanted: &BTreeMap<i32, i64>) -> Option<BTreeMap<i32, AnchorRecord>> {
    let clock = SystemClock::default();
    let until = clock.monotonic() + AGAIN_MAX;
    let mut found = BTreeMap::new();
    while clock.monotonic() < until {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if wanted.get(&message.partition()) == Some(&message.offset()) => {
                let timestamp_ms = message.timestamp().to_millis();
                let mark = Fingerprint::new(message.offset(), timestamp_ms, message.key(), message.payload());
                found.entry(message.partition()).or_insert(AnchorRecord::Record(mark));
            }
            Some(Ok(message)) => {
                found.entry(message.partition()).or_insert(AnchorRecord::Gone);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                found.entry(partition).or_insert(AnchorRecord::Gone);
            }
            Some(Err(_)) | None => {}
        }
        if found.len() >= wanted.len() {
            return Some(found);
        }
    }
    None
}
