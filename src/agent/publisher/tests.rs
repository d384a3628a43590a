use super::*;
use crate::agent::journal::{Journal, Pending, SqliteJournal};
use crate::kafka::RawConnection;
use crate::message::{Body, Event, Lifecycle, NewEvent};
use crate::units::ByteCount;

/// A journal that cannot declare a rejected event lost.
struct Stubborn(SqliteJournal);

impl Journal for Stubborn {
    fn append(&mut self, new_events: Vec<NewEvent>) -> Result<Vec<Arc<Event>>, JournalError> {
        self.0.append(new_events)
    }

    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        self.0.remove(ids)
    }

    fn reject(&mut self, _id: EventId, _detail: &str, _stamp: Stamp) -> Result<(), JournalError> {
        Err(JournalError::Damaged("stubborn".to_owned()))
    }

    fn batch(&mut self, after: Position, events: usize, bytes: usize) -> Result<Vec<QueuedEvent>, JournalError> {
        self.0.batch(after, events, bytes)
    }

    fn pending(&self) -> Pending {
        self.0.pending()
    }

    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError> {
        self.0.open_breaches()
    }

    fn upkeep(&mut self, stamp: &Stamp) -> Result<(), JournalError> {
        self.0.upkeep(stamp)
    }
}

fn settings() -> Settings {
    Settings {
        connection: Connection::new(RawConnection::default(), None).expect("it can work"),
        topic: "t".to_owned(),
        encoding: Encoding::default(),
        in_flight: InFlightLimits::SMALL,
        interval: Duration::ZERO,
        linger: Duration::MAX,
        spread: Spread::default(),
        urgent: Vec::new(),
        events_max: 500,
        journal_bytes: 16 << 20,
        waiting: "the events wait in memory",
        create_topics: None,
    }
}

fn stamp() -> Stamp {
    Stamp {
        agent: "gw".into(),
        observed_at: chrono::DateTime::UNIX_EPOCH,
        boot_id: String::new(),
        monotonic_ms: 0,
        clock_synced: None,
    }
}

/// Each event is sent at once from then on, also one that was held back before.
#[test]
fn what_was_held_back_is_sent_once_nothing_is_held_back() {
    let journal = SqliteJournal::in_memory(ByteCount::from_bytes(1 << 20)).unwrap();
    let mut system = EventSystem::new(Box::new(journal));
    let hours = Settings { interval: Duration::from_secs(36_000), ..settings() };
    let mut publisher = Publisher::new(hours.clone(), false, Duration::ZERO);
    system.subscribe(publisher.observer());
    let body = Body::AgentStarted(Lifecycle { version: "1".into(), reason: None, detail: None });
    system.add_events(vec![NewEvent { stamp: stamp(), body }]).unwrap();
    (publisher.first_flush, publisher.next_flush) = (None, Duration::from_secs(36_000));
    let mut is_flushing = |publisher: &mut Publisher| {
        publisher.poll(&mut system, Duration::from_secs(1), stamp, || Err(io::ErrorKind::Unsupported.into())).unwrap();
        publisher.flushing
    };
    assert!(!is_flushing(&mut publisher));
    publisher.reconfigure(settings(), Duration::from_secs(1));
    assert!(is_flushing(&mut publisher));
}

#[test]
fn what_was_delivered_is_removed_though_a_rejected_event_cannot_be_declared_lost() {
    let journal = SqliteJournal::in_memory(ByteCount::from_bytes(1 << 20)).unwrap();
    let mut system = EventSystem::new(Box::new(Stubborn(journal)));
    let body = Body::AgentStarted(Lifecycle { version: "1".into(), reason: None, detail: None });
    let new_events = vec![NewEvent { stamp: stamp(), body }; 4];
    let mut publisher = Publisher::new(settings(), false, Duration::ZERO);
    let ids: Vec<EventId> = system.add_events(new_events).unwrap().iter().map(|event| event.id).collect();
    for id in &ids {
        publisher.in_flight.push(*id);
    }
    let delivered = |serial| {
        WorkerReport::Delivered(vec![Acknowledgement {
            serial,
            bytes: 0,
            partition: 0,
            offset: serial.try_into().unwrap(),
        }])
    };
    let rejected = |serial| WorkerReport::Rejected { serial, bytes: 0, reason: "no".to_owned() };
    let reports =
        vec![delivered(0), rejected(1), rejected(2), delivered(3), WorkerReport::Refusing { what: "no".into() }];
    assert!(publisher.process_reports(reports, &mut system, &stamp).is_err());
    assert_eq!(system.pending().events, 2, "the two that were rejected");
    assert!(publisher.in_flight.is_empty());
    let progress = publisher.progress();
    assert_eq!((progress.delivered, progress.rejected, progress.refusing), (2, 0, true));
}
