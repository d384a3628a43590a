use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::*;
use crate::consumer::batch::Fingerprint;
use crate::consumer::checkpoint::{AnchorRecord, Checkpoint};
use crate::kafka::RawConnection;
use crate::kafka::offsets::PartitionsError;
use crate::wire::{Format, NoRegistry, Schemas, Undecoded, WriterSchema};

const TOPIC: &str = "t";
const OTHER: &str = "u";

const T0: TopicPartition = TopicPartition { topic: 0, partition: 0 };
const T1: TopicPartition = TopicPartition { topic: 0, partition: 1 };
const U0: TopicPartition = TopicPartition { topic: 1, partition: 0 };

/// A broker with a topic of two partitions and one of one, and a member of a group that has all of them.
struct SourceFixture {
    mock: MockCluster<'static, DefaultProducerContext>,
    source: Source,
}

fn membership() -> Membership {
    Membership { topics: vec![TOPIC.into(), OTHER.into()], group: "g".into(), instance: String::new() }
}

impl SourceFixture {
    fn new(decoder: Decoder, give_up: Option<Duration>) -> Self {
        Self::of(2, decoder, give_up)
    }

    fn of(partitions: usize, decoder: Decoder, give_up: Option<Duration>) -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(TOPIC, partitions as i32, 1).unwrap();
        mock.create_topic(OTHER, 1, 1).unwrap();
        let raw = RawConnection { brokers: Some(mock.bootstrap_servers()), ..RawConnection::default() };
        let source = Source::new(&Connection::new(raw, None).unwrap(), &membership(), decoder, give_up).unwrap();
        Self { mock, source }
    }

    fn produce(&self, at: TopicPartition, payloads: &[&[u8]]) {
        self.produce_to(&[at], payloads);
    }

    fn produce_to(&self, partitions: &[TopicPartition], payloads: &[&[u8]]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.mock.bootstrap_servers());
        let producer: BaseProducer = config.create().unwrap();
        for (at, payload) in partitions.iter().flat_map(|at| payloads.iter().map(move |payload| (at, payload))) {
            let record: BaseRecord<'_, (), [u8]> =
                BaseRecord::to([TOPIC, OTHER][at.topic]).partition(at.partition).payload(payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }

    fn poll_until(&mut self, records: &mut Vec<(TopicPartition, i64)>, mut found: impl FnMut(&Polled) -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            let polled = self.source.poll(Duration::from_millis(50));
            match &polled {
                Polled::Record(at, record) => records.push((*at, record.offset)),
                Polled::PositionLost(why) => panic!("{why}"),
                _ => {}
            }
            if found(&polled) {
                return;
            }
        }
        panic!("not within 20 s; {records:?}");
    }

    fn assign_all(&mut self) {
        self.poll_until(
            &mut Vec::new(),
            |polled| matches!(polled, Polled::Assigned(partitions) if *partitions == [T0, T1, U0]),
        );
        self.source.assign_offsets(&BTreeMap::from([(T0, 0), (T1, 0), (U0, 0)])).unwrap();
    }

    fn read(&mut self, count: usize) -> Vec<(TopicPartition, i64)> {
        let mut records = Vec::new();
        let mut left = count;
        self.poll_until(&mut records, |polled| {
            left -= usize::from(matches!(polled, Polled::Record(..)));
            left == 0
        });
        records.sort_by_key(|(at, _)| *at);
        records
    }

    fn read_all(&mut self) -> Vec<(TopicPartition, i64)> {
        let (mut records, until) = (Vec::new(), Instant::now() + Duration::from_millis(700));
        self.poll_until(&mut records, |_| Instant::now() > until);
        records
    }
}

/// A registry that is unavailable until the flag is cleared.
struct Away(Arc<AtomicBool>, Duration);

impl Schemas for Away {
    fn schema(&mut self, _: u32) -> Result<Arc<WriterSchema>, Undecoded> {
        if self.0.load(Ordering::Relaxed) {
            let wait = Duration::from_secs(3);
            return Err(Undecoded::Transient { why: "away".into(), wait, lasted: self.1 });
        }
        Ok(Arc::new(WriterSchema::parse(Some("AVRO"), Format::Avro.schema()).unwrap()))
    }
}

const FRAMED: &[u8] = b"\0\0\0\0\x07nonsense";

#[test]
fn what_was_paused_is_read_from_its_assigned_offset() {
    let mut fixture = SourceFixture::new(Decoder::new(NoRegistry), None);
    fixture.produce(T0, &[b"a", b"b"]);
    fixture.produce(T1, &[b"c"]);
    fixture.assign_all();
    assert_eq!(fixture.read(3), [(T0, 0), (T0, 1), (T1, 0)]);
    fixture.source.pause(&[T0, T1]).unwrap();
    fixture.source.assign_offsets(&BTreeMap::from([(T0, 1), (T1, 0)])).unwrap();
    assert_eq!(fixture.read(2), [(T0, 1), (T1, 0)]);
    fixture.source.pause(&[T0, T1]).unwrap();
    fixture.source.pause(&[T0, T1]).unwrap();
    fixture.produce(T1, &[b"d"]);
    fixture.source.resume(&[T0, T1]).unwrap();
    assert_eq!(fixture.read_all(), []);
    fixture.source.resume(&[T0, T1]).unwrap();
    assert_eq!(fixture.read(1), [(T1, 1)]);
}

/// Of many partitions, librdkafka may still be stopping the last ones when it has taken the next assignment.
#[test]
fn a_partition_that_is_placed_has_no_position_before_it_is_read() {
    let all: Vec<TopicPartition> = (0..100).map(|partition| TopicPartition { topic: 0, partition }).collect();
    let mut fixture = SourceFixture::of(all.len(), Decoder::new(NoRegistry), None);
    fixture.produce_to(&all, &[b"a"]);
    fixture.poll_until(&mut Vec::new(), |polled| matches!(polled, Polled::Assigned(_)));
    let first: BTreeMap<TopicPartition, i64> = all.iter().map(|at| (*at, 0)).collect();
    for _ in 0..3 {
        fixture.source.assign_offsets(&first).unwrap();
        assert_eq!(fixture.source.positions(), BTreeMap::new());
        fixture.read(all.len());
        assert_eq!(fixture.source.positions().len(), all.len());
    }
}

#[test]
fn a_message_that_waits_for_its_schema_holds_up_its_own_partition() {
    let away = Arc::new(AtomicBool::new(true));
    let years = Duration::from_secs(10 * 365 * 86_400);
    let mut fixture = SourceFixture::new(Decoder::new(Away(Arc::clone(&away), years)), None);
    fixture.produce(T0, &[b"a", FRAMED, b"b"]);
    fixture.produce(T1, &[b"c"]);
    fixture.assign_all();
    assert_eq!(fixture.read(2), [(T0, 0), (T1, 0)]);
    assert_eq!(fixture.read_all(), []);
    assert_eq!(fixture.source.positions().keys().collect::<Vec<_>>(), [&T1], "where it waits no offset is passed");
    fixture.source.pause(&[T0, T1]).unwrap();
    fixture.source.resume(&[T0, T1]).unwrap();
    fixture.produce(T1, &[b"d"]);
    assert_eq!(fixture.read(1), [(T1, 1)]);
    assert_eq!(fixture.read_all(), []);
    fixture.source.pause(&[T0, T1]).unwrap();
    away.store(false, Ordering::Relaxed);
    assert_eq!(fixture.read_all(), []);
    fixture.source.resume(&[T0, T1]).unwrap();
    assert_eq!(fixture.read(2), [(T0, 1), (T0, 2)]);
    assert_eq!(fixture.source.positions().get(&T0), Some(&3));
}

#[test]
fn a_schema_that_is_away_for_too_long_is_given_up() {
    let away = Arc::new(AtomicBool::new(true));
    let lasted = Duration::from_secs(900);
    let mut fixture = SourceFixture::new(Decoder::new(Away(away, lasted)), Some(lasted));
    fixture.produce(T0, &[FRAMED, b"b"]);
    fixture.assign_all();
    let mut error = String::new();
    fixture.poll_until(&mut Vec::new(), |polled| match polled {
        Polled::Record(T0, record) => {
            error = record.content.as_ref().unwrap_err().clone();
            true
        }
        _ => false,
    });
    assert_eq!(error, "no schema for 15 min: away; once there is one, run `highwater-consumer dead-letters retry`");
    assert_eq!(fixture.read(1), [(T0, 1)]);
}

#[test]
fn a_topic_is_paused_and_placed_without_the_other() {
    let mut fixture = SourceFixture::new(Decoder::new(NoRegistry), None);
    fixture.produce(T0, &[b"a"]);
    fixture.produce(U0, &[b"b", b"c"]);
    fixture.assign_all();
    assert_eq!(fixture.read(3), [(T0, 0), (U0, 0), (U0, 1)]);
    fixture.source.pause(&[T0, T1]).unwrap();
    fixture.produce(T0, &[b"d"]);
    fixture.produce(U0, &[b"e"]);
    assert_eq!((fixture.read(1), fixture.read_all()), (vec![(U0, 2)], vec![]));
    assert_eq!(fixture.source.positions().get(&U0), Some(&3));
    fixture.source.assign_offsets(&BTreeMap::from([(U0, 1)])).unwrap();
    assert_eq!((fixture.read(2), fixture.read_all()), (vec![(U0, 1), (U0, 2)], vec![]));
    fixture.source.assign_offsets(&BTreeMap::from([(T0, 0), (U0, 3)])).unwrap();
    assert_eq!((fixture.read(2), fixture.read_all()), (vec![(T0, 0), (T0, 1)], vec![]));
}

#[test]
fn a_missing_topic_is_reported_and_the_other_is_read() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(TOPIC, 2, 1).unwrap();
    let raw = RawConnection { brokers: Some(mock.bootstrap_servers()), ..RawConnection::default() };
    let connection = Connection::new(raw, None).unwrap();
    let mut source = Source::new(&connection, &membership(), Decoder::new(NoRegistry), None).unwrap();
    let (mut is_reported, until) = (false, Instant::now() + Duration::from_secs(20));
    let assigned = loop {
        assert!(Instant::now() < until, "not within 20 s");
        match source.poll(Duration::from_millis(50)) {
            Polled::UnknownTopic => is_reported = true,
            Polled::Assigned(partitions) => break partitions,
            _ => {}
        }
    };
    assert!(is_reported && assigned == [T0, T1], "{assigned:?}");
    assert!(matches!(source.partitions(1), Err(PartitionsError::UnknownTopic(_))) && source.partitions(0).is_ok());
    source.close();
}

#[test]
fn a_cluster_has_one_id() {
    let mut fixture = SourceFixture::new(Decoder::new(NoRegistry), None);
    let id = fixture.source.describe(0).unwrap().0.cluster;
    assert!(id.starts_with("mockCluster"), "{id}");
    fixture.assign_all();
    assert_eq!(fixture.source.describe(0).unwrap().0, TopicId { cluster: id, name: TOPIC.into() });
    let raw = RawConnection { brokers: Some("127.0.0.1:1".into()), ..RawConnection::default() };
    let alone =
        Source::new(&Connection::new(raw, None).unwrap(), &membership(), Decoder::new(NoRegistry), None).unwrap();
    assert!(alone.describe(0).is_err());
    alone.close();
}

#[test]
fn known_records_are_read_again_until_one_is_there() {
    let fixture = SourceFixture::new(Decoder::new(NoRegistry), None);
    fixture.produce(T0, &[b"a", b"b", b"c"]);
    fixture.produce(T1, &[b"d"]);
    let print =
        |offset, payload: &[u8]| Fingerprint { timestamp_ms: 0, ..Fingerprint::new(offset, None, None, Some(payload)) };
    let checkpoint = |last, anchor| Checkpoint { last: Some(last), anchor: Some(anchor), ..Checkpoint::default() };
    let known = BTreeMap::from([
        (0, checkpoint(print(2, b"c"), print(1, b"b"))),
        (1, checkpoint(print(1, b"gone"), print(0, b"d"))),
    ]);
    let found = fixture.source.read_again(0, &known).unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
    let digests = |partition: i32| -> Vec<Option<(i64, i64)>> {
        let records = found[&partition].iter();
        records
            .map(|record| match record {
                AnchorRecord::Record(print) => Some((print.offset, print.digest)),
                AnchorRecord::Gone => None,
            })
            .collect()
    };
    let is = |print: Fingerprint| Some((print.offset, print.digest));
    assert_eq!(digests(0), [is(print(2, b"c"))]);
    assert_eq!(digests(1), [None, is(print(0, b"d"))]);
}
