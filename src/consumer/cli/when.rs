//! A moment as people write it.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

/// A moment: `2026-11-21T06:00:00Z`, `2026-11-21` (its first), or so long ago: `10m`, `2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(DateTime<Utc>),
    Ago(Duration),
}

impl When {
    /// The moment, seen from `now`.
    pub(super) fn from(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => TimeDelta::from_std(ago)
                .ok()
                .and_then(|ago| now.checked_sub_signed(ago))
                .unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(time.to_utc()));
        }
        if let Ok(day) = text.parse::<NaiveDate>() {
            return Ok(Self::At(day.and_time(NaiveTime::MIN).and_utc()));
        }
        humantime::parse_duration(text)
            .map(Self::Ago)
            .map_err(|_| "is no time; write 2026-11-21T06:00:00Z, 2026-11-21, or how long ago: 10m, 2d".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_day_or_so_long_ago() {
        let now = "2026-11-21T06:00:00Z".parse::<DateTime<Utc>>().unwrap();
        for (text, moment) in [
            ("2026-11-20T06:00:00+02:00", "2026-11-20T04:00:00Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("10m", "2026-11-21T05:50:00Z"),
            ("2d", "2026-11-19T06:00:00Z"),
        ] {
            let when = text.parse::<When>().unwrap().from(now);
            assert_eq!(when, moment.parse::<DateTime<Utc>>().unwrap(), "{text}");
        }
        assert!("yesterday".parse::<When>().unwrap_err().contains("10m"));
        assert_eq!(When::Ago(Duration::MAX).from(now), DateTime::<Utc>::MIN_UTC);
    }
}
