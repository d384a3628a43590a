//! What went wrong, remembered for whoever asks how the agent is; the log has said it already.

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mishap {
    /// When: `CLOCK_BOOTTIME` in milliseconds, which no change of the wall clock moves.
    pub at_ms: u64,
    /// What, in words.
    pub what: String,
}

/// What went wrong in one part of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// How often.
    pub count: u64,
    /// The last time.
    pub last: Option<Mishap>,
    /// What lasts, since it began.
    pub lasting: Option<Mishap>,
}

impl Mishaps {
    /// It went wrong, once.
    pub fn note(&mut self, at_ms: u64, what: &str) {
        self.count += 1;
        self.last = Some(Mishap { at_ms, what: what.to_owned() });
    }

    /// It went wrong, and lasts until [`Mishaps::over`]; what lasts already keeps its beginning.
    pub fn begin(&mut self, at_ms: u64, what: &str) {
        self.note(at_ms, what);
        let since = self.lasting.as_ref().map_or(at_ms, |lasting| lasting.at_ms);
        self.lasting = Some(Mishap { at_ms: since, what: what.to_owned() });
    }

    /// Nothing lasts any more.
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
