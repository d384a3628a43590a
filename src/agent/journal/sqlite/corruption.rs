//! Distinguishes a damaged file from a failing disk.

use rusqlite::ErrorCode;

use crate::agent::journal::JournalError;

pub(super) fn damage(error: rusqlite::Error) -> JournalError {
    use ErrorCode::{
        AuthorizationForStatementDenied, CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed,
        NoLargeFileSupport, OperationAborted, OperationInterrupted, OutOfMemory, PermissionDenied, ReadOnly,
        SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(
            AuthorizationForStatementDenied
            | CannotOpen
            | DatabaseBusy
            | DatabaseLocked
            | DiskFull
            | FileLockingProtocolFailed
            | NoLargeFileSupport
            | OperationAborted
            | OperationInterrupted
            | OutOfMemory
            | PermissionDenied
            | ReadOnly
            | SystemIoFailure,
        ) => JournalError::Sqlite(error),
        // Any other error means a file that is not as it was written: a table is missing, a value has another type or size.
        _ => JournalError::Damaged(error.to_string()),
    }
}

pub(super) fn damaged(error: JournalError) -> JournalError {
    match error {
        JournalError::Sqlite(error) => damage(error),
        other => other,
    }
}
