//! Brings the schema up to date, and refuses one that another version made.

use std::error::Error as _;

use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{Client, GenericClient};

use super::address::Address;
use super::{SETTINGS, sqlstate};
use crate::consumer::store::{StoreError, StoreProgress};
use crate::process::exit::chain;
use crate::process::failpoints;

mod embedded {
    refinery::embed_migrations!("src/consumer/store/postgres/migrations");
}

pub(super) const MIGRATIONS_TABLE: &str = "highwater_migrations";

/// Advisory lock of migrations: of several programs that start at once, one migrates, the others wait.
const MIGRATION_LOCK: i64 = 0x6877_6d69_6772; // "hwmigr"

pub(super) fn migrate(client: &mut Client, address: &Address, progress: &StoreProgress) -> Result<(), StoreError> {
    if applied_version(client)?? >= version() {
        return Ok(());
    }
    client.batch_execute("SET statement_timeout = 0")?;
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).map_err(|error| being_migrated(&error))?;
    let before = applied_version(client)??;
    let grant = grant(client)?;
    let runner = embedded::migrations::runner();
    let steps: Vec<(i64, String)> =
        runner.get_migrations().iter().map(|step| (i64::from(step.version()), step.to_string())).collect();
    for (version, name) in steps.into_iter().filter(|(version, _)| *version > before) {
        progress.set_migration(Some(name.clone()));
        if let Some(seconds) = failpoints::value("migration-s").and_then(|seconds| seconds.parse::<f64>().ok()) {
            client.execute("SELECT pg_sleep($1)", &[&seconds])?;
        }
        let target = refinery::Target::Version(i32::try_from(version).unwrap_or(i32::MAX));
        let mut runner = embedded::migrations::runner().set_target(target);
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
pub(super) fn applied_version(client: &mut impl GenericClient) -> Result<Result<i64, StoreError>, postgres::Error> {
    let there = client.query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&MIGRATIONS_TABLE, Type::TEXT)])?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(Ok(0));
    }
    let sql = format!("SELECT version::bigint, name::text, checksum::text FROM {MIGRATIONS_TABLE} ORDER BY version");
    let runner = embedded::migrations::runner();
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
    let row = client.query_typed_one(names, &[])?;
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
    let text = format!("PostgreSQL: cannot bring the schema up to date: {}", chain(error));
    if client.is_closed() { StoreError::Unavailable(text) } else { StoreError::Misconfigured(text) }
}

fn of_migration(error: &postgres::Error, address: &Address, grant: &str) -> StoreError {
    match error.as_db_error().map(|db| db.code().code()) {
        // SQLSTATEs of a CREATE whose object exists.
        Some("42P07" | "42710" | "42P16") => {
            of_another_program(address.schema().unwrap_or("public"), &sqlstate::text(error))
        }
        _ => sqlstate::not_permitted(error, grant.to_owned()),
    }
}

pub(super) fn of_another_program(schema: &str, there: &str) -> StoreError {
    StoreError::Misconfigured(format!(
        "PostgreSQL: the schema {schema} already has another program's object of the same name ({there}): set \
         store.schema = \"highwater\", or name another database in store.url"
    ))
}

/// Returns the relation of a schema that would be the first in the way of the migrations.
pub(super) fn conflicting_relation(client: &mut Client, schema_oid: u32) -> Result<Option<String>, postgres::Error> {
    let runner = embedded::migrations::runner();
    let lines = runner.get_migrations().iter().filter_map(refinery::Migration::sql).flat_map(str::lines);
    // A name follows the kind: `CREATE TABLE events (`, `CREATE VIEW breaches AS`.
    let created: Vec<&str> = lines.filter_map(|line| line.strip_prefix("CREATE ")?.split_whitespace().nth(1)).collect();
    let named = "SELECT relname::text FROM pg_class WHERE relnamespace = $1 AND relname::text = ANY($2::text[])
                 ORDER BY array_position($2::text[], relname::text) LIMIT 1";
    Ok(client.query_typed_opt(named, &[(&schema_oid, Type::OID), (&created, Type::TEXT_ARRAY)])?.map(|row| row.get(0)))
}

pub(super) fn version() -> i64 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0)
}
