//! The percentile of five-minute means that transit is billed by, and beside it that of the one-second rates. A mean is the bytes
//! of a link in five minutes of UTC (the same in every time zone) over its measured seconds; links of a bundle are summed by
//! interval first. The percentile is the nearest rank: with `n` means in rising order, the one at place `ceil(p / 100 × n)`. For
//! the 95th of 8,640, the 432 highest are left out. Only intervals with a mean count; the answer lists those without.

use std::collections::{BTreeMap, HashMap};
use std::io;

use chrono::{DateTime, Utc};

use super::rates::{LATE, windows_of};
use super::row::row;
use super::{LinkFilter, histogram, stream};
use crate::consumer::store::{Query, Reader, StoreError};
use crate::units::ByteCount;

const INTERVAL_MS: i64 = 300_000;

/// Each agent and interface that is named has to have rates; each direction is answered by itself.
#[derive(Clone, Debug)]
pub struct PercentileFilter {
    pub agents: Vec<String>,
    pub interfaces: Vec<String>,
    pub directions: Vec<String>,
    pub percent: Percent,
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

/// Percentage above 0 and at most 100, with up to three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent {
    thousandths: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Percentile {
    pub direction: String,
    pub links: u64,
    pub of_means_bps: Option<u64>,
    /// `None` for several links: histograms have no times, so rates of the same second cannot be added.
    pub of_seconds_bps: Option<u64>,
    pub coverage: MonthCoverage,
}

/// Coverage by means. A `partial` mean lacks a link, or some seconds of one; `late` windows are missing only in one-second rates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MonthCoverage {
    pub expected: u64,
    pub present: u64,
    pub means: u64,
    pub partial: u64,
    pub unmeasured_s: u64,
    pub late: u64,
    pub missing: Vec<MissingWindows>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingWindows {
    pub agent: String,
    pub interface: String,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub windows: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum PercentileError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Row(#[from] io::Error),
    #[error("{0}")]
    NoRates(String),
    #[error(
        "{agent} {interface} has windows of {} s (at {started_at}), and means of 5 minutes need windows of at most 300 s: set \
         rates.window = \"5m\" there",
        window_ms / 1_000
    )]
    LongWindow { agent: String, interface: String, started_at: DateTime<Utc>, window_ms: i64 },
}

row! {
    struct Window {
        started_at: DateTime<Utc>,
        observed_at: DateTime<Utc>,
        agent: String,
        interface: String,
        window_ms: i64,
        bytes: ByteCount,
        measured_s: i64,
        unmeasured_s: i64,
        late: i64,
    }
}

pub fn read(reader: &mut dyn Reader, question: &PercentileFilter) -> Result<Vec<Percentile>, PercentileError> {
    let mut answers = Vec::new();
    let mut named = Named::default();
    for direction in &question.directions {
        let links = question.links(direction);
        let mut sums = MeanSums::new(question);
        let mut long = None;
        let read = stream(reader, &query(&links), |row| {
            let window = Window::read(row)?;
            if window.window_ms > INTERVAL_MS {
                long.get_or_insert(window);
                return Err(io::Error::other("a window is too long"));
            }
            sums.add(&window);
            Ok(())
        })?;
        if let Some(Window { agent, interface, started_at, window_ms, .. }) = long {
            return Err(PercentileError::LongWindow { agent, interface, started_at, window_ms });
        }
        read?;
        named.extend(sums.links.keys());
        if sums.links.is_empty() {
            continue;
        }
        let of_seconds_bps = match sums.links.len() {
            1 => histogram::merged(reader, &links)??.quantile_bps(question.percent.share()),
            _ => None,
        };
        answers.push(sums.finish(direction, question.percent, of_seconds_bps));
    }
    match named.absent(question) {
        None => Ok(answers),
        Some(absent) => Err(PercentileError::NoRates(explained(reader, &absent, question)?)),
    }
}

fn query(links: &LinkFilter) -> Query {
    let query = Window::select(&[("late", LATE)]).then("FROM rates WHERE true");
    windows_of(links, links.names(query)).ordered(&["observed_at"], None)
}

impl PercentileFilter {
    fn links(&self, direction: &str) -> LinkFilter {
        LinkFilter {
            agents: self.agents.clone(),
            interfaces: self.interfaces.clone(),
            directions: vec![direction.to_owned()],
            since: Some(self.since),
            until: Some(self.until),
        }
    }
}

fn interval(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis().div_euclid(INTERVAL_MS)
}

fn start_of(interval: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(interval * INTERVAL_MS).unwrap_or_default()
}

/// Sums for the means of one direction, while windows come in order of time. `next` has, for each link, the first interval not
/// accounted for; `open` has the intervals that may get further windows, with what each link carried in them.
struct MeanSums {
    first: i64,
    end: i64,
    links: BTreeMap<(String, String), usize>,
    next: Vec<i64>,
    open: BTreeMap<i64, BTreeMap<usize, Measured>>,
    means: Vec<u64>,
    coverage: MonthCoverage,
    missing: Vec<(usize, i64, i64)>,
    whole: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    bytes: f64,
    seconds: f64,
}

impl MeanSums {
    fn new(question: &PercentileFilter) -> Self {
        Self {
            first: interval(question.since),
            // An interval that is not over is not missing yet.
            end: interval(question.until),
            links: BTreeMap::new(),
            next: Vec::new(),
            open: BTreeMap::new(),
            means: Vec::new(),
            coverage: MonthCoverage::default(),
            missing: Vec::new(),
            whole: Vec::new(),
        }
    }

    fn add(&mut self, window: &Window) {
        self.close(interval(window.observed_at) - 1);
        let (links, name) = (self.links.len(), (window.agent.clone(), window.interface.clone()));
        let link = *self.links.entry(name).or_insert(links);
        if link == links {
            self.next.push(self.first);
        }
        self.coverage.unmeasured_s += window.unmeasured_s.max(0).unsigned_abs();
        self.coverage.late += window.late.max(0).unsigned_abs();
        if window.measured_s <= 0 {
            return;
        }
        // Windows in two intervals, as one of four minutes can be, are divided by time.
        let (from, to) = (window.started_at.timestamp_millis(), window.observed_at.timestamp_millis());
        for at in interval(window.started_at)..=interval(window.observed_at) {
            let shared = to.min((at + 1) * INTERVAL_MS) - from.max(at * INTERVAL_MS);
            if shared <= 0 || !(self.first..self.end).contains(&at) {
                continue;
            }
            let share = shared as f64 / (to - from) as f64;
            let measured = self.open.entry(at).or_default().entry(link).or_default();
            measured.bytes += window.bytes.bytes() as f64 * share;
            measured.seconds += window.measured_s as f64 * share;
        }
    }

    fn close(&mut self, end: i64) {
        while let Some(entry) = self.open.first_entry().filter(|entry| *entry.key() < end) {
            let (at, links) = entry.remove_entry();
            let rates = links.values().map(|measured| (measured.bytes * 8.0 / measured.seconds).round() as u64);
            self.means.push(rates.fold(0, u64::saturating_add));
            let is_whole = |measured: &Measured| (measured.seconds - INTERVAL_MS as f64 / 1_000.0).abs() < 0.5;
            self.whole.push(links.values().filter(|measured| is_whole(measured)).count());
            self.coverage.present += links.len() as u64;
            for link in links.into_keys() {
                let next = std::mem::replace(&mut self.next[link], at + 1);
                if next < at {
                    self.missing.push((link, next, at));
                }
            }
        }
    }

    fn finish(mut self, direction: &str, percent: Percent, of_seconds_bps: Option<u64>) -> Percentile {
        self.close(i64::MAX);
        let ends = self.next.iter().enumerate().filter(|(_, next)| **next < self.end);
        self.missing.extend(ends.map(|(link, next)| (link, *next, self.end)));
        let names: HashMap<usize, (String, String)> = self.links.into_iter().map(|(name, link)| (link, name)).collect();
        let mut missing: Vec<_> = self
            .missing
            .into_iter()
            .map(|(link, from, to)| {
                let (agent, interface) = names[&link].clone();
                MissingWindows {
                    agent,
                    interface,
                    from: start_of(from),
                    to: start_of(to),
                    windows: (to - from).unsigned_abs(),
                }
            })
            .collect();
        missing.sort_by(|a, b| (&a.agent, &a.interface, a.from).cmp(&(&b.agent, &b.interface, b.from)));
        let coverage = MonthCoverage {
            expected: names.len() as u64 * (self.end - self.first).max(0).unsigned_abs(),
            means: self.means.len() as u64,
            partial: self.whole.iter().filter(|whole| **whole < names.len()).count() as u64,
            missing,
            ..self.coverage
        };
        let of_means_bps = percent.nearest_rank(&mut self.means);
        Percentile {
            direction: direction.to_owned(),
            links: names.len() as u64,
            of_means_bps,
            of_seconds_bps,
            coverage,
        }
    }
}

impl Percent {
    pub fn parse(text: &str) -> Result<Self, String> {
        let thousandths = || {
            let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
            let is_number = |digits: &str| {
                !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit())
            };
            if !is_number(whole) || !is_number(decimals) {
                return None;
            }
            let thousandths = whole.parse::<u32>().ok()? * 1_000 + format!("{decimals:0<3}").parse::<u32>().ok()?;
            (1..=100_000).contains(&thousandths).then_some(thousandths)
        };
        thousandths()
            .map(|thousandths| Self { thousandths })
            .ok_or_else(|| "is not a percentage above 0 and up to 100; write 95 or 99.9".to_owned())
    }

    pub fn value(self) -> f64 {
        f64::from(self.thousandths) / 1_000.0
    }

    fn share(self) -> f64 {
        f64::from(self.thousandths) / 100_000.0
    }

    fn nearest_rank(self, values: &mut [u64]) -> Option<u64> {
        let rank = (values.len() as u64 * u64::from(self.thousandths)).div_ceil(100_000);
        let place = usize::try_from(rank).ok()?.checked_sub(1)?;
        (place < values.len()).then(|| *values.select_nth_unstable(place).1)
    }
}

#[derive(Default)]
struct Named {
    agents: Vec<String>,
    interfaces: Vec<String>,
}

impl Named {
    fn extend<'a>(&mut self, links: impl Iterator<Item = &'a (String, String)>) {
        for (agent, interface) in links {
            for (names, name) in [(&mut self.agents, agent), (&mut self.interfaces, interface)] {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
    }

    fn absent(&self, question: &PercentileFilter) -> Option<LinkFilter> {
        let missing = |named: &[String], found: &[String]| named.iter().find(|name| !found.contains(name)).cloned();
        let (agent, interface) =
            (missing(&question.agents, &self.agents), missing(&question.interfaces, &self.interfaces));
        match (agent, interface) {
            (Some(agent), _) => Some(LinkFilter {
                agents: vec![agent],
                interfaces: question.interfaces.clone(),
                ..LinkFilter::default()
            }),
            (None, Some(interface)) => Some(LinkFilter {
                agents: question.agents.clone(),
                interfaces: vec![interface],
                ..LinkFilter::default()
            }),
            (None, None) => None,
        }
    }
}

row! {
    struct Known {
        agent: String,
        first_at: Option<DateTime<Utc>>,
        last_at: Option<DateTime<Utc>>,
    }
}

fn explained(
    reader: &mut dyn Reader,
    absent: &LinkFilter,
    question: &PercentileFilter,
) -> Result<String, PercentileError> {
    let names = [absent.interfaces.join(", "), absent.agents.join(", ")];
    let link = if absent.interfaces.is_empty() { names[1].clone() } else { names.join(" of ") };
    let text = format!("no rates of {link} are stored from {} to {}", question.since, question.until);
    let query = Known::select(&[("first_at", "min(starts_at)"), ("last_at", "max(starts_at)")])
        .then("FROM histograms WHERE span = 'day'");
    let mut known = None;
    stream(reader, &absent.names(query).then("GROUP BY agent ORDER BY agent LIMIT 1"), |row| {
        known = Some(Known::read(row)?);
        Ok(())
    })??;
    Ok(match known {
        Some(Known { first_at: Some(first), last_at: Some(last), .. }) => {
            format!("{text}; there are some from {} to {}", first.date_naive(), last.date_naive())
        }
        _ => format!("{text}, nor of any other time; `highwater-consumer agents` names those that report"),
    })
}
