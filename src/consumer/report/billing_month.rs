//! The month that is billed: from the midnight of one billing day to that of the next, by the clocks of its time zone.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    first: Date,
}

/// Without a `month`, the current one; `day` is 1 to 28.
#[derive(Clone, Debug)]
pub struct BillingMonth {
    pub month: Option<Month>,
    pub day: i8,
    pub zone: TimeZone,
}

impl BillingMonth {
    /// Returns when it begins and ends; `None` beyond the times that a calendar has.
    pub fn bounds(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let month = match self.month {
            Some(month) => month.first,
            None => {
                let today = Timestamp::from_millisecond(now.timestamp_millis())
                    .ok()?
                    .to_zoned_datetime(self.zone.clone())
                    .date();
                let first = today.first_of_month();
                if today.day() < self.day { first.checked_sub(1.month()).ok()? } else { first }
            }
        };
        let first = month.with().day(self.day).build().ok()?;
        Some((self.midnight(first)?, self.midnight(first.checked_add(1.month()).ok()?)?))
    }

    /// Returns the first moment of a day: clocks that skip midnight begin it later.
    fn midnight(&self, day: Date) -> Option<DateTime<Utc>> {
        let midnight = day.to_zoned_datetime(self.zone.clone()).ok()?;
        DateTime::from_timestamp_millis(midnight.timestamp().as_millisecond())
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let month = || {
            let (year, month) = text.split_once('-')?;
            let is_number =
                |digits: &str, count| digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number(year, 4) || !is_number(month, 2) {
                return None;
            }
            Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()
        };
        month().map(|first| Self { first }).ok_or_else(|| "is not a month; write 2026-11".to_owned())
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.first.year(), self.first.month())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(month: &str, day: i8, zone: &str, now: &str) -> String {
        let month = if month.is_empty() { None } else { Some(month.parse().unwrap()) };
        let month = BillingMonth { month, day, zone: TimeZone::get(zone).unwrap() };
        let (begin, end) = month.bounds(now.parse().unwrap()).unwrap();
        format!("{} {} {}", begin.format("%m-%dT%H:%M"), end.format("%m-%dT%H:%M"), (end - begin).num_hours())
    }

    #[test]
    fn a_month_is_as_long_as_its_clocks_show() {
        let now = "2026-11-29T12:00:00Z";
        for (month, day, zone, expected) in [
            ("2026-11", 1, "UTC", "11-01T00:00 12-01T00:00 720"),
            ("2026-11", 15, "Europe/Paris", "11-14T23:00 12-14T23:00 720"),
            ("2026-03", 1, "Europe/Paris", "02-28T23:00 03-31T22:00 743"),
            ("2026-10", 1, "Europe/Paris", "09-30T22:00 10-31T23:00 745"),
            ("2026-10", 25, "Europe/Paris", "10-24T22:00 11-24T23:00 745"),
            ("2026-10", 26, "Europe/Paris", "10-25T23:00 11-25T23:00 744"),
            ("2026-02", 28, "Asia/Kolkata", "02-27T18:30 03-27T18:30 672"),
            ("2026-12", 1, "America/New_York", "12-01T05:00 01-01T05:00 744"),
            // Clocks went from 0:00 to 1:00 on this day.
            ("2018-11", 4, "America/Sao_Paulo", "11-04T03:00 12-04T02:00 719"),
        ] {
            assert_eq!(bounds(month, day, zone, now), expected, "{month} {day} {zone}");
        }
    }

    #[test]
    fn without_a_month_it_is_the_one_that_has_begun() {
        for (day, zone, now, expected) in [
            (1, "UTC", "2026-11-29T12:00:00Z", "11-01T00:00 12-01T00:00 720"),
            (15, "UTC", "2026-11-14T23:59:00Z", "10-15T00:00 11-15T00:00 744"),
            (15, "UTC", "2026-11-15T00:00:00Z", "11-15T00:00 12-15T00:00 720"),
            (15, "Europe/Paris", "2026-11-14T23:30:00Z", "11-14T23:00 12-14T23:00 720"),
            (2, "UTC", "2027-01-01T12:00:00Z", "12-02T00:00 01-02T00:00 744"),
        ] {
            assert_eq!(bounds("", day, zone, now), expected, "{day} {zone} {now}");
        }
    }

    #[test]
    fn a_month_is_a_year_and_a_number() {
        assert_eq!("2026-11".parse::<Month>().unwrap().to_string(), "2026-11");
        for text in ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-11-01", "+026-11", "november", "2026-é"]
        {
            assert!(text.parse::<Month>().unwrap_err().contains("write 2026-11"), "{text}");
        }
    }
}
