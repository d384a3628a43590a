//! What the tables that take rows of events have each of their own: a temporary table to copy into, and the way from there.

use postgres::{Client, Statement};

use super::copy::{COLUMNS, SAMPLE_COLUMNS};
use crate::consumer::store::rows::Table;
use crate::failpoints::unless_out;

/// Prepared once in a session.
pub(super) struct TableSql {
    /// Into `incoming`, or its like.
    pub(super) copy: String,
    /// Rows that are known to be new, without the detour.
    pub(super) copy_straight: String,
    pub(super) insert: Statement,
    pub(super) insert_returning: Statement,
    pub(super) other_times: Statement,
}

/// Empties what was copied into, before the transaction's end does it.
pub(super) const CLEAR: &str = "DELETE FROM incoming; DELETE FROM incoming_samples";

impl TableSql {
    /// Makes the temporary table, and all that uses it.
    pub(super) fn prepare(client: &mut Client, table: Table) -> Result<Self, postgres::Error> {
        let name = table.name();
        let (incoming, copied, columns, more) = match table {
            // What is in no column of `events` comes last.
            Table::Events => ("incoming", &COLUMNS[..], &COLUMNS[..COLUMNS.len() - 1], ", 0::bigint AS greatest_bytes"),
            Table::Samples => ("incoming_samples", &SAMPLE_COLUMNS[..], &SAMPLE_COLUMNS[..], ""),
        };
        let (copied, columns) = (copied.join(", "), columns.join(", "));
        client.batch_execute(&format!(
            "CREATE TEMPORARY TABLE {incoming} ON COMMIT DELETE ROWS AS SELECT {columns}{more} FROM {name} WHERE false"
        ))?;
        let insert = format!(
            "INSERT INTO {name} ({columns}, kafka_topic, stored_at)
             SELECT {columns}, $1, now() FROM {incoming} ON CONFLICT DO NOTHING"
        );
        let insert = unless_out("guard-2", "ON CONFLICT DO NOTHING", &insert);
        Ok(Self {
            copy: format!("COPY {incoming} ({copied}) FROM STDIN (FORMAT binary)"),
            copy_straight: format!("COPY {name} ({columns}, kafka_topic) FROM STDIN (FORMAT binary)"),
            insert_returning: client.prepare(&format!("{insert} RETURNING agent, epoch, seq, observed_at"))?,
            insert: client.prepare(&insert)?,
            other_times: client.prepare(&format!(
                "SELECT s.agent, s.epoch, s.seq
                 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[]) AS s (agent, epoch, seq, observed_at)
                 WHERE EXISTS (SELECT FROM {name} e WHERE e.agent = s.agent AND e.epoch = s.epoch AND e.seq = s.seq
                                                      AND e.observed_at <> s.observed_at)"
            ))?,
        })
    }
}
