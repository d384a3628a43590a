//! Records in a small file beside the journal how far that had come, which distinguishes a damaged journal from a sound one.
//!
//! SQLite takes an unreadable log frame for the log's end, and an empty file for a new database: both open without an error, lack
//! events, and would reuse numbers. Each transaction that registers events is therefore counted, in the database and here. A
//! database that counts fewer lost some; this file also records which events were pending, so that exactly those are declared.
//!
//! The file is written in place and never synced: after a power cut it may be older than the database, never newer than a synced
//! commit. Only a count above that in the database's table `meta` shows damage; without a mark, the database is trusted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use log::warn;
use serde::{Deserialize, Serialize};

use super::files::open_private;
use super::loss::{Ranges, subtract};
use crate::message::{Epoch, EpochError, EventId};
use crate::process::failpoints;

/// Sectors are written as a whole, or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    /// Pending numbers are at least `first` and below `next`.
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) events: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<(String, Span)>", try_from = "Vec<(String, Span)>")]
pub(super) struct PendingRanges(BTreeMap<Epoch, Span>);

impl PendingRanges {
    pub(super) fn add(&mut self, id: EventId) {
        let span = self.0.entry(id.epoch).or_insert(Span { first: id.seq, next: id.seq, events: 0 });
        span.first = span.first.min(id.seq);
        span.next = span.next.max(id.seq.saturating_add(1));
        span.events += 1;
    }

    pub(super) fn take(&mut self, id: EventId) {
        if let Some(span) = self.0.get_mut(&id.epoch) {
            span.events = span.events.saturating_sub(1);
            if span.events == 0 {
                self.0.remove(&id.epoch);
            }
        }
    }

    pub(super) fn begin_at(&mut self, id: EventId) {
        if let Some(span) = self.0.get_mut(&id.epoch) {
            span.first = id.seq;
        }
    }

    pub(super) fn extend_to(&mut self, epoch: Epoch, next: u64) {
        let span = self.0.entry(epoch).or_insert(Span { first: next, next, events: 0 });
        span.next = span.next.max(next);
    }

    /// Includes the range that a pending `loss` event declares: if that event is lost, the range has to be declared again.
    pub(super) fn include(&mut self, epoch: Epoch, (first, last): (u64, u64)) {
        self.extend_to(epoch, last.saturating_add(1));
        self.0.entry(epoch).and_modify(|span| span.first = span.first.min(first));
    }

    pub(super) fn end_at(&mut self, EventId { epoch, seq: next }: EventId) {
        if let Some(span) = self.0.get_mut(&epoch) {
            span.next = span.next.min(next);
        }
    }

    pub(super) fn subtract(&self, known: impl IntoIterator<Item = (Epoch, (u64, u64))>) -> BTreeMap<Epoch, Ranges> {
        let mut by_epoch: BTreeMap<Epoch, Ranges> = BTreeMap::new();
        for (epoch, range) in known {
            by_epoch.entry(epoch).or_default().push(range);
        }
        let spans = self.0.iter().filter(|(_, span)| span.first < span.next);
        let rest = spans.map(|(&epoch, span)| {
            let known = by_epoch.remove(&epoch).unwrap_or_default();
            (epoch, subtract(&[(span.first, span.next - 1)], known))
        });
        rest.filter(|(_, ranges)| !ranges.is_empty()).collect()
    }

    pub(super) fn first(&self, epoch: Epoch) -> Option<u64> {
        self.0.get(&epoch).map(|span| span.first)
    }

    pub(super) fn events(&self) -> u64 {
        self.0.values().map(|span| span.events).fold(0, u64::saturating_add)
    }

    pub(super) fn has(&self, epoch: Epoch) -> bool {
        self.0.get(&epoch).is_some_and(|span| span.events > 0)
    }

    pub(super) fn holds_as_many_as(&self, other: &Self) -> bool {
        let events = |spans: &Self| -> Vec<(Epoch, u64)> {
            spans.0.iter().filter(|(_, span)| span.events > 0).map(|(epoch, span)| (*epoch, span.events)).collect()
        };
        events(self) == events(other)
    }
}

impl From<PendingRanges> for Vec<(String, Span)> {
    fn from(PendingRanges(spans): PendingRanges) -> Self {
        spans.into_iter().map(|(epoch, span)| (epoch.to_string(), span)).collect()
    }
}

impl TryFrom<Vec<(String, Span)>> for PendingRanges {
    type Error = EpochError;

    fn try_from(spans: Vec<(String, Span)>) -> Result<Self, EpochError> {
        spans.into_iter().map(|(epoch, span)| Ok((epoch.parse()?, span))).collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) commits: u64,
    pub(super) pending: PendingRanges,
}

#[derive(Debug)]
pub(super) struct MarkFile {
    path: PathBuf,
    file: Option<File>,
    refused: bool,
}

impl MarkFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, refused: false }
    }

    pub(super) fn read(&self) -> Option<Mark> {
        if failpoints::is_disabled("journal-mark") {
            return None;
        }
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!("{}: {error}; so the journal cannot be verified", self.path.display());
                return None;
            }
        };
        let mark = parse(&bytes);
        if mark.is_none() {
            warn!("{} is damaged, so the journal cannot be verified", self.path.display());
        }
        mark
    }

    /// Writes the mark, ignoring errors: an old mark is safe.
    pub(super) fn write(&mut self, mark: &Mark) {
        let done = self.try_write(&render(mark));
        if let Err(error) = &done {
            self.file = None;
            if !self.refused {
                warn!("{}: {error}; so a damaged journal might not be noticed", self.path.display());
            }
        }
        self.refused = done.is_err();
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(open_private(&self.path)?);
        }
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(bytes, 0))
    }
}

/// Formats the checksum of the rest and the JSON as one line, with blanks up to the sector's end, which overwrite what was there.
fn render(mark: &Mark) -> Vec<u8> {
    let json = serde_json::to_string(mark).unwrap_or_default();
    let mut line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes();
    line.resize(line.len().next_multiple_of(SECTOR), b' ');
    line
}

fn parse(bytes: &[u8]) -> Option<Mark> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let (crc, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(json.as_bytes())) {
        return None;
    }
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(epochs: u64, first: u64) -> Mark {
        let span = |epoch| (Epoch(epoch), Span { first, next: first + 9, events: 7 });
        Mark { commits: first, pending: PendingRanges((0..epochs).map(span).collect()) }
    }

    #[test]
    fn a_longer_mark_leaves_nothing_of_itself_in_a_shorter_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = MarkFile::new(directory.path().join("mark"));
        assert_eq!(file.read(), None);
        for mark in [mark(1, 3), mark(40, u64::MAX - 9), mark(0, 0), mark(9, 5)] {
            file.write(&mark);
            assert_eq!(file.read(), Some(mark));
        }
    }

    #[test]
    fn spans_follow_what_is_pending() {
        let id = |epoch, seq| EventId { epoch: Epoch(epoch), seq };
        let mut spans = PendingRanges::default();
        for id in [id(1, 4), id(1, 5), id(2, 1), id(1, 6)] {
            spans.add(id);
        }
        spans.take(id(1, 4));
        spans.begin_at(id(1, 5));
        let without = |spans: &PendingRanges, known: &[(Epoch, (u64, u64))]| {
            Vec::from_iter(spans.subtract(known.iter().copied()))
        };
        assert_eq!(without(&spans, &[(Epoch(1), (6, 6))]), [(Epoch(1), vec![(5, 5)]), (Epoch(2), vec![(1, 1)])]);
        spans.take(id(2, 1));
        spans.extend_to(Epoch(1), 9);
        assert_eq!(without(&spans, &[]), [(Epoch(1), vec![(5, 8)])]);
        spans.extend_to(Epoch(1), u64::MAX);
        let known = [(Epoch(1), (7, 9)), (Epoch(1), (1, 2)), (Epoch(1), (8, 8)), (Epoch(3), (1, 1))];
        assert_eq!(without(&spans, &known), [(Epoch(1), vec![(5, 6), (10, u64::MAX - 1)])]);
        spans.end_at(id(1, 7));
        assert_eq!(without(&spans, &known), [(Epoch(1), vec![(5, 6)])]);
    }

    proptest! {
        #[test]
        fn no_damaged_mark_is_believed(at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<prop::sample::Index>()) {
            let whole = render(&mark(3, 17));
            let line = whole.iter().position(|byte| *byte == b'\n').unwrap();
            let mut bytes = whole.clone();
            bytes[at.index(line)] ^= flip;
            // Hexadecimal digits are parsed in either case.
            prop_assert!(parse(&bytes).is_none_or(|read| read == mark(3, 17) && flip == 0x20));
            prop_assert!(parse(&whole[..cut.index(line - 1)]).is_none());
        }
    }
}
