use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use indicatif::ProgressBar;

use super::common::Common;
use crate::agent::config::Settings;
use crate::agent::counters::filter::InterfaceFilter;
use crate::agent::counters::{self, CounterSource, Reading, SourceChoice};
use crate::agent::detector::limit::{Level, Limit, Scope};
use crate::agent::detector::{Detections, Detector};
use crate::agent::event_system::{Observer, stamp};
use crate::agent::toolbox::FleetJournal;
use crate::agent::toolbox::sender::{Delivery, EventSender};
use crate::agent::toolbox::simulate::{BreachCounts, Fleet, FleetShape, Pace, Schedule};
use crate::agent::toolbox::sinks::{self, Printer, file_name};
use crate::cli::output::OutputFormat;
use crate::message::{Direction, NewEvent, Severity};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::{Failure, Status};
use crate::process::host::boot_id;
use crate::process::random::random;
use crate::units::{BitRate, counted};

pub(super) const HELP: &str = "\
Simulates a fleet of agents called sim-000000 and so on: mostly quiet links with
bursts of seconds to minutes, more of them in working hours (UTC), counters that
are reset, and links that come and go. The same code processes them as real
traffic. By default, it sends 1,000 events of 20 agents as fast as Kafka accepts
them, from the week before now: the last are hours to days old, since how long
it takes them to exceed the limit so often is not known beforehand; with
--duration 7d the last are of now. More events make the week busier, fewer make
it shorter. Each run adds rows; the traffic depends on --seed.

A breach is raised after 3 s above --limit, updated every 10 s, and cleared
after 5 s below 90 % of it.

At most 250 agents are simulated at the same time, so that memory stays bounded
(64 MB); with --time-scale, all of them.

With --on, the traffic is real: the limit applies to an interface of this host,
and is low enough to be exceeded by any traffic.

Exit code: 0 if all was delivered; 1 if not (Kafka rejected the rest, or
acknowledged nothing for 5 min); 69 if Kafka could not be reached.

Examples:
  highwater-agent simulate --dry-run --events 20
  highwater-agent simulate --agents 100 --events 1000000 --wait-stored highwater
  highwater-agent simulate --duration 1d --time-scale 1440  # a day in a minute
  highwater-agent simulate --events 1000000 --file events.jsonl
  kcat -P -b localhost:9092 -t highwater.events -l events.jsonl
  highwater-agent simulate --on eth0 --limit '1 kbit/s' --duration 30s";

#[derive(Args, Debug)]
pub(super) struct Simulate {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    /// Number of agents
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    agents: u32,
    /// Links per agent
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    interfaces: u32,
    /// Random seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Stop after this many events [default: 1000 without --duration]
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Stop after this much simulated time: 30s, 1d
    #[arg(long, value_name = "TIME", value_parser = crate::cli::time)]
    duration: Option<Duration>,
    /// At most this many events per second [default: as many as Kafka takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Speed-up over real time; 1 is live [default: as fast as possible]
    #[arg(long, value_name = "N")]
    time_scale: Option<f64>,
    /// Limit on each link, rx and tx [default: 80 Mbit/s, --on: 1 kbit/s]
    #[arg(long, value_name = "RATE")]
    limit: Option<BitRate>,
    /// Write the events to a file as JSON Lines instead; - is stdout
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    file: Option<PathBuf>,
    /// Print the events instead of sending them
    #[arg(long)]
    dry_run: bool,
    /// Watch a real interface, for --duration [default: 30s]
    #[arg(long, value_name = "INTERFACE", conflicts_with_all = ["time_scale", "rate"])]
    on: Option<String>,
    /// Wait at the end until this consumer group has stored them all
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["file", "dry_run"])]
    wait_stored: Option<String>,
}

const COLUMNS: &[&str] = &["events", "delivered", "failed", "seconds", "events_per_second", "last_offsets"];

/// Maximum number of simultaneous agents without --time-scale: at about 22 kB each, little beside the events in flight.
const LIVE_MAX: u32 = 250;
const SCALED_MAX: u32 = 10_000;
const EVENTS: u64 = 1_000;
const TICK: Duration = Duration::from_secs(1);
const PORTION: usize = 500;

impl Simulate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        // Only real traffic of this host is published under the agent's own name.
        if let (Some(_), Some(why)) = (&self.on, &settings.name_error) {
            return Err(Failure::config(why.as_str()));
        }
        let usage = |message: &str| Err(Failure::new(Status::Usage, message));
        if self.time_scale.is_some_and(|scale| !(scale.is_finite() && scale > 0.0)) {
            return usage("--time-scale is above 0: 1 is live, 1440 a day in a minute");
        }
        if self.time_scale.is_some() && self.agents > SCALED_MAX {
            return usage("with --time-scale all agents live at once: 10,000 at most");
        }
        let to_kafka = self.file.is_none() && !self.dry_run;
        if to_kafka {
            sinks::topic_is_there(&settings, &settings.publisher.topic)?;
        }
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        if let Some(file) = &self.file {
            observers.push(Box::new(Printer::to_file(file)?));
        }
        if self.dry_run {
            observers.push(Box::new(Printer::to_terminal(self.format)));
        }
        let publisher = to_kafka.then(|| settings.publisher.clone());
        let mut sender = EventSender::new(FleetJournal::new(), publisher, observers)?;
        let clock = SystemClock::default();
        let began = clock.monotonic();
        let events_max =
            self.events.unwrap_or(if self.duration.is_some() || self.on.is_some() { u64::MAX } else { EVENTS });
        let bar = sinks::progress((events_max < u64::MAX).then_some(events_max), "events");
        let seen = match &self.on {
            Some(interface) => Some(self.watch(interface, &settings, events_max, &mut sender, &bar)?),
            None => {
                self.simulate(events_max, &mut sender, &bar)?;
                None
            }
        };
        let delivery = sender.finish()?;
        bar.finish_and_clear();
        let took = clock.monotonic() - began;
        self.end(&settings, &delivery, took)?;
        seen.iter().for_each(|seen| self.common.note(seen));
        sinks::check_delivered(&delivery, "event")
    }

    fn simulate(&self, events_max: u64, sender: &mut EventSender, bar: &ProgressBar) -> Result<(), Failure> {
        let limits = [self.simulated_limit(
            "*",
            BitRate::from_bps(80_000_000),
            (Duration::from_secs(3), Duration::from_secs(5)),
        )];
        let live = if self.time_scale.is_some() { self.agents } else { self.agents.min(LIVE_MAX) };
        let (schedule, start) = self.schedule(events_max, live);
        let shape = FleetShape { seed: self.seed, interfaces: self.interfaces, schedule };
        let mut pace = Pace::new(self.rate);
        let mut first = 0;
        while first < self.agents && !sender.stopped() {
            let end = self.agents.min(first.saturating_add(live));
            let until = (u128::from(events_max) * u128::from(end) / u128::from(self.agents)) as u64;
            let mut fleet = Fleet::new(first..end, shape, &limits, start);
            let began = sender.clock.monotonic();
            while pace.events < until && !sender.stopped() {
                let left = usize::try_from(until - pace.events).unwrap_or(usize::MAX);
                let mut new_events = self.portion(&mut fleet, left.min(PORTION), sender, began)?;
                if new_events.is_empty() {
                    break;
                }
                new_events.truncate(left);
                pace.add(new_events, sender, bar)?;
            }
            first = end;
        }
        Ok(())
    }

    fn portion(
        &self,
        fleet: &mut Fleet,
        wanted: usize,
        sender: &mut EventSender,
        began: Duration,
    ) -> Result<Vec<NewEvent>, Failure> {
        let mut new_events = Vec::new();
        while new_events.len() < wanted && !sender.stopped() && self.duration.is_none_or(|end| fleet.next_at() < end) {
            if let Some(scale) = self.time_scale {
                if !new_events.is_empty() {
                    break;
                }
                sender.wait(began + fleet.next_at().div_f64(scale))?;
            }
            fleet.tick(&mut new_events);
        }
        Ok(new_events)
    }

    fn schedule(&self, events_max: u64, live: u32) -> (Schedule, DateTime<Utc>) {
        let now = SystemClock::default().wall();
        let schedule = match self.duration {
            Some(duration) => Schedule::lasting(duration),
            None => {
                let turns = u64::from(self.agents.div_ceil(live));
                Schedule::of_events(events_max / turns, f64::from(live) * f64::from(self.interfaces), now)
            }
        };
        let ours = self.time_scale.map_or(Duration::ZERO, |scale| schedule.lasts.div_f64(scale));
        let ahead = TimeDelta::from_std(schedule.lasts.saturating_sub(ours)).unwrap_or(TimeDelta::MAX);
        (schedule, now.checked_sub_signed(ahead).unwrap_or(DateTime::UNIX_EPOCH))
    }

    fn watch(
        &self,
        interface: &str,
        settings: &Settings,
        events_max: u64,
        sender: &mut EventSender,
        bar: &ProgressBar,
    ) -> Result<String, Failure> {
        // Selected as by a limit: an `include` that matches nothing would log a warning.
        let selection = InterfaceFilter::new(&[], &[], &[interface.to_owned()]);
        let source = counters::open(SourceChoice::Auto, std::path::Path::new("/"), selection);
        let mut source: Box<dyn CounterSource> = source.map_err(Failure::failed)?;
        let limit = self.simulated_limit(interface, BitRate::from_bps(1_000), (Duration::ZERO, Duration::ZERO));
        let mut seen = BreachCounts::new(interface, limit.raise_at.to_string());
        let mut detector = Detector::new(vec![limit], TICK, random());
        let (mut reading, mut detections) = (Reading::default(), Detections::default());
        let mut pace = Pace::new(None);
        let clock = SystemClock::default();
        let boot_id = boot_id();
        let began = clock.monotonic();
        let mut deadline = began;
        let end = began + self.duration.unwrap_or(Duration::from_secs(30));
        while deadline <= end && pace.events < events_max && !sender.stopped() {
            sender.wait(deadline)?;
            source.read(&clock, &mut reading).map_err(Failure::failed)?;
            let now = stamp(&settings.agent, &boot_id, &clock);
            detector.observe(&reading, &now, &mut detections);
            if deadline == began && reading.counters.is_empty() {
                return Err(Failure::failed(format!("there is no interface {interface} on this host")));
            }
            detections.bodies.iter().for_each(|body| seen.count(body));
            let new_events = detections.bodies.drain(..).map(|body| NewEvent { stamp: now.clone(), body });
            pace.add(new_events.collect(), sender, bar)?;
            deadline += TICK;
        }
        Ok(seen.line())
    }

    fn simulated_limit(&self, pattern: &str, default: BitRate, (hold, clear_hold): (Duration, Duration)) -> Limit {
        let raise_at = self.limit.unwrap_or(default);
        Limit {
            name: "simulated".to_owned(),
            scope: Scope::Interface(pattern.to_owned()),
            directions: vec![Direction::Rx, Direction::Tx],
            raise_at: Level::Rate(raise_at),
            clear_at: Level::Rate(raise_at.percent(90.0)),
            hold,
            clear_hold,
            severity: Severity::Warning,
            update_every: Duration::from_secs(10),
        }
    }

    fn end(&self, settings: &Settings, delivery: &Delivery, took: Duration) -> Result<(), Failure> {
        let seconds = (took.as_secs_f64() * 1_000.0).round() / 1_000.0;
        if let Some(file) = &self.file {
            self.common.note(&format!("{} to {} in {seconds} s", counted(delivery.events, "event"), file_name(file)));
            return Ok(());
        }
        if self.dry_run {
            self.common.note(&format!("{}, not sent", counted(delivery.events, "event")));
            return Ok(());
        }
        let pace = (delivery.delivered as f64 / took.as_secs_f64()).round();
        let values = vec![
            delivery.events.into(),
            delivery.delivered.into(),
            delivery.failed.into(),
            seconds.into(),
            (pace as u64).into(),
            sinks::offsets(delivery),
        ];
        sinks::print_record(self.format, COLUMNS, values)?;
        if let Some(group) = self.wait_stored.as_ref().filter(|_| delivery.failed == 0) {
            sinks::wait_stored(settings, group, &settings.publisher.topic, &delivery.last_offsets)?;
            self.common.note(&format!("{group} has stored all of them"));
        }
        Ok(())
    }
}
