//! A link: its rates, and the limits on it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::tracker::{DetectionContext, Target, Tracker, load, trackers};
use super::{ConfigNotice, Detections};
use crate::agent::counters::{ByteDelta, Counters, LinkInfo, LinkKind, Reading, Speed, filter};
use crate::agent::detector::limit::{Limit, Scope, delta};
use crate::agent::detector::rate::{CounterSample, Meter, Traffic, Verdict, bit_rate};
use crate::message::{Body, Link, Reason};
use crate::units::BitRate;

const UP_DOWN_EVERY: Duration = Duration::from_secs(60);
const UNJUDGED_EVERY: Duration = Duration::from_secs(60);

pub type VerdictCounts = BTreeMap<&'static str, u64>;

/// A link, its meter and its limits; times are `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub(super) struct WatchedLink {
    pub(super) info: LinkInfo,
    pub(super) meter: Meter,
    pub(super) trackers: Vec<Tracker>,
    pub(super) verdict: Verdict,
    pub(super) counters: Option<Counters>,
    /// True if the source reports byte deltas, each for its own time, instead of counters.
    has_deltas: bool,
    pub(super) unjudged: VerdictCounts,
    unlogged: VerdictCounts,
    logged_at: Option<Duration>,
    reported_up: bool,
    reported_at: Option<Duration>,
    pub(super) history: History,
}

#[derive(Debug)]
pub(super) struct History {
    from: Duration,
    pieces: VecDeque<TrafficPiece>,
}

#[derive(Clone, Copy, Debug)]
struct TrafficPiece {
    until: Duration,
    traffic: Option<Traffic>,
}

impl WatchedLink {
    pub(super) fn new(info: LinkInfo, limits: &[Limit], interval: Duration, now: Duration) -> Self {
        let mut link = Self {
            meter: Meter::new(interval, info.kind.is_counted_in_software()),
            trackers: Vec::new(),
            verdict: Verdict::First,
            counters: None,
            has_deltas: false,
            unjudged: VerdictCounts::new(),
            unlogged: VerdictCounts::new(),
            logged_at: None,
            reported_up: info.up,
            reported_at: None,
            history: History::new(now),
            info,
        };
        link.match_limits(limits);
        link
    }

    pub(super) fn read(&mut self, counters: Option<&Counters>, reading: &Reading, detections: &mut Detections) {
        let trusted = !self.meter.doubts_speed();
        // A link with a kind reports a made-up speed, or the sum of its ports', some of which may be new.
        let speed = if self.info.kind == LinkKind::Physical { self.info.speed } else { Speed::default() };
        self.counters = counters.copied();
        self.verdict = self.meter.read(counters.map(|counters| sample(counters, reading)), speed);
        if let Some((traffic, speed)) = self.verdict.judged().zip(speed.max())
            && trusted
            && self.meter.doubts_speed()
        {
            let rate = bit_rate(traffic.rx_bytes.max(traffic.tx_bytes), traffic.elapsed);
            detections.notice(ConfigNotice::SpeedDoubted { interface: self.info.name.clone(), speed, rate });
        }
        self.count_unjudged();
    }

    pub(super) fn add_delta(&mut self, delta: &ByteDelta) {
        let ByteDelta { rx_bytes, tx_bytes, elapsed, .. } = *delta;
        self.has_deltas = true;
        self.verdict = self.meter.accept(Traffic { rx_bytes, tx_bytes, elapsed });
        self.count_unjudged();
    }

    fn count_unjudged(&mut self) {
        if self.verdict.judged().is_none() {
            *self.unjudged.entry(self.verdict.as_str()).or_default() += 1;
            // Frequent at a start, or with a driver that has its own pace: `status` counts them, but they would flood the log.
            if !matches!(self.verdict, Verdict::First | Verdict::Learning | Verdict::Waiting) {
                *self.unlogged.entry(self.verdict.as_str()).or_default() += 1;
            }
        }
    }

    pub(super) fn judge(&mut self, limits: &[Limit], boottime: Duration, context: &mut DetectionContext<'_>) {
        let target = Target::link(&self.info);
        match self.verdict {
            // No later amount covers this one's time.
            Verdict::Unread if self.has_deltas => {
                self.trackers.iter_mut().for_each(|tracker| tracker.state.cancel_pending());
            }
            // A later reading covers this one's time.
            Verdict::First | Verdict::Waiting | Verdict::Unread => {}
            Verdict::Learning | Verdict::Reset | Verdict::Jump | Verdict::Suspect | Verdict::Gap(_) => {
                self.trackers.iter_mut().for_each(|tracker| tracker.state.cancel_pending());
            }
            Verdict::Measured(traffic) => {
                for tracker in &mut self.trackers {
                    tracker.judge(limits, target, load(traffic, tracker.direction, delta(boottime)), context);
                }
            }
        }
    }

    pub(super) fn match_limits(&mut self, limits: &[Limit]) {
        for (index, limit) in limits.iter().enumerate().filter(|(_, limit)| names(limit, &self.info)) {
            let has = |tracker: &Tracker, there: &Tracker| {
                (tracker.limit, tracker.direction) == (there.limit, there.direction)
            };
            let missing: Vec<_> =
                trackers(index, limit).filter(|new| !self.trackers.iter().any(|old| has(new, old))).collect();
            self.trackers.extend(missing);
        }
    }

    pub(super) fn drop_unmatched(
        &mut self,
        limits: &[Limit],
        before: &str,
        reason: &Reason,
        detections: &mut Detections,
    ) {
        let Self { info, trackers, .. } = self;
        let target = Target { interface: before, ..Target::link(info) };
        trackers.retain_mut(|tracker| {
            let stays = names(&limits[tracker.limit], info);
            if !stays {
                tracker.end(limits, target, reason.clone(), detections);
            }
            stays
        });
    }

    pub(super) fn end_all(&mut self, limits: &[Limit], reason: &Reason, detections: &mut Detections) {
        let target = Target::link(&self.info);
        self.trackers.iter_mut().for_each(|tracker| tracker.end(limits, target, reason.clone(), detections));
    }

    pub(super) fn resolve(&mut self, limits: &[Limit], detections: &mut Detections) {
        let target = Target::link(&self.info);
        self.trackers.iter_mut().for_each(|tracker| tracker.resolve(limits, target, detections));
    }

    /// Reports a change at most once a minute; a lasting state is reported in the end.
    pub(super) fn report_state(&mut self, now: Duration, detections: &mut Detections) {
        let is_early = || self.reported_at.is_some_and(|at| now.saturating_sub(at) < UP_DOWN_EVERY);
        if self.info.up == self.reported_up || is_early() {
            return;
        }
        (self.reported_up, self.reported_at) = (self.info.up, Some(now));
        let reason = if self.info.up { Reason::Up } else { Reason::Down };
        detections.bodies.push(Body::LinkChanged(event(&self.info, reason, None)));
    }

    pub(super) fn take_unlogged(&mut self, now: Duration) -> Option<VerdictCounts> {
        let is_early = || self.logged_at.is_some_and(|at| now.saturating_sub(at) < UNJUDGED_EVERY);
        if self.unlogged.is_empty() || is_early() {
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

impl History {
    fn new(from: Duration) -> Self {
        Self { from, pieces: VecDeque::new() }
    }

    pub(super) fn known_until(&self) -> Duration {
        self.pieces.back().map_or(self.from, |piece| piece.until)
    }

    /// Adds a reading. Traffic that a driver has not shown after `wait_max` is unknown.
    pub(super) fn add(&mut self, verdict: Verdict, now: Duration, wait_max: Duration) {
        let known_until = self.known_until();
        let waits = verdict == Verdict::Waiting && now.saturating_sub(known_until) < wait_max;
        if waits || now <= known_until {
            return;
        }
        self.pieces.push_back(TrafficPiece { until: now, traffic: verdict.judged() });
    }

    pub(super) fn ends(&self, from: Duration, until: Duration) -> impl Iterator<Item = Duration> + use<'_> {
        self.pieces.iter().map(|piece| piece.until).filter(move |end| *end > from && *end <= until)
    }

    /// Returns `None` where the traffic is unknown. `from` and `until` must lie within one piece.
    pub(super) fn traffic_between(&self, from: Duration, until: Duration) -> Option<Traffic> {
        let piece = self.pieces.iter().find(|piece| piece.until >= until).filter(|_| from >= self.from)?;
        let (traffic, elapsed) = (piece.traffic?, until.saturating_sub(from));
        let share = |bytes| share(bytes, elapsed, traffic.elapsed);
        Some(Traffic { rx_bytes: share(traffic.rx_bytes), tx_bytes: share(traffic.tx_bytes), elapsed })
    }

    pub(super) fn forget(&mut self, until: Duration) {
        while let Some(piece) = self.pieces.pop_front_if(|piece| piece.until <= until) {
            self.from = piece.until;
        }
    }
}

fn names(limit: &Limit, info: &LinkInfo) -> bool {
    matches!(&limit.scope, Scope::Interface(pattern) if filter::names(pattern, info))
}

fn share(bytes: u64, part: Duration, whole: Duration) -> u64 {
    let bytes = u128::from(bytes) * part.as_nanos() / whole.as_nanos().max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

pub(super) fn sample(counters: &Counters, reading: &Reading) -> CounterSample {
    CounterSample {
        at: reading.at,
        boottime: reading.boottime,
        rx_bytes: counters.rx_bytes,
        tx_bytes: counters.tx_bytes,
        packets: counters.packets,
        bits: counters.bits,
    }
}

pub(super) fn event(info: &LinkInfo, reason: Reason, detail: Option<String>) -> Link {
    Link {
        interface: info.name.clone(),
        ifindex: info.ifindex,
        speed_bps: info.speed.max().map(BitRate::bps),
        reason: Some(reason),
        detail,
    }
}
