//! The fields of an event, flat, as every format carries them. [`Flat`] is the only place that knows their names; each format
//! maps it to bytes.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use smol_str::SmolStr;

use super::DecodeError;
use super::time::{normalized, rfc3339};
use crate::event::{
    AGENT_BYTES_MAX, Body, Breach, Direction, Event, EventId, Lifecycle, Link, Loss, Reason, SCHEMA, Sample, Severity,
    Stamp,
};

/// Every field that any kind has; those that a kind does not have are left out. Numbers are below 2^63, as PostgreSQL's `bigint`
/// is.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Flat<'a> {
    pub(super) schema: u32,
    pub(super) agent: Cow<'a, str>,
    pub(super) epoch: SmolStr,
    pub(super) seq: u64,
    pub(super) kind: Cow<'a, str>,
    #[serde(serialize_with = "micros")]
    pub(super) observed_at: DateTime<Utc>,
    #[serde(default)]
    pub(super) boot_id: Cow<'a, str>,
    #[serde(default)]
    pub(super) monotonic_ms: u64,
    pub(super) clock_synced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) breach_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "maybe_micros")]
    pub(super) started_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "maybe_micros")]
    pub(super) raised_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "maybe_micros")]
    pub(super) ended_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) severity: Option<Severity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mean_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) measured_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) excess_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) speed_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rx_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tx_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost_epoch: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ranges: Option<Cow<'a, [(u64, u64)]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<Cow<'a, str>>,
}

fn micros<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

fn maybe_micros<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => micros(time, serializer),
        None => serializer.serialize_none(),
    }
}

impl<'a> From<&'a Event> for Flat<'a> {
    fn from(event: &'a Event) -> Self {
        let Event { id, stamp, body } = event;
        let mut flat = Self {
            schema: SCHEMA,
            agent: stamp.agent.as_str().into(),
            epoch: id.epoch.digits(),
            seq: id.seq,
            kind: body.kind().into(),
            observed_at: stamp.observed_at,
            boot_id: stamp.boot_id.as_str().into(),
            monotonic_ms: stamp.monotonic_ms,
            clock_synced: stamp.clock_synced,
            ..Self::default()
        };
        match body {
            Body::BreachRaised(breach) | Body::BreachUpdated(breach) | Body::BreachCleared(breach) => {
                flat.breach(breach);
            }
            Body::Loss(loss) => {
                flat.lost_epoch = Some(loss.epoch.to_string().into());
                flat.ranges = Some(loss.ranges.as_slice().into());
                flat.reason = Some(word(&loss.reason));
                flat.detail = loss.detail.as_deref().map(Cow::from);
            }
            Body::LinkAdded(link) | Body::LinkRemoved(link) | Body::LinkChanged(link) => {
                flat.interface = Some(link.interface.as_str().into());
                flat.ifindex = Some(link.ifindex);
                flat.speed_bps = link.speed_bps;
                flat.reason = link.reason.as_ref().map(word);
                flat.detail = link.detail.as_deref().map(Cow::from);
            }
            Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) => {
                flat.version = Some(lifecycle.version.as_str().into());
                flat.reason = lifecycle.reason.as_ref().map(word);
                flat.detail = lifecycle.detail.as_deref().map(Cow::from);
            }
            Body::Sample(sample) => flat.sample(sample),
            Body::Unknown(_) => {}
        }
        flat
    }
}

impl<'a> Flat<'a> {
    fn breach(&mut self, breach: &'a Breach) {
        self.breach_id = Some(breach.breach_id.as_str().into());
        self.started_at = Some(breach.started_at);
        self.raised_at = Some(breach.raised_at);
        self.ended_at = Some(breach.ended_at);
        self.limit_name = Some(breach.limit_name.as_str().into());
        self.severity = Some(breach.severity);
        self.interface = Some(breach.interface.as_str().into());
        self.ifindex = breach.ifindex;
        self.direction = Some(breach.direction);
        self.limit_bps = Some(breach.limit_bps);
        self.rate_bps = Some(breach.rate_bps);
        self.peak_bps = Some(breach.peak_bps);
        self.mean_bps = Some(breach.mean_bps);
        self.duration_ms = Some(breach.duration_ms);
        self.measured_ms = Some(breach.measured_ms);
        self.excess_bytes = Some(breach.excess_bytes);
        self.reason = breach.reason.as_ref().map(word);
        self.detail = breach.detail.as_deref().map(Cow::from);
    }

    fn sample(&mut self, sample: &'a Sample) {
        self.interface = Some(sample.interface.as_str().into());
        self.duration_ms = sample.duration_ms;
        self.reason = sample.reason.as_ref().map(word);
        self.rx_bytes = sample.rx_bytes;
        self.tx_bytes = sample.tx_bytes;
        self.rx_bps = sample.rx_bps;
        self.tx_bps = sample.tx_bps;
    }
}

impl TryFrom<Flat<'_>> for Event {
    type Error = DecodeError;

    fn try_from(flat: Flat<'_>) -> Result<Self, DecodeError> {
        let epoch = flat.epoch.parse().map_err(|e| DecodeError::field("epoch", e))?;
        let id = EventId { epoch, seq: number("seq", Some(flat.seq))? };
        if id.seq == 0 {
            return Err(DecodeError::field("seq", "counts from 1"));
        }
        if flat.agent.is_empty() || flat.agent.len() > AGENT_BYTES_MAX {
            let bytes = flat.agent.len();
            return Err(DecodeError::field("agent", format!("has {bytes} bytes; 1 to {AGENT_BYTES_MAX} are allowed")));
        }
        let stamp = Stamp {
            agent: flat.agent.clone().into(),
            observed_at: normalized(flat.observed_at),
            boot_id: flat.boot_id.clone().into_owned(),
            monotonic_ms: number("monotonic_ms", Some(flat.monotonic_ms))?,
            clock_synced: flat.clock_synced,
        };
        let body = match &*flat.kind {
            "breach_raised" => Body::BreachRaised(flat.try_into()?),
            "breach_updated" => Body::BreachUpdated(flat.try_into()?),
            "breach_cleared" => Body::BreachCleared(flat.try_into()?),
            "loss" => Body::Loss(flat.try_into()?),
            "link_added" => Body::LinkAdded(flat.try_into()?),
            "link_removed" => Body::LinkRemoved(flat.try_into()?),
            "link_changed" => Body::LinkChanged(flat.try_into()?),
            "agent_started" => Body::AgentStarted(flat.try_into()?),
            "agent_stopped" => Body::AgentStopped(flat.try_into()?),
            "sample" => Body::Sample(flat.try_into()?),
            _ => Body::Unknown(flat.kind.into_owned()),
        };
        Ok(Self { id, stamp, body })
    }
}

impl TryFrom<Flat<'_>> for Breach {
    type Error = DecodeError;

    fn try_from(flat: Flat<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            breach_id: text("breach_id", flat.breach_id)?,
            started_at: time("started_at", flat.started_at)?,
            raised_at: time("raised_at", flat.raised_at)?,
            ended_at: time("ended_at", flat.ended_at)?,
            limit_name: text("limit_name", flat.limit_name)?,
            severity: present("severity", flat.severity)?,
            interface: text("interface", flat.interface)?,
            ifindex: flat.ifindex,
            direction: present("direction", flat.direction)?,
            limit_bps: number("limit_bps", flat.limit_bps)?,
            rate_bps: number("rate_bps", flat.rate_bps)?,
            peak_bps: number("peak_bps", flat.peak_bps)?,
            mean_bps: number("mean_bps", flat.mean_bps)?,
            duration_ms: number("duration_ms", flat.duration_ms)?,
            measured_ms: number("measured_ms", flat.measured_ms)?,
            excess_bytes: number("excess_bytes", flat.excess_bytes)?,
            reason: reason(flat.reason),
            detail: flat.detail.map(Cow::into_owned),
        })
    }
}

impl TryFrom<Flat<'_>> for Loss {
    type Error = DecodeError;

    fn try_from(flat: Flat<'_>) -> Result<Self, DecodeError> {
        let ranges = present("ranges", flat.ranges)?.into_owned();
        for (from, to) in &ranges {
            if *from == 0 || from > to {
                return Err(DecodeError::field("ranges", format!("[{from}, {to}] is no range")));
            }
            number("ranges", Some(*to))?;
        }
        let epoch = present("lost_epoch", flat.lost_epoch)?.parse().map_err(|e| DecodeError::field("lost_epoch", e))?;
        let reason = present("reason", reason(flat.reason))?;
        Ok(Self { epoch, ranges, reason, detail: flat.detail.map(Cow::into_owned) })
    }
}

impl TryFrom<Flat<'_>> for Link {
    type Error = DecodeError;

    fn try_from(flat: Flat<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            interface: text("interface", flat.interface)?,
            ifindex: present("ifindex", flat.ifindex)?,
            speed_bps: maybe_number("speed_bps", flat.speed_bps)?,
            reason: reason(flat.reason),
            detail: flat.detail.map(Cow::into_owned),
        })
    }
}

impl TryFrom<Flat<'_>> for Lifecycle {
    type Error = DecodeError;

    fn try_from(flat: Flat<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: text("version", flat.version)?,
            reason: reason(flat.reason),
            detail: flat.detail.map(Cow::into_owned),
        })
    }
}

impl TryFrom<Flat<'_>> for Sample {
    type Error = DecodeError;

    fn try_from(flat: Flat<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            interface: text("interface", flat.interface)?,
            duration_ms: maybe_number("duration_ms", flat.duration_ms)?,
            rx_bytes: maybe_number("rx_bytes", flat.rx_bytes)?,
            tx_bytes: maybe_number("tx_bytes", flat.tx_bytes)?,
            rx_bps: maybe_number("rx_bps", flat.rx_bps)?,
            tx_bps: maybe_number("tx_bps", flat.tx_bps)?,
            reason: reason(flat.reason),
        })
    }
}

fn present<T>(name: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or_else(|| DecodeError::field(name, "is missing"))
}

fn text<'a, T: From<Cow<'a, str>>>(name: &'static str, value: Option<Cow<'a, str>>) -> Result<T, DecodeError> {
    present(name, value).map(T::from)
}

fn time(name: &'static str, value: Option<DateTime<Utc>>) -> Result<DateTime<Utc>, DecodeError> {
    present(name, value).map(normalized)
}

fn word(reason: &Reason) -> Cow<'_, str> {
    reason.as_str().into()
}

fn reason(word: Option<Cow<'_, str>>) -> Option<Reason> {
    word.as_deref().map(Reason::from)
}

fn number(name: &'static str, value: Option<u64>) -> Result<u64, DecodeError> {
    let value = present(name, value)?;
    if i64::try_from(value).is_err() {
        return Err(DecodeError::field(name, format!("{value} is over 2^63 - 1")));
    }
    Ok(value)
}

fn maybe_number(name: &'static str, value: Option<u64>) -> Result<Option<u64>, DecodeError> {
    value.map(|value| number(name, Some(value))).transpose()
}
