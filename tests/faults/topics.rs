//! Topics with more than events: offsets without records, messages that are no events, recreated topics.

use std::thread::sleep;
use std::time::Duration;

use highwater::message::Event;
use highwater::wire;

use crate::support::agent::until;
use crate::support::events::{Transaction, produce_raw, updated};
use crate::support::pipeline::Pipeline;
use crate::support::rounds::{Fault, rounds};
use crate::support::services::{Kafka, kafka_and_postgres};

/// Waits until all of the topic's offsets are read in the database, and none was taken for a loss.
fn is_read_to_its_end(kafka: &Kafka, pipeline: &Pipeline) {
    let end = kafka.end_offset(&pipeline.topic);
    pipeline.database.until("SELECT next_offset FROM kafka_offsets", &format!("({end})"));
    assert_eq!(pipeline.database.ask("SELECT count(*) FROM kafka_gaps"), "(0)");
}

/// Each transaction ends in a marker, which has an offset; aborted ones leave records that readers may not see.
#[test]
fn transactions() {
    let test = "faults::topics::transactions";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "transactions", short: 1, long: 20, fresh_every: 10 };
    rounds(
        &fault,
        || Pipeline::new(fault.name, &kafka, &postgres).named(),
        |pipeline, rng| {
            let mut running = pipeline.start_consumer();
            for _ in 0..rng.u32(2..8) {
                let commits = rng.u8(..3) > 0;
                let events = if commits {
                    pipeline.events(rng.u64(1..4), rng.u64(1..300))
                } else {
                    (1..rng.u64(2..300)).map(|seq| updated("aborted", seq)).collect()
                };
                let messages = events.iter().map(|event| (event.stamp.agent.to_string(), wire::to_json(event)));
                produce_raw(
                    pipeline.brokers(),
                    &pipeline.topic,
                    messages,
                    Some(Transaction { id: &pipeline.topic, commits }),
                );
                if rng.u8(..3) == 0 {
                    running.kill();
                    running = pipeline.start_consumer();
                }
            }
            let outcome = pipeline.wait_and_compare();
            is_read_to_its_end(&kafka, pipeline);
            drop(running);
            outcome.and(pipeline.wait_and_compare())
        },
    );
}

/// Each event is there twice under a key of its own; compaction drops the first, before the consumer has come to it or after.
#[test]
fn compaction() {
    let test = "faults::topics::compaction";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "compaction", short: 1, long: 20, fresh_every: 10 };
    let make = || {
        let pipeline = Pipeline::new(fault.name, &kafka, &postgres).named();
        kafka.compact(&pipeline.topic);
        pipeline
    };
    rounds(&fault, make, |pipeline, rng| {
        let keyed = |events: &[Event]| -> Vec<(String, Vec<u8>)> {
            events.iter().map(|event| (format!("{} {}", event.stamp.agent, event.id), wire::to_json(event))).collect()
        };
        let before = pipeline.events(2, rng.u64(1..300));
        produce_raw(pipeline.brokers(), &pipeline.topic, keyed(&before), None);
        let running = pipeline.start_consumer();
        sleep(Duration::from_millis(rng.u64(0..1_500)));
        running.kill();
        let after = pipeline.events(2, rng.u64(1..300));
        for events in [&after, &before, &after] {
            produce_raw(pipeline.brokers(), &pipeline.topic, keyed(events), None);
            sleep(Duration::from_millis(150)); // a segment is full of time
        }
        // The newest segment is never compacted.
        produce_raw(pipeline.brokers(), &pipeline.topic, keyed(&after[after.len() - 1..]), None);
        until("each event is there once, but for that one", || {
            (kafka.read(&pipeline.topic, "%o\n").len() as u64 <= pipeline.checker.accepted() + 1).then_some(())
        });
        let running = pipeline.start_consumer();
        let outcome = pipeline.wait_and_compare();
        is_read_to_its_end(&kafka, pipeline);
        drop(running);
        outcome
    });
}

/// The topic is deleted and made again under a consumer that runs, or while none does.
fn remade(test: &str, fault: &Fault, longer: bool) {
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    rounds(
        fault,
        || (Pipeline::new(fault.name, &kafka, &postgres).named(), 0),
        |(pipeline, generation), rng| {
            let mut running = Some(pipeline.start_consumer());
            let first = rng.u64(10..500);
            pipeline.send_events(1, first);
            let outcome = pipeline.wait_and_compare();
            if rng.bool() {
                running = None;
            }
            kafka.recreate(&pipeline.topic, 1);
            pipeline.send_events(1, if longer { first + rng.u64(1..500) } else { rng.u64(1..first) });
            let running = running.unwrap_or_else(|| pipeline.start_consumer());
            let after = pipeline.wait_and_compare();
            running.until("was recreated");
            *generation += 1;
            assert_eq!(pipeline.database.ask("SELECT topic_generation FROM kafka_offsets"), format!("({generation})"));
            is_read_to_its_end(&kafka, pipeline);
            outcome.and(after)
        },
    );
}

#[test]
fn topic_remade_shorter() {
    let fault = Fault { name: "topic-remade-shorter", short: 1, long: 20, fresh_every: 10 };
    remade("faults::topics::topic_remade_shorter", &fault, false);
}

#[test]
fn topic_remade_longer() {
    let fault = Fault { name: "topic-remade-longer", short: 1, long: 20, fresh_every: 10 };
    remade("faults::topics::topic_remade_longer", &fault, true);
}
