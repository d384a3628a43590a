//! The event in Avro: encoded by hand, so that an agent needs no library, and decoded by name with the writer's schema.

#[cfg(feature = "consumer")]
mod datum;
#[cfg(feature = "consumer")]
mod schema;

#[cfg(feature = "consumer")]
use std::sync::OnceLock;

#[cfg(feature = "consumer")]
pub(super) use self::datum::Error;
#[cfg(feature = "consumer")]
pub(super) use self::schema::Schema;
use crate::message::Event;
use crate::message::fields::{Field, FieldPresence, FieldValue, Item};

pub(super) const FINGERPRINT: u64 = 0x66a3_7fce_722c_d696;

/// First bytes of Avro's single-object encoding; the schema's fingerprint follows, little-endian.
pub(super) const MARKER: [u8; 2] = [0xc3, 0x01];

/// Returns the released schema with this fingerprint. Texts of former schemas stay here, since older agents write by them.
#[cfg(feature = "consumer")]
pub(super) fn released(fingerprint: u64) -> Option<&'static Schema> {
    static PARSED: OnceLock<Schema> = OnceLock::new();
    (fingerprint == FINGERPRINT)
        .then(|| PARSED.get_or_init(|| Schema::parse(super::Format::Avro.schema()).expect("a test reads it")))
}

pub(super) fn encode_single_object(event: &Event, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&MARKER);
    bytes.extend_from_slice(&FINGERPRINT.to_le_bytes());
    encode(event, bytes);
}

pub(super) fn encode(event: &Event, bytes: &mut Vec<u8>) {
    let mut out = AvroWriter(bytes);
    event.visit_all(|field, value| out.field(field, value.as_ref()));
}

struct AvroWriter<'a>(&'a mut Vec<u8>);

impl AvroWriter<'_> {
    #[inline(always)]
    fn field(&mut self, field: &Field, value: Option<&FieldValue<'_>>) {
        // The branch of the union: null, or the type.
        if matches!(field.presence, FieldPresence::Nullable | FieldPresence::Optional) {
            self.long(value.is_some().into());
        }
        if let Some(value) = value {
            self.value(value);
        }
    }

    fn long(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    fn number(&mut self, value: u64) {
        self.long(value.cast_signed());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    #[inline(always)]
    fn value(&mut self, value: &FieldValue<'_>) {
        match value {
            FieldValue::Number(number) => self.number(*number),
            FieldValue::Text(text) => self.text(text),
            FieldValue::Epoch(epoch) => self.text(&epoch.digits()),
            FieldValue::Time(time) => self.long(time.timestamp_micros()),
            FieldValue::Bool(truth) => self.0.push((*truth).into()),
            FieldValue::Ranges(ranges) => self.array(ranges, |out, (first, last)| {
                out.array(&[*first, *last], |out, seq| out.number(*seq));
            }),
            FieldValue::Bytes(bytes) => {
                self.number(bytes.len() as u64);
                self.0.extend_from_slice(bytes);
            }
            FieldValue::Links(links) => self.array(links, Self::item),
            FieldValue::OverLimits(over) => self.array(over, Self::item),
        }
    }

    fn item<T: Item<N>, const N: usize>(&mut self, item: &T) {
        item.visit(&mut |field, value| self.item_field(field, value.as_ref()));
    }

    /// Writes a field of an item: a function of its own, lest [`Self::field`] is inlined for each of them.
    fn item_field(&mut self, field: &Field, value: Option<&FieldValue<'_>>) {
        self.field(field, value);
    }

    fn array<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        if !items.is_empty() {
            self.number(items.len() as u64);
            items.iter().for_each(|item| write(self, item));
        }
        self.long(0);
    }
}

#[cfg(all(test, feature = "consumer"))]
mod tests;
