//! Offset from which a partition is read, with records that prove that it is still the same partition.

use super::batch::{Fingerprint, Gap, GapCause};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub next_offset: i64,
    pub generation: i32,
    pub last: Option<Fingerprint>,
    /// An older record. Both are read again now and then: in a recreated topic these offsets hold other records.
    pub anchor: Option<Fingerprint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorRecord {
    Record(Fingerprint),
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointVerdict {
    Same,
    /// Another topic has its name: read from the start.
    Recreated(&'static str),
    Gap(Gap),
}

impl Checkpoint {
    pub fn known(&self) -> impl Iterator<Item = Fingerprint> {
        let older = self.anchor.filter(|anchor| self.last.is_none_or(|last| last.offset != anchor.offset));
        self.last.into_iter().chain(older)
    }

    /// Decides whether this is still the partition whose records were stored. `found` is what the [known](Self::known) offsets hold now;
    /// the watermarks `low` and `high` were requested after it. A record that differs proves another topic, one that is the same proves
    /// this one; a hole proves nothing (transaction marker, retention, compaction). If no known record is left, though retention has not
    /// reached them all, the topic counts as recreated: if it was compaction after all, reading from the start does no harm (guard 2).
    pub fn verify(&self, found: &[AnchorRecord], low: i64, high: i64) -> CheckpointVerdict {
        if self.next_offset > high {
            return CheckpointVerdict::Recreated("it ends before the last stored record");
        }
        let (mut is_same, mut is_gone) = (false, false);
        for (then, now) in self.known().zip(found) {
            match now {
                AnchorRecord::Record(now) if *now == then => is_same = true,
                AnchorRecord::Record(_) => return CheckpointVerdict::Recreated("an old record has changed"),
                AnchorRecord::Gone => is_gone |= then.offset >= low,
            }
        }
        if is_gone && !is_same {
            return CheckpointVerdict::Recreated("the records that were read last are gone, and not by retention");
        }
        if low > self.next_offset {
            return CheckpointVerdict::Gap(Gap { first: self.next_offset, last: low - 1, cause: GapCause::Expired });
        }
        CheckpointVerdict::Same
    }

    pub fn recreated(&self, low: i64) -> Self {
        Self { next_offset: low, generation: self.generation + 1, last: None, anchor: None }
    }

    /// Moves the anchor to `before`, the record that was last when the known records were read again, once a newer one is stored.
    pub fn anchored(&self, before: Option<Fingerprint>) -> Self {
        let older = before.filter(|before| self.last.is_some_and(|last| before.offset < last.offset));
        Self { anchor: older.or(self.anchor), ..self.clone() }
    }

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
    fn a_recreated_topic_is_known_by_its_end_and_by_both_records() {
        use AnchorRecord::{Gone, Record};
        let (last, anchor) = (print(90, 9), print(50, 5));
        let checkpoint =
            Checkpoint { next_offset: 100, last: Some(last), anchor: Some(anchor), ..Checkpoint::default() };
        assert_eq!(checkpoint.known().collect::<Vec<_>>(), [last, anchor]);
        let other = |print: Fingerprint| Record(Fingerprint { digest: 77, ..print });
        let recreated = |found: &[AnchorRecord], low, high| {
            matches!(checkpoint.verify(found, low, high), CheckpointVerdict::Recreated(_))
        };
        for found in [&[Record(last)][..], &[Gone, Record(anchor)]] {
            assert_eq!(checkpoint.verify(found, 0, 100), CheckpointVerdict::Same, "{found:?}");
            assert!(recreated(found, 0, 99), "it is shorter");
        }
        assert!(recreated(&[other(last)], 0, 200) && recreated(&[Gone, other(anchor)], 0, 200));
        assert!(recreated(&[other(last), Record(anchor)], 0, 200), "its end was cut off and written again");
        // Holes at both: a transaction marker each in a recreated topic, or compaction.
        assert!(
            recreated(&[Gone, Gone], 0, 200) && recreated(&[Gone, Gone], 60, 200) && recreated(&[Gone, Gone], 90, 200)
        );
        // Retention took both: they prove nothing.
        assert_eq!(checkpoint.verify(&[Gone, Gone], 91, 200), CheckpointVerdict::Same);
        let gap = Gap { first: 100, last: 119, cause: GapCause::Expired };
        assert_eq!(checkpoint.verify(&[Gone, Gone], 120, 150), CheckpointVerdict::Gap(gap));
        assert_eq!(checkpoint.verify(&[], 0, 100), CheckpointVerdict::Same);
        assert_eq!(Checkpoint { last: None, anchor: None, ..checkpoint }.verify(&[], 0, 100), CheckpointVerdict::Same);
    }

    #[test]
    fn one_record_is_asked_for_once() {
        let checkpoint = Checkpoint { last: Some(print(9, 1)), anchor: Some(print(9, 1)), ..Checkpoint::default() };
        assert_eq!(checkpoint.known().count(), 1);
        assert!(matches!(checkpoint.verify(&[AnchorRecord::Gone], 0, 100), CheckpointVerdict::Recreated(_)));
    }

    proptest::proptest! {
        /// In the new topic, whatever is in it, all below `next_offset` is read, unless retention has taken all that was known.
        #[test]
        fn no_record_of_a_recreated_topic_is_lost(
            holes in proptest::array::uniform2(proptest::bool::ANY), low in 0..=90_i64, more in 0..50_i64
        ) {
            let checkpoint = Checkpoint {
                next_offset: 100,
                last: Some(print(90, 9)),
                anchor: Some(print(50, 5)),
                ..Checkpoint::default()
            };
            let found: Vec<_> = checkpoint.known().zip(holes).map(|(print, hole)| match hole {
                true => AnchorRecord::Gone,
                false => AnchorRecord::Record(Fingerprint { digest: 77, ..print }),
            }).collect();
            proptest::prop_assert!(matches!(checkpoint.verify(&found, low, 100 + more), CheckpointVerdict::Recreated(_)));
        }
    }

    #[test]
    fn the_anchor_follows_the_last_record_at_a_distance() {
        let checkpoint = Checkpoint::default().advanced(10, Some(print(9, 1)));
        assert_eq!(
            (checkpoint.next_offset, checkpoint.last, checkpoint.anchor),
            (10, Some(print(9, 1)), Some(print(9, 1)))
        );
        let later = checkpoint.advanced(20, Some(print(19, 2)));
        assert_eq!((later.last, later.anchor), (Some(print(19, 2)), Some(print(9, 1))));
        assert_eq!(later.anchored(Some(print(19, 2))), later, "nothing came since: they stay two");
        let latest = later.advanced(30, Some(print(29, 3)));
        assert_eq!(latest.anchored(Some(print(19, 2))).anchor, Some(print(19, 2)));
        assert_eq!(later.advanced(25, None).last, Some(print(19, 2)));
    }
}
