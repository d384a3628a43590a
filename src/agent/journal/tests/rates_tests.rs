//! Rates: a series of its own in the same journal.

use super::*;
use crate::message::RateWindow;

fn window(minute: i64, bytes: usize) -> NewEvent {
    let started_at = DateTime::from_timestamp(1_790_000_000 + minute * 60, 0).unwrap();
    let version = "1".repeat(bytes);
    new_event(Body::Rates(RateWindow { started_at, duration_ms: 60_000, version, links: Vec::new() }))
}

fn rates(journal: &mut dyn Journal) -> Vec<Arc<Event>> {
    let batch = journal.batch(Position::RATES, usize::MAX >> 1, usize::MAX >> 1).unwrap();
    batch.into_iter().map(|queued| queued.event).collect()
}

fn seqs(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.id.seq).collect()
}

#[test]
fn rates_count_apart_and_are_handed_out_apart() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    for id in 0..3 {
        journal.append(vec![raised(id), window(id as i64, 1)]).unwrap();
    }
    drop(journal);
    let mut journal = open(&directory);
    journal.append(vec![window(3, 1), raised(3)]).unwrap();
    let (events, windows) = (all(&mut journal), rates(&mut journal));
    assert_eq!((seqs(&events), seqs(&windows)), (vec![1, 2, 3, 4], vec![1, 2, 3, 4]));
    assert_ne!(events[0].id.epoch, windows[0].id.epoch);
    assert!(windows.iter().all(|event| event.id.epoch == windows[0].id.epoch));
    assert_eq!((journal.pending().events, journal.pending().rates), (8, 4));
    journal.remove(&[windows[0].id, windows[1].id]).unwrap();
    assert_eq!((journal.pending().events, journal.pending().rates), (6, 2));
    assert_eq!(seqs(&rates(&mut journal)), [3, 4]);
}

#[test]
fn a_full_journal_gives_up_rates_first_and_declares_them_among_the_events() {
    let mut journal = in_memory(MIB);
    let windows: u64 = 40;
    for minute in 0..windows {
        journal.append(vec![window(minute as i64, 50_000), raised(minute)]).unwrap();
        // Those that are on their way go before any event, too.
        rates(&mut journal);
    }
    let events = all(&mut journal);
    let raised = events.iter().filter(|event| matches!(event.body, Body::BreachRaised(_))).count();
    assert_eq!(raised as u64, windows, "no event was given up");
    let left = rates(&mut journal);
    let losses: Vec<_> = events.iter().filter(|event| matches!(event.body, Body::Loss(_))).collect();
    let [Event { id, body: Body::Loss(loss), .. }] = losses.iter().map(|event| &***event).collect::<Vec<_>>()[..]
    else {
        panic!("{losses:?}")
    };
    assert_eq!((id.epoch, loss.epoch), (events[0].id.epoch, left[0].id.epoch));
    let lost = loss.ranges.iter().flat_map(|(first, last)| *first..=*last);
    let mut all: Vec<u64> = seqs(&left).into_iter().chain(lost).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=windows).collect::<Vec<_>>());
    assert_eq!(seqs(&events), (1..=windows + 1).collect::<Vec<_>>(), "a reader of events alone sees no holes");
}

#[test]
fn a_disk_that_fails_and_a_damaged_one_account_for_rates_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let before = journal.append(vec![window(0, 1), raised(0), window(1, 1)]).unwrap();
    journal.fail_over(&simulated_damage()).unwrap();
    let meanwhile = journal.append(vec![window(2, 1), raised(1)]).unwrap();
    journal.remove(&[before[0].id]).unwrap();
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!(journal.durability(), Durability::OnDisk);
    let after = journal.append(vec![window(3, 1)]).unwrap();
    assert_eq!(after[0].id, EventId { seq: 3, ..before[0].id });
    let ids: Vec<_> = rates(&mut journal).iter().map(|event| event.id).collect();
    assert_eq!(ids, [before[2].id, meanwhile[0].id, after[0].id]);
    assert_eq!(lost(&all(&mut journal)), 0);
    drop(journal);

    let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    let sql = "UPDATE events SET payload = CAST('{}' AS BLOB) WHERE position > ? AND seq = 3";
    assert_eq!(connection.execute(sql, [Position::RATES.0 as i64]).unwrap(), 1);
    drop(connection);
    let mut journal = open(&directory);
    let losses = all(&mut journal);
    let declared: Vec<_> =
        losses.iter().filter_map(|event| if let Body::Loss(loss) = &event.body { Some(loss) } else { None }).collect();
    assert_eq!(declared.len(), 1, "{declared:?}");
    assert_eq!((declared[0].epoch, declared[0].ranges.as_slice()), (after[0].id.epoch, &[(3, 3)][..]));
}

#[test]
fn losses_of_a_former_names_rates_are_declared_under_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let old = journal.append(vec![raised(0), window(0, 1)]).unwrap();
    drop(journal);
    let config = JournalConfig { identity: identity("gw-043", "machine"), ..config(&directory) };
    let renamed = Stamp { agent: "gw-043".into(), ..stamp(1) };
    let mut journal = DurableJournal::open(config, &renamed).unwrap();
    let new = journal.append(vec![NewEvent { stamp: renamed.clone(), ..window(1, 1) }]).unwrap();
    assert_ne!(new[0].id.epoch, old[1].id.epoch);
    journal.reject(old[1].id, "too large", renamed).unwrap();
    let loss = all(&mut journal).pop().unwrap();
    assert_eq!((&*loss.stamp.agent, loss.id.epoch), ("gw-042", old[0].id.epoch));
    assert!(matches!(&loss.body, Body::Loss(loss) if loss.epoch == old[1].id.epoch && loss.ranges == [(1, 1)]));
}

#[test]
fn the_open_window_is_kept_until_rates_are_registered() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    assert_eq!(journal.open_window().unwrap(), None);
    journal.save_open_window(window(1, 1)).unwrap();
    journal.save_open_window(window(2, 1)).unwrap();
    drop(journal);
    let mut journal = open(&directory);
    assert_eq!(journal.open_window().unwrap(), Some(window(2, 1)));
    journal.append(vec![window(2, 1)]).unwrap();
    assert_eq!(journal.open_window().unwrap(), None);
}
