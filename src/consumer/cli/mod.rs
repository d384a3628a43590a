mod agents;
mod breaches;
mod check;
mod common;
mod dead_letters;
mod events;
mod flags;
mod histogram;
mod init;
mod lag;
mod losses;
mod percentile;
mod plot;
mod rates;
mod table;
mod tail;
mod totals;
mod when;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use signal_hook::consts::SIGHUP;

use self::common::Common;
use super::run::{Options, Reload, StoredEvent, run_reloading};
use crate::config::{ConfigError, TopicRole};
use crate::process::exit::Failure;
use crate::{cli, wire};

/// Stores the agents' events from Kafka in PostgreSQL or SQLite, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "highwater-consumer", version = cli::version(), propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store events until SIGTERM or SIGINT (SIGHUP reloads)
    Run {
        #[command(flatten)]
        common: Common,
        /// Store samples too (topics.samples)
        #[arg(long)]
        samples: bool,
        /// Stop once all that was in Kafka at the start is stored
        #[arg(long)]
        until_end: bool,
        /// Print each event as it is stored
        #[arg(long)]
        print: bool,
        /// Log the bytes over limit whenever they change
        #[arg(long)]
        log_totals: bool,
    },
    /// Write a configuration
    #[command(after_help = init::HELP)]
    Init(init::ConsumerInit),
    /// Print messages as they arrive, without joining a group
    #[command(after_help = tail::HELP)]
    Tail(tail::Tail),
    /// Show the consumer's lag, or wait until it is zero
    #[command(after_help = lag::HELP)]
    Lag(lag::Lag),
    /// Show the events that are stored
    #[command(after_help = events::HELP)]
    Events(events::Events),
    /// Show breaches, and which of them are open
    #[command(after_help = breaches::HELP)]
    Breaches(breaches::Breaches),
    /// Show rates by window, hour or day
    #[command(after_help = rates::HELP)]
    Rates(rates::RatesCommand),
    /// Show how often each rate was: the seconds in each bin
    #[command(after_help = histogram::HELP)]
    Histogram(histogram::HistogramCommand),
    /// Show the percentile of a month that transit is billed by
    #[command(after_help = percentile::HELP)]
    Percentile(percentile::PercentileCommand),
    /// Draw rates, their distribution, or bytes over limit
    #[command(after_help = plot::HELP)]
    Plot {
        #[command(subcommand)]
        command: plot::Plot,
    },
    /// Show the agents, and when each was last heard of
    #[command(after_help = agents::HELP)]
    Agents(agents::Agents),
    /// Show which events are missing, why, and which are unexplained
    #[command(after_help = losses::HELP)]
    Losses(losses::Losses),
    /// Show the bytes over limit, by day, agent, interface and limit
    #[command(after_help = totals::HELP)]
    Totals(totals::TotalsCommand),
    /// Show, retry or drop the messages that could not be stored
    DeadLetters {
        #[command(subcommand)]
        command: dead_letters::DeadLetters,
    },
    /// Explain the configuration, and try all that the consumer needs
    #[command(after_help = check::HELP)]
    Check(check::ConsumerCheck),
}

pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::main(arguments, &[], |cli: Cli| cli.command.run())
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run { common, samples, until_end, print, log_totals } => {
                common.start_log();
                let read = || {
                    let mut settings = common.settings()?;
                    if samples {
                        let usual = TopicRole::Samples.spec().usual;
                        settings.topics.of_mut(TopicRole::Samples).get_or_insert_with(|| usual.to_owned());
                    }
                    Ok(settings)
                };
                let settings = read().map_err(|error: ConfigError| Failure::config(error))?;
                if let Some(file) = common.absent_file() {
                    log::info!("there is no {file}: storing in {}", settings.store);
                }
                let stop = cli::stop_flag().map_err(Failure::failed)?;
                let options = Options { until_end, watchdog: true, log_totals };
                let mut observer: fn(&StoredEvent<'_>) = if print { print_stored } else { |_| () };
                let requested = Arc::new(AtomicBool::new(false));
                signal_hook::flag::register(SIGHUP, Arc::clone(&requested)).map_err(Failure::failed)?;
                let reload = Reload { requested: &requested, read: &|| read().map_err(|error| error.to_string()) };
                run_reloading(&settings, options, &mut observer, &stop, reload)
            }
            Self::Init(command) => command.run(),
            Self::Tail(command) => command.run(),
            Self::Lag(command) => command.run(),
            Self::Events(command) => command.run(),
            Self::Breaches(command) => command.run(),
            Self::Rates(command) => command.run(),
            Self::Histogram(command) => command.run(),
            Self::Percentile(command) => command.run(),
            Self::Plot { command } => command.run(),
            Self::Agents(command) => command.run(),
            Self::Losses(command) => command.run(),
            Self::Totals(command) => command.run(),
            Self::DeadLetters { command } => command.run(),
            Self::Check(command) => command.run(),
        }
    }
}

fn print_stored(stored: &StoredEvent<'_>) {
    let StoredEvent { topic, partition, offset, event } = stored;
    let json = wire::to_json(event);
    let mut out = std::io::stdout().lock();
    // The reader of standard output may be gone; storing goes on.
    let _ = write!(out, "{topic} {partition} {offset} ")
        .and_then(|()| out.write_all(&json))
        .and_then(|()| out.write_all(b"\n"));
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_help_fits_a_terminal() {
        crate::cli::assert_help_fits::<super::Cli>();
    }
}
