use std::cell::Cell;
use std::error::Error as _;
use std::ops::RangeInclusive;

use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{Client, GenericClient};

use super::address::Address;
use super::partitions::{self, Partitions};
use super::statements::Statements;
use super::{quoted, sqlstate};
use crate::consumer::store::{StoreError, StoreOptions, StoreProgress};
use crate::process::failpoints::instead;

mod migrations {
    refinery::embed_migrations!("src/consumer/store/postgres");
}

pub(super) const MIGRATIONS_TABLE: &str = "highwater_migrations";

pub(super) struct PostgresSession {
    address: Address,
    application: String,
    pub(super) client: Client,
    /// True after a COPY that the server refused before it began: it leaves one answer too many.
    pub(super) desynced: Cell<bool>,
    pub(super) sql: Statements,
    pub(super) partitions: Partitions,
}

/// Major versions that the tests run on.
const SUPPORTED: RangeInclusive<i32> = 13..=18;

/// Bounds of waits, none of which ends a COPY: see [`super::end_holders`]. The role's own could end large batches or idle sessions.
const SETTINGS: &str = "
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '30s';
    SET statement_timeout = '60s';
    SET timezone = 'UTC';
    SET datestyle = 'ISO';
    SET default_transaction_isolation = 'read committed';
    SET client_min_messages = 'warning';
    SELECT set_config(name, '0', false) FROM unnest(ARRAY['transaction_timeout', 'idle_session_timeout']) AS name
    WHERE current_setting(name, true) IS NOT NULL;";

/// Frees a session that a pooler without `server_reset_query` hands over: prepared statements have the same names in each process.
const LEAVE_BEHIND: &str = "DEALLOCATE ALL; SELECT pg_advisory_unlock_all()";

/// Advisory lock of migrations: of several programs that start at once, one migrates, the others wait.
const MIGRATION_LOCK: i64 = 0x6877_6d69_6772; // "hwmigr"

impl PostgresSession {
    pub(super) fn open(
        address: &Address,
        application: &str,
        options: &StoreOptions,
        progress: &StoreProgress,
    ) -> Result<Self, StoreError> {
        let mut client = connect(address, application)?;
        let migrated = migrate(&mut client, address, progress);
        progress.set_migration(None);
        migrated?;
        let sql = Statements::prepare(&mut client)?;
        let mut transaction = client.transaction()?;
        if let Some(warning) = partitions::locks(&mut transaction)?.warning() {
            log::warn!("PostgreSQL: {warning}");
        }
        transaction.execute(
            "UPDATE settings SET silent_after = make_interval(secs => $1) WHERE silent_after <> make_interval(secs => $1)",
            &[&options.silent_after.as_secs_f64()],
        )?;
        transaction.commit()?;
        let partitions = Partitions::new(options);
        let (address, application) = (address.clone(), application.to_owned());
        Ok(Self { address, application, client, desynced: Cell::new(false), sql, partitions })
    }
}

impl PostgresSession {
    pub(super) fn resync(&mut self) -> Result<(), StoreError> {
        if self.desynced.get() {
            self.client = connect(&self.address, &self.application)?;
            self.sql = Statements::prepare(&mut self.client)?;
            self.desynced.set(false);
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Support {
    TooOld(String),
    Tested,
    Untested(String),
}

impl Support {
    pub(super) fn of(version: &str, number: i32) -> Self {
        let (oldest, newest) = (SUPPORTED.start(), SUPPORTED.end());
        match number / 10_000 {
            major if major < *oldest => {
                Self::TooOld(format!("is PostgreSQL {version}, which is too old: {oldest} to {newest} are supported"))
            }
            major if major > *newest => Self::Untested(format!(
                "is PostgreSQL {version}, newer than those that are tested, {oldest} to {newest}"
            )),
            _ => Self::Tested,
        }
    }
}

pub(super) fn connect(address: &Address, application: &str) -> Result<Client, StoreError> {
    let mut client = address.connect(application)?;
    client.batch_execute(LEAVE_BEHIND)?;
    client.batch_execute(SETTINGS)?;
    let row = client.query_one(
        "SELECT current_setting('server_encoding'), quote_ident(current_database()), quote_ident(current_user),
                current_setting('server_version'), current_setting('server_version_num')::int",
        &[],
    )?;
    let (encoding, database, role): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
    if let Support::TooOld(why) = Support::of(row.get(3), row.get(4)) {
        return Err(StoreError::Misconfigured(format!("PostgreSQL: {address} {why}")));
    }
    if encoding != "UTF8" {
        return Err(StoreError::Misconfigured(format!(
            "PostgreSQL: the database {database} has the encoding {encoding}, in which not every name and text can be stored; \
             create another one: CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8'"
        )));
    }
    if let Some(schema) = address.schema() {
        let there = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        if !client.query_one(there, &[&schema])?.get::<_, bool>(0) {
            let grant = format!("as its owner: GRANT CREATE ON DATABASE {database} TO {role}");
            let create = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
            client.batch_execute(&create).map_err(|error| sqlstate::not_permitted(&error, grant))?;
        }
        client.batch_execute(&format!("SET search_path = {}", quoted(schema)))?;
    }
    Ok(client)
}

fn migrate(client: &mut Client, address: &Address, progress: &StoreProgress) -> Result<(), StoreError> {
    if taken(client)?? >= version() {
        return Ok(());
    }
    client.batch_execute("SET statement_timeout = 0")?;
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).map_err(|error| being_migrated(&error))?;
    let before = taken(client)??;
    let grant = grant(client)?;
    let runner = migrations::migrations::runner();
    let steps: Vec<(i64, String)> =
        runner.get_migrations().iter().map(|step| (i64::from(step.version()), step.to_string())).collect();
    for (version, name) in steps.into_iter().filter(|(version, _)| *version > before) {
        progress.set_migration(Some(name.clone()));
        if let Some(seconds) = instead("migration-s").and_then(|seconds| seconds.parse::<f64>().ok()) {
            client.execute("SELECT pg_sleep($1)", &[&seconds])?;
        }
        let target = refinery::Target::Version(i32::try_from(version).unwrap_or(i32::MAX));
        let mut runner = migrations::migrations::runner().set_target(target);
        runner.set_migration_table_name(MIGRATIONS_TABLE);
        runner.run(client).map_err(|error| failed(&error, client, address, &grant))?;
        log::info!("PostgreSQL: schema migrated to {name}");
    }
    client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK])?;
    client.batch_execute(SETTINGS)?;
    Ok(())
}

fn being_migrated(error: &postgres::Error) -> StoreError {
    match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            StoreError::Unavailable("PostgreSQL: another consumer is migrating the schema; waiting for it".to_owned())
        }
        _ => sqlstate::store_error(error),
    }
}

/// Returns the schema's newest migration, or 0; refuses unknown and changed ones. Server errors stay apart, for readers to explain.
pub(super) fn taken(client: &mut impl GenericClient) -> Result<Result<i64, StoreError>, postgres::Error> {
    let there = client.query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&MIGRATIONS_TABLE, Type::TEXT)])?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(Ok(0));
    }
    let sql = format!("SELECT version::bigint, name::text, checksum::text FROM {MIGRATIONS_TABLE} ORDER BY version");
    let runner = migrations::migrations::runner();
    let mut taken = 0;
    for row in client.query_typed(&sql, &[])? {
        let (number, name, checksum): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
        taken = number;
        let ours = runner.get_migrations().iter().find(|step| i64::from(step.version()) == number);
        match ours {
            Some(ours) if ours.checksum().to_string() == checksum => {}
            None if number > version() => return Ok(Err(newer(&format!("V{number}__{name}")))),
            _ => return Ok(Err(divergent(&format!("V{number}__{name}"), checksum))),
        }
    }
    Ok(Ok(taken))
}

fn newer(migration: &str) -> StoreError {
    StoreError::Incompatible(format!(
        "PostgreSQL: the tables are those of a newer version of this program (migration {migration}; this one, {}, knows up to V{}): \
         install that version; to go back, restore a backup from before its first start",
        env!("CARGO_PKG_VERSION"),
        version()
    ))
}

fn divergent(migration: &str, checksum: &str) -> StoreError {
    StoreError::Incompatible(format!(
        "PostgreSQL: the tables were made by another build of this program: its migration {migration} (checksum {checksum} in \
         {MIGRATIONS_TABLE}) is not the one of {}; install that build, or name another schema or database in [store]",
        env!("CARGO_PKG_VERSION")
    ))
}

pub(super) fn grant(client: &mut Client) -> Result<String, StoreError> {
    let names = "SELECT quote_ident(coalesce(current_schema(), 'public')), quote_ident(current_user)";
    let row = client.query_one(names, &[])?;
    let (schema, role): (&str, &str) = (row.get(0), row.get(1));
    Ok(format!(
        "as its owner: GRANT CREATE, USAGE ON SCHEMA {schema} TO {role}; or, as a superuser, CREATE SCHEMA highwater \
         AUTHORIZATION {role}, and set store.schema = \"highwater\""
    ))
}

fn failed(error: &refinery::Error, client: &Client, address: &Address, grant: &str) -> StoreError {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(sql) = inner.downcast_ref::<postgres::Error>() {
            return of_migration(sql, address, grant);
        }
        source = inner.source();
    }
    let text = format!("PostgreSQL: cannot bring the schema up to date: {}", crate::process::exit::chain(error));
    if client.is_closed() { StoreError::Unavailable(text) } else { StoreError::Misconfigured(text) }
}

fn of_migration(error: &postgres::Error, address: &Address, grant: &str) -> StoreError {
    match error.as_db_error().map(|db| db.code().code()) {
        // SQLSTATEs of a CREATE whose object exists.
        Some("42P07" | "42710" | "42P16") => {
            let (schema, text) = (address.schema().unwrap_or("public"), sqlstate::text(error));
            StoreError::Misconfigured(format!(
                "PostgreSQL: the schema {schema} already has another program's object of the same name ({text}): set \
                 store.schema = \"highwater\", or name another database in store.url"
            ))
        }
        _ => sqlstate::not_permitted(error, grant.to_owned()),
    }
}

pub(super) fn version() -> i64 {
    let runner = migrations::migrations::runner();
    runner.get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_too_old_tested_or_newer_than_that() {
        let too_old = "is PostgreSQL 12.22, which is too old: 13 to 18 are supported".to_owned();
        assert_eq!(Support::of("12.22", 120_022), Support::TooOld(too_old));
        assert_eq!(Support::of("13.0", 130_000), Support::Tested);
        assert_eq!(Support::of("18.6", 180_006), Support::Tested);
        let newer = "is PostgreSQL 19beta1, newer than those that are tested, 13 to 18".to_owned();
        assert_eq!(Support::of("19beta1", 190_000), Support::Untested(newer));
    }
}
