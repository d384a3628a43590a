//! The tick waits for nothing: not for a broker that never answers, a name that does not resolve, or a tear-down.

use std::net::TcpListener;

use crate::support::agent::Agent;
use crate::support::services::Kafka;

/// Runs for 30 s with a flush each second; no tick may be skipped, or merged with another. What holds up ticks does so each time;
/// a machine that is busy for a second is tried again.
fn keeps_time(brokers: &str, topic: &str, linger: &str) -> String {
    let mut agent = Agent::new(&format!(
        "source = 'synthetic'\n[[limit]]\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '1s'\n\
         [flush]\ninterval = '1s'\nlinger = '{linger}'\n[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\n"
    ));
    let mut log = String::new();
    let is_in_time = (0..3).any(|_| {
        log = agent.run(&["--for", "30s"]);
        log.contains("stopped after 30 readings (0 skipped")
    });
    assert!(is_in_time, "{log}");
    log
}

#[test]
fn a_broker_that_swallows_everything_holds_up_no_tick() {
    // This socket accepts by its backlog and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = keeps_time(&listener.local_addr().unwrap().to_string(), "highwater.events", "5m");
    assert!(log.contains(" 0 events delivered"), "{log}");
}

#[test]
fn a_name_that_does_not_resolve_holds_up_no_tick() {
    keeps_time("no-such-broker.invalid:9092", "highwater.events", "5m");
}

#[test]
fn a_producers_tear_down_holds_up_no_tick() {
    let Some(kafka) = Kafka::or_skip("agent_ticks::a_producers_tear_down_holds_up_no_tick") else { return };
    let topic = kafka.topic("ticks", 1);
    let log = keeps_time(&kafka.address, &topic, "0s");
    let flushes = log.matches(" delivered to").count();
    assert!(flushes > 10, "a producer came and went {flushes} times:\n{log}");
    let producers = kafka.producers(&topic);
    assert!(producers > 10, "{producers} producers:\n{log}");
}
