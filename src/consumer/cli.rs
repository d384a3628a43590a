//! The command line of `highwater-consumer`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::config::{Directories, Settings};
use super::run::{Options, Stored, run};
use crate::config::{CONSUMER_KEYS, ConfigError, Layers, environment};
use crate::exit::{Failure, report};
use crate::{logging, wire};

/// Where the configuration stands unless the command line says otherwise.
const CONFIG: &str = "/etc/highwater/consumer.toml";

/// Stores what the agents tell Kafka in PostgreSQL or SQLite: each event exactly once.
#[derive(Debug, Parser)]
#[command(name = "highwater-consumer", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store what comes, until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        common: Common,
        /// End when all that was in Kafka at the start is stored, by whichever member of the group
        #[arg(long)]
        until_end: bool,
        /// Print topic, partition, offset and event as each is stored
        #[arg(long)]
        print: bool,
    },
    /// Read the configuration, and say what it means or what is wrong with it; nothing is asked of Kafka or the database
    Check {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// The configuration [default: /etc/highwater/consumer.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kafka's brokers, in place of kafka.brokers: host:port,host:port
    #[arg(short, long, value_name = "LIST")]
    brokers: Option<String>,
    /// The topic of the events, in place of kafka.topic
    #[arg(short, long, value_name = "NAME")]
    topic: Option<String>,
    /// The group that shares the topic's partitions and the database, in place of kafka.group
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// Say more in the log; twice says all
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say less in the log: only warnings; twice only errors
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,
}

/// Does what `arguments` say; the exit code for `main`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
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
            Self::Run { common, until_end, print } => {
                logging::start(logging::level(common.verbose, common.quiet));
                let settings = common.settings(Absent::IsAnError).map_err(Failure::config)?;
                let stop = Arc::new(AtomicBool::new(false));
                for signal in [SIGTERM, SIGINT] {
                    signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::failed)?;
                }
                let mut observer: Box<dyn FnMut(&Stored<'_>)> =
                    if print { Box::new(print_stored) } else { Box::new(|_| ()) };
                run(&settings, Options { until_end, watchdog: true }, &mut *observer, &stop)
            }
            Self::Check { common } => {
                let settings = common.settings(Absent::MeansDefaults).map_err(Failure::config)?;
                print!("{settings}");
                Ok(())
            }
        }
    }
}

/// What it means that the configuration's usual place is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    IsAnError,
    MeansDefaults,
}

impl Common {
    /// Flags over the environment over the file.
    fn settings(&self, absent: Absent) -> Result<Settings, ConfigError> {
        let usual = Path::new(CONFIG);
        let path = match &self.config {
            Some(path) => Some(path.as_path()),
            None if absent == Absent::MeansDefaults && !usual.exists() => None,
            None => Some(usual),
        };
        // Flags are the environment's keys in other words: the last of a name wins.
        let flags = [
            ("HIGHWATER_KAFKA__BROKERS", &self.brokers),
            ("HIGHWATER_KAFKA__TOPIC", &self.topic),
            ("HIGHWATER_KAFKA__GROUP", &self.group),
        ];
        let flags = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let layers = Layers::read(path, environment().chain(flags), CONSUMER_KEYS)?;
        Settings::new(&layers, &directories())
    }
}

fn directories() -> Directories {
    let directory = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    Directories { credentials: directory("CREDENTIALS_DIRECTORY"), state: directory("STATE_DIRECTORY") }
}

fn print_stored(stored: &Stored<'_>) {
    let Stored { topic, partition, offset, event } = stored;
    let json = wire::to_json(event);
    let mut out = std::io::stdout().lock();
    // Who reads it may have gone; storing goes on.
    let _ = write!(out, "{topic} {partition} {offset} ")
        .and_then(|()| out.write_all(&json))
        .and_then(|()| out.write_all(b"\n"));
}
