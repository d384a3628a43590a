//! Configuration of both programs: a TOML file, overlaid with environment variables and flags, parsed into raw structures and
//! validated into settings. A wrong value is named by its key path (`limit.0.raise_at`), for which [`Layers`] finds file and line.

mod form;
mod in_force;
mod kubernetes;
#[cfg(test)]
pub(crate) mod testing;
mod topics;

use std::ffi::OsString;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

pub(crate) use self::topics::raw_topics;
pub use self::topics::{ConsumerUse, EVENTS_TOPIC, TOPICS, TopicNames, TopicRole, TopicSpec, usual_names};

/// 100 years: short enough to be added to any time.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

pub const ENV_PREFIX: &str = "HIGHWATER_";

const KEYS: &[&str] = &[
    "kafka.brokers",
    "kafka.topic",
    "kafka.tls.enabled",
    "kafka.tls.ca_file",
    "kafka.tls.certificate_file",
    "kafka.tls.key_file",
    "kafka.tls.key_password_file",
    "kafka.sasl.mechanism",
    "kafka.sasl.username",
    "kafka.sasl.password_file",
    "kafka.registry.url",
    "kafka.registry.username",
    "kafka.registry.password_file",
    "kafka.registry.ca_file",
    "kafka.registry.certificate_file",
    "kafka.registry.key_file",
    "kafka.registry.auto_register",
    "kafka.registry.give_up",
];

/// Without `limit`, `link` and `kafka.properties`, which no variable sets.
pub const AGENT_KEYS: &[&str] = &[
    "agent",
    "interval",
    "source",
    "state_dir",
    "resume_within",
    "interfaces.include",
    "interfaces.exclude",
    "flush.interval",
    "flush.urgent",
    "flush.max_events",
    "flush.linger",
    "journal.max_size",
    "journal.max_age",
    "kafka.format",
    "kafka.key",
    "kafka.create_topics",
    "rates.enabled",
    "rates.window",
    "rates.max_delay",
    "samples.enabled",
    "heartbeat.interval",
    "topics.partitions",
    "topics.replication",
    "topics.retention",
];

pub const CONSUMER_KEYS: &[&str] = &[
    "kafka.group",
    "kafka.start",
    "kafka.instance",
    "store.url",
    "store.password_file",
    "store.schema",
    "store.partition",
    "retention.events",
    "retention.dead_letters",
    "retention.totals",
    "retention.rates",
    "retention.histograms",
    "agents.silent_after",
    "histograms.interval",
];

/// Returns the keys of one program, or of both: those that are its `own`, and those that both have.
pub fn keys(own: &[&[&'static str]]) -> Vec<&'static str> {
    own.concat().into_iter().chain(TOPICS.iter().map(|topic| topic.key)).chain(KEYS.iter().copied()).collect()
}

#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    place: String,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A well-formed value that makes no sense, named by its key path.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    pub key: String,
    pub message: String,
}

impl Invalid {
    pub fn new(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { key: key.into(), message: message.to_string() }
    }
}

#[derive(Debug, Default)]
pub struct Layers {
    file: Option<(PathBuf, String)>,
    /// In rising order: of two that set a key, the later one wins.
    overrides: Vec<Override>,
}

#[derive(Debug)]
struct Override {
    /// Environment variable or flag.
    name: String,
    key: String,
    value: Value,
}

impl Layers {
    /// Reads `path` and the variables that set a key of `own`; one with our prefix that sets no key of either program is an error.
    pub fn read(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        own: &[&'static str],
    ) -> Result<Self, ConfigError> {
        let file = match path {
            None => None,
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some((path.to_owned(), text)),
                Err(e) => {
                    let message = match e.kind() {
                        ErrorKind::InvalidData => NOT_UTF8.to_owned(),
                        ErrorKind::PermissionDenied => {
                            format!("cannot be read: {e}; check the owner and mode of the file and its directories")
                        }
                        _ => format!("cannot be read: {e}; name another file with --config"),
                    };
                    return Err(ConfigError { place: path.display().to_string(), message });
                }
            },
        };
        let (known, all, mut overrides) = (keys(&[own]), keys(&[AGENT_KEYS, CONSUMER_KEYS]), Vec::new());
        for (name, value) in environment {
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            let key = key.to_ascii_lowercase().replace("__", ".");
            if known.contains(&&*key) {
                // A line end comes along from the file that a variable was made of.
                overrides.push(Override { name, key, value: Value::String(value.trim().to_owned()) });
            } else if !all.contains(&&*key) && !kubernetes::sets(&name) {
                let message = match nearest(&key, known.iter().copied()) {
                    Some(near) => format!("no such key; did you mean {ENV_PREFIX}{}?", variable(near)),
                    None => "no such key; unset it".to_owned(),
                };
                return Err(ConfigError { place: name, message });
            }
        }
        Ok(Self { file, overrides })
    }

    pub fn with_flags(mut self, flags: &[(&str, &str, &Option<String>)]) -> Self {
        for (flag, key, value) in flags {
            if let Some(value) = value {
                self.set(flag, key, Value::String(value.trim().to_owned()));
            }
        }
        self
    }

    /// Sets a list of tables, such as `limit`, by a flag that was given once for each; an empty list leaves those of the file.
    pub fn with_tables(mut self, flag: &str, key: &str, tables: Vec<Table>) -> Self {
        if !tables.is_empty() {
            self.set(flag, key, tables.into_iter().map(Value::Table).collect::<Vec<_>>().into());
        }
        self
    }

    fn set(&mut self, flag: &str, key: &str, value: Value) {
        self.overrides.push(Override { name: flag.to_owned(), key: key.to_owned(), value });
    }

    pub fn from_text(name: &str, text: &str) -> Self {
        Self { file: Some((PathBuf::from(name), text.to_owned())), overrides: Vec::new() }
    }

    pub fn parse<R: DeserializeOwned>(&self) -> Result<R, ConfigError> {
        if let Some((path, text)) = &self.file {
            if let Some((at, table)) = form::listed_table(text, &keys(&[AGENT_KEYS, CONSUMER_KEYS])) {
                let place = format!("{}:{}", path.display(), line(text, at));
                return Err(ConfigError { place, message: format!("{table}: {}", form::table_form(&table)) });
            }
            toml::from_str::<R>(text).map_err(|e| self.syntax(&e))?;
        }
        for Override { name, key, value } in &self.overrides {
            let mut alone = Table::new();
            set(&mut alone, key, value);
            R::deserialize(alone).map_err(|e| ConfigError { place: name.clone(), message: explained(e.message()) })?;
        }
        R::deserialize(self.merged()?)
            .map_err(|e| ConfigError { place: "configuration".into(), message: explained(e.message()) })
    }

    /// Returns the file itself and those that it names, such as secrets, but for credentials of the unit, which systemd reads.
    pub fn named_files(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let merged = self.merged()?;
        let value = |key: &str| in_force::found(&merged, key)?.as_str();
        let keys = keys(&[AGENT_KEYS, CONSUMER_KEYS]).into_iter().filter(|key| key.ends_with("_file"));
        let named = keys.filter_map(value).filter(|name| name.contains('/')).map(PathBuf::from);
        Ok(self.file.iter().map(|(path, _)| path.clone()).chain(named).collect())
    }

    fn merged(&self) -> Result<Table, ConfigError> {
        let mut merged = match &self.file {
            Some((_, text)) => text.parse().map_err(|e| self.syntax(&e))?,
            None => Table::new(),
        };
        for Override { key, value, .. } in &self.overrides {
            set(&mut merged, key, value);
        }
        Ok(merged)
    }

    pub fn locate(&self, invalid: Invalid) -> ConfigError {
        let Invalid { key, message } = invalid;
        // An item of a list is set by the list's variable or flag.
        let rest = |set: &str| key.strip_prefix(set).filter(|rest| rest.is_empty() || rest.starts_with('.'));
        let of_override = |set: &Override| Some((set.name.clone(), shown(rest(&set.key)?.trim_start_matches('.'))));
        if let Some((place, inner)) = self.overrides.iter().rev().find_map(of_override) {
            let message = if inner.is_empty() { message } else { format!("{inner}: {message}") };
            return ConfigError { place, message };
        }
        let Some((path, text)) = &self.file else { return ConfigError { place: key, message } };
        let place = match offset(text, &key) {
            Some(offset) => format!("{}:{}", path.display(), line(text, offset)),
            None => path.display().to_string(),
        };
        ConfigError { place, message: format!("{}: {message}", shown(&key)) }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let (path, text) = self.file.as_ref().expect("only a file has syntax");
        let Some(span) = error.span() else {
            return ConfigError { place: path.display().to_string(), message: explained(error.message()) };
        };
        let place = format!("{}:{}", path.display(), line(text, span.start));
        let message = if error.message().starts_with("unknown field") {
            explained(error.message())
        } else {
            match form::explained(text, span.start, error.message()) {
                Some((key, message)) => format!("{}: {}", shown(&key), explained(&message)),
                None => form::unquoted(text, span.start).unwrap_or_else(|| explained(error.message())),
            }
        };
        ConfigError { place, message }
    }
}

/// Returns the variables with our prefix; fails if one is not UTF-8.
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let ours = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(ENV_PREFIX.as_bytes()));
    let text = |(name, value): (OsString, OsString)| match (name.into_string(), value.into_string()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (name, _) => {
            let place = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
            Err(ConfigError { place, message: "is not UTF-8".to_owned() })
        }
    };
    ours.map(text).collect()
}

const NOT_UTF8: &str = "is not UTF-8; save it as UTF-8";

/// File of a secret, read each time the secret is needed, so that a rotated one is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

impl SecretFile {
    /// Resolves a name without a slash in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`), if that is set.
    pub fn new(name: &str, credentials: Option<&Path>) -> Self {
        match credentials {
            Some(directory) if !name.contains('/') => Self(directory.join(name)),
            _ => Self(PathBuf::from(name)),
        }
    }

    /// Reads the secret without the line end that editors add. Errors name the file, never its content.
    pub fn read(&self) -> Result<String, String> {
        let wrong = |problem: &str| Err(format!("{} {problem}", self.0.display()));
        match std::fs::read_to_string(&self.0) {
            Ok(text) => match text.trim_end_matches(['\n', '\r']) {
                "" => wrong("is empty"),
                secret => Ok(secret.to_owned()),
            },
            Err(e) if e.kind() == ErrorKind::InvalidData => wrong(NOT_UTF8),
            Err(e) => wrong(&format!("cannot be read: {e}; check its owner and mode")),
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

pub fn secret(key: &str, name: Option<String>, credentials: Option<&Path>) -> Result<Option<SecretFile>, Invalid> {
    match name {
        Some(name) if name.is_empty() => Err(Invalid::new(key, "is empty; name a file, or leave the key out")),
        name => Ok(name.map(|name| SecretFile::new(&name, credentials))),
    }
}

pub fn located(key: &str, name: Option<String>, credentials: Option<&Path>) -> Result<Option<PathBuf>, Invalid> {
    Ok(secret(key, name, credentials)?.map(|file| file.0))
}

pub fn identity(
    table: &str,
    (certificate, key): (Option<String>, Option<String>),
    credentials: Option<&Path>,
) -> Result<Option<(PathBuf, PathBuf)>, Invalid> {
    let [of_certificate, of_key] = ["certificate_file", "key_file"].map(|key| format!("{table}.{key}"));
    match (located(&of_certificate, certificate, credentials)?, located(&of_key, key, credentials)?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Invalid::new(of_key, "is missing; a certificate needs its key")),
        (None, Some(_)) => Err(Invalid::new(of_certificate, "is missing; a key needs its certificate")),
    }
}

pub fn check_readable(key: &str, file: &Path) -> Result<(), Invalid> {
    let opened = std::fs::File::open(file);
    opened.map(drop).map_err(|error| {
        Invalid::new(key, format!("{} cannot be read: {error}; check its owner and mode", file.display()))
    })
}

pub fn fingerprint<'a>(files: impl Iterator<Item = &'a Path>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

pub fn duration(key: &str, text: &str) -> Result<Duration, Invalid> {
    let text = text.trim();
    match humantime::parse_duration(text) {
        Ok(duration) if duration > DURATION_MAX => {
            Err(Invalid::new(key, format!("`{text}` is over 100 years, the longest")))
        }
        Ok(duration) => Ok(duration),
        Err(_) if text.is_empty() => Err(Invalid::new(key, "is empty; write it as \"120s\" or \"5m\"")),
        Err(_) if text.parse::<u64>().is_ok() => {
            Err(Invalid::new(key, format!("`{text}` has no unit; write it as \"{text}s\"")))
        }
        Err(e) => Err(Invalid::new(key, format!("`{text}`: {e}; write it as \"120s\" or \"5m\""))),
    }
}

pub fn one_of<T: Copy>(key: &str, value: &str, known: &[(&str, T)]) -> Result<T, Invalid> {
    known.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        match value {
            "" => Invalid::new(key, format!("is empty; it is one of {names}")),
            value => Invalid::new(key, format!("`{value}` is not one of {names}")),
        }
    })
}

pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(Some(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::Many(items) => items,
        OneOrMany::One(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    }))
}

pub fn quoted<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: DeserializeOwned + std::str::FromStr,
{
    let value = Value::deserialize(deserializer)?;
    let read = match &value {
        Value::String(text) => text.parse().ok(),
        other => T::deserialize(other.clone()).ok(),
    };
    read.map(Some).ok_or_else(|| {
        let wanted = match std::any::type_name::<T>() {
            "bool" => "true or false",
            unsigned if unsigned.starts_with('u') => "a whole number of 0 or more; write it as 500",
            _ => "a whole number; write it as 3",
        };
        D::Error::custom(format!("{value} is not {wanted}"))
    })
}

#[derive(Deserialize, Serialize)]
#[serde(untagged, expecting = "takes a list, as in [\"one\", \"two\"]")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn set(table: &mut Table, key: &str, value: &Value) {
    let mut table = table;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            table.insert(part.to_owned(), value.clone());
            return;
        }
        let next = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        match next {
            Value::Table(inner) => table = inner,
            _ => return,
        }
    }
}

fn variable(key: &str) -> String {
    key.to_ascii_uppercase().replace('.', "__")
}

fn shown(key: &str) -> String {
    key.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

fn offset(text: &str, key: &str) -> Option<usize> {
    offset_in(DeTable::parse(text).ok()?.get_ref(), key)
}

/// Finds a key in a table. The rest of a path can be one key that holds dots: `"socket.timeout.ms" = 5000`.
fn offset_in(table: &DeTable<'_>, key: &str) -> Option<usize> {
    if let Some(value) = table.get(key) {
        return Some(value.span().start);
    }
    let (first, rest) = key.split_once('.')?;
    let value = table.get(first)?;
    offset_below(value, rest).or(Some(value.span().start))
}

fn offset_below(value: &Spanned<DeValue<'_>>, key: &str) -> Option<usize> {
    match value.get_ref() {
        DeValue::Table(table) => offset_in(table, key),
        DeValue::Array(array) => {
            let (index, rest) = key.split_once('.').unwrap_or((key, ""));
            let value = array.get(index.parse::<usize>().ok()?)?;
            offset_below(value, rest).or(Some(value.span().start))
        }
        _ => None,
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn explained(message: &str) -> String {
    let message = message.trim_end().replace('\n', "; ");
    let mut names = message.split('`').skip(1).step_by(2);
    let (Some(unknown), true) = (names.next(), message.starts_with("unknown field")) else { return message };
    let known: Vec<&str> = names.collect();
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("unknown key `{unknown}`; did you mean `{near}`?"),
        None => format!("unknown key `{unknown}`; known here: {}", known.join(", ")),
    }
}

fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        agent: Option<String>,
        flush: Option<RawFlush>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RawFlush {
        interval: Option<String>,
        #[serde(default, deserialize_with = "list")]
        urgent: Option<Vec<String>>,
        #[serde(default, deserialize_with = "quoted")]
        max_events: Option<usize>,
    }

    fn layers(text: &str, variables: &[(&str, &str)]) -> Result<Layers, ConfigError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut layers = Layers::read(None, variables, AGENT_KEYS)?;
        layers.file = Some(("agent.toml".into(), text.to_owned()));
        Ok(layers)
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let set = [
            ("HIGHWATER_FLUSH__URGENT", "critical, warning"),
            ("HIGHWATER_FLUSH__MAX_EVENTS", "7"),
            ("HIGHWATER_STORE__URL", "the other program's"),
            ("PATH", "/bin"),
        ];
        let raw: Raw = layers("agent = 'a'\n[flush]\ninterval = '1s'\nmax_events = 5", &set).unwrap().parse().unwrap();
        let flush = raw.flush.unwrap();
        assert_eq!((raw.agent.as_deref(), flush.interval.as_deref()), (Some("a"), Some("1s")));
        assert_eq!(flush.urgent.unwrap(), ["critical", "warning"]);
        assert_eq!(flush.max_events, Some(7));
    }

    #[test]
    fn an_error_names_its_line_or_its_variable_and_the_nearest_key() {
        let error = |text: &str, set: &[(&str, &str)]| match layers(text, set) {
            Ok(layers) => layers.parse::<Raw>().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            error("agent = 'a'\n[flush]\nintervall = '1s'", &[]),
            "agent.toml:3: unknown key `intervall`; did you mean `interval`?"
        );
        assert_eq!(error("agent = 5", &[]), "agent.toml:1: agent: write it in quotes: \"5\"");
        assert!(error("agent = ", &[]).starts_with("agent.toml:1: "));
        assert_eq!(
            error("", &[("HIGHWATER_FLUSH__INTERVALL", "1s")]),
            "HIGHWATER_FLUSH__INTERVALL: no such key; did you mean HIGHWATER_FLUSH__INTERVAL?"
        );
        let wrong = error("", &[("HIGHWATER_FLUSH__MAX_EVENTS", "many")]);
        assert!(wrong.starts_with("HIGHWATER_FLUSH__MAX_EVENTS: \"many\" is not a whole number"), "{wrong}");
    }

    #[test]
    fn an_invalid_value_is_found_by_its_path() {
        let text = "agent = 'a'\n\n[[limit]]\nname = 'x'\n\n[[limit]]\nraise_at = '80'\n";
        let place = |key: &str| layers(text, &[]).unwrap().locate(Invalid::new(key, "no")).to_string();
        assert_eq!(place("limit.1.raise_at"), "agent.toml:7: limit.raise_at: no");
        assert_eq!(place("limit.0.raise_at"), "agent.toml:3: limit.raise_at: no");
        assert_eq!(place("kafka.brokers"), "agent.toml: kafka.brokers: no");
        let text = "[kafka.properties]\n'a.b' = 1\n'a.c' = 2\n";
        let place = |key: &str| layers(text, &[]).unwrap().locate(Invalid::new(key, "no")).to_string();
        assert_eq!(place("kafka.properties.a.c"), "agent.toml:3: kafka.properties.a.c: no");
    }

    #[test]
    fn a_secret_without_a_slash_is_a_credential() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("password"), "s3cret\n").unwrap();
        assert_eq!(SecretFile::new("password", Some(directory.path())).read().unwrap(), "s3cret");
        let error = SecretFile::new("/nowhere/password", Some(directory.path())).read().unwrap_err();
        assert!(error.contains("/nowhere/password"), "{error}");
    }

    #[test]
    fn the_files_of_a_configuration_are_its_own_and_those_of_its_keys() {
        let text = "agent = '/a'\n[kafka.tls]\nca_file = '/etc/ca.pem'\nkey_file = 'a-credential'\n[store]\npassword_file = 'b/c'\n";
        let files = layers(text, &[("HIGHWATER_KAFKA__SASL__PASSWORD_FILE", "/d")]).unwrap().named_files().unwrap();
        let mut names: Vec<&str> = files.iter().filter_map(|file| file.to_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["/d", "/etc/ca.pem", "agent.toml", "b/c"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", key in "[a-z.0-9]{0,20}") {
            let layers = Layers::from_text("agent.toml", &text);
            let _ = layers.parse::<Raw>();
            let _ = layers.locate(Invalid::new(key, "no"));
        }
    }
}
