//! Times in whole microseconds, the precision of all formats and databases. Events have several: a general formatter is too slow.

use std::ops::{Deref, Range};

use chrono::{DateTime, Datelike as _, NaiveDate, ParseError, SecondsFormat, Timelike as _, Utc};

/// Truncates to whole microseconds, a leap second to the second after it: databases store none, and store what is decoded.
pub(super) fn normalized(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// Formats with six decimals: `2026-11-20T12:00:00.123456Z`.
pub(crate) fn rfc3339(time: DateTime<Utc>) -> Text {
    // A `DateTime` adds its offset for each part it is asked for, even if the offset is 0.
    let parts = time.naive_utc();
    let (Ok(year @ 0..=9_999), micros @ 0..1_000_000) = (u32::try_from(parts.year()), parts.nanosecond() / 1_000)
    else {
        // Years that need five digits or a sign, and leap seconds.
        return Text::Long(time.to_rfc3339_opts(SecondsFormat::Micros, true));
    };
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let pairs = [
        (0, year / 100),
        (2, year % 100),
        (5, parts.month()),
        (8, parts.day()),
        (11, parts.hour()),
        (14, parts.minute()),
        (17, parts.second()),
        (20, micros / 10_000),
        (22, micros / 100 % 100),
        (24, micros % 100),
    ];
    for (place, pair) in pairs {
        text[place] += (pair / 10) as u8;
        text[place + 1] += (pair % 10) as u8;
    }
    Text::Usual(text)
}

/// Parses what [`rfc3339`] writes in a tenth of the time that a general parser takes.
pub(super) fn parse(text: &str) -> Result<DateTime<Utc>, ParseError> {
    match usual(text.as_bytes()) {
        Some(time) => Ok(time),
        None => text.parse(),
    }
}

fn usual(text: &[u8]) -> Option<DateTime<Utc>> {
    let text: &[u8; 27] = text.try_into().ok()?;
    if [4, 7, 10, 13, 16, 19, 26].map(|place| text[place]) != *b"--T::.Z" {
        return None;
    }
    let number = |digits: Range<usize>| {
        let digit = |number: u32, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'));
        text[digits].iter().try_fold(0, digit)
    };
    let date = NaiveDate::from_ymd_opt(number(0..4)?.cast_signed(), number(5..7)?, number(8..10)?)?;
    let time = date.and_hms_micro_opt(number(11..13)?, number(14..16)?, number(17..19)?, number(20..26)?)?;
    Some(time.and_utc())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Usual([u8; 27]),
    Long(String),
}

impl Text {
    /// Leaves out the check for UTF-8 that `Deref` makes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Usual(text) => text,
            Self::Long(text) => text.as_bytes(),
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Usual(text) => std::str::from_utf8(text).expect("it has only digits and signs"),
            Self::Long(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_second_is_the_second_after_it() {
        for (leap, normal) in [
            ("2026-12-31T23:59:60Z", "2027-01-01T00:00:00Z"),
            ("2026-12-31T23:59:60.9999999Z", "2027-01-01T00:00:00.999999Z"),
            ("1969-12-31T23:59:60.5Z", "1970-01-01T00:00:00.5Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ] {
            let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
            assert_eq!(normalized(time(leap)), time(normal), "{leap}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_normal_time_is_whole_microseconds_and_stays_so(seconds in -62_200_000_000_i64..254_000_000_000, nanos in 0_u32..2_000_000_000) {
            if let Some(time) = DateTime::from_timestamp(seconds, nanos) {
                let normal = normalized(time);
                proptest::prop_assert_eq!(normal.timestamp_subsec_nanos() % 1_000, 0);
                proptest::prop_assert!(normal.timestamp_subsec_nanos() < 1_000_000_000);
                proptest::prop_assert_eq!(normalized(normal), normal);
                proptest::prop_assert_eq!(rfc3339(normal).parse::<DateTime<Utc>>().unwrap(), normal);
            }
        }

        #[test]
        fn is_read_as_chrono_reads_it(text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9][.,][0-9]{5,7}[Zz+]") {
            assert_eq!(parse(&text).ok(), text.parse::<DateTime<Utc>>().ok(), "{text}");
        }

        #[test]
        fn is_what_chrono_writes(seconds in -62_200_000_000_i64..254_000_000_000, nanos in 0_u32..2_000_000_000) {
            if let Some(time) = DateTime::from_timestamp(seconds, nanos) {
                let text = rfc3339(time);
                assert_eq!(&*text, time.to_rfc3339_opts(SecondsFormat::Micros, true));
                assert_eq!(parse(&text), text.parse::<DateTime<Utc>>());
            }
        }
    }
}
