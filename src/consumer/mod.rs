//! `highwater-consumer`: from Kafka to a row, exactly once.
//!
//! ```text
//!  Kafka ─► source ─► batch (decoded) ─► store: one transaction of rows, dead letters, offsets
//!             ▲                            │
//!             └─── checkpoint: read from ◄─┘
//! ```

mod backoff;
pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod report;
pub mod run;
mod schemas;
mod source;
pub mod store;

pub use source::{Membership, Seen, StandaloneConsumer};
