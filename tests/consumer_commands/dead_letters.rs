//! `dead-letters` lists each with its place and reason, stores once what can be stored by now, and drops what it is told to.

use std::time::Duration;

use highwater::consumer::batch::{PackedHeaders, Record};
use highwater::wire;
use serde_json::json;

use super::{CommandFixture, fields, on_both};
use crate::support::consumer::command;
use crate::support::events::{event, loss, updated};
use crate::support::process::texts_of;

on_both!("consumer_commands::dead_letters":
    dead_letters_are_listed_with_their_place_and_reason,
    dead_letters_keep_headers_and_time_and_are_decoded_with_them,
    dead_letters_are_dropped_with_a_reason,
    what_can_be_stored_by_now_comes_back_once_with_all_that_follows,
    of_two_retries_at_once_each_letter_goes_to_one,
);

fn dead_letters_are_listed_with_their_place_and_reason(mut fixture: CommandFixture) {
    assert_eq!(fixture.rows(&["dead-letters", "list"]), (0, vec![]));
    let long = format!("no event \u{1b}[31m{}", "x".repeat(5_000));
    fixture.store(&[
        b"garbage".to_vec(),
        wire::to_json(&updated("gw", 1)),
        b"\xff\0".to_vec(),
        long.clone().into_bytes(),
    ]);
    fixture.put_aside(&[(90, b"old".to_vec())]);
    let (code, rows) = fixture.rows(&["dead-letters", "list"]);
    assert_eq!(code, 0);
    let places = ["events 0 0 7 gw garbage", "events 0 2 2 gw \u{fffd}\0", "old 3 90 3 null old"];
    let all = fields(&rows, &["kafka_topic", "kafka_partition", "kafka_offset", "bytes", "key", "payload"]);
    assert_eq!([&all[0], &all[1], &all[3]], places);
    assert_eq!(rows[2]["payload"], long.as_str());
    assert!(rows[0]["error"].as_str().unwrap().contains("neither JSON"), "{}", rows[0]);
    // A table shows the begin of a payload, and no control character of a terminal.
    let (_, table, _) = fixture.output(&["dead-letters", "list"]);
    assert!(table.contains("no event \\u{1b}[31mxxx") && table.contains("x…") && !table.contains('\u{1b}'), "{table}");
    assert!(table.lines().all(|line| line.len() < 400), "{table}");
    for (arguments, offsets) in [
        (&["--offset", "2"][..], &["2"][..]),
        (&["--offset", "1-2"], &["2"]),
        (&["--partition", "3"], &["90"]),
        (&["--topic", "events", "--partition", "3"], &[]),
        (&["-t", "events"], &["0", "2", "3"]),
        (&["--error", "Neither json"], &["0", "2", "3"]),
        (&["--error", "unknown format"], &["90"]),
        (&["--error", "unknown_format"], &[]),
        (&["--error", "%"], &[]),
        (&["--agent", "gw"], &["0", "2", "3"]),
        (&["--agent", "gw", "--error", "unknown"], &[]),
    ] {
        let (_, rows) = fixture.rows(&[&["dead-letters", "list"], arguments].concat());
        assert_eq!(fields(&rows, &["kafka_offset"]), offsets, "{arguments:?}");
    }
    let raw = fixture.raw_output(&["dead-letters", "list", "--raw", "--offset", "2"]).stdout;
    assert_eq!(raw, b"\xff\0\n");
}

fn dead_letters_keep_headers_and_time_and_are_decoded_with_them(mut fixture: CommandFixture) {
    let event = updated("gw", 1);
    // Protobuf with a field before ours, as another writer may send it, is known by its content-type only.
    let unknown_field = [0xa0, 0x06, 0x00];
    let payload = [&unknown_field[..], &wire::message(&event, b"", wire::Format::Protobuf, None).payload].concat();
    let headers = [("content-type", Some(&b"application/protobuf"[..])), ("trace", None), ("trace", Some(b"=1"))];
    let headers = PackedHeaders::pack(headers);
    let parts = (Some(&b"k"[..]), Some(&payload[..]), headers);
    let record = Record::decoded(0, Some(1_795_176_000_123), parts, Err("not known to this version".to_owned()));
    fixture.store_records(vec![record]);
    let (_, rows) = fixture.rows(&["dead-letters", "list"]);
    assert_eq!(rows[0]["kafka_timestamp"], "2026-11-20T12:00:00.123000Z");
    let trace = [json!({"name": "trace", "value": null}), json!({"name": "trace", "value": "=1"})];
    assert_eq!(rows[0]["headers"][0], json!({"name": "content-type", "value": "application/protobuf"}));
    assert_eq!(rows[0]["headers"].as_array().unwrap()[1..], trace);
    let csv = fixture.output(&["dead-letters", "list", "--format", "csv"]).1;
    let csv: csv::Reader<&[u8]> = csv::Reader::from_reader(csv.as_bytes());
    let header = csv.into_records().next().unwrap().unwrap();
    assert!(header.iter().any(|cell| cell.starts_with(r#"[{"name":"content-type""#)), "{header:?}");
    let (code, _, err) = fixture.output(&["dead-letters", "retry"]);
    assert!(code == 0 && err.contains("1 stored, 0 remain"), "{err}");
    assert_eq!(fixture.numbers("SELECT seq, kafka_offset FROM events"), [1, 0]);
}

fn dead_letters_are_dropped_with_a_reason(mut fixture: CommandFixture) {
    fixture.store_events(&[updated("gw", 1)]);
    let poison = |seq| {
        String::from_utf8(wire::to_json(&updated("gw", seq)))
            .unwrap()
            .replace("80000000", "18446744073709551615")
            .into_bytes()
    };
    fixture.store(&[b"garbage".to_vec(), poison(2), poison(3)]);
    fixture.put_aside(&(0..150).map(|at| (at, wire::to_json(&updated("old", 1 + at as u64)))).collect::<Vec<_>>());
    assert_eq!(fixture.output(&["dead-letters", "drop", "--error", "limit_bps"]).0, 2, "a reason is needed");
    assert_eq!(fixture.output(&["dead-letters", "drop", "--reason", ""]).0, 2);
    let drop = |fixture: &CommandFixture, arguments: &[&str]| {
        let (code, out, err) = fixture.output(&[&["dead-letters", "drop"], arguments].concat());
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(
        drop(&fixture, &["--error", "LIMIT_BPS", "--offset", "3", "--reason", "load test"]),
        "dropped 1 dead letter\n"
    );
    assert_eq!(
        drop(&fixture, &["--error", "limit_bps", "--offset", "3", "--reason", "again"]),
        "dropped 0 dead letters\n"
    );
    assert_eq!(drop(&fixture, &["-t", "old", "--reason", "of the old topic"]), "dropped 150 dead letters\n");
    // Dropped ones are listed only where they are asked for, and not tried again.
    let (_, rows) = fixture.rows(&["dead-letters", "list"]);
    assert_eq!(fields(&rows, &["kafka_offset", "drop_reason"]), ["1 null", "2 null"]);
    let (_, rows) = fixture.rows(&["dead-letters", "list", "--dropped", "-t", "events"]);
    assert_eq!(fields(&rows, &["kafka_offset", "drop_reason", "seq"]), ["1 null null", "2 null 2", "3 load test 3"]);
    assert!(
        rows[2]["payload"].is_null() && rows[2]["bytes"].is_number() && rows[2]["dropped_at"].is_string(),
        "{}",
        rows[2]
    );
    let (_, table, _) = fixture.output(&["dead-letters", "list", "--dropped", "-t", "old", "--offset", "7"]);
    assert!(table.contains("drop reason") && table.contains("of the old topic"), "{table}");
    let (code, rows) = fixture.rows(&["dead-letters", "retry"]);
    assert_eq!(
        (code, fields(&rows, &["kafka_topic", "kafka_offset"])),
        (1, vec!["events 1".into(), "events 2".into()])
    );
    // `losses` shows the reason.
    let (code, rows) = fixture.rows(&["losses"]);
    let shown = fields(&rows, &["agent", "first_seq", "cause", "reason"]);
    assert_eq!(shown, ["gw 2 dead_letter null", "gw 3 discarded load test", "gw null dead_letter null"]);
    let (_, _, err) = fixture.output(&["losses"]);
    assert!(err.contains("list --dropped`: 1") && err.contains("named no agent, and were dropped: 150"), "{err}");
    assert_eq!(code, 0);
}

fn what_can_be_stored_by_now_comes_back_once_with_all_that_follows(mut fixture: CommandFixture) {
    fixture.store_events(&[updated("gw", 1), updated("gw", 5)]);
    fixture.store(&[b"garbage".to_vec()]);
    // Among these, 5 is stored already, and 2 is there twice; 3 declares a loss, 7 is the last event of its breach.
    let letters = [updated("gw", 2), event("gw", 3, loss(6, 6)), updated("gw", 7), updated("gw", 5), updated("gw", 2)];
    fixture.put_aside(&(0..).zip(letters.iter().map(wire::to_json)).collect::<Vec<_>>());
    fixture.put_aside(&[(99, wire::to_json(&updated("gw", 4))[..40].to_vec())]);
    let (code, out, err) =
        fixture.output(&["dead-letters", "retry", "--topic", "old", "--offset", "0-50", "--format", "json"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("5 stored (2 of them before), 0 remain"), "{err}");
    assert_eq!(fixture.numbers("SELECT count(*), count(DISTINCT seq) FROM events"), [5, 5]);
    let ranges = "SELECT min(first_seq), max(last_seq), count(*) FROM agent_sequences WHERE first_seq < 5";
    assert_eq!(fixture.numbers(ranges), [1, 3, 1]);
    assert_eq!(fixture.numbers("SELECT seq, duration_ms FROM breach_state"), [7, 7_000]);
    assert_eq!(fixture.numbers("SELECT first_seq, last_seq FROM losses"), [6, 6]);
    assert_eq!(fixture.numbers("SELECT count(*) FROM dead_letters"), [2]);
    assert_eq!(
        fixture.numbers("SELECT kafka_offset, CAST(kafka_partition AS bigint) FROM events WHERE seq = 7"),
        [2, 3]
    );
    // A letter that remains is reported.
    let (code, rows) = fixture.rows(&["dead-letters", "retry"]);
    assert_eq!(code, 1);
    assert_eq!(fields(&rows, &["kafka_topic", "kafka_offset", "result"]), ["events 2 remains", "old 99 remains"]);
    assert!(rows[1]["reason"].as_str().unwrap().contains("EOF while parsing"), "{}", rows[1]);
    assert_eq!(fixture.numbers("SELECT count(*) FROM dead_letters"), [2]);
    // The consumer goes on as before.
    fixture.store_events(&[updated("gw", 4), updated("gw", 8)]);
    assert_eq!(fixture.numbers("SELECT count(*), count(DISTINCT seq) FROM events"), [7, 7]);
}

fn of_two_retries_at_once_each_letter_goes_to_one(mut fixture: CommandFixture) {
    fixture.put_aside(&(0..250).map(|at| (at, wire::to_json(&updated("gw", 1 + at as u64)))).collect::<Vec<_>>());
    let url = fixture.url.clone();
    let retry = || command().args(["dead-letters", "retry"]).env("HIGHWATER_STORE__URL", &url).output().unwrap();
    let mut returned = 0;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..3).map(|_| scope.spawn(retry)).collect();
        // A consumer stores meanwhile, some of the same events too.
        for seq in 200..300 {
            fixture.store_events(&[updated("gw", seq)]);
            // SQLite lets no one wait in line.
            std::thread::sleep(Duration::from_millis(5));
        }
        for output in running {
            let (code, _, err) = texts_of(&output.join().unwrap());
            assert_eq!(code, 0, "{err}");
            let count = err.split("note: ").nth(1).and_then(|note| note.split(' ').next()).unwrap();
            returned += count.parse::<u64>().unwrap();
        }
    });
    assert_eq!(returned, 250);
    assert_eq!(fixture.numbers("SELECT count(*), count(DISTINCT seq) FROM events"), [299, 299]);
    assert_eq!(fixture.numbers("SELECT count(*) FROM dead_letters"), [0]);
    assert_eq!(fixture.numbers("SELECT count(*) FROM sequence_gaps"), [0]);
}
