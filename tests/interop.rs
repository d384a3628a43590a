//! Clients of others: they read the agent's messages, and their messages are stored. See `tests/interop/client.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use chrono::{DurationRound as _, TimeDelta, Utc};
use highwater::message::histogram::RateHistogram;
use highwater::message::{Body, Direction, LinkRates};
use highwater::wire::{self, Format};
use serde_json::{Value, json};

use crate::consumer_commands::CommandFixture;
use crate::consumer_reports::{store_hour_or_day, store_windows, window, with_partitions};
use crate::support::agent::{Agent, command, until};
use crate::support::consumer::Consumer;
use crate::support::events::{
    breach, event, link_rates, loss, noon, produce_raw, rates_since, sample, started, updated,
};
use crate::support::process::Spawned;
use crate::support::registry::Registry;
use crate::support::services::{Kafka, kafka_and_postgres};
use crate::support::skips::skip;

fn python_or_skip(test: &str) -> Option<String> {
    let python = std::env::var("HIGHWATER_TEST_PYTHON").ok();
    if python.is_none() {
        skip(test, "needs Python with the packages of tests/interop");
    }
    python
}

fn run(python: &str, script: &str, arguments: &[&str], input: impl AsRef<[u8]>) -> String {
    let schemas = tempfile::tempdir().expect("a directory");
    for (format, file) in
        [(Format::Json, "event.schema.json"), (Format::Avro, "event.avsc"), (Format::Protobuf, "event.proto")]
    {
        std::fs::write(schemas.path().join(file), format.schema()).expect("it is written");
    }
    let mut command = Command::new(python);
    command.arg(format!("{}/{script}", env!("CARGO_MANIFEST_DIR"))).args(arguments);
    command.env("HIGHWATER_TEST_SCHEMAS", schemas.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Spawned::start(&mut command);
    child.stdin.take().expect("piped").write_all(input.as_ref()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{script} {arguments:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn other_peoples_clients_read_what_the_agent_writes_in_every_format() {
    let test = "interop::other_peoples_clients_read_what_the_agent_writes_in_every_format";
    let (Some(kafka), Some(python)) = (Kafka::or_skip(test), python_or_skip(test)) else { return };
    let Some(registry) = Registry::or_skip(test) else { return };
    for (format, registered) in [
        (Format::Json, false),
        (Format::Avro, false),
        (Format::Avro, true),
        (Format::Protobuf, false),
        (Format::Protobuf, true),
    ] {
        let topic = kafka.topic("theirs", 1);
        let keeper = if registered { format!("[kafka.registry]\nurl = '{}'\n", registry.url) } else { String::new() };
        let mut agent = Agent::new(&format!(
            "agent = 'büro 1'\ninterval = '100ms'\nsource = 'synthetic'\n\
             [[limit]]\nname = 'low'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n\
             [flush]\ninterval = '300ms'\n[kafka]\nbrokers = '{}'\ntopic = '{topic}'\nformat = '{format}'\n{keeper}",
            kafka.address
        ));
        agent.run(&["--for", "2s"]);
        let (epoch, accepted) = agent.accepted();
        let series = format!("{}/tests/data/ec2_network_in_257a54.csv", env!("CARGO_MANIFEST_DIR"));
        let mut replay = command();
        replay.args(["replay", &series, "--agent", "büro 1", "--publish-samples", "-b", &kafka.address]);
        replay.args(["-c", agent.config().to_str().expect("text")]).env("HIGHWATER_TOPICS__SAMPLES", &topic);
        let output = replay.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut arguments = vec!["read", "--brokers", &kafka.address, "--topic", &topic];
        if registered {
            arguments.extend(["--registry", &registry.url]);
        }
        let printed = run(&python, "tests/interop/client.py", &arguments, "");
        let read: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let (read, samples) = read.split_at(accepted as usize);
        assert_eq!(samples.len(), 4_032, "{format}");
        let own = samples[0]["event"]["epoch"].as_str().expect("text").to_owned();
        assert_ne!(own, epoch);
        let counted = read.iter().zip(1..).map(|(event, seq)| (event, &epoch, seq));
        for (message, epoch, seq) in counted.chain(samples.iter().zip(1..).map(|(sample, seq)| (sample, &own, seq))) {
            let (theirs, cloud) = (&message["event"], &message["cloudevent"]);
            // Their reading of it is, as JSON, the very event.
            let event =
                wire::from_json(theirs.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {theirs}"));
            let ours: Value = serde_json::from_slice(&wire::to_json(&event)).unwrap();
            assert_eq!(&ours, theirs, "{format}");
            assert_eq!((&event.id.epoch.to_string(), event.id.seq), (epoch, seq));
            assert_eq!(message["key"], "büro 1");
            assert_eq!(cloud["id"], format!("{epoch}-{seq}"));
            assert_eq!(cloud["source"], "/highwater/b%C3%BCro%201");
            assert_eq!(cloud["type"], format!("io.highwater.{}.v1", event.body.kind()));
            assert_eq!(cloud["time"], theirs["observed_at"]);
        }
        assert!(read.iter().any(|message| message["event"]["kind"] == "breach_raised"));
    }
}

/// Returns what Python's hdrhistogram makes of histograms in base64, merged where their names are the same.
fn by_hdrhistogram(python: &str, histograms: impl Iterator<Item = (String, Value)>) -> BTreeMap<String, Value> {
    let lines = histograms.map(|(name, histogram)| json!({ "name": name, "histogram": histogram }).to_string() + "\n");
    let printed = run(python, "tests/interop/histograms.py", &[], lines.collect::<String>());
    serde_json::from_str(&printed).expect("JSON")
}

/// Rates of agents in every format, all in one topic, and the hours that the consumer makes of them and publishes: read by kcat and
/// confluent-kafka, and the histograms of both by hdrhistogram, to which the windows of an hour are that hour.
#[test]
fn other_peoples_clients_read_rates_and_merge_them_to_the_published_hours() {
    let test = "interop::other_peoples_clients_read_rates_and_merge_them_to_the_published_hours";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (Some(registry), Some(python)) = (Registry::or_skip(test), python_or_skip(test)) else { return };
    let [events, rates, hours] = ["quiet", "rates", "hours"].map(|name| kafka.topic(name, 1));
    let ways = [
        (Format::Json, false, "application/json"),
        (Format::Avro, false, "application/avro"),
        (Format::Avro, true, "application/vnd.confluent.avro"),
        (Format::Protobuf, false, "application/protobuf"),
        (Format::Protobuf, true, "application/vnd.confluent.protobuf"),
    ];
    let agents = ways.map(|(format, registered, content_type)| {
        let keeper = if registered { format!("[kafka.registry]\nurl = '{}'\n", registry.url) } else { String::new() };
        let mut agent = Agent::new(&format!(
            "agent = '{content_type}'\nsource = 'synthetic'\n[rates]\nwindow = '10s'\nmax_delay = '1s'\n\
             [[limit]]\nname = 'sum'\ninterface = 'syn0'\ndirection = 'total'\nraise_at = '1 kbit/s'\n\
             [topics]\nrates = '{rates}'\n[kafka]\nbrokers = '{}'\ntopic = '{events}'\nformat = '{format}'\n{keeper}",
            kafka.address
        ));
        (agent.start(&["--quiet"]), agent)
    });
    until("three windows of each agent", || (kafka.end_offset(&rates) >= 3 * ways.len() as i64).then_some(()));
    for (running, _agent) in agents {
        running.signal("TERM");
        running.log_at_end();
    }
    // A window with packets, errors and drops, as the kernel's counters have them and synthetic ones have not.
    let mut counted = link_rates("eth0", Direction::Rx, &[100_000, 200_000]);
    (counted.packets, counted.errors, counted.drops) = (Some(1_500), Some(3), Some(2));
    let yesterday = (Utc::now() - TimeDelta::days(1)).duration_trunc(TimeDelta::days(1)).unwrap();
    let counted = [1, 2].map(|seq| rates_since(yesterday, "application/json", seq, vec![counted.clone()]));
    let lines: Vec<String> = counted.iter().map(|event| String::from_utf8(wire::to_json(event)).unwrap()).collect();
    let arguments = ["write", "--brokers", &kafka.address, "--topic", &rates];
    run(&python, "tests/interop/client.py", &arguments, lines.join("\n"));
    let database = postgres.database("theirs");
    let mut consumer = Consumer::with(&format!(
        "[kafka]\nbrokers = '{}'\ntopic = '{events}'\ngroup = '{events}'\n[topics]\nrates = '{rates}'\nhistograms = '{hours}'\n\
         [histograms]\ninterval = '1s'\n[kafka.registry]\nurl = '{}'\n[store]\nurl = '{}'\n",
        kafka.address, registry.url, database.url
    ));
    let (_, log) = consumer.run_until_end();
    assert_eq!(database.ask("SELECT count(*) FROM unpublished_hours"), "(0)", "{log}");

    let read = |verb, topic: &str| -> Vec<Value> {
        let arguments = [verb, "--brokers", &kafka.address, "--topic", topic, "--registry", &registry.url];
        let printed = run(&python, "tests/interop/client.py", &arguments, "");
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let windows = read("read", &rates);
    let by_kcat = kafka.read(&rates, "%k %S %h\n");
    assert_eq!(windows.len(), by_kcat.len());
    let mut links = Vec::new();
    for (at, (message, line)) in windows.iter().zip(&by_kcat).enumerate() {
        let (theirs, content_type) = (&message["event"], message["cloudevent"]["content_type"].as_str().unwrap());
        let event = wire::from_json(theirs.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {theirs}"));
        let ours: Value = serde_json::from_slice(&wire::to_json(&event)).unwrap();
        assert_eq!((&ours, theirs["kind"].as_str()), (theirs, Some("rates")), "{content_type}");
        // The agents bear the names of their formats.
        assert_eq!((&message["key"], &theirs["agent"]), (&content_type.into(), &content_type.into()));
        // The bytes that kcat prints are decoded to the same.
        let payload = kafka.payload(&rates, i64::try_from(at).expect("it is an offset"));
        let (key, rest) = line.split_once(' ').expect("a key");
        let (size, headers) = rest.split_once(' ').expect("a size");
        assert_eq!((key, size.parse()), (content_type, Ok(payload.len())), "{line}");
        assert!(headers.contains(&format!("content-type={content_type},")), "{headers}");
        assert!(headers.contains("ce_type=io.highwater.rates.v1"), "{headers}");
        let decode = ["decode", "--content-type", content_type, "--topic", &rates, "--registry", &registry.url];
        let decoded: Value = serde_json::from_str(&run(&python, "tests/interop/client.py", &decode, &payload)).unwrap();
        assert_eq!(&decoded, theirs);
        let Body::Rates(window) = &event.body else { panic!("{theirs}") };
        let hour = window.started_at.format("%FT%H:00:00Z").to_string();
        for (link, theirs) in window.links.iter().zip(theirs["links"].as_array().unwrap()) {
            let name = format!("{content_type}/{}/{}/{hour}", link.interface, link.direction);
            links.push((name, link.clone(), theirs["histogram"].clone()));
        }
    }
    let content_types: BTreeSet<_> = windows.iter().map(|message| message["key"].as_str().unwrap()).collect();
    assert_eq!(content_types, BTreeSet::from(ways.map(|(.., content_type)| content_type)));

    // Each window by itself is what the agent says of it.
    let measured = || links.iter().filter(|(_, _, histogram)| !histogram.is_null());
    let alone = measured().enumerate().map(|(at, (_, _, histogram))| (at.to_string(), histogram.clone()));
    let alone = by_hdrhistogram(&python, alone);
    for (at, (name, link, _)) in measured().enumerate() {
        let theirs = &alone[&at.to_string()];
        let ours = RateHistogram::decode(link.histogram.as_deref().unwrap()).unwrap();
        let steps: Vec<_> = ours.bins().map(|bin| json!([bin.from_bps / 1_000, bin.count])).collect();
        assert_eq!((&theirs["seconds"], &theirs["steps"]), (&link.measured_s.into(), &steps.into()), "{name}");
        // The agent knows the exact bounds.
        let p95_bps = theirs["p95_kbps"].as_u64().unwrap() * 1_000;
        assert_eq!(link.p95_bps, Some(p95_bps.clamp(link.min_bps.unwrap(), link.max_bps.unwrap())), "{name}");
    }

    // The last message of an hour counts, to kcat and confluent-kafka alike.
    let published: BTreeMap<String, Value> = read("hours", &hours)
        .into_iter()
        .map(|message| (message["key"].as_str().unwrap().to_owned(), message["hour"].clone()))
        .collect();
    let by_kcat = kafka.read(&hours, "%k\t%s\n").into_iter().map(|line| {
        let (key, hour) = line.split_once('\t').expect("a key");
        (key.to_owned(), serde_json::from_str(hour).expect("JSON"))
    });
    assert_eq!(published, by_kcat.collect::<BTreeMap<_, _>>());
    let merged = by_hdrhistogram(&python, measured().map(|(name, _, histogram)| (name.clone(), histogram.clone())));
    let of_hours = published
        .iter()
        .map(|(key, hour)| (key.clone(), hour["histogram"].clone()))
        .filter(|(_, hour)| !hour.is_null());
    assert_eq!(by_hdrhistogram(&python, of_hours), merged);
    assert!(merged.len() >= 9 * ways.len(), "{merged:?}");
    // Sums of what the windows of the hour say, as far as all of them know it.
    let sum = |key: &str, of: fn(&LinkRates) -> Option<u64>| -> Option<u64> {
        links.iter().filter(|(name, ..)| name == key).map(|(_, link, _)| of(link)).sum()
    };
    for (key, hour) in &published {
        assert_eq!(hour["bytes"], json!(sum(key, |link| Some(link.bytes))), "{key}");
        assert_eq!(hour["packets"], json!(sum(key, |link| link.packets)), "{key}");
        assert_eq!(hour["errors"], json!(sum(key, |link| link.errors)), "{key}");
        assert_eq!(hour["drops"], json!(sum(key, |link| link.drops)), "{key}");
    }
    let counted = published.iter().filter(|(_, hour)| hour["packets"] == 3_000 && hour["drops"] == 4);
    assert_eq!(counted.count(), 1, "{published:?}");
    for (key, hour) in published.iter().filter(|(_, hour)| !hour["histogram"].is_null()) {
        let bins = hour["bins"].as_array().unwrap().iter();
        let steps: Vec<_> = bins.map(|bin| json!([bin[0].as_u64().unwrap() / 1_000, bin[2]])).collect();
        assert_eq!((&merged[key]["steps"], &merged[key]["seconds"]), (&steps.into(), &hour["measured_s"]), "{key}");
    }
}

#[test]
fn what_other_peoples_clients_write_is_stored() {
    let test = "interop::what_other_peoples_clients_write_is_stored";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (Some(registry), Some(python)) = (Registry::or_skip(test), python_or_skip(test)) else { return };
    for format in ["json", "avro", "protobuf"] {
        let (topic, database) = (kafka.topic("ours", 1), postgres.database("ours"));
        let mut cleared = breach("b1", 9);
        cleared.reason = Some(highwater::message::Reason::Below);
        let events = [
            event("gw", 1, started()),
            updated("gw", 2),
            sample("gw", 1),
            event("gw", 3, highwater::message::Body::BreachCleared(cleared)),
            event("gw", 6, loss(4, 5)),
        ];
        let lines: Vec<String> = events.iter().map(|event| String::from_utf8(wire::to_json(event)).unwrap()).collect();
        let arguments =
            ["write", "--brokers", &kafka.address, "--topic", &topic, "--registry", &registry.url, "--format", format];
        run(&python, "tests/interop/client.py", &arguments, lines.join("\n"));
        let mut consumer = Consumer::with(&format!(
            "[kafka]\nbrokers = '{}'\ntopic = '{topic}'\ngroup = '{topic}'\n[kafka.registry]\nurl = '{}'\n[store]\nurl = '{}'\n",
            kafka.address, registry.url, database.url
        ));
        let (printed, _) = consumer.run_until_end();
        let stored: Vec<&str> = printed.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap()).collect();
        assert_eq!(stored, lines, "{format}: {}", database.ask("SELECT error FROM dead_letters"));
        assert_eq!(database.ask("SELECT seq FROM events"), "(1) (2) (3) (6)", "{format}");
        assert_eq!(database.ask("SELECT seq, rx_bytes, tx_bytes, rx_bps FROM samples"), "(1,10,,80)", "{format}");
        assert_eq!(database.ask("SELECT first_seq, last_seq, reason FROM losses"), "(4,5,evicted)", "{format}");
        assert_eq!(database.ask("SELECT state, reason FROM breaches"), "(cleared,below)", "{format}");
    }
}

/// `examples/consumer.py` gets the same sums as the rows of `highwater-consumer`, from JSON and Avro mixed, with poison between.
#[test]
fn the_example_in_python_comes_to_the_same_sums_as_the_rows() {
    let test = "interop::the_example_in_python_comes_to_the_same_sums_as_the_rows";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (Some(registry), Some(python)) = (Registry::or_skip(test), python_or_skip(test)) else { return };
    let (topic, database) = (kafka.topic("sums", 3), postgres.database("sums"));
    for (agent, format) in [("gw-1", Format::Json), ("gw-2", Format::Avro), ("gw-3", Format::Json)] {
        let mut agent = Agent::new(&format!(
            "agent = '{agent}'\ninterval = '100ms'\nsource = 'synthetic'\n\
             [[limit]]\nname = 'low'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n\
             [flush]\ninterval = '300ms'\n[kafka]\nbrokers = '{}'\ntopic = '{topic}'\nformat = '{format}'\n\
             [kafka.registry]\nurl = '{}'\n",
            kafka.address, registry.url
        ));
        agent.run(&["--for", "3s"]);
        produce_raw(
            &kafka.address,
            &topic,
            [("gw".to_owned(), vec![0, 1]), ("gw".to_owned(), b"{poison".to_vec())],
            None,
        );
    }
    let mut consumer = Consumer::with(&format!(
        "[kafka]\nbrokers = '{}'\ntopic = '{topic}'\ngroup = '{topic}'\n[kafka.registry]\nurl = '{}'\n[store]\nurl = '{}'\n",
        kafka.address, registry.url, database.url
    ));
    consumer.run_until_end();
    let group = format!("{topic}-python");
    let arguments = [
        &["examples/consumer.py", "--brokers", &kafka.address, "--topic", &topic][..],
        &["--group", &group, "--registry", &registry.url, "--until-end"],
    ];
    let output = Command::new(&python)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments.concat())
        .output()
        .expect("python runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    // DATE TIME AGENT/INTERFACE SUM bytes over: the last of each counts.
    let mut sums = BTreeMap::new();
    for line in log.lines().filter(|line| line.ends_with(" bytes over")) {
        let mut words = line.split(' ').skip(2);
        let (name, sum) = (words.next().unwrap(), words.next().unwrap().parse::<u64>().unwrap());
        assert!(sums.insert(name.to_owned(), sum).is_none_or(|before| before <= sum), "a sum never falls: {line}");
    }
    let theirs: Vec<String> = sums.iter().map(|(name, sum)| format!("({name},{sum})")).collect();
    let sql = "SELECT agent || '/' || interface, sum(excess_bytes)::bigint FROM breaches GROUP BY 1";
    assert_eq!(database.ask(sql), theirs.join(" "));
    assert!(sums.len() >= 6 && sums.values().all(|sum| *sum > 0), "{sums:?}");
    assert_eq!(log.matches(" of partition ").count(), 6, "each poison is a line: {log}");
}

/// Stores a day of rates of eth0 of gw-042, with a window that was not measured, and breaches and samples.
fn stored_day(fixture: &mut CommandFixture) {
    with_partitions(fixture);
    let begin = noon() - chrono::TimeDelta::hours(12);
    let mut windows: Vec<_> = (0..288)
        .map(|n| crate::consumer_reports::Window {
            agent: "gw-042",
            ..window(begin + chrono::TimeDelta::minutes(5 * n), 1 + n as u64)
        })
        .collect();
    windows[7].measured_s = 0;
    store_windows(fixture, &windows);
    store_hour_or_day(fixture, "hour", begin, &[(10, 3_500), (900, 100)]);
    store_hour_or_day(fixture, "hour", noon(), &[(20, 3_600)]);
    store_hour_or_day(fixture, "day", begin, &[(20, 86_400)]);
    fixture.run("UPDATE histograms SET agent = 'gw-042'");
    fixture.store_events(&[
        event("gw-042", 1, started()),
        updated("gw-042", 2),
        sample("gw-042", 1),
        sample("gw-042", 2),
    ]);
}

#[test]
fn what_is_stored_becomes_data_frames_without_options() {
    let test = "interop::what_is_stored_becomes_data_frames_without_options";
    let (Some(mut fixture), Some(python)) = (CommandFixture::postgres(test), python_or_skip(test)) else { return };
    stored_day(&mut fixture);
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Vec::new();
    for (name, arguments) in [
        ("rates", &["rates", "--by", "window"][..]),
        ("hours", &["rates", "--by", "hour"]),
        ("breaches", &["breaches"]),
        ("events", &["events"]),
        ("histogram", &["histogram"]),
        ("percentile", &["percentile", "--agent", "gw-042", "--month", "2026-11", "--direction", "rx"]),
        ("totals", &["totals"]),
    ] {
        let output = fixture.raw_output(&[arguments, &["--format", "csv"]].concat());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let file = directory.path().join(format!("{name}.csv"));
        std::fs::write(&file, output.stdout).expect("it is written");
        files.push(file.to_str().expect("text").to_owned());
    }
    let files: Vec<&str> = ["csv"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let of_csv: Value = serde_json::from_str(&run(&python, "tests/interop/frames.py", &files, "")).expect("JSON");
    let url = fixture.url.replacen("postgres://", "postgresql+psycopg://", 1);
    let tables = ["sql", &url, "rates", "breaches", "samples"];
    let of_sql: Value = serde_json::from_str(&run(&python, "tests/interop/frames.py", &tables, "")).expect("JSON");
    for (frames, from) in [(&of_csv, "CSV"), (&of_sql, "SQL")] {
        let rates = &frames["rates"];
        assert_eq!((&rates["rows"], &rates["missing"]["mean_bps"]), (&288.into(), &1.into()), "{from}: {rates}");
        for (name, kind) in [("started_at", "time"), ("agent", "text"), ("mean_bps", "number"), ("bytes", "number")] {
            assert_eq!(rates["types"][name], kind, "{from}: {name}");
        }
        assert_eq!(rates["sums"]["measured_s"], 287.0 * 300.0, "{from}");
        let breaches = &frames["breaches"];
        let [raised, cleared, excess] =
            ["raised_at", "cleared_at", "excess_bytes"].map(|name| &breaches["types"][name]);
        assert_eq!((raised, cleared, excess), (&"time".into(), &"time".into(), &"number".into()), "{from}: {breaches}");
        assert_eq!(breaches["sums"]["excess_bytes"], 250.0, "{from}");
    }
    assert_eq!(of_csv["events"]["types"]["clock_synced"], "bool");
    assert_eq!(of_csv["histogram"]["sums"]["seconds"], 86_400.0);
    assert_eq!(of_csv["percentile"]["types"]["means_bps"], "number");
    assert_eq!(of_csv["hours"]["missing"]["speed_bps"], 2);
    let samples = &of_sql["samples"];
    assert_eq!((&samples["sums"]["rx_bytes"], &samples["missing"]["tx_bytes"]), (&30.0.into(), &2.into()));
}

/// The program of `docs/data-frames.md` runs as it is written there.
#[test]
fn the_data_frames_of_the_docs_make_their_picture() {
    let test = "interop::the_data_frames_of_the_docs_make_their_picture";
    let (Some(mut fixture), Some(python)) = (CommandFixture::postgres(test), python_or_skip(test)) else { return };
    stored_day(&mut fixture);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/data-frames.md")).expect("the page");
    let (_, line) = page.split_once("$ highwater-consumer ").expect("it has a command");
    let (line, _) = line.split_once(" --since 24h --by window --format csv > rates.csv\n").expect("of a day of rates");
    let arguments: Vec<&str> = line.split(' ').chain(["--by", "window", "--format", "csv"]).collect();
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("rates.csv"), fixture.raw_output(&arguments).stdout).expect("it is written");
    let pieces = page.split("```python\n").skip(1).map(|piece| piece.split("```").next().expect("it ends"));
    let theirs = "postgresql+psycopg://highwater@localhost/highwater";
    let program = pieces.collect::<String>();
    assert!(program.contains(theirs));
    let ours = fixture.url.replacen("postgres://", "postgresql+psycopg://", 1);
    let output = Command::new(python)
        .args(["-c", &program.replace(theirs, &ours)])
        .current_dir(directory.path())
        .output()
        .expect("python runs");
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}");
    assert!(said.contains("7200 seconds, p95 20"), "{said}");
    let picture = std::fs::read_to_string(directory.path().join("rates.svg")).expect("a picture");
    assert!(picture.contains("<svg") && log.is_empty(), "{log}");
}
