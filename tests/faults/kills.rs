//! Processes end as by `kill -9`, at any moment.

use std::thread::sleep;
use std::time::Duration;

use highwater::event::Event;

use crate::support::consumer::Postgres;
use crate::support::events::{produce, updated};
use crate::support::rounds::{Fault, rounds};
use crate::support::services::Kafka;
use crate::support::world::World;

#[test]
fn kill_agent() {
    let test = "faults::kills::kill_agent";
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip(test), Postgres::or_skip(test)) else { return };
    let fault = Fault { name: "kill-agent", short: 30, long: 1_000, fresh_every: 50 };
    let make = || {
        let mut world = World::new(fault.name, &kafka, &postgres);
        let consuming = world.start_consumer();
        (world, consuming)
    };
    rounds(&fault, make, |(world, _consuming), rng| {
        let running = world.agent.start(&[]);
        // Some kills come while it starts, most while it samples and publishes.
        sleep(Duration::from_millis(rng.u64(0..700)));
        running.kill();
        world.drain_agent();
        world.settle()
    });
}

#[test]
fn kill_consumer() {
    let test = "faults::kills::kill_consumer";
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip(test), Postgres::or_skip(test)) else { return };
    let fault = Fault { name: "kill-consumer", short: 30, long: 1_000, fresh_every: 50 };
    let make = || (World::new(fault.name, &kafka, &postgres).named(), 0);
    rounds(&fault, make, |(world, sent), rng| {
        let running = world.start_consumer();
        let count = rng.u64(1..3_000);
        let events: Vec<Event> = (*sent + 1..=*sent + count).map(|seq| updated("gw", seq)).collect();
        *sent += count;
        produce(world.brokers(), &world.topic, &events);
        world.checker.accept_events(&events);
        sleep(Duration::from_millis(rng.u64(0..600)));
        running.kill();
        let again = world.start_consumer();
        let outcome = world.settle();
        again.kill();
        outcome
    });
}
