//! The result of a replay: its rows, and the breaches that its events tell of.

use std::io::{self, Write};

use super::lanes::Delivered;
use crate::agent::cli::outlet;
use crate::event::{Body, Breach, Epoch};
use crate::exit::Failure;
use crate::output::{self, Format, Rows, Value};
use crate::units::{BitRate, ByteCount};

/// Rows, and the breaches that they make. All figures of a breach are those of its last event.
pub(super) struct Summary {
    pub(super) rows: u64,
    pub(super) bad_rows: u64,
    breaches: u64,
    /// Breaches that had not ended at the last row.
    open: u64,
    /// The one with the highest peak.
    worst: Option<Breach>,
    over_limit_ms: u64,
    printer: Option<Rows<Box<dyn Write>>>,
}

const BREACH_COLUMNS: &[&str] = &[
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

const COLUMNS: &[&str] = &[
    "rows",
    "bad_rows",
    "breaches",
    "open_breaches",
    "worst_bps",
    "worst_at",
    "over_limit_seconds",
    "events",
    "delivered",
    "failed",
    "last_offsets",
    "epoch",
    // Where samples are sent.
    "samples",
    "samples_delivered",
    "samples_failed",
    "samples_last_offsets",
];

/// The columns that are always there.
const ALWAYS: usize = 12;

impl Summary {
    /// Begins; with a format, each breach is printed when it ends.
    pub(super) fn new(print: Option<Format>) -> Self {
        let printer = print.map(|format| Rows::new(format, BREACH_COLUMNS, output::stdout(format)));
        Self { rows: 0, bad_rows: 0, breaches: 0, open: 0, worst: None, over_limit_ms: 0, printer }
    }

    /// Counts a row, and what it made.
    pub(super) fn row(&mut self, bodies: &[Body]) -> io::Result<()> {
        self.rows += 1;
        for body in bodies {
            let Some(breach) = body.breach() else { continue };
            self.breaches += u64::from(matches!(body, Body::BreachRaised(_)));
            self.compare(breach);
            if matches!(body, Body::BreachCleared(_)) {
                self.over_limit_ms += breach.duration_ms;
                self.print_breach(breach, "cleared")?;
            }
        }
        Ok(())
    }

    /// Counts the breaches that are open after the last row.
    pub(super) fn open(&mut self, breaches: impl Iterator<Item = Breach>) -> io::Result<()> {
        for breach in breaches {
            self.open += 1;
            self.over_limit_ms += breach.duration_ms;
            self.compare(&breach);
            self.print_breach(&breach, "open")?;
        }
        Ok(())
    }

    /// Ends the table of breaches.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.printer.take().map_or(Ok(()), Rows::end)
    }

    /// Prints it as a row.
    pub(super) fn print(
        &self,
        format: Format,
        delivered: &Delivered,
        published: bool,
        epoch: Option<Epoch>,
    ) -> Result<(), Failure> {
        let Delivered { events, samples, .. } = delivered;
        let sent = |value: Value| if published { value } else { Value::Nothing };
        let mut values: Vec<Value> = vec![
            self.rows.into(),
            self.bad_rows.into(),
            self.breaches.into(),
            self.open.into(),
            self.worst.as_ref().map(|breach| BitRate::from_bps(breach.peak_bps)).into(),
            self.worst.as_ref().map(|breach| breach.raised_at).into(),
            self.over_limit_seconds().into(),
            events.events.into(),
            sent(events.delivered.into()),
            sent(events.failed.into()),
            sent(outlet::offsets(events)),
            epoch.map_or(Value::Nothing, |epoch| epoch.to_string().into()),
        ];
        if let Some(samples) = samples {
            values.extend([samples.events.into(), samples.delivered.into(), samples.failed.into()]);
            values.push(outlet::offsets(samples));
        }
        let columns = if samples.is_some() { COLUMNS } else { &COLUMNS[..ALWAYS] };
        outlet::print_record(format, columns, values)
    }

    /// Puts it in a line, where standard output has the breaches.
    pub(super) fn words(&self, delivered: &Delivered) -> String {
        let Delivered { events, samples, .. } = delivered;
        let samples = samples.as_ref().map(|samples| {
            format!("; {} samples, {} delivered, {} failed", samples.events, samples.delivered, samples.failed)
        });
        let open = if self.open == 0 { String::new() } else { format!(" ({} open at the end)", self.open) };
        format!(
            "{} rows, {} of them bad, {} breaches{open}, {} s over the limit; {} events, {} delivered, {} failed{}",
            self.rows + self.bad_rows,
            self.bad_rows,
            self.breaches,
            self.over_limit_seconds(),
            events.events,
            events.delivered,
            events.failed,
            samples.unwrap_or_default()
        )
    }

    /// Refuses to call it done where the file was not understood.
    pub(super) fn judged(&self, file: &str) -> Result<(), Failure> {
        let all = self.rows + self.bad_rows;
        match (self.rows, self.bad_rows) {
            (0, 0) => Err(Failure::failed(format!("{file} has no rows"))),
            (0, _) => Err(Failure::failed(format!("all {all} rows of {file} are bad"))),
            (good, bad) if bad > good => Err(Failure::failed(format!("{bad} of {all} rows of {file} are bad"))),
            _ => Ok(()),
        }
    }

    fn over_limit_seconds(&self) -> u64 {
        (self.over_limit_ms + 500) / 1_000
    }

    fn compare(&mut self, breach: &Breach) {
        if self.worst.as_ref().is_none_or(|worst| breach.peak_bps > worst.peak_bps) {
            self.worst = Some(breach.clone());
        }
    }

    fn print_breach(&mut self, breach: &Breach, state: &str) -> io::Result<()> {
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
