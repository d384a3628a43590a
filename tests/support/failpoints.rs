//! Programs built with the cargo feature `failpoints`: they end, stop, or leave a guard out where a test says so. `tests/run`
//! builds them beside those that it ships and tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::agent::until;
use super::skips::skip;

/// Directory of the programs that ship; those that cargo builds with the tests stand in for them without it.
const SHIPPED: &str = "HIGHWATER_TEST_PROGRAMS";
/// Directory of the programs with fail points.
const PROGRAMS: &str = "HIGHWATER_TEST_FAILPOINTS";
/// Guards that all programs of this run leave out, as `FAILPOINTS` names them: set by `tests/run --mutants`.
const MUTANT: &str = "HIGHWATER_TEST_MUTANT";

/// Skips the test without these programs.
pub(crate) fn or_skip(test: &str) -> Option<()> {
    if std::env::var_os(PROGRAMS).is_none() {
        skip(test, "needs programs with fail points");
        return None;
    }
    Some(())
}

/// Returns whether a guard is out, so that this test is to fail, and need not wait long.
pub(crate) fn is_mutant() -> bool {
    std::env::var_os(MUTANT).is_some()
}

/// Returns the program that ships, without the environment of `tests/run`; or the one with fail points, if there are `points`.
/// `built` is the path of the one that cargo built with the tests.
pub(crate) fn command(built: &str, points: &str) -> Command {
    let mutant = std::env::var(MUTANT).unwrap_or_default();
    let points = [points, &mutant].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(";");
    let built = Path::new(built);
    let program = |directory| PathBuf::from(directory).join(built.file_name().expect("a program has a name"));
    let mut command = if points.is_empty() {
        Command::new(std::env::var_os(SHIPPED).map_or_else(|| built.to_owned(), program))
    } else {
        let mut command = Command::new(program(std::env::var_os(PROGRAMS).expect("the test asked for them")));
        command.env("FAILPOINTS", points);
        command
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HIGHWATER_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// Waits until the process is stopped, by itself or by a signal.
pub(crate) fn until_stopped(pid: u32) {
    until("the process stands still", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        // `PID (NAME) STATE …`, and a name may hold any character (proc(5)).
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')).then_some(())
    });
}
