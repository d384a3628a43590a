//! Distribution of one-second rates: the number of seconds at each rate, with percentiles.

mod bars;
mod drawing;
mod terminal;

use self::bars::{Bars, bars};
use super::axis::{Axis, Quantity, Scale};
use super::rate::{own_name, shared_names};
use crate::consumer::report::histogram::HistogramBins;
use crate::units::lasting;

#[derive(Clone, Debug, Default)]
pub struct Distribution {
    pub agent: String,
    pub interface: String,
    pub direction: String,
    pub histogram: HistogramBins,
}

#[derive(Clone, Debug)]
pub struct HistogramPlot<'a> {
    pub series: &'a [Distribution],
    /// `28 Nov 2026, 10:00–11:00 UTC`
    pub span: String,
    pub log_rates: bool,
    pub log_counts: bool,
    pub hidden: usize,
}

#[derive(Debug)]
struct Chart<'a> {
    series: &'a Distribution,
    name: String,
    bars: Bars,
    counts: Axis,
}

/// Greatest ratio of the highest rates that share one axis.
const SIMILAR: u64 = 8;

impl Distribution {
    fn names(&self) -> [&str; 3] {
        [&self.agent, &self.interface, &self.direction]
    }

    fn max(&self) -> Option<u64> {
        let bins = &self.histogram.bins;
        self.histogram.max.or_else(|| bins.iter().filter(|bin| bin.2 > 0).map(|bin| bin.1).max())
    }

    fn marks(&self) -> Vec<(&'static str, u64)> {
        let HistogramBins { p50, p95, p99, .. } = self.histogram;
        let marks = [("p50", p50), ("p95", p95), ("p99", p99), ("max", self.max())];
        marks.into_iter().filter_map(|(name, rate)| Some((name, rate?))).collect()
    }

    fn in_words(&self) -> String {
        let Some(max) = self.max() else { return "no data".to_owned() };
        let marks = self.marks();
        let percentiles = marks.iter().filter(|(name, _)| *name != "max");
        let mut words: Vec<String> =
            percentiles.map(|(name, rate)| format!("{name} {}", Quantity::BitRate.show(*rate))).collect();
        words.push(format!("max {}", Quantity::BitRate.show(max)));
        words.join(", ")
    }

    fn coverage(&self) -> String {
        let time = |seconds: u64| lasting(std::time::Duration::from_secs(seconds));
        let HistogramBins { measured_s, unmeasured_s, .. } = self.histogram;
        match unmeasured_s {
            0 => format!("{} measured", time(measured_s)),
            unmeasured_s => format!("{} measured, {} not measured", time(measured_s), time(unmeasured_s)),
        }
    }
}

impl<'a> HistogramPlot<'a> {
    fn name(&self) -> String {
        let Some(first) = self.series.first() else { return "Distribution of rates".to_owned() };
        let shared = shared_names(self.series.iter().map(Distribution::names));
        let common: Vec<&str> =
            first.names().into_iter().zip(shared).filter(|(_, shared)| *shared).map(|(name, _)| name).collect();
        if common.is_empty() { "Distribution of rates".to_owned() } else { common.join(" ") }
    }

    fn subtitle(&self) -> String {
        let count = match (self.series.len(), self.hidden) {
            (0 | 1, 0) => String::new(),
            (shown, 0) => format!(", {shown} series"),
            (shown, hidden) => format!(", {shown} of {} series", shown + hidden),
        };
        let span = if self.span.is_empty() { String::new() } else { format!(", {}", self.span) };
        format!("Seconds at each bit rate{span}{count}")
    }

    fn charts(&self, bars_max: usize, rate_ticks: usize, count_ticks: usize) -> Vec<Chart<'a>> {
        let shared = shared_names(self.series.iter().map(Distribution::names));
        let common = self.common_axis(rate_ticks);
        let chart = |series: &'a Distribution| {
            let axis = common.clone().unwrap_or_else(|| self.rate_axis(&[series], rate_ticks));
            let bars = bars(&series.histogram.bins, axis, bars_max);
            let most = bars.counts().fold(0.0, f64::max).ceil() as u64;
            Chart { series, name: own_name(series.names(), shared), counts: self.count_axis(most, count_ticks), bars }
        };
        self.series.iter().map(chart).collect()
    }

    fn common_axis(&self, ticks_max: usize) -> Option<Axis> {
        let tops = || self.series.iter().filter_map(Distribution::max);
        let (low, high) = (tops().min()?, tops().max()?);
        let is_similar = self.log_rates || high <= low.saturating_mul(SIMILAR);
        is_similar.then(|| self.rate_axis(&self.series.iter().collect::<Vec<_>>(), ticks_max))
    }

    fn rate_axis(&self, series: &[&Distribution], ticks_max: usize) -> Axis {
        let top = series.iter().filter_map(|series| series.max()).max().unwrap_or(1_000_000);
        if !self.log_rates {
            return Axis::linear(Quantity::BitRate, top, ticks_max);
        }
        let bins = series.iter().flat_map(|series| &series.histogram.bins);
        let low = bins.filter(|bin| bin.2 > 0 && bin.0 > 0).map(|bin| bin.0).min().unwrap_or(1_000);
        Axis::log(Quantity::BitRate, low.min(top.max(1)), top, ticks_max)
    }

    fn count_axis(&self, most: u64, ticks_max: usize) -> Axis {
        if !self.log_counts {
            return Axis::linear(Quantity::Seconds, most, ticks_max);
        }
        let mut axis = Axis::log(Quantity::Seconds, 1, most, ticks_max);
        // The axis begins below 1: a single second is a bar too.
        axis.scale = Scale::Log { from: 0.5, to: axis.scale.end() };
        axis
    }

    fn description(&self) -> String {
        let mut text = self.subtitle();
        text.push('.');
        for series in self.series {
            text.push_str(&format!(" {}: {}; {}.", series.names().join(" "), series.in_words(), series.coverage()));
        }
        if self.series.is_empty() {
            text.push_str(" No data.");
        }
        text
    }
}
