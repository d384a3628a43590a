//! What a damaged journal still has, and the journal that is made of it.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row};

use super::super::JournalError;
use super::super::loss::{by_epoch, declare};
use super::super::mark::Mark;
use super::rows::{EVENT, whole, whole_event};
use super::state::Meta;
use super::{SqliteJournal, mark_beside};
use crate::event::{Epoch, Event, EventId, Loss, Stamp};
use crate::units::ByteCount;

/// What was read of a damaged journal.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// In order.
    pub events: Vec<Event>,
    /// The last event of each breach that was open.
    pub breaches: Vec<Event>,
    /// In which epoch it counted, if that can be read.
    epoch: Option<Epoch>,
    /// So many transactions it had seen.
    commits: u64,
    /// What was pending and is not among the events; nothing where nobody knows.
    lost: Option<Vec<EventId>>,
}

impl Saved {
    /// What can still be read of the damaged journal at `path`, and of the mark beside it.
    pub(crate) fn read(path: &Path) -> Self {
        let mut saved = Self::default();
        let mark = mark_beside(path).read();
        saved.commits = mark.as_ref().map_or(0, |mark| mark.commits);
        let mut meta = None;
        if let Ok(connection) = Connection::open(path) {
            let event = |row: &Row<'_>| whole_event(row).map(|(event, _)| event);
            saved.events =
                readable::<i64>(&connection, &format!("SELECT {EVENT} FROM events ORDER BY position"), event);
            let breach = |row: &Row<'_>| whole(row, 1).map(|(event, _)| event);
            let sql = "SELECT breach_id, crc, payload FROM open_breaches ORDER BY breach_id";
            saved.breaches = readable::<String>(&connection, sql, breach);
            meta = Meta::read(&connection).ok().flatten();
        }
        saved.epoch = meta.as_ref().map(|meta| meta.epoch).or(saved.events.last().map(|event| event.id.epoch));
        saved.lost = mark.map(|Mark { mut pending, .. }| {
            // The mark may be behind.
            if let Some(Meta { epoch, next_seq, .. }) = meta {
                pending.reach(epoch, next_seq);
            }
            pending.without(saved.events.iter().map(|event| event.id))
        });
        saved.commits = saved.commits.max(meta.map_or(0, |meta| meta.commits));
        saved
    }

    /// Makes a journal of it at `path`, to be put into its place, with the declaration of what is lost.
    ///
    /// # Errors
    /// What stands at `path` is no whole journal.
    pub(crate) fn write<'a>(
        &'a self,
        path: &Path,
        (size_max, machine_id): (ByteCount, &str),
        breaches: impl IntoIterator<Item = &'a Event>,
        why: &str,
        stamp: &Stamp,
    ) -> Result<(), JournalError> {
        let mut journal = SqliteJournal::make(path, size_max, machine_id, self.commits)?;
        journal.take_over(&self.events, breaches, self.losses(why), stamp)?;
        journal.close()
    }

    /// In a few words, for the log.
    pub(crate) fn summary(&self) -> String {
        let lost = self.lost.as_ref().map_or("nobody knows how many".to_owned(), |lost| lost.len().to_string());
        format!("{} events were saved, {lost} are lost", self.events.len())
    }

    fn losses(&self, why: &str) -> Vec<Loss> {
        let reason = format!("journal damaged: {why}; {}", self.summary());
        match &self.lost {
            Some(lost) => by_epoch(lost).iter().map(|(epoch, ids)| declare(*epoch, ids, &reason)).collect(),
            None => vec![declare(self.epoch.unwrap_or(Epoch(0)), &[], &reason)],
        }
    }
}

/// The events of a damaged table, by their key, which is the first column. A damaged page ends a reading: it is come from both
/// sides.
fn readable<K: FromSql + Ord>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Option<Event>,
) -> Vec<Event> {
    let mut events = BTreeMap::new();
    for order in ["ASC", "DESC"] {
        let Ok(mut statement) = connection.prepare(&format!("{sql} {order}")) else { continue };
        let Ok(mut rows) = statement.query([]) else { continue };
        while let Ok(Some(row)) = rows.next() {
            if let (Ok(key), Some(event)) = (row.get::<_, K>(0), read(row)) {
                events.insert(key, event);
            }
        }
    }
    events.into_values().collect()
}
