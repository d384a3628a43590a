//! The fields of an event, each defined once: name, number, type, and its sentence in the schemas. Every format and every table
//! is made of this list. What is written visits the fields of an event ([`Event::visit`]); what is read is collected by field
//! ([`FieldValues`]) and becomes an event ([`Event::read`]). A number is never used again.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use smol_str::SmolStr;

use super::{
    AGENT_BYTES_MAX, Body, Breach, Direction, Epoch, Event, EventId, Lifecycle, Link, Loss, Reason, SCHEMA_VERSION,
    Sample, Severity, Stamp,
};

#[derive(Debug)]
pub struct Field {
    /// Place in [`FIELDS`] and in Avro; one less than the number in Protobuf.
    pub index: usize,
    pub name: &'static str,
    pub json_key: &'static str,
    pub of: FieldType,
    pub presence: FieldPresence,
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Version,
    UInt32,
    /// Below 2^63, as PostgreSQL's `bigint` is.
    UInt64,
    Text,
    Epoch,
    Word(&'static [&'static str]),
    Time,
    Bool,
    Ranges,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldPresence {
    Required,
    /// 0 or empty if a writer left it out.
    Defaulted,
    /// Null if unknown, and never left out.
    Nullable,
    Optional,
}

/// Value of a field, borrowed from the event or, where it can be, from the message.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    Number(u64),
    Text(Cow<'a, str>),
    /// Written only: what is read is a text until its spelling is checked.
    Epoch(Epoch),
    Time(DateTime<Utc>),
    Bool(bool),
    Ranges(Cow<'a, [(u64, u64)]>),
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
                of: $of,
                presence: FieldPresence::$presence,
                doc: $doc,
            };
        )*

        pub static FIELDS: [Field; [$(Place::$constant as usize),*].len()] = [$($constant),*];
    };
}

use FieldType::{Bool, Ranges, Text, Time, UInt32, UInt64, Version, Word};

fields! {
    SCHEMA schema: Version, Required, "Version of the fields that the writer knows.";
    AGENT agent: Text, Required, "Name of the agent that observed the event; at most 255 bytes.";
    EPOCH epoch: FieldType::Epoch, Required, "Life of the agent's journal that counts the event: 16 hex digits, drawn at random.";
    SEQ seq: UInt64, Required, "Number of the event in its epoch, from 1, without gaps.";
    KIND kind: Text, Required, "Kind of event: breach_raised, breach_updated, breach_cleared, loss, link_added, link_removed, link_changed, \
        agent_started, agent_stopped, sample, or one that was added later.";
    OBSERVED_AT observed_at: Time, Required, "Time of the observation by the agent's wall clock, in whole microseconds.";
    BOOT_ID boot_id: Text, Defaulted, "The kernel's id of the boot.";
    MONOTONIC_MS monotonic_ms: UInt64, Defaulted, "Time of the observation in milliseconds since boot, including suspends.";
    CLOCK_SYNCED clock_synced: Bool, Nullable, "True if the wall clock followed a time source; without a value if that is unknown.";
    BREACH_ID breach_id: Text, Optional, "Id of the breach, the same in all of its events.";
    STARTED_AT started_at: Time, Optional, "Beginning of the first reading at or above the limit.";
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
        before it.";
    MEASURED_MS measured_ms: UInt64, Optional, "Total time of the counted readings.";
    EXCESS_BYTES excess_bytes: UInt64, Optional, "Bytes above limit_bps, summed over the counted readings.";
    SPEED_BPS speed_bps: UInt64, Optional, "Speed of the link, if known.";
    RX_BYTES rx_bytes: UInt64, Optional, "Of a sample: bytes received in duration_ms.";
    TX_BYTES tx_bytes: UInt64, Optional, "Of a sample: bytes sent in duration_ms.";
    RX_BPS rx_bps: UInt64, Optional, "Of a sample: mean rate of what was received.";
    TX_BPS tx_bps: UInt64, Optional, "Of a sample: mean rate of what was sent.";
    LOST_EPOCH lost_epoch: FieldType::Epoch, Optional, "Of a loss: epoch of the lost events.";
    RANGES ranges: Ranges, Optional, "Of a loss: numbers of the lost events, the first and the last of each range.";
    VERSION version: Text, Optional, "Version of the agent, of agent_started and agent_stopped.";
    REASON reason: Text, Optional, "Reason, as one word for programs to match; newer agents may have more of them. Of a breach that was cleared: below, \
        link_removed, link_renamed, limit_removed, interrupted. Of a loss: evicted, expired, rejected, damaged. Of a link: \
        added, removed, renamed, up, down. Of agent_stopped: signal, finished. Of a sample without a rate: first, reset.";
    DETAIL detail: Text, Optional, "Details for people; programs should not match them.";
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl FieldError {
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl ToString) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

pub trait FieldData: Sized {
    fn value(&self) -> Option<FieldValue<'_>>;

    /// # Errors
    /// If `value` is missing, or is not of this type.
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
}

fn below_2_63(field: &'static Field, number: u64) -> Result<u64, FieldError> {
    if i64::try_from(number).is_err() {
        return Err(FieldError::new(field.name, format!("{number} is over 2^63 - 1")));
    }
    Ok(number)
}

fn no_word(field: &'static Field, word: &str) -> FieldError {
    let FieldType::Word(words) = field.of else { return FieldError::new(field.name, "is no word") };
    FieldError::new(field.name, format!("`{word}` is none of {}", words.join(", ")))
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldValues<'a>([Option<FieldValue<'a>>; FIELDS.len()]);

impl Default for FieldValues<'_> {
    fn default() -> Self {
        Self([const { None }; FIELDS.len()])
    }
}

impl<'a> FieldValues<'a> {
    pub fn get_mut(&mut self, field: &Field) -> &mut Option<FieldValue<'a>> {
        &mut self.0[field.index]
    }

    /// Takes the value of a field out. Fails if it is missing but must not be, or is not of the type.
    fn take<T: FieldData>(&mut self, field: &'static Field) -> Result<T, FieldError> {
        T::read(field, self.0[field.index].take())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static Field, Option<&FieldValue<'a>>)> {
        FIELDS.iter().zip(self.0.iter().map(Option::as_ref))
    }
}

impl Event {
    /// Calls `each` for the fields that an event of its kind has, in the order of [`FIELDS`]; without a value if it is unknown.
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
        match body {
            Body::BreachRaised(breach) | Body::BreachUpdated(breach) | Body::BreachCleared(breach) => {
                breach.visit(each);
            }
            Body::Loss(loss) => loss.visit(each),
            Body::LinkAdded(link) | Body::LinkRemoved(link) | Body::LinkChanged(link) => link.visit(each),
            Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) => lifecycle.visit(each),
            Body::Sample(sample) => sample.visit(each),
            Body::Unknown(_) => {}
        }
    }

    /// Calls `each` for all of [`FIELDS`]; without a value if the event does not have the field.
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

    /// # Errors
    /// If a field that an event of this kind must have is missing, or a value is out of its bounds.
    pub fn read(mut values: FieldValues<'_>) -> Result<Self, FieldError> {
        let from = &mut values;
        let kind: SmolStr = from.take(&KIND)?;
        from.take::<u32>(&SCHEMA)?;
        let id = EventId { epoch: from.take(&EPOCH)?, seq: from.take(&SEQ)? };
        if id.seq == 0 {
            return Err(FieldError::new(SEQ.name, "counts from 1"));
        }
        let stamp = Stamp::read(from)?;
        let body = match kind.as_str() {
            "breach_raised" => Body::BreachRaised(Breach::read(from)?),
            "breach_updated" => Body::BreachUpdated(Breach::read(from)?),
            "breach_cleared" => Body::BreachCleared(Breach::read(from)?),
            "loss" => Body::Loss(Loss::read(from)?),
            "link_added" => Body::LinkAdded(Link::read(from)?),
            "link_removed" => Body::LinkRemoved(Link::read(from)?),
            "link_changed" => Body::LinkChanged(Link::read(from)?),
            "agent_started" => Body::AgentStarted(Lifecycle::read(from)?),
            "agent_stopped" => Body::AgentStopped(Lifecycle::read(from)?),
            "sample" => Body::Sample(Sample::read(from)?),
            unknown => Body::Unknown(unknown.to_owned()),
        };
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
            boot_id: from.take::<Option<_>>(&BOOT_ID)?.unwrap_or_default(),
            monotonic_ms: from.take::<Option<_>>(&MONOTONIC_MS)?.unwrap_or_default(),
            clock_synced: from.take(&CLOCK_SYNCED)?,
        })
    }
}

/// Defines which fields a body has, in the order of [`FIELDS`], and where it keeps them: for writing and for reading.
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
}
