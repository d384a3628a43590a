use std::collections::BTreeMap;
use std::time::Duration;

use pollster::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::producer::{BaseProducer, Producer as _};

use super::{ClientError, Connection, DRAIN, Reports, missing_right, not_created, offsets, unreachable_broker};

const ANSWER_MAX: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Pause between questions for a topic that was just created.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot reach Kafka at {brokers}: {why}")]
    Unavailable { brokers: String, why: String },
    #[error("{0}")]
    Misconfigured(String),
    #[error("Kafka at {brokers} refuses: {why}")]
    Refused { brokers: String, why: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTopic {
    pub name: String,
    pub partitions: i32,
    pub replication: i32,
    pub settings: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub partitions: Vec<i32>,
    pub replication: i32,
    pub settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicLookup {
    Found {
        partitions: usize,
        leaderless: Vec<i32>,
    },
    Missing,
    /// Hidden from this user, whether it exists or not.
    Denied(String),
}

pub struct Admin {
    /// A producer: unlike an admin client, it can be polled for errors.
    client: BaseProducer<Reports>,
    connection: Connection,
}

impl Admin {
    pub fn new(connection: &Connection) -> Result<Self, AdminError> {
        let config = connection.client(&[], &[]).map_err(unusable)?;
        let client = BaseProducer::from_config_and_context(&config, Reports::new(connection.brokers()));
        let client = client.map_err(misconfigured)?;
        Ok(Self { client, connection: connection.clone() })
    }

    pub fn topics(&self) -> Result<(usize, Vec<Found>), AdminError> {
        let metadata = self.metadata(None)?;
        let mut topics: Vec<Found> = metadata
            .topics()
            .iter()
            .map(|topic| {
                let mut partitions: Vec<i32> = topic.partitions().iter().map(MetadataPartition::id).collect();
                partitions.sort_unstable();
                let replication = topic.partitions().first().map_or(0, |partition| partition.replicas().len());
                let name = topic.name().to_owned();
                Found { name, partitions, replication: replication as i32, settings: BTreeMap::new() }
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((metadata.brokers().len(), topics))
    }

    /// Returns the number of brokers, and the first of them that this host cannot reach, with the remedy.
    pub fn cluster(&self) -> Result<(usize, Option<String>), AdminError> {
        let metadata = self.metadata(None)?;
        Ok((metadata.brokers().len(), unreachable_broker(&metadata)))
    }

    /// Looks a topic up by its name: a list of all topics leaves out those that this user may not see.
    pub fn look_up(&self, name: &str) -> Result<TopicLookup, AdminError> {
        let metadata = self.metadata(Some(name))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(TopicLookup::Missing);
        };
        let partitions = topic.partitions();
        Ok(match topic.error().map(RDKafkaErrorCode::from) {
            None if partitions.is_empty() => TopicLookup::Missing,
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => TopicLookup::Missing,
            Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => TopicLookup::Denied(code.to_string()),
            Some(code) if partitions.is_empty() => return Err(self.refused(&format!("topic {name}: {code}"))),
            _ => TopicLookup::Found {
                partitions: partitions.len(),
                leaderless: partitions.iter().filter(|found| found.leader() < 0).map(MetadataPartition::id).collect(),
            },
        })
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata, AdminError> {
        for _ in 0..ANSWER_MAX.as_secs() {
            let asked = self.client.client().fetch_metadata(topic, ASK_AGAIN);
            self.client.poll(DRAIN);
            match asked {
                Ok(metadata) => return Ok(metadata),
                Err(_) if self.last_error().is_none() => {}
                Err(_) => break,
            }
        }
        Err(self.no_answer("no answer".to_owned()))
    }

    pub fn describe(&self, topics: &mut [Found]) -> Result<(), AdminError> {
        if topics.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
        let names: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let described = block_on(self.admin()?.describe_configs(&names, &options()));
        let described = described.map_err(|error| self.unavailable(&error))?;
        for (topic, resource) in topics.iter_mut().zip(described) {
            let name = &topic.name;
            let resource = resource.map_err(|code| self.refused(&format!("settings of {name}: {code}")))?;
            // The rdkafka crate drops a resource's own error, and returns it without settings, which every topic has.
            if resource.entries.is_empty() {
                let missing = missing_right("DescribeConfigs", "topic", &[name]);
                return Err(self.refused(&format!("settings of {name}: {missing}")));
            }
            topic.settings =
                resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect();
        }
        Ok(())
    }

    /// Creates a topic; returns false if it exists. Waits until it can be used: the answer comes before every broker knows the topic.
    pub fn create(&self, wanted: &WantedTopic) -> Result<bool, AdminError> {
        let mut topic = NewTopic::new(&wanted.name, wanted.partitions, TopicReplication::Fixed(wanted.replication));
        for (name, value) in &wanted.settings {
            topic = topic.set(name, value);
        }
        let created = block_on(self.admin()?.create_topics(&[topic], &options()));
        let is_new = match created.map_err(|error| self.unavailable(&error))?.pop() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => false,
            Some(Err((name, code))) => {
                let is_denied = code == RDKafkaErrorCode::TopicAuthorizationFailed
                    || code == RDKafkaErrorCode::ClusterAuthorizationFailed;
                let missing = is_denied.then(|| format!(": {}", missing_right("Create", "topic", &[&name])));
                return Err(self.refused(&format!("topic {name}: {code}{}", missing.unwrap_or_default())));
            }
            _ => true,
        };
        for _ in 0..ANSWER_MAX.as_millis() / PAUSE.as_millis() {
            match self.look_up(&wanted.name) {
                Ok(TopicLookup::Found { leaderless, .. }) if leaderless.is_empty() => break,
                // A user who may create a topic need not be allowed to see it.
                Ok(TopicLookup::Denied(_)) | Err(AdminError::Unavailable { .. }) => break,
                _ => std::thread::sleep(PAUSE),
            }
        }
        Ok(is_new)
    }

    pub fn offsets(&self, topic: &str, partition: i32) -> Result<(i64, i64), AdminError> {
        let offsets = offsets::watermarks(self.client.client(), topic, partition, ANSWER_MAX);
        offsets.map_err(|error| self.unavailable(&format!("offsets of {topic} {partition}: {error}")))
    }

    /// Returns the offsets that a group has committed. `right` is what this user needs on the group.
    pub fn committed(
        &self,
        (group, right): (&str, &'static str),
        topic: &str,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, i64>, AdminError> {
        let ours = [("group.id", group), ("enable.auto.commit", "false")];
        let config = self.connection.client(&ours, &[]).map_err(unusable)?;
        let reports = Reports::of_consumer(self.connection.brokers(), (group, right), &[topic.to_owned()]);
        let consumer: BaseConsumer<Reports> = config.create_with_context(reports).map_err(misconfigured)?;
        offsets::committed(&consumer, topic, partitions, ANSWER_MAX).map_err(|error| {
            while consumer.poll(DRAIN).is_some() {}
            match consumer.context().take_refused_group() {
                Some(why) => self.refused(&why),
                None => self.unavailable(&error),
            }
        })
    }

    fn admin(&self) -> Result<AdminClient<Reports>, AdminError> {
        let config = self.connection.client(&[], &[]).map_err(unusable)?;
        config.create_with_context(self.reports()).map_err(misconfigured)
    }

    fn reports(&self) -> Reports {
        Reports::new(self.connection.brokers())
    }

    fn last_error(&self) -> Option<String> {
        self.client.client().context().last()
    }

    /// Explains a failure though a broker answered: the cluster may advertise another address for the one asked.
    fn unavailable(&self, why: &dyn ToString) -> AdminError {
        match self.metadata(None).as_ref().map(unreachable_broker) {
            Ok(Some(unreachable)) => {
                AdminError::Unavailable { brokers: self.connection.brokers().to_owned(), why: unreachable }
            }
            _ => self.no_answer(why.to_string()),
        }
    }

    fn no_answer(&self, why: String) -> AdminError {
        let brokers = self.connection.brokers();
        let why = self.last_error().unwrap_or(why);
        AdminError::Unavailable { brokers: brokers.to_owned(), why }
    }

    fn refused(&self, why: &dyn ToString) -> AdminError {
        AdminError::Refused { brokers: self.connection.brokers().to_owned(), why: why.to_string() }
    }
}

impl Found {
    pub fn differences(&self, wanted: &WantedTopic) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |name: &str, is: &str, wanted: &str| {
            if is != wanted {
                differences.push(format!("{name} is {is}, not {wanted}"));
            }
        };
        compare("partitions", &self.partitions.len().to_string(), &wanted.partitions.to_string());
        compare("replication", &self.replication.to_string(), &wanted.replication.to_string());
        for (name, value) in &wanted.settings {
            compare(name, self.settings.get(*name).map_or("unset", String::as_str), value);
        }
        differences
    }
}

fn unusable(error: ClientError) -> AdminError {
    AdminError::Misconfigured(error.into())
}

fn misconfigured(error: KafkaError) -> AdminError {
    AdminError::Misconfigured(not_created(&error))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_with_what_was_wanted() {
        let wanted = WantedTopic {
            name: "t".into(),
            partitions: 6,
            replication: 3,
            settings: vec![("cleanup.policy", "compact".into()), ("retention.ms", "1000".into())],
        };
        let settings = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let found = Found { name: "t".into(), partitions: vec![0], replication: 3, settings };
        assert_eq!(found.differences(&wanted), ["partitions is 1, not 6", "retention.ms is unset, not 1000"]);
        let nothing = WantedTopic { partitions: 1, settings: Vec::new(), ..wanted };
        assert!(found.differences(&nothing).is_empty());
    }
}
