//! Highwater measures how much traffic a host's network interfaces carry, and reports reliably when a link exceeds its limit.
//!
//! The crate holds two programs, which share no state but Kafka topics:
//! ```text
//!  highwater-agent, on each host
//!  kernel counters ─► rate ─► limit ─► EventSystem ─► journal ─► publisher ─► Kafka
//!                                                                               │
//!  highwater-consumer, beside the database                                      │
//!  report, cli ◄─ PostgreSQL or SQLite ◄─ store ◄─ batch ◄─ source, decoded ◄───┘
//! ```
//! They never import each other; detector and message are pure (no clock, no I/O); only `run` and `cli` join modules.
//!
//! Modules, in the order of the data:
//! - [`message`]: the event, its identity `(agent, epoch, seq)` and its [`message::fields`]; the [`message::histogram`] of rates.
//! - [`wire`]: the event as JSON, Avro or Protobuf, its Kafka message, its schemas.
//! - [`agent::counters`]: byte counters and the links that come and go, by netlink, sysinfo or made up.
//! - [`agent::detector`]: traffic from two readings and its verdict ([`agent::detector::rate`]); limits, breaches; rate windows.
//! - [`agent::event_system`]: registers events and notifies observers. A reaction of your own begins here.
//! - [`agent::journal`]: keeps events on disk until Kafka has them, and declares those that it has to give up.
//! - [`agent::publisher`]: decides when to send, sends again after every failure, and removes what is acknowledged.
//! - [`consumer::batch`], [`consumer::checkpoint`]: what was read and is not stored; where each partition goes on.
//! - [`consumer::store`]: rows, dead letters and offsets in one transaction, in PostgreSQL or SQLite.
//! - [`consumer::report`]: questions to a store, with typed answers. [`consumer::plot`] draws them.
//! - [`agent::run`], [`consumer::run`]: the loops; [`agent::cli`], [`consumer::cli`]: the commands.
//!
//! Threads, transactions, guards 1 to 3 and the invariants: `docs/architecture.md` in the repository.

// These macros panic on a closed pipe: `output::print` and `exit::write_error` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod text;
pub mod units;

#[cfg(test)]
mod testing;

pub mod process;

pub mod config;

pub mod cli;

pub mod message;
pub mod wire;

pub mod kafka;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "consumer")]
pub mod consumer;
