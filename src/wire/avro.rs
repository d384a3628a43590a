//! The event in Avro. It is encoded by hand, in the order of `event.avsc`, so that an agent needs no Avro library. It is decoded by
//! the schema it was written with, field by field and by name, so that older and newer schemas are read alike.

#[cfg(feature = "consumer")]
mod datum;
#[cfg(feature = "consumer")]
mod schema;

#[cfg(feature = "consumer")]
use std::sync::OnceLock;

use chrono::{DateTime, Utc};

#[cfg(feature = "consumer")]
pub(super) use self::datum::Error;
#[cfg(feature = "consumer")]
pub(super) use self::schema::Schema;
use super::flat::Flat;

pub(super) const SCHEMA: &str = include_str!("event.avsc");

/// CRC-64-AVRO of the schema's parsing canonical form.
pub(super) const FINGERPRINT: u64 = 0xf3d2_05c6_6fa1_2606;

/// Start of Avro's single-object encoding; the fingerprint follows, little-endian.
pub(super) const MARKER: [u8; 2] = [0xc3, 0x01];

/// Returns the released schema with this fingerprint; so far there is one. When `event.avsc` changes after a release, its former
/// text stays here, because a consumer reads what older agents write.
#[cfg(feature = "consumer")]
pub(super) fn released(fingerprint: u64) -> Option<&'static Schema> {
    static PARSED: OnceLock<Schema> = OnceLock::new();
    (fingerprint == FINGERPRINT).then(|| PARSED.get_or_init(|| Schema::parse(SCHEMA).expect("a test reads it")))
}

pub(super) fn encode_single_object(flat: &Flat<'_>, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&MARKER);
    bytes.extend_from_slice(&FINGERPRINT.to_le_bytes());
    encode(flat, bytes);
}

/// Appends the event to `bytes`: the fields in the order of the schema.
pub(super) fn encode(flat: &Flat<'_>, bytes: &mut Vec<u8>) {
    let mut out = AvroWriter(bytes);
    out.long(i64::from(flat.schema));
    out.text(&flat.agent);
    out.text(&flat.epoch);
    out.number(flat.seq);
    out.text(&flat.kind);
    out.time(flat.observed_at);
    out.text(&flat.boot_id);
    out.number(flat.monotonic_ms);
    out.maybe(flat.clock_synced, |out, synced| out.0.push(u8::from(synced)));
    out.maybe(flat.breach_id.as_deref(), AvroWriter::text);
    out.maybe(flat.started_at, AvroWriter::time);
    out.maybe(flat.raised_at, AvroWriter::time);
    out.maybe(flat.ended_at, AvroWriter::time);
    out.maybe(flat.limit_name.as_deref(), AvroWriter::text);
    out.maybe(flat.severity, |out, severity| out.text(severity.as_str()));
    out.maybe(flat.interface.as_deref(), AvroWriter::text);
    out.maybe(flat.ifindex.map(u64::from), AvroWriter::number);
    out.maybe(flat.direction, |out, direction| out.text(direction.as_str()));
    out.maybe(flat.limit_bps, AvroWriter::number);
    out.maybe(flat.rate_bps, AvroWriter::number);
    out.maybe(flat.peak_bps, AvroWriter::number);
    out.maybe(flat.mean_bps, AvroWriter::number);
    out.maybe(flat.duration_ms, AvroWriter::number);
    out.maybe(flat.measured_ms, AvroWriter::number);
    out.maybe(flat.excess_bytes, AvroWriter::number);
    out.maybe(flat.speed_bps, AvroWriter::number);
    out.maybe(flat.rx_bytes, AvroWriter::number);
    out.maybe(flat.tx_bytes, AvroWriter::number);
    out.maybe(flat.rx_bps, AvroWriter::number);
    out.maybe(flat.tx_bps, AvroWriter::number);
    out.maybe(flat.lost_epoch.as_deref(), AvroWriter::text);
    out.maybe(flat.ranges.as_deref(), |out, ranges| {
        out.array(ranges, |out, (first, last)| out.array(&[*first, *last], |out, seq| out.number(*seq)));
    });
    out.maybe(flat.version.as_deref(), AvroWriter::text);
    out.maybe(flat.reason.as_deref(), AvroWriter::text);
    out.maybe(flat.detail.as_deref(), AvroWriter::text);
}

struct AvroWriter<'a>(&'a mut Vec<u8>);

impl AvroWriter<'_> {
    /// Writes zigzag, then seven bits a byte, the lowest first.
    fn long(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    /// Writes a number of an event, which is below 2^63.
    fn number(&mut self, value: u64) {
        self.long(value.cast_signed());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn time(&mut self, time: DateTime<Utc>) {
        self.long(time.timestamp_micros());
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.long(0),
            Some(value) => {
                self.long(1);
                write(self, value);
            }
        }
    }

    /// Writes one block, and the end.
    fn array<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        if !items.is_empty() {
            self.number(items.len() as u64);
            items.iter().for_each(|item| write(self, item));
        }
        self.long(0);
    }
}

// These tests read what was written: they need the decoder too.
#[cfg(all(test, feature = "consumer"))]
mod tests;
