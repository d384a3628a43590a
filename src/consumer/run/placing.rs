//! Where each partition goes on, and whether it still is the one it was.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::{Consumer, Hindrance, State};
use crate::clock::Clock as _;
use crate::consumer::config::Start;
use crate::consumer::place::{Place, Reading, Verdict};
use crate::consumer::store::Fault;

/// How often a topic is looked at: is it still the same?
const ANCHOR_EVERY: Duration = Duration::from_secs(30);
/// How long the looking may take when a partition is placed.
const ANCHOR_MAX: Duration = Duration::from_secs(10);

/// A look at the anchors that is under way.
pub(super) struct Anchors {
    found: Receiver<BTreeMap<i32, Reading>>,
    /// What was last before it: the next anchors.
    before: BTreeMap<i32, Place>,
}

impl Consumer<'_> {
    pub(super) fn place_all(&mut self) {
        match self.try_to_place() {
            Ok(()) => {
                self.state = State::Reading;
                self.well();
                self.due.anchors = self.clock.monotonic() + ANCHOR_EVERY;
            }
            Err(hindrance) => {
                let at = self.hindered(&hindrance);
                self.unplace(at);
            }
        }
    }

    /// Finds where each partition goes on, and reads on from there.
    fn try_to_place(&mut self) -> Result<(), Hindrance> {
        let topic = self.settings.membership.topic.clone();
        let cluster = self.source.cluster();
        let mut stored = self.store.places(&topic)?;
        stored.retain(|partition, _| self.assigned.contains(partition));
        let found = self.look_at_anchors(&stored)?;
        let strangers: Vec<i32> = self.assigned.iter().copied().filter(|p| !stored.contains_key(p)).collect();
        let committed = if strangers.is_empty() { BTreeMap::new() } else { self.source.committed(&strangers)? };
        let mut places = BTreeMap::new();
        for &partition in &self.assigned.clone() {
            self.heart.beat("finding where a partition goes on", self.clock.monotonic());
            let (low, high) = self.source.watermarks(partition)?;
            let place = match stored.get(&partition) {
                Some(old) => {
                    let verdict = old.judge(cluster.as_deref(), found.get(&partition).copied(), low, high);
                    self.go_on(partition, old, cluster.as_deref(), &verdict, low)?
                }
                None => {
                    let committed = committed.get(&partition).copied().filter(|next| *next <= high);
                    self.begin(partition, committed, cluster.as_deref(), low, high)?
                }
            };
            places.insert(partition, place);
        }
        self.source.place(&places.iter().map(|(partition, place)| (*partition, place.next)).collect())?;
        self.intake.read =
            places.iter().map(|(partition, place)| (*partition, (place.generation, place.next))).collect();
        self.places = places;
        Ok(())
    }

    /// A partition that the database knows.
    fn go_on(
        &mut self,
        partition: i32,
        old: &Place,
        cluster: Option<&str>,
        verdict: &Verdict,
        low: i64,
    ) -> Result<Place, Fault> {
        let topic = &self.settings.membership.topic;
        let (new, gap) = match *verdict {
            Verdict::Same => (old.anchored(old.last), None),
            Verdict::Anew(why) => {
                log::error!("{topic}[{partition}] was made anew ({why}): reading it from its start, {low}");
                (old.anew(cluster, low), None)
            }
            Verdict::Gap(first, last) => {
                log::error!("{topic}[{partition}]: Kafka dropped offsets {first} to {last} before they were read");
                (Place { next: last + 1, ..old.clone() }, Some((first, last)))
            }
        };
        let new = Place { cluster: cluster.map(str::to_owned).or(new.cluster), ..new };
        if new != *old {
            self.store.replace(topic, partition, old, &new, gap)?;
        }
        Ok(new)
    }

    /// A partition that the database does not know.
    fn begin(
        &mut self,
        partition: i32,
        committed: Option<i64>,
        cluster: Option<&str>,
        low: i64,
        high: i64,
    ) -> Result<Place, Fault> {
        let topic = &self.settings.membership.topic;
        let next = committed.unwrap_or(match self.settings.start {
            Start::Earliest => low,
            Start::Latest => high,
        });
        if next > low && committed.is_some() {
            log::warn!(
                "{topic}[{partition}]: the database does not know it, so it goes on at {next}, where Kafka has the group \
                 {}; what came before is not stored (another kafka.group begins as kafka.start says)",
                self.settings.membership.group
            );
        }
        let first = Place { next, cluster: cluster.map(str::to_owned), ..Place::default() };
        let place = self.store.found(topic, partition, &first)?;
        if place.next >= low || place != first {
            return Ok(place);
        }
        self.go_on(partition, &place, cluster, &Verdict::Gap(place.next, low - 1), low)
    }

    fn look_at_anchors(&mut self, places: &BTreeMap<i32, Place>) -> Result<BTreeMap<i32, Reading>, Hindrance> {
        let wanted = anchors(places);
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = self.source.read_again(&wanted)?;
        found.recv_timeout(ANCHOR_MAX).map_err(|_| Hindrance::Kafka("old records cannot be read again yet".to_owned()))
    }

    /// A topic that was made anew under our eyes brings neither an error nor a rebalance: old records tell.
    pub(super) fn mind_anchors(&mut self, now: Duration) {
        if let Some(Anchors { found, before }) = &self.anchors {
            match found.try_recv() {
                Ok(found) => {
                    let before = before.clone();
                    self.anchors = None;
                    self.judge_anchors(&found, &before);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.anchors = None,
            }
        } else if now >= self.due.anchors {
            self.due.anchors = now + ANCHOR_EVERY;
            let wanted = anchors(&self.places);
            if wanted.is_empty() {
                return;
            }
            match self.source.read_again(&wanted) {
                Ok(found) => self.anchors = Some(Anchors { found, before: self.places.clone() }),
                Err(error) => self.kafka_says(&error),
            }
        }
    }

    fn judge_anchors(&mut self, found: &BTreeMap<i32, Reading>, before: &BTreeMap<i32, Place>) {
        let topic = &self.settings.membership.topic;
        for (&partition, &reading) in found {
            let (Some(place), Some(before)) = (self.places.get(&partition).cloned(), before.get(&partition)) else {
                continue;
            };
            let watermarks = match reading {
                Reading::Gone => self.source.watermarks(partition).ok(),
                Reading::Record(_) => Some((0, i64::MAX)),
            };
            let Some((low, high)) = watermarks else { continue };
            if let Verdict::Anew(why) = place.judge(None, Some(reading), low, high) {
                log::info!("{topic}[{partition}]: {why}; looking again");
                return self.unplace(Duration::ZERO);
            }
            let new = place.anchored(before.last);
            if new != place {
                if let Err(fault) = self.store.replace(topic, partition, &place, &new, None) {
                    let at = self.hindered(&fault.clone().into());
                    return match fault {
                        Fault::Moved(_) => self.unplace(at),
                        _ => self.hold(at),
                    };
                }
                self.places.insert(partition, new);
            }
        }
    }
}

/// Where each anchor stands.
fn anchors(places: &BTreeMap<i32, Place>) -> BTreeMap<i32, i64> {
    places.iter().filter_map(|(partition, place)| Some((*partition, place.anchor?.offset))).collect()
}
