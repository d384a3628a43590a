//! Estimates what rates cost from an encoded window of the host's links; `benches/run wire` measures how far it is off.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};

use crate::agent::config::{Rates, Settings};
use crate::agent::counters::{Counters, Packets};
use crate::agent::detector::Detector;
use crate::agent::rate::{Traffic, Verdict};
use crate::agent::rates::{LinkReading, RateWindows};
use crate::event::{Body, Epoch, Event, EventId, RateWindow, Stamp};
use crate::units::{ByteCount, counted, lasting};
use crate::wire;

const DAY: Duration = Duration::from_secs(86_400);
/// TCP, librdkafka's requests before the first message, and their answers.
const CONNECTION_BYTES: u64 = 4_000;
/// TLS 1.3 with a chain of two certificates.
const HANDSHAKE_BYTES: u64 = 5_000;
/// A request, its answer and their packets' headers; headers and key of a message.
const REQUEST_BYTES: u64 = 500;
const MESSAGE_BYTES: u64 = 250;
/// SQLite writes a page to its log, and later to the database.
const PAGE_BYTES: u64 = 2 * 4_096;
const PAGES: u64 = 4;

/// Returns `None` if rates are off, or no link is watched.
pub(super) fn line(settings: &Settings, detector: &Detector) -> Option<String> {
    let Rates { window, max_delay } = settings.rates?;
    let links = detector.readings().count();
    let messages = made_up(settings, detector, window);
    if links == 0 || messages.is_empty() {
        return None;
    }
    let sizes: Vec<u64> = messages.iter().map(|event| size(settings, event)).collect();
    let a_day = |every: Duration| DAY.as_secs_f64() / every.as_secs_f64();
    let windows = a_day(window);
    let sent = sizes.iter().map(|bytes| bytes + MESSAGE_BYTES + REQUEST_BYTES).sum::<u64>() as f64 * windows;
    let connections = a_day(window.max(max_delay));
    let plain = sent + connections * CONNECTION_BYTES as f64;
    let tls = plain + connections * HANDSHAKE_BYTES as f64;
    let json = messages.iter().map(|event| wire::to_json(event).len() as u64);
    // A transaction registers it, and another one removes it.
    let pages: u64 = json.map(|bytes| bytes.div_ceil(4_096) + 2 * PAGES).sum();
    let written = (pages * PAGE_BYTES) as f64 * windows;
    let bytes = |bytes: f64| ByteCount::from_bytes(bytes as u64);
    Some(format!(
        "cost   rates of {} every {}, estimated: {} a day and {} a month on the wire, {} and {} with TLS, {} a day to disk; \
         {} a day at {CONNECTION_BYTES} bytes, and {HANDSHAKE_BYTES} more with TLS",
        counted(links as u64, "link"),
        lasting(window),
        bytes(plain),
        bytes(plain * 30.0),
        bytes(tls),
        bytes(tls * 30.0),
        bytes(written),
        counted(connections.round() as u64, "connection"),
    ))
}

fn made_up(settings: &Settings, detector: &Detector, window: Duration) -> Vec<Event> {
    let mut windows = RateWindows::new(window);
    let mut complete: Vec<RateWindow> = Vec::new();
    let mut random = fastrand::Rng::with_seed(1);
    for second in 0..=window.as_secs() {
        let wall = DateTime::UNIX_EPOCH + TimeDelta::seconds(second as i64);
        windows.begin(wall, Duration::from_secs(second), &mut complete);
        for link in detector.readings() {
            let mut bytes = || (10_f64.powf(3.0 + 3.0 * random.f64()) * 1.25) as u64;
            let traffic = Traffic { rx_bytes: bytes(), tx_bytes: bytes(), elapsed: Duration::from_secs(1) };
            let verdict = if second == 0 { Verdict::First } else { Verdict::Measured(traffic) };
            let packets = |counters: Counters| counters.packets.map(|_| Packets { rx: second * 150, tx: second * 120 });
            let counters = link.counters.map(|counters| Counters { packets: packets(counters), ..counters });
            windows.read(LinkReading { verdict, counters, ..link });
        }
        windows.end(&mut complete);
    }
    let stamp = Stamp {
        agent: settings.agent.as_str().into(),
        observed_at: DateTime::UNIX_EPOCH,
        boot_id: "00000000-0000-0000-0000-000000000000".to_owned(),
        monotonic_ms: 1 << 32,
        clock_synced: Some(true),
    };
    let event = |window| Event {
        id: EventId { epoch: Epoch(0), seq: 100_000 },
        stamp: stamp.clone(),
        body: Body::Rates(window),
    };
    complete.into_iter().map(event).collect()
}

fn size(settings: &Settings, event: &Event) -> u64 {
    let json = wire::to_json(event);
    wire::message(event, &json, settings.publisher.encoding.format, None).payload.len() as u64
}
