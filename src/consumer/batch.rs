//! What was read from Kafka and is not yet stored: a batch, a part of it for each partition.
//!
//! A [`PartitionBatch`] speaks for *all* offsets from its `from` to its `to`: what is between them is in its records, or holds no
//! record (transaction markers, compaction), or is named as a gap. That is what lets a store move `next_offset` from one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use serde::Deserialize;

use crate::event::{Epoch, Event};
use crate::wire::{self, Decoded, Decoder, NoRegistry};

/// A batch is stored when it has this many records …
pub const RECORDS_MAX: usize = 5_000;
/// … or this many bytes: 4 MiB. One message may be larger than that and then is a batch alone.
pub const BYTES_MAX: usize = 4 << 20;
/// … or events of this many days: a transaction locks the table of each, and PostgreSQL has room for some thousand locks.
const DAYS_MAX: usize = 64;

/// A topic of a cluster: two clusters may have one of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId {
    /// The cluster's id, empty where it has none.
    pub cluster: String,
    /// The topic's name.
    pub name: String,
}

/// Records of one topic that go to the store together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The topic.
    pub topic: TopicId,
    /// What each partition gives.
    pub partitions: BTreeMap<i32, PartitionBatch>,
    records: usize,
    bytes: usize,
    days: BTreeSet<NaiveDate>,
}

/// A stretch of one partition.
#[derive(Debug, Default)]
pub struct PartitionBatch {
    /// How often this topic was made anew under its name, as far as the database knows.
    pub generation: i32,
    /// The first offset it speaks for.
    pub from: i64,
    /// The first offset it no longer speaks for.
    pub to: i64,
    /// Ascending by offset.
    pub records: Vec<Record>,
    /// Offsets that hold no record, first to last: harmless or a gap, which the low watermark tells.
    pub missing_offsets: Vec<(i64, i64)>,
    /// Offsets that held records which were never read.
    pub gaps: Vec<Gap>,
}

/// Offsets that were never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub first: i64,
    /// The last.
    pub last: i64,
    /// Why.
    pub cause: GapCause,
}

/// Why offsets were never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// Kafka's retention dropped them first.
    Expired,
    /// They stand in a batch that is larger than librdkafka takes (`receive.message.max.bytes`).
    TooLarge,
    /// Kafka had dropped them before this database first read the topic: no loss.
    ExpiredBeforeStart,
    /// `kafka.start = "latest"` passed them over: no loss.
    SkippedAtStart,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it stands in its partition.
    pub offset: i64,
    /// Milliseconds since 1970, by producer or broker.
    pub timestamp_ms: Option<i64>,
    /// Its headers.
    pub headers: Headers,
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// As it came; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// What it says, or why it says nothing.
    pub content: Result<Event, String>,
    /// All that it says, as JSON, where its kind is unknown.
    pub raw: Option<String>,
}

/// A message's headers in one piece: of each the length of its name (4 bytes, big-endian), its name, the length of its value
/// (-1: none), its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<u8>);

/// Whose event a message claims to be that could not be read as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimedIdentity {
    /// The agent.
    pub agent: Option<String>,
    /// The epoch and number within it.
    pub id: Option<(Epoch, i64)>,
}

/// Enough of a record to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Where it stands.
    pub offset: i64,
    /// Its timestamp in milliseconds, -1 for none.
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
    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::ExpiredBeforeStart => "expired_before_start",
            Self::SkippedAtStart => "skipped_at_start",
        }
    }
}

impl Batch {
    /// An empty one.
    pub fn new(topic: &TopicId) -> Self {
        Self { topic: topic.clone(), ..Self::default() }
    }

    /// Adds `record`. A partition's first record opens its part with `open()`: the generation, and the offset that the
    /// reading stands at. What was there already is passed over.
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

    /// Speaks for offsets from `from` to before `to` that hold no record, or none that can be read: then `gap` says why.
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

    /// Whether it is time to store it.
    pub fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX || self.bytes >= BYTES_MAX || self.days.len() >= DAYS_MAX
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }
}

impl PartitionBatch {
    /// The last record before `to`, to know it again.
    pub fn last_before(&self, to: i64) -> Option<Fingerprint> {
        let until = self.records.partition_point(|record| record.offset < to);
        self.records[..until].last().map(Record::fingerprint)
    }

    /// Takes as gaps those missing offsets that lie below `low`, the first offset that Kafka still has.
    pub fn judge_missing(&mut self, low: i64) {
        let expired = |(first, last): (i64, i64)| Gap { first, last: last.min(low - 1), cause: GapCause::Expired };
        self.gaps.extend(self.missing_offsets.drain(..).filter(|(first, _)| *first < low).map(expired));
    }
}

impl Headers {
    /// Packs headers, in their order.
    pub fn pack<'a>(headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        let mut packed = Vec::new();
        for (name, value) in headers {
            for bytes in [Some(name.as_bytes()), value] {
                let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                packed.extend_from_slice(&length.to_be_bytes());
                packed.extend_from_slice(bytes.unwrap_or_default());
            }
        }
        Self(packed)
    }

    /// What [`Headers::as_bytes`] gave.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As a database keeps them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Each header, in their order; what is damaged ends them.
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

    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name)?.1
    }
}

impl Record {
    /// A message without headers, read as far as that goes without a schema registry.
    pub fn new(offset: i64, timestamp_ms: Option<i64>, key: Option<&[u8]>, payload: Option<&[u8]>) -> Self {
        let decoded = Decoder::new(NoRegistry).decode(payload.unwrap_or_default(), None);
        let decoded = decoded.map_err(|error| error.to_string());
        Self::decoded(offset, timestamp_ms, (key, payload, Headers::default()), decoded)
    }

    /// A message, and what was read in it.
    pub fn decoded(
        offset: i64,
        timestamp_ms: Option<i64>,
        (key, payload, headers): (Option<&[u8]>, Option<&[u8]>, Headers),
        decoded: Result<Decoded, String>,
    ) -> Self {
        let (content, raw) = match decoded {
            Ok(Decoded { event, raw }) => (Ok(event), raw),
            Err(error) => (Err(error), None),
        };
        let (key, payload) = (key.map(<[u8]>::to_vec), payload.map(<[u8]>::to_vec));
        Self { offset, timestamp_ms, headers, key, payload, content, raw }
    }

    /// When it came, by producer or broker, where that is a time that every database can store: producers say what they like.
    pub fn timestamp(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.timestamp_ms?).filter(|time| wire::YEARS.contains(&time.year()))
    }

    /// Enough of it to know it again.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(self.offset, self.timestamp_ms, self.key.as_deref(), self.payload.as_deref())
    }

    /// Whose event it is, as far as payload, headers and key tell.
    pub fn claimed_identity(&self) -> ClaimedIdentity {
        /// The least of an event.
        #[derive(Deserialize)]
        struct Identity {
            agent: String,
            epoch: String,
            seq: i64,
        }
        if let Ok(event) = &self.content {
            // Decoded, and rejected by the database all the same: its name may be why.
            let agent = Some(event.stamp.agent.as_str()).filter(|agent| is_name(agent));
            let id = agent.map(|_| (event.id.epoch, event.id.seq.cast_signed()));
            return ClaimedIdentity { agent: agent.map(str::to_owned), id };
        }
        let read = serde_json::from_slice::<Identity>(self.payload.as_deref().unwrap_or_default()).ok();
        let header = |name| std::str::from_utf8(self.headers.get(name)?).ok();
        let of_headers = || {
            let agent = wire::agent_of_source(header("ce_source")?)?;
            let (epoch, seq) = header("ce_id")?.split_once('-')?;
            Some(Identity { agent, epoch: epoch.to_owned(), seq: seq.parse().ok()? })
        };
        match read.or_else(of_headers) {
            Some(Identity { agent, epoch, seq }) if is_name(&agent) => {
                let id = epoch.parse().ok().zip(Some(seq).filter(|seq| *seq > 0));
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
        self.key.as_ref().map_or(0, Vec::len) + self.payload.as_ref().map_or(0, Vec::len)
    }
}

/// Whether an agent can be called so.
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl Fingerprint {
    /// The fingerprint of a message.
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
    fn only_what_kafka_dropped_is_a_gap() {
        let missing_offsets = vec![(5, 6), (9, 10), (20, 29)];
        let judged = |low| {
            let mut part = PartitionBatch { missing_offsets: missing_offsets.clone(), ..PartitionBatch::default() };
            part.judge_missing(low);
            part.gaps
        };
        let expired = |first, last| Gap { first, last, cause: GapCause::Expired };
        assert_eq!(judged(5), []);
        assert_eq!(judged(10), [expired(5, 6), expired(9, 9)]);
        assert_eq!(judged(25), [expired(5, 6), expired(9, 10), expired(20, 24)]);
    }
}
