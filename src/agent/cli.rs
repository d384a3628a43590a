mod common;
#[cfg(feature = "toolbox")]
mod outlet;
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
use log::warn;

use self::common::{Absent, Common};
use crate::agent::control::Control;
use crate::agent::run::{self, Run};
use crate::cli;
use crate::exit::{Failure, write_error};
use crate::output;
use crate::wire::{FORMATS, Format};

/// Reports to Kafka when one of this host's network links exceeds its limit.
#[derive(Debug, Parser)]
#[command(name = "highwater-agent", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch until SIGTERM or SIGINT (SIGUSR1 flushes, SIGHUP reloads)
    Run {
        #[command(flatten)]
        common: Common,
        /// Stop after this time and a last flush: 120s, 5m
        #[arg(long = "for", value_name = "TIME", value_parser = crate::cli::time)]
        duration: Option<Duration>,
    },
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
    #[command(after_help = topics::HELP)]
    Topics(topics::TopicsCommand),
    /// Generate a fleet's events, or exceed a low limit on a real link
    #[cfg(feature = "toolbox")]
    #[command(after_help = simulate::HELP)]
    Simulate(Box<simulate::Simulate>),
    /// Replay a recorded series (CSV) against a limit, row by row
    #[cfg(feature = "toolbox")]
    #[command(after_help = replay::HELP)]
    Replay(Box<replay::Replay>),
    /// Validate the configuration and explain it
    Check {
        #[command(flatten)]
        common: Common,
    },
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::main(arguments, |cli: Cli| cli.command.run())
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run { common, duration } => {
                common.start_log();
                let settings = common.settings_of_an_agent(Absent::IsAnError)?;
                settings.warnings.iter().for_each(|warning| warn!("{warning}"));
                let control = Control::new().map_err(Failure::failed)?;
                control.listen_to_signals().map_err(Failure::failed)?;
                let reload = || common.settings_of_an_agent(Absent::IsAnError).map_err(|error| error.to_string());
                let run = Run { control: &control, duration, observers: Vec::new(), reload: &reload };
                run::run(settings, run)?.all_delivered()
            }
            Self::Status(command) => command.run(),
            Self::Schema { format } => output::print(format.schema()),
            #[cfg(feature = "toolbox")]
            Self::Topics(command) => command.run(),
            #[cfg(feature = "toolbox")]
            Self::Simulate(command) => command.run(),
            #[cfg(feature = "toolbox")]
            Self::Replay(command) => command.run(),
            Self::Check { common } => {
                let settings = common.checked_settings(Absent::MeansDefaults)?;
                let (of_links, cost) = run::check_links(&settings);
                let warnings = settings.warnings.iter().chain(&of_links);
                warnings.for_each(|warning| write_error(&format!("warning: {warning}")));
                let cost = cost.map(|line| format!("{line}\n")).unwrap_or_default();
                output::print(&format!("{settings}{cost}"))
            }
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
