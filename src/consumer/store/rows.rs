//! Rows of a batch by table, the same for every database. Pure functions.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, DurationRound as _, NaiveDate, TimeDelta, Utc};

use super::sequences::{self, SequenceRange, merged};
use super::tables::{AHEAD_MAX, TABLES, Table, WINDOW_HISTOGRAMS_KEPT};
use super::{OffsetRanges, Rejected, RetriedRecord, TotalKey};
use crate::consumer::batch::{Batch, ClaimedIdentity, Record};
use crate::message::{Body, Breach, Epoch, Event, LinkRates};

#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) event: &'a Event,
    pub(super) record: &'a Record,
    pub(super) partition: i32,
    pub(super) now: DateTime<Utc>,
}

/// Agent, and start of an hour of which windows were stored.
pub(super) type TouchedHour<'a> = (&'a str, DateTime<Utc>);

#[derive(Clone, Debug)]
pub(super) struct DeadLetterRow<'a> {
    pub(super) record: &'a Record,
    pub(super) partition: i32,
    pub(super) generation: i32,
    pub(super) error: String,
    pub(super) claimed: ClaimedIdentity,
}

#[derive(Clone, Debug)]
pub(super) struct LossRow<'a> {
    pub(super) event: &'a Event,
    pub(super) epoch: Epoch,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) reason: &'a str,
    pub(super) detail: Option<&'a str>,
}

pub(super) type Series<'a> = (&'a str, Epoch);

pub(super) type SeriesRanges<'a> = BTreeMap<Series<'a>, Vec<SequenceRange>>;

#[derive(Debug, Default)]
pub(super) struct RangeChanges<'a> {
    pub(super) new: Vec<(Series<'a>, SequenceRange)>,
    pub(super) changed: Vec<(Series<'a>, SequenceRange, SequenceRange)>,
    pub(super) gone: Vec<(Series<'a>, SequenceRange)>,
}

/// Orders the events of one breach, in whatever order they arrive: the highest is the state to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rank {
    pub(super) cleared: bool,
    pub(super) duration_ms: i64,
    pub(super) epoch: Epoch,
    pub(super) seq: i64,
    pub(super) observed_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct KnownBreach {
    pub(super) rank: Rank,
    pub(super) counted_bytes: i64,
}

/// Agent and breach, in the order in which rows are locked.
pub(super) type BreachKey<'a> = (&'a str, &'a str);

#[derive(Clone, Copy, Debug)]
pub(super) struct LatestBreach<'a> {
    pub(super) event: &'a Event,
    pub(super) breach: &'a Breach,
    pub(super) counted_bytes: i64,
    /// Greatest value of events that were stored before, if there are any: totals have it.
    pub(super) seen_bytes: Option<i64>,
    /// Raised in this batch, and so most likely not stored yet.
    pub(super) is_new: bool,
}

pub(super) type LatestBreaches<'a> = BTreeMap<BreachKey<'a>, LatestBreach<'a>>;

#[derive(Debug, Default)]
pub(super) struct BreachChanges<'a> {
    pub(super) new: Vec<LatestBreach<'a>>,
    pub(super) changed: Vec<(LatestBreach<'a>, KnownBreach)>,
    pub(super) counted: Vec<(LatestBreach<'a>, KnownBreach)>,
    pub(super) totals: BTreeMap<(TotalKey, NaiveDate), (i64, i64)>,
}

const ERROR_CHARS_MAX: usize = 1_000;

impl LatestBreach<'_> {
    pub(super) fn state(&self) -> &'static str {
        if is_cleared(self.event) { "cleared" } else { "open" }
    }
}

impl<'a> Row<'a> {
    pub(super) fn kafka_position(&self) -> (i32, i64) {
        (self.partition, self.record.offset)
    }

    pub(super) fn links(&self) -> &'a [LinkRates] {
        match &self.event.body {
            Body::Rates(window) => &window.links,
            _ => &[],
        }
    }

    pub(super) fn keeps_histograms(&self) -> bool {
        let observed_at = self.event.stamp.observed_at;
        observed_at >= self.now - WINDOW_HISTOGRAMS_KEPT && !self.is_ahead()
    }

    pub(super) fn has_histogram(&self, link: &LinkRates) -> bool {
        link.histogram.is_some() && self.keeps_histograms()
    }

    fn is_ahead(&self) -> bool {
        self.event.stamp.observed_at > self.now + AHEAD_MAX
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = Table> {
        let table = Table::of(self.event);
        let beside = table == Table::Rates && self.keeps_histograms();
        [Some(table), beside.then_some(Table::WindowHistograms)].into_iter().flatten()
    }

    fn series(&self) -> Series<'a> {
        (&self.event.stamp.agent, self.event.id.epoch)
    }

    /// The order in which rows are written, so that two transactions never wait for each other crosswise.
    fn key(&self) -> (&str, Epoch, u64, DateTime<Utc>) {
        let Event { id, stamp, .. } = self.event;
        (&stamp.agent, id.epoch, id.seq, stamp.observed_at)
    }
}

impl<'a> DeadLetterRow<'a> {
    pub(super) fn new(record: &'a Record, partition: i32, generation: i32, error: &str) -> Self {
        // No database's text takes NUL, which an error may quote.
        let error = error.chars().take(ERROR_CHARS_MAX).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect();
        Self { record, partition, generation, error, claimed: record.claimed_identity() }
    }

    pub(super) fn rejected(&self) -> Rejected {
        Rejected { partition: self.partition, offset: self.record.offset, error: self.error.clone() }
    }
}

pub(super) fn whole(batch: &Batch) -> OffsetRanges {
    batch.partitions.iter().map(|(partition, part)| (*partition, (part.from, part.to))).collect()
}

pub(super) fn records<'a>(batch: &'a Batch, bounds: &OffsetRanges) -> impl Iterator<Item = (i32, i32, &'a Record)> {
    bounds.iter().flat_map(|(&partition, &(from, to))| {
        let part = batch.partitions.get(&partition);
        let records = part.map_or(&[][..], |part| {
            let at = |offset| part.records.partition_point(|record| record.offset < offset);
            &part.records[at(from)..at(to).max(at(from))]
        });
        let generation = part.map_or(0, |part| part.generation);
        records.iter().map(move |record| (partition, generation, record))
    })
}

pub(super) fn split<'a>(
    records: impl IntoIterator<Item = (i32, i32, &'a Record)>,
    now: DateTime<Utc>,
) -> (Vec<Row<'a>>, Vec<DeadLetterRow<'a>>) {
    let (mut rows, mut letters) = (Vec::new(), Vec::new());
    for (partition, generation, record) in records {
        match &record.content {
            Ok(event) => rows.push(Row { event, record, partition, now }),
            Err(error) => letters.push(DeadLetterRow::new(record, partition, generation, error)),
        }
    }
    (rows, letters)
}

pub(super) fn events<'a>(
    records: impl IntoIterator<Item = (i32, i32, &'a Record)>,
    now: DateTime<Utc>,
) -> Vec<Row<'a>> {
    let rows = records
        .into_iter()
        .filter_map(|(partition, _, record)| Some((partition, record, record.content.as_ref().ok()?)));
    rows.map(|(partition, record, event)| Row { event, record, partition, now }).collect()
}

pub(super) fn of_retried(records: &[RetriedRecord], now: DateTime<Utc>) -> Vec<Row<'_>> {
    let events = records.iter().filter_map(|retried| Some((retried.record.content.as_ref().ok()?, retried)));
    events.map(|(event, retried)| Row { event, record: &retried.record, partition: retried.partition, now }).collect()
}

pub(super) fn in_order(rows: &mut Vec<Row<'_>>) {
    rows.sort_by(|a, b| a.key().cmp(&b.key()));
    rows.dedup_by(|b, a| a.key() == b.key());
}

pub(super) fn tables(rows: &[Row<'_>]) -> impl Iterator<Item = Table> {
    TABLES.into_iter().filter(|table| rows.iter().any(|row| Table::of(row.event) == *table))
}

pub(super) fn ranges<'a>(rows: &[Row<'a>]) -> SeriesRanges<'a> {
    let mut ranges: SeriesRanges<'a> = BTreeMap::new();
    for (series, rows) in by_series(rows) {
        let of_one = ranges.entry(series).or_default();
        for row in rows {
            let seq = row.event.id.seq.cast_signed();
            match of_one.last_mut() {
                Some(range) if seq - 1 <= range.last => range.last = seq,
                _ => of_one.push(SequenceRange {
                    first: seq,
                    last: seq,
                    counted: Table::of(row.event),
                    first_stored_at: None,
                    identity_conflicts: 0,
                }),
            }
        }
    }
    ranges
}

fn by_series<'r, 'a>(rows: &'r [Row<'a>]) -> impl Iterator<Item = (Series<'a>, &'r [Row<'a>])> {
    rows.chunk_by(|a, b| a.series() == b.series()).map(|chunk| (chunk[0].series(), chunk))
}

pub(super) fn seen_before<'a>(rows: &[Row<'a>], known: &SeriesRanges<'_>) -> Vec<Row<'a>> {
    let mut seen = Vec::new();
    for (series, rows) in by_series(rows) {
        if let Some(ranges) = known.get(&series) {
            let is_seen = |row: &&Row<'_>| sequences::contain(ranges, row.event.id.seq.cast_signed());
            seen.extend(rows.iter().filter(is_seen).copied());
        }
    }
    seen
}

pub(super) fn was_seen(event: &Event, known: &SeriesRanges<'_>) -> bool {
    let ranges = known.get(&(event.stamp.agent.as_str(), event.id.epoch));
    ranges.is_some_and(|ranges| sequences::contain(ranges, event.id.seq.cast_signed()))
}

pub(super) fn same_identity<'a>(rows: &[Row<'a>]) -> impl Iterator<Item = &'a Event> {
    rows.windows(2)
        .map(|pair| (pair[0].event, pair[1].event))
        .filter(|(a, b)| a.id == b.id && a.stamp.agent == b.stamp.agent)
        .map(|(_, b)| b)
}

pub(super) fn merge_ranges<'a>(
    known: &SeriesRanges<'_>,
    mut seen: SeriesRanges<'a>,
    conflicts: &[&'a Event],
) -> RangeChanges<'a> {
    for event in conflicts {
        let seq = event.id.seq.cast_signed();
        let ranges = seen.get_mut(&(event.stamp.agent.as_str(), event.id.epoch)).into_iter().flatten();
        if let Some(range) = ranges.into_iter().find(|range| (range.first..=range.last).contains(&seq)) {
            range.identity_conflicts += 1;
        }
    }
    let mut changes = RangeChanges::default();
    for (series, seen) in seen {
        let known = known.get(&series).map_or(&[][..], Vec::as_slice);
        let merged = merged(known, &seen);
        let is_gone = |range: &&SequenceRange| merged.iter().all(|merged| merged.first != range.first);
        changes.gone.extend(known.iter().filter(is_gone).map(|range| (series, range.clone())));
        for range in merged {
            match known.iter().find(|known| known.first == range.first) {
                Some(known) => changes.changed.push((series, known.clone(), range)),
                None => changes.new.push((series, range)),
            }
        }
    }
    changes
}

impl Rank {
    fn of(event: &Event, breach: &Breach) -> Self {
        Self {
            cleared: is_cleared(event),
            duration_ms: breach.duration_ms.cast_signed(),
            epoch: event.id.epoch,
            seq: event.id.seq.cast_signed(),
            observed_at: event.stamp.observed_at,
        }
    }

    /// Compares by clear, then duration. Below the limit the duration stays equal: then by number, or between epochs by time.
    fn cmp(&self, other: &Self) -> Ordering {
        (self.cleared, self.duration_ms).cmp(&(other.cleared, other.duration_ms)).then_with(|| {
            if self.epoch == other.epoch {
                (self.seq, self.observed_at).cmp(&(other.seq, other.observed_at))
            } else {
                (self.observed_at, self.epoch).cmp(&(other.observed_at, other.epoch))
            }
        })
    }
}

pub(super) fn latest_breaches<'a>(rows: &[Row<'a>], was_seen: impl Fn(&Event) -> bool) -> LatestBreaches<'a> {
    let mut breaches: HashMap<BreachKey<'a>, LatestBreach<'a>> = HashMap::with_capacity(rows.len() / 4);
    for Row { event, .. } in rows {
        let Some(breach) = event.body.breach() else { continue };
        let (bytes, is_raised) = (breach.excess_bytes.cast_signed(), matches!(event.body, Body::BreachRaised(_)));
        let seen_bytes = was_seen(event).then_some(bytes);
        breaches
            .entry((&event.stamp.agent, &breach.breach_id))
            .and_modify(|latest| {
                if Rank::of(latest.event, latest.breach).cmp(&Rank::of(event, breach)).is_lt() {
                    (latest.event, latest.breach) = (event, breach);
                }
                latest.counted_bytes = latest.counted_bytes.max(bytes);
                latest.seen_bytes = latest.seen_bytes.max(seen_bytes);
                latest.is_new |= is_raised;
            })
            .or_insert(LatestBreach { event, breach, counted_bytes: bytes, seen_bytes, is_new: is_raised });
    }
    breaches.into_iter().collect()
}

/// Totals grow by what exceeds the greatest value seen: order, repetition and evicted updates change nothing. They outlive events and
/// breaches, and have those that come again already.
pub(super) fn breach_changes<'a>(
    breaches: LatestBreaches<'a>,
    known: &HashMap<BreachKey<'_>, KnownBreach>,
) -> BreachChanges<'a> {
    let mut changes = BreachChanges::default();
    for (key, mut latest) in breaches {
        let known = known.get(&key);
        let is_counted = known.is_some() || latest.seen_bytes.is_some();
        let stored_bytes = known.map_or(0, |known| known.counted_bytes);
        let added_bytes = latest.counted_bytes - stored_bytes.max(latest.seen_bytes.unwrap_or(0));
        latest.counted_bytes = latest.counted_bytes.max(stored_bytes);
        match known {
            Some(known) if Rank::of(latest.event, latest.breach).cmp(&known.rank).is_gt() => {
                changes.changed.push((latest, *known));
            }
            Some(known) if latest.counted_bytes > stored_bytes => changes.counted.push((latest, *known)),
            Some(_) => {}
            None => changes.new.push(latest),
        }
        if added_bytes > 0 || !is_counted {
            let LatestBreach { event, breach, .. } = latest;
            let key = TotalKey {
                agent: event.stamp.agent.as_str().to_owned(),
                interface: breach.interface.as_str().to_owned(),
                direction: breach.direction.as_str(),
                limit_name: breach.limit_name.as_str().to_owned(),
            };
            let (breaches, bytes) = changes.totals.entry((key, breach.raised_at.date_naive())).or_default();
            *breaches += i64::from(!is_counted);
            *bytes = bytes.saturating_add(added_bytes.max(0));
        }
    }
    changes
}

fn is_cleared(event: &Event) -> bool {
    matches!(event.body, Body::BreachCleared(_))
}

pub(super) fn losses<'a>(rows: &[Row<'a>]) -> Vec<LossRow<'a>> {
    let mut losses = Vec::new();
    for row in rows {
        let Body::Loss(loss) = &row.event.body else { continue };
        losses.extend(loss.ranges.iter().map(|(first, last)| LossRow {
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

/// Leaves out windows ahead of their time: an hour of the year 2099 would stay.
pub(super) fn touched_hours<'a>(rows: &[Row<'a>]) -> BTreeSet<TouchedHour<'a>> {
    let windows = rows.iter().filter(|row| !row.is_ahead()).filter_map(|row| match &row.event.body {
        Body::Rates(window) if !window.links.is_empty() => Some((row.event.stamp.agent.as_str(), window.started_at)),
        _ => None,
    });
    windows.filter_map(|(agent, started_at)| Some((agent, hour(started_at)?))).collect()
}

fn hour(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    time.duration_trunc(TimeDelta::hours(1)).ok()
}

pub(super) fn links<'r, 'a>(table: Table, rows: &[&'r Row<'a>]) -> Vec<(&'r Row<'a>, &'a LinkRates)> {
    let all = rows.iter().flat_map(|row| row.links().iter().map(move |link| (*row, link)));
    all.filter(|(row, link)| table == Table::Rates || row.has_histogram(link)).collect()
}

pub(super) fn without_histograms<'r, 'a>(rows: &'r [Row<'a>]) -> impl Iterator<Item = &'r Row<'a>> {
    rows.iter().filter(|row| !row.links().is_empty() && !row.keeps_histograms())
}
