//! Questions to a store, and their typed answers.

pub mod dead_letters;
pub mod missing_events;
pub mod offsets;
pub mod totals;

use std::io;
use std::ops::ControlFlow;

use super::store::{Query, Reader, StoreError};
use crate::output::Value;

/// Prints the rows of `query`, until that fails: the inner error, while the outer one is the store's.
fn stream(
    reader: &mut dyn Reader,
    query: &Query,
    mut print: impl FnMut(Vec<Value>) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    let mut printed = Ok(());
    reader.read(query, &mut |row| {
        printed = print(row);
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(printed)
}
