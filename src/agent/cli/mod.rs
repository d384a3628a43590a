mod check;
mod common;
mod init;
#[cfg(feature = "toolbox")]
mod replay;
#[cfg(feature = "toolbox")]
mod simulate;
mod status;
#[cfg(feature = "toolbox")]
mod topics;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use log::{info, warn};

use self::common::AgentFlags;
use crate::agent::run::{self, Run};
use crate::cli;
use crate::cli::output;
use crate::process::exit::Failure;
use crate::process::signals::SignalPipe;
use crate::wire::{FORMATS, Format};

const RUN_HELP: &str = "\
No file is needed: flags override the environment, and that the file. A limit is
LINKS=RATE, where LINKS is the name of a link, with * for any characters, and
RATE is bits per second or a percentage of the link's speed; before it a name
and @, behind LINKS a direction (either, if there is none), and at the end any
other key of [[limit]]. Repeat --limit for several.

Examples:
  highwater-agent run --limit 'eth0=80 Mbit/s' -b kafka-1:9092 --create-topics
  highwater-agent run --limit 'wan-down@eth*:rx=80%,for=3s,clear_for=10s'
  highwater-agent run --limit 'eth0:rx=40 Mbit/s' --limit 'eth0:tx=10 Mbit/s' \\
    --flush 5s --state-dir ~/highwater --for 10m";

/// Reports to Kafka when one of this host's network links exceeds its limit.
#[derive(Debug, Parser)]
#[command(name = "highwater-agent", version = cli::version(), propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch until SIGTERM or SIGINT (SIGUSR1 flushes, SIGHUP reloads)
    #[command(after_help = RUN_HELP)]
    Run {
        #[command(flatten)]
        flags: AgentFlags,
        /// Stop after this time and a last flush: 120s, 5m
        #[arg(long = "for", value_name = "TIME", value_parser = crate::cli::time)]
        duration: Option<Duration>,
    },
    /// Write a configuration for this host: its links, a limit for each
    #[command(after_help = init::HELP)]
    Init(init::AgentInit),
    /// Show the agent's state: pending events, open breaches, problems
    #[command(after_help = status::HELP)]
    Status(status::StatusCommand),
    /// Print the event schema, as for a schema registry
    Schema {
        /// Schema format
        #[arg(long, value_name = "avsc|proto|json-schema", default_value = "json-schema", value_parser = schema_format)]
        format: Format,
    },
    /// Create the topics that are missing, and show differences
    #[cfg(feature = "toolbox")]
    #[command(after_help = topics::help())]
    Topics(topics::TopicsCommand),
    /// Generate a fleet's events, or exceed a low limit on a real link
    #[cfg(feature = "toolbox")]
    #[command(after_help = simulate::HELP)]
    Simulate(Box<simulate::Simulate>),
    /// Replay a recorded series (CSV) against a limit, row by row
    #[cfg(feature = "toolbox")]
    #[command(after_help = replay::HELP)]
    Replay(Box<replay::Replay>),
    /// Explain the configuration, and try all that an agent needs
    #[command(after_help = check::HELP)]
    Check(check::AgentCheck),
}

const TOOLBOX_COMMANDS: &[&str] = &["topics", "simulate", "replay"];

pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::main(arguments, TOOLBOX_COMMANDS, |cli: Cli| cli.command.run())
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run { flags, duration } => {
                flags.common.start_log();
                let settings = flags.settings()?;
                if let Some(file) = flags.common.absent_file() {
                    info!("there is no {file}: using flags, the environment and defaults");
                }
                settings.warnings.iter().for_each(|warning| warn!("{warning}"));
                let signals = SignalPipe::new().map_err(Failure::failed)?;
                signals.listen_to_signals().map_err(Failure::failed)?;
                let reload = || flags.settings().map_err(|error| error.to_string());
                let run = Run { signals: &signals, duration, observers: Vec::new(), reload: &reload };
                run::run(settings, run)?.all_delivered()
            }
            Self::Init(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Schema { format } => output::print(format.schema()),
            #[cfg(feature = "toolbox")]
            Self::Topics(command) => command.run(),
            #[cfg(feature = "toolbox")]
            Self::Simulate(command) => command.run(),
            #[cfg(feature = "toolbox")]
            Self::Replay(command) => command.run(),
            Self::Check(command) => command.run(),
        }
    }
}

fn schema_format(name: &str) -> Result<Format, String> {
    let names = || FORMATS.map(Format::schema_name).join(", ");
    let found = FORMATS.into_iter().find(|format| format.schema_name() == name);
    found.ok_or_else(|| format!("write one of {}", names()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_help_fits_a_terminal() {
        crate::cli::assert_help_fits::<super::Cli>();
    }
}
