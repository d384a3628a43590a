//! Selects the links to watch, and applies the configuration's overrides. The default is links that carry traffic to other hosts:
//! those without a kind (hardware), ppp, wwan, rmnet, and a bond or team in place of its ports. Other kinds (loopback, bridge,
//! veth, vlan, tunnels …) count bytes of a link beneath, or bytes that never leave the host. A container may have no others: then
//! those that are up are watched, except for loopback.

use std::fmt;

use wildmatch::WildMatch;

use super::{CounterBits, LinkInfo, LinkKind, Speed};
use crate::units::BitRate;

const LISTED_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceFilter {
    everything: bool,
    include: Vec<WildMatch>,
    exclude: Vec<WildMatch>,
    limits: Vec<WildMatch>,
    overrides: Vec<LinkOverride>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LinkOverride {
    pub interface: String,
    pub speed: Speed,
    pub counter_bits: Option<CounterBits>,
}

impl InterfaceFilter {
    pub fn new(include: &[String], exclude: &[String], limit_patterns: &[String]) -> Self {
        let compiled = |patterns: &[String]| patterns.iter().map(|pattern| WildMatch::new(pattern)).collect();
        let naming = |patterns: &[String]| {
            patterns.iter().filter(|pattern| !matches_everything(pattern)).map(|p| WildMatch::new(p)).collect()
        };
        Self {
            everything: include.iter().any(|pattern| matches_everything(pattern)),
            include: naming(include),
            exclude: compiled(exclude),
            limits: naming(limit_patterns),
            overrides: Vec::new(),
        }
    }

    pub fn every_link() -> Self {
        Self::new(&["?*".to_owned()], &[], &[])
    }

    pub fn with_overrides(self, overrides: Vec<LinkOverride>) -> Self {
        Self { overrides, ..self }
    }

    /// Selects by `[interfaces]`: `exclude` wins, then a pattern of `include` that names the link, then `*`, for the default links.
    pub fn selects(&self, link: &LinkInfo) -> bool {
        let included = any_names(&self.include, link) || self.everything && watched_by_default(link);
        included && !self.excludes(link)
    }

    /// Returns whether links of other kinds are selected on a host without links of the default kinds: only if nothing is configured.
    pub(super) fn may_fall_back(&self) -> bool {
        self.everything && self.include.is_empty() && self.exclude.is_empty()
    }

    pub fn watches(&self, link: &LinkInfo) -> bool {
        self.selects(link) || any_names(&self.limits, link) && !self.excludes(link)
    }

    pub fn speed(&self, link: &LinkInfo) -> Speed {
        let first = |way: fn(Speed) -> Option<BitRate>| self.overrides_of(link).find_map(|known| way(known.speed));
        Speed { rx: first(|speed| speed.rx), tx: first(|speed| speed.tx) }
    }

    pub fn counter_bits(&self, link: &LinkInfo) -> Option<CounterBits> {
        self.overrides_of(link).find_map(|known| known.counter_bits)
    }

    pub fn warnings(&self, links: &[&LinkInfo]) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.include.iter().filter_map(|pattern| matches_nothing("[interfaces] include", pattern, links)).collect();
        let falls_back = self.may_fall_back() && links.iter().any(|link| is_fallback(link));
        if self.everything && !falls_back && !links.iter().any(|link| self.watches(link)) {
            warnings.push(format!(
                "no link is watched: include = \"*\" means hardware, ppp, wwan, rmnet, bonds and teams, and there are only {}; \
                 name in include what to watch",
                listed(links.iter().copied())
            ));
        }
        for pattern in &self.limits {
            let named: Vec<_> = links.iter().copied().filter(|link| matches(pattern, link)).collect();
            if !named.is_empty() && named.iter().all(|link| self.excludes(link)) {
                warnings.push(format!(
                    "exclude removes all that the limit on \"{pattern}\" names ({}), so it watches nothing; change [interfaces] \
                     exclude, or remove the limit",
                    listed(named.into_iter())
                ));
            }
        }
        let overridden = self.overrides.iter().map(|known| WildMatch::new(&known.interface));
        warnings.extend(overridden.filter_map(|pattern| matches_nothing("[[link]] interface", &pattern, links)));
        warnings
    }

    fn excludes(&self, link: &LinkInfo) -> bool {
        any_names(&self.exclude, link)
    }

    fn overrides_of(&self, link: &LinkInfo) -> impl Iterator<Item = &LinkOverride> {
        self.overrides.iter().filter(|known| names(&known.interface, link))
    }
}

impl Default for InterfaceFilter {
    fn default() -> Self {
        Self::new(&["*".to_owned()], &[], &[])
    }
}

pub fn names(pattern: &str, link: &LinkInfo) -> bool {
    matches(&WildMatch::new(pattern), link)
}

pub fn is_called(name: &str, link: &LinkInfo) -> bool {
    link.name == name || link.altnames.iter().any(|altname| altname == name)
}

fn any_names(patterns: &[WildMatch], link: &LinkInfo) -> bool {
    patterns.iter().any(|pattern| matches(pattern, link))
}

fn matches(pattern: &WildMatch, link: &LinkInfo) -> bool {
    pattern.matches(&link.name) || link.altnames.iter().any(|name| pattern.matches(name))
}

fn matches_everything(pattern: &str) -> bool {
    !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'*')
}

pub(super) fn is_fallback(link: &LinkInfo) -> bool {
    link.up && link.kind != LinkKind::Loopback
}

pub(super) fn watched_by_default(link: &LinkInfo) -> bool {
    match link.kind {
        LinkKind::Physical | LinkKind::Ppp | LinkKind::Wwan | LinkKind::Rmnet | LinkKind::Bond | LinkKind::Team => {
            !link.enslaved
        }
        LinkKind::Loopback | LinkKind::Other(_) => false,
    }
}

fn matches_nothing(key: &str, pattern: &WildMatch, links: &[&LinkInfo]) -> Option<String> {
    let any = links.iter().any(|link| matches(pattern, link));
    (!any).then(|| {
        let there = listed(links.iter().copied());
        format!(
            "{key} = \"{pattern}\" matches no link yet; there are {there}; correct the pattern unless one will appear"
        )
    })
}

fn listed<'a>(links: impl ExactSizeIterator<Item = &'a LinkInfo>) -> String {
    let more = links.len().saturating_sub(LISTED_MAX);
    let names: Vec<&str> = links.take(LISTED_MAX).map(|link| &*link.name).collect();
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

impl fmt::Display for LinkOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = match (self.speed.rx, self.speed.tx) {
            (Some(rx), Some(tx)) if rx == tx => vec![format!("speed {rx}")],
            (rx, tx) => {
                let ways = [("rx", rx), ("tx", tx)];
                ways.iter().filter_map(|(way, speed)| Some(format!("{way} speed {}", (*speed)?))).collect()
            }
        };
        facts.extend(self.counter_bits.map(|bits| format!("counters of {} bits", bits.count())));
        write!(f, "{}: {}", self.interface, facts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: &str) -> LinkInfo {
        let enslaved = kind == "slave";
        let kind = match kind {
            "slave" => LinkKind::Physical,
            "loopback" => LinkKind::Loopback,
            kind => LinkKind::from_kernel(kind),
        };
        LinkInfo { enslaved, ..LinkInfo::new(1, name, kind) }
    }

    fn with_altname(name: &str, altname: &str) -> LinkInfo {
        LinkInfo { altnames: vec![altname.to_owned()], ..link(name, "") }
    }

    fn selection(include: &str, exclude: &str, limits: &str) -> InterfaceFilter {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        InterfaceFilter::new(&list(include), &list(exclude), &list(limits))
    }

    #[test]
    fn watches_what_the_design_says() {
        #[rustfmt::skip]
        let table = [
            // include  exclude   limits    name       kind         watched
            ("*",       "",       "",       "eth0",    "",          true),
            ("*",       "",       "",       "ppp0",    "ppp",       true),
            ("*",       "",       "",       "wwan0",   "wwan",      true),
            ("*",       "",       "",       "rmnet0",  "rmnet",     true),
            ("*",       "",       "",       "bond0",   "bond",      true),
            ("*",       "",       "",       "team0",   "team",      true),
            ("*",       "",       "",       "eth0",    "slave",     false),
            ("*",       "",       "",       "lo",      "loopback",  false),
            ("*",       "",       "",       "br0",     "bridge",    false),
            ("*",       "",       "",       "veth1a",  "veth",      false),
            ("*",       "",       "",       "eth0.7",  "vlan",      false),
            ("*",       "",       "",       "wg0",     "wireguard", false),
            ("*",       "",       "",       "new0",    "netkit",    false),
            ("*",       "",       "*",      "lo",      "loopback",  false),
            ("**",      "",       "",       "eth0",    "",          true),
            ("**",      "",       "",       "lo",      "loopback",  false),
            ("* lo",    "",       "",       "lo",      "loopback",  true),
            ("* v*",    "",       "",       "veth1a",  "veth",      true),
            ("*",       "",       "lo",     "lo",      "loopback",  true),
            ("*",       "",       "wg?",    "wg0",     "wireguard", true),
            ("*",       "",       "eth*",   "eth0",    "slave",     true),
            ("eth*",    "",       "",       "eth10",   "",          true),
            ("eth1",    "",       "",       "eth10",   "",          false),
            ("eth1",    "",       "",       "eth1",    "",          true),
            ("eth1",    "",       "",       "veth1",   "veth",      false),
            ("eth*",    "",       "wan0",   "wan0",    "",          true),
            ("eth*",    "",       "*",      "wan0",    "",          false),
            ("",        "",       "",       "eth0",    "",          false),
            ("*",       "eth0",   "",       "eth0",    "",          false),
            ("*",       "eth0",   "eth*",   "eth0",    "",          false),
            ("*",       "eth0",   "eth*",   "eth1",    "",          true),
            ("lo",      "*",      "lo",     "lo",      "loopback",  false),
        ];
        for (include, exclude, limits, name, kind, watched) in table {
            let watches = selection(include, exclude, limits).watches(&link(name, kind));
            assert_eq!(watches, watched, "{name} ({kind}) by include {include}, exclude {exclude}, limits {limits}");
        }
        assert!(InterfaceFilter::default().watches(&link("eth0", "")));
    }

    #[test]
    fn what_only_a_limit_names_is_watched_and_not_selected() {
        #[rustfmt::skip]
        let table = [
            // include  exclude   limits    name       kind         watched  selected
            ("*",       "",       "",       "eth0",    "",          true,    true),
            ("*",       "",       "eth0",   "eth0",    "",          true,    true),
            ("wan0",    "",       "eth*",   "eth0",    "",          true,    false),
            ("",        "",       "eth0",   "eth0",    "",          true,    false),
            ("*",       "",       "eth0",   "eth0",    "slave",     true,    false),
            ("eth0",    "",       "",       "eth0",    "slave",     true,    true),
            ("wan0",    "eth0",   "eth*",   "eth0",    "",          false,   false),
        ];
        for (include, exclude, limits, name, kind, watched, selected) in table {
            let (selection, link) = (selection(include, exclude, limits), link(name, kind));
            let found = (selection.watches(&link), selection.selects(&link));
            assert_eq!(found, (watched, selected), "{name} by include {include}, exclude {exclude}, limits {limits}");
        }
    }

    #[test]
    fn an_altname_is_as_good_as_the_name() {
        let link = with_altname("eth0", "enp3s0");
        assert!(names("enp*", &link) && names("eth0", &link) && !names("enp", &link));
        assert!(selection("enp3s0", "", "").selects(&link));
        assert!(!selection("*", "enp3s0", "").watches(&link));
        assert!(selection("wan0", "", "enp?s0").watches(&link));
        let speed = Speed::both(Some(BitRate::from_bps(7)));
        let known = LinkOverride { interface: "enp3s0".into(), speed, counter_bits: None };
        assert_eq!(InterfaceFilter::default().with_overrides(vec![known]).speed(&link), speed);
    }

    #[test]
    fn of_several_links_that_match_the_first_says_each_thing() {
        let bps = |bps| Some(BitRate::from_bps(bps));
        let known = |interface: &str, rx, tx, counter_bits| {
            let speed = Speed { rx, tx };
            LinkOverride { interface: interface.into(), speed, counter_bits }
        };
        let selection = InterfaceFilter::default().with_overrides(vec![
            known("eth0", bps(5), None, None),
            known("eth*", bps(7), bps(9), Some(CounterBits::B32)),
        ]);
        assert_eq!(selection.speed(&link("eth0", "")), Speed { rx: bps(5), tx: bps(9) });
        assert_eq!(selection.speed(&link("eth1", "")), Speed { rx: bps(7), tx: bps(9) });
        assert_eq!(selection.counter_bits(&link("eth0", "")), Some(CounterBits::B32));
        assert_eq!((selection.speed(&link("wan0", "")), selection.counter_bits(&link("wan0", ""))), Default::default());
    }

    #[test]
    fn patterns_that_do_nothing_are_named_with_the_remedy() {
        let (lo, eth0, eth1) = (link("lo", "loopback"), link("eth0", ""), with_altname("eth1", "enp3s0"));
        let links = [&lo, &eth0, &eth1];
        #[rustfmt::skip]
        let table: &[(&str, &str, &str, &[&str])] = &[
            // include        exclude      limits          warnings
            ("*",             "",          "eth0",         &[]),
            ("enp*",          "eth0",      "eth*",         &[]),
            ("eth0 wlan0",    "",          "",             &["[interfaces] include = \"wlan0\" matches no link yet; there are lo, eth0, eth1;"]),
            ("*",             "eth*",      "",             &["no link is watched: include = \"*\" means hardware"]),
            ("*",             "eth0",      "eth0",         &["exclude removes all that the limit on \"eth0\" names (eth0)"]),
            ("*",             "enp3s0",    "eth1",         &["exclude removes all that the limit on \"eth1\" names (eth1)"]),
            ("*",             "eth0",      "ppp0 *",       &[]),
        ];
        for (include, exclude, limits, expected) in table {
            let warnings = selection(include, exclude, limits).warnings(&links);
            let as_expected = warnings.iter().zip(*expected).all(|(warning, begin)| warning.starts_with(begin));
            assert!(as_expected && warnings.len() == expected.len(), "{include}, {exclude}, {limits}: {warnings:#?}");
        }
        let only_lo = InterfaceFilter::default().warnings(&[&lo]);
        assert!(only_lo[0].ends_with("there are only lo; name in include what to watch"), "{only_lo:?}");
        let known = LinkOverride { interface: "eht0".into(), speed: Speed::default(), counter_bits: None };
        let warnings = InterfaceFilter::default().with_overrides(vec![known]).warnings(&links);
        assert!(warnings[0].starts_with("[[link]] interface = \"eht0\" matches no link yet"), "{warnings:?}");
        let many: Vec<LinkInfo> = (0..12).map(|number| link(&format!("v{number}"), "veth")).collect();
        let warnings = selection("*", "wan0", "").warnings(&many.iter().collect::<Vec<_>>());
        assert!(warnings[0].contains("v6, v7 and 4 more;"), "{warnings:?}");
        let down = LinkInfo { up: false, ..link("veth1", "veth") };
        let warns = |links: &[&LinkInfo]| !InterfaceFilter::default().warnings(links).is_empty();
        assert!(warns(&[&lo, &down]) && !warns(&[&lo, &down, &many[0]]), "it is watched, for want of others");
    }

    #[test]
    fn a_limits_pattern_is_for_whole_names() {
        for (pattern, name, meant) in
            [("eth1", "eth1", true), ("eth1", "eth10", false), ("eth*", "eth10", true), ("*", "lo", true)]
        {
            assert_eq!(names(pattern, &link(name, "")), meant, "{pattern} {name}");
        }
    }
}
