//! The whole pipeline in one process, with nothing to install: this host's real counters, real traffic over the loopback that
//! breaches a limit, the journal, a Kafka broker (librdkafka's own, in memory), the consumer, and SQLite.
//!
//! ```text
//! cargo run --release --example demo -- --seconds 30
//! ```

use std::error::Error;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use clap::Parser;
use highwater::agent::config::Settings as AgentSettings;
use highwater::agent::control::Control;
use highwater::agent::counters::filter::InterfaceFilter;
use highwater::agent::counters::{self, CounterSource, LinkChange, Reading, SourceChoice};
use highwater::agent::event_system::{ObserveError, Observer};
use highwater::agent::rate::bit_rate;
use highwater::agent::run::{Outcome, Run, run as run_agent};
use highwater::agent::surroundings::surroundings;
use highwater::clock::SystemClock;
use highwater::config::Layers;
use highwater::consumer::config::Settings as ConsumerSettings;
use highwater::consumer::run::{Options, StoredEvent, run as run_consumer};
use highwater::event::{Body, Breach, Event};
use highwater::service::Directories;
use highwater::units::{BitRate, ByteCount, lasting};
use rdkafka::mocking::MockCluster;

/// Shows a breach on its way from this host's counters to a row.
#[derive(Parser)]
struct Arguments {
    /// How long it runs: at least 15
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(15..))]
    seconds: u64,
    /// Database file; an existing one is replaced
    #[arg(long, default_value = "highwater-demo.db")]
    database: PathBuf,
}

const TOPIC: &str = "highwater.events";
/// The limit that is going to be breached, and the traffic that does it.
const LIMIT: BitRate = BitRate::from_bps(40_000_000);
const BURST: BitRate = BitRate::from_bps(100_000_000);
/// As many bytes as a loopback packet carries with room to spare.
const PAYLOAD_BYTES: usize = 32_000;
/// How wide the picture of a rate is, at [`BURST`] and a bit.
const BAR_CELLS: u64 = 26;

/// What the main thread prints, as it happens.
enum News {
    /// The agent has registered an event.
    Registered(Arc<Event>),
    /// The consumer has stored one.
    Stored { partition: i32, offset: i64, kind: String },
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    // The table below tells what the log would.
    highwater::logging::start(log::LevelFilter::Error);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }

    let broker = MockCluster::new(1)?;
    broker.create_topic(TOPIC, 1, 1)?;
    let state = tempfile::tempdir()?;
    let agent_settings = agent_settings(&broker.bootstrap_servers(), state.path())?;
    let consumer_settings = consumer_settings(&broker.bootstrap_servers(), &arguments.database)?;

    print_header(&agent_settings, &arguments);
    let (news, heard) = channel();
    let control = Control::new()?;
    let stop_agent = control.stopper()?;
    let agent = std::thread::spawn({
        let news = news.clone();
        move || agent(agent_settings, &control, news)
    });
    let stop_consumer = Arc::new(AtomicBool::new(false));
    let consumer = std::thread::spawn({
        let stop = Arc::clone(&stop_consumer);
        move || consumer(&consumer_settings, &stop, &news)
    });
    let quiet = Arc::new(AtomicBool::new(false));
    let traffic = std::thread::spawn({
        let (quiet, length) = (Arc::clone(&quiet), Duration::from_secs(arguments.seconds));
        move || traffic(length, &quiet)
    });

    let mut shown = Shown::default();
    let (registered, stored) = watch(Duration::from_secs(arguments.seconds), &stop, &heard, &mut shown)?;
    quiet.store(true, Ordering::Relaxed);
    stop_agent.stop();
    let outcome = agent.join().map_err(|_| "the agent's thread died")??;
    let _ = traffic.join().map_err(|_| "the traffic's thread died")?;
    let (registered, stored) = wait_for_rows(&heard, registered, stored, outcome.delivered, &mut shown);
    stop_consumer.store(true, Ordering::Relaxed);
    consumer.join().map_err(|_| "the consumer's thread died")??;
    print_summary(&arguments.database, registered, &outcome, stored)
}

fn agent_settings(brokers: &str, state: &Path) -> Result<AgentSettings, Box<dyn Error>> {
    let text = format!(
        "state_dir = \"{}\"\n[interfaces]\ninclude = [\"lo\"]\n\
         [[limit]]\nname = \"demo\"\ninterface = \"lo\"\ndirection = \"rx\"\nraise_at = \"{LIMIT}\"\nfor = \"2s\"\nclear_for = \"2s\"\n\
         update_every = \"3s\"\n[flush]\ninterval = \"5s\"\nurgent = [\"warning\", \"critical\"]\n\
         [kafka]\nbrokers = \"{brokers}\"\ntopic = \"{TOPIC}\"\n",
        state.display()
    );
    Ok(AgentSettings::new(&Layers::from_text("demo", &text), &surroundings())?)
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

fn agent(settings: AgentSettings, control: &Control, news: Sender<News>) -> Result<Outcome, String> {
    let observers: Vec<Box<dyn Observer>> = vec![Box::new(Messenger(news))];
    let reload = || Err("the demo has no configuration to read again".to_owned());
    run_agent(settings, Run { control, duration: None, observers, reload: &reload }).map_err(|error| error.to_string())
}

fn consumer(settings: &ConsumerSettings, stop: &AtomicBool, news: &Sender<News>) -> Result<(), String> {
    let mut tell = |stored: &StoredEvent<'_>| {
        let StoredEvent { partition, offset, event, .. } = *stored;
        // The receiver is gone only at the very end.
        let _ = news.send(News::Stored { partition, offset, kind: event.body.kind().to_owned() });
    };
    run_consumer(settings, Options::default(), &mut tell, stop).map_err(|error| error.to_string())
}

/// Real packets over the loopback, to a socket of our own: for the middle third of the time.
fn traffic(length: Duration, quiet: &AtomicBool) -> std::io::Result<()> {
    let sink = UdpSocket::bind("127.0.0.1:0")?;
    let source = UdpSocket::bind("127.0.0.1:0")?;
    source.connect(sink.local_addr()?)?;
    sink.set_nonblocking(true)?;
    let pause = Duration::from_secs_f64(PAYLOAD_BYTES as f64 * 8.0 / BURST.bps() as f64);
    let (started, mut due, end) = (Instant::now(), length / 5, length * 3 / 5);
    let mut received = vec![0; PAYLOAD_BYTES];
    while due < end && !quiet.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_sub(started.elapsed()).min(Duration::from_millis(200)));
        if started.elapsed() >= due {
            source.send(&[0; PAYLOAD_BYTES])?;
            while sink.recv(&mut received).is_ok() {}
            due += pause;
        }
    }
    Ok(())
}

/// What the table has shown so far.
#[derive(Default)]
struct Shown {
    started: Option<Instant>,
}

/// Prints a line a second, and what happens between; how many events were registered and stored.
fn watch(
    length: Duration,
    stop: &AtomicBool,
    heard: &Receiver<News>,
    shown: &mut Shown,
) -> Result<(u64, u64), Box<dyn Error>> {
    let started = *shown.started.insert(Instant::now());
    let mut meter = Loopback::open()?;
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

/// What is delivered and not yet stored is on its way: a few seconds at most.
fn wait_for_rows(
    heard: &Receiver<News>,
    mut registered: u64,
    mut stored: u64,
    delivered: u64,
    shown: &mut Shown,
) -> (u64, u64) {
    while stored < delivered {
        match heard.recv_timeout(Duration::from_secs(10)) {
            Ok(news) => count(shown, &news, &mut registered, &mut stored),
            Err(_) => break,
        }
    }
    while let Ok(news) = heard.try_recv() {
        count(shown, &news, &mut registered, &mut stored);
    }
    (registered, stored)
}

fn count(shown: &Shown, news: &News, registered: &mut u64, stored: &mut u64) {
    match news {
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

/// The loopback's own rate, read beside the agent, for the picture.
struct Loopback {
    source: Box<dyn CounterSource>,
    clock: SystemClock,
    reading: Reading,
    before: Option<(Duration, u64)>,
}

impl Loopback {
    fn open() -> Result<Self, Box<dyn Error>> {
        let selection = InterfaceFilter::new(&["lo".to_owned()], &[], &[]);
        let source = counters::open(SourceChoice::Auto, Path::new("/"), selection)?;
        Ok(Self { source, clock: SystemClock::default(), reading: Reading::default(), before: None })
    }

    fn rate(&mut self) -> Result<Option<BitRate>, Box<dyn Error>> {
        self.source.read(&self.clock, &mut self.reading)?;
        debug_assert!(!self.reading.changes.iter().any(|change| matches!(change, LinkChange::Removed(..))));
        let Some(counters) = self.reading.counters.first() else { return Ok(None) };
        let now = (self.reading.at, counters.rx_bytes);
        let before = self.before.replace(now);
        Ok(before.map(|before| bit_rate(now.1.saturating_sub(before.1), now.0.saturating_sub(before.0))))
    }
}

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Nothing can be done about a closed terminal.
macro_rules! say {
    ($($text:tt)*) => { let _ = writeln!(anstream::stdout(), $($text)*); };
}

fn print_header(settings: &AgentSettings, arguments: &Arguments) {
    say!(
        "{BOLD}Highwater{BOLD:#}, the whole pipeline in one process, for {} seconds (Ctrl-C ends it sooner)",
        arguments.seconds
    );
    say!();
    say!("  counters of lo ─► limit {LIMIT} ─► journal ─► Kafka, in memory ─► {}", arguments.database.display());
    say!("  {DIM}{}{DIM:#}", settings.limits[0]);
    say!();
    say!("  {BOLD}time   where     what{BOLD:#}");
}

fn stamp(shown: &Shown) -> String {
    let elapsed = shown.started.map_or(Duration::ZERO, |started| started.elapsed());
    format!("  {DIM}{:02}:{:02}{DIM:#} ", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

fn print_rate(shown: &Shown, rate: BitRate) {
    let cells = (rate.bps() * (BAR_CELLS - 2) / BURST.bps()).min(BAR_CELLS) as usize;
    let mark = (LIMIT.bps() * (BAR_CELLS - 2) / BURST.bps()) as usize;
    let bar: String = (0..BAR_CELLS as usize)
        .map(|cell| match (cell < cells, cell == mark) {
            (true, _) => '█',
            (false, true) => '│',
            (false, false) => ' ',
        })
        .collect();
    let style = if rate >= LIMIT { RED } else { GREEN };
    say!("{} {DIM}counter{DIM:#}   {style}{bar}{style:#} {:>12}", stamp(shown), rate.to_string());
}

fn print_event(shown: &Shown, event: &Event) {
    let (style, what) = match &event.body {
        Body::BreachRaised(breach) => {
            (RED, format!("▲ bandwidth exceeded: {} on {}", BitRate::from_bps(breach.rate_bps), breach.interface))
        }
        Body::BreachUpdated(breach) => {
            let excess = ByteCount::from_bytes(breach.excess_bytes);
            let still = format!("still exceeded for {}, {excess} over the limit so far", lasted(breach));
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

fn print_stored(shown: &Shown, partition: i32, offset: i64, kind: &str) {
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
    say!("  {BOLD}{link:<6} {way:<4} {began:<12} {lasted:>9} {peak:>12} {mean:>12} {excess:>12}{BOLD:#}");
    while let Some(row) = breaches.next()? {
        let rate = |column| row.get::<_, i64>(column).map(|bps| BitRate::from_bps(bps as u64).to_string());
        let excess = ByteCount::from_bytes(row.get::<_, i64>(6)? as u64).to_string();
        let open = if row.get::<_, String>(7)? == "open" { "still open" } else { "" };
        say!(
            "  {:<6} {:<4} {:<12} {:>9} {:>12} {:>12} {excess:>12}  {open}",
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
    say!("    cargo run --release --bin highwater-agent -- check --config systemd/agent.toml");
    say!("    tests/run    {DIM}# the same on a real Kafka and a real PostgreSQL{DIM:#}");
    if whole { Ok(()) } else { Err("not every accepted event became a row; this should never happen".into()) }
}
