use std::collections::BTreeMap;

use chrono::NaiveDate;
use clap::Args;

use super::picture::Picture;
use super::rate::unreadable;
use crate::cli::output::Value;
use crate::consumer::cli::common::{Common, unavailable};
use crate::consumer::cli::totals::TotalsFlags;
use crate::consumer::plot::{TotalBar, TotalsPlot};
use crate::consumer::report::totals;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
A bar for each link, direction and limit: the bytes over it, as `totals` sums
them by day of UTC. Limits on the sum over a host, and several limits on one
link, count the same bytes: bars are compared, not added. Without --since, all
days; of more than 40 bars, the largest are drawn.

Examples:
  highwater-consumer plot totals --since 7d
  highwater-consumer plot totals --scope link --since 2026-11-01 -o totals.png";

#[derive(Args, Debug)]
pub(in crate::consumer::cli) struct PlotTotals {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    picture: Picture,
    #[command(flatten)]
    totals: TotalsFlags,
    /// Only this direction's
    #[arg(long, value_name = "DIRECTION", value_parser = ["rx", "tx", "total"])]
    direction: Option<String>,
}

impl PlotTotals {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let now = SystemClock::default().wall();
        let filter = self.totals.filter(now)?;
        let (since, until) = (filter.since, filter.until);
        let mut bars: BTreeMap<[String; 4], (u64, u64)> = BTreeMap::new();
        let read = totals::read(&mut *settings.store.reader(), &filter, |row| {
            if let Some((names, breaches, bytes)) = bar(row)
                && self.direction.as_ref().is_none_or(|direction| names[2] == *direction)
            {
                let sums = bars.entry(names).or_default();
                sums.0 = sums.0.saturating_add(breaches);
                sums.1 = sums.1.saturating_add(bytes);
            }
            Ok(())
        });
        read.map_err(unavailable)?.map_err(unreadable)?;
        let bars = bars.into_iter().map(|([agent, interface, direction, limit_name], (breaches, excess_bytes))| {
            TotalBar { agent, interface, direction, limit_name, breaches, excess_bytes }
        });
        let plot = TotalsPlot::new(bars.collect(), span(since, until.unwrap_or(now.date_naive())));
        self.picture.show(&self.common, |theme, width| plot.svg(theme, width), |page| plot.text(page))
    }
}

/// Returns agent, interface, direction and limit of a row, its breaches and its bytes.
fn bar(row: Vec<Value>) -> Option<([String; 4], u64, u64)> {
    let mut row = row.into_iter().skip(1);
    let agent = row.next()?.into_text()?;
    let is_host = row.next()?.into_text()? == "host";
    let interface = row.next()?.into_text()?;
    let interface = if is_host { "host".to_owned() } else { interface };
    let (direction, limit_name) = (row.next()?.into_text()?, row.next()?.into_text()?);
    Some(([agent, interface, direction, limit_name], row.next()?.into_number()?, row.next()?.into_number()?))
}

fn span(since: Option<NaiveDate>, until: NaiveDate) -> String {
    let day = |day: NaiveDate| day.format("%-d %b %Y").to_string();
    match since {
        None => format!("all days up to {} (UTC)", day(until)),
        Some(since) if since == until => format!("{} (UTC)", day(since)),
        Some(since) => format!("{} – {} (UTC)", day(since), day(until)),
    }
}
