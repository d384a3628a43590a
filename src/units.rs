//! Quantities with their units: as people write them (`"80 Mbit/s"`, `"16MiB"`) and as the program keeps them. Bit rates are
//! decimal (1 kbit = 1,000 bit), as link speeds are; byte counts know both (kB = 1,000, KiB = 1,024).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(u64);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given} is not {what}: write a number and a unit, as in {example} (units: {units})")]
pub struct UnitError {
    given: String,
    what: &'static str,
    example: &'static str,
    units: String,
}

const BIT_RATES: &[(&str, u64)] = &[
    ("bit/s", 1),
    ("kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("Tbit/s", 1_000_000_000_000),
    ("B/s", 8),
    ("kB/s", 8_000),
    ("MB/s", 8_000_000),
    ("GB/s", 8_000_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
    ("GiB/s", 8 << 30),
];

const BYTE_COUNTS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl BitRate {
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }

    pub const fn bps(self) -> u64 {
        self.0
    }

    pub fn percent(self, percent: f64) -> Self {
        Self((self.0 as f64 * percent / 100.0) as u64)
    }
}

impl ByteCount {
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for BitRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, BIT_RATES).map(Self).ok_or_else(|| UnitError::new(text, "a bit rate", "\"80 Mbit/s\"", BIT_RATES))
    }
}

impl FromStr for ByteCount {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, BYTE_COUNTS).map(Self).ok_or_else(|| UnitError::new(text, "a size", "\"16MiB\"", BYTE_COUNTS))
    }
}

impl fmt::Display for BitRate {
    /// Writes three or four figures: `83.9 Mbit/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, 1_000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]))
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, 1_024.0, &["B", "KiB", "MiB", "GiB", "TiB"]))
    }
}

impl UnitError {
    fn new(text: &str, what: &'static str, example: &'static str, units: &[(&str, u64)]) -> Self {
        let given = if text.trim().is_empty() { "an empty text".to_owned() } else { format!("`{text}`") };
        Self { given, what, example, units: units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ") }
    }
}

pub fn counted<N: fmt::Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    if count == N::from(1) { format!("{count} {noun}") } else { format!("{count} {}", plural(noun)) }
}

fn plural(noun: &str) -> String {
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with("ch") || noun.ends_with("sh") || noun.ends_with(['s', 'x']) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// Formats rounded: `0.4 s`, `9.6 s`, `48 s`, `2 min 5 s`, `2 h 3 min`.
pub fn lasting(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 9.95 {
        let rounded = (seconds * 10.0).round() / 10.0;
        return format!("{rounded} s");
    }
    match seconds.round() as u64 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds => in_units(coarse(seconds)),
    }
}

/// Formats as [`lasting`], but exactly below two minutes (`0.25 s`).
pub fn exactly(duration: Duration) -> String {
    if duration < Duration::from_secs(120) { format!("{} s", duration.as_secs_f64()) } else { lasting(duration) }
}

fn in_units(seconds: u64) -> String {
    let parts = [("d", seconds / 86_400), ("h", seconds / 3_600 % 24), ("min", seconds / 60 % 60), ("s", seconds % 60)];
    let largest = parts.iter().position(|(_, count)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts[largest..].iter().take(2).enumerate().filter(|(at, (_, count))| *at == 0 || *count > 0);
    shown.map(|(_, (unit, count))| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

fn coarse(seconds: u64) -> u64 {
    let step = match seconds {
        ..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    seconds.saturating_add(step / 2) / step * step
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value.is_finite() && value < u64::MAX as f64).then_some(value.round() as u64)
}

fn scaled(value: u64, step: f64, units: &[&str]) -> String {
    let (mut scaled, mut unit) = (value as f64, 0);
    // 999.95 would print as 1000.0: it belongs to the next unit.
    while scaled >= step - 0.05 && unit + 1 < units.len() {
        scaled /= step;
        unit += 1;
    }
    if unit == 0 { format!("{value} {}", units[0]) } else { format!("{scaled:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bps) in [
            ("80 Mbit/s", 80_000_000),
            ("80Mbit/s", 80_000_000),
            (" 1.5 Gbit/s ", 1_500_000_000),
            ("10 MB/s", 80_000_000),
            ("1 KiB/s", 8_192),
            ("0 bit/s", 0),
        ] {
            assert_eq!(text.parse::<BitRate>().map(BitRate::bps), Ok(bps), "{text}");
        }
        assert_eq!("16MiB".parse::<ByteCount>().map(ByteCount::bytes), Ok(16 << 20));
        assert_eq!("5 MB".parse::<ByteCount>().map(ByteCount::bytes), Ok(5_000_000));
    }

    #[test]
    fn refuses_what_is_ambiguous_and_names_the_units() {
        for text in ["80", "80 mbit/s", "80 Mb/s", "-1 bit/s", "fast", "", "99999999999999999999 Tbit/s", "1..2 bit/s"]
        {
            let error = text.parse::<BitRate>().expect_err(text).to_string();
            assert!(error.contains("Mbit/s"), "{error}");
        }
        assert!("16 Mi".parse::<ByteCount>().is_err());
    }

    #[test]
    fn prints_for_people() {
        for (bps, text) in [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (83_900_000, "83.9 Mbit/s"),
            (999_960, "1.0 Mbit/s"),
            (2_500_000_000, "2.5 Gbit/s"),
        ] {
            assert_eq!(BitRate::from_bps(bps).to_string(), text);
        }
        assert_eq!(ByteCount::from_bytes(16 << 20).to_string(), "16.0 MiB");
    }

    #[test]
    fn one_thing_is_singular_and_any_other_number_plural() {
        assert_eq!(counted(1_u64, "event"), "1 event");
        assert_eq!(counted(0_usize, "event"), "0 events");
        for (noun, plural) in
            [("breach", "2 breaches"), ("retry", "2 retries"), ("day", "2 days"), ("dead letter", "2 dead letters")]
        {
            assert_eq!(counted(2, noun), plural);
        }
    }

    #[test]
    fn a_duration_is_rounded() {
        for (ms, text) in [
            (0, "0 s"),
            (420, "0.4 s"),
            (2_999, "3 s"),
            (9_600, "9.6 s"),
            (9_960, "10 s"),
            (10_600, "11 s"),
            (119_400, "119 s"),
            (120_000, "2 min"),
            (125_000, "2 min 5 s"),
            (7_384_000, "2 h 3 min"),
            (86_399_900, "1 d"),
            (266_400_000, "3 d 2 h"),
        ] {
            assert_eq!(lasting(Duration::from_millis(ms)), text, "{ms} ms");
        }
        let _ = lasting(Duration::MAX);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = text.parse::<BitRate>();
            let _ = text.parse::<ByteCount>();
        }

        #[test]
        fn no_damage_makes_a_quantity_that_does_not_come_back(text in crate::testing::damaged_text("1234.5 Mbit/s")) {
            let read = (text.parse::<BitRate>(), text.parse::<ByteCount>());
            if let Ok(rate) = read.0 {
                let shown = rate.to_string().parse::<BitRate>().unwrap();
                proptest::prop_assert!(shown.bps().abs_diff(rate.bps()) <= rate.bps() / 18, "{rate:?} {shown:?}");
            }
            if let Ok(count) = read.1 {
                proptest::prop_assert!(count.to_string().parse::<ByteCount>().is_ok());
            }
        }

        #[test]
        fn a_whole_number_of_a_unit_is_exact_or_refused(number: u64, at in 0..BIT_RATES.len()) {
            let (unit, factor) = BIT_RATES[at];
            let read = format!("{number} {unit}").parse::<BitRate>().ok().map(BitRate::bps);
            proptest::prop_assert_eq!(read, number.checked_mul(factor));
        }
    }
}
