//! Why a producer is given up, for how long, and how it goes down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::producer::Producer;

/// Why a producer is given up.
pub(super) enum End {
    /// Nobody sends any more.
    Closed,
    /// It may work with a new one.
    Retry(String),
    /// It works with a new one that sends batches of no more bytes than these: this became of a greater one.
    Smaller(usize, Code),
    /// It works with a new one that is given one event at a time: this became of one of them.
    Apart(Code),
    /// Somebody has to do something first.
    Hold(String),
}

/// How long to wait before the next attempt: doubles from attempt to attempt, and begins anew after a delivery.
#[derive(Default)]
pub(super) struct Backoff {
    attempts: u32,
}

/// Producers on their way down, which can hang.
#[derive(Default)]
pub(super) struct TearDowns {
    under_way: Arc<AtomicUsize>,
}

/// So many may be on their way down on threads of their own.
const TEAR_DOWNS_MAX: usize = 4;

impl TearDowns {
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

impl End {
    /// After a delivery to `topic` that failed by `code`.
    pub(super) fn of(code: Code, topic: &str) -> Self {
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Self::Hold(format!("{code}: there is no topic {topic}; make it, or set kafka.topic"))
            }
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                Self::Hold(format!("{code}: this user may not write to {topic}; allow it on the broker"))
            }
            Code::InvalidTimestamp => {
                Self::Hold(format!("{code}: this host's clock and the broker's differ too much; set this host's clock"))
            }
            code => Self::Retry(code.to_string()),
        }
    }
}

impl Backoff {
    pub(super) fn next(&mut self, first_s: u64, longest_s: u64) -> Duration {
        let seconds = (first_s << self.attempts.min(16)).min(longest_s);
        self.attempts += 1;
        Duration::from_secs(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_doubles_up_to_its_longest() {
        let mut backoff = Backoff::default();
        let seconds: Vec<u64> = (0..8).map(|_| backoff.next(5, 300).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300]);
    }
}
