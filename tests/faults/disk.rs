//! The disk under the journal fills up, cannot be written, or fails, and comes back.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::support::agent::Running;
use crate::support::consumer::{self, Postgres};
use crate::support::netns::skip;
use crate::support::rounds::{Fault, Outcome, recovered, rounds};
use crate::support::services::Kafka;
use crate::support::world::{World, busy};

/// What the agent logs when it goes on without its disk, and when it has it back.
const DEGRADED: &str = "the journal cannot be written, so events are kept in memory";
const BACK: &str = "the journal can be written again";

/// A small file system in memory, on a directory.
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

    /// A file that leaves this many bytes, or a little less.
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
struct Failing(Child);

impl Failing {
    /// `how` as in strace's `inject=`.
    fn of(running: &Running, calls: &str, how: &str) -> Self {
        let child = Command::new("strace")
            .args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{how}"), "-p", &running.id().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("strace runs"))
    }
}

impl Drop for Failing {
    /// It has to let its process go, which a kill would not do in order.
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn strace_can() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success())
}

/// A world whose agent's state stands on a disk of its own. What is mounted is unmounted first.
struct OnDisk {
    disk: Disk,
    world: World,
    _consuming: consumer::Running,
}

fn make(fault: &Fault, kafka: &Kafka, postgres: &Postgres) -> OnDisk {
    let mut world = World::new(fault.name, kafka, postgres);
    let disk = Disk::on(&world.agent.state_dir()).expect("it could be mounted before");
    let _consuming = world.start_consumer();
    OnDisk { disk, world, _consuming }
}

/// Whether what the rounds need is to be had; else the test is skipped, and says so.
fn can(test: &str) -> bool {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let possible = Disk::on(directory.path()).is_some() && strace_can();
    if !possible {
        skip(test, "needs to mount a tmpfs, and strace");
    }
    possible
}

/// Runs the rounds of `fault`: `round` breaks the disk, and mends it when the agent has noticed.
fn disk_rounds(test: &str, fault: &Fault, mut round: impl FnMut(&mut OnDisk, &mut Rng) -> Running) {
    if !fault.is_due() || !can(test) {
        return;
    }
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip(test), Postgres::or_skip(test)) else { return };
    rounds(
        fault,
        || make(fault, &kafka, &postgres),
        |on_disk, rng| {
            let running = round(on_disk, rng);
            let recovery = recovered("the disk is back", || running.log().contains(BACK));
            let world = &mut on_disk.world;
            world.flows();
            let windows = in_memory(&running.log());
            world.end_agent(running);
            world.drain_agent();
            accept_rings(world, &windows);
            let outcome = world.settle();
            Outcome { recovery: recovery + outcome.recovery, ..outcome }
        },
    );
}

/// How many events were kept in memory, each time that the disk refused: the log says each as it is accepted.
fn in_memory(log: &str) -> Vec<u64> {
    let is_event =
        |line: &&str| line.contains("[breach ") || line.contains(" link syn") || line.ends_with("agent_started");
    let times = log.split(DEGRADED).skip(1);
    times.map(|time| time.split(BACK).next().unwrap_or(time).lines().filter(is_event).count() as u64).collect()
}

/// Puts into the book what rings accepted, whose epochs nobody but Kafka knows: in the order in which they stand there.
fn accept_rings(world: &mut World, windows: &[u64]) {
    let windows: Vec<u64> = windows.iter().copied().filter(|events| *events > 0).collect();
    let rings = world.unknown_epochs(windows.len());
    for (epoch, last) in rings.iter().zip(windows) {
        let agent = world.agent.name().to_owned();
        world.checker.accept(&agent, epoch, last);
    }
}

/// Waits until the agent goes on without its disk.
fn degraded(running: &Running) {
    recovered("the agent notices", || running.log().contains(DEGRADED));
}

#[test]
fn disk_full() {
    let fault = Fault { name: "disk-full", short: 1, long: 20, fresh_every: 10 };
    disk_rounds("faults::disk::disk_full", &fault, |OnDisk { disk, world, .. }, rng| {
        let running = world.start_agent();
        world.flows();
        // A journal that Kafka empties needs no more room than it has.
        let (brokers, topic) = (world.brokers().to_owned(), world.topic.clone());
        world.agent.configure(&busy("127.0.0.1:9", &topic));
        running.signal("HUP");
        disk.fill(rng.u64(0..64 << 10));
        degraded(&running);
        let late = rng.bool();
        if late {
            // What is kept in memory is delivered from there, and is not on the disk afterwards.
            world.agent.configure(&busy(&brokers, &topic));
            running.signal("HUP");
        }
        sleep(Duration::from_millis(rng.u64(0..5_000)));
        disk.free();
        if !late {
            recovered("the disk is back", || running.log().contains(BACK));
            world.agent.configure(&busy(&brokers, &topic));
            running.signal("HUP");
        }
        running
    });
}

#[test]
fn disk_read_only_at_start() {
    let fault = Fault { name: "disk-read-only-at-start", short: 0, long: 10, fresh_every: 5 };
    disk_rounds("faults::disk::disk_read_only_at_start", &fault, |OnDisk { disk, world, .. }, rng| {
        disk.remount("ro");
        let running = world.agent.start(&["-v"]);
        degraded(&running);
        world.flows();
        sleep(Duration::from_millis(rng.u64(0..3_000)));
        disk.remount("rw");
        running
    });
}

/// The running agent's writes fail like this.
fn failing(test: &str, fault: &Fault, calls: &[&str], error: &str) {
    disk_rounds(test, fault, |OnDisk { world, .. }, rng| {
        let running = world.start_agent();
        world.flows();
        sleep(Duration::from_millis(rng.u64(0..1_000)));
        let calls = calls[rng.usize(..calls.len())];
        let failing = Failing::of(&running, calls, &format!("error={error}:when={}+", rng.u8(1..30)));
        degraded(&running);
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

#[test]
fn what_is_kept_in_memory_is_counted_by_the_log() {
    let log = format!(
        "WARN bandwidth exceeded [breach 1]\nERROR {DEGRADED}\nINFO still exceeded [breach 1]\nINFO link syn3 gone\n\
         WARN broker away\nINFO {BACK}\nINFO still exceeded [breach 1]\nERROR {DEGRADED}\nINFO still exceeded [breach 1]\n"
    );
    assert_eq!(in_memory(&log), [2, 1]);
}
