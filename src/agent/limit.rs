//! A limit, and the life of a breach of it.
//!
//! Pure: rates and the time they were measured over are arguments; what is to be done comes back as an [`Action`].

use std::fmt;
use std::time::Duration;

use crate::agent::rate::bit_rate;
use crate::event::{Direction, Severity};
use crate::units::BitRate;

/// One `[[limit]]`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name in events and logs; unique.
    pub name: String,
    /// What it is held against.
    pub scope: Scope,
    /// Which way the traffic goes: each of these is judged apart.
    pub directions: Vec<Direction>,
    /// At or above it, for `hold`, a breach is raised.
    pub raise_at: Level,
    /// Below it, for `clear_hold`, the breach is cleared.
    pub clear_at: Level,
    /// `for`: how long the rate must stay up.
    pub hold: Duration,
    /// `clear_for`: how long the rate must stay down.
    pub clear_hold: Duration,
    /// How much a breach matters.
    pub severity: Severity,
    /// While it lasts, how often an event tells of it.
    pub update_every: Duration,
}

/// What a limit is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each link whose whole name matches this pattern.
    Interface(String),
    /// The sum over the watched links.
    Host,
}

/// A mark on the scale of rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// So many bits a second.
    Rate(BitRate),
    /// So many percent of the link's speed; for both directions together, of twice the speed.
    Percent(f64),
}

impl fmt::Display for Limit {
    /// `wan-down: rx of eth* from 80.0 Mbit/s for 3s, until below 70.0 Mbit/s for 10s, warning`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directions: Vec<_> = self.directions.iter().map(|direction| direction.as_str()).collect();
        let place = match &self.scope {
            Scope::Interface(pattern) => pattern,
            Scope::Host => "the host",
        };
        let hold = |hold: Duration| humantime::format_duration(hold).to_string();
        write!(f, "{}: {} of {place} ", self.name, directions.join(" or "))?;
        write!(f, "from {} for {}, ", self.raise_at, hold(self.hold))?;
        write!(f, "until below {} for {}, {}", self.clear_at, hold(self.clear_hold), self.severity)
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
    /// In bits per second; `None` for a percentage of an unknown speed.
    pub fn resolve(self, speed: Option<BitRate>, direction: Direction) -> Option<BitRate> {
        match self {
            Self::Rate(rate) => Some(rate),
            Self::Percent(percent) => {
                let ways = if direction == Direction::Total { 2.0 } else { 1.0 };
                speed.map(|speed| speed.percent(percent * ways))
            }
        }
    }
}

/// The marks of a limit on a link whose speed is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// [`Limit::raise_at`].
    pub raise_at: BitRate,
    /// [`Limit::clear_at`].
    pub clear_at: BitRate,
}

/// Bytes over a time: one reading of what a limit is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Bytes.
    pub bytes: u64,
    /// The time over which they were measured.
    pub elapsed: Duration,
}

/// What a breach amounts to, from the start of the reading that raised it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The last rate.
    pub rate: BitRate,
    /// The highest rate.
    pub peak: BitRate,
    /// Bytes carried.
    pub bytes: u64,
    /// Bytes above what [`Marks::raise_at`] allows.
    pub excess_bytes: u64,
    /// Time measured.
    pub measured: Duration,
    /// Time passed, measured or not.
    pub duration: Duration,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A breach begins.
    Raise(Tally),
    /// It goes on, and `update_every` has passed.
    Update(Tally),
    /// It is over.
    Clear(Tally),
}

/// The state of one limit on one link (or host) in one direction.
///
/// ```text
///             rate ≥ raise_at                     it stayed there for `for`
///   Quiet ───────────────────────► Rising ─────────────────────────────────► Over
///     ▲ ▲                            │                                       ▲  │
///     │ └────────────────────────────┘                     rate ≥ clear_at   │  │  rate < clear_at
///     │        rate < raise_at, gap                                          │  ▼
///     └────────────────────────────────────────────────────────────────── Falling
///                                it stayed there for `clear_for`
/// ```
///
/// A reading without a judgement (reset, glitch, gap) changes nothing but a breach's duration, and breaks a rise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Machine {
    /// Nothing to tell.
    #[default]
    Quiet,
    /// Up, not yet for long enough.
    Rising {
        /// For how long.
        held: Duration,
    },
    /// A breach.
    Over {
        /// What it amounts to.
        tally: Tally,
        /// Since the last event of it.
        untold: Duration,
    },
    /// A breach, and the rate is down, not yet for long enough.
    Falling {
        /// What the breach amounts to.
        tally: Tally,
        /// Since the last event of it.
        untold: Duration,
        /// For how long it is down.
        held: Duration,
    },
}

impl Machine {
    /// A breach that was open before, taken up again.
    pub fn resumed(tally: Tally) -> Self {
        Self::Over { tally, untold: Duration::ZERO }
    }

    /// What an open breach amounts to.
    pub fn tally(&self) -> Option<Tally> {
        match self {
            Self::Quiet | Self::Rising { .. } => None,
            Self::Over { tally, .. } | Self::Falling { tally, .. } => Some(*tally),
        }
    }

    /// Judges a reading.
    pub fn judge(&mut self, limit: &Limit, marks: Marks, carried: Carried) -> Option<Action> {
        let rate = bit_rate(carried.bytes, carried.elapsed);
        let (next, action) = match std::mem::take(self) {
            Self::Quiet => rising(limit, marks, carried, rate, Duration::ZERO),
            Self::Rising { held } => rising(limit, marks, carried, rate, held),
            Self::Over { tally, untold } => {
                let tally = tally.with(marks, carried, rate);
                over(limit, marks, tally, untold + carried.elapsed, Duration::ZERO, carried.elapsed)
            }
            Self::Falling { tally, untold, held } => {
                let tally = tally.with(marks, carried, rate);
                over(limit, marks, tally, untold + carried.elapsed, held, carried.elapsed)
            }
        };
        *self = next;
        action
    }

    /// Lets `elapsed` pass without a judgement.
    pub fn pass(&mut self, elapsed: Duration) {
        match self {
            Self::Quiet => {}
            Self::Rising { .. } => *self = Self::Quiet,
            Self::Over { tally, untold } | Self::Falling { tally, untold, .. } => {
                tally.duration += elapsed;
                *untold += elapsed;
            }
        }
    }

    /// Ends an open breach whatever the rate: what it watched is gone.
    pub fn end(&mut self) -> Option<Action> {
        let tally = self.tally();
        *self = Self::Quiet;
        tally.map(Action::Clear)
    }
}

impl Tally {
    fn with(self, marks: Marks, carried: Carried, rate: BitRate) -> Self {
        let allowed = u128::from(marks.raise_at.bps()) * carried.elapsed.as_nanos() / 8 / 1_000_000_000;
        let excess = u128::from(carried.bytes).saturating_sub(allowed);
        Self {
            rate,
            peak: self.peak.max(rate),
            bytes: self.bytes.saturating_add(carried.bytes),
            excess_bytes: self.excess_bytes.saturating_add(u64::try_from(excess).unwrap_or(u64::MAX)),
            measured: self.measured + carried.elapsed,
            duration: self.duration + carried.elapsed,
        }
    }

    /// The mean rate over the time measured.
    pub fn mean(&self) -> BitRate {
        bit_rate(self.bytes, self.measured)
    }
}

/// Ticks do not come to the nanosecond: three readings of a second satisfy three seconds, though they took 2.999.
fn held_enough(held: Duration, elapsed: Duration, wanted: Duration) -> bool {
    held + elapsed / 4 >= wanted
}

fn rising(limit: &Limit, marks: Marks, carried: Carried, rate: BitRate, held: Duration) -> (Machine, Option<Action>) {
    if rate < marks.raise_at || carried.bytes == 0 {
        return (Machine::Quiet, None);
    }
    let held = held + carried.elapsed;
    if !held_enough(held, carried.elapsed, limit.hold) {
        return (Machine::Rising { held }, None);
    }
    let tally = Tally::default().with(marks, carried, rate);
    (Machine::Over { tally, untold: Duration::ZERO }, Some(Action::Raise(tally)))
}

fn over(
    limit: &Limit,
    marks: Marks,
    tally: Tally,
    untold: Duration,
    held: Duration,
    elapsed: Duration,
) -> (Machine, Option<Action>) {
    let falling = tally.rate < marks.clear_at;
    let held = held + elapsed;
    if falling && held_enough(held, elapsed, limit.clear_hold) {
        return (Machine::Quiet, Some(Action::Clear(tally)));
    }
    let due = held_enough(untold, elapsed, limit.update_every);
    let untold = if due { Duration::ZERO } else { untold };
    let next = if falling { Machine::Falling { tally, untold, held } } else { Machine::Over { tally, untold } };
    (next, due.then_some(Action::Update(tally)))
}

#[cfg(test)]
mod tests;
