use chrono::{DateTime, TimeDelta, Utc};

use crate::consumer::report::rates::RatePoint;

/// A window, or several that share a place; without rates where nothing was measured. `measured` is a share from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RateColumn {
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
    pub(super) p50: Option<u64>,
    pub(super) p95: Option<u64>,
    pub(super) max: Option<u64>,
    pub(super) measured: f64,
    pub(super) windows: usize,
}

impl RateColumn {
    pub(super) fn unmeasured_s(&self) -> i64 {
        ((self.to - self.from).as_seconds_f64() * (1.0 - self.measured)).round() as i64
    }

    pub(super) fn is_partial(&self) -> bool {
        self.max.is_some() && self.measured < 0.995
    }

    fn raise_to(&mut self, other: &Self) {
        (self.max, self.p95, self.p50) = (self.max.max(other.max), self.p95.max(other.p95), self.p50.max(other.p50));
        self.measured = self.measured.max(other.measured);
        self.windows += other.windows;
    }

    fn of(point: &RatePoint, from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        let seconds = u64::from(point.measured_s) + u64::from(point.unmeasured_s);
        let measured = if seconds == 0 { 0.0 } else { f64::from(point.measured_s) / seconds as f64 };
        let max = point.max.filter(|_| point.measured_s > 0);
        // A row may be inconsistent: a max below its p95 would turn the bands inside out.
        let p95 = max.and(point.p95).or(max).map(|p95| p95.min(max.unwrap_or(p95)));
        let p50 = max.and(point.p50).or(p95).map(|p50| p50.min(p95.unwrap_or(p50)));
        Self { from, to, p50, p95, max, measured, windows: 1 }
    }
}

pub(super) fn columns(
    points: &[RatePoint],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    columns_max: usize,
) -> Vec<RateColumn> {
    let mut inside: Vec<&RatePoint> = points.iter().filter(|point| is_inside(point, from, to)).collect();
    if inside.len() > columns_max {
        return slices(points, from, to, columns_max).into_iter().flatten().collect();
    }
    inside.sort_by_key(|point| point.started_at);
    let mut columns: Vec<RateColumn> = Vec::with_capacity(inside.len());
    for point in inside {
        let begin = columns.last().map_or(from, |last| last.to).max(point.started_at);
        let end = point.ended_at.min(to);
        match columns.last_mut() {
            // Two epochs may have reported one time.
            Some(last) if begin >= end => last.raise_to(&RateColumn::of(point, begin, end)),
            _ => columns.push(RateColumn::of(point, begin, end)),
        }
    }
    columns
}

fn is_inside(point: &RatePoint, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
    point.started_at < to && point.ended_at > from && point.started_at < point.ended_at
}

pub(super) fn slices(
    points: &[RatePoint],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    count: usize,
) -> Vec<Option<RateColumn>> {
    let length = (to - from).as_seconds_f64() / count as f64;
    let edge = |at: usize| from + TimeDelta::microseconds((at as f64 * length * 1e6) as i64);
    let mut found: Vec<Vec<&RatePoint>> = vec![Vec::new(); count];
    for point in points.iter().filter(|point| is_inside(point, from, to)) {
        let place = |time: DateTime<Utc>| ((time - from).as_seconds_f64() / length).clamp(0.0, count as f64);
        // From the first slice whose middle is inside of the window up to the last one, or where the window's own middle is.
        let (first, end) = ((place(point.started_at) - 0.5).ceil(), (place(point.ended_at) - 0.5).ceil());
        let middle = place(point.started_at + (point.ended_at - point.started_at) / 2) as usize;
        let middle = middle.min(count.saturating_sub(1));
        let range = if end > first { first as usize..(end as usize).min(count) } else { middle..middle + 1 };
        found[range].iter_mut().for_each(|slice| slice.push(point));
    }
    let merged = |(at, points): (usize, Vec<&RatePoint>)| merge(&points, edge(at), edge(at + 1));
    found.into_iter().enumerate().map(merged).collect()
}

fn merge(points: &[&RatePoint], from: DateTime<Utc>, to: DateTime<Utc>) -> Option<RateColumn> {
    let columns: Vec<RateColumn> = points.iter().map(|point| RateColumn::of(point, from, to)).collect();
    let mut medians: Vec<u64> = columns.iter().filter_map(|column| column.p50).collect();
    medians.sort_unstable();
    let covered: f64 =
        points.iter().map(|point| (point.ended_at.min(to) - point.started_at.max(from)).as_seconds_f64()).sum();
    let share = columns.iter().map(|column| column.measured).sum::<f64>() / columns.len().max(1) as f64;
    let length = (to - from).as_seconds_f64();
    // Windows need not meet a slice's edges: time without one is unmeasured only if it is most of a slice of several windows.
    let missing = if covered < length * 0.5 && points.len() > 1 { covered / length } else { 1.0 };
    (!columns.is_empty()).then(|| RateColumn {
        from,
        to,
        p50: medians.get(medians.len() / 2).copied(),
        p95: columns.iter().filter_map(|column| column.p95).max(),
        max: columns.iter().filter_map(|column| column.max).max(),
        measured: share * missing,
        windows: points.len(),
    })
}

/// Returns the times that no column with rates covers. Less than a second is rounding.
pub(super) fn holes(
    columns: &[RateColumn],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
    let mut holes = Vec::new();
    let mut at = from;
    let measured = columns.iter().filter(|column| column.max.is_some());
    for (begin, end) in measured.map(|column| (column.from, column.to)).chain([(to, to)]) {
        if begin - at >= TimeDelta::seconds(1) {
            holes.push((at, begin));
        }
        at = end;
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_860_000 + minute * 60, 0).unwrap()
    }

    fn window(minute: i64, max: u64, measured_s: u32) -> RatePoint {
        let rate = (measured_s > 0).then_some(max);
        RatePoint {
            started_at: at(minute),
            ended_at: at(minute + 5),
            measured_s,
            unmeasured_s: 300 - measured_s,
            max: rate,
            p95: rate.map(|rate| rate / 2),
            p50: rate.map(|rate| rate / 4),
            ..RatePoint::default()
        }
    }

    #[test]
    fn a_hole_is_what_no_window_measured() {
        let points = [window(0, 80, 300), window(5, 90, 0), window(10, 40, 150), window(25, 40, 300)];
        let columns = columns(&points, at(0), at(40), 100);
        assert_eq!(holes(&columns, at(0), at(40)), [(at(5), at(10)), (at(15), at(25)), (at(30), at(40))]);
        assert_eq!(columns[2].unmeasured_s(), 150);
        assert_eq!(holes(&[], at(0), at(40)), [(at(0), at(40))]);
    }

    #[test]
    fn windows_that_share_a_place_keep_the_highest_second() {
        let points: Vec<RatePoint> = (0..12).map(|at| window(at * 5, 10 + at as u64, 300)).collect();
        let merged = columns(&points, at(0), at(60), 4);
        assert_eq!(merged.iter().map(|column| column.max.unwrap()).collect::<Vec<_>>(), [12, 15, 18, 21]);
        assert!(holes(&merged, at(0), at(60)).is_empty());
    }

    #[test]
    fn two_epochs_at_one_time_do_not_overlap() {
        let columns = columns(&[window(0, 10, 300), window(2, 20, 300)], at(0), at(10), 100);
        assert_eq!(
            columns.iter().map(|column| (column.from, column.to)).collect::<Vec<_>>(),
            [(at(0), at(5)), (at(5), at(7))]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_window_is_lost_and_none_is_made_up(
            windows in proptest::collection::vec((0_i64..600, 1_u64..1_000), 0..120), columns_max in 1_usize..90
        ) {
            let points: Vec<RatePoint> = windows.iter().map(|(minute, max)| window(*minute, *max, 300)).collect();
            let found = columns(&points, at(0), at(605), columns_max);
            proptest::prop_assert!(found.len() <= columns_max.max(points.len().min(columns_max)));
            proptest::prop_assert!(found.is_sorted_by(|a, b| a.to <= b.from));
            let drawn = found.iter().filter_map(|column| column.max).max();
            proptest::prop_assert_eq!(drawn, points.iter().filter_map(|point| point.max).max());
            for column in &found {
                proptest::prop_assert!(column.p50 <= column.p95 && column.p95 <= column.max);
            }
        }
    }
}
