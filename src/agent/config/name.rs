//! The agent's name: the configured one, else the host's, else one derived from the machine's id.

use openssl::sha::sha256;

use crate::config::Invalid;
use crate::message::AGENT_BYTES_MAX;
use crate::process::host::ServiceEnvironment;

/// Names of hosts that were given none: all of them would be one agent.
const DEFAULT_HOSTNAMES: &[&str] = &[
    "",
    "(none)",
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "ip6-localhost",
];

const DIGITS: usize = 12;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) warning: Option<Invalid>,
    pub(super) missing: Option<Invalid>,
}

impl Name {
    pub(super) fn new(configured: Option<String>, environment: &ServiceEnvironment) -> Result<Self, Invalid> {
        if let Some(name) = configured {
            check(&name).map_err(|message| Invalid::new("agent", message))?;
            return Ok(Self { name, ..Self::default() });
        }
        let host = environment.hostname.trim_end_matches('.');
        if !DEFAULT_HOSTNAMES.contains(&&*host.to_ascii_lowercase()) && check(host).is_ok() {
            return Ok(Self { name: host.to_owned(), ..Self::default() });
        }
        let called = format!("this host is called `{host}`, which is no usable name for an agent");
        Ok(match from_machine_id(&environment.machine_id) {
            Some(name) => {
                let message =
                    format!("{called}: its name is {name}, derived from /etc/machine-id; set agent to choose another");
                Self { name, warning: Some(Invalid::new("agent", message)), missing: None }
            }
            None => {
                let message = format!(
                    "{called}, and there is no /etc/machine-id to derive one from; set agent, as in agent = \"gw-042\""
                );
                Self { name: "unnamed".to_owned(), warning: None, missing: Some(Invalid::new("agent", message)) }
            }
        })
    }
}

pub(in crate::agent) fn check(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err(format!("is empty; a name has 1 to {AGENT_BYTES_MAX} bytes"));
    }
    if name.len() > AGENT_BYTES_MAX {
        return Err(format!("has {} bytes; a name has 1 to {AGENT_BYTES_MAX}", name.len()));
    }
    match name.contains(char::is_control) {
        true => Err("contains a control character, such as a line end".to_owned()),
        false => Ok(()),
    }
}

/// Derives a name by a hash, since a machine's id is confidential (machine-id(5)).
fn from_machine_id(id: &str) -> Option<String> {
    // The file contains "uninitialized" during the first boot.
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let hash = sha256(format!("highwater-agent {id}").as_bytes());
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("host-{}", &digits[..DIGITS]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn name(host: &str, machine_id: &str) -> Name {
        let environment = ServiceEnvironment {
            hostname: host.into(),
            machine_id: machine_id.into(),
            ..ServiceEnvironment::default()
        };
        Name::new(None, &environment).unwrap()
    }

    #[test]
    fn a_hosts_name_is_its_agents_unless_it_is_a_default() {
        assert_eq!(name("gw-042", ID), Name { name: "gw-042".into(), ..Name::default() });
        for host in ["", "(none)", "localhost", "localhost.localdomain", "LocalHost", "localhost."] {
            let stand_in = name(host, ID);
            assert_eq!(stand_in.name, "host-58d2494c3a75", "{host}: the same after each restart");
            assert!(!stand_in.name.contains(&ID[..8]), "the id itself stays here");
            assert!(stand_in.warning.unwrap().message.contains("set agent"), "{host}");
            for no_id in ["", "uninitialized", &ID[1..]] {
                assert!(name(host, no_id).missing.unwrap().message.contains("set agent"), "{host} {no_id}");
            }
        }
        assert_ne!(name("localhost", ID).name, name("localhost", &ID.replace('f', "e")).name);
    }

    #[test]
    fn a_configured_name_is_taken_whatever_the_host_is_called() {
        let configured = |name: &str| Name::new(Some(name.to_owned()), &ServiceEnvironment::default());
        assert_eq!(configured("localhost").unwrap(), Name { name: "localhost".into(), ..Name::default() });
        for bad in ["", " ", "a\0", &"x".repeat(256)] {
            assert_eq!(configured(bad).unwrap_err().key, "agent");
        }
    }
}
