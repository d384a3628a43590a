use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::producer::Producer;
use super::spread::Spread;
use crate::kafka::{missing_right, missing_topic};
use crate::process::clock::Clock;

pub(super) enum SessionEnd {
    Closed,
    /// Replaced at once: it failed while idle, a certificate or secret has changed, or a flush is demanded while it backs off.
    Stale,
    Retry(String),
    /// No broker can be reached: the producer is made again for each attempt, and costs nothing between them.
    Away(String),
    /// Connection is slow: a new producer waits longer for answers, and sends smaller batches.
    Patience,
    ReduceBatch(usize, Code),
    OneByOne(Code),
    Together,
    NeedsOperator(String),
}

/// Pause before the next session, which doubles from attempt to attempt and starts over after a delivery.
pub(super) struct SessionBackoff {
    attempts: u32,
    spread: Spread,
}

/// Drops producers on threads of their own, because dropping one can hang; on the caller's thread if too many hang.
#[derive(Default)]
pub(super) struct Reaper {
    under_way: Arc<AtomicUsize>,
}

const TEAR_DOWNS_MAX: usize = 4;

const TEAR_DOWN_MAX: Duration = Duration::from_secs(2);

/// Waits for producers, so that OpenSSL is not unloaded under them.
pub fn await_tear_down(threads: &[JoinHandle<()>], clock: &dyn Clock) {
    let until = clock.monotonic() + TEAR_DOWN_MAX;
    while threads.iter().any(|thread| !thread.is_finished()) && clock.monotonic() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Reaper {
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
    pub(super) fn of(code: Code, topic: &str, brokers: &str) -> Self {
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Self::NeedsOperator(format!("{code}: {}", missing_topic(topic, brokers)))
            }
            Code::TopicAuthorizationFailed => {
                Self::NeedsOperator(format!("{code}: {}", missing_right("Write", "topic", &[topic])))
            }
            Code::ClusterAuthorizationFailed => Self::NeedsOperator(format!(
                "{code}: {}; brokers before 2.8 want `--operation IdempotentWrite --cluster` too",
                missing_right("Write", "topic", &[topic])
            )),
            Code::InvalidTimestamp => Self::NeedsOperator(format!(
                "{code}: this host's clock and the broker's differ too much; set this host's clock, or \
                 message.timestamp.type=LogAppendTime for {topic}"
            )),
            code => Self::Retry(code.to_string()),
        }
    }
}

impl SessionBackoff {
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
        let mut backoff = SessionBackoff::new(Spread::default());
        let seconds: Vec<f64> = (0..8).map(|_| backoff.next(5, 300).as_secs_f64()).collect();
        assert_eq!(seconds, [2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 150.0, 150.0]);
        backoff.reset();
        assert!(backoff.next(5, 300) < Duration::from_secs(5));
    }
}
