//! The event as one flat JSON object.
//!
//! An agent that publishes to Kafka encodes little else, so this is faster than a general serializer: names are copied unescaped,
//! and a text that needs no escapes is copied whole. A field's name is inlined into [`encode`], where its length is known and a few
//! moves copy it.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use smol_str::SmolStr;

use super::DecodeError;
use super::flat::Flat;
use super::time::rfc3339;
use crate::event::{Direction, Event, Severity};

/// Capacity that suffices for most events, unless names are very long.
pub(super) const BREACH_BYTES: usize = 672;

/// Appends the fields that are present, one after the other.
macro_rules! put {
    ($json:ident: $($field:ident)*) => { $( $field.put(concat!(",\"", stringify!($field), "\":"), $json); )* };
}

pub(super) fn encode(event: &Event, json: &mut Vec<u8>) {
    let Flat {
        schema,
        agent,
        epoch,
        seq,
        kind,
        observed_at,
        boot_id,
        monotonic_ms,
        clock_synced,
        breach_id,
        started_at,
        raised_at,
        ended_at,
        limit_name,
        severity,
        interface,
        ifindex,
        direction,
        limit_bps,
        rate_bps,
        peak_bps,
        mean_bps,
        duration_ms,
        measured_ms,
        excess_bytes,
        speed_bps,
        rx_bytes,
        tx_bytes,
        rx_bps,
        tx_bps,
        lost_epoch,
        ranges,
        version,
        reason,
        detail,
    } = &Flat::from(event);
    let clock_synced = OrNull(*clock_synced);
    schema.put("{\"schema\":", json);
    put!(json: agent epoch seq kind observed_at boot_id monotonic_ms clock_synced);
    put!(json: breach_id started_at raised_at ended_at limit_name severity interface ifindex direction);
    put!(json: limit_bps rate_bps peak_bps mean_bps duration_ms measured_ms excess_bytes);
    put!(json: speed_bps rx_bytes tx_bytes rx_bps tx_bps lost_epoch ranges version reason detail);
    json.push(b'}');
}

pub(super) fn decode(payload: &[u8]) -> Result<Flat<'_>, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    Ok(serde_json::from_slice(payload)?)
}

trait Put {
    /// Appends `name`, which includes the punctuation before and after it, and the value.
    fn put(&self, name: &str, json: &mut Vec<u8>);
}

/// A field that is `null` if unknown, and never left out.
struct OrNull(Option<bool>);

impl Put for OrNull {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        plain(self.0.map_or("null", |known| if known { "true" } else { "false" }), json);
    }
}

impl<T: Put> Put for Option<T> {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        if let Some(value) = self {
            value.put(name, json);
        }
    }
}

impl Put for u64 {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        plain(itoa::Buffer::new().format(*self), json);
    }
}

impl Put for u32 {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        u64::from(*self).put(name, json);
    }
}

impl Put for Cow<'_, str> {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        text(self, json);
    }
}

impl Put for SmolStr {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        text(self, json);
    }
}

impl Put for DateTime<Utc> {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        quoted(rfc3339(*self).as_bytes(), json);
    }
}

impl Put for Severity {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        quoted(self.as_str().as_bytes(), json);
    }
}

impl Put for Direction {
    #[inline(always)]
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        quoted(self.as_str().as_bytes(), json);
    }
}

impl Put for Cow<'_, [(u64, u64)]> {
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        plain(name, json);
        serde_json::to_writer(json, self).expect("numbers can be written to memory");
    }
}

#[inline(always)]
fn plain(text: &str, json: &mut Vec<u8>) {
    json.extend_from_slice(text.as_bytes());
}

fn text(text: &str, json: &mut Vec<u8>) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return serde_json::to_writer(json, text).expect("a text can be written to memory");
    }
    quoted(text.as_bytes(), json);
}

fn quoted(text: &[u8], json: &mut Vec<u8>) {
    json.push(b'"');
    json.extend_from_slice(text);
    json.push(b'"');
}

#[cfg(all(test, feature = "consumer"))]
mod tests {
    use super::super::tests::events;
    use super::*;

    proptest::proptest! {
        #[test]
        fn is_what_serde_writes(event in events()) {
            let (ours, serdes) = (crate::wire::to_json(&event), serde_json::to_vec(&Flat::from(&event)).unwrap());
            proptest::prop_assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(serdes).unwrap());
        }
    }
}
