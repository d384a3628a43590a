//! Rate over time: what half and 95 % of the seconds did not exceed, and the highest second, with limits, breaches and holes.

mod columns;
mod drawing;
mod terminal;

use std::time::Duration;

use chrono::{DateTime, Utc};
use jiff::tz::TimeZone;

use self::columns::{RateColumn, columns, holes};
use super::axis::{Axis, Quantity};
use super::screen::{cut, width};
use super::time_axis::TimeAxis;
use crate::consumer::report::breaches::BreachSpan;
use crate::consumer::report::rates::RatePoint;
use crate::units::{counted, lasting};

#[derive(Clone, Debug, Default)]
pub struct RateSeries {
    pub agent: String,
    pub interface: String,
    pub direction: String,
    pub points: Vec<RatePoint>,
    pub limits: Vec<LimitLine>,
    pub breaches: Vec<BreachSpan>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitLine {
    pub bps: u64,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct RatePlot<'a> {
    pub series: &'a [RateSeries],
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub zone: TimeZone,
    pub log: bool,
    /// `5 min`
    pub step: String,
    pub hidden: usize,
}

#[derive(Debug)]
struct Panel<'a> {
    series: &'a RateSeries,
    name: String,
    columns: Vec<RateColumn>,
    holes: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    max: Option<u64>,
}

/// Limits farther above the traffic than this are named, not drawn: else the traffic would be a flat line.
const LIMIT_ABOVE_MAX: u64 = 4;
/// Greatest ratio of rates that share one scale.
const SIMILAR: f64 = 4.0;

impl RateSeries {
    fn names(&self) -> [&str; 3] {
        [&self.agent, &self.interface, &self.direction]
    }

    fn severity_at(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<&str> {
        let hits = self.breaches.iter().filter(|breach| breach.from < to && breach.to.is_none_or(|end| end >= from));
        let severity = |breach: &'_ &BreachSpan| breach.severity == "critical";
        hits.max_by_key(severity).map(|breach| breach.severity.as_str())
    }
}

impl<'a> RatePlot<'a> {
    fn axis(&self) -> TimeAxis {
        TimeAxis::new(self.from, self.to, self.zone.clone())
    }

    fn panels(&self, columns_max: usize) -> Vec<Panel<'a>> {
        let shared = shared_names(self.series.iter().map(RateSeries::names));
        let axis = self.axis();
        let panel = |series: &'a RateSeries| {
            let columns = columns(&series.points, axis.from, axis.to, columns_max);
            Panel {
                series,
                name: own_name(series.names(), shared),
                holes: holes(&columns, axis.from, axis.to),
                max: columns.iter().filter_map(|column| column.max).max(),
                columns,
            }
        };
        self.series.iter().map(panel).collect()
    }

    fn name(&self) -> String {
        let shared = shared_names(self.series.iter().map(RateSeries::names));
        let Some(first) = self.series.first() else { return "Rate".to_owned() };
        let common: Vec<&str> =
            first.names().into_iter().zip(shared).filter(|(_, shared)| *shared).map(|(name, _)| name).collect();
        if common.is_empty() { "Rate".to_owned() } else { common.join(" ") }
    }

    fn subtitle(&self) -> String {
        let zone = self.axis();
        let count = match (self.series.len(), self.hidden) {
            (0 | 1, 0) => String::new(),
            (shown, 0) => format!(", {shown} series"),
            (shown, hidden) => format!(", the busiest {shown} of {} series", shown + hidden),
        };
        format!("Bit rate, {} {}{count}", zone.span(), zone.zone_name())
    }

    fn caption(&self, merged: bool) -> String {
        let step = if self.step.is_empty() { "a window".to_owned() } else { format!("windows of {}", self.step) };
        let merged =
            if merged { "; where several share a place: their highest max and p95, their median p50" } else { "" };
        format!("One-second rates in {step}{merged}")
    }

    fn description(&self, panels: &[Panel<'_>]) -> String {
        let mut text = self.subtitle();
        text.push('.');
        for panel in panels {
            text.push_str(&format!(" {}: {}.", panel.series.names().join(" "), panel.in_words()));
        }
        if panels.is_empty() {
            text.push_str(" No data.");
        }
        text
    }
}

impl Panel<'_> {
    fn unmeasured_s(&self) -> i64 {
        let in_holes: i64 = self.holes.iter().map(|(from, to)| (*to - *from).num_seconds()).sum();
        in_holes + self.columns.iter().filter(|column| column.max.is_some()).map(RateColumn::unmeasured_s).sum::<i64>()
    }

    fn in_words(&self) -> String {
        let Some(max) = self.max else { return "no data".to_owned() };
        let mut words = format!("highest second {}", Quantity::BitRate.show(max));
        if let Some(p95) = self.columns.iter().filter_map(|column| column.p95).max() {
            words.push_str(&format!(", highest p95 {}", Quantity::BitRate.show(p95)));
        }
        if !self.series.breaches.is_empty() {
            words.push_str(&format!(", {}", counted(self.series.breaches.len() as u64, "breach")));
        }
        let unmeasured = self.unmeasured_s();
        if unmeasured > 0 {
            let unmeasured = Duration::from_secs(unmeasured.unsigned_abs());
            words.push_str(&format!(", {} not measured", lasting(unmeasured)));
        }
        words
    }

    /// Describes the panel in so many columns; the highest p95 is left out first.
    fn in_short(&self, columns: usize) -> String {
        let Some(max) = self.max else { return "no data".to_owned() };
        let max = format!("max {}", Quantity::BitRate.show(max));
        let p95 = self.columns.iter().filter_map(|column| column.p95).max();
        let p95 = p95.map(|p95| format!("p95 up to {}", Quantity::BitRate.show(p95)));
        let breaches = self.series.breaches.len() as u64;
        let breaches = (breaches > 0).then(|| counted(breaches, "breach"));
        let unmeasured = u64::try_from(self.unmeasured_s()).ok().filter(|seconds| *seconds > 0);
        let unmeasured = unmeasured.map(|s| format!("{} not measured", lasting(Duration::from_secs(s))));
        let words = |p95: Option<&String>| {
            let parts = [Some(&max), p95, breaches.as_ref(), unmeasured.as_ref()];
            parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        let all = words(p95.as_ref());
        if width(&all) <= columns { all } else { cut(&words(None), columns) }
    }

    fn top(&self) -> u64 {
        let max = self.max.unwrap_or(0);
        let near = |limit: &&LimitLine| limit.bps <= max.saturating_mul(LIMIT_ABOVE_MAX) || max == 0;
        self.series.limits.iter().filter(near).map(|limit| limit.bps).chain([max]).max().unwrap_or(0)
    }

    fn value_axis(&self, log: bool, top: u64, ticks_max: usize) -> Axis {
        if !log {
            return Axis::linear(Quantity::BitRate, top, ticks_max);
        }
        let lowest = |column: &RateColumn| column.p50.filter(|rate| *rate > 0).or(column.max.filter(|rate| *rate > 0));
        let low = self.columns.iter().filter_map(lowest).min().unwrap_or(1_000);
        Axis::log(Quantity::BitRate, low.min(top.max(1)), top, ticks_max)
    }
}

fn common_top(panels: &[Panel<'_>]) -> Option<u64> {
    let tops = || panels.iter().filter(|panel| panel.max.is_some()).map(Panel::top);
    let (low, high) = (tops().min()?, tops().max()?);
    (high as f64 <= low as f64 * SIMILAR).then_some(high)
}

pub(super) fn shared_names<'a>(names: impl Iterator<Item = [&'a str; 3]> + Clone) -> [bool; 3] {
    let Some(first) = names.clone().next() else { return [false; 3] };
    let mut shared = [true; 3];
    for names in names {
        for (at, name) in names.iter().enumerate() {
            shared[at] &= *name == first[at];
        }
    }
    shared
}

pub(super) fn own_name(names: [&str; 3], shared: [bool; 3]) -> String {
    let own: Vec<&str> = names.into_iter().zip(shared).filter(|(_, shared)| !shared).map(|(name, _)| name).collect();
    if own.is_empty() { names.join(" ") } else { own.join(" ") }
}
