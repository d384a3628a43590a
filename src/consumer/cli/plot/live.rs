//! Live distributions: each link's current hour, as the consumer publishes it to Kafka.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use signal_hook::consts::SIGWINCH;

use super::histogram::PlotHistogram;
use super::picture::terminal;
use super::rate::Names;
use crate::cli::{output, stop_flag};
use crate::config::TopicRole;
use crate::consumer::cli::common::unavailable;
use crate::consumer::cli::flags::LinkFlags;
use crate::consumer::plot::{Distribution, HistogramPlot, Page, time_span};
use crate::consumer::report::histogram::HistogramBins;
use crate::consumer::{Fetched, StandaloneConsumer};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;
use crate::process::log_throttle::LogThrottle;

#[derive(Debug, Deserialize)]
struct PublishedHour {
    agent: String,
    interface: String,
    direction: String,
    starts_at: DateTime<Utc>,
    version: i64,
    measured_s: u64,
    unmeasured_s: u64,
    min_bps: Option<u64>,
    max_bps: Option<u64>,
    p50_bps: Option<u64>,
    p95_bps: Option<u64>,
    p99_bps: Option<u64>,
    bins: Vec<(u64, u64, u64)>,
}

/// The latest hour of each link. `messages` numbers those taken; `dropped` counts links that gave way to others.
#[derive(Debug, Default)]
struct LatestHours {
    hours: BTreeMap<Names, LatestHour>,
    messages: u64,
    dropped: usize,
}

#[derive(Debug)]
struct LatestHour {
    starts_at: DateTime<Utc>,
    version: i64,
    message: u64,
    bins: HistogramBins,
}

/// Links in memory: 13 MB with [`BINS_MAX`] bins each, the number that HdrHistogram has for these rates, with room to spare.
const LINKS_MAX: usize = 200;
const BINS_MAX: usize = 4_096;
/// Time before the start whose messages are shown too: an hour without new seconds is not published again.
const LOOK_BACK: TimeDelta = TimeDelta::hours(1);
const POLL: Duration = Duration::from_millis(100);
/// Longest time that messages are taken without a picture.
const FRAME: Duration = Duration::from_millis(500);

pub(super) fn follow(command: &PlotHistogram) -> Result<(), Failure> {
    let settings = command.common.prepare()?;
    let Some(topic) = settings.topic_of(TopicRole::Histograms) else {
        return Err(Failure::config("topics.histograms is empty: no histograms are published"));
    };
    let kafka = |error: String| unavailable(format!("Kafka at {}: {error}", settings.connection.brokers()));
    let mut consumer = StandaloneConsumer::new(&settings.connection, topic, &settings.group, settings.decoder())
        .map_err(Failure::config)?;
    let begin = begin(&consumer).map_err(kafka)?;
    consumer.assign_from(&begin).map_err(kafka)?;
    let stop = stop_flag().map_err(Failure::failed)?;
    let resized = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGWINCH, Arc::clone(&resized)).map_err(Failure::failed)?;
    let mut view = View::new(command)?;
    let mut hours = LatestHours::default();
    let (clock, throttle) = (SystemClock::default(), LogThrottle::default());
    let mut is_new = true;
    let mut drawn_at = clock.monotonic();
    while !stop.load(Ordering::Relaxed) && command.n.is_none_or(|n| view.pictures < n) {
        let seen = consumer.poll(POLL);
        let is_idle = !matches!(seen, Fetched::Record(..));
        match seen {
            Fetched::Record(_, record) => {
                // A deleted key has no payload.
                match record.payload.as_deref().map(serde_json::from_slice::<PublishedHour>) {
                    Some(Ok(hour)) => is_new |= is_wanted(&command.links, &hour) && hours.add(hour),
                    Some(Err(error)) => log::debug!("{topic}: offset {}: no histogram: {error}", record.offset),
                    None => {}
                }
            }
            Fetched::Error(why) => {
                if let Some(line) = throttle.admit(&why, clock.monotonic()) {
                    log::warn!("Kafka at {}: {line}; trying again", settings.connection.brokers());
                }
            }
            Fetched::End(_) | Fetched::NoMessage => {}
        }
        let is_due = is_idle || clock.monotonic().saturating_sub(drawn_at) >= FRAME;
        if resized.swap(false, Ordering::Relaxed) || is_new && is_due && (view.is_terminal || !hours.hours.is_empty()) {
            let drawn = view.draw(command, &hours)?;
            if drawn.is_err() {
                return output::finished(drawn);
            }
            (is_new, drawn_at) = (false, clock.monotonic());
        }
    }
    output::finished(view.end(command, &hours)?)
}

fn begin(consumer: &StandaloneConsumer) -> Result<BTreeMap<i32, i64>, String> {
    let partitions = consumer.partitions()?;
    let since = SystemClock::default().wall() - LOOK_BACK;
    let at = consumer.offsets_at(&partitions, since.timestamp_millis())?;
    let offset = |partition: i32| match at.get(&partition) {
        Some(offset) => Ok((partition, *offset)),
        None => consumer.watermarks(partition).map(|(_, end)| (partition, end)),
    };
    partitions.into_iter().map(offset).collect()
}

fn is_wanted(links: &LinkFlags, hour: &PublishedHour) -> bool {
    let has = |names: &[String], name: &String| names.is_empty() || names.contains(name);
    has(&links.agent, &hour.agent) && has(&links.interface, &hour.interface) && has(&links.direction, &hour.direction)
}

impl LatestHours {
    /// Takes a message unless it is older than its link's latest. Returns true if it changes the picture.
    fn add(&mut self, hour: PublishedHour) -> bool {
        let names = [hour.agent, hour.interface, hour.direction];
        let known = self.hours.get(&names);
        if hour.bins.len() > BINS_MAX
            || known.is_some_and(|known| (known.starts_at, known.version) >= (hour.starts_at, hour.version))
        {
            return false;
        }
        if known.is_none() && self.hours.len() >= LINKS_MAX {
            let oldest = self.hours.iter().min_by_key(|(_, hour)| hour.message).map(|(names, _)| names.clone());
            self.hours.remove(&oldest.unwrap_or_default());
            self.dropped += 1;
        }
        self.messages += 1;
        let bins = HistogramBins {
            bins: hour.bins,
            measured_s: hour.measured_s,
            unmeasured_s: hour.unmeasured_s,
            min: hour.min_bps,
            max: hour.max_bps,
            p50: hour.p50_bps,
            p95: hour.p95_bps,
            p99: hour.p99_bps,
            ..HistogramBins::default()
        };
        let latest = LatestHour { starts_at: hour.starts_at, version: hour.version, message: self.messages, bins };
        self.hours.insert(names, latest);
        true
    }

    /// Returns those that changed last, in order of their names, and the number of others.
    fn latest(&self, most: usize) -> (Vec<Distribution>, usize) {
        let mut hours: Vec<(&Names, &LatestHour)> = self.hours.iter().collect();
        hours.sort_by_key(|(_, hour)| std::cmp::Reverse(hour.message));
        hours.truncate(most);
        hours.sort_by_key(|(names, _)| *names);
        let distribution = |([agent, interface, direction], hour): (&Names, &LatestHour)| Distribution {
            agent: agent.clone(),
            interface: interface.clone(),
            direction: direction.clone(),
            histogram: hour.bins.clone(),
        };
        let shown: Vec<Distribution> = hours.into_iter().map(distribution).collect();
        let hidden = self.hours.len() - shown.len() + self.dropped;
        (shown, hidden)
    }

    fn span(&self, zone: &jiff::tz::TimeZone) -> String {
        let starts = || self.hours.values().map(|hour| hour.starts_at);
        match (starts().min(), starts().max()) {
            (Some(first), Some(last)) if first == last => time_span(first, last + TimeDelta::hours(1), zone),
            (Some(_), _) => "the latest hour of each link".to_owned(),
            _ => "waiting for the first message".to_owned(),
        }
    }
}

/// The terminal while it is redrawn, or a pipe that gets one picture after the other.
struct View {
    is_terminal: bool,
    has_colours: bool,
    pictures: u64,
}

const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

impl View {
    fn new(command: &PlotHistogram) -> Result<Self, Failure> {
        // A terminal that is too small is an error before anything is drawn.
        command.picture.page()?;
        let out = io::stdout();
        let has_colours = AutoStream::choice(&out) != ColorChoice::Never;
        let view = Self { is_terminal: out.is_terminal(), has_colours, pictures: 0 };
        if view.is_terminal {
            let _ = out.lock().write_all(ENTER);
        }
        Ok(view)
    }

    fn text(&self, command: &PlotHistogram, hours: &LatestHours, page: Page) -> String {
        let (series, hidden) = hours.latest(page.rows.saturating_sub(6).clamp(1, LINKS_MAX));
        let plot = HistogramPlot {
            series: &series,
            span: hours.span(&command.picture.zone()),
            log_rates: command.log_rates,
            log_counts: command.log_counts,
            hidden,
        };
        let text = plot.text(page);
        if self.has_colours { text } else { anstream::adapter::strip_str(&text).to_string() }
    }

    fn draw(&mut self, command: &PlotHistogram, hours: &LatestHours) -> Result<io::Result<()>, Failure> {
        self.pictures += 1;
        let Some(size) = terminal().filter(|_| self.is_terminal) else {
            let text = self.text(command, hours, command.picture.page()?);
            return Ok(write(&format!("{text}\n")));
        };
        // A window that was made too small may be enlarged: that is no error.
        let frame = match command.picture.page() {
            Ok(page) => self.text(command, hours, page),
            Err(failure) => format!("{failure}\n"),
        };
        let mut out = String::from("\x1b[H");
        for line in frame.lines().take(size.rows.saturating_sub(1)) {
            out.extend([line, "\x1b[K\r\n"]);
        }
        out.push_str("\x1b[J");
        Ok(write(&out))
    }

    /// Leaves the terminal as it was, with the last picture below.
    fn end(self, command: &PlotHistogram, hours: &LatestHours) -> Result<io::Result<()>, Failure> {
        if !self.is_terminal {
            return Ok(Ok(()));
        }
        let text = command.picture.page().map(|page| self.text(command, hours, page)).unwrap_or_default();
        drop(self);
        Ok(write(&text))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = io::stdout().lock().write_all(LEAVE);
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(interface: &str, hour: u32, version: i64, seconds: u64) -> PublishedHour {
        let json = serde_json::json!({
            "agent": "gw-1", "interface": interface, "direction": "rx", "starts_at": format!("2026-11-28T{hour:02}:00:00Z"),
            "duration_s": 3600, "version": version, "windows": 1, "measured_s": seconds, "unmeasured_s": 0, "bytes": 1,
            "min_bps": 1000, "mean_bps": 1000, "max_bps": 2000, "p50_bps": 1000, "p95_bps": 2000, "p99_bps": 2000,
            "bins": [[1000, 2000, seconds]], "histogram": "",
        });
        serde_json::from_value(json).unwrap()
    }

    fn shown(hours: &LatestHours) -> Vec<(String, u64)> {
        let (series, _) = hours.latest(99);
        series.into_iter().map(|series| (series.interface, series.histogram.measured_s)).collect()
    }

    #[test]
    fn a_newer_version_or_hour_replaces_and_an_older_one_changes_nothing() {
        let mut hours = LatestHours::default();
        assert!(hours.add(hour("eth0", 10, 2, 600)));
        assert!(!hours.add(hour("eth0", 10, 2, 600)), "a copy");
        assert!(!hours.add(hour("eth0", 10, 1, 300)), "an older version");
        assert!(hours.add(hour("eth0", 11, 1, 60)));
        assert!(!hours.add(hour("eth0", 10, 3, 900)), "a late window of the hour before");
        assert!(hours.add(hour("eth1", 10, 1, 300)));
        assert_eq!(shown(&hours), [("eth0".to_owned(), 60), ("eth1".to_owned(), 300)]);
    }

    #[test]
    fn memory_is_bounded_by_links_and_bins() {
        let mut hours = LatestHours::default();
        for at in 0..LINKS_MAX + 5 {
            assert!(hours.add(hour(&format!("eth{at:03}"), 10, 1, 1)));
        }
        assert_eq!((hours.hours.len(), hours.dropped), (LINKS_MAX, 5));
        assert!(!hours.hours.keys().any(|names| names[1] == "eth000"), "the one that changed first gave way");
        let mut large = hour("eth0", 10, 1, 1);
        large.bins = vec![(0, 1, 1); BINS_MAX + 1];
        assert!(!hours.add(large));
        assert_eq!(hours.latest(3).1, LINKS_MAX + 5 - 3);
    }
}
