//! Reasons why a producer is replaced, and what the next one does differently.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::kafka::{missing_right, missing_topic};

pub(super) enum SessionEnd {
    Closed,
    /// Replaced at once: it failed while idle, a certificate or secret has changed, or a flush is demanded while it backs off.
    Replace,
    Retry(String),
    /// No broker can be reached: the producer is made again for each attempt, and costs nothing between them.
    Unreachable(String),
    /// Connection is slow: a new producer waits longer for answers, and sends smaller batches.
    SlowConnection,
    ReduceBatch(usize, Code),
    OneByOne(Code),
    InBatches,
    NeedsOperator(String),
}

impl SessionEnd {
    pub(super) fn of(code: Code, topic: &str, brokers: &str) -> Self {
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Self::NeedsOperator(format!("{code}: {}", missing_topic(topic, brokers)))
            }
            Code::TopicAuthorizationFailed => {
                Self::NeedsOperator(format!("{code}: {}", missing_right("Write", "topic", &[topic])))
            }
            Code::ClusterAuthorizationFailed => Self::NeedsOperator(format!(
                "{code}: {}; brokers before 2.8 want `--operation IdempotentWrite --cluster` too",
                missing_right("Write", "topic", &[topic])
            )),
            Code::InvalidTimestamp => Self::NeedsOperator(format!(
                "{code}: this host's clock and the broker's differ too much; set this host's clock, or \
                 message.timestamp.type=LogAppendTime for {topic}"
            )),
            code => Self::Retry(code.to_string()),
        }
    }
}
