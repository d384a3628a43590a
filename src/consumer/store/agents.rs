use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::rows::Row;
use crate::message::{Body, Epoch, Event};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownAgent {
    /// Message that last changed it.
    pub(super) epoch: Epoch,
    pub(super) seq: i64,
    pub(super) observed_at: DateTime<Utc>,
    pub(super) is_running: bool,
    pub(super) version: Option<String>,
    pub(super) clock_synced: Option<bool>,
    pub(super) last_started_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentChange<'a> {
    pub(super) agent: &'a str,
    pub(super) new: KnownAgent,
    pub(super) old: Option<KnownAgent>,
}

impl KnownAgent {
    pub(super) fn state(&self) -> &'static str {
        if self.is_running { "running" } else { "stopped" }
    }

    fn is_before(&self, event: &Event) -> bool {
        match self.epoch == event.id.epoch {
            true => self.seq < event.id.seq.cast_signed(),
            false => self.observed_at < event.stamp.observed_at,
        }
    }
}

/// Returns the agents whose state `rows` may change, in the order in which their rows are locked.
pub(super) fn asked<'a>(rows: &[Row<'a>]) -> Vec<&'a str> {
    let telling = rows.iter().filter(|row| version_of(row.event).is_some());
    let mut agents: Vec<&str> = telling.map(|row| row.event.stamp.agent.as_str()).collect();
    agents.sort_unstable();
    agents.dedup();
    agents
}

/// Returns the agents that change: most windows change none, and cost no write.
pub(super) fn changes<'a>(rows: &[Row<'a>], known: &HashMap<&str, KnownAgent>) -> Vec<AgentChange<'a>> {
    let mut states: BTreeMap<&'a str, Option<KnownAgent>> = BTreeMap::new();
    for row in rows {
        if let Some(version) = version_of(row.event) {
            let agent = row.event.stamp.agent.as_str();
            let state = states.entry(agent).or_insert_with(|| known.get(agent).cloned());
            let after = after(state.as_ref(), row.event, version);
            if state.as_ref().is_none_or(|state| !is_same(state, &after)) {
                *state = Some(after);
            }
        }
    }
    let changed = states.into_iter().filter_map(|(agent, new)| {
        let (new, old) = (new?, known.get(agent).cloned());
        (old.as_ref() != Some(&new)).then_some(AgentChange { agent, new, old })
    });
    changed.collect()
}

fn version_of(event: &Event) -> Option<&str> {
    match &event.body {
        Body::AgentStarted(lifecycle) | Body::AgentStopped(lifecycle) | Body::Heartbeat(lifecycle) => {
            Some(&lifecycle.version)
        }
        Body::Rates(window) => Some(&window.version),
        _ => None,
    }
}

/// Returns the state after an event. Messages come in any order: an older one changes nothing but perhaps the last start.
fn after(state: Option<&KnownAgent>, event: &Event, version: &str) -> KnownAgent {
    let observed_at = event.stamp.observed_at;
    let started_at = matches!(event.body, Body::AgentStarted(_)).then_some(observed_at);
    let last_started_at = state.and_then(|state| state.last_started_at).max(started_at);
    match state {
        Some(state) if !state.is_before(event) => KnownAgent { last_started_at, ..state.clone() },
        _ => KnownAgent {
            epoch: event.id.epoch,
            seq: event.id.seq.cast_signed(),
            observed_at,
            is_running: !matches!(event.body, Body::AgentStopped(_)),
            version: Some(version.to_owned()),
            clock_synced: event.stamp.clock_synced,
            last_started_at,
        },
    }
}

fn is_same(a: &KnownAgent, b: &KnownAgent) -> bool {
    let of = |state: &KnownAgent| (state.is_running, state.version.clone(), state.clock_synced, state.last_started_at);
    of(a) == of(b)
}
