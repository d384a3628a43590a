//! Links as of the latest reading, and what changed since: added, removed, renamed, stacked, with another speed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stacking::{Attachment, holders, reachable};
use super::{AddReason, CounterBits, LinkChange, LinkInfo, LinkKind, RemoveReason, Speed};
use crate::agent::counters::filter::{self, InterfaceFilter};
use crate::units::counted;

/// Interval of polling what the kernel does not report: a changed speed, a new PPPoE session.
const POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Table of all links, since unwatched ones may be renamed into the selection.
#[derive(Debug)]
pub(super) struct LinkTable {
    selection: InterfaceFilter,
    /// True while links of any kind are watched, for want of others; unknown before the first reading of the whole table.
    falls_back: Option<bool>,
    entries: Vec<Entry>,
    changes: Vec<LinkChange>,
    changes_before: usize,
    topology_changed: bool,
    polled_at: Option<Duration>,
    warned_of_sessions: bool,
}

#[derive(Debug)]
struct Entry {
    link: LinkInfo,
    attachment: Attachment,
    bits: CounterBits,
    watched: bool,
    seen: bool,
    speed_is_stale: bool,
}

pub(super) trait LinkQueries {
    fn speed(&self, link: &LinkInfo) -> Speed;

    fn pppoe_devices(&self) -> Vec<String>;
}

impl LinkTable {
    pub(super) fn new(selection: InterfaceFilter) -> Self {
        Self {
            selection,
            falls_back: None,
            entries: Vec::new(),
            changes: Vec::new(),
            changes_before: 0,
            topology_changed: false,
            polled_at: None,
            warned_of_sessions: false,
        }
    }

    pub(super) fn put(&mut self, mut link: LinkInfo, attachment: Attachment) {
        // A link of the default kinds ends the fallback for good: uplinks that come and go must not switch others off and on.
        if self.falls_back == Some(true) && filter::watched_by_default(&link) {
            self.falls_back = Some(false);
            self.put_again();
        }
        let bits = self.selection.counter_bits(&link).unwrap_or(CounterBits::B64);
        // Once up, such a link stays while it is down, as others do.
        let is_fallback = self.falls_back == Some(true) && (filter::is_fallback(&link) || self.watches(link.ifindex));
        let watched = is_fallback || self.selection.watches(&link);
        link.selected = is_fallback || self.selection.selects(&link);
        let at = match self.position(link.ifindex) {
            // A link's kind never changes: this is another link with a reused ifindex, and the first one's removal went unnoticed.
            Ok(at) if self.entries[at].link.kind != link.kind => {
                self.remove(link.ifindex);
                Err(at)
            }
            found => found,
        };
        match at {
            Err(at) => {
                if watched {
                    self.changes.push(LinkChange::Added(link.clone(), AddReason::Appeared));
                }
                let entry = Entry { link, attachment, bits, watched, seen: true, speed_is_stale: watched };
                self.entries.insert(at, entry);
                self.topology_changed = true;
                self.mark_aggregate_speeds_stale([attachment]);
            }
            Ok(at) => {
                let entry = &mut self.entries[at];
                entry.seen = true;
                entry.bits = bits;
                if entry.watched && watched {
                    link.speed = entry.link.speed;
                    link.counted_by.clone_from(&entry.link.counted_by);
                    link.partly_counted_by.clone_from(&entry.link.partly_counted_by);
                }
                let changed = entry.link != link || entry.watched != watched;
                entry.speed_is_stale = watched && (entry.speed_is_stale || changed);
                let attached_before = std::mem::replace(&mut entry.attachment, attachment);
                let changes_topology = changed || attached_before != attachment;
                self.topology_changed |= changes_topology;
                let was_watched = std::mem::replace(&mut entry.watched, watched);
                let old = std::mem::replace(&mut entry.link, link.clone());
                let change = match (was_watched, watched) {
                    (true, true) => changed.then_some(LinkChange::Changed(link)),
                    (false, true) => Some(LinkChange::Added(link.clone(), AddReason::of_change(old, &link))),
                    (true, false) => Some(LinkChange::Removed(link.ifindex, RemoveReason::of_change(&old, link))),
                    (false, false) => None,
                };
                self.changes.extend(change);
                if changes_topology {
                    self.mark_aggregate_speeds_stale([attached_before, attachment]);
                }
            }
        }
    }

    fn put_again(&mut self) {
        for at in 0..self.entries.len() {
            let Entry { link, attachment, seen, .. } = &self.entries[at];
            let (link, attachment, seen) = (link.clone(), *attachment, *seen);
            self.put(link, attachment);
            self.entries[at].seen = seen;
        }
    }

    pub(super) fn mark_speed_stale(&mut self, ifindex: u32) {
        if let Ok(at) = self.position(ifindex) {
            self.entries[at].speed_is_stale |= self.entries[at].watched;
        }
    }

    /// Asks again for the speeds of bonds and teams, sums of their ports': a port came, went or changed.
    fn mark_aggregate_speeds_stale(&mut self, ports: impl IntoIterator<Item = Attachment>) {
        ports.into_iter().filter_map(|port| port.aggregate).for_each(|aggregate| self.mark_speed_stale(aggregate));
    }

    pub(super) fn remove(&mut self, ifindex: u32) {
        let Ok(at) = self.position(ifindex) else { return };
        self.topology_changed = true;
        let Entry { watched, attachment, .. } = self.entries.remove(at);
        if watched {
            self.changes.push(LinkChange::Removed(ifindex, RemoveReason::Gone));
        }
        self.mark_aggregate_speeds_stale([attachment]);
    }

    /// Begins a reading of the whole table: links neither put nor kept until [`sweep`](Self::sweep) are removed.
    pub(super) fn mark(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.seen = false);
        self.changes_before = self.changes.len();
    }

    pub(super) fn keep(&mut self, ifindex: u32) {
        if let Ok(at) = self.position(ifindex) {
            self.entries[at].seen = true;
        }
    }

    /// Removes unseen links, ahead of what was put since the mark, so that names are free again.
    pub(super) fn sweep(&mut self) {
        let put = self.changes.len() - self.changes_before;
        let gone: Vec<Entry> = self.entries.extract_if(.., |entry| !entry.seen).collect();
        self.topology_changed |= !gone.is_empty();
        let removed = gone.iter().filter(|entry| entry.watched);
        self.changes.extend(removed.map(|entry| LinkChange::Removed(entry.link.ifindex, RemoveReason::Gone)));
        self.changes[self.changes_before..].rotate_left(put);
        self.mark_aggregate_speeds_stale(gone.iter().map(|entry| entry.attachment));
        if self.falls_back.is_none() {
            let has_others = self.entries.iter().any(|entry| filter::watched_by_default(&entry.link));
            let falls_back = self.selection.may_fall_back() && !has_others;
            self.falls_back = Some(falls_back);
            if falls_back {
                self.put_again();
            }
        }
    }

    pub(super) fn watches(&self, ifindex: u32) -> bool {
        self.counter_bits(ifindex).is_some()
    }

    pub(super) fn counter_bits(&self, ifindex: u32) -> Option<CounterBits> {
        let entry = &self.entries[self.position(ifindex).ok()?];
        entry.watched.then_some(entry.bits)
    }

    pub(super) fn get(&self, ifindex: u32) -> Option<&LinkInfo> {
        self.position(ifindex).ok().map(|at| &self.entries[at].link)
    }

    pub(super) fn attachment(&self, ifindex: u32) -> Option<Attachment> {
        self.position(ifindex).ok().map(|at| self.entries[at].attachment)
    }

    pub(super) fn unseen(&self) -> impl Iterator<Item = &LinkInfo> {
        self.entries.iter().filter(|entry| !entry.seen).map(|entry| &entry.link)
    }

    pub(super) fn watched(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter(|entry| entry.watched).map(|entry| entry.link.ifindex)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.polled_at.is_none_or(|at| now.saturating_sub(at) >= POLL_INTERVAL)
    }

    pub(super) fn report(&mut self, facts: &impl LinkQueries, now: Duration, changes: &mut Vec<LinkChange>) {
        let due = self.is_due(now);
        if due {
            if self.polled_at.is_none() {
                let links: Vec<&LinkInfo> = self.entries.iter().map(|entry| &entry.link).collect();
                self.selection.warnings(&links).iter().for_each(|warning| log::warn!("{warning}"));
            }
            self.polled_at = Some(now);
            for entry in self.entries.iter_mut().filter(|entry| entry.watched) {
                entry.speed_is_stale |= entry.link.kind == LinkKind::Physical || entry.link.kind.is_aggregate();
            }
        }
        self.ask_speeds(facts);
        let topology_changed = std::mem::take(&mut self.topology_changed);
        if due || topology_changed {
            self.update_counted_by(facts);
        }
        changes.append(&mut self.changes);
    }

    /// Updates stale speeds. Only links that are up are asked: drivers of others report -1, 0, 10 Mbit/s or the last speed.
    fn ask_speeds(&mut self, facts: &impl LinkQueries) {
        let Self { selection, entries, changes, .. } = self;
        for Entry { link, speed_is_stale, .. } in entries {
            if !std::mem::take(speed_is_stale) {
                continue;
            }
            let mut speed = selection.speed(link);
            if link.up && !speed.is_known() {
                speed = speed.or(facts.speed(link));
            }
            if link.speed != speed {
                link.speed = speed;
                merge_change(changes, link);
            }
        }
    }

    fn update_counted_by(&mut self, facts: &impl LinkQueries) {
        let carriers = self.pppoe_carriers(facts);
        let attached = |ifindex: u32| {
            let entry = self.position(ifindex).ok().map(|at| &self.entries[at]);
            let Attachment { lower, aggregate, .. } = entry.map(|entry| entry.attachment).unwrap_or_default();
            let mut attached: Vec<u32> = lower.into_iter().chain(aggregate).collect();
            if entry.is_some_and(|entry| entry.link.kind == LinkKind::Ppp) {
                attached.extend(&carriers);
            }
            attached.retain(|ifindex| self.position(*ifindex).is_ok());
            attached
        };
        let mut ports: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in &self.entries {
            if let Some(bridge) = entry.attachment.bridge {
                ports.entry(bridge).or_default().push(entry.link.ifindex);
            }
        }
        let partly_counted_by = |ifindex: u32| {
            let wholly = reachable(ifindex, attached);
            let through_bridges =
                |link: u32| attached(link).into_iter().chain(ports.get(&link).into_iter().flatten().copied());
            let mut found = reachable(ifindex, through_bridges);
            found.retain(|other| *other != ifindex && wholly.binary_search(other).is_err());
            found
        };
        let watched = self.entries.iter().enumerate().filter(|(_, entry)| entry.watched);
        let found: Vec<_> = watched
            .map(|(at, Entry { link, .. })| {
                let partly = if ports.is_empty() { Vec::new() } else { partly_counted_by(link.ifindex) };
                (at, (holders(link.ifindex, attached), partly))
            })
            .collect();
        for (at, by) in found {
            let link = &mut self.entries[at].link;
            if (&link.counted_by, &link.partly_counted_by) != (&by.0, &by.1) {
                (link.counted_by, link.partly_counted_by) = by;
                merge_change(&mut self.changes, link);
            }
        }
    }

    /// Returns the links beneath PPPoE sessions, if all ppp links are such: the kernel does not report which are.
    fn pppoe_carriers(&mut self, facts: &impl LinkQueries) -> Vec<u32> {
        let ppp: Vec<&LinkInfo> =
            self.entries.iter().map(|e| &e.link).filter(|link| link.kind == LinkKind::Ppp).collect();
        if ppp.is_empty() {
            return Vec::new();
        }
        let devices = facts.pppoe_devices();
        let named = |link: &&LinkInfo| devices.iter().any(|device| filter::is_called(device, link));
        let carriers: Vec<&LinkInfo> = self.entries.iter().map(|entry| &entry.link).filter(named).collect();
        if devices.len() >= ppp.len() {
            return carriers.iter().map(|link| link.ifindex).collect();
        }
        let any_selected = |links: &[&LinkInfo]| links.iter().any(|link| link.selected);
        if !self.warned_of_sessions && any_selected(&carriers) && any_selected(&ppp) {
            log::warn!(
                "{}, but {} (on {}): the sum over the host may have bytes of PPPoE twice; exclude the \
                 ppp links that run over them, or those devices",
                counted(ppp.len() as u64, "ppp link"),
                counted(devices.len() as u64, "PPPoE session"),
                devices.join(", ")
            );
            self.warned_of_sessions = true;
        }
        Vec::new()
    }

    fn position(&self, ifindex: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&ifindex, |entry| entry.link.ifindex)
    }
}

fn merge_change(changes: &mut Vec<LinkChange>, link: &LinkInfo) {
    let last = changes.iter_mut().rev().find_map(|change| match change {
        LinkChange::Added(known, _) | LinkChange::Changed(known) if known.ifindex == link.ifindex => Some(known),
        _ => None,
    });
    match last {
        Some(known) => known.clone_from(link),
        None => changes.push(LinkChange::Changed(link.clone())),
    }
}

impl AddReason {
    fn of_change(old: LinkInfo, new: &LinkInfo) -> Self {
        if old.name != new.name {
            Self::RenamedFrom(old.name)
        } else if old.enslaved && !new.enslaved {
            Self::Released
        } else if old.altnames != new.altnames {
            Self::Named
        } else {
            Self::Appeared
        }
    }
}

impl RemoveReason {
    fn of_change(old: &LinkInfo, new: LinkInfo) -> Self {
        if old.name != new.name {
            Self::RenamedTo(new.name)
        } else if new.enslaved && !old.enslaved {
            Self::Enslaved
        } else {
            Self::Unselected
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::agent::counters::filter::LinkOverride;
    use crate::units::BitRate;

    #[derive(Default)]
    struct Known {
        mbps: Cell<Option<u64>>,
        sessions: RefCell<Vec<String>>,
        asked: RefCell<Vec<String>>,
    }

    impl LinkQueries for Known {
        fn speed(&self, link: &LinkInfo) -> Speed {
            self.asked.borrow_mut().push(link.name.clone());
            Speed::both(self.mbps.get().map(|mbps| BitRate::from_bps(mbps * 1_000_000)))
        }

        fn pppoe_devices(&self) -> Vec<String> {
            self.sessions.borrow().clone()
        }
    }

    impl Known {
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
        report(table, &Known::default(), 0)
    }

    fn report(table: &mut LinkTable, known: &Known, second: u64) -> Vec<LinkChange> {
        let mut changes = Vec::new();
        table.report(known, Duration::from_secs(second), &mut changes);
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
        let expected =
            [LinkChange::Removed(2, RemoveReason::Gone), LinkChange::Added(other.clone(), AddReason::Appeared)];
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
        let (mut table, known) = (table(), Known::default());
        known.mbps.set(Some(100));
        table.put(link(2, "old0"), Attachment::default());
        table.put(link(3, "eth0"), Attachment::default());
        let eth0 = LinkInfo { speed: speed(100), ..link(3, "eth0") };
        assert_eq!(report(&mut table, &known, 0), [LinkChange::Added(eth0, AddReason::Appeared)]);
        assert_eq!(known.asked(), ["eth0"]);
    }

    #[test]
    fn speed_is_asked_again_each_minute_and_when_the_kernel_tells_of_the_link() {
        let (mut table, known) = (table(), Known::default());
        known.mbps.set(Some(1_000));
        let veth = || LinkInfo { kind: LinkKind::from_kernel("veth"), ..link(3, "eth1") };
        let bond = || LinkInfo { kind: LinkKind::Bond, ..link(4, "eth2") };
        for link in [link(2, "eth0"), veth(), bond()] {
            table.put(link, Attachment::default());
        }
        report(&mut table, &known, 100);
        known.asked();
        known.mbps.set(Some(100));
        assert_eq!(report(&mut table, &known, 159), []);
        assert_eq!(known.asked(), [""; 0]);
        let slower = |link: LinkInfo| LinkChange::Changed(LinkInfo { speed: speed(100), ..link });
        assert_eq!(report(&mut table, &known, 160), [slower(link(2, "eth0")), slower(bond())]);
        assert_eq!(known.asked(), ["eth0", "eth2"], "a veth's does not change by itself");
        assert_eq!(report(&mut table, &known, 161), []);
        table.mark_speed_stale(3);
        assert_eq!(report(&mut table, &known, 162), [slower(veth())]);
    }

    #[test]
    fn the_speed_of_a_bond_is_asked_again_when_its_ports_change() {
        let (mut table, known) = (table(), Known::default());
        let bond = || LinkInfo { kind: LinkKind::Bond, ..link(9, "eth9") };
        // Not watched, as a port usually is not.
        let port = |ifindex, up| LinkInfo { enslaved: true, up, ..link(ifindex, "old0") };
        let (of_bond, free) = (Attachment { aggregate: Some(9), ..Attachment::default() }, Attachment::default());
        table.put(bond(), free);
        assert_eq!(report(&mut table, &known, 0), [LinkChange::Added(bond(), AddReason::Appeared)], "without a speed");
        known.asked();
        let mut second = 0;
        let mut is_asked = |what: &str, table: &mut LinkTable| {
            second += 1;
            known.mbps.set(Some(second * 100));
            let changes = report(table, &known, second);
            assert_eq!(changes, [LinkChange::Changed(LinkInfo { speed: speed(second * 100), ..bond() })], "{what}");
            assert_eq!(known.asked(), ["eth9"], "{what}");
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
        assert_eq!(report(&mut table, &known, 20), []);
        assert_eq!(known.asked(), [""; 0], "nothing changed");
    }

    #[test]
    fn a_link_that_is_down_has_no_speed_and_its_driver_is_not_asked() {
        let (mut table, known) = (table(), Known::default());
        known.mbps.set(Some(10));
        let down = LinkInfo { up: false, ..link(2, "eth0") };
        table.put(down.clone(), Attachment::default());
        assert_eq!(report(&mut table, &known, 0), [LinkChange::Added(down.clone(), AddReason::Appeared)]);
        let up = LinkInfo { speed: speed(10), ..link(2, "eth0") };
        table.put(link(2, "eth0"), Attachment::default());
        assert_eq!(report(&mut table, &known, 1), [LinkChange::Changed(up.clone())]);
        // Down and up again between two readings: both are reported, and the last one is right.
        table.put(down.clone(), Attachment::default());
        table.put(link(2, "eth0"), Attachment::default());
        let passing = LinkInfo { speed: speed(10), ..down.clone() };
        assert_eq!(report(&mut table, &known, 2), [LinkChange::Changed(passing), LinkChange::Changed(up)]);
        assert_eq!(put(&mut table, down.clone()), [LinkChange::Changed(down)]);
    }

    #[test]
    fn what_is_configured_wins_over_the_driver() {
        let overrides = vec![
            LinkOverride { interface: "eth0".into(), speed: speed(7), counter_bits: Some(CounterBits::B32) },
            LinkOverride { interface: "eth1".into(), speed: Speed { tx: None, ..speed(5) }, counter_bits: None },
        ];
        let mut table = LinkTable::new(InterfaceFilter::default().with_overrides(overrides));
        let known = Known::default();
        known.mbps.set(Some(100));
        table.put(link(2, "eth0"), Attachment::default());
        table.put(link(3, "eth1"), Attachment::default());
        report(&mut table, &known, 0);
        assert_eq!(table.get(2).unwrap().speed, speed(7));
        assert_eq!(table.get(3).unwrap().speed, Speed { rx: speed(5).rx, tx: speed(100).tx });
        assert_eq!(known.asked(), ["eth1"], "of eth0 all is known");
        assert_eq!((table.counter_bits(2), table.counter_bits(3)), (Some(CounterBits::B32), Some(CounterBits::B64)));
        assert_eq!(table.counter_bits(4), None);
    }

    #[test]
    fn counted_by_is_kept_true_while_links_come_and_go() {
        let (mut table, known) = (table(), Known::default());
        let counted_by = |ifindex, name: &str, by: &[u32]| LinkInfo { counted_by: by.to_vec(), ..link(ifindex, name) };
        // A VLAN in a VLAN in a link that is not watched.
        table.put(link(2, "old0"), Attachment::default());
        table.put(link(3, "old0.7"), beneath(2));
        table.put(link(4, "old0.7.8"), beneath(3));
        table.put(link(5, "wan"), beneath(4));
        let added = LinkChange::Added(counted_by(5, "wan", &[2, 3, 4]), AddReason::Appeared);
        assert_eq!(report(&mut table, &known, 0), [added], "known with the first word of it");
        // The lowest becomes a port of a bond.
        let bond = LinkInfo { kind: LinkKind::Bond, ..link(9, "bond0") };
        table.put(bond.clone(), Attachment::default());
        let port = LinkInfo { enslaved: true, ..link(2, "old0") };
        table.put(port, Attachment { aggregate: Some(9), ..Attachment::default() });
        let expected =
            [LinkChange::Added(bond, AddReason::Appeared), LinkChange::Changed(counted_by(5, "wan", &[2, 3, 4, 9]))];
        assert_eq!(report(&mut table, &known, 1), expected);
        table.remove(3);
        assert_eq!(report(&mut table, &known, 2), [LinkChange::Changed(counted_by(5, "wan", &[4]))]);
        assert_eq!(report(&mut table, &known, 3), []);
    }

    #[test]
    fn a_bridge_and_what_is_on_it_are_counted_in_part_by_its_ports() {
        let (mut table, known) = (table(), Known::default());
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
        report(&mut table, &known, 0);
        let partly = |table: &LinkTable, ifindex| table.get(ifindex).unwrap().partly_counted_by.clone();
        assert_eq!(partly(&table, 9), [2, 3, 4, 5, 6, 7]);
        assert_eq!(partly(&table, 10), [2, 3, 4, 5, 6, 7]);
        assert_eq!(table.get(10).unwrap().counted_by, [9]);
        for ifindex in [2, 4, 5, 6, 7] {
            assert_eq!(partly(&table, ifindex), [0; 0], "{ifindex} counts its bytes alone");
        }
        table.put(link(2, "eth0"), Attachment::default());
        report(&mut table, &known, 1);
        assert_eq!(partly(&table, 9), [3, 4, 5, 6, 7], "it left");
    }

    #[test]
    fn ppp_links_are_counted_by_the_devices_of_their_sessions() {
        let (mut table, known) = (table(), Known::default());
        let ppp = |ifindex, name: &str, by: &[u32]| {
            let (kind, counted_by) = (LinkKind::Ppp, by.to_vec());
            LinkInfo { kind, counted_by, ..link(ifindex, name) }
        };
        let altnames = vec!["uplink".to_owned()];
        table.put(LinkInfo { altnames, ..link(2, "eth0") }, Attachment::default());
        table.put(link(3, "eth0.7"), beneath(2));
        table.put(link(4, "eth1"), Attachment::default());
        table.put(ppp(5, "ppp0", &[]), Attachment::default());
        report(&mut table, &known, 0);
        assert_eq!(table.get(5).unwrap().counted_by, [0; 0], "a modem's: there is no session");
        // A session through a VLAN: it is seen within a minute, or when links change.
        known.sessions_on(&["eth0.7"]);
        assert_eq!(report(&mut table, &known, 59), []);
        assert_eq!(report(&mut table, &known, 60), [LinkChange::Changed(ppp(5, "ppp0", &[2, 3]))]);
        // Two sessions on two links: which runs over which is unknown, so both links count both.
        known.sessions_on(&["eth0.7", "eth1"]);
        table.put(ppp(6, "ppp1", &[]), Attachment::default());
        let expected = [
            LinkChange::Added(ppp(6, "ppp1", &[2, 3, 4]), AddReason::Appeared),
            LinkChange::Changed(ppp(5, "ppp0", &[2, 3, 4])),
        ];
        assert_eq!(report(&mut table, &known, 61), expected);
        // A third ppp link, of a modem: now no assignment is certain, and a warning is logged.
        table.put(ppp(7, "ppp2", &[]), Attachment::default());
        report(&mut table, &known, 62);
        assert!([5, 6, 7].iter().all(|ifindex| table.get(*ifindex).unwrap().counted_by.is_empty()));
        assert!(table.warned_of_sessions);
        // A device may appear under the name that it had when the session began.
        table.remove(7);
        known.sessions_on(&["uplink", "uplink"]);
        report(&mut table, &known, 63);
        assert_eq!(table.get(5).unwrap().counted_by, [2]);
    }

    #[test]
    fn uncertain_sessions_are_no_matter_where_their_links_are_not_summed() {
        let mut table = LinkTable::new(InterfaceFilter::new(&["ppp*".to_owned()], &[], &["eth0".to_owned()]));
        let known = Known::default();
        table.put(link(2, "eth0"), Attachment::default());
        for ifindex in [3, 4] {
            table.put(LinkInfo { kind: LinkKind::Ppp, ..link(ifindex, "ppp0") }, Attachment::default());
        }
        known.sessions_on(&["eth0"]);
        report(&mut table, &known, 0);
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
            let (drivers, mut second) = (Known::default(), 0);
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
}
