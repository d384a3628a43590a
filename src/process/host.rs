//! The names by which a host, and a boot of it, are known.

use super::systemd::Directories;

/// Names of the host and directories from systemd, which configuration falls back on.
#[derive(Clone, Debug, Default)]
pub struct ServiceEnvironment {
    pub hostname: String,
    pub machine_id: String,
    pub directories: Directories,
}

impl ServiceEnvironment {
    pub fn read() -> Self {
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            machine_id: machine_id(),
            directories: Directories::from_environment(),
        }
    }
}

pub fn machine_id() -> String {
    file_text("/etc/machine-id")
}

pub fn boot_id() -> String {
    file_text("/proc/sys/kernel/random/boot_id")
}

fn file_text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
