use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _};

use super::super::JournalError;
use super::super::files::with_suffix;
use super::corruption::damage;
use crate::process::failpoints;

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: u32 = 1;
pub(super) const PAGE_BYTES: i64 = 4_096;
/// Size at which the write-ahead log is copied back (256 KiB), counted against the journal's size.
pub(super) const WAL_PAGES: i64 = 64;

/// Refuses a newer agent's journal, leaving its files alone. A header alone is not trusted: a damaged one would stop the agent.
pub(super) fn refuse_newer(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    // Without this, the first read creates a `-shm` file.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(damage)?;
    let version = version(connection)?;
    if version <= VERSION {
        return Ok(());
    }
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'meta'";
    let made = connection.query_row(sql, [], |row| row.get::<_, String>(0)).optional();
    if !made.is_ok_and(|sql| sql.is_some_and(|sql| sql.contains(&named(version)))) {
        return Ok(());
    }
    // Closing would copy a log back into the file; an empty one was only created by opening, and is removed.
    let has_log = with_suffix(path, "-wal").metadata().is_ok_and(|log| log.len() > 0);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log).map_err(damage)?;
    Err(JournalError::Newer { path: path.to_owned(), version, known: VERSION })
}

fn version(connection: &Connection) -> Result<u32, JournalError> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damage)
}

fn named(version: u32) -> String {
    format!("-- journal version {version}\n")
}

pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous())?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_PAGES * PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -256)?; // KiB
    connection.pragma_update(None, "temp_store", "MEMORY")
}

// The guard: an event is on the disk before it is visible outside.
pub(super) fn synchronous() -> &'static str {
    if failpoints::is_disabled("synchronous-full") { "OFF" } else { "FULL" }
}

pub(super) fn check(connection: &Connection) -> Result<(), JournalError> {
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damage)?;
    if sound != "ok" {
        let what: Vec<&str> = sound.lines().filter(|line| !line.starts_with("***")).collect();
        return Err(JournalError::Damaged(what.join("; ")));
    }
    match version(connection)? {
        0 => connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;")).map_err(damage),
        VERSION => check_tables(connection),
        other => {
            Err(JournalError::Damaged(format!("its header has version {other}, and its tables are of another one")))
        }
    }
}

/// Checks that the tables are literally those of [`SCHEMA`]: SQLite accepts a damaged column name until it is used.
fn check_tables(connection: &Connection) -> Result<(), JournalError> {
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").map_err(damage)?;
    let tables = statement.query_map([], |row| row.get::<_, String>(0)).map_err(damage)?;
    let tables = tables.collect::<Result<Vec<_>, _>>().map_err(damage)?;
    let are_all_there = tables.len() == SCHEMA.matches("CREATE TABLE").count();
    if are_all_there && tables.iter().all(|table| SCHEMA.contains(table.as_str())) {
        return Ok(());
    }
    Err(JournalError::Damaged("its tables are not those that this program creates".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_names_its_version_in_both_places() {
        assert!(SCHEMA.contains(&named(VERSION)));
        assert!(SCHEMA.ends_with(&format!("PRAGMA user_version = {VERSION};\n")));
    }
}
