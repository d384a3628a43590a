use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};

use super::{missing_right, missing_topic};

/// Requests about a partition without a leader wait for as long as they may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionNumbers {
    pub all: Vec<i32>,
    pub leaderless: Vec<i32>,
}

pub fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    brokers: &str,
    ask_max: Duration,
) -> Result<PartitionNumbers, String> {
    let metadata = consumer.fetch_metadata(Some(topic), ask_max).map_err(|error| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::BrokerTransportFailure) => "no broker answers".to_owned(),
        _ => error.to_string(),
    })?;
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
            Err(missing_topic(topic, brokers))
        }
        Some((Some(error), _)) => Err(match RDKafkaErrorCode::from(error) {
            code @ RDKafkaErrorCode::TopicAuthorizationFailed => {
                format!("{code}: {}", missing_right("Read", "topic", &[topic]))
            }
            code => format!("{topic}: {code}"),
        }),
        _ => Err(missing_topic(topic, brokers)),
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
    known(&consumer.committed_offsets(list, ask_max)?)
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
