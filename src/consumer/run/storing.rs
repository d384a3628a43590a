//! Stores a batch while the next one is read.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Consumer, Hindrance, StoredEvent};
use crate::clock::Clock as _;
use crate::consumer::batch::{Batch, Gap, GapCause, PartitionBatch};
use crate::consumer::source::Source;
use crate::consumer::store::{Applied, StoreError};
use crate::failpoints;
use crate::units::counted;

impl Consumer<'_> {
    pub(super) fn store_batch(&mut self) {
        if self.storing.is_none() && !self.intake.batch.is_empty() {
            self.storing = Some(Arc::new(self.intake.hand_over()));
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
        let Some(batch) = &mut self.storing else { return Ok(()) };
        // The store has no reference before the first try, and only then are there missing offsets to judge.
        if let Some(batch) = Arc::get_mut(batch) {
            judge_missing(batch, &self.source)?;
        }
        let (batch, wall) = (Arc::clone(batch), self.clock.wall());
        let applied = self.ask_store({
            let batch = Arc::clone(&batch);
            move |store| store.apply(&batch, wall)
        })?;
        self.storing = None;
        for (partition, part) in &batch.partitions {
            let Some((_, to)) = applied.stored.get(partition).copied() else { continue };
            if let Some(place) = self.places.get_mut(partition) {
                *place = place.advanced(to, part.last_before(to));
            }
        }
        self.tell(&batch, &applied);
        self.log_totals(&applied);
        let next = batch.partitions.keys().filter_map(|p| Some((*p, self.places.get(p)?.next_offset))).collect();
        failpoints::pass("kafka-before-commit");
        if let Err(error) = self.source.commit(&next) {
            log::debug!("Kafka: offsets not committed: {error}");
        }
        failpoints::pass("kafka-after-commit");
        let is_whole = |(partition, part): (&i32, &PartitionBatch)| {
            applied.stored.get(partition).is_some_and(|(_, to)| *to >= part.to)
        };
        if !batch.partitions.iter().all(is_whole) {
            return Err(StoreError::Conflict("a batch was stored in part, before the end".to_owned()).into());
        }
        self.resume();
        self.well();
        Ok(())
    }

    fn tell(&mut self, batch: &Batch, applied: &Applied) {
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
                    (self.observer)(&StoredEvent { topic: &batch.topic.name, partition, offset: record.offset, event });
                }
            }
        }
        let (rows, letters) = (applied.inserted, applied.rejected.len() as u64);
        self.told.rows += rows;
        self.told.dead_letters += letters;
        self.told.gaps += batch.partitions.values().map(|part| part.gaps.len() as u64).sum::<u64>();
        log::debug!("{}: {}, {}", batch.topic, counted(rows, "row"), counted(letters, "dead letter"));
    }
}

fn judge_missing(batch: &mut Batch, source: &Source) -> Result<(), String> {
    let Batch { topic, partitions, .. } = batch;
    for (&partition, part) in partitions.iter_mut().filter(|(_, part)| !part.missing_offsets.is_empty()) {
        let (low, _) = source.watermarks(partition)?;
        part.judge_missing(low);
        for Gap { first, last, .. } in part.gaps.iter().filter(|gap| gap.cause == GapCause::Expired) {
            log::error!("{topic}[{partition}]: Kafka dropped offsets {first} to {last} before they were read");
        }
    }
    Ok(())
}
