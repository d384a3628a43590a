use std::borrow::Cow;
use std::fmt;

use super::time::rfc3339;
use crate::message::Event;

/// Key of messages. Kafka keeps the order of equal keys: with `Agent`, that of all events of an agent. `Interface` spreads these
/// (without an interface, the agent's name is the key); `Timestamp` (`observed_at`) keeps only the order of events of one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    #[default]
    Agent,
    Interface,
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
