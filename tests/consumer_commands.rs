//! Commands that read the store, as their users run them, on both databases.

use std::io::{BufRead as _, BufReader};
use std::process::Output;

use chrono::Utc;
use highwater::consumer::batch::{Batch, PackedHeaders, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{PartitionWidth, Store, StoreOptions, StoreUrl};
use highwater::message::Event;
use highwater::wire;
use serde_json::{Value, json};

use crate::support::consumer::{Database, Postgres, command, insert_checkpoint};
use crate::support::events::{event, loss, started, updated};
use crate::support::netns::skip;
use crate::support::pooler::Pooler;
use crate::support::process::said;

pub(crate) const TOPIC: &str = "events";

pub(crate) struct Stage {
    pub(crate) url: String,
    pub(crate) store: Box<dyn Store + Send>,
    next: i64,
    home: Home,
}

enum Home {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

fn topic() -> TopicId {
    TopicId { cluster: String::new(), name: TOPIC.into() }
}

fn options() -> StoreOptions {
    StoreOptions { instance: "stage".into(), ..StoreOptions::default() }
}

impl Stage {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("h.db").display());
        Self::begun(url, Home::Sqlite(directory))
    }

    pub(crate) fn postgres(test: &str) -> Option<Self> {
        let database = Postgres::or_skip(test)?.database("commands");
        Some(Self::begun(database.url.clone(), Home::Postgres(database)))
    }

    fn begun(url: String, home: Home) -> Self {
        let mut store = StoreUrl::parse(&url, None, None).unwrap().open(&options());
        insert_checkpoint(&mut *store, &topic(), 0, &Checkpoint::default(), None).unwrap();
        Self { url, store, next: 0, home }
    }

    pub(crate) fn store(&mut self, payloads: &[Vec<u8>]) {
        let record = |(offset, payload): (i64, &Vec<u8>)| Record::new(offset, Some(7), Some(b"gw"), Some(payload));
        self.store_records((self.next..).zip(payloads).map(record).collect());
    }

    fn store_records(&mut self, records: Vec<Record>) {
        let mut batch = Batch::new(&topic());
        let from = self.next;
        self.next += records.len() as i64;
        for record in records {
            batch.push(0, record, || (0, from));
        }
        self.store.apply(&batch, Utc::now()).unwrap();
    }

    pub(crate) fn store_events(&mut self, events: &[Event]) {
        self.store(&events.iter().map(wire::to_json).collect::<Vec<_>>());
    }

    /// Stores dead letters as an older version, or a stricter database, would have.
    pub(crate) fn put_aside(&self, letters: &[(i64, Vec<u8>)]) {
        let sql = "INSERT INTO dead_letters (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset, payload,
                                             bytes, error, stored_at)
                   VALUES ('', 'old', 3, 0, $1, $2, $3, 'unknown format', '2026-11-20T12:00:00.000000Z')";
        match &self.home {
            Home::Postgres(database) => {
                let mut client = database.client();
                for (offset, payload) in letters {
                    client.execute(sql, &[offset, payload, &(payload.len() as i64)]).unwrap();
                }
            }
            Home::Sqlite(directory) => {
                let connection = rusqlite::Connection::open(directory.path().join("h.db")).unwrap();
                for (offset, payload) in letters {
                    connection.execute(sql, rusqlite::params![offset, payload, payload.len() as i64]).unwrap();
                }
            }
        }
    }

    pub(crate) fn numbers<const N: usize>(&self, sql: &str) -> [i64; N] {
        match &self.home {
            Home::Postgres(database) => {
                let row = database.client().query_one(sql, &[]).unwrap();
                std::array::from_fn(|at| row.get(at))
            }
            Home::Sqlite(directory) => {
                let connection = rusqlite::Connection::open(directory.path().join("h.db")).unwrap();
                connection.query_row(sql, [], |row| Ok(std::array::from_fn(|at| row.get(at).unwrap()))).unwrap()
            }
        }
    }

    pub(crate) fn run(&self, sql: &str) {
        match &self.home {
            Home::Postgres(database) => database.client().batch_execute(sql).unwrap(),
            Home::Sqlite(directory) => {
                rusqlite::Connection::open(directory.path().join("h.db")).unwrap().execute_batch(sql).unwrap();
            }
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        command().args(arguments).env("HIGHWATER_STORE__URL", &self.url).output().unwrap()
    }

    /// Returns the exit code, standard output and standard error.
    pub(crate) fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        said(&self.command(arguments))
    }

    /// Returns the exit code, and the rows printed as JSON.
    pub(crate) fn rows(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let (code, out, err) = self.said(&[arguments, &["--format", "json"]].concat());
        let rows = out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line} {err}")));
        (code, rows.collect())
    }
}

pub(crate) fn fields(rows: &[Value], names: &[&str]) -> Vec<String> {
    let field = |row: &Value, name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    rows.iter().map(|row| names.iter().map(|name| field(row, name)).collect::<Vec<_>>().join(" ")).collect()
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(super::Stage::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() {
                let test = concat!("consumer_commands::postgres::", stringify!($name));
                if let Some(stage) = super::Stage::postgres(test) {
                    super::$name(stage);
                }
            })*
        }
    };
}

on_both!(
    losses_tell_what_explains_that_events_are_missing,
    nothing_is_missing_only_where_no_dead_letter_waits,
    sums_of_missing_events_do_not_overflow,
    losses_of_an_unknown_number_are_named,
    dead_letters_are_listed_with_their_place_and_reason,
    dead_letters_keep_headers_and_time_and_are_decoded_with_them,
    dead_letters_are_dropped_with_a_reason,
    what_can_be_stored_by_now_comes_back_once_with_all_that_follows,
    of_two_retries_at_once_each_letter_goes_to_one,
    times_without_a_zone_are_local,
);

const OLD: &str = "UPDATE agent_sequences SET first_stored_at = '2026-11-20T12:00:00.000000Z';
                   UPDATE dead_letters SET stored_at = '2026-11-20T12:30:00.000000Z';
                   UPDATE losses SET stored_at = '2026-11-20T11:00:00.000000Z'";

fn gap(cause: &str, first: i64, last: i64, noticed_at: &str) -> String {
    format!(
        "INSERT INTO kafka_gaps (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset, last_offset, cause, \
         noticed_at) VALUES ('', 'events', 0, 0, {first}, {last}, '{cause}', '{noticed_at}');"
    )
}

fn losses_tell_what_explains_that_events_are_missing(mut stage: Stage) {
    stage.store_events(&[updated("gw", 1), updated("gw", 2), updated("gw", 4)]);
    let (code, out, err) = stage.said(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 1), "what is only just missing may still come: {out} {err}");
    assert!(err.contains("nothing is missing"), "{err}");
    // 5 to 7 were given up, of which 6 arrived all the same; 12 is a dead letter with its number, another one has the agent from
    // its key only; 3, 11 and 13 never arrived.
    let poison =
        String::from_utf8(wire::to_json(&updated("gw", 12))).unwrap().replace("80000000", "18446744073709551615");
    stage.store_events(&[event("gw", 8, loss(5, 7)), updated("gw", 6), updated("gw", 9), updated("gw", 10)]);
    stage.store(&[poison.into_bytes(), b"garbage".to_vec()]);
    stage.store_events(&[updated("gw", 14), event("other", 2, started())]);
    stage.run(OLD);
    stage.run(&gap("expired", 90, 99, "2026-11-20T13:00:00.000000Z"));
    stage.run(&gap("too_large", 100, 100, "2026-11-20T13:01:00.000000Z"));
    stage.run(&gap("expired_before_start", 0, 9, "2026-11-20T13:00:00.000000Z"));
    stage.run(&gap("skipped_at_start", 10, 20, "2026-11-20T13:00:00.000000Z"));
    let (code, rows) = stage.rows(&["losses"]);
    assert_eq!(code, 1);
    assert_eq!(
        fields(&rows, &["agent", "first_seq", "last_seq", "missing", "cause"]),
        [
            "gw 5 7 2 declared",
            "gw 3 3 1 undeclared",
            "gw 13 13 1 undeclared",
            "other 1 1 1 undeclared",
            "gw 11 11 1 undeclared",
            "gw 12 12 1 dead_letter",
            "gw null null 1 dead_letter",
            "null null null 10 expired",
            "null null null 1 too_large",
        ]
    );
    assert_eq!(rows[0]["reason"], "evicted");
    assert_eq!(rows[1]["noticed_at"], "2026-11-20T12:00:00.000000Z");
    assert_eq!((&rows[1]["reason"], &rows[1]["detail"]), (&Value::Null, &"never arrived".into()));
    assert!(rows[5]["detail"].as_str().unwrap().contains("limit_bps"), "{}", rows[5]);
    let places = ["kafka_topic", "kafka_partition", "first_offset", "last_offset"];
    assert_eq!(fields(&rows[6..8], &places), ["null null null null", "events 0 90 99"]);
    assert!(rows[8]["detail"].as_str().unwrap().contains("raise receive.message.max.bytes"), "{}", rows[8]);
    let (code, _, err) = stage.said(&["losses"]);
    assert_eq!(code, 1);
    for says in [
        "events given up and declared by their agents: 2",
        "events kept as dead letters: see `highwater-consumer dead-letters list`: 2",
        "whose events they held is not known: 11",
        "missing without explanation: 4",
    ] {
        assert!(err.contains(says), "{says}: {err}");
    }
    // Filters leave out what is known.
    let (code, rows) = stage.rows(&["losses", "--agent", "other"]);
    assert_eq!((code, fields(&rows, &["agent", "first_seq"])), (1, vec!["other 1".to_owned()]));
    let (code, rows) = stage.rows(&["losses", "--since", "2026-11-20T12:45:00Z"]);
    assert_eq!((code, fields(&rows, &["cause"])), (0, vec!["expired".to_owned(), "too_large".to_owned()]));
    let (_, rows) = stage.rows(&["losses", "--until", "2026-11-20T11:30:00Z"]);
    assert_eq!(fields(&rows, &["cause"]), ["declared"]);
    let (code, _, err) = stage.said(&["losses", "--agent", "nobody"]);
    assert!(code == 0 && err.contains("nothing of nobody is missing"), "{err}");
    let (code, _, err) = stage.said(&["losses", "--since", "soon"]);
    assert!(code == 2 && err.contains("10m") && err.contains("yesterday"), "{err}");
}

fn nothing_is_missing_only_where_no_dead_letter_waits(mut stage: Stage) {
    stage.run(&gap("expired_before_start", 0, 9, "2026-11-20T13:00:00.000000Z"));
    stage.store_events(&[updated("gw", 1)]);
    assert!(stage.said(&["losses"]).2.contains("nothing is missing"));
    // 33 of an agent that the key names, and that sends no more.
    stage.store(&vec![b"garbage".to_vec(); 33]);
    let (code, out, err) = stage.said(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 34), "{out}");
    assert!(!err.contains("nothing") && err.contains("dead-letters list`: 33"), "{err}");
    stage.run("UPDATE dead_letters SET agent = NULL");
    let (code, out, err) = stage.said(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    assert!(!err.contains("nothing") && err.contains("name no agent; whose events they are is not known: 33"), "{err}");
}

fn sums_of_missing_events_do_not_overflow(mut stage: Stage) {
    stage.store_events(&[updated("gw", 1)]);
    for (agent, seq) in [("a", 1), ("a", 2), ("b", 1), ("c", 1)] {
        stage.run(&format!(
            "INSERT INTO losses (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at, stored_at, reason)
             VALUES ('{agent}', 'e', 1, 9223372036854775807, 'e', {seq}, '2026-11-20T12:00:00.000000Z', '2026-11-20T12:00:00.000000Z',
                     'evicted')"
        ));
    }
    let (code, out, err) = stage.said(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 4), "{out} {err}");
    assert!(err.contains("declared by their agents: 27670116110564327421"), "{err}");
}

fn losses_of_an_unknown_number_are_named(mut stage: Stage) {
    stage.store_events(&[updated("gw", 1)]);
    stage.run(
        "INSERT INTO losses (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at, stored_at, reason)
         VALUES ('gw', 'e', 1, 281474976710656, 'e', 2, '2026-11-20T12:00:00.000000Z', '2026-11-20T12:00:00.000000Z',
                 'interrupted')",
    );
    let (code, rows) = stage.rows(&["losses"]);
    assert_eq!((code, fields(&rows, &["first_seq", "last_seq", "missing"])), (0, vec!["1 null null".to_owned()]));
    let (code, out, err) = stage.said(&["losses"]);
    assert!(code == 0 && out.contains("  1  -         -        interrupted"), "{out}");
    assert!(err.contains("agents that crashed; how many is not known: 1") && !err.contains("nothing"), "{err}");
}

fn dead_letters_are_listed_with_their_place_and_reason(mut stage: Stage) {
    assert_eq!(stage.rows(&["dead-letters", "list"]), (0, vec![]));
    let long = format!("no event \u{1b}[31m{}", "x".repeat(5_000));
    stage.store(&[
        b"garbage".to_vec(),
        wire::to_json(&updated("gw", 1)),
        b"\xff\0".to_vec(),
        long.clone().into_bytes(),
    ]);
    stage.put_aside(&[(90, b"old".to_vec())]);
    let (code, rows) = stage.rows(&["dead-letters", "list"]);
    assert_eq!(code, 0);
    let places = ["events 0 0 7 gw garbage", "events 0 2 2 gw \u{fffd}\0", "old 3 90 3 null old"];
    let all = fields(&rows, &["kafka_topic", "kafka_partition", "kafka_offset", "bytes", "key", "payload"]);
    assert_eq!([&all[0], &all[1], &all[3]], places);
    assert_eq!(rows[2]["payload"], long.as_str());
    assert!(rows[0]["error"].as_str().unwrap().contains("neither JSON"), "{}", rows[0]);
    // A table shows the begin of a payload, and no control character of a terminal.
    let (_, table, _) = stage.said(&["dead-letters", "list"]);
    assert!(table.contains("no event \\u{1b}[31mxxx") && table.contains("x…") && !table.contains('\u{1b}'), "{table}");
    assert!(table.lines().all(|line| line.len() < 400), "{table}");
    for (arguments, offsets) in [
        (&["--offset", "2"][..], &["2"][..]),
        (&["--offset", "1-2"], &["2"]),
        (&["--partition", "3"], &["90"]),
        (&["--topic", "events", "--partition", "3"], &[]),
        (&["-t", "events"], &["0", "2", "3"]),
        (&["--error", "Neither json"], &["0", "2", "3"]),
        (&["--error", "unknown format"], &["90"]),
        (&["--error", "unknown_format"], &[]),
        (&["--error", "%"], &[]),
        (&["--agent", "gw"], &["0", "2", "3"]),
        (&["--agent", "gw", "--error", "unknown"], &[]),
    ] {
        let (_, rows) = stage.rows(&[&["dead-letters", "list"], arguments].concat());
        assert_eq!(fields(&rows, &["kafka_offset"]), offsets, "{arguments:?}");
    }
    let raw = stage.command(&["dead-letters", "list", "--raw", "--offset", "2"]).stdout;
    assert_eq!(raw, b"\xff\0\n");
}

fn dead_letters_keep_headers_and_time_and_are_decoded_with_them(mut stage: Stage) {
    let event = updated("gw", 1);
    // Protobuf with a field before ours, as another writer may send it, is known by its content-type only.
    let unknown_field = [0xa0, 0x06, 0x00];
    let payload = [&unknown_field[..], &wire::message(&event, b"", wire::Format::Protobuf, None).payload].concat();
    let headers = [("content-type", Some(&b"application/protobuf"[..])), ("trace", None), ("trace", Some(b"=1"))];
    let headers = PackedHeaders::pack(headers);
    let parts = (Some(&b"k"[..]), Some(&payload[..]), headers);
    let record = Record::decoded(0, Some(1_795_176_000_123), parts, Err("not known to this version".to_owned()));
    stage.store_records(vec![record]);
    let (_, rows) = stage.rows(&["dead-letters", "list"]);
    assert_eq!(rows[0]["kafka_timestamp"], "2026-11-20T12:00:00.123000Z");
    let trace = [json!({"name": "trace", "value": null}), json!({"name": "trace", "value": "=1"})];
    assert_eq!(rows[0]["headers"][0], json!({"name": "content-type", "value": "application/protobuf"}));
    assert_eq!(rows[0]["headers"].as_array().unwrap()[1..], trace);
    let csv = stage.said(&["dead-letters", "list", "--format", "csv"]).1;
    let csv: csv::Reader<&[u8]> = csv::Reader::from_reader(csv.as_bytes());
    let header = csv.into_records().next().unwrap().unwrap();
    assert!(header.iter().any(|cell| cell.starts_with(r#"[{"name":"content-type""#)), "{header:?}");
    let (code, _, err) = stage.said(&["dead-letters", "retry"]);
    assert!(code == 0 && err.contains("1 stored, 0 remain"), "{err}");
    assert_eq!(stage.numbers("SELECT seq, kafka_offset FROM events"), [1, 0]);
}

fn dead_letters_are_dropped_with_a_reason(mut stage: Stage) {
    stage.store_events(&[updated("gw", 1)]);
    let poison = |seq| {
        String::from_utf8(wire::to_json(&updated("gw", seq)))
            .unwrap()
            .replace("80000000", "18446744073709551615")
            .into_bytes()
    };
    stage.store(&[b"garbage".to_vec(), poison(2), poison(3)]);
    stage.put_aside(&(0..150).map(|at| (at, wire::to_json(&updated("old", 1 + at as u64)))).collect::<Vec<_>>());
    assert_eq!(stage.said(&["dead-letters", "drop", "--error", "limit_bps"]).0, 2, "a reason is needed");
    assert_eq!(stage.said(&["dead-letters", "drop", "--reason", ""]).0, 2);
    let drop = |stage: &Stage, arguments: &[&str]| {
        let (code, out, err) = stage.said(&[&["dead-letters", "drop"], arguments].concat());
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(
        drop(&stage, &["--error", "LIMIT_BPS", "--offset", "3", "--reason", "load test"]),
        "dropped 1 dead letter\n"
    );
    assert_eq!(
        drop(&stage, &["--error", "limit_bps", "--offset", "3", "--reason", "again"]),
        "dropped 0 dead letters\n"
    );
    assert_eq!(drop(&stage, &["-t", "old", "--reason", "of the old topic"]), "dropped 150 dead letters\n");
    // They are listed only where they are asked for, and not tried again.
    let (_, rows) = stage.rows(&["dead-letters", "list"]);
    assert_eq!(fields(&rows, &["kafka_offset", "drop_reason"]), ["1 null", "2 null"]);
    let (_, rows) = stage.rows(&["dead-letters", "list", "--dropped", "-t", "events"]);
    assert_eq!(fields(&rows, &["kafka_offset", "drop_reason", "seq"]), ["1 null null", "2 null 2", "3 load test 3"]);
    assert!(
        rows[2]["payload"].is_null() && rows[2]["bytes"].is_number() && rows[2]["dropped_at"].is_string(),
        "{}",
        rows[2]
    );
    let (_, table, _) = stage.said(&["dead-letters", "list", "--dropped", "-t", "old", "--offset", "7"]);
    assert!(table.contains("drop reason") && table.contains("of the old topic"), "{table}");
    let (code, rows) = stage.rows(&["dead-letters", "retry"]);
    assert_eq!(
        (code, fields(&rows, &["kafka_topic", "kafka_offset"])),
        (1, vec!["events 1".into(), "events 2".into()])
    );
    // `losses` shows the reason.
    let (code, rows) = stage.rows(&["losses"]);
    let shown = fields(&rows, &["agent", "first_seq", "cause", "reason"]);
    assert_eq!(shown, ["gw 2 dead_letter null", "gw 3 discarded load test", "gw null dead_letter null"]);
    let (_, _, err) = stage.said(&["losses"]);
    assert!(err.contains("list --dropped`: 1") && err.contains("named no agent, and were dropped: 150"), "{err}");
    assert_eq!(code, 0);
}

fn times_without_a_zone_are_local(stage: Stage) {
    stage.run(&gap("expired", 1, 1, "2026-11-20T08:30:00.000000Z"));
    stage.run(&gap("expired", 2, 2, "2026-11-20T23:30:00.000000Z"));
    let since = |zone: &str, time: &str| {
        let mut command = command();
        command.args(["losses", "--format", "json", "--since", time]).env("HIGHWATER_STORE__URL", &stage.url);
        let (code, out, err) = said(&command.env("TZ", zone).output().unwrap());
        assert_eq!(code, 0, "{err}");
        out.lines().count()
    };
    assert_eq!(since("Asia/Tokyo", "2026-11-20T08:00:00Z"), 2);
    assert_eq!(since("Asia/Tokyo", "2026-11-20 17:00"), 2);
    assert_eq!(since("Asia/Tokyo", "2026-11-20 18:00"), 1);
    assert_eq!(since("UTC", "2026-11-20 18:00"), 1);
    assert_eq!(since("Asia/Tokyo", "2026-11-21"), 1, "the day begins at 15:00Z before it");
    assert_eq!(since("UTC", "2026-11-21"), 0);
    for time in ["today", "yesterday", "10:00", "1h"] {
        since("Europe/Berlin", time);
    }
    let help = command().args(["losses", "--help"]).output().unwrap().stdout;
    assert!(String::from_utf8(help).unwrap().contains("local time"), "the help says so");
}

fn what_can_be_stored_by_now_comes_back_once_with_all_that_follows(mut stage: Stage) {
    stage.store_events(&[updated("gw", 1), updated("gw", 5)]);
    stage.store(&[b"garbage".to_vec()]);
    // Among these, 5 is stored already, and 2 is there twice; 3 declares a loss, 7 is the last event of its breach.
    let letters = [updated("gw", 2), event("gw", 3, loss(6, 6)), updated("gw", 7), updated("gw", 5), updated("gw", 2)];
    stage.put_aside(&(0..).zip(letters.iter().map(wire::to_json)).collect::<Vec<_>>());
    stage.put_aside(&[(99, wire::to_json(&updated("gw", 4))[..40].to_vec())]);
    let (code, out, err) =
        stage.said(&["dead-letters", "retry", "--topic", "old", "--offset", "0-50", "--format", "json"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("5 stored (2 of them before), 0 remain"), "{err}");
    assert_eq!(stage.numbers("SELECT count(*), count(DISTINCT seq) FROM events"), [5, 5]);
    let ranges = "SELECT min(first_seq), max(last_seq), count(*) FROM agent_sequences WHERE first_seq < 5";
    assert_eq!(stage.numbers(ranges), [1, 3, 1]);
    assert_eq!(stage.numbers("SELECT seq, duration_ms FROM breach_state"), [7, 7_000]);
    assert_eq!(stage.numbers("SELECT first_seq, last_seq FROM losses"), [6, 6]);
    assert_eq!(stage.numbers("SELECT count(*) FROM dead_letters"), [2]);
    assert_eq!(stage.numbers("SELECT kafka_offset, CAST(kafka_partition AS bigint) FROM events WHERE seq = 7"), [2, 3]);
    // A letter that remains is reported.
    let (code, rows) = stage.rows(&["dead-letters", "retry"]);
    assert_eq!(code, 1);
    assert_eq!(fields(&rows, &["kafka_topic", "kafka_offset", "result"]), ["events 2 remains", "old 99 remains"]);
    assert!(rows[1]["reason"].as_str().unwrap().contains("EOF while parsing"), "{}", rows[1]);
    assert_eq!(stage.numbers("SELECT count(*) FROM dead_letters"), [2]);
    // The consumer goes on as before.
    stage.store_events(&[updated("gw", 4), updated("gw", 8)]);
    assert_eq!(stage.numbers("SELECT count(*), count(DISTINCT seq) FROM events"), [7, 7]);
}

fn of_two_retries_at_once_each_letter_goes_to_one(mut stage: Stage) {
    stage.put_aside(&(0..250).map(|at| (at, wire::to_json(&updated("gw", 1 + at as u64)))).collect::<Vec<_>>());
    let url = stage.url.clone();
    let retry = || command().args(["dead-letters", "retry"]).env("HIGHWATER_STORE__URL", &url).output().unwrap();
    let mut returned = 0;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..3).map(|_| scope.spawn(retry)).collect();
        // A consumer stores meanwhile, some of the same events too.
        for seq in 200..300 {
            stage.store_events(&[updated("gw", seq)]);
        }
        for output in running {
            let (code, _, err) = said(&output.join().unwrap());
            assert_eq!(code, 0, "{err}");
            let count = err.split("note: ").nth(1).and_then(|note| note.split(' ').next()).unwrap();
            returned += count.parse::<u64>().unwrap();
        }
    });
    assert_eq!(returned, 250);
    assert_eq!(stage.numbers("SELECT count(*), count(DISTINCT seq) FROM events"), [299, 299]);
    assert_eq!(stage.numbers("SELECT count(*) FROM dead_letters"), [0]);
    assert_eq!(stage.numbers("SELECT count(*) FROM sequence_gaps"), [0]);
}

/// Commands that only read the store.
const LOOKERS: &[&[&str]] = &[
    &["losses"],
    &["dead-letters", "list"],
    &["dead-letters", "retry"],
    &["dead-letters", "drop", "--reason", "none"],
    &["totals"],
    &["events"],
    &["breaches"],
    &["rates"],
    &["histogram"],
    &["percentile", "--agent", "gw"],
    &["agents"],
];

#[test]
fn a_store_that_cannot_be_asked_is_69_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.db");
    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let (missing, other) = (format!("sqlite:{}", missing.display()), format!("sqlite:{}", other.display()));
    let mut urls = vec![
        (missing.clone(), "store.url"),
        (other, "is not a database of this program"),
        ("postgres://u:p@127.0.0.1:1/d".to_owned(), "Connection refused"),
    ];
    if let Some(postgres) = Postgres::or_skip("consumer_commands::a_store_that_cannot_be_asked_is_69") {
        urls.push((postgres.database("bare").url, "none of this program's tables"));
    }
    for (url, says) in urls {
        for verb in LOOKERS {
            let output = command().args(*verb).env("HIGHWATER_STORE__URL", &url).output().unwrap();
            let (code, out, err) = said(&output);
            assert_eq!((code, out.as_str()), (69, ""), "{url} {err}");
            assert!(err.contains(says), "{url}: {err}");
        }
    }
    assert!(!std::path::Path::new(missing.trim_start_matches("sqlite:")).exists(), "looking makes no file");
}

/// Returns what these commands print, in each format, and how they end.
fn printed(url: &str) -> Vec<String> {
    let commands: &[&[&str]] = &[
        &["losses"],
        &["losses", "--since", "2026-11-20T11:30:00Z", "--until", "2026-11-20T12:15:00Z"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--dropped", "--error", "unknown"],
        &["totals"],
        &["totals", "--since", "2026-11-20", "--until", "2026-11-20"],
        &["totals", "--since", "2026-11-21"],
        &["events"],
        &["events", "--since", "2026-11-20T12:00:02Z", "-n", "2"],
        &["breaches", "--state", "open", "--since", "2026-11-20"],
        &["rates", "--by", "window", "--since", "2026-11-20T12:00:00Z", "--until", "2026-11-21"],
        &["histogram", "--since", "2026-11-20T10:30:00Z", "--until", "2026-11-22T12:30:00Z"],
        &["agents"],
    ];
    let mut printed = Vec::new();
    for arguments in commands {
        for format in ["table", "json", "csv"] {
            let mut command = command();
            command.args(*arguments).args(["--format", format]).env("HIGHWATER_STORE__URL", url);
            let (code, out, err) = said(&command.output().unwrap());
            printed.push(format!("{} {format}: {code}\n{out}{err}", arguments.join(" ")));
        }
    }
    printed
}

/// Settings of a server that change how text is read and written, and what a transaction may do.
pub(crate) const TEXT_SETTINGS: &[&str] = &[
    "DateStyle = 'SQL, MDY'",
    "DateStyle = 'German'",
    "DateStyle = 'Postgres, DMY'",
    "IntervalStyle = 'iso_8601'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "TimeZone = 'Pacific/Kiritimati'",
    "lc_time = 'de_DE.UTF-8'",
    "lc_numeric = 'de_DE.UTF-8'",
    "lc_monetary = 'de_DE.UTF-8'",
    "lc_messages = 'de_DE.UTF-8'",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "client_encoding = 'LATIN1'",
    "quote_all_identifiers = on",
];

#[test]
fn no_setting_of_a_server_changes_what_is_printed() {
    let test = "consumer_commands::no_setting_of_a_server_changes_what_is_printed";
    let Some(mut stage) = Stage::postgres(test) else { return };
    stage.store_events(&[updated("gw", 1), event("gw", 5, loss(2, 3)), updated("gw", 9)]);
    stage.store(&[b"\\x00 \\134 garbage".to_vec(), b"\xff\0".to_vec()]);
    stage.put_aside(&[(7, b"old".to_vec()), (8, wire::to_json(&updated("gw", 6)))]);
    stage.run(OLD);
    stage.run(&gap("expired", 90, 99, "2026-11-20T13:00:00.000000Z"));
    stage.run("UPDATE dead_letters SET dropped_at = stored_at, drop_reason = 'none' WHERE kafka_offset = 7");
    let expected = printed(&stage.url);
    assert!(expected[15].contains("2026-11-20  gw"), "{}", expected[15]);
    let Home::Postgres(database) = &stage.home else { panic!("it is one") };
    for setting in TEXT_SETTINGS {
        database.alter(&format!("SET {setting}"));
        assert_eq!(printed(&stage.url), expected, "{setting}");
        database.alter("RESET ALL");
    }
    // The writer is not misled by them either.
    for setting in TEXT_SETTINGS.iter().filter(|setting| !setting.contains("read_only")) {
        database.alter(&format!("SET {setting}"));
    }
    let (code, _, err) = stage.said(&["dead-letters", "retry", "-t", "old"]);
    assert!(code == 0 && err.contains("1 stored, 0 remain"), "{err}");
    let (code, out, err) = stage.said(&["dead-letters", "drop", "-t", "events", "--reason", "test"]);
    assert!(code == 0 && out == "dropped 2 dead letters\n", "{err}");
    let stored = "SELECT observed_at = '2026-11-20T12:00:06Z' AND kafka_offset = 8 FROM events WHERE seq = 6";
    assert_eq!(database.ask(stored), "(t)");
}

#[test]
fn what_a_reader_may_not_is_named_with_the_sql_that_mends_it() {
    let test = "consumer_commands::what_a_reader_may_not_is_named_with_the_sql_that_mends_it";
    let Some(mut stage) = Stage::postgres(test) else { return };
    stage.store_events(&[updated("gw", 1)]);
    let Home::Postgres(database) = &stage.home else { panic!("it is one") };
    let mut owner = database.client();
    let role = format!("Reader {:08x}", fastrand::u32(..));
    owner.batch_execute(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'r'")).unwrap();
    let (_, server) = stage.url.split_once('@').unwrap();
    let url = format!("postgres://{}:r@{server}", role.replace(' ', "%20"));
    let totals = |schema: Option<&str>| {
        let mut command = command();
        command.args(["totals", "--format", "csv"]).env("HIGHWATER_STORE__URL", &url);
        command.envs(schema.map(|schema| ("HIGHWATER_STORE__SCHEMA", schema)));
        said(&command.output().unwrap())
    };
    let granted = |owner: &mut ::postgres::Client, err: &str| {
        let (_, sql) = err.split_once("as the owner: ").unwrap_or_else(|| panic!("{err}"));
        owner.batch_execute(sql).unwrap();
    };
    let (code, _, err) = totals(None);
    assert!(code == 69 && err.contains("permission denied") && err.contains(&format!("TO \"{role}\"")), "{err}");
    granted(&mut owner, &err);
    let (code, out, err) = totals(None);
    assert!(code == 0 && out.lines().count() == 2, "{err}");
    // The tables are in another schema, that this role may not use, or does not look into.
    owner.batch_execute("CREATE SCHEMA \"High water\"").unwrap();
    let tables = "SELECT format('ALTER TABLE %I SET SCHEMA \"High water\"', relname) FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')";
    for row in owner.query(tables, &[]).unwrap() {
        owner.batch_execute(row.get(0)).unwrap();
    }
    let (code, _, err) = totals(None);
    assert!(code == 69 && err.contains("schema \"High water\", which role"), "{err}");
    granted(&mut owner, &err);
    let (code, _, err) = totals(None);
    assert!(code == 69 && err.contains("set store.schema = \"High water\""), "{err}");
    let (code, out, err) = totals(Some("High water"));
    assert!(code == 0 && out.lines().count() == 2, "{err}");
    // A table of another version.
    owner.batch_execute("ALTER TABLE \"High water\".totals RENAME COLUMN limit_name TO mark").unwrap();
    let (code, _, err) = totals(Some("High water"));
    assert!(code == 69 && err.contains("limit_name") && err.contains("not those of this version"), "{err}");
    // A lock that another session holds.
    owner.batch_execute("ALTER TABLE \"High water\".totals RENAME COLUMN mark TO limit_name").unwrap();
    owner.batch_execute("BEGIN; LOCK TABLE \"High water\".totals").unwrap();
    let (code, _, err) = totals(Some("High water"));
    assert!(code == 69 && err.contains("pg_locks"), "{err}");
}

/// Each query may go to another session of the server.
#[test]
fn readers_work_through_a_pooler_in_transaction_mode() {
    let test = "consumer_commands::readers_work_through_a_pooler_in_transaction_mode";
    let Some(mut stage) = Stage::postgres(test) else { return };
    if std::process::Command::new("pgbouncer").arg("--version").output().is_err() {
        return skip(test, "needs pgbouncer");
    }
    stage.store_events(&[updated("gw", 1)]);
    stage.store(&vec![b"garbage".to_vec(); 30]);
    let expected = printed(&stage.url);
    let Home::Postgres(database) = &stage.home else { panic!("it is one") };
    let pooler = Pooler::start(database, "transaction");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| printed(&pooler.url))).collect();
        all.into_iter().for_each(|printed| assert_eq!(printed.join().unwrap(), expected));
    });
    // No setting of theirs is left in the sessions.
    let settings =
        ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "TimeZone", "DateStyle"];
    let left = |url: &str| -> Vec<String> {
        let mut client = ::postgres::Client::connect(url, ::postgres::NoTls).unwrap();
        let prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''".to_owned();
        let all = settings.iter().map(|name| format!("SHOW {name}")).chain([prepared]);
        let first = |sql: String| {
            let messages = client.simple_query(&sql).unwrap();
            let row = messages.into_iter().find_map(|message| match message {
                ::postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            row.unwrap()
        };
        all.map(first).collect()
    };
    let untouched = left(&stage.url);
    (0..8).for_each(|_| assert_eq!(left(&pooler.url), untouched));
}

/// Rows are printed as they arrive: memory does not grow with their number.
fn memory_is_bounded(stage: &Stage, rows: u64) {
    stage.run(&format!(
        "INSERT INTO totals (agent, interface, direction, limit_name, day, breaches, excess_bytes)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         SELECT 'gateway-' || i, 'eth0', 'rx', 'wan-down', '2026-11-20', 1, i FROM n"
    ));
    for format in ["table", "json", "csv"] {
        let mut command = command();
        command.args(["totals", "--format", format]).env("HIGHWATER_STORE__URL", &stage.url);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut peak = 0;
        let mut lines = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            line.unwrap();
            lines += 1;
            if lines % 5_000 == 0 {
                let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
                let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                peak = line.and_then(|line| line.trim().strip_suffix(" kB")).map_or(peak, |kb| kb.parse().unwrap());
            }
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(lines, rows + u64::from(format != "json"));
        println!("{rows} rows as {format}: {peak} kB");
        assert!((1..32_000).contains(&peak), "{format}: {peak} kB");
    }
}

#[test]
fn sqlite_prints_many_rows_in_little_memory() {
    memory_is_bounded(&Stage::sqlite(), 100_000);
}

#[test]
fn postgres_prints_many_rows_in_little_memory() {
    if let Some(stage) = Stage::postgres("consumer_commands::postgres_prints_many_rows_in_little_memory") {
        memory_is_bounded(&stage, 100_000);
    }
}

#[test]
fn a_spreadsheet_runs_nothing_of_what_messages_say() {
    let mut stage = Stage::sqlite();
    stage.store(&[b"=cmd|' /C calc'!A0".to_vec(), b"-1".to_vec()]);
    let (_, csv, _) = stage.said(&["dead-letters", "list", "--format", "csv"]);
    assert!(csv.contains(",'=cmd|' /C calc'!A0,") && csv.contains(",'-1,"), "{csv}");
    let (_, json, _) = stage.said(&["dead-letters", "list", "--format", "json"]);
    assert!(json.contains(r#""=cmd|' /C calc'!A0""#), "{json}");
    stage.store(&["\u{202e}gpj.exe".as_bytes().to_vec()]);
    let (_, table, _) = stage.said(&["dead-letters", "list"]);
    assert!(table.contains("\\u{202e}gpj.exe") && !table.contains('\u{202e}'), "{table}");
}

#[test]
fn without_a_file_check_and_run_agree() {
    if std::path::Path::new("/etc/highwater/consumer.toml").exists() {
        return skip("consumer_commands::without_a_file_check_and_run_agree", "needs no /etc/highwater/consumer.toml");
    }
    let directory = tempfile::tempdir().unwrap();
    let begun = |verb: &str| {
        let mut command = command();
        command.arg(verb).current_dir(directory.path()).env("HIGHWATER_KAFKA__BROKERS", "127.0.0.1:9");
        command
    };
    let (code, out, err) = said(&begun("check").arg("--offline").output().unwrap());
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("there is no /etc/highwater/consumer.toml") && out.contains("sqlite:highwater.db"),
        "{out}{err}"
    );
    let mut run = begun("run").stderr(std::process::Stdio::piped()).spawn().unwrap();
    let first = BufReader::new(run.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(first.contains("there is no /etc/highwater/consumer.toml: storing in sqlite:highwater.db"), "{first}");
    run.kill().unwrap();
    run.wait().unwrap();
}

/// A lock table of the least size that a server starts with, and a partition for each of many days.
#[test]
fn check_warns_of_more_partitions_than_the_lock_table_has_room_for() {
    let test = "consumer_commands::check_warns_of_more_partitions_than_the_lock_table_has_room_for";
    let Some(postgres) = Postgres::own(test) else { return };
    let database = postgres.database("locks");
    let mut client = database.client();
    client.batch_execute("ALTER SYSTEM SET max_locks_per_transaction = 10").unwrap();
    client.batch_execute("ALTER SYSTEM SET max_connections = 20").unwrap();
    postgres.kill();
    postgres.start();
    let mut store = StoreUrl::parse(&database.url, None, None)
        .unwrap()
        .open(&StoreOptions { partition: PartitionWidth::Day, ..options() });
    insert_checkpoint(&mut *store, &topic(), 0, &Checkpoint::default(), None).unwrap();
    let check = || said(&command().arg("check").env("HIGHWATER_STORE__URL", &database.url).output().unwrap());
    let (code, out, err) = check();
    assert!(
        code == 1 && out.contains("ok       locks: a query over all 2 partitions of events takes 6 of the 200 locks"),
        "Kafka alone is missing: {out}{err}"
    );
    assert!(!out.contains("warning") && err.contains("1 check failed"), "{out}{err}");
    for day in 0..18 {
        let mut event = event("gw", day + 1, started());
        event.stamp.observed_at = Utc::now() - chrono::TimeDelta::days(day as i64);
        let mut batch = Batch::new(&topic());
        let record = Record::new(day as i64, Some(7), None, Some(&wire::to_json(&event)));
        batch.push(0, record, || (0, day as i64));
        store.apply(&batch, Utc::now()).unwrap();
    }
    let (code, out, err) = check();
    let warning = "warning  locks: a query over all 20 partitions of events takes 60 of the 200 locks";
    assert!(code == 1 && out.contains(warning) && out.contains("raise max_locks_per_transaction"), "{out}{err}");
}

#[test]
fn a_store_that_is_none_is_shown_with_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    for (url, says) in [
        ("hw.db", "`hw.db`"),
        ("hw.db", "\"sqlite:hw.db\""),
        ("sqlite::memory:", "memory"),
        ("sqlite:x.db?mode=ro", "?mode=ro"),
        ("sqlite://x.db", "\"sqlite:x.db\""),
    ] {
        for verb in ["check", "run", "totals"] {
            let mut command = command();
            command.arg(verb).env("HIGHWATER_STORE__URL", url).current_dir(directory.path());
            let (code, _, err) = said(&command.output().unwrap());
            assert!(
                code == 78 && err.contains(says) && err.contains("HIGHWATER_STORE__URL"),
                "{url} {verb}: {code} {err}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "no file is made");
}
