use std::path::PathBuf;

use super::{Raw, Settings};
use crate::config::{ConfigError, Invalid, Layers};
use crate::process::host::ServiceEnvironment;

const USUAL: &str = "/var/lib/highwater";

impl Settings {
    pub fn state_dir(layers: &Layers, environment: &ServiceEnvironment) -> Result<PathBuf, ConfigError> {
        let raw: Raw = layers.parse()?;
        directory(raw.state_dir, environment).map_err(|invalid| layers.locate(invalid))
    }
}

pub(super) fn directory(written: Option<PathBuf>, environment: &ServiceEnvironment) -> Result<PathBuf, Invalid> {
    if written.as_ref().is_some_and(|written| written.as_os_str().is_empty()) {
        return Err(Invalid::new("state_dir", format!("is empty; name a directory, or leave it out for {USUAL}")));
    }
    Ok(written.or_else(|| environment.directories.state.clone()).unwrap_or_else(|| PathBuf::from(USUAL)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::systemd::Directories;

    #[test]
    fn the_state_directory_is_found_whatever_else_is_wrong() {
        let text = "state_dir = '/srv/hw'\n[[limit]]\ninterface = 'eth0'\n";
        let (layers, environment) = (Layers::from_text("agent.toml", text), ServiceEnvironment::default());
        assert!(Settings::new(&layers, &environment).is_err());
        assert_eq!(Settings::state_dir(&layers, &environment).unwrap(), PathBuf::from("/srv/hw"));
        let none = Layers::from_text("agent.toml", "");
        assert_eq!(Settings::state_dir(&none, &environment).unwrap(), PathBuf::from(USUAL));
        let systemd = ServiceEnvironment {
            directories: Directories { state: Some("/var/lib/other".into()), ..Directories::default() },
            ..ServiceEnvironment::default()
        };
        assert_eq!(Settings::state_dir(&none, &systemd).unwrap(), PathBuf::from("/var/lib/other"));
        assert!(Settings::state_dir(&Layers::from_text("agent.toml", "statedir = '/x'"), &environment).is_err());
    }
}
