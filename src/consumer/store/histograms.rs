//! Hours and days of traffic: pure functions of the stored windows, made again at each new one, in whatever order they come.
//!
//! ```text
//!  rates, window_histograms          histograms             histograms
//!  windows that began in the hour ─► hour ─► 24 hours of it ─► day
//!         ▲                            └─► unpublished_hours ─► Kafka, acknowledged
//!   touched_hours, in the transaction of the windows
//! ```
//! The transaction that derives an hour also deletes its note. Retention deletes windows before hours: a window that arrives then
//! changes the numbers of its hour, and leaves the histogram as it is.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

use super::{Derived, StoreError};
use crate::message::histogram::{HistogramEncoder, RateHistogram};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSummary {
    pub windows: i64,
    /// Measured windows that came without a histogram, or too late for it.
    pub late_windows: i64,
    pub bytes: i64,
    pub packets: Option<i64>,
    pub errors: Option<i64>,
    pub drops: Option<i64>,
    pub measured_s: i64,
    pub unmeasured_s: i64,
    pub min_bps: Option<i64>,
    pub mean_bps: Option<i64>,
    pub max_bps: Option<i64>,
    pub p50_bps: Option<i64>,
    pub p95_bps: Option<i64>,
    pub p99_bps: Option<i64>,
    pub histogram: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSeries {
    pub agent: String,
    pub interface: String,
    pub direction: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SummarySpan {
    Hour,
    Day,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SummaryKey {
    pub(super) series: TrafficSeries,
    pub(super) span: SummarySpan,
    pub(super) starts_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredSummary {
    pub(super) summary: TrafficSummary,
    pub(super) version: i64,
}

pub(super) struct StoredWindow {
    pub(super) summary: TrafficSummary,
    /// True also after retention has taken it.
    pub(super) had_histogram: bool,
}

pub(super) type AgentHour = (String, DateTime<Utc>);

/// Note that a window of this hour was stored; the number tells notes apart.
pub(super) type HourNote = (i64, AgentHour);

/// Hour after which the next transaction continues. Notes are taken by hour, not by age, so that those of one hour go together.
pub(super) struct DeriveCursor {
    after: Option<AgentHour>,
    series_per_hour: usize,
}

impl Default for DeriveCursor {
    fn default() -> Self {
        Self { after: None, series_per_hour: 32 }
    }
}

/// Statements of a derivation. Windows and hours come ordered by hour, series and window; `each` gets the index of hour or day.
pub(super) trait DeriveTransaction: Sized {
    /// Returns notes of hours after `after`, in the order of [`AgentHour`].
    fn notes(&mut self, after: Option<&AgentHour>, limit: usize) -> Result<Vec<HourNote>, StoreError>;

    fn windows(
        &mut self,
        hours: &[AgentHour],
        each: &mut dyn FnMut(usize, TrafficSeries, StoredWindow),
    ) -> Result<(), StoreError>;

    fn hours_of_days(
        &mut self,
        days: &[SummaryKey],
        each: &mut dyn FnMut(usize, TrafficSummary),
    ) -> Result<(), StoreError>;

    fn stored(&mut self, keys: &[SummaryKey]) -> Result<BTreeMap<SummaryKey, StoredSummary>, StoreError>;

    fn put(&mut self, rows: &[(SummaryKey, StoredSummary)]) -> Result<(), StoreError>;

    fn put_unpublished(&mut self, hours: &[&SummaryKey]) -> Result<(), StoreError>;

    fn delete_notes(&mut self, notes: &[HourNote]) -> Result<(), StoreError>;

    fn commit(self) -> Result<(), StoreError>;
}

/// Columns in the order in which the databases' readers take them.
pub(super) const SUMMARY: &str = "windows, late_windows, bytes, packets, errors, drops, measured_s, unmeasured_s, min_bps, mean_bps, \
                                  max_bps, p50_bps, p95_bps, p99_bps, histogram";
pub(super) const SUMMARY_COLUMNS: usize = 15;

pub(super) const PUBLISHED_AT_ONCE: usize = 500;

const NOTES_AT_ONCE: usize = 2_000;
/// Approximate number of summaries in a transaction: a histogram takes a kilobyte or two.
const SUMMARIES_AT_ONCE: usize = 500;

impl SummarySpan {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

#[derive(Default)]
struct Merge {
    sum: TrafficSummary,
    histogram: Option<RateHistogram>,
    /// True if retention has taken a stored histogram.
    is_incomplete: bool,
}

impl Merge {
    fn add(&mut self, part: &TrafficSummary) {
        let sum = &mut self.sum;
        for (sum, more) in [
            (&mut sum.windows, part.windows),
            (&mut sum.late_windows, part.late_windows),
            (&mut sum.bytes, part.bytes),
            (&mut sum.measured_s, part.measured_s),
            (&mut sum.unmeasured_s, part.unmeasured_s),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in
            [(&mut sum.packets, part.packets), (&mut sum.errors, part.errors), (&mut sum.drops, part.drops)]
        {
            *sum = more.map_or(*sum, |more| Some(sum.unwrap_or(0).saturating_add(more)));
        }
        sum.min_bps = sum.min_bps.into_iter().chain(part.min_bps).min();
        sum.max_bps = sum.max_bps.max(part.max_bps);
        // Histograms were checked when they were stored; one that cannot be read now counts as missing.
        let Some(histogram) = part.histogram.as_deref().and_then(|bytes| RateHistogram::decode(bytes).ok()) else {
            return;
        };
        match &mut self.histogram {
            Some(merged) => merged.merge(&histogram),
            None => self.histogram = Some(histogram),
        }
    }

    fn add_window(&mut self, window: &StoredWindow) {
        let is_late = window.summary.measured_s > 0 && !window.had_histogram;
        self.is_incomplete |= window.had_histogram && window.summary.histogram.is_none();
        self.add(&window.summary);
        self.sum.windows += 1;
        self.sum.late_windows += i64::from(is_late);
    }

    fn finish(self, encoder: &mut HistogramEncoder) -> TrafficSummary {
        let [min, max] = [self.sum.min_bps, self.sum.max_bps].map(|bps| bps.map(i64::cast_unsigned));
        let quantile = |share| Some(self.histogram.as_ref()?.quantile_within(share, min, max)?.cast_signed());
        let TrafficSummary { bytes, measured_s, .. } = self.sum;
        let mean = (measured_s > 0).then(|| i128::from(bytes) * 8 / i128::from(measured_s));
        TrafficSummary {
            mean_bps: mean.map(|mean| i64::try_from(mean).unwrap_or(i64::MAX)),
            p50_bps: quantile(0.5),
            p95_bps: quantile(0.95),
            p99_bps: quantile(0.99),
            histogram: self.histogram.as_ref().map(|histogram| encoder.encode(histogram)),
            ..self.sum
        }
    }
}

/// Returns what replaces `stored`. Where retention has taken windows, what was made of them stays.
fn replacement(merged: TrafficSummary, is_incomplete: bool, stored: Option<&StoredSummary>) -> Option<TrafficSummary> {
    let Some(StoredSummary { summary: stored, .. }) = stored else { return Some(merged) };
    if merged.windows < stored.windows {
        return None;
    }
    // Windows that came again have no histograms.
    let with_histograms = |summary: &TrafficSummary| summary.windows - summary.late_windows;
    let is_incomplete = is_incomplete || with_histograms(&merged) < with_histograms(stored);
    let late_windows = merged.late_windows.min(stored.late_windows + merged.windows - stored.windows);
    let new = match is_incomplete && stored.histogram.is_some() {
        true => TrafficSummary {
            p50_bps: stored.p50_bps,
            p95_bps: stored.p95_bps,
            p99_bps: stored.p99_bps,
            histogram: stored.histogram.clone(),
            late_windows,
            ..merged
        },
        false => merged,
    };
    (new != *stored).then_some(new)
}

/// Returns a version above the one before, and above those that a database had before it was restored.
fn next_version(stored: Option<&StoredSummary>, now: DateTime<Utc>) -> i64 {
    now.timestamp_millis().max(stored.map_or(0, |stored| stored.version + 1))
}

/// Derives the next hours that have notes, and their days; hours before `kept_from` are not made any more.
pub(super) fn derive<T: DeriveTransaction>(
    mut transaction: T,
    cursor: &mut DeriveCursor,
    (now, kept_from): (DateTime<Utc>, DateTime<Utc>),
    are_published: bool,
) -> Result<Derived, StoreError> {
    let mut notes = transaction.notes(cursor.after.as_ref(), NOTES_AT_ONCE)?;
    let some = (SUMMARIES_AT_ONCE / cursor.series_per_hour.max(1)).max(1);
    let mut hours: Vec<AgentHour> = notes.iter().map(|(_, hour)| hour.clone()).collect();
    hours.dedup();
    let is_end = notes.len() < NOTES_AT_ONCE && hours.len() <= some;
    hours.truncate(some);
    notes.retain(|(_, hour)| hours.last().is_some_and(|last| hour <= last));
    // Notes are read from the first hour again, unless this round began there.
    let has_more = !is_end || cursor.after.is_some();
    cursor.after = hours.last().filter(|_| !is_end).cloned();
    if hours.is_empty() {
        return Ok(Derived { hours: 0, has_more });
    }
    let kept: Vec<AgentHour> = hours.into_iter().filter(|(_, starts_at)| *starts_at >= kept_from).collect();
    let mut encoder = HistogramEncoder::default();
    let merged = merge_hours(&mut transaction, &kept, &mut encoder)?;
    cursor.series_per_hour = merged.len() / kept.len().max(1);
    let hours = replace(&mut transaction, merged, now)?;
    let days: BTreeSet<SummaryKey> = hours.iter().filter_map(|(key, _)| day_of(key)).collect();
    let days = merge_days(&mut transaction, &days.into_iter().collect::<Vec<_>>(), &mut encoder)?;
    replace(&mut transaction, days, now)?;
    if are_published {
        transaction.put_unpublished(&hours.iter().map(|(key, _)| key).collect::<Vec<_>>())?;
    }
    transaction.delete_notes(&notes)?;
    transaction.commit()?;
    Ok(Derived { hours: hours.len() as u64, has_more })
}

fn day_of(hour: &SummaryKey) -> Option<SummaryKey> {
    let starts_at = hour.starts_at.duration_trunc(TimeDelta::days(1)).ok()?;
    Some(SummaryKey { span: SummarySpan::Day, starts_at, ..hour.clone() })
}

type Merged = Vec<(SummaryKey, TrafficSummary, bool)>;

fn merge_hours<T: DeriveTransaction>(
    transaction: &mut T,
    hours: &[AgentHour],
    encoder: &mut HistogramEncoder,
) -> Result<Merged, StoreError> {
    let (mut merged, mut current): (Merged, Option<(SummaryKey, Merge)>) = (Vec::new(), None);
    let mut end = |current: Option<(SummaryKey, Merge)>| {
        if let Some((key, merge)) = current {
            let is_incomplete = merge.is_incomplete;
            merged.push((key, merge.finish(encoder), is_incomplete));
        }
    };
    transaction.windows(hours, &mut |index, series, window| {
        let key = SummaryKey { series, span: SummarySpan::Hour, starts_at: hours[index].1 };
        if current.as_ref().is_none_or(|(of, _)| *of != key) {
            end(current.replace((key, Merge::default())));
        }
        if let Some((_, merge)) = &mut current {
            merge.add_window(&window);
        }
    })?;
    end(current);
    Ok(merged)
}

fn merge_days<T: DeriveTransaction>(
    transaction: &mut T,
    days: &[SummaryKey],
    encoder: &mut HistogramEncoder,
) -> Result<Merged, StoreError> {
    // A histogram that is merged takes 27 kB: there is one at a time.
    let (mut merged, mut merge): (Merged, Merge) = (Vec::with_capacity(days.len()), Merge::default());
    let mut end = |merged: &mut Merged, merge: &mut Merge| {
        let key = days[merged.len()].clone();
        merged.push((key, std::mem::take(merge).finish(encoder), false));
    };
    transaction.hours_of_days(days, &mut |index, hour| {
        while merged.len() < index {
            end(&mut merged, &mut merge);
        }
        merge.add(&hour);
    })?;
    while merged.len() < days.len() {
        end(&mut merged, &mut merge);
    }
    Ok(merged)
}

fn replace<T: DeriveTransaction>(
    transaction: &mut T,
    merged: Merged,
    now: DateTime<Utc>,
) -> Result<Vec<(SummaryKey, StoredSummary)>, StoreError> {
    let keys: Vec<SummaryKey> = merged.iter().map(|(key, ..)| key.clone()).collect();
    let stored = transaction.stored(&keys)?;
    let changed = merged.into_iter().filter_map(|(key, merged, is_incomplete)| {
        let stored = stored.get(&key);
        let summary = replacement(merged, is_incomplete, stored)?;
        Some((key, StoredSummary { summary, version: next_version(stored, now) }))
    });
    let changed: Vec<(SummaryKey, StoredSummary)> = changed.collect();
    transaction.put(&changed)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(rates: &[u64], had_histogram: bool) -> StoredWindow {
        let mut histogram = RateHistogram::<u64>::default();
        rates.iter().for_each(|bps| histogram.record(*bps, 1));
        let number = |bps: Option<&u64>| bps.map(|bps| bps.cast_signed());
        let summary = TrafficSummary {
            bytes: rates.iter().sum::<u64>().cast_signed() / 8,
            packets: Some(1),
            measured_s: rates.len() as i64,
            min_bps: number(rates.iter().min()),
            max_bps: number(rates.iter().max()),
            histogram: had_histogram.then(|| histogram.encode()),
            ..TrafficSummary::default()
        };
        StoredWindow { summary, had_histogram }
    }

    fn merged(windows: &[StoredWindow]) -> (TrafficSummary, bool) {
        let mut merge = Merge::default();
        windows.iter().for_each(|window| merge.add_window(window));
        let is_incomplete = merge.is_incomplete;
        (merge.finish(&mut HistogramEncoder::default()), is_incomplete)
    }

    fn stored(summary: TrafficSummary) -> StoredSummary {
        StoredSummary { summary, version: 7 }
    }

    proptest! {
        #[test]
        fn a_day_of_hours_is_a_day_of_windows(
            hours in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(0..1_000_000_000_u64, 0..20), 0..6), 0..5)
        ) {
            let windows = |hour: &[Vec<u64>]| hour.iter().map(|rates| window(rates, !rates.is_empty())).collect::<Vec<_>>();
            let all: Vec<StoredWindow> = hours.iter().flat_map(|hour| windows(hour)).collect();
            let (at_once, _) = merged(&all);
            let mut day = Merge::default();
            hours.iter().for_each(|hour| day.add(&merged(&windows(hour)).0));
            let day = day.finish(&mut HistogramEncoder::default());
            let counts = |summary: &TrafficSummary| {
                let histogram = summary.histogram.as_deref().map(|bytes| RateHistogram::decode(bytes).unwrap());
                histogram.map(|histogram| histogram.bins().collect::<Vec<_>>())
            };
            prop_assert_eq!(counts(&day), counts(&at_once));
            let plain = |summary: &TrafficSummary| TrafficSummary { histogram: None, ..summary.clone() };
            prop_assert_eq!(plain(&day), plain(&at_once));
        }
    }

    #[test]
    fn a_burst_of_a_second_is_in_the_hour() {
        let quiet = window(&[1_000_000; 299], true);
        let (hour, is_incomplete) = merged(&[quiet, window(&[900_000_000], true)]);
        assert_eq!((hour.windows, hour.late_windows, hour.measured_s), (2, 0, 300));
        assert_eq!((hour.min_bps, hour.max_bps), (Some(1_000_000), Some(900_000_000)));
        assert_eq!(hour.mean_bps, Some((299_000_000 + 900_000_000) / 300));
        assert!(!is_incomplete && hour.p95_bps.unwrap() < 1_010_000);
        let (steady, _) = merged(&[window(&[2_000_001; 60], true)]);
        assert_eq!([steady.p50_bps, steady.p99_bps], [Some(2_000_001); 2], "no percentile is above the highest second");
        assert_eq!((hour.packets, hour.errors), (Some(2), None));
    }

    #[test]
    fn a_late_window_changes_the_numbers_and_not_the_histogram() {
        let (first, _) = merged(&[window(&[1_000_000; 10], true)]);
        let gone = || {
            let mut window = window(&[1_000_000; 10], true);
            window.summary.histogram = None;
            window
        };
        let (late, is_incomplete) = merged(&[gone(), window(&[9_000_000; 10], false)]);
        let new = replacement(late, is_incomplete, Some(&stored(first.clone()))).unwrap();
        assert_eq!((new.windows, new.late_windows, new.measured_s, new.max_bps), (2, 1, 20, Some(9_000_000)));
        assert_eq!((new.p99_bps, &new.histogram), (first.p99_bps, &first.histogram));
    }

    #[test]
    fn retention_makes_nothing_smaller_and_what_is_the_same_is_not_written() {
        let (two, _) = merged(&[window(&[1_000_000; 10], true), window(&[2_000_000; 10], true)]);
        let (one, _) = merged(&[window(&[2_000_000; 10], true)]);
        assert_eq!(replacement(one.clone(), false, Some(&stored(two.clone()))), None);
        assert_eq!(replacement(two.clone(), false, Some(&stored(two.clone()))), None);
        assert_eq!(replacement(two.clone(), false, Some(&stored(one))), Some(two));
    }

    #[test]
    fn a_version_never_falls_back() {
        let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
        assert_eq!(next_version(None, at(1_000)), 1_000);
        assert_eq!(next_version(Some(&stored(TrafficSummary::default())), at(5)), 8);
        assert_eq!(next_version(Some(&stored(TrafficSummary::default())), at(1_000)), 1_000);
    }
}
