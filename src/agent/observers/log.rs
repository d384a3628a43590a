use std::sync::Arc;
use std::time::Duration;

use log::{Level, log};

use crate::agent::event_system::{ObserveError, Observer};
use crate::message::{ALL_INTERFACES, Body, Breach, Event, Link, Loss, Reason, Severity};
use crate::units::{BitRate, ByteCount, lasting};

#[derive(Debug)]
pub struct LogObserver;

impl Observer for LogObserver {
    fn name(&self) -> &'static str {
        "log"
    }

    fn added(&mut self, events: &[Arc<Event>]) -> Result<(), ObserveError> {
        for event in events {
            let (level, line) = log_line(event);
            log!(level, "{line}");
        }
        Ok(())
    }
}

fn log_line(event: &Event) -> (Level, String) {
    match &event.body {
        Body::BreachRaised(breach) => {
            let critical = if breach.severity == Severity::Critical { " (critical)" } else { "" };
            (Level::Warn, format!("bandwidth exceeded{critical} {}", over(breach)))
        }
        Body::BreachUpdated(breach) => (Level::Info, updated(breach)),
        Body::BreachCleared(breach) => (Level::Info, cleared(breach)),
        // The journal logs losses as their number grows; one event may declare many.
        Body::Loss(loss) => {
            let Loss { epoch, reason, .. } = loss;
            (Level::Debug, format!("event {} declares losses of epoch {epoch}: {reason}", event.id))
        }
        Body::LinkAdded(link) => {
            let speed = link.speed_bps.map_or("speed unknown".to_owned(), |bps| BitRate::from_bps(bps).to_string());
            (Level::Info, format!("{} (index {}, {speed})", changed(link), link.ifindex))
        }
        Body::LinkRemoved(link) | Body::LinkChanged(link) => {
            (Level::Info, format!("{} (index {})", changed(link), link.ifindex))
        }
        _ => (Level::Debug, format!("event {} {}", event.id, event.body.kind())),
    }
}

fn changed(link: &Link) -> String {
    let reason = link.reason.as_ref().map_or("changed", Reason::as_str);
    let detail = link.detail.as_ref().map(|detail| format!(", {detail}")).unwrap_or_default();
    format!("link {} {reason}{detail}", link.interface)
}

fn updated(breach: &Breach) -> String {
    let Breach { limit_name, breach_id, .. } = breach;
    match &breach.detail {
        Some(detail) => format!("still open on {}: {detail}, limit {limit_name} [breach {breach_id}]", place(breach)),
        None => format!("still exceeded for {} {}", lasted(breach.duration_ms), over(breach)),
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

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::message::{Direction, Epoch, EventId, Stamp};

    fn breach() -> Breach {
        Breach {
            breach_id: "fc701383db4a6738".into(),
            started_at: DateTime::UNIX_EPOCH,
            raised_at: DateTime::UNIX_EPOCH,
            ended_at: DateTime::UNIX_EPOCH,
            limit_name: "wan-down".into(),
            severity: Severity::Warning,
            interface: "eth0".into(),
            ifindex: Some(2),
            direction: Direction::Rx,
            limit_bps: 4_000_000,
            rate_bps: 8_000_000,
            peak_bps: 9_000_000,
            mean_bps: 8_500_000,
            duration_ms: 9_960,
            measured_ms: 9_960,
            excess_bytes: 1 << 20,
            reason: None,
            detail: None,
        }
    }

    fn line(body: fn(Breach) -> Body, breach: Breach) -> String {
        let stamp = Stamp {
            agent: "gw".into(),
            observed_at: DateTime::UNIX_EPOCH,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: None,
        };
        log_line(&Event { id: EventId { epoch: Epoch(1), seq: 1 }, stamp, body: body(breach) }).1
    }

    #[test]
    fn a_breach_that_falls_is_open_and_no_longer_exceeded() {
        let limit = "limit wan-down 4.0 Mbit/s [breach fc701383db4a6738]";
        let raised = line(Body::BreachRaised, breach());
        assert_eq!(raised, format!("bandwidth exceeded on eth0 rx: 8.0 Mbit/s, {limit}"));
        let updated = line(Body::BreachUpdated, breach());
        assert_eq!(updated, format!("still exceeded for 10 s on eth0 rx: 8.0 Mbit/s, {limit}"));
        let detail = Some("below the limit for 3 s, clears after 5 s".to_owned());
        let falling = line(Body::BreachUpdated, Breach { detail, rate_bps: 1_000, ..breach() });
        let open = "still open on eth0 rx: below the limit for 3 s, clears after 5 s, limit wan-down [breach fc701383db4a6738]";
        assert_eq!(falling, open);
    }

    #[test]
    fn a_clear_says_how_much_was_measured_where_that_is_less() {
        let sums = "peak 9.0 Mbit/s, mean 8.5 Mbit/s, 1.0 MiB over limit wan-down [breach fc701383db4a6738]";
        let whole = line(Body::BreachCleared, breach());
        assert_eq!(whole, format!("bandwidth back under the limit on eth0 rx after 10 s: {sums}"));
        let part = line(Body::BreachCleared, Breach { measured_ms: 8_000, ..breach() });
        assert_eq!(part, format!("bandwidth back under the limit on eth0 rx after 10 s, 8 s of it measured: {sums}"));
    }
}
