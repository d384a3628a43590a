//! Puts rows in order of time. A row that is not later than the one before is bad, unless the one before was. A row that jumps
//! ahead is held until the next shows if time continues there. The first row is held for the second, which shows its duration.

use std::collections::VecDeque;
use std::time::Duration;

use super::csv::CsvRecord;
use super::text::shown;
use super::times::RowTime;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) record: CsvRecord,
    pub(super) at: Duration,
    /// Time since the row before; for the first row, until the next. `None` for a single row.
    pub(super) spacing: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RowOutcome {
    Placed(Placed),
    Bad { line: u64, reason: String },
    Failed { line: u64, reason: String },
}

#[derive(Debug, Default)]
pub(super) struct RowOrder {
    interval: Option<Duration>,
    step: Option<Duration>,
    last: Option<Duration>,
    began: Option<Duration>,
    last_values: (u64, Option<u64>),
    first: Option<CsvRecord>,
    ahead: Option<(CsvRecord, Duration)>,
    back: Option<CsvRecord>,
    staged: Vec<RowOutcome>,
    outcomes: VecDeque<RowOutcome>,
}

/// Multiple of the usual time between rows above which it is a jump or a pause.
pub(super) const PAUSE_INTERVALS: f64 = 3.5;

/// Number of outcomes waiting behind a held row at which a bad row ends the wait: the held one is decided without a further good row.
const STAGED_MAX: usize = 16;

/// Shift of clocks at the end of daylight saving time.
const SET_BACK: Duration = Duration::from_secs(3_600);

impl RowOutcome {
    fn line(&self) -> u64 {
        match self {
            Self::Placed(placed) => placed.record.line,
            Self::Bad { line, .. } | Self::Failed { line, .. } => *line,
        }
    }
}

impl RowOrder {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self { interval, step: interval, ..Self::default() }
    }

    pub(super) fn pop(&mut self) -> Option<RowOutcome> {
        self.outcomes.pop_front()
    }

    pub(super) fn push(&mut self, record: CsvRecord) {
        self.place(record);
        self.emit_decided();
    }

    pub(super) fn bad(&mut self, line: u64, reason: String) {
        self.staged.push(RowOutcome::Bad { line, reason });
        if self.staged.len() >= STAGED_MAX {
            self.release();
        }
        self.emit_decided();
    }

    pub(super) fn end(&mut self) {
        match &self.back {
            Some(back) => self.fail(back.line, NEWEST_FIRST.to_owned()),
            None => self.release(),
        }
        self.emit_decided();
    }

    fn emit_decided(&mut self) {
        let held = [self.first.as_ref(), self.ahead.as_ref().map(|(ahead, _)| ahead), self.back.as_ref()];
        let held = held.into_iter().flatten().map(|record| record.line).min().unwrap_or(u64::MAX);
        self.staged.sort_by_key(RowOutcome::line);
        let decided = self.staged.partition_point(|outcome| outcome.line() < held);
        self.outcomes.extend(self.staged.drain(..decided));
    }

    fn release(&mut self) {
        if let Some(back) = self.back.take() {
            self.staged.push(not_after(&back));
        }
        if let Some((record, at)) = self.ahead.take() {
            self.accept(record, at);
        }
        if let (Some(record), Some(at)) = (self.first.take(), self.last) {
            self.staged.push(RowOutcome::Placed(Placed { record, at, spacing: None }));
        }
    }

    fn place(&mut self, record: CsvRecord) {
        if let Some(back) = self.back.take() {
            return self.place_third(back, record);
        }
        if let Some((ahead, at)) = self.ahead.take() {
            return self.place_behind(ahead, at, record);
        }
        let Some(last) = self.last else { return self.accept_first(record) };
        let at = record.moment.after(Some(last));
        if at > last {
            if self.jumps(at - last) {
                self.ahead = Some((record, at));
            } else {
                self.accept(record, at);
            }
        } else if self.first.is_some() && at < last {
            self.back = Some(record);
        } else if self.is_hour_again(&record, at, last) {
            let reason = format!(
                "{} comes a second time, as where clocks are set back in autumn; say where these times are from with --time-zone, \
                 as in --time-zone Europe/Berlin",
                shown(&record.time)
            );
            self.fail(record.line, reason);
        } else if self.began.is_some_and(|began| at <= began) && self.first.is_none() {
            let reason = format!(
                "the timestamp `{}` is that of the first row or before it; if another series begins here, keep one of them in the \
                 file",
                shown(&record.time)
            );
            self.staged.push(RowOutcome::Bad { line: record.line, reason });
        } else {
            self.staged.push(not_after(&record));
        }
    }

    fn accept_first(&mut self, record: CsvRecord) {
        self.last = Some(record.moment.after(None));
        self.began = self.last;
        self.first = Some(record);
    }

    /// Places the row behind one that jumped ahead, which was wrong if this row continues from before the jump.
    fn place_behind(&mut self, ahead: CsvRecord, ahead_at: Duration, next: CsvRecord) {
        let last = self.last.unwrap_or_default();
        let at = next.moment.after(Some(last));
        let goes_on = next.moment.after(Some(ahead_at)) > ahead_at;
        if !goes_on && at > last && ahead_at - last > (at - last).mul_f64(PAUSE_INTERVALS) {
            self.staged.push(too_far_ahead(&ahead));
        } else {
            self.accept(ahead, ahead_at);
        }
        self.place(next);
    }

    fn place_third(&mut self, second: CsvRecord, third: CsvRecord) {
        let first_at = self.last.unwrap_or_default();
        let second_at = second.moment.after(None);
        if third.moment.after(Some(first_at)) > first_at {
            self.staged.push(not_after(&second));
            self.place(third);
        } else if third.moment.after(Some(second_at)) > second_at {
            if let Some(first) = self.first.take() {
                self.staged.push(too_far_ahead(&first));
            }
            self.accept_first(second);
            self.place(third);
        } else {
            self.fail(second.line, NEWEST_FIRST.to_owned());
        }
    }

    fn accept(&mut self, record: CsvRecord, at: Duration) {
        let last = self.last.unwrap_or(at);
        let spacing = Some(at.saturating_sub(last));
        if let Some(first) = self.first.take() {
            self.staged.push(RowOutcome::Placed(Placed { record: first, at: last, spacing }));
        }
        if self.interval.is_none() && spacing.is_some_and(|spacing| self.step.is_none() || !self.jumps(spacing)) {
            self.step = spacing;
        }
        self.last = Some(at);
        self.last_values = (record.rx, record.tx);
        self.staged.push(RowOutcome::Placed(Placed { record, at, spacing }));
    }

    fn jumps(&self, by: Duration) -> bool {
        self.step.is_none_or(|step| by > step.mul_f64(PAUSE_INTERVALS))
    }

    fn is_hour_again(&self, record: &CsvRecord, at: Duration, last: Duration) -> bool {
        let Some(step) = self.step.filter(|step| *step <= SET_BACK) else { return false };
        let expected = (last + step).saturating_sub(SET_BACK);
        let is_double = at == last && self.last_values == (record.rx, record.tx);
        matches!(record.moment, RowTime::AssumedUtc(_)) && at.abs_diff(expected) <= step / 2 && !is_double
    }

    fn fail(&mut self, line: u64, reason: String) {
        (self.first, self.ahead, self.back) = (None, None, None);
        self.staged.push(RowOutcome::Failed { line, reason });
    }
}

const NEWEST_FIRST: &str = "the rows are sorted newest first; turn them round: `{ head -n 1 FILE; tail -n +2 FILE | tac; } | \
                            highwater-agent replay - ...`";

fn not_after(record: &CsvRecord) -> RowOutcome {
    let reason = format!("the timestamp `{}` is not after that of the row before", shown(&record.time));
    RowOutcome::Bad { line: record.line, reason }
}

fn too_far_ahead(record: &CsvRecord) -> RowOutcome {
    let reason = format!("the timestamp `{}` is after those of the rows that follow", shown(&record.time));
    RowOutcome::Bad { line: record.line, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the outcomes of rows at these times: `second+spacing`, or the line and its error.
    fn placed(interval: Option<u64>, moments: &[RowTime]) -> Vec<String> {
        let mut order = RowOrder::new(interval.map(Duration::from_secs));
        for (at, moment) in moments.iter().enumerate() {
            let line = at as u64 + 2;
            order.push(CsvRecord { line, time: format!("{moment:?}").into(), moment: *moment, rx: line, tx: None });
        }
        order.end();
        let shown = |outcome| match outcome {
            RowOutcome::Placed(Placed { at, spacing, .. }) => {
                format!("{}+{}", at.as_secs(), spacing.map_or("?".to_owned(), |spacing| spacing.as_secs().to_string()))
            }
            RowOutcome::Bad { line, .. } => format!("{line} bad"),
            RowOutcome::Failed { line, reason } => format!("{line}: {}", reason.split(';').next().unwrap_or_default()),
        };
        std::iter::from_fn(|| order.pop()).map(shown).collect()
    }

    fn seconds(interval: Option<u64>, seconds: &[u64]) -> Vec<String> {
        let moments: Vec<RowTime> = seconds.iter().map(|at| RowTime::Exact(Duration::from_secs(*at))).collect();
        placed(interval, &moments)
    }

    fn assumed(interval: Option<u64>, minutes: &[u64]) -> Vec<String> {
        let moments: Vec<RowTime> =
            minutes.iter().map(|at| RowTime::AssumedUtc(Duration::from_secs(at * 60))).collect();
        placed(interval, &moments)
    }

    #[test]
    fn the_first_row_lasts_as_long_as_the_next() {
        assert_eq!(seconds(None, &[10, 15, 25]), ["10+5", "15+5", "25+10"]);
        assert_eq!(seconds(Some(5), &[10, 15, 25]), ["10+5", "15+5", "25+10"]);
        assert_eq!(seconds(None, &[10, 15]), ["10+5", "15+5"]);
        assert_eq!(seconds(None, &[10]), ["10+?"]);
        assert_eq!(seconds(None, &[]), [""; 0]);
    }

    #[test]
    fn a_row_that_jumps_ahead_is_bad_if_the_next_goes_back() {
        assert_eq!(seconds(Some(5), &[10, 15, 9_999, 20]), ["10+5", "15+5", "4 bad", "20+5"]);
        assert_eq!(seconds(None, &[10, 9_999, 15, 20]), ["10+5", "3 bad", "15+5", "20+5"]);
        assert_eq!(seconds(None, &[9_999, 10, 15, 20]), ["2 bad", "10+5", "15+5", "20+5"]);
        assert_eq!(seconds(Some(5), &[10, 15, 9_999, 10_004]), ["10+5", "15+5", "9999+9984", "10004+5"]);
        assert_eq!(seconds(Some(5), &[10, 15, 9_999]), ["10+5", "15+5", "9999+9984"]);
        assert_eq!(
            seconds(Some(5), &[10, 15, 9_999, 20, 9_999, 25]),
            ["10+5", "15+5", "4 bad", "20+5", "6 bad", "25+5"]
        );
    }

    #[test]
    fn a_row_that_falls_behind_is_bad() {
        assert_eq!(seconds(None, &[10, 30, 20, 40]), ["10+20", "30+20", "4 bad", "40+10"]);
        assert_eq!(seconds(None, &[10, 5, 15, 20]), ["10+5", "3 bad", "15+5", "20+5"]);
        assert_eq!(seconds(None, &[10, 10, 15, 15]), ["10+5", "3 bad", "15+5", "5 bad"]);
    }

    #[test]
    fn a_series_that_is_newest_first_is_refused_once() {
        let refused = ["3: the rows are sorted newest first"];
        assert_eq!(seconds(None, &[30, 20, 10])[..], refused);
        assert_eq!(seconds(Some(10), &[30, 20])[..], refused);
        assert_eq!(assumed(Some(1_800), &[90, 60, 30])[..], refused);
    }

    #[test]
    fn an_hour_that_comes_again_without_a_zone_is_refused() {
        let again = |found: Vec<String>| found.iter().any(|outcome| outcome.contains("comes a second time"));
        assert!(again(assumed(Some(900), &[90, 105, 120, 135, 150, 165, 120, 135])));
        assert!(again(assumed(None, &[90, 105, 120, 135, 150, 165, 120, 135])));
        assert!(again(assumed(None, &[0, 60, 120, 120, 180])), "a row an hour");
        assert_eq!(assumed(None, &[0, 5, 10, 7, 15]), ["0+300", "300+300", "600+300", "5 bad", "900+300"]);
        assert_eq!(seconds(None, &[0, 900, 1_800, 2_700, 0]).last().unwrap(), "6 bad", "their offset was given");
    }

    #[test]
    fn bad_rows_wait_behind_one_that_is_held() {
        let at = |line: u64, at: u64| {
            let moment = RowTime::Exact(Duration::from_secs(at));
            CsvRecord { line, time: "t".into(), moment, rx: 0, tx: None }
        };
        let mut order = RowOrder::new(None);
        order.push(at(2, 10));
        order.bad(3, "bad".to_owned());
        assert_eq!(order.pop(), None, "or a run that is stopped here would go on behind the first row");
        order.push(at(4, 20));
        order.bad(5, "bad".to_owned());
        order.push(at(6, 30));
        let lines: Vec<u64> = std::iter::from_fn(|| order.pop()).map(|outcome| outcome.line()).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6]);
        let mut order = RowOrder::new(None);
        order.push(at(2, 10));
        (3..100).for_each(|line| order.bad(line, "bad".to_owned()));
        assert!(order.pop().is_some(), "not for ever");
    }

    proptest::proptest! {
        #[test]
        fn every_row_has_one_outcome_and_time_goes_on(
            seconds in proptest::collection::vec(1_u64..60, 0..40),
            interval in proptest::option::of(1_u64..10),
        ) {
            let mut order = RowOrder::new(interval.map(Duration::from_secs));
            for (at, second) in seconds.iter().enumerate() {
                let moment = RowTime::Exact(Duration::from_secs(*second));
                order.push(CsvRecord { line: at as u64, time: "t".into(), moment, rx: 0, tx: None });
            }
            order.end();
            let outcomes: Vec<RowOutcome> = std::iter::from_fn(|| order.pop()).collect();
            let failed = outcomes.iter().any(|outcome| matches!(outcome, RowOutcome::Failed { .. }));
            assert!(failed || outcomes.len() == seconds.len());
            let lines: Vec<u64> = outcomes.iter().map(RowOutcome::line).collect();
            assert!(lines.is_sorted());
            let times = outcomes.iter().filter_map(|outcome| match outcome {
                RowOutcome::Placed(placed) => Some(placed.at),
                _ => None,
            });
            assert!(times.collect::<Vec<_>>().windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
