use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::*;
use crate::wire::Format;
use crate::wire::tests::events;

fn schema() -> &'static str {
    Format::Avro.schema()
}

fn theirs() -> apache_avro::Schema {
    apache_avro::Schema::parse_str(schema()).unwrap()
}

/// Returns the CRC-64-AVRO of the canonical form, as specified. Avro's own library leaves `{"type":"long"}` for a long with a
/// logical type, where the specification ([PRIMITIVES]) and other libraries have `"long"`.
fn fingerprint(schema: &str) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    let bit = |crc: u64| (crc >> 1) ^ if crc & 1 == 1 { EMPTY } else { 0 };
    let canonical =
        apache_avro::Schema::parse_str(schema).unwrap().canonical_form().replace(r#"{"type":"long"}"#, r#""long""#);
    canonical
        .bytes()
        .fold(EMPTY, |crc, byte| (crc >> 8) ^ (0..8).fold((crc ^ u64::from(byte)) & 0xff, |crc, _| bit(crc)))
}

#[test]
fn the_schema_is_understood_and_has_the_fingerprint_it_is_kept_under() {
    assert!(released(FINGERPRINT).is_some());
    assert_eq!(format!("{FINGERPRINT:016x}"), format!("{:016x}", fingerprint(schema())));
}

fn data() -> impl Strategy<Value = (Value, Avro)> {
    let leaf = prop_oneof![
        Just((json!("null"), Avro::Null)),
        any::<bool>().prop_map(|value| (json!("boolean"), Avro::Boolean(value))),
        any::<i32>().prop_map(|value| (json!("int"), Avro::Int(value))),
        any::<i64>().prop_map(|value| (json!("long"), Avro::Long(value))),
        (-1e9..1e9_f64).prop_map(|value| (json!("double"), Avro::Double(value))),
        any::<i16>().prop_map(|value| (json!("float"), Avro::Float(f32::from(value) / 4.0))),
        ".{0,9}".prop_map(|value| (json!("string"), Avro::String(value))),
        (0..2_u32).prop_map(|at| {
            let symbol = ["A", "B"][at as usize].to_owned();
            (json!({"type": "enum", "name": "E", "symbols": ["A", "B"]}), Avro::Enum(at, symbol))
        }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0..4_usize).prop_map(|((of, value), count)| (
                json!({"type": "array", "items": of}),
                Avro::Array(vec![value; count])
            )),
            (inner.clone(), proptest::collection::btree_set("[a-z]{1,4}", 0..3)).prop_map(|((of, value), keys)| {
                let entries = keys.into_iter().map(|key| (key, value.clone())).collect();
                (json!({"type": "map", "values": of}), Avro::Map(entries))
            }),
            (inner.clone(), any::<bool>()).prop_filter_map("a union in a union", |((of, value), there)| {
                let legal = !of.is_array() && of != "null";
                let value = if there { (1, value) } else { (0, Avro::Null) };
                legal.then(|| (json!(["null", of]), Avro::Union(value.0, Box::new(value.1))))
            }),
            proptest::collection::vec(inner, 0..4).prop_map(record),
        ]
    })
}

fn record(values: Vec<(Value, Avro)>) -> (Value, Avro) {
    let (types, values): (Vec<_>, Vec<_>) = values.into_iter().unzip();
    let fields = types.into_iter().enumerate().map(|(at, of)| json!({"name": format!("f{at}"), "type": of}));
    let schema = json!({"type": "record", "name": "R", "fields": fields.collect::<Vec<_>>()});
    (schema, Avro::Record(values.into_iter().enumerate().map(|(at, value)| (format!("f{at}"), value)).collect()))
}

/// Renames named types: a name may be defined once only, and the parts were generated independently.
fn with_names_of_its_own(schema: &mut Value, next: &mut u32) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("symbols") || object.contains_key("fields") {
                *next += 1;
                object.insert("name".into(), json!(format!("N{next}")));
            }
            object.values_mut().for_each(|value| with_names_of_its_own(value, next));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| with_names_of_its_own(value, next)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn avros_own_library_reads_what_is_written(event in events()) {
        let (schema, mut bytes) = (theirs(), Vec::new());
        encode(&event, &mut bytes);
        let read = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut bytes.as_slice()).unwrap();
        let mut read = Value::try_from(read).unwrap();
        let mut wanted: Value = serde_json::from_slice(&crate::wire::to_json(&event)).unwrap();
        for name in ["observed_at", "started_at", "raised_at", "ended_at"] {
            if let Some(time) = wanted.get_mut(name) {
                *time = time.as_str().unwrap().parse::<DateTime<Utc>>().unwrap().timestamp_micros().into();
            }
        }
        // What is left out in JSON is null in Avro.
        read.as_object_mut().unwrap().retain(|name, value| !value.is_null() || wanted.get(name).is_some());
        for link in read.get_mut("links").and_then(Value::as_array_mut).into_iter().flatten() {
            let link = link.as_object_mut().unwrap();
            link.retain(|_, value| !value.is_null());
            // Bytes are a list of numbers in one and base64 in the other.
            if let Some(histogram) = link.get_mut("histogram") {
                let bytes: Vec<u8> = serde_json::from_value(histogram.take()).unwrap();
                *histogram = BASE64_STANDARD.encode(bytes).into();
            }
        }
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn what_avros_own_library_writes_is_read_by_any_schema(values in proptest::collection::vec(data(), 0..5)) {
        let (mut schema, value) = record(values);
        with_names_of_its_own(&mut schema, &mut 0);
        let theirs = apache_avro::Schema::parse(&schema).unwrap();
        let bytes = GenericDatumWriter::builder(&theirs).build().unwrap().write_value_to_vec(value.clone()).unwrap();
        let ours = Schema::parse(&schema.to_string()).unwrap();
        prop_assert_eq!(ours.read::<Value>(&bytes).unwrap(), Value::try_from(value).unwrap());
        ours.read::<IgnoredAny>(&bytes).unwrap();
        for cut in 0..bytes.len() {
            prop_assert!(ours.read::<Value>(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn no_bytes_panic_by_any_schema(values in proptest::collection::vec(data(), 0..5), bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
        let ours = Schema::parse(&record(values).0.to_string()).unwrap();
        let _ = ours.read::<Value>(&bytes);
    }

    #[test]
    fn no_schema_panics(text in ".{0,99}", at in any::<prop::sample::Index>()) {
        let _ = Schema::parse(&text);
        let mut damaged = schema().to_owned();
        let at = at.index(damaged.len());
        if damaged.is_char_boundary(at) {
            damaged.insert_str(at, &text);
        }
        let _ = Schema::parse(&damaged);
    }
}

fn field(of: &str) -> Schema {
    let text = format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "f", "type": {of}}}]}}"#);
    Schema::parse(&text).unwrap()
}

fn long(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    AvroWriter(&mut bytes).long(value);
    bytes
}

#[test]
fn lengths_are_not_believed() {
    let array = |items: &str| format!(r#"{{"type": "array", "items": {items}}}"#);
    let map = r#"{"type": "map", "values": "null"}"#;
    let thousand_nulls: Vec<String> = (0..1_000).map(|at| format!(r#"{{"name": "n{at}", "type": "null"}}"#)).collect();
    let empty = format!(r#"{{"type": "record", "name": "N", "fields": [{}]}}"#, thousand_nulls.join(","));
    for (of, bytes, says) in [
        (r#""string""#, long(i64::MAX), "bytes too early"),
        (r#""bytes""#, long(1 << 40), "bytes too early"),
        (r#""string""#, long(-1), "a length of -1"),
        (r#""long""#, vec![0xff; 11], "more than 10 bytes"),
        (r#"{"type": "fixed", "name": "F", "size": 9999999999}"#, vec![], "bytes too early"),
        (r#"["null", "long"]"#, long(2), "number 2 of 2 choices"),
        (r#"["null", "long"]"#, long(-1), "number -1 of 2 choices"),
        (&array(r#""null""#), long(i64::MAX), "more values than bytes"),
        (&array(r#""null""#), [long(i64::MIN), long(0)].concat(), "more values than bytes"),
        (&array(r#""long""#), long(i64::MAX), "too early"),
        (&array(&empty), [long(1_000_000), vec![0; 99]].concat(), "more values than bytes"),
        (map, long(i64::MAX), "too early"),
        (r#""string""#, [long(2), vec![0xff, 0xfe]].concat(), "utf-8"),
        (r#""boolean""#, vec![2], "2 where true or false should be"),
        (r#"{"type": "long", "logicalType": "timestamp-micros"}"#, long(i64::MAX), "is no time"),
    ] {
        let error = field(of).read::<Value>(&bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{of}: {error}");
    }
}

#[test]
fn blocks_may_come_in_pieces_and_with_their_sizes() {
    let schema = field(r#"{"type": "array", "items": "long"}"#);
    let pieces = [long(2), long(1), long(2), long(-1), long(1), long(3), long(0)].concat();
    assert_eq!(schema.read::<Value>(&pieces).unwrap(), json!({"f": [1, 2, 3]}));
}

#[test]
fn a_schema_that_is_none_or_holds_itself_is_refused() {
    let deep = format!("{}\"null\"{}", r#"{"type": "array", "items": "#.repeat(40), "}".repeat(40));
    let record = |of: &str| format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "f", "type": {of}}}]}}"#);
    for (text, says) in [
        ("{", "is no JSON"),
        (r#""string""#, "is no record"),
        ("7", "has `7` where a type should be"),
        (r#"{"name": "R"}"#, "without `type`"),
        (&record(r#"["null", "R"]"#), "names a type `R` that it does not define before, or that holds itself"),
        (&record(r#""Unknown""#), "`Unknown`"),
        (&record(&deep), "is nested deeper than 32 types"),
        (&record(r#"{"type": "fixed", "name": "F"}"#), "without `size`"),
        (r#"{"type": "record", "name": "R", "fields": [{"name": "f"}]}"#, "a field without `type`"),
    ] {
        let error = Schema::parse(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn names_are_found_in_their_namespaces() {
    let schema = Schema::parse(
        r#"{"type": "record", "name": "a.b.R", "fields": [
            {"name": "one", "type": {"type": "enum", "name": "E", "symbols": ["X"]}},
            {"name": "two", "type": "E"},
            {"name": "three", "type": "a.b.E"},
            {"name": "four", "type": {"type": "fixed", "name": "F", "namespace": "c", "size": 1}},
            {"name": "five", "type": "c.F"}]}"#,
    );
    let value: Value = schema.unwrap().read(&[0, 0, 0, 7, 8]).unwrap();
    assert_eq!(value, json!({"one": "X", "two": "X", "three": "X", "four": "Bw==", "five": "CA=="}));
}
