//! Disks that cannot be written for a while: transactions that reached them all the same, and events meanwhile.

use std::collections::BTreeSet;

use super::*;
use crate::agent::event_system::{EventSystem, ObserveError, Observer};

fn update(id: u64) -> NewEvent {
    new_event(Body::BreachUpdated(breach(id)))
}

fn declared(events: &[Arc<Event>]) -> Vec<EventId> {
    let losses = events.iter().filter_map(|event| if let Body::Loss(loss) = &event.body { Some(loss) } else { None });
    let ids = |loss: &Loss| {
        let epoch = loss.epoch;
        loss.ranges.clone().into_iter().flat_map(move |(from, to)| (from..=to).map(move |seq| EventId { epoch, seq }))
    };
    losses.flat_map(ids).collect()
}

/// Checks that each of `accepted` is there or declared, once, and nothing else is declared.
fn accounts_for(accepted: &BTreeSet<EventId>, events: &[Arc<Event>]) {
    let there: BTreeSet<EventId> = events.iter().map(|event| event.id).collect();
    assert_eq!(there.len(), events.len(), "each number once");
    let declared = declared(events);
    let distinct: BTreeSet<EventId> = declared.iter().copied().collect();
    assert_eq!(distinct.len(), declared.len(), "each loss once");
    let missing: Vec<_> = accepted.iter().filter(|id| !there.contains(id) && !distinct.contains(id)).collect();
    assert!(missing.is_empty(), "{} neither there nor declared: {missing:?}", missing.len());
    let false_alarms: Vec<_> = distinct.iter().filter(|id| there.contains(id) || !accepted.contains(id)).collect();
    assert!(false_alarms.is_empty(), "{false_alarms:?}");
}

/// Appends until events are evicted; adds the accepted ones to `accepted`.
fn fill(journal: &mut dyn Journal, accepted: &mut BTreeSet<EventId>) {
    let before = journal.lost().evicted;
    while journal.lost().evicted == before {
        accepted.extend(journal.append((0..20).map(update).collect()).unwrap().iter().map(|event| event.id));
    }
}

/// Commit and close fail, but the transaction is found at reopening: it evicted events, and declared that.
#[test]
fn an_eviction_that_was_refused_and_reached_the_disk_is_declared() {
    for is_handed_out in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open(&directory);
        let mut accepted = BTreeSet::new();
        fill(&mut journal, &mut accepted);
        if is_handed_out {
            all(&mut journal);
        }
        journal.fail_over(&simulated_damage()).unwrap();
        let mut disk = SqliteJournal::open(&directory.path().join("journal.db"), MIB).unwrap();
        fill(&mut disk, &mut BTreeSet::new());
        drop(disk);
        let kept = journal.append((0..20).map(update).collect()).unwrap();
        accepted.extend(kept.iter().map(|event| event.id));
        journal.upkeep(&stamp(100)).unwrap();
        assert_eq!(journal.durability(), Durability::OnDisk);
        accounts_for(&accepted, &all(&mut journal));
    }
}

/// The same with an open declaration that the refused transaction extended, partly by events that were never accepted.
#[test]
fn a_declaration_that_grew_by_a_refused_transaction_keeps_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = SqliteJournal::open(&directory.path().join("j.db"), MIB).unwrap();
    let mut accepted = BTreeSet::new();
    fill(&mut journal, &mut accepted);
    let refused = journal.next_ids();
    // More than fits: some of these are evicted at once.
    journal.append((0..6_000).map(update).collect()).unwrap();
    journal.roll_back_from(&refused, &[]).unwrap();
    assert_eq!(journal.next_ids(), refused);
    accounts_for(&accepted, &all(&mut journal));
    accepted.extend(journal.append(vec![raised(1)]).unwrap().iter().map(|event| event.id));
    accounts_for(&accepted, &all(&mut journal));
}

/// A return to the disk that was refused at its end, but reached the disk, and evicted some of the imported events.
#[test]
fn a_way_back_that_was_refused_leaves_no_false_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let mut accepted = BTreeSet::new();
    fill(&mut journal, &mut accepted);
    journal.fail_over(&simulated_damage()).unwrap();
    let kept = journal.append((0..2_000).map(update).collect()).unwrap();
    accepted.extend(kept.iter().map(|event| event.id));
    let mut disk = SqliteJournal::open(&directory.path().join("journal.db"), MIB).unwrap();
    disk.restore(kept.iter().map(|event| &**event), [], Vec::new(), &stamp(1)).unwrap();
    assert!(disk.lost().evicted > 0);
    drop(disk);
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!(journal.durability(), Durability::OnDisk);
    accounts_for(&accepted, &all(&mut journal));
}

#[test]
fn what_is_given_up_while_its_disk_is_away_is_declared_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let on_disk = journal.append(vec![raised(1), raised(2)]).unwrap();
    journal.fail_over(&simulated_damage()).unwrap();
    journal.reject(on_disk[0].id, "too large", stamp(1)).unwrap();
    journal.upkeep(&stamp(100)).unwrap();
    accounts_for(&on_disk.iter().map(|event| event.id).collect(), &all(&mut journal));
    assert_eq!(journal.lost(), LossCounts { rejected: 1, ..LossCounts::default() });
}

#[test]
fn what_is_kept_in_memory_is_on_disk_after_an_end_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("state");
    std::fs::write(&blocked, "not a directory").unwrap();
    let config = JournalConfig { directory: blocked.clone(), ..config(&directory) };
    let mut journal = DurableJournal::open(config.clone(), &stamp(0)).unwrap();
    let kept = journal.append(vec![raised(1)]).unwrap();
    assert!(journal.close(&stamp(1)).is_err());
    std::fs::remove_file(&blocked).unwrap();
    // No retry is due yet.
    journal.upkeep(&stamp(2)).unwrap();
    assert_eq!(journal.durability(), Durability::InMemory);
    journal.close(&stamp(3)).unwrap();
    drop(journal);
    assert_eq!(all(&mut DurableJournal::open(config, &stamp(4)).unwrap()), kept);
}

#[test]
fn a_breach_on_a_disk_that_could_not_be_read_at_the_start_ends_as_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    open(&directory).append(vec![raised(1)]).unwrap();
    let path = directory.path().join("journal.db");
    std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
    std::fs::create_dir(&path).unwrap();
    let mut journal = open(&directory);
    assert_eq!(journal.durability(), Durability::InMemory);
    journal.append(vec![raised(2)]).unwrap();
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(directory.path().join("elsewhere"), &path).unwrap();
    journal.upkeep(&stamp(100)).unwrap();
    let cleared = all(&mut journal).into_iter().filter_map(|event| match &event.body {
        Body::BreachCleared(breach) => Some((breach.breach_id.to_string(), breach.reason.clone().unwrap())),
        _ => None,
    });
    assert_eq!(cleared.collect::<Vec<_>>(), [("0000000000000001".to_owned(), Reason::Interrupted)]);
    let open = journal.open_breaches().unwrap();
    assert_eq!(
        open.iter().map(|event| &*event.body.breach().unwrap().breach_id).collect::<Vec<_>>(),
        ["0000000000000002"]
    );
}

struct Diary(std::rc::Rc<std::cell::RefCell<Vec<Arc<Event>>>>);

impl Observer for Diary {
    fn name(&self) -> &'static str {
        "diary"
    }

    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
        self.0.borrow_mut().extend(events.iter().filter(|event| matches!(event.body, Body::Loss(_))).cloned());
        Ok(())
    }
}

#[test]
fn observers_see_each_declaration_and_the_journal_counts_what_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    open(&directory).append((0..200).map(|_| update(1)).collect()).unwrap();
    damage_tests::damage(&directory.path().join("journal.db"));
    let mut system = EventSystem::new(Box::new(open(&directory)));
    let diary = Diary(std::rc::Rc::default());
    let seen = std::rc::Rc::clone(&diary.0);
    system.subscribe(Box::new(diary));
    // One event for each epoch in which numbers are lost.
    let reasons = || {
        let seen = seen.borrow();
        let losses = seen.iter().filter_map(|event| match &event.body {
            Body::Loss(loss) => Some(loss.reason.clone()),
            _ => None,
        });
        let mut reasons: Vec<Reason> = losses.collect();
        reasons.dedup();
        reasons
    };
    system.notify_own_events();
    assert_eq!(reasons(), [Reason::Damaged]);

    let id = system.add_event(raised(1)).unwrap();
    system.reject_event(id, "too large", stamp(1)).unwrap();
    assert_eq!(reasons(), [Reason::Damaged, Reason::Rejected]);
    while system.journal().lost().evicted == 0 {
        system.add_events((0..50).map(update).collect()).unwrap();
    }
    assert_eq!(reasons(), [Reason::Damaged, Reason::Rejected, Reason::Evicted]);
    system.upkeep(&stamp(40 * 86_400)).unwrap();
    assert_eq!(reasons(), [Reason::Damaged, Reason::Rejected, Reason::Evicted, Reason::Expired]);
    let counts = system.journal().lost();
    assert_eq!(counts.rejected, 1);
    assert!(counts.damaged > 0 && counts.expired > 100, "{counts:?}");
    let events = system.batch(Position::START, usize::MAX >> 1, usize::MAX >> 1).unwrap();
    let events: Vec<Arc<Event>> = events.into_iter().map(|stored| stored.event).collect();
    assert_eq!(lost(&events), counts.total(), "as the events declare");
}
