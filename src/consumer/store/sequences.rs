use chrono::{DateTime, Utc};

use super::tables::Table;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SequenceRange {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) counted: Table,
    pub(super) first_stored_at: Option<DateTime<Utc>>,
    pub(super) identity_conflicts: i64,
}

/// Returns the ranges that replace `known`, which are those that `seen` touches.
pub(super) fn merged(known: &[SequenceRange], seen: &[SequenceRange]) -> Vec<SequenceRange> {
    let mut all: Vec<SequenceRange> = known.iter().chain(seen).cloned().collect();
    all.sort_by_key(|range| (range.first, range.last));
    let mut merged: Vec<SequenceRange> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(before) if range.first - 1 <= before.last => {
                before.last = before.last.max(range.last);
                before.first_stored_at = [before.first_stored_at, range.first_stored_at].into_iter().flatten().min();
                before.identity_conflicts += range.identity_conflicts;
            }
            _ => merged.push(range),
        }
    }
    merged
}

pub(super) fn contain(known: &[SequenceRange], number: i64) -> bool {
    known.iter().any(|range| (range.first..=range.last).contains(&number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(first: i64, last: i64) -> SequenceRange {
        SequenceRange { first, last, counted: Table::Events, first_stored_at: None, identity_conflicts: 0 }
    }

    proptest! {
        #[test]
        fn merging_keeps_every_number_and_nothing_touches(
            batches in proptest::collection::vec(proptest::collection::vec((1..60_i64, 0..6_i64), 1..5), 1..8)
        ) {
            let (mut known, mut model) = (Vec::new(), BTreeSet::new());
            for batch in batches {
                let seen: Vec<SequenceRange> = batch.iter().map(|(first, more)| range(*first, first + more)).collect();
                model.extend(seen.iter().flat_map(|range| range.first..=range.last));
                known = merged(&known, &seen);
            }
            let numbers: Vec<i64> = known.iter().flat_map(|range| range.first..=range.last).collect();
            prop_assert_eq!(numbers, model.into_iter().collect::<Vec<_>>());
            prop_assert!(known.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
        }
    }

    #[test]
    fn a_merged_range_began_with_its_oldest_part_and_keeps_the_count_of_conflicts() {
        let at = |s| DateTime::from_timestamp(s, 0);
        let known = [
            SequenceRange { first_stored_at: at(5), identity_conflicts: 1, ..range(1, 3) },
            SequenceRange { first_stored_at: at(2), identity_conflicts: 2, ..range(5, 9) },
        ];
        assert_eq!(
            merged(&known, &[range(4, 4)]),
            [SequenceRange {
                first: 1,
                last: 9,
                counted: Table::Events,
                first_stored_at: at(2),
                identity_conflicts: 3
            }]
        );
        assert_eq!(merged(&[], &[range(i64::MAX, i64::MAX)]), [range(i64::MAX, i64::MAX)]);
        assert!(contain(&known, 9) && !contain(&known, 4));
    }
}
