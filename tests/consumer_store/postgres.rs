//! PostgreSQL alone: partitions are few and are made again, several consumers make the schema once, and a wrong URL is named.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use highwater::consumer::batch::{Batch, Record};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{RetriedRecord, RetryOutcome, StoreError, StoreUrl};
use highwater::message::{Direction, Event};
use highwater::wire;

use super::{StoreFixture, payloads};
use crate::support::events::{event, link_rates, rates_since, started, updated, utc};
use crate::support::postgres::Postgres;
use crate::support::process::until;
use crate::support::stores::{batch_of_events, insert_checkpoint, store_options, topic_id};

/// Events of more days than partitions are made for.
#[test]
fn a_bad_clock_makes_few_partitions_and_loses_nothing() {
    let test = "consumer_store::postgres::a_bad_clock_makes_few_partitions_and_loses_nothing";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut fixture = StoreFixture::postgres(&postgres);
    let payloads: Vec<Vec<u8>> = (1..=2_000)
        .map(|seq: u64| {
            let mut event = event("gw", seq, started());
            event.stamp.observed_at = utc("2090-01-01T00:00:00Z") + TimeDelta::days(seq as i64);
            wire::to_json(&event)
        })
        .collect();
    let mut rest = payloads.as_slice();
    let mut rejected = Vec::new();
    while !rest.is_empty() {
        let mut batch = Batch::new(&topic_id("events"));
        let from = fixture.next;
        while !batch.is_full() && !rest.is_empty() {
            batch.push(0, Record::new(fixture.next, Some(7), None, Some(&rest[0])), || (0, from));
            (fixture.next, rest) = (fixture.next + 1, &rest[1..]);
        }
        rejected.extend(fixture.store.apply(&batch, Utc::now()).unwrap().rejected);
    }
    assert!(rejected[0].error.contains("clock of gw"), "{:?}", rejected[0]);
    assert_eq!(fixture.ask("SELECT count(*) FROM partition_notes WHERE outside"), "12");
    assert_eq!(fixture.ask("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters)"), "2000");
    // Events within reach of the existing partitions are rows, and the others become rows later.
    let stored: usize = fixture.ask("SELECT count(*) FROM events").parse().unwrap();
    assert!((300..400).contains(&stored), "{stored}");
    fixture.run("UPDATE partition_notes SET made_at = now() - interval '2 hours'");
    let record = Record::new(1_900, Some(7), None, Some(&payloads[1_900]));
    let retried = RetriedRecord { partition: 0, generation: 0, record };
    let summary = fixture.store.retry(&topic_id("events"), &[retried], Utc::now()).unwrap();
    assert_eq!((summary.outcomes, summary.inserted), (vec![RetryOutcome::Stored], 1));
}

/// Each table has its own: rates of many old weeks leave the events theirs.
#[test]
fn partitions_outside_of_the_retention_are_counted_by_table() {
    let test = "consumer_store::postgres::partitions_outside_of_the_retention_are_counted_by_table";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut fixture = StoreFixture::postgres(&postgres);
    let old = |days| Utc::now() - TimeDelta::days(days);
    let windows: Vec<Event> = (1..=20_u32)
        .map(|seq| {
            rates_since(old(100 + 8 * i64::from(seq)), "gw", seq.into(), vec![link_rates("eth0", Direction::Rx, &[8])])
        })
        .collect();
    let applied = fixture.store_events(&windows);
    assert_eq!((applied.inserted, applied.rejected.len()), (12, 8), "{applied:?}");
    let mut event = event("gw", 1, started());
    event.stamp.observed_at = old(900);
    let applied = fixture.store_events(&[event]);
    assert_eq!((applied.inserted, applied.rejected), (1, vec![]));
}

#[test]
fn a_day_that_vanished_is_made_again() {
    let Some(postgres) = Postgres::or_skip("consumer_store::postgres::a_day_that_vanished_is_made_again") else {
        return;
    };
    let mut fixture = StoreFixture::postgres(&postgres);
    fixture.store(&payloads(1..=3));
    fixture.run("DROP TABLE events_20261101");
    assert_eq!(fixture.store(&payloads(4..=5)).inserted, 2);
    // Detached by an operator who keeps it.
    fixture.run("ALTER TABLE events DETACH PARTITION events_20261101");
    assert_eq!(fixture.store(&payloads(6..=7)).inserted, 2);
    assert_eq!(fixture.ask("SELECT seq FROM events"), "6 7");
    assert_eq!(fixture.ask("SELECT seq FROM events_20261101"), "4 5", "what somebody keeps is left alone");
}

#[test]
fn several_at_once_make_the_schema_once() {
    let Some(postgres) = Postgres::or_skip("consumer_store::postgres::several_at_once_make_the_schema_once") else {
        return;
    };
    let database = postgres.database("race");
    std::thread::scope(|scope| {
        for partition in 0..8 {
            let url = &database.url;
            scope.spawn(move || {
                let mut store = StoreUrl::parse(url, None, None).unwrap().open(&store_options("racer"));
                insert_checkpoint(&mut *store, &topic_id("events"), partition, &Checkpoint::default(), None).unwrap();
                let mut batch = Batch::new(&topic_id("events"));
                let payload = wire::to_json(&updated(&format!("gw-{partition}"), 1));
                batch.push(partition, Record::new(0, None, None, Some(&payload)), || (0, 0));
                assert_eq!(store.apply(&batch, Utc::now()).unwrap().inserted, 1);
            });
        }
    });
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(8)");
    assert_eq!(database.ask("SELECT version FROM highwater_migrations"), "(1)");
}

#[test]
fn wrong_passwords_and_missing_databases_are_named() {
    let Some(postgres) = Postgres::or_skip("consumer_store::postgres::wrong_passwords_and_missing_databases_are_named")
    else {
        return;
    };
    let database = postgres.database("named");
    let fault = |url: &str| {
        StoreUrl::parse(url, None, None)
            .unwrap()
            .open(&store_options("t"))
            .checkpoints(&topic_id("events"))
            .unwrap_err()
    };
    let missing = fault(&format!("{}_not", database.url));
    assert!(matches!(&missing, StoreError::Misconfigured(text) if text.contains("does not exist")), "{missing:?}");
    let (before, after) = database.url.split_once('@').unwrap();
    let wrong = fault(&format!("{before}x@{after}"));
    assert!(matches!(&wrong, StoreError::Misconfigured(text) if text.contains("password")), "{wrong:?}");
    let away = fault("postgres://u:p@127.0.0.1:1/d");
    assert!(matches!(&away, StoreError::Unavailable(_)), "{away:?}");
}

/// Numbers that are dead letters leave a range for each of the others: what a batch reads of them does not grow with their number.
#[test]
fn an_agent_with_many_gaps_is_looked_up_by_its_newest_ranges() {
    let test = "consumer_store::postgres::an_agent_with_many_gaps_is_looked_up_by_its_newest_ranges";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let database = postgres.database("gaps");
    // From the sixth time on, PostgreSQL may take a plan that knows no numbers.
    let store_every_second = |from: i64, batches: i64, size: i64| {
        let mut store = StoreUrl::parse(&database.url, None, None).unwrap().open(&store_options("gaps"));
        if from == 0 {
            insert_checkpoint(&mut *store, &topic_id("events"), 0, &Checkpoint::default(), None).unwrap();
        }
        for offset in (from..from + batches * size).step_by(size as usize) {
            let seqs = (offset..offset + size).map(|number| number.cast_unsigned() * 2 + 1);
            let events: Vec<Event> = seqs.map(|seq| updated("gw", seq)).collect();
            assert_eq!(
                store.apply(&batch_of_events(offset, &events), Utc::now()).unwrap().inserted,
                events.len() as u64
            );
        }
    };
    store_every_second(0, 1, 4_000);
    let read = "SELECT coalesce(sum(idx_tup_read), 0)::bigint AS n FROM pg_stat_user_indexes WHERE relname = 'agent_sequences'";
    let index_reads = || -> i64 { database.client().query_one(read, &[]).unwrap().get(0) };
    // A session reports its statistics at the latest when it ends.
    let settled = || {
        let mut before = -1;
        until("the statistics are complete", || {
            std::thread::sleep(Duration::from_millis(700));
            let now = index_reads();
            (std::mem::replace(&mut before, now) == now).then_some(now)
        })
    };
    let before = settled();
    store_every_second(4_000, 20, 100);
    assert_eq!(database.ask("SELECT count(*) FROM agent_sequences"), "(6000)");
    let entries = settled() - before;
    assert!((2_000..50_000).contains(&entries), "{entries} index entries for 2,000 events");
}
