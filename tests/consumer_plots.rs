//! Pictures as their users draw them, on both databases, and live from Kafka.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::consumer_commands::{CommandFixture, on_both};
use crate::consumer_reports::{store_windows, window, with_partitions};
use crate::support::consumer::command;
use crate::support::events::{produce_raw, utc};
use crate::support::process::{Spawned, output_of, signal, texts_of, until};
use crate::support::services::Kafka;

on_both!("consumer_plots":
    a_plot_has_what_is_stored_and_its_holes,
    a_plot_without_data_says_so,
);

const HOUR: [&str; 6] = ["--since", "2026-11-20T10:00:00Z", "--until", "2026-11-20T11:00:00Z", "--time-zone", "UTC"];

fn a_plot_has_what_is_stored_and_its_holes(fixture: CommandFixture) {
    with_partitions(&fixture);
    let mut second = window(utc("2026-11-20T10:05:00Z"), 90);
    second.measured_s = 0;
    store_windows(
        &fixture,
        &[window(utc("2026-11-20T10:00:00Z"), 40), second, window(utc("2026-11-20T10:10:00Z"), 60)],
    );

    let (code, text, err) = fixture.output(&[&["plot", "rate"], &HOUR[..]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(text.starts_with("gw eth0 rx\nBit rate, 20 Nov 2026, 10:00–11:00 UTC\n"), "{text}");
    assert!(text.contains('█') && text.contains('╱') && text.contains("not measured"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text}");
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest(&text) <= 80, "{text}");
    let (_, narrow, _) = fixture.output(&[&["plot", "rate", "--width", "20"], &HOUR[..]].concat());
    assert!(widest(&narrow) <= 20, "{narrow}");

    let directory = tempfile::tempdir().unwrap();
    for (name, begin) in [("rate.svg", &b"<svg "[..]), ("rate.png", b"\x89PNG")] {
        let file = directory.path().join(name);
        let (code, out, err) = fixture.output(&[&["plot", "rate", "-o", file.to_str().unwrap()], &HOUR[..]].concat());
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        assert!(err.contains("wrote ") && fs::read(&file).unwrap().starts_with(begin), "{err}");
    }
    let svg = fs::read_to_string(directory.path().join("rate.svg")).unwrap();
    assert!(svg.contains("10:05:00 to 10:10:00: not measured") && svg.contains("max 60.0 Mbit/s"), "{svg}");

    // An hour that is over is read as a whole, once it is derived: these windows are of a part of one.
    let part = ["--since", "2026-11-20T10:00:00Z", "--until", "2026-11-20T10:50:00Z"];
    let (code, text, _) = fixture.output(&[&["plot", "histogram"], &part[..]].concat());
    assert_eq!(code, 0);
    assert!(
        text.contains("Seconds at each bit rate") && text.contains("10 min measured, 5 min not measured"),
        "{text}"
    );
}

fn a_plot_without_data_says_so(fixture: CommandFixture) {
    with_partitions(&fixture);
    for (kind, words) in [
        ("rate", "No rates in this span"),
        ("histogram", "No rates in this span"),
        ("totals", "No bytes over a limit in this span"),
    ] {
        let (code, text, err) = fixture.output(&["plot", kind, "--since", "2026-11-20"]);
        assert_eq!(code, 0, "{kind}: {err}");
        assert!(text.contains(words), "{kind}: {text}");
    }
}

/// Returns a command that gives the consumer a terminal of its own, with so many columns, and writes its process id to a file.
fn in_terminal(columns: u32, id: &Path, arguments: &[&str]) -> Command {
    let inner = command();
    let program = inner.get_program().to_str().unwrap();
    let (id, arguments) = (id.display(), arguments.join(" "));
    let line = format!("echo $$ >{id}; stty cols {columns} rows 24; exec {program} {arguments}");
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    terminal.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    terminal
}

fn widest(text: &str) -> usize {
    let text = anstream::adapter::strip_str(text).to_string();
    text.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0)
}

#[test]
fn a_terminal_gets_colours_and_its_own_width() {
    let fixture = CommandFixture::sqlite();
    with_partitions(&fixture);
    store_windows(&fixture, &[window(utc("2026-11-20T10:00:00Z"), 40), window(utc("2026-11-20T10:05:00Z"), 60)]);
    let directory = tempfile::tempdir().unwrap();
    let id = directory.path().join("id");
    let plot = |columns: u32| {
        let mut terminal = in_terminal(columns, &id, &[&["plot", "rate"], &HOUR[..]].concat());
        terminal.env("HIGHWATER_STORE__URL", &fixture.url);
        terminal
    };
    let (code, text, err) = output_of(&mut plot(50));
    assert_eq!(code, 0, "{text} {err}");
    assert!(text.contains("\u{1b}[") && (45..=50).contains(&widest(&text)), "{text}");
    let (code, text, _) = output_of(plot(50).env("NO_COLOR", "1"));
    assert!(code == 0 && text.contains('█') && !text.contains('\u{1b}'), "{text}");
    let (code, text, _) = output_of(&mut plot(19));
    assert!(code == 1 && text.contains("the terminal has 19 columns"), "{code} {text}");
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let fixture = CommandFixture::sqlite();
    for (arguments, code, words) in [
        (&["plot", "rate", "-o", "rate.gif"][..], 2, "the name of a picture ends with .svg or .png"),
        (&["plot", "rate", "-o", "/nowhere/rate.svg"], 1, "cannot write /nowhere/rate.svg: No such file or directory"),
        (&["plot", "totals", "-o", "/nowhere/totals.png"], 1, "cannot write /nowhere/totals.png"),
        (&["plot", "rate", "--width", "19"], 1, "--width has 19 columns: a picture needs 20"),
        (&["plot", "rate", "--width", "100", "-o", "x.svg"], 1, "--width has 100 pixels: a file needs 320"),
        (&["plot", "rate", "--time-zone", "Mars/Base"], 2, "is not a time zone"),
        (&["plot", "rate", "--since", "2026-11-21", "--until", "2026-11-20"], 2, "is after --until"),
        (&["plot", "totals", "--since", "2026-11-21", "--until", "2026-11-20"], 2, "is after --until"),
        (&["plot", "histogram", "--live", "-o", "x.svg"], 2, "cannot be used with"),
    ] {
        let (found, _, err) = fixture.output(arguments);
        assert!(found == code && err.contains(words), "{arguments:?}: {found} {err}");
    }
}

fn published(version: u64, seconds: u64) -> Vec<u8> {
    let hour = json!({
        "agent": "gw", "interface": "eth0", "direction": "rx", "starts_at": "2026-11-20T10:00:00Z", "duration_s": 3600,
        "version": version, "windows": 1, "measured_s": seconds, "unmeasured_s": 0, "bytes": 5_000_000, "min_bps": 40_000_000,
        "mean_bps": 40_000_000, "max_bps": 40_192_000, "p50_bps": 40_192_000, "p95_bps": 40_192_000, "p99_bps": 40_192_000,
        "bins": [[40_000_000, 40_192_000, seconds]], "histogram": "",
    });
    hour.to_string().into_bytes()
}

fn keyed(payload: Vec<u8>) -> (String, Vec<u8>) {
    ("gw/eth0/rx/2026-11-20T10:00:00Z".to_owned(), payload)
}

/// A message redraws its link, what is no histogram is passed over, and SIGINT ends it in order.
#[test]
fn a_live_plot_follows_the_topic() {
    let Some(kafka) = Kafka::or_skip("consumer_plots::a_live_plot_follows_the_topic") else { return };
    let topic = kafka.topic("histograms", 1);
    let live = |more: &[&str]| {
        let mut live = command();
        live.args(["plot", "histogram", "--live", "--time-zone", "UTC", "-b", &kafka.address]).args(more);
        live.env("HIGHWATER_TOPICS__HISTOGRAMS", &topic);
        live
    };
    let first = Spawned::start(live(&["-n", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    produce_raw(
        &kafka.address,
        &topic,
        [b"no histogram".to_vec(), published(2, 300), published(1, 60)].map(keyed),
        None,
    );
    let (code, text, err) = texts_of(&first.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(text.contains("gw eth0 rx") && text.contains("20 Nov 2026, 10:00–11:00 UTC"), "{text}");
    assert!(text.contains("5 min measured"), "an older version changes nothing: {text}");

    // The hours of the last 60 minutes are there from the start.
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = Stdio::from(file.reopen().unwrap());
    let mut second = Spawned::start(live(&[]).stdout(out));
    let has = |words: &str| fs::read_to_string(file.path()).unwrap().contains(words).then_some(());
    until("the first picture", || has("5 min measured"));
    produce_raw(&kafka.address, &topic, [keyed(published(3, 600))], None);
    until("the second picture", || has("10 min measured"));
    signal(second.id(), "INT");
    assert_eq!(second.wait().unwrap().code(), Some(0));
}

/// A terminal that becomes narrower gets narrower pictures, and its own contents back at the end.
#[test]
fn a_live_plot_follows_the_size_of_its_terminal() {
    let Some(kafka) = Kafka::or_skip("consumer_plots::a_live_plot_follows_the_size_of_its_terminal") else { return };
    let topic = kafka.topic("histograms", 1);
    produce_raw(&kafka.address, &topic, [keyed(published(1, 300))], None);
    let directory = tempfile::tempdir().unwrap();
    let (id, out) = (directory.path().join("id"), directory.path().join("out"));
    let mut live = in_terminal(60, &id, &["plot", "histogram", "--live", "--time-zone", "UTC", "-b", &kafka.address]);
    live.env("HIGHWATER_TOPICS__HISTOGRAMS", &topic).stdout(fs::File::create(&out).unwrap());
    let mut running = Spawned::start(&mut live);
    let frames = || -> Vec<String> {
        let text = fs::read(&out).unwrap();
        String::from_utf8_lossy(&text).split("\u{1b}[H").skip(1).map(str::to_owned).collect()
    };
    let has_width = |min: usize, max: usize| {
        let last = frames().pop()?;
        (last.contains("gw eth0 rx") && (min..=max).contains(&widest(&last))).then_some(())
    };
    until("a picture as wide as the terminal", || has_width(50, 60));
    let id = fs::read_to_string(&id).unwrap();
    let terminal = fs::read_link(format!("/proc/{}/fd/0", id.trim())).unwrap();
    let stty = Command::new("stty").arg("-F").arg(&terminal).args(["cols", "40"]).status().unwrap();
    assert!(stty.success());
    until("a picture for 40 columns", || has_width(20, 40));
    signal(&id, "INT");
    assert_eq!(running.wait().unwrap().code(), Some(0));
    let text = String::from_utf8_lossy(&fs::read(&out).unwrap()).into_owned();
    let (before, after) = text.split_once("\u{1b}[?1049l").expect("it leaves the alternate screen");
    assert!(before.contains("\u{1b}[?1049h") && after.contains("5 min measured"), "{after}");
}
