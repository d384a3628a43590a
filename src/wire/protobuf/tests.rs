use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::*;
use crate::message::fields::OBSERVED_AT;
use crate::wire::{Format, from_json, json};

pub(in crate::wire) struct Field {
    pub(in crate::wire) name: String,
    of: String,
    tag: u32,
}

/// Returns the fields of a message of the printed file.
pub(in crate::wire) fn fields(message: &str) -> Vec<Field> {
    let begin = format!("message {message} {{");
    let message = Format::Protobuf.schema().split(&begin).nth(1).unwrap();
    let message = message.split("message ").next().unwrap().split('}').next().unwrap();
    let field = |line: &str| {
        let (declared, tag) = line.split("//").next()?.split(';').next()?.split_once('=')?;
        let mut words = declared.split_whitespace().rev();
        let (name, of) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Field { name, of, tag: tag.trim().parse().ok()? })
    };
    message.lines().filter_map(field).collect()
}

fn by_tag(mut bytes: &[u8]) -> BTreeMap<u32, Vec<Raw<'_>>> {
    let mut found: BTreeMap<u32, Vec<Raw<'_>>> = BTreeMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let raw = match key & 7 {
            0 => Raw::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (taken, rest) = bytes.split_at(length);
                bytes = rest;
                Raw::Bytes(taken)
            }
            other => panic!("wire type {other}"),
        };
        found.entry((key >> 3) as u32).or_default().push(raw);
    }
    found
}

#[derive(Debug, PartialEq)]
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("no varint")
}

#[test]
fn the_file_and_the_code_are_one() {
    let json = r#"{"schema":1,"agent":"a","epoch":"00000000000000ff","seq":2,"kind":"new","observed_at":"2026-01-01T00:00:00.000001Z",
        "boot_id":"b","monotonic_ms":3,"clock_synced":true,"breach_id":"c","started_at":"2026-01-01T00:00:01Z",
        "raised_at":"2026-01-01T00:00:02.5Z","ended_at":"2026-01-01T00:00:03Z","limit_name":"d","severity":"critical","interface":"e","ifindex":4,"direction":"tx","limit_bps":5,"rate_bps":6,"peak_bps":7,"mean_bps":8,
        "duration_ms":9,"measured_ms":10,"excess_bytes":11,"speed_bps":12,"lost_epoch":"f","ranges":[[13,14],[15,16]],
        "version":"g","reason":"h","detail":"i","rx_bytes":17,"tx_bytes":18,"rx_bps":19,"tx_bps":20,
        "links":[{"interface":"j","direction":"rx","bytes":21,"packets":22,"errors":23,"drops":24,"measured_s":25,"unmeasured_s":26,
        "min_bps":27,"mean_bps":28,"max_bps":29,"p50_bps":30,"p95_bps":31,"p99_bps":32,"speed_bps":33,"histogram":"AQID",
        "over":[{"limit_name":"k","limit_bps":34,"over_s":35}]}]}"#;
    let values: Value = serde_json::from_str(json).unwrap();
    let mut bytes = Vec::new();
    for (field, value) in json::decode(json.as_bytes()).unwrap().iter() {
        value.into_iter().for_each(|value| put(field, value, &mut bytes));
    }
    assert_eq!(bytes[0], FIRST_BYTE);
    is_sent("Event", &values, &bytes);
}

fn is_sent(message: &str, values: &Value, bytes: &[u8]) {
    let mut found = by_tag(bytes);
    let fields = fields(message);
    assert_eq!(fields.len(), values.as_object().unwrap().len(), "{message}");
    for Field { name, of, tag } in fields {
        let there = found.remove(&tag).unwrap_or_else(|| panic!("{name} is not sent"));
        let value = &values[&name];
        match (of.as_str(), there.as_slice()) {
            ("string", [Raw::Bytes(text)]) => assert_eq!(value.as_str().unwrap().as_bytes(), *text, "{name}"),
            ("uint32" | "uint64", [Raw::Number(number)]) => assert_eq!(value.as_u64().unwrap(), *number, "{name}"),
            ("bool", [Raw::Number(flag)]) => assert_eq!(u64::from(value.as_bool().unwrap()), *flag, "{name}"),
            ("bytes", [Raw::Bytes(bytes)]) => {
                assert_eq!(value.as_str().unwrap(), BASE64_STANDARD.encode(bytes), "{name}");
            }
            ("google.protobuf.Timestamp", [Raw::Bytes(time)]) => {
                let parts = by_tag(time);
                let time: DateTime<Utc> = value.as_str().unwrap().parse().unwrap();
                assert_eq!(parts[&1], [Raw::Number(time.timestamp() as u64)], "{name}");
                let nanos = parts.get(&2).map_or(0, |nanos| match nanos[0] {
                    Raw::Number(nanos) => nanos,
                    Raw::Bytes(_) => panic!("{name}"),
                });
                assert_eq!(nanos, u64::from(time.timestamp_subsec_nanos()), "{name}");
            }
            ("Range", ranges) => {
                for (range, numbers) in ranges.iter().zip([[13, 14], [15, 16]]) {
                    let Raw::Bytes(range) = range else { panic!("{name}: {range:?}") };
                    let read: Vec<_> = by_tag(range).into_values().flatten().collect();
                    assert_eq!(read, numbers.map(Raw::Number));
                }
                assert_eq!(ranges.len(), 2);
            }
            (item @ ("LinkRates" | "OverLimit"), [Raw::Bytes(bytes)]) => is_sent(item, &value[0], bytes),
            (of, there) => panic!("{name} is {of}, and there is {there:?}"),
        }
    }
    assert!(found.is_empty(), "{found:?} is in no file");
}

#[test]
fn times_before_1970_and_with_strange_parts_are_read_or_refused() {
    let time = |seconds, nanos| Timestamp { seconds, nanos }.utc().map(|time| time.to_rfc3339());
    assert_eq!(time(-1, 500_000_000).as_deref(), Some("1969-12-31T23:59:59.500+00:00"));
    assert_eq!((time(0, -1), time(i64::MAX, 0)), (None, None));
    let before = r#"{"schema":1,"agent":"a","epoch":"00000000000000ff","seq":2,"kind":"new","observed_at":"1969-12-31T23:59:59.5Z"}"#;
    let event = from_json(before.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    encode(&event, &mut bytes);
    assert_eq!(Event::read(decode(&bytes).unwrap()).unwrap(), event);
}

#[test]
fn nanoseconds_of_more_than_a_second_are_a_leap_seconds_or_no_time() {
    let utc = |seconds, nanos| Timestamp { seconds, nanos }.utc().map(|time| time.timestamp_nanos_opt().unwrap());
    assert_eq!(utc(59, 999_999_999), Some(59_999_999_999));
    assert_eq!(utc(59, 1_500_000_000), Some(60_500_000_000));
    assert_eq!(utc(7, 1_000_000_000), Some(8_000_000_000));
    for (seconds, nanos) in [(0, -1), (0, 2_000_000_000), (i64::MAX, 0), (i64::MAX, 1_000_000_000)] {
        assert_eq!(utc(seconds, nanos), None);
    }
}

#[test]
fn a_time_is_decoded_to_whole_microseconds_also_in_a_leap_second() {
    let event = r#"{"schema":1,"agent":"a","epoch":"00000000000000ff","seq":2,"kind":"new","observed_at":"1970-01-01T00:00:00Z"}"#;
    let mut bytes = Vec::new();
    encode(&from_json(event.as_bytes()).unwrap(), &mut bytes);
    // The last one of a field that comes twice counts.
    let time = Timestamp { seconds: 59, nanos: 1_500_000_999 };
    encoding::message::encode(OBSERVED_AT.index as u32 + 1, &time, &mut bytes);
    let decoded = Event::read(decode(&bytes).unwrap()).unwrap();
    assert_eq!(decoded.stamp.observed_at.timestamp_nanos_opt(), Some(60_500_000_000));
}
