//! State of the journal beside its rows: epochs, next numbers, losses, open breaches; it changes only with a transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::super::loss::{OpenDeclaration, bounds};
use super::super::mark::{Mark, PendingRanges};
use super::super::{Identity, JournalError, JournalSeries, LossCounts, Pending, Position, random_epoch};
use super::codec::{EVENT, verified_event};
use super::corruption::damage;
use crate::message::{Epoch, Event, EventId};
use crate::units::counted;

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) owner: Identity,
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) rates_epoch: Epoch,
    pub(super) next_rates_seq: u64,
    pub(super) samples: Option<EventId>,
    pub(super) former: Vec<FormerOwner>,
    next_positions: [Position; 2],
    pub(super) commits: u64,
    pub(super) pending: Pending,
    pub(super) pending_ranges: PendingRanges,
    /// Bounds of each pending declaration when it was registered or sealed; `open_losses` has those of one that grows.
    pub(super) declared: BTreeMap<EventId, (Epoch, (u64, u64))>,
    /// Declarations about events and about rates that still grow; none after opening, since those found may have been handed out.
    pub(super) open_losses: [Option<OpenDeclaration>; 2],
    pub(super) handed: BTreeMap<EventId, Position>,
    pub(super) own: Vec<Position>,
    pub(super) lost: LossCounts,
}

/// Earlier name of the agent. Losses of its events are declared under it, or readers would report them missing forever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FormerOwner {
    #[serde(with = "digits")]
    pub(super) epoch: Epoch,
    pub(super) agent: SmolStr,
    pub(super) next_seq: u64,
    #[serde(with = "digits")]
    pub(super) rates: Epoch,
}

impl State {
    /// Reads and verifies the whole database; [`JournalError::Damaged`] where anything is not what was written. A new one gets a
    /// random epoch without an owner, and a count of transactions above `commits_min`.
    pub(super) fn load(connection: &Connection, commits_min: u64) -> Result<Self, JournalError> {
        let found = Meta::read(connection)?;
        let mut state = Self::new([random_epoch(), random_epoch()], commits_min + 1);
        let mut registered = PendingRanges::default();
        if let Some(Meta { owner, epoch, next_seq, rates_epoch, next_rates_seq, samples, former, mark }) = &found {
            state = Self {
                owner: owner.clone(),
                next_seq: *next_seq,
                next_rates_seq: *next_rates_seq,
                samples: *samples,
                ..Self::new([*epoch, *rates_epoch], mark.commits)
            };
            state.former.clone_from(former);
            registered.clone_from(&mark.pending);
        }
        state.scan(connection)?;
        if !registered.holds_as_many_as(&state.pending_ranges) {
            let (was, is) = (registered.events(), state.pending.events);
            return Err(JournalError::Damaged(format!("it should hold {}, and holds {is}", counted(was, "event"))));
        }
        if found.is_none() {
            let begin = connection.unchecked_transaction()?;
            begin.execute("DELETE FROM open_breaches", [])?;
            begin.execute("INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0, 0, 0, '', '', '', '', 0)", [])?;
            write_meta(&begin, &state)?;
            begin.commit()?;
        }
        Ok(state)
    }

    fn new([epoch, rates_epoch]: [Epoch; 2], commits: u64) -> Self {
        Self {
            owner: Identity::default(),
            epoch,
            next_seq: 1,
            rates_epoch,
            next_rates_seq: 1,
            samples: None,
            former: Vec::new(),
            next_positions: JournalSeries::ALL.map(|series| Position(series.start().0 + 1)),
            commits,
            pending: Pending::default(),
            pending_ranges: PendingRanges::default(),
            declared: BTreeMap::new(),
            open_losses: [None, None],
            handed: BTreeMap::new(),
            own: Vec::new(),
            lost: LossCounts::default(),
        }
    }

    pub(super) fn scan(&mut self, connection: &Connection) -> Result<(), JournalError> {
        (self.pending, self.pending_ranges, self.declared, self.open_losses) = Default::default();
        let mut statement =
            connection.prepare(&format!("SELECT {EVENT} FROM events ORDER BY position")).map_err(damage)?;
        let mut rows = statement.query([]).map_err(damage)?;
        while let Some(row) = rows.next().map_err(damage)? {
            let position: i64 = row.get(0).map_err(damage)?;
            let Some((event, payload)) = verified_event(row) else {
                return Err(JournalError::Damaged(format!("the event at {position} is not what was written")));
            };
            let series = JournalSeries::of(&event.body);
            let next = EventId { epoch: event.id.epoch, seq: self.next_seq_of(event.id.epoch) };
            let is_placed = position > series.start().0 as i64 && position < series.end().0 as i64;
            if !is_placed || next.seq <= event.id.seq {
                return Err(JournalError::Damaged("positions or numbers are not those that were given".to_owned()));
            }
            self.next_positions[series as usize] = Position(position as u64 + 1);
            self.note(&event, payload.len());
        }
        Ok(())
    }

    pub(super) fn note(&mut self, event: &Event, bytes: usize) {
        self.pending.events += 1;
        self.pending.rates += u64::from(JournalSeries::of(&event.body) == JournalSeries::Rates);
        self.pending.bytes += bytes as u64;
        self.pending.oldest.get_or_insert(event.stamp.observed_at);
        self.pending_ranges.add(event.id);
        self.declared.extend(bounds(&event.body).map(|bounds| (event.id, bounds)));
    }

    pub(super) fn next_position(&self, series: JournalSeries) -> Position {
        self.next_positions[series as usize]
    }

    pub(super) fn take_position(&mut self, series: JournalSeries) -> Position {
        let next = &mut self.next_positions[series as usize];
        std::mem::replace(next, Position(next.0 + 1))
    }

    pub(super) fn take_id(&mut self, series: JournalSeries) -> EventId {
        let (epoch, next) = match series {
            JournalSeries::Events => (self.epoch, &mut self.next_seq),
            JournalSeries::Rates => (self.rates_epoch, &mut self.next_rates_seq),
        };
        *next += 1;
        EventId { epoch, seq: *next - 1 }
    }

    /// Returns the first number not given in an epoch of this journal; the highest number for any other epoch.
    fn next_seq_of(&self, epoch: Epoch) -> u64 {
        match epoch {
            _ if epoch == self.epoch => self.next_seq,
            _ if epoch == self.rates_epoch => self.next_rates_seq,
            _ => u64::MAX,
        }
    }

    pub(super) fn owns(&self, epoch: Epoch) -> bool {
        epoch == self.epoch || epoch == self.rates_epoch
    }

    pub(super) fn open_loss(&mut self, epoch: Epoch) -> &mut Option<OpenDeclaration> {
        let is_of_rates = epoch == self.rates_epoch || self.former.iter().any(|former| former.rates == epoch);
        &mut self.open_losses[usize::from(is_of_rates)]
    }

    pub(super) fn begin_epoch(&mut self, owner: &Identity) {
        let (epoch, next_seq) = (self.epoch, self.next_seq);
        if self.owner.agent != owner.agent {
            self.former.push(FormerOwner { epoch, agent: self.owner.agent.clone(), next_seq, rates: self.rates_epoch });
        }
        self.former.retain(|former| self.pending_ranges.has(former.epoch) || self.pending_ranges.has(former.rates));
        (self.owner, self.epoch, self.next_seq) = (owner.clone(), random_epoch(), 1);
        (self.rates_epoch, self.next_rates_seq, self.open_losses) = (random_epoch(), 1, [None, None]);
    }

    /// Returns the next number in the epoch that declares losses of `epoch`: a former name's, with that name, or the journal's own.
    pub(super) fn declaring(&mut self, epoch: Epoch) -> (EventId, Option<SmolStr>) {
        let former = self.former.iter_mut().find(|former| former.epoch == epoch || former.rates == epoch);
        let (id, next_seq, agent) = match former {
            Some(former) => (former.epoch, &mut former.next_seq, Some(former.agent.clone())),
            None => (self.epoch, &mut self.next_seq, None),
        };
        *next_seq += 1;
        (EventId { epoch: id, seq: *next_seq - 1 }, agent)
    }

    pub(super) fn rewind_next_seq(&mut self, EventId { epoch, seq }: EventId) {
        let former = self.former.iter_mut().filter(|former| former.epoch == epoch).map(|former| &mut former.next_seq);
        let own = (self.epoch == epoch).then_some(&mut self.next_seq);
        let rates = (self.rates_epoch == epoch).then_some(&mut self.next_rates_seq);
        former.chain(own).chain(rates).for_each(|next_seq| *next_seq = seq.min(*next_seq));
    }

    pub(super) fn next_ids(&self) -> Vec<EventId> {
        let former = self.former.iter().map(|former| EventId { epoch: former.epoch, seq: former.next_seq });
        let own = [(self.epoch, self.next_seq), (self.rates_epoch, self.next_rates_seq)];
        own.map(|(epoch, seq)| EventId { epoch, seq }).into_iter().chain(former).collect()
    }

    pub(super) fn mark(&self) -> Mark {
        let mut pending = self.pending_ranges.clone();
        pending.extend_to(self.epoch, self.next_seq);
        pending.extend_to(self.rates_epoch, self.next_rates_seq);
        let growing = self.open_losses.iter().flatten().filter_map(|loss| bounds(&loss.event.body));
        self.declared.values().copied().chain(growing).for_each(|(epoch, ends)| pending.include(epoch, ends));
        Mark { commits: self.commits, pending }
    }
}

pub(super) struct Meta {
    pub(super) owner: Identity,
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) rates_epoch: Epoch,
    pub(super) next_rates_seq: u64,
    pub(super) samples: Option<EventId>,
    pub(super) former: Vec<FormerOwner>,
    pub(super) mark: Mark,
}

impl Meta {
    pub(super) fn read(connection: &Connection) -> Result<Option<Self>, JournalError> {
        let sql = "SELECT epoch, next_seq, rates_epoch, next_rates_seq, samples_epoch, samples_seq, commits, pending, agent, \
                   machine_id, former, crc FROM meta";
        let row = |row: &Row<'_>| {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let text = |at| row.get::<_, String>(at);
            let counts = [number(0)?, number(1)?, number(2)?, number(3)?, number(4)?, number(5)?, number(6)?];
            let texts = [text(7)?, text(8)?, text(9)?, text(10)?];
            Ok((counts, texts, row.get::<_, i64>(11)?))
        };
        let found = connection.query_row(sql, [], row).optional().map_err(damage)?;
        let Some((counts, texts, crc)) = found else { return Ok(None) };
        let [epoch, next_seq, rates_epoch, next_rates_seq, samples_epoch, samples_seq, commits] = counts;
        let is_whole = crc == count_crc(counts, &texts) && next_seq > 0 && next_rates_seq > 0;
        let [pending, agent, machine_id, former] = texts;
        match (serde_json::from_str(&pending), serde_json::from_str(&former)) {
            (Ok(pending), Ok(former)) if is_whole => {
                let owner = Identity { agent: agent.into(), machine_id };
                let (epoch, rates_epoch, mark) = (Epoch(epoch), Epoch(rates_epoch), Mark { commits, pending });
                let samples = EventId { epoch: Epoch(samples_epoch), seq: samples_seq };
                let samples = (samples_seq > 0).then_some(samples);
                Ok(Some(Self { owner, epoch, next_seq, rates_epoch, next_rates_seq, samples, former, mark }))
            }
            _ => Err(JournalError::Damaged("its count is not what was written".to_owned())),
        }
    }
}

pub(super) fn write_meta(transaction: &Transaction<'_>, state: &State) -> Result<(), JournalError> {
    let State { owner, epoch, next_seq, rates_epoch, next_rates_seq, samples, commits, former, .. } = state;
    let samples = samples.unwrap_or(EventId { epoch: Epoch(0), seq: 0 });
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let texts = [
        json(serde_json::to_string(&state.mark().pending)),
        owner.agent.to_string(),
        owner.machine_id.clone(),
        json(serde_json::to_string(former)),
    ];
    let counts = [epoch.0, *next_seq, rates_epoch.0, *next_rates_seq, samples.epoch.0, samples.seq, *commits];
    let crc = count_crc(counts, &texts);
    let [pending, agent, machine_id, former] = texts;
    let [epoch, next_seq, rates_epoch, next_rates_seq, samples_epoch, samples_seq, commits] =
        counts.map(u64::cast_signed);
    let sql = "UPDATE meta SET epoch = ?, next_seq = ?, rates_epoch = ?, next_rates_seq = ?, samples_epoch = ?, \
               samples_seq = ?, commits = ?, pending = ?, agent = ?, machine_id = ?, former = ?, crc = ?";
    transaction.execute(
        sql,
        params![
            epoch,
            next_seq,
            rates_epoch,
            next_rates_seq,
            samples_epoch,
            samples_seq,
            commits,
            pending,
            agent,
            machine_id,
            former,
            crc
        ],
    )?;
    Ok(())
}

fn count_crc(counts: [u64; 7], texts: &[String; 4]) -> i64 {
    let counts = counts.map(|count| count.to_string()).join(" ");
    crc32fast::hash(format!("{counts} {}", texts.join("\0")).as_bytes()).into()
}

mod digits {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::message::Epoch;

    pub(super) fn serialize<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(epoch)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
