//! The journal's state in memory, and the row of the database with its owner and counts.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::super::loss::{OpenDeclaration, bounds};
use super::super::mark::{Mark, Spans};
use super::super::{Identity, JournalError, LossCounts, Pending, Position, random_epoch};
use super::codec::{EVENT, signed, whole_event};
use super::corruption::damage;
use crate::event::{Epoch, Event, EventId};
use crate::units::counted;

const POSITION_MAX: i64 = i64::MAX >> 1;

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) owner: Identity,
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) former: Vec<Former>,
    pub(super) next_position: u64,
    pub(super) commits: u64,
    pub(super) pending: Pending,
    pub(super) spans: Spans,
    /// The first and last number that each pending declaration covers; more for one that still grows.
    pub(super) declared: BTreeMap<EventId, (Epoch, (u64, u64))>,
    /// `None` after opening, since a declaration found there may have been handed out.
    pub(super) open_loss: Option<OpenDeclaration>,
    pub(super) handed: BTreeMap<EventId, Position>,
    pub(super) own: Vec<Position>,
    pub(super) lost: LossCounts,
}

/// A former name of the agent, and the epoch in which it counted. Losses of that epoch are declared in it: under the new name,
/// readers would miss those events of the old one forever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Former {
    #[serde(with = "digits")]
    pub(super) epoch: Epoch,
    pub(super) agent: SmolStr,
    pub(super) next_seq: u64,
}

impl State {
    /// Reads and verifies the whole database. A new one gets a random epoch without an owner, and a count of transactions that
    /// continues after `commits_min`. [`JournalError::Damaged`] where anything is not what was written.
    pub(super) fn load(connection: &Connection, commits_min: u64) -> Result<Self, JournalError> {
        let found = Meta::read(connection)?;
        let mut state = Self::new(random_epoch(), commits_min + 1);
        let mut registered = Spans::default();
        if let Some(Meta { owner, epoch, next_seq, former, mark }) = &found {
            state = Self { owner: owner.clone(), next_seq: *next_seq, ..Self::new(*epoch, mark.commits) };
            state.former.clone_from(former);
            registered.clone_from(&mark.pending);
        }
        state.scan(connection)?;
        if !registered.holds_as_many_as(&state.spans) {
            let (was, is) = (registered.events(), state.pending.events);
            return Err(JournalError::Damaged(format!("it should hold {}, and holds {is}", counted(was, "event"))));
        }
        if found.is_none() {
            let begin = connection.unchecked_transaction()?;
            begin.execute("DELETE FROM open_breaches", [])?;
            begin.execute("INSERT INTO meta VALUES (1, 0, 0, 0, '', '', '', '', 0)", [])?;
            keep_count(&begin, &state)?;
            begin.commit()?;
        }
        Ok(state)
    }

    fn new(epoch: Epoch, commits: u64) -> Self {
        Self {
            owner: Identity::default(),
            epoch,
            next_seq: 1,
            former: Vec::new(),
            next_position: 1,
            commits,
            pending: Pending::default(),
            spans: Spans::default(),
            declared: BTreeMap::new(),
            open_loss: None,
            handed: BTreeMap::new(),
            own: Vec::new(),
            lost: LossCounts::default(),
        }
    }

    pub(super) fn scan(&mut self, connection: &Connection) -> Result<(), JournalError> {
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
            self.note(&event, payload.len());
        }
        Ok(())
    }

    /// Counts an event that is in the database, with a payload of so many bytes.
    pub(super) fn note(&mut self, event: &Event, bytes: usize) {
        self.pending.events += 1;
        self.pending.bytes += bytes as u64;
        self.pending.oldest.get_or_insert(event.stamp.observed_at);
        self.spans.add(event.id);
        self.declared.extend(bounds(&event.body).map(|bounds| (event.id, bounds)));
    }

    /// Begins a new epoch for a new owner; the old one is kept in `former` where the name differs.
    pub(super) fn begin_epoch(&mut self, owner: &Identity) {
        let (epoch, next_seq) = (self.epoch, self.next_seq);
        if self.owner.agent != owner.agent {
            self.former.push(Former { epoch, agent: self.owner.agent.clone(), next_seq });
        }
        self.former.retain(|former| self.spans.has(former.epoch));
        (self.owner, self.epoch, self.next_seq, self.open_loss) = (owner.clone(), random_epoch(), 1, None);
    }

    /// Returns the next number in the epoch that declares losses of `epoch`: the same where a former name counted there (whose name
    /// is returned too), else the journal's.
    pub(super) fn declaring(&mut self, epoch: Epoch) -> (EventId, Option<SmolStr>) {
        let former = self.former.iter_mut().find(|former| former.epoch == epoch);
        let (id, next_seq, agent) = match former {
            Some(former) => (former.epoch, &mut former.next_seq, Some(former.agent.clone())),
            None => (self.epoch, &mut self.next_seq, None),
        };
        *next_seq += 1;
        (EventId { epoch: id, seq: *next_seq - 1 }, agent)
    }

    pub(super) fn count_from(&mut self, EventId { epoch, seq }: EventId) {
        let former = self.former.iter_mut().filter(|former| former.epoch == epoch).map(|former| &mut former.next_seq);
        let own = (self.epoch == epoch).then_some(&mut self.next_seq);
        former.chain(own).for_each(|next_seq| *next_seq = seq.min(*next_seq));
    }

    pub(super) fn next_ids(&self) -> Vec<EventId> {
        let former = self.former.iter().map(|former| EventId { epoch: former.epoch, seq: former.next_seq });
        [EventId { epoch: self.epoch, seq: self.next_seq }].into_iter().chain(former).collect()
    }

    pub(super) fn mark(&self) -> Mark {
        let mut pending = self.spans.clone();
        pending.reach(self.epoch, self.next_seq);
        let growing = self.open_loss.as_ref().and_then(|loss| bounds(&loss.event.body));
        self.declared.values().copied().chain(growing).for_each(|(epoch, ends)| pending.hold(epoch, ends));
        Mark { commits: self.commits, pending }
    }
}

pub(super) struct Meta {
    pub(super) owner: Identity,
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) former: Vec<Former>,
    pub(super) mark: Mark,
}

impl Meta {
    pub(super) fn read(connection: &Connection) -> Result<Option<Self>, JournalError> {
        let sql = "SELECT epoch, next_seq, commits, pending, agent, machine_id, former, crc FROM meta";
        let row = |row: &Row<'_>| {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let text = |at| row.get::<_, String>(at);
            let texts = [text(3)?, text(4)?, text(5)?, text(6)?];
            Ok((Epoch(number(0)?), number(1)?, number(2)?, texts, row.get::<_, i64>(7)?))
        };
        let found = connection.query_row(sql, [], row).optional().map_err(damage)?;
        let Some((epoch, next_seq, commits, texts, crc)) = found else { return Ok(None) };
        let is_whole = crc == count_crc(epoch, next_seq, commits, &texts) && next_seq > 0;
        let [pending, agent, machine_id, former] = texts;
        match (serde_json::from_str(&pending), serde_json::from_str(&former)) {
            (Ok(pending), Ok(former)) if is_whole => {
                let owner = Identity { agent: agent.into(), machine_id };
                Ok(Some(Self { owner, epoch, next_seq, former, mark: Mark { commits, pending } }))
            }
            _ => Err(JournalError::Damaged("its count is not what was written".to_owned())),
        }
    }
}

pub(super) fn keep_count(transaction: &Transaction<'_>, state: &State) -> Result<(), JournalError> {
    let State { owner, epoch, next_seq, commits, former, .. } = state;
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let texts = [
        json(serde_json::to_string(&state.mark().pending)),
        owner.agent.to_string(),
        owner.machine_id.clone(),
        json(serde_json::to_string(former)),
    ];
    let crc = count_crc(*epoch, *next_seq, *commits, &texts);
    let [pending, agent, machine_id, former] = texts;
    let count = (signed(*epoch), next_seq.cast_signed(), commits.cast_signed());
    let row = params![count.0, count.1, count.2, pending, agent, machine_id, former, crc];
    let sql = "UPDATE meta SET epoch = ?, next_seq = ?, commits = ?, pending = ?, agent = ?, machine_id = ?, former = ?, crc = ?";
    transaction.execute(sql, row)?;
    Ok(())
}

fn count_crc(epoch: Epoch, next_seq: u64, commits: u64, texts: &[String; 4]) -> i64 {
    crc32fast::hash(format!("{epoch} {next_seq} {commits} {}", texts.join("\0")).as_bytes()).into()
}

mod digits {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::event::Epoch;

    pub(super) fn serialize<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(epoch)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
