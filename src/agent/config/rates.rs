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
    pub max_delay: Duration,
}

const WINDOW_MIN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);

/// Returns the rates and the interval of heartbeats, which is `None` if disabled or if rates are sent at least as often.
pub(super) fn rates_and_heartbeat(
    rates: RawRates,
    heartbeat: RawHeartbeat,
) -> Result<(Option<Rates>, Option<Duration>), Invalid> {
    let rates = Rates::new(rates)?;
    let interval = or_duration("heartbeat.interval", heartbeat.interval, Duration::from_secs(900))?;
    let is_rarer = rates.is_none_or(|rates| rates.window.max(rates.max_delay) > interval);
    Ok((rates, (is_rarer && !interval.is_zero()).then_some(interval)))
}

impl Rates {
    fn new(raw: RawRates) -> Result<Option<Self>, Invalid> {
        let window = or_duration("rates.window", raw.window, Duration::from_secs(300))?;
        if !(WINDOW_MIN..=HOUR).contains(&window) {
            let (least, most) = (lasting(WINDOW_MIN), lasting(HOUR));
            return Err(Invalid::new("rates.window", format!("is not from {least} to {most}")));
        }
        if window.subsec_nanos() != 0 || !HOUR.as_secs().is_multiple_of(window.as_secs()) {
            let message = format!("is {}, which does not divide an hour; write \"5m\"", lasting(window));
            return Err(Invalid::new("rates.window", message));
        }
        let max_delay = or_duration("rates.max_delay", raw.max_delay, Duration::from_secs(900))?;
        Ok(raw.enabled.unwrap_or(true).then_some(Self { window, max_delay }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::config::Layers;
    use crate::process::host::ServiceEnvironment;

    fn settings(text: &str) -> Result<Settings, String> {
        let environment = ServiceEnvironment { hostname: "gw-042".into(), ..ServiceEnvironment::default() };
        Settings::new(&Layers::from_text("agent.toml", text), &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn heartbeats_come_where_rates_do_not_stand_in_for_them() {
        let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
        for (text, heartbeat) in [
            ("", None),
            ("[rates]\nenabled = false", minutes(15)),
            ("[rates]\nmax_delay = '1h'", minutes(15)),
            ("[rates]\nwindow = '30m'\n[heartbeat]\ninterval = '20m'", minutes(20)),
            ("[rates]\nenabled = false\n[heartbeat]\ninterval = '0s'", None),
        ] {
            assert_eq!(settings(text).unwrap().heartbeat, heartbeat, "{text}");
        }
        let default = Rates { window: Duration::from_secs(300), max_delay: Duration::from_secs(900) };
        assert_eq!(settings("").unwrap().rates, Some(default));
    }

    #[test]
    fn a_window_divides_an_hour() {
        for (window, says) in [
            ("9s", "agent.toml:2: rates.window: is not from 10 s to 1 h"),
            ("2h", "is not from 10 s to 1 h"),
            ("7m", "which does not divide an hour; write \"5m\""),
            ("10500ms", "which does not divide an hour"),
        ] {
            let error = settings(&format!("[rates]\nwindow = '{window}'")).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
