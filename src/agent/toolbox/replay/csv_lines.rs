//! Lines of a CSV file, one row each. A quoted value may hold delimiters but no line end, so that a quote never closed spoils its
//! own row only; the `csv` crate would search the following lines for its end.

use std::borrow::Cow;
use std::io::{self, BufRead as _, BufReader, Read};

use ::csv::StringRecord;

/// Longest row: a longer one is most likely binary.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Longest line to skip, since a device or disk image may have no line end.
const SKIP_BYTES_MAX: u64 = 64 << 20;

pub(super) struct CsvLines {
    reader: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
    number: u64,
}

pub(super) enum Unread {
    Io(io::Error),
    Row(&'static str),
}

impl CsvLines {
    pub(super) fn new(reader: Box<dyn Read>) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), number: 0 }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_open_ended(&self) -> bool {
        self.line.last().is_some_and(|last| *last != b'\n')
    }

    pub(super) fn read(&mut self) -> Result<Option<Cow<'_, str>>, Unread> {
        loop {
            self.line.clear();
            let length =
                (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(Unread::Io)?;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            if length as u64 == LINE_BYTES_MAX && self.is_open_ended() {
                return Err(self.skip_line());
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        // A tab may be a delimiter, with nothing before it.
        let ends = |c: char| matches!(c, ' ' | '\r' | '\n');
        Ok(Some(match String::from_utf8_lossy(&self.line) {
            Cow::Borrowed(text) => text.trim_start_matches('\u{feff}').trim_matches(ends).into(),
            Cow::Owned(text) => text.trim_start_matches('\u{feff}').trim_matches(ends).to_owned().into(),
        }))
    }

    fn skip_line(&mut self) -> Unread {
        match (&mut self.reader).take(SKIP_BYTES_MAX).skip_until(b'\n') {
            Ok(skipped) if skipped as u64 == SKIP_BYTES_MAX => Unread::Io(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line of more than 64 MiB; name a file of text, with a row on each line",
            )),
            Ok(_) => Unread::Row("is longer than 1 MiB"),
            Err(error) => Unread::Io(error),
        }
    }
}

pub(super) fn split(text: &str, delimiter: char, row: &mut StringRecord) -> Result<(), &'static str> {
    row.clear();
    let mut rest = text;
    loop {
        let (value, after) = match rest.trim_start_matches(' ').strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, after) = rest.split_at(rest.find(delimiter).unwrap_or(rest.len()));
                (value.into(), after)
            }
        };
        row.push_field(value.trim());
        match after.strip_prefix(delimiter) {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(()),
            None => return Err("has a value that goes on behind its closing quote"),
        }
    }
}

fn unquoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let mut searched = 0;
    loop {
        let Some(found) = text[searched..].find('"') else {
            return Err("has a quote that is never closed");
        };
        let (value, after) = (&text[..searched + found], &text[searched + found + 1..]);
        match after.strip_prefix('"') {
            Some(_) => searched += found + 2,
            None if searched == 0 => return Ok((value.into(), after.trim_start_matches(' '))),
            None => return Ok((value.replace("\"\"", "\"").into(), after.trim_start_matches(' '))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str, delimiter: char) -> Result<Vec<String>, &'static str> {
        let mut row = StringRecord::new();
        split(text, delimiter, &mut row)?;
        Ok(row.iter().map(str::to_owned).collect())
    }

    #[test]
    fn quotes_hold_commas_and_other_quotes() {
        let values = |text| values(text, ',');
        assert_eq!(values("1, 2 ,,").unwrap(), ["1", "2", "", ""]);
        assert_eq!(values("\"a, b\" , \"say \"\"hi\"\"\",\"\",\" 5 \"").unwrap(), ["a, b", "say \"hi\"", "", "5"]);
        assert_eq!(values("5\" rack,7").unwrap(), ["5\" rack", "7"]);
        for text in ["1,\"2", "\"", "\"\"\"", "\"a\"\",1"] {
            assert_eq!(values(text), Err("has a quote that is never closed"), "{text}");
        }
        assert_eq!(values("\"a\"b,1"), Err("has a value that goes on behind its closing quote"));
    }

    #[test]
    fn other_delimiters_leave_commas_alone() {
        assert_eq!(values("a;1,5;\"x;y\"", ';').unwrap(), ["a", "1,5", "x;y"]);
        assert_eq!(values("\t1,5\t \"x\ty\" \t", '\t').unwrap(), ["", "1,5", "x\ty", ""]);
    }

    #[test]
    fn a_line_that_never_ends_is_given_up() {
        let mut lines = CsvLines::new(Box::new(io::repeat(0)));
        let Err(Unread::Io(error)) = lines.read() else { panic!("it was read") };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_that_is_too_long_spoils_no_other() {
        let text = format!("{}\n1,2\n", "x".repeat(LINE_BYTES_MAX as usize + 5));
        let mut lines = CsvLines::new(Box::new(io::Cursor::new(text)));
        assert!(matches!(lines.read(), Err(Unread::Row("is longer than 1 MiB"))));
        assert!(matches!(lines.read(), Ok(Some(line)) if line == "1,2"));
        assert!(matches!(lines.read(), Ok(None)));
    }

    proptest::proptest! {
        #[test]
        fn what_the_crate_writes_is_read(wanted in proptest::collection::vec("[a-z\", é]{0,6}", 1..6)) {
            let mut writer = ::csv::Writer::from_writer(Vec::new());
            writer.write_record(&wanted).unwrap();
            let line = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let trimmed: Vec<&str> = wanted.iter().map(|value| value.trim()).collect();
            assert_eq!(values(line.trim_end_matches('\n'), ',').unwrap(), trimmed);
        }
    }
}
