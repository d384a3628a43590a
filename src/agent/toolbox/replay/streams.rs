//! Streams of a row: its events, and the row itself as a sample. A run is resumed at the first line not delivered by both.

use chrono::{DateTime, Utc};

use super::rows::Undelivered;
use crate::agent::publisher;
use crate::agent::toolbox::FleetJournal;
use crate::agent::toolbox::sender::{Delivery, EventSender};
use crate::message::{Epoch, NewEvent, Stamp};
use crate::process::exit::Failure;

pub(crate) struct Streams {
    events: Stream,
    samples: Option<Stream>,
    from_line: u64,
    next_line: u64,
}

struct Stream {
    sender: EventSender,
    undelivered: Undelivered,
}

pub(crate) struct Delivered {
    pub(crate) events: Delivery,
    pub(crate) samples: Option<Delivery>,
    pub(crate) next_line: u64,
}

/// Derives the epoch of samples from that of events, as its complement, so that one flag names both.
pub(crate) fn epoch_of_samples(events: Epoch) -> Epoch {
    Epoch(!events.0)
}

impl Delivered {
    /// Returns true if something was sent, whether Kafka acknowledged it or not.
    pub(crate) fn has_any(&self) -> bool {
        [Some(&self.events), self.samples.as_ref()].into_iter().flatten().any(|sent| sent.delivered + sent.failed > 0)
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        let of_samples = self.samples.as_ref().and_then(|samples| samples.problem.as_deref());
        self.events.problem.as_deref().or(of_samples)
    }
}

impl Streams {
    pub(crate) fn open(
        agent: &str,
        epoch: Epoch,
        events: Option<publisher::Settings>,
        samples: Option<publisher::Settings>,
        from_line: Option<u64>,
    ) -> Result<Self, Failure> {
        let stream = |epoch, to| {
            let journal = FleetJournal::new().counting(agent, epoch);
            Ok::<_, Failure>(Stream {
                sender: EventSender::new(journal, to, Vec::new())?,
                undelivered: Undelivered::default(),
            })
        };
        Ok(Self {
            events: stream(epoch, events)?,
            samples: samples.map(|to| stream(epoch_of_samples(epoch), Some(to))).transpose()?,
            from_line: from_line.unwrap_or(0),
            next_line: 0,
        })
    }

    pub(crate) fn stopped(&self) -> bool {
        self.events.sender.stopped() || self.samples.as_ref().is_some_and(|samples| samples.sender.stopped())
    }

    pub(crate) fn wants_samples(&self) -> bool {
        self.samples.is_some()
    }

    pub(crate) fn skip_line(&mut self, line: u64) {
        self.next_line = self.next_line.max(line + 1);
    }

    pub(crate) fn add(
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

    pub(crate) fn finish(self) -> Result<Delivered, Failure> {
        let (events, from_events) = self.events.finish(self.next_line)?;
        let (samples, from_samples) = self.samples.map(|stream| stream.finish(self.next_line)).transpose()?.unzip();
        let next_line = from_samples.map_or(from_events, |line| line.min(from_events));
        Ok(Delivered { events, samples, next_line })
    }
}

impl Stream {
    fn add(
        &mut self,
        line: u64,
        at: DateTime<Utc>,
        new_events: Vec<NewEvent>,
        sent_before: bool,
    ) -> Result<(), Failure> {
        if sent_before {
            return self.sender.skip_delivered(new_events);
        }
        if !new_events.is_empty() {
            self.undelivered.add(at, line, self.sender.oldest_pending());
        }
        self.sender.add(new_events)
    }

    fn finish(self, next_line: u64) -> Result<(Delivery, u64), Failure> {
        let delivery = self.sender.finish()?;
        let line = self.undelivered.first(delivery.oldest_pending, next_line);
        Ok((delivery, line))
    }
}
