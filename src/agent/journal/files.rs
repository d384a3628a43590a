//! Files of a state directory, readable by the agent's user only. Errors of permission name owner and remedy.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use log::warn;
use rustix::fs::{FlockOperation, flock};

use super::JournalError;

const PRIVATE: u32 = 0o600;
const OTHERS: u32 = 0o077;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot write {}: it belongs to {owner}, this agent runs as {user}; set state_dir, or chown it", path.display())]
pub struct NotPermitted {
    path: PathBuf,
    owner: String,
    user: String,
}

pub(super) fn make_directory(directory: &Path) -> Result<(), JournalError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| refused(directory, source))
}

pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(PRIVATE).open(path)?;
    restrict_permissions(path, &file);
    Ok(file)
}

/// Opens the database's files in advance: SQLite's own error for one that cannot be written names no owner.
pub(super) fn prepare_database(path: &Path) -> Result<(), JournalError> {
    open_private(path).map_err(|source| refused(path, source))?;
    for suffix in ["-wal", "-shm"] {
        let path = with_suffix(path, suffix);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => restrict_permissions(&path, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(refused(&path, source)),
        }
    }
    Ok(())
}

fn restrict_permissions(path: &Path, file: &File) {
    let done = file.metadata().and_then(|metadata| {
        let is_wide = metadata.is_file() && metadata.mode() & OTHERS != 0;
        if is_wide { file.set_permissions(Permissions::from_mode(PRIVATE)) } else { Ok(()) }
    });
    if let Err(error) = done {
        warn!("{} can be read by other users: {error}", path.display());
    }
}

pub(super) fn lock(directory: &Path) -> Result<File, JournalError> {
    make_directory(directory)?;
    let path = directory.join("agent.lock");
    let file = open_private(&path).map_err(|source| refused(&path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            warn_of_others(directory);
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Locked(directory.to_owned())),
        Err(errno) => Err(JournalError::Io { path, source: errno.into() }),
    }
}

/// Warns, but leaves the mode of an existing directory, which may be shared on purpose.
fn warn_of_others(directory: &Path) {
    let mode = fs::metadata(directory).map_or(0, |metadata| metadata.mode() & 0o7777);
    if mode & 0o007 != 0 {
        warn!(
            "{} is open to other users (mode {mode:04o}), though its files are not: chmod 0750 {}",
            directory.display(),
            directory.display()
        );
    }
}

fn refused(path: &Path, source: io::Error) -> JournalError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        let there = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
        let user = rustix::process::geteuid().as_raw();
        if let Some((path, metadata)) = there.filter(|(_, metadata)| metadata.uid() != user) {
            let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
            let [owner, user] = [metadata.uid(), user].map(|uid| named(uid, &users));
            return NotPermitted { path: path.to_owned(), owner, user }.into();
        }
    }
    JournalError::Io { path: path.to_owned(), source }
}

fn named(uid: u32, users: &str) -> String {
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// Renames and syncs the directory: a power cut must not undo one rename and keep the next.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let directory = to.parent().map(File::open);
    drop(directory.map(|directory| directory.and_then(|directory| directory.sync_all())));
    Ok(())
}

pub(super) fn unless_missing(path: &Path, what: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), JournalError> {
    match what(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_where_the_system_knows_him() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nedge:x:1000:1000::/home/edge:/bin/sh\n";
        assert_eq!(named(0, users), "root (uid 0)");
        assert_eq!(named(1000, users), "edge (uid 1000)");
        assert_eq!(named(100, users), "uid 100");
    }
}
