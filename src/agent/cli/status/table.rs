//! A report for people: one fact a line, in 80 columns, and tables of links and open breaches.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use chrono::TimeDelta;
use unicode_width::UnicodeWidthStr as _;

use crate::agent::status::{AgentState, LinkStatus, OpenBreach, StatusReport};
use crate::cli::output::{OutputFormat, Rows};
use crate::message::ALL_INTERFACES;
use crate::process::clock::rfc3339_seconds;
use crate::text::escape_control;
use crate::units::{BitRate, ByteCount, counted, lasting};

const NAME_WIDTH: usize = 15;
const WIDTH: usize = 80;

const LINK_COLUMNS: &[&str] = &["link", "state", "speed", "rx", "tx", "limit", "unjudged"];
const BREACH_COLUMNS: &[&str] = &["severity", "link", "limit", "over", "now", "peak", "for"];
const LEFT_COLUMNS: &[&str] = &["severity", "link", "limit", "over", "last", "peak", "for"];

pub(super) fn print(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    for (name, text) in lines(report) {
        let style = match (name, report.healthy) {
            ("state", true) => AnsiColor::Green.on_default(),
            ("state", false) | ("problem", _) => AnsiColor::Red.on_default(),
            _ => Style::new(),
        };
        for (nth, line) in wrapped(&text).into_iter().enumerate() {
            let name = if nth == 0 { name } else { "" };
            writeln!(out, "{name:NAME_WIDTH$}{style}{line}{style:#}")?;
        }
    }
    if !report.links.is_empty() {
        writeln!(out)?;
        print_links(report, out)?;
    }
    if report.breaches.is_empty() {
        return out.flush();
    }
    writeln!(out)?;
    let columns = if report.running() { BREACH_COLUMNS } else { LEFT_COLUMNS };
    let mut rows = Rows::new(OutputFormat::Table, columns, out);
    for breach in &report.breaches {
        rows.push([
            breach.severity.as_str().into(),
            link(breach).into(),
            breach.limit_name.as_str().into(),
            BitRate::from_bps(breach.limit_bps).into(),
            BitRate::from_bps(breach.rate_bps).into(),
            BitRate::from_bps(breach.peak_bps).into(),
            length(breach.observed_at - breach.raised_at).into(),
        ])?;
    }
    rows.end()
}

fn print_links(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    let mut rows = Rows::new(OutputFormat::Table, LINK_COLUMNS, out);
    for link in &report.links {
        let rate = |bps: Option<u64>| bps.map_or("-".to_owned(), |bps| BitRate::from_bps(bps).to_string());
        rows.push([
            link.interface.as_str().into(),
            (if link.up { "up" } else { "down" }).into(),
            speed(link).into(),
            rate(link.rx_bps).into(),
            rate(link.tx_bps).into(),
            limit(link).into(),
            unjudged(link).into(),
        ])?;
    }
    rows.end()
}

fn speed(link: &LinkStatus) -> String {
    let Some(bps) = link.rx_speed_bps.max(link.tx_speed_bps) else { return "unknown".to_owned() };
    format!("{}{}", BitRate::from_bps(bps), if link.speed_doubted { "?" } else { "" })
}

fn limit(link: &LinkStatus) -> String {
    match link.limits.iter().filter_map(|limit| limit.raise_at_bps).min() {
        Some(bps) => BitRate::from_bps(bps).to_string(),
        None if link.limits.is_empty() => "none".to_owned(),
        None => "waits".to_owned(),
    }
}

fn unjudged(link: &LinkStatus) -> String {
    let counts = link.unjudged.iter().filter(|(word, _)| *word != "first");
    let counts: Vec<_> = counts.map(|(word, count)| format!("{count} {word}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn lines(report: &StatusReport) -> Vec<(&'static str, String)> {
    let mut lines = vec![("state", state(report))];
    lines.extend(
        report
            .troubles
            .iter()
            .map(|problem| ("problem", format!("for {}: {}", length(report.asked_at - problem.since), problem.what))),
    );
    let agent = report.agent.iter().map(|agent| match &report.version {
        Some(version) => format!("{agent}, version {version}"),
        None => agent.clone(),
    });
    lines.extend(agent.map(|agent| ("agent", agent)));
    lines.push(("journal", journal(report)));
    if let (Some(epoch), Some(next)) = (&report.epoch, report.next_seq) {
        lines.push(("next event", format!("{next} of epoch {epoch}")));
    }
    lines.push(("pending", pending(report)));
    if let (Some(topic), Some(brokers)) = (&report.topic, &report.brokers) {
        lines.push(("sends to", format!("{topic} at {}", brokers.replace(',', ", "))));
    }
    if report.running() {
        lines.push(("last flush", flush(report)));
        let count = |count: Option<u64>| count.unwrap_or_default();
        let (delivered, rejected, retries) = (count(report.delivered), count(report.rejected), count(report.retries));
        lines.push((
            "delivered",
            format!("{delivered} since the start; {rejected} rejected, {}", counted(retries, "retry")),
        ));
        lines.extend(lost(report).map(|lost| ("lost", lost)));
        lines.push(("acknowledged", offsets(report.last_offsets.as_ref())));
        lines.push(("errors", errors(report)));
        lines.push(("last tick", tick(report)));
    }
    lines.push(("open breaches", breaches(report)));
    lines
}

fn state(report: &StatusReport) -> String {
    let since = |report: &StatusReport| {
        let started = report.started_at.unwrap_or(report.asked_at);
        let pid = report.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        format!("since {}, {}{pid}", rfc3339_seconds(started), length(report.asked_at - started))
    };
    match report.state {
        AgentState::Running => format!("running {}", since(report)),
        AgentState::Ending => format!("stopping; ran {}", since(report)),
        AgentState::NotRunning => "not running; this is what its journal holds".to_owned(),
    }
}

fn journal(report: &StatusReport) -> String {
    let place = report.state_dir.display();
    let kept = match report.kept_on.as_deref() {
        Some("disk") => ", on disk",
        Some(_) => ", cannot be written: events are kept in memory only",
        None => "",
    };
    format!("{place}{kept}")
}

fn pending(report: &StatusReport) -> String {
    let bytes = ByteCount::from_bytes(report.pending_bytes);
    match (report.pending, report.oldest_at) {
        (0, _) => "nothing".to_owned(),
        (events, Some(oldest)) => {
            let age = length(report.asked_at - oldest);
            format!("{}, {bytes}; the oldest is {age} old ({})", counted(events, "event"), rfc3339_seconds(oldest))
        }
        (events, None) => format!("{}, {bytes}", counted(events, "event")),
    }
}

fn lost(report: &StatusReport) -> Option<String> {
    let lost = report.lost.filter(|lost| *lost > 0)?;
    let reasons = [
        (report.lost_evicted, "evicted"),
        (report.lost_expired, "expired"),
        (report.lost_rejected, "rejected"),
        (report.lost_damaged, "damaged"),
    ];
    let reasons = reasons.into_iter().filter_map(|(count, reason)| Some((count.filter(|count| *count > 0)?, reason)));
    let reasons: Vec<String> = reasons.map(|(count, reason)| format!("{count} {reason}")).collect();
    Some(format!("{} since the start: {}", counted(lost, "event"), reasons.join(", ")))
}

fn flush(report: &StatusReport) -> String {
    let last = match report.last_flush_at {
        Some(last) => format!("{}, {} ago", rfc3339_seconds(last), length(report.asked_at - last)),
        None => "none yet".to_owned(),
    };
    let next = match (report.flushing_since, report.next_flush_at) {
        (Some(since), _) => format!("one running for {}", length(report.asked_at - since)),
        (None, Some(next)) => format!("next in {}", length(next - report.asked_at)),
        (None, None) => "each event is sent at once".to_owned(),
    };
    format!("{last}; {next}")
}

fn offsets(offsets: Option<&BTreeMap<i32, i64>>) -> String {
    let offsets = offsets.into_iter().flatten();
    let offsets: Vec<String> = offsets.map(|(partition, offset)| format!("{partition} at {offset}")).collect();
    if offsets.is_empty() { "nothing yet".to_owned() } else { format!("partition {}", offsets.join(", ")) }
}

fn errors(report: &StatusReport) -> String {
    match (report.errors, &report.last_error, report.last_error_at) {
        (Some(errors), Some(last), Some(at)) if errors > 0 => {
            format!("{errors} since the start; the last {} ago: {last}", length(report.asked_at - at))
        }
        _ => "none since the start".to_owned(),
    }
}

fn tick(report: &StatusReport) -> String {
    let ago = match report.last_tick_at {
        Some(last) => format!("{:.1} s ago", (report.asked_at - last).as_seconds_f64()),
        None => "none yet".to_owned(),
    };
    let every = Duration::from_millis(report.interval_ms.unwrap_or_default());
    let (ticks, skipped) = (report.ticks.unwrap_or_default(), report.skipped_ticks.unwrap_or_default());
    format!(
        "{ago}, by {} every {}; {ticks} since the start, {skipped} skipped",
        report.source.as_deref().unwrap_or("-"),
        lasting(every)
    )
}

fn breaches(report: &StatusReport) -> String {
    let limits = report.limits.map(|limits| format!(", of {}", counted(limits as u64, "limit"))).unwrap_or_default();
    let (open, shown) = (report.open_breaches, report.breaches.len() as u64);
    match open {
        0 => format!("none{limits}"),
        _ if open > shown => format!("{open}{limits}; the worst {shown} are"),
        _ => format!("{open}{limits}"),
    }
}

fn link(breach: &OpenBreach) -> String {
    let interface = if breach.interface == ALL_INTERFACES { "host" } else { &*breach.interface };
    format!("{interface} {}", breach.direction)
}

fn length(time: TimeDelta) -> String {
    let seconds = ((time.num_milliseconds() + 500) / 1_000).max(0).cast_unsigned();
    lasting(Duration::from_secs(seconds))
}

fn wrapped(text: &str) -> Vec<String> {
    let text = escape_control(text);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the beginning");
        if !line.is_empty() && line.width() + 1 + word.width() > WIDTH - NAME_WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::agent::detector::rate::{Traffic, Verdict};
    use crate::agent::status::{LinkLimit, OngoingProblem};
    use crate::message::{Direction, Severity};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_176_000, 0).unwrap()
    }

    fn printed(report: &StatusReport) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        print(report, &mut out).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    fn running() -> StatusReport {
        let ago = |seconds| Some(now() - TimeDelta::seconds(seconds));
        StatusReport {
            state: AgentState::Running,
            asked_at: now(),
            agent: Some("gw-042".into()),
            version: Some("0.1.0".into()),
            pid: Some(812),
            started_at: ago(7_384),
            state_dir: "/var/lib/highwater".into(),
            kept_on: Some("disk".into()),
            epoch: Some("5f0c6b1a9d3e2f47".into()),
            next_seq: Some(35),
            pending: 12,
            pending_bytes: 4_200,
            oldest_at: ago(72),
            source: Some("netlink".into()),
            limits: Some(2),
            interval_ms: Some(1_000),
            last_tick_at: ago(0),
            ticks: Some(7_384),
            skipped_ticks: Some(0),
            topic: Some("highwater.events".into()),
            brokers: Some("kafka-1.example:9092,kafka-2.example:9092,kafka-3.example:9092".into()),
            last_flush_at: ago(90),
            flushing_since: ago(70),
            delivered: Some(22),
            rejected: Some(0),
            retries: Some(4),
            last_offsets: Some(BTreeMap::from([(0, 1_022), (3, 17)])),
            errors: Some(1),
            last_error_at: ago(65),
            last_error: Some("cannot reach Kafka: kafka-1:9092/bootstrap: Connection refused".into()),
            troubles: vec![OngoingProblem {
                since: now() - TimeDelta::seconds(65),
                what: "cannot reach Kafka: a\nb".into(),
            }],
            open_breaches: 1,
            breaches: vec![OpenBreach {
                breach_id: "fc701383db4a6738".into(),
                severity: Severity::Warning,
                interface: "eth0".into(),
                direction: Direction::Rx,
                limit_name: "wan-down".into(),
                limit_bps: 80_000_000,
                rate_bps: 94_900_000,
                peak_bps: 97_900_000,
                mean_bps: 90_000_000,
                excess_bytes: 1,
                raised_at: now() - TimeDelta::seconds(124),
                observed_at: now(),
            }],
            watched_links: 2,
            links: vec![
                LinkStatus {
                    interface: "eth0".into(),
                    up: true,
                    rx_speed_bps: Some(1_000_000_000),
                    tx_speed_bps: Some(1_000_000_000),
                    rx_bps: Some(94_900_000),
                    tx_bps: Some(1_200_000),
                    unjudged: BTreeMap::from([("first".into(), 1), ("reset".into(), 2)]),
                    limits: vec![LinkLimit {
                        name: "wan-down".into(),
                        direction: Direction::Rx,
                        raise_at_bps: Some(80_000_000),
                    }],
                    ..LinkStatus::default()
                },
                LinkStatus {
                    interface: "ppp0".into(),
                    unjudged: BTreeMap::from([("first".into(), 1)]),
                    ..LinkStatus::default()
                },
            ],
            ..StatusReport::default()
        }
    }

    #[test]
    fn a_running_agent_fits_a_terminal() {
        let table = "\
state          running since 2026-11-20T09:56:56Z, 2 h 3 min, pid 812
problem        for 65 s: cannot reach Kafka: a\\nb
agent          gw-042, version 0.1.0
journal        /var/lib/highwater, on disk
next event     35 of epoch 5f0c6b1a9d3e2f47
pending        12 events, 4.1 KiB; the oldest is 72 s old (2026-11-20T11:58:48Z)
sends to       highwater.events at kafka-1.example:9092, kafka-2.example:9092,
               kafka-3.example:9092
last flush     2026-11-20T11:58:30Z, 90 s ago; one running for 70 s
delivered      22 since the start; 0 rejected, 4 retries
acknowledged   partition 0 at 1022, 3 at 17
errors         1 since the start; the last 65 s ago: cannot reach Kafka:
               kafka-1:9092/bootstrap: Connection refused
last tick      0.0 s ago, by netlink every 1 s; 7384 since the start, 0 skipped
open breaches  1, of 2 limits

link  state  speed       rx           tx          limit        unjudged
eth0  up     1.0 Gbit/s  94.9 Mbit/s  1.2 Mbit/s  80.0 Mbit/s  2 reset
ppp0  down   unknown     -            -           none         none

severity  link     limit            over          now         peak  for
warning   eth0 rx  wan-down  80.0 Mbit/s  94.9 Mbit/s  97.9 Mbit/s  2 min 4 s
";
        assert_eq!(printed(&running()), table);
        assert!(table.lines().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn the_help_says_what_each_column_and_verdict_is() {
        let lines: Vec<&str> = super::super::HELP.lines().map(str::trim_start).collect();
        let is_explained = |word: &str| lines.iter().any(|line| line.starts_with(&format!("{word} ")));
        for column in LINK_COLUMNS.iter().filter(|column| !["link", "rx", "tx"].contains(column)) {
            assert!(is_explained(column), "{column}");
        }
        assert!(is_explained("rx, tx"));
        let verdicts = std::iter::successors(Some(Verdict::First), following);
        for verdict in verdicts.filter(|verdict| *verdict != Verdict::First && verdict.judged().is_none()) {
            assert!(is_explained(verdict.as_str()), "{}", verdict.as_str());
        }
    }

    /// Leads through all verdicts: a new one needs an arm, and a line of the help.
    fn following(verdict: &Verdict) -> Option<Verdict> {
        Some(match verdict {
            Verdict::First => Verdict::Measured(Traffic::default()),
            Verdict::Measured(_) => Verdict::Learning,
            Verdict::Learning => Verdict::Waiting,
            Verdict::Waiting => Verdict::Reset,
            Verdict::Reset => Verdict::Jump,
            Verdict::Jump => Verdict::Suspect,
            Verdict::Suspect => Verdict::Gap(Traffic::default()),
            Verdict::Gap(_) => Verdict::Unread,
            Verdict::Unread => return None,
        })
    }

    #[test]
    fn the_documentation_explains_each_field_of_the_json() {
        let text = include_str!("../../../../docs/commands.md");
        let table = text.split("\n| field | |\n").nth(1).unwrap().split("\n\n").next().unwrap();
        // The first column has names alone; in the second, those of the objects in a list have their path.
        let row = |row: &str| {
            let cells: Vec<&str> = row.split('|').collect();
            let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
            [names(cells[1]), names(cells[2]).into_iter().filter(|name| name.contains("[].")).collect()].concat()
        };
        let mut explained: Vec<String> = table.lines().flat_map(row).collect();
        explained.sort();
        let mut fields = Vec::new();
        add_fields("", &serde_json::to_value(running()).unwrap(), &mut fields);
        fields.sort();
        fields.dedup();
        assert_eq!(explained, fields);
    }

    /// Adds the path of each field; those of `last_offsets` and `unjudged` are data.
    fn add_fields(prefix: &str, value: &serde_json::Value, fields: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            fields.push(format!("{prefix}{name}"));
            for item in value.as_array().into_iter().flatten() {
                add_fields(&format!("{prefix}{name}[]."), item, fields);
            }
        }
    }

    #[test]
    fn one_that_does_not_run_says_so_and_only_what_is_known() {
        let report = StatusReport { state_dir: "/srv/hw".into(), asked_at: now(), ..StatusReport::default() };
        let table = "\
state          not running; this is what its journal holds
journal        /srv/hw
pending        nothing
open breaches  none
";
        assert_eq!(printed(&report), table);
    }

    #[test]
    fn a_time_is_as_long_as_people_say_it() {
        for (seconds, said) in [(-5, "0 s"), (48, "48 s"), (7_384, "2 h 3 min"), (266_400, "3 d 2 h")] {
            assert_eq!(length(TimeDelta::seconds(seconds)), said);
        }
    }
}
