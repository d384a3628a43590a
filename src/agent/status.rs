//! How an agent is: what it tells whoever connects to its socket, and what can be told of one that does not run.

mod socket;

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use self::socket::{Client, NoAnswer, StatusSocket, ask, socket_path};
use crate::agent::detector::LinkView;
use crate::agent::mishap::Mishap;
use crate::agent::rate::bit_rate;
use crate::event::{Breach, Direction, Severity, Stamp};
use crate::excerpt::beginning;
use crate::units::BitRate;

/// So many breaches are told one by one, the worst first.
pub const BREACHES_MAX: usize = 100;
/// Likewise links, the busiest first.
pub const LINKS_MAX: usize = 100;
/// So much of an error is told, in characters.
const WORDS_MAX: usize = 500;

/// The one JSON object of an answer. What is not known is `null`: most of it, of an agent that does not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Whether it runs.
    pub state: State,
    /// It runs, and nothing is wrong that lasts.
    pub healthy: bool,
    /// When this was told.
    pub asked_at: DateTime<Utc>,
    /// Its name in events.
    pub agent: Option<String>,
    /// The program's.
    pub version: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// Since when it runs.
    pub started_at: Option<DateTime<Utc>>,
    /// Where its journal stands.
    pub state_dir: PathBuf,
    /// Whether events survive the process: `disk`, or `memory` while the disk refuses.
    pub kept_on: Option<String>,
    /// In which it counts.
    pub epoch: Option<String>,
    /// The number of the next event.
    pub next_seq: Option<u64>,
    /// Events that Kafka has not acknowledged; while they are kept in memory, without those that wait on the disk.
    pub pending: u64,
    /// Bytes of their JSON.
    pub pending_bytes: u64,
    /// `observed_at` of the one registered first.
    pub oldest_at: Option<DateTime<Utc>>,
    /// What the counters are read by.
    pub source: Option<String>,
    /// How many limits there are.
    pub limits: Option<usize>,
    /// How often the counters are read.
    pub interval_ms: Option<u64>,
    /// The last reading.
    pub last_tick_at: Option<DateTime<Utc>>,
    /// Readings since the start.
    pub ticks: Option<u64>,
    /// Those left out because the host was too busy.
    pub skipped_ticks: Option<u64>,
    /// Where events go.
    pub topic: Option<String>,
    /// By way of these.
    pub brokers: Option<String>,
    /// The end of the last flush: Kafka had all that there was.
    pub last_flush_at: Option<DateTime<Utc>>,
    /// Since when a flush goes on.
    pub flushing_since: Option<DateTime<Utc>>,
    /// When the next one is due; `null` where each event is sent at once.
    pub next_flush_at: Option<DateTime<Utc>>,
    /// Events that Kafka acknowledged since the start.
    pub delivered: Option<u64>,
    /// Events given up since the start, and declared.
    pub rejected: Option<u64>,
    /// Events given up since the start: the sum of the four below. Each is declared by a `loss` event.
    pub lost: Option<u64>,
    /// The journal was full.
    pub lost_evicted: Option<u64>,
    /// They were older than `journal.max_age`.
    pub lost_expired: Option<u64>,
    /// Kafka refused them for good.
    pub lost_rejected: Option<u64>,
    /// The journal was damaged.
    pub lost_damaged: Option<u64>,
    /// So often all that was not acknowledged was sent anew.
    pub retries: Option<u64>,
    /// The last acknowledged offset of each partition that was written to since the start.
    pub last_offsets: Option<BTreeMap<i32, i64>>,
    /// What went wrong since the start, so often.
    pub errors: Option<u64>,
    /// When it last did.
    pub last_error_at: Option<DateTime<Utc>>,
    /// What it was.
    pub last_error: Option<String>,
    /// What is wrong now.
    pub troubles: Vec<Trouble>,
    /// How many breaches are open.
    pub open_breaches: u64,
    /// They, the critical ones first, then the highest above their limit; [`BREACHES_MAX`] at most.
    pub breaches: Vec<OpenBreach>,
    /// Number of watched links.
    pub watched_links: u64,
    /// They, the busiest first; [`LINKS_MAX`] at most.
    pub links: Vec<LinkStatus>,
}

/// A watched link at the last reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    pub interface: String,
    pub ifindex: u32,
    pub up: bool,
    /// What it can carry each way, if that is known.
    pub rx_speed_bps: Option<u64>,
    pub tx_speed_bps: Option<u64>,
    /// Traffic contradicted the speed that the driver names.
    pub speed_doubted: bool,
    /// What became of the last reading: `measured`, or why it was not judged.
    pub verdict: String,
    /// Rate of the last reading; `null` where it was not judged.
    pub rx_bps: Option<u64>,
    pub tx_bps: Option<u64>,
    /// Readings that were not judged since the link is watched, by their verdict.
    pub unjudged: BTreeMap<String, u64>,
    pub limits: Vec<LinkLimit>,
}

/// A limit on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkLimit {
    pub name: String,
    pub direction: Direction,
    /// Where it stands; `null` for a percentage of an unknown speed.
    pub raise_at_bps: Option<u64>,
}

/// Whether an agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It watches.
    Running,
    /// It was told to end, and sends what is left.
    Ending,
    /// It does not run: this is what its journal says.
    #[default]
    NotRunning,
}

/// Something that is wrong, and lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Since when.
    pub since: DateTime<Utc>,
    /// What.
    pub what: String,
}

/// A breach that is not cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBreach {
    /// As in its events.
    pub breach_id: String,
    /// As configured.
    pub severity: Severity,
    /// Where; `*` is the whole host.
    pub interface: String,
    /// Which way.
    pub direction: Direction,
    /// Name of the limit.
    pub limit_name: String,
    /// The mark that was crossed.
    pub limit_bps: u64,
    /// The rate of the last reading.
    pub rate_bps: u64,
    /// The highest rate of one reading.
    pub peak_bps: u64,
    /// The mean.
    pub mean_bps: u64,
    /// Bytes above what the limit allows.
    pub excess_bytes: u64,
    /// Since when.
    pub raised_at: DateTime<Utc>,
    /// When it stood so: now, or at its last event where the agent does not run or its link gives no rate yet.
    pub observed_at: DateTime<Utc>,
}

impl Report {
    /// Whether it is of an agent that runs.
    pub fn running(&self) -> bool {
        self.state != State::NotRunning
    }

    /// With these breaches open.
    pub fn with_breaches(mut self, open: impl IntoIterator<Item = (Breach, Stamp)>) -> Self {
        let mut breaches: Vec<OpenBreach> =
            open.into_iter().map(|(breach, stamp)| open_breach(breach, &stamp)).collect();
        breaches.sort_by(|a, b| b.rank().total_cmp(&a.rank()).then_with(|| a.raised_at.cmp(&b.raised_at)));
        self.open_breaches = breaches.len() as u64;
        breaches.truncate(BREACHES_MAX);
        self.breaches = breaches;
        self
    }

    /// With these links watched.
    pub fn with_links<'a>(mut self, links: impl IntoIterator<Item = LinkView<'a>>) -> Self {
        let mut links: Vec<LinkStatus> = links.into_iter().map(|link| link_status(&link)).collect();
        let rate = |link: &LinkStatus| link.rx_bps.unwrap_or_default().saturating_add(link.tx_bps.unwrap_or_default());
        links.sort_by_key(|link| std::cmp::Reverse(rate(link)));
        self.watched_links = links.len() as u64;
        links.truncate(LINKS_MAX);
        self.links = links;
        self
    }

    /// The agent's own answer, or the one in its place, in one line.
    pub fn to_json(&self) -> Vec<u8> {
        // Maps with numbers as keys become text; nothing else in it can fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

impl Trouble {
    /// What lasts, told at `now`.
    pub fn of(mishap: &Mishap, now: &Stamp) -> Self {
        Self { since: at(mishap.at_ms, now), what: words(&mishap.what) }
    }
}

impl OpenBreach {
    /// Critical before warning, then by how far it is above its mark.
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

/// The wall clock's time of `then_ms` (`CLOCK_BOOTTIME`), told at `now`: true also where the wall clock was set meanwhile.
pub fn at(then_ms: u64, now: &Stamp) -> DateTime<Utc> {
    let past_ms = now.monotonic_ms.saturating_sub(then_ms);
    let past = i64::try_from(past_ms).ok().and_then(TimeDelta::try_milliseconds).unwrap_or_default();
    now.observed_at.checked_sub_signed(past).unwrap_or(now.observed_at)
}

/// An error's words, as many as are told.
pub fn words(text: &str) -> String {
    beginning(text, WORDS_MAX)
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
        let report = Report { pid: Some(7), last_offsets: offsets, ..Report::default() };
        let report = report.with_breaches([breach(Severity::Warning, 10, 20)]);
        let line = report.to_json();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Report>(&line).unwrap(), report);
        // Of an older agent, or a newer one.
        assert_eq!(serde_json::from_str::<Report>("{\"news\":1}").unwrap(), Report::default());
    }

    #[test]
    fn the_worst_breaches_come_first_and_are_counted_also_where_they_are_many() {
        let mut open = vec![breach(Severity::Warning, 10, 90), breach(Severity::Critical, 10, 11)];
        open.extend((0..BREACHES_MAX).map(|_| breach(Severity::Warning, 1_000, 1_001)));
        let report = Report::default().with_breaches(open);
        assert_eq!((report.open_breaches, report.breaches.len()), (BREACHES_MAX as u64 + 2, BREACHES_MAX));
        assert_eq!((&*report.breaches[0].breach_id, &*report.breaches[1].breach_id), ("11", "90"));
    }

    #[test]
    fn a_time_is_told_by_the_clock_that_nobody_sets() {
        assert_eq!(now().observed_at - at(48_000, &now()), TimeDelta::seconds(12));
        assert_eq!(at(70_000, &now()), now().observed_at, "never in the future");
    }
}
