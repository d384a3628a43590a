use chrono::SubsecRound as _;

use super::Agent;
use crate::agent::journal::Durability;
use crate::agent::run::samples::SampleStream;
use crate::agent::status::{AgentState, OngoingProblem, StatusReport, at, truncated};
use crate::process::problems::{Problem, ProblemLog};

/// Times are `CLOCK_BOOTTIME` in milliseconds.
#[derive(Debug, Default)]
pub(super) struct AgentHealth {
    pub(super) started_ms: u64,
    pub(super) last_tick_ms: Option<u64>,
    pub(super) ending: bool,
    pub(super) counters: ProblemLog,
    pub(super) others: ProblemLog,
}

impl Agent {
    pub(super) fn answer(&mut self) {
        let clients = self.status.clients();
        if clients.is_empty() {
            return;
        }
        let answer = self.report().to_json();
        clients.into_iter().for_each(|client| client.answer(&answer));
    }

    fn report(&mut self) -> StatusReport {
        let now = self.stamp();
        let monotonic = self.clock.monotonic();
        let journal = self.system.journal();
        let (durability, next_id, pending, lost, disk) =
            (journal.durability(), journal.next_id(), journal.pending(), journal.lost(), journal.problems());
        let Self { settings, health, publisher, rates, samples, outcome, source, detector, .. } = self;
        let progress = publisher.progress();
        let publishers = [Some(&*publisher), Some(&rates.publisher), samples.as_ref().map(SampleStream::publisher)];
        let of_publishers = publishers.into_iter().flatten().map(|publisher| &publisher.progress().problems);
        let parts: Vec<&ProblemLog> =
            [&disk, &health.counters, &health.others].into_iter().chain(of_publishers).collect();
        let last = parts.iter().filter_map(|part| part.last.as_ref()).max_by_key(|last| last.at_ms);
        let ongoing: Vec<&Problem> = parts.iter().filter_map(|part| part.ongoing.as_ref()).collect();
        let moment = |ms: u64| at(ms, &now);
        let next_flush = publisher.next_flush().map(|next| now.observed_at + next.saturating_sub(monotonic));
        let report = StatusReport {
            state: if health.ending { AgentState::Ending } else { AgentState::Running },
            healthy: ongoing.is_empty(),
            asked_at: now.observed_at,
            agent: Some(settings.agent.clone()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            pid: Some(std::process::id()),
            started_at: Some(moment(health.started_ms)),
            state_dir: std::path::absolute(&settings.state_dir).unwrap_or_else(|_| settings.state_dir.clone()),
            kept_on: Some(if durability == Durability::OnDisk { "disk" } else { "memory" }.to_owned()),
            epoch: next_id.map(|next| next.epoch.to_string()),
            next_seq: next_id.map(|next| next.seq),
            pending: pending.events,
            pending_bytes: pending.bytes,
            oldest_at: pending.oldest,
            source: Some(source.name().to_owned()),
            limits: Some(settings.limits.len()),
            interval_ms: u64::try_from(settings.interval.as_millis()).ok(),
            last_tick_at: health.last_tick_ms.map(moment),
            ticks: Some(outcome.ticks),
            skipped_ticks: Some(outcome.skipped),
            topic: Some(settings.publisher.topic.clone()),
            brokers: Some(settings.publisher.connection.brokers().to_owned()),
            last_flush_at: progress.flushed_ms.map(moment),
            flushing_since: progress.flushing_ms.map(moment),
            next_flush_at: next_flush.map(|next| next.trunc_subsecs(6)),
            delivered: Some(progress.delivered),
            rejected: Some(progress.rejected),
            lost: Some(lost.total()),
            lost_evicted: Some(lost.evicted),
            lost_expired: Some(lost.expired),
            lost_rejected: Some(lost.rejected),
            lost_damaged: Some(lost.damaged),
            retries: Some(progress.retries),
            last_offsets: Some(progress.offsets.clone()),
            errors: Some(parts.iter().map(|part| part.count).sum()),
            last_error_at: last.map(|last| moment(last.at_ms)),
            last_error: last.map(|last| truncated(&last.what)),
            troubles: ongoing.into_iter().map(|problem| OngoingProblem::of(problem, &now)).collect(),
            ..StatusReport::default()
        };
        report.with_breaches(detector.open_breaches(&now)).with_links(detector.links())
    }
}
