//! Offset at which each partition goes on, and whether it is still the same partition.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::intake::Intake;
use super::{Consumer, ConsumerState, Hindrance};
use crate::clock::Clock as _;
use crate::consumer::batch::{Gap, GapCause, TopicId};
use crate::consumer::checkpoint::{AnchorRecord, Checkpoint, CheckpointVerdict};
use crate::consumer::config::Start;
use crate::consumer::source::Known;
use crate::consumer::store::StoreError;
use crate::failpoints;

/// Interval at which known records are read again, to see that the topic is still the same.
const ANCHOR_EVERY: Duration = Duration::from_secs(30);
const ANCHOR_MAX: Duration = Duration::from_secs(10);

pub(super) struct Anchors {
    found: Receiver<Known>,
    before: BTreeMap<i32, Checkpoint>,
}

impl Consumer<'_> {
    pub(super) fn place_all(&mut self) {
        match self.try_to_place() {
            Ok(()) => {
                self.state = ConsumerState::Reading;
                self.well();
                self.due.anchors = self.clock.monotonic() + anchor_every();
            }
            Err(hindrance) => {
                let at = self.hindered(&hindrance);
                self.unplace(at);
            }
        }
    }

    fn try_to_place(&mut self) -> Result<(), Hindrance> {
        let topic = TopicId { cluster: self.source.cluster()?, name: self.settings.membership.topic.clone() };
        let asked = topic.clone();
        let mut stored = self.ask_store(move |store| store.checkpoints(&asked))?;
        stored.retain(|partition, _| self.assigned.contains(partition));
        let found = self.look_at_known(&stored)?;
        let mut places = BTreeMap::new();
        for &partition in &self.assigned.clone() {
            self.heart.beat("finding where a partition goes on", self.clock.monotonic());
            let (low, high) = self.source.watermarks(partition)?;
            let place = match stored.get(&partition) {
                Some(old) => {
                    let verdict = old.verify(found.get(&partition).map_or(&[], Vec::as_slice), low, high);
                    self.go_on(&topic, partition, old, &verdict, low)?
                }
                None => self.begin(&topic, partition, low, high)?,
            };
            places.insert(partition, place);
        }
        self.source.place(&places.iter().map(|(partition, place)| (*partition, place.next_offset)).collect())?;
        self.intake = Intake::new(&topic);
        self.intake.read =
            places.iter().map(|(partition, place)| (*partition, (place.generation, place.next_offset))).collect();
        self.places = places;
        Ok(())
    }

    fn go_on(
        &mut self,
        topic: &TopicId,
        partition: i32,
        old: &Checkpoint,
        verdict: &CheckpointVerdict,
        low: i64,
    ) -> Result<Checkpoint, StoreError> {
        let (new, gap) = match *verdict {
            CheckpointVerdict::Same => (old.clone(), None),
            CheckpointVerdict::Recreated(why) => {
                log::error!(
                    "{topic}[{partition}] was made anew ({why}): reading it from its start, {low}; what is stored already is not stored twice"
                );
                (old.recreated(low), None)
            }
            CheckpointVerdict::Gap(gap) => {
                log::error!(
                    "{topic}[{partition}]: Kafka dropped offsets {} to {} before they were read",
                    gap.first,
                    gap.last
                );
                (Checkpoint { next_offset: gap.last + 1, ..old.clone() }, Some(gap))
            }
        };
        if new != *old {
            self.replace_checkpoint(topic, partition, old, &new, gap)?;
        }
        Ok(new)
    }

    /// Begins a partition that the database does not know: by `kafka.start`, never by Kafka's committed offset.
    fn begin(&mut self, topic: &TopicId, partition: i32, low: i64, high: i64) -> Result<Checkpoint, StoreError> {
        let (next_offset, gap) = match self.settings.start {
            Start::Earliest => {
                (low, (low > 0).then(|| Gap { first: 0, last: low - 1, cause: GapCause::ExpiredBeforeStart }))
            }
            Start::Latest => {
                (high, (high > low).then(|| Gap { first: low, last: high - 1, cause: GapCause::SkippedAtStart }))
            }
        };
        let first = Checkpoint { next_offset, ..Checkpoint::default() };
        let (asked, inserted) = (topic.clone(), first.clone());
        let place = self.ask_store(move |store| store.insert_checkpoint(&asked, partition, &inserted, gap))?;
        if place.next_offset >= low || place != first {
            return Ok(place);
        }
        let verdict = place.verify(&[], low, high);
        self.go_on(topic, partition, &place, &verdict, low)
    }

    fn replace_checkpoint(
        &mut self,
        topic: &TopicId,
        partition: i32,
        old: &Checkpoint,
        new: &Checkpoint,
        gap: Option<Gap>,
    ) -> Result<(), StoreError> {
        let (topic, old, new) = (topic.clone(), old.clone(), new.clone());
        self.ask_store(move |store| store.replace_checkpoint(&topic, partition, &old, &new, gap))
    }

    fn look_at_known(&mut self, places: &BTreeMap<i32, Checkpoint>) -> Result<Known, Hindrance> {
        let known = with_records(places);
        if known.is_empty() {
            return Ok(Known::new());
        }
        let found = self.source.read_again(&known)?;
        found.recv_timeout(ANCHOR_MAX).map_err(|_| Hindrance::Kafka("old records cannot be read again yet".to_owned()))
    }

    /// Detects by known records that the topic was recreated while it is read, which brings neither an error nor a rebalance.
    pub(super) fn mind_anchors(&mut self, now: Duration) {
        if let Some(Anchors { found, before }) = &self.anchors {
            match found.try_recv() {
                Ok(found) => {
                    let before = before.clone();
                    self.anchors = None;
                    self.judge_anchors(&found, &before);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.anchors = None,
            }
        } else if now >= self.due.anchors {
            self.due.anchors = now + anchor_every();
            let before = with_records(&self.places);
            if before.is_empty() {
                return;
            }
            match self.source.read_again(&before) {
                Ok(found) => self.anchors = Some(Anchors { found, before }),
                Err(error) => self.kafka_says(&error),
            }
        }
    }

    fn judge_anchors(&mut self, found: &Known, before: &BTreeMap<i32, Checkpoint>) {
        let topic = self.intake.batch.topic.clone();
        for (&partition, found) in found {
            let (Some(place), Some(before)) = (self.places.get(&partition).cloned(), before.get(&partition)) else {
                continue;
            };
            let is_there = found.iter().any(|record| matches!(record, AnchorRecord::Record(_)));
            let watermarks = if is_there { Some((0, i64::MAX)) } else { self.source.watermarks(partition).ok() };
            let Some((low, high)) = watermarks else { continue };
            if let CheckpointVerdict::Recreated(why) = before.verify(found, low, high) {
                log::info!("{topic}[{partition}]: {why}; looking again");
                return self.unplace(Duration::ZERO);
            }
            let new = place.anchored(before.last);
            if new != place {
                if let Err(fault) = self.replace_checkpoint(&topic, partition, &place, &new, None) {
                    let at = self.hindered(&fault.clone().into());
                    return match fault {
                        StoreError::Conflict(_) => self.unplace(at),
                        _ => self.hold(at),
                    };
                }
                self.places.insert(partition, new);
            }
        }
    }
}

fn anchor_every() -> Duration {
    failpoints::duration("anchor-every-s", ANCHOR_EVERY)
}

fn with_records(places: &BTreeMap<i32, Checkpoint>) -> BTreeMap<i32, Checkpoint> {
    let places = places.iter().filter(|(_, place)| place.known().next().is_some());
    places.map(|(partition, place)| (*partition, place.clone())).collect()
}
