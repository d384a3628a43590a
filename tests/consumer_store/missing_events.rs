//! Each event that is missing is counted once, with its cause: declared, a dead letter, or never arrived.

use highwater::consumer::batch::{Gap, GapCause};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::message::{Body, Epoch, Event, EventId, Reason, SEQ_MAX};
use highwater::wire;

use super::{StoreFixture, on_both, payloads};
use crate::support::events::{event, loss, sample, updated};
use crate::support::stores::{StoreDatabase, insert_checkpoint, topic_id};

on_both!("consumer_store::missing_events":
    sequences_merge_and_gaps_show_unless_declared,
    what_is_missing_is_counted_once,
    what_is_declared_twice_is_missing_once,
    what_a_crash_cost_has_no_number,
    what_a_start_left_out_is_not_missing,
);

fn sequences_merge_and_gaps_show_unless_declared(fixture: &mut StoreFixture) {
    fixture.store(&payloads([2, 3, 9, 10]));
    fixture.store(&payloads([5]));
    fixture.store(&payloads([4]));
    assert_eq!(fixture.ask("SELECT first_seq, last_seq FROM agent_sequences"), "2,5 9,10");
    assert_eq!(fixture.ask("SELECT first_seq FROM sequence_gaps"), "", "they are too young to be told");
    let old = match fixture.database {
        StoreDatabase::Sqlite(_) => "UPDATE agent_sequences SET first_stored_at = '2026-01-01T00:00:00.000000Z'",
        StoreDatabase::Postgres(_) => "UPDATE agent_sequences SET first_stored_at = now() - interval '6 minutes'",
    };
    fixture.run(old);
    assert_eq!(
        fixture.ask("SELECT agent, epoch, first_seq, last_seq, missing FROM sequence_gaps"),
        "gw,0000000000005f0c,1,1,1 gw,0000000000005f0c,6,8,3"
    );
    fixture.store_events(&[event("gw", 11, loss(6, 7))]);
    assert_eq!(fixture.ask("SELECT first_seq, last_seq, reason, detail FROM losses"), "6,7,evicted,");
    assert_eq!(fixture.ask("SELECT first_seq, last_seq FROM sequence_gaps"), "1,1 8,8");
}

/// A number is missing once, however many causes account for it.
fn what_is_missing_is_counted_once(fixture: &mut StoreFixture) {
    // Agent and number are known, but they are no events.
    let unreadable = |seq| {
        let text = String::from_utf8(wire::to_json(&updated("gw", seq))).unwrap();
        text.replace("\"direction\":\"rx\"", "\"direction\":\"up\"").into_bytes()
    };
    fixture.store(&[unreadable(2), unreadable(2), unreadable(3)]);
    // No agent counts so far: the number says nothing.
    let of_no_count = String::from_utf8(unreadable(8)).unwrap().replace("\"seq\":8", "\"seq\":4611686018427387904");
    fixture.store(&[of_no_count.into_bytes()]);
    fixture.store_events(&[updated("gw", 1), event("gw", 4, loss(3, 3))]);
    assert_eq!(
        fixture.ask("SELECT seq, claims FROM (SELECT seq, count(*) AS claims FROM dead_letters GROUP BY seq) AS d"),
        ",1 2,2 3,1"
    );
    assert_eq!(
        fixture.ask("SELECT first_seq, last_seq, missing, cause FROM missing_events"),
        ",,1,dead_letter 2,2,1,dead_letter 3,3,1,declared"
    );
}

/// An agent that crashed before it had noted a declaration sends it again, under another number, and perhaps with more in it.
fn what_is_declared_twice_is_missing_once(fixture: &mut StoreFixture) {
    let declared = |seq, first, last| event("gw", seq, loss(first, last));
    fixture.store_events(&[declared(1, 10, 19), declared(2, 10, 19), declared(3, 15, 24), declared(4, 12, 13)]);
    // 20 came after all. Another epoch has numbers of its own.
    let mut others = declared(1, 10, 19);
    others.id.epoch = Epoch(7);
    let Body::Loss(of_others) = &mut others.body else { unreachable!() };
    of_others.epoch = Epoch(7);
    fixture.store_events(&[updated("gw", 20), others]);
    assert_eq!(fixture.ask("SELECT count(*) FROM losses"), "5");
    assert_eq!(
        fixture.ask("SELECT epoch, first_seq, last_seq, missing, cause FROM missing_events"),
        "0000000000000007,10,19,10,declared 0000000000005f0c,10,19,10,declared 0000000000005f0c,20,24,4,declared"
    );
    let whole = declared(5, 1, 1 << 47);
    fixture.store_events(&[whole.clone(), Event { id: EventId { seq: 6, ..whole.id }, ..whole }, declared(7, 30, 40)]);
    assert_eq!(fixture.ask("SELECT count(*) FROM missing_events WHERE epoch = '0000000000005f0c'"), "1");
}

/// An agent that crashed knows from which sample on Kafka may lack some, and not how many it had counted.
fn what_a_crash_cost_has_no_number(fixture: &mut StoreFixture) {
    let mut crashed = event("gw", 1, loss(3, SEQ_MAX));
    let Body::Loss(loss) = &mut crashed.body else { unreachable!() };
    (loss.epoch, loss.reason) = (sample("gw", 1).id.epoch, Reason::Interrupted);
    // Some came that the agent did not know to have arrived, and one of these never did.
    fixture.store_events(&[1, 2, 3, 4, 6].map(|seq| sample("gw", seq)));
    fixture.store_events(&[crashed]);
    fixture.run("UPDATE agent_sequences SET first_stored_at = '2026-01-01T00:00:00.000000Z'");
    let missing = "SELECT first_seq, last_seq, missing, cause, reason FROM missing_events";
    assert_eq!(fixture.ask(missing), "3,,,declared,interrupted");
    assert_eq!(fixture.ask("SELECT agent, missing_events FROM agents"), "gw,0");
}

/// Reading began in the middle of a topic: what came before is no loss, but for series that began later.
fn what_a_start_left_out_is_not_missing(fixture: &mut StoreFixture) {
    let gap = Gap { first: 0, last: 19, cause: GapCause::SkippedAtStart };
    insert_checkpoint(&mut *fixture.store, &topic_id("events"), 1, &Checkpoint::default(), Some(gap)).unwrap();
    fixture.run("UPDATE kafka_gaps SET noticed_at = '2020-01-01T00:00:00.000000Z'");
    fixture.store(&payloads([21, 22, 25]));
    let mut later = updated("gw", 3);
    later.id.epoch = Epoch(7);
    // An agent that was not heard of before has not begun before either.
    fixture.store_events(&[later, updated("newcomer", 4)]);
    for (which, at) in
        [("agent = 'gw'", "2020-01-05"), ("first_seq = 3", "2020-01-06"), ("agent = 'newcomer'", "2020-03-01")]
    {
        fixture.run(&format!("UPDATE agent_sequences SET first_stored_at = '{at}T00:00:00.000000Z' WHERE {which}"));
    }
    assert_eq!(
        fixture.ask("SELECT agent, epoch, first_seq, last_seq, cause FROM missing_events"),
        "gw,0000000000000007,1,2,undeclared gw,0000000000005f0c,23,24,undeclared newcomer,0000000000005f0c,1,3,undeclared"
    );
}
