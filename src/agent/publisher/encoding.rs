use std::sync::{Arc, OnceLock};

use log::info;

use crate::event::Event;
use crate::registry::{RegistryAddress, RegistryError};
use crate::wire::{self, Format, Key, Message};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    pub format: Format,
    pub key: Key,
    /// Unused by JSON, which is never framed.
    pub registry: Option<RegistryAddress>,
    pub auto_register: bool,
}

#[derive(Clone)]
pub(super) struct Encoder {
    encoding: Encoding,
    subject: String,
    id: Arc<OnceLock<u32>>,
}

impl Encoder {
    pub(super) fn new(encoding: Encoding, topic: &str) -> Self {
        Self { encoding, subject: format!("{topic}-value"), id: Arc::default() }
    }

    /// Fetches the schema's id if the format needs one. Blocks on the registry.
    pub(super) fn prepare(&self) -> Result<(), RegistryError> {
        let Encoding { format, registry, auto_register, .. } = &self.encoding;
        let (Some(address), false) = (registry, *format == Format::Json || self.id.get().is_some()) else {
            return Ok(());
        };
        let id = address.open()?.id_of(&self.subject, *format, *auto_register).map_err(|refusal| match refusal {
            RegistryError::Unknown(why) => RegistryError::Misconfigured(format!(
                "{why}; register what `highwater-agent schema --format {}` prints as {}, or set kafka.registry.auto_register",
                format.schema_name(),
                self.subject
            )),
            other => other,
        })?;
        info!("writing {format} with schema {id}, which is {} at {}", self.subject, address.url());
        // Another worker may have asked too; the answer is the same.
        let _ = self.id.set(id);
        Ok(())
    }

    /// Call [`Encoder::prepare`] before.
    pub(super) fn message<'a>(&self, event: &'a Event, json: &'a [u8]) -> Message<'a> {
        let mut message = wire::message(event, json, self.encoding.format, self.id.get().copied());
        message.key = self.encoding.key.of(event);
        message
    }
}
