//! The tables that have a row for each message, and what differs between them. Pure.

use super::PartitionWidth;
use crate::event::fields::{
    AGENT, BREACH_ID, DETAIL, DIRECTION, DURATION_MS, ENDED_AT, EPOCH, EXCESS_BYTES, FIELDS, Field, INTERFACE,
    LIMIT_BPS, LIMIT_NAME, LINKS, MEAN_BPS, MEASURED_MS, OBSERVED_AT, PEAK_BPS, RAISED_AT, RATE_BPS, REASON, RX_BPS,
    RX_BYTES, SCHEMA, SEQ, SEVERITY, STARTED_AT, TX_BPS, TX_BYTES,
};
use crate::event::{Body, Breach, Direction, Epoch, Event, EventId, Loss, Reason, Sample, Severity, Stamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Events,
    Samples,
}

pub(super) const TABLES: [Table; 2] = [Table::Events, Table::Samples];

/// Fields, a bit for each by its index: each field of each row is looked up.
#[derive(Clone, Copy)]
struct FieldSet(u64);

const EVENT_FIELDS: FieldSet = FieldSet(!FieldSet::of(&[SCHEMA, RX_BYTES, TX_BYTES, RX_BPS, TX_BPS, LINKS]).0);
const SAMPLE_FIELDS: FieldSet =
    FieldSet::of(&[AGENT, EPOCH, SEQ, OBSERVED_AT, INTERFACE, DURATION_MS, RX_BYTES, TX_BYTES, RX_BPS, TX_BPS, REASON]);

impl FieldSet {
    const fn of(fields: &[Field]) -> Self {
        let (mut bits, mut next) = (0, 0);
        while next < fields.len() {
            bits |= 1 << fields[next].index;
            next += 1;
        }
        Self(bits)
    }

    fn has(self, field: &Field) -> bool {
        self.0 >> field.index & 1 == 1
    }
}

impl Table {
    pub(super) fn of(event: &Event) -> Self {
        match event.body {
            Body::Sample(_) => Self::Samples,
            _ => Self::Events,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Samples => "samples",
        }
    }

    /// Returns the table of a [name](Self::name).
    pub(super) fn named(name: &str) -> Self {
        TABLES.into_iter().find(|table| table.name() == name).unwrap_or(Self::Events)
    }

    #[inline]
    pub(super) fn has(self, field: &Field) -> bool {
        match self {
            Self::Events => EVENT_FIELDS.has(field),
            Self::Samples => SAMPLE_FIELDS.has(field),
        }
    }

    pub(super) fn fields(self) -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().filter(move |field| self.has(field))
    }

    /// Returns true if the table keeps the whole message where its kind is unknown.
    pub(super) fn has_raw(self) -> bool {
        self == Self::Events
    }

    /// Returns the time span of a partition, where `configured` is the one of events.
    pub(super) fn width(self, configured: PartitionWidth) -> PartitionWidth {
        match self {
            Self::Events => configured,
            Self::Samples => PartitionWidth::Week,
        }
    }

    /// Returns true if new partitions outside of the retention are limited. Years of samples may be replayed.
    pub(super) fn is_limited_outside(self) -> bool {
        self == Self::Events
    }

    /// Returns the partitions for what lies before and after all others. They are not dropped, but thinned.
    pub(super) fn outermost(self) -> [&'static str; 2] {
        match self {
            Self::Events => ["events_before_2020", "events_after_2100"],
            Self::Samples => ["samples_before_2020", "samples_after_2100"],
        }
    }
}

/// Fields of a breach's last event that `breach_state` keeps.
const BREACH_STATE: FieldSet = FieldSet::of(&[
    AGENT,
    EPOCH,
    SEQ,
    OBSERVED_AT,
    BREACH_ID,
    STARTED_AT,
    RAISED_AT,
    ENDED_AT,
    LIMIT_NAME,
    SEVERITY,
    INTERFACE,
    DIRECTION,
    LIMIT_BPS,
    RATE_BPS,
    PEAK_BPS,
    MEAN_BPS,
    DURATION_MS,
    MEASURED_MS,
    EXCESS_BYTES,
    REASON,
    DETAIL,
]);

pub(super) fn is_of_breach_state(field: &Field) -> bool {
    BREACH_STATE.has(field)
}

pub(super) fn breach_state_fields() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(|field| is_of_breach_state(field))
}

/// Returns an event of ours that touches the same tables as one like `like`, and more of them as an update.
pub(super) fn probe(like: &Event, seq: u64) -> Event {
    let at = like.stamp.observed_at;
    let body = match &like.body {
        Body::BreachRaised(_) | Body::BreachUpdated(_) | Body::BreachCleared(_) => Body::BreachUpdated(Breach {
            breach_id: "probe".into(),
            started_at: at,
            raised_at: at,
            ended_at: at,
            limit_name: "probe".into(),
            severity: Severity::Warning,
            interface: "probe".into(),
            ifindex: None,
            direction: Direction::Rx,
            limit_bps: 1,
            rate_bps: 1,
            peak_bps: 1,
            mean_bps: 1,
            duration_ms: seq,
            measured_ms: seq,
            excess_bytes: seq,
            reason: None,
            detail: None,
        }),
        Body::Loss(_) => {
            Body::Loss(Loss { epoch: Epoch(0), ranges: vec![(seq, seq)], reason: Reason::Evicted, detail: None })
        }
        Body::Sample(_) => Body::Sample(Sample::default()),
        _ => Body::Unknown("probe".to_owned()),
    };
    Event {
        id: EventId { epoch: Epoch(0), seq },
        stamp: Stamp {
            agent: "highwater-consumer-probe".into(),
            observed_at: at,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: None,
        },
        body,
    }
}
