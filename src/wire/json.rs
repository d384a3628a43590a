//! The event as one flat JSON object.

use super::DecodeError;
use super::flat::Flat;
use crate::event::Event;

/// What most events need, with names that are not too long.
const BREACH_BYTES: usize = 576;

pub(super) fn encode(event: &Event) -> Vec<u8> {
    let mut json = Vec::with_capacity(BREACH_BYTES);
    serde_json::to_writer(&mut json, &Flat::from(event)).expect("an event has only strings, whole numbers and times");
    json
}

pub(super) fn decode(payload: &[u8]) -> Result<Flat<'_>, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    Ok(serde_json::from_slice(payload)?)
}
