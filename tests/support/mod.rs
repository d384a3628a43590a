//! Shared parts of the tests.

pub(crate) mod agent;
pub(crate) mod certificates;
pub(crate) mod checker;
pub(crate) mod consumer;
pub(crate) mod events;
pub(crate) mod failpoints;
pub(crate) mod faketime;
pub(crate) mod netns;
pub(crate) mod pipeline;
pub(crate) mod pooler;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod publishing;
pub(crate) mod questions;
pub(crate) mod registry;
pub(crate) mod rounds;
pub(crate) mod services;
pub(crate) mod skips;
pub(crate) mod stores;
pub(crate) mod veth;
