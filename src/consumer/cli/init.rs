use std::path::Path;

use clap::Args;

use super::common::{CONFIG, Common, SERVICE_USER};
use crate::cli::check::unreadable_by_service;
use crate::cli::init::{InitFlags, Template};
use crate::config::Layers;
use crate::consumer::config::Settings;
use crate::process::exit::Failure;
use crate::process::systemd::Directories;

pub(super) const HELP: &str = "\
Writes /etc/highwater/consumer.toml, or FILE of -c FILE (-c - prints it), with
all keys explained. -b, -t, -g, -s and --store go into the file. An existing
file stays as it is, unless --force is given. A URL with a password makes it
readable for its owner alone; for a service, rather write store.password_file.

Examples:
  sudo highwater-consumer init --store postgres://highwater@db.example/highwater
  highwater-consumer init -c consumer.toml --store sqlite:highwater.db";

#[derive(Args, Debug)]
pub(super) struct ConsumerInit {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    flags: InitFlags,
}

pub(super) const SHIPPED: &str = include_str!("../../../systemd/consumer.toml");

/// Head of a file that flags may have changed, in place of the shipped one.
const HEAD: &str = "\
# `highwater-consumer init` wrote this file. Keys that are commented out show their defaults or, where the comment says so, an example.
#
";

impl ConsumerInit {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.common.start_log();
        let mut template = Template::new(SHIPPED);
        template.replace("# Unchanged, this file", "# `highwater-consumer check`", HEAD);
        let flags = self.common.keys();
        template.set_flags(&flags);
        let path = self.common.path().unwrap_or(Path::new(CONFIG));
        // Values of flags are checked alone first: an error names the flag, and no file is written.
        let of_flags = Layers::default().with_flags(&flags);
        let settings = Settings::new(&of_flags, &Directories::default()).map_err(Failure::config)?;
        let layers = Layers::from_text(&path.display().to_string(), template.text());
        Settings::new(&layers, &Directories::default()).map_err(Failure::config)?;
        let holds_secret = settings.store.holds_password();
        self.flags.write(path, template.text(), holds_secret)?;
        if path != Path::new("-") {
            let unreadable = unreadable_by_service(SERVICE_USER, &[path.to_owned()]);
            unreadable.iter().for_each(|finding| self.common.note(&finding.text));
            let check = if path == Path::new(CONFIG) { String::new() } else { format!(" -c {}", path.display()) };
            self.common.note(&format!("wrote {}; `highwater-consumer check{check}` tries it", path.display()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_has_the_user_of_its_unit() {
        let unit = include_str!("../../../systemd/highwater-consumer.service");
        assert!(unit.contains(&format!("\nUser={SERVICE_USER}\n")) && unit.contains(CONFIG));
    }

    #[test]
    fn every_flag_is_a_key_that_the_shipped_file_shows() {
        let mut template = Template::new(SHIPPED);
        for (table, key) in
            [("kafka", "brokers"), ("kafka", "topic"), ("kafka", "group"), ("kafka.registry", "url"), ("store", "url")]
        {
            template.set(table, key, if key == "url" { "http://r:8081" } else { "other" });
        }
        template.set("store", "url", "postgres://u@localhost/d");
        let layers = Layers::from_text("consumer.toml", template.text());
        let settings = Settings::new(&layers, &Directories::default()).unwrap();
        assert_eq!((settings.topic.as_str(), settings.group.as_str()), ("other", "other"));
        assert_eq!(settings.store.to_string(), "postgres://u@localhost:5432/d");
        assert_eq!(settings.registry.unwrap().url(), "http://r:8081");
    }
}
