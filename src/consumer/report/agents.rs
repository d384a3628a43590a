use std::io;

use chrono::{DateTime, Utc};

use super::row::row;
use super::stream;
use crate::consumer::store::{Reader, StoreError};

#[derive(Clone, Debug, Default)]
pub struct AgentFilter {
    pub agents: Vec<String>,
    /// `running`, `stopped` or `silent`.
    pub state: Option<String>,
}

row! {
    pub struct AgentRow {
        pub agent: String,
        pub state: String,
        pub last_heard_at: DateTime<Utc>,
        pub version: Option<String>,
        pub last_started_at: Option<DateTime<Utc>>,
        pub clock_synced: Option<bool>,
        /// `None` where only its rates are known.
        pub epoch: Option<String>,
        pub missing_events: i64,
    }
}

pub fn read(
    reader: &mut dyn Reader,
    filter: &AgentFilter,
    mut print: impl FnMut(AgentRow) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    let query = AgentRow::select(&[])
        .then("FROM agents WHERE true")
        .with_one_of("agent", &filter.agents)
        .with_any("AND state = ?", filter.state.as_deref())
        .ordered(&["agent"], None);
    stream(reader, &query, |row| print(AgentRow::read(row)?))
}
