//! The files in docker/: each query of Grafana's dashboard on a database that the store filled, asked by the role that only reads.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, DurationRound as _, SecondsFormat, TimeDelta, Utc};
use highwater::consumer::batch::{Batch, Gap, GapCause, Record};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{Store, StoreUrl};
use highwater::message::{Body, Breach, Direction, Event, Reason, Severity};
use highwater::wire;
use postgres::{Client, NoTls, SimpleQueryMessage};
use serde_json::Value;

use crate::support::events::{breach, event, link_rates, loss, rates_since, started};
use crate::support::postgres::{Database, Postgres};
use crate::support::stores::{derive_histograms, insert_checkpoint, store_options, topic_id};

const READER: &str = include_str!("../docker/postgres/reader.sql");

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/dashboards/highwater.json")).expect("it is JSON")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

/// Collects each query by its place: the panel's title and the letter of its target, `Breaches` for the annotations, `$name` for the
/// values of a variable.
fn queries(dashboard: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let panels = list(&dashboard["panels"]).filter(|panel| panel["type"] != "row").flat_map(|panel| {
        let title = text(&panel["title"]);
        let targets: Vec<_> = list(&panel["targets"]).collect();
        targets.into_iter().map(move |target| (format!("{title} {}", text(&target["refId"])), text(&target["rawSql"])))
    });
    let annotations = list(&dashboard["annotations"]["list"])
        .filter(|annotation| annotation["datasource"]["uid"] == "highwater")
        .map(|annotation| (text(&annotation["name"]), text(&annotation["target"]["rawSql"])));
    let variables = list(&dashboard["templating"]["list"])
        .filter(|variable| variable["type"] == "query")
        .map(|variable| (format!("${}", text(&variable["name"])), text(&variable["query"])));
    panels.chain(annotations).chain(variables).collect()
}

/// Choices of a user of the dashboard.
#[derive(Clone, Copy)]
struct Choice<'a> {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    agent: &'a str,
    interface: &'a str,
    direction: &'a str,
}

impl Choice<'_> {
    /// Replaces variables and macros as Grafana's PostgreSQL data source does: first the variables, whose quotes are doubled, then
    /// `$__interval`, then macros, whose arguments end at the first parenthesis.
    fn interpolate(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        for (name, value) in [("$agent", self.agent), ("$interface", self.interface), ("$direction", self.direction)] {
            sql = sql.replace(name, &value.replace('\'', "''"));
        }
        sql = sql.replace("$__interval", "30s");
        let mut replaced = String::new();
        let mut rest = sql.as_str();
        while let Some((before, call)) = rest.split_once("$__") {
            let (name, call) = call.split_once('(').expect("a macro has arguments");
            let (arguments, after) = call.split_once(')').expect("and they end");
            let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
            replaced += before;
            replaced += &self.expand(name, &arguments);
            rest = after;
        }
        replaced + rest
    }

    fn expand(&self, name: &str, arguments: &[&str]) -> String {
        let literal = |time: DateTime<Utc>| format!("'{}'", time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        match (name, arguments) {
            ("timeFrom", [""]) => literal(self.from),
            ("timeTo", [""]) => literal(self.to),
            ("timeFilter", [column]) => format!("{column} BETWEEN {} AND {}", literal(self.from), literal(self.to)),
            ("timeGroupAlias", [column, "30s"]) => format!("floor(extract(epoch from {column})/30)*30 AS \"time\""),
            _ => panic!("Grafana has no macro $__{name}({})", arguments.join(", ")),
        }
    }
}

/// Rows as text, by column.
type Rows = Vec<BTreeMap<String, Option<String>>>;

fn ask(client: &mut Client, sql: &str) -> Rows {
    let answer = client.simple_query(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = |row: postgres::SimpleQueryRow| {
        let columns = row.columns().iter().enumerate();
        columns.map(|(at, column)| (column.name().to_owned(), row.get(at).map(str::to_owned))).collect()
    };
    rows.map(row).collect()
}

/// Returns columns of rows, separated by spaces; `-` is null.
fn columns(rows: &Rows, names: &[&str]) -> Vec<String> {
    let value = |row: &BTreeMap<String, Option<String>>, name: &str| {
        let value = row.get(name).unwrap_or_else(|| panic!("there is a column {name}: {row:?}"));
        value.clone().unwrap_or_else(|| "-".to_owned())
    };
    rows.iter().map(|row| names.iter().map(|name| value(row, name)).collect::<Vec<_>>().join(" ")).collect()
}

/// A database with the events of two hours, and its role that only reads.
struct Filled {
    _server: Postgres,
    database: Database,
    store: Box<dyn Store + Send>,
    now: DateTime<Utc>,
    next: i64,
}

impl Filled {
    /// The role is made before the tables are, as in the container.
    fn new(test: &str) -> Option<Self> {
        let server = Postgres::start_own(test)?;
        let database = server.database("containers");
        database.client().batch_execute(READER).unwrap();
        database.client().batch_execute("ALTER ROLE highwater_reader PASSWORD 'reader'").unwrap();
        let store = StoreUrl::parse(&database.url, None, None).unwrap().open(&store_options("containers"));
        // Not at the end of a day, which would divide the events between two.
        let now = Utc::now().duration_trunc(TimeDelta::hours(1)).unwrap() + TimeDelta::minutes(10);
        let mut filled = Self { _server: server, database, store, now, next: 0 };
        let gap = |last, cause| Some(Gap { first: 0, last, cause });
        for (partition, gap) in [(0, None), (1, gap(41, GapCause::Expired)), (2, gap(6, GapCause::Unreadable))] {
            let topic = topic_id("highwater.events");
            insert_checkpoint(&mut *filled.store, &topic, partition, &Checkpoint::default(), gap).unwrap();
        }
        filled.fill();
        Some(filled)
    }

    fn store(&mut self, events: &[Event]) {
        let mut batch = Batch::new(&topic_id("highwater.events"));
        for event in events {
            let payload = wire::to_json(event);
            batch.push(0, Record::new(self.next, Some(7), None, Some(&payload)), || (0, self.next));
            self.next += 1;
        }
        assert_eq!(self.store.apply(&batch, self.now).unwrap().inserted, events.len() as u64);
    }

    fn fill(&mut self) {
        let open = self.breach("b-open", Severity::Critical, 10, 1);
        let closed = Breach { reason: Some(Reason::Below), ..self.breach("b-closed", Severity::Warning, 70, 65) };
        let unknown = self.breach("b-unknown", Severity::Warning, 100, 99);
        self.store(&[
            self.event("gw-1", 1, 120, started()),
            self.event("gw-1", 2, 65, Body::BreachCleared(closed)),
            self.event("gw-1", 6, 60, loss(3, 5)),
            self.event("gw-1", 7, 1, Body::BreachUpdated(open)),
            self.event("gw-2", 1, 120, started()),
            self.event("gw-2", 2, 99, Body::BreachUpdated(unknown)),
        ]);
        let heard = "UPDATE agent_sequences SET last_stored_at = now() - interval '2 hours' WHERE agent = 'gw-2'";
        self.database.client().batch_execute(heard).unwrap();
        // The fourth window never arrives; the sixth is of a second that nothing measured.
        let first = self.now - TimeDelta::minutes(60);
        let window = |seq: u64| {
            let bps: Vec<u64> = (0..if seq == 6 { 0 } else { 300 }).map(|_| seq * 10_000_000).collect();
            rates_since(first, "gw-1", seq, vec![link_rates("eth0", Direction::Rx, &bps)])
        };
        self.store(&[1, 2, 3, 5, 6].map(window));
        derive_histograms(&self.database.url, &store_options("containers"), self.now);
    }

    fn event(&self, agent: &str, seq: u64, minutes_ago: i64, body: Body) -> Event {
        let mut event = event(agent, seq, body);
        event.stamp.observed_at = self.now - TimeDelta::minutes(minutes_ago);
        event
    }

    fn breach(&self, id: &str, severity: Severity, began: i64, ended: i64) -> Breach {
        let ago = |minutes| self.now - TimeDelta::minutes(minutes);
        let seconds = (began - ended) as u64 * 60;
        Breach { severity, started_at: ago(began), raised_at: ago(began), ended_at: ago(ended), ..breach(id, seconds) }
    }

    fn reader(&self) -> Client {
        let (_, place) = self.database.url.split_once('@').unwrap();
        Client::connect(&format!("postgres://highwater_reader:reader@{place}"), NoTls).unwrap()
    }

    /// The last six hours of the link that has rates.
    fn choice(&self) -> Choice<'static> {
        // Some times are those of the server's clock.
        let (from, to) = (self.now - TimeDelta::hours(6), self.now.max(Utc::now()) + TimeDelta::minutes(5));
        Choice { from, to, agent: "gw-1", interface: "eth0", direction: "rx" }
    }
}

/// Columns of each query, and the rows that they have.
fn expected() -> Vec<(&'static str, &'static [&'static str], Vec<&'static str>)> {
    vec![
        ("Open breaches now A", &["critical", "warning"], vec!["1 0"]),
        ("Agents A", &["running", "stopped", "silent"], vec!["1 0 1"]),
        ("Missing events A", &["explained", "unexplained"], vec!["3 0"]),
        (
            "Open breaches A",
            &["severity", "agent", "interface", "direction", "limit_name", "limit_bps", "peak_bps", "excess_bytes"],
            vec!["critical gw-1 eth0 rx wan-down 80000000 90000540 67500"],
        ),
        (
            "Top by bytes over limit A",
            &["agent", "interface", "direction", "limit_name", "breaches", "excess_bytes"],
            vec!["gw-1 eth0 rx wan-down 2 105000", "gw-2 eth0 rx wan-down 1 7500"],
        ),
        ("Silent agents A", &["agent", "version", "clock_synced"], vec!["gw-2 1 t"]),
        (
            "Losses A",
            &["cause", "agent", "first", "last", "missing", "reason", "detail"],
            vec![
                "declared gw-1 3 5 3 evicted -",
                "unreadable - 0 6 7 - offsets of partition 2 of highwater.events that were never read",
                "expired - 0 41 42 - offsets of partition 1 of highwater.events that were never read",
            ],
        ),
        (
            "Rate A",
            &["p50", "p95", "max"],
            vec![
                "10047000 10047000 10000000",
                "20095000 20095000 20000000",
                "30079000 30079000 30000000",
                "- - -",
                "50175000 50175000 50000000",
                "- - -",
            ],
        ),
        ("Rate B", &["metric", "value"], vec!["limit wan-down 80000000"; 5]),
        (
            "Breaches of this link A",
            &["state", "severity", "limit_name", "limit_bps", "mean_bps", "excess_bytes", "reason"],
            vec![
                "open critical wan-down 80000000 85000000 67500 -",
                "cleared warning wan-down 80000000 85000000 37500 below",
            ],
        ),
        ("Breaches", &["text", "tags"], vec!["wan-down, open critical", "wan-down, cleared warning"]),
        ("$agent", &["agent"], vec!["gw-1", "gw-2"]),
        ("$interface", &["interface"], vec!["eth0"]),
    ]
}

#[test]
fn each_query_of_the_dashboard_gives_the_rows_that_it_shows() {
    let test = "containers::each_query_of_the_dashboard_gives_the_rows_that_it_shows";
    let queries = queries(&dashboard());
    let expected = expected();
    let names: Vec<&str> = queries.keys().map(String::as_str).collect();
    let mut expected_names: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    expected_names.sort_unstable();
    assert_eq!(names, expected_names, "a query and its rows");
    let Some(filled) = Filled::new(test) else { return };
    let mut reader = filled.reader();
    // The session of Grafana has whatever time zone its server has.
    for zone in ["UTC", "Asia/Kolkata", "America/Los_Angeles"] {
        reader.batch_execute(&format!("SET TimeZone = '{zone}'")).unwrap();
        for (name, shown, rows) in &expected {
            let found = ask(&mut reader, &filled.choice().interpolate(&queries[*name]));
            assert_eq!(columns(&found, shown), *rows, "{name}, {zone}");
        }
    }
    // Names are data: a quote in one ends no text.
    let quoted = Choice { agent: "gw'1", interface: "eth0' OR 'a' = 'a", ..filled.choice() };
    for (name, sql) in queries.iter().filter(|(_, sql)| sql.contains("'$")) {
        assert_eq!(ask(&mut reader, &quoted.interpolate(sql)).len(), 0, "{name}");
    }
}

/// Up to two days of windows, up to 60 of hours, else days; and only what is drawn is read.
#[test]
fn rates_are_of_windows_hours_or_days() {
    let Some(filled) = Filled::new("containers::rates_are_of_windows_hours_or_days") else { return };
    let sql = &queries(&dashboard())["Rate A"];
    let mut reader = filled.reader();
    for (days, source, rows) in [(1, "rates", 6), (3, "histograms", 1), (59, "histograms", 1), (70, "histograms", 1)] {
        let choice = Choice { from: filled.now - TimeDelta::days(days), ..filled.choice() };
        let sql = choice.interpolate(sql);
        let plan = columns(&ask(&mut reader, &format!("EXPLAIN {sql}")), &["QUERY PLAN"]).join("\n");
        let other = if source == "rates" { "histograms" } else { "rates_" };
        assert!(plan.contains(source) && !plan.contains(other), "{days} days: {plan}");
        let found = ask(&mut reader, &sql);
        assert!((1..=rows).contains(&found.len()), "{days} days: {found:?}");
        assert!(columns(&found, &["max"]).contains(&"50000000".to_owned()), "{days} days: {found:?}");
    }
}

#[test]
fn the_reader_reads_new_tables_and_changes_nothing() {
    let Some(filled) = Filled::new("containers::the_reader_reads_new_tables_and_changes_nothing") else { return };
    filled.database.client().batch_execute("CREATE TABLE of_a_later_version AS SELECT 1 AS one").unwrap();
    let mut reader = filled.reader();
    assert_eq!(columns(&ask(&mut reader, "SELECT one FROM of_a_later_version"), &["one"]), ["1"]);
    // Rights forbid it, and not only the session's default, which its user may change.
    reader.batch_execute("SET default_transaction_read_only = off").unwrap();
    for sql in [
        "DELETE FROM breach_state",
        "UPDATE settings SET silent_after = '1 s'",
        "CREATE TABLE mine (n int)",
        "DROP VIEW agents",
    ] {
        let error = reader.batch_execute(sql).unwrap_err();
        let code = error.code().map(postgres::error::SqlState::code);
        assert_eq!(code, Some("42501"), "{sql}: {error:?}");
    }
}

/// A rate in bit/s must not be shown in bytes, nor a time in another zone.
#[test]
fn the_dashboard_has_the_source_the_units_and_the_zone() {
    let dashboard = dashboard();
    assert_eq!(dashboard["timezone"], "utc");
    let source = read("grafana/provisioning/datasources/highwater.yaml");
    let kind = "grafana-postgresql-datasource";
    for line in ["uid: highwater", &format!("type: {kind}"), "database: highwater", "sslmode: disable"] {
        assert!(source.lines().any(|found| found.trim() == line), "{line}");
    }
    for panel in list(&dashboard["panels"]).filter(|panel| panel["type"] != "row") {
        let title = &panel["title"];
        assert_eq!(
            (&panel["datasource"]["uid"], &panel["datasource"]["type"]),
            (&"highwater".into(), &kind.into()),
            "{title}"
        );
        let unit = |column: &str| {
            let rules = list(&panel["fieldConfig"]["overrides"]).filter(|rule| rule["matcher"]["options"] == column);
            let mut units =
                rules.flat_map(|rule| list(&rule["properties"])).filter(|property| property["id"] == "unit");
            units.next().map(|property| property["value"].clone())
        };
        for sql in list(&panel["targets"]).map(|target| target["rawSql"].as_str().unwrap()) {
            let select = sql.split("\nFROM").next().unwrap();
            for word in select.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                if panel["type"] == "table" && word.ends_with("_bps") {
                    assert_eq!(unit(word), Some("bps".into()), "{title}: {word}");
                }
                if panel["type"] == "table" && word.ends_with("_bytes") {
                    assert_eq!(unit(word), Some("bytes".into()), "{title}: {word}");
                }
            }
        }
        if panel["type"] == "timeseries" {
            assert_eq!(panel["fieldConfig"]["defaults"]["unit"], "bps", "{title}");
        }
    }
}

/// Versions and passwords that are written in two places are the same in both.
#[test]
fn versions_and_passwords_agree() {
    let dockerfile = read("Dockerfile");
    let versions: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("ARG VERSION=")).collect();
    assert_eq!(versions, [env!("CARGO_PKG_VERSION"); 2], "Cargo.toml and docker/Dockerfile");
    let rust = format!("FROM rust:{}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(dockerfile.contains(&rust), "{rust} and docker/Dockerfile");
    let (compose, apps) = (read("compose.yaml"), read("compose.apps.yaml"));
    let mentioned =
        [&compose, &apps, &read("postgres/init.sh"), &read("grafana/provisioning/datasources/highwater.yaml")];
    for password in mentioned.iter().flat_map(|text| text.split("/run/secrets/").skip(1)) {
        let name: String = password.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        assert!(compose.contains(&format!("file: ./secrets/{name}\n")), "{name} is mounted");
    }
    // An image without a version changes by itself.
    for image in compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has a version"));
        assert!(tag.contains('.') && tag.chars().any(|c| c.is_ascii_digit()), "{image} has a version");
    }
    // A port that is published without an address is open to all networks.
    for port in compose.lines().filter_map(|line| line.trim().strip_prefix("- \"")).filter(|line| line.contains(':')) {
        assert!(port.starts_with("127.0.0.1:") || port.starts_with("${KAFKA_HOST:-127.0.0.1}:"), "{port}");
    }
}
