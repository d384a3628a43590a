//! A row that the database refuses, for whatever reason, is one dead letter among its neighbours; a database that is busy makes none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use highwater::consumer::batch::{Batch, Gap, GapCause, Record};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{RetriedRecord, RetryOutcome, Store, StoreError};
use highwater::message::Event;
use highwater::wire;

use super::{open_store, postgres, store_first};
use crate::support::consumer::Consumer;
use crate::support::events::{produce, updated, updates};
use crate::support::postgres::Database;
use crate::support::services::kafka_and_postgres;
use crate::support::stores::{batch_of_events, insert_checkpoint, topic_id};

/// A trigger may refuse a row with any SQLSTATE.
#[test]
fn a_row_that_a_trigger_refuses_is_a_dead_letter_among_its_neighbours() {
    let test = "refused_rows::a_row_that_a_trigger_refuses_is_a_dead_letter_among_its_neighbours";
    let Some(postgres) = postgres(test) else { return };
    // The last of them mean a lock, a collision, a lost connection, no room, a cancelled statement, a shutdown, a broken disk.
    for code in [
        "P0001", "42P01", "22000", "XX000", "23505", "23514", "25006", "55000", "55006", "55P03", "40001", "40P01",
        "08006", "53100", "53200", "57014", "57P01", "58030",
    ] {
        let database = postgres.database("trigger");
        let mut stored = open_store(&database.url, None);
        store_first(&mut *stored, &updates(1..=3)).unwrap();
        refuse_every_second(&database, code);
        let applied =
            stored.apply(&batch_of_events(3, &updates(4..=43)), Utc::now()).unwrap_or_else(|e| panic!("{code}: {e}"));
        assert_eq!((applied.inserted, applied.rejected.len()), (20, 20), "{code}");
        assert_eq!(applied.stored, BTreeMap::from([(0, (3, 43))]));
        assert_eq!(database.ask("SELECT count(*), sum(seq % 2) FROM dead_letters"), "(20,0)");
        assert_eq!(database.ask("SELECT count(*) FROM events"), "(23)");
        // And again, where it is still refused.
        let record = Record::new(3, Some(7), Some(b"k"), Some(&wire::to_json(&updated("gw", 4))));
        let retried = RetriedRecord { partition: 0, generation: 0, record };
        let outcomes = stored.retry(&topic_id("events"), &[retried], Utc::now()).unwrap().outcomes;
        assert!(matches!(&outcomes[..], [RetryOutcome::Stays(why)] if why.contains(code)), "{outcomes:?}");
    }
}

/// The server itself cancels the statement, and does not report the row.
#[test]
fn a_row_for_which_every_statement_is_cancelled_is_a_dead_letter() {
    let test = "refused_rows::a_row_for_which_every_statement_is_cancelled_is_a_dead_letter";
    let Some(postgres) = postgres(test) else { return };
    let database = postgres.database("cancelled");
    let mut stored = open_store(&database.url, None);
    store_first(&mut *stored, &updates(1..=3)).unwrap();
    let sql = "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN IF NEW.agent = 'x' THEN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(60); END IF; RETURN NEW; END$$;
               CREATE TRIGGER no BEFORE INSERT ON breach_state FOR EACH ROW EXECUTE FUNCTION no()";
    database.client().batch_execute(sql).unwrap();
    let mut told = updates(4..=13);
    told[6] = updated("x", 1);
    let answers = stored.progress().answers();
    let applied = stored.apply(&batch_of_events(3, &told), Utc::now()).unwrap();
    assert_eq!((applied.inserted, applied.rejected.len(), applied.rejected[0].offset), (9, 1, 9));
    assert!(applied.rejected[0].error.contains("57014"), "{applied:?}");
    assert!(stored.progress().answers() > answers + 8, "each answer shows that the server is alive");
}

/// A fault that passes by itself is waited for where no row is stored, and so is a lock, whatever the probe says.
#[test]
fn what_passes_and_locks_that_are_held_make_no_dead_letters() {
    let Some(postgres) = postgres("refused_rows::what_passes_and_locks_that_are_held_make_no_dead_letters") else {
        return;
    };
    let database = postgres.database("waits");
    let mut stored = open_store(&database.url, None);
    store_first(&mut *stored, &updates(1..=3)).unwrap();
    let sql = "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not now' USING ERRCODE = '53100'; END$$;
               CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()";
    database.client().batch_execute(sql).unwrap();
    let waits = |stored: &mut dyn Store, says: &str| {
        let error = stored.apply(&batch_of_events(3, &updates(4..=5)), Utc::now()).unwrap_err();
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
    assert_eq!(stored.apply(&batch_of_events(3, &updates(4..=5)), Utc::now()).unwrap().inserted, 2);
}

fn refuse_every_second(database: &Database, code: &str) {
    let sql = format!(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN IF NEW.duration_ms % 2000 = 0 THEN RAISE 'not this one' USING ERRCODE = '{code}'; END IF; RETURN NEW; END$$;
         CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()"
    );
    database.client().batch_execute(&sql).unwrap();
}

/// Each attempt handles all rows of its piece again: without small pieces, these 800 rows would be handled 80,000 times.
#[test]
fn many_refused_rows_make_the_pieces_small() {
    let Some(postgres) = postgres("refused_rows::many_refused_rows_make_the_pieces_small") else { return };
    let database = postgres.database("small");
    let mut stored = open_store(&database.url, None);
    store_first(&mut *stored, &updates(1..=3)).unwrap();
    // Rows are inserted by agent: the refused ones come last. A sequence counts also in transactions that are rolled back.
    let sql = "CREATE SEQUENCE handled;
               CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN PERFORM nextval('handled'); IF NEW.agent = 'z' THEN RAISE 'not this one'; END IF; RETURN NEW; END$$;
               CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()";
    database.client().batch_execute(sql).unwrap();
    let told: Vec<Event> = (1..=400).flat_map(|seq| [updated("a", seq), updated("z", seq)]).collect();
    let applied = stored.apply(&batch_of_events(3, &told), Utc::now()).unwrap();
    assert_eq!((applied.inserted, applied.rejected.len()), (400, 400));
    assert_eq!(applied.stored, BTreeMap::from([(0, (3, 803))]));
    assert_eq!(
        database.ask("SELECT count(*), count(DISTINCT kafka_offset), sum(kafka_offset % 2) FROM events"),
        "(403,403,401)"
    );
    let handled: i64 = database.client().query_one("SELECT last_value FROM handled", &[]).unwrap().get(0);
    assert!(handled < 40_000, "{handled}");
}

/// A partition that only brings offsets without records is not left behind by another one's first record.
#[test]
fn what_has_no_records_goes_with_the_first_piece() {
    let Some(postgres) = postgres("refused_rows::what_has_no_records_goes_with_the_first_piece") else { return };
    let database = postgres.database("pieces");
    let mut stored = open_store(&database.url, None);
    for partition in [0, 1] {
        insert_checkpoint(&mut *stored, &topic_id("events"), partition, &Checkpoint::default(), None).unwrap();
    }
    refuse_every_second(&database, "P0001");
    let mut batch = Batch::new(&topic_id("events"));
    let gap = Gap { first: 0, last: 4, cause: GapCause::Expired };
    batch.skip_to(0, 0, 0, 5, Some(gap));
    for (offset, event) in (0..).zip(updates(2..=3)) {
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
    let Some(postgres) = postgres("refused_rows::a_stop_ends_the_search_for_what_is_refused") else { return };
    let database = postgres.database("stopped");
    let mut stored = open_store(&database.url, None);
    store_first(&mut *stored, &updates(1..=3)).unwrap();
    refuse_every_second(&database, "P0001");
    stored.progress().stop();
    let applied = stored.apply(&batch_of_events(3, &updates(4..=503)), Utc::now()).unwrap();
    let (from, to) = applied.stored[&0];
    assert!(from == 3 && to < 503, "{:?}", applied.stored);
    assert_eq!(database.ask("SELECT next_offset FROM kafka_offsets"), format!("({to})"));
}

/// Thousands of rows that are refused one by one, and slowly, hold no end up; what comes next is found again.
#[test]
fn a_signal_ends_the_search_for_what_is_refused() {
    let test = "consumer_database::refused_rows::a_signal_ends_the_search_for_what_is_refused";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("search", 1), postgres.database("search"));
    produce(&kafka.address, &topic, &updates(1..=3));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.run_until_end();
    refuse_every_second(&database, "P0001");
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN IF NEW.duration_ms % 2000 = 0 THEN PERFORM pg_sleep(0.05); END IF; RETURN NEW; END$$;
                CREATE TRIGGER a_slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()";
    database.client().batch_execute(slow).unwrap();
    produce(&kafka.address, &topic, &updates(4..=2_003));
    let mut running = consumer.start(&[]);
    database.until("SELECT count(*) >= 10 FROM dead_letters", "(t)");
    let began = Instant::now();
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    // The search would take 50 s; its transaction may take 4 s to end.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: {}", began.elapsed(), running.log());
    let accounted =
        "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters) = next_offset, next_offset < 2003
                     FROM kafka_offsets";
    assert_eq!(database.ask(accounted), "(t,t)");
    database.client().batch_execute("DROP TRIGGER a_slow ON events; DROP TRIGGER no ON events").unwrap();
    consumer.run_until_end();
    assert_eq!(database.ask(accounted), "(t,f)");
    assert_eq!(database.ask("SELECT next_offset FROM kafka_offsets"), "(2003)");
}
