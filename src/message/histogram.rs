//! Histograms of one-second rates in kbit/s: HdrHistogram with 2 significant digits, in its V2 format with deflate, which libraries
//! of many languages read. A rate of `k` to below `k + 1` kbit/s counts as `k`. Pure.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use hdrhistogram::{Counter, Histogram};

/// Highest rate that is counted as itself: 8.6 Tbit/s.
pub const KBPS_MAX: u64 = (1 << 33) - 1;
/// Seconds of one histogram: a million links for twelve days.
pub const SECONDS_MAX: u64 = 1 << 40;
/// Maximum size, deflated or inflated: [`KBPS_MAX`] needs 27 × 128 counts of at most 6 bytes each.
pub const BYTES_MAX: usize = 64 << 10;

const DIGITS: u8 = 2;
const COMPRESSED_COOKIE: u32 = 0x1c84_9314;
const PLAIN_COOKIE: u32 = 0x1c84_9313;
const COMPRESSED_HEADER_BYTES: usize = 8;
const PLAIN_HEADER_BYTES: usize = 40;
/// Number of distinct values up to [`KBPS_MAX`]: 256, and 128 for each further power of two.
const VALUES_MAX: u64 = 27 * 128;

/// Memory grows with the highest rate, to 14 kB with 32-bit counts.
#[derive(Clone, Debug, PartialEq)]
pub struct RateHistogram<C: Counter = u64>(Histogram<C>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    pub from_bps: u64,
    pub to_bps: u64,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HistogramError(String);

impl<C: Counter> Default for RateHistogram<C> {
    fn default() -> Self {
        Self(Histogram::new(DIGITS).expect("2 digits are allowed"))
    }
}

impl<C: Counter> RateHistogram<C> {
    /// Counts saturate, and a rate above [`KBPS_MAX`] counts as that.
    pub fn record(&mut self, bps: u64, seconds: C) {
        self.0.record_n(kbps(bps), seconds).expect("it grows as needed");
    }

    pub fn seconds(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.distinct_values() * size_of::<C>()
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it grows as needed");
    }

    /// Returns the rate that this share of the seconds does not exceed, from 0 to 1 in steps of 0.00001: that of the second at
    /// place `ceil(share × seconds)` in rising order, at most 1 % too high. `None` without seconds.
    pub fn quantile_bps(&self, share: f64) -> Option<u64> {
        // In whole numbers: as floating-point numbers, 0.55 × 100 is more than 55.
        let steps = (share * 100_000.0).round() as u128;
        let place = (u128::from(self.seconds()) * steps).div_ceil(100_000).max(1);
        let mut seconds = 0;
        let reached = self.0.iter_recorded().find(|value| {
            seconds += u128::from(value.count_at_value().as_u64());
            seconds >= place
        });
        reached.map(|value| self.0.highest_equivalent(value.value_iterated_to()) * 1_000)
    }

    /// Returns [`Self::quantile_bps`], but no rate outside of these seconds' exact ones, where known.
    pub fn quantile_within(&self, share: f64, min_bps: Option<u64>, max_bps: Option<u64>) -> Option<u64> {
        let bps = self.quantile_bps(share)?;
        Some(bps.max(min_bps.unwrap_or(bps)).min(max_bps.unwrap_or(bps)))
    }

    pub fn bins(&self) -> impl Iterator<Item = Bin> {
        self.0.iter_recorded().map(|value| Bin {
            from_bps: self.0.lowest_equivalent(value.value_iterated_to()) * 1_000,
            to_bps: self.0.next_non_equivalent(value.value_iterated_to()) * 1_000,
            count: value.count_at_value().as_u64(),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        HistogramEncoder::default().encode(self)
    }
}

impl RateHistogram {
    /// Fails if the bytes are no histogram of rates, or claim more than one can hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, HistogramError> {
        Self::decode_counts(bytes)
    }

    /// Converts to counts of another size; fails where one does not fit.
    pub fn decode_counts<C: Counter>(bytes: &[u8]) -> Result<RateHistogram<C>, HistogramError> {
        let plain = checked(bytes)?;
        let mut histogram: Histogram<C> = Deserializer::new()
            .deserialize(&mut plain.as_slice())
            .map_err(|error| HistogramError(error.to_string()))?;
        histogram.auto(true);
        Ok(RateHistogram(histogram))
    }
}

pub fn kbps(bps: u64) -> u64 {
    (bps / 1_000).min(KBPS_MAX)
}

/// Encodes histograms with one compressor, which takes more memory than they do.
pub struct HistogramEncoder {
    plain: Vec<u8>,
    serializer: V2Serializer,
    compress: Compress,
}

impl Default for HistogramEncoder {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            serializer: V2Serializer::new(),
            compress: Compress::new(Compression::default(), true),
        }
    }
}

impl HistogramEncoder {
    pub fn encode<C: Counter>(&mut self, histogram: &RateHistogram<C>) -> Vec<u8> {
        self.plain.clear();
        self.serializer.serialize(&histogram.0, &mut self.plain).expect("counts are below 2^63, and memory takes them");
        // Deflate adds 5 bytes to each block that does not become smaller; its header and its sum are 6 bytes.
        let mut bytes = Vec::with_capacity(COMPRESSED_HEADER_BYTES + self.plain.len() + self.plain.len() / 100 + 64);
        bytes.extend_from_slice(&COMPRESSED_COOKIE.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        self.compress.reset();
        self.compress.compress_vec(&self.plain, &mut bytes, FlushCompress::Finish).expect("memory takes it");
        let length = (bytes.len() - COMPRESSED_HEADER_BYTES) as u32;
        bytes[4..COMPRESSED_HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        bytes.shrink_to_fit();
        bytes
    }
}

/// Checks what [`RateHistogram::decode`] reads, without building it; fails as that does.
pub fn check(bytes: &[u8]) -> Result<(), HistogramError> {
    checked(bytes).map(drop)
}

/// Inflates and checks: the library would believe any length, and take memory for it.
fn checked(bytes: &[u8]) -> Result<Vec<u8>, HistogramError> {
    let refuse = |problem: String| Err(HistogramError(problem));
    if bytes.len() > BYTES_MAX {
        return refuse(format!("has {} bytes; at most {BYTES_MAX} are allowed", bytes.len()));
    }
    let Some((header, deflated)) = bytes.split_at_checked(COMPRESSED_HEADER_BYTES) else {
        return refuse("is truncated".to_owned());
    };
    if number::<4>(header, 0) != u64::from(COMPRESSED_COOKIE) || number::<4>(header, 4) != deflated.len() as u64 {
        return refuse("is no HdrHistogram V2 with deflate".to_owned());
    }
    let plain = inflate(deflated)?;
    if plain.len() > BYTES_MAX || plain.len() < PLAIN_HEADER_BYTES {
        return refuse(format!("inflates to {} bytes or more", plain.len().min(BYTES_MAX + 1)));
    }
    let (header, counts) = plain.split_at(PLAIN_HEADER_BYTES);
    let [cookie, length, offset, digits] = [0, 4, 8, 12].map(|place| number::<4>(header, place));
    let [low, high, ratio] = [16, 24, 32].map(|place| number::<8>(header, place));
    if cookie != u64::from(PLAIN_COOKIE) || length != counts.len() as u64 {
        return refuse("inflates to no HdrHistogram V2".to_owned());
    }
    if (offset, digits, low, f64::from_bits(ratio)) != (0, u64::from(DIGITS), 1, 1.0) {
        return refuse("is not in whole kbit/s with 2 significant digits".to_owned());
    }
    if !(2..=KBPS_MAX).contains(&high) {
        return refuse(format!("has room up to {high} kbit/s; at most {KBPS_MAX} are allowed"));
    }
    check_counts(counts)?;
    Ok(plain)
}

thread_local! {
    /// Kept, since it takes more memory, and more time to make, than a histogram.
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(true));
}

/// Inflates at most twice [`BYTES_MAX`]; the caller rejects what exceeds it.
fn inflate(deflated: &[u8]) -> Result<Vec<u8>, HistogramError> {
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(true);
        let mut plain = Vec::with_capacity(1 << 10);
        loop {
            let rest = &deflated[inflate.total_in() as usize..];
            let refuse = |problem: &str| Err(HistogramError(format!("cannot be inflated: {problem}")));
            match inflate.decompress_vec(rest, &mut plain, FlushDecompress::None) {
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(_) if plain.len() > BYTES_MAX => return Ok(plain),
                Ok(_) if plain.len() == plain.capacity() => plain.reserve(plain.len()),
                Ok(_) => return refuse("it is truncated"),
                Err(error) => return refuse(&error.to_string()),
            }
        }
    })
}

/// Reads zigzag numbers in little-endian base 128; a negative one stands for so many zeros.
fn check_counts(mut counts: &[u8]) -> Result<(), HistogramError> {
    let (mut values, mut seconds) = (0, 0_u64);
    while !counts.is_empty() {
        let mut number = 0;
        for place in 0..9 {
            let Some((&byte, rest)) = counts.split_first() else {
                return Err(HistogramError("ends within a count".to_owned()));
            };
            counts = rest;
            // The ninth byte has 8 bits.
            let bits = if place == 8 { byte } else { byte & 0x7f };
            number |= u64::from(bits) << (7 * place);
            if byte < 0x80 {
                break;
            }
        }
        let count = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
        let (of_values, of_seconds) = if count < 0 { (count.unsigned_abs(), 0) } else { (1, count.unsigned_abs()) };
        values = of_values.saturating_add(values);
        seconds = of_seconds.saturating_add(seconds);
        if values > VALUES_MAX || seconds > SECONDS_MAX {
            return Err(HistogramError(format!("claims {values} values and {seconds} seconds")));
        }
    }
    Ok(())
}

fn number<const N: usize>(bytes: &[u8], place: usize) -> u64 {
    bytes[place..place + N].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::damaged;

    fn of(rates: &[(u64, u32)]) -> RateHistogram<u32> {
        let mut histogram = RateHistogram::default();
        rates.iter().for_each(|(bps, seconds)| histogram.record(*bps, *seconds));
        histogram
    }

    fn rates() -> impl Strategy<Value = Vec<(u64, u32)>> {
        vec(((0..=64_u32).prop_flat_map(|bits| 0..=(u64::MAX >> (64 - bits.max(1)))), 1..1_000_u32), 0..50)
    }

    #[test]
    fn a_burst_of_a_second_is_seen_beside_five_minutes_of_little() {
        let histogram = of(&[(2_000_000, 299), (900_000_000, 1)]);
        assert_eq!(histogram.seconds(), 300);
        assert_eq!(histogram.quantile_bps(0.95), Some(2_007_000));
        let highest = histogram.quantile_bps(1.0).unwrap();
        assert!((900_000_000..909_000_000).contains(&highest), "{highest}");
        let bins: Vec<Bin> = histogram.bins().collect();
        assert_eq!(bins[0], Bin { from_bps: 2_000_000, to_bps: 2_008_000, count: 299 });
        assert!((bins[1].from_bps..bins[1].to_bps).contains(&900_000_000) && bins[1].count == 1, "{bins:?}");
        assert_eq!(RateHistogram::<u32>::default().quantile_bps(0.5), None);
        let hundred = of(&(1..=100).map(|kbps| (kbps * 1_000, 1)).collect::<Vec<_>>());
        assert_eq!([0.07, 0.28, 0.55].map(|share| hundred.quantile_bps(share)), [7_000, 28_000, 55_000].map(Some));
    }

    #[test]
    fn it_takes_memory_with_the_highest_rate_up_to_a_bound() {
        let bytes = |bps: u64| of(&[(bps, 1)]).memory_bytes();
        assert_eq!([0, 1_000_000_000, KBPS_MAX * 1_000, u64::MAX].map(bytes), [1_024, 7_168, 13_824, 13_824]);
        assert_eq!(of(&[(u64::MAX, 1)]).bins().next().unwrap().count, 1, "it counts as the highest");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rates in rates()) {
            let histogram = of(&rates);
            let bytes = histogram.encode();
            prop_assert_eq!(check(&bytes), Ok(()));
            let read = RateHistogram::decode(&bytes).unwrap();
            prop_assert!(read.bins().eq(histogram.bins()));
            prop_assert_eq!(read.seconds(), histogram.seconds());
            let mut encoder = HistogramEncoder::default();
            encoder.encode(&of(&[(5_000, 5)]));
            prop_assert_eq!(encoder.encode(&histogram), &bytes[..], "a compressor that was used before");
            prop_assert_eq!(read.encode(), bytes);
        }

        #[test]
        fn a_quantile_is_the_nearest_rank(rates in vec(0..20_000_000_000_u64, 1..300), steps in 1..=100_000_u64) {
            let mut sorted: Vec<u64> = rates.iter().map(|bps| kbps(*bps)).collect();
            sorted.sort_unstable();
            let histogram = of(&rates.iter().map(|bps| (*bps, 1)).collect::<Vec<_>>());
            for steps in [steps, 50_000, 55_000, 95_000, 99_000, 100_000] {
                let place = (rates.len() as u64 * steps).div_ceil(100_000) as usize;
                let expected = histogram.0.highest_equivalent(sorted[place - 1]) * 1_000;
                prop_assert_eq!(histogram.quantile_bps(steps as f64 / 100_000.0), Some(expected), "{}", steps);
            }
        }

        #[test]
        fn merging_is_counting_together(first in rates(), second in rates()) {
            let read = |rates: &[(u64, u32)]| RateHistogram::decode(&of(rates).encode()).unwrap();
            let together = read(&[&first[..], &second[..]].concat());
            for (one, other) in [(&first, &second), (&second, &first)] {
                let mut merged = RateHistogram::default();
                merged.merge(&read(one));
                merged.merge(&read(other));
                prop_assert!(merged.bins().eq(together.bins()));
                prop_assert_eq!(merged.seconds(), together.seconds());
            }
        }

        #[test]
        fn no_damage_panics_or_is_believed(bytes in damaged(rates().prop_map(|rates| of(&rates).encode()))) {
            if let Ok(histogram) = RateHistogram::decode(&bytes) {
                prop_assert!(histogram.seconds() <= SECONDS_MAX);
                prop_assert!(histogram.bins().all(|bin| bin.from_bps <= KBPS_MAX * 1_000));
            }
        }

        #[test]
        fn no_damage_below_deflate_panics(plain in damaged(rates().prop_map(|rates| inflated(&of(&rates).encode())))) {
            if let Ok(histogram) = RateHistogram::decode(&deflated(&plain)) {
                prop_assert!(histogram.seconds() <= SECONDS_MAX);
            }
        }
    }

    /// Counts as a histogram has them, most of them so large that they claim more seconds or values than there can be.
    fn claims() -> impl Strategy<Value = Vec<u8>> {
        let count = prop_oneof![vec(0x80..=0xff_u8, 8..10), vec(0x80..=0xff_u8, 0..9), vec(0..0x80_u8, 1..3)];
        vec(count, 0..40).prop_map(|counts| counts.concat())
    }

    proptest! {
        #[test]
        fn what_is_read_is_bounded_whatever_it_claims(
            digits in 0..6_u32,
            high in prop_oneof![Just(u64::MAX), Just(1 << 63), (0..64_u32).prop_map(|bits| (1 << bits) - 1), 2..10_000_u64],
            length in prop_oneof![4 => Just(None), 1 => any::<u32>().prop_map(Some)],
            counts in claims(),
        ) {
            let plain = [
                &PLAIN_COOKIE.to_be_bytes()[..], &length.unwrap_or(counts.len() as u32).to_be_bytes(), &[0; 4],
                &digits.to_be_bytes(), &1_u64.to_be_bytes(), &high.to_be_bytes(), &1_f64.to_be_bytes(), &counts,
            ];
            let bytes = deflated(&plain.concat());
            let (checked, read) = (check(&bytes), RateHistogram::decode(&bytes));
            if let Ok(histogram) = read {
                prop_assert_eq!(checked, Ok(()));
                prop_assert!(histogram.seconds() <= SECONDS_MAX);
                prop_assert!(histogram.0.distinct_values() as u64 <= VALUES_MAX);
                prop_assert!(histogram.bins().map(|bin| bin.count).sum::<u64>() == histogram.seconds());
            }
        }
    }

    fn inflated(bytes: &[u8]) -> Vec<u8> {
        checked(bytes).unwrap()
    }

    fn deflated(plain: &[u8]) -> Vec<u8> {
        let mut deflated = Vec::with_capacity(plain.len() + 1_000);
        Compress::new(Compression::fast(), true).compress_vec(plain, &mut deflated, FlushCompress::Finish).unwrap();
        [&COMPRESSED_COOKIE.to_be_bytes()[..], &(deflated.len() as u32).to_be_bytes(), &deflated].concat()
    }

    #[test]
    fn what_a_histogram_claims_is_not_believed() {
        let plain = inflated(&of(&[(1_000_000, 1)]).encode());
        let with = |place: usize, bytes: &[u8]| {
            let mut plain = plain.clone();
            plain.splice(place..place + bytes.len(), bytes.iter().copied());
            deflated(&plain)
        };
        let counts = |counts: &[u8]| {
            let length = (counts.len() as u32).to_be_bytes();
            deflated(&[&plain[..4], &length[..], &plain[8..PLAIN_HEADER_BYTES], counts].concat())
        };
        let cut = |bytes: Vec<u8>, by: usize| {
            let deflated = &bytes[COMPRESSED_HEADER_BYTES..bytes.len() - by];
            [&bytes[..4], &(deflated.len() as u32).to_be_bytes(), deflated].concat()
        };
        for (bytes, says) in [
            (vec![], "is truncated"),
            (vec![0; 9], "is no HdrHistogram V2 with deflate"),
            (vec![0; BYTES_MAX + 1], "has 65537 bytes"),
            (with(4, &u32::MAX.to_be_bytes()), "inflates to no HdrHistogram V2"),
            (with(12, &5_u32.to_be_bytes()), "2 significant digits"),
            (with(24, &u64::MAX.to_be_bytes()), "has room up to 18446744073709551615 kbit/s"),
            (deflated(&vec![0; 1 << 22]), "inflates to 65537 bytes or more"),
            (cut(deflated(&plain), 4), "cannot be inflated: it is truncated"),
            // 2^63 counts as far as the format can say so, and a run of 2^63 zeros.
            (
                counts(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
                "claims 1 values and 9223372036854775807",
            ),
            (counts(&[0xff; 9]), "claims 9223372036854775808 values"),
            (counts(&[0xff; 4]), "ends within a count"),
        ] {
            for result in [check(&bytes), RateHistogram::decode(&bytes).map(drop)] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(says), "{says}: {error}");
            }
        }
    }
}
