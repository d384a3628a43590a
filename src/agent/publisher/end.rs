//! Why a producer is given up, for how long, and how it goes down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::producer::Producer;
use super::spread::Spread;
use crate::kafka::missing_topic;

/// Why a producer is given up.
pub(super) enum SessionEnd {
    /// No more events will come.
    Closed,
    /// It has to be replaced at once: it failed while it was idle, a certificate or secret has changed, or it waits to connect and nobody
    /// wants to wait.
    Stale,
    /// It may work with a new one.
    Retry(String),
    /// It works with a new one that waits longer for answers, in smaller batches: the connection is slow.
    Patience,
    /// It works with a new one that sends batches of no more than this size: a larger one was refused by this code.
    ReduceBatch(usize, Code),
    /// It works with a new one that is given one event at a time: one of them was refused by this code.
    OneByOne(Code),
    /// It works with a new one that sends batches again.
    Together,
    /// An operator has to do something first.
    NeedsOperator(String),
}

/// How long to wait before the next attempt: doubles from attempt to attempt, and starts over after a delivery.
pub(super) struct Backoff {
    attempts: u32,
    spread: Spread,
}

/// Drops producers on threads of their own, because dropping one can hang.
#[derive(Default)]
pub(super) struct Reaper {
    under_way: Arc<AtomicUsize>,
}

/// Maximum number of producers that may be going down on threads of their own.
const TEAR_DOWNS_MAX: usize = 4;

impl Reaper {
    /// Takes it down off this thread; where too many hang, this one waits.
    pub(super) fn add(&self, producer: Producer) {
        let under_way = Arc::clone(&self.under_way);
        let take_down = move || {
            drop(producer);
            under_way.fetch_sub(1, Ordering::Relaxed);
        };
        if self.under_way.fetch_add(1, Ordering::Relaxed) < TEAR_DOWNS_MAX {
            std::thread::spawn(take_down);
        } else {
            take_down();
        }
    }
}

impl SessionEnd {
    /// After a delivery to `topic` of a cluster that failed by `code`.
    pub(super) fn of(code: Code, topic: &str, brokers: &str) -> Self {
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Self::NeedsOperator(format!("{code}: {}", missing_topic(topic, brokers)))
            }
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                Self::NeedsOperator(format!("{code}: this user may not write to {topic}; allow it on the broker"))
            }
            Code::InvalidTimestamp => Self::NeedsOperator(format!(
                "{code}: this host's clock and the broker's differ too much; set this host's clock, or \
                 message.timestamp.type=LogAppendTime for {topic}"
            )),
            code => Self::Retry(code.to_string()),
        }
    }
}

impl Backoff {
    pub(super) fn new(spread: Spread) -> Self {
        Self { attempts: 0, spread }
    }

    pub(super) fn next(&mut self, first_s: u64, longest_s: u64) -> Duration {
        let seconds = (first_s << self.attempts.min(16)).min(longest_s);
        self.attempts += 1;
        self.spread.shorten(Duration::from_secs(seconds))
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_doubles_up_to_its_longest() {
        let mut backoff = Backoff::new(Spread::default());
        let seconds: Vec<f64> = (0..8).map(|_| backoff.next(5, 300).as_secs_f64()).collect();
        assert_eq!(seconds, [2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 150.0, 150.0]);
        backoff.reset();
        assert!(backoff.next(5, 300) < Duration::from_secs(5));
    }
}
