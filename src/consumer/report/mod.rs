//! Questions to a store, and their typed answers.

pub mod agents;
pub mod billing_month;
pub mod breaches;
pub mod dead_letters;
pub mod events;
pub mod histogram;
pub mod missing_events;
pub mod offsets;
pub mod percentile;
pub mod rates;
mod row;
#[cfg(test)]
mod tests;
pub mod totals;

use std::io;
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use super::store::{Query, Reader, StoreError};
use crate::cli::output::Value;

/// Links and time of the wanted rows; an empty list stands for any, and `until` is exclusive.
#[derive(Clone, Debug, Default)]
pub struct LinkFilter {
    pub agents: Vec<String>,
    pub interfaces: Vec<String>,
    pub directions: Vec<String>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

impl LinkFilter {
    fn names(&self, query: Query) -> Query {
        query
            .with_one_of("agent", &self.agents)
            .with_one_of("interface", &self.interfaces)
            .with_one_of("direction", &self.directions)
    }

    fn times(&self, query: Query, column: &str) -> Query {
        query.with_any(&format!("AND {column} >= ?"), self.since).with_any(&format!("AND {column} < ?"), self.until)
    }
}

/// Prints the rows of `query`. The inner error is that of `print`, the outer one the store's.
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
