//! Reads the journal of an agent that does not run, from a copy: opening the files would take locks that keep a starting agent out,
//! and leave SQLite's files behind. For the same reason the lock is not tried: `/proc/locks` names its holder.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Journal as _, JournalError, Pending, SqliteJournal};
use crate::message::Event;
use crate::units::ByteCount;

const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db.mark"];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub pending: Pending,
    pub open_breaches: Vec<Event>,
}

impl Snapshot {
    /// Reads like a starting agent on this machine, in a temporary copy; `None` where there is no journal.
    pub fn read(directory: &Path, machine_id: &str) -> Result<Option<Self>, JournalError> {
        fs::read_dir(directory).map_err(|source| JournalError::Io { path: directory.to_owned(), source })?;
        let copy = tempfile::tempdir().map_err(|source| JournalError::Io { path: std::env::temp_dir(), source })?;
        let mut found = false;
        for name in FILES {
            found |= copied(directory, copy.path(), name)?;
        }
        if !found {
            return Ok(None);
        }
        let size_max = ByteCount::from_bytes(u64::from(u32::MAX));
        let opened = SqliteJournal::open(&copy.path().join(FILES[0]), size_max);
        let mut journal = opened.map_err(|error| match error {
            JournalError::Newer { version, known, .. } => {
                JournalError::Newer { path: directory.join(FILES[0]), version, known }
            }
            error => error,
        })?;
        let is_from_here = journal.owner().machine_id == machine_id;
        let open_breaches = if is_from_here { journal.open_breaches()? } else { Vec::new() };
        Ok(Some(Self { pending: journal.pending(), open_breaches }))
    }
}

pub fn is_held(directory: &Path) -> Result<bool, JournalError> {
    let path = directory.join("agent.lock");
    match fs::metadata(&path) {
        Ok(lock) => {
            let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
            Ok(locks.lines().any(|line| holds(line, lock.dev(), lock.ino())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(JournalError::Io { path, source }),
    }
}

/// Parses an exclusive flock(2) in `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 2001 08:01:7864554 0 EOF`.
fn holds(line: &str, device: u64, inode: u64) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", _, file, ..] = fields[..] else { return false };
    let [major, minor, locked] = file.split(':').collect::<Vec<_>>()[..] else { return false };
    let number = |text| u32::from_str_radix(text, 16).ok();
    let (major, minor) = (number(major), number(minor));
    // File systems without a device of their own (btrfs, overlayfs) have different device numbers in stat(2) and `/proc/locks`.
    let same_device = (major, minor) == (Some(rustix::fs::major(device)), Some(rustix::fs::minor(device)));
    let nameless = major == Some(0) && rustix::fs::major(device) == 0;
    locked.parse() == Ok(inode) && (same_device || nameless)
}

fn copied(from: &Path, to: &Path, name: &str) -> Result<bool, JournalError> {
    let path = from.join(name);
    let (mut from, mut to) = match fs::File::open(&path) {
        Ok(file) => (file, fs::File::create(to.join(name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(JournalError::Io { path, source }),
    };
    let copied = to.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()));
    let copied = copied.and_then(|to| io::copy(&mut from, to));
    copied.map_err(|source| JournalError::Io { path, source })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_by_its_kind_its_device_and_its_inode() {
        let line = "3: FLOCK  ADVISORY  WRITE 3984 fe:00:10185135 0 EOF";
        let device = rustix::fs::makedev(0xfe, 0);
        assert!(holds(line, device, 10_185_135));
        assert!(!holds(line, device, 10_185_136));
        assert!(!holds(line, rustix::fs::makedev(0xfd, 0), 10_185_135));
        assert!(!holds(&line.replace("FLOCK", "POSIX"), device, 10_185_135));
        assert!(!holds("4: -> FLOCK  ADVISORY  WRITE 17951 fe:00:10185135 0 EOF", device, 10_185_135), "it waits");
        assert!(holds("1: FLOCK  ADVISORY  WRITE 4129 00:28:2 0 EOF", rustix::fs::makedev(0, 0x31), 2));
        for broken in ["", "1: FLOCK", "1: FLOCK  ADVISORY  WRITE 4129 00:28 0 EOF"] {
            assert!(!holds(broken, device, 10_185_135));
        }
    }
}
