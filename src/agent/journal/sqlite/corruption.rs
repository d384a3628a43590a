//! Tells a damaged file from a disk that refuses.

use rusqlite::ErrorCode;

use crate::agent::journal::JournalError;

pub(super) fn damage(error: rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        // The last two mean that the schema is not ours: a table is missing, or a column has another type.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) | None => {
            JournalError::Damaged(error.to_string())
        }
        _ => JournalError::Sqlite(error),
    }
}

pub(super) fn damaged(error: JournalError) -> JournalError {
    match error {
        JournalError::Sqlite(error) => damage(error),
        other => other,
    }
}
