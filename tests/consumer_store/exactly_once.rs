//! Each offset of a partition is stored once and none is passed over: replays, identities under two times, other consumers, holes
//! and checkpoints.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{TimeDelta, Utc};
use highwater::consumer::batch::{Batch, Fingerprint, Gap, GapCause, Record, TopicId};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::StoreError;
use highwater::message::Event;
use highwater::wire;

use super::{StoreFixture, on_both, payloads};
use crate::support::events::{breach, updated};
use crate::support::postgres::Postgres;
use crate::support::stores::{batch_of, insert_checkpoint, topic_id};

on_both!("consumer_store::exactly_once":
    a_replay_changes_nothing,
    a_batch_before_its_turn_moves_nothing,
    what_is_stored_already_is_passed_over,
    a_partition_taken_by_another_is_left_to_it,
    another_generation_is_left_alone,
    holes_pass_and_gaps_are_written_down,
    offsets_without_records_are_passed,
    one_identity_with_two_times_is_two_rows_and_counted_once,
    identities_with_two_times_are_counted_whatever_their_number,
    last_and_anchor_are_remembered,
    a_place_is_replaced_only_from_what_it_was,
    checkpoints_are_by_cluster_and_topic,
);

fn expired(first: i64, last: i64) -> Gap {
    Gap { first, last, cause: GapCause::Expired }
}

fn a_replay_changes_nothing(fixture: &mut StoreFixture) {
    let events = payloads(1..=100);
    assert_eq!(fixture.store(&events).inserted, 100);
    // These messages come again, further on in the topic: an agent that sent them twice.
    let again = fixture.store(&events);
    assert_eq!((again.inserted, again.identity_conflicts.len()), (0, 0));
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT seq), sum(seq) FROM events"), "100,100,5050");
    assert_eq!(fixture.ask("SELECT first_seq, last_seq, identity_conflicts FROM agent_sequences"), "1,100,0");
    assert_eq!(fixture.checkpoint().next_offset, 200);
}

fn a_batch_before_its_turn_moves_nothing(fixture: &mut StoreFixture) {
    fixture.store(&payloads(1..=3));
    let fault = fixture.store.apply(&batch_of(5, &payloads(6..=7)), Utc::now()).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)), "{fault:?}");
    assert_eq!(fixture.ask("SELECT count(*) FROM events"), "3");
    assert_eq!(fixture.checkpoint().next_offset, 3);
    assert_eq!(fixture.store(&payloads(4..=5)).inserted, 2);
}

fn what_is_stored_already_is_passed_over(fixture: &mut StoreFixture) {
    fixture.store(&payloads(1..=3));
    // Killed between the database's commit and Kafka's: the same offsets come again, with more behind them.
    let applied = fixture.store.apply(&batch_of(0, &payloads(1..=5)), Utc::now()).unwrap();
    assert_eq!((applied.inserted, applied.stored[&0]), (2, (3, 5)));
    assert_eq!(fixture.checkpoint().next_offset, 5);
    let behind = fixture.store.apply(&batch_of(0, &payloads(1..=4)), Utc::now()).unwrap();
    assert_eq!((behind.inserted, behind.stored[&0], fixture.checkpoint().next_offset), (0, (4, 4), 5));
}

/// Guard 1 skips by offset, whatever record is there now: that is the difference to guard 2.
fn a_partition_taken_by_another_is_left_to_it(fixture: &mut StoreFixture) {
    let mut other = fixture.another_store();
    fixture.store(&payloads(1..=3));
    other.apply(&batch_of(3, &payloads(4..=9)), Utc::now()).unwrap();
    let late = fixture.store.apply(&batch_of(3, &payloads(104..=106)), Utc::now()).unwrap();
    assert_eq!(late.inserted, 0);
    assert_eq!(fixture.ask("SELECT count(*), max(seq) FROM events"), "9,9");
    assert_eq!(fixture.checkpoint().next_offset, 9);
}

fn another_generation_is_left_alone(fixture: &mut StoreFixture) {
    fixture.store(&payloads(1..=3));
    let old = fixture.checkpoint();
    fixture.store.replace_checkpoint(&topic_id("events"), 0, &old, &old.recreated(0), None).unwrap();
    let fault = fixture.store.apply(&batch_of(3, &payloads(4..=9)), Utc::now()).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)), "{fault:?}");
    assert_eq!(fixture.ask("SELECT count(*) FROM events"), "3");
}

fn holes_pass_and_gaps_are_written_down(fixture: &mut StoreFixture) {
    let mut batch = Batch::new(&topic_id("events"));
    for (offset, seq) in [(3, 1), (4, 2), (9, 3)] {
        let payload = wire::to_json(&updated("gw", seq));
        batch.push(0, Record::new(offset, None, None, Some(&payload)), || (0, 0));
    }
    batch.partitions.get_mut(&0).unwrap().record_expired(3);
    fixture.store.apply(&batch, Utc::now()).unwrap();
    assert_eq!(
        fixture.ask(
            "SELECT kafka_cluster, kafka_partition, topic_generation, first_offset, last_offset, cause FROM kafka_gaps"
        ),
        "c,0,0,0,2,expired"
    );
    assert_eq!(fixture.checkpoint().next_offset, 10);
}

fn offsets_without_records_are_passed(fixture: &mut StoreFixture) {
    fixture.store(&payloads(1..=3));
    let last = fixture.checkpoint().last;
    let mut batch = Batch::new(&topic_id("events"));
    batch.skip_to(0, 0, 3, 8, None);
    fixture.store.apply(&batch, Utc::now()).unwrap();
    assert_eq!((fixture.checkpoint().next_offset, fixture.checkpoint().last), (8, last));
}

fn one_identity_with_two_times_is_two_rows_and_counted_once(fixture: &mut StoreFixture) {
    let moved = |seq, seconds| {
        let mut event = updated("gw", seq);
        event.stamp.observed_at += TimeDelta::seconds(seconds);
        event
    };
    fixture.store_events(&[updated("gw", 1), updated("gw", 2), updated("gw", 3)]);
    // The first is a copy, others have its identity under another time (a day later too), and the last is new.
    let applied = fixture.store_events(&[updated("gw", 1), moved(2, 86_400), updated("gw", 4)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (2, 1), "{applied:?}");
    assert!(applied.identity_conflicts[0].contains("gw 0000000000005f0c-2"), "{applied:?}");
    // Both in one batch.
    let applied = fixture.store_events(&[updated("gw", 5), moved(5, 1)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (2, 1));
    let many: Vec<Event> = (6..=40).map(|seq| updated("gw", seq)).collect();
    assert_eq!(fixture.store_events(&many).identity_conflicts.len(), 0);
    let clones: Vec<Event> = (6..=40).map(|seq| moved(seq, 7)).collect();
    assert_eq!(fixture.store_events(&clones).identity_conflicts.len(), 35);
    // Neither is counted when it comes again.
    let applied = fixture.store_events(&[moved(2, 86_400), updated("gw", 2)]);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (0, 0));
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT seq) FROM events"), "77,40");
    assert_eq!(fixture.ask("SELECT first_seq, last_seq, identity_conflicts FROM agent_sequences"), "1,40,37");
}

/// A row under another time is a conflict, and none where retention has taken the first one: each number decides for itself.
fn identities_with_two_times_are_counted_whatever_their_number(fixture: &mut StoreFixture) {
    let moved = |agent: &str, seq| {
        let mut event = updated(agent, seq);
        event.stamp.observed_at += TimeDelta::seconds(7);
        event
    };
    for agent in ["gw", "other"] {
        fixture.store_events(&(1..=90).map(|seq| updated(agent, seq)).collect::<Vec<_>>());
    }
    fixture.run("DELETE FROM events WHERE seq <= 30 OR seq > 60 OR (agent = 'other' AND seq < 60)");
    let clones: Vec<Event> = ["gw", "other"]
        .iter()
        .flat_map(|agent| (1..=90).map(move |seq| (agent, seq)))
        .map(|(agent, seq)| moved(agent, seq))
        .collect();
    let applied = fixture.store_events(&clones);
    assert_eq!((applied.inserted, applied.identity_conflicts.len()), (180, 31));
    assert_eq!(fixture.ask("SELECT agent, identity_conflicts FROM agent_sequences"), "gw,30 other,1");
}

fn last_and_anchor_are_remembered(fixture: &mut StoreFixture) {
    fixture.store(&payloads(1..=3));
    let first = fixture.checkpoint();
    assert_eq!(first.last.map(|mark| mark.offset), Some(2));
    assert_eq!(first.anchor, first.last);
    fixture.store(&payloads(4..=5));
    let second = fixture.checkpoint();
    assert_eq!((second.last.map(|mark| mark.offset), second.anchor), (Some(4), first.last));
    let payload = wire::to_json(&updated("gw", 5));
    assert_eq!(second.last, Some(Fingerprint::new(4, Some(7), Some(b"k"), Some(&payload))));
}

fn a_place_is_replaced_only_from_what_it_was(fixture: &mut StoreFixture) {
    let mut other = fixture.another_store();
    fixture.store(&payloads(1..=3));
    let old = fixture.checkpoint();
    let new = Checkpoint { next_offset: 50, ..old.clone() };
    fixture.store.replace_checkpoint(&topic_id("events"), 0, &old, &new, Some(expired(3, 49))).unwrap();
    assert_eq!(fixture.ask("SELECT first_offset, last_offset FROM kafka_gaps"), "3,49");
    let fault = other.replace_checkpoint(&topic_id("events"), 0, &old, &new, Some(expired(3, 60))).unwrap_err();
    assert!(matches!(fault, StoreError::Conflict(_)));
    assert_eq!(insert_checkpoint(&mut *other, &topic_id("events"), 0, &Checkpoint::default(), None).unwrap(), new);
    assert_eq!(fixture.ask("SELECT first_offset, last_offset FROM kafka_gaps"), "3,49");
}

/// Without ranges, the primary key alone shows what is stored.
#[test]
fn the_key_decides_where_the_ranges_are_lost() {
    let Some(postgres) = Postgres::or_skip("consumer_store::exactly_once::the_key_decides_where_the_ranges_are_lost")
    else {
        return;
    };
    let mut fixture = StoreFixture::postgres(&postgres);
    fixture.store(&payloads(1..=20));
    fixture.run("DELETE FROM agent_sequences");
    let applied = fixture.store(&payloads(11..=30));
    assert_eq!((applied.inserted, applied.rejected.len()), (10, 0), "{applied:?}");
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT seq) FROM events"), "30,30");
    // An event is twice in one batch.
    let applied = fixture.store(&payloads([31, 32, 31, 33]));
    assert_eq!((applied.inserted, applied.rejected.len(), applied.identity_conflicts.len()), (3, 0, 0), "{applied:?}");
}

/// Agents whose events come by two partitions, to two consumers, and some of them by both: each reads and writes ranges of the
/// other.
#[test]
fn two_consumers_of_the_same_agents_lose_and_double_nothing() {
    let test = "consumer_store::exactly_once::two_consumers_of_the_same_agents_lose_and_double_nothing";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut fixture = StoreFixture::postgres(&postgres);
    let (rounds, agents) = (60_u64, 4_u64);
    insert_checkpoint(&mut *fixture.store, &topic_id("events"), 1, &Checkpoint::default(), None).unwrap();
    let (ended, mut aged) = (AtomicU64::new(0), 0);
    let database = fixture.database.server();
    std::thread::scope(|scope| {
        for partition in 0..2_u64 {
            let mut store = fixture.another_store();
            let ended = &ended;
            scope.spawn(move || {
                for round in 0..rounds {
                    // Each partition brings one of three numbers, and both bring the third.
                    let seqs = [round * 3 + 1 + partition, round * 3 + 3];
                    let told = seqs.into_iter().flat_map(|seq| (0..agents).map(move |agent| (agent, seq)));
                    let mut batch = Batch::new(&topic_id("events"));
                    let from = (round * agents * 2) as i64;
                    for (offset, (agent, seq)) in (from..).zip(told) {
                        let payload = wire::to_json(&updated(&format!("gw-{agent}"), seq));
                        batch.push(partition as i32, Record::new(offset, None, None, Some(&payload)), || (0, from));
                    }
                    // This one may lose to the other more often than it tries; then the consumer, too, comes again.
                    while store.apply(&batch, Utc::now()).is_err() {}
                }
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Maintenance closes gaps of the same series meanwhile, as if they were old.
        while ended.load(Ordering::Relaxed) < 2 {
            // This may be the victim of a deadlock with a consumer; then the ranges are made old in the next round.
            let old = "UPDATE agent_sequences SET first_stored_at = '2020-01-01T00:00:00.000000Z'";
            aged += u64::from(database.client().batch_execute(old).is_ok());
            fixture.retire(400, Utc::now());
        }
    });
    assert!(aged > 0);
    let (last, all) = (rounds * 3, rounds * 3 * agents);
    assert_eq!(fixture.ask("SELECT count(*) FROM events"), all.to_string());
    assert_eq!(fixture.ask("SELECT sum(next_offset) FROM kafka_offsets"), (rounds * agents * 4).to_string());
    assert_eq!(
        fixture.ask("SELECT DISTINCT seq, counted_bytes FROM breach_state"),
        format!("{last},{}", breach("b1", last).excess_bytes)
    );
    assert_eq!(
        fixture.ask("SELECT DISTINCT breaches, excess_bytes FROM totals"),
        format!("1,{}", breach("b1", last).excess_bytes)
    );
    assert_eq!(
        fixture.ask("SELECT sum(last_seq - first_seq + 1), sum(identity_conflicts) FROM agent_sequences"),
        format!("{all},0")
    );
    assert_eq!(fixture.ask("SELECT count(*) FROM missing_events"), "0");
}

/// A consumer that was stopped in the middle of its transaction holds the row; the partition's new owner takes it.
#[test]
fn a_held_partition_is_freed_by_its_owner() {
    let Some(postgres) = Postgres::or_skip("consumer_store::exactly_once::a_held_partition_is_freed_by_its_owner")
    else {
        return;
    };
    let mut fixture = StoreFixture::postgres(&postgres);
    fixture.store(&payloads(1..=3));
    let database = fixture.database.server();
    let mut holder = database.client();
    holder.batch_execute("BEGIN; SELECT next_offset FROM kafka_offsets FOR UPDATE").unwrap();
    let fault = fixture.store.apply(&batch_of(3, &payloads(4..=5)), Utc::now()).unwrap_err();
    assert!(matches!(&fault, StoreError::Unavailable(text) if text.contains("1 ended")), "{fault:?}");
    assert!(holder.batch_execute("SELECT 1").is_err());
    assert_eq!(fixture.store(&payloads(4..=5)).inserted, 2);
}

fn checkpoints_are_by_cluster_and_topic(fixture: &mut StoreFixture) {
    let nine = Checkpoint { next_offset: 9, ..Checkpoint::default() };
    let (other_topic, mut other_cluster) = (TopicId { name: "other".into(), ..topic_id("events") }, topic_id("events"));
    other_cluster.cluster = "d".into();
    for other in [other_topic, other_cluster] {
        insert_checkpoint(&mut *fixture.store, &other, 3, &nine, None).unwrap();
        assert_eq!(fixture.store.checkpoints(&other).unwrap(), BTreeMap::from([(3, nine.clone())]));
    }
    assert_eq!(fixture.store.checkpoints(&topic_id("events")).unwrap().len(), 1);
    // Each begins at an offset 0 of its own, also where a cluster has no id.
    for (cluster, agent) in [("", "one"), ("dd", "other")] {
        let topic = TopicId { cluster: cluster.into(), ..topic_id("events") };
        insert_checkpoint(&mut *fixture.store, &topic, 0, &Checkpoint::default(), None).unwrap();
        let (mut batch, payload) = (Batch::new(&topic), wire::to_json(&updated(agent, 1)));
        batch.push(0, Record::new(0, None, None, Some(&payload)), || (0, 0));
        assert_eq!(fixture.store.apply(&batch, Utc::now()).unwrap().inserted, 1);
    }
    assert_eq!(fixture.ask("SELECT agent, kafka_topic, kafka_offset FROM events"), "one,events,0 other,events,0");
    // The empty id, `c`, which has nothing stored, and `dd`.
    let next = "SELECT length(kafka_cluster), next_offset FROM kafka_offsets WHERE kafka_partition = 0";
    assert_eq!(fixture.ask(next), "0,1 1,0 2,1");
}
