//! Axes of values: a scale, and ticks at round values with their unit.

use crate::units::{BitRate, ByteCount};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    BitRate,
    Bytes,
    Seconds,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    Linear { from: f64, to: f64 },
    Log { from: f64, to: f64 },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AxisTick {
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// `ticks` are in ascending order, at least two. `unit` is empty where each label has its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) scale: Scale,
    pub(crate) ticks: Vec<AxisTick>,
    pub(crate) unit: &'static str,
}

impl Quantity {
    fn units(self) -> &'static [(&'static str, f64)] {
        const KIB: f64 = 1_024.0;
        match self {
            Self::BitRate => &[("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9), ("Tbit/s", 1e12)],
            Self::Bytes => &[
                ("B", 1.0),
                ("KiB", KIB),
                ("MiB", KIB * KIB),
                ("GiB", KIB * KIB * KIB),
                ("TiB", KIB * KIB * KIB * KIB),
            ],
            Self::Seconds => &[("s", 1.0)],
        }
    }

    fn unit(self, value: f64) -> (&'static str, f64) {
        let units = self.units();
        *units.iter().rev().find(|(_, factor)| value >= *factor).unwrap_or(&units[0])
    }

    pub(crate) fn show(self, value: u64) -> String {
        match self {
            Self::BitRate => BitRate::from_bps(value).to_string(),
            Self::Bytes => ByteCount::from_bytes(value).to_string(),
            Self::Seconds => format!("{} s", grouped(value as f64, 0)),
        }
    }

    /// Formats a value with at most one decimal. Takes more than a `u64`, since the tick above the largest value is shown too.
    pub(crate) fn show_round(self, value: f64) -> String {
        let (unit, factor) = self.unit(value);
        let scaled = value / factor;
        let tenths = (scaled * 10.0).round() / 10.0;
        format!("{} {unit}", if tenths.fract() == 0.0 { grouped(tenths, 0) } else { grouped(tenths, 1) })
    }
}

impl Scale {
    /// Returns a place from 0 to 1; values outside of the axis are at its ends.
    pub(crate) fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { from, to } => (value - from) / (to - from),
            Self::Log { from, to } if value > from => (value / from).log10() / (to / from).log10(),
            Self::Log { .. } => 0.0,
        };
        place.clamp(0.0, 1.0)
    }

    pub(crate) fn end(self) -> f64 {
        match self {
            Self::Linear { to, .. } | Self::Log { to, .. } => to,
        }
    }
}

impl Axis {
    /// Makes an axis from 0 that ends at a tick, or a little above `max` where the next tick would leave much of it empty.
    pub(crate) fn linear(quantity: Quantity, max: u64, ticks_max: usize) -> Self {
        let max = max.max(1) as f64;
        let (unit, factor) = quantity.unit(max);
        let intervals_max = (ticks_max.max(2) - 1) as f64;
        // Units of the smallest size count things, of which there is no half.
        let smallest = if factor == 1.0 { 0 } else { -3 };
        let (step, decimals) = round_steps(smallest)
            .find(|(step, _)| (max / factor / step).ceil() <= intervals_max)
            .expect("steps grow without end");
        let scaled = max / factor;
        let tick = (scaled / step).ceil().max(1.0) * step;
        let close = (scaled * 1.06).max(step);
        let end = if tick > scaled * 1.25 { close.min(tick) } else { tick };
        let ticks = (0..=(end / step * 1.000_001) as u32).map(|at| {
            let scaled = f64::from(at) * step;
            AxisTick { value: scaled * factor, label: grouped(scaled, decimals) }
        });
        let unit = if quantity == Quantity::Seconds { "seconds" } else { unit };
        Self { scale: Scale::Linear { from: 0.0, to: end * factor }, ticks: ticks.collect(), unit }
    }

    /// Makes an axis without zero, from a power of ten up to 1, 2 or 5 times another, that holds `min` and `max`.
    pub(crate) fn log(quantity: Quantity, min: u64, max: u64, ticks_max: usize) -> Self {
        let from = (min.max(1) as f64).log10().floor() as i32;
        let decades = round_values(from, 40).find(|(_, value)| *value >= max as f64).map_or(40, |(decade, _)| decade);
        let end = round_values(from, 40)
            .map(|(_, value)| value)
            .find(|value| *value >= max as f64 && *value >= 10.0_f64.powi(from + 1))
            .unwrap_or_else(|| 10.0_f64.powi(from + decades));
        let ticks_max = ticks_max.max(2);
        let each: Vec<f64> = round_values(from, 40).map(|(_, value)| value).take_while(|value| *value <= end).collect();
        let whole: Vec<f64> = each.iter().copied().step_by(3).collect();
        let values = if each.len() <= ticks_max {
            each
        } else {
            let every = whole.len().div_ceil(ticks_max);
            whole.into_iter().step_by(every).collect()
        };
        let ticks = values.into_iter().map(|value| AxisTick { value, label: quantity.show_round(value.round()) });
        Self { scale: Scale::Log { from: 10.0_f64.powi(from), to: end }, ticks: ticks.collect(), unit: "" }
    }

    pub(crate) fn place(&self, value: u64) -> f64 {
        self.scale.place(value as f64)
    }
}

/// Returns 1, 2, 5, 10, 20, … with the decimals that each needs.
fn round_steps(smallest: i32) -> impl Iterator<Item = (f64, usize)> {
    (smallest..).flat_map(|exponent| {
        let decimals = exponent.min(0).unsigned_abs() as usize;
        [1.0, 2.0, 5.0].map(|step| {
            let scaled = if exponent < 0 { step / 10.0_f64.powi(-exponent) } else { step * 10.0_f64.powi(exponent) };
            (scaled, decimals)
        })
    })
}

fn round_values(from: i32, decades: i32) -> impl Iterator<Item = (i32, f64)> {
    (0..decades).flat_map(move |decade| [1.0, 2.0, 5.0].map(|step| (decade, step * 10.0_f64.powi(from + decade))))
}

pub(crate) fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, fraction)| (whole, fraction));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.extend([".", fraction]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> String {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_linear_axis_counts_in_round_steps_of_one_unit() {
        for (quantity, max, ticks_max, expected, unit) in [
            (Quantity::BitRate, 97_900_000, 6, "0 20 40 60 80 100", "Mbit/s"),
            (Quantity::BitRate, 1_400_000, 5, "0.0 0.5 1.0 1.5", "Mbit/s"),
            (Quantity::BitRate, 1_100_000, 5, "0.0 0.5 1.0", "Mbit/s"),
            (Quantity::BitRate, 0, 5, "0 1", "bit/s"),
            (Quantity::Bytes, 20 << 20, 5, "0 5 10 15 20", "MiB"),
            (Quantity::Seconds, 86_400, 5, "0 50,000 100,000", "seconds"),
            (Quantity::Seconds, 3, 9, "0 1 2 3", "seconds"),
        ] {
            let axis = Axis::linear(quantity, max, ticks_max);
            assert_eq!((labels(&axis).as_str(), axis.unit), (expected, unit), "{max}");
        }
    }

    #[test]
    fn a_log_axis_has_decades_and_what_is_round_between_them() {
        let rates = |min, max, ticks_max| labels(&Axis::log(Quantity::BitRate, min, max, ticks_max));
        assert_eq!(rates(1_000, 90_000_000, 6), "1 kbit/s 10 kbit/s 100 kbit/s 1 Mbit/s 10 Mbit/s 100 Mbit/s");
        assert_eq!(rates(20_000, 170_000, 6), "10 kbit/s 20 kbit/s 50 kbit/s 100 kbit/s 200 kbit/s");
        assert_eq!(rates(1_000, 900_000_000_000, 4), "1 kbit/s 1 Mbit/s 1 Gbit/s 1 Tbit/s");
        assert_eq!(rates(5, 5, 4), "1 bit/s 2 bit/s 5 bit/s 10 bit/s");
        assert_eq!(rates(10_u64.pow(19) - 1, u64::MAX, 3), "10,000,000 Tbit/s 100,000,000 Tbit/s");
    }

    #[test]
    fn a_place_is_between_the_ends_and_zero_is_at_the_bottom_of_a_log_axis() {
        let log = Axis::log(Quantity::BitRate, 1_000, 1_000_000, 9);
        assert_eq!([0, 1, 1_000, 1_000_000, 5_000_000].map(|rate| log.place(rate)), [0.0, 0.0, 0.0, 1.0, 1.0]);
        assert!((log.place(31_623) - 0.5).abs() < 1e-4);
        assert_eq!(Axis::linear(Quantity::BitRate, 100, 6).place(50), 0.5);
    }

    fn assert_sound(axis: &Axis, max: u64, ticks_max: usize) -> Result<(), proptest::test_runner::TestCaseError> {
        let places: Vec<f64> = axis.ticks.iter().map(|tick| axis.scale.place(tick.value)).collect();
        proptest::prop_assert!((2..=ticks_max).contains(&places.len()), "{axis:?}");
        proptest::prop_assert!(places.is_sorted_by(|a, b| a < b), "{axis:?}");
        proptest::prop_assert!(axis.ticks.iter().all(|tick| tick.value <= axis.scale.end() * 1.000_001), "{axis:?}");
        proptest::prop_assert!(axis.scale.end() >= max as f64 * 0.999_999, "{axis:?}");
        let unique: std::collections::BTreeSet<&str> = axis.ticks.iter().map(|tick| tick.label.as_str()).collect();
        proptest::prop_assert_eq!(unique.len(), axis.ticks.len());
        // Round: one digit other than zero, or a whole multiple of the first step.
        let digits = axis.ticks[1].label.trim_start_matches(['0', '.']).chars().take_while(char::is_ascii_digit);
        let first: String = digits.collect();
        proptest::prop_assert!(["1", "2", "5"].contains(&first.trim_end_matches('0')), "{axis:?}");
        Ok(())
    }

    proptest::proptest! {
        #[test]
        fn ticks_are_round_inside_and_at_most_so_many(value: u64, shift in 0_u32..64, ticks_max in 2_usize..14) {
            let max = value >> shift;
            for quantity in [Quantity::BitRate, Quantity::Bytes, Quantity::Seconds] {
                assert_sound(&Axis::linear(quantity, max, ticks_max), max, ticks_max)?;
            }
        }

        #[test]
        fn log_ticks_too(value: u64, shift in 0_u32..64, range in 0_u32..40, ticks_max in 2_usize..14) {
            let max = (value >> shift).max(1);
            assert_sound(&Axis::log(Quantity::BitRate, max >> range, max, ticks_max), max, ticks_max)?;
        }
    }
}
