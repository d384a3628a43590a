//! Bytes over limit, by agent, interface, direction and day.

use rusqlite::{Error, OptionalExtension as _, Transaction, params};

use crate::consumer::store::Applied;
use crate::consumer::store::rows::{self, Row};

/// What is not counted yet of a breach, whose row is there.
const COUNTED: &str = "
    SELECT interface, direction, substr(raised_at, 1, 10), counted_bytes FROM breach_state
    WHERE agent = ?1 AND breach_id = ?2 AND coalesce(counted_bytes, -1) < ?3";

const COUNT: &str = "UPDATE breach_state SET counted_bytes = ?3 WHERE agent = ?1 AND breach_id = ?2";

const ADD: &str = "
    INSERT INTO totals (agent, interface, direction, day, breaches, excess_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (agent, interface, direction, day) DO UPDATE
    SET breaches = totals.breaches + excluded.breaches,
        excess_bytes = CASE WHEN totals.excess_bytes > 9223372036854775807 - excluded.excess_bytes THEN 9223372036854775807
                            ELSE totals.excess_bytes + excluded.excess_bytes END";

/// What each breach of `rows` has more than was counted of it, into the sum of its day.
pub(super) fn put(transaction: &Transaction<'_>, rows: &[Row<'_>], applied: &mut Applied) -> Result<(), Error> {
    if rows::latest(rows).next().is_none() {
        return Ok(());
    }
    let mut counted = transaction.prepare(COUNTED)?;
    let mut count = transaction.prepare(COUNT)?;
    let mut add = transaction.prepare(ADD)?;
    for row in rows::latest(rows) {
        let (Some(breach), Some(bytes)) = (rows::breach(row), row.greatest_bytes) else { continue };
        let (agent, bytes) = (row.event.stamp.agent.as_str(), bytes.cast_signed());
        let found = counted
            .query_row(params![agent, breach.breach_id.as_str(), bytes], |row| {
                let (interface, direction): (String, String) = (row.get(0)?, row.get(1)?);
                let (day, before): (String, Option<i64>) = (row.get(2)?, row.get(3)?);
                Ok((interface, direction, day, before))
            })
            .optional()?;
        let Some((interface, direction, day, before)) = found else { continue };
        let added = bytes - before.unwrap_or(0);
        count.execute(params![agent, breach.breach_id.as_str(), bytes])?;
        add.execute(params![agent, interface, direction, day, i64::from(before.is_none()), added])?;
        applied.add(agent, &interface, added.unsigned_abs());
    }
    Ok(())
}
