//! Rows of a command: a table for people; JSON Lines or CSV for programs, with plain values: whole numbers and RFC 3339 times.
//! Columns are named as in the data, unit last. Rows are printed as they come, in bounded memory: the first [`MEASURED_ROWS`]
//! determine the width of a table's columns; a later cell that is wider shifts the rest of its line. Spreadsheets run a cell that
//! begins like a formula: CSV puts an apostrophe before such a text.

use std::borrow::Cow;
use std::io::{self, BufWriter, ErrorKind, Write};

use anstyle::Style;
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use clap::ValueEnum;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use unicode_width::UnicodeWidthStr as _;

use crate::process::exit::Failure;
use crate::text::escape_control;
use crate::units::{BitRate, ByteCount};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns with units, for people
    #[default]
    Table,
    /// A JSON object per line, for jq and programs
    Json,
    /// CSV with a header row (RFC 4180), for spreadsheets
    Csv,
}

/// `Null` is empty, and `null` in JSON. A table shows bytes as `18.9 MiB` and rates (in bits per second) as `83.9 Mbit/s`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Text(String),
    Number(i128),
    Fraction(f64),
    Time(DateTime<Utc>),
    Day(NaiveDate),
    Bytes(ByteCount),
    Rate(BitRate),
    Blob(Vec<u8>),
    Json(serde_json::Value),
}

#[derive(Debug)]
pub struct Rows<W: Write> {
    columns: &'static [&'static str],
    sink: Sink<W>,
}

#[derive(Debug)]
enum Sink<W: Write> {
    Table(W, Layout),
    Json(W),
    Csv(Box<csv::Writer<W>>),
}

#[derive(Debug)]
enum Layout {
    Measured(Vec<Vec<Value>>),
    Fixed(Vec<Column>),
}

#[derive(Clone, Copy, Debug)]
struct Column {
    width: usize,
    right_aligned: bool,
}

pub const MEASURED_ROWS: usize = 1_000;

const SPACE: &str = "  ";

/// Returns a buffer that colours only tables on terminals (`NO_COLOR` and `CLICOLOR_FORCE` are heeded).
pub fn stdout(format: OutputFormat) -> Box<dyn Write> {
    match format {
        OutputFormat::Table => Box::new(BufWriter::new(anstream::stdout().lock())),
        OutputFormat::Json | OutputFormat::Csv => Box::new(BufWriter::new(io::stdout().lock())),
    }
}

pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    finished(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Ignores a closed pipe (`| head`), which is no failure.
pub fn finished(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!("cannot print: {error}"))),
        Ok(()) => Ok(()),
    }
}

impl<W: Write> Rows<W> {
    pub fn new(format: OutputFormat, columns: &'static [&'static str], out: W) -> Self {
        let sink = match format {
            OutputFormat::Table => Sink::Table(out, Layout::Measured(Vec::new())),
            OutputFormat::Json => Sink::Json(out),
            OutputFormat::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                // The head stays in the writer's buffer for now, so this cannot fail.
                let _ = writer.write_record(columns);
                Sink::Csv(Box::new(writer))
            }
        };
        Self { columns, sink }
    }

    /// Fails for a closed pipe; pass the error to [`finished`].
    pub fn push(&mut self, row: impl IntoIterator<Item = Value>) -> io::Result<()> {
        let row: Vec<Value> = row.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a value for each column");
        match &mut self.sink {
            Sink::Table(_, Layout::Measured(rows)) => {
                rows.push(row);
                if rows.len() < MEASURED_ROWS { Ok(()) } else { self.begin_table() }
            }
            Sink::Table(out, Layout::Fixed(columns)) => {
                let cells: Vec<String> = row.iter().map(Value::shown).collect();
                line(out, columns, &cells, Style::new())
            }
            Sink::Json(out) => {
                serde_json::to_writer(&mut *out, &Object(self.columns, &row))?;
                out.write_all(b"\n")
            }
            Sink::Csv(writer) => {
                writer.write_record(row.iter().map(|value| value.in_csv().into_owned())).map_err(io_error)
            }
        }
    }

    /// Flushes the rows so far. A table still holds back the rows that determine its columns.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Table(_, Layout::Measured(_)) => Ok(()),
            Sink::Table(out, Layout::Fixed(_)) | Sink::Json(out) => out.flush(),
            Sink::Csv(writer) => writer.flush(),
        }
    }

    pub fn end(mut self) -> io::Result<()> {
        self.begin_table()?;
        self.flush()
    }

    fn begin_table(&mut self) -> io::Result<()> {
        let Sink::Table(out, layout) = &mut self.sink else { return Ok(()) };
        let Layout::Measured(rows) = layout else { return Ok(()) };
        let head: Vec<String> = self.columns.iter().map(|name| head(name)).collect();
        let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(Value::shown).collect()).collect();
        let column = |at: usize| Column {
            width: cells.iter().map(|row| row[at].width()).chain([head[at].width()]).max().unwrap_or(0),
            right_aligned: rows.iter().any(|row| row[at].is_quantity())
                && rows.iter().all(|row| row[at].may_align_right()),
        };
        let columns: Vec<Column> = (0..head.len()).map(column).collect();
        line(out, &columns, &head, Style::new().bold())?;
        cells.iter().try_for_each(|row| line(out, &columns, row, Style::new()))?;
        *layout = Layout::Fixed(columns);
        Ok(())
    }
}

/// Unwraps an error whose own conversion hides a closed pipe.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn line(out: &mut impl Write, columns: &[Column], cells: &[String], style: Style) -> io::Result<()> {
    let mut text = String::new();
    for (at, (cell, column)) in cells.iter().zip(columns).enumerate() {
        let pad = " ".repeat(column.width.saturating_sub(cell.width()));
        let (before, after) = if column.right_aligned { (pad.as_str(), "") } else { ("", pad.as_str()) };
        let space = if at == 0 { "" } else { SPACE };
        text.extend([space, before, cell, after]);
    }
    writeln!(out, "{style}{}{style:#}", text.trim_end())
}

pub fn head(name: &str) -> String {
    let units = ["_bytes", "_bps"];
    units.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name).replace('_', " ")
}

impl Value {
    pub fn into_text(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn into_number<T: TryFrom<i128>>(self) -> Option<T> {
        match self {
            Self::Number(number) => T::try_from(number).ok(),
            Self::Bytes(bytes) => T::try_from(bytes.bytes().into()).ok(),
            Self::Rate(rate) => T::try_from(rate.bps().into()).ok(),
            _ => None,
        }
    }

    pub fn into_time(self) -> Option<DateTime<Utc>> {
        if let Self::Time(time) = self { Some(time) } else { None }
    }

    pub fn into_blob(self) -> Option<Vec<u8>> {
        if let Self::Blob(bytes) = self { Some(bytes) } else { None }
    }

    fn is_quantity(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Fraction(_) | Self::Bytes(_) | Self::Rate(_))
    }

    fn may_align_right(&self) -> bool {
        self.is_quantity() || *self == Self::Null
    }

    fn shown(&self) -> String {
        match self {
            Self::Null => "-".to_owned(),
            Self::Time(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
            Self::Day(day) => day.to_string(),
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Rate(rate) => rate.to_string(),
            Self::Text(_) | Self::Blob(_) | Self::Number(_) | Self::Fraction(_) | Self::Json(_) => {
                escape_control(&self.plain()).into_owned()
            }
        }
    }

    fn in_csv(&self) -> Cow<'_, str> {
        let plain = self.plain();
        let is_text = matches!(self, Self::Text(_) | Self::Blob(_) | Self::Json(_));
        if is_text && plain.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{plain}").into() } else { plain }
    }

    fn plain(&self) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => number.to_string().into(),
            Self::Fraction(number) => number.to_string().into(),
            Self::Time(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true).into(),
            Self::Day(day) => day.to_string().into(),
            Self::Bytes(bytes) => bytes.bytes().to_string().into(),
            Self::Rate(rate) => rate.bps().to_string().into(),
            Self::Blob(bytes) => String::from_utf8_lossy(bytes),
            Self::Json(value) => value.to_string().into(),
        }
    }
}

struct Object<'a>(&'a [&'a str], &'a [Value]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter().zip(self.1) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Text(_) | Self::Blob(_) | Self::Time(_) | Self::Day(_) => serializer.serialize_str(&self.plain()),
            Self::Number(number) => serializer.serialize_i128(*number),
            Self::Fraction(number) => serializer.serialize_f64(*number),
            Self::Bytes(bytes) => serializer.serialize_u64(bytes.bytes()),
            Self::Rate(rate) => serializer.serialize_u64(rate.bps()),
            Self::Json(value) => value.serialize(serializer),
        }
    }
}

macro_rules! value_from {
    ($($type:ty => $make:expr),+ $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                ($make)(value)
            }
        })+
    };
}

value_from! {
    &str => |text: &str| Self::Text(text.to_owned()),
    String => Self::Text,
    i32 => |number| Self::Number(i128::from(number)),
    u32 => |number| Self::Number(i128::from(number)),
    i64 => |number| Self::Number(i128::from(number)),
    u64 => |number| Self::Number(i128::from(number)),
    f64 => Self::Fraction,
    DateTime<Utc> => Self::Time,
    NaiveDate => Self::Day,
    ByteCount => Self::Bytes,
    BitRate => Self::Rate,
    Vec<u8> => Self::Blob,
    serde_json::Value => Self::Json,
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[&str] = &["agent", "seq", "excess_bytes", "since"];

    fn printed(format: OutputFormat, rows: &[[Value; 4]]) -> String {
        let mut out = Vec::new();
        let sink: Box<dyn Write> = match format {
            OutputFormat::Table => Box::new(anstream::StripStream::new(&mut out)),
            OutputFormat::Json | OutputFormat::Csv => Box::new(&mut out),
        };
        let mut printer = Rows::new(format, COLUMNS, sink);
        for row in rows {
            printer.push(row.clone()).unwrap();
        }
        printer.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn two() -> [[Value; 4]; 2] {
        let time = DateTime::from_timestamp_micros(1_795_176_000_123_456);
        [
            ["gw-1".into(), 9_u64.into(), ByteCount::from_bytes(1 << 20).into(), time.into()],
            ["a,\"b\"\u{1b}[31m\n".into(), 10_000_i64.into(), Value::Null, Value::Null],
        ]
    }

    #[test]
    fn a_table_is_aligned_and_obeyed_by_no_terminal() {
        let table = "agent                seq   excess  since\n\
                     gw-1                   9  1.0 MiB  2026-11-20T12:00:00.123Z\n\
                     a,\"b\"\\u{1b}[31m\\n  10000        -  -\n";
        assert_eq!(printed(OutputFormat::Table, &two()), table);
        assert_eq!(printed(OutputFormat::Table, &[]), "agent  seq  excess  since\n");
        let wide = [["东京".into(), Value::from("x"), Value::Null, Value::Null]];
        assert_eq!(printed(OutputFormat::Table, &wide), "agent  seq  excess  since\n东京   x    -       -\n");
    }

    #[test]
    fn json_is_an_object_a_line_with_whole_numbers_and_times() {
        let json = "{\"agent\":\"gw-1\",\"seq\":9,\"excess_bytes\":1048576,\"since\":\"2026-11-20T12:00:00.123456Z\"}\n\
                    {\"agent\":\"a,\\\"b\\\"\\u001b[31m\\n\",\"seq\":10000,\"excess_bytes\":null,\"since\":null}\n";
        assert_eq!(printed(OutputFormat::Json, &two()), json);
        assert_eq!(printed(OutputFormat::Json, &[]), "");
    }

    #[test]
    fn csv_has_its_head_also_without_rows_and_is_read_back() {
        let text = printed(OutputFormat::Csv, &two());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap(), COLUMNS);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows[0], vec!["gw-1", "9", "1048576", "2026-11-20T12:00:00.123456Z"]);
        assert_eq!(rows[1], vec!["a,\"b\"\u{1b}[31m\n", "10000", "", ""]);
        assert_eq!(printed(OutputFormat::Csv, &[]), "agent,seq,excess_bytes,since\n");
    }

    #[test]
    fn a_table_is_printed_as_its_rows_come_however_wide_the_later_ones_are() {
        let mut out = Vec::new();
        let row = |agent: &str| [agent.into(), 7_u64.into(), Value::Null, Value::Null];
        let mut rows = Rows::new(OutputFormat::Table, COLUMNS, anstream::StripStream::new(&mut out));
        for _ in 0..MEASURED_ROWS {
            rows.push(row("gw")).unwrap();
        }
        assert!(matches!(&rows.sink, Sink::Table(_, Layout::Fixed(_))), "no row is kept any longer");
        rows.push(row("a-long-name")).unwrap();
        rows.end().unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), MEASURED_ROWS + 2);
        assert_eq!((lines[0], lines[1]), ("agent  seq  excess  since", "gw       7  -       -"));
        assert_eq!(lines[MEASURED_ROWS + 1], "a-long-name    7  -       -");
    }

    #[test]
    fn csv_holds_nothing_that_a_spreadsheet_runs_and_no_number_or_time_is_changed() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(1)", "'@SUM(1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("a=1", "a=1"),
            ("'=1", "'=1"),
            ("", ""),
        ] {
            for value in [Value::from(text), text.as_bytes().to_vec().into()] {
                assert_eq!(value.in_csv(), cell, "{value:?}");
            }
        }
        for value in [Value::from(-1_i64), Value::from(-0.5), DateTime::<Utc>::MIN_UTC.into()] {
            assert!(value.in_csv().starts_with('-'), "{value:?}");
        }
        assert_eq!(serde_json::to_string(&Value::from("=1+1")).unwrap(), "\"=1+1\"");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        assert!(finished(Err(ErrorKind::BrokenPipe.into())).is_ok());
        assert!(finished(Err(ErrorKind::StorageFull.into())).is_err());
    }
}
