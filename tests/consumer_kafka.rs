//! The consumer as a program, between a real Kafka and a real PostgreSQL (and SQLite): each event of the topic is in the table
//! once, whatever happens in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::wire;

use crate::support::consumer::{Consumer, command};
use crate::support::events::{produce, produce_raw, produce_to, updated, updates_of_agents};
use crate::support::failpoints;
use crate::support::postgres::{Postgres, ROWS_AND_EVENTS, once_each};
use crate::support::services::{Cluster, Kafka, kafka_and_postgres};

#[test]
fn until_the_end_and_no_further() {
    let Some((kafka, postgres)) = kafka_and_postgres("consumer_kafka::until_the_end_and_no_further") else { return };
    let (topic, database) = (kafka.topic("end", 3), postgres.database("end"));
    produce(&kafka.address, &topic, &updates_of_agents(5, 1..=200));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let (printed, log) = consumer.run_until_end();
    assert_eq!(database.ask(ROWS_AND_EVENTS), once_each(1_000), "{log}");
    assert_eq!(printed.lines().count(), 1_000);
    let said = format!("{topic}: stored 1000 events, 0 dead letters");
    assert!(log.lines().last().is_some_and(|line| line.ends_with(&said)), "{log}");
    let line = printed.lines().next().unwrap();
    assert!(line.starts_with(&format!("{topic} ")) && line.contains("\"kind\":\"breach_updated\""), "{line}");
    // Again: there is nothing more to do, and nothing is printed.
    let (printed, log) = consumer.run_until_end();
    assert_eq!(printed, "");
    let said = format!("{topic}: stored 0 events, 0 dead letters");
    assert!(log.lines().last().is_some_and(|line| line.ends_with(&said)), "{log}");
    // An empty topic is at its end.
    let empty = kafka.topic("empty", 2);
    Consumer::new(&kafka.address, &empty, &database.url).run_until_end();
}

#[test]
fn sqlite_is_enough() {
    let Some(kafka) = Kafka::or_skip("consumer_kafka::sqlite_is_enough") else { return };
    let topic = kafka.topic("sqlite", 2);
    produce(&kafka.address, &topic, &updates_of_agents(4, 1..=500));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("h.db");
    let mut consumer = Consumer::new(&kafka.address, &topic, &format!("sqlite:{}", file.display()));
    consumer.run_until_end();
    produce(&kafka.address, &topic, &updates_of_agents(4, 501..=505));
    consumer.run_until_end();
    let connection = rusqlite::Connection::open(file).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2_020);
}

#[test]
fn a_database_that_is_not_there_is_named_and_waited_for() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("consumer_kafka::a_database_that_is_not_there_is_named_and_waited_for")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("wait", 1), postgres.database("wait"));
    produce(&kafka.address, &topic, &updates_of_agents(1, 1..=3));
    let url = format!("{}_not", database.url);
    let mut running = Consumer::new(&kafka.address, &topic, &url).start(&[]);
    running.until("does not exist");
    // The consumer ends in order all the same.
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
}

#[test]
fn what_kafka_dropped_is_written_down() {
    let Some((kafka, postgres)) = kafka_and_postgres("consumer_kafka::what_kafka_dropped_is_written_down") else {
        return;
    };
    let (topic, database) = (kafka.topic("dropped", 1), postgres.database("dropped"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    produce(&kafka.address, &topic, &updates_of_agents(1, 1..=10));
    consumer.run_until_end();
    produce(&kafka.address, &topic, &updates_of_agents(1, 11..=40));
    kafka.delete_records(&topic, 0, 25);
    let (_, log) = consumer.run_until_end();
    assert_eq!(database.ask("SELECT first_offset, last_offset FROM kafka_gaps"), "(10,24)", "{log}");
    assert_eq!(database.ask(ROWS_AND_EVENTS), once_each(25));
    assert!(log.contains("Kafka deleted offsets 10 to 24"), "{log}");
}

/// Some kilobytes that unpack to megabytes: more than librdkafka takes, here with a low bound.
#[test]
fn a_batch_that_is_too_large_is_a_gap_and_what_follows_is_stored() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("consumer_kafka::a_batch_that_is_too_large_is_a_gap_and_what_follows_is_stored")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("large", 2), postgres.database("large"));
    let brokers = &kafka.address;
    let plain = |agent: &'static str, first: u64, last: u64| {
        (first..=last).map(move |seq| wire::to_json(&updated(agent, seq))).collect::<Vec<_>>()
    };
    let zeros = |count: usize| vec![vec![0; 500_000]; count];
    // Two such batches one after the other, and one at the end.
    for payloads in [plain("a", 1, 3), zeros(11), zeros(12), plain("a", 4, 5), zeros(13)] {
        produce_to(brokers, &topic, 0, payloads);
    }
    // At the same time, in another partition.
    for payloads in [plain("b", 1, 8), zeros(12), plain("b", 9, 10)] {
        produce_to(brokers, &topic, 1, payloads);
    }
    let mut consumer = Consumer::new(brokers, &topic, &database.url);
    let bounds = "'receive.message.max.bytes' = 4194816\n'fetch.max.bytes' = 4194304";
    consumer.set("[kafka.properties]", bounds);
    let (_, log) = consumer.run_until_end();
    assert_eq!(database.ask("SELECT agent, count(*) FROM events GROUP BY 1"), "(a,5) (b,10)", "{log}");
    let gaps = "SELECT kafka_partition, first_offset, last_offset, cause FROM kafka_gaps";
    assert_eq!(
        database.ask(gaps),
        "(0,14,25,unreadable) (0,28,40,unreadable) (0,3,13,unreadable) (1,8,19,unreadable)",
        "{log}"
    );
    assert!(log.contains("[0]: offsets 3 to 13 are skipped: their batch cannot be unpacked"), "{log}");
    assert!(log.contains("raise receive.message.max.bytes in [kafka.properties]"), "{log}");
    assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(0)");
    // `tail` shows the messages around them.
    let mut tail = command();
    tail.args(["tail", "--from", "earliest", "--until-end", "--format", "csv", "--config"]).arg(consumer.config());
    let seen = tail.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout).lines().count(),
        1 + 15,
        "{}",
        String::from_utf8_lossy(&seen.stderr)
    );
    // None of that is done again.
    produce_to(brokers, &topic, 0, plain("a", 6, 6));
    let (_, log) = consumer.run_until_end();
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(16)", "{log}");
    assert!(!log.contains("cannot be unpacked"), "{log}");
}

/// A batch that fails its checksum is fetched again and again, as one that is too large.
#[test]
fn a_damaged_batch_is_a_gap_and_what_follows_is_stored() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("consumer_kafka::a_damaged_batch_is_a_gap_and_what_follows_is_stored")
    else {
        return;
    };
    // Behind a damaged batch librdkafka reads on at an offset that it takes from other bytes: from which ones depends on its size.
    let (topic, database) = (kafka.topic("damaged", 6), postgres.database("damaged"));
    let (mut rows, mut gaps) = (Vec::new(), Vec::new());
    for partition in 0..6 {
        let (agent, size) = (format!("gw-{partition}"), 1 + 3 * partition as u64);
        for (first, last) in [(1, 2), (3, 2 + size), (3 + size, 3 + size)] {
            let payloads = (first..=last).map(|seq| wire::to_json(&updated(&agent, seq)));
            produce_to(&kafka.address, &topic, partition, payloads);
        }
        kafka.damage(&topic, partition, 2);
        rows.push(format!("({agent},\"{{1,2,{}}}\")", 3 + size));
        gaps.push(format!("({partition},2,{},unreadable)", 1 + size));
    }
    let (_, log) = Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    assert_eq!(
        database.ask("SELECT agent, array_agg(seq ORDER BY seq) FROM events GROUP BY agent"),
        rows.join(" "),
        "{log}"
    );
    let gap = "SELECT kafka_partition, first_offset, last_offset, cause FROM kafka_gaps";
    assert_eq!(database.ask(gap), gaps.join(" "), "{log}");
    assert!(log.contains("[1]: offsets 2 to 5 are skipped"), "{log}");
}

/// The consumer starts while one of three brokers is away, which alone has a partition.
#[test]
fn a_partition_whose_broker_is_away_holds_up_no_other() {
    let test = "consumer_kafka::a_partition_whose_broker_is_away_holds_up_no_other";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let Some(cluster) = Cluster::of_three(test) else { return };
    let (topic, database) = (cluster.kafka.create_unreplicated("apart", 3), postgres.database("apart"));
    let send = |partition: i32, seqs: std::ops::RangeInclusive<u64>| {
        let payloads = seqs.map(|seq| wire::to_json(&updated(&format!("gw-{partition}"), seq)));
        produce_to(&cluster.kafka.address, &topic, partition, payloads);
    };
    (0..3).for_each(|partition| send(partition, 1..=5));
    let mut consumer = Consumer::new(&cluster.kafka.address, &topic, &database.url);
    consumer.run_until_end();
    let away = cluster.leader_of((&topic, 1), 1);
    away.kill();
    send(0, 6..=9);
    send(2, 6..=9);
    let running = consumer.start(&[]);
    database.until("SELECT agent, max(seq) FROM events GROUP BY agent", "(gw-0,9) (gw-1,5) (gw-2,9)");
    running.until("[1] cannot be read yet, perhaps for want of a leader; reading the other partitions");
    away.start();
    send(1, 6..=9);
    send(2, 10..=10);
    database.until("SELECT agent, max(seq) FROM events GROUP BY agent", "(gw-0,9) (gw-1,9) (gw-2,10)");
    running.until("[1] can be read again");
    assert_eq!(database.ask("SELECT count(*), count(DISTINCT (agent, seq)) FROM events"), "(28,28)");
}

/// Old records are read again at each start: reaching their end is no error.
#[test]
fn a_healthy_consumer_logs_no_error() {
    let Some((kafka, postgres)) = kafka_and_postgres("consumer_kafka::a_healthy_consumer_logs_no_error") else {
        return;
    };
    let (topic, database) = (kafka.topic("healthy", 3), postgres.database("healthy"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    for round in 0..3 {
        for partition in 0..3 {
            let event = updated(&format!("gw-{partition}"), round + 1);
            produce_to(&kafka.address, &topic, partition, [wire::to_json(&event)]);
        }
        let (_, log) = consumer.run_until_end();
        assert!(!log.contains("ERROR") && !log.contains("WARN") && !log.contains("librdkafka"), "{log}");
    }
    assert_eq!(database.ask(ROWS_AND_EVENTS), once_each(9));
    let cluster = "SELECT count(DISTINCT kafka_cluster), min(length(kafka_cluster)) FROM kafka_offsets";
    assert_eq!(database.ask(cluster), "(1,22)");
}

#[test]
fn the_database_knows_better_than_kafka_where_to_go_on() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("consumer_kafka::the_database_knows_better_than_kafka_where_to_go_on")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("truth", 1), postgres.database("truth"));
    produce(&kafka.address, &topic, &updates_of_agents(1, 1..=10));
    Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    // A database restored from before the last four.
    let mut client = database.client();
    client.batch_execute("DELETE FROM events WHERE seq > 6; UPDATE kafka_offsets SET next_offset = 6").unwrap();
    Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    assert_eq!(database.ask(ROWS_AND_EVENTS), once_each(10));
}

/// Retention and the reading of known records go by their own clocks: a stream that never pauses starves neither.
#[test]
fn a_steady_stream_starves_no_chore() {
    let Some((kafka, postgres)) = kafka_and_postgres("consumer_kafka::a_steady_stream_starves_no_chore") else {
        return;
    };
    if failpoints::or_skip("consumer_kafka::a_steady_stream_starves_no_chore").is_none() {
        return;
    }
    let (topic, database) = (kafka.topic("steady", 1), postgres.database("steady"));
    produce_raw(&kafka.address, &topic, [("gw".to_owned(), b"no event".to_vec())], None);
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.append("[retention]\ndead_letters = '1d'\n");
    consumer.run_until_end();
    assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(1)");
    database.client().batch_execute("UPDATE dead_letters SET stored_at = now() - interval '2 days'").unwrap();

    let running = consumer.start_at("maintenance-first-s=return(1);anchor-every-s=return(1)", &[]);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let stream = threads.spawn(|| {
            let mut seq = 0;
            while !done.load(Ordering::Relaxed) {
                seq += 1;
                produce(&kafka.address, &topic, &[updated("gw", seq)]);
                std::thread::sleep(Duration::from_millis(100));
            }
            seq
        });
        let chores = "SELECT (SELECT count(payload) FROM dead_letters) AS old,
                             (SELECT bool_and(anchor_offset > 0) FROM kafka_offsets) AS seen";
        database.until(chores, "(0,t)");
        done.store(true, Ordering::Relaxed);
        let sent = stream.join().unwrap();
        database.until(ROWS_AND_EVENTS, &once_each(sent as usize));
    });
    drop(running);
}

#[test]
fn it_ends_in_order_when_asked() {
    let Some((kafka, postgres)) = kafka_and_postgres("consumer_kafka::it_ends_in_order_when_asked") else { return };
    let (topic, database) = (kafka.topic("term", 1), postgres.database("term"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    for (round, signal) in (0..).zip(["TERM", "INT"]) {
        let mut running = consumer.start(&[]);
        produce(&kafka.address, &topic, &updates_of_agents(1, 1 + round * 10..=10 + round * 10));
        database.until(ROWS_AND_EVENTS, &once_each(10 * (round as usize + 1)));
        running.signal(signal);
        assert!(running.wait().success(), "{}", running.log());
        assert!(running.log().contains("stopping on signal"));
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
    let cooperative = Consumer::with("[kafka.properties]\n'partition.assignment.strategy' = 'cooperative-sticky'\n");
    let config = cooperative.config().display().to_string();
    for verb in ["run", "check"] {
        let (code, error) = run(&[verb, "--config", &config]);
        let line =
            format!("{config}:2: kafka.properties.partition.assignment.strategy: `cooperative-sticky` is not for");
        assert!(code == Some(78) && error.contains(&line), "{error}");
    }
    // A missing topic has no end.
    if let Some(kafka) = Kafka::or_skip("consumer_kafka::bad_configuration_ends_with_78_and_says_where") {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("h.db").display());
        let mut running = Consumer::new(&kafka.address, "no-such-topic", &url).start(&["--until-end"]);
        assert_eq!(running.wait().code(), Some(69), "{}", running.log());
    }
}
