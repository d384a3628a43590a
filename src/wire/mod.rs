//! An event as a Kafka message, and back: key, payload, and the headers that make it a CloudEvent too.
//!
//! Headers follow the Kafka binding of CloudEvents 1.0, binary content mode, so that other people's tools read them.

mod json;

use std::fmt::Write as _;

use chrono::SecondsFormat;

use crate::event::{AGENT_BYTES_MAX, Event};

/// A message as Kafka carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The agent's name: one agent's events stay in order.
    pub key: Vec<u8>,
    /// The event, encoded.
    pub payload: Vec<u8>,
    /// `ce_…` and `content-type`, in this order.
    pub headers: [(&'static str, String); 6],
}

/// Why a message is no event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A tombstone, or an empty message.
    #[error("the message is empty")]
    Empty,
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("not an event in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A field says what it can't.
    #[error("field `{field}`: {problem}")]
    Field {
        /// Its name on the wire.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// The event as text, as the journal keeps it and Kafka carries it.
pub fn to_json(event: &Event) -> Vec<u8> {
    json::encode(event)
}

/// Reads a payload of any format that this program speaks.
///
/// # Errors
/// Whatever is not a whole event; fields that a newer agent added are passed over.
pub fn decode(payload: &[u8]) -> Result<Event, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    let event = json::decode(payload)?;
    let agent = &event.stamp.agent;
    if agent.is_empty() || agent.len() > AGENT_BYTES_MAX {
        let problem = format!("has {} bytes; 1 to {AGENT_BYTES_MAX} are allowed", agent.len());
        return Err(DecodeError::Field { field: "agent", problem });
    }
    Ok(event)
}

/// The message that carries `event`, whose JSON is `payload`.
pub fn message(event: &Event, payload: Vec<u8>) -> Message {
    let headers = [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", event.id.to_string()),
        ("ce_source", format!("/highwater/{}", percent_encoded(&event.stamp.agent))),
        ("ce_type", format!("io.highwater.{}.v1", event.body.kind())),
        ("ce_time", event.stamp.observed_at.to_rfc3339_opts(SecondsFormat::Micros, true)),
        ("content-type", "application/json".to_owned()),
    ];
    Message { key: event.stamp.agent.clone().into_bytes(), payload, headers }
}

/// All but the unreserved characters of RFC 3986 as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String does not fail"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
