//! Bytes over limit as users see them: `run --log-totals`, the table and the command, exactly once through a real Kafka.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use highwater::message::{Body, Event};

use crate::consumer_commands::{CommandFixture, fields};
use crate::support::consumer::{Consumer, command};
use crate::support::events::{breach, event, noon, produce, started, updated};
use crate::support::postgres::Postgres;
use crate::support::process::output_of;
use crate::support::services::{Kafka, kafka_and_postgres};

/// An event of a breach that began `day` days after the first.
fn over(agent: &str, seq: u64, id: &str, day: i64, bytes: u64) -> Event {
    let mut breach = breach(id, seq);
    breach.raised_at = noon() + TimeDelta::days(day);
    breach.excess_bytes = bytes;
    event(agent, seq, Body::BreachUpdated(breach))
}

#[test]
fn three_consumers_come_and_go_and_each_byte_is_counted_once() {
    let test = "consumer_totals::three_consumers_come_and_go_and_each_byte_is_counted_once";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (topic, database) = (kafka.topic("totals", 4), postgres.database("totals"));
    // Each agent's breach lasts 40 events; some of the updates were evicted, some events are sent twice, later ones first too.
    let mut expected: BTreeMap<(u64, i64), u64> = BTreeMap::new();
    let mut sent: Vec<Vec<Event>> = Vec::new();
    for round in 0..6_u64 {
        let mut events = Vec::new();
        for agent in 0..8_u64 {
            let day = (round / 2) as i64;
            for at in (0..40_u64).filter(|at| *at == 39 || (at + agent) % 3 != 0) {
                let seq = 1 + round * 40 + at;
                events.push(over(&format!("gw-{agent}"), seq, &format!("b{round}"), day, (at + 1) * 1_000 + agent));
            }
            *expected.entry((agent, day)).or_default() += 40_000 + agent;
        }
        let again: Vec<Event> = events.iter().step_by(3).rev().cloned().collect();
        events.extend(again);
        sent.push(events);
    }
    let mut consumers: Vec<Consumer> = (0..3).map(|_| Consumer::new(&kafka.address, &topic, &database.url)).collect();
    let mut running: Vec<_> = consumers.iter_mut().map(|consumer| consumer.start(&[])).collect();
    for (round, events) in sent.iter().enumerate() {
        produce(&kafka.address, &topic, events);
        // A consumer is killed at any point, and comes back.
        let at = round % 3;
        running.remove(at).kill();
        running.insert(at, consumers[at].start(&[]));
        std::thread::sleep(std::time::Duration::from_millis(fastrand::u64(0..1_500)));
    }
    let count: usize = sent.iter().map(Vec::len).sum();
    database.until("SELECT sum(next_offset) FROM kafka_offsets", &format!("({count})"));
    let told: Vec<String> =
        expected.iter().map(|((agent, day), bytes)| format!("(gw-{agent},2026-11-{},2,{bytes})", 20 + day)).collect();
    assert_eq!(database.ask("SELECT agent, day, breaches, excess_bytes FROM totals"), told.join(" "));
}

#[test]
fn each_change_is_logged_once_with_the_sum_since_the_start_and_in_all() {
    let test = "consumer_totals::each_change_is_logged_once_with_the_sum_since_the_start_and_in_all";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut urls = vec![format!("sqlite:{}", directory.path().join("h.db").display())];
    urls.extend(Postgres::or_skip(test).map(|postgres| postgres.database("logged").url));
    for url in urls {
        let topic = kafka.topic("logged", 1);
        produce(&kafka.address, &topic, &[over("gw", 1, "a", 0, 1_000), event("gw", 2, started())]);
        let mut consumer = Consumer::new(&kafka.address, &topic, &url);
        let line = |log: &str, text: &str| log.lines().filter(|line| line.contains(text)).count();
        let running = consumer.start(&["--log-totals"]);
        running.until("total gw eth0 rx: 1000 B over limit wan-down since the start, 1000 B in all");
        running.kill();
        // A new run counts from 0; a copy adds nothing, and is not logged.
        let running = consumer.start(&["--log-totals"]);
        produce(&kafka.address, &topic, &[over("gw", 3, "a", 0, 3_072), over("gw", 1, "a", 0, 1_000)]);
        running.until("total gw eth0 rx: 2.0 KiB over limit wan-down since the start, 3.0 KiB in all");
        produce(&kafka.address, &topic, &[over("gw", 1, "a", 0, 1_000)]);
        produce(&kafka.address, &topic, &[over("gw", 4, "a", 0, 4_096)]);
        running.until("total gw eth0 rx: 3.0 KiB over limit wan-down since the start, 4.0 KiB in all");
        assert_eq!(line(&running.log(), "total "), 2, "{}", running.log());
        running.kill();
    }
}

fn totals_are_printed_by_day(mut fixture: CommandFixture) {
    assert_eq!(fixture.rows(&["totals"]), (0, vec![]));
    let host = |seq: u64| {
        let mut event = over("gw-2", seq, "host", 1, 9);
        let Body::BreachUpdated(breach) = &mut event.body else { panic!("it is one") };
        (breach.interface, breach.limit_name) = ("*".into(), "host-total".into());
        event
    };
    let other_limit = |seq: u64| {
        let mut event = over("gw-2", seq, "other", 1, 8);
        let Body::BreachUpdated(breach) = &mut event.body else { panic!("it is one") };
        breach.limit_name = "wan-full".into();
        event
    };
    fixture.store_events(&[over("gw-1", 1, "a", 0, 5 << 20), over("gw-2", 1, "a", 1, 7), updated("gw-2", 2)]);
    fixture.store_events(&[host(3), other_limit(4)]);
    let columns = ["day", "agent", "scope", "interface", "direction", "limit_name", "breaches", "excess_bytes"];
    let all = |arguments: &[&str]| fields(&fixture.rows(&[&["totals"], arguments].concat()).1, &columns);
    let first = "2026-11-20 gw-1 link eth0 rx wan-down 1 5242880";
    let second = "2026-11-20 gw-2 link eth0 rx wan-down 1 250";
    let third = "2026-11-21 gw-2 link eth0 rx wan-down 1 7";
    let fourth = "2026-11-21 gw-2 link eth0 rx wan-full 1 8";
    let fifth = "2026-11-21 gw-2 host * rx host-total 1 9";
    assert_eq!(all(&[]), [first, second, third, fourth, fifth]);
    assert_eq!(all(&["--agent", "gw-2", "--until", "2026-11-20"]), [second]);
    assert_eq!(all(&["--since", "2026-11-21"]), [third, fourth, fifth]);
    assert_eq!(all(&["--since", "2026-11-21T01:00:00+02:00", "--limit-name", "wan-down"]), [first, second, third]);
    assert_eq!(all(&["--scope", "host"]), [fifth]);
    assert_eq!(all(&["--scope", "link", "--since", "2026-11-21"]), [third, fourth]);
    assert_eq!(all(&["--limit-name", "wan-full"]), [fourth]);
    let (code, plot, err) = fixture.output(&["plot", "totals", "--limit-name", "wan-full"]);
    assert!(code == 0 && plot.contains("wan-full") && !plot.contains("wan-down"), "{plot}{err}");
    // A limit itself is `--limit`, of the agent.
    assert_eq!(fixture.output(&["totals", "--limit", "wan-full"]).0, 2);
    assert_eq!(all(&["--interface", "eth1"]), [""; 0]);
    let (code, table, _) = fixture.output(&["totals", "--agent", "gw-1"]);
    assert_eq!(code, 0);
    let table: Vec<&str> = table.lines().collect();
    assert_eq!(table[0], "day         agent  scope  interface  direction  limit name  breaches   excess");
    assert_eq!(table[1], "2026-11-20  gw-1   link   eth0       rx         wan-down           1  5.0 MiB");
}

#[test]
fn sqlite_totals_are_printed_by_day() {
    totals_are_printed_by_day(CommandFixture::sqlite());
}

#[test]
fn postgres_totals_are_printed_by_day() {
    if let Some(fixture) = CommandFixture::postgres("consumer_totals::postgres_totals_are_printed_by_day") {
        totals_are_printed_by_day(fixture);
    }
}

#[test]
fn a_foreign_database_is_left_to_the_consumer() {
    let fixture = CommandFixture::sqlite();
    fixture.run("PRAGMA user_version = 0");
    let (code, _, err) = output_of(command().arg("totals").env("HIGHWATER_STORE__URL", &fixture.url));
    assert!(
        code == 69 && err.contains("is not a database of this program") && err.contains("highwater-consumer run"),
        "{code} {err}"
    );
}
