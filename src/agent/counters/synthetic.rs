//! Made-up traffic of a small host (`docs/configuration.md`), a function of the seed and the time since the first reading alone.

use std::time::Duration;

use super::link_table::{LinkQueries, LinkTable};
use super::moment::Moment;
use super::stacking::Attachment;
use super::{CounterBits, CounterError, CounterSource, Counters, LinkInfo, LinkKind, Reading, Speed};
use crate::agent::counters::filter::InterfaceFilter;
use crate::process::clock::Clock;
use crate::units::BitRate;

const SPEED: BitRate = BitRate::from_bps(100_000_000);
const MEAN_BPS: f64 = 20_000_000.0;
const SWING: f64 = 0.6;
const NOISE: f64 = 0.15;
const SENT: f64 = 0.1;
const BEAT_S: u64 = 30;
const BEAT_BURST_S: std::ops::Range<u64> = 5..15;
const RESET_EVERY_S: u64 = 600;
const ABSENT_EVERY_S: u64 = 120;
const ABSENT_FOR_S: u64 = 10;
const DAY_S: f64 = 86_400.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub seed: u64,
    pub interfaces: u32,
    pub troubles: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { seed: 1, interfaces: 4, troubles: true }
    }
}

#[derive(Debug)]
pub struct Synthetic {
    shape: Shape,
    links: Vec<SyntheticLink>,
    table: LinkTable,
    began: Option<Duration>,
}

#[derive(Debug)]
struct SyntheticLink {
    second: u64,
    rx_bytes: u64,
    tx_bytes: u64,
    life: u32,
    present: bool,
}

#[derive(Clone, Copy)]
struct SyntheticTraffic {
    shape: Shape,
    number: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Impairment {
    None,
    Counter32,
    Resets,
    Flaps,
}

impl Synthetic {
    pub fn new(shape: Shape, selection: InterfaceFilter) -> Self {
        let links =
            (0..shape.interfaces).map(|number| SyntheticLink::new(SyntheticTraffic { shape, number })).collect();
        Self { shape, links, table: LinkTable::new(selection), began: None }
    }

    fn elapsed(&mut self, now: Duration) -> Duration {
        now.saturating_sub(*self.began.get_or_insert(now))
    }
}

impl CounterSource for Synthetic {
    fn name(&self) -> &'static str {
        "synthetic"
    }

    fn read(&mut self, clock: &dyn Clock, reading: &mut Reading) -> Result<(), CounterError> {
        reading.clear();
        Moment::now(clock).stamp(reading);
        let elapsed = self.elapsed(reading.at);
        self.table.mark();
        for number in 0..self.shape.interfaces {
            let traffic = SyntheticTraffic { shape: self.shape, number };
            let link = &mut self.links[number as usize];
            link.advance(traffic, elapsed.as_secs());
            if !link.present {
                continue;
            }
            let counters = link.counters(traffic, elapsed);
            if self.table.get(counters.ifindex).is_some() {
                self.table.keep(counters.ifindex);
            } else {
                self.table.put(link.info(traffic), Attachment::default());
            }
            match self.table.counter_bits(counters.ifindex) {
                Some(CounterBits::B32) => reading.counters.push(Counters { bits: CounterBits::B32, ..counters }),
                Some(CounterBits::B64) => reading.counters.push(counters),
                None => {}
            }
        }
        self.table.sweep();
        self.table.report(&self.shape, reading.at, &mut reading.changes);
        Ok(())
    }
}

impl LinkQueries for Shape {
    fn speed(&self, _: &LinkInfo) -> Speed {
        Speed::both(Some(SPEED))
    }

    fn pppoe_devices(&self) -> Vec<String> {
        Vec::new()
    }
}

impl SyntheticLink {
    fn new(traffic: SyntheticTraffic) -> Self {
        // Starts 50 MB below the wrap, which comes within half a minute.
        let rx_bytes = if traffic.impairment() == Impairment::Counter32 { (1 << 32) - 50_000_000 } else { 0 };
        Self { second: 0, rx_bytes, tx_bytes: 0, life: 0, present: true }
    }

    fn advance(&mut self, traffic: SyntheticTraffic, to: u64) {
        while self.second < to {
            let (rx, tx) = traffic.bytes(self.second);
            self.rx_bytes += rx;
            self.tx_bytes += tx;
            self.second += 1;
            let present = !traffic.absent(self.second);
            let back = present && !self.present;
            if back || traffic.resets(self.second) {
                (self.rx_bytes, self.tx_bytes) = (0, 0);
            }
            self.life += u32::from(back);
            self.present = present;
        }
    }

    fn info(&self, traffic: SyntheticTraffic) -> LinkInfo {
        LinkInfo::new(self.ifindex(traffic), format!("syn{}", traffic.number), LinkKind::Physical)
    }

    fn ifindex(&self, traffic: SyntheticTraffic) -> u32 {
        1 + traffic.number + self.life * traffic.shape.interfaces
    }

    fn counters(&self, traffic: SyntheticTraffic, elapsed: Duration) -> Counters {
        let ifindex = self.ifindex(traffic);
        let (rx, tx) = if elapsed.subsec_nanos() == 0 { (0, 0) } else { traffic.bytes(self.second) };
        let part = |bytes: u64| bytes * u64::from(elapsed.subsec_nanos()) / 1_000_000_000;
        let (bits, mask) = match traffic.impairment() {
            Impairment::Counter32 => (CounterBits::B32, u64::from(u32::MAX)),
            _ => (CounterBits::B64, u64::MAX),
        };
        let (rx_bytes, tx_bytes) = ((self.rx_bytes + part(rx)) & mask, (self.tx_bytes + part(tx)) & mask);
        Counters { ifindex, rx_bytes, tx_bytes, bits, ..Counters::default() }
    }
}

impl SyntheticTraffic {
    fn impairment(self) -> Impairment {
        match self.number % 4 {
            _ if !self.shape.troubles => Impairment::None,
            1 => Impairment::Counter32,
            2 => Impairment::Resets,
            3 => Impairment::Flaps,
            _ => Impairment::None,
        }
    }

    fn bytes(self, second: u64) -> (u64, u64) {
        let bps = self.burst(second).unwrap_or_else(|| {
            let phase = std::f64::consts::TAU * (second as f64 / DAY_S);
            MEAN_BPS * (1.0 + SWING * phase.sin() + NOISE * (2.0 * self.rng(second, "noise").f64() - 1.0))
        });
        ((bps / 8.0) as u64, (bps * SENT / 8.0) as u64)
    }

    fn burst(self, second: u64) -> Option<f64> {
        let mut height = self.rng(second, "height");
        if self.number == 0 {
            return BEAT_BURST_S.contains(&(second % BEAT_S)).then(|| 92e6 + 6e6 * height.f64());
        }
        let mut minute = self.rng(second / 60, "burst");
        let (bursts, start, length) = (minute.u8(0..4) == 0, minute.u64(0..25), minute.u64(5..35));
        (bursts && (start..start + length).contains(&(second % 60))).then(|| 70e6 + 28e6 * height.f64())
    }

    fn resets(self, second: u64) -> bool {
        self.impairment() == Impairment::Resets
            && second % RESET_EVERY_S == self.rng(second / RESET_EVERY_S, "reset").u64(60..RESET_EVERY_S)
    }

    fn absent(self, second: u64) -> bool {
        if self.impairment() != Impairment::Flaps {
            return false;
        }
        let start = self.rng(second / ABSENT_EVERY_S, "absence").u64(20..ABSENT_EVERY_S - ABSENT_FOR_S);
        (start..start + ABSENT_FOR_S).contains(&(second % ABSENT_EVERY_S))
    }

    fn rng(self, moment: u64, purpose: &str) -> fastrand::Rng {
        let purpose = purpose.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut mixed = self.shape.seed;
        for part in [u64::from(self.number), moment, purpose] {
            mixed = fastrand::Rng::with_seed(mixed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..);
        }
        fastrand::Rng::with_seed(mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AddReason, LinkChange, RemoveReason};
    use super::*;
    use crate::process::clock::ManualClock;
    use chrono::DateTime;

    fn source(shape: Shape) -> (Synthetic, ManualClock) {
        (Synthetic::new(shape, InterfaceFilter::default()), ManualClock::new(DateTime::UNIX_EPOCH))
    }

    fn readings(shape: Shape, seconds: impl Iterator<Item = u64>) -> Vec<Reading> {
        let (mut source, clock) = source(shape);
        let mut now = 0;
        let mut reading = Reading::default();
        seconds
            .map(|second| {
                clock.advance(Duration::from_secs(second - now));
                now = second;
                source.read(&clock, &mut reading).unwrap();
                reading.clone()
            })
            .collect()
    }

    fn rx(reading: &Reading, ifindex: u32) -> Option<u64> {
        reading.counters.iter().find(|c| c.ifindex == ifindex).map(|c| c.rx_bytes)
    }

    #[test]
    fn the_first_link_bursts_as_documented() {
        let readings = readings(Shape::default(), 0..120);
        for (second, pair) in (0..).zip(readings.windows(2)) {
            let bps = 8 * (rx(&pair[1], 1).unwrap() - rx(&pair[0], 1).unwrap());
            if BEAT_BURST_S.contains(&(second % BEAT_S)) {
                assert!((91_000_000..=98_000_000).contains(&bps), "{bps} in second {second}");
            } else {
                assert!(bps <= 40_000_000, "{bps} in second {second}");
            }
        }
    }

    #[test]
    fn the_pace_of_reading_does_not_matter() {
        let often = readings(Shape::default(), 0..=3600);
        let seldom = readings(Shape::default(), (0..=3600).step_by(300));
        for (at, reading) in (0..).step_by(300).zip(&seldom) {
            assert_eq!(reading.counters, often[at].counters, "after {at} s");
        }
        let other = readings(Shape { seed: 2, ..Shape::default() }, 0..=60);
        assert_ne!(other[60].counters, often[60].counters);
    }

    #[test]
    fn within_a_second_bytes_come_evenly() {
        let (mut source, clock) = source(Shape::default());
        let (mut before, mut after) = (Reading::default(), Reading::default());
        source.read(&clock, &mut before).unwrap();
        let mut last = 0;
        for _ in 0..100 {
            clock.advance(Duration::from_millis(77));
            source.read(&clock, &mut after).unwrap();
            let now = rx(&after, 1).unwrap();
            assert!(now > last);
            last = now;
        }
    }

    #[test]
    fn troubles_come_as_documented() {
        let readings = readings(Shape::default(), 0..=1200);
        let falls = |ifindex| readings.windows(2).filter(|pair| rx(&pair[1], ifindex) < rx(&pair[0], ifindex)).count();
        assert_eq!((falls(1), falls(3)), (0, 2), "syn0 never, syn2 once in ten minutes");
        assert!((1..=3).contains(&falls(2)), "syn1 wraps: {}", falls(2));
        let changes: Vec<_> = readings.iter().skip(1).flat_map(|reading| &reading.changes).collect();
        let gone = changes.iter().filter(|c| matches!(c, LinkChange::Removed(_, RemoveReason::Gone))).count();
        let back = changes.iter().filter(|c| matches!(c, LinkChange::Added(_, AddReason::Appeared))).count();
        assert_eq!((gone, back, changes.len()), (10, 10, 20), "syn3 once in two minutes");
        let calm = self::readings(Shape { troubles: false, ..Shape::default() }, 0..=1200);
        assert!(calm.iter().skip(1).all(|reading| reading.changes.is_empty()));
    }

    #[test]
    fn only_watched_links_are_made() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let selection = InterfaceFilter::new(&["syn2".to_owned()], &[], &[]);
        let mut source = Synthetic::new(Shape { interfaces: 300, ..Shape::default() }, selection);
        let mut reading = Reading::default();
        source.read(&clock, &mut reading).unwrap();
        assert_eq!(reading.counters.iter().map(|c| c.ifindex).collect::<Vec<_>>(), [3]);
        assert_eq!(reading.changes.len(), 1);
    }
}
