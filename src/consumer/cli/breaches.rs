use clap::Args;

use super::flags::{LatestFlag, LimitFlags, QuestionFlags};
use super::table::ReportTable;
use crate::consumer::report::breaches::{self, BreachFilter, BreachRow};
use crate::process::exit::Failure;

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
    question: QuestionFlags,
    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = ["open", "cleared", "unknown"])]
    state: Option<String>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    latest: LatestFlag,
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
        let (settings, links) = self.question.prepare()?;
        let filter = BreachFilter {
            links,
            state: self.state,
            severity: self.limits.severity,
            limit_name: self.limits.limit_name,
            last: self.latest.n,
        };
        ReportTable::new(self.question.format, BreachRow::COLUMNS, TABLE)
            .fill(|print| breaches::read(&mut *settings.store.reader(), &filter, |breach| print(breach.values())))
    }
}
