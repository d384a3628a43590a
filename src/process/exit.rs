use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

#[derive(Debug)]
pub struct Failure {
    status: Status,
    error: Box<dyn Error + Send + Sync>,
}

/// Exit codes, `EX_UNAVAILABLE` (a needed service) and `EX_CONFIG` (a restart does not help) among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Failed = 1,
    Usage = 2,
    Unavailable = 69,
    Config = 78,
}

impl Failure {
    pub fn new(status: Status, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { status, error: error.into() }
    }

    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Status::Failed, error)
    }

    pub fn config(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Status::Config, error)
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(&*self.error))
    }
}

/// Returns an error with its causes, but for those that the error before already quotes.
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

/// Ignores a closed pipe, at which `eprintln!` would panic: the failure cannot be reported anyway.
pub fn write_error(line: &str) {
    // In one piece: lines of other processes on the same pipe come before it or after it.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

pub fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            write_error(&format!("error: {failure}"));
            ExitCode::from(failure.status as u8)
        }
    }
}
