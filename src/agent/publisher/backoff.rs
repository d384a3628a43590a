use std::time::Duration;

use super::spread::Spread;

/// Pause before the next session, which doubles from attempt to attempt and starts over after a delivery.
pub(super) struct SessionBackoff {
    attempts: u32,
    spread: Spread,
}

impl SessionBackoff {
    pub(super) fn new(spread: Spread) -> Self {
        Self { attempts: 0, spread }
    }

    pub(super) fn next(&mut self, first_s: u64, longest_s: u64) -> Duration {
        let seconds = (first_s << self.attempts.min(16)).min(longest_s);
        self.attempts += 1;
        self.spread.shorten(Duration::from_secs(seconds))
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_doubles_up_to_its_longest() {
        let mut backoff = SessionBackoff::new(Spread::default());
        let seconds: Vec<f64> = (0..8).map(|_| backoff.next(5, 300).as_secs_f64()).collect();
        assert_eq!(seconds, [2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 150.0, 150.0]);
        backoff.reset();
        assert!(backoff.next(5, 300) < Duration::from_secs(5));
    }
}
