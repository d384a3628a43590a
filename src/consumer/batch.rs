//! Records read from Kafka and not yet stored, by partition. A [`PartitionBatch`] covers *every* offset from `from` to before `to`,
//! so that a store can move `next_offset` on: the offset has a record, has none (transaction markers, compaction), or is in a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use serde::Deserialize;

use crate::message::{Epoch, Event, SEQ_MAX};
use crate::wire::{self, Decoded, Decoder, NoRegistry};

pub const RECORDS_MAX: usize = 8_000;
/// The last message may take a batch beyond this.
pub const BYTES_MAX: usize = 4 << 20;
/// A transaction locks the partition of each day, and PostgreSQL has some thousand locks.
const DAYS_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId {
    /// Empty for a cluster that has no id.
    pub cluster: String,
    pub name: String,
}

#[derive(Debug, Default)]
pub struct Batch {
    pub topic: TopicId,
    pub partitions: BTreeMap<i32, PartitionBatch>,
    records: usize,
    bytes: usize,
    days: BTreeSet<NaiveDate>,
}

#[derive(Debug, Default)]
pub struct PartitionBatch {
    pub generation: i32,
    pub from: i64,
    pub to: i64,
    pub records: Vec<Record>,
    /// Holes, first to last offset: a gap if Kafka's low watermark is above them, else harmless.
    pub missing_offsets: Vec<(i64, i64)>,
    pub gaps: Vec<Gap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first: i64,
    pub last: i64,
    pub cause: GapCause,
}

/// Causes of gaps. The last two are no loss: offsets before the first read, gone by Kafka's retention or `kafka.start = "latest"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    Expired,
    /// librdkafka cannot unpack its batch: larger than `receive.message.max.bytes`, or damaged.
    Unreadable,
    ExpiredBeforeStart,
    SkippedAtStart,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub headers: PackedHeaders,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub content: Result<Event, String>,
    pub raw: Option<String>,
}

/// Packed headers: for each the length of its name (4 bytes, big-endian), its name, the length of its value (-1: none), its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedHeaders(Vec<u8>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimedIdentity {
    pub agent: Option<String>,
    pub id: Option<(Epoch, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub offset: i64,
    /// Milliseconds since 1970; -1 for none.
    pub timestamp_ms: i64,
    /// FNV-1a of key and payload.
    pub digest: i64,
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl GapCause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unreadable => "unreadable",
            Self::ExpiredBeforeStart => "expired_before_start",
            Self::SkippedAtStart => "skipped_at_start",
        }
    }
}

impl Batch {
    pub fn new(topic: &TopicId) -> Self {
        Self { topic: topic.clone(), ..Self::default() }
    }

    /// Adds `record`, unless its offset is covered. A partition's first one calls `open` for the generation and the first offset.
    pub fn push(&mut self, partition: i32, record: Record, open: impl FnOnce() -> (i32, i64)) {
        let part = self.partitions.entry(partition).or_insert_with(|| {
            let (generation, from) = open();
            PartitionBatch { generation, from, to: from, ..PartitionBatch::default() }
        });
        if record.offset < part.to {
            return;
        }
        if record.offset > part.to {
            part.missing_offsets.push((part.to, record.offset - 1));
        }
        part.to = record.offset + 1;
        self.records += 1;
        self.bytes += record.len();
        self.days.extend(record.content.as_ref().ok().map(|event| event.stamp.observed_at.date_naive()));
        part.records.push(record);
    }

    /// Covers offsets from `from` to before `to`, which hold no record or, with a `gap`, none that can be read.
    pub fn skip_to(&mut self, partition: i32, generation: i32, from: i64, to: i64, gap: Option<Gap>) {
        let part = self.partitions.entry(partition).or_insert(PartitionBatch {
            generation,
            from,
            to: from,
            ..PartitionBatch::default()
        });
        part.to = part.to.max(to);
        part.gaps.extend(gap);
    }

    pub fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX || self.bytes >= BYTES_MAX || self.days.len() >= DAYS_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }
}

impl PartitionBatch {
    pub fn last_before(&self, to: i64) -> Option<Fingerprint> {
        let until = self.records.partition_point(|record| record.offset < to);
        self.records[..until].last().map(Record::fingerprint)
    }

    pub fn record_expired(&mut self, low: i64) {
        let expired = |(first, last): (i64, i64)| Gap { first, last: last.min(low - 1), cause: GapCause::Expired };
        self.gaps.extend(self.missing_offsets.drain(..).filter(|(first, _)| *first < low).map(expired));
    }
}

impl PackedHeaders {
    pub fn pack<'a>(headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        let mut packed = Vec::with_capacity(256);
        for (name, value) in headers {
            for bytes in [Some(name.as_bytes()), value] {
                let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                packed.extend_from_slice(&length.to_be_bytes());
                packed.extend_from_slice(bytes.unwrap_or_default());
            }
        }
        Self(packed)
    }

    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let mut rest = &self.0[..];
        let mut take = move || -> Option<Option<&[u8]>> {
            let (length, after) = rest.split_at_checked(4)?;
            let length = i32::from_be_bytes(length.try_into().ok()?);
            let (bytes, after) = after.split_at_checked(usize::try_from(length).unwrap_or(0))?;
            rest = after;
            Some((length >= 0).then_some(bytes))
        };
        std::iter::from_fn(move || Some((std::str::from_utf8(take()??).ok()?, take()?)))
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name)?.1
    }
}

impl Record {
    pub fn new(offset: i64, timestamp_ms: Option<i64>, key: Option<&[u8]>, payload: Option<&[u8]>) -> Self {
        let decoded = Decoder::new(NoRegistry).decode(payload.unwrap_or_default(), || None);
        let decoded = decoded.map_err(|error| error.to_string());
        Self::decoded(offset, timestamp_ms, (key, payload, PackedHeaders::default()), decoded)
    }

    pub fn decoded(
        offset: i64,
        timestamp_ms: Option<i64>,
        (key, payload, headers): (Option<&[u8]>, Option<&[u8]>, PackedHeaders),
        decoded: Result<Decoded, String>,
    ) -> Self {
        let (content, raw) = match decoded {
            Ok(Decoded { event, raw }) => (Ok(event), raw),
            Err(error) => (Err(error), None),
        };
        let (key, payload) = (key.map(<[u8]>::to_vec), payload.map(<[u8]>::to_vec));
        Self { offset, timestamp_ms, headers, key, payload, content, raw }
    }

    pub fn timestamp(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.timestamp_ms?).filter(|time| wire::YEARS.contains(&time.year()))
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(self.offset, self.timestamp_ms, self.key.as_deref(), self.payload.as_deref())
    }

    pub fn claimed_identity(&self) -> ClaimedIdentity {
        #[derive(Deserialize)]
        struct EventIdentity {
            agent: String,
            epoch: String,
            seq: i64,
        }
        if let Ok(event) = &self.content {
            // Decoded, but rejected by the database, perhaps because of its name.
            let agent = Some(event.stamp.agent.as_str()).filter(|agent| is_name(agent));
            let id = agent.map(|_| (event.id.epoch, event.id.seq.cast_signed()));
            return ClaimedIdentity { agent: agent.map(str::to_owned), id };
        }
        let read = serde_json::from_slice::<EventIdentity>(self.payload.as_deref().unwrap_or_default()).ok();
        let header = |name| std::str::from_utf8(self.headers.get(name)?).ok();
        let of_headers = || {
            let agent = wire::agent_of_source(header("ce_source")?)?;
            let (epoch, seq) = header("ce_id").and_then(|id| id.split_once('-')).unwrap_or_default();
            Some(EventIdentity { agent, epoch: epoch.to_owned(), seq: seq.parse().unwrap_or_default() })
        };
        match read.or_else(of_headers) {
            Some(EventIdentity { agent, epoch, seq }) if is_name(&agent) => {
                let id = epoch.parse().ok().zip(Some(seq).filter(|seq| (1..=SEQ_MAX.cast_signed()).contains(seq)));
                ClaimedIdentity { agent: Some(agent), id }
            }
            _ => {
                let key = self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                let agent = key.filter(|key| is_name(key) && DateTime::parse_from_rfc3339(key).is_err());
                ClaimedIdentity { agent: agent.map(str::to_owned), id: None }
            }
        }
    }

    fn len(&self) -> usize {
        [&self.key, &self.payload].into_iter().flatten().map(Vec::len).sum::<usize>() + self.headers.as_bytes().len()
    }
}

fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl Fingerprint {
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
    fn a_part_speaks_for_all_offsets_between_its_ends() {
        let mut batch = Batch::new(&TopicId { cluster: String::new(), name: "t".into() });
        for offset in [7, 8, 8, 5, 11] {
            batch.push(0, record(offset), || (0, 5));
        }
        let part = &batch.partitions[&0];
        assert_eq!((part.from, part.to), (5, 12));
        assert_eq!(part.missing_offsets, [(5, 6), (9, 10)]);
        assert_eq!(part.records.iter().map(|r| r.offset).collect::<Vec<_>>(), [7, 8, 11]);
    }

    #[test]
    fn headers_fill_a_batch_too() {
        let mut batch = Batch::new(&TopicId { cluster: String::new(), name: "t".into() });
        let text = "x".repeat(100_000);
        let mut offset = 0;
        while !batch.is_full() {
            let headers = PackedHeaders::pack([("about", Some(text.as_bytes()))]);
            let parts = (None, Some(&b"x"[..]), headers);
            batch.push(0, Record::decoded(offset, None, parts, Err("x".into())), || (0, 0));
            offset += 1;
        }
        assert!(offset < 50, "{offset}");
    }

    #[test]
    fn an_agent_is_known_by_its_headers_also_where_they_do_not_tell_the_event() {
        let epoch = "0123456789abcdef";
        let claimed = |headers: &[(&str, &str)], key: Option<&[u8]>| {
            let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
            let parts = (key, Some(&b"{"[..]), PackedHeaders::pack(headers));
            let ClaimedIdentity { agent, id } = Record::decoded(0, None, parts, Err("x".into())).claimed_identity();
            (agent, id.map(|(_, seq)| seq))
        };
        let (source, gw) = (("ce_source", "/highwater/gw"), Some("gw".to_owned()));
        assert_eq!(claimed(&[source, ("ce_id", &format!("{epoch}-7"))], Some(b"other")), (gw.clone(), Some(7)));
        for id in ["7", "x-7", "0123-0", ""] {
            assert_eq!(claimed(&[source, ("ce_id", id)], Some(b"other")), (gw.clone(), None), "{id}");
        }
        assert_eq!(claimed(&[source], None), (gw.clone(), None));
        assert_eq!(claimed(&[("ce_source", "/elsewhere/gw")], Some(b"gw")), (gw, None));
        assert_eq!(claimed(&[], None), (None, None));
    }

    #[test]
    fn only_what_kafka_dropped_is_a_gap() {
        let missing_offsets = vec![(5, 6), (9, 10), (20, 29)];
        let judged = |low| {
            let mut part = PartitionBatch { missing_offsets: missing_offsets.clone(), ..PartitionBatch::default() };
            part.record_expired(low);
            part.gaps
        };
        let expired = |first, last| Gap { first, last, cause: GapCause::Expired };
        assert_eq!(judged(5), []);
        assert_eq!(judged(10), [expired(5, 6), expired(9, 9)]);
        assert_eq!(judged(25), [expired(5, 6), expired(9, 10), expired(20, 24)]);
    }
}
