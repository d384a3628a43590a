//! The agent: from the counters to Kafka.

pub mod counters;
pub mod watch;
