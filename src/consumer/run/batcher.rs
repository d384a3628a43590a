use std::collections::BTreeMap;
use std::time::Duration;

use crate::consumer::batch::{Batch, Gap, GapCause, Record, TopicId};
use crate::consumer::checkpoint::Checkpoint;
use crate::consumer::source::Unreadable;

const AGE_MAX: Duration = Duration::from_secs(1);
/// Time without a message of its topic after which a batch is stored.
pub(super) const LINGER: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct BatchBuilder {
    batch: Batch,
    since: Duration,
    last: Duration,
    /// Generation, and offset up to which all from `next_offset` on is in a batch.
    read: BTreeMap<i32, (i32, i64)>,
}

impl BatchBuilder {
    pub(super) fn new(topic: &TopicId, checkpoints: &BTreeMap<i32, Checkpoint>) -> Self {
        let begin = |(&partition, checkpoint): (&i32, &Checkpoint)| {
            (partition, (checkpoint.generation, checkpoint.next_offset))
        };
        Self { batch: Batch::new(topic), read: checkpoints.iter().map(begin).collect(), ..Self::default() }
    }

    pub(super) fn topic(&self) -> &TopicId {
        &self.batch.topic
    }

    pub(super) fn offsets(&self) -> impl Iterator<Item = (i32, i64)> {
        self.read.iter().map(|(partition, (_, offset))| (*partition, *offset))
    }

    /// Adds a record, unless it is from before a rebalance.
    pub(super) fn push(&mut self, partition: i32, record: Record, now: Duration) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if self.batch.is_empty() {
            self.since = now;
        }
        self.last = now;
        let (generation, from) = (*generation, *read);
        *read = from.max(record.offset + 1);
        self.batch.push(partition, record, || (generation, from));
    }

    pub(super) fn skip_to(&mut self, partition: i32, position: i64) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if position > *read {
            self.batch.skip_to(partition, *generation, *read, position, None);
            *read = position;
        }
    }

    pub(super) fn skip_unreadable(&mut self, Unreadable { partition, first, end, .. }: Unreadable, now: Duration) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if end <= *read {
            return;
        }
        if self.batch.is_empty() {
            self.since = now;
        }
        self.last = now;
        let gap = Gap { first: first.max(*read), last: end - 1, cause: GapCause::Unreadable };
        self.batch.skip_to(partition, *generation, *read, end, Some(gap));
        *read = end;
    }

    /// Returns whether the batch is full or old, or its topic quiet: others may never be.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        let has_lasted = |since: Duration, time| now.saturating_sub(since) >= time;
        !self.is_empty() && (self.is_full() || has_lasted(self.since, AGE_MAX) || has_lasted(self.last, LINGER))
    }

    pub(super) fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    pub(super) fn hand_over(&mut self) -> Option<Batch> {
        let next = Batch::new(&self.batch.topic);
        (!self.is_empty()).then(|| std::mem::replace(&mut self.batch, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Record {
        Record::new(offset, None, None, Some(b"x"))
    }

    fn builder() -> BatchBuilder {
        let checkpoint = Checkpoint { next_offset: 5, generation: 3, ..Checkpoint::default() };
        BatchBuilder::new(&TopicId::default(), &BTreeMap::from([(0, checkpoint)]))
    }

    #[test]
    fn what_cannot_be_read_is_a_gap_between_records() {
        let (mut builder, now) = (builder(), Duration::ZERO);
        builder.push(0, record(5), now);
        let unreadable = Unreadable { partition: 0, position: 6, first: 7, end: 100 };
        builder.skip_unreadable(unreadable, now);
        builder.skip_unreadable(unreadable, now);
        builder.skip_unreadable(Unreadable { partition: 1, ..unreadable }, now);
        builder.push(0, record(100), now);
        assert_eq!(builder.offsets().collect::<Vec<_>>(), [(0, 101)]);
        let batch = builder.hand_over().unwrap();
        let part = &batch.partitions[&0];
        assert_eq!((part.generation, part.from, part.to, batch.partitions.len()), (3, 5, 101, 1));
        assert_eq!(part.gaps, [Gap { first: 7, last: 99, cause: GapCause::Unreadable }]);
        assert_eq!(part.missing_offsets, [], "offset 6 held no record");
        assert_eq!(part.last_before(101).unwrap().offset, 100);
    }

    #[test]
    fn a_batch_is_stored_when_its_topic_is_quiet_or_it_is_a_second_old() {
        let (mut builder, begin) = (builder(), Duration::from_secs(100));
        let at = |ms| begin + Duration::from_millis(ms);
        assert!(!builder.is_due(begin), "there is nothing");
        for (offset, ms) in (5..).zip((0..1_000).step_by(4)) {
            assert!(!builder.is_due(at(ms)), "{ms} ms: more keeps coming");
            builder.push(0, record(offset), at(ms));
        }
        assert!(builder.is_due(at(1_000)));
        builder.hand_over().unwrap();
        builder.push(0, record(1_000), at(2_000));
        assert!(!builder.is_due(at(2_004)) && builder.is_due(at(2_005)));
        builder.hand_over().unwrap();
        builder.skip_to(0, 1_002);
        assert!(builder.is_due(at(3_000)));
    }
}
