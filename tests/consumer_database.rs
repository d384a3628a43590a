//! Databases as operators have them: busy, locked, pooled, shared, with settings and triggers of their own. Storing goes on, or
//! reports what would mend it; nothing is skipped.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use highwater::consumer::batch::{Batch, Gap, GapCause, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{
    Applied, PartitionWidth, Retention, RetriedRecord, RetryOutcome, Store, StoreError, StoreOptions, StoreUrl,
};
use highwater::message::{Body, Event};
use highwater::wire;

use crate::support::consumer::{Consumer, Database, Postgres, insert_checkpoint};
use crate::support::events::{breach, event, loss, noon, produce, sample, started, updated};
use crate::support::netns::skip;
use crate::support::process::{Running, until};
use crate::support::services::Kafka;
use crate::support::{consumer, failpoints, faketime};

fn servers(test: &str) -> Option<(Kafka, Postgres)> {
    let test = format!("consumer_database::{test}");
    failpoints::or_skip(&test)?;
    Some((Kafka::or_skip(&test)?, Postgres::or_skip(&test)?))
}

fn postgres(test: &str) -> Option<Postgres> {
    Postgres::or_skip(&format!("consumer_database::{test}"))
}

fn topic() -> TopicId {
    TopicId { cluster: "c".into(), name: "t".into() }
}

fn options(partition: PartitionWidth) -> StoreOptions {
    StoreOptions { instance: "test".into(), partition, ..StoreOptions::default() }
}

fn open(url: &str, schema: Option<&str>) -> Box<dyn Store + Send> {
    StoreUrl::parse(url, None, schema).unwrap().open(&options(PartitionWidth::Month))
}

fn batch(from: i64, events: &[Event]) -> Batch {
    let mut batch = Batch::new(&topic());
    for (offset, event) in (from..).zip(events) {
        batch.push(0, Record::new(offset, Some(7), Some(b"k"), Some(&wire::to_json(event))), || (0, from));
    }
    batch
}

fn store(store: &mut dyn Store, events: &[Event]) -> Result<Applied, StoreError> {
    insert_checkpoint(&mut *store, &topic(), 0, &Checkpoint::default(), None)?;
    store.apply(&batch(0, events), Utc::now())
}

fn events(seqs: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    seqs.map(|seq| updated("gw", seq)).collect()
}

/// Returns the database's URL for another role.
fn url_of(database: &Database, role: &str) -> String {
    let (_, server) = database.url.split_once('@').unwrap();
    format!("postgres://{role}:secret@{server}")
}

/// How long maintenance takes while storing has to go on; `HIGHWATER_TEST_MAINTENANCE_S=150` is the long run.
fn maintained_for() -> Duration {
    let seconds = std::env::var("HIGHWATER_TEST_MAINTENANCE_S").ok();
    Duration::from_secs(seconds.map_or(10, |seconds| seconds.parse().expect("seconds")))
}

/// Sends updates from `first` on for as long as maintenance takes: each is stored within 5 s.
fn storing_goes_on(kafka: &Kafka, topic: &str, database: &Database, first: u64, running: &Running) {
    let began = Instant::now();
    for seq in first.. {
        let sent = Instant::now();
        produce(&kafka.address, topic, &[updated("gw", seq)]);
        database.until("SELECT max(seq) FROM events", &format!("({seq})"));
        assert!(sent.elapsed() < Duration::from_secs(5), "{:?}: {}", sent.elapsed(), running.log());
        if began.elapsed() > maintained_for() {
            break;
        }
    }
}

#[test]
fn storing_goes_on_while_the_maintenance_runs() {
    let Some((kafka, postgres)) = servers("storing_goes_on_while_the_maintenance_runs") else { return };
    let (topic, database) = (kafka.topic("maintained", 1), postgres.database("maintained"));
    produce(&kafka.address, &topic, &events(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    // Maintenance that comes before the tables does nothing.
    consumer.until_end();
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
    let Some(postgres) = postgres("the_note_of_a_partition_is_renewed_before_a_row_is_added") else { return };
    let database = postgres.database("noted");
    store(&mut *open(&database.url, None), &events(1..=1)).unwrap();
    database.client().batch_execute("UPDATE partition_notes SET newest_stored_at = '2020-01-01'").unwrap();
    let mut next = open(&database.url, None);
    assert_eq!(next.apply(&batch(1, &events(2..=2)), Utc::now()).unwrap().inserted, 1);
    let noted = "SELECT partition, newest_stored_at > now() - interval '1 hour' FROM partition_notes WHERE partition LIKE 'events_2026%'";
    assert_eq!(database.ask(noted), "(events_20261101,t)");
}

/// A statement that deleted all would hold its locks, and keep vacuum from its work, for as long as it takes.
#[test]
fn expired_rows_are_deleted_in_pieces() {
    let Some(postgres) = postgres("expired_rows_are_deleted_in_pieces") else { return };
    let database = postgres.database("pieces");
    let mut of_1970 = updated("gw", 1);
    of_1970.stamp.observed_at = "1970-01-01T00:00:07Z".parse().unwrap();
    store(&mut *open(&database.url, None), &[of_1970]).unwrap();
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
        StoreUrl::parse(&database.url, None, None).unwrap().maintenance(&options(PartitionWidth::Month));
    let maintained = maintenance.run(&keep, None, Duration::from_secs(60)).unwrap();
    assert_eq!((maintained.deleted["events_before_2020"], maintained.unfinished), (25_000, None));
    assert_eq!(database.ask("SELECT rows FROM pieces WHERE rows > 0"), "(10000) (10000) (5000)");
}

/// The server's clock is right: nothing has expired by it.
#[test]
fn a_consumer_whose_clock_is_years_ahead_deletes_nothing() {
    let test = "consumer_database::a_consumer_whose_clock_is_years_ahead_deletes_nothing";
    let Some((kafka, postgres)) = servers("a_consumer_whose_clock_is_years_ahead_deletes_nothing") else { return };
    let Some(library) = faketime::library() else { return skip(test, "needs faketime") };
    let (topic, database) = (kafka.topic("ahead", 1), postgres.database("ahead"));
    produce(&kafka.address, &topic, &events(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.until_end();
    // What does expire shows that retention has run.
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

/// Rows of a month that somebody's DEFAULT partition has keep a partition of that month from being created.
#[test]
fn what_a_default_partition_has_begun_goes_there() {
    let Some((kafka, postgres)) = servers("what_a_default_partition_has_begun_goes_there") else { return };
    let (topic, database) = (kafka.topic("default", 1), postgres.database("default"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    produce(&kafka.address, &topic, &events(1..=1));
    consumer.until_end();
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
    let (_, log) = consumer.until_end();
    let said = "the DEFAULT partition rest has rows from 2026-09-01 to 2026-10-01, and takes those to come";
    assert!(log.contains(said), "{log}");
    let rows = "SELECT tableoid::regclass::text, seq FROM events";
    assert_eq!(database.ask(rows), "(events_20260801,3) (events_20261101,1) (events_20261101,4) (rest,2) (rest,99)");
    assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(0)");
}

#[test]
fn an_agent_with_a_bad_clock_is_named_in_the_log() {
    let Some((kafka, postgres)) = servers("an_agent_with_a_bad_clock_is_named_in_the_log") else { return };
    let (topic, database) = (kafka.topic("bad_clock", 1), postgres.database("bad_clock"));
    let of_many_years = |seq: u64| {
        let mut event = updated("astray", seq);
        event.stamp.observed_at = noon() + TimeDelta::days(100 * seq as i64);
        event
    };
    let events: Vec<Event> = (1..=20).map(of_many_years).chain([updated("gw", 1)]).collect();
    produce(&kafka.address, &topic, &events);
    let (_, log) = Consumer::new(&kafka.address, &topic, &database.url).until_end();
    assert!(log.contains("astray sends too many events with times outside of the retention"), "{log}");
    assert!(!log.contains("gw sends too many"), "{log}");
    assert_eq!(database.ask("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM dead_letters)"), "(13,8)");
}

/// A partition that is being read is dropped later, and no session waits.
#[test]
fn retention_ends_at_the_first_lock_that_is_held() {
    let Some(postgres) = postgres("retention_ends_at_the_first_lock_that_is_held") else { return };
    let database = postgres.database("locked");
    let url = StoreUrl::parse(&database.url, None, None).unwrap();
    let mut stored = url.open(&options(PartitionWidth::Day));
    let old: Vec<Event> = (1..=30_u64)
        .map(|seq| {
            let mut event = event("gw", seq, started());
            event.stamp.observed_at = noon() - TimeDelta::days(seq as i64);
            event
        })
        .collect();
    store(&mut *stored, &old).unwrap();
    database.client().batch_execute("UPDATE partition_notes SET newest_stored_at = '2020-01-01'").unwrap();
    let day = Duration::from_secs(86_400);
    let keep = Retention { events: day, dead_letters: day, totals: day, ..Retention::default() };
    let mut maintenance = url.maintenance(&options(PartitionWidth::Day));
    let mut run = || maintenance.run(&keep, Some(noon() + TimeDelta::days(3)), Duration::from_secs(60)).unwrap();
    // As pg_dump does.
    let mut dump = database.client();
    dump.batch_execute("BEGIN; LOCK TABLE events IN ACCESS SHARE MODE").unwrap();
    let began = Instant::now();
    let maintained = run();
    assert_eq!((maintained.dropped.len(), maintained.unfinished.is_some()), (0, true), "{maintained:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(stored.apply(&batch(30, &events(31..=40)), Utc::now()).unwrap().inserted, 10);
    dump.batch_execute("ROLLBACK").unwrap();
    let maintained = run();
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (30, None));
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(10)");
}

/// A partition that a session reads is dropped later, and storing goes on beside each attempt.
#[test]
fn storing_goes_on_while_a_session_holds_a_lock_that_retention_needs() {
    let Some((kafka, postgres)) = servers("storing_goes_on_while_a_session_holds_a_lock_that_retention_needs") else {
        return;
    };
    let (topic, database) = (kafka.topic("held", 1), postgres.database("held"));
    let mut old = event("gw", 1, started());
    old.stamp.observed_at = noon() - TimeDelta::days(900);
    produce(&kafka.address, &topic, &[old, updated("gw", 2)]);
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.until_end();
    let partition = "SELECT min(tableoid::regclass::text) FROM events WHERE seq = 1";
    let partition = database.ask(partition).trim_matches(['(', ')']).to_owned();
    database.client().batch_execute("UPDATE partition_notes SET newest_stored_at = '2020-01-01'").unwrap();
    let mut holder = database.client();
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {partition} IN ACCESS SHARE MODE")).unwrap();
    let running = consumer.start_at("maintenance-first-s=return(0);maintenance-pause-s=return(0)", &[]);
    running.until(&format!("retention: {partition} is in use; continuing in a minute"));
    storing_goes_on(&kafka, &topic, &database, 3, &running);
    assert!(!running.log().contains("retention: dropped"), "{}", running.log());
    assert!(running.log().matches("is in use").count() > 5, "{}", running.log());
    holder.batch_execute("ROLLBACK").unwrap();
    running.until(&format!("retention: dropped {partition}"));
}

#[test]
fn a_second_consumer_says_that_it_waits_for_the_migration() {
    /// The lock that whoever migrates holds.
    const MIGRATION_LOCK: i64 = 0x6877_6d69_6772;
    let Some((kafka, postgres)) = servers("a_second_consumer_says_that_it_waits_for_the_migration") else { return };
    let (topic, database) = (kafka.topic("migrating", 1), postgres.database("migrating"));
    produce(&kafka.address, &topic, &events(1..=10));
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
    let Some((kafka, postgres)) = servers("a_migration_takes_as_long_as_it_takes") else { return };
    let (topic, database) = (kafka.topic("migrated", 1), postgres.database("migrated"));
    produce(&kafka.address, &topic, &events(1..=10));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let points = "migration-s=return(9);answer-max-s=return(3);step-max-s=return(4);migration-said-s=return(2)";
    let running = consumer.start_at(points, &[]);
    running.until("the migration V1__tables of the database has been running for");
    database.until("SELECT count(*) FROM highwater_migrations", "(1)");
    database.until("SELECT count(*) FROM events", "(10)");
    assert!(!running.log().contains("has not answered"), "{}", running.log());
}

/// A missing grant is the operator's to mend, and no message's fault.
#[test]
fn a_revoked_grant_makes_no_dead_letters() {
    let Some(postgres) = postgres("a_revoked_grant_makes_no_dead_letters") else { return };
    let database = postgres.database("revoked");
    let role = format!("writer_{:08x}", fastrand::u32(..));
    let mut owner = database.client();
    owner
        .batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT ALL ON SCHEMA public TO {role}"))
        .unwrap();
    let mut stored = open(&url_of(&database, &role), None);
    store(&mut *stored, &events(1..=5)).unwrap();
    let mut next = 6;
    for table in ["events", "breach_state", "totals", "agent_sequences", "losses"] {
        for right in ["INSERT", "UPDATE", "SELECT"] {
            let told: Vec<Event> =
                events(next..=next + 3).into_iter().chain([event("gw", next + 4, loss(900, 901))]).collect();
            owner.batch_execute(&format!("REVOKE {right} ON {table} FROM {role}")).unwrap();
            let from = next as i64 - 1;
            // Not every right is used, and what is before a row that needs it is stored.
            if let Err(error) = stored.apply(&batch(from, &told), Utc::now()) {
                let is_told = matches!(&error, StoreError::Misconfigured(text) if text.contains("GRANT"));
                assert!(is_told, "{right} ON {table}: {error:?}");
                owner.batch_execute(&format!("GRANT {right} ON {table} TO {role}")).unwrap();
                stored.apply(&batch(from, &told), Utc::now()).unwrap();
            }
            owner.batch_execute(&format!("GRANT {right} ON {table} TO {role}")).unwrap();
            assert_eq!(database.ask("SELECT count(*) FROM events"), format!("({})", next + 4), "{right} ON {table}");
            assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(0)", "{right} ON {table}");
            next += 5;
        }
    }
}

/// A trigger may refuse a row with any SQLSTATE.
#[test]
fn a_row_that_a_trigger_refuses_is_a_dead_letter_among_its_neighbours() {
    let test = "a_row_that_a_trigger_refuses_is_a_dead_letter_among_its_neighbours";
    let Some(postgres) = postgres(test) else { return };
    // The last of them mean a lock, a collision, a lost connection, no room, a cancelled statement, a shutdown, a broken disk.
    for code in [
        "P0001", "42P01", "22000", "XX000", "23505", "23514", "25006", "55000", "55006", "55P03", "40001", "40P01",
        "08006", "53100", "53200", "57014", "57P01", "58030",
    ] {
        let database = postgres.database("trigger");
        let mut stored = open(&database.url, None);
        store(&mut *stored, &events(1..=3)).unwrap();
        refuse_every_second(&database, code);
        let applied = stored.apply(&batch(3, &events(4..=43)), Utc::now()).unwrap_or_else(|e| panic!("{code}: {e}"));
        assert_eq!((applied.inserted, applied.rejected.len()), (20, 20), "{code}");
        assert_eq!(applied.stored, BTreeMap::from([(0, (3, 43))]));
        assert_eq!(database.ask("SELECT count(*), sum(seq % 2) FROM dead_letters"), "(20,0)");
        assert_eq!(database.ask("SELECT count(*) FROM events"), "(23)");
        // And again, where it is still refused.
        let record = Record::new(3, Some(7), Some(b"k"), Some(&wire::to_json(&updated("gw", 4))));
        let retried = RetriedRecord { partition: 0, generation: 0, record };
        let outcomes = stored.retry(&topic(), &[retried], Utc::now()).unwrap().outcomes;
        assert!(matches!(&outcomes[..], [RetryOutcome::Stays(why)] if why.contains(code)), "{outcomes:?}");
    }
}

/// The server itself cancels the statement, and does not report the row.
#[test]
fn a_row_for_which_every_statement_is_cancelled_is_a_dead_letter() {
    let test = "a_row_for_which_every_statement_is_cancelled_is_a_dead_letter";
    let Some(postgres) = postgres(test) else { return };
    let database = postgres.database("cancelled");
    let mut stored = open(&database.url, None);
    store(&mut *stored, &events(1..=3)).unwrap();
    let sql = "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN IF NEW.agent = 'x' THEN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(60); END IF; RETURN NEW; END$$;
               CREATE TRIGGER no BEFORE INSERT ON breach_state FOR EACH ROW EXECUTE FUNCTION no()";
    database.client().batch_execute(sql).unwrap();
    let mut told = events(4..=13);
    told[6] = updated("x", 1);
    let answers = stored.progress().answers();
    let applied = stored.apply(&batch(3, &told), Utc::now()).unwrap();
    assert_eq!((applied.inserted, applied.rejected.len(), applied.rejected[0].offset), (9, 1, 9));
    assert!(applied.rejected[0].error.contains("57014"), "{applied:?}");
    assert!(stored.progress().answers() > answers + 8, "each answer shows that the server is alive");
}

/// What comes back by itself is waited for where no row is stored, and so is a lock, whatever the probe says.
#[test]
fn what_passes_and_locks_that_are_held_make_no_dead_letters() {
    let Some(postgres) = postgres("what_passes_and_locks_that_are_held_make_no_dead_letters") else { return };
    let database = postgres.database("waits");
    let mut stored = open(&database.url, None);
    store(&mut *stored, &events(1..=3)).unwrap();
    let sql = "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not now' USING ERRCODE = '53100'; END$$;
               CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()";
    database.client().batch_execute(sql).unwrap();
    let waits = |stored: &mut dyn Store, says: &str| {
        let error = stored.apply(&batch(3, &events(4..=5)), Utc::now()).unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(text) if text.contains(says)), "{error:?}");
        assert_eq!(database.ask("SELECT next_offset, (SELECT count(*) FROM dead_letters) FROM kafka_offsets"), "(3,0)");
    };
    waits(&mut *stored, "not now");
    database.client().batch_execute("DROP TRIGGER no ON events").unwrap();
    // A row that the probe does not touch.
    let mut holder = database.client();
    holder.batch_execute("BEGIN; SELECT FROM agent_sequences FOR UPDATE").unwrap();
    waits(&mut *stored, "lock timeout");
    holder.batch_execute("ROLLBACK").unwrap();
    assert_eq!(stored.apply(&batch(3, &events(4..=5)), Utc::now()).unwrap().inserted, 2);
}

fn refuse_every_second(database: &Database, code: &str) {
    let sql = format!(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN IF NEW.duration_ms % 2000 = 0 THEN RAISE 'not this one' USING ERRCODE = '{code}'; END IF; RETURN NEW; END$$;
         CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()"
    );
    database.client().batch_execute(&sql).unwrap();
}

/// A partition that only brings offsets without records is not left behind by another one's first record.
#[test]
fn what_has_no_records_goes_with_the_first_piece() {
    let Some(postgres) = postgres("what_has_no_records_goes_with_the_first_piece") else { return };
    let database = postgres.database("pieces");
    let mut stored = open(&database.url, None);
    for partition in [0, 1] {
        insert_checkpoint(&mut *stored, &topic(), partition, &Checkpoint::default(), None).unwrap();
    }
    refuse_every_second(&database, "P0001");
    let mut batch = Batch::new(&topic());
    let gap = Gap { first: 0, last: 4, cause: GapCause::Expired };
    batch.skip_to(0, 0, 0, 5, Some(gap));
    for (offset, event) in (0..).zip(events(2..=3)) {
        let payload = wire::to_json(&event);
        batch.push(1, Record::new(offset, None, None, Some(&payload)), || (0, 0));
    }
    let applied = stored.apply(&batch, Utc::now()).unwrap();
    assert_eq!((applied.inserted, applied.rejected.len()), (1, 1));
    assert_eq!(applied.stored, BTreeMap::from([(0, (0, 5)), (1, (0, 2))]));
    assert_eq!(database.ask("SELECT kafka_partition, next_offset FROM kafka_offsets"), "(0,5) (1,2)");
    assert_eq!(database.ask("SELECT count(*) FROM kafka_gaps"), "(1)");
}

/// Storing in pieces ends between two of them.
#[test]
fn a_stop_ends_the_search_for_what_is_refused() {
    let Some(postgres) = postgres("a_stop_ends_the_search_for_what_is_refused") else { return };
    let database = postgres.database("stopped");
    let mut stored = open(&database.url, None);
    store(&mut *stored, &events(1..=3)).unwrap();
    refuse_every_second(&database, "P0001");
    stored.progress().stop();
    let applied = stored.apply(&batch(3, &events(4..=503)), Utc::now()).unwrap();
    let (from, to) = applied.stored[&0];
    assert!(from == 3 && to < 503, "{:?}", applied.stored);
    assert_eq!(database.ask("SELECT next_offset FROM kafka_offsets"), format!("({to})"));
}

/// Thousands of rows that are refused one by one, and slowly, hold no end up; what comes next is found again.
#[test]
fn a_signal_ends_the_search_for_what_is_refused() {
    let test = "consumer_database::a_signal_ends_the_search_for_what_is_refused";
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip(test), Postgres::or_skip(test)) else { return };
    let (topic, database) = (kafka.topic("search", 1), postgres.database("search"));
    produce(&kafka.address, &topic, &events(1..=3));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.until_end();
    refuse_every_second(&database, "P0001");
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN IF NEW.duration_ms % 2000 = 0 THEN PERFORM pg_sleep(0.05); END IF; RETURN NEW; END$$;
                CREATE TRIGGER a_slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()";
    database.client().batch_execute(slow).unwrap();
    produce(&kafka.address, &topic, &events(4..=2_003));
    let mut running = consumer.start(&[]);
    database.until("SELECT count(*) >= 10 FROM dead_letters", "(t)");
    let began = Instant::now();
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}: {}", began.elapsed(), running.log());
    let accounted =
        "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters) = next_offset, next_offset < 2003
                     FROM kafka_offsets";
    assert_eq!(database.ask(accounted), "(t,t)");
    database.client().batch_execute("DROP TRIGGER a_slow ON events; DROP TRIGGER no ON events").unwrap();
    consumer.until_end();
    assert_eq!(database.ask(accounted), "(t,f)");
    assert_eq!(database.ask("SELECT next_offset FROM kafka_offsets"), "(2003)");
}

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
    let Some(postgres) = postgres("no_setting_of_the_server_changes_what_is_stored") else { return };
    let told = |setting: Option<&str>| {
        let database = postgres.database("settings");
        if let Some(setting) = setting {
            let sql = format!(
                "DO $$BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET {}'; END$$",
                setting.replace('\'', "''")
            );
            database.client().batch_execute(&sql).unwrap();
        }
        let mut stored = open(&database.url, None);
        let mut all =
            vec![event("gw", 1, started()), event("gw", 2, Body::BreachRaised(breach("b", 1))), sample("gw", 1)];
        for (seq, day) in [(3, -40), (4, 40), (5, 80)] {
            let mut event = event("gw", seq, Body::BreachUpdated(breach("b", seq)));
            event.stamp.observed_at = noon() + TimeDelta::days(day);
            all.push(event);
        }
        store(&mut *stored, &all).unwrap();
        // Another session finds the partitions again.
        let mut again = open(&database.url, None);
        assert_eq!(again.apply(&batch(0, &all), Utc::now()).unwrap().inserted, 0);
        let mut client = database.client();
        client.batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET search_path = public").unwrap();
        let sql = "SELECT (SELECT string_agg(seq || ' ' || observed_at, ',' ORDER BY seq) FROM events),
                          (SELECT string_agg(c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid), ',' ORDER BY c.relname)
                           FROM pg_class c WHERE relispartition AND relkind = 'r'),
                          (SELECT string_agg(day || ' ' || excess_bytes, ',') FROM totals)";
        let row = client.query_one(sql, &[]).unwrap();
        [row.get::<_, String>(0), row.get(1), row.get(2)]
    };
    let usual = told(None);
    for setting in SETTINGS {
        assert_eq!(told(Some(setting)), usual, "{setting}");
    }
}

#[test]
fn what_can_not_be_stored_in_is_refused_by_name_with_what_mends_it() {
    let Some(postgres) = postgres("what_can_not_be_stored_in_is_refused_by_name_with_what_mends_it") else { return };
    let refused = |url: &str| match open(url, None).checkpoints(&topic()).unwrap_err() {
        StoreError::Misconfigured(text) => text,
        other => panic!("{other:?}"),
    };
    let database = postgres.database("refused");
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    let mut client = database.client();
    // Not UTF8.
    client
        .batch_execute(&format!(
            "CREATE DATABASE {name}_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))
        .unwrap();
    let ascii = Database { url: format!("{}_ascii", database.url) };
    let said = refused(&ascii.url);
    assert!(said.contains("SQL_ASCII") && said.contains("ENCODING 'UTF8'"), "{said}");
    assert!(open(&ascii.url, Some("highwater")).checkpoints(&topic()).is_err());
    let made = "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
                       (SELECT count(*) FROM pg_namespace WHERE nspname = 'highwater')";
    assert_eq!(ascii.ask(made), "(0,0)", "it is refused before anything is made");
    // Tables of another program; a schema of our own helps, and another tool's migrations do not matter.
    client.batch_execute("CREATE TABLE events (a int); CREATE TABLE refinery_schema_history (b int)").unwrap();
    let said = refused(&database.url);
    assert!(said.contains("store.schema = \"highwater\""), "{said}");
    let mut own = open(&database.url, Some("highwater"));
    assert_eq!(store(&mut *own, &events(1..=3)).unwrap().inserted, 3);
    assert_eq!(database.ask("SELECT count(*) FROM highwater.events"), "(3)");
    assert_eq!(database.ask("SELECT count(*) FROM public.events"), "(0)");
    // Since PostgreSQL 15, only its owner makes tables in public.
    let role = format!("reader_{:08x}", fastrand::u32(..));
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).unwrap();
    let other = postgres.database("refused");
    other.client().batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
    let url = url_of(&other, &role);
    let mend = |said: &str, begin: &str| {
        let from = said.find(begin).unwrap_or_else(|| panic!("{begin}: {said}"));
        other.client().batch_execute(said[from..].split(';').next().unwrap()).unwrap();
    };
    let StoreError::Misconfigured(said) = open(&url, Some("own")).checkpoints(&topic()).unwrap_err() else {
        panic!("a schema was created")
    };
    mend(&said, "GRANT CREATE ON DATABASE");
    assert_eq!(store(&mut *open(&url, Some("own")), &events(1..=3)).unwrap().inserted, 3);
    mend(&refused(&url), "GRANT CREATE, USAGE ON SCHEMA");
    assert_eq!(store(&mut *open(&url, None), &events(1..=3)).unwrap().inserted, 3);
    // A standby, or one that is to be read only.
    let name = other.url.rsplit_once('/').unwrap().1;
    client.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).unwrap();
    let said = refused(&other.url);
    assert!(said.contains("standby") && said.contains("primary"), "{said}");
}

/// What is missing is made by the SQL that the error names, one after the other, and then events are stored.
#[test]
fn a_missing_role_or_database_is_made_by_the_sql_that_is_named() {
    let test = "a_missing_role_or_database_is_made_by_the_sql_that_is_named";
    let Some(postgres) = postgres(test) else { return };
    let server = postgres.database("server");
    let role = format!("New {:08x}", fastrand::u32(..));
    let url = url_of(&server, &role.replace(' ', "%20")) + "_new";
    let says = |begin: &str| {
        let StoreError::Misconfigured(said) = open(&url, None).checkpoints(&topic()).unwrap_err() else {
            panic!("{url}")
        };
        let from = said.find(begin).unwrap_or_else(|| panic!("{begin}: {said}"));
        let sql = said[from..].split(';').next().unwrap().replace('…', "secret");
        server.client().batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    };
    says("CREATE ROLE");
    says("CREATE DATABASE");
    let name = url.rsplit_once('/').unwrap().1;
    server.client().batch_execute(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, \"{role}\"")).unwrap();
    says("GRANT CONNECT");
    assert_eq!(store(&mut *open(&url, None), &events(1..=3)).unwrap().inserted, 3);
}

/// Two roles as `docs/secure.md` makes them, in a database of their own whose administrator is no superuser, as a provider's.
struct Roles {
    database: Database,
    /// Name of the role and of its schema, `highwater` on the page.
    name: String,
    admin: ::postgres::Client,
}

impl Roles {
    fn new(postgres: &Postgres) -> Self {
        let (database, name) = (postgres.database("roles"), format!("hw_{:08x}", fastrand::u32(..)));
        let mut owner = database.client();
        let (_, of_database) = database.url.rsplit_once('/').unwrap();
        owner
            .batch_execute(&format!(
                "CREATE ROLE {name}_admin LOGIN CREATEROLE PASSWORD 'secret';
                 ALTER DATABASE {of_database} OWNER TO {name}_admin;
                 REVOKE CREATE ON SCHEMA public FROM PUBLIC"
            ))
            .unwrap();
        let admin = url_of(&database, &format!("{name}_admin"));
        let admin = ::postgres::Client::connect(&admin, ::postgres::NoTls).unwrap();
        Self { database, name, admin }
    }

    /// Runs what the page has about the reader, or about the other role, except for the statement that begins with `skipped`.
    fn run_page(&mut self, about_reader: bool, skipped: Option<&str>) {
        let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/secure.md")).unwrap();
        let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines = blocks.flat_map(str::lines).map(|line| line.split("--").next().unwrap_or_default());
        let sql = lines.collect::<Vec<_>>().join("\n");
        let mut count = 0;
        for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            if statement.contains("_reader") != about_reader || skipped.is_some_and(|skipped| statement == skipped) {
                continue;
            }
            count += 1;
            let run = self.admin.batch_execute(&statement.replace("highwater", &self.name));
            assert!(skipped.is_some() || run.is_ok(), "{statement}: {run:?}");
        }
        assert!(count > 1, "{page}");
        let role = if about_reader { format!("{}_reader", self.name) } else { self.name.clone() };
        let password = self.admin.batch_execute(&format!("ALTER ROLE {role} PASSWORD 'secret'"));
        assert!(skipped.is_some() || password.is_ok());
    }

    /// Stores an event of each of 30 days.
    fn store(&self, from: u64) -> Result<(), StoreError> {
        let url = url_of(&self.database, &self.name);
        let mut stored = StoreUrl::parse(&url, None, None).unwrap().open(&options(PartitionWidth::Day));
        let old = (from..from + 30).map(|seq| {
            let mut event = event("gw", seq, started());
            event.stamp.observed_at = noon() - TimeDelta::days(seq as i64);
            event
        });
        insert_checkpoint(&mut *stored, &topic(), 0, &Checkpoint::default(), None)?;
        stored.apply(&batch(from as i64 - 1, &old.collect::<Vec<_>>()), Utc::now()).map(drop)
    }

    /// Returns what `breaches` says to the reader.
    fn read(&self) -> (i32, String) {
        let url = url_of(&self.database, &format!("{}_reader", self.name));
        let mut command = consumer::command();
        let output = command.arg("breaches").env("HIGHWATER_STORE__URL", &url).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// The SQL of `docs/secure.md`: with it everything works, retention and partitions included, and without one statement of it the
/// program says what is missing.
#[test]
fn the_grants_of_the_page_are_the_least_that_everything_works_with() {
    let test = "the_grants_of_the_page_are_the_least_that_everything_works_with";
    let Some(postgres) = postgres(test) else { return };
    let mut roles = Roles::new(&postgres);
    roles.run_page(false, None);
    roles.store(1).unwrap();
    roles.run_page(true, None);
    roles.store(31).unwrap();
    assert_eq!(roles.read().0, 0, "{:?}", roles.read());
    let Roles { database, name, .. } = &roles;
    let mut reader =
        ::postgres::Client::connect(&url_of(database, &format!("{name}_reader")), ::postgres::NoTls).unwrap();
    let oldest = "SELECT count(*) FROM events_20260921";
    assert_eq!(reader.query_one(oldest, &[]).unwrap().get::<_, i64>(0), 1, "a partition made after the grants");
    assert!(reader.batch_execute("DELETE FROM events").is_err() && reader.batch_execute("CREATE TABLE a ()").is_err());
    let day = Duration::from_secs(86_400);
    let keep = Retention { events: day, ..Retention::default() };
    let mut role = ::postgres::Client::connect(&url_of(database, name), ::postgres::NoTls).unwrap();
    role.batch_execute("UPDATE partition_notes SET newest_stored_at = '2020-01-01'").unwrap();
    let url = StoreUrl::parse(&url_of(database, name), None, None).unwrap();
    let mut maintenance = url.maintenance(&options(PartitionWidth::Day));
    let maintained = maintenance.run(&keep, Some(noon() + TimeDelta::days(3)), Duration::from_secs(60)).unwrap();
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (60, None));
    let owned = format!(
        "SELECT (SELECT count(*) FROM pg_class WHERE relowner = '{name}'::regrole
                 AND relnamespace NOT IN ('{name}'::regnamespace, 'pg_toast'::regnamespace)),
                rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = '{name}'"
    );
    assert_eq!(database.ask(&owned), "(0,f)");

    for (skipped, says) in [
        ("CREATE ROLE highwater LOGIN", "CREATE ROLE"),
        ("GRANT highwater TO CURRENT_USER", "CREATE SCHEMA"),
        ("CREATE SCHEMA highwater AUTHORIZATION highwater", "CREATE SCHEMA"),
    ] {
        let mut roles = Roles::new(&postgres);
        roles.run_page(false, Some(skipped));
        let StoreError::Misconfigured(said) = roles.store(1).unwrap_err() else { panic!("without {skipped}") };
        assert!(said.contains(says), "without {skipped}: {said}");
    }
    // Tables that are there, and those that are made later.
    for (skipped, is_before, says) in [
        ("CREATE ROLE highwater_reader LOGIN", true, "CREATE ROLE"),
        ("GRANT USAGE ON SCHEMA highwater TO highwater_reader", true, "GRANT USAGE ON SCHEMA"),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA highwater TO highwater_reader", true, "GRANT SELECT ON ALL TABLES"),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE highwater IN SCHEMA highwater GRANT SELECT ON TABLES TO highwater_reader",
            false,
            "GRANT SELECT ON ALL TABLES",
        ),
        ("ALTER ROLE highwater_reader SET search_path = highwater", true, "set store.schema"),
    ] {
        let mut roles = Roles::new(&postgres);
        roles.run_page(false, None);
        if is_before {
            roles.store(1).unwrap();
        }
        roles.run_page(true, Some(skipped));
        if !is_before {
            roles.store(1).unwrap();
        }
        let (code, said) = roles.read();
        assert!(code != 0 && said.contains(says), "without {skipped}: {said}");
    }
}

#[test]
fn a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_taken() {
    let test = "a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_taken";
    let Some(postgres) = postgres(test) else { return };
    if Command::new("pgbouncer").arg("--version").output().is_err() {
        return skip(&format!("consumer_database::{test}"), "needs pgbouncer");
    }
    let database = postgres.database("pooled");
    let is_refused = |error| {
        assert!(matches!(&error, StoreError::Misconfigured(text) if text.contains("pool_mode = session")), "{error:?}");
    };
    // One server session: the second client would wait for the first one's transaction.
    let single = Pooler::start(&database, "transaction\ndefault_pool_size = 1");
    is_refused(open(&single.url, None).checkpoints(&topic()).unwrap_err());
    let transaction = Pooler::start(&database, "transaction");
    is_refused(open(&transaction.url, None).checkpoints(&topic()).unwrap_err());
    let mut maintenance =
        StoreUrl::parse(&transaction.url, None, None).unwrap().maintenance(&options(PartitionWidth::Day));
    let day = Duration::from_secs(86_400);
    let keep = Retention { events: day, dead_letters: day, totals: day, ..Retention::default() };
    is_refused(maintenance.run(&keep, None, day).unwrap_err());
    let session = Pooler::start(&database, "session");
    assert_eq!(store(&mut *open(&session.url, None), &events(1..=3)).unwrap().inserted, 3);
}

pub(crate) struct Pooler {
    pub(crate) url: String,
    child: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Pooler {
    pub(crate) fn start(database: &Database, mode: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (role, rest) = database.url.trim_start_matches("postgres://").split_once(':').unwrap();
        let (password, rest) = rest.split_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let (host, server_port) = server.split_once(':').unwrap();
        let ini = format!(
            "[databases]\n{name} = host={host} port={server_port} user={role} password={password}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, ini).unwrap();
        let mut command = Command::new("pgbouncer");
        command
            .args(["-q", "-u", "postgres"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        until("pgbouncer listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { url: format!("postgres://{role}@127.0.0.1:{port}/{name}"), child, _directory: directory }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_table_and_column_says_what_it_is() {
    let Some(postgres) = postgres("every_table_and_column_says_what_it_is") else { return };
    let database = postgres.database("comments");
    open(&database.url, None).checkpoints(&topic()).unwrap();
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
    let Some(postgres) = Postgres::own("breaches_are_updated_in_place") else { return };
    let database = postgres.database("hot");
    let mut stored = open(&database.url, None);
    insert_checkpoint(&mut *stored, &topic(), 0, &Checkpoint::default(), None).unwrap();
    let mut next = 0;
    for round in 1..=50_u64 {
        let told = |agent: u64| {
            let body = Body::BreachUpdated(breach("b", round));
            event(&format!("gw-{agent}"), round, if round == 1 { Body::BreachRaised(breach("b", 1)) } else { body })
        };
        let all: Vec<Event> = (0..40).map(told).collect();
        stored.apply(&batch(next, &all), Utc::now()).unwrap();
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
    let Some(postgres) = postgres("values_out_of_their_range_are_refused") else { return };
    let database = postgres.database("checks");
    let events = [event("gw", 1, Body::BreachRaised(breach("b", 3))), sample("gw", 1)];
    store(&mut *open(&database.url, None), &events).unwrap();
    let mut client = database.client();
    for (table, change) in [
        ("events", "kafka_offset = -1"),
        ("events", "kafka_partition = -1"),
        ("events", "peak_bps = -1"),
        ("events", "severity = 'grave'"),
        ("samples", "seq = 0"),
        ("samples", "rx_bps = -1"),
        ("breach_state", "direction = 'up'"),
        ("breach_state", "excess_bytes = -1"),
        ("totals", "breaches = -1"),
        ("totals", "direction = 'up'"),
        ("agent_sequences", "last_seq = 0"),
        ("agent_sequences", "identity_conflicts = -1"),
        ("kafka_offsets", "next_offset = -1"),
    ] {
        assert!(client.execute(&format!("SELECT FROM {table}"), &[]).unwrap() > 0, "{table}");
        let error = client.execute(&format!("UPDATE {table} SET {change}"), &[]).unwrap_err();
        assert_eq!(error.code().map(postgres::error::SqlState::code), Some("23514"), "{table} {change}");
    }
}

#[test]
fn a_breach_whose_agent_began_anew_is_unknown() {
    let Some(postgres) = postgres("a_breach_whose_agent_began_anew_is_unknown") else { return };
    let database = postgres.database("unknown");
    let mut stored = open(&database.url, None);
    let raised = |agent: &str| event(agent, 1, Body::BreachRaised(breach("b", 3)));
    store(&mut *stored, &[raised("lost"), raised("alive"), sample("alive", 1)]).unwrap();
    let mut anew = event("lost", 1, started());
    anew.id.epoch = highwater::message::Epoch(7);
    stored.apply(&batch(3, &[anew]), Utc::now()).unwrap();
    assert_eq!(database.ask("SELECT agent, state FROM breaches"), "(alive,open) (lost,unknown)");
    assert_eq!(database.ask("SELECT agent FROM open_breaches"), "(alive)");
    assert_eq!(database.ask("SELECT agent, lasted = interval '3 s' FROM breaches WHERE state = 'unknown'"), "(lost,t)");
    assert_eq!(database.ask("SELECT lasted > interval '1 h' FROM breaches WHERE state = 'open'"), "(t)");
}

#[test]
fn an_identity_under_other_times_is_sought_among_its_agents_newest_rows() {
    let Some((kafka, postgres)) = servers("an_identity_under_other_times_is_sought_among_its_agents_newest_rows")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("other-times", 1), postgres.database("other_times"));
    produce(&kafka.address, &topic, &events(1..=10));
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
