//! A right, role, schema or database that is missing is named with the SQL that makes it, and the grants of `docs/secure.md` are the
//! least that everything works with.

use std::fs;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{PartitionWidth, Retention, StoreError, StoreUrl};
use highwater::message::Event;

use super::{open_store, options_for, postgres, store_first};
use crate::support::consumer;
use crate::support::events::{event, loss, noon, started, updates};
use crate::support::postgres::{Database, Postgres};
use crate::support::stores::{batch_of_events, insert_checkpoint, topic_id};

/// A missing grant is the operator's to mend, and no message's fault.
#[test]
fn a_revoked_grant_makes_no_dead_letters() {
    let Some(postgres) = postgres("rights::a_revoked_grant_makes_no_dead_letters") else { return };
    let database = postgres.database("revoked");
    let role = format!("writer_{:08x}", fastrand::u32(..));
    let mut owner = database.client();
    owner
        .batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT ALL ON SCHEMA public TO {role}"))
        .unwrap();
    let mut stored = open_store(&database.url_of(&role), None);
    store_first(&mut *stored, &updates(1..=5)).unwrap();
    let mut next = 6;
    for table in ["events", "breach_state", "totals", "agent_sequences", "losses"] {
        for right in ["INSERT", "UPDATE", "SELECT"] {
            let told: Vec<Event> =
                updates(next..=next + 3).into_iter().chain([event("gw", next + 4, loss(900, 901))]).collect();
            owner.batch_execute(&format!("REVOKE {right} ON {table} FROM {role}")).unwrap();
            let from = next as i64 - 1;
            // Not every right is used, and what is before a row that needs it is stored.
            if let Err(error) = stored.apply(&batch_of_events(from, &told), Utc::now()) {
                let is_told = matches!(&error, StoreError::Misconfigured(text) if text.contains("GRANT"));
                assert!(is_told, "{right} ON {table}: {error:?}");
                owner.batch_execute(&format!("GRANT {right} ON {table} TO {role}")).unwrap();
                stored.apply(&batch_of_events(from, &told), Utc::now()).unwrap();
            }
            owner.batch_execute(&format!("GRANT {right} ON {table} TO {role}")).unwrap();
            assert_eq!(database.ask("SELECT count(*) FROM events"), format!("({})", next + 4), "{right} ON {table}");
            assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(0)", "{right} ON {table}");
            next += 5;
        }
    }
}

#[test]
fn what_can_not_be_stored_in_is_refused_by_name_with_what_mends_it() {
    let Some(postgres) = postgres("rights::what_can_not_be_stored_in_is_refused_by_name_with_what_mends_it") else {
        return;
    };
    let refused = |url: &str| match open_store(url, None).checkpoints(&topic_id("events")).unwrap_err() {
        StoreError::Misconfigured(text) => text,
        other => panic!("{other:?}"),
    };
    let database = postgres.database("refused");
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    let mut client = database.client();
    // Not UTF8.
    client
        .batch_execute(&format!(
            "CREATE DATABASE {name}_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))
        .unwrap();
    let ascii = Database { url: format!("{}_ascii", database.url) };
    let said = refused(&ascii.url);
    assert!(said.contains("SQL_ASCII") && said.contains("ENCODING 'UTF8'"), "{said}");
    assert!(open_store(&ascii.url, Some("highwater")).checkpoints(&topic_id("events")).is_err());
    let made = "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
                       (SELECT count(*) FROM pg_namespace WHERE nspname = 'highwater')";
    assert_eq!(ascii.ask(made), "(0,0)", "it is refused before anything is made");
    // Tables of another program; a schema of our own helps, and another tool's migrations do not matter.
    client.batch_execute("CREATE TABLE events (a int); CREATE TABLE refinery_schema_history (b int)").unwrap();
    let said = refused(&database.url);
    assert!(said.contains("store.schema = \"highwater\""), "{said}");
    let mut own = open_store(&database.url, Some("highwater"));
    assert_eq!(store_first(&mut *own, &updates(1..=3)).unwrap().inserted, 3);
    assert_eq!(database.ask("SELECT count(*) FROM highwater.events"), "(3)");
    assert_eq!(database.ask("SELECT count(*) FROM public.events"), "(0)");
    // Since PostgreSQL 15, only its owner makes tables in public.
    let role = format!("reader_{:08x}", fastrand::u32(..));
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).unwrap();
    let other = postgres.database("refused");
    other.client().batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
    let url = other.url_of(&role);
    let mend = |said: &str, begin: &str| {
        let from = said.find(begin).unwrap_or_else(|| panic!("{begin}: {said}"));
        other.client().batch_execute(said[from..].split(';').next().unwrap()).unwrap();
    };
    let StoreError::Misconfigured(said) = open_store(&url, Some("own")).checkpoints(&topic_id("events")).unwrap_err()
    else {
        panic!("a schema was created")
    };
    mend(&said, "GRANT CREATE ON DATABASE");
    assert_eq!(store_first(&mut *open_store(&url, Some("own")), &updates(1..=3)).unwrap().inserted, 3);
    mend(&refused(&url), "GRANT CREATE, USAGE ON SCHEMA");
    assert_eq!(store_first(&mut *open_store(&url, None), &updates(1..=3)).unwrap().inserted, 3);
    // A standby, or one that is to be read only.
    let name = other.url.rsplit_once('/').unwrap().1;
    client.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).unwrap();
    let said = refused(&other.url);
    assert!(said.contains("standby") && said.contains("primary"), "{said}");
}

#[test]
fn what_another_program_has_is_found_by_check_as_by_run() {
    let Some(postgres) = postgres("rights::what_another_program_has_is_found_by_check_as_by_run") else { return };
    for (other, name) in [
        ("CREATE TABLE samples (a int); CREATE TABLE events (a int)", "events"),
        ("CREATE VIEW agents AS SELECT 1", "agents"),
        ("CREATE TABLE theirs (a int); CREATE INDEX totals_day ON theirs (a)", "totals_day"),
    ] {
        let database = postgres.database("theirs");
        let failed = |schema| {
            let findings = StoreUrl::parse(&database.url, None, schema).unwrap().check(Utc::now());
            findings.iter().filter(|one| one.is_problem()).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(failed(None), [""; 0]);
        database.client().batch_execute(other).unwrap();
        let StoreError::Misconfigured(said) =
            open_store(&database.url, None).checkpoints(&topic_id("events")).unwrap_err()
        else {
            panic!("{other}")
        };
        let found = failed(None);
        assert!(found.len() == 1 && found[0].starts_with("FAILED   database: "), "{found:?}");
        for text in [&said, &found[0]] {
            assert!(text.contains(&format!("(relation \"{name}\" already exists")), "{text}");
            assert!(text.contains("another program's object of the same name"), "{text}");
            assert!(text.contains("store.schema = \"highwater\""), "{text}");
        }
        assert_eq!(failed(Some("highwater")), [""; 0]);
    }
}

/// The SQL that the errors name, one after the other, makes role, database and right, and then events are stored.
#[test]
fn a_missing_role_or_database_is_made_by_the_sql_that_is_named() {
    let test = "rights::a_missing_role_or_database_is_made_by_the_sql_that_is_named";
    let Some(postgres) = postgres(test) else { return };
    let server = postgres.database("server");
    let role = format!("New {:08x}", fastrand::u32(..));
    let url = server.url_of(&role.replace(' ', "%20")) + "_new";
    let says = |begin: &str| {
        let StoreError::Misconfigured(said) = open_store(&url, None).checkpoints(&topic_id("events")).unwrap_err()
        else {
            panic!("{url}")
        };
        let from = said.find(begin).unwrap_or_else(|| panic!("{begin}: {said}"));
        let sql = said[from..].split(';').next().unwrap().replace('…', "secret");
        server.client().batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    };
    says("CREATE ROLE");
    says("CREATE DATABASE");
    let name = url.rsplit_once('/').unwrap().1;
    server.client().batch_execute(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, \"{role}\"")).unwrap();
    says("GRANT CONNECT");
    server.client().batch_execute(&format!("ALTER ROLE \"{role}\" NOLOGIN")).unwrap();
    says("ALTER ROLE");
    assert_eq!(store_first(&mut *open_store(&url, None), &updates(1..=3)).unwrap().inserted, 3);
}

/// Two roles as `docs/secure.md` makes them, in a database of their own whose administrator is no superuser, as a provider's.
struct Roles {
    database: Database,
    /// Name of the role and of its schema, `highwater` on the page.
    name: String,
    admin: ::postgres::Client,
}

impl Roles {
    fn new(postgres: &Postgres) -> Self {
        let (database, name) = (postgres.database("roles"), format!("hw_{:08x}", fastrand::u32(..)));
        let mut owner = database.client();
        let (_, of_database) = database.url.rsplit_once('/').unwrap();
        owner
            .batch_execute(&format!(
                "CREATE ROLE {name}_admin LOGIN CREATEROLE PASSWORD 'secret';
                 ALTER DATABASE {of_database} OWNER TO {name}_admin;
                 REVOKE CREATE ON SCHEMA public FROM PUBLIC"
            ))
            .unwrap();
        let admin = database.url_of(&format!("{name}_admin"));
        let admin = ::postgres::Client::connect(&admin, ::postgres::NoTls).unwrap();
        Self { database, name, admin }
    }

    /// Runs what the page has about the reader, or about the other role, except for the statement that begins with `skipped`.
    fn run_page(&mut self, about_reader: bool, skipped: Option<&str>) {
        let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/secure.md")).unwrap();
        let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines = blocks.flat_map(str::lines).map(|line| line.split("--").next().unwrap_or_default());
        let sql = lines.collect::<Vec<_>>().join("\n");
        let mut count = 0;
        for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            if statement.contains("_reader") != about_reader || skipped.is_some_and(|skipped| statement == skipped) {
                continue;
            }
            count += 1;
            let run = self.admin.batch_execute(&statement.replace("highwater", &self.name));
            assert!(skipped.is_some() || run.is_ok(), "{statement}: {run:?}");
        }
        assert!(count > 1, "{page}");
        let role = if about_reader { format!("{}_reader", self.name) } else { self.name.clone() };
        let password = self.admin.batch_execute(&format!("ALTER ROLE {role} PASSWORD 'secret'"));
        assert!(skipped.is_some() || password.is_ok());
    }

    /// Stores an event of each of 30 days.
    fn store(&self, from: u64) -> Result<(), StoreError> {
        let url = self.database.url_of(&self.name);
        let mut stored = StoreUrl::parse(&url, None, None).unwrap().open(&options_for(PartitionWidth::Day));
        let old = (from..from + 30).map(|seq| {
            let mut event = event("gw", seq, started());
            event.stamp.observed_at = noon() - TimeDelta::days(seq as i64);
            event
        });
        insert_checkpoint(&mut *stored, &topic_id("events"), 0, &Checkpoint::default(), None)?;
        stored.apply(&batch_of_events(from as i64 - 1, &old.collect::<Vec<_>>()), Utc::now()).map(drop)
    }

    /// Returns what `breaches` says to the reader.
    fn read(&self) -> (i32, String) {
        let url = self.database.url_of(&format!("{}_reader", self.name));
        let mut command = consumer::command();
        let output = command.arg("breaches").env("HIGHWATER_STORE__URL", &url).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// The SQL of `docs/secure.md`: with it everything works, retention and partitions included, and without one statement of it the
/// program says what is missing.
#[test]
fn the_grants_of_the_page_are_the_least_that_everything_works_with() {
    let test = "rights::the_grants_of_the_page_are_the_least_that_everything_works_with";
    let Some(postgres) = postgres(test) else { return };
    let mut roles = Roles::new(&postgres);
    roles.run_page(false, None);
    roles.store(1).unwrap();
    roles.run_page(true, None);
    roles.store(31).unwrap();
    assert_eq!(roles.read().0, 0, "{:?}", roles.read());
    let Roles { database, name, .. } = &roles;
    let mut reader =
        ::postgres::Client::connect(&database.url_of(&format!("{name}_reader")), ::postgres::NoTls).unwrap();
    let oldest = "SELECT count(*) FROM events_20260921";
    assert_eq!(reader.query_one(oldest, &[]).unwrap().get::<_, i64>(0), 1, "a partition made after the grants");
    assert!(reader.batch_execute("DELETE FROM events").is_err() && reader.batch_execute("CREATE TABLE a ()").is_err());
    let day = Duration::from_secs(86_400);
    let keep = Retention { events: day, ..Retention::default() };
    let mut role = ::postgres::Client::connect(&database.url_of(name), ::postgres::NoTls).unwrap();
    role.batch_execute("UPDATE partition_notes SET newest_stored_at = '2020-01-01'").unwrap();
    let url = StoreUrl::parse(&database.url_of(name), None, None).unwrap();
    let mut maintenance = url.maintenance(&options_for(PartitionWidth::Day));
    let maintained = maintenance.run(&keep, Some(noon() + TimeDelta::days(3)), Duration::from_secs(60)).unwrap();
    assert_eq!((maintained.dropped.len(), maintained.unfinished), (60, None));
    let owned = format!(
        "SELECT (SELECT count(*) FROM pg_class WHERE relowner = '{name}'::regrole
                 AND relnamespace NOT IN ('{name}'::regnamespace, 'pg_toast'::regnamespace)),
                rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = '{name}'"
    );
    assert_eq!(database.ask(&owned), "(0,f)");

    for (skipped, says) in [
        ("CREATE ROLE highwater LOGIN", "CREATE ROLE"),
        ("GRANT highwater TO CURRENT_USER", "CREATE SCHEMA"),
        ("CREATE SCHEMA highwater AUTHORIZATION highwater", "CREATE SCHEMA"),
    ] {
        let mut roles = Roles::new(&postgres);
        roles.run_page(false, Some(skipped));
        let StoreError::Misconfigured(said) = roles.store(1).unwrap_err() else { panic!("without {skipped}") };
        assert!(said.contains(says), "without {skipped}: {said}");
    }
    // Tables that are there, and those that are made later.
    for (skipped, is_before, says) in [
        ("CREATE ROLE highwater_reader LOGIN", true, "CREATE ROLE"),
        ("GRANT USAGE ON SCHEMA highwater TO highwater_reader", true, "GRANT USAGE ON SCHEMA"),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA highwater TO highwater_reader", true, "GRANT SELECT ON ALL TABLES"),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE highwater IN SCHEMA highwater GRANT SELECT ON TABLES TO highwater_reader",
            false,
            "GRANT SELECT ON ALL TABLES",
        ),
        ("ALTER ROLE highwater_reader SET search_path = highwater", true, "set store.schema"),
    ] {
        let mut roles = Roles::new(&postgres);
        roles.run_page(false, None);
        if is_before {
            roles.store(1).unwrap();
        }
        roles.run_page(true, Some(skipped));
        if !is_before {
            roles.store(1).unwrap();
        }
        let (code, said) = roles.read();
        assert!(code != 0 && said.contains(says), "without {skipped}: {said}");
    }
}
