//! Classes of PostgreSQL's errors, by SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use postgres::Error;
use postgres::error::{DbError, Severity};

use super::address::{ConnectError, Login};
use super::quoted;
use crate::consumer::store::StoreError;
use crate::consumer::store::apply::AttemptError;
use crate::process::exit::chain;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Never the fault of a row.
    Unavailable,
    /// Transient, unless a single row causes it.
    Transient,
    ConcurrentWrite,
    /// Needs an operator, unless it is the fault of a row: a trigger may raise anything.
    Misconfigured,
    Rejected,
    NoPartition,
    Duplicate,
    Locked,
}

pub(super) fn class(error: &Error) -> Class {
    let Some(db) = error.as_db_error() else { return Class::Unavailable };
    let code = db.code().code();
    match (code, &code[..2]) {
        // Functions may raise the codes of locks and serialization failures, without a lock to wait for.
        ("55P03", _) | (_, "40") if is_raised(db) => Class::Transient,
        ("55P03", _) => Class::Locked,
        ("23505", _) => Class::Duplicate,
        // CHECKs have the same code, but a name too.
        ("23514", _) if db.constraint().is_none() => Class::NoPartition,
        (_, "40") => Class::ConcurrentWrite,
        // Connections, resources, an operator's intervention, the operating system, a standby.
        ("25006", _) | (_, "08" | "53" | "55" | "57" | "58") => Class::Transient,
        (_, "28" | "3D" | "3F" | "42") => Class::Misconfigured,
        _ => Class::Rejected,
    }
}

fn is_raised(error: &DbError) -> bool {
    error.routine() == Some("exec_stmt_raise")
}

fn ends_the_session(error: &Error) -> bool {
    error.as_db_error().is_some_and(|db| matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)))
}

/// Formats the whole error in one line: its `Display` is only "db error".
pub(super) fn text(error: &Error) -> String {
    let Some(db) = error.as_db_error() else { return chain(error) };
    let mut line = format!("{} (SQLSTATE {})", db.message(), db.code().code());
    for more in [db.detail(), db.hint(), db.where_()].into_iter().flatten() {
        line = format!("{line}; {}", more.replace('\n', " "));
    }
    line
}

pub(super) fn copy_line(error: &Error) -> Option<usize> {
    line_of_copy(error.as_db_error()?.where_()?)
}

/// Parses the row, from 0, in `COPY events, line 3, column agent`, in any language of the server's and behind a trigger's context.
fn line_of_copy(context: &str) -> Option<usize> {
    let line = context.lines().find(|line| line.contains("COPY"))?;
    let digits = line.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

fn connection_remedy(text: &str) -> Option<&'static str> {
    if text.contains("certificate verify failed") {
        Some(
            "check that sslrootcert signed the server's certificate, and that this bears the server's name and has not expired",
        )
    } else if text.contains(" alert ") {
        Some("the server does not accept our certificate: check sslcert and sslkey")
    } else if text.contains("server does not support TLS") {
        Some("set ssl = on there, or another sslmode")
    } else if text.contains("password missing") {
        Some("the server asks for a password: name a file that holds it in store.password_file")
    } else {
        None
    }
}

/// Returns whether a login was refused for its role, which is missing or lacks LOGIN, and not by `pg_hba.conf`: the SQLSTATE is the
/// same, and the text is in the server's language.
fn is_refused_for_role(error: &Error) -> bool {
    error.as_db_error().and_then(DbError::routine) == Some("InitializeSessionUserId")
}

/// Explains an error of a login. Servers refuse the password of a role that they do not have, and do not report that.
fn remedy_of_connecting(code: &str, is_for_role: bool, Login { role, database }: &Login) -> Option<String> {
    let (role, database) = (quoted(role), quoted(database));
    let make = format!("as a superuser: CREATE ROLE {role} LOGIN PASSWORD '…'");
    Some(match code {
        "42501" => format!("as its owner: GRANT CONNECT ON DATABASE {database} TO {role}"),
        "3D000" => format!("create it as a superuser: CREATE DATABASE {database} OWNER {role}"),
        "28000" if is_for_role => {
            format!("as a superuser: ALTER ROLE {role} LOGIN; a missing role is created {make}")
        }
        "28000" => format!(
            "pg_hba.conf on the server must allow it: a line with hostssl needs sslmode=verify-full in store.url; a missing role \
             is created {make}"
        ),
        "28P01" => {
            format!("check the password: store.password_file, or in store.url; a missing role is created {make}")
        }
        "53300" => format!(
            "end sessions that are idle, or raise the limit that is reached: max_connections of the server, or the CONNECTION LIMIT of \
             role {role} or database {database}"
        ),
        _ => return None,
    })
}

fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "3F000" => "create it: CREATE SCHEMA name AUTHORIZATION role",
        "42501" => "as the owner: GRANT ALL ON ALL TABLES IN SCHEMA name TO role; or let this role own the tables",
        "42P05" => {
            "a pooler hands over a session that it did not reset: set server_reset_query = DISCARD ALL there, or name the server itself \
             in store.url"
        }
        "25006" => "the server is a standby or set to default_transaction_read_only: name the primary in store.url",
        _ => return None,
    })
}

pub(super) fn store_error(error: &Error) -> StoreError {
    explained(error, |code| remedy(code).map(str::to_owned))
}

/// Explains an error of a statement that `grant` allows: not all languages name what it is about.
pub(super) fn not_permitted(error: &Error, grant: String) -> StoreError {
    explained(error, |code| if code == "42501" { Some(grant) } else { remedy(code).map(str::to_owned) })
}

fn explained(error: &Error, remedy: impl FnOnce(&str) -> Option<String>) -> StoreError {
    let code = error.as_db_error().map_or("", |db| db.code().code());
    let mut text = format!("PostgreSQL: {}", text(error));
    if let Some(remedy) = remedy(code) {
        text = format!("{text}: {remedy}");
    }
    match class(error) {
        Class::Misconfigured => StoreError::Misconfigured(text),
        _ if code == "25006" => StoreError::Misconfigured(text),
        _ => StoreError::Unavailable(text),
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        store_error(&error)
    }
}

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        match class(&error) {
            _ if ends_the_session(&error) => Self::Store(error.into()),
            Class::ConcurrentWrite => Self::ConcurrentWrite(error.into()),
            Class::Duplicate => Self::Duplicate(error.into()),
            Class::NoPartition => Self::NoPartition(error.into()),
            class @ (Class::Rejected | Class::Misconfigured | Class::Transient) => {
                let is_transient = class == Class::Transient;
                Self::Rejected { at: None, error: text(&error), store_error: error.into(), is_transient }
            }
            Class::Unavailable | Class::Locked => Self::Store(error.into()),
        }
    }
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Local(message) => Self::Misconfigured(message),
            ConnectError::Server(error, _) if error.as_db_error().is_none() => {
                let text = chain(&error);
                match connection_remedy(&text) {
                    Some(remedy) => Self::Misconfigured(format!("PostgreSQL: {text}: {remedy}")),
                    None => Self::Unavailable(format!("PostgreSQL: {text}")),
                }
            }
            ConnectError::Server(error, login) => {
                explained(&error, |code| remedy_of_connecting(code, is_refused_for_role(&error), &login))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_copy_is_read_in_any_language() {
        assert_eq!(line_of_copy("COPY events, line 3, column agent"), Some(2));
        assert_eq!(line_of_copy("COPY events, Zeile 12"), Some(11));
        assert_eq!(line_of_copy("events\u{306e}COPY\u{3001}\u{884c}7"), Some(6));
        assert_eq!(line_of_copy("PL/pgSQL function no() line 1 at RAISE\nCOPY events, line 2"), Some(1));
        assert_eq!(line_of_copy("PL/pgSQL function no() line 1 at RAISE"), None);
        assert_eq!(line_of_copy("COPY events"), None);
    }
}
