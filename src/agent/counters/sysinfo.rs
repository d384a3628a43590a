//! The portable source, by the crate sysinfo: for other systems, old kernels, and sandboxes that refuse netlink. sysinfo reports a
//! failed read as 0, after which all that was ever counted would look like one second's traffic. A 0 is therefore believed only
//! where the kernel's file confirms it, and a link is removed only where sysfs lacks it. Without sysfs, a link with nothing but
//! zeros is left out, unless its last counters were so low that a false 0 does no harm. Altnames and dropped packets are unknown.

use std::path::Path;

use ::sysinfo::Networks;

use super::link_table::LinkTable;
use super::moment::Moment;
use super::stacking::Attachment;
use super::sysfs::{Presence, Sysfs, kind_by_name};
use super::{CounterError, CounterSource, Counters, LinkInfo, Packets, Reading};
use crate::agent::counters::filter::InterfaceFilter;
use crate::process::clock::Clock;

const FIRST_OWN_IFINDEX: u32 = 1 << 31;
/// Without sysfs, counters of 0 are believed if the last ones summed up to at most this.
const LITTLE_BYTES: u64 = 64 << 10;

pub(super) struct Sysinfo {
    networks: Networks,
    links: Links,
}

#[derive(Debug)]
struct Links {
    sysfs: Sysfs,
    table: LinkTable,
    own: Vec<OwnLink>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LinkTotals {
    rx_bytes: u64,
    tx_bytes: u64,
    packets: Packets,
    errors: Packets,
}

#[derive(Debug)]
struct OwnLink {
    ifindex: u32,
    name: String,
    last_bytes: Option<u64>,
}

impl Sysinfo {
    pub(super) fn new(root: &Path, selection: InterfaceFilter) -> Result<Self, CounterError> {
        let networks = Networks::new().map_err(|_| CounterError::Unavailable("sysinfo"))?;
        let links = Links { sysfs: Sysfs::new(root), table: LinkTable::new(selection), own: Vec::new() };
        Ok(Self { networks, links })
    }
}

impl Links {
    fn update(&mut self, networks: &Networks, reading: &mut Reading) -> Result<(), CounterError> {
        if networks.is_empty() {
            self.sysfs.list().map_err(|error| CounterError::system("listing the links", error))?;
        }
        let due = self.table.is_due(reading.at);
        self.table.mark();
        let mut found = Vec::new();
        for (name, data) in networks {
            let Some(name) = name.to_str() else { continue };
            found.extend(self.follow(name, due).map(|ifindex| (name, ifindex, data)));
        }
        self.keep_unless_gone();
        self.table.sweep();
        // Which links are watched can depend on all others.
        for (name, ifindex, data) in found {
            let totals = LinkTotals {
                rx_bytes: data.total_received(),
                tx_bytes: data.total_transmitted(),
                packets: Packets { rx: data.total_packets_received(), tx: data.total_packets_transmitted() },
                errors: Packets { rx: data.total_errors_on_received(), tx: data.total_errors_on_transmitted() },
            };
            reading.counters.extend(self.counters(name, ifindex, totals));
        }
        self.table.report(&self.sysfs, reading.at, &mut reading.changes);
        Ok(())
    }

    /// Keeps links that could not be read: without free file descriptors, sysinfo sees no links at all.
    fn keep_unless_gone(&mut self) {
        if !self.sysfs.exists() {
            return;
        }
        let there = |link: &&LinkInfo| match self.sysfs.presence(&link.name) {
            Presence::Gone => false,
            // Another link may have taken over its name.
            _ => self.sysfs.ifindex(&link.name).is_none_or(|ifindex| ifindex == link.ifindex),
        };
        let unseen: Vec<u32> = self.table.unseen().filter(there).map(|link| link.ifindex).collect();
        unseen.into_iter().for_each(|ifindex| self.table.keep(ifindex));
    }

    /// Numbers a link by its name: after a reload, which reopens the source, it has the same number, and no other link has it.
    fn own_ifindex(&mut self, name: &str) -> u32 {
        if let Some(own) = self.own.iter().find(|own| own.name == name) {
            return own.ifindex;
        }
        let by_name = FIRST_OWN_IFINDEX | crc32fast::hash(name.as_bytes());
        let is_free = |ifindex: &u32| self.own.iter().all(|own| own.ifindex != *ifindex);
        let ifindex = (by_name..=u32::MAX).chain(FIRST_OWN_IFINDEX..by_name).find(is_free).unwrap_or(by_name);
        self.own.push(OwnLink { ifindex, name: name.to_owned(), last_bytes: None });
        ifindex
    }

    fn follow(&mut self, name: &str, due: bool) -> Option<u32> {
        if !self.sysfs.exists() {
            let ifindex = self.own_ifindex(name);
            let (kind, name) = (kind_by_name(name), name.to_owned());
            self.table.put(LinkInfo::new(ifindex, name, kind), Attachment::default());
            return Some(ifindex);
        }
        let ifindex = self.sysfs.ifindex(name)?;
        let known = self.table.get(ifindex).filter(|known| known.name == name);
        // Saves files: unwatched links, maybe hundreds, cost one each.
        if known.is_some_and(|known| !due && !known.enslaved && !self.table.watches(ifindex)) {
            self.table.keep(ifindex);
        } else {
            let lower = self.table.attachment(ifindex).and_then(|attachment| attachment.lower);
            let known = known.filter(|_| !due).map(|known| (known.kind.clone(), lower));
            let (link, attachment) = self.sysfs.link(name, known)?;
            self.table.put(link, attachment);
        }
        Some(ifindex)
    }

    fn counters(&mut self, name: &str, ifindex: u32, totals: LinkTotals) -> Option<Counters> {
        let bits = self.table.counter_bits(ifindex)?;
        let LinkTotals { rx_bytes, tx_bytes, packets, errors } = totals;
        let believed = match self.own.iter_mut().find(|own| own.name == name) {
            Some(own) => {
                let little = own.last_bytes.is_some_and(|bytes| bytes <= LITTLE_BYTES);
                let believed = little || totals != LinkTotals::default();
                if believed {
                    own.last_bytes = Some(rx_bytes.saturating_add(tx_bytes));
                }
                believed
            }
            None => {
                let mut counters = [("rx_bytes", rx_bytes), ("tx_bytes", tx_bytes)].into_iter();
                counters.all(|(counter, bytes)| bytes != 0 || self.sysfs.bytes(name, counter) == Some(0))
            }
        };
        let packets = Packets::of_bytes((packets.rx, rx_bytes), (packets.tx, tx_bytes));
        let (errors, drops) = (Some(errors), None);
        believed.then_some(Counters { ifindex, rx_bytes, tx_bytes, packets, errors, drops, bits })
    }
}

impl CounterSource for Sysinfo {
    fn name(&self) -> &'static str {
        "sysinfo"
    }

    fn read(&mut self, clock: &dyn Clock, reading: &mut Reading) -> Result<(), CounterError> {
        reading.clear();
        let before = Moment::now(clock);
        self.networks.refresh(true);
        before.midway(Moment::now(clock)).stamp(reading);
        self.links.update(&self.networks, reading).inspect_err(|_| reading.clear())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::LinkKind;
    use super::*;

    fn totals((rx_bytes, tx_bytes): (u64, u64)) -> LinkTotals {
        LinkTotals { rx_bytes, tx_bytes, ..LinkTotals::default() }
    }

    fn links(root: &Path) -> Links {
        let sysfs = Sysfs::new(root);
        Links { sysfs, table: LinkTable::new(InterfaceFilter::default()), own: Vec::new() }
    }

    #[test]
    fn a_zero_is_believed_only_where_the_kernels_file_confirms_it() {
        let root = tempfile::tempdir().unwrap();
        let statistics = root.path().join("sys/class/net/eth0/statistics");
        fs::create_dir_all(&statistics).unwrap();
        let (rx, tx) = (statistics.join("rx_bytes"), statistics.join("tx_bytes"));
        let mut links = links(root.path());
        links.table.put(LinkInfo::new(2, "eth0", LinkKind::Physical), Attachment::default());
        let mut believed = |bytes| links.counters("eth0", 2, totals(bytes)).is_some();
        assert!(believed((5, 7)), "what was counted was read");
        assert!(!believed((0, 7)) && !believed((0, 0)), "no file");
        fs::write(&rx, "0\n").unwrap();
        assert!(believed((0, 7)), "nothing was received yet");
        assert!(!believed((0, 0)), "one of the files cannot be read");
        fs::write(&tx, "0\n").unwrap();
        assert!(believed((0, 0)), "counters that start again");
        fs::write(&rx, "5000002000\n").unwrap();
        assert!(!believed((0, 7)), "it was a failed read");
        fs::write(&rx, "").unwrap();
        assert!(!believed((0, 7)), "nor does an empty file confirm it");
    }

    #[test]
    fn without_sysfs_no_zero_is_invented() {
        let root = tempfile::tempdir().unwrap();
        let mut links = links(root.path());
        let ifindex = links.follow("en0", false).unwrap();
        for (bytes, believed) in [
            ((0, 0), false),
            ((9, 0), true),
            ((9, 9), true),
            ((0, 0), true),
            ((0, 5_000_000), true),
            ((0, 0), false),
            ((7, 7), true),
            ((0, 0), true),
        ] {
            assert_eq!(links.counters("en0", ifindex, totals(bytes)).is_some(), believed, "{bytes:?}");
        }
    }

    /// A detector that goes on after a reload knows links by their numbers.
    #[test]
    fn without_sysfs_a_link_has_the_number_of_its_name() {
        let root = tempfile::tempdir().unwrap();
        let numbers = |names: &[&str]| {
            let mut links = links(root.path());
            let numbers = names.iter().map(|name| (links.follow(name, false).unwrap(), (*name).to_owned()));
            numbers.collect::<std::collections::BTreeMap<_, _>>()
        };
        let names = ["en0", "en1", "lo0", "en0"];
        let (first, again) = (numbers(&names), numbers(&["lo0", "en1", "en0"]));
        assert_eq!((first.len(), &first), (3, &again));
        let mut links = links(root.path());
        let taken = FIRST_OWN_IFINDEX | crc32fast::hash(b"en1");
        links.own.push(OwnLink { ifindex: taken, name: "en0".to_owned(), last_bytes: None });
        assert_ne!(links.follow("en1", false), Some(taken), "two names may have one hash");
    }

    #[test]
    fn packets_that_were_not_counted_are_unknown() {
        let root = tempfile::tempdir().unwrap();
        let mut links = links(root.path());
        let ifindex = links.follow("en0", false).unwrap();
        let mut packets = |rx, tx| {
            let totals = LinkTotals { packets: Packets { rx, tx }, ..totals((9_000, 9_000)) };
            links.counters("en0", ifindex, totals).unwrap().packets
        };
        assert_eq!(packets(6, 7), Some(Packets { rx: 6, tx: 7 }));
        assert_eq!((packets(0, 7), packets(6, 0)), (None, None));
    }

    #[test]
    fn errors_are_known_and_drops_are_not() {
        let root = tempfile::tempdir().unwrap();
        let mut links = links(root.path());
        let ifindex = links.follow("en0", false).unwrap();
        let errors = Packets { rx: 3, tx: 4 };
        let counters = links.counters("en0", ifindex, LinkTotals { errors, ..totals((9, 9)) }).unwrap();
        assert_eq!((counters.errors, counters.drops), (Some(errors), None));
    }

    #[test]
    fn a_link_that_cannot_be_read_is_not_gone() {
        let root = tempfile::tempdir().unwrap();
        let eth0 = root.path().join("sys/class/net/eth0");
        fs::create_dir_all(&eth0).unwrap();
        let files = [("ifindex", "2"), ("flags", "0x3"), ("operstate", "up"), ("type", "1"), ("uevent", "")];
        for (file, text) in files.into_iter().chain([("iflink", "2")]) {
            fs::write(eth0.join(file), text).unwrap();
        }
        let mut links = links(root.path());
        let ifindex = links.follow("eth0", false).unwrap();
        // Like sysinfo when it may open no more files, and lists nothing.
        fs::remove_file(eth0.join("operstate")).unwrap();
        links.table.mark();
        assert_eq!(links.follow("eth0", false), None);
        links.keep_unless_gone();
        links.table.sweep();
        assert!(links.table.watches(ifindex));
        fs::remove_dir_all(&eth0).unwrap();
        links.table.mark();
        links.keep_unless_gone();
        links.table.sweep();
        assert!(!links.table.watches(ifindex));
    }
}
