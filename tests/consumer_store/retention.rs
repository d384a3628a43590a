//! Retention deletes all that is old in both times, piece by piece, and nothing that is still of use.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use highwater::consumer::store::Maintained;
use highwater::message::{Body, Epoch, Event};
use highwater::wire;

use super::{StoreFixture, on_both};
use crate::support::events::{breach, event, loss, noon, sample, started, updated};
use crate::support::postgres::Postgres;
use crate::support::stores::StoreDatabase;

on_both!("consumer_store::retention":
    retention_drops_what_is_old_in_both_times,
    a_breach_goes_with_the_last_word_on_it,
    retention_without_time_changes_nothing,
    times_without_a_clock_are_thinned,
    old_gaps_are_closed_and_old_series_go,
    a_series_goes_whole_and_not_before_what_is_declared_of_it,
    what_an_agent_leaves_behind_goes_with_its_rows_and_totals,
);

fn a_breach_goes_with_the_last_word_on_it(fixture: &mut StoreFixture) {
    let at = |seq, day: i64, name: &str| {
        let time = noon() + TimeDelta::days(day);
        let mut breach = breach(name, seq);
        breach.raised_at = time;
        let mut event = event("gw", seq, Body::BreachUpdated(breach));
        event.stamp.observed_at = time;
        event
    };
    fixture.store_events(&[at(1, -60, "old"), at(2, -60, "long"), at(3, -20, "kept"), at(4, 0, "long")]);
    fixture.age("events", "seq < 3");
    fixture.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(fixture.ask("SELECT seq FROM events"), "3 4");
    assert_eq!(fixture.ask("SELECT breach_id FROM breach_state ORDER BY 1"), "kept long");
}

fn retention_drops_what_is_old_in_both_times(fixture: &mut StoreFixture) {
    let at = |seq, day: i64| {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    fixture.store_events(&[at(1, -60), at(2, -25), at(3, 0)]);
    fixture.store(&[b"garbage".to_vec()]);
    // Observed long ago, but just stored: they stay.
    assert_eq!(fixture.retire(10, Utc::now()), Maintained::default());
    fixture.age("events", "seq = 1");
    let maintained = fixture.retire(10, Utc::now() + TimeDelta::days(2));
    match &fixture.database {
        StoreDatabase::Sqlite(_) => assert_eq!(maintained.deleted["events"], 1),
        StoreDatabase::Postgres(_) => assert_eq!(maintained.dropped, ["events_20260901"]),
    }
    assert_eq!((maintained.deleted["dead_letters"], maintained.unfinished), (1, None));
    // Its bytes are gone; that it was there goes with the events.
    assert_eq!(
        fixture.ask("SELECT count(*), count(payload), drop_reason FROM dead_letters GROUP BY 3"),
        "1,0,retention"
    );
    fixture.run("UPDATE dead_letters SET stored_at = '2020-01-01T00:00:00.000000Z'");
    fixture.retain(10, 10_000, Utc::now() + TimeDelta::days(2));
    assert_eq!(fixture.ask("SELECT count(*) FROM dead_letters"), "1", "they may be kept longer than events");
    fixture.retire(10, Utc::now() + TimeDelta::days(2));
    assert_eq!(fixture.ask("SELECT count(*) FROM dead_letters"), "0");
    assert_eq!(fixture.ask("SELECT seq FROM events"), "2 3");
    // Offsets that a start left out explain what is missing for as long as the topic is read; other gaps do not.
    for (partition, cause) in [(8, "skipped_at_start"), (9, "expired")] {
        fixture.run(&format!(
            "INSERT INTO kafka_gaps (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset, last_offset, cause,
                                     noticed_at)
             VALUES ('', 't', {partition}, 0, 0, 1, '{cause}', '2020-01-01T00:00:00.000000Z')"
        ));
    }
    fixture.retire(10, Utc::now() + TimeDelta::days(2));
    assert_eq!(fixture.ask("SELECT cause FROM kafka_gaps"), "skipped_at_start");
    // Rows that retention dropped are no gap, and may come again.
    assert_eq!(fixture.ask("SELECT first_seq, last_seq FROM agent_sequences"), "1,3");
    assert_eq!(fixture.store_events(&[at(1, -60)]).inserted, 1);
}

/// A gateway without a clock reports 1970, or the year 2170.
fn times_without_a_clock_are_thinned(fixture: &mut StoreFixture) {
    let at = |seq, text: &str| {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = text.parse().unwrap();
        event
    };
    fixture.store_events(&[
        at(1, "1970-01-01T00:00:07Z"),
        at(2, "1970-01-01T00:00:07Z"),
        at(3, "2170-01-01T00:00:00Z"),
    ]);
    fixture.age("events", "seq <> 2");
    let maintained = fixture.retire(400, Utc::now());
    assert_eq!(maintained.deleted.values().sum::<u64>(), 2, "{maintained:?}");
    assert_eq!(fixture.ask("SELECT seq FROM events"), "2");
}

/// Each step is done in pieces, and asks for time before every one.
fn retention_without_time_changes_nothing(fixture: &mut StoreFixture) {
    fixture.store(&[b"garbage".to_vec(), wire::to_json(&updated("gw", 5)), wire::to_json(&updated("gw", 9))]);
    fixture.age("dead_letters", "true");
    fixture.run("UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'");
    let left =
        "SELECT (SELECT count(payload) FROM dead_letters), (SELECT count(*) FROM agent_sequences WHERE first_seq > 1)";
    let maintained = fixture.retain_within(Duration::ZERO, 400, 1, Utc::now());
    assert_eq!(maintained, Maintained { unfinished: Some("its time was up".into()), ..Maintained::default() });
    assert_eq!(fixture.ask(left), "1,2");
    assert_eq!(fixture.retain(4_000, 1, Utc::now()).deleted, BTreeMap::from([("dead_letters", 1)]));
    assert_eq!(fixture.ask(left), "0,2");
    assert_eq!(fixture.retain(400, 400, Utc::now()).unfinished, None);
    assert_eq!(fixture.ask("SELECT count(*), min(first_seq), max(last_seq) FROM agent_sequences"), "1,1,9");
}

/// Declarations, gaps, and the series of agents with a newer epoch do not grow for ever.
fn old_gaps_are_closed_and_old_series_go(fixture: &mut StoreFixture) {
    let of = |epoch, seq| {
        let mut event = updated("gw", seq);
        event.id.epoch = Epoch(epoch);
        event
    };
    fixture.store_events(&[of(1, 5), of(2, 3), of(2, 9), of(2, 12)]);
    // Several gaps in a row, and numbers that came with two times.
    let moved = |seq| {
        let mut event = of(3, seq);
        event.stamp.observed_at += TimeDelta::seconds(1);
        event
    };
    fixture.store_events(&[1, 2, 5, 6, 9, 12, 13].map(|seq| of(3, seq)));
    fixture.store_events(&[2, 12].map(moved));
    let mut declared = event("gw", 13, loss(4, 8));
    declared.id.epoch = Epoch(2);
    fixture.store_events(&[declared]);
    fixture.run(
        "UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'
         WHERE first_seq < 12 OR epoch = '0000000000000003'",
    );
    fixture.run("UPDATE agent_sequences SET last_stored_at = '2020-01-01T00:00:00.000000Z' WHERE first_seq = 5");
    fixture.run("UPDATE losses SET stored_at = '2020-01-01T00:00:00.000000Z'");
    fixture.retire(400, Utc::now());
    assert_eq!(
        fixture.ask("SELECT epoch, first_seq, last_seq, identity_conflicts FROM agent_sequences"),
        "0000000000000002,1,9,0 0000000000000002,12,13,0 0000000000000003,1,13,2"
    );
    assert_eq!(fixture.ask("SELECT count(*) FROM losses WHERE first_seq = 4"), "0");
}

/// An old range stays while its series grows, or while losses of it are stored: without it, its numbers would be a gap.
fn a_series_goes_whole_and_not_before_what_is_declared_of_it(fixture: &mut StoreFixture) {
    let of = |epoch, seq, body| {
        let mut event = event("gw", seq, body);
        event.id.epoch = Epoch(epoch);
        event
    };
    fixture.store_events(&[of(1, 1, started()), of(1, 5, started()), of(2, 9, started()), of(3, 1, started())]);
    let mut declared = of(3, 2, loss(1, 8));
    let Body::Loss(lost) = &mut declared.body else { unreachable!() };
    lost.epoch = Epoch(2);
    fixture.store_events(&[declared]);
    // The end of the first series is young, and the declaration of the second.
    fixture.run(
        "UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z', last_stored_at = '2020-01-01T00:00:00.000000Z'
         WHERE epoch <> '0000000000000003' AND first_seq <> 5",
    );
    fixture.retire(400, Utc::now());
    let series = "SELECT epoch, first_seq, last_seq FROM agent_sequences WHERE epoch <> '0000000000000003'";
    let both = "0000000000000001,1,1 0000000000000001,5,5 0000000000000002,1,9";
    assert_eq!(fixture.ask(series), both);
    fixture.run("UPDATE losses SET stored_at = '2020-01-01T00:00:00.000000Z'");
    fixture.retire(400, Utc::now());
    assert_eq!(fixture.ask(series), "0000000000000001,1,1 0000000000000001,5,5");
}

/// An agent that is gone has no newer series: its last one is remembered as long as any row or total of it may be.
fn what_an_agent_leaves_behind_goes_with_its_rows_and_totals(fixture: &mut StoreFixture) {
    let at = |mut event: Event, day: i64| {
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    let begun = |agent: &str, day| at(event(agent, 1, started()), day);
    // This agent's clock is wrong: its breach stays open.
    let ahead = at(event("ahead", 1, Body::BreachRaised(breach("b", 1))), 100 * 366);
    let sampled = at(sample("sampled", 1), 0);
    fixture.store_events(&[begun("gone", -60), at(sample("gone", 1), -60), begun("kept", 0), sampled, ahead]);
    fixture.age("events", "agent IN ('gone', 'ahead')");
    fixture.age("samples", "agent = 'gone'");
    let last_stored =
        |time: &str| format!("UPDATE agent_sequences SET first_stored_at = '{time}', last_stored_at = '{time}'");
    let agents = "SELECT DISTINCT agent FROM agent_sequences";
    fixture.run(&last_stored("2025-10-01T00:00:00.000000Z"));
    fixture.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(fixture.ask("SELECT agent FROM events"), "kept");
    assert_eq!(fixture.ask(agents), "ahead gone kept sampled", "totals may be younger");
    fixture.run(&last_stored("2020-01-01T00:00:00.000000Z"));
    fixture.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(fixture.ask(agents), "ahead kept sampled");
}

/// A row that is written again while retention waits for it is as young as it is then.
#[test]
fn what_is_renewed_while_it_expires_stays() {
    let Some(postgres) = Postgres::or_skip("consumer_store::retention::what_is_renewed_while_it_expires_stays") else {
        return;
    };
    let mut fixture = StoreFixture::postgres(&postgres);
    fixture.store(&[b"garbage".to_vec(), b"more".to_vec()]);
    let database = fixture.database.server();
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE '%/maintenance' AND wait_event_type = 'Lock'";
    let mut looking = database.client();
    // The round does not wait for long: under load, another one finds what it waits for.
    loop {
        fixture.age("dead_letters", "true");
        let mut writing = database.client();
        writing.batch_execute("BEGIN; UPDATE dead_letters SET stored_at = now() WHERE kafka_offset = 0").unwrap();
        let (is_done, looking) = (AtomicBool::new(false), &mut looking);
        let maintained = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut is_waiting = || looking.query_one(waits, &[]).unwrap().get::<_, bool>(0);
                while !is_done.load(Ordering::Relaxed) && !is_waiting() {
                    std::thread::yield_now();
                }
                writing.batch_execute("COMMIT").unwrap();
            });
            let maintained = fixture.retire(400, Utc::now());
            is_done.store(true, Ordering::Relaxed);
            maintained
        });
        if maintained.unfinished.is_none() {
            break;
        }
    }
    assert_eq!(fixture.ask("SELECT kafka_offset, length(payload) FROM dead_letters"), "0,7");
}

/// Only the index of a large table is read to see that an agent has no row left.
#[test]
fn what_an_agent_leaves_behind_is_looked_up_by_its_key() {
    let test = "consumer_store::retention::what_an_agent_leaves_behind_is_looked_up_by_its_key";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut fixture = StoreFixture::postgres(&postgres);
    fixture.store_events(&[sample("gw", 1)]);
    fixture.run(
        "INSERT INTO samples SELECT (jsonb_populate_record(s, jsonb_build_object('seq', n))).*
                         FROM samples s, generate_series(2, 50000) AS n",
    );
    fixture.run(
        "INSERT INTO agent_sequences
               SELECT (jsonb_populate_record(s, jsonb_build_object('agent', 'gone-' || n,
                           'first_stored_at', '2010-01-01', 'last_stored_at', '2010-01-01'))).*
               FROM agent_sequences s, generate_series(1, 500) AS n",
    );
    fixture.run("ANALYZE");
    let database = fixture.database.server();
    let read = || -> i64 {
        let sql =
            "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'samples%'";
        database.client().query_one(sql, &[]).unwrap().get(0)
    };
    let before = read();
    fixture.retire(400, Utc::now());
    database.until("SELECT count(*) FROM agent_sequences", "(1)");
    assert_eq!(read() - before, 0);
}
