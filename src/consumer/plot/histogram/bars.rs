use crate::consumer::plot::axis::{Axis, Scale};

#[derive(Clone, Debug)]
pub(super) struct Bars {
    pub(super) axis: Axis,
    pub(super) bars: Vec<Bar>,
    /// Seconds at rates below a logarithmic axis, zero among them.
    pub(super) below: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) seconds: f64,
}

impl Bars {
    pub(super) fn counts(&self) -> impl Iterator<Item = f64> {
        self.bars.iter().map(|bar| bar.seconds).chain(self.below)
    }
}

/// Puts bins `(from, to, count)` into at most `bars_max` bars of round width. A bin over several bars is spread over them.
pub(super) fn bars(bins: &[(u64, u64, u64)], axis: Axis, bars_max: usize) -> Bars {
    let edges = edges(&axis, bars_max.max(1));
    let mut bars: Vec<Bar> = edges.windows(2).map(|edge| Bar { from: edge[0], to: edge[1], seconds: 0.0 }).collect();
    let mut below = matches!(axis.scale, Scale::Log { .. }).then_some(0.0);
    let begin = edges[0];
    for &(from, to, count) in bins.iter().filter(|bin| bin.2 > 0) {
        let (from, to) = (from as f64, to.max(from + 1) as f64);
        if let Some(below) = below.as_mut()
            && from < begin
        {
            *below += count as f64;
            continue;
        }
        let last = bars.len() - 1;
        let first = bars.partition_point(|bar| bar.to <= from).min(last);
        for (at, bar) in bars.iter_mut().enumerate().skip(first) {
            let end = if at == last { f64::INFINITY } else { bar.to };
            let share = ((to.min(end) - from.max(bar.from)) / (to - from)).clamp(0.0, 1.0);
            bar.seconds += share * count as f64;
            if to <= end {
                break;
            }
        }
    }
    Bars { axis, bars, below: below.filter(|below| *below > 0.0) }
}

fn edges(axis: &Axis, bars_max: usize) -> Vec<f64> {
    match axis.scale {
        Scale::Linear { to, .. } => {
            // Bars of a round width divide the distance of two ticks.
            let between = axis.ticks[1].value - axis.ticks[0].value;
            let ticks = to / between;
            let parts = [100.0, 50.0, 40.0, 25.0, 20.0, 10.0, 8.0, 5.0, 4.0, 2.0, 1.0];
            let parts = parts.into_iter().find(|parts| ticks * parts <= bars_max as f64).unwrap_or(1.0);
            let count = ((ticks * parts).round() as usize).max(1);
            (0..=count).map(|at| at as f64 * to / count as f64).collect()
        }
        Scale::Log { from, to } => {
            let decades = (to / from).log10();
            let parts = [20.0, 10.0, 5.0, 4.0, 2.0, 1.0];
            let parts = parts.into_iter().find(|parts| decades * parts <= bars_max as f64).unwrap_or(1.0);
            let count = ((decades * parts - 1e-9).ceil() as usize).max(1);
            let edge = |at: usize| (from * 10.0_f64.powf(at as f64 / parts)).min(to);
            (0..=count).map(edge).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::plot::axis::Quantity;

    #[test]
    fn bars_are_of_round_width_and_hold_every_second() {
        let axis = Axis::linear(Quantity::BitRate, 97_900_000, 6);
        let bars = bars(&[(0, 1_000, 3_000), (9_900_000, 10_100_000, 10), (97_000_000, 98_000_000, 1)], axis, 60);
        assert_eq!((bars.bars.len(), bars.bars[0].to), (50, 2e6));
        let seconds = |at: usize| bars.bars[at].seconds;
        assert_eq!((seconds(0), seconds(4), seconds(5), seconds(48)), (3_000.0, 5.0, 5.0, 1.0));
    }

    #[test]
    fn a_log_axis_keeps_the_seconds_at_zero_apart() {
        let axis = Axis::log(Quantity::BitRate, 1_000, 1_000_000, 6);
        let bars = bars(&[(0, 1_000, 7), (1_000, 2_000, 5)], axis, 30);
        assert_eq!(bars.below, Some(7.0));
        assert!((bars.bars.iter().map(|bar| bar.seconds).sum::<f64>() - 5.0).abs() < 1e-9);
    }

    proptest::proptest! {
        #[test]
        fn no_second_is_lost(
            bins in proptest::collection::vec((0_u64..1_000_000_000_000, 1_u64..1_000_000, 0_u64..100_000), 1..50),
            bars_max in 1_usize..120, log: bool,
        ) {
            let bins: Vec<(u64, u64, u64)> = bins.iter().map(|(from, length, count)| (*from, from + length, *count)).collect();
            let top = bins.iter().map(|bin| bin.1).max().unwrap();
            let axis = if log {
                Axis::log(Quantity::BitRate, 1_000, top, 6)
            } else {
                Axis::linear(Quantity::BitRate, top, 6)
            };
            let bars = bars(&bins, axis, bars_max);
            let (given, drawn) = (bins.iter().map(|bin| bin.2).sum::<u64>() as f64, bars.counts().sum::<f64>());
            proptest::prop_assert!((given - drawn).abs() <= given * 1e-9 + 1e-6, "{} {}", given, drawn);
            proptest::prop_assert!(bars.bars.is_sorted_by(|a, b| a.to <= b.from));
        }
    }
}
