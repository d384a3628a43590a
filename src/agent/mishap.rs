//! Problems of the agent, kept for `status`; the log has them already.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mishap {
    /// `CLOCK_BOOTTIME`.
    pub at_ms: u64,
    pub what: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    pub count: u64,
    pub last: Option<Mishap>,
    pub lasting: Option<Mishap>,
}

impl Mishaps {
    pub fn note(&mut self, at_ms: u64, what: &str) {
        self.count += 1;
        self.last = Some(Mishap { at_ms, what: what.to_owned() });
    }

    /// Counts a problem that lasts until [`Mishaps::over`]; one that lasts already keeps its start.
    pub fn begin(&mut self, at_ms: u64, what: &str) {
        self.note(at_ms, what);
        let since = self.lasting.as_ref().map_or(at_ms, |lasting| lasting.at_ms);
        self.lasting = Some(Mishap { at_ms: since, what: what.to_owned() });
    }

    pub fn over(&mut self) {
        self.lasting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_keeps_its_beginning_and_what_was_last_stays_when_it_is_over() {
        let mut mishaps = Mishaps::default();
        mishaps.begin(10, "disk full");
        mishaps.begin(40, "read-only");
        assert_eq!(mishaps.lasting, Some(Mishap { at_ms: 10, what: "read-only".into() }));
        mishaps.over();
        assert_eq!((mishaps.lasting, mishaps.count), (None, 2));
        assert_eq!(mishaps.last, Some(Mishap { at_ms: 40, what: "read-only".into() }));
    }
}
