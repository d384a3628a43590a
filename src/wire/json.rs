//! The event as one flat JSON object.

use super::DecodeError;
use super::flat::Flat;
use crate::event::Event;

pub(super) fn encode(event: &Event) -> Vec<u8> {
    serde_json::to_vec(&Flat::from(event)).expect("an event has only strings, whole numbers and times")
}

pub(super) fn decode(payload: &[u8]) -> Result<Flat<'_>, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    Ok(serde_json::from_slice(payload)?)
}
