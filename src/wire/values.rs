//! Reads fields by name, each by its type: JSON, and Avro by its writer's schema.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::time::{normalized, parse};
use crate::message::fields::{FIELDS, Field, FieldType, FieldValue, FieldValues, Item};

/// Items for which a list gets memory before they are read.
const ITEMS_ASSUMED_MAX: usize = 64;

impl<'de: 'a, 'a> Deserialize<'de> for FieldValues<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ValuesVisitor(&FIELDS))
    }
}

struct ValuesVisitor<const N: usize>(&'static [Field; N]);

impl<'de, const N: usize> Visitor<'de> for ValuesVisitor<N> {
    type Value = FieldValues<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = FieldValues::default();
        let (mut seen, mut next) = ([false; N], 0);
        while let Some(field) = map.next_key_seed(NameFrom { fields: self.0, next })? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if std::mem::replace(&mut seen[field.index], true) {
                return Err(A::Error::duplicate_field(field.name));
            }
            *values.get_mut(field) = map.next_value_seed(ValueOf(field))?;
            next = field.index + 1;
        }
        Ok(values)
    }
}

/// Finds a name from `next` on: writers follow the order of the list.
struct NameFrom {
    fields: &'static [Field],
    next: usize,
}

impl<'de> DeserializeSeed<'de> for NameFrom {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameFrom {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let (before, after) = self.fields.split_at(self.next);
        Ok(after.iter().chain(before).find(|field| field.name == name))
    }
}

struct ValueOf(&'static Field);

#[derive(Deserialize)]
#[serde(transparent)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for ValueOf {
    type Value = Option<FieldValue<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        Ok(match self.0.field_type {
            FieldType::Version | FieldType::UInt32 => {
                Option::<u32>::deserialize(from)?.map(|number| FieldValue::Number(number.into()))
            }
            FieldType::UInt64 => Option::deserialize(from)?.map(FieldValue::Number),
            FieldType::Text | FieldType::Epoch | FieldType::Word(_) => {
                Option::<BorrowedText<'_>>::deserialize(from)?.map(|text| FieldValue::Text(text.0))
            }
            FieldType::Time => match Option::<BorrowedText<'_>>::deserialize(from)? {
                Some(text) => Some(FieldValue::Time(normalized(parse(&text.0).map_err(D::Error::custom)?))),
                None => None,
            },
            FieldType::Bool => Option::deserialize(from)?.map(FieldValue::Bool),
            FieldType::Ranges => Option::<Vec<_>>::deserialize(from)?.map(|ranges| FieldValue::Ranges(ranges.into())),
            FieldType::Bytes => match Option::<BorrowedText<'_>>::deserialize(from)? {
                Some(text) => {
                    let bytes = BASE64_STANDARD.decode(&*text.0).map_err(D::Error::custom)?;
                    Some(FieldValue::Bytes(bytes.into()))
                }
                None => None,
            },
            FieldType::Links => {
                Option::<ItemList<_, _>>::deserialize(from)?.map(|links| FieldValue::Links(links.0.into()))
            }
            FieldType::OverLimits => {
                Option::<ItemList<_, _>>::deserialize(from)?.map(|over| FieldValue::OverLimits(over.0.into()))
            }
        })
    }
}

struct ItemList<T, const N: usize>(Vec<T>);

impl<'de, T: Item<N>, const N: usize> Deserialize<'de> for ItemList<T, N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ItemsVisitor(PhantomData)).map(Self)
    }
}

struct ItemsVisitor<T, const N: usize>(PhantomData<T>);

impl<'de, T: Item<N>, const N: usize> Visitor<'de> for ItemsVisitor<T, N> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or_default().min(ITEMS_ASSUMED_MAX));
        while let Some(values) = seq.next_element_seed(ItemOf(T::FIELDS))? {
            items.push(T::read(values).map_err(A::Error::custom)?);
        }
        Ok(items)
    }
}

struct ItemOf<const N: usize>(&'static [Field; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for ItemOf<N> {
    type Value = FieldValues<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(ValuesVisitor(self.0))
    }
}
