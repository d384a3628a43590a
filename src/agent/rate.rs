//! Two readings of a link's counters and the time between them: a rate, and a verdict on how far to trust it.
//!
//! Pure: time and counters are arguments. Whatever a counter does, a [`Verdict::Measured`] is never more than was counted:
//! a reset, a glitch, a failed read or a suspend yields another verdict, on which no breach is judged.

use std::time::Duration;

use crate::units::BitRate;

/// A link's byte counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `CLOCK_MONOTONIC`: rates are taken over it.
    pub at: Duration,
    /// `CLOCK_BOOTTIME`: it alone sees a suspend.
    pub boottime: Duration,
    /// Bytes received since the counter began.
    pub rx_bytes: u64,
    /// Bytes sent since the counter began.
    pub tx_bytes: u64,
    /// The counters are known to be 32 bits wide, and so to wrap at 4 GiB.
    pub narrow: bool,
}

/// What was carried between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Over which time (`CLOCK_MONOTONIC`); never zero.
    pub elapsed: Duration,
}

/// What a reading is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first reading of a link: there is nothing to compare it with.
    First,
    /// A rate, to be judged.
    Measured(Traffic),
    /// A rate over a 32-bit counter's wrap: told from a reset by the link's speed, and by being no higher than the last rate,
    /// so that a reset close to the wrap raises nothing. To be judged.
    Wrapped(Traffic),
    /// A counter fell: it was reset, or read falsely. The first movement after a fall has the same verdict, for it may be
    /// the return from a false zero, and then all that was ever counted would look like one reading's traffic.
    Reset,
    /// More than the link can carry: rejected.
    Glitch,
    /// A busy link's counters stood still: a driver that updates them rarely. The next reading covers this one's time.
    Stalled,
    /// The host slept, or the agent was stopped or starved: a mean over that time, not to be judged.
    Gap(Traffic),
    /// The link was not among those read.
    Gone,
}

/// The fastest links there are (800 Gbit/s), doubled: what a link of unknown speed may carry.
const UNKNOWN_SPEED: BitRate = BitRate::from_bps(1_600_000_000_000);
/// A driver that updates its counters every other tick shows twice the link's speed at most.
const SPEED_TOLERANCE: f64 = 200.0;
/// A link that carried this much (64 KiB) in a tick does not fall silent to the byte, but counters do that stand still.
const BUSY_BYTES: u64 = 64 << 10;
/// For so many ticks a busy link's standing counters are waited for; then the silence is believed.
const STALLED_TICKS_MAX: u32 = 2;
/// Over so many intervals a reading is a mean that hides what happened in between.
const GAP_INTERVALS: f64 = 3.5;
/// By so much the two clocks may differ while nobody sleeps.
const CLOCK_SLACK: Duration = Duration::from_millis(50);

/// Follows one link's counters.
#[derive(Clone, Debug)]
pub struct Meter {
    interval: Duration,
    base: Option<Sample>,
    /// A counter fell and has not moved since.
    fallen: bool,
    /// A reading that was too high to believe: the next one shows whether the counter stays there.
    doubted: Option<Sample>,
    /// The last rate, of the busier direction.
    last: BitRate,
    /// It carried [`BUSY_BYTES`] in the last tick, or nobody knows what it carried.
    busy: bool,
    stalled_ticks: u32,
}

impl Meter {
    /// For a link that is read every `interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            base: None,
            fallen: false,
            doubted: None,
            last: BitRate::default(),
            busy: true,
            stalled_ticks: 0,
        }
    }

    /// Takes the next reading; `None` where the link could not be read. `speed` is the link's, where it is known.
    pub fn read(&mut self, sample: Option<Sample>, speed: Option<BitRate>) -> Verdict {
        let Some(now) = sample else { return Verdict::Gone };
        let Some(base) = self.base else {
            self.base = Some(now);
            // A new link stands at zero, and so does one whose first read failed: the first movement tells nothing.
            self.fallen = now.rx_bytes == 0 && now.tx_bytes == 0;
            return Verdict::First;
        };
        let Some(elapsed) = now.at.checked_sub(base.at).filter(|elapsed| !elapsed.is_zero()) else {
            return Verdict::Stalled;
        };
        let fell = now.rx_bytes < base.rx_bytes || now.tx_bytes < base.tx_bytes;
        if fell {
            let believed = speed.map(|speed| speed.min(self.last));
            if let Some(traffic) = wrapped(base, now, elapsed, believed) {
                self.settle(now, traffic);
                return Verdict::Wrapped(traffic);
            }
            self.doubted = None;
            self.fallen = true;
            self.restart(now);
            return Verdict::Reset;
        }
        let traffic =
            Traffic { rx_bytes: now.rx_bytes - base.rx_bytes, tx_bytes: now.tx_bytes - base.tx_bytes, elapsed };
        if self.fallen && traffic.rx_bytes + traffic.tx_bytes > 0 {
            self.fallen = false;
            self.restart(now);
            return Verdict::Reset;
        }
        if !fits(traffic, carries(speed)) {
            return self.doubt(now, speed);
        }
        self.doubted = None;
        let still = traffic.rx_bytes == 0 && traffic.tx_bytes == 0;
        // Also after a gap: what was counted meanwhile and is not shown yet would be the next second's.
        if still && self.busy && self.stalled_ticks < STALLED_TICKS_MAX {
            self.stalled_ticks += 1;
            return Verdict::Stalled;
        }
        if self.is_gap(base, now, elapsed) {
            self.settle(now, traffic);
            return Verdict::Gap(traffic);
        }
        self.settle(now, traffic);
        Verdict::Measured(traffic)
    }

    /// Too high to believe. Where a later reading goes on from there, the counter has really moved, and counts from there.
    fn doubt(&mut self, now: Sample, speed: Option<BitRate>) -> Verdict {
        let onward = self.doubted.and_then(|before| {
            let rx_bytes = now.rx_bytes.checked_sub(before.rx_bytes)?;
            let tx_bytes = now.tx_bytes.checked_sub(before.tx_bytes)?;
            Some(Traffic { rx_bytes, tx_bytes, elapsed: now.at.saturating_sub(before.at) })
        });
        match onward {
            Some(Traffic { rx_bytes: 0, tx_bytes: 0, .. }) => {}
            Some(traffic) if fits(traffic, carries(speed)) => {
                self.doubted = None;
                self.restart(now);
            }
            _ => self.doubted = Some(now),
        }
        Verdict::Glitch
    }

    fn is_gap(&self, base: Sample, now: Sample, elapsed: Duration) -> bool {
        let boottime = now.boottime.saturating_sub(base.boottime);
        boottime > elapsed + CLOCK_SLACK || boottime > self.interval.mul_f64(GAP_INTERVALS)
    }

    fn settle(&mut self, now: Sample, traffic: Traffic) {
        self.base = Some(now);
        self.last = busier(traffic);
        self.busy = traffic.rx_bytes + traffic.tx_bytes >= BUSY_BYTES;
        self.stalled_ticks = 0;
    }

    fn restart(&mut self, now: Sample) {
        self.base = Some(now);
        self.last = BitRate::default();
        self.busy = true;
        self.stalled_ticks = 0;
    }
}

impl Verdict {
    /// The traffic on which limits are judged.
    pub fn judged(&self) -> Option<Traffic> {
        match self {
            Self::Measured(traffic) | Self::Wrapped(traffic) => Some(*traffic),
            _ => None,
        }
    }
}

/// Bits per second of `bytes` in `elapsed`; 0 for no time at all.
pub fn bit_rate(bytes: u64, elapsed: Duration) -> BitRate {
    if elapsed.is_zero() {
        return BitRate::default();
    }
    let (bits, nanos) = (u128::from(bytes) * 8 * 1_000_000_000, elapsed.as_nanos());
    // Most fit into a division that the processor has.
    BitRate::from_bps(match (u64::try_from(bits), u64::try_from(nanos)) {
        (Ok(bits), Ok(nanos)) => bits / nanos,
        _ => u64::try_from(bits / nanos).unwrap_or(u64::MAX),
    })
}

fn busier(traffic: Traffic) -> BitRate {
    bit_rate(traffic.rx_bytes.max(traffic.tx_bytes), traffic.elapsed)
}

/// More than this is no traffic.
fn carries(speed: Option<BitRate>) -> BitRate {
    speed.map_or(UNKNOWN_SPEED, |speed| speed.percent(SPEED_TOLERANCE))
}

fn fits(traffic: Traffic, limit: BitRate) -> bool {
    busier(traffic) <= limit
}

/// The traffic over a wrap, if the counters are narrow and it is within what is believed of the link.
fn wrapped(base: Sample, now: Sample, elapsed: Duration, believed: Option<BitRate>) -> Option<Traffic> {
    let believed = believed.filter(|_| base.narrow && now.narrow)?;
    let over = |from: u64, to: u64| match to {
        0 if from > 0 => None, // more likely a failed read than a wrap to the byte
        _ if to >= from => Some(to - from),
        _ => (to + (1 << 32)).checked_sub(from),
    };
    let rx_bytes = over(base.rx_bytes, now.rx_bytes)?;
    let tx_bytes = over(base.tx_bytes, now.tx_bytes)?;
    let traffic = Traffic { rx_bytes, tx_bytes, elapsed };
    fits(traffic, believed).then_some(traffic)
}

#[cfg(test)]
pub(super) mod tests;
