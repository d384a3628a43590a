use clap::Args;

use super::common::unavailable;
use super::flags::QuestionFlags;
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::consumer::report::histogram::{self, HistogramBins};
use crate::process::exit::Failure;
use crate::units::{BitRate, ByteCount, counted};

pub(super) const HELP: &str = "\
How many seconds had which rate, of one link, or of several in one: each second
of each link counts once. Without --agent and --interface it is of all links. A
time is merged from whole days and hours of UTC, and from windows at its edges,
whose seconds are kept for 37 days: use whole hours for what is older.

A table has bins of 1, 2, 5, 10, … ; JSON and CSV have those of the histogram,
at most 1 % wide. Percentiles are at most 1 % too high.

Examples:
  highwater-consumer histogram --agent gw-042 --interface eth0 \\
    --direction rx --since today
  highwater-consumer histogram --direction tx --since 2026-11-28T00:00:00Z \\
    --until 2026-11-29T00:00:00Z
  highwater-consumer histogram --agent gw-042 --since 30d --format csv";

#[derive(Args, Debug)]
pub(super) struct HistogramCommand {
    #[command(flatten)]
    question: QuestionFlags,
}

const COLUMNS: &[&str] = &["from_bps", "to_bps", "seconds", "percent", "percent_up_to"];

impl HistogramCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (settings, mut links) = self.question.prepare()?;
        if links.directions.is_empty() {
            // Both directions together would count each second twice.
            links.directions = vec!["rx".to_owned(), "tx".to_owned()];
        }
        let bins = histogram::read(&mut *settings.store.reader(), &links).map_err(unavailable)?;
        let bins = bins.map_err(|error| unavailable(format!("the store is not readable: {error}")))?;
        let mut rows = Rows::new(self.question.format, COLUMNS, output::stdout(self.question.format));
        let shown = if self.question.format == OutputFormat::Table { coarse(&bins.bins) } else { bins.bins.clone() };
        let all: u64 = bins.bins.iter().map(|(.., count)| count).sum();
        let mut so_far = 0;
        let printed = shown.into_iter().try_for_each(|(from, to, count)| {
            so_far += count;
            rows.push([
                BitRate::from_bps(from).into(),
                BitRate::from_bps(to).into(),
                count.into(),
                percent(count, all),
                percent(so_far, all),
            ])
        });
        output::finished(printed.and_then(|()| rows.end()))?;
        self.note(&bins);
        Ok(())
    }

    fn note(&self, bins: &HistogramBins) {
        let say = |text: &str| self.question.common.note(text);
        if bins.windows == 0 {
            return say("no rates are stored of these links in this time");
        }
        say(&format!(
            "{} in {}: {} measured, {} not measured",
            ByteCount::from_bytes(bins.bytes),
            counted(bins.windows, "window"),
            counted(bins.measured_s, "second"),
            counted(bins.unmeasured_s, "second")
        ));
        let rate = |bps: Option<u64>| bps.map_or("-".to_owned(), |bps| BitRate::from_bps(bps).to_string());
        let [min, mean, p50, p95, p99, max] = [bins.min, bins.mean, bins.p50, bins.p95, bins.p99, bins.max].map(rate);
        say(&format!("min {min}, mean {mean}, p50 {p50}, p95 {p95}, p99 {p99}, max {max}"));
        for (windows, why) in [
            (bins.late_windows, "came too late for their seconds to be kept"),
            (bins.expired_windows, "at an edge of this time are too old: choose whole hours of UTC"),
        ] {
            if windows > 0 {
                say(&format!("{} {why}; they are in the sums, not in the bins", counted(windows, "window")));
            }
        }
    }
}

fn percent(count: u64, all: u64) -> Value {
    if all == 0 { Value::Null } else { ((count as f64 * 1e5 / all as f64).round() / 1e3).into() }
}

/// Sums bins into those between 0, 1, 2, 5, 10, … Mbit/s, from the lowest to the highest one that has seconds.
fn coarse(bins: &[(u64, u64, u64)]) -> Vec<(u64, u64, u64)> {
    let mut bounds = vec![0];
    bounds.extend((3..=13).flat_map(|power| [1, 2, 5].map(|step| step * 10_u64.pow(power))));
    let mut sums: Vec<(u64, u64, u64)> = bounds.windows(2).map(|pair| (pair[0], pair[1], 0)).collect();
    for (from, to, count) in bins {
        // By its middle: the bin of a round rate begins below it.
        let middle = from + (to - from) / 2;
        let at = sums.partition_point(|(_, to, _)| *to <= middle).min(sums.len() - 1);
        sums[at].2 += count;
    }
    let used = |sum: &(u64, u64, u64)| sum.2 > 0;
    match (sums.iter().position(used), sums.iter().rposition(used)) {
        (Some(first), Some(last)) => sums[first..=last].to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_round_bins_without_a_hole_between_them() {
        assert_eq!(coarse(&[]), []);
        let bins = [(0, 1_000, 5), (1_500_000, 1_512_000, 7), (1_980_000, 1_992_000, 2), (1_992_000, 2_016_000, 1)];
        let coarse = coarse(&bins);
        assert_eq!((coarse[0], coarse.last().copied()), ((0, 1_000, 5), Some((2_000_000, 5_000_000, 1))));
        assert_eq!(coarse[coarse.len() - 2], (1_000_000, 2_000_000, 9));
        assert!(coarse.windows(2).all(|pair| pair[0].1 == pair[1].0), "{coarse:?}");
        assert_eq!(super::coarse(&[(u64::MAX - 1, u64::MAX, 3)]).last().map(|bin| bin.2), Some(3));
    }
}
