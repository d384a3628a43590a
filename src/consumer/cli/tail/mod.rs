use std::collections::BTreeMap;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use self::lines::{Lines, Time};
use super::common::{Common, standalone, unavailable};
use super::when::{TIMES, When};
use crate::cli::output::{self, OutputFormat};
use crate::cli::stop_flag;
use crate::consumer::config::Settings;
use crate::consumer::{Fetched, StandaloneConsumer};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;
use crate::process::log_throttle::LogThrottle;

mod lines;

pub(super) const HELP: &str = "\
Prints each message of one topic as it arrives, that of events unless --topic
names another: topic, partition, offset, the time at which the event was
observed, its key, and the event. A message that is no event is shown as such,
with Kafka's timestamp and the reason. It joins no group and commits no offset.

Rates and samples are events of other topics. The hours of highwater.histograms
are not: `plot histogram --live` draws them, and --raw prints their JSON.

--from TIME goes by Kafka's timestamps: events that were sent late, as after an
outage, are found where they arrived.

Examples:
  highwater-consumer tail                        # from now on, until Ctrl-C
  highwater-consumer tail --from 10m             # from ten minutes ago
  highwater-consumer tail --from -5 --until-end  # last five of each partition
  highwater-consumer tail -t highwater.rates     # rates, window by window
  highwater-consumer tail --from 1234 --partition 3 -n 1  # one message
  highwater-consumer tail --from earliest --until-end --format json |
    jq 'select(.event == null)'";

#[derive(Args, Debug)]
pub(super) struct Tail {
    #[command(flatten)]
    common: Common,
    /// Output format; a table has a line per event, JSON and CSV all of it
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    /// First message: earliest, latest, an offset, a time, 10m (ago), -5 (last five)
    #[arg(long, value_name = "WHERE", default_value = "latest", allow_hyphen_values = true, long_help = format!(
        "First message: earliest, latest, an offset, or a time; -5 is the last\nfive of each partition.\n{TIMES}"
    ))]
    from: From,
    /// Only this partition
    #[arg(short, long, value_name = "NUMBER")]
    partition: Option<i32>,
    /// Stop after this many messages
    #[arg(short = 'n', long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Stop after the messages that were there at the start
    #[arg(long)]
    until_end: bool,
    /// Show Kafka's timestamps, not the events' (JSON and CSV have both)
    #[arg(long)]
    kafka_time: bool,
    /// Print only the payloads' bytes, each followed by a newline
    #[arg(long, conflicts_with = "format")]
    raw: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Earliest,
    Latest,
    Offset(i64),
    Last(i64),
    Time(When),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<i64>()) {
            ("earliest", _) => Ok(Self::Earliest),
            ("latest", _) => Ok(Self::Latest),
            (_, Ok(number)) if number < 0 => Ok(Self::Last(number.saturating_neg())),
            (_, Ok(number)) => Ok(Self::Offset(number)),
            _ => text.parse().map(Self::Time).map_err(|why| format!("{why}; or earliest, latest, an offset, -5")),
        }
    }
}

const POLL: Duration = Duration::from_millis(100);

impl Tail {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let mut standalone = standalone(&settings)?;
        if !self.until_end {
            self.common.note(&format!("following {} at {}", settings.topic, settings.connection.brokers()));
        }
        let kafka = |error: String| unavailable(format!("Kafka at {}: {error}", settings.connection.brokers()));
        let begin = self.begin(&standalone).map_err(kafka)?;
        standalone
            .assign_from(&begin.iter().map(|(partition, (from, _))| (*partition, *from)).collect())
            .map_err(kafka)?;
        let stop = stop_flag().map_err(Failure::failed)?;
        let out: Box<dyn Write> = match self.raw {
            true => Box::new(io::BufWriter::new(io::stdout())),
            false => output::stdout(self.format),
        };
        let time = if self.kafka_time { Time::Kafka } else { Time::Observed };
        let lines = Lines::new(&settings.topic, self.format, self.raw, time, out);
        output::finished(self.show(&mut standalone, begin, lines, &stop, &settings))
    }

    fn begin(&self, standalone: &StandaloneConsumer) -> Result<BTreeMap<i32, (i64, i64)>, String> {
        let mut partitions = standalone.partitions()?;
        if let Some(wanted) = self.partition {
            let count = partitions.len();
            partitions.retain(|partition| *partition == wanted);
            if partitions.is_empty() {
                return Err(format!("there is no partition {wanted}: they are 0 to {}", count.saturating_sub(1)));
            }
        }
        let at = match self.from {
            From::Time(when) => {
                let time = when.from(SystemClock::default().wall());
                standalone.offsets_at(&partitions, time.timestamp_millis())?
            }
            _ => BTreeMap::new(),
        };
        let mut begin = BTreeMap::new();
        for partition in partitions {
            let (low, high) = standalone.watermarks(partition)?;
            let from = match self.from {
                From::Earliest => low,
                From::Latest => high,
                From::Offset(offset) => offset.min(high).max(low),
                From::Last(count) => high.saturating_sub(count).max(low),
                From::Time(_) => at.get(&partition).copied().unwrap_or(high),
            };
            begin.insert(partition, (from, high));
        }
        Ok(begin)
    }

    fn show(
        &self,
        standalone: &mut StandaloneConsumer,
        mut begin: BTreeMap<i32, (i64, i64)>,
        mut lines: Lines,
        stop: &AtomicBool,
        settings: &Settings,
    ) -> io::Result<()> {
        let (clock, throttle) = (SystemClock::default(), LogThrottle::default());
        let mut left = self.count.unwrap_or(u64::MAX);
        // With --until-end: partitions that are not at their end yet.
        begin.retain(|_, (from, end)| from < end);
        let mut timeout = POLL;
        while left > 0 && !stop.load(Ordering::Relaxed) && !(self.until_end && begin.is_empty()) {
            match standalone.poll(timeout) {
                Fetched::Record(partition, record) => {
                    let end = begin.get(&partition).map(|(_, end)| *end);
                    if self.until_end && end.is_none_or(|end| record.offset >= end) {
                        begin.remove(&partition);
                        continue;
                    }
                    lines.record(partition, &record)?;
                    left -= 1;
                    if end.is_some_and(|end| record.offset + 1 >= end) {
                        begin.remove(&partition);
                    }
                    // The output is flushed once no more messages are waiting.
                    timeout = Duration::ZERO;
                }
                Fetched::End(partition) => {
                    begin.remove(&partition);
                }
                Fetched::NoMessage => {
                    lines.flush()?;
                    timeout = POLL;
                }
                Fetched::Error(why) => {
                    if let Some(line) = throttle.admit(&why, clock.monotonic()) {
                        log::warn!("Kafka at {}: {line}; trying again", settings.connection.brokers());
                    }
                }
            }
        }
        lines.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_a_word_an_offset_or_a_time() {
        let from = |text: &str| text.parse::<From>().ok();
        assert_eq!(from("earliest"), Some(From::Earliest));
        assert_eq!(from("17"), Some(From::Offset(17)));
        assert_eq!(from("-5"), Some(From::Last(5)));
        assert_eq!(from("10m"), Some(From::Time(When::Ago(Duration::from_secs(600)))));
        assert!(matches!(from("2026-11-21T06:00:00Z"), Some(From::Time(When::At(_)))));
        assert!("soon".parse::<From>().unwrap_err().contains("earliest"));
    }
}
