//! The durable journal: a SQLite database with one exclusive connection. It is written only for new events and acknowledgements.

mod codec;
mod corruption;
mod database;
mod recovery;
mod rows;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use rusqlite::{Connection, Transaction, params};

#[cfg(test)]
pub(super) use self::codec::event_crc;
use self::codec::{EVENT, signed, unsigned, verified_event};
use self::corruption::{damage, damaged};
use self::database::{PAGE_BYTES, WAL_PAGES, check, configure, refuse_newer, synchronous};
pub(super) use self::recovery::SalvagedJournal;
use self::rows::{
    JournalTransaction, losses, open_breaches, open_window, page_count, read, read_at, rewrite, save_window,
    update_open_breaches, used_pages,
};
use self::state::{Meta, State, write_meta};
use super::files::{prepare_database, with_suffix};
use super::loss::{LossCounts, Ranges, subtract};
use super::mark::MarkFile;
use super::{EvictionPriority, Identity, Journal, JournalError, JournalSeries, Pending, Position, QueuedEvent};
use crate::message::age::Age;
use crate::message::{Body, Epoch, Event, EventId, Loss, NewEvent, Reason, Stamp};
use crate::process::failpoints;
use crate::units::{ByteCount, counted};

const IMPORTED_AT_ONCE: usize = 256;

#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    pages_max: i64,
    state: State,
    /// `None` in memory, and until the file has its final name.
    mark: Option<MarkFile>,
    is_in_memory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Kept,
    Renamed { interrupted: usize },
    OtherMachine { forgotten: usize },
}

impl SqliteJournal {
    /// Fails with `Damaged` where the file is corrupt or lacks registered events, with `Newer` where a newer agent made it.
    pub fn open(path: &Path, size_max: ByteCount) -> Result<Self, JournalError> {
        prepare_database(path)?;
        let connection = Connection::open(path).map_err(damage)?;
        refuse_newer(&connection, path)?;
        let file = mark_beside(path);
        let mark = file.read().unwrap_or_default();
        configure(&connection).map_err(damage)?;
        check(&connection)?;
        if mark.commits > 0 && Meta::read(&connection)?.is_none() {
            return Err(JournalError::Damaged("it is empty".to_owned()));
        }
        let state = State::load(&connection, 0)?;
        let lost = mark.commits.saturating_sub(state.commits);
        if lost > 0 {
            return Err(JournalError::Damaged(format!("its end is missing: {}", counted(lost, "transaction"))));
        }
        let mut journal = Self { mark: Some(file), ..Self::of(connection, state, size_max) };
        journal.write_mark();
        Ok(journal)
    }

    pub fn in_memory(size_max: ByteCount) -> Result<Self, JournalError> {
        let connection = Connection::open_in_memory()?;
        check(&connection)?;
        let state = State::load(&connection, 0)?;
        Ok(Self { is_in_memory: true, ..Self::of(connection, state, size_max) })
    }

    /// Creates a journal, to be renamed later, whose count of transactions continues after `commits`.
    fn make(path: &Path, size_max: ByteCount, commits: u64) -> Result<Self, JournalError> {
        prepare_database(path)?;
        let connection = Connection::open(path)?;
        configure(&connection)?;
        check(&connection)?;
        let state = State::load(&connection, commits)?;
        Ok(Self::of(connection, state, size_max))
    }

    fn of(connection: Connection, state: State, size_max: ByteCount) -> Self {
        Self { connection, pages_max: pages_max(size_max), state, mark: None, is_in_memory: false }
    }

    pub fn next_id(&self) -> EventId {
        EventId { epoch: self.state.epoch, seq: self.state.next_seq }
    }

    pub(super) fn owns(&self, epoch: Epoch) -> bool {
        self.state.owns(epoch)
    }

    pub(super) fn next_ids(&self) -> Vec<EventId> {
        self.state.next_ids()
    }

    pub(super) fn owner(&self) -> &Identity {
        &self.state.owner
    }

    /// Begins a new epoch for a new name, after ending the breaches open under the old one; also on a new machine, but there the
    /// open breaches are dropped, since the original machine may still run.
    pub(super) fn claim(&mut self, identity: &Identity, now: &Stamp) -> Result<Claim, JournalError> {
        let owner = &self.state.owner;
        if owner == identity {
            return Ok(Claim::Kept);
        }
        let is_new = *owner == Identity::default();
        let is_elsewhere = owner.machine_id != identity.machine_id;
        self.transaction(|change| {
            if is_new {
                change.state.owner = identity.clone();
                return Ok(Claim::Kept);
            }
            let claim = if is_elsewhere {
                change.state.samples = None;
                Claim::OtherMachine { forgotten: change.transaction.execute("DELETE FROM open_breaches", [])? }
            } else {
                let interrupted = change.interrupt_breaches(now)?;
                change.interrupt_samples(now)?;
                change.evict(now)?;
                Claim::Renamed { interrupted }
            };
            // A window measured under another name, or elsewhere, is not continued.
            change.transaction.execute("DELETE FROM open_window", [])?;
            change.state.begin_epoch(identity);
            Ok(claim)
        })
    }

    pub(super) fn interrupt_breaches(&mut self, now: &Stamp) -> Result<(), JournalError> {
        if open_breaches(&self.connection)?.is_empty() {
            return Ok(());
        }
        self.transaction(|change| change.interrupt_breaches(now).map(drop))
    }

    /// Declares that the end of an earlier run's samples may be missing, and returns true, unless that run ended them itself.
    pub(super) fn interrupt_samples(&mut self, now: &Stamp) -> Result<bool, JournalError> {
        if self.state.samples.is_none() {
            return Ok(false);
        }
        self.transaction(|change| {
            change.interrupt_samples(now)?;
            change.evict(now)?;
            Ok(true)
        })
    }

    pub(super) fn take_over_samples(&mut self, other: &Self) {
        self.state.samples = other.state.samples;
    }

    /// Deletes the refused events, from these numbers on, that may have reached the disk, and reuses its own numbers. What a
    /// deleted `loss` declared is declared again, except `removed` events, whose fate is known.
    pub(super) fn roll_back_from(&mut self, refused: &[EventId], removed: &[EventId]) -> Result<(), JournalError> {
        self.transaction(|change| {
            let mut again = Vec::new();
            for (position, event, loss) in losses(&change.transaction)? {
                let known = from_on(refused, loss.epoch);
                let ranges = subtract(&loss.ranges, known);
                if refused.iter().any(|from| from.epoch == event.id.epoch && from.seq <= event.id.seq) {
                    let removed = removed.iter().filter(|id| id.epoch == loss.epoch).map(|id| (id.seq, id.seq));
                    again.push((event.stamp, Loss { ranges: subtract(&ranges, removed), ..loss }));
                } else if ranges != loss.ranges {
                    let trimmed = Event { body: Body::Loss(Loss { ranges, ..loss }), ..event };
                    rewrite(&change.transaction, &mut change.state.pending, position, &trimmed)?;
                }
            }
            for from in refused {
                let sql = "DELETE FROM events WHERE epoch = ? AND seq >= ?";
                change.transaction.execute(sql, params![signed(from.epoch), from.seq.cast_signed()])?;
                change.state.rewind_next_seq(*from);
            }
            change.state.scan(&change.transaction)?;
            for (stamp, loss) in again.into_iter().filter(|(_, loss)| !loss.ranges.is_empty()) {
                change.declare_loss(loss, &stamp)?;
            }
            change.seal()
        })
    }

    pub(super) fn import<'a>(
        &mut self,
        memory: &Self,
        breaches: impl IntoIterator<Item = &'a Event>,
        now: &Stamp,
    ) -> Result<(), JournalError> {
        self.transaction(|change| {
            for series in JournalSeries::ALL {
                let mut after = series.start();
                loop {
                    let events = read(&memory.connection, after, IMPORTED_AT_ONCE, usize::MAX)?;
                    let Some(last) = events.last() else { break };
                    after = last.position;
                    events.iter().try_for_each(|stored| change.import(&stored.event))?;
                    change.evict(now)?;
                }
            }
            replace_breaches(&change.transaction, breaches)?;
            change.state.samples = memory.state.samples;
            change.seal()
        })
    }

    pub(super) fn restore<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a Event>,
        breaches: impl IntoIterator<Item = &'a Event>,
        lost: Vec<Loss>,
        now: &Stamp,
    ) -> Result<(), JournalError> {
        self.transaction(|change| {
            for (nth, event) in events.into_iter().enumerate() {
                change.import(event)?;
                if nth % IMPORTED_AT_ONCE == 0 {
                    change.evict(now)?;
                }
            }
            replace_breaches(&change.transaction, breaches)?;
            for loss in lost {
                change.declare_loss(loss, now)?;
                change.seal()?;
            }
            change.evict(now)?;
            change.seal()
        })
    }

    pub(super) fn announce_losses(&mut self) -> Result<(), JournalError> {
        for (position, event, loss) in losses(&self.connection)? {
            if event.id.epoch == self.state.epoch || loss.reason == Reason::Damaged {
                self.state.lost.add(&loss, loss.count());
                self.state.own.push(position);
            }
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, size_max: ByteCount, now: &Stamp) -> Result<(), JournalError> {
        self.pages_max = pages_max(size_max);
        if used_pages(&self.connection)? > self.pages_max {
            self.transaction(|change| change.evict(now))?;
        }
        // A file does not shrink by itself; its free pages are reused, but now there are too many.
        if !self.is_in_memory && page_count(&self.connection)? > self.pages_max + WAL_PAGES {
            let shrunk = self.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
            if let Err(error) = shrunk {
                warn!("the journal's file stays larger than journal.max_size for now: {error}");
            }
        }
        Ok(())
    }

    pub fn close(self) -> Result<(), JournalError> {
        let busy: i64 = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy != 0 {
            return Err(JournalError::Damaged("its log cannot be copied back".to_owned()));
        }
        self.connection.close().map_err(|(_, error)| error.into())
    }

    pub(super) fn expire(&mut self, age_max: Duration, now: &Stamp) -> Result<(), JournalError> {
        let old = self.older_than(age_max, now)?;
        if old.is_empty() {
            return Ok(());
        }
        self.transaction(|change| {
            let ids = old.iter().map(|position| change.delete(*position));
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            let ids: Vec<EventId> = ids.into_iter().flatten().collect();
            change.declare_lost(&ids, (&Reason::Expired, None), now)
        })
        .map_err(damaged)
    }

    /// Returns expired events: they are in order of registration, so the first younger one of this boot ends the search.
    fn older_than(&self, age_max: Duration, now: &Stamp) -> Result<Vec<Position>, JournalError> {
        let sql =
            format!("SELECT {EVENT} FROM events WHERE position > ? AND position < ? AND rank < ? ORDER BY position");
        let mut statement = self.connection.prepare(&sql)?;
        let mut old = Vec::new();
        for series in JournalSeries::ALL {
            let bounds = params![series.start().0 as i64, series.end().0 as i64, EvictionPriority::Loss as u8];
            let mut rows = statement.query(bounds)?;
            while let Some(row) = rows.next()? {
                // A row that cannot be read is noticed when it is handed out.
                let Some((event, _)) = verified_event(row) else { continue };
                match Age::of(&event.stamp, now) {
                    Age::Known(age) if age > age_max => old.push(unsigned(row.get(0)?)),
                    _ if event.stamp.is_of_boot(now) => break,
                    _ => {}
                }
            }
        }
        Ok(old)
    }

    /// Runs `what` in a synced and counted transaction: `state` and the database change together, or neither does.
    fn transaction<T>(
        &mut self,
        what: impl FnOnce(&mut JournalTransaction<'_>) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let mut change = JournalTransaction::begin(&mut self.connection, &self.state, self.pages_max)?;
        let done = what(&mut change)?;
        change.state.commits += 1;
        write_meta(&change.transaction, &change.state)?;
        self.state = change.commit()?;
        self.write_mark();
        Ok(done)
    }

    /// Removes events without a sync: undone by a power cut, it causes duplicates only. The mark is written first, so that it never
    /// counts events that are gone.
    fn remove_unsynced(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        let mut change = JournalTransaction::begin(&mut self.connection, &self.state, self.pages_max)?;
        // Without a scan for each event that is on the disk.
        let is_here = |id: &&EventId| !self.is_in_memory || self.state.owns(id.epoch);
        for id in ids.iter().filter(is_here) {
            if let Some(position) = change.find(*id)? {
                change.delete(position)?;
            }
        }
        change.find_oldest()?;
        write_meta(&change.transaction, &change.state)?;
        if let Some(mark) = &mut self.mark {
            mark.write(&change.state.mark());
        }
        self.state = change.commit()?;
        Ok(())
    }

    fn write_mark(&mut self) {
        if let Some(mark) = &mut self.mark {
            mark.write(&self.state.mark());
        }
    }
}

impl Journal for SqliteJournal {
    fn append(&mut self, new_events: Vec<NewEvent>) -> Result<Vec<Arc<Event>>, JournalError> {
        self.transaction(|change| {
            let stamp = new_events.last().map(|new_event| new_event.stamp.clone());
            let events =
                new_events.into_iter().map(|new_event| change.register(new_event)).collect::<Result<Vec<_>, _>>()?;
            if let Some(stamp) = stamp {
                change.evict(&stamp)?;
            }
            failpoints::hit("journal-before-commit");
            Ok(events)
        })
        .inspect(|_| failpoints::hit("journal-after-commit"))
        .map_err(damaged)
    }

    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        if self.is_in_memory {
            return self.remove_unsynced(ids);
        }
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        let removed = self.remove_unsynced(ids);
        self.connection.pragma_update(None, "synchronous", synchronous())?;
        removed.map_err(damaged)
    }

    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError> {
        // An event of another epoch is on the disk that this journal replaces for now.
        let is_elsewhere = self.is_in_memory && !self.state.owns(id.epoch);
        self.transaction(|change| {
            match change.find(id)? {
                Some(position) => drop(change.delete(position)?),
                None if is_elsewhere => {}
                None => return Ok(()),
            }
            change.declare_lost(&[id], (&Reason::Rejected, Some(detail)), &stamp)
        })
        .map_err(damaged)
    }

    fn batch(
        &mut self,
        after: Position,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<QueuedEvent>, JournalError> {
        let batch = read(&self.connection, after, events_max, bytes_max).map_err(damaged)?;
        let fixes = self
            .state
            .open_losses
            .iter()
            .flatten()
            .any(|loss| batch.iter().any(|stored| stored.position == loss.position));
        if fixes {
            self.transaction(|change| {
                change.seal()?;
                Ok(())
            })?;
            return self.batch(after, events_max, bytes_max);
        }
        for stored in &batch {
            self.state.handed.insert(stored.event.id, stored.position);
        }
        Ok(batch)
    }

    fn pending(&self) -> Pending {
        self.state.pending
    }

    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError> {
        open_breaches(&self.connection)
    }

    fn save_open_window(&mut self, window: NewEvent) -> Result<(), JournalError> {
        if self.is_in_memory {
            return Ok(());
        }
        let NewEvent { stamp, body } = window;
        let id = EventId { epoch: self.state.rates_epoch, seq: self.state.next_rates_seq };
        save_window(&self.connection, &Event { id, stamp, body }).map_err(damaged)
    }

    fn open_window(&mut self) -> Result<Option<NewEvent>, JournalError> {
        Ok(open_window(&self.connection)?.map(|Event { stamp, body, .. }| NewEvent { stamp, body }))
    }

    fn note_samples(&mut self, first: Option<EventId>) -> Result<(), JournalError> {
        let epoch = |id: Option<EventId>| id.map(|id| id.epoch);
        if epoch(first) == epoch(self.state.samples) {
            self.state.samples = first;
            return Ok(());
        }
        self.transaction(|change| {
            change.state.samples = first;
            Ok(())
        })
        .map_err(damaged)
    }

    fn first_unsettled(&self) -> Option<EventId> {
        let epoch = self.next_id().epoch;
        Some(EventId { epoch, seq: self.state.mark().pending.first(epoch)? })
    }

    fn take_own_events(&mut self) -> Vec<Arc<Event>> {
        let positions = std::mem::take(&mut self.state.own);
        positions.into_iter().filter_map(|position| read_at(&self.connection, position)).map(Arc::new).collect()
    }

    fn lost(&self) -> LossCounts {
        self.state.lost
    }
}

fn mark_beside(path: &Path) -> MarkFile {
    MarkFile::new(with_suffix(path, ".mark"))
}

fn pages_max(size_max: ByteCount) -> i64 {
    ((size_max.bytes() / PAGE_BYTES as u64) as i64 - WAL_PAGES).max(WAL_PAGES)
}

fn from_on(refused: &[EventId], epoch: Epoch) -> Ranges {
    refused.iter().filter(|from| from.epoch == epoch).map(|from| (from.seq, u64::MAX)).collect()
}

fn replace_breaches<'a>(
    transaction: &Transaction<'_>,
    breaches: impl IntoIterator<Item = &'a Event>,
) -> Result<(), JournalError> {
    transaction.execute("DELETE FROM open_breaches", [])?;
    breaches.into_iter().try_for_each(|event| update_open_breaches(transaction, event))
}
