use std::borrow::Cow;

use chrono::{DateTime, Utc};
use postgres::Row;
use postgres::types::ToSql;

use crate::consumer::store::tables;
use crate::message::fields::{Field, FieldType, FieldValue};

pub(super) fn column_type(field: &Field) -> &'static str {
    match field.field_type {
        FieldType::Text | FieldType::Epoch | FieldType::Word(_) => "text",
        FieldType::Version | FieldType::UInt32 | FieldType::UInt64 => "bigint",
        FieldType::Time => "timestamptz",
        FieldType::Bool => "boolean",
        FieldType::Ranges | FieldType::Links | FieldType::OverLimits => "jsonb",
        FieldType::Bytes => "bytea",
    }
}

pub(super) fn breach_columns() -> Vec<(&'static str, &'static str)> {
    let own = [("state", "text"), ("counted_bytes", "bigint")];
    tables::breach_state_fields().map(|field| (field.name, column_type(field))).chain(own).collect()
}

/// Returns one parameter of a statement that unnests arrays.
pub(super) fn column<'r, R, V>(rows: &'r [R], value: impl Fn(&'r R) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

/// Returns the index of the parameters' row that a result is about, from its ordinality.
pub(super) fn index(row: &Row) -> usize {
    usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX)
}

pub(super) enum ColumnArray<'w> {
    Texts(Vec<Option<Cow<'w, str>>>),
    Numbers(Vec<Option<i64>>),
    Times(Vec<Option<DateTime<Utc>>>),
}

impl<'w> ColumnArray<'w> {
    pub(super) fn of(field: &Field) -> Self {
        match field.field_type {
            FieldType::UInt64 => Self::Numbers(Vec::new()),
            FieldType::Time => Self::Times(Vec::new()),
            _ => Self::Texts(Vec::new()),
        }
    }

    pub(super) fn push(&mut self, value: Option<FieldValue<'w>>) {
        match self {
            Self::Texts(column) => column.push(match value {
                Some(FieldValue::Text(text)) => Some(text),
                Some(FieldValue::Epoch(epoch)) => Some(epoch.to_string().into()),
                _ => None,
            }),
            Self::Numbers(column) => column.push(match value {
                Some(FieldValue::Number(number)) => Some(number.cast_signed()),
                _ => None,
            }),
            Self::Times(column) => column.push(match value {
                Some(FieldValue::Time(time)) => Some(time),
                _ => None,
            }),
        }
    }

    pub(super) fn parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Texts(column) => column,
            Self::Numbers(column) => column,
            Self::Times(column) => column,
        }
    }
}
