//! PostgreSQL: the server of all tests or one of a test's own, and the databases of tests.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use postgres::{Client, NoTls};
use tempfile::TempDir;

use super::process::{script, signal, until};
use super::skips::server_or_skip;

pub(crate) struct Postgres {
    url: String,
    directory: PathBuf,
    /// Directory of a server that this test started, and stops.
    home: Option<TempDir>,
    /// Major version, where it is not that of all tests.
    version: Option<&'static str>,
}

/// A database of one test. It stays when the test ends, for inspection.
pub(crate) struct Database {
    /// With the password.
    pub(crate) url: String,
}

/// Numbers of rows of `events` and of events among them: the same if no event is there twice.
pub(crate) const ROWS_AND_EVENTS: &str = "SELECT count(*) AS n, count(DISTINCT (agent, epoch, seq)) AS d FROM events";

/// Returns the answer to [`ROWS_AND_EVENTS`] where so many events are rows, once each.
pub(crate) fn once_each(count: usize) -> String {
    format!("({count},{count})")
}

impl Postgres {
    /// Returns the running server; without one the test is skipped.
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let (url, directory) = server_or_skip(test, "POSTGRES", "needs PostgreSQL")?;
        Some(Self { url, directory, home: None, version: None })
    }

    /// Starts a server that this test may stop and kill, in a directory of its own.
    pub(crate) fn start_own(test: &str) -> Option<Self> {
        Self::own_of(test, None)
    }

    /// Starts a server of its own for a test that needs this major version.
    pub(crate) fn of_version(test: &str, version: &'static str) -> Option<Self> {
        Self::own_of(test, Some(version))
    }

    fn own_of(test: &str, version: Option<&'static str>) -> Option<Self> {
        Self::or_skip(test)?;
        let directory = tempfile::Builder::new().prefix("highwater-pg").tempdir().expect("a temporary directory");
        open_to_all(&directory);
        let mut own =
            Self { url: String::new(), directory: directory.path().join("pg"), home: Some(directory), version };
        own.url = own.start();
        Some(own)
    }

    /// Adds lines to `postgresql.conf`, and starts the server again.
    pub(crate) fn configure(&self, lines: &str) {
        let file = self.directory.join("data/postgresql.conf");
        let text = fs::read_to_string(&file).expect("it has a configuration");
        fs::write(&file, format!("{text}{lines}\n")).expect("it can be written");
        self.kill();
        self.start();
    }

    pub(crate) fn database(&self, name: &str) -> Database {
        let name = format!("{name}_{:08x}", fastrand::u32(..));
        let mut client = Client::connect(&self.url, NoTls).expect("PostgreSQL answers");
        client.batch_execute(&format!("CREATE DATABASE {name}")).expect("a database can be made");
        let (server, _) = self.url.rsplit_once('/').expect("the URL names a database");
        Database { url: format!("{server}/{name}") }
    }

    /// Starts the server (again), and returns its URL.
    pub(crate) fn start(&self) -> String {
        let output = self.script("start");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a URL is text").trim().to_owned()
    }

    pub(crate) fn kill(&self) {
        assert!(self.script("kill").status.success());
    }

    /// Returns `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        let (_, rest) = self.url.split_once('@').expect("the URL has a password");
        rest.split('/').next().expect("and a database").to_owned()
    }

    /// Sends a signal by its name (STOP, CONT) to the server and all its backends.
    pub(crate) fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.directory.join("data/postmaster.pid")).expect("it runs");
        let pid = pid.lines().next().expect("the first line is the process");
        assert!(Command::new("pkill").args(["-x", "-P", pid, "--signal", name, "postgres"]).status().is_ok());
        signal(pid, name);
    }

    /// Reloads the server with the files in [`Postgres::tls_dir`].
    pub(crate) fn reload_tls(&self) {
        let output = self.script("tls");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the directory of certificate, key, CA and `pg_hba.conf` for [`Postgres::reload_tls`].
    pub(crate) fn tls_dir(&self) -> PathBuf {
        self.directory.join("tls")
    }

    fn script(&self, verb: &str) -> Output {
        let mut command = script("postgres");
        command.arg(verb).arg(&self.directory);
        command.envs(self.version.map(|version| ("HIGHWATER_TEST_POSTGRES_VERSION", version)));
        command.output().expect("tests/support/postgres runs")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.home.is_some() {
            self.script("kill");
        }
    }
}

/// The server runs as another user.
fn open_to_all(directory: &TempDir) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
}

impl Database {
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.url, NoTls).expect("PostgreSQL answers")
    }

    /// Returns its URL for another role, whose password is `secret`.
    pub(crate) fn url_of(&self, role: &str) -> String {
        let (_, server) = self.url.split_once('@').expect("the URL has a password");
        format!("postgres://{role}:secret@{server}")
    }

    /// Returns the rows of `sql` as text, each in parentheses, in their order as text.
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.try_ask(sql).expect("the question is right")
    }

    fn try_ask(&self, sql: &str) -> Result<String, postgres::Error> {
        let sql = format!("SELECT coalesce(string_agg(t.*::text, ' ' ORDER BY t.*::text), '') FROM ({sql}) AS t");
        Ok(Client::connect(&self.url, NoTls)?.query_one(&sql, &[])?.get(0))
    }

    /// Runs `ALTER DATABASE`, whatever settings it has.
    pub(crate) fn alter(&self, what: &str) {
        let mut client = self.client();
        client.batch_execute("SET default_transaction_read_only = off").expect("a setting of the session");
        let (_, name) = self.url.rsplit_once('/').expect("the URL names it");
        client.batch_execute(&format!("ALTER DATABASE {name} {what}")).expect("it is ours");
    }

    /// Waits until `sql` returns `answer` (see [`Self::ask`]).
    pub(crate) fn until(&self, sql: &str, answer: &str) {
        let last = RefCell::new(String::new());
        let name = format!("{sql} = {answer}");
        until(&name, || {
            last.replace(self.try_ask(sql).unwrap_or_else(|error| error.to_string()));
            (*last.borrow() == answer).then_some(())
        });
    }
}
