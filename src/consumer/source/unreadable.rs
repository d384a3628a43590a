//! Batches that librdkafka does not unpack: larger than `receive.message.max.bytes` when unpacked, or damaged. It fetches them
//! again and again, and reports the first offset, but neither partition nor end. A separate client finds both, while the others go
//! on: it reads each partition from its position, and at the same error looks for the end by offsets whose distance doubles and
//! then halves. Behind a damaged batch, librdkafka goes on at a wrong offset: the offsets of all partitions are assigned again.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::{ASK_MAX, list};
use crate::kafka::{Connection, Reports};
use crate::process::clock::{Clock as _, SystemClock};

const RECEIVE_MAX: (&str, &str) = ("receive.message.max.bytes", "100000000");
const REPEATED_MAX: u32 = 3;
const ERRORS_MAX: usize = 1_000;
/// Longest look at an offset, which fetches and unpacks the whole batch.
const LOOK_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Unreadable {
    pub(in crate::consumer) partition: i32,
    /// Offset from which the partition was read; no record is between it and `first`.
    pub(in crate::consumer) position: i64,
    pub(in crate::consumer) first: i64,
    pub(in crate::consumer) end: i64,
}

/// Failures by error: batches of several partitions are met in turns.
#[derive(Debug, Default)]
pub(super) struct Repetitions(BTreeMap<String, u32>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeResult {
    Readable,
    /// First offset of the batch, if librdkafka reported it.
    Unreadable(Option<i64>),
}

impl Unreadable {
    pub(super) fn description(&self, topic: &str, connection: &Connection) -> String {
        let (Self { partition, first, end, .. }, (name, default)) = (self, RECEIVE_MAX);
        let max = connection.property(name).unwrap_or(default);
        format!(
            "{topic}[{partition}]: offsets {first} to {} are skipped: their batch cannot be unpacked, because it is larger than \
             {name} = {max} allows, or damaged. To read such batches, raise {name} in [kafka.properties]",
            end - 1
        )
    }
}

impl Repetitions {
    /// Returns true, and starts again, once an error has come often enough.
    pub(super) fn is_permanent(&mut self, error: &str) -> bool {
        if self.0.len() >= ERRORS_MAX && !self.0.contains_key(error) {
            self.0.clear();
        }
        let count = self.0.entry(error.to_owned()).or_default();
        *count += 1;
        let is_permanent = *count >= REPEATED_MAX;
        if is_permanent {
            self.0.clear();
        }
        is_permanent
    }
}

pub(super) fn is_unreadable(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{BadCompression, MessageSizeTooLarge};
    loses_position(error) || matches!(error.rdkafka_error_code(), Some(BadCompression | MessageSizeTooLarge))
}

pub(super) fn loses_position(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::NotImplemented))
}

/// Finds the unreadable batches at `positions`; a partition for which this cannot be decided is left out.
pub(super) fn find(client: &BaseConsumer<Reports>, topic: &str, positions: &BTreeMap<i32, i64>) -> Vec<Unreadable> {
    let found = positions.iter().filter_map(|(&partition, &position)| {
        let (_, high) = client.fetch_watermarks(topic, partition, ASK_MAX).ok()?;
        let (first, end) = search(position, high, |offset| probe(client, topic, partition, offset))?;
        Some(Unreadable { partition, position, first, end })
    });
    found.collect()
}

/// Finds the unread part of a batch at `position`: its first offset, and the one after its last, at most `high`.
fn search(position: i64, high: i64, mut probe: impl FnMut(i64) -> Option<ProbeResult>) -> Option<(i64, i64)> {
    if position >= high {
        return None;
    }
    let ProbeResult::Unreadable(base) = probe(position)? else { return None };
    // Other unreadable batches have another first offset.
    let mut is_within = |offset: i64| Some(probe(offset)? == ProbeResult::Unreadable(base));
    let first = base.map_or(position, |base| base.max(position));
    let (mut within, mut step) = (first, 1);
    let mut beyond = loop {
        let offset = within.saturating_add(step);
        if offset >= high {
            break high;
        }
        if !is_within(offset)? {
            break offset;
        }
        (within, step) = (offset, step * 2);
    };
    while beyond - within > 1 {
        let middle = within + (beyond - within) / 2;
        if is_within(middle)? { within = middle } else { beyond = middle }
    }
    Some((first, beyond))
}

fn probe(client: &BaseConsumer<Reports>, topic: &str, partition: i32, offset: i64) -> Option<ProbeResult> {
    client.assign(&list(topic, &BTreeMap::from([(partition, offset)])).ok()?).ok()?;
    let clock = SystemClock::default();
    let until = clock.monotonic() + LOOK_MAX;
    while clock.monotonic() < until {
        match client.poll(Duration::from_millis(100)) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Some(ProbeResult::Readable),
            Some(Err(error)) if is_unreadable(&error) => {
                let error = client.context().take_error();
                return Some(ProbeResult::Unreadable(error.as_deref().and_then(first_offset)));
            }
            Some(Err(_)) | None => {}
        }
    }
    None
}

/// Parses `Decompression (codec 0x4) of message at 7 of …`, `Message at offset 7 might …` or `MessageSet at offset 7 (94 …`.
fn first_offset(error: &str) -> Option<i64> {
    let (_, rest) = error.split_once("essage at ").or_else(|| error.split_once("MessageSet at "))?;
    rest.trim_start_matches("offset ").split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_comes_three_times_is_enough() {
        let mut repetitions = Repetitions::default();
        let outs = ["a", "b", "a", "b", "a", "b", "b", "b"].map(|error| repetitions.is_permanent(error));
        assert_eq!(outs, [false, false, false, false, true, false, false, true]);
    }

    #[test]
    fn a_batch_is_known_by_its_first_offset() {
        let decompression = "BadCompression (Local: Invalid compressed data): Decompression (codec 0x4) of message at 70 of 26132 \
                             bytes failed: Local: Invalid compressed data";
        assert_eq!(first_offset(decompression), Some(70));
        let size = "Message at offset 7 might be too large to fetch, try increasing receive.message.max.bytes";
        assert_eq!(first_offset(size), Some(7));
        let damaged = "BadMessage (Local: Bad message format): MessageSet at offset 1 (94 bytes) failed CRC32C check";
        assert_eq!(first_offset(damaged), Some(1));
        assert_eq!(first_offset("Local: Invalid compressed data"), None);
    }

    proptest::proptest! {
        #[test]
        fn the_end_of_a_batch_is_found_in_few_looks(
            base in 0..1_000_i64, size in 1..100_000_i64, into in proptest::prelude::any::<proptest::sample::Index>(),
            after in 0..50_000_i64, next_is_unreadable: bool, named: bool
        ) {
            let (end, high) = (base + size, base + size + after);
            let position = base + into.index(size as usize) as i64;
            let mut looks = 0;
            let found = search(position, high, |offset| {
                looks += 1;
                Some(match offset {
                    offset if offset < end => ProbeResult::Unreadable(named.then_some(base)),
                    _ if next_is_unreadable && named => ProbeResult::Unreadable(Some(end)),
                    _ => ProbeResult::Readable,
                })
            });
            proptest::prop_assert_eq!(found, Some((position, end)));
            proptest::prop_assert!(looks <= 40, "{} looks", looks);
        }
    }

    #[test]
    fn what_can_be_read_or_not_be_told_is_left_alone() {
        assert_eq!(search(7, 100, |_| Some(ProbeResult::Readable)), None);
        assert_eq!(search(7, 100, |_| None), None);
        assert_eq!(search(7, 7, |_| Some(ProbeResult::Unreadable(Some(7)))), None);
        // Offsets before the batch hold no record.
        assert_eq!(
            search(3, 20, |offset| Some(if offset < 12 {
                ProbeResult::Unreadable(Some(7))
            } else {
                ProbeResult::Readable
            })),
            Some((7, 12))
        );
    }
}
