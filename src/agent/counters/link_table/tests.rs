use std::cell::{Cell, RefCell};

use super::*;
use crate::agent::counters::filter::LinkOverride;
use crate::units::BitRate;

#[derive(Default)]
struct FakeKernel {
    mbps: Cell<Option<u64>>,
    sessions: RefCell<Vec<String>>,
    asked: RefCell<Vec<String>>,
}

impl LinkQueries for FakeKernel {
    fn speed(&self, link: &LinkInfo) -> Speed {
        self.asked.borrow_mut().push(link.name.clone());
        Speed::both(self.mbps.get().map(|mbps| BitRate::from_bps(mbps * 1_000_000)))
    }

    fn pppoe_devices(&self) -> Vec<String> {
        self.sessions.borrow().clone()
    }
}

impl FakeKernel {
    fn sessions_on(&self, devices: &[&str]) {
        *self.sessions.borrow_mut() = devices.iter().map(|&device| device.to_owned()).collect();
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

fn link(ifindex: u32, name: &str) -> LinkInfo {
    LinkInfo::new(ifindex, name, LinkKind::Physical)
}

fn table() -> LinkTable {
    LinkTable::new(InterfaceFilter::new(&["eth*".to_owned(), "*".to_owned()], &["old*".to_owned()], &[]))
}

fn put(table: &mut LinkTable, link: LinkInfo) -> Vec<LinkChange> {
    table.put(link, Attachment::default());
    changes(table)
}

fn changes(table: &mut LinkTable) -> Vec<LinkChange> {
    report(table, &FakeKernel::default(), 0)
}

fn report(table: &mut LinkTable, kernel: &FakeKernel, second: u64) -> Vec<LinkChange> {
    let mut changes = Vec::new();
    table.report(kernel, Duration::from_secs(second), &mut changes);
    changes
}

fn speed(mbps: u64) -> Speed {
    Speed::both(Some(BitRate::from_bps(mbps * 1_000_000)))
}

fn beneath(lower: u32) -> Attachment {
    Attachment { lower: Some(lower), ..Attachment::default() }
}

#[test]
fn tells_what_changed_and_nothing_else() {
    let mut table = table();
    let eth0 = link(2, "eth0");
    assert_eq!(put(&mut table, eth0.clone()), [LinkChange::Added(eth0.clone(), AddReason::Appeared)]);
    assert_eq!(put(&mut table, eth0.clone()), []);
    let down = LinkInfo { up: false, ..eth0 };
    assert_eq!(put(&mut table, down.clone()), [LinkChange::Changed(down)]);
    let renamed = link(2, "wan");
    assert_eq!(put(&mut table, renamed.clone()), [LinkChange::Changed(renamed)]);
    table.remove(2);
    assert_eq!(changes(&mut table), [LinkChange::Removed(2, RemoveReason::Gone)]);
    table.remove(2);
    assert_eq!(changes(&mut table), []);
}

#[test]
fn a_rename_out_of_the_selection_and_into_it() {
    let mut table = table();
    put(&mut table, link(2, "eth0"));
    assert_eq!(put(&mut table, link(2, "old0")), [LinkChange::Removed(2, RemoveReason::RenamedTo("old0".into()))]);
    assert!(!table.watches(2));
    let back = link(2, "eth7");
    let came = AddReason::RenamedFrom("old0".into());
    assert_eq!(put(&mut table, back.clone()), [LinkChange::Added(back, came)]);
}

#[test]
fn a_bonds_slave_leaves_and_returns() {
    let mut table = table();
    put(&mut table, link(2, "wan0"));
    let slave = LinkInfo { enslaved: true, ..link(2, "wan0") };
    assert_eq!(put(&mut table, slave), [LinkChange::Removed(2, RemoveReason::Enslaved)]);
    assert_eq!(put(&mut table, link(2, "wan0")), [LinkChange::Added(link(2, "wan0"), AddReason::Released)]);
}

#[test]
fn another_kind_is_another_link() {
    let mut table = table();
    put(&mut table, link(2, "eth0"));
    let other = LinkInfo { kind: LinkKind::Bond, ..link(2, "eth0") };
    let expected = [LinkChange::Removed(2, RemoveReason::Gone), LinkChange::Added(other.clone(), AddReason::Appeared)];
    assert_eq!(put(&mut table, other), expected);
}

#[test]
fn a_whole_reading_finds_what_is_gone_and_tells_it_first() {
    let mut table = table();
    table.put(link(2, "eth0"), Attachment::default());
    table.mark();
    table.put(link(3, "eth0"), Attachment::default());
    table.sweep();
    let (first, second) = (link(2, "eth0"), link(3, "eth0"));
    assert_eq!(
        changes(&mut table),
        [
            LinkChange::Added(first, AddReason::Appeared),
            LinkChange::Removed(2, RemoveReason::Gone),
            LinkChange::Added(second, AddReason::Appeared),
        ]
    );
    table.mark();
    assert_eq!(table.unseen().count(), 1);
    table.keep(3);
    table.sweep();
    assert_eq!(changes(&mut table), []);
}

#[test]
fn speed_is_asked_of_watched_links_and_comes_with_them() {
    let (mut table, kernel) = (table(), FakeKernel::default());
    kernel.mbps.set(Some(100));
    table.put(link(2, "old0"), Attachment::default());
    table.put(link(3, "eth0"), Attachment::default());
    let eth0 = LinkInfo { speed: speed(100), ..link(3, "eth0") };
    assert_eq!(report(&mut table, &kernel, 0), [LinkChange::Added(eth0, AddReason::Appeared)]);
    assert_eq!(kernel.asked(), ["eth0"]);
}

#[test]
fn speed_is_asked_again_each_minute_and_when_the_kernel_tells_of_the_link() {
    let (mut table, kernel) = (table(), FakeKernel::default());
    kernel.mbps.set(Some(1_000));
    let veth = || LinkInfo { kind: LinkKind::from_kernel("veth"), ..link(3, "eth1") };
    let bond = || LinkInfo { kind: LinkKind::Bond, ..link(4, "eth2") };
    for link in [link(2, "eth0"), veth(), bond()] {
        table.put(link, Attachment::default());
    }
    report(&mut table, &kernel, 100);
    kernel.asked();
    kernel.mbps.set(Some(100));
    assert_eq!(report(&mut table, &kernel, 159), []);
    assert_eq!(kernel.asked(), [""; 0]);
    let slower = |link: LinkInfo| LinkChange::Changed(LinkInfo { speed: speed(100), ..link });
    assert_eq!(report(&mut table, &kernel, 160), [slower(link(2, "eth0")), slower(bond())]);
    assert_eq!(kernel.asked(), ["eth0", "eth2"], "a veth's does not change by itself");
    assert_eq!(report(&mut table, &kernel, 161), []);
    table.mark_speed_stale(3);
    assert_eq!(report(&mut table, &kernel, 162), [slower(veth())]);
}

#[test]
fn the_speed_of_a_bond_is_asked_again_when_its_ports_change() {
    let (mut table, kernel) = (table(), FakeKernel::default());
    let bond = || LinkInfo { kind: LinkKind::Bond, ..link(9, "eth9") };
    // Not watched, as a port usually is not.
    let port = |ifindex, up| LinkInfo { enslaved: true, up, ..link(ifindex, "old0") };
    let (of_bond, free) = (Attachment { aggregate: Some(9), ..Attachment::default() }, Attachment::default());
    table.put(bond(), free);
    assert_eq!(report(&mut table, &kernel, 0), [LinkChange::Added(bond(), AddReason::Appeared)], "without a speed");
    kernel.asked();
    let mut second = 0;
    let mut is_asked = |what: &str, table: &mut LinkTable| {
        second += 1;
        kernel.mbps.set(Some(second * 100));
        let changes = report(table, &kernel, second);
        assert_eq!(changes, [LinkChange::Changed(LinkInfo { speed: speed(second * 100), ..bond() })], "{what}");
        assert_eq!(kernel.asked(), ["eth9"], "{what}");
    };
    table.put(port(2, true), of_bond);
    is_asked("a port appeared", &mut table);
    table.put(port(2, false), of_bond);
    is_asked("it went down", &mut table);
    table.put(LinkInfo { enslaved: false, ..port(2, true) }, free);
    is_asked("it left the bond", &mut table);
    table.put(port(2, true), of_bond);
    is_asked("it joined again", &mut table);
    table.remove(2);
    is_asked("it is gone", &mut table);
    table.put(port(3, true), of_bond);
    is_asked("another one", &mut table);
    table.mark();
    table.keep(9);
    table.sweep();
    is_asked("it is gone without a word", &mut table);
    assert_eq!(report(&mut table, &kernel, 20), []);
    assert_eq!(kernel.asked(), [""; 0], "nothing changed");
}

#[test]
fn a_link_that_is_down_has_no_speed_and_its_driver_is_not_asked() {
    let (mut table, kernel) = (table(), FakeKernel::default());
    kernel.mbps.set(Some(10));
    let down = LinkInfo { up: false, ..link(2, "eth0") };
    table.put(down.clone(), Attachment::default());
    assert_eq!(report(&mut table, &kernel, 0), [LinkChange::Added(down.clone(), AddReason::Appeared)]);
    let up = LinkInfo { speed: speed(10), ..link(2, "eth0") };
    table.put(link(2, "eth0"), Attachment::default());
    assert_eq!(report(&mut table, &kernel, 1), [LinkChange::Changed(up.clone())]);
    // Down and up again between two readings: both are reported, and the last one is right.
    table.put(down.clone(), Attachment::default());
    table.put(link(2, "eth0"), Attachment::default());
    let passing = LinkInfo { speed: speed(10), ..down.clone() };
    assert_eq!(report(&mut table, &kernel, 2), [LinkChange::Changed(passing), LinkChange::Changed(up)]);
    assert_eq!(put(&mut table, down.clone()), [LinkChange::Changed(down)]);
}

#[test]
fn what_is_configured_wins_over_the_driver() {
    let overrides = vec![
        LinkOverride { interface: "eth0".into(), speed: speed(7), counter_bits: Some(CounterBits::B32) },
        LinkOverride { interface: "eth1".into(), speed: Speed { tx: None, ..speed(5) }, counter_bits: None },
    ];
    let mut table = LinkTable::new(InterfaceFilter::default().with_overrides(overrides));
    let kernel = FakeKernel::default();
    kernel.mbps.set(Some(100));
    table.put(link(2, "eth0"), Attachment::default());
    table.put(link(3, "eth1"), Attachment::default());
    report(&mut table, &kernel, 0);
    assert_eq!(table.get(2).unwrap().speed, speed(7));
    assert_eq!(table.get(3).unwrap().speed, Speed { rx: speed(5).rx, tx: speed(100).tx });
    assert_eq!(kernel.asked(), ["eth1"], "of eth0 all is known");
    assert_eq!((table.counter_bits(2), table.counter_bits(3)), (Some(CounterBits::B32), Some(CounterBits::B64)));
    assert_eq!(table.counter_bits(4), None);
}

#[test]
fn counted_by_is_kept_true_while_links_come_and_go() {
    let (mut table, kernel) = (table(), FakeKernel::default());
    let counted_by = |ifindex, name: &str, by: &[u32]| LinkInfo { counted_by: by.to_vec(), ..link(ifindex, name) };
    // A VLAN in a VLAN in a link that is not watched.
    table.put(link(2, "old0"), Attachment::default());
    table.put(link(3, "old0.7"), beneath(2));
    table.put(link(4, "old0.7.8"), beneath(3));
    table.put(link(5, "wan"), beneath(4));
    let added = LinkChange::Added(counted_by(5, "wan", &[2, 3, 4]), AddReason::Appeared);
    assert_eq!(report(&mut table, &kernel, 0), [added], "known with the first word of it");
    // The lowest becomes a port of a bond.
    let bond = LinkInfo { kind: LinkKind::Bond, ..link(9, "bond0") };
    table.put(bond.clone(), Attachment::default());
    let port = LinkInfo { enslaved: true, ..link(2, "old0") };
    table.put(port, Attachment { aggregate: Some(9), ..Attachment::default() });
    let expected =
        [LinkChange::Added(bond, AddReason::Appeared), LinkChange::Changed(counted_by(5, "wan", &[2, 3, 4, 9]))];
    assert_eq!(report(&mut table, &kernel, 1), expected);
    table.remove(3);
    assert_eq!(report(&mut table, &kernel, 2), [LinkChange::Changed(counted_by(5, "wan", &[4]))]);
    assert_eq!(report(&mut table, &kernel, 3), []);
}

#[test]
fn a_bridge_and_what_is_on_it_are_counted_in_part_by_its_ports() {
    let (mut table, kernel) = (table(), FakeKernel::default());
    let port = Attachment { bridge: Some(9), ..Attachment::default() };
    table.put(link(2, "eth0"), port);
    // A port that is not watched, a VLAN on another one, and a veth pair of which one end is a port.
    table.put(link(3, "old0"), port);
    table.put(link(4, "eth1"), Attachment::default());
    table.put(link(5, "eth1.7"), Attachment { lower: Some(4), ..port });
    table.put(link(6, "veth0"), Attachment { lower: Some(7), ..port });
    table.put(link(7, "veth1"), beneath(6));
    table.put(LinkInfo { kind: LinkKind::from_kernel("bridge"), ..link(9, "eth9") }, Attachment::default());
    table.put(link(10, "eth9.8"), beneath(9));
    report(&mut table, &kernel, 0);
    let partly = |table: &LinkTable, ifindex| table.get(ifindex).unwrap().partly_counted_by.clone();
    assert_eq!(partly(&table, 9), [2, 3, 4, 5, 6, 7]);
    assert_eq!(partly(&table, 10), [2, 3, 4, 5, 6, 7]);
    assert_eq!(table.get(10).unwrap().counted_by, [9]);
    for ifindex in [2, 4, 5, 6, 7] {
        assert_eq!(partly(&table, ifindex), [0; 0], "{ifindex} counts its bytes alone");
    }
    table.put(link(2, "eth0"), Attachment::default());
    report(&mut table, &kernel, 1);
    assert_eq!(partly(&table, 9), [3, 4, 5, 6, 7], "it left");
}

#[test]
fn ppp_links_are_counted_by_the_devices_of_their_sessions() {
    let (mut table, kernel) = (table(), FakeKernel::default());
    let ppp = |ifindex, name: &str, by: &[u32]| {
        let (kind, counted_by) = (LinkKind::Ppp, by.to_vec());
        LinkInfo { kind, counted_by, ..link(ifindex, name) }
    };
    let altnames = vec!["uplink".to_owned()];
    table.put(LinkInfo { altnames, ..link(2, "eth0") }, Attachment::default());
    table.put(link(3, "eth0.7"), beneath(2));
    table.put(link(4, "eth1"), Attachment::default());
    table.put(ppp(5, "ppp0", &[]), Attachment::default());
    report(&mut table, &kernel, 0);
    assert_eq!(table.get(5).unwrap().counted_by, [0; 0], "a modem's: there is no session");
    // A session through a VLAN: it is seen within a minute, or when links change.
    kernel.sessions_on(&["eth0.7"]);
    assert_eq!(report(&mut table, &kernel, 59), []);
    assert_eq!(report(&mut table, &kernel, 60), [LinkChange::Changed(ppp(5, "ppp0", &[2, 3]))]);
    // Two sessions on two links: which runs over which is unknown, so both links count both.
    kernel.sessions_on(&["eth0.7", "eth1"]);
    table.put(ppp(6, "ppp1", &[]), Attachment::default());
    let expected = [
        LinkChange::Added(ppp(6, "ppp1", &[2, 3, 4]), AddReason::Appeared),
        LinkChange::Changed(ppp(5, "ppp0", &[2, 3, 4])),
    ];
    assert_eq!(report(&mut table, &kernel, 61), expected);
    // A third ppp link, of a modem: now no assignment is certain, and a warning is logged.
    table.put(ppp(7, "ppp2", &[]), Attachment::default());
    report(&mut table, &kernel, 62);
    assert!([5, 6, 7].iter().all(|ifindex| table.get(*ifindex).unwrap().counted_by.is_empty()));
    assert!(table.warned_of_sessions);
    // A device may appear under the name that it had when the session began.
    table.remove(7);
    kernel.sessions_on(&["uplink", "uplink"]);
    report(&mut table, &kernel, 63);
    assert_eq!(table.get(5).unwrap().counted_by, [2]);
}

#[test]
fn uncertain_sessions_are_no_matter_where_their_links_are_not_summed() {
    let mut table = LinkTable::new(InterfaceFilter::new(&["ppp*".to_owned()], &[], &["eth0".to_owned()]));
    let kernel = FakeKernel::default();
    table.put(link(2, "eth0"), Attachment::default());
    for ifindex in [3, 4] {
        table.put(LinkInfo { kind: LinkKind::Ppp, ..link(ifindex, "ppp0") }, Attachment::default());
    }
    kernel.sessions_on(&["eth0"]);
    report(&mut table, &kernel, 0);
    assert!(!table.get(2).unwrap().selected && !table.warned_of_sessions);
}

#[test]
fn what_only_a_limit_names_is_not_selected() {
    let mut table = LinkTable::new(InterfaceFilter::new(&["*".to_owned()], &[], &["eth*".to_owned()]));
    put(&mut table, link(2, "eth0"));
    assert!(table.get(2).unwrap().selected);
    let port = LinkInfo { enslaved: true, selected: false, ..link(2, "eth0") };
    assert_eq!(put(&mut table, port.clone()), [LinkChange::Changed(port)]);
    assert_eq!(put(&mut table, link(2, "eth0")), [LinkChange::Changed(link(2, "eth0"))]);
}

/// Reads a table that has only these links.
fn whole(selection: InterfaceFilter, links: &[LinkInfo]) -> (LinkTable, Vec<LinkChange>) {
    let mut table = LinkTable::new(selection);
    table.mark();
    links.iter().for_each(|link| table.put(link.clone(), Attachment::default()));
    table.sweep();
    let changes = changes(&mut table);
    (table, changes)
}

fn veth(ifindex: u32, name: &str, up: bool) -> LinkInfo {
    LinkInfo { up, ..LinkInfo::new(ifindex, name, LinkKind::Other("veth".into())) }
}

#[test]
fn links_of_other_kinds_that_are_up_are_watched_until_there_is_one_of_the_default_kinds() {
    let lo = LinkInfo::new(1, "lo", LinkKind::Loopback);
    let (eth0, eth1) = (veth(2, "eth0", true), veth(3, "eth1", false));
    let appeared = |link: &LinkInfo| LinkChange::Added(link.clone(), AddReason::Appeared);
    let (mut table, first) = whole(InterfaceFilter::default(), &[lo, eth0.clone(), eth1]);
    assert_eq!(first, [appeared(&eth0)]);
    let eth1 = veth(3, "eth1", true);
    assert_eq!(put(&mut table, eth1.clone()), [appeared(&eth1)]);
    let down = veth(2, "eth0", false);
    assert_eq!(put(&mut table, down.clone()), [LinkChange::Changed(down)], "it stays, as others do");
    let wan0 = link(9, "wan0");
    let unselected = |ifindex| LinkChange::Removed(ifindex, RemoveReason::Unselected);
    assert_eq!(put(&mut table, wan0.clone()), [unselected(2), unselected(3), appeared(&wan0)]);
    table.remove(9);
    assert_eq!(changes(&mut table), [LinkChange::Removed(9, RemoveReason::Gone)]);
    assert_eq!(put(&mut table, eth0), [], "an uplink that comes and goes is no reason");
}

#[test]
fn links_of_other_kinds_are_not_watched_beside_default_ones_nor_where_something_is_configured() {
    let (eth0, wan0) = (veth(2, "eth0", true), link(3, "wan0"));
    let (_, changes) = whole(InterfaceFilter::default(), &[eth0.clone(), wan0.clone()]);
    assert_eq!(changes, [LinkChange::Added(wan0, AddReason::Appeared)]);
    let patterns = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for (include, exclude) in [("*", "eth7"), ("* eth7", ""), ("", "")] {
        let selection = InterfaceFilter::new(&patterns(include), &patterns(exclude), &[]);
        assert_eq!(whole(selection, std::slice::from_ref(&eth0)).1, [], "include {include}, exclude {exclude}");
    }
}

#[test]
fn an_altname_that_comes_and_goes_watches_a_link_and_does_not() {
    let mut table = LinkTable::new(InterfaceFilter::new(&["uplink".to_owned()], &[], &[]));
    assert_eq!(put(&mut table, link(2, "eth0")), []);
    let named = LinkInfo { altnames: vec!["uplink".to_owned()], ..link(2, "eth0") };
    assert_eq!(put(&mut table, named.clone()), [LinkChange::Added(named, AddReason::Named)]);
    assert_eq!(put(&mut table, link(2, "eth0")), [LinkChange::Removed(2, RemoveReason::Unselected)]);
}

proptest::proptest! {
    #[test]
    fn the_changes_add_up(steps in proptest::collection::vec((0u8..4, 1u32..5, 0usize..4, 0u8..4), 0..60)) {
        const NAMES: [&str; 4] = ["eth0", "eth1", "old0", "wan0"];
        let mut table = table();
        let mut known = std::collections::BTreeMap::new();
        let (drivers, mut second) = (FakeKernel::default(), 0);
        for (what, ifindex, name, state) in steps {
            let mut link = link(ifindex, NAMES[name]);
            (link.up, link.enslaved) = (state & 1 == 0, state & 2 == 0);
            match what {
                0 => table.remove(ifindex),
                1 => {
                    table.mark();
                    table.put(link, Attachment::default());
                    table.sweep();
                    assert_eq!(table.len(), 1);
                }
                2 => table.put(link, Attachment { lower: Some(5 - ifindex), aggregate: Some(3), bridge: Some(2) }),
                _ => table.put(link, Attachment::default()),
            }
            // Sometimes several changes come with one report.
            if state == 0 {
                continue;
            }
            drivers.mbps.set(Some(u64::from(state) * 100));
            second += 25;
            for change in report(&mut table, &drivers, second) {
                match change {
                    LinkChange::Added(link, _) => assert!(known.insert(link.ifindex, link).is_none()),
                    LinkChange::Changed(link) => assert!(known.insert(link.ifindex, link).is_some()),
                    LinkChange::Removed(ifindex, _) => assert!(known.remove(&ifindex).is_some()),
                }
            }
            assert!(known.keys().copied().eq(table.watched()));
            assert!(known.values().all(|link| table.get(link.ifindex) == Some(link)));
        }
    }
}
