//! The figures of docs/figures.md, from one run: `benches/run` starts the servers and calls this.
//!
//! Each line is a median of at least five; machine and date stand above the tables. What can't be measured says why.

mod counters;
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use highwater::consumer::batch::TopicId;
use highwater::consumer::store::{StoreOptions, StoreUrl};
use highwater::message::histogram::RateHistogram;
use highwater::message::{Body, Breach, Direction, Epoch, Event, EventId, Severity, Stamp};
use highwater::units::ByteCount;
use highwater::wire;
use postgres::Client;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use support::agent::{Agent, until};
use support::certificates::{Authority, write_file};
use support::consumer::{Consumer, Running};
use support::events::{link_rates, noon};
use support::postgres::{Database, Postgres};
use support::proxy::Proxy;
use support::publishing::Publishing;
use support::questions::{QUESTIONS, RatesFill, fill};
use support::services::Kafka;
use support::veth::Veth;

const ROUNDS: usize = 5;
const EVENTS: u64 = 1_000_000;
const WAIT_MAX: Duration = Duration::from_secs(1_800);
/// Messages of rates.
const RATES: u64 = 300_000;
/// Messages of which every second one is no event.
const REFUSED_EVENTS: u64 = 200_000;
/// Messages of which a trigger refuses every second one.
const TRIGGER_EVENTS: u64 = 20_000;
const BREACHES: u32 = 1_200_000;
const QUESTION_ROUNDS: usize = 11;
const CROWD_EVENTS: u64 = 10_000_000;
const FLUSHES: usize = 50;
const FLUSH_EVENTS: u64 = 5;
const URGENT_EVENTS: u64 = 200;

/// Returns a size of the tables of rates, or a part of it: `HIGHWATER_BENCH_SHARE=100` runs a hundredth, to see that it works.
fn scaled(size: u64) -> u64 {
    let share = std::env::var("HIGHWATER_BENCH_SHARE").ok().and_then(|share| share.parse().ok());
    size / share.unwrap_or(1).max(1)
}

fn main() {
    counters::answer();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let sections: [(&str, fn()); 10] = [
        ("readings", readings),
        ("idle", idle),
        ("ticks", ticks),
        ("flush", flush),
        ("wire", wire),
        ("urgent", urgent),
        ("consumer", consumer),
        ("rates", rates),
        ("questions", questions),
        ("simulate", simulate),
    ];
    print_machine();
    for (name, section) in sections {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            section();
        }
    }
}

fn print_machine() {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let date = Utc::now().format("%Y-%m-%d");
    println!("{date}, {cores} cores of{}, Linux {}\n", model.trim_start_matches(['\t', ':']), kernel.trim());
}

fn readings() {
    match counters::table() {
        Ok(table) => println!("{table}"),
        Err(why) => println!("readings: not measured: {why}\n"),
    }
}

/// Measures agents at rest, and at the same time vnstatd, whose shortest interval is 2 s.
fn idle() {
    let Some(kafka) = Kafka::or_skip("figures") else { return };
    let [events, rates] = ["events", "rates"].map(|name| kafka.topic(name, 1));
    let make = |with_rates: bool, brokers: &str| {
        let mut agent = Agent::new(&format!(
            "[topics]\nrates = '{rates}'\n[rates]\nenabled = {with_rates}\n[kafka]\nbrokers = '{brokers}'\ntopic = '{events}'\n\
             [flush]\nlinger = '1s'\n[[limit]]\ninterface = '*'\nraise_at = '100 Gbit/s'\n"
        ));
        (agent.start(&["--quiet"]), agent)
    };
    let agents = [make(true, &kafka.address), make(false, &kafka.address), make(true, "127.0.0.1:1")];
    let vnstat = Vnstat::start();
    // By now the first events are delivered and the connections closed, and what is away is looked for each minute.
    std::thread::sleep(Duration::from_secs(150));
    println!("| at rest, median of {ROUNDS} times 60 s | CPU, ms a second | RSS, kB |\n|---|---|---|");
    let ids: Vec<u32> =
        agents.iter().map(|(running, _)| running.id()).chain(vnstat.as_ref().map(|vnstat| vnstat.child.id())).collect();
    let mut rounds: Vec<Vec<(f64, f64)>> = Vec::new();
    for _ in 0..ROUNDS {
        let before: Vec<f64> = ids.iter().map(|id| cpu_ms(*id)).collect();
        std::thread::sleep(Duration::from_secs(60));
        let used = ids.iter().zip(before).map(|(id, before)| ((cpu_ms(*id) - before) / 60.0, status_kb(*id, "VmRSS")));
        rounds.push(used.collect());
    }
    let names = [
        "highwater-agent, reading each second",
        "the same with `rates.enabled = false`",
        "the same with rates, and no broker to be reached",
        "vnstatd, UpdateInterval 2, PollInterval 2 (its least)",
    ];
    for (at, name) in names.iter().enumerate() {
        if at == ids.len() {
            println!("| {name} | not installed | |");
            continue;
        }
        let cpu = median(rounds.iter().map(|round| round[at].0));
        println!("| {name} | {cpu:.3} | {:.0} |", median(rounds.iter().map(|round| round[at].1)));
    }
    println!();
}

/// Lateness of a tick while a broker swallows everything.
fn ticks() {
    let mut latest = Vec::new();
    for _ in 0..ROUNDS {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut agent = Agent::new(&format!(
            "source = 'synthetic'\n[[limit]]\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '1s'\n\
             [flush]\ninterval = '1s'\n[kafka]\nbrokers = '{}'\n",
            listener.local_addr().expect("it has one")
        ));
        let log = agent.run(&["--for", "12s"]);
        let late = log.split(" skipped, at most ").nth(1).and_then(|rest| rest.split(' ').next());
        latest.push(late.and_then(|ms| ms.parse::<f64>().ok()).unwrap_or_else(|| panic!("no word on ticks: {log}")));
    }
    let worst = latest.iter().copied().fold(0.0, f64::max);
    println!("| the latest tick of 12, broker swallowing, flush each second | ms |\n|---|---|");
    println!("| median of {ROUNDS} runs | {:.1} |\n| worst | {worst:.1} |\n", median(latest.into_iter()));
}

/// The cost of flushes of five events on an open connection to one broker.
fn flush() {
    let proxy = Proxy::new("");
    let Some((kafka, _directory)) = Kafka::start_behind("figures", &proxy) else { return };
    let topic = kafka.topic("flush", 1);
    let mut publishing = Publishing::new(&proxy.address(), &topic, &[]);
    publishing.add(FLUSH_EVENTS);
    publishing.until_delivered();
    let connections = proxy.connections();
    let mut bytes = Vec::new();
    for _ in 0..FLUSHES {
        let before = proxy.bytes();
        publishing.add(FLUSH_EVENTS);
        publishing.until_delivered();
        bytes.push((proxy.bytes() - before) as f64);
    }
    println!("| {FLUSHES} flushes of {FLUSH_EVENTS} events (JSON, zstd) to one broker | |\n|---|---|");
    println!("| TCP payload of a flush, both ways, median | {:.0} B |", median(bytes.iter().copied()));
    println!("| the most | {:.0} B |", bytes.iter().copied().fold(0.0, f64::max));
    println!("| connections made after the first flush | {} |", proxy.connections() - connections);
    println!("| producer ids on the broker | {} |\n", kafka.producers(&topic));
}

/// The cost of rates in frames on a link between the agent and its broker, headers included: three windows in a flush, on a
/// connection of its own, as by default; beside what `check` estimates.
fn wire() {
    let (Some(plain), Some(tls)) = (Veth::or_skip("figures"), Veth::or_skip("figures")) else { return };
    let links = [plain, tls];
    links.iter().for_each(Veth::segment_packets);
    let proxies = links.each_ref().map(|link| Proxy::on_host(&link.host, ""));
    let authority = Authority::new("figures");
    let prepare = |directory: &Path| {
        let leaf = authority.leaf_for("server", &[&links[1].host]);
        write_file(directory, "server.pem", &(leaf.key + &leaf.certificate));
        write_file(directory, "ca.pem", &authority.pem);
        let [plain, tls] = proxies.each_ref().map(Proxy::address);
        write_file(directory, "secure.listeners", &format!("OPEN PLAINTEXT {plain}\nTLS SSL {tls}\n"));
        let location = directory.join("server.pem").display().to_string();
        let of_tls = "listener.name.tls.ssl.keystore";
        write_file(directory, "secure.properties", &format!("{of_tls}.type=PEM\n{of_tls}.location={location}\n"));
        write_file(directory, "secure.users", "");
    };
    let Some((kafka, directory)) = Kafka::secured("figures", prepare) else { return };
    let ca_file = directory.path().join("kafka/ca.pem").display().to_string();
    let ways = ["OPEN", "TLS"].into_iter().zip(links.iter().zip(&proxies));
    let mut agents: Vec<_> = ways
        .map(|(listener, (link, proxy))| {
            proxy.set_upstream(&kafka.listener(listener));
            let (events, rates) = (kafka.topic("wire", 1), kafka.topic("wire", 1));
            let tls = if listener == "TLS" { format!("[kafka.tls]\nca_file = '{ca_file}'\n") } else { String::new() };
            let agent = Agent::new(&format!(
                "source = 'synthetic'\n[flush]\ninterval = '1h'\nlinger = '1s'\n[rates]\nwindow = '10s'\n\
                 max_delay = '30s'\n[topics]\nrates = '{rates}'\n[kafka]\nbrokers = '{}'\ntopic = '{events}'\n{tls}",
                proxy.address()
            ));
            (link, proxy, rates, agent)
        })
        .collect();
    let checked = support::agent::command().arg("check").arg("--config").arg(agents[0].3.config()).output();
    let checked = String::from_utf8_lossy(&checked.expect("it runs").stdout).into_owned();
    let running: Vec<_> = agents
        .iter_mut()
        .map(|(link, .., agent)| agent.start_as(link.at_peer(&support::agent::command()), &["--quiet"]))
        .collect();
    let mut measured = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = agents
            .iter()
            .zip(&running)
            .map(|((link, proxy, topic, _), running)| {
                scope.spawn(|| flushes_of_rates(&kafka, link, proxy, topic, running.id()))
            })
            .collect();
        measured.extend(threads.into_iter().map(|thread| thread.join().expect("it measures")));
    });
    drop(running);
    println!("| rates of 4 links, a flush of 3 windows on a connection of its own, median of {ROUNDS} | plain | TLS |");
    println!("|---|---|---|");
    for (name, of) in [
        ("bytes on the link, both ways, frames with their headers", 0),
        ("packets", 1),
        ("windows", 2),
        ("bytes to disk", 3),
    ] {
        let median = |at: usize| median(measured[at].iter().map(|flush: &[f64; 4]| flush[of]));
        println!("| {name} | {:.0} | {:.0} |", median(0), median(1));
    }
    let a_day = |at: usize, of: usize| {
        let bytes = median(measured[at].iter().map(|flush| flush[of]));
        ByteCount::from_bytes((bytes * 86_400.0 / 30.0) as u64)
    };
    let [plain, tls, disk] = [(0, 0), (1, 0), (0, 3)].map(|(at, of)| a_day(at, of));
    println!("\nA day of these: {plain}, and {tls} with TLS, whose certificate stands alone; {disk} to disk.");
    let cost = checked.lines().find(|line| line.starts_with("cost ")).unwrap_or("check does not say");
    println!("`check`: {cost}\n");
}

/// Bytes, packets, windows and bytes to disk of some flushes, each from the end of the connection before it to the end of its own.
fn flushes_of_rates(kafka: &Kafka, link: &Veth, proxy: &Proxy, topic: &str, id: u32) -> Vec<[f64; 4]> {
    let count = |names: [&str; 2]| names.map(|name| link.statistic(name)).iter().sum::<u64>() as f64;
    let now = || {
        let (bytes, packets) = (count(["rx_bytes", "tx_bytes"]), count(["rx_packets", "tx_packets"]));
        [bytes, packets, kafka.end_offset(topic) as f64, written_bytes(id)]
    };
    let mut flushes: Vec<[f64; 4]> = Vec::new();
    let mut before = None;
    while flushes.len() < ROUNDS {
        let end = before.map_or(0.0, |before: [f64; 4]| before[2]);
        until("a flush, and the end of its connection", || (kafka.end_offset(topic) as f64 > end).then_some(()));
        until("the connection is closed", || (proxy.open() == 0).then_some(()));
        // The last packets of a connection follow its end.
        std::thread::sleep(Duration::from_secs(1));
        let after = now();
        flushes.extend(before.map(|before| [0, 1, 2, 3].map(|at| after[at] - before[at])));
        before = Some(after);
    }
    flushes
}

/// Bytes that a process had written to a block device (proc_pid_io(5)).
fn written_bytes(id: u32) -> f64 {
    let io = fs::read_to_string(format!("/proc/{id}/io")).expect("it runs, and is ours");
    let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("the kernel counts them");
    bytes.parse().expect("a number")
}

/// Time of an urgent breach to its row in PostgreSQL, by the clock of this one machine.
fn urgent() {
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip("figures"), Postgres::or_skip("figures")) else { return };
    let topic = kafka.topic("urgent", 1);
    let database = postgres.database("figures");
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    let storing = consumer.start(&["--quiet"]);
    let mut agent = Agent::new(&format!(
        "source = 'synthetic'\n[[limit]]\nscope = 'host'\ndirection = 'total'\nraise_at = '1 kbit/s'\nseverity = 'critical'\n\
         update_every = '1s'\n[kafka]\nbrokers = '{}'\ntopic = '{topic}'\n",
        kafka.address
    ));
    let running = agent.start(&["--quiet"]);
    std::thread::sleep(Duration::from_secs(URGENT_EVENTS));
    database.until(&format!("SELECT count(*) >= {URGENT_EVENTS} FROM events WHERE breach_id IS NOT NULL"), "(t)");
    drop((running, storing));
    // The first ones wait for the connection and for the group.
    let percentile = |of: f64| {
        let sql = format!(
            "SELECT round((percentile_cont({of}) WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - observed_at) * 1000))::numeric, 1) \
             FROM (SELECT * FROM events WHERE breach_id IS NOT NULL ORDER BY seq OFFSET 5) AS events"
        );
        database.ask(&sql)
    };
    println!(
        "| an urgent breach each second, {URGENT_EVENTS} of them, from observed_at to stored_at | ms |\n|---|---|"
    );
    for (name, of) in [("median", 0.5), ("99 of 100", 0.99), ("worst", 1.0)] {
        println!("| {name} | {} |", percentile(of).trim_matches(['(', ')']));
    }
    println!();
}

/// A topic with a million events into PostgreSQL, beside `\copy` of the same rows into the same table; and topics of which every
/// second message is no event, or a row that the database refuses.
fn consumer() {
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip("figures"), Postgres::or_skip("figures")) else { return };
    for agents in [20, 20_000] {
        beside_copy(&kafka, &postgres, agents);
    }
    memory(&kafka, &postgres, 100_000);
    with_nul(&kafka, &postgres);
    with_trigger(&kafka, &postgres);
}

fn with_nul(kafka: &Kafka, postgres: &Postgres) {
    // An odd number of agents: each has every second number refused, and a range for each of the others.
    let topic = kafka.topic("figures", 1);
    let refused = produce(&kafka.address, &topic, REFUSED_EVENTS, 21, |number| number % 2 == 0);
    let database = postgres.database("figures");
    let started = Instant::now();
    let (status, log) = store_all(kafka, &topic, &database, &mut Vec::new());
    assert!(status.success(), "{log}");
    let pace = REFUSED_EVENTS as f64 / started.elapsed().as_secs_f64();
    let told = format!("({},{})", REFUSED_EVENTS / 2, REFUSED_EVENTS / 2);
    assert_eq!(database.ask("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM dead_letters)"), told);
    let bytes = refused / REFUSED_EVENTS;
    println!("| {REFUSED_EVENTS} messages of {bytes} bytes, every second one with a NUL | messages/s |\n|---|---|");
    println!("| highwater-consumer, start and end included | {pace:.0} |\n");
}

/// Clean messages, into a table whose trigger refuses every second row: each is found, tried alone, and becomes a dead letter.
fn with_trigger(kafka: &Kafka, postgres: &Postgres) {
    let topic = kafka.topic("figures", 1);
    let bytes = produce(&kafka.address, &topic, TRIGGER_EVENTS, 21, |_| false) / TRIGGER_EVENTS;
    let database = postgres.database("figures");
    make_tables(&database);
    psql(
        &database,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN IF NEW.kafka_offset % 2 = 1 THEN RAISE 'not this one'; END IF; RETURN NEW; END$$;
         CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let started = Instant::now();
    let (status, log) = store_all(kafka, &topic, &database, &mut Vec::new());
    assert!(status.success(), "{log}");
    let pace = TRIGGER_EVENTS as f64 / started.elapsed().as_secs_f64();
    let told = format!("({},{})", TRIGGER_EVENTS / 2, TRIGGER_EVENTS / 2);
    assert_eq!(database.ask("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM dead_letters)"), told);
    println!(
        "| {TRIGGER_EVENTS} messages of {bytes} bytes, every second one refused by a trigger | messages/s |\n|---|---|"
    );
    println!("| highwater-consumer, start and end included | {pace:.0} |\n");
}

/// The pace where nearly each event is another agent's.
fn memory(kafka: &Kafka, postgres: &Postgres, agents: u64) {
    let topic = kafka.topic("figures", 6);
    produce(&kafka.address, &topic, EVENTS / 2, agents, |_| false);
    let (database, mut peaks) = (postgres.database("figures"), Vec::new());
    let (status, log) = store_all(kafka, &topic, &database, &mut peaks);
    assert!(status.success(), "{log}");
    println!("| {} events by {agents} agents, from 6 partitions | MB |\n|---|---|", EVENTS / 2);
    println!("| highwater-consumer's greatest RSS | {:.1} |\n", peaks[0] / 1_000.0);
}

/// Windows of a fleet, of two links in both directions each, as from agents that were away for an hour.
fn rates() {
    let rates = scaled(RATES);
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip("figures"), Postgres::or_skip("figures")) else { return };
    let mut lines = Vec::new();
    for agents in [rates / 12, rates / 3] {
        let (events, topic) = (kafka.topic("figures", 1), kafka.topic("figures", 6));
        let bytes = produce_rates(&kafka.address, &topic, rates, agents);
        let (database, hours) = (postgres.database("figures"), kafka.topic("figures", 6));
        make_tables(&database);
        // Hours are published, as by default.
        let mut consumer = Consumer::with(&format!(
            "{}[topics]\nrates = '{topic}'\nhistograms = '{hours}'\n",
            store_config(&kafka, &events, &database)
        ));
        let (started, mut watch) = (Instant::now(), Watch::new(&database));
        let running = start_as_unit(&mut consumer, &["--quiet"]);
        while database.ask("SELECT coalesce(sum(next_offset), 0) FROM kafka_offsets") != format!("({rates})") {
            assert!(started.elapsed() < WAIT_MAX, "not all rates are stored");
            watch.look(running.id());
        }
        let stored = started.elapsed().as_secs_f64();
        wait_for(&database, "SELECT count(*) FROM touched_hours", "(0)");
        let derived = started.elapsed().as_secs_f64();
        let [peak, files] = ["VmHWM", "RssFile"].map(|name| status_kb(running.id(), name) / 1_000.0);
        running.kill();
        assert_eq!(database.ask("SELECT count(*) FROM rates"), format!("({})", rates * 4));
        let pace = rates as f64 / stored;
        let each = bytes / rates;
        lines.push(format!(
            "| {agents} agents, {each} bytes each | {pace:.0} | {:.0} | {:.1} | {peak:.1} | {files:.1} |",
            pace * 4.0,
            derived - stored
        ));
        watch.print(&format!("storing the rates of {agents} agents"));
    }
    println!(
        "| {rates} messages of rates, 2 links in 2 directions each, start and end included | messages/s | rows/s | histograms made, s | greatest RSS, MB | of it files that are mapped, MB |"
    );
    println!("|---|---|---|---|---|---|\n{}\n", lines.join("\n"));
}

/// Produces windows of as many agents, one after the other, and each thousandth a month late; returns the bytes of their payloads.
fn produce_rates(brokers: &str, topic: &str, count: u64, agents: u64) -> u64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "20").set("queue.buffering.max.messages", "100000");
    // Agents send this way.
    config.set("compression.type", "zstd");
    let producer: BaseProducer = config.create().expect("a producer");
    let bps: Vec<u64> = (0..300).map(|second| (second * 7_919_u64 * 104_729) % 50_000_000).collect();
    let links: Vec<_> = ["eth0", "wlan0"]
        .into_iter()
        .flat_map(|interface| [Direction::Rx, Direction::Tx].map(|direction| link_rates(interface, direction, &bps)))
        .collect();
    let begin = Utc::now().duration_trunc(TimeDelta::hours(1)).expect("it is a time") - noon() - TimeDelta::hours(2);
    let mut bytes = 0;
    for number in 0..count {
        let mut event = support::events::rates(&format!("gw-{}", number % agents), 1 + number / agents, links.clone());
        let by = begin - TimeDelta::days(if number % 1_000 == 0 { 30 } else { 0 });
        event.stamp.observed_at += by;
        if let Body::Rates(window) = &mut event.body {
            window.started_at += by;
        }
        let payload = wire::to_json(&event);
        bytes += payload.len() as u64;
        let mut record = BaseRecord::to(topic).key(event.stamp.agent.as_str()).payload(&payload);
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(50));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(120)).expect("all is sent");
    bytes
}

/// Starts the consumer with the environment of its unit, which decides what its allocator keeps.
fn start_as_unit(consumer: &mut Consumer, arguments: &[&str]) -> Running {
    let mut command = support::consumer::command();
    let unit = include_str!("../systemd/highwater-consumer.service");
    let settings = unit.lines().filter_map(|line| line.strip_prefix("Environment=")).flat_map(str::split_whitespace);
    command.envs(settings.filter_map(|setting| setting.split_once('=')));
    consumer.start_as(command, arguments)
}

/// Stores all of a topic; what came of it.
fn store_all(kafka: &Kafka, topic: &str, database: &Database, peaks: &mut Vec<f64>) -> (ExitStatus, String) {
    let mut consumer = Consumer::with(&store_config(kafka, topic, database));
    let mut running = start_as_unit(&mut consumer, &["--until-end", "--quiet"]);
    peaks.push(peak_kb(running.id()));
    (running.wait(), running.log())
}

fn store_config(kafka: &Kafka, topic: &str, database: &Database) -> String {
    let (brokers, url) = (&kafka.address, &database.url);
    format!("[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\ngroup = '{topic}'\n[store]\nurl = '{url}'\n")
}

/// Waits for an answer as long as it takes, and no longer than half an hour.
fn wait_for(database: &Database, question: &str, answer: &str) {
    let started = Instant::now();
    while database.ask(question) != answer {
        assert!(started.elapsed() < WAIT_MAX, "{question} is not {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn make_tables(database: &Database) {
    let options = StoreOptions { instance: "figures".into(), ..StoreOptions::default() };
    let topic = TopicId { cluster: String::new(), name: "highwater.events".into() };
    let mut store = StoreUrl::parse(&database.url, None, None).expect("a URL").open(&options);
    store.checkpoints(&topic).expect("it makes the tables");
}

/// Tables that a batch of events is written to.
const WRITTEN: [&str; 4] = ["events", "breach_state", "totals", "agent_sequences"];

fn beside_copy(kafka: &Kafka, postgres: &Postgres, agents: u64) {
    let topic = kafka.topic("figures", 1);
    let bytes = produce(&kafka.address, &topic, EVENTS, agents, |_| false);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let csv = |table: &str| directory.path().join(table).display().to_string();
    let (mut consumed, mut copied, mut all_copied, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let database = postgres.database("figures");
        make_tables(&database);
        let started = Instant::now();
        let (status, log) = store_all(kafka, &topic, &database, &mut peaks);
        consumed.push(started.elapsed().as_secs_f64());
        assert!(status.success(), "{log}");
        assert_eq!(database.ask("SELECT count(*) FROM events"), format!("({EVENTS})"));
        let columns = WRITTEN.map(|table| given_columns(&database, table));
        for (table, columns) in WRITTEN.iter().zip(&columns) {
            psql(&database, &format!("\\copy (SELECT {columns} FROM {table}) TO '{}'", csv(table)));
            psql(&database, &format!("TRUNCATE {table}"));
        }
        psql(&database, "CHECKPOINT");
        let started = Instant::now();
        for (table, columns) in WRITTEN.iter().zip(&columns) {
            psql(&database, &format!("\\copy {table} ({columns}) FROM '{}'", csv(table)));
            if *table == "events" {
                copied.push(started.elapsed().as_secs_f64());
            }
        }
        all_copied.push(started.elapsed().as_secs_f64());
        psql(&database, &format!("TRUNCATE {}", WRITTEN.join(", ")));
    }
    let ratio = |copied: &[f64]| median(copied.iter().zip(&consumed).map(|(copied, consumed)| copied / consumed));
    let (ratio, of_all) = (ratio(&copied), ratio(&all_copied));
    let pace = |seconds: Vec<f64>| EVENTS as f64 / median(seconds.into_iter());
    println!(
        "| {EVENTS} events of {} bytes by {agents} agents, median of {ROUNDS} | rows/s |\n|---|---|",
        bytes / EVENTS
    );
    println!("| `psql \\copy` into the events table | {:.0} |", pace(copied));
    println!("| `psql \\copy` of all rows: {} | {:.0} |", WRITTEN.join(", "), pace(all_copied));
    println!("| highwater-consumer, Kafka to the same tables, start and end included | {:.0} |", pace(consumed));
    println!("| of `\\copy` of events, pair by pair | {ratio:.2} |");
    println!("| of `\\copy` of all rows, pair by pair | {of_all:.2} |");
    println!("| its greatest RSS, MB | {:.1} |\n", peaks.into_iter().fold(0.0, f64::max) / 1_000.0);
    print_where_time_goes(kafka, &topic, &postgres.database("figures"), agents);
}

/// Columns of a table that a writer gives: the others are generated, and COPY takes none of them.
fn given_columns(database: &Database, table: &str) -> String {
    let columns = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                   WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
    database.client().query_one(columns, &[&table]).expect("the table is there").get(0)
}

/// Another run of storing events, watched.
fn print_where_time_goes(kafka: &Kafka, topic: &str, database: &Database, agents: u64) {
    let (mut watch, mut consumer) = (Watch::new(database), Consumer::with(&store_config(kafka, topic, database)));
    let mut running = start_as_unit(&mut consumer, &["--until-end", "--quiet"]);
    while status_kb(running.id(), "VmHWM") > 0.0 {
        watch.look(running.id());
    }
    assert!(running.wait().success(), "{}", running.log());
    watch.print(&format!("one run with {agents} agents"));
}

/// State of the storing session at each look, and CPU time of each thread of the consumer and of all cores.
struct Watch {
    client: Client,
    started: Instant,
    busy_s: f64,
    seen: BTreeMap<String, u32>,
    looks: u32,
    threads: BTreeMap<(String, String), f64>,
}

impl Watch {
    const DOING: &str = "
        SELECT coalesce(min(CASE
                   WHEN state <> 'active' OR wait_event = 'ClientRead' THEN 'waits for the consumer'
                   WHEN query LIKE 'COPY %' THEN 'COPY of ' || split_part(query, ' ', 2)
                   WHEN query LIKE '%breach_state%' OR query LIKE '%totals%' THEN 'breaches and totals'
                   WHEN query LIKE '%agent_sequences%' THEN 'ranges of numbers'
                   WHEN query LIKE '%touched_hours%' THEN 'notes of hours'
                   WHEN query = 'COMMIT' THEN 'COMMIT'
                   ELSE 'other statements' END), 'not connected')
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
          AND application_name NOT LIKE '%/maintenance' AND application_name NOT LIKE '%/histograms'";

    fn new(database: &Database) -> Self {
        Self {
            client: database.client(),
            started: Instant::now(),
            busy_s: busy_s(),
            seen: BTreeMap::new(),
            looks: 0,
            threads: BTreeMap::new(),
        }
    }

    fn look(&mut self, id: u32) {
        *self.seen.entry(self.client.query_one(Self::DOING, &[]).expect("it answers").get(0)).or_default() += 1;
        self.looks += 1;
        self.threads.extend(cpu_by_thread(id));
        std::thread::sleep(Duration::from_millis(10));
    }

    fn print(self, of: &str) {
        let (seconds, busy) = (self.started.elapsed().as_secs_f64(), busy_s() - self.busy_s);
        println!("| where the {seconds:.1} s of {of} go | s |\n|---|---|");
        for (doing, count) in self.seen {
            println!("| PostgreSQL's session: {doing} | {:.1} |", f64::from(count) * seconds / f64::from(self.looks));
        }
        for ((name, _), ms) in self.threads.into_iter().filter(|(_, ms)| *ms >= 100.0) {
            println!("| CPU of the consumer's thread `{name}` | {:.1} |", ms / 1_000.0);
        }
        println!("| CPU of all processes, Kafka's and PostgreSQL's too | {busy:.1} |\n");
    }
}

/// Seconds that all cores have worked since the machine's start (`/proc/stat`, in hundredths).
fn busy_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
    let idle: f64 = fields.get(3..5).unwrap_or_default().iter().sum();
    // The last two are parts of the first two.
    (fields.iter().take(8).sum::<f64>() - idle) / 100.0
}

/// Questions that people ask the tables, on ten million events and 1.2 million breaches of a month.
fn questions() {
    let Some(postgres) = Postgres::or_skip("figures") else { return };
    let database = postgres.database("questions");
    make_tables(&database);
    let mut client = database.client();
    client.batch_execute("SET work_mem = '512MB'; SET synchronous_commit = off").expect("it is ours");
    fill(&mut client, scaled(BREACHES.into()) as u32);
    psql(&database, "VACUUM ANALYZE");
    psql(&database, "CHECKPOINT");
    // This is as in anybody's session.
    let mut client = database.client();
    let counts =
        "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM breaches), (SELECT count(*) FROM open_breaches)";
    let (events, breaches, open): (i64, i64, i64) = {
        let row = client.query_one(counts, &[]).expect("they are there");
        (row.get(0), row.get(1), row.get(2))
    };
    println!(
        "| {events} events, {breaches} breaches of which {open} are open, {QUESTION_ROUNDS} times each | rows | median, ms | worst, ms | aim, ms |"
    );
    println!("|---|---|---|---|---|");
    for question in QUESTIONS {
        let ask = || client.query(question.sql, &[]).expect("the question is right").len();
        print_times(question.name, question.ms_max, ask);
    }
    for (name, arguments) in [
        ("`highwater-consumer totals --since 30d`", &["totals", "--since", "30d"][..]),
        ("`highwater-consumer losses`", &["losses", "--quiet"]),
    ] {
        print_times(name, 1_000.0, || rows_of_command(&database, arguments));
    }
    println!();
    questions_of_rates(&postgres);
}

/// A month of one link and a day of the fleet, on thirty million windows: 420 gateways of four links for 31 days.
fn questions_of_rates(postgres: &Postgres) {
    let database = postgres.database("rates");
    let options = StoreOptions { instance: "figures".into(), ..StoreOptions::default() };
    let topic = TopicId { cluster: String::new(), name: "highwater.rates".into() };
    StoreUrl::parse(&database.url, None, None).expect("a URL").open(&options).checkpoints(&topic).expect("tables");
    let mut client = database.client();
    client.batch_execute("SET work_mem = '512MB'; SET synchronous_commit = off").expect("it is ours");
    let mut seconds: RateHistogram = RateHistogram::default();
    (1..=300).for_each(|n: u64| seconds.record(n * n * 10_000, 12));
    let agents = scaled(420).max(50) as i32;
    let midnight = RatesFill { agents, links: 4, days: 31, days_with_hours: 3, windows_a_day: 288 }
        .fill(&mut client, &seconds.encode());
    psql(&database, "VACUUM ANALYZE");
    psql(&database, "CHECKPOINT");
    let windows: i64 = client.query_one("SELECT count(*) FROM rates", &[]).expect("they are there").get(0);
    let day = |ago: i64| (midnight - TimeDelta::days(ago)).format("%Y-%m-%dT00:00:00Z").to_string();
    let (month_ago, yesterday, today) = (day(31), day(1), day(0));
    let (noon, later) = (yesterday.replace("T00:00", "T12:00"), yesterday.replace("T00:00", "T12:10"));
    let [paris_yesterday, paris_today] = [&yesterday, &today].map(|day| day.replace('Z', "+01:00"));
    let month = (midnight - TimeDelta::days(1)).format("%Y-%m").to_string();
    let link = ["--agent", "gw-0042", "--interface", "eth1"];
    let times = [&link[..], &["--since", &month_ago, "--until", &today]].concat();
    println!("| {windows} windows, {QUESTION_ROUNDS} times each | rows | median, ms | worst, ms | aim, ms |");
    println!("|---|---|---|---|---|");
    for (name, arguments) in [
        ("`percentile`, a link for a month", [&["percentile", "--month", &month], &link[..]].concat()),
        ("`histogram`, a link for 31 days", [&["histogram"], &times[..]].concat()),
        ("`rates --by window`, a link for 31 days", [&["rates", "--by", "window"], &times[..]].concat()),
        ("`rates --by day`, a link for 31 days", [&["rates", "--by", "day"], &times[..]].concat()),
        ("`histogram`, the fleet for a day", vec!["histogram", "--since", &yesterday, "--until", &today]),
        (
            "`histogram`, the fleet for a day of Paris, from hours",
            vec!["histogram", "--since", &paris_yesterday, "--until", &paris_today],
        ),
        (
            "`rates --by day`, the fleet for a day",
            vec!["rates", "--by", "day", "--since", &yesterday, "--until", &today],
        ),
        (
            "`rates --by window`, the fleet for ten minutes",
            vec!["rates", "--by", "window", "--since", &noon, "--until", &later],
        ),
        ("`histogram`, the fleet for ten minutes", vec!["histogram", "--since", &noon, "--until", &later]),
    ] {
        print_times(name, 1_000.0, || rows_of_command(&database, &arguments));
    }
    println!();
}

/// Runs a command of the consumer, and returns how many rows it prints.
fn rows_of_command(database: &Database, arguments: &[&str]) -> usize {
    let mut command = support::consumer::command();
    command.args(arguments).args(["--format", "json"]).env("HIGHWATER_STORE__URL", &database.url);
    let output = command.output().expect("it runs");
    // 1 is an answer too: `losses` found some.
    assert!(output.status.code() <= Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout.iter().filter(|byte| **byte == b'\n').count()
}

/// Prints a line: how many rows the answer has, and how long it took. The first time, which fills the caches, counts as the worst.
fn print_times(name: &str, ms_max: f64, mut ask: impl FnMut() -> usize) {
    let (mut times, mut rows) = (Vec::new(), 0);
    for _ in 0..QUESTION_ROUNDS {
        let started = Instant::now();
        rows = ask();
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!("| {name} | {rows} | {:.1} | {worst:.1} | {ms_max:.0} |", median(times.into_iter()));
}

/// A million simulated events to Kafka, beside kcat, which sends the same payloads from a file; and ten million of a crowd.
fn simulate() {
    let Some(kafka) = Kafka::or_skip("figures") else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("events.jsonl");
    let file = file.to_str().expect("a path is text");
    let events = EVENTS.to_string();
    Run::of(simulating(&["--events", &events, "--file", file]));
    let bytes = fs::metadata(file).expect("it is written").len() / EVENTS - 1;
    let [ours_to, theirs_to, theirs_by_ours_to] =
        ["simulate", "kcat", "kcat-by-ours"].map(|topic| kafka.topic(topic, 1));
    let runs: [&dyn Fn() -> Command; 3] = [
        &|| simulating(&["--events", &events, "-b", &kafka.address, "-t", &ours_to]),
        &|| kcat(&kafka.address, &theirs_to, file, Librdkafka::Theirs),
        &|| kcat(&kafka.address, &theirs_by_ours_to, file, Librdkafka::Ours),
    ];
    let mut took = [const { Vec::new() }; 3];
    // There and back, since each run burdens the one after it; the first round, in which a new Kafka is slow, is not counted.
    for round in 0..=ROUNDS {
        for turn in 0..runs.len() {
            let which = if round % 2 == 0 { turn } else { runs.len() - 1 - turn };
            let run = Run::of(runs[which]());
            if round > 0 {
                took[which].push(run);
            }
        }
    }
    for topic in [&ours_to, &theirs_to, &theirs_by_ours_to] {
        assert_eq!(end_of(&kafka, topic), (ROUNDS as u64 + 1) * EVENTS, "{topic}");
    }
    let [ours, theirs, theirs_by_ours] = took;
    let version = by(Librdkafka::Theirs).arg("-V").output().expect("kcat runs").stdout;
    let version = String::from_utf8_lossy(&version);
    let version = version.lines().find_map(|line| line.strip_prefix("Version ")).unwrap_or("unknown");
    let version = version
        .split(" builtin.features")
        .next()
        .unwrap_or(version)
        .replace("(JSON, Transactions, IncrementalAssign, ", "(");
    let librdkafka = rdkafka::util::get_rdkafka_version().1;
    println!(
        "kcat {version}), highwater-agent {} (librdkafka {librdkafka}), Apache Kafka 4.3.0\n",
        env!("CARGO_PKG_VERSION")
    );
    println!(
        "| {EVENTS} events of {bytes} bytes to Kafka, median of {ROUNDS} rounds | s | CPU, s | events/s | greatest RSS, MB |"
    );
    println!("|---|---|---|---|---|");
    Run::print("`kcat -P -l`, the same payloads, batching and acks, as many bytes of headers", &theirs, EVENTS);
    Run::print("the same kcat, by the agent's librdkafka", &theirs_by_ours, EVENTS);
    Run::print("highwater-agent simulate", &ours, EVENTS);
    for (name, theirs) in [("kcat", &theirs), ("kcat by the agent's librdkafka", &theirs_by_ours)] {
        let ratio = |of: fn(&Run) -> f64| median(theirs.iter().zip(&ours).map(|(theirs, ours)| of(theirs) / of(ours)));
        let (pace, for_cpu) = (ratio(|run| run.seconds), ratio(|run| run.cpu_seconds));
        println!("\nRound by round, simulate has {pace:.2} times the pace of {name},");
        println!("and {for_cpu:.2} times its pace for each second of CPU.");
    }
    println!();
    let topic = kafka.topic("crowd", 4);
    let crowd = CROWD_EVENTS.to_string();
    let crowd = Run::of(simulating(&["--agents", "100000", "--events", &crowd, "-b", &kafka.address, "-t", &topic]));
    let end = end_of(&kafka, &topic);
    assert_eq!(end, CROWD_EVENTS, "what the topic holds");
    println!("| 100,000 agents | s | CPU, s | events/s | greatest RSS, MB |\n|---|---|---|---|---|");
    Run::print(&format!("{CROWD_EVENTS} events, and the topic's offsets say {end}"), &[crowd], CROWD_EVENTS);
    println!();
}

fn simulating(arguments: &[&str]) -> Command {
    let mut command = support::agent::command();
    command.args(["simulate", "--quiet"]).args(arguments).stdout(Stdio::null());
    command
}

/// Number of messages that a topic was given.
fn end_of(kafka: &Kafka, topic: &str) -> u64 {
    let mut command = support::agent::command();
    command.args(["topics", "--list", "--format", "json", "-b", &kafka.address, "-t", topic]);
    let output = command.output().expect("the agent runs");
    let rows = String::from_utf8_lossy(&output.stdout);
    let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).expect("an object a line"));
    rows.filter(|row| row["topic"] == topic).filter_map(|row| row["messages_max"].as_u64()).sum()
}

/// Time, CPU and memory of one run of a program.
struct Run {
    seconds: f64,
    cpu_seconds: f64,
    peak_kb: f64,
}

impl Run {
    /// Follows a program to its end, which has to be a good one.
    fn of(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let peak_kb = peak_kb(child.id());
        // The process has ended, and is not waited for yet: its times stand (proc_pid_stat(5), in ticks of 10 ms).
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let times = stat.rsplit(')').next().unwrap_or_default().split(' ').skip(12).take(2);
        let ticks: f64 = times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        assert!(child.wait().expect("it is our child").success(), "{command:?}");
        Self { seconds: started.elapsed().as_secs_f64(), cpu_seconds: ticks / 100.0, peak_kb }
    }

    /// The medians of some runs, and the greatest of their sizes.
    fn print(name: &str, runs: &[Self], events: u64) {
        let seconds = median(runs.iter().map(|run| run.seconds));
        let cpu_seconds = median(runs.iter().map(|run| run.cpu_seconds));
        let peak = runs.iter().map(|run| run.peak_kb).fold(0.0, f64::max) / 1_000.0;
        println!("| {name} | {seconds:.2} | {cpu_seconds:.2} | {:.0} | {peak:.1} |", events as f64 / seconds);
    }
}

/// Which library kcat sends by.
#[derive(Clone, Copy)]
enum Librdkafka {
    /// Its own.
    Theirs,
    /// The one that the agent is built with, which cargo puts in `LD_LIBRARY_PATH`.
    Ours,
}

fn by(library: Librdkafka) -> Command {
    let mut command = Command::new("kcat");
    if let Librdkafka::Theirs = library {
        command.env_remove("LD_LIBRARY_PATH");
    }
    command
}

/// kcat, which sends a file, a message a line, with the headers of an event.
fn kcat(brokers: &str, topic: &str, file: &str, library: Librdkafka) -> Command {
    let headers = [
        "ce_specversion=1.0",
        "ce_id=5f0c5f0c5f0c5f0c-12345",
        "ce_source=/highwater/sim-000001",
        "ce_type=io.highwater.breach_updated.v1",
        "ce_time=2026-11-20T12:00:00.123456Z",
        "content-type=application/json",
    ];
    let settings = [
        "enable.idempotence=true",
        "acks=all",
        "linger.ms=5",
        "compression.type=zstd",
        "queue.buffering.max.messages=20000",
        "queue.buffering.max.kbytes=32768",
    ];
    let mut command = by(library);
    command.args(["-P", "-q", "-b", brokers, "-t", topic, "-k", "sim-000001", "-l", file]);
    for header in headers {
        command.args(["-H", header]);
    }
    for setting in settings {
        command.args(["-X", setting]);
    }
    command
}

/// Fills a topic, with a NUL in those messages that are to be `spoilt`; how many bytes of payload that were.
fn produce(brokers: &str, topic: &str, events: u64, agents: u64, spoilt: impl Fn(u64) -> bool) -> u64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "20").set("queue.buffering.max.messages", "100000");
    // Agents send this way.
    config.set("compression.type", "zstd");
    let producer: BaseProducer = config.create().expect("a producer");
    let mut bytes = 0;
    for number in 0..events {
        let mut event = event(number, agents);
        if spoilt(number) {
            event.stamp.boot_id = "\0".to_owned();
        }
        let payload = wire::to_json(&event);
        bytes += payload.len() as u64;
        let mut record = BaseRecord::to(topic).key(event.stamp.agent.as_str()).payload(&payload);
        while let Err((_, refused)) = producer.send(record) {
            producer.poll(Duration::from_millis(5));
            record = refused;
        }
    }
    producer.flush(Duration::from_secs(60)).expect("Kafka takes it");
    bytes
}

/// The next event of one agent after another, a second apart.
fn event(number: u64, agents: u64) -> Event {
    let (agent, seq) = (number % agents, number / agents + 1);
    let raised_at = DateTime::from_timestamp(1_795_176_000, 0).expect("a time");
    let observed_at = raised_at + TimeDelta::seconds(seq as i64);
    let breach = Breach {
        breach_id: format!("{:016x}", (agent << 32) | (seq / 60)).into(),
        started_at: raised_at,
        raised_at,
        ended_at: observed_at,
        limit_name: "wan-down".into(),
        severity: Severity::Warning,
        interface: "eth0".into(),
        ifindex: Some(2),
        direction: Direction::Rx,
        limit_bps: 80_000_000,
        rate_bps: 83_886_080 + seq,
        peak_bps: 93_886_080,
        mean_bps: 82_000_000,
        duration_ms: seq % 60 * 1_000,
        measured_ms: seq % 60 * 1_000,
        excess_bytes: seq * 125,
        reason: None,
        detail: None,
    };
    let stamp = Stamp {
        agent: format!("gw-{agent:03}").into(),
        observed_at,
        boot_id: "6e4f5a0e-6a0e-4ac4-b9d0-1f0b2a9f3c11".into(),
        monotonic_ms: seq * 1_000,
        clock_synced: Some(true),
    };
    Event { id: EventId { epoch: Epoch(agent + 1), seq }, stamp, body: Body::BreachUpdated(breach) }
}

fn psql(database: &Database, command: &str) {
    let output = Command::new("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-c", command, &database.url]).output();
    let output = output.expect("psql runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// vnStat's daemon, with a database of its own.
struct Vnstat {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Vnstat {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let (config, data) = (directory.path().join("vnstat.conf"), directory.path().join("data"));
        fs::create_dir(&data).ok()?;
        let text = format!(
            "DatabaseDir \"{}\"\nUpdateInterval 2\nPollInterval 2\nUseLogging 0\nAlwaysAddNewInterfaces 1\n",
            data.display()
        );
        fs::write(&config, text).ok()?;
        let mut command = Command::new("vnstatd");
        command.args(["--nodaemon", "--config"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok().map(|child| Self { child, _directory: directory })
    }
}

impl Drop for Vnstat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Milliseconds that all threads of a process have run.
fn cpu_ms(id: u32) -> f64 {
    cpu_by_thread(id).values().sum()
}

/// Milliseconds that each thread of a process has run, by its name and number (`schedstat`, in proc_pid_schedstat(5)).
fn cpu_by_thread(id: u32) -> BTreeMap<(String, String), f64> {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let of_thread = |thread: fs::DirEntry| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?.trim().to_owned();
        let ns: f64 = fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()?;
        Some(((name, thread.file_name().to_string_lossy().into_owned()), ns / 1e6))
    };
    threads.filter_map(of_thread).collect()
}

fn status_kb(id: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0.0)
}

/// Follows a process to its end; its greatest resident size.
fn peak_kb(id: u32) -> f64 {
    let mut peak = 0.0;
    loop {
        // A process that has ended, and is not waited for yet, has no memory.
        let now = status_kb(id, "VmHWM");
        if now == 0.0 && peak > 0.0 {
            return peak;
        }
        peak = now.max(peak);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
