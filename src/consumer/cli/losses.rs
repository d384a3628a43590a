//! `highwater-consumer losses`.

use clap::Args;

use super::common::{Absent, Common, unavailable};
use super::when::When;
use crate::clock::{Clock as _, SystemClock};
use crate::consumer::ledger::{self, Entry, Filter, Ledger, State};
use crate::exit::Failure;
use crate::output::{self, Format, Rows};

pub(super) const HELP: &str = "\
Agents number their events without missing_offsets. A number that is no row is

  declared     given up by its agent, which said so: evicted, expired, rejected, damaged
  dead_letter  kept, but not storable as it came; `dead-letters retry` brings it back
  dropped      offsets that Kafka's retention dropped before they were read; whose events they held is not known
  undeclared   missing, and without explanation: the alarm

Only what names a number explains it: a dead letter that can't be read, or dropped offsets, may be what is missing, but end no
alarm. A gap counts as missing 5 minutes after a later event arrived. What is known to be gone is left out with --since.

Exit code: 0 if there are no unexplained gaps, 1 if there are, 69 if the store could not be reached.

Examples:
  highwater-consumer losses
  highwater-consumer losses --agent gw-042 --since 7d
  highwater-consumer losses --since 1h --format json || alert";

#[derive(Args, Debug)]
pub(super) struct Losses {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Only this agent's; offsets that Kafka dropped are then left out
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only what was noticed since then: a time, or how long ago (10m, 2d)
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
}

const COLUMNS: &[&str] = &["noticed_at", "agent", "epoch", "first", "last", "missing", "state", "reason", "detail"];

impl Losses {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.common.start_log();
        let settings = self.common.settings(Absent::MeansDefaults).map_err(Failure::config)?;
        let since = self.since.map(|when| when.from(SystemClock::default().wall()));
        let filter = Filter { agent: self.agent, since };
        let mut reader = settings.store.reader();
        let ledger = ledger::read(&mut *reader, &filter).map_err(unavailable)?;
        output::finished(print(&ledger, self.format))?;
        judge(&ledger, &self.common)
    }
}

fn print(ledger: &Ledger, format: Format) -> std::io::Result<()> {
    let mut rows = Rows::new(format, COLUMNS, output::stdout(format));
    for Entry { agent, epoch, first, last, missing, state, reason, detail, noticed_at } in &ledger.entries {
        rows.push([
            (*noticed_at).into(),
            agent.clone().into(),
            epoch.clone().into(),
            (*first).into(),
            (*last).into(),
            (*missing).into(),
            state.as_str().into(),
            reason.clone().into(),
            detail.clone().into(),
        ])?;
    }
    rows.end()
}

/// The last lines: what it means.
fn judge(ledger: &Ledger, common: &Common) -> Result<(), Failure> {
    let undeclared = ledger.missing(State::Undeclared);
    if undeclared == 0 {
        common.note("nothing undeclared is missing");
        return Ok(());
    }
    if ledger.nameless_letters > 0 {
        let count = ledger.nameless_letters;
        common.note(&format!("dead letters that name no event, and may be what is missing: {count}"));
    }
    let dropped = ledger.missing(State::Dropped);
    if dropped > 0 {
        common.note(&format!("offsets that Kafka dropped unread, and that may be what is missing: {dropped}"));
    }
    Err(Failure::failed(format!("events missing without explanation: {undeclared}")))
}
