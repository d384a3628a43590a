use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Days, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};

use crate::process::exit::{Failure, Status};

pub(super) const TIMES: &str = "\
A time is 2026-11-21T06:00:00Z, or `2026-11-21 10:00`, 2026-11-21,
10:00 (today), `today`, `yesterday`, or how long ago: 10m, 2d. Without
a zone it is local time (TZ or /etc/localtime).";

/// Time as a flag names it, in the forms of [`TIMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(DateTime<Utc>),
    LocalTime(NaiveDateTime),
    Day(NaiveDate),
    Clock(NaiveTime),
    DaysAgo(u64),
    Ago(Duration),
}

const FIRST_DAY: NaiveDate = NaiveDate::from_ymd_opt(1, 1, 1).expect("it is a day");
const LAST_DAY: NaiveDate = NaiveDate::from_ymd_opt(9999, 12, 31).expect("it is a day");

impl When {
    /// Returns the time, within the years 1 to 9999: databases compare later ones as text, or not at all.
    pub(super) fn from(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let [first, last] = [FIRST_DAY, LAST_DAY].map(|day| day.and_time(NaiveTime::MIN).and_utc());
        self.in_zone(now, &Local).clamp(first, last)
    }

    fn in_zone(self, now: DateTime<Utc>, zone: &impl TimeZone) -> DateTime<Utc> {
        let today = now.with_timezone(zone).date_naive();
        match self {
            Self::At(time) => time,
            Self::LocalTime(time) => in_utc(time, zone),
            Self::Day(day) => in_utc(day.and_time(NaiveTime::MIN), zone),
            Self::Clock(time) => in_utc(today.and_time(time), zone),
            Self::DaysAgo(days) => in_utc(before(today, days).and_time(NaiveTime::MIN), zone),
            Self::Ago(ago) => TimeDelta::from_std(ago)
                .ok()
                .and_then(|ago| now.checked_sub_signed(ago))
                .unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }

    /// Returns the day in UTC, for sums by such days: a day is taken as written, a time is in its day.
    pub(super) fn day(self, now: DateTime<Utc>) -> NaiveDate {
        match self {
            Self::Day(day) => day.clamp(FIRST_DAY, LAST_DAY),
            Self::DaysAgo(days) => before(now.date_naive(), days).max(FIRST_DAY),
            other => other.from(now).date_naive(),
        }
    }
}

pub(super) fn in_order<T: PartialOrd + fmt::Display>(since: Option<T>, until: Option<T>) -> Result<(), Failure> {
    match (since, until) {
        (Some(since), Some(until)) if since > until => {
            Err(Failure::new(Status::Usage, format!("--since ({since}) is after --until ({until})")))
        }
        _ => Ok(()),
    }
}

fn before(day: NaiveDate, days: u64) -> NaiveDate {
    day.checked_sub_days(Days::new(days)).unwrap_or(NaiveDate::MIN)
}

/// Converts a local time: one that clocks show twice to the earlier, one that they skip to what they would have shown.
fn in_utc(time: NaiveDateTime, zone: &impl TimeZone) -> DateTime<Utc> {
    let found = |time: NaiveDateTime| zone.from_local_datetime(&time).earliest().map(|time| time.to_utc());
    let hour = TimeDelta::hours(1);
    let later = || Some(found(time.checked_sub_signed(hour)?)? + hour);
    found(time).or_else(later).unwrap_or_else(|| time.and_utc())
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "today" => return Ok(Self::DaysAgo(0)),
            "yesterday" => return Ok(Self::DaysAgo(1)),
            _ => {}
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(time.to_utc()));
        }
        let local = |format: &&str| NaiveDateTime::parse_from_str(text, format).ok();
        if let Some(time) =
            ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"].iter().find_map(local)
        {
            return Ok(Self::LocalTime(time));
        }
        if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Ok(Self::Day(day));
        }
        let clock = |format: &&str| NaiveTime::parse_from_str(text, format).ok();
        if let Some(time) = ["%H:%M", "%H:%M:%S%.f"].iter().find_map(clock) {
            return Ok(Self::Clock(time));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            "is not a time; write 2026-11-21T06:00:00Z, or in local time `2026-11-21 10:00`, 2026-11-21, 10:00, today, yesterday, \
             or how long ago: 10m, 2d"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_is_a_time_a_day_or_so_long_ago_and_local_without_a_zone() {
        let (now, zone) = (utc("2026-11-21T06:00:00Z"), FixedOffset::east_opt(2 * 3_600).unwrap());
        for (text, moment) in [
            ("2026-11-20T06:00:00+02:00", "2026-11-20T04:00:00Z"),
            ("2026-11-20T06:00:00Z", "2026-11-20T06:00:00Z"),
            ("2026-11-20 06:00:00Z", "2026-11-20T06:00:00Z"),
            ("2026-11-20 06:00", "2026-11-20T04:00:00Z"),
            ("2026-11-20T06:00:30.5", "2026-11-20T04:00:30.5Z"),
            ("2026-11-20", "2026-11-19T22:00:00Z"),
            ("today", "2026-11-20T22:00:00Z"),
            ("yesterday", "2026-11-19T22:00:00Z"),
            ("10:00", "2026-11-21T08:00:00Z"),
            ("10:00:30", "2026-11-21T08:00:30Z"),
            ("10m", "2026-11-21T05:50:00Z"),
            ("2d", "2026-11-19T06:00:00Z"),
        ] {
            assert_eq!(text.parse::<When>().unwrap().in_zone(now, &zone), utc(moment), "{text}");
        }
        // In this zone it is tomorrow already.
        assert_eq!(When::DaysAgo(0).in_zone(utc("2026-11-21T23:00:00Z"), &zone), utc("2026-11-21T22:00:00Z"));
        for text in ["soon", "", "25:00", "2026-13-01", "2026-02-30 10:00", "10"] {
            assert!(text.parse::<When>().unwrap_err().contains("10m"), "{text}");
        }
        assert_eq!(When::Ago(Duration::MAX).from(now), utc("0001-01-01T00:00:00Z"));
        assert_eq!(When::DaysAgo(u64::MAX).day(now), FIRST_DAY);
        assert_eq!("+12000-01-01".parse::<When>().unwrap().from(now), utc("9999-12-31T00:00:00Z"));
    }

    #[test]
    fn a_day_of_utc_is_the_one_that_is_written_or_that_has_the_time() {
        let now = utc("2026-11-21T23:30:00Z");
        let day = |text: &str| text.parse::<When>().unwrap().day(now).to_string();
        assert_eq!(day("2026-11-20"), "2026-11-20");
        assert_eq!((day("today"), day("yesterday")), ("2026-11-21".into(), "2026-11-20".into()));
        assert_eq!(day("2026-11-20T23:00:00-02:00"), "2026-11-21");
        assert_eq!(day("1d"), "2026-11-20");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in crate::testing::damaged_text("2026-11-21 10:00:00.5Z"), at in 0_i64..4_000_000_000) {
            if let Ok(when) = text.parse::<When>() {
                let now = DateTime::from_timestamp(at, 0).unwrap();
                let _ = (when.from(now), when.day(now));
            }
        }
    }
}
