//! An event as a Kafka message, and back: key, payload, and the headers that make it a CloudEvent too.
//!
//! | first bytes | content-type | format |
//! |---|---|---|
//! | `{` | `application/json` | JSON, the default; never framed |
//! | `00`, schema's id (4) | `application/vnd.confluent.avro` | Avro, its schema kept by a schema registry |
//! | `00`, schema's id (4), `00` | `application/vnd.confluent.protobuf` | Protobuf, its schema kept by a schema registry; the last byte names the file's first message |
//! | `C3 01`, fingerprint (8) | `application/avro` | Avro, "single object": its schema is one that was released |
//! | `08` | `application/protobuf` | Protobuf |
//!
//! The first bytes always identify what an agent wrote. For others (Protobuf of another producer, its fields in another order), the
//! content-type header decides. Headers follow the Kafka binding of CloudEvents 1.0, binary content mode.

mod avro;
#[cfg(feature = "consumer")]
mod bounds;
#[cfg(feature = "consumer")]
mod decode;
mod error;
mod json;
mod key;
mod protobuf;
mod schema;
mod time;
mod values;

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};

#[cfg(feature = "consumer")]
pub use self::bounds::YEARS;
#[cfg(feature = "consumer")]
pub use self::decode::{Decoded, Decoder, NoRegistry, Schemas, Undecoded, WriterSchema};
pub use self::error::DecodeError;
pub use self::key::{KEYS, Key};
use self::time::Text;
pub(crate) use self::time::rfc3339;
use crate::message::{Event, EventId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub key: Cow<'a, [u8]>,
    pub payload: Cow<'a, [u8]>,
    id: SmolStr,
    source: SmolStr,
    time: Text,
    kind: SmolStr,
    content_type: &'static str,
}

pub type Headers<'a> = [(&'static str, &'a [u8]); 3];

impl Message<'_> {
    pub fn common_headers(&self) -> Headers<'_> {
        [("ce_specversion", b"1.0"), ("ce_type", self.kind.as_bytes()), ("content-type", self.content_type.as_bytes())]
    }

    pub fn own_headers(&self) -> Headers<'_> {
        [("ce_id", self.id.as_bytes()), ("ce_source", self.source.as_bytes()), ("ce_time", self.time.as_bytes())]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Avro,
    Protobuf,
}

pub const FORMATS: [Format; 3] = [Format::Json, Format::Avro, Format::Protobuf];

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
        }
    }

    pub fn schema(self) -> &'static str {
        match self {
            Self::Json => &schema::JSON,
            Self::Avro => &schema::AVRO,
            Self::Protobuf => &schema::PROTOBUF,
        }
    }

    pub fn schema_name(self) -> &'static str {
        match self {
            Self::Json => "json-schema",
            Self::Avro => "avsc",
            Self::Protobuf => "proto",
        }
    }

    fn content_type(self, framed: bool) -> &'static str {
        match (self, framed) {
            (Self::Json, _) => "application/json",
            (Self::Avro, true) => "application/vnd.confluent.avro",
            (Self::Avro, false) => "application/avro",
            (Self::Protobuf, true) => "application/vnd.confluent.protobuf",
            (Self::Protobuf, false) => "application/protobuf",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

pub fn to_json(event: &Event) -> Vec<u8> {
    let mut json = Vec::with_capacity(json::BREACH_BYTES);
    write_json(event, &mut json);
    json
}

pub fn write_json(event: &Event, json: &mut Vec<u8>) {
    json::encode(event, json);
}

/// Ignores fields that a newer agent added.
pub fn from_json(payload: &[u8]) -> Result<Event, DecodeError> {
    Ok(Event::read(json::decode(payload)?)?)
}

pub fn message<'a>(event: &'a Event, json: &'a [u8], format: Format, schema_id: Option<u32>) -> Message<'a> {
    let payload = match format {
        Format::Json => Cow::Borrowed(json),
        Format::Avro | Format::Protobuf => Cow::Owned(binary(event, json.len(), format, schema_id)),
    };
    Message {
        key: event.stamp.agent.as_bytes().into(),
        payload,
        id: id(event.id),
        source: source(&event.stamp.agent),
        time: rfc3339(event.stamp.observed_at),
        kind: kind(event.body.kind()),
        content_type: format.content_type(schema_id.is_some()),
    }
}

fn binary(event: &Event, bytes_max: usize, format: Format, schema_id: Option<u32>) -> Vec<u8> {
    // The binary formats are smaller than JSON: they leave the names out.
    let mut bytes = Vec::with_capacity(bytes_max);
    if let Some(id) = schema_id {
        bytes.push(CONFLUENT);
        bytes.extend_from_slice(&id.to_be_bytes());
    }
    match (format, schema_id) {
        (Format::Json, _) => {}
        (Format::Avro, None) => avro::encode_single_object(event, &mut bytes),
        (Format::Avro, Some(_)) => avro::encode(event, &mut bytes),
        (Format::Protobuf, framed) => {
            bytes.extend(framed.map(|_| FIRST_MESSAGE));
            protobuf::encode(event, &mut bytes);
        }
    }
    bytes
}

const CONFLUENT: u8 = 0;
/// Index of the message in its file, after the schema's id (big-endian). The list `[0]` is written as a single 0.
const FIRST_MESSAGE: u8 = 0;

/// Returns `io.highwater.KIND.v1`, without formatting for breaches, the most frequent events.
fn kind(kind: &str) -> SmolStr {
    match kind {
        "breach_raised" => SmolStr::new_static("io.highwater.breach_raised.v1"),
        "breach_updated" => SmolStr::new_static("io.highwater.breach_updated.v1"),
        "breach_cleared" => SmolStr::new_static("io.highwater.breach_cleared.v1"),
        kind => format_smolstr!("io.highwater.{kind}.v1"),
    }
}

fn id(id: EventId) -> SmolStr {
    let (epoch, mut seq) = (id.epoch.digits(), itoa::Buffer::new());
    let seq = seq.format(id.seq).as_bytes();
    let mut text = [b'-'; 16 + 1 + 20];
    text[..16].copy_from_slice(epoch.as_bytes());
    text[17..][..seq.len()].copy_from_slice(seq);
    SmolStr::new(std::str::from_utf8(&text[..17 + seq.len()]).expect("digits are text"))
}

const SOURCE: &str = "/highwater/";

/// Characters other than RFC 3986's unreserved ones.
pub(crate) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn source(agent: &str) -> SmolStr {
    let mut encoded = SmolStrBuilder::new();
    encoded.push_str(SOURCE);
    utf8_percent_encode(agent, RESERVED).for_each(|part| encoded.push_str(part));
    encoded.finish()
}

#[cfg(feature = "consumer")]
pub fn agent_of_source(source: &str) -> Option<String> {
    percent_decoded(source.strip_prefix(SOURCE)?)
}

#[cfg(feature = "consumer")]
pub(crate) fn percent_decoded(encoded: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

// These tests read what was written: they need the decoder too.
#[cfg(all(test, feature = "consumer"))]
mod tests;
