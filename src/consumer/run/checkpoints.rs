//! Offsets at which the partitions of a topic go on, and whether they are still the same partitions.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use crate::consumer::batch::{Batch, Gap, GapCause, TopicId};
use crate::consumer::checkpoint::{AnchorRecord, Checkpoint, CheckpointVerdict};
use crate::consumer::config::Start;
use crate::consumer::source::AnchorRecords;
use crate::process::failpoints;

const ANCHOR_EVERY: Duration = Duration::from_secs(30);

pub(super) type Checkpoints = BTreeMap<i32, Checkpoint>;

#[derive(Default)]
pub(super) struct TopicCheckpoints {
    checkpoints: Checkpoints,
    reading: Option<Anchors>,
    anchors_at: Duration,
}

struct Anchors {
    found: Receiver<AnchorRecords>,
    before: Checkpoints,
}

impl TopicCheckpoints {
    pub(super) fn new(checkpoints: Checkpoints, now: Duration) -> Self {
        Self { checkpoints, reading: None, anchors_at: now + anchor_every() }
    }

    pub(super) fn get(&self, partition: i32) -> Option<&Checkpoint> {
        self.checkpoints.get(&partition)
    }

    pub(super) fn set(&mut self, partition: i32, checkpoint: Checkpoint) {
        self.checkpoints.insert(partition, checkpoint);
    }

    /// Reads known records again at an interval, since a topic may be recreated without error or rebalance. Returns a result once.
    pub(super) fn read_anchors(
        &mut self,
        now: Duration,
        read_again: impl FnOnce(&Checkpoints) -> Result<Receiver<AnchorRecords>, String>,
    ) -> Result<Option<(AnchorRecords, Checkpoints)>, String> {
        if let Some(Anchors { found, before }) = self.reading.take() {
            match found.try_recv() {
                Ok(found) => return Ok(Some((found, before))),
                Err(TryRecvError::Empty) => self.reading = Some(Anchors { found, before }),
                Err(TryRecvError::Disconnected) => {}
            }
        } else if now >= self.anchors_at {
            self.anchors_at = now + anchor_every();
            let before = with_records(&self.checkpoints);
            if !before.is_empty() {
                self.reading = Some(Anchors { found: read_again(&before)?, before });
            }
        }
        Ok(None)
    }
}

fn anchor_every() -> Duration {
    failpoints::duration("anchor-every-s", ANCHOR_EVERY)
}

pub(super) fn with_records(checkpoints: &Checkpoints) -> Checkpoints {
    let known = checkpoints.iter().filter(|(_, checkpoint)| checkpoint.known().next().is_some());
    known.map(|(partition, checkpoint)| (*partition, checkpoint.clone())).collect()
}

/// Begins a partition that the database does not know: by `start`, never by Kafka's committed offset.
pub(super) fn first_checkpoint(start: Start, (low, high): (i64, i64)) -> (Checkpoint, Vec<Gap>) {
    let next_offset = match start {
        Start::Earliest => low,
        Start::Latest => high,
    };
    let gap = |first, end, cause| (end > first).then_some(Gap { first, last: end - 1, cause });
    let expired = gap(0, low, GapCause::ExpiredBeforeStart);
    let gaps = expired.into_iter().chain(gap(low, next_offset, GapCause::SkippedAtStart)).collect();
    (Checkpoint { next_offset, ..Checkpoint::default() }, gaps)
}

pub(super) fn resume(
    (topic, partition): (&TopicId, i32),
    old: &Checkpoint,
    found: &[AnchorRecord],
    (low, high): (i64, i64),
) -> (Checkpoint, Option<Gap>) {
    match old.verify(found, low, high) {
        CheckpointVerdict::Same => (old.clone(), None),
        CheckpointVerdict::Recreated(why) => {
            log::error!(
                "{topic}[{partition}] was recreated ({why}): reading it from its start, {low}; what is stored already is not \
                 stored twice"
            );
            (old.recreated(low), None)
        }
        CheckpointVerdict::Gap(gap) => {
            log_dropped(topic, partition, &gap);
            (Checkpoint { next_offset: gap.last + 1, ..old.clone() }, Some(gap))
        }
    }
}

/// Moves the anchor on, after the records known `before` were read again. Fails with the reason if the topic is another one.
pub(super) fn verify_anchor(
    checkpoint: &Checkpoint,
    before: &Checkpoint,
    found: &[AnchorRecord],
    watermarks: impl FnOnce() -> Option<(i64, i64)>,
) -> Result<Checkpoint, &'static str> {
    let is_there = found.iter().any(|record| matches!(record, AnchorRecord::Record(_)));
    let Some((low, high)) = (if is_there { Some((0, i64::MAX)) } else { watermarks() }) else {
        return Ok(checkpoint.clone());
    };
    match before.verify(found, low, high) {
        CheckpointVerdict::Recreated(why) => Err(why),
        CheckpointVerdict::Same | CheckpointVerdict::Gap(_) => Ok(checkpoint.anchored(before.last)),
    }
}

/// Finds out whether the missing offsets of a batch are a loss, by Kafka's first offset.
pub(super) fn record_expired(batch: &mut Batch, low: impl Fn(i32) -> Result<i64, String>) -> Result<(), String> {
    let Batch { topic, partitions, .. } = batch;
    for (&partition, part) in partitions.iter_mut().filter(|(_, part)| !part.missing_offsets.is_empty()) {
        part.record_expired(low(partition)?);
        let expired = part.gaps.iter().filter(|gap| gap.cause == GapCause::Expired);
        expired.for_each(|gap| log_dropped(topic, partition, gap));
    }
    Ok(())
}

fn log_dropped(topic: &TopicId, partition: i32, Gap { first, last, .. }: &Gap) {
    log::error!("{topic}[{partition}]: Kafka deleted offsets {first} to {last} before they were read");
}
