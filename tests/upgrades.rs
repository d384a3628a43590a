//! Newer versions met by this one: a journal and tables that they left are refused by name and not changed, and what their agents
//! send is stored.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use highwater::consumer::store::{StoreOptions, StoreUrl};
use highwater::message::{Body, Direction, Event};
use highwater::wire::{self, Format};
use rusqlite::config::DbConfig;
use serde_json::Value;

use crate::consumer_commands::{CommandFixture, fields};
use crate::support::agent::{self, Agent};
use crate::support::consumer::{self, Consumer};
use crate::support::events::{event, link_rates, produce, rates, started, updated};
use crate::support::process::output_of;
use crate::support::services::Kafka;
use crate::support::stores::topic_id;

/// Makes of a journal one of the next version, as its agent would: other tables, and the version in both places. With `in_log`, that
/// agent was killed before its log was copied back.
fn upgrade_journal(path: &Path, in_log: bool) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, in_log).unwrap();
    connection
        .execute_batch(
            "BEGIN; CREATE TABLE new (  -- journal version 2
                 id INTEGER PRIMARY KEY, mood TEXT) STRICT;
             DROP TABLE meta; ALTER TABLE new RENAME TO meta; PRAGMA user_version = 2; COMMIT",
        )
        .unwrap();
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    all.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_newer_agents_journal_is_refused_and_not_changed() {
    for in_log in [false, true] {
        let mut agent = Agent::new("agent = 'gw'\nsource = 'synthetic'\n[kafka]\nbrokers = '127.0.0.1:9'\n");
        agent.run(&["--for", "1s"]);
        let (epoch, accepted) = agent.accepted();
        let journal = agent.state_dir().join("journal.db");
        upgrade_journal(&journal, in_log);
        assert_eq!(agent.state_dir().join("journal.db-wal").exists(), in_log);
        let before = files(&agent.state_dir());
        let why = format!(
            "{} is the journal of a newer agent (version 2; this one, {}, knows 1): install that agent again; or move journal.db \
             and journal.db-wal away, and the events in them that Kafka does not have are declared lost",
            journal.display(),
            env!("CARGO_PKG_VERSION")
        );
        let mut running = agent.start(&[]);
        assert_eq!(running.wait().code(), Some(78), "systemd does not start it again: {}", running.log());
        assert!(running.log().contains(&format!("error: {why}\n")), "{}", running.log());
        let ask = |command: &str| output_of(agent::command().args([command, "-c"]).arg(agent.config()));
        let (code, out, err) = ask("status");
        assert!(code == 1 && err.contains(&why), "{code} {out}{err}");
        let (code, out, err) = ask("check");
        assert!(code == 1 && out.contains(&format!("FAILED   journal: {why}\n")), "{code} {out}{err}");
        assert!(
            files(&agent.state_dir()) == before,
            "{:?}",
            fs::read_dir(agent.state_dir()).unwrap().collect::<Vec<_>>()
        );

        // The second remedy: the mark that stays knows which events are lost.
        for name in ["journal.db", "journal.db-wal"] {
            let _ = fs::rename(agent.state_dir().join(name), agent.state_dir().join(format!("away.{name}")));
        }
        agent.run(&["--for", "1s"]);
        let connection = rusqlite::Connection::open(&journal).unwrap();
        let sql = "SELECT payload FROM events WHERE CAST(payload AS TEXT) ->> 'kind' = 'loss' AND CAST(payload AS TEXT) ->> 'lost_epoch' = ?";
        let loss: Vec<u8> = connection.query_row(sql, [&epoch], |row| row.get(0)).unwrap();
        let loss: Value = serde_json::from_slice(&loss).unwrap();
        assert_eq!(
            (&loss["ranges"], &loss["reason"]),
            (&serde_json::json!([[1, accepted]]), &"damaged".into()),
            "{loss}"
        );
    }
}

/// Stores an event, and then changes the tables as another version would.
fn change(fixture: &mut CommandFixture, sql: &str) {
    fixture.store_events(&[updated("gw", 1)]);
    // Ends the session.
    fixture.store = StoreUrl::parse(&fixture.url, None, None).unwrap().open(&StoreOptions::default());
    fixture.run(sql);
}

/// A consumer ends with 78, and stores nothing; `check` and questions say the same.
fn is_refused(fixture: &CommandFixture, kafka: &Kafka, wanted: [&str; 2]) {
    let topic = kafka.topic("refused", 1);
    produce(&kafka.address, &topic, &[updated("gw", 2)]);
    let says = |text: &str| {
        let all = wanted.into_iter().chain(["install that"]);
        all.for_each(|says| assert!(text.contains(says), "{says}: {text}"));
    };
    let mut running = Consumer::new(&kafka.address, &topic, &fixture.url).start(&[]);
    assert_eq!(running.wait().code(), Some(78), "{}", running.log());
    says(running.log().lines().last().unwrap());
    for arguments in [&["events"][..], &["breaches"], &["dead-letters", "list"], &["dead-letters", "retry"]] {
        let (code, out, err) = fixture.output(arguments);
        assert!(code == 69 && out.is_empty(), "{arguments:?} {code} {out}{err}");
        says(&err);
    }
    let (code, out, err) = fixture.output(&["check", "-b", &kafka.address, "-t", &topic]);
    assert_eq!(code, 1, "{out}{err}");
    says(out.lines().find(|line| line.starts_with("FAILED   database: ")).unwrap());
}

#[test]
fn a_newer_sqlite_database_is_refused_and_not_changed() {
    let test = "upgrades::a_newer_sqlite_database_is_refused_and_not_changed";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let mut fixture = CommandFixture::sqlite();
    // Another mode of the file, too: it is not to be converted.
    let next = "PRAGMA journal_mode = DELETE; ALTER TABLE events ADD COLUMN mood text; PRAGMA user_version = 2";
    change(&mut fixture, next);
    let path = fixture.url.strip_prefix("sqlite:").unwrap();
    let before = fs::read(path).unwrap();
    is_refused(
        &fixture,
        &kafka,
        ["has the tables of a newer version of this program (version 2; this one, ", ", knows 1)"],
    );
    assert!(fs::read(path).unwrap() == before);
}

#[test]
fn a_newer_or_divergent_postgresql_schema_is_refused() {
    let test = "upgrades::a_newer_or_divergent_postgresql_schema_is_refused";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    for (next, says) in [
        (
            "INSERT INTO highwater_migrations (version, name, applied_on, checksum) VALUES (2, 'quotas', '', '7')",
            ["a newer version of this program (migration V2__quotas; this one, ", ", knows up to V1)"],
        ),
        (
            "UPDATE highwater_migrations SET checksum = '7'",
            ["its migration V1__tables (checksum 7 in highwater_migrations) is not the one of ", "by another build"],
        ),
    ] {
        let Some(mut fixture) = CommandFixture::postgres(test) else { return };
        change(&mut fixture, next);
        is_refused(&fixture, &kafka, says);
        assert_eq!(fixture.numbers("SELECT count(*) FROM events"), [1]);
    }
}

/// A file with a version of its own is another program's, whatever the version is.
#[test]
fn a_sqlite_file_of_another_program_is_refused_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("places.sqlite");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE places (url text); PRAGMA user_version = 54").unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    let url = format!("sqlite:{}", path.display());
    let ask =
        |mut command: Command, arguments: &[&str]| output_of(command.args(arguments).env("HIGHWATER_STORE__URL", &url));
    let (code, _, err) = ask(consumer::command(), &["events"]);
    assert!(code == 69 && err.contains("is not a database of this program"), "{code} {err}");
    let mut store = StoreUrl::parse(&url, None, None).unwrap().open(&StoreOptions::default());
    let error = store.checkpoints(&topic_id("events")).unwrap_err().to_string();
    assert!(error.contains("has tables of another program; name another file in store.url"), "{error}");
    drop(store);
    assert!(fs::read(&path).unwrap() == before);
}

/// Messages as a next version of the agent would send them, and what becomes of each.
fn is_stored(mut fixture: CommandFixture) {
    let json = |event: &Event| String::from_utf8(wire::to_json(event)).unwrap();
    let next = |json: String| json.replacen("\"schema\":1", "\"schema\":2,\"mood\":{\"good\":[true,null]}", 1);
    let binary = |event: &Event, format| wire::message(event, &wire::to_json(event), format, None).payload.into_owned();
    let raised = |seq| updated("gw", seq);
    let window = rates("gw", 1, vec![link_rates("eth0", Direction::Rx, &[7_000])]);
    let in_item = json(&window).replacen("\"interface\":", "\"colour\":\"red\",\"interface\":", 1);
    // Fields 99 (text) and 100 (a fixed64), which this version does not have; and 1 is the schema's version.
    let mut protobuf =
        [&binary(&raised(2), Format::Protobuf)[..], b"\x9a\x06\x04good\xa1\x06\0\0\0\0\0\0\0\0"].concat();
    protobuf[1] = 2;
    let unknown = event("gw", 3, Body::Unknown("quota_reached".into()));
    let mut unknown_protobuf = binary(&event("gw", 4, Body::Unknown("quota_reached".into())), Format::Protobuf);
    unknown_protobuf.extend(b"\x9a\x06\x04good");
    // By a schema that came after this version.
    let mut avro = binary(&raised(5), Format::Avro);
    avro[2] ^= 1;
    fixture.store(&[
        next(json(&raised(1))).into_bytes(),
        protobuf,
        next(json(&unknown)).into_bytes(),
        unknown_protobuf,
        avro,
        next(json(&raised(6)).replace("\"warning\"", "\"emergency\"")).into_bytes(),
        next(json(&raised(7)).replace("\"rx\"", "\"forwarded\"")).into_bytes(),
        next(json(&event("gw", 8, started())).replace("\"version\"", "\"reason\":\"update\",\"version\"")).into_bytes(),
        next(in_item).into_bytes(),
    ]);
    let (code, rows) = fixture.rows(&["events"]);
    let kinds = fields(&rows, &["seq", "kind"]);
    let stored = ["1 breach_updated", "2 breach_updated", "3 quota_reached", "4 quota_reached", "8 agent_started"];
    assert_eq!((code, kinds), (0, stored.map(str::to_owned).to_vec()));
    // The whole message of an unknown kind is kept for a later version.
    let kept = "SELECT count(*) FROM events WHERE kind = 'quota_reached' AND CAST(raw AS text) LIKE ";
    assert_eq!(fixture.numbers(&format!("{kept} '%mood%'")), [1]);
    assert_eq!(fixture.numbers(&format!("{kept} '%protobuf%'")), [1]);
    assert_eq!(fixture.numbers("SELECT count(*) FROM rates WHERE measured_s = 1"), [1]);
    let (code, rows) = fixture.rows(&["dead-letters", "list"]);
    assert_eq!(code, 0);
    let errors = fields(&rows, &["seq", "error"]);
    for (seq, says) in [
        ("null", "Avro with the schema fingerprint "),
        ("6", "field `severity`: `emergency` is none of warning, critical"),
        ("7", "field `direction`: `forwarded` is none of rx, tx, total"),
    ] {
        assert!(errors.iter().any(|error| error.starts_with(seq) && error.contains(says)), "{seq} {says}: {errors:?}");
    }
    assert_eq!(errors.len(), 3, "{errors:?}");
    // Dead letters wait for a version that can read them: a retry by this one changes nothing.
    let (code, _, err) = fixture.output(&["dead-letters", "retry"]);
    assert!(code == 1 && err.contains("0 stored, 3 remain"), "{code} {err}");
}

#[test]
fn events_of_a_newer_agent_are_stored_in_sqlite() {
    is_stored(CommandFixture::sqlite());
}

#[test]
fn events_of_a_newer_agent_are_stored_in_postgresql() {
    if let Some(fixture) = CommandFixture::postgres("upgrades::events_of_a_newer_agent_are_stored_in_postgresql") {
        is_stored(fixture);
    }
}
