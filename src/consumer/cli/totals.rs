//! `highwater-consumer totals`.

use chrono::NaiveDate;
use clap::Args;

use super::common::{Absent, Common, unavailable};
use super::when::When;
use crate::clock::{Clock as _, SystemClock};
use crate::consumer::store::{Kind, Query};
use crate::exit::Failure;
use crate::output::{self, Format, Rows};

pub(super) const HELP: &str = "\
Bytes over limit: of each breach the greatest `excess_bytes` that any of its events told, on the day it was raised (UTC). So a
sum is the same whatever came twice, late, out of order, or not at all because the journal was full; an open breach grows in it.
An interface `*` is a limit on the whole host. Sums outlive the events that they came from.

Examples:
  highwater-consumer totals --since 7d
  highwater-consumer totals --agent gw-042 --interface eth0 --format csv > gw-042.csv";

#[derive(Args, Debug)]
pub(super) struct Totals {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Only this agent's
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only this interface's
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Only from this day on: 2026-11-21, a time, or how long ago (7d)
    #[arg(long, value_name = "DAY")]
    since: Option<When>,
}

const COLUMNS: &[&str] = &["day", "agent", "interface", "direction", "breaches", "excess_bytes"];
const KINDS: &[Kind] = &[Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Number, Kind::Bytes];

impl Totals {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.common.start_log();
        let settings = self.common.settings(Absent::MeansDefaults).map_err(Failure::config)?;
        let rows = settings.store.reader().ask(&self.query()).map_err(unavailable)?;
        let mut printed = Rows::new(self.format, COLUMNS, output::stdout(self.format));
        output::finished(rows.into_iter().try_for_each(|row| printed.push(row)).and_then(|()| printed.end()))
    }

    fn query(&self) -> Query {
        let since: Option<NaiveDate> = self.since.map(|when| when.from(SystemClock::default().wall()).date_naive());
        Query::new(
            "SELECT * FROM (SELECT CAST(day AS text) AS day, agent, interface, direction, breaches, excess_bytes",
            KINDS,
        )
        .then("FROM totals) AS totals WHERE true")
        .with_any("AND agent = ?", self.agent.as_deref())
        .with_any("AND interface = ?", self.interface.as_deref())
        .with_any("AND day >= ?", since.map(|day| day.to_string()).as_deref())
        .then("ORDER BY day, agent, interface, direction")
    }
}
