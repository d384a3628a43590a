//! `highwater-agent init`: the shipped file, with this host's links and a limit for each.

use std::path::Path;

use clap::Args;

use super::common::{CONFIG, Common, SERVICE_USER};
use crate::agent::config::Settings;
use crate::agent::counters::filter::InterfaceFilter;
use crate::agent::counters::{self, LinkInfo, SourceChoice, Speed};
use crate::cli::check::unreadable_by_service;
use crate::cli::init::{InitFlags, Template};
use crate::config::Layers;
use crate::process::exit::{Failure, chain, write_error};
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
            self.common.note(&match known_speed(link) {
                Some(speed) => format!("{speed}, limit {PERCENT}"),
                None => format!("{}: speed unknown, limit {RATE}", link.name),
            });
        }
        if path != Path::new("-") {
            let unreadable = unreadable_by_service(SERVICE_USER, &[path.to_owned()]);
            unreadable.iter().for_each(|finding| self.common.note(&finding.text));
            let limits = counted(if links.is_empty() { 2 } else { links.len() as u64 }, "limit");
            let check = if path == Path::new(CONFIG) { String::new() } else { format!(" -c {}", path.display()) };
            self.common
                .note(&format!("wrote {} with {limits}; `highwater-agent check{check}` tries it", path.display()));
        }
        Ok(())
    }
}

fn links() -> Vec<LinkInfo> {
    counters::links(SourceChoice::Auto, InterfaceFilter::default()).unwrap_or_else(|error| {
        write_error(&format!("warning: this host's links are unknown: {}", chain(&error)));
        Vec::new()
    })
}

const HEAD: &str = "\
# `highwater-agent init` wrote this file, with a limit for each network link that this host had: an event is sent to Kafka when one of
# them is used at 80 % of its speed or more or, where the kernel knows no speed, carries 80 Mbit/s. Keys that are commented out show
# their defaults or, where the comment says so, an example.
#
";

fn template(links: &[LinkInfo]) -> Template {
    let mut template = Template::new(SHIPPED);
    let Some((first, others)) = links.split_first() else { return template };
    template.replace("# Unchanged, this file", "# `highwater-agent check`", HEAD);
    let speeds: String = links.iter().filter(|link| link.speed.max().is_none()).map(speed_example).collect();
    template.replace("# A limit. There can be", "# A limit. There can be", &speeds);
    template.replace("[[limit]]", "[[limit]]", &speed_comment(first));
    template.set("[limit]", "name", &format!("{}-nearly-full", first.name));
    template.set("[limit]", "interface", &first.name);
    template.set("[limit]", "raise_at", raise_at(first.speed).0);
    template.set("[limit]", "clear_at", raise_at(first.speed).1);
    let others: String = others.iter().map(limit).collect();
    template.replace("# A second limit", "# When events are sent", &others);
    template
}

fn known_speed(link: &LinkInfo) -> Option<String> {
    link.speed.max().map(|speed| format!("{}: {speed}", link.name))
}

/// Returns the line above a limit in %, from which it can be told in bits per second.
fn speed_comment(link: &LinkInfo) -> String {
    known_speed(link).map(|speed| format!("# {speed}\n")).unwrap_or_default()
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
        "{}[[limit]]\nname = \"{name}-nearly-full\"\ninterface = \"{name}\"\nraise_at = \"{raise_at}\"\nclear_at = \"{clear_at}\"\n\
         for = \"3s\"\nclear_for = \"10s\"\n\n",
        speed_comment(link),
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
    use crate::agent::counters::{LinkKind, filter};
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
    fn the_service_has_the_user_of_its_unit() {
        let unit = include_str!("../../../systemd/highwater-agent.service");
        assert!(unit.contains(&format!("\nUser={SERVICE_USER}\n")) && unit.contains(CONFIG));
    }

    #[test]
    fn the_file_is_true_of_itself_and_shows_each_known_speed() {
        let text =
            template(&[link("eth0", Some(1_000)), link("ens3", None), link("eth1", Some(100))]).text().to_owned();
        assert!(!text.contains("Unchanged") && !text.contains("800 Mbit/s"), "{text}");
        assert!(text.starts_with("# Highwater agent: /etc/highwater/agent.toml\n#\n# `highwater-agent init` wrote"));
        assert!(text.contains("an example.\n#\n# `highwater-agent check` validates"), "{text}");
        for (name, comment) in
            [("eth0", "# eth0: 1.0 Gbit/s\n"), ("eth1", "\n\n# eth1: 100.0 Mbit/s\n"), ("ens3", "\n\n")]
        {
            assert!(text.contains(&format!("{comment}[[limit]]\nname = \"{name}-nearly-full\"")), "{text}");
        }
    }

    #[test]
    fn without_links_the_shipped_file_stays() {
        assert_eq!(template(&[]).text(), SHIPPED);
    }
}
