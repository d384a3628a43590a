//! Migrations take as long as they take, and one consumer makes them while the others wait for it.

use super::servers_with_fail_points;
use crate::support::consumer::Consumer;
use crate::support::events::{produce, updates};
use crate::support::failpoints;
use crate::support::process::until;
use crate::support::services::Kafka;

#[test]
fn a_second_consumer_says_that_it_waits_for_the_migration() {
    /// The lock that whoever migrates holds.
    const MIGRATION_LOCK: i64 = 0x6877_6d69_6772;
    let Some((kafka, postgres)) =
        servers_with_fail_points("migrations::a_second_consumer_says_that_it_waits_for_the_migration")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("migrating", 1), postgres.database("migrating"));
    produce(&kafka.address, &topic, &updates(1..=10));
    let mut migrating = database.client();
    migrating.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).unwrap();
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let running = consumer.start(&[]);
    running.until("another consumer is migrating the schema; waiting for it");
    drop(migrating);
    database.until("SELECT count(*) FROM events", "(10)");
}

/// A migration far longer than an answer may take.
const LONG: &str = "migration-s=return(9);answer-max-s=return(3);step-max-s=return(4);migration-said-s=return(2)";

#[test]
fn a_migration_takes_as_long_as_it_takes() {
    let Some((kafka, postgres)) = servers_with_fail_points("migrations::a_migration_takes_as_long_as_it_takes") else {
        return;
    };
    let (topic, database) = (kafka.topic("migrated", 1), postgres.database("migrated"));
    produce(&kafka.address, &topic, &updates(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let running = consumer.start_at(LONG, &[]);
    running.until("the migration V1__tables of the database has been running for");
    database.until("SELECT count(*) FROM highwater_migrations", "(1)");
    database.until("SELECT count(*) FROM events", "(10)");
    assert!(!running.log().contains("has not answered"), "{}", running.log());
}

#[test]
fn a_migration_of_a_file_takes_as_long_as_it_takes() {
    let test = "consumer_database::migrations::a_migration_of_a_file_takes_as_long_as_it_takes";
    let (Some(()), Some(kafka)) = (failpoints::or_skip(test), Kafka::or_skip(test)) else { return };
    let topic = kafka.topic("migrated", 1);
    produce(&kafka.address, &topic, &updates(1..=10));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("h.db");
    let running = Consumer::new(&kafka.address, &topic, &format!("sqlite:{}", file.display())).start_at(LONG, &[]);
    running.until("the migration v1 of the database has been running for");
    until("all events are stored", || {
        let connection = rusqlite::Connection::open(&file).unwrap();
        let count: rusqlite::Result<i64> = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0));
        (count == Ok(10)).then_some(())
    });
    assert!(!running.log().contains("has not answered"), "{}", running.log());
}
