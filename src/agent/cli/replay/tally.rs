//! What a replay came to.

use std::collections::BTreeMap;
use std::io::{self, Write};

use smol_str::SmolStr;

use crate::event::{Body, Breach};
use crate::output::{self, Format, Rows, Value};
use crate::units::{BitRate, ByteCount};

/// Rows, and the breaches that they make.
pub(super) struct Tally {
    pub(super) rows: u64,
    pub(super) bad_rows: u64,
    /// So many began.
    pub(super) breaches: u64,
    /// The one with the highest peak.
    pub(super) worst: Option<Breach>,
    cleared_ms: u64,
    /// As they were told of last.
    open: BTreeMap<SmolStr, Breach>,
    printer: Option<Rows<Box<dyn Write>>>,
}

const COLUMNS: &[&str] = &[
    "raised_at",
    "state",
    "interface",
    "direction",
    "limit_bps",
    "peak_bps",
    "mean_bps",
    "duration_ms",
    "excess_bytes",
    "breach_id",
];

impl Tally {
    /// Nothing yet; with a format, each breach is printed when it is over.
    pub(super) fn new(print: Option<Format>) -> Self {
        let printer = print.map(|format| Rows::new(format, COLUMNS, output::stdout(format)));
        Self { rows: 0, bad_rows: 0, breaches: 0, worst: None, cleared_ms: 0, open: BTreeMap::new(), printer }
    }

    /// A row, and what it made.
    pub(super) fn row(&mut self, bodies: &[Body]) -> io::Result<()> {
        self.rows += 1;
        for body in bodies {
            let Some(breach) = body.breach() else { continue };
            self.breaches += u64::from(matches!(body, Body::BreachRaised(_)));
            if self.worst.as_ref().is_none_or(|worst| breach.peak_bps > worst.peak_bps) {
                self.worst = Some(breach.clone());
            }
            if matches!(body, Body::BreachCleared(_)) {
                self.open.remove(&breach.breach_id);
                self.cleared_ms += breach.duration_ms;
                self.print(breach, "cleared")?;
            } else {
                self.open.insert(breach.breach_id.clone(), breach.clone());
            }
        }
        Ok(())
    }

    /// How long all of them took, together.
    pub(super) fn over_limit_ms(&self) -> u64 {
        self.cleared_ms + self.open.values().map(|breach| breach.duration_ms).sum::<u64>()
    }

    /// There are no more rows: prints what is open.
    pub(super) fn end(&mut self) -> io::Result<()> {
        for breach in std::mem::take(&mut self.open).into_values() {
            self.cleared_ms += breach.duration_ms;
            self.print(&breach, "open")?;
        }
        self.printer.take().map_or(Ok(()), Rows::end)
    }

    fn print(&mut self, breach: &Breach, state: &str) -> io::Result<()> {
        let Some(printer) = &mut self.printer else { return Ok(()) };
        let values: [Value; 10] = [
            breach.raised_at.into(),
            state.into(),
            breach.interface.as_str().into(),
            breach.direction.as_str().into(),
            BitRate::from_bps(breach.limit_bps).into(),
            BitRate::from_bps(breach.peak_bps).into(),
            BitRate::from_bps(breach.mean_bps).into(),
            breach.duration_ms.into(),
            ByteCount::from_bytes(breach.excess_bytes).into(),
            breach.breach_id.as_str().into(),
        ];
        printer.push(values)
    }
}
