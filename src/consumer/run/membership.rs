//! Membership of the group: which partitions are ours, and when a new client is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::consumer::config::Settings;
use crate::consumer::source::{Polled, Source, TopicPartition};
use crate::kafka::ClientError;
use crate::process::backoff::Backoff;
use crate::process::log_throttle::LogThrottle;
use crate::units::lasting;

/// Latest report of each kind, by urgency: librdkafka reports some only once, so that one kind must not replace another.
#[derive(Default)]
struct PendingReports(BTreeMap<u8, Polled>);

const UNASSIGNED_MAX: Duration = Duration::from_secs(45);
const REFUSED_EVERY: Duration = Duration::from_secs(5);
/// Twice the longest pause, since two members with one `group.instance.id` fence each other after each other's pause.
const STABLE: Duration = Duration::from_secs(120);

pub(super) struct Member {
    pub(super) source: Source,
    assigned: Vec<TopicPartition>,
    unassigned_since: Option<Duration>,
    /// Time to look whether certificates or secrets have changed, after one side rejected the other.
    refused: Option<Duration>,
    /// Polled while the loop waited for something else, and handled before the next poll.
    pending: PendingReports,
    throttle: LogThrottle,
    /// Throttle of missing topics alone: news of the others does not end it.
    missing: LogThrottle,
    backoff: Backoff,
    joined: Duration,
    /// Time for a client in the place of one that was given up.
    renew_at: Option<Duration>,
}

impl Member {
    pub(super) fn join(settings: &Settings) -> Result<Self, ClientError> {
        Ok(Self {
            source: source(settings)?,
            assigned: Vec::new(),
            unassigned_since: None,
            refused: None,
            pending: PendingReports::default(),
            throttle: LogThrottle::default(),
            missing: LogThrottle::default(),
            backoff: Backoff::default(),
            joined: Duration::ZERO,
            renew_at: None,
        })
    }

    pub(super) fn assigned(&self, topic: Option<usize>) -> Vec<TopicPartition> {
        self.assigned.iter().copied().filter(|at| topic.is_none_or(|topic| topic == at.topic)).collect()
    }

    pub(super) fn has_partitions(&self, topic: usize) -> bool {
        self.assigned.iter().any(|at| at.topic == topic)
    }

    pub(super) fn pause(&mut self, topic: Option<usize>, now: Duration) {
        let paused = self.source.pause(&self.assigned(topic));
        paused.unwrap_or_else(|error| self.log(&error, now));
    }

    pub(super) fn resume(&mut self, topic: Option<usize>, now: Duration) {
        let resumed = self.source.resume(&self.assigned(topic));
        resumed.unwrap_or_else(|error| self.log(&error, now));
    }

    pub(super) fn poll(&mut self, timeout: Duration) -> Polled {
        self.pending.next().unwrap_or_else(|| self.source.poll(timeout))
    }

    pub(super) fn defer(&mut self, polled: Polled) {
        self.pending.add(polled);
    }

    pub(super) fn loses_positions(&self) -> bool {
        self.pending.loses_positions()
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.0.is_empty()
    }

    pub(super) fn assign(&mut self, partitions: Vec<TopicPartition>) {
        for (topic, name) in self.source.topics().iter().enumerate() {
            let of_topic = partitions.iter().filter(|at| at.topic == topic).map(|at| at.partition);
            match of_topic.collect::<Vec<_>>().as_slice() {
                [] if self.has_partitions(topic) => log::info!("{name}: partitions revoked (rebalance)"),
                [] => match self.source.partitions(topic) {
                    Ok(_) => log::info!("{name}: no partitions assigned, other members of the group have them"),
                    Err(why) => log::info!("no partitions assigned: {why}"),
                },
                some => log::info!("{name}: partitions assigned: {some:?}"),
            }
        }
        self.missing.clear();
        self.unassigned_since = None;
        self.assigned = partitions;
    }

    pub(super) fn log(&self, error: &str, now: Duration) {
        if let Some(line) = self.throttle.admit(error, now) {
            log::warn!("Kafka: {line}");
        }
    }

    pub(super) fn log_error(&mut self, error: &str, now: Duration) {
        self.log(error, now);
        if self.assigned.is_empty() {
            self.unassigned_since.get_or_insert(now);
        }
    }

    pub(super) fn log_unknown_topic(&self, now: Duration) {
        let missing =
            (0..self.source.topics().len()).filter_map(|topic| self.source.partitions(topic).err().map(String::from));
        for line in missing.filter_map(|error| self.missing.admit(&error, now)) {
            log::warn!("Kafka: {line}");
        }
    }

    pub(super) fn log_refusal(&mut self, why: &str, now: Duration) {
        self.log(&format!("{why}; nothing is lost; retrying"), now);
        self.refused.get_or_insert(now);
    }

    pub(super) fn recovered(&mut self) {
        self.refused = None;
        if self.throttle.clear() {
            log::info!("Kafka: reading again");
        }
    }

    /// Returns why a new client is needed: after a broker was paused, librdkafka may silently fail to join its group again.
    pub(super) fn check_unassigned(&mut self, now: Duration) -> Option<String> {
        self.unassigned_since.filter(|since| now.saturating_sub(*since) >= UNASSIGNED_MAX)?;
        // While no broker answers there is no group to join.
        let answers = (0..self.source.topics().len()).any(|topic| self.source.partitions(topic).is_ok());
        self.unassigned_since = (!answers).then_some(now);
        answers.then(|| format!("connected, but no partitions were assigned for {}", lasting(UNASSIGNED_MAX)))
    }

    /// Makes a new client once certificates or secrets have changed, which librdkafka reads once. Returns whether it did.
    pub(super) fn check_refusal(&mut self, settings: &Settings, now: Duration) -> bool {
        if self.refused.is_none_or(|at| now < at) {
            return false;
        }
        self.refused = Some(now + REFUSED_EVERY);
        if !self.source.is_outdated() {
            return false;
        }
        match source(settings) {
            Ok(source) => {
                log::info!("Kafka: the files of kafka.tls or kafka.sasl have changed; reconnecting");
                self.refused = None;
                self.replace(source);
                true
            }
            Err(error) => {
                self.log(&error.to_string(), now);
                false
            }
        }
    }

    /// Gives the client up. The next one is made after a pause, while the loop goes on.
    pub(super) fn renew(&mut self, why: &str, now: Duration) {
        log::error!("Kafka: {why}; reconnecting");
        self.assigned.clear();
        if now.saturating_sub(self.joined) >= STABLE {
            self.backoff.reset();
        }
        self.renew_at = Some(now + self.backoff.pause());
    }

    pub(super) fn is_renewing(&self) -> bool {
        self.renew_at.is_some()
    }

    pub(super) fn make_new_client(&mut self, settings: &Settings, now: Duration) {
        if self.renew_at.is_none_or(|at| now < at) {
            return;
        }
        match source(settings) {
            Ok(source) => {
                (self.joined, self.renew_at) = (now, None);
                self.replace(source);
            }
            Err(error) => {
                self.log(&error.to_string(), now);
                self.renew_at = Some(now + self.backoff.pause());
            }
        }
    }

    fn replace(&mut self, source: Source) {
        (self.pending, self.assigned) = (PendingReports::default(), Vec::new());
        std::mem::replace(&mut self.source, source).close();
    }
}

fn source(settings: &Settings) -> Result<Source, ClientError> {
    Source::new(&settings.connection, &settings.membership(), settings.decoder(), settings.give_up)
}

impl PendingReports {
    fn add(&mut self, polled: Polled) {
        let rank = match polled {
            Polled::Fatal(_) => 0,
            Polled::Assigned(_) => 1,
            Polled::PositionLost(_) => 2,
            Polled::Refused(_) => 3,
            Polled::UnknownTopic => 4,
            Polled::Error(_) => 5,
            Polled::Record(..) | Polled::Unreadable(..) | Polled::NoMessage => return,
        };
        self.0.insert(rank, polled);
    }

    fn next(&mut self) -> Option<Polled> {
        self.0.pop_first().map(|(_, polled)| polled)
    }

    fn loses_positions(&self) -> bool {
        self.0.values().any(|news| matches!(news, Polled::Assigned(_) | Polled::Fatal(_) | Polled::PositionLost(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::process::systemd::Directories;

    #[test]
    fn a_client_that_lacks_a_file_is_made_later() {
        let directory = tempfile::tempdir().unwrap();
        let password = directory.path().join("password");
        let text = format!(
            "[kafka]\nbrokers = '127.0.0.1:9'\n[kafka.tls]\nenabled = false\n\
             [kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'hw'\npassword_file = '{}'\n",
            password.display()
        );
        std::fs::write(&password, "secret").unwrap();
        let settings = Settings::new(&Layers::from_text("consumer.toml", &text), &Directories::default()).unwrap();
        let mut member = Member::join(&settings).unwrap();
        std::fs::remove_file(&password).unwrap();
        let second = Duration::from_secs;
        member.renew("it was fenced", second(1));
        member.make_new_client(&settings, second(1));
        assert!(member.is_renewing(), "after a pause");
        member.make_new_client(&settings, second(100));
        assert!(member.is_renewing(), "there is no file");
        std::fs::write(&password, "secret").unwrap();
        member.make_new_client(&settings, second(200));
        assert!(!member.is_renewing());
    }

    #[test]
    fn reports_are_kept_by_kind_and_the_most_urgent_comes_first() {
        let mut pending = PendingReports::default();
        pending.add(Polled::UnknownTopic);
        pending.add(Polled::Error("a".into()));
        pending.add(Polled::NoMessage);
        assert!(!pending.loses_positions());
        pending.add(Polled::Assigned(vec![TopicPartition { topic: 0, partition: 3 }]));
        pending.add(Polled::Fatal("b".into()));
        pending.add(Polled::Assigned(Vec::new()));
        pending.add(Polled::Error("c".into()));
        assert!(pending.loses_positions());
        assert!(matches!(pending.next(), Some(Polled::Fatal(_))));
        assert!(matches!(pending.next(), Some(Polled::Assigned(last)) if last.is_empty()));
        assert!(!pending.loses_positions());
        assert!(matches!(pending.next(), Some(Polled::UnknownTopic)));
        assert!(matches!(pending.next(), Some(Polled::Error(last)) if last == "c"));
        assert!(pending.next().is_none());
    }
}
