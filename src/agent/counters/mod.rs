//! What the kernel has counted: bytes received and sent, per link, and the links that come, change and go.
//!
//! A [`CounterSource`] reads them all at once, once a tick. There are three: `netlink` (Linux), `sysinfo` (portable, and the
//! fallback) and [`synthetic`]. None of them works out a rate: a reading is not a rate.

mod moment;
#[cfg(target_os = "linux")]
mod netlink;
mod stacking;
pub mod synthetic;
mod sysfs;
mod sysinfo;
mod table;

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use self::synthetic::Shape;
use super::watch::Selection;
use crate::clock::Clock;
use crate::units::BitRate;

/// One interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's number of it, which stays when its name changes; from 1.
    pub ifindex: u32,
    /// Its name, of at most 15 bytes in the kernel.
    pub name: String,
    /// Other names that the kernel knows it by (`IFLA_PROP_LIST`).
    pub altnames: Vec<String>,
    pub kind: LinkKind,
    /// `[interfaces]` watches it, rather than only a limit that names it.
    pub selected: bool,
    /// It is switched on and operational (`IFF_UP` and `IFF_RUNNING`, netdevice(7)); a link that cannot detect its carrier counts as
    /// operational.
    pub up: bool,
    /// It is a port of a bond or team.
    pub enslaved: bool,
    /// Links whose counters hold this one's bytes as well, by ifindex: those beneath it, and the bond or team that it is a port of;
    /// whatever stands between them, too.
    pub counted_by: Vec<u32>,
    pub speed: Speed,
}

/// What a link can carry each way; `None` where that is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    pub rx: Option<BitRate>,
    pub tx: Option<BitRate>,
}

impl Speed {
    /// The same both ways, as drivers report it.
    pub fn both(speed: Option<BitRate>) -> Self {
        Self { rx: speed, tx: speed }
    }

    /// The faster way.
    pub fn max(self) -> Option<BitRate> {
        self.rx.max(self.tx)
    }

    /// Each way as here, or where that is unknown, as in `other`.
    fn or(self, other: Self) -> Self {
        Self { rx: self.rx.or(other.rx), tx: self.tx.or(other.tx) }
    }

    fn is_known(self) -> bool {
        self.rx.is_some() && self.tx.is_some()
    }
}

impl LinkInfo {
    /// A link that is selected and up, and of which nothing else is known.
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
            speed: Speed::default(),
        }
    }
}

/// What a link is: the kinds that matter to the selection of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The kernel names no kind: hardware.
    Physical,
    /// It leads back to this host (`IFF_LOOPBACK`).
    Loopback,
    /// Several links as one.
    Bond,
    /// Likewise, by the kernel's team driver.
    Team,
    /// A serial line, DSL, or a modem that behaves as one.
    Ppp,
    /// A modem's data channel.
    Wwan,
    /// A Qualcomm modem's data channel.
    Rmnet,
    /// Any other, by the kernel's name for it: `bridge`, `veth`, `vlan` …
    Other(String),
}

impl LinkKind {
    /// From `IFLA_INFO_KIND`; an empty one is none.
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

    /// It stands for its ports: what they carry is its own.
    fn is_aggregate(&self) -> bool {
        matches!(self, Self::Bond | Self::Team)
    }

    /// Hardware does not count for it: the kernel does, packet by packet.
    pub fn is_counted_in_software(&self) -> bool {
        match self {
            Self::Physical | Self::Bond | Self::Team => false,
            Self::Loopback | Self::Ppp | Self::Wwan | Self::Rmnet | Self::Other(_) => true,
        }
    }
}

/// Byte counters of one link at one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Which link.
    pub ifindex: u32,
    /// Bytes received since the link (or its driver) began to count.
    pub rx_bytes: u64,
    /// Bytes sent, likewise.
    pub tx_bytes: u64,
    /// Packets received and sent, where the source knows them: they tell traffic from a counter that jumps.
    pub packets: Option<Packets>,
    /// Where the counters wrap.
    pub bits: CounterBits,
}

/// Packet counters of one link at one reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    pub rx: u64,
    pub tx: u64,
}

impl Packets {
    /// The packets of these bytes; `None` where there are bytes without a packet, as of drivers that count none.
    fn of_bytes((rx, rx_bytes): (u64, u64), (tx, tx_bytes): (u64, u64)) -> Option<Self> {
        let counted = |packets: u64, bytes: u64| packets > 0 || bytes == 0;
        (counted(rx, rx_bytes) && counted(tx, tx_bytes)).then_some(Self { rx, tx })
    }
}

/// What a link carried in the time up to a reading, from a source that has no counters: a recorded series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    pub ifindex: u32,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Never zero.
    pub elapsed: Duration,
}

/// The width of a counter, where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterBits {
    /// It begins anew after 2³² - 1: known to be so narrow.
    B32,
    /// It does not wrap in the life of the machine, or nobody can say: then a fall is a reset.
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

/// One reading of everything: the caller's, and reused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// `CLOCK_MONOTONIC` at the reading; a series that was recorded has times of its own.
    pub at: Duration,
    /// `CLOCK_BOOTTIME` at the reading, or the source's own time.
    pub boottime: Duration,
    /// Of each watched link that could be read. One that is missing here and not removed could not be read this time.
    pub counters: Vec<Counters>,
    /// Likewise, of a source that knows amounts instead.
    pub carried: Vec<Carried>,
    /// Only the links of `counters` were to be read, and the others stay as they are; else a link that is missing has failed.
    pub is_partial: bool,
    /// What happened to watched links since the last successful reading, in the order it happened.
    pub changes: Vec<LinkChange>,
}

/// What happened to a watched link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is watched from now on.
    Added(LinkInfo, Came),
    /// Something of it is not as before: its name, speed, state, or what else [`LinkInfo`] says.
    Changed(LinkInfo),
    /// It is not watched any more; by its ifindex.
    Removed(u32, Left),
}

/// Why a link is watched from now on; printed as a `link_added` event's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is new, or this is the first reading.
    Appeared,
    /// It had this name, which nobody watches.
    RenamedFrom(String),
    /// It was a port of a bond or team.
    Released,
    /// It has a further name, by which it is watched.
    Named,
}

/// Why a link is no longer watched; printed as a `link_removed` event's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It exists no more.
    Gone,
    /// It has this name now, which nobody watches.
    RenamedTo(String),
    /// It became a port of a bond or team.
    Enslaved,
    /// The configuration no longer selects it, or not by the altnames that it has now.
    Unselected,
}

/// Where byte counters come from.
pub trait CounterSource {
    /// As in the configuration: `netlink`, `sysinfo`, `synthetic`.
    fn name(&self) -> &'static str;

    /// Fills `reading` anew. The first reading reports every watched link as added.
    ///
    /// A failed reading of one link leaves it out of `counters`: it is never a 0. Time is asked of `clock` at the moment of the
    /// reading, not before.
    ///
    /// # Errors
    /// Nothing could be read; `reading` is empty then. The source stays usable, and changes that it saw come with the next
    /// reading.
    fn read(&mut self, clock: &dyn Clock, reading: &mut Reading) -> Result<(), CounterError>;
}

/// Why counters could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// A call to the system failed, or the kernel answered with an error.
    #[error("{what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// What the kernel sent makes no sense.
    #[error("the kernel's answer cannot be understood: {0}")]
    Malformed(&'static str),
    /// The kernel had more to tell than it keeps for a reader, again and again.
    #[error("the kernel dropped netlink messages each time: links change faster than they can be read")]
    Overrun,
    /// This system has no such source.
    #[error("there are no {0} counters on this system; choose another source")]
    Unavailable(&'static str),
}

impl CounterError {
    fn system(what: &'static str, error: impl Into<io::Error>) -> Self {
        Self::System { what, error: error.into() }
    }
}

/// Which source to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// `netlink`, or `sysinfo` where that is refused.
    #[default]
    Auto,
    /// The kernel's routing netlink, rtnetlink(7).
    Netlink,
    /// The crate sysinfo.
    Sysinfo,
    /// Made-up traffic.
    Synthetic(Shape),
}

/// Opens the source that is wanted, for the links that `selection` watches. `/sys` and `/proc` are below `root`: `/`.
///
/// # Errors
/// The source was asked for by name and is unavailable. `Auto` falls back, with a warning in the log that says why.
pub fn open(choice: SourceChoice, root: &Path, selection: Selection) -> Result<Box<dyn CounterSource>, CounterError> {
    Ok(match choice {
        SourceChoice::Netlink => netlink(root, selection)?,
        SourceChoice::Sysinfo => Box::new(sysinfo::Sysinfo::new(root, selection)?),
        SourceChoice::Synthetic(shape) => Box::new(synthetic::Synthetic::new(shape, selection)),
        SourceChoice::Auto => match netlink(root, selection.clone()) {
            Ok(source) => source,
            Err(error) => {
                let why = crate::exit::chain(&error);
                log::warn!("netlink counters are unavailable ({why}); reading them by sysinfo, which costs more");
                Box::new(sysinfo::Sysinfo::new(root, selection)?)
            }
        },
    })
}

#[cfg(target_os = "linux")]
fn netlink(root: &Path, selection: Selection) -> Result<Box<dyn CounterSource>, CounterError> {
    Ok(Box::new(netlink::Netlink::open(root, selection)?))
}

#[cfg(not(target_os = "linux"))]
fn netlink(_: &Path, _: Selection) -> Result<Box<dyn CounterSource>, CounterError> {
    Err(CounterError::Unavailable("netlink"))
}

impl Reading {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        (self.at, self.boottime, self.is_partial) = Default::default();
        self.counters.clear();
        self.carried.clear();
        self.changes.clear();
    }
}

impl FromStr for SourceChoice {
    type Err = String;

    /// As in the configuration.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Self::Auto,
            "netlink" => Self::Netlink,
            "sysinfo" => Self::Sysinfo,
            "synthetic" => Self::Synthetic(Shape::default()),
            other => return Err(format!("`{other}` is no source; known are auto, netlink, sysinfo, synthetic")),
        })
    }
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appeared => f.write_str("appeared"),
            Self::RenamedFrom(name) => write!(f, "renamed from {name}"),
            Self::Released => f.write_str("is no longer a port of a bond or team"),
            Self::Named => f.write_str("got an altname"),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("gone"),
            Self::RenamedTo(name) => write!(f, "renamed to {name}"),
            Self::Enslaved => f.write_str("became a port of a bond or team"),
            Self::Unselected => f.write_str("no longer watched"),
        }
    }
}
