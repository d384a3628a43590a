//! Processes end as by `kill -9`, at any moment.

use std::thread::sleep;
use std::time::Duration;

use crate::support::pipeline::Pipeline;
use crate::support::rounds::{Fault, rounds};
use crate::support::services::kafka_and_postgres;

#[test]
fn kill_agent() {
    let test = "faults::kills::kill_agent";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "kill-agent", short: 30, long: 1_000, fresh_every: 50 };
    let make = || {
        let mut pipeline = Pipeline::new(fault.name, &kafka, &postgres);
        let consuming = pipeline.start_consumer();
        (pipeline, consuming)
    };
    rounds(&fault, make, |(pipeline, _consuming), rng| {
        let running = pipeline.agent.start(&[]);
        // Some kills come while it starts, most while it samples and publishes.
        sleep(Duration::from_millis(rng.u64(0..700)));
        running.kill();
        pipeline.drain_agent();
        pipeline.wait_and_compare()
    });
}

#[test]
fn kill_consumer() {
    let test = "faults::kills::kill_consumer";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "kill-consumer", short: 30, long: 1_000, fresh_every: 50 };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let running = pipeline.start_consumer();
        pipeline.send_events(1, rng.u64(1..3_000));
        sleep(Duration::from_millis(rng.u64(0..600)));
        running.kill();
        let again = pipeline.start_consumer();
        let outcome = pipeline.wait_and_compare();
        again.kill();
        outcome
    });
}
