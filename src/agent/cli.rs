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

/// Watches how much traffic this host's network links carry, and reports to Kafka when one exceeds its limit.
#[derive(Debug, Parser)]
#[command(name = "highwater-agent", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch, until SIGTERM or SIGINT (SIGUSR1 flushes, SIGHUP reads the configuration again)
    Run {
        #[command(flatten)]
        common: Common,
        /// End by itself after this time and a last flush: 120s, 5m
        #[arg(long = "for", value_name = "TIME", value_parser = crate::cli::time)]
        duration: Option<Duration>,
    },
    /// Show the agent's state: what is pending, which breaches are open, what Kafka acknowledged, what went wrong
    #[command(after_help = status::HELP)]
    Status(status::StatusCommand),
    /// Print the event schema, as a schema registry takes it
    Schema {
        /// Schema format: Avro, Protobuf or JSON
        #[arg(long, value_name = "avsc|proto|json-schema", default_value = "json-schema", value_parser = schema_format)]
        format: Format,
    },
    /// Make the topics that are missing, and show what differs
    #[cfg(feature = "toolbox")]
    #[command(after_help = topics::HELP)]
    Topics(topics::TopicsCommand),
    /// Breach limits on purpose: made-up agents and links, or a low limit on a real one
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
                let of_links = run::check_links(&settings);
                let warnings = settings.warnings.iter().chain(&of_links);
                warnings.for_each(|warning| write_error(&format!("warning: {warning}")));
                output::print(&settings.to_string())
            }
        }
    }
}

fn schema_format(name: &str) -> Result<Format, String> {
    let names = || FORMATS.map(Format::schema_name).join(", ");
    let found = FORMATS.into_iter().find(|format| format.schema_name() == name);
    found.ok_or_else(|| format!("it is one of {}", names()))
}
