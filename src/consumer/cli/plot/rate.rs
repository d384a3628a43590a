use std::collections::{BTreeMap, BTreeSet};
use std::io;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;

use super::picture::Picture;
use crate::consumer::cli::common::{Common, unavailable};
use crate::consumer::cli::flags::{LinkFlags, TimeFlags};
use crate::consumer::cli::rates::By;
use crate::consumer::plot::{LimitLine, RatePlot, RateSeries};
use crate::consumer::report::histogram;
use crate::consumer::report::rates::{self, RateFilter, RatePoint, RateRow, RateStep};
use crate::consumer::report::{LinkFilter, breaches};
use crate::consumer::store::{Reader, StoreError};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;
use crate::units::lasting;

pub(super) const HELP: &str = "\
For each link and direction: what half of its seconds reached (p50), what 95 %
of them reached (p95), and the highest second (max) of each window, hour or day;
its limits as lines, breaches as shades, and holes where nothing was measured.
Without --since, the last 24 hours. Up to two days are drawn by window, up to 60
by hour, and any more by day. Up to three series are charts in the terminal,
more are lines; of more than 40, the busiest are drawn.

Examples:
  highwater-consumer plot rate --agent gw-042 --interface eth0 --since 6h
  highwater-consumer plot rate --agent gw-042 --since today -o today.png
  highwater-consumer plot rate --agent gw-042 --direction rx --since 30d \\
    --theme dark -o month.svg";

#[derive(Args, Debug)]
pub(in crate::consumer::cli) struct PlotRate {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    picture: Picture,
    #[command(flatten)]
    times: TimeFlags,
    #[command(flatten)]
    links: LinkFlags,
    /// By window, hour or day [default: by the length of the time]
    #[arg(long, value_enum, value_name = "STEP")]
    by: Option<By>,
    /// Rates on a logarithmic axis
    #[arg(long)]
    log_rates: bool,
}

/// Agent, interface, direction.
pub(super) type Names = [String; 3];

pub(super) const SERIES_MAX: usize = 40;
/// Points that are read for one picture, about 20 MB.
const POINTS_MAX: usize = 200_000;
const LIMITS_MAX: usize = 4;
const DEFAULT_SPAN: TimeDelta = TimeDelta::hours(24);
/// An agent's latest window arrives this long after its end at most, unless something is wrong.
const USUAL_DELAY: TimeDelta = TimeDelta::minutes(30);

impl PlotRate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let now = SystemClock::default().wall();
        let mut links = self.links.clone().filter(self.times, now)?;
        let is_until_now = links.until.is_none();
        let mut to = links.until.unwrap_or(now);
        let since = *links.since.get_or_insert(to - DEFAULT_SPAN);
        let step = self.by.map_or_else(|| step(to - since), RateStep::from);
        links.since = Some(floor(since, step));

        let mut reader = settings.store.reader();
        let (mut series, hidden) = self.read(&mut *reader, &links, step)?;
        let from = begin(&mut series, since, step);
        for series in &mut series {
            add_breaches(&mut *reader, &links, series).map_err(unavailable)?.map_err(unreadable)?;
        }
        add_limits(&mut *reader, &links, to, &mut series).map_err(unavailable)?.map_err(unreadable)?;
        let newest = series.iter().filter_map(|series| series.points.last()).map(|point| point.ended_at).max();
        if let Some(newest) = newest.filter(|newest| is_until_now && *newest > from && now - *newest < USUAL_DELAY) {
            to = newest;
        }
        let plot = RatePlot {
            from,
            to,
            zone: self.picture.zone(),
            log: self.log_rates,
            step: length(&series, step),
            series: &series,
            hidden,
        };
        self.picture.show(&self.common, |theme, width| plot.svg(theme, width), |page| plot.text(page))
    }

    fn read(
        &self,
        reader: &mut dyn Reader,
        links: &LinkFilter,
        step: RateStep,
    ) -> Result<(Vec<RateSeries>, usize), Failure> {
        let busiest = busiest(reader, links, step).map_err(unavailable)?.map_err(unreadable)?;
        let hidden = busiest.len().saturating_sub(SERIES_MAX);
        let wanted: BTreeSet<Names> = busiest.into_iter().take(SERIES_MAX).collect();
        let mut found: BTreeMap<Names, Vec<RatePoint>> = BTreeMap::new();
        let mut points = 0;
        let filter = RateFilter { links: only(links, &wanted), step, last: None };
        let read = rates::read(reader, &filter, |row| {
            let names = names(&row);
            if wanted.contains(&names) && points < POINTS_MAX {
                points += 1;
                found.entry(names).or_default().push(row.into());
            }
            Ok(())
        });
        read.map_err(unavailable)?.map_err(unreadable)?;
        if points == POINTS_MAX {
            let hint = "choose fewer links, a shorter time, or a longer step (--by)";
            return Err(Failure::failed(format!("more than {POINTS_MAX} rates: {hint}")));
        }
        let series = found.into_iter().map(|([agent, interface, direction], points)| RateSeries {
            agent,
            interface,
            direction,
            points,
            ..RateSeries::default()
        });
        Ok((series.collect(), hidden))
    }
}

fn step(span: TimeDelta) -> RateStep {
    match span.num_days() {
        ..2 => RateStep::Window,
        2..60 => RateStep::Hour,
        _ => RateStep::Day,
    }
}

/// Returns where a picture begins: with the window, hour or day that has `since` in it. Removes what ended before.
fn begin(series: &mut Vec<RateSeries>, since: DateTime<Utc>, step: RateStep) -> DateTime<Utc> {
    for series in &mut *series {
        series.points.retain(|point| point.ended_at > since);
    }
    series.retain(|series| !series.points.is_empty());
    let starts = series.iter().filter_map(|series| series.points.first()).map(|point| point.started_at);
    match step {
        RateStep::Window => starts.min().unwrap_or(since).min(since),
        RateStep::Hour | RateStep::Day => floor(since, step),
    }
}

/// Rounds a time down to the hour or day, so that a query from there on reads the window, hour or day that holds it.
fn floor(time: DateTime<Utc>, step: RateStep) -> DateTime<Utc> {
    let seconds = match step {
        // The longest window is an hour.
        RateStep::Window | RateStep::Hour => 3_600,
        RateStep::Day => 86_400,
    };
    histogram::floor(time, seconds)
}

fn length(series: &[RateSeries], step: RateStep) -> String {
    match step {
        RateStep::Hour => "1 h".to_owned(),
        RateStep::Day => "1 d".to_owned(),
        RateStep::Window => {
            let mut lengths: Vec<TimeDelta> = series
                .iter()
                .flat_map(|series| &series.points)
                .map(|point| point.ended_at - point.started_at)
                .collect();
            lengths.sort_unstable();
            let usual = lengths.get(lengths.len() / 2).and_then(|length| length.to_std().ok());
            usual.map(lasting).unwrap_or_default()
        }
    }
}

fn names(row: &RateRow) -> Names {
    [row.agent.clone(), row.interface.clone(), row.direction.clone()]
}

pub(super) fn busiest(
    reader: &mut dyn Reader,
    links: &LinkFilter,
    step: RateStep,
) -> Result<io::Result<Vec<Names>>, StoreError> {
    let mut bytes: BTreeMap<Names, u64> = BTreeMap::new();
    let read = rates::read(reader, &RateFilter { links: links.clone(), step, last: None }, |row| {
        let sum = bytes.entry(names(&row)).or_default();
        *sum = sum.saturating_add(row.bytes.bytes());
        Ok(())
    })?;
    let mut busiest: Vec<(Names, u64)> = bytes.into_iter().collect();
    busiest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(read.map(|()| busiest.into_iter().map(|(names, _)| names).collect()))
}

/// Narrows a filter to these names and their combinations, so that the database reads few others.
fn only(links: &LinkFilter, wanted: &BTreeSet<Names>) -> LinkFilter {
    let column =
        |at: usize| wanted.iter().map(|names| names[at].clone()).collect::<BTreeSet<_>>().into_iter().collect();
    LinkFilter { agents: column(0), interfaces: column(1), directions: column(2), ..links.clone() }
}

pub(super) fn of_series(links: &LinkFilter, [agent, interface, direction]: Names) -> LinkFilter {
    LinkFilter { agents: vec![agent], interfaces: vec![interface], directions: vec![direction], ..links.clone() }
}

fn add_breaches(
    reader: &mut dyn Reader,
    links: &LinkFilter,
    series: &mut RateSeries,
) -> Result<io::Result<()>, StoreError> {
    let names = [&series.agent, &series.interface, &series.direction].map(String::clone);
    let spans = breaches::spans(reader, &of_series(links, names))?;
    Ok(spans.map(|spans| {
        for span in &spans {
            add_limit(series, &span.limit_name, span.limit_bps);
        }
        series.breaches = spans;
    }))
}

/// Adds the limits that the latest windows were judged by, also those that no breach names.
fn add_limits(
    reader: &mut dyn Reader,
    links: &LinkFilter,
    to: DateTime<Utc>,
    series: &mut [RateSeries],
) -> Result<io::Result<()>, StoreError> {
    let mut at: BTreeMap<Names, usize> = BTreeMap::new();
    for (place, series) in series.iter().enumerate() {
        at.insert([&series.agent, &series.interface, &series.direction].map(String::clone), place);
    }
    let Some(newest) = series.iter().filter_map(|series| series.points.last()).map(|point| point.ended_at).max() else {
        return Ok(Ok(()));
    };
    let since = (newest.min(to) - TimeDelta::hours(2)).max(links.since.unwrap_or(newest));
    let latest = LinkFilter { since: Some(since), ..only(links, &at.keys().cloned().collect()) };
    rates::read(reader, &RateFilter { links: latest, step: RateStep::Window, last: None }, |row| {
        let place = at.get(&names(&row));
        for (place, limit) in place.iter().flat_map(|place| limits(&row).into_iter().map(|limit| (**place, limit))) {
            add_limit(&mut series[place], &limit.name, limit.bps);
        }
        Ok(())
    })
}

fn limits(row: &RateRow) -> Vec<LimitLine> {
    let over = row.over.as_ref().and_then(serde_json::Value::as_array);
    let limit = |over: &serde_json::Value| {
        Some(LimitLine { name: over["limit_name"].as_str()?.to_owned(), bps: over["limit_bps"].as_u64()? })
    };
    over.into_iter().flatten().filter_map(limit).collect()
}

fn add_limit(series: &mut RateSeries, name: &str, bps: u64) {
    let limits = &mut series.limits;
    if let Some(known) = limits.iter().position(|limit| limit.name == name) {
        limits[known].bps = bps;
    } else if limits.len() < LIMITS_MAX {
        limits.push(LimitLine { bps, name: name.to_owned() });
    }
}

pub(super) fn unreadable(error: io::Error) -> Failure {
    unavailable(format!("the store is not readable: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(of_s: i64, count: i64) -> Vec<RateSeries> {
        let noon = DateTime::from_timestamp(1_795_521_600, 0).unwrap();
        let point = |at: i64| {
            let started_at = noon + TimeDelta::seconds(at * of_s);
            RatePoint { started_at, ended_at: started_at + TimeDelta::seconds(of_s), ..RatePoint::default() }
        };
        vec![RateSeries { points: (0..count).map(point).collect(), ..RateSeries::default() }, RateSeries::default()]
    }

    #[test]
    fn a_picture_begins_with_the_window_of_its_first_moment_or_at_that_moment() {
        let noon = DateTime::from_timestamp(1_795_521_600, 0).unwrap();
        let at = |seconds| noon + TimeDelta::seconds(seconds);
        for (of_s, since, begins, left) in
            [(300, 120, 0, 12), (300, 300, 300, 11), (10, 75, 70, 5), (10, 500, 500, 0), (10, -60, -60, 12)]
        {
            let mut series = windows(of_s, 12);
            assert_eq!(begin(&mut series, at(since), RateStep::Window), at(begins), "{of_s} {since}");
            assert_eq!(series.iter().map(|series| series.points.len()).sum::<usize>(), left, "{of_s} {since}");
            assert_eq!(series.len(), usize::from(left > 0), "a link without windows is not drawn");
        }
        assert_eq!(begin(&mut windows(3_600, 3), at(5_000), RateStep::Hour), at(3_600));
    }
}
