//! Findings of `check`: one line each on standard output, with the remedy if something is wrong. `run` logs them at its start.

use std::fmt;
use std::path::Path;

use crate::units::ByteCount;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub grade: Grade,
    /// Subject: `kafka`, `limit wan-down`.
    pub about: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Ok,
    Warning,
    Failed,
}

impl Finding {
    pub fn ok(about: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { grade: Grade::Ok, about: about.into(), text: text.to_string() }
    }

    pub fn warning(about: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { grade: Grade::Warning, about: about.into(), text: text.to_string() }
    }

    pub fn failed(about: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { grade: Grade::Failed, about: about.into(), text: text.to_string() }
    }

    pub fn is_trouble(&self) -> bool {
        self.grade != Grade::Ok
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Failed => "FAILED",
        };
        write!(f, "{grade:<8} {}: {}", self.about, self.text)
    }
}

/// Compares the free space of a directory's file system with what may be written there; `None` if it is unknown.
pub fn disk_space(directory: &Path, needed: ByteCount) -> Option<Finding> {
    let there = directory.ancestors().find(|path| path.exists() || path.as_os_str().is_empty())?;
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let file_system = rustix::fs::statvfs(there).ok()?;
    let free = ByteCount::from_bytes(file_system.f_bavail.saturating_mul(file_system.f_frsize));
    let shown = directory.display();
    Some(if free < needed {
        Finding::warning("disk", format!("{free} are free for {shown}, where up to {needed} may be written; make room"))
    } else {
        Finding::ok("disk", format!("{free} are free for {shown}"))
    })
}

/// Checks that this process may create files in a directory, or the directory itself; an error names the path that forbids it.
pub fn may_write(directory: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
    let there = directory.ancestors().find(|path| path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(format!("{} is no directory", there.display()));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("cannot write to {}: {}", there.display(), std::io::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_and_rights_are_those_of_the_nearest_directory() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        assert!(!disk_space(&deep, ByteCount::from_bytes(1)).unwrap().is_trouble());
        assert!(disk_space(&deep, ByteCount::from_bytes(u64::MAX)).unwrap().is_trouble());
        assert_eq!(may_write(&deep), Ok(()));
        std::fs::write(directory.path().join("a"), "").unwrap();
        assert!(may_write(&deep).unwrap_err().ends_with("is no directory"));
    }
}
