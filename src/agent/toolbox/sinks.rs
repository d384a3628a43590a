//! Destinations of the events of `simulate` and `replay`, their progress bar, and their result.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

use crate::agent::config::Settings;
use crate::agent::event_system::{ObserveError, Observer};
use crate::agent::toolbox::sender::Delivery;
use crate::agent::toolbox::topics::failure;
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::kafka::admin::{Admin, AdminError};
use crate::kafka::missing_topic;
use crate::message::Event;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;
use crate::process::signals::SignalPipe;
use crate::units::{BitRate, ByteCount, counted};
use crate::wire;

pub(crate) struct Printer {
    name: String,
    out: Option<Printed>,
}

enum Printed {
    /// Format of `kcat -P -l FILE`: a line of JSON for each event.
    Lines(BufWriter<Box<dyn Write>>),
    Rows(Rows<Box<dyn Write>>),
}

const STANDARD_OUTPUT: &str = "-";

const EVENT_COLUMNS: &[&str] = &[
    "observed_at",
    "agent",
    "kind",
    "interface",
    "direction",
    "limit_name",
    "rate_bps",
    "duration_ms",
    "excess_bytes",
];

impl Printer {
    pub(crate) fn to_file(path: &Path) -> Result<Self, Failure> {
        let name = file_name(path);
        let file: Box<dyn Write> = if path == Path::new(STANDARD_OUTPUT) {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|error| Failure::failed(format!("{name}: {error}")))?)
        };
        Ok(Self { name, out: Some(Printed::Lines(BufWriter::new(file))) })
    }

    pub(crate) fn to_terminal(format: OutputFormat) -> Self {
        let rows = Rows::new(format, EVENT_COLUMNS, output::stdout(format));
        Self { name: file_name(Path::new(STANDARD_OUTPUT)), out: Some(Printed::Rows(rows)) }
    }
}

pub(crate) fn file_name(path: &Path) -> String {
    if path == Path::new(STANDARD_OUTPUT) { "standard output".to_owned() } else { path.display().to_string() }
}

impl Observer for Printer {
    fn name(&self) -> &str {
        &self.name
    }

    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        match events.iter().try_for_each(|event| out.print(event)) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.out = None,
            printed => printed?,
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ObserveError> {
        match self.out.take() {
            None => Ok(()),
            Some(Printed::Rows(rows)) => output::finished(rows.end()).map_err(|failure| failure.to_string().into()),
            Some(Printed::Lines(mut out)) => match out.flush() {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                flushed => Ok(flushed?),
            },
        }
    }
}

impl Printed {
    fn print(&mut self, event: &Event) -> io::Result<()> {
        let rows = match self {
            Self::Rows(rows) => rows,
            Self::Lines(out) => {
                out.write_all(&wire::to_json(event))?;
                return out.write_all(b"\n");
            }
        };
        let Event { stamp, body, .. } = event;
        let breach = body.breach();
        rows.push([
            stamp.observed_at.into(),
            stamp.agent.as_str().into(),
            body.kind().into(),
            body.interface().into(),
            breach.map(|breach| breach.direction.as_str()).into(),
            breach.map(|breach| breach.limit_name.as_str()).into(),
            breach.map(|breach| BitRate::from_bps(breach.rate_bps)).into(),
            breach.map(|breach| breach.duration_ms).into(),
            breach.map(|breach| ByteCount::from_bytes(breach.excess_bytes)).into(),
        ])
    }
}

pub(crate) fn progress(length: Option<u64>, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            format!("{{wide_bar}} {{human_pos}} of {{human_len}} {unit}, {{pace}} per second, {{eta}} left"),
        ),
        None => (ProgressBar::no_length(), format!("{{spinner}} {{human_pos}} {unit}, {{pace}} per second")),
    };
    let pace = |state: &ProgressState, line: &mut dyn fmt::Write| {
        let _ = write!(line, "{}", HumanCount(state.per_sec() as u64));
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.with_key("pace", pace))
}

pub(crate) fn topic_is_there(settings: &Settings, topic: &str) -> Result<(), Failure> {
    let (_, topics) = Admin::new(&settings.publisher.connection).and_then(|admin| admin.topics()).map_err(failure)?;
    if topics.iter().any(|found| found.name == topic && !found.partitions.is_empty()) {
        return Ok(());
    }
    Err(Failure::failed(missing_topic(topic, settings.publisher.connection.brokers())))
}

/// Longest time without an answer about a group: its coordinator may be moving, or not be there yet.
const UNANSWERED_MAX: Duration = Duration::from_secs(60);

/// Waits until a group has committed what was delivered to this topic, which a consumer does after its database has stored it.
pub(crate) fn wait_stored(
    settings: &Settings,
    group: &str,
    topic: &str,
    last_offsets: &BTreeMap<i32, i64>,
) -> Result<(), Failure> {
    let admin = Admin::new(&settings.publisher.connection).map_err(failure)?;
    let signals = SignalPipe::new().map_err(Failure::failed)?;
    signals.listen_to_signals().map_err(Failure::failed)?;
    let bar = progress(Some(last_offsets.len() as u64), "partitions stored");
    let partitions: Vec<i32> = last_offsets.keys().copied().collect();
    let (clock, mut stored) = (SystemClock::default(), 0);
    let mut answered = clock.monotonic();
    loop {
        match admin.committed((group, "Describe"), topic, &partitions) {
            Ok(committed) => {
                answered = clock.monotonic();
                let is_stored =
                    |(partition, last): &(&i32, &i64)| committed.get(partition).is_some_and(|next| next > last);
                stored = last_offsets.iter().filter(is_stored).count();
            }
            Err(AdminError::Unavailable { .. }) if clock.monotonic().saturating_sub(answered) < UNANSWERED_MAX => {}
            Err(error) => return Err(failure(error)),
        }
        bar.set_position(stored as u64);
        if stored == last_offsets.len() {
            bar.finish_and_clear();
            return Ok(());
        }
        if signals.stop_requested() {
            let partitions = counted(last_offsets.len() as u64, "partition");
            let message = format!("interrupted: {group} has stored {stored} of {partitions}");
            return Err(Failure::failed(message));
        }
        signals.sleep(Duration::from_millis(500));
    }
}

pub(crate) fn offsets(delivery: &Delivery) -> Value {
    let offsets = delivery.last_offsets.iter().map(|(partition, offset)| (partition.to_string(), (*offset).into()));
    Value::Json(serde_json::Value::Object(offsets.collect()))
}

pub(crate) fn print_record(
    format: OutputFormat,
    columns: &'static [&'static str],
    values: Vec<Value>,
) -> Result<(), Failure> {
    let printed = if format == OutputFormat::Table {
        let mut rows = Rows::new(format, &["field", "value"], output::stdout(format));
        let pairs = columns.iter().zip(values);
        pairs
            .map(|(name, value)| [output::head(name).into(), value])
            .try_for_each(|row| rows.push(row))
            .and_then(|()| rows.end())
    } else {
        let mut rows = Rows::new(format, columns, output::stdout(format));
        rows.push(values).and_then(|()| rows.end())
    };
    output::finished(printed)
}

pub(crate) fn check_delivered(delivery: &Delivery, what: &str) -> Result<(), Failure> {
    match (delivery.failed, &delivery.problem) {
        (0, _) => Ok(()),
        (failed, None) => Err(Failure::failed(format!("not delivered: {}", counted(failed, what)))),
        (failed, Some(why)) => Err(Failure::failed(format!("not delivered: {}: {why}", counted(failed, what)))),
    }
}
