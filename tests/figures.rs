//! The figures of a breach are the same wherever they are shown: in the log, in a replay, in the events and in the rows.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::units::{BitRate, ByteCount, lasting};
use serde_json::Value;

use crate::support::agent::{Agent, command};
use crate::support::consumer::Consumer;
use crate::support::pipeline::busy_config;
use crate::support::services::Kafka;

fn cleared(events: &[Value]) -> impl Iterator<Item = &Value> {
    events.iter().filter(|event| event["kind"] == "breach_cleared")
}

#[test]
fn a_replay_its_events_and_the_rows_agree() {
    let Some(kafka) = Kafka::or_skip("figures::a_replay_its_events_and_the_rows_agree") else { return };
    let topic = kafka.topic("figures", 1);
    let directory = tempfile::tempdir().unwrap();
    // Uneven times, in milliseconds, and uneven rates: every figure is a rounded one.
    let row = |n: u64| {
        let at = 1_700_000_000_000 + n * 1_003 + n * n % 7;
        format!("{at},{}\n", if n % 13 < 5 { 10_000_019 + n * 777_777 } else { 1_234_567 })
    };
    let file = directory.path().join("series.csv");
    let rows: String = (100..300).map(row).collect();
    std::fs::write(&file, format!("timestamp,value\n{rows}")).unwrap();
    let limits = ["--rates", "--limit", "10Mbit/s", "--agent", "gw", "--breaches", "--format", "json", "--publish"];
    let output = command().arg("replay").arg(&file).args(limits).args(["-b", &kafka.address, "-t", &topic]).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8(output.stdout).unwrap();
    let shown: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let store = directory.path().join("h.db");
    Consumer::new(&kafka.address, &topic, &format!("sqlite:{}", store.display())).run_until_end();

    let figures = ["breach_id", "started_at", "ended_at", "peak_bps", "mean_bps", "duration_ms", "excess_bytes"];
    let of = |value: &Value| figures.map(|name| value[name].clone());
    let events = kafka.events(&topic);
    let in_events: Vec<_> = cleared(&events).map(of).collect();
    let in_replay: Vec<_> = shown.iter().filter(|breach| breach["state"] == "cleared").map(of).collect();
    assert!(in_events.len() > 10, "{out}");
    assert_eq!(in_replay, in_events);
    let store = rusqlite::Connection::open(&store).unwrap();
    let sql = "SELECT breach_id, started_at, ended_at, peak_bps, mean_bps, CAST(round(lasted * 1000) AS INTEGER), excess_bytes
               FROM breaches WHERE state = 'cleared' ORDER BY started_at";
    let mut statement = store.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let text = |at| row.get::<_, String>(at).map(Value::from);
        let number = |at| row.get::<_, i64>(at).map(Value::from);
        Ok([text(0)?, text(1)?, text(2)?, number(3)?, number(4)?, number(5)?, number(6)?])
    });
    let in_rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
    assert_eq!(in_rows, in_events);
}

#[test]
fn the_log_and_the_events_agree() {
    let Some(kafka) = Kafka::or_skip("figures::the_log_and_the_events_agree") else { return };
    let topic = kafka.topic("figures-log", 1);
    let log = Agent::new(&busy_config(&kafka.address, &topic)).run(&["--for", "8s"]);
    let lines: BTreeMap<&str, &str> = log
        .lines()
        .filter(|line| line.contains(" bandwidth back under the limit "))
        .filter_map(|line| Some((line.rsplit_once("[breach ")?.1.trim_end_matches(']'), line)))
        .collect();
    let events = kafka.events(&topic);
    let mut compared = 0;
    for event in cleared(&events).filter(|event| event["reason"] == "below") {
        let number = |name: &str| event[name].as_u64().expect("a number");
        let rate = |name| BitRate::from_bps(number(name));
        let time = |name| lasting(Duration::from_millis(number(name)));
        let (whole, measured) = (time("duration_ms"), time("measured_ms"));
        let whole = if whole == measured { whole } else { format!("{whole}, {measured} of it measured") };
        let told = format!(
            " on {} {} after {whole}: peak {}, mean {}, {} over limit low [",
            event["interface"].as_str().unwrap(),
            event["direction"].as_str().unwrap(),
            rate("peak_bps"),
            rate("mean_bps"),
            ByteCount::from_bytes(number("excess_bytes"))
        );
        let line = lines[event["breach_id"].as_str().unwrap()];
        assert!(line.contains(&told), "{line}\n{told}");
        compared += 1;
    }
    assert!(compared > 0 && compared == lines.len(), "{log}");
}
