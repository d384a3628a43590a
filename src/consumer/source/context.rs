//! What librdkafka says of itself.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientContext, TopicPartitionList};

use crate::kafka;

/// What librdkafka says through callbacks, kept until the loop asks.
pub(super) struct Context {
    /// The configured brokers.
    brokers: String,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
pub(super) struct Heard {
    pub(super) assigned: Option<Vec<i32>>,
    pub(super) refused: Option<String>,
    pub(super) trouble: Option<String>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is told by poll too; that no broker is left comes after what happened to the last one.
        let code = error.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AllBrokersDown)) {
            return;
        }
        let code = code.unwrap_or(RDKafkaErrorCode::Fail);
        self.hear(|heard| match kafka::refusal(code, reason) {
            Some(refusal) => heard.refused = Some(refusal),
            None => heard.trouble = Some(format!("{code}: {}", kafka::explained(reason, &self.brokers))),
        });
    }
}

impl Context {
    pub(super) fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), heard: Arc::default() }
    }

    pub(super) fn hear<T>(&self, listen: impl FnOnce(&mut Heard) -> T) -> T {
        listen(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ConsumerContext for Context {
    /// Takes note, and reads nothing yet. A batch in hand is dropped by the loop when it hears of it: its rows are read again by
    /// whoever has the partition then, from where the database stands.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        // An assignment of nothing is one too: answered otherwise, librdkafka waits for its answer through all that comes, and
        // the group waits for this member.
        let (assigned, answered) = if matches!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
            let partitions = partitions.elements().iter().map(TopicPartitionListElem::partition).collect();
            (partitions, consumer.assign(&TopicPartitionList::new()))
        } else {
            (Vec::new(), consumer.unassign())
        };
        self.hear(|heard| {
            heard.assigned = Some(assigned);
            if let Err(error) = answered {
                heard.trouble = Some(error.to_string());
            }
        });
    }
}
