//! The rows of a file, one by one, and which of them Kafka has not yet.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::agent::counters::csv::{Carried, Columns, Csv};
use crate::agent::counters::{CounterError, CounterSource as _, Reading};
use crate::clock::SystemClock;
use crate::event::Stamp;
use crate::exit::Failure;

/// A file's rows, as readings.
pub(super) struct Rows {
    source: Csv,
    clock: SystemClock,
}

impl Rows {
    /// `-` is standard input. It ends too when somebody wants us to end; those who asked before to be told know it by then.
    pub(super) fn open(file: &Path, columns: &Columns, interface: &str) -> Result<Self, Failure> {
        let source = if file == Path::new("-") {
            let stdin = Box::new(Stdin::new().map_err(Failure::failed)?);
            Csv::from_reader(stdin, "standard input".to_owned(), columns, interface, None)
        } else {
            Csv::open(file, columns, interface, None)
        };
        Ok(Self { source: source.map_err(Failure::failed)?, clock: SystemClock::default() })
    }

    pub(super) fn next(&mut self) -> Result<Reading, CounterError> {
        let mut reading = Reading::default();
        self.source.read(&self.clock, &mut reading).map(|()| reading)
    }

    /// Of the row that was read last.
    pub(super) fn line(&self) -> u64 {
        self.source.line()
    }

    /// What that row says.
    pub(super) fn carried(&self) -> Carried {
        self.source.carried()
    }

    pub(super) fn grown(&self) -> u64 {
        self.source.grown()
    }
}

/// Standard input, which may be silent for long: it can be interrupted.
struct Stdin(Arc<AtomicBool>);

/// How often a silent one looks whether somebody wants an end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

impl Stdin {
    fn new() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self(stop))
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        while !self.0.load(Ordering::Relaxed) {
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&LOOK_EVERY)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(&stdin, &mut *buffer)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

/// A row's time, as if the agent had seen it.
pub(super) fn stamp(agent: &str, reading: &Reading) -> Stamp {
    let since_1970 = TimeDelta::from_std(reading.at).unwrap_or(TimeDelta::MAX);
    let observed_at = DateTime::UNIX_EPOCH.checked_add_signed(since_1970).unwrap_or(DateTime::<Utc>::MAX_UTC);
    Stamp {
        agent: agent.into(),
        observed_at: observed_at.trunc_subsecs(6),
        boot_id: String::new(),
        monotonic_ms: u64::try_from(reading.at.as_millis()).unwrap_or(u64::MAX),
        clock_synced: None,
    }
}

/// The lines whose events may not have been delivered.
#[derive(Default)]
pub(super) struct Undelivered {
    lines: VecDeque<(DateTime<Utc>, u64)>,
}

impl Undelivered {
    /// A line made events; those before `oldest_pending` are delivered.
    pub(super) fn add(&mut self, at: DateTime<Utc>, line: u64, oldest_pending: Option<DateTime<Utc>>) {
        while self.lines.front().is_some_and(|(before, _)| oldest_pending.is_none_or(|oldest| *before < oldest)) {
            self.lines.pop_front();
        }
        self.lines.push_back((at, line));
    }

    /// The line to go on with: that of the oldest pending event, or `next`, the first that was not judged.
    pub(super) fn first(&self, oldest_pending: Option<DateTime<Utc>>, next: u64) -> u64 {
        let pending = oldest_pending.and_then(|oldest| self.lines.iter().find(|(at, _)| *at >= oldest));
        pending.map_or(next, |(_, line)| *line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_go_on_with_is_that_of_the_oldest_pending_event() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let mut undelivered = Undelivered::default();
        undelivered.add(at(10), 2, None);
        undelivered.add(at(20), 3, Some(at(10)));
        undelivered.add(at(30), 5, Some(at(20)));
        assert_eq!(undelivered.first(Some(at(20)), 6), 3);
        assert_eq!(undelivered.first(Some(at(30)), 6), 5);
        assert_eq!(undelivered.first(None, 6), 6);
        undelivered.add(at(40), 6, None);
        assert_eq!(undelivered.lines.len(), 1);
    }
}
