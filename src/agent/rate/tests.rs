use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const GIGABIT: Option<BitRate> = Some(BitRate::from_bps(1_000_000_000));

fn sample(second: u64, rx_bytes: u64) -> Sample {
    let at = Duration::from_secs(second);
    Sample { at, boottime: at, rx_bytes, tx_bytes: 0, narrow: false }
}

/// What a meter says of a series of `rx` counters, one a second; `None` is a failed read.
fn verdicts(speed: Option<BitRate>, rx: &[Option<u64>]) -> Vec<Verdict> {
    let mut meter = Meter::new(SECOND);
    rx.iter().enumerate().map(|(second, rx)| meter.read(rx.map(|rx| sample(second as u64, rx)), speed)).collect()
}

fn measured(rx_bytes: u64, seconds: u64) -> Verdict {
    Verdict::Measured(Traffic { rx_bytes, tx_bytes: 0, elapsed: Duration::from_secs(seconds) })
}

#[test]
fn bytes_are_divided_by_the_time_that_really_passed() {
    let mut meter = Meter::new(SECOND);
    assert_eq!(meter.read(Some(sample(1, 1)), None), Verdict::First);
    let late = Sample { at: Duration::from_millis(2_500), boottime: Duration::from_millis(2_500), ..sample(0, 3_001) };
    let traffic = meter.read(Some(late), None).judged().unwrap();
    assert_eq!(bit_rate(traffic.rx_bytes, traffic.elapsed).bps(), 16_000);
}

#[test]
fn a_reset_is_no_rate_nor_is_the_first_movement_after_it() {
    let seen = verdicts(GIGABIT, &[Some(9_000), Some(10_000), Some(50), Some(1_050), Some(3_050)]);
    assert_eq!(seen[1..], [measured(1_000, 1), Verdict::Reset, Verdict::Reset, measured(2_000, 1)]);
}

#[test]
fn a_read_that_failed_as_zero_does_not_return_as_traffic() {
    let all = 5_000_002_000;
    let seen = verdicts(GIGABIT, &[Some(all), Some(0), Some(0), Some(all + 100), Some(all + 200)]);
    assert_eq!(seen[1..], [Verdict::Reset, Verdict::Stalled, Verdict::Reset, measured(100, 1)]);
}

#[test]
fn a_missing_reading_is_covered_by_the_next() {
    let seen = verdicts(GIGABIT, &[Some(1), None, Some(4_001)]);
    assert_eq!(seen[1..], [Verdict::Gone, measured(4_000, 2)]);
}

#[test]
fn a_jump_that_no_link_can_carry_is_rejected_and_forgotten() {
    let seen = verdicts(GIGABIT, &[Some(1), Some(1 << 50), Some(2_001), Some(3_001)]);
    assert_eq!(seen[1..], [Verdict::Glitch, measured(2_000, 2), measured(1_000, 1)]);
}

#[test]
fn a_counter_that_stays_where_it_jumped_counts_from_there() {
    let seen = verdicts(GIGABIT, &[Some(1), Some(1 << 50), Some((1 << 50) + 10), Some((1 << 50) + 30)]);
    assert_eq!(seen[1..], [Verdict::Glitch, Verdict::Glitch, measured(20, 1)]);
}

#[test]
fn counters_that_a_driver_updates_every_other_second_do_not_look_like_double_speed() {
    let seen = verdicts(GIGABIT, &[1, 100_001, 100_001, 300_001, 300_001, 500_001].map(Some));
    assert_eq!(
        seen[1..],
        [measured(100_000, 1), Verdict::Stalled, measured(200_000, 2), Verdict::Stalled, measured(200_000, 2)]
    );
}

#[test]
fn a_silence_is_believed_after_a_while() {
    let seen = verdicts(GIGABIT, &[1, 100_001, 100_001, 100_001, 100_001, 100_001].map(Some));
    assert_eq!(seen[2..], [Verdict::Stalled, Verdict::Stalled, measured(0, 3), measured(0, 1)]);
}

#[test]
fn a_suspend_is_a_gap_though_the_monotonic_clock_did_not_see_it() {
    let mut meter = Meter::new(SECOND);
    meter.read(Some(sample(1, 1)), None);
    let woken = Sample { boottime: Duration::from_secs(3_600), ..sample(2, 9_999) };
    assert!(matches!(meter.read(Some(woken), None), Verdict::Gap(_)));
}

#[test]
fn a_starved_agent_sees_a_gap() {
    let mut meter = Meter::new(SECOND);
    meter.read(Some(sample(1, 1)), None);
    assert!(matches!(meter.read(Some(sample(6, 9_999)), None), Verdict::Gap(_)));
}

#[test]
fn counters_that_stand_still_over_a_gap_do_not_show_all_of_it_in_the_next_second() {
    let mut meter = Meter::new(SECOND);
    meter.read(Some(sample(1, 1)), None);
    meter.read(Some(sample(2, 1_000_001)), None);
    assert_eq!(meter.read(Some(sample(9, 1_000_001)), None), Verdict::Stalled);
    assert!(matches!(meter.read(Some(sample(10, 9_000_001)), None), Verdict::Gap(_)));
}

#[test]
fn a_wrap_is_believed_of_a_narrow_counter_on_a_link_that_could_carry_it() {
    let narrow = |second, rx| Sample { narrow: true, ..sample(second, rx) };
    let wrap = |speed, narrow: fn(u64, u64) -> Sample| {
        let mut meter = Meter::new(SECOND);
        meter.read(Some(narrow(0, (1 << 32) - 3_000)), speed);
        meter.read(Some(narrow(1, (1 << 32) - 1_000)), speed);
        meter.read(Some(narrow(2, 500)), speed)
    };
    let traffic = Traffic { rx_bytes: 1_500, tx_bytes: 0, elapsed: SECOND };
    assert_eq!(wrap(GIGABIT, narrow), Verdict::Wrapped(traffic));
    assert_eq!(wrap(None, narrow), Verdict::Reset);
    assert_eq!(wrap(GIGABIT, sample), Verdict::Reset);
    let mut meter = Meter::new(SECOND);
    meter.read(Some(narrow(0, 3_000_000_000)), GIGABIT);
    assert_eq!(meter.read(Some(narrow(1, 500)), GIGABIT), Verdict::Reset, "1.3 GB in a second is no wrap");
}

/// What may befall a counter at a tick.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Reset,
    FalseZero,
    Missing,
    Jump(u64),
    Frozen,
    Suspend,
    Late,
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Reset),
        1 => Just(Fault::FalseZero),
        1 => Just(Fault::Missing),
        1 => (1_u64 << 40..1 << 62).prop_map(Fault::Jump),
        1 => Just(Fault::Frozen),
        1 => Just(Fault::Suspend),
        1 => Just(Fault::Late),
    ]
}

/// Whether `value` can look like little traffic since any of what was `read`.
pub(in crate::agent) fn is_little_above(read: &[u64], value: u64) -> bool {
    read.iter().any(|before| value.checked_sub(*before).is_some_and(|bytes| bytes < BUSY_BYTES))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Steady traffic under a limit, and faults of every kind: no rate that may be judged is over what the link carried.
    #[test]
    fn no_fault_looks_like_traffic(
        start in 0..u64::MAX / 8,
        narrow in any::<bool>(),
        ticks in proptest::collection::vec((BUSY_BYTES..10_000_000_u64, faults()), 1..60),
    ) {
        let (start, ceiling_bps) = (if narrow { start % (1 << 32) } else { start }, 10_000_000 * 8);
        let mut meter = Meter::new(SECOND);
        let (mut at, mut boottime, mut counter) = (Duration::ZERO, Duration::ZERO, start);
        // As if long unseen: nothing can stand still before it was ever read.
        let (mut offset, mut unseen_ticks, mut shown) = (0_u64, STALLED_TICKS_MAX, start);
        let (mut is_busy, mut read) = (true, Vec::new());
        for (bytes, fault) in ticks {
            let step = if matches!(fault, Fault::Late) { SECOND * 7 } else { SECOND };
            at += step;
            boottime += step;
            counter += bytes * step.as_secs();
            match fault {
                Fault::Reset => counter = bytes,
                Fault::Suspend => boottime += SECOND * 3_600,
                // A 32-bit counter has no room for a jump that could not be traffic.
                Fault::Jump(by) if !narrow => offset = (offset + by) % (1 << 62),
                _ => {}
            }
            if matches!(fault, Fault::Reset) {
                offset = 0;
            }
            // Two ticks at most are unseen: a longer silence is believed, as it must be. So is that of a link that seemed to
            // carry next to nothing, which a reset does that lands a few bytes above what was read before.
            let freezes = matches!(fault, Fault::Frozen) && unseen_ticks < STALLED_TICKS_MAX && is_busy;
            unseen_ticks = if freezes || matches!(fault, Fault::Missing) { unseen_ticks + 1 } else { 0 };
            let true_value = counter.wrapping_add(offset);
            let mask = if narrow { u64::from(u32::MAX) } else { u64::MAX };
            let value = match fault {
                Fault::FalseZero => 0,
                _ if freezes => shown,
                _ => true_value & mask,
            };
            if !matches!(fault, Fault::Missing) {
                is_busy = value == shown || !is_little_above(&read, value);
                shown = value;
                read.push(value);
            }
            let sample = Sample { at, boottime, rx_bytes: value, tx_bytes: 0, narrow };
            let verdict = meter.read((!matches!(fault, Fault::Missing)).then_some(sample), GIGABIT);
            if let Some(traffic) = verdict.judged() {
                let rate = bit_rate(traffic.rx_bytes, traffic.elapsed).bps();
                prop_assert!(rate <= ceiling_bps, "{rate} bit/s of {verdict:?}");
            }
        }
    }
}
