use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use smol_str::{SmolStr, format_smolstr};

use super::{ConfigNotice, Detections};
use crate::agent::counters::{LinkInfo, Speed};
use crate::agent::detector::limit::{Action, BreachState, BreachStats, Limit, Load, Thresholds, delta};
use crate::agent::detector::rate::Traffic;
use crate::agent::detector::resume::{Decision, Resume};
use crate::message::{ALL_INTERFACES, Body, Breach, Direction, Reason, Stamp};
use crate::units::{BitRate, exactly};

#[derive(Debug)]
pub(super) struct Tracker {
    pub(super) limit: usize,
    pub(super) direction: Direction,
    pub(super) state: BreachState,
    open: Option<TrackedBreach>,
    pub(super) thresholds: Option<Thresholds>,
    /// True while the limit waits for a speed, which was reported.
    waits: bool,
}

#[derive(Clone, Debug)]
struct TrackedBreach {
    id: SmolStr,
    started_at: DateTime<Utc>,
    raised_at: DateTime<Utc>,
    ended_at: DateTime<Utc>,
}

#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) interface: &'a str,
    pub(super) ifindex: Option<u32>,
    pub(super) speed: Speed,
    pub(super) speedless_link: &'a str,
}

impl<'a> Target<'a> {
    pub(super) fn link(info: &'a LinkInfo) -> Self {
        Self { interface: &info.name, ifindex: Some(info.ifindex), speed: info.speed, speedless_link: &info.name }
    }

    pub(super) fn host(speed: Speed, speedless_link: &'a str) -> Self {
        Self { interface: ALL_INTERFACES, ifindex: None, speed, speedless_link }
    }
}

#[derive(Clone, Copy)]
pub(super) struct TickTime {
    pub(super) wall: DateTime<Utc>,
    pub(super) boottime: TimeDelta,
}

impl TickTime {
    fn wall_at(self, boottime: TimeDelta) -> DateTime<Utc> {
        (self.wall - (self.boottime - boottime)).trunc_subsecs(6)
    }
}

pub(super) struct DetectionContext<'a> {
    pub(super) resume: &'a mut Resume,
    pub(super) ids: &'a mut fastrand::Rng,
    pub(super) now: &'a Stamp,
    pub(super) moment: TickTime,
    pub(super) detections: &'a mut Detections,
}

impl Tracker {
    pub(super) fn judge(
        &mut self,
        limits: &[Limit],
        target: Target<'_>,
        load: Load,
        context: &mut DetectionContext<'_>,
    ) {
        self.resolve(limits, target, context.detections);
        let Some(thresholds) = self.thresholds else { return };
        let limit = &limits[self.limit];
        match context.resume.decide(&limit.name, target.interface, self.direction, context.now) {
            Decision::None => {}
            Decision::Wait => return,
            Decision::Interrupted(breach) => context.detections.bodies.push(Body::BreachCleared(breach)),
            Decision::Resumed(breach, since_ended) => self.resume(&breach, since_ended, context.moment),
        }
        let Some(action) = self.state.judge(limit, thresholds, load) else {
            self.follow(context.moment);
            return;
        };
        if let Action::Raise(stats) = action {
            let wall_at = |boottime| context.moment.wall_at(boottime);
            self.open = Some(TrackedBreach {
                id: format_smolstr!("{:016x}", context.ids.u64(..)),
                started_at: wall_at(stats.started),
                raised_at: wall_at(stats.ended),
                ended_at: wall_at(stats.ended),
            });
        }
        self.follow(context.moment);
        let (Action::Raise(stats) | Action::Update(stats) | Action::Clear(stats)) = action;
        let reason = matches!(action, Action::Clear(_)).then_some(Reason::Below);
        let Some(breach) = self.breach(limits, target, stats, reason) else { return };
        context.detections.bodies.push(match action {
            Action::Raise(_) => Body::BreachRaised(breach),
            Action::Update(_) => Body::BreachUpdated(breach),
            Action::Clear(_) => {
                self.open = None;
                Body::BreachCleared(breach)
            }
        });
    }

    fn follow(&mut self, moment: TickTime) {
        if let (Some(open), BreachState::Raised(raised)) = (&mut self.open, &self.state) {
            open.ended_at = moment.wall_at(raised.stats.ended).max(open.raised_at);
        }
    }

    fn resume(&mut self, breach: &Breach, since_ended: Duration, moment: TickTime) {
        self.open = Some(TrackedBreach {
            id: breach.breach_id.clone(),
            started_at: breach.started_at,
            raised_at: breach.raised_at,
            ended_at: breach.ended_at,
        });
        let ended = moment.boottime - delta(since_ended);
        self.state = BreachState::resumed(stats(breach, ended), moment.boottime);
    }

    /// Recomputes the thresholds, which stay while a breach is open and the speed is no longer known.
    pub(super) fn resolve(&mut self, limits: &[Limit], target: Target<'_>, detections: &mut Detections) {
        let limit = &limits[self.limit];
        let raise_at = limit.raise_at.resolve(target.speed, self.direction);
        let clear_at = limit.clear_at.resolve(target.speed, self.direction);
        match raise_at.zip(clear_at) {
            Some((raise_at, clear_at)) => {
                self.thresholds = Some(Thresholds { raise_at, clear_at });
                if std::mem::take(&mut self.waits) {
                    let (limit, interface) = (limit.name.clone(), target.interface.to_owned());
                    detections.notice(ConfigNotice::SpeedKnown { limit, interface, raise_at });
                }
            }
            None if self.open.is_none() => {
                self.thresholds = None;
                self.state = BreachState::Normal;
                if !std::mem::replace(&mut self.waits, true) {
                    let (limit, interface) = (limit.name.clone(), target.speedless_link.to_owned());
                    detections.notice(ConfigNotice::SpeedUnknown { limit, interface });
                }
            }
            None => {}
        }
    }

    pub(super) fn is_over(&self, load: Load) -> bool {
        self.thresholds.is_some_and(|thresholds| {
            load.rate() >= if self.open.is_some() { thresholds.clear_at } else { thresholds.raise_at }
        })
    }

    pub(super) fn end(&mut self, limits: &[Limit], target: Target<'_>, reason: Reason, detections: &mut Detections) {
        if let Some(Action::Clear(stats)) = self.state.end() {
            let breach = self.breach(limits, target, stats, Some(reason));
            detections.bodies.extend(breach.map(Body::BreachCleared));
            self.open = None;
        }
    }

    pub(super) fn open_breach(&self, limits: &[Limit], target: Target<'_>) -> Option<Breach> {
        self.breach(limits, target, self.state.stats()?, None)
    }

    pub(super) fn unreported(&self, limits: &[Limit], target: Target<'_>) -> Option<Breach> {
        self.breach(limits, target, self.state.unreported()?, None)
    }

    fn breach(
        &self,
        limits: &[Limit],
        target: Target<'_>,
        stats: BreachStats,
        reason: Option<Reason>,
    ) -> Option<Breach> {
        let TrackedBreach { id, started_at, raised_at, ended_at } = self.open.clone()?;
        let limit = &limits[self.limit];
        let below = self.state.below_for().filter(|_| reason.is_none());
        let detail = below.map(|below| {
            let seconds = Duration::from_secs((below + Duration::from_millis(500)).as_secs());
            let (below, clears_after) = (exactly(seconds), exactly(limit.clear_hold));
            format!("below the limit for {below}, clears after {clears_after}")
        });
        Some(Breach {
            breach_id: id,
            started_at,
            raised_at,
            ended_at,
            limit_name: limit.name.as_str().into(),
            severity: limit.severity,
            interface: target.interface.into(),
            ifindex: target.ifindex,
            direction: self.direction,
            limit_bps: self.thresholds?.raise_at.bps(),
            rate_bps: stats.rate.bps(),
            peak_bps: stats.peak.bps(),
            mean_bps: stats.mean().bps(),
            duration_ms: rounded_millis(stats.duration()),
            measured_ms: rounded_millis(stats.measured()),
            excess_bytes: stats.excess_bytes,
            reason,
            detail,
        })
    }
}

pub(super) fn trackers(index: usize, limit: &Limit) -> impl Iterator<Item = Tracker> + use<'_> {
    limit.directions.iter().map(move |direction| Tracker {
        limit: index,
        direction: *direction,
        state: BreachState::Normal,
        open: None,
        thresholds: None,
        waits: false,
    })
}

pub(super) fn load(traffic: Traffic, direction: Direction, end: TimeDelta) -> Load {
    let bytes = match direction {
        Direction::Rx => traffic.rx_bytes,
        Direction::Tx => traffic.tx_bytes,
        Direction::Total => traffic.rx_bytes.saturating_add(traffic.tx_bytes),
    };
    Load { bytes, elapsed: traffic.elapsed, end }
}

fn stats(breach: &Breach, ended: TimeDelta) -> BreachStats {
    let bytes = (u128::from(breach.mean_bps) * u128::from(breach.measured_ms)).div_ceil(8_000);
    BreachStats {
        started: ended - delta(Duration::from_millis(breach.duration_ms)),
        ended,
        rate: BitRate::from_bps(breach.rate_bps),
        peak: BitRate::from_bps(breach.peak_bps),
        bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        excess_bytes: breach.excess_bytes,
        measured: Duration::from_millis(breach.measured_ms),
    }
}

fn rounded_millis(duration: Duration) -> u64 {
    u64::try_from((duration.as_micros() + 500) / 1_000).unwrap_or(u64::MAX)
}
