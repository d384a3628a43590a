//! `--log-totals`: what each link has carried over each of its limits, since the start of the run and in all.

use std::collections::BTreeMap;

use super::Consumer;
use crate::consumer::store::{Applied, Kind, Query, Reader, StoreError, TotalKey};
use crate::output::Value;
use crate::units::ByteCount;

/// Bytes by what they are summed by.
type Sums = BTreeMap<TotalKey, u64>;

/// The sums of this run, and who knows those of all runs.
pub(super) struct Totals {
    since_start: Sums,
    reader: Box<dyn Reader + Send>,
}

impl Totals {
    pub(super) fn new(reader: Box<dyn Reader + Send>) -> Self {
        Self { since_start: Sums::new(), reader }
    }
}

impl Consumer<'_> {
    /// A line for each sum that a batch, which is stored, has changed.
    pub(super) fn tell_totals(&mut self, applied: &Applied) {
        let Some(totals) = &mut self.totals else { return };
        let changed: Vec<(&TotalKey, u64)> =
            applied.grown.iter().map(|(key, bytes)| (key, *bytes)).filter(|(_, bytes)| *bytes > 0).collect();
        for (key, bytes) in &changed {
            let sum = totals.since_start.entry((*key).clone()).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        if changed.is_empty() {
            return;
        }
        match stored(&mut *totals.reader, &changed) {
            Ok(stored) => {
                for (key, _) in changed {
                    let shown = |sums: &Sums| ByteCount::from_bytes(sums.get(key).copied().unwrap_or(0));
                    let TotalKey { agent, interface, direction, limit_name } = key;
                    log::info!(
                        "total {agent} {interface} {direction} {limit_name}: {} over limit since the start, {} in all",
                        shown(&totals.since_start),
                        shown(&stored)
                    );
                }
            }
            Err(why) => log::warn!("totals: {why}"),
        }
    }
}

/// These sums over all days.
fn stored(reader: &mut dyn Reader, keys: &[(&TotalKey, u64)]) -> Result<Sums, StoreError> {
    const KINDS: &[Kind] = &[Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Bytes];
    /// Databases bound the number of parameters.
    const KEYS_MAX: usize = 1_000;
    let mut sums = Sums::new();
    for keys in keys.chunks(KEYS_MAX) {
        let mut query = Query::new(
            "SELECT agent, interface, direction, limit_name, CAST(sum(excess_bytes) AS bigint) FROM totals",
            KINDS,
        )
        .then("WHERE (agent, interface, direction, limit_name) IN (VALUES");
        for (at, (key, _)) in keys.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            query = query
                .with(&format!("{comma} (?,"), key.agent.as_str())
                .with("?,", key.interface.as_str())
                .with("?,", key.direction)
                .with("?)", key.limit_name.as_str());
        }
        let rows = reader.ask(&query.then(") GROUP BY 1, 2, 3, 4"))?;
        for (row, bytes) in rows.into_iter().filter_map(|mut row| Some((row.clone(), row.pop()?))) {
            let texts: Vec<String> = row.into_iter().filter_map(Value::into_text).collect();
            let found = keys
                .iter()
                .map(|(key, _)| *key)
                .find(|key| texts == [&*key.agent, &*key.interface, key.direction, &*key.limit_name]);
            sums.extend(found.cloned().zip(bytes.into_number()));
        }
    }
    Ok(sums)
}
