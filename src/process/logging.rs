//! The log on standard error: for systemd's journal, which has its own time stamps, or for a terminal, a file or a container's log.

use std::ffi::OsStr;
use std::io::{self, Write as _};

use chrono::Utc;
use env_logger::{Builder, Env};
use log::LevelFilter;
use rustix::fs::fstat;

use super::clock::rfc3339_seconds;
use crate::text::escape_control;

pub fn start(default: LevelFilter) {
    // Errors of rdkafka that matter are returned too; its own lines say of a fenced client that it could not leave its group.
    let filter = format!("{default},rdkafka=off,refinery_core=warn,tokio_postgres=warn");
    let mut builder = Builder::from_env(Env::default().default_filter_or(filter));
    if stderr_is_journald() {
        // The number is syslog's priority (sd-daemon(3)), for `journalctl -p warning`.
        builder.format(|out, record| {
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            let text = record.args().to_string();
            text.lines().try_for_each(|line| writeln!(out, "<{priority}>{} {}", record.level(), escape_control(line)))
        });
    } else {
        builder.format(|out, record| {
            let style = out.default_level_style(record.level());
            let now = rfc3339_seconds(Utc::now());
            let text = record.args().to_string();
            let text: Vec<_> = text.lines().map(escape_control).collect();
            // Continuation lines are indented, so that a line within a message cannot pass for a log entry.
            writeln!(out, "{now} {style}{:<5}{style:#} {}", record.level(), text.join("\n  "))
        });
    }
    // A second start, in a test or an example, changes nothing.
    let _ = builder.try_init();
}

/// Compares standard error with systemd's: a process with a redirection inherits the variable too (systemd.exec(5)).
fn stderr_is_journald() -> bool {
    let Ok(stream) = fstat(io::stderr()) else { return false };
    let named = std::env::var_os("JOURNAL_STREAM");
    named.is_some_and(|named| names_stream(&named, stream.st_dev, stream.st_ino))
}

fn names_stream(named: &OsStr, device: u64, inode: u64) -> bool {
    named.to_str() == Some(&*format!("{device}:{inode}"))
}

pub fn level(verbose: u8, quiet: u8) -> LevelFilter {
    match i16::from(verbose) - i16::from(quiet) {
        ..=-2 => LevelFilter::Error,
        -1 => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        2.. => LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_itself_is_the_journal() {
        for (named, is_it) in
            [("8:42", true), ("8:43", false), ("9:42", false), ("", false), ("8", false), ("8:42:1", false)]
        {
            assert_eq!(names_stream(OsStr::new(named), 8, 42), is_it, "{named}");
        }
    }
}
