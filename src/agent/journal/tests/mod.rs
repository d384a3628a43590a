use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::message::{Breach, Direction, Lifecycle, Loss, Reason};
use crate::units::ByteCount;

mod damage_tests;
mod identity_tests;
mod outage_tests;
mod rates_tests;
mod samples_tests;

const MIB: ByteCount = ByteCount::from_bytes(1 << 20);

fn stamp(second: u64) -> Stamp {
    Stamp {
        agent: "gw-042".into(),
        observed_at: DateTime::from_timestamp(1_790_000_000 + second as i64, 0).unwrap(),
        boot_id: "boot".into(),
        monotonic_ms: second * 1_000,
        clock_synced: None,
    }
}

fn breach(id: u64) -> Breach {
    Breach {
        breach_id: format!("{id:016x}").into(),
        started_at: stamp(0).observed_at,
        raised_at: stamp(1).observed_at,
        ended_at: stamp(1).observed_at,
        limit_name: "wan-down".into(),
        severity: Severity::Warning,
        interface: "eth0".into(),
        ifindex: Some(2),
        direction: Direction::Rx,
        limit_bps: 80,
        rate_bps: 90,
        peak_bps: 90,
        mean_bps: 90,
        duration_ms: 1_000,
        measured_ms: 1_000,
        excess_bytes: 1,
        reason: None,
        detail: None,
    }
}

fn new_event(body: Body) -> NewEvent {
    NewEvent { stamp: stamp(0), body }
}

fn raised(id: u64) -> NewEvent {
    new_event(Body::BreachRaised(breach(id)))
}

fn open(directory: &TempDir) -> DurableJournal {
    let config = JournalConfig { age_max: Duration::from_secs(30 * 86_400), ..config(directory) };
    DurableJournal::open(config, &stamp(0)).unwrap()
}

fn identity(agent: &str, machine_id: &str) -> Identity {
    Identity { agent: agent.into(), machine_id: machine_id.into() }
}

fn config(directory: &TempDir) -> JournalConfig {
    JournalConfig {
        directory: directory.path().to_owned(),
        size_max: MIB,
        age_max: Duration::from_secs(86_400),
        identity: identity("gw-042", "machine"),
    }
}

fn in_memory(size_max: ByteCount) -> SqliteJournal {
    SqliteJournal::in_memory(size_max).unwrap()
}

fn simulated_damage() -> JournalError {
    JournalError::Damaged("simulated by a test".into())
}

fn all(journal: &mut dyn Journal) -> Vec<Arc<Event>> {
    journal
        .batch(Position::START, usize::MAX >> 1, usize::MAX >> 1)
        .unwrap()
        .into_iter()
        .map(|stored| stored.event)
        .collect()
}

fn lost(events: &[Arc<Event>]) -> u64 {
    events.iter().map(|event| if let Body::Loss(loss) = &event.body { loss.count() } else { 0 }).sum()
}

fn keeps_its_promises(journal: &mut dyn Journal) {
    let first = journal.append(vec![raised(1), new_event(Body::BreachUpdated(breach(1)))]).unwrap();
    let second = journal.append(vec![raised(2)]).unwrap();
    assert_eq!([first[0].id.seq, first[1].id.seq, second[0].id.seq], [1, 2, 3]);
    assert_eq!(journal.pending().events, 3);

    let batch = journal.batch(Position::START, 2, usize::MAX >> 1).unwrap();
    assert_eq!(batch.iter().map(|stored| stored.event.id.seq).collect::<Vec<_>>(), [1, 2]);
    let rest = journal.batch(batch[1].position, 9, 1).unwrap();
    assert_eq!(rest.iter().map(|stored| stored.event.id.seq).collect::<Vec<_>>(), [3], "one at least");

    journal.remove(&[first[0].id, first[1].id]).unwrap();
    journal.remove(&[first[0].id]).unwrap();
    assert_eq!(journal.pending().events, 1);
    assert_eq!(journal.open_breaches().unwrap().len(), 2, "Kafka has the events, and the breaches go on");
    journal.append(vec![new_event(Body::BreachCleared(breach(1)))]).unwrap();
    assert_eq!(journal.open_breaches().unwrap().len(), 1);

    journal.reject(second[0].id, "too large", stamp(1)).unwrap();
    let events = all(journal);
    assert_eq!(events.iter().map(|event| event.id.seq).collect::<Vec<_>>(), [4, 5]);
    let Body::Loss(loss) = &events[1].body else { panic!("{:?}", events[1]) };
    assert_eq!((loss.ranges.as_slice(), &loss.reason), ([(3, 3)].as_slice(), &Reason::Rejected));
    assert_eq!(loss.detail.as_deref(), Some("too large"));
}

#[test]
fn every_journal_keeps_its_promises() {
    keeps_its_promises(&mut in_memory(MIB));
    let directory = tempfile::tempdir().unwrap();
    keeps_its_promises(&mut SqliteJournal::open(&directory.path().join("j.db"), MIB).unwrap());
    keeps_its_promises(&mut open(&directory));
}

/// Checks that a full journal evicts updates before raises, and declares them in one loss that grows until it is handed out.
fn evicts_the_least_severe_and_declares_it(journal: &mut dyn Journal) {
    let rounds = 4_000;
    for id in 0..rounds {
        journal.append(vec![raised(id), new_event(Body::BreachUpdated(breach(id)))]).unwrap();
        journal.append(vec![new_event(Body::BreachCleared(breach(id)))]).unwrap();
    }
    let events = all(journal);
    let losses: Vec<&Loss> =
        events.iter().filter_map(|event| if let Body::Loss(loss) = &event.body { Some(loss) } else { None }).collect();
    let (one, last) = losses.split_at(losses.len() - 1);
    assert!(one.iter().all(|loss| loss.ranges.len() > last[0].ranges.len()), "one declaration, that grew");
    assert_eq!(events.len() as u64 + lost(&events), rounds * 3 + losses.len() as u64);
    let updates = events.iter().filter(|event| matches!(event.body, Body::BreachUpdated(_))).count();
    assert!(updates < 100, "{updates} updates outlived raises");

    // The loss was handed out, so further losses get a new declaration.
    for id in 0..rounds {
        journal.append(vec![raised(id), new_event(Body::BreachCleared(breach(id)))]).unwrap();
    }
    let events = all(journal);
    let all_losses = events.iter().filter(|event| matches!(event.body, Body::Loss(_))).count();
    assert!(all_losses > losses.len());
    assert_eq!(events.len() as u64 + lost(&events), rounds * 5 + all_losses as u64);
    assert!(events.len() > 700, "{} events are all that fits", events.len());
}

#[test]
fn every_journal_evicts_the_least_severe_and_declares_it() {
    evicts_the_least_severe_and_declares_it(&mut in_memory(MIB));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("j.db");
    evicts_the_least_severe_and_declares_it(&mut SqliteJournal::open(&path, MIB).unwrap());
    let wal = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |wal| wal.len());
    let size = std::fs::metadata(&path).unwrap().len() + wal;
    assert!(size <= MIB.bytes() + MIB.bytes() / 4, "{size} bytes on disk, {wal} of them in the log");
}

#[test]
fn a_restart_finds_everything_and_counts_on() {
    let directory = tempfile::tempdir().unwrap();
    let before = {
        let mut journal = open(&directory);
        journal.append(vec![raised(1), raised(2)]).unwrap()
    };
    let mut journal = open(&directory);
    assert_eq!(all(&mut journal), before);
    assert_eq!(journal.open_breaches().unwrap().len(), 2);
    let next = journal.append(vec![raised(3)]).unwrap();
    assert_eq!((next[0].id.epoch, next[0].id.seq), (before[0].id.epoch, 3));
}

#[test]
fn a_second_agent_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let config = config(&directory);
    let error = DurableJournal::open(config.clone(), &stamp(0)).unwrap_err();
    assert!(matches!(error, JournalError::Locked(_)), "{error}");
    drop(journal);
    DurableJournal::open(config, &stamp(0)).unwrap();
}

#[test]
fn a_copied_disk_starts_an_epoch_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let original = open(&directory).append(vec![raised(1)]).unwrap();
    let config = JournalConfig { identity: identity("gw-042", "another"), ..config(&directory) };
    let mut journal = DurableJournal::open(config, &stamp(0)).unwrap();
    assert!(journal.open_breaches().unwrap().is_empty(), "they go on where they began");
    let next = journal.append(vec![raised(2)]).unwrap();
    assert_ne!(next[0].id.epoch, original[0].id.epoch);
    assert_eq!(next[0].id.seq, 1);
}

#[test]
fn what_is_too_old_is_given_up_and_declared() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    journal.append(vec![raised(1)]).unwrap();
    journal.upkeep(&stamp(31 * 86_400)).unwrap();
    let events = all(&mut journal);
    assert_eq!(lost(&events), 1);
    assert!(matches!(&events[0].body, Body::Loss(loss) if loss.reason == Reason::Expired), "{events:?}");
}

#[test]
fn a_wall_clock_that_jumps_makes_nothing_old() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    journal.append(vec![raised(1)]).unwrap();
    let hour_later = stamp(3_600);
    journal.upkeep(&Stamp { observed_at: stamp(366 * 86_400).observed_at, ..hour_later }).unwrap();
    assert_eq!(lost(&all(&mut journal)), 0, "an hour old, whatever the date");
}

#[test]
fn what_kafka_has_is_removed_from_a_disk_that_came_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let on_disk = journal.append(vec![raised(1), raised(2)]).unwrap();
    all(&mut journal);
    journal.fail_over(&simulated_damage()).unwrap();
    let kept = journal.append(vec![raised(3), raised(4)]).unwrap();
    assert_ne!(kept[0].id.epoch, on_disk[0].id.epoch);
    journal.remove(&[on_disk[0].id, kept[0].id]).unwrap();
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!(journal.durability(), Durability::OnDisk);
    assert_eq!(all(&mut journal), [on_disk[1].clone(), kept[1].clone()]);
    assert_eq!(journal.open_breaches().unwrap().len(), 4);
}

#[test]
fn without_its_disk_it_goes_on_in_memory_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("state");
    std::fs::write(&blocked, "not a directory").unwrap();
    let config = JournalConfig { directory: blocked.clone(), ..config(&directory) };
    let mut journal = DurableJournal::open(config.clone(), &stamp(0)).unwrap();
    assert_eq!(journal.durability(), Durability::InMemory);
    let kept = journal.append(vec![raised(1), raised(2)]).unwrap();
    assert!(journal.upkeep(&stamp(40)).is_err());
    let generation = journal.generation();

    std::fs::remove_file(&blocked).unwrap();
    journal.remove(&[kept[0].id]).unwrap();
    journal.upkeep(&stamp(80)).unwrap();
    assert_eq!(journal.durability(), Durability::OnDisk);
    assert_ne!(journal.generation(), generation, "positions start again");
    assert_eq!(all(&mut journal), kept[1..]);
    assert_eq!(journal.open_breaches().unwrap().len(), 2);
    drop(journal);
    let mut journal = DurableJournal::open(config, &stamp(90)).unwrap();
    assert_eq!(all(&mut journal), kept[1..], "it is on disk now");
}

#[test]
fn what_was_refused_is_taken_back_though_it_reached_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = SqliteJournal::open(&directory.path().join("j.db"), MIB).unwrap();
    journal.append(vec![raised(1)]).unwrap();
    let from = journal.next_id();
    journal.append(vec![raised(2), raised(3)]).unwrap();
    journal.roll_back_from(&[from], &[]).unwrap();
    assert_eq!(all(&mut journal).len(), 1);
    assert_eq!(journal.append(vec![raised(4)]).unwrap()[0].id, from);
}

/// Returns the size of a journal's files in bytes.
fn on_disk(directory: &TempDir) -> u64 {
    let files = std::fs::read_dir(directory.path()).unwrap().flatten();
    files
        .filter(|file| !file.file_name().to_string_lossy().contains("damaged"))
        .map(|f| f.metadata().unwrap().len())
        .sum()
}

#[test]
fn a_full_ring_that_meets_a_full_disk_stays_within_the_bound() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let body = || Body::AgentStopped(Lifecycle { version: "1".into(), reason: None, detail: Some("x".repeat(200)) });
    let fill = |journal: &mut DurableJournal| {
        (0..30).for_each(|_| drop(journal.append(vec![new_event(body()); 100]).unwrap()));
    };
    fill(&mut journal);
    let before = on_disk(&directory);
    journal.fail_over(&simulated_damage()).unwrap();
    fill(&mut journal);
    journal.upkeep(&stamp(100)).unwrap();
    assert_eq!(journal.durability(), Durability::OnDisk);
    journal.append(vec![raised(1)]).unwrap();
    drop(journal);
    let after = on_disk(&directory);
    assert!(after <= MIB.bytes() + MIB.bytes() / 4, "{before} bytes before, {after} after");
    let events = all(&mut open(&directory));
    let counted = |loss: &Arc<Event>| if let Body::Loss(loss) = &loss.body { loss.count() } else { 1 };
    let losses = events.iter().filter(|event| matches!(event.body, Body::Loss(_))).count() as u64;
    assert_eq!(events.iter().map(counted).sum::<u64>(), 6_001, "all but {losses} declarations, which are numbered too");
}

#[test]
fn a_declaration_of_many_holes_fits_into_messages() {
    let mut memory = in_memory(ByteCount::from_bytes(16 << 20));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("j.db");
    let mut disk = SqliteJournal::open(&path, ByteCount::from_bytes(16 << 20)).unwrap();
    for journal in [&mut memory as &mut dyn Journal, &mut disk] {
        // The numbers are not adjacent, so each is a range of its own.
        let ids: Vec<EventId> =
            (0..2).flat_map(|_| journal.append(vec![raised(1); 1_000]).unwrap()).map(|e| e.id).collect();
        for id in ids.iter().step_by(3) {
            journal.reject(*id, "too large", stamp(1)).unwrap();
        }
        let events = all(journal);
        assert_eq!(lost(&events), 667);
        let longest = events.iter().map(|event| crate::wire::to_json(event).len()).max().unwrap();
        assert!(longest < 20_000, "{longest} bytes in one message");
        let mut seqs: Vec<u64> = events.iter().map(|event| event.id.seq).collect();
        seqs.dedup();
        assert_eq!(seqs.len(), events.len(), "each has a number of its own");
        assert_eq!(all(journal), events, "what was handed out stays as it was");
        journal.reject(ids[1], "too large", stamp(1)).unwrap();
        assert_eq!(lost(&all(journal)), 668);
    }
}

#[test]
fn what_was_observed_without_a_clock_is_not_old_because_the_clock_was_set() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let unset = Stamp { observed_at: DateTime::UNIX_EPOCH, clock_synced: Some(false), ..stamp(0) };
    let body = Body::BreachRaised(breach(1));
    journal.append(vec![NewEvent { stamp: unset, body }, raised(2)]).unwrap();
    journal.upkeep(&stamp(7_200)).unwrap();
    assert_eq!(lost(&all(&mut journal)), 0);
}

/// A gateway without a battery comes up 40 days ahead, or at its image's date.
#[test]
fn a_clock_that_is_wrong_after_a_boot_makes_nothing_old() {
    let days = |days: u64, boot_id: &str, clock_synced| Stamp {
        monotonic_ms: 60_000,
        boot_id: boot_id.into(),
        clock_synced,
        ..stamp(days * 86_400)
    };
    for (before, after, lost_in_another_boot) in
        [(Some(true), None, 0), (None, Some(true), 0), (Some(false), Some(true), 0), (Some(true), Some(true), 1)]
    {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open(&directory);
        let body = Body::BreachRaised(breach(1));
        journal.append(vec![NewEvent { stamp: days(0, "one", before), body }]).unwrap();
        let now = days(40, "two", after);
        journal.append(vec![NewEvent { stamp: now.clone(), body: Body::BreachRaised(breach(2)) }]).unwrap();
        journal.upkeep(&now).unwrap();
        assert_eq!(lost(&all(&mut journal)), lost_in_another_boot, "{before:?} {after:?}");
        assert_eq!(journal.lost().expired, lost_in_another_boot);
        // Within a boot the other clock counts, whatever the date is.
        let later = Stamp { observed_at: now.observed_at, monotonic_ms: now.monotonic_ms + 31 * 86_400_000, ..now };
        journal.upkeep(&later).unwrap();
        assert_eq!(lost(&all(&mut journal)), lost_in_another_boot + 1, "{before:?} {after:?}");
    }
}

#[test]
fn other_bounds_take_effect_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let eight = ByteCount::from_bytes(8 << 20);
    journal.reconfigure(eight, Duration::from_secs(86_400), &stamp(0)).unwrap();
    for _ in 0..40 {
        journal.append(vec![new_event(Body::BreachUpdated(breach(1))); 200]).unwrap();
    }
    assert_eq!(journal.lost().total(), 0, "8 MiB hold them all");
    assert!(on_disk(&directory) > 2 * MIB.bytes());
    journal.reconfigure(MIB, Duration::from_secs(86_400), &stamp(0)).unwrap();
    let evicted = journal.lost().evicted;
    assert!(evicted > 1_000, "{evicted} evicted");
    assert!(on_disk(&directory) <= MIB.bytes() + MIB.bytes() / 4, "{} bytes on disk", on_disk(&directory));
    let events = all(&mut journal);
    let losses = events.iter().filter(|event| matches!(event.body, Body::Loss(_))).count() as u64;
    assert_eq!((lost(&events), events.len() as u64 + evicted), (evicted, 8_000 + losses));

    journal.reconfigure(MIB, Duration::from_secs(60), &stamp(61)).unwrap();
    assert_eq!(journal.lost().expired, 8_000 - evicted);
}

#[test]
fn a_file_that_is_larger_than_it_may_be_is_made_smaller_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let large = JournalConfig { size_max: ByteCount::from_bytes(8 << 20), ..config(&directory) };
    let mut journal = DurableJournal::open(large, &stamp(0)).unwrap();
    journal.append(vec![new_event(Body::BreachUpdated(breach(1))); 8_000]).unwrap();
    drop(journal);
    let mut journal = open(&directory);
    assert!(on_disk(&directory) <= MIB.bytes() + MIB.bytes() / 4, "{} bytes on disk", on_disk(&directory));
    assert!(lost(&all(&mut journal)) > 1_000);
}

#[test]
fn nobody_else_reads_the_files_of_a_journal() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let parent = tempfile::tempdir().unwrap();
    let made = parent.path().join("made");
    let wide = parent.path().join("wide");
    std::fs::create_dir(&wide).unwrap();
    std::fs::set_permissions(&wide, std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["journal.db", "journal.db.mark", "agent.lock"] {
        std::fs::write(wide.join(name), "").unwrap();
        std::fs::set_permissions(wide.join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    for (directory, expected) in [(&made, 0o700), (&wide, 0o755)] {
        let config = JournalConfig { directory: directory.clone(), ..config(&parent) };
        let mut journal = DurableJournal::open(config.clone(), &stamp(0)).unwrap();
        journal.append((0..50).map(raised).collect()).unwrap();
        // A damaged journal is moved aside next to them.
        drop(journal);
        damage_tests::damage(&directory.join("journal.db"));
        let mut journal = DurableJournal::open(config, &stamp(0)).unwrap();
        journal.append(vec![raised(1)]).unwrap();
        assert_eq!(mode(directory), expected, "{}", directory.display());
        let files: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(files.iter().any(|path| path.display().to_string().contains("damaged-")), "{files:?}");
        assert!(files.len() >= 5, "{files:?}");
        for path in files {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn the_oldest_is_told_right_after_it_went() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory);
    let first = journal.append(vec![raised(1)]).unwrap();
    let later = NewEvent { stamp: stamp(50), body: Body::BreachRaised(breach(2)) };
    journal.append(vec![later]).unwrap();
    journal.reject(first[0].id, "too large", stamp(60)).unwrap();
    assert_eq!(journal.pending().oldest, Some(stamp(50).observed_at));
}

#[test]
fn the_longest_memory_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = JournalConfig { age_max: Duration::MAX, ..config(&directory) };
    let mut journal = DurableJournal::open(config, &stamp(0)).unwrap();
    journal.append(vec![raised(1)]).unwrap();
    journal.upkeep(&stamp(7_200)).unwrap();
    assert_eq!(journal.pending().events, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Hand,
    Acknowledge(prop::sample::Index),
    Reject(prop::sample::Index),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_usize).prop_map(Step::Append),
        2 => Just(Step::Hand),
        2 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        1 => any::<prop::sample::Index>().prop_map(Step::Reject),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Compares with a list: each event is there, or was acknowledged, or is declared lost, exactly once, in order.
    #[test]
    fn nothing_goes_missing(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Some(open(&directory));
        let mut kept: BTreeMap<u64, &str> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let open_journal = journal.as_mut().unwrap();
            let pick = |kept: &BTreeMap<u64, &str>, index: &prop::sample::Index| {
                let there: Vec<u64> = kept.iter().filter(|(_, state)| **state == "kept").map(|(seq, _)| *seq).collect();
                (!there.is_empty()).then(|| there[index.index(there.len())])
            };
            match step {
                Step::Append(count) => {
                    let body = Body::AgentStopped(Lifecycle { version: number.to_string(), reason: None, detail: None });
                    for event in open_journal.append(vec![new_event(body); count]).unwrap() {
                        prop_assert!(kept.insert(event.id.seq, "kept").is_none(), "a number is given once");
                    }
                }
                Step::Hand => drop(all(open_journal)),
                Step::Acknowledge(index) => {
                    let epoch = all(open_journal).first().map(|event| event.id.epoch);
                    if let (Some(seq), Some(epoch)) = (pick(&kept, &index), epoch) {
                        open_journal.remove(&[EventId { epoch, seq }]).unwrap();
                        kept.insert(seq, "gone");
                    }
                }
                Step::Reject(index) => {
                    let events = open_journal.batch(Position::START, 1, 1).unwrap();
                    if let (Some(seq), Some(first)) = (pick(&kept, &index), events.first()) {
                        let id = EventId { epoch: first.event.id.epoch, seq };
                        open_journal.reject(id, "too large", stamp(number as u64)).unwrap();
                        kept.insert(seq, "lost");
                    }
                }
                Step::Restart => {
                    drop(journal.take());
                    journal = Some(open(&directory));
                }
            }
        }
        let events = all(journal.as_mut().unwrap());
        prop_assert!(events.windows(2).all(|pair| pair[0].id.seq < pair[1].id.seq), "in order");
        let declared: Vec<u64> = events
            .iter()
            .filter_map(|event| if let Body::Loss(loss) = &event.body { Some(&loss.ranges) } else { None })
            .flat_map(|ranges| ranges.iter().flat_map(|(from, to)| *from..=*to))
            .collect();
        for (seq, state) in &kept {
            let there = events.iter().filter(|event| event.id.seq == *seq).count();
            prop_assert_eq!(there, usize::from(*state == "kept"), "{} is {}", seq, state);
            let times = declared.iter().filter(|lost| *lost == seq).count();
            prop_assert_eq!(times, usize::from(*state == "lost"), "{} is {}", seq, state);
        }
    }
}
