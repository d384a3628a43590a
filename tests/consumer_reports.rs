//! Answers about events, breaches, rates and agents, as their users ask for them, on both databases.

use chrono::{DateTime, TimeDelta, Utc};
use highwater::message::histogram::RateHistogram;
use highwater::message::{Body, Reason, Severity};
use serde_json::{Value, json};

use crate::consumer_commands::{CommandFixture, fields, on_both};
use crate::support::events::{breach, event, loss, noon, started, updated, utc};

on_both!("consumer_reports":
    events_are_those_that_are_asked_for,
    breaches_are_those_that_are_asked_for,
    rates_are_by_window_hour_or_day,
    a_histogram_is_of_days_hours_and_windows,
    a_percentile_is_the_nearest_rank_of_five_minute_means,
    a_bundle_is_summed_five_minutes_by_five_minutes,
    what_is_not_measured_is_named,
    days_of_23_and_25_hours_are_as_long_as_they_are,
    agents_are_listed_with_their_state,
    nothing_stored_is_an_empty_answer,
);

fn events_are_those_that_are_asked_for(mut fixture: CommandFixture) {
    let mut raised = breach("b2", 9);
    (raised.severity, raised.limit_name, raised.interface) = (Severity::Critical, "lan".into(), "eth1".into());
    fixture.store_events(&[
        event("gw", 1, started()),
        updated("gw", 2),
        event("gw", 3, loss(7, 9)),
        event("gw-2", 4, Body::BreachRaised(raised)),
    ]);
    let (code, rows) = fixture.rows(&["events"]);
    assert_eq!(code, 0);
    assert_eq!(
        fields(&rows, &["agent", "seq", "kind", "interface"]),
        ["gw 1 agent_started null", "gw 2 breach_updated eth0", "gw 3 loss null", "gw-2 4 breach_raised eth1"]
    );
    assert_eq!((&rows[2]["ranges"], &rows[2]["clock_synced"]), (&json!([[7, 9]]), &json!(true)));
    assert_eq!(
        (&rows[1]["excess_bytes"], &rows[1]["observed_at"]),
        (&json!(250), &json!("2026-11-20T12:00:02.000000Z"))
    );
    for (arguments, seqs) in [
        (&["--agent", "gw"][..], &["1", "2", "3"][..]),
        (&["--agent", "gw-2", "--agent", "none"], &["4"]),
        (&["--interface", "eth0", "--interface", "eth1"], &["2", "4"]),
        (&["--direction", "rx"], &["2", "4"]),
        (&["--direction", "tx"], &[]),
        (&["--severity", "critical"], &["4"]),
        (&["--limit-name", "wan-down"], &["2"]),
        (&["--kind", "loss", "--kind", "agent_started"], &["1", "3"]),
        (&["--since", "2026-11-20T12:00:02Z"], &["2", "3", "4"]),
        (&["--since", "2026-11-20T12:00:02Z", "--until", "2026-11-20T12:00:04Z"], &["2", "3"]),
        (&["-n", "2"], &["3", "4"]),
        (&["-n", "1", "--agent", "gw"], &["3"]),
    ] {
        let (code, rows) = fixture.rows(&[&["events"], arguments].concat());
        assert_eq!(
            (code, fields(&rows, &["seq"])),
            (0, seqs.iter().map(|seq| (*seq).to_owned()).collect()),
            "{arguments:?}"
        );
    }
    let (_, table, _) = fixture.output(&["events", "-n", "1"]);
    assert!(table.contains("80.0 Mbit/s") && table.contains("critical") && !table.contains("kafka"), "{table}");
}

fn breaches_are_those_that_are_asked_for(mut fixture: CommandFixture) {
    let mut cleared = breach("b2", 9);
    (cleared.severity, cleared.limit_name) = (Severity::Critical, "lan".into());
    cleared.raised_at = noon() + TimeDelta::seconds(60);
    cleared.reason = Some(Reason::Below);
    let again = [2, 5].map(|seq| updated("gw", seq));
    fixture.store_events(&again);
    fixture.store_events(&[event("gw", 6, Body::BreachCleared(cleared))]);
    let (code, rows) = fixture.rows(&["breaches"]);
    assert_eq!(code, 0);
    let shown = fields(&rows, &["breach_id", "state", "severity", "excess_bytes", "reason", "cleared_at"]);
    assert_eq!(shown, ["b1 open warning 625 null null", "b2 cleared critical 1125 below 2026-11-20T12:00:06.000000Z"]);
    for (arguments, ids) in [
        (&["--state", "open"][..], &["b1"][..]),
        (&["--state", "unknown"], &[]),
        (&["--severity", "critical"], &["b2"]),
        (&["--limit-name", "wan-down"], &["b1"]),
        (&["--agent", "other"], &[]),
        (&["--interface", "eth0", "--direction", "rx", "-n", "1"], &["b2"]),
        (&["--since", "2026-11-20T12:00:30Z"], &["b2"]),
        (&["--until", "2026-11-20T12:00:30Z"], &["b1"]),
    ] {
        let (_, rows) = fixture.rows(&[&["breaches"], arguments].concat());
        assert_eq!(fields(&rows, &["breach_id"]), ids, "{arguments:?}");
    }
    // Its agent began anew without it.
    fixture.run("UPDATE agent_sequences SET first_stored_at = '2026-11-20T12:00:00.000000Z'");
    let mut anew = event("gw", 1, started());
    anew.id.epoch.0 = 7;
    fixture.store_events(&[anew]);
    let (_, rows) = fixture.rows(&["breaches", "--state", "unknown"]);
    assert_eq!(fields(&rows, &["breach_id"]), ["b1"]);
}

/// A window of rates, stored by SQL.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) agent: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) direction: &'a str,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) length_s: i64,
    pub(crate) measured_s: i64,
    pub(crate) mbps: u64,
    pub(crate) is_late: bool,
}

pub(crate) fn window(started_at: DateTime<Utc>, mbps: u64) -> Window<'static> {
    let (length_s, measured_s) = (300, 300);
    Window { agent: "gw", interface: "eth0", direction: "rx", started_at, length_s, measured_s, mbps, is_late: false }
}

/// Makes consecutive windows of five minutes, the first one from `started_at`.
fn windows(started_at: DateTime<Utc>, mbps: impl IntoIterator<Item = u64>) -> Vec<Window<'static>> {
    mbps.into_iter().enumerate().map(|(n, mbps)| window(started_at + TimeDelta::minutes(5 * n as i64), mbps)).collect()
}

fn text(time: DateTime<Utc>) -> String {
    time.format("'%Y-%m-%dT%H:%M:%S%.6fZ'").to_string()
}

fn blob(fixture: &CommandFixture, bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if fixture.url.starts_with("sqlite") { format!("X'{digits}'") } else { format!("'\\x{digits}'::bytea") }
}

fn seconds(counts: &[(u64, u64)]) -> RateHistogram {
    let mut histogram = RateHistogram::default();
    counts.iter().for_each(|(mbps, seconds)| histogram.record(mbps * 1_000_000, *seconds));
    histogram
}

/// Makes partitions for all times of these tests.
pub(crate) fn with_partitions(fixture: &CommandFixture) {
    if !fixture.url.starts_with("sqlite") {
        for table in ["rates", "window_histograms"] {
            fixture.run(&format!(
                "CREATE TABLE {table}_all PARTITION OF {table} FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2028-01-01 00:00+00')"
            ));
        }
    }
}

pub(crate) fn store_windows(fixture: &CommandFixture, windows: &[Window<'_>]) {
    let mut sql = "BEGIN;".to_owned();
    for (n, window) in windows.iter().enumerate() {
        let Window { agent, interface, direction, started_at, length_s, measured_s, mbps, is_late } = *window;
        let ended_at = started_at + TimeDelta::seconds(length_s);
        let (bytes, bps, has_seconds) =
            (mbps * 125_000 * measured_s as u64, mbps * 1_000_000, measured_s > 0 && !is_late);
        let rate = if measured_s > 0 { bps.to_string() } else { "NULL".to_owned() };
        let (key, rates) = (format!("'{agent}', 'e', {n} + 1, {}", text(ended_at)), vec![rate; 6].join(", "));
        let unmeasured_s = length_s - measured_s;
        sql += &format!(
            "INSERT INTO rates (agent, epoch, seq, observed_at, stored_at, kafka_topic, kafka_partition, kafka_offset, interface,
                                direction, started_at, window_ms, bytes, packets, errors, drops, measured_s, unmeasured_s, min_bps,
                                mean_bps, max_bps, p50_bps, p95_bps, p99_bps, speed_bps, over, has_histogram)
             VALUES ({key}, {}, 'rates', 0, {n}, '{interface}', '{direction}', {}, {length_s}000, {bytes}, 7, 0, NULL, {measured_s},
                     {unmeasured_s}, {rates}, 1000000000, '[{{\"limit_name\":\"wan\",\"limit_bps\":1,\"over_s\":2}}]', {});",
            text(ended_at),
            text(started_at),
            if fixture.url.starts_with("sqlite") { u8::from(has_seconds).to_string() } else { has_seconds.to_string() },
        );
        if has_seconds {
            let histogram = blob(fixture, &seconds(&[(mbps, measured_s as u64)]).encode());
            sql += &format!(
                "INSERT INTO window_histograms (agent, epoch, seq, observed_at, interface, direction, histogram)
                 VALUES ({key}, '{interface}', '{direction}', {histogram});"
            );
        }
    }
    fixture.run(&(sql + "COMMIT;"));
}

/// Stores an hour or day of eth0 of gw, received, with this histogram.
pub(crate) fn store_hour_or_day(fixture: &CommandFixture, span: &str, starts_at: DateTime<Utc>, counts: &[(u64, u64)]) {
    let bytes: u64 = counts.iter().map(|(mbps, seconds)| mbps * 125_000 * seconds).sum();
    let measured_s: u64 = counts.iter().map(|(_, seconds)| seconds).sum();
    let [min, max] = [counts.iter().map(|count| count.0).min(), counts.iter().map(|count| count.0).max()]
        .map(|mbps| mbps.unwrap() * 1_000_000);
    fixture.run(&format!(
        "INSERT INTO histograms (agent, interface, direction, span, starts_at, windows, late_windows, bytes, measured_s, unmeasured_s,
                                 min_bps, mean_bps, max_bps, p50_bps, p95_bps, p99_bps, histogram, version, updated_at)
         VALUES ('gw', 'eth0', 'rx', '{span}', {}, 12, 1, {bytes}, {measured_s}, 60, {min}, {}, {max}, {max}, {max}, {max}, {}, 1, {})",
        text(starts_at),
        bytes * 8 / measured_s,
        blob(fixture, &seconds(counts).encode()),
        text(starts_at),
    ));
}

fn rates_are_by_window_hour_or_day(fixture: CommandFixture) {
    with_partitions(&fixture);
    let mut all = windows(utc("2026-11-20T10:00:00Z"), [10, 20, 30]);
    all[1].measured_s = 0;
    store_windows(&fixture, &all);
    store_windows(
        &fixture,
        &[Window { interface: "eth1", direction: "tx", is_late: true, ..window(utc("2026-11-20T10:00:00Z"), 5) }],
    );
    store_hour_or_day(&fixture, "hour", utc("2026-11-20T10:00:00Z"), &[(10, 3_600)]);
    store_hour_or_day(&fixture, "day", utc("2026-11-20T00:00:00Z"), &[(10, 86_400)]);
    let (code, rows) = fixture.rows(&["rates", "--by", "window"]);
    assert_eq!(code, 0);
    let columns =
        ["started_at", "ended_at", "interface", "mean_bps", "measured_s", "unmeasured_s", "windows", "late_windows"];
    assert_eq!(
        fields(&rows, &columns),
        [
            "2026-11-20T10:00:00.000000Z 2026-11-20T10:05:00.000000Z eth0 10000000 300 0 1 0",
            "2026-11-20T10:00:00.000000Z 2026-11-20T10:05:00.000000Z eth1 5000000 300 0 1 1",
            "2026-11-20T10:05:00.000000Z 2026-11-20T10:10:00.000000Z eth0 null 0 300 1 0",
            "2026-11-20T10:10:00.000000Z 2026-11-20T10:15:00.000000Z eth0 30000000 300 0 1 0",
        ]
    );
    assert_eq!(rows[0]["over"][0]["limit_name"], "wan");
    assert_eq!((&rows[0]["bytes"], &rows[0]["drops"]), (&json!(375_000_000), &Value::Null));
    let shown =
        |arguments: &[&str]| fields(&fixture.rows(&[&["rates"], arguments].concat()).1, &["started_at", "ended_at"]);
    let hour = "2026-11-20T10:00:00.000000Z 2026-11-20T11:00:00.000000Z";
    let day = "2026-11-20T00:00:00.000000Z 2026-11-21T00:00:00.000000Z";
    assert_eq!((shown(&["--by", "hour"]), shown(&["--by", "day"])), (vec![hour.to_owned()], vec![day.to_owned()]));
    // Rates that begin in the time, in steps that suit its length.
    let (since, until) = ("2026-11-20T10:04:00Z", "2026-11-20T10:10:00Z");
    assert_eq!(
        shown(&["--since", since, "--until", until]),
        ["2026-11-20T10:05:00.000000Z 2026-11-20T10:10:00.000000Z"]
    );
    assert_eq!(shown(&["--since", "2026-11-20T10:00:00Z", "--until", "2026-11-21T10:00:00Z"]), [hour]);
    assert_eq!(shown(&["--since", "2026-11-20T00:00:00Z", "--until", "2026-12-21T00:00:00Z"]), [day]);
    assert_eq!(shown(&[]), [day]);
    assert_eq!(shown(&["--by", "window", "--direction", "tx"]).len(), 1);
    assert_eq!(shown(&["--by", "window", "-n", "1"]), ["2026-11-20T10:10:00.000000Z 2026-11-20T10:15:00.000000Z"]);
    assert_eq!(shown(&["--by", "hour", "--agent", "other"]), [""; 0]);
}

fn a_histogram_is_of_days_hours_and_windows(fixture: CommandFixture) {
    with_partitions(&fixture);
    store_windows(&fixture, &windows(utc("2026-11-20T22:30:00Z"), [7, 8, 9, 10, 11, 12]));
    store_hour_or_day(&fixture, "hour", utc("2026-11-20T22:00:00Z"), &[(1, 3_600)]);
    store_hour_or_day(&fixture, "hour", utc("2026-11-20T23:00:00Z"), &[(20, 3_500), (900, 100)]);
    store_hour_or_day(&fixture, "day", utc("2026-11-20T00:00:00Z"), &[(1, 86_400)]);
    store_hour_or_day(&fixture, "day", utc("2026-11-21T00:00:00Z"), &[(30, 86_400)]);
    store_hour_or_day(&fixture, "hour", utc("2026-11-22T00:00:00Z"), &[(40, 3_600)]);
    store_windows(&fixture, &windows(utc("2026-11-22T01:00:00Z"), [50]));
    let late = Window { is_late: true, ..window(utc("2026-11-22T01:05:00Z"), 60) };
    store_windows(&fixture, &[late, Window { interface: "eth1", ..window(utc("2026-11-22T01:00:00Z"), 70) }]);
    let bins = |arguments: &[&str]| {
        let (code, rows) = fixture.rows(&[&["histogram"], arguments].concat());
        assert_eq!(code, 0, "{arguments:?}");
        let bin = |row: &Value| (row["from_bps"].as_u64().unwrap() / 990_000, row["seconds"].as_u64().unwrap());
        rows.iter().map(bin).collect::<Vec<_>>()
    };
    let time = ["--since", "2026-11-20T22:50:00Z", "--until", "2026-11-22T01:10:00Z"];
    let eth0 = [&["--interface", "eth0"][..], &time].concat();
    let expected = [(11, 300), (12, 300), (20, 3_500), (30, 86_400), (40, 3_600), (50, 300), (900, 100)];
    let found = bins(&eth0);
    assert_eq!(
        found.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
        expected.map(|(_, count)| count),
        "{found:?}"
    );
    assert!(found.iter().zip(&expected).all(|(found, expected)| found.0.abs_diff(expected.0) <= 10), "{found:?}");
    let (_, _, err) = fixture.output(&[&["histogram"], &eth0[..]].concat());
    let measured = 300 * 4 + 3_600 * 2 + 86_400;
    for says in [
        format!("{measured} seconds measured"),
        "min 11.0 Mbit/s".to_owned(),
        "max 900.0 Mbit/s".to_owned(),
        "4 windows came too late".to_owned(),
    ] {
        assert!(err.contains(&says), "{says}: {err}");
    }
    // The fleet has the other link as well, as many seconds as the late window.
    assert_eq!(bins(&time).iter().map(|(_, count)| count).sum::<u64>(), measured);
    let (_, table, _) = fixture.output(&[&["histogram"], &time[..]].concat());
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(
        words.iter().any(|words| words[..] == ["20.0", "Mbit/s", "50.0", "Mbit/s", "93500", "98.629", "99.262"]),
        "{table}"
    );
    // Windows whose seconds are gone.
    fixture.run("DELETE FROM window_histograms WHERE observed_at < '2026-11-21T00:00:00.000000Z'");
    let (_, _, err) = fixture.output(&[&["histogram"], &eth0[..]].concat());
    assert!(err.contains("2 windows at an edge of this time are too old"), "{err}");
    let (code, out, err) = fixture.output(&["histogram", "--agent", "none"]);
    assert!(code == 0 && out.lines().count() == 1 && err.contains("no rates are stored"), "{out}{err}");
}

fn percentile(fixture: &CommandFixture, arguments: &[&str]) -> Vec<Value> {
    let (code, rows) = fixture.rows(&[&["percentile", "--agent", "gw", "--month", "2026-10"], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}");
    rows
}

fn a_percentile_is_the_nearest_rank_of_five_minute_means(fixture: CommandFixture) {
    with_partitions(&fixture);
    // 31 days of 288 means, 1 to 8,928 Mbit/s in an order of its own; the seconds of each day are one burst and rest.
    let begin = utc("2026-10-01T00:00:00Z");
    store_windows(&fixture, &windows(begin, (0..8_928).map(|n| n * 4_177 % 8_928 + 1)));
    store_windows(&fixture, &windows(utc("2026-09-30T23:55:00Z"), [9_000]));
    store_windows(&fixture, &windows(utc("2026-11-01T00:00:00Z"), [9_000]));
    for day in 0..31 {
        store_hour_or_day(&fixture, "day", begin + TimeDelta::days(day), &[(10, 80_000), (5_000, 6_400)]);
    }
    let rows = percentile(&fixture, &["--direction", "rx"]);
    // 0.95 × 8,928 = 8,481.6: the 8,482nd of them in rising order.
    let figures =
        ["direction", "percentile", "links", "means_bps", "expected", "present", "missing", "partial", "late"];
    assert_eq!(fields(&rows, &figures), ["rx 95.0 1 8482000000 8928 8928 0 0 0"]);
    let of_seconds = rows[0]["seconds_bps"].as_u64().unwrap();
    assert!((5_000_000_000..5_050_000_000).contains(&of_seconds), "a burst does not hide in a mean: {of_seconds}");
    for (percent, mbps) in [("50", 4_464_u64), ("99.9", 8_920), ("100", 8_928), ("0.001", 1)] {
        let rows = percentile(&fixture, &["--direction", "rx", "-p", percent]);
        assert_eq!(rows[0]["means_bps"], mbps * 1_000_000, "{percent}");
    }
    for percent in ["0", "100.1", "-1", "many", "95%"] {
        let (code, _, err) = fixture.output(&["percentile", "--agent", "gw", &format!("-p={percent}")]);
        assert!(code == 2 && err.contains("write 95 or 99.9"), "{percent}: {err}");
    }
}

fn a_bundle_is_summed_five_minutes_by_five_minutes(fixture: CommandFixture) {
    with_partitions(&fixture);
    let begin = utc("2026-10-01T00:00:00Z");
    // A link is high when the other is low: the sum never is.
    let (one, other) = (windows(begin, [10, 90].repeat(50)), windows(begin, [90, 10].repeat(50)));
    store_windows(&fixture, &one);
    store_windows(&fixture, &other.iter().map(|window| Window { interface: "eth1", ..*window }).collect::<Vec<_>>());
    store_windows(&fixture, &[Window { agent: "gw-2", ..window(begin, 1_000) }]);
    let rows = percentile(&fixture, &["--direction", "rx", "-p", "100"]);
    assert_eq!(fields(&rows, &["links", "means_bps", "seconds_bps", "partial"]), ["2 100000000 null 0"]);
    let rows = percentile(&fixture, &["--interface", "eth0", "--direction", "rx", "-p", "100"]);
    assert_eq!(fields(&rows, &["links", "means_bps"]), ["1 90000000"]);
    let rows = percentile(&fixture, &["--agent", "gw-2", "--direction", "rx", "-p", "100"]);
    // gw-2 has one of the 100.
    assert_eq!(fields(&rows, &["links", "means_bps", "present", "partial"]), ["3 1100000000 201 99"]);
    // Shorter windows are summed up, and a window in two intervals is divided.
    let start = utc("2026-10-03T00:00:00Z");
    let short = |n: i64, length_s: i64, mbps| Window {
        agent: "short",
        length_s,
        measured_s: length_s,
        ..window(start + TimeDelta::seconds(n * length_s), mbps)
    };
    store_windows(&fixture, &(0..30).map(|n| short(n, 10, n as u64)).collect::<Vec<_>>());
    let of = |agent: &str, p: &str| {
        let arguments = ["percentile", "--agent", agent, "--month", "2026-10", "--direction", "rx", "-p", p];
        fixture.rows(&arguments).1[0].clone()
    };
    assert_eq!((&of("short", "95")["means_bps"], &of("short", "95")["present"]), (&json!(14_500_000), &json!(1)));
    let four = |n, mbps| Window { agent: "four", ..short(n, 240, mbps) };
    // 4 minutes of 10, 1 of 20; then 3 of 20, 2 of 30; then 2 of 30, 3 not measured.
    store_windows(&fixture, &[four(0, 10), four(1, 20), four(2, 30)]);
    assert_eq!(of("four", "100")["means_bps"], 30_000_000);
    assert_eq!(of("four", "50")["means_bps"], 24_000_000);
    assert_eq!(of("four", "1")["means_bps"], 12_000_000);
    // Longer ones are refused by name.
    store_windows(&fixture, &[Window { agent: "long", length_s: 600, measured_s: 600, ..window(start, 10) }]);
    let (code, out, err) = fixture.output(&["percentile", "--agent", "long", "--month", "2026-10"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("long eth0 has windows of 600 s") && err.contains("rates.window = \"5m\""), "{err}");
}

fn what_is_not_measured_is_named(fixture: CommandFixture) {
    with_partitions(&fixture);
    let begin = utc("2026-10-01T00:00:00Z");
    let mut all = windows(begin, [10; 8_928]);
    all[100].measured_s = 200;
    all[200].is_late = true;
    all[300].measured_s = 0;
    all.drain(8_000..8_100);
    all.drain(..3);
    store_windows(&fixture, &all);
    let rows = percentile(&fixture, &["--direction", "rx"]);
    let figures = ["means_bps", "expected", "present", "missing", "partial", "late", "unmeasured_s"];
    assert_eq!(fields(&rows, &figures), ["10000000 8928 8824 104 1 1 400"]);
    let ranges = rows[0]["missing_windows"].as_array().unwrap();
    assert_eq!(
        fields(ranges, &["agent", "interface", "from", "to", "windows"]),
        [
            "gw eth0 2026-10-01T00:00:00Z 2026-10-01T00:15:00Z 3",
            "gw eth0 2026-10-02T01:00:00Z 2026-10-02T01:05:00Z 1",
            "gw eth0 2026-10-28T18:40:00Z 2026-10-29T03:00:00Z 100",
        ]
    );
    let (_, _, err) = fixture.output(&["percentile", "--agent", "gw", "--month", "2026-10"]);
    assert!(
        err.contains("missing: gw eth0 rx from 2026-10-28T18:40:00Z to 2026-10-29T03:00:00Z (100 windows)"),
        "{err}"
    );
    // A name without rates is no smaller sum.
    store_hour_or_day(&fixture, "day", utc("2026-11-20T00:00:00Z"), &[(1, 1)]);
    for (arguments, says) in [
        (&["--agent", "gw", "--agent", "gw-9", "--month", "2026-10"][..], "no rates of gw-9 are stored"),
        (&["--agent", "gw", "--interface", "wan", "--month", "2026-10"], "no rates of wan of gw are stored"),
        (&["--agent", "gw", "--month", "2026-08"], "there are some from 2026-11-20 to 2026-11-20"),
        (&["--agent", "none", "--month", "2026-08"], "nor of any other time; `highwater-consumer agents`"),
    ] {
        let (code, out, err) = fixture.output(&[&["percentile"], arguments].concat());
        assert!(code == 1 && out.is_empty() && err.contains(says), "{says}: {err}");
    }
    let future = (Utc::now() + TimeDelta::days(62)).format("%Y-%m").to_string();
    for (arguments, says) in [
        (&["--month", future.as_str()][..], "has not begun"),
        (&["--month", "9999-12"], "too far away"),
        (&["--month", "november"], "write 2026-11"),
        (&["--time-zone", "Europe/Atlantis"], "is not a time zone"),
        (&["--billing-day", "31"], "1..=28"),
        (&["--billing-day", "0"], "1..=28"),
    ] {
        let (code, _, err) = fixture.output(&[&["percentile", "--agent", "gw"], arguments].concat());
        assert!(code == 2 && err.contains(says), "{says}: {code} {err}");
    }
    assert_eq!(fixture.output(&["percentile"]).0, 2, "a link is named");
}

fn days_of_23_and_25_hours_are_as_long_as_they_are(fixture: CommandFixture) {
    with_partitions(&fixture);
    // The month of Paris that begins in summer time and ends in winter time, and the windows around it.
    store_windows(&fixture, &windows(utc("2026-09-30T21:00:00Z"), [1; 12]));
    store_windows(&fixture, &windows(utc("2026-09-30T22:00:00Z"), [10; 8_940]));
    store_windows(&fixture, &windows(utc("2026-10-31T23:00:00Z"), [1; 12]));
    let paris = ["--direction", "rx", "--time-zone", "Europe/Paris"];
    let rows = percentile(&fixture, &[&paris[..], &["-p", "0.001"]].concat());
    assert_eq!(fields(&rows, &["means_bps", "expected", "present", "missing"]), ["10000000 8940 8940 0"]);
    assert_eq!(rows[0]["since"], "2026-09-30T22:00:00.000000Z");
    store_windows(
        &fixture,
        &windows(utc("2026-03-14T23:00:00Z"), [20; 8_916])
            .iter()
            .map(|window| Window { agent: "gw-2", ..*window })
            .collect::<Vec<_>>(),
    );
    let arguments = ["percentile", "--agent", "gw-2", "--month", "2026-03", "--billing-day", "15"];
    let (_, rows) = fixture.rows(&[&arguments[..], &paris].concat());
    assert_eq!(fields(&rows, &["expected", "present", "until"]), ["8916 8916 2026-04-14T22:00:00.000000Z"]);
}

fn agents_are_listed_with_their_state(mut fixture: CommandFixture) {
    fixture.store_events(&[event("gw", 1, started()), updated("gw", 4), event("gw-2", 1, started())]);
    let (code, rows) = fixture.rows(&["agents"]);
    assert_eq!(
        (code, fields(&rows, &["agent", "state"])),
        (0, vec!["gw running".to_owned(), "gw-2 running".to_owned()])
    );
    fixture.run("UPDATE agent_sequences SET last_stored_at = '2026-11-20T12:00:00.000000Z' WHERE agent = 'gw'");
    let (_, rows) = fixture.rows(&["agents", "--state", "silent"]);
    assert_eq!(fields(&rows, &["agent", "last_heard_at"]), ["gw 2026-11-20T12:00:00.000000Z"]);
    let (_, rows) = fixture.rows(&["agents", "--agent", "gw-2"]);
    assert_eq!(fields(&rows, &["agent", "missing_events"]), ["gw-2 0"]);
}

fn nothing_stored_is_an_empty_answer(fixture: CommandFixture) {
    for command in ["events", "breaches", "rates", "histogram", "agents"] {
        assert_eq!(fixture.rows(&[command]), (0, vec![]), "{command}");
        let (code, csv, _) = fixture.output(&[command, "--format", "csv"]);
        assert_eq!((code, csv.lines().count()), (0, 1), "{command}");
    }
}

#[test]
fn a_time_that_ends_before_it_begins_is_a_usage_error() {
    let fixture = CommandFixture::sqlite();
    for command in ["events", "breaches", "rates", "histogram", "losses", "totals"] {
        let (code, out, err) = fixture.output(&[command, "--since", "2026-11-21", "--until", "2026-11-20"]);
        assert_eq!((code, out.as_str()), (2, ""), "{command}");
        assert!(err.contains("--since") && err.contains("is after --until"), "{err}");
        assert_eq!(fixture.output(&[command, "--since", "today", "--until", "today"]).0, 0, "{command}");
    }
    assert_eq!(fixture.output(&["events", "-n", "0"]).0, 2);
}

#[test]
fn every_command_that_reads_the_store_takes_its_url() {
    let mut fixture = CommandFixture::sqlite();
    fixture.store_events(&[event("gw", 1, started())]);
    for arguments in
        [&["events"][..], &["agents"], &["totals"], &["losses"], &["dead-letters", "list"], &["check", "--offline"]]
    {
        let mut command = crate::support::consumer::command();
        let output = command.args(arguments).args(["--store", &fixture.url]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        if arguments != ["totals"] && arguments != ["losses"] && arguments != ["dead-letters", "list"] {
            assert!(text.contains("gw") || text.contains(&fixture.url), "{arguments:?}: {text}");
        }
    }
    let mut command = crate::support::consumer::command();
    let output = command.args(["events", "--store", "h.db"]).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(78) && err.contains("--store") && err.contains("sqlite:h.db"), "{err}");
}
