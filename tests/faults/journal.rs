//! The journal overflows, or its file is damaged.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::support::pipeline::{Pipeline, busy_config};
use crate::support::rounds::{Fault, recovered, rounds};
use crate::support::services::kafka_and_postgres;

/// More events than a small journal holds for long: some 1,000 a second.
fn flood(brokers: &str, topic: &str) -> String {
    let mut config = busy_config(brokers, topic) + "[journal]\nmax_size = '1MiB'\n";
    for number in 0..12 {
        let severity = if number % 2 == 0 { "warning" } else { "critical" };
        let _ = write!(
            config,
            "[[limit]]\nname = 'flood-{number}'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n\
             severity = '{severity}'\n"
        );
    }
    config
}

/// The broker is unavailable for longer than the journal has room.
#[test]
fn journal_full() {
    let test = "faults::journal::journal_full";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "journal-full", short: 1, long: 20, fresh_every: 10 };
    let make = || {
        let mut pipeline = Pipeline::new(fault.name, &kafka, &postgres);
        let consuming = pipeline.start_consumer();
        (pipeline, consuming)
    };
    rounds(&fault, make, |(pipeline, _consuming), rng| {
        let (brokers, topic) = (pipeline.brokers().to_owned(), pipeline.topic.clone());
        pipeline.agent.configure(&flood("127.0.0.1:9", &topic));
        let running = pipeline.start_agent();
        let journal = pipeline.agent.state_dir().join("journal.db");
        // The log may take 256 KiB of 1 MiB: a file that is larger than the rest had to evict.
        recovered("the journal is full", || journal.metadata().is_ok_and(|file| file.len() > 768 << 10));
        sleep(Duration::from_millis(rng.u64(2_000..6_000)));
        if rng.bool() {
            // The broker is back while the journal is full, and goes on filling.
            pipeline.agent.configure(&flood(&brokers, &topic));
            running.signal("HUP");
            sleep(Duration::from_millis(rng.u64(0..2_000)));
        }
        pipeline.end_agent(running);
        pipeline.agent.configure(&flood(&brokers, &topic));
        pipeline.drain_agent();
        let outcome = pipeline.wait_and_compare();
        assert!(outcome.declared > 0, "it was never full");
        outcome
    });
}

const PAGE: usize = 4_096;

/// Damages one of the agent's files: flips a page or a byte, or cuts off the end.
fn damage(state: &Path, rng: &mut Rng) {
    let mut files: Vec<_> =
        ["journal.db", "journal.db-wal", "journal.db.mark"].iter().map(|name| state.join(name)).collect();
    files.retain(|file| file.metadata().is_ok_and(|file| file.len() > 0));
    let file = rng.choice(files).expect("an agent leaves a journal");
    let mut bytes = fs::read(&file).expect("it can be read");
    let at = rng.usize(..bytes.len());
    match rng.u8(..10) {
        0..5 => bytes.iter_mut().skip(at / PAGE * PAGE).take(PAGE).for_each(|byte| *byte = !*byte),
        5..7 => bytes[at] ^= rng.u8(1..),
        7..9 => bytes.truncate(at),
        _ => bytes.clear(),
    }
    eprintln!("{} is damaged at {at}", file.display());
    fs::write(&file, bytes).expect("it can be written");
}

/// Returns by how many transactions the mark is behind the journal.
fn behind(state: &Path) -> u64 {
    let mark = fs::read_to_string(state.join("journal.db.mark")).expect("there is a mark");
    let (_, json) = mark.split_once(' ').expect("its checksum comes first");
    let mark: serde_json::Value = serde_json::from_str(json).expect("then JSON");
    let journal = rusqlite::Connection::open(state.join("journal.db")).expect("there is a journal");
    let commits: i64 = journal.query_row("SELECT commits FROM meta", [], |row| row.get(0)).expect("it counts");
    commits.cast_unsigned() - mark["commits"].as_u64().expect("a number")
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("there is a directory").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied");
        }
    }
}

/// While the agent does not run, or was killed. Kafka has some of its events, the others are pending.
#[test]
fn journal_damaged() {
    let test = "faults::journal::journal_damaged";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "journal-damaged", short: 20, long: 500, fresh_every: 25 };
    let make = || {
        let mut pipeline = Pipeline::new(fault.name, &kafka, &postgres);
        let consuming = pipeline.start_consumer();
        (pipeline, consuming)
    };
    rounds(&fault, make, |(pipeline, _consuming), rng| {
        let (brokers, topic) = (pipeline.brokers().to_owned(), pipeline.topic.clone());
        if rng.u8(..4) > 0 {
            pipeline.agent.configure(&busy_config("127.0.0.1:9", &topic));
        }
        let is_killed = rng.u8(..8) > 0; // without a broker, an orderly end takes its 10 s
        loop {
            let running = pipeline.start_agent();
            sleep(Duration::from_millis(rng.u64(200..1_200)));
            if !is_killed {
                pipeline.end_agent(running);
                break;
            }
            drop(running); // by SIGKILL
            // Opening the journal repairs it: the files are put back.
            let left = tempfile::tempdir().expect("a temporary directory");
            copy(&pipeline.agent.state_dir(), left.path());
            pipeline.checker.accept_journal(&pipeline.agent);
            let behind = behind(&pipeline.agent.state_dir());
            copy(left.path(), &pipeline.agent.state_dir());
            // Else it was killed before a transaction had returned: the event is in the journal, but was not reported.
            if behind == 0 {
                break;
            }
            assert_eq!(behind, 1, "the mark follows each transaction");
        }
        damage(&pipeline.agent.state_dir(), rng);
        pipeline.agent.configure(&busy_config(&brokers, &topic));
        pipeline.drain_agent();
        pipeline.wait_and_compare()
    });
}
