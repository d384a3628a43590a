//! Migrations take as long as they take, and one consumer makes them while the others wait for it.

use super::servers_with_fail_points;
use crate::support::consumer::Consumer;
use crate::support::events::{produce, updates};

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

#[test]
fn a_migration_takes_as_long_as_it_takes() {
    let Some((kafka, postgres)) = servers_with_fail_points("migrations::a_migration_takes_as_long_as_it_takes") else {
        return;
    };
    let (topic, database) = (kafka.topic("migrated", 1), postgres.database("migrated"));
    produce(&kafka.address, &topic, &updates(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let points = "migration-s=return(9);answer-max-s=return(3);step-max-s=return(4);migration-said-s=return(2)";
    let running = consumer.start_at(points, &[]);
    running.until("the migration V1__tables of the database has been running for");
    database.until("SELECT count(*) FROM highwater_migrations", "(1)");
    database.until("SELECT count(*) FROM events", "(10)");
    assert!(!running.log().contains("has not answered"), "{}", running.log());
}
