use std::collections::BTreeMap;

use crate::process::problems::ProblemLog;

/// Delivery so far; times are `CLOCK_BOOTTIME`, `flushed_ms` is the end of the last flush.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub delivered: u64,
    pub rejected: u64,
    pub retries: u64,
    pub offsets: BTreeMap<i32, i64>,
    pub flushed_ms: Option<u64>,
    pub flushing_ms: Option<u64>,
    /// Problems that keep events from Kafka, until it accepts one or none is left.
    pub problems: ProblemLog,
    pub refusing: bool,
    pub(super) retrying: Option<String>,
}

impl Progress {
    pub(super) fn flushing(&mut self, flushing: bool, now_ms: u64) {
        if flushing {
            self.flushing_ms.get_or_insert(now_ms);
        } else {
            (self.flushed_ms, self.flushing_ms) = (Some(now_ms), None);
            self.recover();
        }
    }

    pub(super) fn recover(&mut self) {
        self.problems.resolve();
        self.refusing = false;
        self.retrying = None;
    }

    pub fn problem(&self) -> &str {
        let ongoing = self.problems.ongoing.as_ref().map(|problem| problem.what.as_str());
        ongoing.or(self.retrying.as_deref()).unwrap_or("Kafka did not acknowledge them in time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_goes_on_keeps_its_beginning_and_ends_what_lasted() {
        let mut progress = Progress::default();
        progress.flushing(true, 5);
        progress.problems.start(6, "cannot reach Kafka");
        progress.flushing(true, 9);
        assert_eq!((progress.flushing_ms, progress.flushed_ms), (Some(5), None));
        progress.flushing(false, 12);
        assert_eq!((progress.flushing_ms, progress.flushed_ms), (None, Some(12)));
        assert!(progress.problems.ongoing.is_none() && progress.problems.last.is_some());
    }
}
