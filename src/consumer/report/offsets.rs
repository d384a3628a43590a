use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::cli::output::Value;
use crate::consumer::batch::TopicId;
use crate::consumer::store::ColumnType::{Number, Text, Time};
use crate::consumer::store::{ColumnType, Query, Reader, StoreError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOffset {
    pub next: i64,
    pub generation: i32,
    pub updated_at: Option<DateTime<Utc>>,
}

const SQL: &str =
    "SELECT kafka_cluster, kafka_topic, kafka_partition, next_offset, topic_generation, updated_at FROM kafka_offsets";
const TYPES: &[ColumnType] = &[Text, Text, Number, Number, Number, Time];

pub fn read(reader: &mut dyn Reader) -> Result<BTreeMap<(TopicId, i32), StoredOffset>, StoreError> {
    let rows = reader.ask(&Query::new(SQL, TYPES))?;
    let stored = |row: Vec<Value>| {
        let mut row = row.into_iter();
        let topic = TopicId { cluster: row.next()?.into_text()?, name: row.next()?.into_text()? };
        let key = (topic, row.next()?.into_number()?);
        let (next, generation) = (row.next()?.into_number()?, row.next()?.into_number()?);
        Some((key, StoredOffset { next, generation, updated_at: row.next()?.into_time() }))
    };
    Ok(rows.into_iter().filter_map(stored).collect())
}
