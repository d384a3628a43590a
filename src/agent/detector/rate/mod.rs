//! Traffic from two readings of a link's counters, and a verdict on how far to trust it. Pure. A [`Verdict::Measured`] never
//! exceeds what was counted: a reset, a jump, a failed read or a suspend yields another verdict, on which no breach is judged.

mod cadence;

use std::time::Duration;

use self::cadence::{Cadence, Coverage};
use crate::agent::counters::{CounterBits, Packets, Speed};
use crate::units::BitRate;

/// Counters read at `at` (`CLOCK_MONOTONIC`, the base of rates) and `boottime` (`CLOCK_BOOTTIME`, which alone includes a suspend).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterSample {
    pub at: Duration,
    pub boottime: Duration,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub packets: Option<Packets>,
    pub bits: CounterBits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// `CLOCK_MONOTONIC`; never zero.
    pub elapsed: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    First,
    Measured(Traffic),
    /// The interval at which the driver updates moving counters is not known yet.
    Learning,
    /// The counters did not change. The driver updates them rarely: a later change may include the bytes of this interval.
    Waiting,
    /// Counters fell, or moved for the first time after that: a return from a false zero would look like immense traffic.
    Reset,
    Jump,
    /// Held back, at most twice in a row: far above the driver's speed, with no packets to confirm it.
    Suspect,
    /// Mean over a time in which the host slept, or the agent was stopped or starved; not judged.
    Gap(Traffic),
    Unread,
}

/// Largest packet: drivers merge many packets of the wire into one that they count, up to `GSO_MAX_SIZE` of IPv6 jumbograms.
const PACKET_BYTES_MAX: u64 = 512 << 10;
/// Twice the speed of the fastest links.
const ANY_SPEED: BitRate = BitRate::from_bps(1_600_000_000_000);
/// Percentage of a link's speed above which an exact reading contradicts it; not 100, since frames arrive whole and clocks are read late.
const EXACT_TOLERANCE: f64 = 110.0;
/// Percentage above which other readings contradict it, since a driver may show two updates' bytes at once.
const TOLERANCE: f64 = 205.0;
const SUSPECTS_MAX: u32 = 2;
/// Intervals above which a reading is a mean that hides what happened.
const GAP_INTERVALS: f64 = 3.5;
const CLOCK_SLACK: Duration = Duration::from_millis(50);
const WRAP_32: u64 = 1 << 32;
/// 2^32 extra bytes are doubted only if their rate is at least this percentage of the peak so far: less may be a real rise.
const HIGH_HALF_PERCENT: f64 = 800.0;

#[derive(Clone, Debug)]
pub struct Meter {
    interval: Duration,
    is_counted_in_software: bool,
    cadence: Cadence,
    base: Option<CounterSample>,
    last: Option<CounterSample>,
    has_fallen: bool,
    is_after_gap: bool,
    /// Reading that was rejected as a jump: if the next one continues from it, the counter has really jumped.
    rejected: Option<CounterSample>,
    last_rate: BitRate,
    peak: BitRate,
    suspects: u32,
    doubts_speed: bool,
    doubts_amount: bool,
}

impl Meter {
    pub fn new(interval: Duration, is_counted_in_software: bool) -> Self {
        Self {
            interval,
            is_counted_in_software,
            cadence: Cadence::new(interval, is_counted_in_software),
            base: None,
            last: None,
            has_fallen: false,
            is_after_gap: false,
            rejected: None,
            last_rate: BitRate::default(),
            peak: BitRate::default(),
            suspects: 0,
            doubts_speed: false,
            doubts_amount: false,
        }
    }

    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
        self.cadence = Cadence::new(interval, self.is_counted_in_software);
    }

    fn is_exact(&self) -> bool {
        self.cadence.is_exact()
    }

    pub fn doubts_speed(&self) -> bool {
        self.doubts_speed
    }

    pub fn trust_speed(&mut self) {
        (self.doubts_speed, self.suspects) = (false, 0);
    }

    /// Returns true if readings 20 and 40 ms after this one would show that a driver counts in software.
    pub fn wants_probe(&self) -> bool {
        self.cadence.wants_probe()
    }

    pub fn probe(&mut self, sample: &CounterSample) {
        let Some(before) = self.last.replace(*sample) else { return };
        self.cadence.probe((before.rx_bytes, before.tx_bytes) != (sample.rx_bytes, sample.tx_bytes));
    }

    /// Judges a reading, `None` where the link could not be read. `speed` is unknown where the link's own means nothing.
    pub fn read(&mut self, sample: Option<CounterSample>, speed: Speed) -> Verdict {
        let Some(now) = sample else { return Verdict::Unread };
        let (Some(base), Some(last)) = (self.base, self.last.replace(now)) else {
            self.base = Some(now);
            return Verdict::First;
        };
        let elapsed = now.at.saturating_sub(base.at);
        if now.at <= last.at || elapsed.is_zero() {
            return Verdict::Waiting;
        }
        if self.is_gap(&last, &now) {
            self.is_after_gap = true;
            self.cadence.pause(now.at);
        }
        let fell = now.rx_bytes < base.rx_bytes || now.tx_bytes < base.tx_bytes;
        let moved = if fell { self.wrapped(&base, &now, elapsed) } else { Some(deltas(&base, &now)) };
        let Some((rx_bytes, tx_bytes)) = moved else {
            self.has_fallen = true;
            self.restart(now);
            return Verdict::Reset;
        };
        let traffic = Traffic { rx_bytes, tx_bytes, elapsed };
        let has_moved = rx_bytes + tx_bytes > 0;
        if self.has_fallen && has_moved {
            self.has_fallen = false;
            self.restart(now);
            return Verdict::Reset;
        }
        if self.is_jump(&base, &now, traffic) {
            return self.reject(now);
        }
        self.rejected = None;
        self.judge(now, traffic, has_moved, speed)
    }

    /// Judges a byte count that the recording program computed from two counters. A counter in two halves, read between their updates,
    /// is 2^32 too low: that count was negative and is missing, and the next one is 2^32 too high. Two in a row are real traffic.
    pub fn accept(&mut self, traffic: Traffic) -> Verdict {
        self.doubts_amount = !self.doubts_amount && self.is_high_half(traffic);
        if self.doubts_amount {
            return Verdict::Jump;
        }
        self.peak = self.peak.max(busier(traffic));
        Verdict::Measured(traffic)
    }

    fn judge(&mut self, now: CounterSample, traffic: Traffic, has_moved: bool, speed: Speed) -> Verdict {
        if self.is_after_gap && has_moved {
            self.cadence.skip(now.at);
            self.set_base(now, traffic);
            return Verdict::Gap(traffic);
        }
        let covered = match self.cadence.read(now.at, traffic.elapsed, has_moved) {
            // Also over a gap: bytes counted meanwhile and not shown yet would fall into the next reading.
            Coverage::Waiting => return Verdict::Waiting,
            Coverage::Learning => {
                self.set_base(now, traffic);
                return Verdict::Learning;
            }
            Coverage::Covers(covered) => Traffic { elapsed: covered, ..traffic },
        };
        if self.contradicts(covered, now.packets.is_some(), speed) {
            self.base = Some(now);
            return Verdict::Suspect;
        }
        let was_after_gap = self.is_after_gap;
        self.set_base(now, covered);
        if was_after_gap { Verdict::Gap(traffic) } else { Verdict::Measured(covered) }
    }

    /// Returns true to hold back a reading clearly above the link's speed. A third in a row, or one confirmed by packets, is traffic.
    fn contradicts(&mut self, traffic: Traffic, has_packets: bool, speed: Speed) -> bool {
        let above = |tolerance: f64| {
            let exceeds = |bytes: u64, speed: Option<BitRate>| {
                speed.is_some_and(|speed| is_above(bytes, traffic.elapsed, speed.percent(tolerance)))
            };
            exceeds(traffic.rx_bytes, speed.rx) || exceeds(traffic.tx_bytes, speed.tx)
        };
        if self.doubts_speed || !above(if self.is_exact() { EXACT_TOLERANCE } else { TOLERANCE }) {
            self.suspects = 0;
            return false;
        }
        if has_packets || self.suspects >= SUSPECTS_MAX {
            self.doubts_speed = true;
            return false;
        }
        self.suspects += 1;
        above(TOLERANCE)
    }

    fn is_jump(&self, base: &CounterSample, now: &CounterSample, traffic: Traffic) -> bool {
        if is_above(traffic.rx_bytes.max(traffic.tx_bytes), traffic.elapsed, ANY_SPEED) {
            return true;
        }
        let packets = base.packets.zip(now.packets);
        let packets = packets.and_then(|(base, now)| now.rx.checked_sub(base.rx).zip(now.tx.checked_sub(base.tx)));
        match packets {
            Some((rx, tx)) => {
                let holds = |bytes: u64, packets: u64| bytes <= PACKET_BYTES_MAX.saturating_mul(packets.max(1));
                !holds(traffic.rx_bytes, rx) || !holds(traffic.tx_bytes, tx)
            }
            None => self.is_high_half(traffic),
        }
    }

    /// Returns true if the high half of a counter was incremented alone: without it, the traffic is no more than before.
    fn is_high_half(&self, traffic: Traffic) -> bool {
        let is_usual = |bytes| bit_rate(bytes, traffic.elapsed) <= self.peak;
        bit_rate(WRAP_32, traffic.elapsed) >= self.peak.percent(HIGH_HALF_PERCENT)
            && [traffic.rx_bytes, traffic.tx_bytes].iter().any(|bytes| bytes.checked_sub(WRAP_32).is_some_and(is_usual))
    }

    fn reject(&mut self, now: CounterSample) -> Verdict {
        let Some(before) = self.rejected.replace(now) else { return Verdict::Jump };
        let went_on = now.rx_bytes >= before.rx_bytes && now.tx_bytes >= before.tx_bytes;
        let (rx_bytes, tx_bytes) = if went_on { deltas(&before, &now) } else { return Verdict::Jump };
        let traffic = Traffic { rx_bytes, tx_bytes, elapsed: now.at.saturating_sub(before.at) };
        if rx_bytes + tx_bytes > 0 && !self.is_jump(&before, &now, traffic) {
            self.rejected = None;
            self.restart(now);
        }
        Verdict::Jump
    }

    fn is_gap(&self, last: &CounterSample, now: &CounterSample) -> bool {
        let boottime = now.boottime.saturating_sub(last.boottime);
        let awake = now.at.saturating_sub(last.at);
        boottime > awake + CLOCK_SLACK || boottime > self.interval.mul_f64(GAP_INTERVALS)
    }

    /// Returns the bytes over a wrap of 32-bit counters; `None` if packets fall too, or the rate would be above twice the last one.
    fn wrapped(&self, base: &CounterSample, now: &CounterSample, elapsed: Duration) -> Option<(u64, u64)> {
        if base.bits != CounterBits::B32 || now.bits != CounterBits::B32 {
            return None;
        }
        if base.packets.zip(now.packets).is_some_and(|(base, now)| now.rx < base.rx || now.tx < base.tx) {
            return None;
        }
        let over = |from: u64, to: u64| match to {
            // More likely a failed read than a wrap to exactly 0.
            0 if from > 0 => None,
            _ if to >= from => Some(to - from),
            _ => (to + WRAP_32).checked_sub(from),
        };
        let (rx_bytes, tx_bytes) = (over(base.rx_bytes, now.rx_bytes)?, over(base.tx_bytes, now.tx_bytes)?);
        let rate = busier(Traffic { rx_bytes, tx_bytes, elapsed });
        (rate <= self.last_rate.percent(200.0)).then_some((rx_bytes, tx_bytes))
    }

    fn set_base(&mut self, now: CounterSample, traffic: Traffic) {
        self.base = Some(now);
        self.is_after_gap = false;
        self.last_rate = busier(traffic);
        self.peak = self.peak.max(self.last_rate);
    }

    fn restart(&mut self, now: CounterSample) {
        self.base = Some(now);
        self.rejected = None;
        self.is_after_gap = false;
        self.last_rate = BitRate::default();
        self.cadence.skip(now.at);
    }
}

impl Verdict {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Measured(_) => "measured",
            Self::Learning => "learning",
            Self::Waiting => "waiting",
            Self::Reset => "reset",
            Self::Jump => "jump",
            Self::Suspect => "suspect",
            Self::Gap(_) => "gap",
            Self::Unread => "unread",
        }
    }

    pub fn judged(&self) -> Option<Traffic> {
        match self {
            Self::Measured(traffic) => Some(*traffic),
            _ => None,
        }
    }
}

pub fn bit_rate(bytes: u64, elapsed: Duration) -> BitRate {
    if elapsed.is_zero() {
        return BitRate::default();
    }
    let (bits, nanos) = (u128::from(bytes) * 8 * 1_000_000_000, elapsed.as_nanos());
    BitRate::from_bps(match (u64::try_from(bits), u64::try_from(nanos)) {
        (Ok(bits), Ok(nanos)) => bits / nanos,
        _ => u64::try_from(bits / nanos).unwrap_or(u64::MAX),
    })
}

fn is_above(bytes: u64, elapsed: Duration, rate: BitRate) -> bool {
    let bit_nanos = u128::from(bytes) * 8 * 1_000_000_000;
    !elapsed.is_zero() && bit_nanos >= (u128::from(rate.bps()) + 1) * elapsed.as_nanos()
}

pub fn byte_count(rate: BitRate, elapsed: Duration) -> u64 {
    let bit_nanos = u128::from(rate.bps()) * elapsed.as_nanos();
    match u64::try_from(bit_nanos) {
        Ok(bit_nanos) => bit_nanos / 8_000_000_000,
        Err(_) => u64::try_from(bit_nanos / 8_000_000_000).unwrap_or(u64::MAX),
    }
}

fn deltas(base: &CounterSample, now: &CounterSample) -> (u64, u64) {
    (now.rx_bytes - base.rx_bytes, now.tx_bytes - base.tx_bytes)
}

fn busier(traffic: Traffic) -> BitRate {
    bit_rate(traffic.rx_bytes.max(traffic.tx_bytes), traffic.elapsed)
}

#[cfg(test)]
mod tests;
