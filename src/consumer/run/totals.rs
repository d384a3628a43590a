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
    /// Logs a line for each sum that a batch, which is stored, has changed.
    pub(super) fn log_totals(&mut self, applied: &Applied) {
        let Some(totals) = &mut self.totals else { return };
        for line in totals.lines(&applied.grown) {
            log::info!("{line}");
        }
    }
}

impl Totals {
    /// Adds what the sums have grown by; the lines that say what they are now.
    fn lines(&mut self, grown: &Sums) -> Vec<String> {
        let changed: Vec<(&TotalKey, u64)> =
            grown.iter().map(|(key, bytes)| (key, *bytes)).filter(|(_, bytes)| *bytes > 0).collect();
        for (key, bytes) in &changed {
            let sum = self.since_start.entry((*key).clone()).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        let keys: Vec<&TotalKey> = changed.into_iter().map(|(key, _)| key).collect();
        let stored = match stored(&mut *self.reader, &keys) {
            Ok(stored) => stored,
            Err(why) => {
                log::warn!("totals: {why}");
                return Vec::new();
            }
        };
        let line = |key: &&TotalKey| {
            let shown = |sums: &Sums| ByteCount::from_bytes(sums.get(*key).copied().unwrap_or(0));
            let TotalKey { agent, interface, direction, limit_name } = key;
            let (since_start, in_all) = (shown(&self.since_start), shown(&stored));
            format!(
                "total {agent} {interface} {direction}: {since_start} over limit {limit_name} since the start, {in_all} in all"
            )
        };
        keys.iter().map(line).collect()
    }
}

/// Reads these sums over all days. They are added up in halves: the sum of two that are as great as a `bigint` is none.
fn stored(reader: &mut dyn Reader, keys: &[&TotalKey]) -> Result<Sums, StoreError> {
    const KINDS: &[Kind] = &[Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Number, Kind::Number];
    /// Databases bound the number of parameters.
    const KEYS_MAX: usize = 1_000;
    let mut sums = Sums::new();
    for keys in keys.chunks(KEYS_MAX) {
        let mut query = Query::new(
            "SELECT agent, interface, direction, limit_name, CAST(sum(excess_bytes >> 32) AS bigint), \
             CAST(sum(excess_bytes & 4294967295) AS bigint) FROM totals",
            KINDS,
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

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    /// A database that has these rows.
    struct Rows(Vec<Vec<Value>>);

    impl Reader for Rows {
        fn read(&mut self, _: &Query, each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>) -> Result<(), StoreError> {
            let _ = self.0.iter().cloned().try_for_each(each);
            Ok(())
        }
    }

    fn key(interface: &str) -> TotalKey {
        TotalKey { agent: "gw".into(), interface: interface.into(), direction: "rx", limit_name: "wan-down".into() }
    }

    fn totals(high: i64, low: i64) -> Totals {
        let texts = ["gw", "eth0", "rx", "wan-down"].map(Value::from);
        Totals::new(Box::new(Rows(vec![texts.into_iter().chain([high.into(), low.into()]).collect()])))
    }

    #[test]
    fn a_change_is_one_line_with_direction_limit_and_one_unit_and_what_has_not_changed_is_none() {
        let mut totals = totals(0, 5_072);
        let line = "total gw eth0 rx: 2.0 KiB over limit wan-down since the start, 5.0 KiB in all";
        assert_eq!(totals.lines(&Sums::from([(key("eth0"), 2_072), (key("eth1"), 0)])), [line]);
        assert_eq!(totals.lines(&Sums::from([(key("eth0"), 0)])), [""; 0]);
        assert_eq!(totals.lines(&Sums::new()), [""; 0]);
    }

    #[test]
    fn sums_stop_where_a_number_ends() {
        let line = |mut totals: Totals| totals.lines(&Sums::from([(key("eth0"), 1)])).remove(0);
        assert!(line(totals(3, 0)).contains("12.0 GiB in all"));
        assert!(line(totals(i64::MAX, i64::MAX)).contains("16777216.0 TiB in all"));
    }
}
