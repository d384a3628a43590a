//! PostgreSQL as a small plan of a provider has it: a role with a schema of its own and no other right, few connections, short
//! time-outs, poolers, sessions that are ended, servers that are read-only for a while, and versions old and new.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{StoreError, StoreUrl};
use highwater::message::{Direction, Event};

use crate::support::certificates::{Authority, write_file};
use crate::support::consumer::{Consumer, command};
use crate::support::events::{event, link_rates, produce, rates_since, sample, started, updates, utc};
use crate::support::failpoints;
use crate::support::pooler::Pooler;
use crate::support::postgres::{Database, Postgres};
use crate::support::process::{is_installed, output_of, until};
use crate::support::services::{Kafka, kafka_and_own_postgres, kafka_and_postgres};
use crate::support::skips::skip;
use crate::support::stores::{batch_of_events, insert_checkpoint, store_options, topic_id};

const PLAN: &str = "max_connections = 10\nsuperuser_reserved_connections = 3";

/// Settings that a provider gives a role. Those of later versions are left out of servers that do not know them.
const TIME_OUTS: &[(&str, &str)] = &[
    ("statement_timeout", "'2s'"),
    ("lock_timeout", "'100ms'"),
    ("idle_in_transaction_session_timeout", "'1s'"),
    ("idle_session_timeout", "'2s'"),
    ("transaction_timeout", "'1s'"),
    ("search_path", "nowhere, public"),
];

const SCHEMA: &str = "Our own";

/// A database in which a role has a schema, may connect, and may do nothing else.
struct Tenant {
    database: Database,
    role: String,
    /// With the role's password.
    url: String,
}

impl Tenant {
    fn new(postgres: &Postgres, name: &str) -> Self {
        let database = postgres.database(name);
        let role = format!("tenant_{:08x}", fastrand::u32(..));
        let (_, server) = database.url.split_once('@').expect("a password");
        let (_, name) = server.split_once('/').expect("a database");
        let url = format!("postgres://{role}:secret@{server}");
        let mut owner = database.client();
        owner
            .batch_execute(&format!(
                "REVOKE ALL ON DATABASE {name} FROM PUBLIC;
                 REVOKE ALL ON SCHEMA public FROM PUBLIC;
                 CREATE ROLE {role} LOGIN PASSWORD 'secret' NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
                 GRANT CONNECT ON DATABASE {name} TO {role};
                 CREATE SCHEMA \"{SCHEMA}\" AUTHORIZATION {role}"
            ))
            .expect("the owner may");
        for (setting, value) in TIME_OUTS {
            let known = "SELECT count(*) FROM pg_settings WHERE name = $1";
            if owner.query_one(known, &[setting]).expect("it answers").get::<_, i64>(0) == 1 {
                owner.batch_execute(&format!("ALTER ROLE {role} SET {setting} = {value}")).expect("it is a setting");
            }
        }
        Self { database, role, url }
    }

    fn without_time_outs(self) -> Self {
        let reset = format!("ALTER ROLE {} RESET ALL", self.role);
        self.database.client().batch_execute(&reset).expect("a superuser may");
        self
    }

    fn consumer(&self, kafka: &Kafka, topic: &str) -> Consumer {
        let consumer = Consumer::new(&kafka.address, topic, &self.url);
        consumer.set("[store]", &format!("schema = '{SCHEMA}'"));
        consumer
    }

    /// Waits for so many events, each of them once, and no dead letter.
    fn until_stored(&self, events: u64) {
        let sql = format!(
            "SELECT count(*), count(DISTINCT seq), (SELECT count(*) FROM \"{SCHEMA}\".dead_letters) FROM \"{SCHEMA}\".events"
        );
        self.database.until(&sql, &format!("({events},{events},0)"));
    }

    /// Ends all sessions of the role, and returns how many there were.
    fn end_sessions(&self) -> u64 {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        self.database.client().execute(sql, &[&self.role]).expect("a superuser may")
    }
}

fn at(seq: u64, observed_at: DateTime<Utc>) -> Event {
    let mut event = event("gw", seq, started());
    event.stamp.observed_at = observed_at;
    event
}

/// Runs a command of the consumer with its configuration; returns standard output.
fn stdout_of(consumer: &Consumer, arguments: &[&str]) -> String {
    let (code, out, err) = output_of(command().args(arguments).arg("--config").arg(consumer.config()));
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

#[test]
fn a_role_with_one_schema_stores_keeps_and_answers_within_the_plan() {
    let test = "managed_postgres::a_role_with_one_schema_stores_keeps_and_answers_within_the_plan";
    let (Some((kafka, postgres)), Some(())) = (kafka_and_own_postgres(test), failpoints::or_skip(test)) else { return };
    postgres.configure(PLAN);
    let (topic, samples) = (kafka.topic("tenant", 1), kafka.topic("tenant-samples", 1));
    let (rates, hours) = (kafka.topic("tenant-rates", 1), kafka.topic("tenant-hours", 1));
    let tenant = Tenant::new(&postgres, "tenant");
    let mut consumer = tenant.consumer(&kafka, &topic);
    consumer.set("[store]", "partition = 'day'");
    consumer.append(&format!("[topics]\nrates = '{rates}'\nhistograms = '{hours}'\nsamples = '{samples}'\n"));
    let checked = stdout_of(&consumer, &["check"]);
    assert!(checked.contains("has no tables yet; `run` creates them"), "{checked}");
    // Two are outside of the retention.
    let old = (1..=2).map(|seq| at(seq, utc("2024-06-01T12:00:00Z")));
    let now = Utc::now();
    let all: Vec<Event> = old.chain((3..=30).map(|seq| at(seq, now - TimeDelta::days(seq as i64)))).collect();
    produce(&kafka.address, &topic, &all);
    produce(&kafka.address, &samples, &[sample("gw", 1)]);
    let hour_ago = Utc::now() - TimeDelta::hours(1);
    produce(
        &kafka.address,
        &rates,
        &[rates_since(hour_ago, "gw", 1, vec![link_rates("eth0", Direction::Rx, &[50_000_000; 300])])],
    );
    let points = "migration-s=return(3);maintenance-first-s=return(1);maintenance-pause-s=return(3)";
    let running = consumer.start_at(points, &[]);
    tenant.until_stored(30);
    let more =
        format!("SELECT (SELECT count(*) FROM \"{SCHEMA}\".samples), (SELECT count(*) FROM \"{SCHEMA}\".histograms)");
    tenant.database.until(&more, "(1,2)");
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", tenant.role);
    tenant.database.until(&sessions, "(2)");
    // Retention, by a note that is old.
    let old = format!("UPDATE \"{SCHEMA}\".partition_notes SET newest_stored_at = '2020-01-01'");
    tenant.database.client().batch_execute(&old).unwrap();
    running.until("retention: dropped events_2024");
    tenant.until_stored(28);
    // No session was ended for being idle, nor the migration for its length.
    std::thread::sleep(Duration::from_secs(3));
    produce(&kafka.address, &topic, &updates(31..=40));
    tenant.until_stored(38);
    let log = running.log();
    assert!(!log.contains("SQLSTATE") && !log.contains("retrying"), "{log}");
    let month = hour_ago.format("%Y-%m").to_string();
    for question in [
        &["agents"][..],
        &["breaches"],
        &["events"],
        &["losses"],
        &["totals"],
        &["rates", "--by", "window"],
        &["histogram"],
        &["percentile", "--agent", "gw", "--interface", "eth0", "--direction", "rx", "--month", &month],
        &["dead-letters", "list"],
    ] {
        stdout_of(&consumer, question);
    }
    let checked = stdout_of(&consumer, &["check"]);
    assert!(checked.contains("has the tables of this version"), "{checked}");
    running.kill();
}

#[test]
fn a_server_without_room_is_waited_for() {
    let Some((kafka, postgres)) = kafka_and_own_postgres("managed_postgres::a_server_without_room_is_waited_for")
    else {
        return;
    };
    postgres.configure(PLAN);
    let (topic, tenant) = (kafka.topic("full", 1), Tenant::new(&postgres, "full"));
    let neighbours = Tenant::new(&postgres, "neighbours").without_time_outs();
    produce(&kafka.address, &topic, &updates(1..=20));
    let connect = || postgres::Client::connect(&neighbours.url, postgres::NoTls);
    let held: Vec<_> = (0..7).map(|_| connect().expect("there is room")).collect();
    let mut consumer = tenant.consumer(&kafka, &topic);
    let running = consumer.start(&[]);
    running.until("remaining connection slots are reserved");
    running.until("raise the limit that is reached: max_connections of the server");
    drop(held);
    tenant.until_stored(20);
    running.kill();
    // And where the role itself may have few: one that stores, and one more.
    let limit = format!("ALTER ROLE {} CONNECTION LIMIT 2", tenant.role);
    tenant.database.client().batch_execute(&limit).unwrap();
    produce(&kafka.address, &topic, &updates(21..=40));
    let running = consumer.start(&[]);
    tenant.until_stored(40);
    running.kill();
}

#[test]
fn sessions_that_are_ended_at_any_time_cost_nothing() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("managed_postgres::sessions_that_are_ended_at_any_time_cost_nothing")
    else {
        return;
    };
    let (topic, tenant) = (kafka.topic("ended", 1), Tenant::new(&postgres, "ended"));
    let mut consumer = tenant.consumer(&kafka, &topic);
    let running = consumer.start(&[]);
    let (mut sent, mut ended) = (0, 0);
    while ended < 5 {
        assert!(sent < 4_000, "{ended}: {}", running.log());
        produce(&kafka.address, &topic, &updates(sent + 1..=sent + 40));
        sent += 40;
        std::thread::sleep(Duration::from_millis(fastrand::u64(50..500)));
        ended += tenant.end_sessions();
    }
    tenant.until_stored(sent);
    running.until("the store is available again");
}

/// Demotes a server as seen by its clients, or promotes it.
fn set_read_only(database: &Database, value: &str) {
    let mut client = database.client();
    client.batch_execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}")).unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    database.until("SELECT current_setting('default_transaction_read_only')", &format!("({value})"));
}

/// Sessions that were open when the server was demoted are not kept; reading goes on.
#[test]
fn a_server_that_becomes_read_only_is_waited_for() {
    let Some((kafka, postgres)) =
        kafka_and_own_postgres("managed_postgres::a_server_that_becomes_read_only_is_waited_for")
    else {
        return;
    };
    let (topic, tenant) = (kafka.topic("demoted", 1), Tenant::new(&postgres, "demoted"));
    let mut consumer = tenant.consumer(&kafka, &topic);
    let running = consumer.start(&[]);
    produce(&kafka.address, &topic, &updates(1..=20));
    tenant.until_stored(20);
    set_read_only(&tenant.database, "on");
    produce(&kafka.address, &topic, &updates(21..=40));
    running.until("the server is a standby or set to default_transaction_read_only: name the primary in store.url");
    let printed = stdout_of(&consumer, &["events", "--format", "csv"]);
    assert_eq!(printed.lines().count(), 21, "{printed}");
    set_read_only(&tenant.database, "off");
    tenant.until_stored(40);
    running.until("the store is available again");
}

/// `target_session_attrs` has the meaning that it has in libpq.
#[test]
fn of_two_servers_the_one_that_takes_writes_is_found() {
    let test = "managed_postgres::of_two_servers_the_one_that_takes_writes_is_found";
    let (Some(standby), Some(primary)) = (Postgres::start_own(test), Postgres::or_skip(test)) else { return };
    let primary = primary.database("primary");
    let (_, server) = primary.url.split_once('@').unwrap();
    let (server, name) = server.split_once('/').unwrap();
    let role = format!("owner_{:08x}", fastrand::u32(..));
    let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'");
    primary
        .client()
        .batch_execute(&format!("{make}; ALTER DATABASE {name} OWNER TO {role}; GRANT ALL ON SCHEMA public TO {role}"))
        .unwrap();
    let other = standby.database("other");
    let mut client = other.client();
    client.batch_execute(&make).unwrap();
    client.batch_execute(&format!("CREATE DATABASE {name} OWNER {role}")).unwrap();
    set_read_only(&other, "on");
    let both = format!("postgres://{role}:secret@{},{server}/{name}", standby.address());
    store_three(&format!("{both}?target_session_attrs=read-write"), None).unwrap();
    assert_eq!(primary.ask("SELECT count(*) FROM events"), "(3)");
    let error = store_three(&both, None).unwrap_err().to_string();
    assert!(error.contains("name the primary in store.url"), "{error}");
}

/// Stores three events in an empty database.
fn store_three(url: &str, schema: Option<&str>) -> Result<(), StoreError> {
    let mut store = StoreUrl::parse(url, None, schema).expect("a URL").open(&store_options("test"));
    insert_checkpoint(&mut *store, &topic_id("events"), 0, &Checkpoint::default(), None)?;
    store.apply(&batch_of_events(0, &updates(1..=3)), Utc::now()).map(drop)
}

#[test]
fn a_pool_in_session_mode_serves_each_run_and_reader() {
    let test = "managed_postgres::a_pool_in_session_mode_serves_each_run_and_reader";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    if !is_installed("pgbouncer") {
        return skip(test, "needs pgbouncer");
    }
    let (topic, tenant) = (kafka.topic("pooled", 1), Tenant::new(&postgres, "pooled").without_time_outs());
    let of_role = Database { url: tenant.url.clone() };
    let pooler = Pooler::start(&of_role, "session\ndefault_pool_size = 5\nserver_reset_query = DISCARD ALL");
    let consumer_at = |url: &str| {
        let consumer = Consumer::new(&kafka.address, &topic, url);
        consumer.set("[store]", &format!("schema = '{SCHEMA}'"));
        consumer
    };
    let mut consumer = consumer_at(&pooler.url);
    for round in 0..4_u64 {
        produce(&kafka.address, &topic, &updates(round * 10 + 1..=(round + 1) * 10));
        consumer.run_until_end();
        let printed = stdout_of(&consumer, &["events", "--format", "csv"]);
        assert_eq!(printed.lines().count() as u64, (round + 1) * 10 + 1, "{printed}");
    }
    tenant.until_stored(40);
    drop(pooler);
    // Sessions that are handed over as they were left: storing clears them, and `check` needs no names. Reading must not clear them,
    // in a pooler in transaction mode.
    let pooler = Pooler::start(&tenant.database, "session\ndefault_pool_size = 5\nserver_reset_query =");
    let mut consumer = consumer_at(&pooler.url);
    let prepare = |client: &mut postgres::Client| {
        let names = (0..30).map(|number| format!("PREPARE s{number} AS SELECT 1")).collect::<Vec<_>>();
        client.batch_execute(&names.join(";")).unwrap();
    };
    let mut clients: Vec<_> =
        (0..5).map(|_| postgres::Client::connect(&pooler.url, postgres::NoTls).unwrap()).collect();
    clients.iter_mut().for_each(prepare);
    drop(clients);
    let printed = stdout_of(&consumer, &["check"]);
    assert!(printed.contains("has the tables of this version"), "{printed}");
    for round in 4..8_u64 {
        produce(&kafka.address, &topic, &updates(round * 10 + 1..=(round + 1) * 10));
        let (_, log) = consumer.run_until_end();
        assert!(!log.contains("already exists"), "{log}");
    }
    tenant.until_stored(80);
    drop(pooler);
    let pooler = Pooler::start(&tenant.database, "session\ndefault_pool_size = 1\nserver_reset_query =");
    postgres::Client::connect(&pooler.url, postgres::NoTls).unwrap().batch_execute("PREPARE s0 AS SELECT 1").unwrap();
    let consumer = consumer_at(&pooler.url);
    let (code, _, err) = output_of(command().arg("events").arg("--config").arg(consumer.config()));
    assert!(code == 69 && err.contains("set server_reset_query = DISCARD ALL there"), "{code}: {err}");
}

/// `require` takes any certificate, and a root that is named has to have signed it, whatever its name is: as with libpq.
#[test]
fn sslmode_require_asks_for_no_name_at_an_address() {
    let Some(postgres) = Postgres::start_own("managed_postgres::sslmode_require_asks_for_no_name_at_an_address") else {
        return;
    };
    let tenant = Tenant::new(&postgres, "addressed");
    let (authority, files) = (Authority::new("the provider"), tempfile::tempdir().unwrap());
    let (right, wrong) = (
        write_file(files.path(), "right.pem", &authority.pem),
        write_file(files.path(), "wrong.pem", &Authority::new("somebody else").pem),
    );
    let (leaf, directory) = (authority.of_another_host(), postgres.tls_dir());
    std::fs::create_dir_all(&directory).unwrap();
    write_file(&directory, "hba", format!("hostnossl all {} 127.0.0.1/32 reject\n", tenant.role).as_str());
    write_file(&directory, "ca.pem", &authority.pem);
    write_file(&directory, "server.pem", &leaf.certificate);
    write_file(&directory, "server.key", &leaf.key);
    postgres.reload_tls();
    let version = "SELECT current_setting('server_version_num')::int / 10000";
    let major: i32 = tenant.database.client().query_one(version, &[]).unwrap().get(0);
    let try_with = |parameters: &str| store_three(&format!("{}?{parameters}", tenant.url), Some(SCHEMA));
    // A reload takes a moment to reach the listening processes.
    until("TLS is needed", || {
        try_with("sslmode=disable").is_err_and(|error| error.to_string().contains("pg_hba")).then_some(())
    });
    try_with("sslmode=require").unwrap();
    try_with(&format!("sslmode=require&sslrootcert={}", right.display())).unwrap();
    for (mode, root) in [("require", &wrong), ("verify-ca", &wrong), ("verify-full", &right)] {
        let error = try_with(&format!("sslmode={mode}&sslrootcert={}", root.display())).unwrap_err().to_string();
        assert!(error.contains("check that sslrootcert signed the server's certificate"), "{mode}: {error}");
    }
    // Without the question whether the server speaks TLS, which PostgreSQL 17 began to answer.
    if major >= 17 {
        try_with("sslmode=require&sslnegotiation=direct").unwrap();
    }
}

/// The refusal comes before anything is made.
#[test]
fn a_server_that_is_too_old_is_refused_by_name() {
    let test = "managed_postgres::a_server_that_is_too_old_is_refused_by_name";
    let Some(postgres) = Postgres::of_version(test, "12") else { return };
    let database = postgres.database("old");
    let says = "is PostgreSQL 12.22, which is too old: 13 to 18 are supported";
    let StoreError::Misconfigured(error) = store_three(&database.url, None).unwrap_err() else {
        panic!("it is for an operator")
    };
    assert!(error.contains(says), "{error}");
    let findings = StoreUrl::parse(&database.url, None, None).unwrap().check(Utc::now());
    let failed: Vec<String> = findings.iter().filter(|one| one.is_problem()).map(ToString::to_string).collect();
    assert!(failed.len() == 1 && failed[0].starts_with("FAILED") && failed[0].contains(says), "{findings:?}");
    assert_eq!(database.ask("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "(0)");
}
