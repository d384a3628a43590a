//! Pictures as a whole: golden files in `golden`, and what holds for any data.

use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use resvg::usvg::{Options, Tree};

use super::svg::COLOURS;
use super::{
    Distribution, HistogramPlot, LimitLine, Page, RatePlot, RateSeries, Theme, TotalBar, TotalsPlot, WIDTH_MIN, png,
};
use crate::consumer::report::breaches::BreachSpan;
use crate::consumer::report::histogram::HistogramBins;
use crate::consumer::report::rates::RatePoint;

fn at(minute: i64) -> DateTime<Utc> {
    "2026-11-28T10:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minute)
}

fn window(minute: i64, mbps: [u64; 3], measured_s: u32) -> RatePoint {
    let [p50, p95, max] = mbps.map(|rate| (measured_s > 0).then_some(rate * 1_000_000));
    let (started_at, ended_at) = (at(minute), at(minute + 10));
    RatePoint {
        started_at,
        ended_at,
        measured_s,
        unmeasured_s: 600_u32.saturating_sub(measured_s),
        max,
        p95,
        p50,
        ..RatePoint::default()
    }
}

/// An hour of windows of ten minutes: the third did not arrive, a third of the fourth was not measured, the fifth had a breach.
fn series(direction: &str) -> RateSeries {
    let breach = BreachSpan {
        from: at(42),
        to: Some(at(47)),
        severity: "critical".to_owned(),
        limit_name: "wan-down".to_owned(),
        limit_bps: 80_000_000,
        peak_bps: 97_900_000,
    };
    RateSeries {
        agent: "gw-042".to_owned(),
        interface: "eth0".to_owned(),
        direction: direction.to_owned(),
        points: vec![
            window(0, [20, 30, 40], 600),
            window(10, [25, 35, 60], 600),
            window(30, [20, 30, 45], 400),
            window(40, [30, 85, 98], 600),
            window(50, [20, 25, 30], 600),
        ],
        limits: vec![LimitLine { bps: 80_000_000, name: "wan-down".to_owned() }],
        breaches: vec![breach],
    }
}

fn rates(series: &[RateSeries]) -> RatePlot<'_> {
    let step = "10 min".to_owned();
    RatePlot { series, from: at(0), to: at(60), zone: TimeZone::UTC, log: false, step, hidden: 0 }
}

fn distribution(interface: &str) -> Distribution {
    let histogram = HistogramBins {
        bins: vec![
            (0, 1_000, 60),
            (20_000_000, 20_100_000, 500),
            (30_000_000, 30_100_000, 39),
            (97_000_000, 97_500_000, 1),
        ],
        measured_s: 600,
        max: Some(97_400_000),
        p50: Some(20_100_000),
        p95: Some(30_100_000),
        p99: Some(30_100_000),
        ..HistogramBins::default()
    };
    let [agent, interface, direction] = ["gw-042", interface, "rx"].map(str::to_owned);
    Distribution { agent, interface, direction, histogram }
}

fn distributions(series: &[Distribution]) -> HistogramPlot<'_> {
    let span = "28 Nov 2026, 10:00–11:00 UTC".to_owned();
    HistogramPlot { series, span, log_rates: false, log_counts: false, hidden: 0 }
}

fn bar(at: u64) -> TotalBar {
    TotalBar {
        agent: "gw-042".to_owned(),
        interface: format!("eth{at}"),
        direction: "rx".to_owned(),
        limit_name: "wan-down".to_owned(),
        breaches: at + 1,
        excess_bytes: (20 << 20) / (at + 1),
    }
}

fn totals(count: u64) -> TotalsPlot {
    TotalsPlot::new((0..count).map(bar).collect(), "28 Nov 2026 (UTC)".to_owned())
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

const PAGE: Page = Page { columns: 60, rows: 24 };

/// Golden files that a picture differs from; what was drawn is left in the temporary directory, for a look and a copy.
fn different(pictures: &[(&str, String)]) -> Vec<String> {
    let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("src/consumer/plot/golden").join(name);
    let differs = |(name, drawn): &&(&str, String)| fs::read_to_string(golden(name)).unwrap_or_default() != *drawn;
    let keep = |(name, drawn): &(&str, String)| {
        let path = std::env::temp_dir().join(format!("highwater-{name}"));
        fs::write(&path, drawn).unwrap();
        path.display().to_string()
    };
    pictures.iter().filter(differs).map(keep).collect()
}

#[test]
fn pictures_are_as_before() {
    let (one, bins) = ([series("rx")], [distribution("eth0")]);
    let many: Vec<RateSeries> = (0..5).map(|at| RateSeries { interface: format!("eth{at}"), ..series("rx") }).collect();
    let pictures = [
        ("rate.svg", rates(&one).svg(Some(Theme::Light), 480)),
        ("rate.txt", plain(&rates(&one).text(PAGE))),
        ("rates.txt", plain(&rates(&many).text(PAGE))),
        ("histogram.txt", plain(&distributions(&bins).text(PAGE))),
        ("totals.txt", plain(&totals(3).text(PAGE))),
    ];
    assert_eq!(different(&pictures), [""; 0], "look at them, and copy what is better to src/consumer/plot/golden");
}

fn all(series: &[RateSeries], bins: &[Distribution], theme: Option<Theme>, width: u32) -> Vec<String> {
    let bars = totals(series.len() as u64);
    let (rates, distributions) = (rates(series), distributions(bins));
    let log = (
        RatePlot { log: true, ..rates.clone() },
        HistogramPlot { log_rates: true, log_counts: true, ..distributions.clone() },
    );
    vec![
        rates.svg(theme, width),
        log.0.svg(theme, width),
        distributions.svg(theme, width),
        log.1.svg(theme, width),
        bars.svg(theme, width),
    ]
}

#[test]
fn an_svg_has_a_name_and_words_and_nothing_that_runs_or_is_loaded() {
    let evil = RateSeries { interface: "<script>\"&\u{1b}[31m".to_owned(), ..series("rx") };
    let bins = Distribution { interface: evil.interface.clone(), ..distribution("") };
    for svg in all(&[evil], &[bins], None, 800) {
        assert!(Tree::from_str(&svg, &Options::default()).is_ok(), "{svg}");
        assert!(svg.contains("<title>") && svg.contains("<desc>") && svg.contains("role=\"img\""));
        let elsewhere = svg.replace("http://www.w3.org/2000/svg", "");
        for word in ["<script", "http", "@import", "href", "onload", "\u{1b}"] {
            assert!(!elsewhere.contains(word), "{word}: {svg}");
        }
    }
}

#[test]
fn a_theme_is_the_viewers_unless_one_is_asked_for() {
    let one = [series("rx")];
    let scheme = "prefers-color-scheme:dark";
    assert!(rates(&one).svg(None, 800).contains(scheme));
    for theme in [Theme::Light, Theme::Dark] {
        assert!(!rates(&one).svg(Some(theme), 800).contains(scheme));
    }
}

#[test]
fn a_hole_is_drawn_and_bridged_by_nothing() {
    let one = [series("rx")];
    let svg = rates(&one).svg(Some(Theme::Light), 800);
    let paths: Vec<&str> = svg.lines().filter(|line| line.starts_with("<path")).collect();
    assert_eq!(paths.len(), 5, "the ground, three bands and the edge");
    for path in &paths {
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }
    assert!(svg.contains("10:20:00 to 10:30:00: not measured"), "{svg}");
    assert!(svg.contains(", 3 min 20 s not measured"), "{svg}");
    let text = plain(&rates(&one).text(PAGE));
    assert!(text.lines().filter(|line| line.contains('╱')).count() > 10, "{text}");
}

#[test]
fn a_breach_names_its_limit_and_its_times() {
    let one = [series("rx")];
    let svg = rates(&one).svg(None, 800);
    let tip = "critical breach of wan-down (80 Mbit/s), 10:42:00 to 10:47:00, peak 97.9 Mbit/s";
    assert!(svg.contains(tip), "{svg}");
    assert!(svg.contains(">wan-down 80 Mbit/s</text>"), "{svg}");
}

#[test]
fn a_limit_far_above_the_traffic_does_not_flatten_it() {
    let mut one = [series("tx")];
    one[0].limits[0].bps = 10_000_000_000;
    let svg = rates(&one).svg(None, 800);
    assert!(svg.contains("↑ wan-down 10 Gbit/s") && svg.contains(">Mbit/s</text>"), "{svg}");
}

#[test]
fn a_picture_without_data_says_so() {
    let empty = RateSeries { points: Vec::new(), breaches: Vec::new(), ..series("rx") };
    for series in [vec![], vec![empty]] {
        assert!(rates(&series).svg(None, 800).contains("No rates in this span"));
        assert!(plain(&rates(&series).text(PAGE)).contains("No rates in this span"));
    }
    for series in [vec![], vec![Distribution::default()]] {
        assert!(distributions(&series).svg(None, 800).contains("No rates in this span"));
        assert!(plain(&distributions(&series).text(PAGE)).contains("No rates in this span"));
    }
    assert!(totals(0).svg(None, 800).contains("No bytes over a limit in this span"));
    assert!(plain(&totals(0).text(PAGE)).contains("No bytes over a limit in this span"));
}

#[test]
fn a_png_is_twice_as_large_and_its_text_is_drawn() {
    let svg = totals(3).svg(Some(Theme::Light), 400);
    let image = png(&svg).unwrap();
    assert_eq!(image[..8], *b"\x89PNG\r\n\x1a\n");
    assert_eq!(u32::from_be_bytes(image[16..20].try_into().unwrap()), 800);
    let text =
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"60\" height=\"20\"><text y=\"15\">Mbit/s</text></svg>";
    let blank = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"60\" height=\"20\"></svg>";
    assert!(png(text).unwrap().len() > png(blank).unwrap().len() + 100, "there is a font");
    let large = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"99999\" height=\"99999\"></svg>";
    assert!(png(large).unwrap_err().to_string().contains("too large"));
}

/// Texts have the contrast of WCAG 2 (4.5), and what is drawn that of graphics (3), on both grounds.
#[test]
fn colours_are_seen_on_their_ground() {
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }
    let (_, light, dark) = COLOURS[0];
    for (name, on_light, on_dark) in &COLOURS[1..] {
        let least = match *name {
            "ink" | "muted" => 4.5,
            "rx" | "tx" | "total" | "critical" => 3.0,
            // Lighter than that by intent; the bar above a warning stands beside a critical one.
            _ => continue,
        };
        for (colour, ground) in [(on_light, light), (on_dark, dark)] {
            let (a, b) = (luminance(colour), luminance(ground));
            let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
            assert!(contrast >= least, "{name} {colour} on {ground}: {contrast:.1}");
        }
    }
}

#[test]
fn long_names_keep_both_ends_on_a_narrow_terminal() {
    let interfaces = |count: usize| (0..count).map(|at| format!("enp129s0f0np0.{}", 100 + at));
    for columns in [WIDTH_MIN, 30, 60] {
        for count in [1, 2, 5] {
            let rates_of: Vec<RateSeries> =
                interfaces(count).map(|interface| RateSeries { interface, ..series("rx") }).collect();
            let of: Vec<Distribution> = interfaces(count).map(|interface| distribution(&interface)).collect();
            let bars = interfaces(count).map(|interface| TotalBar { interface, ..bar(1) });
            let bars = TotalsPlot::new(bars.collect(), String::new());
            let page = Page { columns, rows: 60 };
            for text in [rates(&rates_of).text(page), distributions(&of).text(page), bars.text(page)] {
                let text = plain(&text);
                assert!(text.lines().all(|line| super::screen::width(line) <= columns), "{text}");
                let words: Vec<&str> = text.split_whitespace().collect();
                for interface in interfaces(count) {
                    let end = &interface[interface.len() - 3..];
                    let is_shown = |word: &&str| word.starts_with("enp") && word.ends_with(end);
                    assert!(words.iter().any(is_shown), "{interface} at {columns}: {text}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_rates_are_drawn_within_the_terminal_and_as_an_svg_that_is_read(
        columns in WIDTH_MIN..200, rows in 1_usize..60, width in 320_u32..2_000, log: bool, from in 0_i64..200, length in 0_i64..100_000,
        links in prop::collection::vec(
            prop::collection::vec((-100_i64..300, any::<[u64; 3]>(), 0_u32..700), 0..30), 0..7),
    ) {
        let point = |(minute, rates, measured_s): &(i64, [u64; 3], u32)| {
            let mut sorted = *rates;
            sorted.sort_unstable();
            RatePoint { p50: Some(sorted[0]), p95: Some(sorted[1]), max: Some(sorted[2]), ..window(*minute, [0; 3], *measured_s) }
        };
        let named = |(at, points): (usize, &Vec<_>)| RateSeries {
            interface: format!("東京-{at}"), points: points.iter().map(point).collect(), ..series("total")
        };
        let series: Vec<RateSeries> = links.iter().enumerate().map(named).collect();
        let (from, to) = (at(from), at(from + length));
        let plot = RatePlot { from, to, log, ..rates(&series) };
        let text = plain(&plot.text(Page { columns, rows }));
        for line in text.lines() {
            prop_assert!(super::screen::width(line) <= columns, "{}", line);
        }
        prop_assert!(Tree::from_str(&plot.svg(None, width), &Options::default()).is_ok());
    }

    #[test]
    fn any_distributions_too(
        columns in WIDTH_MIN..200, rows in 1_usize..60, width in 320_u32..2_000, log_rates: bool, log_counts: bool,
        links in prop::collection::vec(
            prop::collection::vec((0_u64..10_000_000_000_000, 0_u64..100_000_000_000, any::<u64>(), 0_u32..60), 0..30), 0..7),
    ) {
        let bins = |bins: &Vec<(u64, u64, u64, u32)>| HistogramBins {
            bins: bins.iter().map(|(from, length, count, shift)| (*from, from + length, count >> shift.max(&20))).collect(),
            ..HistogramBins::default()
        };
        let named = |(at, link): (usize, _)| Distribution { histogram: bins(link), ..distribution(&format!("東京-{at}")) };
        let series: Vec<Distribution> = links.iter().enumerate().map(named).collect();
        let plot = HistogramPlot { log_rates, log_counts, ..distributions(&series) };
        let text = plain(&plot.text(Page { columns, rows }));
        for line in text.lines() {
            prop_assert!(super::screen::width(line) <= columns, "{}", line);
        }
        prop_assert!(Tree::from_str(&plot.svg(None, width), &Options::default()).is_ok());
    }
}
