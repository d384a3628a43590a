//! Events that Kafka refuses, does not acknowledge, or cannot be given, and the connection between flushes.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use highwater::agent::publisher::Progress;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::agent::{Agent, command, until};
use crate::support::events::{loss, updated};
use crate::support::failpoints;
use crate::support::proxy::{Mode, Proxy};
use crate::support::publishing::Publishing;
use crate::support::services::Kafka;

type Mock = MockCluster<'static, DefaultProducerContext>;

const INVALID: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD;
const TAKEN: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
const TOO_FEW: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;

fn broker() -> Mock {
    let mock = MockCluster::new(1).expect("a mock cluster");
    mock.create_topic("t", 1, 1).expect("a topic");
    mock
}

/// A broker that answers the next produce requests like this, and accepts those after them.
fn mock(answers: &[RDKafkaRespErr]) -> (Mock, Publishing) {
    let mock = broker();
    mock.request_errors(RDKafkaApiKey::Produce, answers);
    let publishing = Publishing::new(&mock.bootstrap_servers(), "t", &[]);
    (mock, publishing)
}

fn lasting(progress: &Progress) -> &str {
    progress.problems.ongoing.as_ref().map_or("", |lasting| &lasting.what)
}

#[test]
fn a_topic_that_refuses_all_loses_none_and_gets_all_once_it_takes_them() {
    let (mock, mut publishing) = mock(&[INVALID; 1_000]);
    publishing.add(40);
    publishing.until("it is refused", |progress| progress.refusing);
    assert!(lasting(publishing.progress()).contains("topic t refuses events: "), "{:?}", publishing.progress());
    publishing.flush_now();
    publishing.until("it is refused again", |progress| progress.problems.count > 1);
    assert_eq!((publishing.progress().rejected, publishing.pending()), (0, 40));
    mock.clear_request_errors(RDKafkaApiKey::Produce);
    publishing.flush_now();
    publishing.until_delivered();
    let progress = publishing.progress();
    assert_eq!((progress.delivered, progress.rejected, progress.refusing, lasting(progress)), (40, 0, false, ""));
    assert_eq!(publishing.pending(), 0);
}

#[test]
fn an_event_is_given_up_only_if_the_topic_takes_others_between_two_refusals_of_it() {
    // The first event, alone and again one by one; the two behind it; and it once more.
    let (_mock, mut publishing) = mock(&[INVALID, INVALID, TAKEN, TAKEN, INVALID]);
    publishing.add(3);
    publishing.until("all is over", |progress| progress.rejected == 1 && progress.delivered == 3);
    assert_eq!(publishing.pending(), 0, "its loss was declared, and delivered");
}

#[test]
fn a_loss_that_is_refused_declares_no_other_loss() {
    let (_mock, mut publishing) = mock(&[INVALID, INVALID, TAKEN, TAKEN, INVALID, INVALID]);
    publishing.add_bodies(vec![loss(1, 1), updated("gw", 2).body, updated("gw", 3).body]);
    publishing.until("the others are delivered", |progress| progress.delivered == 2 && progress.refusing);
    assert_eq!((publishing.progress().rejected, publishing.pending()), (0, 1));
    publishing.flush_now();
    publishing.until_delivered();
    assert_eq!((publishing.progress().delivered, publishing.progress().rejected), (3, 0));
}

#[test]
fn what_librdkafka_tries_again_in_silence_is_reported_with_its_cause() {
    let (mock, mut publishing) = mock(&[TOO_FEW; 10_000]);
    publishing.add(5);
    publishing.until("the cause is known", |progress| progress.problem().contains("Not enough in-sync replicas"));
    publishing.until("it is a problem", |progress| lasting(progress).contains("has not acknowledged"));
    assert!(lasting(publishing.progress()).contains("Not enough in-sync replicas"), "{:?}", publishing.progress());
    mock.clear_request_errors(RDKafkaApiKey::Produce);
    publishing.until_delivered();
    publishing.until("the problem is over", |progress| progress.problems.ongoing.is_none());
}

#[test]
fn a_missing_topic_is_found_out_without_events_and_is_no_problem_once_it_is_there() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let mut publishing = Publishing::new(&mock.bootstrap_servers(), "t", &[]);
    publishing.look_up();
    publishing.until("it is missing", |progress| lasting(progress).contains("there is no topic t: "));
    publishing.flush_now();
    assert!(lasting(publishing.progress()).contains("there is no topic t: "), "a flush of nothing does not make it");
    mock.create_topic("t", 1, 1).expect("a topic");
    publishing.flush_now();
    publishing.until("it is there", |progress| progress.problems.ongoing.is_none());
    publishing.add(3);
    publishing.until_delivered();
    // With events on their way there is nothing to look for.
    publishing.look_up();
    publishing.add(3);
    publishing.until_delivered();
    assert_eq!(publishing.progress().problems.ongoing, None);
}

#[test]
fn one_bootstrap_broker_of_three_is_no_problem_if_it_is_away() {
    for _ in 0..8 {
        let mock = MockCluster::new(1).expect("a mock cluster");
        mock.create_topic("t", 1, 1).expect("a topic");
        // These two have no listener.
        let brokers = format!("127.0.0.1:9,127.0.0.1:7,{}", mock.bootstrap_servers());
        let mut publishing = Publishing::new(&brokers, "t", &[]);
        publishing.add(5);
        publishing.until_delivered();
        let problems = &publishing.progress().problems;
        assert_eq!((problems.count, &problems.last), (0, &None));
    }
    let mut publishing = Publishing::new("127.0.0.1:9,127.0.0.1:7", "t", &[]);
    publishing.add(5);
    publishing.until("all are away", |progress| lasting(progress).starts_with("cannot reach Kafka: 127.0.0.1:"));
}

#[test]
fn one_producer_serves_all_flushes_on_one_connection_and_outlives_a_connection_that_the_network_forgot() {
    let test = "publishing::one_producer_serves_all_flushes_on_one_connection_and_outlives_a_connection_that_the_network_forgot";
    let proxy = Proxy::new("");
    let Some((kafka, _directory)) = Kafka::start_behind(test, &proxy) else { return };
    let topic = kafka.topic("kept", 1);
    let mut publishing = Publishing::new(&proxy.address(), &topic, &[]);
    publishing.add(1);
    publishing.until_delivered();
    let (connections, bytes) = (proxy.connections(), proxy.bytes());
    for _ in 0..20 {
        publishing.add(5);
        publishing.until_delivered();
    }
    let a_flush = (proxy.bytes() - bytes) / 20;
    assert!(a_flush <= 1_500, "{a_flush} bytes both ways for five events");
    assert_eq!((proxy.connections(), kafka.producers(&topic)), (connections, 1));
    // No FIN, no RST: the connection just does not work any more, as behind a NAT that has forgotten it.
    proxy.forget();
    let forgotten = Instant::now();
    publishing.add(5);
    publishing.until_delivered();
    // After 10 s without an answer; librdkafka's own time is 60 s.
    assert!(forgotten.elapsed() < Duration::from_secs(25), "noticed after {:?}", forgotten.elapsed());
    assert_eq!(kafka.producers(&topic), 1, "the same producer has connected again");
    let read = kafka.events(&topic);
    assert_eq!(read.len(), 106, "none twice");
    assert!(read.windows(2).all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64()), "in order");
}

#[test]
fn a_thread_that_cannot_be_started_is_a_problem_until_it_can() {
    let Some(kafka) = Kafka::or_skip("publishing::a_thread_that_cannot_be_started_is_a_problem_until_it_can") else {
        return;
    };
    let mut publishing = Publishing::new(&kafka.address, &kafka.topic("barren", 1), &[]);
    publishing.set_threads_fail(true);
    publishing.add(3);
    let problem = |publishing: &Publishing| publishing.progress().problems.ongoing.clone().map(|problem| problem.what);
    let why = problem(&publishing).expect("it is a problem at once");
    assert!(why.starts_with("cannot publish: no thread could be started: "), "{why}");
    publishing.flush_now();
    assert_eq!(publishing.progress().problems.count, 1, "it is counted once");
    publishing.set_threads_fail(false);
    publishing.until_delivered();
    assert_eq!(problem(&publishing), None);
}

/// A network that was slow for a while is not taken for a slow one for good: a connection that it loses later is noticed soon.
#[test]
fn patience_ends() {
    let test = "publishing::patience_ends";
    let proxy = Proxy::new("");
    let (Some((kafka, _directory)), Some(())) = (Kafka::start_behind(test, &proxy), failpoints::or_skip(test)) else {
        return;
    };
    let topic = kafka.topic("patient", 1);
    let mut flood = crate::support::pipeline::busy_config(&proxy.address(), &topic)
        + "[kafka.properties]\n'compression.type' = 'none'\n";
    for number in 0..30 {
        flood += &format!(
            "[[limit]]\nname = 'flood-{number}'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n"
        );
    }
    let mut agent = Agent::new(&flood);
    proxy.set(Mode::Slow);
    let running = agent.start_at("patience-s=return(1)", &[]);
    running.until("the connection to Kafka is slow");
    proxy.set(Mode::Pass);
    let delivers = |name: &str| {
        let before = kafka.end_offset(&topic);
        until(name, || (kafka.end_offset(&topic) > before).then_some(()));
    };
    delivers("events are delivered once the network is fast");
    running.until("the connection to Kafka has the usual timeouts again");
    delivers("events are delivered by the next connection");
    proxy.forget();
    let forgotten = Instant::now();
    delivers("the connection is replaced");
    assert!(forgotten.elapsed() < Duration::from_secs(30), "after {:?}:\n{}", forgotten.elapsed(), running.log());
}

/// 1 MB over this network takes longer than a request may take that is answered soon.
#[test]
fn a_slow_connection_gets_the_time_that_it_needs() {
    let test = "publishing::a_slow_connection_gets_the_time_that_it_needs";
    let proxy = Proxy::new("");
    let Some((kafka, _directory)) = Kafka::start_behind(test, &proxy) else { return };
    let topic = kafka.topic("slow", 1);
    let mut publishing = Publishing::new(&proxy.address(), &topic, &[("compression.type", "none")]);
    proxy.set(Mode::Slow);
    publishing.add(1_200);
    publishing.until("some are delivered", |progress| progress.delivered > 1);
    publishing.until("half of them are delivered", |progress| progress.delivered > 600);
    publishing.until_delivered();
}

#[test]
fn a_topic_too_narrow_for_any_event_holds_all_and_says_so() {
    let test = "publishing::a_topic_too_narrow_for_any_event_holds_all_and_says_so";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("narrow", 1);
    kafka.alter(&topic, "max.message.bytes=100");
    let mut agent = Agent::new(&crate::support::pipeline::busy_config(&kafka.address, &topic));
    let mut running = agent.start(&[]);
    running.until(&format!("topic {topic} refuses events: "));
    std::thread::sleep(Duration::from_secs(3));
    running.signal("TERM");
    assert_eq!(running.wait().code(), Some(1));
    let log = running.log();
    assert!(log.contains("events left in the journal: topic ") && log.contains("max.message.bytes"), "{log}");
    let lines = log.lines().filter(|line| line.contains(&topic)).count();
    assert!(lines < 10, "{lines} lines:\n{log}");
    let (_, accepted) = agent.accepted();
    assert_eq!(agent.pending(), accepted, "nothing was given up, and nothing declared lost");

    let simulate = ["simulate", "--events", "100", "-b", &kafka.address, "-t", &topic];
    let output = command().args(simulate).output().expect("the agent runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("not delivered: 100 events: topic "), "{err}");
    assert!(!err.contains("journal"), "what a command of the toolbox holds is in memory: {err}");
    let csv = "time,rx\n2026-11-20T12:00:00Z,0\n2026-11-20T12:00:01Z,90000000\n2026-11-20T12:00:02Z,180000000\n";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let series = directory.path().join("series.csv");
    std::fs::write(&series, csv).expect("it can be written");
    let replay = [
        "replay",
        "--publish",
        "--time",
        "time",
        "--rx",
        "rx",
        "--limit",
        "1 Mbit/s",
        "-b",
        &kafka.address,
        "-t",
        &topic,
    ];
    let output = command().args(replay).arg(&series).output().expect("the agent runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("not delivered: "), "{err}");
    assert!(!err.contains("journal"), "{err}");

    kafka.alter(&topic, "max.message.bytes=1048588");
    let log = agent.run(&["--for", "1s"]);
    assert!(log.contains(" 0 left in the journal") || agent.pending() == 0, "{log}");
    let (_, accepted) = agent.accepted();
    let seqs: Vec<u64> = kafka.events(&topic).iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=accepted).collect::<Vec<_>>());
}

#[test]
fn an_end_with_events_left_says_why() {
    let mock = broker();
    mock.request_errors(RDKafkaApiKey::Produce, &[TOO_FEW; 10_000]);
    mock.topic_error("missing", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).expect("a topic");
    let brokers = mock.bootstrap_servers();
    for (topic, says) in [("t", "Not enough in-sync replicas"), ("missing", "there is no topic")] {
        let mut agent = Agent::new(&crate::support::pipeline::busy_config(&brokers, topic));
        let mut running = agent.start(&["--for", "2s"]);
        assert_eq!(running.wait().code(), Some(1));
        let log = running.log();
        let end = log.lines().find(|line| line.contains("events left in the journal: ")).unwrap_or_default();
        assert!(end.contains(says), "{log}");
    }
}

#[test]
fn a_one_shot_command_gives_up_brokers_that_refuse_to_write() {
    let test = "publishing::a_one_shot_command_gives_up_brokers_that_refuse_to_write";
    let Some(()) = failpoints::or_skip(test) else { return };
    let mock = broker();
    mock.request_errors(RDKafkaApiKey::Produce, &[TOO_FEW; 10_000]);
    let directory = tempfile::tempdir().unwrap();
    let rows = directory.path().join("rows.csv");
    std::fs::write(&rows, "timestamp,value\n1,10\n2,2000000\n3,10\n").unwrap();
    let rows = rows.display().to_string();
    // The last takes longer to wait for room than to wait at its end.
    for arguments in [
        &["simulate", "--events", "20"][..],
        &["replay", &rows, "--limit", "1 Mbit/s", "--publish"],
        &["simulate", "--events", "100000"],
    ] {
        let mut command = failpoints::command(env!("CARGO_BIN_EXE_highwater-agent"), "stalled-s=return(12)");
        let output = command.args(arguments).args(["-b", &mock.bootstrap_servers(), "-t", "t"]).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {err}");
        let end = err.lines().last().unwrap_or_default();
        assert!(end.contains("Not enough in-sync replicas: ") && end.contains("min.insync.replicas"), "{err}");
    }
}

/// The last row but one, of 2,000,000 bytes in a second, is over the limit.
#[test]
fn a_one_shot_command_waits_for_its_rows_longer_than_for_kafka() {
    let test = "publishing::a_one_shot_command_waits_for_its_rows_longer_than_for_kafka";
    let Some(()) = failpoints::or_skip(test) else { return };
    let mock = broker();
    let mut command = failpoints::command(env!("CARGO_BIN_EXE_highwater-agent"), "stalled-s=return(2)");
    command.args(["replay", "-", "--limit", "1 Mbit/s", "--publish", "-b", &mock.bootstrap_servers(), "-t", "t"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut rows = child.stdin.take().unwrap();
    // The first lines, where a header may be, are read together.
    let quiet: String = (1..=5_000).map(|second| format!("{second},10\n")).collect();
    rows.write_all(format!("timestamp,value\n{quiet}").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    rows.write_all(b"5001,2000000\n5002,10\n").unwrap();
    drop(rows);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_replay_that_fails_says_how_to_resume() {
    let mock = broker();
    let directory = tempfile::tempdir().unwrap();
    let rows = directory.path().join("rows.csv");
    let times = ["01:30", "01:45", "02:00", "02:15", "02:30", "02:45", "02:00", "02:15"];
    let lines = times.map(|time| format!("2026-10-25 {time}:00,900000000\n"));
    std::fs::write(&rows, format!("timestamp,value\n{}", lines.concat())).unwrap();
    let output = command()
        .args(["replay", &rows.display().to_string(), "--limit", "1 Mbit/s", "--publish"])
        .args(["-b", &mock.bootstrap_servers(), "-t", "t"])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("comes a second time") && err.contains("; then resume with --epoch "), "{err}");
}

#[test]
fn the_connection_is_closed_after_a_while_without_events_and_the_host_is_silent() {
    let test = "publishing::the_connection_is_closed_after_a_while_without_events_and_the_host_is_silent";
    let proxy = Proxy::new("");
    let Some((kafka, _directory)) = Kafka::start_behind(test, &proxy) else { return };
    let topic = kafka.topic("linger", 1);
    let config = |linger: &str| {
        let brokers = proxy.address();
        format!("[flush]\ninterval = '1s'\nlinger = '{linger}'\n[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\n")
    };
    let mut agent = Agent::new(&config("2s"));
    let running = agent.start(&[]);
    running.until("delivered to");
    until("the connection is closed", || (proxy.open() == 0).then_some(()));
    let bytes = proxy.bytes();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((proxy.open(), proxy.bytes()), (0, bytes));
    drop(running);
}

#[test]
fn backoffs_of_a_fleet_are_spread_by_its_names() {
    let pause = |name: &str| {
        let config = "[flush]\ninterval = '0s'\n[kafka.tls]\nca_file = '/nowhere/ca.pem'\n";
        let mut agent = Agent::new(&format!("agent = '{name}'\nsource = 'synthetic'\n{config}"));
        let running = agent.start(&[]);
        running.until("next attempt in ");
        let log = running.log();
        log.split("next attempt in ").nth(1).expect("a pause").lines().next().unwrap_or_default().to_owned()
    };
    let names = ["gw-1", "gw-2", "gw-3", "gw-4", "gw-5"];
    let pauses = names.map(pause);
    assert_eq!(names.map(pause), pauses, "each name has its own pace");
    assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
}
