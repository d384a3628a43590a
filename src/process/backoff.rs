use std::time::Duration;

/// Exponential backoff. [`Self::pause`] is shortened by up to a quarter at random, so that consumers do not retry at the same time.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

const FIRST: Duration = Duration::from_secs(1);
const FIRST_SLOW: Duration = Duration::from_secs(5);
const MAX: Duration = Duration::from_secs(60);

impl Backoff {
    pub fn pause(&mut self) -> Duration {
        jittered(self.next(FIRST, MAX))
    }

    pub fn slow_pause(&mut self) -> Duration {
        jittered(self.next(FIRST_SLOW, MAX))
    }

    pub fn next(&mut self, first: Duration, longest: Duration) -> Duration {
        let whole = (first * 2_u32.saturating_pow(self.tries.min(10))).min(longest);
        self.tries += 1;
        whole
    }

    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

fn jittered(whole: Duration) -> Duration {
    whole.mul_f64(0.75 + 0.25 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_again() {
        let mut backoff = Backoff::default();
        for whole in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = backoff.pause().as_secs_f64();
            assert!((0.75 * f64::from(whole)..=f64::from(whole)).contains(&wait), "{wait} of {whole}");
        }
        backoff.reset();
        let (first, longest) = (Duration::from_secs(5), Duration::from_secs(300));
        let waits: Vec<u64> = (0..8).map(|_| backoff.next(first, longest).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_secs(1));
        for whole in [10, 20, 40, 60] {
            let wait = backoff.slow_pause().as_secs_f64();
            assert!((0.75 * f64::from(whole)..=f64::from(whole)).contains(&wait), "{wait} of {whole}");
        }
    }
}
