use std::io;

use chrono::{DateTime, Utc};

use super::row::row;
use super::{LinkFilter, stream};
use crate::consumer::store::{Query, Reader, StoreError};
use crate::units::{BitRate, ByteCount};

/// Selects events by `observed_at`.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub links: LinkFilter,
    pub kinds: Vec<String>,
    pub severity: Option<String>,
    pub limit_name: Option<String>,
    pub last: Option<i64>,
}

row! {
    /// `None` is a field that its kind does not have.
    pub struct EventRow {
        pub observed_at: DateTime<Utc>,
        pub agent: String,
        pub epoch: String,
        pub seq: i64,
        pub kind: String,
        pub severity: Option<String>,
        pub interface: Option<String>,
        pub ifindex: Option<i64>,
        pub direction: Option<String>,
        pub limit_name: Option<String>,
        pub limit_bps: Option<BitRate>,
        pub rate_bps: Option<BitRate>,
        pub peak_bps: Option<BitRate>,
        pub mean_bps: Option<BitRate>,
        pub excess_bytes: Option<ByteCount>,
        pub duration_ms: Option<i64>,
        pub measured_ms: Option<i64>,
        pub breach_id: Option<String>,
        pub started_at: Option<DateTime<Utc>>,
        pub raised_at: Option<DateTime<Utc>>,
        pub ended_at: Option<DateTime<Utc>>,
        pub speed_bps: Option<BitRate>,
        pub lost_epoch: Option<String>,
        pub ranges: Option<serde_json::Value>,
        pub version: Option<String>,
        pub reason: Option<String>,
        pub detail: Option<String>,
        pub clock_synced: Option<bool>,
        pub stored_at: DateTime<Utc>,
        pub kafka_topic: String,
        pub kafka_partition: i64,
        pub kafka_offset: i64,
    }
}

pub fn read(
    reader: &mut dyn Reader,
    filter: &EventFilter,
    mut print: impl FnMut(EventRow) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    stream(reader, &query(filter), |row| print(EventRow::read(row)?))
}

fn query(filter: &EventFilter) -> Query {
    let query = EventRow::select(&[]).then("FROM events WHERE true");
    let query = filter.links.times(filter.links.names(query), "observed_at");
    query
        .with_one_of("kind", &filter.kinds)
        .with_any("AND severity = ?", filter.severity.as_deref())
        .with_any("AND limit_name = ?", filter.limit_name.as_deref())
        .ordered(&["observed_at", "agent", "epoch", "seq"], filter.last)
}
