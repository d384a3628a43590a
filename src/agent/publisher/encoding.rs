use std::sync::{Arc, OnceLock};

use log::info;

use crate::kafka::schema_registry::{RegistryAddress, RegistryError, subject};
use crate::message::Event;
use crate::wire::{self, Format, Key, Message};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    pub format: Format,
    pub key: Key,
    pub registry: Option<RegistryAddress>,
    pub auto_register: bool,
}

#[derive(Clone)]
pub(super) struct Encoder {
    encoding: Encoding,
    subject: String,
    id: Arc<OnceLock<u32>>,
}

/// Looks up the id of the schema of events to `topic` without registering one; `None` without a registry, or for JSON.
pub fn look_up_schema(encoding: &Encoding, topic: &str) -> Option<Result<u32, RegistryError>> {
    let address = encoding.registry.as_ref().filter(|_| encoding.format != Format::Json)?;
    Some(find_schema(address, &subject(topic), encoding.format, false))
}

fn find_schema(address: &RegistryAddress, subject: &str, format: Format, register: bool) -> Result<u32, RegistryError> {
    address.open()?.id_of(subject, format, register).map_err(|refusal| match refusal {
        RegistryError::NotFound(why) if !register => RegistryError::NotFound(format!(
            "{why}; register what `highwater-agent schema --format {}` prints as {subject}, or set kafka.registry.auto_register",
            format.schema_name(),
        )),
        other => other,
    })
}

impl Encoder {
    pub(super) fn new(encoding: Encoding, topic: &str) -> Self {
        Self { encoding, subject: subject(topic), id: Arc::default() }
    }

    /// Fetches the schema's id if the format needs one. Blocks on the registry.
    pub(super) fn prepare(&self) -> Result<(), RegistryError> {
        let Encoding { format, registry, auto_register, .. } = &self.encoding;
        let (Some(address), false) = (registry, *format == Format::Json || self.id.get().is_some()) else {
            return Ok(());
        };
        let id = find_schema(address, &self.subject, *format, *auto_register)?;
        info!("writing {format} with schema {id}, which is {} at {}", self.subject, address.url());
        let _ = self.id.set(id);
        Ok(())
    }

    pub(super) fn message<'a>(&self, event: &'a Event, json: &'a [u8]) -> Message<'a> {
        let mut message = wire::message(event, json, self.encoding.format, self.id.get().copied());
        message.key = self.encoding.key.of(event);
        message
    }
}
