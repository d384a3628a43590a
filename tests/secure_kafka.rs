//! Kafka with TLS and SASL: the right settings work; wrong ones hold everything back, are reported, and go on when mended.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::agent;
use crate::support::certificates::{Authority, write_file};
use crate::support::checker::{Sent, Stored};
use crate::support::consumer;
use crate::support::pipeline::{Pipeline, busy_config};
use crate::support::postgres::Postgres;
use crate::support::process::output_of;
use crate::support::rounds::{Fault, Outcome, rounds};
use crate::support::services::Kafka;

const PASSWORD: &str = "right-s3cret";
const WRONG_PASSWORD: &str = "wrong-s3cret";
const PASSPHRASE: &str = "phrase-s3cret";

#[derive(Clone, Copy)]
enum Entry {
    Tls,
    Mutual,
    /// By this mechanism, over TLS.
    Sasl(&'static str),
    /// By PLAIN, without TLS.
    Clear,
}

/// A broker with a listener for each entry, a pipeline that uses one, and the files that both programs share.
struct Secure {
    pipeline: Pipeline,
    kafka: Kafka,
    authority: Authority,
    server: PathBuf,
    files: TempDir,
    _home: TempDir,
}

fn properties(directory: &Path) -> String {
    let store = |name: &str| {
        let directory = directory.display();
        format!(
            "listener.name.{name}.ssl.keystore.type=PEM\nlistener.name.{name}.ssl.keystore.location={directory}/server.pem\n\
             listener.name.{name}.ssl.truststore.type=PEM\nlistener.name.{name}.ssl.truststore.location={directory}/ca.pem\n"
        )
    };
    let modules = "org.apache.kafka.common.security";
    let plain = format!(
        "plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_gw=\"{PASSWORD}\" user_other=\"x\";\n"
    );
    let scram = |name: &str| format!("{name}.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n");
    [
        store("tls"),
        store("mutual"),
        store("sasl"),
        "listener.name.mutual.ssl.client.auth=required\n".to_owned(),
        "listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n".to_owned(),
        format!("listener.name.sasl.{plain}"),
        format!("listener.name.sasl.{}", scram("scram-sha-256")),
        format!("listener.name.sasl.{}", scram("scram-sha-512")),
        "listener.name.clear.sasl.enabled.mechanisms=PLAIN\n".to_owned(),
        format!("listener.name.clear.{plain}"),
    ]
    .concat()
}

impl Secure {
    fn new(test: &str, name: &str, entry: Entry) -> Option<Self> {
        let postgres = Postgres::or_skip(test)?;
        let authority = Authority::new("highwater tests");
        let mut server = PathBuf::new();
        let (kafka, home) = Kafka::secured(test, |directory| {
            server = directory.to_owned();
            let leaf = authority.leaf("server");
            write_file(directory, "server.pem", &(leaf.key + &leaf.certificate));
            write_file(directory, "ca.pem", &authority.pem);
            write_file(directory, "secure.listeners", "TLS SSL\nMUTUAL SSL\nSASL SASL_SSL\nCLEAR SASL_PLAINTEXT\n");
            write_file(directory, "secure.properties", &properties(directory));
            let user = |mechanism: &str| format!("{mechanism}=[name=gw,password={PASSWORD}]\n");
            write_file(directory, "secure.users", &(user("SCRAM-SHA-256") + &user("SCRAM-SHA-512")));
        })?;
        let files = tempfile::tempdir().expect("a temporary directory");
        let listener = match entry {
            Entry::Tls => "TLS",
            Entry::Mutual => "MUTUAL",
            Entry::Sasl(_) => "SASL",
            Entry::Clear => "CLEAR",
        };
        let brokers = kafka.listener(listener);
        let pipeline = Pipeline::new(name, &kafka, &postgres).behind(&brokers);
        let secure = Self { pipeline, kafka, authority, server, files, _home: home };
        secure.mend_files();
        let tables = secure.tables(entry);
        secure.pipeline.agent.configure(&format!("{}{tables}", busy_config(&brokers, &secure.pipeline.topic)));
        secure.pipeline.consumer.append(&tables);
        Some(secure)
    }

    /// Returns the tables of both configurations.
    fn tables(&self, entry: Entry) -> String {
        let file = |name: &str| self.files.path().join(name).display().to_string();
        let tls = format!("[kafka.tls]\nca_file = '{}'\n", file("ca.pem"));
        let sasl = |mechanism: &str| {
            format!(
                "[kafka.sasl]\nmechanism = '{mechanism}'\nusername = 'gw'\npassword_file = '{}'\n",
                file("password")
            )
        };
        match entry {
            Entry::Tls => tls,
            Entry::Mutual => format!(
                "{tls}certificate_file = '{}'\nkey_file = '{}'\nkey_password_file = '{}'\n",
                file("client.pem"),
                file("client.key"),
                file("passphrase")
            ),
            Entry::Sasl(mechanism) => tls + &sasl(mechanism),
            Entry::Clear => format!("[kafka.tls]\nenabled = false\n{}", sasl("PLAIN")),
        }
    }

    fn write_file(&self, name: &str, text: &str) {
        write_file(self.files.path(), name, text);
    }

    /// Writes all files as they should be.
    fn mend_files(&self) {
        self.write_file("ca.pem", &self.authority.pem);
        self.put_client(&self.authority);
        self.write_file("password", PASSWORD);
    }

    fn put_client(&self, authority: &Authority) {
        let client = authority.leaf("gw");
        self.write_file("passphrase", PASSPHRASE);
        self.write_file("client.key", &client.locked_key(PASSPHRASE));
        self.write_file("client.pem", &client.certificate);
    }

    /// Restarts the broker: connections end, and it has another certificate, if one is given.
    fn restart(&self, leaf: Option<crate::support::certificates::Leaf>) {
        self.kafka.kill();
        if let Some(leaf) = leaf {
            write_file(&self.server, "server.pem", &(leaf.key + &leaf.certificate));
        }
        self.kafka.start();
    }

    /// Breaks something while both programs work, waits until both log `remedy`, checks that nothing moves, mends it, and compares.
    fn round(&mut self, remedy: &str, fail: impl FnOnce(&Self), mend: impl FnOnce(&Self)) -> Outcome {
        let consuming = self.pipeline.start_consumer();
        let running = self.pipeline.start_agent();
        self.pipeline.wait_for_events();
        fail(self);
        running.until(remedy);
        consuming.until(remedy);
        let held = || {
            let stored = Stored::read(&self.pipeline.database).expect("PostgreSQL answers").rows.len();
            (Sent::read(self.pipeline.brokers(), &self.pipeline.topic).0.len(), stored)
        };
        let before = held();
        sleep(Duration::from_secs(6));
        assert_eq!(held(), before, "something came through");
        for log in [running.log(), consuming.log()] {
            let lines = log.lines().filter(|line| line.contains(remedy)).count();
            // A line for each address and back-off, not for each attempt.
            assert!(lines <= 6, "{lines} lines:\n{log}");
        }
        mend(self);
        let recovery = self.pipeline.wait_for_events();
        for log in [running.log(), consuming.log()] {
            for secret in [PASSWORD, WRONG_PASSWORD, PASSPHRASE] {
                assert!(!log.contains(secret), "{log}");
            }
        }
        self.pipeline.end_agent(running);
        self.pipeline.drain_agent();
        let outcome = self.pipeline.wait_and_compare();
        drop(consuming);
        assert_eq!(outcome.declared, 0);
        Outcome { recovery: recovery + outcome.recovery, ..outcome }
    }
}

fn fault(name: &'static str, entry: Entry, remedy: &str, fail: fn(&Secure), mend: fn(&Secure)) {
    let fault = Fault { name, short: 1, long: 5, fresh_every: 5 };
    let test = format!("secure_kafka::{}", name.replace('-', "_"));
    if Kafka::or_skip(&test).is_none() || Postgres::or_skip(&test).is_none() {
        return;
    }
    let make = || Secure::new(&test, name, entry).expect("both servers are there");
    rounds(&fault, make, |secure, _| secure.round(remedy, fail, mend));
}

const VERIFY: &str = "check that kafka.tls.ca_file signed the broker's certificate";
const OURS: &str = "check kafka.tls.certificate_file";
const SASL: &str = "check kafka.sasl";

#[test]
fn kafka_wrong_ca() {
    let fail = |secure: &Secure| {
        secure.write_file("ca.pem", &Authority::new("somebody else").pem);
        // The programs that run have read the right one: a broker that comes back with another authority's certificate is the
        // other half of the same fault.
        secure.restart(Some(Authority::new("a third").leaf("server")));
    };
    let mend = |secure: &Secure| {
        secure.mend_files();
        secure.restart(Some(secure.authority.leaf("server")));
    };
    fault("kafka-wrong-ca", Entry::Tls, VERIFY, fail, mend);
}

/// The authority itself is replaced: the programs learn of it from their files, without a restart.
#[test]
fn kafka_ca_rotated() {
    let fail = |secure: &Secure| {
        let new = Authority::new("the new one");
        secure.write_file("new.pem", &new.pem);
        secure.restart(Some(new.leaf("server")));
    };
    let mend = |secure: &Secure| {
        let new = std::fs::read_to_string(secure.files.path().join("new.pem")).expect("it was written");
        secure.write_file("ca.pem", &(secure.authority.pem.clone() + &new));
    };
    fault("kafka-ca-rotated", Entry::Tls, VERIFY, fail, mend);
}

#[test]
fn kafka_wrong_host() {
    let fail = |secure: &Secure| secure.restart(Some(secure.authority.of_another_host()));
    let mend = |secure: &Secure| secure.restart(Some(secure.authority.leaf("server")));
    fault("kafka-wrong-host", Entry::Tls, VERIFY, fail, mend);
}

#[test]
fn kafka_expired() {
    let fail = |secure: &Secure| secure.restart(Some(secure.authority.expired()));
    let mend = |secure: &Secure| secure.restart(Some(secure.authority.leaf("server")));
    fault("kafka-expired", Entry::Tls, VERIFY, fail, mend);
}

/// The broker no longer knows the authority that signed ours, which to it is the same as no certificate.
#[test]
fn kafka_no_client_certificate() {
    let fail = |secure: &Secure| {
        write_file(&secure.server, "ca.pem", &Authority::new("somebody else").pem);
        secure.restart(None);
    };
    let mend = |secure: &Secure| {
        write_file(&secure.server, "ca.pem", &secure.authority.pem);
        secure.restart(None);
    };
    fault("kafka-no-client-certificate", Entry::Mutual, OURS, fail, mend);
}

fn wrong_password(name: &'static str, entry: Entry) {
    // A program that runs has read the right password: it sees the wrong one when it makes another client, which the agent does
    // after its broker was away; the consumer is started with it.
    let fault = Fault { name, short: 1, long: 5, fresh_every: 5 };
    let test = format!("secure_kafka::{}", name.replace('-', "_"));
    if Kafka::or_skip(&test).is_none() || Postgres::or_skip(&test).is_none() {
        return;
    }
    let make = || Secure::new(&test, name, entry).expect("both servers are there");
    rounds(&fault, make, |secure, _| {
        secure.write_file("password", WRONG_PASSWORD);
        let running = secure.pipeline.start_agent();
        let consuming = secure.pipeline.start_consumer();
        running.until(SASL);
        consuming.until(SASL);
        let before = Sent::read(secure.pipeline.brokers(), &secure.pipeline.topic).0.len();
        sleep(Duration::from_secs(6));
        assert_eq!(Sent::read(secure.pipeline.brokers(), &secure.pipeline.topic).0.len(), before, "something was sent");
        for log in [running.log(), consuming.log()] {
            let lines = log.lines().filter(|line| line.contains(SASL)).count();
            assert!(lines <= 6, "{lines} lines:\n{log}");
            assert!(!log.contains(WRONG_PASSWORD), "{log}");
        }
        secure.write_file("password", PASSWORD);
        let recovery = secure.pipeline.wait_for_events();
        assert!(!(running.log() + &consuming.log()).contains(PASSWORD));
        secure.pipeline.end_agent(running);
        secure.pipeline.drain_agent();
        let outcome = secure.pipeline.wait_and_compare();
        assert_eq!(outcome.declared, 0);
        Outcome { recovery: recovery + outcome.recovery, ..outcome }
    });
}

/// A client without TLS or SASL reaches a port that requires it: the broker closes the connection without a word.
#[test]
fn a_port_that_requires_tls_or_sasl_is_named_as_such() {
    let test = "secure_kafka::a_port_that_requires_tls_or_sasl_is_named_as_such";
    if Kafka::or_skip(test).is_none() || Postgres::or_skip(test).is_none() {
        return;
    }
    let secure = Secure::new(test, "closed", Entry::Tls).expect("both servers are there");
    for (listener, remedy) in
        [("TLS", "may expect TLS: see [kafka.tls]"), ("CLEAR", "may require SASL: see [kafka.sasl]")]
    {
        let brokers = secure.kafka.listener(listener);
        for (mut command, arguments) in [
            (agent::command(), &["check"][..]),
            (agent::command(), &["run", "--for", "4s", "--flush", "1s"]),
            (agent::command(), &["topics"]),
            (consumer::command(), &["tail", "--until-end"]),
        ] {
            let home = tempfile::tempdir().expect("a temporary directory");
            command.args(arguments).args(["-b", &brokers, "-t", "closed.events"]).current_dir(&home);
            let (_, out, err) = output_of(command.env("HIGHWATER_STATE_DIR", home.path()));
            assert!(format!("{out}{err}").contains(remedy), "{arguments:?} at {listener}: {out}{err}");
        }
    }
}

#[test]
fn kafka_wrong_password_plain() {
    wrong_password("kafka-wrong-password-plain", Entry::Sasl("PLAIN"));
}

#[test]
fn kafka_wrong_password_scram_256() {
    wrong_password("kafka-wrong-password-scram-256", Entry::Sasl("SCRAM-SHA-256"));
}

#[test]
fn kafka_wrong_password_scram_512() {
    wrong_password("kafka-wrong-password-scram-512", Entry::Sasl("SCRAM-SHA-512"));
}

#[test]
fn kafka_wrong_password_in_the_clear() {
    wrong_password("kafka-wrong-password-in-the-clear", Entry::Clear);
}
