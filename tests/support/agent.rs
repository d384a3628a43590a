//! The agent as its users run it: a process with a configuration, a state directory, and a log.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::failpoints;

/// An agent's directory: its configuration, its state, and the logs of its runs.
pub(crate) struct Agent {
    directory: TempDir,
    runs: u32,
}

/// A run of it. Killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// With this configuration, to which the state directory is added.
    pub(crate) fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let agent = Self { directory, runs: 0 };
        agent.configure(config);
        agent
    }

    /// Another configuration, from the next start or SIGHUP on.
    pub(crate) fn configure(&self, config: &str) {
        let text = format!("state_dir = \"{}\"\n{config}", self.state_dir().display());
        fs::write(self.config(), text).expect("the configuration can be written");
    }

    /// What it calls itself: `agent = 'gw'` in the configurations of `World`.
    #[expect(clippy::unused_self, reason = "a test with two agents will name them")]
    pub(crate) fn name(&self) -> &str {
        "gw"
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// `highwater-agent run` with these arguments more.
    pub(crate) fn start(&mut self, arguments: &[&str]) -> Running {
        self.start_as(command(), arguments)
    }

    /// The same, where this happens at fail points.
    pub(crate) fn start_at(&mut self, points: &str, arguments: &[&str]) -> Running {
        self.start_as(command_at(points), arguments)
    }

    /// The same, run by `command`, which ends in the program.
    pub(crate) fn start_as(&mut self, mut command: Command, arguments: &[&str]) -> Running {
        self.runs += 1;
        let log = self.directory.path().join(format!("log.{}", self.runs));
        let child = command
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log can be written"))
            .spawn()
            .expect("the agent starts");
        Running { child, log }
    }

    /// Runs to its end; what it logged.
    pub(crate) fn run(&mut self, arguments: &[&str]) -> String {
        self.start(arguments).log_at_end()
    }

    /// What this agent's journal has accepted, by its own account: `(epoch, number of events)`. Only while it does not run.
    pub(crate) fn accepted(&self) -> (String, u64) {
        let journal = rusqlite::Connection::open(self.state_dir().join("journal.db")).expect("there is a journal");
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (epoch, next) = journal.query_row("SELECT epoch, next_seq FROM meta", [], row).expect("it counts");
        (format!("{epoch:016x}"), next as u64 - 1)
    }

    /// How many events its journal still holds. Only while it does not run.
    pub(crate) fn pending(&self) -> u64 {
        let journal = rusqlite::Connection::open(self.state_dir().join("journal.db")).expect("there is a journal");
        journal.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).expect("it has events") as u64
    }
}

/// The program, without what `tests/run` puts into the environment.
pub(crate) fn command() -> Command {
    command_at("")
}

/// The same, where this happens at fail points.
fn command_at(points: &str) -> Command {
    failpoints::command(env!("CARGO_BIN_EXE_highwater-agent"), points)
}

impl Running {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has ended in order; what it logged.
    pub(crate) fn log_at_end(mut self) -> String {
        let status = self.wait();
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        log
    }

    /// Waits until the log says `text`; a minute is far more than anything takes.
    pub(crate) fn until(&self, text: &str) {
        until(&format!("`{text}` in the log:\n{}", self.log.display()), || self.log().contains(text).then_some(()));
    }

    /// Sends a signal by its name: TERM, HUP, USR1, KILL.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the agent is our child")
    }

    /// Waits until it has ended by itself; a minute is far more than anything takes.
    pub(crate) fn ended(mut self) -> ExitStatus {
        until("the process ends by itself", || self.child.try_wait().expect("it is our child"))
    }

    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        self.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks `what` again and again until it has an answer. The stop is generous: it is no measurement.
pub(crate) fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_200 {
        if let Some(answer) = what() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("a minute was not enough for: {name}");
}
