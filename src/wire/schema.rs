//! The schemas of an event, printed from the list of its fields.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::json;

use crate::event::fields::{FIELDS, Field, FieldPresence, FieldType};

const DOC: &str = "Event that a Highwater agent observed. Names and meanings are the same in all formats.";
const RATES: &str = "Rates are in bits per second.";

pub(super) static JSON: LazyLock<String> = LazyLock::new(json_schema);
pub(super) static AVRO: LazyLock<String> = LazyLock::new(avro_schema);
pub(super) static PROTOBUF: LazyLock<String> = LazyLock::new(protobuf_file);

fn json_schema() -> String {
    let required = FIELDS.iter().filter(|field| field.presence == FieldPresence::Required);
    let required: Vec<String> = required.map(|field| format!("\"{}\"", field.name)).collect();
    let properties = FIELDS
        .iter()
        .map(|field| format!(r#"    "{}": {{{}, "description": {}}}"#, field.name, json_type(field), json!(field.doc)));
    format!(
        r#"{{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$id": "urn:highwater:event",
  "title": "Event",
  "description": "{DOC} A field that a kind of event does not have is left out. {RATES}",
  "type": "object",
  "required": [{}],
  "additionalProperties": true,
  "properties": {{
{}
  }}
}}
"#,
        required.join(", "),
        properties.collect::<Vec<_>>().join(",\n")
    )
}

fn json_type(field: &Field) -> String {
    // A required field counts from 1, or has a character at least.
    let least = u8::from(field.presence == FieldPresence::Required);
    match field.of {
        FieldType::Version | FieldType::UInt32 => format!(r#""type": "integer", "minimum": {least}"#),
        FieldType::UInt64 => format!(r#""type": "integer", "minimum": {least}, "maximum": {}"#, i64::MAX),
        FieldType::Text if least > 0 => format!(r#""type": "string", "minLength": {least}"#),
        FieldType::Text => r#""type": "string""#.to_owned(),
        FieldType::Epoch => r#""type": "string", "pattern": "^[0-9a-f]{16}$""#.to_owned(),
        FieldType::Word(words) => format!(r#""enum": {}"#, json!(words)),
        FieldType::Time => r#""type": "string", "format": "date-time""#.to_owned(),
        FieldType::Bool => r#""type": ["boolean", "null"]"#.to_owned(),
        FieldType::Ranges => {
            let range =
                r#"{"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}"#;
            format!(r#""type": "array", "items": {range}"#)
        }
    }
}

fn avro_schema() -> String {
    let fields: Vec<String> = FIELDS
        .iter()
        .map(|field| {
            let of = avro_type(field.of);
            let typed = match (field.presence, field.of) {
                (FieldPresence::Required, _) => format!(r#""type": {of}"#),
                (FieldPresence::Defaulted, FieldType::Text) => format!(r#""type": {of}, "default": """#),
                (FieldPresence::Defaulted, _) => format!(r#""type": {of}, "default": 0"#),
                (FieldPresence::Nullable | FieldPresence::Optional, _) => {
                    format!(r#""type": ["null", {of}], "default": null"#)
                }
            };
            format!(r#"    {{"name": "{}", {typed}, "doc": {}}}"#, field.name, json!(field.doc))
        })
        .collect();
    format!(
        r#"{{
  "type": "record",
  "name": "Event",
  "namespace": "io.highwater",
  "doc": "{DOC} A field that a kind of event does not have is null. {RATES}",
  "fields": [
{}
  ]
}}
"#,
        fields.join(",\n")
    )
}

fn avro_type(of: FieldType) -> &'static str {
    match of {
        FieldType::Version => r#""int""#,
        FieldType::UInt32 | FieldType::UInt64 => r#""long""#,
        FieldType::Text | FieldType::Epoch | FieldType::Word(_) => r#""string""#,
        FieldType::Time => r#"{"type": "long", "logicalType": "timestamp-micros"}"#,
        FieldType::Bool => r#""boolean""#,
        FieldType::Ranges => r#"{"type": "array", "items": {"type": "array", "items": "long"}}"#,
    }
}

fn protobuf_file() -> String {
    let mut fields = String::new();
    for field in &FIELDS {
        fields.push_str(&comment(field.doc, "  "));
        let (name, tag) = (field.name, field.index + 1);
        let of = match field.of {
            FieldType::Version | FieldType::UInt32 => "uint32",
            FieldType::UInt64 => "uint64",
            FieldType::Text | FieldType::Epoch | FieldType::Word(_) => "string",
            FieldType::Time => "google.protobuf.Timestamp",
            FieldType::Bool => "bool",
            FieldType::Ranges => "Range",
        };
        // A message always knows whether it is set.
        let label = match (field.of, field.presence) {
            (FieldType::Ranges, _) => "repeated ",
            (FieldType::Time, _) | (_, FieldPresence::Required | FieldPresence::Defaulted) => "",
            (_, FieldPresence::Nullable | FieldPresence::Optional) => "optional ",
        };
        writeln!(fields, "  {label}{of} {name} = {tag};").expect("writing to memory does not fail");
    }
    format!(
        r#"{}syntax = "proto3";

package io.highwater;

import "google/protobuf/timestamp.proto";

// It is the first message of this file: that is how a message in Confluent's wire format names it.
message Event {{
{fields}
  // Numbers of events, both ends included.
  message Range {{
    uint64 first = 1;
    uint64 last = 2;
  }}
}}
"#,
        comment(&format!("{DOC} A field that a kind of event does not have is not set. {RATES}"), "")
    )
}

fn comment(text: &str, indent: &str) -> String {
    let mut lines = vec![format!("{indent}//")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + word.len() >= 100) {
            lines.push(format!("{indent}//"));
        }
        lines.last_mut().into_iter().for_each(|line| *line += &format!(" {word}"));
    }
    lines.join("\n") + "\n"
}
