use clap::Args;

use super::common::Common;
use super::links::{LimitFlags, LinkFlags, TimeFlags};
use super::table::ReportTable;
use crate::clock::{Clock as _, SystemClock};
use crate::consumer::report::breaches::{self, BreachFilter, BreachRow};
use crate::exit::Failure;
use crate::output::OutputFormat;

pub(super) const HELP: &str = "\
Each breach once, in its latest state, in the order in which they were raised;
--since and --until are about that time. Its state is `open`, `cleared`, or
`unknown`: its agent stopped, fell silent, or lost its journal before the end.
Rates and bytes of an open one are as last reported. Names are exact.

Examples:
  highwater-consumer breaches --state open
  highwater-consumer breaches --since today --severity critical
  highwater-consumer breaches --agent gw-042 --interface eth0 -n 10
  highwater-consumer breaches --since 30d --format csv > breaches.csv";

#[derive(Args, Debug)]
pub(super) struct Breaches {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    #[command(flatten)]
    times: TimeFlags,
    #[command(flatten)]
    links: LinkFlags,
    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = ["open", "cleared", "unknown"])]
    state: Option<String>,
    #[command(flatten)]
    limits: LimitFlags,
    /// Only the latest N
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    n: Option<i64>,
}

const TABLE: &[&str] = &[
    "raised_at",
    "ended_at",
    "state",
    "severity",
    "agent",
    "interface",
    "direction",
    "limit_name",
    "limit_bps",
    "peak_bps",
    "mean_bps",
    "excess_bytes",
    "reason",
];

impl Breaches {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.begin()?;
        let filter = BreachFilter {
            links: self.links.filter(self.times, SystemClock::default().wall())?,
            state: self.state,
            severity: self.limits.severity,
            limit_name: self.limits.limit_name,
            last: self.n,
        };
        ReportTable::new(self.format, BreachRow::COLUMNS, TABLE)
            .fill(|print| breaches::read(&mut *settings.store.reader(), &filter, |breach| print(breach.values())))
    }
}
