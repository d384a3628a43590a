use std::time::Duration;

use super::or_duration;
use crate::config::{Invalid, TOPICS, TopicNames, quoted, raw_topics};
use crate::kafka::{PlannedTopic, TopicPlan, topic_name};

raw_topics! { RawTopics {
    #[serde(deserialize_with = "quoted")]
    partitions: Option<i32>,
    #[serde(deserialize_with = "quoted")]
    replication: Option<i32>,
    retention: Option<String>,
} }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    pub names: TopicNames<String>,
    pub partitions: i32,
    /// `None` means three, or as many as there are brokers.
    pub replication: Option<i32>,
    pub retention: Duration,
}

impl Topics {
    pub(super) fn new(mut raw: RawTopics) -> Result<Self, Invalid> {
        let partitions = raw.partitions.unwrap_or(6);
        if partitions < 1 {
            return Err(Invalid::new("topics.partitions", format!("is {partitions}; a topic has at least 1")));
        }
        if raw.replication.is_some_and(|replication| !(1..=i32::from(i16::MAX)).contains(&replication)) {
            return Err(Invalid::new("topics.replication", "is not a number of brokers; write 1 or more"));
        }
        Ok(Self {
            names: TopicNames::new(|topic| {
                topic_name(topic.key, raw.name(topic.role).unwrap_or_else(|| topic.usual.to_owned()))
            })?,
            partitions,
            replication: raw.replication,
            retention: or_duration("topics.retention", raw.retention, Duration::from_secs(30 * 86_400))?,
        })
    }

    pub fn plan<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> TopicPlan {
        let is_compacted =
            |name: &String| TOPICS.iter().any(|topic| topic.is_compacted && self.names.of(topic.role) == name);
        let planned = |name: &String| PlannedTopic { name: name.clone(), is_compacted: is_compacted(name) };
        let mut topics: Vec<PlannedTopic> = names.into_iter().map(planned).collect();
        topics.dedup();
        let Self { partitions, replication, retention, .. } = *self;
        TopicPlan { topics, partitions, replication, retention }
    }
}
