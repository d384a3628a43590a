//! Work that is done by the clock.

use std::time::Duration;

use super::{Consumer, ConsumerState, Ends};
use crate::consumer::batch::TopicId;
use crate::consumer::source::is_unknown_topic;
use crate::exit::{Failure, Status};

/// Interval at which `next_offset` is moved over offsets without records.
const PASS_EVERY: Duration = Duration::from_secs(1);
const END_EVERY: Duration = Duration::from_millis(200);
/// Longest time that a topic may be unknown to a run with `until_end`.
const TOPIC_UNKNOWN_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Due {
    pub(super) anchors: Duration,
    passing: Duration,
    ending: Duration,
}

impl Consumer<'_> {
    pub(super) fn chores(&mut self, now: Duration) {
        if self.state == ConsumerState::Reading {
            if now >= self.due.passing {
                self.due.passing = now + PASS_EVERY;
                self.pass_empty_offsets();
            }
            self.mind_anchors(now);
        }
    }

    /// Returns whether `until_end` is reached. Asked at an interval, also while more keeps coming.
    pub(super) fn has_ended(&mut self, now: Duration) -> Result<bool, Failure> {
        if !self.options.until_end || now < self.due.ending {
            return Ok(false);
        }
        self.due.ending = now + END_EVERY;
        self.is_at_end(now)
    }

    /// Moves over transaction markers and the like, which no message reports.
    fn pass_empty_offsets(&mut self) {
        for (partition, position) in self.source.positions() {
            self.intake.pass(partition, position);
        }
        if !self.intake.batch.is_empty() {
            self.store_batch();
        }
    }

    /// Returns whether the database has it all, whichever member stored it.
    fn is_at_end(&mut self, now: Duration) -> Result<bool, Failure> {
        let Some((topic, ends)) = self.ends.clone() else {
            match self.look_for_ends() {
                Ok(ends) => self.ends = Some(ends),
                Err(error) => {
                    let unknown = is_unknown_topic(&error);
                    if unknown && now.saturating_sub(self.started) > TOPIC_UNKNOWN_MAX {
                        return Err(Failure::new(Status::Unavailable, error));
                    }
                    self.kafka_says(&error);
                }
            }
            return Ok(false);
        };
        match self.ask_store(move |store| store.checkpoints(&topic)) {
            Ok(places) => Ok(ends.iter().all(|(partition, (low, high))| match places.get(partition) {
                Some(place) => place.next_offset >= *high,
                None => low == high,
            })),
            Err(fault) => {
                self.hindered(&fault.into());
                Ok(false)
            }
        }
    }

    fn look_for_ends(&self) -> Result<Ends, String> {
        let topic = TopicId { cluster: self.source.cluster()?, name: self.settings.membership.topic.clone() };
        let partitions = self.source.partitions()?.into_iter();
        let ends = partitions.map(|partition| Ok((partition, self.source.watermarks(partition)?)));
        Ok((topic, ends.collect::<Result<_, String>>()?))
    }
}
