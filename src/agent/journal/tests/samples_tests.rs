//! Samples are in memory alone: the journal knows only what a crash may have cost.

use super::*;
use crate::message::SEQ_MAX;

fn sample(epoch: u64, seq: u64) -> Option<EventId> {
    Some(EventId { epoch: Epoch(epoch), seq })
}

type Declared = (Epoch, Vec<(u64, u64)>, Reason);

fn declared(journal: &mut dyn Journal) -> Vec<Declared> {
    let loss = |event: Arc<Event>| match &event.body {
        Body::Loss(loss) => Some((loss.epoch, loss.ranges.clone(), loss.reason.clone())),
        _ => None,
    };
    all(journal).into_iter().filter_map(loss).collect()
}

fn open_end(epoch: u64, first: u64) -> Declared {
    (Epoch(epoch), vec![(first, SEQ_MAX)], Reason::Interrupted)
}

#[test]
fn the_end_of_samples_is_declared_once_after_a_crash_and_not_after_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    journal.note_samples(sample(5, 1)).unwrap();
    drop(journal);
    let mut journal = open(&directory);
    assert_eq!(journal.take_own_events().len(), 1, "observers are told");
    assert_eq!(declared(&mut journal), [open_end(5, 1)], "another epoch is noted at once");
    assert_eq!(journal.lost(), LossCounts::default(), "how many is not known");

    journal.note_samples(sample(6, 1)).unwrap();
    let mark = || std::fs::read(directory.path().join("journal.db.mark")).unwrap();
    let before = mark();
    (2..40).for_each(|seq| journal.note_samples(sample(6, seq)).unwrap());
    assert_eq!(mark(), before, "further ones of the same are no transactions");
    journal.append(vec![raised(1)]).unwrap();
    journal.note_samples(sample(6, 90)).unwrap();
    drop(journal);
    assert_eq!(declared(&mut open(&directory)), [open_end(5, 1), open_end(6, 39)], "what the last transaction knew");

    let mut journal = open(&directory);
    journal.note_samples(sample(7, 1)).unwrap();
    journal.note_samples(None).unwrap();
    drop(journal);
    assert_eq!(declared(&mut open(&directory)).len(), 2);
}

#[test]
fn a_disk_that_fails_meanwhile_forgets_no_samples() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    journal.note_samples(sample(5, 1)).unwrap();
    journal.fail_over(&simulated_damage()).unwrap();
    journal.note_samples(sample(5, 7)).unwrap();
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!((journal.durability(), declared(&mut journal)), (Durability::OnDisk, Vec::new()), "they go on");
    drop(journal);
    let mut journal = open(&directory);
    assert_eq!(declared(&mut journal), [open_end(5, 7)]);

    // They end in order while the disk is away.
    journal.note_samples(sample(6, 1)).unwrap();
    journal.fail_over(&simulated_damage()).unwrap();
    journal.note_samples(None).unwrap();
    journal.close(&stamp(200)).unwrap();
    drop(journal);
    assert_eq!(declared(&mut open(&directory)), [open_end(5, 7)]);
}

#[test]
fn samples_noted_on_a_disk_that_could_not_be_read_at_the_start_are_declared_later() {
    let directory = tempfile::tempdir().unwrap();
    open(&directory).note_samples(sample(5, 1)).unwrap();
    let (path, elsewhere) = (directory.path().join("journal.db"), directory.path().join("elsewhere"));
    std::fs::rename(&path, &elsewhere).unwrap();
    std::fs::create_dir(&path).unwrap();
    let mut journal = open(&directory);
    assert_eq!(journal.durability(), Durability::InMemory);
    journal.note_samples(sample(6, 1)).unwrap();
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&elsewhere, &path).unwrap();
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!((journal.durability(), declared(&mut journal)), (Durability::OnDisk, vec![open_end(5, 1)]));
    drop(journal);
    assert_eq!(declared(&mut open(&directory)), [open_end(5, 1), open_end(6, 1)]);
}

#[test]
fn samples_of_a_former_name_are_declared_under_it_and_those_of_another_machine_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let old = journal.append(vec![raised(1)]).unwrap();
    journal.note_samples(sample(5, 1)).unwrap();
    drop(journal);
    let opened = |agent: &str, machine_id: &str| {
        let config = JournalConfig { identity: identity(agent, machine_id), ..config(&directory) };
        DurableJournal::open(config, &Stamp { agent: agent.into(), ..stamp(1) }).unwrap()
    };
    let mut journal = opened("gw-043", "machine");
    assert_eq!(declared(&mut journal), [open_end(5, 1)]);
    let loss = all(&mut journal).pop().unwrap();
    assert_eq!((&*loss.stamp.agent, loss.id.epoch), ("gw-042", old[0].id.epoch));
    journal.note_samples(sample(6, 1)).unwrap();
    drop(journal);
    assert_eq!(declared(&mut opened("gw-043", "elsewhere")), [open_end(5, 1)], "the other machine may still run");
}

#[test]
fn a_damaged_journal_still_knows_whose_end_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    journal.note_samples(sample(5, 1)).unwrap();
    let lost = journal.append(vec![raised(1)]).unwrap();
    drop(journal);
    let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    connection.execute("UPDATE events SET payload = CAST('{}' AS BLOB)", []).unwrap();
    drop(connection);
    let damaged = (lost[0].id.epoch, vec![(1, 1)], Reason::Damaged);
    assert_eq!(declared(&mut open(&directory)), [damaged, open_end(5, 1)]);
}
