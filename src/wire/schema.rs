//! Schemas of events as text (.avsc, .proto, JSON Schema), from the list of fields.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::json;

use crate::message::fields::{FIELDS, Field, FieldPresence, FieldType, ItemType};

const DOC: &str = "Event that a Highwater agent observed. Names and meanings are the same in all formats.";
const RATES: &str = "Rates are in bits per second.";

pub(super) static JSON: LazyLock<String> = LazyLock::new(json_schema);
pub(super) static AVRO: LazyLock<String> = LazyLock::new(avro_schema);
pub(super) static PROTOBUF: LazyLock<String> = LazyLock::new(protobuf_file);

fn json_schema() -> String {
    format!(
        r#"{{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$id": "urn:highwater:event",
  "title": "Event",
  "description": "{DOC} A field that a kind of event does not have is left out. {RATES}",
  {}
}}
"#,
        json_object(&FIELDS, "  ")
    )
}

fn json_object(fields: &[Field], indent: &str) -> String {
    let required = fields.iter().filter(|field| field.presence == FieldPresence::Required);
    let required: Vec<String> = required.map(|field| format!("\"{}\"", field.name)).collect();
    let properties = fields.iter().map(|field| {
        let kind = json_type(field, &format!("{indent}  "));
        format!("{indent}  \"{}\": {{{kind}, \"description\": {}}}", field.name, json!(field.doc))
    });
    let properties = properties.collect::<Vec<_>>().join(",\n");
    let required = required.join(", ");
    format!(
        "\"type\": \"object\",\n{indent}\"required\": [{required}],\n{indent}\"additionalProperties\": true,\n\
         {indent}\"properties\": {{\n{properties}\n{indent}}}"
    )
}

fn json_type(field: &Field, indent: &str) -> String {
    // A required field counts from 1, or has a character at least.
    let least = u8::from(field.presence == FieldPresence::Required);
    match field.field_type {
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
        FieldType::Bytes => r#""type": "string", "contentEncoding": "base64""#.to_owned(),
        FieldType::Links | FieldType::OverLimits => {
            let ItemType { doc, fields, .. } = items(field.field_type);
            let inner = format!("{indent}  ");
            let object = json_object(fields, &inner);
            format!(
                "\"type\": \"array\", \"items\": {{\n{inner}\"description\": {},\n{inner}{object}\n{indent}}}",
                json!(doc)
            )
        }
    }
}

fn items(field_type: FieldType) -> ItemType {
    field_type.items().expect("a list of items has their type")
}

fn avro_schema() -> String {
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
        avro_fields(&FIELDS, "    ")
    )
}

fn avro_fields(fields: &[Field], indent: &str) -> String {
    let field = |field: &Field| {
        let kind = avro_type(field.field_type, indent);
        let typed = match (field.presence, field.field_type) {
            (FieldPresence::Required, _) => format!(r#""type": {kind}"#),
            (FieldPresence::Defaulted, FieldType::Text) => format!(r#""type": {kind}, "default": """#),
            (FieldPresence::Defaulted, FieldType::OverLimits) => format!(r#""type": {kind}, "default": []"#),
            (FieldPresence::Defaulted, _) => format!(r#""type": {kind}, "default": 0"#),
            (FieldPresence::Nullable | FieldPresence::Optional, _) => {
                format!(r#""type": ["null", {kind}], "default": null"#)
            }
        };
        format!(r#"{indent}{{"name": "{}", {typed}, "doc": {}}}"#, field.name, json!(field.doc))
    };
    fields.iter().map(field).collect::<Vec<_>>().join(",\n")
}

fn avro_type(field_type: FieldType, indent: &str) -> String {
    match field_type {
        FieldType::Version => r#""int""#.to_owned(),
        FieldType::UInt32 | FieldType::UInt64 => r#""long""#.to_owned(),
        FieldType::Text | FieldType::Epoch | FieldType::Word(_) => r#""string""#.to_owned(),
        FieldType::Time => r#"{"type": "long", "logicalType": "timestamp-micros"}"#.to_owned(),
        FieldType::Bool => r#""boolean""#.to_owned(),
        FieldType::Ranges => r#"{"type": "array", "items": {"type": "array", "items": "long"}}"#.to_owned(),
        FieldType::Bytes => r#""bytes""#.to_owned(),
        FieldType::Links | FieldType::OverLimits => {
            let ItemType { name, doc, fields } = items(field_type);
            let fields = avro_fields(fields, &format!("{indent}  "));
            let record = format!(r#"{{"type": "record", "name": "{name}", "doc": {}, "fields": ["#, json!(doc));
            format!(r#"{{"type": "array", "items": {record}{}{fields}{}{indent}]}}}}"#, '\n', '\n')
        }
    }
}

fn protobuf_file() -> String {
    format!(
        r#"{}syntax = "proto3";

package io.highwater;

import "google/protobuf/timestamp.proto";

// It is the first message of this file: that is how a message in Confluent's wire format names it.
message Event {{
{}
  // Numbers of events, both ends included.
  message Range {{
    uint64 first = 1;
    uint64 last = 2;
  }}
{}}}
"#,
        comment(&format!("{DOC} A field that a kind of event does not have is not set. {RATES}"), ""),
        protobuf_fields(&FIELDS, "  "),
        protobuf_items(&FIELDS)
    )
}

fn protobuf_fields(fields: &[Field], indent: &str) -> String {
    let mut text = String::new();
    for field in fields {
        text.push_str(&comment(field.doc, indent));
        let (name, tag) = (field.name, field.index + 1);
        let kind = match field.field_type {
            FieldType::Version | FieldType::UInt32 => "uint32",
            FieldType::UInt64 => "uint64",
            FieldType::Text | FieldType::Epoch | FieldType::Word(_) => "string",
            FieldType::Time => "google.protobuf.Timestamp",
            FieldType::Bool => "bool",
            FieldType::Ranges => "Range",
            FieldType::Bytes => "bytes",
            FieldType::Links | FieldType::OverLimits => items(field.field_type).name,
        };
        // A message always knows whether it is set.
        let label = match (field.field_type, field.presence) {
            (FieldType::Ranges | FieldType::Links | FieldType::OverLimits, _) => "repeated ",
            (FieldType::Time, _) | (_, FieldPresence::Required | FieldPresence::Defaulted) => "",
            (_, FieldPresence::Nullable | FieldPresence::Optional) => "optional ",
        };
        writeln!(text, "{indent}{label}{kind} {name} = {tag};").expect("writing to memory does not fail");
    }
    text
}

fn protobuf_items(fields: &[Field]) -> String {
    let mut text = String::new();
    for ItemType { name, doc, fields } in fields.iter().filter_map(|field| field.field_type.items()) {
        let (doc, of_fields) = (comment(doc, "  "), protobuf_fields(fields, "    "));
        write!(text, "\n{doc}  message {name} {{\n{of_fields}  }}\n").expect("writing to memory does not fail");
        text.push_str(&protobuf_items(fields));
    }
    text
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
