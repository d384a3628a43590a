//! A recorded series becomes a topic, and the topic a table: `replay --publish-samples`, on a real Kafka and PostgreSQL.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use highwater::wire::{self, Format};
use serde_json::Value;

use crate::support::agent::{command, until};
use crate::support::consumer::Consumer;
use crate::support::events::produce_raw;
use crate::support::postgres::Postgres;
use crate::support::process::{Spawned, signal, texts_of};
use crate::support::registry::Registry;
use crate::support::services::{Kafka, kafka_and_postgres};

/// A recorded series of an EC2 instance: a row each five minutes.
const SERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ec2_network_in_257a54.csv");
const SERIES_ROWS: u64 = 4_032;

fn replay(kafka: &Kafka, topic: &str, file: &Path, more: &[&str]) -> Command {
    let mut replay = command();
    replay.arg("replay").arg(file).args(["-b", &kafka.address, "--publish-samples", "--format", "json"]).args(more);
    replay.env("HIGHWATER_TOPICS__SAMPLES", topic);
    replay
}

/// Returns the exit code, the summary, and standard error.
fn summed_up(output: &Output) -> (i32, Value, String) {
    let (code, out, err) = texts_of(output);
    (code, serde_json::from_str(&out).unwrap_or_default(), err)
}

fn consumer(kafka: &Kafka, topic: &str, url: &str, registry: Option<&Registry>) -> Consumer {
    let consumer = Consumer::new(&kafka.address, topic, url);
    if let Some(registry) = registry {
        consumer.append(&format!("[kafka.registry]\nurl = '{}'\n", registry.url));
    }
    consumer
}

/// Rows, distinct identities, and what is wrong: dead letters and missing numbers.
const STORED: &str = "SELECT count(*), count(DISTINCT (agent, epoch, seq)), (SELECT count(*) FROM dead_letters), \
                      (SELECT count(*) FROM (SELECT first_seq - 1 - coalesce(lag(last_seq) OVER (PARTITION BY agent, epoch \
                      ORDER BY first_seq), 0) AS missing FROM agent_sequences) AS gaps WHERE missing > 0) FROM samples";

#[test]
fn a_recorded_series_becomes_a_topic_and_a_table_in_every_format() {
    let test = "samples::a_recorded_series_becomes_a_topic_and_a_table_in_every_format";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    let mut tables = Vec::new();
    for (format, registered) in [
        (Format::Json, false),
        (Format::Avro, false),
        (Format::Avro, true),
        (Format::Protobuf, false),
        (Format::Protobuf, true),
    ] {
        let (topic, database) = (kafka.topic("series", 2), postgres.database("series"));
        let registry = registered.then_some(&registry);
        let mut replay = replay(&kafka, &topic, Path::new(SERIES), &["--bytes-per", "5min", "--agent", "ec2"]);
        replay.env("HIGHWATER_KAFKA__FORMAT", format.as_str());
        if let Some(registry) = registry {
            replay.args(["-s", &registry.url]);
        }
        let (code, summary, err) = summed_up(&replay.arg("-q").output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{format}: no progress but on a terminal");
        assert_eq!(summary["samples_delivered"], SERIES_ROWS, "{format}: {summary}");
        assert_eq!((&summary["rows"], &summary["delivered"]), (&SERIES_ROWS.into(), &Value::Null));
        let keys = kafka.read(&topic, "%k\n");
        assert!(keys.len() as u64 == SERIES_ROWS && keys.iter().all(|key| key == "ec2"), "{format}");
        consumer(&kafka, &topic, &database.url, registry).run_until_end();
        let what_is_wrong = database.ask("SELECT error FROM dead_letters LIMIT 1");
        assert_eq!(database.ask(STORED), format!("({SERIES_ROWS},{SERIES_ROWS},0,0)"), "{format} {what_is_wrong}");
        assert_eq!(database.ask("SELECT count(*) FROM events"), "(0)");
        tables.push(database.ask(
            "SELECT agent, interface, seq, observed_at, duration_ms, rx_bytes, tx_bytes, rx_bps, reason FROM samples",
        ));
    }
    // The file's values, whichever way it took.
    let first = "(ec2,replay,1,\"2014-04-10 00:04:00+00\",300000,251643,,6710,)";
    assert!(tables[0].contains(first), "{}", &tables[0][..200]);
    assert!(tables.iter().all(|table| *table == tables[0]));
}

/// Rows one second apart, some of them bad, so that lines and numbers differ.
fn series(rows: u64) -> String {
    let mut text = "timestamp,value,sent\n".to_owned();
    for row in 1..=rows {
        match row % 97 {
            13 => text.push_str("soon,1,1\n"),
            _ => writeln!(text, "{row},{},{}", row % 11, row % 7).unwrap(),
        }
    }
    text
}

fn good(rows: u64) -> u64 {
    (1..=rows).filter(|row| row % 97 != 13).count() as u64
}

/// Reads from a pipe that stays open, until it is terminated.
fn start_on_pipe(mut replay: Command, text: &str) -> Spawned {
    let mut child = Spawned::start(replay.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    child
}

#[test]
fn a_replay_that_was_interrupted_or_sent_twice_doubles_no_sample() {
    let test = "samples::a_replay_that_was_interrupted_or_sent_twice_doubles_no_sample";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (file, whole) = (directory.path().join("series.csv"), series(3_000));
    std::fs::write(&file, &whole).unwrap();
    let (topic, database) = (kafka.topic("cut", 3), postgres.database("cut"));
    let tx = ["--tx", "sent", "--agent", "gw"];
    // The first run has had a part of the file when it is told to end; the line that it is at is not whole.
    let part = &whole[..whole.len() / 2 - 3];
    let mut first = start_on_pipe(replay(&kafka, &topic, Path::new("-"), &tx), part);
    until("much of it is in Kafka", || (kafka.read(&topic, "%o\n").len() > 1_000).then_some(()));
    signal(first.id(), "INT");
    // The program waits for more, and ends all the same.
    until("it ends", || first.try_wait().unwrap());
    let (code, _, err) = summed_up(&first.wait_with_output().unwrap());
    assert_eq!(code, 1, "{err}");
    let go_on = err.split("interrupted; resume with").nth(1).expect("it says how").trim();
    let go_on: Vec<&str> = go_on.split(' ').collect();
    assert_eq!((go_on[0], go_on[2]), ("--epoch", "--from-line"), "{err}");
    let mut store = consumer(&kafka, &topic, &database.url, None);
    store.run_until_end();
    // That command goes on.
    let (code, summary, err) = summed_up(&replay(&kafka, &topic, &file, &[&tx[..], &go_on].concat()).output().unwrap());
    assert_eq!(code, 0, "{err}");
    let in_kafka = kafka.read(&topic, "%o\n").len() as u64;
    assert_eq!(in_kafka, good(3_000), "nothing was sent twice: {summary}");
    store.run_until_end();
    let all = format!("({0},{0},0,0)", good(3_000));
    assert_eq!(database.ask(STORED), all);
    let sums = "SELECT sum(rx_bytes), sum(tx_bytes), min(observed_at), max(observed_at) FROM samples";
    let rx: u64 = (1..=3_000).filter(|row| row % 97 != 13).map(|row| row % 11).sum();
    let tx_bytes: u64 = (1..=3_000).filter(|row| row % 97 != 13).map(|row| row % 7).sum();
    let times = "\"1970-01-01 00:00:01+00\",\"1970-01-01 00:50:00+00\"";
    assert_eq!(database.ask(sums), format!("({rx},{tx_bytes},{times})"));
    // Once more from the first line, in the same epoch: it all goes to Kafka again, and nothing into the table.
    assert_eq!(summary["epoch"], go_on[1]);
    let again = ["--epoch", go_on[1], "--from-line", "2"];
    let (code, summary, err) = summed_up(&replay(&kafka, &topic, &file, &[&tx[..], &again].concat()).output().unwrap());
    assert_eq!((code, &summary["samples_delivered"]), (0, &good(3_000).into()), "{err}");
    store.run_until_end();
    assert_eq!(database.ask(STORED), all);
    assert_eq!(kafka.read(&topic, "%o\n").len() as u64, 2 * good(3_000));
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(0)");
}

/// A paused broker keeps the last messages from being delivered: the interrupted run names the first such line.
#[test]
fn what_kafka_has_not_taken_when_a_replay_is_interrupted_is_sent_when_it_goes_on() {
    let test = "samples::what_kafka_has_not_taken_when_a_replay_is_interrupted_is_sent_when_it_goes_on";
    let (Some((kafka, _home)), Some(postgres)) = (Kafka::start_own(test), Postgres::or_skip(test)) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (file, whole) = (directory.path().join("series.csv"), series(2_000));
    std::fs::write(&file, &whole).unwrap();
    let (topic, database) = (kafka.topic("still", 1), postgres.database("still"));
    let (first_half, rest) = whole.split_at(whole.match_indices('\n').nth(1_000).unwrap().0 + 1);
    let limit = ["--limit", "80 bit/s", "--publish", "-t", &topic, "--agent", "gw"];
    let mut first = start_on_pipe(replay(&kafka, &topic, Path::new("-"), &limit), first_half);
    // Events go to the same topic, too.
    until("the first half is in Kafka", || (kafka.read(&topic, "%o\n").len() as u64 > good(1_000)).then_some(()));
    kafka.signal("STOP");
    first.stdin.as_mut().unwrap().write_all(rest.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    signal(first.id(), "INT");
    until("it ends", || first.try_wait().unwrap());
    kafka.signal("CONT");
    let (code, summary, err) = summed_up(&first.wait_with_output().unwrap());
    assert_eq!(code, 1, "{err}");
    assert!(summary["samples_failed"].as_u64() > Some(0) && summary["failed"].as_u64() > Some(0), "{summary}");
    let (_, go_on) = err.split_once("; resume with ").unwrap_or_else(|| panic!("it says how: {err}"));
    let go_on: Vec<&str> = go_on.trim().split(' ').collect();
    let line: u64 = go_on[3].parse().unwrap();
    assert!(line > 900 && line < 2_000, "the first that is not delivered: {line}");
    let (code, _, err) = summed_up(&replay(&kafka, &topic, &file, &[&limit[..], &go_on].concat()).output().unwrap());
    assert_eq!(code, 0, "{err}");
    consumer(&kafka, &topic, &database.url, None).run_until_end();
    assert_eq!(database.ask(STORED), format!("({0},{0},0,0)", good(2_000)));
    let events = "SELECT count(*) = max(seq), count(DISTINCT seq) = max(seq), max(seq) > 100 FROM events";
    assert_eq!(database.ask(events), "(t,t,t)");
}

#[test]
fn one_consumer_stores_events_and_samples() {
    let test = "samples::one_consumer_stores_events_and_samples";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}", directory.path().join("h.db").display());
    for (apart, url) in [(true, postgres.database("both").url), (false, postgres.database("one").url), (true, sqlite)] {
        let events = kafka.topic("events", 1);
        let samples = if apart { kafka.topic("samples", 1) } else { events.clone() };
        let limit = ["--bytes-per", "5min", "--limit", "5 MB/5min", "--publish", "-t", &events];
        let (code, summary, err) = summed_up(&replay(&kafka, &samples, Path::new(SERIES), &limit).output().unwrap());
        assert_eq!(code, 0, "{err}");
        assert_eq!((&summary["samples_failed"], &summary["failed"]), (&0.into(), &0.into()));
        assert_eq!((&summary["samples"], &summary["delivered"]), (&SERIES_ROWS.into(), &9.into()), "{summary}");
        let mut both = Consumer::new(&kafka.address, &events, &url);
        both.append(&format!("[topics]\nsamples = '{samples}'\n"));
        let (printed, _) = both.run_until_end();
        let kinds = |kind: &str| printed.matches(&format!("\"kind\":\"{kind}\"")).count() as u64;
        assert_eq!((kinds("sample"), kinds("breach_raised"), kinds("breach_cleared")), (SERIES_ROWS, 3, 3));
        let sql = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM samples), \
                   (SELECT count(*) FROM agent_sequences), (SELECT count(*) FROM dead_letters)";
        let counts: Vec<i64> = if let Some(path) = url.strip_prefix("sqlite:") {
            let look = rusqlite::Connection::open(path).unwrap();
            look.query_row(sql, [], |row| (0..4).map(|at| row.get(at)).collect()).unwrap()
        } else {
            let mut look = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            let row = look.query_one(sql, &[]).unwrap();
            (0..4).map(|at| row.get(at)).collect()
        };
        assert_eq!(counts, [9, SERIES_ROWS as i64, 2, 0], "each counted in its own epoch, without holes");
    }
}

#[test]
fn a_consumer_that_is_killed_again_and_again_stores_each_sample_once() {
    let test = "samples::a_consumer_that_is_killed_again_and_again_stores_each_sample_once";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("long.csv");
    std::fs::write(&file, series(40_000)).unwrap();
    let (topic, database) = (kafka.topic("killed", 2), postgres.database("killed"));
    let mut consumer = consumer(&kafka, &topic, &database.url, None);
    let mut replay = replay(&kafka, &topic, &file, &["--tx", "sent"]);
    let mut replaying = Spawned::start(replay.stdout(Stdio::null()).stderr(Stdio::null()));
    for _ in 0..6 {
        let running = consumer.start(&[]);
        std::thread::sleep(Duration::from_millis(fastrand::u64(300..2_000)));
        running.kill();
    }
    assert!(replaying.wait().unwrap().success());
    consumer.run_until_end();
    assert_eq!(database.ask(STORED), format!("({0},{0},0,0)", good(40_000)));
    let rx: u64 = (1..=40_000).filter(|row| row % 97 != 13).map(|row| row % 11).sum();
    assert_eq!(database.ask("SELECT sum(rx_bytes) FROM samples"), format!("({rx})"));
}

#[test]
fn waits_until_a_group_has_stored_events_and_samples() {
    let test = "samples::waits_until_a_group_has_stored_events_and_samples";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (events, samples, database) = (kafka.topic("we", 2), kafka.topic("ws", 2), postgres.database("waited"));
    let mut both = Consumer::new(&kafka.address, &events, &database.url);
    both.append(&format!("[topics]\nsamples = '{samples}'\n"));
    let _running = both.start(&["--samples"]);
    let arguments =
        ["--bytes-per", "5min", "--limit", "5 MB/5min", "--publish", "-t", &events, "--wait-stored", &events];
    let (code, _, err) = summed_up(&replay(&kafka, &samples, Path::new(SERIES), &arguments).output().unwrap());
    assert!(code == 0 && err.contains("has stored all of them"), "{err}");
    let counts = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM samples)";
    assert_eq!(database.ask(counts), format!("(9,{SERIES_ROWS})"));
}

#[test]
fn a_topic_that_is_not_there_is_named_with_what_makes_it() {
    let test = "samples::a_topic_that_is_not_there_is_named_with_what_makes_it";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let (code, _, err) = summed_up(&replay(&kafka, "no.such.samples", Path::new(SERIES), &[]).output().unwrap());
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&kafka.missing("no.such.samples")), "{err}");
}

/// Samples of another producer may lack a field, or have one that is unknown or out of range.
#[test]
fn samples_that_are_none_are_dead_letters_that_say_why() {
    let test = "samples::samples_that_are_none_are_dead_letters_that_say_why";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("strange", 1), postgres.database("strange"));
    let sample = |more: &str, seq: u64| {
        format!(
            "{{\"schema\":1,\"agent\":\"a\",\"epoch\":\"00000000000000ff\",\"seq\":{seq},\"kind\":\"sample\",\
             \"observed_at\":\"2026-11-20T12:00:00Z\"{more}}}"
        )
    };
    let messages = [
        sample(",\"interface\":\"eth0\"", 1),
        sample("", 2),
        sample(",\"interface\":\"eth0\",\"rx_bytes\":9223372036854775808", 3),
        sample(",\"interface\":\"eth0\",\"rx_bps\":7,\"mood\":\"good\"", 4),
    ];
    assert!(wire::from_json(messages[0].as_bytes()).is_ok());
    produce_raw(&kafka.address, &topic, messages.map(|text| ("a".to_owned(), text.into_bytes())), None);
    consumer(&kafka, &topic, &database.url, None).run_until_end();
    assert_eq!(database.ask("SELECT seq, rx_bps FROM samples"), "(1,) (4,7)");
    let letters = database.ask("SELECT error FROM dead_letters");
    assert!(
        letters.contains("field `interface`: is missing")
            && letters.contains("field `rx_bytes`: 9223372036854775808 is over")
    );
}
