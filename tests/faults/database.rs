//! PostgreSQL crashes, is paused, cannot be reached, or vanishes exactly at a COMMIT. (`watchdogs.rs` has the connection that stays
//! and never answers.)

use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::support::consumer::Postgres;
use crate::support::pipeline::Pipeline;
use crate::support::proxy::{Cut, Mode, Proxy};
use crate::support::rounds::{Fault, rounds};
use crate::support::services::{Kafka, kafka_and_own_postgres, kafka_and_postgres};

#[test]
fn database_restarted() {
    let Some((kafka, postgres)) = kafka_and_own_postgres("faults::database::database_restarted") else { return };
    let fault = Fault { name: "database-restarted", short: 3, long: 150, fresh_every: 25 };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let fail = |rng: &mut Rng| {
            postgres.kill();
            sleep(Duration::from_millis(rng.u64(0..1_500)));
        };
        pipeline.run_through_fault(rng, fail, || drop(postgres.start()))
    });
}

#[test]
fn database_stopped() {
    let Some((kafka, postgres)) = kafka_and_own_postgres("faults::database::database_stopped") else { return };
    let fault = Fault { name: "database-stopped", short: 1, long: 20, fresh_every: 10 };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let fail = |rng: &mut Rng| {
            postgres.signal("STOP");
            sleep(Duration::from_millis(rng.u64(500..15_000)));
        };
        pipeline.run_through_fault(rng, fail, || postgres.signal("CONT"))
    });
}

fn behind(proxy: &Proxy, name: &str, kafka: &Kafka, postgres: &Postgres) -> Pipeline {
    proxy.set_upstream(&postgres.address());
    let through = |url: &str| url.replace(&postgres.address(), &proxy.address());
    Pipeline::behind(name, kafka, &kafka.address, postgres, through).named()
}

#[test]
fn database_unreachable() {
    let test = "faults::database::database_unreachable";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "database-unreachable", short: 1, long: 20, fresh_every: 10 };
    let proxy = Proxy::new("");
    let make = || behind(&proxy, fault.name, &kafka, &postgres);
    rounds(&fault, make, |pipeline, rng| {
        let fail = |rng: &mut Rng| {
            proxy.set(Mode::Refuse);
            sleep(Duration::from_millis(rng.u64(500..10_000)));
        };
        pipeline.run_through_fault(rng, fail, || proxy.set(Mode::Pass))
    });
}

/// The connection ends when a COMMIT is on its way: either the server never gets it, or its answer is lost.
#[test]
fn backend_lost_at_commit() {
    let test = "faults::database::backend_lost_at_commit";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "backend-lost-at-commit", short: 2, long: 50, fresh_every: 25 };
    let proxy = Proxy::new("");
    let make = || behind(&proxy, fault.name, &kafka, &postgres);
    rounds(&fault, make, |pipeline, rng| {
        let cuts = proxy.cuts();
        let fail = |rng: &mut Rng| {
            proxy.cut_at(b"COMMIT\0", if rng.bool() { Cut::Before } else { Cut::After });
            crate::support::agent::until("a COMMIT was cut", || (proxy.cuts() > cuts).then_some(()));
        };
        pipeline.run_through_fault(rng, fail, || ())
    });
}
