//! Tables and views explain themselves, refuse values out of their range, and are updated and looked up at a bounded cost.

use chrono::{TimeDelta, Utc};
use highwater::consumer::batch::{Gap, GapCause};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::PartitionWidth;
use highwater::message::{Body, Direction, Event};
use highwater::wire;

use super::{open_store, options_for, postgres, servers_with_fail_points, store_first};
use crate::support::consumer::Consumer;
use crate::support::events::{
    breach, event, link_rates, loss, noon, produce, rates, sample, started, updated, updates,
};
use crate::support::postgres::{Database, Postgres};
use crate::support::stores::{batch_of, batch_of_events, derive_histograms, insert_checkpoint, topic_id};

#[test]
fn every_table_and_column_says_what_it_is() {
    let Some(postgres) = postgres("schema::every_table_and_column_says_what_it_is") else { return };
    let database = postgres.database("comments");
    open_store(&database.url, None).checkpoints(&topic_id("events")).unwrap();
    let silent = "SELECT c.relname, a.attname FROM pg_class c
                  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
                  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
                    AND c.relname <> 'highwater_migrations'
                    AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)";
    assert_eq!(database.ask(silent), "");
    let same = "SELECT col_description('breaches'::regclass, 1) = col_description('breach_state'::regclass, 1)";
    assert_eq!(database.ask(same), "(t)");
}

/// An update of an open breach is a HOT update. On a server of its own: a transaction in any other database holds back what pages
/// could free.
#[test]
fn breaches_are_updated_in_place() {
    let Some(postgres) = Postgres::start_own("consumer_database::schema::breaches_are_updated_in_place") else {
        return;
    };
    let database = postgres.database("hot");
    let mut stored = open_store(&database.url, None);
    insert_checkpoint(&mut *stored, &topic_id("events"), 0, &Checkpoint::default(), None).unwrap();
    let mut next = 0;
    for round in 1..=50_u64 {
        let told = |agent: u64| {
            let body = Body::BreachUpdated(breach("b", round));
            event(&format!("gw-{agent}"), round, if round == 1 { Body::BreachRaised(breach("b", 1)) } else { body })
        };
        let all: Vec<Event> = (0..40).map(told).collect();
        stored.apply(&batch_of_events(next, &all), Utc::now()).unwrap();
        next += 40;
    }
    drop(stored);
    let share = "SELECT count(*) FROM pg_stat_user_tables
                 WHERE relname = 'breach_state' AND n_tup_upd >= 1900 AND n_tup_hot_upd >= 0.9 * n_tup_upd";
    database.until(share, "(1)");
}

/// Figures below nothing, and names that no agent sends: nobody's UPDATE brings them in.
#[test]
fn values_out_of_their_range_are_refused() {
    let Some(postgres) = postgres("schema::values_out_of_their_range_are_refused") else { return };
    let database = postgres.database("checks");
    store_in_every_table(&database);
    let mut client = database.client();
    for (table, change) in [
        ("events", "kafka_offset = -1"),
        ("events", "kafka_partition = -1"),
        ("events", "peak_bps = -1"),
        ("events", "severity = 'grave'"),
        ("samples", "seq = 0"),
        ("samples", "rx_bps = -1"),
        ("rates", "seq = 0"),
        ("rates", "direction = 'up'"),
        ("rates", "window_ms = 0"),
        ("rates", "window_ms = 3600001"),
        ("rates", "bytes = -1"),
        ("histograms", "span = 'week'"),
        ("histograms", "direction = 'up'"),
        ("breach_state", "direction = 'up'"),
        ("breach_state", "excess_bytes = -1"),
        ("totals", "breaches = -1"),
        ("totals", "direction = 'up'"),
        ("agent_sequences", "last_seq = 0"),
        ("agent_sequences", "identity_conflicts = -1"),
        ("agent_state", "state = 'asleep'"),
        ("losses", "first_seq = 0"),
        ("losses", "last_seq = 0"),
        ("kafka_offsets", "next_offset = -1"),
        ("kafka_gaps", "last_offset = -1"),
        ("kafka_gaps", "cause = 'lost'"),
        ("dead_letters", "kafka_offset = -1"),
        ("dead_letters", "bytes = -1"),
        ("dead_letters", "drop_reason = 'none'"),
    ] {
        assert!(client.execute(&format!("SELECT FROM {table}"), &[]).unwrap() > 0, "{table}");
        let error = client.execute(&format!("UPDATE {table} SET {change}"), &[]).unwrap_err();
        assert_eq!(error.code().map(postgres::error::SqlState::code), Some("23514"), "{table} {change}");
    }
}

fn store_in_every_table(database: &Database) {
    let mut stored = open_store(&database.url, None);
    let (first, gap) =
        (Checkpoint { next_offset: 2, ..Checkpoint::default() }, Gap { first: 0, last: 1, cause: GapCause::Expired });
    insert_checkpoint(&mut *stored, &topic_id("events"), 0, &first, Some(gap)).unwrap();
    let events = [
        event("gw", 1, Body::BreachRaised(breach("b", 3))),
        event("gw", 2, started()),
        event("gw", 3, loss(7, 9)),
        sample("gw", 1),
        rates("gw", 1, vec![link_rates("eth0", Direction::Rx, &[8_000_000])]),
    ];
    let payloads: Vec<Vec<u8>> = events.iter().map(wire::to_json).chain([b"garbage".to_vec()]).collect();
    // Two hours after the window began.
    let now = noon() + TimeDelta::hours(2);
    assert_eq!(stored.apply(&batch_of(2, &payloads), now).unwrap().inserted, 5);
    derive_histograms(&database.url, &options_for(PartitionWidth::Month), now);
}

#[test]
fn a_breach_whose_agent_began_anew_is_unknown() {
    let Some(postgres) = postgres("schema::a_breach_whose_agent_began_anew_is_unknown") else { return };
    let database = postgres.database("unknown");
    let mut stored = open_store(&database.url, None);
    let raised = |agent: &str| event(agent, 1, Body::BreachRaised(breach("b", 3)));
    store_first(&mut *stored, &[raised("lost"), raised("alive"), sample("alive", 1)]).unwrap();
    let mut anew = event("lost", 1, started());
    anew.id.epoch = highwater::message::Epoch(7);
    stored.apply(&batch_of_events(3, &[anew]), Utc::now()).unwrap();
    assert_eq!(database.ask("SELECT agent, state FROM breaches"), "(alive,open) (lost,unknown)");
    assert_eq!(database.ask("SELECT agent FROM open_breaches"), "(alive)");
    assert_eq!(database.ask("SELECT agent, lasted = interval '3 s' FROM breaches WHERE state = 'unknown'"), "(lost,t)");
    assert_eq!(database.ask("SELECT lasted > interval '1 h' FROM breaches WHERE state = 'open'"), "(t)");
}

#[test]
fn an_identity_under_other_times_is_sought_among_its_agents_newest_rows() {
    let Some((kafka, postgres)) =
        servers_with_fail_points("schema::an_identity_under_other_times_is_sought_among_its_agents_newest_rows")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("other-times", 1), postgres.database("other_times"));
    produce(&kafka.address, &topic, &updates(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let running = consumer.start_at("other-times-max=return(3)", &[]);
    database.until("SELECT count(*) FROM events", "(10)");
    // Newer than all, so that the three newest rows are those of 9, 10 and whichever came before.
    let again = |seq: u64| {
        let mut event = updated("gw", seq);
        event.stamp.observed_at += TimeDelta::days(1);
        event
    };
    for (seq, rows) in [(9, "(11)"), (1, "(12)")] {
        produce(&kafka.address, &topic, &[again(seq)]);
        database.until("SELECT count(*) FROM events", rows);
    }
    let found = "SELECT first_seq, last_seq, identity_conflicts FROM agent_sequences";
    database.until(found, "(1,10,1)");
    running.kill();
    // Without the bound the older one is found as well: it is counted when its row is a new one.
    let running = consumer.start_at("", &[]);
    produce(&kafka.address, &topic, &[again(2)]);
    database.until(found, "(1,10,2)");
    running.kill();
}
