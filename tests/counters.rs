//! Counter sources: one body of tests for all, and for the two that read the kernel's, on links that come and go.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::DateTime;
use highwater::agent::counters::filter::{InterfaceFilter, LinkOverride};
use highwater::agent::counters::synthetic::Shape;
use highwater::agent::counters::{
    AddReason, CounterBits, CounterError, CounterSource, Counters, LinkChange, LinkInfo, LinkKind, Packets, Reading,
    RemoveReason, SourceChoice, Speed, open,
};
use highwater::process::clock::{Clock, ManualClock, SystemClock};
use highwater::units::BitRate;

use crate::support::agent::until;
use crate::support::netns::{Namespace, inside, ip, ip_can};
use crate::support::skips::skip;

/// A source, and the links that it reported, by ifindex.
struct Follower {
    source: Box<dyn CounterSource>,
    clock: Box<dyn Clock>,
    reading: Reading,
    links: BTreeMap<u32, LinkInfo>,
}

impl Follower {
    fn new(source: Result<Box<dyn CounterSource>, CounterError>) -> Self {
        let (source, clock) = (source.unwrap(), Box::new(SystemClock::default()));
        Self { source, clock, reading: Reading::default(), links: BTreeMap::new() }
    }

    /// Reads, and compares the changes with the links reported before.
    fn read(&mut self) -> Vec<LinkChange> {
        self.source.read(&*self.clock, &mut self.reading).unwrap();
        for change in &self.reading.changes {
            match change.clone() {
                LinkChange::Added(link, _) => assert!(self.links.insert(link.ifindex, link).is_none(), "{change:?}"),
                LinkChange::Changed(link) => {
                    let ifindex = link.ifindex;
                    assert_ne!(self.links.insert(ifindex, link.clone()).as_ref(), Some(&link));
                }
                LinkChange::Removed(ifindex, _) => assert!(self.links.remove(&ifindex).is_some(), "{change:?}"),
            }
        }
        for counters in &self.reading.counters {
            assert!(self.links.contains_key(&counters.ifindex), "nobody told of {counters:?}");
        }
        self.reading.changes.clone()
    }

    fn read_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        until(what, || {
            self.read();
            done(self).then_some(())
        });
    }

    fn names(&self) -> Vec<&str> {
        self.links.values().map(|link| link.name.as_str()).collect()
    }

    fn link(&self, name: &str) -> &LinkInfo {
        self.links.values().find(|link| link.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn counters(&self, name: &str) -> Counters {
        let ifindex = self.link(name).ifindex;
        *self.reading.counters.iter().find(|counters| counters.ifindex == ifindex).expect("it was read")
    }
}

fn selection(include: &str) -> InterfaceFilter {
    InterfaceFilter::new(&include.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), &[], &[])
}

fn kernel(choice: SourceChoice, include: &str) -> Follower {
    Follower::new(open(choice, Path::new("/"), selection(include)))
}

/// Promises of every source, on a system whose links do not change.
fn keeps_its_promises(mut follower: Follower) {
    let name = follower.source.name();
    let first = follower.read();
    assert!(!first.is_empty(), "{name} tells of its links at once");
    assert!(
        first.iter().all(|change| matches!(change, LinkChange::Added(_, AddReason::Appeared))),
        "{name}: {first:?}"
    );
    assert_eq!(follower.reading.counters.len(), first.len(), "{name}");
    for _ in 0..5 {
        let before = follower.reading.clone();
        assert_eq!(follower.read(), [], "{name}");
        assert!(follower.reading.at > before.at && follower.reading.boottime >= before.boottime, "{name}");
        for (before, after) in before.counters.iter().zip(&follower.reading.counters) {
            assert_eq!((before.ifindex, before.bits), (after.ifindex, after.bits), "{name}");
            assert!(before.rx_bytes <= after.rx_bytes && before.tx_bytes <= after.tx_bytes, "{name}");
        }
    }
}

/// A clock that goes on by itself, so that synthetic traffic goes on.
struct Walking(ManualClock);

impl Clock for Walking {
    fn monotonic(&self) -> Duration {
        self.0.advance(Duration::from_millis(500));
        self.0.monotonic()
    }
    fn boottime(&self) -> Duration {
        self.0.boottime()
    }
    fn wall(&self) -> DateTime<chrono::Utc> {
        self.0.wall()
    }
    fn synced(&self) -> Option<bool> {
        self.0.synced()
    }
}

#[test]
fn synthetic_keeps_the_promises() {
    let shape = Shape { troubles: false, ..Shape::default() };
    let mut follower = kernel(SourceChoice::Synthetic(shape), "*");
    follower.clock = Box::new(Walking(ManualClock::new(DateTime::UNIX_EPOCH)));
    keeps_its_promises(follower);
}

#[test]
fn netlink_keeps_the_promises() {
    inside("counters::netlink_keeps_the_promises", || {
        keeps_its_promises(kernel(SourceChoice::Netlink, "lo"));
        assert_eq!(kernel(SourceChoice::Auto, "lo").source.name(), "netlink");
    });
}

#[test]
fn sysinfo_keeps_the_promises() {
    inside("counters::sysinfo_keeps_the_promises", || {
        ip("link set lo up");
        keeps_its_promises(kernel(SourceChoice::Sysinfo, "lo"));
    });
}

/// Links that are added, renamed, switched, removed between readings.
fn follows_links(choice: SourceChoice) {
    let mut follower = kernel(choice, "hw*");
    assert_eq!(follower.read(), []);

    ip("link add hw0 type veth peer name hw1");
    ip("link add other0 type veth peer name other1");
    let added = follower.read();
    assert!(added.iter().all(|change| matches!(change, LinkChange::Added(_, AddReason::Appeared))), "{added:?}");
    let mut names = follower.names();
    names.sort_unstable();
    assert_eq!(names, ["hw0", "hw1"]);
    assert_eq!(follower.reading.counters.len(), 2);
    let hw0 = follower.link("hw0").clone();
    // sysfs has only the index of the link below.
    let kind = if follower.source.name() == "netlink" { "veth" } else { "virtual" };
    assert_eq!((hw0.kind, hw0.up, hw0.speed), (LinkKind::from_kernel(kind), false, Speed::default()));

    ip("link set hw0 up");
    ip("link set hw1 up");
    // The kernel reports a carrier a little later (linkwatch), now and then up to a second.
    follower.read_until("both ends are up", |follower| follower.link("hw0").up && follower.link("hw1").up);
    let ten_gigabit = Speed::both(Some(BitRate::from_bps(10_000_000_000)));
    assert_eq!(follower.link("hw0").speed, ten_gigabit, "what veth says of itself once it is up");
    ip("link set hw1 down");
    follower.read_until("without the other end it carries nothing", |follower| {
        !follower.link("hw0").up && !follower.link("hw1").up
    });
    assert_eq!(follower.link("hw0").speed, Speed::default(), "a link that is down has none");

    ip("link set hw0 down");
    ip("link set hw0 name hw9");
    let renamed = follower.read();
    let kept =
        |change: &LinkChange| matches!(change, LinkChange::Changed(l) if l.ifindex == hw0.ifindex && l.name == "hw9");
    assert!(renamed.iter().any(kept), "{renamed:?}");
    ip("link set hw9 name away");
    let away = LinkChange::Removed(hw0.ifindex, RemoveReason::RenamedTo("away".into()));
    assert_eq!(follower.read(), [away]);
    assert_eq!(follower.reading.counters.len(), 1);
    ip("link set away name hw0");
    let back = follower.read();
    assert!(matches!(&back[..], [LinkChange::Added(_, AddReason::RenamedFrom(old))] if old == "away"), "{back:?}");

    ip("link del hw0");
    let gone = follower.read();
    assert!(
        gone.iter().all(|change| matches!(change, LinkChange::Removed(_, RemoveReason::Gone))) && gone.len() == 2,
        "{gone:?}"
    );
    assert_eq!(follower.reading.counters, []);

    // Another link of the same name, between two readings.
    ip("link add hw0 type veth peer name hw1");
    follower.read();
    let before = follower.link("hw0").ifindex;
    ip("link del hw0");
    ip("link add hw0 type veth peer name hw1");
    follower.read();
    assert_ne!(follower.link("hw0").ifindex, before);
    assert_eq!(follower.links.len(), 2);
}

#[test]
fn netlink_follows_links() {
    inside("counters::netlink_follows_links", || follows_links(SourceChoice::Netlink));
}

#[test]
fn sysinfo_follows_links() {
    inside("counters::sysinfo_follows_links", || follows_links(SourceChoice::Sysinfo));
}

/// Returns bytes, packets, errors and drops of a link, received and sent, by `/proc/net/dev`, which is the namespace's own.
fn by_proc(name: &str) -> [Packets; 4] {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{name}:"))).unwrap();
    let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
    [0, 1, 2, 3].map(|field| Packets { rx: fields[field], tx: fields[8 + field] })
}

fn counts_as_the_kernel_does(choice: SourceChoice) {
    ip("link set lo up");
    let mut follower = kernel(choice, "lo");
    follower.read();
    let before = follower.counters("lo");
    let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    for _ in 0..100 {
        from.send_to(&[0; 1_000], to.local_addr().unwrap()).unwrap();
    }
    follower.read();
    let after = follower.counters("lo");
    let [bytes, packets, ..] = by_proc("lo");
    assert_eq!((after.rx_bytes, after.tx_bytes, after.packets), (bytes.rx, bytes.tx, Some(packets)));
    // Payload, and the headers of UDP and IPv4; a loopback has none of its own.
    assert_eq!(after.rx_bytes - before.rx_bytes, 100 * 1_028);
    assert_eq!(packets.rx - before.packets.expect("they are counted").rx, 100);
}

#[test]
fn netlink_counts_as_the_kernel_does() {
    inside("counters::netlink_counts_as_the_kernel_does", || counts_as_the_kernel_does(SourceChoice::Netlink));
}

#[test]
fn sysinfo_counts_as_the_kernel_does() {
    inside("counters::sysinfo_counts_as_the_kernel_does", || counts_as_the_kernel_does(SourceChoice::Sysinfo));
}

/// Errors: packets into a tunnel to whose other end there is no route. Drops: packets into a tun device that no program reads.
fn counts_errors_and_drops_as_the_kernel_does(test: &str, choice: SourceChoice) {
    let tunnel = "link add hwerr type vxlan id 7 remote 203.0.113.1 dstport 4789";
    if !ip_can(tunnel) || !ip_can("tuntap add hwdrop mode tun") {
        return skip(test, "needs vxlan and tun links");
    }
    let has_drops = choice == SourceChoice::Netlink;
    for (net, name) in ["hwerr", "hwdrop"].into_iter().enumerate() {
        // Without IPv6, the kernel sends nothing by itself.
        ip(&format!("link set {name} addrgenmode none"));
        ip(&format!("addr add 198.18.{net}.1/24 dev {name}"));
        ip(&format!("link set {name} up"));
    }
    ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev hwerr nud permanent");
    let mut follower = kernel(choice, "hw*");
    follower.read();
    let from = UdpSocket::bind("0.0.0.0:0").unwrap();
    for count in [30, 12] {
        let before = ["hwerr", "hwdrop"].map(by_proc);
        for net in 0..2 {
            (0..count).for_each(|_| drop(from.send_to(&[0; 100], format!("198.18.{net}.2:9"))));
        }
        follower.read();
        for (name, before) in ["hwerr", "hwdrop"].into_iter().zip(before) {
            let [_, _, errors, drops] = by_proc(name);
            let after = follower.counters(name);
            assert_eq!((after.errors, after.drops), (Some(errors), has_drops.then_some(drops)), "{name}");
            let expected = if name == "hwerr" { (count, 0) } else { (0, count) };
            assert_eq!((errors.tx - before[2].tx, drops.tx - before[3].tx), expected, "{name}");
        }
    }
}

#[test]
fn netlink_counts_errors_and_drops_as_the_kernel_does() {
    let test = "counters::netlink_counts_errors_and_drops_as_the_kernel_does";
    inside(test, || counts_errors_and_drops_as_the_kernel_does(test, SourceChoice::Netlink));
}

#[test]
fn sysinfo_counts_errors_as_the_kernel_does_and_knows_no_drops() {
    let test = "counters::sysinfo_counts_errors_as_the_kernel_does_and_knows_no_drops";
    inside(test, || counts_errors_and_drops_as_the_kernel_does(test, SourceChoice::Sysinfo));
}

/// Links that count another one's bytes as well, of the kinds that this kernel has.
fn knows_what_counts_a_links_bytes_as_well(test: &str, choice: SourceChoice) {
    ip("link add hwp0 type veth peer name hwp1");
    ip("link add hwq0 type veth peer name hwq1");
    // A peer in another namespace has numbers that mean other links here.
    let elsewhere = Namespace::new().expect("one was made for this test");
    ip(&format!("link add hwfar type veth peer name far netns {}", elsewhere.name));
    let stacked = [
        ("link add link hwp0 name hwm0 type macvlan mode bridge", "hwm0", "hwp0"),
        ("link add link hwq1 name hwq1.7 type vlan id 7", "hwq1.7", "hwq1"),
    ];
    let made: Vec<_> = stacked.iter().filter(|(arguments, ..)| ip_can(arguments)).collect();
    if made.is_empty() {
        skip(test, "needs macvlan or vlan links");
    }
    let mut follower = kernel(choice, "hw*");
    follower.read();
    let netlink = follower.source.name() == "netlink";
    for (_, upper, lower) in made {
        let counted_by = &follower.link(upper).counted_by;
        let lower = follower.link(lower);
        assert!(counted_by.contains(&lower.ifindex), "{upper} is counted by {counted_by:?}, not by {lower:?}");
    }
    // Both ends of a pair carry the same bytes: all belong to one of them. sysfs has no peers.
    let (first, second) = (follower.link("hwp0"), follower.link("hwp1"));
    let pair = if first.ifindex < second.ifindex { (first, second) } else { (second, first) };
    let expected = if netlink { vec![pair.0.ifindex] } else { Vec::new() };
    assert_eq!((&pair.0.counted_by, &pair.1.counted_by), (&Vec::new(), &expected));
    assert_eq!(follower.link("hwfar").counted_by, [0; 0]);

    if ip_can("link add hwbr0 type bridge") {
        ip("link set hwq0 master hwbr0");
        follower.read();
        assert!(!follower.link("hwq0").enslaved, "a bridge has bytes of its own");
        let port = follower.link("hwq0").ifindex;
        assert!(follower.link("hwbr0").partly_counted_by.contains(&port), "{:?}", follower.link("hwbr0"));
    }
    // The link beneath goes, and its ends with it.
    ip("link del hwp1");
    follower.read();
    let known: Vec<u32> = follower.links.keys().copied().collect();
    for link in follower.links.values() {
        assert!(link.counted_by.iter().all(|by| known.contains(by)), "{link:?}");
    }
}

#[test]
fn netlink_knows_what_counts_a_links_bytes_as_well() {
    const TEST: &str = "counters::netlink_knows_what_counts_a_links_bytes_as_well";
    inside(TEST, || knows_what_counts_a_links_bytes_as_well(TEST, SourceChoice::Netlink));
}

#[test]
fn sysinfo_knows_what_counts_a_links_bytes_as_well() {
    const TEST: &str = "counters::sysinfo_knows_what_counts_a_links_bytes_as_well";
    inside(TEST, || knows_what_counts_a_links_bytes_as_well(TEST, SourceChoice::Sysinfo));
}

#[test]
fn netlink_knows_altnames() {
    inside("counters::netlink_knows_altnames", || {
        ip("link add hw0 type veth peer name hw1");
        // The kernel reports a further altname only while the link is up, else with its next change.
        ip("link set hw0 up");
        ip("link set hw1 up");
        ip("link property add dev hw0 altname uplink-of-the-building altname second");
        let mut follower = kernel(SourceChoice::Netlink, "uplink*");
        follower.read();
        assert_eq!(follower.names(), ["hw0"]);
        assert_eq!(follower.link("hw0").altnames, ["uplink-of-the-building", "second"]);
        follower.read_until("it is up", |follower| follower.link("hw0").up);
        ip("link property del dev hw0 altname second");
        let changes = follower.read();
        assert!(matches!(&changes[..], [LinkChange::Changed(link)] if link.altnames.len() == 1), "{changes:?}");
        ip("link property del dev hw0 altname uplink-of-the-building");
        ip("link property add dev hw1 altname uplink");
        let changes = follower.read();
        let [LinkChange::Removed(_, RemoveReason::Unselected), LinkChange::Added(hw1, AddReason::Named)] = &changes[..]
        else {
            panic!("{changes:?}")
        };
        assert_eq!(hw1.name, "hw1");
        assert_eq!(follower.reading.counters.len(), 1);
    });
}

/// The configuration of a link, and which links it selects rather than a limit.
fn heeds_the_configuration(choice: SourceChoice) {
    ip("link add hw0 type veth peer name hw1");
    ip("link set hw0 up");
    ip("link set hw1 up");
    let bps = |bps| Some(BitRate::from_bps(bps));
    let known =
        |interface: &str, speed, counter_bits| LinkOverride { interface: interface.into(), speed, counter_bits };
    let overrides = vec![
        known("hw0", Speed { rx: bps(7), tx: None }, Some(CounterBits::B32)),
        known("hw*", Speed::both(bps(9)), None),
    ];
    let selection = InterfaceFilter::new(&["hw1".to_owned()], &[], &["hw0".to_owned()]).with_overrides(overrides);
    let mut follower = Follower::new(open(choice, Path::new("/"), selection));
    follower.read();
    assert_eq!(follower.link("hw0").speed, Speed { rx: bps(7), tx: bps(9) });
    assert_eq!(follower.link("hw1").speed, Speed::both(bps(9)));
    assert_eq!((follower.link("hw0").selected, follower.link("hw1").selected), (false, true));
    assert_eq!((follower.counters("hw0").bits, follower.counters("hw1").bits), (CounterBits::B32, CounterBits::B64));
}

#[test]
fn netlink_heeds_the_configuration() {
    inside("counters::netlink_heeds_the_configuration", || heeds_the_configuration(SourceChoice::Netlink));
}

#[test]
fn sysinfo_heeds_the_configuration() {
    inside("counters::sysinfo_heeds_the_configuration", || heeds_the_configuration(SourceChoice::Sysinfo));
}

/// A carrier that is lost and back between two readings.
fn ends_with_the_right_state(choice: SourceChoice) {
    ip("link add hw0 type veth peer name hw1");
    ip("link set hw0 up");
    ip("link set hw1 up");
    let mut follower = kernel(choice, "hw0");
    follower.read_until("it is up", |follower| follower.link("hw0").up);
    let speed = follower.link("hw0").speed;
    for _ in 0..5 {
        ip("link set hw1 down");
        ip("link set hw1 up");
        follower
            .read_until("it is up again", |follower| follower.link("hw0").up && follower.link("hw0").speed == speed);
    }
    // A carrier that is back may still be reported; then nothing more.
    std::thread::sleep(Duration::from_millis(1_500));
    follower.read();
    assert_eq!((follower.link("hw0").up, follower.link("hw0").speed), (true, speed));
    ip("link set hw0 mtu 1400");
    ip("link set hw0 down");
    let changes = follower.read();
    assert!(matches!(&changes[..], [LinkChange::Changed(link)] if !link.up), "{changes:?}");
    assert_eq!((follower.read(), follower.read()), (vec![], vec![]), "what changed is told once");
}

#[test]
fn netlink_ends_with_the_right_state() {
    inside("counters::netlink_ends_with_the_right_state", || ends_with_the_right_state(SourceChoice::Netlink));
}

#[test]
fn sysinfo_ends_with_the_right_state() {
    inside("counters::sysinfo_ends_with_the_right_state", || ends_with_the_right_state(SourceChoice::Sysinfo));
}

/// A clock on which each reading takes a while, and each fifth one much longer.
struct Slow(ManualClock, Cell<u32>);

impl Slow {
    fn pass(&self) {
        let looks = self.1.get() + 1;
        self.1.set(looks);
        self.0.advance(if looks.is_multiple_of(5) { Duration::from_millis(150) } else { Duration::from_micros(50) });
    }
}

impl Clock for Slow {
    fn monotonic(&self) -> Duration {
        self.pass();
        self.0.monotonic()
    }
    fn boottime(&self) -> Duration {
        self.pass();
        self.0.boottime()
    }
    fn wall(&self) -> DateTime<chrono::Utc> {
        self.0.wall()
    }
    fn synced(&self) -> Option<bool> {
        self.0.synced()
    }
}

#[test]
fn a_slow_reading_has_one_moment_by_both_clocks() {
    for choice in [SourceChoice::Netlink, SourceChoice::Sysinfo, SourceChoice::Synthetic(Shape::default())] {
        let mut follower = kernel(choice, "* lo");
        follower.clock = Box::new(Slow(ManualClock::new(DateTime::UNIX_EPOCH), Cell::new(0)));
        for _ in 0..20 {
            follower.read();
            let Reading { at, boottime, .. } = follower.reading;
            assert!(
                at.abs_diff(boottime) < Duration::from_millis(2),
                "{}: {at:?}, {boottime:?}",
                follower.source.name()
            );
        }
    }
}

#[test]
fn netlink_recovers_from_more_changes_than_the_kernel_can_hold_for_it() {
    const TEST: &str = "counters::netlink_recovers_from_more_changes_than_the_kernel_can_hold_for_it";
    inside(TEST, || {
        let mut all = kernel(SourceChoice::Netlink, "hw*");
        let mut few = kernel(SourceChoice::Netlink, "hw1a");
        all.read();
        few.read();
        for pair in 0..150 {
            ip(&format!("link add hw{pair}a type veth peer name hw{pair}b"));
        }
        all.read();
        few.read();
        assert_eq!((all.links.len(), all.reading.counters.len()), (300, 300));
        assert_eq!((few.names(), few.reading.counters.len()), (vec!["hw1a"], 1));
        for pair in 0..100 {
            ip(&format!("link del hw{pair}a"));
        }
        all.read();
        few.read();
        assert_eq!((all.links.len(), all.reading.counters.len()), (100, 100));
        assert_eq!((few.links.len(), few.reading.counters.len()), (0, 0));
        ip("link del hw149a");
        assert_eq!(all.read().len(), 2, "it listens again");
    });
}

/// Reads as fast as it can while links come, go and are renamed.
fn bears_churn(choice: SourceChoice) {
    let mut follower = kernel(choice, "lo hw*");
    let done = AtomicBool::new(false);
    let mut readings = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..25 {
                ip("link add hw0 type veth peer name other0");
                ip("link add hw1 type veth peer name hw2");
                ip("link set hw0 up");
                ip("link set hw1 name away");
                ip("link set other0 name hw3");
                ip("link del hw2");
                if round % 5 < 4 {
                    ip("link del hw0");
                } else {
                    ip(&format!("link set hw3 name hw{}", 10 + round));
                    ip("link set hw0 down");
                    ip(&format!("link set hw0 name other{round}"));
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut last = BTreeMap::new();
        let mut at = Duration::ZERO;
        while !done.load(Ordering::Acquire) {
            follower.read();
            readings += 1;
            assert!(follower.reading.at > at);
            at = follower.reading.at;
            for counters in &follower.reading.counters {
                let before = last.insert(counters.ifindex, counters.rx_bytes).unwrap_or(0);
                assert!(before <= counters.rx_bytes, "{counters:?} fell from {before}");
            }
        }
    });
    follower.read();
    let mut names = follower.names();
    names.sort_unstable();
    assert_eq!(names, ["hw14", "hw19", "hw24", "hw29", "hw34", "lo"], "after {readings} readings");
    assert_eq!(follower.reading.counters.len(), 6);
}

#[test]
fn netlink_bears_churn() {
    inside("counters::netlink_bears_churn", || bears_churn(SourceChoice::Netlink));
}

#[test]
fn sysinfo_bears_churn() {
    inside("counters::sysinfo_bears_churn", || bears_churn(SourceChoice::Sysinfo));
}

/// A process out of file descriptors reads nothing of a link, and sysinfo turns that into 0.
#[test]
fn without_file_descriptors_no_link_is_gone_and_none_is_zero() {
    const TEST: &str = "counters::without_file_descriptors_no_link_is_gone_and_none_is_zero";
    const LIMITED: &str = "HIGHWATER_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_none() {
        let mut again = Command::new("sh");
        again.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
        let output =
            again.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).env(LIMITED, "1").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
        return;
    }
    let all_but = |free: usize| {
        let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        files.truncate(files.len() - free);
        files
    };
    for choice in [SourceChoice::Netlink, SourceChoice::Sysinfo] {
        let mut follower = kernel(choice, "* lo");
        follower.read();
        let name = follower.source.name();
        for free in 0..6 {
            let before = follower.reading.clone();
            let files = all_but(free);
            match follower.source.read(&*follower.clock, &mut follower.reading) {
                Ok(()) => assert_eq!(follower.reading.changes, [], "{name} with {free} files"),
                Err(_) => assert_eq!(follower.reading, Reading::default(), "{name} with {free} files"),
            }
            for counters in &follower.reading.counters {
                let before = before.counters.iter().find(|before| before.ifindex == counters.ifindex).unwrap();
                assert!(before.rx_bytes <= counters.rx_bytes, "{name} with {free} files");
            }
            drop(files);
            assert_eq!(follower.read(), [], "{name} after {free} files");
            assert_eq!(follower.reading.counters.len(), before.counters.len());
        }
    }
    let files = all_but(0);
    assert!(open(SourceChoice::Netlink, Path::new("/"), selection("lo")).is_err());
    assert_eq!(kernel(SourceChoice::Auto, "lo").source.name(), "sysinfo", "it falls back");
    drop(files);
}

#[test]
fn a_port_that_leaves_its_bridge_stays_a_link() {
    const TEST: &str = "counters::a_port_that_leaves_its_bridge_stays_a_link";
    inside(TEST, || {
        if !ip_can("link add br0 type bridge") {
            return skip(TEST, "needs bridges");
        }
        ip("link add hw0 type veth peer name hw1");
        let mut follower = kernel(SourceChoice::Netlink, "hw0");
        follower.read();
        ip("link set hw0 master br0");
        ip("link set hw0 nomaster");
        let changes = follower.read();
        assert!(changes.iter().all(|change| matches!(change, LinkChange::Changed(_))), "{changes:?}");
        assert_eq!(follower.names(), ["hw0"]);
        assert_eq!(follower.reading.counters.len(), 1);
    });
}

#[test]
fn by_default_veth_is_watched_only_where_there_is_no_other_link() {
    inside("counters::by_default_veth_is_watched_only_where_there_is_no_other_link", || {
        ip("link set lo up");
        ip("link add hw0 type veth peer name hw1");
        let mut follower = kernel(SourceChoice::Netlink, "*");
        follower.read();
        assert_eq!(follower.names(), [""; 0], "neither loopback nor links that are down");
        ip("link set hw0 up");
        ip("link set hw1 up");
        follower.read_until("both are up", |follower| follower.names().len() == 2);
        let mut followers = [SourceChoice::Netlink, SourceChoice::Sysinfo].map(|choice| kernel(choice, "*"));
        for follower in &mut followers {
            follower.read();
            for name in ["hw0", "hw1"] {
                assert!(follower.link(name).selected && follower.names().len() == 2, "{:?}", follower.names());
                follower.counters(name);
            }
        }
        if !ip_can("link add hwbond type bond") {
            return;
        }
        for follower in &mut followers {
            follower.read();
            assert_eq!(follower.names(), ["hwbond"]);
        }
        ip("link del hwbond");
        for follower in &mut followers {
            follower.read();
            assert_eq!(follower.names(), [""; 0], "what is gone may come back");
        }
    });
}
