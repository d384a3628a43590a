//! The kernel's own counters by netlink, rtnetlink(7): all links in one exchange of a few microseconds.
//!
//! Two sockets. On one, statistics are asked for at each reading (`RTM_GETSTATS`), and the table of links when it is not known
//! or not to be trusted. On the other the kernel tells each change of a link (`RTNLGRP_LINK`); it is emptied at each reading. A
//! socket in doubt (an answer that was cut off, or is late, or lost) is closed, and what it told is asked anew.

mod messages;
mod socket;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::sysfs::Sysfs;
use super::table::LinkTable;
use super::{CounterBits, CounterError, CounterSource, Counters, LinkInfo, LinkKind, Reading};
use crate::agent::watch::Selection;
use crate::clock::Clock;

use self::messages::{Body, get_links, get_stats, get_stats_of_each, set_seqs};
use self::socket::{Answer, Buffer, Events, Requests, Told};

/// How often a dump that changed while it was made is repeated before what it said has to do.
const DUMPS_MAX: u32 = 4;
/// How many datagrams of changes are read one by one; behind more of them, the table is read anew.
const EVENTS_MAX: u32 = 1_000;
/// Where at most one link in so many is watched, and at most so many are, each is asked for by itself.
const SINGLY_ONE_IN: usize = 8;
const SINGLY_MAX: usize = 32;

/// The kernel's counters and links.
pub(super) struct Netlink {
    sysfs: Sysfs,
    table: LinkTable,
    /// `None` while the table is not to be trusted.
    events: Option<Events>,
    requests: Requests,
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
    /// Opens the sockets, and tries whether this kernel, or what stands in its place, answers.
    pub(super) fn open(root: &Path, selection: Selection) -> Result<Self, CounterError> {
        let mut source = Self {
            sysfs: Sysfs::new(root),
            table: LinkTable::new(selection),
            events: None,
            requests: Requests::default(),
            buffer: Buffer::default(),
            plan: Plan::Dump,
        };
        source.requests.dump(&mut source.buffer, |seq| get_stats(seq, None), |_| {})?;
        source.follow()?;
        Ok(source)
    }

    /// Brings the table up to date.
    fn follow(&mut self) -> Result<(), CounterError> {
        let Some(events) = &self.events else { return self.begin() };
        let (table, sysfs) = (&mut self.table, &self.sysfs);
        for told_before in 0..EVENTS_MAX {
            match events.next(&mut self.buffer, |body| note(body, table, sysfs)) {
                Ok(Told::Something) => {}
                Ok(Told::Nothing) => {
                    if told_before > 0 {
                        self.plan = Plan::of(&self.table);
                    }
                    return Ok(());
                }
                Ok(Told::Lost) => break,
                Err(error) => {
                    self.events = None;
                    return Err(error);
                }
            }
        }
        self.begin()
    }

    /// Reads the whole table. The kernel is listened to first, so that no change falls between the two.
    fn begin(&mut self) -> Result<(), CounterError> {
        self.events = None;
        let events = Events::open()?;
        let answer = repeated(|| {
            let (table, sysfs) = (&mut self.table, &self.sysfs);
            table.mark();
            self.requests.dump(&mut self.buffer, get_links, |body| note(body, table, sysfs))
        })?;
        // In a table that changed all the while, a link that was not seen is not yet gone.
        if answer == Answer::Whole {
            self.table.sweep();
            self.events = Some(events);
        }
        self.plan = Plan::of(&self.table);
        Ok(())
    }

    fn count(&mut self, counters: &mut Vec<Counters>) -> Result<(), CounterError> {
        let answer = repeated(|| {
            counters.clear();
            let table = &self.table;
            let take = |body: Body<'_>| {
                if let Body::Stats { ifindex, rx_bytes, tx_bytes } = body
                    && table.watches(ifindex)
                {
                    counters.push(Counters { ifindex, rx_bytes, tx_bytes, bits: CounterBits::B64 });
                }
            };
            match &mut self.plan {
                Plan::Dump => self.requests.dump(&mut self.buffer, |seq| get_stats(seq, None), take),
                // The kernel takes no empty message.
                Plan::Singly { count: 0, .. } => Ok(Answer::Whole),
                Plan::Singly { requests, count } => {
                    self.requests.each(&mut self.buffer, requests, *count, set_seqs, take)
                }
            }
        })?;
        if answer == Answer::Interrupted {
            counters.sort_by_key(|counters| counters.ifindex);
            counters.dedup_by_key(|counters| counters.ifindex);
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
        self.follow()?;
        let before = clock.monotonic();
        if let Err(error) = self.count(&mut reading.counters) {
            reading.clear();
            return Err(error);
        }
        // The counters are of some moment between the two.
        reading.at = before + clock.monotonic().saturating_sub(before) / 2;
        reading.boottime = clock.boottime();
        self.table.take_changes(&mut reading.changes);
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

/// Does it again while the answer is not whole, within reason.
fn repeated(mut attempt: impl FnMut() -> Result<Answer, CounterError>) -> Result<Answer, CounterError> {
    for _ in 1..DUMPS_MAX {
        if attempt()? == Answer::Whole {
            return Ok(Answer::Whole);
        }
    }
    match attempt()? {
        Answer::CutOff => Err(CounterError::Malformed("longer each time")),
        answer => Ok(answer),
    }
}

/// Enters what the kernel says of a link.
fn note(body: Body<'_>, table: &mut LinkTable, sysfs: &Sysfs) {
    match body {
        Body::NewLink(link) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let kind = if link.loopback { LinkKind::Loopback } else { LinkKind::from_kernel(&text(link.kind)) };
            let enslaved = link.slave_kind == b"bond";
            let link =
                LinkInfo { ifindex: link.ifindex, name: text(link.name), kind, up: link.up, enslaved, speed: None };
            table.put(link, |name| sysfs.speed(name));
        }
        Body::DelLink(ifindex) => table.remove(ifindex),
        _ => {}
    }
}
