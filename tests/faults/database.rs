//! PostgreSQL crashes, is paused, cannot be reached, vanishes exactly at a COMMIT, has a table that another session locks, lets the
//! consumer's role in no more, or has no connection slot left. (`watchdogs.rs` has the connection that stays and never answers.)

use std::thread::sleep;
use std::time::{Duration, Instant};

use fastrand::Rng;
use postgres::{Client, NoTls};

use crate::support::consumer::Running;
use crate::support::pipeline::Pipeline;
use crate::support::postgres::Postgres;
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
    let pipeline = Pipeline::new(name, kafka, postgres);
    let url = pipeline.database.url.replace(&postgres.address(), &proxy.address());
    pipeline.stored_at(&url).named()
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

/// Locks as of an administrator's ALTER TABLE or VACUUM FULL. Some last longer than the consumer's `lock_timeout`, others do not.
#[test]
fn table_locked() {
    let Some((kafka, postgres)) = kafka_and_postgres("faults::database::table_locked") else { return };
    let fault = Fault { name: "table-locked", short: 2, long: 20, fresh_every: 10 };
    let make = || Pipeline::new(fault.name, &kafka, &postgres).named();
    rounds(&fault, make, |pipeline, rng| {
        let (mut holder, mut admin) = (pipeline.database.client(), pipeline.database.client());
        let fail = |rng: &mut Rng| {
            let (held, is_killed) = (Duration::from_millis(rng.u64(1_000..=20_000)), rng.bool());
            let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).expect("it answers").get(0);
            holder.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").expect("it gets the lock");
            let locked = Instant::now();
            let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                         WHERE application_name LIKE 'highwater-consumer/%' AND $1 = ANY (pg_blocking_pids(pid)))";
            crate::support::agent::until("the consumer waits for the lock", || {
                admin.query_one(waits, &[&pid]).expect("it answers").get::<_, bool>(0).then_some(())
            });
            sleep(held.saturating_sub(locked.elapsed()));
            if is_killed {
                let ended = admin.query_one("SELECT pg_terminate_backend($1)", &[&pid]).expect("it answers");
                assert!(ended.get::<_, bool>(0), "session {pid} held the lock to its end");
            } else {
                holder.batch_execute("ROLLBACK").expect("it is still there");
            }
        };
        let outcome = pipeline.run_through_fault(rng, fail, || ());
        // A dead letter would count as declared, not as lost.
        assert_eq!(outcome.declared, 0, "all events are rows");
        outcome
    });
}

/// Makes a pipeline whose consumer logs in as a role of its own, which is no superuser; returns the role too.
fn of_own_role(name: &str, kafka: &Kafka, postgres: &Postgres) -> (Pipeline, String) {
    let (pipeline, role) = (Pipeline::new(name, kafka, postgres), format!("own_{:08x}", fastrand::u32(..)));
    let sql = format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT ALL ON SCHEMA public TO {role}");
    pipeline.database.client().batch_execute(&sql).expect("a superuser may");
    let url = pipeline.database.url_of(&role);
    (pipeline.stored_at(&url).named(), role)
}

/// An administrator locks the role out: it may log in no more, and its sessions end. Other tests use the same server at the same
/// time, so the role is one of this pipeline.
#[test]
fn role_locked_out() {
    let Some((kafka, postgres)) = kafka_and_postgres("faults::database::role_locked_out") else { return };
    let fault = Fault { name: "role-locked-out", short: 2, long: 20, fresh_every: 10 };
    let make = || of_own_role(fault.name, &kafka, &postgres);
    rounds(&fault, make, |(pipeline, role), rng| {
        let role = role.as_str();
        let remedy = format!("as a superuser: ALTER ROLE \"{role}\" LOGIN;");
        let (mut admin, mut other, topic) =
            (pipeline.database.client(), pipeline.database.client(), pipeline.topic.clone());
        let fail = |rng: &mut Rng, consuming: &Running| {
            let held = Duration::from_millis(rng.u64(1_000..=20_000));
            admin.batch_execute(&format!("ALTER ROLE {role} NOLOGIN")).expect("a superuser may");
            let (locked, end) = (Instant::now(), kafka.end_offset(&topic));
            let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
            crate::support::agent::until("the consumer names the remedy", || {
                // A session that was just logging in is not there at first.
                admin.execute(sessions, &[&role]).expect("a superuser may");
                consuming.log().contains(&remedy).then_some(())
            });
            crate::support::agent::until("the agent goes on", || (kafka.end_offset(&topic) > end).then_some(()));
            sleep(held.saturating_sub(locked.elapsed()));
        };
        let mend = || other.batch_execute(&format!("ALTER ROLE {role} LOGIN")).expect("a superuser may");
        let (outcome, consuming) = pipeline.run_through_logged_fault(rng, fail, mend);
        consuming.until("the store is available again");
        let log = consuming.log();
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        // The store says so once, however often it tried, and perhaps retention, which begins after ten seconds.
        assert!(count(&remedy) <= 2 && count(" WARN ") + count(" ERROR ") <= 4, "{log}");
        assert_eq!(outcome.declared, 0, "all events are rows");
        outcome
    });
}

/// Slots of the server of [`slots_exhausted`], and how many of them only superusers get.
const SLOTS: usize = 20;
const RESERVED_SLOTS: usize = 3;

/// Other clients take all connection slots, with or without those that are reserved for superusers, and the consumer's session ends.
/// No other test could connect either, so the server is one of this test.
#[test]
fn slots_exhausted() {
    let Some((kafka, postgres)) = kafka_and_own_postgres("faults::database::slots_exhausted") else { return };
    let fault = Fault { name: "slots-exhausted", short: 2, long: 20, fresh_every: 10 };
    postgres.configure(&format!("max_connections = {SLOTS}\nsuperuser_reserved_connections = {RESERVED_SLOTS}"));
    let make = || of_own_role(fault.name, &kafka, &postgres);
    rounds(&fault, make, |(pipeline, role), rng| {
        let (mut admin, topic) = (pipeline.database.client(), pipeline.topic.clone());
        // A slot is left to the administrator.
        let of_superusers = (pipeline.database.url.clone(), SLOTS - 1);
        let of_others = (pipeline.database.url_of(role), SLOTS - 1 - RESERVED_SLOTS);
        let remedy = format!("max_connections of the server, or the CONNECTION LIMIT of role \"{role}\"");
        let fail = |rng: &mut Rng, consuming: &Running| {
            let held = Duration::from_millis(rng.u64(1_000..=15_000));
            let (url, free) = if rng.bool() { of_superusers } else { of_others };
            // Running, it could be back before the last slot is taken.
            consuming.signal("STOP");
            let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                            WHERE application_name LIKE 'highwater-consumer/%'";
            let mut takers = Vec::new();
            crate::support::agent::until("all slots are taken", || {
                admin.execute(sessions, &[]).expect("a superuser may");
                takers.extend(std::iter::from_fn(|| Client::connect(&url, NoTls).ok()));
                (takers.len() == free).then_some(())
            });
            consuming.signal("CONT");
            let (taken, end) = (Instant::now(), kafka.end_offset(&topic));
            consuming.until(&remedy);
            crate::support::agent::until("the agent goes on", || (kafka.end_offset(&topic) > end).then_some(()));
            sleep(held.saturating_sub(taken.elapsed()));
            drop(takers);
        };
        let (outcome, consuming) = pipeline.run_through_logged_fault(rng, fail, || ());
        consuming.until("the store is available again");
        let log = consuming.log();
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        // The store says so once, however often it tried, and perhaps retention, which begins after ten seconds.
        assert!(count("SQLSTATE 53300") <= 2 && count(" WARN ") + count(" ERROR ") <= 4, "{log}");
        assert_eq!(outcome.declared, 0, "all events are rows");
        outcome
    });
}
