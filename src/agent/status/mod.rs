mod socket;

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use self::socket::{Client, NoAnswer, StatusSocket, ask, socket_path};
use crate::agent::detector::LinkView;
use crate::agent::detector::rate::bit_rate;
use crate::message::{Breach, Direction, Severity, Stamp};
use crate::process::problems::Problem;
use crate::text::truncate;
use crate::units::BitRate;

pub const BREACHES_MAX: usize = 100;
pub const LINKS_MAX: usize = 100;
const WORDS_MAX: usize = 500;

/// State of an agent, as in `docs/commands.md`; unknown values are `null`, as most are if no agent runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an agent's status")]
pub struct StatusReport {
    pub state: AgentState,
    pub healthy: bool,
    pub asked_at: DateTime<Utc>,
    pub agent: Option<String>,
    pub version: Option<String>,
    pub pid: Option<u32>,
    pub started_at: Option<DateTime<Utc>>,
    pub state_dir: PathBuf,
    pub kept_on: Option<String>,
    pub epoch: Option<String>,
    pub next_seq: Option<u64>,
    /// While kept in memory, without events that wait on the disk.
    pub pending: u64,
    pub pending_bytes: u64,
    pub oldest_at: Option<DateTime<Utc>>,
    pub source: Option<String>,
    pub limits: Option<usize>,
    pub interval_ms: Option<u64>,
    pub last_tick_at: Option<DateTime<Utc>>,
    pub ticks: Option<u64>,
    pub skipped_ticks: Option<u64>,
    pub topic: Option<String>,
    pub brokers: Option<String>,
    pub last_flush_at: Option<DateTime<Utc>>,
    pub flushing_since: Option<DateTime<Utc>>,
    pub next_flush_at: Option<DateTime<Utc>>,
    pub delivered: Option<u64>,
    pub rejected: Option<u64>,
    pub lost: Option<u64>,
    pub lost_evicted: Option<u64>,
    pub lost_expired: Option<u64>,
    pub lost_rejected: Option<u64>,
    pub lost_damaged: Option<u64>,
    pub retries: Option<u64>,
    pub last_offsets: Option<BTreeMap<i32, i64>>,
    pub errors: Option<u64>,
    pub last_error_at: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
    pub troubles: Vec<OngoingProblem>,
    pub open_breaches: u64,
    pub breaches: Vec<OpenBreach>,
    pub watched_links: u64,
    pub links: Vec<LinkStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    pub interface: String,
    pub ifindex: u32,
    pub up: bool,
    pub rx_speed_bps: Option<u64>,
    pub tx_speed_bps: Option<u64>,
    pub speed_doubted: bool,
    pub verdict: String,
    pub rx_bps: Option<u64>,
    pub tx_bps: Option<u64>,
    pub unjudged: BTreeMap<String, u64>,
    pub limits: Vec<LinkLimit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkLimit {
    pub name: String,
    pub direction: Direction,
    pub raise_at_bps: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    Running,
    Ending,
    #[default]
    NotRunning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "a problem")]
pub struct OngoingProblem {
    pub since: DateTime<Utc>,
    pub what: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBreach {
    pub breach_id: String,
    pub severity: Severity,
    pub interface: String,
    pub direction: Direction,
    pub limit_name: String,
    pub limit_bps: u64,
    pub rate_bps: u64,
    pub peak_bps: u64,
    pub mean_bps: u64,
    pub excess_bytes: u64,
    pub raised_at: DateTime<Utc>,
    /// Now, or the time of the last event if no agent runs or the link has no rate yet.
    pub observed_at: DateTime<Utc>,
}

impl StatusReport {
    pub fn running(&self) -> bool {
        self.state != AgentState::NotRunning
    }

    pub fn with_breaches(mut self, open: impl IntoIterator<Item = (Breach, Stamp)>) -> Self {
        let mut breaches: Vec<OpenBreach> =
            open.into_iter().map(|(breach, stamp)| open_breach(breach, &stamp)).collect();
        breaches.sort_by(|a, b| b.rank().total_cmp(&a.rank()).then_with(|| a.raised_at.cmp(&b.raised_at)));
        self.open_breaches = breaches.len() as u64;
        breaches.truncate(BREACHES_MAX);
        self.breaches = breaches;
        self
    }

    pub fn with_links<'a>(mut self, links: impl IntoIterator<Item = LinkView<'a>>) -> Self {
        let mut links: Vec<LinkStatus> = links.into_iter().map(|link| link_status(&link)).collect();
        let rate = |link: &LinkStatus| link.rx_bps.unwrap_or_default().saturating_add(link.tx_bps.unwrap_or_default());
        links.sort_by_key(|link| std::cmp::Reverse(rate(link)));
        self.watched_links = links.len() as u64;
        links.truncate(LINKS_MAX);
        self.links = links;
        self
    }

    pub fn to_json(&self) -> Vec<u8> {
        // Numeric map keys become text; nothing else in it can fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

impl OngoingProblem {
    pub fn of(problem: &Problem, now: &Stamp) -> Self {
        Self { since: at(problem.at_ms, now), what: truncated(&problem.what) }
    }
}

impl OpenBreach {
    fn rank(&self) -> f64 {
        let severity = f64::from(u8::from(self.severity == Severity::Critical)) * 1e12;
        severity + self.peak_bps as f64 / self.limit_bps.max(1) as f64
    }
}

fn open_breach(breach: Breach, stamp: &Stamp) -> OpenBreach {
    OpenBreach {
        breach_id: breach.breach_id.into(),
        severity: breach.severity,
        interface: breach.interface.into(),
        direction: breach.direction,
        limit_name: breach.limit_name.into(),
        limit_bps: breach.limit_bps,
        rate_bps: breach.rate_bps,
        peak_bps: breach.peak_bps,
        mean_bps: breach.mean_bps,
        excess_bytes: breach.excess_bytes,
        raised_at: breach.raised_at,
        observed_at: stamp.observed_at,
    }
}

fn link_status(link: &LinkView<'_>) -> LinkStatus {
    let rate = |bytes, elapsed| bit_rate(bytes, elapsed).bps();
    LinkStatus {
        interface: link.info.name.clone(),
        ifindex: link.info.ifindex,
        up: link.info.up,
        rx_speed_bps: link.info.speed.rx.map(BitRate::bps),
        tx_speed_bps: link.info.speed.tx.map(BitRate::bps),
        speed_doubted: link.doubts_speed,
        verdict: link.verdict.to_owned(),
        rx_bps: link.traffic.map(|traffic| rate(traffic.rx_bytes, traffic.elapsed)),
        tx_bps: link.traffic.map(|traffic| rate(traffic.tx_bytes, traffic.elapsed)),
        unjudged: link.unjudged.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        limits: link
            .limits
            .iter()
            .map(|(name, direction, thresholds)| LinkLimit {
                name: (*name).to_owned(),
                direction: *direction,
                raise_at_bps: thresholds.map(|thresholds| thresholds.raise_at.bps()),
            })
            .collect(),
    }
}

/// Converts `then_ms` (`CLOCK_BOOTTIME`), even if the wall clock was set in between.
pub fn at(then_ms: u64, now: &Stamp) -> DateTime<Utc> {
    let past_ms = now.monotonic_ms.saturating_sub(then_ms);
    let past = i64::try_from(past_ms).ok().and_then(TimeDelta::try_milliseconds).unwrap_or_default();
    now.observed_at.checked_sub_signed(past).unwrap_or(now.observed_at)
}

pub fn truncated(text: &str) -> String {
    truncate(text, WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Stamp {
        Stamp {
            agent: "gw".into(),
            observed_at: DateTime::from_timestamp(1_795_176_000, 0).unwrap(),
            boot_id: String::new(),
            monotonic_ms: 60_000,
            clock_synced: None,
        }
    }

    fn breach(severity: Severity, limit_bps: u64, peak_bps: u64) -> (Breach, Stamp) {
        let breach = Breach {
            breach_id: format!("{peak_bps}").into(),
            started_at: now().observed_at,
            raised_at: now().observed_at,
            ended_at: now().observed_at,
            limit_name: "wan".into(),
            severity,
            interface: "eth0".into(),
            ifindex: Some(2),
            direction: Direction::Rx,
            limit_bps,
            rate_bps: peak_bps,
            peak_bps,
            mean_bps: peak_bps,
            duration_ms: 0,
            measured_ms: 0,
            excess_bytes: 0,
            reason: None,
            detail: None,
        };
        (breach, now())
    }

    #[test]
    fn an_answer_is_one_line_and_comes_back_as_it_was() {
        let offsets = Some(BTreeMap::from([(0, 7), (11, 3)]));
        let report = StatusReport { pid: Some(7), last_offsets: offsets, ..StatusReport::default() };
        let report = report.with_breaches([breach(Severity::Warning, 10, 20)]);
        let line = report.to_json();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<StatusReport>(&line).unwrap(), report);
        // From an older agent, or a newer one.
        assert_eq!(serde_json::from_str::<StatusReport>("{\"news\":1}").unwrap(), StatusReport::default());
    }

    #[test]
    fn the_worst_breaches_come_first_and_are_counted_also_where_they_are_many() {
        let mut open = vec![breach(Severity::Warning, 10, 90), breach(Severity::Critical, 10, 11)];
        open.extend((0..BREACHES_MAX).map(|_| breach(Severity::Warning, 1_000, 1_001)));
        let report = StatusReport::default().with_breaches(open);
        assert_eq!((report.open_breaches, report.breaches.len()), (BREACHES_MAX as u64 + 2, BREACHES_MAX));
        assert_eq!((&*report.breaches[0].breach_id, &*report.breaches[1].breach_id), ("11", "90"));
    }

    #[test]
    fn a_time_is_told_by_the_clock_that_nobody_sets() {
        assert_eq!(now().observed_at - at(48_000, &now()), TimeDelta::seconds(12));
        assert_eq!(at(70_000, &now()), now().observed_at, "never in the future");
    }
}
