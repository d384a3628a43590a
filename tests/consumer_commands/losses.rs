//! `losses` names all that is missing, with its cause, its number and its times, and says that nothing is only where that is so.

use highwater::wire;
use serde_json::Value;

use super::{CommandFixture, MAKE_OLD, fields, on_both, sql_of_gap};
use crate::support::consumer::command;
use crate::support::events::{event, loss, started, updated};
use crate::support::process::output_of;

on_both!("consumer_commands::losses":
    losses_tell_what_explains_that_events_are_missing,
    nothing_is_missing_only_where_no_dead_letter_waits,
    sums_of_missing_events_do_not_overflow,
    losses_of_an_unknown_number_are_named,
    times_without_a_zone_are_local,
);

fn losses_tell_what_explains_that_events_are_missing(mut fixture: CommandFixture) {
    fixture.store_events(&[updated("gw", 1), updated("gw", 2), updated("gw", 4)]);
    let (code, out, err) = fixture.output(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 1), "what is only just missing may still come: {out} {err}");
    assert!(err.contains("nothing is missing"), "{err}");
    // 5 to 7 were given up, of which 6 arrived all the same; 12 is a dead letter with its number, another one has the agent from
    // its key only; 3, 11 and 13 never arrived.
    let poison =
        String::from_utf8(wire::to_json(&updated("gw", 12))).unwrap().replace("80000000", "18446744073709551615");
    fixture.store_events(&[event("gw", 8, loss(5, 7)), updated("gw", 6), updated("gw", 9), updated("gw", 10)]);
    fixture.store(&[poison.into_bytes(), b"garbage".to_vec()]);
    fixture.store_events(&[updated("gw", 14), event("other", 2, started())]);
    fixture.run(MAKE_OLD);
    fixture.run(&sql_of_gap("expired", 90, 99, "2026-11-20T13:00:00.000000Z"));
    fixture.run(&sql_of_gap("unreadable", 100, 100, "2026-11-20T13:01:00.000000Z"));
    fixture.run(&sql_of_gap("expired_before_start", 0, 9, "2026-11-20T13:00:00.000000Z"));
    fixture.run(&sql_of_gap("skipped_at_start", 10, 20, "2026-11-20T13:00:00.000000Z"));
    let (code, rows) = fixture.rows(&["losses"]);
    assert_eq!(code, 1);
    assert_eq!(
        fields(&rows, &["agent", "first_seq", "last_seq", "missing", "cause"]),
        [
            "gw 5 7 2 declared",
            "gw 3 3 1 undeclared",
            "gw 13 13 1 undeclared",
            "other 1 1 1 undeclared",
            "gw 11 11 1 undeclared",
            "gw 12 12 1 dead_letter",
            "gw null null 1 dead_letter",
            "null null null 10 expired",
            "null null null 1 unreadable",
        ]
    );
    assert_eq!(rows[0]["reason"], "evicted");
    assert_eq!(rows[1]["noticed_at"], "2026-11-20T12:00:00.000000Z");
    assert_eq!((&rows[1]["reason"], &rows[1]["detail"]), (&Value::Null, &"never arrived".into()));
    assert!(rows[5]["detail"].as_str().unwrap().contains("limit_bps"), "{}", rows[5]);
    let places = ["kafka_topic", "kafka_partition", "first_offset", "last_offset"];
    assert_eq!(fields(&rows[6..8], &places), ["null null null null", "events 0 90 99"]);
    assert!(rows[8]["detail"].as_str().unwrap().contains("larger than receive.message.max.bytes"), "{}", rows[8]);
    let (code, _, err) = fixture.output(&["losses"]);
    assert_eq!(code, 1);
    for says in [
        "events given up and declared by their agents: 2",
        "events kept as dead letters: see `highwater-consumer dead-letters list`: 2",
        "whose events they held is not known: 11",
        "missing without explanation: 4",
    ] {
        assert!(err.contains(says), "{says}: {err}");
    }
    // Filters leave out what is known.
    let (code, rows) = fixture.rows(&["losses", "--agent", "other"]);
    assert_eq!((code, fields(&rows, &["agent", "first_seq"])), (1, vec!["other 1".to_owned()]));
    let (code, rows) = fixture.rows(&["losses", "--since", "2026-11-20T12:45:00Z"]);
    assert_eq!((code, fields(&rows, &["cause"])), (0, vec!["expired".to_owned(), "unreadable".to_owned()]));
    let (_, rows) = fixture.rows(&["losses", "--until", "2026-11-20T11:30:00Z"]);
    assert_eq!(fields(&rows, &["cause"]), ["declared"]);
    let (code, _, err) = fixture.output(&["losses", "--agent", "nobody"]);
    assert!(code == 0 && err.contains("nothing of nobody is missing"), "{err}");
    let (code, _, err) = fixture.output(&["losses", "--since", "soon"]);
    assert!(code == 2 && err.contains("10m") && err.contains("yesterday"), "{err}");
}

fn nothing_is_missing_only_where_no_dead_letter_waits(mut fixture: CommandFixture) {
    fixture.run(&sql_of_gap("expired_before_start", 0, 9, "2026-11-20T13:00:00.000000Z"));
    fixture.store_events(&[updated("gw", 1)]);
    assert!(fixture.output(&["losses"]).2.contains("nothing is missing"));
    // 33 of an agent that the key names, and that sends no more.
    fixture.store(&vec![b"garbage".to_vec(); 33]);
    let (code, out, err) = fixture.output(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 34), "{out}");
    assert!(!err.contains("nothing") && err.contains("dead-letters list`: 33"), "{err}");
    fixture.run("UPDATE dead_letters SET agent = NULL");
    let (code, out, err) = fixture.output(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    assert!(!err.contains("nothing") && err.contains("name no agent; whose events they are is not known: 33"), "{err}");
}

fn sums_of_missing_events_do_not_overflow(mut fixture: CommandFixture) {
    fixture.store_events(&[updated("gw", 1)]);
    for (agent, seq) in [("a", 1), ("a", 2), ("b", 1), ("c", 1)] {
        fixture.run(&format!(
            "INSERT INTO losses (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at, stored_at, reason)
             VALUES ('{agent}', 'e', 1, 9223372036854775807, 'e', {seq}, '2026-11-20T12:00:00.000000Z', '2026-11-20T12:00:00.000000Z',
                     'evicted')"
        ));
    }
    let (code, out, err) = fixture.output(&["losses"]);
    assert_eq!((code, out.lines().count()), (0, 4), "{out} {err}");
    assert!(err.contains("declared by their agents: 27670116110564327421"), "{err}");
}

fn losses_of_an_unknown_number_are_named(mut fixture: CommandFixture) {
    fixture.store_events(&[updated("gw", 1)]);
    fixture.run(
        "INSERT INTO losses (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at, stored_at, reason)
         VALUES ('gw', 'e', 1, 281474976710656, 'e', 2, '2026-11-20T12:00:00.000000Z', '2026-11-20T12:00:00.000000Z',
                 'interrupted')",
    );
    let (code, rows) = fixture.rows(&["losses"]);
    assert_eq!((code, fields(&rows, &["first_seq", "last_seq", "missing"])), (0, vec!["1 null null".to_owned()]));
    let (code, out, err) = fixture.output(&["losses"]);
    assert!(code == 0 && out.contains("  1  -         -        interrupted"), "{out}");
    assert!(err.contains("agents that crashed; how many is not known: 1") && !err.contains("nothing"), "{err}");
}

fn times_without_a_zone_are_local(fixture: CommandFixture) {
    fixture.run(&sql_of_gap("expired", 1, 1, "2026-11-20T08:30:00.000000Z"));
    fixture.run(&sql_of_gap("expired", 2, 2, "2026-11-20T23:30:00.000000Z"));
    let since = |zone: &str, time: &str| {
        let mut command = command();
        command.args(["losses", "--format", "json", "--since", time]).env("HIGHWATER_STORE__URL", &fixture.url);
        let (code, out, err) = output_of(command.env("TZ", zone));
        assert_eq!(code, 0, "{err}");
        out.lines().count()
    };
    assert_eq!(since("Asia/Tokyo", "2026-11-20T08:00:00Z"), 2);
    assert_eq!(since("Asia/Tokyo", "2026-11-20 17:00"), 2);
    assert_eq!(since("Asia/Tokyo", "2026-11-20 18:00"), 1);
    assert_eq!(since("UTC", "2026-11-20 18:00"), 1);
    assert_eq!(since("Asia/Tokyo", "2026-11-21"), 1, "the day begins at 15:00Z before it");
    assert_eq!(since("UTC", "2026-11-21"), 0);
    for time in ["today", "yesterday", "10:00", "1h"] {
        since("Europe/Berlin", time);
    }
    let help = command().args(["losses", "--help"]).output().unwrap().stdout;
    assert!(String::from_utf8(help).unwrap().contains("local time"), "the help says so");
}
