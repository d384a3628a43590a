use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::StoredEvent;
use super::batcher::BatchBuilder;
use super::checkpoints::{Checkpoints, TopicCheckpoints};
use crate::consumer::batch::{Batch, PartitionBatch, TopicId};
use crate::consumer::source::{Polled, Source, TopicPartition};
use crate::consumer::store::Applied;
use crate::kafka::offsets::PartitionsError;
use crate::process::backoff::Backoff;
use crate::units::counted;

pub(super) struct Topic {
    pub(super) state: TopicState,
    pub(super) builder: BatchBuilder,
    pub(super) storing: Option<Arc<Batch>>,
    pub(super) checkpoints: TopicCheckpoints,
    pub(super) backoff: Backoff,
    pub(super) unavailable: UnavailablePartitions,
    pub(super) end: EndState,
    stored: Stored,
}

/// ```text
///                    offsets found                 store unavailable
///  AwaitingOffsets ────────────────────► Reading ────────────────────► Paused
///         ▲                                │  ▲   stored at last          │
///         │  rebalance, lost position,     │  └──────────────────────────┤
///         │  recreated topic               │                             │
///         └────────────────────────────────┴─────────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopicState {
    /// No partition, or none with a known offset. Tried at this time.
    AwaitingOffsets(Duration),
    Reading,
    /// The store is unavailable: the batch is kept, Kafka paused. Tried again at this time.
    Paused(Duration),
}

impl TopicState {
    pub(super) fn has_offsets(self) -> bool {
        !matches!(self, Self::AwaitingOffsets(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// Also true while a topic is paused: it waits for the store, not for Kafka.
    pub(super) kafka: bool,
    pub(super) store: bool,
}

impl Health {
    pub(super) fn of(states: impl Iterator<Item = TopicState>) -> Self {
        states.fold(Self { kafka: true, store: true }, |Self { kafka, store }, state| Self {
            kafka: kafka && state.has_offsets(),
            store: store && state == TopicState::Reading,
        })
    }
}

/// Partitions without a leader, or whose known records cannot be read: tried again, while the others are read.
#[derive(Default)]
pub(super) struct UnavailablePartitions {
    partitions: BTreeSet<i32>,
    retry_at: Duration,
    backoff: Backoff,
}

impl UnavailablePartitions {
    pub(super) fn replace(&mut self, topic: &TopicId, partitions: BTreeSet<i32>, now: Duration) {
        if partitions.is_empty() {
            self.backoff.reset();
        } else {
            self.retry_at = now + self.backoff.pause();
        }
        if partitions != self.partitions {
            let numbers = |partitions: &BTreeSet<i32>| {
                let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
                format!("{topic}[{}]", numbers.join(", "))
            };
            if partitions.is_empty() {
                log::info!("{} can be read again", numbers(&self.partitions));
            } else {
                log::warn!(
                    "{} cannot be read yet, perhaps for want of a leader; reading the other partitions",
                    numbers(&partitions)
                );
            }
        }
        self.partitions = partitions;
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        !self.partitions.is_empty() && now >= self.retry_at
    }
}

#[derive(Default, PartialEq, Eq)]
pub(super) enum EndState {
    #[default]
    Unknown,
    At(Arc<EndOffsets>),
    Reached,
}

#[derive(PartialEq, Eq)]
pub(super) struct EndOffsets {
    pub(super) topic: TopicId,
    offsets: BTreeMap<i32, (i64, i64)>,
}

const POLLED_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Stored {
    rows: u64,
    dead_letters: u64,
    gaps: u64,
}

impl Topic {
    pub(super) fn new() -> Self {
        Self {
            state: TopicState::AwaitingOffsets(Duration::ZERO),
            builder: BatchBuilder::default(),
            storing: None,
            checkpoints: TopicCheckpoints::default(),
            backoff: Backoff::default(),
            unavailable: UnavailablePartitions::default(),
            end: EndState::default(),
            stored: Stored::default(),
        }
    }

    pub(super) fn start_reading(&mut self, id: &TopicId, checkpoints: Checkpoints, now: Duration) {
        self.builder = BatchBuilder::new(id, &checkpoints);
        self.checkpoints = TopicCheckpoints::new(checkpoints, now);
        self.state = TopicState::Reading;
    }

    pub(super) fn stop_reading(&mut self, at: Duration) {
        self.builder = BatchBuilder::default();
        self.storing = None;
        self.checkpoints = TopicCheckpoints::default();
        self.state = TopicState::AwaitingOffsets(at);
    }

    pub(super) fn is_reading(&self) -> bool {
        self.state == TopicState::Reading
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.is_reading() && !self.builder.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_reading() && self.builder.is_full()
    }

    pub(super) fn skip_to(&mut self, partition: i32, position: i64) {
        if self.is_reading() {
            self.builder.skip_to(partition, position);
        }
    }

    pub(super) fn batch_to_store(&mut self) -> Option<&mut Arc<Batch>> {
        if self.storing.is_none() {
            self.storing = self.builder.hand_over().map(Arc::new);
        }
        self.storing.as_mut()
    }

    pub(super) fn advance(&mut self, batch: &Batch, applied: &Applied) -> BTreeMap<i32, i64> {
        self.storing = None;
        self.stored.rows += applied.inserted;
        self.stored.dead_letters += applied.rejected.len() as u64;
        let mut next = BTreeMap::new();
        for (&partition, part) in &batch.partitions {
            self.stored.gaps += part.gaps.len() as u64;
            let Some(checkpoint) = self.checkpoints.get(partition) else { continue };
            let checkpoint = match applied.stored.get(&partition) {
                Some(&(_, to)) => checkpoint.advanced(to, part.last_before(to)),
                None => checkpoint.clone(),
            };
            next.insert(partition, checkpoint.next_offset);
            self.checkpoints.set(partition, checkpoint);
        }
        next
    }

    pub(super) fn has_stored(&self) -> bool {
        let Stored { rows, dead_letters, gaps } = self.stored;
        rows + dead_letters + gaps > 0
    }

    pub(super) fn log_stored(&self, name: &str) {
        let Stored { rows, dead_letters, gaps } = self.stored;
        let gaps = if gaps > 0 { format!(", {}", counted(gaps, "gap")) } else { String::new() };
        log::info!("{name}: stored {}, {}{gaps}", counted(rows, "event"), counted(dead_letters, "dead letter"));
    }
}

impl EndOffsets {
    pub(super) fn fetch(source: &Source, topic: usize) -> Result<Self, PartitionsError> {
        let (id, partitions) = source.describe(topic)?;
        let watermarks = |partition| Ok((partition, source.watermarks(TopicPartition { topic, partition })?));
        let offsets = partitions.all.into_iter().map(watermarks).collect::<Result<_, String>>();
        let offsets = offsets.map_err(PartitionsError::Failed)?;
        Ok(Self { topic: id, offsets })
    }

    pub(super) fn are_reached(&self, stored: &Checkpoints) -> bool {
        self.offsets.iter().all(|(partition, (low, high))| match stored.get(partition) {
            Some(checkpoint) => checkpoint.next_offset >= *high,
            None => low == high,
        })
    }
}

fn deliver(topics: &mut [Topic], polled: Polled, now: Duration) -> Option<Polled> {
    match polled {
        Polled::Record(at, record) => topics[at.topic].builder.push(at.partition, record, now),
        Polled::Unreadable(topic, unreadable) => topics[topic].builder.skip_unreadable(unreadable, now),
        other => return Some(other),
    }
    None
}

/// Polls until a batch is full, up to a bound, since signals get their turn, or until there is something else to return.
pub(super) fn read(
    topics: &mut [Topic],
    mut timeout: Duration,
    now: impl Fn() -> Duration,
    mut poll: impl FnMut(Duration) -> Polled,
) -> Option<Polled> {
    for _ in 0..POLLED_MAX {
        match deliver(topics, poll(std::mem::take(&mut timeout)), now()) {
            Some(Polled::NoMessage) => break,
            None if topics.iter().any(Topic::is_full) => break,
            None => {}
            news => return news,
        }
    }
    None
}

/// Returns false if the store was asked to end between two transactions.
pub(super) fn is_whole(batch: &Batch, applied: &Applied) -> bool {
    let is_stored = |(partition, part): (&i32, &PartitionBatch)| {
        applied.stored.get(partition).is_some_and(|(_, to)| *to >= part.to)
    };
    batch.partitions.iter().all(is_stored)
}

pub(super) fn observe(batch: &Batch, applied: &Applied, observer: &mut dyn FnMut(&StoredEvent<'_>)) {
    let refused: HashSet<(i32, i64)> = applied.rejected.iter().map(|r| (r.partition, r.offset)).collect();
    for (&partition, part) in &batch.partitions {
        let (from, to) = applied.stored.get(&partition).copied().unwrap_or_default();
        for record in part.records.iter().filter(|record| (from..to).contains(&record.offset)) {
            if let (Ok(event), false) = (&record.content, refused.contains(&(partition, record.offset))) {
                observer(&StoredEvent { topic: &batch.topic.name, partition, offset: record.offset, event });
            }
        }
    }
}

pub(super) fn log_rejected(batch: &Batch, applied: &Applied) {
    const LINES_MAX: usize = 3;
    for refused in applied.rejected.iter().take(LINES_MAX) {
        log::warn!("dead letter: {}[{}] at {}: {}", batch.topic, refused.partition, refused.offset, refused.error);
    }
    if applied.rejected.len() > LINES_MAX {
        log::warn!("and {}", counted((applied.rejected.len() - LINES_MAX) as u64, "more dead letter"));
    }
    for identity in applied.identity_conflicts.iter().take(LINES_MAX) {
        log::error!(
            "{identity} was received with two different observed_at: is a state directory in use twice, or an old copy of one?"
        );
    }
    if applied.identity_conflicts.len() > LINES_MAX {
        log::error!("and {}", counted((applied.identity_conflicts.len() - LINES_MAX) as u64, "more such identity"));
    }
    let (rows, letters) = (applied.inserted, applied.rejected.len() as u64);
    log::debug!("{}: {}, {}", batch.topic, counted(rows, "row"), counted(letters, "dead letter"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::batch::Record;

    #[test]
    fn records_are_polled_in_a_row_until_none_is_there_at_once_or_something_else_is() {
        let mut topics = [Topic::new()];
        let mut read_through = |kinds: &[&str]| {
            let (mut kinds, mut timeouts) = (kinds.iter(), Vec::new());
            let news = read(
                &mut topics,
                Duration::from_secs(1),
                || Duration::ZERO,
                |timeout| {
                    timeouts.push(timeout);
                    let at = TopicPartition { topic: 0, partition: 0 };
                    match *kinds.next().expect("no more is asked for") {
                        "record" => Polled::Record(at, Record::new(0, None, None, None)),
                        "nothing" => Polled::NoMessage,
                        error => Polled::Error(error.to_owned()),
                    }
                },
            );
            assert!(timeouts[0] == Duration::from_secs(1) && timeouts[1..].iter().all(Duration::is_zero));
            (timeouts.len(), news)
        };
        assert!(matches!(read_through(&["nothing"]), (1, None)));
        assert!(matches!(read_through(&["record", "record", "nothing"]), (3, None)));
        assert!(matches!(read_through(&["record", "bad"]), (2, Some(Polled::Error(_)))));
        assert!(matches!(read_through(&["record"; 64]), (64, None)), "and then something else is done");
    }

    #[test]
    fn kafka_is_healthy_when_all_offsets_are_found_and_the_store_when_all_is_read() {
        use TopicState::{AwaitingOffsets, Paused, Reading};
        let at = Duration::ZERO;
        let of = |states: &[TopicState]| {
            let Health { kafka, store } = Health::of(states.iter().copied());
            (kafka, store)
        };
        assert_eq!(of(&[Reading, Reading]), (true, true));
        assert_eq!(of(&[Reading, Paused(at)]), (true, false));
        assert_eq!(of(&[Paused(at), AwaitingOffsets(at)]), (false, false));
        assert_eq!(of(&[Reading, AwaitingOffsets(at)]), (false, false));
    }
}
