//! A batch as rows: what goes into which table, the same for every database.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::sequences::{self, Range};
use super::{Refused, Returning, sequences::merged};
use crate::consumer::batch::{Batch, Record};
use crate::event::{Body, Breach, Epoch, Event};

/// Where an event's row goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// `events`.
    Events,
    /// `samples`: rows of recorded series.
    Samples,
}

/// All of them.
pub(super) const TABLES: [Table; 2] = [Table::Events, Table::Samples];

/// A row of `events` or `samples`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) event: &'a Event,
    pub(super) record: &'a Record,
    pub(super) partition: i32,
    /// Of the row that says most about its breach, of all in the batch: the greatest `excess_bytes` that these tell of it.
    pub(super) greatest_bytes: Option<u64>,
}

/// A row of `dead_letters`.
#[derive(Clone, Debug)]
pub(super) struct Letter<'a> {
    pub(super) record: &'a Record,
    pub(super) partition: i32,
    pub(super) error: String,
}

/// A row of `losses`.
#[derive(Clone, Debug)]
pub(super) struct Lost<'a> {
    pub(super) event: &'a Event,
    pub(super) epoch: Epoch,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) reason: &'a str,
    pub(super) detail: Option<&'a str>,
}

/// Whose count.
pub(super) type Count<'a> = (&'a str, Epoch);

/// The ranges that stand after a batch, and the first numbers of those that went into others.
pub(super) type Renewed<'a> = (Vec<(Count<'a>, Range)>, Vec<(Count<'a>, i64)>);

/// Longest text of an error that is kept, in characters.
const ERROR_CHARS_MAX: usize = 1_000;

impl Table {
    /// Its name in the database.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Samples => "samples",
        }
    }

    /// Where this event's row goes.
    pub(super) fn of(event: &Event) -> Self {
        match event.body {
            Body::Sample(_) => Self::Samples,
            _ => Self::Events,
        }
    }
}

impl<'a> Letter<'a> {
    /// NUL, which an error may quote, is in no text of a database.
    pub(super) fn new(record: &'a Record, partition: i32, error: &str) -> Self {
        let error = error.chars().take(ERROR_CHARS_MAX).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect();
        Self { record, partition, error }
    }

    pub(super) fn refused(&self) -> Refused {
        Refused { partition: self.partition, offset: self.record.offset, error: self.error.clone() }
    }
}

/// What is not below its partition's floor: rows in the order of their key, so that two transactions never wait for each
/// other crosswise, and what was no event.
pub(super) fn split<'a>(batch: &'a Batch, floors: &BTreeMap<i32, i64>) -> (Vec<Row<'a>>, Vec<Letter<'a>>) {
    let (mut rows, mut letters) = (Vec::new(), Vec::new());
    for (&partition, slice) in &batch.slices {
        let floor = floors.get(&partition).copied().unwrap_or(slice.from);
        for record in slice.records.iter().filter(|record| record.offset >= floor) {
            match &record.content {
                Ok(event) => rows.push(Row { event, record, partition, greatest_bytes: None }),
                Err(error) => letters.push(Letter::new(record, partition, error)),
            }
        }
    }
    rows.sort_by(|a, b| key(a.event).cmp(&key(b.event)));
    (rows, letters)
}

/// Those of `letters` that are events now, in the order of their key.
pub(super) fn returning(letters: &[Returning]) -> Vec<Row<'_>> {
    let events = letters.iter().filter_map(|letter| Some((letter.record.content.as_ref().ok()?, letter)));
    let mut rows: Vec<Row<'_>> = events
        .map(|(event, letter)| Row { event, record: &letter.record, partition: letter.partition, greatest_bytes: None })
        .collect();
    rows.sort_by(|a, b| key(a.event).cmp(&key(b.event)));
    rows
}

fn key(event: &Event) -> (&str, Epoch, u64, DateTime<Utc>) {
    (&event.stamp.agent, event.id.epoch, event.id.seq, event.stamp.observed_at)
}

/// The tables that rows go to.
pub(super) fn tables(rows: &[Row<'_>]) -> impl Iterator<Item = Table> {
    TABLES.into_iter().filter(|table| rows.iter().any(|row| Table::of(row.event) == *table))
}

/// Marks of each breach the row that says most, with the greatest `excess_bytes` of all its rows.
pub(super) fn mark_latest(rows: &mut [Row<'_>]) {
    let mut latest: HashMap<(&str, &str), (usize, u64)> = HashMap::with_capacity(rows.len() / 4);
    for index in 0..rows.len() {
        rows[index].greatest_bytes = None;
        let event = rows[index].event;
        let Some(breach) = event.body.breach() else { continue };
        latest
            .entry((&event.stamp.agent, &breach.breach_id))
            .and_modify(|(best, bytes)| {
                if by_rank(rows[*best].event, event).is_lt() {
                    *best = index;
                }
                *bytes = breach.excess_bytes.max(*bytes);
            })
            .or_insert((index, breach.excess_bytes));
    }
    for (index, bytes) in latest.into_values() {
        rows[index].greatest_bytes = Some(bytes);
    }
}

/// The rows that say most of their breaches.
pub(super) fn latest<'r, 'a>(rows: &'r [Row<'a>]) -> impl Iterator<Item = &'r Row<'a>> {
    rows.iter().filter(|row| row.greatest_bytes.is_some())
}

/// Compares two events of one breach by how much they say, whatever order they come in. An end is the last word, and the duration
/// never shrinks, also where an agent had to go on under another epoch. It stays the same while the rate is low: then the
/// count of the epoch decides, which no step of a clock disturbs, and the time only between two epochs.
fn by_rank(a: &Event, b: &Event) -> Ordering {
    let state = |event: &Event| (is_cleared(event), event.body.breach().map_or(0, |breach| breach.duration_ms));
    let (a_time, b_time) = (a.stamp.observed_at, b.stamp.observed_at);
    state(a).cmp(&state(b)).then_with(|| {
        if a.id.epoch == b.id.epoch {
            (a.id.seq, a_time).cmp(&(b.id.seq, b_time))
        } else {
            (a_time, a.id.epoch).cmp(&(b_time, b.id.epoch))
        }
    })
}

/// Whether it is the end of a breach.
pub(super) fn is_cleared(event: &Event) -> bool {
    matches!(event.body, Body::BreachCleared(_))
}

/// The ranges of numbers in rows that are in order, by whose count they are.
pub(super) fn ranges<'a>(rows: &[Row<'a>]) -> BTreeMap<Count<'a>, Vec<Range>> {
    let mut ranges: BTreeMap<Count<'a>, Vec<Range>> = BTreeMap::new();
    for row in rows {
        let seq = row.event.id.seq.cast_signed();
        let count = ranges.entry((&row.event.stamp.agent, row.event.id.epoch)).or_default();
        match count.last_mut() {
            Some(range) if seq - 1 <= range.last => range.last = seq,
            _ => count.push(Range { first: seq, last: seq, began: None, doubled: 0 }),
        }
    }
    ranges
}

/// Rows, in order, whose identity the row before has too, under another `observed_at`. Only of numbers that are new: of the
/// others the database tells more.
pub(super) fn twins<'a>(rows: &[Row<'a>], known: &BTreeMap<Count<'_>, Vec<Range>>) -> Vec<&'a Event> {
    rows.windows(2)
        .map(|pair| (pair[0].event, pair[1].event))
        .filter(|(a, b)| a.id == b.id && a.stamp.agent == b.stamp.agent && a.stamp.observed_at != b.stamp.observed_at)
        .map(|(_, b)| b)
        .filter(|event| !was_seen(event, known))
        .collect()
}

/// Whether no two of the rows, which are in order, have one number.
pub(super) fn are_distinct(rows: &[Row<'_>]) -> bool {
    rows.windows(2).all(|pair| {
        let (a, b) = (pair[0].event, pair[1].event);
        a.id != b.id || a.stamp.agent != b.stamp.agent
    })
}

/// Whether the event's number was seen before.
pub(super) fn was_seen(event: &Event, known: &BTreeMap<Count<'_>, Vec<Range>>) -> bool {
    let known = known.get(&(event.stamp.agent.as_str(), event.id.epoch));
    known.is_some_and(|known| sequences::contain(known, event.id.seq.cast_signed()))
}

/// What the rows declare as lost.
pub(super) fn losses<'a>(rows: &[Row<'a>]) -> Vec<Lost<'a>> {
    let mut losses = Vec::new();
    for row in rows {
        let Body::Loss(loss) = &row.event.body else { continue };
        losses.extend(loss.ranges.iter().map(|(first, last)| Lost {
            event: row.event,
            epoch: loss.epoch,
            first: first.cast_signed(),
            last: last.cast_signed(),
            reason: loss.reason.as_str(),
            detail: loss.detail.as_deref(),
        }));
    }
    losses
}

/// Rows of `table` whose number was seen before: if one of them is new, its identity has two `observed_at`.
pub(super) fn suspects<'a>(rows: &[Row<'a>], table: Table, known: &BTreeMap<Count<'_>, Vec<Range>>) -> Vec<&'a Event> {
    let of_table = rows.iter().map(|row| row.event).filter(|event| Table::of(event) == table);
    of_table.filter(|event| was_seen(event, known)).collect()
}

/// The ranges that stand after the batch, with those doubled now counted; and which of the known ones are no more, by
/// their first number.
pub(super) fn renewed<'a>(
    known: &BTreeMap<Count<'_>, Vec<Range>>,
    mut seen: BTreeMap<Count<'a>, Vec<Range>>,
    doubled: &[(&'a str, Epoch, i64)],
) -> Renewed<'a> {
    for (agent, epoch, seq) in doubled {
        let ranges = seen.get_mut(&(*agent, *epoch)).into_iter().flatten();
        if let Some(range) = ranges.into_iter().find(|range| (range.first..=range.last).contains(seq)) {
            range.doubled += 1;
        }
    }
    let (mut standing, mut gone) = (Vec::new(), Vec::new());
    for (count, seen) in seen {
        let known = known.get(&count).map_or(&[][..], Vec::as_slice);
        let merged = merged(known, &seen);
        gone.extend(
            known.iter().filter(|k| merged.iter().all(|m| m.first != k.first)).map(|range| (count, range.first)),
        );
        standing.extend(merged.into_iter().map(|range| (count, range)));
    }
    (standing, gone)
}

/// The breach of a row, where it has one.
pub(super) fn breach<'a>(row: &Row<'a>) -> Option<&'a Breach> {
    row.event.body.breach()
}
