use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use super::Agent;
use crate::agent::config::Settings;
use crate::agent::detector::Detector;
use crate::agent::detector::rate::{Verdict, bit_rate};
use crate::agent::event_system::EventSystem;
use crate::agent::journal::{JournalError, Position, SqliteJournal, union};
use crate::agent::publisher::{self, Encoding, Publisher};
use crate::config::TopicRole;
use crate::message::{Body, EventId, Loss, NewEvent, Reason, Sample, Stamp};
use crate::process::clock::Clock;
use crate::process::exit::chain;
use crate::process::signals::Waker;
use crate::units::{ByteCount, counted};
use crate::wire::Key;

/// Room for about four minutes of ten links.
const RING: ByteCount = ByteCount::from_bytes(1 << 20);

/// Samples in memory alone, since a synced write a second would wear out flash. Evicted samples are declared in the stream itself,
/// what is left at the end in the journal's next events, and what a crash may have cost by the next start.
pub(super) struct SampleStream {
    pub(super) system: EventSystem,
    publisher: Publisher,
    /// Samples whose loss was logged, and the time from which more may be.
    pub(super) logged: (u64, Duration),
}

const LOG_EVERY: Duration = Duration::from_secs(60);

impl SampleStream {
    pub(super) fn new(settings: &Settings, clock: &dyn Clock) -> Result<Self, JournalError> {
        let system = EventSystem::new(Box::new(SqliteJournal::in_memory(RING)?));
        let publisher = Publisher::new(publisher_settings(settings), false, clock.monotonic());
        Ok(Self { system, publisher, logged: Default::default() })
    }

    pub(super) fn reconfigure(&mut self, settings: &Settings, now: Duration) {
        self.publisher.reconfigure(publisher_settings(settings), now);
    }

    pub(super) fn add(&mut self, detector: &Detector, now: &Stamp) -> Result<(), JournalError> {
        let samples = detector.readings().filter_map(|link| sample(link.interface, link.verdict));
        let new_events = samples.map(|sample| NewEvent { stamp: now.clone(), body: Body::Sample(sample) }).collect();
        self.system.add_events(new_events).map(drop)
    }

    pub(super) fn publish(
        &mut self,
        now: Duration,
        stamp: impl Fn() -> Stamp,
        waker: impl Fn() -> io::Result<Waker>,
    ) -> Result<(), JournalError> {
        // Many links fill the ring before the interval is over.
        if self.system.pending().bytes > RING.bytes() / 4 {
            self.publisher.flush();
        }
        self.publisher.poll(&mut self.system, now, stamp, waker)
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(super) fn flush_now(&mut self) {
        self.publisher.flush_now();
    }

    pub(super) fn given_up(&mut self, now: Duration) -> Option<String> {
        let (logged, next) = self.logged;
        let evicted = self.system.journal().lost().evicted;
        if evicted == logged || now < next {
            return None;
        }
        self.logged = (evicted, now + LOG_EVERY);
        let samples = counted(evicted - logged, "sample");
        Some(format!(
            "{samples} lost, and declared: Kafka is away for longer than {RING} of them last; {evicted} since the start"
        ))
    }

    pub(super) fn first_unsettled(&mut self) -> Option<EventId> {
        self.system.journal().first_unsettled()
    }

    /// Returns the samples that Kafka has not acknowledged, with those that an unsent declaration stands for.
    pub(super) fn lost(&mut self) -> Option<Loss> {
        let left = self.system.batch(Position::START, usize::MAX >> 1, usize::MAX >> 1).ok()?;
        let epoch = left.first()?.event.id.epoch;
        let waiting = left.iter().map(|queued| (queued.event.id.seq, queued.event.id.seq));
        let declared = left.iter().filter_map(|queued| match &queued.event.body {
            Body::Loss(loss) if loss.epoch == epoch => Some(&loss.ranges),
            _ => None,
        });
        let ranges = union(waiting.chain(declared.flatten().copied()));
        let detail = Some("samples are kept in memory alone, and the agent stopped".to_owned());
        Some(Loss { epoch, ranges, reason: Reason::Evicted, detail })
    }

    pub(super) fn close(self) -> Vec<JoinHandle<()>> {
        self.publisher.close()
    }
}

impl Agent {
    pub(super) fn note_samples(&mut self) {
        let Some(samples) = &mut self.samples else { return };
        let first = samples.first_unsettled();
        if let Err(error) = self.system.journal().note_samples(first) {
            self.report_error(&format!("samples: {}", chain(&error)));
        }
    }

    /// Declares the samples that Kafka did not acknowledge, and returns the threads of their producer.
    pub(super) fn end_samples(&mut self, mut samples: SampleStream) -> Vec<JoinHandle<()>> {
        let is_declared = samples.lost().is_none_or(|loss| self.add(vec![Body::Loss(loss)]));
        // The note stays for the next start if the disk failed.
        if is_declared && let Err(error) = self.system.journal().note_samples(None) {
            self.report_error(&format!("samples: {}", chain(&error)));
        }
        samples.close()
    }
}

fn publisher_settings(settings: &Settings) -> publisher::Settings {
    let events = settings.publisher.clone();
    publisher::Settings {
        topic: settings.topics.names.of(TopicRole::Samples).clone(),
        encoding: Encoding { key: Key::Agent, ..events.encoding },
        urgent: Vec::new(),
        events_max: u64::MAX,
        journal_bytes: RING.bytes(),
        waiting: "the samples wait in memory",
        ..events
    }
}

fn sample(interface: &str, verdict: Verdict) -> Option<Sample> {
    let reason = match verdict {
        Verdict::Measured(traffic) | Verdict::Gap(traffic) => {
            let bps = |bytes| Some(bit_rate(bytes, traffic.elapsed).bps());
            return Some(Sample {
                interface: interface.to_owned(),
                duration_ms: u64::try_from(traffic.elapsed.as_millis()).ok(),
                rx_bytes: Some(traffic.rx_bytes),
                tx_bytes: Some(traffic.tx_bytes),
                rx_bps: bps(traffic.rx_bytes),
                tx_bps: bps(traffic.tx_bytes),
                reason: None,
            });
        }
        Verdict::First => Reason::First,
        Verdict::Reset => Reason::Reset,
        Verdict::Learning | Verdict::Waiting | Verdict::Jump | Verdict::Suspect | Verdict::Unread => return None,
    };
    Some(Sample { interface: interface.to_owned(), reason: Some(reason), ..Sample::default() })
}
