//! A journal in memory: bounded, and gone with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::loss::{Cause, OpenLoss, by_epoch, declare, grow, split};
use super::{Journal, JournalError, Pending, Position, Rank, Stored, breach_change, random_epoch};
use crate::agent::event_system::Draft;
use crate::event::{Body, Epoch, Event, EventId, Reason, Stamp};
use crate::wire;

/// Events in a ring of bounded size, under an epoch of its own.
#[derive(Debug)]
pub struct MemoryJournal {
    epoch: Epoch,
    next_seq: u64,
    next_position: u64,
    bytes: u64,
    bytes_max: u64,
    events: BTreeMap<Position, Stored>,
    handed: BTreeSet<Position>,
    open_loss: Option<OpenLoss>,
    breaches: BTreeMap<String, Arc<Event>>,
}

impl MemoryJournal {
    /// Keeps at most `bytes_max` bytes of JSON, under a random epoch.
    pub fn new(bytes_max: u64) -> Self {
        Self::after(Position::START, bytes_max)
    }

    /// The same, with all positions after `position`.
    pub(super) fn after(position: Position, bytes_max: u64) -> Self {
        Self {
            epoch: random_epoch(),
            next_seq: 1,
            next_position: position.0 + 1,
            bytes: 0,
            bytes_max,
            events: BTreeMap::new(),
            handed: BTreeSet::new(),
            open_loss: None,
            breaches: BTreeMap::new(),
        }
    }

    /// In which it counts.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch in which it counts, and the number of the next event.
    pub(super) fn next_id(&self) -> EventId {
        EventId { epoch: self.epoch, seq: self.next_seq }
    }

    /// All that is registered, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.values().map(|stored| &*stored.event)
    }

    fn register(&mut self, draft: Draft) -> Arc<Event> {
        let id = EventId { epoch: self.epoch, seq: self.next_seq };
        let event = Arc::new(Event { id, stamp: draft.stamp, body: draft.body });
        self.next_seq += 1;
        let position = Position(self.next_position);
        self.next_position += 1;
        if let Some((breach_id, open)) = breach_change(&event.body) {
            if open {
                self.breaches.insert(breach_id.to_owned(), Arc::clone(&event));
            } else {
                self.breaches.remove(breach_id);
            }
        }
        if matches!(event.body, Body::Loss(_)) {
            self.open_loss = Some(OpenLoss { position, event: Event::clone(&event) });
        }
        self.put(position, Arc::clone(&event));
        event
    }

    fn put(&mut self, position: Position, event: Arc<Event>) {
        let stored = Stored { position, payload: Some(wire::to_json(&event)), event };
        self.bytes += stored.bytes() as u64;
        if let Some(before) = self.events.insert(position, stored) {
            self.bytes -= before.bytes() as u64;
        }
    }

    fn take(&mut self, position: Position) -> Option<Stored> {
        let stored = self.events.remove(&position)?;
        self.handed.remove(&position);
        self.bytes -= stored.bytes() as u64;
        Some(stored)
    }

    fn lose(&mut self, ids: &[EventId], cause: Cause<'_>, stamp: &Stamp) {
        for (epoch, ids) in by_epoch(ids) {
            match grow(&mut self.open_loss, epoch, &ids, cause) {
                Some(OpenLoss { position, event }) => {
                    let (position, event) = (*position, Arc::new(event.clone()));
                    self.put(position, event);
                }
                None => {
                    let body = Body::Loss(declare(epoch, &ids, cause));
                    self.register(Draft { stamp: stamp.clone(), body });
                }
            }
        }
    }

    fn select(&self, after: Position, events_max: usize, bytes_max: usize) -> Vec<Stored> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (_, stored) in self.events.range((Bound::Excluded(after), Bound::Unbounded)) {
            bytes += stored.bytes();
            if batch.len() == events_max || (bytes > bytes_max && !batch.is_empty()) {
                break;
            }
            batch.push(stored.clone());
        }
        batch
    }

    /// The open declaration grows no more; what of it one event does not carry gets events of its own.
    fn fix_loss(&mut self) {
        let Some(OpenLoss { position, mut event }) = self.open_loss.take() else { return };
        let rest = split(&mut event);
        self.put(position, event.into());
        rest.into_iter().for_each(|draft| drop(self.register(draft)));
        self.open_loss = None;
    }

    fn evict(&mut self, stamp: &Stamp) {
        let mut lost = Vec::new();
        while self.bytes > self.bytes_max {
            let victim = self
                .events
                .values()
                .map(|stored| (self.handed.contains(&stored.position), Rank::of(&stored.event.body), stored.position))
                .filter(|(_, rank, _)| *rank < Rank::Loss)
                .min();
            let Some(stored) = victim.and_then(|(.., position)| self.take(position)) else { break };
            lost.push(stored.event.id);
        }
        self.lose(&lost, (&Reason::Evicted).into(), stamp);
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, drafts: Vec<Draft>) -> Result<Vec<Arc<Event>>, JournalError> {
        let stamp = drafts.last().map(|draft| draft.stamp.clone());
        let events = drafts.into_iter().map(|draft| self.register(draft)).collect();
        if let Some(stamp) = stamp.filter(|_| self.bytes > self.bytes_max) {
            self.evict(&stamp);
        }
        Ok(events)
    }

    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        let ids: BTreeSet<_> = ids.iter().collect();
        let known: Vec<_> = self
            .events
            .values()
            .filter(|stored| ids.contains(&stored.event.id))
            .map(|stored| stored.position)
            .collect();
        for position in known {
            self.take(position);
        }
        Ok(())
    }

    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError> {
        self.remove(&[id])?;
        self.lose(&[id], Cause::rejected(detail), &stamp);
        Ok(())
    }

    fn batch(&mut self, after: Position, events_max: usize, bytes_max: usize) -> Result<Vec<Stored>, JournalError> {
        let mut batch = self.select(after, events_max, bytes_max);
        let open_loss = self.open_loss.as_ref().map(|loss| loss.position);
        if batch.iter().any(|stored| Some(stored.position) == open_loss) {
            self.fix_loss();
            batch = self.select(after, events_max, bytes_max);
        }
        self.handed.extend(batch.iter().map(|stored| stored.position));
        Ok(batch)
    }

    fn pending(&self) -> Pending {
        let oldest = self.events.values().next().map(|stored| stored.event.stamp.observed_at);
        Pending { events: self.events.len() as u64, bytes: self.bytes, oldest }
    }

    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError> {
        Ok(self.breaches.values().map(|event| Event::clone(event)).collect())
    }

    fn upkeep(&mut self, _stamp: &Stamp) -> Result<(), JournalError> {
        Ok(())
    }
}
