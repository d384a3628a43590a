//! The event in Protobuf: `event.proto`, as Rust.

#[cfg(feature = "consumer")]
use base64::Engine as _;
#[cfg(feature = "consumer")]
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use prost::Message as _;
#[cfg(feature = "consumer")]
use serde_json::Value;

#[cfg(feature = "consumer")]
use super::DecodeError;
use super::flat::Flat;

pub(super) const SCHEMA: &str = include_str!("event.proto");

/// First byte of every message of ours: the tag of field 1. No other format begins with it.
#[cfg(feature = "consumer")]
pub(super) const FIRST_BYTE: u8 = 0x08;

/// Fields as in `event.proto`; a test compares the two.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    #[prost(uint32, tag = "1")]
    schema: u32,
    #[prost(string, tag = "2")]
    agent: String,
    #[prost(string, tag = "3")]
    epoch: String,
    #[prost(uint64, tag = "4")]
    seq: u64,
    #[prost(string, tag = "5")]
    kind: String,
    #[prost(message, optional, tag = "6")]
    observed_at: Option<Timestamp>,
    #[prost(string, tag = "7")]
    boot_id: String,
    #[prost(uint64, tag = "8")]
    monotonic_ms: u64,
    #[prost(bool, optional, tag = "9")]
    clock_synced: Option<bool>,
    #[prost(string, optional, tag = "10")]
    breach_id: Option<String>,
    #[prost(message, optional, tag = "11")]
    started_at: Option<Timestamp>,
    #[prost(message, optional, tag = "12")]
    raised_at: Option<Timestamp>,
    #[prost(message, optional, tag = "13")]
    ended_at: Option<Timestamp>,
    #[prost(string, optional, tag = "14")]
    limit_name: Option<String>,
    #[prost(string, optional, tag = "15")]
    severity: Option<String>,
    #[prost(string, optional, tag = "16")]
    interface: Option<String>,
    #[prost(uint32, optional, tag = "17")]
    ifindex: Option<u32>,
    #[prost(string, optional, tag = "18")]
    direction: Option<String>,
    #[prost(uint64, optional, tag = "19")]
    limit_bps: Option<u64>,
    #[prost(uint64, optional, tag = "20")]
    rate_bps: Option<u64>,
    #[prost(uint64, optional, tag = "21")]
    peak_bps: Option<u64>,
    #[prost(uint64, optional, tag = "22")]
    mean_bps: Option<u64>,
    #[prost(uint64, optional, tag = "23")]
    duration_ms: Option<u64>,
    #[prost(uint64, optional, tag = "24")]
    measured_ms: Option<u64>,
    #[prost(uint64, optional, tag = "25")]
    excess_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "26")]
    speed_bps: Option<u64>,
    #[prost(uint64, optional, tag = "27")]
    rx_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "28")]
    tx_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "29")]
    rx_bps: Option<u64>,
    #[prost(uint64, optional, tag = "30")]
    tx_bps: Option<u64>,
    #[prost(string, optional, tag = "31")]
    lost_epoch: Option<String>,
    #[prost(message, repeated, tag = "32")]
    ranges: Vec<Range>,
    #[prost(string, optional, tag = "33")]
    version: Option<String>,
    #[prost(string, optional, tag = "34")]
    reason: Option<String>,
    #[prost(string, optional, tag = "35")]
    detail: Option<String>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Range {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    last: u64,
}

pub(super) fn encode(flat: &Flat<'_>, bytes: &mut Vec<u8>) {
    Event::from(flat).encode(bytes).expect("a Vec has room");
}

impl From<&Flat<'_>> for Event {
    fn from(flat: &Flat<'_>) -> Self {
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            schema: flat.schema,
            agent: flat.agent.to_string(),
            epoch: flat.epoch.to_string(),
            seq: flat.seq,
            kind: flat.kind.to_string(),
            observed_at: Some(flat.observed_at.into()),
            boot_id: flat.boot_id.to_string(),
            monotonic_ms: flat.monotonic_ms,
            clock_synced: flat.clock_synced,
            breach_id: owned(&flat.breach_id),
            started_at: flat.started_at.map(Timestamp::from),
            raised_at: flat.raised_at.map(Timestamp::from),
            ended_at: flat.ended_at.map(Timestamp::from),
            limit_name: owned(&flat.limit_name),
            severity: flat.severity.map(|severity| severity.as_str().to_owned()),
            interface: owned(&flat.interface),
            ifindex: flat.ifindex,
            direction: flat.direction.map(|direction| direction.as_str().to_owned()),
            limit_bps: flat.limit_bps,
            rate_bps: flat.rate_bps,
            peak_bps: flat.peak_bps,
            mean_bps: flat.mean_bps,
            duration_ms: flat.duration_ms,
            measured_ms: flat.measured_ms,
            excess_bytes: flat.excess_bytes,
            speed_bps: flat.speed_bps,
            rx_bytes: flat.rx_bytes,
            tx_bytes: flat.tx_bytes,
            rx_bps: flat.rx_bps,
            tx_bps: flat.tx_bps,
            lost_epoch: owned(&flat.lost_epoch),
            ranges: flat
                .ranges
                .iter()
                .flat_map(|ranges| ranges.iter())
                .map(|&(first, last)| Range { first, last })
                .collect(),
            version: owned(&flat.version),
            reason: owned(&flat.reason),
            detail: owned(&flat.detail),
        }
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
    }
}

/// Decodes a message, ignoring fields that a newer agent added.
#[cfg(feature = "consumer")]
pub(super) fn decode(bytes: &[u8]) -> Result<Flat<'static>, DecodeError> {
    Event::decode(bytes)?.try_into()
}

/// Renders an event of an unknown kind as JSON: the fields that have names here, and the whole message in base64 for the rest.
#[cfg(feature = "consumer")]
pub(super) fn rendered(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut value = serde_json::to_value(decode(bytes)?)?;
    value["protobuf"] = BASE64_STANDARD.encode(bytes).into();
    Ok(value)
}

#[cfg(feature = "consumer")]
impl TryFrom<Event> for Flat<'static> {
    type Error = DecodeError;

    fn try_from(event: Event) -> Result<Self, DecodeError> {
        let missing = |field| DecodeError::field(field, "is missing");
        if event.kind.is_empty() {
            return Err(missing("kind"));
        }
        let time = |name, time: Timestamp| time.utc().ok_or_else(|| DecodeError::field(name, "is no time"));
        Ok(Self {
            schema: event.schema,
            agent: event.agent.into(),
            epoch: event.epoch.into(),
            seq: event.seq,
            kind: event.kind.into(),
            observed_at: time("observed_at", event.observed_at.ok_or_else(|| missing("observed_at"))?)?,
            boot_id: event.boot_id.into(),
            monotonic_ms: event.monotonic_ms,
            clock_synced: event.clock_synced,
            breach_id: event.breach_id.map(Into::into),
            started_at: event.started_at.map(|at| time("started_at", at)).transpose()?,
            raised_at: event.raised_at.map(|at| time("raised_at", at)).transpose()?,
            ended_at: event.ended_at.map(|at| time("ended_at", at)).transpose()?,
            limit_name: event.limit_name.map(Into::into),
            severity: event.severity.map(|text| named("severity", text)).transpose()?,
            interface: event.interface.map(Into::into),
            ifindex: event.ifindex,
            direction: event.direction.map(|text| named("direction", text)).transpose()?,
            limit_bps: event.limit_bps,
            rate_bps: event.rate_bps,
            peak_bps: event.peak_bps,
            mean_bps: event.mean_bps,
            duration_ms: event.duration_ms,
            measured_ms: event.measured_ms,
            excess_bytes: event.excess_bytes,
            speed_bps: event.speed_bps,
            rx_bytes: event.rx_bytes,
            tx_bytes: event.tx_bytes,
            rx_bps: event.rx_bps,
            tx_bps: event.tx_bps,
            lost_epoch: event.lost_epoch.map(Into::into),
            // An empty list and a missing one are the same bytes.
            ranges: (!event.ranges.is_empty()).then(|| event.ranges.iter().map(|r| (r.first, r.last)).collect()),
            version: event.version.map(Into::into),
            reason: event.reason.map(Into::into),
            detail: event.detail.map(Into::into),
        })
    }
}

#[cfg(feature = "consumer")]
impl Timestamp {
    /// Returns the time, if its nanoseconds are below a second's: 0 to 999,999,999, or as many again in a leap second.
    fn utc(self) -> Option<DateTime<Utc>> {
        let nanos = u32::try_from(self.nanos).ok()?;
        let leap = i64::from(nanos / 1_000_000_000);
        DateTime::from_timestamp(self.seconds.checked_add(leap).filter(|_| leap <= 1)?, nanos % 1_000_000_000)
    }
}

#[cfg(feature = "consumer")]
fn named<T: serde::de::DeserializeOwned>(field: &'static str, text: String) -> Result<T, DecodeError> {
    serde_json::from_value(Value::String(text)).map_err(|error| DecodeError::field(field, error))
}

// These tests read what was written: they need the decoder too.
#[cfg(all(test, feature = "consumer"))]
pub(in crate::wire) mod tests;
