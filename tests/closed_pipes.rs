//! A closed pipe (`| head`, `| true`) ends no command in a panic, and none that has work to do.

use std::process::{Command, ExitStatus, Stdio};

use crate::support::agent::{Agent, command};
use crate::support::consumer;

/// Runs `command` with standard output and standard error on a pipe without a reader.
fn unread(command: &mut Command) -> ExitStatus {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a second end")).stderr(writer);
    command.status().expect("the program runs")
}

/// Asserts that each command, its arguments one word each, exits as it does with a reader.
fn exit_alike(program: fn() -> Command, commands: &[&str]) {
    for arguments in commands {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = program();
        command.args(arguments.split(' ')).env("HIGHWATER_KAFKA__BROKERS", "127.0.0.1:9").current_dir(directory.path());
        let read = command.output().expect("the program runs");
        assert!(read.stdout.len() + read.stderr.len() > 0, "{arguments} says something");
        assert_ne!(read.status.code(), Some(101), "{arguments}");
        assert_eq!(unread(&mut command), read.status, "{arguments}");
    }
}

#[test]
fn commands_of_the_agent_end_with_their_own_exit_code() {
    let series = format!("{}/tests/data/ec2_network_in_257a54.csv", env!("CARGO_MANIFEST_DIR"));
    let replay = format!("replay {series} --bytes-per 5min --limit 100kbit/s");
    exit_alike(
        command,
        &[
            "--help",
            "simulate --help",
            "--version",
            "rum",
            "check -v",
            "check -c /nowhere/agent.toml",
            "run -c /nowhere/agent.toml",
            "schema --format proto",
            "status -c /nowhere/agent.toml",
            "topics",
            "topics --list --format json",
            "simulate",
            "simulate --dry-run --events 2000",
            "simulate --dry-run --events 2000 --format json",
            "simulate --dry-run --events 2000 --format csv",
            "simulate --file - --events 2000",
            &replay,
            &format!("{replay} --breaches --format json"),
            &format!("{replay} --breaches --format csv"),
        ],
    );
}

#[test]
fn commands_of_the_consumer_end_with_their_own_exit_code() {
    exit_alike(
        consumer::command,
        &[
            "--help",
            "rum",
            "check",
            "run -c /nowhere/consumer.toml",
            "tail",
            "lag --format csv",
            "losses",
            "totals --format json",
            "totals --format csv",
            "dead-letters list",
            "dead-letters list --raw",
            "dead-letters retry",
        ],
    );
}

#[test]
fn an_agent_goes_on_when_nobody_reads_its_log() {
    let limit = "[[limit]]\ninterface = 'syn*'\nraise_at = '1 Mbit/s'\n";
    let agent = Agent::new(&format!("source = 'synthetic'\n{limit}[kafka]\nbrokers = '127.0.0.1:9'\n"));
    let mut run = command();
    run.args(["run", "--for", "3s", "--config"]).arg(agent.config());
    assert_eq!(unread(&mut run).code(), Some(1));
    let (_, accepted) = agent.accepted();
    assert!(accepted > 2, "{accepted} events: its start, its end, and breaches between them");
}
