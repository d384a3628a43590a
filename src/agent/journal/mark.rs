//! How far the journal had come, in a small file beside it: what tells a damaged journal from a sound one.
//!
//! SQLite believes a log whose tail is unreadable to end there, and an empty file to be a new database: both open without an
//! error, know less than was registered, and would give numbers anew. So each transaction that registers events is counted, in
//! the database and here. A database that counts fewer than this file lost some; what was pending stands here too, so that
//! exactly that is declared.
//!
//! The file is written in place and never synced: after a power cut it may be behind, which proves nothing, but not ahead of a
//! commit that was synced before. When it can't be written or read, the database is taken at its word.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use log::warn;
use serde::{Deserialize, Serialize};

use crate::event::{Epoch, EventId};
use crate::failpoints;

/// The file is a multiple of it: a sector is written whole, or not at all.
const SECTOR: usize = 512;

/// Where the pending events of an epoch lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    /// None is pending below this number.
    pub(super) first: u64,
    /// Nor from this number on.
    pub(super) next: u64,
    /// So many are.
    pub(super) events: u64,
}

/// Pending events by epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(BTreeMap<Epoch, Span>);

impl Spans {
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

    /// Of its epoch, this is the first that is left.
    pub(super) fn begin_at(&mut self, id: EventId) {
        if let Some(span) = self.0.get_mut(&id.epoch) {
            span.first = id.seq;
        }
    }

    /// Nothing of `epoch` was given a number from `next` on; what is below is left open where it was not known.
    pub(super) fn reach(&mut self, epoch: Epoch, next: u64) {
        let span = self.0.entry(epoch).or_insert(Span { first: next, next, events: 0 });
        span.next = span.next.max(next);
    }

    /// All that lies in them, but for `known`.
    pub(super) fn without(&self, known: impl IntoIterator<Item = EventId>) -> Vec<EventId> {
        let mut known: Vec<EventId> = known.into_iter().collect();
        known.sort_unstable();
        let all =
            self.0.iter().flat_map(|(&epoch, span)| (span.first..span.next).map(move |seq| EventId { epoch, seq }));
        all.filter(|id| known.binary_search(id).is_err()).collect()
    }

    /// How many events these know of that `found` does not have.
    fn missing_in(&self, found: &Self) -> u64 {
        let events = |epoch| found.0.get(epoch).map_or(0, |span| span.events);
        self.0.iter().map(|(epoch, span)| span.events.saturating_sub(events(epoch))).sum()
    }
}

/// How far a journal had come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// So many synced transactions.
    pub(super) commits: u64,
    pub(super) pending: Spans,
}

impl Mark {
    /// Why a journal that is at `found` can't be the one that was here; nothing where it can.
    pub(super) fn contradicts(&self, found: &Self) -> Option<String> {
        let missing = self.pending.missing_in(&found.pending);
        match self.commits.checked_sub(found.commits) {
            Some(0) if missing > 0 => Some(format!("{missing} events are missing")),
            None | Some(0) => None,
            Some(lost) => Some(format!("its last {lost} transactions are missing")),
        }
    }
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
struct Written {
    commits: u64,
    pending: Vec<(String, Span)>,
}

/// The file.
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

    /// What stands there; nothing where there is no file, or none that can be believed.
    pub(super) fn read(&self) -> Option<Mark> {
        if failpoints::is_out("journal-mark") {
            return None;
        }
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!("{}: {error}; so the journal is taken at its word", self.path.display());
                return None;
            }
        };
        let mark = parse(&bytes);
        if mark.is_none() {
            warn!("{} is damaged, so the journal is taken at its word", self.path.display());
        }
        mark
    }

    /// Best effort: an old mark is a safe one.
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
            self.file = Some(File::options().create(true).truncate(false).write(true).open(&self.path)?);
        }
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(bytes, 0))
    }
}

/// A line: the checksum of what follows it, and that. Blanks fill the sector, and cover what stood there before.
fn render(mark: &Mark) -> Vec<u8> {
    let pending = mark.pending.0.iter().map(|(epoch, span)| (epoch.to_string(), *span)).collect();
    let json = serde_json::to_string(&Written { commits: mark.commits, pending }).unwrap_or_default();
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
    let written: Written = serde_json::from_str(json).ok()?;
    let span = |(epoch, span): (String, Span)| Some((epoch.parse().ok()?, span));
    let pending = written.pending.into_iter().map(span).collect::<Option<_>>()?;
    Some(Mark { commits: written.commits, pending: Spans(pending) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(epochs: u64, first: u64) -> Mark {
        let span = |epoch| (Epoch(epoch), Span { first, next: first + 9, events: 7 });
        Mark { commits: first, pending: Spans((0..epochs).map(span).collect()) }
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
        let mut spans = Spans::default();
        for id in [id(1, 4), id(1, 5), id(2, 1), id(1, 6)] {
            spans.add(id);
        }
        spans.take(id(1, 4));
        spans.begin_at(id(1, 5));
        assert_eq!(spans.without([id(1, 6)]), [id(1, 5), id(2, 1)]);
        spans.take(id(2, 1));
        spans.reach(Epoch(1), 9);
        assert_eq!(spans.without([]), [5, 6, 7, 8].map(|seq| id(1, seq)));
    }

    proptest! {
        #[test]
        fn no_damaged_mark_is_believed(at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<prop::sample::Index>()) {
            let whole = render(&mark(3, 17));
            let line = whole.iter().position(|byte| *byte == b'\n').unwrap();
            let mut bytes = whole.clone();
            bytes[at.index(line)] ^= flip;
            // Hexadecimal digits are read in either case.
            prop_assert!(parse(&bytes).is_none_or(|read| read == mark(3, 17) && flip == 0x20));
            prop_assert!(parse(&whole[..cut.index(line - 1)]).is_none());
        }
    }
}
