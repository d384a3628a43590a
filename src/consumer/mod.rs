//! `highwater-consumer`: from Kafka to a row, exactly once.
//!
//! ```text
//!  Kafka ─► source ─► batch (decoded) ─► store: one transaction of rows, dead letters, offsets
//!             ▲                            │
//!             └─── checkpoint: read from ◄─┘
//! ```

pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod config;
mod hour_publisher;
pub mod plot;
pub mod report;
pub mod run;
mod source;
pub mod store;

pub use source::{Fetched, Membership, StandaloneConsumer};
