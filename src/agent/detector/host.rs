use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::link::WatchedLink;
use super::tracker::{DetectionContext, Target, Tracker, load, trackers};
use super::{ConfigNotice, Detections};
use crate::agent::counters::{LinkInfo, Speed, filter};
use crate::agent::detector::limit::{Limit, Scope, delta};
use crate::agent::detector::rate::Traffic;
use crate::message::Reason;
use crate::units::BitRate;

pub(super) type WatchedLinks = BTreeMap<u32, WatchedLink>;

/// A limit on the sum of several links; times are `CLOCK_BOOTTIME`. The sum is judged up to the time until which the traffic of all its
/// links is known; a slow driver delays that. The end of any link's reading is also the end of a reading of the sum.
#[derive(Debug)]
pub(super) struct HostLimit {
    pub(super) limit: usize,
    pub(super) trackers: Vec<Tracker>,
    members: Vec<u32>,
    judged_until: Option<Duration>,
    /// Pairs of members that both count some bytes, once warned of.
    overlaps: BTreeSet<(u32, u32)>,
}

impl HostLimit {
    pub(super) fn new(index: usize, limit: &Limit, last_reading: Option<Duration>) -> Self {
        let trackers = trackers(index, limit).collect();
        Self { limit: index, trackers, members: Vec::new(), judged_until: last_reading, overlaps: BTreeSet::new() }
    }

    /// Finds the links that the limit lists or `[interfaces]` selects, without those whose bytes another one counts too.
    pub(super) fn find_members(&mut self, limits: &[Limit], links: &WatchedLinks, detections: &mut Detections) {
        let Scope::Host(patterns) = &limits[self.limit].scope else { return };
        let is_named = |info: &LinkInfo| match &patterns[..] {
            [] => info.selected,
            patterns => patterns.iter().any(|pattern| filter::names(pattern, info)),
        };
        let named: Vec<&LinkInfo> = links.values().map(|link| &link.info).filter(|info| is_named(info)).collect();
        let stays = |info: &&&LinkInfo| !named.iter().any(|other| info.counted_by.contains(&other.ifindex));
        let members: Vec<&LinkInfo> = named.iter().filter(stays).copied().collect();
        for (info, port) in members.iter().flat_map(|info| members.iter().map(move |port| (info, port))) {
            let overlaps = info.partly_counted_by.contains(&port.ifindex);
            if overlaps && self.overlaps.insert((info.ifindex, port.ifindex)) {
                let (interface, port) = (info.name.clone(), port.name.clone());
                detections.notice(ConfigNotice::CountedTwice { interface, port });
            }
        }
        self.members = members.iter().map(|info| info.ifindex).collect();
    }

    pub(super) fn members<'a>(&self, links: &'a WatchedLinks) -> Vec<&'a str> {
        self.members.iter().filter_map(|ifindex| Some(&*links.get(ifindex)?.info.name)).collect()
    }

    pub(super) fn has_no_members(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn judged_until(&self) -> Option<Duration> {
        self.judged_until
    }

    fn speed<'a>(&self, links: &'a WatchedLinks) -> (Speed, Option<&'a str>) {
        let mut sum = Speed::both(Some(BitRate::default()));
        let mut unknown = None;
        let add = |sum: Option<BitRate>, speed: Option<BitRate>| {
            Some(BitRate::from_bps(sum?.bps().saturating_add(speed?.bps())))
        };
        for info in self.members.iter().filter_map(|ifindex| links.get(ifindex)).map(|link| &link.info) {
            let is_known = info.speed.rx.is_some() && info.speed.tx.is_some();
            if !is_known && info.up && unknown.is_none() {
                unknown = Some(info.name.as_str());
            }
            if is_known || info.up {
                sum = Speed { rx: add(sum.rx, info.speed.rx), tx: add(sum.tx, info.speed.tx) };
            }
        }
        // Without a link that is up and has a speed, a percentage has no base.
        let known = |speed: Option<BitRate>| speed.filter(|speed| speed.bps() > 0);
        (Speed { rx: known(sum.rx), tx: known(sum.tx) }, unknown)
    }

    pub(super) fn judge(
        &mut self,
        limits: &[Limit],
        links: &WatchedLinks,
        now: Duration,
        context: &mut DetectionContext<'_>,
    ) {
        let (speed, unknown) = self.speed(links);
        let target = Target::host(speed, unknown.unwrap_or("the host's links"));
        let members = || self.members.iter().filter_map(|ifindex| links.get(ifindex));
        let from = self.judged_until.unwrap_or(now);
        let until = members().map(|link| link.history.known_until()).min().unwrap_or(now).max(from);
        let mut ends: Vec<Duration> = members().flat_map(|link| link.history.ends(from, until)).collect();
        ends.sort_unstable();
        ends.dedup();
        let mut begin = from;
        for end in ends {
            let (sum, is_whole) = sum(members(), begin, end);
            for tracker in &mut self.trackers {
                let load = load(sum, tracker.direction, delta(end));
                tracker.resolve(limits, target, context.detections);
                // A missing link could only add to the sum.
                if is_whole || tracker.is_over(load) {
                    tracker.judge(limits, target, load, context);
                } else {
                    tracker.state.cancel_pending();
                }
            }
            begin = end;
        }
        self.judged_until = Some(until);
    }

    pub(super) fn take_over(&mut self, old: Self, limits: &[Limit], detections: &mut Detections) {
        self.judged_until = old.judged_until;
        for mut tracker in old.trackers {
            match self.trackers.iter_mut().find(|new| new.direction == tracker.direction) {
                Some(new) => {
                    tracker.limit = self.limit;
                    *new = tracker;
                }
                None => tracker.end(limits, Target::host(Speed::default(), ""), Reason::LimitRemoved, detections),
            }
        }
    }

    pub(super) fn end_all(&mut self, limits: &[Limit], reason: &Reason, detections: &mut Detections) {
        let target = Target::host(Speed::default(), "");
        self.trackers.iter_mut().for_each(|tracker| tracker.end(limits, target, reason.clone(), detections));
    }
}

fn sum<'a>(links: impl Iterator<Item = &'a WatchedLink>, begin: Duration, end: Duration) -> (Traffic, bool) {
    let mut sum = Traffic { elapsed: end.saturating_sub(begin), ..Traffic::default() };
    let mut is_whole = true;
    for link in links {
        match link.history.traffic_between(begin, end) {
            Some(traffic) => {
                sum.rx_bytes = sum.rx_bytes.saturating_add(traffic.rx_bytes);
                sum.tx_bytes = sum.tx_bytes.saturating_add(traffic.tx_bytes);
            }
            None => is_whole = false,
        }
    }
    (sum, is_whole)
}
