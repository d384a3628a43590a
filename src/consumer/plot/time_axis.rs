//! The time axis: ticks at local times or dates that are round for the span.

use chrono::{DateTime, Utc};
use jiff::civil::{Date, DateTime as CivilTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimeTick {
    pub(crate) at: DateTime<Utc>,
    pub(crate) label: String,
    /// Day or year, at the first tick and where it changes.
    pub(crate) below: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct TimeAxis {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    pub(crate) zone: TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TickStep {
    Seconds(i32),
    Days(i32),
    Weeks,
    Months(i32),
    Years(i32),
}

const STEPS: [TickStep; 28] = [
    TickStep::Seconds(1),
    TickStep::Seconds(2),
    TickStep::Seconds(5),
    TickStep::Seconds(10),
    TickStep::Seconds(15),
    TickStep::Seconds(30),
    TickStep::Seconds(60),
    TickStep::Seconds(2 * 60),
    TickStep::Seconds(5 * 60),
    TickStep::Seconds(10 * 60),
    TickStep::Seconds(15 * 60),
    TickStep::Seconds(30 * 60),
    TickStep::Seconds(3_600),
    TickStep::Seconds(2 * 3_600),
    TickStep::Seconds(3 * 3_600),
    TickStep::Seconds(6 * 3_600),
    TickStep::Seconds(12 * 3_600),
    TickStep::Days(1),
    TickStep::Days(2),
    TickStep::Weeks,
    TickStep::Months(1),
    TickStep::Months(3),
    TickStep::Years(1),
    TickStep::Years(2),
    TickStep::Years(5),
    TickStep::Years(10),
    TickStep::Years(100),
    TickStep::Years(1_000),
];

const DAY_S: i32 = 86_400;
/// Least span of an axis: a shorter one would have no two ticks.
const SPAN_S_MIN: i64 = 10;
const SECONDS_SHOWN_BELOW: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// Times that jiff can express in every zone, with room for the ticks around them.
const YEARS: (i64, i64) = (-60_000_000_000, 250_000_000_000);

impl TimeAxis {
    pub(crate) fn new(from: DateTime<Utc>, to: DateTime<Utc>, zone: TimeZone) -> Self {
        let from_s = from.timestamp().clamp(YEARS.0, YEARS.1);
        let to_s = to.timestamp().clamp(from_s + SPAN_S_MIN, YEARS.1 + SPAN_S_MIN);
        let time = |given: DateTime<Utc>, s| {
            if given.timestamp() == s { given } else { DateTime::from_timestamp(s, 0).unwrap_or(given) }
        };
        Self { from: time(from, from_s), to: time(to, to_s), zone }
    }

    pub(crate) fn place(&self, at: DateTime<Utc>) -> f64 {
        let seconds = |span: chrono::TimeDelta| span.as_seconds_f64();
        (seconds(at - self.from) / seconds(self.to - self.from)).clamp(0.0, 1.0)
    }

    pub(crate) fn zone_name(&self) -> String {
        zone_name(&self.zone)
    }

    fn local(&self, at: DateTime<Utc>) -> CivilTime {
        let nanosecond = at.timestamp_subsec_nanos().min(999_999_999) as i32;
        let time = Timestamp::new(at.timestamp(), nanosecond).unwrap_or(Timestamp::UNIX_EPOCH);
        self.zone.to_datetime(time)
    }

    pub(crate) fn span(&self) -> String {
        let (from, to) = (self.local(self.from), self.local(self.to));
        let day = |time: &CivilTime| time.strftime("%-d %b %Y").to_string();
        let is_short = self.to - self.from < SECONDS_SHOWN_BELOW;
        let clock = |time: &CivilTime| time.strftime(if is_short { "%H:%M:%S" } else { "%H:%M" }).to_string();
        let is_midnight = |time: &CivilTime| time.strftime("%H:%M").to_string() == "00:00";
        if is_midnight(&from) && is_midnight(&to) && from.date() < to.date() {
            let last = to.date().yesterday().unwrap_or(to.date());
            return if last == from.date() {
                day(&from)
            } else {
                format!("{} – {}", day(&from), last.strftime("%-d %b %Y"))
            };
        }
        if from.date() == to.date() {
            return format!("{}, {}–{}", day(&from), clock(&from), clock(&to));
        }
        format!("{}, {} – {}, {}", day(&from), clock(&from), day(&to), clock(&to))
    }

    /// Formats `10:35:00`, or `28 Nov 10:35` where the span is longer than a day.
    pub(crate) fn moment(&self, at: DateTime<Utc>) -> String {
        let format = if self.to - self.from <= chrono::TimeDelta::days(1) { "%H:%M:%S" } else { "%-d %b %H:%M" };
        self.local(at).strftime(format).to_string()
    }

    pub(crate) fn ticks(&self, ticks_max: usize) -> Vec<TimeTick> {
        let ticks_max = ticks_max.max(2);
        let span_s = (self.to - self.from).num_seconds();
        let mut finer: Option<(TickStep, Vec<DateTime<Utc>>)> = None;
        for step in STEPS {
            // More than this cannot fit, and would only be counted.
            if span_s / step.seconds() > 4 * ticks_max as i64 + 40 {
                continue;
            }
            let times = self.times(step);
            if times.len() <= ticks_max && times.len() >= 2 {
                return self.labelled(step, times);
            }
            if times.len() < 2 {
                break;
            }
            finer = Some((step, times));
        }
        // If no step fits, every few ticks of a finer step remain.
        let (step, times) = finer.unwrap_or((TickStep::Seconds(1), Vec::new()));
        let every = times.len().div_ceil(ticks_max).max(1);
        self.labelled(step, times.into_iter().step_by(every).collect())
    }

    fn times(&self, step: TickStep) -> Vec<DateTime<Utc>> {
        let end = self.local(self.to).saturating_add(Span::new().days(1));
        let mut times: Vec<DateTime<Utc>> = Vec::new();
        let mut civil = step.begin(self.local(self.from));
        while let Some(time) = civil.filter(|time| *time <= end) {
            let found = self.zone.to_ambiguous_timestamp(time);
            // A local time that clocks skip has no tick, one that they show twice has one.
            if !matches!(found.offset(), AmbiguousOffset::Gap { .. })
                && let Ok(found) = found.compatible()
                && let Some(at) = DateTime::from_timestamp(found.as_second(), 0)
                && at >= self.from
                && times.last().is_none_or(|last| *last < at)
            {
                if at > self.to {
                    break;
                }
                times.push(at);
            }
            civil = step.next(time);
        }
        times
    }

    fn labelled(&self, step: TickStep, times: Vec<DateTime<Utc>>) -> Vec<TimeTick> {
        let mut before = None;
        let tick = |at: DateTime<Utc>| {
            let local = self.local(at);
            let (label, below) = match step {
                TickStep::Seconds(..60) => ("%H:%M:%S", "%-d %b"),
                TickStep::Seconds(_) => ("%H:%M", "%-d %b"),
                TickStep::Days(_) | TickStep::Weeks => ("%-d %b", "%Y"),
                TickStep::Months(_) => ("%b", "%Y"),
                TickStep::Years(_) => ("%Y", ""),
            };
            let below = local.strftime(below).to_string();
            let is_new = before.as_ref() != Some(&below);
            before = Some(below.clone());
            TimeTick {
                at,
                label: local.strftime(label).to_string(),
                below: (is_new && !below.is_empty()).then_some(below),
            }
        };
        times.into_iter().map(tick).collect()
    }
}

impl TickStep {
    fn seconds(self) -> i64 {
        match self {
            Self::Seconds(seconds) => seconds.into(),
            Self::Days(days) => i64::from(DAY_S) * i64::from(days),
            Self::Weeks => 7 * i64::from(DAY_S),
            Self::Months(months) => 28 * i64::from(DAY_S) * i64::from(months),
            Self::Years(years) => 365 * i64::from(DAY_S) * i64::from(years),
        }
    }

    fn begin(self, time: CivilTime) -> Option<CivilTime> {
        let date = time.date();
        let midnight = |date: Date| Some(date.to_datetime(Time::midnight()));
        match self {
            Self::Seconds(seconds) => {
                let of_day = i32::from(time.hour()) * 3_600 + i32::from(time.minute()) * 60 + i32::from(time.second());
                midnight(date)?.checked_add(Span::new().seconds(of_day / seconds * seconds)).ok()
            }
            // Odd days of the month, so that its first is one of them.
            Self::Days(days) => {
                midnight(date.with().day((i32::from(date.day() - 1) / days * days + 1) as i8).build().ok()?)
            }
            Self::Weeks => midnight(date.checked_sub(Span::new().days(date.weekday().to_monday_zero_offset())).ok()?),
            Self::Months(months) => {
                let month = (i32::from(date.month() - 1) / months * months + 1) as i8;
                midnight(Date::new(date.year(), month, 1).ok()?)
            }
            Self::Years(years) => midnight(Date::new((i32::from(date.year()) / years * years) as i16, 1, 1).ok()?),
        }
    }

    fn next(self, time: CivilTime) -> Option<CivilTime> {
        let days = |days: i32| time.checked_add(Span::new().days(days)).ok();
        match self {
            Self::Seconds(seconds) => time.checked_add(Span::new().seconds(seconds)).ok(),
            Self::Days(1) => days(1),
            Self::Days(step) => {
                let next = days(step)?;
                let first = next.date().first_of_month().to_datetime(Time::midnight());
                Some(if next.month() == time.month() { next } else { first })
            }
            Self::Weeks => days(7),
            Self::Months(months) => time.checked_add(Span::new().months(months)).ok(),
            Self::Years(years) => time.checked_add(Span::new().years(years)).ok(),
        }
    }
}

pub fn time_span(from: DateTime<Utc>, to: DateTime<Utc>, zone: &TimeZone) -> String {
    let axis = TimeAxis::new(from, to, zone.clone());
    format!("{} {}", axis.span(), axis.zone_name())
}

fn zone_name(zone: &TimeZone) -> String {
    match zone.iana_name() {
        Some("Etc/UTC" | "Etc/Unknown") => "UTC".to_owned(),
        Some(name) => name.to_owned(),
        None => match zone.to_fixed_offset() {
            Ok(offset) if offset.is_zero() => "UTC".to_owned(),
            Ok(offset) => format!("UTC{offset}"),
            Err(_) => "local time".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn shown(from: &str, to: &str, zone: &str, ticks_max: usize) -> String {
        let axis = TimeAxis::new(utc(from), utc(to), TimeZone::get(zone).unwrap());
        let tick = |tick: TimeTick| tick.label + &tick.below.map(|below| format!("/{below}")).unwrap_or_default();
        axis.ticks(ticks_max).into_iter().map(tick).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round_local_times_by_the_span() {
        for (from, to, zone, ticks_max, expected) in [
            (
                "2026-11-28T10:00:00Z",
                "2026-11-28T11:00:00Z",
                "UTC",
                7,
                "10:00/28 Nov 10:10 10:20 10:30 10:40 10:50 11:00",
            ),
            ("2026-11-28T10:00:03Z", "2026-11-28T10:00:40Z", "UTC", 5, "10:00:10/28 Nov 10:00:20 10:00:30 10:00:40"),
            (
                "2026-11-28T10:07:00Z",
                "2026-11-29T10:07:00Z",
                "Asia/Kolkata",
                5,
                "18:00/28 Nov 00:00/29 Nov 06:00 12:00",
            ),
            ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "UTC", 6, "2 Nov/2026 9 Nov 16 Nov 23 Nov 30 Nov"),
            ("2026-10-01T00:00:00Z", "2027-04-01T00:00:00Z", "UTC", 9, "Oct/2026 Nov Dec Jan/2027 Feb Mar Apr"),
        ] {
            assert_eq!(shown(from, to, zone, ticks_max), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_day_of_23_hours_skips_a_tick_and_one_of_25_has_no_tick_twice() {
        let spring = shown("2026-03-28T23:00:00Z", "2026-03-29T04:00:00Z", "Europe/Paris", 9);
        assert_eq!(spring, "00:00/29 Mar 01:00 03:00 04:00 05:00 06:00");
        let autumn = shown("2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z", "Europe/Paris", 9);
        assert_eq!(autumn, "00:00/25 Oct 01:00 02:00 03:00 04:00 05:00");
    }

    #[test]
    fn a_span_names_its_days_once() {
        let span = |from: &str, to: &str| TimeAxis::new(utc(from), utc(to), TimeZone::UTC).span();
        assert_eq!(span("2026-11-28T10:00:00Z", "2026-11-28T11:00:00Z"), "28 Nov 2026, 10:00–11:00");
        assert_eq!(span("2026-11-28T10:00:10Z", "2026-11-28T10:01:40Z"), "28 Nov 2026, 10:00:10–10:01:40");
        assert_eq!(span("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"), "1 Nov 2026 – 30 Nov 2026");
        assert_eq!(span("2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"), "28 Nov 2026");
        assert_eq!(span("2026-11-27T22:00:00Z", "2026-11-28T04:00:00Z"), "27 Nov 2026, 22:00 – 28 Nov 2026, 04:00");
    }

    proptest::proptest! {
        #[test]
        fn every_span_has_ticks_inside_and_at_most_so_many(
            from in -70_000_000_000_i64..300_000_000_000, length in 0_i64..40_000_000_000, shift in 0_u32..36,
            ticks_max in 2_usize..14, zone in 0_usize..4,
        ) {
            let zone = ["UTC", "Europe/Paris", "Australia/Lord_Howe", "Asia/Kathmandu"][zone];
            let time = |s: i64| DateTime::from_timestamp(s, 0).unwrap();
            let axis = TimeAxis::new(time(from), time(from + (length >> shift)), TimeZone::get(zone).unwrap());
            let ticks = axis.ticks(ticks_max);
            proptest::prop_assert!((2..=ticks_max).contains(&ticks.len()), "{axis:?}: {ticks:?}");
            proptest::prop_assert!(ticks.is_sorted_by(|a, b| a.at < b.at));
            proptest::prop_assert!(ticks.iter().all(|tick| tick.at >= axis.from && tick.at <= axis.to));
            proptest::prop_assert!(ticks[0].below.is_some() || ticks[0].label.len() >= 4);
        }
    }
}
