//! PostgreSQL with TLS: the right settings work; wrong ones store nothing, are reported, and go on when mended.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::certificates::{Authority, Leaf, write_file};
use crate::support::consumer::Consumer;
use crate::support::events::{produce, updated};
use crate::support::postgres::{Database, Postgres};
use crate::support::rounds::{Fault, Outcome, recovered, rounds};
use crate::support::services::Kafka;

/// A server that speaks TLS and asks for a client's certificate, and a consumer's files.
struct Secure {
    kafka: Kafka,
    postgres: Postgres,
    topic: String,
    database: Database,
    consumer: Consumer,
    authority: Authority,
    files: TempDir,
    sent: u64,
}

/// TLS needs a client certificate; the tests themselves connect without TLS.
const MUTUAL: &str = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";

impl Secure {
    fn new(test: &str, name: &str) -> Option<Self> {
        let kafka = Kafka::or_skip(test)?;
        let postgres = Postgres::start_own(test)?;
        let (topic, database) = (kafka.topic(name, 1), postgres.database(&name.replace('-', "_")));
        let (authority, files) = (Authority::new("highwater tests"), tempfile::tempdir().expect("a directory"));
        let (server, password) = address(&database.url);
        let file = |name: &str| files.path().join(name).display().to_string();
        let url = format!(
            "{server}?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            file("ca.pem"),
            file("client.pem"),
            file("client.key")
        );
        let consumer = Consumer::new(&kafka.address, &topic, &url);
        write_file(files.path(), "right", &password);
        consumer.set("[store]", &format!("password_file = '{}'", file("password")));
        std::fs::create_dir_all(postgres.tls_dir()).expect("it is ours");
        let secure = Self { kafka, postgres, topic, database, consumer, authority, files, sent: 0 };
        secure.mend();
        Some(secure)
    }

    fn mend(&self) {
        write_file(self.files.path(), "ca.pem", &self.authority.pem);
        let client = self.authority.leaf("highwater");
        write_file(self.files.path(), "client.key", &client.key);
        write_file(self.files.path(), "client.pem", &client.certificate);
        write_file(self.files.path(), "password", self.password().as_str());
        write_file(&self.postgres.tls_dir(), "hba", MUTUAL);
        write_file(&self.postgres.tls_dir(), "ca.pem", &self.authority.pem);
        self.serve(&self.authority.leaf("server"));
    }

    fn password(&self) -> String {
        std::fs::read_to_string(self.files.path().join("right")).expect("it was written")
    }

    /// Gives the server this certificate, and ends the consumer's connections.
    fn serve(&self, leaf: &Leaf) {
        write_file(&self.postgres.tls_dir(), "server.pem", &leaf.certificate);
        write_file(&self.postgres.tls_dir(), "server.key", &leaf.key);
        self.postgres.reload_tls();
        // A reload takes a moment to reach the listening processes.
        sleep(Duration::from_millis(300));
        let sql =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'highwater-consumer%'";
        self.database.client().execute(sql, &[]).expect("sessions can be ended");
    }

    fn send(&mut self, events: u64) {
        let batch: Vec<_> = (self.sent + 1..=self.sent + events).map(|seq| updated("gw", seq)).collect();
        produce(&self.kafka.address, &self.topic, &batch);
        self.sent += events;
    }

    fn stored(&self) -> u64 {
        self.database.client().query_one("SELECT count(*) FROM events", &[]).expect("it answers").get::<_, i64>(0)
            as u64
    }

    fn round(&mut self, remedy: &str, fail: fn(&Self)) -> Outcome {
        let before = self.sent;
        let running = self.consumer.start(&[]);
        self.send(20);
        recovered("the right ones work", || {
            let sql = "SELECT count(*) FROM pg_tables WHERE tablename = 'events'";
            self.database.ask(sql) == "(1)" && self.stored() == self.sent
        });
        let tls = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'highwater%'";
        assert_eq!(self.database.ask(tls), "(t)");
        fail(self);
        let held = self.stored();
        self.send(20);
        running.until(remedy);
        sleep(Duration::from_secs(6));
        assert_eq!(self.stored(), held, "something was stored");
        let log = running.log();
        let lines = log.lines().filter(|line| line.contains(remedy)).count();
        assert!(lines <= 3, "{lines} lines:\n{log}");
        self.mend();
        let recovery = recovered("the rest is stored", || self.stored() == self.sent);
        self.database.until("SELECT count(*) FROM dead_letters", "(0)");
        self.database.until("SELECT count(*), count(DISTINCT seq), max(seq) FROM events", &{
            let sent = self.sent;
            format!("({sent},{sent},{sent})")
        });
        running.until("the store is available again");
        let log = running.log();
        assert!(!log.contains(&self.password()) && !log.contains("wrong-s3cret"), "{log}");
        Outcome { events: self.sent - before, recovery, ..Outcome::default() }
    }
}

fn address(url: &str) -> (String, String) {
    let (before, host) = url.split_once('@').expect("a URL with a user");
    let (user, password) = before.rsplit_once(':').expect("and a password");
    (format!("{user}@{host}"), password.to_owned())
}

fn fault(name: &'static str, remedy: &str, fail: fn(&Secure)) {
    let fault = Fault { name, short: 1, long: 5, fresh_every: 5 };
    let test = format!("secure_postgres::{}", name.replace('-', "_"));
    if Kafka::or_skip(&test).is_none() || Postgres::or_skip(&test).is_none() {
        return;
    }
    let make = || Secure::new(&test, name).expect("both servers are there");
    rounds(&fault, make, |secure, _| secure.round(remedy, fail));
}

const VERIFY: &str = "check that sslrootcert signed the server's certificate";

#[test]
fn postgres_wrong_ca() {
    fault("postgres-wrong-ca", VERIFY, |secure| {
        write_file(secure.files.path(), "ca.pem", &Authority::new("somebody else").pem);
        secure.serve(&secure.authority.leaf("server"));
    });
}

#[test]
fn postgres_wrong_host() {
    fault("postgres-wrong-host", VERIFY, |secure| secure.serve(&secure.authority.of_another_host()));
}

#[test]
fn postgres_expired() {
    fault("postgres-expired", VERIFY, |secure| secure.serve(&secure.authority.expired()));
}

/// A certificate of an unknown authority, and a key that others may read.
#[test]
fn postgres_no_client_certificate() {
    fault("postgres-no-client-certificate", "check sslcert and sslkey", |secure| {
        let stranger = Authority::new("somebody else").leaf("highwater");
        write_file(secure.files.path(), "client.key", &stranger.key);
        write_file(secure.files.path(), "client.pem", &stranger.certificate);
        secure.serve(&secure.authority.leaf("server"));
    });
}

#[test]
fn postgres_open_key() {
    fault("postgres-open-key", "set its mode to 600", |secure| {
        use std::os::unix::fs::PermissionsExt as _;
        let key = secure.files.path().join("client.key");
        std::fs::set_permissions(Path::new(&key), std::fs::Permissions::from_mode(0o644)).expect("it is ours");
        secure.serve(&secure.authority.leaf("server"));
    });
}

#[test]
fn postgres_wrong_password() {
    fault("postgres-wrong-password", "password authentication failed", |secure| {
        write_file(secure.files.path(), "password", "wrong-s3cret");
        secure.serve(&secure.authority.leaf("server"));
    });
}

/// The consumer looks as it starts: there need not be anything to store.
#[test]
fn a_server_that_need_not_prove_who_it_is_is_warned_of_at_the_start() {
    let test = "secure_postgres::a_server_that_need_not_prove_who_it_is_is_warned_of_at_the_start";
    let Some(mut secure) = Secure::new(test, "postgres-unproven") else { return };
    let text = std::fs::read_to_string(secure.consumer.config()).expect("there is a configuration");
    let ca = secure.files.path().join("ca.pem");
    let proven = format!("sslmode=verify-full&sslrootcert={}", ca.display());
    assert!(text.contains(&proven), "{text}");
    std::fs::write(secure.consumer.config(), text.replace(&proven, "sslmode=require")).expect("it can be written");
    let running = secure.consumer.start(&[]);
    running.until("sslmode=require encrypts, and takes any server for the right one");
    secure.send(20);
    recovered("it is only a warning", || {
        let sql = "SELECT count(*) FROM pg_tables WHERE tablename = 'events'";
        secure.database.ask(sql) == "(1)" && secure.stored() == secure.sent
    });
    assert_eq!(running.log().matches("takes any server for the right one").count(), 1, "{}", running.log());
}
