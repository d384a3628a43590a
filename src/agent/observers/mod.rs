//! Reactions to events that an agent brings along.

pub mod log;
