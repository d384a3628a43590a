//! Flags that questions share: links, limit and time of the wanted rows.

use chrono::{DateTime, Utc};
use clap::Args;

use super::common::Common;
use super::when::{TIMES, When, in_order};
use crate::cli::output::OutputFormat;
use crate::consumer::config::Settings;
use crate::consumer::report::LinkFilter;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;

#[derive(Args, Clone, Debug)]
pub(super) struct QuestionFlags {
    #[command(flatten)]
    pub(super) common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    times: TimeFlags,
    #[command(flatten)]
    links: LinkFlags,
}

#[derive(Args, Clone, Debug)]
pub(super) struct LinkFlags {
    /// Only this agent's; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Vec<String>,
    /// Only this interface's; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) interface: Vec<String>,
    /// Only this direction: rx, tx, or total, which is both
    #[arg(long, value_name = "DIRECTION", value_parser = ["rx", "tx", "total"])]
    pub(super) direction: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct LimitFlags {
    /// Only of this severity
    #[arg(long, value_name = "SEVERITY", value_parser = ["warning", "critical"])]
    pub(super) severity: Option<String>,
    /// Only of this limit
    #[arg(long, value_name = "NAME")]
    pub(super) limit_name: Option<String>,
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct TimeFlags {
    /// Only from then on: 24h (ago), today, 10:00, 2026-11-21
    #[arg(long, value_name = "TIME", long_help = format!("Only from then on.\n{TIMES}"))]
    since: Option<When>,
    /// Only before then
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct LatestFlag {
    /// Only the latest N
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) n: Option<i64>,
}

/// Begin, and end (exclusive).
type TimeSpan = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

impl QuestionFlags {
    pub(super) fn prepare(&self) -> Result<(Settings, LinkFilter), Failure> {
        let settings = self.common.prepare()?;
        Ok((settings, self.links.clone().filter(self.times, SystemClock::default().wall())?))
    }
}

impl LinkFlags {
    pub(super) fn filter(self, times: TimeFlags, now: DateTime<Utc>) -> Result<LinkFilter, Failure> {
        let (since, until) = times.of(now)?;
        Ok(LinkFilter { agents: self.agent, interfaces: self.interface, directions: self.direction, since, until })
    }
}

impl TimeFlags {
    pub(super) fn of(self, now: DateTime<Utc>) -> Result<TimeSpan, Failure> {
        let (since, until) = (self.since.map(|when| when.from(now)), self.until.map(|when| when.from(now)));
        in_order(since, until)?;
        Ok((since, until))
    }
}
