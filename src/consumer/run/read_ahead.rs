//! Reading on while the loop waits for an answer of the store or of Kafka.

use std::time::Duration;

use super::membership::Member;
use super::topic::{Topic, read};

const FINISHED: Duration = Duration::from_millis(1);
/// Time after which Kafka is paused while a slow store keeps a full batch waiting.
const FULL_MAX: Duration = Duration::from_secs(20);

pub(super) struct ReadAhead {
    full_until: Duration,
    is_paused: bool,
}

impl ReadAhead {
    pub(super) fn begin(now: Duration) -> Self {
        Self { full_until: now + FULL_MAX, is_paused: false }
    }

    /// Reads what there is, unless a batch is full. Returns how long to wait for the answer before the next call.
    pub(super) fn poll(&mut self, member: &mut Member, topics: &mut [Topic], now: Duration) -> Duration {
        if topics.iter().any(Topic::is_full) {
            if now < self.full_until {
                return FINISHED;
            }
            if !self.is_paused {
                self.is_paused = true;
                member.pause(None, now);
            }
        }
        if let Some(news) = read(topics, FINISHED, || now, |timeout| member.source.poll(timeout)) {
            member.defer(news);
        }
        Duration::ZERO
    }

    pub(super) fn end(self, member: &mut Member, now: Duration) {
        if self.is_paused {
            member.resume(None, now);
        }
    }
}
