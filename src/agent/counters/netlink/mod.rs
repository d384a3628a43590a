//! The kernel's own counters by netlink, rtnetlink(7): all links in one exchange of a few microseconds.
//!
//! Statistics are asked for at each reading (`RTM_GETSTATS`); the table of links once, or when something was lost. From then on
//! the kernel tells each change of a link (`RTNLGRP_LINK`), in the same queue, before the answer to the next request. A socket in
//! doubt (an answer that was cut off, or is late, or an error) is closed, and the table is read anew.

mod messages;
mod socket;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::moment::Moment;
use super::stacking::Attachment;
use super::sysfs::Sysfs;
use super::table::LinkTable;
use super::{CounterError, CounterSource, Counters, LinkInfo, LinkKind, Packets, Reading};
use crate::agent::watch::Selection;
use crate::clock::Clock;

use self::messages::{Body, Link, Stats, get_links, get_stats, get_stats_of_each, set_seqs};
use self::socket::{Answer, Buffer, Socket, Until};

/// How often a request is repeated whose answer is not whole: the links change while they are listed, the buffer was too small.
const ATTEMPTS_MAX: u32 = 4;
/// Where at most one link in so many is watched, and at most so many are, each is asked for by itself.
const SINGLY_ONE_IN: usize = 8;
const SINGLY_MAX: usize = 32;

/// The kernel's counters and links.
pub(super) struct Netlink {
    sysfs: Sysfs,
    table: LinkTable,
    /// `None` where the last one is in doubt.
    socket: Option<Socket>,
    /// The table was read whole on this socket, so that all changes since then are told there.
    trusted: bool,
    buffer: Buffer,
    plan: Plan,
}

/// How the statistics are asked for.
#[derive(Debug)]
enum Plan {
    /// All at once.
    Dump,
    /// Few of many links are watched: by one request each, so that the others cost nothing.
    Singly { requests: Vec<u8>, count: u32 },
}

impl Netlink {
    /// Opens the socket, and tries whether this kernel, or what stands in its place, answers.
    pub(super) fn open(root: &Path, selection: Selection) -> Result<Self, CounterError> {
        let mut source = Self {
            sysfs: Sysfs::new(root),
            table: LinkTable::new(selection),
            socket: None,
            trusted: false,
            buffer: Buffer::default(),
            plan: Plan::Dump,
        };
        // The table's plan may be to ask for nothing.
        let mut probe = Socket::open()?;
        let request = get_stats(probe.next_seq(), None);
        probe.exchange(&mut source.buffer, &request, Until::Done, |_| {})?;
        source.begin()?;
        Ok(source)
    }

    /// Opens a socket and reads the whole table. It is told of changes before, so that none falls between the two.
    fn begin(&mut self) -> Result<(), CounterError> {
        let mut socket = Socket::open()?;
        self.trusted = false;
        for _ in 0..ATTEMPTS_MAX {
            let table = &mut self.table;
            table.mark();
            let request = get_links(socket.next_seq());
            match socket.exchange(&mut self.buffer, &request, Until::Done, |body| note(body, table))? {
                Answer::Whole => {
                    self.table.sweep();
                    self.trusted = true;
                    break;
                }
                // In a table that changes all the while, a link that was not seen is not yet gone.
                Answer::Interrupted => {}
                Answer::Lost => socket = Socket::open()?,
            }
        }
        self.socket = Some(socket);
        self.plan = Plan::of(&self.table);
        Ok(())
    }

    /// Asks for the counters, and notes the changes told until then.
    fn ask(&mut self, counters: &mut Vec<Counters>) -> Result<Answer, CounterError> {
        if self.socket.is_none() {
            self.begin()?;
        }
        // Taken, so that after an error it is closed.
        let Some(mut socket) = self.socket.take() else { return Ok(Answer::Lost) };
        counters.clear();
        let table = &mut self.table;
        let mut stirred = false;
        let take = |body: Body<'_>| match body {
            Body::Stats(Stats { ifindex, rx_packets, tx_packets, rx_bytes, tx_bytes }) => {
                if let Some(bits) = table.counter_bits(ifindex) {
                    let packets = Packets::of_bytes((rx_packets, rx_bytes), (tx_packets, tx_bytes));
                    counters.push(Counters { ifindex, rx_bytes, tx_bytes, packets, bits });
                }
            }
            change => {
                stirred = true;
                note(change, table);
            }
        };
        let answer = match &mut self.plan {
            Plan::Dump => {
                let request = get_stats(socket.next_seq(), None);
                socket.exchange(&mut self.buffer, &request, Until::Done, take)?
            }
            // The kernel takes no empty message.
            Plan::Singly { count: 0, .. } => socket.exchange(&mut self.buffer, &[], Until::Empty, take)?,
            Plan::Singly { requests, count } => {
                set_seqs(requests, socket.next_seq());
                socket.exchange(&mut self.buffer, requests, Until::Replies(*count), take)?
            }
        };
        if answer != Answer::Lost {
            self.socket = Some(socket);
        }
        if !stirred {
            return Ok(answer);
        }
        counters.retain(|counters| self.table.watches(counters.ifindex));
        let answer = match (answer, &self.plan) {
            // Those that were asked for one by one are no longer those that are watched.
            (Answer::Whole, Plan::Singly { .. }) => Answer::Interrupted,
            (answer, _) => answer,
        };
        self.plan = Plan::of(&self.table);
        Ok(answer)
    }

    /// Asks until the answer is whole, within reason.
    fn count(&mut self, counters: &mut Vec<Counters>) -> Result<(), CounterError> {
        for _ in 1..ATTEMPTS_MAX {
            if self.ask(counters)? == Answer::Whole {
                return Ok(());
            }
        }
        match self.ask(counters)? {
            Answer::Lost => return Err(CounterError::Overrun),
            Answer::Interrupted => {
                counters.sort_by_key(|counters| counters.ifindex);
                counters.dedup_by_key(|counters| counters.ifindex);
            }
            Answer::Whole => {}
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
        if self.socket.is_none() || !self.trusted {
            self.begin()?;
        }
        let before = Moment::now(clock);
        if let Err(error) = self.count(&mut reading.counters) {
            reading.clear();
            return Err(error);
        }
        // The counters are of some moment between the two. Files, which can be slow, are read only now.
        before.midway(Moment::now(clock)).stamp(reading);
        self.table.report(&self.sysfs, reading.at, &mut reading.changes);
        Ok(())
    }
}

impl Plan {
    fn of(table: &LinkTable) -> Self {
        let watched = table.watched().count();
        if watched > SINGLY_MAX || watched * SINGLY_ONE_IN > table.len() {
            return Self::Dump;
        }
        Self::Singly { requests: get_stats_of_each(table.watched()), count: watched as u32 }
    }
}

/// Enters what the kernel says of a link.
fn note(body: Body<'_>, table: &mut LinkTable) {
    match body {
        Body::NewLink(link) => {
            let (info, attachment) = described(&link);
            table.put(info, attachment);
            table.doubt_speed(link.ifindex);
        }
        Body::DelLink(ifindex) => table.remove(ifindex),
        _ => {}
    }
}

fn described(link: &Link<'_>) -> (LinkInfo, Attachment) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = if link.loopback { LinkKind::Loopback } else { LinkKind::from_kernel(&text(link.kind)) };
    let enslaved = LinkKind::from_kernel(&text(link.slave_kind)).is_aggregate();
    let altnames = link.altnames().map(text).collect();
    let info = LinkInfo { altnames, up: link.up, enslaved, ..LinkInfo::new(link.ifindex, text(link.name), kind) };
    (info, Attachment { lower: link.lower, aggregate: link.master.filter(|_| enslaved) })
}
