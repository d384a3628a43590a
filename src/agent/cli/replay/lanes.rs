//! Streams of a row: its events, and the row itself as a sample. A run is resumed at the first line not delivered by both.

use chrono::{DateTime, Utc};

use super::rows::Undelivered;
use crate::agent::courier::{Courier, Delivery};
use crate::agent::journal::FleetJournal;
use crate::agent::publisher;
use crate::message::{Epoch, NewEvent, Stamp};
use crate::process::exit::Failure;

pub(super) struct Lanes {
    events: Lane,
    samples: Option<Lane>,
    from_line: u64,
    next_line: u64,
}

struct Lane {
    courier: Courier,
    undelivered: Undelivered,
}

pub(super) struct Delivered {
    pub(super) events: Delivery,
    pub(super) samples: Option<Delivery>,
    pub(super) next_line: u64,
}

/// Derives the epoch of samples from that of events, as its complement, so that one flag names both.
pub(super) fn epoch_of_samples(events: Epoch) -> Epoch {
    Epoch(!events.0)
}

impl Delivered {
    pub(super) fn obstacle(&self) -> Option<&str> {
        let of_samples = self.samples.as_ref().and_then(|samples| samples.obstacle.as_deref());
        self.events.obstacle.as_deref().or(of_samples)
    }
}

impl Lanes {
    pub(super) fn open(
        agent: &str,
        epoch: Epoch,
        events: Option<publisher::Settings>,
        samples: Option<publisher::Settings>,
        from_line: Option<u64>,
    ) -> Result<Self, Failure> {
        let lane = |epoch, to| {
            let journal = FleetJournal::new().counting(agent, epoch);
            Ok::<_, Failure>(Lane {
                courier: Courier::new(journal, to, Vec::new())?,
                undelivered: Undelivered::default(),
            })
        };
        Ok(Self {
            events: lane(epoch, events)?,
            samples: samples.map(|to| lane(epoch_of_samples(epoch), Some(to))).transpose()?,
            from_line: from_line.unwrap_or(0),
            next_line: 0,
        })
    }

    pub(super) fn stopped(&self) -> bool {
        self.events.courier.stopped() || self.samples.as_ref().is_some_and(|samples| samples.courier.stopped())
    }

    pub(super) fn wants_samples(&self) -> bool {
        self.samples.is_some()
    }

    pub(super) fn pass(&mut self, line: u64) {
        self.next_line = self.next_line.max(line + 1);
    }

    pub(super) fn add(
        &mut self,
        line: u64,
        now: &Stamp,
        events: Vec<NewEvent>,
        sample: Option<NewEvent>,
    ) -> Result<(), Failure> {
        self.next_line = line + 1;
        let sent_before = line < self.from_line;
        self.events.add(line, now.observed_at, events, sent_before)?;
        match &mut self.samples {
            Some(samples) => samples.add(line, now.observed_at, sample.into_iter().collect(), sent_before),
            None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<Delivered, Failure> {
        let (events, from_events) = self.events.finish(self.next_line)?;
        let (samples, from_samples) = self.samples.map(|lane| lane.finish(self.next_line)).transpose()?.unzip();
        let next_line = from_samples.map_or(from_events, |line| line.min(from_events));
        Ok(Delivered { events, samples, next_line })
    }
}

impl Lane {
    fn add(&mut self, line: u64, at: DateTime<Utc>, drafts: Vec<NewEvent>, sent_before: bool) -> Result<(), Failure> {
        if sent_before {
            return self.courier.pass(drafts);
        }
        if !drafts.is_empty() {
            self.undelivered.add(at, line, self.courier.oldest_pending());
        }
        self.courier.add(drafts)
    }

    fn finish(self, next_line: u64) -> Result<(Delivery, u64), Failure> {
        let delivery = self.courier.finish()?;
        let line = self.undelivered.first(delivery.oldest_pending, next_line);
        Ok((delivery, line))
    }
}
