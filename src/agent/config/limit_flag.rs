//! `--limit`: a table `[[limit]]` in one line.

use std::str::FromStr;

use toml::{Table, Value};

use super::pattern::names_peer;

/// A limit as `[NAME@]LINKS[:DIRECTION]=RATE[,KEY=VALUE]…`: `eth0=80 Mbit/s`, `wan-down@eth*:rx=80%,for=3s`.
/// Values are checked later, with the same errors as those of a file.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent) struct LimitFlag(Table);

const FORM: &str = "write it as 'eth0=80 Mbit/s', 'eth*:rx=80%' or 'wan-down@eth0:rx=80 Mbit/s,for=3s'";

impl LimitFlag {
    pub(in crate::agent) fn into_table(self) -> Table {
        self.0
    }
}

impl FromStr for LimitFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (place, rate) =
            assignment(parts.next().unwrap_or_default()).ok_or_else(|| format!("is not LINKS=RATE; {FORM}"))?;
        let (name, place) = place.split_once('@').map_or((None, place), |(name, place)| (Some(name.trim()), place));
        // The kernel allows no colon in a link's name.
        let (interface, direction) = match place.rsplit_once(':') {
            Some((interface, direction)) => (interface.trim(), Some(direction.trim())),
            None => (place.trim(), None),
        };
        if interface.is_empty() {
            return Err(format!("names no link; {FORM}"));
        }
        if let Some(name) = name.filter(|_| names_peer(interface)) {
            return Err(format!("`{name}@{interface}` is how ip(8) shows the link `{name}` and its peer; {FORM}"));
        }
        let mut table = Table::new();
        let mut set = |key: &str, value: &str| table.insert(key.to_owned(), Value::String(value.to_owned())).is_some();
        // Two directions of one link need two names.
        set("name", name.unwrap_or(place.trim()));
        set("interface", interface);
        set("raise_at", rate);
        if let Some(direction) = direction {
            set("direction", direction);
        }
        for part in parts {
            let (key, value) = assignment(part).ok_or_else(|| format!("`{part}` is not KEY=VALUE; {FORM}"))?;
            if set(key, value) {
                return Err(format!("sets {key} twice; {FORM}"));
            }
        }
        Ok(Self(table))
    }
}

fn assignment(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.rsplit_once('=')?;
    Some((key.trim(), value.trim())).filter(|(key, value)| !key.is_empty() && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::config::Layers;
    use crate::process::host::ServiceEnvironment;

    fn settings(file: &str, flags: &[&str]) -> Result<Settings, String> {
        let tables = flags.iter().map(|flag| Ok(flag.parse::<LimitFlag>()?.into_table()));
        let layers = Layers::from_text("agent.toml", file).with_tables(
            "--limit",
            "limit",
            tables.collect::<Result<_, String>>()?,
        );
        let environment = ServiceEnvironment { hostname: "gw-042".into(), ..ServiceEnvironment::default() };
        Settings::new(&layers, &environment).map_err(|error| error.to_string())
    }

    fn limits(flags: &[&str]) -> Vec<String> {
        settings("", flags).unwrap().limits.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_limit_in_one_line_is_that_of_a_file() {
        let same = |flag: &str, file: &str| {
            assert_eq!(settings("", &[flag]).unwrap().limits, settings(file, &[]).unwrap().limits, "{flag}");
        };
        same("eth0=80 Mbit/s", "[[limit]]\ninterface = 'eth0'\nraise_at = '80 Mbit/s'");
        same("eth*:rx=80%", "[[limit]]\nname = 'eth*:rx'\ninterface = 'eth*'\ndirection = 'rx'\nraise_at = '80%'");
        same(
            " wan-down @ ppp0 : total = 1 Gbit/s , for = 3s, clear_at=900 Mbit/s,severity=critical",
            "[[limit]]\nname = 'wan-down'\ninterface = 'ppp0'\ndirection = 'total'\nraise_at = '1 Gbit/s'\nfor = '3s'\n\
             clear_at = '900 Mbit/s'\nseverity = 'critical'",
        );
    }

    #[test]
    fn several_limits_of_one_link_have_names_of_their_own_and_replace_those_of_the_file() {
        let file = "[[limit]]\ninterface = 'lo'\nraise_at = '1 Mbit/s'\n";
        let both = settings(file, &["eth0:rx=80%", "eth0:tx=50%", "critical@eth0:rx=95%"]).unwrap();
        let names: Vec<&str> = both.limits.iter().map(|limit| &*limit.name).collect();
        assert_eq!(names, ["eth0:rx", "eth0:tx", "critical"]);
        assert_eq!(settings(file, &[]).unwrap().limits[0].name, "lo");
        assert_eq!(
            limits(&["eth0=1 Gbit/s"]),
            ["eth0: rx or tx of eth0 from 1.0 Gbit/s for 0 s, until below 900.0 Mbit/s for 0 s, warning"]
        );
    }

    #[test]
    fn what_is_no_limit_is_shown_with_what_would_be_one() {
        for (flags, says) in [
            (&["eth0"][..], "is not LINKS=RATE; write it as"),
            (&["eth0="], "is not LINKS=RATE; write it as"),
            (&["=80%"], "is not LINKS=RATE; write it as"),
            (&["wan@=80%"], "names no link; write it as 'eth0=80 Mbit/s'"),
            (&["eth0@if12=80%"], "is how ip(8) shows the link `eth0` and its peer"),
            (&["eth0=80%,for"], "`for` is not KEY=VALUE"),
            (&["eth0=80%,raise_at=5%"], "sets raise_at twice"),
            (&["eth0=80"], "--limit: raise_at: `80` is not a bit rate"),
            (&["eth0:up=80%"], "--limit: direction: `up` is not one of rx, tx, total, either"),
            (&["eth0=80%,fro=3s"], "--limit: unknown key `fro`; known here: name, interface"),
            (&["eth0=80%,for=3"], "--limit: for: `3` has no unit; write it as \"3s\""),
            (&["eth 0=80%"], "--limit: interface: `eth 0` matches no interface"),
            (&["eth0=80%", "eth0=90%"], "--limit: name: `eth0` is the name of another limit too"),
            (&["@eth0=80%"], "--limit: name: is empty"),
        ] {
            let error = settings("", flags).err().unwrap_or_else(|| panic!("{flags:?} is taken"));
            assert!(error.contains(says), "{flags:?}: {error}");
        }
    }
}
