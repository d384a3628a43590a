//! `tail` and `lag` between a real Kafka and a store, as their users run them.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use highwater::wire;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::json;

use crate::consumer_commands::{TEXT_SETTINGS, fields};
use crate::support::agent;
use crate::support::consumer::{Consumer, command};
use crate::support::events::{
    Transaction, event, produce, produce_raw, produce_to, started, tombstone, updated, updates,
};
use crate::support::postgres::Postgres;
use crate::support::process::{Spawned, output_of, texts_of, until};
use crate::support::services::{Kafka, kafka_and_postgres};

fn command_on(kafka: &Kafka, topic: &str, arguments: &[&str]) -> Command {
    let mut command = command();
    command.args(arguments).args(["--brokers", &kafka.address, "--topic", topic, "--group", topic]);
    command
}

fn rows(mut command: Command) -> (i32, Vec<serde_json::Value>) {
    let (code, out, err) = output_of(command.args(["--format", "json"]));
    let row = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line} {err}"));
    (code, out.lines().map(row).collect())
}

/// Waits at the end, and does not begin with the oldest message.
#[test]
fn tail_from_an_offset_that_is_not_there_yet_shows_what_comes() {
    let test = "consumer_topic::tail_from_an_offset_that_is_not_there_yet_shows_what_comes";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("ahead", 1);
    produce(&kafka.address, &topic, &updates(1..=3));
    let mut tail = command_on(&kafka, &topic, &["tail", "--from", "99", "-n", "1", "--format", "json"]);
    let mut tail = Spawned::start(tail.stdout(Stdio::piped()));
    let mut seq = 3;
    until("it has shown one", || {
        seq += 1;
        produce(&kafka.address, &topic, &[updated("gw", seq)]);
        tail.try_wait().unwrap()
    });
    let shown = String::from_utf8(tail.wait_with_output().unwrap().stdout).unwrap();
    let row: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(row["kafka_offset"].as_u64() >= Some(3), "{row}");
}

#[test]
fn tail_shows_what_is_there_from_where_it_is_asked() {
    let Some(kafka) = Kafka::or_skip("consumer_topic::tail_shows_what_is_there_from_where_it_is_asked") else { return };
    let topic = kafka.topic("tail", 1);
    produce(&kafka.address, &topic, &updates(1..=10));
    produce_raw(&kafka.address, &topic, [("k".to_owned(), b"garbage \x1b[31m".to_vec())], None);
    tombstone(&kafka.address, &topic);
    produce(&kafka.address, &topic, &[event("gw", 11, started())]);
    let tail = |arguments: &[&str]| command_on(&kafka, &topic, &[&["tail", "--until-end"], arguments].concat());
    let offsets = |arguments: &[&str]| fields(&rows(tail(arguments)).1, &["kafka_offset"]).join(" ");
    assert_eq!(offsets(&["--from", "earliest"]), "0 1 2 3 4 5 6 7 8 9 10 11 12");
    assert_eq!(offsets(&["--from", "8"]), "8 9 10 11 12");
    assert_eq!(offsets(&["--from", "-2"]), "11 12");
    assert_eq!(offsets(&["--from", "1h", "-n", "2"]), "0 1");
    assert_eq!(offsets(&["--from", "2099-01-01"]), "");
    assert_eq!(offsets(&[]), "", "latest has nothing before its end");
    let (code, all) = rows(tail(&["--from", "9"]));
    assert_eq!(code, 0);
    assert_eq!(all[0]["event"]["seq"], 10);
    assert_eq!((&all[0]["key"], &all[0]["error"]), (&"gw".into(), &serde_json::Value::Null));
    assert!(all[1]["error"].as_str().is_some_and(|error| !error.is_empty()) && all[1]["event"].is_null(), "{}", all[1]);
    assert!(all[2]["payload"].is_null() && !all[2]["error"].is_null(), "{}", all[2]);
    // For people: a message that is no event is shown as such, and sends no control character to the terminal.
    let (code, text, err) = output_of(&mut tail(&["--from", "9"]));
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(&format!("{topic} 0 9 20")), "{text}");
    assert!(
        lines[0].contains(" gw breach_updated 10: warning eth0 rx 90.0 Mbit/s, limit wan-down 80.0 Mbit/s"),
        "{text}"
    );
    assert!(
        lines[1].contains("no event") && lines[1].contains("garbage \\u{1b}[31m") && !text.contains('\x1b'),
        "{text}"
    );
    assert!(lines[2].contains("no event") && lines[3].contains("agent_started"), "{text}");
    // Its own time, or the record's.
    let (observed, kafka_time) = (&all[0]["observed_at"], &all[0]["kafka_timestamp"]);
    assert_ne!(observed, kafka_time);
    for (more, time) in [(&[][..], observed), (&["--kafka-time"], kafka_time)] {
        let (_, text, _) = output_of(&mut tail(&[&["--from", "9", "-n", "1"], more].concat()));
        let ms = &time.as_str().unwrap()[..23];
        assert!(text.starts_with(&format!("{topic} 0 9 {ms}Z gw breach_updated")), "{time}: {text}");
    }
    let raw = tail(&["--from", "9", "-n", "1", "--raw"]).output().unwrap().stdout;
    assert_eq!(raw, [wire::to_json(&updated("gw", 10)), b"\n".to_vec()].concat());
    // No group was made by it.
    let (_, lag) = rows(command_on(&kafka, &topic, &["lag", "--wait", "--timeout", "0s"]));
    assert!(lag.is_empty(), "there is no store: {lag:?}");
    for (arguments, code, says) in [
        (&["--partition", "7"][..], 69, "there is no partition 7: they are 0 to 0"),
        (&["--topic", "no-such-topic"], 69, "no-such-topic"),
        (&["--brokers", "127.0.0.1:1"], 69, "127.0.0.1:1"),
        (&["--from", "soon"], 2, "earliest, latest"),
    ] {
        let mut command = command();
        command.args(["tail", "--until-end"]);
        if !arguments.contains(&"--brokers") {
            command.args(["--brokers", &kafka.address]);
        }
        if !arguments.contains(&"--topic") {
            command.args(["--topic", &topic]);
        }
        let (got, _, err) = output_of(command.args(arguments));
        assert!(got == code && err.contains(says), "{arguments:?}: {got} {err}");
    }
}

#[test]
fn tail_goes_on_and_ends_when_its_reader_has_gone() {
    let Some(kafka) = Kafka::or_skip("consumer_topic::tail_goes_on_and_ends_when_its_reader_has_gone") else { return };
    let topic = kafka.topic("follow", 2);
    produce(&kafka.address, &topic, &updates(1..=3));
    let mut tail = command_on(&kafka, &topic, &["tail", "--from", "earliest"]);
    let mut child = Spawned::start(tail.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut read = |count: usize| {
        let mut line = String::new();
        for _ in 0..count {
            lines.read_line(&mut line).unwrap();
        }
        line
    };
    assert!(read(3).contains("breach_updated 3:"));
    produce(&kafka.address, &topic, &updates(4..=5));
    assert!(read(2).contains("breach_updated 5:"));
    drop(lines);
    produce(&kafka.address, &topic, &updates(6..=20));
    let (code, _, err) = texts_of(&child.wait_with_output().unwrap());
    assert_eq!((code, err), (0, format!("note: following {topic} at {}\n", kafka.address)));
}

#[test]
fn lag_is_what_is_not_stored_and_is_waited_for() {
    let Some(kafka) = Kafka::or_skip("consumer_topic::lag_is_what_is_not_stored_and_is_waited_for") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut urls = vec![format!("sqlite:{}", directory.path().join("h.db").display())];
    if let Some(postgres) = Postgres::or_skip("consumer_topic::lag_is_what_is_not_stored_and_is_waited_for") {
        urls.push(postgres.database("lag").url);
    }
    for url in urls {
        let topic = kafka.topic("lag", 1);
        let lag = |arguments: &[&str]| {
            let mut command = command_on(&kafka, &topic, &[&["lag"], arguments].concat());
            command.env("HIGHWATER_STORE__URL", &url);
            command
        };
        let (code, _, err) = output_of(&mut lag(&[]));
        assert_eq!(code, 69, "nothing was ever stored: {err}");
        produce(&kafka.address, &topic, &updates(1..=30));
        let mut consumer = Consumer::new(&kafka.address, &topic, &url);
        consumer.run_until_end();
        let all = |rows: &[serde_json::Value]| {
            fields(rows, &["kafka_partition", "begin_offset", "end_offset", "committed_offset", "next_offset", "lag"])
        };
        let (code, now) = rows(lag(&[]));
        assert_eq!((code, all(&now)), (0, vec!["0 0 30 30 30 0".to_owned()]));
        assert!(now[0]["updated_at"].as_str().unwrap().ends_with('Z'), "{}", now[0]);
        produce(&kafka.address, &topic, &updates(31..=50));
        assert_eq!(all(&rows(lag(&[])).1), ["0 0 50 30 30 20"]);
        let (code, _, err) = output_of(&mut lag(&["--wait", "--timeout", "300ms"]));
        assert!(code == 1 && err.contains("not stored after 0.3 s: 20 offsets"), "{err}");
        // A message that arrives after the call is not waited for.
        let running = consumer.start(&[]);
        let (code, _, err) = output_of(&mut lag(&["--wait", "--timeout", "60s"]));
        assert_eq!(code, 0, "{err}");
        running.kill();
    }
}

#[test]
fn no_setting_of_a_server_changes_what_lag_prints() {
    let test = "consumer_topic::no_setting_of_a_server_changes_what_lag_prints";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("lag-settings", 1), postgres.database("lag_settings"));
    produce(&kafka.address, &topic, &updates(1..=5));
    Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    let printed = || {
        ["table", "json", "csv"].map(|format| {
            let mut command = command_on(&kafka, &topic, &["lag", "--format", format]);
            output_of(command.env("HIGHWATER_STORE__URL", &database.url))
        })
    };
    let expected = printed();
    assert!(expected.iter().all(|(code, out, _)| *code == 0 && out.contains(&topic)), "{expected:?}");
    for setting in TEXT_SETTINGS {
        database.alter(&format!("SET {setting}"));
        assert_eq!(printed(), expected, "{setting}");
        database.alter("RESET ALL");
    }
}

/// Offsets that the group committed to Kafka belong to another database: `start` decides.
#[test]
fn a_new_database_with_an_old_group_has_all_of_the_topic() {
    let test = "consumer_topic::a_new_database_with_an_old_group_has_all_of_the_topic";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("old-group", 1);
    produce(&kafka.address, &topic, &updates(1..=10));
    let directory = tempfile::tempdir().unwrap();
    for database in ["first", "second", "second"] {
        let file = directory.path().join(format!("{database}.db"));
        Consumer::new(&kafka.address, &topic, &format!("sqlite:{}", file.display())).run_until_end();
        let connection = rusqlite::Connection::open(file).unwrap();
        let count: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 10, "{database}");
    }
}

/// Neither is missing: the one was gone before, the other is not wanted.
#[test]
fn what_a_start_leaves_out_is_written_down() {
    let test = "consumer_topic::what_a_start_leaves_out_is_written_down";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let topic = kafka.topic("start", 1);
    produce(&kafka.address, &topic, &updates(1..=20));
    kafka.delete_records(&topic, 0, 5);
    let gaps = "SELECT first_offset, last_offset, cause FROM kafka_gaps";
    let database = postgres.database("earliest");
    Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    assert_eq!(database.ask(gaps), "(0,4,expired_before_start)");
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(15)");
    let database = postgres.database("latest");
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.set("[kafka]", "start = 'latest'");
    consumer.run_until_end();
    assert_eq!(database.ask(gaps), "(0,4,expired_before_start) (5,19,skipped_at_start)");
    produce(&kafka.address, &topic, &updates(21..=25));
    consumer.run_until_end();
    assert_eq!(database.ask("SELECT min(seq), max(seq), count(*) FROM events"), "(21,25,5)");
    assert_eq!(database.ask("SELECT count(*) FROM kafka_gaps"), "(2)");
    // Events before the start are nobody's loss, now and later; those missing of a series that began here are.
    database.client().batch_execute("UPDATE agent_sequences SET first_stored_at = now() - interval '1 hour'").unwrap();
    database.client().batch_execute("UPDATE kafka_gaps SET noticed_at = now() - interval '2 hours'").unwrap();
    assert_eq!(database.ask("SELECT count(*) FROM missing_events"), "(0)");
    let mut later = updated("gw", 3);
    later.id.epoch = highwater::message::Epoch(7);
    produce(&kafka.address, &topic, &[later]);
    consumer.run_until_end();
    let old =
        "UPDATE agent_sequences SET first_stored_at = now() - interval '30 minutes' WHERE epoch = '0000000000000007'";
    database.client().batch_execute(old).unwrap();
    assert_eq!(database.ask("SELECT first_seq, last_seq, cause FROM missing_events"), "(1,2,undeclared)");
}

/// A start at the end leaves out what is in partitions that are there by then, and nothing of one that is added.
#[test]
fn a_partition_that_is_added_is_read_from_its_beginning() {
    let test = "consumer_topic::a_partition_that_is_added_is_read_from_its_beginning";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("added", 2), postgres.database("added"));
    produce(&kafka.address, &topic, &updates(1..=20));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.set("[kafka]", "start = 'latest'");
    consumer.run_until_end();
    assert_eq!(database.ask("SELECT count(*) FROM kafka_offsets"), "(2)", "also of a partition that was empty");
    kafka.add_partitions(&topic, 3);
    let payloads = updates(21..=25).iter().map(wire::to_json).collect::<Vec<_>>();
    produce_to(&kafka.address, &topic, 2, payloads);
    let (_, log) = consumer.run_until_end();
    assert_eq!(database.ask("SELECT min(seq), max(seq), count(*) FROM events"), "(21,25,5)", "{log}");
    assert_eq!(database.ask("SELECT count(*) FROM kafka_gaps WHERE kafka_partition = 2"), "(0)");
}

/// No producer in Rust can send such a name; others can.
#[test]
fn the_name_of_a_header_may_be_any_bytes() {
    let test = "consumer_topic::the_name_of_a_header_may_be_any_bytes";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("header", 1), postgres.database("header"));
    produce(&kafka.address, &topic, &updates(1..=1));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("payload");
    fs::write(&file, wire::to_json(&updated("gw", 2))).unwrap();
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", &kafka.address, "-t", &topic, "-H", "good=1", "-H"]);
    kcat.arg(OsStr::from_bytes(b"\xff\xfe=1")).arg(&file);
    assert!(kcat.status().unwrap().success());
    produce(&kafka.address, &topic, &updates(3..=3));
    let (_, log) = Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    assert_eq!(database.ask("SELECT seq FROM events"), "(1) (2) (3)", "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let (code, seen) = rows(command_on(&kafka, &topic, &["tail", "--from", "earliest", "--until-end"]));
    assert_eq!((code, seen.len()), (0, 3));
}

/// `dead-letters list` has what the producer sent: repeated headers in their order, one without a value, and the record's own time.
#[test]
fn a_dead_letter_keeps_its_headers_and_the_time_of_its_record() {
    let test = "consumer_topic::a_dead_letter_keeps_its_headers_and_the_time_of_its_record";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut urls = vec![format!("sqlite:{}", directory.path().join("h.db").display())];
    urls.extend(Postgres::or_skip(test).map(|postgres| postgres.database("letter").url));
    let topic = kafka.topic("letter", 1);
    let sent_at = DateTime::from_timestamp_millis(Utc::now().timestamp_millis() - 3_600_000).unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "ce_source", value: Some("/highwater/gw-042") })
        .insert(Header { key: "trace", value: None::<&str> })
        .insert(Header { key: "trace", value: Some("=1") });
    let record = BaseRecord::to(&topic).key("k").payload("garbage").headers(headers);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.address).create().unwrap();
    producer.send(record.timestamp(sent_at.timestamp_millis())).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    for url in urls {
        Consumer::new(&kafka.address, &topic, &url).run_until_end();
        let mut list = command();
        list.args(["dead-letters", "list"]).env("HIGHWATER_STORE__URL", &url);
        let (code, letters) = rows(list);
        assert_eq!((code, fields(&letters, &["agent", "key", "payload"])), (0, vec!["gw-042 k garbage".to_owned()]));
        assert_eq!(letters[0]["kafka_timestamp"], sent_at.to_rfc3339_opts(SecondsFormat::Micros, true));
        let header = |name: &str, value: Option<&str>| json!({"name": name, "value": value});
        let sent = [header("ce_source", Some("/highwater/gw-042")), header("trace", None), header("trace", Some("=1"))];
        assert_eq!(letters[0]["headers"], json!(sent));
    }
}

/// A transaction marker is at the offset of the last stored record.
#[test]
fn a_topic_made_anew_behind_a_marker_loses_nothing() {
    let test = "consumer_topic::a_topic_made_anew_behind_a_marker_loses_nothing";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("marker", 1), postgres.database("marker"));
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    // Two runs: the last record is at 9, an older one is known at 4.
    for (first, last) in [(1, 5), (6, 10)] {
        produce(&kafka.address, &topic, &updates(first..=last));
        consumer.run_until_end();
    }
    kafka.recreate(&topic, 1);
    let keyed = |agent: &str, first: u64, last: u64| -> Vec<(String, Vec<u8>)> {
        (first..=last).map(|seq| (agent.to_owned(), wire::to_json(&updated(agent, seq)))).collect()
    };
    // Offsets 0 to 3, a marker at 4; 5 to 8, a marker at 9; then more.
    for (id, (first, last)) in [("one", (1, 4)), ("two", (5, 8))] {
        let id = format!("{topic}-{id}");
        produce_raw(&kafka.address, &topic, keyed("new", first, last), Some(Transaction { id: &id, commits: true }));
    }
    produce_raw(&kafka.address, &topic, keyed("new", 9, 12), None);
    assert_eq!(kafka.end_offset(&topic), 14);
    let (_, log) = consumer.run_until_end();
    let stored = "SELECT agent, count(*), max(seq) FROM events GROUP BY 1";
    assert_eq!(database.ask(stored), "(gw,10,10) (new,12,12)", "{log}");
    assert_eq!(log.matches("was recreated").count(), 1, "{log}");
    // The topic is the same from now on.
    let (_, log) = consumer.run_until_end();
    assert!(!log.contains("was recreated"), "{log}");
}

#[test]
fn a_topic_that_is_missing_is_made_by_the_command_that_is_named() {
    let test = "consumer_topic::a_topic_that_is_missing_is_made_by_the_command_that_is_named";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = format!("missing-{:08x}", fastrand::u32(..));
    let (code, _, err) = output_of(&mut command_on(&kafka, &topic, &["tail", "--until-end"]));
    assert!(code == 69 && err.contains(&kafka.missing(&topic)), "{err}");
    let named = err.split('`').nth(1).unwrap();
    let (program, arguments) = named.split_once(' ').unwrap();
    assert_eq!(program, "highwater-agent");
    let made = agent::command().args(arguments.split(' ')).args(["--format", "json"]).output().unwrap();
    let (code, out, err) = texts_of(&made);
    assert_eq!((code, out.lines().count()), (0, 1), "this topic and no other: {out} {err}");
    assert!(out.contains(&topic) && out.contains("created"), "{out}");
    let (code, _, err) = output_of(&mut command_on(&kafka, &topic, &["tail", "--until-end"]));
    assert_eq!(code, 0, "{err}");
}
