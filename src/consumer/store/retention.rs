//! Rows that have expired, in the SQL that all databases take. `$1` is the time before which rows expire.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Retention;
use super::tables::{TABLES, Table, WINDOW_HISTOGRAMS_KEPT};

#[derive(Clone, Copy)]
pub(super) enum Retained {
    Events,
    DeadLetters,
    EventsAndDeadLetters,
    EventsAndTotals,
    Totals,
    Rates,
    WindowHistograms,
    Histograms,
}

pub(super) struct ExpiredRows {
    pub(super) table: &'static str,
    pub(super) condition: String,
    pub(super) kept: Retained,
}

/// Condition for series that have ended. Gaps are closed first: from then on each such series is one range.
const ENDED: &str = "last_stored_at < $1
    AND NOT EXISTS (SELECT 1 FROM agent_sequences s WHERE s.agent = agent_sequences.agent AND s.epoch = agent_sequences.epoch
                                                      AND s.last_stored_at >= $1)
    AND NOT EXISTS (SELECT 1 FROM losses l WHERE l.agent = agent_sequences.agent AND l.epoch = agent_sequences.epoch)
    AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.agent = agent_sequences.agent AND d.epoch = agent_sequences.epoch)";

/// Series, see [`ENDED`], of an agent that has stored in another epoch since.
const SUPERSEDED: &str = "EXISTS (
    SELECT 1 FROM agent_sequences n WHERE n.agent = agent_sequences.agent AND n.epoch <> agent_sequences.epoch
                                      AND n.counted = agent_sequences.counted AND n.last_stored_at >= $1)";

/// Bytes of dead letters expire before the letters.
pub(super) const WITH_OLD_PAYLOADS: &str = "stored_at < $1 AND dropped_at IS NULL";

impl Retained {
    pub(super) fn of(table: Table) -> Self {
        match table {
            Table::Rates => Self::Rates,
            Table::WindowHistograms => Self::WindowHistograms,
            _ => Self::Events,
        }
    }

    pub(super) fn before(self, retention: &Retention, now: DateTime<Utc>) -> DateTime<Utc> {
        let keep: Duration = match self {
            // A histogram without its window serves nothing, and refuses the window that comes again.
            Self::WindowHistograms => retention.rates.min(WINDOW_HISTOGRAMS_KEPT.to_std().unwrap_or_default()),
            Self::Rates => retention.rates,
            Self::Histograms => retention.histograms,
            Self::Events => retention.events,
            Self::DeadLetters => retention.dead_letters,
            Self::EventsAndDeadLetters => retention.events.max(retention.dead_letters),
            Self::EventsAndTotals => retention.events.max(retention.totals),
            Self::Totals => retention.totals,
        };
        let keep = TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
        now.checked_sub_signed(keep).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl ExpiredRows {
    fn new(table: &'static str, condition: impl Into<String>, kept: Retained) -> Self {
        Self { table, condition: condition.into(), kept }
    }

    /// Returns rows that expire by their own age. `day`: the day of `$1`, in this database's SQL.
    pub(super) fn by_age(day: &str) -> [Self; 7] {
        [
            // Dead letters go with the events: until then their numbers are accounted for.
            Self::new("dead_letters", "stored_at < $1", Retained::EventsAndDeadLetters),
            // A breach is kept as long as the event that it was last written from.
            Self::new(
                "breach_state",
                "raised_at < $1 AND observed_at < $1 AND NOT EXISTS (
                     SELECT 1 FROM events e WHERE (e.agent, e.observed_at, e.epoch, e.seq)
                         = (breach_state.agent, breach_state.observed_at, breach_state.epoch, breach_state.seq))",
                Retained::Events,
            ),
            // Gaps that a start left out explain the numbers before it for as long as the topic is read.
            Self::new(
                "kafka_gaps",
                "noticed_at < $1 AND cause NOT IN ('expired_before_start', 'skipped_at_start')",
                Retained::Events,
            ),
            Self::new("totals", format!("day < {day}"), Retained::Totals),
            // By span, as the index has them.
            Self::new("histograms", "span = 'hour' AND starts_at < $1", Retained::Histograms),
            Self::new("histograms", "span = 'day' AND starts_at < $1", Retained::Histograms),
            Self::new("unpublished_hours", "starts_at < $1", Retained::Histograms),
        ]
    }

    /// Returns rows that expire once old gaps are closed: declarations that no gap needs, then whole series: a part would be a gap.
    pub(super) fn after_gaps() -> [Self; 4] {
        [
            Self::new(
                "losses",
                "stored_at < $1 AND NOT EXISTS (
                     SELECT 1 FROM agent_sequences s WHERE s.agent = losses.agent AND s.epoch = losses.epoch
                                                       AND s.first_seq > losses.last_seq AND s.first_stored_at >= $1)",
                Retained::Events,
            ),
            Self::new("agent_sequences", format!("{ENDED} AND {SUPERSEDED}"), Retained::Events),
            Self::new("agent_sequences", format!("{ENDED} AND {}", no_rows_left()), Retained::EventsAndTotals),
            Self::new(
                "agent_state",
                "stored_at < $1 AND NOT EXISTS (SELECT 1 FROM agent_sequences s WHERE s.agent = agent_state.agent)",
                Retained::Events,
            ),
        ]
    }
}

/// Returns the condition that an agent has no row left. Until then its ranges keep a repeated event from being counted twice.
fn no_rows_left() -> String {
    let keys = TABLES.iter().map(|table| (table.name(), "observed_at")).chain([("breach_state", "breach_id")]);
    // min() of the column behind the agent in the key reads one index entry; EXISTS may be planned as a scan of the whole table.
    let gone = keys.map(|(table, next)| {
        format!("(SELECT min(r.{next}) FROM {table} r WHERE r.agent = agent_sequences.agent) IS NULL")
    });
    gone.collect::<Vec<_>>().join(" AND ")
}
