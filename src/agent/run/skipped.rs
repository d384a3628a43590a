use std::time::Duration;

use crate::units::{counted, lasting};

const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct SkippedReadings {
    unreported: u64,
    last_line: Option<Duration>,
}

impl SkippedReadings {
    pub(super) fn count(&mut self, missed: u32, now: Duration) -> Option<String> {
        self.unreported += u64::from(missed);
        let since = self.last_line.map(|last| now.saturating_sub(last));
        if self.unreported == 0 || since.is_some_and(|since| since < QUIET) {
            return None;
        }
        let skipped = counted(std::mem::take(&mut self.unreported), "reading");
        let within = since.filter(|_| missed == 0).map(|since| format!(" in the last {}", lasting(since)));
        self.last_line = Some(now);
        Some(format!("skipped {skipped}{}: this host is too busy, or was suspended", within.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_host_is_reported_at_once_and_then_once_a_minute_with_the_sum() {
        let (mut skipped, start) = (SkippedReadings::default(), Duration::from_secs(1_000));
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(skipped.count(0, at(0)), None);
        assert_eq!(skipped.count(1, at(1)).unwrap(), "skipped 1 reading: this host is too busy, or was suspended");
        let lines: Vec<String> = (2..=301).filter_map(|second| skipped.count(2, at(second))).collect();
        assert_eq!(lines.len(), 5, "one a minute: {lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("skipped 120 readings: ")), "{lines:?}");
        skipped.count(3, at(302));
        assert_eq!(skipped.count(0, at(330)), None);
        assert!(skipped.count(0, at(361)).unwrap().starts_with("skipped 3 readings in the last 60 s: "));
        assert_eq!(skipped.count(0, at(500)), None, "there is nothing to report");
    }
}
