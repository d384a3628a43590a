use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;

use super::*;
use crate::agent::counters::{AddReason, CounterError, Counters, LinkChange, LinkInfo, LinkKind};
use crate::agent::event_system::ObserveError;
use crate::agent::journal::Position;
use crate::config::Layers;
use crate::message::{Breach, Event, Lifecycle};
use crate::process::clock::ManualClock;
use crate::process::host::ServiceEnvironment;

const SECOND: Duration = Duration::from_secs(1);
/// Bytes a second above and below the thresholds of [`LIMIT`].
const OVER: u64 = 2_000;
const BELOW: u64 = 100;
const LIMIT: &str = "[[limit]]\nname = 'low'\ninterface = 'a'\ndirection = 'rx'\nraise_at = '8 kbit/s'\nfor = '3s'\n\
                     clear_for = '3s'\nupdate_every = '4m'\n";

/// Returns settings whose broker never answers; `text` begins with top-level keys.
fn settings(text: &str) -> Settings {
    let rates = if text.contains("[rates]") { "" } else { "[rates]\nenabled = false\n[heartbeat]\ninterval = '0s'\n" };
    let text = format!("source = 'synthetic'\n{text}\n[kafka]\nbrokers = '127.0.0.1:9'\n{rates}");
    Settings::new(&Layers::from_text("agent.toml", &text), &ServiceEnvironment::default()).expect("it is right")
}

fn within(state_dir: &TempDir, text: &str) -> Settings {
    settings(&format!("state_dir = '{}'\n{text}", state_dir.path().display()))
}

#[test]
fn deadlines_that_passed_are_counted() {
    let s = Duration::from_secs;
    assert_eq!(missed(s(10), s(9), s(1)), 0);
    assert_eq!(missed(s(10), s(10), s(1)), 1);
    assert_eq!(missed(s(10), Duration::from_millis(12_500), s(1)), 3);
}

type Seen = Rc<RefCell<Vec<Arc<Event>>>>;

struct Recorder(Seen);

impl Observer for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
        self.0.borrow_mut().extend_from_slice(events);
        Ok(())
    }
}

/// A source whose counters are a function of the time, and `None` where they cannot be read.
struct Fake<F> {
    /// Time that passes before and after the moment of a reading.
    pauses: (Duration, Duration),
    links: Vec<LinkInfo>,
    is_open: bool,
    manual: Option<ManualClock>,
    bytes: F,
}

impl<F: FnMut(u32, Duration) -> Option<u64>> CounterSource for Fake<F> {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn read(&mut self, clock: &dyn Clock, reading: &mut Reading) -> Result<(), CounterError> {
        let pass = |time: Duration| self.manual.iter().for_each(|manual| manual.advance(time));
        *reading = Reading::default();
        pass(self.pauses.0);
        (reading.at, reading.boottime) = (clock.monotonic(), clock.boottime());
        for LinkInfo { ifindex, .. } in &self.links {
            let rx_bytes = (self.bytes)(*ifindex, reading.at).ok_or(CounterError::Malformed("no counters"))?;
            let counters = Counters { ifindex: *ifindex, rx_bytes, ..Counters::default() };
            reading.counters.push(counters);
        }
        pass(self.pauses.1);
        if !std::mem::replace(&mut self.is_open, true) {
            let added = |info: &LinkInfo| LinkChange::Added(info.clone(), AddReason::Appeared);
            reading.changes = self.links.iter().map(added).collect();
        }
        Ok(())
    }
}

/// An agent on a clock that moves only when it is moved, and on counters of one link that is counted in software.
struct Bench {
    agent: Agent,
    clock: ManualClock,
    /// Time that a reading takes before the moment of its counters.
    before: Duration,
    bytes: Rc<RefCell<Option<u64>>>,
    seen: Seen,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self::reading_slowly(settings, (Duration::ZERO, Duration::ZERO))
    }

    fn reading_slowly(settings: Settings, pauses: (Duration, Duration)) -> Self {
        Self::on(ManualClock::new(DateTime::from_timestamp(1_795_176_000, 0).unwrap()), settings, pauses)
    }

    fn on(clock: ManualClock, settings: Settings, pauses: (Duration, Duration)) -> Self {
        let (seen, bytes) = (Seen::default(), Rc::new(RefCell::new(Some(0))));
        let observer = Box::new(Recorder(Rc::clone(&seen)));
        let mut agent = Agent::start(settings, vec![observer], Box::new(clock.clone())).expect("it starts");
        let shown = Rc::clone(&bytes);
        agent.source = Box::new(Fake {
            pauses,
            links: vec![LinkInfo::new(1, "a", LinkKind::Ppp)],
            is_open: false,
            manual: Some(clock.clone()),
            bytes: move |_, _| *shown.borrow(),
        });
        let mut bench = Self { agent, clock, before: pauses.0, bytes, seen };
        bench.agent.tick();
        bench
    }

    /// Adds `more` received bytes, and ticks one second after the last reading.
    fn carry(&mut self, more: u64) {
        if let Some(bytes) = self.bytes.borrow_mut().as_mut() {
            *bytes += more;
        }
        let next = self.agent.reading.at + SECOND;
        self.clock.advance(next.saturating_sub(self.clock.monotonic() + self.before));
        self.agent.tick();
    }

    fn reload(&mut self, settings: &Settings) {
        self.agent.reload(&|| Ok(settings.clone()));
    }

    fn durability(&mut self) -> Durability {
        self.agent.system.journal().durability()
    }

    fn read_at(&self) -> DateTime<Utc> {
        let since = self.clock.boottime() - self.agent.reading.boottime;
        self.clock.wall() - TimeDelta::from_std(since).unwrap()
    }

    fn breaches(&self) -> Vec<(String, Breach, Stamp)> {
        let breach = |event: &Arc<Event>| {
            Some((event.body.kind().to_owned(), event.body.breach()?.clone(), event.stamp.clone()))
        };
        self.seen.borrow().iter().filter_map(breach).collect()
    }
}

#[test]
fn the_disk_is_tried_again_while_no_counters_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut bench = Bench::new(settings(&format!("state_dir = '{}'", file.join("state").display())));
    assert_eq!(bench.durability(), Durability::InMemory, "no directory can be made in a file");
    *bench.bytes.borrow_mut() = None;
    std::fs::remove_file(&file).unwrap();
    bench.carry(0);
    assert_eq!(bench.durability(), Durability::InMemory, "it was tried just now");
    bench.clock.advance(Duration::from_secs(30));
    bench.carry(0);
    assert_eq!(bench.durability(), Durability::OnDisk);
}

#[test]
fn a_slow_read_breaks_no_rise_and_shifts_no_time() {
    for (before, after) in [(0, 0), (150, 0), (0, 150), (300, 400)] {
        let directory = tempfile::tempdir().unwrap();
        let pauses = (Duration::from_millis(before), Duration::from_millis(after));
        let mut bench = Bench::reading_slowly(within(&directory, LIMIT), pauses);
        bench.carry(BELOW);
        let started = bench.read_at();
        [OVER; 3].into_iter().for_each(|bytes| bench.carry(bytes));
        let (kind, breach, stamp) = bench.breaches().pop().expect("it is raised after three seconds");
        let raised = started + TimeDelta::seconds(3);
        assert_eq!((&*kind, breach.started_at, breach.raised_at), ("breach_raised", started, raised), "{pauses:?}");
        assert_eq!((stamp.observed_at, breach.duration_ms), (raised, 3_000), "{pauses:?}");
        assert_eq!(u128::from(stamp.monotonic_ms), bench.agent.reading.boottime.as_millis());
    }
}

/// Returns all breaches of a series that rises, is exceeded, falls and clears, and the next flush; `reload` comes after each reading.
fn judged(reload: impl Fn(&mut Bench)) -> (Vec<(String, Breach)>, Option<Duration>) {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(within(&directory, LIMIT));
    for bytes in [BELOW, OVER, OVER, OVER, OVER, OVER, BELOW, BELOW, OVER, BELOW, BELOW, BELOW, OVER, OVER, OVER] {
        bench.carry(bytes);
        reload(&mut bench);
    }
    let same = |(kind, breach, _)| (kind, Breach { breach_id: Default::default(), ..breach });
    (bench.breaches().into_iter().map(same).collect(), bench.agent.publisher.next_flush())
}

#[test]
fn reading_the_same_configuration_again_changes_nothing() {
    let alone = judged(|_| {});
    let kinds: Vec<_> = alone.0.iter().map(|(kind, _)| &**kind).collect();
    assert_eq!(kinds, ["breach_raised", "breach_cleared", "breach_raised"]);
    assert_eq!(judged(|bench| bench.reload(&bench.agent.settings.clone())), alone);
}

#[test]
fn nothing_of_an_open_breach_is_forgotten_over_an_orderly_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(within(&directory, LIMIT));
    [OVER; 10].into_iter().for_each(|bytes| bench.carry(bytes));
    let until = bench.read_at();
    let Bench { mut agent, clock, seen, .. } = bench;
    agent.add_last_events(Reason::Signal);
    drop(agent);
    let kinds: Vec<_> = seen.borrow().iter().map(|event| event.body.kind().to_owned()).collect();
    assert_eq!(kinds, ["agent_started", "breach_raised", "breach_updated", "agent_stopped"]);
    let last = seen.borrow()[2].body.breach().unwrap().clone();
    assert_eq!((last.ended_at, last.duration_ms), (until, 10_000));

    clock.advance(SECOND);
    let mut bench = Bench::on(clock, within(&directory, LIMIT), (Duration::ZERO, Duration::ZERO));
    assert_eq!(bench.agent.detector.open_breaches(&bench.agent.stamp())[0].0, last, "the journal has it");
    bench.carry(0);
    bench.agent.add_last_events(Reason::Signal);
    let kinds: Vec<_> = bench.seen.borrow().iter().map(|event| event.body.kind().to_owned()).collect();
    assert_eq!(kinds, ["agent_started", "agent_stopped"], "there was nothing new");
}

#[test]
fn a_new_flush_interval_counts_from_now() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(within(&directory, "[flush]\ninterval = '10h'"));
    let far = bench.agent.publisher.next_flush().unwrap();
    bench.clock.advance(SECOND);
    bench.reload(&within(&directory, "[flush]\ninterval = '20s'"));
    let (now, next) = (bench.clock.monotonic(), bench.agent.publisher.next_flush().unwrap());
    assert!(next != far && next > now && next <= now + Duration::from_secs(20), "{next:?}");
}

#[test]
fn new_bounds_of_the_journal_take_effect_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(within(&directory, "[journal]\nmax_size = '16MiB'"));
    let link = |number| crate::message::Link {
        interface: format!("a{number}"),
        ifindex: number,
        speed_bps: None,
        reason: Some(Reason::Up),
        detail: Some("x".repeat(1_000)),
    };
    bench.agent.add((1..4_000).map(|number| Body::LinkChanged(link(number))).collect());
    assert_eq!(bench.agent.system.journal().lost().total(), 0);
    bench.reload(&within(&directory, "[journal]\nmax_size = '2MiB'"));
    let left = bench.agent.system.pending();
    assert!(bench.agent.system.journal().lost().evicted > 1_000 && left.bytes < 2 << 20, "{left:?}");

    bench.clock.advance(Duration::from_secs(120));
    bench.reload(&within(&directory, "[journal]\nmax_size = '2MiB'\nmax_age = '1m'"));
    let events = bench.agent.system.journal().batch(crate::agent::journal::Position::START, 10, 1 << 20).unwrap();
    assert!(bench.agent.system.journal().lost().expired > 0);
    assert!(events.iter().all(|queued| matches!(queued.event.body, Body::Loss(_))), "{events:?}");
}

#[test]
fn flushes_of_a_fleet_that_boots_together_are_spread_by_its_names() {
    let first_flush = |name: &str| {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::new(settings(&format!("agent = '{name}'\nstate_dir = '{}'", directory.path().display())));
        bench.agent.publisher.next_flush().unwrap()
    };
    let flushes = ["gw-1", "gw-2", "gw-3"].map(first_flush);
    assert_eq!(flushes, ["gw-1", "gw-2", "gw-3"].map(first_flush), "each name has its own place");
    let apart = |a: usize, b: usize| flushes[a].abs_diff(flushes[b]) > SECOND;
    assert!(apart(0, 1) && apart(1, 2) && apart(0, 2), "{flushes:?}");
}

/// The windows of a fleet end at the same second: those of a thousand gateways are sent over a quarter of an hour.
#[test]
fn rates_of_a_fleet_are_sent_at_times_of_its_names() {
    let mut in_a_second = std::collections::BTreeMap::<u64, u32>::new();
    let clock = ManualClock::new(DateTime::from_timestamp(1_795_176_000, 0).unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    for number in 0..1_000 {
        let settings = settings(&format!("agent = 'gw-{number:04}'\n[rates]\nwindow = '5m'\n"));
        let mut journal = DurableJournal::open(
            JournalConfig {
                // No directory: these journals are in memory.
                directory: file.path().into(),
                size_max: settings.journal_size,
                age_max: settings.journal_age,
                identity: Identity::default(),
            },
            &stamp(&settings.agent, "", &clock),
        )
        .unwrap();
        let mut publisher = RateStream::new(&settings, &mut journal, &clock).publisher;
        let mut system = EventSystem::new(Box::new(journal));
        for _ in 0..3 {
            let flush = publisher.next_flush().unwrap();
            // A tick a second.
            let tick = Duration::from_secs(flush.as_secs() + u64::from(flush.subsec_nanos() > 0));
            *in_a_second.entry(tick.as_secs()).or_default() += 1;
            let waker = || Err(std::io::ErrorKind::Unsupported.into());
            publisher.poll(&mut system, tick, || stamp(&settings.agent, "", &clock), waker).unwrap();
            assert!(publisher.next_flush().unwrap() > flush, "it was the flush");
        }
    }
    assert_eq!(in_a_second.values().sum::<u32>(), 3_000);
    let most = in_a_second.values().max().unwrap();
    assert!(*most <= 10, "{most} of 1,000 in one second of 900");
}

/// Kafka is away for longer than the ring lasts.
#[test]
fn samples_take_bounded_memory_and_those_given_up_are_declared_as_a_range() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(within(&directory, "[samples]\nenabled = true\n"));
    let given = 8_000;
    let (mut most, mut logged, mut lines) = (0, 0, 0);
    for second in 1..given {
        bench.carry(OVER);
        let system = &mut bench.agent.samples.as_mut().unwrap().system;
        if second % 500 == 0 {
            // What is on its way goes too.
            system.batch(Position::START, 300, 1 << 20).unwrap();
        }
        most = most.max(system.pending().bytes);
        let samples = bench.agent.samples.as_ref().unwrap();
        lines += u32::from(samples.logged.0 > logged);
        logged = samples.logged.0;
    }
    let evicted = bench.agent.samples.as_mut().unwrap().system.journal().lost().evicted;
    assert!(
        logged > evicted / 2 && lines > 10 && lines < 8_000 / 60,
        "{lines} lines of the log: {logged} of {evicted}"
    );
    assert!((1 << 18..1 << 20).contains(&most), "{most}");
    assert_eq!(bench.agent.system.pending().events, 1, "the journal has nothing of it");
    let samples = bench.agent.samples.as_mut().unwrap();
    assert_eq!(samples.first_unsettled().map(|id| id.seq), Some(1), "the declaration has not arrived either");
    let left = samples.system.batch(Position::START, usize::MAX >> 1, usize::MAX >> 1).unwrap();
    let mut accounted: Vec<u64> = left.iter().map(|queued| queued.event.id.seq).collect();
    for queued in &left {
        if let Body::Loss(loss) = &queued.event.body {
            assert_eq!((loss.epoch, &loss.reason), (queued.event.id.epoch, &Reason::Evicted));
            assert!(loss.ranges.len() <= 2 * (given as usize / 500), "ranges, not numbers: {:?}", loss.ranges);
            accounted.extend(loss.ranges.iter().flat_map(|(first, last)| *first..=*last));
        }
    }
    accounted.sort_unstable();
    let losses = left.iter().filter(|queued| matches!(queued.event.body, Body::Loss(_))).count() as u64;
    assert!((1..=20).contains(&losses), "{losses}");
    assert_eq!(accounted, (1..=given + losses).collect::<Vec<_>>(), "each sample and declaration once");

    // Kafka has neither the samples nor what declares the others.
    bench.reload(&within(&directory, ""));
    let declared = bench.seen.borrow().last().cloned().unwrap();
    let expected = [(1, given + losses)];
    assert!(matches!(&declared.body, Body::Loss(loss) if loss.ranges == expected), "{declared:?}");
}

/// The interval's end is too late for those of many links.
#[test]
fn samples_are_sent_before_they_fill_their_memory() {
    let settings = settings("[samples]\nenabled = true\n");
    let clock = ManualClock::new(DateTime::from_timestamp(1_795_176_000, 0).unwrap());
    let mut samples = SampleStream::new(&settings, &clock).unwrap();
    let mut is_flushing = |count: usize| {
        let body = Body::AgentStarted(Lifecycle { version: "1".into(), reason: None, detail: None });
        let new_event = NewEvent { stamp: stamp(&settings.agent, "", &clock), body };
        samples.system.add_events(vec![new_event; count]).unwrap();
        let waker = || Err(std::io::ErrorKind::Unsupported.into());
        samples.publish(clock.monotonic(), || stamp(&settings.agent, "", &clock), waker).unwrap();
        samples.publisher().progress().flushing_ms.is_some()
    };
    assert!(!is_flushing(100), "the interval has just begun");
    assert!(is_flushing(2_000));
}

#[test]
fn a_reload_keeps_samples_that_wait_and_switching_them_off_declares_them() {
    let directory = tempfile::tempdir().unwrap();
    let on = within(&directory, "[samples]\nenabled = true\n");
    let mut bench = Bench::new(on.clone());
    (0..9).for_each(|_| bench.carry(OVER));
    bench.reload(&on);
    let samples = bench.agent.samples.as_mut().expect("they are still on");
    let epoch = samples.first_unsettled().unwrap().epoch;
    assert_eq!(samples.system.pending().events, 10);
    bench.reload(&within(&directory, ""));
    let declared = bench.seen.borrow().last().cloned().unwrap();
    assert!(
        matches!(&declared.body, Body::Loss(loss) if loss.epoch == epoch && loss.ranges == [(1, 10)]),
        "{declared:?}"
    );
    bench.reload(&on);
    assert_ne!(bench.agent.samples.as_mut().unwrap().first_unsettled().unwrap().epoch, epoch);
}

#[test]
fn probes_between_ticks_find_a_driver_that_counts_in_software() {
    let directory = tempfile::tempdir().unwrap();
    let settings = within(&directory, "interval = '100ms'");
    let mut agent = Agent::start(settings, Vec::new(), Box::<SystemClock>::default()).expect("it starts");
    let (software, hardware) = (LinkInfo::new(1, "a", LinkKind::Bond), LinkInfo::new(2, "b", LinkKind::Bond));
    let mut began = None;
    agent.source = Box::new(Fake {
        pauses: (Duration::ZERO, Duration::ZERO),
        links: vec![software, hardware],
        is_open: false,
        manual: None,
        bytes: move |ifindex, at: Duration| {
            let passed = at - *began.get_or_insert(at);
            Some(match ifindex {
                // Traffic that ends after a while.
                1 => passed.min(Duration::from_millis(1_800)).as_micros() as u64,
                // The same for ever, copied from the hardware once a second.
                _ => passed.as_secs() * 1_000_000,
            })
        },
    });
    let signals = SignalPipe::new().unwrap();
    agent.watch(&signals, Some(Duration::from_millis(3_000)), &|| Err(String::new()));
    let waited: Vec<bool> = agent.detector.links().map(|link| link.unjudged.contains_key("waiting")).collect();
    // Where each reading is exact, a counter that stands is silence: there is nothing to wait for.
    assert_eq!(waited, [false, true]);
}
