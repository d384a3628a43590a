//! A store that cannot be asked ends each command with its exit code, and with what would mend it.

use super::{CommandFixture, Home};
use crate::support::consumer::command;
use crate::support::events::updated;
use crate::support::postgres::Postgres;
use crate::support::process::output_of;

/// Commands that only read the store.
const LOOKERS: &[&[&str]] = &[
    &["losses"],
    &["dead-letters", "list"],
    &["dead-letters", "retry"],
    &["dead-letters", "drop", "--reason", "none"],
    &["totals"],
    &["events"],
    &["breaches"],
    &["rates"],
    &["histogram"],
    &["percentile", "--agent", "gw"],
    &["agents"],
];

#[test]
fn a_store_that_cannot_be_asked_is_69_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.db");
    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let (missing, other) = (format!("sqlite:{}", missing.display()), format!("sqlite:{}", other.display()));
    let mut urls = vec![
        (missing.clone(), "store.url"),
        (other, "is not a database of this program"),
        ("postgres://u:p@127.0.0.1:1/d".to_owned(), "Connection refused"),
    ];
    if let Some(postgres) =
        Postgres::or_skip("consumer_commands::refusals::a_store_that_cannot_be_asked_is_69_and_says_what_to_do")
    {
        urls.push((postgres.database("bare").url, "none of this program's tables"));
    }
    for (url, says) in urls {
        for verb in LOOKERS {
            let (code, out, err) = output_of(command().args(*verb).env("HIGHWATER_STORE__URL", &url));
            assert_eq!((code, out.as_str()), (69, ""), "{url} {err}");
            assert!(err.contains(says), "{url}: {err}");
        }
    }
    assert!(!std::path::Path::new(missing.trim_start_matches("sqlite:")).exists(), "looking makes no file");
}

#[test]
fn what_a_reader_may_not_is_named_with_the_sql_that_mends_it() {
    let test = "consumer_commands::refusals::what_a_reader_may_not_is_named_with_the_sql_that_mends_it";
    let Some(mut fixture) = CommandFixture::postgres(test) else { return };
    fixture.store_events(&[updated("gw", 1)]);
    let Home::Postgres(database) = &fixture.home else { panic!("it is one") };
    let mut owner = database.client();
    let role = format!("Reader {:08x}", fastrand::u32(..));
    owner.batch_execute(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'r'")).unwrap();
    let (_, server) = fixture.url.split_once('@').unwrap();
    let url = format!("postgres://{}:r@{server}", role.replace(' ', "%20"));
    let totals = |schema: Option<&str>| {
        let mut command = command();
        command.args(["totals", "--format", "csv"]).env("HIGHWATER_STORE__URL", &url);
        command.envs(schema.map(|schema| ("HIGHWATER_STORE__SCHEMA", schema)));
        output_of(&mut command)
    };
    let granted = |owner: &mut ::postgres::Client, err: &str| {
        let (_, sql) = err.split_once("as the owner: ").unwrap_or_else(|| panic!("{err}"));
        owner.batch_execute(sql).unwrap();
    };
    let (code, _, err) = totals(None);
    assert!(code == 69 && err.contains("permission denied") && err.contains(&format!("TO \"{role}\"")), "{err}");
    granted(&mut owner, &err);
    let (code, out, err) = totals(None);
    assert!(code == 0 && out.lines().count() == 2, "{err}");
    // The tables are in another schema, that this role may not use, or does not look into.
    owner.batch_execute("CREATE SCHEMA \"High water\"").unwrap();
    let tables = "SELECT format('ALTER TABLE %I SET SCHEMA \"High water\"', relname) FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')";
    for row in owner.query(tables, &[]).unwrap() {
        owner.batch_execute(row.get(0)).unwrap();
    }
    let (code, _, err) = totals(None);
    assert!(code == 69 && err.contains("schema \"High water\", which role"), "{err}");
    granted(&mut owner, &err);
    let (code, _, err) = totals(None);
    assert!(code == 69 && err.contains("set store.schema = \"High water\""), "{err}");
    let (code, out, err) = totals(Some("High water"));
    assert!(code == 0 && out.lines().count() == 2, "{err}");
    // A table of another version.
    owner.batch_execute("ALTER TABLE \"High water\".totals RENAME COLUMN limit_name TO mark").unwrap();
    let (code, _, err) = totals(Some("High water"));
    assert!(code == 69 && err.contains("limit_name") && err.contains("not those of this version"), "{err}");
    // A lock that another session holds.
    owner.batch_execute("ALTER TABLE \"High water\".totals RENAME COLUMN mark TO limit_name").unwrap();
    owner.batch_execute("BEGIN; LOCK TABLE \"High water\".totals").unwrap();
    let (code, _, err) = totals(Some("High water"));
    assert!(code == 69 && err.contains("pg_locks"), "{err}");
}

#[test]
fn a_store_that_is_none_is_shown_with_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    for (url, says) in [
        ("hw.db", "`hw.db`"),
        ("hw.db", "\"sqlite:hw.db\""),
        ("sqlite::memory:", "memory"),
        ("sqlite:x.db?mode=ro", "?mode=ro"),
        ("sqlite://x.db", "\"sqlite:x.db\""),
    ] {
        for verb in ["check", "run", "totals"] {
            let mut command = command();
            command.arg(verb).env("HIGHWATER_STORE__URL", url).current_dir(directory.path());
            let (code, _, err) = output_of(&mut command);
            assert!(
                code == 78 && err.contains(says) && err.contains("HIGHWATER_STORE__URL"),
                "{url} {verb}: {code} {err}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "no file is made");
}
