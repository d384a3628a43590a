//! Where a partition is read from, and whether it is still the partition we knew.

use super::batch::{Fingerprint, Gap, GapCause};

/// What the database remembers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The first offset that is not stored.
    pub next_offset: i64,
    /// How often the topic was made anew.
    pub generation: i32,
    /// The last record stored.
    pub last: Option<Fingerprint>,
    /// An older one, read again now and then: in a topic made anew something else stands there.
    pub anchor: Option<Fingerprint>,
}

/// What was found at an anchor's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorRecord {
    /// A record.
    Record(Fingerprint),
    /// No record any more.
    Gone,
}

/// What a look at the partition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on at `next`.
    Same,
    /// Another topic has its name: read from the start.
    Recreated(&'static str),
    /// Kafka has dropped what comes next.
    Gap(Gap),
}

impl Checkpoint {
    /// Whether this still is the partition that was stored from. `low` and `high` are its watermarks, `anchor` what was found
    /// where the anchor stood, `None` without an anchor.
    pub fn verify(&self, anchor: Option<AnchorRecord>, low: i64, high: i64) -> Verdict {
        if self.next_offset > high {
            return Verdict::Recreated("it ends before the last stored record");
        }
        if let (Some(then), Some(AnchorRecord::Record(now))) = (self.anchor, anchor)
            && then != now
        {
            return Verdict::Recreated("an old record has changed");
        }
        if low > self.next_offset {
            return Verdict::Gap(Gap { first: self.next_offset, last: low - 1, cause: GapCause::Expired });
        }
        Verdict::Same
    }

    /// Where a topic made anew begins.
    pub fn recreated(&self, low: i64) -> Self {
        Self { next_offset: low, generation: self.generation + 1, last: None, anchor: None }
    }

    /// The anchor was looked at: the record that was last `before` the look takes its place.
    pub fn anchored(&self, before: Option<Fingerprint>) -> Self {
        Self { anchor: before.or(self.anchor), ..self.clone() }
    }

    /// `next` and the last record, after a slice was stored.
    pub fn advanced(&self, next: i64, last: Option<Fingerprint>) -> Self {
        let last = last.or(self.last);
        Self { next_offset: next.max(self.next_offset), last, anchor: self.anchor.or(last), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(offset: i64, digest: i64) -> Fingerprint {
        Fingerprint { offset, timestamp_ms: 1, digest }
    }

    #[test]
    fn a_topic_made_anew_is_known_by_its_end_or_its_anchor() {
        let place = Checkpoint { next_offset: 100, anchor: Some(print(50, 1)), ..Checkpoint::default() };
        let same = Some(AnchorRecord::Record(print(50, 1)));
        assert_eq!(place.verify(same, 0, 100), Verdict::Same);
        assert_eq!(place.verify(Some(AnchorRecord::Gone), 60, 100), Verdict::Same);
        assert_eq!(
            place.verify(Some(AnchorRecord::Gone), 120, 150),
            Verdict::Gap(Gap { first: 100, last: 119, cause: GapCause::Expired })
        );
        assert!(matches!(place.verify(same, 0, 99), Verdict::Recreated(_)));
        assert!(matches!(place.verify(Some(AnchorRecord::Record(print(50, 2))), 0, 100), Verdict::Recreated(_)));
    }

    #[test]
    fn the_first_last_record_is_the_first_anchor() {
        let place = Checkpoint::default().advanced(10, Some(print(9, 1)));
        assert_eq!((place.next_offset, place.last, place.anchor), (10, Some(print(9, 1)), Some(print(9, 1))));
        let later = place.advanced(20, Some(print(19, 2)));
        assert_eq!((later.last, later.anchor), (Some(print(19, 2)), Some(print(9, 1))));
        assert_eq!(later.anchored(Some(print(19, 2))).anchor, Some(print(19, 2)));
        assert_eq!(later.advanced(25, None).last, Some(print(19, 2)));
    }
}
