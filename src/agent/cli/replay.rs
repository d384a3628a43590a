//! `highwater-agent replay`.

mod lanes;
mod rows;
mod sample;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use indicatif::ProgressBar;

use self::lanes::{Delivered, Lanes};
use self::rows::Rows;
use self::tally::Tally;
use super::common::{Absent, Common};
use super::outlet;
use crate::agent::config::Settings;
use crate::agent::counters::CounterError;
use crate::agent::counters::csv::{Columns, Meaning};
use crate::agent::detector::{Detections, Detector};
use crate::agent::event_system::Draft;
use crate::agent::limit::{Level, Limit, Scope};
use crate::agent::publisher;
use crate::event::{Body, Direction, Epoch, Severity};
use crate::exit::{Failure, Status};
use crate::output::{self, Format, Value};
use crate::units::{BitRate, ByteCount};

pub(super) const HELP: &str = "\
A row is a reading of one link: its time (RFC 3339, seconds since 1970, or YYYY-MM-DD hh:mm:ss in UTC) and what it carried. The
limit is --limit, or each [[limit]] of the configuration that names --interface. Nothing is sent without --publish (the events)
or --publish-samples (each row, which needs no limit); what is sent has the times of its rows, and the name --agent.

Samples go to topics.samples, which `highwater-agent topics --samples` makes, and `highwater-consumer run --samples` stores them.
They have an epoch of their own, the complement of the events', and are counted there from 1 without holes: so a row has the same
number whenever it is sent in one epoch, and the table has it once.

Limits are upper ones. Try some: a breach that should be found has to lie above what is usual, for --for as long as it takes to
tell it from a peak. What is unusual only because there is less of it than on other days, no limit finds.

A row is a line. A bad one is named, passed over and counted. An interrupted run ends with --epoch and --from-line: the same
command with these, on the same file, goes on, and doubles nothing (the rows before are judged again, not sent). The epoch of the
summary with --from-line 2 sends all of it once more, to fill a topic that was lost, say: the tables have it once.

Exit code: 0 if it went through, 1 if a row stopped it (--strict) or not all was delivered, 69 if Kafka could not be asked.

Examples:
  highwater-agent replay traffic.csv --bytes-per 5min --limit '5 MB/5min'
  highwater-agent replay traffic.csv --bytes-per 5min --limit '11.8 MB/5min' --for 1h --breaches
  highwater-agent replay counters.csv --time when --rx in_octets --tx out_octets --counters --limit '80 Mbit/s'
  zcat old.csv.gz | highwater-agent replay - --rates --rx bps --limit '1 Gbit/s' --publish -t trial.events
  highwater-agent topics --samples && highwater-agent replay traffic.csv --bytes-per 5min --publish-samples";

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("sending").multiple(true).args(["publish", "publish_samples"]))]
pub(super) struct Replay {
    #[command(flatten)]
    common: Common,
    /// The file; - is standard input
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// The column of times
    #[arg(long, default_value = "timestamp", value_name = "COLUMN")]
    time: String,
    /// The column of what was received
    #[arg(long, default_value = "value", value_name = "COLUMN")]
    rx: String,
    /// The column of what was sent
    #[arg(long, value_name = "COLUMN")]
    tx: Option<String>,
    /// Values are bytes in so much time, and a row comes so often [default: bytes since the row before]
    #[arg(long, value_name = "TIME", value_parser = positive_duration, group = "meaning")]
    bytes_per: Option<Duration>,
    /// Values are counters of bytes
    #[arg(long, group = "meaning")]
    counters: bool,
    /// Values are bits a second
    #[arg(long, group = "meaning")]
    rates: bool,
    /// A row comes so often; after more than 3.5 times that, nobody knows what was carried, and no breach is judged
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    interval: Option<Duration>,
    /// What is too much: '80 Mbit/s', '5 MB/5min'
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<BitRate>,
    /// Where a breach ends [default: 90 % of --limit]
    #[arg(long, value_name = "RATE", value_parser = rate, requires = "limit")]
    clear_at: Option<BitRate>,
    /// How long it has to be too much
    #[arg(long = "for", default_value = "0s", value_name = "TIME", value_parser = crate::cli::time)]
    hold: Duration,
    /// The link's name
    #[arg(long, default_value = "replay", value_name = "NAME")]
    interface: String,
    /// The agent's name in events [default: the file's name without its ending]
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
    /// Go on in this epoch: what an interrupted run ended with
    #[arg(long, value_name = "HEX", requires = "sending", requires = "from_line")]
    epoch: Option<Epoch>,
    /// Go on with this line: likewise
    #[arg(long, value_name = "N", requires = "epoch")]
    from_line: Option<u64>,
    /// At the end, wait until this consumer group has stored all that was sent
    #[arg(long, value_name = "GROUP", requires = "sending")]
    wait_stored: Option<String>,
}

const COLUMNS: &[&str] = &[
    "rows",
    "bad_rows",
    "breaches",
    "worst_bps",
    "worst_at",
    "over_limit_seconds",
    "events",
    "delivered",
    "failed",
    "last_offsets",
    "epoch",
    // Where samples are sent.
    "samples",
    "samples_delivered",
    "samples_failed",
    "samples_last_offsets",
];

/// So many of them are always there.
const ALWAYS: usize = 11;

/// Where nobody says how often a row comes, no pause is too long.
const ANY_INTERVAL: Duration = Duration::from_secs(365 * 86_400);

/// How it ended.
enum End {
    Through,
    Stopped,
    BadRow(CounterError),
}

impl Replay {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.common.start_log();
        let settings = self.common.settings(Absent::MeansDefaults).map_err(Failure::config)?;
        let limits = self.limits(&settings)?;
        let (events, samples) = self.publishers(&settings)?;
        let agent = self.agent_name();
        let epoch = self.epoch.unwrap_or_else(|| Epoch(fastrand::u64(..)));
        let mut lanes = Lanes::open(&agent, epoch, events, samples, self.from_line)?;
        let mut rows = Rows::open(&self.file, &self.columns(), &self.interface)?;
        let interval = self.interval.or(self.bytes_per).unwrap_or(ANY_INTERVAL);
        // The same rows make the same breaches, ids and all, when a run goes on.
        let mut detector = Detector::new(limits, interval, epoch.0);
        let bar = outlet::progress(None, "rows");
        let mut tally = Tally::new(self.breaches.then_some(self.format));
        let end = self.replay(&mut rows, &agent, &mut detector, &mut tally, &mut lanes, &bar)?;
        let delivered = lanes.finish()?;
        bar.finish_and_clear();
        let over_limit_ms = tally.over_limit_ms();
        output::finished(tally.end())?;
        self.summary(&tally, over_limit_ms, &delivered, epoch)?;
        let go_on = format!("--epoch {epoch} --from-line {}", delivered.next_line);
        match end {
            End::Through if rows.grown() > 0 => {
                let with =
                    if self.sends() { format!("; what came meanwhile goes on with {go_on}") } else { String::new() };
                self.common.note(&format!("the file has grown by {} bytes since it was opened{with}", rows.grown()));
            }
            End::Through => {}
            End::Stopped if self.sends() => return Err(Failure::failed(format!("interrupted; go on with {go_on}"))),
            End::Stopped => return Err(Failure::failed("interrupted")),
            End::BadRow(error) if self.sends() => {
                return Err(Failure::failed(format!("{error}; when it is mended, go on with {go_on}")));
            }
            End::BadRow(error) => return Err(Failure::failed(error)),
        }
        outlet::judged(&delivered.events)?;
        if let Some(samples) = &delivered.samples {
            outlet::judged_as(samples, "sample")?;
        }
        if let Some(group) = &self.wait_stored {
            let topics = [
                (&settings.publisher.topic, Some(&delivered.events)),
                (&settings.topics.samples, delivered.samples.as_ref()),
            ];
            for (topic, delivery) in topics {
                let Some(delivery) = delivery else { continue };
                outlet::wait_stored(&settings, group, topic, &delivery.last_offsets)?;
            }
            self.common.note(&format!("{group} has stored all of them"));
        }
        Ok(())
    }

    /// For events and for samples, where they are sent; to topics that are there.
    fn publishers(
        &self,
        settings: &Settings,
    ) -> Result<(Option<publisher::Settings>, Option<publisher::Settings>), Failure> {
        let to = |topic: &str| {
            outlet::topic_is_there(settings, topic)?;
            Ok::<_, Failure>(publisher::Settings { topic: topic.to_owned(), ..settings.publisher.clone() })
        };
        let events = self.publish.then(|| to(&settings.publisher.topic));
        let samples = self.publish_samples.then(|| to(&settings.topics.samples));
        Ok((events.transpose()?, samples.transpose()?))
    }

    fn sends(&self) -> bool {
        self.publish || self.publish_samples
    }

    fn replay(
        &self,
        rows: &mut Rows,
        agent: &str,
        detector: &mut Detector,
        tally: &mut Tally,
        lanes: &mut Lanes,
        bar: &ProgressBar,
    ) -> Result<End, Failure> {
        let mut detections = Detections::default();
        loop {
            let next = rows.next();
            if lanes.stopped() {
                // Whoever wrote the rows may have been told to end too, in the middle of this one.
                return Ok(End::Stopped);
            }
            let reading = match next {
                Ok(reading) => reading,
                Err(error) if error.is_end() => return Ok(End::Through),
                Err(error @ CounterError::Row { .. }) if self.strict => return Ok(End::BadRow(error)),
                Err(error @ CounterError::Row { .. }) => {
                    tally.bad_rows += 1;
                    lanes.pass(rows.line());
                    log::warn!("{error}; passed over");
                    continue;
                }
                Err(error) => return Err(Failure::failed(error)),
            };
            let now = rows::stamp(agent, &reading);
            detector.observe(&reading, &now, &mut detections);
            if let Some(notice) = detections.notices.first() {
                log::warn!("{notice}");
            }
            output::finished(tally.row(&detections.bodies))?;
            bar.inc(1);
            let drafts = detections.bodies.drain(..).map(|body| Draft { stamp: now.clone(), body }).collect();
            let sample = lanes.wants_samples().then(|| {
                let body = Body::Sample(sample::sample(&self.interface, &rows.carried()));
                Draft { stamp: now.clone(), body }
            });
            lanes.add(rows.line(), &now, drafts, sample)?;
        }
    }

    fn summary(&self, tally: &Tally, over_limit_ms: u64, delivered: &Delivered, epoch: Epoch) -> Result<(), Failure> {
        let Delivered { events: delivery, samples, .. } = delivered;
        let worst = tally.worst.as_ref();
        let sent = |value: Value| if self.publish { value } else { Value::Nothing };
        let mut values: Vec<Value> = vec![
            tally.rows.into(),
            tally.bad_rows.into(),
            tally.breaches.into(),
            worst.map(|breach| BitRate::from_bps(breach.peak_bps)).into(),
            worst.map(|breach| breach.raised_at).into(),
            (over_limit_ms / 1_000).into(),
            delivery.events.into(),
            sent(delivery.delivered.into()),
            sent(delivery.failed.into()),
            sent(outlet::offsets(delivery)),
            if self.sends() { epoch.to_string().into() } else { Value::Nothing },
        ];
        if let Some(samples) = samples {
            values.extend([samples.events.into(), samples.delivered.into(), samples.failed.into()]);
            values.push(outlet::offsets(samples));
        }
        if self.breaches {
            let samples = samples.as_ref().map(|samples| {
                format!("; {} samples, {} delivered, {} failed", samples.events, samples.delivered, samples.failed)
            });
            self.common.note(&format!(
                "{} rows, {} of them bad, {} breaches, {} s over the limit; {} events, {} delivered, {} failed{}",
                tally.rows + tally.bad_rows,
                tally.bad_rows,
                tally.breaches,
                over_limit_ms / 1_000,
                delivery.events,
                delivery.delivered,
                delivery.failed,
                samples.unwrap_or_default()
            ));
            return Ok(());
        }
        let columns = if samples.is_some() { COLUMNS } else { &COLUMNS[..ALWAYS] };
        outlet::print_record(self.format, columns, values)
    }

    fn columns(&self) -> Columns {
        let meaning = match self.bytes_per {
            Some(interval) => Meaning::BytesPer(interval),
            None if self.counters => Meaning::Counter,
            None if self.rates => Meaning::BitsPerSecond,
            None => Meaning::Bytes,
        };
        Columns { timestamp: self.time.clone(), rx: self.rx.clone(), tx: self.tx.clone(), meaning }
    }

    fn limits(&self, settings: &Settings) -> Result<Vec<Limit>, Failure> {
        let Some(raise_at) = self.limit else {
            if settings.limits.is_empty() && (self.publish || !self.publish_samples) {
                return Err(Failure::new(
                    Status::Usage,
                    "there is no limit to hold the rows against; write --limit '80 Mbit/s', or '5 MB/5min'",
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
        let directions = if self.tx.is_some() { vec![Direction::Rx, Direction::Tx] } else { vec![Direction::Rx] };
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

    fn agent_name(&self) -> String {
        self.agent.clone().unwrap_or_else(|| match self.file.file_stem() {
            Some(stem) if stem != "-" => stem.to_string_lossy().into_owned(),
            _ => "replay".to_owned(),
        })
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match crate::cli::time(text)? {
        Duration::ZERO => Err("is no time at all".to_owned()),
        duration => Ok(duration),
    }
}

/// `80 Mbit/s`, or a size over a time: `5 MB/5min`.
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
    Ok(crate::agent::rate::bit_rate(bytes.bytes(), time))
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
