//! Links in `/sys/class/net` (Documentation/ABI/testing/sysfs-class-net in the kernel's sources), and `/proc/net/pppoe`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::link_table::LinkQueries;
use super::stacking::{Attachment, pppoe_devices};
use super::{IFF_UP, LinkInfo, LinkKind, Speed};
use crate::units::BitRate;

/// Speeds in Mbit/s that mean "unknown", besides those below 1: -1 in 16 and 32 bits, as in ethtool(8).
const SPEEDS_UNKNOWN: [i64; 2] = [u16::MAX as i64, u32::MAX as i64];

const ARPHRD_PPP: u32 = 512;
const ARPHRD_TUNNEL: u32 = 768;
const ARPHRD_TUNNEL6: u32 = 769;
const ARPHRD_LOOPBACK: u32 = 772;
const ARPHRD_SIT: u32 = 776;
const ARPHRD_IPGRE: u32 = 778;
const ARPHRD_IP6GRE: u32 = 823;

#[derive(Clone, Debug)]
pub(super) struct Sysfs {
    net: PathBuf,
    pppoe: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    Gone,
    Unknown,
}

impl Sysfs {
    pub(super) fn new(root: &Path) -> Self {
        Self { net: root.join("sys/class/net"), pppoe: root.join("proc/net/pppoe") }
    }

    pub(super) fn exists(&self) -> bool {
        self.net.is_dir()
    }

    pub(super) fn list(&self) -> io::Result<fs::ReadDir> {
        fs::read_dir(&self.net)
    }

    fn driver_speed(&self, name: &str) -> Option<BitRate> {
        let mbps = self.number::<i64>(name, "speed").filter(|mbps| !SPEEDS_UNKNOWN.contains(mbps))?;
        let mbps = u64::try_from(mbps).ok().filter(|mbps| (1..1 << 31).contains(mbps))?;
        Some(BitRate::from_bps(mbps * 1_000_000))
    }

    pub(super) fn bytes(&self, name: &str, counter: &str) -> Option<u64> {
        self.number(name, &format!("statistics/{counter}"))
    }

    pub(super) fn ifindex(&self, name: &str) -> Option<u32> {
        self.number(name, "ifindex").filter(|ifindex| *ifindex > 0)
    }

    pub(super) fn presence(&self, name: &str) -> Presence {
        match fs::symlink_metadata(self.net.join(name)) {
            Ok(_) => Presence::There,
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.exists() => Presence::Gone,
            Err(_) => Presence::Unknown,
        }
    }

    /// Reads all but speed and altnames; `known`, a kind and the link beneath, saves finding these out. `None` if any of it cannot
    /// be read, so that a process out of file descriptors does not take one link for another.
    pub(super) fn link(&self, name: &str, known: Option<(LinkKind, Option<u32>)>) -> Option<(LinkInfo, Attachment)> {
        let ifindex = self.ifindex(name)?;
        let flags = u32::from_str_radix(self.text(name, "flags")?.trim_start_matches("0x"), 16).ok()?;
        let operational = matches!(&*self.text(name, "operstate")?, "up" | "unknown");
        let (kind, lower) = match known {
            Some(known) => known,
            None => (self.kind(name)?, self.lower(name, ifindex)?),
        };
        let master = self.master(name)?;
        let master_if =
            |is: fn(&LinkKind) -> bool| master.as_ref().filter(|(_, kind)| is(kind)).map(|(ifindex, _)| *ifindex);
        let (aggregate, bridge) = (master_if(LinkKind::is_aggregate), master_if(LinkKind::is_bridge));
        let up = flags & IFF_UP != 0 && operational;
        let link = LinkInfo { up, enslaved: aggregate.is_some(), ..LinkInfo::new(ifindex, name, kind) };
        Some((link, Attachment { lower, aggregate, bridge }))
    }

    /// Returns the link beneath, if it is in this namespace: `iflink` may name one in another, `lower_*` never does.
    fn lower(&self, name: &str, ifindex: u32) -> Option<Option<u32>> {
        let lower: u32 = self.number(name, "iflink")?;
        if lower == ifindex {
            return Some(None);
        }
        let entries = fs::read_dir(self.net.join(name)).ok()?;
        let mut lowers =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("lower_").map(str::to_owned));
        Some(lowers.any(|name| self.ifindex(&name) == Some(lower)).then_some(lower))
    }

    fn master(&self, name: &str) -> Option<Option<(u32, LinkKind)>> {
        let master = match fs::read_link(self.net.join(name).join("master")) {
            Ok(master) => master,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Some(None),
            Err(_) => return None,
        };
        let master = master.file_name()?.to_str()?;
        let kind = self.kind(master)?;
        Some(self.ifindex(master).map(|ifindex| (ifindex, kind)))
    }

    fn kind(&self, name: &str) -> Option<LinkKind> {
        match self.number::<u32>(name, "type")? {
            ARPHRD_LOOPBACK => return Some(LinkKind::Loopback),
            ARPHRD_PPP => return Some(LinkKind::Ppp),
            ARPHRD_TUNNEL | ARPHRD_TUNNEL6 => return Some(LinkKind::from_kernel("ipip")),
            ARPHRD_SIT => return Some(LinkKind::from_kernel("sit")),
            ARPHRD_IPGRE | ARPHRD_IP6GRE => return Some(LinkKind::from_kernel("gre")),
            _ => {}
        }
        let has = |entry: &str| self.net.join(name).join(entry).exists();
        let uevent = self.text(name, "uevent")?;
        match uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")) {
            Some("wlan" | "wwan" | "gadget") | None => {}
            Some(kind) => return Some(LinkKind::from_kernel(kind)),
        }
        Some(if has("tun_flags") {
            LinkKind::from_kernel("tun")
        } else if has("bonding") {
            LinkKind::Bond
        } else if has("device") {
            LinkKind::Physical
        } else {
            match kind_by_name(name) {
                // Attached to another link, as one end of a veth is to the other.
                LinkKind::Physical if self.number::<u32>(name, "iflink")? != self.ifindex(name)? => {
                    LinkKind::from_kernel("virtual")
                }
                kind => kind,
            }
        })
    }

    fn number<T: std::str::FromStr>(&self, name: &str, entry: &str) -> Option<T> {
        self.text(name, entry)?.parse().ok()
    }

    fn text(&self, name: &str, entry: &str) -> Option<String> {
        // The kernel allows no such name, but the text may not come from the kernel.
        if name.contains('/') || name.starts_with('.') {
            return None;
        }
        let text = fs::read_to_string(self.net.join(name).join(entry)).ok()?;
        Some(text.trim_end().to_owned())
    }
}

impl LinkQueries for Sysfs {
    /// Ignores tun devices, which report 10 Mbit/s or 10 Gbit/s whatever they run over.
    fn speed(&self, link: &LinkInfo) -> Speed {
        if link.kind == LinkKind::from_kernel("tun") {
            Speed::default()
        } else {
            Speed::both(self.driver_speed(&link.name))
        }
    }

    fn pppoe_devices(&self) -> Vec<String> {
        pppoe_devices(&fs::read_to_string(&self.pppoe).unwrap_or_default())
    }
}

pub(super) fn kind_by_name(name: &str) -> LinkKind {
    const PREFIXES: &[(&str, &str)] = &[
        ("bond", "bond"),
        ("team", "team"),
        ("ppp", "ppp"),
        ("wwan", "wwan"),
        ("rmnet", "rmnet"),
        ("bridge", "bridge"),
        ("br-", "bridge"),
        ("docker", "bridge"),
        ("virbr", "bridge"),
        ("veth", "veth"),
        ("dummy", "dummy"),
        ("ifb", "ifb"),
        ("utun", "tun"),
        ("tun", "tun"),
        ("tap", "tun"),
        ("macvlan", "macvlan"),
        ("ipvlan", "ipvlan"),
        ("vxlan", "vxlan"),
        ("geneve", "geneve"),
        ("vrf", "vrf"),
        ("gre", "gre"),
        ("gif", "gre"),
        ("sit", "sit"),
        ("stf", "sit"),
        ("tunl", "ipip"),
        ("wg", "wireguard"),
        ("vlan", "vlan"),
    ];
    let numbered = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    if name.strip_prefix("lo").is_some_and(numbered) {
        LinkKind::Loopback
    } else if name.strip_prefix("br").is_some_and(numbered) {
        LinkKind::from_kernel("bridge")
    } else if name.contains('.') {
        LinkKind::from_kernel("vlan")
    } else {
        let kind = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or("", |(_, kind)| kind);
        LinkKind::from_kernel(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join("sys/class/net").join(name).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn reads_a_link() {
        let root = root(
            "eth0",
            &[
                ("ifindex", "3\n"),
                ("iflink", "3\n"),
                ("flags", "0x1803\n"),
                ("operstate", "up\n"),
                ("type", "1\n"),
                ("uevent", "INTERFACE=eth0\nIFINDEX=3\n"),
                ("device/vendor", "0x8086\n"),
                ("statistics/rx_bytes", "18446744073709551615\n"),
            ],
        );
        let sysfs = Sysfs::new(root.path());
        let link = LinkInfo::new(3, "eth0", LinkKind::Physical);
        assert_eq!(sysfs.link("eth0", None), Some((link, Attachment::default())));
        assert_eq!(sysfs.bytes("eth0", "rx_bytes"), Some(u64::MAX));
        assert_eq!(sysfs.bytes("eth0", "tx_bytes"), None);
        assert_eq!(sysfs.link("../net/eth0", None), None);
        assert_eq!((sysfs.presence("eth0"), sysfs.presence("eth1")), (Presence::There, Presence::Gone));
        assert_eq!(Sysfs::new(&root.path().join("nowhere")).presence("eth0"), Presence::Unknown);
    }

    #[test]
    fn a_speed_is_known_or_not() {
        for (text, mbps) in [
            ("1000\n", Some(1_000)),
            ("800000\n", Some(800_000)),
            ("-1\n", None),
            ("0\n", None),
            ("65535\n", None),
            ("4294967295\n", None),
            ("9223372036854775807\n", None),
            ("", None),
        ] {
            let root = root("eth0", &[("speed", text)]);
            let speed = |kind| Sysfs::new(root.path()).speed(&LinkInfo::new(3, "eth0", kind));
            let expected = Speed::both(mbps.map(|mbps: u64| BitRate::from_bps(mbps * 1_000_000)));
            assert_eq!(speed(LinkKind::Physical), expected, "{text}");
            assert_eq!(speed(LinkKind::from_kernel("tun")), Speed::default(), "{text}");
        }
        assert_eq!(Sysfs::new(Path::new("/nowhere")).driver_speed("eth0"), None);
    }

    #[test]
    fn a_link_without_carrier_detection_is_up() {
        for (flags, operstate, up) in [
            ("0x1003", "up", true),
            ("0x1003", "unknown", true),
            ("0x1003", "down", false),
            ("0x1003", "lowerlayerdown", false),
            ("0x1003", "dormant", false),
            ("0x1002", "unknown", false),
        ] {
            let files = [("ifindex", "3"), ("iflink", "3"), ("flags", flags), ("operstate", operstate)];
            let root = root("eth0", &[&files[..], &[("type", "1"), ("uevent", "")]].concat());
            let (link, _) = Sysfs::new(root.path()).link("eth0", None).unwrap();
            assert_eq!(link.up, up, "{flags} {operstate}");
        }
    }

    #[test]
    fn knows_what_a_link_stands_on() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("sys/class/net");
        let add = |name: &str, ifindex: &str, iflink: &str, more: &[&str]| {
            let files = [("ifindex", ifindex), ("iflink", iflink), ("flags", "0x3"), ("operstate", "up")];
            fs::create_dir_all(net.join(name)).unwrap();
            for (file, text) in files.iter().chain(&[("type", "1"), ("uevent", "")]) {
                fs::write(net.join(name).join(file), text).unwrap();
            }
            more.iter().for_each(|directory| fs::create_dir(net.join(name).join(directory)).unwrap());
        };
        add("eth0", "2", "2", &["device", "upper_eth0.7"]);
        add("eth0.7", "3", "2", &["lower_eth0"]);
        // Its peer has index 2 in another namespace.
        add("veth0", "4", "2", &[]);
        add("bond0", "5", "5", &["bonding", "lower_eth0"]);
        add("team0", "6", "6", &[]);
        add("br0", "7", "7", &[]);
        fs::write(net.join("br0/uevent"), "DEVTYPE=bridge\nINTERFACE=br0\n").unwrap();
        let sysfs = Sysfs::new(root.path());
        let attachment = |name: &str| sysfs.link(name, None).unwrap();
        assert_eq!(attachment("eth0.7").1, Attachment { lower: Some(2), ..Attachment::default() });
        assert_eq!(attachment("veth0").1, Attachment::default());
        for (master, aggregate, bridge) in [("bond0", Some(5), None), ("team0", Some(6), None), ("br0", None, Some(7))]
        {
            std::os::unix::fs::symlink(format!("../{master}"), net.join("eth0/master")).unwrap();
            let (link, attachment) = attachment("eth0");
            assert_eq!(attachment, Attachment { lower: None, aggregate, bridge }, "{master}");
            assert_eq!(link.enslaved, aggregate.is_some(), "{master}");
            fs::remove_file(net.join("eth0/master")).unwrap();
        }
        assert_eq!(attachment("team0").0.kind, LinkKind::Team);
    }

    #[test]
    fn reads_the_devices_of_pppoe_sessions() {
        let root = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::new(root.path());
        assert_eq!(sysfs.pppoe_devices(), [""; 0], "no such file");
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        let text = "Id       Address              Device\n0000000A 52:54:00:12:34:56     eth0\n";
        fs::write(root.path().join("proc/net/pppoe"), text).unwrap();
        assert_eq!(sysfs.pppoe_devices(), ["eth0"]);
    }

    #[test]
    fn tells_kinds_apart() {
        for (name, file, text, kind) in [
            ("x0", "type", "772", LinkKind::Loopback),
            ("x0", "type", "512", LinkKind::Ppp),
            ("x0", "type", "778", LinkKind::from_kernel("gre")),
            ("x0", "uevent", "DEVTYPE=bridge\n", LinkKind::from_kernel("bridge")),
            ("x0", "uevent", "DEVTYPE=wlan\n", LinkKind::Physical),
            ("x0", "tun_flags", "0x1001", LinkKind::from_kernel("tun")),
            ("x0", "bonding/mode", "802.3ad 4", LinkKind::Bond),
            ("veth0", "device/vendor", "0x1", LinkKind::Physical),
            ("veth0", "type", "1", LinkKind::from_kernel("veth")),
            ("x0", "type", "1", LinkKind::Physical),
            ("x0", "iflink", "9", LinkKind::from_kernel("virtual")),
        ] {
            let root = root(name, &[("ifindex", "2"), ("iflink", "2"), ("type", "1"), ("uevent", ""), (file, text)]);
            assert_eq!(Sysfs::new(root.path()).kind(name), Some(kind), "{name} {file} {text}");
        }
    }

    #[test]
    fn guesses_kinds_from_names() {
        for (name, kind) in [
            ("lo", LinkKind::Loopback),
            ("lo0", LinkKind::Loopback),
            ("lowpan0", LinkKind::Physical),
            ("eth0", LinkKind::Physical),
            ("en0", LinkKind::Physical),
            ("eth0.7", LinkKind::from_kernel("vlan")),
            ("br0", LinkKind::from_kernel("bridge")),
            ("brcm0", LinkKind::Physical),
            ("docker0", LinkKind::from_kernel("bridge")),
            ("utun3", LinkKind::from_kernel("tun")),
            ("ppp0", LinkKind::Ppp),
            ("bond0", LinkKind::Bond),
        ] {
            assert_eq!(kind_by_name(name), kind, "{name}");
        }
    }
}
