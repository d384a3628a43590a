//! Topics with more than events: offsets without records, messages that are no events, recreated topics.

use std::thread::sleep;
use std::time::Duration;

use highwater::message::Event;
use highwater::wire;

use crate::support::agent::until;
use crate::support::events::{Transaction, produce_raw, updated};
use crate::support::rounds::{Fault, rounds};
use crate::support::services::{Kafka, kafka_and_postgres};
use crate::support::world::World;

/// Waits until all of the topic's offsets are read in the database, and none was taken for a loss.
fn is_read_to_its_end(kafka: &Kafka, world: &World) {
    let end = kafka.end(&world.topic);
    world.database.until("SELECT next_offset FROM kafka_offsets", &format!("({end})"));
    assert_eq!(world.database.ask("SELECT count(*) FROM kafka_gaps"), "(0)");
}

/// Each transaction ends in a marker, which has an offset; aborted ones leave records that readers may not see.
#[test]
fn transactions() {
    let test = "faults::topics::transactions";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "transactions", short: 1, long: 20, fresh_every: 10 };
    rounds(
        &fault,
        || World::new(fault.name, &kafka, &postgres).named(),
        |world, rng| {
            let mut running = world.start_consumer();
            for _ in 0..rng.u32(2..8) {
                let commits = rng.u8(..3) > 0;
                let events = if commits {
                    world.events(rng.u64(1..4), rng.u64(1..300))
                } else {
                    (1..rng.u64(2..300)).map(|seq| updated("aborted", seq)).collect()
                };
                let messages = events.iter().map(|event| (event.stamp.agent.to_string(), wire::to_json(event)));
                produce_raw(world.brokers(), &world.topic, messages, Some(Transaction { id: &world.topic, commits }));
                if rng.u8(..3) == 0 {
                    running.kill();
                    running = world.start_consumer();
                }
            }
            let outcome = world.settle();
            is_read_to_its_end(&kafka, world);
            drop(running);
            outcome.and(world.settle())
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
        let world = World::new(fault.name, &kafka, &postgres).named();
        kafka.compact(&world.topic);
        world
    };
    rounds(&fault, make, |world, rng| {
        let keyed = |events: &[Event]| -> Vec<(String, Vec<u8>)> {
            events.iter().map(|event| (format!("{} {}", event.stamp.agent, event.id), wire::to_json(event))).collect()
        };
        let before = world.events(2, rng.u64(1..300));
        produce_raw(world.brokers(), &world.topic, keyed(&before), None);
        let running = world.start_consumer();
        sleep(Duration::from_millis(rng.u64(0..1_500)));
        running.kill();
        let after = world.events(2, rng.u64(1..300));
        for events in [&after, &before, &after] {
            produce_raw(world.brokers(), &world.topic, keyed(events), None);
            sleep(Duration::from_millis(150)); // a segment is full of time
        }
        // The newest segment is never compacted.
        produce_raw(world.brokers(), &world.topic, keyed(&after[after.len() - 1..]), None);
        until("each event is there once, but for that one", || {
            (kafka.read(&world.topic, "%o\n").len() as u64 <= world.checker.accepted() + 1).then_some(())
        });
        let running = world.start_consumer();
        let outcome = world.settle();
        is_read_to_its_end(&kafka, world);
        drop(running);
        outcome
    });
}

/// The topic is deleted and made again under a consumer that runs, or while none does.
fn remade(test: &str, fault: &Fault, longer: bool) {
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    rounds(
        fault,
        || (World::new(fault.name, &kafka, &postgres).named(), 0),
        |(world, generation), rng| {
            let mut running = Some(world.start_consumer());
            let first = rng.u64(10..500);
            world.feed(1, first);
            let outcome = world.settle();
            if rng.bool() {
                running = None;
            }
            kafka.remake(&world.topic, 1);
            world.feed(1, if longer { first + rng.u64(1..500) } else { rng.u64(1..first) });
            let running = running.unwrap_or_else(|| world.start_consumer());
            let after = world.settle();
            running.until("was recreated");
            *generation += 1;
            assert_eq!(world.database.ask("SELECT topic_generation FROM kafka_offsets"), format!("({generation})"));
            is_read_to_its_end(&kafka, world);
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
