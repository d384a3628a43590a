//! The commands that look at what is stored, as their users run them, on both databases.

use std::process::Output;

use chrono::Utc;
use highwater::consumer::batch::{Batch, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{PartitionWidth, Store, StoreOptions, StoreUrl};
use highwater::event::Event;
use highwater::wire;
use serde_json::Value;

use crate::support::consumer::{Database, Postgres, command};
use crate::support::events::{event, loss, started, updated};

pub(crate) const TOPIC: &str = "events";

/// A database with a consumer's tables, and the programs that look at it.
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
    let keep = std::time::Duration::from_secs(400 * 86_400);
    StoreOptions { instance: "stage".into(), partition: PartitionWidth::Month, keep }
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
        store.insert_checkpoint(&topic(), 0, &Checkpoint::default(), None).unwrap();
        Self { url, store, next: 0, home }
    }

    /// Stores messages as a consumer does.
    pub(crate) fn store(&mut self, payloads: &[Vec<u8>]) {
        let mut batch = Batch::new(&topic());
        let from = self.next;
        for (offset, payload) in (from..).zip(payloads) {
            batch.push(0, Record::new(offset, Some(7), Some(b"gw"), Some(payload)), || (0, from));
        }
        self.next += payloads.len() as i64;
        self.store.apply(&batch, Utc::now()).unwrap();
    }

    pub(crate) fn store_events(&mut self, events: &[Event]) {
        self.store(&events.iter().map(wire::to_json).collect::<Vec<_>>());
    }

    /// What an older version, or a database that was stricter, put aside.
    pub(crate) fn put_aside(&self, letters: &[(i64, Vec<u8>)]) {
        let sql = "INSERT INTO dead_letters (topic, partition, generation, \"offset\", key, payload, error, stored_at)
                   VALUES ('old', 3, 0, $1, NULL, $2, 'unknown format', '2026-11-20T12:00:00.000000Z')";
        match &self.home {
            Home::Postgres(database) => {
                let mut client = database.client();
                for (offset, payload) in letters {
                    client.execute(sql, &[offset, payload]).unwrap();
                }
            }
            Home::Sqlite(directory) => {
                let connection = rusqlite::Connection::open(directory.path().join("h.db")).unwrap();
                for (offset, payload) in letters {
                    connection.execute(sql, rusqlite::params![offset, payload]).unwrap();
                }
            }
        }
    }

    /// The whole numbers that one row of `sql` gives.
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

    /// SQL that both understand.
    pub(crate) fn run(&self, sql: &str) {
        match &self.home {
            Home::Postgres(database) => database.client().batch_execute(sql).unwrap(),
            Home::Sqlite(directory) => {
                rusqlite::Connection::open(directory.path().join("h.db")).unwrap().execute_batch(sql).unwrap();
            }
        }
    }

    /// Runs a command without a configuration file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        command().args(arguments).env("HIGHWATER_STORE__URL", &self.url).output().unwrap()
    }

    /// Its exit code, what it printed and what it said.
    pub(crate) fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        said(self.command(arguments))
    }

    /// Its exit code, and the rows it printed as JSON.
    pub(crate) fn rows(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let (code, out, err) = self.said(&[arguments, &["--format", "json"]].concat());
        let rows = out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line} {err}")));
        (code, rows.collect())
    }
}

pub(crate) fn said(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// These fields of each row, by spaces and commas.
pub(crate) fn fields(rows: &[Value], names: &[&str]) -> Vec<String> {
    let field = |row: &Value, name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    rows.iter().map(|row| names.iter().map(|name| field(row, name)).collect::<Vec<_>>().join(" ")).collect()
}

/// Runs a body on both stores.
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
    losses_tell_who_says_that_what_is_missing,
    dead_letters_are_listed_with_their_place_and_reason,
    what_can_be_stored_by_now_comes_back_once_with_all_that_follows,
    of_two_retries_at_once_each_letter_goes_to_one,
);

const OLD: &str = "UPDATE agent_sequences SET began = '2026-11-20T12:00:00.000000Z';
                   UPDATE losses SET stored_at = '2026-11-20T11:00:00.000000Z'";

fn losses_tell_who_says_that_what_is_missing(mut stage: Stage) {
    stage.store_events(&[updated("gw", 1), updated("gw", 2), updated("gw", 4)]);
    let (code, out, err) = stage.said(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 1), "what is only just missing may still come: {out} {err}");
    assert!(err.contains("nothing undeclared is missing"), "{err}");
    // 5 to 7 were given up, of which 6 came all the same; 12 is a dead letter that says so; 3, 11 and 13 never came.
    let poison =
        String::from_utf8(wire::to_json(&updated("gw", 12))).unwrap().replace("80000000", "18446744073709551615");
    stage.store_events(&[event("gw", 8, loss(5, 7)), updated("gw", 6), updated("gw", 9), updated("gw", 10)]);
    stage.store(&[poison.into_bytes(), b"garbage".to_vec()]);
    stage.store_events(&[updated("gw", 14), event("other", 2, started())]);
    stage.run(OLD);
    stage.run(
        "INSERT INTO kafka_gaps (topic, partition, generation, first, last, noticed_at)
               VALUES ('events', 0, 0, 90, 99, '2026-11-20T13:00:00.000000Z')",
    );
    let (code, rows) = stage.rows(&["losses"]);
    assert_eq!(code, 1);
    assert_eq!(
        fields(&rows, &["agent", "first", "last", "missing", "state"]),
        [
            "gw 5 7 2 declared",
            "gw 3 3 1 undeclared",
            "gw 11 11 1 undeclared",
            "gw 12 12 1 dead_letter",
            "gw 13 13 1 undeclared",
            "other 1 1 1 undeclared",
            "null 90 99 10 dropped",
        ]
    );
    assert_eq!(rows[0]["reason"], "evicted");
    assert_eq!(rows[1]["noticed_at"], "2026-11-20T12:00:00.000000Z");
    assert_eq!((&rows[1]["reason"], &rows[1]["detail"]), (&serde_json::Value::Null, &"never came".into()));
    assert!(rows[3]["detail"].as_str().unwrap().starts_with("events[0] at 7"), "{}", rows[3]);
    let (code, _, err) = stage.said(&["losses"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("without explanation: 4")
            && err.contains("dead letters that name no event, and may be what is missing: 1"),
        "{err}"
    );
    // Filters: what is known is left out.
    let (code, rows) = stage.rows(&["losses", "--agent", "other"]);
    assert_eq!((code, fields(&rows, &["agent", "first"])), (1, vec!["other 1".to_owned()]));
    let (code, rows) = stage.rows(&["losses", "--since", "2026-11-20T12:30:00Z"]);
    assert_eq!((code, fields(&rows, &["state"])), (0, vec!["dropped".to_owned()]));
    assert_eq!(stage.rows(&["losses", "--agent", "nobody"]), (0, vec![]));
    let (code, _, err) = stage.said(&["losses", "--since", "yesterday"]);
    assert!(code == 2 && err.contains("10m"), "{err}");
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
    let all = fields(&rows, &["topic", "partition", "offset", "bytes", "key", "payload"]);
    assert_eq!([&all[0], &all[1], &all[3]], places);
    assert_eq!(rows[2]["payload"], long.as_str());
    assert!(rows[0]["error"].as_str().unwrap().contains("neither JSON"), "{}", rows[0]);
    // A table shows where a payload begins, and nothing that a terminal would obey.
    let (_, table, _) = stage.said(&["dead-letters", "list"]);
    assert!(table.contains("no event \\u{1b}[31mxxx") && table.contains("x…") && !table.contains('\u{1b}'), "{table}");
    assert!(table.lines().all(|line| line.len() < 400), "{table}");
    for (arguments, offsets) in [
        (&["--offset", "2"][..], &["2"][..]),
        (&["--offset", "1-2"], &["2"]),
        (&["--partition", "3"], &["90"]),
        (&["--topic", "events", "--partition", "3"], &[]),
        (&["-t", "events"], &["0", "2", "3"]),
    ] {
        let (_, rows) = stage.rows(&[&["dead-letters", "list"], arguments].concat());
        assert_eq!(fields(&rows, &["offset"]), offsets, "{arguments:?}");
    }
    let raw = stage.command(&["dead-letters", "list", "--raw", "--offset", "2"]).stdout;
    assert_eq!(raw, b"\xff\0\n");
}

fn what_can_be_stored_by_now_comes_back_once_with_all_that_follows(mut stage: Stage) {
    stage.store_events(&[updated("gw", 1), updated("gw", 5)]);
    stage.store(&[b"garbage".to_vec()]);
    // Of these, 5 is stored already, and 2 stands there twice; 3 declares a loss, 7 says most of its breach.
    let letters = [updated("gw", 2), event("gw", 3, loss(6, 6)), updated("gw", 7), updated("gw", 5), updated("gw", 2)];
    stage.put_aside(&(0..).zip(letters.iter().map(wire::to_json)).collect::<Vec<_>>());
    stage.put_aside(&[(99, wire::to_json(&updated("gw", 4))[..40].to_vec())]);
    let (code, out, err) =
        stage.said(&["dead-letters", "retry", "--topic", "old", "--offset", "0-50", "--format", "json"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("5 stored (2 of them before), 0 remain"), "{err}");
    assert_eq!(stage.numbers("SELECT count(*), count(DISTINCT seq) FROM events"), [5, 5]);
    assert_eq!(stage.numbers("SELECT min(first), max(last), count(*) FROM agent_sequences WHERE first < 5"), [1, 3, 1]);
    assert_eq!(stage.numbers("SELECT seq, duration_ms FROM breach_state"), [7, 7_000]);
    assert_eq!(stage.numbers("SELECT first, last FROM losses"), [6, 6]);
    assert_eq!(stage.numbers("SELECT count(*) FROM dead_letters"), [2]);
    assert_eq!(stage.numbers("SELECT kafka_offset, CAST(kafka_partition AS bigint) FROM events WHERE seq = 7"), [2, 3]);
    // What stays is told, and stays.
    let (code, rows) = stage.rows(&["dead-letters", "retry"]);
    assert_eq!(code, 1);
    assert_eq!(fields(&rows, &["topic", "offset", "result"]), ["events 2 stays", "old 99 stays"]);
    assert!(rows[1]["reason"].as_str().unwrap().contains("EOF while parsing"), "{}", rows[1]);
    assert_eq!(stage.numbers("SELECT count(*) FROM dead_letters"), [2]);
    // The consumer goes on as if nothing had been.
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
            let (code, _, err) = said(output.join().unwrap());
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

/// All commands that only look at the store.
const LOOKERS: &[&[&str]] = &[&["losses"], &["dead-letters", "list"], &["dead-letters", "retry"], &["totals"]];

#[test]
fn a_store_that_cannot_be_asked_is_69_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.db");
    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let (missing, other) = (format!("sqlite:{}", missing.display()), format!("sqlite:{}", other.display()));
    let mut urls = vec![
        (missing.clone(), "store.url"),
        (other, "no database of this program"),
        ("postgres://u:p@127.0.0.1:1/d".to_owned(), "Connection refused"),
    ];
    if let Some(postgres) = Postgres::or_skip("consumer_commands::a_store_that_cannot_be_asked_is_69") {
        urls.push((postgres.database("bare").url, "none of this program's tables"));
    }
    for (url, says) in urls {
        for verb in LOOKERS {
            let output = command().args(*verb).env("HIGHWATER_STORE__URL", &url).output().unwrap();
            let (code, out, err) = said(output);
            assert_eq!((code, out.as_str()), (69, ""), "{url} {err}");
            assert!(err.contains(says), "{url}: {err}");
        }
    }
    assert!(!std::path::Path::new(missing.trim_start_matches("sqlite:")).exists(), "looking makes no file");
}
