//! Each byte over a limit is in the totals once, in whatever order and batches events come.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use highwater::consumer::store::TotalKey;
use highwater::message::{Body, Event};
use proptest::prelude::*;

use super::{StoreFixture, on_both};
use crate::support::events::{breach, event, noon, started, updated};
use crate::support::postgres::Postgres;

on_both!("consumer_store::totals":
    a_breach_that_retention_deleted_is_not_counted_again,
    totals_are_by_agent_interface_direction_and_day,
    totals_stop_at_the_greatest_number,
);

/// Retention deletes a breach before the totals that it is in; Kafka may bring it again.
fn a_breach_that_retention_deleted_is_not_counted_again(fixture: &mut StoreFixture) {
    let old = |seq| {
        let mut event = updated("gw", seq);
        event.stamp.observed_at -= TimeDelta::days(60);
        if let Body::BreachUpdated(breach) = &mut event.body {
            breach.raised_at -= TimeDelta::days(60);
        }
        event
    };
    fixture.store_events(&[old(1), old(2)]);
    fixture.age("events", "seq < 3");
    fixture.retire(10, noon() + TimeDelta::days(3));
    assert_eq!(fixture.ask("SELECT count(*) FROM breach_state"), "0");
    let totals = fixture.ask("SELECT breaches, excess_bytes FROM totals");
    // In two batches: the second one finds the breach again.
    assert_eq!(fixture.store_events(&[old(1)]).inserted, 1);
    assert_eq!(fixture.store_events(&[old(2)]).inserted, 1);
    assert_eq!(fixture.ask("SELECT breaches, excess_bytes FROM totals"), totals);
    fixture.store_events(&[old(3)]);
    assert_eq!(fixture.ask("SELECT breaches, excess_bytes FROM totals"), "1,375", "was {totals}");
}

const TOTALS: &str =
    "SELECT agent, interface, direction, limit_name, CAST(day AS text), breaches, excess_bytes FROM totals";

fn total_key(agent: &str) -> TotalKey {
    let (agent, interface, limit_name) = (agent.to_owned(), "eth0".to_owned(), "wan-down".to_owned());
    TotalKey { agent, interface, direction: "rx", limit_name }
}

fn totals_are_by_agent_interface_direction_and_day(fixture: &mut StoreFixture) {
    let excess = |agent: &str, seq, id: &str, bytes| {
        let mut breach = breach(id, seq);
        breach.excess_bytes = bytes;
        event(agent, seq, Body::BreachUpdated(breach))
    };
    let elsewhere = |seq, interface: &str, day| {
        let mut breach = breach(&format!("{interface}{day}"), seq);
        (breach.interface, breach.raised_at) = (interface.into(), noon() + TimeDelta::days(day));
        event("gw", seq, Body::BreachRaised(breach))
    };
    // Two breaches of one day; the greatest of the first is not its last word, and one comes twice.
    let first =
        [excess("gw", 1, "a", 100), excess("gw", 2, "a", 900), excess("gw", 3, "a", 500), excess("gw", 4, "b", 7)];
    let applied = fixture.store_events(&first);
    assert_eq!(applied.added_totals, BTreeMap::from([(total_key("gw"), 907)]));
    let applied = fixture.store_events(&[first[1].clone(), excess("gw", 5, "a", 1_000), excess("other", 1, "a", 1)]);
    assert_eq!(applied.added_totals[&total_key("gw")], 100);
    fixture.store_events(&[elsewhere(6, "eth1", 0), elsewhere(7, "eth0", 1)]);
    fixture.store_events(&[event("gw", 8, started())]);
    let all = "gw,eth0,rx,wan-down,2026-11-20,2,1007 gw,eth0,rx,wan-down,2026-11-21,1,875 gw,eth1,rx,wan-down,2026-11-20,1,750 \
               other,eth0,rx,wan-down,2026-11-20,1,1";
    assert_eq!(fixture.ask(TOTALS), all);
    assert_eq!(fixture.store_events(&first).added_totals, BTreeMap::new());
    fixture.store_events(&[excess("gw", 9, "a", 1_001)]);
    assert_eq!(fixture.ask("SELECT excess_bytes FROM totals WHERE breaches = 2"), "1008");
}

/// No traffic is that large; but a sum that overflows must not hold up the others.
fn totals_stop_at_the_greatest_number(fixture: &mut StoreFixture) {
    let huge = |seq, id: &str| {
        let mut breach = breach(id, seq);
        breach.excess_bytes = i64::MAX as u64 - 1;
        event("gw", seq, Body::BreachUpdated(breach))
    };
    assert_eq!(fixture.store_events(&[huge(1, "a"), huge(2, "b")]).inserted, 2);
    assert_eq!(fixture.store_events(&[huge(3, "c"), updated("gw", 4)]).inserted, 2);
    assert_eq!(fixture.ask("SELECT breaches, excess_bytes FROM totals"), format!("4,{}", i64::MAX));
    assert_eq!(fixture.ask("SELECT count(*) FROM dead_letters"), "0");
}

/// Any order, copies, any batches: the same sums, and the reported increases make up the same.
fn totals_add_up(fixture: &mut StoreFixture, agent: &str, sends: &[usize], cuts: &[usize]) {
    let events: Vec<Event> = (0..12_usize)
        .map(|index| {
            let mut breach = breach(["a", "b", "c"][index % 3], index as u64 + 1);
            breach.raised_at = noon() + TimeDelta::days((index % 3 / 2) as i64);
            breach.excess_bytes = [5, 100, 7, 90, 20, 7, 1, 300, 8, 33, 300, 0][index];
            event(agent, index as u64 + 1, Body::BreachUpdated(breach))
        })
        .collect();
    // Each event is sent, and some once more.
    let sent: Vec<Event> = sends.iter().map(|index| events[index % events.len()].clone()).collect();
    let (mut rest, mut added) = (sent.as_slice(), 0);
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (head, tail) = rest.split_at(cut.min(rest.len()));
        rest = tail;
        if !head.is_empty() {
            added += fixture.store_events(head).added_totals.values().sum::<u64>();
        }
    }
    let sql = format!("SELECT CAST(day AS text), breaches, excess_bytes FROM totals WHERE agent = '{agent}'");
    assert_eq!(fixture.ask(&sql), "2026-11-20,2,390 2026-11-21,1,8", "{sends:?} {cuts:?}");
    assert_eq!(added, 398);
}

fn totals_in_any_order(mut fixture: StoreFixture, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let sends = Just((0..20).collect::<Vec<usize>>()).prop_shuffle();
    let cuts = proptest::collection::vec(1..6_usize, 0..8);
    let fixture = std::cell::RefCell::new((&mut fixture, 0));
    runner
        .run(&(sends, cuts), |(sends, cuts)| {
            let (fixture, count) = &mut *fixture.borrow_mut();
            *count += 1;
            totals_add_up(fixture, &format!("gw-{count}"), &sends, &cuts);
            Ok(())
        })
        .unwrap();
}

#[test]
fn sqlite_adds_up_the_same_totals_in_any_order() {
    totals_in_any_order(StoreFixture::sqlite(), 64);
}

#[test]
fn postgres_adds_up_the_same_totals_in_any_order() {
    let Some(postgres) = Postgres::or_skip("consumer_store::totals::postgres_adds_up_the_same_totals_in_any_order")
    else {
        return;
    };
    totals_in_any_order(StoreFixture::postgres(&postgres), 64);
}
