use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

use super::{missing_right, missing_topic};
use crate::process::clock::{Clock as _, SystemClock};

/// Requests about a partition without a leader wait for as long as they may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionNumbers {
    pub all: Vec<i32>,
    pub leaderless: Vec<i32>,
}

#[derive(Debug, Error)]
pub enum PartitionsError {
    #[error("{0}")]
    UnknownTopic(String),
    #[error("{0}")]
    Failed(String),
}

impl From<PartitionsError> for String {
    fn from(error: PartitionsError) -> Self {
        error.to_string()
    }
}

/// Asks for the partitions of a topic. `reported` is what the client has reported, should no broker answer.
pub fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    brokers: &str,
    ask_max: Duration,
    reported: impl FnOnce() -> Option<String>,
) -> Result<PartitionNumbers, PartitionsError> {
    let unknown = || Err(PartitionsError::UnknownTopic(missing_topic(topic, brokers)));
    let metadata = consumer.fetch_metadata(Some(topic), ask_max).map_err(|error| match error.rdkafka_error_code() {
        // Brokers that close each connection: whether librdkafka counts them as down before the time is up is chance.
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut) => {
            reported().unwrap_or_else(|| "no broker answers".to_owned())
        }
        _ => error.to_string(),
    });
    let metadata = metadata.map_err(PartitionsError::Failed)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map(|found| (found.error(), found.partitions())) {
        Some((None, partitions)) if !partitions.is_empty() => {
            let leaderless = partitions.iter().filter(|partition| partition.leader() < 0);
            Ok(PartitionNumbers {
                all: partitions.iter().map(MetadataPartition::id).collect(),
                leaderless: leaderless.map(MetadataPartition::id).collect(),
            })
        }
        Some((Some(error), _)) if RDKafkaErrorCode::from(error) == RDKafkaErrorCode::UnknownTopicOrPartition => {
            unknown()
        }
        Some((Some(error), _)) => Err(PartitionsError::Failed(match RDKafkaErrorCode::from(error) {
            code @ RDKafkaErrorCode::TopicAuthorizationFailed => {
                format!("{code}: {}", missing_right("Read", "topic", &[topic]))
            }
            code => format!("{topic}: {code}"),
        })),
        _ => unknown(),
    }
}

const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Returns the first offset, and the one after the last that a reader may see (the last stable offset).
pub fn watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
    ask_max: Duration,
) -> KafkaResult<(i64, i64)> {
    retry_transient(ask_max, |ask_max| client.fetch_watermarks(topic, partition, ask_max))
}

/// Returns the first offset whose message is not older than the time in `times` (ms since 1970), where there is one.
pub fn at_times<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    times: &TopicPartitionList,
    ask_max: Duration,
) -> KafkaResult<BTreeMap<i32, i64>> {
    retry_transient(ask_max, |ask_max| known(&consumer.offsets_for_times(times.clone(), ask_max)?))
}

/// Retries for `ask_max` while there is no leader or coordinator, as of a new topic, after a move, or in a new cluster.
fn retry_transient<T>(ask_max: Duration, mut ask: impl FnMut(Duration) -> KafkaResult<T>) -> KafkaResult<T> {
    use RDKafkaErrorCode::{
        CoordinatorLoadInProgress, CoordinatorNotAvailable, LeaderNotAvailable, NotCoordinator, NotLeaderForPartition,
        UnknownTopicOrPartition,
    };
    let clock = SystemClock::default();
    let until = clock.monotonic() + ask_max;
    loop {
        let answer = ask(until.saturating_sub(clock.monotonic()));
        let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        let passes = matches!(
            code,
            Some(
                CoordinatorLoadInProgress
                    | CoordinatorNotAvailable
                    | LeaderNotAvailable
                    | NotCoordinator
                    | NotLeaderForPartition
                    | UnknownTopicOrPartition
            )
        );
        if !passes || clock.monotonic() + ASK_AGAIN >= until {
            return answer;
        }
        thread::sleep(ASK_AGAIN);
    }
}

pub fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    ask_max: Duration,
) -> KafkaResult<BTreeMap<i32, i64>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    retry_transient(ask_max, |ask_max| known(&consumer.committed_offsets(list.clone(), ask_max)?))
}

pub fn known(answer: &TopicPartitionList) -> KafkaResult<BTreeMap<i32, i64>> {
    let mut known = BTreeMap::new();
    for element in answer.elements() {
        match element.error() {
            Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset)) => {}
            other => other?,
        }
        if let Offset::Offset(offset) = element.offset() {
            known.insert(element.partition(), offset);
        }
    }
    Ok(known)
}

pub fn list(topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, String> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (&partition, &offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(|e| e.to_string())?;
    }
    Ok(list)
}
