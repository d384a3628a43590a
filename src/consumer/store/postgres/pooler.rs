//! Detection of a pooler in transaction mode, where prepared statements, settings and locks of a session do not last.

use postgres::{Client, SimpleQueryMessage};

use super::address::Address;
use crate::consumer::store::StoreError;

/// Other sessions of a pool may come in between, and hide it for a while.
const ROUNDS: usize = 5;

/// Refuses a pooler in transaction mode. Two sessions of a server, or of a pool in session mode, keep a backend each; those of such a
/// pooler share or change theirs, in any order: they are asked in turn, and the second one twice.
pub(super) fn refuse(address: &Address, application: &str) -> Result<(), StoreError> {
    let mut first = address.connect(application)?;
    let of_first = backend(&mut first)?;
    // Servers without room for a second session are not checked.
    let Ok(mut second) = address.connect(application) else { return Ok(()) };
    let of_second = backend(&mut second)?;
    let mut is_direct = of_first != of_second;
    for _ in 0..ROUNDS {
        is_direct &= backend(&mut first)? == of_first;
        is_direct &= backend(&mut second)? == of_second && backend(&mut second)? == of_second;
    }
    if is_direct {
        return Ok(());
    }
    Err(StoreError::Pooled(format!(
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
