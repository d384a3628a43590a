//! The agent's command line: a mistake is reported in one line that names the remedy, with the exit code of INTERFACE.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt as _;

use crate::support::agent::{Agent, command, until};
use crate::support::process::{Spawned, output_of};

fn run(arguments: &[&str]) -> (i32, String, String) {
    output_of(command().args(arguments))
}

#[test]
fn help_teaches_and_usage_errors_are_2() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("run") && out.contains("check"), "{out}");
    let (code, _, err) = run(&["rum"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("run"), "it names the nearest: {err}");
    let (code, _, err) = run(&["run", "--for", "ages"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn a_wrong_configuration_is_78_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let file = file.to_str().unwrap();
    for (text, says) in [
        ("intervall = '1s'", ":1: unknown key `intervall`; did you mean `interval`?"),
        ("[[limit]]\ninterface = 'eth*'\nraise_at = '80 Mbit/s'\nclear_at = '90 Mbit/s'", ":4: limit.clear_at: "),
        ("[kafka]\nbrokers = ''", ":2: kafka.brokers: is empty"),
        ("[kafka]\nbrokers = 'a:99999'", ":2: kafka.brokers: `a:99999`: `99999` is not a port"),
        (
            "[kafka.properties]\n'sasl.oauthbearer.client.secrett' = 's3cret'",
            ":2: kafka.properties.sasl.oauthbearer.client.secrett: is not a property",
        ),
        ("interval = ", ":1: "),
    ] {
        std::fs::write(file, text).unwrap();
        for command in ["check", "run"] {
            let (code, _, err) = run(&[command, "--config", file]);
            assert_eq!(code, 78, "{text}: {err}");
            assert_eq!(err.lines().count(), 1, "{err}");
            assert!(err.contains(says) && err.contains("agent.toml"), "{text}: {err}");
            assert!(!err.contains("s3cret"), "{err}");
        }
    }
    let (code, _, err) = run(&["run", "--config", "/nowhere/agent.toml"]);
    assert_eq!(code, 78, "{err}");
    assert!(err.contains("/nowhere/agent.toml: cannot be read"), "{err}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, "[kafka]\nbrokers = 'file:1'\ntopic = 'from-file'\n").unwrap();
    let mut check = command();
    check.args(["check", "--offline", "--brokers", "flag:1", "--config"]).arg(&file);
    let output =
        check.env("HIGHWATER_KAFKA__BROKERS", "env:1").env("HIGHWATER_KAFKA__TOPIC", "from-env").output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("from-env at flag:1"), "{out}");
    // An error names the source of the value.
    let output = check.env("HIGHWATER_KAFKA__TOPIC", "from-env").args(["-t", "no topic"]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && err.contains("--topic: "), "{err}");
}

#[test]
fn two_agents_on_one_state_directory_are_one_too_many() {
    let mut agent = Agent::new("source = 'synthetic'\n[kafka]\nbrokers = '127.0.0.1:9'\n");
    let first = agent.start(&[]);
    first.until("reading by synthetic");
    let mut second = agent.start(&[]);
    assert_eq!(second.wait().code(), Some(1));
    assert!(second.log().contains("another agent runs on"), "{}", second.log());
}

#[test]
fn it_ends_in_order_on_a_signal_and_reads_its_configuration_again() {
    let config = "source = 'synthetic'\n[kafka]\nbrokers = '127.0.0.1:9'\n";
    let limit = "[[limit]]\nname = 'low'\ninterface = 'syn*'\nraise_at = '1 Mbit/s'\n";
    let mut agent = Agent::new(config);
    let mut running = agent.start(&[]);
    running.until("nothing can be exceeded");
    agent.configure("interval = 5");
    running.signal("HUP");
    running.until("the previous configuration stays in effect");
    agent.configure(&format!("source = 'synthetic'\n{limit}[kafka]\nbrokers = '127.0.0.1:9'\n"));
    running.signal("HUP");
    running.until("bandwidth exceeded on syn0 rx");
    running.signal("TERM");
    assert_eq!(running.wait().code(), Some(1), "there was no Kafka for its events");
    assert!(running.log().contains("left in the journal"), "{}", running.log());
}

#[test]
fn the_log_has_date_and_zone_unless_it_goes_to_the_journal() {
    let agent = Agent::new("source = 'synthetic'\n[kafka]\nbrokers = '127.0.0.1:9'\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    // Begin of a log line, by systemd's JOURNAL_STREAM: unset, of another stream, or of this one.
    let first_line = |stream: fn(&Metadata) -> Option<String>| {
        let log = File::create(&path).unwrap();
        let mut run = command();
        run.args(["run", "--config"]).arg(agent.config()).env_remove("JOURNAL_STREAM");
        run.envs(stream(&log.metadata().unwrap()).map(|stream| ("JOURNAL_STREAM", stream)));
        let running = Spawned::start(run.stderr(log));
        let log =
            until("a line in the log", || Some(fs::read_to_string(&path).unwrap()).filter(|log| log.contains('\n')));
        drop(running);
        log.lines().next().unwrap().to_owned()
    };
    for elsewhere in [first_line(|_| None), first_line(|log| Some(format!("{}:{}", log.dev(), log.ino() + 1)))] {
        let (time, rest) = elsewhere.split_once(' ').unwrap();
        assert!(time.parse::<chrono::DateTime<chrono::Utc>>().is_ok() && time.ends_with('Z'), "{elsewhere}");
        assert!(rest.starts_with("INFO  agent "), "{elsewhere}");
    }
    let journal = first_line(|log| Some(format!("{}:{}", log.dev(), log.ino())));
    assert!(journal.starts_with("<6>INFO agent "), "{journal}");
}

#[test]
fn a_service_of_kubernetes_is_passed_over_and_a_mistyped_key_is_not() {
    let check = |name: &str| command().args(["check", "--offline"]).env(name, "tcp://10.96.0.1:9092").output().unwrap();
    for name in ["HIGHWATER_PORT", "HIGHWATER_AGENT_SERVICE_HOST", "HIGHWATER_KAFKA_PORT_9092_TCP_ADDR"] {
        assert!(check(name).status.success(), "{name}");
    }
    let mistyped = check("HIGHWATER_KAFKA_BROKERS");
    let error = String::from_utf8_lossy(&mistyped.stderr).into_owned();
    assert!(mistyped.status.code() == Some(78) && error.contains("did you mean HIGHWATER_KAFKA__BROKERS?"), "{error}");
}

#[test]
fn a_port_that_is_none_is_78_for_every_command_of_both_programs() {
    let directory = tempfile::tempdir().unwrap();
    let empty = |name: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, "").unwrap();
        file.display().to_string()
    };
    let (agent, consumer) = (empty("agent.toml"), empty("consumer.toml"));
    let commands =
        ["run", "check", "status", "topics", "simulate", "replay nowhere.csv --limit 1kbit/s --publish --rates"];
    for arguments in commands {
        let more = ["-b", "host:99999", "-c", &agent];
        let (code, _, err) = run(&[&arguments.split(' ').collect::<Vec<_>>()[..], &more].concat());
        assert!(code == 78 && err.contains("`99999` is not a port"), "{arguments}: {code} {err}");
    }
    for arguments in ["run", "check", "tail", "lag", "losses", "totals", "dead-letters list"] {
        let mut command = crate::support::consumer::command();
        let output = command.args(arguments.split(' ')).args(["-b", "host:99999", "-c", &consumer]).output();
        let output = output.expect("the consumer runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && err.contains("`99999` is not a port"), "{arguments}: {err}");
    }
}

#[test]
fn a_new_interval_counts_from_now() {
    let config =
        |interval: &str| format!("interval = '{interval}'\nsource = 'synthetic'\n[kafka]\nbrokers = '127.0.0.1:9'\n");
    let mut agent = Agent::new(&config("1h"));
    let mut running = agent.start(&[]);
    running.until("reading by synthetic");
    agent.configure(&config("1s"));
    running.signal("HUP");
    running.until("the configuration was reloaded");
    until("readings each second", || {
        let status = command().args(["status", "--format", "json", "--config"]).arg(agent.config()).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        (report["ticks"].as_u64() > Some(2)).then_some(())
    });
    running.signal("TERM");
    running.wait();
}
