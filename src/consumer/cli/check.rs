use std::os::unix::fs::MetadataExt as _;

use clap::Args;

use super::common::{Common, SERVICE_USER};
use crate::cli::check::{CheckFlags, CheckReport, unreadable_by_service, unwritable_by_service, valid_configuration};
use crate::cli::output;
use crate::config::{CONSUMER_KEYS, Layers};
use crate::consumer::config::Settings;
use crate::kafka::admin::{Admin, TopicLookup};
use crate::kafka::check::{CheckedTopic, IfMissing, check_cluster, check_topic};
use crate::kafka::schema_registry::{RegistryError, subject};
use crate::kafka::{missing_topic, missing_topic_of_histograms};
use crate::process::checks::Finding;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;
use crate::wire::Format;

pub(super) const HELP: &str = "\
Explains the configuration, and then tries what the consumer would need, a line
each: ok, warning or FAILED, with the remedy. It stores nothing.

  service        for root: the service's user may read the configuration, and
                 the certificates and secrets that it names
  kafka, topic   the brokers answer, the topics are there and may be seen
  group          this user may use the consumer group
  registry       it answers, and which schemas of events it has
  database       version, encoding, rights, tables
  locks          PostgreSQL has room for the locks of all partitions
  disk, clock    room for a SQLite file; PostgreSQL's clock is like this one

--offline asks no server, and validates only the configuration. --print-config
prints what is in force as TOML, with the source of each value, and no secret.

Exit code: 0 if nothing failed; 1 if a check failed; 78 if the configuration is
wrong.";

#[derive(Args, Debug)]
pub(super) struct ConsumerCheck {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    check: CheckFlags,
}

impl ConsumerCheck {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (layers, settings) = self.common.checked_settings().map_err(Failure::config)?;
        if self.check.print_config {
            let store = [("store.url", settings.store.to_string())];
            let in_force = layers.in_force(CONSUMER_KEYS, &Settings::defaults(), &store);
            return output::print(&in_force.map_err(Failure::config)?);
        }
        output::print(&format!("{settings}\n"))?;
        let mut report = CheckReport::default();
        report.add(&valid_configuration(self.common.absent_file()))?;
        report.add_all(self.readable_password(&layers, &settings))?;
        if self.common.is_of_service() {
            let files = [layers.named_files().map_err(Failure::config)?, settings.store.files()].concat();
            report.add_all(unreadable_by_service(SERVICE_USER, &files))?;
            let directory = settings.store.directory().filter(|_| layers.file_that_sets("store.url").is_some());
            report.add_all(directory.and_then(|path| unwritable_by_service(SERVICE_USER, path)))?;
        }
        if !self.check.offline {
            check_kafka(&settings, &mut report)?;
            report.add_all(check_registry(&settings))?;
            report.add_all(settings.store.check(SystemClock::default().wall()))?;
        }
        report.end()
    }

    /// Warns of a file with a password in `store.url` that everybody may read.
    fn readable_password(&self, layers: &Layers, settings: &Settings) -> Option<Finding> {
        let file = layers.file_that_sets("store.url").filter(|_| settings.store.holds_password())?;
        let is_readable = file.metadata().is_ok_and(|about| about.mode() & 0o4 != 0);
        let file = is_readable.then(|| file.display())?;
        let remedy = match self.common.is_of_service() {
            true => format!("chgrp {SERVICE_USER} {file} && chmod 640 {file}"),
            false => format!("chmod 600 {file}"),
        };
        let text = format!("everybody may read {file}, and the password in it: {remedy}, or set store.password_file");
        Some(Finding::warning("configuration", text))
    }
}

fn check_kafka(settings: &Settings, report: &mut CheckReport) -> Result<(), Failure> {
    let (finding, admin) = check_cluster(&settings.connection);
    report.add(&finding)?;
    let Some(admin) = admin else { return Ok(()) };
    let brokers = settings.connection.brokers();
    for name in settings.membership().topics {
        let if_missing = if settings.may_be_missing(&name) { IfMissing::Warn } else { IfMissing::Fail };
        let missing = missing_topic(&name, brokers);
        report.add(&check_topic(&admin, CheckedTopic { name: &name, if_missing, missing: &missing, right: "Read" }))?;
    }
    if let Some(name) = settings.published_hours() {
        let missing = missing_topic_of_histograms(name, brokers);
        let topic = CheckedTopic { name, if_missing: IfMissing::Warn, missing: &missing, right: "Write" };
        report.add(&check_topic(&admin, topic))?;
    }
    report.add_all(check_group(settings, &admin))
}

fn check_group(settings: &Settings, admin: &Admin) -> Option<Finding> {
    let Ok(TopicLookup::Found { .. }) = admin.look_up(&settings.topic) else { return None };
    let about = format!("group {}", settings.group);
    Some(match admin.committed((&settings.group, "Read"), &settings.topic, &[0]) {
        Ok(_) => Finding::ok(about, "may be used"),
        Err(error) => Finding::failed(about, error),
    })
}

fn check_registry(settings: &Settings) -> Option<Finding> {
    let (about, address) = ("registry", settings.registry.as_ref()?);
    let subject = subject(&settings.topic);
    let mut found = Vec::new();
    for format in [Format::Avro, Format::Protobuf] {
        match address.open().and_then(|registry| registry.id_of(&subject, format, false)) {
            Ok(id) => found.push(format!("{format} with id {id}")),
            Err(RegistryError::NotFound(_)) => {}
            Err(error) => return Some(Finding::failed(about, error)),
        }
    }
    let url = address.url();
    Some(Finding::ok(
        about,
        match found.as_slice() {
            [] => format!("{url} answers, and has no schema of this version as {subject} yet"),
            found => format!("{url} has {subject}: {}", found.join(", ")),
        },
    ))
}
