//! Clients of others: they read the agent's messages, and their messages are stored. See `tests/interop/client.py`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use highwater::wire::{self, Format};
use serde_json::Value;

use crate::consumer_commands::Stage;
use crate::consumer_reports::{put, put_merged, window, with_partitions};
use crate::support::agent::{Agent, command};
use crate::support::consumer::{Consumer, Postgres};
use crate::support::events::{breach, event, loss, noon, produce_raw, sample, started, updated};
use crate::support::netns::skip;
use crate::support::process::until;
use crate::support::registry::Registry;
use crate::support::services::Kafka;

fn python_or_skip(test: &str) -> Option<String> {
    let python = std::env::var("HIGHWATER_TEST_PYTHON").ok();
    if python.is_none() {
        skip(test, "needs Python with the packages of tests/interop");
    }
    python
}

fn run(python: &str, script: &str, arguments: &[&str], input: &str) -> String {
    let schemas = tempfile::tempdir().expect("a directory");
    for (format, file) in
        [(Format::Json, "event.schema.json"), (Format::Avro, "event.avsc"), (Format::Protobuf, "event.proto")]
    {
        std::fs::write(schemas.path().join(file), format.schema()).expect("it is written");
    }
    let mut child = Command::new(python)
        .arg(format!("{}/{script}", env!("CARGO_MANIFEST_DIR")))
        .env("HIGHWATER_TEST_SCHEMAS", schemas.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
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

/// Rates in every format, and the hours that the consumer makes of them: HdrHistogram for Python comes to the same counts.
#[test]
fn other_peoples_libraries_merge_histograms_to_the_same_counts() {
    let test = "interop::other_peoples_libraries_merge_histograms_to_the_same_counts";
    let (Some(kafka), Some(postgres), Some(python)) =
        (Kafka::or_skip(test), Postgres::or_skip(test), python_or_skip(test))
    else {
        return;
    };
    let Some(registry) = Registry::or_skip(test) else { return };
    let formats = [(Format::Json, false), (Format::Avro, false), (Format::Avro, true), (Format::Protobuf, true)];
    let keeper = |registered: bool| {
        if registered { format!("[kafka.registry]\nurl = '{}'\n", registry.url) } else { String::new() }
    };
    let runs = formats.map(|(format, registered)| {
        let topics = ["events", "rates", "hours"].map(|name| kafka.topic(name, 1));
        let [events, rates, _] = &topics;
        let mut agent = Agent::new(&format!(
            "agent = 'gw'\nsource = 'synthetic'\n[rates]\nwindow = '10s'\nmax_delay = '1s'\n[flush]\ninterval = '1s'\n[topics]\n\
             rates = '{rates}'\n[kafka]\nbrokers = '{}'\ntopic = '{events}'\nformat = '{format}'\n{}",
            kafka.address,
            keeper(registered)
        ));
        let running = agent.start(&[]);
        (format, registered, topics, agent, running)
    });
    for (format, registered, [events, rates, hours], _agent, running) in runs {
        until("two windows of rates", || (kafka.end(&rates) >= 2).then_some(()));
        running.signal("TERM");
        running.log_at_end();
        let mut arguments = vec!["read", "--brokers", &kafka.address, "--topic", &rates];
        if registered {
            arguments.extend(["--registry", &registry.url]);
        }
        let windows = run(&python, "tests/interop/client.py", &arguments, "");
        for line in windows.lines() {
            let theirs = serde_json::from_str::<Value>(line).expect("JSON")["event"].take();
            let event =
                wire::from_json(theirs.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {theirs}"));
            let ours: Value = serde_json::from_slice(&wire::to_json(&event)).unwrap();
            assert_eq!((&ours, theirs["kind"].as_str()), (&theirs, Some("rates")), "{format}");
        }
        let database = postgres.database("theirs");
        let mut consumer = Consumer::new(&kafka.address, &events, &database.url);
        consumer.append(&format!("[topics]\nrates = '{rates}'\nhistograms = '{hours}'\n"));
        consumer.append(&keeper(registered));
        consumer.until_end();
        let merged = run(&python, "tests/interop/histograms.py", &[&kafka.address, &hours], &windows);
        let merged: Value = serde_json::from_str(&merged).expect("JSON");
        let series = |part: &str| merged[part].as_object().expect("an object by hour").len();
        assert!(series("hours") >= 8 && windows.lines().count() >= 2, "four links, received and sent: {merged}");
        for part in ["hours", "bins"] {
            assert_eq!(merged[part], merged["windows"], "{format}: {part}");
        }
        for figure in ["p95_bps", "measured_s"] {
            let pairs = merged[figure].as_object().expect("an object by hour").values();
            assert!(pairs.clone().all(|pair| pair[0] == pair[1] && pair[0].as_u64() > Some(0)), "{format}: {merged}");
        }
    }
}

#[test]
fn what_other_peoples_clients_write_is_stored() {
    let test = "interop::what_other_peoples_clients_write_is_stored";
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip(test), Postgres::or_skip(test)) else { return };
    let (Some(registry), Some(python)) = (Registry::or_skip(test), python_or_skip(test)) else { return };
    for format in ["json", "avro", "protobuf"] {
        let (topic, database) = (kafka.topic("ours", 1), postgres.database("ours"));
        let mut cleared = breach("b1", 9);
        cleared.reason = Some(highwater::event::Reason::Below);
        let events = [
            event("gw", 1, started()),
            updated("gw", 2),
            sample("gw", 1),
            event("gw", 3, highwater::event::Body::BreachCleared(cleared)),
            event("gw", 6, loss(4, 5)),
        ];
        let lines: Vec<String> = events.iter().map(|event| String::from_utf8(wire::to_json(event)).unwrap()).collect();
        let arguments =
            ["write", "--brokers", &kafka.address, "--topic", &topic, "--registry", &registry.url, "--format", format];
        run(&python, "tests/interop/client.py", &arguments, &lines.join("\n"));
        let mut consumer = Consumer::with(&format!(
            "[kafka]\nbrokers = '{}'\ntopic = '{topic}'\ngroup = '{topic}'\n[kafka.registry]\nurl = '{}'\n[store]\nurl = '{}'\n",
            kafka.address, registry.url, database.url
        ));
        let (printed, _) = consumer.until_end();
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
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip(test), Postgres::or_skip(test)) else { return };
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
    consumer.until_end();
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
fn stored_day(stage: &mut Stage) {
    with_partitions(stage);
    let begin = noon() - chrono::TimeDelta::hours(12);
    let mut windows: Vec<_> = (0..288)
        .map(|n| crate::consumer_reports::Window {
            agent: "gw-042",
            ..window(begin + chrono::TimeDelta::minutes(5 * n), 1 + n as u64)
        })
        .collect();
    windows[7].measured_s = 0;
    put(stage, &windows);
    put_merged(stage, "hour", begin, &[(10, 3_500), (900, 100)]);
    put_merged(stage, "hour", noon(), &[(20, 3_600)]);
    put_merged(stage, "day", begin, &[(20, 86_400)]);
    stage.run("UPDATE histograms SET agent = 'gw-042'");
    stage.store_events(&[
        event("gw-042", 1, started()),
        updated("gw-042", 2),
        sample("gw-042", 1),
        sample("gw-042", 2),
    ]);
}

#[test]
fn what_is_stored_becomes_data_frames_without_options() {
    let test = "interop::what_is_stored_becomes_data_frames_without_options";
    let (Some(mut stage), Some(python)) = (Stage::postgres(test), python_or_skip(test)) else { return };
    stored_day(&mut stage);
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
        let output = stage.command(&[arguments, &["--format", "csv"]].concat());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let file = directory.path().join(format!("{name}.csv"));
        std::fs::write(&file, output.stdout).expect("it is written");
        files.push(file.to_str().expect("text").to_owned());
    }
    let files: Vec<&str> = ["csv"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let of_csv: Value = serde_json::from_str(&run(&python, "tests/interop/frames.py", &files, "")).expect("JSON");
    let url = stage.url.replacen("postgres://", "postgresql+psycopg://", 1);
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
    let (Some(mut stage), Some(python)) = (Stage::postgres(test), python_or_skip(test)) else { return };
    stored_day(&mut stage);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/data-frames.md")).expect("the page");
    let (_, line) = page.split_once("$ highwater-consumer ").expect("it has a command");
    let (line, _) = line.split_once(" --since 24h --by window --format csv > rates.csv\n").expect("of a day of rates");
    let arguments: Vec<&str> = line.split(' ').chain(["--by", "window", "--format", "csv"]).collect();
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("rates.csv"), stage.command(&arguments).stdout).expect("it is written");
    let pieces = page.split("```python\n").skip(1).map(|piece| piece.split("```").next().expect("it ends"));
    let theirs = "postgresql+psycopg://highwater@localhost/highwater";
    let program = pieces.collect::<String>();
    assert!(program.contains(theirs));
    let ours = stage.url.replacen("postgres://", "postgresql+psycopg://", 1);
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
