//! The rows of a file as readings, and the lines whose events Kafka has not acknowledged.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::csv::{Csv, CsvRecord, Dialect, RowError};
use super::order::{PAUSE_INTERVALS, Placed, RowOrder, RowOutcome};
use super::text::{STANDARD_INPUT, as_argument};
use crate::agent::counters::{AddReason, ByteDelta, CounterBits, Counters, LinkChange, LinkInfo, LinkKind, Reading};
use crate::cli::stop_flag;
use crate::message::Stamp;
use crate::process::exit::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Counter(CounterBits),
    Bytes,
    /// Bytes in an interval of this length, which ends at the row.
    BytesPer(Duration),
    /// Mean rate since the row before, in bits per second.
    BitsPerSecond,
}

pub(crate) struct ReplayRow {
    pub(crate) line: u64,
    pub(crate) reading: Reading,
    pub(crate) recorded: Recorded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) elapsed: Option<Duration>,
    pub(crate) rx: Amount,
    pub(crate) tx: Option<Amount>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Bytes(u64),
    Rate(u64),
    Unknown,
}

pub(crate) struct ReplayRows {
    csv: Csv,
    order: RowOrder,
    series: CounterSeries,
    ended: bool,
}

struct CounterSeries {
    meaning: Meaning,
    interval: Option<Duration>,
    link: Option<LinkInfo>,
    counted: Option<(u64, Option<u64>)>,
}

const IFINDEX: u32 = 1;

impl ReplayRows {
    pub(crate) fn open(
        file: &Path,
        dialect: &Dialect,
        meaning: Meaning,
        interval: Option<Duration>,
        interface: &str,
    ) -> Result<Self, Failure> {
        let csv = if file == Path::new("-") {
            let stdin = Box::new(Stdin(stop_flag().map_err(Failure::failed)?));
            Csv::from_reader(stdin, STANDARD_INPUT.to_owned(), dialect)?
        } else {
            Csv::open(file, dialect)?
        };
        Ok(Self::new(csv, meaning, interval, interface))
    }

    fn new(csv: Csv, meaning: Meaning, interval: Option<Duration>, interface: &str) -> Self {
        let link = Some(LinkInfo::new(IFINDEX, interface, LinkKind::Physical));
        let series = CounterSeries { meaning, interval, link, counted: None };
        Self { csv, order: RowOrder::new(interval), series, ended: false }
    }

    pub(crate) fn next(&mut self) -> Result<Option<ReplayRow>, RowError> {
        loop {
            match self.order.pop() {
                Some(RowOutcome::Placed(placed)) => return Ok(Some(self.series.row(&placed))),
                Some(RowOutcome::Bad { line, reason }) => {
                    return Err(RowError::Bad { line, reason: format!("{}:{line}: {reason}", self.csv.file()) });
                }
                Some(RowOutcome::Failed { line, reason }) => {
                    let reason = reason.replace("FILE", &as_argument(self.csv.file()));
                    return Err(RowError::Failed(Failure::failed(format!("{}:{line}: {reason}", self.csv.file()))));
                }
                None if self.ended => return Ok(None),
                None => self.read()?,
            }
        }
    }

    fn read(&mut self) -> Result<(), RowError> {
        match self.csv.next() {
            Ok(Some(record)) => match self.series.fitting(&record) {
                Ok(()) => self.order.push(record),
                Err(reason) => self.order.bad(record.line, reason),
            },
            Ok(None) => {
                self.ended = true;
                self.order.end();
            }
            Err(RowError::Bad { line, reason }) => self.order.bad(line, reason),
            Err(error @ RowError::Failed(_)) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn file(&self) -> &str {
        self.csv.file()
    }

    pub(crate) fn grown(&self) -> u64 {
        self.csv.grown()
    }
}

impl CounterSeries {
    fn fitting(&self, record: &CsvRecord) -> Result<(), String> {
        let highest = record.rx.max(record.tx.unwrap_or_default());
        if self.meaning == Meaning::Counter(CounterBits::B32) && highest > u64::from(u32::MAX) {
            return Err(format!("{highest} exceeds a 32-bit counter; leave out --counter-bits"));
        }
        Ok(())
    }

    fn row(&mut self, placed: &Placed) -> ReplayRow {
        let Placed { record, at, spacing } = placed;
        let mut reading = Reading { at: *at, boottime: *at, ..Reading::default() };
        let link = self.link.take();
        let spacing = match spacing.or(self.interval) {
            // A pause after the first row is not that row's duration.
            Some(spacing) if link.is_some() && self.is_pause(spacing) => self.interval,
            spacing => spacing,
        };
        reading.changes.extend(link.map(|link| LinkChange::Added(link, AddReason::Appeared)));
        let recorded = match self.meaning {
            Meaning::Counter(bits) => {
                reading.counters.push(counters(record, bits));
                self.counted(record, spacing, bits)
            }
            meaning => {
                let recorded = recorded(meaning, record, spacing, self.interval);
                // The bytes of a pause were carried at an unknown time.
                let covered = spacing.filter(|spacing| !self.is_pause(*spacing));
                reading.deltas.extend(covered.and_then(|covered| delta(&recorded, covered)));
                recorded
            }
        };
        ReplayRow { line: record.line, reading, recorded }
    }

    fn is_pause(&self, spacing: Duration) -> bool {
        self.interval.is_some_and(|interval| spacing > interval.mul_f64(PAUSE_INTERVALS))
    }

    fn counted(&mut self, record: &CsvRecord, spacing: Option<Duration>, bits: CounterBits) -> Recorded {
        let before = self.counted.replace((record.rx, record.tx));
        let amount = |before: Option<u64>, now: u64| match before {
            Some(before) if now >= before => Amount::Bytes(now - before),
            Some(before) if bits == CounterBits::B32 => Amount::Bytes(now + (1 << 32) - before),
            _ => Amount::Unknown,
        };
        Recorded {
            elapsed: spacing.filter(|_| before.is_some()),
            rx: amount(before.map(|(rx, _)| rx), record.rx),
            tx: record.tx.map(|now| amount(before.and_then(|(_, tx)| tx), now)),
        }
    }
}

/// Makes counters of a row's values, each plus 1, which cancels out in differences: the detector may take a 0 for a failed read.
fn counters(record: &CsvRecord, bits: CounterBits) -> Counters {
    let moved = |counter: u64| match bits {
        CounterBits::B32 => u64::from((counter as u32).wrapping_add(1)),
        CounterBits::B64 => counter.saturating_add(1),
    };
    let tx_bytes = record.tx.map_or(0, moved);
    Counters { ifindex: IFINDEX, rx_bytes: moved(record.rx), tx_bytes, bits, ..Counters::default() }
}

fn recorded(meaning: Meaning, record: &CsvRecord, spacing: Option<Duration>, interval: Option<Duration>) -> Recorded {
    let (elapsed, amount): (_, fn(u64) -> Amount) = match meaning {
        Meaning::BytesPer(interval) => (Some(interval), Amount::Bytes),
        Meaning::BitsPerSecond => (spacing.min(interval.or(spacing)), Amount::Rate),
        Meaning::Bytes | Meaning::Counter(_) => (spacing, Amount::Bytes),
    };
    Recorded { elapsed, rx: amount(record.rx), tx: record.tx.map(amount) }
}

fn delta(recorded: &Recorded, spacing: Duration) -> Option<ByteDelta> {
    let whole = recorded.elapsed.filter(|elapsed| !elapsed.is_zero())?;
    let elapsed = whole.min(spacing);
    let bytes = |amount: Amount| {
        let bytes = match amount {
            Amount::Bytes(bytes) => u128::from(bytes) * elapsed.as_nanos() / whole.as_nanos(),
            // Rounded up, since the detector rounds down: it gets the row's own rate.
            Amount::Rate(bps) => (u128::from(bps) * elapsed.as_nanos()).div_ceil(8_000_000_000),
            Amount::Unknown => 0,
        };
        let most = i64::MAX as u128 * elapsed.as_nanos() / 8_000_000_000;
        bytes.min(most).min(i64::MAX as u128) as u64
    };
    let (rx_bytes, tx_bytes) = (bytes(recorded.rx), recorded.tx.map_or(0, bytes));
    (!elapsed.is_zero()).then_some(ByteDelta { ifindex: IFINDEX, rx_bytes, tx_bytes, elapsed })
}

struct Stdin(Arc<AtomicBool>);

const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        while !self.0.load(Ordering::Relaxed) {
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&POLL_INTERVAL)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(&stdin, &mut *buffer)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

pub(crate) fn stamp(agent: &str, reading: &Reading) -> Stamp {
    let since_1970 = TimeDelta::from_std(reading.at).unwrap_or(TimeDelta::MAX);
    let observed_at = DateTime::UNIX_EPOCH.checked_add_signed(since_1970).unwrap_or(DateTime::<Utc>::MAX_UTC);
    Stamp {
        agent: agent.into(),
        observed_at: observed_at.trunc_subsecs(6),
        boot_id: String::new(),
        monotonic_ms: u64::try_from(reading.at.as_millis()).unwrap_or(u64::MAX),
        clock_synced: None,
    }
}

#[derive(Default)]
pub(crate) struct Undelivered {
    lines: VecDeque<(DateTime<Utc>, u64)>,
}

impl Undelivered {
    pub(crate) fn add(&mut self, at: DateTime<Utc>, line: u64, oldest_pending: Option<DateTime<Utc>>) {
        while self.lines.front().is_some_and(|(before, _)| oldest_pending.is_none_or(|oldest| *before < oldest)) {
            self.lines.pop_front();
        }
        self.lines.push_back((at, line));
    }

    /// Returns the line at which to resume: that of the oldest pending event, else `next`, the first line not processed.
    pub(crate) fn first(&self, oldest_pending: Option<DateTime<Utc>>, next: u64) -> u64 {
        let pending = oldest_pending.and_then(|oldest| self.lines.iter().find(|(at, _)| *at >= oldest));
        pending.map_or(next, |(_, line)| *line)
    }
}

#[cfg(test)]
mod tests {
    use super::super::csv::tests::dialect;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn read(text: &'static str, meaning: Meaning, interval: Option<Duration>) -> Vec<ReplayRow> {
        let tx = text.starts_with("timestamp,value,sent").then(|| "sent".to_owned());
        let dialect = Dialect { tx, ..dialect() };
        let csv = Csv::from_reader(Box::new(text.as_bytes()), "in.csv".to_owned(), &dialect).unwrap();
        let mut rows = ReplayRows::new(csv, meaning, interval, "eth0");
        std::iter::from_fn(|| rows.next().unwrap()).collect()
    }

    /// Second; bytes in each direction and the seconds they cover, as the detector gets them.
    type Judged = (u64, Option<(u64, u64, u64)>);

    fn delta(text: &'static str, meaning: Meaning, interval: Option<Duration>) -> Vec<Judged> {
        let rows = read(text, meaning, interval);
        let delta = |row: &ReplayRow| {
            let delta = row.reading.deltas.first();
            let delta = delta.map(|delta| (delta.rx_bytes, delta.tx_bytes, delta.elapsed.as_secs()));
            (row.reading.at.as_secs(), delta)
        };
        rows.iter().map(delta).collect()
    }

    #[test]
    fn bytes_and_rates_go_to_the_detector_as_they_are() {
        let text = "timestamp,value,sent\n10,800,80\n20,0,90\n25,720,95\n";
        let bytes = delta(text, Meaning::Bytes, None);
        assert_eq!(bytes, [(10, Some((800, 80, 10))), (20, Some((0, 90, 10))), (25, Some((720, 95, 5)))]);
        let rates = delta(text, Meaning::BitsPerSecond, None);
        assert_eq!(rates, [(10, Some((1_000, 100, 10))), (20, Some((0, 113, 10))), (25, Some((450, 60, 5)))]);
        let ten = Duration::from_secs(10);
        let per = delta(text, Meaning::BytesPer(ten), Some(ten));
        assert_eq!(per, [(10, Some((800, 80, 10))), (20, Some((0, 90, 10))), (25, Some((360, 47, 5)))]);
        let rows = read(text, Meaning::Bytes, None);
        assert!(matches!(&rows[0].reading.changes[..], [LinkChange::Added(link, _)] if link.name == "eth0"));
        assert!(rows[1].reading.changes.is_empty() && rows.iter().all(|row| row.reading.counters.is_empty()));
    }

    #[test]
    fn a_rate_stays_what_it_is_once_it_is_bytes() {
        for bps in [1_000_001, 1_000_012, 1_000_013, 7, 0] {
            let seconds = Duration::from_secs(8);
            let recorded = Recorded { elapsed: Some(seconds), rx: Amount::Rate(bps), tx: None };
            let delta = super::delta(&recorded, seconds).unwrap();
            assert_eq!(crate::agent::detector::rate::bit_rate(delta.rx_bytes, delta.elapsed).bps(), bps);
        }
        let recorded =
            Recorded { elapsed: Some(SECOND), rx: Amount::Rate(u64::MAX), tx: Some(Amount::Bytes(u64::MAX)) };
        let delta = super::delta(&recorded, Duration::from_nanos(1)).unwrap();
        for bytes in [delta.rx_bytes, delta.tx_bytes] {
            let rate = crate::agent::detector::rate::bit_rate(bytes, delta.elapsed).bps();
            assert!(rate <= i64::MAX as u64, "what a database holds");
        }
    }

    #[test]
    fn a_row_behind_a_pause_is_not_evaluated() {
        let text = "timestamp,value\n100,8\n101,8\n104,8\n108,8\n109,8\n";
        let bytes = delta(text, Meaning::Bytes, Some(SECOND));
        let wanted = [(100, Some((8, 0, 1))), (101, Some((8, 0, 1))), (104, Some((8, 0, 3))), (108, None)];
        assert_eq!(bytes[..4], wanted);
        let per = delta(text, Meaning::BytesPer(SECOND), Some(SECOND));
        assert_eq!(per[2..4], [(104, Some((8, 0, 1))), (108, None)], "for its own second");
        let rates = delta(text, Meaning::BitsPerSecond, Some(SECOND));
        assert_eq!(rates[2..], [(104, Some((1, 0, 1))), (108, None), (109, Some((1, 0, 1)))]);
        let first = delta("timestamp,value\n100,8\n200,8\n201,8\n", Meaning::Bytes, Some(SECOND));
        assert_eq!(first, [(100, Some((8, 0, 1))), (200, None), (201, Some((8, 0, 1)))]);
        assert_eq!(delta("timestamp,value\n5,8\n", Meaning::BytesPer(SECOND), Some(SECOND)), [(5, Some((8, 0, 1)))]);
        assert_eq!(delta("timestamp,value\n5,8\n", Meaning::Bytes, None), [(5, None)]);
    }

    #[test]
    fn counters_go_to_the_detector_as_counters_and_zero_is_a_reading() {
        let text = "timestamp,value,sent\n1,0,4294967295\n2,7,5\n3,3,6\n";
        let counters = |bits| -> Vec<(u64, u64)> {
            let rows = read(text, Meaning::Counter(bits), None);
            assert!(rows.iter().all(|row| row.reading.deltas.is_empty() && row.reading.counters[0].bits == bits));
            rows.iter().map(|row| (row.reading.counters[0].rx_bytes, row.reading.counters[0].tx_bytes)).collect()
        };
        assert_eq!(counters(CounterBits::B64), [(1, 4_294_967_296), (8, 6), (4, 7)]);
        assert_eq!(counters(CounterBits::B32), [(1, 0), (8, 6), (4, 7)]);
    }

    #[test]
    fn a_row_says_itself_what_was_carried() {
        let recorded = |meaning, interval| -> Vec<(Option<u64>, Amount, Option<Amount>)> {
            let rows = read("timestamp,value,sent\n10,800,80\n20,500,90\n25,700,95\n", meaning, interval);
            let seconds = |row: &ReplayRow| row.recorded.elapsed.map(|elapsed| elapsed.as_secs());
            rows.iter().map(|row| (seconds(row), row.recorded.rx, row.recorded.tx)).collect()
        };
        use Amount::{Bytes, Rate, Unknown};
        let counted = recorded(Meaning::Counter(CounterBits::B64), None);
        assert_eq!(counted[0], (None, Unknown, Some(Unknown)));
        assert_eq!(counted[1..], [(Some(10), Unknown, Some(Bytes(10))), (Some(5), Bytes(200), Some(Bytes(5)))]);
        let wrapped = recorded(Meaning::Counter(CounterBits::B32), None);
        assert_eq!(wrapped[1].1, Bytes((1 << 32) - 300));
        assert_eq!(recorded(Meaning::Bytes, None)[0], (Some(10), Bytes(800), Some(Bytes(80))));
        let ten = Duration::from_secs(10);
        assert_eq!(recorded(Meaning::BytesPer(ten), Some(ten))[2], (Some(10), Bytes(700), Some(Bytes(95))));
        assert_eq!(recorded(Meaning::BitsPerSecond, None)[2], (Some(5), Rate(700), Some(Rate(95))));
    }

    #[test]
    fn a_counter_that_is_too_wide_is_a_bad_row() {
        let text = Box::new(&b"timestamp,value\n1,4294967296\n"[..]);
        let csv = Csv::from_reader(text, "in.csv".to_owned(), &dialect());
        let mut rows = ReplayRows::new(csv.unwrap(), Meaning::Counter(CounterBits::B32), None, "eth0");
        let Err(RowError::Bad { line: 2, reason }) = rows.next() else { panic!("it was taken") };
        assert!(reason.starts_with("in.csv:2: 4294967296 exceeds"), "{reason}");
    }

    #[test]
    fn the_line_to_go_on_with_is_that_of_the_oldest_pending_event() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let mut undelivered = Undelivered::default();
        undelivered.add(at(10), 2, None);
        undelivered.add(at(20), 3, Some(at(10)));
        undelivered.add(at(30), 5, Some(at(20)));
        assert_eq!(undelivered.first(Some(at(20)), 6), 3);
        assert_eq!(undelivered.first(Some(at(30)), 6), 5);
        assert_eq!(undelivered.first(None, 6), 6);
        undelivered.add(at(40), 6, None);
        assert_eq!(undelivered.lines.len(), 1);
    }
}
