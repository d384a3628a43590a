use clap::Args;

use super::common::{Common, unavailable};
use crate::cli::output::{self, OutputFormat, Rows};
use crate::consumer::report::agents::{self, AgentFilter, AgentRow};
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
Each agent that anything is stored of. Its state is `running`, `stopped` (it
said so), or `silent`: nothing arrived for agents.silent_after (1 hour by
default). `last_heard_at` is by the clock of the database.

Examples:
  highwater-consumer agents
  highwater-consumer agents --state silent
  highwater-consumer agents --agent gw-042 --format json";

#[derive(Args, Debug)]
pub(super) struct Agents {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    /// Only this agent; may be repeated
    #[arg(long, value_name = "NAME")]
    agent: Vec<String>,
    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = ["running", "stopped", "silent"])]
    state: Option<String>,
}

impl Agents {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let filter = AgentFilter { agents: self.agent, state: self.state };
        let mut rows = Rows::new(self.format, AgentRow::COLUMNS, output::stdout(self.format));
        let printed = agents::read(&mut *settings.store.reader(), &filter, |agent| rows.push(agent.values()))
            .map_err(unavailable)?;
        output::finished(printed.and_then(|()| rows.end()))
    }
}
