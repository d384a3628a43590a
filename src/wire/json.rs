//! The event as one flat JSON object.
//!
//! An agent on its way to Kafka writes little else, which makes it worth more than a general serializer's pace: names are put in
//! as they stand, and a text that needs no escapes is copied whole.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::DecodeError;
use super::flat::Flat;
use super::time::rfc3339;
use crate::event::{Direction, Event, Severity};

/// What most events need, with names that are not too long.
const BREACH_BYTES: usize = 576;

/// Appends the fields that are there.
macro_rules! put {
    ($json:ident: $($field:ident)*) => { $(
        if $field.is_there() {
            $json.extend_from_slice(concat!("\"", stringify!($field), "\":").as_bytes());
            $field.put(&mut $json);
            $json.push(b',');
        }
    )* };
}

pub(super) fn encode(event: &Event) -> Vec<u8> {
    let mut json = Vec::with_capacity(BREACH_BYTES);
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
        raised_at,
        limit,
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
        lost_epoch,
        ranges,
        version,
        reason,
        rx_bytes,
        tx_bytes,
        rx_bps,
        tx_bps,
    } = Flat::from(event);
    let clock_synced = OrNull(clock_synced);
    json.push(b'{');
    put!(json: schema agent epoch seq kind observed_at boot_id monotonic_ms clock_synced);
    put!(json: breach_id raised_at limit severity interface ifindex direction limit_bps rate_bps peak_bps mean_bps);
    put!(json: duration_ms measured_ms excess_bytes speed_bps lost_epoch ranges version reason);
    put!(json: rx_bytes tx_bytes rx_bps tx_bps);
    json.pop();
    json.push(b'}');
    json
}

pub(super) fn decode(payload: &[u8]) -> Result<Flat<'_>, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    Ok(serde_json::from_slice(payload)?)
}

/// What can stand in a field.
trait Put {
    fn put(&self, json: &mut Vec<u8>);

    fn is_there(&self) -> bool {
        true
    }
}

/// A field that is `null` where nobody knows, and never left out.
struct OrNull(Option<bool>);

impl Put for OrNull {
    fn put(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(match self.0 {
            None => b"null",
            Some(false) => b"false",
            Some(true) => b"true",
        });
    }
}

impl<T: Put> Put for Option<T> {
    fn put(&self, json: &mut Vec<u8>) {
        self.iter().for_each(|value| value.put(json));
    }

    fn is_there(&self) -> bool {
        self.is_some()
    }
}

impl Put for u64 {
    fn put(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
    }
}

impl Put for u32 {
    fn put(&self, json: &mut Vec<u8>) {
        u64::from(*self).put(json);
    }
}

impl Put for Cow<'_, str> {
    fn put(&self, json: &mut Vec<u8>) {
        if self.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
            return serde_json::to_writer(json, self).expect("a text can be written to memory");
        }
        quoted(self, json);
    }
}

impl Put for DateTime<Utc> {
    fn put(&self, json: &mut Vec<u8>) {
        quoted(&rfc3339(*self), json);
    }
}

impl Put for Severity {
    fn put(&self, json: &mut Vec<u8>) {
        quoted(self.as_str(), json);
    }
}

impl Put for Direction {
    fn put(&self, json: &mut Vec<u8>) {
        quoted(self.as_str(), json);
    }
}

impl Put for Cow<'_, [(u64, u64)]> {
    fn put(&self, json: &mut Vec<u8>) {
        serde_json::to_writer(json, self).expect("numbers can be written to memory");
    }
}

fn quoted(plain: &str, json: &mut Vec<u8>) {
    json.push(b'"');
    json.extend_from_slice(plain.as_bytes());
    json.push(b'"');
}

#[cfg(all(test, feature = "consumer"))]
mod tests {
    use super::super::tests::events;
    use super::*;

    proptest::proptest! {
        #[test]
        fn is_what_serde_writes(event in events()) {
            let (ours, serdes) = (encode(&event), serde_json::to_vec(&Flat::from(&event)).unwrap());
            proptest::prop_assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(serdes).unwrap());
        }
    }
}
