//! Rates of all watched links over windows of the wall clock. Pure: the detector's verdicts and the time come in, windows go out.
//!
//! A window begins at a multiple of its length in UTC. It counts seconds of the boot-time clock: more frequent readings are summed
//! to a second first, a longer one counts as that many seconds of its mean rate. A second belongs to the window in which it ended,
//! so that a link measured all the time has as many seconds as the window. Seconds without a rate are missing from the window.
//!
//! Drivers that update their counters rarely show the last seconds of a window after its end: the window waits for those links, but
//! not longer than `LATE_MAX`. If the wall clock is stepped to another window, the present one ends at once. Packets, errors and
//! drops are counter differences: unknown for the window if unknown for one of its seconds, as when one falls.
//!
//! A tick allocates memory only where a histogram grows or a link is new. A link takes 600 bytes, and each direction that has
//! carried something a histogram of 1 kB to 14 kB, 7 kB at 1 Gbit/s: 501 links take 0.3 MB while idle, 8 MB at 1 Gbit/s both ways,
//! and 15 MB at most; a limit on `total` for each of them makes that 22 MB.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use smol_str::SmolStr;

use crate::agent::counters::{CounterBits, Counters, Packets, Speed};
use crate::agent::detector::rate::{Traffic, Verdict};
use crate::message::histogram::{HistogramEncoder, RateHistogram, kbps};
use crate::message::{Direction, LinkRates, OverLimit, RateWindow};
use crate::units::BitRate;

/// Time after the end of a window in which a driver may still show traffic from before the end.
const LATE_MAX: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// Largest step back of the wall clock that, soon after a window's begin, does not leave the window.
const STEP_BACK_MAX: TimeDelta = TimeDelta::seconds(1);
/// A 32-bit packet counter that falls has wrapped if it was at most this far below 2^32 and is at most this far above 0.
const WRAP_MAX: u64 = 1 << 24;
const MESSAGE_BYTES_MAX: usize = 250_000;

pub struct LinkReading<'a, L> {
    pub interface: &'a str,
    pub verdict: Verdict,
    pub counters: Option<Counters>,
    pub speed: Speed,
    pub limits: L,
}

pub struct RateWindows {
    length: Duration,
    now: Duration,
    window: Option<OpenWindow>,
    closing: Option<Closing>,
    links: Vec<LinkWindow>,
    /// Index of the link expected next: links usually come in the same order.
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct OpenWindow {
    started_at: DateTime<Utc>,
    /// Boot-time clock at its begin, or at the first tick in it.
    from: Duration,
}

struct Closing {
    window: OpenWindow,
    ended: Duration,
    links: Vec<LinkRates>,
    encoder: HistogramEncoder,
}

/// Sums of one link in the open window or, while `is_behind`, in the one that is closing. `is_whole` is true while the link has been
/// measured without a gap since that window began. `balance` is the measured time minus the seconds counted so far, in nanoseconds.
#[derive(Debug)]
struct LinkWindow {
    interface: SmolStr,
    read_at: Duration,
    is_behind: bool,
    is_whole: bool,
    partial: PartialSecond,
    balance: i64,
    packets: PacketMeters,
    speed: Speed,
    sums: [DirectionSums; 3],
    limits: Vec<LimitSeconds>,
}

/// Packets, errors and drops, in this order; `None` where the source did not count them all the time.
type PacketCounts<T> = [Option<T>; 3];

#[derive(Clone, Copy, Debug)]
struct LinkAmount {
    bytes: [u64; 2],
    packets: PacketCounts<Packets>,
}

#[derive(Clone, Copy, Debug)]
struct PartialSecond {
    amount: LinkAmount,
    elapsed: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct PacketMeters {
    /// The link whose counters they are: its name may pass to another.
    ifindex: Option<u32>,
    meters: [PacketMeter; 3],
}

#[derive(Clone, Copy, Debug, Default)]
struct PacketMeter {
    last: Option<Packets>,
    has_fallen: bool,
}

#[derive(Debug, Default)]
struct DirectionSums {
    bytes: u64,
    packets: PacketCounts<u64>,
    measured_s: u32,
    min_bps: u64,
    max_bps: u64,
    /// Seconds below 1 kbit/s: an idle link needs no histogram.
    idle_s: u32,
    histogram: Option<RateHistogram<u32>>,
}

#[derive(Debug)]
struct LimitSeconds {
    name: SmolStr,
    direction: Direction,
    raise_at: Option<BitRate>,
    over_s: u32,
}

const DIRECTIONS: [Direction; 3] = [Direction::Rx, Direction::Tx, Direction::Total];

impl RateWindows {
    pub fn new(length: Duration) -> Self {
        Self { length, now: Duration::ZERO, window: None, closing: None, links: Vec::new(), next: 0 }
    }

    /// Begins a tick, and adds the windows that are complete to `out`.
    pub fn begin(&mut self, wall: DateTime<Utc>, boottime: Duration, out: &mut Vec<RateWindow>) {
        let last = std::mem::replace(&mut self.now, boottime);
        self.next = 0;
        let started_at = floor(wall, self.length);
        let window = match self.window {
            None => OpenWindow { started_at, from: boottime },
            Some(window) => {
                let back = window.started_at - wall;
                if started_at == window.started_at || (back > TimeDelta::zero() && back <= STEP_BACK_MAX) {
                    return self.close_late(out);
                }
                // After a step of the clock, the present window ended with the last tick.
                let since = (wall - started_at).to_std().unwrap_or_default();
                let is_next = started_at == window.started_at + delta(self.length);
                let ended =
                    if is_next { boottime.saturating_sub(since).max(last) } else { last } + Duration::from_nanos(1);
                self.close_all(out);
                self.links.iter_mut().for_each(|link| link.is_behind = true);
                self.closing = Some(Closing::new(window, ended, self.links.len()));
                OpenWindow { started_at, from: ended }
            }
        };
        self.window = Some(window);
    }

    pub fn read<'a, L>(&mut self, link: LinkReading<'a, L>)
    where
        L: Iterator<Item = (&'a str, Direction, Option<BitRate>)>,
    {
        let Some(window) = self.window else { return };
        let at = self.find(link.interface);
        let (length, now) = (self.length, self.now);
        let Self { links, closing, .. } = self;
        let state = &mut links[at];
        state.read_at = now;
        state.speed = link.speed;
        state.follow_limits(link.limits);
        match link.verdict {
            // A later reading covers this one's time.
            Verdict::Waiting | Verdict::Unread => {}
            Verdict::Measured(traffic) => {
                state.add(traffic, link.counters.as_ref());
                state.count(traffic.elapsed, now, window, seconds(length), closing);
            }
            Verdict::First
            | Verdict::Learning
            | Verdict::Reset
            | Verdict::Jump
            | Verdict::Suspect
            | Verdict::Gap(_) => {
                state.interrupt(seconds(length), closing);
                state.packets.restart(link.counters.as_ref());
            }
        }
    }

    pub fn end(&mut self, out: &mut Vec<RateWindow>) {
        let is_late = |link: &LinkWindow| link.is_behind && link.read_at == self.now;
        if self.closing.is_some() && !self.links.iter().any(is_late) {
            self.close_all(out);
        }
    }

    pub fn close_ended(&mut self, out: &mut Vec<RateWindow>) {
        self.close_all(out);
    }

    /// Returns the present window so far, to be continued after a restart.
    pub fn open(&self) -> Option<RateWindow> {
        let OpenWindow { started_at, .. } = self.window?;
        let mut encoder = HistogramEncoder::default();
        let mut links = Vec::new();
        self.links.iter().for_each(|link| link.rates(seconds(self.length), &mut encoder, &mut links));
        Some(self.message(started_at, links))
    }

    /// Continues a window of an earlier run, or adds it to `out` unchanged if it has ended.
    pub fn resume(&mut self, window: RateWindow, wall: DateTime<Utc>, boottime: Duration, out: &mut Vec<RateWindow>) {
        let is_of_this_length = u128::from(window.duration_ms) == self.length.as_millis();
        if !is_of_this_length || floor(wall, self.length) != window.started_at {
            out.extend(split(window));
            return;
        }
        self.window = Some(OpenWindow { started_at: window.started_at, from: boottime });
        for rates in window.links {
            let at = self.find(&rates.interface);
            self.links[at].read_at = boottime;
            self.links[at].resume(rates);
        }
    }

    /// Changes the length; a window that is open ends as it is.
    pub fn reconfigure(&mut self, length: Duration, out: &mut Vec<RateWindow>) {
        if length == self.length {
            return;
        }
        self.finish(out);
        self.length = length;
    }

    pub fn finish(&mut self, out: &mut Vec<RateWindow>) {
        self.close_all(out);
        if let Some(window) = self.window.take() {
            self.links.iter_mut().for_each(|link| link.is_behind = true);
            self.closing = Some(Closing::new(window, self.now, self.links.len()));
            self.close_all(out);
        }
    }

    fn find(&mut self, interface: &str) -> usize {
        let is_it = |link: &LinkWindow| link.interface == interface;
        let at = match self.links.get(self.next) {
            Some(link) if is_it(link) => self.next,
            _ => self.links.iter().position(is_it).unwrap_or_else(|| {
                self.links.push(LinkWindow::new(interface));
                self.links.len() - 1
            }),
        };
        self.next = at + 1;
        at
    }

    fn close_late(&mut self, out: &mut Vec<RateWindow>) {
        if self.closing.as_ref().is_some_and(|closing| self.now.saturating_sub(closing.ended) > LATE_MAX) {
            self.close_all(out);
        }
    }

    fn close_all(&mut self, out: &mut Vec<RateWindow>) {
        let Some(mut closing) = self.closing.take() else { return };
        let from = closing.window.from;
        for link in self.links.iter_mut().filter(|link| link.is_behind && link.read_at >= from) {
            link.close(seconds(self.length), &mut closing);
        }
        // A link that was not read during the whole window is gone.
        self.links.retain(|link| link.read_at >= from);
        self.links.iter_mut().for_each(|link| link.is_behind = false);
        out.extend(split(self.message(closing.window.started_at, closing.links)));
    }

    fn message(&self, started_at: DateTime<Utc>, links: Vec<LinkRates>) -> RateWindow {
        let duration_ms = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        RateWindow { started_at, duration_ms, version: env!("CARGO_PKG_VERSION").to_owned(), links }
    }
}

impl Closing {
    fn new(window: OpenWindow, ended: Duration, links: usize) -> Self {
        Self { window, ended, links: Vec::with_capacity(2 * links), encoder: HistogramEncoder::default() }
    }
}

impl LinkWindow {
    fn new(interface: &str) -> Self {
        Self {
            interface: interface.into(),
            read_at: Duration::ZERO,
            is_behind: false,
            is_whole: false,
            partial: PartialSecond::NONE,
            balance: 0,
            packets: PacketMeters::default(),
            speed: Speed::default(),
            sums: Default::default(),
            limits: Vec::new(),
        }
    }

    fn resume(&mut self, rates: LinkRates) {
        let Some(place) = DIRECTIONS.iter().position(|direction| *direction == rates.direction) else { return };
        // Rates that were damaged in the journal count as not measured.
        let histogram = match rates.histogram.as_deref().map(RateHistogram::decode_counts) {
            Some(Ok(histogram)) => Some(histogram),
            _ => return,
        };
        self.sums[place] = DirectionSums {
            bytes: rates.bytes,
            packets: [rates.packets, rates.errors, rates.drops],
            measured_s: rates.measured_s,
            min_bps: rates.min_bps.unwrap_or_default(),
            max_bps: rates.max_bps.unwrap_or_default(),
            idle_s: 0,
            histogram,
        };
        let direction = rates.direction;
        self.limits.extend(rates.over.into_iter().map(|over| LimitSeconds {
            name: over.limit_name,
            direction,
            raise_at: Some(BitRate::from_bps(over.limit_bps)),
            over_s: over.over_s,
        }));
    }

    fn follow_limits<'a>(&mut self, limits: impl Iterator<Item = (&'a str, Direction, Option<BitRate>)>) {
        let mut count = 0;
        for (name, direction, raise_at) in limits {
            let is_it = |limit: &LimitSeconds| limit.name == name && limit.direction == direction;
            let at = match self.limits.get(count) {
                Some(limit) if is_it(limit) => count,
                _ => {
                    let found = self.limits.iter().position(is_it);
                    let at = found.unwrap_or_else(|| {
                        self.limits.push(LimitSeconds { name: name.into(), direction, raise_at, over_s: 0 });
                        self.limits.len() - 1
                    });
                    self.limits.swap(at, count);
                    count
                }
            };
            self.limits[at].raise_at = raise_at;
            count += 1;
        }
        self.limits.truncate(count);
    }

    fn add(&mut self, traffic: Traffic, counters: Option<&Counters>) {
        let PartialSecond { amount: LinkAmount { bytes: [rx, tx], packets }, elapsed } = &mut self.partial;
        *rx = rx.saturating_add(traffic.rx_bytes);
        *tx = tx.saturating_add(traffic.tx_bytes);
        *elapsed += traffic.elapsed;
        self.balance = self.balance.saturating_add(i64::try_from(traffic.elapsed.as_nanos()).unwrap_or(i64::MAX));
        for (sum, more) in packets.iter_mut().zip(self.packets.delta(counters)) {
            let add = |sum: Packets, more: Packets| Packets {
                rx: sum.rx.saturating_add(more.rx),
                tx: sum.tx.saturating_add(more.tx),
            };
            *sum = sum.zip(more).map(|(sum, more)| add(sum, more));
        }
    }

    fn count(
        &mut self,
        last: Duration,
        now: Duration,
        window: OpenWindow,
        length_s: u32,
        closing: &mut Option<Closing>,
    ) {
        // A reading that is a little early ends its second.
        let slack = (last / 2).min(SECOND / 2);
        let ready = self.balance.saturating_add(nanos(slack)) / nanos(SECOND);
        let Some(seconds) = u32::try_from(ready).ok().filter(|seconds| *seconds > 0) else { return };
        let from = now.saturating_sub(self.partial.elapsed);
        let room = length_s.saturating_sub(self.sums[0].measured_s);
        let behind = closing.as_mut().filter(|_| self.is_behind);
        if behind.is_none() && room < seconds {
            // The window is full, as with a slow clock: the next one takes the second.
            return;
        }
        let PartialSecond { mut amount, elapsed } = std::mem::replace(&mut self.partial, PartialSecond::NONE);
        self.balance -= i64::from(seconds) * nanos(SECOND);
        let rates = amount.bytes.map(|bytes| bps(bytes, elapsed));
        let left = match behind {
            Some(closing) => {
                let before = if self.is_whole { seconds } else { rounded(closing.ended.saturating_sub(from)) };
                let before = before.min(room).min(seconds);
                self.record(amount.take(before, seconds), rates, before);
                self.close(length_s, closing);
                (self.is_behind, self.is_whole) = (false, true);
                seconds - before
            }
            // The previous window has closed without this link's last seconds.
            None if from + SECOND / 2 < window.from => {
                let after = rounded(now.saturating_sub(window.from)).min(seconds);
                amount.take(seconds - after, seconds);
                after
            }
            None => seconds,
        };
        self.record(amount, rates, left);
    }

    fn interrupt(&mut self, length_s: u32, closing: &mut Option<Closing>) {
        if let Some(closing) = closing.as_mut().filter(|_| self.is_behind) {
            self.close(length_s, closing);
            self.is_behind = false;
        }
        (self.is_whole, self.partial, self.balance) = (false, PartialSecond::NONE, 0);
    }

    fn record(&mut self, amount: LinkAmount, [rx_bps, tx_bps]: [u64; 2], seconds: u32) {
        if seconds == 0 {
            return;
        }
        let [rx, tx] = amount.bytes;
        let packets = |of: fn(Packets) -> u64| amount.packets.map(|packets| packets.map(of));
        let [of_rx, of_tx, of_total] = &mut self.sums;
        of_rx.record(rx, packets(|packets| packets.rx), rx_bps, seconds);
        of_tx.record(tx, packets(|packets| packets.tx), tx_bps, seconds);
        let total_bps = rx_bps.saturating_add(tx_bps);
        if self.limits.iter().any(|limit| limit.direction == Direction::Total) {
            let packets = packets(|Packets { rx, tx }| rx.saturating_add(tx));
            of_total.record(rx.saturating_add(tx), packets, total_bps, seconds);
        }
        for limit in &mut self.limits {
            let bps = match limit.direction {
                Direction::Rx => rx_bps,
                Direction::Tx => tx_bps,
                Direction::Total => total_bps,
            };
            if limit.raise_at.is_some_and(|raise_at| bps >= raise_at.bps()) {
                limit.over_s += seconds;
            }
        }
    }

    fn close(&mut self, length_s: u32, closing: &mut Closing) {
        self.rates(length_s, &mut closing.encoder, &mut closing.links);
        self.sums.iter_mut().for_each(DirectionSums::reset);
        self.limits.iter_mut().for_each(|limit| limit.over_s = 0);
    }

    fn rates(&self, length_s: u32, encoder: &mut HistogramEncoder, links: &mut Vec<LinkRates>) {
        for (direction, sums) in DIRECTIONS.into_iter().zip(&self.sums) {
            let limits = || self.limits.iter().filter(move |limit| limit.direction == direction);
            if direction == Direction::Total && limits().next().is_none() {
                continue;
            }
            let histogram = sums.histogram();
            let [packets, errors, drops] = sums.packets;
            let known = |value: u64| (sums.measured_s > 0).then_some(value);
            let share = |share| histogram.as_ref()?.quantile_within(share, Some(sums.min_bps), Some(sums.max_bps));
            let over = limits().filter_map(|limit| {
                let limit_bps = limit.raise_at?.bps();
                Some(OverLimit { limit_name: limit.name.clone(), limit_bps, over_s: limit.over_s })
            });
            links.push(LinkRates {
                interface: self.interface.clone(),
                direction,
                bytes: sums.bytes,
                packets,
                errors,
                drops,
                measured_s: sums.measured_s,
                unmeasured_s: length_s.saturating_sub(sums.measured_s),
                min_bps: known(sums.min_bps),
                mean_bps: known(bps(sums.bytes, SECOND * sums.measured_s.max(1))),
                max_bps: known(sums.max_bps),
                p50_bps: share(0.5),
                p95_bps: share(0.95),
                p99_bps: share(0.99),
                speed_bps: match direction {
                    Direction::Rx => self.speed.rx.map(BitRate::bps),
                    Direction::Tx => self.speed.tx.map(BitRate::bps),
                    Direction::Total => None,
                },
                over: over.collect(),
                histogram: histogram.map(|histogram| encoder.encode(&histogram)),
            });
        }
    }
}

impl PartialSecond {
    const NONE: Self = Self {
        amount: LinkAmount { bytes: [0; 2], packets: [Some(Packets { rx: 0, tx: 0 }); 3] },
        elapsed: Duration::ZERO,
    };
}

impl LinkAmount {
    fn take(&mut self, seconds: u32, all: u32) -> Self {
        let share = |sum: &mut u64| {
            let part = (u128::from(*sum) * u128::from(seconds) / u128::from(all)) as u64;
            *sum -= part;
            part
        };
        let bytes = self.bytes.each_mut().map(share);
        let packets = self.packets.each_mut().map(|packets| {
            packets.as_mut().map(|packets| Packets { rx: share(&mut packets.rx), tx: share(&mut packets.tx) })
        });
        Self { bytes, packets }
    }
}

impl PacketMeters {
    fn restart(&mut self, counters: Option<&Counters>) {
        self.ifindex = counters.map(|counters| counters.ifindex);
        self.meters = Self::of(counters).map(|last| PacketMeter { last, has_fallen: false });
    }

    fn delta(&mut self, counters: Option<&Counters>) -> PacketCounts<Packets> {
        let of_another =
            |link: &Counters| self.ifindex.replace(link.ifindex).is_some_and(|before| before != link.ifindex);
        if counters.is_some_and(of_another) {
            self.restart(counters);
            return [None; 3];
        }
        let bits = counters.map_or(CounterBits::B64, |counters| counters.bits);
        let mut now = Self::of(counters);
        for (meter, now) in self.meters.iter_mut().zip(&mut now) {
            *now = meter.delta(*now, bits);
        }
        now
    }

    fn of(counters: Option<&Counters>) -> PacketCounts<Packets> {
        counters.map_or([None; 3], |counters| [counters.packets, counters.errors, counters.drops])
    }
}

impl PacketMeter {
    /// Returns the movement; `None` for a fall and for the first movement after it, which may be the return from a false zero.
    fn delta(&mut self, now: Option<Packets>, bits: CounterBits) -> Option<Packets> {
        let (before, now) = (std::mem::replace(&mut self.last, now)?, now?);
        let moved = difference(before.rx, now.rx, bits).zip(difference(before.tx, now.tx, bits));
        let moved = moved.map(|(rx, tx)| Packets { rx, tx });
        let is_still = moved == Some(Packets::default());
        let is_known = is_still || (moved.is_some() && !self.has_fallen);
        self.has_fallen = moved.is_none() || (self.has_fallen && is_still);
        moved.filter(|_| is_known)
    }
}

fn difference(before: u64, now: u64, bits: CounterBits) -> Option<u64> {
    now.checked_sub(before).or_else(|| {
        let to_wrap = (1_u64 << CounterBits::B32.count()).checked_sub(before)?;
        (bits == CounterBits::B32 && to_wrap.max(now) <= WRAP_MAX).then_some(to_wrap + now)
    })
}

impl DirectionSums {
    fn record(&mut self, bytes: u64, packets: PacketCounts<u64>, bps: u64, seconds: u32) {
        let is_first = self.measured_s == 0;
        self.bytes = self.bytes.saturating_add(bytes);
        for (sum, packets) in self.packets.iter_mut().zip(packets) {
            *sum = if is_first { packets } else { sum.zip(packets).map(|(sum, packets)| sum.saturating_add(packets)) };
        }
        self.min_bps = if is_first { bps } else { self.min_bps.min(bps) };
        self.max_bps = self.max_bps.max(bps);
        self.measured_s += seconds;
        if kbps(bps) == 0 {
            self.idle_s += seconds;
        } else {
            self.histogram.get_or_insert_default().record(bps, seconds);
        }
    }

    fn histogram(&self) -> Option<RateHistogram<u32>> {
        if self.measured_s == 0 {
            return None;
        }
        let mut histogram = self.histogram.clone().unwrap_or_default();
        histogram.record(0, self.idle_s);
        Some(histogram)
    }

    /// Resets all sums, but keeps the memory of a histogram that was used.
    fn reset(&mut self) {
        let histogram = self.histogram.take().filter(|histogram| !histogram.is_empty()).map(|mut histogram| {
            histogram.clear();
            histogram
        });
        *self = Self { histogram, ..Self::default() };
    }
}

/// Splits a window into messages of at most [`MESSAGE_BYTES_MAX`] of JSON.
fn split(window: RateWindow) -> Vec<RateWindow> {
    let size = |link: &LinkRates| {
        let names = link.interface.len() + link.over.iter().map(|over| over.limit_name.len() + 64).sum::<usize>();
        512 + names * 2 + link.histogram.as_ref().map_or(0, |bytes| bytes.len() * 4 / 3)
    };
    let RateWindow { started_at, duration_ms, version, links } = window;
    let mut messages = vec![Vec::new()];
    let mut bytes = 0;
    for link in links {
        bytes += size(&link);
        if bytes > MESSAGE_BYTES_MAX && messages.last().is_some_and(|links| !links.is_empty()) {
            messages.push(Vec::new());
            bytes = size(&link);
        }
        messages.last_mut().into_iter().for_each(|links| links.push(link.clone()));
    }
    let message = |links| RateWindow { started_at, duration_ms, version: version.clone(), links };
    messages.into_iter().map(message).collect()
}

fn floor(wall: DateTime<Utc>, length: Duration) -> DateTime<Utc> {
    let into = wall.timestamp_micros().rem_euclid(i64::try_from(length.as_micros()).unwrap_or(i64::MAX).max(1));
    DateTime::from_timestamp_micros(wall.timestamp_micros() - into).unwrap_or(wall)
}

fn bps(bytes: u64, elapsed: Duration) -> u64 {
    let bps = u128::from(bytes) * 8_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(bps).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

fn seconds(length: Duration) -> u32 {
    u32::try_from(length.as_secs()).unwrap_or(u32::MAX)
}

fn rounded(duration: Duration) -> u32 {
    u32::try_from((duration + SECOND / 2).as_secs()).unwrap_or(u32::MAX)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests;
