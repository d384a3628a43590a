//! Sends events one at a time after a refusal, to find out if the event or the topic is at fault.
//!
//! A topic can refuse every event: `max.message.bytes` is too small, or the broker validates by a rule that fits none. A refused
//! event is therefore held, and those behind it are tried, one after the other and around again. An event is at fault if the topic
//! accepted another one between two refusals of it. If the topic accepts none, all of them wait, and are tried again later.
//!
//! Two kinds of events are never at fault, and wait for as long as it takes: one refused for its size although smaller than any
//! topic should allow, and the declaration of a loss, whose own loss would have to be declared in turn.

use std::collections::BTreeMap;

use crate::agent::publisher::in_flight::InFlight;

/// Size below which a refusal for size is the topic's fault.
const SIZE_MIN: usize = 64 << 10;
/// Refusals in a row after which the rest is not tried for now.
const REFUSALS_MAX: usize = 16;
/// Accepted events in a row after which batches are sent again, while none is held.
const ACCEPTED_ENOUGH: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Trial {
    last: Option<usize>,
    /// Refused events, each with the number of others accepted before its last refusal.
    held: BTreeMap<usize, u64>,
    accepted: u64,
    accepted_in_a_row: usize,
    refused_in_a_row: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) serial: usize,
    pub(super) bytes: usize,
    pub(super) for_its_size: bool,
    pub(super) is_loss: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrialVerdict {
    Held,
    AtFault,
}

impl Trial {
    /// Returns the event to try next; `None` if the topic refuses all, until [`Trial::begin_round`].
    pub(super) fn next<T>(&self, unacked: &InFlight<T>) -> Option<usize> {
        if self.refused_in_a_row >= unacked.len().min(REFUSALS_MAX) {
            return None;
        }
        let after = self.last.map_or(0, |last| last + 1);
        unacked.since(after).chain(unacked.since(0)).map(|(serial, _)| serial).next()
    }

    pub(super) fn accept(&mut self, serial: usize) {
        self.last = Some(serial);
        self.held.remove(&serial);
        self.accepted += 1;
        self.accepted_in_a_row += 1;
        self.refused_in_a_row = 0;
    }

    pub(super) fn refuse(&mut self, refused: Refused) -> TrialVerdict {
        let Refused { serial, bytes, for_its_size, is_loss } = refused;
        self.last = Some(serial);
        self.accepted_in_a_row = 0;
        let is_too_small = for_its_size && bytes < SIZE_MIN;
        let can_be_at_fault = !is_loss && !is_too_small;
        let refused_before = self.held.insert(serial, self.accepted);
        if can_be_at_fault && refused_before.is_some_and(|accepted_then| self.accepted > accepted_then) {
            self.held.remove(&serial);
            return TrialVerdict::AtFault;
        }
        self.refused_in_a_row += 1;
        TrialVerdict::Held
    }

    pub(super) fn begin_round(&mut self) {
        self.refused_in_a_row = 0;
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_over<T>(&self, unacked: &InFlight<T>) -> bool {
        self.held.is_empty() && (unacked.is_empty() || self.accepted_in_a_row >= ACCEPTED_ENOUGH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Topic {
        trial: Trial,
        unacked: InFlight<()>,
        delivered: Vec<usize>,
        given_up: Vec<usize>,
        attempts: usize,
    }

    impl Topic {
        fn new(events: usize) -> Self {
            let mut unacked = InFlight::from(0);
            for _ in 0..events {
                unacked.push(());
            }
            let (trial, delivered, given_up) = Default::default();
            Self { trial, unacked, delivered, given_up, attempts: 0 }
        }

        fn round(&mut self, refused: impl Fn(usize) -> Option<Refused>) {
            self.trial.begin_round();
            while let Some(serial) = self.trial.next(&self.unacked) {
                self.attempts += 1;
                assert!(self.attempts < 10_000, "it ends");
                match refused(serial).map(|refused| self.trial.refuse(refused)) {
                    None => {
                        self.trial.accept(serial);
                        self.unacked.take(serial);
                        self.delivered.push(serial);
                    }
                    Some(TrialVerdict::AtFault) => {
                        self.unacked.take(serial);
                        self.given_up.push(serial);
                    }
                    Some(TrialVerdict::Held) => {}
                }
            }
        }
    }

    fn invalid(serial: usize) -> Refused {
        Refused { serial, bytes: 500, for_its_size: false, is_loss: false }
    }

    #[test]
    fn a_topic_that_refuses_all_gives_up_none_and_gets_all_in_order_once_it_takes_them() {
        let mut topic = Topic::new(100);
        for round in 1..=5 {
            topic.round(|serial| Some(invalid(serial)));
            assert_eq!((topic.given_up.len(), topic.unacked.len(), topic.attempts), (0, 100, round * REFUSALS_MAX));
        }
        topic.trial = Trial::default();
        topic.round(|_| None);
        assert_eq!(topic.delivered, (0..100).collect::<Vec<_>>());
        // Repaired between two attempts: a refused event is tried again before it is judged.
        let mut topic = Topic::new(10);
        topic.round(|serial| Some(invalid(serial)));
        topic.round(|_| None);
        assert_eq!((topic.delivered.len(), topic.given_up.len()), (10, 0));
    }

    #[test]
    fn an_event_at_fault_is_given_up_only_after_another_was_accepted() {
        let poison = |serial: usize| (serial == 0).then(|| invalid(serial));
        let mut topic = Topic::new(1);
        topic.round(poison);
        assert_eq!(topic.given_up.len(), 0, "it is alone: nobody knows whose fault it is");
        topic.unacked.push(());
        topic.round(poison);
        assert_eq!(
            (&*topic.given_up, &*topic.delivered, topic.trial.is_over(&topic.unacked)),
            (&[0][..], &[1][..], true)
        );
    }

    #[test]
    fn a_small_event_is_never_too_large_and_a_loss_is_never_lost() {
        for kept in [
            Refused { for_its_size: true, ..invalid(0) },
            Refused { for_its_size: true, bytes: SIZE_MIN - 1, ..invalid(0) },
            Refused { is_loss: true, ..invalid(0) },
            Refused { is_loss: true, for_its_size: true, bytes: SIZE_MIN, ..invalid(0) },
        ] {
            let mut topic = Topic::new(5);
            for _ in 0..3 {
                topic.round(|serial| (serial == 0).then_some(kept));
            }
            assert_eq!((topic.given_up.len(), &*topic.delivered), (0, &[1, 2, 3, 4][..]), "{kept:?}");
            topic.round(|_| None);
            assert!(topic.unacked.is_empty() && topic.trial.is_over(&topic.unacked));
        }
        let large = Refused { for_its_size: true, bytes: SIZE_MIN, ..invalid(0) };
        let mut topic = Topic::new(2);
        topic.round(|serial| (serial == 0).then_some(large));
        assert_eq!(topic.given_up, [0]);
    }

    #[test]
    fn what_comes_later_is_tried_although_others_wait() {
        let mut topic = Topic::new(3);
        topic.round(|serial| Some(invalid(serial)));
        topic.unacked.push(());
        assert_eq!(topic.trial.next(&topic.unacked), Some(3));
    }
}
