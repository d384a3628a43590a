//! The services of docker/compose.apps.yaml, with the arguments and the environment that they have in their containers: the same
//! programs, between a real Kafka and a real PostgreSQL.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::postgres::Database;
use crate::support::process::{Running, Spawned, is_installed, output_of};
use crate::support::services::{Kafka, kafka_and_postgres};
use crate::support::skips::skip;
use crate::support::{agent, consumer};

/// Returns the services as docker-compose, which brings what reads YAML, makes them of both files and `.env`.
fn services() -> Value {
    let docker = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker");
    let mut compose = Command::new("docker-compose");
    compose.args(["-f", "compose.yaml", "-f", "compose.apps.yaml", "--profile", "simulate", "config"]);
    let mut config = Spawned::start(compose.current_dir(docker).stdout(Stdio::piped()));
    let to_json = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin)['services'], sys.stdout)";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", to_json]).stdin(config.stdout.take().expect("it is piped"));
    let (code, json, error) = output_of(&mut python);
    assert!(config.wait().expect("it is our child").success(), "docker-compose config");
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&json).expect("it is JSON")
}

struct Stack {
    services: Value,
    kafka: Kafka,
    database: Database,
    topics: [String; 2],
    directory: Arc<TempDir>,
    runs: u32,
}

impl Stack {
    /// Starts a service of this name. Addresses are those of this test; all else is as in the file.
    fn start(&mut self, name: &str, more: &[&str]) -> Running {
        let service = &self.services[name];
        let texts = |key: &str| {
            let list = service[key].as_array().into_iter().flatten();
            list.map(|text| text.as_str().expect("a text").to_owned()).collect::<Vec<_>>()
        };
        let (program, mut command) = match service["image"].as_str() {
            Some("highwater-agent") => ("agent", agent::command()),
            Some("highwater-consumer") => ("consumer", consumer::command()),
            image => panic!("{name} has the image {image:?}"),
        };
        let there = ["kafka:19092", "127.0.0.1:9092"];
        let here =
            |text: &str| there.iter().fold(text.to_owned(), |text, there| text.replace(there, &self.kafka.address));
        // That of the image is `run`.
        match &texts("entrypoint")[..] {
            [] => command.arg("run"),
            [_, arguments @ ..] => command.args(arguments),
        };
        command.args(texts("command").iter().map(|argument| here(argument))).args(more);
        for (key, value) in service["environment"].as_object().into_iter().flatten() {
            let value = here(value.as_str().expect("a text"));
            match key.as_str() {
                "HIGHWATER_STORE__URL" => command.env(key, &self.database.url),
                // The URL of the test has a password.
                "HIGHWATER_STORE__PASSWORD_FILE" => &mut command,
                _ => command.env(key, value),
            };
        }
        let [events, rates] = &self.topics;
        command.env("HIGHWATER_KAFKA__TOPIC", events).env("HIGHWATER_TOPICS__RATES", rates);
        // The image has a volume there.
        command.env("STATE_DIRECTORY", self.directory.path().join(name));
        self.runs += 1;
        Running::start(program, command, &self.directory, self.runs)
    }
}

#[test]
fn each_service_does_what_it_is_for() {
    let test = "compose::each_service_does_what_it_is_for";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    if !is_installed("docker-compose") {
        return skip(test, "needs docker-compose");
    }
    let topics = ["compose", "compose-rates"].map(|name| kafka.topic(name, 1));
    let database = postgres.database("compose");
    let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let mut stack = Stack { services: services(), kafka, database, topics, directory, runs: 0 };
    let agents = ["agent", "simulate-host"].map(|name| stack.start(name, &["--for", "15s"]));
    let mut simulate = stack.start("simulate", &[]);
    assert!(simulate.wait().success(), "{}", simulate.log());
    let names = agents.map(|agent| {
        let log = agent.log_at_end();
        let name = log.split("agent ").nth(1).and_then(|rest| rest.split(" started").next());
        name.unwrap_or_else(|| panic!("it says its name: {log}")).to_owned()
    });
    assert_eq!(names[1], "simulated");
    let group = stack.topics[0].clone();
    let mut consumer = stack.start("consumer", &["--until-end", "-g", &group]);
    assert!(consumer.wait().success(), "{}", consumer.log());
    for name in &names {
        stack.database.until(&format!("SELECT count(*) > 0 FROM events WHERE agent = '{name}'"), "(t)");
    }
    let raised = "SELECT count(DISTINCT agent) > 10 FROM breaches WHERE agent LIKE 'sim-%'";
    stack.database.until(raised, "(t)");
    stack.database.until("SELECT count(*) > 0 FROM breaches WHERE agent = 'simulated'", "(t)");
}
