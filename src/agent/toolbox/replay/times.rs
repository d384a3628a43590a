//! Parses the times of a recorded series, in the notations of other programs. Times without an offset are local in `--time-zone`,
//! or else UTC. In an hour that a time zone has twice, the order of the rows decides, which the caller knows.

use std::ops::Range;
use std::time::Duration;

use clap::Args;
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::DateTimeParser;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ZonedDateTime};

use super::text::shown;
use crate::cli::time_zone;

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Times {
    /// Format of the times, as in strftime(3): '%d.%m.%Y %H:%M:%S'
    #[arg(long, value_name = "FORMAT", value_parser = time_format)]
    pub(crate) time_format: Option<String>,
    /// Time zone of times without one: Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = time_zone)]
    pub(crate) time_zone: Option<TimeZone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowTime {
    Exact(Duration),
    AssumedUtc(Duration),
    Twice { earlier: Duration, later: Duration },
}

impl RowTime {
    pub(crate) fn after(self, last: Option<Duration>) -> Duration {
        match self {
            Self::Exact(at) | Self::AssumedUtc(at) => at,
            Self::Twice { earlier, later } => {
                if last.is_none_or(|last| earlier > last) {
                    earlier
                } else {
                    later
                }
            }
        }
    }
}

/// End of the year 9999, the last that every database can store.
const INSTANT_MAX: Duration = Duration::new(253_402_300_799, 999_999_999);

static ISO_8601: DateTimeParser = DateTimeParser::new();

impl Times {
    pub(crate) fn read(&self, text: &str) -> Result<RowTime, String> {
        if let Some(format) = &self.time_format {
            return self.formatted(format, text);
        }
        if let Some(since_1970) = epoch(text) {
            return since_1970.map(RowTime::Exact);
        }
        if let Some(read) = self.iso_8601(&normal(text)) {
            return read;
        }
        if let Ok(zoned) = rfc2822::parse(text) {
            return exact(zoned.timestamp(), text);
        }
        Err(format!(
            "`{}` is not a timestamp: write RFC 3339, YYYY-MM-DD hh:mm:ss, or seconds, ms, µs or ns since 1970, or describe it \
             with --time-format",
            shown(text)
        ))
    }

    fn iso_8601(&self, text: &str) -> Option<Result<RowTime, String>> {
        let pieces = ISO_8601.parse_pieces(text).ok()?;
        let local = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
        if let Some(offset) = pieces.to_numeric_offset() {
            return Some(offset.to_timestamp(local).map_err(|_| too_far(text)).and_then(|at| exact(at, text)));
        }
        match pieces.to_time_zone() {
            Ok(zone) => Some(resolve(zone.as_ref().or(self.time_zone.as_ref()), local, text)),
            Err(error) => Some(Err(format!("`{}`: {error}", shown(text)))),
        }
    }

    fn formatted(&self, format: &str, text: &str) -> Result<RowTime, String> {
        let wrong = |error: jiff::Error| format!("`{}` does not match --time-format '{format}': {error}", shown(text));
        let parts = strtime::parse(format, text).map_err(wrong)?;
        if let Ok(at) = parts.to_timestamp() {
            return exact(at, text);
        }
        if parts.iana_time_zone().is_some() {
            return exact(parts.to_zoned_datetime().map_err(wrong)?.timestamp(), text);
        }
        resolve(self.time_zone.as_ref(), parts.to_datetime().map_err(wrong)?, text)
    }
}

fn time_format(text: &str) -> Result<String, String> {
    let some_time = ZonedDateTime::new(Timestamp::UNIX_EPOCH, TimeZone::UTC);
    match strtime::format(text, &some_time) {
        Ok(formatted) if text.contains('%') && strtime::parse(text, &formatted).is_ok() => Ok(text.to_owned()),
        Ok(_) => Err("is not a time format; write one of strftime(3), as in '%d.%m.%Y %H:%M:%S'".to_owned()),
        Err(error) => Err(format!("{error}; write a format of strftime(3), as in '%d.%m.%Y %H:%M:%S'")),
    }
}

fn resolve(zone: Option<&TimeZone>, local: DateTime, text: &str) -> Result<RowTime, String> {
    let Some(zone) = zone else {
        let at = TimeZone::UTC.to_ambiguous_timestamp(local).compatible().map_err(|_| too_far(text))?;
        return since_1970(at, text).map(RowTime::AssumedUtc);
    };
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let at = |timestamp: Result<Timestamp, _>| since_1970(timestamp.map_err(|_| too_far(text))?, text);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => at(ambiguous.compatible()).map(RowTime::Exact),
        AmbiguousOffset::Fold { .. } => {
            Ok(RowTime::Twice { earlier: at(ambiguous.earlier())?, later: at(ambiguous.later())? })
        }
        AmbiguousOffset::Gap { .. } => Err(format!(
            "`{}` does not exist in {}, where clocks are set forward over it; is --time-zone right?",
            shown(text),
            zone.iana_name().unwrap_or("this time zone")
        )),
    }
}

fn epoch(text: &str) -> Option<Result<Duration, String>> {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+'));
    if !is_number {
        return None;
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Some(whole) = whole.parse::<u64>().ok().filter(|_| !text.contains(['e', 'E'])) else {
        let seconds = text.parse::<f64>().ok()?;
        return Some(exponential(seconds).ok_or_else(|| too_far(text)));
    };
    if FILETIMES.contains(&whole) && fraction.is_empty() {
        return Some(Ok(Duration::from_nanos((whole - FILETIMES.start) * 100)));
    }
    if SPREADSHEET_DAYS.contains(&whole) && fraction.len() >= 5 {
        return Some(Err(format!(
            "`{}` is a day as spreadsheets count them; format the column as yyyy-mm-dd hh:mm:ss and save the file again",
            shown(text)
        )));
    }
    // Each range begins in the year 1973, but for seconds, which begin in 1970.
    let unit: u32 = match whole {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let fraction = fraction.get(..9).unwrap_or(fraction);
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let parts = fraction.parse::<u64>().unwrap_or(0);
    let below = parts * u64::from(unit) / 10_u64.pow(fraction.len() as u32);
    let nanos = u128::from(whole) * u128::from(unit) + u128::from(below);
    let at = Duration::new(u64::try_from(nanos / 1_000_000_000).ok()?, (nanos % 1_000_000_000) as u32);
    Some(if at <= INSTANT_MAX { Ok(at) } else { Err(too_far(text)) })
}

/// Windows file times, in 100 ns since 1601: from 1970 to 2108. In nanoseconds they would be in 1973 and 1974.
const FILETIMES: Range<u64> = 116_444_736_000_000_000..160_000_000_000_000_000;

/// Days since 1900, as in spreadsheets: from 1970 to 2119. In seconds they would all be on the first day of 1970.
const SPREADSHEET_DAYS: Range<u64> = 25_569..80_000;

fn exponential(number: f64) -> Option<Duration> {
    let unit = match number {
        ..1e11 => 1.0,
        ..1e14 => 1e3,
        ..1e17 => 1e6,
        _ => 1e9,
    };
    Duration::try_from_secs_f64(number / unit).ok().filter(|at| *at <= INSTANT_MAX)
}

fn normal(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["UTC", "GMT"] {
        if let Some(rest) = text.strip_suffix(name) {
            let rest = rest.trim_end();
            // Go writes both: `+0000 UTC`.
            let zulu = if rest.get(19..).is_some_and(|end| end.contains(['+', '-'])) { "" } else { "Z" };
            text = format!("{rest}{zulu}");
        }
    }
    if let Some(date) = text.get(..10).filter(|date| date.as_bytes()[4] == b'/' && date.as_bytes()[7] == b'/') {
        text.replace_range(..10, &date.replace('/', "-"));
    }
    for sign in [" +", " -", " Z"] {
        if let Some(at) = text.rfind(sign).filter(|at| *at >= 16) {
            text.remove(at);
        }
    }
    text
}

fn exact(at: Timestamp, text: &str) -> Result<RowTime, String> {
    since_1970(at, text).map(RowTime::Exact)
}

fn since_1970(at: Timestamp, text: &str) -> Result<Duration, String> {
    let nanos = u128::try_from(at.as_nanosecond()).map_err(|_| format!("`{}` is before 1970", shown(text)))?;
    Ok(Duration::new(u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX), (nanos % 1_000_000_000) as u32))
}

fn too_far(text: &str) -> String {
    format!("`{}` is after the year 9999", shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RowTime, String> {
        Times::default().read(text)
    }

    fn with(format: &str, zone: &str, text: &str) -> Result<RowTime, String> {
        let time_format = (!format.is_empty()).then(|| time_format(format).unwrap());
        let time_zone = (!zone.is_empty()).then(|| time_zone(zone).unwrap());
        Times { time_format, time_zone }.read(text)
    }

    const MORNING: Duration = Duration::from_secs(1_731_398_400);

    #[test]
    fn a_number_is_time_since_1970_in_the_unit_that_its_size_shows() {
        let at = |nanos| Ok(RowTime::Exact(MORNING + Duration::from_nanos(nanos)));
        assert_eq!(read("1731398400"), at(0));
        assert_eq!(read("1731398400.25"), at(250_000_000));
        assert_eq!(read("1731398400017"), at(17_000_000));
        assert_eq!(read("1731398400017.5"), at(17_500_000));
        assert_eq!(read("1731398400000005"), at(5_000));
        assert_eq!(read("1731398400000000005"), at(5));
        assert_eq!(read("1731398400.1234567899"), at(123_456_789));
        assert_eq!(read("1.7313984E+09"), at(0));
        assert_eq!(read("1.7313984e12"), at(0));
        assert_eq!(read("1.5"), Ok(RowTime::Exact(Duration::from_millis(1_500))));
        assert!(read("999999999999999999999").unwrap_err().contains("is after the year 9999"));
        assert!(read("1e400").unwrap_err().contains("is after the year 9999"));
        assert_eq!(read("133758720000000000"), at(0), "a FILETIME");
        assert_eq!(read("45608.5"), Ok(RowTime::Exact(Duration::from_millis(45_608_500))));
        assert!(read("45608.33333").unwrap_err().contains("as spreadsheets count them"));
        for text in ["1.2.3", "1+1", "-5", "5e", "."] {
            assert!(read(text).unwrap_err().contains("--time-format"), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_programs_write_them() {
        for text in [
            "2024-11-12T08:00:00Z",
            "2024-11-12T09:00:00+01:00",
            "2024-11-12T13:30:00+0530",
            "2024-11-12 08:00:00+00",
            "2024-11-12 08:00:00.000000 +00:00",
            "2024-11-12 08:00:00 UTC",
            "2024-11-12 08:00:00 GMT",
            "2024-11-12 08:00:00 +0000 UTC",
            "2024-11-12 08:00:00.000 +0000 UTC",
            "2024-11-12T09:00:00[Europe/Berlin]",
            "2024-11-12T09:00:00+01:00[Europe/Berlin]",
            "Tue, 12 Nov 2024 08:00:00 GMT",
            "12 Nov 2024 09:00:00 +0100",
            "20241112T080000Z",
        ] {
            assert_eq!(read(text), Ok(RowTime::Exact(MORNING)), "{text}");
        }
        for text in [
            "2024-11-12T08:00:00",
            "2024-11-12 08:00:00",
            "2024-11-12 08:00",
            "2024/11/12 08:00:00",
            "2024/11/12T08:00:00",
            "2024-11-12 08:00:00.000",
            "2024-11-12 08:00:00,000",
        ] {
            assert_eq!(read(text), Ok(RowTime::AssumedUtc(MORNING)), "{text}");
            let berlin = MORNING - Duration::from_secs(3_600);
            assert_eq!(with("", "Europe/Berlin", text), Ok(RowTime::Exact(berlin)), "{text}");
        }
        let midnight = MORNING - Duration::from_secs(8 * 3_600);
        assert_eq!(read("2024-11-12"), Ok(RowTime::AssumedUtc(midnight)));
        assert!(read("1969-12-31T23:59:59Z").unwrap_err().contains("is before 1970"));
        for text in
            ["", "noon", "12.11.2024 08:00", "11/12/2024 8:00 AM", "2024-13-01 00:00:00", "2024-11-12 08:00 CET"]
        {
            assert!(read(text).unwrap_err().contains("--time-format"), "{text}");
        }
        assert!(read("2024-11-12T09:00:00[Europe/Atlantis]").is_err());
    }

    #[test]
    fn a_format_reads_what_nothing_else_does() {
        let utc = Ok(RowTime::AssumedUtc(MORNING));
        assert_eq!(with("%d.%m.%y %Hh%M", "", "12.11.24 08h00"), utc);
        assert_eq!(with("%m/%d/%Y %I:%M:%S %p", "", "11/12/2024 8:00:00 AM"), utc);
        assert_eq!(with("%d/%b/%Y:%H:%M:%S %z", "", "12/Nov/2024:09:00:00 +0100"), Ok(RowTime::Exact(MORNING)));
        assert_eq!(with("%s", "", "1731398400"), Ok(RowTime::Exact(MORNING)));
        assert_eq!(with("%d.%m.%Y %H:%M", "Europe/Berlin", "12.11.2024 09:00"), Ok(RowTime::Exact(MORNING)));
        let error = with("%d.%m.%Y", "", "2024-11-12").unwrap_err();
        assert!(error.starts_with("`2024-11-12` does not match --time-format '%d.%m.%Y': "), "{error}");
        for format in ["%", "%!", "noon", ""] {
            assert!(time_format(format).unwrap_err().contains("strftime(3)"), "{format}");
        }
        assert!(time_zone("Europe/Atlantis").unwrap_err().contains("Europe/Berlin"));
    }

    #[test]
    fn the_order_tells_the_two_hours_apart_when_clocks_are_set_back() {
        let at = |text| with("", "Europe/Berlin", text).unwrap();
        let half_past = at("2024-10-27 02:30:00");
        let first = half_past.after(None);
        assert_eq!(first, Duration::from_secs(1_729_989_000), "00:30 UTC");
        assert_eq!(half_past.after(Some(first)), first + Duration::from_secs(3_600));
        assert_eq!(at("2024-10-27 02:45:00").after(Some(first)), first + Duration::from_secs(900));
        let error = with("", "Europe/Berlin", "2024-03-31 02:30:00").unwrap_err();
        assert!(error.contains("does not exist in Europe/Berlin"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[0-9TZ:+., /eUTCGM-]{0,40}|\\PC{0,30}") {
            let _ = read(&text);
            let _ = with("%Y-%m-%d %H:%M:%S %z", "Europe/Berlin", &text);
            let _ = with("", "Europe/Berlin", &text);
        }
    }
}
