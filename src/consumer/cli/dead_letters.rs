//! `highwater-consumer dead-letters`.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};

use super::common::{Absent, Common, unavailable};
use crate::clock::SystemClock;
use crate::consumer::letters::{self, Filter, KafkaPosition, Letter, Payloads};
use crate::consumer::store::{RetryOutcome, StoreError};
use crate::excerpt::beginning;
use crate::exit::Failure;
use crate::output::{self, Format, Rows, Value};

const LIST_HELP: &str = "\
A message that is no event, or that the database refuses, never holds up the others: it is kept as it came, with the reason.
They are dropped after retention.dead_letters (90 days by default).

A table shows where each payload begins; JSON and CSV have all of it, as text. --raw has its very bytes.

Examples:
  highwater-consumer dead-letters list
  highwater-consumer dead-letters list --partition 3 --offset 1200-1300
  highwater-consumer dead-letters list --partition 3 --offset 1234 --raw | xxd";

const RETRY_HELP: &str = "\
Decodes the messages once more, and stores those that are events now: after an update of this program that knows their format,
or once the database takes them. Row and dead letter change in one transaction, with all that follows from the row; an event that
was stored already, because its agent sent it twice, is no second row. A consumer may run meanwhile.

Exit code: 0 if no dead letter stays, 1 if some do (they are listed, with the reason), 69 if the store could not be reached.

Examples:
  highwater-consumer dead-letters retry
  highwater-consumer dead-letters retry --topic highwater.events --partition 3 --offset 1234";

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// Show the messages that could not be stored, and why
    #[command(after_help = LIST_HELP)]
    List {
        #[command(flatten)]
        which: Which,
        /// Print nothing but the payloads, byte by byte, each followed by a line end
        #[arg(long, conflicts_with = "format")]
        raw: bool,
    },
    /// Store what can be stored by now
    #[command(after_help = RETRY_HELP)]
    Retry {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Args, Debug)]
pub(super) struct Which {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Only of this partition (and of one topic with --topic)
    #[arg(short, long, value_name = "NUMBER")]
    partition: Option<i32>,
    /// Only at this offset, or from one to another: 1200-1300
    #[arg(short, long, value_name = "FROM-TO", value_parser = offsets)]
    offset: Option<(i64, i64)>,
}

const LIST: &[&str] = &["stored_at", "topic", "partition", "offset", "bytes", "key", "payload", "error"];
const RETRY: &[&str] = &["topic", "partition", "offset", "result", "reason"];

/// So many characters of a payload or a key stand in a table.
const EXCERPT_CHARS: usize = 48;
/// They and one more, however long each is.
const EXCERPT_BYTES: i64 = 4 * (EXCERPT_CHARS as i64 + 1);

impl DeadLetters {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { which, raw: true } => which.list(Payloads::UpTo(i64::MAX), Raw::default()),
            Self::List { which, raw: false } => match which.format {
                Format::Table => which.list(Payloads::Begin(EXCERPT_BYTES), Listed::new(which.format)),
                Format::Json | Format::Csv => which.list(Payloads::UpTo(i64::MAX), Listed::new(which.format)),
            },
            Self::Retry { which } => which.retry(),
        }
    }
}

/// Why going through the letters ended early.
enum End {
    Store(StoreError),
    Output(io::Error),
}

impl From<StoreError> for End {
    fn from(fault: StoreError) -> Self {
        Self::Store(fault)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What letters are printed to.
trait Sink {
    fn letter(&mut self, letter: Letter) -> io::Result<()>;
    fn end(self) -> io::Result<()>;
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            topic: self.common.topic.clone(),
            partition: self.partition,
            first: self.offset.map(|(first, _)| first),
            last: self.offset.map(|(_, last)| last),
        }
    }

    fn list(&self, payloads: Payloads, mut sink: impl Sink) -> Result<(), Failure> {
        self.common.start_log();
        let settings = self.common.settings(Absent::MeansDefaults).map_err(Failure::config)?;
        let mut reader = settings.store.reader();
        let listed = letters::read(&mut *reader, &self.filter(), payloads, |letter| Ok(sink.letter(letter)?));
        match listed {
            Ok(()) => output::finished(sink.end()),
            Err(End::Store(fault)) => Err(unavailable(fault)),
            Err(End::Output(error)) => output::finished(Err(error)),
        }
    }

    /// What stays is printed, and what came back counted. A reader that has gone does not end it: the work is to be done.
    fn retry(&self) -> Result<(), Failure> {
        self.common.start_log();
        let settings = self.common.settings(Absent::MeansDefaults).map_err(Failure::config)?;
        let mut reader = settings.store.reader();
        // Looked at first: where nothing was ever stored, nothing is to be made.
        let mut store = settings.store.open(&settings.store_options("dead-letters".to_owned()));
        let mut rows = Rows::new(self.format, RETRY, output::stdout(self.format));
        let (mut decoder, clock) = (settings.decoder(), SystemClock::default());
        let (mut returned, mut stay, mut printed) = (0_u64, 0_u64, Ok(()));
        let retried = letters::retry(&mut *store, &mut *reader, &self.filter(), (&mut decoder, &clock), |at, fate| {
            match fate {
                RetryOutcome::Stored => returned += 1,
                RetryOutcome::Stays(_) => stay += 1,
                RetryOutcome::Gone => {}
            }
            let row = outcome(at, fate);
            if printed.is_ok() && *fate != RetryOutcome::Stored {
                printed = rows.push(row);
            }
            Ok::<(), StoreError>(())
        });
        if retried.is_ok() || stay > 0 {
            output::finished(printed.and_then(|()| rows.end()))?;
        }
        let inserted = retried.map_err(|fault| unavailable(format!("{fault}; {returned} came back before that")))?;
        let before = returned - inserted.min(returned);
        let again = if before > 0 { format!(" ({before} of them before)") } else { String::new() };
        self.common.note(&format!("{returned} stored{again}, {stay} remain"));
        if stay > 0 { Err(Failure::failed(format!("dead letters that remain: {stay}"))) } else { Ok(()) }
    }
}

fn outcome(at: &KafkaPosition, fate: &RetryOutcome) -> [Value; 5] {
    let (result, reason) = match fate {
        RetryOutcome::Stored => ("stored", Value::Nothing),
        RetryOutcome::Stays(reason) => ("stays", reason.as_str().into()),
        RetryOutcome::Gone => ("gone", "somebody else took it meanwhile".into()),
    };
    [at.topic.as_str().into(), at.partition.into(), at.offset.into(), result.into(), reason]
}

struct Listed {
    rows: Rows<Box<dyn io::Write>>,
    format: Format,
}

impl Listed {
    fn new(format: Format) -> Self {
        Self { rows: Rows::new(format, LIST, output::stdout(format)), format }
    }

    fn words(&self, bytes: Option<Vec<u8>>) -> Value {
        match (bytes, self.format) {
            (Some(bytes), Format::Table) => beginning(&String::from_utf8_lossy(&bytes), EXCERPT_CHARS).into(),
            (bytes, _) => bytes.into(),
        }
    }
}

impl Sink for Listed {
    fn letter(&mut self, letter: Letter) -> io::Result<()> {
        let Letter { at, stored_at, error, length, key, payload } = letter;
        let (key, payload) = (self.words(key), self.words(payload));
        let partition = at.partition.into();
        self.rows.push([
            stored_at.into(),
            at.topic.into(),
            partition,
            at.offset.into(),
            length.into(),
            key,
            payload,
            error.into(),
        ])
    }

    fn end(self) -> io::Result<()> {
        self.rows.end()
    }
}

/// The payloads and nothing else.
struct Raw(io::BufWriter<io::Stdout>);

impl Default for Raw {
    fn default() -> Self {
        Self(io::BufWriter::new(io::stdout()))
    }
}

impl Sink for Raw {
    fn letter(&mut self, letter: Letter) -> io::Result<()> {
        self.0.write_all(&letter.payload.unwrap_or_default())?;
        self.0.write_all(b"\n")
    }

    fn end(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `1200` or `1200-1300`.
fn offsets(text: &str) -> Result<(i64, i64), String> {
    let number = |text: &str| text.parse::<i64>().map_err(|_| "is no offset; write 1200 or 1200-1300".to_owned());
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
