//! Statements of one transaction of the journal: register, evict, declare lost, delete.

use std::sync::Arc;

use chrono::DateTime;
use log::error;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::super::loss::{OpenDeclaration, bounds, declare, extend, split};
use super::super::{EvictionPriority, JournalError, JournalSeries, Pending, Position, QueuedEvent, breach_change};
use super::codec::{EVENT, columns, event_crc, signed, unsigned, verified_breach, verified_event};
use super::database::PAGE_BYTES;
use super::state::State;
use crate::message::{Body, Breach, Epoch, Event, EventId, Loss, NewEvent, Reason, SEQ_MAX, Stamp};
use crate::wire;

pub(super) struct JournalTransaction<'t> {
    pub(super) transaction: Transaction<'t>,
    pub(super) state: State,
    pages_max: i64,
}

const EVICTED_AT_ONCE: usize = 64;

impl<'t> JournalTransaction<'t> {
    pub(super) fn begin(connection: &'t mut Connection, state: &State, pages_max: i64) -> Result<Self, JournalError> {
        Ok(Self { transaction: connection.transaction()?, state: state.clone(), pages_max })
    }

    pub(super) fn commit(self) -> Result<State, JournalError> {
        self.transaction.commit()?;
        Ok(self.state)
    }

    pub(super) fn register(&mut self, new_event: NewEvent) -> Result<Arc<Event>, JournalError> {
        let id = self.state.take_id(JournalSeries::of(&new_event.body));
        let event = Arc::new(Event { id, stamp: new_event.stamp, body: new_event.body });
        self.insert(&event)?;
        if let Body::Rates(_) = event.body {
            // An open window is part of these rates, or past.
            self.transaction.execute("DELETE FROM open_window", [])?;
        }
        update_open_breaches(&self.transaction, &event)?;
        Ok(event)
    }

    /// Registers an event about `epoch`: in that epoch and under its name if that is a former one.
    fn register_own(&mut self, NewEvent { mut stamp, body }: NewEvent, epoch: Epoch) -> Result<(), JournalError> {
        let (id, agent) = self.state.declaring(epoch);
        stamp.agent = agent.unwrap_or(stamp.agent);
        self.state.own.push(self.state.next_position(JournalSeries::Events));
        let event = Event { id, stamp, body };
        self.insert(&event)?;
        update_open_breaches(&self.transaction, &event)
    }

    pub(super) fn interrupt_breaches(&mut self, now: &Stamp) -> Result<usize, JournalError> {
        let open = open_breaches(&self.transaction)?;
        let epoch = self.state.epoch;
        for event in &open {
            let Some(breach) = event.body.breach() else { continue };
            let stamp = Stamp { agent: event.stamp.agent.clone(), ..now.clone() };
            let body =
                Body::BreachCleared(Breach { reason: Some(Reason::Interrupted), detail: None, ..breach.clone() });
            self.register_own(NewEvent { stamp, body }, epoch)?;
        }
        self.transaction.execute("DELETE FROM open_breaches", [])?;
        Ok(open.len())
    }

    pub(super) fn interrupt_samples(&mut self, now: &Stamp) -> Result<(), JournalError> {
        let Some(EventId { epoch, seq }) = self.state.samples.take() else { return Ok(()) };
        let stamp = Stamp { agent: self.state.owner.agent.clone(), ..now.clone() };
        let detail =
            "samples are kept in memory alone, and the agent ended without saying so: how many there were is not known";
        let (ranges, reason) = (vec![(seq, SEQ_MAX)], Reason::Interrupted);
        let loss = Loss { epoch, ranges, reason, detail: Some(detail.to_owned()) };
        self.register_own(NewEvent { stamp, body: Body::Loss(loss) }, self.state.epoch)
    }

    pub(super) fn import(&mut self, event: &Event) -> Result<(), JournalError> {
        let mut event = event.clone();
        let rest = split(&mut event);
        self.insert(&event)?;
        for new_event in rest {
            let (epoch, _) = bounds(&new_event.body).unwrap_or((self.state.epoch, (0, 0)));
            self.register_own(new_event, epoch)?;
        }
        // Declarations of events that may have been handed out must not grow.
        self.state.open_losses = [None, None];
        Ok(())
    }

    fn insert(&mut self, event: &Event) -> Result<(), JournalError> {
        let position = self.state.take_position(JournalSeries::of(&event.body));
        let payload = wire::to_json(event);
        let [epoch, seq, rank, observed_us] = columns(event);
        self.transaction.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                position.0 as i64,
                epoch,
                seq,
                rank,
                observed_us,
                event_crc([epoch, seq, rank, observed_us], &payload),
                payload
            ],
        )?;
        if let Body::Loss(loss) = &event.body {
            *self.state.open_loss(loss.epoch) = Some(OpenDeclaration { position, event: event.clone() });
        }
        self.state.note(event, payload.len());
        Ok(())
    }

    /// Makes room: first among rates, then among events, in each case first among those not handed out yet.
    pub(super) fn evict(&mut self, stamp: &Stamp) -> Result<(), JournalError> {
        if used_pages(&self.transaction)? <= self.pages_max {
            return Ok(());
        }
        // Open breaches are few and never evicted; even many must not drive out every event.
        let sql = "SELECT coalesce(sum(length(payload)), 0) FROM open_breaches";
        let breach_pages = self.transaction.query_row(sql, [], |row| row.get::<_, i64>(0))? * 3 / 2 / PAGE_BYTES;
        // A few pages more than needed, so that not every event has to make room.
        let target = self.pages_max - self.pages_max / 32 + breach_pages;
        let mut lost = Vec::new();
        let [events, rates] = JournalSeries::ALL.map(|series| {
            let handed = self.state.handed.values().filter(|position| position.series() == series);
            (handed.copied().max().unwrap_or(series.start()), series)
        });
        for (after, series) in [
            rates,
            (JournalSeries::Rates.start(), JournalSeries::Rates),
            events,
            (JournalSeries::Events.start(), JournalSeries::Events),
        ] {
            // A window of many links is as large as a thousand events.
            let at_once = if series == JournalSeries::Rates { 1 } else { EVICTED_AT_ONCE as i64 };
            while used_pages(&self.transaction)? > target {
                let sql = "SELECT position FROM events WHERE position > ? AND position < ? AND rank < ? ORDER BY rank, position \
                           LIMIT ?";
                let bounds = params![after.0 as i64, series.end().0 as i64, EvictionPriority::Loss as u8, at_once];
                let victims: Vec<Position> = self
                    .transaction
                    .prepare(sql)?
                    .query_map(bounds, |row| row.get(0).map(unsigned))?
                    .collect::<Result<_, _>>()?;
                if victims.is_empty() {
                    break;
                }
                for position in victims {
                    lost.extend(self.delete(position)?);
                }
            }
        }
        self.declare_lost(&lost, (&Reason::Evicted, None), stamp)
    }

    pub(super) fn declare_lost(
        &mut self,
        ids: &[EventId],
        (reason, detail): (&Reason, Option<&str>),
        stamp: &Stamp,
    ) -> Result<(), JournalError> {
        self.find_oldest()?;
        for loss in declare(ids, reason, detail) {
            self.declare_loss(loss, stamp)?;
        }
        Ok(())
    }

    pub(super) fn declare_loss(&mut self, loss: Loss, stamp: &Stamp) -> Result<(), JournalError> {
        let Self { transaction, state, .. } = self;
        state.lost.add(&loss, loss.count());
        match extend(state.open_loss(loss.epoch), &loss) {
            Some(OpenDeclaration { position, event }) => {
                let (position, event) = (*position, event.clone());
                rewrite(transaction, &mut state.pending, position, &event)
            }
            None => {
                let epoch = loss.epoch;
                self.register_own(NewEvent { stamp: stamp.clone(), body: Body::Loss(loss) }, epoch)
            }
        }
    }

    pub(super) fn seal(&mut self) -> Result<(), JournalError> {
        for OpenDeclaration { position, mut event } in std::mem::take(&mut self.state.open_losses).into_iter().flatten()
        {
            let declared = bounds(&event.body);
            self.state.declared.extend(declared.map(|bounds| (event.id, bounds)));
            let rest = split(&mut event);
            if !rest.is_empty() {
                rewrite(&self.transaction, &mut self.state.pending, position, &event)?;
            }
            for new_event in rest {
                let epoch = declared.map_or(self.state.epoch, |(epoch, _)| epoch);
                self.register_own(new_event, epoch)?;
            }
        }
        self.state.open_losses = [None, None];
        Ok(())
    }

    pub(super) fn delete(&mut self, position: Position) -> Result<Option<EventId>, JournalError> {
        let sql = "DELETE FROM events WHERE position = ? RETURNING epoch, seq, length(payload)";
        let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let Some((epoch, seq, bytes)) = self.transaction.query_row(sql, [position.0 as i64], row).optional()? else {
            return Ok(None);
        };
        let id = EventId { epoch: Epoch(epoch as u64), seq: seq as u64 };
        let state = &mut self.state;
        state.handed.remove(&id);
        state.pending_ranges.take(id);
        state.declared.remove(&id);
        state.pending.events = state.pending.events.saturating_sub(1);
        if position.series() == JournalSeries::Rates {
            state.pending.rates = state.pending.rates.saturating_sub(1);
        }
        state.pending.bytes = state.pending.bytes.saturating_sub(bytes as u64);
        Ok(Some(id))
    }

    pub(super) fn find(&self, id: EventId) -> Result<Option<Position>, JournalError> {
        if let Some(position) = self.state.handed.get(&id) {
            return Ok(Some(*position));
        }
        let sql = "SELECT position FROM events WHERE epoch = ? AND seq = ?";
        let row =
            self.transaction.query_row(sql, params![signed(id.epoch), id.seq as i64], |row| row.get(0).map(unsigned));
        Ok(row.optional()?)
    }

    pub(super) fn find_oldest(&mut self) -> Result<(), JournalError> {
        let sql =
            "SELECT epoch, seq, observed_us FROM events WHERE position > ? AND position < ? ORDER BY position LIMIT 1";
        let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        self.state.pending.oldest = None;
        for series in JournalSeries::ALL {
            let bounds = [series.start().0 as i64, series.end().0 as i64];
            let Some((epoch, seq, observed_us)) = self.transaction.query_row(sql, bounds, row).optional()? else {
                continue;
            };
            self.state
                .pending_ranges
                .begin_at(EventId { epoch: Epoch(epoch.cast_unsigned()), seq: seq.cast_unsigned() });
            let observed_at = DateTime::from_timestamp_micros(observed_us);
            self.state.pending.oldest = self.state.pending.oldest.into_iter().chain(observed_at).min();
        }
        Ok(())
    }
}

pub(super) fn open_breaches(connection: &Connection) -> Result<Vec<Event>, JournalError> {
    let mut statement = connection.prepare("SELECT crc, payload FROM open_breaches ORDER BY breach_id")?;
    let events = statement.query_map([], |row| Ok(verified_breach(row, 0)))?.collect::<Result<Vec<_>, _>>()?;
    let damaged = events.iter().filter(|event| event.is_none()).count();
    if damaged > 0 {
        error!("journal damaged: {damaged} open breaches cannot be read, so their end will not be reported");
    }
    Ok(events.into_iter().flatten().map(|(event, _)| event).collect())
}

pub(super) fn save_window(connection: &Connection, event: &Event) -> Result<(), JournalError> {
    let payload = wire::to_json(event);
    let row = params![crc32fast::hash(&payload), payload];
    connection.execute("INSERT OR REPLACE INTO open_window VALUES (1, ?, ?)", row)?;
    Ok(())
}

pub(super) fn open_window(connection: &Connection) -> Result<Option<Event>, JournalError> {
    let sql = "SELECT crc, payload FROM open_window";
    let event = connection.query_row(sql, [], |row| Ok(verified_breach(row, 0))).optional()?;
    Ok(event.flatten().map(|(event, _)| event))
}

pub(super) fn update_open_breaches(transaction: &Transaction<'_>, event: &Event) -> Result<(), JournalError> {
    match breach_change(&event.body) {
        Some((breach_id, true)) => {
            let payload = wire::to_json(event);
            let row = params![breach_id, crc32fast::hash(&payload), payload];
            transaction.execute("INSERT OR REPLACE INTO open_breaches VALUES (?, ?, ?)", row)?;
        }
        Some((breach_id, false)) => {
            transaction.execute("DELETE FROM open_breaches WHERE breach_id = ?", [breach_id])?;
        }
        None => {}
    }
    Ok(())
}

pub(super) fn rewrite(
    transaction: &Transaction<'_>,
    pending: &mut Pending,
    position: Position,
    event: &Event,
) -> Result<(), JournalError> {
    let payload = wire::to_json(event);
    let sql = "SELECT length(payload) FROM events WHERE position = ?";
    let before: i64 = transaction.query_row(sql, [position.0 as i64], |row| row.get(0))?;
    pending.bytes = (pending.bytes + payload.len() as u64).saturating_sub(before as u64);
    let row = params![event_crc(columns(event), &payload), payload, position.0 as i64];
    transaction.execute("UPDATE events SET crc = ?, payload = ? WHERE position = ?", row)?;
    Ok(())
}

pub(super) fn losses(connection: &Connection) -> Result<Vec<(Position, Event, Loss)>, JournalError> {
    let sql = format!("SELECT {EVENT} FROM events WHERE rank = ? ORDER BY position");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement
        .query_map([EvictionPriority::Loss as u8], |row| Ok((row.get(0).map(unsigned)?, verified_event(row))))?;
    let mut losses = Vec::new();
    for row in rows {
        let (position, event) = row?;
        if let Some((event, _)) = event
            && let Body::Loss(loss) = &event.body
        {
            let loss = loss.clone();
            losses.push((position, event, loss));
        }
    }
    Ok(losses)
}

/// Returns what follows `after` in its series; [`JournalError::Damaged`] where a row is not what was written.
pub(super) fn read(
    connection: &Connection,
    after: Position,
    events_max: usize,
    bytes_max: usize,
) -> Result<Vec<QueuedEvent>, JournalError> {
    let sql = format!("SELECT {EVENT} FROM events WHERE position > ? AND position < ? ORDER BY position LIMIT ?");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params![after.0 as i64, after.series().end().0 as i64, events_max as i64])?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let position = unsigned(row.get(0)?);
        let Some((event, payload)) = verified_event(row) else {
            return Err(JournalError::Damaged(format!("the event at {} is not what was written", position.0)));
        };
        bytes += payload.len();
        if bytes > bytes_max && !batch.is_empty() {
            break;
        }
        batch.push(QueuedEvent { position, event: event.into(), payload: Some(payload) });
    }
    Ok(batch)
}

pub(super) fn used_pages(connection: &Connection) -> Result<i64, JournalError> {
    let free = connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0))?;
    Ok(page_count(connection)? - free)
}

pub(super) fn page_count(connection: &Connection) -> Result<i64, JournalError> {
    Ok(connection.query_row("PRAGMA page_count", [], |row| row.get(0))?)
}

pub(super) fn read_at(connection: &Connection, position: Position) -> Option<Event> {
    let sql = format!("SELECT {EVENT} FROM events WHERE position = ?");
    let event = connection.query_row(&sql, [position.0 as i64], |row| Ok(verified_event(row)));
    event.ok().flatten().map(|(event, _)| event)
}
