//! From counters to Kafka: events that the journal accepted arrive, whatever happens to the agent and to the broker.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use highwater::agent::journal::{Journal as _, SqliteJournal};
use highwater::message::{Event, NewEvent};
use highwater::units::ByteCount;
use serde_json::Value;

use crate::support::agent::{self, Agent, until};
use crate::support::events::updated;
use crate::support::pipeline::busy_config;
use crate::support::process::under;
use crate::support::services::Kafka;
use crate::support::skips::skip;

/// Asserts that each number from 1 to `accepted` of one epoch arrived, in order but for what was sent again; and nothing else.
fn arrived_whole(events: &[Value], epoch: &str, accepted: u64) {
    let mut seen: BTreeMap<u64, &Value> = BTreeMap::new();
    for event in events {
        assert_eq!(event["epoch"], epoch);
        let seq = event["seq"].as_u64().unwrap();
        let first = seen.insert(seq, event).is_none();
        assert!(first || seen[&seq] == event, "a copy is a copy");
        if first {
            assert_eq!(seen.len() as u64, seq, "in order: nothing comes before what came before it");
        }
    }
    assert_eq!(seen.len() as u64, accepted, "all that was accepted");
}

#[test]
fn a_state_directory_that_others_may_open_is_warned_of() {
    let mut agent = Agent::new(&busy_config("127.0.0.1:9", "t"));
    std::fs::create_dir(agent.state_dir()).unwrap();
    for (mode, is_open) in [(0o755, true), (0o750, false)] {
        std::fs::set_permissions(agent.state_dir(), std::fs::Permissions::from_mode(mode)).unwrap();
        let running = agent.start(&[]);
        running.until("agent gw started");
        let warns =
            running.log().contains("state is open to other users (mode 0755), though its files are not: chmod 0750");
        assert_eq!(warns, is_open, "{}", running.log());
    }
}

/// Variable of a process that runs one test alone.
const ALONE: &str = "HIGHWATER_TEST_ALONE";

/// Returns a field of `/proc/self/status`, in bytes.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux has it");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() << 10
}

#[test]
fn a_full_ring_in_memory_takes_little_more_than_its_size() {
    let test = "agent_journal::a_full_ring_in_memory_takes_little_more_than_its_size";
    // In a process of its own: the memory of this one is that of all tests beside it, too.
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, "1").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
        return;
    }
    let size = 16 << 20;
    let mut journal = SqliteJournal::in_memory(ByteCount::from_bytes(size)).unwrap();
    let Event { stamp, body, .. } = updated("gw", 1);
    let new_events = vec![NewEvent { stamp, body }; 500];
    let before = memory("VmRSS:");
    // Twice as many as fit.
    while journal.pending().events == 0 || journal.lost().evicted < journal.pending().events {
        journal.append(new_events.clone()).unwrap();
    }
    assert!(journal.pending().bytes > size / 2, "{:?}", journal.pending());
    let grown = memory("VmHWM:").saturating_sub(before);
    assert!(grown <= size + size / 2, "grown by {grown} bytes");
}

#[test]
fn a_broker_that_comes_late_gets_everything() {
    let Some(kafka) = Kafka::or_skip("agent_journal::a_broker_that_comes_late_gets_everything") else { return };
    let topic = kafka.topic("late", 1);
    // A port on which nothing listens yet.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut agent = Agent::new(&busy_config(&format!("127.0.0.1:{port}"), &topic));
    let mut running = agent.start(&[]);
    running.until("cannot reach Kafka, the events stay in the journal");
    std::thread::sleep(Duration::from_secs(3));
    let away = running.log().matches("cannot reach Kafka").count();
    assert!(away <= 3, "said at a sane rate, not {away} times");
    agent.configure(&busy_config(&kafka.address, &topic));
    running.signal("TERM");
    assert_eq!(running.wait().code(), Some(1));
    assert!(running.log().contains("0 events delivered"), "{}", running.log());
    let log = agent.run(&["--for", "2s"]);
    assert!(log.contains(" 0 left in the journal"), "{log}");
    let (epoch, accepted) = agent.accepted();
    let events = kafka.events(&topic);
    arrived_whole(&events, &epoch, accepted);
    let ends = events.iter().filter(|event| event["kind"] == "agent_stopped");
    let reasons: Vec<&str> = ends.map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["signal", "finished"]);
}

#[test]
fn a_topic_that_refuses_batches_gets_its_events_one_by_one() {
    let test = "agent_journal::a_topic_that_refuses_batches_gets_its_events_one_by_one";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("small", 1);
    // Room for any event alone, and for no batch of what waits.
    // Room for a declaration of many losses, and for none of the large events.
    kafka.alter(&topic, "max.message.bytes=20000");
    let mut agent = Agent::new(&busy_config("127.0.0.1:9", &topic));
    agent.run(&["--for", "4s"]);
    agent.configure(&busy_config(&kafka.address, &topic));
    let log = agent.run(&["--for", "3s"]);
    assert!(log.contains(" 0 left in the journal") && !log.contains("declared lost"), "{log}");
    let (epoch, accepted) = agent.accepted();
    assert!(accepted > 30, "{accepted} are no backlog");
    arrived_whole(&kafka.events(&topic), &epoch, accepted);
}

/// Configuration of [`busy_config`], with as many events that are larger by so many bytes.
fn mixed(brokers: &str, topic: &str, larger: usize, properties: &str) -> String {
    let name = "x".repeat(larger);
    let large =
        format!("[[limit]]\nname = '{name}'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n");
    let properties = format!("[kafka.properties]\n'compression.type' = 'none'\n{properties}\n");
    busy_config(brokers, topic).replace("[flush]", &format!("{large}[flush]")) + &properties
}

#[test]
fn a_batch_that_is_refused_is_not_overtaken() {
    let Some(kafka) = Kafka::or_skip("agent_journal::a_batch_that_is_refused_is_not_overtaken") else { return };
    // Some batches fit and some do not, while many are under way: with these the first that does not is another one.
    for (name, bytes, together) in [("overtaken-1", 8_000, 8), ("overtaken-2", 2_500, 3)] {
        let topic = kafka.topic(name, 1);
        kafka.alter(&topic, &format!("max.message.bytes={bytes}"));
        let mut agent = Agent::new(&mixed("127.0.0.1:9", &topic, 1_500, ""));
        agent.run(&["--for", "4s"]);
        agent.configure(&mixed(&kafka.address, &topic, 1_500, &format!("'batch.num.messages' = {together}")));
        let log = agent.run(&["--for", "2s"]);
        assert!(log.contains("refuses a") && log.contains(" 0 left in the journal"), "{log}");
        assert!(!log.contains("declared lost"), "{log}");
        let (epoch, accepted) = agent.accepted();
        arrived_whole(&kafka.events(&topic), &epoch, accepted);
    }
}

#[test]
fn an_event_that_is_too_large_alone_is_declared_and_overtaken_by_none() {
    let test = "agent_journal::an_event_that_is_too_large_alone_is_declared_and_overtaken_by_none";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("too-large", 1);
    // Room for a declaration of many losses, and for none of the large events.
    kafka.alter(&topic, "max.message.bytes=20000");
    let mut agent = Agent::new(&mixed("127.0.0.1:9", &topic, 64 << 10, ""));
    agent.run(&["--for", "1s"]);
    let (epoch, _) = agent.accepted();
    let plain = "[kafka.properties]\n'compression.type' = 'none'\n"; // else a name of one letter takes no room
    agent.configure(&(busy_config(&kafka.address, &topic) + plain));
    let mut running = agent.start(&[]);
    running.until("it is declared lost");
    running.until(" delivered to");
    running.signal("TERM");
    assert!(running.wait().success());
    while agent.pending() > 0 {
        agent.run(&["--for", "1s"]);
    }
    let (_, accepted) = agent.accepted();
    let events = kafka.events(&topic);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
    // Each is there, or declared.
    let lost = events.iter().filter(|event| event["kind"] == "loss").flat_map(|event| {
        assert_eq!(event["reason"], "rejected");
        assert!(event["detail"].as_str().unwrap().contains("too large"), "{event}");
        event["ranges"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|range| range[0].as_u64().unwrap()..=range[1].as_u64().unwrap())
    });
    let mut all: Vec<u64> = lost.chain(seqs.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    assert!(events.iter().all(|event| event["epoch"] == *epoch) && all.into_iter().eq(1..=accepted), "{seqs:?}");
}

#[test]
fn a_wrong_broker_is_mended_by_reading_the_configuration_again() {
    let test = "agent_journal::a_wrong_broker_is_mended_by_reading_the_configuration_again";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("mended", 1);
    let mut agent = Agent::new(&busy_config("127.0.0.1:9", &topic));
    let mut running = agent.start(&[]);
    running.until("cannot reach Kafka, the events stay in the journal");
    agent.configure(&busy_config(&kafka.address, &topic));
    running.signal("HUP");
    running.until(" delivered to");
    running.signal("TERM");
    assert!(running.wait().success());
    let (epoch, accepted) = agent.accepted();
    arrived_whole(&kafka.events(&topic), &epoch, accepted);
}

#[test]
fn a_configuration_that_did_not_change_does_not_put_off_a_flush() {
    let test = "agent_journal::a_configuration_that_did_not_change_does_not_put_off_a_flush";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("unchanged", 1);
    let brokers = &kafka.address;
    let mut agent = Agent::new(&format!(
        "agent = 'gw'\nsource = 'synthetic'\n[flush]\ninterval = '6s'\n[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\n"
    ));
    let running = agent.start(&[]);
    running.until("started");
    until("the flush, whatever is read again meanwhile", || {
        running.signal("HUP");
        std::thread::sleep(Duration::from_millis(500));
        (!kafka.events(&topic).is_empty()).then_some(())
    });
}

#[test]
fn an_urgent_event_is_sent_at_once_and_others_wait_for_the_flush() {
    let test = "agent_journal::an_urgent_event_is_sent_at_once_and_others_wait_for_the_flush";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("urgent", 1);
    let limit = |severity: &str| {
        format!(
            "source = 'synthetic'\n[[limit]]\ninterface = 'syn0'\ndirection = 'rx'\nraise_at = '2 Mbit/s'\n\
             update_every = '1s'\nseverity = '{severity}'\n[flush]\ninterval = '1d'\n[kafka]\nbrokers = '{}'\ntopic = '{topic}'\n",
            kafka.address
        )
    };
    let mut agent = Agent::new(&limit("warning"));
    let running = agent.start(&[]);
    running.until("bandwidth exceeded on syn0");
    // The first events are sent within three seconds.
    std::thread::sleep(Duration::from_secs(5));
    let sent = kafka.events(&topic).len();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(kafka.events(&topic).len(), sent, "an update each second waits for the flush");
    running.signal("USR1");
    until("a flush by SIGUSR1", || (kafka.events(&topic).len() >= sent + 2).then_some(()));
    running.kill();

    let mut agent = Agent::new(&limit("critical"));
    let running = agent.start(&[]);
    running.until("bandwidth exceeded (critical) on syn0");
    until("the urgent event", || {
        let events = kafka.events(&topic);
        events.iter().any(|event| event["kind"] == "breach_raised" && event["severity"] == "critical").then_some(())
    });
}

#[test]
fn an_unknown_topic_loses_nothing_and_is_said() {
    let Some(kafka) = Kafka::or_skip("agent_journal::an_unknown_topic_loses_nothing_and_is_said") else { return };
    let mut agent = Agent::new(&busy_config(&kafka.address, "nobody-made-this-topic"));
    let mut running = agent.start(&[]);
    running.until(&kafka.missing("nobody-made-this-topic"));
    running.signal("TERM");
    assert_eq!(running.wait().code(), Some(1));
    let topic = kafka.topic("made", 1);
    agent.configure(&busy_config(&kafka.address, &topic));
    agent.run(&["--for", "1s"]);
    let (epoch, accepted) = agent.accepted();
    arrived_whole(&kafka.events(&topic), &epoch, accepted);
}

#[test]
fn an_open_breach_goes_on_after_a_kill() {
    let Some(kafka) = Kafka::or_skip("agent_journal::an_open_breach_goes_on_after_a_kill") else { return };
    let topic = kafka.topic("resume", 1);
    let mut agent = Agent::new(&busy_config(&kafka.address, &topic));
    let running = agent.start(&[]);
    running.until("bandwidth exceeded on syn0 rx");
    running.kill();
    let log = agent.run(&["--for", "2s"]);
    assert!(!log.contains("bandwidth exceeded on syn0 rx"), "it is not raised twice: {log}");
    let events = kafka.events(&topic);
    let of_syn0 = |event: &&Value| event["interface"] == "syn0" && event["direction"] == "rx";
    let ids: Vec<_> = events.iter().filter(of_syn0).map(|event| event["breach_id"].as_str().unwrap()).collect();
    assert!(ids.len() > 1 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// Root made it, say, and the agent was then started by hand as another user.
#[test]
fn a_state_directory_of_another_user_is_named_with_its_owner() {
    let test = "agent_journal::a_state_directory_of_another_user_is_named_with_its_owner";
    let can = std::process::Command::new("setpriv").args(["--reuid=65534", "--clear-groups", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        skip(test, "needs setpriv, and to be root");
        return;
    }
    let mut agent = Agent::new(&busy_config("127.0.0.1:9", "nowhere"));
    agent.run(&["--for", "1ms"]);
    let state = agent.state_dir();
    for (mode, blamed) in [(0o700, state.clone()), (0o755, state.join("agent.lock"))] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(state.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        let command = under(&["setpriv", "--reuid=65534", "--clear-groups"], &agent::command());
        let running = agent.start_as(command, &[]);
        running.until("events are kept in memory");
        let said = format!(
            "cannot write {}: it belongs to root (uid 0), this agent runs as nobody (uid 65534); set state_dir, or chown it",
            blamed.display()
        );
        assert!(running.log().contains(&said), "{}", running.log());
        assert!(!running.log().contains("disk I/O error"), "{}", running.log());
    }
}

/// The default name is the host's, which may differ before DHCP has answered.
#[test]
fn another_name_leaves_no_breach_open_and_no_number_missing() {
    let test = "agent_journal::another_name_leaves_no_breach_open_and_no_number_missing";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("renamed", 1);
    let config = busy_config("127.0.0.1:9", &topic);
    let mut agent = Agent::new(&config.replace("'gw'", "'localhost'"));
    let running = agent.start(&[]);
    running.until("bandwidth exceeded on syn0 rx");
    running.kill();
    let (old_epoch, _) = agent.accepted();
    agent.configure(&busy_config(&kafka.address, &topic));
    let log = agent.run(&["--for", "1s"]);
    assert!(log.contains("the agent was renamed from localhost to gw: a new epoch begins"), "{log}");
    let (epoch, accepted) = agent.accepted();
    let events = kafka.events(&topic);
    let (old, new): (Vec<Value>, Vec<Value>) = events.into_iter().partition(|event| event["agent"] == "localhost");
    arrived_whole(&new, &epoch, accepted);
    arrived_whole(&old, &old_epoch, old.len() as u64);
    let of = |kind: &str| -> std::collections::BTreeSet<&str> {
        let of_kind = old.iter().filter(|event| event["kind"] == kind);
        of_kind.map(|event| event["breach_id"].as_str().unwrap()).collect()
    };
    assert!(!of("breach_raised").is_empty());
    assert_eq!(of("breach_raised"), of("breach_cleared"));
}

#[test]
fn an_agent_tells_how_many_events_were_lost() {
    let mut flood = busy_config("127.0.0.1:9", "nowhere") + "[journal]\nmax_size = '16MiB'\n";
    for number in 0..30 {
        flood += &format!(
            "[[limit]]\nname = 'flood-{number}'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n"
        );
    }
    let mut agent = Agent::new(&flood);
    let running = agent.start(&[]);
    let status = || {
        let output = agent::command().args(["status", "--format", "json", "-c"]).arg(agent.config()).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).ok()
    };
    until("more than a journal of 1 MiB holds", || (status()?["pending"].as_u64()? > 4_000).then_some(()));
    assert!(!running.log().contains("lost"), "{}", running.log());
    // A smaller bound takes effect at once.
    agent.configure(&flood.replace("16MiB", "1MiB"));
    running.signal("HUP");
    running.until("events lost, and declared: evicted, because the journal is full (journal.max_size)");
    let log = running.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("events lost")), "{log}");
    let report = until("losses in the status", || {
        let report = status()?;
        (report["lost"].as_u64()? > 200).then_some(report)
    });
    assert_eq!(report["lost"], report["lost_evicted"]);
    let lines = running.log().matches("events lost").count();
    assert_eq!(lines, 1, "one line for many: {}", running.log());
}
