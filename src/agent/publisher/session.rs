use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::producer::Producer;

pub(super) struct ProducerSession {
    pub(super) producer: Producer,
    pub(super) files: (u64, u64),
    /// Number of the first event not handed to the producer.
    pub(super) next: usize,
    /// True once a message was delivered: from then on Kafka checks the sequence.
    pub(super) proven: bool,
    /// Number and size of the event in flight, if events go one by one.
    pub(super) alone: Option<(usize, usize)>,
    pub(super) introductions: u32,
    pub(super) last_words: u32,
    pub(super) cause: Option<String>,
    /// Why no broker can be reached.
    pub(super) away: Option<String>,
    pub(super) refused_by: Option<Code>,
    pub(super) is_hurried: bool,
    pub(super) held_until: Option<Duration>,
    awaited: (usize, Duration),
    report_at: Duration,
    pub(super) overdue_after: Duration,
    timeouts: (u32, Duration),
}

const INTRODUCTIONS: u32 = 10;
const LAST_WORDS: u32 = 10;
const REPORT_EVERY: Duration = Duration::from_secs(30);

pub(super) const AWAY_AFTER: Duration = Duration::from_secs(5);
const PROVEN_AWAY_MAX: Duration = Duration::from_secs(60);
const TOGETHER: Duration = Duration::from_secs(2);

impl ProducerSession {
    pub(super) fn new(
        producer: Producer,
        files: (u64, u64),
        awaited: usize,
        overdue_after: Duration,
        now: Duration,
    ) -> Self {
        Self {
            producer,
            files,
            overdue_after,
            next: 0,
            proven: false,
            alone: None,
            introductions: INTRODUCTIONS,
            last_words: LAST_WORDS,
            timeouts: (0, Duration::ZERO),
            cause: None,
            away: None,
            refused_by: None,
            is_hurried: false,
            held_until: None,
            awaited: (awaited, now),
            report_at: now + overdue_after,
        }
    }

    pub(super) fn begin_to_await(&mut self, serial: usize, now: Duration) {
        self.awaited = (serial, now);
        self.report_at = now + self.overdue_after;
        (self.cause, self.away) = (None, None);
    }

    /// Returns how long an event waits for brokers that are away before the producer goes, whose threads would look for them several
    /// times a second. One that has delivered stays longer: Kafka knows its sequence, so that what it repeats is not doubled in the
    /// topic.
    pub(super) fn away_max(&self) -> Duration {
        if self.proven { PROVEN_AWAY_MAX } else { AWAY_AFTER }
    }

    pub(super) fn has_moved_to(&self, serial: usize) -> bool {
        serial > self.awaited.0
    }

    pub(super) fn waited(&mut self, serial: usize, now: Duration) -> Duration {
        if self.awaited.0 != serial {
            self.begin_to_await(serial, now);
        }
        now.saturating_sub(self.awaited.1)
    }

    /// Counts timeouts in a row: batches in flight together time out together, and count once.
    pub(super) fn count_timeout(&mut self, now: Duration) -> u32 {
        let (count, last) = &mut self.timeouts;
        if *count == 0 || now.saturating_sub(*last) > TOGETHER {
            *count += 1;
        }
        *last = now;
        *count
    }

    pub(super) fn forget_timeouts(&mut self) {
        self.timeouts = (0, Duration::ZERO);
    }

    pub(super) fn is_overdue(&mut self, now: Duration) -> bool {
        let is_overdue = now >= self.report_at;
        if is_overdue {
            self.report_at = now + REPORT_EVERY;
        }
        is_overdue
    }
}
