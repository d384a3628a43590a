//! Defaults from the host, and directories from its service manager.

use std::path::PathBuf;

use crate::agent::config::Surroundings;

pub fn surroundings() -> Surroundings {
    Surroundings {
        machine_id: machine_id(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        // systemd separates several directories by colons; our unit has one.
        state_directory: std::env::var_os("STATE_DIRECTORY").map(Into::into),
        credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
    }
}

/// Returns `/etc/machine-id`, empty where there is none.
pub fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

pub fn runtime_directory() -> Option<PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").map(Into::into)
}
