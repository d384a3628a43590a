//! Files of each release, in `tests/data/v*`, with which this program goes on. Each test also writes with this program and reads that:
//! to a directory that goes, or for the next release to the one that `HIGHWATER_TEST_FIXTURES` names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use highwater::agent::journal::{
    Durability, DurableJournal, Identity, Journal as _, JournalConfig, JournalError, Position,
};
use highwater::consumer::batch::{Batch, PackedHeaders, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Store, StoreOptions, StoreUrl};
use highwater::message::{Body, Direction, Epoch, Event, EventId, Lifecycle, Link, NewEvent, Reason, Stamp};
use highwater::units::ByteCount;
use highwater::wire::{self, Decoder, Format, NoRegistry, Schemas, Undecoded, WriterSchema};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::agent::{self, Agent};
use crate::support::consumer;
use crate::support::events::{breach, event, link_rates, loss, noon, rates, sample, started, updated};
use crate::support::postgres::Postgres;
use crate::support::process::{is_installed, output_of};
use crate::support::services::Kafka;
use crate::support::skips::skip;
use crate::support::stores::insert_checkpoint;

const DIRECTORY: &str = "HIGHWATER_TEST_FIXTURES";

/// A directory of fixtures: a release's, or the one that this program has just written to.
struct Fixtures {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Fixtures {
    /// Returns those of each release, and what `write` makes.
    fn all(write: impl FnOnce(&Path)) -> Vec<Self> {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let is_release = |path: &PathBuf| path.is_dir() && path.file_name().unwrap().to_string_lossy().starts_with('v');
        let paths = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).filter(is_release);
        let mut all: Vec<Self> = paths.map(|path| Self { path, _temporary: None }).collect();
        let temporary = tempfile::tempdir().unwrap();
        let path = std::env::var_os(DIRECTORY).map_or_else(|| temporary.path().to_owned(), PathBuf::from);
        // The one that is being written now is not a release yet.
        all.retain(|release| release.path != path);
        assert!(!all.is_empty() || std::env::var_os(DIRECTORY).is_some(), "tests/data has no release");
        fs::create_dir_all(&path).unwrap();
        write(&path);
        all.push(Self { path, _temporary: Some(temporary) });
        all
    }

    fn text(&self, name: &str) -> String {
        let path = self.path.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }
}

/// Asserts that `now` says all that `then` did, and perhaps more: a later version may add fields.
fn says_the_same(now: &Value, then: &Value, what: &str) {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            for (name, then) in then {
                let now = now.get(name).unwrap_or_else(|| panic!("{what}: {name} is gone"));
                says_the_same(now, then, &format!("{what}.{name}"));
            }
        }
        (Value::Array(now), Value::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{what}: {now:?} for {then:?}");
            let pairs = now.iter().zip(then).enumerate();
            pairs.for_each(|(at, (now, then))| says_the_same(now, then, &format!("{what}[{at}]")));
        }
        _ => assert_eq!(now, then, "{what}"),
    }
}

fn as_json(event: &Event) -> Value {
    serde_json::from_slice(&wire::to_json(event)).unwrap()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// Makes an event of each kind. Their numbers have no holes but 5 and 6, which are declared lost.
fn events() -> Vec<Event> {
    let link = |reason| Link {
        interface: "eth0".into(),
        ifindex: 2,
        speed_bps: Some(1_000_000_000),
        reason: Some(reason),
        detail: Some("wan0".into()),
    };
    let lifecycle = |reason| Lifecycle { version: "0.1.0".into(), reason, detail: None };
    let mut cleared = breach("b1", 9);
    (cleared.reason, cleared.detail) = (Some(Reason::Below), Some("the rate fell".into()));
    let bodies = [
        (1, started()),
        (2, Body::LinkAdded(link(Reason::Added))),
        (3, Body::BreachRaised(breach("b1", 3))),
        (4, Body::BreachUpdated(breach("b1", 4))),
        (7, loss(5, 6)),
        (8, Body::LinkChanged(link(Reason::Renamed))),
        (9, Body::BreachCleared(cleared)),
        (10, Body::BreachRaised(breach("b2", 10))),
        (11, Body::Heartbeat(lifecycle(None))),
        (12, Body::LinkRemoved(link(Reason::Removed))),
        (13, Body::AgentStopped(lifecycle(Some(Reason::Signal)))),
    ];
    bodies.into_iter().map(|(seq, body)| event("gw", seq, body)).collect()
}

fn windows() -> Vec<Event> {
    let links = || {
        let rx = link_rates("eth0", Direction::Rx, &[0, 1_500, 80_000_000, 91_665_770]);
        vec![rx, link_rates("eth0", Direction::Tx, &[])]
    };
    vec![rates("gw", 1, links()), rates("gw", 2, links())]
}

// --- messages

/// A registry that has one schema.
struct OneSchema(String);

impl Schemas for OneSchema {
    fn schema(&mut self, _: u32) -> Result<Arc<WriterSchema>, Undecoded> {
        Ok(Arc::new(WriterSchema::parse(None, &self.0).unwrap()))
    }
}

/// Bytes before an Avro value without a registry.
const SINGLE_OBJECT_BYTES: usize = 10;

fn write_messages(directory: &Path) {
    let line = |event: &Event| {
        let json = wire::to_json(event);
        let binary = |format| BASE64_STANDARD.encode(&wire::message(event, &json, format, None).payload);
        let json = String::from_utf8(json.clone()).unwrap();
        json!({"json": json, "avro": binary(Format::Avro), "protobuf": binary(Format::Protobuf)}).to_string() + "\n"
    };
    let all = events().into_iter().chain(windows()).chain([sample("gw", 1)]);
    fs::write(directory.join("messages.jsonl"), all.map(|event| line(&event)).collect::<String>()).unwrap();
    fs::write(directory.join("event.avsc"), Format::Avro.schema()).unwrap();
}

#[test]
fn messages_of_each_release_are_read_in_every_format() {
    for fixtures in Fixtures::all(write_messages) {
        let (schema, mut kinds) = (fixtures.text("event.avsc"), BTreeMap::new());
        for line in fixtures.text("messages.jsonl").lines() {
            let message: Value = serde_json::from_str(line).unwrap();
            let [json, avro, protobuf] = ["json", "avro", "protobuf"].map(|name| message[name].as_str().unwrap());
            let [avro, protobuf] = [avro, protobuf].map(|text| BASE64_STANDARD.decode(text).unwrap());
            let framed = [&[0, 0, 0, 0, 7][..], &avro[SINGLE_OBJECT_BYTES..]].concat();
            let of_registry = Decoder::new(OneSchema(schema.clone())).decode(&framed, || None).unwrap();
            let mut decoder = Decoder::new(NoRegistry);
            let mut decoded = |payload: &[u8]| decoder.decode(payload, || None).unwrap();
            let read = decoded(json.as_bytes());
            assert_eq!(read.raw, None, "{json}");
            for binary in [decoded(&avro), decoded(&protobuf), of_registry] {
                assert_eq!(binary, read, "{json}");
            }
            says_the_same(&as_json(&read.event), &serde_json::from_str(json).unwrap(), "message");
            *kinds.entry(read.event.body.kind().to_owned()).or_insert(0) += 1;
        }
        assert!(kinds.len() >= 12, "{kinds:?}");
    }
}

// --- journal

/// Held while the journal's fixtures are written and read: two tests do.
static JOURNAL: Mutex<()> = Mutex::new(());

fn identity() -> Identity {
    Identity { agent: "gw".into(), machine_id: "00000000000000000000000000000001".into() }
}

fn stamp(second: u64) -> Stamp {
    updated("gw", second).stamp
}

fn open_journal(directory: &Path, now: &Stamp) -> Result<DurableJournal, JournalError> {
    let config = JournalConfig {
        directory: directory.to_owned(),
        size_max: ByteCount::from_bytes(16 << 20),
        age_max: Duration::from_secs(400 * 86_400),
        identity: identity(),
    };
    DurableJournal::open(config, now)
}

fn new_event(Event { stamp, body, .. }: Event) -> NewEvent {
    NewEvent { stamp, body }
}

/// Returns what the journal hands out, in its order.
fn handed_out(journal: &mut DurableJournal, after: Position) -> Vec<Value> {
    let batch = journal.batch(after, 1_000, 16 << 20).unwrap();
    batch.iter().map(|queued| as_json(&queued.event)).collect()
}

fn window_as_json(window: NewEvent) -> Value {
    as_json(&Event { id: EventId { epoch: Epoch(0), seq: 1 }, stamp: window.stamp, body: window.body })
}

/// Writes unsent events and rates, an open breach, an open window, and the note of samples that Kafka may not have.
fn write_journal(directory: &Path) {
    let state = tempfile::tempdir().unwrap();
    let mut journal = open_journal(state.path(), &stamp(1)).unwrap();
    let open_window = new_event(windows().remove(1));
    journal.append(events().into_iter().map(new_event).collect()).unwrap();
    journal.append(vec![new_event(windows().remove(0))]).unwrap();
    journal.save_open_window(open_window).unwrap();
    journal.note_samples(Some(EventId { epoch: Epoch(0x5a5a), seq: 8 })).unwrap();
    let expected = json!({
        "events": handed_out(&mut journal, Position::START),
        "rates": handed_out(&mut journal, Position::RATES),
        "breaches": journal.open_breaches().unwrap().iter().map(as_json).collect::<Vec<_>>(),
        "window": window_as_json(journal.open_window().unwrap().unwrap()),
        "samples": {"lost_epoch": "0000000000005a5a", "ranges": [[8, 281_474_976_710_656_u64]]},
    });
    drop(journal);
    assert!(!state.path().join("journal.db-wal").exists(), "the file is whole on its own");
    for name in ["journal.db", "journal.db.mark"] {
        fs::copy(state.path().join(name), directory.join(name)).unwrap();
    }
    fs::write(directory.join("journal.json"), pretty(&expected)).unwrap();
}

/// Copies the fixtures' journal, of which nothing is written to.
fn restore_journal(fixtures: &Fixtures, state: &Path) {
    for name in ["journal.db", "journal.db.mark"] {
        fs::copy(fixtures.path.join(name), state.join(name)).unwrap();
    }
}

#[test]
fn a_journal_of_each_release_is_continued() {
    let _others_wait = JOURNAL.lock();
    for fixtures in Fixtures::all(write_journal) {
        let (state, then) = (tempfile::tempdir().unwrap(), fixtures.json("journal.json"));
        restore_journal(&fixtures, state.path());
        let mut journal = open_journal(state.path(), &stamp(60)).unwrap();
        assert_eq!(journal.durability(), Durability::OnDisk);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 4, "journal, log, mark and lock: nothing is set aside");
        let mut events = handed_out(&mut journal, Position::START);
        // An orderly stop would have declared the samples that were on their way.
        let of_samples = events.pop().unwrap();
        says_the_same(&of_samples, &then["samples"], "samples");
        says_the_same(&events.into(), &then["events"], "events");
        says_the_same(&handed_out(&mut journal, Position::RATES).into(), &then["rates"], "rates");
        let breaches: Vec<Value> = journal.open_breaches().unwrap().iter().map(as_json).collect();
        says_the_same(&breaches.into(), &then["breaches"], "breaches");
        says_the_same(&window_as_json(journal.open_window().unwrap().unwrap()), &then["window"], "window");
        let next = journal.append(vec![new_event(updated("gw", 61))]).unwrap();
        let last = |series: &str| then[series].as_array().unwrap().last().unwrap().clone();
        assert_eq!(next[0].id.epoch.to_string(), last("events")["epoch"]);
        assert_eq!(next[0].id.seq, last("events")["seq"].as_u64().unwrap() + 2, "the declaration is between them");
    }
}

#[test]
fn an_agent_publishes_what_a_release_left_in_its_journal() {
    let test = "fixtures::an_agent_publishes_what_a_release_left_in_its_journal";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let _others_wait = JOURNAL.lock();
    for fixtures in Fixtures::all(write_journal) {
        let topic = kafka.topic("left", 1);
        let config = format!(
            "agent = 'gw'\nsource = 'synthetic'\n[journal]\nmax_age = '9999d'\n[flush]\ninterval = '1s'\n[kafka]\nbrokers = '{}'\ntopic = '{topic}'\n",
            kafka.address
        );
        let mut agent = Agent::new(&config);
        fs::create_dir(agent.state_dir()).unwrap();
        restore_journal(&fixtures, &agent.state_dir());
        let then = fixtures.json("journal.json");
        let mut status = agent::command();
        status.args(["status", "--format", "json", "-c"]).arg(agent.config());
        let (code, out, err) = output_of(&mut status);
        let waiting = then["events"].as_array().unwrap().len() + then["rates"].as_array().unwrap().len();
        assert!(code == 1 && out.contains(&format!("\"pending\":{waiting},")), "{out}{err}");
        let log = agent.run(&["--for", "2s"]);
        assert!(!log.contains("damaged"), "{log}");
        let sent = kafka.events(&topic);
        let epoch = &then["events"][0]["epoch"];
        let of_then: Vec<Value> = sent.iter().filter(|event| event["epoch"] == *epoch).cloned().collect();
        assert_eq!(of_then.len(), then["events"].as_array().unwrap().len(), "once each");
        says_the_same(&of_then.into(), &then["events"], "events");
    }
}

// --- databases

fn fixture_topic(name: &str) -> TopicId {
    TopicId { cluster: "fixture".into(), name: name.into() }
}

fn fixture_options() -> StoreOptions {
    StoreOptions { instance: "fixture".into(), publishes: false, ..StoreOptions::default() }
}

fn open_store(url: &str) -> Box<dyn Store + Send> {
    StoreUrl::parse(url, None, None).unwrap().open(&fixture_options())
}

fn now() -> DateTime<Utc> {
    noon() + TimeDelta::hours(1)
}

fn fixture_batch(topic: &TopicId, from: i64, records: impl IntoIterator<Item = Record>) -> Batch {
    let mut batch = Batch::new(topic);
    records.into_iter().for_each(|record| batch.push(0, record, || (0, from)));
    batch
}

fn record(offset: i64, payload: &[u8]) -> Record {
    Record::new(offset, Some(1_795_176_000_000), Some(b"gw"), Some(payload))
}

fn derive(url: &str) {
    let mut histograms = StoreUrl::parse(url, None, None).unwrap().histograms(&fixture_options());
    while histograms.derive(now()).unwrap().has_more {}
}

/// Stores an event of each kind, windows with their hours and days, a message that no version can read, and one that the version
/// which stored it could not.
fn fill(url: &str) {
    let mut store = open_store(url);
    for (name, stored) in [("events", events()), ("rates", windows()), ("samples", vec![sample("gw", 1)])] {
        let topic = fixture_topic(name);
        insert_checkpoint(&mut *store, &topic, 0, &Checkpoint::default(), None).unwrap();
        let records = (0..).zip(&stored).map(|(offset, event)| record(offset, &wire::to_json(event)));
        store.apply(&fixture_batch(&topic, 0, records), now()).unwrap();
    }
    let next = events().len() as i64;
    let late = wire::to_json(&updated("gw", 14));
    let unread = (Some(&b"gw"[..]), Some(&late[..]), PackedHeaders::default());
    let letters =
        [record(next, b"no event"), Record::decoded(next + 1, None, unread, Err("of a later version".to_owned()))];
    store.apply(&fixture_batch(&fixture_topic("events"), next, letters), now()).unwrap();
    drop(store);
    derive(url);
}

const BY_DAY: &[&str] = &["rates", "--since", "2026-11-20T00:00:00Z", "--until", "2026-11-21T00:00:00Z", "--by", "day"];

const QUESTIONS: [&[&str]; 11] = [
    &["events"],
    &["breaches"],
    &["agents"],
    &["losses"],
    &["totals"],
    &["rates", "--since", "2026-11-20T00:00:00Z", "--until", "2026-11-21T00:00:00Z", "--by", "window"],
    BY_DAY,
    &["histogram", "--since", "2026-11-20T12:00:00Z", "--until", "2026-11-20T13:00:00Z"],
    &["histogram", "--since", "2026-11-20T00:00:00Z", "--until", "2026-11-21T00:00:00Z", "--direction", "rx"],
    &["percentile", "--agent", "gw", "--month", "2026-10", "--billing-day", "28"],
    &["dead-letters", "list"],
];

fn ask(url: &str, arguments: &[&str]) -> (i32, String, String) {
    output_of(consumer::command().args(arguments).env("HIGHWATER_STORE__URL", url))
}

/// Returns the answers to all questions, by their command lines.
fn answers(url: &str) -> Value {
    let answer = |arguments: &[&str]| {
        let (code, out, err) = ask(url, &[arguments, &["--format", "json"]].concat());
        assert!(code <= 1 && !out.is_empty(), "{arguments:?}: {code} {out}{err}");
        let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (arguments.join(" "), Value::from(rows))
    };
    Value::Object(QUESTIONS.into_iter().map(answer).collect())
}

/// Returns what the test of a database compares with: its answers, and where it goes on.
fn state(url: &str) -> Value {
    let mut store = open_store(url);
    let mut next = |name| store.checkpoints(&fixture_topic(name)).unwrap()[&0].next_offset;
    let (next_event, next_window) = (next("events"), next("rates"));
    let last = String::from_utf8(wire::to_json(&events().pop().unwrap())).unwrap();
    json!({"answers": answers(url), "next_event": next_event, "next_window": next_window, "last_event": last})
}

/// Asserts that questions are answered as they were, and that a consumer goes on from where the database is.
fn is_continued(url: &str, then: &Value) {
    says_the_same(&answers(url), &then["answers"], "answers");
    let mut store = open_store(url);
    let mut next = |name, field: &str| {
        let next = store.checkpoints(&fixture_topic(name)).unwrap()[&0].next_offset;
        assert_eq!(next, then[field].as_i64().unwrap(), "{name}");
        next
    };
    let (next_event, next_window) = (next("events", "next_event"), next("rates", "next_window"));
    // The last event comes again, as from an agent that sends it twice, and one that is new.
    let again = [then["last_event"].as_str().unwrap().as_bytes().to_vec(), wire::to_json(&updated("gw", 1_000))];
    let records = (next_event..).zip(&again).map(|(offset, payload)| record(offset, payload));
    assert_eq!(store.apply(&fixture_batch(&fixture_topic("events"), next_event, records), now()).unwrap().inserted, 1);
    let window = rates("gw", 9, vec![link_rates("eth0", Direction::Rx, &[7_000, 7_000])]);
    let window = record(next_window, &wire::to_json(&window));
    store.apply(&fixture_batch(&fixture_topic("rates"), next_window, [window]), now()).unwrap();
    drop(store);
    derive(url);
    let received = |answers: &Value| {
        let days = answers[BY_DAY.join(" ")].as_array().unwrap();
        days.iter().find(|day| day["direction"] == "rx").unwrap()["measured_s"].as_u64().unwrap()
    };
    assert_eq!(
        received(&answers(url)),
        received(&then["answers"]) + 2,
        "a day is made again of hours, an hour of windows"
    );
    let (code, out, err) = ask(url, &["dead-letters", "retry"]);
    assert!(code == 1 && err.contains("1 stored, 1 remain"), "{code} {out}{err}");
    let (_, out, _) = ask(url, &["events", "--format", "json"]);
    assert_eq!(out.lines().count(), then["answers"]["events"].as_array().unwrap().len() + 2, "{out}");
}

fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn write_sqlite(directory: &Path) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("highwater.db");
    fill(&sqlite_url(&path));
    fs::write(directory.join("highwater.db.json"), pretty(&state(&sqlite_url(&path)))).unwrap();
    // Its pages are mostly empty: smaller ones make a smaller fixture.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA page_size = 512; VACUUM").unwrap();
    drop(connection);
    fs::copy(&path, directory.join("highwater.db")).unwrap();
}

#[test]
fn a_sqlite_database_of_each_release_is_continued() {
    for fixtures in Fixtures::all(write_sqlite) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("highwater.db");
        fs::copy(fixtures.path.join("highwater.db"), &path).unwrap();
        is_continued(&sqlite_url(&path), &fixtures.json("highwater.db.json"));
    }
}

/// Returns the SQL that makes a database again, without what only `psql` understands or only a newer server.
fn dump(url: &str) -> String {
    let arguments = ["--inserts", "--no-comments", "--no-owner", "--no-privileges", "--dbname", url];
    let output = Command::new("pg_dump").args(arguments).output().expect("pg_dump runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let is_kept = |line: &&str| {
        !line.is_empty() && !line.starts_with("--") && !line.starts_with('\\') && !line.contains("transaction_timeout")
    };
    text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_postgresql_database_of_each_release_is_continued() {
    let test = "fixtures::a_postgresql_database_of_each_release_is_continued";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    if !is_installed("pg_dump") {
        return skip(test, "needs pg_dump");
    }
    let write = |directory: &Path| {
        let database = postgres.database("written");
        fill(&database.url);
        // The agent is silent for later readers: it is so from the beginning.
        database
            .client()
            .batch_execute("UPDATE agent_sequences SET last_stored_at = '2026-11-20 13:00:00+00'")
            .unwrap();
        fs::write(directory.join("postgres.sql.json"), pretty(&state(&database.url))).unwrap();
        fs::write(directory.join("postgres.sql"), dump(&database.url)).unwrap();
    };
    for fixtures in Fixtures::all(write) {
        let database = postgres.database("fixture");
        database.client().batch_execute(&fixtures.text("postgres.sql")).unwrap();
        is_continued(&database.url, &fixtures.json("postgres.sql.json"));
    }
}
