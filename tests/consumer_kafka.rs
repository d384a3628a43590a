//! The consumer as a program, between a real Kafka and a real PostgreSQL (and SQLite): what is in the topic is in the table, each
//! once, whatever happens in between.


use highwater::event::Event;

use crate::support::consumer::{Consumer, Postgres, command};
use crate::support::events::{produce, updated};
use crate::support::services::Kafka;

/// Both servers, or a note that the test was skipped.
fn servers(test: &str) -> Option<(Kafka, Postgres)> {
    let test = format!("consumer_kafka::{test}");
    Some((Kafka::or_skip(&test)?, Postgres::or_skip(&test)?))
}

/// `count` events of each of `agents`, numbered from `first`.
fn events(agents: u64, first: u64, count: u64) -> Vec<Event> {
    (first..first + count).flat_map(|seq| (0..agents).map(move |agent| updated(&format!("gw-{agent}"), seq))).collect()
}

const TOLD: &str = "SELECT count(*) AS n, count(DISTINCT (agent, epoch, seq)) AS d FROM events";

fn told(count: usize) -> String {
    format!("({count},{count})")
}

#[test]
fn until_the_end_and_no_further() {
    let Some((kafka, postgres)) = servers("until_the_end_and_no_further") else { return };
    let (topic, database) = (kafka.topic("end", 3), postgres.database("end"));
    produce(&kafka.address, &topic, &events(5, 1, 200));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let (printed, log) = consumer.until_end();
    assert_eq!(database.ask(TOLD), told(1_000), "{log}");
    assert_eq!(printed.lines().count(), 1_000);
    let line = printed.lines().next().unwrap();
    assert!(line.starts_with(&format!("{topic} ")) && line.contains("\"kind\":\"breach_updated\""), "{line}");
    // Again: there is nothing more to do, and nothing is printed.
    assert_eq!(consumer.until_end().0, "");
    // An empty topic is at its end.
    let empty = kafka.topic("empty", 2);
    Consumer::new(&kafka.address, &empty, &database.url).until_end();
}

#[test]
fn sqlite_is_enough() {
    let Some(kafka) = Kafka::or_skip("consumer_kafka::sqlite_is_enough") else { return };
    let topic = kafka.topic("sqlite", 2);
    produce(&kafka.address, &topic, &events(4, 1, 500));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("h.db");
    let mut consumer = Consumer::new(&kafka.address, &topic, &format!("sqlite:{}", file.display()));
    consumer.until_end();
    produce(&kafka.address, &topic, &events(4, 501, 5));
    consumer.until_end();
    let connection = rusqlite::Connection::open(file).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2_020);
}

#[test]
fn a_database_that_is_not_there_is_named_and_waited_for() {
    let Some((kafka, postgres)) = servers("a_database_that_is_not_there_is_named_and_waited_for") else { return };
    let (topic, database) = (kafka.topic("wait", 1), postgres.database("wait"));
    produce(&kafka.address, &topic, &events(1, 1, 3));
    let url = format!("{}_not", database.url);
    let mut running = Consumer::new(&kafka.address, &topic, &url).start(&[]);
    running.until("does not exist");
    // It ends in order all the same.
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
}

#[test]
fn what_kafka_dropped_is_written_down() {
    let Some((kafka, postgres)) = servers("what_kafka_dropped_is_written_down") else { return };
    let (topic, database) = (kafka.topic("dropped", 1), postgres.database("dropped"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    produce(&kafka.address, &topic, &events(1, 1, 10));
    consumer.until_end();
    produce(&kafka.address, &topic, &events(1, 11, 30));
    kafka.delete_records(&topic, 0, 25);
    let (_, log) = consumer.until_end();
    assert_eq!(database.ask("SELECT first_offset, last_offset FROM kafka_gaps"), "(10,24)", "{log}");
    assert_eq!(database.ask(TOLD), told(25));
    assert!(log.contains("Kafka dropped offsets 10 to 24"), "{log}");
}

#[test]
fn the_database_knows_better_than_kafka_where_to_go_on() {
    let Some((kafka, postgres)) = servers("the_database_knows_better_than_kafka_where_to_go_on") else { return };
    let (topic, database) = (kafka.topic("truth", 1), postgres.database("truth"));
    produce(&kafka.address, &topic, &events(1, 1, 10));
    Consumer::new(&kafka.address, &topic, &database.url).until_end();
    // A database restored from before the last four.
    let mut client = database.client();
    client.batch_execute("DELETE FROM events WHERE seq > 6; UPDATE kafka_offsets SET next = 6").unwrap();
    Consumer::new(&kafka.address, &topic, &database.url).until_end();
    assert_eq!(database.ask(TOLD), told(10));
}

#[test]
fn it_ends_in_order_when_asked() {
    let Some((kafka, postgres)) = servers("it_ends_in_order_when_asked") else { return };
    let (topic, database) = (kafka.topic("term", 1), postgres.database("term"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    for (round, signal) in (0..).zip(["TERM", "INT"]) {
        let mut running = consumer.start(&[]);
        produce(&kafka.address, &topic, &events(1, 1 + round * 10, 10));
        database.until(TOLD, &told(10 * (round as usize + 1)));
        running.signal(signal);
        assert!(running.wait().success(), "{}", running.log());
        assert!(running.log().contains("ending as asked"));
    }
    // Without a broker too.
    let mut running = Consumer::new("127.0.0.1:1", &topic, &database.url).start(&[]);
    running.until("Kafka: ");
    running.signal("TERM");
    assert!(running.wait().success());
}

#[test]
fn bad_configuration_ends_with_78_and_says_where() {
    let run = |arguments: &[&str]| {
        let output = command().args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let consumer = Consumer::with("[kafka]\nbrokres = 'a:1'\n");
    let config = consumer.config().display().to_string();
    for verb in ["run", "check"] {
        let (code, error) = run(&[verb, "--config", &config]);
        assert_eq!(code, Some(78), "{error}");
        assert!(error.contains(&format!("{config}:2: unknown key `brokres`; did you mean `brokers`?")), "{error}");
    }
    assert_eq!(run(&["stroll"]).0, Some(2));
    // A topic that is not there has no end.
    if let Some(kafka) = Kafka::or_skip("consumer_kafka::bad_configuration_ends_with_78_and_says_where") {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("h.db").display());
        let mut running = Consumer::new(&kafka.address, "no-such-topic", &url).start(&["--until-end"]);
        assert_eq!(running.wait().code(), Some(69), "{}", running.log());
    }
}
