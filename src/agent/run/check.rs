//! Checks of this host that ask no server: its links, state directory and clock.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{boot_id, cost, detector, open_source, stamp};
use crate::agent::config::Settings;
use crate::agent::counters::filter::InterfaceFilter;
use crate::agent::counters::{self, LinkInfo, Reading, Speed};
use crate::agent::detector::limit::{Limit, Scope};
use crate::agent::detector::{ConfigNotice, Detections, Detector};
use crate::agent::journal::{JournalError, Snapshot, is_held};
use crate::process::checks::{Finding, disk_space, may_write};
use crate::process::clock::{Clock, SystemClock, rfc3339_seconds};
use crate::process::exit::chain;
use crate::process::host::machine_id;
use crate::units::{BitRate, ByteCount};

/// Multiple of the journal's size needed: its log, and the file that replaces a damaged one.
const JOURNAL_ROOM: u64 = 3;
const NAMED_MAX: usize = 8;

/// Returns findings about the links that the limits apply to, and a line on the cost of rates.
pub fn check_links(settings: &Settings) -> (Vec<Finding>, Option<String>) {
    let (mut reading, mut detections) = (Reading::default(), Detections::default());
    let (clock, mut detector) = (SystemClock::default(), detector(settings));
    let read = open_source(settings).and_then(|mut source| source.read(&clock, &mut reading));
    if let Err(error) = read {
        return (vec![Finding::failed("links", chain(&error))], None);
    }
    let now = stamp(&settings.agent, &boot_id(), &clock);
    detector.observe(&reading, &now, &mut detections);
    let every_link = counters::links(settings.source.clone(), InterfaceFilter::every_link()).unwrap_or_default();
    let idle = settings.selection().warnings(&every_link.iter().collect::<Vec<_>>());
    let mut findings: Vec<Finding> = idle.into_iter().map(|warning| Finding::warning("links", warning)).collect();
    let links: Vec<String> = detector.links().map(|link| described(link.info)).collect();
    if !links.is_empty() {
        findings.insert(0, Finding::ok("links", listed(&links)));
    } else if findings.is_empty() {
        findings.push(Finding::warning("links", "none is watched; see [interfaces] include"));
    }
    findings.extend(settings.limits.iter().flat_map(|limit| of_limit(limit, &detector)));
    if settings.limits.is_empty() {
        findings.push(Finding::warning("limits", no_limit(settings, &detector)));
    }
    let twice = detections.notices.iter().filter(|notice| matches!(notice, ConfigNotice::CountedTwice { .. }));
    findings.extend(twice.map(|notice| Finding::warning("links", notice)));
    (findings, cost::line(settings, &detector))
}

/// Returns the warning for an agent without limits, with a link of this host as an example.
pub(super) fn no_limit(settings: &Settings, detector: &Detector) -> String {
    let first = detector.links().next().map_or_else(|| "LINK".to_owned(), |link| link.info.name.clone());
    let rates = if settings.rates.is_some() { "only rates are published" } else { "rates are off, too" };
    format!(
        "no limit is configured, so nothing can be exceeded, and {rates}; set one with --limit '{first}=80 Mbit/s', or write a \
         [[limit]]"
    )
}

fn of_limit(limit: &Limit, detector: &Detector) -> Vec<Finding> {
    let about = format!("limit {}", limit.name);
    if let Scope::Host(_) = &limit.scope {
        let members =
            detector.host_limits().find(|(name, _)| *name == limit.name).map_or_else(Vec::new, |(_, links)| links);
        let names: Vec<String> = members.iter().map(|name| (*name).to_owned()).collect();
        return vec![match names.as_slice() {
            [] => Finding::warning(about, "no link is in its sum now"),
            names => Finding::ok(about, format!("{} of the sum of {}", limit.raise_at, listed(names))),
        }];
    }
    let (mut active, mut inactive) = (BTreeMap::new(), Vec::new());
    for link in detector.links() {
        for (_, direction, thresholds) in link.limits.iter().filter(|(name, ..)| *name == limit.name) {
            match thresholds {
                Some(thresholds) => {
                    let rates: &mut Vec<(&'static str, BitRate)> = active.entry(described(link.info)).or_default();
                    rates.push((direction.as_str(), thresholds.raise_at));
                }
                None if !inactive.contains(&link.info.name) => inactive.push(link.info.name.clone()),
                None => {}
            }
        }
    }
    let mut findings = Vec::new();
    if !active.is_empty() {
        let active: Vec<String> = active.into_iter().map(|(link, rates)| format!("{link} {}", at(&rates))).collect();
        findings.push(Finding::ok(&about, listed(&active)));
    }
    if let [first, ..] = &*inactive {
        let text = format!(
            "inactive on {}, whose speed is unknown; set raise_at to a bit rate, or write [[link]] interface = \"{first}\" with its \
             speed",
            listed(&inactive)
        );
        findings.push(Finding::warning(&about, text));
    }
    if findings.is_empty() {
        let Scope::Interface(pattern) = &limit.scope else { return findings };
        findings.push(Finding::warning(&about, format!("no link matches \"{pattern}\" now; one may appear later")));
    }
    findings
}

fn described(link: &LinkInfo) -> String {
    let speed = match link.speed {
        Speed { rx: Some(rx), tx: Some(tx) } if rx == tx => rx.to_string(),
        Speed { rx: None, tx: None } => "speed unknown".to_owned(),
        Speed { rx, tx } => {
            let shown = |speed: Option<BitRate>| speed.map_or_else(|| "unknown".to_owned(), |speed| speed.to_string());
            format!("rx {}, tx {}", shown(rx), shown(tx))
        }
    };
    format!("{} ({speed}{})", link.name, if link.up { "" } else { ", down" })
}

fn at(rates: &[(&'static str, BitRate)]) -> String {
    match rates {
        [(_, first), others @ ..] if others.iter().all(|(_, rate)| rate == first) => format!("at {first}"),
        rates => {
            let each: Vec<String> = rates.iter().map(|(direction, rate)| format!("{direction} at {rate}")).collect();
            each.join(", ")
        }
    }
}

fn listed(items: &[String]) -> String {
    let mut text = items[..items.len().min(NAMED_MAX)].join(", ");
    if items.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", items.len() - NAMED_MAX);
    }
    text
}

pub fn check_state_dir(settings: &Settings) -> Vec<Finding> {
    let (directory, about) = (&settings.state_dir, "state");
    let shown = directory.display();
    let mut findings = vec![match (may_write(directory), is_held(directory)) {
        (Err(why), _) => Finding::failed(
            about,
            format!("{why}; check as the agent's user (sudo), or name another directory with --state-dir or state_dir"),
        ),
        (Ok(()), Ok(true)) => Finding::ok(about, format!("{shown} is in use: an agent runs")),
        (Ok(()), Ok(false)) if directory.exists() => Finding::ok(about, format!("{shown} can be written")),
        (Ok(()), Ok(false)) => Finding::ok(about, format!("{shown} can be created")),
        (Ok(()), Err(error)) => Finding::failed(about, chain(&error)),
    }];
    let needed = settings.journal_size.bytes().saturating_mul(JOURNAL_ROOM);
    findings.extend(disk_space(directory, ByteCount::from_bytes(needed)));
    findings
}

/// Returns what a starting agent would find wrong with the journal. While an agent runs, that is its own business.
pub fn check_journal(settings: &Settings) -> Option<Finding> {
    let (directory, about) = (&settings.state_dir, "journal");
    if !matches!(is_held(directory), Ok(false)) {
        return None;
    }
    match Snapshot::read(directory, &machine_id()) {
        Err(error @ JournalError::Newer { .. }) => Some(Finding::failed(about, error)),
        Err(error @ JournalError::Damaged(_)) => Some(Finding::warning(
            about,
            format!("{}: {error}; the next start sets it aside, and saves what can be read", directory.display()),
        )),
        // Other errors are about the directory, which has its own check.
        _ => None,
    }
}

pub fn check_clock(clock: &dyn Clock) -> Finding {
    let (about, now) = ("clock", rfc3339_seconds(clock.wall()));
    match clock.synced() {
        Some(true) => Finding::ok(about, format!("{now}, synchronised")),
        Some(false) => Finding::warning(
            about,
            format!("{now}: it was never set, so events have wrong times; run systemd-timesyncd or chrony"),
        ),
        None => Finding::ok(
            about,
            format!("{now}; whether it is synchronised is unknown: systemd-timesyncd does not say so"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::counters::{AddReason, LinkChange, LinkKind};
    use crate::config::Layers;
    use crate::process::host::ServiceEnvironment;

    #[test]
    fn a_limit_shows_where_it_is_active_where_it_waits_for_a_speed_and_where_there_is_no_link() {
        let limit = |name: &str, level: &str| format!("[[limit]]\ninterface = '{name}'\nraise_at = '{level}'\n");
        let text = [limit("*", "80%"), limit("eth0", "8 Mbit/s"), limit("ppp*", "50%")].concat();
        let settings = Settings::new(&Layers::from_text("agent.toml", &text), &ServiceEnvironment::default()).unwrap();
        let mut detector = detector(&settings);
        let speed = Speed::both(Some(BitRate::from_bps(1_000_000_000)));
        let eth0 = LinkInfo { speed, ..LinkInfo::new(2, "eth0", LinkKind::Physical) };
        let added = [eth0, LinkInfo::new(3, "tun0", LinkKind::Other("tun".into()))];
        let changes = added.map(|link| LinkChange::Added(link, AddReason::Appeared)).into();
        let reading = Reading { changes, ..Reading::default() };
        let now = stamp("gw", "", &SystemClock::default());
        detector.observe(&reading, &now, &mut Detections::default());
        let said: Vec<String> = settings
            .limits
            .iter()
            .flat_map(|limit| of_limit(limit, &detector))
            .map(|found| found.to_string())
            .collect();
        let expected = [
            "ok       limit *: eth0 (1.0 Gbit/s) at 800.0 Mbit/s",
            "warning  limit *: inactive on tun0, whose speed is unknown; set raise_at to a bit rate, or write [[link]] interface = \
             \"tun0\" with its speed",
            "ok       limit eth0: eth0 (1.0 Gbit/s) at 8.0 Mbit/s",
            "warning  limit ppp*: no link matches \"ppp*\" now; one may appear later",
        ];
        assert_eq!(said, expected);
    }
}
