//! Rows of recorded series.

use rusqlite::{Error, Statement, params};

use super::text;
use crate::consumer::store::rows::Row;
use crate::event::{Event, Reason, Sample};

pub(super) const INSERT: &str = "
    INSERT INTO samples (agent, epoch, seq, observed_at, stored_at, kafka_topic, kafka_partition, kafka_offset, interface,
        duration_ms, rx_bytes, tx_bytes, rx_bps, tx_bps, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
    ON CONFLICT (agent, epoch, seq, observed_at) DO NOTHING";

/// Whether the row, which is of `sample`, was not there before.
pub(super) fn insert(
    statement: &mut Statement<'_>,
    topic: &str,
    row: &Row<'_>,
    sample: &Sample,
    now: &str,
) -> Result<bool, Error> {
    let Event { id, stamp, .. } = row.event;
    let changed = statement.execute(params![
        stamp.agent.as_str(),
        id.epoch.to_string(),
        id.seq.cast_signed(),
        text(stamp.observed_at),
        now,
        topic,
        row.partition,
        row.record.offset,
        sample.interface,
        sample.duration_ms.map(u64::cast_signed),
        sample.rx_bytes.map(u64::cast_signed),
        sample.tx_bytes.map(u64::cast_signed),
        sample.rx_bps.map(u64::cast_signed),
        sample.tx_bps.map(u64::cast_signed),
        sample.reason.as_ref().map(Reason::as_str),
    ])?;
    Ok(changed > 0)
}
