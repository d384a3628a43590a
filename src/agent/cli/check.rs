//! `highwater-agent check`: the configuration, this host, Kafka and the registry, a line each.

use clap::Args;

use super::common::{AgentFlags, SERVICE_USER};
use crate::agent::config::Settings;
use crate::agent::publisher::look_up_schema;
use crate::agent::run::check::{check_clock, check_journal, check_links, check_state_dir};
use crate::cli::check::{CheckFlags, CheckReport, unreadable_by_service, unwritable_by_service, valid_configuration};
use crate::cli::output;
use crate::config::{AGENT_KEYS, TopicRole};
use crate::kafka::check::{CheckedTopic, IfMissing, check_cluster, check_topic};
use crate::kafka::schema_registry::{RegistryAddress, RegistryError, subject};
use crate::kafka::{missing_topic, missing_topic_of_histograms};
use crate::process::checks::Finding;
use crate::process::clock::SystemClock;
use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
Explains the configuration, then tries what an agent would need, a line each:
ok, warning or FAILED, with the remedy. Run it as the agent's user, or as root.

  service        for root: the service's user may read the configuration, and
                 the certificates and secrets that it names
  links, limits  which links each limit applies to now, and at which rates
  state, disk    the journal's directory: rights, and room for the journal
  journal        shown if it is damaged, or a newer agent's
  clock          whether it was set
  kafka, topic   the brokers answer, the topics are there and may be seen;
                 whether they may be written to, only the first event shows
  registry       the schema is there, or is registered by the agent

--offline asks no server, and tries only configuration and links. --print-config
prints what is in force as TOML, with the source of each value, and no secret.

Exit code: 0 if nothing failed; 1 if a check failed; 78 if the configuration is
wrong.";

#[derive(Args, Debug)]
pub(super) struct AgentCheck {
    #[command(flatten)]
    flags: AgentFlags,
    #[command(flatten)]
    check: CheckFlags,
}

impl AgentCheck {
    pub(super) fn run(self) -> Result<(), Failure> {
        let layers = self.flags.layers().map_err(Failure::config)?;
        let settings = self.flags.settings_of(&layers)?;
        settings.publisher.check().map_err(|invalid| Failure::config(layers.locate(invalid)))?;
        if self.check.print_config {
            let in_force = layers.in_force(AGENT_KEYS, &Settings::defaults(), &settings.derived_values());
            return output::print(&in_force.map_err(Failure::config)?);
        }
        let (links, cost) = check_links(&settings);
        let cost = cost.map(|line| format!("{line}\n")).unwrap_or_default();
        output::print(&format!("{settings}{cost}\n"))?;
        let mut report = CheckReport::default();
        report.add(&valid_configuration(self.flags.common.absent_file()))?;
        if self.flags.common.is_of_service() {
            let files = layers.named_files().map_err(Failure::config)?;
            report.add_all(unreadable_by_service(SERVICE_USER, &files))?;
            let directory = layers.file_that_sets("state_dir").map(|_| &settings.state_dir);
            report.add_all(directory.and_then(|path| unwritable_by_service(SERVICE_USER, path)))?;
        }
        report.add_all(settings.warnings.iter().map(|warning| Finding::warning("configuration", warning)))?;
        report.add_all(links)?;
        if !self.check.offline {
            report.add_all(check_state_dir(&settings))?;
            report.add_all(check_journal(&settings))?;
            report.add(&check_clock(&SystemClock::default()))?;
            check_kafka(&settings, &mut report)?;
            report.add_all(check_registry(&settings))?;
        }
        report.end()
    }
}

fn check_kafka(settings: &Settings, report: &mut CheckReport) -> Result<(), Failure> {
    let connection = &settings.publisher.connection;
    let (finding, admin) = check_cluster(connection);
    report.add(&finding)?;
    let Some(admin) = admin else { return Ok(()) };
    for name in settings.topic_names() {
        let is_for_hours = name == settings.topics.names.of(TopicRole::Histograms);
        let missing = if is_for_hours { missing_topic_of_histograms } else { missing_topic };
        let missing = missing(name, connection.brokers());
        let if_missing = match settings.publisher.create_topics {
            Some(_) => IfMissing::Create,
            // Consumers write there, not agents.
            None if is_for_hours => IfMissing::Unused,
            None => IfMissing::Fail,
        };
        let right = if is_for_hours { "Describe" } else { "Write" };
        report.add(&check_topic(&admin, CheckedTopic { name, if_missing, missing: &missing, right }))?;
    }
    Ok(())
}

fn check_registry(settings: &Settings) -> Vec<Finding> {
    let (about, encoding) = ("registry", &settings.publisher.encoding);
    let Some(url) = encoding.registry.as_ref().map(RegistryAddress::url) else { return Vec::new() };
    let hours = settings.topics.names.of(TopicRole::Histograms);
    let mut findings = Vec::new();
    for topic in settings.topic_names().into_iter().filter(|name| *name != hours) {
        let Some(found) = look_up_schema(encoding, topic) else {
            let why = format!("{url} is not used: {} needs no schema; see kafka.format", encoding.format);
            return vec![Finding::warning(about, why)];
        };
        let subject = subject(topic);
        findings.push(match found {
            Ok(id) => Finding::ok(about, format!("{url} has the schema, with id {id}, as {subject}")),
            Err(RegistryError::NotFound(_)) if encoding.auto_register => Finding::ok(
                about,
                format!("{url} answers, and has no such schema yet: the agent registers it as {subject}"),
            ),
            Err(error @ RegistryError::NotFound(_)) => Finding::failed(about, error),
            // The next one would fail in the same way.
            Err(error) => return vec![Finding::failed(about, error)],
        });
    }
    findings
}
