use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

fn at(at: Duration, rx_bytes: u64) -> CounterSample {
    CounterSample { at, boottime: at, rx_bytes, tx_bytes: 0, packets: None, bits: CounterBits::B64 }
}

fn sample(second: u64, rx_bytes: u64) -> CounterSample {
    at(Duration::from_secs(second), rx_bytes)
}

/// Returns the verdicts of an exact link's meter on a series of `rx` counters, one a second; `None` is a failed read.
fn verdicts(rx: &[Option<u64>]) -> Vec<Verdict> {
    let mut meter = Meter::new(SECOND, true);
    let samples = rx.iter().zip(0..).map(|(rx, second)| rx.map(|rx| sample(second, rx)));
    samples.map(|sample| meter.read(sample, Speed::default())).collect()
}

fn measured(rx_bytes: u64, seconds: u64) -> Verdict {
    Verdict::Measured(Traffic { rx_bytes, tx_bytes: 0, elapsed: Duration::from_secs(seconds) })
}

#[test]
fn bytes_are_divided_by_the_time_that_really_passed() {
    let mut meter = Meter::new(SECOND, true);
    assert_eq!(meter.read(Some(sample(1, 1)), Speed::default()), Verdict::First);
    let late = at(Duration::from_millis(2_500), 3_001);
    let traffic = meter.read(Some(late), Speed::default()).judged().unwrap();
    assert_eq!(bit_rate(traffic.rx_bytes, traffic.elapsed).bps(), 16_000);
}

#[test]
fn a_reset_is_no_rate_nor_is_the_first_movement_after_it() {
    let seen = verdicts(&[Some(9_000), Some(10_000), Some(50), Some(1_050), Some(3_050)]);
    assert_eq!(seen[1..], [measured(1_000, 1), Verdict::Reset, Verdict::Reset, measured(2_000, 1)]);
}

#[test]
fn a_read_that_failed_as_zero_does_not_return_as_traffic() {
    let all = 5_000_002_000;
    let seen = verdicts(&[Some(all), Some(0), Some(0), Some(all + 100), Some(all + 200)]);
    assert_eq!(seen[1..], [Verdict::Reset, measured(0, 1), Verdict::Reset, measured(100, 1)]);
}

#[test]
fn a_counter_that_begins_at_zero_shows_its_first_burst() {
    assert_eq!(verdicts(&[Some(0), Some(7_500_000)])[1..], [measured(7_500_000, 1)]);
}

#[test]
fn a_missing_reading_is_covered_by_the_next() {
    assert_eq!(verdicts(&[Some(1), None, Some(4_001)])[1..], [Verdict::Unread, measured(4_000, 2)]);
}

#[test]
fn a_reading_no_later_than_the_last_is_no_rate() {
    let mut meter = Meter::new(SECOND, true);
    let mut read = |second, rx| meter.read(Some(sample(second, rx)), Speed::default());
    read(1, 1);
    assert_eq!(read(3, 1 << 50), Verdict::Jump);
    assert_eq!(read(2, 1_001), Verdict::Waiting, "though it is later than the last that was believed");
}

#[test]
fn a_jump_that_no_link_can_carry_is_rejected_and_forgotten() {
    let seen = verdicts(&[Some(1), Some(1 << 50), Some(2_001), Some(3_001)]);
    assert_eq!(seen[1..], [Verdict::Jump, measured(2_000, 2), measured(1_000, 1)]);
}

#[test]
fn a_counter_that_stays_where_it_jumped_counts_from_there() {
    let seen = verdicts(&[Some(1), Some(1 << 50), Some((1 << 50) + 10), Some((1 << 50) + 30)]);
    assert_eq!(seen[1..], [Verdict::Jump, Verdict::Jump, measured(20, 1)]);
}

#[test]
fn a_counter_that_jumped_is_followed_only_where_it_goes_on_from_there() {
    let high = 1 << 50;
    let seen = verdicts(&[1, high, high, high + 10, high + 30].map(Some));
    assert_eq!(seen[1..], [Verdict::Jump, Verdict::Jump, Verdict::Jump, measured(20, 1)], "it stood");
    let low = 1 << 49;
    let seen = verdicts(&[1, high, low, low + 10, low + 30].map(Some));
    assert_eq!(seen[1..], [Verdict::Jump, Verdict::Jump, Verdict::Jump, measured(20, 1)], "it fell");

    let both = |counters: &[(u64, u64)]| -> Vec<Verdict> {
        let mut meter = Meter::new(SECOND, true);
        let samples =
            counters.iter().zip(0..).map(|((rx, tx), second)| CounterSample { tx_bytes: *tx, ..sample(second, *rx) });
        samples.map(|sample| meter.read(Some(sample), Speed::default())).collect()
    };
    let seen = both(&[(1, 1), (high, 1), (high, 11), (high + 5, 31)]);
    let traffic = Traffic { rx_bytes: 5, tx_bytes: 20, elapsed: SECOND };
    assert_eq!(
        seen[1..],
        [Verdict::Jump, Verdict::Jump, Verdict::Measured(traffic)],
        "one way goes on, the other stands"
    );
    let seen = both(&[(1, 1), (high, high), (high + 10, low), (high + 10, low + 5), (high + 15, low + 25)]);
    assert_eq!(seen[1..4], [Verdict::Jump; 3]);
    assert_eq!(seen[4], Verdict::Measured(traffic), "one way fell");
}

#[test]
fn a_high_half_that_changed_by_itself_is_no_traffic() {
    let high = 1 << 32;
    let seen = verdicts(&[0, 2_500, 5_000, 7_500 + high, 10_000 + high, 12_500 + high].map(Some));
    assert_eq!(seen[2..], [measured(2_500, 1), Verdict::Jump, Verdict::Jump, measured(2_500, 1)]);
    let seen = verdicts(&[0, 2_500, 5_000, 7_500 + high, 10_000].map(Some));
    assert_eq!(seen[3..], [Verdict::Jump, measured(5_000, 2)], "read falsely, once");
}

#[test]
fn a_rise_that_only_happens_to_be_2_32_above_the_usual_is_traffic() {
    let minutes = Duration::from_secs(300);
    let mut meter = Meter::new(minutes, true);
    // 100 Mbit/s, then 130: in five minutes 2^32 bytes are 115.
    let rx = [0, 3_750_000_000, 7_500_000_000, 12_375_000_000_u64];
    let seen = rx.iter().zip(1..).map(|(rx, nth)| meter.read(Some(at(minutes * nth, *rx)), Speed::default()));
    assert_eq!(seen.last(), Some(measured(4_875_000_000, 300)));
}

#[test]
fn an_amount_that_a_recorder_took_from_a_false_high_half_is_no_traffic() {
    let verdicts = |amounts: &[u64]| -> Vec<Verdict> {
        let mut meter = Meter::new(SECOND, false);
        let traffic = |rx_bytes: &u64| Traffic { rx_bytes: *rx_bytes, tx_bytes: 0, elapsed: SECOND };
        amounts.iter().map(|amount| meter.accept(traffic(amount))).collect()
    };
    let high = 1 << 32;
    let seen = verdicts(&[2_000_000, 1_000_000, 2_000_000 + high, 2_000_000]);
    assert_eq!(seen[1..], [measured(1_000_000, 1), Verdict::Jump, measured(2_000_000, 1)]);
    let seen = verdicts(&[2_000_000, 2_000_000 + high, 1_000_000 + high, 2_000_000 + high]);
    assert_eq!(seen[1..2], [Verdict::Jump]);
    assert_eq!(seen[2..], [measured(1_000_000 + high, 1), measured(2_000_000 + high, 1)], "it goes on");
    assert_eq!(verdicts(&[2_000_000, 2_000_001 + high])[1], measured(2_000_001 + high, 1), "not what it was before");
    assert_eq!(verdicts(&[2_000_000_000, 5_000_000_000])[1], measured(5_000_000_000, 1), "no far cry from before");
}

/// Returns the verdicts on a link whose packets carry 1,000 bytes each, unless the counter jumps.
fn with_packets(rx: &[u64], packets: &[u64], speed: Speed) -> Vec<Verdict> {
    let mut meter = Meter::new(SECOND, true);
    let samples = rx.iter().zip(packets).zip(0..).map(|((rx, packets), second)| CounterSample {
        packets: Some(Packets { rx: *packets, tx: 0 }),
        ..sample(second, *rx)
    });
    samples.map(|sample| meter.read(Some(sample), speed)).collect()
}

#[test]
fn more_than_packets_can_hold_is_a_jump_at_once_and_the_first_real_burst_is_seen() {
    let burst = 4_000 * MIB;
    let seen = with_packets(&[0, 1_000, 1_000 + burst, 2_000 + burst], &[0, 1, 2, 3], Speed::default());
    assert_eq!(seen[2..3], [Verdict::Jump]);
    let seen = with_packets(&[0, 1_000, 1_000 + burst], &[0, 1, 1 + burst / 1_500], Speed::default());
    assert_eq!(seen[2], measured(burst, 1));
    let seen = with_packets(&[0, 512 << 10, (512 << 10) + 600], &[0, 1, 1], Speed::default());
    assert_eq!(seen[1..], [measured(512 << 10, 1), measured(600, 1)], "bytes a moment before their packet");
}

#[test]
fn a_speed_that_packets_contradict_is_doubted_and_the_traffic_is_judged() {
    let slow = Speed::both(Some(BitRate::from_bps(8_000)));
    assert_eq!(with_packets(&[0, 4_000, 8_000], &[0, 4, 8], slow)[1..], [measured(4_000, 1), measured(4_000, 1)]);
    let mut meter = Meter::new(SECOND, true);
    let seen: Vec<_> = (0..5).map(|second| meter.read(Some(sample(second, second * 4_000)), slow)).collect();
    assert_eq!(seen[1..], [Verdict::Suspect, Verdict::Suspect, measured(4_000, 1), measured(4_000, 1)]);
    assert!(meter.doubts_speed());
}

#[test]
fn only_readings_in_a_row_contradict_a_speed_and_another_speed_is_trusted_again() {
    let slow = Speed::both(Some(BitRate::from_bps(8_000)));
    let mut meter = Meter::new(SECOND, true);
    let read = |meter: &mut Meter, second, rx| meter.read(Some(sample(second, rx)), slow);
    let rx = [0, 4_000, 8_000, 8_500, 12_500, 16_500, 20_500];
    let seen: Vec<_> = rx.iter().zip(0..).map(|(rx, second)| read(&mut meter, second, *rx)).collect();
    assert_eq!(seen[1..4], [Verdict::Suspect, Verdict::Suspect, measured(500, 1)]);
    assert_eq!(seen[4..], [Verdict::Suspect, Verdict::Suspect, measured(4_000, 1)]);
    assert!(meter.doubts_speed());
    meter.trust_speed();
    assert!(!meter.doubts_speed());
    assert_eq!(read(&mut meter, 7, 24_500), Verdict::Suspect);
}

#[test]
fn each_way_has_its_own_speed() {
    let speed = Speed { rx: Some(BitRate::from_bps(1_000_000)), tx: Some(BitRate::from_bps(8_000)) };
    let mut meter = Meter::new(SECOND, true);
    let sample = |second, rx_bytes, tx_bytes| CounterSample { tx_bytes, ..sample(second, rx_bytes) };
    meter.read(Some(sample(0, 0, 0)), speed);
    assert!(meter.read(Some(sample(1, 100_000, 900)), speed).judged().is_some());
    assert_eq!(meter.read(Some(sample(2, 100_000, 9_000)), speed), Verdict::Suspect);
}

#[test]
fn on_an_exact_link_standing_is_silence_and_a_burst_after_it_keeps_its_height() {
    let seen = verdicts(&[1, 100_001, 100_001, 100_001, 900_001].map(Some));
    assert_eq!(seen[1..], [measured(100_000, 1), measured(0, 1), measured(0, 1), measured(800_000, 1)]);
}

fn of_unknown_driver(rx: &[u64]) -> Vec<Verdict> {
    let mut meter = Meter::new(SECOND, false);
    rx.iter().zip(0..).map(|(rx, second)| meter.read(Some(sample(second, *rx)), Speed::default())).collect()
}

#[test]
fn counters_that_a_driver_updates_every_other_second_do_not_look_like_double_speed() {
    let rx: Vec<u64> = (0..20).map(|second| 1_000_000 + 200_000 * (second / 2)).collect();
    let seen = of_unknown_driver(&rx);
    assert_eq!(seen[2..11].iter().filter(|verdict| **verdict == Verdict::Learning).count(), 5);
    assert_eq!(seen[12..16], [measured(200_000, 2), Verdict::Waiting, measured(200_000, 2), Verdict::Waiting]);
}

#[test]
fn a_silence_is_believed_after_two_updates_did_not_come() {
    let mut rx: Vec<u64> = (0..8).map(|second| second * 100_000).collect();
    rx.extend([700_000; 4]);
    assert_eq!(of_unknown_driver(&rx)[8..], [Verdict::Waiting, Verdict::Waiting, measured(0, 3), measured(0, 1)]);
}

#[test]
fn the_burst_after_a_silence_covers_an_update_and_not_the_silence() {
    let mut rx: Vec<u64> = (0..8).map(|second| second * 100_000).collect();
    rx.extend([700_000; 9]);
    rx.push(900_000);
    assert_eq!(of_unknown_driver(&rx).last(), Some(&measured(200_000, 1)));
}

#[test]
fn at_long_intervals_every_reading_covers_its_own_time() {
    let minutes = Duration::from_secs(300);
    let mut meter = Meter::new(minutes, false);
    let mut read = |nth: u32, rx| meter.read(Some(at(minutes * nth, rx)), Speed::default());
    assert_eq!(read(1, 0), Verdict::First);
    assert_eq!(read(2, 600), measured(600, 300));
    assert_eq!(read(3, 600), measured(0, 300));
}

/// Readings every five seconds do not hold an update each.
#[test]
fn at_longer_intervals_a_movement_may_cover_more() {
    let interval = SECOND * 5;
    let mut meter = Meter::new(interval, false);
    let read = |nth: u32| meter.read(Some(at(interval * nth, u64::from(nth / 4) * 2_000)), Speed::default());
    assert_eq!((1..=40).map(read).last(), Some(measured(2_000, 20)));
}

#[test]
fn another_interval_is_the_measure_of_a_gap_and_begins_to_learn_again() {
    let mut meter = Meter::new(SECOND, false);
    for second in 0..10 {
        meter.read(Some(sample(second, second * 1_000)), Speed::default());
    }
    meter.set_interval(SECOND * 5);
    assert_eq!(meter.read(Some(sample(14, 14_000)), Speed::default()), Verdict::Learning);
}

#[test]
fn the_pace_of_a_driver_is_the_mean_of_its_last_gaps() {
    let ms = Duration::from_millis;
    let learned = |gaps: &[u64]| {
        let (mut cadence, mut now) = (Cadence::new(SECOND, false), SECOND);
        cadence.read(now, SECOND, true);
        for gap in gaps {
            now += ms(*gap);
            cadence.read(now, ms(*gap), true);
        }
        cadence.read(now + SECOND * 60, SECOND * 60, false);
        cadence.read(now + SECOND * 60 + ms(1), ms(1), true)
    };
    for (gaps, mean, why) in [
        (&[2_000; 4][..], 2_000, "all alike"),
        (&[2_000, 2_250, 2_000, 2_250], 2_125, "a quarter of a tick is the tick's"),
        (&[1_000, 2_000, 1_000, 2_000, 1_000], 1_500, "half a tick more, as little as is known"),
        (&[3_000, 5_000, 3_000, 5_000], 4_000, "over sixteen ticks that makes no difference"),
        (&[3_000, 5_000, 3_000, 5_000, 4_000], 4_000, "nor over more"),
        (&[5_000, 3_000, 3_000, 3_000, 3_000, 3_000, 3_000, 3_000], 3_250, "eight gaps count"),
        (&[5_000, 3_000, 3_000, 3_000, 3_000, 3_000, 3_000, 3_000, 3_000], 3_000, "the ninth pushes the first out"),
        (&[[13_000].as_slice(), &[1_000; 11]].concat(), 2_000, "but not before there are sixteen ticks without it"),
    ] {
        assert_eq!(learned(gaps), Coverage::Covers(ms(mean)), "{why}");
    }
}

#[test]
fn two_movements_shortly_after_a_tick_show_that_software_counts() {
    let mut meter = Meter::new(SECOND, false);
    meter.read(Some(sample(0, 0)), Speed::default());
    meter.read(Some(sample(1, 0)), Speed::default());
    assert!(!meter.wants_probe(), "nothing moves");
    meter.read(Some(sample(2, 1_000)), Speed::default());
    assert!(meter.wants_probe());
    let late = |ms, rx| at(Duration::from_millis(ms), rx);
    meter.probe(&late(2_020, 1_000));
    assert!(!meter.wants_probe(), "it stood: no answer");
    meter.read(Some(sample(3, 2_000)), Speed::default());
    meter.probe(&late(3_020, 2_100));
    assert!(meter.wants_probe() && !meter.is_exact());
    meter.probe(&late(3_040, 2_200));
    assert!(meter.is_exact() && !meter.wants_probe());
    assert_eq!(meter.read(Some(sample(4, 3_000)), Speed::default()), measured(1_000, 1), "probes take nothing away");
}

#[test]
fn a_driver_that_was_never_exact_is_probed_rarely() {
    let mut meter = Meter::new(SECOND, false);
    let probes = (1..1_000_u64).filter(|second| {
        meter.read(Some(sample(*second, second * 1_000)), Speed::default());
        let wants = meter.wants_probe();
        meter.probe(&at(Duration::from_millis(second * 1_000 + 20), second * 1_000));
        wants
    });
    let probes: Vec<u64> = probes.collect();
    assert_eq!(probes[..100], (2..=101).collect::<Vec<_>>(), "each reading after the first");
    assert_eq!(probes[100..], (101..1_000).step_by(64).skip(1).collect::<Vec<_>>());
}

#[test]
fn a_suspend_is_a_gap_though_the_monotonic_clock_did_not_see_it() {
    for is_exact in [true, false] {
        let mut meter = Meter::new(SECOND, is_exact);
        meter.read(Some(sample(1, 1)), Speed::default());
        let woken = CounterSample { boottime: Duration::from_secs(3_600), ..sample(2, 9_999) };
        assert!(matches!(meter.read(Some(woken), Speed::default()), Verdict::Gap(_)));
    }
}

#[test]
fn clocks_read_one_after_the_other_and_late_ticks_make_no_gap() {
    let ms = Duration::from_millis;
    for (awake, boottime, is_gap) in
        [(1_000, 1_050, false), (1_000, 1_051, true), (3_500, 3_500, false), (3_501, 3_501, true)]
    {
        let mut meter = Meter::new(SECOND, true);
        meter.read(Some(sample(0, 1)), Speed::default());
        let verdict = meter.read(Some(CounterSample { boottime: ms(boottime), ..at(ms(awake), 9) }), Speed::default());
        assert_eq!(matches!(verdict, Verdict::Gap(_)), is_gap, "{boottime} ms, {awake} of them awake");
    }
}

#[test]
fn a_starved_agent_sees_a_gap() {
    let mut meter = Meter::new(SECOND, true);
    meter.read(Some(sample(1, 1)), Speed::default());
    assert!(matches!(meter.read(Some(sample(6, 9_999)), Speed::default()), Verdict::Gap(_)));
}

#[test]
fn counters_that_stand_still_over_a_gap_do_not_show_all_of_it_in_the_next_second() {
    let mut meter = Meter::new(SECOND, false);
    for second in 0..10 {
        meter.read(Some(sample(second, second * 1_000_000)), Speed::default());
    }
    assert_eq!(meter.read(Some(sample(17, 9_000_000)), Speed::default()), Verdict::Waiting);
    assert!(matches!(meter.read(Some(sample(18, 18_000_000)), Speed::default()), Verdict::Gap(_)));
    assert_eq!(meter.read(Some(sample(19, 19_000_000)), Speed::default()), measured(1_000_000, 1));
}

#[test]
fn a_wrap_is_judged_where_counters_are_known_to_be_narrow_and_the_pace_is_kept() {
    let narrow = |second, rx| CounterSample { bits: CounterBits::B32, ..sample(second, rx) };
    let wrap = |sample: fn(u64, u64) -> CounterSample, last: u64| {
        let mut meter = Meter::new(SECOND, true);
        meter.read(Some(sample(0, (1 << 32) - 3_000)), Speed::default());
        meter.read(Some(sample(1, (1 << 32) - 1_000)), Speed::default());
        meter.read(Some(sample(2, last)), Speed::default())
    };
    assert_eq!(wrap(narrow, 500), measured(1_500, 1));
    assert_eq!(wrap(narrow, 2_999), measured(3_999, 1), "up to twice the last rate");
    assert_eq!(wrap(narrow, 3_001), Verdict::Reset, "more is a reset");
    assert_eq!(wrap(sample, 500), Verdict::Reset);
}

#[test]
fn a_fall_is_no_wrap_where_packets_fall_too_or_the_width_is_not_known_at_both_ends() {
    let narrow = |second, rx_bytes, rx, tx| CounterSample {
        tx_bytes: second * 100,
        packets: Some(Packets { rx, tx }),
        bits: CounterBits::B32,
        ..sample(second, rx_bytes)
    };
    let wrap = |last: CounterSample| {
        let mut meter = Meter::new(SECOND, true);
        meter.read(Some(narrow(0, (1 << 32) - 3_000, 10, 10)), Speed::default());
        meter.read(Some(narrow(1, (1 << 32) - 1_000, 12, 11)), Speed::default());
        meter.read(Some(last), Speed::default())
    };
    let wrapped = Verdict::Measured(Traffic { rx_bytes: 1_500, tx_bytes: 100, elapsed: SECOND });
    assert_eq!(wrap(narrow(2, 500, 14, 12)), wrapped);
    assert_eq!(wrap(narrow(2, 500, 12, 11)), wrapped, "bytes a moment before their packets");
    assert_eq!(wrap(narrow(2, 500, 1, 12)), Verdict::Reset);
    assert_eq!(wrap(narrow(2, 500, 14, 1)), Verdict::Reset);
    assert_eq!(wrap(CounterSample { bits: CounterBits::B64, ..narrow(2, 500, 14, 12) }), Verdict::Reset);
    assert_eq!(wrap(narrow(2, 0, 14, 12)), Verdict::Reset, "rather a read that failed");
}

#[test]
fn wraps_do_not_break_a_long_series() {
    let mut meter = Meter::new(SECOND, true);
    let seen = (0..200_u64).map(|second| {
        let rx = (second * 112_500_000) & u64::from(u32::MAX);
        meter.read(Some(CounterSample { bits: CounterBits::B32, ..sample(second, rx) }), Speed::default())
    });
    assert!(seen.skip(1).all(|verdict| verdict == measured(112_500_000, 1)));
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Reset,
    FalseZero,
    Missing,
    Torn(u64),
    Jump(u64),
    Suspend,
    Late,
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Reset),
        1 => Just(Fault::FalseZero),
        1 => Just(Fault::Missing),
        1 => (1_u64 << 35..1 << 62).prop_map(Fault::Torn),
        1 => (1_u64 << 35..1 << 62).prop_map(Fault::Jump),
        1 => Just(Fault::Suspend),
        1 => Just(Fault::Late),
    ]
}

/// Counts bytes for the time up to `now`, like a driver that updates its counters every `period`.
struct Driver {
    updates: Vec<Duration>,
    bytes_per_second: u64,
}

impl Driver {
    /// Updates every `period`, plus or minus up to `jitter` of it.
    fn new(period: Duration, jitter: f64, phase: f64, seed: u64, until: Duration, bytes_per_second: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut updates, mut next) = (Vec::new(), period.mul_f64(phase));
        while next < until {
            updates.push(next);
            next += period.mul_f64(1.0 + jitter * (2.0 * rng.f64() - 1.0));
        }
        Self { updates, bytes_per_second }
    }

    fn shows(&self, now: Duration) -> u64 {
        let shown = self.updates[..self.updates.partition_point(|update| *update <= now)].last();
        shown.map_or(0, |update| (u128::from(self.bytes_per_second) * update.as_nanos() / 1_000_000_000) as u64)
    }
}

/// Returns the judged readings of steady traffic that a driver shows at its own pace.
fn judged(driver: &Driver, interval: Duration, readings: u32) -> Vec<Traffic> {
    let mut meter = Meter::new(interval, false);
    let samples = (1..readings).map(|nth| at(interval * nth, driver.shows(interval * nth)));
    // The link counts as silent until it has moved for the first time.
    samples
        .filter_map(|sample| meter.read(Some(sample), Speed::default()).judged())
        .filter(|t| t.rx_bytes > 0)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_rate_is_compared_as_it_is_divided(
        bytes in (0..50_u32).prop_flat_map(|bits| 0_u64..2 << bits),
        nanos in 1_000_000_u64..1 << 50,
        more in 0_u64..3,
    ) {
        let elapsed = Duration::from_nanos(nanos);
        let rate = bit_rate(bytes, elapsed);
        let near = BitRate::from_bps((rate.bps() + more).saturating_sub(1));
        prop_assert_eq!(is_above(bytes, elapsed, near), rate > near);
        let carried = u128::from(rate.bps()) * u128::from(nanos) / 8 / 1_000_000_000;
        prop_assert_eq!(u128::from(byte_count(rate, elapsed)), carried);
        prop_assert!(!is_above(bytes, Duration::ZERO, BitRate::default()));
    }

    /// Readings of steady traffic are at most 15 % too high, or 20 % where a period is shorter than four readings, and their mean over
    /// ten periods is as docs/reliability.md bounds it. The highest of three million random cases were 12 and 16.5 % too high.
    #[test]
    fn a_slow_driver_does_not_look_like_bursts(
        interval_ms in prop_oneof![Just(1_000_u64), Just(100_u64), 100..=1_000_u64],
        pace in 0.0..1.0_f64,
        phase in 0.0..1.0_f64,
        seed: u64,
    ) {
        let interval = Duration::from_millis(interval_ms);
        // From 1.25 ticks to ten ticks or ten seconds, evenly on a logarithmic scale.
        let (shortest, longest) = (interval.mul_f64(1.25), Duration::from_secs(10).max(interval * 10));
        let period = shortest.mul_f64((longest.as_secs_f64() / shortest.as_secs_f64()).powf(pace));
        let readings = (period.as_secs_f64() / interval.as_secs_f64() * 60.0) as u32;
        let truth = 50_000_000_u64;
        let driver = Driver::new(period, 0.05, phase, seed, interval * readings, truth);
        let seen = judged(&driver, interval, readings);
        // The first ones are learned from, and with jitter the last ones may come after the end.
        prop_assert!(seen.len() >= 48, "{} of 60 updates are judged", seen.len());
        // The time of an update is known to one tick, of which a short period has few; then rather too low a rate than too high.
        let (lowest, highest) = if period >= interval * 4 { (0.95, 1.15) } else { (0.85, 1.2) };
        for traffic in &seen {
            let rate = bit_rate(traffic.rx_bytes, traffic.elapsed).bps() as f64 / 8.0;
            prop_assert!(rate <= highest * truth as f64, "{rate} of {truth}");
        }
        for ten in seen.windows(10) {
            let bytes: u64 = ten.iter().map(|traffic| traffic.rx_bytes).sum();
            let elapsed: Duration = ten.iter().map(|traffic| traffic.elapsed).sum();
            let true_time = bytes as f64 / truth as f64;
            let mean = true_time / elapsed.as_secs_f64();
            prop_assert!((lowest..=1.05).contains(&mean), "ten updates cover {elapsed:?} instead of {true_time} s");
        }
        let bytes: u64 = seen.iter().map(|traffic| traffic.rx_bytes).sum();
        let elapsed: Duration = seen.iter().map(|traffic| traffic.elapsed).sum();
        let mean = bytes as f64 / elapsed.as_secs_f64() / truth as f64;
        prop_assert!((0.95..=1.05).contains(&mean), "the mean is {mean} times the truth");
    }

    /// A driver about as fast as the ticks may show two updates in one.
    #[test]
    fn a_driver_of_the_ticks_own_pace_shows_twice_the_truth_at_most(
        interval_ms in prop_oneof![Just(1_000_u64), 100..=1_000_u64],
        pace in 0.95..1.25_f64,
        phase in 0.0..1.0_f64,
        seed: u64,
    ) {
        let (truth, interval) = (50_000_000_u64, Duration::from_millis(interval_ms));
        let driver = Driver::new(interval.mul_f64(pace), 0.05, phase, seed, interval * 200, truth);
        for traffic in judged(&driver, interval, 200) {
            let rate = bit_rate(traffic.rx_bytes, traffic.elapsed).bps() as f64 / 8.0;
            prop_assert!(rate <= 2.05 * truth as f64, "{rate} of {truth}");
        }
    }

    #[test]
    fn an_exact_reading_is_its_own(bytes in proptest::collection::vec(0..1_000_000_u64, 1..50)) {
        let mut total = 0;
        let mut counters = vec![Some(0)];
        counters.extend(bytes.iter().map(|bytes| {
            total += bytes;
            Some(total)
        }));
        let expected: Vec<_> = bytes.iter().map(|bytes| measured(*bytes, 1)).collect();
        prop_assert_eq!(&verdicts(&counters)[1..], &expected[..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_fault_looks_like_traffic(
        start in 0..u64::MAX / 8,
        narrow: bool,
        ticks in proptest::collection::vec((0..10_000_000_u64, faults()), 1..60),
    ) {
        let ceiling_bps = 10_000_000 * 8;
        let mut meter = Meter::new(SECOND, true);
        let (mut at, mut boottime) = (Duration::ZERO, Duration::ZERO);
        let mut counter = if narrow { start % (1 << 32) } else { start };
        let (mut packets, mut offset, mut last) = (start / 1_000, 0_u64, 0);
        for (bytes, fault) in ticks {
            let step = if matches!(fault, Fault::Late) { SECOND * 7 } else { SECOND };
            at += step;
            boottime += step;
            counter += bytes * step.as_secs();
            packets += (bytes * step.as_secs()).div_ceil(1_000);
            match fault {
                Fault::Reset => (counter, packets, offset) = (bytes, bytes.div_ceil(1_000), 0),
                Fault::Suspend => boottime += SECOND * 3_600,
                // A 32-bit counter has no room for a jump that could not be traffic.
                Fault::Jump(by) if !narrow => offset = (offset + by) % (1 << 62),
                _ => {}
            }
            let shown = counter.wrapping_add(offset);
            let rx_bytes = match fault {
                // A first reading is believed, and so is a zero after a zero: that is a counter that does not move.
                Fault::FalseZero if last > 0 => 0,
                Fault::Torn(by) if !narrow => shown.wrapping_add(by),
                _ if narrow => shown & u64::from(u32::MAX),
                _ => shown,
            };
            let bits = if narrow { CounterBits::B32 } else { CounterBits::B64 };
            let packets = Some(Packets { rx: packets, tx: 0 });
            let sample = CounterSample { at, boottime, rx_bytes, tx_bytes: 0, packets, bits };
            let is_missing = matches!(fault, Fault::Missing);
            last = if is_missing { last } else { rx_bytes };
            let verdict = meter.read((!is_missing).then_some(sample), Speed::default());
            if let Some(traffic) = verdict.judged() {
                let rate = bit_rate(traffic.rx_bytes, traffic.elapsed).bps();
                // A fall is a wrap where it continues the rate, at most doubled.
                let ceiling = if narrow { 2 * ceiling_bps } else { ceiling_bps };
                prop_assert!(rate <= ceiling, "{rate} bit/s of {verdict:?}");
            }
        }
    }
}
