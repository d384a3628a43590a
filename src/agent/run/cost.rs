//! Estimates what rates cost from an encoded window of the host's links; `benches/run wire` measures the error.

use std::io::Write as _;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::agent::config::{Rates, Settings};
use crate::agent::counters::{Counters, Packets};
use crate::agent::detector::Detector;
use crate::agent::detector::rate::{Traffic, Verdict};
use crate::agent::detector::rate_window::{LinkReading, RateWindows};
use crate::message::{Body, Epoch, Event, EventId, RateWindow, Stamp};
use crate::units::{ByteCount, counted, lasting};
use crate::wire;

const DAY: Duration = Duration::from_secs(86_400);
/// Bytes of TCP, and of librdkafka's requests before the first message, with their answers.
const CONNECTION_BYTES: u64 = 4_000;
/// Bytes of TLS 1.3's handshakes: with the bootstrap broker, and with the leader of the partition.
const HANDSHAKE_BYTES: u64 = 8_700;
const REQUEST_BYTES: u64 = 500;
const WINDOWS_MAX: u64 = 8;
const PAGE_BYTES: u64 = 4_096;
/// SQLite writes a page to its log, and later to the database.
const PAGE_WRITES: u64 = 2;
/// Pages changed by a transaction, besides those of the message itself.
const PAGES: u64 = 4;

/// Returns the estimate; `None` if rates are off, or no link is watched.
pub(super) fn line(settings: &Settings, detector: &Detector) -> Option<String> {
    let Rates { window, max_delay } = settings.rates?;
    let links = detector.readings().count();
    let every = window.max(max_delay);
    let a_day = |every: Duration| DAY.as_secs_f64() / every.as_secs_f64();
    let (windows, flushes) = (a_day(window), a_day(every));
    let in_a_flush = (windows / flushes) as u64;
    let synthetic: Vec<Event> = (0..in_a_flush.min(WINDOWS_MAX))
        .flat_map(|number| synthetic_windows(settings, detector, window, number))
        .collect();
    if links == 0 || synthetic.is_empty() {
        return None;
    }
    let share = windows / flushes / in_a_flush.min(WINDOWS_MAX) as f64;
    let batch = batch_bytes(settings, &synthetic) as f64 * share;
    let plain = (batch + (REQUEST_BYTES + CONNECTION_BYTES) as f64) * flushes;
    let tls = plain + flushes * HANDSHAKE_BYTES as f64;
    let json = synthetic.iter().map(|event| wire::to_json(event).len() as u64);
    let pages: u64 = json.map(|bytes| bytes.div_ceil(PAGE_BYTES) + 2 * PAGES).sum();
    let written = (pages * PAGE_WRITES * PAGE_BYTES) as f64 * share * flushes;
    let bytes = |bytes: f64| ByteCount::from_bytes(bytes as u64);
    Some(format!(
        "cost   rates of {} every {}, estimated: {} a day on the wire, {} with TLS; {} a day to disk;\n       \
         {} a month on the wire, {} with TLS; {} a day",
        counted(links as u64, "link"),
        lasting(window),
        bytes(plain),
        bytes(tls),
        bytes(written),
        bytes(plain * 30.0),
        bytes(tls * 30.0),
        counted(flushes.round() as u64, "flush"),
    ))
}

/// Returns the bytes of messages sent together, and compressed together: by librdkafka's zstd, to which deflate comes close.
fn batch_bytes(settings: &Settings, events: &[Event]) -> u64 {
    let level = match ["compression.type", "compression.codec"]
        .iter()
        .find_map(|name| settings.publisher.connection.property(name))
    {
        Some("none") => Compression::none(),
        _ => Compression::default(),
    };
    let mut batch = DeflateEncoder::new(Vec::new(), level);
    for event in events {
        let json = wire::to_json(event);
        let message = wire::message(event, &json, settings.publisher.encoding.format, None);
        let headers = message.common_headers().into_iter().chain(message.own_headers());
        let headers = headers.flat_map(|(name, value)| [name.as_bytes(), value]);
        for part in headers.chain([&*message.key, &*message.payload]) {
            batch.write_all(part).expect("memory takes all");
        }
    }
    batch.finish().expect("memory takes all").len() as u64
}

/// Returns the messages of one window in which every second has another rate, of 10 kbit/s to 10 Mbit/s.
fn synthetic_windows(settings: &Settings, detector: &Detector, window: Duration, number: u64) -> Vec<Event> {
    let mut windows = RateWindows::new(window);
    let mut complete: Vec<RateWindow> = Vec::new();
    let mut random = fastrand::Rng::with_seed(number);
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
        id: EventId { epoch: Epoch(0), seq: 100_000 + number },
        stamp: stamp.clone(),
        body: Body::Rates(window),
    };
    complete.into_iter().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::run::check::check_links;
    use crate::config::Layers;
    use crate::process::host::ServiceEnvironment;

    fn line_of(rates: &str) -> Option<String> {
        let text = format!("source = 'synthetic'\n[rates]\n{rates}");
        let settings = Settings::new(&Layers::from_text("agent.toml", &text), &ServiceEnvironment::default());
        check_links(&settings.expect("it is right")).1
    }

    /// Returns the amounts of a line: on the wire, with TLS and to disk a day, on the wire and with TLS a month.
    fn amounts(rates: &str) -> Vec<u64> {
        let line = line_of(rates).expect("rates are on");
        let words: Vec<&str> = line.split([' ', ',', ';']).collect();
        let amounts = words.windows(2).filter_map(|pair| pair.concat().parse::<ByteCount>().ok());
        amounts.map(ByteCount::bytes).collect()
    }

    #[test]
    fn rates_that_are_off_cost_nothing() {
        assert_eq!(line_of("enabled = false\n"), None);
        assert!(line_of("").is_some_and(|line| line.starts_with("cost   rates of 4 links every 5 min")));
    }

    #[test]
    fn windows_that_are_sent_together_cost_less_on_the_wire() {
        let (soon, late) = (amounts("max_delay = '5m'\n"), amounts("max_delay = '1h'\n"));
        assert_eq!((soon.len(), late.len()), (5, 5));
        for place in [0, 1, 3, 4] {
            assert!(late[place] < soon[place], "{late:?} {soon:?}");
        }
        for each in [soon, late] {
            assert!(
                each[0] < each[1] && each[3] < each[4] && each[0] < each[3],
                "TLS costs more, and a month: {each:?}"
            );
        }
    }
}
