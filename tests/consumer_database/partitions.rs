//! Events of any time are stored, whatever partitions somebody else has made and whatever time an agent sends.

use chrono::{DateTime, TimeDelta, Utc};
use highwater::message::Event;

use super::servers_with_fail_points;
use crate::support::consumer::Consumer;
use crate::support::events::{produce, updated, updates, utc};

/// Rows of a month that somebody's DEFAULT partition has keep a partition of that month from being created.
#[test]
fn what_a_default_partition_has_begun_goes_there() {
    let Some((kafka, postgres)) = servers_with_fail_points("partitions::what_a_default_partition_has_begun_goes_there")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("default", 1), postgres.database("default"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    produce(&kafka.address, &topic, &updates(1..=1));
    consumer.run_until_end();
    database
        .client()
        .batch_execute(
            "CREATE TABLE rest PARTITION OF events DEFAULT;
             INSERT INTO rest SELECT (e).* FROM (SELECT json_populate_record(e, '{\"observed_at\": \"2026-09-07T00:00:00Z\",
                                                                               \"seq\": 99}') AS e FROM events e) AS e",
        )
        .unwrap();
    let mut of_september = updated("gw", 2);
    of_september.stamp.observed_at = "2026-09-20T12:00:00Z".parse().unwrap();
    let mut of_august = updated("gw", 3);
    of_august.stamp.observed_at = "2026-08-20T12:00:00Z".parse().unwrap();
    produce(&kafka.address, &topic, &[of_september, of_august, updated("gw", 4)]);
    let (_, log) = consumer.run_until_end();
    let said = "the DEFAULT partition rest has rows from 2026-09-01 to 2026-10-01, and takes those to come";
    assert!(log.contains(said), "{log}");
    let rows = "SELECT tableoid::regclass::text, seq FROM events";
    assert_eq!(database.ask(rows), "(events_20260801,3) (events_20261101,1) (events_20261101,4) (rest,2) (rest,99)");
    assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(0)");
}

#[test]
fn an_agent_with_a_bad_clock_is_named_in_the_log() {
    let Some((kafka, postgres)) = servers_with_fail_points("partitions::an_agent_with_a_bad_clock_is_named_in_the_log")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("bad_clock", 1), postgres.database("bad_clock"));
    let at = |agent: &str, seq: u64, observed_at: DateTime<Utc>| {
        let mut event = updated(agent, seq);
        event.stamp.observed_at = observed_at;
        event
    };
    let far = |seq: u64| at("astray", seq, utc("2090-01-01T00:00:00Z") + TimeDelta::days(100 * seq as i64));
    let events: Vec<Event> = (1..=20).map(far).chain([at("gw", 1, Utc::now())]).collect();
    produce(&kafka.address, &topic, &events);
    let (_, log) = Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    assert!(log.contains("astray sends too many events with times outside the retention period"), "{log}");
    assert!(!log.contains("gw sends too many"), "{log}");
    assert_eq!(database.ask("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM dead_letters)"), "(13,8)");
}
