//! The observer that detects a reason to flush.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::agent::event_system::{ObserveError, Observer};
use crate::message::{Body, Event, Severity};

#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) urgent: RefCell<Vec<Severity>>,
    pub(super) events_max: Cell<u64>,
    pub(super) held_back: Cell<u64>,
    pub(super) due: Cell<bool>,
}

pub(super) struct TriggerObserver(pub(super) Rc<Trigger>);

impl Observer for TriggerObserver {
    fn name(&self) -> &'static str {
        "publisher"
    }

    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
        let Trigger { urgent, events_max, held_back, due } = &*self.0;
        // Rates wait for events, not events for rates.
        let waiting = events.iter().filter(|event| !matches!(event.body, Body::Rates(_))).count();
        held_back.set(held_back.get() + waiting as u64);
        let is_urgent =
            |event: &Arc<Event>| event.body.breach().is_some_and(|breach| urgent.borrow().contains(&breach.severity));
        if waiting > 0 && held_back.get() >= events_max.get() || events.iter().any(is_urgent) {
            due.set(true);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ObserveError> {
        self.0.due.set(true);
        Ok(())
    }
}
