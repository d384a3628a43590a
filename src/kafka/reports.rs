//! Errors that librdkafka reports through callbacks: every client has a [`Reports`], which keeps the latest and logs none itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::errors::{explained, refusal};

#[derive(Debug, Default)]
pub struct Reports {
    brokers: String,
    reported: Mutex<Reported>,
}

#[derive(Debug, Default)]
struct Reported {
    refused: Option<String>,
    trouble: Option<(RDKafkaErrorCode, String)>,
}

impl Reports {
    pub fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), reported: Mutex::default() }
    }

    pub fn take_refused(&self) -> Option<String> {
        self.lock().refused.take()
    }

    pub fn take_trouble(&self) -> Option<String> {
        self.lock().trouble.take().map(|(code, reason)| match code {
            RDKafkaErrorCode::BrokerTransportFailure => format!("no connection: {reason}"),
            code => format!("{code}: {reason}"),
        })
    }

    pub fn last(&self) -> Option<String> {
        let reported = self.lock();
        reported.refused.clone().or_else(|| reported.trouble.as_ref().map(|(_, reason)| reason.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
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
        match refusal(code, reason) {
            Some(refusal) => self.lock().refused = Some(refusal),
            None => self.lock().trouble = Some((code, explained(reason, &self.brokers))),
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
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
        assert_eq!((reports.take_refused(), reports.take_trouble(), reports.last()), (None, None, None));
        reports.error(
            KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "b:1/1: Disconnected (after 3ms in state UP)",
        );
        assert_eq!(reports.last().as_deref(), Some("b:1/1: Disconnected"));
        let trouble = reports.take_trouble().unwrap();
        assert!(trouble.ends_with(": b:1/1: Disconnected") && reports.take_trouble().is_none(), "{trouble}");
    }
}
