//! Dead letters become rows.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, TransactionBehavior, params};

use super::apply::write;
use super::text;
use crate::consumer::letters::Fate;
use crate::consumer::store::rows;
use crate::consumer::store::{Applied, Fault, Returning, Revived};

/// Stores what of `letters` SQLite takes, and removes those.
pub(super) fn revive(
    connection: &mut Connection,
    topic: &str,
    letters: &[Returning],
    now: DateTime<Utc>,
) -> Result<Revived, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut fates = Vec::with_capacity(letters.len());
    {
        let mut there = transaction.prepare(
            "SELECT EXISTS (SELECT 1 FROM dead_letters
                            WHERE topic = ?1 AND partition = ?2 AND generation = ?3 AND \"offset\" = ?4)",
        )?;
        for Returning { partition, generation, record } in letters {
            let there: bool =
                there.query_row(params![topic, partition, generation, record.offset], |row| row.get(0))?;
            fates.push(match &record.content {
                _ if !there => Fate::Gone,
                Ok(_) => Fate::Returned,
                Err(error) => Fate::Stays(error.clone()),
            });
        }
    }
    let index = |record: &_| letters.iter().position(|letter| std::ptr::eq(&letter.record, record));
    let mut rows = rows::returning(letters);
    rows.retain(|row| index(row.record).is_some_and(|at| fates[at] == Fate::Returned));
    let (mut refused, mut applied) = (Vec::new(), Applied::default());
    write(&transaction, topic, &mut rows, &mut refused, &mut applied, &text(now))?;
    for letter in refused {
        if let Some(at) = index(letter.record) {
            fates[at] = Fate::Stays(letter.error);
        }
    }
    {
        let mut remove = transaction.prepare(
            "DELETE FROM dead_letters WHERE topic = ?1 AND partition = ?2 AND generation = ?3 AND \"offset\" = ?4",
        )?;
        for (letter, _) in letters.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Returned) {
            remove.execute(params![topic, letter.partition, letter.generation, letter.record.offset])?;
        }
    }
    transaction.commit()?;
    Ok(Revived { fates, inserted: applied.inserted })
}
