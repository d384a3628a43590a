use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::{self, FlagOfKey, Verbosity};
use crate::config::{CONSUMER_KEYS, ConfigError, Layers};
use crate::consumer::StandaloneConsumer;
use crate::consumer::config::Settings;
use crate::process::exit::{Failure, Status};
use crate::process::systemd::Directories;

pub(super) const CONFIG: &str = "/etc/highwater/consumer.toml";
pub(super) const SERVICE_USER: &str = "highwater-consumer";

#[derive(Args, Clone, Debug)]
pub(super) struct Common {
    /// Configuration [default: /etc/highwater/consumer.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Brokers, host:port,host:port; overrides kafka.brokers
    #[arg(short, long, value_name = "LIST")]
    brokers: Option<String>,
    /// Topic of the events; overrides kafka.topic
    #[arg(short, long, value_name = "NAME")]
    pub(super) topic: Option<String>,
    /// Consumer group; overrides kafka.group
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// Schema registry; overrides kafka.registry.url
    #[arg(short = 's', long, value_name = "URL")]
    registry: Option<String>,
    /// Database: postgres://… or sqlite:FILE; overrides store.url
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    #[command(flatten)]
    verbosity: Verbosity,
}

impl Common {
    pub(super) fn start_log(&self) {
        self.verbosity.start_log();
    }

    pub(super) fn prepare(&self) -> Result<Settings, Failure> {
        self.start_log();
        self.settings().map_err(Failure::config)
    }

    pub(super) fn note(&self, text: &str) {
        self.verbosity.note(text);
    }

    pub(super) fn is_of_service(&self) -> bool {
        self.path().is_none_or(|path| path == Path::new(CONFIG))
    }

    pub(super) fn absent_file(&self) -> Option<&'static str> {
        cli::absent_file(self.config.as_deref(), CONFIG)
    }

    pub(super) fn settings(&self) -> Result<Settings, ConfigError> {
        Settings::new(&self.layers()?, &Directories::from_environment())
    }

    pub(super) fn checked_settings(&self) -> Result<(Layers, Settings), ConfigError> {
        let layers = self.layers()?;
        let settings = Settings::new(&layers, &Directories::from_environment())?;
        settings.check().map_err(|invalid| layers.locate(invalid))?;
        Ok((layers, settings))
    }

    fn layers(&self) -> Result<Layers, ConfigError> {
        cli::layers(self.config.as_deref(), CONFIG, &self.keys(), CONSUMER_KEYS)
    }

    pub(super) fn keys(&self) -> [FlagOfKey<'_>; 5] {
        [
            ("--brokers", "kafka.brokers", &self.brokers),
            ("--topic", "kafka.topic", &self.topic),
            ("--group", "kafka.group", &self.group),
            ("--registry", "kafka.registry.url", &self.registry),
            ("--store", "store.url", &self.store),
        ]
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

pub(super) fn unavailable(why: impl std::fmt::Display) -> Failure {
    Failure::new(Status::Unavailable, why.to_string())
}

pub(super) fn standalone(settings: &Settings) -> Result<StandaloneConsumer, Failure> {
    standalone_of(settings, &settings.topic)
}

pub(super) fn standalone_of(settings: &Settings, topic: &str) -> Result<StandaloneConsumer, Failure> {
    let Settings { connection, group, .. } = settings;
    StandaloneConsumer::new(connection, topic, group, settings.decoder()).map_err(Failure::config)
}
