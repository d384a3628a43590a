//! Kafka to a database.
pub mod batch;
pub mod place;
pub mod store;
