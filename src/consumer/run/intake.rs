//! What was read and not yet given to the store.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::consumer::batch::{Batch, Record, TopicId};

/// How long a batch may collect.
const BATCH_AGE_MAX: Duration = Duration::from_secs(1);

/// A batch in the making.
pub(super) struct Intake {
    pub(super) batch: Batch,
    since: Duration,
    /// Each partition's generation, and how far it was read: what is between `next` and this is in a batch.
    pub(super) read: BTreeMap<i32, (i32, i64)>,
}

impl Intake {
    pub(super) fn new(topic: &TopicId) -> Self {
        Self { batch: Batch::new(topic), since: Duration::ZERO, read: BTreeMap::new() }
    }

    /// A record; what comes from a partition that is not placed is from before.
    pub(super) fn take(&mut self, partition: i32, record: Record, now: Duration) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if self.batch.is_empty() {
            self.since = now;
        }
        let (generation, from) = (*generation, *read);
        *read = from.max(record.offset + 1);
        self.batch.push(partition, record, || (generation, from));
    }

    /// Offsets up to `position` were passed without a record.
    pub(super) fn pass(&mut self, partition: i32, position: i64) {
        let Some((generation, read)) = self.read.get_mut(&partition) else { return };
        if position > *read {
            self.batch.skip_to(partition, *generation, *read, position, None);
            *read = position;
        }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.batch.is_full() || !self.batch.is_empty() && now.saturating_sub(self.since) >= BATCH_AGE_MAX
    }

    pub(super) fn hand_over(&mut self) -> Batch {
        let next = Batch::new(&self.batch.topic);
        std::mem::replace(&mut self.batch, next)
    }
}
