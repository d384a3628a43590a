//! A reader that has gone (`| head`, `| true`) ends no command in a panic, and none that has work to do.

use std::process::{Command, ExitStatus, Stdio};

use crate::support::agent::{Agent, command};
use crate::support::consumer;

/// Runs `command` with standard output and standard error on a pipe that nobody reads.
fn unread(command: &mut Command) -> ExitStatus {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a second end")).stderr(writer);
    command.status().expect("the program runs")
}

/// The exit code with these words as arguments, where there is no broker and no database yet.
fn exit_code(mut command: Command, arguments: &str) -> Option<i32> {
    let directory = tempfile::tempdir().expect("a directory");
    command.args(arguments.split(' ')).env("HIGHWATER_KAFKA__BROKERS", "127.0.0.1:9").current_dir(directory.path());
    unread(&mut command).code()
}

#[test]
fn commands_of_the_agent_end_with_their_own_exit_code() {
    let series = format!("{}/tests/data/ec2_network_in_257a54.csv", env!("CARGO_MANIFEST_DIR"));
    let replay = format!("replay {series} --bytes-per 5min --limit 100kbit/s");
    for (arguments, code) in [
        ("--help", 0),
        ("simulate --help", 0),
        ("--version", 0),
        ("rum", 2),
        ("check -v", 0),
        ("check -c /nowhere/agent.toml", 78),
        ("run -c /nowhere/agent.toml", 78),
        ("schema --format proto", 0),
        ("status -c /nowhere/agent.toml", 78),
        ("topics", 69),
        ("topics --list --format json", 69),
        ("simulate", 69),
        ("simulate --dry-run --events 2000", 0),
        ("simulate --dry-run --events 2000 --format json", 0),
        ("simulate --dry-run --events 2000 --format csv", 0),
        ("simulate --file - --events 2000", 0),
        (&replay, 0),
        (&format!("{replay} --breaches --format json"), 0),
        (&format!("{replay} --breaches --format csv"), 0),
    ] {
        assert_eq!(exit_code(command(), arguments), Some(code), "highwater-agent {arguments}");
    }
}

#[test]
fn commands_of_the_consumer_end_with_their_own_exit_code() {
    for (arguments, code) in [
        ("--help", 0),
        ("rum", 2),
        ("check", 0),
        ("run -c /nowhere/consumer.toml", 78),
        ("tail", 69),
        ("lag --format csv", 69),
        ("losses", 0),
        ("totals --format json", 0),
        ("totals --format csv", 0),
        ("dead-letters list", 0),
        ("dead-letters list --raw", 0),
        ("dead-letters retry", 0),
    ] {
        assert_eq!(exit_code(consumer::command(), arguments), Some(code), "highwater-consumer {arguments}");
    }
}

#[test]
fn an_agent_goes_on_when_nobody_reads_its_log() {
    let limit = "[[limit]]\ninterface = 'syn*'\nraise_at = '1 Mbit/s'\n";
    let agent = Agent::new(&format!("source = 'synthetic'\n{limit}[kafka]\nbrokers = '127.0.0.1:9'\n"));
    let mut run = command();
    run.args(["run", "--for", "3s", "--config"]).arg(agent.config());
    assert_eq!(unread(&mut run).code(), Some(0));
    let (_, accepted) = agent.accepted();
    assert!(accepted > 2, "{accepted} events: its start, its end, and breaches between them");
}
