//! Configuration of the agent: checked, with what follows from the host.

mod limit;
mod limit_flag;
mod link;
mod name;
mod pattern;
mod rates;
mod state;
mod topics;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use self::limit::{RawLimit, SEVERITIES, limit, unique};
pub(in crate::agent) use self::limit_flag::LimitFlag;
use self::link::RawLink;
use self::name::Name;
#[cfg(feature = "toolbox")]
pub(in crate::agent) use self::name::check as check_name;
pub use self::rates::Rates;
use self::rates::{RawHeartbeat, RawRates, RawSamples};
use self::topics::RawTopics;
pub use self::topics::Topics;
use crate::agent::counters::SourceChoice;
use crate::agent::counters::filter::{InterfaceFilter, LinkOverride};
use crate::agent::detector::limit::{Limit, Scope};
use crate::agent::publisher;
use crate::config::{
    ConfigError, EVENTS_TOPIC, Invalid, Layers, TOPICS, TopicRole, duration, list, one_of, quoted, usual_names,
};
use crate::kafka::schema_registry::{RawRegistry, RegistryAddress};
use crate::kafka::{Connection, RawConnection, RawSasl, RawTls, topic_name};
use crate::process::host::ServiceEnvironment;
use crate::units::{ByteCount, counted, lasting};
use crate::wire::{FORMATS, Format, KEYS};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    agent: Option<String>,
    interval: Option<String>,
    source: Option<String>,
    state_dir: Option<PathBuf>,
    resume_within: Option<String>,
    interfaces: RawInterfaces,
    link: Vec<RawLink>,
    limit: Vec<RawLimit>,
    flush: RawFlush,
    journal: RawJournal,
    kafka: RawKafkaProducer,
    rates: RawRates,
    samples: RawSamples,
    heartbeat: RawHeartbeat,
    topics: RawTopics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInterfaces {
    #[serde(default, deserialize_with = "list")]
    include: Option<Vec<String>>,
    #[serde(default, deserialize_with = "list")]
    exclude: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFlush {
    interval: Option<String>,
    #[serde(default, deserialize_with = "list")]
    urgent: Option<Vec<String>>,
    #[serde(default, deserialize_with = "quoted")]
    max_events: Option<u64>,
    linger: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJournal {
    max_size: Option<String>,
    max_age: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKafkaProducer {
    brokers: Option<String>,
    topic: Option<String>,
    format: Option<String>,
    key: Option<String>,
    #[serde(default, deserialize_with = "quoted")]
    create_topics: Option<bool>,
    tls: Option<RawTls>,
    sasl: Option<RawSasl>,
    registry: Option<RawRegistry>,
    #[serde(default)]
    properties: BTreeMap<String, toml::Value>,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub agent: String,
    pub warnings: Vec<String>,
    pub name_error: Option<String>,
    pub interval: Duration,
    pub source: SourceChoice,
    pub state_dir: PathBuf,
    pub resume_within: Duration,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub links: Vec<LinkOverride>,
    pub limits: Vec<Limit>,
    pub journal_size: ByteCount,
    pub journal_age: Duration,
    pub publisher: publisher::Settings,
    pub rates: Option<Rates>,
    pub samples: bool,
    /// Interval; `None` if disabled, or if rates are sent at least as often.
    pub heartbeat: Option<Duration>,
    pub topics: Topics,
}

const MIN_JOURNAL: ByteCount = ByteCount::from_bytes(1 << 20);
const LINGER_MIN: Duration = Duration::from_secs(300);
const MIN_INTERVAL: Duration = Duration::from_millis(100);

impl Settings {
    /// Returns the defaults, except those that follow from the host or other keys: see [`Self::derived_values`].
    pub fn defaults() -> String {
        Self::DEFAULTS.to_owned() + &usual_names(TOPICS.iter())
    }

    const DEFAULTS: &str = r#"
interval = "1s"
source = "auto"
resume_within = "5m"
interfaces.include = ["*"]
interfaces.exclude = []
flush.interval = "120s"
flush.urgent = ["critical"]
flush.max_events = 500
journal.max_size = "16MiB"
journal.max_age = "30d"
kafka.brokers = "localhost:9092"
kafka.topic = "highwater.events"
kafka.format = "json"
kafka.key = "agent"
kafka.create_topics = false
rates.enabled = true
rates.window = "5m"
rates.max_delay = "15m"
samples.enabled = false
heartbeat.interval = "15m"
topics.partitions = 6
topics.retention = "30d"
"#;

    /// Returns the values that follow from the environment and other keys where none is configured.
    pub fn derived_values(&self) -> Vec<(&'static str, String)> {
        let linger = humantime::format_duration(self.publisher.linger).to_string();
        let state_dir = self.state_dir.display().to_string();
        vec![("agent", self.agent.clone()), ("state_dir", state_dir), ("flush.linger", linger)]
    }

    pub fn new(layers: &Layers, environment: &ServiceEnvironment) -> Result<Self, ConfigError> {
        let raw: Raw = layers.parse()?;
        let (creates_topics, mut warnings) = (raw.kafka.create_topics.unwrap_or_default(), Vec::new());
        let (mut settings, missing) =
            Self::checked(raw, environment, &mut warnings).map_err(|invalid| layers.locate(invalid))?;
        settings.warnings = warnings.into_iter().map(|warning| layers.locate(warning).to_string()).collect();
        settings.name_error = missing.map(|missing| layers.locate(missing).to_string());
        if creates_topics {
            settings.publisher.create_topics = Some(settings.topics.plan(settings.topic_names()));
        }
        Ok(settings)
    }

    pub fn selection(&self) -> InterfaceFilter {
        let named = self.limits.iter().flat_map(|limit| match &limit.scope {
            Scope::Interface(pattern) => std::slice::from_ref(pattern),
            Scope::Host(patterns) => patterns.as_slice(),
        });
        let named: Vec<String> = named.cloned().collect();
        InterfaceFilter::new(&self.include, &self.exclude, &named).with_overrides(self.links.clone())
    }

    fn checked(
        raw: Raw,
        environment: &ServiceEnvironment,
        warnings: &mut Vec<Invalid>,
    ) -> Result<(Self, Option<Invalid>), Invalid> {
        let Name { name: agent, warning, missing } = Name::new(raw.agent, environment)?;
        warnings.extend(warning);
        let interval = or_duration("interval", raw.interval, Duration::from_secs(1))?;
        if interval < MIN_INTERVAL {
            return Err(Invalid::new("interval", format!("is below {} ms, the shortest", MIN_INTERVAL.as_millis())));
        }
        let source = raw.source.as_deref().unwrap_or("auto").parse().map_err(|e| Invalid::new("source", e))?;
        let limits =
            raw.limit.into_iter().enumerate().map(|(index, raw)| limit(index, raw)).collect::<Result<Vec<_>, _>>()?;
        unique(&limits)?;
        let resume_within = or_duration("resume_within", raw.resume_within, Duration::from_secs(300))?;
        if let Some(limit) = limits.iter().find(|limit| limit.update_every > resume_within) {
            let (name, every) = (&limit.name, lasting(limit.update_every));
            let message =
                format!("is below the update_every of limit {name} ({every}): its breaches could not be resumed");
            return Err(Invalid::new("resume_within", message));
        }
        let spread = publisher::Spread::of(&agent);
        let include = patterns("interfaces.include", raw.interfaces.include, &["*"], warnings)?;
        let exclude = patterns("interfaces.exclude", raw.interfaces.exclude, &[], warnings)?;
        if include.is_empty() {
            let message = "is empty: only links that a limit's interface names are watched; [\"*\"] is the default";
            warnings.push(Invalid::new("interfaces.include", message));
        }
        for (index, limit) in limits.iter().enumerate() {
            if let Scope::Interface(pattern) = &limit.scope {
                warnings.extend(pattern::check(&format!("limit.{index}.interface"), pattern)?);
            }
        }
        let links = raw.link.into_iter().enumerate().map(|(index, raw)| raw.checked(index, warnings));
        let links = links.collect::<Result<_, _>>()?;
        let journal_size = parsed("journal.max_size", raw.journal.max_size)?.unwrap_or(ByteCount::from_bytes(16 << 20));
        if journal_size < MIN_JOURNAL {
            return Err(Invalid::new("journal.max_size", format!("is below {MIN_JOURNAL}, the smallest")));
        }
        let (rates, heartbeat) = rates::rates_and_heartbeat(raw.rates, raw.heartbeat)?;
        let settings = Self {
            agent,
            warnings: Vec::new(),
            name_error: None,
            interval,
            source,
            state_dir: state::directory(raw.state_dir, environment)?,
            resume_within,
            links,
            include,
            exclude,
            limits,
            journal_size,
            journal_age: or_duration("journal.max_age", raw.journal.max_age, Duration::from_secs(30 * 86_400))?,
            publisher: publisher::Settings {
                spread,
                ..publisher(raw.flush, raw.kafka, journal_size, environment.directories.credentials.as_deref())?
            },
            rates,
            samples: raw.samples.enabled.unwrap_or_default(),
            heartbeat,
            topics: Topics::new(raw.topics)?,
        };
        Ok((settings, missing))
    }

    pub fn topic_names(&self) -> Vec<&String> {
        let is_used = |role: &TopicRole| match role {
            TopicRole::Rates => self.rates.is_some(),
            TopicRole::Samples => self.samples,
            _ => true,
        };
        let used = TOPICS.iter().map(|topic| topic.role).filter(is_used).map(|role| self.topics.names.of(role));
        let mut names = vec![&self.publisher.topic];
        for name in used {
            // Several may share one.
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn patterns(
    key: &str,
    written: Option<Vec<String>>,
    default: &[&str],
    warnings: &mut Vec<Invalid>,
) -> Result<Vec<String>, Invalid> {
    let Some(patterns) = written else { return Ok(default.iter().map(|pattern| (*pattern).to_owned()).collect()) };
    for (index, pattern) in patterns.iter().enumerate() {
        warnings.extend(pattern::check(&format!("{key}.{index}"), pattern)?);
    }
    Ok(patterns)
}

fn publisher(
    flush: RawFlush,
    kafka: RawKafkaProducer,
    journal_size: ByteCount,
    credentials: Option<&Path>,
) -> Result<publisher::Settings, Invalid> {
    let formats = FORMATS.map(|format| (format.as_str(), format));
    let format = one_of("kafka.format", kafka.format.as_deref().unwrap_or("json"), &formats)?;
    let keys = KEYS.map(|key| (key.as_str(), key));
    let key = one_of("kafka.key", kafka.key.as_deref().unwrap_or("agent"), &keys)?;
    let urgent = flush.urgent.unwrap_or_else(|| vec!["critical".to_owned()]);
    let urgent = urgent.iter().map(|name| one_of("flush.urgent", name, SEVERITIES)).collect::<Result<_, _>>()?;
    let events_max = flush.max_events.unwrap_or(500);
    if events_max == 0 {
        return Err(Invalid::new("flush.max_events", "is 0; the minimum is 1, which sends each event at once"));
    }
    let topic = topic_name("kafka.topic", kafka.topic.unwrap_or_else(|| EVENTS_TOPIC.to_owned()))?;
    let raw = RawConnection { brokers: kafka.brokers, tls: kafka.tls, sasl: kafka.sasl, properties: kafka.properties };
    let connection = Connection::new(raw, credentials)?;
    let registry = kafka.registry.unwrap_or_default();
    let auto_register = registry.auto_register.unwrap_or(true);
    let encoding =
        publisher::Encoding { format, key, registry: RegistryAddress::new(registry, credentials)?, auto_register };
    let interval = or_duration("flush.interval", flush.interval, Duration::from_secs(120))?;
    let linger = LINGER_MIN.max(interval.saturating_mul(3));
    Ok(publisher::Settings {
        connection,
        topic,
        encoding,
        in_flight: publisher::InFlightLimits::SMALL,
        interval,
        linger: or_duration("flush.linger", flush.linger, linger)?,
        spread: publisher::Spread::default(),
        urgent,
        events_max,
        journal_bytes: journal_size.bytes(),
        waiting: "the events stay in the journal",
        create_topics: None,
    })
}

fn or_duration(key: &str, text: Option<String>, default: Duration) -> Result<Duration, Invalid> {
    text.map_or(Ok(default), |text| duration(key, &text))
}

fn parsed<T>(key: &str, text: Option<String>) -> Result<Option<T>, Invalid>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.map(|text| text.parse().map_err(|e: T::Err| Invalid::new(key, e))).transpose()
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "agent {} reads its counters every {}", self.agent, lasting(self.interval))?;
        let exclude =
            if self.exclude.is_empty() { String::new() } else { format!(" except {}", self.exclude.join(", ")) };
        writeln!(f, "links  {}{exclude}", self.include.join(", "))?;
        for link in &self.links {
            writeln!(f, "link   {link}")?;
        }
        for limit in &self.limits {
            writeln!(f, "limit  {limit}")?;
        }
        writeln!(f, "state  {}, at most {}", self.state_dir.display(), self.journal_size)?;
        let publisher::Settings { connection, topic, encoding, interval, events_max, .. } = &self.publisher;
        let brokers = connection.brokers();
        let events = counted(*events_max, "event");
        writeln!(f, "kafka  {topic} at {brokers}, every {} or {events}", lasting(*interval))?;
        match &self.rates {
            Some(Rates { window, max_delay }) => {
                let (window, max_delay) = (lasting(*window), lasting(*max_delay));
                let topic = self.topics.names.of(TopicRole::Rates);
                writeln!(f, "rates  {topic}, of every {window}, after {max_delay} at most")?;
            }
            None => writeln!(f, "rates  off")?,
        }
        if self.samples {
            writeln!(f, "samples {}, each reading", self.topics.names.of(TopicRole::Samples))?;
        }
        match &encoding.registry {
            Some(registry) if encoding.format != Format::Json => {
                let done = if encoding.auto_register { "registered" } else { "looked up" };
                writeln!(f, "format {}, its schema {done} at {}", encoding.format, registry.url())
            }
            _ => writeln!(f, "format {}", encoding.format),
        }
    }
}

#[cfg(test)]
mod tests;
