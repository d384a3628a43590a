//! Processes end as by `kill -9`, at any moment.

use std::thread::sleep;
use std::time::Duration;

use crate::support::rounds::{Fault, rounds};
use crate::support::services::kafka_and_postgres;
use crate::support::world::World;

#[test]
fn kill_agent() {
    let test = "faults::kills::kill_agent";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
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
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "kill-consumer", short: 30, long: 1_000, fresh_every: 50 };
    let make = || World::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |world, rng| {
        let running = world.start_consumer();
        world.feed(1, rng.u64(1..3_000));
        sleep(Duration::from_millis(rng.u64(0..600)));
        running.kill();
        let again = world.start_consumer();
        let outcome = world.settle();
        again.kill();
        outcome
    });
}
