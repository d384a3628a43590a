//! Journals whose files do not contain what was written.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::collection::vec;
use proptest::sample::{Index, select};

use super::super::sqlite::event_crc;
use super::*;
use crate::testing::damaged;

#[test]
fn a_damaged_journal_is_set_aside_and_what_can_be_read_is_saved() {
    for (name, damage) in [("garbage", 0..4_096_usize), ("a page", 8_192..12_288)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.db");
        let before = {
            let mut journal = open(&directory);
            (0..200).flat_map(|id| journal.append(vec![raised(id)]).unwrap()).collect::<Vec<_>>()
        };
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[damage].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let mut journal = open(&directory);
        assert_eq!(journal.durability(), Durability::OnDisk);
        let events = all(&mut journal);
        let declared = events.last().unwrap();
        assert!(
            matches!(&declared.body, Body::Loss(loss) if loss.reason == Reason::Damaged
                && loss.detail.as_ref().is_some_and(|detail| !detail.contains(['\n', '*']))),
            "{name}: {declared:?}"
        );
        assert_ne!(declared.id.epoch, before[0].id.epoch);
        assert!(events[..events.len() - 1].iter().all(|event| before.contains(event)), "{name}: nothing is invented");
        let aside = std::fs::read_dir(directory.path()).unwrap().flatten();
        let aside = aside.filter(|file| file.file_name().to_string_lossy().contains("db.damaged-")).count();
        assert!(aside >= 1, "{name}");
    }
}

#[test]
fn an_event_that_is_not_what_was_written_is_declared_lost_and_its_neighbours_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let before = {
        let mut journal = open(&directory);
        journal.append(vec![raised(1), raised(2), raised(3)]).unwrap()
    };
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sql = "UPDATE events SET payload = CAST(replace(payload, 'eth0', 'eth9') AS BLOB) WHERE seq = 2";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    drop(connection);
    let mut journal = open(&directory);
    let started = journal
        .append(vec![new_event(Body::AgentStopped(Lifecycle { version: "1".into(), reason: None, detail: None }))])
        .unwrap();
    let events = all(&mut journal);
    assert_eq!([&events[0], &events[1], &events[3]], [&before[0], &before[2], &started[0]]);
    let Body::Loss(loss) = &events[2].body else { panic!("{events:?}") };
    assert_eq!((loss.epoch, loss.ranges.as_slice()), (before[0].id.epoch, [(2, 2)].as_slice()));
}

/// SQLite accepts such a file until the column is used.
#[test]
fn a_damaged_name_in_the_schema_is_damage() {
    for name in ["position", "observed_us", "open_breaches", "breach_id", "next_seq", "machine_id", "STRICT"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.db");
        let before = open(&directory).append(vec![raised(1), raised(2)]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
        assert!(at < 4_096, "the schema stands on the first page");
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut journal = open(&directory);
        assert_eq!(journal.durability(), Durability::OnDisk, "{name}");
        let new = journal.append(vec![raised(3)]).unwrap();
        journal.upkeep(&stamp(100)).unwrap();
        let events = all(&mut journal);
        assert!(events.contains(&new[0]), "{name}: {events:?}");
        let lost = events.iter().filter_map(|event| match &event.body {
            Body::Loss(loss) => Some(loss.ranges.iter().map(|(first, last)| last - first + 1).sum::<u64>()),
            _ => None,
        });
        let lost = lost.sum::<u64>() as usize;
        let saved = before.iter().filter(|event| events.contains(event)).count();
        assert_eq!(saved + lost, before.len(), "{name}: {events:?}");
    }
}

pub(super) fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 4_096].fill(0x5a);
    std::fs::write(path, bytes).unwrap();
}

/// Interrupts a replacement before the new file exists, and after each step by which it takes its place.
#[test]
fn a_replacement_that_is_cut_short_loses_nothing() {
    for cut in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.db");
        let before = {
            let mut journal = open(&directory);
            journal.append((0..200).map(raised).collect()).unwrap()
        };
        damage(&path);
        match cut {
            // A disk without room for the new file.
            0 => std::fs::create_dir(directory.path().join("journal.db.part")).unwrap(),
            1.. => {
                let mut journal = open(&directory);
                let saved = all(&mut journal);
                drop(journal);
                // The state before the last rename, or the last two.
                let aside = std::fs::read_dir(directory.path()).unwrap().flatten();
                let aside = aside.map(|f| f.path()).find(|f| f.to_string_lossy().ends_with('Z')).unwrap();
                std::fs::rename(&path, directory.path().join("journal.db.new")).unwrap();
                if cut > 1 {
                    std::fs::rename(&aside, &path).unwrap();
                }
                if cut > 2 {
                    std::fs::write(directory.path().join("journal.db-wal"), "the damaged file's").unwrap();
                }
                let mut journal = open(&directory);
                assert_eq!(all(&mut journal), saved, "{cut}");
                let open = journal.open_breaches().unwrap().len();
                assert!(open > 100, "{cut}: {open} breaches go on");
                continue;
            }
            _ => unreachable!(),
        }
        let mut journal = open(&directory);
        assert_eq!(journal.durability(), Durability::InMemory);
        std::fs::remove_dir(directory.path().join("journal.db.part")).unwrap();
        journal.upkeep(&stamp(100)).unwrap();
        let events = all(&mut journal);
        let saved = events.iter().filter(|event| before.contains(event)).count();
        assert!(saved > 100, "{saved} were saved");
        assert_eq!(saved as u64 + lost(&events), before.len() as u64);
    }
}

#[test]
fn a_breach_goes_on_though_the_journal_was_damaged() {
    let directory = tempfile::tempdir().unwrap();
    open(&directory).append((0..200).map(raised).collect()).unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    connection.execute("UPDATE open_breaches SET crc = crc + 1 WHERE breach_id = ?", [format!("{:016x}", 7)]).unwrap();
    drop(connection);
    let mut journal = open(&directory);
    assert_eq!(journal.durability(), Durability::OnDisk);
    assert_eq!(journal.open_breaches().unwrap().len(), 199, "all but the damaged one");
}

/// Returns the events and declared losses of a journal with an older mark, as after a power cut.
fn with_an_older_mark(step: impl FnOnce(&mut DurableJournal), damage: &str) -> (Vec<Arc<Event>>, Vec<(u64, u64)>) {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("journal.db.mark");
    let mut journal = open(&directory);
    journal.append((0..50).map(raised).collect()).unwrap();
    let older = std::fs::read(&mark).unwrap();
    step(&mut journal);
    drop(journal);
    std::fs::write(&mark, older).unwrap();
    rusqlite::Connection::open(directory.path().join("journal.db")).unwrap().execute_batch(damage).unwrap();
    let events = all(&mut open(&directory));
    let ranges = declared(&events);
    (events.into_iter().filter(|event| !matches!(event.body, Body::Loss(_))).collect(), ranges)
}

fn declared(events: &[Arc<Event>]) -> Vec<(u64, u64)> {
    events
        .iter()
        .filter_map(|event| if let Body::Loss(loss) = &event.body { Some(&loss.ranges) } else { None })
        .flatten()
        .copied()
        .collect()
}

fn ids(events: &[Arc<Event>]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

#[test]
fn a_mark_that_a_power_cut_left_behind_is_no_damage() {
    let removed = |journal: &mut DurableJournal| {
        let events = all(journal);
        journal.remove(&ids(&events[..40])).unwrap();
    };
    let (events, declared) = with_an_older_mark(removed, "");
    assert_eq!((events.len(), declared), (10, vec![]));
    assert_eq!(events[0].id.seq, 41);
}

#[test]
fn what_kafka_has_is_not_declared_lost_because_the_mark_is_behind() {
    const DAMAGE: &str = "UPDATE events SET crc = crc + 1 WHERE seq = 45";
    for more in [0, 30] {
        let removed = |journal: &mut DurableJournal| {
            let events = all(journal);
            journal.append((0..more).map(raised).collect()).unwrap();
            journal.remove(&ids(&events[..40])).unwrap();
        };
        let (events, declared) = with_an_older_mark(removed, DAMAGE);
        assert_eq!((events.len() as u64, declared), (9 + more, vec![(45, 45)]));
    }
}

#[test]
fn a_row_that_is_missing_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    open(&directory).append((0..50).map(raised).collect()).unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    connection.execute("DELETE FROM events WHERE seq = 7", []).unwrap();
    drop(connection);
    std::fs::remove_file(directory.path().join("journal.db.mark")).unwrap();
    assert_eq!(declared(&all(&mut open(&directory))), [(7, 7)], "whatever became of the mark");
}

#[test]
fn a_disk_that_comes_back_damaged_has_not_lost_what_kafka_has_nor_what_it_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let before = journal.append((0..9).map(raised).collect()).unwrap();
    all(&mut journal);
    journal.fail_over(&simulated_damage()).unwrap();
    let path = directory.path().join("journal.db");
    // Refused, but on the disk all the same.
    SqliteJournal::open(&path, MIB).unwrap().append((10..13).map(raised).collect()).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE events SET crc = crc + 1 WHERE seq IN (2, 3, 12)", []).unwrap();
    drop(connection);
    let kept = journal.append((10..13).map(raised).collect()).unwrap();
    journal.remove(&ids(&before[1..2])).unwrap();
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!(journal.durability(), Durability::OnDisk);
    let events = all(&mut journal);
    assert_eq!(declared(&events), [(3, 3)]);
    let there: Vec<EventId> =
        events.iter().filter(|event| !matches!(event.body, Body::Loss(_))).map(|event| event.id).collect();
    let kept = before.iter().filter(|event| !(2..=3).contains(&event.id.seq)).chain(&kept);
    assert_eq!(there, kept.map(|event| event.id).collect::<Vec<_>>());
}

#[test]
fn what_reached_a_disk_that_refused_it_is_there_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let before = journal.append(vec![raised(1)]).unwrap();
    journal.fail_over(&simulated_damage()).unwrap();
    let kept = journal.append(vec![raised(2), raised(3)]).unwrap();
    // An attempt to return to the disk whose sync fails.
    let mut disk = SqliteJournal::open(&directory.path().join("journal.db"), MIB).unwrap();
    let events = || kept.iter().map(|event| &**event);
    disk.restore(events(), events(), Vec::new(), &stamp(1)).unwrap();
    drop(disk);
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!(journal.pending().events, 3);
    assert_eq!(all(&mut journal), [before, kept].concat());
}

#[test]
fn damaged_journals_do_not_fill_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    for second in 0..6 {
        let mut journal = DurableJournal::open(config.clone(), &stamp(second)).unwrap();
        journal.append((0..50).map(raised).collect()).unwrap();
        drop(journal);
        damage(&directory.path().join("journal.db"));
    }
    assert_eq!(DurableJournal::open(config, &stamp(6)).unwrap().durability(), Durability::OnDisk);
    let files = std::fs::read_dir(directory.path()).unwrap().flatten().map(|file| file.file_name());
    let mut aside: Vec<_> = files.filter(|name| name.to_string_lossy().contains("damaged-")).collect();
    aside.sort();
    assert_eq!(aside.len(), 3, "{aside:?}");
    let last = stamp(6).observed_at.format("%H%M%S").to_string();
    assert!(aside[2].to_string_lossy().contains(&last), "{aside:?}");
}

#[test]
fn what_a_lost_declaration_said_is_declared_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let before = journal.append((0..9).map(raised).collect()).unwrap();
    journal.reject(before[1].id, "too large", stamp(1)).unwrap();
    journal.reject(before[0].id, "too large", stamp(1)).unwrap();
    assert_eq!(declared(&all(&mut journal)), [(1, 2)]);
    journal.remove(&ids(&before[2..4])).unwrap();
    drop(journal);
    let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    connection.execute("UPDATE events SET crc = crc + 1 WHERE seq = 10", []).unwrap();
    drop(connection);
    assert_eq!(declared(&all(&mut open(&directory))), [(1, 4), (10, 10)], "3 and 4 are known to those who have them");
}

#[test]
fn what_was_declared_before_is_not_declared_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let before = journal.append((0..9).map(raised).collect()).unwrap();
    journal.reject(before[4].id, "too large", stamp(1)).unwrap();
    drop(journal);
    let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    connection.execute("UPDATE events SET crc = crc + 1 WHERE seq = 7", []).unwrap();
    drop(connection);
    assert_eq!(declared(&all(&mut open(&directory))), [(5, 5), (7, 7)]);
}

#[test]
fn a_row_of_absurd_numbers_is_given_up_alone() {
    for set in ["crc = 1 << 40", "crc = -1", "observed_us = 9223372036854775807", "seq = -1", "rank = 77", "epoch = 9"]
    {
        let directory = tempfile::tempdir().unwrap();
        let before = open(&directory).append(vec![raised(1), raised(2), raised(3)]).unwrap();
        let connection = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
        connection.execute(&format!("UPDATE events SET {set} WHERE seq = 2"), []).unwrap();
        drop(connection);
        let mut journal = open(&directory);
        let next = journal.append(vec![raised(4)]).unwrap();
        let events = all(&mut journal);
        assert_eq!(journal.durability(), Durability::OnDisk, "{set}");
        for event in [&before[0], &before[2], &next[0]] {
            assert!(events.contains(event), "{set}: {events:?}");
        }
        journal.remove(&next.iter().chain(&before).map(|event| event.id).collect::<Vec<_>>()).unwrap();
        journal.upkeep(&stamp(31 * 86_400)).unwrap();
        assert_eq!(journal.durability(), Durability::OnDisk, "{set}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rows with arbitrary content: the journal continues, and hands out only events that can be read again.
    #[test]
    fn no_row_panics(
        payload in damaged(Just(crate::wire::to_json(&Event {
            id: EventId { epoch: Epoch(7), seq: 2 },
            stamp: stamp(1),
            body: Body::Loss(Loss { epoch: Epoch(7), ranges: vec![(1, 9), (12, 400)], reason: Reason::Evicted, detail: None }),
        }))),
        numbers in proptest::array::uniform5(prop_oneof![Just(i64::MIN), Just(-1), Just(0), Just(5), Just(i64::MAX - 9)]),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.db");
        drop(open(&directory));
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let [position, epoch, seq, rank, observed_us] = numbers;
        let row = rusqlite::params![position, epoch, seq, rank, observed_us, event_crc([epoch, seq, rank, observed_us], &payload), payload];
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row).unwrap();
        drop(connection);
        let mut journal = open(&directory);
        prop_assert_eq!(journal.durability(), Durability::OnDisk);
        let new = journal.append(vec![raised(1)]).unwrap();
        journal.upkeep(&stamp(1)).unwrap();
        let events = all(&mut journal);
        prop_assert!(events.contains(&new[0]), "{events:?}");
        for event in &events {
            prop_assert!(crate::wire::from_json(&crate::wire::to_json(event)).is_ok());
        }
        journal.remove(&events.iter().map(|event| event.id).collect::<Vec<_>>()).unwrap();
        prop_assert_eq!(journal.pending().events, 0);
    }

    #[test]
    fn no_damaged_file_panics_or_invents(blows in proptest::collection::vec((any::<prop::sample::Index>(), 1..=64_usize, any::<u8>()), 1..6), cut in prop::option::weighted(0.2, any::<prop::sample::Index>())) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.db");
        let before = open(&directory).append((0..60).map(raised).collect()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, length, byte) in blows {
            let at = at.index(bytes.len());
            let to = (at + length).min(bytes.len());
            bytes[at..to].fill(byte);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        let mut journal = open(&directory);
        let new = journal.append(vec![raised(99)]).unwrap();
        let events = all(&mut journal);
        let invented: Vec<_> = events
            .iter()
            .filter(|event| !before.contains(event) && !new.contains(event) && !matches!(event.body, Body::Loss(_)))
            .collect();
        prop_assert!(invented.is_empty(), "{invented:?}");
        journal.upkeep(&stamp(100)).unwrap();
        prop_assert_eq!(journal.durability(), Durability::OnDisk);
        prop_assert!(all(&mut journal).iter().any(|event| event.id == new[0].id || event.body == new[0].body));
    }

    #[test]
    fn whatever_is_damaged_each_event_is_there_or_declared(
        steps in vec((1..9_usize, 0..9_usize), 1..60),
        file in select(vec!["journal.db", "journal.db-wal", "journal.db.mark"]),
        harm in prop_oneof![
            3 => (any::<Index>(), 1..=255_u8).prop_map(|(at, flip)| Harm::Flip(at, flip)),
            2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Harm::Page(at, byte)),
            2 => any::<Index>().prop_map(Harm::Cut),
            1 => Just(Harm::Empty),
            1 => Just(Harm::Gone),
        ],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open(&directory);
        let mut accepted: BTreeSet<EventId> = BTreeSet::new();
        for (number, (events, acknowledged)) in steps.iter().enumerate() {
            accepted.extend(journal.append((0..*events as u64).map(raised).collect()).unwrap().iter().map(|event| event.id));
            let sent: Vec<EventId> = all(&mut journal).iter().map(|event| event.id).take(*acknowledged).collect();
            journal.remove(&sent).unwrap();
            accepted.retain(|id| !sent.contains(id));
            if number % 20 == 19 {
                drop(std::mem::replace(&mut journal, open(&tempfile::tempdir().unwrap())));
                journal = open(&directory);
            }
        }
        // Copied as after a kill, without the work of an orderly end.
        let left = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(directory.path()).unwrap().flatten() {
            std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
        harm.to(&left.path().join(file));
        let mut journal = open(&left);
        prop_assert_eq!(journal.durability(), Durability::OnDisk);
        let new = journal.append(vec![raised(77)]).unwrap();
        let events = all(&mut journal);
        let there: BTreeSet<EventId> = events.iter().map(|event| event.id).collect();
        prop_assert_eq!(there.len(), events.len(), "each number once");
        prop_assert!(!accepted.contains(&new[0].id), "a number is given once");
        let declared = |id: &EventId| events.iter().any(|event| match &event.body {
            Body::Loss(loss) => loss.epoch == id.epoch && loss.ranges.iter().any(|(from, to)| (*from..=*to).contains(&id.seq)),
            _ => false,
        });
        let missing: Vec<_> = accepted.iter().filter(|id| !there.contains(id) && !declared(id)).collect();
        prop_assert!(missing.is_empty(), "{missing:?} of {accepted:?}: {events:?}");
        let false_alarm = accepted.iter().find(|id| there.contains(id) && declared(id));
        prop_assert!(false_alarm.is_none(), "{false_alarm:?} is there");
        if file == "journal.db.mark" {
            prop_assert_eq!(lost(&events), 0, "nothing is lost with the mark alone");
        }
    }
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, u8),
    Page(Index, u8),
    Cut(Index),
    Empty,
    Gone,
}

impl Harm {
    fn to(&self, path: &Path) {
        let Ok(mut bytes) = std::fs::read(path) else { return };
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip(at, flip) => {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            Self::Page(at, byte) => {
                let at = at.index(bytes.len()) / 4_096 * 4_096;
                let to = (at + 4_096).min(bytes.len());
                bytes[at..to].fill(*byte);
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Empty => bytes.clear(),
            Self::Gone => return std::fs::remove_file(path).unwrap(),
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// Writes a version into the header of a journal, where no transaction of SQLite does.
fn write_version(path: &Path, version: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60..64].copy_from_slice(&version.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_newer_version_in_the_header_alone_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let before = open(&directory).append(vec![raised(1), raised(2)]).unwrap();
    write_version(&path, 7);
    let mut journal = open(&directory);
    assert_eq!(journal.durability(), Durability::OnDisk);
    let events = all(&mut journal);
    assert_eq!(events[..2], before[..], "saved");
}

#[test]
fn a_newer_journal_behind_an_outage_is_not_replaced() {
    let (directory, newer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(&newer).append(vec![raised(1)]).unwrap();
    let file = newer.path().join("journal.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "DROP TABLE meta; CREATE TABLE meta (  -- journal version 2\n id INTEGER) STRICT; PRAGMA user_version = 2",
        )
        .unwrap();
    drop(connection);
    let path = directory.path().join("journal.db");
    std::fs::create_dir(&path).unwrap();
    let mut journal = open(&directory);
    assert_eq!(journal.durability(), Durability::InMemory);
    let kept = journal.append(vec![raised(2)]).unwrap();
    std::fs::remove_dir(&path).unwrap();
    std::fs::copy(&file, &path).unwrap();
    for second in [100, 200] {
        let error = journal.upkeep(&stamp(second)).unwrap_err().to_string();
        assert!(error.contains("is the journal of a newer agent (version 2; this one, "), "{error}");
        assert_eq!((journal.durability(), all(&mut journal)), (Durability::InMemory, kept.clone()));
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&file).unwrap());
    }
}
