//! A store by its URL.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Maintenance, Reader, Store, StoreOptions, postgres, sqlite};
use crate::config::SecretFile;

/// Which database.
#[derive(Clone, Debug)]
pub struct StoreUrl(Backend);

#[derive(Clone, Debug)]
enum Backend {
    Postgres(Box<postgres::Address>),
    Sqlite(PathBuf),
}

impl StoreUrl {
    /// Understands `postgres://…` and `sqlite:PATH`.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(url: &str, password: Option<SecretFile>, schema: Option<&str>) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return match path {
                "" => Err("names no file; write it as \"sqlite:/var/lib/highwater/highwater.db\"".to_owned()),
                path => Ok(Self::sqlite(Path::new(path))),
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return postgres::Address::parse(url, password, schema)
                .map(|address| Self(Backend::Postgres(Box::new(address))));
        }
        Err("is neither \"postgres://USER@HOST/DATABASE\" nor \"sqlite:PATH\"".to_owned())
    }

    /// A SQLite file.
    pub fn sqlite(path: &Path) -> Self {
        Self(Backend::Sqlite(path.to_owned()))
    }

    /// What only looks at the store there; it connects when it is first asked.
    pub fn reader(&self) -> Box<dyn Reader + Send> {
        match &self.0 {
            Backend::Postgres(address) => Box::new(postgres::PostgresReader::new((**address).clone())),
            Backend::Sqlite(path) => Box::new(sqlite::SqliteReader::new(path)),
        }
    }

    /// The store there; it connects when it is first needed.
    pub fn open(&self, options: &StoreOptions) -> Box<dyn Store + Send> {
        match &self.0 {
            Backend::Postgres(address) => Box::new(postgres::Postgres::new((**address).clone(), options)),
            Backend::Sqlite(path) => Box::new(sqlite::Sqlite::new(path)),
        }
    }

    /// What keeps it small, in a session of its own.
    pub fn maintenance(&self, options: &StoreOptions) -> Box<dyn Maintenance + Send> {
        match &self.0 {
            Backend::Postgres(address) => Box::new(postgres::PostgresMaintenance::new((**address).clone(), options)),
            Backend::Sqlite(path) => Box::new(sqlite::SqliteMaintenance::new(path)),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Backend::Postgres(address) => address.fmt(f),
            Backend::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
