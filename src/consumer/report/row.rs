//! Rows of an answer: one list of fields determines the selected columns, how they are read, and what is printed.

use std::io;

use chrono::{DateTime, Utc};

use crate::cli::output::Value;
use crate::consumer::store::ColumnType;
use crate::units::{BitRate, ByteCount};

pub(super) trait ColumnValue: Sized {
    const TYPE: ColumnType;

    /// Returns the expression that selects `column` as [`Self::TYPE`] in both databases.
    fn selected(column: &str) -> String {
        column.to_owned()
    }

    fn read(value: Value) -> Option<Self>;

    fn print(self) -> Value;
}

macro_rules! fields {
    ($($type:ty, $column:ident: $read:expr, $print:expr;)+) => {
        $(impl ColumnValue for $type {
            const TYPE: ColumnType = ColumnType::$column;

            fn read(value: Value) -> Option<Self> {
                ($read)(value)
            }

            fn print(self) -> Value {
                ($print)(self)
            }
        })+
    };
}

fields! {
    String, Text: Value::into_text, Value::Text;
    i64, Number: Value::into_number, Value::from;
    DateTime<Utc>, Time: Value::into_time, Value::Time;
    ByteCount, Bytes: |value| if let Value::Bytes(bytes) = value { Some(bytes) } else { None }, Value::Bytes;
    BitRate, Number: |value: Value| value.into_number().map(BitRate::from_bps), Value::Rate;
    Vec<u8>, Histogram: Value::into_blob, Value::Blob;
}

impl ColumnValue for bool {
    const TYPE: ColumnType = ColumnType::Number;

    fn selected(column: &str) -> String {
        format!("CAST({column} AS integer)")
    }

    fn read(value: Value) -> Option<Self> {
        value.into_number::<i64>().map(|number| number != 0)
    }

    fn print(self) -> Value {
        Value::Json(self.into())
    }
}

impl ColumnValue for serde_json::Value {
    const TYPE: ColumnType = ColumnType::Text;

    fn selected(column: &str) -> String {
        format!("CAST({column} AS text)")
    }

    fn read(value: Value) -> Option<Self> {
        serde_json::from_str(&value.into_text()?).ok()
    }

    fn print(self) -> Value {
        Value::Json(self)
    }
}

impl<F: ColumnValue> ColumnValue for Option<F> {
    const TYPE: ColumnType = F::TYPE;

    fn selected(column: &str) -> String {
        F::selected(column)
    }

    fn read(value: Value) -> Option<Self> {
        if value == Value::Null { Some(None) } else { F::read(value).map(Some) }
    }

    fn print(self) -> Value {
        self.map_or(Value::Null, F::print)
    }
}

/// Defines a row whose fields are columns of the same names; a public one can be printed.
macro_rules! row {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)+ }) => {
        $crate::consumer::report::row::row! {
            @read $(#[$doc])* pub struct $name { $($(#[$field_doc])* pub $field: $type,)+ }
        }

        impl $name {
            pub const COLUMNS: &'static [&'static str] = &[$(stringify!($field),)+];

            pub fn values(self) -> Vec<$crate::cli::output::Value> {
                vec![$($crate::consumer::report::row::ColumnValue::print(self.$field),)+]
            }
        }
    };
    (struct $name:ident { $($field:ident: $type:ty,)+ }) => {
        $crate::consumer::report::row::row! { @read struct $name { $($field: $type,)+ } }
    };
    (@read $(#[$doc:meta])* $visible:vis struct $name:ident {
        $($(#[$field_doc:meta])* $field_visible:vis $field:ident: $type:ty,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        $visible struct $name {
            $($(#[$field_doc])* $field_visible $field: $type,)+
        }

        impl $name {
            const TYPES: &'static [$crate::consumer::store::ColumnType] =
                &[$(<$type as $crate::consumer::report::row::ColumnValue>::TYPE,)+];

            /// Begins a query: `SELECT` with each column, or with the expression that `others` has for it.
            fn select(others: &[(&str, &str)]) -> $crate::consumer::store::Query {
                let columns = [$({
                    let name = stringify!($field);
                    let column = others.iter().find(|(other, _)| *other == name).map_or(name, |(_, column)| column);
                    format!("{} AS {name}", <$type as $crate::consumer::report::row::ColumnValue>::selected(column))
                },)+];
                $crate::consumer::store::Query::new(&format!("SELECT {}", columns.join(", ")), Self::TYPES)
            }

            /// Fails for a value that no version of this program stores.
            fn read(row: Vec<$crate::cli::output::Value>) -> std::io::Result<Self> {
                let mut row = row.into_iter();
                Ok(Self {
                    $($field: $crate::consumer::report::row::read(stringify!($field), row.next())?,)+
                })
            }
        }
    };
}

pub(super) use row;

pub(super) fn read<V: ColumnValue>(column: &str, value: Option<Value>) -> io::Result<V> {
    let unreadable = || {
        let why = format!("the store has a row whose `{column}` is not readable");
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    V::read(value.unwrap_or(Value::Null)).ok_or_else(unreadable)
}
