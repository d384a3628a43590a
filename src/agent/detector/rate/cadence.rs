//! Learns how often a driver updates its counters, and spreads their movements over that time. Where the kernel counts in
//! software, a reading is exact, and a counter that does not move means silence. Many drivers copy their hardware's counters a
//! second or more apart: between two copies a busy link's counter does not move, then it shows several readings' bytes at once.

use std::collections::VecDeque;
use std::time::Duration;

/// Interval from which on every reading counts as exact: it holds several updates of any driver.
const EXACT_INTERVAL: Duration = Duration::from_secs(10);
// Longest time that a movement covers: the longer of these two.
const COVERED_MAX: Duration = Duration::from_secs(10);
const COVERED_INTERVALS: u32 = 10;
const LEARNING_GAPS: u32 = 4;
// The mean covers the last gaps: at least `MEAN_GAPS`, over at least `MEAN_INTERVALS` intervals, since each is off by up to one.
const MEAN_GAPS: usize = 8;
const MEAN_INTERVALS: u32 = 16;
// Failures after which a link is probed only once in 64 ticks.
const PROBES_FAILED_MAX: u32 = 100;
const RARE_PROBES: u32 = 64;

/// Learned update interval of a driver. Times are `CLOCK_MONOTONIC`; `covered_until` is at most one mean gap ahead of the clock.
#[derive(Clone, Debug)]
pub(super) struct Cadence {
    interval: Duration,
    is_exact: bool,
    moved_at: Option<Duration>,
    covered_until: Duration,
    gaps: VecDeque<Duration>,
    gaps_sum: Duration,
    learned: u32,
    is_silent: bool,
    probe: Probe,
    probes_failed: u32,
    since_probe: u32,
}

/// Two readings shortly after a tick: a counter that moves in both is counted in software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Idle,
    Wanted,
    MovedOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    Covers(Duration),
    Learning,
    Waiting,
}

impl Cadence {
    pub(super) fn new(interval: Duration, is_exact: bool) -> Self {
        Self {
            interval,
            is_exact: is_exact || interval >= EXACT_INTERVAL,
            moved_at: None,
            covered_until: Duration::ZERO,
            gaps: VecDeque::new(),
            gaps_sum: Duration::ZERO,
            learned: 0,
            is_silent: true,
            probe: Probe::Idle,
            probes_failed: 0,
            since_probe: 0,
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Learns nothing from what moved by `now`: the counters were reset, or were not read for a while.
    pub(super) fn skip(&mut self, now: Duration) {
        self.covered_until = now;
        self.moved_at = Some(now);
        self.is_silent = false;
        self.probe = Probe::Idle;
    }

    pub(super) fn pause(&mut self, now: Duration) {
        if !self.is_silent {
            self.moved_at = self.moved_at.map(|_| now);
        }
    }

    pub(super) fn read(&mut self, now: Duration, elapsed: Duration, moved: bool) -> Coverage {
        if self.is_exact {
            return Coverage::Covers(elapsed);
        }
        self.since_probe = self.since_probe.saturating_add(1);
        let is_due = self.probes_failed < PROBES_FAILED_MAX || self.since_probe >= RARE_PROBES;
        self.probe = if moved && is_due { Probe::Wanted } else { Probe::Idle };
        if moved { self.on_move(now) } else { self.on_standstill(now, elapsed) }
    }

    fn on_move(&mut self, now: Duration) -> Coverage {
        let was_silent = std::mem::replace(&mut self.is_silent, false);
        let before = self.moved_at.replace(now);
        let gap = before.filter(|_| !was_silent).map(|before| now.saturating_sub(before));
        let is_known = self.learned >= LEARNING_GAPS;
        if let Some(gap) = gap {
            self.learn(gap);
        }
        let Some(mean) = self.mean().filter(|_| is_known) else {
            self.covered_until = now;
            return Coverage::Learning;
        };
        let covered = now.saturating_sub(self.covered_until).max(mean).min(self.covered_max());
        self.covered_until = (self.covered_until + covered).clamp(now, now + mean);
        Coverage::Covers(covered)
    }

    fn on_standstill(&mut self, now: Duration, elapsed: Duration) -> Coverage {
        let Some(moved_at) = self.moved_at else {
            self.covered_until = now;
            return Coverage::Covers(elapsed);
        };
        if self.is_silent {
            self.covered_until = now;
            return Coverage::Covers(elapsed);
        }
        let wait = self.mean().map_or(self.covered_max(), |mean| mean * 2);
        if now.saturating_sub(moved_at) <= wait + self.interval / 4 {
            return Coverage::Waiting;
        }
        self.is_silent = true;
        let since = now.saturating_sub(self.covered_until.min(now));
        self.covered_until = now;
        Coverage::Covers(since.max(elapsed.min(self.interval)))
    }

    fn learn(&mut self, gap: Duration) {
        self.learned = self.learned.saturating_add(1);
        self.gaps.push_back(gap);
        self.gaps_sum += gap;
        while self.gaps.len() > MEAN_GAPS && self.gaps_sum - self.gaps[0] >= self.interval * MEAN_INTERVALS {
            self.gaps_sum -= self.gaps.pop_front().unwrap_or_default();
        }
    }

    fn mean(&self) -> Option<Duration> {
        let gaps = u32::try_from(self.gaps.len()).ok().filter(|gaps| *gaps > 0)?;
        // Gaps are known to within an interval: half of it is added to the sum of few, uneven ones, as too low a rate is safer.
        let differ = self.gaps.iter().any(|gap| gap.abs_diff(self.gaps[0]) > self.interval / 4);
        let is_short = self.gaps_sum < self.interval * MEAN_INTERVALS;
        let unknown = if differ && is_short { self.interval / 2 } else { Duration::ZERO };
        Some((self.gaps_sum + unknown) / gaps)
    }

    fn covered_max(&self) -> Duration {
        COVERED_MAX.max(self.interval * COVERED_INTERVALS)
    }

    pub(super) fn wants_probe(&self) -> bool {
        self.probe != Probe::Idle
    }

    pub(super) fn probe(&mut self, moved: bool) {
        let before = std::mem::replace(&mut self.probe, Probe::Idle);
        match (before, moved) {
            (Probe::Idle, _) => {}
            (Probe::Wanted, true) => self.probe = Probe::MovedOnce,
            (Probe::MovedOnce, true) => self.is_exact = true,
            (_, false) => {
                self.probes_failed = self.probes_failed.saturating_add(1);
                self.since_probe = 0;
            }
        }
    }
}
