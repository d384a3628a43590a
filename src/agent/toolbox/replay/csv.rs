//! A recorded series in a CSV file. The first row names the columns; lines before it with other names, as some programs export
//! them, comments (`#`) and repeated headers are skipped. Rows appended later and an incomplete last row are not read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ::csv::StringRecord;
use clap::Args;
use smol_str::SmolStr;

use super::csv_lines::{CsvLines, Unread, split};
use super::encoding;
use super::text::shown;
use super::times::{RowTime, Times};
use crate::process::exit::{Failure, Status};
use crate::units::counted;

#[derive(Clone, Debug, Args)]
pub(crate) struct Dialect {
    /// Column with the times
    #[arg(long, default_value = "timestamp", value_name = "COLUMN")]
    pub(crate) time: String,
    /// Column with what was received
    #[arg(long, default_value = "value", value_name = "COLUMN")]
    pub(crate) rx: String,
    /// Column with what was sent
    #[arg(long, value_name = "COLUMN")]
    pub(crate) tx: Option<String>,
    #[command(flatten)]
    pub(crate) times: Times,
    /// Character between columns, or tab [default: found by the first row]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub(crate) delimiter: Option<char>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CsvRecord {
    pub(crate) line: u64,
    pub(crate) time: SmolStr,
    pub(crate) moment: RowTime,
    pub(crate) rx: u64,
    pub(crate) tx: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum RowError {
    Bad { line: u64, reason: String },
    Failed(Failure),
}

pub(crate) struct Csv {
    lines: CsvLines,
    row: StringRecord,
    file: String,
    header: Header,
    time: String,
    times: Times,
    opened: Option<Opened>,
}

struct Header {
    delimiter: char,
    width: usize,
    time: usize,
    rx: usize,
    tx: Option<usize>,
}

struct Opened {
    file: File,
    bytes: u64,
}

const HEADER_LINES_MAX: usize = 20;

const DELIMITERS: [char; 3] = [',', ';', '\t'];

impl Csv {
    pub(crate) fn open(path: &Path, dialect: &Dialect) -> Result<Self, Failure> {
        let file = path.display().to_string();
        let failed = |error: io::Error| Failure::failed(format!("{file}: {error}"));
        let opened = File::open(path).and_then(Opened::new).map_err(failed)?;
        let reader = opened.file.try_clone().map_err(failed)?.take(opened.bytes);
        let mut csv = Self::from_reader(Box::new(reader), file, dialect)?;
        csv.opened = Some(opened);
        Ok(csv)
    }

    pub(crate) fn from_reader(reader: Box<dyn Read>, file: String, dialect: &Dialect) -> Result<Self, Failure> {
        let text = encoding::text(reader, &file).map_err(|error| Failure::failed(format!("{file}: {error}")))?;
        let mut lines = CsvLines::new(text);
        let header = Header::read(&mut lines, &file, dialect)?;
        let (time, times) = (dialect.time.clone(), dialect.times.clone());
        Ok(Self { lines, row: StringRecord::new(), file, header, time, times, opened: None })
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn grown(&self) -> u64 {
        self.opened.as_ref().map_or(0, Opened::grown)
    }

    pub(crate) fn next(&mut self) -> Result<Option<CsvRecord>, RowError> {
        loop {
            let split = match self.lines.read() {
                Ok(None) => return Ok(None),
                Ok(Some(line)) if line.starts_with('#') => continue,
                Ok(Some(line)) => split(&line, self.header.delimiter, &mut self.row),
                Err(Unread::Row(reason)) => Err(reason),
                Err(Unread::Io(error)) => return Err(RowError::Failed(unreadable(&self.file, &error))),
            };
            if split.is_ok() && self.lines.is_open_ended() && self.grown() > 0 {
                return Ok(None);
            }
            if split.is_ok() && self.row.get(self.header.time) == Some(&*self.time) {
                continue;
            }
            let record = split.map_err(str::to_owned).and_then(|()| self.record());
            return match record {
                Ok(record) => Ok(Some(record)),
                Err(reason) => Err(RowError::Bad { line: self.lines.number(), reason }),
            };
        }
    }

    fn record(&self) -> Result<CsvRecord, String> {
        let Header { delimiter, width, time, rx, tx } = self.header;
        let fits = self.row.len() >= width && self.row.iter().skip(width).all(str::is_empty);
        if !fits {
            return Err(format!(
                "has {} for {}",
                counted(self.row.len() as u64, "value"),
                counted(width as u64, "column")
            ));
        }
        let number = |column: usize| number(&self.row[column], delimiter != ',');
        Ok(CsvRecord {
            line: self.lines.number(),
            time: self.row[time].into(),
            moment: self.times.read(&self.row[time])?,
            rx: number(rx)?,
            tx: tx.map(number).transpose()?,
        })
    }
}

impl Header {
    fn read(lines: &mut CsvLines, file: &str, dialect: &Dialect) -> Result<Self, Failure> {
        let mut delimiter = dialect.delimiter;
        let mut first = None;
        for _ in 0..HEADER_LINES_MAX {
            let line = match lines.read() {
                Ok(Some(line)) => line.into_owned(),
                Ok(None) => break,
                Err(Unread::Row(reason)) => {
                    return Err(Failure::failed(format!("{file}:{}: {reason}", lines.number())));
                }
                Err(Unread::Io(error)) => return Err(unreadable(file, &error)),
            };
            let at = lines.number();
            if let Some(given) = line.to_ascii_lowercase().strip_prefix("sep=").and_then(|rest| rest.chars().next()) {
                delimiter = delimiter.or(Some(given));
                continue;
            }
            let text = line.trim_start_matches(['#', ' ']);
            let tried = delimiter.map_or(DELIMITERS.to_vec(), |delimiter| vec![delimiter]);
            let split = tried.into_iter().map(|delimiter| (delimiter, names(text, delimiter)));
            let split: Vec<(char, Vec<String>)> = split.collect();
            if let Some((delimiter, names)) = split.iter().find(|(_, names)| dialect.is_named_by(names)) {
                return Self::new(*delimiter, names, dialect, &format!("{file}:{at}"));
            }
            let names = split.into_iter().map(|(_, names)| names).max_by_key(Vec::len).unwrap_or_default();
            if !line.starts_with('#') && first.is_none() {
                first = Some((at, names));
            }
        }
        let (at, names) = first.unwrap_or((1, Vec::new()));
        Err(Failure::failed(format!("{file}:{at}: {}", dialect.not_named(&names))))
    }

    fn new(delimiter: char, names: &[String], dialect: &Dialect, place: &str) -> Result<Self, Failure> {
        let position = |wanted: &str| {
            let found: Vec<usize> = (0..names.len()).filter(|at| names[*at] == wanted).collect();
            let [position] = found[..] else {
                let numbers: Vec<String> = found.iter().map(|at| (at + 1).to_string()).collect();
                let message = format!(
                    "{place}: columns {} are all called `{}`; rename the others in that row",
                    numbers.join(", "),
                    shown(wanted)
                );
                return Err(Failure::new(Status::Usage, message));
            };
            Ok(position)
        };
        Ok(Self {
            delimiter,
            width: names.len(),
            time: position(&dialect.time)?,
            rx: position(&dialect.rx)?,
            tx: dialect.tx.as_deref().map(position).transpose()?,
        })
    }
}

impl Dialect {
    fn wanted(&self) -> impl Iterator<Item = &String> {
        [&self.time, &self.rx].into_iter().chain(&self.tx)
    }

    fn is_named_by(&self, names: &[String]) -> bool {
        self.wanted().all(|wanted| names.contains(wanted))
    }

    fn not_named(&self, names: &[String]) -> String {
        if names.is_empty() {
            return "is empty; the first row names the columns".to_owned();
        }
        if names.iter().any(|name| name.contains('\r')) {
            return "lines end with a carriage return alone; make them line feeds: `tr '\\r' '\\n'`".to_owned();
        }
        let known = shown(&names.join(", "));
        if names.iter().any(|name| self.times.read(name).is_ok()) {
            return format!("the first row ({known}) names no columns; put one above it, as in `timestamp,value`");
        }
        let missing = self.wanted().find(|wanted| !names.contains(wanted)).map_or("", |name| name);
        format!("there is no column `{}`; the first row names {known}; choose with --time, --rx, --tx", shown(missing))
    }
}

impl Opened {
    fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let bytes = if metadata.is_file() { metadata.len() } else { u64::MAX };
        Ok(Self { file, bytes })
    }

    fn grown(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(self.bytes))
    }
}

fn names(text: &str, delimiter: char) -> Vec<String> {
    let mut row = StringRecord::new();
    if split(text, delimiter, &mut row).is_err() {
        return vec![text.to_owned()];
    }
    let mut names: Vec<String> = row.iter().map(str::to_owned).collect();
    while names.last().is_some_and(String::is_empty) {
        names.pop();
    }
    names
}

fn unreadable(file: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("{file}: {error}"))
}

fn number(text: &str, decimal_comma: bool) -> Result<u64, String> {
    if let Ok(whole) = text.parse() {
        // A float would round a counter above 2^53.
        return Ok(whole);
    }
    if ["", "-", "nan", "null", "none", "na", "n/a", "#n/a", "undefined"].contains(&&*text.to_ascii_lowercase()) {
        return Err("has no value".to_owned());
    }
    let parsed = if decimal_comma { text.replacen(',', ".", 1).parse::<f64>() } else { text.parse() };
    match parsed {
        Ok(number) if number >= 0.0 && number < u64::MAX as f64 => Ok(number.round() as u64),
        _ => Err(format!("`{}` is not a number of bytes or bits: write one from 0, without a unit", shown(text))),
    }
}

fn delimiter(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        _ if ["tab", "\\t"].contains(&text) => Ok('\t'),
        (Some(one), None) if !one.is_alphanumeric() && !matches!(one, '"' | '\n' | '\r' | '#') => Ok(one),
        _ => Err("write one character, or tab".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    pub(in crate::agent::toolbox::replay) fn dialect() -> Dialect {
        Dialect { time: "timestamp".into(), rx: "value".into(), tx: None, delimiter: None, times: Times::default() }
    }

    fn open(text: impl AsRef<[u8]>, dialect: &Dialect) -> Result<Csv, Failure> {
        let reader = Box::new(io::Cursor::new(text.as_ref().to_vec()));
        Csv::from_reader(reader, "in.csv".into(), dialect)
    }

    type Read = Result<(u64, u64, Option<u64>), String>;

    fn rows(mut csv: Csv) -> Vec<Read> {
        std::iter::from_fn(|| match csv.next() {
            Ok(None) => None,
            Ok(Some(row)) => Some(Ok((row.moment.after(None).as_secs(), row.rx, row.tx))),
            Err(RowError::Bad { line, reason }) => Some(Err(format!("{line}: {reason}"))),
            Err(RowError::Failed(failure)) => panic!("{failure}"),
        })
        .collect()
    }

    fn read(text: impl AsRef<[u8]>) -> Vec<Read> {
        rows(open(text, &dialect()).unwrap())
    }

    fn refused(text: &str) -> (Status, String) {
        let failure = open(text, &dialect()).map(|_| ()).unwrap_err();
        (failure.status(), failure.to_string())
    }

    #[test]
    fn columns_are_found_by_name_and_numbers_stay_whole() {
        let dialect = Dialect { time: "when".into(), rx: "received".into(), tx: Some("sent".into()), ..dialect() };
        let text = "sent,when,received\n9007199254740993,1,18446744073709551615\n5e3,2,1.5\n0.4,3,1.2E+06\n";
        let wanted = [(1, u64::MAX, Some(9_007_199_254_740_993)), (2, 2, Some(5_000)), (3, 1_200_000, Some(0))];
        assert_eq!(rows(open(text, &dialect).unwrap()), wanted.map(Ok));
    }

    #[test]
    fn a_row_that_is_none_spoils_no_other_and_lines_are_counted_as_editors_do() {
        let text = "\u{feff}timestamp, note ,value\r\n1,\"a, b\",5\r\n\r\n2,\"never closed,5\r\n3,x,7\r\n4,x\r\n5,x,7,8\r\n\
                    noon,x,1\r\n\"6\",\"say \"\"hi\"\"\",7\r\n7,x,bad\n8,x,-1\n9,x,\n10,x,NaN";
        let read = read(text);
        let wrong = |at: usize| read[at].as_ref().unwrap_err().as_str();
        assert_eq!((&read[0], &read[2], &read[6]), (&Ok((1, 5, None)), &Ok((3, 7, None)), &Ok((6, 7, None))));
        assert_eq!(wrong(1), "4: has a quote that is never closed");
        assert_eq!((wrong(3), wrong(4)), ("6: has 2 values for 3 columns", "7: has 4 values for 3 columns"));
        assert!(wrong(5).starts_with("8: `noon` is not a timestamp: write RFC 3339"), "{}", wrong(5));
        assert!(wrong(7).starts_with("10: `bad` is not a number"), "{}", wrong(7));
        assert!(wrong(8).starts_with("11: `-1` is not a number"), "{}", wrong(8));
        assert_eq!((wrong(9), wrong(10), read.len()), ("12: has no value", "13: has no value", 11));
    }

    #[test]
    fn a_line_without_end_and_bytes_that_are_no_text_are_bad_rows() {
        let mut bytes = b"timestamp,note,value\n1,caf\xe9,5\n".to_vec();
        bytes.extend(vec![b'7'; 3 << 20]);
        bytes.extend(b"\n2,x,\xff\n3,x,4\n");
        let read = read(bytes);
        assert_eq!((&read[0], &read[3]), (&Ok((1, 5, None)), &Ok((3, 4, None))));
        assert_eq!(read[1], Err("3: is longer than 1 MiB".to_owned()));
        assert!(read[2].as_ref().unwrap_err().starts_with("4: `\u{fffd}` is not a number"));
    }

    #[test]
    fn delimiters_are_found_or_given_and_only_commas_forbid_decimal_commas() {
        assert_eq!(read("timestamp;value\n1;2,6\n2;3.4\n"), [Ok((1, 3, None)), Ok((2, 3, None))]);
        assert_eq!(read("timestamp\tvalue\n1\t2,6\n\t5\n")[0], Ok((1, 3, None)));
        assert_eq!(read("sep=|\r\ntimestamp|value\r\n1|2\r\n"), [Ok((1, 2, None))]);
        assert_eq!(read("timestamp;value;a,b,c\n1;2,6;\n"), [Ok((1, 3, None))], "the columns decide");
        let given = Dialect { delimiter: Some('|'), ..dialect() };
        assert_eq!(rows(open("timestamp|value\n1|2\n", &given).unwrap()), [Ok((1, 2, None))]);
        assert!(read("timestamp,value\n1,\"2,6\"\n")[0].is_err());
    }

    #[test]
    fn a_delimiter_at_the_end_makes_no_column() {
        assert_eq!(read("timestamp,value\n1,2,\n2,3,,\n3,4\n"), [Ok((1, 2, None)), Ok((2, 3, None)), Ok((3, 4, None))]);
        assert_eq!(read("timestamp,value,\n1,2,\n2,3\n"), [Ok((1, 2, None)), Ok((2, 3, None))]);
    }

    #[test]
    fn what_programs_write_around_a_table_is_skipped() {
        let wanted = [Ok((1, 2, None)), Ok((2, 3, None))];
        assert_eq!(read("#group,false,false\n#datatype,string,long\ntimestamp,value\n1,2\n# end\n2,3\n"), wanted);
        assert_eq!(read("# host;timestamp;value\nh;1;2\nh;2;3\n"), wanted, "sadf -d");
        assert_eq!(read("Full label,NetworkIn\n,\"i-1, eth0\"\ntimestamp,value\n1,2\n2,3\n"), wanted);
        assert_eq!(read("timestamp,value\n1,2\n\ntimestamp,value\n2,3\n"), wanted, "two files in one");
    }

    #[test]
    fn a_file_without_the_columns_is_refused() {
        let known = "in.csv:1: there is no column `timestamp`; the first row names time, bytes; choose with";
        assert!(refused("time,bytes\n1,2\n").1.starts_with(known), "{}", refused("time,bytes\n").1);
        assert_eq!(refused("").1, "in.csv:1: is empty; the first row names the columns");
        assert!(
            refused("timestamp;bytes\n1;2\n").1.contains("no column `value`; the first row names timestamp, bytes")
        );
        assert!(refused("2024-11-12 08:00:00,5\n2024-11-12 08:05:00,6\n").1.contains("put one above it"));
        assert!(refused("timestamp,value\r1,2\r3,4\r").1.contains("tr '\\r' '\\n'"));
        let error = Csv::open(Path::new("/nowhere.csv"), &dialect()).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere.csv: "));
    }

    #[test]
    fn two_columns_of_one_name_are_refused_where_they_are_used() {
        let (status, message) = refused("timestamp,value,x,value\n1,2,3,4\n");
        assert_eq!(status, Status::Usage);
        assert!(message.starts_with("in.csv:1: columns 2, 4 are all called `value`; rename"), "{message}");
        assert_eq!(read("timestamp,x,value,x\n1,2,3,4\n"), [Ok((1, 3, None))]);
    }

    #[test]
    fn a_file_that_grows_ends_where_it_ended_when_it_was_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("grows.csv");
        let seen = |text: &str, more: &str| {
            std::fs::write(&path, text).unwrap();
            let mut csv = Csv::open(&path, &dialect()).unwrap();
            std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(more.as_bytes()).unwrap();
            let mut seen = Vec::new();
            while let Ok(Some(row)) = csv.next() {
                seen.push(row.rx);
            }
            (seen, csv.grown())
        };
        assert_eq!(seen("timestamp,value\n1,5\n2,7", ""), (vec![5, 7], 0));
        assert_eq!(seen("timestamp,value\n1,5\n2,7\n", "3,9\n"), (vec![5, 7], 4));
        assert_eq!(seen("timestamp,value\n1,5\n2,7", "7\n3,9\n"), (vec![5], 6), "77, not 7");
    }

    #[test]
    fn times_are_read_as_the_command_line_says() {
        let times = Times {
            time_format: Some("%d.%m.%Y %H:%M".into()),
            time_zone: Some(crate::cli::time_zone("Asia/Kolkata").unwrap()),
        };
        let dialect = Dialect { times, ..dialect() };
        let read = rows(open("timestamp;value\n01.01.1970 05:31;7\n", &dialect).unwrap());
        assert_eq!(read, [Ok((60, 7, None))]);
        let moment = open("timestamp,value\n1970-01-01 00:01,7\n", &super::tests::dialect())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .moment;
        assert_eq!(moment, RowTime::AssumedUtc(Duration::from_secs(60)));
    }

    proptest::proptest! {
        #[test]
        fn no_damage_panics_and_every_file_ends(
            text in crate::testing::damaged_text(
                "timestamp,value,sent\n2026-01-01T00:00:00Z,300,1\n2026-01-01 00:00:01.5,\"4,0\",2\n1767225605,5e3,3\n"
            ),
        ) {
            let most = text.lines().count() + text.matches('\r').count() + 1;
            if let Ok(mut csv) = open(&text, &Dialect { tx: Some("sent".into()), ..dialect() }) {
                assert!((0..=most).any(|_| matches!(csv.next(), Ok(None))));
            }
        }

        #[test]
        fn no_text_panics(text in "(timestamp[,;\t]value\n)?[0-9a-zT:.,\" #;\t\n-]{0,200}") {
            let most = text.lines().count() + 1;
            if let Ok(mut csv) = open(&text, &dialect()) {
                assert!((0..=most).any(|_| matches!(csv.next(), Ok(None))));
            }
        }
    }
}
