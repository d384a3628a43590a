//! Flags that all commands share, and the settings they lead to.

use std::path::PathBuf;

use clap::Args;

use crate::agent::config::Settings;
use crate::agent::surroundings::surroundings;
pub(super) use crate::cli::Absent;
use crate::cli::{self, Verbosity};
use crate::config::{AGENT_KEYS, ConfigError, Layers};
use crate::exit::Failure;
use crate::kafka::check_brokers;

const CONFIG: &str = "/etc/highwater/agent.toml";

#[derive(Args, Clone, Debug)]
pub(super) struct Common {
    /// Configuration [default: /etc/highwater/agent.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Brokers, host:port,host:port; overrides kafka.brokers
    #[arg(short, long, value_name = "LIST")]
    brokers: Option<String>,
    /// Topic of the events; overrides kafka.topic
    #[arg(short, long, value_name = "NAME")]
    pub(super) topic: Option<String>,
    /// Schema registry; overrides kafka.registry.url
    #[arg(short = 's', long, value_name = "URL")]
    registry: Option<String>,
    #[command(flatten)]
    verbosity: Verbosity,
}

impl Common {
    pub(super) fn start_log(&self) {
        self.verbosity.start_log();
    }

    #[cfg(feature = "toolbox")]
    pub(super) fn note(&self, text: &str) {
        self.verbosity.note(text);
    }

    #[cfg(feature = "toolbox")]
    pub(super) fn begin(&self) -> Result<Settings, Failure> {
        self.start_log();
        self.settings(Absent::MeansDefaults).map_err(Failure::config)
    }

    fn settings(&self, absent: Absent) -> Result<Settings, ConfigError> {
        Settings::new(&self.layers(absent)?, &surroundings())
    }

    pub(super) fn settings_of_an_agent(&self, absent: Absent) -> Result<Settings, Failure> {
        let settings = self.settings(absent).map_err(Failure::config)?;
        match settings.nameless {
            Some(why) => Err(Failure::config(why)),
            None => Ok(settings),
        }
    }

    pub(super) fn checked_settings(&self, absent: Absent) -> Result<Settings, Failure> {
        let settings = self.settings_of_an_agent(absent)?;
        let layers = self.layers(absent).map_err(Failure::config)?;
        settings.publisher.check().map_err(|invalid| Failure::config(layers.locate(invalid)))?;
        Ok(settings)
    }

    /// Reads the state directory alone: a user of `status` need not be able to read the service's secrets. What the flags say is
    /// checked for all commands.
    pub(super) fn state_dir(&self, absent: Absent) -> Result<PathBuf, ConfigError> {
        let layers = self.layers(absent)?;
        let brokers = self.brokers.as_deref().map_or(Ok(()), check_brokers);
        brokers.map_err(|invalid| layers.locate(invalid))?;
        Settings::state_dir(&layers, &surroundings())
    }

    fn layers(&self, absent: Absent) -> Result<Layers, ConfigError> {
        let flags = [
            ("--brokers", "kafka.brokers", &self.brokers),
            ("--topic", "kafka.topic", &self.topic),
            ("--registry", "kafka.registry.url", &self.registry),
        ];
        cli::layers(self.config.as_deref(), (CONFIG, absent), &flags, AGENT_KEYS)
    }
}
