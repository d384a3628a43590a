//! The event, all that agents send to Kafka: an occurrence ([`Body`]) with agent and times ([`Stamp`]) and its identity
//! ([`EventId`]). The epoch is drawn at random when an agent's journal is created, and `seq` starts at 1 and has no holes, so that
//! a duplicate event is harmless and a lost one is visible. Rates are in bits per second, times in whole microseconds.

pub mod age;
pub mod fields;
pub mod histogram;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub const SCHEMA_VERSION: u32 = 1;

pub const ALL_INTERFACES: &str = "*";

/// Highest `seq`: reached after nine years of a million events per second, and so low that sums stay far from 2^63. A loss whose last
/// range ends with it is open-ended: how many events were lost is unknown.
pub const SEQ_MAX: u64 = 1 << 48;

/// In bytes: well within what a PostgreSQL index entry and a Kafka key hold.
pub const AGENT_BYTES_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: EventId,
    pub stamp: Stamp,
    pub body: Body,
}

/// Event without identity, which the journal gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    pub stamp: Stamp,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub epoch: Epoch,
    pub seq: u64,
}

/// Life of one journal: 64 random bits, written as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// `agent` has 1 to [`AGENT_BYTES_MAX`] bytes; `observed_at` (wall clock) is final; `monotonic_ms` is `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub agent: SmolStr,
    pub observed_at: DateTime<Utc>,
    pub boot_id: String,
    pub monotonic_ms: u64,
    pub clock_synced: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    BreachRaised(Breach),
    BreachUpdated(Breach),
    /// The rate is no longer over the limit, or no longer judged.
    BreachCleared(Breach),
    Loss(Loss),
    LinkAdded(Link),
    LinkRemoved(Link),
    LinkChanged(Link),
    AgentStarted(Lifecycle),
    AgentStopped(Lifecycle),
    /// Traffic of a link since its previous reading, in an epoch of its own, so that events have no gaps for readers without samples.
    Sample(Sample),
    /// Traffic of all links in one window, in an epoch of its own as well.
    Rates(RateWindow),
    /// Sent if rates are disabled, or sent less often than heartbeats.
    Heartbeat(Lifecycle),
    Unknown(String),
}

/// State of a breach at an event. Readings at or above `clear_at` count, as do lower ones that such a reading follows within `clear_for`.
/// `started_at` is the begin of the first reading of the rise, `raised_at` the end of the reading that raised the breach, `ended_at` the
/// end of the last reading so far at or above `clear_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub breach_id: SmolStr,
    pub started_at: DateTime<Utc>,
    pub raised_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub limit_name: SmolStr,
    pub severity: Severity,
    pub interface: SmolStr,
    /// `None` for the whole host.
    pub ifindex: Option<u32>,
    pub direction: Direction,
    pub limit_bps: u64,
    /// Rate of the last reading that was judged, even if it is low.
    pub rate_bps: u64,
    pub peak_bps: u64,
    pub mean_bps: u64,
    /// From `started_at` to `ended_at` by `CLOCK_BOOTTIME`, measured or not.
    pub duration_ms: u64,
    pub measured_ms: u64,
    /// Above `limit_bps`, summed over the counted readings.
    pub excess_bytes: u64,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
}

/// Lost events: `epoch` is theirs, which may differ from that of this event; `ranges` are inclusive, ascending and disjoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub epoch: Epoch,
    pub ranges: Vec<(u64, u64)>,
    pub reason: Reason,
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub interface: String,
    pub ifindex: u32,
    pub speed_bps: Option<u64>,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    pub version: String,
    /// `signal`, or `finished` with `run --for`, of `agent_stopped`.
    pub reason: Option<Reason>,
    pub detail: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub interface: String,
    pub duration_ms: Option<u64>,
    /// Bytes in `duration_ms`; this and the fields below are `None` if unknown.
    pub rx_bytes: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub rx_bps: Option<u64>,
    pub tx_bps: Option<u64>,
    pub reason: Option<Reason>,
}

/// Ends at `observed_at` of its event, exactly `duration_ms` after `started_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateWindow {
    pub started_at: DateTime<Utc>,
    pub duration_ms: u64,
    pub version: String,
    pub links: Vec<LinkRates>,
}

/// Bytes, packets, errors and drops are those of the measured seconds; the source may not count the latter three. Rates and
/// `histogram` (a [`crate::message::histogram`]) are `None` if no second was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRates {
    pub interface: SmolStr,
    pub direction: Direction,
    pub bytes: u64,
    pub packets: Option<u64>,
    pub errors: Option<u64>,
    pub drops: Option<u64>,
    pub measured_s: u32,
    pub unmeasured_s: u32,
    pub min_bps: Option<u64>,
    pub mean_bps: Option<u64>,
    pub max_bps: Option<u64>,
    pub p50_bps: Option<u64>,
    pub p95_bps: Option<u64>,
    pub p99_bps: Option<u64>,
    pub speed_bps: Option<u64>,
    pub over: Vec<OverLimit>,
    pub histogram: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverLimit {
    pub limit_name: SmolStr,
    pub limit_bps: u64,
    pub over_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Below,
    LinkRemoved,
    LinkRenamed,
    LimitRemoved,
    /// Not running for too long, or for an unknown time; of a loss, ended without declaring what was in memory.
    Interrupted,
    Signal,
    Finished,
    Evicted,
    Expired,
    Rejected,
    Damaged,
    Added,
    Removed,
    Renamed,
    Up,
    Down,
    First,
    Reset,
    Other(SmolStr),
}

pub const REASONS: [(&str, Reason); 18] = [
    ("below", Reason::Below),
    ("link_removed", Reason::LinkRemoved),
    ("link_renamed", Reason::LinkRenamed),
    ("limit_removed", Reason::LimitRemoved),
    ("interrupted", Reason::Interrupted),
    ("signal", Reason::Signal),
    ("finished", Reason::Finished),
    ("evicted", Reason::Evicted),
    ("expired", Reason::Expired),
    ("rejected", Reason::Rejected),
    ("damaged", Reason::Damaged),
    ("added", Reason::Added),
    ("removed", Reason::Removed),
    ("renamed", Reason::Renamed),
    ("up", Reason::Up),
    ("down", Reason::Down),
    ("first", Reason::First),
    ("reset", Reason::Reset),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    #[default]
    Warning,
    Critical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Rx,
    Tx,
    Total,
}

impl Loss {
    pub fn is_open_ended(&self) -> bool {
        self.ranges.last().is_some_and(|(_, last)| *last == SEQ_MAX)
    }

    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to.saturating_sub(*from).saturating_add(1)).fold(0, u64::saturating_add)
    }
}

impl Body {
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::LinkAdded(link) | Self::LinkRemoved(link) | Self::LinkChanged(link) => Some(&link.interface),
            Self::Sample(sample) => Some(&sample.interface),
            body => body.breach().map(|breach| &*breach.interface),
        }
    }

    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::BreachRaised(breach) | Self::BreachUpdated(breach) | Self::BreachCleared(breach) => {
                breach.reason.as_ref()
            }
            Self::Loss(loss) => Some(&loss.reason),
            Self::LinkAdded(link) | Self::LinkRemoved(link) | Self::LinkChanged(link) => link.reason.as_ref(),
            Self::AgentStarted(lifecycle) | Self::AgentStopped(lifecycle) | Self::Heartbeat(lifecycle) => {
                lifecycle.reason.as_ref()
            }
            Self::Sample(sample) => sample.reason.as_ref(),
            Self::Rates(_) | Self::Unknown(_) => None,
        }
    }

    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::BreachRaised(breach) | Self::BreachUpdated(breach) | Self::BreachCleared(breach) => {
                breach.detail.as_deref()
            }
            Self::Loss(loss) => loss.detail.as_deref(),
            Self::LinkAdded(link) | Self::LinkRemoved(link) | Self::LinkChanged(link) => link.detail.as_deref(),
            Self::AgentStarted(lifecycle) | Self::AgentStopped(lifecycle) | Self::Heartbeat(lifecycle) => {
                lifecycle.detail.as_deref()
            }
            Self::Sample(_) | Self::Rates(_) | Self::Unknown(_) => None,
        }
    }

    pub fn breach(&self) -> Option<&Breach> {
        match self {
            Self::BreachRaised(breach) | Self::BreachUpdated(breach) | Self::BreachCleared(breach) => Some(breach),
            _ => None,
        }
    }
}

impl Reason {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(word) => word,
            known => REASONS.iter().find(|(_, reason)| reason == known).map_or("", |(word, _)| word),
        }
    }
}

impl From<&str> for Reason {
    fn from(word: &str) -> Self {
        let known = REASONS.iter().find(|(known, _)| *known == word);
        known.map_or_else(|| Self::Other(word.into()), |(_, reason)| reason.clone())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Stamp {
    pub fn is_of_boot(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id && !self.boot_id.is_empty()
    }
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Direction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
            Self::Total => "total",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Epoch {
    pub fn digits(self) -> SmolStr {
        let mut digits = [0; 16];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(self.0 >> (60 - 4 * place) & 0xf) as usize];
        }
        SmolStr::new(std::str::from_utf8(&digits).expect("digits are text"))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digits())
    }
}

impl fmt::Display for EventId {
    /// `EPOCH-SEQ`, the `ce_id` of the CloudEvent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch `{0}` is not 16 lower-case hex digits")]
pub struct EpochError(String);

impl FromStr for Epoch {
    type Err = EpochError;

    /// Parses exactly what `Display` writes: two spellings of one identity would be two rows.
    fn from_str(text: &str) -> Result<Self, EpochError> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match u64::from_str_radix(text, 16) {
            Ok(bits) if plain => Ok(Self(bits)),
            _ => Err(EpochError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_spelling() {
        assert_eq!("00000000000000ff".parse(), Ok(Epoch(255)));
        assert_eq!(Epoch(255).to_string(), "00000000000000ff");
        for text in ["ff", "00000000000000FF", "+0000000000000ff", "00000000000000fg", ""] {
            assert!(text.parse::<Epoch>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_reason_has_one_word() {
        for (word, reason) in &REASONS {
            assert_eq!((reason.as_str(), Reason::from(*word)), (*word, reason.clone()));
        }
        assert_eq!(Reason::from("solar_flare").as_str(), "solar_flare");
    }

    #[test]
    fn a_loss_counts_its_events() {
        let loss = Loss { epoch: Epoch(1), ranges: vec![(1, 1), (3, 5)], reason: Reason::Evicted, detail: None };
        assert_eq!(loss.count(), 4);
    }
}
