use crate::message::fields::FieldError;

/// Waiting does not mend these. The text names a remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the message is empty")]
    Empty,
    #[error("not an event in JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not an event in Avro: {0}")]
    Avro(String),
    #[error("not an event in Protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("truncated: {what} takes {needed} bytes, and only {there} are left")]
    Truncated { what: &'static str, needed: usize, there: usize },
    #[error("not an event in Protobuf: its message index is not 0, the first message of the schema's file")]
    OtherMessage,
    #[error(
        "Avro with the schema fingerprint {0:016x}, which version {version} does not know; upgrade, then run \
         `highwater-consumer dead-letters retry`",
        version = env!("CARGO_PKG_VERSION")
    )]
    UnknownFingerprint(u64),
    #[error(
        "needs schema {0} from a schema registry, and none is configured; set kafka.registry.url and run `highwater-consumer \
         dead-letters retry`"
    )]
    NoRegistry(u32),
    #[error("needs schema {id}, which the schema registry at {registry} does not have")]
    UnknownId { id: u32, registry: String },
    #[error("needs schema {id} of the registry, which {problem}")]
    Schema {
        id: u32,
        /// Clause that ends the message: `is no record`.
        problem: String,
    },
    #[error("neither JSON nor Avro nor Protobuf: it begins with {0}, and no content-type says what it is")]
    Unrecognised(String),
}
