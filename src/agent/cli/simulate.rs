//! `highwater-agent simulate`.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use indicatif::ProgressBar;

use super::common::{Absent, Common};
use super::outlet::{self, ToFile, ToTerminal, file_name};
use crate::agent::config::Settings;
use crate::agent::counters::synthetic::Shape;
use crate::agent::counters::{self, CounterSource, Reading, SourceChoice};
use crate::agent::courier::{Courier, Delivery};
use crate::agent::detector::{Detections, Detector};
use crate::agent::event_system::{Draft, Observer};
use crate::agent::journal::FleetJournal;
use crate::agent::limit::{Level, Limit, Scope};
use crate::agent::run;
use crate::agent::simulate::{Fleet, TICK};
use crate::agent::watch::Selection;
use crate::clock::{Clock as _, SystemClock};
use crate::event::{Direction, Severity};
use crate::exit::{Failure, Status};
use crate::output::Format;
use crate::units::BitRate;

pub(super) const HELP: &str = "\
Made-up counters with daily curves, bursts, resets and flaps go through the same rates, limits, wire format and publisher as real
ones; their agents are called sim-000000 and so on. Each run adds rows: only the traffic follows from --seed, and its time is such
that it ends about now. Where nothing says otherwise, 1,000 events are made as fast as Kafka takes them.

More than 250 agents take turns, 250 at a time, so that memory stays bounded (64 MB); with --time-scale all live at once.

With --on the traffic is real: the limit is put on an interface of this host, low enough to be crossed by whatever it carries.

Exit code: 0 if all was delivered, 1 if not, 69 if Kafka could not be asked.

Examples:
  highwater-agent simulate --dry-run --events 20
  highwater-agent simulate --agents 100 --events 1000000 -t highwater.events --wait-stored highwater
  highwater-agent simulate --duration 1d --time-scale 1440         # a day in a minute
  highwater-agent simulate --events 1000000 --file events.jsonl    # for kcat -P -l events.jsonl
  highwater-agent simulate --on eth0 --limit '1 kbit/s' --duration 30s";

#[derive(Args, Debug)]
pub(super) struct Simulate {
    #[command(flatten)]
    common: Common,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// So many agents
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    agents: u32,
    /// So many network links each has
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    interfaces: u32,
    /// Another seed, other traffic
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// End after so many events [default: 1000, where there is no --duration]
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// End after so much time of theirs: 30s, 1d
    #[arg(long, value_name = "TIME", value_parser = crate::cli::time)]
    duration: Option<Duration>,
    /// At most so many events a second [default: as many as Kafka takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Their time goes so many times faster than ours; 1 is live [default: as fast as it goes]
    #[arg(long, value_name = "N")]
    time_scale: Option<f64>,
    /// What is too much on a link, received or sent [default: 20 Mbit/s; with --on 1 kbit/s]
    #[arg(long, value_name = "RATE")]
    limit: Option<BitRate>,
    /// Write the events to a file instead, as JSON, a line each; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    file: Option<PathBuf>,
    /// Show the events instead
    #[arg(long)]
    dry_run: bool,
    /// Watch this interface of this host instead of made-up ones, for --duration [default: 30s]
    #[arg(long, value_name = "INTERFACE", conflicts_with_all = ["time_scale", "rate"])]
    on: Option<String>,
    /// At the end, wait until this consumer group has stored all of them
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["file", "dry_run"])]
    wait_stored: Option<String>,
}

const COLUMNS: &[&str] = &["events", "delivered", "failed", "seconds", "events_per_second", "last_offsets"];

/// So many agents live at once, as long as their time need not keep step with ours: at about 22 kB each, little beside what is
/// under way.
const LIVE_MAX: u32 = 250;
/// With --time-scale, where all have to.
const SCALED_MAX: u32 = 10_000;
const EVENTS: u64 = 1_000;
/// Where only --events is given: how many events a link makes in a second of its time, about.
const EVENTS_A_SECOND: f64 = 0.7;

impl Simulate {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.common.start_log();
        let settings = self.common.settings(Absent::MeansDefaults).map_err(Failure::config)?;
        let usage = |message: &str| Err(Failure::new(Status::Usage, message));
        if self.time_scale.is_some_and(|scale| !(scale.is_finite() && scale > 0.0)) {
            return usage("--time-scale is above 0: 1 is live, 1440 a day in a minute");
        }
        if self.time_scale.is_some() && self.agents > SCALED_MAX {
            return usage("with --time-scale all agents live at once: 10,000 at most");
        }
        let to_kafka = self.file.is_none() && !self.dry_run;
        if to_kafka {
            outlet::topic_is_there(&settings, &settings.publisher.topic)?;
        }
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        if let Some(file) = &self.file {
            observers.push(Box::new(ToFile::create(file)?));
        }
        if self.dry_run {
            observers.push(Box::new(ToTerminal::new(self.format)));
        }
        let publisher = to_kafka.then(|| settings.publisher.clone());
        let mut courier = Courier::new(FleetJournal::new(), publisher, observers)?;
        let clock = SystemClock::default();
        let began = clock.monotonic();
        let events_max =
            self.events.unwrap_or(if self.duration.is_some() || self.on.is_some() { u64::MAX } else { EVENTS });
        let bar = outlet::progress((events_max < u64::MAX).then_some(events_max), "events");
        match &self.on {
            Some(interface) => self.watch(interface, &settings, events_max, &mut courier, &bar)?,
            None => self.invent(events_max, &mut courier, &bar)?,
        }
        let delivery = courier.finish()?;
        bar.finish_and_clear();
        let took = clock.monotonic() - began;
        self.end(&settings, &delivery, took)
    }

    /// Some agents after others, second after second of theirs.
    fn invent(&self, events_max: u64, courier: &mut Courier, bar: &ProgressBar) -> Result<(), Failure> {
        let shape = Shape { seed: self.seed, interfaces: self.interfaces, troubles: true };
        let limits = [self.simulated_limit("*", BitRate::from_bps(20_000_000))];
        let live = if self.time_scale.is_some() { self.agents } else { LIVE_MAX };
        let start = self.start(events_max, live);
        let mut pace = Pace::new(self.rate);
        let mut first = 0;
        while first < self.agents && !courier.stopped() {
            let end = self.agents.min(first.saturating_add(live));
            let until = (u128::from(events_max) * u128::from(end) / u128::from(self.agents)) as u64;
            let mut fleet = Fleet::new(first..end, shape, &limits, start);
            let began = courier.clock.monotonic();
            let mut lived = Duration::ZERO;
            while pace.events < until && self.duration.is_none_or(|duration| lived < duration) && !courier.stopped() {
                if let Some(scale) = self.time_scale {
                    courier.wait(began + lived.div_f64(scale))?;
                }
                let mut drafts = fleet.tick().map_err(Failure::failed)?;
                drafts.truncate(usize::try_from(until - pace.events).unwrap_or(usize::MAX));
                pace.add(drafts, courier, bar)?;
                lived += TICK;
            }
            first = end;
        }
        Ok(())
    }

    /// When their time begins, so that it ends about when ours does.
    fn start(&self, events_max: u64, live: u32) -> DateTime<Utc> {
        let links = f64::from(self.agents.min(live)) * f64::from(self.interfaces);
        let turns = f64::from(self.agents.div_ceil(live));
        let guess = Duration::from_secs_f64((events_max as f64 / turns / links / EVENTS_A_SECOND).clamp(1.0, 1e9));
        let theirs = self.duration.unwrap_or(guess);
        let ours = self.time_scale.map_or(Duration::ZERO, |scale| theirs.div_f64(scale));
        let ahead = TimeDelta::from_std(theirs.saturating_sub(ours)).unwrap_or(TimeDelta::MAX);
        SystemClock::default().wall().checked_sub_signed(ahead).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Real counters, each second.
    fn watch(
        &self,
        interface: &str,
        settings: &Settings,
        events_max: u64,
        courier: &mut Courier,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let selection = Selection::new(&[interface.to_owned()], &[], &[]);
        let source = counters::open(SourceChoice::Auto, std::path::Path::new("/"), selection);
        let mut source: Box<dyn CounterSource> = source.map_err(Failure::failed)?;
        let limits = vec![self.simulated_limit(interface, BitRate::from_bps(1_000))];
        let mut detector = Detector::new(limits, TICK, fastrand::u64(..));
        let (mut reading, mut detections) = (Reading::default(), Detections::default());
        let mut pace = Pace::new(None);
        let clock = SystemClock::default();
        let boot_id = run::boot_id();
        let began = clock.monotonic();
        let mut deadline = began;
        let end = began + self.duration.unwrap_or(Duration::from_secs(30));
        while deadline <= end && pace.events < events_max && !courier.stopped() {
            courier.wait(deadline)?;
            source.read(&clock, &mut reading).map_err(Failure::failed)?;
            let now = run::stamp(&settings.agent, &boot_id, &clock);
            detector.observe(&reading, &now, &mut detections);
            if deadline == began && reading.counters.is_empty() {
                return Err(Failure::failed(format!("there is no interface {interface} on this host")));
            }
            let drafts = detections.bodies.drain(..).map(|body| Draft { stamp: now.clone(), body });
            pace.add(drafts.collect(), courier, bar)?;
            deadline += TICK;
        }
        Ok(())
    }

    fn simulated_limit(&self, pattern: &str, default: BitRate) -> Limit {
        let raise_at = self.limit.unwrap_or(default);
        Limit {
            name: "simulated".to_owned(),
            scope: Scope::Interface(pattern.to_owned()),
            directions: vec![Direction::Rx, Direction::Tx],
            raise_at: Level::Rate(raise_at),
            clear_at: Level::Rate(raise_at.percent(90.0)),
            hold: Duration::ZERO,
            clear_hold: Duration::ZERO,
            severity: Severity::Warning,
            update_every: TICK,
        }
    }

    fn end(&self, settings: &Settings, delivery: &Delivery, took: Duration) -> Result<(), Failure> {
        let seconds = (took.as_secs_f64() * 1_000.0).round() / 1_000.0;
        if let Some(file) = &self.file {
            self.common.note(&format!("{} events to {} in {seconds} s", delivery.events, file_name(file)));
            return Ok(());
        }
        if self.dry_run {
            self.common.note(&format!("{} events, none of them sent", delivery.events));
            return Ok(());
        }
        let pace = (delivery.delivered as f64 / took.as_secs_f64()).round();
        let values = vec![
            delivery.events.into(),
            delivery.delivered.into(),
            delivery.failed.into(),
            seconds.into(),
            (pace as u64).into(),
            outlet::offsets(delivery),
        ];
        outlet::print_record(self.format, COLUMNS, values)?;
        outlet::judged(delivery)?;
        if let Some(group) = &self.wait_stored {
            outlet::wait_stored(settings, group, &settings.publisher.topic, &delivery.last_offsets)?;
            self.common.note(&format!("{group} has stored all of them"));
        }
        Ok(())
    }
}

/// So many events a second, and no more.
struct Pace {
    rate: Option<u64>,
    began: Option<Duration>,
    events: u64,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self { rate, began: None, events: 0 }
    }

    fn add(&mut self, mut drafts: Vec<Draft>, courier: &mut Courier, bar: &ProgressBar) -> Result<(), Failure> {
        let Some(rate) = self.rate else {
            self.events += drafts.len() as u64;
            bar.inc(drafts.len() as u64);
            return courier.add(drafts);
        };
        let began = *self.began.get_or_insert_with(|| courier.clock.monotonic());
        // Ten portions a second are smooth enough.
        let portion = usize::try_from((rate / 10).max(1)).unwrap_or(usize::MAX);
        while !drafts.is_empty() && !courier.stopped() {
            courier.wait(began + Duration::from_secs_f64(self.events as f64 / rate as f64))?;
            let rest = drafts.split_off(drafts.len().min(portion));
            let now = std::mem::replace(&mut drafts, rest);
            self.events += now.len() as u64;
            bar.inc(now.len() as u64);
            courier.add(now)?;
        }
        Ok(())
    }
}
