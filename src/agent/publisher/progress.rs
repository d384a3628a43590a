//! How publishing goes, for whoever asks.

use std::collections::BTreeMap;

use crate::agent::mishap::Mishaps;

/// What became of events, and of the attempts to send them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Acknowledged since the start.
    pub delivered: u64,
    /// Given up since the start.
    pub rejected: u64,
    /// So often all that was not acknowledged was sent anew, by a new producer.
    pub retries: u64,
    /// The last acknowledged offset of each partition that was written to.
    pub offsets: BTreeMap<i32, i64>,
    /// `CLOCK_BOOTTIME` in milliseconds of the last flush's end: all that there was is acknowledged.
    pub flushed_ms: Option<u64>,
    /// Since when the present flush goes on.
    pub flushing_ms: Option<u64>,
    /// What kept events from Kafka; it lasts until Kafka takes some, or none are left.
    pub mishaps: Mishaps,
    /// The topic refuses what is left: waiting does not help.
    pub refusing: bool,
    /// Why librdkafka last tried something again, since an event was delivered.
    pub(super) retrying: Option<String>,
}

impl Progress {
    /// After a look at what is to be sent: a flush has begun, goes on, or has ended.
    pub(super) fn flushing(&mut self, flushing: bool, now_ms: u64) {
        if flushing {
            self.flushing_ms.get_or_insert(now_ms);
        } else {
            (self.flushed_ms, self.flushing_ms) = (Some(now_ms), None);
            self.recover();
        }
    }

    /// Nothing keeps events from Kafka any more.
    pub(super) fn recover(&mut self) {
        self.mishaps.over();
        self.refusing = false;
        self.retrying = None;
    }

    /// Says why events are left.
    pub fn obstacle(&self) -> &str {
        let lasting = self.mishaps.lasting.as_ref().map(|lasting| lasting.what.as_str());
        lasting.or(self.retrying.as_deref()).unwrap_or("Kafka did not acknowledge them in time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_goes_on_keeps_its_beginning_and_ends_what_lasted() {
        let mut progress = Progress::default();
        progress.flushing(true, 5);
        progress.mishaps.begin(6, "broker away");
        progress.flushing(true, 9);
        assert_eq!((progress.flushing_ms, progress.flushed_ms), (Some(5), None));
        progress.flushing(false, 12);
        assert_eq!((progress.flushing_ms, progress.flushed_ms), (None, Some(12)));
        assert!(progress.mishaps.lasting.is_none() && progress.mishaps.last.is_some());
    }
}
