//! Keeps a failure that goes on from filling the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::units::{counted, lasting};

#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Vec<Throttled>>);

#[derive(Debug)]
struct Throttled {
    message: String,
    logged_at: Duration,
    unlogged: u32,
}

const SILENCE: Duration = Duration::from_secs(300);
const MESSAGES_MAX: usize = 16;

impl LogThrottle {
    pub fn admit(&self, message: &str, now: Duration) -> Option<String> {
        let message = without_timing(message);
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(throttled) = messages.iter_mut().find(|throttled| throttled.message == message) {
            let silent = now.saturating_sub(throttled.logged_at);
            if silent < SILENCE {
                throttled.unlogged += 1;
                return None;
            }
            let line =
                format!("{message} (and {} before, in {})", counted(throttled.unlogged, "time"), lasting(silent));
            (throttled.logged_at, throttled.unlogged) = (now, 0);
            return Some(line);
        }
        if messages.len() == MESSAGES_MAX {
            messages.remove(0);
        }
        messages.push(Throttled { message: message.clone(), logged_at: now, unlogged: 0 });
        Some(message)
    }

    pub fn clear(&self) -> bool {
        !std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).is_empty()
    }
}

/// Removes the time that librdkafka adds to an error, and that differs from one to the next.
pub fn without_timing(text: &str) -> String {
    let Some((before, rest)) = text.split_once(" (after ") else { return text.to_owned() };
    // "(after 7ms in state CONNECT)", "(after 7ms in state CONNECT, 1 identical error(s) suppressed)"
    let after = rest.split_once("suppressed)").or_else(|| rest.split_once(')')).map_or("", |(_, after)| after);
    format!("{before}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_at_once_and_then_rarely() {
        let (throttle, start) = (LogThrottle::default(), Duration::from_secs(7));
        assert!(throttle.admit("cannot reach Kafka", start).is_some());
        assert!(
            throttle.admit("cannot reach Kafka (after 7ms in state CONNECT)", start + Duration::from_secs(1)).is_none()
        );
        assert!(throttle.admit("no such topic", start + Duration::from_secs(2)).is_some());
        assert!(throttle.admit("no such topic", start + SILENCE * 2).unwrap().contains("in 9 min 58 s"));
        assert!(throttle.clear() && !throttle.clear());
    }
}
