use crate::agent::config::Surroundings;
use crate::clock::Clock;
use crate::event::Stamp;
use crate::service::Directories;

pub fn surroundings() -> Surroundings {
    Surroundings {
        machine_id: machine_id(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        directories: Directories::from_environment(),
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

pub fn stamp(agent: &str, boot_id: &str, clock: &dyn Clock) -> Stamp {
    Stamp {
        agent: agent.into(),
        observed_at: clock.wall(),
        boot_id: boot_id.to_owned(),
        monotonic_ms: u64::try_from(clock.boottime().as_millis()).unwrap_or(u64::MAX),
        clock_synced: clock.synced(),
    }
}
