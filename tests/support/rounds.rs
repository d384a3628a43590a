//! Rounds of a fault: a few in every run of the tests, many in the long run, whose results are in a file.
//!
//! `tests/run --faults` names the file and the seed in the environment. Each round is one line of it, appended as it ends, so that
//! a stopped run goes on where it was. A round's random numbers depend on the seed, the fault's name and the round's number alone.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::checker::Verdict;
use super::failpoints;

/// Result file; set in the long run only.
const FILE: &str = "HIGHWATER_TEST_FAULTS";
/// Seed of all random numbers.
const SEED: &str = "HIGHWATER_TEST_SEED";
/// Maximum number of rounds of each fault in the long run, including those in the result file.
const ROUNDS: &str = "HIGHWATER_TEST_ROUNDS";

pub(crate) struct Fault {
    /// Name in the table, lower case with dashes; `--only` takes it.
    pub(crate) name: &'static str,
    /// Rounds in every run of the tests.
    pub(crate) short: u32,
    /// Rounds in the long run.
    pub(crate) long: u32,
    /// Number of rounds after which topic, database and journal are recreated.
    pub(crate) fresh_every: u32,
}

impl Fault {
    /// Returns whether this run has rounds of it; else no server is started for them.
    pub(crate) fn is_due(&self) -> bool {
        self.short > 0 || std::env::var_os(FILE).is_some()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Accepted in this round.
    pub(crate) events: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) out_of_order: u64,
    pub(crate) invented: u64,
    pub(crate) declared: u64,
    /// From the fault's end until all that was accepted was stored or declared.
    pub(crate) recovery: Duration,
}

impl Outcome {
    /// Makes the outcome of a round that began with `before` events.
    pub(crate) fn of(verdict: &Verdict, before: &Verdict, recovery: Duration) -> Self {
        Self {
            events: verdict.accepted - before.accepted,
            lost: verdict.lost.len() as u64,
            doubled: verdict.doubled.len() as u64,
            out_of_order: verdict.out_of_order.len() as u64,
            invented: verdict.invented.len() as u64,
            declared: verdict.declared.len().saturating_sub(before.declared.len()) as u64,
            recovery,
        }
    }

    /// Adds a later outcome of the same round. Violations are cumulative already: they are not added.
    pub(crate) fn and(self, then: Self) -> Self {
        Self {
            events: self.events + then.events,
            lost: self.lost.max(then.lost),
            doubled: self.doubled.max(then.doubled),
            out_of_order: self.out_of_order.max(then.out_of_order),
            invented: self.invented.max(then.invented),
            declared: self.declared + then.declared,
            recovery: self.recovery + then.recovery,
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        [self.lost, self.doubled, self.out_of_order, self.invented] == [0; 4]
    }
}

/// Writes the end of a line of the result file, after fault and round.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, lost, doubled, out_of_order, invented, declared, recovery } = self;
        write!(f, "{events}\t{lost}\t{doubled}\t{out_of_order}\t{invented}\t{declared}\t{}", recovery.as_millis())
    }
}

/// Runs the rounds of `fault`: `make` makes a pipeline, `round` injects the fault once and returns the outcome. Panics where a promise
/// was broken, with what repeats the round.
pub(crate) fn rounds<W>(
    fault: &Fault,
    mut make: impl FnMut() -> W,
    mut round: impl FnMut(&mut W, &mut Rng) -> Outcome,
) {
    let name = fault.name;
    let long = std::env::var_os(FILE).map(PathBuf::from);
    let seed: u64 =
        std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..1 << 32));
    let (first, last) = match &long {
        Some(file) => {
            let most = std::env::var(ROUNDS).ok().and_then(|most| most.parse().ok());
            (done(file, name) + 1, fault.long.min(most.unwrap_or(u32::MAX)))
        }
        None => (1, fault.short),
    };
    let mut pipeline = None;
    let mut broken = 0;
    for number in first..=last {
        if (number - 1) % fault.fresh_every == 0 {
            pipeline = None; // the old one ends before the new one begins
        }
        let pipeline = pipeline.get_or_insert_with(&mut make);
        // Printed where the round fails by a panic.
        eprintln!("fault {name}, round {number} of {last}: HIGHWATER_TEST_SEED={seed}");
        let outcome = round(pipeline, &mut rng(seed, name, number));
        if let Some(file) = &long {
            append(file, &format!("{name}\t{number}\t{outcome}\n"));
        }
        broken += u32::from(!outcome.is_clean());
        assert!(long.is_some() || broken == 0, "round {number} of {name} broke a promise, seed {seed}: {outcome:?}");
    }
    assert_eq!(broken, 0, "so many rounds of {name} broke a promise, seed {seed}");
}

/// Waits until `what` is true, and returns how long that took. The time-out is far above what recovery promises (330 s), but
/// shorter for a mutant.
pub(crate) fn recovered(name: &str, mut what: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    let stop = Duration::from_secs(if failpoints::is_mutant() { 60 } else { 400 });
    while !what() {
        assert!(began.elapsed() < stop, "no recovery in {} s: {name}", stop.as_secs());
        std::thread::sleep(Duration::from_millis(30));
    }
    began.elapsed()
}

fn rng(seed: u64, name: &str, number: u32) -> Rng {
    let mut hasher = DefaultHasher::new(); // the same in every process
    (seed, name, number).hash(&mut hasher);
    Rng::with_seed(hasher.finish())
}

fn done(file: &PathBuf, name: &str) -> u32 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| line.split('\t').next() == Some(name)).count() as u32
}

fn append(file: &PathBuf, line: &str) {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened.and_then(|mut file| file.write_all(line.as_bytes())).expect("the results can be written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_rounds_and_no_others() {
        let first = |seed, name, number| rng(seed, name, number).u64(..);
        assert_eq!(first(1, "a", 1), first(1, "a", 1));
        assert_ne!(first(1, "a", 1), first(1, "a", 2));
        assert_ne!(first(1, "a", 1), first(1, "b", 1));
        assert_ne!(first(1, "a", 1), first(2, "a", 1));
    }

    #[test]
    fn what_stands_in_the_file_is_not_done_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("1.tsv");
        assert_eq!(done(&file, "kill"), 0);
        append(&file, "# seed 1\n");
        append(&file, &format!("kill\t1\t{}\n", Outcome::default()));
        append(&file, &format!("kill-consumer\t1\t{}\n", Outcome::default()));
        assert_eq!((done(&file, "kill"), done(&file, "kill-consumer"), done(&file, "other")), (1, 1, 0));
    }

    #[test]
    fn a_broken_promise_fails_the_test() {
        for broken in [
            Outcome { lost: 1, ..Outcome::default() },
            Outcome { doubled: 1, ..Outcome::default() },
            Outcome { out_of_order: 1, ..Outcome::default() },
            Outcome { invented: 1, ..Outcome::default() },
        ] {
            assert!(!broken.is_clean());
        }
        assert!(Outcome { events: 9, declared: 3, ..Outcome::default() }.is_clean());
    }
}
