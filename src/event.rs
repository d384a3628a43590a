//! The event: the only thing that crosses Kafka.
//!
//! An event is what happened ([`Body`]), stamped with who saw it and when ([`Stamp`]) and with its identity
//! ([`EventId`]): `(agent, epoch, seq)`. The epoch is random at the birth of an agent's journal, and `seq` starts at 1 and has no
//! holes, so that a doubled event is harmless and a lost one is visible.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The version of the event's fields that this program writes.
pub const SCHEMA: u32 = 1;

/// The interface named by a breach of a limit with `scope = "host"`: the sum over the watched links.
pub const ALL_INTERFACES: &str = "*";

/// The longest agent name, in bytes: what PostgreSQL's index and Kafka's key carry without a thought.
pub const AGENT_BYTES_MAX: usize = 255;

/// Everything that is known of one occurrence.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Which event of this agent it is.
    pub id: EventId,
    /// Who saw it, and when.
    pub stamp: Stamp,
    /// What happened.
    pub body: Body,
}

/// An event's place in its agent's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The journal that counted it.
    pub epoch: Epoch,
    /// Its number there, from 1, without holes.
    pub seq: u64,
}

/// One journal's life: 64 random bits, written as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Who saw an event, and when, by which clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The agent's name; 1 to [`AGENT_BYTES_MAX`] bytes.
    pub agent: SmolStr,
    /// Wall clock, in whole microseconds; set once, when the event is made.
    pub observed_at: DateTime<Utc>,
    /// The kernel's `/proc/sys/kernel/random/boot_id`, empty where there is none.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME`: milliseconds since boot, those suspended included.
    pub monotonic_ms: u64,
    /// Whether the wall clock followed a time source: `None` is unknown.
    pub clock_synced: Option<bool>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A rate went over a limit.
    BreachRaised(Breach),
    /// It is still over.
    BreachUpdated(Breach),
    /// It is no longer over, or nobody can say any more.
    BreachCleared(Breach),
    /// Events that were accepted and will never come.
    Loss(Loss),
    /// A watched interface appeared.
    LinkAdded(Link),
    /// A watched interface went away.
    LinkRemoved(Link),
    /// A watched interface went up or down, or has another name.
    LinkChanged(Link),
    /// The agent began to watch.
    AgentStarted(Lifecycle),
    /// The agent ended in order.
    AgentStopped(Lifecycle),
    /// What a link carried up to one reading. Samples have epochs of their own: they come in great numbers, and whoever does not
    /// read them misses no number of the other events.
    Sample(Sample),
    /// A kind that this program does not know, from a newer agent.
    Unknown(String),
}

/// One breach, as it is at one reading.
///
/// A reading covers the time from its begin to its end. It counts for the breach if its rate is at or above the limit's
/// `clear_at`, or if one that is follows within `clear_for`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The same in all events of one breach; 16 hex digits.
    pub breach_id: SmolStr,
    /// Begin of the first reading of the rise, in whole microseconds.
    pub started_at: DateTime<Utc>,
    /// End of the reading that raised the breach.
    pub raised_at: DateTime<Utc>,
    /// End of the last reading so far that was at or above `clear_at`.
    pub ended_at: DateTime<Utc>,
    pub limit_name: SmolStr,
    pub severity: Severity,
    /// Interface name, or [`ALL_INTERFACES`].
    pub interface: SmolStr,
    /// The kernel's index of the interface; `None` for the whole host.
    pub ifindex: Option<u32>,
    pub direction: Direction,
    /// `raise_at` of the limit.
    pub limit_bps: u64,
    /// Rate of the last reading that was judged, low ones too.
    pub rate_bps: u64,
    /// Highest rate of one counted reading.
    pub peak_bps: u64,
    /// Mean rate over `measured_ms`.
    pub mean_bps: u64,
    /// Time from `started_at` to `ended_at` by `CLOCK_BOOTTIME`, measured or not.
    pub duration_ms: u64,
    /// Time of the counted readings.
    pub measured_ms: u64,
    /// Bytes above `limit_bps`, summed over the counted readings.
    pub excess_bytes: u64,
    /// Why it was cleared.
    pub reason: Option<Reason>,
    /// What a person may want to know besides.
    pub detail: Option<String>,
}

/// Events that were accepted and then given up, declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The epoch of the lost events, which need not be the declaring event's own.
    pub epoch: Epoch,
    /// Their numbers: inclusive, ascending, apart from each other.
    pub ranges: Vec<(u64, u64)>,
    /// `evicted`, `expired`, `rejected` or `damaged`.
    pub reason: Reason,
    /// The broker's error, or what is wrong with the journal.
    pub detail: Option<String>,
}

/// An interface that came, went or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub interface: String,
    /// The kernel's index of it.
    pub ifindex: u32,
    /// Link speed, where it is known.
    pub speed_bps: Option<u64>,
    /// `added`, `removed`, `renamed`, `up` or `down`.
    pub reason: Option<Reason>,
    /// The other name of a renamed link, or what else a person may want to know.
    pub detail: Option<String>,
}

/// The agent's start or end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// The program's version.
    pub version: String,
    /// Why it ended: `signal`, or `finished` with `run --for`.
    pub reason: Option<Reason>,
    pub detail: Option<String>,
}

/// What a link carried up to one reading: a row of a recorded series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Interface name.
    pub interface: String,
    /// Since the reading before; `None` where there was none.
    pub duration_ms: Option<u64>,
    /// Bytes received in that time; here and below `None` where nobody knows.
    pub rx_bytes: Option<u64>,
    /// Bytes sent in that time.
    pub tx_bytes: Option<u64>,
    /// The mean rate of what was received.
    pub rx_bps: Option<u64>,
    /// The mean rate of what was sent.
    pub tx_bps: Option<u64>,
    /// Why there is no rate: `first`, `reset`.
    pub reason: Option<Reason>,
}

/// Why something happened, as a word that programs match. A text beside it ([`Breach::detail`] and its like) may say more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The rate stayed below `clear_at` for `clear_for`.
    Below,
    /// The interface is no longer there, or no longer watched.
    LinkRemoved,
    /// The interface has a name that the limit does not match.
    LinkRenamed,
    /// The configuration no longer has the limit.
    LimitRemoved,
    /// The agent was not running, for too long or for an unknown time.
    Interrupted,
    /// SIGTERM or SIGINT.
    Signal,
    /// `run --for` is over.
    Finished,
    /// The journal was full.
    Evicted,
    /// The journal held them for longer than `max_age`.
    Expired,
    /// Kafka refused them for good.
    Rejected,
    /// The journal was damaged.
    Damaged,
    Added,
    Removed,
    Renamed,
    Up,
    Down,
    /// The first reading of a series.
    First,
    /// A counter fell.
    Reset,
    /// A word that this program does not know, from a newer agent.
    Other(SmolStr),
}

/// Every word of [`Reason`], as on the wire.
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

/// How much a breach matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Look at it in the morning.
    #[default]
    Warning,
    /// Look at it now.
    Critical,
}

/// Which way traffic goes, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Received.
    Rx,
    /// Sent.
    Tx,
    /// Received and sent.
    Total,
}

impl Loss {
    /// How many events are lost.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to.saturating_sub(*from).saturating_add(1)).fold(0, u64::saturating_add)
    }
}

impl Body {
    /// The kind, as it stands on the wire and in the `events` table.
    pub fn kind(&self) -> &str {
        match self {
            Self::BreachRaised(_) => "breach_raised",
            Self::BreachUpdated(_) => "breach_updated",
            Self::BreachCleared(_) => "breach_cleared",
            Self::Loss(_) => "loss",
            Self::LinkAdded(_) => "link_added",
            Self::LinkRemoved(_) => "link_removed",
            Self::LinkChanged(_) => "link_changed",
            Self::AgentStarted(_) => "agent_started",
            Self::AgentStopped(_) => "agent_stopped",
            Self::Sample(_) => "sample",
            Self::Unknown(kind) => kind,
        }
    }

    /// The interface that it tells of.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::LinkAdded(link) | Self::LinkRemoved(link) | Self::LinkChanged(link) => Some(&link.interface),
            Self::Sample(sample) => Some(&sample.interface),
            body => body.breach().map(|breach| &*breach.interface),
        }
    }

    /// Why it happened.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::BreachRaised(breach) | Self::BreachUpdated(breach) | Self::BreachCleared(breach) => {
                breach.reason.as_ref()
            }
            Self::Loss(loss) => Some(&loss.reason),
            Self::LinkAdded(link) | Self::LinkRemoved(link) | Self::LinkChanged(link) => link.reason.as_ref(),
            Self::AgentStarted(lifecycle) | Self::AgentStopped(lifecycle) => lifecycle.reason.as_ref(),
            Self::Sample(sample) => sample.reason.as_ref(),
            Self::Unknown(_) => None,
        }
    }

    /// The text beside the reason.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::BreachRaised(breach) | Self::BreachUpdated(breach) | Self::BreachCleared(breach) => {
                breach.detail.as_deref()
            }
            Self::Loss(loss) => loss.detail.as_deref(),
            Self::LinkAdded(link) | Self::LinkRemoved(link) | Self::LinkChanged(link) => link.detail.as_deref(),
            Self::AgentStarted(lifecycle) | Self::AgentStopped(lifecycle) => lifecycle.detail.as_deref(),
            Self::Sample(_) | Self::Unknown(_) => None,
        }
    }

    /// The breach that it tells of.
    pub fn breach(&self) -> Option<&Breach> {
        match self {
            Self::BreachRaised(breach) | Self::BreachUpdated(breach) | Self::BreachCleared(breach) => Some(breach),
            _ => None,
        }
    }
}

impl Reason {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(word) => word,
            known => REASONS.iter().find(|(_, reason)| reason == known).map_or("", |(word, _)| word),
        }
    }
}

impl From<&str> for Reason {
    /// Any word is a reason: newer agents have more of them.
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
    /// Whether both are known to be of one boot of one machine.
    pub fn is_of_boot(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id && !self.boot_id.is_empty()
    }
}

impl Severity {
    /// As in the configuration and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Direction {
    /// As in the configuration and on the wire.
    pub fn as_str(self) -> &'static str {
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
    /// Its 16 hex digits; takes no memory.
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

/// An epoch is 16 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch `{0}` is not 16 lower-case hex digits")]
pub struct EpochError(String);

impl FromStr for Epoch {
    type Err = EpochError;

    /// Exactly what `Display` writes, and nothing else: two spellings of one identity would be two rows.
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
