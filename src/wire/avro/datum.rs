//! Avro's binary encoding as a serde [`Deserializer`], by the writer's schema; as in JSON, records are maps, times RFC 3339 text,
//! bytes base64. The remaining bytes bound all lengths and the number of values: small input never costs much memory or time.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat};
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::schema::{Schema, Type};

/// Values that take no bytes of their own (nulls, records) and are allowed beside the others.
const EMPTY_VALUES_MAX: usize = 10_000;

impl Schema {
    pub(in crate::wire) fn read<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, Error> {
        read(&self.0, bytes)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::wire) struct Error(String);

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

pub(super) fn read<'de, T: Deserialize<'de>>(schema: &Type, bytes: &'de [u8]) -> Result<T, Error> {
    let mut input = Input { bytes, values_left: 2 * bytes.len() + EMPTY_VALUES_MAX };
    let value = T::deserialize(At { input: &mut input, of: schema })?;
    match input.bytes.len() {
        0 => Ok(value),
        more => Err(Error(format!("{more} bytes more than the schema has"))),
    }
}

struct Input<'de> {
    bytes: &'de [u8],
    values_left: usize,
}

impl<'de> Input<'de> {
    fn take(&mut self, length: usize) -> Result<&'de [u8], Error> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(Error(format!("ends {} bytes too early", length - self.bytes.len())));
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N).map(|taken| taken.try_into().expect("so many were taken"))
    }

    fn long(&mut self) -> Result<i64, Error> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(Error("a number of more than 10 bytes".to_owned()))
    }

    fn bytes(&mut self) -> Result<&'de [u8], Error> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| Error(format!("a length of {length}")))?)
    }

    fn text(&mut self) -> Result<&'de str, Error> {
        std::str::from_utf8(self.bytes()?).map_err(|error| Error(error.to_string()))
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> Result<&'a T, Error> {
        let index = self.long()?;
        let chosen = usize::try_from(index).ok().and_then(|index| choices.get(index));
        chosen.ok_or_else(|| Error(format!("number {index} of {} choices", choices.len())))
    }

    fn block(&mut self) -> Result<u64, Error> {
        let count = self.long()?;
        if count < 0 {
            self.long()?; // the block's size, for readers that skip it
        }
        Ok(count.unsigned_abs())
    }
}

struct At<'a, 'de> {
    input: &'a mut Input<'de>,
    of: &'a Type,
}

impl<'de> Deserializer<'de> for At<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { input, of } = self;
        input.values_left =
            input.values_left.checked_sub(1).ok_or_else(|| Error("more values than bytes".to_owned()))?;
        match of {
            Type::Null => visitor.visit_unit(),
            Type::Boolean => match input.array()? {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                [other] => Err(Error(format!("{other} where true or false should be"))),
            },
            Type::Long => visitor.visit_i64(input.long()?),
            Type::Time(per_second) => visitor.visit_string(time(input.long()?, *per_second)?),
            Type::Float => visitor.visit_f32(f32::from_le_bytes(input.array()?)),
            Type::Double => visitor.visit_f64(f64::from_le_bytes(input.array()?)),
            Type::Bytes => visitor.visit_string(BASE64_STANDARD.encode(input.bytes()?)),
            Type::Fixed(size) => visitor.visit_string(BASE64_STANDARD.encode(input.take(*size)?)),
            Type::String => visitor.visit_borrowed_str(input.text()?),
            Type::Enum(symbols) => visitor.visit_str(input.one_of(symbols)?),
            Type::Union(variants) => {
                let of = input.one_of(variants)?;
                At { input, of }.deserialize_any(visitor)
            }
            Type::Array(of) => {
                let mut items = Items { input, of, left: 0, ended: false };
                let value = visitor.visit_seq(&mut items)?;
                match items.next_element::<IgnoredAny>()? {
                    None => Ok(value),
                    Some(_) => Err(Error("more items than there can be".to_owned())),
                }
            }
            Type::Map(of) => visitor.visit_map(Items { input, of, left: 0, ended: false }),
            Type::Record(fields) => visitor.visit_map(Fields { input, fields: fields.iter(), of: &Type::Null }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { input, mut of } = self;
        if let Type::Union(variants) = of {
            of = input.one_of(variants)?;
        }
        match of {
            Type::Null => visitor.visit_none(),
            of => visitor.visit_some(At { input, of }),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Items<'a, 'de> {
    input: &'a mut Input<'de>,
    of: &'a Type,
    left: u64,
    ended: bool,
}

impl Items<'_, '_> {
    fn is_there_another(&mut self) -> Result<bool, Error> {
        if self.left == 0 && !self.ended {
            self.left = self.input.block()?;
            self.ended = self.left == 0;
        }
        self.left = self.left.saturating_sub(1);
        Ok(!self.ended)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if !self.is_there_another()? {
            return Ok(None);
        }
        seed.deserialize(At { input: self.input, of: self.of }).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.is_there_another()? {
            return Ok(None);
        }
        seed.deserialize(BorrowedStrDeserializer::new(self.input.text()?)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(At { input: self.input, of: self.of })
    }
}

struct Fields<'a, 'de> {
    input: &'a mut Input<'de>,
    fields: std::slice::Iter<'a, (String, std::sync::Arc<Type>)>,
    of: &'a Type,
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, of)) = self.fields.next() else { return Ok(None) };
        self.of = of;
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let of = self.of;
        seed.deserialize(At { input: self.input, of })
    }
}

fn time(count: i64, per_second: i64) -> Result<String, Error> {
    let nanos = count.rem_euclid(per_second) * (1_000_000_000 / per_second);
    DateTime::from_timestamp(count.div_euclid(per_second), nanos as u32)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        .ok_or_else(|| Error(format!("{count} is no time")))
}
