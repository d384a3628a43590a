//! The agent: from the counters to Kafka.

pub mod config;

pub mod counters;

pub mod detector;

pub mod event_system;

pub mod observers;

pub mod journal;

pub mod publisher;

pub mod status;

#[cfg(feature = "toolbox")]
pub mod toolbox;

pub mod run;

pub mod cli;
