//! Members of the consumers' group come, go, die, are paused and woken, or have the same name; the group's offsets and the producer
//! are wrong.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::support::consumer::{Consumer, Running};
use crate::support::events::produce;
use crate::support::pipeline::Pipeline;
use crate::support::process::until;
use crate::support::rounds::{Fault, rounds};
use crate::support::services::kafka_and_postgres;

fn start_member(pipeline: &Pipeline) -> (Consumer, Running) {
    let mut consumer = Consumer::new(pipeline.brokers(), &pipeline.topic, &pipeline.database.url);
    let running = consumer.start(&[]);
    (consumer, running)
}

/// With more members than partitions some have none; they rejoin with the others all the same.
#[test]
fn a_member_without_partitions_holds_up_nobody() {
    let test = "faults::groups::a_member_without_partitions_holds_up_nobody";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let mut pipeline = Pipeline::new("idle-member", &kafka, &postgres);
    let mut members = Vec::new();
    for _ in 0..4 {
        let (consumer, running) = start_member(&pipeline);
        running.until("partition"); // those that are its own, or none; each join is a rebalance of all
        members.push((consumer, running));
    }
    pipeline.send_events(8, 100);
    for (_consumer, mut running) in members.drain(1..) {
        running.signal("TERM");
        assert!(running.wait().success(), "{}", running.log());
        pipeline.send_events(8, 100);
        let all = pipeline.checker.accepted();
        pipeline.database.until("SELECT count(*) FROM events", &format!("({all})"));
    }
    assert!(pipeline.wait_and_compare().is_clean());
}

/// A member that is woken after another has taken its partition over: its batch is not stored again.
#[test]
fn consumer_stopped() {
    let test = "faults::groups::consumer_stopped";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "consumer-stopped", short: 1, long: 20, fresh_every: 5 };
    rounds(
        &fault,
        || Pipeline::new(fault.name, &kafka, &postgres),
        |pipeline, rng| {
            let (_one, first) = start_member(pipeline);
            first.until("partitions assigned: [0]");
            pipeline.send_events(rng.u64(1..6), rng.u64(100..3_000));
            sleep(Duration::from_millis(rng.u64(0..400)));
            first.signal("STOP");
            let (_two, second) = start_member(pipeline);
            // Its session ends, and all is stored without it.
            second.until("partitions assigned: [0]");
            let outcome = pipeline.wait_and_compare();
            pipeline.send_events(rng.u64(1..6), rng.u64(1..500));
            first.signal("CONT");
            sleep(Duration::from_millis(rng.u64(0..500)));
            pipeline.send_events(rng.u64(1..6), rng.u64(1..500));
            let after = pipeline.wait_and_compare();
            for mut running in [first, second] {
                running.signal("TERM");
                assert!(running.wait().success(), "{}", running.log());
            }
            outcome.and(after)
        },
    );
}

#[test]
fn rebalances() {
    let test = "faults::groups::rebalances";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "rebalances", short: 5, long: 200, fresh_every: 20 };
    let make = || {
        let topic = kafka.topic(fault.name, 4);
        let pipeline = Pipeline::with_topic(topic, fault.name, &kafka, &postgres);
        let members: Vec<_> = (0..2).map(|_| start_member(&pipeline)).collect();
        (pipeline, members)
    };
    rounds(&fault, make, |(pipeline, members), rng| {
        for _ in 0..rng.u32(1..4) {
            pipeline.send_events(8, rng.u64(1..400));
            sleep(Duration::from_millis(rng.u64(0..700)));
            if members.len() == 4 || members.len() > 2 && rng.bool() {
                end_member(members.swap_remove(rng.usize(..members.len())), rng);
            } else {
                members.push(start_member(pipeline));
            }
        }
        // Another member leaves with a batch in hand.
        pipeline.send_events(8, rng.u64(1..400));
        end_member(members.swap_remove(rng.usize(..members.len())), rng);
        members.push(start_member(pipeline));
        pipeline.wait_and_compare()
    });
}

fn end_member((_consumer, mut running): (Consumer, Running), rng: &mut Rng) {
    if rng.bool() {
        return running.kill();
    }
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
}

/// A second consumer runs with a copy of the configuration, its `group.instance.id` too, until it is killed. Kafka gives the place to
/// the one that joined last, and fences the other, which says so, joins again, and so takes the place back: each in turn.
#[test]
fn instance_twice() {
    let Some((kafka, postgres)) = kafka_and_postgres("faults::groups::instance_twice") else { return };
    let fault = Fault { name: "instance-twice", short: 1, long: 20, fresh_every: 10 };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let config = fs::read_to_string(pipeline.consumer.config()).expect("there is a configuration");
        let mut copy = Consumer::with(&config);
        let (brokers, topic) = (pipeline.brokers().to_owned(), pipeline.topic.clone());
        // The agent's events are few: with these, one is fenced with a batch in hand.
        let bursts: Vec<_> = (0..rng.u32(1..=4)).map(|_| pipeline.events(rng.u64(1..6), rng.u64(100..3_000))).collect();
        let fail = |rng: &mut Rng, first: &Running| {
            // At any moment between two heartbeats.
            sleep(Duration::from_millis(rng.u64(0..2_000)));
            let second = copy.start(&[]);
            for (turn, burst) in bursts.iter().enumerate() {
                produce(&brokers, &topic, burst);
                until_fenced([first, &second][turn % 2], turn / 2 + 1);
            }
            sleep(Duration::from_millis(rng.u64(0..3_000)));
            second.kill();
        };
        let (outcome, mut first) = pipeline.run_through_logged_fault(rng, fail, || ());
        // A dead letter would count as declared, not as lost.
        assert_eq!(outcome.declared, 0, "all events are rows");
        first.signal("TERM");
        let (success, log) = (first.wait().success(), first.log());
        assert!(success, "it went on by itself to its orderly end: {log}");
        let lines = log.lines().filter(|line| line.contains(" ERROR ")).all(|line| line.ends_with("; reconnecting"));
        assert!(lines, "a line a fencing: {log}");
        outcome
    });
}

/// Waits until this consumer has logged so many times that it was fenced, and goes on by itself.
fn until_fenced(running: &Running, times: usize) {
    const LINE: &str = " fenced by other consumer with same group.instance.id; give each consumer an `instance` of its own; reconnecting";
    until(&format!("the consumer was fenced {times} times"), || {
        (running.log().matches(LINE).count() >= times).then_some(())
    });
}

/// The group's offsets in Kafka are deleted, or set beyond what is stored: only the database counts.
#[test]
fn group_offsets_wrong() {
    let test = "faults::groups::group_offsets_wrong";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "group-offsets-wrong", short: 1, long: 20, fresh_every: 10 };
    rounds(
        &fault,
        || Pipeline::new(fault.name, &kafka, &postgres),
        |pipeline, rng| {
            pipeline.send_events(rng.u64(1..6), rng.u64(1..500));
            pipeline.consumer.run_until_end();
            pipeline.send_events(rng.u64(1..6), rng.u64(1..500));
            let wrong: &[&str] = match rng.u8(..3) {
                0 => &["--delete-offsets"],
                1 => &["--reset-offsets", "--to-latest", "--execute"],
                _ => &["--reset-offsets", "--to-earliest", "--execute"],
            };
            kafka.change_group(&pipeline.topic, &pipeline.topic, wrong);
            let (_consumer, running) = start_member(pipeline);
            let outcome = pipeline.wait_and_compare();
            drop(running);
            outcome
        },
    );
}

/// Each event is twice in Kafka, near its copy or far from it, while the consumer is killed now and then.
#[test]
fn sent_twice() {
    let test = "faults::groups::sent_twice";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "sent-twice", short: 1, long: 20, fresh_every: 10 };
    rounds(
        &fault,
        || Pipeline::new(fault.name, &kafka, &postgres).named(),
        |pipeline, rng| {
            let running = pipeline.start_consumer();
            let events = pipeline.events(rng.u64(1..6), rng.u64(2..1_000));
            let mut from = 0;
            while from < events.len() {
                let to = rng.usize(from + 1..=events.len());
                let copies = events[from..to].iter().chain(&events[from..to]);
                produce(pipeline.brokers(), &pipeline.topic, copies);
                from = to;
            }
            sleep(Duration::from_millis(rng.u64(0..600)));
            running.kill();
            let again = pipeline.start_consumer();
            // Everything once more, after a restart.
            produce(pipeline.brokers(), &pipeline.topic, &events);
            let outcome = pipeline.wait_and_compare();
            // The copies are read to their end too.
            let high = kafka.end_offset(&pipeline.topic);
            pipeline.database.until("SELECT next_offset FROM kafka_offsets", &format!("({high})"));
            again.kill();
            outcome.and(pipeline.wait_and_compare())
        },
    );
}
