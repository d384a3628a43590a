//! What was read from Kafka and is not yet stored: a batch of slices, one a partition.
//!
//! A slice speaks for *all* offsets from its `from` to its `to`: what is between them is in its records, or holds no record
//! (transaction markers, compaction), or is named as a gap. That is what lets a store move `next` from one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use chrono::{Datelike as _, NaiveDate};

use crate::event::Event;
use crate::wire::{Decoded, Decoder, NoRegistry};

/// A batch is stored when it has this many records …
pub const RECORDS_MAX: usize = 5_000;
/// … or this many bytes: 4 MiB. One message may be larger than that and then is a batch alone.
pub const BYTES_MAX: usize = 4 << 20;
/// … or events of this many days: a transaction locks the partition of each, and PostgreSQL has room for some thousand locks.
const DAYS_MAX: usize = 64;
/// What has a name in four digits, and a place in every database.
const YEARS: RangeInclusive<i32> = 1..=9999;

/// Records of one topic that go to the store in one transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// The topic.
    pub topic: String,
    /// What each partition gives.
    pub slices: BTreeMap<i32, Slice>,
    records: usize,
    bytes: usize,
    days: BTreeSet<NaiveDate>,
}

/// A stretch of one partition.
#[derive(Debug, Default)]
pub struct Slice {
    /// How often this topic was made anew under its name, as far as the database knows.
    pub generation: i32,
    /// The first offset it speaks for.
    pub from: i64,
    /// The first offset it no longer speaks for.
    pub to: i64,
    /// Ascending by offset.
    pub records: Vec<Record>,
    /// Offsets that hold no record, first to last: harmless or a gap, which the low watermark tells.
    pub holes: Vec<(i64, i64)>,
    /// Holes that held records once: Kafka's retention was faster than we.
    pub gaps: Vec<(i64, i64)>,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it stands in its partition.
    pub offset: i64,
    /// Milliseconds since 1970, by producer or broker.
    pub timestamp_ms: Option<i64>,
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// As it came; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// What it says, or why it says nothing.
    pub content: Result<Event, String>,
    /// All that it says, as JSON, where its kind is unknown.
    pub raw: Option<String>,
}

/// Enough of a record to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where it stands.
    pub offset: i64,
    /// Its timestamp in milliseconds, -1 for none.
    pub timestamp_ms: i64,
    /// FNV-1a of key and payload.
    pub digest: i64,
}

impl Batch {
    /// An empty one.
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), ..Self::default() }
    }

    /// Adds `record`. A partition's first record opens its slice with `open()`: the generation, and the offset that the
    /// reading stands at. What was there already is passed over.
    pub fn push(&mut self, partition: i32, record: Record, open: impl FnOnce() -> (i32, i64)) {
        let slice = self.slices.entry(partition).or_insert_with(|| {
            let (generation, from) = open();
            Slice { generation, from, to: from, ..Slice::default() }
        });
        if record.offset < slice.to {
            return;
        }
        if record.offset > slice.to {
            slice.holes.push((slice.to, record.offset - 1));
        }
        slice.to = record.offset + 1;
        self.records += 1;
        self.bytes += record.len();
        self.days.extend(record.content.as_ref().ok().map(|event| event.stamp.observed_at.date_naive()));
        slice.records.push(record);
    }

    /// Speaks for offsets that were passed and hold no record.
    pub fn pass(&mut self, partition: i32, generation: i32, from: i64, to: i64) {
        self.slices.entry(partition).or_insert(Slice { generation, from, to, ..Slice::default() });
    }

    /// Whether it is time to store it.
    pub fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX || self.bytes >= BYTES_MAX || self.days.len() >= DAYS_MAX
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }
}

impl Slice {
    /// The last record, to know it again.
    pub fn last(&self) -> Option<Mark> {
        self.records.last().map(Record::mark)
    }

    /// Takes as gaps those holes that lie below `low`, the first offset that Kafka still has.
    pub fn judge_holes(&mut self, low: i64) {
        self.gaps.extend(
            self.holes.drain(..).filter(|(first, _)| *first < low).map(|(first, last)| (first, last.min(low - 1))),
        );
    }
}

impl Record {
    /// A message, read as far as that goes without a schema registry.
    pub fn new(offset: i64, timestamp_ms: Option<i64>, key: Option<&[u8]>, payload: Option<&[u8]>) -> Self {
        let decoded = Decoder::new(NoRegistry).decode(payload.unwrap_or_default(), None);
        Self::decoded(offset, timestamp_ms, key, payload, decoded.map_err(|error| error.to_string()))
    }

    /// A message, and what was read in it.
    pub fn decoded(
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        decoded: Result<Decoded, String>,
    ) -> Self {
        let (content, raw) = match decoded.and_then(storable) {
            Ok(Decoded { event, raw }) => (Ok(event), raw),
            Err(error) => (Err(error), None),
        };
        let (key, payload) = (key.map(<[u8]>::to_vec), payload.map(<[u8]>::to_vec));
        Self { offset, timestamp_ms, key, payload, content, raw }
    }

    /// Enough of it to know it again.
    pub fn mark(&self) -> Mark {
        Mark::new(self.offset, self.timestamp_ms, self.key.as_deref(), self.payload.as_deref())
    }

    fn len(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.payload.as_ref().map_or(0, Vec::len)
    }
}

/// Refuses times that are none to a database.
fn storable(decoded: Decoded) -> Result<Decoded, String> {
    let Decoded { event, .. } = &decoded;
    let of_breach = event.body.breach().map(|breach| {
        [("started_at", breach.started_at), ("raised_at", breach.raised_at), ("ended_at", breach.ended_at)]
    });
    for (name, time) in [("observed_at", event.stamp.observed_at)].into_iter().chain(of_breach.into_iter().flatten()) {
        if !YEARS.contains(&time.year()) {
            return Err(format!("field `{name}`: the year {} is not one of 1 to 9999", time.year()));
        }
    }
    Ok(decoded)
}

impl Mark {
    /// The mark of a message.
    pub fn new(offset: i64, timestamp_ms: Option<i64>, key: Option<&[u8]>, payload: Option<&[u8]>) -> Self {
        let bytes = key.unwrap_or_default().iter().chain(payload.unwrap_or_default());
        let digest = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { offset, timestamp_ms: timestamp_ms.unwrap_or(-1), digest: digest.cast_signed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Record {
        Record::new(offset, None, None, Some(b"x"))
    }

    #[test]
    fn a_slice_speaks_for_all_offsets_between_its_ends() {
        let mut batch = Batch::new("t");
        for offset in [7, 8, 8, 5, 11] {
            batch.push(0, record(offset), || (0, 5));
        }
        let slice = &batch.slices[&0];
        assert_eq!((slice.from, slice.to), (5, 12));
        assert_eq!(slice.holes, [(5, 6), (9, 10)]);
        assert_eq!(slice.records.iter().map(|r| r.offset).collect::<Vec<_>>(), [7, 8, 11]);
    }

    #[test]
    fn only_what_kafka_dropped_is_a_gap() {
        let holes = vec![(5, 6), (9, 10), (20, 29)];
        let judged = |low| {
            let mut slice = Slice { holes: holes.clone(), ..Slice::default() };
            slice.judge_holes(low);
            slice.gaps
        };
        assert_eq!(judged(5), []);
        assert_eq!(judged(10), [(5, 6), (9, 9)]);
        assert_eq!(judged(25), [(5, 6), (9, 10), (20, 24)]);
    }
}
