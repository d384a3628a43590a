//! Where a partition is read from, and whether it is still the partition we knew.

use super::batch::Mark;

/// What the database remembers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The first offset that is not stored.
    pub next: i64,
    /// How often the topic was made anew.
    pub generation: i32,
    /// The cluster that it is in, where the cluster says.
    pub cluster: Option<String>,
    /// The last record stored.
    pub last: Option<Mark>,
    /// An older one, read again now and then: in a topic made anew something else stands there.
    pub anchor: Option<Mark>,
}

/// What was found at an anchor's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A record.
    Record(Mark),
    /// No record any more.
    Gone,
}

/// What a look at the partition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on at `next`.
    Same,
    /// Another topic has its name: read from the start.
    Anew(&'static str),
    /// Kafka has dropped what comes next: first to last.
    Gap(i64, i64),
}

impl Place {
    /// Whether this still is the partition that was stored from. `low` and `high` are its watermarks, `anchor` what was found
    /// where the anchor stood, `None` without an anchor.
    pub fn judge(&self, cluster: Option<&str>, anchor: Option<Reading>, low: i64, high: i64) -> Verdict {
        if let (Some(then), Some(now)) = (self.cluster.as_deref(), cluster)
            && then != now
        {
            return Verdict::Anew("it is in another cluster");
        }
        if self.next > high {
            return Verdict::Anew("it ends before the last stored record");
        }
        if let (Some(then), Some(Reading::Record(now))) = (self.anchor, anchor)
            && then != now
        {
            return Verdict::Anew("an old record has changed");
        }
        if low > self.next { Verdict::Gap(self.next, low - 1) } else { Verdict::Same }
    }

    /// The same place in a topic made anew.
    pub fn anew(&self, cluster: Option<&str>, low: i64) -> Self {
        Self {
            next: low,
            generation: self.generation + 1,
            cluster: cluster.map(str::to_owned),
            last: None,
            anchor: None,
        }
    }

    /// The anchor was looked at: the record that was last `before` the look takes its place.
    pub fn anchored(&self, before: Option<Mark>) -> Self {
        Self { anchor: before.or(self.anchor), ..self.clone() }
    }

    /// `next` and the last record, after a slice was stored.
    pub fn advanced(&self, next: i64, last: Option<Mark>) -> Self {
        let last = last.or(self.last);
        Self { next: next.max(self.next), last, anchor: self.anchor.or(last), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: i64, digest: i64) -> Mark {
        Mark { offset, timestamp_ms: 1, digest }
    }

    #[test]
    fn a_topic_made_anew_is_known_by_its_cluster_its_end_or_its_anchor() {
        let place = Place { next: 100, cluster: Some("a".into()), anchor: Some(mark(50, 1)), ..Place::default() };
        let same = Some(Reading::Record(mark(50, 1)));
        assert_eq!(place.judge(Some("a"), same, 0, 100), Verdict::Same);
        assert_eq!(place.judge(None, same, 0, 100), Verdict::Same);
        assert_eq!(place.judge(Some("a"), Some(Reading::Gone), 60, 100), Verdict::Same);
        assert_eq!(place.judge(Some("a"), Some(Reading::Gone), 120, 150), Verdict::Gap(100, 119));
        assert!(matches!(place.judge(Some("b"), same, 0, 100), Verdict::Anew(_)));
        assert!(matches!(place.judge(Some("a"), same, 0, 99), Verdict::Anew(_)));
        assert!(matches!(place.judge(Some("a"), Some(Reading::Record(mark(50, 2))), 0, 100), Verdict::Anew(_)));
    }

    #[test]
    fn the_first_last_record_is_the_first_anchor() {
        let place = Place::default().advanced(10, Some(mark(9, 1)));
        assert_eq!((place.next, place.last, place.anchor), (10, Some(mark(9, 1)), Some(mark(9, 1))));
        let later = place.advanced(20, Some(mark(19, 2)));
        assert_eq!((later.last, later.anchor), (Some(mark(19, 2)), Some(mark(9, 1))));
        assert_eq!(later.anchored(Some(mark(19, 2))).anchor, Some(mark(19, 2)));
        assert_eq!(later.advanced(25, None).last, Some(mark(19, 2)));
    }
}
