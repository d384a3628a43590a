//! A batch goes to the store, while the next one is read.

use std::collections::HashSet;
use std::time::Duration;

use super::{Consumer, Hindrance, Stored};
use crate::clock::Clock as _;
use crate::consumer::batch::{Batch, Gap};
use crate::consumer::source::Polled;
use crate::consumer::store::{Applied, StoreError};
use crate::failpoints;
use crate::units::counted;

/// How often it is seen whether the store has finished.
const FINISHED: Duration = Duration::from_millis(1);
/// How long a slow store may keep the next batch, which is full by then, from being read on; then Kafka is paused, so that
/// polling can go on.
const FULL_MAX: Duration = Duration::from_secs(20);

impl Consumer<'_> {
    pub(super) fn store_batch(&mut self) {
        if self.storing.is_none() && !self.intake.batch.is_empty() {
            self.storing = Some(self.intake.hand_over());
        }
        if self.storing.is_none() {
            return self.resume();
        }
        if let Err(hindrance) = self.try_to_store() {
            let at = self.hindered(&hindrance);
            match hindrance {
                Hindrance::Store(StoreError::Conflict(_)) => self.unplace(at),
                _ => self.hold(at),
            }
        }
    }

    fn try_to_store(&mut self) -> Result<(), Hindrance> {
        let topic = &self.settings.membership.topic;
        let Some(batch) = &mut self.storing else { return Ok(()) };
        for (&partition, slice) in batch.partitions.iter_mut().filter(|(_, slice)| !slice.missing_offsets.is_empty()) {
            let (low, _) = self.source.watermarks(partition)?;
            slice.judge_missing(low);
            for Gap { first, last, .. } in &slice.gaps {
                log::error!("{topic}[{partition}]: Kafka dropped offsets {first} to {last} before they were read");
            }
        }
        let applied = self.apply_while_reading()?;
        let Some(batch) = self.storing.take() else { return Ok(()) };
        for (partition, slice) in &batch.partitions {
            let Some((_, to)) = applied.stored.get(partition).copied() else { continue };
            if let Some(place) = self.places.get_mut(partition) {
                *place = place.advanced(to, slice.last_before(to));
            }
        }
        self.tell(&batch, &applied);
        self.tell_totals(&applied);
        let next = batch.partitions.keys().filter_map(|p| Some((*p, self.places.get(p)?.next_offset))).collect();
        failpoints::pass("kafka-before-commit");
        if let Err(error) = self.source.commit(&next) {
            log::debug!("Kafka: offsets not committed: {error}");
        }
        failpoints::pass("kafka-after-commit");
        self.resume();
        self.well();
        Ok(())
    }

    /// Lets the store work on a thread of its own, and reads the next batch meanwhile: half of the time is the database's, and
    /// the group must not think us dead while it is slow.
    fn apply_while_reading(&mut self) -> Result<Applied, StoreError> {
        let Self { storing, store, intake, source, heard, clock, assigned, .. } = self;
        let Some(batch) = storing.as_ref() else { return Ok(Applied::default()) };
        let wall = clock.wall();
        let full_until = clock.monotonic() + FULL_MAX;
        let mut paused = false;
        let result = std::thread::scope(|scope| {
            let work = scope.spawn(|| store.apply(batch, wall, &std::sync::atomic::AtomicBool::new(false)));
            while !work.is_finished() {
                let now = clock.monotonic();
                if heard.is_some() || intake.batch.is_full() && now < full_until {
                    std::thread::sleep(FINISHED);
                    continue;
                }
                if intake.batch.is_full() && !paused {
                    paused = source.pause(assigned).is_ok();
                }
                match source.poll(FINISHED) {
                    Polled::Record(partition, record) => intake.take(partition, record, now),
                    Polled::Nothing => {}
                    other => *heard = Some(other),
                }
            }
            work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        if paused && let Err(error) = self.source.resume(&self.assigned) {
            self.kafka_says(&error);
        }
        result
    }

    /// Says what became of the batch.
    fn tell(&mut self, batch: &Batch, applied: &Applied) {
        /// Lines about one batch.
        const LINES_MAX: usize = 3;
        for refused in applied.rejected.iter().take(LINES_MAX) {
            log::warn!("dead letter: {}[{}] at {}: {}", batch.topic, refused.partition, refused.offset, refused.error);
        }
        if applied.rejected.len() > LINES_MAX {
            log::warn!("and {} more", counted((applied.rejected.len() - LINES_MAX) as u64, "dead letter"));
        }
        for identity in applied.identity_conflicts.iter().take(LINES_MAX) {
            log::error!("{identity} came with two times: is a state directory in use twice, or an old copy of one?");
        }
        if applied.identity_conflicts.len() > LINES_MAX {
            log::error!("and {} more", counted((applied.identity_conflicts.len() - LINES_MAX) as u64, "such identity"));
        }
        let refused: HashSet<(i32, i64)> = applied.rejected.iter().map(|r| (r.partition, r.offset)).collect();
        for (&partition, slice) in &batch.partitions {
            let (from, to) = applied.stored.get(&partition).copied().unwrap_or_default();
            for record in slice.records.iter().filter(|record| (from..to).contains(&record.offset)) {
                if let (Ok(event), false) = (&record.content, refused.contains(&(partition, record.offset))) {
                    (self.observer)(&Stored { topic: &batch.topic.name, partition, offset: record.offset, event });
                }
            }
        }
        let (rows, refused) = (applied.inserted, applied.rejected.len() as u64);
        log::debug!("{}: {}, {}", batch.topic, counted(rows, "row"), counted(refused, "dead letter"));
    }
}
