//! The commands that people call by hand, on a real Kafka.

use crate::support::agent::command;
use crate::support::services::Kafka;

/// `highwater-agent` with these arguments, each word one of them; its exit code and what it printed.
fn run(arguments: &str) -> (i32, String, String) {
    let output = command().args(arguments.split(' ')).output().expect("the agent runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// The objects of a command that was told `--format json`.
fn objects(out: &str) -> Vec<serde_json::Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn topics_are_made_where_they_are_missing_and_left_alone_where_they_differ() {
    let test = "agent_toolbox::topics_are_made_where_they_are_missing_and_left_alone_where_they_differ";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let (brokers, there) = (&kafka.address, kafka.topic("topics", 1));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.toml");
    let text = format!(
        "[kafka]\nbrokers = '{brokers}'\ntopic = '{there}'\n\
         [topics]\nrates = '{there}.r'\nhistograms = '{there}.h'\npartitions = 2\nretention = '3d'\n"
    );
    std::fs::write(&config, text).unwrap();
    let with_config = |arguments: &str| run(&format!("{arguments} --format json --config {}", config.display()));
    let states =
        |out: &str| objects(out).iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>();

    let (code, out, err) = with_config("topics --check");
    assert_eq!((code, states(&out)), (1, vec!["differs".into(), "missing".into(), "missing".into()]), "{err}");
    assert!(out.contains("partitions is 1, not 2; retention.ms is "), "{out}");
    let (code, out, err) = with_config("topics");
    assert_eq!((code, states(&out)), (0, vec!["differs".into(), "made".into(), "made".into()]), "{err}");
    assert!(err.contains("left as it is"), "{err}");
    let (code, out, _) = with_config("topics --check");
    assert_eq!((code, states(&out)), (1, vec!["differs".into(), "as wanted".into(), "as wanted".into()]));

    let (code, out, err) = run(&format!("topics --list -b {brokers} -t {there}.r --format csv"));
    assert_eq!((code, out.lines().count()), (0, 3), "{out} {err}");
    assert!(out.contains(&format!("{there}.r,1,0,,0")), "{out}");
    let (code, out, _) = run(&format!("topics --list -b {brokers}"));
    assert!(code == 0 && out.contains(&there), "{out}");
}

#[test]
fn a_broker_that_is_not_there_is_69_and_says_why() {
    let (code, _, err) = run("topics --check -b 127.0.0.1:9");
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("127.0.0.1:9") && err.contains("Connection refused"), "{err}");
}
