//! Problems of the agent, kept for `status`; the log has them already.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `CLOCK_BOOTTIME`.
    pub at_ms: u64,
    pub what: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProblemLog {
    pub count: u64,
    pub last: Option<Problem>,
    pub ongoing: Option<Problem>,
}

impl ProblemLog {
    pub fn note(&mut self, at_ms: u64, what: &str) {
        self.count += 1;
        self.last = Some(Problem { at_ms, what: what.to_owned() });
    }

    /// Counts a problem that lasts until [`ProblemLog::resolve`]; one that lasts already keeps its start.
    pub fn start(&mut self, at_ms: u64, what: &str) {
        self.note(at_ms, what);
        let since = self.ongoing.as_ref().map_or(at_ms, |ongoing| ongoing.at_ms);
        self.ongoing = Some(Problem { at_ms: since, what: what.to_owned() });
    }

    pub fn resolve(&mut self) {
        self.ongoing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_keeps_its_beginning_and_what_was_last_stays_when_it_is_over() {
        let mut problems = ProblemLog::default();
        problems.start(10, "disk full");
        problems.start(40, "read-only");
        assert_eq!(problems.ongoing, Some(Problem { at_ms: 10, what: "read-only".into() }));
        problems.resolve();
        assert_eq!((problems.ongoing, problems.count), (None, 2));
        assert_eq!(problems.last, Some(Problem { at_ms: 40, what: "read-only".into() }));
    }
}
