//! From readings to what is to be told: the links, a meter for each, and a limit's machine for each that it watches.
//!
//! Pure: a reading and a stamp come in, bodies of events and notices go out. The loop, a simulation and a replay all judge by it.

mod tracker;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use self::tracker::{Context, Target, Tracker, carried, trackers};
use crate::agent::counters::{CounterBits, Counters, LinkChange, LinkInfo, Reading};
use crate::agent::limit::{Limit, Scope};
use crate::agent::rate::{Meter, Sample, Traffic, Verdict};
use crate::agent::resume::Resume;
use crate::agent::watch;
use crate::event::{Body, Breach, Link, Reason, Stamp};
use crate::units::BitRate;

/// Judges readings.
#[derive(Debug)]
pub struct Detector {
    limits: Vec<Limit>,
    interval: Duration,
    links: BTreeMap<u32, Watched>,
    host: Vec<Tracker>,
    /// `CLOCK_BOOTTIME` up to which the host's trackers know what time has passed.
    host_accounted: Duration,
    resume: Resume,
    ids: fastrand::Rng,
    readings: u64,
}

/// What one reading gave; the caller's, and reused.
#[derive(Debug, Default)]
pub struct Findings {
    /// What happened, in order.
    pub bodies: Vec<Body>,
    /// What the operator should know of the configuration.
    pub notices: Vec<Notice>,
}

/// Something about the configuration that only a reading shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A limit's pattern matches no link.
    MatchesNothing {
        /// The limit.
        limit: String,
        /// Its pattern.
        pattern: String,
    },
    /// A percentage of an unknown speed: the limit waits.
    SpeedUnknown {
        /// The limit.
        limit: String,
        /// The link whose speed nobody knows.
        interface: String,
    },
    /// The speed is known now: the limit is judged.
    SpeedKnown {
        /// The limit.
        limit: String,
        /// The link.
        interface: String,
        /// Where the limit stands.
        raise_at: BitRate,
    },
}

#[derive(Debug)]
struct Watched {
    info: LinkInfo,
    meter: Meter,
    trackers: Vec<Tracker>,
    /// `CLOCK_BOOTTIME` up to which the trackers know what time has passed.
    accounted: Duration,
    verdict: Verdict,
}

impl Detector {
    /// For readings every `interval`; `seed` makes the breach ids.
    pub fn new(limits: Vec<Limit>, interval: Duration, seed: u64) -> Self {
        let host = (0..limits.len()).filter(|index| limits[*index].scope == Scope::Host);
        let host = host.flat_map(|index| trackers(index, &limits[index])).collect();
        Self {
            limits,
            interval,
            links: BTreeMap::new(),
            host,
            host_accounted: Duration::ZERO,
            resume: Resume::default(),
            ids: fastrand::Rng::with_seed(seed),
            readings: 0,
        }
    }

    /// Takes up breaches that were open before, each as it stood and when. They go on where a link of that name gives a rate not
    /// later than `within` after that, and end as `interrupted` otherwise.
    pub fn resume(&mut self, open: Vec<(Breach, Stamp)>, within: Duration, now: &Stamp) {
        self.resume = Resume::new(open, within, now);
    }

    /// The breaches that are open, as they stand at `now`, and those that still wait to be taken up, as they stood: for a
    /// detector with another configuration.
    pub fn open_breaches(&self, now: &Stamp) -> Vec<(Breach, Stamp)> {
        let links = self.links.values().flat_map(|link| link.trackers.iter().map(|tracker| (link.target(), tracker)));
        let host = self.host.iter().map(|tracker| (Target::host(None), tracker));
        links
            .chain(host)
            .filter_map(|(target, tracker)| tracker.breach(&self.limits, target, tracker.machine.tally()?, None))
            .map(|breach| (breach, now.clone()))
            .chain(self.resume.waiting().iter().cloned())
            .collect()
    }

    /// Judges a reading; `findings` is filled anew.
    pub fn observe(&mut self, reading: &Reading, now: &Stamp, findings: &mut Findings) {
        findings.bodies.clear();
        findings.notices.clear();
        for change in &reading.changes {
            self.change(change, reading.boottime, now, findings);
        }
        if self.readings == 0 {
            self.say_what_matches_nothing(findings);
        }
        self.readings += 1;
        for link in self.links.values_mut() {
            link.verdict = Verdict::Gone;
        }
        for counters in &reading.counters {
            if let Some(link) = self.links.get_mut(&counters.ifindex) {
                link.verdict = link.meter.read(Some(sample(counters, reading)), link.info.speed.max());
            }
        }
        self.judge_links(reading.boottime, now, findings);
        self.judge_host(reading.boottime, now, findings);
        for breach in self.resume.overdue(now, |name| self.limits.iter().any(|limit| limit.name == name)) {
            findings.bodies.push(Body::BreachCleared(breach));
        }
    }

    fn judge_links(&mut self, boottime: Duration, now: &Stamp, findings: &mut Findings) {
        let Self { limits, links, resume, ids, .. } = self;
        for link in links.values_mut() {
            let Watched { info, trackers, accounted, verdict, .. } = link;
            let target = Target { interface: &info.name, ifindex: Some(info.ifindex), speed: info.speed.max() };
            let passed = boottime.saturating_sub(*accounted);
            match verdict {
                // What passes now is covered by the reading that comes next.
                Verdict::First | Verdict::Stalled | Verdict::Gone => continue,
                Verdict::Reset | Verdict::Glitch | Verdict::Gap(_) => {
                    trackers.iter_mut().for_each(|tracker| tracker.machine.pass(passed));
                }
                Verdict::Measured(traffic) | Verdict::Wrapped(traffic) => {
                    for tracker in trackers {
                        let carried = carried(*traffic, tracker.direction);
                        tracker.judge(limits, target, carried, &mut Context { resume, ids, now, findings });
                    }
                }
            }
            *accounted = boottime;
        }
    }

    /// The sum over the watched links. A link without a rate can only add to it: what is over is over, and what is below is not
    /// judged.
    fn judge_host(&mut self, boottime: Duration, now: &Stamp, findings: &mut Findings) {
        let Self { limits, links, host, host_accounted, resume, ids, .. } = self;
        if host.is_empty() || links.is_empty() {
            return;
        }
        let judged = || links.values().filter_map(|link| link.verdict.judged());
        let whole = judged().count() == links.len();
        // A link that was silent or unread for a while is measured over more time than the others: what is added is rates.
        let elapsed = judged().map(|traffic| traffic.elapsed).min().unwrap_or_default();
        let mut sum = Traffic { elapsed, ..Traffic::default() };
        for traffic in judged() {
            sum.rx_bytes = sum.rx_bytes.saturating_add(share(traffic.rx_bytes, elapsed, traffic.elapsed));
            sum.tx_bytes = sum.tx_bytes.saturating_add(share(traffic.tx_bytes, elapsed, traffic.elapsed));
        }
        let passed = boottime.saturating_sub(std::mem::replace(host_accounted, boottime));
        let speed = links.values().map(|link| link.info.speed.max().map(BitRate::bps)).sum::<Option<u64>>();
        let target = Target::host(speed.map(BitRate::from_bps));
        for tracker in host {
            let carried = carried(sum, tracker.direction);
            if !sum.elapsed.is_zero() && (whole || tracker.is_over(carried)) {
                tracker.judge(limits, target, carried, &mut Context { resume, ids, now, findings });
            } else {
                tracker.machine.pass(passed);
            }
        }
    }

    fn change(&mut self, change: &LinkChange, boottime: Duration, now: &Stamp, findings: &mut Findings) {
        match change {
            LinkChange::Added(info, came) => {
                let mut link = Watched {
                    info: info.clone(),
                    meter: Meter::new(self.interval),
                    trackers: Vec::new(),
                    accounted: boottime,
                    verdict: Verdict::First,
                };
                link.match_limits(&self.limits);
                // Those that were there at the start are no news.
                if self.readings > 0 {
                    findings.bodies.push(Body::LinkAdded(link_event(info, Reason::Added, came.to_string())));
                }
                link.say_speed(&self.limits, findings);
                self.links.insert(info.ifindex, link);
            }
            LinkChange::Changed(info) => self.changed(info, now, findings),
            LinkChange::Removed(ifindex, left) => {
                let Some(mut link) = self.links.remove(ifindex) else { return };
                link.clear_all(&self.limits, &Reason::LinkRemoved, findings);
                findings.bodies.push(Body::LinkRemoved(link_event(&link.info, Reason::Removed, left.to_string())));
            }
        }
    }

    fn changed(&mut self, info: &LinkInfo, _now: &Stamp, findings: &mut Findings) {
        let Some(link) = self.links.get_mut(&info.ifindex) else { return };
        let before = std::mem::replace(&mut link.info, info.clone());
        if before.name != info.name {
            link.clear_unmatched(&self.limits, &before.name, &Reason::LinkRenamed, findings);
            link.match_limits(&self.limits);
            let (to, from) = (format!("renamed to {}", info.name), format!("renamed from {}", before.name));
            findings.bodies.push(Body::LinkRemoved(link_event(&before, Reason::Renamed, to)));
            findings.bodies.push(Body::LinkAdded(link_event(info, Reason::Renamed, from)));
        }
        if before.speed != info.speed || before.name != info.name {
            link.say_speed(&self.limits, findings);
        }
    }

    fn say_what_matches_nothing(&self, findings: &mut Findings) {
        for limit in &self.limits {
            let Scope::Interface(pattern) = &limit.scope else { continue };
            if !self.links.values().any(|link| watch::names(pattern, &link.info.name)) {
                findings.notices.push(Notice::MatchesNothing { limit: limit.name.clone(), pattern: pattern.clone() });
            }
        }
    }
}

impl Watched {
    fn target(&self) -> Target<'_> {
        Target { interface: &self.info.name, ifindex: Some(self.info.ifindex), speed: self.info.speed.max() }
    }

    /// Adds what is missing: a tracker for each direction of each limit that names this link.
    fn match_limits(&mut self, limits: &[Limit]) {
        for (index, limit) in limits.iter().enumerate() {
            let named = matches!(&limit.scope, Scope::Interface(pattern) if watch::names(pattern, &self.info.name));
            if named && !self.trackers.iter().any(|tracker| tracker.limit == index) {
                self.trackers.extend(trackers(index, limit));
            }
        }
    }

    fn clear_unmatched(&mut self, limits: &[Limit], before: &str, reason: &Reason, findings: &mut Findings) {
        let Self { info, trackers, .. } = self;
        let target = Target { interface: before, ifindex: Some(info.ifindex), speed: info.speed.max() };
        trackers.retain_mut(|tracker| {
            let stays = matches!(&limits[tracker.limit].scope, Scope::Interface(p) if watch::names(p, &info.name));
            if !stays {
                tracker.end(limits, target, reason, findings);
            }
            stays
        });
    }

    fn clear_all(&mut self, limits: &[Limit], reason: &Reason, findings: &mut Findings) {
        let target =
            Target { interface: &self.info.name, ifindex: Some(self.info.ifindex), speed: self.info.speed.max() };
        for tracker in &mut self.trackers {
            tracker.end(limits, target, reason, findings);
        }
    }

    fn say_speed(&mut self, limits: &[Limit], findings: &mut Findings) {
        let target =
            Target { interface: &self.info.name, ifindex: Some(self.info.ifindex), speed: self.info.speed.max() };
        for tracker in &mut self.trackers {
            tracker.resolve(limits, target, findings);
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchesNothing { limit, pattern } => {
                write!(f, "limit {limit}: no link matches interface = \"{pattern}\"; one may come later")
            }
            Self::SpeedUnknown { limit, interface } => write!(
                f,
                "limit {limit}: the speed of {interface} is not known, so a percentage of it waits; give raise_at as a bit rate to \
                 be judged at once"
            ),
            Self::SpeedKnown { limit, interface, raise_at } => {
                write!(f, "limit {limit}: the speed of {interface} is known now; a breach is raised at {raise_at}")
            }
        }
    }
}

/// The part of `bytes`, which were carried in `whole`, that falls into `part`.
fn share(bytes: u64, part: Duration, whole: Duration) -> u64 {
    let bytes = u128::from(bytes) * part.as_nanos() / whole.as_nanos().max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn sample(counters: &Counters, reading: &Reading) -> Sample {
    Sample {
        at: reading.at,
        boottime: reading.boottime,
        rx_bytes: counters.rx_bytes,
        tx_bytes: counters.tx_bytes,
        narrow: counters.bits == CounterBits::B32,
    }
}

fn link_event(info: &LinkInfo, reason: Reason, detail: String) -> Link {
    Link {
        interface: info.name.clone(),
        ifindex: info.ifindex,
        speed_bps: info.speed.max().map(BitRate::bps),
        reason: Some(reason),
        detail: Some(detail),
    }
}

#[cfg(test)]
mod tests;
