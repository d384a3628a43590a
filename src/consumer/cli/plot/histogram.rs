use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;

use super::picture::Picture;
use super::rate::{Names, busiest, of_series, unreadable};
use crate::consumer::cli::common::{Common, unavailable};
use crate::consumer::cli::flags::{LinkFlags, TimeFlags};
use crate::consumer::plot::{Distribution, HistogramPlot, time_span};
use crate::consumer::report::rates::RateStep;
use crate::consumer::report::{LinkFilter, histogram};
use crate::consumer::store::Reader;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
For each link and direction: how many seconds had which rate, with percentiles.
A bar of a single second is drawn too, however high the others are. Without
--since, the last 24 hours; of more than 24 series, the busiest are drawn.

--live follows the topic of histograms, which `highwater-consumer run` publishes
to, and redraws as messages come: for each link the hour that is going on. It
asks no database. Ctrl-C ends it.

Examples:
  highwater-consumer plot histogram --agent gw-042 --interface eth0
  highwater-consumer plot histogram --agent gw-042 --since today \\
    --log-rates --log-counts -o today.svg
  highwater-consumer plot histogram --live --agent gw-042";

#[derive(Args, Debug)]
pub(in crate::consumer::cli) struct PlotHistogram {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) picture: Picture,
    #[command(flatten)]
    times: TimeFlags,
    #[command(flatten)]
    pub(super) links: LinkFlags,
    /// Rates on a logarithmic axis
    #[arg(long)]
    pub(super) log_rates: bool,
    /// Seconds on a logarithmic axis
    #[arg(long)]
    pub(super) log_counts: bool,
    /// Put all links into one distribution, each second of each once
    #[arg(long, conflicts_with = "live")]
    merged: bool,
    /// Follow the histograms in Kafka, and redraw
    #[arg(long, conflicts_with_all = ["output", "theme", "since", "until"])]
    pub(super) live: bool,
    /// With --live: stop after this many pictures
    #[arg(short, value_name = "NUMBER", requires = "live")]
    pub(super) n: Option<u64>,
}

pub(super) const SERIES_MAX: usize = 24;
const DEFAULT_SPAN: TimeDelta = TimeDelta::hours(24);

impl PlotHistogram {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let now = SystemClock::default().wall();
        let mut links = self.links.clone().filter(self.times, now)?;
        let to = *links.until.get_or_insert(now);
        let from = *links.since.get_or_insert(to - DEFAULT_SPAN);
        let mut reader = settings.store.reader();
        let (series, hidden) = match self.merged {
            true => (vec![merged(&mut *reader, &mut links)?], 0),
            false => each(&mut *reader, &links, to)?,
        };
        let plot = HistogramPlot {
            series: &series,
            span: time_span(from, to, &self.picture.zone()),
            log_rates: self.log_rates,
            log_counts: self.log_counts,
            hidden,
        };
        self.picture.show(&self.common, |theme, width| plot.svg(theme, width), |page| plot.text(page))
    }
}

fn each(reader: &mut dyn Reader, links: &LinkFilter, to: DateTime<Utc>) -> Result<(Vec<Distribution>, usize), Failure> {
    let step = RateStep::for_time(links, to);
    let mut names = busiest(reader, links, step).map_err(unavailable)?.map_err(unreadable)?;
    let hidden = names.len().saturating_sub(SERIES_MAX);
    names.truncate(SERIES_MAX);
    names.sort_unstable();
    let read = |names: Names| {
        let histogram = histogram::read(reader, &of_series(links, names.clone())).map_err(unavailable)?;
        let [agent, interface, direction] = names;
        Ok(Distribution { agent, interface, direction, histogram: histogram.map_err(unreadable)? })
    };
    Ok((names.into_iter().map(read).collect::<Result<_, Failure>>()?, hidden))
}

fn merged(reader: &mut dyn Reader, links: &mut LinkFilter) -> Result<Distribution, Failure> {
    if links.directions.is_empty() {
        // Both directions together would count each second twice.
        links.directions = vec!["rx".to_owned(), "tx".to_owned()];
    }
    let histogram = histogram::read(reader, links).map_err(unavailable)?.map_err(unreadable)?;
    let name = |names: &[String], all: &str| if names.is_empty() { all.to_owned() } else { names.join(", ") };
    Ok(Distribution {
        agent: name(&links.agents, "all agents"),
        interface: name(&links.interfaces, "all links"),
        direction: links.directions.join(" + "),
        histogram,
    })
}
