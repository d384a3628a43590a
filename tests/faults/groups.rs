//! Members of the consumers' group come, go, die, are paused and woken; the group's offsets and the producer are wrong.

use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::support::consumer::{Consumer, Running};
use crate::support::events::produce;
use crate::support::rounds::{Fault, rounds};
use crate::support::services::kafka_and_postgres;
use crate::support::world::World;

fn start_member(world: &World) -> (Consumer, Running) {
    let mut consumer = Consumer::new(world.brokers(), &world.topic, &world.database.url);
    let running = consumer.start(&[]);
    (consumer, running)
}

/// With more members than partitions some have none; they rejoin with the others all the same.
#[test]
fn a_member_without_partitions_holds_up_nobody() {
    let test = "faults::groups::a_member_without_partitions_holds_up_nobody";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let mut world = World::new("idle-member", &kafka, &postgres);
    let mut members = Vec::new();
    for _ in 0..4 {
        let (consumer, running) = start_member(&world);
        running.until("partition"); // those that are its own, or none; each join is a rebalance of all
        members.push((consumer, running));
    }
    world.feed(8, 100);
    for (_consumer, mut running) in members.drain(1..) {
        running.signal("TERM");
        assert!(running.wait().success(), "{}", running.log());
        world.feed(8, 100);
        let all = world.checker.accepted();
        world.database.until("SELECT count(*) FROM events", &format!("({all})"));
    }
    assert!(world.settle().is_clean());
}

/// A member that is woken after another has taken its partition over: its batch is not stored again.
#[test]
fn consumer_stopped() {
    let test = "faults::groups::consumer_stopped";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "consumer-stopped", short: 1, long: 20, fresh_every: 5 };
    rounds(
        &fault,
        || World::new(fault.name, &kafka, &postgres),
        |world, rng| {
            let (_one, first) = start_member(world);
            first.until("partitions [0]");
            world.feed(rng.u64(1..6), rng.u64(100..3_000));
            sleep(Duration::from_millis(rng.u64(0..400)));
            first.signal("STOP");
            let (_two, second) = start_member(world);
            // Its session ends, and all is stored without it.
            second.until("partitions [0]");
            let outcome = world.settle();
            world.feed(rng.u64(1..6), rng.u64(1..500));
            first.signal("CONT");
            sleep(Duration::from_millis(rng.u64(0..500)));
            world.feed(rng.u64(1..6), rng.u64(1..500));
            let after = world.settle();
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
        let world = World::over(topic, fault.name, &kafka, &kafka.address, &postgres, str::to_owned);
        let members: Vec<_> = (0..2).map(|_| start_member(&world)).collect();
        (world, members)
    };
    rounds(&fault, make, |(world, members), rng| {
        for _ in 0..rng.u32(1..4) {
            world.feed(8, rng.u64(1..400));
            sleep(Duration::from_millis(rng.u64(0..700)));
            if members.len() == 4 || members.len() > 2 && rng.bool() {
                end_member(members.swap_remove(rng.usize(..members.len())), rng);
            } else {
                members.push(start_member(world));
            }
        }
        // One more that leaves with a batch in hand.
        world.feed(8, rng.u64(1..400));
        end_member(members.swap_remove(rng.usize(..members.len())), rng);
        members.push(start_member(world));
        world.settle()
    });
}

fn end_member((_consumer, mut running): (Consumer, Running), rng: &mut Rng) {
    if rng.bool() {
        return running.kill();
    }
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
}

/// The group's offsets in Kafka are deleted, or set beyond what is stored: only the database counts.
#[test]
fn group_offsets_wrong() {
    let test = "faults::groups::group_offsets_wrong";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "group-offsets-wrong", short: 1, long: 20, fresh_every: 10 };
    rounds(
        &fault,
        || World::new(fault.name, &kafka, &postgres),
        |world, rng| {
            world.feed(rng.u64(1..6), rng.u64(1..500));
            world.consumer.until_end();
            world.feed(rng.u64(1..6), rng.u64(1..500));
            let wrong: &[&str] = match rng.u8(..3) {
                0 => &["--delete-offsets"],
                1 => &["--reset-offsets", "--to-latest", "--execute"],
                _ => &["--reset-offsets", "--to-earliest", "--execute"],
            };
            kafka.change_group(&world.topic, &world.topic, wrong);
            let (_consumer, running) = start_member(world);
            let outcome = world.settle();
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
        || World::new(fault.name, &kafka, &postgres).named(),
        |world, rng| {
            let running = world.start_consumer();
            let events = world.events(rng.u64(1..6), rng.u64(2..1_000));
            let mut from = 0;
            while from < events.len() {
                let to = rng.usize(from + 1..=events.len());
                let copies = events[from..to].iter().chain(&events[from..to]);
                produce(world.brokers(), &world.topic, copies);
                from = to;
            }
            sleep(Duration::from_millis(rng.u64(0..600)));
            running.kill();
            let again = world.start_consumer();
            // All of it once more, after a restart.
            produce(world.brokers(), &world.topic, &events);
            let outcome = world.settle();
            // The copies are read to their end too.
            let high = kafka.end(&world.topic);
            world.database.until("SELECT next_offset FROM kafka_offsets", &format!("({high})"));
            again.kill();
            outcome.and(world.settle())
        },
    );
}
