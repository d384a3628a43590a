//! The agent: from the counters to Kafka.

pub mod watch;

pub mod counters;

pub mod rate;

pub mod limit;

pub mod event_system;

pub mod journal;
