//! The command line of `highwater-agent`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::agent::config::Settings;
use crate::agent::control::Control;
use crate::agent::run::{self, Run, surroundings};
use crate::config::{AGENT_KEYS, ConfigError, Layers, environment};
use crate::exit::{Failure, report};
use crate::output;
use crate::wire::{FORMATS, Format};
use crate::{failpoints, logging};

/// Where the configuration stands unless the command line says otherwise.
const CONFIG: &str = "/etc/highwater/agent.toml";

/// Watches how much traffic this host's network links carry, and tells Kafka when one rises over its limit.
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
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
    },
    /// Print what an event is, in the words of one of its formats; a schema registry takes the same
    Schema {
        /// Of which format: Avro, Protobuf or JSON
        #[arg(long, value_name = "avsc|proto|json-schema", default_value = "json-schema", value_parser = schema_format)]
        format: Format,
    },
    /// Read the configuration, and say what it means or what is wrong with it
    Check {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// The configuration [default: /etc/highwater/agent.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kafka's brokers, in place of kafka.brokers: host:port,host:port
    #[arg(short, long, value_name = "LIST")]
    brokers: Option<String>,
    /// The topic for events, in place of kafka.topic
    #[arg(short, long, value_name = "NAME")]
    topic: Option<String>,
    /// The schema registry, in place of kafka.registry.url
    #[arg(short = 's', long, value_name = "URL")]
    registry: Option<String>,
    /// Say more in the log; twice says all
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say less in the log: only warnings; twice only errors
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,
}

/// Does what `arguments` say; the exit code for `main`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    failpoints::begin();
    match Cli::try_parse_from(arguments) {
        Ok(cli) => report(cli.command.run()),
        Err(error) => {
            // clap's own codes: 0 for --help and --version, 2 for usage. Nothing can be done about a closed pipe.
            let _ = error.print();
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run { common, duration } => {
                logging::start(logging::level(common.verbose, common.quiet));
                let settings = common.settings().map_err(Failure::config)?;
                let control = Control::new().map_err(Failure::failed)?;
                control.listen_to_signals().map_err(Failure::failed)?;
                let reload = || common.settings().map_err(|error| error.to_string());
                let run = Run { control: &control, duration, observers: Vec::new(), reload: &reload };
                run::run(settings, run).map(drop)
            }
            Self::Schema { format } => output::finished(io::stdout().write_all(format.schema().as_bytes())),
            Self::Check { common } => {
                let settings = common.settings().map_err(Failure::config)?;
                print!("{settings}");
                Ok(())
            }
        }
    }
}

fn schema_format(name: &str) -> Result<Format, String> {
    let names = || FORMATS.map(Format::schema_name).join(", ");
    let found = FORMATS.into_iter().find(|format| format.schema_name() == name);
    found.ok_or_else(|| format!("it is one of {}", names()))
}

impl Common {
    /// Flags over the environment over the file.
    fn settings(&self) -> Result<Settings, ConfigError> {
        let path = self.config.clone().unwrap_or_else(|| PathBuf::from(CONFIG));
        // Flags are the environment's keys in other words: the last of a name wins.
        let flags = [
            ("HIGHWATER_KAFKA__BROKERS", &self.brokers),
            ("HIGHWATER_KAFKA__TOPIC", &self.topic),
            ("HIGHWATER_KAFKA__REGISTRY__URL", &self.registry),
        ];
        let flags = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let layers = Layers::read(Some(&path), environment().chain(flags), AGENT_KEYS)?;
        Settings::new(&layers, &surroundings())
    }
}
