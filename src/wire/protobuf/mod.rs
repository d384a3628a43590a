//! The event in Protobuf. A field's number is its place in the list of fields, counted from 1.

use chrono::{DateTime, Utc};
use prost::encoding::{self, WireType};

#[cfg(feature = "consumer")]
use super::DecodeError;
#[cfg(feature = "consumer")]
use super::time::normalized;
use crate::message::Event;
#[cfg(feature = "consumer")]
use crate::message::fields::{FIELDS, FieldError, FieldType, FieldValues};
use crate::message::fields::{Field, FieldPresence, FieldValue, Item};
#[cfg(feature = "consumer")]
use crate::message::{LinkRates, OverLimit};

/// The tag of field 1: no other format begins with it.
#[cfg(feature = "consumer")]
pub(super) const FIRST_BYTE: u8 = 0x08;

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

pub(super) fn encode(event: &Event, bytes: &mut Vec<u8>) {
    event.visit(&mut |field, value| {
        if let Some(value) = value {
            put(field, &value, bytes);
        }
    });
}

fn put(field: &Field, value: &FieldValue<'_>, bytes: &mut Vec<u8>) {
    let tag = field.index as u32 + 1;
    // A field that is not "optional" is not written where it is 0 or empty.
    let is_implicit = matches!(field.presence, FieldPresence::Required | FieldPresence::Defaulted);
    match value {
        FieldValue::Number(0) if is_implicit => {}
        FieldValue::Number(number) => encoding::uint64::encode(tag, number, bytes),
        FieldValue::Text(text) if is_implicit && text.is_empty() => {}
        FieldValue::Text(text) => put_text(tag, text, bytes),
        FieldValue::Epoch(epoch) => put_text(tag, &epoch.digits(), bytes),
        FieldValue::Time(time) => encoding::message::encode(tag, &Timestamp::from(*time), bytes),
        FieldValue::Bool(truth) => encoding::bool::encode(tag, truth, bytes),
        FieldValue::Ranges(ranges) => {
            for &(first, last) in &**ranges {
                encoding::message::encode(tag, &Range { first, last }, bytes);
            }
        }
        FieldValue::Bytes(value) => put_bytes(tag, value, bytes),
        FieldValue::Links(links) => put_items(tag, links, bytes),
        FieldValue::OverLimits(over) => put_items(tag, over, bytes),
    }
}

fn put_items<T: Item<N>, const N: usize>(tag: u32, items: &[T], bytes: &mut Vec<u8>) {
    let mut message = Vec::new();
    for item in items {
        message.clear();
        item.visit(&mut |field, value| value.iter().for_each(|value| put(field, value, &mut message)));
        put_bytes(tag, &message, bytes);
    }
}

fn put_text(tag: u32, text: &str, bytes: &mut Vec<u8>) {
    put_bytes(tag, text.as_bytes(), bytes);
}

fn put_bytes(tag: u32, value: &[u8], bytes: &mut Vec<u8>) {
    encoding::encode_key(tag, WireType::LengthDelimited, bytes);
    encoding::encode_varint(value.len() as u64, bytes);
    bytes.extend_from_slice(value);
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
    }
}

#[cfg(feature = "consumer")]
pub(super) fn decode(bytes: &[u8]) -> Result<FieldValues<'static>, DecodeError> {
    values(&FIELDS, bytes)
}

#[cfg(feature = "consumer")]
fn values<const N: usize>(
    fields: &'static [Field; N],
    mut bytes: &[u8],
) -> Result<FieldValues<'static, N>, DecodeError> {
    let mut values = FieldValues::default();
    while !bytes.is_empty() {
        let (tag, wire_type) = encoding::decode_key(&mut bytes)?;
        match fields.get(tag as usize - 1) {
            Some(field) => merge(field, wire_type, &mut bytes, values.get_mut(field))?,
            None => encoding::skip_field(wire_type, tag, &mut bytes, encoding::DecodeContext::default())?,
        }
    }
    Ok(values)
}

/// Reads one occurrence of a field. Ranges and items are appended to those before; any other value replaces the one before.
#[cfg(feature = "consumer")]
fn merge(
    field: &'static Field,
    wire_type: WireType,
    bytes: &mut &[u8],
    value: &mut Option<FieldValue<'static>>,
) -> Result<(), DecodeError> {
    fn read<'b, T: Default>(
        merge: impl FnOnce(WireType, &mut T, &mut &'b [u8], encoding::DecodeContext) -> Result<(), prost::DecodeError>,
        wire_type: WireType,
        bytes: &mut &'b [u8],
    ) -> Result<T, prost::DecodeError> {
        let mut value = T::default();
        merge(wire_type, &mut value, bytes, encoding::DecodeContext::default())?;
        Ok(value)
    }
    let new = match field.field_type {
        FieldType::Version | FieldType::UInt32 => {
            FieldValue::Number(read(encoding::uint32::merge, wire_type, bytes)?.into())
        }
        FieldType::UInt64 => FieldValue::Number(read(encoding::uint64::merge, wire_type, bytes)?),
        FieldType::Text | FieldType::Epoch | FieldType::Word(_) => {
            FieldValue::Text(read(encoding::string::merge, wire_type, bytes)?.into())
        }
        FieldType::Bool => FieldValue::Bool(read(encoding::bool::merge, wire_type, bytes)?),
        FieldType::Time => {
            let time = read::<Timestamp>(encoding::message::merge, wire_type, bytes)?.utc();
            FieldValue::Time(normalized(time.ok_or_else(|| FieldError::new(field.name, "is no time"))?))
        }
        FieldType::Ranges => {
            let Range { first, last } = read(encoding::message::merge, wire_type, bytes)?;
            match value {
                Some(FieldValue::Ranges(ranges)) => {
                    ranges.to_mut().push((first, last));
                    return Ok(());
                }
                _ => FieldValue::Ranges(vec![(first, last)].into()),
            }
        }
        FieldType::Bytes => FieldValue::Bytes(read::<Vec<u8>>(encoding::bytes::merge, wire_type, bytes)?.into()),
        FieldType::Links => {
            let link: LinkRates = item(&read::<Vec<u8>>(encoding::bytes::merge, wire_type, bytes)?)?;
            match value {
                Some(FieldValue::Links(links)) => {
                    links.to_mut().push(link);
                    return Ok(());
                }
                _ => FieldValue::Links(vec![link].into()),
            }
        }
        FieldType::OverLimits => {
            let limit: OverLimit = item(&read::<Vec<u8>>(encoding::bytes::merge, wire_type, bytes)?)?;
            match value {
                Some(FieldValue::OverLimits(over)) => {
                    over.to_mut().push(limit);
                    return Ok(());
                }
                _ => FieldValue::OverLimits(vec![limit].into()),
            }
        }
    };
    *value = Some(new);
    Ok(())
}

#[cfg(feature = "consumer")]
fn item<T: Item<N>, const N: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    Ok(T::read(values(T::FIELDS, bytes)?)?)
}

#[cfg(feature = "consumer")]
impl Timestamp {
    /// Returns `None` for nanoseconds above 999,999,999, or twice that in a leap second.
    fn utc(self) -> Option<DateTime<Utc>> {
        let nanos = u32::try_from(self.nanos).ok()?;
        let leap = i64::from(nanos / 1_000_000_000);
        DateTime::from_timestamp(self.seconds.checked_add(leap).filter(|_| leap <= 1)?, nanos % 1_000_000_000)
    }
}

#[cfg(all(test, feature = "consumer"))]
pub(in crate::wire) mod tests;
