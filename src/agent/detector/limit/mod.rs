//! Limits, and the state machine of a breach. Pure: loads come in, an [`Action`] to report goes out. Times are `CLOCK_BOOTTIME`,
//! and signed, since a breach may have begun before this boot.

use std::fmt;
use std::time::Duration;

use chrono::TimeDelta;

use crate::agent::counters::Speed;
use crate::agent::detector::rate::{bit_rate, byte_count};
use crate::message::{Direction, Severity};
use crate::units::{BitRate, exactly};

#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub name: String,
    pub scope: Scope,
    pub directions: Vec<Direction>,
    pub raise_at: Level,
    pub clear_at: Level,
    pub hold: Duration,
    pub clear_hold: Duration,
    pub severity: Severity,
    pub update_every: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Interface(String),
    /// Links that match a pattern, or that `[interfaces]` selects, without those whose bytes another one counts too.
    Host(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    Rate(BitRate),
    /// Percentage of the link's speed; for both directions together, of the sum of both speeds.
    Percent(f64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directions: Vec<_> = self.directions.iter().map(|direction| direction.as_str()).collect();
        let place = match &self.scope {
            Scope::Interface(pattern) => pattern,
            Scope::Host(_) => "the host",
        };
        write!(f, "{}: {} of {place} ", self.name, directions.join(" or "))?;
        write!(f, "from {} for {}, ", self.raise_at, exactly(self.hold))?;
        write!(f, "until below {} for {}, {}", self.clear_at, exactly(self.clear_hold), self.severity)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => rate.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Level {
    /// Returns at least 1 bit/s, below which no breach would clear; `None` for a percentage of an unknown speed.
    pub fn resolve(self, speed: Speed, direction: Direction) -> Option<BitRate> {
        let rate = match self {
            Self::Rate(rate) => rate,
            Self::Percent(percent) => {
                let speed = match direction {
                    Direction::Rx => speed.rx?,
                    Direction::Tx => speed.tx?,
                    Direction::Total => BitRate::from_bps(speed.rx?.bps().saturating_add(speed.tx?.bps())),
                };
                speed.percent(percent)
            }
        };
        Some(rate.max(BitRate::from_bps(1)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub raise_at: BitRate,
    pub clear_at: BitRate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub bytes: u64,
    pub elapsed: Duration,
    pub end: TimeDelta,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreachStats {
    pub started: TimeDelta,
    /// End of the last reading at or above `clear_at`.
    pub ended: TimeDelta,
    pub rate: BitRate,
    pub peak: BitRate,
    pub bytes: u64,
    pub excess_bytes: u64,
    pub measured: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Raise(BreachStats),
    Update(BreachStats),
    Clear(BreachStats),
}

/// State of one limit on one link (or host) in one direction.
///
/// ```text
///             rate ≥ raise_at                     it stayed there for `for`
///   Normal ──────────────────────► Pending ───────────────────────────────► Raised
///     ▲ ▲                             │                                       ▲  │
///     │ └─────────────────────────────┘                     rate ≥ clear_at   │  │  rate < clear_at
///     │     rate < raise_at, no verdict                                       │  ▼
///     └──────────────────────────────────────────────────────────────────── Clearing
///                                it stayed there for `clear_for`
/// ```
///
/// A breach lasts from the start of the first reading of its rise to the end of the last one at or above `clear_at`. Readings below
/// it are kept apart: a later one at or above `clear_at` adds them, the end of the breach drops them. Time without a verdict ends a
/// rise; in a breach that continues it counts for the duration only, not for `clear_for`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BreachState {
    #[default]
    Normal,
    Pending(BreachStats),
    Raised(Open),
    Clearing(Open, Below),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub stats: BreachStats,
    reported: TimeDelta,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Below {
    bytes: u64,
    pub held_for: Duration,
    end: TimeDelta,
}

/// Slack for ticks that are not exact: three readings of a second satisfy three seconds, though they took 2.999.
const TICK_SLACK_MAX: Duration = Duration::from_millis(250);

impl BreachState {
    pub fn resumed(stats: BreachStats, now: TimeDelta) -> Self {
        Self::Raised(Open { stats, reported: now })
    }

    pub fn stats(&self) -> Option<BreachStats> {
        match self {
            Self::Normal | Self::Pending(_) => None,
            Self::Raised(open) | Self::Clearing(open, _) => Some(open.stats),
        }
    }

    pub fn unreported(&self) -> Option<BreachStats> {
        match self {
            Self::Raised(open) | Self::Clearing(open, _) if open.stats.ended > open.reported => Some(open.stats),
            _ => None,
        }
    }

    pub fn below_for(&self) -> Option<Duration> {
        match self {
            Self::Clearing(_, below) => Some(below.held_for),
            _ => None,
        }
    }

    pub fn judge(&mut self, limit: &Limit, thresholds: Thresholds, load: Load) -> Option<Action> {
        let rate = load.rate();
        if matches!(self, Self::Normal) && rate < thresholds.raise_at {
            return None;
        }
        let (next, action) = match std::mem::take(self) {
            Self::Pending(_) if rate < thresholds.raise_at => return None,
            Self::Normal => rise(limit, BreachStats::first(thresholds, load), load),
            Self::Pending(stats) => rise(limit, stats.with(thresholds, load), load),
            Self::Raised(open) => continue_breach(limit, thresholds, open, Below::default(), load),
            Self::Clearing(open, below) => continue_breach(limit, thresholds, open, below, load),
        };
        *self = next;
        action
    }

    pub fn cancel_pending(&mut self) {
        if let Self::Pending(_) = self {
            *self = Self::Normal;
        }
    }

    pub fn end(&mut self) -> Option<Action> {
        let stats = self.stats();
        *self = Self::Normal;
        stats.map(Action::Clear)
    }
}

fn rise(limit: &Limit, stats: BreachStats, load: Load) -> (BreachState, Option<Action>) {
    if held_enough(stats.duration(), load.elapsed, limit.hold) {
        (BreachState::Raised(Open { stats, reported: load.end }), Some(Action::Raise(stats)))
    } else {
        (BreachState::Pending(stats), None)
    }
}

fn continue_breach(
    limit: &Limit,
    thresholds: Thresholds,
    mut open: Open,
    mut below: Below,
    load: Load,
) -> (BreachState, Option<Action>) {
    let rate = load.rate();
    let is_below = rate < thresholds.clear_at;
    if is_below {
        open.stats.rate = rate;
        below.add(load);
        if held_enough(below.held_for, load.elapsed, limit.clear_hold) {
            return (BreachState::Normal, Some(Action::Clear(open.stats)));
        }
    } else {
        open.stats = open.stats.including(below, load).with(thresholds, load);
    }
    let is_due = held_enough(std_or_zero(load.end - open.reported), load.elapsed, limit.update_every);
    if is_due {
        open.reported = load.end;
    }
    let next = if is_below { BreachState::Clearing(open, below) } else { BreachState::Raised(open) };
    (next, is_due.then_some(Action::Update(open.stats)))
}

fn held_enough(held: Duration, elapsed: Duration, wanted: Duration) -> bool {
    held + (elapsed / 4).min(TICK_SLACK_MAX) >= wanted
}

impl Load {
    pub fn rate(&self) -> BitRate {
        bit_rate(self.bytes, self.elapsed)
    }

    pub fn begin(&self) -> TimeDelta {
        self.end - delta(self.elapsed)
    }
}

impl Below {
    fn add(&mut self, load: Load) {
        self.bytes = self.bytes.saturating_add(load.bytes);
        self.held_for += load.elapsed;
        self.end = load.end;
    }
}

impl BreachStats {
    fn first(thresholds: Thresholds, load: Load) -> Self {
        Self { started: load.begin(), ..Self::default() }.with(thresholds, load)
    }

    fn with(self, thresholds: Thresholds, load: Load) -> Self {
        let rate = load.rate();
        let excess = load.bytes.saturating_sub(byte_count(thresholds.raise_at, load.elapsed));
        Self {
            ended: load.end,
            rate,
            peak: self.peak.max(rate),
            bytes: self.bytes.saturating_add(load.bytes),
            excess_bytes: self.excess_bytes.saturating_add(excess),
            measured: self.measured + load.elapsed,
            ..self
        }
    }

    /// Adds the earlier readings below `clear_at`. Time that `load` covers too counts once: the driver showed its bytes late.
    fn including(self, below: Below, load: Load) -> Self {
        let overlap = if below.held_for.is_zero() { Duration::ZERO } else { std_or_zero(below.end - load.begin()) };
        Self {
            bytes: self.bytes.saturating_add(below.bytes),
            measured: self.measured + below.held_for.saturating_sub(overlap),
            ..self
        }
    }

    pub fn duration(&self) -> Duration {
        std_or_zero(self.ended - self.started)
    }

    /// Returns the measured time, capped at the duration: drivers that show bytes at uneven times can make it look longer.
    pub fn measured(&self) -> Duration {
        self.measured.min(self.duration())
    }

    pub fn mean(&self) -> BitRate {
        bit_rate(self.bytes, self.measured)
    }
}

pub fn delta(since: Duration) -> TimeDelta {
    TimeDelta::from_std(since).unwrap_or(TimeDelta::MAX)
}

fn std_or_zero(time: TimeDelta) -> Duration {
    time.to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests;
