//! State of one producer: what was handed to it, and since when something is wrong.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::producer::Producer;

pub(super) struct ProducerSession {
    pub(super) producer: Producer,
    pub(super) files: (u64, u64),
    /// Number of the first event not handed to the producer.
    pub(super) next: usize,
    /// True once a message was delivered: from then on Kafka checks the sequence.
    pub(super) has_delivered: bool,
    /// Number and size of the event in flight, if events go one by one.
    pub(super) in_flight_alone: Option<(usize, usize)>,
    pub(super) id_requests_left: u32,
    pub(super) fatal_polls_left: u32,
    pub(super) cause: Option<String>,
    pub(super) unreachable: Option<String>,
    pub(super) refused_by: Option<Code>,
    pub(super) retry_requested: bool,
    pub(super) held_until: Option<Duration>,
    awaited: (usize, Duration),
    report_at: Duration,
    pub(super) overdue_after: Duration,
    timeouts: (u32, Duration),
}

const ID_REQUESTS: u32 = 10;
const FATAL_POLLS: u32 = 10;
const REPORT_EVERY: Duration = Duration::from_secs(30);

pub(super) const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
const DELIVERED_UNREACHABLE_MAX: Duration = Duration::from_secs(60);
const SAME_TIMEOUT_WITHIN: Duration = Duration::from_secs(2);

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
            has_delivered: false,
            in_flight_alone: None,
            id_requests_left: ID_REQUESTS,
            fatal_polls_left: FATAL_POLLS,
            timeouts: (0, Duration::ZERO),
            cause: None,
            unreachable: None,
            refused_by: None,
            retry_requested: false,
            held_until: None,
            awaited: (awaited, now),
            report_at: now + overdue_after,
        }
    }

    pub(super) fn begin_to_await(&mut self, serial: usize, now: Duration) {
        self.awaited = (serial, now);
        self.report_at = now + self.overdue_after;
        (self.cause, self.unreachable) = (None, None);
    }

    /// Returns how long to wait for unreachable brokers before the producer is closed, whose threads try them several times a second.
    /// One that has delivered is kept longer: Kafka knows its sequence numbers, and drops what it sends twice.
    pub(super) fn unreachable_max(&self) -> Duration {
        if self.has_delivered { DELIVERED_UNREACHABLE_MAX } else { UNREACHABLE_AFTER }
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
        if *count == 0 || now.saturating_sub(*last) > SAME_TIMEOUT_WITHIN {
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
