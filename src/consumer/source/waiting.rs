//! Messages that can't be decoded before a schema registry answers. Each keeps its own partition paused, and no other.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Message as _};

use super::TopicPartition;
use super::headers::headers;
use crate::consumer::batch::{PackedHeaders, Record};
use crate::units::lasting;
use crate::wire::{Decoder, Undecoded};

pub(super) struct PendingMessages {
    messages: BTreeMap<TopicPartition, WaitingMessage>,
    give_up: Option<Duration>,
}

struct WaitingMessage {
    offset: i64,
    timestamp_ms: Option<i64>,
    headers: PackedHeaders,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    retry_at: Duration,
}

pub(super) struct Read {
    pub(super) record: Record,
    pub(super) is_given_up: bool,
}

pub(super) struct SchemaPending {
    pub(super) why: String,
    wait: Duration,
}

impl PendingMessages {
    pub(super) fn new(give_up: Option<Duration>) -> Self {
        Self { messages: BTreeMap::new(), give_up }
    }

    pub(super) fn read(&self, message: &BorrowedMessage<'_>, decoder: &mut Decoder) -> Result<Read, SchemaPending> {
        let headers = headers(message);
        let (key, payload) = (message.key(), message.payload());
        let parts = (message.offset(), message.timestamp().to_millis());
        self.decode(parts, (key, payload, headers), decoder)
    }

    fn decode(
        &self,
        (offset, timestamp_ms): (i64, Option<i64>),
        (key, payload, headers): (Option<&[u8]>, Option<&[u8]>, PackedHeaders),
        decoder: &mut Decoder,
    ) -> Result<Read, SchemaPending> {
        let mut is_given_up = false;
        let decoded = match decoder.decode(payload.unwrap_or_default(), || headers.get("content-type")) {
            Ok(decoded) => Ok(decoded),
            Err(Undecoded::Permanent(error)) => Err(error.to_string()),
            Err(Undecoded::Transient { why, wait, lasted }) => match self.give_up {
                Some(give_up) if lasted >= give_up => {
                    is_given_up = true;
                    Err(given_up(&why, lasted))
                }
                _ => return Err(SchemaPending { why, wait }),
            },
        };
        Ok(Read { record: Record::decoded(offset, timestamp_ms, (key, payload, headers), decoded), is_given_up })
    }

    pub(super) fn keep(
        &mut self,
        at: TopicPartition,
        message: &BorrowedMessage<'_>,
        pending: &SchemaPending,
        now: Duration,
    ) {
        let kept = WaitingMessage {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            headers: headers(message),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            retry_at: now + pending.wait,
        };
        self.messages.insert(at, kept);
    }

    pub(super) fn retry(
        &mut self,
        decoder: &mut Decoder,
        now: Duration,
        held: impl Fn(TopicPartition) -> bool,
    ) -> Option<(TopicPartition, Result<Read, SchemaPending>)> {
        let (&at, message) = self.messages.iter().find(|(at, message)| message.retry_at <= now && !held(**at))?;
        let parts = (message.key.as_deref(), message.payload.as_deref(), message.headers.clone());
        match self.decode((message.offset, message.timestamp_ms), parts, decoder) {
            Ok(read) => {
                self.messages.remove(&at);
                Some((at, Ok(read)))
            }
            Err(pending) => {
                self.messages.get_mut(&at)?.retry_at = now + pending.wait;
                Some((at, Err(pending)))
            }
        }
    }

    pub(super) fn contains(&self, at: TopicPartition) -> bool {
        self.messages.contains_key(&at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
    }
}

fn given_up(why: &str, lasted: Duration) -> String {
    let lasted = lasting(lasted);
    format!("no schema for {lasted}: {why}; once there is one, run `highwater-consumer dead-letters retry`")
}
