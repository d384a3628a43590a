//! Promises of every store: one body of tests, run against SQLite and against a real PostgreSQL.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use highwater::consumer::batch::{Batch, Fingerprint, Gap, GapCause, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{
    Applied, Maintained, Retention, RetriedRecord, RetryOutcome, Store, StoreError, StoreOptions, StoreUrl, TotalKey,
};
use highwater::message::{
    Body, Breach, Direction, Epoch, Event, EventId, Lifecycle, Link, Loss, Reason, SEQ_MAX, Sample,
};
use highwater::wire;
use proptest::prelude::*;

use crate::support::consumer::{Database, Postgres, insert_checkpoint};
use crate::support::events::{breach, event, loss, noon, sample, started, updated};

fn topic() -> TopicId {
    TopicId { cluster: "c".into(), name: "events".into() }
}

fn options(instance: &str) -> StoreOptions {
    StoreOptions { instance: instance.to_owned(), ..StoreOptions::default() }
}

const BUDGET: Duration = Duration::from_secs(60);

/// A store under test, and a connection that is not the store's.
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
        let store = StoreUrl::sqlite(&directory.path().join("h.db")).open(&options("test"));
        Self::begun(store, Look::Sqlite(directory))
    }

    fn postgres(postgres: &Postgres) -> Self {
        let database = postgres.database("store");
        let store = StoreUrl::parse(&database.url, None, None).unwrap().open(&options("test"));
        Self::begun(store, Look::Postgres(database))
    }

    fn begun(mut store: Box<dyn Store + Send>, look: Look) -> Self {
        assert_eq!(
            insert_checkpoint(&mut *store, &topic(), 0, &Checkpoint::default(), None).unwrap(),
            Checkpoint::default()
        );
        Self { store, look, next: 0 }
    }

    fn another(&self) -> Box<dyn Store + Send> {
        match &self.look {
            Look::Sqlite(directory) => StoreUrl::sqlite(&directory.path().join("h.db")).open(&options("other")),
            Look::Postgres(database) => StoreUrl::parse(&database.url, None, None).unwrap().open(&options("other")),
        }
    }

    /// Runs `sql`; rows are separated by spaces, columns by commas. Both databases print whole numbers and text the same.
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

    fn retire(&self, days: u64, now: DateTime<Utc>) -> Maintained {
        self.retain(days as u32, 1, now)
    }

    fn retain(&self, days: u32, dead_letter_days: u32, now: DateTime<Utc>) -> Maintained {
        self.retain_within(BUDGET, days, dead_letter_days, now)
    }

    fn retain_within(&self, budget: Duration, days: u32, dead_letter_days: u32, now: DateTime<Utc>) -> Maintained {
        let url = match &self.look {
            Look::Sqlite(directory) => StoreUrl::sqlite(&directory.path().join("h.db")),
            Look::Postgres(database) => StoreUrl::parse(&database.url, None, None).unwrap(),
        };
        let day = Duration::from_secs(86_400);
        let keep = Retention { events: day * days, dead_letters: day * dead_letter_days, ..Retention::default() };
        url.maintenance(&options("maintenance")).run(&keep, Some(now), budget).unwrap()
    }

    /// Makes rows old, and the notes of their partitions.
    fn age(&self, table: &str, which: &str) {
        self.run(&format!("UPDATE {table} SET stored_at = '2020-01-01T00:00:00.000000Z' WHERE {which}"));
        if matches!(self.look, Look::Postgres(_)) {
            self.run(&format!(
                "UPDATE partition_notes SET newest_stored_at = '2020-01-01'
                 WHERE partition IN (SELECT tableoid::regclass::text FROM {table} WHERE {which})"
            ));
        }
    }

    fn place(&mut self) -> Checkpoint {
        self.store.checkpoints(&topic()).unwrap()[&0].clone()
    }
}

fn batch(from: i64, payloads: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new(&topic());
    for (offset, payload) in (from..).zip(payloads) {
        batch.push(0, Record::new(offset, Some(7), Some(b"k"), Some(payload)), || (0, from));
    }
    batch
}

fn expired(first: i64, last: i64) -> Gap {
    Gap { first, last, cause: GapCause::Expired }
}

fn payloads(seqs: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
    seqs.into_iter().map(|seq| wire::to_json(&updated("gw", seq))).collect()
}

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
    identities_with_two_times_are_counted_whatever_their_number,
    a_dead_letter_is_kept_whatever_it_claims,
    sequences_merge_and_gaps_show_unless_declared,
    what_is_missing_is_counted_once,
    what_is_declared_twice_is_missing_once,
    what_a_crash_cost_has_no_number,
    what_a_start_left_out_is_not_missing,
    a_breach_left_open_by_a_former_epoch_is_unknown_at_once,
    a_breach_of_both_directions_is_a_row,
    a_breach_that_retention_deleted_is_not_counted_again,
    last_and_anchor_are_remembered,
    a_place_is_replaced_only_from_what_it_was,
    times_from_1970_to_9999_are_rows,
    every_kind_is_stored_with_its_fields,
    an_open_breach_is_open,
    a_falling_breach_is_as_its_last_event_says,
    retention_drops_what_is_old_in_both_times,
    a_breach_goes_with_the_last_word_on_it,
    retention_without_time_changes_nothing,
    times_without_a_clock_are_thinned,
    old_gaps_are_closed_and_old_series_go,
    a_series_goes_whole_and_not_before_what_is_declared_of_it,
    what_an_agent_leaves_behind_goes_with_its_rows_and_totals,
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
    assert_eq!((again.inserted, again.identity_conflicts.len()), (0, 0));
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq), sum(seq) FROM events"), "100,100,5050");
    assert_eq!(bench.ask("SELECT first_seq, last_seq, identity_conflicts FROM agent_sequences"), "1,100,0");
    assert_eq!(bench.place().next_offset, 200);
}

fn a_batch_before_its_turn_moves_nothing(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    let fault = bench.store.apply(&batch(5, &payloads(6..=7)), Utc::now()).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)), "{fault:?}");
    assert_eq!(bench.ask("SELECT count(*) FROM events"), "3");
    assert_eq!(bench.place().next_offset, 3);
    assert_eq!(bench.store(&payloads(4..=5)).inserted, 2);
}

fn what_is_stored_already_is_passed_over(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    // Killed between the database's commit and Kafka's: the same offsets come again, with more behind them.
    let applied = bench.store.apply(&batch(0, &payloads(1..=5)), Utc::now()).unwrap();
    assert_eq!((applied.inserted, applied.stored[&0]), (2, (3, 5)));
    assert_eq!(bench.place().next_offset, 5);
    let behind = bench.store.apply(&batch(0, &payloads(1..=4)), Utc::now()).unwrap();
    assert_eq!((behind.inserted, behind.stored[&0], bench.place().next_offset), (0, (4, 4), 5));
}

/// Guard 1 skips by offset, whatever record is there now: that is the difference to guard 2.
fn a_partition_taken_by_another_is_left_to_it(bench: &mut Bench) {
    let mut other = bench.another();
    bench.store(&payloads(1..=3));
    other.apply(&batch(3, &payloads(4..=9)), Utc::now()).unwrap();
    let late = bench.store.apply(&batch(3, &payloads(104..=106)), Utc::now()).unwrap();
    assert_eq!(late.inserted, 0);
    assert_eq!(bench.ask("SELECT count(*), max(seq) FROM events"), "9,9");
    assert_eq!(bench.place().next_offset, 9);
}

fn another_generation_is_left_alone(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    let old = bench.place();
    bench.store.replace_checkpoint(&topic(), 0, &old, &old.recreated(0), None).unwrap();
    let fault = bench.store.apply(&batch(3, &payloads(4..=9)), Utc::now()).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)), "{fault:?}");
    assert_eq!(bench.ask("SELECT count(*) FROM events"), "3");
}

fn holes_pass_and_gaps_are_written_down(bench: &mut Bench) {
    let mut batch = Batch::new(&topic());
    for (offset, seq) in [(3, 1), (4, 2), (9, 3)] {
        let payload = wire::to_json(&updated("gw", seq));
        batch.push(0, Record::new(offset, None, None, Some(&payload)), || (0, 0));
    }
    batch.partitions.get_mut(&0).unwrap().judge_missing(3);
    bench.store.apply(&batch, Utc::now()).unwrap();
    assert_eq!(
        bench.ask(
            "SELECT kafka_cluster, kafka_partition, topic_generation, first_offset, last_offset, cause FROM kafka_gaps"
        ),
        "c,0,0,0,2,expired"
    );
    assert_eq!(bench.place().next_offset, 10);
}

fn offsets_without_records_are_passed(bench: &mut Bench) {
    bench.store(&payloads(1..=3));
    let last = bench.place().last;
    let mut batch = Batch::new(&topic());
    batch.skip_to(0, 0, 3, 8, None);
    bench.store.apply(&batch, Utc::now()).unwrap();
    assert_eq!((bench.place().next_offset, bench.place().last), (8, last));
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
    assert_eq!((applied.inserted, applied.rejected.len()), (2, 5));
    assert_eq!(bench.ask("SELECT count(*), min(kafka_offset), max(kafka_offset) FROM dead_letters"), "5,1,5");
    assert_eq!(bench.ask("SELECT seq, kafka_offset FROM events"), "1,0 2,6");
    assert_eq!(bench.ask("SELECT length(payload) FROM dead_letters WHERE kafka_offset = 1"), "11");
    // Alone in a quiet topic.
    assert_eq!(bench.store(&[b"garbage".to_vec()]).rejected.len(), 1);
    assert_eq!(bench.place().next_offset, 8);
    assert_eq!(bench.store(&payloads([3])).inserted, 1);
}

fn a_dead_letter_is_kept_whatever_it_claims(bench: &mut Bench) {
    let named = |agent: &str, seq| wire::to_json(&updated(agent, seq));
    let claims = [
        named("gw\0", 1),
        named("gw\u{202e}\n", 2),
        wire::to_json(&event("gw", i64::MAX as u64, started())),
        b"\xff".to_vec(),
    ];
    let mut batch = Batch::new(&topic());
    for (offset, payload) in (0..).zip(&claims) {
        let times = [Some(i64::MIN), Some(-62_200_000_000_000), Some(i64::MAX), Some(-1)];
        let record = Record::new(offset, times[offset as usize], Some(b"\0"), Some(payload));
        batch.push(0, Record { content: Err("no \0 event".into()), ..record }, || (0, 0));
    }
    assert_eq!(bench.store.apply(&batch, Utc::now()).unwrap().rejected.len(), 4);
    assert_eq!(bench.ask("SELECT count(*), count(kafka_timestamp) FROM dead_letters"), "4,1");
}

fn one_identity_with_two_times_is_two_rows_and_counted_once(bench: &mut Bench) {
    let moved = |seq, seconds| {
        let mut event = updated("gw", seq);
        event.stamp.observed_at += TimeDelta::seconds(seconds);
        event
    };
    bench.store_events(&[updated("gw", 1), updated("gw", 2), updated("gw", 3)]);
    // One is a copy, one has its identity under another time (a day later too), one is new.
    let applied = bench.store_events(&[updated("gw", 1), moved(2, 86_400), updated("gw", 4)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (2, 1), "{applied:?}");
    assert!(applied.identity_conflicts[0].contains("gw 0000000000005f0c-2"), "{applied:?}");
    // Both in one batch.
    let applied = bench.store_events(&[updated("gw", 5), moved(5, 1)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (2, 1));
    let many: Vec<Event> = (6..=40).map(|seq| updated("gw", seq)).collect();
    assert_eq!(bench.store_events(&many).identity_conflicts.len(), 0);
    let clones: Vec<Event> = (6..=40).map(|seq| moved(seq, 7)).collect();
    assert_eq!(bench.store_events(&clones).identity_conflicts.len(), 35);
    // Neither is counted when it comes again.
    let applied = bench.store_events(&[moved(2, 86_400), updated("gw", 2)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (0, 0));
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq) FROM events"), "77,40");
    assert_eq!(bench.ask("SELECT first_seq, last_seq, identity_conflicts FROM agent_sequences"), "1,40,37");
}

/// A row under another time is a conflict, and none where retention has taken the first one: each number decides for itself.
fn identities_with_two_times_are_counted_whatever_their_number(bench: &mut Bench) {
    let moved = |agent: &str, seq| {
        let mut event = updated(agent, seq);
        event.stamp.observed_at += TimeDelta::seconds(7);
        event
    };
    for agent in ["gw", "other"] {
        bench.store_events(&(1..=90).map(|seq| updated(agent, seq)).collect::<Vec<_>>());
    }
    bench.run("DELETE FROM events WHERE seq <= 30 OR seq > 60 OR (agent = 'other' AND seq < 60)");
    let clones: Vec<Event> = ["gw", "other"]
        .iter()
        .flat_map(|agent| (1..=90).map(move |seq| (agent, seq)))
        .map(|(agent, seq)| moved(agent, seq))
        .collect();
    let applied = bench.store_events(&clones);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (180, 31));
    assert_eq!(bench.ask("SELECT agent, identity_conflicts FROM agent_sequences"), "gw,30 other,1");
}

fn sequences_merge_and_gaps_show_unless_declared(bench: &mut Bench) {
    bench.store(&payloads([2, 3, 9, 10]));
    bench.store(&payloads([5]));
    bench.store(&payloads([4]));
    assert_eq!(bench.ask("SELECT first_seq, last_seq FROM agent_sequences"), "2,5 9,10");
    assert_eq!(bench.ask("SELECT first_seq FROM sequence_gaps"), "", "they are too young to be told");
    let old = match bench.look {
        Look::Sqlite(_) => "UPDATE agent_sequences SET first_stored_at = '2026-01-01T00:00:00.000000Z'",
        Look::Postgres(_) => "UPDATE agent_sequences SET first_stored_at = now() - interval '6 minutes'",
    };
    bench.run(old);
    assert_eq!(
        bench.ask("SELECT agent, epoch, first_seq, last_seq, missing FROM sequence_gaps"),
        "gw,0000000000005f0c,1,1,1 gw,0000000000005f0c,6,8,3"
    );
    bench.store_events(&[event("gw", 11, loss(6, 7))]);
    assert_eq!(bench.ask("SELECT first_seq, last_seq, reason, detail FROM losses"), "6,7,evicted,");
    assert_eq!(bench.ask("SELECT first_seq, last_seq FROM sequence_gaps"), "1,1 8,8");
}

/// A number is missing once, however many causes account for it.
fn what_is_missing_is_counted_once(bench: &mut Bench) {
    // Agent and number are known, but they are no events.
    let unreadable = |seq| {
        let text = String::from_utf8(wire::to_json(&updated("gw", seq))).unwrap();
        text.replace("\"direction\":\"rx\"", "\"direction\":\"up\"").into_bytes()
    };
    bench.store(&[unreadable(2), unreadable(2), unreadable(3)]);
    // No agent counts so far: the number says nothing.
    let of_no_count = String::from_utf8(unreadable(8)).unwrap().replace("\"seq\":8", "\"seq\":4611686018427387904");
    bench.store(&[of_no_count.into_bytes()]);
    bench.store_events(&[updated("gw", 1), event("gw", 4, loss(3, 3))]);
    assert_eq!(
        bench.ask("SELECT seq, claims FROM (SELECT seq, count(*) AS claims FROM dead_letters GROUP BY seq) AS d"),
        ",1 2,2 3,1"
    );
    assert_eq!(
        bench.ask("SELECT first_seq, last_seq, missing, cause FROM missing_events"),
        ",,1,dead_letter 2,2,1,dead_letter 3,3,1,declared"
    );
}

/// An agent that crashed before it had noted a declaration sends it again, under another number, and perhaps with more in it.
fn what_is_declared_twice_is_missing_once(bench: &mut Bench) {
    let declared = |seq, first, last| event("gw", seq, loss(first, last));
    bench.store_events(&[declared(1, 10, 19), declared(2, 10, 19), declared(3, 15, 24), declared(4, 12, 13)]);
    // 20 came after all. Another epoch has numbers of its own.
    let mut others = declared(1, 10, 19);
    others.id.epoch = Epoch(7);
    let Body::Loss(of_others) = &mut others.body else { unreachable!() };
    of_others.epoch = Epoch(7);
    bench.store_events(&[updated("gw", 20), others]);
    assert_eq!(bench.ask("SELECT count(*) FROM losses"), "5");
    assert_eq!(
        bench.ask("SELECT epoch, first_seq, last_seq, missing, cause FROM missing_events"),
        "0000000000000007,10,19,10,declared 0000000000005f0c,10,19,10,declared 0000000000005f0c,20,24,4,declared"
    );
    let whole = declared(5, 1, 1 << 47);
    bench.store_events(&[whole.clone(), Event { id: EventId { seq: 6, ..whole.id }, ..whole }, declared(7, 30, 40)]);
    assert_eq!(bench.ask("SELECT count(*) FROM missing_events WHERE epoch = '0000000000005f0c'"), "1");
}

/// An agent that crashed knows from which sample on Kafka may lack some, and not how many it had counted.
fn what_a_crash_cost_has_no_number(bench: &mut Bench) {
    let mut crashed = event("gw", 1, loss(3, SEQ_MAX));
    let Body::Loss(loss) = &mut crashed.body else { unreachable!() };
    (loss.epoch, loss.reason) = (sample("gw", 1).id.epoch, Reason::Interrupted);
    // Some came that the agent did not know to have arrived, and one of these never did.
    bench.store_events(&[1, 2, 3, 4, 6].map(|seq| sample("gw", seq)));
    bench.store_events(&[crashed]);
    bench.run("UPDATE agent_sequences SET first_stored_at = '2026-01-01T00:00:00.000000Z'");
    let missing = "SELECT first_seq, last_seq, missing, cause, reason FROM missing_events";
    assert_eq!(bench.ask(missing), "3,,,declared,interrupted");
    assert_eq!(bench.ask("SELECT agent, missing_events FROM agents"), "gw,0");
}

/// Reading began in the middle of a topic: what came before is no loss, but for series that began later.
fn what_a_start_left_out_is_not_missing(bench: &mut Bench) {
    let gap = Gap { first: 0, last: 19, cause: GapCause::SkippedAtStart };
    insert_checkpoint(&mut *bench.store, &topic(), 1, &Checkpoint::default(), Some(gap)).unwrap();
    bench.run("UPDATE kafka_gaps SET noticed_at = '2020-01-01T00:00:00.000000Z'");
    bench.store(&payloads([21, 22, 25]));
    let mut later = updated("gw", 3);
    later.id.epoch = Epoch(7);
    // An agent that was not heard of before has not begun before either.
    bench.store_events(&[later, updated("newcomer", 4)]);
    for (which, at) in
        [("agent = 'gw'", "2020-01-05"), ("first_seq = 3", "2020-01-06"), ("agent = 'newcomer'", "2020-03-01")]
    {
        bench.run(&format!("UPDATE agent_sequences SET first_stored_at = '{at}T00:00:00.000000Z' WHERE {which}"));
    }
    assert_eq!(
        bench.ask("SELECT agent, epoch, first_seq, last_seq, cause FROM missing_events"),
        "gw,0000000000000007,1,2,undeclared gw,0000000000005f0c,23,24,undeclared newcomer,0000000000005f0c,1,3,undeclared"
    );
}

/// An agent that has lost its journal comes back in the same batch as the breach that it left open.
fn a_breach_left_open_by_a_former_epoch_is_unknown_at_once(bench: &mut Bench) {
    let raised = event("gw", 1, Body::BreachRaised(breach("b", 3)));
    let mut anew = event("gw", 1, started());
    anew.id.epoch = Epoch(7);
    anew.stamp.observed_at += TimeDelta::seconds(60);
    bench.store_events(&[raised, anew]);
    assert_eq!(bench.ask("SELECT breach_id, state FROM breaches"), "b,unknown");
    assert_eq!(bench.ask("SELECT count(*) FROM open_breaches"), "0");
    // A message of the former epoch that comes late, as from `dead-letters retry`, opens nothing.
    bench.store_events(&[event("gw", 2, Body::BreachUpdated(breach("b", 4)))]);
    assert_eq!(bench.ask("SELECT duration_ms, state FROM breaches"), "4000,unknown");
    // The other way round it is open: the epoch was there before the breach.
    let mut before = event("other", 1, started());
    before.id.epoch = Epoch(7);
    before.stamp.observed_at -= TimeDelta::seconds(60);
    bench.store_events(&[before, event("other", 1, Body::BreachRaised(breach("c", 3)))]);
    assert_eq!(bench.ask("SELECT breach_id FROM open_breaches"), "c");
}

/// The sum of received and sent has limits, too.
fn a_breach_of_both_directions_is_a_row(bench: &mut Bench) {
    let both = Breach { direction: Direction::Total, ..breach("b", 3) };
    let applied = bench.store_events(&[event("gw", 1, Body::BreachRaised(both))]);
    assert_eq!((applied.inserted, applied.rejected.len()), (1, 0), "{applied:?}");
    assert_eq!(bench.ask("SELECT direction FROM breaches"), "total");
    assert_eq!(bench.ask("SELECT direction, breaches FROM totals"), "total,1");
}

/// Retention deletes a breach before the totals that it is in; Kafka may bring it again.
fn a_breach_that_retention_deleted_is_not_counted_again(bench: &mut Bench) {
    let old = |seq| {
        let mut event = updated("gw", seq);
        event.stamp.observed_at -= TimeDelta::days(60);
        if let Body::BreachUpdated(breach) = &mut event.body {
            breach.raised_at -= TimeDelta::days(60);
        }
        event
    };
    bench.store_events(&[old(1), old(2)]);
    bench.age("events", "seq < 3");
    bench.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(bench.ask("SELECT count(*) FROM breach_state"), "0");
    let totals = bench.ask("SELECT breaches, excess_bytes FROM totals");
    assert_eq!(bench.store_events(&[old(1), old(2)]).inserted, 2);
    assert_eq!(bench.ask("SELECT breaches, excess_bytes FROM totals"), totals);
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
    let new = Checkpoint { next_offset: 50, ..old.clone() };
    bench.store.replace_checkpoint(&topic(), 0, &old, &new, Some(expired(3, 49))).unwrap();
    assert_eq!(bench.ask("SELECT first_offset, last_offset FROM kafka_gaps"), "3,49");
    let fault = other.replace_checkpoint(&topic(), 0, &old, &new, Some(expired(3, 60))).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)));
    assert_eq!(insert_checkpoint(&mut *other, &topic(), 0, &Checkpoint::default(), None).unwrap(), new);
    assert_eq!(bench.ask("SELECT first_offset, last_offset FROM kafka_gaps"), "3,49");
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
    assert_eq!(bench.ask("SELECT first_seq, last_seq, reason, detail FROM losses"), "7,8,rejected,MessageSizeTooLarge");
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
            "SELECT breach_id, CAST(lasted * 1000 AS integer) FROM breaches WHERE cleared_at = last_observed_at"
        }
        Look::Postgres(_) => {
            "SELECT breach_id, (extract(epoch FROM lasted) * 1000)::bigint FROM breaches WHERE cleared_at = last_observed_at"
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
    assert_eq!((applied.inserted, applied.rejected.len()), (1, 20), "{:?}", applied.rejected);
    for (refused, name) in
        applied.rejected.iter().zip(["observed_at", "started_at", "raised_at", "ended_at"].iter().cycle())
    {
        assert!(refused.error.contains(name), "{refused:?}");
    }
}

fn a_breach_goes_with_the_last_word_on_it(bench: &mut Bench) {
    let at = |seq, day: i64, name: &str| {
        let time = noon() + TimeDelta::days(day);
        let mut breach = breach(name, seq);
        breach.raised_at = time;
        let mut event = event("gw", seq, Body::BreachUpdated(breach));
        event.stamp.observed_at = time;
        event
    };
    bench.store_events(&[at(1, -60, "old"), at(2, -60, "long"), at(3, -20, "kept"), at(4, 0, "long")]);
    bench.age("events", "seq < 3");
    bench.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(bench.ask("SELECT seq FROM events"), "3 4");
    assert_eq!(bench.ask("SELECT breach_id FROM breach_state ORDER BY 1"), "kept long");
}

fn retention_drops_what_is_old_in_both_times(bench: &mut Bench) {
    let at = |seq, day: i64| {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    bench.store_events(&[at(1, -60), at(2, -25), at(3, 0)]);
    bench.store(&[b"garbage".to_vec()]);
    // Observed long ago, but just stored: they stay.
    assert_eq!(bench.retire(10, Utc::now()), Maintained::default());
    bench.age("events", "seq = 1");
    let maintained = bench.retire(10, Utc::now() + TimeDelta::days(2));
    match &bench.look {
        Look::Sqlite(_) => assert_eq!(maintained.deleted["events"], 1),
        Look::Postgres(_) => assert_eq!(maintained.dropped, ["events_20260901"]),
    }
    assert_eq!((maintained.deleted["dead_letters"], maintained.unfinished), (1, None));
    // Its bytes are gone; that it was there goes with the events.
    assert_eq!(bench.ask("SELECT count(*), count(payload), drop_reason FROM dead_letters GROUP BY 3"), "1,0,retention");
    bench.run("UPDATE dead_letters SET stored_at = '2020-01-01T00:00:00.000000Z'");
    bench.retain(10, 10_000, Utc::now() + TimeDelta::days(2));
    assert_eq!(bench.ask("SELECT count(*) FROM dead_letters"), "1", "they may be kept longer than events");
    bench.retire(10, Utc::now() + TimeDelta::days(2));
    assert_eq!(bench.ask("SELECT count(*) FROM dead_letters"), "0");
    assert_eq!(bench.ask("SELECT seq FROM events"), "2 3");
    // What a start left out explains what is missing for as long as the topic is read; other gaps do not.
    for (partition, cause) in [(8, "skipped_at_start"), (9, "expired")] {
        bench.run(&format!(
            "INSERT INTO kafka_gaps (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset, last_offset, cause,
                                     noticed_at)
             VALUES ('', 't', {partition}, 0, 0, 1, '{cause}', '2020-01-01T00:00:00.000000Z')"
        ));
    }
    bench.retire(10, Utc::now() + TimeDelta::days(2));
    assert_eq!(bench.ask("SELECT cause FROM kafka_gaps"), "skipped_at_start");
    // What retention dropped is no gap, and may come again.
    assert_eq!(bench.ask("SELECT first_seq, last_seq FROM agent_sequences"), "1,3");
    assert_eq!(bench.store_events(&[at(1, -60)]).inserted, 1);
}

/// A gateway without a clock reports 1970, or the year 2170.
fn times_without_a_clock_are_thinned(bench: &mut Bench) {
    let at = |seq, text: &str| {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = text.parse().unwrap();
        event
    };
    bench.store_events(&[at(1, "1970-01-01T00:00:07Z"), at(2, "1970-01-01T00:00:07Z"), at(3, "2170-01-01T00:00:00Z")]);
    bench.age("events", "seq <> 2");
    let maintained = bench.retire(400, Utc::now());
    assert_eq!(maintained.deleted.values().sum::<u64>(), 2, "{maintained:?}");
    assert_eq!(bench.ask("SELECT seq FROM events"), "2");
}

/// Each step is done in pieces, and asks for time before every one.
fn retention_without_time_changes_nothing(bench: &mut Bench) {
    bench.store(&[b"garbage".to_vec(), wire::to_json(&updated("gw", 5)), wire::to_json(&updated("gw", 9))]);
    bench.age("dead_letters", "true");
    bench.run("UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'");
    let left =
        "SELECT (SELECT count(payload) FROM dead_letters), (SELECT count(*) FROM agent_sequences WHERE first_seq > 1)";
    let maintained = bench.retain_within(Duration::ZERO, 400, 1, Utc::now());
    assert_eq!(maintained, Maintained { unfinished: Some("its time was up".into()), ..Maintained::default() });
    assert_eq!(bench.ask(left), "1,2");
    assert_eq!(bench.retain(4_000, 1, Utc::now()).deleted, BTreeMap::from([("dead_letters", 1)]));
    assert_eq!(bench.ask(left), "0,2");
    assert_eq!(bench.retain(400, 400, Utc::now()).unfinished, None);
    assert_eq!(bench.ask("SELECT count(*), min(first_seq), max(last_seq) FROM agent_sequences"), "1,1,9");
}

/// Declarations, gaps, and the series of agents with a newer epoch do not grow for ever.
fn old_gaps_are_closed_and_old_series_go(bench: &mut Bench) {
    let of = |epoch, seq| {
        let mut event = updated("gw", seq);
        event.id.epoch = Epoch(epoch);
        event
    };
    bench.store_events(&[of(1, 5), of(2, 3), of(2, 9), of(2, 12)]);
    // Several gaps in a row, and numbers that came with two times.
    let moved = |seq| {
        let mut event = of(3, seq);
        event.stamp.observed_at += TimeDelta::seconds(1);
        event
    };
    bench.store_events(&[1, 2, 5, 6, 9, 12, 13].map(|seq| of(3, seq)));
    bench.store_events(&[2, 12].map(moved));
    let mut declared = event("gw", 13, loss(4, 8));
    declared.id.epoch = Epoch(2);
    bench.store_events(&[declared]);
    bench.run(
        "UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'
         WHERE first_seq < 12 OR epoch = '0000000000000003'",
    );
    bench.run("UPDATE agent_sequences SET last_stored_at = '2020-01-01T00:00:00.000000Z' WHERE first_seq = 5");
    bench.run("UPDATE losses SET stored_at = '2020-01-01T00:00:00.000000Z'");
    bench.retire(400, Utc::now());
    assert_eq!(
        bench.ask("SELECT epoch, first_seq, last_seq, identity_conflicts FROM agent_sequences"),
        "0000000000000002,1,9,0 0000000000000002,12,13,0 0000000000000003,1,13,2"
    );
    assert_eq!(bench.ask("SELECT count(*) FROM losses WHERE first_seq = 4"), "0");
}

/// An old range of a series that still grows stays, and so does one whose losses are remembered: the rest would be a gap.
fn a_series_goes_whole_and_not_before_what_is_declared_of_it(bench: &mut Bench) {
    let of = |epoch, seq, body| {
        let mut event = event("gw", seq, body);
        event.id.epoch = Epoch(epoch);
        event
    };
    bench.store_events(&[of(1, 1, started()), of(1, 5, started()), of(2, 9, started()), of(3, 1, started())]);
    let mut declared = of(3, 2, loss(1, 8));
    let Body::Loss(lost) = &mut declared.body else { unreachable!() };
    lost.epoch = Epoch(2);
    bench.store_events(&[declared]);
    // Of the first series only the end is young; of the second the declaration.
    bench.run(
        "UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z', last_stored_at = '2020-01-01T00:00:00.000000Z'
         WHERE epoch <> '0000000000000003' AND first_seq <> 5",
    );
    bench.retire(400, Utc::now());
    let series = "SELECT epoch, first_seq, last_seq FROM agent_sequences WHERE epoch <> '0000000000000003'";
    let both = "0000000000000001,1,1 0000000000000001,5,5 0000000000000002,1,9";
    assert_eq!(bench.ask(series), both);
    bench.run("UPDATE losses SET stored_at = '2020-01-01T00:00:00.000000Z'");
    bench.retire(400, Utc::now());
    assert_eq!(bench.ask(series), "0000000000000001,1,1 0000000000000001,5,5");
}

/// An agent that is gone has no newer series: its last one is remembered as long as any row or total of it may be.
fn what_an_agent_leaves_behind_goes_with_its_rows_and_totals(bench: &mut Bench) {
    let at = |mut event: Event, day: i64| {
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    let begun = |agent: &str, day| at(event(agent, 1, started()), day);
    // One of a clock that is wrong: its breach stays open.
    let ahead = at(event("ahead", 1, Body::BreachRaised(breach("b", 1))), 100 * 366);
    let sampled = at(sample("sampled", 1), 0);
    bench.store_events(&[begun("gone", -60), at(sample("gone", 1), -60), begun("kept", 0), sampled, ahead]);
    bench.age("events", "agent IN ('gone', 'ahead')");
    bench.age("samples", "agent = 'gone'");
    let last_stored =
        |time: &str| format!("UPDATE agent_sequences SET first_stored_at = '{time}', last_stored_at = '{time}'");
    let agents = "SELECT DISTINCT agent FROM agent_sequences";
    bench.run(&last_stored("2025-10-01T00:00:00.000000Z"));
    bench.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(bench.ask("SELECT agent FROM events"), "kept");
    assert_eq!(bench.ask(agents), "ahead gone kept sampled", "totals may be younger");
    bench.run(&last_stored("2020-01-01T00:00:00.000000Z"));
    bench.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(bench.ask(agents), "ahead kept sampled");
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
    // A dead letter among them holds nothing up.
    let mut bad = sample("gw", 6);
    bad.body = Body::Sample(Sample { interface: "eth\0".into(), ..Sample::default() });
    let applied = bench.store_events(&[bad.clone(), sample("gw", 7), updated("gw", 7), started_again()]);
    assert_eq!((applied.inserted, applied.rejected.len()), (2, 1));
    let alone = bench.store_events(&[bad]);
    assert_eq!((alone.inserted, alone.rejected.len()), (0, 1), "the database is well, and the row is not");
}

fn started_again() -> Event {
    event("gw", 9, started())
}

fn one_sample_with_two_times_is_two_rows_and_counted_once(bench: &mut Bench) {
    bench.store_events(&[sample("gw", 1), sample("gw", 2)]);
    let mut twin = sample("gw", 2);
    twin.stamp.observed_at += TimeDelta::days(1);
    let applied = bench.store_events(&[twin.clone(), sample("gw", 3), updated("gw", 1)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (3, 1));
    assert!(applied.identity_conflicts[0].starts_with("gw ffffffffffffa0f3-2"), "{:?}", applied.identity_conflicts);
    assert_eq!(bench.store_events(&[twin]).identity_conflicts.len(), 0);
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq) FROM samples"), "4,3");
}

/// Samples have an epoch of their own: their gaps are reported, and none of the events.
fn samples_that_never_came_are_gaps_and_events_none(bench: &mut Bench) {
    bench.store_events(&[updated("gw", 1), sample("gw", 1), sample("gw", 2), updated("gw", 2), sample("gw", 5)]);
    bench.run("UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'");
    assert_eq!(bench.ask("SELECT epoch, first_seq, last_seq FROM sequence_gaps"), "ffffffffffffa0f3,3,4");
    bench.store_events(&[sample("gw", 3), sample("gw", 4)]);
    assert_eq!(bench.ask("SELECT count(*) FROM sequence_gaps"), "0");
}

fn samples_go_with_retention_as_events_do(bench: &mut Bench) {
    let at = |seq, day: i64| {
        let mut event = sample("gw", seq);
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    let mut event = event("gw", 1, started());
    event.stamp.observed_at = noon() - TimeDelta::days(60);
    bench.store_events(&[at(1, -30), at(2, -20), at(3, 0), event]);
    bench.age("samples", "seq = 1");
    let maintained = bench.retire(10, noon() + TimeDelta::days(5));
    match &bench.look {
        Look::Sqlite(_) => assert_eq!(maintained.deleted["samples"], 1),
        Look::Postgres(_) => assert_eq!(maintained.dropped, ["samples_20261019"]),
    }
    assert_eq!(bench.ask("SELECT seq FROM samples"), "2 3");
    // It may come again, and its week is made again.
    assert_eq!(bench.store_events(&[at(1, -30)]).inserted, 1);
}

const TOTALS: &str =
    "SELECT agent, interface, direction, limit_name, CAST(day AS text), breaches, excess_bytes FROM totals";

fn total_key(agent: &str) -> TotalKey {
    let (agent, interface, limit_name) = (agent.to_owned(), "eth0".to_owned(), "wan-down".to_owned());
    TotalKey { agent, interface, direction: "rx", limit_name }
}

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
    assert_eq!(applied.grown, BTreeMap::from([(total_key("gw"), 907)]));
    let applied = bench.store_events(&[first[1].clone(), excess("gw", 5, "a", 1_000), excess("other", 1, "a", 1)]);
    assert_eq!(applied.grown[&total_key("gw")], 100);
    bench.store_events(&[elsewhere(6, "eth1", 0), elsewhere(7, "eth0", 1)]);
    bench.store_events(&[event("gw", 8, started())]);
    let all = "gw,eth0,rx,wan-down,2026-11-20,2,1007 gw,eth0,rx,wan-down,2026-11-21,1,875 gw,eth1,rx,wan-down,2026-11-20,1,750 \
               other,eth0,rx,wan-down,2026-11-20,1,1";
    assert_eq!(bench.ask(TOTALS), all);
    assert_eq!(bench.store_events(&first).grown, BTreeMap::new());
    bench.store_events(&[excess("gw", 9, "a", 1_001)]);
    assert_eq!(bench.ask("SELECT excess_bytes FROM totals WHERE breaches = 2"), "1008");
}

/// No traffic is that large; but a sum that overflows must not hold up the others.
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

/// Events of a breach in any order and any batches give the same state.
fn breaches_merge_in_any_order(bench: &mut Bench, name: &str, order: &[usize], cuts: &[usize]) {
    let events: Vec<Event> = (0..8_u64)
        .map(|index| {
            let breach = breach(name, index + 1);
            let body = match index {
                0 => Body::BreachRaised(breach),
                7 => Body::BreachCleared(breach),
                _ => Body::BreachUpdated(breach),
            };
            event(name, index + 1, body)
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

/// Any order, copies, any batches: the same sums, and the reported increases make up the same.
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

/// Rows that PostgreSQL is known to refuse.
#[test]
fn rows_that_postgres_refuses_are_dead_letters_and_their_neighbours_are_rows() {
    let Some(postgres) =
        Postgres::or_skip("consumer_store::rows_that_postgres_refuses_are_dead_letters_and_their_neighbours_are_rows")
    else {
        return;
    };
    let mut bench = Bench::postgres(&postgres);
    // Too long for an index, and not to be compressed.
    let long: String = (0..20_000).map(|_| fastrand::alphanumeric()).collect();
    let odd = |seq| wire::to_json(&event("gw", seq, Body::BreachUpdated(breach(&long, seq))));
    let mut all = payloads(1..=50);
    all.insert(10, odd(101));
    all.insert(30, odd(102));
    all.push(odd(103));
    let applied = bench.store(&all);
    assert_eq!((applied.inserted, applied.rejected.len()), (50, 3), "{applied:?}");
    assert!(applied.rejected[0].error.contains("breach_id"), "{applied:?}");
    // Alone, and all of a batch.
    assert_eq!(bench.store(&[odd(104)]).rejected.len(), 1);
    assert_eq!(bench.store(&[odd(105), odd(106), odd(107)]).rejected.len(), 3);
    assert_eq!(bench.ask("SELECT count(*) FROM dead_letters"), "7");
    assert_eq!(bench.ask("SELECT first_seq, last_seq FROM agent_sequences"), "1,50");
    assert_eq!(bench.place().next_offset, 57);
}

/// Without ranges, the primary key alone shows what is stored.
#[test]
fn the_key_decides_where_the_ranges_are_lost() {
    let Some(postgres) = Postgres::or_skip("consumer_store::the_key_decides_where_the_ranges_are_lost") else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store(&payloads(1..=20));
    bench.run("DELETE FROM agent_sequences");
    let applied = bench.store(&payloads(11..=30));
    assert_eq!((applied.inserted, applied.rejected.len()), (10, 0), "{applied:?}");
    assert_eq!(bench.ask("SELECT count(*), count(DISTINCT seq) FROM events"), "30,30");
    // One event twice in one batch.
    let applied = bench.store(&payloads([31, 32, 31, 33]));
    assert_eq!((applied.inserted, applied.rejected.len(), applied.identity_conflicts.len()), (3, 0, 0), "{applied:?}");
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

/// Events of more days than partitions are made for.
#[test]
fn a_bad_clock_makes_few_partitions_and_loses_nothing() {
    let test = "consumer_store::a_bad_clock_makes_few_partitions_and_loses_nothing";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut bench = Bench::postgres(&postgres);
    let payloads: Vec<Vec<u8>> = (1..=2_000)
        .map(|seq: u64| {
            let mut event = event("gw", seq, started());
            event.stamp.observed_at = noon() + TimeDelta::days(100 + seq as i64);
            wire::to_json(&event)
        })
        .collect();
    let mut rest = payloads.as_slice();
    let mut rejected = Vec::new();
    while !rest.is_empty() {
        let mut batch = Batch::new(&topic());
        let from = bench.next;
        while !batch.is_full() && !rest.is_empty() {
            batch.push(0, Record::new(bench.next, Some(7), None, Some(&rest[0])), || (0, from));
            (bench.next, rest) = (bench.next + 1, &rest[1..]);
        }
        rejected.extend(bench.store.apply(&batch, Utc::now()).unwrap().rejected);
    }
    assert!(rejected[0].error.contains("clock of gw"), "{:?}", rejected[0]);
    assert_eq!(bench.ask("SELECT count(*) FROM partition_notes WHERE outside"), "12");
    assert_eq!(bench.ask("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters)"), "2000");
    // Those within reach of the existing partitions are rows, and the others become rows later.
    let stored: usize = bench.ask("SELECT count(*) FROM events").parse().unwrap();
    assert!((300..400).contains(&stored), "{stored}");
    bench.run("UPDATE partition_notes SET made_at = now() - interval '2 hours'");
    let record = Record::new(1_900, Some(7), None, Some(&payloads[1_900]));
    let retried = RetriedRecord { partition: 0, generation: 0, record };
    let summary = bench.store.retry(&topic(), &[retried], Utc::now()).unwrap();
    assert_eq!((summary.outcomes, summary.inserted), (vec![RetryOutcome::Stored], 1));
}

/// Five years of samples are no wrong clock.
#[test]
fn a_long_series_of_samples_is_stored_whole() {
    let Some(postgres) = Postgres::or_skip("consumer_store::a_long_series_of_samples_is_stored_whole") else { return };
    let mut bench = Bench::postgres(&postgres);
    let series: Vec<Event> = (1..=1_800)
        .map(|seq: u64| {
            let mut event = sample("gw", seq);
            event.stamp.observed_at = noon() - TimeDelta::days(seq as i64);
            event
        })
        .collect();
    for part in series.chunks(60) {
        assert_eq!(bench.store_events(part).rejected, []);
    }
    assert_eq!(bench.ask("SELECT count(*) FROM samples"), "1800");
}

#[test]
fn a_day_that_vanished_is_made_again() {
    let Some(postgres) = Postgres::or_skip("consumer_store::a_day_that_vanished_is_made_again") else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store(&payloads(1..=3));
    bench.run("DROP TABLE events_20261101");
    assert_eq!(bench.store(&payloads(4..=5)).inserted, 2);
    // Detached by an operator who keeps it.
    bench.run("ALTER TABLE events DETACH PARTITION events_20261101");
    assert_eq!(bench.store(&payloads(6..=7)).inserted, 2);
    assert_eq!(bench.ask("SELECT seq FROM events"), "6 7");
    assert_eq!(bench.ask("SELECT seq FROM events_20261101"), "4 5", "what somebody keeps is left alone");
}

#[test]
fn several_at_once_make_the_schema_once() {
    let Some(postgres) = Postgres::or_skip("consumer_store::several_at_once_make_the_schema_once") else { return };
    let database = postgres.database("race");
    std::thread::scope(|scope| {
        for partition in 0..8 {
            let url = &database.url;
            scope.spawn(move || {
                let mut store = StoreUrl::parse(url, None, None).unwrap().open(&options("racer"));
                insert_checkpoint(&mut *store, &topic(), partition, &Checkpoint::default(), None).unwrap();
                let mut batch = Batch::new(&topic());
                let payload = wire::to_json(&updated(&format!("gw-{partition}"), 1));
                batch.push(partition, Record::new(0, None, None, Some(&payload)), || (0, 0));
                assert_eq!(store.apply(&batch, Utc::now()).unwrap().inserted, 1);
            });
        }
    });
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(8)");
    assert_eq!(database.ask("SELECT version FROM highwater_migrations"), "(1)");
}

/// Agents whose events come by two partitions, to two consumers, and some of them by both: each reads and writes ranges of the
/// other.
#[test]
fn two_consumers_of_the_same_agents_lose_and_double_nothing() {
    let test = "consumer_store::two_consumers_of_the_same_agents_lose_and_double_nothing";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut bench = Bench::postgres(&postgres);
    let (rounds, agents) = (60_u64, 4_u64);
    insert_checkpoint(&mut *bench.store, &topic(), 1, &Checkpoint::default(), None).unwrap();
    let (ended, mut aged) = (AtomicU64::new(0), 0);
    let Look::Postgres(database) = &bench.look else { unreachable!() };
    std::thread::scope(|scope| {
        for partition in 0..2_u64 {
            let mut store = bench.another();
            let ended = &ended;
            scope.spawn(move || {
                for round in 0..rounds {
                    // Of each three numbers one by each partition, and one by both.
                    let seqs = [round * 3 + 1 + partition, round * 3 + 3];
                    let told = seqs.into_iter().flat_map(|seq| (0..agents).map(move |agent| (agent, seq)));
                    let mut batch = Batch::new(&topic());
                    let from = (round * agents * 2) as i64;
                    for (offset, (agent, seq)) in (from..).zip(told) {
                        let payload = wire::to_json(&updated(&format!("gw-{agent}"), seq));
                        batch.push(partition as i32, Record::new(offset, None, None, Some(&payload)), || (0, from));
                    }
                    // It may lose to the other one more often than it tries; then the consumer, too, comes again.
                    while store.apply(&batch, Utc::now()).is_err() {}
                }
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Maintenance closes gaps of the same series meanwhile, as if they were old.
        while ended.load(Ordering::Relaxed) < 2 {
            // Of a deadlock with a consumer this may be the victim; then the ranges are made old in the next round.
            let old = "UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'";
            aged += u64::from(database.client().batch_execute(old).is_ok());
            bench.retire(400, Utc::now());
        }
    });
    assert!(aged > 0);
    let (last, all) = (rounds * 3, rounds * 3 * agents);
    assert_eq!(bench.ask("SELECT count(*) FROM events"), all.to_string());
    assert_eq!(bench.ask("SELECT sum(next_offset) FROM kafka_offsets"), (rounds * agents * 4).to_string());
    assert_eq!(
        bench.ask("SELECT DISTINCT seq, counted_bytes FROM breach_state"),
        format!("{last},{}", breach("b1", last).excess_bytes)
    );
    assert_eq!(
        bench.ask("SELECT DISTINCT breaches, excess_bytes FROM totals"),
        format!("1,{}", breach("b1", last).excess_bytes)
    );
    assert_eq!(
        bench.ask("SELECT sum(last_seq - first_seq + 1), sum(identity_conflicts) FROM agent_sequences"),
        format!("{all},0")
    );
    assert_eq!(bench.ask("SELECT count(*) FROM missing_events"), "0");
}

/// A row that is written again while retention waits for it is as young as it is then.
#[test]
fn what_is_renewed_while_it_expires_stays() {
    let Some(postgres) = Postgres::or_skip("consumer_store::what_is_renewed_while_it_expires_stays") else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store(&[b"garbage".to_vec(), b"more".to_vec()]);
    let Look::Postgres(database) = &bench.look else { unreachable!() };
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE '%/maintenance' AND wait_event_type = 'Lock'";
    let mut looking = database.client();
    // It does not wait for long: under load, another round finds what it waits for.
    loop {
        bench.age("dead_letters", "true");
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
            let maintained = bench.retire(400, Utc::now());
            is_done.store(true, Ordering::Relaxed);
            maintained
        });
        if maintained.unfinished.is_none() {
            break;
        }
    }
    assert_eq!(bench.ask("SELECT kafka_offset, length(payload) FROM dead_letters"), "0,7");
}

/// Of a large table, only the index is read to see that an agent has no row left.
#[test]
fn what_an_agent_leaves_behind_is_looked_up_by_its_key() {
    let test = "consumer_store::what_an_agent_leaves_behind_is_looked_up_by_its_key";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store_events(&[sample("gw", 1)]);
    bench.run(
        "INSERT INTO samples SELECT (jsonb_populate_record(s, jsonb_build_object('seq', n))).*
                         FROM samples s, generate_series(2, 50000) AS n",
    );
    bench.run(
        "INSERT INTO agent_sequences
               SELECT (jsonb_populate_record(s, jsonb_build_object('agent', 'gone-' || n,
                           'first_stored_at', '2010-01-01', 'last_stored_at', '2010-01-01'))).*
               FROM agent_sequences s, generate_series(1, 500) AS n",
    );
    bench.run("ANALYZE");
    let Look::Postgres(database) = &bench.look else { unreachable!() };
    let read = || -> i64 {
        let sql =
            "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'samples%'";
        database.client().query_one(sql, &[]).unwrap().get(0)
    };
    let before = read();
    bench.retire(400, Utc::now());
    database.until("SELECT count(*) FROM agent_sequences", "(1)");
    assert_eq!(read() - before, 0);
}

/// A consumer that was stopped in the middle of its transaction holds the row; the partition's new owner takes it.
#[test]
fn a_held_partition_is_freed_by_its_owner() {
    let Some(postgres) = Postgres::or_skip("consumer_store::a_held_partition_is_freed_by_its_owner") else { return };
    let mut bench = Bench::postgres(&postgres);
    bench.store(&payloads(1..=3));
    let Look::Postgres(database) = &bench.look else { unreachable!() };
    let mut holder = database.client();
    holder.batch_execute("BEGIN; SELECT next_offset FROM kafka_offsets FOR UPDATE").unwrap();
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
    let fault =
        |url: &str| StoreUrl::parse(url, None, None).unwrap().open(&options("t")).checkpoints(&topic()).unwrap_err();
    let missing = fault(&format!("{}_not", database.url));
    assert!(matches!(&missing, StoreError::Misconfigured(text) if text.contains("does not exist")), "{missing:?}");
    let (before, after) = database.url.split_once('@').unwrap();
    let wrong = fault(&format!("{before}x@{after}"));
    assert!(matches!(&wrong, StoreError::Misconfigured(text) if text.contains("password")), "{wrong:?}");
    let away = fault("postgres://u:p@127.0.0.1:1/d");
    assert!(matches!(&away, StoreError::Unavailable(_)), "{away:?}");
}

#[test]
fn checkpoints_are_by_cluster_and_topic() {
    let mut bench = Bench::sqlite();
    let nine = Checkpoint { next_offset: 9, ..Checkpoint::default() };
    let (other_topic, mut other_cluster) = (TopicId { name: "other".into(), ..topic() }, topic());
    other_cluster.cluster = "d".into();
    for other in [other_topic, other_cluster] {
        insert_checkpoint(&mut *bench.store, &other, 3, &nine, None).unwrap();
        assert_eq!(bench.store.checkpoints(&other).unwrap(), BTreeMap::from([(3, nine.clone())]));
    }
    assert_eq!(bench.store.checkpoints(&topic()).unwrap().len(), 1);
}
