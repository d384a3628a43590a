//! How the programs end: one place that prints an error with its causes and chooses the exit code.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    status: Status,
    error: Box<dyn Error + Send + Sync>,
}

/// Exit codes, after sysexits.h where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 1: it failed, or the answer is no.
    Failed = 1,
    /// 2: the command line is wrong.
    Usage = 2,
    /// 69 (`EX_UNAVAILABLE`): a service that was needed could not be asked.
    Unavailable = 69,
    /// 78 (`EX_CONFIG`): the configuration is wrong; a restart does not help.
    Config = 78,
}

impl Failure {
    /// Ends the program with `status`, for the reason `error`.
    pub fn new(status: Status, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { status, error: error.into() }
    }

    /// The same as [`Status::Failed`].
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Status::Failed, error)
    }

    /// The same as [`Status::Config`].
    pub fn config(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Status::Config, error)
    }

    /// The exit code.
    pub fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Failure {
    /// One line: the error and its causes, each after a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(&*self.error))
    }
}

/// An error and its causes in one line, leaving out a cause that the error before it already quotes.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

/// Writes a line to standard error. `eprintln!` would panic where the reader of a pipe has gone, and there is nobody else to tell.
pub fn write_error(line: &str) {
    // In one piece: what other processes write to the same pipe comes before it or after it.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Prints a failure on standard error; the exit code for `main`.
pub fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            write_error(&format!("error: {failure}"));
            ExitCode::from(failure.status as u8)
        }
    }
}
