//! The configuration in force, as a file with the source of each value.

use std::fmt::Write as _;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{ConfigError, Layers, keys, line};

const HIDDEN: &str = "(hidden)";
/// Parts of the names of properties whose values are secrets.
const SECRET: &[&str] = &["password", "secret", "token", "jaas", "pem", "credential", "sasl.oauthbearer.config", "key"];

impl Layers {
    /// Renders each key that has a value, as TOML. `derived` replaces what was written, such as a URL with its password.
    pub fn in_force(
        &self,
        own: &[&'static str],
        defaults: &str,
        derived: &[(&str, String)],
    ) -> Result<String, ConfigError> {
        let (merged, defaults) = (self.merged()?, defaults.parse::<Table>().unwrap_or_default());
        let mut text = String::new();
        for key in keys(&[own]) {
            let written = found(&merged, key);
            let derived = derived.iter().find(|(of, _)| *of == key).map(|(_, value)| Value::String(value.clone()));
            let Some(value) = derived.as_ref().or(written).or(found(&defaults, key)) else { continue };
            let origin = written.and_then(|_| self.origin(key)).unwrap_or_else(|| "default".to_owned());
            let _ = writeln!(text, "{:<60} # {origin}", format!("{key} = {value}"));
        }
        for (name, value) in found(&merged, "kafka.properties").and_then(Value::as_table).into_iter().flatten() {
            let is_secret = SECRET.iter().any(|part| name.contains(part));
            let value = if is_secret { Value::String(HIDDEN.to_owned()) } else { value.clone() };
            let key = format!("kafka.properties.{}", Value::String(name.clone()));
            let origin = self.origin(&format!("kafka.properties.{name}")).unwrap_or_default();
            let _ = writeln!(text, "{:<60} # {origin}", format!("{key} = {value}"));
        }
        for list in ["link", "limit"] {
            let tables = merged.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table);
            for (index, table) in tables.enumerate() {
                let origin = self.origin(&format!("{list}.{index}")).unwrap_or_default();
                let _ = writeln!(text, "\n{:<60} # {origin}", format!("[[{list}]]"));
                for (key, value) in table {
                    let _ = writeln!(text, "{key} = {value}");
                }
            }
        }
        Ok(text)
    }

    /// Returns the file, if it sets `key` and no variable or flag does.
    pub fn file_that_sets(&self, key: &str) -> Option<&Path> {
        let (path, text) = self.file.as_ref()?;
        let is_overridden = self.overrides.iter().any(|set| set.key == key);
        (!is_overridden && found(&text.parse().ok()?, key).is_some()).then_some(path)
    }

    /// Returns the name of the variable or flag that sets a key, or the line of the file; `None` where nothing does.
    fn origin(&self, key: &str) -> Option<String> {
        let sets = |set: &str| key.strip_prefix(set).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if let Some(last) = self.overrides.iter().rfind(|set| sets(&set.key)) {
            return Some(last.name.clone());
        }
        let (path, text) = self.file.as_ref()?;
        let table = DeTable::parse(text).ok()?;
        Some(format!("{}:{}", path.display(), line(text, place(table.get_ref(), key)?)))
    }
}

pub(super) fn found<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => found(table.get(first)?.as_table()?, rest),
    }
}

/// Unlike an error's place, that of a key which is there itself.
fn place(table: &DeTable<'_>, key: &str) -> Option<usize> {
    if let Some(value) = table.get(key) {
        return Some(value.span().start);
    }
    let (first, rest) = key.split_once('.')?;
    match table.get(first)?.get_ref() {
        DeValue::Table(inner) => place(inner, rest),
        DeValue::Array(items) => Some(items.get(rest.parse::<usize>().ok()?)?.span().start),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AGENT_KEYS, CONSUMER_KEYS, Layers};

    fn layers(text: &str, variables: &[(&str, &str)]) -> Layers {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut layers = Layers::read(None, variables, AGENT_KEYS).unwrap();
        layers.file = Some(("agent.toml".into(), text.to_owned()));
        layers
    }

    fn origin_of(text: &str, key: &str) -> String {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {text}"));
        let (value, origin) = line.split_once(" # ").unwrap();
        format!("{} # {origin}", value.trim_end())
    }

    #[test]
    fn each_value_names_who_set_it_and_the_text_is_a_file_again() {
        let file = "interval = '2s'\n[kafka]\nbrokers = 'file:1'\ntopic = 'of-file'\n[[limit]]\ninterface = 'eth0'\nraise_at = '80%'\n";
        let flag = Some("flag:1".to_owned());
        let layers = layers(file, &[("HIGHWATER_KAFKA__TOPIC", "of-env"), ("HIGHWATER_KAFKA__BROKERS", "env:1")])
            .with_flags(&[("--brokers", "kafka.brokers", &flag)]);
        let text = layers.in_force(AGENT_KEYS, "source = 'auto'", &[("agent", "gw".to_owned())]).unwrap();
        for (key, line) in [
            ("interval", "interval = \"2s\" # agent.toml:1"),
            ("kafka.brokers", "kafka.brokers = \"flag:1\" # --brokers"),
            ("kafka.topic", "kafka.topic = \"of-env\" # HIGHWATER_KAFKA__TOPIC"),
            ("source", "source = \"auto\" # default"),
            ("agent", "agent = \"gw\" # default"),
            ("[[limit]]", "[[limit]] # agent.toml:5"),
        ] {
            assert_eq!(origin_of(&text, key), line, "{text}");
        }
        let again = Layers::from_text("again.toml", &text).in_force(AGENT_KEYS, "", &[]).unwrap();
        let values = |text: &str| {
            text.lines().map(|line| line.split(" # ").next().unwrap().trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(values(&again), values(&text));
    }

    #[test]
    fn no_secret_is_shown() {
        let file = "[kafka.properties]\n'client.rack' = 'a'\n'sasl.oauthbearer.client.secret' = 's3cret'\n\
                    'ssl.keystore.password' = 's3cret'\n[store]\nurl = 'postgres://u:s3cret@h/d'\n";
        let derived = [("store.url", "postgres://u@h/d".to_owned())];
        let text = Layers::from_text("consumer.toml", file).in_force(CONSUMER_KEYS, "", &derived).unwrap();
        assert!(!text.contains("s3cret") && text.matches("(hidden)").count() == 2, "{text}");
        assert_eq!(origin_of(&text, "store.url"), "store.url = \"postgres://u@h/d\" # consumer.toml:6");
        assert!(text.contains("kafka.properties.\"client.rack\" = \"a\""), "{text}");
    }
}
