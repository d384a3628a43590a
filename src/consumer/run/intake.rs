//! The batch that is being read.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::consumer::batch::{Batch, Gap, GapCause, Record, TopicId};
use crate::consumer::source::Unreadable;

const BATCH_AGE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Intake {
    pub(super) batch: Batch,
    since: Duration,
    /// Generation of each partition, and offset up to which it was read: from `next_offset` to there, all is in a batch.
    pub(super) read: BTreeMap<i32, (i32, i64)>,
}

impl Intake {
    pub(super) fn new(topic: &TopicId) -> Self {
        Self { batch: Batch::new(topic), since: Duration::ZERO, read: BTreeMap::new() }
    }

    /// Adds a record; one of a partition that is not placed is from before a rebalance.
    pub(super) fn take(&mut self, partition: i32, record: Record, now: Duration) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if self.batch.is_empty() {
            self.since = now;
        }
        let (generation, from) = (*generation, *read);
        *read = from.max(record.offset + 1);
        self.batch.push(partition, record, || (generation, from));
    }

    pub(super) fn pass(&mut self, partition: i32, position: i64) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if position > *read {
            self.batch.skip_to(partition, *generation, *read, position, None);
            *read = position;
        }
    }

    pub(super) fn pass_unreadable(&mut self, Unreadable { partition, first, end }: Unreadable, now: Duration) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if end <= *read {
            return;
        }
        if self.batch.is_empty() {
            self.since = now;
        }
        let gap = Gap { first: first.max(*read), last: end - 1, cause: GapCause::TooLarge };
        self.batch.skip_to(partition, *generation, *read, end, Some(gap));
        *read = end;
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.batch.is_full() || !self.batch.is_empty() && now.saturating_sub(self.since) >= BATCH_AGE_MAX
    }

    pub(super) fn hand_over(&mut self) -> Batch {
        let next = Batch::new(&self.batch.topic);
        std::mem::replace(&mut self.batch, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_a_gap_between_records() {
        let mut intake = Intake::new(&TopicId::default());
        intake.read.insert(0, (3, 5));
        let record = |offset| Record::new(offset, None, None, Some(b"x"));
        let now = Duration::ZERO;
        intake.take(0, record(5), now);
        let unreadable = Unreadable { partition: 0, first: 7, end: 100 };
        intake.pass_unreadable(unreadable, now);
        intake.pass_unreadable(unreadable, now);
        intake.pass_unreadable(Unreadable { partition: 1, ..unreadable }, now);
        intake.take(0, record(100), now);
        let batch = intake.hand_over();
        let part = &batch.partitions[&0];
        assert_eq!((part.generation, part.from, part.to, batch.partitions.len()), (3, 5, 101, 1));
        assert_eq!(part.gaps, [Gap { first: 7, last: 99, cause: GapCause::TooLarge }]);
        assert_eq!(part.missing_offsets, [], "offset 6 held no record");
        assert_eq!(part.last_before(101).unwrap().offset, 100);
    }
}
