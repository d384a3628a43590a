//! The agent as its users run it: a process with a configuration, a state directory, and a log.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::failpoints;
pub(crate) use super::process::{Running, until};

/// Name in the configurations of `Pipeline`.
pub(crate) const AGENT: &str = "gw";

pub(crate) struct Agent {
    directory: Arc<TempDir>,
    runs: u32,
}

impl Agent {
    /// Makes an agent with this configuration, to which the state directory is added.
    pub(crate) fn new(config: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let agent = Self { directory, runs: 0 };
        agent.configure(config);
        agent
    }

    /// Changes the configuration, from the next start or SIGHUP on.
    pub(crate) fn configure(&self, config: &str) {
        // A window that ends during a test would be an event that it does not expect.
        let rates = if config.contains("[rates]") { "" } else { "\n[rates]\nenabled = false\n" };
        let text = format!("state_dir = \"{}\"\n{config}{rates}", self.state_dir().display());
        fs::write(self.config(), text).expect("the configuration can be written");
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// Starts `highwater-agent run` with further arguments.
    pub(crate) fn start(&mut self, arguments: &[&str]) -> Running {
        self.start_as(command(), arguments)
    }

    /// Starts it with these fail points.
    pub(crate) fn start_at(&mut self, points: &str, arguments: &[&str]) -> Running {
        self.start_as(command_at(points), arguments)
    }

    /// Starts it by `command`, which ends in the program.
    pub(crate) fn start_as(&mut self, mut command: Command, arguments: &[&str]) -> Running {
        self.runs += 1;
        command.arg("run").arg("--config").arg(self.config()).args(arguments);
        Running::start("agent", command, &self.directory, self.runs)
    }

    /// Runs to the end, and returns the log.
    pub(crate) fn run(&mut self, arguments: &[&str]) -> String {
        self.start(arguments).log_at_end()
    }

    /// Returns `(epoch, number of events)` that the journal has accepted. Only while the agent does not run.
    pub(crate) fn accepted(&self) -> (String, u64) {
        let journal = rusqlite::Connection::open(self.state_dir().join("journal.db")).expect("there is a journal");
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (epoch, next) = journal.query_row("SELECT epoch, next_seq FROM meta", [], row).expect("it counts");
        (format!("{epoch:016x}"), next as u64 - 1)
    }

    /// Returns the number of events still in the journal. Only while the agent does not run.
    pub(crate) fn pending(&self) -> u64 {
        let journal = rusqlite::Connection::open(self.state_dir().join("journal.db")).expect("there is a journal");
        journal.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).expect("it has events") as u64
    }
}

/// The program, without the environment of `tests/run`.
pub(crate) fn command() -> Command {
    command_at("")
}

fn command_at(points: &str) -> Command {
    failpoints::command(env!("CARGO_BIN_EXE_highwater-agent"), points)
}
