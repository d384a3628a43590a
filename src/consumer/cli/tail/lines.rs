use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::cli::output::{OutputFormat, Rows, Value};
use crate::consumer::batch::Record;
use crate::message::{Body, Breach, Event, LinkRates, RateWindow, Reason, SEQ_MAX, Sample};
use crate::text::{escape_control, truncate};
use crate::units::{BitRate, ByteCount, counted, lasting};
use crate::wire;

pub(super) struct Lines {
    topic: String,
    sink: TailSink,
    time: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Observed,
    Kafka,
}

enum TailSink {
    Text(Box<dyn Write>),
    Raw(Box<dyn Write>),
    Rows(Box<Rows<Box<dyn Write>>>),
}

const COLUMNS: &[&str] = &[
    "kafka_topic",
    "kafka_partition",
    "kafka_offset",
    "kafka_timestamp",
    "observed_at",
    "key",
    "event",
    "error",
    "payload",
];

const KIND_CHARS: usize = "breach_updated".len();

const DIMMED: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const MAGENTA: Style = AnsiColor::Magenta.on_default().bold();
const PLAIN: Style = AnsiColor::Cyan.on_default();

impl Lines {
    pub(super) fn new(topic: &str, format: OutputFormat, raw: bool, time: Time, out: Box<dyn Write>) -> Self {
        let sink = match format {
            _ if raw => TailSink::Raw(out),
            OutputFormat::Table => TailSink::Text(out),
            OutputFormat::Json | OutputFormat::Csv => TailSink::Rows(Box::new(Rows::new(format, COLUMNS, out))),
        };
        Self { topic: topic.to_owned(), sink, time }
    }

    pub(super) fn record(&mut self, partition: i32, record: &Record) -> io::Result<()> {
        match &mut self.sink {
            TailSink::Raw(out) => {
                out.write_all(record.payload.as_deref().unwrap_or_default())?;
                out.write_all(b"\n")
            }
            TailSink::Text(out) => line(out, &self.topic, self.time, partition, record),
            TailSink::Rows(rows) => rows.push(row(&self.topic, partition, record)),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            TailSink::Raw(out) | TailSink::Text(out) => out.flush(),
            TailSink::Rows(rows) => rows.flush(),
        }
    }

    pub(super) fn end(self) -> io::Result<()> {
        match self.sink {
            TailSink::Raw(mut out) | TailSink::Text(mut out) => out.flush(),
            TailSink::Rows(rows) => rows.end(),
        }
    }
}

fn row(topic: &str, partition: i32, record: &Record) -> [Value; 9] {
    let (event, error, payload) = match &record.content {
        Ok(event) => {
            let text = record.raw.clone().map_or_else(|| wire::to_json(event), String::into_bytes);
            (serde_json::from_slice::<serde_json::Value>(&text).ok(), None, None)
        }
        Err(error) => (None, Some(error.as_str()), record.payload.clone()),
    };
    [
        topic.into(),
        partition.into(),
        record.offset.into(),
        record.timestamp().into(),
        observed_at(record).into(),
        record.key.clone().into(),
        event.into(),
        error.into(),
        payload.into(),
    ]
}

fn observed_at(record: &Record) -> Option<DateTime<Utc>> {
    record.content.as_ref().ok().map(|event| event.stamp.observed_at)
}

fn line(out: &mut dyn Write, topic: &str, time: Time, partition: i32, record: &Record) -> io::Result<()> {
    let time = match time {
        Time::Observed => observed_at(record).or(record.timestamp()),
        Time::Kafka => record.timestamp(),
    };
    let time = time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or("-".into());
    write!(out, "{DIMMED}{topic} {partition} {} {time}{DIMMED:#} {} ", record.offset, escape_control(&key))?;
    match &record.content {
        Ok(event) => {
            let (style, kind) = (style(&event.body), event.body.kind());
            let agent = if *key == *event.stamp.agent { String::new() } else { format!("{} ", event.stamp.agent) };
            let words = format!("{agent}{}: {}", event.id.seq, describe(event, record.raw.as_deref()));
            writeln!(out, "{style}{:<KIND_CHARS$}{style:#} {}", escape_control(kind), escape_control(&words))
        }
        Err(error) => {
            const EXCERPT_CHARS: usize = 80;
            let payload = record.payload.as_deref().map_or("(none)".into(), String::from_utf8_lossy);
            let (kind, error) = ("no event", escape_control(error));
            writeln!(
                out,
                "{MAGENTA}{kind:<KIND_CHARS$}{MAGENTA:#} {error}: {}",
                escape_control(&truncate(&payload, EXCERPT_CHARS))
            )
        }
    }
}

fn style(body: &Body) -> Style {
    match body {
        Body::BreachRaised(_) => RED,
        Body::BreachUpdated(_) => YELLOW,
        Body::BreachCleared(_) => GREEN,
        Body::Loss(_) => MAGENTA,
        _ => PLAIN,
    }
}

fn describe(event: &Event, raw: Option<&str>) -> String {
    match &event.body {
        Body::BreachRaised(breach) | Body::BreachUpdated(breach) | Body::BreachCleared(breach) => {
            of_breach(breach, &why(&event.body))
        }
        Body::Loss(loss) => {
            let range = |(from, to): &(u64, u64)| match *to {
                SEQ_MAX => format!("from {from} on"),
                to => format!("{from}-{to}"),
            };
            let ranges: Vec<String> = loss.ranges.iter().map(range).collect();
            let events = if loss.is_open_ended() { "events".to_owned() } else { counted(loss.count(), "event") };
            format!("{events} of epoch {}: {}{}", loss.epoch, ranges.join(" "), why(&event.body))
        }
        Body::LinkAdded(link) | Body::LinkRemoved(link) | Body::LinkChanged(link) => {
            let speed = link.speed_bps.map(|bps| format!(", {}", BitRate::from_bps(bps))).unwrap_or_default();
            format!("{}{speed}{}", link.interface, why(&event.body))
        }
        Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) | Body::Heartbeat(lifecycle) => {
            format!("version {}{}", lifecycle.version, why(&event.body))
        }
        Body::Sample(sample) => format!("{}{}", of_sample(sample), why(&event.body)),
        Body::Rates(window) => of_rates(window),
        Body::Unknown(_) => raw.unwrap_or_default().to_owned(),
    }
}

fn why(body: &Body) -> String {
    let words: Vec<&str> = body.reason().map(Reason::as_str).into_iter().chain(body.detail()).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(": ")) }
}

fn of_sample(sample: &Sample) -> String {
    let direction = |name: &str, bytes: Option<u64>, bps: Option<u64>| {
        let bytes = bytes.map(|bytes| ByteCount::from_bytes(bytes).to_string());
        match (bps.map(|bps| BitRate::from_bps(bps).to_string()), bytes) {
            (Some(rate), Some(bytes)) => format!(" {name} {rate} ({bytes})"),
            (Some(known), None) | (None, Some(known)) => format!(" {name} {known}"),
            (None, None) => String::new(),
        }
    };
    let Sample { rx_bytes, tx_bytes, rx_bps, tx_bps, .. } = *sample;
    let carried = direction("rx", rx_bytes, rx_bps) + &direction("tx", tx_bytes, tx_bps);
    let time = sample.duration_ms.map(|ms| format!(" in {}", lasting(Duration::from_millis(ms))));
    format!("{}{carried}{}", sample.interface, time.unwrap_or_default())
}

fn of_rates(window: &RateWindow) -> String {
    const SHOWN_MAX: usize = 6;
    let links = window.links.iter().take(SHOWN_MAX).map(|link| {
        let LinkRates { interface, direction, mean_bps, max_bps, .. } = link;
        match (mean_bps, max_bps) {
            (Some(mean), Some(max)) => {
                let (mean, max) = (BitRate::from_bps(*mean), BitRate::from_bps(*max));
                format!("{interface} {direction} {mean}, at most {max}")
            }
            _ => format!("{interface} {direction} not measured"),
        }
    });
    let mut links: Vec<String> = links.collect();
    if let more @ 1.. = window.links.len().saturating_sub(SHOWN_MAX) {
        links.push(format!("and {more} more"));
    }
    format!("{} in {}", links.join("; "), lasting(Duration::from_millis(window.duration_ms)))
}

fn of_breach(breach: &Breach, why: &str) -> String {
    let Breach { interface, direction, limit_name, severity, breach_id, .. } = breach;
    let (rate, mark) = (BitRate::from_bps(breach.rate_bps), BitRate::from_bps(breach.limit_bps));
    let mut says = format!("{severity} {interface} {direction} {rate}, limit {limit_name} {mark}");
    if breach.duration_ms >= 1_000 {
        let excess = ByteCount::from_bytes(breach.excess_bytes);
        let peak = BitRate::from_bps(breach.peak_bps);
        let lasted = lasting(Duration::from_millis(breach.duration_ms));
        says.push_str(&format!(", for {lasted}: peak {peak}, {excess} over"));
    }
    format!("{says}{why} [breach {breach_id}]")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(format: OutputFormat, time: Time, payload: &str) -> String {
        let written = Written::default();
        let plain: Box<dyn Write> = Box::new(written.clone());
        let out: Box<dyn Write> = Box::new(anstream::StripStream::new(plain));
        let mut lines = Lines::new("t", format, false, time, out);
        lines.record(3, &Record::new(7, Some(1_795_176_600_000), Some(b"gw"), Some(payload.as_bytes()))).unwrap();
        lines.end().unwrap();
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_begins_with_the_time_of_the_event_or_of_the_record() {
        let event = r#"{"schema":1,"agent":"gw","epoch":"0000000000005f0c","seq":1,"kind":"agent_started","boot_id":"b","monotonic_ms":1,
            "observed_at":"2026-11-20T12:00:00Z","version":"1"}"#;
        assert!(
            shown(OutputFormat::Table, Time::Observed, event)
                .starts_with("t 3 7 2026-11-20T12:00:00.000Z gw agent_started")
        );
        assert!(
            shown(OutputFormat::Table, Time::Kafka, event)
                .starts_with("t 3 7 2026-11-20T12:10:00.000Z gw agent_started")
        );
        // A message that is no event has no other time than Kafka's.
        assert!(
            shown(OutputFormat::Table, Time::Observed, "garbage")
                .starts_with("t 3 7 2026-11-20T12:10:00.000Z gw no event")
        );
        let json = shown(OutputFormat::Json, Time::Observed, event);
        let times = r#""kafka_timestamp":"2026-11-20T12:10:00.000000Z","observed_at":"2026-11-20T12:00:00.000000Z""#;
        assert!(json.contains(times), "{json}");
        assert!(shown(OutputFormat::Json, Time::Kafka, "garbage").contains(r#""observed_at":null"#));
    }
}
