//! Dead letters become rows.

use std::collections::HashSet;

use postgres::Transaction;

use super::apply::Stop;
use super::refused::{pick, probe};
use super::session::Session;
use crate::consumer::letters::Fate;
use crate::consumer::store::rows::Row;
use crate::consumer::store::{Applied, Returning, Revived};

/// Letters that are still there, locked until the transaction ends: of two that try at once, one finds none.
const LOCK: &str = "
    SELECT d.partition, d.generation, d.\"offset\" FROM dead_letters d
    JOIN unnest($2::integer[], $3::integer[], $4::bigint[]) AS l (partition, generation, \"offset\")
         ON d.partition = l.partition AND d.generation = l.generation AND d.\"offset\" = l.\"offset\"
    WHERE d.topic = $1 ORDER BY d.partition, d.generation, d.\"offset\" FOR UPDATE OF d";

const REMOVE: &str = "
    DELETE FROM dead_letters d
    USING unnest($2::integer[], $3::integer[], $4::bigint[]) AS l (partition, generation, \"offset\")
    WHERE d.topic = $1 AND d.partition = l.partition AND d.generation = l.generation AND d.\"offset\" = l.\"offset\"";

/// Stores what of `letters` the database takes, and removes those. `rows` are the events among them.
pub(super) fn attempt(
    session: &mut Session,
    topic: &str,
    letters: &[Returning],
    rows: &[Row<'_>],
) -> Result<Revived, Stop> {
    let Session { client, sql } = session;
    let mut transaction = client.transaction()?;
    let all: Vec<&Returning> = letters.iter().collect();
    let (partitions, generations, offsets) = places(&all);
    let there = transaction.query(LOCK, &[&topic, &partitions, &generations, &offsets])?;
    let there: HashSet<(i32, i32, i64)> = there.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let is_there = |letter: &Returning| there.contains(&(letter.partition, letter.generation, letter.record.offset));
    let mut fates: Vec<Fate> = letters
        .iter()
        .map(|letter| match &letter.record.content {
            _ if !is_there(letter) => Fate::Gone,
            Ok(_) => Fate::Returned,
            Err(error) => Fate::Stays(error.clone()),
        })
        .collect();
    let index = |row: &Row<'_>| letters.iter().position(|letter| std::ptr::eq(&letter.record, row.record));
    let mut rows: Vec<Row<'_>> =
        rows.iter().copied().filter(|row| index(row).is_some_and(|at| fates[at] == Fate::Returned)).collect();
    let mut applied = Applied::default();
    let refused = pick(&mut transaction, sql, topic, &mut rows, &mut applied)?;
    if refused.len() == rows.len() {
        probe(&mut transaction, sql, topic, &rows)?;
    }
    for letter in refused {
        let at = letters.iter().position(|returning| std::ptr::eq(&returning.record, letter.record));
        if let Some(at) = at {
            fates[at] = Fate::Stays(letter.error);
        }
    }
    remove(&mut transaction, topic, letters, &fates)?;
    transaction.commit()?;
    Ok(Revived { fates, inserted: applied.inserted })
}

fn remove(
    transaction: &mut Transaction<'_>,
    topic: &str,
    letters: &[Returning],
    fates: &[Fate],
) -> Result<(), postgres::Error> {
    let returned: Vec<&Returning> =
        letters.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Returned).map(|(letter, _)| letter).collect();
    let (partitions, generations, offsets) = places(&returned);
    transaction.execute(REMOVE, &[&topic, &partitions, &generations, &offsets]).map(drop)
}

fn places(letters: &[&Returning]) -> (Vec<i32>, Vec<i32>, Vec<i64>) {
    let partitions = letters.iter().map(|letter| letter.partition).collect();
    let generations = letters.iter().map(|letter| letter.generation).collect();
    (partitions, generations, letters.iter().map(|letter| letter.record.offset).collect())
}
