//! Counters from a CSV file: a recorded series, one row a reading, for replays.
//!
//! The first row names the columns. A timestamp is RFC 3339, seconds since 1970 (with or without a fraction), or
//! `YYYY-MM-DD hh:mm:ss` in UTC; rows ascend. Time is the rows' own: [`Reading::at`] counts from 1970. A row is a line.
//!
//! A file may be written to while it is read: rows that come after it was opened are left for another time, and so is a last row
//! that is not whole yet.

mod lines;

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use ::csv::StringRecord;
use chrono::{DateTime, NaiveDateTime};

use self::lines::{Lines, Unread};
use super::{Came, CounterBits, CounterError, CounterSource, Counters, LinkChange, LinkInfo, LinkKind, Reading, Speed};
use crate::clock::Clock;
use crate::excerpt::{beginning, harmless};
use crate::units::BitRate;

/// What the values of a column are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meaning {
    /// Bytes counted from some beginning, as a kernel does.
    Counter,
    /// Bytes that came since the row before.
    #[default]
    Bytes,
    /// Bytes in an interval of this length, which the row ends; where rows are further apart, the traffic between them was such.
    BytesPer(Duration),
    /// The mean rate since the row before, in bit/s.
    BitsPerSecond,
}

/// What a row says itself, whatever the detector makes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The time it speaks of; `None` where that began before the first row.
    pub elapsed: Option<Duration>,
    /// What was received.
    pub rx: Amount,
    /// What was sent, where there is a column of it.
    pub tx: Option<Amount>,
}

/// What was carried one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many bit/s.
    Rate(u64),
    /// A counter began, or fell.
    #[default]
    Unknown,
}

/// Where in the file what stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The column of timestamps.
    pub timestamp: String,
    /// The column of what was received.
    pub rx: String,
    /// The column of what was sent, if there is one.
    pub tx: Option<String>,
    /// What their values are.
    pub meaning: Meaning,
}

impl Default for Columns {
    /// `timestamp,value`, the value being bytes received since the row before.
    fn default() -> Self {
        Self { timestamp: "timestamp".into(), rx: "value".into(), tx: None, meaning: Meaning::Bytes }
    }
}

/// A file of counters, as one link.
pub struct Csv {
    lines: Lines,
    row: StringRecord,
    /// So many values has each row.
    width: usize,
    file: String,
    /// Positions of timestamp, rx and tx in a row.
    positions: (usize, usize, Option<usize>),
    meaning: Meaning,
    link: LinkInfo,
    last: Option<Last>,
    carried: Carried,
    opened: Option<Opened>,
}

/// A file as it was when it was opened.
struct Opened {
    file: File,
    bytes: u64,
    /// Its last row ends without a line's end: whole, unless the file grows.
    open_ended: bool,
}

/// The row before.
#[derive(Clone, Copy)]
struct Last {
    at: Duration,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Csv {
    /// Opens a file, whose rows are readings of one link called `interface`.
    ///
    /// # Errors
    /// It can't be read, or its first row does not name the columns.
    pub fn open(path: &Path, columns: &Columns, interface: &str, speed: Option<BitRate>) -> Result<Self, CounterError> {
        let file = path.display().to_string();
        let opened = File::open(path).map_err(|e| {
            let error = std::io::Error::new(e.kind(), format!("{file}: {e}"));
            CounterError::system("opening a file of counters", error)
        })?;
        let failed = |error| CounterError::system("reading a file of counters", error);
        let opened = Opened::new(opened).map_err(failed)?;
        let reader = opened.file.try_clone().map_err(failed)?.take(opened.bytes);
        let mut source = Self::from_reader(Box::new(reader), file, columns, interface, speed)?;
        source.opened = Some(opened);
        Ok(source)
    }

    /// The line of the row that was read last; from 1.
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    /// What the row that was read last says.
    pub fn carried(&self) -> Carried {
        self.carried
    }

    /// By how many bytes the file has grown since it was opened.
    pub fn grown(&self) -> u64 {
        self.opened.as_ref().map_or(0, Opened::grown)
    }

    /// Reads from anything else: standard input. `file` is its name in errors.
    ///
    /// # Errors
    /// See [`Csv::open`].
    pub fn from_reader(
        reader: Box<dyn Read>,
        file: String,
        columns: &Columns,
        interface: &str,
        speed: Option<BitRate>,
    ) -> Result<Self, CounterError> {
        let (mut lines, mut names) = (Lines::new(reader), StringRecord::new());
        let named = lines.read(&mut names);
        let bad = |reason: String| CounterError::Row { file: file.clone(), line: lines.number().max(1), reason };
        match named {
            Ok(true) => {}
            Ok(false) => return Err(bad("is empty; the first row names the columns".to_owned())),
            Err(Unread::Row(reason)) => return Err(bad(reason.to_owned())),
            Err(Unread::Io(error)) => return Err(unreadable(&file, error)),
        }
        let position = |wanted: &str| {
            let known = || shown(&names.iter().collect::<Vec<_>>().join(", "));
            let found = names.iter().position(|name| name == wanted);
            let other = names.len() == 1 && names[0].contains([';', '\t']);
            let hint = if other { "; commas separate columns" } else { "" };
            found.ok_or_else(|| bad(format!("there is no column `{wanted}`; the first row names {}{hint}", known())))
        };
        let tx = columns.tx.as_deref().map(position).transpose()?;
        let positions = (position(&columns.timestamp)?, position(&columns.rx)?, tx);
        let (kind, name) = (LinkKind::Physical, interface.to_owned());
        let link = LinkInfo { speed: Speed::both(speed), ..LinkInfo::new(1, name, kind) };
        Ok(Self {
            width: names.len(),
            lines,
            row: StringRecord::new(),
            file,
            positions,
            meaning: columns.meaning,
            link,
            last: None,
            carried: Carried::default(),
            opened: None,
        })
    }

    /// What the row adds to, and what it says itself; or what is wrong with it.
    fn counted(&self) -> Result<(Last, Carried), String> {
        let (timestamp, rx, tx) = self.positions;
        let field = |position: usize| self.row.get(position).ok_or("the row is too short");
        let at = instant(field(timestamp)?)?;
        let last = self.last.unwrap_or(Last { at, rx_bytes: 0, tx_bytes: 0 });
        if self.last.is_some() && at <= last.at {
            return Err(format!("the timestamp `{}` is not after that of the row before", shown(field(timestamp)?)));
        }
        let read = |position: usize, before: u64| {
            let text = field(position)?;
            let value = number(text)?;
            // A float would round a counter above 2^53.
            let whole = text.parse().unwrap_or(value as u64);
            let total = match self.meaning {
                Meaning::Counter => whole,
                Meaning::Bytes => before.saturating_add(whole),
                Meaning::BytesPer(interval) => {
                    let intervals = (at - last.at).as_secs_f64() / interval.as_secs_f64();
                    // A counter at 0 would be taken for one that nobody could read.
                    before.max(1).saturating_add((value * intervals).round() as u64)
                }
                Meaning::BitsPerSecond => before.saturating_add((value / 8.0 * (at - last.at).as_secs_f64()) as u64),
            };
            let amount = match self.meaning {
                Meaning::Counter if self.last.is_none() => Amount::Unknown,
                Meaning::Counter => whole.checked_sub(before).map_or(Amount::Unknown, Amount::Bytes),
                Meaning::Bytes | Meaning::BytesPer(_) => Amount::Bytes(whole),
                Meaning::BitsPerSecond => Amount::Rate(whole),
            };
            Ok::<_, String>((total, amount))
        };
        let (rx_bytes, rx) = read(rx, last.rx_bytes)?;
        let (tx_bytes, tx) = tx.map(|tx| read(tx, last.tx_bytes)).transpose()?.unzip();
        let elapsed = match self.meaning {
            Meaning::BytesPer(interval) => Some(interval),
            _ => self.last.map(|last| at - last.at),
        };
        Ok((Last { at, rx_bytes, tx_bytes: tx_bytes.unwrap_or(0) }, Carried { elapsed, rx, tx }))
    }
}

impl CounterSource for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    /// The next row. A bad one is an error that names its line, and the next reading goes on behind it.
    fn read(&mut self, _: &dyn Clock, reading: &mut Reading) -> Result<(), CounterError> {
        reading.clear();
        let bad = |line: u64, reason: String| CounterError::Row { file: self.file.clone(), line, reason };
        let there = self.lines.read(&mut self.row);
        if self.opened.as_ref().is_some_and(|opened| opened.cuts_row_short(self.lines.bytes())) {
            return Err(CounterError::Ended);
        }
        let line = self.line();
        match there {
            Ok(true) => {}
            Ok(false) => return Err(CounterError::Ended),
            Err(Unread::Row(reason)) => return Err(bad(line, reason.to_owned())),
            Err(Unread::Io(error)) => return Err(unreadable(&self.file, error)),
        }
        if self.row.len() != self.width {
            return Err(bad(
                line,
                format!("has {} for {}", plural(self.row.len(), "value"), plural(self.width, "column")),
            ));
        }
        let (now, carried) = self.counted().map_err(|reason| bad(line, reason))?;
        self.carried = carried;
        if self.last.replace(now).is_none() {
            reading.changes.push(LinkChange::Added(self.link.clone(), Came::Appeared));
        }
        (reading.at, reading.boottime) = (now.at, now.at);
        let Last { rx_bytes, tx_bytes, .. } = now;
        let ifindex = self.link.ifindex;
        reading.counters.push(Counters { ifindex, rx_bytes, tx_bytes, packets: None, bits: CounterBits::B64 });
        Ok(())
    }
}

impl Opened {
    fn new(mut file: File) -> io::Result<Self> {
        // What is no file has no length: all of it is read.
        let metadata = file.metadata()?;
        let bytes = if metadata.is_file() { metadata.len() } else { u64::MAX };
        let mut open_ended = false;
        if metadata.is_file() && bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(bytes - 1))?;
            file.read_exact(&mut last)?;
            file.rewind()?;
            open_ended = last != [b'\n'];
        }
        Ok(Self { file, bytes, open_ended })
    }

    fn grown(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(self.bytes))
    }

    fn cuts_row_short(&self, read_bytes: u64) -> bool {
        self.open_ended && read_bytes >= self.bytes && self.grown() > 0
    }
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// So much of what is in a file stands in an error.
const SHOWN_CHARS_MAX: usize = 200;

/// In one line, and harmless to a terminal: it may be no text at all.
fn shown(text: &str) -> String {
    harmless(&beginning(text, SHOWN_CHARS_MAX)).into_owned()
}

fn unreadable(file: &str, error: io::Error) -> CounterError {
    let error = io::Error::new(error.kind(), format!("{file}: {error}"));
    CounterError::system("reading a file of counters", error)
}

/// 9999-12-31 23:59:59 and all of its second: what every database has.
const INSTANT_MAX: Duration = Duration::new(253_402_300_799, 999_999_999);

/// Time since 1970.
fn instant(text: &str) -> Result<Duration, String> {
    let wrong = || {
        let text = shown(text);
        format!(
            "`{text}` is no timestamp; write RFC 3339, seconds since 1970, or YYYY-MM-DD hh:mm:ss (UTC), after 1970"
        )
    };
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let seconds = text.parse::<f64>().map_err(|_| wrong())?;
        let instant = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        return if instant <= INSTANT_MAX {
            Ok(instant)
        } else {
            Err(format!("`{}` is after the year 9999: seconds since 1970 are meant, not milliseconds", shown(text)))
        };
    }
    let instant = DateTime::parse_from_rfc3339(text)
        .map(|instant| instant.to_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map(|naive| naive.and_utc()));
    (instant.map_err(|_| wrong())? - DateTime::UNIX_EPOCH).to_std().map_err(|_| wrong())
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 && number < u64::MAX as f64 => Ok(number),
        _ => Err(format!("`{}` is no number of bytes or bits; write one from 0, without a unit", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::clock::SystemClock;

    fn open(text: &'static str, columns: &Columns) -> Result<Csv, CounterError> {
        Csv::from_reader(Box::new(text.as_bytes()), "in.csv".into(), columns, "in", None)
    }

    /// Seconds and bytes received of each row, or what was wrong with it.
    fn rows(text: &'static str, columns: &Columns) -> Vec<Result<(u64, u64), String>> {
        let mut source = open(text, columns).unwrap();
        let (clock, mut reading) = (SystemClock::default(), Reading::default());
        let mut rows = Vec::new();
        loop {
            match source.read(&clock, &mut reading) {
                Ok(()) => rows.push(Ok((reading.at.as_secs(), reading.counters[0].rx_bytes))),
                Err(error) if error.is_end() => return rows,
                Err(error) => rows.push(Err(error.to_string())),
            }
        }
    }

    #[test]
    fn reads_bytes_of_intervals_and_each_way_to_write_time() {
        let text = "timestamp,value\n1970-01-01 00:05:00,100\n600,50\n1970-01-01T00:15:00Z,1.5\n1200.5,2\n\
                    1970-01-01T01:25:00+01:00,3";
        let read = rows(text, &Columns::default());
        assert_eq!(read, [Ok((300, 100)), Ok((600, 150)), Ok((900, 151)), Ok((1200, 153)), Ok((1500, 156))]);
    }

    #[test]
    fn reads_counters_and_rates_both_ways() {
        let text = "sent,when,received\n9007199254740993,1,9007199254740993\n9007199254740995,2,9007199254740995\n";
        let columns = Columns {
            timestamp: "when".into(),
            rx: "received".into(),
            tx: Some("sent".into()),
            meaning: Meaning::Counter,
        };
        assert_eq!(rows(text, &columns), [Ok((1, 9_007_199_254_740_993)), Ok((2, 9_007_199_254_740_995))]);
        let per = Columns { meaning: Meaning::BytesPer(Duration::from_secs(5)), ..Columns::default() };
        assert_eq!(
            rows("timestamp,value\n10,99\n20,800\n25,100\n", &per),
            [Ok((10, 1)), Ok((20, 1_601)), Ok((25, 1_701))]
        );
        let rates = Columns { meaning: Meaning::BitsPerSecond, ..Columns::default() };
        assert_eq!(rows("timestamp,value\n10,99\n20,800\n", &rates), [Ok((10, 0)), Ok((20, 1_000))]);
    }

    #[test]
    fn a_row_says_what_was_carried_and_in_which_time() {
        let said = |meaning: Meaning| {
            let columns = Columns { tx: Some("sent".into()), meaning, ..Columns::default() };
            let mut source = open("timestamp,value,sent\n10,800,80\n20,500,90\n25,700,95\n", &columns).unwrap();
            let (clock, mut reading) = (SystemClock::default(), Reading::default());
            let mut said = Vec::new();
            while source.read(&clock, &mut reading).is_ok() {
                let Carried { elapsed, rx, tx } = source.carried();
                said.push((elapsed.map(|elapsed| elapsed.as_secs()), rx, tx.unwrap()));
            }
            said
        };
        use Amount::{Bytes, Rate, Unknown};
        let counted = [(None, Unknown, Unknown), (Some(10), Unknown, Bytes(10)), (Some(5), Bytes(200), Bytes(5))];
        assert_eq!(said(Meaning::Counter), counted);
        let bytes =
            [(None, Bytes(800), Bytes(80)), (Some(10), Bytes(500), Bytes(90)), (Some(5), Bytes(700), Bytes(95))];
        assert_eq!(said(Meaning::Bytes), bytes);
        let per = said(Meaning::BytesPer(Duration::from_secs(10)));
        assert_eq!((per[0], per[2]), ((Some(10), Bytes(800), Bytes(80)), (Some(10), Bytes(700), Bytes(95))));
        let rates = [(None, Rate(800), Rate(80)), (Some(10), Rate(500), Rate(90)), (Some(5), Rate(700), Rate(95))];
        assert_eq!(said(Meaning::BitsPerSecond), rates);
    }

    #[test]
    fn a_bad_row_is_named_by_its_line_and_passed_over() {
        let text = "timestamp,value\n1,1\nyesterday,1\n2,many\n2\n1,5\n3,-1\n4,1\n-5,1\n1e400,1\n";
        let read = rows(text, &Columns::default());
        let wrong = |at: usize| read[at].as_ref().unwrap_err().as_str();
        assert!(wrong(1).starts_with("in.csv:3: `yesterday` is no timestamp; write RFC 3339"), "{}", wrong(1));
        assert!(wrong(2).starts_with("in.csv:4: `many` is no number"), "{}", wrong(2));
        assert!(wrong(3).starts_with("in.csv:5: "), "{}", wrong(3));
        assert!(wrong(4).starts_with("in.csv:6: the timestamp `1` is not after"), "{}", wrong(4));
        assert!(wrong(5).starts_with("in.csv:7: "), "{}", wrong(5));
        assert_eq!(read[6], Ok((4, 2)));
        assert!(read[7].is_err() && read[8].is_err() && read.len() == 9);
    }

    #[test]
    fn a_row_that_is_none_spoils_no_other_and_lines_are_counted_as_editors_do() {
        let columns = Columns { rx: "bytes".into(), ..Columns::default() };
        let text = "\u{feff}timestamp, note ,bytes\r\n1,\"a, b\",5\r\n\r\n2,\"never closed,5\r\n3,x,7\r\n4,x\r\n5,x,7,8\r\n\
                    1767225600000,x,1\r\n\"6\",\"say \"\"hi\"\"\",7\r\n7,x,bad";
        let read = rows(text, &columns);
        let wrong = |at: usize| read[at].as_ref().unwrap_err().as_str();
        assert_eq!((&read[0], &read[2], &read[6]), (&Ok((1, 5)), &Ok((3, 12)), &Ok((6, 19))));
        assert_eq!(wrong(1), "in.csv:4: has a quote that is never closed");
        assert_eq!(
            (wrong(3), wrong(4)),
            ("in.csv:6: has 2 values for 3 columns", "in.csv:7: has 4 values for 3 columns")
        );
        assert!(wrong(5).starts_with("in.csv:8: `1767225600000` is after the year 9999"), "{}", wrong(5));
        assert!(wrong(7).starts_with("in.csv:10: `bad` is no number") && read.len() == 8, "{}", wrong(7));
    }

    #[test]
    fn a_line_without_end_and_bytes_that_are_no_text_are_bad_rows() {
        let mut bytes = b"timestamp,note,value\n1,caf\xe9,5\n".to_vec();
        bytes.extend(vec![b'7'; 3 << 20]);
        bytes.extend(b"\n2,x,\xff\n3,x,4\n");
        let reader = Box::new(io::Cursor::new(bytes));
        let mut source = Csv::from_reader(reader, "in.csv".into(), &Columns::default(), "in", None).unwrap();
        let (clock, mut reading) = (SystemClock::default(), Reading::default());
        let mut read =
            || source.read(&clock, &mut reading).map(|()| reading.counters[0].rx_bytes).map_err(|e| e.to_string());
        assert_eq!(read(), Ok(5));
        assert_eq!(read(), Err("in.csv:3: is longer than 1 MiB".to_owned()));
        assert!(read().unwrap_err().starts_with("in.csv:4: `\u{fffd}` is no number"));
        assert_eq!(read(), Ok(9));
    }

    #[test]
    fn a_file_that_grows_ends_where_it_ended_when_it_was_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("grows.csv");
        let (clock, mut reading) = (SystemClock::default(), Reading::default());
        let mut seen = |text: &str, more: &str| {
            std::fs::write(&path, text).unwrap();
            let mut source = Csv::open(&path, &Columns::default(), "in", None).unwrap();
            std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(more.as_bytes()).unwrap();
            let mut seen = Vec::new();
            while source.read(&clock, &mut reading).is_ok() {
                seen.push(reading.counters[0].rx_bytes);
            }
            (seen, source.grown())
        };
        assert_eq!(seen("timestamp,value\n1,5\n2,7", ""), (vec![5, 12], 0));
        assert_eq!(seen("timestamp,value\n1,5\n2,7\n", "3,9\n"), (vec![5, 12], 4));
        assert_eq!(seen("timestamp,value\n1,5\n2,7", "7\n3,9\n"), (vec![5], 6), "77, not 7");
    }

    #[test]
    fn a_file_without_the_columns_is_refused() {
        let error = open("time,bytes\n", &Columns::default()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "in.csv:1: there is no column `timestamp`; the first row names time, bytes");
        let refused = |text| open(text, &Columns::default()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(refused(""), "in.csv:1: is empty; the first row names the columns");
        assert!(refused("timestamp;value\n1;2\n").ends_with("names timestamp;value; commas separate columns"));
        let error = Csv::open(Path::new("/nowhere.csv"), &Columns::default(), "in", None).map(|_| ()).unwrap_err();
        assert!(crate::exit::chain(&error).contains("/nowhere.csv"));
    }

    proptest::proptest! {
        #[test]
        fn no_damage_panics_and_counters_only_move_on(
            text in crate::damage::damaged_text(
                "timestamp,value,sent\n2026-01-01T00:00:00Z,300,1\n2026-01-01 00:00:01.5,\"4,0\",2\n1767225605,5e3,3\n"
            ),
            meaning in proptest::sample::select(vec![Meaning::Counter, Meaning::Bytes, Meaning::BitsPerSecond]),
        ) {
            let most = text.lines().count() + text.matches('\r').count() + 1;
            let reader = Box::new(std::io::Cursor::new(text.into_bytes()));
            let columns = Columns { tx: Some("sent".into()), meaning, ..Columns::default() };
            if let Ok(mut source) = Csv::from_reader(reader, "in.csv".into(), &columns, "in", None) {
                let (clock, mut reading) = (SystemClock::default(), Reading::default());
                let (mut at, mut rx_bytes, mut ended) = (None, 0, false);
                for _ in 0..=most {
                    match source.read(&clock, &mut reading) {
                        Ok(()) => {
                            assert!(at < Some(reading.at), "time goes on");
                            assert!(meaning == Meaning::Counter || rx_bytes <= reading.counters[0].rx_bytes);
                            (at, rx_bytes) = (Some(reading.at), reading.counters[0].rx_bytes);
                        }
                        Err(error) => ended |= error.is_end(),
                    }
                }
                assert!(ended);
            }
        }

        #[test]
        fn no_text_panics(text in "(timestamp,value\n)?[0-9a-zT:.,\" \n-]{0,200}") {
            let text: &'static str = Box::leak(text.into_boxed_str());
            if let Ok(mut source) = open(text, &Columns::default()) {
                let (clock, mut reading) = (SystemClock::default(), Reading::default());
                let most = text.lines().count() + 1;
                let ended = (0..=most).any(|_| source.read(&clock, &mut reading).is_err_and(|e| e.is_end()));
                assert!(ended);
            }
        }
    }
}
