//! The agent's own journal: on disk, or in memory until that can be written again. A lock on `agent.lock` keeps other agents out.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use log::{error, info, warn};

use super::files::lock;
use super::loss::LossLog;
use super::outage::Outage;
use super::sqlite::Claim;
use super::{
    Durability, Journal, JournalConfig, JournalError, LossCounts, Pending, Position, QueuedEvent, SqliteJournal,
    breach_change, quarantine,
};
use crate::message::{Event, EventId, NewEvent, Stamp};
use crate::process::exit::chain;
use crate::process::problems::ProblemLog;
use crate::units::{ByteCount, counted};

const RETRY_MS: u64 = 30_000;
const EXPIRE_MS: u64 = 3_600_000;

#[derive(Debug)]
pub struct DurableJournal {
    config: JournalConfig,
    lock: Option<File>,
    current: SqliteJournal,
    outage: Option<Outage>,
    breaches: BTreeMap<String, Event>,
    lost_before: LossCounts,
    loss_log: LossLog,
    own_events: Vec<Arc<Event>>,
    now_ms: u64,
    expire_at_ms: u64,
    generation: u64,
    problems: ProblemLog,
}

impl DurableJournal {
    /// Opens the journal, in memory if the disk cannot be written. Fails if another agent holds the lock, or a newer agent wrote it.
    pub fn open(config: JournalConfig, now: &Stamp) -> Result<Self, JournalError> {
        let mut journal = Self {
            current: SqliteJournal::in_memory(config.size_max)?,
            config,
            lock: None,
            outage: Some(Outage::default()),
            breaches: BTreeMap::new(),
            lost_before: LossCounts::default(),
            loss_log: LossLog::default(),
            own_events: Vec::new(),
            now_ms: now.monotonic_ms,
            expire_at_ms: now.monotonic_ms,
            generation: 0,
            problems: ProblemLog::default(),
        };
        match journal.open_disk(now).and_then(|mut disk| Ok((disk.open_breaches()?, disk))) {
            Ok((breaches, disk)) => {
                (journal.current, journal.outage) = (disk, None);
                journal.breaches = breaches.into_iter().filter_map(|event| Some((breach_of(&event)?, event))).collect();
            }
            Err(refused @ (JournalError::Locked(_) | JournalError::Newer { .. })) => return Err(refused),
            Err(error) => journal.report(&error),
        }
        Ok(journal)
    }

    fn open_disk(&mut self, now: &Stamp) -> Result<SqliteJournal, JournalError> {
        let JournalConfig { directory, size_max, identity, .. } = &self.config;
        if self.lock.is_none() {
            self.lock = Some(lock(directory)?);
        }
        let mut disk = quarantine::open_or_replace(directory, *size_max, self.outage.as_ref(), now)?;
        let before = disk.owner().clone();
        match disk.claim(identity, now)? {
            Claim::Kept => {}
            Claim::Renamed { interrupted } => warn!(
                "the agent was renamed from {} to {}: a new epoch begins, and {} of the old name ended as interrupted",
                before.agent,
                identity.agent,
                counted(interrupted as u64, "open breach")
            ),
            Claim::OtherMachine { forgotten } => warn!(
                "the state directory is from another machine (machine-id {}, here {}): a new epoch begins, and {} forgotten, \
                 since the other machine may still be running",
                before.machine_id,
                identity.machine_id,
                counted(forgotten as u64, "open breach")
            ),
        }
        // If this run has not opened the disk before, the samples noted there are an earlier run's.
        let is_of_earlier = self.outage.as_ref().is_none_or(|outage| outage.refused.is_empty());
        if is_of_earlier && disk.interrupt_samples(now)? {
            warn!("the agent did not stop in order: samples that Kafka did not have yet are lost, and declared");
        }
        disk.resize(*size_max, now)?;
        Ok(disk)
    }

    /// Continues in memory. Events on the disk stay there, and are sent when it can be written again.
    pub(super) fn fail_over(&mut self, error: &JournalError) -> Result<(), JournalError> {
        let mut memory = SqliteJournal::in_memory(self.config.size_max)?;
        memory.take_over_samples(&self.current);
        let disk = std::mem::replace(&mut self.current, memory);
        self.outage = Some(Outage { refused: disk.next_ids(), ..Outage::default() });
        self.retire(disk);
        self.report(error);
        Ok(())
    }

    fn report(&mut self, error: &JournalError) {
        let Some(outage) = &mut self.outage else { return };
        let is_damaged = matches!(error, JournalError::Damaged(_));
        outage.retry_at_ms = self.now_ms + if is_damaged { 0 } else { RETRY_MS };
        if is_damaged {
            self.problems.start(self.now_ms, &chain(error));
            error!("{}; what can be read of it is moved to a new one", chain(error));
        } else {
            self.problems.start(self.now_ms, &format!("the journal cannot be written: {}", chain(error)));
            error!(
                "the journal cannot be written, so events are kept in memory and would not survive a restart; trying \
                 again every {} s: {}",
                RETRY_MS / 1_000,
                chain(error)
            );
        }
    }

    fn fail_back(&mut self, now: &Stamp) -> Result<(), JournalError> {
        if self.outage.is_none() {
            return Ok(());
        }
        let mut disk = self.open_disk(now)?;
        let Some(outage) = &self.outage else { return Ok(()) };
        // An earlier attempt may have imported this epoch before it was refused.
        let imported = self.current.next_ids().into_iter().map(|id| EventId { seq: 1, ..id });
        let refused: Vec<EventId> = outage.refused.iter().copied().chain(imported).collect();
        disk.roll_back_from(&refused, &outage.removed)?;
        disk.remove(&outage.removed)?;
        if outage.refused.is_empty() {
            // Breaches open on the disk could not be read at the start, so none was resumed.
            disk.interrupt_breaches(now)?;
        }
        disk.import(&self.current, self.breaches.values(), now)?;
        info!("the journal can be written again");
        self.problems.resolve();
        self.outage = None;
        let memory = std::mem::replace(&mut self.current, disk);
        self.retire(memory);
        Ok(())
    }

    fn retire(&mut self, mut journal: SqliteJournal) {
        self.own_events.extend(journal.take_own_events());
        self.lost_before = self.lost_before.plus(journal.lost());
        self.generation += 1;
    }

    /// Runs `what` on disk or in memory. A transaction refused by the disk is never retried there: memory gets it instead.
    fn on_disk_or_in_memory<T>(
        &mut self,
        what: impl Fn(&mut SqliteJournal) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        match what(&mut self.current) {
            Err(error) if self.outage.is_none() => {
                self.fail_over(&error)?;
                what(&mut self.current)
            }
            done => done,
        }
    }

    fn removed(&mut self, ids: &[EventId]) {
        if let Some(outage) = &mut self.outage {
            outage.removed.extend(ids.iter().filter(|id| !self.current.owns(id.epoch)));
        }
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

    fn expire(&mut self, now: &Stamp) -> Result<(), JournalError> {
        self.expire_at_ms = now.monotonic_ms + EXPIRE_MS;
        let age_max = self.config.age_max;
        self.on_disk_or_in_memory(|journal| journal.expire(age_max, now))
    }
}

impl Journal for DurableJournal {
    fn append(&mut self, new_events: Vec<NewEvent>) -> Result<Vec<Arc<Event>>, JournalError> {
        let events = self.on_disk_or_in_memory(|journal| journal.append(new_events.clone()))?;
        self.keep_breaches(&events);
        Ok(events)
    }

    fn remove(&mut self, ids: &[EventId]) -> Result<(), JournalError> {
        self.on_disk_or_in_memory(|journal| journal.remove(ids))?;
        self.removed(ids);
        Ok(())
    }

    fn reject(&mut self, id: EventId, detail: &str, stamp: Stamp) -> Result<(), JournalError> {
        self.on_disk_or_in_memory(|journal| journal.reject(id, detail, stamp.clone()))?;
        self.removed(&[id]);
        Ok(())
    }

    fn batch(
        &mut self,
        after: Position,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<QueuedEvent>, JournalError> {
        self.on_disk_or_in_memory(|journal| journal.batch(after, events_max, bytes_max))
    }

    fn save_open_window(&mut self, window: NewEvent) -> Result<(), JournalError> {
        self.on_disk_or_in_memory(|journal| journal.save_open_window(window.clone()))
    }

    fn open_window(&mut self) -> Result<Option<NewEvent>, JournalError> {
        self.current.open_window()
    }

    fn note_samples(&mut self, first: Option<EventId>) -> Result<(), JournalError> {
        self.on_disk_or_in_memory(|journal| journal.note_samples(first))
    }

    fn take_own_events(&mut self) -> Vec<Arc<Event>> {
        let mut events = std::mem::take(&mut self.own_events);
        events.extend(self.current.take_own_events());
        events
    }

    fn lost(&self) -> LossCounts {
        self.lost_before.plus(self.current.lost())
    }

    fn pending(&self) -> Pending {
        self.current.pending()
    }

    fn open_breaches(&mut self) -> Result<Vec<Event>, JournalError> {
        Ok(self.breaches.values().cloned().collect())
    }

    fn upkeep(&mut self, now: &Stamp) -> Result<(), JournalError> {
        self.now_ms = now.monotonic_ms;
        self.loss_log.log(&self.lost(), now.monotonic_ms);
        if let Some(outage) = self.outage.as_mut().filter(|outage| now.monotonic_ms >= outage.retry_at_ms) {
            outage.retry_at_ms = now.monotonic_ms + RETRY_MS;
            self.fail_back(now)?;
        }
        if now.monotonic_ms >= self.expire_at_ms { self.expire(now) } else { Ok(()) }
    }

    fn reconfigure(&mut self, size_max: ByteCount, age_max: Duration, now: &Stamp) -> Result<(), JournalError> {
        (self.config.size_max, self.config.age_max) = (size_max, age_max);
        self.on_disk_or_in_memory(|journal| journal.resize(size_max, now))?;
        self.expire(now)
    }

    fn close(&mut self, now: &Stamp) -> Result<(), JournalError> {
        let back = self.fail_back(now);
        self.loss_log.log(&self.lost(), u64::MAX);
        back
    }

    fn durability(&self) -> Durability {
        if self.outage.is_none() { Durability::OnDisk } else { Durability::InMemory }
    }

    fn next_id(&self) -> Option<EventId> {
        Some(self.current.next_id())
    }

    fn problems(&self) -> ProblemLog {
        self.problems.clone()
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

fn breach_of(event: &Event) -> Option<String> {
    event.body.breach().map(|breach| breach.breach_id.to_string())
}
