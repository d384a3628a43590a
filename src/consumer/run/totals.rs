//! `--log-totals`: what each event's link has carried over its limits, since the start of the run and in all.

use std::collections::{BTreeMap, BTreeSet};

use super::Consumer;
use crate::consumer::batch::Batch;
use crate::consumer::store::{Applied, Kind, Query, Reader};
use crate::event::Event;
use crate::units::ByteCount;

/// Sums by agent and interface.
type Sums = BTreeMap<(String, String), u64>;

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
    /// A line for each event of a breach in the batch, which is stored. Copies of an event are told too: their sum stands still.
    pub(super) fn tell_totals(&mut self, batch: &Batch, applied: &Applied) {
        let Some(totals) = &mut self.totals else { return };
        for (pair, bytes) in &applied.grown {
            let sum = totals.since_start.entry(pair.clone()).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        let floor = |partition: &i32| applied.floors.get(partition).copied().unwrap_or(0);
        let events = batch.slices.iter().flat_map(|(partition, slice)| {
            slice.records.iter().filter(move |record| record.offset >= floor(partition))
        });
        let pairs: Vec<(&str, &str)> = events.filter_map(|record| pair(record.content.as_ref().ok()?)).collect();
        if pairs.is_empty() {
            return;
        }
        match stored(&mut *totals.reader, &pairs) {
            Ok(stored) => {
                for (agent, interface) in pairs {
                    let pair = (agent.to_owned(), interface.to_owned());
                    let (since, all) = (totals.since_start.get(&pair), stored.get(&pair));
                    let shown = |bytes: Option<&u64>| {
                        let bytes = bytes.copied().unwrap_or(0);
                        format!("{bytes} bytes ({})", ByteCount::from_bytes(bytes))
                    };
                    log::info!(
                        "total {agent}/{interface}: {} over limit since the start, {} stored",
                        shown(since),
                        shown(all)
                    );
                }
            }
            Err(why) => log::warn!("totals: {why}"),
        }
    }
}

fn pair(event: &Event) -> Option<(&str, &str)> {
    Some((event.stamp.agent.as_str(), event.body.breach()?.interface.as_str()))
}

/// The sums of these pairs over all days and directions.
fn stored(reader: &mut dyn Reader, pairs: &[(&str, &str)]) -> Result<Sums, String> {
    const KINDS: &[Kind] = &[Kind::Text, Kind::Text, Kind::Bytes];
    /// Databases bound the number of parameters.
    const PAIRS_MAX: usize = 1_000;
    let distinct: Vec<&(&str, &str)> = pairs.iter().collect::<BTreeSet<_>>().into_iter().collect();
    let mut sums = Sums::new();
    for pairs in distinct.chunks(PAIRS_MAX) {
        let mut query = Query::new("SELECT agent, interface, CAST(sum(excess_bytes) AS bigint) FROM totals", KINDS)
            .then("WHERE (agent, interface) IN (VALUES");
        for (at, (agent, interface)) in pairs.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            query = query.with(&format!("{comma} (?,"), *agent).with("?)", *interface);
        }
        for row in reader.ask(&query.then(") GROUP BY 1, 2")).map_err(|fault| fault.to_string())? {
            let mut row = row.into_iter();
            let mut text = || row.next()?.into_text();
            let pair = text().zip(text());
            let bytes = row.next().and_then(crate::output::Value::into_number);
            sums.extend(pair.zip(bytes));
        }
    }
    Ok(sums)
}
