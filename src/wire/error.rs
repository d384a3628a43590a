//! Why a message is no event.

use std::borrow::Cow;
use std::fmt;

/// Why a message is no event, and will not become one by waiting. What could help is said.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A tombstone, or an empty message.
    #[error("the message is empty")]
    Empty,
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("not an event in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The bytes are not what the schema says, or a field is missing or of the wrong type.
    #[error("not an event in Avro: {0}")]
    Avro(String),
    /// Not Protobuf.
    #[error("not an event in Protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field says what it can't.
    #[error("field `{field}`: {problem}")]
    Field {
        /// Its name on the wire.
        field: Cow<'static, str>,
        /// What is wrong with it.
        problem: String,
    },
    /// The message ends within what should say how to read it.
    #[error("cut short: {what} takes {needed} bytes, and there are {there}")]
    Truncated {
        /// What the message begins with.
        what: &'static str,
        /// How long that is.
        needed: usize,
        /// How long the message is.
        there: usize,
    },
    /// A Protobuf message, but not the one that is an event.
    #[error("not an event in Protobuf: the header names another message of the schema's file than its first")]
    OtherMessage,
    /// Avro by a schema that was released after this program.
    #[error(
        "Avro by a schema with the fingerprint {0:016x}, which version {version} does not know; upgrade, then \
         `highwater-consumer dead-letters retry` brings it back",
        version = env!("CARGO_PKG_VERSION")
    )]
    UnknownFingerprint(u64),
    /// A schema that a registry keeps, and none is configured.
    #[error(
        "by schema {0} of a schema registry; set kafka.registry.url, then `highwater-consumer dead-letters retry` brings it back"
    )]
    NoRegistry(u32),
    /// A schema that the registry does not know.
    #[error("by schema {id}, which the schema registry at {registry} does not know")]
    UnknownId {
        /// The schema's id.
        id: u32,
        /// Where it was looked for.
        registry: String,
    },
    /// A schema that is of no use.
    #[error("by schema {id} of the registry, which {problem}")]
    Schema {
        /// The schema's id.
        id: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing that this program speaks.
    #[error("neither JSON nor Avro nor Protobuf: it begins with {0}, and no content-type says what it is")]
    Unrecognised(String),
}

impl DecodeError {
    /// `field` says what it can't.
    pub(super) fn field(field: impl Into<Cow<'static, str>>, problem: impl fmt::Display) -> Self {
        Self::Field { field: field.into(), problem: problem.to_string() }
    }
}
