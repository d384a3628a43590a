//! Detection of a program that is stuck: it logs that itself, ends itself, or sends its service manager no more signs of life.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::agent::{self, Agent, until};
use crate::support::consumer::{self, Consumer};
use crate::support::events::{produce, updated};
use crate::support::failpoints::{self, until_stopped};
use crate::support::pipeline::busy_config;
use crate::support::process::under;
use crate::support::proxy::Proxy;
use crate::support::services::kafka_and_own_postgres;
use crate::support::skips::skip;

/// systemd's end of a service: a socket for its messages.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        Self { socket, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// Runs `command` with a watchdog of two seconds.
    fn manage(&self, mut command: Command) -> Command {
        command.env("NOTIFY_SOCKET", self.path()).env("WATCHDOG_USEC", "2000000");
        command
    }

    /// Returns the next message within `time`.
    fn next_message(&self, time: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(time)).expect("it is a socket");
        match self.socket.recv(&mut buffer) {
            Ok(count) => Some(String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message that begins with `what`, and returns it.
    fn wait_for(&self, what: &str) -> String {
        until(&format!("the manager is told {what}"), || {
            self.next_message(Duration::from_millis(50)).filter(|message| message.starts_with(what))
        })
    }

    /// Returns whether, after all that was sent before, no message arrives for far longer than the watchdog's time.
    fn hears_nothing(&self) -> bool {
        while self.next_message(Duration::from_millis(1)).is_some() {}
        self.next_message(Duration::from_secs(4)).is_none()
    }
}

#[test]
fn a_manager_hears_of_an_agent_that_lives_and_nothing_of_one_that_stands_still() {
    let manager = Manager::new();
    let mut agent = Agent::new(&busy_config("127.0.0.1:9", "nobody"));
    let mut running = agent.start_as(manager.manage(agent::command()), &[]);
    assert_eq!(manager.wait_for("READY=1"), "READY=1\nWATCHDOG_USEC=2000000\n");
    assert_eq!(manager.wait_for("WATCHDOG=1"), "WATCHDOG=1\n");
    manager.wait_for("WATCHDOG=1");
    running.signal("STOP");
    until_stopped(running.id());
    assert!(manager.hears_nothing());
    running.signal("CONT");
    manager.wait_for("WATCHDOG=1");

    running.signal("HUP");
    let reloading = manager.wait_for("RELOADING=1");
    let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|at| at.trim_end().parse::<u64>().ok());
    assert!(at.is_some_and(|at| at > 0), "{reloading}");
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    running.signal("TERM");
    manager.wait_for("STOPPING=1");
    assert_eq!(running.wait().code(), Some(1), "there was no Kafka for its events");
}

#[test]
fn a_slow_interval_asks_for_patience() {
    let manager = Manager::new();
    let mut agent = Agent::new("interval = '10m'\nsource = 'synthetic'\n[kafka]\nbrokers = '127.0.0.1:9'\n");
    let _running = agent.start_as(manager.manage(agent::command()), &[]);
    assert_eq!(manager.wait_for("READY=1"), "READY=1\nWATCHDOG_USEC=1800000000\n");
    manager.wait_for("WATCHDOG=1");
}

/// The disk is real, its sync does not return: the kernel blocks the agent.
#[test]
fn an_agent_whose_disk_hangs_says_so_and_nothing_to_its_manager() {
    let test = "watchdogs::an_agent_whose_disk_hangs_says_so_and_nothing_to_its_manager";
    // From the 30th sync on each takes 40 s. The agent stays our child (-D).
    let hang = "inject=fsync:delay_enter=40000000:when=30+";
    let strace = ["strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "signal=none", "-e", hang];
    if !under(&strace, &Command::new("true")).output().is_ok_and(|output| output.status.success()) {
        return skip(test, "needs strace, and leave to use it");
    }
    let manager = Manager::new();
    let mut agent = Agent::new(&busy_config("127.0.0.1:9", "nobody"));
    let running = agent.start_as(manager.manage(under(&strace, &agent::command())), &[]);
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    running.until("the tick is stuck: waiting for the journal's disk");
    assert!(manager.hears_nothing(), "{}", running.log());
}

#[test]
fn a_manager_hears_of_a_consumer_that_lives_and_nothing_of_one_that_stands_still() {
    let manager = Manager::new();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", directory.path().join("h.db").display());
    let mut consumer = Consumer::new("127.0.0.1:9", "nobody", &url);
    let mut running = consumer.start_as(manager.manage(consumer::command()), &[]);
    // The consumer is ready without Kafka and without a database, and lives.
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");
    running.signal("STOP");
    until_stopped(running.id());
    assert!(manager.hears_nothing());
    running.signal("CONT");
    manager.wait_for("WATCHDOG=1");
    running.signal("TERM");
    manager.wait_for("STOPPING=1");
    assert!(running.wait().success(), "{}", running.log());
}

/// A paused server acknowledges bytes, and answers nothing: no time-out of TCP or of PostgreSQL helps.
#[test]
fn a_database_that_never_answers_is_left_to_itself_and_asked_anew() {
    let test = "watchdogs::a_database_that_never_answers_is_left_to_itself_and_asked_anew";
    let Some((kafka, postgres)) = kafka_and_own_postgres(test) else { return };
    let Some(()) = failpoints::or_skip(test) else { return };
    let (topic, database) = (kafka.topic("stuck", 1), postgres.database("stuck"));
    let events: Vec<_> = (1..=2_000).map(|seq| updated("gw", seq)).collect();
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.set("[kafka]", "instance = 'one'");
    // Seconds, where it usually is a minute and a half.
    let mut running = consumer.start_at("answer-max-s=return(5)", &[]);
    produce(&kafka.address, &topic, &events[..1_000]);
    database.until("SELECT count(*) FROM events", "(1000)");
    postgres.signal("STOP");
    produce(&kafka.address, &topic, &events[1_000..]);
    running.until("the store has not answered for 5 s; reconnecting");
    postgres.signal("CONT");
    database.until("SELECT count(*), count(DISTINCT seq) FROM events", "(2000,2000)");
    assert_eq!(database.ask("SELECT next_offset FROM kafka_offsets"), "(2000)");
    // And an end does not wait for it either.
    postgres.signal("STOP");
    produce(&kafka.address, &topic, &[updated("gw", 2_001)]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let began = std::time::Instant::now();
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    postgres.signal("CONT");
}

/// A connection that is open on both sides and carries nothing any more: retention leaves it, and the session on the other side ends.
#[test]
fn retention_that_never_gets_an_answer_begins_anew_and_holds_no_end_up() {
    let test = "watchdogs::retention_that_never_gets_an_answer_begins_anew_and_holds_no_end_up";
    let Some((kafka, postgres)) = kafka_and_own_postgres(test) else { return };
    let Some(()) = failpoints::or_skip(test) else { return };
    let (topic, database) = (kafka.topic("silent", 1), postgres.database("silent"));
    let proxy = Proxy::new(&postgres.address());
    let mut consumer =
        Consumer::new(&kafka.address, &topic, &database.url.replace(&postgres.address(), &proxy.address()));
    produce(&kafka.address, &topic, &[updated("gw", 1)]);
    consumer.run_until_end();
    let expired = "INSERT INTO totals (agent, interface, direction, limit_name, day, breaches, excess_bytes)
                   VALUES ('gw', 'eth0', 'rx', 'wan-down', '2010-01-01', 1, 1)";
    database.client().batch_execute(expired).unwrap();
    let points =
        "maintenance-first-s=return(1);maintenance-pause-s=return(1);maintenance-s=1*return(3);answer-max-s=return(5)";
    let mut running = consumer.start_at(points, &[]);
    let asleep = "SELECT count(*) FROM pg_stat_activity
                  WHERE application_name LIKE '%/maintenance' AND query LIKE '%pg_sleep%' AND state = 'active' AND datname = current_database()";
    database.until(asleep, "(1)");
    proxy.forget();
    running.until("retention: the store has not answered for 5 s");
    running.until("retention: a session whose connection was lost held its lock");
    database.until("SELECT count(*) FROM totals WHERE day = '2010-01-01'", "(0)");
    // While it waits for an answer, a signal ends the process.
    postgres.signal("STOP");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let began = std::time::Instant::now();
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    postgres.signal("CONT");
}
