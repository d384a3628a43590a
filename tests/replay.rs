//! Recorded series as people have them: `replay` of each file of `tests/data/cases`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::agent::command;
use crate::support::process::output_of;

fn case(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases").join(file)
}

struct Replayed {
    code: i32,
    /// The summary, or the breaches.
    rows: Vec<Value>,
    err: String,
}

fn replay(file: &Path, arguments: &[&str]) -> Replayed {
    let mut command = command();
    command.arg("replay").arg(file).args(arguments).args(["--format", "json"]);
    let output = command.output().expect("the agent runs");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    Replayed {
        code: output.status.code().unwrap_or(-1),
        rows: out.lines().map(|line| serde_json::from_str(line).expect("an object per line")).collect(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Returns rows, bad rows and breaches of a replay that succeeds.
fn counts(file: &Path, arguments: &[&str]) -> (u64, u64, u64) {
    let replayed = replay(file, arguments);
    assert_eq!(replayed.code, 0, "{}: {}", file.display(), replayed.err);
    let of = |name: &str| replayed.rows[0][name].as_u64().unwrap();
    (of("rows"), of("bad_rows"), of("breaches"))
}

/// Returns state, milliseconds, peak and mean of each breach.
fn breaches(file: &str, arguments: &[&str]) -> Vec<(String, u64, u64, u64)> {
    let replayed = replay(&case(file), &[arguments, &["--breaches"]].concat());
    assert_eq!(replayed.code, 0, "{file}: {}", replayed.err);
    let of = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let breach = |row: &Value| {
        let state = row["state"].as_str().unwrap().to_owned();
        (state, of(row, "duration_ms"), of(row, "peak_bps"), of(row, "mean_bps"))
    };
    replayed.rows.iter().map(breach).collect()
}

fn cleared(ms: u64, bps: u64) -> (String, u64, u64, u64) {
    ("cleared".to_owned(), ms, bps, bps)
}

const PER_5_MINUTES: [&str; 4] = ["--bytes-per", "5min", "--limit", "200 kbit/s"];

#[test]
fn a_burst_after_zeros_is_a_breach_as_long_as_its_row() {
    let found = breaches("burst-after-zeros.csv", &["--bytes-per", "5min", "--limit", "2 Mbit/s"]);
    assert_eq!(found, vec![cleared(300_000, 2_560_000); 3]);
    let found = breaches("zero-then-burst.csv", &["--bytes-per", "5min", "--limit", "100 kbit/s"]);
    assert_eq!(found, [cleared(300_000, 200_000)]);
}

#[test]
fn the_first_row_of_rates_is_evaluated() {
    let found = breaches("rates-from-the-first-row.csv", &["--rates", "--limit", "1 Mbit/s"]);
    assert_eq!(found, [cleared(600_000, 64_000_000)]);
}

#[test]
fn a_file_may_be_given_as_an_option() {
    let file = case("pulses.csv");
    let replayed = |file: &[&Path]| {
        let mut command = command();
        command.arg("replay").args(file).args(["--limit", "80 Mbit/s", "--breaches", "--format", "json"]);
        let (code, out, err) = output_of(&mut command);
        let mut breaches: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        // Each run draws them anew.
        breaches.iter_mut().for_each(|breach| breach["breach_id"] = Value::Null);
        (code, breaches, err)
    };
    let found = replayed(&[&file]);
    assert!(found.0 == 0 && found.1.len() == 20, "{found:?}");
    for option in ["-i", "--input"] {
        assert_eq!(replayed(&[Path::new(option), &file]), found, "{option}");
    }
    assert_eq!(replayed(&[Path::new("-i"), &file, &file]).0, 2, "one file");
}

#[test]
fn pulses_of_a_row_are_breaches_each() {
    assert_eq!(breaches("pulses.csv", &["--limit", "80 Mbit/s"]), vec![cleared(1_000, 100_000_000); 20]);
}

#[test]
fn a_counter_that_begins_at_zero_is_read() {
    let found = breaches("counter-from-zero.csv", &["--rx", "rx", "--counters", "--limit", "100 kbit/s"]);
    let [(_, 300_000, 200_000, _)] = found[..] else { panic!("{found:?}") };
}

#[test]
fn counters_of_slow_drivers_and_jumps_raise_nothing() {
    let arguments = ["--counters", "--interval", "1s", "--limit", "50 Mbit/s"];
    for file in ["slow-driver-5s.csv", "slow-driver-5s-from-the-middle.csv", "jump-2-32.csv"] {
        assert_eq!(counts(&case(file), &arguments).2, 0, "{file}");
    }
}

#[test]
fn an_amount_that_was_taken_from_a_false_counter_raises_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("amounts.csv");
    let rows = |third: u64| format!("timestamp,value\n1,2000000\n2,2000000\n3,{third}\n4,2000000\n5,2000000\n");
    std::fs::write(&file, rows(2_000_000 + (1 << 32))).unwrap();
    let replayed = replay(&file, &["--limit", "50 Mbit/s"]);
    assert_eq!(replayed.rows[0]["breaches"], 0, "{}", replayed.err);
    assert!(replayed.err.contains("readings not evaluated: 1 jump"), "{}", replayed.err);
    std::fs::write(&file, rows(4_000_000_000)).unwrap();
    assert_eq!(counts(&file, &["--limit", "50 Mbit/s"]), (5, 0, 1), "a burst");
}

#[test]
fn a_burst_of_one_second_in_counters_is_a_breach_of_one_second() {
    let found = breaches("one-second-burst.csv", &["--counters", "--interval", "1s", "--limit", "50 Mbit/s"]);
    assert_eq!(found, [cleared(1_000, 300_000_000)]);
}

#[test]
fn counters_of_32_bits_wrap_where_they_are_said_to() {
    let arguments = ["--counters", "--interval", "1s", "--limit", "800 Mbit/s", "--for", "60s"];
    let found = breaches("counter32-wraps.csv", &[&arguments[..], &["--counter-bits", "32"]].concat());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0.as_str(), found[0].2), ("open", 900_000_000));
    let replayed = replay(&case("counter32-wraps.csv"), &[&arguments[..], &["--counter-bits", "32"]].concat());
    assert_eq!((&replayed.rows[0]["breaches"], &replayed.rows[0]["open_breaches"]), (&1.into(), &1.into()));
    let replayed = replay(&case("counter32-wraps.csv"), &["--rates", "--counter-bits", "32", "--limit", "1 bit/s"]);
    assert_eq!(replayed.code, 2, "{}", replayed.err);
}

#[test]
fn a_host_limit_waits_for_counters_that_stand_every_other_second() {
    let directory = tempfile::tempdir().unwrap();
    let limit = |scope: &str| {
        let config = directory.path().join("agent.toml");
        let text = format!("[[limit]]\nname = 'l'\n{scope}\ndirection = 'rx'\nraise_at = '15 Mbit/s'\nfor = '3s'\n");
        std::fs::write(&config, text).unwrap();
        breaches(
            "standing-every-other-second.csv",
            &["--counters", "--interval", "1s", "-c", &config.display().to_string()],
        )
    };
    let host = limit("scope = 'host'");
    assert_eq!((host.len(), host[0].2), (1, 20_000_000), "{host:?}");
    assert_eq!(host, limit("interface = 'replay'"));
}

#[test]
fn times_of_every_kind_are_read() {
    for file in [
        "epoch-ms.csv",
        "epoch-us.csv",
        "epoch-ns.csv",
        "naive-T.csv",
        "no-seconds.csv",
        "offset-no-colon.csv",
        "space-utc.csv",
        "semicolons.csv",
    ] {
        assert_eq!(counts(&case(file), &PER_5_MINUTES), (3, 0, 1), "{file}");
    }
    let replayed = replay(&case("epoch-ms.csv"), &PER_5_MINUTES);
    assert_eq!(replayed.rows[0]["worst_bps"], 213_333);
    assert_eq!(counts(&case("trailing-comma.csv"), &PER_5_MINUTES), (2, 0, 1));
    assert_eq!(counts(&case("utf-16.csv"), &PER_5_MINUTES), (2, 0, 1));
}

#[test]
fn a_format_and_a_zone_read_other_times() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("french.csv");
    std::fs::write(&file, "timestamp,value\n12.11.24 00h00,100\n12.11.24 00h05,100\n").unwrap();
    let format = ["--time-format", "%d.%m.%y %Hh%M", "--time-zone", "Asia/Tokyo", "--limit", "1 bit/s"];
    let replayed = replay(&file, &format);
    let of = |name: &str| &replayed.rows[0][name];
    assert_eq!((of("rows"), of("bad_rows"), of("breaches")), (&2.into(), &0.into(), &1.into()), "{}", replayed.err);
    assert_eq!(of("worst_at"), "2024-11-11T14:55:00.000000Z");
    for wrong in [["--time-zone", "Mars/Base"], ["--time-format", "noon"], ["--delimiter", "ab"]] {
        let replayed = replay(&case("epoch-ms.csv"), &[&PER_5_MINUTES[..], &wrong].concat());
        assert_eq!(replayed.code, 2, "{wrong:?} {}", replayed.err);
    }
}

/// Small files in the form in which other programs export a series, each of three rows of five minutes whose last is a breach.
const EXPORTS: &[(&str, &str, &[&str])] = &[
    (
        "Grafana, series as columns",
        "\"Time\",\"eth0 in\"\n1731400200000,32000\n1731400500000,32000\n1731400800000,213333.3333\n",
        &["--time", "Time", "--rx", "eth0 in", "--rates"],
    ),
    (
        "Grafana for Excel",
        "sep=;\r\nTime;Wert;\r\n2024-11-12 08:00:00;32000,0;\r\n2024-11-12 08:05:00;32000,0;\r\n2024-11-12 08:10:00;213333,3;\r\n",
        &["--time", "Time", "--rx", "Wert", "--rates", "--time-zone", "Europe/Berlin"],
    ),
    (
        "InfluxDB, annotated",
        "#group,false,false,false,true\n#datatype,string,long,dateTime:RFC3339,double\n#default,mean,,,\n,result,table,_time,_value\n\
         ,,0,2024-11-12T08:00:00Z,1200000\n,,0,2024-11-12T08:05:00Z,1200000\n,,0,2024-11-12T08:10:00.000000001Z,8000000\n",
        &["--time", "_time", "--rx", "_value"],
    ),
    (
        "InfluxDB, extended annotations",
        "#datatype measurement,tag,double,dateTime\nm,host,value,time\nnet,a,1200000,1731400200000000000\n\
         net,a,1200000,1731400500000000000\nnet,a,8000000,1731400800000000000\n",
        &["--time", "time"],
    ),
    (
        "CloudWatch, with what it is in rows of its own",
        "Label,i-1\nId,m1\nPeriod,300\n\ntimestamp,NetworkIn\n2024/11/12 08:00:00,1200000.0\n2024/11/12 08:05:00,1200000.0\n\
         2024/11/12 08:10:00,8000000.0\n",
        &["--rx", "NetworkIn"],
    ),
    (
        "sadf -d",
        "# hostname;interval;timestamp;IFACE;rxkB/s;rx\nh;300;2024-11-12 08:00:00 UTC;eth0;4.00;1200000\n\
         h;300;2024-11-12 08:05:00 UTC;eth0;4.00;1200000\nh;300;2024-11-12 08:10:00 UTC;eth0;26.67;8000000\n",
        &["--rx", "rx"],
    ),
    (
        "Prometheus, by its API",
        "__name__,instance,timestamp,value\nrx,a,1731400200.585,1200000\nrx,a,1731400500.585,1200000\n\
         rx,a,1731400800.58545612335205078,8e+06\n",
        &[],
    ),
    (
        "Zabbix, its history table",
        "itemid|clock|value|ns\n1|1731400200|1200000|5\n1|1731400500|1200000|5\n1|1731400800|8000000|5\n",
        &["--time", "clock", "--delimiter", "|"],
    ),
    (
        "Excel, German",
        "timestamp;value\r\n12.11.2024 08:00;1200000,00\r\n12.11.2024 08:05;1,2E+06\r\n12.11.2024 08:10;8,0E+06\r\n",
        &["--time-format", "%d.%m.%Y %H:%M"],
    ),
    (
        "Excel, American",
        "timestamp,value\n11/12/2024 8:00:00 AM,1200000\n11/12/2024 8:05:00 AM,1200000\n11/12/2024 8:10:00 AM,8000000\n",
        &["--time-format", "%m/%d/%Y %I:%M:%S %p", "--time-zone", "America/New_York"],
    ),
    (
        "Windows, by FILETIME",
        "timestamp,value\n133758720000000000,1200000\n133758723000000000,1200000\n133758726000000000,8000000\n",
        &[],
    ),
    (
        "JMeter and collectd, in one file with another's header",
        "timestamp,value\n1731400200.017,1200000\ntimestamp,value\n1731400500.017,1200000\n1731400800.017,8000000\n",
        &[],
    ),
];

#[test]
fn exports_of_other_programs_are_read() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text, arguments) in EXPORTS {
        let file = directory.path().join("export.csv");
        std::fs::write(&file, text).unwrap();
        let per: &[&str] = if arguments.contains(&"--rates") { &[] } else { &["--bytes-per", "5min"] };
        let all = [per, &["--limit", "200 kbit/s"], arguments].concat();
        assert_eq!(counts(&file, &all), (3, 0, 1), "{name}");
    }
}

/// Only the person who exported them knows what is right: the error says what to do.
#[test]
fn exports_that_are_not_one_series_of_times_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("export.csv");
    let cases = [
        (
            "Series;Time;value\na;1731400200;1\na;1731400500;1\nb;1731400200;1\nb;1731400500;1\n",
            "export.csv:4: the timestamp `1731400200` is that of the first row or before it; if another series",
        ),
        ("Time;value\n45608.33333;1\n45608.33681;1\n", "format the column as yyyy-mm-dd hh:mm:ss"),
        ("2024-11-12 08:00:00,1\n2024-11-12 08:05:00,1\n", "put one above it, as in `timestamp,value`"),
        ("Time,value\n2024-03-31 02:30,1\n2024-03-31 02:45,1\n", "does not exist in Europe/Berlin"),
        ("Time,value\n1731400200,1.2 Mbit/s\n1731400500,1.3 Mbit/s\n", "write one from 0, without a unit"),
        ("Time;value\n1466074220000;85\n1466074200000;50\n1466074180000;17\n", "sorted newest first"),
        ("Time,value\n1731400200,NaN\n1731400500,\n1731400800,\n", "has no value"),
    ];
    for (text, wanted) in cases {
        std::fs::write(&file, text).unwrap();
        let replayed = replay(
            &file,
            &["--time", "Time", "--bytes-per", "5min", "--limit", "1 bit/s", "--time-zone", "Europe/Berlin"],
        );
        assert!(replayed.err.contains(wanted), "{text} {}", replayed.err);
    }
}

#[test]
fn an_hour_that_comes_twice_needs_a_zone() {
    let arguments = ["--bytes-per", "15min", "--limit", "300 kbit/s"];
    let zone = [&arguments[..], &["--time-zone", "Europe/Berlin"]].concat();
    assert_eq!(counts(&case("hour-twice.csv"), &zone), (16, 0, 1));
    assert_eq!(breaches("hour-twice.csv", &zone), [cleared(1_800_000, 400_000)]);
    let replayed = replay(&case("hour-twice.csv"), &arguments);
    assert_eq!((replayed.code, replayed.rows.len(), replayed.err.lines().count()), (1, 0, 1), "{}", replayed.err);
    assert!(replayed.err.contains("hour-twice.csv:10: ") && replayed.err.contains("--time-zone"), "{}", replayed.err);
}

#[test]
fn rows_that_are_newest_first_are_refused_with_what_turns_them_round() {
    let replayed = replay(&case("newest-first.csv"), &PER_5_MINUTES);
    assert_eq!((replayed.code, replayed.rows.len(), replayed.err.lines().count()), (1, 0, 1), "{}", replayed.err);
    let remedy = replayed.err.split('`').nth(1).expect("it names a command");
    let turned = std::process::Command::new("sh").arg("-c").arg(remedy.split(" | highwater").next().unwrap()).output();
    let turned = turned.unwrap().stdout;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turned.csv");
    std::fs::write(&file, turned).unwrap();
    assert_eq!(counts(&file, &PER_5_MINUTES), (3, 0, 1));
}

#[test]
fn a_row_in_the_future_is_skipped() {
    let file = case("one-future-row.csv");
    assert_eq!(counts(&file, &PER_5_MINUTES), (4, 1, 1));
    assert_eq!(breaches("one-future-row.csv", &PER_5_MINUTES), [cleared(300_000, 213_333)]);
    let replayed = replay(&file, &PER_5_MINUTES);
    assert!(replayed.err.contains("one-future-row.csv:4: the timestamp `2037-11-12 08:10:00`"), "{}", replayed.err);
}

#[test]
fn two_columns_of_one_name_are_a_wrong_command_line() {
    let replayed = replay(&case("two-columns-of-one-name.csv"), &PER_5_MINUTES);
    assert_eq!(replayed.code, 2, "{}", replayed.err);
    assert!(replayed.err.contains("columns 2, 3 are all called `value`"), "{}", replayed.err);
}

#[test]
fn a_packed_file_is_named_with_what_unpacks_it() {
    let file = case("packed.csv.gz");
    let replayed = replay(&file, &PER_5_MINUTES);
    assert_eq!(replayed.code, 1, "{}", replayed.err);
    let command =
        format!("is compressed with gzip; unpack it first: `zcat {} | highwater-agent replay -", file.display());
    assert!(replayed.err.contains(&command), "{}", replayed.err);
}

#[test]
fn a_file_of_bad_rows_fails_and_shows_five() {
    let replayed = replay(&case("all-bad-times.csv"), &PER_5_MINUTES);
    assert_eq!((replayed.code, replayed.rows[0]["bad_rows"].as_u64()), (1, Some(2_000)));
    let lines: Vec<&str> = replayed.err.lines().collect();
    assert_eq!(lines.len(), 7, "{}", replayed.err);
    assert!(lines[0].contains("all-bad-times.csv:2: ") && lines[0].contains("--time-format"), "{}", lines[0]);
    assert!(lines[5].contains("1995 more bad rows") && lines[6].contains("all 2000 rows"), "{}", replayed.err);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("half.csv");
    std::fs::write(&file, "timestamp,value\n1,1\n2,1\nnoon,1\nnight,1\n").unwrap();
    assert_eq!(counts(&file, &["--limit", "1 Mbit/s"]), (2, 2, 0));
    std::fs::write(&file, "timestamp,value\n1,1\nnoon,1\nnight,1\n").unwrap();
    assert_eq!(replay(&file, &["--limit", "1 Mbit/s"]).code, 1);
    std::fs::write(&file, "timestamp,value\n").unwrap();
    let replayed = replay(&file, &["--limit", "1 Mbit/s"]);
    assert!(replayed.code == 1 && replayed.err.contains("has no rows"), "{}", replayed.err);
}

#[test]
fn a_wrong_name_of_an_agent_is_refused_as_in_the_configuration() {
    for name in [String::new(), "a".repeat(300)] {
        let replayed = replay(&case("epoch-ms.csv"), &[&PER_5_MINUTES[..], &["--agent", &name]].concat());
        assert_eq!(replayed.code, 2, "{}", replayed.err);
        assert!(replayed.err.contains("a name has 1 to 255"), "{}", replayed.err);
    }
}

#[test]
fn the_time_over_a_limit_is_rounded() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("halves.csv");
    std::fs::write(&file, "timestamp,value\n0.9,9000000\n1.8,9000000\n2.7,0\n").unwrap();
    let replayed = replay(&file, &["--limit", "1 Mbit/s", "--clear-at", "1 bit/s"]);
    let seconds = replayed.rows[0]["over_limit_seconds"].as_u64().unwrap();
    let of = breaches_ms(&file);
    assert_eq!(seconds, (of + 500) / 1_000, "{of} ms");
}

fn breaches_ms(file: &Path) -> u64 {
    let replayed = replay(file, &["--limit", "1 Mbit/s", "--clear-at", "1 bit/s", "--breaches"]);
    replayed.rows.iter().map(|row| row["duration_ms"].as_u64().unwrap()).sum()
}

#[test]
fn a_breach_that_has_not_ended_is_shown_as_open() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("open.csv");
    std::fs::write(&file, "timestamp,value\n1,0\n2,1000000\n3,2000000\n").unwrap();
    let arguments = ["--limit", "1 Mbit/s"];
    let replayed = replay(&file, &arguments);
    let of = |name: &str| replayed.rows[0][name].as_u64().unwrap();
    assert_eq!((of("breaches"), of("open_breaches"), of("over_limit_seconds"), of("worst_bps")), (1, 1, 2, 16_000_000));
    let replayed = replay(&file, &[&arguments[..], &["--breaches"]].concat());
    assert_eq!((replayed.rows.len(), &replayed.rows[0]["state"]), (1, &"open".into()), "{}", replayed.err);
    assert_eq!((&replayed.rows[0]["duration_ms"], &replayed.rows[0]["peak_bps"]), (&2_000.into(), &16_000_000.into()));
    assert!(replayed.err.contains("1 breach (1 open at the end), 2 s over the limit"), "{}", replayed.err);
}

#[test]
fn a_pause_breaks_a_rise() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pause.csv");
    let over = |seconds: &[u64]| {
        let rows: String = seconds.iter().map(|second| format!("{second},1000000\n")).collect();
        std::fs::write(&file, format!("timestamp,value\n{rows}")).unwrap();
        ["--rates", "--bytes-per=1s"]
            .map(|meaning| counts(&file, &[meaning, "--interval", "1s", "--limit", "500 kbit/s", "--for", "4s"]).2)
    };
    assert_eq!(over(&[1, 2, 3, 4]), [1, 1]);
    assert_eq!(over(&[1, 2, 12, 13, 14]), [0, 0], "nobody knows what was in between");
}
