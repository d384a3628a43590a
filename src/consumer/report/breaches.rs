use std::io;

use chrono::{DateTime, Utc};

use super::row::row;
use super::{LinkFilter, stream};
use crate::consumer::store::{Query, Reader, StoreError};
use crate::units::{BitRate, ByteCount};

/// Selects breaches by `raised_at`; `state` is `open`, `cleared` or `unknown`.
#[derive(Clone, Debug, Default)]
pub struct BreachFilter {
    pub links: LinkFilter,
    pub state: Option<String>,
    pub severity: Option<String>,
    pub limit_name: Option<String>,
    pub last: Option<i64>,
}

row! {
    pub struct BreachRow {
        pub raised_at: DateTime<Utc>,
        pub ended_at: DateTime<Utc>,
        pub state: String,
        pub severity: String,
        pub agent: String,
        pub interface: String,
        pub direction: String,
        pub limit_name: String,
        pub limit_bps: BitRate,
        pub rate_bps: BitRate,
        pub peak_bps: BitRate,
        pub mean_bps: BitRate,
        pub excess_bytes: ByteCount,
        pub duration_ms: i64,
        pub measured_ms: i64,
        pub reason: Option<String>,
        pub detail: Option<String>,
        pub started_at: DateTime<Utc>,
        pub cleared_at: Option<DateTime<Utc>>,
        pub last_observed_at: DateTime<Utc>,
        pub breach_id: String,
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct BreachSpan {
    pub from: DateTime<Utc>,
    pub to: Option<DateTime<Utc>>,
    pub severity: String,
    pub limit_name: String,
    pub limit_bps: u64,
    pub peak_bps: u64,
}

pub fn read(
    reader: &mut dyn Reader,
    filter: &BreachFilter,
    mut print: impl FnMut(BreachRow) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    stream(reader, &query(filter), |row| print(BreachRow::read(row)?))
}

/// Returns the breaches that overlap the time of `links`, however long before it they were raised.
pub fn spans(reader: &mut dyn Reader, links: &LinkFilter) -> Result<io::Result<Vec<BreachSpan>>, StoreError> {
    let mut spans = Vec::new();
    let query = links
        .names(BreachRow::select(&[]).then("FROM breaches WHERE true"))
        .with_any("AND raised_at < ?", links.until)
        .with_any("AND (state = 'open' OR ended_at >= ?)", links.since)
        .ordered(ORDER, None);
    let read = stream(reader, &query, |row| {
        spans.push(BreachSpan::from(BreachRow::read(row)?));
        Ok(())
    })?;
    Ok(read.map(|()| spans))
}

const ORDER: &[&str] = &["raised_at", "agent", "breach_id"];

fn query(filter: &BreachFilter) -> Query {
    let query = BreachRow::select(&[]).then("FROM breaches WHERE true");
    let query = filter.links.times(filter.links.names(query), "raised_at");
    query
        .with_any("AND state = ?", filter.state.as_deref())
        .with_any("AND severity = ?", filter.severity.as_deref())
        .with_any("AND limit_name = ?", filter.limit_name.as_deref())
        .ordered(ORDER, filter.last)
}

impl From<BreachRow> for BreachSpan {
    fn from(row: BreachRow) -> Self {
        Self {
            from: row.started_at,
            to: (row.state != "open").then_some(row.ended_at),
            severity: row.severity,
            limit_name: row.limit_name,
            limit_bps: row.limit_bps.bps(),
            peak_bps: row.peak_bps.bps(),
        }
    }
}
