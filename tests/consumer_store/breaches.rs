//! A breach is as its last event says, in whatever order and batches its events come.

use chrono::TimeDelta;
use highwater::message::{Body, Breach, Direction, Epoch, Event};
use proptest::prelude::*;

use super::{StoreFixture, on_both};
use crate::support::events::{breach, event, noon, started};
use crate::support::postgres::Postgres;
use crate::support::stores::StoreDatabase;

on_both!("consumer_store::breaches":
    a_breach_left_open_by_a_former_epoch_is_unknown_at_once,
    a_breach_of_both_directions_is_a_row,
    an_open_breach_is_open,
    a_falling_breach_is_as_its_last_event_says,
);

/// An agent that has lost its journal comes back in the same batch as the breach that it left open.
fn a_breach_left_open_by_a_former_epoch_is_unknown_at_once(fixture: &mut StoreFixture) {
    let raised = event("gw", 1, Body::BreachRaised(breach("b", 3)));
    let mut anew = event("gw", 1, started());
    anew.id.epoch = Epoch(7);
    anew.stamp.observed_at += TimeDelta::seconds(60);
    fixture.store_events(&[raised, anew]);
    assert_eq!(fixture.ask("SELECT breach_id, state FROM breaches"), "b,unknown");
    assert_eq!(fixture.ask("SELECT count(*) FROM open_breaches"), "0");
    // A message of the former epoch that comes late, as from `dead-letters retry`, opens nothing.
    fixture.store_events(&[event("gw", 2, Body::BreachUpdated(breach("b", 4)))]);
    assert_eq!(fixture.ask("SELECT duration_ms, state FROM breaches"), "4000,unknown");
    // The other way round it is open: the epoch was there before the breach.
    let mut before = event("other", 1, started());
    before.id.epoch = Epoch(7);
    before.stamp.observed_at -= TimeDelta::seconds(60);
    fixture.store_events(&[before, event("other", 1, Body::BreachRaised(breach("c", 3)))]);
    assert_eq!(fixture.ask("SELECT breach_id FROM open_breaches"), "c");
}

/// The sum of received and sent has limits, too.
fn a_breach_of_both_directions_is_a_row(fixture: &mut StoreFixture) {
    let both = Breach { direction: Direction::Total, ..breach("b", 3) };
    let applied = fixture.store_events(&[event("gw", 1, Body::BreachRaised(both))]);
    assert_eq!((applied.inserted, applied.rejected.len()), (1, 0), "{applied:?}");
    assert_eq!(fixture.ask("SELECT direction FROM breaches"), "total");
    assert_eq!(fixture.ask("SELECT direction, breaches FROM totals"), "total,1");
}

fn an_open_breach_is_open(fixture: &mut StoreFixture) {
    fixture.store_events(&[
        event("gw", 1, Body::BreachRaised(breach("one", 1))),
        event("gw", 2, Body::BreachRaised(breach("two", 1))),
        event("gw", 3, Body::BreachUpdated(breach("two", 5))),
        event("gw", 4, Body::BreachCleared(breach("two", 9))),
    ]);
    let sql = "SELECT breach_id, state, CASE WHEN cleared_at IS NULL THEN 0 ELSE 1 END, duration_ms, peak_bps, excess_bytes \
               FROM breaches";
    assert_eq!(fixture.ask(sql), "one,open,0,1000,90000001,125 two,cleared,1,9000,90000009,1125");
    let sql = match fixture.database {
        StoreDatabase::Sqlite(_) => {
            "SELECT breach_id, CAST(lasted * 1000 AS integer) FROM breaches WHERE cleared_at = last_observed_at"
        }
        StoreDatabase::Postgres(_) => {
            "SELECT breach_id, (extract(epoch FROM lasted) * 1000)::bigint FROM breaches WHERE cleared_at = last_observed_at"
        }
    };
    assert_eq!(fixture.ask(sql), "two,9000", "a clear is when it was judged, and the breach as long as it was over");
    // Longer than any interval.
    let mut endless = breach("endless", 1);
    endless.duration_ms = i64::MAX as u64;
    fixture.store_events(&[event("gw", 5, Body::BreachUpdated(endless))]);
    assert_eq!(fixture.ask("SELECT count(lasted) FROM breaches"), "3");
}

/// While a breach falls, its duration stays the same: the last event is then known by its number, whatever the clock shows; and
/// between two journals by the time.
fn a_falling_breach_is_as_its_last_event_says(fixture: &mut StoreFixture) {
    let falling = |name: &str, epoch, seq, second: i64| {
        let mut event = event("gw", seq, Body::BreachUpdated(breach(name, 9)));
        event.id.epoch = Epoch(epoch);
        event.stamp.observed_at = noon() + TimeDelta::seconds(second);
        event
    };
    // The clock is set back between two events of a journal; another journal, whose epoch is smaller, goes on.
    let told = |name: &str, seq| {
        [falling(name, 0x5f0c, seq, 3_600), falling(name, 0x5f0c, seq + 1, 60), falling(name, 1, seq, 7_200)]
    };
    let [first, second, third] = told("a", 1);
    fixture.store_events(&[first, second]);
    assert_eq!(fixture.ask("SELECT epoch, seq FROM breach_state"), "0000000000005f0c,2");
    fixture.store_events(&[third]);
    assert_eq!(fixture.ask("SELECT epoch, seq FROM breach_state"), "0000000000000001,1");
    // In other batches, and the other way round.
    for event in told("b", 3).into_iter().rev() {
        fixture.store_events(&[event]);
    }
    let [first, second, _] = told("c", 5);
    fixture.store_events(&[second]);
    fixture.store_events(&[first]);
    let sql = "SELECT breach_id, epoch, seq FROM breach_state";
    assert_eq!(fixture.ask(sql), "a,0000000000000001,1 b,0000000000000001,3 c,0000000000005f0c,6");
}

/// Events of a breach in any order and any batches give the same state.
fn breaches_merge_in_any_order(fixture: &mut StoreFixture, name: &str, order: &[usize], cuts: &[usize]) {
    let events: Vec<Event> = (0..8_u64)
        .map(|index| {
            let breach = breach(name, index + 1);
            let body = match index {
                0 => Body::BreachRaised(breach),
                7 => Body::BreachCleared(breach),
                _ => Body::BreachUpdated(breach),
            };
            event(name, index + 1, body)
        })
        .collect();
    let mut rest = order;
    for cut in cuts {
        let (head, tail) = rest.split_at((*cut).min(rest.len()));
        rest = tail;
        if !head.is_empty() {
            fixture.store_events(&head.iter().map(|index| events[*index].clone()).collect::<Vec<_>>());
        }
    }
    if !rest.is_empty() {
        fixture.store_events(&rest.iter().map(|index| events[*index].clone()).collect::<Vec<_>>());
    }
    let sql = format!("SELECT seq, duration_ms, peak_bps FROM breach_state WHERE breach_id = '{name}'");
    assert_eq!(fixture.ask(&sql), "8,8000,90000008", "{order:?} {cuts:?}");
}

fn in_any_order(mut fixture: StoreFixture, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let order = Just((0..8).collect::<Vec<usize>>()).prop_shuffle();
    let cuts = proptest::collection::vec(1..4_usize, 0..4);
    let fixture = std::cell::RefCell::new((&mut fixture, 0));
    runner
        .run(&(order, cuts), |(order, cuts)| {
            let (fixture, count) = &mut *fixture.borrow_mut();
            *count += 1;
            breaches_merge_in_any_order(fixture, &format!("b{count}"), &order, &cuts);
            Ok(())
        })
        .unwrap();
}

#[test]
fn sqlite_merges_breaches_in_any_order() {
    in_any_order(StoreFixture::sqlite(), 64);
}

#[test]
fn postgres_merges_breaches_in_any_order() {
    let Some(postgres) = Postgres::or_skip("consumer_store::breaches::postgres_merges_breaches_in_any_order") else {
        return;
    };
    in_any_order(StoreFixture::postgres(&postgres), 64);
}
