use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::agent::journal::{Journal, JournalError, Pending, Position, QueuedEvent, declare, random_epoch};
use crate::agent::publisher::in_flight::InFlight;
use crate::message::{Body, Epoch, Event, EventId, NewEvent, Reason, Stamp};

/// A journal of many agents in memory, which evicts nothing (its caller slows down), and keeps no JSON, so it counts no bytes.
#[derive(Debug)]
pub struct FleetJournal {
    counts: FxHashMap<SmolStr, EventId>,
    events: InFlight<Arc<Event>>,
    positions: FxHashMap<Epoch, InFlight<usize>>,
}

impl FleetJournal {
    pub fn new() -> Self {
        Self { counts: HashMap::default(), events: InFlight::from(1), positions: HashMap::default() }
    }

    pub fn counting(mut self, agent: &str, epoch: Epoch) -> Self {
        self.counts.insert(agent.into(), EventId { epoch, seq: 1 });
        self
    }

    fn register(&mut self, new_event: NewEvent) -> Arc<Event> {
        let id = match self.counts.get_mut(&new_event.stamp.agent) {
            Some(next) => {
                let id = *next;
                next.seq += 1;
                id
            }
            None => {
                let id = EventId { epoch: random_epoch(), seq: 1 };
                self.counts.insert(new_event.stamp.agent.clone(), EventId { seq: 2, ..id });
                id
            }
        };
        let event = Arc::new(Event { id, stamp: new_event.stamp, body: new_event.body });
        let position = self.events.push(Arc::clone(&event));
        self.positions.entry(id.epoch).or_insert_with(|| InFlight::from(id.seq as usize)).push(position);
        event
    }

    fn take(&mut self, id: EventId) -> Option<Arc<Event>> {
        let of_its_epoch = self.positions.get_mut(&id.epoch)?;
        let position = of_its_epoch.take(id.seq as usize)?;
        if of_its_epoch.is_empty() {
            self.positions.remove(&id.epoch);
        }
        self.events.take(position)
    }
}

impl Default for FleetJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal for FleetJournal {
    fn append(&mut self, new_events: Vec<NewEvent>) -> Result<Vec<Arc<Event>>, JournalError> {
        Ok(new_events.into_iter().map(|new_event| self.register(new_event)).collect())
    }

    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        for id in ids {
            self.take(*id);
        }
        Ok(())
    }

    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError> {
        if let Some(event) = self.take(id) {
            let stamp = Stamp { agent: event.stamp.agent.clone(), ..stamp };
            for loss in declare(&[id], &Reason::Rejected, Some(detail)) {
                self.register(NewEvent { stamp: stamp.clone(), body: Body::Loss(loss) });
            }
        }
        Ok(())
    }

    fn batch(
        &mut self,
        after: Position,
        events_max: usize,
        _bytes_max: usize,
    ) -> Result<Vec<QueuedEvent>, JournalError> {
        let events = self.events.since(after.0 as usize + 1).take(events_max);
        let stored = |(position, event)| QueuedEvent {
            position: Position(position as u64),
            event: Arc::clone(event),
            payload: None,
        };
        Ok(events.map(stored).collect())
    }

    fn pending(&self) -> Pending {
        let oldest = self.events.since(0).next().map(|(_, event)| event.stamp.observed_at);
        Pending { events: self.events.len() as u64, rates: 0, bytes: 0, oldest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Lifecycle;

    fn new_event(agent: &str) -> NewEvent {
        let stamp = Stamp {
            agent: agent.into(),
            observed_at: chrono::DateTime::UNIX_EPOCH,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: None,
        };
        NewEvent { stamp, body: Body::AgentStopped(Lifecycle { version: "1".into(), reason: None, detail: None }) }
    }

    #[test]
    fn each_agent_counts_for_itself_and_removal_comes_in_any_order() {
        let mut journal = FleetJournal::new().counting("b", Epoch(7));
        let events = journal.append(vec![new_event("a"), new_event("b"), new_event("a"), new_event("b")]).unwrap();
        let seqs: Vec<u64> = events.iter().map(|event| event.id.seq).collect();
        assert_eq!(seqs, [1, 1, 2, 2]);
        assert_eq!((events[1].id.epoch, events[0].id.epoch == events[2].id.epoch), (Epoch(7), true));
        let first = journal.batch(Position::START, 2, usize::MAX).unwrap();
        let rest = journal.batch(first[1].position, 9, usize::MAX).unwrap();
        assert_eq!((first.len(), rest.len(), rest[0].event.id), (2, 2, events[2].id));
        journal.remove(&[events[2].id, events[0].id, events[0].id]).unwrap();
        assert_eq!((journal.pending().events, journal.events.first()), (2, 2));
        journal.reject(events[1].id, "too large", events[0].stamp.clone()).unwrap();
        let left = journal.batch(Position::START, 9, usize::MAX).unwrap();
        assert_eq!(left[0].event.id, events[3].id);
        assert_eq!((left[1].event.stamp.agent.as_str(), left[1].event.id.seq, left.len()), ("b", 3, 2));
        assert!(matches!(&left[1].event.body, Body::Loss(loss) if loss.ranges == [(1, 1)]));
    }
}
