//! Flags shared by all commands, and the settings that follow from them.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::agent::config::{LimitFlag, Settings};
use crate::cli::{self, FlagOfKey, Verbosity};
use crate::config::{AGENT_KEYS, ConfigError, Layers};
use crate::kafka::check_brokers;
use crate::process::exit::Failure;
use crate::process::host::ServiceEnvironment;

pub(super) const CONFIG: &str = "/etc/highwater/agent.toml";
pub(super) const SERVICE_USER: &str = "highwater-agent";

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
    /// Directory of the journal; overrides state_dir
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Args, Clone, Debug)]
pub(super) struct AgentFlags {
    #[command(flatten)]
    pub(super) common: Common,
    // Square brackets would be links to rustdoc.
    #[arg(
        long = "limit",
        value_name = "LIMIT",
        help = "[NAME@]LINKS[:rx|tx|total]=RATE[,for=TIME…]; overrides [[limit]]"
    )]
    limits: Vec<LimitFlag>,
    /// Longest time that an event waits; overrides flush.interval
    #[arg(long, value_name = "TIME")]
    flush: Option<String>,
    /// Create the topics that are missing; sets kafka.create_topics
    #[arg(long)]
    create_topics: bool,
}

impl Common {
    pub(super) fn start_log(&self) {
        self.verbosity.start_log();
    }

    pub(super) fn note(&self, text: &str) {
        self.verbosity.note(text);
    }

    #[cfg(feature = "toolbox")]
    pub(super) fn prepare(&self) -> Result<Settings, Failure> {
        self.start_log();
        Settings::new(&self.layers().map_err(Failure::config)?, &ServiceEnvironment::read()).map_err(Failure::config)
    }

    /// Reads the state directory alone: users of `status` need not have access to the service's secrets. All flags are checked.
    pub(super) fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        let layers = self.layers()?;
        let brokers = self.brokers.as_deref().map_or(Ok(()), check_brokers);
        brokers.map_err(|invalid| layers.locate(invalid))?;
        Settings::state_dir(&layers, &ServiceEnvironment::read())
    }

    fn layers(&self) -> Result<Layers, ConfigError> {
        cli::layers(self.config.as_deref(), CONFIG, &self.keys(), AGENT_KEYS)
    }

    pub(super) fn keys(&self) -> [FlagOfKey<'_>; 4] {
        [
            ("--brokers", "kafka.brokers", &self.brokers),
            ("--topic", "kafka.topic", &self.topic),
            ("--registry", "kafka.registry.url", &self.registry),
            ("--state-dir", "state_dir", &self.state_dir),
        ]
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub(super) fn is_of_service(&self) -> bool {
        self.path().is_none_or(|path| path == Path::new(CONFIG))
    }

    pub(super) fn absent_file(&self) -> Option<&'static str> {
        cli::absent_file(self.config.as_deref(), CONFIG)
    }
}

impl AgentFlags {
    pub(super) fn layers(&self) -> Result<Layers, ConfigError> {
        let create_topics = self.create_topics.then(|| "true".to_owned());
        let flags =
            [("--flush", "flush.interval", &self.flush), ("--create-topics", "kafka.create_topics", &create_topics)];
        let limits = self.limits.iter().cloned().map(LimitFlag::into_table).collect();
        Ok(self.common.layers()?.with_flags(&flags).with_tables("--limit", "limit", limits))
    }

    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        self.settings_of(&self.layers().map_err(Failure::config)?)
    }

    pub(super) fn settings_of(&self, layers: &Layers) -> Result<Settings, Failure> {
        let settings = Settings::new(layers, &ServiceEnvironment::read()).map_err(Failure::config)?;
        match settings.name_error {
            Some(why) => Err(Failure::config(why)),
            None => Ok(settings),
        }
    }
}
