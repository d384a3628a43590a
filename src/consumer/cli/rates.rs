use clap::{Args, ValueEnum};

use super::flags::{LatestFlag, QuestionFlags};
use super::table::ReportTable;
use crate::consumer::report::rates::{self, RateFilter, RateRow, RateStep};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
Rates of each link and direction, in windows as its agent reports them, or in
hours or days of UTC. `min` to `max` are rates of one second; the mean is over
the seconds that were measured. Without --by, a time of up to six hours is shown
by window, of up to eight days by hour, and any other by day. What begins in the
time from --since to --until is shown. Names are exact.

Examples:
  highwater-consumer rates --since 1h --agent gw-042
  highwater-consumer rates --since 7d --agent gw-042 --interface eth0
  highwater-consumer rates --since 2026-11-01 --by day --direction tx
  highwater-consumer rates --since 30d --by window --agent gw-042 \\
    --format csv > rates.csv";

#[derive(Args, Debug)]
pub(super) struct RatesCommand {
    #[command(flatten)]
    question: QuestionFlags,
    /// By window, hour or day [default: by the length of the time]
    #[arg(long, value_enum, value_name = "STEP")]
    by: Option<By>,
    #[command(flatten)]
    latest: LatestFlag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// Windows, as the agents report them
    Window,
    /// By hour of UTC
    Hour,
    /// By day of UTC
    Day,
}

const TABLE: &[&str] = &[
    "started_at",
    "agent",
    "interface",
    "direction",
    "min_bps",
    "mean_bps",
    "p50_bps",
    "p95_bps",
    "p99_bps",
    "max_bps",
    "bytes",
    "errors",
    "drops",
    "measured_s",
    "unmeasured_s",
];

impl From<By> for RateStep {
    fn from(by: By) -> Self {
        match by {
            By::Window => Self::Window,
            By::Hour => Self::Hour,
            By::Day => Self::Day,
        }
    }
}

impl RatesCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (settings, links) = self.question.prepare()?;
        let step = self.by.map_or_else(|| RateStep::for_time(&links, SystemClock::default().wall()), RateStep::from);
        let filter = RateFilter { links, step, last: self.latest.n };
        ReportTable::new(self.question.format, RateRow::COLUMNS, TABLE)
            .fill(|print| rates::read(&mut *settings.store.reader(), &filter, |rate| print(rate.values())))
    }
}
