//! Renamed agents and other machines on the same state directory.

use super::*;

fn open_as(directory: &TempDir, agent: &str, machine_id: &str, second: u64) -> DurableJournal {
    let config = JournalConfig { identity: identity(agent, machine_id), ..config(directory) };
    DurableJournal::open(config, &named(agent, second)).unwrap()
}

fn named(agent: &str, second: u64) -> Stamp {
    Stamp { agent: agent.into(), ..stamp(second) }
}

fn raised_by(agent: &str, id: u64) -> NewEvent {
    NewEvent { stamp: named(agent, 0), body: Body::BreachRaised(breach(id)) }
}

fn place(event: &Event) -> (&str, Epoch, u64) {
    (&event.stamp.agent, event.id.epoch, event.id.seq)
}

#[test]
fn another_name_ends_what_was_open_under_the_old_one_and_begins_an_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let old = open_as(&directory, "localhost", "m", 0).append(vec![raised_by("localhost", 1)]).unwrap();
    let epoch = old[0].id.epoch;

    let mut journal = open_as(&directory, "gw-042", "m", 9);
    assert!(journal.open_breaches().unwrap().is_empty());
    let told = journal.take_own_events();
    let new = journal.append(vec![raised_by("gw-042", 2)]).unwrap();
    let events = all(&mut journal);
    assert_eq!(events.len(), 3);
    assert_eq!(told, events[1..2], "observers are told");
    assert_eq!([place(&events[0]), place(&events[1])], [("localhost", epoch, 1), ("localhost", epoch, 2)]);
    assert_eq!(events[1].stamp.observed_at, stamp(9).observed_at);
    let Body::BreachCleared(cleared) = &events[1].body else { panic!("{:?}", events[1]) };
    assert_eq!((cleared.breach_id.as_str(), cleared.reason.clone()), ("0000000000000001", Some(Reason::Interrupted)));
    assert_eq!((place(&new[0]).0, place(&new[0]).2), ("gw-042", 1));
    assert_ne!(new[0].id.epoch, epoch);

    drop(journal);
    let mut again = open_as(&directory, "gw-042", "m", 10);
    assert_eq!(all(&mut again), events, "once");
    assert_eq!(again.open_breaches().unwrap().len(), 1);
}

/// Declared under the new name, the events would be missing under the old one for ever.
#[test]
fn what_is_lost_of_a_former_name_is_declared_under_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open_as(&directory, "localhost", "m", 0);
    let old = journal.append(vec![raised_by("localhost", 1), raised_by("localhost", 2)]).unwrap();
    drop(journal);
    let epoch = old[0].id.epoch;
    drop(open_as(&directory, "gw-042", "m", 9));
    let mut journal = open_as(&directory, "gw-042", "m", 10);
    let new = journal.append(vec![raised_by("gw-042", 3)]).unwrap();
    journal.reject(old[0].id, "too large", named("gw-042", 11)).unwrap();
    journal.reject(new[0].id, "too large", named("gw-042", 12)).unwrap();
    let events = all(&mut journal);
    let losses: Vec<_> = events.iter().filter(|event| matches!(event.body, Body::Loss(_))).collect();
    assert_eq!(place(losses[0]), ("localhost", epoch, 5), "after the two ends of its breaches");
    assert!(matches!(&losses[0].body, Body::Loss(loss) if loss.epoch == epoch && loss.ranges == [(1, 1)]));
    assert_eq!((place(losses[1]).0, place(losses[1]).2), ("gw-042", 2));
    // The numbers of either name have no gaps except the declared ones.
    for (name, epoch) in [("localhost", epoch), ("gw-042", new[0].id.epoch)] {
        let of_it: Vec<&Arc<Event>> = events.iter().filter(|event| event.stamp.agent == name).collect();
        let mut seqs: Vec<u64> = of_it.iter().map(|event| event.id.seq).collect();
        for event in &of_it {
            assert_eq!(event.id.epoch, epoch);
            let Body::Loss(loss) = &event.body else { continue };
            seqs.extend(loss.ranges.iter().flat_map(|(from, to)| *from..=*to));
        }
        seqs.sort_unstable();
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{name}: {seqs:?}");
    }
}

#[test]
fn another_machine_begins_an_epoch_and_forgets_what_was_open_whatever_its_name() {
    for name in ["localhost", "gw-042"] {
        let directory = tempfile::tempdir().unwrap();
        let old = open_as(&directory, "localhost", "m", 0).append(vec![raised_by("localhost", 1)]).unwrap();
        let mut journal = open_as(&directory, name, "n", 9);
        assert!(journal.open_breaches().unwrap().is_empty());
        assert_eq!(all(&mut journal), old, "the original may still be at it: nothing is said in its name");
        let new = journal.append(vec![raised_by(name, 2)]).unwrap();
        assert_eq!((place(&new[0]).0, new[0].id.seq), (name, 1));
        assert_ne!(new[0].id.epoch, old[0].id.epoch);
    }
}

#[test]
fn a_damaged_journal_still_knows_its_former_names() {
    let directory = tempfile::tempdir().unwrap();
    let old = open_as(&directory, "localhost", "m", 0).append(vec![raised_by("localhost", 1); 9]).unwrap();
    open_as(&directory, "gw-042", "m", 9).append(vec![raised_by("gw-042", 2)]).unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    let sql = "UPDATE events SET crc = crc + 1 WHERE seq = 4";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    drop(connection);
    let mut journal = open_as(&directory, "gw-042", "m", 10);
    let loss = all(&mut journal).into_iter().find(|event| matches!(event.body, Body::Loss(_))).unwrap();
    assert_eq!(place(&loss), ("localhost", old[0].id.epoch, 11), "after nine events and the end of their breach");
    assert_eq!(journal.lost().damaged, 1);
}

#[test]
fn epochs_do_not_repeat() {
    let epochs: std::collections::BTreeSet<Epoch> = (0..64).map(|_| random_epoch()).collect();
    assert_eq!(epochs.len(), 64);
}
