//! Storing of a batch, the same for every database.
//!
//! ```text
//!  lock the checkpoints (guard 1) ─► rows that are not there yet (guard 2) ─► insert them
//!     ─► ranges, breaches, totals, losses, touched hours, agents that follow from them ─► dead letters, gaps
//!     ─► advance `next_offset` from its old value (guard 3) ─► commit ─► read back
//! ```
//! A row that the database rejects rolls the transaction back. The batch is then stored in pieces, each in its own transaction:
//! what comes before the row, the row, what comes after it; or halves, if the row is not reported. After a few such rows the rest
//! goes in small pieces, since each attempt handles all rows of its piece again. A row rejected alone becomes a dead letter if
//! the database takes a probe row in the same session; else the database is out of order, and no record is skipped. Each piece
//! moves `next_offset` over what it stores. An error's code decides little, since a trigger may raise any, even a full disk's: a
//! row alone whose code may pass is tried [`TRIES_MAX`] times. Another session's lock is no row's fault: it is waited for.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::agents::{self, AgentChange, KnownAgent};
use super::rows::{
    self, BreachChanges, BreachKey, DeadLetterRow, KnownBreach, LatestBreaches, LossRow, RangeChanges, Row,
    SeriesRanges, TouchedHour,
};
use super::tables::{TABLES, Table, probe};
use super::{
    Applied, DeadLetterKey, OffsetRanges, RetriedRecord, RetryOutcome, RetrySummary, StoreError, StoreProgress,
};
use crate::consumer::batch::{Batch, Fingerprint, Gap, PackedHeaders, Record, TopicId};
use crate::message::Event;
use crate::process::failpoints;

const TRIES_MAX: u32 = 5;

/// Rejected rows of a batch after which the rest of it goes in pieces of at most [`SMALL_PIECE`] records.
const REJECTED_MAX: usize = 3;
const SMALL_PIECE: usize = 256;

pub(super) trait Session {
    type Transaction<'s>: Transaction
    where
        Self: 's;

    fn begin(&mut self, now: DateTime<Utc>, locking: bool) -> Result<Self::Transaction<'_>, AttemptError>;

    /// Creates missing partitions before the transaction, and returns the rows that still have none.
    fn create_partitions<'a>(&mut self, rows: &[Row<'a>]) -> Result<Vec<UnpartitionedRow<'a>>, StoreError>;

    fn forget_partitions(&mut self);

    fn end_checkpoint_holders(&mut self, topic: &TopicId, partitions: &[i32]) -> StoreError;

    fn read_back(&mut self, topic: &TopicId, bounds: &OffsetRanges) -> Result<bool, AttemptError>;
}

pub(super) struct UnpartitionedRow<'a> {
    pub(super) row: Row<'a>,
    pub(super) error: String,
}

/// Statements of a transaction, which fail with [`AttemptError::ConcurrentWrite`] if ranges, breaches or agents changed since they were read.
pub(super) trait Transaction: Sized {
    /// Locks each checkpoint until the end, and returns its `next_offset` and generation (guard 1).
    fn lock_checkpoints(
        &mut self,
        topic: &TopicId,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, (i64, i32)>, AttemptError>;

    fn known_ranges<'a>(&mut self, seen: &SeriesRanges<'a>) -> Result<SeriesRanges<'a>, AttemptError>;

    fn existing(&mut self, table: Table, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError>;

    /// Returns the indices of rows whose identity is already stored with another `observed_at`.
    fn have_other_times(&mut self, table: Table, rows: &[&Row<'_>]) -> Result<HashSet<usize>, AttemptError>;

    fn insert(&mut self, table: Table, topic: &TopicId, rows: &[&Row<'_>]) -> Result<(), AttemptError>;

    fn put_ranges(&mut self, changes: RangeChanges<'_>) -> Result<(), AttemptError>;

    /// Returns what is stored of the breaches; new ones may be left out if [`Self::put_breaches`] notices those that are there.
    fn known_breaches<'a>(
        &mut self,
        breaches: &LatestBreaches<'a>,
    ) -> Result<HashMap<BreachKey<'a>, KnownBreach>, AttemptError>;

    fn put_breaches(&mut self, changes: &BreachChanges<'_>) -> Result<(), AttemptError>;

    fn put_losses(&mut self, losses: &[LossRow<'_>]) -> Result<(), AttemptError>;

    fn put_touched_hours(&mut self, hours: &[TouchedHour<'_>]) -> Result<(), AttemptError>;

    fn known_agents<'a>(&mut self, agents: &[&'a str]) -> Result<HashMap<&'a str, KnownAgent>, AttemptError>;

    fn put_agents(&mut self, changes: &[AgentChange<'_>]) -> Result<(), AttemptError>;

    fn put_dead_letters(&mut self, topic: &TopicId, letters: &[DeadLetterRow<'_>]) -> Result<(), AttemptError>;

    fn put_gap(&mut self, topic: &TopicId, partition: i32, generation: i32, gap: Gap) -> Result<(), AttemptError>;

    /// Moves each `next_offset` from the first of its bounds, and nowhere else, to the second; returns how many moved (guard 3).
    fn advance(
        &mut self,
        topic: &TopicId,
        ahead: &[(i32, (i64, i64), Option<Fingerprint>)],
    ) -> Result<usize, AttemptError>;

    fn lock_dead_letters(
        &mut self,
        topic: &TopicId,
        letters: &[DeadLetterKey],
    ) -> Result<HashSet<DeadLetterKey>, AttemptError>;

    fn delete_dead_letters(&mut self, topic: &TopicId, letters: &[DeadLetterKey]) -> Result<(), AttemptError>;

    fn commit(self) -> Result<(), AttemptError>;
}

#[derive(Debug)]
pub(super) enum AttemptError {
    /// Another consumer wrote the same: another try finds it.
    ConcurrentWrite(StoreError),
    /// A row exists although no stored range has its number: the next attempt looks up every row.
    Duplicate(StoreError),
    NoPartition(StoreError),
    CheckpointLocked,
    /// `at` is the partition and offset, if the database reports them. A transient error may be over at the next try.
    Rejected {
        at: Option<(i32, i64)>,
        error: String,
        store_error: StoreError,
        is_transient: bool,
    },
    /// Not worth another try.
    Store(StoreError),
}

impl From<AttemptError> for StoreError {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::ConcurrentWrite(error)
            | AttemptError::Duplicate(error)
            | AttemptError::NoPartition(error)
            | AttemptError::Store(error) => error,
            AttemptError::Rejected { store_error, .. } => store_error,
            AttemptError::CheckpointLocked => Self::Unavailable("another session holds what is needed".to_owned()),
        }
    }
}

impl AttemptError {
    pub(super) fn of_record(self, at: Option<(i32, i64)>) -> Self {
        match self {
            Self::Rejected { error, store_error, is_transient, .. } => {
                Self::Rejected { at, error, store_error, is_transient }
            }
            other => other,
        }
    }
}

impl From<StoreError> for AttemptError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Approach {
    /// Ranges and breaches are read without a lock, rows looked up only if their numbers were seen: the usual case.
    Optimistic,
    /// Locks ranges and breaches when it reads them, after another consumer changed one between read and write.
    Locking,
    /// Locks, and looks up every row: ranges are missing, as after a `DELETE`.
    LookUpAll,
}

type RejectedAlone = ((i32, i64), String);

pub(super) fn apply<S: Session>(
    session: &mut S,
    batch: &Batch,
    now: DateTime<Utc>,
    progress: &StoreProgress,
) -> Result<Applied, StoreError> {
    let (mut applied, mut rejected) = (Applied::default(), 0);
    let mut left = vec![rows::whole(batch)];
    while let Some(bounds) = left.pop() {
        if !applied.stored.is_empty() && progress.is_stopped() {
            break;
        }
        let is_large = rejected >= REJECTED_MAX && rows::records(batch, &bounds).count() > SMALL_PIECE;
        let outcome = match is_large.then(|| pieces(batch, &bounds, None)).flatten() {
            Some(halves) => PieceOutcome::Split(halves),
            None => store_piece(session, batch, &bounds, now, progress)?,
        };
        match outcome {
            PieceOutcome::Stored(piece) => applied.add(piece),
            PieceOutcome::Rejected(record) => {
                rejected += 1;
                applied.add(record);
            }
            PieceOutcome::Split(smaller) => left.extend(smaller.into_iter().rev()),
        }
    }
    Ok(applied)
}

enum PieceOutcome {
    Stored(Applied),
    Rejected(Applied),
    Split(Vec<OffsetRanges>),
}

fn store_piece<S: Session>(
    session: &mut S,
    batch: &Batch,
    bounds: &OffsetRanges,
    now: DateTime<Utc>,
    progress: &StoreProgress,
) -> Result<PieceOutcome, StoreError> {
    let mut rejected: Option<RejectedAlone> = None;
    let mut tries = 1;
    loop {
        let mut refused: HashMap<(i32, i64), String> = HashMap::new();
        let attempted = persist(session, |session, approach| {
            let unpartitioned = session.create_partitions(&rows::events(rows::records(batch, bounds), now))?;
            let unpartitioned = unpartitioned
                .into_iter()
                .map(|UnpartitionedRow { row, error }| ((row.partition, row.record.offset), error));
            refused = unpartitioned.chain(rejected.clone()).collect();
            attempt(session, batch, bounds, (&refused, approach), now)
        });
        progress.count_answer();
        let (at, error, store_error, is_transient) = match attempted {
            Ok(applied) if rejected.is_some() => return Ok(PieceOutcome::Rejected(applied)),
            Ok(applied) => return Ok(PieceOutcome::Stored(applied)),
            Err(AttemptError::CheckpointLocked) => {
                let partitions: Vec<i32> = bounds.keys().copied().collect();
                return Err(session.end_checkpoint_holders(&batch.topic, &partitions));
            }
            Err(AttemptError::Rejected { at, error, store_error, is_transient }) => {
                (at, error, store_error, is_transient)
            }
            Err(other) => return Err(other.into()),
        };
        let rows = rows::events(rows::records(batch, bounds), now);
        let may_be_it = |row: &&Row<'_>| {
            let place = (row.partition, row.record.offset);
            at.map_or_else(|| !refused.contains_key(&place), |at| place == at)
        };
        let Some(first) = rows.iter().find(may_be_it) else {
            // A dead letter was rejected, or a transaction without rows.
            return Err(store_error);
        };
        if rejected.is_some() {
            return Err(store_error);
        }
        if !accepts_probe(session, &batch.topic, first.event, now)? {
            return Err(if is_transient { store_error } else { rejects_every_row(store_error) });
        }
        match pieces(batch, bounds, at) {
            Some(pieces) => return Ok(PieceOutcome::Split(pieces)),
            None if is_transient && tries < TRIES_MAX => tries += 1,
            None => rejected = Some(((first.partition, first.record.offset), error)),
        }
    }
}

/// Tries until a transaction succeeds or fails for good; after a failure that others caused it reads more carefully.
fn persist<S: Session, T>(
    session: &mut S,
    mut attempt: impl FnMut(&mut S, Approach) -> Result<T, AttemptError>,
) -> Result<T, AttemptError> {
    let mut approach = Approach::Optimistic;
    for _ in 1..TRIES_MAX {
        match attempt(session, approach) {
            Err(AttemptError::NoPartition(_)) => session.forget_partitions(),
            Err(AttemptError::ConcurrentWrite(_)) if approach == Approach::Optimistic => approach = Approach::Locking,
            Err(AttemptError::ConcurrentWrite(_)) => {}
            Err(AttemptError::Duplicate(_)) => approach = Approach::LookUpAll,
            other => return other,
        }
    }
    attempt(session, approach).map_err(|error| match error {
        // A unique index that this program did not create, or a partition that is dropped before each attempt.
        AttemptError::Duplicate(error) | AttemptError::NoPartition(error) => {
            AttemptError::Rejected { at: None, error: error.to_string(), store_error: error, is_transient: false }
        }
        other => other,
    })
}

/// Splits bounds around the record `at`, or into halves; `None` if they hold one record.
fn pieces(batch: &Batch, bounds: &OffsetRanges, at: Option<(i32, i64)>) -> Option<Vec<OffsetRanges>> {
    let count = rows::records(batch, bounds).count();
    if count <= 1 {
        return None;
    }
    let middle = rows::records(batch, bounds).nth(count / 2).map(|(partition, _, record)| (partition, record.offset));
    let (partition, offset) = at.or(middle)?;
    let (from, to) = *bounds.get(&partition)?;
    // Other partitions go with what is before the record.
    let cuts = if at.is_some() { vec![offset, offset + 1] } else { vec![offset] };
    let mut before = bounds.clone();
    let (mut begin, mut rest) = (from, Vec::new());
    for cut in cuts.into_iter().filter(|cut| (from..to).contains(cut)).chain([to]) {
        rest.push(OffsetRanges::from([(partition, (begin, cut))]));
        begin = cut;
    }
    let first = rest.remove(0);
    before.extend(first);
    let is_empty = |bounds: &OffsetRanges| rows::records(batch, bounds).next().is_none();
    let mut pieces: Vec<OffsetRanges> = if is_empty(&before) { Vec::new() } else { vec![before] };
    match (pieces.is_empty(), rest.first_mut()) {
        (true, Some(next)) => {
            next.insert(partition, (from, next[&partition].1));
            // Offsets without records go with what is stored first.
            next.extend(
                bounds.iter().filter(|(other, _)| **other != partition).map(|(other, bounds)| (*other, *bounds)),
            );
        }
        (true, None) => return None,
        _ => {}
    }
    pieces.extend(rest);
    (pieces.len() > 1).then_some(pieces)
}

fn rejects_every_row(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => {
            StoreError::Misconfigured(format!("the database rejects every row, even a test row: {text}"))
        }
        other => other,
    }
}

/// Returns whether the database accepts probe rows like `like`, inserted and then updated; rolls them back.
fn accepts_probe<S: Session>(
    session: &mut S,
    topic: &TopicId,
    like: &Event,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let mut transaction = session.begin(now, false)?;
    for seq in 1..=2 {
        let event = probe(like, seq);
        let record = Record {
            offset: 0,
            timestamp_ms: None,
            headers: PackedHeaders::default(),
            key: None,
            payload: None,
            content: Err(String::new()),
            raw: None,
        };
        let mut rows = vec![Row { event: &event, record: &record, partition: 0, now }];
        match store_rows(&mut transaction, topic, &mut rows, Approach::Optimistic, &mut Applied::default()) {
            Ok(()) => {}
            Err(AttemptError::Rejected { .. } | AttemptError::NoPartition(_)) => return Ok(false),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(true)
}

/// Stores the part of `batch` within `bounds` and not below `next_offset`; `refused` become dead letters.
fn attempt<S: Session>(
    session: &mut S,
    batch: &Batch,
    bounds: &OffsetRanges,
    (refused, approach): (&HashMap<(i32, i64), String>, Approach),
    now: DateTime<Utc>,
) -> Result<Applied, AttemptError> {
    failpoints::hit("guard-1-before");
    let topic = &batch.topic;
    let mut transaction = session.begin(now, approach != Approach::Optimistic)?;
    let bounds = guard(&mut transaction, batch, bounds)?;
    failpoints::hit("guard-1-after");
    let (mut rows, mut letters) = rows::split(rows::records(batch, &bounds), now);
    rows.retain(|row| {
        let refusal = refused.get(&(row.partition, row.record.offset));
        letters.extend(refusal.map(|error| {
            let generation = batch.partitions[&row.partition].generation;
            DeadLetterRow::new(row.record, row.partition, generation, error)
        }));
        refusal.is_none()
    });
    let mut applied = Applied { stored: bounds.clone(), ..Applied::default() };
    store_rows(&mut transaction, topic, &mut rows, approach, &mut applied)?;
    if !letters.is_empty() {
        transaction.put_dead_letters(topic, &letters)?;
        applied.rejected = letters.iter().map(DeadLetterRow::rejected).collect();
    }
    for (&partition, &(from, to)) in &bounds {
        let part = &batch.partitions[&partition];
        for gap in part.gaps.iter().filter(|gap| (from..to).contains(&gap.first)) {
            transaction.put_gap(topic, partition, part.generation, *gap)?;
        }
    }
    let ahead = bounds.iter().filter(|(_, (from, to))| from < to).map(|(&partition, &(from, to))| {
        let records = &batch.partitions[&partition].records;
        let last = records[..records.partition_point(|record| record.offset < to)].last();
        (partition, (from, to), last.filter(|record| record.offset >= from).map(Record::fingerprint))
    });
    let ahead: Vec<_> = ahead.collect();
    if transaction.advance(topic, &ahead)? != ahead.len() {
        return Err(StoreError::Conflict(format!("{topic}: another consumer took a partition")).into());
    }
    failpoints::hit("database-before-commit");
    transaction.commit()?;
    failpoints::hit("database-after-commit");
    // The commit counts once `next_offset` confirms it.
    if !session.read_back(topic, &bounds)? {
        return Err(StoreError::Conflict(format!("{topic}: the database did not keep what it committed")).into());
    }
    Ok(applied)
}

/// Locks the checkpoints, and returns `bounds` without what is stored already (guard 1).
fn guard(
    transaction: &mut impl Transaction,
    batch: &Batch,
    bounds: &OffsetRanges,
) -> Result<OffsetRanges, AttemptError> {
    let topic = &batch.topic;
    let partitions: Vec<i32> = bounds.keys().copied().collect();
    let found = transaction.lock_checkpoints(topic, &partitions)?;
    let mut remaining = OffsetRanges::new();
    for (&partition, &(from, to)) in bounds {
        let conflict = |what: String| Err(StoreError::Conflict(format!("{topic}[{partition}] {what}")).into());
        let Some(&(next, generation)) = found.get(&partition) else {
            return conflict("has no row in kafka_offsets any more".to_owned());
        };
        if generation != batch.partitions[&partition].generation {
            return conflict("was recreated, as another consumer found".to_owned());
        }
        if next < from && !failpoints::is_disabled("guard-1-gap") {
            return conflict(format!("is at {next} in the database, below {from}, where the batch begins"));
        }
        let skip = next > from && !failpoints::is_disabled("guard-1-skip");
        remaining.insert(partition, if skip { (next.min(to), to) } else { (from, to) });
    }
    Ok(remaining)
}

fn store_rows(
    transaction: &mut impl Transaction,
    topic: &TopicId,
    rows: &mut Vec<Row<'_>>,
    approach: Approach,
    applied: &mut Applied,
) -> Result<(), AttemptError> {
    rows::in_order(rows);
    if rows.is_empty() {
        return Ok(());
    }
    let all = rows::ranges(rows);
    let known = transaction.known_ranges(&all)?;
    let before = rows.len();
    let mut conflicts = Vec::new();
    if !failpoints::is_disabled("guard-2") {
        skip_stored(transaction, rows, (&known, approach), &mut conflicts)?;
    }
    conflicts.extend(rows::same_identity(rows));
    conflicts.sort_by_key(|event| (&event.stamp.agent, event.id));
    conflicts.dedup_by_key(|event| (&event.stamp.agent, event.id));
    for table in rows::tables(rows) {
        let of_table: Vec<&Row<'_>> = rows.iter().filter(|row| Table::of(row.event) == table).collect();
        transaction.insert(table, topic, &of_table)?;
        if table == Table::Rates {
            transaction.insert(Table::WindowHistograms, topic, &of_table)?;
        }
    }
    applied.inserted += rows.len() as u64;
    applied.identity_conflicts.extend(conflicts.iter().map(|event| format!("{} {}", event.stamp.agent, event.id)));
    let new = if rows.len() == before { all } else { rows::ranges(rows) };
    transaction.put_ranges(rows::merge_ranges(&known, new, &conflicts))?;
    let breaches = rows::latest_breaches(rows, |event| rows::was_seen(event, &known));
    if !breaches.is_empty() {
        let stored = transaction.known_breaches(&breaches)?;
        let changes = rows::breach_changes(breaches, &stored);
        transaction.put_breaches(&changes)?;
        for ((key, _), (_, bytes)) in changes.totals {
            let sum = applied.added_totals.entry(key).or_default();
            *sum = sum.saturating_add(bytes.unsigned_abs());
        }
    }
    let losses = rows::losses(rows);
    if !losses.is_empty() {
        transaction.put_losses(&losses)?;
    }
    let hours = rows::touched_hours(rows);
    if !hours.is_empty() {
        transaction.put_touched_hours(&hours.into_iter().collect::<Vec<_>>())?;
    }
    applied.without_histograms += rows::without_histograms(rows).count() as u64;
    let asked = agents::asked(rows);
    if asked.is_empty() {
        return Ok(());
    }
    let known = transaction.known_agents(&asked)?;
    let changes = agents::changes(rows, &known);
    if changes.is_empty() { Ok(()) } else { transaction.put_agents(&changes) }
}

/// Removes rows that are there (guard 2). One whose number was seen under another time is a conflict.
fn skip_stored<'a>(
    transaction: &mut impl Transaction,
    rows: &mut Vec<Row<'a>>,
    (known, approach): (&SeriesRanges<'_>, Approach),
    conflicts: &mut Vec<&'a Event>,
) -> Result<(), AttemptError> {
    let asked = if approach == Approach::LookUpAll { rows.clone() } else { rows::seen_before(rows, known) };
    for table in TABLES {
        let seen: Vec<Row<'a>> = asked.iter().filter(|row| Table::of(row.event) == table).copied().collect();
        if seen.is_empty() {
            continue;
        }
        let there = transaction.existing(table, &seen.iter().collect::<Vec<_>>())?;
        let new =
            seen.iter().enumerate().filter(|(index, row)| !there.contains(index) && rows::was_seen(row.event, known));
        let new: Vec<Row<'a>> = new.map(|(_, row)| *row).collect();
        if !new.is_empty() {
            let others = transaction.have_other_times(table, &new.iter().collect::<Vec<_>>())?;
            conflicts.extend(others.into_iter().map(|index| new[index].event));
        }
        let there: HashSet<*const Record> =
            there.into_iter().map(|index| std::ptr::from_ref(seen[index].record)).collect();
        rows.retain(|row| !there.contains(&std::ptr::from_ref(row.record)));
    }
    Ok(())
}

pub(super) fn retry<S: Session>(
    session: &mut S,
    topic: &TopicId,
    records: &[RetriedRecord],
    now: DateTime<Utc>,
) -> Result<RetrySummary, StoreError> {
    match persist(session, |session, approach| retry_once(session, topic, records, approach, now)) {
        Err(AttemptError::Rejected { .. }) if records.len() > 1 => {
            let mut all = RetrySummary::default();
            for record in records {
                let one = retry(session, topic, std::slice::from_ref(record), now)?;
                all.outcomes.extend(one.outcomes);
                all.inserted += one.inserted;
            }
            Ok(all)
        }
        Err(AttemptError::Rejected { error, store_error, is_transient, .. }) => {
            let like = records.iter().find_map(|record| record.record.content.as_ref().ok());
            match like {
                Some(like) if accepts_probe(session, topic, like, now)? => {
                    Ok(RetrySummary { outcomes: vec![RetryOutcome::Stays(error)], inserted: 0 })
                }
                _ if is_transient => Err(store_error),
                _ => Err(rejects_every_row(store_error)),
            }
        }
        other => Ok(other?),
    }
}

fn retry_once<S: Session>(
    session: &mut S,
    topic: &TopicId,
    records: &[RetriedRecord],
    approach: Approach,
    now: DateTime<Utc>,
) -> Result<RetrySummary, AttemptError> {
    let mut rows = rows::of_retried(records, now);
    let unpartitioned = session.create_partitions(&rows)?;
    let refusal = |record: &Record| {
        unpartitioned
            .iter()
            .find(|refused| std::ptr::eq(refused.row.record, record))
            .map(|refused| refused.error.clone())
    };
    let key = |record: &RetriedRecord| (record.partition, record.generation, record.record.offset);
    let mut transaction = session.begin(now, approach != Approach::Optimistic)?;
    let there = transaction.lock_dead_letters(topic, &records.iter().map(key).collect::<Vec<_>>())?;
    let outcome = |record: &RetriedRecord| match &record.record.content {
        _ if !there.contains(&key(record)) => RetryOutcome::Gone,
        Err(error) => RetryOutcome::Stays(error.clone()),
        Ok(_) => refusal(&record.record).map_or(RetryOutcome::Stored, RetryOutcome::Stays),
    };
    let outcomes: Vec<RetryOutcome> = records.iter().map(outcome).collect();
    let stored: Vec<&RetriedRecord> = records
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| **outcome == RetryOutcome::Stored)
        .map(|(r, _)| r)
        .collect();
    rows.retain(|row| stored.iter().any(|record| std::ptr::eq(&raw const record.record, row.record)));
    let mut applied = Applied::default();
    store_rows(&mut transaction, topic, &mut rows, approach, &mut applied)?;
    transaction.delete_dead_letters(topic, &stored.into_iter().map(key).collect::<Vec<_>>())?;
    transaction.commit()?;
    Ok(RetrySummary { outcomes, inserted: applied.inserted })
}

impl Applied {
    fn add(&mut self, piece: Self) {
        self.inserted += piece.inserted;
        self.without_histograms += piece.without_histograms;
        for (partition, (from, to)) in piece.stored {
            self.stored.entry(partition).and_modify(|(_, end)| *end = to.max(*end)).or_insert((from, to));
        }
        self.rejected.extend(piece.rejected);
        self.identity_conflicts.extend(piece.identity_conflicts);
        for (key, bytes) in piece.added_totals {
            let sum = self.added_totals.entry(key).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
}
