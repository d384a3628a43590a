use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::cli::output;
use crate::process::checks::{Finding, Grade, User, unreadable_files, unwritable_directory};
use crate::process::exit::Failure;
use crate::units::counted;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CheckFlags {
    /// Ask no server
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print what is in force, and where each value comes from
    #[arg(long, conflicts_with = "offline")]
    pub(crate) print_config: bool,
}

#[derive(Debug, Default)]
pub(crate) struct CheckReport {
    warnings: u64,
    failures: u64,
}

impl CheckReport {
    pub(crate) fn add(&mut self, finding: &Finding) -> Result<(), Failure> {
        match finding.grade {
            Grade::Ok => {}
            Grade::Warning => self.warnings += 1,
            Grade::Failed => self.failures += 1,
        }
        output::print(&format!("{finding}\n"))
    }

    pub(crate) fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), Failure> {
        findings.into_iter().try_for_each(|finding| self.add(&finding))
    }

    pub(crate) fn end(self) -> Result<(), Failure> {
        if self.failures == 0 {
            return Ok(());
        }
        let warnings =
            if self.warnings == 0 { String::new() } else { format!(", {}", counted(self.warnings, "warning")) };
        Err(Failure::failed(format!("{} failed{warnings}", counted(self.failures, "check"))))
    }
}

/// Returns the finding that the configuration is valid, or that the usual file, `absent`, does not exist.
pub(crate) fn valid_configuration(absent: Option<&str>) -> Finding {
    let text = match absent {
        Some(file) => format!("there is no {file}: flags, the environment and defaults are in force"),
        None => "is valid".to_owned(),
    };
    Finding::ok("configuration", text)
}

/// Directories that `ProtectHome=` and `PrivateTmp=` replace by empty ones.
const HIDDEN_BY_UNIT: &[&str] = &["/root", "/home", "/run/user", "/tmp", "/var/tmp"];

/// Finds the files that the service could not read under its own user: root, who asks here, may read all.
pub(crate) fn unreadable_by_service(user: &str, files: &[PathBuf]) -> Vec<Finding> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let [passwd, group] = ["/etc/passwd", "/etc/group"].map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let hidden = if is_systemd_running() { HIDDEN_BY_UNIT } else { &[] };
    unreadable_files(User::find(user, &passwd, &group).as_ref(), hidden, files)
}

/// Finds a directory that the service's unit, as it is with its drop-ins, could not write to.
pub(crate) fn unwritable_by_service(unit: &str, directory: &Path) -> Option<Finding> {
    if !is_systemd_running() || !directory.is_absolute() {
        return None;
    }
    let properties = ["ProtectSystem", "ReadWritePaths", "StateDirectory"].map(|name| format!("--property={name}"));
    let shown = Command::new("systemctl").arg("show").args(properties).arg(unit).output().ok()?;
    unwritable_directory(directory, unit, &String::from_utf8_lossy(&shown.stdout))
}

fn is_systemd_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_hide_what_check_says() {
        for unit in ["agent", "consumer"] {
            let path = format!("{}/systemd/highwater-{unit}.service", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            for line in ["ProtectHome=yes", "PrivateTmp=yes"] {
                assert!(text.lines().any(|found| found == line), "{unit}: {line}");
            }
        }
    }

    #[test]
    fn a_failed_check_is_a_failure_and_a_warning_is_none() {
        let report = |findings: &[Finding]| {
            let mut report = CheckReport::default();
            report.add_all(findings.iter().cloned()).unwrap();
            report.end().map_err(|failure| failure.to_string())
        };
        let (fine, odd, wrong) = (Finding::ok("a", "b"), Finding::warning("a", "b"), Finding::failed("a", "b"));
        assert_eq!(report(&[fine.clone(), odd.clone()]), Ok(()));
        assert_eq!(report(&[wrong.clone(), odd.clone(), wrong.clone()]), Err("2 checks failed, 1 warning".to_owned()));
        assert_eq!(report(&[fine, wrong]), Err("1 check failed".to_owned()));
    }
}
