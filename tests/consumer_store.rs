//! What every store promises: one body of tests, run against SQLite and against a real PostgreSQL.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use highwater::consumer::batch::{Batch, Fingerprint, Record};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Applied, StoreError, StoreUrl, Retention, Store};
use highwater::event::{Body, Epoch, Event, Lifecycle, Link, Loss, Reason, Sample};
use highwater::wire;
use proptest::prelude::*;

use crate::support::consumer::{Database, Postgres};
use crate::support::events::{breach, event, loss, noon, sample, started, updated};

const TOPIC: &str = "events";

/// A store under test, and a way to look at it that is not the store's.
struct Bench {
    store: Box<dyn Store + Send>,
    look: Look,
    next: i64,
}

enum Look {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

impl Bench {
    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreUrl::sqlite(&directory.path().join("h.db")).open("test");
        Self::begun(store, Look::Sqlite(directory))
    }

    fn postgres(postgres: &Postgres) -> Self {
        let database = postgres.database("store");
        let store = StoreUrl::parse(&database.url, None).unwrap().open("test");
        Self::begun(store, Look::Postgres(database))
    }

    fn begun(mut store: Box<dyn Store + Send>, look: Look) -> Self {
        assert_eq!(store.insert_checkpoint(TOPIC, 0, &Checkpoint::default()).unwrap(), Checkpoint::default());
        Self { store, look, next: 0 }
    }

    fn another(&self) -> Box<dyn Store + Send> {
        match &self.look {
            Look::Sqlite(directory) => StoreUrl::sqlite(&directory.path().join("h.db")).open("other"),
            Look::Postgres(database) => StoreUrl::parse(&database.url, None).unwrap().open("other"),
        }
    }

    /// What `sql` gives: rows by spaces, columns by commas. Both databases print whole numbers and text the same.
    fn ask(&self, sql: &str) -> String {
        match &self.look {
            Look::Postgres(database) => {
                let answer = database.ask(sql);
                answer.replace(['(', ')'], "")
            }
            Look::Sqlite(directory) => {
                let connection = rusqlite::Connection::open(directory.path().join("h.db")).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                let columns = statement.column_count();
                let rows = statement.query_map([], |row| {
                    let texts = (0..columns).map(|column| match row.get_ref(column).unwrap() {
                        rusqlite::types::ValueRef::Null => String::new(),
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        other => other.as_str().unwrap().to_owned(),
                    });
                    Ok(texts.collect::<Vec<_>>().join(","))
                });
                let mut rows: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
                rows.sort();
                rows.join(" ")
            }
        }
    }

    fn store(&mut self, payloads: &[Vec<u8>]) -> Applied {
        let batch = batch(self.next, payloads);
        self.next += payloads.len() as i64;
        self.store.apply(&batch, Utc::now()).unwrap()
    }

    fn store_events(&mut self, events: &[Event]) -> Applied {
        self.store(&events.iter().map(wire::to_json).collect::<Vec<_>>())
    }

    fn place(&mut self) -> Checkpoint {
        self.store.checkpoints(TOPIC).unwrap()[&0].clone()
    }
}

fn batch(from: i64, payloads: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new(TOPIC);
    for (offset, payload) in (from..).zip(payloads) {
        batch.push(0, Record::new(offset, Some(7), Some(b"k"), Some(payload)), || (0, from));
    }
    batch
}

fn payloads(seqs: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
    seqs.into_iter().map(|seq| wire::to_json(&updated("gw", seq))).collect()
}

/// Runs a body on both stores.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&mut super::Bench::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() {
                let test = concat!("consumer_store::postgres::", stringify!($name));
                let Some(postgres) = crate::support::consumer::Postgres::or_skip(test) else { return };
                super::$name(&mut super::Bench::postgres(&postgres));
            })*
        }
    };
}

on_both!(
    a_replay_changes_nothing,
    a_batch_before_its_turn_moves_nothing,
    what_is_stored_already_is_passed_over,
    a_partition_taken_by_another_is_left_to_it,
    another_generation_is_left_alone,
    holes_pass_and_gaps_are_written_down,
    offsets_without_records_are_passed,
    what_is_no_event_is_a_dead_letter_among_its_neighbours,
    one_identity_with_two_times_is_two_rows_and_counted_once,
    sequences_merge_and_gaps_show_unless_declared,
    last_and_anchor_are_remembered,
    a_place_is_replaced_only_from_what_it_was,
    times_from_1970_to_9999_are_rows,
    every_kind_is_stored_with_its_fields,
    an_open_breach_is_open,
    a_falling_breach_is_as_its_last_event_says,
    retention_drops_what_is_old_in_both_times,
    a_breach_goes_with_the_last_word_on_it,
    times_that_no_database_has_are_dead_letters,
    totals_are_by_agent_interface_direction_and_day,
    totals_stop_at_the_greatest_number,
    samples_are_rows_of_their_own_table_and_once,
    one_sample_with_two_times_is_two_rows_and_counted_once,
    samples_that_never_came_are_gaps_and_events_none,
    samples_go_with_retention_as_events_do,
);

fn a_replay_changes_nothing(bench: &mut Bench) {
    let events = payloads(1..=100);
    assert_eq!(bench.store(&events).inserted, 100);
    // The same messages again, further on in the topic: an agent that sent them twice.
    let again = bench.store(&events);
    assert_eq!((again.inserted, again.doubled.len()), (0, 0));
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq), sum(seq) FROM events"), "100,100,5050");
    assert_eq!(bench.ask("SELECT first, last, doubled FROM agent_sequences"), "1,100,0");
    assert_eq!(bench.place().next, 200);
}

fn a_batch_before_its_turn_moves_nothing(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    let fault = bench.store.apply(&batch(5, &payloads(6..=7)), Utc::now()).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)), "{fault:?}");
    assert_eq!(bench.ask("SELECT count(*) FROM events"), "3");
    assert_eq!(bench.place().next, 3);
    assert_eq!(bench.store(&payloads(4..=5)).inserted, 2);
}

fn what_is_stored_already_is_passed_over(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    // Killed between the database's commit and Kafka's: the same offsets come again, with more behind them.
    let applied = bench.store.apply(&batch(0, &payloads(1..=5)), Utc::now()).unwrap();
    assert_eq!((applied.inserted, applied.floors[&0]), (2, 3));
    assert_eq!(bench.place().next, 5);
    let behind = bench.store.apply(&batch(0, &payloads(1..=4)), Utc::now()).unwrap();
    assert_eq!((behind.inserted, behind.floors[&0], bench.place().next), (0, 5, 5));
}

/// Guard 1 skips by offset, whatever stands there now: that is what tells it from guard 2.
fn a_partition_taken_by_another_is_left_to_it(bench: &mut Bench) {
    let mut other = bench.another();
    bench.store(&payloads(1..=3));
    other.apply(&batch(3, &payloads(4..=9)), Utc::now()).unwrap();
    let late = bench.store.apply(&batch(3, &payloads(104..=106)), Utc::now()).unwrap();
    assert_eq!(late.inserted, 0);
    assert_eq!(bench.ask("SELECT count(*), max(seq) FROM events"), "9,9");
    assert_eq!(bench.place().next, 9);
}

fn another_generation_is_left_alone(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    let old = bench.place();
    bench.store.replace(TOPIC, 0, &old, &old.anew(Some("c"), 0), None).unwrap();
    let fault = bench.store.apply(&batch(3, &payloads(4..=9)), Utc::now()).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)), "{fault:?}");
    assert_eq!(bench.ask("SELECT count(*) FROM events"), "3");
}

fn holes_pass_and_gaps_are_written_down(bench: &mut Bench) {
    let mut batch = Batch::new(TOPIC);
    for (offset, seq) in [(3, 1), (4, 2), (9, 3)] {
        let payload = wire::to_json(&updated("gw", seq));
        batch.push(0, Record::new(offset, None, None, Some(&payload)), || (0, 0));
    }
    batch.partitions.get_mut(&0).unwrap().judge_missing(3);
    bench.store.apply(&batch, Utc::now()).unwrap();
    assert_eq!(bench.ask("SELECT partition, generation, first, last FROM kafka_gaps"), "0,0,0,2");
    assert_eq!(bench.place().next, 10);
}

fn offsets_without_records_are_passed(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    let last = bench.place().last;
    let mut batch = Batch::new(TOPIC);
    batch.pass(0, 0, 3, 8);
    bench.store.apply(&batch, Utc::now()).unwrap();
    assert_eq!((bench.place().next, bench.place().last), (8, last));
}

fn what_is_no_event_is_a_dead_letter_among_its_neighbours(bench: &mut Bench) {
    let long = "x".repeat(300);
    let bad: [Vec<u8>; 5] = [
        b"\xff\xfe\x00 garbage".to_vec(),
        Vec::new(),
        br#"{"agent": "#.to_vec(),
        String::from_utf8(wire::to_json(&updated("gw", 7))).unwrap().replace(":7,", ":9223372036854775808,").into(),
        wire::to_json(&updated(&long, 1)),
    ];
    let mut all = payloads([1]);
    all.extend(bad);
    all.extend(payloads([2]));
    let applied = bench.store(&all);
    assert_eq!((applied.inserted, applied.refused.len()), (2, 5));
    assert_eq!(bench.ask("SELECT count(*), min(\"offset\"), max(\"offset\") FROM dead_letters"), "5,1,5");
    assert_eq!(bench.ask("SELECT seq, kafka_offset FROM events"), "1,0 2,6");
    assert_eq!(bench.ask("SELECT length(payload) FROM dead_letters WHERE \"offset\" = 1"), "11");
    // Alone in a quiet topic.
    assert_eq!(bench.store(&[b"garbage".to_vec()]).refused.len(), 1);
    assert_eq!(bench.place().next, 8);
    assert_eq!(bench.store(&payloads([3])).inserted, 1);
}

fn one_identity_with_two_times_is_two_rows_and_counted_once(bench: &mut Bench) {
    let moved = |seq, seconds| {
        let mut event = updated("gw", seq);
        event.stamp.observed_at += TimeDelta::seconds(seconds);
        event
    };
    bench.store_events(&[updated("gw", 1), updated("gw", 2), updated("gw", 3)]);
    // One is a copy, one is a stranger with its identity (a day later too), one is new.
    let applied = bench.store_events(&[updated("gw", 1), moved(2, 86_400), updated("gw", 4)]);
    assert_eq!((applied.inserted, applied.doubled.len()), (2, 1), "{applied:?}");
    assert!(applied.doubled[0].contains("gw 0000000000005f0c-2"), "{applied:?}");
    // Both in one batch.
    let applied = bench.store_events(&[updated("gw", 5), moved(5, 1)]);
    assert_eq!((applied.inserted, applied.doubled.len()), (2, 1));
    // Neither is counted when it comes again.
    let applied = bench.store_events(&[moved(2, 86_400), updated("gw", 2)]);
    assert_eq!((applied.inserted, applied.doubled.len()), (0, 0));
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq) FROM events"), "7,5");
    assert_eq!(bench.ask("SELECT first, last, doubled FROM agent_sequences"), "1,5,2");
}

fn sequences_merge_and_gaps_show_unless_declared(bench: &mut Bench) {
    bench.store(&payloads([2, 3, 9, 10]));
    bench.store(&payloads([5]));
    bench.store(&payloads([4]));
    assert_eq!(bench.ask("SELECT first, last FROM agent_sequences"), "2,5 9,10");
    assert_eq!(bench.ask("SELECT first FROM sequence_gaps"), "", "they are too young to be told");
    let old = match bench.look {
        Look::Sqlite(_) => "UPDATE agent_sequences SET began = '2026-01-01T00:00:00.000000Z'",
        Look::Postgres(_) => "UPDATE agent_sequences SET began = now() - interval '6 minutes'",
    };
    bench.run(old);
    assert_eq!(
        bench.ask("SELECT agent, epoch, first, last, missing FROM sequence_gaps"),
        "gw,0000000000005f0c,1,1,1 gw,0000000000005f0c,6,8,3"
    );
    bench.store_events(&[event("gw", 11, loss(6, 7))]);
    assert_eq!(bench.ask("SELECT first, last, reason, detail FROM losses"), "6,7,evicted,");
    assert_eq!(bench.ask("SELECT first, last FROM sequence_gaps"), "1,1 8,8");
}

fn last_and_anchor_are_remembered(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    let first = bench.place();
    assert_eq!(first.last.map(|mark| mark.offset), Some(2));
    assert_eq!(first.anchor, first.last);
    bench.store(&payloads(4..=5));
    let second = bench.place();
    assert_eq!((second.last.map(|mark| mark.offset), second.anchor), (Some(4), first.last));
    let payload = wire::to_json(&updated("gw", 5));
    assert_eq!(second.last, Some(Fingerprint::new(4, Some(7), Some(b"k"), Some(&payload))));
}

fn a_place_is_replaced_only_from_what_it_was(bench: &mut Bench) {
    let mut other = bench.another();
    bench.store(&payloads(1..=3));
    let old = bench.place();
    let new = Checkpoint { next: 50, ..old.clone() };
    bench.store.replace(TOPIC, 0, &old, &new, Some((3, 49))).unwrap();
    assert_eq!(bench.ask("SELECT first, last FROM kafka_gaps"), "3,49");
    let fault = other.replace(TOPIC, 0, &old, &new, Some((3, 60))).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)));
    assert_eq!(other.found(TOPIC, 0, &Checkpoint::default()).unwrap(), new);
    assert_eq!(bench.ask("SELECT first, last FROM kafka_gaps"), "3,49");
}

fn times_from_1970_to_9999_are_rows(bench: &mut Bench) {
    let mut events = Vec::new();
    for (seq, text) in (1..).zip([
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T23:59:59.999999Z",
        "2099-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00.000000Z",
        "9999-12-31T23:59:59.999999Z",
    ]) {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = text.parse::<DateTime<Utc>>().unwrap();
        events.push(event);
    }
    assert_eq!(bench.store_events(&events).inserted, 5);
    assert_eq!(bench.store_events(&events).inserted, 0);
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT observed_at) FROM events"), "5,5");
}

fn every_kind_is_stored_with_its_fields(bench: &mut Bench) {
    let link = |reason| Link {
        interface: "wan0".into(),
        ifindex: u32::MAX,
        speed_bps: Some(1 << 40),
        reason: Some(reason),
        detail: Some("eth7".into()),
    };
    let too_large = Loss {
        epoch: Epoch(0x5f0c),
        ranges: vec![(7, 8)],
        reason: Reason::Rejected,
        detail: Some("MessageSizeTooLarge".into()),
    };
    let stopped = Lifecycle { version: "1".into(), reason: Some(Reason::Signal), detail: None };
    let mut cleared = breach("b1", 4);
    (cleared.reason, cleared.detail) = (Some(Reason::LinkRenamed), Some("eth7".into()));
    let unknown =
        String::from_utf8(wire::to_json(&updated("gw", 5))).unwrap().replace("breach_updated", "quota_reached");
    let mut all: Vec<Vec<u8>> = [
        event("gw", 1, started()),
        event("gw", 2, Body::LinkAdded(link(Reason::Added))),
        event("gw", 3, Body::Loss(too_large)),
        event("gw", 4, Body::BreachCleared(cleared)),
        event("gw", 6, Body::LinkChanged(link(Reason::Renamed))),
        event("gw", 7, Body::AgentStopped(stopped)),
    ]
    .iter()
    .map(wire::to_json)
    .collect();
    all.push(unknown.clone().into_bytes());
    assert_eq!(bench.store(&all).inserted, 7);
    let lives = "SELECT seq, kind, version, reason, detail FROM events WHERE version IS NOT NULL";
    assert_eq!(bench.ask(lives), "1,agent_started,1,, 7,agent_stopped,1,signal,");
    assert_eq!(
        bench.ask("SELECT kind, interface, ifindex, speed_bps, reason, detail FROM events WHERE kind LIKE 'link%'"),
        "link_added,wan0,4294967295,1099511627776,added,eth7 link_changed,wan0,4294967295,1099511627776,renamed,eth7"
    );
    assert_eq!(
        bench.ask("SELECT lost_epoch, reason, detail FROM events WHERE kind = 'loss'"),
        "0000000000005f0c,rejected,MessageSizeTooLarge"
    );
    assert_eq!(bench.ask("SELECT first, last, reason, detail FROM losses"), "7,8,rejected,MessageSizeTooLarge");
    let fields = "limit_name, severity, interface, direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, \
                  measured_ms, excess_bytes, reason, detail";
    let values = "wan-down,warning,eth0,rx,80000000,90000004,90000004,85000000,4000,4000,500,link_renamed,eth7";
    assert_eq!(bench.ask(&format!("SELECT {fields} FROM events WHERE seq = 4")), values);
    assert_eq!(bench.ask(&format!("SELECT {fields} FROM breaches")), values);
    assert_eq!(bench.ask("SELECT breach_id, ifindex FROM events WHERE seq = 4"), "b1,2");
    let times = |table: &str| match bench.look {
        Look::Sqlite(_) => format!("SELECT started_at, raised_at, ended_at FROM {table}"),
        Look::Postgres(_) => {
            let text = |name: &str| format!("to_char({name}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
            format!("SELECT {}, {}, {} FROM {table}", text("started_at"), text("raised_at"), text("ended_at"))
        }
    };
    let told = "2026-11-20T12:00:00.000000Z,2026-11-20T12:00:01.000000Z,2026-11-20T12:00:04.000000Z";
    assert_eq!(bench.ask(&times("events WHERE seq = 4")), told);
    assert_eq!(bench.ask(&times("breaches")), told);
    assert_eq!(bench.ask("SELECT kafka_topic, kafka_partition, kafka_offset FROM events WHERE seq = 4"), "events,0,3");
    assert_eq!(bench.ask("SELECT length(raw) FROM events WHERE kind = 'quota_reached'"), unknown.len().to_string());
}

fn an_open_breach_is_open(bench: &mut Bench) {
    bench.store_events(&[
        event("gw", 1, Body::BreachRaised(breach("one", 1))),
        event("gw", 2, Body::BreachRaised(breach("two", 1))),
        event("gw", 3, Body::BreachUpdated(breach("two", 5))),
        event("gw", 4, Body::BreachCleared(breach("two", 9))),
    ]);
    let sql = "SELECT breach_id, state, CASE WHEN cleared_at IS NULL THEN 0 ELSE 1 END, duration_ms, peak_bps, excess_bytes \
               FROM breaches";
    assert_eq!(bench.ask(sql), "one,open,0,1000,90000001,125 two,cleared,1,9000,90000009,1125");
    let sql = match bench.look {
        Look::Sqlite(_) => {
            "SELECT breach_id, CAST(lasted * 1000 AS integer) FROM breaches WHERE cleared_at = last_seen_at"
        }
        Look::Postgres(_) => {
            "SELECT breach_id, (extract(epoch FROM lasted) * 1000)::bigint FROM breaches WHERE cleared_at = last_seen_at"
        }
    };
    assert_eq!(bench.ask(sql), "two,9000", "a clear is when it was judged, and the breach as long as it was over");
    // Longer than any interval.
    let mut endless = breach("endless", 1);
    endless.duration_ms = i64::MAX as u64;
    bench.store_events(&[event("gw", 5, Body::BreachUpdated(endless))]);
    assert_eq!(bench.ask("SELECT count(lasted) FROM breaches"), "3");
}

/// While a breach falls, its duration stays the same: the last event is then known by its number, whatever the clock shows; and
/// between two journals by the time.
fn a_falling_breach_is_as_its_last_event_says(bench: &mut Bench) {
    let falling = |name: &str, epoch, seq, second: i64| {
        let mut event = event("gw", seq, Body::BreachUpdated(breach(name, 9)));
        event.id.epoch = Epoch(epoch);
        event.stamp.observed_at = noon() + TimeDelta::seconds(second);
        event
    };
    // The clock is set back between two events of a journal; another journal, whose epoch is smaller, goes on.
    let told = |name: &str, seq| {
        [falling(name, 0x5f0c, seq, 3_600), falling(name, 0x5f0c, seq + 1, 60), falling(name, 1, seq, 7_200)]
    };
    let [first, second, third] = told("a", 1);
    bench.store_events(&[first, second]);
    assert_eq!(bench.ask("SELECT epoch, seq FROM breach_state"), "0000000000005f0c,2");
    bench.store_events(&[third]);
    assert_eq!(bench.ask("SELECT epoch, seq FROM breach_state"), "0000000000000001,1");
    // In other batches, and the other way round.
    for event in told("b", 3).into_iter().rev() {
        bench.store_events(&[event]);
    }
    let [first, second, _] = told("c", 5);
    bench.store_events(&[second]);
    bench.store_events(&[first]);
    let sql = "SELECT breach_id, epoch, seq FROM breach_state";
    assert_eq!(bench.ask(sql), "a,0000000000000001,1 b,0000000000000001,3 c,0000000000005f0c,6");
}

fn times_that_no_database_has_are_dead_letters(bench: &mut Bench) {
    let event = String::from_utf8(wire::to_json(&event("gw", 1, Body::BreachUpdated(breach("b", 1))))).unwrap();
    let field = |name: &str| {
        let from = event.find(&format!("\"{name}\":\"")).unwrap();
        let value = event[from + name.len() + 4..].split('"').next().unwrap();
        format!("\"{name}\":\"{value}\"")
    };
    let mut all = Vec::new();
    for year in ["0000", "-0001", "-4714", "+10000", "+262142"] {
        for name in ["observed_at", "started_at", "raised_at", "ended_at"] {
            all.push(event.replace(&field(name), &format!("\"{name}\":\"{year}-01-01T00:00:00Z\"")).into_bytes());
        }
    }
    all.extend(payloads([2]));
    let applied = bench.store(&all);
    assert_eq!((applied.inserted, applied.refused.len()), (1, 20), "{:?}", applied.refused);
    for (refused, name) in
        applied.refused.iter().zip(["observed_at", "started_at", "raised_at", "ended_at"].iter().cycle())
    {
        assert!(refused.error.contains(name), "{refused:?}");
    }
}

fn a_breach_goes_with_the_last_word_on_it(bench: &mut Bench) {
    let keep = Retention {
        events: std::time::Duration::from_secs(10 * 86_400),
        dead_letters: std::time::Duration::from_secs(86_400),
    };
    let at = |seq, day: i64, name: &str| {
        let mut event = event("gw", seq, Body::BreachUpdated(breach(name, seq)));
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    bench.store_events(&[at(1, -30, "old"), at(2, -30, "long"), at(3, -29, "kept"), at(4, 0, "long")]);
    bench.run("UPDATE events SET stored_at = '2020-01-01T00:00:00.000000Z' WHERE seq < 3");
    bench.store.retire(&keep, Utc::now()).unwrap();
    assert_eq!(bench.ask("SELECT seq FROM events"), "3 4");
    assert_eq!(bench.ask("SELECT breach_id FROM breach_state ORDER BY 1"), "kept long");
}

fn retention_drops_what_is_old_in_both_times(bench: &mut Bench) {
    let keep = Retention {
        events: std::time::Duration::from_secs(10 * 86_400),
        dead_letters: std::time::Duration::from_secs(86_400),
    };
    let at = |seq, day: i64| {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    bench.store_events(&[at(1, -30), at(2, -29), at(3, 0)]);
    bench.store(&[b"garbage".to_vec()]);
    let now = Utc::now();
    // Old by what was observed, but just stored: they stay.
    let retired = bench.store.retire(&keep, now).unwrap();
    assert_eq!((retired.events, retired.days.len(), retired.dead_letters), (0, 0, 0));
    match &bench.look {
        Look::Sqlite(_) => bench.run("UPDATE events SET stored_at = '2020-01-01T00:00:00.000000Z' WHERE seq = 1"),
        Look::Postgres(_) => bench.run("UPDATE events SET stored_at = '2020-01-01T00:00:00Z' WHERE seq = 1"),
    }
    let retired = bench.store.retire(&keep, now + TimeDelta::days(2)).unwrap();
    assert_eq!((retired.events + retired.days.len() as u64, retired.dead_letters), (1, 1), "{retired:?}");
    assert_eq!(bench.ask("SELECT seq FROM events"), "2 3");
    // What retention dropped is no gap, and may come again.
    assert_eq!(bench.ask("SELECT first, last FROM agent_sequences"), "1,3");
    assert_eq!(bench.store_events(&[at(1, -30)]).inserted, 1);
}

fn samples_are_rows_of_their_own_table_and_once(bench: &mut Bench) {
    let count = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM samples)";
    let mixed = [updated("gw", 1), sample("gw", 1), sample("gw", 2), updated("gw", 2), sample("other", 1)];
    assert_eq!(bench.store_events(&mixed).inserted, 5);
    assert_eq!(bench.ask(count), "2,3");
    // Again, alone, and among new ones.
    assert_eq!(bench.store_events(&mixed).inserted, 0);
    assert_eq!(bench.store_events(&[sample("gw", 2), sample("gw", 3), updated("gw", 2)]).inserted, 1);
    // Twice in one batch.
    assert_eq!(bench.store_events(&[sample("gw", 4), sample("gw", 4), started_again()]).inserted, 2);
    let mut empty = sample("gw", 5);
    empty.body = Body::Sample(Sample { interface: "eth1".into(), reason: Some(Reason::First), ..Sample::default() });
    bench.store_events(&[empty]);
    let fields = "SELECT seq, kafka_topic, kafka_offset, interface, duration_ms, rx_bytes, tx_bytes, rx_bps, tx_bps, reason \
                  FROM samples WHERE agent = 'gw' AND seq IN (3, 5)";
    assert_eq!(bench.ask(fields), "3,events,11,eth0,1000,30,,240,, 5,events,16,eth1,,,,,,first");
    assert_eq!(bench.ask(count), "3,6");
    // A neighbour that is none holds nothing up: PostgreSQL takes no NUL, SQLite does.
    let mut bad = sample("gw", 6);
    bad.body = Body::Sample(Sample { interface: "eth\0".into(), ..Sample::default() });
    let refused = usize::from(matches!(bench.look, Look::Postgres(_)));
    let applied = bench.store_events(&[bad.clone(), sample("gw", 7), updated("gw", 7), started_again()]);
    assert_eq!((applied.inserted, applied.refused.len()), (3 - refused as u64, refused));
    let alone = bench.store_events(&[bad]);
    assert_eq!((alone.inserted, alone.refused.len()), (0, refused), "the database is well, and the row is not");
}

fn started_again() -> Event {
    event("gw", 9, started())
}

fn one_sample_with_two_times_is_two_rows_and_counted_once(bench: &mut Bench) {
    bench.store_events(&[sample("gw", 1), sample("gw", 2)]);
    let mut twin = sample("gw", 2);
    twin.stamp.observed_at += TimeDelta::days(1);
    let applied = bench.store_events(&[twin.clone(), sample("gw", 3), updated("gw", 1)]);
    assert_eq!((applied.inserted, applied.doubled.len()), (3, 1));
    assert!(applied.doubled[0].starts_with("gw ffffffffffffa0f3-2"), "{:?}", applied.doubled);
    assert_eq!(bench.store_events(&[twin]).doubled.len(), 0);
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq) FROM samples"), "4,3");
}

/// Samples have an epoch of their own: what is missing of them is said, and nothing of the events is.
fn samples_that_never_came_are_gaps_and_events_none(bench: &mut Bench) {
    bench.store_events(&[updated("gw", 1), sample("gw", 1), sample("gw", 2), updated("gw", 2), sample("gw", 5)]);
    bench.run("UPDATE agent_sequences SET began = '2020-01-01T00:00:00.000000Z'");
    assert_eq!(bench.ask("SELECT epoch, first, last FROM sequence_gaps"), "ffffffffffffa0f3,3,4");
    bench.store_events(&[sample("gw", 3), sample("gw", 4)]);
    assert_eq!(bench.ask("SELECT count(*) FROM sequence_gaps"), "0");
}

fn samples_go_with_retention_as_events_do(bench: &mut Bench) {
    let keep = Retention {
        events: std::time::Duration::from_secs(10 * 86_400),
        dead_letters: std::time::Duration::from_secs(86_400),
    };
    let at = |seq, day: i64| {
        let mut event = sample("gw", seq);
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    let mut event = event("gw", 1, started());
    event.stamp.observed_at = noon() - TimeDelta::days(30);
    bench.store_events(&[at(1, -30), at(2, -29), at(3, 0), event]);
    bench.run("UPDATE samples SET stored_at = '2020-01-01T00:00:00.000000Z' WHERE seq = 1");
    let retired = bench.store.retire(&keep, Utc::now() + TimeDelta::days(2)).unwrap();
    assert_eq!(retired.events + retired.days.len() as u64, 1, "{retired:?}");
    if matches!(bench.look, Look::Postgres(_)) {
        assert_eq!(retired.days, ["samples_20261021"]);
    }
    assert_eq!(bench.ask("SELECT seq FROM samples"), "2 3");
    assert_eq!(bench.ask("SELECT count(*) FROM events"), "1");
    // It may come again, and its day is made again.
    assert_eq!(bench.store_events(&[at(1, -30)]).inserted, 1);
}

const TOTALS: &str = "SELECT agent, interface, direction, CAST(day AS text), breaches, excess_bytes FROM totals";

fn totals_are_by_agent_interface_direction_and_day(bench: &mut Bench) {
    let excess = |agent: &str, seq, id: &str, bytes| {
        let mut breach = breach(id, seq);
        breach.excess_bytes = bytes;
        event(agent, seq, Body::BreachUpdated(breach))
    };
    let elsewhere = |seq, interface: &str, day| {
        let mut breach = breach(&format!("{interface}{day}"), seq);
        (breach.interface, breach.raised_at) = (interface.into(), noon() + TimeDelta::days(day));
        event("gw", seq, Body::BreachRaised(breach))
    };
    // Two breaches of one day; the greatest of the first is not its last word, and one comes twice.
    let first =
        [excess("gw", 1, "a", 100), excess("gw", 2, "a", 900), excess("gw", 3, "a", 500), excess("gw", 4, "b", 7)];
    let applied = bench.store_events(&first);
    assert_eq!(applied.grown, BTreeMap::from([(("gw".to_owned(), "eth0".to_owned()), 907)]));
    let applied = bench.store_events(&[first[1].clone(), excess("gw", 5, "a", 1_000), excess("other", 1, "a", 1)]);
    assert_eq!(applied.grown[&("gw".to_owned(), "eth0".to_owned())], 100);
    bench.store_events(&[elsewhere(6, "eth1", 0), elsewhere(7, "eth0", 1)]);
    bench.store_events(&[event("gw", 8, started())]);
    let all = "gw,eth0,rx,2026-11-20,2,1007 gw,eth0,rx,2026-11-21,1,875 gw,eth1,rx,2026-11-20,1,750 other,eth0,rx,2026-11-20,1,1";
    assert_eq!(bench.ask(TOTALS), all);
    assert_eq!(bench.store_events(&first).grown, BTreeMap::new());
    bench.store_events(&[excess("gw", 9, "a", 1_001)]);
    assert_eq!(bench.ask("SELECT excess_bytes FROM totals WHERE breaches = 2"), "1008");
}

/// Nobody's bytes are that many; but a sum that overflows must not hold up the others.
fn totals_stop_at_the_greatest_number(bench: &mut Bench) {
    let huge = |seq, id: &str| {
        let mut breach = breach(id, seq);
        breach.excess_bytes = i64::MAX as u64 - 1;
        event("gw", seq, Body::BreachUpdated(breach))
    };
    assert_eq!(bench.store_events(&[huge(1, "a"), huge(2, "b")]).inserted, 2);
    assert_eq!(bench.store_events(&[huge(3, "c"), updated("gw", 4)]).inserted, 2);
    assert_eq!(bench.ask("SELECT breaches, excess_bytes FROM totals"), format!("4,{}", i64::MAX));
    assert_eq!(bench.ask("SELECT count(*) FROM dead_letters"), "0");
}

impl Bench {
    fn run(&self, sql: &str) {
        match &self.look {
            Look::Postgres(database) => database.client().batch_execute(sql).unwrap(),
            Look::Sqlite(directory) => {
                rusqlite::Connection::open(directory.path().join("h.db")).unwrap().execute_batch(sql).unwrap();
            }
        }
    }
}

/// Events of a breach in any order and any batches give the same last word.
fn breaches_merge_in_any_order(bench: &mut Bench, name: &str, order: &[usize], cuts: &[usize]) {
    let events: Vec<Event> = (0..8_u64)
        .map(|index| {
            let breach = breach(name, index + 1);
            let body = match index {
                0 => Body::BreachRaised(breach),
                7 => Body::BreachCleared(breach),
                _ => Body::BreachUpdated(breach),
            };
            event("gw", index + 1, body)
        })
        .collect();
    let mut rest = order;
    for cut in cuts {
        let (head, tail) = rest.split_at((*cut).min(rest.len()));
        rest = tail;
        if !head.is_empty() {
            bench.store_events(&head.iter().map(|index| events[*index].clone()).collect::<Vec<_>>());
        }
    }
    if !rest.is_empty() {
        bench.store_events(&rest.iter().map(|index| events[*index].clone()).collect::<Vec<_>>());
    }
    let sql = format!("SELECT seq, duration_ms, peak_bps FROM breach_state WHERE breach_id = '{name}'");
    assert_eq!(bench.ask(&sql), "8,8000,90000008", "{order:?} {cuts:?}");
}

fn in_any_order(mut bench: Bench, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let order = Just((0..8).collect::<Vec<usize>>()).prop_shuffle();
    let cuts = proptest::collection::vec(1..4_usize, 0..4);
    let bench = std::cell::RefCell::new((&mut bench, 0));
    runner
        .run(&(order, cuts), |(order, cuts)| {
            let (bench, count) = &mut *bench.borrow_mut();
            *count += 1;
            breaches_merge_in_any_order(bench, &format!("b{count}"), &order, &cuts);
            Ok(())
        })
        .unwrap();
}

/// Any order, copies, any batches: the same sums, and what batches say that they add makes up the same.
fn totals_add_up(bench: &mut Bench, agent: &str, sends: &[usize], cuts: &[usize]) {
    let events: Vec<Event> = (0..12_usize)
        .map(|index| {
            let mut breach = breach(["a", "b", "c"][index % 3], index as u64 + 1);
            breach.raised_at = noon() + TimeDelta::days((index % 3 / 2) as i64);
            breach.excess_bytes = [5, 100, 7, 90, 20, 7, 1, 300, 8, 33, 300, 0][index];
            event(agent, index as u64 + 1, Body::BreachUpdated(breach))
        })
        .collect();
    // All are sent, and some once more.
    let sent: Vec<Event> = sends.iter().map(|index| events[index % events.len()].clone()).collect();
    let (mut rest, mut added) = (sent.as_slice(), 0);
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (head, tail) = rest.split_at(cut.min(rest.len()));
        rest = tail;
        if !head.is_empty() {
            added += bench.store_events(head).grown.values().sum::<u64>();
        }
    }
    let sql = format!("SELECT CAST(day AS text), breaches, excess_bytes FROM totals WHERE agent = '{agent}'");
    assert_eq!(bench.ask(&sql), "2026-11-20,2,390 2026-11-21,1,8", "{sends:?} {cuts:?}");
    assert_eq!(added, 398);
}

fn totals_in_any_order(mut bench: Bench, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let sends = Just((0..20).collect::<Vec<usize>>()).prop_shuffle();
    let cuts = proptest::collection::vec(1..6_usize, 0..8);
    let bench = std::cell::RefCell::new((&mut bench, 0));
    runner
        .run(&(sends, cuts), |(sends, cuts)| {
            let (bench, count) = &mut *bench.borrow_mut();
            *count += 1;
            totals_add_up(bench, &format!("gw-{count}"), &sends, &cuts);
            Ok(())
        })
        .unwrap();
}

#[test]
fn sqlite_adds_up_the_same_totals_in_any_order() {
    totals_in_any_order(Bench::sqlite(), 64);
}

#[test]
fn postgres_adds_up_the_same_totals_in_any_order() {
    let Some(postgres) = Postgres::or_skip("consumer_store::postgres_adds_up_the_same_totals_in_any_order") else {
        return;
    };
    totals_in_any_order(Bench::postgres(&postgres), 64);
}

#[test]
fn sqlite_merges_breaches_in_any_order() {
    in_any_order(Bench::sqlite(), 64);
}

#[test]
fn postgres_merges_breaches_in_any_order() {
    let Some(postgres) = Postgres::or_skip("consumer_store::postgres_merges_breaches_in_any_order") else { return };
    in_any_order(Bench::postgres(&postgres), 64);
}

/// What only PostgreSQL refuses.
#[test]
fn rows_that_postgres_refuses_are_dead_letters_and_their_neighbours_are_rows() {
    let Some(postgres) =
        Postgres::or_skip("consumer_store::rows_that_postgres_refuses_are_dead_letters_and_their_neighbours_are_rows")
    else {
        return;
    };
    let mut bench = Bench::postgres(&postgres);
    let nul = |seq| {
        let mut breach = breach("b", seq);
        breach.limit_name = "a\0b".into();
        wire::to_json(&event("gw", seq, Body::BreachUpdated(breach)))
    };
    let mut all = payloads(1..=50);
    all.insert(10, nul(101));
    all.insert(30, nul(102));
    all.push(nul(103));
    let applied = bench.store(&all);
    assert_eq!((applied.inserted, applied.refused.len()), (50, 3), "{applied:?}");
    assert!(applied.refused[0].error.contains("22021"), "{applied:?}");
    // Alone, and all of a batch.
    assert_eq!(bench.store(&[nul(104)]).refused.len(), 1);
    assert_eq!(bench.store(&[nul(105), nul(106), nul(107)]).refused.len(), 3);
    assert_eq!(bench.ask("SELECT count(*) FROM dead_letters"), "7");
    assert_eq!(bench.ask("SELECT first, last FROM agent_sequences"), "1,50");
    assert_eq!(bench.place().next, 57);
}

/// Rows that the ranges know nothing of: what was seen is told by the primary key alone.
#[test]
fn the_key_decides_where_the_ranges_are_lost() {
    let Some(postgres) = Postgres::or_skip("consumer_store::the_key_decides_where_the_ranges_are_lost") else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store(&payloads(1..=20));
    bench.run("DELETE FROM agent_sequences");
    let applied = bench.store(&payloads(11..=30));
    assert_eq!((applied.inserted, applied.refused.len()), (10, 0), "{applied:?}");
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq) FROM events"), "30,30");
    // One event twice in one batch.
    let applied = bench.store(&payloads([31, 32, 31, 33]));
    assert_eq!((applied.inserted, applied.refused.len(), applied.doubled.len()), (3, 0, 0), "{applied:?}");
}

/// A database that refuses everything is broken, not the messages.
#[test]
fn a_database_that_refuses_its_own_probe_makes_no_dead_letters() {
    let test = "consumer_store::a_database_that_refuses_its_own_probe_makes_no_dead_letters";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.run("ALTER TABLE events ADD CONSTRAINT broken CHECK (seq < 0) NOT VALID");
    let fault = bench.store.apply(&batch(0, &payloads(1..=5)), Utc::now()).unwrap_err();
    assert!(matches!(&fault, StoreError::Misconfigured(text) if text.contains("broken")), "{fault:?}");
    assert_eq!(bench.ask("SELECT count(*) FROM dead_letters"), "0");
    bench.run("ALTER TABLE events DROP CONSTRAINT broken");
    assert_eq!(bench.store(&payloads(1..=5)).inserted, 5);
}

/// As many days as a hostile agent, or a long history read at once, may bring.
#[test]
fn thousands_of_days_do_not_exhaust_the_locks_of_the_database() {
    let test = "consumer_store::thousands_of_days_do_not_exhaust_the_locks_of_the_database";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut bench = Bench::postgres(&postgres);
    let event = |seq: u64| {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = noon() + TimeDelta::days(seq as i64);
        wire::to_json(&event)
    };
    let payloads: Vec<Vec<u8>> = (1..=2_000).map(event).collect();
    let mut rest = payloads.as_slice();
    while !rest.is_empty() {
        let mut batch = Batch::new(TOPIC);
        let from = bench.next;
        while !batch.is_full() && !rest.is_empty() {
            batch.push(0, Record::new(bench.next, Some(7), None, Some(&rest[0])), || (0, from));
            (bench.next, rest) = (bench.next + 1, &rest[1..]);
        }
        assert!(bench.next - from <= 100, "{} days in a batch", bench.next - from);
        bench.store.apply(&batch, Utc::now()).unwrap();
    }
    assert_eq!(bench.ask("SELECT count(*) FROM events"), "2000");
}

#[test]
fn a_day_that_vanished_is_made_again() {
    let Some(postgres) = Postgres::or_skip("consumer_store::a_day_that_vanished_is_made_again") else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store(&payloads(1..=3));
    bench.run("DROP TABLE events_20261120");
    assert_eq!(bench.store(&payloads(4..=5)).inserted, 2);
    // Detached by a dropping that was cut short.
    bench.run("ALTER TABLE events DETACH PARTITION events_20261120");
    assert_eq!(bench.store(&payloads(6..=7)).inserted, 2);
    assert_eq!(bench.ask("SELECT count(*) FROM events"), "4");
}

#[test]
fn several_at_once_make_the_schema_once() {
    let Some(postgres) = Postgres::or_skip("consumer_store::several_at_once_make_the_schema_once") else { return };
    let database = postgres.database("race");
    std::thread::scope(|scope| {
        for partition in 0..8 {
            let url = &database.url;
            scope.spawn(move || {
                let mut store = StoreUrl::parse(url, None).unwrap().open("racer");
                store.insert_checkpoint(TOPIC, partition, &Checkpoint::default()).unwrap();
                let mut batch = Batch::new(TOPIC);
                let payload = wire::to_json(&updated(&format!("gw-{partition}"), 1));
                batch.push(partition, Record::new(0, None, None, Some(&payload)), || (0, 0));
                assert_eq!(store.apply(&batch, Utc::now()).unwrap().inserted, 1);
            });
        }
    });
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(8)");
    assert_eq!(database.ask("SELECT version FROM refinery_schema_history"), "(1)");
}

/// A consumer that was stopped in the middle of its transaction holds the row; the partition's new owner takes it.
#[test]
fn a_held_partition_is_freed_by_its_owner() {
    let Some(postgres) = Postgres::or_skip("consumer_store::a_held_partition_is_freed_by_its_owner") else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store(&payloads(1..=3));
    let Look::Postgres(database) = &bench.look else { unreachable!() };
    let mut holder = database.client();
    holder.batch_execute("BEGIN; SELECT next FROM kafka_offsets FOR UPDATE").unwrap();
    let fault = bench.store.apply(&batch(3, &payloads(4..=5)), Utc::now()).unwrap_err();
    assert!(matches!(&fault, StoreError::Unavailable(text) if text.contains("1 ended")), "{fault:?}");
    assert!(holder.batch_execute("SELECT 1").is_err());
    assert_eq!(bench.store(&payloads(4..=5)).inserted, 2);
}

#[test]
fn wrong_passwords_and_missing_databases_are_named() {
    let Some(postgres) = Postgres::or_skip("consumer_store::wrong_passwords_and_missing_databases_are_named") else {
        return;
    };
    let database = postgres.database("named");
    let fault = |url: &str| StoreUrl::parse(url, None).unwrap().open("t").checkpoints(TOPIC).unwrap_err();
    let missing = fault(&format!("{}_not", database.url));
    assert!(matches!(&missing, StoreError::Misconfigured(text) if text.contains("does not exist")), "{missing:?}");
    let (before, after) = database.url.split_once('@').unwrap();
    let wrong = fault(&format!("{before}x@{after}"));
    assert!(matches!(&wrong, StoreError::Misconfigured(text) if text.contains("password")), "{wrong:?}");
    let away = fault("postgres://u:p@127.0.0.1:1/d");
    assert!(matches!(&away, StoreError::Unavailable(_)), "{away:?}");
}

#[test]
fn places_are_by_topic() {
    let mut bench = Bench::sqlite();
    bench.store.insert_checkpoint("other", 3, &Checkpoint { next: 9, ..Checkpoint::default() }).unwrap();
    assert_eq!(bench.store.checkpoints("other").unwrap(), BTreeMap::from([(3, Checkpoint { next: 9, ..Checkpoint::default() })]));
    assert_eq!(bench.store.checkpoints(TOPIC).unwrap().len(), 1);
}
