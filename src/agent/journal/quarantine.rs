//! Moves damaged journals aside, and replaces them by what can still be read of them.

use std::fs;
use std::path::{Path, PathBuf};

use log::{error, warn};

use super::files::{rename, unless_missing, with_suffix};
use super::outage::Outage;
use super::sqlite::SalvagedJournal;
use super::{JournalError, SqliteJournal};
use crate::message::Stamp;
use crate::process::exit::chain;
use crate::units::ByteCount;

const QUARANTINED_MAX: usize = 3;

pub(super) fn open_or_replace(
    directory: &Path,
    size_max: ByteCount,
    outage: Option<&Outage>,
    now: &Stamp,
) -> Result<SqliteJournal, JournalError> {
    let path = directory.join("journal.db");
    let mut is_replaced = finish_replacement(&path, now)?;
    let mut journal = match SqliteJournal::open(&path, size_max) {
        Err(JournalError::Damaged(why)) => {
            prepare_replacement(&path, size_max, &why, outage, now)?;
            is_replaced = finish_replacement(&path, now)?;
            SqliteJournal::open(&path, size_max)?
        }
        opened => opened?,
    };
    if is_replaced {
        journal.announce_losses()?;
    }
    Ok(journal)
}

/// Salvages the damaged journal into a new one, renamed when it is complete, and declares that there may have been more.
fn prepare_replacement(
    path: &Path,
    size_max: ByteCount,
    why: &str,
    outage: Option<&Outage>,
    now: &Stamp,
) -> Result<(), JournalError> {
    let part = with_suffix(path, ".part");
    for suffix in ["", "-wal", "-shm"] {
        unless_missing(&with_suffix(&part, suffix), |path| fs::remove_file(path))?;
    }
    let saved = SalvagedJournal::read(path, outage)?;
    saved.write(&part, size_max, why, now)?;
    error!("journal damaged ({why}): {}, and a new epoch begins", saved.summary());
    rename(&part, &replacement(path)).map_err(|source| JournalError::Io { path: part, source })
}

/// Moves the damaged journal aside, its log first: without it the file could look sound. Returns false without a replacement.
fn finish_replacement(path: &Path, now: &Stamp) -> Result<bool, JournalError> {
    let replacement = replacement(path);
    if !replacement.try_exists().map_err(|source| JournalError::Io { path: replacement.clone(), source })? {
        return Ok(false);
    }
    let aside = path.with_extension(format!("db.damaged-{}", now.observed_at.format("%Y%m%dT%H%M%S%.3fZ")));
    for suffix in ["-wal", ""] {
        let to = with_suffix(&aside, suffix);
        unless_missing(&with_suffix(path, suffix), |path| rename(path, &to))?;
    }
    rename(&replacement, path).map_err(|source| JournalError::Io { path: replacement, source })?;
    error!("the damaged journal was set aside as {}", aside.display());
    remove_old(path, &aside);
    Ok(true)
}

fn remove_old(path: &Path, latest: &Path) {
    let is_older = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("journal.db.damaged-") && !name.ends_with("-wal") && path != latest
    };
    let directory = path.parent().unwrap_or(Path::new(""));
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut aside: Vec<PathBuf> = files.filter(is_older).collect();
    aside.sort_unstable();
    for old in aside.iter().rev().skip(QUARANTINED_MAX - 1) {
        for suffix in ["-wal", ""] {
            if let Err(error) = unless_missing(&with_suffix(old, suffix), |path| fs::remove_file(path)) {
                warn!("an old damaged journal could not be deleted: {}", chain(&error));
            }
        }
    }
}

fn replacement(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}
