//! Every kind of event, of any time that a database has, is a row with all its fields.

use chrono::{DateTime, Utc};
use highwater::message::{Body, Epoch, Lifecycle, Link, Loss, Reason};
use highwater::wire;

use super::{StoreFixture, on_both};
use crate::support::events::{breach, event, started, updated};
use crate::support::stores::StoreDatabase;

on_both!("consumer_store::rows":
    times_from_1970_to_9999_are_rows,
    a_leap_second_is_a_row_of_the_second_after_it,
    every_kind_is_stored_with_its_fields,
);

fn times_from_1970_to_9999_are_rows(fixture: &mut StoreFixture) {
    let mut events = Vec::new();
    for (seq, text) in (1..).zip([
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T23:59:59.999999Z",
        "2099-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00.000000Z",
        "9999-12-31T23:59:59.999999Z",
    ]) {
        let mut event = event("gw", seq, started());
        event.stamp.observed_at = text.parse::<DateTime<Utc>>().unwrap();
        events.push(event);
    }
    assert_eq!(fixture.store_events(&events).inserted, 5);
    assert_eq!(fixture.store_events(&events).inserted, 0);
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT observed_at) FROM events"), "5,5");
}

/// The month that its text names is another one than that of the row, which decides the partition.
fn a_leap_second_is_a_row_of_the_second_after_it(fixture: &mut StoreFixture) {
    let usual = wire::to_json(&event("gw", 2, started()));
    let leap = String::from_utf8(usual).unwrap().replace("2026-11-20T12:00:02.000000Z", "2026-11-30T23:59:60Z");
    assert!(leap.contains("23:59:60"), "{leap}");
    let [first, last] = [1, 3].map(|seq| wire::to_json(&event("gw", seq, started())));
    let applied = fixture.store(&[first, leap.into_bytes(), last]);
    assert_eq!((applied.inserted, applied.rejected), (3, vec![]));
    let stored = match fixture.database {
        StoreDatabase::Sqlite(_) => "SELECT seq FROM events WHERE observed_at = '2026-12-01T00:00:00.000000Z'",
        StoreDatabase::Postgres(_) => "SELECT seq FROM events_20261201 WHERE observed_at = '2026-12-01T00:00:00Z'",
    };
    assert_eq!(fixture.ask(stored), "2");
}

fn every_kind_is_stored_with_its_fields(fixture: &mut StoreFixture) {
    let link = |reason| Link {
        interface: "wan0".into(),
        ifindex: u32::MAX,
        speed_bps: Some(1 << 40),
        reason: Some(reason),
        detail: Some("eth7".into()),
    };
    let too_large = Loss {
        epoch: Epoch(0x5f0c),
        ranges: vec![(7, 8)],
        reason: Reason::Rejected,
        detail: Some("MessageSizeTooLarge".into()),
    };
    let stopped = Lifecycle { version: "1".into(), reason: Some(Reason::Signal), detail: None };
    let mut cleared = breach("b1", 4);
    (cleared.reason, cleared.detail) = (Some(Reason::LinkRenamed), Some("eth7".into()));
    let unknown =
        String::from_utf8(wire::to_json(&updated("gw", 5))).unwrap().replace("breach_updated", "quota_reached");
    let mut all: Vec<Vec<u8>> = [
        event("gw", 1, started()),
        event("gw", 2, Body::LinkAdded(link(Reason::Added))),
        event("gw", 3, Body::Loss(too_large)),
        event("gw", 4, Body::BreachCleared(cleared)),
        event("gw", 6, Body::LinkChanged(link(Reason::Renamed))),
        event("gw", 7, Body::AgentStopped(stopped)),
    ]
    .iter()
    .map(wire::to_json)
    .collect();
    all.push(unknown.clone().into_bytes());
    assert_eq!(fixture.store(&all).inserted, 7);
    let lives = "SELECT seq, kind, version, reason, detail FROM events WHERE version IS NOT NULL";
    assert_eq!(fixture.ask(lives), "1,agent_started,1,, 7,agent_stopped,1,signal,");
    assert_eq!(
        fixture.ask("SELECT kind, interface, ifindex, speed_bps, reason, detail FROM events WHERE kind LIKE 'link%'"),
        "link_added,wan0,4294967295,1099511627776,added,eth7 link_changed,wan0,4294967295,1099511627776,renamed,eth7"
    );
    assert_eq!(
        fixture.ask("SELECT lost_epoch, reason, detail FROM events WHERE kind = 'loss'"),
        "0000000000005f0c,rejected,MessageSizeTooLarge"
    );
    assert_eq!(
        fixture.ask("SELECT first_seq, last_seq, reason, detail FROM losses"),
        "7,8,rejected,MessageSizeTooLarge"
    );
    let fields = "limit_name, severity, interface, direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, \
                  measured_ms, excess_bytes, reason, detail";
    let values = "wan-down,warning,eth0,rx,80000000,90000004,90000004,85000000,4000,4000,500,link_renamed,eth7";
    assert_eq!(fixture.ask(&format!("SELECT {fields} FROM events WHERE seq = 4")), values);
    assert_eq!(fixture.ask(&format!("SELECT {fields} FROM breaches")), values);
    assert_eq!(fixture.ask("SELECT breach_id, ifindex FROM events WHERE seq = 4"), "b1,2");
    let times = |table: &str| match fixture.database {
        StoreDatabase::Sqlite(_) => format!("SELECT started_at, raised_at, ended_at FROM {table}"),
        StoreDatabase::Postgres(_) => {
            let text = |name: &str| format!("to_char({name}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
            format!("SELECT {}, {}, {} FROM {table}", text("started_at"), text("raised_at"), text("ended_at"))
        }
    };
    let told = "2026-11-20T12:00:00.000000Z,2026-11-20T12:00:01.000000Z,2026-11-20T12:00:04.000000Z";
    assert_eq!(fixture.ask(&times("events WHERE seq = 4")), told);
    assert_eq!(fixture.ask(&times("breaches")), told);
    assert_eq!(
        fixture.ask("SELECT kafka_topic, kafka_partition, kafka_offset FROM events WHERE seq = 4"),
        "events,0,3"
    );
    assert_eq!(fixture.ask("SELECT length(raw) FROM events WHERE kind = 'quota_reached'"), unknown.len().to_string());
}
