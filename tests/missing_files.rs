//! Certificates and secrets that are not there yet: `check` names the missing file, and `run` waits for it as for a broker.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use highwater::wire::Format;
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

use crate::support::agent::{self, Agent};
use crate::support::certificates::{Authority, write_file};
use crate::support::consumer::{self, Consumer};
use crate::support::pipeline::busy_config;
use crate::support::services::Kafka;

/// Asserts that `check` ends with 78, and names the key and what is wrong with its file.
fn fails(mut program: Command, config: &std::path::Path, key: &str) {
    let output = program.arg("check").arg("--config").arg(config).output().expect("the program runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{err}");
    assert!(err.contains(&format!("{key}: ")) && err.contains("cannot be read: No such file"), "{err}");
}

#[test]
fn the_agent_waits_for_a_ca_of_its_brokers() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("ca.pem");
    let text = format!("[flush]\ninterval = '0s'\n[kafka.tls]\nca_file = '{}'\n", missing.display());
    let mut agent = Agent::new(&text);
    fails(agent::command(), &agent.config(), "kafka.tls.ca_file");
    let running = agent.start(&[]);
    running.until("cannot publish: kafka.tls.ca_file: ");
    // The file is no certificate now, which shows that it was read.
    fs::write(&missing, "nonsense").unwrap();
    running.until("kafka.tls.ca_file cannot be used (no certificate or crl found): ");
    running.signal("TERM");
    let log = running.log_at_end();
    assert!(log.contains("events left in the journal: "), "{log}");
}

#[test]
fn the_consumer_waits_for_a_ca_of_its_brokers() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("ca.pem");
    let text = |ca: &str| {
        let store = directory.path().join("h.db");
        format!("[store]\nurl = 'sqlite:{}'\n[kafka]\nbrokers = '127.0.0.1:9'\n[kafka.tls]\n{ca}", store.display())
    };
    let mut consumer = Consumer::with(&text(&format!("ca_file = '{}'\n", missing.display())));
    fails(consumer::command(), &consumer.config(), "kafka.tls.ca_file");
    let storing = "storing highwater.events from 127.0.0.1:9";
    let mut running = consumer.start(&[]);
    running.until("cannot read from Kafka: kafka.tls.ca_file: ");
    fs::write(&missing, "nonsense").unwrap();
    running.until("kafka.tls.ca_file cannot be used (no certificate or crl found): ");
    assert!(!running.log().contains(storing), "{}", running.log());
    write_file(directory.path(), "ca.pem", &Authority::new("ca").pem);
    running.until(storing);
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());

    // A stop and another configuration are heeded meanwhile.
    fs::remove_file(&missing).unwrap();
    let mut running = consumer.start(&[]);
    running.until("cannot read from Kafka: ");
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    let mut running = consumer.start(&[]);
    running.until("cannot read from Kafka: ");
    fs::write(consumer.config(), text("enabled = false\n")).unwrap();
    running.signal("HUP");
    running.until(storing);
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
}

#[test]
fn the_consumer_waits_for_no_file_where_another_one_would_not_help() {
    let directory = tempfile::tempdir().unwrap();
    let ca = write_file(directory.path(), "ca.pem", &Authority::new("ca").pem);
    let store = directory.path().join("h.db");
    let mut consumer = Consumer::with(&format!(
        "[store]\nurl = 'sqlite:{}'\n[kafka]\nbrokers = '127.0.0.1:9'\n[kafka.tls]\nca_file = '{}'\n[kafka.properties]\n\
         'reconnect.backoff.ms' = 5000\n'reconnect.backoff.max.ms' = 100\n",
        store.display(),
        ca.display()
    ));
    let mut running = consumer.start(&[]);
    assert_eq!(running.wait().code(), Some(78), "{}", running.log());
    assert!(running.log().contains("reconnect.backoff"), "{}", running.log());
}

/// Answers as a schema registry does that knows one schema; returns its URL. Ends with the process.
fn registry(authority: &Authority) -> String {
    let leaf = authority.leaf("registry");
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    tls.set_private_key(&PKey::private_key_from_pem(leaf.key.as_bytes()).unwrap()).unwrap();
    tls.set_certificate(&X509::from_pem(leaf.certificate.as_bytes()).unwrap()).unwrap();
    let (tls, listener) = (tls.build(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(stream) = tls.accept(stream) else { continue };
            let mut stream = BufReader::new(stream);
            let (mut length, mut line) = (0, String::new());
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                let (name, value) = line.split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let _ = stream.read_exact(&mut vec![0; length]);
            let body = serde_json::json!({"id": 7, "schema": Format::Avro.schema()}).to_string();
            let length = body.len();
            let _ = write!(
                stream.get_mut(),
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    url
}

#[test]
fn both_programs_wait_for_a_ca_of_the_schema_registry() {
    let Some(kafka) = Kafka::or_skip("missing_files::both_programs_wait_for_a_ca_of_the_schema_registry") else {
        return;
    };
    let topic = kafka.topic("registry-ca", 1);
    let (authority, directory) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let url = registry(&authority);
    let table = |ca: &str| {
        let ca = directory.path().join(ca);
        format!("[kafka.registry]\nurl = '{url}'\nca_file = '{}'\n", ca.display())
    };
    let (of_agent, of_consumer) = (table("agent.pem"), table("consumer.pem"));
    let mut agent = Agent::new(&format!("{}format = 'avro'\n{of_agent}", busy_config(&kafka.address, &topic)));
    let store = format!("sqlite:{}", directory.path().join("h.db").display());
    let mut consumer = Consumer::new(&kafka.address, &topic, &store);
    consumer.append(&of_consumer);
    fails(agent::command(), &agent.config(), "kafka.registry.ca_file");
    fails(consumer::command(), &consumer.config(), "kafka.registry.ca_file");

    let (running, consuming) = (agent.start(&[]), consumer.start(&["--print"]));
    running.until("cannot publish: kafka.registry.ca_file: ");
    write_file(directory.path(), "agent.pem", &authority.pem);
    running.until("delivered to");
    consuming.until("kafka.registry.ca_file: ");
    assert_eq!(consuming.out(), "", "nothing can be decoded yet");
    write_file(directory.path(), "consumer.pem", &authority.pem);
    crate::support::process::until("an event is stored", || consuming.out().contains("agent_started").then_some(()));
}
