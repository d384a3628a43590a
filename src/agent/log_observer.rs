//! Tells the log of each event, in the words of whoever reads it at night.

use std::sync::Arc;

use log::{Level, log};

use crate::agent::event_system::{ObserveError, Observer};
use crate::event::{ALL_INTERFACES, Body, Breach, Event, Severity};
use crate::units::{BitRate, ByteCount};

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
            (Level::Info, format!("still exceeded for {} s {}", breach.duration_ms / 1_000, over(breach)))
        }
        Body::BreachCleared(breach) => (Level::Info, cleared(breach)),
        Body::Loss(loss) => {
            (Level::Error, format!("{} events of epoch {} are lost: {}", loss.count(), loss.epoch, loss.reason))
        }
        Body::LinkAdded(link) => {
            let speed = link.speed_bps.map_or("speed unknown".to_owned(), |bps| BitRate::from_bps(bps).to_string());
            let reason = link.reason.as_deref().unwrap_or("appeared");
            (Level::Info, format!("link {} {reason} (index {}, {speed})", link.interface, link.ifindex))
        }
        Body::LinkRemoved(link) => {
            let reason = link.reason.as_deref().unwrap_or("gone");
            (Level::Info, format!("link {} {reason} (index {})", link.interface, link.ifindex))
        }
        Body::AgentStarted(_) | Body::AgentStopped(_) | Body::Sample(_) | Body::Unknown(_) => {
            (Level::Debug, format!("event {} {}", event.id, event.body.kind()))
        }
    }
}

fn cleared(breach: &Breach) -> String {
    let place = place(breach);
    let end = match breach.reason.as_deref() {
        None | Some("below") => format!("bandwidth back under the limit on {place}"),
        Some(reason) => format!("no more to say of the breach on {place} ({reason})"),
    };
    format!(
        "{end} after {} s: peak {}, mean {}, {} over limit {} [breach {}]",
        breach.duration_ms / 1_000,
        BitRate::from_bps(breach.peak_bps),
        BitRate::from_bps(breach.mean_bps),
        ByteCount::from_bytes(breach.excess_bytes),
        breach.limit,
        breach.breach_id
    )
}

fn over(breach: &Breach) -> String {
    format!(
        "on {}: {}, limit {} {} [breach {}]",
        place(breach),
        BitRate::from_bps(breach.rate_bps),
        breach.limit,
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
