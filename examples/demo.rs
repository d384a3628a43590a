//! The whole pipeline in one process, with nothing to install: this host's real counters, real traffic that breaches a
//! limit, the journal, a Kafka broker (librdkafka's own, in memory), the consumer, and SQLite; rates and their distribution too.
//!
//! The traffic goes over a link of its own, a veth pair to a network namespace, where the demo may make one; or else over the
//! loopback, with a limit above what is there already. It says which.
//!
//! ```text
//! cargo run --release --example demo -- --seconds 30
//! ```

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use clap::Parser;
use highwater::agent::config::Settings as AgentSettings;
use highwater::agent::event_system::{ObserveError, Observer};
use highwater::agent::run::{Outcome, Run, run as run_agent};
use highwater::config::Layers;
use highwater::consumer::config::Settings as ConsumerSettings;
use highwater::consumer::run::{Options, StoredEvent, run as run_consumer};
use highwater::message::{Body, Breach, Event};
use highwater::process::clock::{Clock as _, SystemClock};
use highwater::process::host::ServiceEnvironment;
use highwater::process::signals::SignalPipe;
use highwater::process::systemd::Directories;
use highwater::units::{BitRate, ByteCount, lasting};
use rdkafka::mocking::MockCluster;

use self::link::Link;
use self::pictures::Pictures;

#[path = "demo/link.rs"]
mod link;
#[path = "demo/pictures.rs"]
mod pictures;

/// Shows a breach on its way from this host's counters to a row.
#[derive(Parser)]
struct Arguments {
    /// Time to run, in seconds: at least 15
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(15..))]
    seconds: u64,
    /// Database file; an existing one is replaced
    #[arg(long, default_value = "highwater-demo.db")]
    database: PathBuf,
}

const TOPIC: &str = "highwater.events";
/// Topics of rates and of histograms.
const BESIDE: [&str; 2] = ["highwater.rates", "highwater.histograms"];
/// Width of the picture of a rate, at the burst and a bit.
const BAR_CELLS: u64 = 26;

/// Length of a line below the header.
const LINE_CHARS: usize = 76;

/// Kind of the events that carry rates.
const RATES: &str = "rates";

/// Ignores an error: nothing can be done about a closed terminal.
macro_rules! say {
    ($($text:tt)*) => {{ let _ = writeln!(anstream::stdout(), $($text)*); }};
}

/// Events of the agent and rows of the consumer, for the main thread to print.
enum News {
    /// The agent has registered an event.
    Registered(Arc<Event>),
    /// The consumer has stored one.
    Stored { partition: i32, offset: i64, kind: String },
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    // The table below tells what the log would.
    highwater::process::logging::start(log::LevelFilter::Error);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }

    let broker = MockCluster::new(1)?;
    for topic in [TOPIC].iter().chain(&BESIDE) {
        broker.create_topic(topic, 1, 1)?;
    }
    let link = Link::open()?;
    let state = tempfile::tempdir()?;
    let agent_settings = agent_settings(&broker.bootstrap_servers(), state.path(), &link)?;
    let consumer_settings = consumer_settings(&broker.bootstrap_servers(), &arguments.database)?;

    let since = SystemClock::default().wall();
    let pictures = Pictures { database: &arguments.database, link: &link, since };
    print_header(&agent_settings, &arguments, &link);
    let (news, heard) = channel();
    let signals = SignalPipe::new()?;
    let stop_agent = signals.stop_handle()?;
    let agent = std::thread::spawn({
        let news = news.clone();
        move || agent(agent_settings, &signals, news)
    });
    let stop_consumer = Arc::new(AtomicBool::new(false));
    let consumer = std::thread::spawn({
        let stop = Arc::clone(&stop_consumer);
        move || consumer(&consumer_settings, &stop, &news)
    });
    let quiet = AtomicBool::new(false);
    let length = Duration::from_secs(arguments.seconds);
    let mut shown = Shown { started: None, pictures: &pictures };
    let (registered, stored) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| link.send(length, &quiet));
        let counted = watch(length, &stop, &heard, &mut shown);
        quiet.store(true, Ordering::Relaxed);
        traffic.join().map_err(|_| "the traffic's thread died")??;
        counted
    })?;
    stop_agent.stop();
    let outcome = agent.join().map_err(|_| "the agent's thread died")??;
    let (registered, stored) = wait_for_rows(&heard, registered, stored, outcome.delivered, &mut shown);
    stop_consumer.store(true, Ordering::Relaxed);
    consumer.join().map_err(|_| "the consumer's thread died")??;
    if let Some(picture) = pictures.rate()? {
        print_picture(&picture);
    }
    print_summary(&arguments.database, registered, &outcome, stored)
}

fn agent_settings(brokers: &str, state: &Path, link: &Link) -> Result<AgentSettings, Box<dyn Error>> {
    let Link { name, direction, limit, .. } = link;
    let text = format!(
        "state_dir = \"{}\"\n[interfaces]\ninclude = [\"{name}\"]\n[rates]\nwindow = \"10s\"\nmax_delay = \"1s\"\n\
         [[limit]]\nname = \"demo\"\ninterface = \"{name}\"\ndirection = \"{direction}\"\nraise_at = \"{limit}\"\nfor = \"2s\"\nclear_for = \"2s\"\n\
         update_every = \"3s\"\n[flush]\ninterval = \"5s\"\nurgent = [\"warning\", \"critical\"]\n\
         [kafka]\nbrokers = \"{brokers}\"\ntopic = \"{TOPIC}\"\n",
        state.display()
    );
    Ok(AgentSettings::new(&Layers::from_text("demo", &text), &ServiceEnvironment::read())?)
}

fn consumer_settings(brokers: &str, database: &Path) -> Result<ConsumerSettings, Box<dyn Error>> {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let text = format!(
        "[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{TOPIC}\"\n[store]\nurl = \"sqlite:{}\"\n",
        database.display()
    );
    Ok(ConsumerSettings::new(&Layers::from_text("demo", &text), &Directories::default())?)
}

/// The observer that any program can plug in: here it tells the main thread.
struct Messenger(Sender<News>);

impl Observer for Messenger {
    fn name(&self) -> &'static str {
        "demo"
    }

    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
        events.iter().try_for_each(|event| self.0.send(News::Registered(Arc::clone(event))).map_err(Into::into))
    }
}

fn agent(settings: AgentSettings, signals: &SignalPipe, news: Sender<News>) -> Result<Outcome, String> {
    let observers: Vec<Box<dyn Observer>> = vec![Box::new(Messenger(news))];
    let reload = || Err("the demo has no configuration to read again".to_owned());
    run_agent(settings, Run { signals, duration: None, observers, reload: &reload }).map_err(|error| error.to_string())
}

fn consumer(settings: &ConsumerSettings, stop: &AtomicBool, news: &Sender<News>) -> Result<(), String> {
    let mut tell = |stored: &StoredEvent<'_>| {
        let StoredEvent { partition, offset, event, .. } = *stored;
        // The receiver is gone only at the very end.
        let _ = news.send(News::Stored { partition, offset, kind: event.body.kind().to_owned() });
    };
    run_consumer(settings, Options::default(), &mut tell, stop).map_err(|error| error.to_string())
}

/// Rows that the table has shown so far.
struct Shown<'a> {
    started: Option<Instant>,
    pictures: &'a Pictures<'a>,
}

/// Prints a line a second, and what happens between; how many events were registered and stored.
fn watch(
    length: Duration,
    stop: &AtomicBool,
    heard: &Receiver<News>,
    shown: &mut Shown<'_>,
) -> Result<(u64, u64), Box<dyn Error>> {
    let started = *shown.started.insert(Instant::now());
    let mut meter = shown.pictures.link.meter()?;
    let (mut registered, mut stored, mut second) = (0, 0, 0);
    while started.elapsed() < length && !stop.load(Ordering::Relaxed) {
        let next = Duration::from_secs(second + 1);
        while let Some(left) = next.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            match heard.recv_timeout(left.min(Duration::from_millis(200))) {
                Ok(news) => count(shown, &news, &mut registered, &mut stored),
                Err(_) if stop.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
        }
        second += 1;
        if let Some(rate) = meter.rate()? {
            print_rate(shown, rate);
        }
    }
    Ok((registered, stored))
}

/// Events that are delivered and not yet stored are on their way: a few seconds at most.
fn wait_for_rows(
    heard: &Receiver<News>,
    mut registered: u64,
    mut stored: u64,
    delivered: u64,
    shown: &mut Shown<'_>,
) -> (u64, u64) {
    while stored < delivered {
        match heard.recv_timeout(Duration::from_secs(10)) {
            Ok(news) => count(shown, &news, &mut registered, &mut stored),
            Err(_) => break,
        }
    }
    // The window that the end cut short comes after the last event.
    while let Ok(news) = heard.recv_timeout(Duration::from_secs(2)) {
        count(shown, &news, &mut registered, &mut stored);
    }
    (registered, stored)
}

fn count(shown: &Shown<'_>, news: &News, registered: &mut u64, stored: &mut u64) {
    match news {
        // Rates are numbered for themselves, and reported below.
        News::Registered(event) if event.body.kind() == RATES => {}
        News::Stored { partition, offset, kind } if kind == RATES => {
            print_stored(shown, *partition, *offset, kind);
            match shown.pictures.histogram() {
                Ok(Some(picture)) => print_picture(&picture),
                Ok(None) => {}
                Err(error) => say!("{} {error}", stamp(shown)),
            }
        }
        News::Registered(event) => {
            *registered += 1;
            print_event(shown, event);
        }
        News::Stored { partition, offset, kind } => {
            *stored += 1;
            print_stored(shown, *partition, *offset, kind);
        }
    }
}

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

fn print_header(settings: &AgentSettings, arguments: &Arguments, link: &Link) {
    say!(
        "{BOLD}Highwater{BOLD:#}: the whole pipeline in one process, for {} s (Ctrl-C ends it sooner)",
        arguments.seconds
    );
    say!();
    say!("  counters ─► rate ─► limit ─► journal ─► Kafka, in memory ─► {}", arguments.database.display());
    link.words.iter().for_each(|line| say!("  {DIM}{line}{DIM:#}"));
    wrapped(&format!("Limit {}.", settings.limits[0])).iter().for_each(|line| say!("  {DIM}{line}{DIM:#}"));
    say!();
    say!("  {BOLD}time   where     what{BOLD:#}");
}

/// Divides a text into lines that fit a terminal of 80 columns.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < LINE_CHARS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn stamp(shown: &Shown<'_>) -> String {
    let elapsed = shown.started.map_or(Duration::ZERO, |started| started.elapsed());
    format!("  {DIM}{:02}:{:02}{DIM:#} ", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

fn print_rate(shown: &Shown<'_>, rate: BitRate) {
    let Link { limit, burst, .. } = shown.pictures.link;
    let cells = (rate.bps() * (BAR_CELLS - 2) / burst.bps()).min(BAR_CELLS) as usize;
    let mark = (limit.bps() * (BAR_CELLS - 2) / burst.bps()) as usize;
    let bar: String = (0..BAR_CELLS as usize)
        .map(|cell| match (cell < cells, cell == mark) {
            (true, _) => '█',
            (false, true) => '│',
            (false, false) => ' ',
        })
        .collect();
    let style = if rate >= *limit { RED } else { GREEN };
    say!("{} {DIM}counter{DIM:#}   {style}{bar}{style:#} {:>12}", stamp(shown), rate.to_string());
}

fn print_picture(picture: &str) {
    say!();
    picture.lines().for_each(|line| say!("  {line}"));
    say!();
}

fn print_event(shown: &Shown<'_>, event: &Event) {
    let (style, what) = match &event.body {
        Body::BreachRaised(breach) => {
            (RED, format!("▲ bandwidth exceeded: {} on {}", BitRate::from_bps(breach.rate_bps), breach.interface))
        }
        Body::BreachUpdated(breach) => {
            let excess = ByteCount::from_bytes(breach.excess_bytes);
            let still = format!("exceeded for {}, {excess} over so far", lasted(breach));
            (YELLOW, format!("● {}", breach.detail.as_ref().unwrap_or(&still)))
        }
        Body::BreachCleared(breach) => {
            let peak = BitRate::from_bps(breach.peak_bps);
            (GREEN, format!("▼ back under the limit after {}, peak {peak}", lasted(breach)))
        }
        other => (DIM, format!("· {}", other.kind().replace('_', " "))),
    };
    say!("{} {BOLD}journal{BOLD:#}   {style}{what}{style:#} {DIM}event {}{DIM:#}", stamp(shown), event.id.seq);
}

fn lasted(breach: &Breach) -> String {
    lasting(Duration::from_millis(breach.duration_ms))
}

fn print_stored(shown: &Shown<'_>, partition: i32, offset: i64, kind: &str) {
    say!("{} {CYAN}database{CYAN:#}  ✓ {kind} {DIM}from partition {partition}, offset {offset}{DIM:#}", stamp(shown));
}

fn print_summary(database: &Path, registered: u64, outcome: &Outcome, stored: u64) -> Result<(), Box<dyn Error>> {
    say!();
    let whole = registered == outcome.delivered && outcome.delivered == stored;
    let style = if whole { GREEN } else { RED };
    say!(
        "  {style}{registered} events accepted, {} acknowledged by Kafka, {stored} stored{style:#}, {} ticks, {} skipped",
        outcome.delivered,
        outcome.ticks,
        outcome.skipped
    );
    say!();
    let rows = rusqlite::Connection::open(database)?;
    let sql = "SELECT interface, direction, substr(started_at, 12, 8), lasted, peak_bps, mean_bps, excess_bytes, state
               FROM breaches ORDER BY started_at";
    let mut statement = rows.prepare(sql)?;
    let mut breaches = statement.query([])?;
    let titles = ["link", "way", "began (UTC)", "lasted", "peak", "mean", "over limit"];
    let [link, way, began, lasted, peak, mean, excess] = titles;
    say!("  {BOLD}{link:<10} {way:<4} {began:<11} {lasted:>8} {peak:>11} {mean:>11} {excess:>11}{BOLD:#}");
    while let Some(row) = breaches.next()? {
        let rate = |column| row.get::<_, i64>(column).map(|bps| BitRate::from_bps(bps as u64).to_string());
        let excess = ByteCount::from_bytes(row.get::<_, i64>(6)? as u64).to_string();
        let open = if row.get::<_, String>(7)? == "open" { "  still open" } else { "" };
        say!(
            "  {:<10} {:<4} {:<11} {:>8} {:>11} {:>11} {excess:>11}{open}",
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            lasting(Duration::try_from_secs_f64(row.get(3)?)?),
            rate(4)?,
            rate(5)?
        );
    }
    say!();
    say!("  {BOLD}What to try next{BOLD:#}");
    say!("    sqlite3 -box {} 'SELECT * FROM breaches'", database.display());
    say!("    cargo run --release --bin highwater-consumer -- \\");
    say!("      plot rate --store sqlite:{}", database.display());
    say!("    cargo run --release --bin highwater-agent -- check -c systemd/agent.toml");
    say!("    tests/run    {DIM}# the same on a real Kafka and a real PostgreSQL{DIM:#}");
    if whole { Ok(()) } else { Err("not every accepted event became a row; this should never happen".into()) }
}
