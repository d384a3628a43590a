//! Registers events in the journal and passes them on to observers: `docs/architecture.md` has an example.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::journal::{Journal, JournalError, Pending, Position, QueuedEvent};
use crate::message::{Event, EventId, NewEvent, Stamp};
use crate::process::clock::Clock;
use crate::process::failpoints;
use crate::units::ByteCount;

pub type ObserveError = Box<dyn Error>;

/// A reaction to events on the tick's thread, which it must not block. Errors are logged; the events stay registered.
pub trait Observer {
    fn name(&self) -> &str;

    /// Handles committed events: a tick's, or a `loss` of the journal's own, which may still grow until it is sent.
    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError>;

    fn removed(&mut self, _ids: &[EventId]) -> Result<(), ObserveError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ObserveError> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObserverId(u64);

#[derive(Debug, thiserror::Error)]
#[error("observer {observer} failed")]
pub struct ObserverFailure {
    observer: String,
    #[source]
    cause: ObserveError,
}

/// Registers events, then notifies observers in the order of subscription: none sees an event that is not committed.
pub struct EventSystem {
    journal: Box<dyn Journal>,
    observers: Vec<(ObserverId, Box<dyn Observer>)>,
    next_id: u64,
    failures: Vec<ObserverFailure>,
}

impl EventSystem {
    pub fn new(journal: Box<dyn Journal>) -> Self {
        Self { journal, observers: Vec::new(), next_id: 0, failures: Vec::new() }
    }

    pub fn subscribe(&mut self, observer: Box<dyn Observer>) -> ObserverId {
        let id = ObserverId(self.next_id);
        self.next_id += 1;
        self.observers.push((id, observer));
        id
    }

    pub fn unsubscribe(&mut self, id: ObserverId) -> Option<Box<dyn Observer>> {
        let at = self.observers.iter().position(|(subscribed, _)| *subscribed == id)?;
        Some(self.observers.remove(at).1)
    }

    pub fn add_event(&mut self, new_event: NewEvent) -> Result<EventId, JournalError> {
        let events = self.add_events(vec![new_event])?;
        Ok(events[0].id)
    }

    /// Registers the events of one tick in one transaction.
    ///
    /// # Errors
    /// The journal refused them; no observer has seen any of them.
    pub fn add_events(&mut self, new_events: Vec<NewEvent>) -> Result<Vec<Arc<Event>>, JournalError> {
        if new_events.is_empty() {
            return Ok(Vec::new());
        }
        let events = self.journal.append(new_events)?;
        self.notify(|observer| observer.added(&events));
        self.notify_own_events();
        Ok(events)
    }

    pub fn notify_own_events(&mut self) {
        let events = self.journal.take_own_events();
        if !events.is_empty() {
            self.notify(|observer| observer.added(&events));
        }
    }

    pub fn upkeep(&mut self, now: &Stamp) -> Result<(), JournalError> {
        let done = self.journal.upkeep(now);
        self.notify_own_events();
        done
    }

    pub fn reconfigure(&mut self, size_max: ByteCount, age_max: Duration, now: &Stamp) -> Result<(), JournalError> {
        let done = self.journal.reconfigure(size_max, age_max, now);
        self.notify_own_events();
        done
    }

    pub fn remove_event(&mut self, id: EventId) -> Result<(), JournalError> {
        self.remove_events(&[id])
    }

    /// Removes events that Kafka acknowledged or their sender withdraws; after an error they stay, and the next start sends them.
    pub fn remove_events(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        if ids.is_empty() {
            return Ok(());
        }
        failpoints::hit("removal-before");
        self.journal.remove(ids)?;
        failpoints::hit("removal-after");
        self.notify(|observer| observer.removed(ids));
        Ok(())
    }

    /// Replaces an event that Kafka will never accept by its loss; after an error the event stays.
    pub fn reject_event(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError> {
        self.journal.reject(id, detail, stamp)?;
        self.notify(|observer| observer.removed(&[id]));
        self.notify_own_events();
        Ok(())
    }

    pub fn pending(&self) -> Pending {
        self.journal.pending()
    }

    pub fn flush(&mut self) {
        self.notify(|observer| observer.flush());
    }

    pub fn batch(
        &mut self,
        after: Position,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<QueuedEvent>, JournalError> {
        let batch = self.journal.batch(after, events_max, bytes_max);
        self.notify_own_events();
        batch
    }

    pub fn journal(&mut self) -> &mut dyn Journal {
        &mut *self.journal
    }

    pub fn failures(&mut self) -> Vec<ObserverFailure> {
        std::mem::take(&mut self.failures)
    }

    fn notify(&mut self, mut what: impl FnMut(&mut dyn Observer) -> Result<(), ObserveError>) {
        for (_, observer) in &mut self.observers {
            if let Err(cause) = what(&mut **observer) {
                self.failures.push(ObserverFailure { observer: observer.name().to_owned(), cause });
            }
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../../docs/architecture.md")]
struct Documentation;

pub fn stamp(agent: &str, boot_id: &str, clock: &dyn Clock) -> Stamp {
    Stamp {
        agent: agent.into(),
        observed_at: clock.wall(),
        boot_id: boot_id.to_owned(),
        monotonic_ms: u64::try_from(clock.boottime().as_millis()).unwrap_or(u64::MAX),
        clock_synced: clock.synced(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::agent::journal::SqliteJournal;
    use crate::message::{Body, Lifecycle};
    use crate::units::ByteCount;

    const MIB: ByteCount = ByteCount::from_bytes(1 << 20);

    struct Diary(&'static str, Rc<RefCell<Vec<String>>>, bool);

    impl Observer for Diary {
        fn name(&self) -> &str {
            self.0
        }

        fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
            self.1.borrow_mut().extend(events.iter().map(|event| format!("{}+{}", self.0, event.id.seq)));
            if self.2 { Err("out of ink".into()) } else { Ok(()) }
        }

        fn removed(&mut self, ids: &[EventId]) -> Result<(), ObserveError> {
            self.1.borrow_mut().extend(ids.iter().map(|id| format!("{}-{}", self.0, id.seq)));
            Ok(())
        }

        fn flush(&mut self) -> Result<(), ObserveError> {
            self.1.borrow_mut().push(format!("{}!", self.0));
            Ok(())
        }
    }

    fn new_event() -> NewEvent {
        let stamp = Stamp {
            agent: "a".into(),
            observed_at: chrono::DateTime::UNIX_EPOCH,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: None,
        };
        NewEvent { stamp, body: Body::AgentStopped(Lifecycle { version: "1".into(), reason: None, detail: None }) }
    }

    #[test]
    fn observers_are_told_in_order_until_they_leave_and_one_that_fails_stops_nobody() {
        let diary = Rc::new(RefCell::new(Vec::new()));
        let mut system = EventSystem::new(Box::new(SqliteJournal::in_memory(MIB).unwrap()));
        let first = system.subscribe(Box::new(Diary("a", Rc::clone(&diary), true)));
        system.subscribe(Box::new(Diary("b", Rc::clone(&diary), false)));
        let id = system.add_event(new_event()).unwrap();
        assert_eq!(system.failures()[0].to_string(), "observer a failed");
        system.unsubscribe(first).unwrap();
        system.flush();
        system.remove_event(id).unwrap();
        assert!(system.unsubscribe(first).is_none());
        assert_eq!(*diary.borrow(), ["a+1", "b+1", "b!", "b-1"]);
        assert_eq!(system.pending().events, 0);
    }
}
