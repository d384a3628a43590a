//! Usual queries are served by an index. Their times on ten million events are printed by `benches/run questions`.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use highwater::consumer::store::StoreUrl;
use postgres::GenericClient;
use serde_json::Value;

use crate::support::consumer::command;
use crate::support::postgres::{Database, Postgres};
use crate::support::process::until;
use crate::support::questions::{QUESTIONS, RatesFill, fill};
use crate::support::stores::{store_options, topic_id};

pub(crate) fn with_tables(test: &str) -> Option<Database> {
    let database = Postgres::or_skip(test)?.database("questions");
    let mut store = StoreUrl::parse(&database.url, None, None).unwrap().open(&store_options("questions"));
    store.checkpoints(&topic_id("events")).unwrap();
    Some(database)
}

/// Makes the planner believe in 500 times as many rows of the tables that match, and of their indexes, and returns these tables.
pub(crate) fn enlarge(client: &mut impl GenericClient, tables: &str) -> Vec<String> {
    let many = "WITH many AS (UPDATE pg_class SET reltuples = reltuples * 500
                              WHERE relnamespace = 'public'::regnamespace AND reltuples > 0 AND relkind IN ('r', 'i') AND relname ~ $1
                              RETURNING relname::text, relkind)
                SELECT relname FROM many WHERE relkind = 'r'";
    client.query(many, &[&tables]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// A node of a plan that reads a relation.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) node: String,
    pub(crate) relation: String,
    pub(crate) index: String,
    /// False if it reads the relation, or the index, from end to end.
    pub(crate) is_by_condition: bool,
}

pub(crate) fn scans(plan: &Value, found: &mut Vec<Scan>) {
    let text = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    if plan["Node Type"].as_str().is_some_and(|node| node.contains("Scan")) {
        found.push(Scan {
            node: text("Node Type"),
            relation: text("Relation Name"),
            index: text("Index Name"),
            is_by_condition: ["Index Cond", "Recheck Cond"].iter().any(|name| plan[name].is_string()),
        });
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        scans(child, found);
    }
}

#[test]
fn the_plan_of_each_question_uses_its_index() {
    let Some(database) = with_tables("consumer_questions::the_plan_of_each_question_uses_its_index") else { return };
    let mut client = database.client();
    fill(&mut client, 2_400);
    client.batch_execute("ANALYZE").unwrap();
    // Ten million events, 1.2 million breaches.
    let mut transaction = client.transaction().unwrap();
    let large = enlarge(&mut transaction, "^(events_2|breach_state)");
    assert_eq!(large.len(), 3, "{large:?}");
    for question in QUESTIONS {
        let explained = transaction.query_one(&format!("EXPLAIN (FORMAT JSON) {}", question.sql), &[]).unwrap();
        let plan: Value = explained.get(0);
        let mut found = Vec::new();
        scans(&plan[0]["Plan"], &mut found);
        let whole: Vec<_> =
            found.iter().filter(|scan| scan.node == "Seq Scan" && large.contains(&scan.relation)).collect();
        assert!(whole.is_empty(), "{}, {} ms at most: {whole:?}\n{plan:#}", question.name, question.ms_max);
        let served = question.index.is_empty() || found.iter().any(|scan| scan.index.ends_with(question.index));
        assert!(served, "{}: not by {}: {found:?}\n{plan:#}", question.name, question.index);
    }
}

/// A breach whose agent began a new epoch is not open for ever in the views.
#[test]
fn a_question_gives_the_rows_that_it_asks_for() {
    let Some(database) = with_tables("consumer_questions::a_question_gives_the_rows_that_it_asks_for") else { return };
    let mut client = database.client();
    fill(&mut client, 24_000);
    let rows = |client: &mut postgres::Client, name: &str| {
        let question = QUESTIONS.iter().find(|question| question.name == name).unwrap();
        client.query(question.sql, &[]).unwrap().len()
    };
    assert_eq!(rows(&mut client, "the latest 50 open breaches"), 3);
    assert_eq!(rows(&mut client, "the latest 100 breaches"), 100);
    assert_eq!(rows(&mut client, "one breach's events"), 9);
    assert_eq!(rows(&mut client, "the latest 100 events"), 100);
    let begun = "INSERT INTO agent_sequences
                 SELECT agent, 'ffffffffffffffff', 1, 1, 'events', now(), now(), 0 FROM open_breaches ORDER BY raised_at LIMIT 1";
    client.batch_execute(begun).unwrap();
    assert_eq!(rows(&mut client, "the latest 50 open breaches"), 2);
    let states = "SELECT state, count(*) FROM breaches GROUP BY 1";
    assert_eq!(database.ask(states), "(cleared,23997) (open,2) (unknown,1)");
}

/// Returns how often the tables that match were read from end to end since the start, and how many rows indexes found in them.
fn reads(client: &mut postgres::Client, tables: &str) -> (i64, i64) {
    let sql =
        "SELECT coalesce(sum(seq_scan), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint FROM pg_stat_user_tables
               WHERE relname ~ $1";
    let row = client.query_one(sql, &[&tables]).unwrap();
    (row.get(0), row.get(1))
}

/// A month of one link, and a calendar day of the fleet, are found by an index, and little else is read with them.
#[test]
fn commands_read_what_they_answer_from_and_not_whole_tables() {
    let test = "consumer_questions::commands_read_what_they_answer_from_and_not_whole_tables";
    let Some(database) = with_tables(test) else { return };
    let mut client = database.client();
    let days = 35;
    let size = RatesFill { agents: 20, links: 2, days, days_with_hours: days, windows_a_day: 48 };
    let mut histogram: highwater::message::histogram::RateHistogram = Default::default();
    histogram.record(10_000_000, 3_600);
    let midnight = size.fill(&mut client, &histogram.encode());
    fill(&mut client, 2_400);
    client.batch_execute("ANALYZE").unwrap();
    assert!(enlarge(&mut client, "^(rates|window_histograms|histograms|events_2|breach_state)").len() >= 10);
    let day = |ago: i64| (midnight - TimeDelta::days(ago)).format("%Y-%m-%dT00:00:00Z").to_string();
    let month = (midnight - TimeDelta::days(1)).format("%Y-%m").to_string();
    let (month_ago, yesterday, today) = (day(31), day(1), day(0));
    let link = ["--agent", "gw-0007", "--interface", "eth1", "--direction", "tx"];
    let link_for_a_month = [&link[..], &["--since", &month_ago, "--until", &today]].concat();
    let fleet_for_a_day = ["--since", &yesterday, "--until", &today];
    let of_agent: i64 = 31 * 48 * 4;
    // Not whole hours: of windows. Those that end within an hour of the time are looked at.
    let (noon, later) = (yesterday.replace("T00:00", "T12:10"), yesterday.replace("T00:00", "T12:50"));
    let fleet_for_minutes = ["--since", &noon, "--until", &later];
    let of_fleet: i64 = 3 * 20 * 4;
    for (arguments, tables, rows_max) in [
        ([&["percentile"][..], &link, &["--month", &month]].concat(), "^(rates|histograms)", of_agent + 31 * 2),
        ([&["rates", "--by", "window"][..], &link_for_a_month].concat(), "^rates", of_agent),
        ([&["rates", "--by", "day"][..], &link_for_a_month].concat(), "^histograms", 31),
        ([&["histogram"][..], &link_for_a_month].concat(), "^histograms", 31),
        ([&["histogram"][..], &fleet_for_a_day].concat(), "^histograms", 20 * 4),
        ([&["rates", "--by", "day"][..], &fleet_for_a_day].concat(), "^histograms", 20 * 4),
        ([&["rates", "--by", "window"][..], &fleet_for_minutes].concat(), "^rates", of_fleet),
        ([&["histogram"][..], &fleet_for_minutes].concat(), "^(rates|window_histograms)", 2 * of_fleet),
        (vec!["rates", "--by", "window", "-n", "100"], "^rates", 200),
        (vec!["events", "-n", "100"], "^events_2", 1_000),
        (vec!["events", "--agent", "gw-0399", "--since", "1d"], "^events_2", 1_000),
        (vec!["breaches", "--state", "open"], "^breach_state", 100),
        (vec!["breaches", "-n", "100"], "^breach_state", 1_000),
    ] {
        let before = reads(&mut client, tables);
        let output = command().args(&arguments).env("HIGHWATER_STORE__URL", &database.url).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        // Its session ends, and is counted, a moment after it.
        let sessions = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = 'highwater-consumer/reader'";
        until("the session ends", || (client.query_one(sessions, &[]).unwrap().get::<_, i64>(0) == 0).then_some(()));
        let mut after = reads(&mut client, tables);
        // Before PostgreSQL 15, figures pass through a collector.
        let collected = Instant::now() + Duration::from_secs(2);
        while after == before && Instant::now() < collected {
            std::thread::sleep(Duration::from_millis(100));
            after = reads(&mut client, tables);
        }
        let found = (after.0 - before.0, after.1 - before.1);
        assert!(found.0 == 0 && found.1 <= rows_max, "{arguments:?}: {found:?}, at most {rows_max}");
        assert!(found.1 > 0 || arguments.contains(&"open"), "{arguments:?}: {found:?}");
    }
}
