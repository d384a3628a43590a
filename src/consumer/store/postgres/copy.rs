//! PostgreSQL's binary COPY format (<https://www.postgresql.org/docs/current/sql-copy.html>), without allocations.

use std::io::{self, Write};

use serde::Serialize;

use super::columns::breach_columns;
use crate::consumer::store::rows::{LatestBreach, Row};
use crate::consumer::store::tables::{self, Table};
use crate::message::LinkRates;
use crate::message::fields::FieldValue;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const PIECE_BYTES: usize = 64 << 10;
const END: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// 2000-01-01 in microseconds since 1970.
const ZERO_US: i64 = 946_684_800_000_000;

pub(super) fn statement(table: Table) -> String {
    copy_from(table.name(), &table.columns())
}

pub(super) fn breaches_statement() -> String {
    copy_from("breach_state", &breach_columns().iter().map(|(name, _)| *name).collect::<Vec<_>>())
}

fn copy_from(table: &str, columns: &[&str]) -> String {
    format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", "))
}

pub(super) fn write_rows(out: &mut impl Write, table: Table, topic: &str, rows: &[&Row<'_>]) -> io::Result<()> {
    write_all(out, table.columns().len(), rows, |fields, row| {
        row.event.visit_all(|field, value| {
            if table.has(field) {
                fields.maybe(value, |fields, value| fields.value(&value));
            }
        });
        fields.text(topic);
        fields.bytes(&row.partition.to_be_bytes());
        fields.bytes(&row.record.offset.to_be_bytes());
        if table.has_raw() {
            fields.maybe(row.record.raw.as_deref(), CopyFields::text);
        }
    })
}

pub(super) fn write_links(
    out: &mut impl Write,
    table: Table,
    topic: &str,
    links: &[(&Row<'_>, &LinkRates)],
) -> io::Result<()> {
    write_all(out, table.columns().len(), links, |fields, (row, link)| {
        tables::visit_link(table, row.event, link, |value| {
            fields.maybe(value, |fields, value| fields.value(&value));
        });
        if table == Table::Rates {
            fields.text(topic);
            fields.bytes(&row.partition.to_be_bytes());
            fields.bytes(&row.record.offset.to_be_bytes());
            fields.bytes(&[row.has_histogram(link).into()]);
        }
    })
}

pub(super) fn write_breaches(out: &mut impl Write, breaches: &[LatestBreach<'_>]) -> io::Result<()> {
    write_all(out, breach_columns().len(), breaches, |fields, latest| {
        latest.event.visit_all(|field, value| {
            if tables::is_of_breach_state(field) {
                fields.maybe(value, |fields, value| fields.value(&value));
            }
        });
        fields.text(latest.state());
        fields.bytes(&latest.counted_bytes.to_be_bytes());
    })
}

/// Writes in pieces: the server stores one while the next is made.
fn write_all<R>(
    out: &mut impl Write,
    columns: usize,
    rows: &[R],
    mut write: impl FnMut(&mut CopyFields<'_>, &R),
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(PIECE_BYTES * 2);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        buffer.extend_from_slice(&(columns as i16).to_be_bytes());
        write(&mut CopyFields(&mut buffer), row);
        if buffer.len() >= PIECE_BYTES {
            out.write_all(&buffer)?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&END);
    out.write_all(&buffer)
}

struct CopyFields<'a>(&'a mut Vec<u8>);

impl CopyFields<'_> {
    fn value(&mut self, value: &FieldValue<'_>) {
        match value {
            FieldValue::Text(text) => self.text(text),
            FieldValue::Epoch(epoch) => self.text(&epoch.digits()),
            // Decoding has checked that it is below 2^63.
            FieldValue::Number(number) => self.bytes(&number.to_be_bytes()),
            FieldValue::Time(time) => self.bytes(&(time.timestamp_micros() - ZERO_US).to_be_bytes()),
            FieldValue::Bool(truth) => self.bytes(&[(*truth).into()]),
            FieldValue::Ranges(ranges) => self.json(ranges),
            FieldValue::OverLimits(over) => self.json(over),
            FieldValue::Bytes(bytes) => self.bytes(bytes),
            FieldValue::Links(_) => unreachable!("links are rows"),
        }
    }

    fn json(&mut self, value: &impl Serialize) {
        self.sized(|buffer| {
            buffer.push(1); // the version of jsonb's binary form
            serde_json::to_writer(buffer, value).expect("a buffer takes all");
        });
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.0.extend_from_slice(&NULL),
        }
    }

    fn sized(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&NULL);
        write(self.0);
        let length = (self.0.len() - start - NULL.len()) as i32;
        self.0[start..start + NULL.len()].copy_from_slice(&length.to_be_bytes());
    }
}
