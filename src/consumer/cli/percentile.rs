use chrono::{DateTime, Utc};
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::json;

use super::common::{Common, unavailable};
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::consumer::report::billing_month::{BillingMonth, Month};
use crate::consumer::report::percentile::{self, Percent, Percentile, PercentileError, PercentileFilter};
use crate::process::clock::{Clock as _, SystemClock, rfc3339_seconds};
use crate::process::exit::{Failure, Status};
use crate::units::{BitRate, counted};

pub(super) const HELP: &str = "\
The percentile that transit is billed by: of the mean rates of five minutes in a
calendar month, or from the billing day of a month to that of the next, by the
clocks of a time zone. It is the nearest rank: of n means in rising order, the
one at place ceil(p / 100 x n). The 95th of a month of 30 days is the 8,208th of
8,640 means: the 432 highest are left out. Received and sent are computed apart;
most contracts bill the higher one.

Several links are a bundle: their means are summed, five minutes by five
minutes, before the percentile is taken. Each agent and interface that is named
must have rates in the month. Beside it stands the percentile of the one-second
rates, in which no burst hides; it is known of one link only.

Only five minutes that were measured count. Those that were not are counted, and
named in JSON and CSV: 0 missing and 0 partial mean that the answer is of the
whole month. Windows of less than five minutes are summed up; one that is in two
intervals is divided by time. Windows over five minutes are refused.

Exit code: 0 if there is an answer; 1 if nothing is stored of a link that is
named, or its windows are too long; 2 for a month that has not begun.

Examples:
  highwater-consumer percentile --agent gw-042 --interface eth0 \\
    --month 2026-11
  highwater-consumer percentile --agent gw-1 --agent gw-2 --interface wan0 \\
    --month 2026-11 --billing-day 15 --time-zone Europe/Paris";

#[derive(Args, Debug)]
pub(super) struct PercentileCommand {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    /// Agent whose links are summed; may be repeated
    #[arg(long, value_name = "NAME", required = true)]
    agent: Vec<String>,
    /// Only this interface of them; may be repeated
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Only this direction: rx, tx, or total [default: rx and tx]
    #[arg(long, value_name = "DIRECTION", value_parser = ["rx", "tx", "total"])]
    direction: Vec<String>,
    /// Percentage of the means that are at or below the answer
    #[arg(short, long, value_name = "P", default_value = "95", value_parser = Percent::parse)]
    percentile: Percent,
    /// Month in which the time begins [default: the one that has begun]
    #[arg(long, value_name = "YYYY-MM")]
    month: Option<Month>,
    /// Day of the month on which it begins, 1 to 28
    #[arg(long, value_name = "DAY", default_value_t = 1, value_parser = clap::value_parser!(i8).range(1..=28))]
    billing_day: i8,
    /// Time zone of its midnights, as Europe/Paris
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = crate::cli::time_zone)]
    time_zone: TimeZone,
}

const COLUMNS: &[&str] = &[
    "direction",
    "percentile",
    "links",
    "means_bps",
    "seconds_bps",
    "expected",
    "present",
    "missing",
    "partial",
    "late",
    "unmeasured_s",
    "since",
    "until",
    "missing_windows",
];

/// The last ones are too wide for a table: what is missing is noted below it.
const TABLE_COLUMNS: usize = 11;

const NOTES_MAX: usize = 10;

impl PercentileCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let question = self.question(SystemClock::default().wall())?;
        let answers = percentile::read(&mut *settings.store.reader(), &question).map_err(|error| match error {
            PercentileError::Store(error) => unavailable(error),
            error => Failure::failed(error),
        })?;
        let columns = if self.format == OutputFormat::Table { &COLUMNS[..TABLE_COLUMNS] } else { COLUMNS };
        let mut rows = Rows::new(self.format, columns, output::stdout(self.format));
        let printed = answers.iter().try_for_each(|answer| {
            let mut row = row(answer, &question);
            row.truncate(columns.len());
            rows.push(row)
        });
        output::finished(printed.and_then(|()| rows.end()))?;
        self.note(&answers, &question);
        Ok(())
    }

    fn question(&self, now: DateTime<Utc>) -> Result<PercentileFilter, Failure> {
        let usage = |why: String| Failure::new(Status::Usage, why);
        let month = BillingMonth { month: self.month, day: self.billing_day, zone: self.time_zone.clone() };
        let shown = self.month.map_or("the month".to_owned(), |month| month.to_string());
        let (since, until) = month.bounds(now).ok_or_else(|| usage(format!("{shown} is too far away")))?;
        if since > now {
            return Err(usage(format!("{shown} has not begun: it does at {}", rfc3339_seconds(since))));
        }
        let directions = match self.direction.as_slice() {
            [] => vec!["rx".to_owned(), "tx".to_owned()],
            named => named.to_vec(),
        };
        Ok(PercentileFilter {
            agents: self.agent.clone(),
            interfaces: self.interface.clone(),
            directions,
            percent: self.percentile,
            since,
            until: until.min(now),
        })
    }

    fn note(&self, answers: &[Percentile], question: &PercentileFilter) {
        let say = |text: &str| self.common.note(text);
        say(&format!("from {} to {}", rfc3339_seconds(question.since), rfc3339_seconds(question.until)));
        if let [a, b] = answers
            && let Some(higher) = [a, b].into_iter().max_by_key(|answer| answer.of_means_bps)
            && let Some(bps) = higher.of_means_bps
        {
            say(&format!("the higher one: {} ({})", BitRate::from_bps(bps), higher.direction));
        }
        if self.format != OutputFormat::Table {
            return;
        }
        let missing: Vec<_> = answers
            .iter()
            .flat_map(|answer| answer.coverage.missing.iter().map(|range| (&answer.direction, range)))
            .collect();
        for (direction, range) in missing.iter().take(NOTES_MAX) {
            say(&format!(
                "missing: {} {} {direction} from {} to {} ({})",
                range.agent,
                range.interface,
                rfc3339_seconds(range.from),
                rfc3339_seconds(range.to),
                counted(range.windows, "window")
            ));
        }
        if missing.len() > NOTES_MAX {
            say(&format!("{} more are missing: --format json names them", missing.len() - NOTES_MAX));
        }
    }
}

fn row(answer: &Percentile, question: &PercentileFilter) -> Vec<Value> {
    let Percentile { direction, links, of_means_bps, of_seconds_bps, coverage } = answer;
    let missing: u64 = coverage.missing.iter().map(|range| range.windows).sum();
    let ranges = coverage.missing.iter().map(|range| {
        json!({"agent": range.agent, "interface": range.interface, "from": rfc3339_seconds(range.from), "to": rfc3339_seconds(range.to),
               "windows": range.windows})
    });
    vec![
        direction.as_str().into(),
        question.percent.value().into(),
        (*links).into(),
        of_means_bps.map(BitRate::from_bps).into(),
        of_seconds_bps.map(BitRate::from_bps).into(),
        coverage.expected.into(),
        coverage.present.into(),
        missing.into(),
        coverage.partial.into(),
        coverage.late.into(),
        coverage.unmeasured_s.into(),
        question.since.into(),
        question.until.into(),
        Value::Json(ranges.collect()),
    ]
}
