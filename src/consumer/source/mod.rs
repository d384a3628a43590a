//! Member of a Kafka group that decides each offset itself: automatic commit and reset are off, and an assignment is answered by
//! an empty one until the database has said where to read. Offsets are committed as a hint for other tools, and never read back.

mod anchors;
mod client;
mod context;
mod headers;
pub(super) mod schema_cache;
mod standalone;
mod unreadable;
mod waiting;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

pub(super) use self::anchors::AnchorRecords;
pub(super) use self::client::check_client;
use self::client::{FIXED, client, standalone_client};
use self::context::{Context, Rebalanced};
pub use self::standalone::{Fetched, StandaloneConsumer};
pub(super) use self::unreadable::Unreadable;
use self::unreadable::{Repetitions, is_unreadable, loses_position};
use self::waiting::PendingMessages;
use super::batch::{Record, TopicId};
use crate::kafka::offsets::{PartitionNumbers, PartitionsError, list, partitions};
use crate::kafka::{ClientError, Connection, Reports};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::log_throttle::LogThrottle;
use crate::wire::Decoder;

/// Longest wait for a broker's answer; the loop is blocked meanwhile.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Longest wait for a consumer to leave its group; it can hang.
const CLOSE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Membership {
    pub topics: Vec<String>,
    pub group: String,
    pub instance: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TopicPartition {
    /// Index in [`Membership::topics`].
    pub(super) topic: usize,
    pub(super) partition: i32,
}

pub(super) struct Source {
    consumer: Option<BaseConsumer<Context>>,
    connection: Connection,
    membership: Membership,
    decoder: Decoder,
    clock: SystemClock,
    /// Version of the certificates and secrets that this client has read.
    files: u64,
    /// Offset from which each partition is read, behind what cannot be read.
    assigned_at: BTreeMap<TopicPartition, i64>,
    /// Number of [`Source::pause`] calls without their [`Source::resume`], and one for a message that waits for its schema.
    paused: BTreeMap<TopicPartition, u32>,
    waiting: PendingMessages,
    registry_throttle: LogThrottle,
    repetitions: Repetitions,
    search: Option<Receiver<Vec<(usize, Unreadable)>>>,
    unreadable: Vec<(usize, Unreadable)>,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, and nearly all are the large one")]
pub(super) enum Polled {
    NoMessage,
    Record(TopicPartition, Record),
    /// None of the partitions is read before [`Source::assign_offsets`].
    Assigned(Vec<TopicPartition>),
    /// Offsets of this topic that are skipped. The caller records them before it takes the next record.
    Unreadable(usize, Unreadable),
    /// A position is not the one that was assigned, and librdkafka does not report which: look all up again.
    PositionLost(String),
    /// Reported once; the other topics are read, and this one too once it is there.
    UnknownTopic,
    Error(String),
    /// TLS or SASL failed; librdkafka retries with the certificates and secrets that it read at its start.
    Refused(String),
    Fatal(String),
}

impl Source {
    /// Joins the group without waiting. A message waits for its schema at most `give_up`; `None` is for ever.
    pub(super) fn new(
        connection: &Connection,
        membership: &Membership,
        decoder: Decoder,
        give_up: Option<Duration>,
    ) -> Result<Self, ClientError> {
        let files = connection.files();
        let mut config = client(connection, &membership.group, FIXED)?;
        if !membership.instance.is_empty() {
            config.set("group.instance.id", &membership.instance);
        }
        let reports = Reports::of_consumer(connection.brokers(), (&membership.group, "Read"), &membership.topics);
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context::new(reports))
            .map_err(|e| ClientError::of::<BaseConsumer>(&e, &config))?;
        let topics: Vec<&str> = membership.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|e| ClientError::Refused(e.to_string()))?;
        Ok(Self {
            consumer: Some(consumer),
            connection: connection.clone(),
            membership: membership.clone(),
            decoder,
            clock: SystemClock::default(),
            files,
            assigned_at: BTreeMap::new(),
            paused: BTreeMap::new(),
            waiting: PendingMessages::new(give_up),
            registry_throttle: LogThrottle::default(),
            repetitions: Repetitions::default(),
            search: None,
            unreadable: Vec::new(),
        })
    }

    fn consumer(&self) -> &BaseConsumer<Context> {
        self.consumer.as_ref().expect("only close() takes it, and the source with it")
    }

    pub(super) fn topics(&self) -> &[String] {
        &self.membership.topics
    }

    fn name(&self, topic: usize) -> &str {
        &self.membership.topics[topic]
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.connection.files() != self.files
    }

    pub(super) fn poll(&mut self, timeout: Duration) -> Polled {
        if let Some(polled) = self.skip_unreadable().or_else(|| self.retry_waiting()) {
            return polled;
        }
        let consumer = self.consumer.as_ref().expect("only close() takes it, and the source with it");
        let polled = consumer.poll(timeout);
        if let Some(Rebalanced { assigned, error }) = consumer.context().take_rebalanced() {
            // A message polled together with a new assignment is from the old one.
            drop(polled);
            if let Some(error) = error {
                log::warn!("Kafka: {error}");
            }
            let at = |(topic, partition): &(String, i32)| self.membership.at(topic, *partition);
            let mut assigned: Vec<TopicPartition> = assigned.iter().filter_map(at).collect();
            assigned.sort();
            self.waiting.clear();
            self.assigned_at.clear();
            (self.repetitions, self.search, self.unreadable) = (Repetitions::default(), None, Vec::new());
            return Polled::Assigned(assigned);
        }
        match polled {
            Some(Ok(message)) => {
                let Some(at) = self.membership.at(message.topic(), message.partition()) else {
                    return Polled::NoMessage;
                };
                if self.waiting.contains(at) {
                    return Polled::PositionLost(format!("{}[{}] was not paused", message.topic(), at.partition));
                }
                match self.waiting.read(&message, &mut self.decoder) {
                    Ok(read) => Polled::Record(at, read.record),
                    Err(pending) => {
                        self.waiting.keep(at, &message, &pending, self.clock.monotonic());
                        drop(message);
                        self.log_waiting(at, &pending.why);
                        self.pause(&[at]).map_or_else(Polled::PositionLost, |()| Polled::NoMessage)
                    }
                }
            }
            Some(Err(error)) if reports_lost_position(&error) => Polled::PositionLost(error.to_string()),
            Some(Err(error)) if is_unreadable(&error) => self.count_unreadable(&error),
            Some(Err(error)) if is_missing(&error) => Polled::UnknownTopic,
            Some(Err(error)) => self.explain(error_text(&error)),
            None => self.explain(None),
        }
    }

    fn log_waiting(&self, TopicPartition { topic, partition }: TopicPartition, why: &str) {
        if let Some(line) = self.registry_throttle.admit(why, self.clock.monotonic()) {
            log::warn!("{line}; {}[{partition}] waits for it, and nothing is skipped", self.name(topic));
        }
    }

    fn retry_waiting(&mut self) -> Option<Polled> {
        if self.waiting.is_empty() {
            return None;
        }
        let paused = &self.paused;
        let is_else_paused = |at| paused.get(&at).is_some_and(|reasons| *reasons > 1);
        let (at, read) = self.waiting.retry(&mut self.decoder, self.clock.monotonic(), is_else_paused)?;
        match read {
            Err(pending) => {
                self.log_waiting(at, &pending.why);
                None
            }
            Ok(read) => {
                if let Err(error) = self.resume(&[at]) {
                    return Some(Polled::PositionLost(error));
                }
                if !read.is_given_up && self.registry_throttle.clear() {
                    log::info!("the schema registry answers; reading {}[{}] again", self.name(at.topic), at.partition);
                }
                Some(Polled::Record(at, read.record))
            }
        }
    }

    /// Counts a batch that could not be unpacked. Repeated errors start the search for it; a damaged batch does at once.
    fn count_unreadable(&mut self, error: &KafkaError) -> Polled {
        let is_lost = loses_position(error);
        let reports = &self.consumer().context().reports;
        let (_, reported) = (reports.take_refused(), reports.take_error());
        let error = reported.unwrap_or_else(|| error.to_string());
        if self.search.is_none() && (is_lost || self.repetitions.is_permanent(&error)) {
            match self.search() {
                Ok(search) => self.search = Some(search),
                Err(error) => log::warn!("Kafka: {error}"),
            }
        }
        if is_lost { Polled::PositionLost(error) } else { Polled::Error(error) }
    }

    fn search(&self) -> Result<Receiver<Vec<(usize, Unreadable)>>, String> {
        let client = self.standalone_client(&[])?;
        let (topics, positions) = (self.membership.topics.clone(), self.reading());
        let (sender, receiver) = mpsc::channel();
        let find = move || {
            let each = topics.iter().zip(positions).enumerate();
            let found = each.flat_map(|(topic, (name, positions))| {
                unreadable::find(&client, name, &positions).into_iter().map(move |found| (topic, found))
            });
            drop(sender.send(found.collect()));
        };
        std::thread::Builder::new().name("unreadable".into()).spawn(find).map_err(|e| e.to_string())?;
        Ok(receiver)
    }

    fn skip_unreadable(&mut self) -> Option<Polled> {
        if let Some(search) = &self.search {
            match search.try_recv() {
                Ok(found) => {
                    self.search = None;
                    self.unreadable.extend(found);
                }
                Err(TryRecvError::Disconnected) => self.search = None,
                Err(TryRecvError::Empty) => {}
            }
        }
        if self.unreadable.is_empty() {
            return None;
        }
        // Partitions that were assigned again since are read up to there first.
        let reading = self.reading();
        let (topic, found) = *self.unreadable.iter().find(|(topic, Unreadable { partition, position, end, .. })| {
            let at = TopicPartition { topic: *topic, partition: *partition };
            let is_reached = reading[*topic].get(partition).is_some_and(|offset| (position..end).contains(&offset));
            is_reached && !self.paused.contains_key(&at)
        })?;
        let Unreadable { partition, end, .. } = found;
        let name = &self.membership.topics[topic];
        log::error!("{}", found.description(name, &self.connection));
        self.assigned_at.insert(TopicPartition { topic, partition }, end);
        match self.consumer().seek(name, partition, Offset::Offset(end), ASK_MAX) {
            Ok(()) => Some(Polled::Unreadable(topic, found)),
            Err(error) => Some(Polled::PositionLost(error.to_string())),
        }
    }

    /// Explains a poll without a message. librdkafka also reports an error by callback, in more words.
    fn explain(&self, polled: Option<String>) -> Polled {
        let reports = &self.consumer().context().reports;
        let error = reports.take_error();
        match (reports.take_refused(), reports.take_refused_group().or(error).or(polled)) {
            (Some(refused), _) => Polled::Refused(refused),
            (None, Some(error)) => self.fatal().unwrap_or(Polled::Error(error)),
            (None, None) => Polled::NoMessage,
        }
    }

    fn fatal(&self) -> Option<Polled> {
        let (code, reason) = self.consumer().client().fatal_error()?;
        let remedy = match code {
            RDKafkaErrorCode::FencedInstanceId => "; give each consumer an `instance` of its own",
            _ => "",
        };
        Some(Polled::Fatal(format!("{code}: {reason}{remedy}")))
    }

    /// Reads on from `offsets` only; forgets what was fetched and paused. After an error, positions are unknown: look all up again.
    pub(super) fn assign_offsets(&mut self, offsets: &BTreeMap<TopicPartition, i64>) -> Result<(), String> {
        self.waiting.clear();
        self.assigned_at.clear();
        let paused: Vec<TopicPartition> = std::mem::take(&mut self.paused).into_keys().collect();
        self.consumer().resume(&self.names(&paused)).map_err(|e| e.to_string())?;
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (&TopicPartition { topic, partition }, &offset) in offsets {
            list.add_partition_offset(self.name(topic), partition, Offset::Offset(offset))
                .map_err(|e| e.to_string())?;
        }
        self.consumer().assign(&list).map_err(|e| e.to_string())?;
        self.assigned_at = offsets.clone();
        Ok(())
    }

    pub(super) fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), String> {
        let mut first = partitions.to_vec();
        first.retain(|at| {
            let reasons = self.paused.entry(*at).or_default();
            *reasons += 1;
            *reasons == 1
        });
        self.consumer().pause(&self.names(&first)).map_err(|e| e.to_string())
    }

    pub(super) fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), String> {
        let mut last = partitions.to_vec();
        last.retain(|at| {
            let Some(reasons) = self.paused.get_mut(at) else { return false };
            *reasons -= 1;
            *reasons == 0
        });
        self.paused.retain(|_, reasons| *reasons > 0);
        self.consumer().resume(&self.names(&last)).map_err(|e| e.to_string())
    }

    pub(super) fn commit(&mut self, topic: usize, offsets: &BTreeMap<i32, i64>) -> Result<(), String> {
        // Skipped batches are kept until the skip is stored: all may be assigned again before.
        let is_stored = |partition: i32, end: i64| offsets.get(&partition).is_some_and(|offset| *offset >= end);
        self.unreadable.retain(|(of, found)| *of != topic || !is_stored(found.partition, found.end));
        let offsets = list(self.name(topic), offsets)?;
        self.consumer().commit(&offsets, CommitMode::Async).map_err(|e| e.to_string())
    }

    /// Returns how far each partition was read, transaction markers included, but for those that wait for a schema.
    pub(super) fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        // No position is from before `assign_offsets`: librdkafka has then stopped the former fetches, and a stop or a seek clears them.
        let Ok(list) = self.consumer().position() else { return BTreeMap::new() };
        let elements = list.elements();
        let positions = elements.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((self.membership.at(element.topic(), element.partition())?, offset)),
            _ => None,
        });
        positions.filter(|(at, _)| !self.waiting.contains(*at)).collect()
    }

    fn reading(&self) -> Vec<BTreeMap<i32, i64>> {
        let positions = self.positions();
        let mut reading = vec![BTreeMap::new(); self.membership.topics.len()];
        for (&at, &assigned_at) in self.assigned_at.iter().filter(|(at, _)| !self.waiting.contains(**at)) {
            let position = positions.get(&at).map_or(assigned_at, |position| assigned_at.max(*position));
            reading[at.topic].insert(at.partition, position);
        }
        reading
    }

    pub(super) fn watermarks(&self, TopicPartition { topic, partition }: TopicPartition) -> Result<(i64, i64), String> {
        let topic = self.name(topic);
        self.consumer().fetch_watermarks(topic, partition, ASK_MAX).map_err(|e| format!("{topic}[{partition}]: {e}"))
    }

    pub(super) fn partitions(&self, topic: usize) -> Result<PartitionNumbers, PartitionsError> {
        let reported = || self.consumer().context().reports.last();
        partitions(self.consumer(), self.name(topic), self.connection.brokers(), ASK_MAX, reported)
    }

    pub(super) fn describe(&self, topic: usize) -> Result<(TopicId, PartitionNumbers), PartitionsError> {
        // Clusters that do not answer must not count as without id: that would be another key in the database.
        let partitions = self.partitions(topic)?;
        let cluster = self.consumer().client().fetch_cluster_id(ASK_MAX).unwrap_or_default();
        Ok((TopicId { cluster, name: self.name(topic).to_owned() }, partitions))
    }

    fn standalone_client(&self, more: &[(&str, &str)]) -> Result<BaseConsumer<Reports>, String> {
        let little = [("queued.min.messages", "1"), ("queued.max.messages.kbytes", "1024")];
        let Membership { group, topics, .. } = &self.membership;
        standalone_client(&self.connection, group, topics, &[&little, more].concat())
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
            log::warn!("Kafka: leaving the group takes too long; no longer waiting");
        }
    }

    fn names(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &TopicPartition { topic, partition } in partitions {
            list.add_partition(self.name(topic), partition);
        }
        list
    }
}

impl Membership {
    fn at(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        let topic = self.topics.iter().position(|name| name == topic)?;
        Some(TopicPartition { topic, partition })
    }
}

fn reports_lost_position(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    use RDKafkaErrorCode::{AutoOffsetReset, LogTruncation, OffsetOutOfRange};
    matches!(code, Some(AutoOffsetReset | OffsetOutOfRange | LogTruncation))
}

fn is_missing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownTopic | UnknownTopicOrPartition))
}

/// Returns the error, unless it is that no broker is left: the errors before it report why.
fn error_text(error: &KafkaError) -> Option<String> {
    (error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown)).then(|| error.to_string())
}

#[cfg(test)]
mod tests;
