//! The disk under the journal fills up, cannot be written, or fails, and comes back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;
use highwater::agent::journal::{Durability, DurableJournal, Identity, Journal, JournalConfig, Position};
use highwater::message::{Body, Event, EventId, Lifecycle, NewEvent, Stamp};
use highwater::units::ByteCount;

use crate::support::agent::{AGENT, Running};
use crate::support::consumer;
use crate::support::pipeline::{Pipeline, busy_config};
use crate::support::postgres::Postgres;
use crate::support::process::{Spawned, signal};
use crate::support::rounds::{Fault, Outcome, recovered, rounds};
use crate::support::services::{Kafka, kafka_and_postgres};
use crate::support::skips::skip;

/// Log lines of an agent that goes on without its disk, and that has it back.
const DEGRADED: &str = "the journal cannot be written, so events are kept in memory";
const BACK: &str = "the journal can be written again";

/// A small tmpfs, on a directory.
struct Disk(PathBuf);

impl Disk {
    /// `None` where it is not permitted.
    fn on(directory: &Path) -> Option<Self> {
        fs::create_dir_all(directory).expect("a directory can be made");
        mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], directory).then(|| Self(directory.to_owned()))
    }

    fn remount(&self, how: &str) {
        assert!(mount(&["-o", &format!("remount,{how}")], &self.0), "it can be mounted {how}");
    }

    /// Writes a file that leaves this many bytes, or a little less.
    fn fill(&self, left: u64) {
        let path = self.ballast();
        let mut file = File::create(&path).expect("an empty file takes no room");
        while file.write_all(&[0; 4_096]).is_ok() {}
        let size = file.metadata().expect("it is there").len();
        file.set_len(size.saturating_sub(left)).expect("it can be cut");
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).expect("it is there");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], directory: &Path) -> bool {
    let output = Command::new("mount").args(arguments).arg(directory).output();
    output.is_ok_and(|output| output.status.success())
}

/// System calls of a running process that fail, until this is dropped.
struct Failing(Spawned);

impl Failing {
    /// `how` as in strace's `inject=`.
    fn of(running: &Running, calls: &str, how: &str) -> Self {
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{how}"), "-p", &running.id().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        Self(Spawned::start(&mut strace))
    }
}

impl Drop for Failing {
    /// strace has to detach from its process, which it would not do when killed.
    fn drop(&mut self) {
        signal(self.0.id(), "INT");
        let _ = self.0.wait();
    }
}

fn strace_can() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success())
}

/// A pipeline whose agent's state is on a disk of its own, which is unmounted first.
struct OnDisk {
    disk: Disk,
    pipeline: Pipeline,
    _consuming: consumer::Running,
}

fn make_on_disk(fault: &Fault, kafka: &Kafka, postgres: &Postgres) -> OnDisk {
    let mut pipeline = Pipeline::new(fault.name, kafka, postgres);
    let disk = Disk::on(&pipeline.agent.state_dir()).expect("it could be mounted before");
    let _consuming = pipeline.start_consumer();
    OnDisk { disk, pipeline, _consuming }
}

fn can_break_disks(test: &str) -> bool {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let possible = Disk::on(directory.path()).is_some() && strace_can();
    if !possible {
        skip(test, "needs to mount a tmpfs, and strace");
    }
    possible
}

/// Runs the rounds of `fault`: `round` breaks the disk, and mends it when the agent has noticed.
fn disk_rounds(test: &str, fault: &Fault, mut round: impl FnMut(&mut OnDisk, &mut Rng) -> Running) {
    if !fault.is_due() || !can_break_disks(test) {
        return;
    }
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    rounds(
        fault,
        || make_on_disk(fault, &kafka, &postgres),
        |on_disk, rng| {
            let running = round(on_disk, rng);
            let recovery = recovered("the disk is back", || running.log().contains(BACK));
            let pipeline = &mut on_disk.pipeline;
            pipeline.wait_for_events();
            let windows = in_memory(&running.log());
            pipeline.end_agent(running);
            pipeline.drain_agent();
            accept_rings(pipeline, &windows);
            let outcome = pipeline.wait_and_compare();
            Outcome { recovery: recovery + outcome.recovery, ..outcome }
        },
    );
}

/// Returns how many events were kept in memory, each time that the disk failed: the log has each as it is accepted.
fn in_memory(log: &str) -> Vec<u64> {
    let is_event =
        |line: &&str| line.contains("[breach ") || line.contains(" link syn") || line.ends_with("agent_started");
    let times = log.split(DEGRADED).skip(1);
    times.map(|time| time.split(BACK).next().unwrap_or(time).lines().filter(is_event).count() as u64).collect()
}

/// Accepts the events that were in memory, whose epochs only Kafka knows: in the order in which they are there.
fn accept_rings(pipeline: &mut Pipeline, windows: &[u64]) {
    let windows: Vec<u64> = windows.iter().copied().filter(|events| *events > 0).collect();
    let rings = pipeline.unknown_epochs(windows.len());
    for (epoch, last) in rings.iter().zip(windows) {
        pipeline.checker.accept(AGENT, epoch, last);
    }
}

fn until_degraded(running: &Running) {
    recovered("the agent notices", || running.log().contains(DEGRADED));
}

#[test]
fn disk_full() {
    let fault = Fault { name: "disk-full", short: 1, long: 20, fresh_every: 10 };
    disk_rounds("faults::disk::disk_full", &fault, |OnDisk { disk, pipeline, .. }, rng| {
        let running = pipeline.start_agent();
        pipeline.wait_for_events();
        // A journal that Kafka empties needs no more room than it has.
        let (brokers, topic) = (pipeline.brokers().to_owned(), pipeline.topic.clone());
        pipeline.agent.configure(&busy_config("127.0.0.1:9", &topic));
        running.signal("HUP");
        disk.fill(rng.u64(0..64 << 10));
        until_degraded(&running);
        let late = rng.bool();
        if late {
            // Events that were kept in memory are delivered from there, and are not on the disk afterwards.
            pipeline.agent.configure(&busy_config(&brokers, &topic));
            running.signal("HUP");
        }
        sleep(Duration::from_millis(rng.u64(0..5_000)));
        disk.free();
        if !late {
            recovered("the disk is back", || running.log().contains(BACK));
            pipeline.agent.configure(&busy_config(&brokers, &topic));
            running.signal("HUP");
        }
        running
    });
}

#[test]
fn disk_read_only_at_start() {
    let fault = Fault { name: "disk-read-only-at-start", short: 0, long: 10, fresh_every: 5 };
    disk_rounds("faults::disk::disk_read_only_at_start", &fault, |OnDisk { disk, pipeline, .. }, rng| {
        disk.remount("ro");
        let running = pipeline.agent.start(&["-v"]);
        until_degraded(&running);
        pipeline.wait_for_events();
        sleep(Duration::from_millis(rng.u64(0..3_000)));
        disk.remount("rw");
        running
    });
}

/// Runs rounds in which the running agent's writes fail with `error`.
fn failing(test: &str, fault: &Fault, calls: &[&str], error: &str) {
    disk_rounds(test, fault, |OnDisk { pipeline, .. }, rng| {
        let running = pipeline.start_agent();
        pipeline.wait_for_events();
        sleep(Duration::from_millis(rng.u64(0..1_000)));
        let calls = calls[rng.usize(..calls.len())];
        let failing = Failing::of(&running, calls, &format!("error={error}:when={}+", rng.u8(1..30)));
        until_degraded(&running);
        sleep(Duration::from_millis(rng.u64(0..1_000)));
        drop(failing);
        running
    });
}

/// A file system that is open for writing is not remounted: the calls fail as they would if the kernel had done it.
#[test]
fn disk_erofs() {
    let fault = Fault { name: "disk-erofs", short: 0, long: 10, fresh_every: 5 };
    failing("faults::disk::disk_erofs", &fault, &["pwrite64"], "EROFS");
}

#[test]
fn disk_eio() {
    let fault = Fault { name: "disk-eio", short: 1, long: 10, fresh_every: 5 };
    failing("faults::disk::disk_eio", &fault, &["fsync,fdatasync", "pwrite64"], "EIO");
}

/// Environment of a run under strace: the state directory, and the file that notes each event accepted or acknowledged.
const UNDER_STRACE: [&str; 2] = ["HIGHWATER_TEST_STATE", "HIGHWATER_TEST_NOTES"];

fn stamp(second: u64) -> Stamp {
    Stamp {
        agent: "gw".into(),
        observed_at: chrono::DateTime::from_timestamp(1_790_000_000 + second.cast_signed(), 0).expect("it is in range"),
        boot_id: "boot".to_owned(),
        monotonic_ms: second * 1_000,
        clock_synced: None,
    }
}

fn open_journal(directory: &Path) -> DurableJournal {
    let config = JournalConfig {
        directory: directory.to_owned(),
        size_max: ByteCount::from_bytes(1 << 20),
        age_max: Duration::from_secs(86_400),
        identity: Identity { agent: "gw".into(), machine_id: "machine".to_owned() },
    };
    DurableJournal::open(config, &stamp(0)).expect("nobody else holds it")
}

fn register(journal: &mut dyn Journal, count: usize, notes: &mut File) {
    let body = Body::AgentStopped(Lifecycle { version: "1".into(), reason: None, detail: None });
    let new_events = vec![NewEvent { stamp: stamp(1), body }; count];
    for event in journal.append(new_events).expect("there is always memory") {
        writeln!(notes, "{} {}", event.id.epoch, event.id.seq).expect("notes can be written");
    }
}

fn registered(journal: &mut dyn Journal) -> Vec<Arc<Event>> {
    let batch = journal.batch(Position::START, usize::MAX >> 1, usize::MAX >> 1).expect("it can be read");
    batch.into_iter().map(|stored| stored.event).collect()
}

/// Part of the test below that runs in a process of its own, whose syncs fail.
fn fill_journal(state: &Path, notes: &Path) {
    let mut notes = File::options().append(true).open(notes).expect("it was made");
    let mut journal = open_journal(state);
    for second in 1..4_u64 {
        register(&mut journal, 40, &mut notes);
        // A declaration is handed out: the next eviction begins another one.
        let first = registered(&mut journal).first().map(|event| event.id);
        register(&mut journal, 40, &mut notes);
        if let Some(id) = first {
            journal.remove(&[id]).expect("there is always memory");
            writeln!(notes, "{} {} acknowledged", id.epoch, id.seq).expect("notes can be written");
        }
        // Falling back to the disk may fail too.
        let _ = journal.upkeep(&stamp(second * 100));
    }
    for second in 400..403 {
        let _ = journal.close(&stamp(second));
    }
    assert_eq!(journal.durability(), Durability::OnDisk, "its disk is back");
}

/// Returns how many noted events are neither there nor declared, and how many are both.
fn unaccounted(state: &Path, notes: &Path) -> (usize, usize) {
    let mut accepted = BTreeSet::new();
    let notes = fs::read_to_string(notes).expect("they were made");
    for line in notes.lines() {
        let mut words = line.split(' ');
        let (epoch, seq) = (words.next().expect("an epoch"), words.next().expect("a number"));
        let id = EventId { epoch: epoch.parse().expect("an epoch"), seq: seq.parse().expect("a number") };
        if words.next().is_some() {
            accepted.remove(&id)
        } else {
            accepted.insert(id)
        };
    }
    let events = registered(&mut open_journal(state));
    let there: BTreeSet<EventId> = events.iter().map(|event| event.id).collect();
    let losses = events.iter().filter_map(|event| if let Body::Loss(loss) = &event.body { Some(loss) } else { None });
    let declared: BTreeSet<EventId> = losses
        .flat_map(|loss| {
            let seqs = loss.ranges.iter().flat_map(|(from, to)| *from..=*to);
            seqs.map(|seq| EventId { epoch: loss.epoch, seq })
        })
        .collect();
    let missing = accepted.iter().filter(|id| !there.contains(id) && !declared.contains(id)).count();
    (missing, there.intersection(&declared).count())
}

#[test]
fn each_event_is_there_or_declared_whichever_sync_fails() {
    let test = "faults::disk::each_event_is_there_or_declared_whichever_sync_fails";
    if let [Some(state), Some(notes)] = UNDER_STRACE.map(std::env::var_os) {
        return fill_journal(Path::new(&state), Path::new(&notes));
    }
    if !strace_can() {
        skip(test, "needs strace");
        return;
    }
    let this = std::env::current_exe().expect("a test knows its program");
    for (fill, events) in [("empty", 0), ("half full", 1_000), ("full", 4_000)] {
        for (first, last) in (1..=10).flat_map(|first| [(first, first), (first, first + 1)]) {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let (state, notes) = (directory.path().join("state"), directory.path().join("notes"));
            let mut file = File::create(&notes).expect("notes can be written");
            if events > 0 {
                register(&mut open_journal(&state), events, &mut file);
            }
            let output = Command::new("strace")
                .args(["-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"])
                .arg(format!("inject=fsync,fdatasync:error=EIO:when={first}..{last}"))
                .arg(&this)
                .args([test, "--exact", "--nocapture"])
                .envs(UNDER_STRACE.into_iter().zip([&state, &notes]))
                .output()
                .expect("strace runs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{fill}, {first} to {last}: {said}");
            assert_eq!(unaccounted(&state, &notes), (0, 0), "{fill}, syncs {first} to {last}: missing, and both");
        }
    }
}

#[test]
fn what_is_kept_in_memory_is_counted_by_the_log() {
    let log = format!(
        "WARN bandwidth exceeded [breach 1]\nERROR {DEGRADED}\nINFO still exceeded [breach 1]\nINFO link syn3 gone\n\
         WARN cannot reach Kafka\nINFO {BACK}\nINFO still exceeded [breach 1]\nERROR {DEGRADED}\nINFO still exceeded [breach 1]\n"
    );
    assert_eq!(in_memory(&log), [2, 1]);
}
