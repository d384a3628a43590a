//! Rows in PostgreSQL's binary COPY format (<https://www.postgresql.org/docs/current/sql-copy.html>), written by hand: no
//! allocation and no formatting for each value, since every row of every event goes this way.

use std::io::Write as _;

use chrono::{DateTime, Utc};

use crate::consumer::store::rows::{Row, Table};
use crate::event::{Body, Breach, Event, Lifecycle, Link, Loss, Reason};

/// In the order in which a row is written.
pub(super) const COLUMNS: [&str; 34] = [
    "agent",
    "epoch",
    "seq",
    "observed_at",
    "kind",
    "kafka_partition",
    "kafka_offset",
    "boot_id",
    "monotonic_ms",
    "clock_synced",
    "breach_id",
    "started_at",
    "raised_at",
    "ended_at",
    "limit_name",
    "severity",
    "interface",
    "ifindex",
    "direction",
    "limit_bps",
    "rate_bps",
    "peak_bps",
    "mean_bps",
    "duration_ms",
    "measured_ms",
    "excess_bytes",
    "speed_bps",
    "lost_epoch",
    "ranges",
    "version",
    "reason",
    "detail",
    "raw",
    "kafka_topic",
];

pub(super) const SAMPLE_COLUMNS: [&str; 14] = [
    "agent",
    "epoch",
    "seq",
    "observed_at",
    "kafka_partition",
    "kafka_offset",
    "interface",
    "duration_ms",
    "rx_bytes",
    "tx_bytes",
    "rx_bps",
    "tx_bps",
    "reason",
    "kafka_topic",
];

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const ROW_BYTES: usize = 400;
const END: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// 2000-01-01, PostgreSQL's epoch, in microseconds since 1970.
const ZERO_US: i64 = 946_684_800_000_000;

pub(super) fn statement(table: Table) -> String {
    let columns = match table {
        Table::Events => COLUMNS.join(", "),
        Table::Samples => SAMPLE_COLUMNS.join(", "),
    };
    format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", table.name())
}

pub(super) fn encode(table: Table, topic: &str, rows: &[&Row<'_>]) -> Vec<u8> {
    let columns = match table {
        Table::Events => COLUMNS.len(),
        Table::Samples => SAMPLE_COLUMNS.len(),
    };
    let mut buffer = Vec::with_capacity(HEADER.len() + rows.len() * ROW_BYTES);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        buffer.extend_from_slice(&(columns as i16).to_be_bytes());
        let mut fields = CopyFields(&mut buffer);
        match table {
            Table::Events => fields.event(row),
            Table::Samples => fields.sample(row),
        }
        fields.text(topic);
    }
    buffer.extend_from_slice(&END);
    buffer
}

struct CopyFields<'a>(&'a mut Vec<u8>);

impl CopyFields<'_> {
    fn identity(&mut self, Event { id, stamp, .. }: &Event) {
        self.text(&stamp.agent);
        self.sized(|buffer| write!(buffer, "{}", id.epoch).expect("a buffer takes all"));
        self.number(id.seq);
        self.time(stamp.observed_at);
    }

    fn place(&mut self, row: &Row<'_>) {
        self.bytes(&row.partition.to_be_bytes());
        self.bytes(&row.record.offset.to_be_bytes());
    }

    fn sample(&mut self, row: &Row<'_>) {
        let Body::Sample(sample) = &row.event.body else { return };
        self.identity(row.event);
        self.place(row);
        self.text(&sample.interface);
        for number in [sample.duration_ms, sample.rx_bytes, sample.tx_bytes, sample.rx_bps, sample.tx_bps] {
            self.maybe(number, Self::number);
        }
        self.maybe(sample.reason.as_ref().map(Reason::as_str), Self::text);
    }

    fn event(&mut self, row: &Row<'_>) {
        let Event { stamp, body, .. } = row.event;
        self.identity(row.event);
        self.text(body.kind());
        self.place(row);
        self.text(&stamp.boot_id);
        self.number(stamp.monotonic_ms);
        self.maybe(stamp.clock_synced, Self::truth);
        match body {
            Body::BreachRaised(breach) | Body::BreachUpdated(breach) | Body::BreachCleared(breach) => {
                self.breach(breach);
            }
            Body::Loss(loss) => self.loss(loss),
            Body::LinkAdded(link) | Body::LinkRemoved(link) | Body::LinkChanged(link) => self.link(link),
            Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) => self.lifecycle(lifecycle),
            // A sample has a table of its own.
            Body::Sample(_) | Body::Unknown(_) => self.nulls(20),
        }
        self.maybe(body.reason().map(Reason::as_str), Self::text);
        self.maybe(body.detail(), Self::text);
        self.maybe(row.record.raw.as_deref(), Self::text);
    }

    fn breach(&mut self, breach: &Breach) {
        self.text(&breach.breach_id);
        self.time(breach.started_at);
        self.time(breach.raised_at);
        self.time(breach.ended_at);
        self.text(&breach.limit_name);
        self.text(breach.severity.as_str());
        self.text(&breach.interface);
        self.maybe(breach.ifindex, |fields, index| fields.number(index.into()));
        self.text(breach.direction.as_str());
        for number in [
            breach.limit_bps,
            breach.rate_bps,
            breach.peak_bps,
            breach.mean_bps,
            breach.duration_ms,
            breach.measured_ms,
            breach.excess_bytes,
        ] {
            self.number(number);
        }
        self.nulls(4); // speed_bps, lost_epoch, ranges, version
    }

    fn loss(&mut self, loss: &Loss) {
        self.nulls(17); // breach_id to speed_bps
        self.sized(|buffer| write!(buffer, "{}", loss.epoch).expect("a buffer takes all"));
        self.sized(|buffer| {
            buffer.push(1); // the version of jsonb's binary form
            serde_json::to_writer(buffer, &loss.ranges).expect("a buffer takes all");
        });
        self.nulls(1); // version
    }

    fn link(&mut self, link: &Link) {
        self.nulls(6); // breach_id to severity
        self.text(&link.interface);
        self.number(link.ifindex.into());
        self.nulls(8); // direction to excess_bytes
        self.maybe(link.speed_bps, Self::number);
        self.nulls(3); // lost_epoch, ranges, version
    }

    fn lifecycle(&mut self, lifecycle: &Lifecycle) {
        self.nulls(19);
        self.text(&lifecycle.version);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes a whole number, which decoding has checked to be below 2^63.
    fn number(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    fn time(&mut self, time: DateTime<Utc>) {
        self.bytes(&(time.timestamp_micros() - ZERO_US).to_be_bytes());
    }

    fn truth(&mut self, truth: bool) {
        self.bytes(&[truth.into()]);
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.nulls(1),
        }
    }

    fn nulls(&mut self, count: usize) {
        for _ in 0..count {
            self.0.extend_from_slice(&NULL);
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
