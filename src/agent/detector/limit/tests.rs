use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LINE: Thresholds = Thresholds { raise_at: BitRate::from_bps(8_000), clear_at: BitRate::from_bps(7_200) };

fn limit(hold: u64, clear_hold: u64, update_every: u64) -> Limit {
    Limit {
        name: "wan".into(),
        scope: Scope::Interface("eth0".into()),
        directions: vec![Direction::Rx],
        raise_at: Level::Rate(LINE.raise_at),
        clear_at: Level::Rate(LINE.clear_at),
        hold: SECOND * hold as u32,
        clear_hold: SECOND * clear_hold as u32,
        severity: Severity::Warning,
        update_every: SECOND * update_every as u32,
    }
}

/// A limit's state, and the second up to which it has been judged.
#[derive(Default)]
struct Life {
    state: BreachState,
    second: i64,
}

impl Life {
    fn carry(&mut self, limit: &Limit, bytes: u64) -> Option<Action> {
        self.second += 1;
        let load = Load { bytes, elapsed: SECOND, end: TimeDelta::seconds(self.second) };
        self.state.judge(limit, LINE, load)
    }

    fn pass(&mut self, seconds: i64) {
        self.second += seconds;
        self.state.cancel_pending();
    }
}

/// Returns one letter a tick (raise, update, clear, or `.` for none), for these bytes in each second.
fn life(limit: &Limit, bytes: &[u64]) -> String {
    let mut life = Life::default();
    let letter = |bytes: &u64| match life.carry(limit, *bytes) {
        None => '.',
        Some(Action::Raise(_)) => 'R',
        Some(Action::Update(_)) => 'u',
        Some(Action::Clear(_)) => 'C',
    };
    bytes.iter().map(letter).collect()
}

#[test]
fn at_the_line_is_over_it_and_between_the_lines_nothing_changes() {
    assert_eq!(life(&limit(0, 0, 60), &[999, 1_000, 900, 899, 900, 999, 1_000]), ".R.C..R");
}

#[test]
fn a_rise_must_last_unbroken() {
    assert_eq!(life(&limit(3, 0, 60), &[1_000, 1_000, 999, 1_000, 1_000, 1_000, 0]), ".....RC");
}

#[test]
fn a_fall_must_last() {
    assert_eq!(life(&limit(0, 3, 60), &[1_000, 0, 0, 1_000, 0, 0, 0]), "R.....C");
}

#[test]
fn updates_come_at_their_pace() {
    assert_eq!(life(&limit(0, 0, 2), &[1_000; 7]), "R.u.u.u");
    assert_eq!(life(&limit(0, 0, 1), &[1_000; 4]), "Ruuu");
}

#[test]
fn three_readings_of_nearly_a_second_are_three_seconds() {
    let (mut state, limit) = (BreachState::default(), limit(3, 0, 60));
    let nearly = Duration::from_micros(999_700);
    let raised = (1..=3).map(|nth| {
        let load = Load { bytes: 2_000, elapsed: nearly, end: delta(nearly * nth) };
        state.judge(&limit, LINE, load).is_some()
    });
    assert_eq!(raised.collect::<Vec<_>>(), [false, false, true]);
    let mut state = BreachState::default();
    let load = Load { bytes: 10_000, elapsed: SECOND * 2, end: TimeDelta::seconds(2) };
    assert_eq!(state.judge(&limit, LINE, load), None, "two seconds in one reading are no three");
}

#[test]
fn short_readings_may_miss_a_quarter_of_one() {
    let (mut state, limit) = (BreachState::default(), limit(1, 0, 60));
    let tenth = SECOND / 10;
    let raised = (1..=10).map(|nth| {
        let load = Load { bytes: 200, elapsed: tenth, end: delta(tenth * nth) };
        state.judge(&limit, LINE, load).is_some()
    });
    assert_eq!(raised.collect::<Vec<_>>(), [[false; 9].as_slice(), &[true]].concat());
}

#[test]
fn ten_seconds_at_twice_the_limit_are_reported_as_such() {
    let (mut life, limit) = (Life::default(), limit(3, 5, 60));
    let raised = (0..10).fold(None, |raised, _| raised.or(life.carry(&limit, 2_000)));
    let Some(Action::Raise(stats)) = raised else { panic!("{raised:?}") };
    assert_eq!((stats.started, stats.ended), (TimeDelta::zero(), TimeDelta::seconds(3)));
    let cleared = (0..5).fold(None, |cleared, _| cleared.or(life.carry(&limit, 10)));
    let Some(Action::Clear(stats)) = cleared else { panic!("{cleared:?}") };
    assert_eq!((stats.duration(), stats.measured(), stats.ended), (SECOND * 10, SECOND * 10, TimeDelta::seconds(10)));
    assert_eq!((stats.mean().bps(), stats.peak.bps(), stats.rate.bps()), (16_000, 16_000, 80));
    assert_eq!((stats.bytes, stats.excess_bytes), (20_000, 10_000));
    assert_eq!(life.second, 15);
}

#[test]
fn low_readings_count_only_if_the_breach_goes_on_after_them() {
    let (mut life, limit) = (Life::default(), limit(0, 3, 60));
    life.carry(&limit, 2_000);
    life.carry(&limit, 100);
    life.carry(&limit, 300);
    assert_eq!(life.state.stats().unwrap().duration(), SECOND, "they are held apart");
    assert_eq!(life.state.below_for(), Some(SECOND * 2));
    life.carry(&limit, 950);
    let stats = life.state.stats().unwrap();
    assert_eq!((stats.duration(), stats.measured(), stats.bytes), (SECOND * 4, SECOND * 4, 3_350));
    assert_eq!((stats.excess_bytes, stats.mean().bps()), (1_000, 6_700), "in the band nothing is above the limit");
    assert_eq!(life.state.below_for(), None);
}

#[test]
fn time_without_a_verdict_neither_feeds_nor_resets_the_fall() {
    let (mut life, limit) = (Life::default(), limit(0, 3, 600));
    life.carry(&limit, 2_000);
    life.carry(&limit, 0);
    life.carry(&limit, 0);
    life.pass(100);
    assert_eq!(life.state.below_for(), Some(SECOND * 2));
    life.carry(&limit, 1_000);
    let stats = life.state.stats().unwrap();
    assert_eq!((stats.duration(), stats.measured()), (SECOND * 104, SECOND * 4));
    life.pass(50);
    life.carry(&limit, 0);
    life.carry(&limit, 0);
    assert!(matches!(life.carry(&limit, 0), Some(Action::Clear(cleared)) if cleared.duration() == SECOND * 104));
}

#[test]
fn time_without_a_verdict_breaks_a_rise() {
    let (mut life, limit) = (Life::default(), limit(2, 0, 60));
    assert_eq!(life.carry(&limit, 1_000), None);
    life.pass(1);
    assert_eq!(life.carry(&limit, 1_000), None, "the rise begins again");
    assert!(matches!(life.carry(&limit, 1_000), Some(Action::Raise(_))));
    assert!(matches!(life.state.end(), Some(Action::Clear(_))));
    assert_eq!(life.state.end(), None);
}

#[test]
fn bytes_that_a_driver_shows_late_belong_to_the_silence_before_them() {
    let (mut state, limit) = (BreachState::default(), limit(0, 60, 600));
    let load = |bytes, seconds: u32, end| Load { bytes, elapsed: SECOND * seconds, end: TimeDelta::seconds(end) };
    state.judge(&limit, LINE, load(10_000, 5, 5));
    state.judge(&limit, LINE, load(0, 10, 15));
    state.judge(&limit, LINE, load(0, 1, 16));
    state.judge(&limit, LINE, load(10_000, 5, 17));
    let stats = state.stats().unwrap();
    assert_eq!((stats.duration(), stats.measured()), (SECOND * 17, SECOND * 17));
}

#[test]
fn a_limit_is_printed_as_a_sentence() {
    let link = Limit { directions: vec![Direction::Rx, Direction::Tx], ..limit(3, 300, 60) };
    let line = "wan: rx or tx of eth0 from 8.0 kbit/s for 3 s, until below 7.2 kbit/s for 5 min, warning";
    assert_eq!(link.to_string(), line);
    let (raise_at, clear_at) = (Level::Percent(80.0), Level::Percent(72.5));
    let host = Limit { scope: Scope::Host(Vec::new()), raise_at, clear_at, ..limit(3, 0, 60) };
    assert_eq!(host.to_string(), "wan: rx of the host from 80% for 3 s, until below 72.5% for 0 s, warning");
}

#[test]
fn a_percentage_is_of_the_speed_that_way() {
    let speed = Speed { rx: Some(BitRate::from_bps(100_000_000)), tx: Some(BitRate::from_bps(20_000_000)) };
    let resolve = |direction| Level::Percent(80.0).resolve(speed, direction).map(BitRate::bps);
    assert_eq!(resolve(Direction::Rx), Some(80_000_000));
    assert_eq!(resolve(Direction::Tx), Some(16_000_000));
    assert_eq!(resolve(Direction::Total), Some(96_000_000));
    assert_eq!(Level::Percent(80.0).resolve(Speed::default(), Direction::Rx), None);
    let tiny = Level::Rate(BitRate::from_bps(0)).resolve(Speed::default(), Direction::Rx);
    assert_eq!(tiny, Some(BitRate::from_bps(1)), "a breach of it can end");
}

proptest! {
    /// Raises and clears alternate, updates come only between them, and the figures fit together.
    #[test]
    fn a_breach_has_a_life(
        hold in 0..4_u64,
        clear_hold in 0..4_u64,
        update_every in 1..5_u64,
        readings in proptest::collection::vec((0..2_000_u64, any::<bool>()), 1..100),
    ) {
        let limit = limit(hold, clear_hold, update_every);
        let (mut life, mut open): (_, Option<BreachStats>) = (Life::default(), None);
        for (bytes, judged) in readings {
            if !judged {
                life.pass(1);
                continue;
            }
            let action = life.carry(&limit, bytes);
            if let Some(Action::Raise(stats) | Action::Update(stats) | Action::Clear(stats)) = action {
                prop_assert!(stats.started < stats.ended && stats.measured <= stats.duration());
                prop_assert!(stats.peak >= LINE.raise_at && stats.mean() <= stats.peak);
                prop_assert!(clear_hold > 0 || stats.mean() >= LINE.clear_at, "no low reading is in it");
            }
            open = match (open, action) {
                (None, Some(Action::Raise(stats))) => {
                    prop_assert!(stats.rate >= LINE.raise_at);
                    prop_assert!(stats.duration() == stats.measured(), "a rise is unbroken");
                    Some(stats)
                }
                (Some(before), Some(Action::Update(stats))) => {
                    prop_assert!(stats.bytes >= before.bytes && stats.excess_bytes >= before.excess_bytes);
                    prop_assert!(stats.peak >= before.peak && stats.ended >= before.ended);
                    Some(stats)
                }
                (Some(_), Some(Action::Clear(stats))) => {
                    prop_assert!(stats.rate < LINE.clear_at);
                    None
                }
                (open, None) => open,
                (open, action) => return Err(TestCaseError::fail(format!("{action:?} while {open:?}"))),
            };
            prop_assert_eq!(open.is_some(), life.state.stats().is_some());
        }
    }
}
