//! Dead letters: messages that could not become rows, kept as they came.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::batch::Record;
use super::store::{Fault, Kind, Query, Reader};
use crate::event::{Epoch, EventId};
use crate::output::Value;

/// A message that could not become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it stood in Kafka.
    pub at: Place,
    /// When it was put aside.
    pub stored_at: Option<DateTime<Utc>>,
    /// Why.
    pub error: String,
    /// How long its payload is, in bytes; `None` is a tombstone.
    pub length: Option<i64>,
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// As it came, unless it was too long to be asked for.
    pub payload: Option<Vec<u8>>,
}

/// A message's place in Kafka; the order in which letters are read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
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

/// So many letters are in memory at once …
const PAGE: i64 = 200;

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

/// Calls `each` with the letters in the order of their places, a page at a time. Payloads over `bytes_max` are left out.
///
/// # Errors
/// The store's, or what `each` ends it with.
pub fn read<E: From<Fault>>(
    reader: &mut dyn Reader,
    filter: &Filter,
    bytes_max: i64,
    mut each: impl FnMut(Letter) -> Result<(), E>,
) -> Result<(), E> {
    let mut after: Option<Place> = None;
    loop {
        let rows = reader.ask(&page(filter, bytes_max, after.as_ref()))?;
        let full = rows.len() as i64 == PAGE;
        for letter in rows.into_iter().map(Letter::from_row) {
            after = Some(letter.at.clone());
            each(letter)?;
        }
        if !full {
            return Ok(());
        }
    }
}

fn page(filter: &Filter, bytes_max: i64, after: Option<&Place>) -> Query {
    let columns =
        "SELECT topic, partition, generation, \"offset\", stored_at, error, CAST(length(payload) AS bigint), key,";
    let query = Query::new(columns, KINDS)
        .with("CASE WHEN length(payload) <= CAST(? AS bigint) THEN payload END FROM dead_letters WHERE true", bytes_max)
        .with_any("AND topic = ?", filter.topic.as_deref())
        .with_any("AND partition = CAST(? AS bigint)", filter.partition)
        .with_any("AND \"offset\" >= ?", filter.first)
        .with_any("AND \"offset\" <= ?", filter.last);
    let query = match after {
        None => query,
        Some(Place { topic, partition, generation, offset }) => query
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
        let at = Place {
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
            return Some((event.stamp.agent, event.id));
        }
        let Identity { agent, epoch, seq } = serde_json::from_slice(payload).ok()?;
        Some((agent, EventId { epoch: epoch.parse::<Epoch>().ok()?, seq }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &str) -> Letter {
        let at = Place { topic: "t".into(), partition: 0, generation: 0, offset: 0 };
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
