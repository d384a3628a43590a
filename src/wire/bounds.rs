//! Bounds of an event that a database can store. Values that a database is known to refuse are refused at decoding, with the
//! field's name, since a refusal by the database costs a search for the row that it is about.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike as _, Utc};
use serde_json::Value;

use super::DecodeError;
use crate::event::{Body, Event, Reason};

/// Highest `seq`: an agent that makes a million events a second gets there in nine years. Sums over numbers stay far from 2^63.
pub const SEQ_MAX: u64 = 1 << 48;
/// Years that every database can store, and that have four digits.
pub const YEARS: RangeInclusive<i32> = 1..=9999;
/// Longest text that is part of a key, in bytes: an entry of a PostgreSQL index has room for 2,700 in all.
const KEY_BYTES_MAX: usize = 1_000;

pub(super) fn check(event: &Event, raw: Option<&str>) -> Result<(), DecodeError> {
    let Event { id, stamp, body } = event;
    number("seq", id.seq)?;
    time("observed_at", stamp.observed_at)?;
    text("agent", &stamp.agent)?;
    text("boot_id", &stamp.boot_id)?;
    key("interface", body.interface().unwrap_or_default())?;
    text("reason", body.reason().map_or("", Reason::as_str))?;
    text("detail", body.detail().unwrap_or_default())?;
    match body {
        Body::BreachRaised(breach) | Body::BreachUpdated(breach) | Body::BreachCleared(breach) => {
            time("started_at", breach.started_at)?;
            time("raised_at", breach.raised_at)?;
            time("ended_at", breach.ended_at)?;
            key("breach_id", &breach.breach_id)?;
            key("limit_name", &breach.limit_name)
        }
        Body::Loss(loss) => loss.ranges.iter().try_for_each(|(_, last)| number("ranges", *last)),
        Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) => text("version", &lifecycle.version),
        Body::Unknown(kind) => {
            text("kind", kind)?;
            raw.map_or(Ok(()), json)
        }
        Body::LinkAdded(_) | Body::LinkRemoved(_) | Body::LinkChanged(_) | Body::Sample(_) => Ok(()),
    }
}

fn number(field: &'static str, value: u64) -> Result<(), DecodeError> {
    if value > SEQ_MAX {
        return Err(DecodeError::field(field, format!("{value} is over 2^48: no agent counts so far")));
    }
    Ok(())
}

fn time(field: &'static str, time: DateTime<Utc>) -> Result<(), DecodeError> {
    if !YEARS.contains(&time.year()) {
        return Err(DecodeError::field(field, format!("the year {} is not one of 1 to 9999", time.year())));
    }
    Ok(())
}

fn text(field: &'static str, text: &str) -> Result<(), DecodeError> {
    if text.contains('\0') {
        return Err(DecodeError::field(field, NUL));
    }
    Ok(())
}

fn key(field: &'static str, value: &str) -> Result<(), DecodeError> {
    if value.len() > KEY_BYTES_MAX {
        return Err(DecodeError::field(
            field,
            format!("has {} bytes; at most {KEY_BYTES_MAX} are allowed", value.len()),
        ));
    }
    text(field, value)
}

const NUL: &str = "holds a NUL character, which no database stores in a text";

/// Checks unknown fields, which may hold anything. Parsing refuses lone surrogates and numbers out of range; NUL is refused here.
fn json(raw: &str) -> Result<(), DecodeError> {
    let Value::Object(fields) = serde_json::from_str(raw)? else { return Ok(()) };
    let bad = fields.iter().find(|(name, value)| name.contains('\0') || has_nul(value));
    bad.map_or(Ok(()), |(name, _)| Err(DecodeError::field(name.escape_debug().to_string(), NUL)))
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
