//! Judges readings, in the loop, simulations and replays alike. Pure: readings and their time come in, bodies of events go out.
//! ```text
//!  reading ─► link: meter ─► traffic ─► tracker of each limit and direction ─► raised, updated, cleared
//!                     │ verdict │
//!                     │         └─► host: sum over links, once each of them is known up to a time ─► tracker
//!                     └─► without a rate: no limit is judged, and no window counts the second
//! ```
//! A breach ends in one of two ways: its rate was seen below `clear_at` for long enough, or what it was measured on is gone (link,
//! limit, agent), which its `reason` says. A reset, a jump, a suspend or an unread link ends none, and raises none.

mod host;
pub mod limit;
mod link;
pub mod rate;
pub mod rate_window;
pub mod resume;
mod tracker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use self::host::{HostLimit, WatchedLinks};
pub use self::link::VerdictCounts;
use self::link::{WatchedLink, event, sample};
use self::tracker::{DetectionContext, Target, TickTime, Tracker};
use crate::agent::counters::{AddReason, LinkChange, LinkInfo, Reading, RemoveReason, Speed, filter};
use crate::agent::detector::limit::{Limit, Scope, Thresholds, delta};
use crate::agent::detector::rate::Traffic;
use crate::agent::detector::rate_window::LinkReading;
use crate::agent::detector::resume::Resume;
use crate::message::{Body, Breach, Direction, Reason, Stamp};
use crate::units::BitRate;

// Longest wait of a sum for a link's driver, the longer of these two; then it is judged without the link.
const HOST_WAIT_MAX: Duration = Duration::from_secs(10);
const HOST_WAIT_INTERVALS: u32 = 10;
const LINKS_NAMED: usize = 8;

#[derive(Debug)]
pub struct Detector {
    limits: Vec<Limit>,
    interval: Duration,
    links: WatchedLinks,
    hosts: Vec<HostLimit>,
    resume: Resume,
    ids: fastrand::Rng,
    last_reading: Option<Duration>,
    reported: Option<BTreeSet<u32>>,
}

#[derive(Debug, Default)]
pub struct Detections {
    pub bodies: Vec<Body>,
    pub notices: Vec<ConfigNotice>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigNotice {
    MatchesNothing { limit: String, pattern: String },
    SpeedUnknown { limit: String, interface: String },
    SpeedKnown { limit: String, interface: String, raise_at: BitRate },
    SpeedDoubted { interface: String, speed: BitRate, rate: BitRate },
    Unjudged { interfaces: Vec<String>, counts: VerdictCounts },
    CountedTwice { interface: String, port: String },
}

#[derive(Clone, Debug)]
pub struct LinkView<'a> {
    pub info: &'a LinkInfo,
    pub doubts_speed: bool,
    pub verdict: &'static str,
    pub traffic: Option<Traffic>,
    pub unjudged: &'a VerdictCounts,
    pub limits: Vec<(&'a str, Direction, Option<Thresholds>)>,
}

impl Detector {
    pub fn new(limits: Vec<Limit>, interval: Duration, seed: u64) -> Self {
        let mut detector = Self {
            limits: Vec::new(),
            interval,
            links: WatchedLinks::new(),
            hosts: Vec::new(),
            resume: Resume::default(),
            ids: fastrand::Rng::with_seed(seed),
            last_reading: None,
            reported: None,
        };
        detector.reconfigure(limits, interval, &mut Detections::default());
        detector
    }

    /// Resumes open breaches from their last state; one whose link has no rate up to `within` after that ends as `interrupted`.
    pub fn resume(&mut self, open: Vec<(Breach, Stamp)>, within: Duration, now: &Stamp) {
        self.resume = Resume::new(open, within, now);
    }

    /// Ends the breaches and rises of limits that no longer have the same name and scope. Overwrites `detections`.
    pub fn reconfigure(&mut self, limits: Vec<Limit>, interval: Duration, detections: &mut Detections) {
        detections.bodies.clear();
        detections.notices.clear();
        let old = std::mem::replace(&mut self.limits, limits);
        let place = |limit: &Limit| self.limits.iter().position(|new| new.name == limit.name);
        let stays = |tracker: &Tracker, scope: &dyn Fn(&Scope) -> bool| {
            let at = place(&old[tracker.limit])?;
            let limit = &self.limits[at];
            (limit.directions.contains(&tracker.direction) && scope(&limit.scope)).then_some(at)
        };
        for link in self.links.values_mut() {
            let WatchedLink { info, trackers, .. } = link;
            let on_link = |scope: &Scope| matches!(scope, Scope::Interface(pattern) if filter::names(pattern, info));
            trackers.retain_mut(|tracker| match stays(tracker, &on_link) {
                Some(at) => {
                    tracker.limit = at;
                    true
                }
                None => {
                    tracker.end(&old, Target::link(info), Reason::LimitRemoved, detections);
                    false
                }
            });
        }
        let mut hosts: Vec<HostLimit> = (0..self.limits.len())
            .filter(|at| matches!(self.limits[*at].scope, Scope::Host(_)))
            .map(|at| HostLimit::new(at, &self.limits[at], self.last_reading))
            .collect();
        for mut host in std::mem::take(&mut self.hosts) {
            let at = place(&old[host.limit]);
            match hosts.iter_mut().find(|new| Some(new.limit) == at) {
                Some(new) => new.take_over(host, &old, detections),
                None => host.end_all(&old, &Reason::LimitRemoved, detections),
            }
        }
        self.hosts = hosts;
        for link in self.links.values_mut() {
            link.match_limits(&self.limits);
            link.resolve(&self.limits, detections);
            if interval != self.interval {
                link.meter.set_interval(interval);
            }
        }
        self.interval = interval;
        self.find_members(detections);
    }

    pub fn expect_all_links(&mut self) {
        self.reported = Some(BTreeSet::new());
    }

    pub fn open_breaches(&self, now: &Stamp) -> Vec<(Breach, Stamp)> {
        let open = self.trackers().filter_map(|(tracker, target)| tracker.open_breach(&self.limits, target));
        open.map(|breach| (breach, now.clone())).chain(self.resume.waiting().iter().cloned()).collect()
    }

    /// Returns an update of each breach that has lasted longer than reported, the last one before the agent stops.
    pub fn last_updates(&self) -> Vec<Body> {
        let unreported = self.trackers().filter_map(|(tracker, target)| tracker.unreported(&self.limits, target));
        unreported.map(Body::BreachUpdated).collect()
    }

    fn trackers(&self) -> impl Iterator<Item = (&Tracker, Target<'_>)> {
        let links = self
            .links
            .values()
            .flat_map(|link| link.trackers.iter().map(|tracker| (tracker, Target::link(&link.info))));
        let hosts = self.hosts.iter().flat_map(|host| &host.trackers);
        links.chain(hosts.map(|tracker| (tracker, Target::host(Speed::default(), ""))))
    }

    pub fn links(&self) -> impl Iterator<Item = LinkView<'_>> {
        self.links.values().map(|link| LinkView {
            info: &link.info,
            doubts_speed: link.meter.doubts_speed(),
            verdict: link.verdict.as_str(),
            traffic: link.verdict.judged(),
            unjudged: &link.unjudged,
            limits: link
                .trackers
                .iter()
                .map(|tracker| (&*self.limits[tracker.limit].name, tracker.direction, tracker.thresholds))
                .collect(),
        })
    }

    pub fn host_limits(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.hosts.iter().map(|host| (&*self.limits[host.limit].name, host.members(&self.links)))
    }

    pub fn readings(
        &self,
    ) -> impl Iterator<Item = LinkReading<'_, impl Iterator<Item = (&str, Direction, Option<BitRate>)>>> {
        self.links.values().map(|link| LinkReading {
            interface: &link.info.name,
            verdict: link.verdict,
            counters: link.counters,
            speed: link.info.speed,
            limits: link.trackers.iter().map(|tracker| {
                let raise_at = tracker.thresholds.map(|thresholds| thresholds.raise_at);
                (&*self.limits[tracker.limit].name, tracker.direction, raise_at)
            }),
        })
    }

    /// Judges a reading. Overwrites `detections`.
    pub fn observe(&mut self, reading: &Reading, now: &Stamp, detections: &mut Detections) {
        detections.bodies.clear();
        detections.notices.clear();
        self.follow_links(reading, detections);
        if self.last_reading.is_none() {
            self.report_what_matches_nothing(detections);
        }
        self.last_reading = Some(reading.boottime);
        self.read_links(reading, detections);
        let Self { limits, links, hosts, resume, ids, .. } = self;
        let moment = TickTime { wall: now.observed_at, boottime: delta(reading.boottime) };
        let mut context = DetectionContext { resume, ids, now, moment, detections };
        for_each_read(links, reading, |link| link.judge(limits, reading.boottime, &mut context));
        for host in &mut *hosts {
            host.judge(limits, links, reading.boottime, &mut context);
        }
        let judged_until = hosts.iter().filter_map(HostLimit::judged_until).min().unwrap_or(reading.boottime);
        let mut unjudged: BTreeMap<VerdictCounts, Vec<String>> = BTreeMap::new();
        for_each_read(links, reading, |link| {
            if let Some(counts) = link.take_unlogged(reading.boottime) {
                unjudged.entry(counts).or_default().push(link.info.name.clone());
            }
            link.history.forget(judged_until);
        });
        for (counts, interfaces) in unjudged {
            detections.notice(ConfigNotice::Unjudged { interfaces, counts });
        }
        for breach in self.resume.overdue(now, |name| self.limits.iter().any(|limit| limit.name == name)) {
            detections.bodies.push(Body::BreachCleared(breach));
        }
    }

    pub fn wants_probe(&self) -> bool {
        self.links.values().any(|link| link.meter.wants_probe())
    }

    /// Judges a reading shortly after a tick, in which only changes of links make events. Overwrites `detections`.
    pub fn probe(&mut self, reading: &Reading, detections: &mut Detections) {
        detections.bodies.clear();
        detections.notices.clear();
        self.follow_links(reading, detections);
        for counters in &reading.counters {
            if let Some(link) = self.links.get_mut(&counters.ifindex).filter(|link| link.meter.wants_probe()) {
                link.meter.probe(&sample(counters, reading));
            }
        }
    }

    fn read_links(&mut self, reading: &Reading, detections: &mut Detections) {
        let wait_max = HOST_WAIT_MAX.max(self.interval * HOST_WAIT_INTERVALS);
        let has_hosts = !self.hosts.is_empty();
        let (mut counters, mut deltas) = (reading.counters.iter().peekable(), reading.deltas.iter().peekable());
        for_each_read(&mut self.links, reading, |link| {
            let ifindex = link.info.ifindex;
            // Sources report links in the order of their ifindex; any other order costs a search.
            let of_link = counters.next_if(|counters| counters.ifindex == ifindex);
            let of_link = of_link.or_else(|| reading.counters.iter().find(|counters| counters.ifindex == ifindex));
            let delta = deltas.next_if(|delta| delta.ifindex == ifindex);
            match delta.or_else(|| reading.deltas.iter().find(|delta| delta.ifindex == ifindex)) {
                Some(delta) => link.add_delta(delta),
                None => link.read(of_link, reading, detections),
            }
            if has_hosts {
                link.history.add(link.verdict, reading.boottime, wait_max);
            }
        });
    }

    fn follow_links(&mut self, reading: &Reading, detections: &mut Detections) {
        for change in &reading.changes {
            self.change(change, reading.boottime, detections);
        }
        if let Some(reported) = self.reported.take() {
            let gone: Vec<u32> = self.links.keys().filter(|ifindex| !reported.contains(ifindex)).copied().collect();
            gone.into_iter().for_each(|ifindex| self.remove(ifindex, &RemoveReason::Unselected, detections));
        }
        if !reading.changes.is_empty() {
            self.find_members(detections);
            let without_links = self.hosts.iter_mut().filter(|host| host.has_no_members());
            without_links.for_each(|host| host.end_all(&self.limits, &Reason::LinkRemoved, detections));
        }
        for_each_read(&mut self.links, reading, |link| link.report_state(reading.boottime, detections));
    }

    fn change(&mut self, change: &LinkChange, boottime: Duration, detections: &mut Detections) {
        match change {
            LinkChange::Added(info, came) => {
                if let Some(reported) = &mut self.reported {
                    reported.insert(info.ifindex);
                    if self.links.get(&info.ifindex).is_some_and(|link| link.info.kind == info.kind) {
                        return self.update(info, detections);
                    }
                }
                // Another source may call it another kind.
                self.remove(info.ifindex, &RemoveReason::Gone, detections);
                let mut link = WatchedLink::new(info.clone(), &self.limits, self.interval, boottime);
                // Links present at the start are not reported.
                if self.last_reading.is_some() {
                    let (reason, detail) = added(came);
                    detections.bodies.push(Body::LinkAdded(event(info, reason, detail)));
                }
                link.resolve(&self.limits, detections);
                self.links.insert(info.ifindex, link);
            }
            LinkChange::Changed(info) => self.update(info, detections),
            LinkChange::Removed(ifindex, left) => self.remove(*ifindex, left, detections),
        }
    }

    fn remove(&mut self, ifindex: u32, left: &RemoveReason, detections: &mut Detections) {
        let Some(mut link) = self.links.remove(&ifindex) else { return };
        let (reason, of_breach, detail) = removed(left);
        link.end_all(&self.limits, &of_breach, detections);
        detections.bodies.push(Body::LinkRemoved(event(&link.info, reason, detail)));
    }

    fn update(&mut self, info: &LinkInfo, detections: &mut Detections) {
        let Some(link) = self.links.get_mut(&info.ifindex) else { return };
        let before = std::mem::replace(&mut link.info, info.clone());
        if (&before.name, &before.altnames) != (&info.name, &info.altnames) {
            link.drop_unmatched(&self.limits, &before.name, &Reason::LinkRenamed, detections);
            link.match_limits(&self.limits);
        }
        if before.name != info.name {
            let detail = Some(format!("was {}", before.name));
            detections.bodies.push(Body::LinkChanged(event(info, Reason::Renamed, detail)));
        }
        if before.speed != info.speed {
            link.meter.trust_speed();
        }
        link.resolve(&self.limits, detections);
    }

    fn find_members(&mut self, detections: &mut Detections) {
        for host in &mut self.hosts {
            host.find_members(&self.limits, &self.links, detections);
        }
    }

    fn report_what_matches_nothing(&self, detections: &mut Detections) {
        for limit in &self.limits {
            let Scope::Interface(pattern) = &limit.scope else { continue };
            if !self.links.values().any(|link| filter::names(pattern, &link.info)) {
                detections.notice(ConfigNotice::MatchesNothing { limit: limit.name.clone(), pattern: pattern.clone() });
            }
        }
    }
}

fn for_each_read(links: &mut WatchedLinks, reading: &Reading, mut visit: impl FnMut(&mut WatchedLink)) {
    if reading.is_partial {
        for counters in &reading.counters {
            links.get_mut(&counters.ifindex).into_iter().for_each(&mut visit);
        }
    } else {
        links.values_mut().for_each(visit);
    }
}

impl Detections {
    fn notice(&mut self, notice: ConfigNotice) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }
}

impl fmt::Display for ConfigNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchesNothing { limit, pattern } => {
                write!(f, "limit {limit}: no link matches interface = \"{pattern}\"; one may appear later")
            }
            Self::SpeedUnknown { limit, interface } => write!(
                f,
                "limit {limit}: inactive on {interface}, whose speed is unknown; set raise_at to a bit rate, or the speed in \
                 [[link]]"
            ),
            Self::SpeedKnown { limit, interface, raise_at } => {
                write!(f, "limit {limit}: active on {interface}, whose speed is known now; raise_at is {raise_at}")
            }
            Self::SpeedDoubted { interface, speed, rate } => write!(
                f,
                "{interface} carries {rate}, more than the {speed} that its driver reports: the traffic is evaluated, the speed \
                 is probably wrong; set the right one in [[link]]"
            ),
            Self::CountedTwice { interface, port } => write!(
                f,
                "the sum over the host has bytes of {interface} twice, because {port} is a port of its bridge and counts them too: \
                 take one of them out of [interfaces], or of the limit's interfaces"
            ),
            Self::Unjudged { interfaces, counts } => {
                let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
                let (named, others) = interfaces.split_at(interfaces.len().min(LINKS_NAMED));
                let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
                let each = if interfaces.len() > 1 { " of each" } else { "" };
                write!(f, "{}{others}: readings{each} not evaluated: {}", named.join(", "), counts.join(", "))
            }
        }
    }
}

fn added(came: &AddReason) -> (Reason, Option<String>) {
    match came {
        AddReason::Appeared => (Reason::Added, None),
        AddReason::RenamedFrom(name) => (Reason::Renamed, Some(format!("was {name}"))),
        other => (Reason::Added, Some(other.to_string())),
    }
}

fn removed(left: &RemoveReason) -> (Reason, Reason, Option<String>) {
    match left {
        RemoveReason::Gone => (Reason::Removed, Reason::LinkRemoved, None),
        RemoveReason::RenamedTo(name) => (Reason::Renamed, Reason::LinkRenamed, Some(format!("now {name}"))),
        other => (Reason::Removed, Reason::LinkRemoved, Some(other.to_string())),
    }
}

#[cfg(test)]
mod tests;
