//! Looking into the database, while others write to it.

use chrono::{DateTime, Utc};
use postgres::types::{ToSql, Type};
use postgres::{Client, Row};

use super::address::Address;
use super::session;
use crate::consumer::store::StoreError;
use crate::consumer::store::query::{Kind, Parameter, Query, Reader};
use crate::output::Value;
use crate::units::{BitRate, ByteCount};

/// A reader of a database, connected when it is first asked and again after each fault.
pub(in crate::consumer::store) struct PostgresReader {
    address: Address,
    client: Option<Client>,
}

/// A reader never writes, and never holds anybody up for long.
const SETTINGS: &str = "
    SET default_transaction_read_only = on;
    SET lock_timeout = '10s';
    SET statement_timeout = '120s';
    SET timezone = 'UTC';
    SET client_min_messages = 'warning';";

impl PostgresReader {
    pub(in crate::consumer::store) fn new(address: Address) -> Self {
        Self { address, client: None }
    }

    fn open(&self) -> Result<Client, StoreError> {
        let mut client = self.address.connect("highwater-consumer/reader")?;
        client.batch_execute(SETTINGS)?;
        let wrong = |why: &str| {
            StoreError::Misconfigured(format!("{} {why}; `highwater-consumer run` makes what is missing", self.address))
        };
        let found = client.query_one("SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[])?;
        if !found.get::<_, bool>(0) {
            return Err(wrong("has none of this program's tables"));
        }
        let taken = client.query_one("SELECT max(version)::bigint FROM refinery_schema_history", &[])?;
        if taken.get::<_, Option<i64>>(0).unwrap_or(0) < session::version() {
            return Err(wrong("has the tables of an older version"));
        }
        Ok(client)
    }
}

impl Reader for PostgresReader {
    fn ask(&mut self, query: &Query) -> Result<Vec<Vec<Value>>, StoreError> {
        let mut client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => self.open()?,
        };
        let parameters: Vec<&(dyn ToSql + Sync)> = query.parameters.iter().map(Parameter::as_sql).collect();
        let rows = client.query(&query.sql, &parameters)?;
        self.client = Some(client);
        rows.iter().map(|row| values(row, query.kinds).map_err(StoreError::from)).collect()
    }
}

impl Parameter {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number,
            Self::Time(time) => time,
        }
    }
}

fn values(row: &Row, kinds: &[Kind]) -> Result<Vec<Value>, postgres::Error> {
    let value = |(at, kind): (usize, &Kind)| {
        Ok(match kind {
            Kind::Text => row.try_get::<_, Option<String>>(at)?.into(),
            Kind::Truth => row.try_get::<_, Option<bool>>(at)?.into(),
            Kind::Time => row.try_get::<_, Option<DateTime<Utc>>>(at)?.into(),
            Kind::Blob => row.try_get::<_, Option<Vec<u8>>>(at)?.into(),
            Kind::Number => whole(row, at)?.into(),
            Kind::Bytes => whole(row, at)?.map(|bytes| ByteCount::from_bytes(bytes.max(0).unsigned_abs())).into(),
            Kind::Rate => whole(row, at)?.map(|bps| BitRate::from_bps(bps.max(0).unsigned_abs())).into(),
        })
    };
    kinds.iter().enumerate().map(value).collect()
}

fn whole(row: &Row, at: usize) -> Result<Option<i64>, postgres::Error> {
    if *row.columns()[at].type_() == Type::INT4 {
        return Ok(row.try_get::<_, Option<i32>>(at)?.map(i64::from));
    }
    row.try_get(at)
}
