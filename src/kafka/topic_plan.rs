//! Topics as they are created where they are missing, by a command or by a running agent.

use std::time::Duration;

use super::Connection;
use super::admin::{Admin, AdminError, TopicLookup, WantedTopic};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    pub topics: Vec<PlannedTopic>,
    pub partitions: i32,
    /// Replicas of each partition; `None`: three, or as many as there are brokers.
    pub replication: Option<i32>,
    pub retention: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTopic {
    pub name: String,
    pub is_compacted: bool,
}

const REPLICATION: i32 = 3;

impl TopicPlan {
    pub fn wanted(&self, brokers: usize) -> Vec<WantedTopic> {
        let brokers = i32::try_from(brokers).unwrap_or(REPLICATION);
        let replication = self.replication.unwrap_or(REPLICATION.min(brokers));
        let wanted = |topic: &PlannedTopic| {
            let policy = if topic.is_compacted { "compact,delete" } else { "delete" };
            let mut settings = vec![
                ("cleanup.policy", policy.to_owned()),
                ("retention.ms", self.retention.as_millis().to_string()),
                // By senders' times, retention would delete at once what `replay`, or a gateway with its clock in the past, sends.
                ("message.timestamp.type", "LogAppendTime".to_owned()),
            ];
            if replication >= REPLICATION {
                settings.push(("min.insync.replicas", "2".to_owned()));
            }
            WantedTopic { name: topic.name.clone(), partitions: self.partitions, replication, settings }
        };
        self.topics.iter().map(wanted).collect()
    }

    /// Creates the missing topics, and returns their names with the first error: one that may not be created holds up no other. A
    /// topic that this user may not see is left to others. Blocks for some seconds at most.
    pub fn create_missing(&self, connection: &Connection) -> (Vec<String>, Result<(), AdminError>) {
        let (mut created, mut result) = (Vec::new(), Ok(()));
        let asked = Admin::new(connection).and_then(|admin| Ok((admin.cluster()?, admin)));
        let ((brokers, _), admin) = match asked {
            Ok(asked) => asked,
            Err(error) => return (created, Err(error)),
        };
        for wanted in self.wanted(brokers) {
            let is_missing = admin.look_up(&wanted.name).map(|found| found == TopicLookup::Missing);
            match is_missing.and_then(|is_missing| Ok(is_missing && admin.create(&wanted)?)) {
                Ok(true) => created.push(wanted.name),
                Ok(false) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        (created, result)
    }
}
