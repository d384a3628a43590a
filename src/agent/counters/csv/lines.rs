//! The lines of a CSV file, each of them a row. A quoted value may hold commas, but no line's end: a quote that is never closed
//! spoils its own row, and not all that follow.

use std::borrow::Cow;
use std::io::{self, BufRead as _, BufReader, Read};

use ::csv::StringRecord;

/// What is longer is no row of a series, and most likely no text.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What goes on for so long without a line's end has none: a device, an image of a disk. To look for it could take for ever.
const SKIP_BYTES_MAX: u64 = 64 << 20;

/// Reads rows.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
}

/// Why there is no row.
pub(super) enum Unread {
    /// The file can't be read.
    Io(io::Error),
    /// The line is no row; the next one may be.
    Row(&'static str),
}

impl Lines {
    pub(super) fn new(reader: Box<dyn Read>) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), number: 0, bytes: 0 }
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes were read, this line included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The values of the next line that is not empty; whether there was one.
    pub(super) fn read(&mut self, row: &mut StringRecord) -> Result<bool, Unread> {
        row.clear();
        loop {
            self.line.clear();
            let length =
                (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(Unread::Io)?;
            if length == 0 {
                return Ok(false);
            }
            self.number += 1;
            self.bytes += length as u64;
            if length as u64 == LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
                let skipped = (&mut self.reader).take(SKIP_BYTES_MAX).skip_until(b'\n').map_err(Unread::Io)? as u64;
                self.bytes += skipped;
                if skipped == SKIP_BYTES_MAX {
                    return Err(Unread::Io(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a line of more than 64 MiB; name a file of text, with a row on each line",
                    )));
                }
                return Err(Unread::Row("is longer than 1 MiB"));
            }
            let text = String::from_utf8_lossy(&self.line);
            let text = text.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() {
                return split(text, row).map(|()| true);
            }
        }
    }
}

/// A value may stand in quotes, which are doubled within it. The crate that knows all of CSV would go on looking for a closing
/// quote in the lines that follow.
fn split(text: &str, row: &mut StringRecord) -> Result<(), Unread> {
    let mut rest = text;
    loop {
        let (value, after) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (value.into(), after)
            }
        };
        row.push_field(value.trim());
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(()),
            None => return Err(Unread::Row("has a value that goes on behind its closing quote")),
        }
    }
}

/// What stands before the closing quote, and behind it.
fn unquoted(text: &str) -> Result<(Cow<'_, str>, &str), Unread> {
    let mut searched = 0;
    loop {
        let Some(found) = text[searched..].find('"') else {
            return Err(Unread::Row("has a quote that is never closed"));
        };
        let (value, after) = (&text[..searched + found], &text[searched + found + 1..]);
        match after.strip_prefix('"') {
            Some(_) => searched += found + 2,
            None if searched == 0 => return Ok((value.into(), after.trim_start())),
            None => return Ok((value.replace("\"\"", "\"").into(), after.trim_start())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Result<Vec<String>, &'static str> {
        let mut row = StringRecord::new();
        match split(text, &mut row) {
            Ok(()) => Ok(row.iter().map(str::to_owned).collect()),
            Err(Unread::Row(why)) => Err(why),
            Err(Unread::Io(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn quotes_hold_commas_and_other_quotes() {
        assert_eq!(values("1, 2 ,,").unwrap(), ["1", "2", "", ""]);
        assert_eq!(values("\"a, b\" , \"say \"\"hi\"\"\",\"\",\" 5 \"").unwrap(), ["a, b", "say \"hi\"", "", "5"]);
        assert_eq!(values("5\" rack,7").unwrap(), ["5\" rack", "7"]);
        for text in ["1,\"2", "\"", "\"\"\"", "\"a\"\",1"] {
            assert_eq!(values(text), Err("has a quote that is never closed"), "{text}");
        }
        assert_eq!(values("\"a\"b,1"), Err("has a value that goes on behind its closing quote"));
    }

    #[test]
    fn a_line_that_never_ends_is_given_up() {
        let mut lines = Lines::new(Box::new(io::repeat(0)));
        let Err(Unread::Io(error)) = lines.read(&mut StringRecord::new()) else { panic!("it was read") };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_that_is_too_long_spoils_no_other() {
        let text = format!("{}\n1,2\n", "x".repeat(LINE_BYTES_MAX as usize + 5));
        let mut lines = Lines::new(Box::new(io::Cursor::new(text)));
        let mut row = StringRecord::new();
        assert!(matches!(lines.read(&mut row), Err(Unread::Row("is longer than 1 MiB"))));
        assert!(matches!(lines.read(&mut row), Ok(true)));
        assert_eq!(row, vec!["1", "2"]);
    }

    proptest::proptest! {
        /// What the crate reads in a line, these read: it wrote it.
        #[test]
        fn what_the_crate_writes_is_read(wanted in proptest::collection::vec("[a-z\", é]{0,6}", 1..6)) {
            let mut writer = ::csv::Writer::from_writer(Vec::new());
            writer.write_record(&wanted).unwrap();
            let line = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let trimmed: Vec<&str> = wanted.iter().map(|value| value.trim()).collect();
            assert_eq!(values(line.trim_end_matches('\n')).unwrap(), trimmed);
        }
    }
}
