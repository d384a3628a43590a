//! What an error of PostgreSQL means for us, by its SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use postgres::Error;

use super::address::ConnectError;
use crate::consumer::store::Fault;
use crate::exit::chain;

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Wait; it comes back by itself. All that is named nowhere else is this: it never makes a dead letter.
    Away,
    /// Wait, and call somebody.
    Misconfigured,
    /// The database does not want this row.
    Refused,
    /// A row's day has no partition.
    NoDay,
    /// A lock was waited for in vain.
    Locked,
}

pub(super) fn class(error: &Error) -> Class {
    let Some(db) = error.as_db_error() else { return Class::Away };
    let code = db.code().code();
    match (code, &code[..2]) {
        ("55P03", _) => Class::Locked,
        // The same code is a CHECK's, but that has a name.
        ("23514", _) if db.constraint().is_none() => Class::NoDay,
        (_, "22" | "23" | "54") => Class::Refused,
        (_, "28" | "3D" | "3F" | "42") => Class::Misconfigured,
        _ => Class::Away,
    }
}

/// The whole of an error in one line: its `Display` says only "db error".
pub(super) fn text(error: &Error) -> String {
    let Some(db) = error.as_db_error() else { return chain(error) };
    let mut line = format!("{} (SQLSTATE {})", db.message(), db.code().code());
    for more in [db.detail(), db.hint(), db.where_()].into_iter().flatten() {
        line = format!("{line}; {}", more.replace('\n', " "));
    }
    line
}

/// What to look at where a connection failed by TLS, and not because the server is not there.
fn tls_remedy(text: &str) -> Option<&'static str> {
    if text.contains("certificate verify failed") {
        Some(
            "check that sslrootcert signed the server's certificate, and that this bears the server's name and has not expired",
        )
    } else if text.contains(" alert ") {
        Some("the server does not accept our certificate: check sslcert and sslkey")
    } else if text.contains("server does not support TLS") {
        Some("set ssl = on there, or another sslmode")
    } else {
        None
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match class(&error) {
            Class::Misconfigured => Self::Misconfigured(format!("PostgreSQL: {}", text(&error))),
            _ => Self::Away(format!("PostgreSQL: {}", text(&error))),
        }
    }
}

impl From<ConnectError> for Fault {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Local(message) => Self::Misconfigured(message),
            ConnectError::Server(error) if error.as_db_error().is_none() => {
                let text = chain(&error);
                match tls_remedy(&text) {
                    Some(remedy) => Self::Misconfigured(format!("PostgreSQL: {text}: {remedy}")),
                    None => Self::Away(format!("PostgreSQL: {text}")),
                }
            }
            ConnectError::Server(error) => error.into(),
        }
    }
}
