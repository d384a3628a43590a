//! `check` finds what `run` would find, and warns of what would come later.

use std::io::{BufRead as _, BufReader};

use chrono::Utc;
use highwater::consumer::batch::{Batch, Record};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{PartitionWidth, StoreOptions, StoreUrl};
use highwater::wire;

use super::stage_topic;
use crate::support::consumer::{Consumer, command};
use crate::support::events::{event, produce, started, updates};
use crate::support::process::{Spawned, output_of};
use crate::support::services::kafka_and_own_postgres;
use crate::support::skips::skip;
use crate::support::stores::{insert_checkpoint, store_options};

#[test]
fn without_a_file_check_and_run_agree() {
    if std::path::Path::new("/etc/highwater/consumer.toml").exists() {
        return skip(
            "consumer_commands::check::without_a_file_check_and_run_agree",
            "needs no /etc/highwater/consumer.toml",
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let without_file = |verb: &str| {
        let mut command = command();
        command.arg(verb).current_dir(directory.path()).env("HIGHWATER_KAFKA__BROKERS", "127.0.0.1:9");
        command
    };
    let (code, out, err) = output_of(without_file("check").arg("--offline"));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("there is no /etc/highwater/consumer.toml") && out.contains("sqlite:highwater.db"),
        "{out}{err}"
    );
    let mut run = Spawned::start(without_file("run").stderr(std::process::Stdio::piped()));
    let first = BufReader::new(run.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(first.contains("there is no /etc/highwater/consumer.toml: storing in sqlite:highwater.db"), "{first}");
}

/// A lock table of the least size that a server starts with, and a partition for each of many days.
#[test]
fn check_warns_of_more_partitions_than_the_lock_table_has_room_for() {
    let test = "consumer_commands::check::check_warns_of_more_partitions_than_the_lock_table_has_room_for";
    let Some((kafka, postgres)) = kafka_and_own_postgres(test) else { return };
    let database = postgres.database("locks");
    let mut client = database.client();
    client.batch_execute("ALTER SYSTEM SET max_locks_per_transaction = 10").unwrap();
    client.batch_execute("ALTER SYSTEM SET max_connections = 20").unwrap();
    postgres.kill();
    postgres.start();
    let mut store = StoreUrl::parse(&database.url, None, None)
        .unwrap()
        .open(&StoreOptions { partition: PartitionWidth::Day, ..store_options("fixture") });
    insert_checkpoint(&mut *store, &stage_topic(), 0, &Checkpoint::default(), None).unwrap();
    let check = || output_of(command().arg("check").env("HIGHWATER_STORE__URL", &database.url));
    let (code, out, err) = check();
    assert!(
        code == 1 && out.contains("ok       locks: a query over all 2 partitions of events takes 6 of the 200 locks"),
        "Kafka alone is missing: {out}{err}"
    );
    assert!(!out.contains("warning") && err.contains("1 check failed"), "{out}{err}");
    for day in 0..18 {
        let mut event = event("gw", day + 1, started());
        event.stamp.observed_at = Utc::now() - chrono::TimeDelta::days(day as i64);
        let mut batch = Batch::new(&stage_topic());
        let record = Record::new(day as i64, Some(7), None, Some(&wire::to_json(&event)));
        batch.push(0, record, || (0, day as i64));
        store.apply(&batch, Utc::now()).unwrap();
    }
    let (code, out, err) = check();
    let warning = "warning  locks: a query over all 20 partitions of events takes 60 of the 200 locks";
    assert!(code == 1 && out.contains(warning) && out.contains("raise max_locks_per_transaction"), "{out}{err}");
    // `run` finds it too.
    let topic = kafka.topic("locks", 1);
    produce(&kafka.address, &topic, &updates(1..=1));
    let (_, log) = Consumer::new(&kafka.address, &topic, &database.url).run_until_end();
    let warning = "WARN  PostgreSQL: a query over all 20 partitions of events takes 60 of the 200 locks";
    assert!(log.contains(warning) && log.contains("raise max_locks_per_transaction"), "{log}");
}
