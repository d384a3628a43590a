//! Expired partitions are detached beside whatever reads their table, then dropped; a detachment that was interrupted is finished.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ::postgres::Client;
use chrono::{TimeDelta, Utc};
use highwater::consumer::batch::Record;
use highwater::consumer::store::{Applied, Maintained, PartitionWidth, Retention, RetriedRecord, RetryOutcome, Store};
use highwater::message::Event;
use highwater::wire;

use super::maintenance::storing_goes_on;
use super::{options_for, postgres, servers_with_fail_points, store_first};
use crate::support::consumer::Consumer;
use crate::support::events::{event, noon, produce, started, updated, updates};
use crate::support::postgres::{Database, Postgres};
use crate::support::stores::{StoreDatabase, batch_of_events, topic_id};

/// Time of a round that has to wait for another session.
const SHORT: Duration = Duration::from_secs(2);

const LONG: Duration = Duration::from_secs(60);

/// Events of as many days, whose partitions have expired.
struct Expired {
    database: StoreDatabase,
    store: Box<dyn Store + Send>,
    next: i64,
}

impl Expired {
    fn new(postgres: &Postgres, days: u64) -> Self {
        let database = StoreDatabase::postgres(postgres, "expired");
        let mut store = database.url().open(&options_for(PartitionWidth::Day));
        let old: Vec<Event> = (1..=days).map(|seq| days_ago(seq, seq as i64)).collect();
        store_first(&mut *store, &old).unwrap();
        database.run("UPDATE partition_notes SET newest_stored_at = '2020-01-01'");
        Self { database, store, next: old.len() as i64 }
    }

    /// Opens the store anew, as another consumer, which has not noted the partition yet.
    fn reopen(&mut self) {
        self.store = self.database.url().open(&options_for(PartitionWidth::Day));
    }

    fn store(&mut self, events: &[Event]) -> Applied {
        let applied = self.store.apply(&batch_of_events(self.next, events), Utc::now()).unwrap();
        self.next += events.len() as i64;
        applied
    }

    fn retain(&self, budget: Duration) -> Maintained {
        let day = Duration::from_secs(86_400);
        let keep = Retention { events: day, dead_letters: day, totals: day, ..Retention::default() };
        let mut maintenance = self.database.url().maintenance(&options_for(PartitionWidth::Day));
        maintenance.run(&keep, Some(noon() + TimeDelta::days(3)), budget).unwrap()
    }

    fn session(&self) -> Client {
        self.database.server().client()
    }

    fn tables(&self) -> String {
        self.database.ask("SELECT relname FROM pg_class WHERE relname LIKE 'events_2026%' AND relkind = 'r'")
    }
}

fn days_ago(seq: u64, days: i64) -> Event {
    let mut event = event("gw", seq, started());
    event.stamp.observed_at = noon() - TimeDelta::days(days);
    event
}

fn detaches_concurrently(database: &Database) -> bool {
    database.ask("SELECT current_setting('server_version_num')::int >= 140000") == "(t)"
}

/// Each query ends, but at no moment is the table free.
#[test]
fn partitions_are_detached_while_queries_of_their_table_overlap() {
    let test = "detachment::partitions_are_detached_while_queries_of_their_table_overlap";
    let Some(postgres) = postgres(test) else { return };
    let expired = Expired::new(&postgres, 3);
    let server = expired.database.server();
    let begin = || {
        let mut session = server.client();
        session.batch_execute("BEGIN; SELECT count(*) FROM events").unwrap();
        session
    };
    let (done, mut reading) = (AtomicBool::new(false), begin());
    let maintained = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(300));
                let next = begin();
                reading.batch_execute("COMMIT").unwrap();
                reading = next;
            }
        });
        let maintained = expired.retain(LONG);
        done.store(true, Ordering::Relaxed);
        maintained
    });
    reading.batch_execute("COMMIT").unwrap();
    let (dropped, is_finished) = (maintained.dropped.len(), maintained.unfinished.is_none());
    // PostgreSQL 13 has to lock the whole table.
    let expected = if detaches_concurrently(server) { (3, true) } else { (0, false) };
    assert_eq!((dropped, is_finished), expected, "{maintained:?}");
    assert_eq!(expired.retain(LONG).unfinished, None);
    assert_eq!(expired.tables(), "");
}

/// pg_dump locks all tables, for longer than a round waits.
#[test]
fn a_detachment_that_a_lock_ended_is_finished_later() {
    let Some(postgres) = postgres("detachment::a_detachment_that_a_lock_ended_is_finished_later") else { return };
    let mut expired = Expired::new(&postgres, 30);
    let mut dump = expired.session();
    dump.batch_execute("BEGIN; LOCK TABLE events IN ACCESS SHARE MODE").unwrap();
    let maintained = expired.retain(SHORT);
    assert_eq!((maintained.dropped.len(), maintained.unfinished.is_some()), (0, true), "{maintained:?}");
    assert_eq!(expired.store(&updates(31..=40)).inserted, 10);
    // At once: what reads a partition that is being detached may do so for hours.
    let maintained = expired.retain(LONG);
    assert_eq!((maintained.dropped.len(), maintained.unfinished.is_some()), (0, true), "{maintained:?}");
    dump.batch_execute("ROLLBACK").unwrap();
    let maintained = expired.retain(LONG);
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (30, None));
    assert_eq!(expired.database.ask("SELECT count(*) FROM events"), "10");
}

/// PostgreSQL finds no partition for it, and accepts none of the same days.
#[test]
fn an_event_for_a_partition_that_is_being_detached_is_stored_later() {
    let test = "detachment::an_event_for_a_partition_that_is_being_detached_is_stored_later";
    let Some(postgres) = postgres(test) else { return };
    let mut expired = Expired::new(&postgres, 1);
    let mut reader = expired.session();
    reader.batch_execute("BEGIN; SELECT count(*) FROM events").unwrap();
    assert!(expired.retain(SHORT).unfinished.is_some());
    let late = days_ago(2, 1);
    let applied = expired.store(&[late.clone(), updated("gw", 3)]);
    if !detaches_concurrently(expired.database.server()) {
        return assert_eq!(applied.inserted, 2, "PostgreSQL 13 detaches at once, or not at all");
    }
    let error = &applied.rejected[0].error;
    assert_eq!((applied.inserted, applied.rejected.len()), (1, 1), "{applied:?}");
    assert!(error.contains("has expired, and is being detached") && error.contains("dead-letters retry"), "{error}");
    // The topic was recreated: another event has the same partition and offset.
    expired.database.run(
        "INSERT INTO dead_letters (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset, error)
         SELECT kafka_cluster, kafka_topic, kafka_partition, 1, kafka_offset, error FROM dead_letters",
    );
    let retry = |store: &mut dyn Store| {
        let retried = [late.clone(), updated("gw", 4)].into_iter().zip(0..).map(|(event, generation)| {
            let record = Record::new(1, Some(7), None, Some(&wire::to_json(&event)));
            RetriedRecord { partition: 0, generation, record }
        });
        store.retry(&topic_id("events"), &retried.collect::<Vec<_>>(), Utc::now()).unwrap().outcomes
    };
    assert!(matches!(retry(&mut *expired.store)[..], [RetryOutcome::Stays(_), RetryOutcome::Stored]));
    reader.batch_execute("COMMIT").unwrap();
    let maintained = expired.retain(LONG);
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (1, None));
    assert_eq!(retry(&mut *expired.store), [RetryOutcome::Stored, RetryOutcome::Gone]);
    assert_eq!(expired.database.ask("SELECT seq FROM events"), "2 3 4");
}

/// A consumer was killed after each step of it.
#[test]
fn a_detachment_goes_on_from_where_a_consumer_was_killed() {
    let test = "detachment::a_detachment_goes_on_from_where_a_consumer_was_killed";
    let Some(postgres) = postgres(test) else { return };
    let expired = Expired::new(&postgres, 3);
    let tables = expired.tables();
    let days: Vec<&str> = tables.split(' ').collect();
    let mark = |day| format!("UPDATE partition_notes SET detaching_since = now() WHERE partition = '{day}'");
    for (steps, day) in days.iter().enumerate() {
        expired.database.run(&mark(day));
        if steps >= 1 {
            expired.database.run(&format!("ALTER TABLE events DETACH PARTITION {day}"));
        }
        if steps >= 2 {
            expired.database.run(&format!("DROP TABLE {day}"));
        }
    }
    let maintained = expired.retain(LONG);
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (3, None));
    assert_eq!(
        (expired.tables(), expired.database.ask("SELECT count(*) FROM partition_notes")),
        (String::new(), "0".into())
    );
}

/// The retention was made longer since, or the mark came with the dump of a database.
#[test]
fn a_marked_partition_that_has_not_expired_takes_rows_again() {
    let Some(postgres) = postgres("detachment::a_marked_partition_that_has_not_expired_takes_rows_again") else {
        return;
    };
    let mut expired = Expired::new(&postgres, 1);
    expired.database.run("UPDATE partition_notes SET newest_stored_at = now(), detaching_since = now()");
    expired.reopen();
    assert_eq!(expired.store(&[days_ago(2, 1)]).rejected.len(), 1);
    assert_eq!(expired.retain(LONG), Maintained::default());
    assert_eq!(expired.store(&[days_ago(3, 1)]).inserted, 1);
}

#[test]
fn what_an_operator_detached_is_kept() {
    let Some(postgres) = postgres("detachment::what_an_operator_detached_is_kept") else { return };
    let expired = Expired::new(&postgres, 2);
    let tables = expired.tables();
    let (kept, _) = tables.split_once(' ').unwrap();
    expired.database.run(&format!("ALTER TABLE events DETACH PARTITION {kept}"));
    let maintained = expired.retain(LONG);
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (1, None));
    assert_eq!(expired.tables(), kept);
}

/// While a round waits for a query, or after a detachment of theirs was interrupted: neither is taken for one of ours.
#[test]
fn what_an_operator_detaches_meanwhile_is_kept() {
    let Some(postgres) = postgres("detachment::what_an_operator_detaches_meanwhile_is_kept") else { return };
    let expired = Expired::new(&postgres, 3);
    let server = expired.database.server();
    if !detaches_concurrently(server) {
        return;
    }
    let tables = expired.tables();
    let days: Vec<&str> = tables.split(' ').collect();
    let mut reader = server.client();
    reader.batch_execute("BEGIN; SELECT count(*) FROM events").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            database_has_pending(server);
            reader.batch_execute(&format!("ALTER TABLE events DETACH PARTITION {}; COMMIT", days[2])).unwrap();
        });
        assert_eq!(expired.retain(LONG).unfinished, None);
    });
    assert_eq!(expired.tables(), days[2]);

    let expired = Expired::new(&postgres, 3);
    let (mut reader, mut operator) = (expired.session(), expired.session());
    reader.batch_execute("BEGIN; SELECT count(*) FROM events").unwrap();
    operator.batch_execute("SET lock_timeout = 100").unwrap();
    let detach = format!("ALTER TABLE events DETACH PARTITION {}", days[0]);
    operator.batch_execute(&format!("{detach} CONCURRENTLY")).unwrap_err();
    reader.batch_execute("COMMIT").unwrap();
    let why = expired.retain(LONG).unfinished.unwrap();
    assert!(why.starts_with(&format!("another session detaches {}", days[0])) && why.contains("FINALIZE"), "{why}");
    operator.batch_execute(&format!("{detach} FINALIZE; ALTER TABLE events DETACH PARTITION {}", days[1])).unwrap();
    let maintained = expired.retain(LONG);
    assert_eq!((maintained.dropped, maintained.unfinished), (vec![days[2].to_owned()], None));
    assert_eq!(expired.tables(), format!("{} {}", days[0], days[1]));
}

fn database_has_pending(database: &Database) {
    database
        .until("SELECT count(*) FROM pg_inherits WHERE (to_jsonb(pg_inherits) ->> 'inhdetachpending')::boolean", "(1)");
}

/// Workers of a parallel query lock the partitions, and not their table.
#[test]
fn partitions_are_detached_while_parallel_queries_overlap() {
    let test = "detachment::partitions_are_detached_while_parallel_queries_overlap";
    let Some(postgres) = postgres(test) else { return };
    let expired = Expired::new(&postgres, 2);
    let server = expired.database.server();
    if !detaches_concurrently(server) {
        return;
    }
    let done = AtomicBool::new(false);
    let maintained = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut session = server.client();
                session
                    .batch_execute(
                        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
                    )
                    .unwrap();
                let plan = session.query("EXPLAIN SELECT count(*) FROM events", &[]).unwrap();
                assert!(plan.iter().any(|row| row.get::<_, String>(0).contains("Gather")), "{plan:?}");
                while !done.load(Ordering::Relaxed) {
                    session.batch_execute("SELECT count(*) FROM events").unwrap();
                }
            });
        }
        let maintained = expired.retain(LONG);
        done.store(true, Ordering::Relaxed);
        maintained
    });
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (2, None));
}

/// The end of a detachment waits for a session that locked the partition by its own name, and no partition can be attached.
#[test]
fn an_event_of_a_new_month_is_stored_beside_a_detachment_that_waits() {
    let test = "detachment::an_event_of_a_new_month_is_stored_beside_a_detachment_that_waits";
    let Some(postgres) = postgres(test) else { return };
    let mut expired = Expired::new(&postgres, 1);
    if !detaches_concurrently(expired.database.server()) {
        return;
    }
    let (server, partition) = (expired.database.server(), expired.tables());
    let mut holder = server.client();
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {partition} IN ACCESS SHARE MODE")).unwrap();
    let url = expired.database.url();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            database_has_pending(server);
            let sent = Instant::now();
            let stored =
                url.open(&options_for(PartitionWidth::Day)).apply(&batch_of_events(1, &[days_ago(2, 0)]), Utc::now());
            assert_eq!(stored.unwrap().inserted, 1);
            // A detachment waits for 3 s; the store gives up a lock after 10 s.
            assert!(sent.elapsed() < Duration::from_secs(9), "{:?}", sent.elapsed());
        });
        assert_eq!(expired.retain(LONG).unfinished, Some(format!("{partition} is in use")));
    });
    holder.batch_execute("COMMIT").unwrap();
    expired.next += 1;
    assert_eq!(expired.retain(LONG).dropped, [partition]);
    assert_eq!(expired.store(&[updated("gw", 3)]).inserted, 1);
}

/// The row without partition is not the one that the database rejects.
#[test]
fn a_row_that_is_rejected_beside_one_without_partition_is_found() {
    let test = "detachment::a_row_that_is_rejected_beside_one_without_partition_is_found";
    let Some(postgres) = postgres(test) else { return };
    let mut expired = Expired::new(&postgres, 1);
    expired.database.run(
        "UPDATE partition_notes SET detaching_since = now();
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON breach_state FOR EACH ROW WHEN (NEW.agent = 'bad')
             EXECUTE FUNCTION refuse()",
    );
    expired.reopen();
    let applied = expired.store(&[days_ago(2, 1), updated("bad", 1), updated("gw", 3)]);
    let rejected: Vec<i64> = applied.rejected.iter().map(|letter| letter.offset).collect();
    assert_eq!((applied.inserted, rejected), (1, vec![1, 2]));
}

/// A partition that a session reads is dropped later, and storing goes on beside each attempt.
#[test]
fn storing_goes_on_while_a_session_holds_a_lock_that_retention_needs() {
    let Some((kafka, postgres)) =
        servers_with_fail_points("detachment::storing_goes_on_while_a_session_holds_a_lock_that_retention_needs")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("held", 1), postgres.database("held"));
    let mut old = event("gw", 1, started());
    old.stamp.observed_at = noon() - TimeDelta::days(900);
    produce(&kafka.address, &topic, &[old, updated("gw", 2)]);
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.run_until_end();
    let partition = "SELECT min(tableoid::regclass::text) FROM events WHERE seq = 1";
    let partition = database.ask(partition).trim_matches(['(', ')']).to_owned();
    database.client().batch_execute("UPDATE partition_notes SET newest_stored_at = '2020-01-01'").unwrap();
    let mut holder = database.client();
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {partition} IN ACCESS SHARE MODE")).unwrap();
    let running = consumer.start_at("maintenance-first-s=return(0);maintenance-pause-s=return(0)", &[]);
    running.until(&format!("retention: {partition} is in use; continuing in a minute"));
    storing_goes_on(&kafka, &topic, &database, 3, &running);
    assert!(!running.log().contains("retention: dropped"), "{}", running.log());
    database.until("SELECT xact_rollback > 5 FROM pg_stat_database WHERE datname = current_database()", "(t)");
    holder.batch_execute("ROLLBACK").unwrap();
    running.until(&format!("retention: dropped {partition}"));
}
