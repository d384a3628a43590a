//! Queries in SQL that both databases understand: they have the same tables and views.

use std::fmt;
use std::ops::ControlFlow;

use chrono::{DateTime, NaiveDate, Utc};

use super::StoreError;
use crate::cli::output::Value;
use crate::units::counted;

/// Reads a store and changes nothing: no table, no schema, and no setting that outlives the query.
pub trait Reader {
    /// Calls `each` with the rows, all of one snapshot, until `each` breaks. Rows not read yet stay in the database. Fails with
    /// [`StoreError::Misconfigured`] also if nothing was ever stored.
    fn read(&mut self, query: &Query, each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>) -> Result<(), StoreError>;

    fn ask(&mut self, query: &Query) -> Result<Vec<Vec<Value>>, StoreError> {
        let mut rows = Vec::new();
        self.read(query, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Locks {
    pub(super) table: &'static str,
    pub(super) partitions: u64,
    pub(super) room: u64,
}

impl Locks {
    pub(super) fn needed(self) -> u64 {
        3 * self.partitions
    }

    pub(super) fn warning(self) -> Option<String> {
        let wider = match self.table {
            "events" => ", or set store.partition = \"month\" for those to come",
            _ => "",
        };
        (self.needed() > self.room / 4).then(|| format!("{self}; raise max_locks_per_transaction{wider}"))
    }
}

impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (partitions, needed) = (counted(self.partitions, "partition"), self.needed());
        write!(
            f,
            "a query over all {partitions} of {} takes {needed} of the {} locks that there is room for",
            self.table, self.room
        )
    }
}

#[derive(Clone, Debug)]
pub struct Query {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) kinds: &'static [ColumnType],
}

/// Type of a result column. SQLite has no time type: its text is converted, so that both databases return equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Number,
    Time,
    Day,
    Blob,
    /// At most 64 kB: more of them are fetched at once than of messages.
    Histogram,
    Bytes,
}

/// Values that travel with their type, not as text that a setting of the server may read differently.
#[derive(Clone, Debug)]
pub enum Parameter {
    Text(String),
    Number(i64),
    Time(DateTime<Utc>),
    Day(NaiveDate),
}

impl From<&str> for Parameter {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Parameter {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Parameter {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Parameter {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<DateTime<Utc>> for Parameter {
    fn from(time: DateTime<Utc>) -> Self {
        Self::Time(time)
    }
}

impl From<NaiveDate> for Parameter {
    fn from(day: NaiveDate) -> Self {
        Self::Day(day)
    }
}

impl Query {
    #[cfg(test)]
    pub fn explained(&self) -> Self {
        use ColumnType::{Number, Text};
        let kinds = &[Number, Number, Number, Text];
        Self { sql: format!("EXPLAIN QUERY PLAN {}", self.sql), parameters: self.parameters.clone(), kinds }
    }

    /// Begins with `SELECT … FROM …`, which has a column for each of `kinds`.
    pub fn new(sql: &str, kinds: &'static [ColumnType]) -> Self {
        Self { sql: sql.to_owned(), parameters: Vec::new(), kinds }
    }

    #[must_use]
    pub fn then(mut self, sql: &str) -> Self {
        self.sql.push(' ');
        self.sql.push_str(sql);
        self
    }

    #[must_use]
    pub fn with(mut self, sql: &str, parameter: impl Into<Parameter>) -> Self {
        self.parameters.push(parameter.into());
        let name = format!("${}", self.parameters.len());
        self.then(&sql.replace('?', &name))
    }

    #[must_use]
    pub fn with_any<T: Into<Parameter>>(self, sql: &str, parameter: Option<T>) -> Self {
        match parameter {
            Some(parameter) => self.with(sql, parameter),
            None => self,
        }
    }

    #[must_use]
    pub fn with_one_of<T: Into<Parameter> + Clone>(mut self, column: &str, values: &[T]) -> Self {
        if let [value] = values {
            return self.with(&format!("AND {column} = ?"), value.clone());
        }
        for (at, value) in values.iter().enumerate() {
            let before = if at == 0 { format!("AND {column} IN (") } else { ",".to_owned() };
            self = self.with(&format!("{before}?"), value.clone());
        }
        if values.is_empty() { self } else { self.then(")") }
    }

    #[must_use]
    pub fn ordered(self, columns: &[&str], last: Option<i64>) -> Self {
        let order = format!("ORDER BY {}", columns.join(", "));
        let Some(last) = last else { return self.then(&order) };
        let backward = format!("ORDER BY {} DESC", columns.join(" DESC, "));
        let mut query = self.then(&backward).with("LIMIT ?", last);
        query.sql = format!("SELECT * FROM ({}) AS last_rows", query.sql);
        query.then(&order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_locks_than_a_quarter_of_the_room_are_worth_a_word() {
        let locks = |table, partitions| Locks { table, partitions, room: 6400 };
        assert_eq!(locks("events", 16).warning(), None);
        let warning = locks("events", 1824).warning().unwrap();
        assert!(warning.contains("5472 of the 6400 locks") && warning.contains("store.partition"), "{warning}");
        let warning = locks("samples", 1824).warning().unwrap();
        assert!(warning.contains("of samples takes 5472") && !warning.contains("store.partition"), "{warning}");
    }
}
