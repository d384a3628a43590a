//! What the host and its service manager say: defaults, and places.

use std::path::PathBuf;

use crate::agent::config::Surroundings;

/// What the surroundings say of the defaults of some keys.
pub fn surroundings() -> Surroundings {
    Surroundings {
        machine_id: machine_id(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        // systemd separates several directories by colons; a unit of ours has one.
        state_directory: std::env::var_os("STATE_DIRECTORY").map(Into::into),
        credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
    }
}

/// `/etc/machine-id`, empty where there is none.
pub fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

/// `$RUNTIME_DIRECTORY`, as systemd sets it.
pub fn runtime_directory() -> Option<PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").map(Into::into)
}
