//! Processes end, or are paused, at the points where the order of two steps matters; the suite shows at each of them what a guard
//! is for (`tests/run --mutants`).

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use fastrand::Rng;
use highwater::consumer::batch;
use highwater::message::{Direction, Event};

use crate::support::consumer::Consumer;
use crate::support::events::{link_rates, produce, produce_raw, rates_since, updated};
use crate::support::failpoints::{self, until_stopped};
use crate::support::pipeline::Pipeline;
use crate::support::postgres::Postgres;
use crate::support::process::until;
use crate::support::rounds::{Fault, Outcome, recovered, rounds};
use crate::support::services::{Kafka, kafka_and_postgres};

/// Makes a fault and a test for each point of a program, and the list of them.
macro_rules! kill_at {
    ($kill:ident at $points:ident: $($test:ident $point:literal),* $(,)?) => {
        const $points: &[&str] = &[$($point),*];
        $(#[test] fn $test() {
            let test = concat!("faults::points::", stringify!($test));
            $kill(test, Fault { name: concat!("kill-at-", $point), short: 2, long: 20, fresh_every: 20 }, $point);
        })*
    };
}

kill_at!(kill_agent at OF_THE_AGENT:
    kill_at_journal_before_commit "journal-before-commit",
    kill_at_journal_after_commit "journal-after-commit",
    kill_at_send_before "send-before",
    kill_at_send_after "send-after",
    kill_at_report_before "report-before",
    kill_at_report_after "report-after",
    kill_at_removal_before "removal-before",
    kill_at_removal_after "removal-after",
);

kill_at!(kill_consumer at OF_THE_CONSUMER:
    kill_at_guard_1_before "guard-1-before",
    kill_at_guard_1_after "guard-1-after",
    kill_at_copying "copying",
    kill_at_database_before_commit "database-before-commit",
    kill_at_database_after_commit "database-after-commit",
    kill_at_kafka_before_commit "kafka-before-commit",
    kill_at_kafka_after_commit "kafka-after-commit",
);

kill_at!(kill_publishing at OF_THE_HOURS:
    kill_at_hours_published "hours-published",
);

fn kill_agent(test: &str, fault: Fault, point: &str) {
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(()) = failpoints::or_skip(test) else { return };
    let make = || {
        let mut pipeline = Pipeline::new(fault.name, &kafka, &postgres);
        let consuming = pipeline.start_consumer();
        (pipeline, consuming)
    };
    rounds(&fault, make, |(pipeline, _consuming), rng| {
        let passing = rng.u64(1..=20);
        let running = pipeline.agent.start_at(&format!("{point}={passing}*off->return"), &[]);
        assert_eq!(running.ended().signal(), Some(9), "it was killed at {point}");
        pipeline.drain_agent();
        let outcome = pipeline.wait_and_compare();
        assert_no_dead_letter(pipeline, 0);
        outcome
    });
}

const BATCH: u64 = batch::RECORDS_MAX as u64;

fn kill_consumer(test: &str, fault: Fault, point: &str) {
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(()) = failpoints::or_skip(test) else { return };
    let make = || {
        let pipeline = Pipeline::new(fault.name, &kafka, &postgres);
        // A member with a name takes its partitions over at once; without, the group waits for the dead one's session.
        pipeline.consumer.set("[kafka]", "instance = 'one'");
        (pipeline, 0)
    };
    rounds(&fault, make, |(pipeline, sent), rng| {
        // Two batches or more.
        send_and_accept(pipeline, sent, rng.u64(BATCH + 1..2 * BATCH));
        let passing = rng.u64(1..=2);
        let kill = if passing == 1 { "return" } else { "1*off->return" };
        let running = pipeline.consumer.start_at(&format!("{point}={kill}"), &[]);
        assert_eq!(running.ended().signal(), Some(9), "it was killed at {point}");
        let again = pipeline.start_consumer();
        let outcome = pipeline.wait_and_compare();
        again.kill();
        assert_no_dead_letter(pipeline, 0);
        outcome
    });
}

fn kill_publishing(test: &str, fault: Fault, point: &str) {
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(()) = failpoints::or_skip(test) else { return };
    rounds(&fault, || Hours::new(fault.name, &kafka, &postgres), |hours, rng| hours.round(&kafka, point, rng));
}

/// Windows on their way to merged hours in Kafka.
struct Hours {
    pipeline: Pipeline,
    rates: String,
    published: String,
    first: DateTime<Utc>,
    /// Messages that were sent, and the last one of an agent.
    sent: u64,
    seq: u64,
}

/// An hour as Kafka or the database has it: its version, and the seconds in it.
type Published = (i64, i64);

impl Hours {
    const AGENTS: u64 = 3;
    const SECONDS: u64 = 10;

    fn new(name: &str, kafka: &Kafka, postgres: &Postgres) -> Self {
        // A member with a name takes its partitions over at once.
        let pipeline = Pipeline::new(name, kafka, postgres).named();
        let (rates, published) = (kafka.topic("rates", 1), kafka.topic("hours", 1));
        pipeline.consumer.append(&format!("[topics]\nrates = '{rates}'\nhistograms = '{published}'\n"));
        pipeline.consumer.append("[histograms]\ninterval = '1s'\n");
        let first = (Utc::now() - TimeDelta::days(20)).duration_trunc(TimeDelta::hours(1)).expect("it is a time");
        Self { pipeline, rates, published, first, sent: 0, seq: 0 }
    }

    /// Sends the next window of each agent.
    fn send(&mut self) {
        self.seq += 1;
        let bps = [self.seq * 1_000_000; Self::SECONDS as usize];
        let message = |agent| {
            let links = vec![link_rates("eth0", Direction::Rx, &bps)];
            rates_since(self.first, &format!("gw-{agent}"), self.seq, links)
        };
        produce(self.pipeline.brokers(), &self.rates, &(0..Self::AGENTS).map(message).collect::<Vec<Event>>());
        self.sent += Self::AGENTS;
    }

    /// Returns all that was published of each hour, in the order in which it came.
    fn published(&self, kafka: &Kafka) -> BTreeMap<String, Vec<Published>> {
        let mut hours: BTreeMap<String, Vec<Published>> = BTreeMap::new();
        for line in kafka.read(&self.published, "%k\t%s\n") {
            let (key, payload) = line.split_once('\t').expect("a key and a payload");
            let message: serde_json::Value = serde_json::from_str(payload).expect("it is JSON");
            let bins = message["bins"].as_array().expect("it has bins").iter();
            let seconds = bins.map(|bin| bin[2].as_i64().expect("a count")).sum();
            hours.entry(key.to_owned()).or_default().push((message["version"].as_i64().expect("a number"), seconds));
        }
        hours
    }

    /// Returns the hours that the rows of `from` name, with their versions and seconds.
    fn stored(&self, from: &str) -> BTreeMap<String, Published> {
        let sql = format!(
            "SELECT h.agent || '/' || h.interface || '/' || h.direction || '/'
                    || to_char(h.starts_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), h.version, h.measured_s
             FROM histograms h {from} WHERE h.span = 'hour'"
        );
        let rows = self.pipeline.database.client().query(&sql, &[]).expect("it answers");
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    /// The consumer is killed when Kafka has hours, and the database does not know that; the next one publishes them again.
    fn round(&mut self, kafka: &Kafka, point: &str, rng: &mut Rng) -> Outcome {
        let before = self.sent;
        let passing = rng.u64(1..=3);
        let kill = if passing == 1 { "return".to_owned() } else { format!("{}*off->return", passing - 1) };
        let mut running = self.pipeline.consumer.start_at(&format!("{point}={kill}"), &[]);
        let status = until("the consumer is killed", || {
            self.send();
            running.try_wait()
        });
        assert_eq!(status.signal(), Some(9), "it was killed at {point}: {}", running.log());
        let told = self.published(kafka);
        let noted = self.stored("JOIN unpublished_hours u USING (agent, interface, direction, starts_at)");
        let are_in_kafka =
            noted.iter().filter(|(hour, stored)| told.get(*hour).is_some_and(|all| all.contains(stored))).count();
        assert!(are_in_kafka > 0, "Kafka had hours of which the database did not know that: {noted:?}, {told:?}");
        let again = self.pipeline.start_consumer();
        if rng.bool() {
            self.send();
        }
        let all = format!(
            "SELECT count(*) >= {} AND NOT EXISTS (SELECT FROM touched_hours) AND NOT EXISTS (SELECT FROM unpublished_hours)
             FROM rates",
            self.sent
        );
        let recovery = recovered("all hours are in Kafka", || self.pipeline.database.ask(&all) == "(t)");
        again.kill();
        let (last, stored) = (self.published(kafka), self.stored(""));
        let is_repeated = |hour: &&String| last[*hour].len() > told.get(*hour).map_or(0, Vec::len);
        assert_eq!(noted.keys().filter(is_repeated).count(), noted.len(), "each of them was published again");
        let seconds: i64 = stored.values().map(|(_, seconds)| seconds).sum();
        let rows: i64 = self.pipeline.database.client().query_one("SELECT count(*) FROM rates", &[]).unwrap().get(0);
        Outcome {
            events: self.sent - before,
            lost: (self.sent * Self::SECONDS).abs_diff(seconds.unsigned_abs())
                + stored.iter().filter(|(hour, of)| last.get(*hour).and_then(|all| all.last()) != Some(*of)).count()
                    as u64,
            doubled: rows.unsigned_abs() - self.sent,
            out_of_order: last.values().filter(|all| !all.is_sorted_by_key(|(version, _)| *version)).count() as u64,
            invented: last.keys().filter(|hour| !stored.contains_key(*hour)).count() as u64,
            recovery,
            ..Outcome::default()
        }
    }
}

fn send_and_accept(pipeline: &mut Pipeline, sent: &mut u64, count: u64) {
    let events: Vec<Event> = (*sent + 1..=*sent + count).map(|seq| updated("gw", seq)).collect();
    *sent += count;
    produce(pipeline.brokers(), &pipeline.topic, &events);
    pipeline.checker.accept_events(&events);
}

/// Asserts that dead letters are only the test's poison: a copy of a stored event is none.
fn assert_no_dead_letter(pipeline: &Pipeline, poison: u64) {
    assert_eq!(pipeline.database.ask("SELECT count(*) FROM dead_letters"), format!("({poison})"));
}

/// A consumer is paused at `point`, with a batch of `poison` messages that are no events, or with one of events; another takes its
/// partition, and stores it all; then the first one is woken.
fn paused(test: &str, fault: &Fault, point: &str, poison: u64) {
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(()) = failpoints::or_skip(test) else { return };
    let make = || (Pipeline::new(fault.name, &kafka, &postgres), 0);
    rounds(fault, make, |(pipeline, sent), rng| {
        let messages = (0..poison).map(|_| ("gw".to_owned(), b"no event".to_vec()));
        produce_raw(pipeline.brokers(), &pipeline.topic, messages, None);
        if poison == 0 {
            send_and_accept(pipeline, sent, rng.u64(1..3_000));
        }
        let mut sleeper = pipeline.consumer.start_at(&format!("{point}=1*return(stop)"), &[]);
        until_stopped(sleeper.id());
        send_and_accept(pipeline, sent, rng.u64(1..3_000));
        let mut successor = Consumer::new(pipeline.brokers(), &pipeline.topic, &pipeline.database.url).start(&[]);
        let took_over = pipeline.wait_and_compare();
        successor.signal("TERM");
        assert!(successor.wait().success(), "{}", successor.log());
        // The consumer sees the stop when it is woken, after the batch in hand.
        sleeper.signal("TERM");
        sleeper.signal("CONT");
        assert!(sleeper.wait().success(), "{}", sleeper.log());
        let outcome = pipeline.wait_and_compare();
        assert_no_dead_letter(pipeline, poison);
        assert_eq!(pipeline.database.ask("SELECT next_offset FROM kafka_offsets"), format!("({})", poison + *sent));
        Outcome { events: took_over.events, recovery: took_over.recovery, ..outcome }
    });
}

#[test]
fn consumer_paused() {
    let fault = Fault { name: "consumer-paused", short: 1, long: 20, fresh_every: 1 };
    paused("faults::points::consumer_paused", &fault, "guard-1-before", 0);
}

/// The successor ends the session: no time-out of PostgreSQL ends a COPY that waits for its client.
#[test]
fn consumer_paused_in_copy() {
    let fault = Fault { name: "consumer-paused-in-copy", short: 1, long: 20, fresh_every: 1 };
    paused("faults::points::consumer_paused_in_copy", &fault, "copying", 0);
}

/// With dead letters alone no row of `events` is in its way: only the lock and guard 3 are.
#[test]
fn consumer_paused_with_the_lock() {
    let fault = Fault { name: "consumer-paused-with-the-lock", short: 1, long: 20, fresh_every: 1 };
    paused("faults::points::consumer_paused_with_the_lock", &fault, "guard-1-after", 5);
}

/// Restored from before the last transactions, or a standby without them.
#[test]
fn database_went_back() {
    let test = "faults::points::database_went_back";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "database-went-back", short: 1, long: 20, fresh_every: 20 };
    let make = || {
        let mut pipeline = Pipeline::new(fault.name, &kafka, &postgres);
        let consuming = pipeline.start_consumer();
        (pipeline, consuming, 0)
    };
    rounds(&fault, make, |(pipeline, _consuming, sent), rng| {
        send_and_accept(pipeline, sent, rng.u64(1..3_000));
        pipeline.wait_and_compare();
        let before = rng.u64(0..*sent);
        let sql = format!("DELETE FROM events WHERE seq > {before}; UPDATE kafka_offsets SET next_offset = {before}");
        pipeline.database.client().batch_execute(&sql).expect("the database obeys");
        send_and_accept(pipeline, sent, rng.u64(1..3_000));
        let outcome = pipeline.wait_and_compare();
        assert_no_dead_letter(pipeline, 0);
        outcome
    });
}

/// A point at which no test kills proves nothing.
#[test]
fn every_point_has_its_rounds() {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("src can be read") {
            let path = entry.expect("its entries too").path();
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let points = text.split("failpoints::hit(\"").skip(1);
                found.extend(points.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    found.sort();
    found.dedup();
    let mut known = [OF_THE_AGENT, OF_THE_CONSUMER, OF_THE_HOURS].concat();
    known.sort_unstable();
    assert_eq!(found, known);
}
