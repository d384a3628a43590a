//! The agent's own journal: on disk as long as the disk takes it, and in memory while it refuses.
//!
//! A state directory belongs to one agent: whoever holds the lock on `agent.lock` there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use log::{error, info, warn};
use rustix::fs::{FlockOperation, flock};

use super::sqlite::{Saved, Since};
use super::{Journal, JournalError, MemoryJournal, Pending, Position, SqliteJournal, Stored, breach_change};
use crate::agent::event_system::Draft;
use crate::agent::mishap::Mishaps;
use crate::event::{Event, EventId, Stamp};
use crate::exit::chain;
use crate::units::ByteCount;

/// How long a refusing disk is left alone.
const RETRY_MS: u64 = 30_000;
/// Old events are looked for so often.
const EXPIRE_MS: u64 = 3_600_000;
/// So many damaged journals are kept.
const ASIDE_MAX: usize = 3;
/// The ring's events stand after all that a disk ever held.
const RING_START: Position = Position(1 << 62);

/// Where events are kept at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In the file: they survive.
    OnDisk,
    /// In memory, because the disk refuses: they don't.
    InMemory,
}

/// What a journal is told about its place and its bounds.
#[derive(Clone, Debug)]
pub struct Place {
    /// The state directory; made if it is missing.
    pub directory: PathBuf,
    /// The file's size, and the ring's.
    pub size_max: ByteCount,
    /// Events older than this are given up.
    pub age_max: Duration,
    /// `/etc/machine-id`, empty where there is none.
    pub machine_id: String,
}

/// A journal that goes on without its disk, and says so.
#[derive(Debug)]
pub struct DurableJournal {
    place: Place,
    /// Held for others to see; none while the disk refuses even that.
    lock: Option<File>,
    disk: Option<SqliteJournal>,
    ring: Option<MemoryJournal>,
    breaches: BTreeMap<String, Event>,
    /// The first number that the disk did not take.
    refused: Option<EventId>,
    /// Removed while the disk refused.
    removed: Vec<EventId>,
    /// The last time it was told.
    now_ms: u64,
    retry_at_ms: u64,
    expire_at_ms: u64,
    generation: u64,
    /// It lasts as long as the disk refuses.
    mishaps: Mishaps,
}

impl DurableJournal {
    /// Opens the journal in its directory. A disk that refuses is no error: see [`DurableJournal::keeping`].
    ///
    /// # Errors
    /// [`JournalError::Locked`]: another agent runs there.
    pub fn open(place: Place, stamp: &Stamp) -> Result<Self, JournalError> {
        let lock = match lock(&place.directory) {
            Err(locked @ JournalError::Locked(_)) => return Err(locked),
            Err(error) => {
                warn!("{}", chain(&error));
                None
            }
            Ok(file) => Some(file),
        };
        let mut journal = Self {
            place,
            lock,
            disk: None,
            ring: None,
            breaches: BTreeMap::new(),
            refused: None,
            removed: Vec::new(),
            now_ms: stamp.monotonic_ms,
            retry_at_ms: 0,
            expire_at_ms: stamp.monotonic_ms,
            generation: 0,
            mishaps: Mishaps::default(),
        };
        match journal.open_disk(stamp).and_then(|mut disk| Ok((disk.open_breaches()?, disk))) {
            Ok((breaches, disk)) => {
                journal.disk = Some(disk);
                journal.breaches = breaches.into_iter().filter_map(|event| Some((breach_of(&event)?, event))).collect();
            }
            Err(error) => journal.degrade(&error),
        }
        Ok(journal)
    }

    fn path(&self) -> PathBuf {
        self.place.directory.join("journal.db")
    }

    fn open_disk(&self, stamp: &Stamp) -> Result<SqliteJournal, JournalError> {
        let Place { directory, size_max, machine_id, .. } = &self.place;
        fs::create_dir_all(directory).map_err(|source| JournalError::Io { path: directory.clone(), source })?;
        self.finish_replacement(stamp)?;
        match SqliteJournal::open(&self.path(), *size_max, machine_id) {
            Err(JournalError::Damaged(why)) => {
                self.prepare_replacement(&why, stamp)?;
                self.finish_replacement(stamp)?;
                SqliteJournal::open(&self.path(), *size_max, machine_id)
            }
            other => other,
        }
    }

    /// Makes a journal, beside the damaged one, of what can still be read of that, and declares that there may have been more.
    /// It has its name only when it is whole, so that this can be cut short anywhere.
    fn prepare_replacement(&self, why: &str, stamp: &Stamp) -> Result<(), JournalError> {
        let Place { size_max, machine_id, .. } = &self.place;
        let part = with_suffix(&self.path(), ".part");
        for suffix in ["", "-wal", "-shm"] {
            unless_missing(&with_suffix(&part, suffix), |path| fs::remove_file(path))?;
        }
        let since = Since { refused: self.refused, removed: &self.removed };
        let saved = Saved::read(&self.path(), machine_id, since)?;
        // At the start the breaches are known from the journal alone.
        let breaches: Vec<&Event> =
            if self.ring.is_none() { saved.breaches.iter().collect() } else { self.breaches.values().collect() };
        saved.write(&part, (*size_max, machine_id), breaches, why, stamp)?;
        error!("journal damaged ({why}): {}, and a new epoch begins", saved.summary());
        rename(&part, &self.replacement()).map_err(|source| JournalError::Io { path: part, source })
    }

    /// Puts the journal that was made in the place of the damaged one, which is set aside, its log first: without it the file
    /// could look sound.
    fn finish_replacement(&self, stamp: &Stamp) -> Result<(), JournalError> {
        let replacement = self.replacement();
        if !replacement.try_exists().map_err(|source| JournalError::Io { path: replacement.clone(), source })? {
            return Ok(());
        }
        let path = self.path();
        let aside = path.with_extension(format!("db.damaged-{}", stamp.observed_at.format("%Y%m%dT%H%M%S%.3fZ")));
        for suffix in ["-wal", ""] {
            let to = with_suffix(&aside, suffix);
            unless_missing(&with_suffix(&path, suffix), |path| rename(path, &to))?;
        }
        rename(&replacement, &path).map_err(|source| JournalError::Io { path: replacement, source })?;
        error!("the damaged journal was set aside as {}", aside.display());
        self.tidy_up(&aside);
        Ok(())
    }

    /// Of the damaged journals only the latest are kept, that they do not fill the disk.
    fn tidy_up(&self, latest: &Path) {
        let is_aside = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("journal.db.damaged-") && !name.ends_with("-wal") && path != latest
        };
        let files = fs::read_dir(&self.place.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut aside: Vec<PathBuf> = files.filter(is_aside).collect();
        aside.sort_unstable();
        for old in aside.iter().rev().skip(ASIDE_MAX - 1) {
            for suffix in ["-wal", ""] {
                if let Err(error) = unless_missing(&with_suffix(old, suffix), |path| fs::remove_file(path)) {
                    warn!("{}", chain(&error));
                }
            }
        }
    }

    fn replacement(&self) -> PathBuf {
        with_suffix(&self.path(), ".new")
    }

    /// Goes on in memory. What is on the disk stays there, and is sent when the disk is back.
    pub(super) fn degrade(&mut self, error: &JournalError) {
        let is_damaged = matches!(error, JournalError::Damaged(_));
        let what = if is_damaged { chain(error) } else { format!("the journal cannot be written: {}", chain(error)) };
        self.mishaps.begin(self.now_ms, &what);
        if is_damaged {
            error!("{}; what can be read of it goes into a new one", chain(error));
        } else {
            error!(
                "the journal cannot be written, so events are kept in memory and would not survive a restart; trying \
                 again every {} s: {}",
                RETRY_MS / 1_000,
                chain(error)
            );
        }
        if let Some(disk) = self.disk.take() {
            self.refused = Some(disk.next_id());
        }
        self.ring = Some(MemoryJournal::after(RING_START, self.place.size_max.bytes()));
        self.retry_at_ms = self.now_ms + if is_damaged { 0 } else { RETRY_MS };
        self.generation += 1;
    }

    /// Goes back to the disk, with all that the ring holds.
    fn recover(&mut self, stamp: &Stamp) -> Result<(), JournalError> {
        if self.lock.is_none() {
            self.lock = Some(lock(&self.place.directory)?);
        }
        let mut disk = self.open_disk(stamp)?;
        if let Some(refused) = self.refused {
            disk.take_back(refused)?;
        }
        if let Some(ring) = &self.ring {
            // An earlier try may have come so far before it was refused.
            disk.take_back(EventId { epoch: ring.epoch(), seq: 1 })?;
        }
        disk.remove(&self.removed)?;
        disk.adopt(self.ring.iter().flat_map(MemoryJournal::events), self.breaches.values(), stamp)?;
        info!("the journal can be written again");
        self.mishaps.over();
        (self.disk, self.ring, self.refused) = (Some(disk), None, None);
        self.removed.clear();
        self.generation += 1;
        Ok(())
    }

    fn keep_breaches(&mut self, events: &[Arc<Event>]) {
        for event in events {
            match breach_change(&event.body) {
                Some((id, true)) => drop(self.breaches.insert(id.to_owned(), Event::clone(event))),
                Some((id, false)) => drop(self.breaches.remove(id)),
                None => {}
            }
        }
    }

    /// To be removed from the disk when it is back; what only the ring holds never was there.
    fn remember_removed(&mut self, ids: &[EventId]) {
        let of_the_ring = self.ring.as_ref().map(MemoryJournal::epoch);
        self.removed.extend(ids.iter().filter(|id| Some(id.epoch) != of_the_ring));
    }

    fn current(&mut self) -> &mut dyn Journal {
        match (&mut self.disk, &mut self.ring) {
            (Some(disk), _) => disk,
            (None, Some(ring)) => ring,
            (None, None) => unreachable!("a journal without its disk has its ring"),
        }
    }
}

impl Journal for DurableJournal {
    fn append(&mut self, drafts: Vec<Draft>) -> Result<Vec<Arc<Event>>, JournalError> {
        if let Some(disk) = &mut self.disk {
            // A copy, since a refused transaction is never tried again: the same events are written anew, elsewhere.
            match disk.append(drafts.clone()) {
                Ok(events) => {
                    self.keep_breaches(&events);
                    return Ok(events);
                }
                Err(error) => self.degrade(&error),
            }
        }
        let events = self.current().append(drafts)?;
        self.keep_breaches(&events);
        Ok(events)
    }

    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        if let Some(disk) = &mut self.disk {
            match disk.remove(ids) {
                Ok(()) => return Ok(()),
                Err(error) => self.degrade(&error),
            }
        }
        self.remember_removed(ids);
        self.current().remove(ids)
    }

    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError> {
        if let Some(disk) = &mut self.disk {
            match disk.reject(id, detail, stamp.clone()) {
                Ok(()) => return Ok(()),
                Err(error) => self.degrade(&error),
            }
        }
        self.remember_removed(&[id]);
        self.current().reject(id, detail, stamp)
    }

    fn batch(&mut self, after: Position, events_max: usize, bytes_max: usize) -> Result<Vec<Stored>, JournalError> {
        if let Some(disk) = &mut self.disk {
            match disk.batch(after, events_max, bytes_max) {
                Ok(batch) => return Ok(batch),
                // Positions mean nothing any more: the next call begins anew, in the ring.
                Err(error) => self.degrade(&error),
            }
            return Ok(Vec::new());
        }
        self.current().batch(after, events_max, bytes_max)
    }

    fn pending(&self) -> Pending {
        match (&self.disk, &self.ring) {
            (Some(disk), _) => disk.pending(),
            (None, ring) => ring.as_ref().map(MemoryJournal::pending).unwrap_or_default(),
        }
    }

    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError> {
        Ok(self.breaches.values().cloned().collect())
    }

    fn upkeep(&mut self, stamp: &Stamp) -> Result<(), JournalError> {
        self.now_ms = stamp.monotonic_ms;
        if self.disk.is_none() && stamp.monotonic_ms >= self.retry_at_ms {
            self.retry_at_ms = stamp.monotonic_ms + RETRY_MS;
            self.recover(stamp)?;
        }
        // A clock that was never set knows nothing of age.
        if stamp.monotonic_ms >= self.expire_at_ms && stamp.clock_synced != Some(false) {
            self.expire_at_ms = stamp.monotonic_ms + EXPIRE_MS;
            let age_max = TimeDelta::from_std(self.place.age_max).ok();
            let oldest = age_max.and_then(|age| stamp.observed_at.checked_sub_signed(age));
            if let (Some(disk), Some(oldest)) = (&mut self.disk, oldest) {
                disk.expire(oldest.timestamp_micros(), stamp)?;
            }
        }
        Ok(())
    }

    fn keeping(&self) -> Keeping {
        if self.disk.is_some() { Keeping::OnDisk } else { Keeping::InMemory }
    }

    fn next_id(&self) -> Option<EventId> {
        self.disk.as_ref().map(SqliteJournal::next_id).or(self.ring.as_ref().map(MemoryJournal::next_id))
    }

    fn mishaps(&self) -> Mishaps {
        self.mishaps.clone()
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

fn breach_of(event: &Event) -> Option<String> {
    event.body.breach().map(|breach| breach.breach_id.to_string())
}

/// On the disk too, where the file system can do that: a power cut must not undo one renaming and leave the next.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let directory = to.parent().map(File::open);
    drop(directory.map(|directory| directory.and_then(|directory| directory.sync_all())));
    Ok(())
}

fn unless_missing(path: &Path, what: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), JournalError> {
    match what(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join("agent.lock");
    let io = |source| JournalError::Io { path: path.clone(), source };
    fs::create_dir_all(directory).map_err(io)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Locked(directory.to_owned())),
        Err(errno) => Err(io(errno.into())),
    }
}
