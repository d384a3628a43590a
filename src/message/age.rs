//! The age of an event by `CLOCK_BOOTTIME` within a boot; across boots by the wall clock, if it was synchronised at both moments,
//! since a machine without a battery starts in 1970 and jumps by years.

use std::time::Duration;

use crate::message::Stamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Known(Duration),
    Future,
    NotYetKnown,
    Unknown,
}

impl Age {
    pub fn of(event: &Stamp, now: &Stamp) -> Self {
        if event.is_of_boot(now) {
            let ms = now.monotonic_ms.checked_sub(event.monotonic_ms);
            return ms.map_or(Self::Future, |ms| Self::Known(Duration::from_millis(ms)));
        }
        match (event.clock_synced, now.clock_synced) {
            (Some(true), Some(true)) => {
                (now.observed_at - event.observed_at).to_std().map_or(Self::Future, Self::Known)
            }
            (Some(true), _) => Self::NotYetKnown,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn stamp(boot_id: &str, wall_s: i64, monotonic_s: u64, clock_synced: Option<bool>) -> Stamp {
        Stamp {
            agent: "gw".into(),
            observed_at: DateTime::from_timestamp(wall_s, 0).unwrap(),
            boot_id: boot_id.to_owned(),
            monotonic_ms: monotonic_s * 1_000,
            clock_synced,
        }
    }

    #[test]
    fn within_a_boot_the_wall_clock_does_not_matter() {
        let event = stamp("one", 0, 5, Some(false));
        assert_eq!(Age::of(&event, &stamp("one", 1 << 40, 65, Some(true))), Age::Known(Duration::from_secs(60)));
        assert_eq!(Age::of(&event, &stamp("one", 0, 4, None)), Age::Future);
    }

    #[test]
    fn across_boots_both_clocks_have_to_be_synchronised() {
        for (event, now, age) in [
            (Some(true), Some(true), Age::Known(Duration::from_secs(100))),
            (Some(true), None, Age::NotYetKnown),
            (Some(true), Some(false), Age::NotYetKnown),
            (None, Some(true), Age::Unknown),
            (Some(false), Some(true), Age::Unknown),
            (None, None, Age::Unknown),
        ] {
            assert_eq!(Age::of(&stamp("one", 1_000, 5, event), &stamp("two", 1_100, 7, now)), age);
        }
        assert_eq!(Age::of(&stamp("one", 1_000, 5, Some(true)), &stamp("two", 900, 7, Some(true))), Age::Future);
        // Boots without an id are never known to be the same.
        assert_eq!(Age::of(&stamp("", 1_000, 5, None), &stamp("", 1_100, 7, None)), Age::Unknown);
    }
}
