mod truth_tests;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta};

use super::*;
use crate::agent::counters::{ByteDelta, Counters, LinkKind, Packets};
use crate::agent::detector::limit::Level;
use crate::message::{Direction, Severity};

const SECOND: Duration = Duration::from_secs(1);
/// Bytes a second above and below the thresholds of [`limit`].
const OVER: u64 = 2_000;
const BELOW: u64 = 100;

fn limit(name: &str, scope: Scope) -> Limit {
    Limit {
        name: name.into(),
        scope,
        directions: vec![Direction::Rx],
        raise_at: Level::Rate(BitRate::from_bps(8_000)),
        clear_at: Level::Rate(BitRate::from_bps(7_200)),
        hold: Duration::ZERO,
        clear_hold: Duration::ZERO,
        severity: Severity::Warning,
        update_every: Duration::from_secs(60),
    }
}

fn on(pattern: &str) -> Scope {
    Scope::Interface(pattern.into())
}

/// A link that is counted in software: each reading is exact.
fn info(ifindex: u32, name: &str) -> LinkInfo {
    let speed = Speed::both(Some(BitRate::from_bps(1_000_000_000)));
    LinkInfo { speed, ..LinkInfo::new(ifindex, name, LinkKind::Ppp) }
}

fn host() -> Scope {
    Scope::Host(Vec::new())
}

struct Host {
    detector: Detector,
    second: u64,
    counters: BTreeMap<u32, [u64; 2]>,
    boot_id: &'static str,
    synced: Option<bool>,
    notices: Vec<String>,
}

impl Host {
    fn new(limits: Vec<Limit>, links: &[LinkInfo]) -> Self {
        let counters = BTreeMap::new();
        let detector = Detector::new(limits, SECOND, 7);
        let mut host = Self { detector, second: 1_000, counters, boot_id: "one", synced: None, notices: Vec::new() };
        let added = links.iter().map(|info| LinkChange::Added(info.clone(), AddReason::Appeared)).collect();
        host.tick(added, &links.iter().map(|info| (info.ifindex, 1)).collect::<Vec<_>>());
        host
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            agent: "a".into(),
            observed_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(self.second as i64),
            boot_id: self.boot_id.into(),
            monotonic_ms: self.second * 1_000,
            clock_synced: self.synced,
        }
    }

    /// Returns the events after each named link has received this many bytes more; the other links cannot be read.
    fn tick(&mut self, changes: Vec<LinkChange>, bytes: &[(u32, u64)]) -> Vec<Body> {
        self.tick_both(changes, &bytes.iter().map(|(ifindex, rx)| (*ifindex, [*rx, 0])).collect::<Vec<_>>())
    }

    /// As [`Self::tick`], with the bytes received and sent.
    fn tick_both(&mut self, changes: Vec<LinkChange>, bytes: &[(u32, [u64; 2])]) -> Vec<Body> {
        self.second += 1;
        let at = Duration::from_secs(self.second);
        let counters = bytes
            .iter()
            .map(|(ifindex, more)| {
                let counters = self.counters.entry(*ifindex).or_default();
                counters.iter_mut().zip(more).for_each(|(counter, more)| *counter += more);
                let [rx_bytes, tx_bytes] = *counters;
                Counters { ifindex: *ifindex, rx_bytes, tx_bytes, ..Counters::default() }
            })
            .collect();
        let reading = Reading { at, boottime: at, counters, changes, ..Reading::default() };
        let mut detections = Detections::default();
        self.detector.observe(&reading, &self.stamp(), &mut detections);
        self.notices.extend(detections.notices.iter().map(ToString::to_string));
        detections.bodies
    }

    fn carry(&mut self, bytes: &[(u32, u64)]) -> Vec<String> {
        self.tick(Vec::new(), bytes).iter().map(summary).collect()
    }

    /// As [`Self::carry`], where a recorder has subtracted the counters.
    fn record(&mut self, bytes: &[(u32, u64)]) -> Vec<String> {
        self.second += 1;
        let at = Duration::from_secs(self.second);
        let amount = |(ifindex, rx_bytes): &(u32, u64)| ByteDelta {
            ifindex: *ifindex,
            rx_bytes: *rx_bytes,
            tx_bytes: 0,
            elapsed: SECOND,
        };
        let reading = Reading { at, boottime: at, deltas: bytes.iter().map(amount).collect(), ..Reading::default() };
        let mut detections = Detections::default();
        self.detector.observe(&reading, &self.stamp(), &mut detections);
        detections.bodies.iter().map(summary).collect()
    }

    fn reconfigure(&mut self, limits: Vec<Limit>) -> Vec<String> {
        let mut detections = Detections::default();
        self.detector.reconfigure(limits, SECOND, &mut detections);
        detections.bodies.iter().map(summary).collect()
    }

    fn change(&mut self, change: LinkChange, bytes: &[(u32, u64)]) -> Vec<String> {
        self.tick(vec![change], bytes).iter().map(summary).collect()
    }
}

fn summary(body: &Body) -> String {
    let (interface, reason) = match body {
        Body::LinkAdded(link) | Body::LinkRemoved(link) | Body::LinkChanged(link) => {
            (link.interface.as_str(), &link.reason)
        }
        other => other.breach().map(|breach| (breach.interface.as_str(), &breach.reason)).unwrap(),
    };
    let reason = reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default();
    format!("{} {interface}{reason}", body.kind())
}

#[test]
fn a_breach_is_raised_and_cleared_on_each_link_that_a_limit_names() {
    let mut host = Host::new(vec![limit("wan", on("eth*"))], &[info(2, "eth0"), info(3, "eth1"), info(4, "wlan0")]);
    assert_eq!(host.carry(&[(2, OVER), (3, BELOW), (4, OVER)]), ["breach_raised eth0"]);
    assert_eq!(host.carry(&[(2, BELOW), (3, OVER), (4, OVER)]), ["breach_cleared eth0 below", "breach_raised eth1"]);
}

#[test]
fn the_events_of_one_breach_share_its_id() {
    let mut host = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
    let raised = host.tick(Vec::new(), &[(2, OVER)]);
    let raised_at = host.stamp().observed_at;
    let started_at = raised_at - TimeDelta::seconds(1);
    let cleared = host.tick(Vec::new(), &[(2, BELOW)]);
    let (raised, cleared) = (raised[0].breach().unwrap(), cleared[0].breach().unwrap());
    for breach in [raised, cleared] {
        assert_eq!((&breach.breach_id, breach.started_at), (&raised.breach_id, started_at));
        assert_eq!((breach.raised_at, breach.ended_at), (raised_at, raised_at));
    }
    assert_eq!((raised.rate_bps, raised.excess_bytes, raised.duration_ms), (16_000, 1_000, 1_000));
    assert_eq!((cleared.peak_bps, cleared.excess_bytes, cleared.duration_ms), (16_000, 1_000, 1_000));
}

#[test]
fn either_direction_has_a_breach_of_its_own() {
    let either = Limit { directions: vec![Direction::Rx, Direction::Tx], ..limit("wan", on("eth0")) };
    let mut host = Host::new(vec![either], &[info(2, "eth0")]);
    let mut raised = |bytes| {
        let bodies = host.tick_both(Vec::new(), &[(2, bytes)]);
        bodies.iter().map(|body| body.breach().unwrap().direction).collect::<Vec<_>>()
    };
    assert_eq!(raised([OVER, BELOW]), [Direction::Rx]);
    assert_eq!(raised([OVER, OVER]), [Direction::Tx]);
}

#[test]
fn a_link_that_goes_takes_its_breach_with_it_and_one_that_comes_is_reported() {
    let mut host = Host::new(vec![limit("wan", on("eth*"))], &[info(2, "eth0")]);
    host.carry(&[(2, OVER)]);
    let events = host.change(LinkChange::Removed(2, RemoveReason::Gone), &[]);
    assert_eq!(events, ["breach_cleared eth0 link_removed", "link_removed eth0 removed"]);
    let events = host.change(LinkChange::Added(info(5, "eth0"), AddReason::Appeared), &[(5, 9_999_999)]);
    assert_eq!(events, ["link_added eth0 added"], "its counters began somewhere: no breach");
}

#[test]
fn a_link_that_comes_or_goes_says_from_where_or_to_where() {
    let mut host = Host::new(Vec::new(), &[]);
    let mut said = |change| {
        let bodies = host.tick(vec![change], &[]);
        let reason = bodies[0].reason().map(ToString::to_string);
        (reason.unwrap_or_default(), bodies[0].detail().unwrap_or_default().to_owned())
    };
    for (came, left, reasons, details) in [
        (AddReason::Appeared, RemoveReason::Gone, ["added", "removed"], ["", ""]),
        (
            AddReason::RenamedFrom("old0".into()),
            RemoveReason::RenamedTo("new0".into()),
            ["renamed"; 2],
            ["was old0", "now new0"],
        ),
        (
            AddReason::Released,
            RemoveReason::Enslaved,
            ["added", "removed"],
            ["is no longer a port of a bond or team", "became a port of a bond or team"],
        ),
    ] {
        assert_eq!(said(LinkChange::Added(info(2, "eth0"), came)), (reasons[0].into(), details[0].into()));
        assert_eq!(said(LinkChange::Removed(2, left)), (reasons[1].into(), details[1].into()));
    }
}

/// Three readings over the limit in a row raise a breach; a reset, a gap or a lower reading before the third prevents it.
#[test]
fn whatever_is_not_judged_breaks_a_rise() {
    let held = |scope| Limit { hold: SECOND * 3, ..limit("wan", scope) };
    let rise = |disturb: &dyn Fn(&mut Host)| {
        let mut host = Host::new(vec![held(on("eth0"))], &[info(2, "eth0")]);
        let mut events: Vec<String> = (0..2).flat_map(|_| host.carry(&[(2, OVER)])).collect();
        disturb(&mut host);
        events.extend(host.carry(&[(2, OVER)]));
        events
    };
    assert_eq!(rise(&|_| {}), ["breach_raised eth0"]);
    assert_eq!(
        rise(&|host| {
            host.counters.insert(2, [0; 2]);
        }),
        [""; 0],
        "a reset"
    );
    let gap = |host: &mut Host| {
        host.second += 60;
        host.counters.get_mut(&2).unwrap()[0] += 60 * OVER;
    };
    assert_eq!(rise(&gap), [""; 0], "a gap, though as much was carried in it");
    assert_eq!(
        rise(&|host| {
            host.carry(&[(2, BELOW)]);
        }),
        [""; 0],
        "a reading below"
    );
}

#[test]
fn a_reading_that_failed_breaks_a_rise_only_where_no_later_one_covers_its_time() {
    let held = Limit { hold: SECOND * 3, ..limit("wan", on("eth0")) };
    let mut host = Host::new(vec![held.clone()], &[info(2, "eth0")]);
    host.carry(&[(2, OVER)]);
    assert!(host.carry(&[]).is_empty());
    assert_eq!(host.carry(&[(2, 2 * OVER)]), ["breach_raised eth0"]);

    let mut host = Host::new(vec![held], &[info(2, "eth0")]);
    let events =
        [true, true, false, true, true, true].map(|is_there| host.record(if is_there { &[(2, OVER)] } else { &[] }));
    assert_eq!(events.concat(), ["breach_raised eth0"]);
    assert_eq!(events[5].len(), 1, "an amount that is missing comes with no other");
}

#[test]
fn a_new_name_keeps_a_breach_where_the_limit_still_names_it() {
    let limits = || vec![limit("wan", on("eth*")), limit("first", on("eth0"))];
    let mut host = Host::new(limits(), &[info(2, "eth0")]);
    host.carry(&[(2, OVER)]);
    let events = host.change(LinkChange::Changed(info(2, "eth7")), &[(2, OVER)]);
    assert_eq!(events, ["breach_cleared eth0 link_renamed", "link_changed eth7 renamed"]);
    assert_eq!(host.carry(&[(2, BELOW)]), ["breach_cleared eth7 below"]);
}

#[test]
fn a_limit_follows_an_altname() {
    let mut host = Host::new(vec![limit("wan", on("uplink"))], &[info(2, "eth0")]);
    assert!(host.carry(&[(2, OVER)]).is_empty());
    let named = LinkInfo { altnames: vec!["uplink".into()], ..info(2, "eth0") };
    assert_eq!(host.change(LinkChange::Changed(named), &[(2, OVER)]), ["breach_raised eth0"]);
    assert_eq!(host.change(LinkChange::Changed(info(2, "eth0")), &[(2, OVER)]), ["breach_cleared eth0 link_renamed"]);
}

#[test]
fn the_host_is_the_sum_and_a_missing_link_neither_raises_nor_clears() {
    let mut host = Host::new(vec![limit("all", host())], &[info(2, "eth0"), info(3, "eth1")]);
    assert_eq!(host.carry(&[(2, 600), (3, 600)]), ["breach_raised *"]);
    assert!(host.carry(&[(2, 600)]).is_empty(), "half of it is no reason to clear");
    assert_eq!(host.carry(&[(2, 300), (3, 300)]), ["breach_cleared * below"]);
    assert_eq!(host.carry(&[(2, OVER)]), ["breach_raised *"], "what one link carries is over already");
}

#[test]
fn a_breach_of_the_host_ends_with_its_last_link() {
    let mut host = Host::new(vec![limit("all", host())], &[info(2, "eth0"), info(3, "eth1")]);
    assert_eq!(host.carry(&[(2, OVER), (3, 0)]), ["breach_raised *"]);
    let gone = |ifindex| LinkChange::Removed(ifindex, RemoveReason::Gone);
    assert_eq!(host.change(gone(3), &[(2, OVER)]), ["link_removed eth1 removed"]);
    assert_eq!(host.change(gone(2), &[]), ["link_removed eth0 removed", "breach_cleared * link_removed"]);
    let back = LinkChange::Added(info(4, "eth0"), AddReason::Appeared);
    assert_eq!(host.change(back, &[(4, 1)]), ["link_added eth0 added"]);
    assert_eq!(host.carry(&[(4, OVER)]), ["breach_raised *"]);
}

#[test]
fn a_breach_ends_where_another_source_calls_its_link_another_kind() {
    let mut host = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
    assert_eq!(host.carry(&[(2, OVER)]), ["breach_raised eth0"]);
    host.detector.expect_all_links();
    let other = LinkInfo { kind: LinkKind::Physical, ..info(2, "eth0") };
    let changes = host.change(LinkChange::Added(other, AddReason::Appeared), &[(2, OVER)]);
    let ended = ["breach_cleared eth0 link_removed", "link_removed eth0 removed", "link_added eth0 added"];
    assert_eq!(changes, ended);
}

#[test]
fn a_link_that_falls_silent_does_not_thin_out_what_the_others_carry() {
    let mut host = Host::new(vec![limit("all", host())], &[info(2, "eth0"), info(3, "eth1")]);
    assert_eq!(host.carry(&[(2, 100_000), (3, OVER)]), ["breach_raised *"]);
    for second in 1..=5 {
        assert!(host.carry(&[(2, 0), (3, OVER)]).is_empty(), "eth1 alone is over, second {second}");
    }
    let cleared = host.tick(Vec::new(), &[(2, 0), (3, BELOW)]);
    let breach = cleared[0].breach().unwrap();
    assert_eq!((breach.rate_bps, breach.peak_bps), (BELOW * 8, (100_000 + OVER) * 8));
    assert_eq!((breach.duration_ms, breach.measured_ms), (6_000, 6_000));
}

#[test]
fn a_breach_that_waits_to_be_taken_up_outlives_another_reading_of_the_configuration() {
    let (mut host, before) = restarted(true, Some(true), Some(false));
    assert!(host.carry(&[(2, OVER)]).is_empty(), "how long it was is unknown");
    assert!(host.reconfigure(vec![limit("wan", on("eth0")), limit("new", on("eth1"))]).is_empty());
    host.synced = Some(true);
    assert!(host.carry(&[(2, OVER)]).is_empty(), "it is not raised twice");
    let cleared = host.tick(Vec::new(), &[(2, BELOW)]);
    assert_eq!(cleared[0].breach().unwrap().breach_id, before.breach_id);
}

#[test]
fn another_configuration_keeps_breaches_and_rises_and_ends_those_of_limits_that_are_gone() {
    let slow = |name: &str, scope| Limit { hold: SECOND * 3, clear_hold: SECOND * 3, ..limit(name, scope) };
    let limits = || vec![limit("gone", on("eth0")), slow("link", on("eth*")), slow("all", host())];
    let mut host = Host::new(limits(), &[info(2, "eth0")]);
    assert_eq!(host.carry(&[(2, OVER)]), ["breach_raised eth0"]);
    host.carry(&[(2, OVER)]);
    assert_eq!(host.reconfigure(limits()[1..].to_vec()), ["breach_cleared eth0 limit_removed"]);
    host.detector.expect_all_links();
    let events = host.change(LinkChange::Added(info(2, "eth0"), AddReason::Appeared), &[(2, OVER)]);
    assert_eq!(events, ["breach_raised eth0", "breach_raised *"], "the third second of their rise");
    host.carry(&[(2, BELOW)]);
    host.carry(&[(2, BELOW)]);
    host.reconfigure(limits()[1..].to_vec());
    let cleared = host.tick(Vec::new(), &[(2, BELOW)]);
    for body in &cleared {
        let breach = body.breach().unwrap();
        assert_eq!((breach.duration_ms, breach.measured_ms, breach.excess_bytes), (3_000, 3_000, 3_000));
    }
    assert_eq!(cleared.len(), 2, "the third second of their fall");
}

#[test]
fn a_limit_that_is_gone_or_no_longer_judges_a_direction_ends_its_breaches() {
    let both = |scope| Limit { directions: vec![Direction::Rx, Direction::Total], ..limit("wan", scope) };
    for (scope, interface) in [(host(), "*"), (on("eth0"), "eth0")] {
        let mut host = Host::new(vec![both(scope.clone())], &[info(2, "eth0")]);
        assert_eq!(host.carry(&[(2, OVER)]).len(), 2);
        let gone = format!("breach_cleared {interface} limit_removed");
        assert_eq!(host.reconfigure(vec![limit("wan", scope.clone())]), [gone.as_str()]);
        assert!(host.carry(&[(2, OVER)]).is_empty(), "the other goes on");
        assert_eq!(host.reconfigure(vec![limit("new", scope)]), [gone.as_str()]);
    }
}

#[test]
fn another_interval_makes_no_gap_and_the_same_one_forgets_nothing() {
    let mut host = Host::new(vec![limit("wan", on("eth0"))], &[LinkInfo::new(2, "eth0", LinkKind::Physical)]);
    for _ in 0..10 {
        host.carry(&[(2, BELOW)]);
    }
    let verdict = |host: &Host| host.detector.links().next().unwrap().verdict;
    host.reconfigure(vec![limit("wan", on("eth0"))]);
    host.carry(&[(2, BELOW)]);
    assert_eq!(verdict(&host), "measured", "it has not to learn again");
    host.detector.reconfigure(Vec::new(), SECOND * 60, &mut Detections::default());
    host.second += 59;
    host.carry(&[(2, BELOW)]);
    assert_eq!(verdict(&host), "measured");
}

#[test]
fn a_link_that_the_new_configuration_does_not_watch_is_gone() {
    let mut host = Host::new(vec![limit("wan", on("eth*"))], &[info(2, "eth0"), info(3, "eth1")]);
    host.carry(&[(2, OVER), (3, BELOW)]);
    host.detector.expect_all_links();
    let events = host.change(LinkChange::Added(info(3, "eth1"), AddReason::Appeared), &[(3, BELOW)]);
    assert_eq!(events, ["breach_cleared eth0 link_removed", "link_removed eth0 removed"]);
}

#[test]
fn a_host_sums_what_interfaces_select_and_no_bytes_twice() {
    let mut host = Host::new(
        vec![limit("all", host()), limit("listed", Scope::Host(vec!["ppp*".into(), "vlan7".into()]))],
        &[
            info(2, "eth1"),
            LinkInfo { counted_by: vec![2], ..info(3, "ppp0") },
            LinkInfo { counted_by: vec![2], ..info(4, "vlan7") },
            LinkInfo { selected: false, ..info(5, "tun0") },
            info(6, "veth1"),
            LinkInfo { counted_by: vec![6], ..info(7, "veth2") },
        ],
    );
    let events = host.tick(Vec::new(), &[(2, 1_500), (3, 700), (4, 700), (5, 9_000), (6, 500), (7, 300)]);
    let rates: Vec<_> =
        events.iter().map(|body| body.breach().unwrap()).map(|b| (&*b.limit_name, b.rate_bps)).collect();
    assert_eq!(rates, [("all", 16_000), ("listed", 11_200)]);
}

#[test]
fn a_bridge_and_its_port_in_one_sum_are_named_once() {
    let bridge = LinkInfo { partly_counted_by: vec![2, 3], ..info(9, "br0") };
    let named = |patterns: &[&str]| Scope::Host(patterns.iter().map(|pattern| (*pattern).to_owned()).collect());
    let links = [info(2, "eth0"), info(3, "veth0"), bridge.clone()];
    let mut host = Host::new(vec![limit("all", named(&["eth0", "br0"])), limit("same", named(&["e*", "br0"]))], &links);
    let says = "the sum over the host has bytes of br0 twice, because eth0 is a port";
    assert!(host.notices.len() == 1 && host.notices[0].starts_with(says), "{:?}", host.notices);
    host.change(LinkChange::Changed(LinkInfo { up: false, ..bridge }), &[(2, 0), (3, 0), (9, 0)]);
    assert_eq!(host.notices.len(), 1, "{:?}", host.notices);
    let reload = |host: &mut Host, patterns: &[&str]| {
        let mut detections = Detections::default();
        host.detector.reconfigure(vec![limit("all", named(patterns))], SECOND, &mut detections);
        detections.notices.len()
    };
    assert_eq!(reload(&mut host, &["br0"]), 0);
    assert_eq!(reload(&mut host, &["eth0", "veth0"]), 0);
    assert_eq!(reload(&mut host, &["br0", "eth0", "veth0"]), 2);
}

#[test]
fn a_percentage_of_the_host_waits_for_a_link_that_is_up_and_not_for_an_unplugged_port() {
    let percent = Limit { raise_at: Level::Percent(1.0), clear_at: Level::Percent(0.9), ..limit("all", host()) };
    let unplugged = LinkInfo { speed: Speed::default(), up: false, ..info(3, "eth1") };
    let mut host = Host::new(vec![percent], &[info(2, "eth0"), unplugged.clone()]);
    assert_eq!(host.carry(&[(2, 2_000_000), (3, 0)]), ["breach_raised *"]);
    host.carry(&[(2, 0), (3, 0)]);
    assert!(host.notices.is_empty(), "{:?}", host.notices);
    host.change(LinkChange::Changed(LinkInfo { up: true, ..unplugged }), &[(2, 0), (3, 0)]);
    assert!(host.carry(&[(2, 2_000_000), (3, 0)]).is_empty());
    assert!(host.notices[0].contains("limit all: inactive on eth1, whose speed is unknown"), "{:?}", host.notices);
}

#[test]
fn a_busy_link_whose_counter_stands_for_a_tick_does_not_break_a_rise_of_the_host() {
    let rises = Limit { hold: SECOND * 3, ..limit("all", host()) };
    let slow = LinkInfo::new(2, "eth0", LinkKind::Physical);
    let mut host = Host::new(vec![rises], &[slow, info(3, "eth1")]);
    let mut events = Vec::new();
    for second in 0..40_u64 {
        events.extend(host.tick(Vec::new(), &[(2, if second % 2 == 0 { 3_000 } else { 0 }), (3, 100)]));
    }
    let breaches: Vec<_> = events.iter().filter_map(Body::breach).collect();
    assert_eq!(breaches.len(), 1, "{events:?}");
    assert_eq!((breaches[0].rate_bps, breaches[0].measured_ms), (12_800, 3_000));
}

#[test]
fn a_sum_waits_ten_seconds_for_a_link_and_is_then_judged_without_it() {
    let mut host =
        Host::new(vec![limit("all", host())], &[LinkInfo::new(2, "eth0", LinkKind::Physical), info(3, "eth1")]);
    host.carry(&[(2, 400), (3, BELOW)]);
    for second in 1..10 {
        assert!(host.carry(&[(2, 0), (3, OVER)]).is_empty(), "second {second}");
    }
    assert_eq!(host.carry(&[(2, 0), (3, OVER)]), ["breach_raised *"]);
}

#[test]
fn at_longer_intervals_a_sum_waits_longer_for_a_slow_link() {
    let limits = || vec![Limit { hold: SECOND * 30, update_every: SECOND * 600, ..limit("all", host()) }];
    let mut host = Host::new(limits(), &[LinkInfo::new(2, "eth0", LinkKind::Physical), info(3, "eth1")]);
    host.detector.reconfigure(limits(), SECOND * 5, &mut Detections::default());
    let mut events = Vec::new();
    for reading in 0..40_u64 {
        host.second += 4;
        events.extend(host.carry(&[(2, if reading % 4 == 0 { 40_000 } else { 0 }), (3, 500)]));
    }
    assert_eq!(events, ["breach_raised *"]);
}

#[test]
fn a_sum_without_a_slow_link_does_not_wait_for_it() {
    let named = |name: &str, pattern: &str| limit(name, Scope::Host(vec![pattern.to_owned()]));
    let slow = LinkInfo::new(2, "eth0", LinkKind::Physical);
    let mut host = Host::new(vec![named("all", "eth*"), named("fast", "eth1")], &[slow, info(3, "eth1")]);
    let events: Vec<_> =
        (0..40_u64).flat_map(|second| host.carry(&[(2, if second % 4 == 0 { 400 } else { 0 }), (3, OVER)])).collect();
    assert_eq!(events, ["breach_raised *"; 2], "and no reading of no time clears them");
    let last = host.detector.last_updates();
    let durations: Vec<_> = last.iter().map(|body| body.breach().unwrap().duration_ms).collect();
    assert_eq!(durations, [37_000, 40_000]);
    let kept = format!("{:?}", host.detector).matches("TrafficPiece").count();
    assert!(kept < 10, "{kept} readings are kept, though most were judged");
}

#[test]
fn amounts_are_judged_as_they_are() {
    let mut host = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
    host.second += 300;
    let at = Duration::from_secs(host.second);
    let deltas = vec![ByteDelta { ifindex: 2, rx_bytes: 600_000, tx_bytes: 0, elapsed: SECOND * 300 }];
    let mut detections = Detections::default();
    let reading = Reading { at, boottime: at, deltas, ..Reading::default() };
    host.detector.observe(&reading, &host.stamp(), &mut detections);
    let breach = detections.bodies[0].breach().unwrap();
    assert_eq!((breach.rate_bps, breach.duration_ms, breach.excess_bytes), (16_000, 300_000, 300_000));
}

#[test]
fn amounts_and_counters_are_those_of_their_link() {
    let links = [info(2, "eth0"), info(3, "eth1")];
    let mut host = Host::new(vec![limit("wan", on("*"))], &links);
    assert_eq!(host.record(&[(2, BELOW), (3, OVER)]), ["breach_raised eth1"]);
    assert_eq!(
        host.record(&[(3, BELOW), (2, OVER)]),
        ["breach_raised eth0", "breach_cleared eth1 below"],
        "in any order"
    );
    let mut host = Host::new(vec![limit("wan", on("*"))], &links);
    assert_eq!(host.carry(&[(3, OVER), (2, BELOW)]), ["breach_raised eth1"]);
}

#[test]
fn the_last_reading_of_each_link_is_known_with_the_limits_on_it() {
    let waits = Limit { raise_at: Level::Percent(80.0), directions: vec![Direction::Tx], ..limit("waits", on("eth0")) };
    let unknown = LinkInfo { speed: Speed::default(), ..info(2, "eth0") };
    let mut host = Host::new(vec![limit("wan", on("*")), waits], &[unknown, info(3, "eth1")]);
    host.carry(&[(2, 5), (3, 7)]);
    let raise_at = Some(BitRate::from_bps(8_000));
    let of_eth0 = [("wan", Direction::Rx, raise_at), ("waits", Direction::Tx, None)];
    let mut readings = host.detector.readings();
    for (name, bytes, speed, limits) in
        [("eth0", 5, Speed::default(), &of_eth0[..]), ("eth1", 7, info(3, "eth1").speed, &of_eth0[..1])]
    {
        let reading = readings.next().unwrap();
        let traffic = reading.verdict.judged().unwrap();
        assert_eq!((reading.interface, traffic.rx_bytes, reading.speed), (name, bytes, speed));
        assert_eq!(reading.counters.map(|counters| counters.rx_bytes), Some(1 + bytes));
        assert_eq!(reading.limits.collect::<Vec<_>>(), limits);
    }
    assert!(readings.next().is_none());
    let view = host.detector.links().next().unwrap();
    let thresholds = Thresholds { raise_at: BitRate::from_bps(8_000), clear_at: BitRate::from_bps(7_200) };
    assert_eq!(view.limits, [("wan", Direction::Rx, Some(thresholds)), ("waits", Direction::Tx, None)]);
}

#[test]
fn an_update_of_a_breach_that_falls_says_how_far_it_is() {
    let falls = Limit { clear_hold: SECOND * 5, update_every: SECOND, ..limit("wan", on("eth0")) };
    let mut host = Host::new(vec![falls], &[info(2, "eth0")]);
    host.carry(&[(2, OVER)]);
    let details: Vec<_> = [OVER, BELOW, BELOW, BELOW]
        .map(|bytes| {
            let bodies = host.tick(Vec::new(), &[(2, bytes)]);
            bodies[0].breach().unwrap().detail.clone()
        })
        .to_vec();
    assert_eq!(details[0], None);
    assert_eq!(details[3].as_deref(), Some("below the limit for 3 s, clears after 5 s"));
}

#[test]
fn a_link_that_goes_down_and_up_is_reported_once_a_minute_with_what_lasts() {
    let mut host = Host::new(Vec::new(), &[info(2, "eth0")]);
    let state = |up| LinkChange::Changed(LinkInfo { up, ..info(2, "eth0") });
    assert_eq!(host.change(state(false), &[(2, 0)]), ["link_changed eth0 down"]);
    for _ in 0..29 {
        assert!(host.change(state(true), &[(2, 0)]).is_empty());
        assert!(host.change(state(false), &[(2, 0)]).is_empty());
    }
    assert!(host.change(state(true), &[(2, 0)]).is_empty());
    assert_eq!(host.carry(&[(2, 0)]), ["link_changed eth0 up"]);
}

#[test]
fn readings_that_are_not_judged_are_counted_and_logged_at_a_sane_rate() {
    let mut host = Host::new(Vec::new(), &[info(2, "eth0")]);
    for _ in 0..3 {
        host.carry(&[(2, 100)]);
        host.counters.insert(2, [0; 2]);
        host.carry(&[(2, 10)]);
        host.carry(&[(2, 10)]);
    }
    assert_eq!(host.notices, ["eth0: readings not evaluated: 1 reset"]);
    for _ in 0..52 {
        host.carry(&[(2, 10)]);
    }
    assert_eq!(host.notices.len(), 1, "59 seconds after it");
    host.carry(&[(2, 10)]);
    assert_eq!(host.notices[1..], ["eth0: readings not evaluated: 5 reset"]);
    let link = host.detector.links().next().unwrap();
    assert_eq!((link.unjudged.get("reset"), link.traffic.unwrap().rx_bytes), (Some(&6), 10));
}

#[test]
fn one_pause_of_the_host_is_one_line() {
    let names: Vec<String> = (2..22).map(|nth| format!("eth{nth}")).collect();
    let links: Vec<LinkInfo> = (2..).zip(&names).map(|(ifindex, name)| info(ifindex, name)).collect();
    let mut host = Host::new(Vec::new(), &links);
    let all: Vec<_> = links.iter().map(|link| (link.ifindex, 100)).collect();
    host.carry(&all);
    host.second += 10;
    host.counters.insert(7, [0; 2]);
    host.carry(&all);
    assert_eq!(
        host.notices,
        [
            "eth2, eth3, eth4, eth5, eth6, eth8, eth9, eth10 and 11 more: readings of each not evaluated: 1 gap",
            "eth7: readings not evaluated: 1 reset"
        ]
    );
    host.second += 70;
    host.carry(&all[..2]);
    assert_eq!(host.notices[2], "eth2, eth3: readings of each not evaluated: 1 gap");
    assert_eq!(host.notices.len(), 4, "the others were not read: {:?}", host.notices);
}

#[test]
fn an_open_breach_that_lasted_longer_than_was_reported_has_a_last_update() {
    let falls = Limit { clear_hold: SECOND * 5, update_every: SECOND * 4, ..limit("wan", on("eth0")) };
    let sum = Limit { raise_at: Level::Rate(BitRate::from_bps(9_000)), ..limit("all", host()) };
    let mut host = Host::new(vec![falls, sum], &[info(2, "eth0")]);
    let last = |host: &Host| -> Vec<(String, u64)> {
        let updates = host.detector.last_updates();
        assert!(updates.iter().all(|body| matches!(body, Body::BreachUpdated(_))), "{updates:?}");
        updates
            .iter()
            .filter_map(Body::breach)
            .map(|breach| (breach.interface.to_string(), breach.duration_ms))
            .collect()
    };
    assert_eq!(last(&host), []);
    host.carry(&[(2, OVER)]);
    assert_eq!(last(&host), [], "raised just now");
    host.carry(&[(2, OVER)]);
    host.carry(&[(2, OVER)]);
    assert_eq!(last(&host), [("eth0".to_owned(), 3_000), ("*".to_owned(), 3_000)]);
    host.carry(&[(2, BELOW)]);
    assert_eq!(last(&host), [("eth0".to_owned(), 3_000)], "the other one was cleared");
    assert_eq!(host.carry(&[(2, BELOW)]), ["breach_updated eth0"]);
    assert_eq!(last(&host), [], "it was reported, and it fell meanwhile");
}

#[test]
fn a_partial_reading_leaves_the_other_links_as_they_are() {
    let mut host = Host::new(vec![limit("wan", on("*"))], &[info(2, "eth0"), info(3, "eth1")]);
    assert_eq!(host.carry(&[(2, OVER), (3, OVER)]), ["breach_raised eth0", "breach_raised eth1"]);
    host.second += 1;
    let at = Duration::from_secs(host.second);
    let counters = vec![Counters { ifindex: 3, ..Counters::default() }];
    let reading = Reading { at, boottime: at, counters, is_partial: true, ..Reading::default() };
    host.detector.observe(&reading, &host.stamp(), &mut Detections::default());
    let links: Vec<_> =
        host.detector.links().map(|link| (link.verdict, link.unjudged.contains_key("unread"))).collect();
    assert_eq!(links, [("measured", false), ("reset", false)]);
    assert_eq!(host.carry(&[(2, 0), (3, 0)]), ["breach_cleared eth0 below"]);
}

#[test]
fn a_speed_that_the_driver_names_too_low_is_doubted_aloud_and_the_traffic_judged() {
    let slow =
        LinkInfo { speed: Speed::both(Some(BitRate::from_bps(1_000))), ..LinkInfo::new(2, "eth0", LinkKind::Physical) };
    let tun = LinkInfo {
        kind: LinkKind::Other("tun".into()),
        ..LinkInfo { ifindex: 3, name: "tun0".into(), ..slow.clone() }
    };
    let bond = LinkInfo { ifindex: 4, name: "bond0".into(), kind: LinkKind::Bond, ..slow.clone() };
    let mut host = Host::new(vec![limit("wan", on("*"))], &[slow, tun, bond]);
    let mut events = Vec::new();
    for second in 0..20_u64 {
        host.second += 1;
        let at = Duration::from_secs(host.second);
        let counters = [2, 3, 4].map(|ifindex| Counters {
            ifindex,
            rx_bytes: second * OVER,
            packets: Some(Packets { rx: second * 2, tx: 0 }),
            ..Counters::default()
        });
        let reading = Reading { at, boottime: at, counters: counters.to_vec(), ..Reading::default() };
        let mut detections = Detections::default();
        host.detector.observe(&reading, &host.stamp(), &mut detections);
        events
            .extend(detections.bodies.iter().filter(|body| body.kind() == "breach_raised").map(super::tests::summary));
        host.notices.extend(detections.notices.iter().map(ToString::to_string));
    }
    events.sort();
    assert_eq!(events, ["breach_raised bond0", "breach_raised eth0", "breach_raised tun0"]);
    let doubts: Vec<_> = host.notices.iter().filter(|notice| notice.contains("probably wrong")).collect();
    assert!(doubts.len() == 1 && doubts[0].starts_with("eth0 carries 16.0 kbit/s"), "{:?}", host.notices);
}

#[test]
fn a_speed_is_doubted_until_there_is_another() {
    let with = |bps, up| LinkInfo {
        speed: Speed::both(Some(BitRate::from_bps(bps))),
        up,
        ..LinkInfo::new(2, "eth0", LinkKind::Physical)
    };
    let mut host = Host::new(Vec::new(), &[with(1_000, true)]);
    for _ in 0..20 {
        host.carry(&[(2, OVER)]);
    }
    let doubts = |host: &Host| host.detector.links().next().unwrap().doubts_speed;
    assert!(doubts(&host));
    host.change(LinkChange::Changed(with(1_000, false)), &[(2, OVER)]);
    assert!(doubts(&host), "the speed has not changed");
    host.change(LinkChange::Changed(with(1_000_000, false)), &[(2, OVER)]);
    assert!(!doubts(&host));
}

#[test]
fn a_link_that_is_never_exact_is_probed_rarely_and_a_new_one_afresh() {
    // Counts the readings of a busy link after which it is to be probed; at no probe has its counter moved.
    let probes = |host: &mut Host, readings: u64| {
        let probe = |_: &u64| {
            host.carry(&[(2, OVER)]);
            let (wants, at) = (host.detector.wants_probe(), Duration::from_secs(host.second) + SECOND / 50);
            let [rx_bytes, _] = host.counters[&2];
            let counters = vec![Counters { ifindex: 2, rx_bytes, ..Counters::default() }];
            let reading = Reading { at, boottime: at, counters, ..Reading::default() };
            host.detector.probe(&reading, &mut Detections::default());
            wants
        };
        (0..readings).filter(probe).count()
    };
    let bond = LinkInfo::new(2, "bond0", LinkKind::Bond);
    let mut host = Host::new(Vec::new(), std::slice::from_ref(&bond));
    assert_eq!(probes(&mut host, 100), 100);
    assert_eq!(probes(&mut host, 640), 10);
    host.change(LinkChange::Removed(2, RemoveReason::Gone), &[]);
    host.change(LinkChange::Added(bond, AddReason::Appeared), &[(2, 1)]);
    assert_eq!(probes(&mut host, 100), 100);
}

#[test]
fn a_percentage_waits_for_the_speed_and_says_so() {
    let percent = Limit {
        raise_at: Level::Percent(1.0),
        clear_at: Level::Percent(0.9),
        directions: vec![Direction::Rx, Direction::Tx],
        ..limit("wan", on("eth0"))
    };
    let unknown = LinkInfo { speed: Speed::default(), ..info(2, "eth0") };
    let mut host = Host::new(vec![percent, limit("none", on("ppp*"))], &[unknown]);
    assert!(host.notices[0].contains("inactive on eth0, whose speed is unknown"), "{:?}", host.notices);
    assert!(host.notices[1].contains("no link matches interface = \"ppp*\""), "{:?}", host.notices);
    assert!(host.carry(&[(2, 5_000_000)]).is_empty());
    assert_eq!(host.change(LinkChange::Changed(info(2, "eth0")), &[(2, 5_000_000)]), ["breach_raised eth0"]);
    assert!(host.notices[2].contains("raise_at is 10.0 Mbit/s"), "{:?}", host.notices);
    assert_eq!(host.notices.len(), 3, "each is said once");
}

#[test]
fn a_breach_outlives_the_speed_that_its_limit_is_a_percentage_of() {
    let percent = Limit { raise_at: Level::Percent(1.0), clear_at: Level::Percent(0.9), ..limit("wan", on("eth0")) };
    let mut host = Host::new(vec![percent], &[info(2, "eth0")]);
    assert_eq!(host.carry(&[(2, 2_000_000)]), ["breach_raised eth0"]);
    let unknown = LinkInfo { speed: Speed::default(), ..info(2, "eth0") };
    assert!(host.change(LinkChange::Changed(unknown), &[(2, 2_000_000)]).is_empty());
    assert_eq!(host.carry(&[(2, 0)]), ["breach_cleared eth0 below"]);
}

#[test]
fn a_percentage_of_the_host_has_no_base_where_no_link_is_up_or_one_way_is_unknown() {
    let percent = || Limit { raise_at: Level::Percent(1.0), clear_at: Level::Percent(0.9), ..limit("all", host()) };
    let unplugged = |ifindex, name, speed| LinkInfo { speed, up: false, ..info(ifindex, name) };
    let mut host = Host::new(vec![percent()], &[unplugged(2, "eth0", Speed::default())]);
    host.carry(&[(2, 0)]);
    assert!(host.notices[0].contains("inactive on the host's links"), "{:?}", host.notices);

    let one_way = Speed { tx: None, ..info(3, "eth1").speed };
    let total = Limit { directions: vec![Direction::Total], ..percent() };
    let mut host = Host::new(vec![total.clone()], &[info(2, "eth0"), unplugged(3, "eth1", one_way)]);
    host.carry(&[(2, 0), (3, 0)]);
    assert!(host.notices.is_empty(), "{:?}", host.notices);
    let mut host = Host::new(vec![total], &[info(2, "eth0"), LinkInfo { speed: one_way, ..info(3, "eth1") }]);
    host.carry(&[(2, 0), (3, 0)]);
    assert!(host.notices[0].contains("inactive on eth1"), "{:?}", host.notices);
}

/// Returns a host whose agent ended during a breach and starts again 100 s later, and that breach as it was raised.
fn restarted(reboot: bool, was_synced: Option<bool>, synced: Option<bool>) -> (Host, Breach) {
    let mut before = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
    before.synced = was_synced;
    let raised = before.tick(Vec::new(), &[(2, OVER)]);
    let stamp = before.stamp();
    let breach = raised[0].breach().unwrap().clone();

    let mut detector = Detector::new(vec![limit("wan", on("eth0"))], SECOND, 8);
    let mut host = Host { second: before.second + 99, synced, ..before };
    if reboot {
        host.boot_id = "two";
    }
    detector.resume(vec![(breach, stamp)], Duration::from_secs(300), &host.stamp());
    host.detector = detector;
    let events = host.change(LinkChange::Added(info(2, "eth0"), AddReason::Appeared), &[(2, 0)]);
    assert!(events.is_empty(), "{events:?}");
    (host, raised[0].breach().unwrap().clone())
}

#[test]
fn a_breach_goes_on_after_a_restart() {
    for reboot in [false, true] {
        let synced = reboot.then_some(true);
        let (mut host, before) = restarted(reboot, synced, synced);
        assert!(host.carry(&[(2, OVER)]).is_empty(), "it is not raised twice");
        let cleared = host.tick(Vec::new(), &[(2, BELOW)]);
        let cleared = cleared[0].breach().unwrap();
        assert_eq!((&cleared.breach_id, cleared.raised_at), (&before.breach_id, before.raised_at));
        assert_eq!((&cleared.reason, cleared.started_at), (&Some(Reason::Below), before.started_at));
        // One second before the pause, 100 of it, which end at the first reading after the restart, and one after that.
        assert_eq!((cleared.duration_ms, cleared.measured_ms), (102_000, 2_000));
        assert_eq!(cleared.ended_at - cleared.started_at, TimeDelta::seconds(102));
        assert_eq!((cleared.excess_bytes, cleared.mean_bps), (before.excess_bytes + 1_000, 16_000));
    }
}

#[test]
fn open_breaches_are_those_that_go_on_and_those_that_wait() {
    let (mut host, before) = restarted(true, Some(true), Some(false));
    let open = |host: &Host| host.detector.open_breaches(&host.stamp());
    host.carry(&[(2, OVER)]);
    let waiting = open(&host);
    assert_eq!(waiting.len(), 1);
    assert_eq!((&waiting[0].0, waiting[0].1.boot_id.as_str()), (&before, "one"), "as it was kept");
    host.synced = Some(true);
    host.carry(&[(2, OVER)]);
    let resumed = open(&host);
    assert_eq!(resumed.len(), 1);
    assert_eq!((&resumed[0].0.breach_id, &resumed[0].1), (&before.breach_id, &host.stamp()));
    host.carry(&[(2, BELOW)]);
    assert_eq!(open(&host), []);
}

#[test]
fn a_breach_ends_as_interrupted_when_its_time_is_over_or_the_clock_is_behind() {
    let mut before = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
    let breach = before.tick(Vec::new(), &[(2, OVER)])[0].breach().unwrap().clone();
    before.synced = Some(true);
    let open = (breach, before.stamp());
    for (second, boot_id) in [(before.second + 400, "one"), (before.second + 400, "two"), (before.second - 50, "two")] {
        let mut detector = Detector::new(vec![limit("wan", on("eth0"))], SECOND, 8);
        let mut host = Host::new(Vec::new(), &[]);
        (host.second, host.boot_id, host.synced) = (second, boot_id, Some(true));
        detector.resume(vec![open.clone()], Duration::from_secs(300), &host.stamp());
        host.detector = detector;
        assert_eq!(host.carry(&[]), ["breach_cleared eth0 interrupted"]);
        assert!(host.carry(&[]).is_empty(), "once");
    }
}

#[test]
fn without_a_clock_a_breach_waits_and_is_then_judged() {
    for synced in [Some(false), None] {
        let (mut host, _) = restarted(true, Some(true), synced);
        assert!(host.carry(&[(2, OVER)]).is_empty(), "nobody knows how long it was");
        host.synced = Some(true);
        assert!(host.carry(&[(2, OVER)]).is_empty(), "it goes on");
        assert_eq!(host.carry(&[(2, BELOW)]), ["breach_cleared eth0 below"]);

        let (mut host, _) = restarted(true, Some(true), synced);
        host.second += 400;
        assert_eq!(host.carry(&[]), ["breach_cleared eth0 interrupted"]);
    }
}

#[test]
fn a_breach_of_another_boot_whose_clock_was_never_right_ends_at_once() {
    for was_synced in [Some(false), None] {
        let mut before = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
        let breach = before.tick(Vec::new(), &[(2, OVER)])[0].breach().unwrap().clone();
        before.synced = was_synced;
        let mut host = Host::new(Vec::new(), &[]);
        (host.second, host.boot_id, host.synced) = (before.second + 10, "two", Some(true));
        host.detector = Detector::new(vec![limit("wan", on("eth0"))], SECOND, 8);
        host.detector.resume(vec![(breach, before.stamp())], Duration::from_secs(300), &host.stamp());
        assert_eq!(host.carry(&[]), ["breach_cleared eth0 interrupted"]);
    }
}

#[test]
fn a_limit_that_is_no_longer_configured_ends_its_breach() {
    let (mut host, _) = restarted(false, None, None);
    host.detector.limits[0].name = "another".into();
    assert_eq!(host.carry(&[]), ["breach_cleared eth0 limit_removed"]);
}

#[test]
fn a_limit_that_a_reload_adds_begins_at_the_same_reading_on_a_link_and_on_the_host() {
    for others in [Vec::new(), vec![limit("other", host())]] {
        let mut bench = Host::new(others.clone(), &[info(1, "a"), info(2, "b")]);
        (0..3).for_each(|_| drop(bench.carry(&[(1, BELOW), (2, BELOW)])));
        let more = [limit("link", on("a")), limit("sum", host())];
        bench.reconfigure(others.iter().cloned().chain(more).collect());
        let last = bench.stamp().observed_at;
        let raised = bench.tick(Vec::new(), &[(1, OVER), (2, BELOW)]);
        let began =
            raised.iter().filter_map(Body::breach).map(|breach| (breach.limit_name.as_str(), breach.started_at));
        let began: BTreeMap<_, _> = began.collect();
        assert_eq!((began.get("link"), began.get("sum")), (Some(&last), Some(&last)), "{began:?}");
        let sum = raised.iter().filter_map(Body::breach).find(|breach| breach.limit_name == "sum").unwrap();
        assert_eq!((sum.duration_ms, sum.rate_bps), (1_000, (OVER + BELOW) * 8));
    }
}
