//! The result of a replay: its rows, and the breaches of its events.

use std::io::{self, Write};
use std::time::Duration;

use super::streams::Delivered;
use crate::agent::toolbox::sender::Delivery;
use crate::agent::toolbox::sinks;
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::message::{Body, Breach, Epoch};
use crate::process::exit::Failure;
use crate::units::{BitRate, ByteCount, counted, lasting};

pub(crate) struct Summary {
    pub(crate) rows: u64,
    pub(crate) bad_rows: u64,
    breaches: u64,
    open: u64,
    worst: Option<Breach>,
    over_limit_ms: u64,
    printer: Option<Rows<Box<dyn Write>>>,
}

const BREACH_COLUMNS: &[&str] = &[
    "started_at",
    "ended_at",
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
    "samples",
    "samples_delivered",
    "samples_failed",
    "samples_last_offsets",
];

const ALWAYS: usize = 12;

impl Summary {
    pub(crate) fn new(print: Option<OutputFormat>) -> Self {
        let printer = print.map(|format| Rows::new(format, BREACH_COLUMNS, output::stdout(format)));
        Self { rows: 0, bad_rows: 0, breaches: 0, open: 0, worst: None, over_limit_ms: 0, printer }
    }

    pub(crate) fn row(&mut self, bodies: &[Body]) -> io::Result<()> {
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

    pub(crate) fn open(&mut self, breaches: impl Iterator<Item = Breach>) -> io::Result<()> {
        for breach in breaches {
            self.open += 1;
            self.over_limit_ms += breach.duration_ms;
            self.compare(&breach);
            self.print_breach(&breach, "open")?;
        }
        Ok(())
    }

    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.printer.take().map_or(Ok(()), Rows::end)
    }

    pub(crate) fn print(
        &self,
        format: OutputFormat,
        delivered: &Delivered,
        published: bool,
        epoch: Option<Epoch>,
    ) -> Result<(), Failure> {
        let Delivered { events, samples, .. } = delivered;
        let sent = |value: Value| if published { value } else { Value::Null };
        let mut values: Vec<Value> = vec![
            self.rows.into(),
            self.bad_rows.into(),
            self.breaches.into(),
            self.open.into(),
            self.worst.as_ref().map(|breach| BitRate::from_bps(breach.peak_bps)).into(),
            self.worst.as_ref().map(|breach| breach.started_at).into(),
            self.over_limit_seconds().into(),
            events.events.into(),
            sent(events.delivered.into()),
            sent(events.failed.into()),
            sent(sinks::offsets(events)),
            epoch.map_or(Value::Null, |epoch| epoch.to_string().into()),
        ];
        if let Some(samples) = samples {
            values.extend([samples.events.into(), samples.delivered.into(), samples.failed.into()]);
            values.push(sinks::offsets(samples));
        }
        let columns = if samples.is_some() { COLUMNS } else { &COLUMNS[..ALWAYS] };
        sinks::print_record(format, columns, values)
    }

    pub(crate) fn line(&self, delivered: &Delivered) -> String {
        let Delivered { events, samples, .. } = delivered;
        let sent = |delivery: &Delivery, noun: &str| {
            let Delivery { events, delivered, failed, .. } = delivery;
            format!("; {}, {delivered} delivered, {failed} failed", counted(*events, noun))
        };
        let open = if self.open == 0 { String::new() } else { format!(" ({} open at the end)", self.open) };
        format!(
            "{}, {} of them bad, {}{open}, {} over the limit{}{}",
            counted(self.rows + self.bad_rows, "row"),
            self.bad_rows,
            counted(self.breaches, "breach"),
            lasting(Duration::from_millis(self.over_limit_ms)),
            sent(events, "event"),
            samples.as_ref().map(|samples| sent(samples, "sample")).unwrap_or_default()
        )
    }

    pub(crate) fn check_rows(&self, file: &str) -> Result<(), Failure> {
        let all = self.rows + self.bad_rows;
        match (self.rows, self.bad_rows) {
            (0, 0) => Err(Failure::failed(format!("{file} has no rows"))),
            (0, 1) => Err(Failure::failed(format!("the only row of {file} is bad"))),
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
        let values: [Value; 11] = [
            breach.started_at.into(),
            breach.ended_at.into(),
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
