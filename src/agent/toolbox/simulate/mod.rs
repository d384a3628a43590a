//! Simulated agents: generated counters go through the real rates, limits and detector. Time jumps to the next second with
//! something to read. Traffic follows from seed, start and [`Schedule`], but epochs are random: a second run adds to the first.

mod breach_counts;
mod pace;
mod traffic;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use smol_str::format_smolstr;

pub(crate) use self::breach_counts::BreachCounts;
pub(crate) use self::pace::Pace;
use self::traffic::{ACTIVITY_MEAN, INCIDENT_MEAN_S, PAUSE_S, QUIET_MAX, Scenario, SimulatedLink, activity};
use crate::agent::counters::Reading;
use crate::agent::detector::limit::{Level, Limit};
use crate::agent::detector::{Detections, Detector};
use crate::message::{NewEvent, Stamp};
use crate::process::random::random;

const INCIDENTS_A_WEEK: f64 = 2.9;
const EVENTS_AN_INCIDENT: f64 = 3.85;
const BETWEEN_MIN_S: f64 = 10.0;
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const UPTIME: Duration = HOUR;
const LONGEST_S: u64 = 10;
const INTERVAL: Duration = Duration::from_secs(LONGEST_S);
const START_S: u64 = 60;

pub struct Fleet {
    agents: Vec<SimulatedAgent>,
    scenario: Scenario,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    reading: Reading,
    detections: Detections,
}

struct SimulatedAgent {
    links: Vec<SimulatedLink>,
    detector: Detector,
    stamp: Stamp,
    start: DateTime<Utc>,
    starts_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FleetShape {
    pub seed: u64,
    pub interfaces: u32,
    pub schedule: Schedule,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub lasts: Duration,
    between_s: f64,
}

impl Schedule {
    /// Makes a schedule of about `events` events: usual incidents in the week before `end`, or frequent ones for at least a week.
    pub fn of_events(events: u64, links: f64, end: DateTime<Utc>) -> Self {
        let incidents = events as f64 / EVENTS_AN_INCIDENT;
        // The random incidents may take longer, and must not end in the future.
        let of_a_link = incidents / links * (1.05 + 2.0 / incidents.max(1.0).sqrt());
        if of_a_link <= INCIDENTS_A_WEEK {
            let wanted = of_a_link * usual_between_s();
            return Self { lasts: back_from(end, wanted), between_s: usual_between_s() };
        }
        let between_s = between(of_a_link);
        let weeks = of_a_link / in_a_week(between_s);
        Self { lasts: WEEK.mul_f64(weeks.clamp(1.0, 1e4)), between_s }
    }

    /// Makes incidents as in a real fleet; a run of less than a day has as many as a day.
    pub fn lasting(time: Duration) -> Self {
        let part = time.as_secs_f64() / DAY.as_secs_f64();
        Self { lasts: time, between_s: (usual_between_s() * part.min(1.0)).max(BETWEEN_MIN_S) }
    }
}

fn usual_between_s() -> f64 {
    WEEK.as_secs_f64() * ACTIVITY_MEAN / INCIDENTS_A_WEEK
}

fn between(incidents: f64) -> f64 {
    let (mut least, mut most) = (BETWEEN_MIN_S, usual_between_s());
    while most - least > 1.0 {
        let middle = f64::midpoint(least, most);
        if in_a_week(middle) > incidents { least = middle } else { most = middle }
    }
    least
}

fn in_a_week(between_s: f64) -> f64 {
    let taken_s = INCIDENT_MEAN_S + PAUSE_S as f64;
    let hours = (0..7 * 24).map(|hour| activity(DateTime::UNIX_EPOCH + HOUR * hour));
    hours.map(|activity| HOUR.as_secs_f64() / (between_s / activity + taken_s)).sum()
}

fn back_from(end: DateTime<Utc>, busy_s: f64) -> Duration {
    let (mut time, mut busy) = (Duration::ZERO, 0.0);
    while busy < busy_s && time < WEEK {
        time += HOUR;
        busy += HOUR.as_secs_f64() * activity(end - time);
    }
    time
}

impl Fleet {
    pub fn new(numbers: std::ops::Range<u32>, shape: FleetShape, limits: &[Limit], start: DateTime<Utc>) -> Self {
        let longest = |time: fn(&Limit) -> Duration| limits.iter().map(time).max().unwrap_or_default().as_secs();
        let update_s = limits.iter().map(|limit| limit.update_every).min().unwrap_or_default().as_secs();
        let scenario = Scenario {
            start,
            between_s: shape.schedule.between_s,
            rise_s: longest(|limit| limit.hold),
            update_s: update_s.clamp(1, LONGEST_S),
            settle_s: longest(|limit| limit.clear_hold).max(1),
            reads_all: limits.iter().any(|limit| sees_quiet_links(limit) || limit.clear_hold.as_secs() > LONGEST_S),
        };
        let agents: Vec<SimulatedAgent> =
            numbers.map(|number| SimulatedAgent::new(number, shape, limits, &scenario)).collect();
        let due = agents.iter().enumerate().map(|(index, agent)| Reverse((agent.due(), index))).collect();
        let (reading, detections) = Default::default();
        Self { agents, scenario, due, reading, detections }
    }

    pub fn next_at(&self) -> Duration {
        self.due.peek().map_or(Duration::MAX, |Reverse((second, _))| Duration::from_secs(*second))
    }

    pub fn tick(&mut self, new_events: &mut Vec<NewEvent>) {
        let Some(Reverse((now, _))) = self.due.peek().copied() else { return };
        let Self { agents, scenario, due, reading, detections } = self;
        while let Some(mut next) = due.peek_mut().filter(|next| next.0.0 == now) {
            let Reverse((second, index)) = &mut *next;
            let agent = &mut agents[*index];
            agent.read(scenario, now, reading, detections, new_events);
            *second = agent.due();
        }
    }
}

fn sees_quiet_links(limit: &Limit) -> bool {
    match limit.clear_at {
        Level::Rate(clear_at) => clear_at <= QUIET_MAX,
        Level::Percent(_) => true,
    }
}

impl SimulatedAgent {
    fn new(number: u32, shape: FleetShape, limits: &[Limit], scenario: &Scenario) -> Self {
        let mut rng = fastrand::Rng::with_seed(shape.seed ^ (u64::from(number) << 32));
        let start = rng.u64(0..START_S);
        let phase = TimeDelta::milliseconds(rng.i64(0..1_000));
        let links = (0..shape.interfaces)
            .map(|link| SimulatedLink::new((link, shape.interfaces), rng.u64(..), scenario, start));
        let stamp = Stamp {
            agent: format_smolstr!("sim-{number:06}"),
            observed_at: scenario.start,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: Some(true),
        };
        Self {
            links: links.collect(),
            // Runs must not reuse breach ids, so these are not seeded.
            detector: Detector::new(limits.to_vec(), INTERVAL, random()),
            stamp,
            start: scenario.start + phase,
            starts_at: Some(start),
        }
    }

    fn due(&self) -> u64 {
        self.starts_at.or_else(|| self.links.iter().map(|link| link.due).min()).unwrap_or(u64::MAX)
    }

    fn read(
        &mut self,
        scenario: &Scenario,
        now: u64,
        reading: &mut Reading,
        detections: &mut Detections,
        new_events: &mut Vec<NewEvent>,
    ) {
        reading.clear();
        let since_boot = UPTIME + Duration::from_secs(now);
        (reading.at, reading.boottime, reading.is_partial) = (since_boot, since_boot, true);
        self.stamp.observed_at = self.start + TimeDelta::seconds(now.cast_signed());
        self.stamp.monotonic_ms = u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX);
        if self.starts_at.take().is_none() {
            self.links.iter_mut().filter(|link| link.due <= now).for_each(|link| link.read(scenario, now, reading));
        } else {
            self.links.iter().for_each(|link| link.appear(reading));
        }
        // Sorted as by a real source, since a link that came back has another ifindex.
        reading.counters.sort_unstable_by_key(|counters| counters.ifindex);
        self.detector.observe(reading, &self.stamp, detections);
        new_events.extend(detections.bodies.drain(..).map(|body| NewEvent { stamp: self.stamp.clone(), body }));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::agent::detector::limit::Scope;
    use crate::message::{Direction, Severity};
    use crate::units::BitRate;

    fn limit(raise_at: u64) -> Limit {
        Limit {
            name: "simulated".into(),
            scope: Scope::Interface("*".into()),
            directions: vec![Direction::Rx, Direction::Tx],
            raise_at: Level::Rate(BitRate::from_bps(raise_at)),
            clear_at: Level::Rate(BitRate::from_bps(raise_at / 10 * 9)),
            hold: Duration::from_secs(3),
            clear_hold: Duration::from_secs(5),
            severity: Severity::Warning,
            update_every: Duration::from_secs(10),
        }
    }

    fn start() -> DateTime<Utc> {
        "2026-11-23T00:00:00Z".parse().unwrap()
    }

    fn week(seed: u64) -> Vec<NewEvent> {
        let shape = FleetShape { seed, interfaces: 4, schedule: Schedule::lasting(WEEK) };
        let mut fleet = Fleet::new(0..20, shape, &[limit(80_000_000)], start());
        let mut new_events = Vec::new();
        while fleet.next_at() < WEEK {
            fleet.tick(&mut new_events);
        }
        new_events
    }

    #[test]
    fn the_seed_makes_the_series() {
        let run = |seed| {
            let told = |new_event: &NewEvent| {
                let rate = new_event.body.breach().map(|breach| (breach.interface.clone(), breach.rate_bps));
                (new_event.stamp.clone(), new_event.body.kind().to_owned(), rate)
            };
            week(seed).iter().map(told).collect::<Vec<_>>()
        };
        let first = run(1);
        assert_eq!(first, run(1));
        assert_ne!(first, run(2));
        let agents: BTreeSet<_> = first.iter().map(|(stamp, ..)| &stamp.agent).collect();
        assert_eq!(agents.len(), 20);
        for kind in ["breach_raised", "breach_updated", "breach_cleared", "link_removed", "link_added"] {
            assert!(first.iter().any(|(_, told, _)| told == kind), "{kind}");
        }
        assert!(first.is_sorted_by_key(|(stamp, ..)| stamp.monotonic_ms), "in the order of their time");
    }

    #[test]
    fn a_week_is_mostly_quiet_and_busier_in_working_hours() {
        let new_events = week(1);
        let count = |kind: &str| new_events.iter().filter(|new_event| new_event.body.kind() == kind).count();
        assert!((700..1_400).contains(&new_events.len()), "about a thousand events: {}", new_events.len());
        assert!(count("breach_updated") * 10 < new_events.len() * 6, "{} updates", count("breach_updated"));
        let links = count("link_added") + count("link_removed");
        assert!((2..60).contains(&links), "a few link changes: {links}");
        let mut raised = BTreeMap::new();
        for new_event in new_events.iter().filter(|new_event| new_event.body.kind() == "breach_raised") {
            let time = new_event.stamp.observed_at;
            *raised.entry(activity(time) > 0.6).or_insert(0) += 1;
        }
        // Working hours are 50 of 168.
        assert!(raised[&true] > raised[&false], "{raised:?}");
        let lengths = new_events.iter().filter(|new_event| new_event.body.kind() == "breach_cleared");
        let lengths: BTreeSet<u64> =
            lengths.filter_map(|new_event| Some(new_event.body.breach()?.duration_ms / 1_000)).collect();
        assert!(lengths.first() < Some(&10) && lengths.last() > Some(&120), "seconds to minutes: {lengths:?}");
        let over: u64 = new_events
            .iter()
            .filter(|new_event| new_event.body.kind() == "breach_cleared")
            .filter_map(|new_event| Some(new_event.body.breach()?.duration_ms))
            .sum();
        assert!(over < 80 * WEEK.as_millis() as u64 / 1_000, "a thousandth of the time at most: {over} ms");
    }

    #[test]
    fn a_number_of_events_takes_as_long_as_it_needs_and_ends_before_now() {
        for (agents, events) in [(1_u32, 50_u64), (20, 20), (20, 1_000), (20, 100_000), (100, 10_000), (250, 10)] {
            let links = f64::from(agents * 4);
            let schedule = Schedule::of_events(events, links, start());
            let shape = FleetShape { seed: 1, interfaces: 4, schedule };
            let mut fleet = Fleet::new(0..agents, shape, &[limit(80_000_000)], start() - schedule.lasts);
            let (mut new_events, mut took) = (Vec::new(), Duration::ZERO);
            while (new_events.len() as u64) < events {
                took = fleet.next_at();
                fleet.tick(&mut new_events);
            }
            assert!(took <= schedule.lasts, "{events} events of {agents}: {took:?} of {:?}", schedule.lasts);
            assert!(schedule.lasts <= WEEK || events == 100_000, "{events} events of {agents}: {:?}", schedule.lasts);
        }
    }

    #[test]
    fn a_limit_below_quiet_traffic_is_exceeded_in_quiet_hours_too() {
        let shape = FleetShape { seed: 1, interfaces: 2, schedule: Schedule::lasting(HOUR) };
        let noon = start() + 10 * HOUR;
        let mut fleet = Fleet::new(0..1, shape, &[limit(5_000_000)], noon);
        let mut new_events = Vec::new();
        while fleet.next_at() < Duration::from_secs(120) {
            fleet.tick(&mut new_events);
        }
        let raised = new_events.iter().filter(|new_event| new_event.body.kind() == "breach_raised").count();
        assert!(raised >= 2, "both links receive 12 Mbit/s at noon: {raised}");
    }

    #[test]
    fn no_reset_of_a_counter_is_told_as_traffic() {
        for new_event in week(3) {
            if let Some(breach) = new_event.body.breach() {
                assert!(breach.peak_bps <= 100_000_000, "{breach:?}");
            }
        }
    }
}
