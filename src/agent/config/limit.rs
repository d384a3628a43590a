//! `[[limit]]`, as in the file or by `--limit`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::or_duration;
use crate::agent::detector::limit::{Level, Limit, Scope};
use crate::config::{Invalid, list, one_of};
use crate::message::{Direction, Severity};
use crate::units::BitRate;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimit {
    name: Option<String>,
    interface: Option<String>,
    #[serde(default, deserialize_with = "list")]
    interfaces: Option<Vec<String>>,
    scope: Option<String>,
    direction: Option<String>,
    raise_at: Option<String>,
    clear_at: Option<String>,
    r#for: Option<String>,
    clear_for: Option<String>,
    severity: Option<String>,
    update_every: Option<String>,
}

const CLEAR_PERCENT: f64 = 90.0;

pub(super) const SEVERITIES: &[(&str, Severity)] = &[("warning", Severity::Warning), ("critical", Severity::Critical)];

pub(super) fn limit(index: usize, raw: RawLimit) -> Result<Limit, Invalid> {
    let key = |name: &str| format!("limit.{index}.{name}");
    let missing = |name: &str, example: &str| Invalid::new(key(name), format!("is missing; write {name} = {example}"));
    let raise_text = raw.raise_at.ok_or_else(|| missing("raise_at", "\"80 Mbit/s\" or \"80%\""))?;
    let raise_at: Level = raise_text.parse().map_err(|e: String| Invalid::new(key("raise_at"), e))?;
    let clear_at = match raw.clear_at {
        Some(text) => text.parse().map_err(|e: String| Invalid::new(key("clear_at"), e))?,
        None => raise_at.percent(CLEAR_PERCENT),
    };
    match (raise_at, clear_at) {
        (Level::Rate(raise), Level::Rate(clear)) if clear > raise => {
            let message = format!("{clear} is above raise_at ({raise}): a breach would clear before it was raised");
            return Err(Invalid::new(key("clear_at"), message));
        }
        (Level::Percent(raise), Level::Percent(clear)) if clear > raise => {
            let message = format!("{clear}% is above raise_at ({raise}%): a breach would clear before it was raised");
            return Err(Invalid::new(key("clear_at"), message));
        }
        (Level::Rate(_), Level::Percent(_)) | (Level::Percent(_), Level::Rate(_)) => {
            return Err(Invalid::new(key("clear_at"), "and raise_at must both be bit rates or both percentages"));
        }
        _ => {}
    }
    let scope = scope(raw.interface, raw.interfaces, raw.scope.as_deref(), &key)?;
    let name = raw.name.unwrap_or_else(|| match &scope {
        Scope::Interface(pattern) => pattern.clone(),
        Scope::Host(_) => "host".to_owned(),
    });
    if name.is_empty() || name.contains(char::is_control) {
        return Err(Invalid::new(key("name"), "is empty, or contains a control character, such as a line end"));
    }
    let update_every = or_duration(&key("update_every"), raw.update_every, Duration::from_secs(10))?;
    if update_every.is_zero() {
        return Err(Invalid::new(key("update_every"), "is 0s; \"1s\" sends an update of each breach every second"));
    }
    Ok(Limit {
        name,
        scope,
        directions: one_of(&key("direction"), raw.direction.as_deref().unwrap_or("either"), DIRECTIONS)?.to_vec(),
        raise_at,
        clear_at,
        hold: or_duration(&key("for"), raw.r#for, Duration::ZERO)?,
        clear_hold: or_duration(&key("clear_for"), raw.clear_for, Duration::ZERO)?,
        severity: one_of(&key("severity"), raw.severity.as_deref().unwrap_or("warning"), SEVERITIES)?,
        update_every,
    })
}

fn scope(
    interface: Option<String>,
    interfaces: Option<Vec<String>>,
    scope: Option<&str>,
    key: &dyn Fn(&str) -> String,
) -> Result<Scope, Invalid> {
    match (interface, interfaces, scope) {
        (Some(pattern), None, None | Some("interface")) if !pattern.is_empty() => Ok(Scope::Interface(pattern)),
        (None, Some(patterns), Some("host")) if patterns.is_empty() => {
            Err(Invalid::new(key("interfaces"), "is empty; leave it out to sum the links that [interfaces] selects"))
        }
        (None, patterns, Some("host")) => Ok(Scope::Host(patterns.unwrap_or_default())),
        (Some(_), _, Some("host")) => {
            Err(Invalid::new(key("scope"), "\"host\" is a sum over links; leave interface out, or list interfaces"))
        }
        (_, _, Some(other)) if other != "interface" => {
            let message = format!("`{other}` is not a scope; write scope = \"host\", or interface = \"eth*\"");
            Err(Invalid::new(key("scope"), message))
        }
        (_, Some(_), _) => {
            Err(Invalid::new(key("interfaces"), "is only for scope = \"host\"; for a pattern of links write interface"))
        }
        _ => Err(Invalid::new(key("interface"), "is missing; write interface = \"eth*\", or scope = \"host\"")),
    }
}

const DIRECTIONS: &[(&str, &[Direction])] = &[
    ("rx", &[Direction::Rx]),
    ("tx", &[Direction::Tx]),
    ("total", &[Direction::Total]),
    ("either", &[Direction::Rx, Direction::Tx]),
];

// The name of a limit is what a breach is resumed by.
pub(super) fn unique(limits: &[Limit]) -> Result<(), Invalid> {
    let mut names = BTreeMap::new();
    for (index, limit) in limits.iter().enumerate() {
        if names.insert(&limit.name, index).is_some() {
            let message = format!("`{}` is the name of another limit too; give each its own", limit.name);
            return Err(Invalid::new(format!("limit.{index}.name"), message));
        }
    }
    Ok(())
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            let rate: BitRate =
                text.parse().map_err(|e| format!("{e}, or a percentage of the link's speed, as in \"80%\""))?;
            return if rate.bps() == 0 { Err("is 0: nothing is below it".to_owned()) } else { Ok(Self::Rate(rate)) };
        };
        match percent.trim().parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Percent(percent)),
            _ => Err(format!("`{text}` is not a percentage above 0% and up to 100%")),
        }
    }
}

impl Level {
    fn percent(self, percent: f64) -> Self {
        match self {
            Self::Rate(rate) => Self::Rate(rate.percent(percent)),
            Self::Percent(of_speed) => Self::Percent(of_speed * percent / 100.0),
        }
    }
}
