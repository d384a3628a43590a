//! The agent: from the counters to Kafka.

pub mod counters;

pub mod detector;

mod numbered;

pub mod event_system;

pub mod journal;

pub mod log_observer;

pub mod publisher;

#[cfg(feature = "toolbox")]
pub mod courier;

#[cfg(feature = "toolbox")]
pub mod simulate;

pub mod config;

pub mod status;

pub mod run;

pub mod cli;
