//! Membership of the group, and when only a new client helps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Consumer, POLL};
use crate::clock::Clock as _;
use crate::consumer::config::Settings;
use crate::consumer::source::Source;
use crate::units::lasting;

/// Longest time without partitions after an error, while a broker answers.
const ADRIFT_MAX: Duration = Duration::from_secs(45);
const REFUSED_EVERY: Duration = Duration::from_secs(5);

impl Consumer<'_> {
    pub(super) fn reassign(&mut self, partitions: Vec<i32>) {
        let topic = &self.settings.membership.topic;
        match partitions.as_slice() {
            [] => log::info!("{topic}: no partition now"),
            some => log::info!("{topic}: partitions {some:?}"),
        }
        self.adrift = None;
        self.assigned = partitions;
        self.unplace(Duration::ZERO);
    }

    /// Makes a new client where librdkafka fails to join its group again after a broker was paused, which it does not report.
    pub(super) fn mind_membership(&mut self, now: Duration) {
        if self.adrift.is_none_or(|since| now.saturating_sub(since) < ADRIFT_MAX) {
            return;
        }
        // While no broker answers there is no group to join.
        let answers = self.source.partitions().is_ok();
        self.adrift = (!answers).then_some(now);
        if answers {
            let why = format!("it answers, and gave this consumer no partition for {}", lasting(ADRIFT_MAX));
            self.renew_source(&why);
        }
    }

    /// Makes a new client after certificates or secrets were rotated: librdkafka reads them once. While they are the same, the
    /// broker has to be mended, and this client goes on trying.
    pub(super) fn mind_refusal(&mut self, now: Duration) {
        if self.refused.is_none_or(|at| now < at) {
            return;
        }
        self.refused = Some(now + REFUSED_EVERY);
        if !self.source.is_outdated() {
            return;
        }
        match self.new_source() {
            Ok(source) => {
                log::info!("Kafka: the files of kafka.tls or kafka.sasl have changed; connecting anew");
                self.refused = None;
                self.assigned.clear();
                self.unplace(Duration::ZERO);
                std::mem::replace(&mut self.source, source).close();
            }
            Err(error) => self.kafka_says(&error),
        }
    }

    fn new_source(&self) -> Result<Source, String> {
        let Settings { connection, membership, give_up, .. } = self.settings;
        Source::new(connection, membership, self.settings.decoder(), *give_up)
    }

    pub(super) fn renew_source(&mut self, why: &str) {
        log::error!("Kafka: {why}; connecting anew");
        self.assigned.clear();
        self.unplace(Duration::ZERO);
        loop {
            let until = self.clock.monotonic() + self.backoff.next();
            while self.clock.monotonic() < until {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(POLL);
            }
            self.heart.beat("connecting to Kafka", self.clock.monotonic());
            match self.new_source() {
                Ok(source) => return std::mem::replace(&mut self.source, source).close(),
                Err(error) => self.kafka_says(&error),
            }
        }
    }
}
