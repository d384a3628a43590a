//! Tells the format of a message by what it sees, and reads it. All formats may be mixed in one topic.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::flat::Flat;
use super::{CONFLUENT, DecodeError, avro, bounds, json, protobuf};
use crate::event::{Body, Event};

/// A message that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// What it says.
    pub event: Event,
    /// All that it says, as JSON, where its kind is unknown.
    pub raw: Option<String>,
}

/// Why a message was not read.
#[derive(Debug, thiserror::Error)]
pub enum Undecoded {
    /// It is no event.
    #[error(transparent)]
    Never(#[from] DecodeError),
    /// It can't be told now what it is: ask again later, and pass nothing over.
    #[error("{why}")]
    NotNow {
        /// What hinders.
        why: String,
        /// How long to wait before the next try.
        wait: Duration,
        /// For how long nothing could be told by now.
        lasted: Duration,
    },
}

/// Where the schemas are found that messages name by their ids.
pub trait Schemas {
    /// The schema with this id.
    ///
    /// # Errors
    /// `Never` where it is certain that there is none; `NotNow` where nobody could be asked.
    fn schema(&mut self, id: u32) -> Result<Arc<Writer>, Undecoded>;
}

/// No registry is configured.
#[derive(Clone, Copy, Debug)]
pub struct NoRegistry;

impl Schemas for NoRegistry {
    fn schema(&mut self, id: u32) -> Result<Arc<Writer>, Undecoded> {
        Err(DecodeError::NoRegistry(id).into())
    }
}

/// What a message was written by.
#[derive(Clone, Debug)]
pub struct Writer(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Avro(avro::Schema),
    /// The fields carry numbers, which `event.proto` never gives anew: its own text is not needed.
    Protobuf,
    Json,
}

impl Writer {
    /// Understands a schema as a registry gives it: `schemaType` (Avro where there is none) and `schema`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(kind: Option<&str>, text: &str) -> Result<Self, String> {
        Ok(Self(match kind {
            Some("JSON") => Kind::Json,
            // Apicurio tells the type of a subject's first schema for all of them: the text knows better.
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

/// Reads messages.
pub struct Decoder {
    schemas: Box<dyn Schemas + Send>,
}

impl Decoder {
    /// One that finds the schemas of framed messages in `schemas`.
    pub fn new(schemas: impl Schemas + Send + 'static) -> Self {
        Self { schemas: Box::new(schemas) }
    }

    /// Reads a message's payload; `content_type` is its header of this name.
    ///
    /// # Errors
    /// Whatever is not a whole event; fields that a newer agent added are passed over.
    pub fn decode(&mut self, payload: &[u8], content_type: Option<&[u8]>) -> Result<Decoded, Undecoded> {
        let decoded = match payload {
            [] => Err(DecodeError::Empty),
            [b'{', ..] => from_json(payload),
            [CONFLUENT, ..] => return self.framed(payload),
            [first, second, ..] if [*first, *second] == avro::MARKER => single_object(payload),
            [protobuf::FIRST_BYTE, ..] => from_protobuf(payload),
            _ => match media_type(content_type).as_deref() {
                Some("application/json") => from_json(payload),
                Some("application/protobuf" | "application/x-protobuf") => from_protobuf(payload),
                _ if payload.trim_ascii_start().starts_with(b"{") => from_json(payload),
                _ => Err(DecodeError::Unrecognised(first_bytes(payload))),
            },
        };
        Ok(decoded?)
    }

    /// Confluent's wire format: 0, the schema's id, the value.
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
    let event = json::decode(payload)?.try_into()?;
    decoded(event, || {
        let text = std::str::from_utf8(payload).map_err(<serde_json::Error as serde::de::Error>::custom)?;
        Ok(text.to_owned())
    })
}

fn from_avro(schema: &avro::Schema, value: &[u8]) -> Result<Decoded, DecodeError> {
    let error = |error: avro::Error| DecodeError::Avro(error.to_string());
    let event = schema.read::<Flat<'_>>(value).map_err(error)?.try_into()?;
    decoded(event, || Ok(schema.read::<Value>(value).map_err(error)?.to_string()))
}

fn from_protobuf(message: &[u8]) -> Result<Decoded, DecodeError> {
    let event = protobuf::decode(message)?.try_into()?;
    decoded(event, || Ok(protobuf::rendered(message)?.to_string()))
}

/// An event that a database can store, with its rendering where its kind is unknown: a later version may understand it.
fn decoded(event: Event, render: impl FnOnce() -> Result<String, DecodeError>) -> Result<Decoded, DecodeError> {
    let raw = match event.body {
        Body::Unknown(_) => Some(render()?),
        _ => None,
    };
    bounds::check(&event, raw.as_deref())?;
    Ok(Decoded { event, raw })
}

/// Avro's own frame: C3 01, the schema's fingerprint, the value.
fn single_object(payload: &[u8]) -> Result<Decoded, DecodeError> {
    let Some((header, value)) = payload.split_first_chunk::<10>() else {
        return Err(truncated("the header of an Avro object", 10, payload));
    };
    let fingerprint = u64::from_le_bytes(header[2..].try_into().expect("8 bytes"));
    let schema = avro::released(fingerprint).ok_or(DecodeError::UnknownFingerprint(fingerprint))?;
    from_avro(schema, value)
}

/// Passes over the place of the message in its file, which has to be the first: a list of numbers, `[0]` as a single 0.
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

/// Without its parameters.
fn media_type(content_type: Option<&[u8]>) -> Option<String> {
    let text = std::str::from_utf8(content_type?).ok()?;
    Some(text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase())
}

fn first_bytes(payload: &[u8]) -> String {
    let hex: Vec<_> = payload.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    hex.join(" ")
}
