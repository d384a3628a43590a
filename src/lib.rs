//! Highwater measures how much traffic a host's network interfaces carry, and reports reliably when a link exceeds its limit.
//!
//! The path of the data, and the order of the modules:
//!
//! ```text
//!  kernel counters ─► rate ─► limit ─► EventSystem ─► journal ─► publisher ─► Kafka
//!                                                                               │
//!                     PostgreSQL or SQLite ◄─ store ◄─ batch ◄─ decode ◄────────┘
//! ```
//!
//! [`agent`] is the upper line, `highwater-agent`; [`consumer`] the lower one, `highwater-consumer`. They never import each other:
//! all that they share is in the modules before them, and the [`event`] is the only thing sent from one to the other.

// These macros panic on a closed pipe: `output::print` and `exit::write_error` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(test)]
pub(crate) mod damage;

pub mod excerpt;
pub mod exit;
pub mod failpoints;
pub mod logging;
pub mod units;

pub mod output;

pub mod clock;
pub mod service;
pub mod watchdog;

pub mod config;

mod cli;

pub mod event;
pub mod wire;

pub mod registry;

pub mod kafka;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "consumer")]
pub mod consumer;
