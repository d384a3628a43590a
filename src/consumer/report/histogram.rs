//! The histogram of links over a time, merged from what is kept: whole days and hours of UTC, and windows at the edges.

use std::io;

use chrono::{DateTime, TimeDelta, Utc};

use super::rates::{LATE, windows_of};
use super::row::row;
use super::{LinkFilter, stream};
use crate::consumer::store::{Query, Reader, StoreError};
use crate::message::histogram::RateHistogram;
use crate::units::{BitRate, ByteCount};

/// `late_windows` came too late for the bins, but are in the sums. Retention has taken the seconds of `expired_windows`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramBins {
    pub bins: Vec<(u64, u64, u64)>,
    pub bytes: u64,
    pub measured_s: u64,
    pub unmeasured_s: u64,
    pub min: Option<u64>,
    pub mean: Option<u64>,
    pub max: Option<u64>,
    pub p50: Option<u64>,
    pub p95: Option<u64>,
    pub p99: Option<u64>,
    pub windows: u64,
    pub late_windows: u64,
    pub expired_windows: u64,
}

row! {
    struct KeptHistogram {
        bytes: ByteCount,
        measured_s: i64,
        unmeasured_s: i64,
        min_bps: Option<BitRate>,
        max_bps: Option<BitRate>,
        windows: i64,
        late_windows: i64,
        expired_windows: i64,
        histogram: Option<Vec<u8>>,
    }
}

#[derive(Debug, Default)]
pub(super) struct MergedTraffic {
    seconds: RateHistogram,
    figures: HistogramBins,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    unit: PieceUnit,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceUnit {
    Days,
    Hours,
    Windows,
}

pub fn read(reader: &mut dyn Reader, links: &LinkFilter) -> Result<io::Result<HistogramBins>, StoreError> {
    Ok(merged(reader, links)?.map(MergedTraffic::bins))
}

pub(super) fn merged(reader: &mut dyn Reader, links: &LinkFilter) -> Result<io::Result<MergedTraffic>, StoreError> {
    let mut merged = MergedTraffic::default();
    let since = links.since.unwrap_or_default().max(DateTime::UNIX_EPOCH);
    // Before the year 10000: SQLite keeps times as text, whose order is that of time only with years of four digits.
    let until = links.until.unwrap_or(DateTime::UNIX_EPOCH + TimeDelta::days(8_000 * 365));
    for piece in pieces(since, until) {
        if let Err(error) = stream(reader, &query(links, piece), |row| merged.add(KeptHistogram::read(row)?))? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(merged))
}

fn pieces(since: DateTime<Utc>, until: DateTime<Utc>) -> Vec<Piece> {
    let divided = |unit, outer: PieceUnit, (since, until): (DateTime<Utc>, DateTime<Utc>), length| {
        let (first, last) = (ceil(since, length), floor(until, length));
        let piece = |unit, (since, until)| Piece { unit, since, until };
        let pieces = match first < last {
            true => vec![piece(outer, (since, first)), piece(unit, (first, last)), piece(outer, (last, until))],
            false => vec![piece(outer, (since, until))],
        };
        pieces.into_iter().filter(|piece| piece.since < piece.until)
    };
    let by_day = divided(PieceUnit::Days, PieceUnit::Hours, (since, until), DAY);
    let by_hour = |piece: Piece| match piece.unit {
        PieceUnit::Hours => divided(PieceUnit::Hours, PieceUnit::Windows, (piece.since, piece.until), HOUR).collect(),
        _ => vec![piece],
    };
    by_day.flat_map(by_hour).collect()
}

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// Rounds a time down to a multiple of `seconds` in UTC.
pub fn floor(time: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp().div_euclid(seconds) * seconds, 0).unwrap_or(time)
}

fn ceil(time: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    let floor = floor(time, seconds);
    if floor == time { time } else { floor + TimeDelta::seconds(seconds) }
}

fn query(links: &LinkFilter, piece: Piece) -> Query {
    let links = LinkFilter { since: Some(piece.since), until: Some(piece.until), ..links.clone() };
    let span = match piece.unit {
        PieceUnit::Days => "day",
        PieceUnit::Hours => "hour",
        PieceUnit::Windows => return windows(&links),
    };
    let query = KeptHistogram::select(&[("expired_windows", "0")]).then("FROM histograms").with("WHERE span = ?", span);
    links.times(links.names(query), "starts_at")
}

fn windows(links: &LinkFilter) -> Query {
    let expired = "CASE WHEN has_histogram AND histogram IS NULL THEN 1 ELSE 0 END";
    let others = [("windows", "1"), ("late_windows", LATE), ("expired_windows", expired)];
    let query = KeptHistogram::select(&others)
        .then("FROM rates LEFT JOIN (SELECT * FROM window_histograms WHERE true")
        .with_one_of("agent", &links.agents)
        .with_any("AND observed_at > ?", links.since)
        .with_any("AND observed_at <= ?", links.until.map(|until| until + super::rates::WINDOW_MAX))
        .then(") AS kept USING (agent, observed_at, epoch, seq, interface, direction) WHERE true");
    windows_of(links, links.names(query))
}

impl MergedTraffic {
    fn add(&mut self, kept: KeptHistogram) -> io::Result<()> {
        let Self { seconds, figures } = self;
        if let Some(bytes) = &kept.histogram {
            let unreadable = |error| io::Error::new(io::ErrorKind::InvalidData, format!("a stored histogram {error}"));
            seconds.merge(&RateHistogram::decode(bytes).map_err(unreadable)?);
        }
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        figures.bytes = figures.bytes.saturating_add(kept.bytes.bytes());
        figures.measured_s += count(kept.measured_s);
        figures.unmeasured_s += count(kept.unmeasured_s);
        figures.windows += count(kept.windows);
        figures.late_windows += count(kept.late_windows);
        figures.expired_windows += count(kept.expired_windows);
        let (min, max) = (kept.min_bps.map(BitRate::bps), kept.max_bps.map(BitRate::bps));
        figures.min = figures.min.into_iter().chain(min).min();
        figures.max = figures.max.max(max);
        Ok(())
    }

    pub(super) fn quantile_bps(&self, share: f64) -> Option<u64> {
        self.seconds.quantile_within(share, self.figures.min, self.figures.max)
    }

    fn bins(self) -> HistogramBins {
        let [p50, p95, p99] = [0.50, 0.95, 0.99].map(|share| self.quantile_bps(share));
        let Self { seconds, figures } = self;
        let mean = u128::from(figures.bytes) * 8 / u128::from(figures.measured_s.max(1));
        HistogramBins {
            bins: seconds.bins().map(|bin| (bin.from_bps, bin.to_bps, bin.count)).collect(),
            mean: (figures.measured_s > 0).then(|| u64::try_from(mean).unwrap_or(u64::MAX)),
            p50,
            p95,
            p99,
            ..figures
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(since: &str, until: &str) -> Vec<String> {
        let time = |text: &str| text.parse().unwrap();
        let shown = |piece: Piece| {
            let [since, until] = [piece.since, piece.until].map(|time| time.format("%dT%H:%M").to_string());
            format!("{:?} {since} {until}", piece.unit)
        };
        pieces(time(since), time(until)).into_iter().map(shown).collect()
    }

    #[test]
    fn a_time_is_its_days_the_hours_beside_them_and_the_windows_beside_those() {
        assert_eq!(
            divided("2026-11-20T22:40:00Z", "2026-11-23T01:20:00Z"),
            [
                "Windows 20T22:40 20T23:00",
                "Hours 20T23:00 21T00:00",
                "Days 21T00:00 23T00:00",
                "Hours 23T00:00 23T01:00",
                "Windows 23T01:00 23T01:20",
            ]
        );
        assert_eq!(divided("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"), ["Days 20T00:00 21T00:00"]);
        assert_eq!(
            divided("2026-11-20T10:30:00Z", "2026-11-20T12:30:00Z"),
            ["Windows 20T10:30 20T11:00", "Hours 20T11:00 20T12:00", "Windows 20T12:00 20T12:30"]
        );
        assert_eq!(divided("2026-11-20T10:30:00Z", "2026-11-20T11:30:00Z"), ["Windows 20T10:30 20T11:30"]);
        assert_eq!(divided("2026-11-20T10:05:00Z", "2026-11-20T10:10:00Z"), ["Windows 20T10:05 20T10:10"]);
        assert_eq!(divided("2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z"), [""; 0]);
    }

    proptest::proptest! {
        #[test]
        fn pieces_are_the_whole_time_once(since in 0_i64..4_000_000_000_000, length in 0_i64..1_000_000_000) {
            let time = |ms: i64| DateTime::from_timestamp_millis(ms).unwrap();
            let mut end = time(since);
            for piece in pieces(time(since), time(since + length)) {
                proptest::prop_assert_eq!(piece.since, end);
                proptest::prop_assert!(piece.since < piece.until);
                end = piece.until;
            }
            proptest::prop_assert_eq!(end, time(since + length));
        }
    }
}
