use std::cell::Cell;
use std::ops::RangeInclusive;

use postgres::Client;

use super::address::Address;
use super::migrations::migrate;
use super::partitions::{self, Partitions};
use super::statements::Statements;
use super::{SETTINGS, pooler, quoted, sqlstate};
use crate::consumer::store::{StoreError, StoreOptions, StoreProgress};

/// Makes sessions with a server, after it was found to be no pooler in transaction mode: settings and locks last for a session.
#[derive(Clone)]
pub(super) struct Connector {
    address: Address,
    application: String,
    is_direct: bool,
}

pub(super) struct PostgresSession {
    connector: Connector,
    pub(super) client: Client,
    /// True after a COPY that the server refused before it began: it leaves one answer too many.
    pub(super) desynced: Cell<bool>,
    pub(super) sql: Statements,
    pub(super) partitions: Partitions,
}

/// Major versions that the tests run on.
const SUPPORTED: RangeInclusive<i32> = 13..=18;

/// Clears what another client left in a pooler's session without `server_reset_query`: all clients use the same statement names.
const RESET_SESSION: &str = "DEALLOCATE ALL; SELECT pg_advisory_unlock_all()";

impl Connector {
    pub(super) fn new(address: Address, application: String) -> Self {
        Self { address, application, is_direct: false }
    }

    pub(super) fn connect(&mut self) -> Result<Client, StoreError> {
        if !self.is_direct {
            pooler::refuse(&self.address, &self.application)?;
            self.is_direct = true;
        }
        usable_session(&self.address, &self.application)
    }
}

impl PostgresSession {
    pub(super) fn open(
        connector: &mut Connector,
        options: &StoreOptions,
        progress: &StoreProgress,
    ) -> Result<Self, StoreError> {
        let mut client = connector.connect()?;
        let migrated = migrate(&mut client, &connector.address, progress);
        progress.set_migration(None);
        migrated?;
        let sql = Statements::prepare(&mut client)?;
        let mut transaction = client.transaction()?;
        if let Some(warning) = partitions::locks(&mut transaction)?.warning() {
            log::warn!("PostgreSQL: {warning}");
        }
        transaction.execute(
            "UPDATE settings SET silent_after = make_interval(secs => $1) WHERE silent_after <> make_interval(secs => $1)",
            &[&options.silent_after.map(|after| after.as_secs_f64())],
        )?;
        transaction.commit()?;
        let partitions = Partitions::new(options);
        Ok(Self { connector: connector.clone(), client, desynced: Cell::new(false), sql, partitions })
    }

    pub(super) fn resync(&mut self) -> Result<(), StoreError> {
        if self.desynced.get() {
            self.client = self.connector.connect()?;
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

fn usable_session(address: &Address, application: &str) -> Result<Client, StoreError> {
    let mut client = address.connect(application)?;
    client.batch_execute(RESET_SESSION)?;
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
