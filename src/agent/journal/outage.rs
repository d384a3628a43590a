//! A time during which the disk cannot be written, and the events to reconcile afterwards.

use crate::message::EventId;

#[derive(Debug, Default)]
pub(super) struct Outage {
    /// First number of each epoch that the disk refused, even if it was written; empty if the disk was never open.
    pub(super) refused: Vec<EventId>,
    pub(super) removed: Vec<EventId>,
    pub(super) retry_at_ms: u64,
}

impl Outage {
    pub(super) fn refused(&self, id: EventId) -> bool {
        self.refused.iter().any(|from| from.epoch == id.epoch && from.seq <= id.seq)
    }
}
