//! What is missing of the agents' counts, and who says so.
//!
//! An agent counts its events without missing_offsets. A number that never became a row is one of these:
//!
//! - **declared**: the agent itself gave it up (evicted, expired, rejected, damaged) and said so in a `loss` event;
//! - **dead letter**: it came, but could not be stored, and still can be: `highwater-consumer dead-letters retry`;
//! - **undeclared**: nobody knows. This is the alarm.
//!
//! Only what names the number explains it. A dead letter that can't be read, or messages that Kafka's retention dropped before
//! they were read (**dropped**, by offset: nobody knows which events those were), may be what is missing, and is reported beside it;
//! but the number stays undeclared, since a guess must not end an alarm.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::letters::{self, Letter};
use super::store::{Kind, Query, Reader, StoreError};
use crate::output::Value;

/// What is known of missing numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The agent said that it gave them up.
    Declared,
    /// They are dead letters.
    DeadLetter,
    /// Kafka dropped them unread; it is not known whose they were.
    Dropped,
    /// Nothing is.
    Undeclared,
}

/// Consecutive numbers that are missing for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose; `None` where only Kafka's offsets are known.
    pub agent: Option<String>,
    /// The epoch of the numbers, 16 hex digits.
    pub epoch: Option<String>,
    /// The first of them; with [`State::Dropped`] an offset.
    pub first: i64,
    /// The last of them.
    pub last: i64,
    /// How many of them never became a row.
    pub missing: i64,
    /// What is known.
    pub state: State,
    /// The agent's word, of what it declared.
    pub reason: Option<String>,
    /// A text that says more.
    pub detail: Option<String>,
    /// When the consumer first knew.
    pub noticed_at: Option<DateTime<Utc>>,
}

/// Which entries are wanted: all, but for what is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this agent.
    pub agent: Option<String>,
    /// Noticed since then.
    pub since: Option<DateTime<Utc>>,
}

/// Everything that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By time.
    pub entries: Vec<Entry>,
    /// Dead letters of which it is not known which event they were. Counted only where something is undeclared.
    pub nameless_letters: u64,
}

/// An event is smaller than this; what is larger is no event whose number is looked for.
const EVENT_BYTES_MAX: i64 = 64 << 10;

const DECLARED: &[Kind] =
    &[Kind::Text, Kind::Text, Kind::Number, Kind::Number, Kind::Number, Kind::Text, Kind::Text, Kind::Time];
const GAPS: &[Kind] = &[Kind::Text, Kind::Text, Kind::Number, Kind::Number, Kind::Time];
const DROPPED: &[Kind] = &[Kind::Text, Kind::Number, Kind::Number, Kind::Number, Kind::Time];

/// What was declared as lost, less what came all the same.
const DECLARED_SQL: &str = "
    SELECT agent, epoch, first, last, missing, reason, detail, stored_at FROM (
        SELECT l.agent, l.epoch, l.first, l.last, l.reason, l.detail, l.stored_at, l.last - l.first + 1 - coalesce((
            SELECT CAST(sum(CASE WHEN s.last < l.last THEN s.last ELSE l.last END
                          - CASE WHEN s.first > l.first THEN s.first ELSE l.first END + 1) AS bigint)
            FROM agent_sequences s
            WHERE s.agent = l.agent AND s.epoch = l.epoch AND s.first <= l.last AND s.last >= l.first), 0) AS missing
        FROM losses l) AS declared
    WHERE missing > 0";

/// Reads what is missing.
///
/// # Errors
/// The store's.
pub fn read(reader: &mut dyn Reader, filter: &Filter) -> Result<Ledger, StoreError> {
    let mut ledger = Ledger::default();
    let query = Query::new(DECLARED_SQL, DECLARED)
        .with_any("AND agent = ?", filter.agent.as_deref())
        .with_any("AND stored_at >= ?", filter.since);
    ledger.entries.extend(reader.ask(&query)?.into_iter().filter_map(declared));
    let query = Query::new("SELECT agent, epoch, first, last, since FROM sequence_gaps WHERE true", GAPS)
        .with_any("AND agent = ?", filter.agent.as_deref())
        .with_any("AND since >= ?", filter.since);
    let gaps: Vec<Entry> = reader.ask(&query)?.into_iter().filter_map(gap).collect();
    if !gaps.is_empty() {
        let (named, nameless) = numbers_in_letters(reader)?;
        ledger.entries.extend(gaps.iter().flat_map(|gap| explained(gap, &named)));
        ledger.nameless_letters = nameless;
    }
    if filter.agent.is_none() {
        let query = Query::new("SELECT topic, partition, first, last, noticed_at FROM kafka_gaps WHERE true", DROPPED)
            .with_any("AND noticed_at >= ?", filter.since);
        ledger.entries.extend(reader.ask(&query)?.into_iter().filter_map(dropped));
    }
    ledger.entries.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok(ledger)
}

fn key(entry: &Entry) -> (Option<DateTime<Utc>>, &Option<String>, &Option<String>, i64) {
    (entry.noticed_at, &entry.agent, &entry.epoch, entry.first)
}

impl Ledger {
    /// How many events are missing in this state.
    pub fn missing(&self, state: State) -> i64 {
        self.entries.iter().filter(|entry| entry.state == state).map(|entry| entry.missing).sum()
    }
}

impl State {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::DeadLetter => "dead_letter",
            Self::Dropped => "dropped",
            Self::Undeclared => "undeclared",
        }
    }
}

fn declared(row: Vec<Value>) -> Option<Entry> {
    let mut row = row.into_iter();
    Some(Entry {
        agent: row.next()?.into_text(),
        epoch: row.next()?.into_text(),
        first: row.next()?.into_number()?,
        last: row.next()?.into_number()?,
        missing: row.next()?.into_number()?,
        state: State::Declared,
        reason: row.next()?.into_text(),
        detail: row.next()?.into_text(),
        noticed_at: row.next()?.into_time(),
    })
}

fn gap(row: Vec<Value>) -> Option<Entry> {
    let mut row = row.into_iter();
    let (agent, epoch) = (row.next()?.into_text(), row.next()?.into_text());
    let (first, last) = (row.next()?.into_number()?, row.next()?.into_number::<i64>()?);
    Some(Entry {
        agent,
        epoch,
        first,
        last,
        missing: last - first + 1,
        state: State::Undeclared,
        reason: None,
        detail: Some("never came".to_owned()),
        noticed_at: row.next()?.into_time(),
    })
}

fn dropped(row: Vec<Value>) -> Option<Entry> {
    let mut row = row.into_iter();
    let (topic, partition) = (row.next()?.into_text()?, row.next()?.into_number::<i32>()?);
    let (first, last) = (row.next()?.into_number()?, row.next()?.into_number::<i64>()?);
    Some(Entry {
        agent: None,
        epoch: None,
        first,
        last,
        missing: last - first + 1,
        state: State::Dropped,
        reason: None,
        detail: Some(format!("offsets of {topic}[{partition}] that Kafka's retention dropped before they were read")),
        noticed_at: row.next()?.into_time(),
    })
}

/// Agent and epoch, and the numbers of that count which are dead letters, with the place of each.
type Named = BTreeMap<(String, String), BTreeMap<i64, letters::KafkaPosition>>;

fn numbers_in_letters(reader: &mut dyn Reader) -> Result<(Named, u64), StoreError> {
    let (mut named, mut nameless) = (Named::new(), 0);
    letters::read(reader, &letters::Filter::default(), letters::Payloads::UpTo(EVENT_BYTES_MAX), |letter: Letter| {
        match letter.identity() {
            Some((agent, id)) => {
                let count = named.entry((agent, id.epoch.to_string())).or_default();
                count.insert(id.seq.cast_signed(), letter.at);
            }
            None => nameless += 1,
        }
        Ok::<(), StoreError>(())
    })?;
    Ok((named, nameless))
}

/// The gap in pieces: what stands in dead letters, and what does not.
fn explained(gap: &Entry, named: &Named) -> Vec<Entry> {
    let count = gap.agent.clone().zip(gap.epoch.clone());
    let letters = count.and_then(|count| named.get(&count));
    let inside: BTreeSet<i64> =
        letters.into_iter().flat_map(|letters| letters.range(gap.first..=gap.last).map(|(seq, _)| *seq)).collect();
    let piece = |first: i64, last: i64| Entry { first, last, missing: last - first + 1, ..gap.clone() };
    let (mut pieces, mut from) = (Vec::new(), gap.first);
    for seq in inside {
        if from < seq {
            pieces.push(piece(from, seq - 1));
        }
        let at = &letters.expect("it was found there")[&seq];
        let detail = format!("{}[{}] at {}: `highwater-consumer dead-letters`", at.topic, at.partition, at.offset);
        pieces.push(Entry { state: State::DeadLetter, detail: Some(detail), ..piece(seq, seq) });
        from = seq + 1;
    }
    if from <= gap.last {
        pieces.push(piece(from, gap.last));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_explain_only_the_numbers_that_they_name() {
        let gap = Entry {
            agent: Some("gw".into()),
            epoch: Some("e".into()),
            first: 5,
            last: 9,
            missing: 5,
            state: State::Undeclared,
            reason: None,
            detail: Some("never came".into()),
            noticed_at: None,
        };
        let at = letters::KafkaPosition { topic: "t".into(), partition: 0, generation: 0, offset: 3 };
        let named = |agent: &str, seqs: &[i64]| {
            let letters = seqs.iter().map(|seq| (*seq, at.clone())).collect();
            Named::from([((agent.to_owned(), "e".to_owned()), letters)])
        };
        let pieces = |named: &Named| -> Vec<(i64, i64, State)> {
            explained(&gap, named).iter().map(|entry| (entry.first, entry.last, entry.state)).collect()
        };
        assert_eq!(pieces(&named("other", &[6])), [(5, 9, State::Undeclared)]);
        assert_eq!(
            pieces(&named("gw", &[2, 5, 7, 12])),
            [
                (5, 5, State::DeadLetter),
                (6, 6, State::Undeclared),
                (7, 7, State::DeadLetter),
                (8, 9, State::Undeclared)
            ]
        );
        assert_eq!(pieces(&named("gw", &[9])), [(5, 8, State::Undeclared), (9, 9, State::DeadLetter)]);
    }
}
