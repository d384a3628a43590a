mod truth_tests;

use chrono::{DateTime, TimeDelta};

use super::*;
use crate::agent::counters::{Came, Left, LinkKind, Speed};
use crate::agent::limit::Level;
use crate::event::{Direction, Reason, Severity};

const SECOND: Duration = Duration::from_secs(1);
/// Bytes a second: over, below, and between the marks of [`limit`].
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

fn info(ifindex: u32, name: &str) -> LinkInfo {
    let speed = Speed::both(Some(BitRate::from_bps(1_000_000_000)));
    LinkInfo { speed, ..LinkInfo::new(ifindex, name, LinkKind::Physical) }
}

/// A host whose links carry what the test says, one reading a second.
struct Host {
    detector: Detector,
    second: u64,
    counters: BTreeMap<u32, u64>,
    boot_id: &'static str,
    synced: Option<bool>,
    notices: Vec<String>,
}

impl Host {
    fn new(limits: Vec<Limit>, links: &[LinkInfo]) -> Self {
        let counters = BTreeMap::new();
        let detector = Detector::new(limits, SECOND, 7);
        let mut host = Self { detector, second: 1_000, counters, boot_id: "one", synced: None, notices: Vec::new() };
        let added = links.iter().map(|info| LinkChange::Added(info.clone(), Came::Appeared)).collect();
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

    /// What is told when each link has carried so many bytes more; links that are not named can't be read.
    fn tick(&mut self, changes: Vec<LinkChange>, bytes: &[(u32, u64)]) -> Vec<Body> {
        self.second += 1;
        let at = Duration::from_secs(self.second);
        let counters = bytes
            .iter()
            .map(|(ifindex, more)| {
                let counter = self.counters.entry(*ifindex).or_insert(0);
                *counter += more;
                Counters { ifindex: *ifindex, rx_bytes: *counter, tx_bytes: 0, packets: None, bits: CounterBits::B64 }
            })
            .collect();
        let reading = Reading { at, boottime: at, counters, carried: Vec::new(), changes };
        let mut findings = Findings::default();
        self.detector.observe(&reading, &self.stamp(), &mut findings);
        self.notices.extend(findings.notices.iter().map(ToString::to_string));
        findings.bodies
    }

    fn carry(&mut self, bytes: &[(u32, u64)]) -> Vec<String> {
        self.tick(Vec::new(), bytes).iter().map(told).collect()
    }

    fn change(&mut self, change: LinkChange, bytes: &[(u32, u64)]) -> Vec<String> {
        self.tick(vec![change], bytes).iter().map(told).collect()
    }
}

/// `kind interface [reason [detail]]`.
fn told(body: &Body) -> String {
    let words = [Some(body.kind()), body.interface(), body.reason().map(Reason::as_str), body.detail()];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
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
    let cleared = host.tick(Vec::new(), &[(2, BELOW)]);
    let (raised, cleared) = (raised[0].breach().unwrap(), cleared[0].breach().unwrap());
    assert_eq!((&raised.breach_id, raised_at), (&cleared.breach_id, cleared.raised_at));
    assert_eq!((raised.rate_bps, raised.excess_bytes, raised.duration_ms), (16_000, 1_000, 1_000));
    assert_eq!((cleared.peak_bps, cleared.excess_bytes, cleared.duration_ms), (16_000, 1_000, 2_000));
}

#[test]
fn either_direction_has_a_breach_of_its_own() {
    let either = Limit { directions: vec![Direction::Rx, Direction::Tx], ..limit("wan", on("eth0")) };
    let mut host = Host::new(vec![either], &[info(2, "eth0")]);
    let bodies = host.tick(Vec::new(), &[(2, OVER)]);
    assert_eq!(bodies.iter().map(|body| body.breach().unwrap().direction).collect::<Vec<_>>(), [Direction::Rx]);
}

#[test]
fn a_link_that_goes_takes_its_breach_with_it_and_one_that_comes_is_told() {
    let mut host = Host::new(vec![limit("wan", on("eth*"))], &[info(2, "eth0")]);
    host.carry(&[(2, OVER)]);
    let told = host.change(LinkChange::Removed(2, Left::Gone), &[]);
    assert_eq!(told, ["breach_cleared eth0 link_removed", "link_removed eth0 removed gone"]);
    let told = host.change(LinkChange::Added(info(5, "eth0"), Came::Appeared), &[(5, 9_999_999)]);
    assert_eq!(told, ["link_added eth0 added appeared"], "its counters began somewhere: no breach");
}

#[test]
fn a_new_name_keeps_a_breach_where_the_limit_still_names_it() {
    let limits = || vec![limit("wan", on("eth*")), limit("first", on("eth0"))];
    let mut host = Host::new(limits(), &[info(2, "eth0")]);
    host.carry(&[(2, OVER)]);
    let told = host.change(LinkChange::Changed(info(2, "eth7")), &[(2, OVER)]);
    assert_eq!(
        told,
        [
            "breach_cleared eth0 link_renamed",
            "link_removed eth0 renamed renamed to eth7",
            "link_added eth7 renamed renamed from eth0"
        ]
    );
    assert_eq!(host.carry(&[(2, BELOW)]), ["breach_cleared eth7 below"]);
}

#[test]
fn the_host_is_the_sum_and_a_missing_link_neither_raises_nor_clears() {
    let mut host = Host::new(vec![limit("all", Scope::Host)], &[info(2, "eth0"), info(3, "eth1")]);
    assert_eq!(host.carry(&[(2, 600), (3, 600)]), ["breach_raised *"]);
    assert!(host.carry(&[(2, 600)]).is_empty(), "half of it is no reason to clear");
    assert_eq!(host.carry(&[(2, 300), (3, 300)]), ["breach_cleared * below"]);
    assert_eq!(host.carry(&[(2, OVER)]), ["breach_raised *"], "what one link carries is over already");
}

#[test]
fn a_link_that_falls_silent_does_not_thin_out_what_the_others_carry() {
    let mut host = Host::new(vec![limit("all", Scope::Host)], &[info(2, "eth0"), info(3, "eth1")]);
    assert_eq!(host.carry(&[(2, 100_000), (3, OVER)]), ["breach_raised *"]);
    // Its counters stand still: for two readings that may be a slow driver, then it is silence, measured over three seconds.
    for second in 1..=5 {
        assert!(host.carry(&[(2, 0), (3, OVER)]).is_empty(), "eth1 alone is over, second {second}");
    }
    let cleared = host.tick(Vec::new(), &[(2, 0), (3, BELOW)]);
    let breach = cleared[0].breach().unwrap();
    assert_eq!((breach.rate_bps, breach.peak_bps), (BELOW * 8, (100_000 + OVER) * 8));
    assert_eq!((breach.duration_ms, breach.measured_ms), (7_000, 7_000));
}

#[test]
fn a_breach_that_waits_to_be_taken_up_outlives_another_reading_of_the_configuration() {
    let (mut host, before) = restarted(100, true, Some(false));
    assert!(host.carry(&[(2, OVER)]).is_empty(), "nobody knows how long it was");
    let open = host.detector.open_breaches(&host.stamp());
    host.detector = Detector::new(vec![limit("wan", on("eth0"))], SECOND, 9);
    host.detector.resume(open, Duration::from_secs(300), &host.stamp());
    host.synced = Some(true);
    host.change(LinkChange::Added(info(2, "eth0"), Came::Appeared), &[(2, OVER)]);
    assert!(host.carry(&[(2, OVER)]).is_empty(), "it is not raised twice");
    let cleared = host.tick(Vec::new(), &[(2, BELOW)]);
    assert_eq!(cleared[0].breach().unwrap().breach_id, before.breach_id);
}

#[test]
fn a_percentage_waits_for_the_speed_and_says_so() {
    let percent = Limit { raise_at: Level::Percent(1.0), clear_at: Level::Percent(0.9), ..limit("wan", on("eth0")) };
    let unknown = LinkInfo { speed: Speed::default(), ..info(2, "eth0") };
    let mut host = Host::new(vec![percent, limit("none", on("ppp*"))], &[unknown]);
    assert!(host.notices[0].contains("speed of eth0 is not known"), "{:?}", host.notices);
    assert!(host.notices[1].contains("no link matches interface = \"ppp*\""), "{:?}", host.notices);
    assert!(host.carry(&[(2, 5_000_000)]).is_empty());
    assert_eq!(host.change(LinkChange::Changed(info(2, "eth0")), &[(2, 5_000_000)]), ["breach_raised eth0"]);
    assert!(host.notices[2].contains("raised at 10.0 Mbit/s"), "{:?}", host.notices);
    assert_eq!(host.notices.len(), 3, "each is said once");
}

/// A host whose agent ended during a breach and starts again `pause` seconds later, in the same boot or in another.
fn restarted(pause: u64, reboot: bool, synced: Option<bool>) -> (Host, Breach) {
    let mut before = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
    let raised = before.tick(Vec::new(), &[(2, OVER)]);
    let stamp = before.stamp();
    let breach = raised[0].breach().unwrap().clone();

    let mut detector = Detector::new(vec![limit("wan", on("eth0"))], SECOND, 8);
    let mut host = Host { second: before.second + pause - 1, synced, ..before };
    if reboot {
        host.boot_id = "two";
    }
    detector.resume(vec![(breach, stamp)], Duration::from_secs(300), &host.stamp());
    host.detector = detector;
    let told = host.change(LinkChange::Added(info(2, "eth0"), Came::Appeared), &[(2, 0)]);
    assert!(told.is_empty() || pause > 300 || synced == Some(false), "{told:?}");
    (host, raised[0].breach().unwrap().clone())
}

#[test]
fn a_breach_goes_on_after_a_restart() {
    for reboot in [false, true] {
        let (mut host, before) = restarted(100, reboot, None);
        assert!(host.carry(&[(2, OVER)]).is_empty(), "it is not raised twice");
        let cleared = host.tick(Vec::new(), &[(2, BELOW)]);
        let cleared = cleared[0].breach().unwrap();
        assert_eq!((&cleared.breach_id, cleared.raised_at), (&before.breach_id, before.raised_at));
        assert_eq!(cleared.reason, Some(Reason::Below));
        // One second before, 101 of pause, of which one was the first reading after it, and two after.
        assert_eq!((cleared.duration_ms, cleared.measured_ms), (104_000, 3_000));
        assert_eq!(cleared.excess_bytes, before.excess_bytes + 1_000);
    }
}

#[test]
fn a_breach_ends_as_interrupted_when_its_time_is_over_or_the_clock_is_behind() {
    let mut before = Host::new(vec![limit("wan", on("eth0"))], &[info(2, "eth0")]);
    let breach = before.tick(Vec::new(), &[(2, OVER)])[0].breach().unwrap().clone();
    let open = (breach, before.stamp());
    for (second, boot_id) in [(before.second + 400, "one"), (before.second + 400, "two"), (before.second - 50, "two")] {
        let mut detector = Detector::new(vec![limit("wan", on("eth0"))], SECOND, 8);
        let mut host = Host::new(Vec::new(), &[]);
        (host.second, host.boot_id) = (second, boot_id);
        detector.resume(vec![open.clone()], Duration::from_secs(300), &host.stamp());
        host.detector = detector;
        assert_eq!(host.carry(&[]), ["breach_cleared eth0 interrupted"]);
        assert!(host.carry(&[]).is_empty(), "once");
    }
}

#[test]
fn without_a_clock_a_breach_waits_and_is_then_judged() {
    let (mut host, _) = restarted(100, true, Some(false));
    assert!(host.carry(&[(2, OVER)]).is_empty(), "nobody knows how long it was");
    host.synced = Some(true);
    assert!(host.carry(&[(2, OVER)]).is_empty(), "it goes on");
    assert_eq!(host.carry(&[(2, BELOW)]), ["breach_cleared eth0 below"]);

    let (mut host, _) = restarted(100, true, Some(false));
    host.second += 400;
    assert_eq!(host.carry(&[]), ["breach_cleared eth0 interrupted"]);
}

#[test]
fn a_limit_that_is_no_longer_configured_ends_its_breach() {
    let (mut host, _) = restarted(100, false, None);
    host.detector.limits[0].name = "another".into();
    assert_eq!(host.carry(&[]), ["breach_cleared eth0 limit_removed"]);
}
