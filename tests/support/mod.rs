//! What tests share.

pub(crate) mod agent;
pub(crate) mod consumer;
pub(crate) mod events;
pub(crate) mod netns;
pub(crate) mod services;
pub(crate) mod veth;
