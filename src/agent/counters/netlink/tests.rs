//! Tests against the kernel that runs them, on its loopback, which every namespace has.

use std::time::Duration;

use super::super::moment::tests::BusyClock;
use super::super::{AddReason, LinkChange};
use super::*;
use crate::process::clock::SystemClock;

fn source(pattern: &str) -> Netlink {
    Netlink::open(Path::new("/"), InterfaceFilter::new(&[pattern.to_owned()], &[], &[])).unwrap()
}

fn read(source: &mut Netlink) -> Reading {
    let mut reading = Reading::default();
    source.read(&SystemClock::default(), &mut reading).unwrap();
    reading
}

#[test]
fn the_loopback_is_there_and_told_once() {
    let mut source = source("lo");
    let first = read(&mut source);
    let [LinkChange::Added(link, AddReason::Appeared)] = &first.changes[..] else { panic!("{:?}", first.changes) };
    assert_eq!((link.name.as_str(), &link.kind, link.ifindex), ("lo", &LinkKind::Loopback, 1));
    let second = read(&mut source);
    assert!(second.at > first.at && second.boottime >= first.boottime);
    assert_eq!((second.changes.len(), second.counters.len()), (0, 1));
    assert!(second.counters[0].rx_bytes >= first.counters[0].rx_bytes);
}

#[test]
fn an_answer_longer_than_the_buffer_is_asked_for_again() {
    let mut source = source("lo");
    source.buffer = Buffer::of(16);
    // The table, too, which has longer messages.
    source.socket = None;
    let reading = read(&mut source);
    assert_eq!((reading.counters.len(), reading.changes.len()), (1, 1));
    assert_eq!(read(&mut source).counters.len(), 1);
}

#[test]
fn one_by_one_says_the_same_as_all_at_once() {
    let mut source = source("lo");
    let all = read(&mut source);
    source.plan = Plan::PerLink { requests: get_stats_of_each([1].into_iter()), count: 1 };
    for _ in 0..3 {
        let one = read(&mut source);
        assert_eq!((one.counters.len(), one.counters[0].ifindex), (1, 1));
        assert!(one.counters[0].rx_bytes >= all.counters[0].rx_bytes);
    }
}

#[test]
fn a_link_that_went_away_is_left_out() {
    let mut source = source("lo");
    read(&mut source);
    let requests = get_stats_of_each([u32::MAX >> 1, 1, (u32::MAX >> 1) - 1].into_iter());
    source.plan = Plan::PerLink { requests, count: 3 };
    assert_eq!(read(&mut source).counters.len(), 1);
    source.plan = Plan::PerLink { requests: Vec::new(), count: 0 };
    assert_eq!(read(&mut source).counters, []);
}

#[test]
fn after_a_failure_it_is_usable() {
    let mut source = source("lo");
    read(&mut source);
    // A request that the kernel refuses: a family of statistics that does not exist.
    let mut requests = get_stats_of_each([1].into_iter());
    requests[4..6].copy_from_slice(&u16::MAX.to_ne_bytes());
    source.plan = Plan::PerLink { requests, count: 1 };
    let mut reading = Reading::default();
    let error = source.read(&SystemClock::default(), &mut reading).unwrap_err();
    assert!(matches!(error, CounterError::System { .. }), "{error}");
    assert_eq!(reading, Reading::default());
    source.plan = Plan::Dump;
    assert_eq!(read(&mut source).counters.len(), 1);
}

#[test]
fn losing_what_was_told_changes_nothing() {
    let mut source = source("lo");
    read(&mut source);
    source.socket = None;
    let reading = read(&mut source);
    assert_eq!((reading.counters.len(), reading.changes.len()), (1, 0));
    assert!(source.is_synced && source.socket.is_some());
}

#[test]
fn a_port_is_one_of_a_bond_or_team_and_of_no_other_master() {
    for (slave_kind, aggregate, bridge) in [
        ("bond", Some(7), None),
        ("team", Some(7), None),
        ("bridge", None, Some(7)),
        ("vrf", None, None),
        ("", None, None),
    ] {
        let (slave_kind, lower) = (slave_kind.as_bytes(), Some(9));
        let link =
            LinkMessage { ifindex: 5, name: b"eth0", slave_kind, master: Some(7), lower, ..LinkMessage::default() };
        let (info, attachment) = link_info(&link);
        assert_eq!((info.enslaved, attachment), (aggregate.is_some(), Attachment { lower, aggregate, bridge }));
    }
    let (info, _) = link_info(&LinkMessage { kind: b"team", ..LinkMessage::default() });
    assert_eq!(info.kind, LinkKind::Team);
}

#[test]
fn a_slow_reading_is_stamped_by_both_clocks_at_one_moment() {
    let mut source = source("lo");
    let mut reading = Reading::default();
    source.read(&BusyClock::new(&[0, 0, 0, 250, 0, 120]), &mut reading).unwrap();
    assert!(reading.at.abs_diff(reading.boottime) < Duration::from_millis(2), "{reading:?}");
}
