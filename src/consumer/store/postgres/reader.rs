//! Reader of PostgreSQL. Each query is a read-only transaction with its own settings: nothing is left in a pooler's session. Values
//! travel in binary form, which no setting of server or role (`DateStyle`, `bytea_output`, …) changes.

use std::ops::ControlFlow;

use chrono::{DateTime, NaiveDate, Utc};
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{ToSql, Type};
use postgres::{Client, IsolationLevel, Row, Transaction};

use super::address::Address;
use super::migrations;
use crate::cli::output::Value;
use crate::consumer::store::StoreError;
use crate::consumer::store::query::{ColumnType, Parameter, Query, Reader};
use crate::units::ByteCount;

pub(in crate::consumer::store) struct PostgresReader {
    address: Address,
    client: Option<Client>,
}

/// Time-outs of a snapshot, which holds up vacuum, but no `transaction_timeout`: a terminal may take longer to read it.
const SETTINGS: &str = "
    SET LOCAL lock_timeout = '10s';
    SET LOCAL statement_timeout = '120s';
    SET LOCAL idle_in_transaction_session_timeout = '10min';
    SET LOCAL timezone = 'UTC';
    SET LOCAL datestyle = 'ISO, YMD';
    SET LOCAL client_min_messages = 'warning';
    SELECT set_config('transaction_timeout', '0', true) WHERE current_setting('transaction_timeout', true) IS NOT NULL;";

/// Rows that fit the sockets' buffers, so that the server is done with them however slow the reader is.
const FETCHED: i32 = 1_000;
const FETCHED_MESSAGES: i32 = 10;
const FETCHED_HISTOGRAMS: i32 = 200;

impl PostgresReader {
    pub(in crate::consumer::store) fn new(address: Address) -> Self {
        Self { address, client: None }
    }

    fn ask_server<T>(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        let (mut client, known) = match self.client.take() {
            Some(client) if !client.is_closed() => (client, true),
            _ => (self.address.connect("highwater-consumer/reader")?, false),
        };
        let read = self.reading(&mut client, |transaction| {
            if !known {
                self.check(transaction)?;
            }
            work(transaction)
        });
        let read = read.map_err(|error| self.explained(&mut client, error))?;
        self.client = Some(client);
        Ok(read)
    }

    fn reading<T>(
        &self,
        client: &mut Client,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut transaction =
            client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start()?;
        transaction.batch_execute(SETTINGS)?;
        if let Some(schema) = self.address.schema() {
            transaction.batch_execute(&format!("SET LOCAL search_path = {}", super::quoted(schema)))?;
        }
        let done = work(&mut transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    fn explained(&self, client: &mut Client, error: ReadError) -> StoreError {
        let error = match error {
            ReadError::Store(error) => return error,
            ReadError::Server(error) => error,
        };
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        let text = super::sqlstate::text(&error);
        let said = format!("PostgreSQL: {text}");
        match code.as_str() {
            "42501" => match self.reading(client, |transaction| Ok(SchemaLookup::find(transaction)?)) {
                Ok(found) => StoreError::Misconfigured(format!("{said}: as the owner: {}", found.grants())),
                Err(_) => error.into(),
            },
            "42P01" | "42703" | "42883" => StoreError::Misconfigured(format!(
                "{said}: the tables are not those of this version; update this program, or let its `run` bring them up to date"
            )),
            "55P03" => StoreError::Unavailable(format!(
                "{said}: another session holds a lock; pg_locks and pg_stat_activity name it"
            )),
            "57014" => StoreError::Unavailable(format!("{said}: ask for less, as with --since or --agent")),
            "25P03" => StoreError::Unavailable(format!("{said}: no rows were fetched for ten minutes")),
            _ => error.into(),
        }
    }

    fn check(&self, transaction: &mut Transaction<'_>) -> Result<(), ReadError> {
        let wrong = |why: String| Err(StoreError::Misconfigured(format!("{} {why}", self.address)).into());
        let found = SchemaLookup::find(transaction)?;
        match &found {
            SchemaLookup { here: true, .. } => {}
            SchemaLookup { schema: Some(schema), usable: false, role, .. } => {
                let grants = found.grants();
                return wrong(format!(
                    "has the tables in schema {schema}, which role {role} may not use: as the owner: {grants}"
                ));
            }
            SchemaLookup { schema: Some(schema), .. } => {
                return wrong(format!(
                    "has the tables in schema {schema}: set store.schema = \"{}\"",
                    schema.trim_matches('"')
                ));
            }
            SchemaLookup { schema: None, .. } => {
                return wrong(
                    "has none of this program's tables; `highwater-consumer run` creates what is missing".to_owned(),
                );
            }
        }
        // Answers from tables of another version could be wrong without a sign of it.
        if migrations::applied_version(transaction)?? < migrations::version() {
            return wrong(
                "has the tables of an older version; `highwater-consumer run` creates what is missing".to_owned(),
            );
        }
        Ok(())
    }
}

impl Reader for PostgresReader {
    fn read(&mut self, query: &Query, each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.ask_server(|transaction| rows(transaction, query, each))
    }
}

/// Closes the named statement and portal before the transaction ends: behind a pooler the next one is in another session.
fn rows(
    transaction: &mut Transaction<'_>,
    query: &Query,
    each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let types: Vec<Type> = query.parameters.iter().map(Parameter::sql_type).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = query.parameters.iter().map(Parameter::as_sql).collect();
    let statement = transaction.prepare_typed(&query.sql, &types)?;
    let portal = transaction.bind(&statement, &parameters)?;
    let wanted = match query.kinds {
        kinds if kinds.contains(&ColumnType::Blob) => FETCHED_MESSAGES,
        kinds if kinds.contains(&ColumnType::Histogram) => FETCHED_HISTOGRAMS,
        _ => FETCHED,
    };
    loop {
        let mut fetched = 0;
        let mut rows = transaction.query_portal_raw(&portal, wanted)?;
        while let Some(row) = rows.next()? {
            fetched += 1;
            if each(values(&row, query.kinds)?).is_break() {
                return Ok(());
            }
        }
        if fetched < wanted {
            return Ok(());
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Server(#[from] postgres::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct SchemaLookup {
    here: bool,
    role: String,
    schema: Option<String>,
    usable: bool,
}

impl SchemaLookup {
    fn find(transaction: &mut Transaction<'_>) -> Result<Self, postgres::Error> {
        let sql = format!(
            "
            SELECT here.oid IS NOT NULL, quote_ident(current_user), quote_ident(n.nspname),
                   coalesce(has_schema_privilege(n.oid, 'USAGE'), false)
            FROM (SELECT to_regclass('{table}')::oid AS oid) AS here
            LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace)
                   ON c.relname = '{table}' AND c.relkind = 'r' AND c.oid = coalesce(here.oid, c.oid)
            ORDER BY n.nspname LIMIT 1",
            table = migrations::MIGRATIONS_TABLE
        );
        let row = transaction.query_typed_one(&sql, &[])?;
        Ok(Self { here: row.try_get(0)?, role: row.try_get(1)?, schema: row.try_get(2)?, usable: row.try_get(3)? })
    }

    fn grants(&self) -> String {
        let (role, schema) = (&self.role, self.schema.as_deref().unwrap_or("public"));
        format!("GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
    }
}

impl Parameter {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number,
            Self::Time(time) => time,
            Self::Day(day) => day,
        }
    }

    fn sql_type(&self) -> Type {
        match self {
            Self::Text(_) => Type::TEXT,
            Self::Number(_) => Type::INT8,
            Self::Time(_) => Type::TIMESTAMPTZ,
            Self::Day(_) => Type::DATE,
        }
    }
}

fn values(row: &Row, kinds: &[ColumnType]) -> Result<Vec<Value>, postgres::Error> {
    let value = |(at, kind): (usize, &ColumnType)| {
        Ok(match kind {
            ColumnType::Text => row.try_get::<_, Option<String>>(at)?.into(),
            ColumnType::Time => row.try_get::<_, Option<DateTime<Utc>>>(at)?.into(),
            ColumnType::Day => row.try_get::<_, Option<NaiveDate>>(at)?.into(),
            ColumnType::Blob | ColumnType::Histogram => row.try_get::<_, Option<Vec<u8>>>(at)?.into(),
            ColumnType::Number => whole(row, at)?.into(),
            ColumnType::Bytes => whole(row, at)?.map(|bytes| ByteCount::from_bytes(bytes.max(0).unsigned_abs())).into(),
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
