//! Logs each event, in words for whoever reads them at night.

use std::sync::Arc;
use std::time::Duration;

use log::{Level, log};

use crate::agent::event_system::{ObserveError, Observer};
use crate::event::{ALL_INTERFACES, Body, Breach, Event, Loss, Reason, Severity};
use crate::units::{BitRate, ByteCount, counted, lasting};

/// The observer that logs.
#[derive(Debug)]
pub struct LogObserver;

impl Observer for LogObserver {
    fn name(&self) -> &'static str {
        "log"
    }

    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
        for event in events {
            let (level, line) = told(event);
            log!(level, "{line}");
        }
        Ok(())
    }
}

fn told(event: &Event) -> (Level, String) {
    match &event.body {
        Body::BreachRaised(breach) => {
            let critical = if breach.severity == Severity::Critical { " (critical)" } else { "" };
            (Level::Warn, format!("bandwidth exceeded{critical} {}", over(breach)))
        }
        Body::BreachUpdated(breach) => {
            (Level::Info, format!("still exceeded for {} {}", lasted(breach.duration_ms), over(breach)))
        }
        Body::BreachCleared(breach) => (Level::Info, cleared(breach)),
        Body::Loss(loss) => {
            let Loss { epoch, reason, .. } = loss;
            let detail = loss.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
            (Level::Error, format!("lost {} of epoch {epoch}: {reason}{detail}", counted(loss.count(), "event")))
        }
        Body::LinkAdded(link) => {
            let speed = link.speed_bps.map_or("speed unknown".to_owned(), |bps| BitRate::from_bps(bps).to_string());
            let what = link.detail.as_deref().unwrap_or("added");
            (Level::Info, format!("link {} {what} (index {}, {speed})", link.interface, link.ifindex))
        }
        Body::LinkRemoved(link) => {
            let what = link.detail.as_deref().unwrap_or("removed");
            (Level::Info, format!("link {} {what} (index {})", link.interface, link.ifindex))
        }
        Body::LinkChanged(link) => {
            let reason = link.reason.as_ref().map_or("changed", Reason::as_str);
            let detail = link.detail.as_ref().map(|detail| format!(" {detail}")).unwrap_or_default();
            (Level::Info, format!("link {} {reason}{detail} (index {})", link.interface, link.ifindex))
        }
        Body::AgentStarted(_) | Body::AgentStopped(_) | Body::Sample(_) | Body::Unknown(_) => {
            (Level::Debug, format!("event {} {}", event.id, event.body.kind()))
        }
    }
}

fn cleared(breach: &Breach) -> String {
    let place = place(breach);
    let end = match &breach.reason {
        None | Some(Reason::Below) => format!("bandwidth back under the limit on {place}"),
        Some(reason) => format!("breach on {place} closed ({reason})"),
    };
    format!(
        "{end} after {}: peak {}, mean {}, {} over limit {} [breach {}]",
        whole_and_measured(breach),
        BitRate::from_bps(breach.peak_bps),
        BitRate::from_bps(breach.mean_bps),
        ByteCount::from_bytes(breach.excess_bytes),
        breach.limit_name,
        breach.breach_id
    )
}

/// `10 s`, or `10 s, 8 s of it measured` where counters could not be read all the time.
fn whole_and_measured(breach: &Breach) -> String {
    let (whole, measured) = (lasted(breach.duration_ms), lasted(breach.measured_ms));
    if measured == whole { whole } else { format!("{whole}, {measured} of it measured") }
}

fn lasted(ms: u64) -> String {
    lasting(Duration::from_millis(ms))
}

fn over(breach: &Breach) -> String {
    format!(
        "on {}: {}, limit {} {} [breach {}]",
        place(breach),
        BitRate::from_bps(breach.rate_bps),
        breach.limit_name,
        BitRate::from_bps(breach.limit_bps),
        breach.breach_id
    )
}

fn place(breach: &Breach) -> String {
    match &*breach.interface {
        ALL_INTERFACES => format!("the host {}", breach.direction),
        interface => format!("{interface} {}", breach.direction),
    }
}
