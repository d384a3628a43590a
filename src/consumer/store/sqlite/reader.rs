use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, OpenFlags};

use super::{BUSY, MIGRATIONS, applied_version, refuse_directory, text};
use crate::cli::output::Value;
use crate::consumer::store::StoreError;
use crate::consumer::store::query::{ColumnType, Parameter, Query, Reader};
use crate::units::ByteCount;

pub(in crate::consumer::store) struct SqliteReader {
    path: PathBuf,
    connection: Option<Connection>,
}

impl SqliteReader {
    pub(in crate::consumer::store) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: None }
    }

    fn connection(&mut self) -> Result<&Connection, StoreError> {
        if self.connection.is_none() {
            self.connection = Some(open(&self.path)?);
        }
        self.connection.as_ref().ok_or_else(|| StoreError::Unavailable("SQLite: it was just open".to_owned()))
    }
}

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let shown = path.display();
    if !path.exists() {
        return Err(StoreError::Misconfigured(format!(
            "{shown}: no such database; set store.url to the consumer's, or let `highwater-consumer run` create it"
        )));
    }
    refuse_directory(path).map_err(StoreError::Misconfigured)?;
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    let applied = applied_version(&connection)?;
    if applied < MIGRATIONS.len() {
        let why = if applied == 0 { "is not a database of this program" } else { "has the tables of an older version" };
        return Err(StoreError::Misconfigured(format!(
            "{shown} {why}; `highwater-consumer run` creates what is missing"
        )));
    }
    Ok(connection)
}

impl Reader for SqliteReader {
    fn read(&mut self, query: &Query, each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>) -> Result<(), StoreError> {
        let connection = self.connection()?;
        let mut statement = connection.prepare(&query.sql)?;
        for (index, parameter) in query.parameters.iter().enumerate() {
            let name = format!("${}", index + 1);
            let at = statement.parameter_index(&name)?.ok_or(Error::InvalidParameterName(name))?;
            statement.raw_bind_parameter(at, parameter)?;
        }
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let values = query.kinds.iter().enumerate().map(|(at, kind)| Ok(value(*kind, row.get_ref(at)?)));
            if each(values.collect::<Result<_, Error>>()?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl ToSql for Parameter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(words) => words.to_sql(),
            Self::Number(number) => number.to_sql(),
            Self::Time(time) => Ok(text(*time).into()),
            Self::Day(day) => Ok(day.to_string().into()),
        }
    }
}

fn value(kind: ColumnType, found: ValueRef<'_>) -> Value {
    match (kind, found) {
        (_, ValueRef::Null) => Value::Null,
        (ColumnType::Bytes, ValueRef::Integer(number)) => ByteCount::from_bytes(number.max(0).unsigned_abs()).into(),
        (_, ValueRef::Integer(number)) => number.into(),
        (_, ValueRef::Real(number)) => number.into(),
        (ColumnType::Blob, ValueRef::Text(bytes)) | (_, ValueRef::Blob(bytes)) => bytes.to_vec().into(),
        (_, ValueRef::Text(bytes)) => {
            let words = String::from_utf8_lossy(bytes);
            match kind {
                ColumnType::Time => DateTime::parse_from_rfc3339(&words).ok().map(|time| time.to_utc().into()),
                ColumnType::Day => words.parse::<NaiveDate>().ok().map(Value::Day),
                _ => None,
            }
            .unwrap_or_else(|| Value::Text(words.into_owned()))
        }
    }
}
