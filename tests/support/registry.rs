//! The real schema registry that `tests/run` started.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::process::{script, signal};
use super::skips::server_or_skip;

pub(crate) struct Registry {
    /// URL of its Confluent interface.
    pub(crate) url: String,
    directory: PathBuf,
    /// Directory of one that this test started, and stops.
    home: Option<TempDir>,
}

impl Registry {
    /// Returns the running registry; without one the test is skipped.
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let (url, directory) = server_or_skip(test, "REGISTRY", "needs a schema registry")?;
        Some(Self { url, directory, home: None })
    }

    /// Makes one that this test may stop and kill; it does not run yet.
    pub(crate) fn own(test: &str) -> Option<Self> {
        Self::or_skip(test)?;
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut own = Self { url: String::new(), directory: home.path().join("registry"), home: Some(home) };
        own.url = own.script("url");
        Some(own)
    }

    /// Starts it (again), empty, at the same URL.
    pub(crate) fn start(&self) {
        assert_eq!(self.script("start"), self.url);
    }

    pub(crate) fn kill(&self) {
        self.script("kill");
    }

    /// Sends its process a signal: STOP, CONT.
    pub(crate) fn signal(&self, name: &str) {
        let id = std::fs::read_to_string(self.directory.join("pid")).expect("it runs");
        signal(id, name);
    }

    /// Sends a request by curl, and returns the answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &serde_json::Value) -> String {
        let header = "content-type: application/vnd.schemaregistry.v1+json";
        let url = format!("{}{path}", self.url);
        let mut curl = Command::new("curl");
        curl.args(["-s", "-S", "--max-time", "30", "-X", method, "-H", header, &url]);
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        let output = curl.output().expect("curl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("JSON is text")
    }

    fn script(&self, verb: &str) -> String {
        let output = script("registry").arg(verb).arg(&self.directory).output().expect("tests/support/registry runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a URL is text").trim().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if self.home.is_some() {
            self.script("kill");
        }
    }
}
