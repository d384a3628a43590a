//! Output is the same whatever settings and poolers are in between, takes little memory, and runs nothing where it is opened.

use std::io::{BufRead as _, BufReader};

use chrono::{TimeDelta, Utc};
use highwater::consumer::store::StoreUrl;
use highwater::message::Body;
use highwater::wire;

use super::{CommandFixture, Home, MAKE_OLD, TEXT_SETTINGS, sql_of_gap};
use crate::consumer_reports::{store_hour_or_day, store_windows, window, with_partitions};
use crate::support::consumer::command;
use crate::support::events::{breach, event, loss, updated, utc};
use crate::support::pooler::Pooler;
use crate::support::process::{Spawned, is_installed, output_of};
use crate::support::skips::skip;

/// Output and exit code of a command.
#[derive(Debug, PartialEq)]
struct Printed {
    /// With the format, if it has several.
    command: String,
    code: i32,
    out: String,
    err: String,
}

impl Printed {
    fn of(arguments: &[&str], url: &str) -> Self {
        let (code, out, err) = output_of(command().args(arguments).env("HIGHWATER_STORE__URL", url));
        Self { command: arguments.join(" "), code, out, err }
    }

    fn has_rows(&self) -> bool {
        match self.command.starts_with("plot") {
            true => self.out.contains("gw"),
            false => self.out.lines().count() > usize::from(!self.command.ends_with("json")),
        }
    }
}

/// Returns what these commands print, in each format that they have.
fn printed(url: &str) -> Vec<Printed> {
    let commands: &[&[&str]] = &[
        &["losses"],
        &["losses", "--since", "2026-11-20T11:30:00Z", "--until", "2026-11-20T12:15:00Z"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--dropped", "--error", "unknown"],
        &["totals"],
        &["totals", "--since", "2026-11-20", "--until", "2026-11-20"],
        &["totals", "--since", "2026-11-21"],
        &["events"],
        &["events", "--since", "2026-11-20T12:00:02Z", "-n", "2"],
        &["breaches", "--state", "open", "--since", "2026-11-20"],
        &["rates", "--by", "window", "--since", "2026-11-20T12:00:00Z", "--until", "2026-11-21"],
        &["rates", "--by", "hour", "--since", "2026-11-20T11:00:00Z", "--until", "2026-11-21"],
        &["rates", "--by", "day"],
        &["histogram", "--since", "2026-11-20T10:30:00Z", "--until", "2026-11-22T12:30:00Z"],
        &["percentile", "--agent", "gw", "--direction", "rx", "--month", "2026-10"],
        &["agents"],
    ];
    let plots: &[&[&str]] = &[
        &["rate", "--since", "2026-11-20T12:00:00Z", "--until", "2026-11-20T13:00:00Z", "--time-zone", "UTC"],
        &["histogram", "--since", "2026-11-20T10:30:00Z", "--until", "2026-11-22T12:30:00Z", "--time-zone", "UTC"],
        &["totals", "--since", "2026-11-20", "--until", "2026-11-21"],
    ];
    let formats = ["table", "json", "csv"];
    let tables =
        commands.iter().flat_map(|arguments| formats.map(|format| [*arguments, &["--format", format]].concat()));
    let plots = plots.iter().map(|arguments| [&["plot"], *arguments].concat());
    tables.chain(plots).map(|arguments| Printed::of(&arguments, url)).collect()
}

/// Returns what `check` finds of a database.
fn checked(url: &str) -> Vec<String> {
    StoreUrl::parse(url, None, None).unwrap().check(Utc::now()).iter().map(ToString::to_string).collect()
}

#[test]
fn no_setting_of_a_server_changes_what_is_printed() {
    let test = "consumer_commands::output::no_setting_of_a_server_changes_what_is_printed";
    let Some(mut fixture) = CommandFixture::postgres(test) else { return };
    let mut of_next_day = breach("b2", 9);
    of_next_day.raised_at += TimeDelta::days(1);
    let of_next_day = event("gw", 10, Body::BreachUpdated(of_next_day));
    fixture.store_events(&[updated("gw", 1), event("gw", 5, loss(2, 3)), updated("gw", 9), of_next_day]);
    fixture.store(&[b"\\x00 \\134 garbage".to_vec(), b"\xff\0".to_vec()]);
    fixture.put_aside(&[(7, b"old".to_vec()), (8, wire::to_json(&updated("gw", 6)))]);
    fixture.run(MAKE_OLD);
    fixture.run(&sql_of_gap("expired", 90, 99, "2026-11-20T13:00:00.000000Z"));
    fixture.run("UPDATE dead_letters SET dropped_at = stored_at, drop_reason = 'none' WHERE kafka_offset = 7");
    store_some_rates(&fixture);
    let (expected, found) = (printed(&fixture.url), checked(&fixture.url));
    for one in &expected {
        assert!(one.has_rows(), "{one:?}");
    }
    let of_a_day =
        expected.iter().find(|one| one.command.starts_with("totals --since 2026-11-20 ")).expect("it was asked");
    assert!(of_a_day.out.contains("2026-11-20  gw"), "{of_a_day:?}");
    assert!(found.len() == 3 && found.iter().all(|line| line.starts_with("ok ")), "{found:?}");
    let Home::Postgres(database) = &fixture.home else { panic!("it is one") };
    for setting in TEXT_SETTINGS {
        database.alter(&format!("SET {setting}"));
        assert_eq!(printed(&fixture.url), expected, "{setting}");
        let (read_only, others): (Vec<_>, Vec<_>) =
            checked(&fixture.url).into_iter().partition(|line| line.contains("it is read-only"));
        assert_eq!((others, !read_only.is_empty()), (found.clone(), setting.contains("read_only")), "{setting}");
        database.alter("RESET ALL");
    }
    // The writer is not misled by them either.
    for setting in TEXT_SETTINGS.iter().filter(|setting| !setting.contains("read_only")) {
        database.alter(&format!("SET {setting}"));
    }
    let (code, _, err) = fixture.output(&["dead-letters", "retry", "-t", "old"]);
    assert!(code == 0 && err.contains("1 stored, 0 remain"), "{err}");
    let (code, out, err) = fixture.output(&["dead-letters", "drop", "-t", "events", "--reason", "test"]);
    assert!(code == 0 && out == "dropped 2 dead letters\n", "{err}");
    let stored = "SELECT observed_at = '2026-11-20T12:00:06Z' AND kafka_offset = 8 FROM events WHERE seq = 6";
    assert_eq!(database.ask(stored), "(t)");
}

/// Stores windows of two months, and hours and a day between windows: `histogram` is merged from all of them.
fn store_some_rates(fixture: &CommandFixture) {
    with_partitions(fixture);
    for begin in ["2026-10-20T12:00:00Z", "2026-11-20T10:30:00Z", "2026-11-20T12:00:00Z", "2026-11-22T12:00:00Z"] {
        let windows =
            [(0, 40), (5, 90), (10, 60)].map(|(minutes, mbps)| window(utc(begin) + TimeDelta::minutes(minutes), mbps));
        store_windows(fixture, &windows);
    }
    for hour in ["2026-11-20T11:00:00Z", "2026-11-20T12:00:00Z"] {
        store_hour_or_day(fixture, "hour", utc(hour), &[(10, 3_500), (900, 100)]);
    }
    store_hour_or_day(fixture, "day", utc("2026-11-21T00:00:00Z"), &[(20, 86_400)]);
}

/// Each query may go to another session of the server.
#[test]
fn readers_work_through_a_pooler_in_transaction_mode() {
    let test = "consumer_commands::output::readers_work_through_a_pooler_in_transaction_mode";
    let Some(mut fixture) = CommandFixture::postgres(test) else { return };
    if !is_installed("pgbouncer") {
        return skip(test, "needs pgbouncer");
    }
    fixture.store_events(&[updated("gw", 1)]);
    fixture.store(&vec![b"garbage".to_vec(); 30]);
    let expected = printed(&fixture.url);
    let Home::Postgres(database) = &fixture.home else { panic!("it is one") };
    let pooler = Pooler::start(database, "transaction");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| printed(&pooler.url))).collect();
        all.into_iter().for_each(|printed| assert_eq!(printed.join().unwrap(), expected));
    });
    // No setting of theirs is left in the sessions.
    let settings =
        ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "TimeZone", "DateStyle"];
    let left = |url: &str| -> Vec<String> {
        let mut client = ::postgres::Client::connect(url, ::postgres::NoTls).unwrap();
        let prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''".to_owned();
        let all = settings.iter().map(|name| format!("SHOW {name}")).chain([prepared]);
        let first = |sql: String| {
            let messages = client.simple_query(&sql).unwrap();
            let row = messages.into_iter().find_map(|message| match message {
                ::postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            row.unwrap()
        };
        all.map(first).collect()
    };
    let untouched = left(&fixture.url);
    (0..8).for_each(|_| assert_eq!(left(&pooler.url), untouched));
}

/// Rows are printed as they arrive: memory does not grow with their number.
fn memory_is_bounded(fixture: &CommandFixture, rows: u64) {
    fixture.run(&format!(
        "INSERT INTO totals (agent, interface, direction, limit_name, day, breaches, excess_bytes)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         SELECT 'gateway-' || i, 'eth0', 'rx', 'wan-down', '2026-11-20', 1, i FROM n"
    ));
    for format in ["table", "json", "csv"] {
        let mut command = command();
        command.args(["totals", "--format", format]).env("HIGHWATER_STORE__URL", &fixture.url);
        let mut child = Spawned::start(command.stdout(std::process::Stdio::piped()));
        let mut peak = 0;
        let mut lines = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            line.unwrap();
            lines += 1;
            if lines % 5_000 == 0 {
                let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
                let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                peak = line.and_then(|line| line.trim().strip_suffix(" kB")).map_or(peak, |kb| kb.parse().unwrap());
            }
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(lines, rows + u64::from(format != "json"));
        println!("{rows} rows as {format}: {peak} kB");
        assert!((1..32_000).contains(&peak), "{format}: {peak} kB");
    }
}

#[test]
fn sqlite_prints_many_rows_in_little_memory() {
    memory_is_bounded(&CommandFixture::sqlite(), 100_000);
}

#[test]
fn postgres_prints_many_rows_in_little_memory() {
    if let Some(fixture) =
        CommandFixture::postgres("consumer_commands::output::postgres_prints_many_rows_in_little_memory")
    {
        memory_is_bounded(&fixture, 100_000);
    }
}

#[test]
fn a_spreadsheet_runs_nothing_of_what_messages_say() {
    let mut fixture = CommandFixture::sqlite();
    fixture.store(&[b"=cmd|' /C calc'!A0".to_vec(), b"-1".to_vec()]);
    let (_, csv, _) = fixture.output(&["dead-letters", "list", "--format", "csv"]);
    assert!(csv.contains(",'=cmd|' /C calc'!A0,") && csv.contains(",'-1,"), "{csv}");
    let (_, json, _) = fixture.output(&["dead-letters", "list", "--format", "json"]);
    assert!(json.contains(r#""=cmd|' /C calc'!A0""#), "{json}");
    fixture.store(&["\u{202e}gpj.exe".as_bytes().to_vec()]);
    let (_, table, _) = fixture.output(&["dead-letters", "list"]);
    assert!(table.contains("\\u{202e}gpj.exe") && !table.contains('\u{202e}'), "{table}");
}
