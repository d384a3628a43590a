//! `highwater-agent status` of an agent that runs, and of one that does not.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::agent::{Agent, Running, command, until};
use crate::support::services::Kafka;

/// Synthetic traffic that stays over a limit, in both directions of all links; a few events a second at most.
fn config(brokers: &str, topic: &str) -> String {
    format!(
        "agent = 'gw'\ninterval = '100ms'\nsource = 'synthetic'\n\
         [[limit]]\nname = 'low'\ninterface = 'syn*'\nraise_at = '1 Mbit/s'\n\
         [flush]\ninterval = '500ms'\n[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\nkey = 'interface'\n"
    )
}

fn status(agent: &Agent, more: &[&str]) -> Command {
    let mut command = command();
    command.arg("status").arg("--config").arg(agent.config()).args(more);
    command
}

fn output(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// Returns the exit code, and the object that is printed.
fn status_as_json(agent: &Agent) -> (i32, Value) {
    let (code, out, err) = output(status(agent, &["--format", "json"]));
    assert_eq!(out.lines().count(), 1, "one object a line: {out} {err}");
    (code, serde_json::from_str(&out).expect("JSON"))
}

/// An agent whose events are delivered nowhere.
fn without_kafka() -> (Agent, Running) {
    let mut agent = Agent::new(&config("127.0.0.1:9", "nowhere"));
    let running = agent.start(&[]);
    running.until("cannot reach Kafka, the events stay in the journal");
    (agent, running)
}

#[test]
fn samples_that_cannot_be_sent_are_a_problem() {
    let Some(kafka) = Kafka::or_skip("agent_status::samples_that_cannot_be_sent_are_a_problem") else { return };
    let topic = kafka.topic("sampled", 1);
    let samples = format!("[samples]\nenabled = true\n[topics]\nsamples = '{topic}-of-nobody'\n");
    let mut agent = Agent::new(&(config(&kafka.address, &topic) + &samples));
    let running = agent.start(&[]);
    let missing = format!("there is no topic {topic}-of-nobody");
    running.until(&missing);
    until("the topic is missed", || status_as_json(&agent).1["troubles"].to_string().contains(&missing).then_some(()));
}

#[test]
fn what_waits_is_shown_while_the_broker_is_away_and_afterwards_what_kafka_acknowledged() {
    let test = "agent_status::what_waits_is_shown_while_the_broker_is_away_and_afterwards_what_kafka_acknowledged";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("status", 3);
    let (agent, running) = without_kafka();
    let (code, report) = until("an open breach", || {
        let (code, report) = status_as_json(&agent);
        (report["open_breaches"].as_u64() > Some(0)).then_some((code, report))
    });
    assert_eq!((code, &report["state"], &report["healthy"]), (1, &"running".into(), &false.into()), "{report}");
    assert!(report["pending"].as_u64() > Some(0) && report["oldest_at"].is_string(), "{report}");
    assert!(report["flushing_since"].is_string() && report["last_flush_at"].is_null(), "{report}");
    assert!(report["troubles"][0]["what"].as_str().unwrap().starts_with("cannot reach Kafka: "), "{report}");
    assert_eq!((&report["agent"], &report["pid"]), (&"gw".into(), &running.id().into()));
    let breach = &report["breaches"][0];
    assert_eq!(
        (&breach["limit_name"], &breach["limit_bps"], &breach["severity"]),
        (&"low".into(), &1_000_000.into(), &"warning".into())
    );
    assert!(breach["peak_bps"].as_u64() >= breach["rate_bps"].as_u64(), "{breach}");

    agent.configure(&config(&kafka.address, &topic));
    running.signal("HUP");
    let report = until("the offsets that kcat sees", || {
        let (code, report) = status_as_json(&agent);
        let mut last = BTreeMap::new();
        for line in kafka.read(&topic, "%p %o\n") {
            let (partition, offset) = line.split_once(' ').expect("two numbers");
            last.insert(partition.to_owned(), Value::from(offset.parse::<i64>().expect("a number")));
        }
        let same = report["last_offsets"].as_object().is_some_and(|offsets| offsets.clone().into_iter().eq(last));
        // After a pause of the machine there is no rate.
        let is_measured = |link: &Value| link["verdict"] == "measured" && link["rx_bps"].as_u64() > Some(0);
        let measured = report["links"].as_array().unwrap().iter().any(is_measured);
        (code == 0 && same && measured && report["pending"] == 0 && report["delivered"].as_u64() > Some(0))
            .then_some(report)
    });
    assert!(
        report["last_offsets"].as_object().unwrap().len() > 1,
        "keys by interface use several partitions: {report}"
    );
    assert!(report["last_flush_at"].is_string() && report["troubles"] == Value::Array(Vec::new()), "{report}");
    assert!(report["last_error"].as_str().unwrap().contains("cannot reach Kafka"), "the last error stays: {report}");

    let link = report["links"].as_array().unwrap().iter().find(|link| link["interface"] == "syn0").unwrap();
    let facts = ["up", "verdict", "rx_speed_bps", "speed_doubted"].map(|name| link[name].clone());
    assert_eq!(Value::from(facts.to_vec()), serde_json::json!([true, "measured", 100_000_000, false]), "{link}");
    assert_eq!(link["unjudged"]["first"], 1, "{link}");
    let limit = |direction: &str| serde_json::json!({"name": "low", "direction": direction, "raise_at_bps": 1_000_000});
    assert_eq!(link["limits"], serde_json::json!([limit("rx"), limit("tx")]), "{link}");

    let (out, cells) = until("a table with rates", || {
        let (code, out, err) = output(status(&agent, &[]));
        assert_eq!((code, &*err), (0, ""), "{out}");
        let row = out.lines().find(|line| line.starts_with("syn0 ")).unwrap_or_default();
        let cells = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned);
        let cells: Vec<String> = cells.collect();
        let has_rates = cells.get(3..5).is_some_and(|rates| rates.iter().all(|rate| rate.ends_with("bit/s")));
        has_rates.then_some((out, cells))
    });
    assert!(out.contains("\nlink  state  speed "), "{out}");
    assert_eq!([1, 2, 5].map(|at| &*cells[at]), ["up", "100.0 Mbit/s", "1.0 Mbit/s"], "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    assert!(out.starts_with("state          running since ") && out.contains("warning   syn0 rx  low"), "{out}");
    let (_, out, _) = output(status(&agent, &["--format", "csv"]));
    let mut csv = out.lines();
    assert!(csv.next().unwrap().starts_with("state,healthy,asked_at,agent,"), "{out}");
    assert!(csv.next().unwrap().starts_with("running,true,20"), "{out}");
}

/// Returns each file of a directory, with what shows that it was written.
fn files(directory: &std::path::Path) -> BTreeMap<String, (u64, i64, i64, Vec<u8>)> {
    let files = fs::read_dir(directory).expect("it can be read").map(|entry| entry.expect("so can its entries"));
    let file = |entry: fs::DirEntry| {
        let about = entry.metadata().expect("it is there");
        let bytes = fs::read(entry.path()).unwrap_or_default(); // a socket has none
        (entry.file_name().into_string().expect("a name"), (about.ino(), about.mtime_nsec(), about.ctime_nsec(), bytes))
    };
    files.map(file).collect()
}

#[test]
fn the_journal_of_a_killed_agent_is_read_and_stays_as_it_is() {
    let (mut agent, running) = without_kafka();
    until("open breaches", || (status_as_json(&agent).1["open_breaches"].as_u64() > Some(0)).then_some(()));
    running.kill();
    let before = files(&agent.state_dir());
    assert!(before.contains_key("agent.sock") && !before["journal.db-wal"].3.is_empty(), "left as a kill leaves them");
    let (code, report) = status_as_json(&agent);
    assert_eq!((code, &report["state"]), (1, &"not_running".into()));
    let (_, out, err) = output(status(&agent, &[]));
    assert!(out.starts_with("state          not running") && err.contains("no agent runs on"), "{out} {err}");
    assert_eq!(files(&agent.state_dir()), before);
    assert_eq!(report["pending"].as_u64(), Some(agent.pending()));
    assert!(report["pending"].as_u64() > Some(0) && report["open_breaches"].as_u64() > Some(0), "{report}");

    // Its socket is stale: the next one takes its place, and takes it away at its end.
    let mut running = agent.start(&[]);
    until("the next one answers", || (status_as_json(&agent).1["pid"] == running.id()).then_some(()));
    let mode = fs::metadata(agent.state_dir().join("agent.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    running.signal("TERM");
    until("it says that it ends", || (status_as_json(&agent).1["state"] == "ending").then_some(()));
    assert_eq!(running.wait().code(), Some(1), "its events wait for Kafka");
    assert!(!files(&agent.state_dir()).contains_key("agent.sock"));
    assert_eq!(status_as_json(&agent).1["state"], "not_running");
}

#[test]
fn a_damaged_journal_is_said_to_be_damaged_and_left_to_the_next_start() {
    let (agent, running) = without_kafka();
    running.kill();
    let log = fs::File::options().write(true).open(agent.state_dir().join("journal.db-wal")).unwrap();
    log.set_len(0).unwrap();
    let before = files(&agent.state_dir());
    let (code, out, err) = output(status(&agent, &[]));
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(err.contains("journal damaged") && err.contains("the next start sets it aside"), "{err}");
    assert_eq!(files(&agent.state_dir()), before);
}

#[test]
fn clients_that_say_nothing_and_stay_cost_nothing() {
    let (agent, running) = without_kafka();
    let held = |what: &str| fs::read_dir(format!("/proc/{}/{what}", running.id())).expect("it runs").count();
    let threads = held("task");
    let ticks = || {
        let (_, report) = status_as_json(&agent);
        ["ticks", "skipped_ticks"].map(|name| report[name].as_u64().unwrap())
    };
    let socket = agent.state_dir().join("agent.sock");
    let clients: Vec<UnixStream> = (0..500).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    // A busy machine may cost a tick; these clients would cost many.
    let mut since = ticks();
    until("ten ticks with none skipped", || {
        let now = ticks();
        if now[1] > since[1] {
            since = now;
        }
        (now[0] > since[0] + 10).then_some(())
    });
    assert!(held("fd") < 100, "{} descriptors for {} clients", held("fd"), clients.len());
    assert!(held("task") <= threads + 1, "the publisher's threads come and go, others do not");
}

#[test]
fn an_agent_that_stands_still_is_69_and_so_is_one_without_its_socket() {
    let (agent, running) = without_kafka();
    running.signal("STOP");
    let (code, out, err) = output(status(&agent, &[]));
    assert_eq!((code, &*out), (69, ""), "{err}");
    assert!(err.contains("agent.sock: no answer; it may be stuck"), "{err}");
    running.signal("CONT");
    until("it answers again", || (output(status(&agent, &[])).0 == 1).then_some(()));
    fs::remove_file(agent.state_dir().join("agent.sock")).unwrap();
    let (code, _, err) = output(status(&agent, &[]));
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("it holds agent.lock"), "{err}");
}

#[test]
fn where_nobody_may_look_and_where_nothing_is_the_remedy_is_named() {
    let agent = Agent::new(&config("127.0.0.1:9", "nowhere"));
    let (code, out, err) = output(status(&agent, &[]));
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(err.contains("there is no state directory") && err.contains("HIGHWATER_STATE_DIR"), "{err}");
    fs::create_dir(agent.state_dir()).unwrap();
    let (code, _, err) = output(status(&agent, &[]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("none has left a journal there"), "{err}");

    // Another user's agent: root asks as another user, others lock themselves out.
    let directory = tempfile::tempdir().unwrap();
    let (state, program) = (directory.path().join("state"), directory.path().join("highwater-agent"));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o000)).unwrap();
    let shipped = command();
    fs::copy(shipped.get_program(), &program).unwrap();
    let mut other = Command::new(&program);
    other.arg("status").env_clear().env("HIGHWATER_STATE_DIR", &state);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        other.uid(65_534);
    }
    let (code, out, err) = output(other);
    assert_eq!((code, &*out), (69, ""), "{err}");
    assert!(err.contains("permission denied") && err.contains("sudo highwater-agent status"), "{err}");
}

#[test]
fn a_unit_has_its_socket_in_its_runtime_directory_and_answers_for_its_own_state_alone() {
    let runtime = tempfile::tempdir().unwrap();
    let mut agent = Agent::new(&config("127.0.0.1:9", "nowhere"));
    let mut unit = command();
    unit.env("RUNTIME_DIRECTORY", runtime.path());
    let running = agent.start_as(unit, &[]);
    running.until("cannot reach Kafka");
    let ask = |agent: &Agent| {
        let mut status = status(agent, &["--format", "json"]);
        status.env("RUNTIME_DIRECTORY", runtime.path());
        output(status)
    };
    let (_, out, err) = ask(&agent);
    assert!(out.contains(&format!("\"pid\":{}", running.id())), "{out} {err}");
    assert!(!agent.state_dir().join("agent.sock").exists());
    let other = Agent::new(&config("127.0.0.1:9", "nowhere"));
    let (code, out, err) = ask(&other);
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(err.contains("there is no state directory"), "{err}");
}

#[test]
fn events_that_the_disk_refuses_are_a_trouble_and_are_said_to_be_lost_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let state = file.join("state"); // no directory can be made there
    let mut agent = Agent::new(&config("127.0.0.1:9", "nowhere"));
    let mut refused = command();
    refused.env("RUNTIME_DIRECTORY", directory.path()).env("HIGHWATER_STATE_DIR", &state);
    let mut running = agent.start_as(refused, &[]);
    running.until("bandwidth exceeded on");
    let mut status = status(&agent, &["--format", "json"]);
    status.env("RUNTIME_DIRECTORY", directory.path()).env("HIGHWATER_STATE_DIR", &state);
    let (code, out, err) = output(status);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["kept_on"]), (1, &"memory".into()), "{out} {err}");
    assert!(report["troubles"][0]["what"].as_str().unwrap().contains("the journal cannot be written"), "{out}");
    running.signal("TERM");
    assert_eq!(running.wait().code(), Some(1));
    let log = running.log();
    assert!(
        log.contains(": kept in memory only, because the journal cannot be written")
            && !log.contains("left in the journal"),
        "{log}"
    );
}
