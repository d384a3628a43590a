//! One link: its meter, what its readings were worth, and the limits on it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::tracker::{Context, Target, Tracker, load, trackers};
use super::{Detections, Notice};
use crate::agent::counters::{Carried, Counters, LinkInfo, Reading, Speed};
use crate::agent::limit::{Limit, Scope, delta};
use crate::agent::rate::{CounterSample, Meter, Traffic, Verdict, bit_rate};
use crate::agent::watch;
use crate::event::{Body, Link, Reason};
use crate::units::BitRate;

/// How often it is reported at most that a link went up or down.
const UP_DOWN_EVERY: Duration = Duration::from_secs(60);
/// How often readings that could not be judged are logged at most, for each link.
const UNJUDGED_EVERY: Duration = Duration::from_secs(60);

/// Readings by the word for their verdict ([`Verdict::as_str`]).
pub type VerdictCounts = BTreeMap<&'static str, u64>;

/// A watched link. Times are `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub(super) struct WatchedLink {
    pub(super) info: LinkInfo,
    pub(super) meter: Meter,
    pub(super) trackers: Vec<Tracker>,
    pub(super) verdict: Verdict,
    /// Its source has amounts, each for its own time, and no counters.
    has_amounts: bool,
    /// Readings that were not judged.
    pub(super) unjudged: VerdictCounts,
    /// Those of them that are worth a line in the log and have none yet.
    unlogged: VerdictCounts,
    logged_at: Option<Duration>,
    /// The state that was reported last, and when.
    reported_up: bool,
    reported_at: Option<Duration>,
    pub(super) history: History,
}

/// What a link carried lately, for sums of several links: they are judged up to where all of them are known.
#[derive(Debug)]
pub(super) struct History {
    /// Begin of the first of `pieces`.
    from: Duration,
    pieces: VecDeque<Piece>,
}

/// A time that begins where the piece before it ends.
#[derive(Clone, Copy, Debug)]
struct Piece {
    until: Duration,
    /// The pace of what was carried; `None` is unknown.
    traffic: Option<Traffic>,
}

impl WatchedLink {
    pub(super) fn new(info: LinkInfo, limits: &[Limit], interval: Duration, now: Duration) -> Self {
        let mut link = Self {
            meter: Meter::new(interval, info.kind.is_counted_in_software()),
            trackers: Vec::new(),
            verdict: Verdict::First,
            has_amounts: false,
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

    /// Takes its counters of a reading; `None` where they could not be read.
    pub(super) fn read(&mut self, counters: Option<&Counters>, reading: &Reading, detections: &mut Detections) {
        let trusted = !self.meter.doubts_speed();
        // The speed that a driver in software names means nothing.
        let speed = if self.info.kind.is_counted_in_software() { Speed::default() } else { self.info.speed };
        self.verdict = self.meter.read(counters.map(|counters| sample(counters, reading)), speed);
        if let Some((traffic, speed)) = self.verdict.judged().zip(speed.max())
            && trusted
            && self.meter.doubts_speed()
        {
            let rate = bit_rate(traffic.rx_bytes.max(traffic.tx_bytes), traffic.elapsed);
            detections.notice(Notice::SpeedDoubted { interface: self.info.name.clone(), speed, rate });
        }
        if self.verdict.judged().is_none() {
            *self.unjudged.entry(self.verdict.as_str()).or_default() += 1;
            // That a driver has its own pace is no news.
            if !matches!(self.verdict, Verdict::First | Verdict::Learning | Verdict::Waiting) {
                *self.unlogged.entry(self.verdict.as_str()).or_default() += 1;
            }
        }
    }

    /// Takes an amount that a source knows without counters.
    pub(super) fn carry(&mut self, carried: &Carried) {
        let Carried { rx_bytes, tx_bytes, elapsed, .. } = *carried;
        self.has_amounts = true;
        self.verdict = Verdict::Measured(Traffic { rx_bytes, tx_bytes, elapsed });
    }

    /// Judges the reading by each limit on this link.
    pub(super) fn judge(&mut self, limits: &[Limit], boottime: Duration, context: &mut Context<'_>) {
        let target = Target::link(&self.info);
        match self.verdict {
            // No later amount covers this one's time.
            Verdict::Unread if self.has_amounts => self.trackers.iter_mut().for_each(|tracker| tracker.state.pass()),
            // A later reading covers this one's time.
            Verdict::First | Verdict::Waiting | Verdict::Unread => {}
            Verdict::Learning | Verdict::Reset | Verdict::Jump | Verdict::Suspect | Verdict::Gap(_) => {
                self.trackers.iter_mut().for_each(|tracker| tracker.state.pass());
            }
            Verdict::Measured(traffic) => {
                for tracker in &mut self.trackers {
                    tracker.judge(limits, target, load(traffic, tracker.direction, delta(boottime)), context);
                }
            }
        }
    }

    /// Adds what is missing: a tracker for each direction of each limit that names this link.
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

    /// Ends and drops the trackers of limits that do not name this link as it is now; `before` is its last name.
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

    /// Sets the thresholds anew: limits or the speed are others than before.
    pub(super) fn resolve(&mut self, limits: &[Limit], detections: &mut Detections) {
        let target = Target::link(&self.info);
        self.trackers.iter_mut().for_each(|tracker| tracker.resolve(limits, target, detections));
    }

    /// Reports that the link went up or down, at a sane rate: what lasts is reported.
    pub(super) fn report_state(&mut self, now: Duration, detections: &mut Detections) {
        let is_early = || self.reported_at.is_some_and(|at| now.saturating_sub(at) < UP_DOWN_EVERY);
        if self.info.up == self.reported_up || is_early() {
            return;
        }
        (self.reported_up, self.reported_at) = (self.info.up, Some(now));
        let reason = if self.info.up { Reason::Up } else { Reason::Down };
        detections.bodies.push(Body::LinkChanged(event(&self.info, reason, None)));
    }

    /// Logs how many readings were not judged, at a sane rate.
    pub(super) fn report_unjudged(&mut self, now: Duration, detections: &mut Detections) {
        let is_early = || self.logged_at.is_some_and(|at| now.saturating_sub(at) < UNJUDGED_EVERY);
        if self.unlogged.is_empty() || is_early() {
            return;
        }
        self.logged_at = Some(now);
        let counts = std::mem::take(&mut self.unlogged);
        detections.notice(Notice::Unjudged { interface: self.info.name.clone(), counts });
    }
}

impl History {
    fn new(from: Duration) -> Self {
        Self { from, pieces: VecDeque::new() }
    }

    /// Up to when it is known what was carried, or that it will never be known.
    pub(super) fn known_until(&self) -> Duration {
        self.pieces.back().map_or(self.from, |piece| piece.until)
    }

    /// Adds a reading at `now`. What a driver has not shown after `wait_max` is unknown.
    pub(super) fn add(&mut self, verdict: Verdict, now: Duration, wait_max: Duration) {
        let known_until = self.known_until();
        let waits = verdict == Verdict::Waiting && now.saturating_sub(known_until) < wait_max;
        if waits || now <= known_until {
            return;
        }
        self.pieces.push_back(Piece { until: now, traffic: verdict.judged() });
    }

    /// Where pieces end between `from` and `until`.
    pub(super) fn ends(&self, from: Duration, until: Duration) -> impl Iterator<Item = Duration> + use<'_> {
        self.pieces.iter().map(|piece| piece.until).filter(move |end| *end > from && *end <= until)
    }

    /// What was carried from `from` to `until`, within one piece; `None` is unknown.
    pub(super) fn carried(&self, from: Duration, until: Duration) -> Option<Traffic> {
        let piece = self.pieces.iter().find(|piece| piece.until >= until).filter(|_| from >= self.from)?;
        let (traffic, elapsed) = (piece.traffic?, until.saturating_sub(from));
        let share = |bytes| share(bytes, elapsed, traffic.elapsed);
        Some(Traffic { rx_bytes: share(traffic.rx_bytes), tx_bytes: share(traffic.tx_bytes), elapsed })
    }

    /// Drops what ends by `until`.
    pub(super) fn forget(&mut self, until: Duration) {
        while let Some(piece) = self.pieces.pop_front_if(|piece| piece.until <= until) {
            self.from = piece.until;
        }
    }
}

/// Whether a limit is on this link.
fn names(limit: &Limit, info: &LinkInfo) -> bool {
    matches!(&limit.scope, Scope::Interface(pattern) if watch::names(pattern, info))
}

/// The part of `bytes`, which were carried in `whole`, that falls into `part`.
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

/// An event of this link.
pub(super) fn event(info: &LinkInfo, reason: Reason, detail: Option<String>) -> Link {
    Link {
        interface: info.name.clone(),
        ifindex: info.ifindex,
        speed_bps: info.speed.max().map(BitRate::bps),
        reason: Some(reason),
        detail,
    }
}
