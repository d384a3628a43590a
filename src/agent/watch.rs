//! Which links are watched.
//!
//! By default those that carry a host's traffic to other hosts: links of no kind (hardware), ppp, wwan, rmnet, and a bond in the
//! place of its slaves. What other kinds carry (loopback, bridge, veth, vlan, tunnels …) is counted on the link beneath, or never
//! leaves the host; they are watched where a pattern names them. Pure.

use wildmatch::WildMatch;

use super::counters::{LinkInfo, LinkKind};

/// The configured patterns. A pattern matches whole names, with `*` for any characters and `?` for one.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `include` has a pattern for everything.
    everything: bool,
    /// All other patterns of `include` and of the limits.
    naming: Vec<WildMatch>,
    excluded: Vec<WildMatch>,
}

impl Selection {
    /// `include` and `exclude` of `[interfaces]`, and the `interface` of each limit: what a limit names is watched for it.
    pub fn new(include: &[String], exclude: &[String], limit_patterns: &[String]) -> Self {
        Self {
            everything: include.iter().any(|pattern| matches_everything(pattern)),
            naming: include
                .iter()
                .chain(limit_patterns)
                .filter(|pattern| !matches_everything(pattern))
                .map(|pattern| WildMatch::new(pattern))
                .collect(),
            excluded: exclude.iter().map(|pattern| WildMatch::new(pattern)).collect(),
        }
    }

    /// `exclude` wins; then a pattern that names the link; then `*`, which means the links that are watched by default.
    pub fn watches(&self, link: &LinkInfo) -> bool {
        let matched = |patterns: &[WildMatch]| patterns.iter().any(|pattern| pattern.matches(&link.name));
        !matched(&self.excluded) && (matched(&self.naming) || self.everything && watched_by_default(link))
    }
}

impl Default for Selection {
    /// As without any configuration: `include = ["*"]`.
    fn default() -> Self {
        Self::new(&["*".to_owned()], &[], &[])
    }
}

/// Whether `pattern`, a limit's `interface`, is meant for the link called `name`.
pub fn names(pattern: &str, name: &str) -> bool {
    WildMatch::new(pattern).matches(name)
}

fn matches_everything(pattern: &str) -> bool {
    !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'*')
}

fn watched_by_default(link: &LinkInfo) -> bool {
    match link.kind {
        LinkKind::Physical | LinkKind::Ppp | LinkKind::Wwan | LinkKind::Rmnet | LinkKind::Bond => !link.enslaved,
        LinkKind::Loopback | LinkKind::Other(_) => false,
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

    fn selection(include: &str, exclude: &str, limits: &str) -> Selection {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Selection::new(&list(include), &list(exclude), &list(limits))
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
        assert!(Selection::default().watches(&link("eth0", "")));
    }

    #[test]
    fn a_limits_pattern_is_for_whole_names() {
        for (pattern, name, meant) in
            [("eth1", "eth1", true), ("eth1", "eth10", false), ("eth*", "eth10", true), ("*", "lo", true)]
        {
            assert_eq!(names(pattern, name), meant, "{pattern} {name}");
        }
    }
}
