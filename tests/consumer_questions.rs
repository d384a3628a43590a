//! Usual queries are served by an index. Their times on ten million events are printed by `benches/run questions`.

use highwater::consumer::batch::TopicId;
use highwater::consumer::store::{StoreOptions, StoreUrl};
use serde_json::Value;

use crate::support::consumer::{Database, Postgres};
use crate::support::questions::{QUESTIONS, fill};

fn with_tables(test: &str) -> Option<Database> {
    let database = Postgres::or_skip(test)?.database("questions");
    let options = StoreOptions { instance: "questions".into(), ..StoreOptions::default() };
    let topic = TopicId { cluster: String::new(), name: "events".into() };
    StoreUrl::parse(&database.url, None, None).unwrap().open(&options).checkpoints(&topic).unwrap();
    Some(database)
}

/// Collects the nodes of a plan that read a relation: their kind, the relation, and the index.
fn scans(plan: &Value, found: &mut Vec<(String, String, String)>) {
    let text = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    if plan["Node Type"].as_str().is_some_and(|node| node.contains("Scan")) {
        found.push((text("Node Type"), text("Relation Name"), text("Index Name")));
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
    // The planner is given 500 times as many: ten million events, 1.2 million breaches.
    let mut transaction = client.transaction().unwrap();
    let many = "UPDATE pg_class SET reltuples = reltuples * 500
                WHERE relnamespace = 'public'::regnamespace AND reltuples > 0 AND relkind IN ('r', 'i')
                  AND (relname ~ '^events_2' OR relname ~ '^breach_state')";
    assert!(transaction.execute(many, &[]).unwrap() >= 5);
    for question in QUESTIONS {
        let explained = transaction.query_one(&format!("EXPLAIN (FORMAT JSON) {}", question.sql), &[]).unwrap();
        let plan: Value = explained.get(0);
        let mut found = Vec::new();
        scans(&plan[0]["Plan"], &mut found);
        let is_large = |relation: &str| relation.starts_with("events_2") || relation == "breach_state";
        let whole: Vec<_> = found.iter().filter(|(node, on, _)| node == "Seq Scan" && is_large(on)).collect();
        assert!(whole.is_empty(), "{}, {} ms at most: {whole:?}\n{plan:#}", question.name, question.ms_max);
        let served = question.index.is_empty() || found.iter().any(|(_, _, index)| index.ends_with(question.index));
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
