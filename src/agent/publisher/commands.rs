use std::sync::Arc;

use crate::message::Event;

pub(super) enum WorkerCommand {
    Send(Vec<OutgoingEvent>),
    TryNow,
    /// Finds out, without events, whether there is a topic to send them to.
    LookUp,
}

pub(super) struct OutgoingEvent {
    pub(super) event: Arc<Event>,
    pub(super) json: Option<Vec<u8>>,
}

impl OutgoingEvent {
    pub(super) fn bytes(&self) -> usize {
        self.json.as_ref().map_or(0, Vec::len)
    }
}

pub(super) enum WorkerReport {
    Delivered(Vec<Acknowledgement>),
    Rejected {
        serial: usize,
        bytes: usize,
        reason: String,
    },
    /// `gave_up` is true if the producer was replaced for it.
    Problem {
        what: String,
        gave_up: bool,
    },
    /// The topic refuses every event since the last one it accepted.
    Refusing {
        what: String,
    },
    Retrying {
        cause: String,
    },
    Recovered,
    LookedUp,
}

pub(super) struct Acknowledgement {
    pub(super) serial: usize,
    pub(super) bytes: usize,
    pub(super) partition: i32,
    pub(super) offset: i64,
}
