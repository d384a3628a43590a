use std::io;

use clap::Args;

use super::common::{Common, unavailable};
use super::when::{TIMES, When, in_order};
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::consumer::report::missing_events::{self, MissingCause, MissingEvents, MissingFilter, MissingSummary};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
Shows which events are not in the database, and why. Agents number their events
from 1, without gaps, so that each missing one is known:

  declared     given up by its agent, which declared it; the reason is evicted,
               expired, rejected or damaged; or interrupted, where the agent
               crashed with samples in memory, of which it does not know how
               many there were
  dead_letter  received, but could not be stored; `dead-letters retry` tries
               again
  discarded    a dead letter that was dropped, with the reason
  expired      offsets that Kafka's retention deleted before they were read;
               which events they held is unknown
  unreadable   offsets in a batch that is damaged, or larger than
               receive.message.max.bytes; which events they held is
               unknown
  undeclared   missing without explanation: the alarm

Only a cause that names a number explains a missing event: a dead letter without
one, or offsets that were never read, may be the event, but do not end the
alarm. A gap counts as missing 5 minutes after a later event was stored. In SQL:
the view missing_events, and the table kafka_gaps.

Exit code: 0 if nothing is missing without explanation; 1 if something is; 69 if
the store could not be reached.

Examples:
  highwater-consumer losses
  highwater-consumer losses --agent gw-042 --since 7d
  highwater-consumer losses --since today --format json || alert";

#[derive(Args, Debug)]
pub(super) struct Losses {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    /// Only this agent's; leaves out offsets that were never read
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only what was noticed since then: today, 10:00, 2026-11-21, 10m
    #[arg(long, value_name = "TIME", long_help = format!("Only what was noticed since then.\n{TIMES}"))]
    since: Option<When>,
    /// Only what was noticed before then
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
}

const TABLE: &[&str] =
    &["noticed_at", "cause", "agent", "epoch", "first_seq", "last_seq", "missing", "reason", "detail"];
const COLUMNS: &[&str] = &[
    "noticed_at",
    "cause",
    "agent",
    "epoch",
    "first_seq",
    "last_seq",
    "missing",
    "reason",
    "detail",
    "kafka_topic",
    "kafka_partition",
    "first_offset",
    "last_offset",
];

impl Losses {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let now = SystemClock::default().wall();
        let moment = |when: Option<When>| when.map(|when| when.from(now));
        let filter = MissingFilter { agent: self.agent.clone(), since: moment(self.since), until: moment(self.until) };
        in_order(filter.since, filter.until)?;
        let mut reader = settings.store.reader();
        let columns = if self.format == OutputFormat::Table { TABLE } else { COLUMNS };
        let mut rows = Rows::new(self.format, columns, output::stdout(self.format));
        let mut unread = false;
        let summary = missing_events::read(&mut *reader, &filter, |missing| {
            match rows.push(row(missing, columns.len())) {
                // The rows have no reader any more, but the exit code has to report the result.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => unread = true,
                other => other?,
            }
            Ok(())
        });
        match summary.map_err(unavailable)? {
            Ok(summary) => {
                if !unread {
                    output::finished(rows.end())?;
                }
                self.judge(&summary)
            }
            Err(error) => output::finished(Err(error)),
        }
    }

    fn judge(&self, summary: &MissingSummary) -> Result<(), Failure> {
        let say = |text: &str| self.common.note(text);
        if summary.is_empty() {
            let of = self.agent.as_ref().map(|agent| format!(" of {agent}")).unwrap_or_default();
            let noticed = if self.since.or(self.until).is_some() { " that was noticed in this time" } else { "" };
            say(&format!("nothing{of} is missing{noticed}"));
            return Ok(());
        }
        for (cause, means) in [
            (MissingCause::Declared, "given up and declared by their agents"),
            (MissingCause::DeadLetter, "kept as dead letters: see `highwater-consumer dead-letters list`"),
            (MissingCause::Discarded, "dropped as dead letters: see `highwater-consumer dead-letters list --dropped`"),
        ] {
            match summary.missing(cause) {
                0 => {}
                missing => say(&format!("events {means}: {missing}")),
            }
        }
        if summary.of_unknown_number > 0 {
            say(&format!(
                "ends of samples of agents that crashed; how many is not known: {}",
                summary.of_unknown_number
            ));
        }
        let unread = summary.missing(MissingCause::Expired).saturating_add(summary.missing(MissingCause::Unreadable));
        for (count, means) in [
            (unread, "offsets that were never read; whose events they held is not known"),
            (summary.of_no_agent.into(), "dead letters that name no agent; whose events they are is not known"),
            (summary.of_no_agent_dropped.into(), "dead letters that named no agent, and were dropped"),
        ] {
            if count > 0 {
                say(&format!("{means}: {count}"));
            }
        }
        match summary.missing(MissingCause::Undeclared) {
            0 => Ok(()),
            missing => Err(Failure::failed(format!("events missing without explanation: {missing}"))),
        }
    }
}

fn row(missing: MissingEvents, columns: usize) -> Vec<Value> {
    let MissingEvents { cause, agent, epoch, first_seq, last_seq, offsets, missing, reason, detail, noticed_at } =
        missing;
    let offset = |at: fn(&(String, i32, i64, i64)) -> Value| offsets.as_ref().map_or(Value::Null, at);
    let mut row = vec![
        noticed_at.into(),
        cause.as_str().into(),
        agent.into(),
        epoch.into(),
        first_seq.into(),
        last_seq.into(),
        missing.map_or(Value::Null, Value::Number),
        reason.into(),
        detail.into(),
        offset(|(topic, ..)| topic.as_str().into()),
        offset(|(_, partition, ..)| (*partition).into()),
        offset(|(_, _, first, _)| (*first).into()),
        offset(|(.., last)| (*last).into()),
    ];
    row.truncate(columns);
    row
}
