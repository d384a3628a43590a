use crate::message::Body;
use crate::units::counted;

pub(crate) struct BreachCounts<'a> {
    interface: &'a str,
    raise_at: String,
    raised: u64,
    open: u64,
}

impl<'a> BreachCounts<'a> {
    pub(crate) fn new(interface: &'a str, raise_at: String) -> Self {
        Self { interface, raise_at, raised: 0, open: 0 }
    }

    pub(crate) fn count(&mut self, body: &Body) {
        match body {
            Body::BreachRaised(_) => (self.raised, self.open) = (self.raised + 1, self.open + 1),
            Body::BreachCleared(_) => self.open = self.open.saturating_sub(1),
            _ => {}
        }
    }

    pub(crate) fn line(&self) -> String {
        let Self { interface, raise_at, raised, open } = self;
        match (raised, open) {
            (0, _) => format!("{interface} stayed below {raise_at}: no breach; lower --limit, or generate traffic"),
            (_, 0) => format!("{interface} exceeded {raise_at}: {}", counted(*raised, "breach")),
            _ => format!("{interface} exceeded {raise_at}: {}, {open} of them still open", counted(*raised, "breach")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_did_is_said() {
        let line = |raised, open| BreachCounts { raised, open, ..BreachCounts::new("lo", "8.0 Mbit/s".into()) }.line();
        assert!(line(0, 0).starts_with("lo stayed below 8.0 Mbit/s: no breach"));
        assert_eq!(line(1, 0), "lo exceeded 8.0 Mbit/s: 1 breach");
        assert_eq!(line(3, 1), "lo exceeded 8.0 Mbit/s: 3 breaches, 1 of them still open");
    }
}
