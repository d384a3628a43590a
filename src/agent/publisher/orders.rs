//! What the tick's thread and the worker say to each other.

use std::sync::Arc;

use crate::event::Event;

/// What the worker is told.
pub(super) enum Order {
    /// Deliver these, in this order, after all before them.
    Send(Vec<Outgoing>),
    /// Do not wait any longer.
    TryNow,
}

/// An event on its way.
pub(super) struct Outgoing {
    pub(super) event: Arc<Event>,
    /// As the journal has it, if it does.
    pub(super) json: Option<Vec<u8>>,
}

impl Outgoing {
    /// Of the JSON that is kept until it is delivered.
    pub(super) fn bytes(&self) -> usize {
        self.json.as_ref().map_or(0, Vec::len)
    }
}

/// What the worker tells.
pub(super) enum Report {
    /// Kafka has these.
    Delivered(Vec<Receipt>),
    /// Kafka will never have it.
    Rejected { serial: usize, bytes: usize, reason: String },
    /// Something keeps events from Kafka; whether the producer was given up for it.
    Trouble { what: String, gave_up: bool },
    /// The topic refuses every event that it was given since the last that it took, if it took any.
    Refusing { what: String },
    /// librdkafka goes on trying by itself, for this reason.
    Retrying { cause: String },
    /// Events get to Kafka again.
    Recovered,
}

/// Where Kafka has an event.
pub(super) struct Receipt {
    /// The place in which it was ordered, from 0.
    pub(super) serial: usize,
    /// See [`Outgoing::bytes`].
    pub(super) bytes: usize,
    pub(super) partition: i32,
    pub(super) offset: i64,
}
