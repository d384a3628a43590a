use std::borrow::Cow;
use std::fmt;

use super::time::rfc3339;
use crate::event::Event;

/// The message key. Kafka keeps the order within a partition, and equal keys go to the same partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// The agent's name: all its events are in order.
    #[default]
    Agent,
    /// The interface's name: one agent's events spread over the partitions. Events of no interface have the agent's name.
    Interface,
    /// `observed_at`, RFC 3339: events spread evenly, and only those of one tick are in order.
    Timestamp,
}

pub const KEYS: [Key; 3] = [Key::Agent, Key::Interface, Key::Timestamp];

impl Key {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Interface => "interface",
            Self::Timestamp => "timestamp",
        }
    }

    pub fn of(self, event: &Event) -> Cow<'_, [u8]> {
        let agent = event.stamp.agent.as_bytes();
        match self {
            Self::Agent => agent.into(),
            Self::Interface => event.body.interface().map_or(agent, str::as_bytes).into(),
            Self::Timestamp => rfc3339(event.stamp.observed_at).as_bytes().to_owned().into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
