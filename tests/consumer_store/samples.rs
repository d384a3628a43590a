//! Samples are rows of a table of their own, once each, with gaps and retention as events have them.

use chrono::{TimeDelta, Utc};
use highwater::message::{Body, Event, Reason, Sample};

use super::{StoreFixture, on_both};
use crate::support::events::{event, noon, sample, started, updated};
use crate::support::postgres::Postgres;
use crate::support::stores::StoreDatabase;

on_both!("consumer_store::samples":
    samples_are_rows_of_their_own_table_and_once,
    one_sample_with_two_times_is_two_rows_and_counted_once,
    samples_that_never_came_are_gaps_and_events_none,
    samples_go_with_retention_as_events_do,
);

fn samples_are_rows_of_their_own_table_and_once(fixture: &mut StoreFixture) {
    let count = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM samples)";
    let mixed = [updated("gw", 1), sample("gw", 1), sample("gw", 2), updated("gw", 2), sample("other", 1)];
    assert_eq!(fixture.store_events(&mixed).inserted, 5);
    assert_eq!(fixture.ask(count), "2,3");
    // Again, alone, and among new ones.
    assert_eq!(fixture.store_events(&mixed).inserted, 0);
    assert_eq!(fixture.store_events(&[sample("gw", 2), sample("gw", 3), updated("gw", 2)]).inserted, 1);
    // Twice in one batch.
    assert_eq!(fixture.store_events(&[sample("gw", 4), sample("gw", 4), started_again()]).inserted, 2);
    let mut empty = sample("gw", 5);
    empty.body = Body::Sample(Sample { interface: "eth1".into(), reason: Some(Reason::First), ..Sample::default() });
    fixture.store_events(&[empty]);
    let fields = "SELECT seq, kafka_topic, kafka_offset, interface, duration_ms, rx_bytes, tx_bytes, rx_bps, tx_bps, reason \
                  FROM samples WHERE agent = 'gw' AND seq IN (3, 5)";
    assert_eq!(fixture.ask(fields), "3,events,11,eth0,1000,30,,240,, 5,events,16,eth1,,,,,,first");
    assert_eq!(fixture.ask(count), "3,6");
    // A dead letter among them holds nothing up.
    let mut bad = sample("gw", 6);
    bad.body = Body::Sample(Sample { interface: "eth\0".into(), ..Sample::default() });
    let applied = fixture.store_events(&[bad.clone(), sample("gw", 7), updated("gw", 7), started_again()]);
    assert_eq!((applied.inserted, applied.rejected.len()), (2, 1));
    let alone = fixture.store_events(&[bad]);
    assert_eq!((alone.inserted, alone.rejected.len()), (0, 1), "the database is well, and the row is not");
}

fn started_again() -> Event {
    event("gw", 9, started())
}

fn one_sample_with_two_times_is_two_rows_and_counted_once(fixture: &mut StoreFixture) {
    fixture.store_events(&[sample("gw", 1), sample("gw", 2)]);
    let mut twin = sample("gw", 2);
    twin.stamp.observed_at += TimeDelta::days(1);
    let applied = fixture.store_events(&[twin.clone(), sample("gw", 3), updated("gw", 1)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (3, 1));
    assert!(applied.identity_conflicts[0].starts_with("gw ffffffffffffa0f3-2"), "{:?}", applied.identity_conflicts);
    assert_eq!(fixture.store_events(&[twin]).identity_conflicts.len(), 0);
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT seq) FROM samples"), "4,3");
}

/// Samples have an epoch of their own: their gaps are reported, and none of the events.
fn samples_that_never_came_are_gaps_and_events_none(fixture: &mut StoreFixture) {
    fixture.store_events(&[updated("gw", 1), sample("gw", 1), sample("gw", 2), updated("gw", 2), sample("gw", 5)]);
    fixture.run("UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'");
    assert_eq!(fixture.ask("SELECT epoch, first_seq, last_seq FROM sequence_gaps"), "ffffffffffffa0f3,3,4");
    fixture.store_events(&[sample("gw", 3), sample("gw", 4)]);
    assert_eq!(fixture.ask("SELECT count(*) FROM sequence_gaps"), "0");
}

fn samples_go_with_retention_as_events_do(fixture: &mut StoreFixture) {
    let at = |seq, day: i64| {
        let mut event = sample("gw", seq);
        event.stamp.observed_at = noon() + TimeDelta::days(day);
        event
    };
    let mut event = event("gw", 1, started());
    event.stamp.observed_at = noon() - TimeDelta::days(60);
    fixture.store_events(&[at(1, -30), at(2, -20), at(3, 0), event]);
    fixture.age("samples", "seq = 1");
    let maintained = fixture.retire(10, noon() + TimeDelta::days(5));
    match &fixture.database {
        StoreDatabase::Sqlite(_) => assert_eq!(maintained.deleted["samples"], 1),
        StoreDatabase::Postgres(_) => assert_eq!(maintained.dropped, ["samples_20261019"]),
    }
    assert_eq!(fixture.ask("SELECT seq FROM samples"), "2 3");
    // A sample may come again, and its week is made again.
    assert_eq!(fixture.store_events(&[at(1, -30)]).inserted, 1);
}

/// Five years of samples are no wrong clock, and leave the partitions that wrong clocks may have to the events.
#[test]
fn a_long_series_of_samples_is_stored_whole() {
    let Some(postgres) = Postgres::or_skip("consumer_store::samples::a_long_series_of_samples_is_stored_whole") else {
        return;
    };
    let mut fixture = StoreFixture::postgres(&postgres);
    let series: Vec<Event> = (1..=1_800)
        .map(|seq: u64| {
            let mut event = sample("gw", seq);
            event.stamp.observed_at = noon() - TimeDelta::days(seq as i64);
            event
        })
        .collect();
    for part in series.chunks(60) {
        assert_eq!(fixture.store_events(part).rejected, []);
    }
    assert_eq!(fixture.ask("SELECT count(*) FROM samples"), "1800");
    let mut old = event("gw", 1, started());
    old.stamp.observed_at = Utc::now() - TimeDelta::days(900);
    let applied = fixture.store_events(&[old]);
    assert_eq!((applied.inserted, applied.rejected), (1, vec![]));
}
