//! Bytes over limit, summed by link, limit and day.

use std::collections::BTreeMap;
use std::io;

use chrono::NaiveDate;

use super::stream;
use crate::cli::output::Value;
use crate::consumer::store::ColumnType::{Bytes, Day, Number, Text};
use crate::consumer::store::{ColumnType, Query, Reader, StoreError, TotalKey};

#[derive(Clone, Debug, Default)]
pub struct TotalsFilter {
    pub agent: Option<String>,
    pub scope: Option<&'static str>,
    pub interface: Option<String>,
    pub limit_name: Option<String>,
    pub since: Option<NaiveDate>,
    pub until: Option<NaiveDate>,
}

pub const COLUMNS: [&str; 8] =
    ["day", "agent", "scope", "interface", "direction", "limit_name", "breaches", "excess_bytes"];
const TYPES: &[ColumnType] = &[Day, Text, Text, Text, Text, Text, Number, Bytes];

pub fn read(
    reader: &mut dyn Reader,
    filter: &TotalsFilter,
    print: impl FnMut(Vec<Value>) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    let query = Query::new(&format!("SELECT {} FROM totals WHERE true", COLUMNS.join(", ")), TYPES)
        .with_any("AND agent = ?", filter.agent.as_deref())
        .with_any("AND scope = ?", filter.scope)
        .with_any("AND interface = ?", filter.interface.as_deref())
        .with_any("AND limit_name = ?", filter.limit_name.as_deref())
        .with_any("AND day >= ?", filter.since)
        .with_any("AND day <= ?", filter.until)
        .then("ORDER BY day, agent, scope DESC, interface, direction, limit_name");
    stream(reader, &query, print)
}

pub type Sums = BTreeMap<TotalKey, u64>;

/// Sums over all days, high and low halves apart: the sum of two great `bigint`s would overflow.
pub fn sums(reader: &mut dyn Reader, keys: &[&TotalKey]) -> Result<Sums, StoreError> {
    const SUMS: &[ColumnType] = &[Text, Text, Text, Text, Number, Number];
    const KEYS_MAX: usize = 1_000;
    let mut sums = Sums::new();
    for keys in keys.chunks(KEYS_MAX) {
        let mut query = Query::new(
            "SELECT agent, interface, direction, limit_name, CAST(sum(excess_bytes >> 32) AS bigint), \
             CAST(sum(excess_bytes & 4294967295) AS bigint) FROM totals",
            SUMS,
        )
        .then("WHERE (agent, interface, direction, limit_name) IN (VALUES");
        for (at, key) in keys.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            query = query
                .with(&format!("{comma} (?,"), key.agent.as_str())
                .with("?,", key.interface.as_str())
                .with("?,", key.direction)
                .with("?)", key.limit_name.as_str());
        }
        for row in reader.ask(&query.then(") GROUP BY 1, 2, 3, 4"))? {
            sums.extend(sum(row, keys));
        }
    }
    Ok(sums)
}

fn sum(row: Vec<Value>, keys: &[&TotalKey]) -> Option<(TotalKey, u64)> {
    let mut row = row.into_iter();
    let (agent, interface) = (row.next()?.into_text()?, row.next()?.into_text()?);
    let (direction, limit_name) = (row.next()?.into_text()?, row.next()?.into_text()?);
    let (high, low): (i128, i128) = (row.next()?.into_number()?, row.next()?.into_number()?);
    let key = TotalKey {
        agent,
        interface,
        direction: keys.iter().map(|key| key.direction).find(|known| *known == direction)?,
        limit_name,
    };
    Some((key, u64::try_from((high << 32) + low).unwrap_or(u64::MAX)))
}
