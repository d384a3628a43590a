use std::time::Duration;

use serde::Deserialize;

use super::or_duration;
use crate::config::{Invalid, quoted};
use crate::kafka::{HISTOGRAMS_TOPIC, PlannedTopic, RATES_TOPIC, SAMPLES_TOPIC, TopicPlan, topic_name};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopics {
    rates: Option<String>,
    samples: Option<String>,
    histograms: Option<String>,
    #[serde(default, deserialize_with = "quoted")]
    partitions: Option<i32>,
    #[serde(default, deserialize_with = "quoted")]
    replication: Option<i32>,
    retention: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    pub rates: String,
    pub samples: String,
    pub histograms: String,
    pub partitions: i32,
    /// `None`: three, or as many as there are brokers.
    pub replication: Option<i32>,
    pub retention: Duration,
}

impl Topics {
    pub(super) fn new(raw: RawTopics) -> Result<Self, Invalid> {
        let name = |key: &str, name: Option<String>, default: &str| {
            topic_name(key, name.unwrap_or_else(|| default.to_owned()))
        };
        let partitions = raw.partitions.unwrap_or(6);
        if partitions < 1 {
            return Err(Invalid::new("topics.partitions", format!("is {partitions}; a topic has at least 1")));
        }
        if raw.replication.is_some_and(|replication| !(1..=i32::from(i16::MAX)).contains(&replication)) {
            return Err(Invalid::new("topics.replication", "is not a number of brokers; write 1 or more"));
        }
        Ok(Self {
            rates: name("topics.rates", raw.rates, RATES_TOPIC)?,
            samples: name("topics.samples", raw.samples, SAMPLES_TOPIC)?,
            histograms: name("topics.histograms", raw.histograms, HISTOGRAMS_TOPIC)?,
            partitions,
            replication: raw.replication,
            retention: or_duration("topics.retention", raw.retention, Duration::from_secs(30 * 86_400))?,
        })
    }

    /// Returns how the topics of these names are created.
    pub fn plan<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> TopicPlan {
        let planned = |name: &String| PlannedTopic { name: name.clone(), is_compacted: *name == self.histograms };
        let mut topics: Vec<PlannedTopic> = names.into_iter().map(planned).collect();
        topics.dedup();
        let Self { partitions, replication, retention, .. } = *self;
        TopicPlan { topics, partitions, replication, retention }
    }
}
