//! The event as one JSON object, flat but for lists. An agent encodes little else, so this is faster than a general serializer:
//! names, and texts that need no escapes, are copied whole, and keys are inlined, where their length is known.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::DecodeError;
use super::time::rfc3339;
use crate::message::Event;
use crate::message::fields::{Field, FieldPresence, FieldValue, FieldValues, Item};

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

/// Ends an object. Each key was written with a comma before it; that of the first one becomes the opening brace.
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
        Some(FieldValue::Bytes(bytes)) => quoted(BASE64_STANDARD.encode(bytes).as_bytes(), json),
        Some(FieldValue::Links(links)) => items(links, json),
        Some(FieldValue::OverLimits(over)) => items(over, json),
    }
}

fn items<T: Item<N>, const N: usize>(items: &[T], json: &mut Vec<u8>) {
    json.push(b'[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        let start = json.len();
        item.visit(&mut |field, value| put_item(field, value.as_ref(), json));
        close(start, json);
    }
    json.push(b']');
}

/// Writes a field of an item: a function of its own, lest [`put`] is inlined for each of them.
fn put_item(field: &Field, value: Option<&FieldValue<'_>>, json: &mut Vec<u8>) {
    put(field, value, json);
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
    use crate::message::Body;

    fn nested(value: &FieldValue<'_>) -> Vec<Value> {
        fn items<T: Item<N>, const N: usize>(items: &[T]) -> Vec<Value> {
            let object = |item: &T| {
                let mut object = serde_json::Map::new();
                item.visit(&mut |field, value| {
                    let value: Value = match value {
                        None => return,
                        Some(FieldValue::Number(number)) => number.into(),
                        Some(FieldValue::Text(text)) => text.into(),
                        Some(FieldValue::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
                        Some(list) => nested(&list).into(),
                    };
                    object.insert(field.name.to_owned(), value);
                });
                object.into()
            };
            items.iter().map(object).collect()
        }
        match value {
            FieldValue::Links(links) => items(links),
            FieldValue::OverLimits(over) => items(over),
            other => panic!("{other:?}"),
        }
    }

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
                    Some(value) => Value::Array(nested(&value)),
                };
                map.serialize_entry(field.name, &value).unwrap();
            });
            map.end().unwrap();
            let ours = crate::wire::to_json(&event);
            if matches!(event.body, Body::Rates(_)) {
                let [ours, serdes] = [&ours, &serdes].map(|json| serde_json::from_slice::<Value>(json).unwrap());
                proptest::prop_assert_eq!(ours, serdes);
            } else {
                proptest::prop_assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(serdes).unwrap());
            }
        }
    }
}
