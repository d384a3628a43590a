//! Errors that librdkafka reports through callbacks: every client has a [`Reports`], which keeps the latest and logs none itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::errors::{closed_at_once, explained, missing_right, refusal};

#[derive(Debug, Default)]
pub struct Reports {
    brokers: String,
    reads: Option<ConsumerAccess>,
    reported: Mutex<Reported>,
}

#[derive(Debug)]
struct ConsumerAccess {
    group: String,
    group_right: &'static str,
    topics: Vec<String>,
}

#[derive(Debug, Default)]
struct Reported {
    refused: Option<String>,
    /// Apart: a consumer that reads without joining needs no right on the group.
    refused_group: Option<String>,
    error: Option<(RDKafkaErrorCode, String)>,
}

/// Timeout of a poll that takes in all that a client has reported by now: one that may not wait returns after a single log line.
pub const DRAIN: Duration = Duration::from_millis(5);

impl Reports {
    pub fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), ..Self::default() }
    }

    /// Makes the reports of a consumer, which needs `Read` on its group to join it, and `Describe` to ask for its offsets.
    pub fn of_consumer(brokers: &str, (group, group_right): (&str, &'static str), topics: &[String]) -> Self {
        let reads = ConsumerAccess { group: group.to_owned(), group_right, topics: topics.to_vec() };
        Self { reads: Some(reads), ..Self::new(brokers) }
    }

    pub fn take_refused(&self) -> Option<String> {
        self.lock().refused.take()
    }

    pub fn take_refused_group(&self) -> Option<String> {
        self.lock().refused_group.take()
    }

    pub fn take_error(&self) -> Option<String> {
        self.lock().error.take().map(|(code, reason)| match code {
            RDKafkaErrorCode::BrokerTransportFailure => format!("no connection: {reason}"),
            code => format!("{code}: {reason}"),
        })
    }

    pub fn last(&self) -> Option<String> {
        let reported = self.lock();
        let error = || reported.error.as_ref().map(|(_, reason)| reason.clone());
        reported.refused.clone().or_else(|| reported.refused_group.clone()).or_else(error)
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsumerAccess {
    fn refused(&self, reason: &str) -> Vec<&str> {
        let is_named = |topic: &&str| reason.split_ascii_whitespace().any(|word| word.trim_end_matches(':') == *topic);
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        topics.iter().copied().find(is_named).map_or(topics, |topic| vec![topic])
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        // A poll reports the end of a partition too. AllBrokersDown would hide the error of the last broker.
        let code = error.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AllBrokersDown)) {
            return;
        }
        let code = code.unwrap_or(RDKafkaErrorCode::Fail);
        let refused = refusal(code, reason);
        let mut reported = self.lock();
        match (code, &self.reads) {
            _ if refused.is_some() => reported.refused = refused,
            (RDKafkaErrorCode::GroupAuthorizationFailed, Some(ConsumerAccess { group, group_right, .. })) => {
                reported.refused_group = Some(format!("{code}: {}", missing_right(group_right, "group", &[group])));
            }
            (RDKafkaErrorCode::TopicAuthorizationFailed, Some(reads)) => {
                reported.error = Some((code, missing_right("Read", "topic", &reads.refused(reason))));
            }
            _ => reported.error = Some((code, explained(reason, &self.brokers))),
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some(reason) = closed_at_once(line) {
            self.lock().error = Some((RDKafkaErrorCode::BrokerTransportFailure, reason));
        }
        match level {
            // Fatal errors are reported where they are handled.
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical if facility != "FATAL" => {
                log::error!("librdkafka: {facility} {line}");
            }
            _ => log::debug!("librdkafka: {facility} {line}"),
        }
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_no_error() {
        let reports = Reports::new("localhost");
        reports
            .error(KafkaError::Global(RDKafkaErrorCode::PartitionEOF), "Fetch from broker 1 reached end of partition");
        reports.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!((reports.take_refused(), reports.take_error(), reports.last()), (None, None, None));
        reports.error(
            KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "b:1/1: Disconnected (after 60000ms in state UP)",
        );
        assert_eq!(reports.last().as_deref(), Some("b:1/1: Disconnected"));
        let error = reports.take_error().unwrap();
        assert!(error.ends_with(": b:1/1: Disconnected") && reports.take_error().is_none(), "{error}");
    }

    #[test]
    fn a_consumers_missing_right_names_its_group_and_topic() {
        let reports = Reports::of_consumer("localhost", ("g", "Read"), &["a.events".to_owned(), "a.rates".to_owned()]);
        let denied = RDKafkaErrorCode::TopicAuthorizationFailed;
        let said = |reason: &str| {
            reports.error(KafkaError::Global(denied), reason);
            reports.take_error().unwrap()
        };
        let named = said("Subscribed topic not available: a.rates: Broker: Topic authorization failed");
        assert!(named.ends_with("--operation Read --topic a.rates` adds it"), "{named}");
        let unnamed = said("Fetch from broker 1 failed: Broker: Topic authorization failed");
        assert!(unnamed.contains("--topic a.events --topic a.rates`"), "{unnamed}");
        reports.error(
            KafkaError::Global(RDKafkaErrorCode::GroupAuthorizationFailed),
            "FindCoordinator response error: Group authorization failed.",
        );
        assert!(reports.take_error().is_none());
        assert!(reports.last().unwrap().contains("--operation Read --group g`"));
    }
}
