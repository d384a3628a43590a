//! Counters by rtnetlink(7), of all links in one exchange of a few microseconds (`RTM_GETSTATS`). The table of links is read at the
//! start and after a loss; the kernel reports each change (`RTNLGRP_LINK`) in the same queue, before the answer to the next
//! request. A socket in doubt (a truncated or late answer, or an error) is closed, and the table read again.

mod messages;
mod socket;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::link_table::LinkTable;
use super::moment::Moment;
use super::stacking::Attachment;
use super::sysfs::Sysfs;
use super::{CounterError, CounterSource, Counters, LinkInfo, LinkKind, Packets, Reading};
use crate::agent::counters::filter::InterfaceFilter;
use crate::process::clock::Clock;

use self::messages::{LinkMessage, NetlinkBody, Stats, get_links, get_stats, get_stats_of_each, set_seqs};
use self::socket::{Buffer, NetlinkReply, Socket, Until};

/// Attempts at a request whose answer is not whole: the links changed during it, or the buffer was too small.
const ATTEMPTS_MAX: u32 = 4;
/// Links are requested one by one if at most one in 8, and at most 32, are watched.
const PER_LINK_SHARE: usize = 8;
const PER_LINK_MAX: usize = 32;

pub(super) struct Netlink {
    sysfs: Sysfs,
    table: LinkTable,
    socket: Option<Socket>,
    /// True once the whole table was read on this socket: all later changes are reported there.
    is_synced: bool,
    buffer: Buffer,
    plan: Plan,
}

#[derive(Debug)]
enum Plan {
    Dump,
    PerLink { requests: Vec<u8>, count: u32 },
}

impl Netlink {
    pub(super) fn open(root: &Path, selection: InterfaceFilter) -> Result<Self, CounterError> {
        let mut source = Self {
            sysfs: Sysfs::new(root),
            table: LinkTable::new(selection),
            socket: None,
            is_synced: false,
            buffer: Buffer::default(),
            plan: Plan::Dump,
        };
        // A probe, since the plan for the table may be to request nothing.
        let mut probe = Socket::open()?;
        let request = get_stats(probe.next_seq(), None);
        probe.exchange(&mut source.buffer, &request, Until::Done, |_| {})?;
        source.begin()?;
        Ok(source)
    }

    /// Opens a socket and reads the whole table. The socket joins the group first, so that no change in between is missed.
    fn begin(&mut self) -> Result<(), CounterError> {
        let mut socket = Socket::open()?;
        self.is_synced = false;
        for _ in 0..ATTEMPTS_MAX {
            let table = &mut self.table;
            table.mark();
            let request = get_links(socket.next_seq());
            match socket.exchange(&mut self.buffer, &request, Until::Done, |body| apply_change(body, table))? {
                NetlinkReply::Whole => {
                    self.table.sweep();
                    self.is_synced = true;
                    break;
                }
                // While the table keeps changing, a link that was not seen is not gone yet.
                NetlinkReply::Interrupted => {}
                NetlinkReply::Lost => socket = Socket::open()?,
            }
        }
        self.socket = Some(socket);
        self.plan = Plan::of(&self.table);
        Ok(())
    }

    fn request_stats(&mut self, counters: &mut Vec<Counters>) -> Result<NetlinkReply, CounterError> {
        if self.socket.is_none() {
            self.begin()?;
        }
        let Some(mut socket) = self.socket.take() else { return Ok(NetlinkReply::Lost) };
        counters.clear();
        let table = &mut self.table;
        let mut topology_changed = false;
        let take = |body: NetlinkBody<'_>| match body {
            NetlinkBody::Stats(Stats { ifindex, rx_packets, tx_packets, rx_bytes, tx_bytes, errors, drops }) => {
                if let Some(bits) = table.counter_bits(ifindex) {
                    let packets = Packets::of_bytes((rx_packets, rx_bytes), (tx_packets, tx_bytes));
                    let (errors, drops) = (Some(errors), Some(drops));
                    counters.push(Counters { ifindex, rx_bytes, tx_bytes, packets, errors, drops, bits });
                }
            }
            change => {
                topology_changed = true;
                apply_change(change, table);
            }
        };
        let answer = match &mut self.plan {
            Plan::Dump => {
                let request = get_stats(socket.next_seq(), None);
                socket.exchange(&mut self.buffer, &request, Until::Done, take)?
            }
            // The kernel accepts no empty message.
            Plan::PerLink { count: 0, .. } => socket.exchange(&mut self.buffer, &[], Until::Empty, take)?,
            Plan::PerLink { requests, count } => {
                set_seqs(requests, socket.next_seq());
                socket.exchange(&mut self.buffer, requests, Until::Replies(*count), take)?
            }
        };
        if answer != NetlinkReply::Lost {
            self.socket = Some(socket);
        }
        if !topology_changed {
            return Ok(answer);
        }
        counters.retain(|counters| self.table.watches(counters.ifindex));
        let answer = match (answer, &self.plan) {
            // The links requested one by one are no longer the watched ones.
            (NetlinkReply::Whole, Plan::PerLink { .. }) => NetlinkReply::Interrupted,
            (answer, _) => answer,
        };
        self.plan = Plan::of(&self.table);
        Ok(answer)
    }

    fn read_counters(&mut self, counters: &mut Vec<Counters>) -> Result<(), CounterError> {
        for _ in 1..ATTEMPTS_MAX {
            if self.request_stats(counters)? == NetlinkReply::Whole {
                return Ok(());
            }
        }
        match self.request_stats(counters)? {
            NetlinkReply::Lost => return Err(CounterError::Overrun),
            NetlinkReply::Interrupted => {
                counters.sort_by_key(|counters| counters.ifindex);
                counters.dedup_by_key(|counters| counters.ifindex);
            }
            NetlinkReply::Whole => {}
        }
        Ok(())
    }
}

impl CounterSource for Netlink {
    fn name(&self) -> &'static str {
        "netlink"
    }

    fn read(&mut self, clock: &dyn Clock, reading: &mut Reading) -> Result<(), CounterError> {
        reading.clear();
        if self.socket.is_none() || !self.is_synced {
            self.begin()?;
        }
        let before = Moment::now(clock);
        if let Err(error) = self.read_counters(&mut reading.counters) {
            reading.clear();
            return Err(error);
        }
        // The counters are from between these two moments. Files can be slow, so they are read only now.
        before.midway(Moment::now(clock)).stamp(reading);
        self.table.report(&self.sysfs, reading.at, &mut reading.changes);
        Ok(())
    }
}

impl Plan {
    fn of(table: &LinkTable) -> Self {
        let watched = table.watched().count();
        if watched > PER_LINK_MAX || watched * PER_LINK_SHARE > table.len() {
            return Self::Dump;
        }
        Self::PerLink { requests: get_stats_of_each(table.watched()), count: watched as u32 }
    }
}

fn apply_change(body: NetlinkBody<'_>, table: &mut LinkTable) {
    match body {
        NetlinkBody::NewLink(link) => {
            let (info, attachment) = link_info(&link);
            table.put(info, attachment);
            table.mark_speed_stale(link.ifindex);
        }
        NetlinkBody::DelLink(ifindex) => table.remove(ifindex),
        _ => {}
    }
}

fn link_info(link: &LinkMessage<'_>) -> (LinkInfo, Attachment) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = if link.loopback { LinkKind::Loopback } else { LinkKind::from_kernel(&text(link.kind)) };
    let master = LinkKind::from_kernel(&text(link.slave_kind));
    let enslaved = master.is_aggregate();
    let altnames = link.altnames().map(text).collect();
    let info = LinkInfo { altnames, up: link.up, enslaved, ..LinkInfo::new(link.ifindex, text(link.name), kind) };
    let bridge = link.master.filter(|_| master.is_bridge());
    (info, Attachment { lower: link.lower, aggregate: link.master.filter(|_| enslaved), bridge })
}
