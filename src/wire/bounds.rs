//! Bounds of what databases store: checked at decoding, since a refusal by the database costs a search for the row.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use serde_json::Value;

use super::DecodeError;
use crate::message::fields::{
    BREACH_ID, DURATION_MS, Field, FieldError, FieldValue, INTERFACE, Item, LIMIT_NAME, LINKS, SEQ,
};
use crate::message::{Body, Event, LinkRates, RateWindow, SEQ_MAX, histogram};

pub const YEARS: RangeInclusive<i32> = 1..=9999;
/// In bytes: an entry of a PostgreSQL index has room for 2,700 in all.
const KEY_BYTES_MAX: usize = 1_000;
const KEYS: [&str; 3] = [BREACH_ID.name, LIMIT_NAME.name, INTERFACE.name];
/// Items of one rates message: up to three directions of each link. An agent splits its messages long before that, at 256 kB.
const RECORDS_MAX: usize = 3 * 1_004;
const LIMITS_MAX: usize = 1_000;
/// In milliseconds: an agent's window divides an hour.
const WINDOW_MS: RangeInclusive<u64> = 1..=3_600_000;

pub(super) fn check(event: &Event, raw: Option<&str>) -> Result<(), DecodeError> {
    let mut checked = Ok(());
    event.visit(&mut |field, value| {
        if let (Ok(()), Some(value)) = (&checked, value) {
            checked = check_value(field, &value);
        }
    });
    checked?;
    if let Body::Rates(window) = &event.body {
        check_window(event, window)?;
    }
    raw.map_or(Ok(()), json)
}

fn check_value(field: &'static Field, value: &FieldValue<'_>) -> Result<(), FieldError> {
    match value {
        FieldValue::Number(seq) if *field == SEQ => number(field, *seq),
        FieldValue::Ranges(ranges) => ranges.iter().try_for_each(|(_, last)| number(field, *last)),
        FieldValue::Time(at) => time(field, *at),
        FieldValue::Text(value) => {
            if KEYS.contains(&field.name) && value.len() > KEY_BYTES_MAX {
                let bytes = value.len();
                return Err(FieldError::new(
                    field.name,
                    format!("has {bytes} bytes; at most {KEY_BYTES_MAX} are allowed"),
                ));
            }
            text(field, value)
        }
        FieldValue::Bytes(bytes) => histogram::check(bytes).map_err(|error| FieldError::new(field.name, error)),
        FieldValue::Links(links) => items(field, links, RECORDS_MAX),
        FieldValue::OverLimits(over) => items(field, over, LIMITS_MAX),
        FieldValue::Number(_) | FieldValue::Epoch(_) | FieldValue::Bool(_) => Ok(()),
    }
}

fn items<T: Item<N>, const N: usize>(list: &Field, items: &[T], most: usize) -> Result<(), FieldError> {
    if items.len() > most {
        return Err(FieldError::new(list.name, format!("has {} items; at most {most} are allowed", items.len())));
    }
    let mut checked = Ok(());
    for item in items {
        item.visit(&mut |field, value| {
            if let (Ok(()), Some(value)) = (&checked, value) {
                checked = check_value(field, &value);
            }
        });
    }
    checked
}

fn check_window(event: &Event, window: &RateWindow) -> Result<(), FieldError> {
    let RateWindow { started_at, duration_ms, .. } = window;
    if !WINDOW_MS.contains(duration_ms) {
        let (least, most) = (WINDOW_MS.start(), WINDOW_MS.end());
        return Err(FieldError::new(DURATION_MS.name, format!("{duration_ms} is not one of {least} to {most}")));
    }
    let length = TimeDelta::milliseconds(duration_ms.cast_signed());
    if started_at.checked_add_signed(length) != Some(event.stamp.observed_at) {
        let problem = format!("{duration_ms} ms after {started_at} is not {}", event.stamp.observed_at);
        return Err(FieldError::new(DURATION_MS.name, problem));
    }
    let mut records: Vec<_> =
        window.links.iter().map(|LinkRates { interface, direction, .. }| (interface, direction)).collect();
    records.sort_unstable();
    match records.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(FieldError::new(LINKS.name, format!("has {} {} twice", pair[0].0.escape_debug(), pair[0].1))),
        None => Ok(()),
    }
}

fn number(field: &Field, value: u64) -> Result<(), FieldError> {
    if value > SEQ_MAX {
        return Err(FieldError::new(field.name, format!("{value} is over 2^48: no agent counts so far")));
    }
    Ok(())
}

fn time(field: &Field, time: DateTime<Utc>) -> Result<(), FieldError> {
    if !YEARS.contains(&time.year()) {
        return Err(FieldError::new(field.name, format!("the year {} is not one of 1 to 9999", time.year())));
    }
    Ok(())
}

fn text(field: &Field, text: &str) -> Result<(), FieldError> {
    if text.contains('\0') {
        return Err(FieldError::new(field.name, NUL));
    }
    Ok(())
}

const NUL: &str = "holds a NUL character, which no database stores in a text";

/// Refuses NUL characters; lone surrogates and numbers out of range are refused by parsing.
fn json(raw: &str) -> Result<(), DecodeError> {
    let Value::Object(fields) = serde_json::from_str(raw)? else { return Ok(()) };
    let bad = fields.iter().find(|(name, value)| name.contains('\0') || has_nul(value));
    bad.map_or(Ok(()), |(name, _)| Err(FieldError::new(name.escape_debug().to_string(), NUL).into()))
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
