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
mod tests;
