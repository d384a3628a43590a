//! Counters of network links, and the links added, changed and removed. A [`CounterSource`] reads all at once, once a tick:
//! `netlink` (Linux), `sysinfo` (portable, and the fallback) or [`synthetic`]. None computes a rate.

pub mod filter;
mod link_table;
mod moment;
#[cfg(target_os = "linux")]
mod netlink;
mod stacking;
pub mod synthetic;
mod sysfs;
mod sysinfo;

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use self::filter::InterfaceFilter;
use self::synthetic::Shape;
use crate::process::clock::{Clock, SystemClock};
use crate::units::BitRate;

const IFF_UP: u32 = 1 << 0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub ifindex: u32,
    pub name: String,
    pub altnames: Vec<String>,
    pub kind: LinkKind,
    /// Selected by `[interfaces]`, rather than only named by a limit.
    pub selected: bool,
    /// `IFF_UP` and `IFF_RUNNING`, netdevice(7); a link that cannot detect its carrier counts as operational.
    pub up: bool,
    pub enslaved: bool,
    /// Links, by ifindex, whose counters include this one's bytes: all beneath it, and its bond or team, directly or not.
    pub counted_by: Vec<u32>,
    /// Ports of the bridge that it is or is on, whose counters include some of its bytes.
    pub partly_counted_by: Vec<u32>,
    pub speed: Speed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    pub rx: Option<BitRate>,
    pub tx: Option<BitRate>,
}

impl Speed {
    pub fn both(speed: Option<BitRate>) -> Self {
        Self { rx: speed, tx: speed }
    }

    pub fn max(self) -> Option<BitRate> {
        self.rx.max(self.tx)
    }

    fn or(self, other: Self) -> Self {
        Self { rx: self.rx.or(other.rx), tx: self.tx.or(other.tx) }
    }

    fn is_known(self) -> bool {
        self.rx.is_some() && self.tx.is_some()
    }
}

impl LinkInfo {
    pub fn new(ifindex: u32, name: impl Into<String>, kind: LinkKind) -> Self {
        Self {
            ifindex,
            name: name.into(),
            altnames: Vec::new(),
            kind,
            selected: true,
            up: true,
            enslaved: false,
            counted_by: Vec::new(),
            partly_counted_by: Vec::new(),
            speed: Speed::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Physical,
    Loopback,
    Bond,
    Team,
    Ppp,
    Wwan,
    Rmnet,
    Other(String),
}

impl LinkKind {
    pub fn from_kernel(kind: &str) -> Self {
        match kind {
            "" => Self::Physical,
            "bond" => Self::Bond,
            "team" => Self::Team,
            "ppp" => Self::Ppp,
            "wwan" => Self::Wwan,
            "rmnet" => Self::Rmnet,
            other => Self::Other(other.to_owned()),
        }
    }

    fn is_aggregate(&self) -> bool {
        matches!(self, Self::Bond | Self::Team)
    }

    fn is_bridge(&self) -> bool {
        matches!(self, Self::Other(kind) if kind == "bridge")
    }

    /// Returns true if the kernel counts each packet; drivers copy the counters of hardware at intervals.
    pub fn is_counted_in_software(&self) -> bool {
        match self {
            Self::Physical | Self::Bond | Self::Team => false,
            Self::Loopback | Self::Ppp | Self::Wwan | Self::Rmnet | Self::Other(_) => true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub ifindex: u32,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// `None` where the source has none. Packets distinguish traffic from a jump of the counter.
    pub packets: Option<Packets>,
    pub errors: Option<Packets>,
    pub drops: Option<Packets>,
    pub bits: CounterBits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    pub rx: u64,
    pub tx: u64,
}

impl Packets {
    /// Returns `None` for bytes without packets: some drivers count none.
    fn of_bytes((rx, rx_bytes): (u64, u64), (tx, tx_bytes): (u64, u64)) -> Option<Self> {
        let counted = |packets: u64, bytes: u64| packets > 0 || bytes == 0;
        (counted(rx, rx_bytes) && counted(tx, tx_bytes)).then_some(Self { rx, tx })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteDelta {
    pub ifindex: u32,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Time up to the reading; never zero.
    pub elapsed: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CounterBits {
    B32,
    #[default]
    B64,
}

impl CounterBits {
    pub fn count(self) -> u32 {
        match self {
            Self::B32 => 32,
            Self::B64 => 64,
        }
    }
}

/// Counters at `at` (`CLOCK_MONOTONIC`) and `boottime` (`CLOCK_BOOTTIME`), or at the source's own times. Failed links are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub at: Duration,
    pub boottime: Duration,
    pub counters: Vec<Counters>,
    pub deltas: Vec<ByteDelta>,
    /// True if only the links in `counters` were requested; otherwise a watched link that is not in it could not be read.
    pub is_partial: bool,
    pub changes: Vec<LinkChange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    Added(LinkInfo, AddReason),
    Changed(LinkInfo),
    Removed(u32, RemoveReason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddReason {
    Appeared,
    RenamedFrom(String),
    Released,
    Named,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoveReason {
    Gone,
    RenamedTo(String),
    Enslaved,
    Unselected,
}

pub trait CounterSource {
    fn name(&self) -> &'static str;

    /// Fills `reading` at a moment of `clock`, the first time with every watched link as added. A link that could not be read is
    /// left out of `counters`, never reported as 0. An error leaves `reading` empty, and its changes to the next reading.
    /// A source that numbers links itself gives a name the same `ifindex` after a reload, which reopens it.
    fn read(&mut self, clock: &dyn Clock, reading: &mut Reading) -> Result<(), CounterError>;
}

#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    #[error("{what}")]
    System {
        what: &'static str,
        #[source]
        error: io::Error,
    },
    #[error("unexpected answer from the kernel: {0}")]
    Malformed(&'static str),
    #[error("the kernel dropped netlink messages each time: links change faster than they can be read")]
    Overrun,
    #[error("there are no {0} counters on this system; choose another source")]
    Unavailable(&'static str),
}

impl CounterError {
    fn system(what: &'static str, error: impl Into<io::Error>) -> Self {
        Self::System { what, error: error.into() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    #[default]
    Auto,
    Netlink,
    Sysinfo,
    Synthetic(Shape),
}

/// Opens a source, with `/sys` and `/proc` below `root`. `Auto` falls back to `sysinfo` with a warning; a named source does not.
pub fn open(
    choice: SourceChoice,
    root: &Path,
    selection: InterfaceFilter,
) -> Result<Box<dyn CounterSource>, CounterError> {
    Ok(match choice {
        SourceChoice::Netlink => netlink(root, selection)?,
        SourceChoice::Sysinfo => Box::new(sysinfo::Sysinfo::new(root, selection)?),
        SourceChoice::Synthetic(shape) => Box::new(synthetic::Synthetic::new(shape, selection)),
        SourceChoice::Auto => match netlink(root, selection.clone()) {
            Ok(source) => source,
            Err(error) => {
                let why = crate::process::exit::chain(&error);
                log::warn!("netlink counters are unavailable ({why}); using sysinfo, which costs more");
                Box::new(sysinfo::Sysinfo::new(root, selection)?)
            }
        },
    })
}

/// Returns the links of this host, by name.
pub fn links(choice: SourceChoice, selection: InterfaceFilter) -> Result<Vec<LinkInfo>, CounterError> {
    let mut reading = Reading::default();
    open(choice, Path::new("/"), selection)?.read(&SystemClock::default(), &mut reading)?;
    let added = reading.changes.into_iter().filter_map(|change| match change {
        LinkChange::Added(link, _) => Some(link),
        _ => None,
    });
    let mut links: Vec<LinkInfo> = added.collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}

#[cfg(target_os = "linux")]
fn netlink(root: &Path, selection: InterfaceFilter) -> Result<Box<dyn CounterSource>, CounterError> {
    Ok(Box::new(netlink::Netlink::open(root, selection)?))
}

#[cfg(not(target_os = "linux"))]
fn netlink(_: &Path, _: InterfaceFilter) -> Result<Box<dyn CounterSource>, CounterError> {
    Err(CounterError::Unavailable("netlink"))
}

impl Reading {
    pub fn clear(&mut self) {
        (self.at, self.boottime, self.is_partial) = Default::default();
        self.counters.clear();
        self.deltas.clear();
        self.changes.clear();
    }
}

impl FromStr for SourceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Self::Auto,
            "netlink" => Self::Netlink,
            "sysinfo" => Self::Sysinfo,
            "synthetic" => Self::Synthetic(Shape::default()),
            other => return Err(format!("`{other}` is not a source; known are auto, netlink, sysinfo, synthetic")),
        })
    }
}

impl fmt::Display for AddReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appeared => f.write_str("appeared"),
            Self::RenamedFrom(name) => write!(f, "renamed from {name}"),
            Self::Released => f.write_str("is no longer a port of a bond or team"),
            Self::Named => f.write_str("got an altname"),
        }
    }
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("gone"),
            Self::RenamedTo(name) => write!(f, "renamed to {name}"),
            Self::Enslaved => f.write_str("became a port of a bond or team"),
            Self::Unselected => f.write_str("no longer watched"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_hardware_and_what_bundles_it_is_counted_in_software() {
        for kind in ["", "bond", "team"] {
            assert!(!LinkKind::from_kernel(kind).is_counted_in_software(), "{kind}");
        }
        for kind in ["ppp", "tun", "veth", "bridge", "vlan", "wireguard", "gre"] {
            assert!(LinkKind::from_kernel(kind).is_counted_in_software(), "{kind}");
        }
        assert!(LinkKind::Loopback.is_counted_in_software());
    }
}
