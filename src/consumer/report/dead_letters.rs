//! Dead letters: messages that could not become rows, kept as they came.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::batch::{Headers, Record, TopicId};
use super::store::{Kind, Query, Reader, RetriedRecord, RetryOutcome, Store, StoreError};
use crate::clock::Clock;
use crate::event::{Epoch, EventId};
use crate::output::Value;
use crate::wire::{Decoder, Undecoded};

/// A message that could not become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it stood in Kafka.
    pub at: KafkaPosition,
    /// When it was put aside.
    pub stored_at: Option<DateTime<Utc>>,
    /// Why.
    pub error: String,
    /// How long its payload is, in bytes; `None` is a tombstone.
    pub length: Option<i64>,
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// As it came, as far as it was asked for.
    pub payload: Option<Vec<u8>>,
}

/// How much of the payloads is wanted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    /// So much of each.
    Begin(i64),
    /// Those that are not longer than this; nothing of the others.
    UpTo(i64),
}

/// A message's place in Kafka; the order in which letters are read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KafkaPosition {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// How often the topic had been made anew.
    pub generation: i32,
    /// Its offset.
    pub offset: i64,
}

/// Which letters are meant: all, but for what is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this topic.
    pub topic: Option<String>,
    /// Of this partition.
    pub partition: Option<i32>,
    /// From this offset …
    pub first: Option<i64>,
    /// … to this one.
    pub last: Option<i64>,
}

/// So many letters are in memory at once, and go back in one transaction.
const PAGE: i64 = 100;

const KINDS: &[Kind] = &[
    Kind::Text,
    Kind::Number,
    Kind::Number,
    Kind::Number,
    Kind::Time,
    Kind::Text,
    Kind::Number,
    Kind::Blob,
    Kind::Blob,
];

/// Calls `each` with the letters in the order of their places.
///
/// # Errors
/// The store's, or what `each` ends it with.
pub fn read<E: From<StoreError>>(
    reader: &mut dyn Reader,
    filter: &Filter,
    payloads: Payloads,
    mut each: impl FnMut(Letter) -> Result<(), E>,
) -> Result<(), E> {
    let mut after = None;
    loop {
        let letters = page(reader, filter, payloads, after.as_ref())?;
        let Some(last) = letters.last() else { return Ok(()) };
        after = Some(last.at.clone());
        letters.into_iter().try_for_each(&mut each)?;
    }
}

/// Decodes letters once more and stores what is an event now, each in the transaction that removes its letter; calls `each` with
/// what became of each of them. A consumer may run meanwhile, and another retry too. How many rows there are more: an event that
/// its agent sent twice may be stored already.
///
/// # Errors
/// The store's, or what `each` ends it with; what was told by then has happened.
pub fn retry<E: From<StoreError>>(
    store: &mut dyn Store,
    reader: &mut dyn Reader,
    filter: &Filter,
    (decoder, clock): (&mut Decoder, &dyn Clock),
    mut each: impl FnMut(&KafkaPosition, &RetryOutcome) -> Result<(), E>,
) -> Result<u64, E> {
    let (mut after, mut inserted) = (None, 0);
    loop {
        let letters = page(reader, filter, Payloads::UpTo(i64::MAX), after.as_ref())?;
        let Some(last) = letters.last() else { return Ok(inserted) };
        after = Some(last.at.clone());
        for of_a_topic in letters.chunk_by(|a, b| a.at.topic == b.at.topic) {
            let returning: Result<Vec<_>, StoreError> =
                of_a_topic.iter().map(|letter| letter.returning(decoder)).collect();
            let returning = returning?;
            let revived = store.retry(
                &TopicId { cluster: String::new(), name: of_a_topic[0].at.topic.clone() },
                &returning,
                clock.wall(),
            )?;
            inserted += revived.inserted;
            for (letter, fate) in of_a_topic.iter().zip(&revived.outcomes) {
                each(&letter.at, fate)?;
            }
        }
    }
}

fn page(
    reader: &mut dyn Reader,
    filter: &Filter,
    payloads: Payloads,
    after: Option<&KafkaPosition>,
) -> Result<Vec<Letter>, StoreError> {
    Ok(reader.ask(&query(filter, payloads, after))?.into_iter().map(Letter::from_row).collect())
}

fn query(filter: &Filter, payloads: Payloads, after: Option<&KafkaPosition>) -> Query {
    let columns =
        "SELECT topic, partition, generation, \"offset\", stored_at, error, CAST(length(payload) AS bigint), key,";
    let query = match payloads {
        Payloads::Begin(bytes) => {
            Query::new(columns, KINDS).with("substr(payload, 1, CAST(CAST(? AS bigint) AS integer))", bytes)
        }
        Payloads::UpTo(bytes) => {
            Query::new(columns, KINDS).with("CASE WHEN length(payload) <= CAST(? AS bigint) THEN payload END", bytes)
        }
    };
    let query = query
        .then("FROM dead_letters WHERE true")
        .with_any("AND topic = ?", filter.topic.as_deref())
        .with_any("AND partition = CAST(? AS bigint)", filter.partition)
        .with_any("AND \"offset\" >= ?", filter.first)
        .with_any("AND \"offset\" <= ?", filter.last);
    let query = match after {
        None => query,
        Some(KafkaPosition { topic, partition, generation, offset }) => query
            .with("AND (topic, partition, generation, \"offset\") > (?,", topic.as_str())
            .with("CAST(? AS bigint),", *partition)
            .with("CAST(? AS bigint),", *generation)
            .with("?)", *offset),
    };
    query.with("ORDER BY topic, partition, generation, \"offset\" LIMIT CAST(? AS bigint)", PAGE)
}

impl Letter {
    fn from_row(row: Vec<Value>) -> Self {
        let mut row = row.into_iter();
        let mut next = || row.next().unwrap_or(Value::Nothing);
        let at = KafkaPosition {
            topic: next().into_text().unwrap_or_default(),
            partition: next().into_number().unwrap_or_default(),
            generation: next().into_number().unwrap_or_default(),
            offset: next().into_number().unwrap_or_default(),
        };
        Self {
            at,
            stored_at: next().into_time(),
            error: next().into_text().unwrap_or_default(),
            length: next().into_number(),
            key: next().into_blob(),
            payload: next().into_blob(),
        }
    }

    fn returning(&self, decoder: &mut Decoder) -> Result<RetriedRecord, StoreError> {
        let decoded = match decoder.decode(self.payload.as_deref().unwrap_or_default(), None) {
            Ok(decoded) => Ok(decoded),
            Err(Undecoded::Never(error)) => Err(error.to_string()),
            Err(Undecoded::NotNow { why, .. }) => return Err(StoreError::Unavailable(why)),
        };
        let (key, payload) = (self.key.as_deref(), self.payload.as_deref());
        Ok(RetriedRecord {
            partition: self.at.partition,
            generation: self.at.generation,
            record: Record::decoded(self.at.offset, None, (key, payload, Headers::default()), decoded),
        })
    }

    /// Which event it is, where it says so: an event that only the database refused, or JSON of which enough can be read.
    pub fn identity(&self) -> Option<(String, EventId)> {
        /// The least of an event.
        #[derive(Deserialize)]
        struct Identity {
            agent: String,
            epoch: String,
            seq: u64,
        }
        let payload = self.payload.as_deref()?;
        if let Ok(event) = Record::new(0, None, None, Some(payload)).content {
            return Some((event.stamp.agent.into(), event.id));
        }
        let Identity { agent, epoch, seq } = serde_json::from_slice(payload).ok()?;
        Some((agent, EventId { epoch: epoch.parse::<Epoch>().ok()?, seq }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &str) -> Letter {
        let at = KafkaPosition { topic: "t".into(), partition: 0, generation: 0, offset: 0 };
        let payload = Some(payload.as_bytes().to_vec());
        Letter { at, stored_at: None, error: String::new(), length: None, key: None, payload }
    }

    #[test]
    fn a_letter_names_its_event_where_enough_of_it_can_be_read() {
        let text = r#"{"agent":"gw","epoch":"00000000000000ff","seq":7,"limit_bps":18446744073709551615}"#;
        assert_eq!(letter(text).identity(), Some(("gw".into(), EventId { epoch: Epoch(255), seq: 7 })));
        assert_eq!(letter(&text.replace("7,", "-7,")).identity(), None);
        assert_eq!(letter(&text.replace("ff", "xx")).identity(), None);
        assert_eq!(letter("garbage").identity(), None);
    }
}
