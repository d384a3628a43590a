//! Questions to a store, in SQL that both databases understand: they have the same tables and views.

use chrono::{DateTime, Utc};

use super::StoreError;
use crate::output::Value;

/// Reads what stands in a store, and changes nothing: no table is made, no schema is brought up to date.
pub trait Reader {
    /// The rows that answer `query`.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] too where nothing was ever stored.
    fn ask(&mut self, query: &Query) -> Result<Vec<Vec<Value>>, StoreError>;
}

/// One question.
#[derive(Clone, Debug)]
pub struct Query {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) kinds: &'static [Kind],
}

/// What a column holds, so that a SQLite file, which knows no times, gives the same values as PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `text`.
    Text,
    /// `integer` or `bigint`.
    Number,
    /// `boolean`.
    Truth,
    /// `timestamptz`.
    Time,
    /// `bytea`.
    Blob,
    /// A whole number of bytes.
    Bytes,
    /// A whole number of bits a second.
    Rate,
}

/// What a condition compares with.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// Text.
    Text(String),
    /// A `bigint`.
    Number(i64),
    /// A `timestamptz`.
    Time(DateTime<Utc>),
}

impl From<&str> for Parameter {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
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

impl Query {
    /// `SELECT … FROM …`, with a column for each of `kinds`.
    pub fn new(sql: &str, kinds: &'static [Kind]) -> Self {
        Self { sql: sql.to_owned(), parameters: Vec::new(), kinds }
    }

    /// More of the SQL.
    #[must_use]
    pub fn then(mut self, sql: &str) -> Self {
        self.sql.push(' ');
        self.sql.push_str(sql);
        self
    }

    /// More of the SQL, where `?` stands for the parameter.
    #[must_use]
    pub fn with(mut self, sql: &str, parameter: impl Into<Parameter>) -> Self {
        self.parameters.push(parameter.into());
        let name = format!("${}", self.parameters.len());
        self.then(&sql.replace('?', &name))
    }

    /// The same, if there is such a parameter.
    #[must_use]
    pub fn with_any<T: Into<Parameter>>(self, sql: &str, parameter: Option<T>) -> Self {
        match parameter {
            Some(parameter) => self.with(sql, parameter),
            None => self,
        }
    }
}
