//! Formats on the wire: events that the agent writes, with and without a schema registry, and their rows.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::process::Command;
use std::time::{Duration, Instant};

use highwater::wire::{self, Format};
use serde_json::{Value, json};

use crate::support::agent::{self, Agent, until};
use crate::support::consumer::{self, Consumer};
use crate::support::events::{produce_raw, produce_to, updated};
use crate::support::process::Spawned;
use crate::support::registry::Registry;
use crate::support::services::{Kafka, kafka_and_postgres};

/// Ways in which an agent writes, with the content-type and the first bytes of its messages.
const WAYS: [(Format, bool, &str, &str); 5] = [
    (Format::Json, false, "application/json", "7b"),
    (Format::Avro, false, "application/avro", "c301"),
    (Format::Avro, true, "application/vnd.confluent.avro", "00"),
    (Format::Protobuf, false, "application/protobuf", "08"),
    (Format::Protobuf, true, "application/vnd.confluent.protobuf", "00"),
];

fn agent_config(brokers: &str, topic: &str, format: Format, registry: Option<&str>) -> String {
    let registry = registry.map_or(String::new(), |url| format!("[kafka.registry]\nurl = '{url}'\n"));
    format!(
        "agent = 'gw {format}'\ninterval = '100ms'\nsource = 'synthetic'\n\
         [[limit]]\nname = 'low'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n\
         [flush]\ninterval = '300ms'\n[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\nformat = '{format}'\n{registry}"
    )
}

fn consumer_config(brokers: &str, topic: &str, database: &str, registry: Option<&str>) -> String {
    let registry = registry.map_or(String::new(), |url| format!("[kafka.registry]\nurl = '{url}'\n"));
    format!(
        "[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\ngroup = '{topic}'\n{registry}[store]\nurl = '{database}'\n"
    )
}

#[test]
fn all_formats_mixed_in_one_topic_become_rows_and_are_cloud_events() {
    let test = "formats::all_formats_mixed_in_one_topic_become_rows_and_are_cloud_events";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    let (topic, database) = (kafka.topic("formats", 1), postgres.database("formats"));
    let (mut accepted_in_all, mut seen) = (0, 0);
    for (format, registered, content_type, begins) in WAYS {
        // A topic has one value schema: each format of those that are kept takes its own.
        let url = registered.then_some(registry.url.as_str());
        if registered && format == Format::Protobuf {
            registry.ask("DELETE", &format!("/subjects/{topic}-value"), &Value::Null);
        }
        let mut agent = Agent::new(&agent_config(&kafka.address, &topic, format, url));
        agent.run(&["--for", "2s"]);
        let (epoch, accepted) = agent.accepted();
        assert_eq!(agent.pending(), 0, "{format}");
        // Headers raw, in their order.
        let messages = kafka.read(&topic, "%h %S\n");
        let messages = &messages[seen..];
        assert_eq!(messages.len() as u64, accepted, "{format}");
        for (at, message) in messages.iter().enumerate() {
            let (headers, _) = message.split_once(' ').expect("headers and a size");
            let names: Vec<&str> =
                headers.split(',').map(|header| header.split_once('=').expect("NAME=VALUE").0).collect();
            assert_eq!(names, ["ce_specversion", "ce_type", "content-type", "ce_id", "ce_source", "ce_time"]);
            let (common, own) = headers.split_once(",ce_id=").expect("its own come after those of its kind");
            assert!(common.starts_with("ce_specversion=1.0,ce_type=io.highwater."), "{headers}");
            assert!(common.ends_with(&format!(",content-type={content_type}")), "{headers}");
            assert!(
                own.starts_with(&format!("{epoch}-{},ce_source=/highwater/gw%20{format},ce_time=20", at + 1)),
                "{headers}"
            );
        }
        let dump = kafka.first_bytes(&topic, seen as i64);
        assert!(dump.starts_with(begins), "{format}: {dump}");
        accepted_in_all += accepted;
        seen += messages.len();
    }
    let mut consumer = Consumer::with(&consumer_config(&kafka.address, &topic, &database.url, Some(&registry.url)));
    consumer.run_until_end();
    assert_eq!(
        database.ask("SELECT count(*) FROM dead_letters"),
        "(0)",
        "{}",
        database.ask("SELECT error FROM dead_letters")
    );
    assert_eq!(database.ask("SELECT count(*), count(DISTINCT epoch) FROM events"), format!("({accepted_in_all},5)"));
    assert_eq!(database.ask("SELECT count(*) FROM sequence_gaps"), "(0)");
}

/// First it accepts connections and answers nothing, then it is gone.
#[test]
fn a_registry_that_is_away_keeps_events_in_the_journal_and_holds_no_tick() {
    let test = "formats::a_registry_that_is_away_keeps_events_in_the_journal_and_holds_no_tick";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let Some(registry) = Registry::own(test) else { return };
    let topic = kafka.topic("away", 1);
    let mut agent = Agent::new(&agent_config(&kafka.address, &topic, Format::Avro, Some(&registry.url)));
    registry.start();
    registry.signal("STOP");
    let mut running = agent.start(&[]);
    let away = format!("cannot publish: schema registry {}: ", registry.url);
    running.until(&format!("{away}timeout"));
    registry.kill();
    running.until(&format!("{away}io: Connection refused"));
    running.until("the events stay in the journal");
    assert_eq!(kafka.read(&topic, "%o\n").len(), 0);
    registry.start();
    running.until("writing avro with schema 1");
    running.until(" delivered to");
    running.signal("TERM");
    assert!(running.wait().success());
    let log = running.log();
    // A tick that had waited for the registry would have been late by 10 s: 100 others.
    let skipped = log.split(" skipped,").next().and_then(|before| before.rsplit('(').next()).expect("it says how many");
    assert!(skipped.parse::<u32>().expect("a number") < 50, "{log}");
    assert!(log.matches("cannot publish").count() < 12, "a line now and then: {log}");
    assert_eq!((agent.pending(), agent.accepted().1), (0, kafka.read(&topic, "%o\n").len() as u64));
}

/// Stopped, it accepts connections and answers nothing.
#[test]
fn a_consumer_waits_for_a_registry_that_is_away_and_makes_no_dead_letter() {
    let test = "formats::a_consumer_waits_for_a_registry_that_is_away_and_makes_no_dead_letter";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(registry) = Registry::own(test) else { return };
    let (topic, database) = (kafka.topic("waits", 1), postgres.database("waits"));
    registry.start();
    produce_raw(&kafka.address, &topic, (1..=3).map(|seq| ("gw".to_owned(), wire::to_json(&updated("gw", seq)))), None);
    let mut agent = Agent::new(&agent_config(&kafka.address, &topic, Format::Avro, Some(&registry.url)));
    agent.run(&["--for", "1s"]);
    let (epoch, accepted) = agent.accepted();
    registry.signal("STOP");
    let mut consumer = Consumer::with(&consumer_config(&kafka.address, &topic, &database.url, Some(&registry.url)));
    let running = consumer.start(&[]);
    running.until(&format!(
        "schema registry {}: no answer yet; {topic}[0] waits for it, and nothing is skipped",
        registry.url
    ));
    // Messages before it are stored meanwhile.
    database.until("SELECT count(*) FROM events", "(3)");
    registry.signal("CONT");
    running.until("the schema registry answers");
    database.until(&format!("SELECT count(*) FROM events WHERE epoch = '{epoch}'"), &format!("({accepted})"));
    assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(0)");
    assert_eq!(database.ask("SELECT count(*) FROM kafka_gaps"), "(0)");
}

/// A message framed with the id of a schema.
fn framed(agent: &str, seq: u64, format: Format, id: u32) -> Vec<u8> {
    let event = updated(agent, seq);
    wire::message(&event, &wire::to_json(&event), format, Some(id)).payload.into_owned()
}

/// A misconfigured registry is the operator's to mend: the other partitions go on, at their pace.
#[test]
fn only_the_partition_of_a_framed_message_waits_for_the_registry() {
    let test = "formats::only_the_partition_of_a_framed_message_waits_for_the_registry";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("one-waits", 2), postgres.database("one_waits"));
    let plain =
        |agent: &'static str, seqs: RangeInclusive<u64>| seqs.map(move |seq| wire::to_json(&updated(agent, seq)));
    let messages = plain("gw", 1..=3).chain([framed("gw", 4, Format::Avro, 7)]).chain(plain("gw", 5..=6));
    produce_to(&kafka.address, &topic, 0, messages);
    produce_to(&kafka.address, &topic, 1, plain("other", 1..=10));
    let mut consumer =
        Consumer::with(&consumer_config(&kafka.address, &topic, &database.url, Some("http://127.0.0.1:9")));
    let mut running = consumer.start(&[]);
    running.until("waits for it, and nothing is skipped");
    let stored = "SELECT agent, count(*) FROM events GROUP BY 1";
    database.until(stored, "(gw,3) (other,10)");
    for last in [20, 30] {
        produce_to(&kafka.address, &topic, 1, plain("other", last - 9..=last));
        let sent = Instant::now();
        database.until(stored, &format!("(gw,3) (other,{last})"));
        assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
    }
    let offsets = "SELECT next_offset FROM kafka_offsets ORDER BY next_offset";
    assert_eq!(database.ask(offsets), "(3) (30)");
    running.signal("TERM");
    assert!(running.wait().success());
    assert!(!running.log().contains("dead letter:"), "{}", running.log());
}

/// Starts a registry that refuses each question, and returns its URL. Its thread ends with the tests.
fn refusing_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                lines.find(String::is_empty);
                let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 12\r\nconnection: close\r\n\r\nwho are you?";
                let _ = (&stream).write_all(answer.as_bytes());
            });
        }
    });
    url
}

/// After a while it is a dead letter, which comes back as soon as a registry has its schema.
#[test]
fn a_schema_that_is_long_in_coming_is_given_up_and_retry_brings_its_messages_back() {
    let test = "formats::a_schema_that_is_long_in_coming_is_given_up_and_retry_brings_its_messages_back";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    let (topic, database) = (kafka.topic("give-up", 1), postgres.database("give_up"));
    let schema = json!({"schema": Format::Avro.schema()});
    let answer = registry.ask("POST", &format!("/subjects/{topic}-value/versions"), &schema);
    let id = serde_json::from_str::<Value>(&answer).unwrap()["id"].as_u64().unwrap() as u32;
    let messages = (1..=50).map(|seq| match seq % 2 {
        0 => ("gw".to_owned(), wire::to_json(&updated("gw", seq))),
        _ => ("gw".to_owned(), framed("gw", seq, Format::Avro, id)),
    });
    produce_raw(&kafka.address, &topic, messages, None);
    let away = consumer_config(&kafka.address, &topic, &database.url, Some("http://127.0.0.1:9"));
    let impatient = away.replace("[kafka.registry]\n", "[kafka.registry]\ngive_up = '3s'\n");
    let (_, log) = Consumer::with(&impatient).run_until_end();
    assert!(!log.contains("the schema registry answers"), "{log}");
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(25)", "{log}");
    let letters = database.ask("SELECT count(*), min(error), count(DISTINCT agent) FROM dead_letters");
    assert!(letters.starts_with("(25,\"no schema for "), "{letters}");
    for says in ["schema registry http://127.0.0.1:9: ", "run `highwater-consumer dead-letters retry`"] {
        assert!(letters.contains(says), "{letters}");
    }
    // A registry that refuses is no better than one that is away.
    let refused = postgres.database("refused");
    let refusing = consumer_config(&kafka.address, &topic, &refused.url, Some(&refusing_registry()));
    // Long enough for its answer on a busy machine.
    let impatient = refusing.replace("[kafka.registry]\n", "[kafka.registry]\ngive_up = '8s'\n");
    let (_, log) = Consumer::with(&impatient).run_until_end();
    assert_eq!(refused.ask("SELECT count(*) FROM events"), "(25)", "{log}");
    let letters = refused.ask("SELECT count(*), min(error), max(error) FROM dead_letters");
    assert!(letters.starts_with("(25,\"no schema for "), "{letters}");
    assert_eq!(letters.matches(": 401 who are you?; check kafka.registry.username").count(), 2, "{letters}");
    let seeing = Consumer::with(&consumer_config(&kafka.address, &topic, &database.url, Some(&registry.url)));
    let retried =
        consumer::command().args(["dead-letters", "retry", "--config"]).arg(seeing.config()).output().unwrap();
    assert_eq!(retried.status.code(), Some(0), "{}", String::from_utf8_lossy(&retried.stderr));
    assert_eq!(database.ask("SELECT count(*), count(DISTINCT seq) FROM events"), "(50,50)");
}

#[test]
fn a_schema_that_does_not_fit_is_held_and_said() {
    let test = "formats::a_schema_that_does_not_fit_is_held_and_said";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    let topic = kafka.topic("unfit", 1);
    let subject = format!("/subjects/{topic}-value");
    let other = r#"{"type": "record", "name": "Event", "namespace": "io.highwater", "fields": [{"name": "x", "type": "string"}]}"#;
    let answer = registry.ask("POST", &format!("{subject}/versions"), &json!({"schema": other}));
    assert!(answer.contains("\"id\""), "{answer}");
    registry.ask("PUT", &format!("/config/{topic}-value"), &json!({"compatibility": "BACKWARD"}));
    let mut agent = Agent::new(&agent_config(&kafka.address, &topic, Format::Avro, Some(&registry.url)));
    let mut running = agent.start(&[]);
    running.until("409 ");
    running.until("does not fit those before it: write to another topic, or ease the subject's compatibility rule");
    assert_eq!(kafka.read(&topic, "%o\n").len(), 0);
    registry.ask("PUT", &format!("/config/{topic}-value"), &json!({"compatibility": "NONE"}));
    running.until(" delivered to");
    running.signal("TERM");
    assert!(running.wait().success());
    assert_eq!(agent.accepted().1, kafka.read(&topic, "%o\n").len() as u64);
}

#[test]
fn a_schema_that_is_only_looked_up_is_asked_for_by_name() {
    let test = "formats::a_schema_that_is_only_looked_up_is_asked_for_by_name";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    for (format, kind, name) in [(Format::Avro, "AVRO", "avsc"), (Format::Protobuf, "PROTOBUF", "proto")] {
        let topic = kafka.topic("lookup", 1);
        let config = agent_config(&kafka.address, &topic, format, Some(&registry.url)) + "auto_register = false\n";
        let mut agent = Agent::new(&config);
        let mut running = agent.start(&[]);
        let remedy = format!(
            "register what `highwater-agent schema --format {name}` prints as {topic}-value, or set kafka.registry.auto_register"
        );
        running.until(&remedy);
        let answer = registry.ask("GET", &format!("/subjects/{topic}-value/versions"), &Value::Null);
        assert!(answer.contains("40401"), "nothing was registered: {answer}");
        let printed = agent::command().args(["schema", "--format", name]).output().unwrap();
        let schema = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(schema, format.schema());
        registry.ask(
            "POST",
            &format!("/subjects/{topic}-value/versions"),
            &json!({"schema": schema, "schemaType": kind}),
        );
        running.until(" delivered to");
        running.signal("TERM");
        assert!(running.wait().success());
    }
}

/// Alone and between events; each has its error, and holds up nothing.
#[test]
fn what_no_schema_explains_is_a_dead_letter_that_says_why_and_comes_back_when_it_is_explained() {
    let test = "formats::what_no_schema_explains_is_a_dead_letter_that_says_why_and_comes_back_when_it_is_explained";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    let (topic, database) = (kafka.topic("unknown", 1), postgres.database("unknown"));
    let answer =
        registry.ask("POST", &format!("/subjects/{topic}-value/versions"), &json!({"schema": Format::Avro.schema()}));
    let id = serde_json::from_str::<Value>(&answer).unwrap()["id"].as_u64().unwrap() as u32;
    let written = |seq: u64, format, id| {
        let event = updated("gw", seq);
        wire::message(&event, &wire::to_json(&event), format, id).payload.into_owned()
    };
    let mut strange = written(9, Format::Avro, None);
    strange[2] ^= 1;
    let messages = [
        written(1, Format::Avro, Some(id)),
        written(8, Format::Avro, Some(2_000_000_000)),
        written(8, Format::Protobuf, Some(u32::MAX)),
        written(2, Format::Protobuf, None),
        vec![0, 0, 0],
        strange,
        written(3, Format::Json, None),
    ];
    produce_raw(&kafka.address, &topic, messages.map(|payload| ("gw".to_owned(), payload)), None);
    let blind = consumer_config(&kafka.address, &topic, &database.url, None);
    Consumer::with(&blind).run_until_end();
    assert_eq!(database.ask("SELECT seq FROM events"), "(2) (3)");
    let letters = database.ask("SELECT kafka_offset, error FROM dead_letters");
    for says in [
        format!(
            "(0,\"needs schema {id} from a schema registry, and none is configured; set kafka.registry.url and run `highwater-consumer dead-letters retry`"
        ),
        "(4,\"truncated: the header of Confluent's wire format takes 5 bytes, and only 3 are left\")".to_owned(),
        "(5,\"Avro with the schema fingerprint ".to_owned(),
    ] {
        assert!(letters.contains(&says), "{says} {letters}");
    }

    // With a registry: a schema that it has brings the message back, one that it does not have leaves it.
    let seeing = consumer_config(&kafka.address, &topic, &database.url, Some(&registry.url));
    let consumer = Consumer::with(&seeing);
    let retried =
        consumer::command().args(["dead-letters", "retry", "--config"]).arg(consumer.config()).output().unwrap();
    let table = String::from_utf8_lossy(&retried.stdout).into_owned() + &String::from_utf8_lossy(&retried.stderr);
    assert_eq!(retried.status.code(), Some(1), "{table}");
    assert!(table.contains("1 stored, 4 remain"), "{table}");
    assert!(table.contains("needs schema 2000000000, which the schema registry at"), "{table}");
    assert_eq!(database.ask("SELECT seq FROM events"), "(1) (2) (3)");

    // And where it can't be asked, nothing is decided.
    let nobody = consumer_config(&kafka.address, &topic, &database.url, Some("http://127.0.0.1:9"));
    let consumer = Consumer::with(&nobody);
    let retried =
        consumer::command().args(["dead-letters", "retry", "--config"]).arg(consumer.config()).output().unwrap();
    assert_eq!(retried.status.code(), Some(69), "{}", String::from_utf8_lossy(&retried.stderr));
    assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(4)");
}

#[test]
fn the_schemas_are_printed_as_they_are_shipped() {
    for (name, format) in [("avsc", Format::Avro), ("proto", Format::Protobuf), ("json-schema", Format::Json)] {
        let output = agent::command().args(["schema", "--format", name]).output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format.schema());
    }
    let output = agent::command().args(["schema", "--format", "xml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("json-schema, avsc, proto"));
}

/// A registry behind TLS that wants a password: the right one, and the errors for wrong ones.
#[test]
fn a_registry_behind_tls_is_asked_with_a_password_and_verified() {
    let test = "formats::a_registry_behind_tls_is_asked_with_a_password_and_verified";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=registry",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-out",
            &at("cert"),
            "-keyout",
            &at("key"),
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let script = format!("{}/tests/interop/tls.py", env!("CARGO_MANIFEST_DIR"));
    let _server = Spawned::start(Command::new("python3").args([
        &script,
        &at("cert"),
        &at("key"),
        &at("port"),
        "operator:s3cret",
        &registry.url,
    ]));
    let port =
        until("the port is known", || std::fs::read_to_string(at("port")).ok().filter(|port| port.ends_with('\n')));
    std::fs::write(at("password"), "s3cret\n").unwrap();
    std::fs::write(at("wrong"), "guess\n").unwrap();
    let url = |host: &str| format!("https://{host}:{}", port.trim());
    let try_with = |host: &str, ca: bool, password: &str, wanted: &str| {
        let topic = kafka.topic("tls", 1);
        let ca = if ca { format!("ca_file = '{}'\n", at("cert")) } else { String::new() };
        let config = agent_config(&kafka.address, &topic, Format::Avro, Some(&url(host)))
            + &format!("{ca}username = 'operator'\npassword_file = '{}'\n", at(password));
        let mut agent = Agent::new(&config);
        let running = agent.start(&[]);
        running.until(wanted);
        assert!(!running.log().contains("s3cret") && !running.log().contains("guess"));
    };
    try_with("localhost", true, "password", " delivered to");
    try_with("localhost", true, "wrong", "401 who are you?; check kafka.registry.username");
    try_with("localhost", false, "password", "check kafka.registry.ca_file");
    try_with("127.0.0.1", true, "password", "check kafka.registry.ca_file");
}
