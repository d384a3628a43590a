//! The agent: from the counters to Kafka.
