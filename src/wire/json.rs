//! The event as one flat JSON object. An agent that publishes to Kafka encodes little else, so this is faster than a general
//! serializer: names are copied unescaped, and a text that needs no escapes is copied whole. A field's key is inlined into
//! [`encode`], where its length is known and a few moves copy it.

use super::DecodeError;
use super::time::rfc3339;
use crate::event::Event;
use crate::event::fields::{Field, FieldPresence, FieldValue, FieldValues};

pub(super) const BREACH_BYTES: usize = 672;

pub(super) fn encode(event: &Event, json: &mut Vec<u8>) {
    let start = json.len();
    event.visit(&mut |field, value| put(field, value.as_ref(), json));
    close(start, json);
}

#[cfg(feature = "consumer")]
pub(super) fn encode_values(values: &FieldValues<'_>) -> Vec<u8> {
    let mut json = Vec::new();
    values.iter().for_each(|(field, value)| put(field, value, &mut json));
    close(0, &mut json);
    json
}

/// Each key begins with a comma; the first one gives way to the brace.
fn close(start: usize, json: &mut Vec<u8>) {
    json[start] = b'{';
    json.push(b'}');
}

#[inline(always)]
fn put(field: &Field, value: Option<&FieldValue<'_>>, json: &mut Vec<u8>) {
    if value.is_none() && field.presence != FieldPresence::Nullable {
        return;
    }
    json.extend_from_slice(field.json_key.as_bytes());
    match value {
        None => json.extend_from_slice(b"null"),
        Some(FieldValue::Number(number)) => json.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Some(FieldValue::Text(value)) => text(value, json),
        Some(FieldValue::Epoch(epoch)) => quoted(epoch.digits().as_bytes(), json),
        Some(FieldValue::Time(time)) => quoted(rfc3339(*time).as_bytes(), json),
        Some(FieldValue::Bool(truth)) => json.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Some(FieldValue::Ranges(ranges)) => {
            serde_json::to_writer(json, ranges).expect("numbers can be written to memory");
        }
    }
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

pub(super) fn decode(payload: &[u8]) -> Result<FieldValues<'_>, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    Ok(serde_json::from_slice(payload)?)
}

#[cfg(all(test, feature = "consumer"))]
mod tests {
    use serde::Serializer as _;
    use serde::ser::SerializeMap as _;
    use serde_json::{Value, json};

    use super::super::tests::events;
    use super::*;

    proptest::proptest! {
        #[test]
        fn is_what_serde_writes(event in events()) {
            let mut serdes = Vec::new();
            let mut serializer = serde_json::Serializer::new(&mut serdes);
            let mut map = serializer.serialize_map(None).unwrap();
            event.visit(&mut |field, value| {
                let value = match value {
                    None if field.name == "clock_synced" => Value::Null,
                    None => return,
                    Some(FieldValue::Number(number)) => number.into(),
                    Some(FieldValue::Text(text)) => text.into(),
                    Some(FieldValue::Epoch(epoch)) => epoch.to_string().into(),
                    Some(FieldValue::Time(time)) => {
                        time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true).into()
                    }
                    Some(FieldValue::Bool(truth)) => truth.into(),
                    Some(FieldValue::Ranges(ranges)) => json!(ranges),
                };
                map.serialize_entry(field.name, &value).unwrap();
            });
            map.end().unwrap();
            let ours = crate::wire::to_json(&event);
            proptest::prop_assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(serdes).unwrap());
        }
    }
}
