//! `[rates]`, `[samples]` and `[heartbeat]`: what is sent beside events.

use std::time::Duration;

use serde::Deserialize;

use super::or_duration;
use crate::config::{Invalid, quoted};
use crate::units::lasting;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRates {
    #[serde(default, deserialize_with = "quoted")]
    enabled: Option<bool>,
    window: Option<String>,
    max_delay: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSamples {
    #[serde(default, deserialize_with = "quoted")]
    pub(super) enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHeartbeat {
    interval: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    pub window: Duration,
    /// Longest time that a window waits for a flush of events before it is sent without one.
    pub max_delay: Duration,
}

const WINDOW_MIN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);

impl Rates {
    pub(super) fn new(raw: RawRates) -> Result<Option<Self>, Invalid> {
        let window = or_duration("rates.window", raw.window, Duration::from_secs(300))?;
        if !(WINDOW_MIN..=HOUR).contains(&window) {
            let (least, most) = (lasting(WINDOW_MIN), lasting(HOUR));
            return Err(Invalid::new("rates.window", format!("is not from {least} to {most}")));
        }
        if window.subsec_nanos() != 0 || HOUR.as_secs() % window.as_secs() != 0 {
            let message = format!("is {}, which does not divide an hour; write \"5m\"", lasting(window));
            return Err(Invalid::new("rates.window", message));
        }
        let max_delay = or_duration("rates.max_delay", raw.max_delay, Duration::from_secs(900))?;
        Ok(raw.enabled.unwrap_or(true).then_some(Self { window, max_delay }))
    }
}

/// Returns the time between heartbeats; `None` where there are none, or where rates come at least as often.
pub(super) fn heartbeat(raw: RawHeartbeat, rates: Option<Rates>) -> Result<Option<Duration>, Invalid> {
    let interval = or_duration("heartbeat.interval", raw.interval, Duration::from_secs(900))?;
    let is_rarer = rates.is_none_or(|rates| rates.window.max(rates.max_delay) > interval);
    Ok((is_rarer && !interval.is_zero()).then_some(interval))
}
