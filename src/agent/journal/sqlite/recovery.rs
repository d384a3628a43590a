//! Reads what is readable of a damaged journal, and finds what its mark says is lost.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, ffi};

use super::super::loss::Ranges;
use super::super::mark::Mark;
use super::super::outage::Outage;
use super::super::{Identity, JournalError};
use super::codec::{EVENT, verified_breach, verified_event};
use super::corruption::damage;
use super::state::{FormerOwner, Meta};
use super::{SqliteJournal, mark_beside};
use crate::message::{Body, Epoch, Event, EventId, Loss, Reason, Stamp};
use crate::units::{ByteCount, counted};

#[derive(Debug)]
pub(crate) struct SalvagedJournal {
    pub events: Vec<Event>,
    pub breaches: Vec<Event>,
    epoch: Option<Epoch>,
    owner: Identity,
    former: Vec<FormerOwner>,
    samples: Option<EventId>,
    commits: u64,
    lost: Option<BTreeMap<Epoch, Ranges>>,
}

impl SalvagedJournal {
    /// Reads what is readable of the damaged journal and its mark. Fails only for other reasons than the damage.
    pub(crate) fn read(path: &Path, outage: Option<&Outage>) -> Result<Self, JournalError> {
        let connection = Connection::open(path)?;
        // SQLite would need a `-shm` file, for which there may be no room.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let event = |row: &Row<'_>| verified_event(row).map(|(event, _)| event);
        let mut events = readable::<i64>(&connection, &format!("SELECT {EVENT} FROM events ORDER BY position"), event)?;
        let breach = |row: &Row<'_>| verified_breach(row, 1).map(|(event, _)| event);
        let sql = "SELECT breach_id, crc, payload FROM open_breaches ORDER BY breach_id";
        let breaches = readable::<String>(&connection, sql, breach)?;
        let meta = match Meta::read(&connection) {
            Ok(meta) => meta,
            Err(JournalError::Damaged(_)) => None,
            Err(JournalError::Sqlite(error)) => unless_unreadable(error).map(|()| None)?,
            Err(error) => return Err(error),
        };
        let (owner, former) = meta.as_ref().map(|meta| (meta.owner.clone(), meta.former.clone())).unwrap_or_default();
        let samples = meta.as_ref().and_then(|meta| meta.samples);
        let epoch = meta.as_ref().map(|meta| meta.epoch).or(events.last().map(|event| event.id.epoch));
        // At equal counts, the mark with fewer events is the later one.
        let is_known = meta.is_some();
        let marks = [meta.map(|meta| meta.mark), mark_beside(path).read()];
        let mark = marks.into_iter().flatten().max_by_key(|mark| (mark.commits, Reverse(mark.pending.events())));
        events.retain(|event| !outage.is_some_and(|outage| outage.refused(event.id)));
        let commits = mark.as_ref().map_or(0, |mark| mark.commits);
        let lost = mark.map(|Mark { mut pending, .. }| {
            // The mark beside the journal may be behind.
            let reached = events.iter().filter(|_| !is_known).map(|event| event.id);
            reached.for_each(|id| pending.extend_to(id.epoch, id.seq.saturating_add(1)));
            let refused = outage.map_or(&[][..], |outage| &outage.refused);
            refused.iter().for_each(|from| pending.end_at(*from));
            let removed = outage.map_or(&[][..], |outage| &outage.removed);
            let declared = events.iter().filter_map(|event| match &event.body {
                Body::Loss(loss) => Some(loss.ranges.iter().map(|range| (loss.epoch, *range))),
                _ => None,
            });
            let known = events.iter().map(|event| event.id).chain(removed.iter().copied());
            pending.subtract(known.map(|id| (id.epoch, (id.seq, id.seq))).chain(declared.flatten()))
        });
        Ok(Self { events, breaches, epoch, owner, former, samples, commits, lost })
    }

    /// Creates a journal with the declaration of what is lost. After an error the file is incomplete.
    pub(crate) fn write(&self, path: &Path, size_max: ByteCount, why: &str, now: &Stamp) -> Result<(), JournalError> {
        let mut journal = SqliteJournal::make(path, size_max, self.commits)?;
        (journal.state.owner, journal.state.former) = (self.owner.clone(), self.former.clone());
        journal.state.samples = self.samples;
        let named = !self.owner.agent.is_empty();
        let stamp = Stamp { agent: if named { &self.owner.agent } else { &now.agent }.clone(), ..now.clone() };
        journal.restore(&self.events, &self.breaches, self.losses(why), &stamp)?;
        journal.close()
    }

    pub(crate) fn summary(&self) -> String {
        let count = |(first, last): &(u64, u64)| (last - first).saturating_add(1);
        let sum = |lost: &BTreeMap<Epoch, Ranges>| lost.values().flatten().map(count).fold(0, u64::saturating_add);
        let lost = self.lost.as_ref().map(|lost| sum(lost).to_string());
        let lost = lost.unwrap_or("an unknown number".to_owned());
        format!("{} saved, {lost} lost", counted(self.events.len() as u64, "event"))
    }

    fn losses(&self, why: &str) -> Vec<Loss> {
        let detail = format!("{why}; {}", self.summary());
        let loss = |epoch, ranges| Loss { epoch, ranges, reason: Reason::Damaged, detail: Some(detail.clone()) };
        match &self.lost {
            Some(lost) => lost.iter().map(|(epoch, ranges)| loss(*epoch, ranges.clone())).collect(),
            None => vec![loss(self.epoch.unwrap_or(Epoch(0)), Ranges::new())],
        }
    }
}

/// Reads a damaged table, keyed by its first column, from both ends: a damaged page ends a scan.
fn readable<K: FromSql + Ord>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Option<Event>,
) -> Result<Vec<Event>, JournalError> {
    let mut events = BTreeMap::new();
    for order in ["ASC", "DESC"] {
        let mut visit = || {
            let mut statement = connection.prepare(&format!("{sql} {order}"))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if let (Ok(key), Some(event)) = (row.get::<_, K>(0), read(row)) {
                    events.insert(key, event);
                }
            }
            Ok(())
        };
        match visit() {
            Ok(()) => break,
            Err(error) => unless_unreadable(error)?,
        }
    }
    Ok(events.into_values().collect())
}

/// Accepts errors of a damaged file and bad sectors, but not of a disk that fails for the moment, which must not cost any event.
fn unless_unreadable(error: rusqlite::Error) -> Result<(), JournalError> {
    const BAD_SECTOR: [i32; 4] =
        [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_CORRUPTFS, ffi::SQLITE_IOERR_DATA];
    match damage(error) {
        JournalError::Damaged(_) => Ok(()),
        JournalError::Sqlite(error)
            if error.sqlite_error().is_some_and(|error| BAD_SECTOR.contains(&error.extended_code)) =>
        {
            Ok(())
        }
        error => Err(error),
    }
}
