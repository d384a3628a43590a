//! Parts shared by both programs' command lines.

pub(crate) mod check;
pub(crate) mod init;
pub mod output;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser};

use crate::config::{self, ConfigError, Layers, environment};
use crate::process::exit::{Failure, report};
use crate::process::{failpoints, logging};

/// Returns what `--version` shows. Builds of releases set `HIGHWATER_COMMIT`; git is not asked, since a tarball has none.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let commit = option_env!("HIGHWATER_COMMIT").unwrap_or("unknown");
        format!("{} (commit {commit}; features: {})", env!("CARGO_PKG_VERSION"), features().join(", "))
    });
    &VERSION
}

fn features() -> Vec<&'static str> {
    let all = [
        ("agent", cfg!(feature = "agent")),
        ("toolbox", cfg!(feature = "toolbox")),
        ("consumer", cfg!(feature = "consumer")),
        ("failpoints", cfg!(feature = "failpoints")),
    ];
    all.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name).collect()
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Verbosity {
    /// Log more (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log less: only warnings (-qq: only errors)
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,
}

impl Verbosity {
    pub(crate) fn start_log(&self) {
        logging::start(logging::level(self.verbose, self.quiet));
    }

    pub(crate) fn note(&self, text: &str) {
        if self.quiet == 0 {
            crate::process::exit::write_error(&format!("note: {text}"));
        }
    }
}

/// Flag, the key that it sets, and its value, if it is given.
pub(crate) type FlagOfKey<'a> = (&'static str, &'static str, &'a Option<String>);

/// Reads the file that is `given`, or the usual one if it exists, then environment and flags.
pub(crate) fn layers(
    given: Option<&Path>,
    usual: &'static str,
    flags: &[FlagOfKey<'_>],
    keys: &[&'static str],
) -> Result<Layers, ConfigError> {
    let path = match absent_file(given, usual) {
        Some(_) => None,
        None => Some(given.unwrap_or(Path::new(usual))),
    };
    Ok(Layers::read(path, environment()?, keys)?.with_flags(flags))
}

/// Returns the usual file if no other is given and it does not exist. One that exists and cannot be read is an error.
pub(crate) fn absent_file(given: Option<&Path>, usual: &'static str) -> Option<&'static str> {
    (given.is_none() && matches!(Path::new(usual).try_exists(), Ok(false))).then_some(usual)
}

#[cfg(any(feature = "consumer", feature = "toolbox"))]
pub(crate) fn stop_flag() -> std::io::Result<std::sync::Arc<std::sync::atomic::AtomicBool>> {
    let stop = std::sync::Arc::default();
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, std::sync::Arc::clone(&stop))?;
    }
    Ok(stop)
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    config::duration("", text).map_err(|invalid| invalid.message)
}

#[cfg(any(feature = "consumer", feature = "toolbox"))]
pub(crate) fn time_zone(text: &str) -> Result<jiff::tz::TimeZone, String> {
    jiff::tz::TimeZone::get(text).map_err(|_| {
        "is not a time zone of the tz database; write one as in Europe/Berlin, America/New_York, UTC".to_owned()
    })
}

/// Parses and runs a command line; `not_everywhere` names commands that a smaller build lacks.
pub(crate) fn main<C: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    not_everywhere: &[&str],
    run: impl FnOnce(C) -> Result<(), Failure>,
) -> ExitCode {
    failpoints::begin();
    match C::try_parse_from(arguments) {
        Ok(cli) => report(run(cli)),
        Err(mut error) => {
            if let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand)
                && not_everywhere.contains(&command.as_str())
            {
                let tip = format!(
                    "`{command}` is not in this build, which is for gateways; a build with the feature `toolbox` has it"
                );
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            // clap's own codes: 0 for --help and --version, 2 for usage. A closed pipe is ignored.
            let _ = error.print();
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

#[cfg(test)]
pub(crate) fn assert_help_fits<C: clap::CommandFactory>() {
    fn check(command: &mut clap::Command) {
        for line in command.render_long_help().to_string().lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
        }
        command.get_subcommands_mut().for_each(check);
    }
    let mut program = C::command();
    program.build();
    check(&mut program);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_names_commit_and_features() {
        let version = super::version();
        let rest = version.strip_prefix(concat!(env!("CARGO_PKG_VERSION"), " (commit ")).expect(version);
        let (commit, features) = rest.split_once("; features: ").expect(version);
        assert!(commit == "unknown" || commit.chars().all(|c| c.is_ascii_hexdigit()), "{version}");
        for (name, is_on) in [("toolbox", cfg!(feature = "toolbox")), ("consumer", cfg!(feature = "consumer"))] {
            assert_eq!(features.contains(name), is_on, "{version}");
        }
    }
}
