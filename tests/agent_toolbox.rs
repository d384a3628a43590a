//! The agent's commands for operators, on a real Kafka.

use std::process::Stdio;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::support::agent::{command, until};
use crate::support::consumer::Consumer;
use crate::support::process::output_of;
use crate::support::process::under;
use crate::support::services::Kafka;
use crate::support::veth::send;

/// Runs `highwater-agent`, and returns its exit code and what it printed.
fn run(arguments: &str) -> (i32, String, String) {
    output_of(command().args(arguments.split(' ')))
}

fn objects(out: &str) -> Vec<serde_json::Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn topics_are_made_where_they_are_missing_and_left_alone_where_they_differ() {
    let test = "agent_toolbox::topics_are_made_where_they_are_missing_and_left_alone_where_they_differ";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let (brokers, there) = (&kafka.address, kafka.topic("topics", 1));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.toml");
    let text = format!(
        "[kafka]\nbrokers = '{brokers}'\ntopic = '{there}'\n\
         [topics]\nrates = '{there}.r'\nhistograms = '{there}.h'\npartitions = 2\nretention = '3d'\n"
    );
    std::fs::write(&config, text).unwrap();
    let with_config = |arguments: &str| run(&format!("{arguments} --format json --config {}", config.display()));
    let states =
        |out: &str| objects(out).iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>();

    let (code, out, err) = with_config("topics --check");
    assert_eq!((code, states(&out)), (1, vec!["differs".into(), "missing".into(), "missing".into()]), "{err}");
    assert!(out.contains("partitions is 1, not 2; retention.ms is "), "{out}");
    let (code, out, err) = with_config("topics");
    assert_eq!((code, states(&out)), (0, vec!["differs".into(), "created".into(), "created".into()]), "{err}");
    assert!(err.contains("differences were not changed"), "{err}");
    let (code, out, _) = with_config("topics --check");
    assert_eq!((code, states(&out)), (1, vec!["differs".into(), "ok".into(), "ok".into()]));

    // Made one by one, each has the properties of its role.
    for (name, cleanup) in [("h2", "compact,delete"), ("r2", "delete"), ("s2", "delete"), ("other", "delete")] {
        let kinds = [("HISTOGRAMS", "h2"), ("RATES", "r2"), ("SAMPLES", "s2")];
        let mut topics = command();
        topics.args(["topics", "-b", brokers, "-t", &format!("{there}.{name}"), "--format", "json"]);
        topics.envs(kinds.map(|(kind, name)| (format!("HIGHWATER_TOPICS__{kind}"), format!("{there}.{name}"))));
        let output = topics.output().unwrap();
        let rows = objects(&String::from_utf8_lossy(&output.stdout));
        let made: Vec<_> = rows.iter().map(|row| (row["state"].as_str(), row["cleanup"].as_str())).collect();
        assert_eq!(made, [(Some("created"), Some(cleanup))], "{name}: {output:?}");
        // Kafka's own tool says the same.
        let class = "kafka.admin.ConfigCommand";
        let topic = format!("{there}.{name}");
        let describe = ["--describe", "--all", "--entity-type", "topics", "--entity-name", &topic];
        let settings = kafka.tool(&[&[class, "--bootstrap-server", brokers], &describe[..]].concat());
        assert!(settings.contains(&format!(" cleanup.policy={cleanup} ")), "{settings}");
    }

    let (code, out, err) = run(&format!("topics --list -b {brokers} -t {there}.r --format csv"));
    assert_eq!((code, out.lines().count()), (0, 3), "{out} {err}");
    assert!(out.contains(&format!("{there}.r,1,0,,0")), "{out}");
    let (code, out, _) = run(&format!("topics --list -b {brokers}"));
    assert!(code == 0 && out.contains(&there), "{out}");
}

/// Kafka's retention goes by a message's timestamp: events of a gateway whose clock is in 1970 would be deleted at once.
#[test]
fn what_a_clock_in_the_past_sends_is_kept() {
    let test = "agent_toolbox::what_a_clock_in_the_past_sends_is_kept";
    let prepare = |directory: &std::path::Path| {
        std::fs::write(directory.join("secure.properties"), "log.retention.check.interval.ms=1000\n").unwrap();
    };
    let Some((kafka, _directory)) = Kafka::secured(test, prepare) else { return };
    let (code, _, err) = run(&format!("topics -b {}", kafka.address));
    assert_eq!(code, 0, "{err}");
    let by_sender = kafka.topic("by-sender", 1);
    kafka.alter(&by_sender, "retention.ms=2592000000");
    for topic in [&*by_sender, "highwater.events"] {
        produce_in_1970(&kafka.address, topic);
    }
    until("retention has deleted what its sender dates to 1970", || {
        kafka.read(&by_sender, "%s\n").is_empty().then_some(())
    });
    assert_eq!(kafka.read("highwater.events", "%s\n"), ["from 1970"]);
    let (code, out, _) = run(&format!("topics --check -b {} -t {by_sender}", kafka.address));
    assert!(code == 1 && out.contains("message.timestamp.type is CreateTime, not LogAppendTime"), "{out}");
}

fn produce_in_1970(brokers: &str, topic: &str) {
    let mut config = ClientConfig::new();
    let producer: BaseProducer = config.set("bootstrap.servers", brokers).create().expect("a producer");
    let record = BaseRecord::to(topic).key("gw").payload("from 1970").timestamp(3_600_000);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(std::time::Duration::from_secs(60)).expect("Kafka takes it");
}

#[test]
fn a_broker_that_is_not_there_is_69_and_says_why() {
    let (code, _, err) = run("topics --check -b 127.0.0.1:9");
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("127.0.0.1:9") && err.contains("Connection refused"), "{err}");
}

#[test]
fn simulated_events_go_to_a_file_or_to_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.jsonl");
    let (code, out, err) = run(&format!("simulate --events 7 --agents 2 --file {}", path.display()));
    assert!(code == 0 && out.is_empty() && err.contains("7 events to "), "{out} {err}");
    let (code, out, err) = run("simulate --events 7 --agents 2 --file -");
    assert!(code == 0 && err.contains("7 events to standard output"), "{out} {err}");
    // The epochs differ, and the times; the traffic is the same.
    let told = |text: &str| {
        let events = objects(text).into_iter();
        events
            .map(|event| (event["agent"].clone(), event["kind"].clone(), event["rate_bps"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&std::fs::read_to_string(path).unwrap()), told(&out));
    assert_eq!(told(&out).len(), 7);
    let (code, _, err) = run("simulate --events 7 --file /dev/full");
    assert!(code == 1 && err.contains("/dev/full") && err.contains("No space left"), "{err}");
}

#[test]
fn a_real_interface_is_said_to_exceed_its_limit_or_not() {
    let (code, out, err) = run("simulate --on lo --duration 2s --limit 800Gbit/s --dry-run --format json");
    assert_eq!((code, &*out), (0, ""), "{err}");
    assert!(err.contains("lo stayed below 800.0 Gbit/s: no breach"), "{err}");
    let (code, _, err) = run("simulate --on lo2 --dry-run");
    assert!(code == 1 && err.contains("there is no interface lo2") && !err.contains("include"), "{err}");
    let sender = std::thread::spawn(|| send("127.0.0.1:9", Duration::from_secs(6), 400_000));
    let (code, _, err) = run("simulate --on lo --duration 3s --limit 100kbit/s --dry-run");
    assert!(code == 0 && err.contains("lo exceeded 100.0 kbit/s: "), "{err}");
    sender.join().unwrap();
}

fn identities(kafka: &Kafka, topic: &str) -> Vec<(String, String, u64)> {
    let text = |event: &serde_json::Value, field: &str| event[field].as_str().unwrap().to_owned();
    let events = kafka.events(topic);
    events.iter().map(|event| (text(event, "agent"), text(event, "epoch"), event["seq"].as_u64().unwrap())).collect()
}

#[test]
fn simulated_agents_count_each_for_itself_and_a_second_run_adds_to_the_first() {
    let test = "agent_toolbox::simulated_agents_count_each_for_itself_and_a_second_run_adds_to_the_first";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("simulate", 3);
    for runs in 1..=2_usize {
        let (code, out, err) = run(&format!("simulate -b {} -t {topic} --format json", kafka.address));
        assert_eq!(code, 0, "{err}");
        let summary = &objects(&out)[0];
        assert_eq!((summary["delivered"].as_u64(), summary["failed"].as_u64()), (Some(1_000), Some(0)), "{out}");
        let mut identities = identities(&kafka, &topic);
        let next: i64 =
            summary["last_offsets"].as_object().unwrap().values().map(|last| last.as_i64().unwrap() + 1).sum();
        assert_eq!((identities.len(), next), (runs * 1_000, runs as i64 * 1_000), "{out}");
        identities.sort();
        identities.dedup();
        assert_eq!(identities.len(), runs * 1_000);
        let mut counts = std::collections::BTreeMap::new();
        for (agent, epoch, seq) in identities {
            let last = counts.entry((agent, epoch)).or_insert(0);
            assert_eq!(seq, *last + 1, "without holes");
            *last = seq;
        }
        assert_eq!(counts.len(), runs * 20, "an epoch for each agent and run");
    }
}

#[test]
fn the_seed_makes_the_same_events_again() {
    let events = |seed: u32| {
        let (code, out, err) = run(&format!("simulate --dry-run --events 300 --format json --seed {seed}"));
        assert_eq!(code, 0, "{err}");
        let without_time = |mut event: serde_json::Value| {
            event["observed_at"].take();
            event
        };
        objects(&out).into_iter().map(without_time).collect::<Vec<_>>()
    };
    let first = events(1);
    assert_eq!((first.len(), &first), (300, &events(1)));
    assert_ne!(first, events(2));
}

#[test]
fn waits_until_a_group_has_stored_what_was_simulated() {
    let test = "agent_toolbox::waits_until_a_group_has_stored_what_was_simulated";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let (brokers, topic) = (&kafka.address, kafka.topic("waited", 2));
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("events.db");
    let mut consumer = Consumer::with(&format!(
        "[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\ngroup = '{topic}'\n[store]\nurl = 'sqlite:{}'\n",
        database.display()
    ));
    let consuming = consumer.start(&[]);
    let (code, _, err) = run(&format!("simulate --events 300 -b {brokers} -t {topic} --wait-stored {topic}"));
    assert_eq!(code, 0, "{err}");
    let rows = rusqlite::Connection::open(database).unwrap();
    let rows: i64 = rows.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 300);
    drop(consuming);
}

#[test]
fn the_key_is_the_agent_the_interface_or_the_time() {
    let test = "agent_toolbox::the_key_is_the_agent_the_interface_or_the_time";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    for (key, field) in [("agent", "agent"), ("interface", "interface"), ("timestamp", "observed_at")] {
        let topic = kafka.topic("keys", 2);
        let mut simulate = command();
        simulate
            .args(["simulate", "--events", "40", "-b", &kafka.address, "-t", &topic])
            .env("HIGHWATER_KAFKA__KEY", key);
        assert!(simulate.output().unwrap().status.success());
        let messages = kafka.read(&topic, "%k %s\n");
        assert_eq!(messages.len(), 40);
        for message in messages {
            let (key, payload) = message.split_once(' ').unwrap();
            let event: serde_json::Value = serde_json::from_str(payload).unwrap();
            assert_eq!(event[field].as_str(), Some(key), "{payload}");
        }
    }
}

/// Returns when each breach in a recorded series began, and how long it took.
fn breaches(file: &str, limit: &str, hold: &str) -> Vec<(String, u64)> {
    let file = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let arguments = ["replay", &file, "--bytes-per", "5min", "--limit", limit, "--for", hold];
    let output = command().args(arguments).args(["--breaches", "--format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = objects(&String::from_utf8_lossy(&output.stdout));
    let breach = |row: &serde_json::Value| {
        assert_eq!(row["state"], "cleared");
        (row["started_at"].as_str().unwrap().to_owned(), row["duration_ms"].as_u64().unwrap() / 1_000)
    };
    found.iter().map(breach).collect()
}

#[test]
fn recorded_anomalies_are_found_where_they_are_labelled_and_nowhere_else() {
    // tests/data/README.md has the windows. A breach stays in the window by its seconds.
    let within = |breaches: &[(String, u64)], from: &str, to: &str| {
        let time = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        !breaches.is_empty()
            && breaches.iter().all(|(started_at, seconds)| {
                let started_at = time(started_at);
                started_at >= time(from) && started_at + chrono::TimeDelta::seconds(*seconds as i64) <= time(to)
            })
    };
    let ec2 = breaches("ec2_network_in_257a54.csv", "5 MB/5min", "0s");
    assert!(within(&ec2, "2014-04-14T23:59:00Z", "2014-04-16T09:29:00Z"), "{ec2:?}");
    let iio = breaches("iio_us-east-1_i-a2eb1cd9_NetworkIn.csv", "11.8 MB/5min", "1h");
    assert!(within(&iio, "2013-10-10T10:35:00Z", "2013-10-10T15:45:00Z"), "{iio:?}");
}

#[test]
fn a_replay_that_was_stopped_goes_on_and_doubles_nothing() {
    let test = "agent_toolbox::a_replay_that_was_stopped_goes_on_and_doubles_nothing";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good.csv"), directory.path().join("bad.csv"));
    let rows = |bad: bool| {
        let row = |second: u64| match second {
            400 if bad => "400,many\n".to_owned(),
            _ => format!("{second},{}\n", if second % 7 < 3 { 9_000_000 } else { 1_000 }),
        };
        format!("timestamp,value\n{}", (1..=1_000).map(row).collect::<String>())
    };
    std::fs::write(&good, rows(false)).unwrap();
    std::fs::write(&bad, rows(true)).unwrap();
    let whole = kafka.topic("whole", 1);
    let parts = kafka.topic("parts", 1);
    let replay = |file: &std::path::Path, topic: &str, more: &str| {
        let (file, brokers) = (file.display(), &kafka.address);
        run(&format!("replay {file} --limit 10Mbit/s --agent gw --publish -b {brokers} -t {topic} --format json{more}"))
    };
    let (code, out, err) = replay(&good, &whole, "");
    assert_eq!(code, 0, "{err}");
    let events = objects(&out)[0]["delivered"].as_u64().unwrap();
    let (code, _, err) = replay(&bad, &parts, " --strict");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("bad.csv:401: `many` is not a number"), "{err}");
    let go_on = err.split("resume with").nth(1).expect("it says how").trim_end();
    let (code, _, err) = replay(&good, &parts, &format!(" --strict{go_on}"));
    assert_eq!(code, 0, "{err}");
    let seqs = |topic: &str| identities(&kafka, topic).into_iter().map(|(.., seq)| seq).collect::<Vec<_>>();
    assert_eq!(seqs(&whole), (1..=events).collect::<Vec<_>>());
    assert_eq!(seqs(&parts), seqs(&whole));
    let of = |topic: &str| {
        let field = |event: &serde_json::Value| {
            (event["observed_at"].clone(), event["kind"].clone(), event["rate_bps"].clone())
        };
        kafka.events(topic).iter().map(field).collect::<Vec<_>>()
    };
    assert_eq!(of(&parts), of(&whole));
    assert!(of(&whole)[0].0.as_str().unwrap().starts_with("1970-01-01T00:00:0"), "the row's own time");
}

#[test]
fn bad_rows_are_passed_over_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.csv");
    std::fs::write(&file, "t,bytes\n1,100\nnoon,1\n3,9000000\n2,5\n4,9000000\n").unwrap();
    let replay = |more: &str| run(&format!("replay {} --limit 1Mbit/s --format json{more}", file.display()));
    let (code, _, err) = replay("");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("there is no column `timestamp`; the first row names t, bytes"), "{err}");
    let (code, out, err) = replay(" --time t --rx bytes");
    let summary = &objects(&out)[0];
    assert_eq!((code, summary["rows"].as_u64(), summary["bad_rows"].as_u64()), (0, Some(3), Some(2)), "{err}");
    assert_eq!(summary["breaches"].as_u64(), Some(1), "{out}");
    assert!(
        err.contains("bad.csv:3: `noon` is not a timestamp") && err.contains("bad.csv:5: the timestamp `2`"),
        "{err}"
    );
    let (code, ..) = run(&format!("replay {}", file.display()));
    assert_eq!(code, 2, "no limit");
}

#[test]
fn progress_is_shown_on_a_terminal_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let simulate = "simulate --events 20000 --file events.jsonl";
    let (code, out, err) = {
        let output = command().current_dir(&directory).args(simulate.split(' ')).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert!(code == Some(0) && !(out + &err).contains(" of 20,000 events"), "{err}");
    // script(1) gives the program a terminal, and copies what is shown on it.
    let script = format!("exec script -q -e -c \"'$0' {simulate}\" /dev/null");
    let mut terminal = under(&["sh", "-c", &script], &command());
    let output = terminal.env("TERM", "xterm").stdin(Stdio::null()).current_dir(&directory).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains(" of 20,000 events, "), "{out}");
    assert!(out.trim_end().ends_with(" s") && out.contains("20000 events to events.jsonl in "), "{out}");
}
