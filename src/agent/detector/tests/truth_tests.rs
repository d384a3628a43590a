//! Checks the whole detector against a generated truth: what each link really carried, whatever its counters showed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use smol_str::SmolStr;

use super::*;
use crate::agent::counters::CounterBits;

const MIB: u64 = 1 << 20;
/// Bytes a second at which a link's limit raises, and below which it clears; the host's limit is three times that.
const RAISE: u64 = 10 * MIB;
const CLEAR: u64 = 9 * MIB;
/// After this many readings without a fault of any link, earlier faults have no effect.
const SETTLED_AFTER: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Reset,
    FalseZero,
    Missing,
    Jump,
    Leaves,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pause {
    None,
    Suspend,
    Starved,
}

#[derive(Clone, Debug)]
struct Tick {
    /// In 1/256 of the highest traffic that this run allows a link.
    load: [u8; 3],
    faults: [Fault; 3],
    pause: Pause,
}

fn tick() -> impl Strategy<Value = Tick> {
    let fault = || {
        prop_oneof![
            24 => Just(Fault::None),
            1 => Just(Fault::Reset),
            1 => Just(Fault::FalseZero),
            1 => Just(Fault::Missing),
            1 => Just(Fault::Jump),
            1 => Just(Fault::Leaves),
        ]
    };
    let pause = prop_oneof![30 => Just(Pause::None), 1 => Just(Pause::Suspend), 1 => Just(Pause::Starved)];
    (any::<[u8; 3]>(), [fault(), fault(), fault()], pause).prop_map(|(load, faults, pause)| Tick {
        load,
        faults,
        pause,
    })
}

struct Link {
    ifindex: u32,
    there: bool,
    /// Bytes since the counter began, including those that a driver added.
    counter: u64,
    shown: u64,
    packets: u64,
    was_read: bool,
    narrow: bool,
}

impl Link {
    /// Carries `bytes`, and returns the counters that `fault` leaves.
    fn show(&mut self, bytes: u64, fault: Fault) -> Option<Counters> {
        self.packets = if fault == Fault::Reset { 0 } else { self.packets } + bytes.div_ceil(1_000);
        self.counter = match fault {
            Fault::Reset => bytes % MIB,
            // A 32-bit counter has no room for a jump that could not be traffic.
            Fault::Jump if !self.narrow => self.counter + bytes + (1 << 45),
            _ => self.counter + bytes,
        };
        if fault == Fault::Missing {
            return None;
        }
        let was_read = std::mem::replace(&mut self.was_read, true) && self.shown > 0;
        self.shown = match fault {
            // A first reading is believed, and so is a zero after a zero: that is a counter that does not move.
            Fault::FalseZero if was_read => 0,
            _ if self.narrow => self.counter & u64::from(u32::MAX),
            _ => self.counter,
        };
        let bits = if self.narrow { CounterBits::B32 } else { CounterBits::B64 };
        Some(Counters {
            ifindex: self.ifindex,
            rx_bytes: self.shown,
            packets: Some(Packets { rx: self.packets, tx: 0 }),
            bits,
            ..Counters::default()
        })
    }
}

#[derive(Default)]
struct ObservedBreaches {
    open: BTreeMap<SmolStr, Breach>,
    ended: BTreeSet<SmolStr>,
}

impl ObservedBreaches {
    fn observe(&mut self, bodies: &[Body]) -> Result<(), TestCaseError> {
        for body in bodies {
            let Some(breach) = body.breach() else { continue };
            let id = breach.breach_id.clone();
            prop_assert!(!self.ended.contains(&id), "observed of after its end: {body:?}");
            match body {
                Body::BreachRaised(_) => {
                    let twice = self
                        .open
                        .values()
                        .any(|open| (&open.limit_name, &open.interface) == (&breach.limit_name, &breach.interface));
                    prop_assert!(!twice, "raised twice: {body:?}");
                    prop_assert!(breach.rate_bps >= breach.limit_bps);
                }
                _ => {
                    let before = self.open.get(&id);
                    prop_assert!(before.is_some(), "never raised: {body:?}");
                    let before = before.expect("just asked");
                    prop_assert!(
                        before.duration_ms <= breach.duration_ms && before.excess_bytes <= breach.excess_bytes
                    );
                    prop_assert!(before.peak_bps <= breach.peak_bps && before.raised_at == breach.raised_at);
                }
            }
            prop_assert!(breach.rate_bps <= breach.peak_bps && breach.mean_bps <= breach.peak_bps, "{body:?}");
            prop_assert!(breach.started_at < breach.raised_at && breach.raised_at <= breach.ended_at, "{body:?}");
            prop_assert!(breach.measured_ms <= breach.duration_ms, "{body:?}");
            let lasted = (breach.ended_at - breach.started_at).num_milliseconds();
            prop_assert_eq!(u64::try_from(lasted).ok(), Some(breach.duration_ms), "{:?}", body);
            // The first reading below `clear_at` ends a breach here: none is taken in.
            let clear_at = if &*breach.interface == "*" { 3 * CLEAR } else { CLEAR } * 8;
            prop_assert!(breach.mean_bps >= clear_at, "{body:?}");
            if let Body::BreachCleared(_) = body {
                self.open.remove(&id);
                self.ended.insert(id);
            } else {
                self.open.insert(id, breach.clone());
            }
        }
        Ok(())
    }

    fn is_open(&self, interface: &str) -> bool {
        self.open.values().any(|breach| breach.interface == interface)
    }
}

fn limits() -> Vec<Limit> {
    let rate = |bytes: u64| Level::Rate(BitRate::from_bps(bytes * 8));
    let link =
        Limit { raise_at: rate(RAISE), clear_at: rate(CLEAR), update_every: SECOND * 3, ..limit("link", on("eth*")) };
    let host = Limit {
        name: "host".into(),
        scope: host(),
        raise_at: rate(3 * RAISE),
        clear_at: rate(3 * CLEAR),
        ..link.clone()
    };
    vec![link, host]
}

/// Runs `ticks` on three links that carry from 1 MiB/s to `ceiling` bytes a second; fails where a report cannot be true.
fn judge(ticks: &[Tick], ceiling: u64, narrow: bool, start: u64) -> Result<(), TestCaseError> {
    let mut links: Vec<Link> = (0..3)
        .map(|nth| Link {
            ifindex: nth + 2,
            there: false,
            counter: start,
            shown: 0,
            packets: start / 1_000,
            was_read: false,
            narrow,
        })
        .collect();
    let mut detector = Detector::new(limits(), SECOND, 7);
    let (mut at, mut boottime, mut observed, mut settled, mut next_index) =
        (SECOND, SECOND, ObservedBreaches::default(), 0, 5);
    for tick in ticks {
        let step = if tick.pause == Pause::Starved { SECOND * 7 } else { SECOND };
        at += step;
        boottime += step + if tick.pause == Pause::Suspend { SECOND * 3_600 } else { Duration::ZERO };
        let mut reading = Reading { at, boottime, ..Reading::default() };
        let (mut carried, mut wraps) = ([0; 3], false);
        for (nth, link) in links.iter_mut().enumerate() {
            let fault = tick.faults[nth];
            carried[nth] = MIB + (ceiling - MIB) * u64::from(tick.load[nth]) / 256;
            if fault == Fault::Leaves && link.there {
                link.there = false;
                reading.changes.push(LinkChange::Removed(link.ifindex, RemoveReason::Gone));
                continue;
            }
            if !link.there {
                (link.ifindex, link.there, link.was_read) = (next_index, true, false);
                next_index += 1;
                let name = format!("eth{nth}");
                reading.changes.push(LinkChange::Added(info(link.ifindex, &name), AddReason::Appeared));
            }
            let before = link.counter;
            reading.counters.extend(link.show(carried[nth] * step.as_secs(), fault));
            wraps |= narrow && before >> 32 != link.counter >> 32;
        }
        let stamp = Stamp {
            agent: "a".into(),
            observed_at: DateTime::UNIX_EPOCH + boottime,
            boot_id: "one".into(),
            monotonic_ms: boottime.as_millis() as u64,
            clock_synced: None,
        };
        let mut detections = Detections::default();
        detector.observe(&reading, &stamp, &mut detections);
        observed.observe(&detections.bodies)?;
        for breach in observed.open.values() {
            let all = if breach.interface == "*" { 3 } else { 1 };
            prop_assert!(breach.peak_bps <= all * ceiling * 8, "more than was ever carried: {breach:?}");
        }
        // A wrap at a rising rate cannot be distinguished from a reset.
        let quiet = tick.faults == [Fault::None; 3] && tick.pause == Pause::None && !wraps;
        settled = if quiet { settled + 1 } else { 0 };
        if settled >= SETTLED_AFTER {
            for (nth, bytes) in carried.iter().enumerate() {
                let open = observed.is_open(&format!("eth{nth}"));
                prop_assert!(*bytes < RAISE || open, "eth{nth} carries {bytes} and nothing is raised");
                prop_assert!(*bytes >= CLEAR || !open, "eth{nth} carries {bytes} and nothing is cleared");
            }
            let sum: u64 = carried.iter().sum();
            prop_assert!(sum < 3 * RAISE || observed.is_open("*"), "the host carries {sum} and nothing is raised");
            prop_assert!(sum >= 3 * CLEAR || !observed.is_open("*"), "the host carries {sum} and nothing is cleared");
        }
    }
    prop_assert!(ceiling >= RAISE || observed.open.is_empty() && observed.ended.is_empty(), "a breach was invented");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Traffic below all limits: no fault of the counters raises a breach.
    #[test]
    fn no_breach_is_invented(
        ticks in proptest::collection::vec(tick(), 1..30),
        narrow: bool,
        start in prop_oneof![Just(0), 0..u64::MAX / 8, (1_u64 << 32) - 100 * MIB..1 << 32],
    ) {
        judge(&ticks, RAISE - 1, narrow, start)?;
    }

    /// Traffic around the limits: reports are complete, never exceed what was carried, and are right once the faults are over.
    #[test]
    fn what_is_reported_is_true(
        ticks in proptest::collection::vec(tick(), 1..30),
        narrow: bool,
        start in prop_oneof![Just(0), 0..u64::MAX / 8, (1_u64 << 32) - 400 * MIB..1 << 32],
    ) {
        judge(&ticks, 20 * MIB, narrow, start)?;
    }
}
