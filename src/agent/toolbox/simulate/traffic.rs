//! Generated traffic of a link: quiet, with incidents of its own Poisson process, whose rate follows the hour of the week
//! ([`activity`]). Most are bursts near the link's speed, of seconds to a few minutes, a third of them in tx. One link in four has
//! counter resets in some bursts, another one in four has outages, after which its index differs. Quiet links are not read.

use chrono::{DateTime, Utc};

use crate::agent::counters::{AddReason, Counters, LinkChange, LinkInfo, LinkKind, Reading, RemoveReason, Speed};
use crate::units::BitRate;

pub(super) const QUIET_MAX: BitRate = BitRate::from_bps(16_000_000);
pub(super) const PAUSE_S: u64 = 30;
pub(super) const INCIDENT_MEAN_S: f64 = 40.0;

const SPEED: BitRate = BitRate::from_bps(100_000_000);
const BUSY_HOUR_BPS: f64 = 12e6;
const NOISE: f64 = 0.3;
const ANSWERS: f64 = 0.1;
const BURST_BPS: f64 = 82e6;
const BURST_MORE_BPS: f64 = 16e6;
const BURST_MIN_S: f64 = 4.0;
const BURST_SPREAD: f64 = 60.0;
const OUTAGE_S: std::ops::Range<u64> = 10..90;
const RESET_READINGS: u64 = 4;

#[rustfmt::skip]
const WORKING_DAY: [f64; 24] = [
    0.06, 0.05, 0.05, 0.05, 0.06, 0.10, 0.20, 0.40, 0.75, 0.95, 1.00, 0.95,
    0.85, 0.95, 1.00, 0.95, 0.85, 0.65, 0.50, 0.45, 0.40, 0.30, 0.18, 0.10,
];
const WEEKEND: f64 = 0.25;
pub(super) const ACTIVITY_MEAN: f64 = 0.386;

pub(super) fn activity(time: DateTime<Utc>) -> f64 {
    activity_at(time.timestamp())
}

fn activity_at(timestamp: i64) -> f64 {
    let hours = timestamp.div_euclid(3_600);
    // Monday is 0; 1970 began on a Thursday.
    let weekday = (hours.div_euclid(24) + 3).rem_euclid(7);
    let day = if weekday >= 5 { WEEKEND } else { 1.0 };
    day * WORKING_DAY[hours.rem_euclid(24) as usize]
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) start: DateTime<Utc>,
    pub(super) between_s: f64,
    /// Seconds from a burst's begin to its breach, between updates, and from its end to the clearing.
    pub(super) rise_s: u64,
    pub(super) update_s: u64,
    pub(super) settle_s: u64,
    pub(super) reads_all: bool,
}

impl Scenario {
    fn activity(&self, second: u64) -> f64 {
        activity_at(self.start.timestamp() + second.cast_signed())
    }
}

#[derive(Clone, Copy, Debug)]
struct Incident {
    start: u64,
    end: u64,
    kind: IncidentKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum IncidentKind {
    Received { bps: f64 },
    Sent { bps: f64 },
    Outage,
}

#[derive(Debug)]
pub(super) struct SimulatedLink {
    rng: fastrand::Rng,
    number: u32,
    links: u32,
    ifindex: u32,
    rx_bytes: u64,
    tx_bytes: u64,
    counted: u64,
    incident: Incident,
    reset_at: Option<u64>,
    is_gone: bool,
    pub(super) due: u64,
}

impl SimulatedLink {
    pub(super) fn new((number, links): (u32, u32), seed: u64, scenario: &Scenario, now: u64) -> Self {
        let incident = Incident { start: 0, end: 0, kind: IncidentKind::Outage };
        let mut link = Self {
            rng: fastrand::Rng::with_seed(seed),
            number,
            links,
            ifindex: 1 + number,
            rx_bytes: 1 << 30,
            tx_bytes: 1 << 27,
            counted: now,
            incident,
            reset_at: None,
            is_gone: false,
            due: now,
        };
        link.draw_incident(scenario, now);
        link
    }

    pub(super) fn appear(&self, reading: &mut Reading) {
        reading.changes.push(LinkChange::Added(self.info(), AddReason::Appeared));
        reading.counters.push(self.counters());
    }

    pub(super) fn read(&mut self, scenario: &Scenario, now: u64, reading: &mut Reading) {
        let Incident { start, end, kind } = self.incident;
        if kind == IncidentKind::Outage && now >= start {
            if now >= end {
                self.come_back(now, reading);
                self.draw_incident(scenario, now);
            } else {
                reading.changes.push(LinkChange::Removed(self.ifindex, RemoveReason::Gone));
                (self.is_gone, self.due) = (true, end);
            }
            return;
        }
        self.count(scenario, now);
        reading.counters.push(self.counters());
        if kind != IncidentKind::Outage && now >= end + scenario.settle_s {
            self.draw_incident(scenario, now);
        } else {
            self.due = self.next_reading(scenario, now);
        }
    }

    /// Returns the next second in which a reading matters: a rise, an update, a reset, the end, the clearing.
    fn next_reading(&self, scenario: &Scenario, now: u64) -> u64 {
        let Incident { start, end, kind } = self.incident;
        if scenario.reads_all {
            return now + 1;
        }
        if kind == IncidentKind::Outage || now < start {
            return start;
        }
        let raised = start + scenario.rise_s;
        let next = if now < raised { now + 1 } else { now + scenario.update_s - (now - raised) % scenario.update_s };
        let around_reset = self.reset_at.filter(|second| now + 1 < second + RESET_READINGS);
        let around_reset = around_reset.map_or(next, |second| second.max(now + 1));
        [around_reset, end, end + scenario.settle_s].into_iter().filter(|second| *second > now).fold(next, u64::min)
    }

    fn come_back(&mut self, now: u64, reading: &mut Reading) {
        self.ifindex += self.links;
        (self.rx_bytes, self.tx_bytes, self.counted, self.is_gone) = (0, 0, now, false);
        self.appear(reading);
    }

    fn draw_incident(&mut self, scenario: &Scenario, now: u64) {
        let mut start = (now + PAUSE_S) as f64;
        loop {
            start -= scenario.between_s * (1.0 - self.rng.f64()).ln();
            if self.rng.f64() < scenario.activity(start as u64) {
                break;
            }
        }
        let start = start as u64;
        let kind = self.draw_kind();
        let length = match kind {
            IncidentKind::Outage => self.rng.u64(OUTAGE_S),
            _ => (BURST_MIN_S * BURST_SPREAD.powf(self.rng.f64().powi(3))) as u64,
        };
        let resets = self.number % 4 == 2 && self.rng.u8(0..6) == 0;
        self.reset_at = resets.then_some(start + length / 2);
        self.incident = Incident { start, end: start + length, kind };
        self.due = self.next_reading(scenario, now);
    }

    fn draw_kind(&mut self) -> IncidentKind {
        if self.number % 4 == 3 && self.rng.u8(0..5) == 0 {
            return IncidentKind::Outage;
        }
        let bps = BURST_BPS + BURST_MORE_BPS * self.rng.f64();
        if self.rng.u8(0..3) == 0 { IncidentKind::Sent { bps } } else { IncidentKind::Received { bps } }
    }

    fn count(&mut self, scenario: &Scenario, now: u64) {
        let Incident { start, end, kind } = self.incident;
        while self.counted < now {
            let from = self.counted;
            if self.reset_at == Some(from) {
                (self.rx_bytes, self.tx_bytes) = (0, 0);
            }
            let turns = [start, end, self.reset_at.unwrap_or(now)];
            let to = turns.into_iter().filter(|turn| *turn > from).fold(now, u64::min);
            let quiet = self.quiet_bps(scenario, from);
            let bursts = (start..end).contains(&from);
            let (rx, tx) = match kind {
                IncidentKind::Received { bps } if bursts => (bps, bps * ANSWERS),
                IncidentKind::Sent { bps } if bursts => (quiet.max(bps * ANSWERS), bps),
                _ => (quiet, quiet * ANSWERS),
            };
            let seconds = (to - from) as f64;
            self.rx_bytes += (rx * seconds / 8.0) as u64;
            self.tx_bytes += (tx * seconds / 8.0) as u64;
            self.counted = to;
        }
    }

    fn quiet_bps(&mut self, scenario: &Scenario, second: u64) -> f64 {
        let noise = 1.0 + NOISE * (2.0 * self.rng.f64() - 1.0);
        BUSY_HOUR_BPS * scenario.activity(second) * noise
    }

    fn counters(&self) -> Counters {
        let Self { ifindex, rx_bytes, tx_bytes, .. } = *self;
        Counters { ifindex, rx_bytes, tx_bytes, ..Counters::default() }
    }

    fn info(&self) -> LinkInfo {
        let name = format!("eth{}", self.number);
        LinkInfo { speed: Speed::both(Some(SPEED)), ..LinkInfo::new(self.ifindex, name, LinkKind::Physical) }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_mean_activity_is_that_of_the_hours() {
        let monday = "2026-11-23T00:00:00Z".parse::<DateTime<Utc>>().unwrap();
        let sum: f64 = (0..168).map(|hour| activity(monday + TimeDelta::hours(hour))).sum();
        assert!((sum / 168.0 - ACTIVITY_MEAN).abs() < 0.001, "{}", sum / 168.0);
    }

    #[test]
    fn between_incidents_a_link_is_below_what_is_called_quiet() {
        assert!(BUSY_HOUR_BPS * (1.0 + NOISE) < QUIET_MAX.bps() as f64);
    }
}
