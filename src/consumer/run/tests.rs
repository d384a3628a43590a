use std::sync::atomic::Ordering;
use std::time::Instant;

use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use tempfile::TempDir;

use super::*;
use crate::config::Layers;
use crate::process::systemd::Directories;

const EVENTS: &str = "events";
const SAMPLES: &str = "samples";

struct ConsumerFixture {
    mock: MockCluster<'static, DefaultProducerContext>,
    directory: TempDir,
    stop: AtomicBool,
}

impl ConsumerFixture {
    fn new() -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(EVENTS, 2, 1).unwrap();
        mock.create_topic(SAMPLES, 1, 1).unwrap();
        Self { mock, directory: tempfile::tempdir().unwrap(), stop: AtomicBool::new(false) }
    }

    fn settings(&self) -> Settings {
        let text = format!(
            "[kafka]\nbrokers = '{}'\ntopic = '{EVENTS}'\n[topics]\nsamples = '{SAMPLES}'\nrates = ''\n[store]\nurl = 'sqlite:{}'\n",
            self.mock.bootstrap_servers(),
            self.database().display()
        );
        Settings::new(&Layers::from_text("consumer.toml", &text), &Directories::default()).unwrap()
    }

    fn database(&self) -> std::path::PathBuf {
        self.directory.path().join("h.db")
    }

    fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.database()).unwrap()
    }

    /// Sends messages that are no events: each becomes a dead letter.
    fn produce(&self, topic: &str, count: usize) {
        self.produce_to((topic, 0), count);
    }

    fn produce_to(&self, (topic, partition): (&str, i32), count: usize) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.mock.bootstrap_servers());
        let producer: BaseProducer = config.create().unwrap();
        for _ in 0..count {
            let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition).payload(b"x");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }
}

fn rounds_until(consumer: &mut Consumer<'_>, mut is_done: impl FnMut(&Consumer<'_>) -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_done(consumer) {
        assert!(
            Instant::now() < until,
            "not within 20 s: {:?}",
            consumer.topics.iter().map(|t| t.state).collect::<Vec<_>>()
        );
        assert!(consumer.round().is_ok_and(|goes_on| goes_on));
    }
}

fn next_offset(fixture: &ConsumerFixture, topic: &str) -> Option<i64> {
    next_offset_of(fixture, topic, 0)
}

fn next_offset_of(fixture: &ConsumerFixture, topic: &str, partition: i32) -> Option<i64> {
    let sql = "SELECT next_offset FROM kafka_offsets WHERE kafka_topic = ?1 AND kafka_partition = ?2";
    fixture.sql().query_row(sql, rusqlite::params![topic, partition], |row| row.get(0)).ok()
}

/// Takes what comes for both topics, until `is_done`, as the loop does between two rounds.
fn collect(consumer: &mut Consumer<'_>, mut is_done: impl FnMut(&Consumer<'_>) -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_done(consumer) {
        assert!(Instant::now() < until, "not within 20 s");
        let Consumer { topics, member, liveness, .. } = consumer;
        assert!(read(topics, LINGER, || liveness.now(), |timeout| member.poll(timeout)).is_none());
    }
}

fn are_read(consumer: &Consumer<'_>) -> bool {
    consumer.topics.iter().all(Topic::is_reading)
}

#[test]
fn a_topic_whose_database_is_elsewhere_is_paused_until_its_offsets_are_found() {
    let (fixture, mut observer) = (ConsumerFixture::new(), |_: &StoredEvent<'_>| {});
    let settings = fixture.settings();
    let mut consumer = Consumer::new(&settings, Options::default(), &mut observer, &fixture.stop).unwrap();
    fixture.produce(EVENTS, 3);
    rounds_until(&mut consumer, |_| next_offset(&fixture, EVENTS) == Some(3));
    rounds_until(&mut consumer, are_read);
    fixture.sql().execute("UPDATE kafka_offsets SET topic_generation = 7 WHERE kafka_topic = ?1", [EVENTS]).unwrap();
    fixture.produce(EVENTS, 1);
    rounds_until(&mut consumer, |consumer| !consumer.topics[0].state.has_offsets());
    fixture.produce(EVENTS, 5);
    fixture.produce(SAMPLES, 1);
    let mut polled = Vec::new();
    let mut until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Polled::Record(at, _) = consumer.member.poll(LINGER) {
            polled.push(at.topic);
            // Long enough for the other topic's, had it been read.
            until = until.min(Instant::now() + Duration::from_secs(2));
        }
    }
    assert_eq!(polled, [1]);
    rounds_until(&mut consumer, |_| next_offset(&fixture, EVENTS) == Some(9));
    consumer.end();
}

/// At the first start, where nothing is known of any partition, and at a later one.
#[test]
fn a_partition_without_a_leader_holds_up_no_other() {
    let (fixture, mut observer) = (ConsumerFixture::new(), |_: &StoredEvent<'_>| {});
    let settings = fixture.settings();
    fixture.produce(EVENTS, 3);
    fixture.produce_to((EVENTS, 1), 2);
    for [more_of_0, more_of_1] in [[3, 2], [8, 7]] {
        fixture.mock.partition_leader(EVENTS, 1, None).unwrap();
        let mut consumer = Consumer::new(&settings, Options::default(), &mut observer, &fixture.stop).unwrap();
        rounds_until(&mut consumer, |_| next_offset(&fixture, EVENTS) == Some(more_of_0));
        assert!(next_offset_of(&fixture, EVENTS, 1).unwrap_or(0) < more_of_1);
        fixture.mock.partition_leader(EVENTS, 1, Some(1)).unwrap();
        rounds_until(&mut consumer, |_| next_offset_of(&fixture, EVENTS, 1) == Some(more_of_1));
        consumer.end();
        fixture.produce(EVENTS, 5);
        fixture.produce_to((EVENTS, 1), 5);
    }
}

#[test]
fn after_a_stop_no_topic_is_started() {
    let (fixture, mut observer) = (ConsumerFixture::new(), |_: &StoredEvent<'_>| {});
    let settings = fixture.settings();
    let mut consumer = Consumer::new(&settings, Options::default(), &mut observer, &fixture.stop).unwrap();
    rounds_until(&mut consumer, are_read);
    fixture.stop.store(true, Ordering::Relaxed);
    consumer.stop_reading_all(Duration::ZERO);
    consumer.round().unwrap();
    assert_eq!(consumer.topics.iter().filter(|topic| topic.state.has_offsets()).count(), 0);
    consumer.end();
}

#[test]
fn an_end_waits_for_the_database_once() {
    let (fixture, mut observer) = (ConsumerFixture::new(), |_: &StoredEvent<'_>| {});
    let settings = fixture.settings();
    for is_locked in [false, true] {
        fixture.stop.store(false, Ordering::Relaxed);
        let mut consumer = Consumer::new(&settings, Options::default(), &mut observer, &fixture.stop).unwrap();
        rounds_until(&mut consumer, are_read);
        fixture.produce(EVENTS, 1);
        fixture.produce(SAMPLES, 1);
        collect(&mut consumer, |consumer| consumer.topics.iter().all(Topic::is_collecting));
        let lock = fixture.sql();
        if is_locked {
            lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        }
        let began = Instant::now();
        fixture.stop.store(true, Ordering::Relaxed);
        consumer.end();
        assert!(began.elapsed() < STOP_MAX * 2 - Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!([next_offset(&fixture, EVENTS), next_offset(&fixture, SAMPLES)], [Some(1), Some(1)], "{is_locked}");
    }
}
