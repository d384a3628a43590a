//! The first hour: commands as a new user types them, with no file edited.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use highwater::kafka::admin::{Admin, TopicLookup};
use highwater::kafka::{Connection, PlannedTopic, RawConnection, TopicPlan};
use tempfile::TempDir;

use crate::support::agent::command;
use crate::support::consumer;
use crate::support::process::{Spawned, output_of, until};
use crate::support::registry::Registry;
use crate::support::services::{Kafka, kafka_and_postgres};
use crate::support::skips::skip;

/// Returns whether no configuration of this host would be read.
fn has_no_files(test: &str) -> bool {
    let is_there = Path::new("/etc/highwater").exists();
    if is_there {
        skip(test, "needs no /etc/highwater");
    }
    !is_there
}

fn run(mut program: Command, arguments: &[&str]) -> (i32, String, String) {
    output_of(program.args(arguments))
}

/// Names of topics of its own, for both programs, and a state directory.
struct Hour {
    directory: TempDir,
    events: String,
    variables: Vec<(&'static str, String)>,
}

impl Hour {
    fn new(name: &str) -> Self {
        let unique = format!("{name}-{}", std::process::id());
        let topic = |kind: &str| format!("{unique}.{kind}");
        let variables = vec![
            ("HIGHWATER_TOPICS__RATES", topic("rates")),
            ("HIGHWATER_TOPICS__HISTOGRAMS", topic("histograms")),
            ("HIGHWATER_SOURCE", "synthetic".to_owned()),
        ];
        Self { directory: tempfile::tempdir().unwrap(), events: topic("events"), variables }
    }

    fn command(&self, mut program: Command) -> Command {
        program.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        program.current_dir(self.directory.path());
        program
    }
}

#[test]
fn three_commands_lead_to_a_breach_in_postgresql() {
    let test = "first_hour::three_commands_lead_to_a_breach_in_postgresql";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    if !has_no_files(test) {
        return;
    }
    let (hour, database) = (Hour::new("hour"), postgres.database("hour"));
    let to_kafka = ["-b", &kafka.address, "-t", &hour.events];
    let agent = ["run", "--limit", "wan-down@syn0:rx=80 Mbit/s,for=2s", "--flush", "1s", "--state-dir", "state"];
    let mut run_agent = hour.command(command());
    run_agent.args(agent).args(to_kafka).args(["--create-topics", "--for", "20s"]);
    assert!(run_agent.status().unwrap().success(), "all is delivered");
    let group = hour.events.replace('.', "-");
    let consumer = ["run", "--until-end", "--store", &database.url, "-g", &group];
    let (code, _, err) = run(hour.command(consumer::command()), &[&consumer[..], &to_kafka].concat());
    assert_eq!(code, 0, "{err}");
    let (code, out, err) =
        run(hour.command(consumer::command()), &["breaches", "--store", &database.url, "--format", "csv"]);
    assert!(code == 0 && out.contains("wan-down") && out.contains("syn0"), "{out}{err}");
    // The topics are those that the command would have created.
    let mut topics = hour.command(command());
    let (code, out, err) =
        output_of(topics.args(["topics", "--check", "-b", &kafka.address]).env("HIGHWATER_KAFKA__TOPIC", &hour.events));
    assert!(code == 0 && out.matches(" ok ").count() == 3, "{out}{err}");
    // Each topic is there, for both programs.
    let (code, out, err) = run(hour.command(command()), &[&["check", "--state-dir", "state"][..], &to_kafka].concat());
    assert!(code == 0 && out.contains(&format!("ok       topic {}: 6 partitions", hour.events)), "{out}{err}");
    assert!(out.contains("warning  limits: no limit is configured, so nothing can be exceeded"), "{out}");
    let check = [&["check", "--store", &database.url, "-g", &group][..], &to_kafka].concat();
    let (code, out, err) = run(hour.command(consumer::command()), &check);
    assert!(code == 0 && !out.contains("FAILED") && out.contains("has the tables of this version"), "{out}{err}");
    assert!(out.contains(&format!("group {group}: may be used")), "{out}");
}

#[test]
fn a_topic_that_was_created_is_there_for_the_next_command() {
    let test = "first_hour::a_topic_that_was_created_is_there_for_the_next_command";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let hour = Hour::new("next");
    let topics: Vec<String> = (0..20).map(|number| format!("{}-{number}", hour.events)).collect();
    let plan = |name: &String| TopicPlan {
        topics: vec![PlannedTopic { name: name.clone(), is_compacted: false }],
        partitions: 6,
        replication: None,
        retention: Duration::from_secs(3_600),
    };
    // Two connections: the second one asks as another command would, at once.
    let raw = RawConnection { brokers: Some(kafka.address.clone()), ..RawConnection::default() };
    let connection = Connection::new(raw, None).expect("it can work");
    let next = Admin::new(&connection).expect("an address");
    for topic in &topics {
        let (created, result) = plan(topic).create_missing(&connection);
        assert!(result.is_ok() && created == [topic.clone()], "{created:?} {result:?}");
        let found = next.look_up(topic).expect("Kafka answers");
        assert_eq!(found, TopicLookup::Found { partitions: 6, leaderless: Vec::new() }, "{topic}");
        // Two publishers of an agent may find it missing at the same moment: one of them has created it.
        let again = next.create(&plan(topic).wanted(1)[0]);
        assert!(matches!(again, Ok(false)), "{again:?}");
    }
}

#[test]
fn a_missing_topic_is_reported_within_ten_seconds_by_log_status_and_check() {
    let test = "first_hour::a_missing_topic_is_reported_within_ten_seconds_by_log_status_and_check";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let hour = Hour::new("missing");
    let missing = kafka.missing(&hour.events);
    let missing_rates = kafka.missing(&hour.variables[0].1);
    let config = hour.directory.path().join("agent.toml");
    // The first flush is spread over 3 s by the agent's name, and librdkafka takes 5 to 6 s to call a topic unknown.
    fs::write(&config, "agent = 'gw'\nstate_dir = 'state'\n").unwrap();
    let begun = Instant::now();
    let log = fs::File::create(hour.directory.path().join("log")).unwrap();
    let mut agent = hour.command(command());
    agent.args(["run", "-c", "agent.toml", "-b", &kafka.address, "-t", &hour.events]).stderr(log);
    let agent = Spawned::start(&mut agent);
    let log = || fs::read_to_string(hour.directory.path().join("log")).unwrap();
    until("a line in the log", || log().contains(&missing).then_some(()));
    let took = begun.elapsed();
    // Long before there are rates to send.
    until("a line about rates", || log().contains(&missing_rates).then_some(()));
    let (code, out, err) = run(hour.command(command()), &["status", "-c", "agent.toml"]);
    drop(agent);
    assert!(took < Duration::from_secs(10), "{took:?}");
    // The table is as wide as a terminal.
    let squeezed = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(code == 1 && squeezed.contains(&missing) && squeezed.contains(&missing_rates), "{out}{err}");
    let (code, out, err) =
        run(hour.command(command()), &["check", "-c", "agent.toml", "-b", &kafka.address, "-t", &hour.events]);
    assert!(code == 1 && out.contains(&format!("FAILED   topic {}: {missing}", hour.events)), "{out}{err}");
    assert!(
        err.contains("2 checks failed, 2 warnings"),
        "events and rates; no limit, and no topic of hours: {out}{err}"
    );
    let consumer = ["check", "--store", "sqlite:h.db", "-b", &kafka.address, "-t", &hour.events];
    let (code, out, err) = run(hour.command(consumer::command()), &consumer);
    assert!(code == 1 && out.contains(&missing) && out.contains("h.db is missing; `run` creates it"), "{out}{err}");
    assert!(!hour.directory.path().join("h.db").exists(), "check changes nothing");
}

#[test]
fn a_broker_that_is_not_there_is_reported_by_both_programs_and_by_status() {
    let hour = Hour::new("away");
    fs::write(hour.directory.path().join("agent.toml"), "state_dir = 'state'\n").unwrap();
    let log = |name: &str| fs::read_to_string(hour.directory.path().join(name)).unwrap();
    let start = |program: Command, name: &str, arguments: &[&str]| {
        let mut program = hour.command(program);
        program.args(arguments).args(["-b", "127.0.0.1:9"]);
        Spawned::start(program.stderr(fs::File::create(hour.directory.path().join(name)).unwrap()))
    };
    let _agent = start(command(), "agent.log", &["run", "-c", "agent.toml"]);
    let _consumer = start(consumer::command(), "consumer.log", &["run", "--store", "sqlite:h.db"]);
    let refused = "127.0.0.1:9 failed: Connection refused";
    until("the agent's log", || {
        let log = log("agent.log");
        (log.contains("cannot reach Kafka, the events stay in the journal: ") && log.contains(refused)).then_some(())
    });
    until("status", || {
        let (code, out, _) = run(hour.command(command()), &["status", "-c", "agent.toml"]);
        let squeezed = out.split_whitespace().collect::<Vec<_>>().join(" ");
        (code == 1 && squeezed.contains("cannot reach Kafka: ") && squeezed.contains(refused)).then_some(())
    });
    until("the consumer's log", || {
        let log = log("consumer.log");
        log.lines().any(|line| line.contains("WARN  Kafka: ") && line.contains(refused)).then_some(())
    });
}

#[test]
fn a_consumer_reports_a_missing_topic_and_what_is_wrong_with_its_database() {
    let test = "first_hour::a_consumer_reports_a_missing_topic_and_what_is_wrong_with_its_database";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let hour = Hour::new("nothing");
    let log = hour.directory.path().join("log");
    let mut consumer = hour.command(consumer::command());
    consumer.args(["run", "-b", &kafka.address, "-t", &hour.events, "--store", "sqlite:none/h.db"]);
    let _consumer = Spawned::start(consumer.stderr(fs::File::create(&log).unwrap()));
    for line in [&*kafka.missing(&hour.events), "database: there is no directory none; create it"] {
        until(line, || fs::read_to_string(&log).unwrap().contains(line).then_some(()));
    }
}

#[test]
fn without_a_limit_the_agent_watches_and_says_how_to_set_one() {
    let test = "first_hour::without_a_limit_the_agent_watches_and_says_how_to_set_one";
    if !has_no_files(test) {
        return;
    }
    let hour = Hour::new("bare");
    let (code, _, err) =
        run(hour.command(command()), &["run", "--for", "2s", "--state-dir", "state", "-b", "127.0.0.1:9"]);
    assert_eq!(code, 1, "there is no Kafka: {err}");
    for says in [
        "there is no /etc/highwater/agent.toml: using flags, the environment and defaults",
        "nothing can be exceeded, and only rates are published; set one with --limit 'syn0=80 Mbit/s'",
        "cannot reach Kafka",
    ] {
        assert!(err.contains(says), "{says}: {err}");
    }
    let (code, _, err) = run(hour.command(command()), &["run", "--limit", "syn0"]);
    assert!(code == 2 && err.contains("write it as 'eth0=80 Mbit/s'"), "{err}");
    let (code, _, err) = run(hour.command(command()), &["run", "--limit", "syn0=80", "--state-dir", "state"]);
    assert!(code == 78 && err.contains("--limit: raise_at: `80` is not a bit rate"), "{err}");
}

#[test]
fn init_writes_a_file_that_is_valid_and_overwrites_none() {
    let hour = Hour::new("init");
    for (program, file) in [(command as fn() -> Command, "agent.toml"), (consumer::command, "consumer.toml")] {
        let init = |more: &[&str]| {
            run(hour.command(program()), &[&["init", "-c", file, "-b", "kafka-7:9092"][..], more].concat())
        };
        let (code, _, err) = init(&[]);
        assert!(code == 0 && err.contains(&format!("wrote {file}")), "{err}");
        let written = fs::read_to_string(hour.directory.path().join(file)).unwrap();
        assert!(written.contains("\nbrokers = \"kafka-7:9092\"\n"), "{written}");
        let (code, _, err) = init(&["-t", "other"]);
        assert!(code == 1 && err.contains(&format!("{file} exists; --force overwrites it")), "{err}");
        let (code, out, err) = run(hour.command(program()), &["check", "--offline", "-c", file]);
        assert!(code == 0 && out.contains("at kafka-7:9092") || out.contains("from kafka-7:9092"), "{out}{err}");
        assert_eq!(init(&["--force", "-t", "other"]).0, 0);
        let (code, out, err) = run(hour.command(program()), &["init", "-c", "-", "-t", "no topic"]);
        assert!(code == 78 && out.is_empty() && err.contains("--topic: "), "{out}{err}");
    }
    let (code, out, _) = run(hour.command(consumer::command()), &["init", "-c", "-", "--store", "sqlite:other.db"]);
    assert!(code == 0 && out.contains("\nurl = \"sqlite:other.db\"\n"), "{out}");
    let (code, _, err) = run(
        hour.command(consumer::command()),
        &["init", "-c", "secret.toml", "--store", "postgres://u:s3cret@localhost/d"],
    );
    assert_eq!(code, 0, "{err}");
    let mode = fs::metadata(hour.directory.path().join("secret.toml")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}

#[test]
fn what_is_in_force_is_shown_with_its_source_and_without_secrets() {
    let hour = Hour::new("force");
    let file = "[kafka]\nbrokers = 'file:1'\n[kafka.properties]\n'ssl.keystore.password' = 's3cret'\n[[limit]]\ninterface = 'syn0'\nraise_at = '80%'\n";
    fs::write(hour.directory.path().join("agent.toml"), file).unwrap();
    let mut check = hour.command(command());
    check.args(["check", "--print-config", "-c", "agent.toml", "-t", "of-flag", "--flush", "7s"]);
    let (code, out, err) = output_of(check.env("HIGHWATER_INTERVAL", "2s"));
    assert_eq!(code, 0, "{err}");
    let squeezed = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        "kafka.brokers = \"file:1\" # agent.toml:2",
        "kafka.topic = \"of-flag\" # --topic",
        "flush.interval = \"7s\" # --flush",
        "interval = \"2s\" # HIGHWATER_INTERVAL",
        "journal.max_size = \"16MiB\" # default",
        "[[limit]] # agent.toml:5",
        "kafka.properties.\"ssl.keystore.password\" = \"(hidden)\"",
    ] {
        assert!(squeezed.contains(line), "{line}: {out}");
    }
    assert!(!out.contains("s3cret"));
    let (code, out, err) = run(
        hour.command(consumer::command()),
        &["check", "--print-config", "--store", "postgres://u:s3cret@localhost/d"],
    );
    assert!(
        code == 0 && out.contains("store.url = \"postgres://u@localhost:5432/d\"") && !out.contains("s3cret"),
        "{out}{err}"
    );
}

/// Returns standard output of `check` without a Kafka, and asserts that so many checks failed.
fn checked(hour: &Hour, state_dir: &str, failed: &str) -> String {
    let arguments = ["check", "-c", "agent.toml", "-b", "127.0.0.1:9", "--state-dir", state_dir];
    let (code, out, err) = run(hour.command(command()), &arguments);
    assert!(code == 1 && err.contains(failed), "{out}{err}");
    out
}

#[test]
fn check_shows_where_each_limit_applies_what_the_host_is_like_and_what_rates_cost() {
    let hour = Hour::new("check");
    let limit = |interface: &str, at: &str| format!("[[limit]]\ninterface = '{interface}'\nraise_at = '{at}'\n");
    let limits = [("syn0", "80 Mbit/s"), ("nothing*", "1 Mbit/s"), ("syn1", "80%"), ("syn2", "1 Mbit/s")];
    let limits: String = limits.iter().map(|(interface, at)| limit(interface, at)).collect();
    let text = format!("{limits}[interfaces]\nexclude = ['syn2']\n");
    fs::write(hour.directory.path().join("agent.toml"), text).unwrap();
    let out = checked(&hour, "state", "1 check failed");
    for line in [
        "ok       links: syn0 (100.0 Mbit/s), syn1 (100.0 Mbit/s), syn3 (100.0 Mbit/s)\n",
        "warning  links: exclude removes all that the limit on \"syn2\" names (syn2), so it watches nothing; ",
        "ok       limit syn0: syn0 (100.0 Mbit/s) at 80.0 Mbit/s\n",
        "warning  limit nothing*: no link matches \"nothing*\" now; one may appear later\n",
        "ok       limit syn1: syn1 (100.0 Mbit/s) at 80.0 Mbit/s\n",
        "warning  limit syn2: no link matches \"syn2\" now; ",
        "ok       state: state can be created\n",
        " are free for state",
        " clock: 20",
        "FAILED   kafka: ",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let cost = out.split("cost   rates of 3 links every 5 min, estimated: ").nth(1).expect(&out);
    for part in [
        " a day on the wire, ",
        " with TLS; ",
        " a day to disk;\n",
        " a month on the wire, ",
        " with TLS; 96 flushes a day\n",
    ] {
        assert!(cost.contains(part), "{part}: {out}");
    }
    assert!(!hour.directory.path().join("state").exists(), "check changes nothing");
}

#[test]
fn a_state_directory_that_cannot_be_made_fails_the_check() {
    let hour = Hour::new("state");
    fs::write(hour.directory.path().join("agent.toml"), "").unwrap();
    let out = checked(&hour, "agent.toml/state", "2 checks failed");
    assert!(out.contains("FAILED   state: agent.toml is no directory; check as the agent's user (sudo), or "), "{out}");
}

#[test]
fn a_registry_is_asked_for_the_schema() {
    let Some(registry) = Registry::or_skip("first_hour::a_registry_is_asked_for_the_schema") else { return };
    let hour = Hour::new("schema");
    let check = |more: &[(&str, &str)]| {
        let mut check = hour.command(command());
        check.args(["check", "--state-dir", "state", "-b", "127.0.0.1:9", "-t", &hour.events, "-s", &registry.url]);
        output_of(check.envs(more.iter().copied())).1
    };
    let avro = ("HIGHWATER_KAFKA__FORMAT", "avro");
    assert!(check(&[]).contains("warning  registry: "), "{}", check(&[]));
    let out = check(&[avro]);
    let subjects = [&hour.events, &hour.variables[0].1].map(|topic| format!("{topic}-value"));
    for subject in &subjects {
        assert!(out.contains(&format!("has no such schema yet: the agent registers it as {subject}")), "{out}");
    }
    let out = check(&[avro, ("HIGHWATER_KAFKA__REGISTRY__AUTO_REGISTER", "false")]);
    assert_eq!(out.matches("FAILED   registry: ").count(), 2, "events and rates: {out}");
    assert!(out.contains("highwater-agent schema --format avsc"), "{out}");
    let of_consumer = || {
        let arguments =
            ["check", "--store", "sqlite:h.db", "-b", "127.0.0.1:9", "-t", &hour.events, "-s", &registry.url];
        run(hour.command(consumer::command()), &arguments).1
    };
    let none = of_consumer();
    assert!(none.contains(&format!("answers, and has no schema of this version as {} yet", subjects[0])), "{none}");
    let (code, schema, _) = run(hour.command(command()), &["schema", "--format", "avsc"]);
    assert_eq!(code, 0);
    for subject in &subjects {
        let answer =
            registry.ask("POST", &format!("/subjects/{subject}/versions"), &serde_json::json!({"schema": schema}));
        assert!(answer.contains("\"id\":"), "{answer}");
    }
    let (out, there) = (check(&[avro]), of_consumer());
    for subject in &subjects {
        let line = out.lines().find(|line| line.ends_with(&format!(", as {subject}"))).expect(&out);
        assert!(line.starts_with("ok       registry: ") && line.contains(" has the schema, with id "), "{line}");
    }
    let line = there.lines().find(|line| line.starts_with("ok       registry: ")).expect(&there);
    assert!(line.contains(&format!(" has {}: avro with id ", subjects[0])), "{line}");
}
