use chrono::TimeDelta;

use super::PartitionWidth;
use crate::message::fields::{
    AGENT, BREACH_ID, DETAIL, DIRECTION, DURATION_MS, ENDED_AT, EPOCH, EXCESS_BYTES, FIELDS, Field, FieldValue,
    INTERFACE, Item as _, LIMIT_BPS, LIMIT_NAME, LINKS, MEAN_BPS, MEASURED_MS, OBSERVED_AT, PEAK_BPS, RAISED_AT,
    RATE_BPS, REASON, RX_BPS, RX_BYTES, SCHEMA, SEQ, SEVERITY, STARTED_AT, TX_BPS, TX_BYTES, link_rates,
};
use crate::message::{
    Body, Breach, Direction, Epoch, Event, EventId, LinkRates, Loss, RateWindow, Reason, Sample, Severity, Stamp,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Events,
    Samples,
    Rates,
    /// Beside [`Table::Rates`], for windows whose hours are still made.
    WindowHistograms,
}

/// Each message has its rows in one of these.
pub(super) const TABLES: [Table; 3] = [Table::Events, Table::Samples, Table::Rates];

pub(super) const PARTITIONED: [Table; 4] = [Table::Events, Table::Samples, Table::Rates, Table::WindowHistograms];

/// The default of the journal's `max_age`, and a week.
pub(super) const WINDOW_HISTOGRAMS_KEPT: TimeDelta = TimeDelta::days(37);
/// Time by which an agent's clock may be ahead before its windows are kept out of the hours.
pub(super) const AHEAD_MAX: TimeDelta = TimeDelta::days(1);

/// A bit for each field by its index: each field of each row is looked up.
#[derive(Clone, Copy)]
struct FieldSet(u64);

const EVENT_FIELDS: FieldSet = FieldSet(!FieldSet::of(&[SCHEMA, RX_BYTES, TX_BYTES, RX_BPS, TX_BPS, LINKS]).0);
const KEY_FIELDS: FieldSet = FieldSet::of(&[AGENT, EPOCH, SEQ, OBSERVED_AT]);
const RATES_FIELDS: FieldSet = FieldSet::of(&[AGENT, EPOCH, SEQ, OBSERVED_AT, STARTED_AT, DURATION_MS]);
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
            Body::Rates(_) => Self::Rates,
            _ => Self::Events,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Samples => "samples",
            Self::Rates => "rates",
            Self::WindowHistograms => "window_histograms",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        TABLES.into_iter().find(|table| table.name() == name).unwrap_or(Self::Events)
    }

    #[inline]
    pub(super) fn has(self, field: &Field) -> bool {
        match self {
            Self::Events => EVENT_FIELDS.has(field),
            Self::Samples => SAMPLE_FIELDS.has(field),
            Self::Rates => RATES_FIELDS.has(field),
            Self::WindowHistograms => KEY_FIELDS.has(field),
        }
    }

    pub(super) fn fields(self) -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().filter(move |field| self.has(field))
    }

    /// Returns the columns of a row in the order in which they are written, but for `stored_at`.
    pub(super) fn columns(self) -> Vec<&'static str> {
        const KAFKA_COLUMNS: [&str; 3] = ["kafka_topic", "kafka_partition", "kafka_offset"];
        match self {
            Self::Rates => {
                let of_message =
                    self.fields().map(|field| if *field == DURATION_MS { "window_ms" } else { field.name });
                let of_link = link_rates::FIELDS.iter().filter(|field| **field != link_rates::HISTOGRAM);
                of_message
                    .chain(of_link.map(|field| field.name))
                    .chain(KAFKA_COLUMNS)
                    .chain(["has_histogram"])
                    .collect()
            }
            Self::WindowHistograms => {
                let of_link = [link_rates::INTERFACE, link_rates::DIRECTION, link_rates::HISTOGRAM];
                self.fields().map(|field| field.name).chain(of_link.map(|field| field.name)).collect()
            }
            _ => self
                .fields()
                .map(|field| field.name)
                .chain(KAFKA_COLUMNS)
                .chain(self.has_raw().then_some("raw"))
                .collect(),
        }
    }

    pub(super) fn is_by_link(self) -> bool {
        matches!(self, Self::Rates | Self::WindowHistograms)
    }

    pub(super) fn has_raw(self) -> bool {
        self == Self::Events
    }

    pub(super) fn width(self, configured: PartitionWidth) -> PartitionWidth {
        match self {
            Self::Events => configured,
            Self::Samples | Self::Rates | Self::WindowHistograms => PartitionWidth::Week,
        }
    }

    /// Returns whether new partitions outside the retention period are limited. Years of samples may be replayed.
    pub(super) fn is_limited_outside(self) -> bool {
        matches!(self, Self::Events | Self::Rates)
    }

    /// Returns whether rows have `stored_at`, and are kept as long after it as after `observed_at`.
    pub(super) fn is_kept_since_stored(self) -> bool {
        self != Self::WindowHistograms
    }

    /// Returns the partitions before and after all others. They are not dropped, but thinned.
    pub(super) fn outermost(self) -> &'static [&'static str] {
        match self {
            Self::Events => &["events_before_2020", "events_after_2100"],
            Self::Samples => &["samples_before_2020", "samples_after_2100"],
            Self::Rates => &["rates_before_2020", "rates_after_2100"],
            Self::WindowHistograms => &[],
        }
    }
}

pub(super) fn visit_link<'a>(
    table: Table,
    event: &'a Event,
    link: &'a LinkRates,
    mut each: impl FnMut(Option<FieldValue<'a>>),
) {
    event.visit_all(|field, value| {
        if table.has(field) {
            each(value);
        }
    });
    link.visit(&mut |field, value| {
        let is_in_key = [link_rates::INTERFACE, link_rates::DIRECTION].contains(field);
        match table {
            Table::WindowHistograms if !is_in_key && *field != link_rates::HISTOGRAM => {}
            Table::Rates if *field == link_rates::HISTOGRAM => {}
            _ => each(value),
        }
    });
}

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

fn probe_of_link() -> LinkRates {
    LinkRates {
        interface: "probe".into(),
        direction: Direction::Rx,
        bytes: 0,
        packets: None,
        errors: None,
        drops: None,
        measured_s: 1,
        unmeasured_s: 0,
        min_bps: Some(0),
        mean_bps: Some(0),
        max_bps: Some(0),
        p50_bps: Some(0),
        p95_bps: Some(0),
        p99_bps: Some(0),
        speed_bps: None,
        over: Vec::new(),
        histogram: Some(Vec::new()),
    }
}

/// Returns an event that writes to all tables that `like` writes to: for a breach's it is an update, which writes to the most.
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
        Body::Rates(_) => {
            let version = "probe".to_owned();
            Body::Rates(RateWindow { started_at: at, duration_ms: seq, version, links: vec![probe_of_link()] })
        }
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
