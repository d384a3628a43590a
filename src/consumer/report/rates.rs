//! Rates of links, by window as agents report them, or by hour or day of UTC, which the consumer merges.

use std::io;

use chrono::{DateTime, TimeDelta, Utc};

use super::row::row;
use super::{LinkFilter, stream};
use crate::consumer::store::{Query, Reader, StoreError};
use crate::units::{BitRate, ByteCount};

/// Selects rates by the time at which their window, hour or day begins.
#[derive(Clone, Debug)]
pub struct RateFilter {
    pub links: LinkFilter,
    pub step: RateStep,
    pub last: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateStep {
    Window,
    Hour,
    Day,
}

pub(super) const WINDOW_MAX: TimeDelta = TimeDelta::hours(1);

row! {
    /// Rates are `None` where no second was measured, `speed_bps` and `over` for hours and days; sums include `late_windows`.
    pub struct RateRow {
        pub started_at: DateTime<Utc>,
        pub ended_at: DateTime<Utc>,
        pub agent: String,
        pub interface: String,
        pub direction: String,
        pub min_bps: Option<BitRate>,
        pub mean_bps: Option<BitRate>,
        pub p50_bps: Option<BitRate>,
        pub p95_bps: Option<BitRate>,
        pub p99_bps: Option<BitRate>,
        pub max_bps: Option<BitRate>,
        pub bytes: ByteCount,
        pub packets: Option<i64>,
        pub errors: Option<i64>,
        pub drops: Option<i64>,
        pub measured_s: i64,
        pub unmeasured_s: i64,
        pub speed_bps: Option<BitRate>,
        pub over: Option<serde_json::Value>,
        pub windows: i64,
        pub late_windows: i64,
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RatePoint {
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub bytes: u64,
    pub measured_s: u32,
    pub unmeasured_s: u32,
    pub min: Option<u64>,
    pub mean: Option<u64>,
    pub max: Option<u64>,
    pub p50: Option<u64>,
    pub p95: Option<u64>,
    pub p99: Option<u64>,
}

pub fn read(
    reader: &mut dyn Reader,
    filter: &RateFilter,
    mut print: impl FnMut(RateRow) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    stream(reader, &query(filter), |row| {
        let mut row = RateRow::read(row)?;
        if let Some(length) = filter.step.length() {
            row.ended_at = row.started_at + length;
        }
        print(row)
    })
}

pub(super) const LATE: &str = "CASE WHEN has_histogram OR measured_s = 0 THEN 0 ELSE 1 END";

fn query(filter: &RateFilter) -> Query {
    let RateFilter { links, step, last } = filter;
    let Some(span) = step.span() else {
        let others = [("ended_at", "observed_at"), ("windows", "1"), ("late_windows", LATE)];
        let query = links.names(RateRow::select(&others).then("FROM rates WHERE true"));
        return windows_of(links, query).ordered(&["ended_at", "agent", "interface", "direction"], *last);
    };
    let nothing = ("speed_bps", "CAST(NULL AS bigint)");
    let others = [("started_at", "starts_at"), ("ended_at", "starts_at"), nothing, ("over", "NULL")];
    let query = RateRow::select(&others).then("FROM histograms").with("WHERE span = ?", span);
    links.times(links.names(query), "starts_at").ordered(&["started_at", "agent", "interface", "direction"], *last)
}

/// Selects windows that begin in the time of `links`; keys and partitions go by their end.
pub(super) fn windows_of(links: &LinkFilter, query: Query) -> Query {
    let after_until = links.until.and_then(|until| until.checked_add_signed(WINDOW_MAX));
    links
        .times(query, "started_at")
        .with_any("AND observed_at > ?", links.since)
        .with_any("AND observed_at < ?", after_until)
}

impl RateStep {
    pub fn for_time(links: &LinkFilter, now: DateTime<Utc>) -> Self {
        let until = links.until.unwrap_or(now);
        match links.since.map(|since| until - since) {
            Some(time) if time <= TimeDelta::hours(6) => Self::Window,
            Some(time) if time <= TimeDelta::days(8) => Self::Hour,
            _ => Self::Day,
        }
    }

    fn span(self) -> Option<&'static str> {
        match self {
            Self::Window => None,
            Self::Hour => Some("hour"),
            Self::Day => Some("day"),
        }
    }

    fn length(self) -> Option<TimeDelta> {
        match self {
            Self::Window => None,
            Self::Hour => Some(TimeDelta::hours(1)),
            Self::Day => Some(TimeDelta::days(1)),
        }
    }
}

impl From<RateRow> for RatePoint {
    fn from(row: RateRow) -> Self {
        let seconds = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            started_at: row.started_at,
            ended_at: row.ended_at,
            bytes: row.bytes.bytes(),
            measured_s: seconds(row.measured_s),
            unmeasured_s: seconds(row.unmeasured_s),
            min: row.min_bps.map(BitRate::bps),
            mean: row.mean_bps.map(BitRate::bps),
            max: row.max_bps.map(BitRate::bps),
            p50: row.p50_bps.map(BitRate::bps),
            p95: row.p95_bps.map(BitRate::bps),
            p99: row.p99_bps.map(BitRate::bps),
        }
    }
}
