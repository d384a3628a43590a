use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::kafka::Reports;

pub(super) struct Context {
    pub(super) reports: Reports,
    rebalanced: Mutex<Option<Rebalanced>>,
}

pub(super) struct Rebalanced {
    pub(super) assigned: Vec<(String, i32)>,
    pub(super) error: Option<String>,
}

impl Context {
    pub(super) fn new(reports: Reports) -> Self {
        Self { reports, rebalanced: Mutex::default() }
    }

    pub(super) fn take_rebalanced(&self) -> Option<Rebalanced> {
        self.rebalanced.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.reports.log(level, facility, line);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.reports.stats_raw(statistics);
    }
}

impl ConsumerContext for Context {
    /// Notes the assignment, and reads nothing yet; the loop drops the batch in hand, which the partition's next owner reads again.
    /// Each rebalance brings all partitions, since strategies that bring some of them are refused (see `kafka::Connection`).
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        // Empty assignments have to be answered as well: otherwise librdkafka, and with it the group, waits for this member.
        let (assigned, answered) = if matches!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
            let elements = partitions.elements();
            let assigned = elements.iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
            (assigned, consumer.assign(&TopicPartitionList::new()))
        } else {
            (Vec::new(), consumer.unassign())
        };
        let error = answered.err().map(|error| error.to_string());
        *self.rebalanced.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rebalanced { assigned, error });
    }
}
