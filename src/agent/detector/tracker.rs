//! One limit on one link, or on the host, in one direction: its machine, and the events of its breach.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use smol_str::{SmolStr, format_smolstr};

use super::{Findings, Notice};
use crate::agent::limit::{Action, Carried, Limit, Machine, Marks, Tally};
use crate::agent::rate::{Traffic, bit_rate};
use crate::agent::resume::{Decision, Resume};
use crate::event::{ALL_INTERFACES, Body, Breach, Direction, Reason, Stamp};
use crate::units::BitRate;

/// One limit on one link, or on the host, in one direction.
#[derive(Debug)]
pub(super) struct Tracker {
    pub(super) limit: usize,
    pub(super) direction: Direction,
    pub(super) machine: Machine,
    /// Its breach: id, `started_at` and `raised_at`.
    pub(super) open: Option<(SmolStr, DateTime<Utc>, DateTime<Utc>)>,
    pub(super) marks: Option<Marks>,
    pub(super) waits: bool,
}

/// Whom a tracker watches, for its events.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) interface: &'a str,
    pub(super) ifindex: Option<u32>,
    pub(super) speed: Option<BitRate>,
}

impl Target<'_> {
    pub(super) fn host(speed: Option<BitRate>) -> Self {
        Self { interface: ALL_INTERFACES, ifindex: None, speed }
    }
}

/// All that judging needs besides the reading.
pub(super) struct Context<'a> {
    pub(super) resume: &'a mut Resume,
    pub(super) ids: &'a mut fastrand::Rng,
    pub(super) now: &'a Stamp,
    pub(super) findings: &'a mut Findings,
}

impl Tracker {
    pub(super) fn judge(&mut self, limits: &[Limit], target: Target<'_>, carried: Carried, context: &mut Context<'_>) {
        self.resolve(limits, target, context.findings);
        let Some(marks) = self.marks else { return };
        let limit = &limits[self.limit];
        match context.resume.decide(&limit.name, target.interface, self.direction, context.now) {
            Decision::None => {}
            Decision::Wait => return,
            Decision::Interrupted(breach) => context.findings.bodies.push(Body::BreachCleared(breach)),
            Decision::Resumed(breach, pause) => {
                self.open = Some((breach.breach_id.clone(), breach.started_at, breach.raised_at));
                self.machine = Machine::resumed(tally(&breach, pause));
            }
        }
        let Some(action) = self.machine.judge(limit, marks, carried) else { return };
        if let Action::Raise(tally) = action {
            let raised_at = context.now.observed_at;
            let started_at = raised_at - time_delta(tally.duration);
            self.open = Some((format_smolstr!("{:016x}", context.ids.u64(..)), started_at, raised_at));
        }
        let below = matches!(action, Action::Clear(_)).then_some(Reason::Below);
        let (Action::Raise(tally) | Action::Update(tally) | Action::Clear(tally)) = action;
        let Some(breach) = self.breach(limits, target, tally, below) else { return };
        context.findings.bodies.push(match action {
            Action::Raise(_) => Body::BreachRaised(breach),
            Action::Update(_) => Body::BreachUpdated(breach),
            Action::Clear(_) => {
                self.open = None;
                Body::BreachCleared(breach)
            }
        });
    }

    /// The marks on a link of this speed; those of before, where a breach is open and the speed no longer known.
    pub(super) fn resolve(&mut self, limits: &[Limit], target: Target<'_>, findings: &mut Findings) {
        let limit = &limits[self.limit];
        let raise_at = limit.raise_at.resolve(target.speed, self.direction);
        let clear_at = limit.clear_at.resolve(target.speed, self.direction);
        let names = || (limit.name.clone(), target.interface.to_owned());
        match raise_at.zip(clear_at) {
            Some((raise_at, clear_at)) => {
                self.marks = Some(Marks { raise_at, clear_at });
                if std::mem::take(&mut self.waits) {
                    let (limit, interface) = names();
                    findings.notices.push(Notice::SpeedKnown { limit, interface, raise_at });
                }
            }
            None if self.open.is_none() => {
                self.marks = None;
                if !std::mem::replace(&mut self.waits, true) {
                    let (limit, interface) = names();
                    findings.notices.push(Notice::SpeedUnknown { limit, interface });
                }
            }
            None => {}
        }
    }

    pub(super) fn is_over(&self, carried: Carried) -> bool {
        let rate = bit_rate(carried.bytes, carried.elapsed);
        self.marks.is_some_and(|marks| rate >= marks.raise_at)
    }

    pub(super) fn end(&mut self, limits: &[Limit], target: Target<'_>, reason: &Reason, findings: &mut Findings) {
        if let Some(Action::Clear(tally)) = self.machine.end() {
            let breach = self.breach(limits, target, tally, Some(reason.clone()));
            findings.bodies.extend(breach.map(Body::BreachCleared));
            self.open = None;
        }
    }

    pub(super) fn breach(
        &self,
        limits: &[Limit],
        target: Target<'_>,
        tally: Tally,
        reason: Option<Reason>,
    ) -> Option<Breach> {
        let (breach_id, started_at, raised_at) = self.open.clone()?;
        let limit = &limits[self.limit];
        Some(Breach {
            breach_id,
            started_at,
            raised_at,
            ended_at: started_at + time_delta(tally.duration),
            limit_name: limit.name.as_str().into(),
            severity: limit.severity,
            interface: target.interface.into(),
            ifindex: target.ifindex,
            direction: self.direction,
            limit_bps: self.marks?.raise_at.bps(),
            rate_bps: tally.rate.bps(),
            peak_bps: tally.peak.bps(),
            mean_bps: tally.mean().bps(),
            duration_ms: millis(tally.duration),
            measured_ms: millis(tally.measured),
            excess_bytes: tally.excess_bytes,
            reason,
            detail: None,
        })
    }
}

pub(super) fn trackers(index: usize, limit: &Limit) -> impl Iterator<Item = Tracker> + use<'_> {
    limit.directions.iter().map(move |direction| Tracker {
        limit: index,
        direction: *direction,
        machine: Machine::default(),
        open: None,
        marks: None,
        waits: false,
    })
}

pub(super) fn carried(traffic: Traffic, direction: Direction) -> Carried {
    let bytes = match direction {
        Direction::Rx => traffic.rx_bytes,
        Direction::Tx => traffic.tx_bytes,
        Direction::Total => traffic.rx_bytes + traffic.tx_bytes,
    };
    Carried { bytes, elapsed: traffic.elapsed }
}

pub(super) fn tally(breach: &Breach, pause: Duration) -> Tally {
    let bytes = u128::from(breach.mean_bps) * u128::from(breach.measured_ms) / 8_000;
    Tally {
        rate: BitRate::from_bps(breach.rate_bps),
        peak: BitRate::from_bps(breach.peak_bps),
        bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        excess_bytes: breach.excess_bytes,
        measured: Duration::from_millis(breach.measured_ms),
        duration: Duration::from_millis(breach.duration_ms) + pause,
    }
}

/// In whole microseconds, as all times of events are.
fn time_delta(duration: Duration) -> TimeDelta {
    i64::try_from(duration.as_micros()).map_or(TimeDelta::MAX, TimeDelta::microseconds)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
