use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limit(hold: u64, clear_hold: u64, update_every: u64) -> Limit {
    Limit {
        name: "wan".into(),
        scope: Scope::Interface("eth0".into()),
        directions: vec![Direction::Rx],
        raise_at: Level::Rate(MARKS.raise_at),
        clear_at: Level::Rate(MARKS.clear_at),
        hold: SECOND * hold as u32,
        clear_hold: SECOND * clear_hold as u32,
        severity: Severity::Warning,
        update_every: SECOND * update_every as u32,
    }
}

const MARKS: Marks = Marks { raise_at: BitRate::from_bps(8_000), clear_at: BitRate::from_bps(7_200) };

/// One letter a tick: raise, update, clear or nothing, for so many bytes in each second.
fn life(limit: &Limit, bytes: &[u64]) -> String {
    let mut machine = Machine::default();
    bytes
        .iter()
        .map(|bytes| match machine.judge(limit, MARKS, Carried { bytes: *bytes, elapsed: SECOND }) {
            None => '.',
            Some(Action::Raise(_)) => 'R',
            Some(Action::Update(_)) => 'u',
            Some(Action::Clear(_)) => 'C',
        })
        .collect()
}

#[test]
fn at_the_mark_is_over_it_and_between_the_marks_nothing_changes() {
    assert_eq!(life(&limit(0, 0, 60), &[999, 1_000, 900, 899, 900, 999, 1_000]), ".R.C..R");
}

#[test]
fn a_rise_must_last() {
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
    let mut machine = Machine::default();
    let carried = Carried { bytes: 2_000, elapsed: Duration::from_micros(999_700) };
    let limit = limit(3, 0, 60);
    let actions: Vec<_> = (0..3).map(|_| machine.judge(&limit, MARKS, carried).is_some()).collect();
    assert_eq!(actions, [false, false, true]);
}

#[test]
fn a_breach_counts_from_the_reading_that_raised_it() {
    let mut machine = Machine::default();
    let limit = limit(0, 0, 60);
    for bytes in [1_500, 2_000, 1_000] {
        machine.judge(&limit, MARKS, Carried { bytes, elapsed: SECOND });
    }
    machine.pass(SECOND * 10);
    let Some(Action::Clear(tally)) = machine.judge(&limit, MARKS, Carried { bytes: 0, elapsed: SECOND }) else {
        panic!("the breach is over")
    };
    assert_eq!((tally.bytes, tally.excess_bytes), (4_500, 1_500));
    assert_eq!((tally.peak.bps(), tally.rate.bps(), tally.mean().bps()), (16_000, 0, 9_000));
    assert_eq!((tally.measured, tally.duration), (SECOND * 4, SECOND * 14));
}

#[test]
fn a_reading_without_judgement_breaks_a_rise_and_holds_a_breach() {
    let (mut machine, limit) = (Machine::default(), limit(2, 0, 60));
    let up = Carried { bytes: 1_000, elapsed: SECOND };
    assert_eq!(machine.judge(&limit, MARKS, up), None);
    machine.pass(SECOND);
    assert_eq!(machine.judge(&limit, MARKS, up), None, "the rise begins anew");
    assert!(matches!(machine.judge(&limit, MARKS, up), Some(Action::Raise(_))));
    machine.pass(SECOND * 100);
    assert!(machine.tally().is_some());
    assert!(matches!(machine.end(), Some(Action::Clear(_))));
    assert_eq!(machine.end(), None);
}

#[test]
fn a_percentage_waits_for_the_speed_and_counts_both_directions_twice() {
    let gigabit = Some(BitRate::from_bps(1_000_000_000));
    assert_eq!(Level::Percent(80.0).resolve(None, Direction::Rx), None);
    assert_eq!(Level::Percent(80.0).resolve(gigabit, Direction::Rx), Some(BitRate::from_bps(800_000_000)));
    assert_eq!(Level::Percent(80.0).resolve(gigabit, Direction::Total), Some(BitRate::from_bps(1_600_000_000)));
}

proptest! {
    /// Raises and clears alternate, updates come only between them, and sums only grow.
    #[test]
    fn a_breach_has_a_life(
        hold in 0..4_u64,
        clear_hold in 0..4_u64,
        update_every in 1..5_u64,
        readings in proptest::collection::vec((0..2_000_u64, any::<bool>()), 1..100),
    ) {
        let limit = limit(hold, clear_hold, update_every);
        let (mut machine, mut open): (_, Option<Tally>) = (Machine::default(), None);
        for (bytes, judged) in readings {
            if !judged {
                machine.pass(SECOND);
                continue;
            }
            let action = machine.judge(&limit, MARKS, Carried { bytes, elapsed: SECOND });
            open = match (open, action) {
                (None, Some(Action::Raise(tally))) => {
                    prop_assert!(tally.rate >= MARKS.raise_at);
                    Some(tally)
                }
                (Some(before), Some(Action::Update(tally))) => {
                    prop_assert!(tally.bytes >= before.bytes && tally.excess_bytes >= before.excess_bytes);
                    prop_assert!(tally.peak >= before.peak && tally.duration >= tally.measured);
                    Some(tally)
                }
                (Some(_), Some(Action::Clear(tally))) => {
                    prop_assert!(tally.rate < MARKS.clear_at);
                    None
                }
                (open, None) => open,
                (open, action) => return Err(TestCaseError::fail(format!("{action:?} while {open:?}"))),
            };
            prop_assert_eq!(open.is_some(), machine.tally().is_some());
        }
    }
}
