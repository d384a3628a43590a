//! Maintenance deletes what has expired in small pieces, and storing goes on beside it.

use std::time::{Duration, Instant};

use chrono::Utc;
use highwater::consumer::store::{PartitionWidth, Retention, StoreUrl};

use super::{open_store, options_for, postgres, servers_with_fail_points, store_first};
use crate::support::consumer::{self, Consumer};
use crate::support::events::{produce, updated, updates};
use crate::support::faketime;
use crate::support::postgres::Database;
use crate::support::process::Running;
use crate::support::services::Kafka;
use crate::support::skips::skip;
use crate::support::stores::batch_of_events;

/// Returns how long maintenance takes while storing has to go on; `HIGHWATER_TEST_MAINTENANCE_S=150` is the long run.
fn maintained_for() -> Duration {
    let seconds = std::env::var("HIGHWATER_TEST_MAINTENANCE_S").ok();
    Duration::from_secs(seconds.map_or(10, |seconds| seconds.parse().expect("seconds")))
}

/// Sends updates from `first` on for as long as maintenance takes, none of which waits for its end.
pub(super) fn storing_goes_on(kafka: &Kafka, topic: &str, database: &Database, first: u64, running: &Running) {
    let began = Instant::now();
    for seq in first.. {
        produce(&kafka.address, topic, &[updated("gw", seq)]);
        let sent = Instant::now();
        database.until("SELECT max(seq) FROM events", &format!("({seq})"));
        assert!(sent.elapsed() < Duration::from_secs(8), "{:?}: {}", sent.elapsed(), running.log());
        if began.elapsed() > maintained_for() {
            break;
        }
    }
}

#[test]
fn storing_goes_on_while_the_maintenance_runs() {
    let Some((kafka, postgres)) = servers_with_fail_points("maintenance::storing_goes_on_while_the_maintenance_runs")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("maintained", 1), postgres.database("maintained"));
    produce(&kafka.address, &topic, &updates(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    // Maintenance that comes before the tables does nothing.
    consumer.run_until_end();
    let points = format!("maintenance-first-s=return(1);maintenance-s=return({})", maintained_for().as_secs());
    let running = consumer.start_at(&points, &[]);
    database.until("SELECT count(*) FROM events", "(10)");
    database.until("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%/maintenance' AND datname = current_database()", "(1)");
    storing_goes_on(&kafka, &topic, &database, 11, &running);
    database.until("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%/maintenance' AND datname = current_database()", "(0)");
}

/// Retention goes by the notes: one that is older than the newest row deletes rows that are young.
#[test]
fn the_note_of_a_partition_is_renewed_before_a_row_is_added() {
    let Some(postgres) = postgres("maintenance::the_note_of_a_partition_is_renewed_before_a_row_is_added") else {
        return;
    };
    let database = postgres.database("noted");
    store_first(&mut *open_store(&database.url, None), &updates(1..=1)).unwrap();
    let old = "UPDATE partition_notes SET newest_stored_at = '2020-01-01'";
    database.client().batch_execute(old).unwrap();
    let mut next = open_store(&database.url, None);
    assert_eq!(next.apply(&batch_of_events(1, &updates(2..=2)), Utc::now()).unwrap().inserted, 1);
    let noted = "SELECT partition, newest_stored_at > now() - interval '1 hour' FROM partition_notes WHERE partition LIKE 'events_2026%'";
    assert_eq!(database.ask(noted), "(events_20261101,t)");
    // Each session does so once a day: writers of the same partition do not wait for each other at every batch.
    database.client().batch_execute(old).unwrap();
    assert_eq!(next.apply(&batch_of_events(2, &updates(3..=3)), Utc::now()).unwrap().inserted, 1);
    assert_eq!(database.ask(noted), "(events_20261101,f)");
}

/// A statement that deleted all would hold its locks, and keep vacuum from its work, for as long as it takes.
#[test]
fn expired_rows_are_deleted_in_pieces() {
    let Some(postgres) = postgres("maintenance::expired_rows_are_deleted_in_pieces") else { return };
    let database = postgres.database("pieces");
    let mut of_1970 = updated("gw", 1);
    of_1970.stamp.observed_at = "1970-01-01T00:00:07Z".parse().unwrap();
    store_first(&mut *open_store(&database.url, None), &[of_1970]).unwrap();
    database
        .client()
        .batch_execute(
            "INSERT INTO events SELECT (e).* FROM (SELECT json_populate_record(e, json_build_object('seq', n)) AS e
                                                   FROM events e, generate_series(2, 25000) AS n) AS e;
             UPDATE events SET stored_at = '2020-01-01';
             CREATE TABLE pieces (rows bigint);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN INSERT INTO pieces SELECT count(*) FROM gone; RETURN NULL; END $$;
             CREATE TRIGGER note AFTER DELETE ON events_before_2020 REFERENCING OLD TABLE AS gone
                 FOR EACH STATEMENT EXECUTE FUNCTION note()",
        )
        .unwrap();
    let keep = Retention { events: Duration::from_secs(86_400), ..Retention::default() };
    let mut maintenance =
        StoreUrl::parse(&database.url, None, None).unwrap().maintenance(&options_for(PartitionWidth::Month));
    let maintained = maintenance.run(&keep, None, Duration::from_secs(60)).unwrap();
    assert_eq!((maintained.deleted["events_before_2020"], maintained.unfinished), (25_000, None));
    assert_eq!(database.ask("SELECT rows FROM pieces WHERE rows > 0"), "(10000) (10000) (5000)");
}

/// The server's clock is right: nothing has expired by it.
#[test]
fn a_consumer_whose_clock_is_years_ahead_deletes_nothing() {
    let test = "consumer_database::maintenance::a_consumer_whose_clock_is_years_ahead_deletes_nothing";
    let Some((kafka, postgres)) =
        servers_with_fail_points("maintenance::a_consumer_whose_clock_is_years_ahead_deletes_nothing")
    else {
        return;
    };
    let Some(library) = faketime::library() else { return skip(test, "needs faketime") };
    let (topic, database) = (kafka.topic("ahead", 1), postgres.database("ahead"));
    produce(&kafka.address, &topic, &updates(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.run_until_end();
    // Rows that do expire show that retention has run.
    database.client().batch_execute(OLD_GAP).unwrap();
    let points = "maintenance-first-s=return(0);maintenance-pause-s=return(1)";
    let mut command = consumer::command_at(points);
    command.env("LD_PRELOAD", library).env("FAKETIME", "+5y").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let running = consumer.start_as(command, &[]);
    database.until("SELECT count(*) FROM kafka_gaps", "(0)");
    running.until("retention: deleted 1 row of kafka_gaps");
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(10)", "{}", running.log());
}

const OLD_GAP: &str = "
    INSERT INTO kafka_gaps (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset, last_offset, cause, noticed_at)
    VALUES ('', 't', 0, 0, 0, 1, 'expired', '2020-01-01')";
