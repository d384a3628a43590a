//! How events are written: the format, and where its schema is kept.

use std::sync::{Arc, OnceLock};

use log::info;

use crate::event::Event;
use crate::registry::{Address, Refusal};
use crate::wire::{self, Format, Key, Message};

/// The format, and the registry that keeps its schema, if one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// What an event is written in.
    pub format: Format,
    /// What decides the partition.
    pub key: Key,
    /// Who keeps the schema; JSON is never framed, so nobody keeps its.
    pub registry: Option<Address>,
    /// Whether a schema that is not there is registered.
    pub auto_register: bool,
}

/// Writes events. Shared by all workers, so that the registry is asked once.
#[derive(Clone)]
pub(super) struct Encoder {
    encoding: Encoding,
    /// What the schema is kept under.
    subject: String,
    id: Arc<OnceLock<u32>>,
}

impl Encoder {
    pub(super) fn new(encoding: Encoding, topic: &str) -> Self {
        Self { encoding, subject: format!("{topic}-value"), id: Arc::default() }
    }

    /// Asks for the schema's id, where it takes one and it is not known yet. Waits for the registry.
    pub(super) fn prepare(&self) -> Result<(), Refusal> {
        let Encoding { format, registry, auto_register, .. } = &self.encoding;
        let (Some(address), false) = (registry, *format == Format::Json || self.id.get().is_some()) else {
            return Ok(());
        };
        let id = address.open()?.id_of(&self.subject, *format, *auto_register).map_err(|refusal| match refusal {
            Refusal::Unknown(why) => Refusal::Misconfigured(format!(
                "{why}; register what `highwater-agent schema --format {}` prints as {}, or set kafka.registry.auto_register",
                format.schema_name(),
                self.subject
            )),
            other => other,
        })?;
        info!("writing {format} by schema {id}, which {} keeps as {}", address.url(), self.subject);
        // Another worker can have asked too: the answer is the same.
        let _ = self.id.set(id);
        Ok(())
    }

    /// The message for an event, once prepared.
    pub(super) fn message<'a>(&self, event: &'a Event, json: &'a [u8]) -> Message<'a> {
        let mut message = wire::message(event, json, self.encoding.format, self.id.get().copied());
        message.key = self.encoding.key.of(event);
        message
    }
}
