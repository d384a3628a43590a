//! A message that cannot be a row is a dead letter, and its neighbours are rows.

use chrono::Utc;
use highwater::consumer::batch::{Batch, Record};
use highwater::consumer::store::StoreError;
use highwater::message::Body;
use highwater::wire;

use super::{StoreFixture, on_both, payloads};
use crate::support::events::{breach, event, started, updated};
use crate::support::postgres::Postgres;
use crate::support::stores::{batch_of, topic_id};

on_both!("consumer_store::dead_letters":
    what_is_no_event_is_a_dead_letter_among_its_neighbours,
    a_dead_letter_is_kept_whatever_it_claims,
    times_that_no_database_has_are_dead_letters,
);

fn what_is_no_event_is_a_dead_letter_among_its_neighbours(fixture: &mut StoreFixture) {
    let long = "x".repeat(300);
    let bad: [Vec<u8>; 5] = [
        b"\xff\xfe\x00 garbage".to_vec(),
        Vec::new(),
        br#"{"agent": "#.to_vec(),
        String::from_utf8(wire::to_json(&updated("gw", 7))).unwrap().replace(":7,", ":9223372036854775808,").into(),
        wire::to_json(&updated(&long, 1)),
    ];
    let mut all = payloads([1]);
    all.extend(bad);
    all.extend(payloads([2]));
    let applied = fixture.store(&all);
    assert_eq!((applied.inserted, applied.rejected.len()), (2, 5));
    assert_eq!(fixture.ask("SELECT count(*), min(kafka_offset), max(kafka_offset) FROM dead_letters"), "5,1,5");
    assert_eq!(fixture.ask("SELECT seq, kafka_offset FROM events"), "1,0 2,6");
    assert_eq!(fixture.ask("SELECT length(payload) FROM dead_letters WHERE kafka_offset = 1"), "11");
    // Alone in a quiet topic.
    assert_eq!(fixture.store(&[b"garbage".to_vec()]).rejected.len(), 1);
    assert_eq!(fixture.checkpoint().next_offset, 8);
    assert_eq!(fixture.store(&payloads([3])).inserted, 1);
}

fn a_dead_letter_is_kept_whatever_it_claims(fixture: &mut StoreFixture) {
    let named = |agent: &str, seq| wire::to_json(&updated(agent, seq));
    let claims = [
        named("gw\0", 1),
        named("gw\u{202e}\n", 2),
        wire::to_json(&event("gw", i64::MAX as u64, started())),
        b"\xff".to_vec(),
    ];
    let mut batch = Batch::new(&topic_id("events"));
    for (offset, payload) in (0..).zip(&claims) {
        let times = [Some(i64::MIN), Some(-62_200_000_000_000), Some(i64::MAX), Some(-1)];
        let record = Record::new(offset, times[offset as usize], Some(b"\0"), Some(payload));
        batch.push(0, Record { content: Err("no \0 event".into()), ..record }, || (0, 0));
    }
    assert_eq!(fixture.store.apply(&batch, Utc::now()).unwrap().rejected.len(), 4);
    assert_eq!(fixture.ask("SELECT count(*), count(kafka_timestamp) FROM dead_letters"), "4,1");
}

fn times_that_no_database_has_are_dead_letters(fixture: &mut StoreFixture) {
    let event = String::from_utf8(wire::to_json(&event("gw", 1, Body::BreachUpdated(breach("b", 1))))).unwrap();
    let field = |name: &str| {
        let from = event.find(&format!("\"{name}\":\"")).unwrap();
        let value = event[from + name.len() + 4..].split('"').next().unwrap();
        format!("\"{name}\":\"{value}\"")
    };
    let mut all = Vec::new();
    for year in ["0000", "-0001", "-4714", "+10000", "+262142"] {
        for name in ["observed_at", "started_at", "raised_at", "ended_at"] {
            all.push(event.replace(&field(name), &format!("\"{name}\":\"{year}-01-01T00:00:00Z\"")).into_bytes());
        }
    }
    all.extend(payloads([2]));
    let applied = fixture.store(&all);
    assert_eq!((applied.inserted, applied.rejected.len()), (1, 20), "{:?}", applied.rejected);
    for (refused, name) in
        applied.rejected.iter().zip(["observed_at", "started_at", "raised_at", "ended_at"].iter().cycle())
    {
        assert!(refused.error.contains(name), "{refused:?}");
    }
}

/// Rows that PostgreSQL is known to refuse.
#[test]
fn rows_that_postgres_refuses_are_dead_letters_and_their_neighbours_are_rows() {
    let Some(postgres) = Postgres::or_skip(
        "consumer_store::dead_letters::rows_that_postgres_refuses_are_dead_letters_and_their_neighbours_are_rows",
    ) else {
        return;
    };
    let mut fixture = StoreFixture::postgres(&postgres);
    // Too long for an index, and not to be compressed.
    let long: String = (0..20_000).map(|_| fastrand::alphanumeric()).collect();
    let odd = |seq| wire::to_json(&event("gw", seq, Body::BreachUpdated(breach(&long, seq))));
    let mut all = payloads(1..=50);
    all.insert(10, odd(101));
    all.insert(30, odd(102));
    all.push(odd(103));
    let applied = fixture.store(&all);
    assert_eq!((applied.inserted, applied.rejected.len()), (50, 3), "{applied:?}");
    assert!(applied.rejected[0].error.contains("breach_id"), "{applied:?}");
    // Alone, and all of a batch.
    assert_eq!(fixture.store(&[odd(104)]).rejected.len(), 1);
    assert_eq!(fixture.store(&[odd(105), odd(106), odd(107)]).rejected.len(), 3);
    assert_eq!(fixture.ask("SELECT count(*) FROM dead_letters"), "7");
    assert_eq!(fixture.ask("SELECT first_seq, last_seq FROM agent_sequences"), "1,50");
    assert_eq!(fixture.checkpoint().next_offset, 57);
}

/// A database that refuses everything is broken, not the messages.
#[test]
fn a_database_that_refuses_its_own_probe_makes_no_dead_letters() {
    let test = "consumer_store::dead_letters::a_database_that_refuses_its_own_probe_makes_no_dead_letters";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut fixture = StoreFixture::postgres(&postgres);
    fixture.run("ALTER TABLE events ADD CONSTRAINT broken CHECK (seq < 0) NOT VALID");
    let fault = fixture.store.apply(&batch_of(0, &payloads(1..=5)), Utc::now()).unwrap_err();
    assert!(matches!(&fault, StoreError::Misconfigured(text) if text.contains("broken")), "{fault:?}");
    assert_eq!(fixture.ask("SELECT count(*) FROM dead_letters"), "0");
    fixture.run("ALTER TABLE events DROP CONSTRAINT broken");
    assert_eq!(fixture.store(&payloads(1..=5)).inserted, 5);
}
