use std::fmt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::{HistogramStore, Maintenance, Reader, Store, StoreOptions, postgres, sqlite};
use crate::config::SecretFile;
use crate::process::checks::Finding;

#[derive(Clone, Debug)]
pub struct StoreUrl(Backend);

#[derive(Clone, Debug)]
enum Backend {
    Postgres(Box<postgres::Address>),
    Sqlite(PathBuf),
}

impl StoreUrl {
    pub fn parse(url: &str, password: Option<SecretFile>, schema: Option<&str>) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return sqlite_file(path).map(Self::sqlite);
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return postgres::Address::parse(url, password, schema)
                .map(|address| Self(Backend::Postgres(Box::new(address))));
        }
        let neither = "is neither \"postgres://USER@HOST/DATABASE\" nor \"sqlite:PATH\"";
        // Not quoted, since a password may be in it.
        match url.contains(['@', '=', ' ']) || url.contains("://") || url.is_empty() {
            true => Err(neither.to_owned()),
            false => Err(format!("`{url}` {neither}; for the SQLite file of this name write \"sqlite:{url}\"")),
        }
    }

    pub fn holds_password(&self) -> bool {
        matches!(&self.0, Backend::Postgres(address) if address.holds_password())
    }

    pub fn files(&self) -> Vec<PathBuf> {
        match &self.0 {
            Backend::Postgres(address) => address.files(),
            Backend::Sqlite(_) => Vec::new(),
        }
    }

    /// Returns the directory of a SQLite file, which has further files beside it.
    pub fn directory(&self) -> Option<&Path> {
        match &self.0 {
            Backend::Postgres(_) => None,
            Backend::Sqlite(path) => path.parent(),
        }
    }

    pub fn sqlite(path: &Path) -> Self {
        Self(Backend::Sqlite(path.to_owned()))
    }

    pub fn reader(&self) -> Box<dyn Reader + Send> {
        match &self.0 {
            Backend::Postgres(address) => Box::new(postgres::PostgresReader::new((**address).clone())),
            Backend::Sqlite(path) => Box::new(sqlite::SqliteReader::new(path)),
        }
    }

    pub fn check(&self, now: DateTime<Utc>) -> Vec<Finding> {
        match &self.0 {
            Backend::Postgres(address) => postgres::check(address, now),
            Backend::Sqlite(path) => sqlite::check(path),
        }
    }

    pub fn open(&self, options: &StoreOptions) -> Box<dyn Store + Send> {
        match &self.0 {
            Backend::Postgres(address) => Box::new(postgres::Postgres::new((**address).clone(), options)),
            Backend::Sqlite(path) => Box::new(sqlite::Sqlite::new(path, options)),
        }
    }

    pub fn histograms(&self, options: &StoreOptions) -> Box<dyn HistogramStore + Send> {
        match &self.0 {
            Backend::Postgres(address) => Box::new(postgres::PostgresHistograms::new((**address).clone(), options)),
            Backend::Sqlite(path) => Box::new(sqlite::SqliteHistograms::new(path, options)),
        }
    }

    pub fn maintenance(&self, options: &StoreOptions) -> Box<dyn Maintenance + Send> {
        match &self.0 {
            Backend::Postgres(address) => Box::new(postgres::PostgresMaintenance::new((**address).clone(), options)),
            Backend::Sqlite(path) => Box::new(sqlite::SqliteMaintenance::new(path)),
        }
    }
}

/// Returns the file of `sqlite:PATH`; refuses spellings that other programs read differently.
fn sqlite_file(path: &str) -> Result<&Path, String> {
    let (file, parameters) = path.split_once('?').unwrap_or((path, ""));
    let below = file.trim_start_matches('/');
    let wrong = match file {
        "" | "/" | "//" => "names no file; write it as \"sqlite:/var/lib/highwater-consumer/highwater.db\"".to_owned(),
        _ if file.starts_with(":memory:") || file == "file::memory:" => {
            "keeps nothing: a database in memory ends with the program, and no other one sees it; name a file: \"sqlite:highwater.db\""
                .to_owned()
        }
        _ if path.contains('?') => {
            format!("parameters (`?{parameters}`) are not understood; name the file alone: \"sqlite:{file}\"")
        }
        _ if file.starts_with("//") => format!(
            "has slashes that programs read differently; write \"sqlite:{below}\" for a file in the working directory, \
             \"sqlite:/{below}\" for one at the root"
        ),
        _ if file.starts_with("file:") => format!("names the file twice; write \"sqlite:{}\"", &file["file:".len()..]),
        _ if file.ends_with('/') => format!("names a directory; write \"sqlite:{file}highwater.db\""),
        _ if file.contains('\0') => "holds a NUL character, which no file has in its name".to_owned(),
        _ => return Ok(Path::new(file)),
    };
    Err(wrong)
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Backend::Postgres(address) => address.fmt(f),
            Backend::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<String, String> {
        StoreUrl::parse(url, None, None).map(|url| url.to_string())
    }

    #[test]
    fn a_file_is_the_one_that_is_named() {
        for url in ["sqlite:hw.db", "sqlite:/var/lib/hw.db", "sqlite:./a b.db", "sqlite:../é.db"] {
            assert_eq!(parsed(url), Ok(url.to_owned()));
        }
    }

    #[test]
    fn what_is_no_store_is_shown_with_what_would_be_right() {
        for (url, says) in [
            ("hw.db", "`hw.db` is neither"),
            ("hw.db", "write \"sqlite:hw.db\""),
            ("/var/lib/hw.db", "write \"sqlite:/var/lib/hw.db\""),
            ("", "is neither"),
            ("mysql://h/d", "is neither"),
            ("sqlite:", "names no file"),
            ("sqlite://", "names no file"),
            ("sqlite::memory:", "a database in memory"),
            ("sqlite::memory:?cache=shared", "a database in memory"),
            ("sqlite:file::memory:", "a database in memory"),
            ("sqlite:x.db?mode=ro", "parameters (`?mode=ro`) are not understood; name the file alone: \"sqlite:x.db\""),
            (
                "sqlite://x.db",
                "\"sqlite:x.db\" for a file in the working directory, \"sqlite:/x.db\" for one at the root",
            ),
            ("sqlite:///x.db", "\"sqlite:/x.db\" for one at the root"),
            ("sqlite:file:x.db", "write \"sqlite:x.db\""),
            ("sqlite:/var/lib/", "write \"sqlite:/var/lib/highwater.db\""),
        ] {
            let error = parsed(url).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn no_password_is_shown_of_what_is_no_url() {
        for url in ["mysql://u:s3cret@h/d", "host=h password=s3cret", "u:s3cret@h/d", "postgres:u:s3cret@h/d"] {
            let error = parsed(url).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
