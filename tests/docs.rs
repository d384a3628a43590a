//! SQL in README.md and docs/: each query on a real database with the real schema and rows for it. A block that begins with
//! ```` ```sql ```` is for PostgreSQL, one with ```` ```sql sqlite ```` for SQLite; a block right after it shows the answer.

use std::fs;
use std::path::Path;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use highwater::message::histogram::RateHistogram;
use highwater::message::{Body, Breach, Direction, Event, Reason};
use postgres::Client;
use rusqlite::Connection;
use serde_json::Value;

use crate::consumer_commands::CommandFixture;
use crate::consumer_questions::{Scan, enlarge, scans, with_tables};
use crate::support::events::{breach, event, link_rates, loss, rates_since, sample, started};
use crate::support::questions::{self, RatesFill};
use crate::support::stores::{derive_histograms, store_options};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Postgres,
    Sqlite,
}

#[derive(Debug)]
struct Query {
    /// Page and line.
    place: String,
    dialect: Dialect,
    sql: String,
    shown: Option<Answer>,
}

/// An answer, as far as it is the same on every database.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    columns: Vec<String>,
    has_rows: bool,
}

impl Answer {
    /// Reads a table as psql or sqlite3 print it: a line of columns, one of dashes, rows.
    fn parse(lines: &[&str], place: &str) -> Self {
        let is_dashes = |line: &&str| line.contains("--") && line.chars().all(|c| "-+ ".contains(c));
        let at = lines.iter().position(is_dashes).filter(|at| *at > 0);
        let at = at.unwrap_or_else(|| panic!("{place}: no table is shown"));
        let (header, dashes, rows) = (lines[at - 1], lines[at], &lines[at + 1..]);
        let names: Vec<&str> =
            if dashes.contains('+') { header.split('|').collect() } else { header.split_whitespace().collect() };
        let is_row = |line: &&str| !(line.trim().is_empty() || line.starts_with('(') && line.ends_with(')'));
        let columns = names.iter().map(|name| name.trim().to_owned()).collect();
        Self { columns, has_rows: rows.iter().any(is_row) }
    }
}

/// A fenced block: the words after its fence, the index of its first line, and its lines.
struct Block<'a> {
    words: &'a str,
    first: usize,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found: Vec<Block<'_>> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(words) if !is_open => found.push(Block { words, first: index + 1, lines: Vec::new() }),
            None if is_open => found.last_mut().expect("it is open").lines.push(line),
            _ => {}
        }
        is_open ^= line.starts_with("```");
    }
    found
}

/// Other statements, and commands of the shells, change something or print no table.
fn is_query(sql: &str) -> bool {
    let mut lines = sql.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"));
    let first = lines.next().and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    ["SELECT", "WITH"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Returns the queries of a page: its blocks of SQL, and what its commands pass to psql and sqlite3.
fn queries(page: &str, text: &str) -> Vec<Query> {
    let all = blocks(text);
    let mut found = Vec::new();
    for (at, block) in all.iter().enumerate() {
        let place = format!("{page}:{}", block.first);
        let dialect = match block.words {
            "sql" => Dialect::Postgres,
            "sql sqlite" => Dialect::Sqlite,
            words => {
                assert!(!words.starts_with("sql"), "{place}: {words} names no database");
                found.extend(commands(page, block));
                continue;
            }
        };
        let sql = block.lines.join("\n");
        if !is_query(&sql) {
            continue;
        }
        // Fences and one empty line are between a query and its answer.
        let below = block.first + block.lines.len() + 3;
        let answer = all.get(at + 1).filter(|next| next.words.is_empty() && next.first == below);
        let shown = answer.map(|next| Answer::parse(&next.lines, &place));
        found.push(Query { place, dialect, sql, shown });
    }
    found
}

fn commands(page: &str, block: &Block<'_>) -> Vec<Query> {
    let mut found = Vec::new();
    for (index, line) in block.lines.iter().enumerate() {
        let place = format!("{page}:{}", block.first + index + 1);
        let (dialect, rest) = if let Some((_, rest)) = line.split_once("$ psql highwater -c ") {
            (Dialect::Postgres, rest)
        } else if line.contains("$ sqlite3 ") && line.contains(" highwater.db ") {
            (Dialect::Sqlite, line.split_once(" highwater.db ").expect("it is there").1)
        } else {
            continue;
        };
        let Some(quote) = ["'", "\""].into_iter().find(|quote| rest.starts_with(quote)) else { continue };
        let sql = rest.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let sql = sql.unwrap_or_else(|| panic!("{place}: a statement in quotes ends the line"));
        let statements: Vec<&str> = sql.split(&format!("{quote} -c {quote}")).collect();
        let answer: Vec<&str> =
            block.lines[index + 1..].iter().copied().take_while(|line| !line.starts_with("$ ")).collect();
        for (at, sql) in statements.iter().enumerate().filter(|(_, sql)| is_query(sql)) {
            let is_shown = at + 1 == statements.len() && !answer.is_empty();
            let shown = is_shown.then(|| Answer::parse(&answer, &place));
            found.push(Query { place: place.clone(), dialect, sql: (*sql).to_owned(), shown });
        }
    }
    found
}

fn read(page: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("the page can be read")
}

/// Returns the queries of all pages for one database.
fn of_pages(dialect: Dialect) -> Vec<Query> {
    let docs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).expect("docs can be read");
    let mut pages: Vec<String> =
        docs.map(|entry| format!("docs/{}", entry.expect("its entries too").file_name().display())).collect();
    pages.retain(|page| page.ends_with(".md"));
    pages.push("README.md".to_owned());
    let mut found: Vec<Query> = pages.iter().flat_map(|page| queries(page, &read(page))).collect();
    found.retain(|query| query.dialect == dialect);
    found
}

/// Returns what is wrong with queries, by what `ask` answers to each.
fn faults(queries: &[Query], mut ask: impl FnMut(&str) -> Result<Answer, String>) -> Vec<String> {
    let fault = |query: &Query, answer: Result<Answer, String>| match (answer, &query.shown) {
        (Err(error), _) => Some(error),
        (Ok(answer), Some(shown)) if answer.columns != shown.columns => {
            Some(format!("columns {:?}, and the page shows {:?}", answer.columns, shown.columns))
        }
        (Ok(answer), Some(shown)) if shown.has_rows && !answer.has_rows => Some("no row".to_owned()),
        _ => None,
    };
    let found = |query: &Query| {
        let answer = ask(&query.sql);
        fault(query, answer).map(|fault| format!("{}: {fault}", query.place))
    };
    queries.iter().filter_map(found).collect()
}

fn ask_postgres(client: &mut Client, sql: &str) -> Result<Answer, String> {
    let message = |error: postgres::Error| {
        error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
    };
    let statement = client.prepare(sql).map_err(message)?;
    let has_rows = !client.query(&statement, &[]).map_err(message)?.is_empty();
    Ok(Answer { columns: statement.columns().iter().map(|column| column.name().to_owned()).collect(), has_rows })
}

fn ask_sqlite(connection: &Connection, sql: &str) -> Result<Answer, String> {
    let mut statement = connection.prepare(sql).map_err(|error| error.to_string())?;
    let columns = statement.column_names().map(str::to_owned).collect();
    let has_rows = statement.exists([]).map_err(|error| error.to_string())?;
    Ok(Answer { columns, has_rows })
}

/// Links that the pages ask for.
const LINKS: [(&str, &str); 2] = [("ber-gw1", "wan0"), ("gw-042", "eth0")];

/// Stores all that the pages ask for: now, in the last hours, and in November 2026.
fn filled(mut fixture: CommandFixture) -> CommandFixture {
    let now = Utc::now();
    for (agent, interface) in LINKS {
        fixture.store_events(&history(agent, interface, now));
        let first = now.duration_trunc(TimeDelta::hours(1)).unwrap() - TimeDelta::hours(1);
        let links = || vec![link_rates(interface, Direction::Rx, &[90_000_000; 300])];
        fixture.store_events(&[1, 2, 3].map(|seq| rates_since(first, agent, seq, links())));
        fixture.store_events(&[sample(agent, 1)]);
    }
    fixture.store_events(&[event("osl-gw1", 1, started())]);
    fixture.store(&[b"no event".to_vec()]);
    fixture.run("UPDATE agent_sequences SET last_stored_at = '2026-11-01T00:00:00.000000Z' WHERE agent = 'osl-gw1'");
    derive_histograms(&fixture.url, &store_options("docs"), now);
    fixture
}

/// An agent that lost three events, was restarted half an hour ago, and has an open breach.
fn history(agent: &str, interface: &str, now: DateTime<Utc>) -> Vec<Event> {
    let ago = |minutes: i64| now - TimeDelta::minutes(minutes);
    let at = |seq: u64, minutes: i64, body: Body| {
        let mut event = event(agent, seq, body);
        event.stamp.observed_at = ago(minutes);
        event
    };
    let of_link = |breach: Breach| Breach { interface: interface.into(), ..breach };
    let between = |id: &str, began: i64, ended: i64| {
        let times = Breach { started_at: ago(began), raised_at: ago(began), ended_at: ago(ended), ..breach(id, 60) };
        of_link(times)
    };
    let cleared = |breach: Breach| Body::BreachCleared(Breach { reason: Some(Reason::Below), ..breach });
    vec![
        event(agent, 1, cleared(of_link(breach("november", 60)))),
        at(2, 120, started()),
        at(3, 65, cleared(between("closed", 70, 66))),
        at(7, 60, loss(4, 6)),
        at(8, 30, started()),
        at(9, 1, Body::BreachUpdated(between("open", 10, 1))),
    ]
}

fn sqlite_file(fixture: &CommandFixture) -> Connection {
    Connection::open(fixture.url.strip_prefix("sqlite:").expect("a file")).expect("it can be opened")
}

#[test]
fn each_query_runs_on_postgresql_and_answers_as_its_page_shows() {
    let queries = of_pages(Dialect::Postgres);
    let of_look = queries.iter().filter(|query| query.place.starts_with("docs/look.md:") && query.shown.is_some());
    assert!(of_look.count() >= 12 && queries.len() >= 14, "{queries:?}");
    let test = "docs::each_query_runs_on_postgresql_and_answers_as_its_page_shows";
    let Some(fixture) = CommandFixture::postgres(test).map(filled) else { return };
    let mut client = Client::connect(&fixture.url, postgres::NoTls).unwrap();
    // A session has whatever time zone its server has.
    for zone in ["UTC", "America/Los_Angeles"] {
        client.batch_execute(&format!("SET TimeZone = '{zone}'")).unwrap();
        assert_eq!(faults(&queries, |sql| ask_postgres(&mut client, sql)), [""; 0], "{zone}");
    }
}

#[test]
fn each_query_runs_on_sqlite_and_answers_as_its_page_shows() {
    let queries = of_pages(Dialect::Sqlite);
    assert!(queries.iter().filter(|query| query.shown.is_some()).count() >= 6, "{queries:?}");
    let fixture = filled(CommandFixture::sqlite());
    let connection = sqlite_file(&fixture);
    assert_eq!(faults(&queries, |sql| ask_sqlite(&connection, sql)), [""; 0]);
}

/// Returns what a query reads from end to end of large tables. A partition may be read whole where all of it is asked for: then an
/// index serves it as soon as nothing else may.
fn whole_reads(client: &mut Client, large: &[String], sql: &str) -> Vec<Scan> {
    let mut found = Vec::new();
    for setting in ["on", "off"] {
        client.batch_execute(&format!("SET enable_seqscan = {setting}")).unwrap();
        let plan = client.query_one(&format!("EXPLAIN (FORMAT JSON) {sql}"), &[]);
        let plan: Value = plan.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0);
        found.clear();
        scans(&plan[0]["Plan"], &mut found);
        // The index of open breaches has those alone.
        found.retain(|scan| {
            large.contains(&scan.relation) && !scan.is_by_condition && scan.index != "breach_state_open"
        });
        if found.is_empty() {
            break;
        }
    }
    found
}

/// There is a year of breaches, of which the last month is asked for, and there are ten agents, of whose rates those of one are.
#[test]
fn no_query_reads_a_large_table_of_postgresql_from_end_to_end() {
    let test = "docs::no_query_reads_a_large_table_of_postgresql_from_end_to_end";
    let Some(database) = with_tables(test) else { return };
    let mut client = database.client();
    questions::fill(&mut client, 2_400);
    let mut histogram = RateHistogram::<u32>::default();
    histogram.record(10_000_000, 3_600);
    let size = RatesFill { agents: 10, links: 1, days: 35, days_with_hours: 35, windows_a_day: 12 };
    size.fill(&mut client, &histogram.encode());
    let older = "UPDATE breach_state SET raised_at = raised_at - interval '1 year' WHERE breach_id !~ '0$'";
    client.batch_execute(&format!("{older}; ANALYZE")).unwrap();
    let large = enlarge(&mut client, "^(rates|window_histograms|histograms|events_2|breach_state)");
    let is_there = |name: &&str| large.iter().any(|found| found == name);
    assert!(["breach_state", "histograms", "rates_week_1"].iter().all(is_there), "{large:?}");
    for query in of_pages(Dialect::Postgres) {
        let found = whole_reads(&mut client, &large, &query.sql);
        assert!(found.is_empty(), "{}: {found:?}", query.place);
    }
    for sql in ["SELECT * FROM breaches WHERE lasted > '1 hour'", "SELECT * FROM rates WHERE p95_bps > 80000000"] {
        assert!(!whole_reads(&mut client, &large, sql).is_empty(), "{sql}");
    }
}

/// Tables that grow with the fleet and with time.
const LARGE: [&str; 6] = ["events", "samples", "rates", "window_histograms", "histograms", "breach_state"];

#[test]
fn no_query_reads_a_large_table_of_sqlite_from_end_to_end() {
    let fixture = filled(CommandFixture::sqlite());
    let connection = sqlite_file(&fixture);
    for query in of_pages(Dialect::Sqlite) {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql)).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>("detail")).unwrap();
        for step in steps.map(Result::unwrap) {
            // Views name breach_state b and events e.
            let table = step.strip_prefix("SCAN ").map(|rest| match rest.split(' ').next().unwrap() {
                "b" => "breach_state",
                "e" => "events",
                table => table,
            });
            let is_large = |table: &str| LARGE.contains(&table);
            let is_whole = table.is_some_and(is_large) && !step.ends_with(" breach_state_open");
            assert!(!is_whole, "{}: {step}", query.place);
        }
    }
}

/// The copy is whole, though a consumer has the file open.
#[test]
fn the_copy_of_a_sqlite_file_has_all_rows() {
    let fixture = filled(CommandFixture::sqlite());
    let page = read("docs/look.md");
    let (_, command) = page.split_once("$ sqlite3 highwater.db \"VACUUM INTO '").expect("the page copies a file");
    assert!(command.starts_with("copy.db'\"\n"), "the statement is whole");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy.db");
    let connection = sqlite_file(&fixture);
    connection.execute_batch(&format!("VACUUM INTO '{}'", copy.display())).unwrap();
    let copy = Connection::open(copy).unwrap();
    for table in ["events", "rates", "histograms", "breach_state", "totals"] {
        let count = |of: &Connection| -> i64 {
            of.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count(&copy), count(&copy) > 0), (count(&connection), true), "{table}");
    }
}

#[test]
fn a_query_that_stops_being_right_is_found() {
    let page = "\
```sql sqlite
SELECT agent, state FROM breaches;
```

```
agent    state
-------  -----
ber-gw1  open
```

```sql sqlite
-- The column is called lasted.
SELECT agent, full_for FROM breaches;
```

```sql sqlite
SELECT agent, interface FROM breaches;
```

```
agent    link
-------  ----
ber-gw1  wan0
```

```
$ sqlite3 -readonly highwater.db \"SELECT agent FROM agents WHERE state = 'gone'\"
agent
-------
osl-gw1
$ sqlite3 highwater.db \"VACUUM INTO 'copy.db'\"
```

```sql
SELECT 1 AS one;
```

```sql
GRANT SELECT ON events TO reader;
```

```
GRANT
```

```
$ psql highwater -c \"SET timezone = 'UTC'\" -c \"SELECT 1 AS one, 2 AS two\"
SET
 one | two
-----+-----
   1 |   2
(1 row)
```
";
    let mut queries = queries("page.md", page);
    let of_postgres: Vec<_> = queries.iter().filter(|query| query.dialect == Dialect::Postgres).collect();
    let [plain, command] = &of_postgres[..] else { panic!("{of_postgres:?}") };
    let shown = Answer { columns: vec!["one".to_owned(), "two".to_owned()], has_rows: true };
    assert_eq!((&plain.shown, &command.shown), (&None, &Some(shown)));
    queries.retain(|query| query.dialect == Dialect::Sqlite);
    let fixture = filled(CommandFixture::sqlite());
    let connection = sqlite_file(&fixture);
    let found = faults(&queries, |sql| ask_sqlite(&connection, sql));
    let [unknown, renamed, empty] = &found[..] else { panic!("{found:?}") };
    assert!(unknown.starts_with("page.md:11: no such column: full_for"), "{unknown}");
    assert_eq!(
        (renamed.as_str(), empty.as_str()),
        (r#"page.md:16: columns ["agent", "interface"], and the page shows ["agent", "link"]"#, "page.md:27: no row")
    );
}
