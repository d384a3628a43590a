//! Processes: runs of our programs and of others, the scripts of `tests/support`, signals, and waiting.

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far more than any run takes that ends by itself.
const ENDS_MAX: Duration = Duration::from_secs(400);

/// A process, and its output. Killed when it is dropped.
pub(crate) struct Running {
    program: &'static str,
    child: Child,
    log: PathBuf,
    out: PathBuf,
    /// Keeps the directory until the process is dropped.
    _directory: Arc<TempDir>,
}

impl Running {
    /// Starts `command`, whose output goes into files of the directory, numbered by `run`.
    pub(crate) fn start(program: &'static str, mut command: Command, directory: &Arc<TempDir>, run: u32) -> Self {
        let file = |kind: &str| directory.path().join(format!("{kind}.{run}"));
        let (log, out) = (file("log"), file("out"));
        command
            .stdout(File::create(&out).expect("a file can be written"))
            .stderr(File::create(&log).expect("a log can be written"));
        let child = command.spawn().expect("the program starts");
        Self { program, child, log, out, _directory: Arc::clone(directory) }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Waits for an orderly end, and returns the log. Exit code 1 of an agent means that Kafka did not take all events.
    pub(crate) fn log_at_end(mut self) -> String {
        let status = self.wait();
        let log = self.log();
        let is_left = status.code() == Some(1) && log.contains(" left in the journal: ");
        assert!(status.success() || is_left, "{status}: {log}");
        log
    }

    /// Waits until the log contains `text`; a minute is far more than anything takes.
    pub(crate) fn until(&self, text: &str) {
        until(&format!("`{text}` in the log"), || self.log().contains(text).then_some(()));
    }

    /// Sends a signal by its name: TERM, HUP, USR1, KILL.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends: one that never does fails its test, and holds up no other.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        while began.elapsed() < ENDS_MAX {
            if let Some(status) = self.try_wait() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        panic!("it did not end in {ENDS_MAX:?}");
    }

    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits until it ends by itself; a minute is far more than anything takes.
    pub(crate) fn ended(mut self) -> ExitStatus {
        until("the process ends by itself", || self.try_wait())
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
        if std::thread::panicking() {
            eprintln!("what the {} logged:\n{}", self.program, self.log());
        }
    }
}

/// Wraps `command` in another program: `wrapper` is its name, and its arguments before the command's.
pub(crate) fn under(wrapper: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(wrapper[0]);
    outer.args(&wrapper[1..]).arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A process that its test reads, writes and waits for as std does. Killed when it is dropped.
pub(crate) struct Spawned(Option<Child>);

impl Spawned {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().expect("the program starts")))
    }

    pub(crate) fn wait_with_output(mut self) -> io::Result<Output> {
        self.0.take().expect("it was started").wait_with_output()
    }
}

impl Deref for Spawned {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().expect("it was started")
    }
}

impl DerefMut for Spawned {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was started")
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns whether this program can be started, by asking it for its version.
pub(crate) fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Sends a process a signal by its name: TERM, HUP, STOP.
pub(crate) fn signal(id: impl ToString, name: &str) {
    let status = Command::new("kill").args(["-s", name, id.to_string().trim()]).status();
    assert!(status.expect("kill runs").success());
}

/// Returns a script of `tests/support`, to be given its arguments.
pub(crate) fn script(name: &str) -> Command {
    Command::new(format!("{}/tests/support/{name}", env!("CARGO_MANIFEST_DIR")))
}

/// Runs a command to its end, and returns its exit code, standard output and standard error.
pub(crate) fn output_of(command: &mut Command) -> (i32, String, String) {
    texts_of(&command.output().expect("the program runs"))
}

/// Returns exit code, standard output and standard error of a command that has ended.
pub(crate) fn texts_of(output: &Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Calls `what` until it returns a value. The time-out is generous: it is no measurement.
pub(crate) fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_200 {
        if let Some(answer) = what() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("a minute was not enough for: {name}");
}
