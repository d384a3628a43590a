//! Events that are not rows, and what explains them. An agent numbers its events without gaps; a number that never became a row
//! (view `missing_events`) is one of these:
//! - **declared**: its agent gave it up (evicted, expired, rejected, damaged) and declared that in a `loss` event;
//! - **dead letter**: it arrived, but could not be stored, and still can be: `highwater-consumer dead-letters retry`;
//! - **discarded**: a dead letter that an operator dropped, with the reason;
//! - **undeclared**: nothing explains it. This is the alarm.
//!
//! Only what names the number explains it. A dead letter without a number, or offsets that were never read (`kafka_gaps`), may hold
//! it and are reported beside it; the number stays undeclared, since a guess must not end an alarm.

use std::collections::BTreeMap;
use std::io;

use chrono::{DateTime, Utc};

use super::stream;
use crate::cli::output::Value;
use crate::consumer::store::ColumnType::{Number, Text, Time};
use crate::consumer::store::{ColumnType, Query, Reader, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingCause {
    Declared,
    DeadLetter,
    Discarded,
    Expired,
    Unreadable,
    Undeclared,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingEvents {
    pub cause: MissingCause,
    pub agent: Option<String>,
    pub epoch: Option<String>,
    pub first_seq: Option<i64>,
    pub last_seq: Option<i64>,
    pub offsets: Option<(String, i32, i64, i64)>,
    /// `None` where an agent that crashed does not know how many there were.
    pub missing: Option<i128>,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub noticed_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Default)]
pub struct MissingFilter {
    pub agent: Option<String>,
    pub since: Option<DateTime<Utc>>,
    /// Exclusive.
    pub until: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingSummary {
    pub by_cause: BTreeMap<MissingCause, i128>,
    /// Declarations of an unknown number of events.
    pub of_unknown_number: u64,
    pub of_no_agent: u64,
    pub of_no_agent_dropped: u64,
}

const KINDS: &[ColumnType] =
    &[Text, Text, Text, Number, Number, Text, Number, Number, Number, Number, Text, Text, Time];

const SQL: &str = "
    SELECT cause, agent, epoch, first_seq, last_seq, kafka_topic, kafka_partition, first_offset, last_offset, missing, reason, detail,
           noticed_at
    FROM (
        SELECT cause, agent, epoch, first_seq, last_seq, CAST(NULL AS text) AS kafka_topic, CAST(NULL AS integer) AS kafka_partition,
               CAST(NULL AS bigint) AS first_offset, CAST(NULL AS bigint) AS last_offset, missing, reason, detail, noticed_at
        FROM missing_events
        UNION ALL
        SELECT cause, NULL, NULL, NULL, NULL, kafka_topic, kafka_partition, first_offset, last_offset, NULL, NULL, NULL, noticed_at
        FROM kafka_gaps WHERE cause IN ('expired', 'unreadable')
    ) AS missing
    WHERE true";

const ORDER: &str =
    "ORDER BY noticed_at, agent NULLS LAST, epoch NULLS LAST, first_seq NULLS LAST, kafka_topic NULLS LAST,
                     kafka_partition NULLS LAST, first_offset NULLS LAST";

pub fn read(
    reader: &mut dyn Reader,
    filter: &MissingFilter,
    mut print: impl FnMut(MissingEvents) -> io::Result<()>,
) -> Result<io::Result<MissingSummary>, StoreError> {
    let mut summary = MissingSummary::default();
    let query = Query::new(SQL, KINDS)
        .with_any("AND agent = ?", filter.agent.as_deref())
        .with_any("AND noticed_at >= ?", filter.since)
        .with_any("AND noticed_at < ?", filter.until);
    let printed = stream(reader, &query.then(ORDER), |row| {
        let Some(missing) = MissingEvents::from_row(row) else { return Ok(()) };
        *summary.by_cause.entry(missing.cause).or_default() += missing.missing.unwrap_or_default();
        summary.of_unknown_number += u64::from(missing.missing.is_none());
        print(missing)
    })?;
    if let Err(error) = printed {
        return Ok(Err(error));
    }
    let query =
        Query::new("SELECT count(*), count(dropped_at) FROM dead_letters WHERE agent IS NULL", &[Number, Number])
            .with_any("AND stored_at >= ?", filter.since)
            .with_any("AND stored_at < ?", filter.until);
    let mut counts = reader.ask(&query)?.into_iter().flatten().map(|count| count.into_number().unwrap_or_default());
    let (all, dropped): (u64, u64) = (counts.next().unwrap_or_default(), counts.next().unwrap_or_default());
    (summary.of_no_agent, summary.of_no_agent_dropped) = (all.saturating_sub(dropped), dropped);
    Ok(Ok(summary))
}

impl MissingSummary {
    pub fn missing(&self, cause: MissingCause) -> i128 {
        self.by_cause.get(&cause).copied().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.by_cause.is_empty() && self.of_no_agent + self.of_no_agent_dropped == 0
    }
}

impl MissingCause {
    const ALL: [Self; 6] =
        [Self::Declared, Self::DeadLetter, Self::Discarded, Self::Expired, Self::Unreadable, Self::Undeclared];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::DeadLetter => "dead_letter",
            Self::Discarded => "discarded",
            Self::Expired => "expired",
            Self::Unreadable => "unreadable",
            Self::Undeclared => "undeclared",
        }
    }
}

impl MissingEvents {
    fn from_row(row: Vec<Value>) -> Option<Self> {
        let mut row = row.into_iter();
        let mut next = || row.next().unwrap_or(Value::Null);
        let cause = next().into_text()?;
        let cause = MissingCause::ALL.into_iter().find(|known| known.as_str() == cause)?;
        let (agent, epoch) = (next().into_text(), next().into_text());
        let (first_seq, last_seq) = (next().into_number(), next().into_number());
        let (topic, partition) = (next().into_text(), next().into_number());
        let (first, last) = (next().into_number::<i64>(), next().into_number::<i64>());
        let offsets = topic.zip(partition).zip(first.zip(last)).map(|((a, b), (c, d))| (a, b, c, d));
        let of_offsets = offsets.as_ref().map(|(_, _, first, last)| i128::from(*last) - i128::from(*first) + 1);
        let missing = next().into_number().or(of_offsets);
        let (reason, detail) = (next().into_text(), next().into_text());
        let detail = detail.or_else(|| offsets.as_ref().map(|offsets| of_gap(cause, offsets)));
        Some(Self {
            cause,
            agent,
            epoch,
            first_seq,
            last_seq,
            offsets,
            missing,
            reason,
            detail,
            noticed_at: next().into_time(),
        })
    }
}

fn of_gap(cause: MissingCause, (topic, partition, first, last): &(String, i32, i64, i64)) -> String {
    let why = match cause {
        MissingCause::Unreadable => "in a batch that is damaged, or larger than receive.message.max.bytes",
        _ => "deleted by Kafka's retention before they were read",
    };
    format!("offsets {first} to {last} of {topic}[{partition}]: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_missing_offsets_overflows() {
        let row = |first: i64, last: i64| {
            let nothing = || Value::Null;
            let offsets = ["t".into(), 3_i32.into(), first.into(), last.into()];
            let of_agent = [nothing(), nothing(), nothing(), nothing()];
            let rest = [nothing(), nothing(), nothing(), nothing()];
            MissingEvents::from_row(["expired".into()].into_iter().chain(of_agent).chain(offsets).chain(rest).collect())
        };
        let missing = row(0, i64::MAX).unwrap();
        assert_eq!((missing.cause, missing.missing), (MissingCause::Expired, Some(1 << 63)));
        assert_eq!(row(90, 99).unwrap().missing, Some(10));
        let says = "offsets 90 to 99 of t[3]: deleted by Kafka's retention before they were read";
        assert_eq!(row(90, 99).unwrap().detail.as_deref(), Some(says));
    }
}
