//! What is known of one producer while it is in use.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::producer::Producer;

/// A producer, how far it was given events, and how it does.
pub(super) struct Session {
    pub(super) producer: Producer,
    /// The certificates and secrets that it has read.
    pub(super) files: (u64, u64),
    /// The number of the event from which on it was given none.
    pub(super) next: usize,
    /// It has written something, from which Kafka counts.
    pub(super) proven: bool,
    /// The event that is under way alone, where events go one by one, and its size.
    pub(super) alone: Option<(usize, usize)>,
    /// How often it may still be helped to its first message.
    pub(super) introductions: u32,
    /// How often it may still be asked what became of its messages, after a fatal error.
    pub(super) last_words: u32,
    /// Why librdkafka last tried something again.
    pub(super) cause: Option<String>,
    /// By what the topic last refused an event alone.
    pub(super) refused_by: Option<Code>,
    /// Whatever librdkafka waits for should be tried now.
    pub(super) is_hurried: bool,
    /// When to try again what the topic refuses.
    pub(super) held_until: Option<Duration>,
    /// The event that is awaited, and since when.
    awaited: (usize, Duration),
    /// When to report that it is overdue.
    report_at: Duration,
    /// How often in a row batches were not answered in time, and when that was last so.
    timeouts: (u32, Duration),
}

/// How often a producer is helped to its first message.
const INTRODUCTIONS: u32 = 10;
/// How often a producer with a fatal error is asked what became of its messages.
const LAST_WORDS: u32 = 10;
/// After this time without an acknowledgement an event is overdue.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);
/// How often the reason is looked for while it is.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// Time-outs within this time are one.
const TOGETHER: Duration = Duration::from_secs(2);

impl Session {
    pub(super) fn new(producer: Producer, files: (u64, u64), awaited: usize, now: Duration) -> Self {
        Self {
            producer,
            files,
            next: 0,
            proven: false,
            alone: None,
            introductions: INTRODUCTIONS,
            last_words: LAST_WORDS,
            timeouts: (0, Duration::ZERO),
            cause: None,
            refused_by: None,
            is_hurried: false,
            held_until: None,
            awaited: (awaited, now),
            report_at: now + OVERDUE_AFTER,
        }
    }

    /// Awaits this event from now on.
    pub(super) fn begin_to_await(&mut self, serial: usize, now: Duration) {
        self.awaited = (serial, now);
        self.report_at = now + OVERDUE_AFTER;
        self.cause = None;
    }

    /// Whether the event that was awaited is older than this one.
    pub(super) fn has_moved_to(&self, serial: usize) -> bool {
        serial > self.awaited.0
    }

    /// Returns for how long this event has been awaited.
    pub(super) fn waited(&mut self, serial: usize, now: Duration) -> Duration {
        if self.awaited.0 != serial {
            self.begin_to_await(serial, now);
        }
        now.saturating_sub(self.awaited.1)
    }

    /// Counts batches that were not answered in time; how often in a row that was so. Those that are under way together time out
    /// together.
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

    /// Whether it is time to report that the awaited event is overdue.
    pub(super) fn is_overdue(&mut self, now: Duration) -> bool {
        let is_overdue = now >= self.report_at;
        if is_overdue {
            self.report_at = now + REPORT_EVERY;
        }
        is_overdue
    }
}
