//! A broker whose `advertised.listeners` has an address that this host cannot resolve or reach: the client connects to the
//! configured address, and the broker refers it to the other one. Each command reports that address, and what to check.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::agent::{self, Agent, until};
use crate::support::certificates::write_file;
use crate::support::consumer;
use crate::support::pipeline::busy_config;
use crate::support::process::Running;
use crate::support::services::Kafka;

/// A listener, and the address that it names to its clients: one without an address, and one where nobody listens.
const LISTENERS: [(&str, &str); 2] = [("NAMELESS", "no-such-broker.invalid:9092"), ("DEAF", "127.0.0.1:1")];

/// A program, its arguments, and whether it may wait for the broker; otherwise its exit code is 69.
type Case = (fn() -> Command, &'static str, bool);

const COMMANDS: &[Case] = &[
    (agent::command, "topics", false),
    (agent::command, "topics --check", false),
    (agent::command, "topics --list", false),
    (agent::command, "simulate --events 20", true),
    (agent::command, "replay series.csv --limit 10Mbit/s --agent gw --publish", true),
    (consumer::command, "tail", false),
    (consumer::command, "tail --from 10m --until-end", false),
    (consumer::command, "lag", false),
    (consumer::command, "run", true),
    (consumer::command, "run --until-end", true),
];

fn is_explained(text: &str, named: &str) -> bool {
    text.lines().any(|line| line.contains(named) && line.contains("check advertised.listeners of the broker"))
}

fn kafka(test: &str) -> Option<(Kafka, tempfile::TempDir)> {
    Kafka::secured(test, |directory| {
        let lines = LISTENERS.map(|(name, named)| format!("{name} PLAINTEXT {named}\n"));
        write_file(directory, "secure.listeners", &lines.concat());
        write_file(directory, "secure.users", "");
    })
}

#[test]
fn each_command_names_the_address_that_the_cluster_gave_it() {
    let Some((kafka, _home)) = kafka("advertised_listeners::each_command_names_the_address_that_the_cluster_gave_it")
    else {
        return;
    };
    let topic = kafka.topic("advertised", 1);
    let directory = Arc::new(tempfile::tempdir().unwrap());
    fs::write(directory.path().join("series.csv"), "timestamp,value\n1,9000000\n2,1000\n3,9000000\n4,1000\n").unwrap();
    let run = |program: fn() -> Command, arguments: &str, brokers: &str| {
        let mut command = program();
        command.args(arguments.split(' ')).args(["-b", brokers, "-t", &topic]);
        command.current_dir(directory.path()).env("STATE_DIRECTORY", directory.path()).stdin(Stdio::null());
        command
    };
    let stored = run(consumer::command, "run --until-end", &kafka.address).output().unwrap();
    assert!(stored.status.success(), "{}", String::from_utf8_lossy(&stored.stderr));
    // These run at once, since some of them wait for an answer.
    let running: Vec<_> = LISTENERS
        .iter()
        .flat_map(|(listener, named)| COMMANDS.iter().map(move |command| (*listener, *named, command)))
        .zip(0..)
        .map(|((listener, named, (program, arguments, may_wait)), number)| {
            let command = run(*program, arguments, &kafka.listener(listener));
            (Running::start("program", command, &directory, number), named, arguments, *may_wait)
        })
        .collect();
    for (mut running, named, arguments, may_wait) in running {
        let ended = until(&format!("{named} in what `{arguments}` says"), || {
            let ended = running.try_wait();
            (ended.is_some() || may_wait && is_explained(&running.log(), named)).then_some(ended)
        });
        let log = running.log();
        assert!(is_explained(&log, named), "{arguments} at {named}: {log}");
        let code = ended.and_then(|ended| ended.code());
        assert!(code == Some(69) || may_wait && ended.is_none(), "{arguments} at {named}: {code:?}");
    }
}

#[test]
fn the_agent_and_its_status_name_it_too() {
    let Some((kafka, _home)) = kafka("advertised_listeners::the_agent_and_its_status_name_it_too") else { return };
    let topic = kafka.topic("advertised", 1);
    for (listener, named) in LISTENERS {
        let mut agent = Agent::new(&busy_config(&kafka.listener(listener), &topic));
        let running = agent.start(&[]);
        until("the agent's log", || is_explained(&running.log(), named).then_some(()));
        for format in ["table", "json"] {
            let mut status = agent::command();
            status.arg("status").arg("--config").arg(agent.config()).args(["--format", format]);
            let out = until("its status", || {
                let output = status.output().expect("the command runs");
                assert_ne!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
                // A table's cells are wrapped.
                let out = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
                (output.status.code() == Some(1) && is_explained(&out, named)).then_some(out)
            });
            assert!(out.contains(if format == "json" { "\"troubles\":[{" } else { " problem for " }), "{out}");
        }
    }
}
