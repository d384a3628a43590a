//! The fields of an event, each defined once: name, number (never used again), type, and sentence in the schemas. Formats and
//! tables are made of this list. Writers visit the fields ([`Event::visit`]); readers collect them ([`FieldValues`]) and make an
//! event ([`Event::read`]). Items of a list can have fields themselves: [`link_rates`], [`over_limit`].

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use smol_str::SmolStr;

use super::{
    AGENT_BYTES_MAX, Body, Breach, Direction, Epoch, Event, EventId, Lifecycle, Link, LinkRates, Loss, OverLimit,
    RateWindow, Reason, SCHEMA_VERSION, Sample, Severity, Stamp,
};

#[derive(Debug)]
pub struct Field {
    /// Place in its list and in Avro; one less than the number in Protobuf.
    pub index: usize,
    pub name: &'static str,
    pub json_key: &'static str,
    pub field_type: FieldType,
    pub presence: FieldPresence,
    pub doc: &'static str,
}

/// `UInt64` is below 2^63, as PostgreSQL's `bigint`; `Bytes` are in base64 where a format has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Version,
    UInt32,
    UInt64,
    Text,
    Epoch,
    Word(&'static [&'static str]),
    Time,
    Bool,
    Ranges,
    Bytes,
    Links,
    OverLimits,
}

#[derive(Debug)]
pub struct ItemType {
    pub name: &'static str,
    pub doc: &'static str,
    pub fields: &'static [Field],
}

impl FieldType {
    pub fn items(self) -> Option<ItemType> {
        let (name, doc, fields): (_, _, &[Field]) = match self {
            Self::Links => ("LinkRates", "Traffic of one link and direction in a window.", &link_rates::FIELDS),
            Self::OverLimits => ("OverLimit", "Time in which a limit was exceeded.", &over_limit::FIELDS),
            _ => return None,
        };
        Some(ItemType { name, doc, fields })
    }
}

/// `Defaulted` is 0 or empty if left out; `Nullable` is null if unknown, and never left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldPresence {
    Required,
    Defaulted,
    Nullable,
    Optional,
}

/// Value of a field, borrowed where possible. `Epoch` is only written: an epoch is read as `Text`, and checked later.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    Number(u64),
    Text(Cow<'a, str>),
    Epoch(Epoch),
    Time(DateTime<Utc>),
    Bool(bool),
    Ranges(Cow<'a, [(u64, u64)]>),
    Bytes(Cow<'a, [u8]>),
    Links(Cow<'a, [LinkRates]>),
    OverLimits(Cow<'a, [OverLimit]>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct FieldError {
    pub field: Cow<'static, str>,
    pub problem: String,
}

macro_rules! fields {
    ($($constant:ident $name:ident: $of:expr, $presence:ident, $doc:expr;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Place { $($constant),* }

        $(
            pub const $constant: Field = Field {
                index: Place::$constant as usize,
                name: stringify!($name),
                json_key: concat!(",\"", stringify!($name), "\":"),
                field_type: $of,
                presence: FieldPresence::$presence,
                doc: $doc,
            };
        )*

        pub static FIELDS: [Field; [$(Place::$constant as usize),*].len()] = [$($constant),*];
    };
}

use FieldType::{Bool, Bytes, Links, OverLimits, Ranges, Text, Time, UInt32, UInt64, Version, Word};

fields! {
    SCHEMA schema: Version, Required, "Version of the fields that the writer knows.";
    AGENT agent: Text, Required, "Name of the agent that observed the event; at most 255 bytes.";
    EPOCH epoch: FieldType::Epoch, Required, "Life of the agent's journal that counts the event: 16 hex digits, drawn at random.";
    SEQ seq: UInt64, Required, "Number of the event in its epoch, from 1, without gaps.";
    KIND kind: Text, Required, "Kind of event: breach_raised, breach_updated, breach_cleared, loss, link_added, link_removed, link_changed, \
        agent_started, agent_stopped, sample, rates, heartbeat, or one that was added later.";
    OBSERVED_AT observed_at: Time, Required, "Time of the observation by the agent's wall clock, in whole microseconds.";
    BOOT_ID boot_id: Text, Defaulted, "The kernel's id of the boot.";
    MONOTONIC_MS monotonic_ms: UInt64, Defaulted, "Time of the observation in milliseconds since boot, including suspends.";
    CLOCK_SYNCED clock_synced: Bool, Nullable, "True if the wall clock followed a time source; without a value if that is unknown.";
    BREACH_ID breach_id: Text, Optional, "Id of the breach, the same in all of its events.";
    STARTED_AT started_at: Time, Optional, "Beginning of the first reading at or above the limit; of rates: of the window.";
    RAISED_AT raised_at: Time, Optional, "End of the reading that raised the breach.";
    ENDED_AT ended_at: Time, Optional, "End of the last reading so far that was at or above the limit's clear_at. When a clear \
     was detected is its observed_at.";
    LIMIT_NAME limit_name: Text, Optional, "Name of the limit.";
    SEVERITY severity: Word(&[Severity::Warning.as_str(), Severity::Critical.as_str()]), Optional, "warning or critical.";
    INTERFACE interface: Text, Optional, "Name of the link; * for the sum over the host's links.";
    IFINDEX ifindex: UInt32, Optional, "The kernel's index of the link.";
    DIRECTION direction: Word(&[Direction::Rx.as_str(), Direction::Tx.as_str(), Direction::Total.as_str()]), Optional, "rx, tx or total.";
    LIMIT_BPS limit_bps: UInt64, Optional, "Rate at which the limit is exceeded: its raise_at.";
    RATE_BPS rate_bps: UInt64, Optional, "Rate of the last reading that was evaluated.";
    PEAK_BPS peak_bps: UInt64, Optional, "Highest rate of one counted reading. A reading counts if it is at or above \
        clear_at, or if one that is follows within clear_for.";
    MEAN_BPS mean_bps: UInt64, Optional, "Mean rate over measured_ms.";
    DURATION_MS duration_ms: UInt64, Optional, "Time from started_at to ended_at, measured or not; of a sample: since the reading \
        before it; of rates: from started_at to observed_at.";
    MEASURED_MS measured_ms: UInt64, Optional, "Total time of the counted readings.";
    EXCESS_BYTES excess_bytes: UInt64, Optional, "Bytes above limit_bps, summed over the counted readings.";
    SPEED_BPS speed_bps: UInt64, Optional, "Speed of the link, if known.";
    RX_BYTES rx_bytes: UInt64, Optional, "Of a sample: bytes received in duration_ms.";
    TX_BYTES tx_bytes: UInt64, Optional, "Of a sample: bytes sent in duration_ms.";
    RX_BPS rx_bps: UInt64, Optional, "Of a sample: mean rate of what was received.";
    TX_BPS tx_bps: UInt64, Optional, "Of a sample: mean rate of what was sent.";
    LOST_EPOCH lost_epoch: FieldType::Epoch, Optional, "Of a loss: epoch of the lost events.";
    RANGES ranges: Ranges, Optional, "Of a loss: numbers of the lost events, the first and the last of each range.";
    VERSION version: Text, Optional, "Version of the agent, of agent_started, agent_stopped, heartbeat and rates.";
    REASON reason: Text, Optional, "Reason, as one word for programs to match; newer agents may have more of them. Of a breach that was cleared: below, \
        link_removed, link_renamed, limit_removed, interrupted. Of a loss: evicted, expired, rejected, damaged, interrupted. Of a link: \
        added, removed, renamed, up, down. Of agent_stopped: signal, finished. Of a sample without a rate: first, reset.";
    DETAIL detail: Text, Optional, "Details for people; programs should not match them.";
    LINKS links: Links, Optional, "Of rates: each watched link and direction, and total where a limit judges the sum of both.";
}

pub mod link_rates {
    use super::*;

    fields! {
        INTERFACE interface: Text, Required, "Name of the link.";
        DIRECTION direction: Word(&[Direction::Rx.as_str(), Direction::Tx.as_str(), Direction::Total.as_str()]), Required, "rx, tx or total.";
        BYTES bytes: UInt64, Defaulted, "Bytes in the measured seconds.";
        PACKETS packets: UInt64, Optional, "Packets in the measured seconds, if counted; errors and drops likewise.";
        ERRORS errors: UInt64, Optional, "Packets with errors.";
        DROPS drops: UInt64, Optional, "Packets that were dropped.";
        MEASURED_S measured_s: UInt32, Defaulted, "Seconds of the window with a rate.";
        UNMEASURED_S unmeasured_s: UInt32, Defaulted, "Seconds of the window without one: the agent did not run, the link was not there, its \
            counters could not be read or were reset.";
        MIN_BPS min_bps: UInt64, Optional, "Lowest rate of one second; left out, as the next five, if no second was measured.";
        MEAN_BPS mean_bps: UInt64, Optional, "Mean rate over measured_s.";
        MAX_BPS max_bps: UInt64, Optional, "Highest rate of one second.";
        P50_BPS p50_bps: UInt64, Optional, "Median of the one-second rates; as p95_bps and p99_bps from the histogram, so at most 1 % too high.";
        P95_BPS p95_bps: UInt64, Optional, "Rate that 95 % of the seconds do not exceed.";
        P99_BPS p99_bps: UInt64, Optional, "Rate that 99 % of the seconds do not exceed.";
        SPEED_BPS speed_bps: UInt64, Optional, "Speed of the link, if known.";
        OVER over: OverLimits, Defaulted, "Each limit that judges this link and direction.";
        HISTOGRAM histogram: Bytes, Optional, "HdrHistogram (V2, deflate, 2 significant digits) of the one-second rates in kbit/s. Base64 in JSON.";
    }
}

pub mod over_limit {
    use super::*;

    fields! {
        LIMIT_NAME limit_name: Text, Required, "Name of the limit.";
        LIMIT_BPS limit_bps: UInt64, Defaulted, "Rate at which the limit is exceeded: its raise_at.";
        OVER_S over_s: UInt32, Defaulted, "Seconds at or above it.";
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.name == other.name
    }
}

impl FieldError {
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl ToString) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

pub trait FieldData: Sized {
    fn value(&self) -> Option<FieldValue<'_>>;

    /// Fails if `value` is missing, or is not of this type.
    fn read(field: &'static Field, value: Option<FieldValue<'_>>) -> Result<Self, FieldError>;
}

impl<T: FieldData> FieldData for Option<T> {
    #[inline(always)]
    fn value(&self) -> Option<FieldValue<'_>> {
        self.as_ref().and_then(T::value)
    }

    fn read(field: &'static Field, value: Option<FieldValue<'_>>) -> Result<Self, FieldError> {
        value.map(|value| T::read(field, Some(value))).transpose()
    }
}

macro_rules! data {
    ($($of:ty: |$this:ident| $write:expr, |$field:ident| $($read:pat => $result:expr),+;)*) => { $(
        impl FieldData for $of {
            #[inline(always)]
            fn value(&self) -> Option<FieldValue<'_>> {
                let $this = self;
                Some($write)
            }

            fn read($field: &'static Field, value: Option<FieldValue<'_>>) -> Result<Self, FieldError> {
                match value {
                    $(Some($read) => $result,)+
                    _ => Err(FieldError::new($field.name, "is missing")),
                }
            }
        }
    )* };
}

data! {
    u64: |number| FieldValue::Number(*number), |field| FieldValue::Number(number) => below_2_63(field, number);
    u32: |number| FieldValue::Number((*number).into()), |field| FieldValue::Number(number) => {
        u32::try_from(number).map_err(|_| FieldError::new(field.name, format!("{number} is over 2^32 - 1")))
    };
    bool: |truth| FieldValue::Bool(*truth), |field| FieldValue::Bool(truth) => Ok(truth);
    DateTime<Utc>: |time| FieldValue::Time(*time), |field| FieldValue::Time(time) => Ok(time);
    SmolStr: |text| FieldValue::Text(text.as_str().into()), |field| FieldValue::Text(text) => Ok(text.into());
    String: |text| FieldValue::Text(text.as_str().into()), |field| FieldValue::Text(text) => Ok(text.into_owned());
    Reason: |reason| FieldValue::Text(reason.as_str().into()), |field| FieldValue::Text(word) => Ok(Self::from(&*word));
    Severity: |severity| FieldValue::Text(severity.as_str().into()), |field| FieldValue::Text(word) => {
        [Self::Warning, Self::Critical].into_iter().find(|one| one.as_str() == word).ok_or_else(|| no_word(field, &word))
    };
    Direction: |direction| FieldValue::Text(direction.as_str().into()), |field| FieldValue::Text(word) => {
        [Self::Rx, Self::Tx, Self::Total].into_iter().find(|one| one.as_str() == word).ok_or_else(|| no_word(field, &word))
    };
    Epoch: |epoch| FieldValue::Epoch(*epoch), |field| FieldValue::Text(text) => {
        text.parse().map_err(|error| FieldError::new(field.name, error))
    };
    Vec<(u64, u64)>: |ranges| FieldValue::Ranges(ranges.into()), |field| FieldValue::Ranges(ranges) => {
        let bad = ranges.iter().find(|(first, last)| *first == 0 || first > last);
        if let Some((first, last)) = bad {
            return Err(FieldError::new(field.name, format!("[{first}, {last}] is no range")));
        }
        ranges.iter().try_for_each(|(_, last)| below_2_63(field, *last).map(drop))?;
        Ok(ranges.into_owned())
    };
    Vec<u8>: |bytes| FieldValue::Bytes(bytes.into()), |field| FieldValue::Bytes(bytes) => Ok(bytes.into_owned());
    Vec<OverLimit>: |over| FieldValue::OverLimits(over.into()), |field| FieldValue::OverLimits(over) => Ok(over.into_owned());
}

impl FieldData for Vec<LinkRates> {
    fn value(&self) -> Option<FieldValue<'_>> {
        Some(FieldValue::Links(self.into()))
    }

    /// Returns no links if there is no value: in Protobuf, an empty list is none.
    fn read(field: &'static Field, value: Option<FieldValue<'_>>) -> Result<Self, FieldError> {
        match value {
            None => Ok(Vec::new()),
            Some(FieldValue::Links(links)) => Ok(links.into_owned()),
            Some(_) => Err(FieldError::new(field.name, "is no list of links")),
        }
    }
}

fn below_2_63(field: &'static Field, number: u64) -> Result<u64, FieldError> {
    if i64::try_from(number).is_err() {
        return Err(FieldError::new(field.name, format!("{number} is over 2^63 - 1")));
    }
    Ok(number)
}

fn no_word(field: &'static Field, word: &str) -> FieldError {
    let FieldType::Word(words) = field.field_type else { return FieldError::new(field.name, "is no word") };
    FieldError::new(field.name, format!("`{word}` is none of {}", words.join(", ")))
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldValues<'a, const N: usize = { FIELDS.len() }>([Option<FieldValue<'a>>; N]);

impl<const N: usize> Default for FieldValues<'_, N> {
    fn default() -> Self {
        Self([const { None }; N])
    }
}

impl<'a, const N: usize> FieldValues<'a, N> {
    pub fn get_mut(&mut self, field: &Field) -> &mut Option<FieldValue<'a>> {
        &mut self.0[field.index]
    }

    fn take<T: FieldData>(&mut self, field: &'static Field) -> Result<T, FieldError> {
        let value = self.0[field.index].take();
        let default = || match field.field_type {
            FieldType::Text => FieldValue::Text("".into()),
            OverLimits => FieldValue::OverLimits(Cow::Borrowed(&[])),
            _ => FieldValue::Number(0),
        };
        T::read(field, value.or_else(|| (field.presence == FieldPresence::Defaulted).then(default)))
    }
}

impl<'a> FieldValues<'a> {
    pub fn iter(&self) -> impl Iterator<Item = (&'static Field, Option<&FieldValue<'a>>)> {
        FIELDS.iter().zip(self.0.iter().map(Option::as_ref))
    }
}

impl Event {
    /// Calls `each` for the fields of its kind, in the order of [`FIELDS`]; without a value if it is unknown.
    #[inline(always)]
    pub fn visit<'a>(&'a self, each: &mut impl FnMut(&'static Field, Option<FieldValue<'a>>)) {
        let Self { id, stamp, body } = self;
        each(&SCHEMA, Some(FieldValue::Number(SCHEMA_VERSION.into())));
        each(&AGENT, stamp.agent.value());
        each(&EPOCH, id.epoch.value());
        each(&SEQ, id.seq.value());
        each(&KIND, Some(FieldValue::Text(body.kind().into())));
        each(&OBSERVED_AT, stamp.observed_at.value());
        each(&BOOT_ID, stamp.boot_id.value());
        each(&MONOTONIC_MS, stamp.monotonic_ms.value());
        each(&CLOCK_SYNCED, stamp.clock_synced.value());
        body.visit(each);
    }

    #[inline(always)]
    pub fn visit_all<'a>(&'a self, mut each: impl FnMut(&'static Field, Option<FieldValue<'a>>)) {
        let mut next = 0;
        self.visit(&mut |field, value| {
            FIELDS[next..field.index].iter().for_each(|absent| each(absent, None));
            next = field.index + 1;
            each(field, value);
        });
        FIELDS[next..].iter().for_each(|absent| each(absent, None));
    }

    /// Fails if a field that an event of this kind must have is missing, or a value is out of its bounds.
    pub fn read(mut values: FieldValues<'_>) -> Result<Self, FieldError> {
        let from = &mut values;
        let kind: SmolStr = from.take(&KIND)?;
        from.take::<u32>(&SCHEMA)?;
        let id = EventId { epoch: from.take(&EPOCH)?, seq: from.take(&SEQ)? };
        if id.seq == 0 {
            return Err(FieldError::new(SEQ.name, "counts from 1"));
        }
        let stamp = Stamp::read(from)?;
        let body = Body::read(kind, from)?;
        Ok(Self { id, stamp, body })
    }
}

impl Stamp {
    fn read(from: &mut FieldValues<'_>) -> Result<Self, FieldError> {
        let agent: SmolStr = from.take(&AGENT)?;
        if agent.is_empty() || agent.len() > AGENT_BYTES_MAX {
            let bytes = agent.len();
            return Err(FieldError::new(AGENT.name, format!("has {bytes} bytes; 1 to {AGENT_BYTES_MAX} are allowed")));
        }
        Ok(Self {
            agent,
            observed_at: from.take(&OBSERVED_AT)?,
            boot_id: from.take(&BOOT_ID)?,
            monotonic_ms: from.take(&MONOTONIC_MS)?,
            clock_synced: from.take(&CLOCK_SYNCED)?,
        })
    }
}

pub trait Item<const N: usize>: Sized {
    const FIELDS: &'static [Field; N];

    fn visit<'a>(&'a self, each: &mut impl FnMut(&'static Field, Option<FieldValue<'a>>));

    fn read(values: FieldValues<'_, N>) -> Result<Self, FieldError>;
}

/// Defines which fields a body has, in the order of [`FIELDS`], and where it keeps them.
macro_rules! bodies {
    ($($body:ident { $($constant:ident: $member:ident),+ $(,)? })+) => { $(
        impl $body {
            #[inline(always)]
            fn visit<'a>(&'a self, each: &mut impl FnMut(&'static Field, Option<FieldValue<'a>>)) {
                $(each(&$constant, self.$member.value());)+
            }

            fn read(from: &mut FieldValues<'_>) -> Result<Self, FieldError> {
                Ok(Self { $($member: from.take(&$constant)?),+ })
            }
        }
    )+ };
}

macro_rules! kinds {
    ($($body:ident: $($variant:ident $kind:literal),+;)+) => {
        impl Body {
            pub fn kind(&self) -> &str {
                match self {
                    $($(Self::$variant(_) => $kind,)+)+
                    Self::Unknown(kind) => kind,
                }
            }

            #[inline(always)]
            fn visit<'a>(&'a self, each: &mut impl FnMut(&'static Field, Option<FieldValue<'a>>)) {
                match self {
                    $($(Self::$variant(body))|+ => body.visit(each),)+
                    Self::Unknown(_) => {}
                }
            }

            fn read(kind: SmolStr, from: &mut FieldValues<'_>) -> Result<Self, FieldError> {
                Ok(match kind.as_str() {
                    $($($kind => Self::$variant($body::read(from)?),)+)+
                    _ => Self::Unknown(kind.into()),
                })
            }
        }
    };
}

/// Defines the fields of an item, which has all of its list.
macro_rules! items {
    ($($item:ident of $list:ident { $($constant:ident: $member:ident),+ $(,)? })+) => { $(
        impl Item<{ $list::FIELDS.len() }> for $item {
            const FIELDS: &'static [Field; $list::FIELDS.len()] = &$list::FIELDS;

            fn visit<'a>(&'a self, each: &mut impl FnMut(&'static Field, Option<FieldValue<'a>>)) {
                $(each(&$list::$constant, self.$member.value());)+
            }

            fn read(mut from: FieldValues<'_, { $list::FIELDS.len() }>) -> Result<Self, FieldError> {
                Ok(Self { $($member: from.take(&$list::$constant)?),+ })
            }
        }
    )+ };
}

bodies! {
    Breach {
        BREACH_ID: breach_id, STARTED_AT: started_at, RAISED_AT: raised_at, ENDED_AT: ended_at, LIMIT_NAME: limit_name,
        SEVERITY: severity, INTERFACE: interface, IFINDEX: ifindex, DIRECTION: direction, LIMIT_BPS: limit_bps,
        RATE_BPS: rate_bps, PEAK_BPS: peak_bps, MEAN_BPS: mean_bps, DURATION_MS: duration_ms, MEASURED_MS: measured_ms,
        EXCESS_BYTES: excess_bytes, REASON: reason, DETAIL: detail,
    }
    Loss { LOST_EPOCH: epoch, RANGES: ranges, REASON: reason, DETAIL: detail }
    Link { INTERFACE: interface, IFINDEX: ifindex, SPEED_BPS: speed_bps, REASON: reason, DETAIL: detail }
    Lifecycle { VERSION: version, REASON: reason, DETAIL: detail }
    Sample {
        INTERFACE: interface, DURATION_MS: duration_ms, RX_BYTES: rx_bytes, TX_BYTES: tx_bytes, RX_BPS: rx_bps, TX_BPS: tx_bps,
        REASON: reason,
    }
    RateWindow { STARTED_AT: started_at, DURATION_MS: duration_ms, VERSION: version, LINKS: links }
}

kinds! {
    Breach: BreachRaised "breach_raised", BreachUpdated "breach_updated", BreachCleared "breach_cleared";
    Loss: Loss "loss";
    Link: LinkAdded "link_added", LinkRemoved "link_removed", LinkChanged "link_changed";
    Lifecycle: AgentStarted "agent_started", AgentStopped "agent_stopped", Heartbeat "heartbeat";
    Sample: Sample "sample";
    RateWindow: Rates "rates";
}

items! {
    LinkRates of link_rates {
        INTERFACE: interface, DIRECTION: direction, BYTES: bytes, PACKETS: packets, ERRORS: errors, DROPS: drops,
        MEASURED_S: measured_s, UNMEASURED_S: unmeasured_s, MIN_BPS: min_bps, MEAN_BPS: mean_bps, MAX_BPS: max_bps,
        P50_BPS: p50_bps, P95_BPS: p95_bps, P99_BPS: p99_bps, SPEED_BPS: speed_bps, OVER: over, HISTOGRAM: histogram,
    }
    OverLimit of over_limit { LIMIT_NAME: limit_name, LIMIT_BPS: limit_bps, OVER_S: over_s }
}
