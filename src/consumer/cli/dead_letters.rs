use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use serde_json::json;

use super::common::{Common, unavailable};
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::consumer::batch::PackedHeaders;
use crate::consumer::config::Settings;
use crate::consumer::report::dead_letters::{self, DeadLetter, DeadLetterFilter, KafkaPosition, Payloads};
use crate::consumer::store::{RetryOutcome, Store, StoreOptions};
use crate::process::clock::SystemClock;
use crate::process::exit::Failure;
use crate::text::truncate;
use crate::units::counted;

const LIST_HELP: &str = "\
A message that is no event, or that the database rejects, does not hold up the
others: it is kept as it came, with the reason. After retention.dead_letters (90
days by default) its bytes are removed; `list --dropped` still shows it.

A table shows the beginning of each payload; JSON and CSV have all of it as
text, with Kafka's timestamp, the headers, and the event that the message claims
to be. --raw prints the bytes themselves.

Examples:
  highwater-consumer dead-letters list
  highwater-consumer dead-letters list --error 'schema registry' --agent gw-042
  highwater-consumer dead-letters list --partition 3 --offset 1200-1300
  highwater-consumer dead-letters list --partition 3 --offset 1234 --raw | xxd
  highwater-consumer dead-letters list --format json | jq -r .error | sort |
    uniq -c";

const RETRY_HELP: &str = "\
Decodes the messages again, with their headers, and stores those that are events
now: after an upgrade to a version that knows their format, once the schema
registry answers, or once the database accepts them. One transaction stores the
row, with all that follows from it, and removes the dead letter; an event that
is stored already adds no second row. A consumer may be running. Dropped ones
are not retried.

Exit code: 0 if no dead letter remains; 1 if some do (they are listed, with the
reason); 69 if the store, or a schema registry that is needed, could not be
reached.

Examples:
  highwater-consumer dead-letters retry
  highwater-consumer dead-letters retry --partition 3 --offset 1234";

const DROP_HELP: &str = "\
Discards dead letters: their bytes are removed; what remains is where they were
in Kafka, whose events they were, and the reason. `losses` counts them as
discarded. Without a selection it drops all of them, and does not ask: check
with `list` and the same flags first.

Exit code: 0, also if there were none; 69 if the store could not be reached.

Examples:
  highwater-consumer dead-letters drop --error 'neither JSON' \\
    --reason 'test messages of the load test'
  highwater-consumer dead-letters drop --agent gw-042 --reason 'replaced'";

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// Show the messages that could not be stored, and why
    #[command(after_help = LIST_HELP)]
    List {
        #[command(flatten)]
        which: DeadLetterFlags,
        /// Output format
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: OutputFormat,
        /// Include those that were dropped, with the reason
        #[arg(long)]
        dropped: bool,
        /// Print only the payloads' bytes, each followed by a newline
        #[arg(long, conflicts_with = "format")]
        raw: bool,
    },
    /// Decode them again, and store what can be stored
    #[command(after_help = RETRY_HELP)]
    Retry {
        #[command(flatten)]
        which: DeadLetterFlags,
        /// Output format
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: OutputFormat,
    },
    /// Discard messages that can't be stored, with a reason
    #[command(after_help = DROP_HELP)]
    Drop {
        #[command(flatten)]
        which: DeadLetterFlags,
        /// Reason, shown by `losses` and `list --dropped`
        #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct DeadLetterFlags {
    #[command(flatten)]
    common: Common,
    /// Only this partition (of one topic: --topic)
    #[arg(short, long, value_name = "N")]
    partition: Option<i32>,
    /// Only this offset, or a range: 1200-1300
    #[arg(short, long, value_name = "FROM-TO", value_parser = offsets)]
    offset: Option<(i64, i64)>,
    /// Only if the error contains this text, in any case
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only this agent's, by payload, headers or key
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
}

const TABLE: &[&str] =
    &["stored_at", "kafka_topic", "kafka_partition", "kafka_offset", "agent", "bytes", "key", "payload", "error"];
const DROPPED_TABLE: &[&str] = &[
    "stored_at",
    "kafka_topic",
    "kafka_partition",
    "kafka_offset",
    "agent",
    "bytes",
    "error",
    "dropped_at",
    "drop_reason",
];
const LIST: &[&str] = &[
    "stored_at",
    "kafka_cluster",
    "kafka_topic",
    "kafka_partition",
    "topic_generation",
    "kafka_offset",
    "kafka_timestamp",
    "agent",
    "epoch",
    "seq",
    "bytes",
    "key",
    "headers",
    "payload",
    "error",
    "dropped_at",
    "drop_reason",
];
const RETRY: &[&str] = &["kafka_topic", "kafka_partition", "kafka_offset", "result", "reason"];

const EXCERPT_CHARS: usize = 48;
const EXCERPT_BYTES: i64 = 4 * (EXCERPT_CHARS as i64 + 1);

impl DeadLetters {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { which, dropped, raw: true, .. } => {
                let mut out = io::BufWriter::new(io::stdout());
                let printed = which.list(dropped, Payloads::Whole, |letter| {
                    out.write_all(&letter.payload.unwrap_or_default())?;
                    out.write_all(b"\n")
                })?;
                output::finished(printed.and_then(|()| out.flush()))
            }
            Self::List { which, format, dropped, raw: false } => {
                let (columns, payloads) = match format {
                    OutputFormat::Table if dropped => (DROPPED_TABLE, Payloads::Begin(EXCERPT_BYTES)),
                    OutputFormat::Table => (TABLE, Payloads::Begin(EXCERPT_BYTES)),
                    OutputFormat::Json | OutputFormat::Csv => (LIST, Payloads::Whole),
                };
                let mut rows = Rows::new(format, columns, output::stdout(format));
                let printed = which.list(dropped, payloads, |letter| {
                    rows.push(columns.iter().map(|column| value(column, &letter, format)))
                })?;
                output::finished(printed.and_then(|()| rows.end()))
            }
            Self::Retry { which, format } => which.retry(format),
            Self::Drop { which, reason } => which.drop(&reason),
        }
    }
}

impl DeadLetterFlags {
    fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            topic: self.common.topic.clone(),
            partition: self.partition,
            first: self.offset.map(|(first, _)| first),
            last: self.offset.map(|(_, last)| last),
            agent: self.agent.clone(),
            error: self.error.clone(),
            with_dropped: false,
        }
    }

    fn list(
        &self,
        with_dropped: bool,
        payloads: Payloads,
        print: impl FnMut(DeadLetter) -> io::Result<()>,
    ) -> Result<io::Result<()>, Failure> {
        let mut reader = self.common.prepare()?.store.reader();
        let filter = DeadLetterFilter { with_dropped, ..self.filter() };
        dead_letters::read(&mut *reader, &filter, payloads, print).map_err(unavailable)
    }

    /// Prints what remains, and counts what was stored. A closed pipe stops the output, not the retry.
    fn retry(&self, format: OutputFormat) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let mut reader = settings.store.reader();
        // The store connects with the first page only: if nothing was ever stored, nothing is created.
        let mut store = open_store(&settings);
        let mut rows = Rows::new(format, RETRY, output::stdout(format));
        let (mut decoder, clock) = (settings.decoder(), SystemClock::default());
        let (mut returned, mut stay, mut printed) = (0_u64, 0_u64, Ok(()));
        let each = |at: &KafkaPosition, outcome: &RetryOutcome| {
            match outcome {
                RetryOutcome::Stored => returned += 1,
                RetryOutcome::Stays(_) => stay += 1,
                RetryOutcome::Gone => {}
            }
            if printed.is_ok() && *outcome != RetryOutcome::Stored {
                printed = rows.push(row_of(at, outcome));
            }
        };
        let retried = dead_letters::retry(&mut *store, &mut *reader, &self.filter(), (&mut decoder, &clock), each);
        if retried.is_ok() || stay > 0 {
            output::finished(printed.and_then(|()| rows.end()))?;
        }
        let inserted = retried.map_err(|error| unavailable(format!("{error}; {returned} stored before that")))?;
        let before = returned - inserted.min(returned);
        let again = if before > 0 { format!(" ({before} of them before)") } else { String::new() };
        self.common.note(&format!("{returned} stored{again}, {stay} remain"));
        if stay > 0 { Err(Failure::failed(format!("dead letters that remain: {stay}"))) } else { Ok(()) }
    }

    fn drop(&self, reason: &str) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let mut reader = settings.store.reader();
        let mut store = open_store(&settings);
        let clock = SystemClock::default();
        match dead_letters::drop_all(&mut *store, &mut *reader, &self.filter(), reason, &clock) {
            Ok(dropped) => output::print(&format!("dropped {}\n", counted(dropped, "dead letter"))),
            Err((error, dropped)) => Err(unavailable(format!("{error}; {dropped} were dropped before that"))),
        }
    }
}

/// Opens the store with what the consumer's configuration says of partitions; the rest is for `run` to write.
fn open_store(settings: &Settings) -> Box<dyn Store + Send> {
    let options = settings.store_options("dead-letters".to_owned());
    settings.store.open(&StoreOptions { silent_after: None, ..options })
}

fn row_of(at: &KafkaPosition, outcome: &RetryOutcome) -> [Value; 5] {
    let (result, reason) = match outcome {
        RetryOutcome::Stored => ("stored", Value::Null),
        RetryOutcome::Stays(reason) => ("remains", reason.as_str().into()),
        RetryOutcome::Gone => ("gone", "another program has processed it meanwhile".into()),
    };
    [at.topic.name.as_str().into(), at.partition.into(), at.offset.into(), result.into(), reason]
}

fn value(column: &str, letter: &DeadLetter, format: OutputFormat) -> Value {
    let text = |bytes: &Option<Vec<u8>>| match (bytes, format) {
        (Some(bytes), OutputFormat::Table) => truncate(&String::from_utf8_lossy(bytes), EXCERPT_CHARS).into(),
        (bytes, _) => bytes.clone().into(),
    };
    let DeadLetter { at, dropped, .. } = letter;
    match column {
        "stored_at" => letter.stored_at.into(),
        "kafka_cluster" => at.topic.cluster.as_str().into(),
        "kafka_topic" => at.topic.name.as_str().into(),
        "kafka_partition" => at.partition.into(),
        "topic_generation" => at.generation.into(),
        "kafka_offset" => at.offset.into(),
        "kafka_timestamp" => letter.kafka_timestamp.into(),
        "agent" => letter.agent.clone().into(),
        "epoch" => letter.epoch.clone().into(),
        "seq" => letter.seq.into(),
        "bytes" => letter.bytes.into(),
        "key" => text(&letter.key),
        "headers" => in_json(&letter.headers).into(),
        "payload" => text(&letter.payload),
        "error" => letter.error.as_str().into(),
        "dropped_at" => dropped.as_ref().map(|(time, _)| *time).into(),
        "drop_reason" => dropped.as_ref().map(|(_, reason)| reason.as_str()).into(),
        _ => Value::Null,
    }
}

fn in_json(headers: &PackedHeaders) -> serde_json::Value {
    let header =
        |(name, value): (&str, Option<&[u8]>)| json!({"name": name, "value": value.map(String::from_utf8_lossy)});
    headers.iter().map(header).collect()
}

fn offsets(text: &str) -> Result<(i64, i64), String> {
    let number = |text: &str| text.parse::<i64>().map_err(|_| "is not an offset; write 1200 or 1200-1300".to_owned());
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first <= last { Ok((first, last)) } else { Err(format!("ends before it begins; write {last}-{first}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_one_or_from_one_to_another() {
        assert_eq!(offsets("7"), Ok((7, 7)));
        assert_eq!(offsets("7-9"), Ok((7, 9)));
        assert_eq!(offsets("9-7"), Err("ends before it begins; write 7-9".into()));
        assert!(offsets("-7").is_err() && offsets("seven").is_err());
    }
}
