use clap::Args;

use super::common::Common;
use crate::agent::config::Settings;
use crate::agent::toolbox::topics::{differences, failure, plan, visible};
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::config::{TOPICS, TopicSpec};
use crate::kafka::admin::{Admin, Found, WantedTopic};
use crate::kafka::missing_topic;
use crate::process::exit::Failure;
use crate::units::lasting;

pub(super) fn help() -> String {
    let mut topics = String::new();
    for TopicSpec { key, usual, about, .. } in &TOPICS {
        for (line, about) in about.lines().enumerate() {
            let (key, usual) = if line == 0 { (*key, *usual) } else { ("", "") };
            topics += &format!("  {key:<17}  {usual:<20}  {about}\n");
        }
    }
    HELP.replace("TOPICS\n", &topics)
}

const HELP: &str = "\
Creates only the topics that are missing, and never changes existing ones. With
-t only this topic: as one of those below if it has that name, else as one for
events. Otherwise those that the configuration names:

  kafka.topic        highwater.events      events
TOPICS

  topics.partitions   6    at most this many consumers can share the work; all
                           events of an agent are in one partition
  topics.replication  3    replication factor; fewer if there are fewer brokers
  topics.retention    30d  longer than any outage of a consumer

The timestamp of a message is the time of its arrival at the broker
(message.timestamp.type=LogAppendTime), so that retention does not depend on a
gateway's clock. An event also contains its own time.

With three replicas or more, min.insync.replicas is 2: an acknowledged event
survives the loss of any one of them.

Exit code: 0, also if an existing topic differs; 1 with --check if a topic is
missing or differs; 69 if Kafka could not be reached.

Examples:
  highwater-agent topics --check || highwater-agent topics
  highwater-agent topics -b kafka-1:9092 -t site7.events
  highwater-agent topics --list -t highwater.events --format json";

#[derive(Args, Debug)]
pub(super) struct TopicsCommand {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    /// Create nothing; exit 1 if a topic is missing or differs
    #[arg(long)]
    check: bool,
    /// Show the first and last offset of each partition of all topics
    #[arg(long, conflicts_with = "check")]
    list: bool,
    /// Include the topic for samples, even if samples.enabled is unset
    #[arg(long, conflicts_with = "list")]
    samples: bool,
}

const COLUMNS: &[&str] = &["topic", "state", "partitions", "replication", "cleanup", "retention", "differs"];
const LIST_COLUMNS: &[&str] = &["topic", "partition", "first_offset", "last_offset", "messages_max"];

impl TopicsCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let admin = Admin::new(&settings.publisher.connection).map_err(failure)?;
        if self.list { self.list(&admin, &settings) } else { self.make(&admin, &settings) }
    }

    fn make(&self, admin: &Admin, settings: &Settings) -> Result<(), Failure> {
        let (brokers, mut found) = admin.topics().map_err(failure)?;
        let wanted = plan(settings, self.common.topic.as_ref(), self.samples).wanted(brokers);
        found.retain(|found| wanted.iter().any(|wanted| wanted.name == found.name));
        admin.describe(&mut found).map_err(failure)?;
        for wanted in wanted.iter().filter(|wanted| found.iter().all(|found| found.name != wanted.name)) {
            visible(admin, &wanted.name)?;
        }
        let mut made = Vec::new();
        if !self.check {
            for wanted in wanted.iter().filter(|wanted| found.iter().all(|found| found.name != wanted.name)) {
                admin.create(wanted).map_err(failure)?;
                made.push(wanted.name.as_str());
            }
        }
        output::finished(print(&wanted, &found, &made, self.format))?;
        let missing = wanted.len() - found.len() - made.len();
        let differing = wanted.iter().filter(|wanted| !differences(wanted, &found).is_empty()).count();
        match (missing, differing) {
            (0, 0) => Ok(()),
            (_, _) if self.check => Err(Failure::failed(format!("topics missing: {missing}, differing: {differing}"))),
            (_, _) => {
                self.common.note("differences were not changed: use Kafka's own tools, or adapt [topics]");
                Ok(())
            }
        }
    }

    fn list(&self, admin: &Admin, settings: &Settings) -> Result<(), Failure> {
        let (_, topics) = admin.topics().map_err(failure)?;
        let only = self.common.topic.as_deref();
        let shown: Vec<&Found> = topics.iter().filter(|topic| only.is_none_or(|only| only == topic.name)).collect();
        if let (Some(only), []) = (only, &*shown) {
            visible(admin, only)?;
            return Err(Failure::failed(missing_topic(only, settings.publisher.connection.brokers())));
        }
        let mut rows = Vec::new();
        for topic in shown {
            for partition in &topic.partitions {
                rows.push((&topic.name, *partition, admin.offsets(&topic.name, *partition).map_err(failure)?));
            }
        }
        let mut printer = Rows::new(self.format, LIST_COLUMNS, output::stdout(self.format));
        let printed = rows.into_iter().try_for_each(|(topic, partition, (first, next))| {
            let last = (next > first).then(|| next - 1);
            printer.push([topic.as_str().into(), partition.into(), first.into(), last.into(), (next - first).into()])
        });
        output::finished(printed.and_then(|()| printer.end()))
    }
}

fn print(wanted: &[WantedTopic], found: &[Found], made: &[&str], format: OutputFormat) -> std::io::Result<()> {
    let mut rows = Rows::new(format, COLUMNS, output::stdout(format));
    for wanted in wanted {
        let differs = differences(wanted, found);
        let is = found.iter().find(|found| found.name == wanted.name);
        let state = match is {
            None if made.contains(&&*wanted.name) => "created",
            None => "missing",
            Some(_) if differs.is_empty() => "ok",
            Some(_) => "differs",
        };
        let setting = |name: &str| match is {
            Some(found) => found.settings.get(name).cloned(),
            None => wanted.settings.iter().find(|(wanted, _)| *wanted == name).map(|(_, value)| value.clone()),
        };
        let count = |count: usize| Value::Number(count as i128);
        rows.push([
            wanted.name.as_str().into(),
            state.into(),
            is.map_or(Value::from(wanted.partitions), |found| count(found.partitions.len())),
            is.map_or(wanted.replication, |found| found.replication).into(),
            setting("cleanup.policy").into(),
            setting("retention.ms").map(|ms| retention(&ms)).into(),
            if differs.is_empty() { Value::Null } else { differs.join("; ").into() },
        ])?;
    }
    rows.end()
}

fn retention(ms: &str) -> String {
    match ms.parse::<u64>() {
        Ok(ms) => lasting(std::time::Duration::from_millis(ms)),
        Err(_) if ms == "-1" => "forever".to_owned(),
        Err(_) => ms.to_owned(),
    }
}
