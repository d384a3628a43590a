use clap::Args;

use super::flags::{LatestFlag, LimitFlags, QuestionFlags};
use super::table::ReportTable;
use crate::consumer::report::events::{self, EventFilter, EventRow};
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
Events in the order in which they were observed. A table shows what people look
at; JSON and CSV have every column of the table `events`. Names are exact.

Examples:
  highwater-consumer events --since 1h
  highwater-consumer events --agent gw-042 --severity critical -n 20
  highwater-consumer events --kind agent_started --since today --format json
  highwater-consumer events --since 30d --format csv > events.csv";

#[derive(Args, Debug)]
pub(super) struct Events {
    #[command(flatten)]
    question: QuestionFlags,
    /// Only of this kind, as breach_raised; may be repeated
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    latest: LatestFlag,
}

const TABLE: &[&str] = &[
    "observed_at",
    "agent",
    "kind",
    "severity",
    "interface",
    "direction",
    "limit_name",
    "limit_bps",
    "rate_bps",
    "peak_bps",
    "excess_bytes",
    "reason",
    "detail",
];

impl Events {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (settings, links) = self.question.prepare()?;
        let filter = EventFilter {
            links,
            kinds: self.kind,
            severity: self.limits.severity,
            limit_name: self.limits.limit_name,
            last: self.latest.n,
        };
        ReportTable::new(self.question.format, EventRow::COLUMNS, TABLE)
            .fill(|print| events::read(&mut *settings.store.reader(), &filter, |event| print(event.values())))
    }
}
