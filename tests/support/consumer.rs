//! The consumer as its users run it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::failpoints;
pub(crate) use super::process::Running;

pub(crate) struct Consumer {
    directory: Arc<TempDir>,
    runs: u32,
}

impl Consumer {
    /// Makes a consumer that reads `topic` as a group of that name, and stores at `url`.
    pub(crate) fn new(brokers: &str, topic: &str, url: &str) -> Self {
        Self::with(&format!(
            "[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\ngroup = '{topic}'\n[kafka.properties]\n'session.timeout.ms' = \
             6000\n'topic.metadata.refresh.interval.ms' = 2000\n[store]\nurl = '{url}'\n"
        ))
    }

    /// The default topics of rates are those of all tests: no test reads them unless it says so.
    pub(crate) fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let topics = if config.contains("[topics]") { "" } else { "[topics]\nrates = ''\nhistograms = ''\n" };
        fs::write(directory.path().join("consumer.toml"), format!("{config}{topics}")).expect("it can be written");
        Self { directory: Arc::new(directory), runs: 0 }
    }

    pub(crate) fn set(&self, table: &str, line: &str) {
        let text = fs::read_to_string(self.config()).expect("there is a configuration");
        let with = text.replacen(&format!("{table}\n"), &format!("{table}\n{line}\n"), 1);
        fs::write(self.config(), with).expect("it can be written");
    }

    pub(crate) fn append(&self, tables: &str) {
        if let Some(lines) = tables.strip_prefix("[topics]\n") {
            return lines.lines().for_each(|line| self.set_topic(line));
        }
        let text = fs::read_to_string(self.config()).expect("there is a configuration");
        fs::write(self.config(), text + tables).expect("it can be written");
    }

    fn set_topic(&self, line: &str) {
        let text = fs::read_to_string(self.config()).expect("there is a configuration");
        let (key, _) = line.split_once('=').expect("a key and a value");
        fs::write(self.config(), text.replace(&format!("{key}= ''\n"), "")).expect("it can be written");
        self.set("[topics]", line);
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("consumer.toml")
    }

    /// Starts `highwater-consumer run` with further arguments.
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
        command.args(["run", "-v", "--config"]).arg(self.config()).args(arguments);
        Running::start("consumer", command, &self.directory, self.runs)
    }

    /// Stores all that is there now; returns standard output and the log.
    pub(crate) fn run_until_end(&mut self) -> (String, String) {
        let mut running = self.start(&["--until-end", "--print"]);
        let status = running.wait();
        assert!(status.success(), "{status}: {}", running.log());
        (running.out(), running.log())
    }
}

/// The program, without the environment of `tests/run`.
pub(crate) fn command() -> Command {
    command_at("")
}

pub(crate) fn command_at(points: &str) -> Command {
    let mut command = failpoints::command(env!("CARGO_BIN_EXE_highwater-consumer"), points);
    command.stdin(Stdio::null());
    command
}
