use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use indicatif::ProgressBar;

use super::common::Common;
use crate::agent::config::{self, Settings};
use crate::agent::counters::CounterBits;
use crate::agent::detector::limit::{Level, Limit, Scope};
use crate::agent::detector::{Detections, Detector};
use crate::agent::publisher;
use crate::agent::toolbox::replay::csv::{Dialect, RowError};
use crate::agent::toolbox::replay::rows::{Meaning, ReplayRows};
use crate::agent::toolbox::replay::streams::Streams;
use crate::agent::toolbox::replay::summary::Summary;
use crate::agent::toolbox::replay::{rows, sample};
use crate::agent::toolbox::sinks;
use crate::cli::output::{self, OutputFormat};
use crate::config::TopicRole;
use crate::message::{Body, Direction, Epoch, NewEvent, Severity};
use crate::process::exit::{Failure, Status};
use crate::process::random::random;
use crate::units::{BitRate, ByteCount, counted};

pub(super) const HELP: &str = "\
Each row is a reading of one link: its time, and what the link carried. A time
is RFC 3339, YYYY-MM-DD hh:mm:ss, or seconds, ms, µs or ns since 1970; any other
with --time-format. Without an offset it is local time of --time-zone, or UTC.
The first row lasts as long as the second. Columns are separated by commas,
semicolons (numbers may then have a decimal comma) or tabs. The limit is
--limit, or each [[limit]] of the configuration that names --interface. Nothing
is sent without --publish (the events) or --publish-samples (each row, which
needs no limit); what is sent has the times of its rows, and the name --agent.

Samples go to topics.samples, which `highwater-agent topics --samples` creates;
`highwater-consumer run --samples` stores them. They have an epoch of their own,
the complement of the events', and are numbered in it from 1 without gaps: so a
row has the same number each time it is sent, and is stored once.

Limits are upper limits: unusually low traffic is not detected. Choose one above
the usual traffic, with --for long enough to tell a breach from a peak.

A bad row is skipped and counted, and the first five are logged. An interrupted
run ends with --epoch and --from-line: the same command with these, on the same
file, resumes without duplicates (earlier rows are evaluated again, not sent).
To send everything again, as to a topic that was lost, use the epoch of the
summary and --from-line 2: the tables will have each row once.

Exit code: 0 if the run completed; 1 if a bad row stopped it (--strict), if more
than half of the rows are bad or are in no sensible order, or if not all was
delivered (Kafka rejected the rest, or acknowledged nothing for 5 min); 69 if
Kafka could not be reached.

Examples:
  highwater-agent replay traffic.csv --bytes-per 5min --limit '5 MB/5min'
  highwater-agent replay traffic.csv --bytes-per 5min --limit '11.8 MB/5min' \\
    --for 1h --breaches
  highwater-agent replay counters.csv --counters --limit '80 Mbit/s' \\
    --time when --rx in_octets --tx out_octets
  highwater-agent replay excel.csv --rates --limit '1 Gbit/s' \\
    --time-format '%d.%m.%Y %H:%M' --time-zone Europe/Berlin
  zcat old.csv.gz | highwater-agent replay - --rates --rx bps \\
    --limit '1 Gbit/s' --publish -t trial.events
  highwater-agent topics --samples &&
    highwater-agent replay traffic.csv --bytes-per 5min --publish-samples";

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("sending").multiple(true).args(["publish", "publish_samples"]))]
pub(super) struct Replay {
    #[command(flatten)]
    common: Common,
    /// CSV file; - is standard input
    #[arg(value_name = "FILE.csv", required_unless_present = "input")]
    file: Option<PathBuf>,
    /// CSV file, as an option: -i FILE is FILE
    #[arg(short, long, value_name = "FILE.csv", conflicts_with = "file")]
    input: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    #[command(flatten)]
    dialect: Dialect,
    /// Values are bytes per this time, which is also the row interval
    #[arg(long, value_name = "TIME", value_parser = positive_duration, group = "meaning")]
    bytes_per: Option<Duration>,
    /// Values are byte counters
    #[arg(long, group = "meaning")]
    counters: bool,
    /// Width of the counters, after which they wrap: 32 or 64
    #[arg(
        long,
        value_name = "BITS",
        value_parser = counter_bits,
        requires = "counters",
        conflicts_with_all = ["rates", "bytes_per"],
        default_value = "64"
    )]
    counter_bits: CounterBits,
    /// Values are bits per second
    #[arg(long, group = "meaning")]
    rates: bool,
    /// Row interval; after a gap of over 3.5 times this nothing is evaluated
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    interval: Option<Duration>,
    /// Raise a breach at this rate: '80 Mbit/s', '5 MB/5min'
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<BitRate>,
    /// Clear it below this rate [default: 90 % of --limit]
    #[arg(long, value_name = "RATE", value_parser = rate, requires = "limit")]
    clear_at: Option<BitRate>,
    /// Time that the rate must stay above the limit
    #[arg(long = "for", default_value = "0s", value_name = "TIME", value_parser = crate::cli::time)]
    hold: Duration,
    /// Name of the link
    #[arg(long, default_value = "replay", value_name = "NAME")]
    interface: String,
    /// Name of the agent [default: the file's name without its ending]
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Show each breach; the summary goes to standard error
    #[arg(long)]
    breaches: bool,
    /// Stop at the first bad row
    #[arg(long)]
    strict: bool,
    /// Send the events to Kafka
    #[arg(long)]
    publish: bool,
    /// Send each row to Kafka as a sample, to topics.samples
    #[arg(long)]
    publish_samples: bool,
    /// Resume in this epoch (printed by the interrupted run)
    #[arg(long, value_name = "HEX", requires = "sending", requires = "from_line")]
    epoch: Option<Epoch>,
    /// Resume at this line (printed by the interrupted run)
    #[arg(long, value_name = "N", requires = "epoch")]
    from_line: Option<u64>,
    /// Wait at the end until this consumer group has stored what was sent
    #[arg(long, value_name = "GROUP", requires = "sending")]
    wait_stored: Option<String>,
}

const BAD_ROWS_SHOWN: u64 = 5;

/// Interval if none is known, so long that no pause exceeds it.
const ANY_INTERVAL: Duration = Duration::from_secs(365 * 86_400);

enum ReplayEnd {
    Through,
    Stopped,
    BadRow(String),
    Failed(Failure),
}

impl Replay {
    pub(super) fn run(self) -> Result<(), Failure> {
        let agent = self.agent_name()?;
        let settings = self.common.prepare()?;
        let limits = self.limits(&settings)?;
        let (events, samples) = self.publishers(&settings)?;
        let epoch = self.epoch.unwrap_or_else(|| Epoch(random()));
        let interval = self.interval.or(self.bytes_per);
        let mut rows = ReplayRows::open(self.file(), &self.dialect, self.meaning(), interval, &self.interface)?;
        let mut streams = Streams::open(&agent, epoch, events, samples, self.from_line)?;
        // A resumed run makes the same breaches of the same rows, with the same ids.
        let mut detector = Detector::new(limits, interval.unwrap_or(ANY_INTERVAL), epoch.0);
        let bar = sinks::progress(None, "rows");
        let mut summary = Summary::new(self.breaches.then_some(self.format));
        let end = self.replay(&mut rows, &agent, &mut detector, &mut summary, &mut streams, &bar)?;
        let delivered = streams.finish()?;
        bar.finish_and_clear();
        output::finished(summary.end())?;
        let end = match end {
            ReplayEnd::Failed(failure) if !delivered.has_any() => return Err(failure),
            end => end,
        };
        if self.breaches {
            self.common.note(&summary.line(&delivered));
        } else {
            summary.print(self.format, &delivered, self.publish, self.sends().then_some(epoch))?;
        }
        let resume = format!("--epoch {epoch} --from-line {}", delivered.next_line);
        match end {
            ReplayEnd::Through => {}
            ReplayEnd::Failed(failure) => {
                return Err(Failure::new(failure.status(), format!("{failure}; then resume with {resume}")));
            }
            ReplayEnd::Stopped if self.sends() => {
                let why = delivered.problem().map(|why| format!(": {why}")).unwrap_or_default();
                return Err(Failure::failed(format!("interrupted{why}; resume with {resume}")));
            }
            ReplayEnd::Stopped => return Err(Failure::failed("interrupted")),
            ReplayEnd::BadRow(reason) if self.sends() => {
                return Err(Failure::failed(format!("{reason}; fix it, and resume with {resume}")));
            }
            ReplayEnd::BadRow(reason) => return Err(Failure::failed(reason)),
        }
        if rows.grown() > 0 {
            let with = if self.sends() { format!("; send those rows with {resume}") } else { String::new() };
            self.common
                .note(&format!("the file has grown by {} since it was opened{with}", counted(rows.grown(), "byte")));
        }
        sinks::check_delivered(&delivered.events, "event")?;
        delivered.samples.iter().try_for_each(|samples| sinks::check_delivered(samples, "sample"))?;
        summary.check_rows(rows.file())?;
        if let Some(group) = &self.wait_stored {
            let topics = [
                (&settings.publisher.topic, Some(&delivered.events)),
                (settings.topics.names.of(TopicRole::Samples), delivered.samples.as_ref()),
            ];
            for (topic, delivery) in topics {
                let Some(delivery) = delivery else { continue };
                sinks::wait_stored(&settings, group, topic, &delivery.last_offsets)?;
            }
            self.common.note(&format!("{group} has stored all of them"));
        }
        Ok(())
    }

    fn publishers(
        &self,
        settings: &Settings,
    ) -> Result<(Option<publisher::Settings>, Option<publisher::Settings>), Failure> {
        let to = |topic: &str| {
            sinks::topic_is_there(settings, topic)?;
            Ok::<_, Failure>(publisher::Settings { topic: topic.to_owned(), ..settings.publisher.clone() })
        };
        let events = self.publish.then(|| to(&settings.publisher.topic));
        let samples = self.publish_samples.then(|| to(settings.topics.names.of(TopicRole::Samples)));
        Ok((events.transpose()?, samples.transpose()?))
    }

    fn sends(&self) -> bool {
        self.publish || self.publish_samples
    }

    fn replay(
        &self,
        rows: &mut ReplayRows,
        agent: &str,
        detector: &mut Detector,
        summary: &mut Summary,
        streams: &mut Streams,
        bar: &ProgressBar,
    ) -> Result<ReplayEnd, Failure> {
        let (mut detections, mut last) = (Detections::default(), None);
        let end = loop {
            let next = rows.next();
            if streams.stopped() {
                // The process that writes the rows may have been stopped too, within this row.
                break ReplayEnd::Stopped;
            }
            let row = match next {
                Ok(Some(row)) => row,
                Ok(None) => break ReplayEnd::Through,
                Err(RowError::Bad { reason, .. }) if self.strict => break ReplayEnd::BadRow(reason),
                Err(RowError::Bad { line, reason }) => {
                    summary.bad_rows += 1;
                    streams.skip_line(line);
                    if summary.bad_rows <= BAD_ROWS_SHOWN {
                        log::warn!("{reason}; row skipped");
                    }
                    continue;
                }
                Err(RowError::Failed(failure)) => break ReplayEnd::Failed(failure),
            };
            let now = rows::stamp(agent, &row.reading);
            detector.observe(&row.reading, &now, &mut detections);
            if let Some(notice) = detections.notices.first() {
                log::warn!("{notice}");
            }
            output::finished(summary.row(&detections.bodies))?;
            bar.inc(1);
            let new_events = detections.bodies.drain(..).map(|body| NewEvent { stamp: now.clone(), body }).collect();
            let sample = streams.wants_samples().then(|| {
                let body = Body::Sample(sample::sample(&self.interface, &row.recorded));
                NewEvent { stamp: now.clone(), body }
            });
            streams.add(row.line, &now, new_events, sample)?;
            last = Some(now);
        };
        if summary.bad_rows > BAD_ROWS_SHOWN {
            log::warn!("{} skipped", counted(summary.bad_rows - BAD_ROWS_SHOWN, "more bad row"));
        }
        let open = last.map(|now| detector.open_breaches(&now)).unwrap_or_default();
        output::finished(summary.open(open.into_iter().map(|(breach, _)| breach)))?;
        Ok(end)
    }

    fn meaning(&self) -> Meaning {
        match self.bytes_per {
            Some(interval) => Meaning::BytesPer(interval),
            None if self.counters => Meaning::Counter(self.counter_bits),
            None if self.rates => Meaning::BitsPerSecond,
            None => Meaning::Bytes,
        }
    }

    fn limits(&self, settings: &Settings) -> Result<Vec<Limit>, Failure> {
        let Some(raise_at) = self.limit else {
            if settings.limits.is_empty() && (self.publish || !self.publish_samples) {
                return Err(Failure::new(
                    Status::Usage,
                    "there is no limit to evaluate the rows by; write --limit '80 Mbit/s', or '5 MB/5min'",
                ));
            }
            return Ok(settings.limits.clone());
        };
        let clear_at = self.clear_at.unwrap_or_else(|| raise_at.percent(90.0));
        if clear_at > raise_at {
            let message = format!(
                "--clear-at {clear_at} is above --limit ({raise_at}): a breach would clear before it was raised"
            );
            return Err(Failure::new(Status::Usage, message));
        }
        let directions =
            if self.dialect.tx.is_some() { vec![Direction::Rx, Direction::Tx] } else { vec![Direction::Rx] };
        Ok(vec![Limit {
            name: "replay".to_owned(),
            scope: Scope::Interface(self.interface.clone()),
            directions,
            raise_at: Level::Rate(raise_at),
            clear_at: Level::Rate(clear_at),
            hold: self.hold,
            clear_hold: Duration::ZERO,
            severity: Severity::Warning,
            update_every: Duration::from_secs(1),
        }])
    }

    fn file(&self) -> &Path {
        self.file.as_deref().or(self.input.as_deref()).unwrap_or(Path::new("-"))
    }

    fn agent_name(&self) -> Result<String, Failure> {
        let name = self.agent.clone().unwrap_or_else(|| match self.file().file_stem() {
            Some(stem) if stem != "-" => stem.to_string_lossy().into_owned(),
            _ => "replay".to_owned(),
        });
        match config::check_name(&name) {
            Ok(()) => Ok(name),
            Err(error) => Err(Failure::new(Status::Usage, format!("--agent: {error}"))),
        }
    }
}

fn counter_bits(text: &str) -> Result<CounterBits, String> {
    match text {
        "32" => Ok(CounterBits::B32),
        "64" => Ok(CounterBits::B64),
        _ => Err("counters have 32 or 64 bits".to_owned()),
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match crate::cli::time(text)? {
        Duration::ZERO => Err("is no time at all".to_owned()),
        duration => Ok(duration),
    }
}

fn rate(text: &str) -> Result<BitRate, String> {
    let known = |error| format!("{error}; or write a size and a time, as in '5 MB/5min'");
    let error = match text.parse::<BitRate>() {
        Ok(rate) => return Ok(rate),
        Err(error) => error,
    };
    let Some((bytes, time)) = text.split_once('/') else { return Err(known(error)) };
    let (Ok(bytes), Ok(time)) = (bytes.parse::<ByteCount>(), positive_duration(time.trim())) else {
        return Err(known(error));
    };
    Ok(crate::agent::detector::rate::bit_rate(bytes.bytes(), time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_rate_or_a_size_over_a_time() {
        assert_eq!(rate("80 Mbit/s").unwrap().bps(), 80_000_000);
        assert_eq!(rate("5 MB/5min").unwrap().bps(), 133_333);
        assert_eq!(rate("11.8 MB / 5 min").unwrap().bps(), 314_666);
        for text in ["5 MB/0s", "5/5min", "fast", "5 MB/soon"] {
            assert!(rate(text).unwrap_err().contains("'5 MB/5min'"), "{text}");
        }
    }
}
