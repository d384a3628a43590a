//! Detection of a pooler in transaction mode, where prepared statements, settings and locks of a session do not last.

use postgres::{Client, SimpleQueryMessage};

use super::address::Address;
use crate::consumer::store::StoreError;

/// Refuses a pooler: one session asks for its server session, a second keeps that busy with a transaction, and the first asks
/// again. If both got the same one, the first would wait for it in a pool that has no other.
pub(super) fn refuse(address: &Address, application: &str) -> Result<(), StoreError> {
    let mut first = address.connect(application)?;
    let before = backend(&mut first)?;
    // Servers without room for a second session are not checked.
    let Ok(mut second) = address.connect(application) else { return Ok(()) };
    second.batch_execute("BEGIN")?;
    let is_direct = backend(&mut second)? != before && backend(&mut first)? == before;
    second.batch_execute("ROLLBACK")?;
    if is_direct {
        return Ok(());
    }
    Err(StoreError::Misconfigured(format!(
        "PostgreSQL: {address} is a pooler in transaction mode, which gives each transaction another server session; name the \
         server itself in store.url, or a pool in session mode (pool_mode = session)"
    )))
}

/// Asks without a prepared statement, which such a pooler may not know.
fn backend(client: &mut Client) -> Result<Option<String>, postgres::Error> {
    let rows = client.simple_query("SELECT pg_backend_pid()")?;
    Ok(rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
