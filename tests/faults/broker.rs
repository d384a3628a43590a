//! Kafka dies, is paused, or cannot be reached, while agent and consumer work.

use std::thread::sleep;
use std::time::Duration;

use crate::support::pipeline::Pipeline;
use crate::support::postgres::Postgres;
use crate::support::proxy::{Mode, Proxy};
use crate::support::rounds::{Fault, rounds};
use crate::support::services::{Cluster, Kafka};

#[test]
fn broker_killed() {
    let test = "faults::broker::broker_killed";
    let (Some((kafka, _directory)), Some(postgres)) = (Kafka::start_own(test), Postgres::or_skip(test)) else { return };
    let fault = Fault { name: "broker-killed", short: 2, long: 50, fresh_every: 10 };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let away = Duration::from_millis(rng.u64(0..2_000));
        let fail = |_: &mut _| {
            kafka.kill();
            sleep(away);
        };
        pipeline.run_through_fault(rng, fail, || drop(kafka.start()))
    });
}

/// Acknowledged messages are on two others' disks, of which one takes over.
#[test]
fn three_brokers_leader_killed() {
    let test = "faults::broker::three_brokers_leader_killed";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let Some(cluster) = Cluster::of_three(test) else { return };
    let fault = Fault { name: "three-brokers-leader-killed", short: 1, long: 20, fresh_every: 10 };
    let make = || Pipeline::new(fault.name, &cluster.kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let leader = cluster.leader(&pipeline.topic);
        let away = Duration::from_millis(rng.u64(0..8_000));
        let fail = |_: &mut _| {
            leader.kill();
            sleep(away);
        };
        pipeline.run_through_fault(rng, fail, || drop(leader.start()))
    });
}

#[test]
fn broker_stopped() {
    let test = "faults::broker::broker_stopped";
    let (Some((kafka, _directory)), Some(postgres)) = (Kafka::start_own(test), Postgres::or_skip(test)) else { return };
    let fault = Fault { name: "broker-stopped", short: 1, long: 20, fresh_every: 10 };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let fail = |rng: &mut fastrand::Rng| {
            kafka.signal("STOP");
            sleep(Duration::from_millis(rng.u64(1_000..12_000)));
        };
        pipeline.run_through_fault(rng, fail, || kafka.signal("CONT"))
    });
}

/// Runs rounds in which the network between programs and broker fails in this way, for up to `longest_s` seconds.
fn network(test: &str, fault: &Fault, mode: Mode, longest_s: u64) {
    let proxy = Proxy::new("");
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let Some((kafka, _directory)) = Kafka::start_behind(test, &proxy) else { return };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).behind(&proxy.address()).named();
    rounds(fault, make, |pipeline, rng| {
        let fail = |rng: &mut fastrand::Rng| {
            proxy.set(mode);
            sleep(Duration::from_millis(rng.u64(500..longest_s * 1_000)));
        };
        pipeline.run_through_fault(rng, fail, || proxy.set(Mode::Pass))
    });
}

#[test]
fn broker_unreachable() {
    let fault = Fault { name: "broker-unreachable", short: 1, long: 20, fresh_every: 10 };
    network("faults::broker::broker_unreachable", &fault, Mode::Refuse, 10);
}

#[test]
fn broker_swallows() {
    let fault = Fault { name: "broker-swallows", short: 1, long: 20, fresh_every: 10 };
    network("faults::broker::broker_swallows", &fault, Mode::Swallow, 10);
}

#[test]
fn broker_half_open() {
    let fault = Fault { name: "broker-half-open", short: 1, long: 20, fresh_every: 10 };
    network("faults::broker::broker_half_open", &fault, Mode::HalfOpen, 10);
}

#[test]
fn broker_slow() {
    let fault = Fault { name: "broker-slow", short: 1, long: 20, fresh_every: 10 };
    network("faults::broker::broker_slow", &fault, Mode::Slow, 10);
}

/// Longer than librdkafka's default of five minutes, after which it would give messages up.
#[test]
fn outage_over_5_min() {
    let fault = Fault { name: "outage-over-5-min", short: 0, long: 3, fresh_every: 1 };
    if !fault.is_due() {
        return;
    }
    let proxy = Proxy::new("");
    let test = "faults::broker::outage_over_5_min";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let Some((kafka, _directory)) = Kafka::start_behind(test, &proxy) else { return };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).behind(&proxy.address()).named();
    rounds(&fault, make, |pipeline, rng| {
        let fail = |rng: &mut fastrand::Rng| {
            proxy.set(Mode::Refuse);
            sleep(Duration::from_secs(rng.u64(310..340)));
        };
        pipeline.run_through_fault(rng, fail, || proxy.set(Mode::Pass))
    });
}
