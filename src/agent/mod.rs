//! The agent: from the counters to Kafka.

pub mod limit;
pub mod rate;
