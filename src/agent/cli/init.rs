//! `highwater-agent init`: the shipped file, with this host's links and a limit for each.

use std::path::Path;

use clap::Args;

use super::common::{CONFIG, Common};
use crate::agent::config::Settings;
use crate::agent::counters::filter::InterfaceFilter;
use crate::agent::counters::{self, LinkChange, LinkInfo, LinkKind, Reading, SourceChoice, Speed};
use crate::cli::init::{InitFlags, Template};
use crate::config::Layers;
use crate::process::clock::SystemClock;
use crate::process::exit::{Failure, write_error};
use crate::process::host::ServiceEnvironment;
use crate::units::counted;

pub(super) const HELP: &str = "\
Writes /etc/highwater/agent.toml, or FILE of -c FILE (-c - prints it), with all
keys explained, and a limit on each link that carries traffic to other hosts: 80
% of its speed, or 80 Mbit/s where the kernel knows no speed, as of most virtual
links; the file says where to write one. -b, -t, -s and --state-dir go into the
file. An existing file stays as it is, unless --force is given.

Examples:
  sudo highwater-agent init -b kafka-1:9092
  highwater-agent init -c agent.toml && highwater-agent check -c agent.toml";

#[derive(Args, Debug)]
pub(super) struct AgentInit {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    flags: InitFlags,
}

pub(super) const SHIPPED: &str = include_str!("../../../systemd/agent.toml");

const RATE: &str = "80 Mbit/s";
const PERCENT: &str = "80%";

impl AgentInit {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.common.start_log();
        let links = links();
        let mut template = template(&links);
        let flags = self.common.keys();
        template.set_flags(&flags);
        let path = self.common.path().unwrap_or(Path::new(CONFIG));
        // Reports a flag's wrong value under the flag's name, before a file is written.
        Settings::new(&Layers::default().with_flags(&flags), &ServiceEnvironment::read()).map_err(Failure::config)?;
        let layers = Layers::from_text(&path.display().to_string(), template.text());
        Settings::new(&layers, &ServiceEnvironment::read()).map_err(Failure::config)?;
        self.flags.write(path, template.text(), false)?;
        for link in &links {
            let LinkInfo { name, speed, .. } = link;
            self.common.note(&match speed.max() {
                Some(speed) => format!("{name}: {speed}, limit {PERCENT}"),
                None => format!("{name}: speed unknown, limit {RATE}"),
            });
        }
        if path != Path::new("-") {
            let limits = counted(if links.is_empty() { 2 } else { links.len() as u64 }, "limit");
            let check = if path == Path::new(CONFIG) { String::new() } else { format!(" -c {}", path.display()) };
            self.common
                .note(&format!("wrote {} with {limits}; `highwater-agent check{check}` tries it", path.display()));
        }
        Ok(())
    }
}

/// Returns the links that are watched by default; without any, as in a container, all but loopback.
fn links() -> Vec<LinkInfo> {
    let mut reading = Reading::default();
    let read = counters::open(SourceChoice::Auto, Path::new("/"), InterfaceFilter::every_link())
        .and_then(|mut source| source.read(&SystemClock::default(), &mut reading));
    if let Err(error) = read {
        write_error(&format!("warning: this host's links are unknown: {}", crate::process::exit::chain(&error)));
    }
    let added = reading.changes.into_iter().filter_map(|change| match change {
        LinkChange::Added(link, _) if link.kind != LinkKind::Loopback => Some(link),
        _ => None,
    });
    let (usual, others): (Vec<_>, Vec<_>) = added.partition(|link| InterfaceFilter::default().watches(link));
    let mut links = if usual.is_empty() { others.into_iter().filter(|link| link.up).collect() } else { usual };
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

fn template(links: &[LinkInfo]) -> Template {
    let mut template = Template::new(SHIPPED);
    let Some((first, others)) = links.split_first() else { return template };
    let speeds: String = links.iter().filter(|link| link.speed.max().is_none()).map(speed_example).collect();
    template.replace("# A limit. There can be", "# A limit. There can be", &speeds);
    template.set("[limit]", "name", &format!("{}-nearly-full", first.name));
    template.set("[limit]", "interface", &first.name);
    template.set("[limit]", "raise_at", raise_at(first.speed).0);
    template.set("[limit]", "clear_at", raise_at(first.speed).1);
    let others: String = others.iter().map(limit).collect();
    template.replace("# A second limit", "# When events are sent", &others);
    template
}

fn speed_example(link: &LinkInfo) -> String {
    format!(
        "# The kernel does not know the speed of {name}. With it, limits of {name} can be percentages:\n#[[link]]\n\
         #interface = \"{name}\"\n#speed = \"1 Gbit/s\"\n\n",
        name = link.name
    )
}

fn limit(link: &LinkInfo) -> String {
    let (raise_at, clear_at) = raise_at(link.speed);
    format!(
        "[[limit]]\nname = \"{name}-nearly-full\"\ninterface = \"{name}\"\nraise_at = \"{raise_at}\"\nclear_at = \"{clear_at}\"\n\
         for = \"3s\"\nclear_for = \"10s\"\n\n",
        name = link.name
    )
}

fn raise_at(speed: Speed) -> (&'static str, &'static str) {
    match speed {
        Speed { rx: Some(_), tx: Some(_) } => (PERCENT, "70%"),
        _ => (RATE, "70 Mbit/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::counters::filter;
    use crate::agent::detector::limit::Level;
    use crate::process::host::ServiceEnvironment;
    use crate::units::BitRate;

    fn link(name: &str, mbps: Option<u64>) -> LinkInfo {
        let speed = Speed::both(mbps.map(|mbps| BitRate::from_bps(mbps * 1_000_000)));
        LinkInfo { speed, ..LinkInfo::new(2, name, LinkKind::Physical) }
    }

    fn settings(text: &str) -> Settings {
        let environment = ServiceEnvironment { hostname: "gw-042".into(), ..ServiceEnvironment::default() };
        Settings::new(&Layers::from_text("agent.toml", text), &environment).unwrap()
    }

    #[test]
    fn each_link_gets_a_limit_that_is_evaluated() {
        let links = [link("ens3", None), link("eth0", Some(1_000)), link("ppp0", None)];
        let text = template(&links).text().to_owned();
        let settings = settings(&text);
        assert_eq!(settings.limits.len(), links.len(), "{text}");
        for (limit, link) in settings.limits.iter().zip(&links) {
            assert_eq!(limit.name, format!("{}-nearly-full", link.name));
            assert!(filter::names(&link.name, link) && settings.selection().watches(link));
            for direction in &limit.directions {
                assert!(
                    limit.raise_at.resolve(link.speed, *direction) > limit.clear_at.resolve(link.speed, *direction)
                );
                assert!(limit.raise_at.resolve(link.speed, *direction).is_some(), "{limit}");
            }
        }
        assert!(matches!(settings.limits[1].raise_at, Level::Percent(_)));
        assert_eq!(text.matches("The kernel does not know the speed of ").count(), 2);
        // With their comment signs removed, the examples work.
        let known = text.replace("#[[link]]\n#interface = \"ens3\"\n#speed", "[[link]]\ninterface = \"ens3\"\nspeed");
        assert_eq!(self::settings(&known).links.len(), 1);
    }

    #[test]
    fn without_links_the_shipped_file_stays() {
        assert_eq!(template(&[]).text(), SHIPPED);
    }
}
