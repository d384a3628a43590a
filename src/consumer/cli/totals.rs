use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};

use super::common::{Common, unavailable};
use super::when::{TIMES, When, in_order};
use crate::cli::output::{self, OutputFormat, Rows};
use crate::consumer::report::totals::{self, COLUMNS, TotalsFilter};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
Bytes over limit: for each breach, the highest `excess_bytes` that any of its
events reported, on the day on which it was raised (UTC). Duplicates, order and
evicted updates do not matter; an open breach is included, and grows. Totals
outlive the events from which they were calculated.

A limit on the sum over the host (scope host, interface `*`) counts bytes that
its links count too, and two limits on one link count the same bytes: add up
only rows of one scope and one limit.

Examples:
  highwater-consumer totals --since 7d
  highwater-consumer totals --scope link --limit-name wan-down --since yesterday
  highwater-consumer totals --agent gw-042 --interface eth0 --format csv";

#[derive(Args, Debug)]
pub(super) struct TotalsCommand {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    #[command(flatten)]
    totals: TotalsFlags,
}

#[derive(Args, Clone, Debug)]
pub(super) struct TotalsFlags {
    /// Only this agent's
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only of links, or of sums over the host
    #[arg(long, value_enum, value_name = "SCOPE")]
    scope: Option<TotalsScope>,
    /// Only this interface's
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Only over this limit
    #[arg(long, value_name = "NAME")]
    limit_name: Option<String>,
    /// Only from this day on: 2026-11-21, today, yesterday, or the day of a time (10:00, 7d)
    #[arg(long, value_name = "DAY", long_help = format!("Only from this day on, in UTC as the totals are, or the day of a time.\n{TIMES}"))]
    since: Option<When>,
    /// Only up to this day
    #[arg(long, value_name = "DAY")]
    until: Option<When>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TotalsScope {
    /// A single link
    Link,
    /// The sum over the links of a host
    Host,
}

impl TotalsScope {
    fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Host => "host",
        }
    }
}

impl TotalsFlags {
    pub(super) fn filter(self, now: DateTime<Utc>) -> Result<TotalsFilter, Failure> {
        let filter = TotalsFilter {
            agent: self.agent,
            scope: self.scope.map(TotalsScope::name),
            interface: self.interface,
            limit_name: self.limit_name,
            since: self.since.map(|when| when.day(now)),
            until: self.until.map(|when| when.day(now)),
        };
        in_order(filter.since, filter.until)?;
        Ok(filter)
    }
}

impl TotalsCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let filter = self.totals.filter(SystemClock::default().wall())?;
        let mut rows = Rows::new(self.format, &COLUMNS, output::stdout(self.format));
        let printed =
            totals::read(&mut *settings.store.reader(), &filter, |row| rows.push(row)).map_err(unavailable)?;
        output::finished(printed.and_then(|()| rows.end()))
    }
}
