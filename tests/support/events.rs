//! Events as agents make them, and a producer that is not ours.

use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use highwater::message::histogram::RateHistogram;
use highwater::message::{
    Body, Breach, Direction, Epoch, Event, EventId, Lifecycle, LinkRates, Loss, OverLimit, RateWindow, Reason, Sample,
    Severity, Stamp,
};
use highwater::wire;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

pub(crate) fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_176_000, 0).expect("a time")
}

/// Reads a time, as in `2026-11-20T12:00:00Z`.
pub(crate) fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// Makes the `seq`th event of `agent`'s first epoch, a second after the one before.
pub(crate) fn event(agent: &str, seq: u64, body: Body) -> Event {
    Event {
        id: EventId { epoch: Epoch(0x5f0c), seq },
        stamp: Stamp {
            agent: agent.into(),
            observed_at: noon() + TimeDelta::seconds(seq.min(40_000) as i64),
            boot_id: "6e4f5a0e".into(),
            monotonic_ms: seq.min(1 << 40) * 1_000,
            clock_synced: Some(true),
        },
        body,
    }
}

pub(crate) fn breach(id: &str, seconds: u64) -> Breach {
    Breach {
        breach_id: id.into(),
        started_at: noon(),
        raised_at: noon() + TimeDelta::seconds(1),
        ended_at: noon() + TimeDelta::seconds(seconds.min(40_000) as i64),
        limit_name: "wan-down".into(),
        severity: Severity::Warning,
        interface: "eth0".into(),
        ifindex: Some(2),
        direction: Direction::Rx,
        limit_bps: 80_000_000,
        rate_bps: 90_000_000 + seconds,
        peak_bps: 90_000_000 + seconds,
        mean_bps: 85_000_000,
        duration_ms: seconds * 1_000,
        measured_ms: seconds * 1_000,
        excess_bytes: seconds * 125,
        reason: None,
        detail: None,
    }
}

pub(crate) fn updated(agent: &str, seq: u64) -> Event {
    event(agent, seq, Body::BreachUpdated(breach("b1", seq)))
}

/// Makes the updates of gw with these numbers.
pub(crate) fn updates(seqs: RangeInclusive<u64>) -> Vec<Event> {
    seqs.map(|seq| updated("gw", seq)).collect()
}

/// Makes the updates of gw-0, gw-1 and so on with these numbers.
pub(crate) fn updates_of_agents(agents: u64, seqs: RangeInclusive<u64>) -> Vec<Event> {
    seqs.flat_map(|seq| (0..agents).map(move |agent| updated(&format!("gw-{agent}"), seq))).collect()
}

pub(crate) fn started() -> Body {
    Body::AgentStarted(Lifecycle { version: "1".into(), reason: None, detail: None })
}

/// Makes the `seq`th sample of `agent`, in the epoch of its samples.
pub(crate) fn sample(agent: &str, seq: u64) -> Event {
    let mut event = event(
        agent,
        seq,
        Body::Sample(Sample {
            interface: "eth0".into(),
            duration_ms: Some(1_000),
            rx_bytes: Some(seq * 10),
            tx_bytes: None,
            rx_bps: Some(seq * 80),
            tx_bps: None,
            reason: None,
        }),
    );
    event.id.epoch = Epoch(!event.id.epoch.0);
    event
}

pub(crate) fn loss(first: u64, last: u64) -> Body {
    Body::Loss(Loss { epoch: Epoch(0x5f0c), ranges: vec![(first, last)], reason: Reason::Evicted, detail: None })
}

pub(crate) fn produce<'a>(brokers: &str, topic: &str, events: impl IntoIterator<Item = &'a Event>) {
    let messages = events.into_iter().map(|event| (event.stamp.agent.to_string(), wire::to_json(event)));
    produce_raw(brokers, topic, messages, None);
}

/// Sends any messages; those without a payload are tombstones.
pub(crate) fn produce_raw<P: Into<Option<Vec<u8>>>>(
    brokers: &str,
    topic: &str,
    messages: impl IntoIterator<Item = (String, P)>,
    transaction: Option<Transaction<'_>>,
) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "20").set("enable.idempotence", "true");
    if let Some(Transaction { id, .. }) = transaction {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer = config.create().expect("a producer");
    let minute = Duration::from_secs(60);
    if transaction.is_some() {
        producer.init_transactions(minute).expect("transactions");
        producer.begin_transaction().expect("a transaction");
    }
    for (key, payload) in messages {
        let payload = payload.into();
        let mut record: BaseRecord<'_, String, Vec<u8>> = BaseRecord::to(topic).key(&key);
        record.payload = payload.as_ref();
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(50));
            record = back;
        }
    }
    producer.flush(minute).expect("all is sent");
    match transaction {
        Some(Transaction { commits: true, .. }) => producer.commit_transaction(minute).expect("it commits"),
        Some(_) => producer.abort_transaction(minute).expect("it aborts"),
        None => {}
    }
}

/// Sends messages to one partition, in as few batches as possible.
pub(crate) fn produce_to(brokers: &str, topic: &str, partition: i32, payloads: impl IntoIterator<Item = Vec<u8>>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "2000").set("compression.type", "zstd");
    config.set("message.max.bytes", "1000000000").set("batch.size", "500000000");
    config.set("queue.buffering.max.kbytes", "1000000");
    let producer: BaseProducer = config.create().expect("a producer");
    for payload in payloads {
        let record: BaseRecord<'_, str, Vec<u8>> =
            BaseRecord::to(topic).partition(partition).key("key").payload(&payload);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(Duration::from_secs(60)).expect("all is sent");
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction<'a> {
    pub(crate) id: &'a str,
    /// If false, it is aborted: its messages stay in Kafka, but `read_committed` does not show them.
    pub(crate) commits: bool,
}

pub(crate) fn tombstone(brokers: &str, topic: &str) {
    produce_raw(brokers, topic, [("key".to_owned(), None::<Vec<u8>>)], None);
}

/// A histogram that is whole but for its one count, which is 2^63 - 1: the highest that the format can say.
#[rustfmt::skip]
pub(crate) const HUGE_HISTOGRAM: [u8; 41] = [
    0x1c, 0x84, 0x93, 0x14, 0x00, 0x00, 0x00, 0x21, 0x78, 0xda, 0x93, 0x69, 0x99, 0x2c, 0xcc, 0xc0, 0xc0, 0xc0, 0xc9, 0x00,
    0x01, 0x4c, 0x50, 0x9a, 0x11, 0x42, 0xa9, 0x0b, 0xd8, 0x7f, 0x80, 0xb0, 0xfe, 0xfd, 0x87, 0x02, 0x00, 0x82, 0x8a, 0x0b,
    0xaf,
];

/// Makes the traffic of a link that was measured for as many seconds as there are rates.
pub(crate) fn link_rates(interface: &str, direction: Direction, rates: &[u64]) -> LinkRates {
    let mut histogram = RateHistogram::<u32>::default();
    rates.iter().for_each(|bps| histogram.record(*bps, 1));
    let sum: u64 = rates.iter().sum();
    LinkRates {
        interface: interface.into(),
        direction,
        bytes: sum / 8,
        packets: Some(rates.len() as u64),
        errors: Some(0),
        drops: None,
        measured_s: rates.len() as u32,
        unmeasured_s: 0,
        min_bps: rates.iter().min().copied(),
        mean_bps: (!rates.is_empty()).then(|| sum / rates.len() as u64),
        max_bps: rates.iter().max().copied(),
        p50_bps: histogram.quantile_bps(0.5),
        p95_bps: histogram.quantile_bps(0.95),
        p99_bps: histogram.quantile_bps(0.99),
        speed_bps: Some(1_000_000_000),
        over: vec![OverLimit { limit_name: "wan-down".into(), limit_bps: 80_000_000, over_s: 0 }],
        histogram: (!rates.is_empty()).then(|| histogram.encode()),
    }
}

/// Makes the `seq`th message of rates of `agent`, in their epoch: windows of five minutes, the first of which began at noon.
pub(crate) fn rates(agent: &str, seq: u64, links: Vec<LinkRates>) -> Event {
    rates_since(noon(), agent, seq, links)
}

/// Makes such a message where the first window began at another time. A consumer that runs keeps histograms of the last weeks only.
pub(crate) fn rates_since(first: DateTime<Utc>, agent: &str, seq: u64, links: Vec<LinkRates>) -> Event {
    let started_at = first + TimeDelta::minutes(5) * (seq as i32 - 1);
    let window = RateWindow { started_at, duration_ms: 300_000, version: "1".into(), links };
    let mut event = event(agent, seq, Body::Rates(window));
    event.id.epoch = Epoch(0x4a7e);
    event.stamp.observed_at = started_at + TimeDelta::minutes(5);
    event
}
