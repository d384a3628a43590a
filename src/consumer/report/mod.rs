//! Questions to a store, and their typed answers.

pub mod dead_letters;
pub mod missing_events;
pub mod offsets;
pub mod totals;

use std::ops::ControlFlow;

use super::store::{Query, Reader, StoreError};
use crate::output::Value;

fn stream<E: From<StoreError>>(
    reader: &mut dyn Reader,
    query: &Query,
    mut each: impl FnMut(Vec<Value>) -> Result<(), E>,
) -> Result<(), E> {
    let mut failed = None;
    reader.read(query, &mut |row| match each(row) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}
