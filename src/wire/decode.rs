//! Decodes messages of all formats, which may be mixed in one topic.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::{CONFLUENT, DecodeError, avro, bounds, json, protobuf};
use crate::message::fields::FieldValues;
use crate::message::{Body, Event};

#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub event: Event,
    /// The whole message as JSON, if its kind is unknown.
    pub raw: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Undecoded {
    #[error(transparent)]
    Permanent(#[from] DecodeError),
    #[error("{why}")]
    Transient { why: String, wait: Duration, lasted: Duration },
}

pub trait Schemas {
    /// Returns `Permanent` if there certainly is no such schema, `Transient` if the registry could not be reached.
    fn schema(&mut self, id: u32) -> Result<Arc<WriterSchema>, Undecoded>;
}

#[derive(Clone, Copy, Debug)]
pub struct NoRegistry;

impl Schemas for NoRegistry {
    fn schema(&mut self, id: u32) -> Result<Arc<WriterSchema>, Undecoded> {
        Err(DecodeError::NoRegistry(id).into())
    }
}

#[derive(Clone, Debug)]
pub struct WriterSchema(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Avro(avro::Schema),
    /// Needs no text of the schema: a field is known by its number, which is never used again.
    Protobuf,
    Json,
}

impl WriterSchema {
    pub fn parse(kind: Option<&str>, text: &str) -> Result<Self, String> {
        Ok(Self(match kind {
            Some("JSON") => Kind::Json,
            // Apicurio reports the type of a subject's first schema for all of them: the text is more reliable.
            None | Some("AVRO" | "PROTOBUF") if text.trim_start().starts_with('{') => {
                Kind::Avro(avro::Schema::parse(text)?)
            }
            None | Some("AVRO" | "PROTOBUF") if text.contains("syntax = \"proto") => Kind::Protobuf,
            None | Some("AVRO") => Kind::Avro(avro::Schema::parse(text)?),
            Some("PROTOBUF") => Kind::Protobuf,
            Some(other) => return Err(format!("is of the type {other}")),
        }))
    }
}

pub struct Decoder {
    schemas: Box<dyn Schemas + Send>,
}

impl Decoder {
    pub fn new(schemas: impl Schemas + Send + 'static) -> Self {
        Self { schemas: Box::new(schemas) }
    }

    /// Asks `content_type` for the header of this name, if it is needed. Fields that a newer agent added are ignored.
    pub fn decode<'h>(
        &mut self,
        payload: &[u8],
        content_type: impl FnOnce() -> Option<&'h [u8]>,
    ) -> Result<Decoded, Undecoded> {
        let decoded = match payload {
            [] => Err(DecodeError::Empty),
            [b'{', ..] => from_json(payload),
            [CONFLUENT, ..] => return self.framed(payload),
            [first, second, ..] if [*first, *second] == avro::MARKER => single_object(payload),
            [protobuf::FIRST_BYTE, ..] => from_protobuf(payload),
            _ => match media_type(content_type()).as_deref() {
                Some("application/json") => from_json(payload),
                Some("application/protobuf" | "application/x-protobuf") => from_protobuf(payload),
                _ if payload.trim_ascii_start().starts_with(b"{") => from_json(payload),
                _ => Err(DecodeError::Unrecognised(first_bytes(payload))),
            },
        };
        Ok(decoded?)
    }

    fn framed(&mut self, payload: &[u8]) -> Result<Decoded, Undecoded> {
        let Some((header, rest)) = payload.split_first_chunk::<5>() else {
            return Err(truncated("the header of Confluent's wire format", 5, payload).into());
        };
        let id = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let writer = self.schemas.schema(id)?;
        let decoded = match &writer.0 {
            Kind::Avro(schema) => from_avro(schema, rest),
            Kind::Protobuf => first_message(rest).and_then(from_protobuf),
            Kind::Json => from_json(rest),
        };
        Ok(decoded?)
    }
}

fn from_json(payload: &[u8]) -> Result<Decoded, DecodeError> {
    let event = Event::read(json::decode(payload)?)?;
    decoded(event, || {
        let text = std::str::from_utf8(payload).map_err(<serde_json::Error as serde::de::Error>::custom)?;
        Ok(text.to_owned())
    })
}

fn from_avro(schema: &avro::Schema, value: &[u8]) -> Result<Decoded, DecodeError> {
    let error = |error: avro::Error| DecodeError::Avro(error.to_string());
    let event = Event::read(schema.read::<FieldValues<'_>>(value).map_err(error)?)?;
    decoded(event, || Ok(schema.read::<Value>(value).map_err(error)?.to_string()))
}

fn from_protobuf(message: &[u8]) -> Result<Decoded, DecodeError> {
    let event = Event::read(protobuf::decode(message)?)?;
    // The fields that have names here, and the whole message in base64 for the rest.
    decoded(event, || {
        let mut fields: Value = serde_json::from_slice(&json::encode_values(&protobuf::decode(message)?))?;
        fields["protobuf"] = BASE64_STANDARD.encode(message).into();
        Ok(fields.to_string())
    })
}

fn decoded(event: Event, render: impl FnOnce() -> Result<String, DecodeError>) -> Result<Decoded, DecodeError> {
    let raw = match event.body {
        Body::Unknown(_) => Some(render()?),
        _ => None,
    };
    bounds::check(&event, raw.as_deref())?;
    Ok(Decoded { event, raw })
}

fn single_object(payload: &[u8]) -> Result<Decoded, DecodeError> {
    let Some((header, value)) = payload.split_first_chunk::<10>() else {
        return Err(truncated("the header of an Avro object", 10, payload));
    };
    let fingerprint = u64::from_le_bytes(header[2..].try_into().expect("8 bytes"));
    let schema = avro::released(fingerprint).ok_or(DecodeError::UnknownFingerprint(fingerprint))?;
    from_avro(schema, value)
}

/// Skips the index of the message in its Protobuf file, which must be the first: `[0]` is written as a single 0.
fn first_message(framed: &[u8]) -> Result<&[u8], DecodeError> {
    match framed {
        [0, message @ ..] | [2, 0, message @ ..] => Ok(message),
        [] => Err(truncated("the header of Confluent's wire format for Protobuf", 6, &[0; 5])),
        _ => Err(DecodeError::OtherMessage),
    }
}

fn truncated(what: &'static str, needed: usize, payload: &[u8]) -> DecodeError {
    DecodeError::Truncated { what, needed, there: payload.len() }
}

fn media_type(content_type: Option<&[u8]>) -> Option<String> {
    let text = std::str::from_utf8(content_type?).ok()?;
    Some(text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase())
}

fn first_bytes(payload: &[u8]) -> String {
    let hex: Vec<_> = payload.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    hex.join(" ")
}
