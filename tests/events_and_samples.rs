//! A consumer of events and samples stores each once, and trouble of one topic holds up the other no longer than its own work takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::message::Event;

use crate::support::consumer::Consumer;
use crate::support::events::{produce, sample, updated};
use crate::support::postgres::Database;
use crate::support::services::{Kafka, kafka_and_postgres};

/// Rows and distinct identities of both tables.
const STORED: &str = "SELECT (SELECT count(*) FROM events) AS events,
                             (SELECT count(DISTINCT (agent, epoch, seq)) FROM events) AS different_events,
                             (SELECT count(*) FROM samples) AS samples,
                             (SELECT count(DISTINCT (agent, epoch, seq)) FROM samples) AS different_samples";

fn stored(events: u64, samples: u64) -> String {
    format!("({events},{events},{samples},{samples})")
}

fn consumer_of_both(kafka: &Kafka, events: &str, samples: &str, database: &Database) -> Consumer {
    let consumer = Consumer::new(&kafka.address, events, &database.url);
    consumer.append(&format!("[topics]\nsamples = '{samples}'\n"));
    consumer
}

fn send(kafka: &Kafka, topic: &str, make: fn(&str, u64) -> Event, seqs: std::ops::RangeInclusive<u64>) {
    let events: Vec<Event> = seqs.map(|seq| make("gw", seq)).collect();
    produce(&kafka.address, topic, &events);
}

#[test]
fn a_topic_that_is_missing_holds_up_no_other_and_is_read_once_it_is_there() {
    let test = "events_and_samples::a_topic_that_is_missing_holds_up_no_other_and_is_read_once_it_is_there";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let database = postgres.database("missing");
    let (events, samples) = (kafka.topic("made", 2), format!("missing-{:08x}", fastrand::u32(..)));
    // Without an end, it waits.
    let mut consumer = consumer_of_both(&kafka, &events, &samples, &database);
    send(&kafka, &events, updated, 1..=100);
    let mut running = consumer.start(&[]);
    database.until(STORED, &stored(100, 0));
    running.until(&kafka.missing(&samples));
    send(&kafka, &events, updated, 101..=200);
    database.until(STORED, &stored(200, 0));
    kafka.create(&samples, 2);
    send(&kafka, &samples, sample, 1..=300);
    database.until(STORED, &stored(200, 300));
    send(&kafka, &events, updated, 201..=250);
    send(&kafka, &samples, sample, 301..=350);
    database.until(STORED, &stored(250, 350));
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    assert_eq!(database.ask("SELECT sum(next_offset) FROM kafka_offsets"), "(600)", "{}", running.log());
    // The other way round, and with an end: a missing topic has none.
    let mut consumer = consumer_of_both(&kafka, &format!("{samples}-events"), &samples, &postgres.database("end"));
    let mut running = consumer.start(&["--until-end"]);
    assert_eq!(running.wait().code(), Some(69), "{}", running.log());
    assert!(running.log().contains(&format!("{samples}: stored 350 events")), "{}", running.log());
}

/// The samples are far ahead in Kafka, the events come one by one, and another member comes and is killed.
#[test]
fn a_topic_that_trickles_is_stored_while_the_other_has_much_to_catch_up_with() {
    const BACKLOG: u64 = 40_000;
    let test = "events_and_samples::a_topic_that_trickles_is_stored_while_the_other_has_much_to_catch_up_with";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (events, samples, database) = (kafka.topic("few", 2), kafka.topic("many", 2), postgres.database("backlog"));
    send(&kafka, &samples, sample, 1..=BACKLOG);
    send(&kafka, &events, updated, 1..=20);
    let mut consumer = consumer_of_both(&kafka, &events, &samples, &database);
    let mut running = consumer.start(&[]);
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|threads| {
        let trickle = threads.spawn(|| {
            let mut sent = 20;
            while !done.load(Ordering::Relaxed) {
                sent += 1;
                send(&kafka, &events, updated, sent..=sent);
                std::thread::sleep(Duration::from_millis(20));
            }
            sent
        });
        database.until("SELECT count(*) > 0 FROM samples", "(t)");
        let other = consumer_of_both(&kafka, &events, &samples, &database).start(&[]);
        other.until("partition");
        other.kill();
        database.until("SELECT count(*) FROM samples", &format!("({BACKLOG})"));
        done.store(true, Ordering::Relaxed);
        trickle.join().unwrap()
    });
    database.until(STORED, &stored(sent, BACKLOG));
    let early = "SELECT count(*) >= 20 FROM events WHERE stored_at < (SELECT max(stored_at) FROM samples)";
    assert_eq!(database.ask(early), "(t)");
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    assert_eq!(database.ask(STORED), stored(sent, BACKLOG));
}

#[test]
fn a_table_that_takes_nothing_holds_up_no_other() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("events_and_samples::a_table_that_takes_nothing_holds_up_no_other")
    else {
        return;
    };
    let (events, samples, database) = (kafka.topic("free", 1), kafka.topic("held", 1), postgres.database("held"));
    let mut consumer = consumer_of_both(&kafka, &events, &samples, &database);
    send(&kafka, &events, updated, 1..=1);
    send(&kafka, &samples, sample, 1..=1);
    consumer.run_until_end();
    // Until it is taken back, no sample can be stored.
    let mut owner = database.client();
    let refuse =
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE insufficient_privilege; END $$;
                  CREATE TRIGGER refuse BEFORE INSERT ON samples FOR EACH ROW EXECUTE FUNCTION refuse()";
    owner.batch_execute(refuse).unwrap();
    let running = consumer.start(&[]);
    send(&kafka, &samples, sample, 2..=500);
    running.until("nothing is lost; retrying");
    for seq in 2..=50 {
        send(&kafka, &events, updated, seq..=seq);
    }
    database.until(STORED, &stored(50, 1));
    owner.batch_execute("DROP TRIGGER refuse ON samples").unwrap();
    database.until(STORED, &stored(50, 500));
}
