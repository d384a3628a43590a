//! The log, as a person reads it: under journald, which has the time, or on a terminal.

use std::io::Write as _;

use env_logger::{Builder, Env};
use log::LevelFilter;

/// Starts the log on standard error. `RUST_LOG` chooses what it says, in place of `default`.
pub fn start(default: LevelFilter) {
    // systemd sets it where standard error goes to the journal (systemd.exec(5)).
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let mut builder = Builder::from_env(
        Env::default().default_filter_or(format!("{default},refinery_core=warn,tokio_postgres=warn")),
    );
    if journald {
        // The number is syslog's priority (sd-daemon(3)): `journalctl -p warning` works.
        builder.format(|out, record| {
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            writeln!(out, "<{priority}>{} {}", record.level(), record.args())
        });
    } else {
        builder.format(|out, record| {
            let style = out.default_level_style(record.level());
            let now = chrono::Local::now().format("%H:%M:%S");
            writeln!(out, "{now} {style}{:<5}{style:#} {}", record.level(), record.args())
        });
    }
    // A second start, in a test or an example, changes nothing.
    let _ = builder.try_init();
}

/// From `-v` and `-q`, counted.
pub fn level(verbose: u8, quiet: u8) -> LevelFilter {
    match i16::from(verbose) - i16::from(quiet) {
        ..=-2 => LevelFilter::Error,
        -1 => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        2.. => LevelFilter::Trace,
    }
}
