//! What all commands share: their flags, and the settings these lead to.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::agent::config::Settings;
use crate::agent::run::surroundings;
use crate::config::{AGENT_KEYS, ConfigError, Layers, environment};
use crate::logging;

/// Where the configuration stands unless the command line says otherwise.
const CONFIG: &str = "/etc/highwater/agent.toml";

#[derive(Args, Clone, Debug)]
pub(super) struct Common {
    /// The configuration [default: /etc/highwater/agent.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kafka's brokers, in place of kafka.brokers: host:port,host:port
    #[arg(short, long, value_name = "LIST")]
    brokers: Option<String>,
    /// The topic for events, in place of kafka.topic
    #[arg(short, long, value_name = "NAME")]
    pub(super) topic: Option<String>,
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

/// What it means that the configuration's usual place is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    IsAnError,
    MeansDefaults,
}

impl Common {
    /// As `-v` and `-q` say.
    pub(super) fn start_log(&self) {
        logging::start(logging::level(self.verbose, self.quiet));
    }

    /// Says on standard error what the rows do not, unless `-q`.
    #[cfg(feature = "toolbox")]
    pub(super) fn note(&self, text: &str) {
        if self.quiet == 0 {
            eprintln!("note: {text}");
        }
    }

    /// Flags over the environment over the file.
    pub(super) fn settings(&self, absent: Absent) -> Result<Settings, ConfigError> {
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
            ("HIGHWATER_KAFKA__REGISTRY__URL", &self.registry),
        ];
        let flags = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let layers = Layers::read(path, environment().chain(flags), AGENT_KEYS)?;
        Settings::new(&layers, &surroundings())
    }
}
