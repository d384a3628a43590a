//! Kafka's ACLs of `docs/secure.md`: with them everything works, and without one of them the programs name it.
//!
//! A user begins without any right. Each right that a program asks for, in the command that it prints, is added, until everything
//! works: what was added has to be what the page lists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::support::agent::{self, Agent};
use crate::support::certificates::write_file;
use crate::support::consumer::{self, Consumer};
use crate::support::process::Running;
use crate::support::services::{self, Kafka};

const TOPICS: [&str; 3] = ["highwater.events", "highwater.rates", "highwater.histograms"];
const RUN_MAX: Duration = Duration::from_secs(60);
const ACLS: &str = "kafka-acls.sh ";

/// Principal, operation, kind of resource, and name, such as `User:x`, `Read`, `topic`, `highwater.events`.
type Right = [String; 4];

/// Returns the rights that a `kafka-acls.sh --add` gives.
fn rights(command: &str) -> Vec<Right> {
    let words: Vec<&str> = command.split_ascii_whitespace().collect();
    let values = |option: &str| -> Vec<String> {
        words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].to_owned()).collect()
    };
    let mut found = Vec::new();
    for principal in values("--allow-principal") {
        for operation in values("--operation") {
            for kind in ["topic", "group"] {
                for name in values(&format!("--{kind}")) {
                    found.push([principal.clone(), operation.clone(), kind.to_owned(), name]);
                }
            }
        }
    }
    assert!(!found.is_empty(), "{command}");
    found
}

/// Returns what the page lists.
fn listed() -> BTreeSet<Right> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/secure.md");
    let text = fs::read_to_string(page).expect("the page").replace("\\\n", " ");
    let lines = text.lines().filter(|line| line.starts_with(ACLS) && line.contains("--add"));
    lines.flat_map(rights).collect()
}

/// A broker that authorizes, and users without any right; anyone is a superuser at its address without SASL.
struct Authorizing {
    kafka: Kafka,
    tables: String,
    files: TempDir,
    _home: TempDir,
    granted: BTreeSet<Right>,
}

impl Authorizing {
    fn new(test: &str, users: &[&str]) -> Option<Self> {
        let logins: String = users.iter().map(|user| format!(" user_{user}=\"s3cret\"")).collect();
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let properties = format!(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS\n\
             listener.name.clear.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.clear.plain.sasl.jaas.config={module} required{logins};\n"
        );
        let (kafka, home) = Kafka::secured(test, |directory| {
            write_file(directory, "secure.listeners", "CLEAR SASL_PLAINTEXT\n");
            write_file(directory, "secure.properties", &properties);
            write_file(directory, "secure.users", "");
        })?;
        let files = tempfile::tempdir().expect("a temporary directory");
        let password = write_file(files.path(), "password", "s3cret");
        let tables = format!(
            "[kafka.tls]\nenabled = false\n[kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'USER'\npassword_file = '{}'\n",
            password.display()
        );
        Some(Self { kafka, tables, files, _home: home, granted: BTreeSet::new() })
    }

    fn brokers(&self) -> String {
        self.kafka.listener("CLEAR")
    }

    fn login(&self, user: &str) -> String {
        self.tables.replace("USER", user)
    }

    fn change(&self, action: &[&str], [principal, operation, kind, name]: &Right) {
        let class = "org.apache.kafka.tools.AclCommand";
        let kind = format!("--{kind}");
        let what = ["--allow-principal", principal, "--operation", operation, &kind, name];
        self.kafka.tool(&[&[class, "--bootstrap-server", &self.kafka.address], action, &what[..]].concat());
    }

    /// Adds the rights that `text` asks for, by the command in it; returns whether it asks for any.
    fn grant(&mut self, user: &str, text: &str) -> bool {
        let Some(from) = text.find(&format!("`{ACLS}")) else { return false };
        let command =
            text[from + 1..].split('`').next().expect("it ends").replace("User:NAME", &format!("User:{user}"));
        for right in rights(&command) {
            self.change(&["--add"], &right);
            assert!(self.granted.insert(right), "it was added before: {text}");
        }
        true
    }

    /// Runs all of `runs`, again and again, until none of them asks for a right; returns what was added.
    fn discover(&mut self, user: &str, runs: &mut [&mut dyn FnMut() -> String]) -> BTreeSet<Right> {
        let before = self.granted.clone();
        for run in runs {
            while self.grant(user, &run()) {}
        }
        self.granted.difference(&before).cloned().collect()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Waits until the log asks for a right or `is_done`, and returns it.
fn until_asked(running: &Running, is_done: impl Fn() -> bool) -> String {
    let began = Instant::now();
    loop {
        let (is_done, log) = (is_done(), running.log());
        if log.contains(&format!("`{ACLS}")) {
            return log;
        }
        if is_done {
            return String::new();
        }
        assert!(began.elapsed() < RUN_MAX, "it neither works nor asks for a right: {log}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn of(user: &str, operation: &str, kind: &str, names: &[&str]) -> BTreeSet<Right> {
    names.iter().map(|name| [&format!("User:{user}"), operation, kind, name].map(str::to_owned)).collect()
}

/// Returns the number of messages in a topic, 0 if it is missing.
fn messages(address: &str, topic: &str) -> usize {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", address).create().expect("a client");
    let metadata = client.fetch_metadata(None, Duration::from_secs(10)).expect("Kafka answers");
    let is_there = metadata.topics().iter().any(|found| found.name() == topic);
    if is_there { services::read(address, topic, "%o\n").len() } else { 0 }
}

/// Returns the number of rows of a SQLite file, 0 if there is no such table.
fn rows(database: &Path, table: &str) -> i64 {
    let open = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let count = |open: Connection| open.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    open.and_then(count).unwrap_or(0)
}

/// Returns the agent's rights: those that any has, those that create topics need beside them, and those of `topics`.
fn agents(broker: &mut Authorizing, user: &str) -> [BTreeSet<Right>; 3] {
    let config = |create: bool| {
        format!(
            "agent = 'gw'\nsource = 'synthetic'\n[[limit]]\nname = 'low'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\n\
             [flush]\ninterval = '500ms'\n[rates]\nwindow = '10s'\nmax_delay = '10s'\n\
             [kafka]\nbrokers = '{}'\ncreate_topics = {create}\n{}",
            broker.brokers(),
            broker.login(user)
        )
    };
    let (creating, plain) = (config(true), config(false));
    let agent = std::cell::RefCell::new(Agent::new(&creating));
    let address = broker.kafka.address.clone();
    let sent = || [TOPICS[0], TOPICS[1]].map(|topic| messages(&address, topic));
    let mut run = || {
        let before = sent();
        let running = agent.borrow_mut().start(&[]);
        until_asked(&running, || sent().iter().zip(before).all(|(now, before)| *now > before))
    };
    let ask = |arguments: &[&str]| {
        let config = agent.borrow().config();
        text(&agent::command().args(arguments).arg("-c").arg(config).output().expect("the agent runs"))
    };
    let mut found = broker.discover(user, &mut [&mut run]);
    // Only `check` knows that the topic of histograms, which the agent does not use, is hidden from it; then it is created.
    found.append(&mut broker.discover(user, &mut [&mut || ask(&["check"])]));
    found.append(&mut broker.discover(user, &mut [&mut run]));
    assert_eq!(messages(&address, TOPICS[2]), 0);
    let (writes, creates) = found.into_iter().partition(|[_, operation, ..]| operation == "Write");
    let describes = broker.discover(user, &mut [&mut || ask(&["topics"])]);
    let all = ask(&["topics", "--check"]);
    assert!(TOPICS.iter().all(|topic| all.contains(topic)) && !all.contains("missing"), "{all}");
    // An agent that creates none needs none of that.
    for right in broker.granted.clone().iter().filter(|[_, operation, ..]| operation != "Write") {
        broker.change(&["--remove", "--force"], right);
    }
    agent.borrow().configure(&plain);
    assert_eq!(broker.discover(user, &mut [&mut run, &mut || ask(&["check"])]), BTreeSet::new());
    let check = ask(&["check"]);
    assert!(!check.contains("FAILED") && check.contains("hidden from this user"), "{check}");
    [writes, creates, describes]
}

/// Returns the rights of a consumer that stores and publishes everything.
fn consumers(broker: &mut Authorizing, user: &str) -> BTreeSet<Right> {
    let database = broker.files.path().join("highwater.db");
    let config = format!(
        "[kafka]\nbrokers = '{}'\n{}[kafka.properties]\n'topic.metadata.refresh.interval.ms' = 2000\n[topics]\n\
         [store]\nurl = 'sqlite:{}'\n",
        broker.brokers(),
        broker.login(user),
        database.display()
    );
    let consumer = std::cell::RefCell::new(Consumer::with(&config));
    let address = broker.kafka.address.clone();
    let mut run = || {
        let running = consumer.borrow_mut().start(&[]);
        let is_stored = || rows(&database, "events") > 0 && rows(&database, "rates") > 0;
        until_asked(&running, || is_stored() && messages(&address, TOPICS[2]) > 0)
    };
    let mut check = || {
        let config = consumer.borrow().config();
        text(&consumer::command().arg("check").arg("-c").arg(config).output().expect("the consumer runs"))
    };
    let found = broker.discover(user, &mut [&mut run]);
    assert_eq!(broker.discover(user, &mut [&mut check]), BTreeSet::new());
    let check = check();
    assert!(!check.contains("FAILED"), "{check}");
    found
}

/// Returns the rights of a person who looks on.
fn onlookers(broker: &mut Authorizing, user: &str) -> BTreeSet<Right> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("consumer.toml");
    let database = broker.files.path().join("highwater.db");
    let brokers = broker.brokers();
    let store = database.display();
    fs::write(
        &config,
        format!("[kafka]\nbrokers = '{brokers}'\n{}[store]\nurl = 'sqlite:{store}'\n", broker.login(user)),
    )
    .expect("it can be written");
    let ask = |arguments: &[&str]| {
        let output = consumer::command().args(arguments).arg("-c").arg(&config).output().expect("the consumer runs");
        let said = text(&output);
        assert!(output.status.success() || said.contains(ACLS), "{arguments:?}: {said}");
        said
    };
    let mut found = BTreeSet::new();
    for topic in TOPICS {
        let mut tail = || ask(&["tail", "-t", topic, "--from", "earliest", "--until-end"]);
        found.append(&mut broker.discover(user, &mut [&mut tail]));
        let said = tail();
        assert!(said.contains(topic) && !said.contains("WARN"), "{said}");
    }
    found.append(&mut broker.discover(user, &mut [&mut || ask(&["lag"])]));
    found
}

#[test]
fn the_acls_of_the_page_are_the_least_that_everything_works_with() {
    let test = "secure_rights::the_acls_of_the_page_are_the_least_that_everything_works_with";
    let users @ [agent, consumer, onlooker] = ["highwater-agent", "highwater-consumer", "operator"];
    let Some(mut broker) = Authorizing::new(test, &users) else { return };
    let [events, rates, hours] = TOPICS;
    let [writes, creates, describes] = agents(&mut broker, agent);
    assert_eq!(writes, of(agent, "Write", "topic", &[events, rates]));
    assert_eq!(creates, &of(agent, "Create", "topic", &TOPICS) | &of(agent, "Describe", "topic", &[hours]));
    assert_eq!(describes, of(agent, "DescribeConfigs", "topic", &TOPICS));
    let reads = consumers(&mut broker, consumer);
    let of_group = of(consumer, "Read", "group", &["highwater"]);
    let topics = &of(consumer, "Read", "topic", &[events, rates]) | &of(consumer, "Write", "topic", &[hours]);
    assert_eq!(reads, &topics | &of_group);
    let looks = onlookers(&mut broker, onlooker);
    assert_eq!(looks, &of(onlooker, "Read", "topic", &TOPICS) | &of(onlooker, "Describe", "group", &["highwater"]));
    // The page has them all, and those of samples, which travel as the rates do.
    let samples = ["highwater.samples"];
    let samples = &of(agent, "Write", "topic", &samples) | &of(consumer, "Read", "topic", &samples);
    let all = [writes, creates, describes, reads, looks, samples].into_iter().flatten();
    assert_eq!(listed(), all.collect::<BTreeSet<Right>>());
}
