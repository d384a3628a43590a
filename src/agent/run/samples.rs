use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::agent::config::Settings;
use crate::agent::control::Waker;
use crate::agent::detector::Detector;
use crate::agent::event_system::EventSystem;
use crate::agent::journal::{JournalError, Position, SqliteJournal};
use crate::agent::publisher::{self, Encoding, Publisher};
use crate::agent::rate::{Verdict, bit_rate};
use crate::clock::Clock;
use crate::event::{Body, Loss, NewEvent, Reason, Sample, Stamp};
use crate::units::ByteCount;
use crate::wire::Key;

/// About four minutes of ten links.
const RING: ByteCount = ByteCount::from_bytes(1 << 20);

/// Samples in memory alone: a synced write a second would wear out a host's flash. What is evicted is declared in the stream
/// itself, what is left at the end in the journal's next events.
pub(super) struct SampleStream {
    system: EventSystem,
    publisher: Publisher,
}

impl SampleStream {
    pub(super) fn new(settings: &Settings, clock: &dyn Clock) -> Result<Self, JournalError> {
        let system = EventSystem::new(Box::new(SqliteJournal::in_memory(RING)?));
        let publisher = Publisher::new(publisher_settings(settings), false, clock.monotonic());
        Ok(Self { system, publisher })
    }

    pub(super) fn reconfigure(&mut self, settings: &Settings, now: Duration) {
        self.publisher.reconfigure(publisher_settings(settings), now);
    }

    pub(super) fn add(&mut self, detector: &Detector, now: &Stamp) -> Result<(), JournalError> {
        let samples = detector.readings().filter_map(|link| sample(link.interface, link.verdict));
        let drafts = samples.map(|sample| NewEvent { stamp: now.clone(), body: Body::Sample(sample) }).collect();
        self.system.add_events(drafts).map(drop)
    }

    pub(super) fn publish(
        &mut self,
        now: Duration,
        stamp: impl Fn() -> Stamp,
        waker: impl Fn() -> io::Result<Waker>,
    ) -> Result<(), JournalError> {
        self.publisher.turn(&mut self.system, now, stamp, waker)
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(super) fn hurry(&mut self) {
        self.publisher.hurry();
    }

    pub(super) fn lost(&mut self) -> Option<Loss> {
        let left = self.system.batch(Position::START, usize::MAX >> 1, usize::MAX >> 1).ok()?;
        let epoch = left.first()?.event.id.epoch;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for seq in left.iter().map(|queued| queued.event.id.seq) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ => ranges.push((seq, seq)),
            }
        }
        let detail = Some("samples are kept in memory alone, and the agent stopped".to_owned());
        Some(Loss { epoch, ranges, reason: Reason::Evicted, detail })
    }

    pub(super) fn close(self) -> Vec<JoinHandle<()>> {
        self.publisher.close()
    }
}

fn publisher_settings(settings: &Settings) -> publisher::Settings {
    let events = settings.publisher.clone();
    publisher::Settings {
        topic: settings.topics.samples.clone(),
        encoding: Encoding { key: Key::Agent, ..events.encoding },
        urgent: Vec::new(),
        events_max: u64::MAX,
        journal_bytes: RING.bytes(),
        undelivered: "wait in memory",
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
