//! Settings of a server change nothing that is stored, and a pooler in a mode that would is refused.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use highwater::consumer::store::{PartitionWidth, Retention, StoreError, StoreUrl};
use highwater::message::{Body, Direction};

use super::{open_store, options_for, postgres, servers_with_fail_points, store_first};
use crate::support::consumer::Consumer;
use crate::support::events::{breach, event, link_rates, noon, produce, rates, sample, started, updates};
use crate::support::pooler::Pooler;
use crate::support::process::is_installed;
use crate::support::skips::skip;
use crate::support::stores::{batch_of_events, derive_histograms, topic_id};

/// Settings of a server that change how text is read and written.
const SETTINGS: &[&str] = &[
    "DateStyle = 'SQL, MDY'",
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kolkata'",
    "TimeZone = 'America/St_Johns'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "standard_conforming_strings = off",
    "default_transaction_isolation = 'serializable'",
    "transform_null_equals = on",
    "lc_messages = 'de_DE.UTF-8'",
    "search_path = nowhere, public",
];

#[test]
fn no_setting_of_the_server_changes_what_is_stored() {
    let Some(postgres) = postgres("settings::no_setting_of_the_server_changes_what_is_stored") else { return };
    let told = |setting: Option<&str>| {
        let database = postgres.database("settings");
        if let Some(setting) = setting {
            let sql = format!(
                "DO $$BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET {}'; END$$",
                setting.replace('\'', "''")
            );
            database.client().batch_execute(&sql).unwrap();
        }
        let mut stored = open_store(&database.url, None);
        let mut all =
            vec![event("gw", 1, started()), event("gw", 2, Body::BreachRaised(breach("b", 1))), sample("gw", 1)];
        for (seq, day) in [(3, -40), (4, 40), (5, 80)] {
            let mut event = event("gw", seq, Body::BreachUpdated(breach("b", seq)));
            event.stamp.observed_at = noon() + TimeDelta::days(day);
            all.push(event);
        }
        store_first(&mut *stored, &all).unwrap();
        // Two hours after the window began.
        let (window, now) =
            (rates("gw", 1, vec![link_rates("eth0", Direction::Rx, &[8_000_000; 5])]), noon() + TimeDelta::hours(2));
        assert_eq!(stored.apply(&batch_of_events(all.len() as i64, &[window]), now).unwrap().inserted, 1);
        derive_histograms(&database.url, &options_for(PartitionWidth::Month), now);
        // Another session finds the partitions again.
        let mut again = open_store(&database.url, None);
        assert_eq!(again.apply(&batch_of_events(0, &all), Utc::now()).unwrap().inserted, 0);
        let mut client = database.client();
        client.batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET search_path = public").unwrap();
        let sql = "SELECT (SELECT string_agg(seq || ' ' || observed_at, ',' ORDER BY seq) FROM events),
                          (SELECT string_agg(c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid), ',' ORDER BY c.relname)
                           FROM pg_class c WHERE relispartition AND relkind = 'r'),
                          (SELECT string_agg(day || ' ' || excess_bytes, ',') FROM totals),
                          (SELECT string_agg(concat_ws(' ', started_at, observed_at, bytes, p95_bps, over), ',') FROM rates),
                          (SELECT string_agg(concat_ws(' ', span, starts_at, windows, late_windows, bytes, p95_bps,
                                                       encode(histogram, 'hex')), ',' ORDER BY span) FROM histograms)";
        let row = client.query_one(sql, &[]).unwrap();
        [0, 1, 2, 3, 4].map(|column| row.get::<_, String>(column))
    };
    let usual = told(None);
    assert!(usual[4].starts_with("day 2026-11-20 00:00:00+00 1 0 5000000 "), "{}", usual[4]);
    for setting in SETTINGS {
        assert_eq!(told(Some(setting)), usual, "{setting}");
    }
}

#[test]
fn a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_taken() {
    let test = "settings::a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_taken";
    let Some(postgres) = postgres(test) else { return };
    if !is_installed("pgbouncer") {
        return skip(&format!("consumer_database::{test}"), "needs pgbouncer");
    }
    let database = postgres.database("pooled");
    let is_refused = |error| {
        assert!(matches!(&error, StoreError::Pooled(text) if text.contains("pool_mode = session")), "{error:?}");
    };
    // With one server session, the second client would wait for the first one's transaction.
    let single = Pooler::start(&database, "transaction\ndefault_pool_size = 1");
    is_refused(open_store(&single.url, None).checkpoints(&topic_id("events")).unwrap_err());
    let transaction = Pooler::start(&database, "transaction");
    is_refused(open_store(&transaction.url, None).checkpoints(&topic_id("events")).unwrap_err());
    let mut maintenance =
        StoreUrl::parse(&transaction.url, None, None).unwrap().maintenance(&options_for(PartitionWidth::Day));
    let day = Duration::from_secs(86_400);
    let keep = Retention { events: day, dead_letters: day, totals: day, ..Retention::default() };
    is_refused(maintenance.run(&keep, None, day).unwrap_err());
    // Three at a time, as the sessions of a consumer.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..10 {
                    is_refused(open_store(&transaction.url, None).checkpoints(&topic_id("events")).unwrap_err());
                }
            });
        }
    });
    let session = Pooler::start(&database, "session");
    assert_eq!(store_first(&mut *open_store(&session.url, None), &updates(1..=3)).unwrap().inserted, 3);
}

/// Each session meets it; the line of the one that stores is enough.
#[test]
fn a_pooler_in_transaction_mode_is_reported_once() {
    let test = "settings::a_pooler_in_transaction_mode_is_reported_once";
    let Some((kafka, postgres)) = servers_with_fail_points(test) else { return };
    if !is_installed("pgbouncer") {
        return skip(&format!("consumer_database::{test}"), "needs pgbouncer");
    }
    let (topic, rates_topic) = (kafka.topic("pooled", 1), kafka.topic("pooled-rates", 1));
    produce(&kafka.address, &topic, &updates(1..=3));
    let pooler = Pooler::start(&postgres.database("pooled"), "transaction");
    let mut consumer = Consumer::new(&kafka.address, &topic, &pooler.url);
    consumer.append(&format!("[topics]\nrates = '{rates_topic}'"));
    let running = consumer.start_at("maintenance-first-s=return(0)", &[]);
    for says in
        ["; nothing is lost; retrying at least once a minute", " histograms: PostgreSQL: ", " retention: PostgreSQL: "]
    {
        running.until(says);
    }
    let log = running.log();
    // A group that forms slowly has the database checked meanwhile, which is another line.
    let is_other = |line: &str| line.contains("DEBUG") || line.contains(" database: ");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("is a pooler") && !is_other(line)).collect();
    assert!(lines.len() == 1 && lines[0].contains("ERROR PostgreSQL: "), "{log}");
}
