//! The whole pipeline on real parts: from this host's counters through Kafka to rows in PostgreSQL, each accepted event once.

use std::time::Duration;

use crate::support::agent::{Agent, until};
use crate::support::consumer::Consumer;
use crate::support::pipeline::busy_config;
use crate::support::postgres::{Database, Postgres};
use crate::support::services::{Kafka, kafka_and_postgres};
use crate::support::veth::Veth;

/// Asserts that each number that the journal gave out is one row, of this epoch alone, and that no error is in the tables.
fn every_accepted_event_is_one_row(agent: &Agent, database: &Database) -> u64 {
    let (epoch, accepted) = agent.accepted();
    assert_eq!(agent.pending(), 0, "Kafka has acknowledged all of it");
    let rows =
        database.ask("SELECT epoch, count(*), count(DISTINCT seq), min(seq), max(seq) FROM events GROUP BY epoch");
    assert_eq!(rows, format!("({epoch},{accepted},{accepted},1,{accepted})"));
    for table in ["dead_letters", "losses", "kafka_gaps", "sequence_gaps"] {
        assert_eq!(database.ask(&format!("SELECT count(*) FROM {table}")), "(0)", "{table}");
    }
    accepted
}

#[test]
fn traffic_through_a_link_becomes_a_row_that_says_how_much() {
    let test = "pipeline::traffic_through_a_link_becomes_a_row_that_says_how_much";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(veth) = Veth::or_skip(test) else { return };
    let (topic, database) = (kafka.topic("row", 3), postgres.database("row"));
    let mut agent = Agent::new(&format!(
        "[interfaces]\ninclude = []\n[[limit]]\nname = 'wan'\ninterface = '{}'\ndirection = 'tx'\nraise_at = '1 Mbit/s'\n\
         [flush]\ninterval = '2s'\n[kafka]\nbrokers = '{}'\ntopic = '{topic}'\n",
        veth.name, kafka.address
    ));
    let mut running = agent.start(&[]);
    running.until("reading by netlink");
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let _consuming = consumer.start(&[]);
    veth.send(Duration::from_secs(2), 50_000);
    let sent_bytes = veth.send(Duration::from_secs(8), 24_000_000);
    running.until("bandwidth back under the limit on");
    running.signal("TERM");
    assert!(running.wait().success());
    database.until("SELECT state FROM breaches", "(cleared)");
    database.until("SELECT count(*) FROM events WHERE kind = 'agent_stopped'", "(1)");
    every_accepted_event_is_one_row(&agent, &database);

    let sql = format!(
        "SELECT interface, direction, reason FROM breaches WHERE peak_bps >= mean_bps AND excess_bytes < {sent_bytes}"
    );
    assert_eq!(database.ask(&sql), format!("({},tx,below)", veth.name));
    let stored_bytes: f64 = database
        .ask("SELECT mean_bps::float8 * measured_ms / 8000 FROM breaches")
        .trim_matches(['(', ')'])
        .parse()
        .unwrap();
    let off = (stored_bytes - sent_bytes as f64).abs() / sent_bytes as f64;
    assert!(off < 0.02, "{stored_bytes} bytes in the row, {sent_bytes} on the link: {:.2} % off", off * 100.0);
}

#[test]
fn a_broker_that_is_down_at_the_start_and_later_loses_nothing() {
    let test = "pipeline::a_broker_that_is_down_at_the_start_and_later_loses_nothing";
    let (Some((kafka, _directory)), Some(postgres)) = (Kafka::start_own(test), Postgres::or_skip(test)) else { return };
    let (topic, database) = (kafka.topic("down", 1), postgres.database("down"));
    kafka.stop();
    let mut agent = Agent::new(&busy_config(&kafka.address, &topic));
    let running = agent.start(&[]);
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let consuming = consumer.start(&[]);
    running.until("cannot reach Kafka, the events stay in the journal");
    kafka.start();
    running.until(" delivered to");
    let lines = |text: &str| running.log().matches(text).count();
    let (outages, recoveries) = (lines("events stay in the journal"), lines("publishing again"));
    kafka.kill();
    until("the agent notices the outage", || (lines("events stay in the journal") > outages).then_some(()));
    kafka.start();
    until("the agent recovers from it", || (lines("publishing again") > recoveries).then_some(()));
    running.signal("TERM");
    running.log_at_end();
    agent.run(&["--for", "1s"]);
    let (_, accepted) = agent.accepted();
    database.until("SELECT count(*) FROM events", &format!("({accepted})"));
    consuming.kill();
    every_accepted_event_is_one_row(&agent, &database);
}
