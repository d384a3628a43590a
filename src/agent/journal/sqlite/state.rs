//! What memory knows of the journal, and the row that says who counts, and how far.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::super::loss::{OpenLoss, hull};
use super::super::mark::{Mark, Spans};
use super::super::{JournalError, Pending, Position, random_epoch};
use super::rows::{EVENT, damage, signed, whole_event};
use crate::event::{Epoch, EventId};

/// A billion positions a second would come to it in a century.
const POSITION_MAX: i64 = i64::MAX >> 1;

/// What memory knows of the database; replaced as a whole when a transaction is committed.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) next_position: u64,
    /// So many synced transactions came before.
    pub(super) commits: u64,
    pub(super) pending: Pending,
    /// Where they lie.
    pub(super) spans: Spans,
    /// What the declarations among them say to be lost, from where to where; as long as one grows, that may be more.
    pub(super) declared: BTreeMap<EventId, (Epoch, (u64, u64))>,
    /// None at the start: what was there before may have been handed out.
    pub(super) open_loss: Option<OpenLoss>,
    /// Where the events stand that were handed out.
    pub(super) handed: BTreeMap<EventId, Position>,
}

impl State {
    /// Reads all that is there, and finds nothing that was not written so.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], and what SQLite says.
    pub(super) fn load(connection: &Connection, machine_id: &str, commits_min: u64) -> Result<Self, JournalError> {
        let found = Meta::read(connection)?;
        let ours = found.as_ref().filter(|meta| meta.machine_id == machine_id);
        let mut state = match ours {
            Some(meta) => Self::new(meta.epoch, meta.next_seq, meta.mark.commits),
            None => Self::new(random_epoch(), 1, found.as_ref().map_or(commits_min, |meta| meta.mark.commits) + 1),
        };
        state.survey(connection)?;
        let registered = found.as_ref().map(|meta| meta.mark.pending.clone()).unwrap_or_default();
        if !registered.holds_as_many_as(&state.spans) {
            let (was, is) = (registered.events(), state.pending.events);
            return Err(JournalError::Damaged(format!("it should hold {was} events, and holds {is}")));
        }
        if ours.is_none() {
            // A new journal, or one that came here on a copied disk: the original goes on counting, so we must not.
            let begin = connection.unchecked_transaction()?;
            begin.execute("DELETE FROM open_breaches", [])?;
            begin.execute("DELETE FROM meta", [])?;
            begin.execute("INSERT INTO meta VALUES (1, 0, 0, 0, '', ?, 0)", [machine_id])?;
            keep_count(&begin, &state)?;
            begin.commit()?;
        }
        Ok(state)
    }

    fn new(epoch: Epoch, next_seq: u64, commits: u64) -> Self {
        Self {
            epoch,
            next_seq,
            next_position: 1,
            commits,
            pending: Pending::default(),
            spans: Spans::default(),
            declared: BTreeMap::new(),
            open_loss: None,
            handed: BTreeMap::new(),
        }
    }

    /// Goes through the events that are there.
    pub(super) fn survey(&mut self, connection: &Connection) -> Result<(), JournalError> {
        (self.pending, self.spans, self.declared, self.open_loss) = Default::default();
        let mut statement =
            connection.prepare(&format!("SELECT {EVENT} FROM events ORDER BY position")).map_err(damage)?;
        let mut rows = statement.query([]).map_err(damage)?;
        while let Some(row) = rows.next().map_err(damage)? {
            let position: i64 = row.get(0).map_err(damage)?;
            let Some((event, payload)) = whole_event(row) else {
                return Err(JournalError::Damaged(format!("the event at {position} is not what was written")));
            };
            let is_numbered = event.id.epoch != self.epoch || event.id.seq < self.next_seq;
            if !(1..=POSITION_MAX).contains(&position) || !is_numbered {
                return Err(JournalError::Damaged("positions or numbers are not those that were given".to_owned()));
            }
            self.next_position = position as u64 + 1;
            self.pending.events += 1;
            self.pending.bytes += payload.len() as u64;
            self.pending.oldest.get_or_insert(event.stamp.observed_at);
            self.spans.add(event.id);
            self.declared.extend(hull(&event.body).map(|hull| (event.id, hull)));
        }
        Ok(())
    }

    /// What is kept of it, in the database and beside it.
    pub(super) fn mark(&self) -> Mark {
        let mut pending = self.spans.clone();
        pending.reach(self.epoch, self.next_seq);
        let growing = self.open_loss.as_ref().and_then(|loss| hull(&loss.event.body));
        self.declared.values().copied().chain(growing).for_each(|(epoch, ends)| pending.hold(epoch, ends));
        Mark { commits: self.commits, pending }
    }
}

/// Who counts, and how far.
pub(super) struct Meta {
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) mark: Mark,
    pub(super) machine_id: String,
}

impl Meta {
    /// What stands there, if anything does.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where it is not what was written.
    pub(super) fn read(connection: &Connection) -> Result<Option<Self>, JournalError> {
        let sql = "SELECT epoch, next_seq, commits, pending, machine_id, crc FROM meta";
        let row = |row: &Row<'_>| {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let text = |at| row.get::<_, String>(at);
            Ok((Epoch(number(0)?), number(1)?, number(2)?, text(3)?, text(4)?, row.get::<_, i64>(5)?))
        };
        let found = connection.query_row(sql, [], row).optional().map_err(damage)?;
        let Some((epoch, next_seq, commits, pending, machine_id, crc)) = found else { return Ok(None) };
        let is_whole = crc == count_crc(epoch, next_seq, commits, &pending, &machine_id) && next_seq > 0;
        match serde_json::from_str(&pending) {
            Ok(pending) if is_whole => Ok(Some(Self { epoch, next_seq, mark: Mark { commits, pending }, machine_id })),
            _ => Err(JournalError::Damaged("its count is not what was written".to_owned())),
        }
    }
}

/// Writes who counts, and how far.
pub(super) fn keep_count(transaction: &Transaction<'_>, state: &State) -> Result<(), JournalError> {
    let machine_id: String = transaction.query_row("SELECT machine_id FROM meta", [], |row| row.get(0))?;
    let State { epoch, next_seq, commits, .. } = *state;
    let pending = serde_json::to_string(&state.mark().pending).unwrap_or_default();
    let crc = count_crc(epoch, next_seq, commits, &pending, &machine_id);
    let row = params![signed(epoch), next_seq.cast_signed(), commits.cast_signed(), pending, crc];
    transaction.execute("UPDATE meta SET epoch = ?, next_seq = ?, commits = ?, pending = ?, crc = ?", row)?;
    Ok(())
}

fn count_crc(epoch: Epoch, next_seq: u64, commits: u64, pending: &str, machine_id: &str) -> i64 {
    crc32fast::hash(format!("{epoch} {next_seq} {commits} {pending} {machine_id}").as_bytes()).into()
}
