use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::source::{Membership, check_client};
use super::store::{PartitionWidth, Retention, StoreOptions, StoreUrl};
use crate::config::{
    ConfigError, ConsumerUse, EVENTS_TOPIC, Invalid, Layers, SecretFile, TOPICS, TopicNames, TopicRole, TopicSpec,
    duration, one_of, raw_topics, usual_names,
};
use crate::consumer::hour_publisher::check_producer;
use crate::consumer::source::schema_cache::SchemaCache;
use crate::kafka::schema_registry::{RawRegistry, RegistryAddress};
use crate::kafka::{Connection, RawConnection, RawSasl, RawTls, topic_name};
use crate::process::systemd::Directories;
use crate::units::{counted, lasting};
use crate::wire::{Decoder, NoRegistry};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    kafka: RawKafkaConsumer,
    topics: RawConsumerTopics,
    store: RawStore,
    retention: RawRetention,
    agents: RawAgents,
    histograms: RawHistograms,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawKafkaConsumer {
    brokers: Option<String>,
    topic: Option<String>,
    group: Option<String>,
    start: Option<String>,
    instance: Option<String>,
    tls: Option<RawTls>,
    sasl: Option<RawSasl>,
    registry: Option<RawRegistry>,
    properties: BTreeMap<String, toml::Value>,
}

raw_topics! { RawConsumerTopics {} }

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStore {
    url: Option<String>,
    password_file: Option<String>,
    schema: Option<String>,
    partition: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRetention {
    events: Option<String>,
    dead_letters: Option<String>,
    totals: Option<String>,
    rates: Option<String>,
    histograms: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAgents {
    silent_after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHistograms {
    interval: Option<String>,
}

/// Offset at which a new topic begins, whatever the group has committed to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    #[default]
    Earliest,
    Latest,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub connection: Connection,
    pub topic: String,
    pub topics: TopicNames<Option<String>>,
    pub group: String,
    /// `group.instance.id`; empty for none.
    pub instance: String,
    pub registry: Option<RegistryAddress>,
    pub give_up: Option<Duration>,
    pub start: Start,
    pub store: StoreUrl,
    pub partition: PartitionWidth,
    pub retention: Retention,
    pub silent_after: Duration,
    pub publish_every: Duration,
}

const GIVE_UP: Duration = Duration::from_secs(15 * 60);

const GROUP: &str = "highwater";
const DATABASE: &str = "highwater.db";

const SILENT_AFTER: Duration = Duration::from_secs(3_600);
const SILENT_AFTER_MIN: Duration = Duration::from_secs(60);
const PUBLISH_EVERY: Duration = Duration::from_secs(10);
const PUBLISH_EVERY_MIN: Duration = Duration::from_secs(1);

const NAME_BYTES_MAX: usize = 63;

const STARTS: [(&str, Start); 2] = [("earliest", Start::Earliest), ("latest", Start::Latest)];
const WIDTHS: [(&str, PartitionWidth); 3] =
    [("day", PartitionWidth::Day), ("week", PartitionWidth::Week), ("month", PartitionWidth::Month)];

impl Settings {
    /// Returns the defaults, but for the file of `store.url`, which depends on the environment.
    pub fn defaults() -> String {
        let named = TOPICS.iter().filter(|topic| topic.consumers != ConsumerUse::ReadsIfNamed);
        Self::DEFAULTS.to_owned() + &usual_names(named)
    }

    const DEFAULTS: &str = r#"
kafka.brokers = "localhost:9092"
kafka.topic = "highwater.events"
kafka.group = "highwater"
kafka.start = "earliest"
kafka.instance = ""
store.partition = "month"
retention.events = "400d"
retention.dead_letters = "90d"
retention.totals = "1826d"
retention.rates = "90d"
retention.histograms = "400d"
agents.silent_after = "1h"
histograms.interval = "10s"
"#;

    pub fn new(layers: &Layers, directories: &Directories) -> Result<Self, ConfigError> {
        Self::checked(layers.parse()?, directories).map_err(|invalid| layers.locate(invalid))
    }

    pub fn check(&self) -> Result<(), Invalid> {
        self.registry.as_ref().map_or(Ok(()), RegistryAddress::check)?;
        check_client(&self.connection, &self.group)?;
        if self.topic_of(TopicRole::Histograms).is_some() { check_producer(&self.connection) } else { Ok(()) }
    }

    pub fn may_be_missing(&self, topic: &str) -> bool {
        let is_it = |spec: &TopicSpec| self.topic_of(spec.role).is_some_and(|name| name == topic);
        self.topic != topic && TOPICS.iter().any(|spec| spec.consumers == ConsumerUse::Reads && is_it(spec))
    }

    pub fn topic_of(&self, role: TopicRole) -> Option<&String> {
        self.topics.of(role).as_ref()
    }

    pub fn published_hours(&self) -> Option<&String> {
        self.topic_of(TopicRole::Rates).and(self.topic_of(TopicRole::Histograms))
    }

    pub fn decoder(&self) -> Decoder {
        match &self.registry {
            Some(address) => Decoder::new(SchemaCache::new(address.clone())),
            None => Decoder::new(NoRegistry),
        }
    }

    pub fn store_options(&self, instance: String) -> StoreOptions {
        StoreOptions {
            instance,
            partition: self.partition,
            retention: self.retention,
            silent_after: Some(self.silent_after),
            publishes: self.topic_of(TopicRole::Histograms).is_some(),
        }
    }

    pub fn membership(&self) -> Membership {
        let mut topics = vec![self.topic.clone()];
        let read = TOPICS.iter().filter(|spec| spec.consumers != ConsumerUse::Writes);
        for more in read.filter_map(|spec| self.topic_of(spec.role)) {
            if !topics.contains(more) {
                topics.push(more.clone());
            }
        }
        Membership { topics, group: self.group.clone(), instance: self.instance.clone() }
    }

    fn checked(raw: Raw, directories: &Directories) -> Result<Self, Invalid> {
        let Raw { kafka, mut topics, store, retention, agents, histograms } = raw;
        let group = kafka.group.unwrap_or_else(|| GROUP.to_owned());
        if group.is_empty() {
            return Err(Invalid::new("kafka.group", "is empty; consumers that share a database share a name here"));
        }
        let default = Retention::default();
        let mut registry = kafka.registry.unwrap_or_default();
        let give_up = patience(registry.give_up.take())?;
        let connection =
            RawConnection { brokers: kafka.brokers, tls: kafka.tls, sasl: kafka.sasl, properties: kafka.properties };
        Ok(Self {
            connection: Connection::new(connection, directories.credentials.as_deref())?,
            topic: topic_name("kafka.topic", kafka.topic.unwrap_or_else(|| EVENTS_TOPIC.to_owned()))?,
            group,
            instance: kafka.instance.unwrap_or_default(),
            topics: TopicNames::new(|spec| match (topics.name(spec.role), spec.consumers) {
                (Some(name), ConsumerUse::Reads | ConsumerUse::Writes) if name.is_empty() => Ok(None),
                (None, ConsumerUse::ReadsIfNamed) => Ok(None),
                (name, _) => topic_name(spec.key, name.unwrap_or_else(|| spec.usual.to_owned())).map(Some),
            })?,
            registry: RegistryAddress::new(registry, directories.credentials.as_deref())?,
            give_up,
            start: kafka.start.map_or(Ok(Start::default()), |text| one_of("kafka.start", &text, &STARTS))?,
            partition: store
                .partition
                .as_deref()
                .map_or(Ok(PartitionWidth::default()), |text| one_of("store.partition", text, &WIDTHS))?,
            store: location(store, directories)?,
            retention: Retention {
                events: kept("retention.events", retention.events, default.events)?,
                dead_letters: kept("retention.dead_letters", retention.dead_letters, default.dead_letters)?,
                totals: kept("retention.totals", retention.totals, default.totals)?,
                rates: kept("retention.rates", retention.rates, default.rates)?,
                histograms: kept("retention.histograms", retention.histograms, default.histograms)?,
            },
            silent_after: at_least(
                "agents.silent_after",
                agents.silent_after.as_deref(),
                (SILENT_AFTER, SILENT_AFTER_MIN),
            )?,
            publish_every: at_least(
                "histograms.interval",
                histograms.interval.as_deref(),
                (PUBLISH_EVERY, PUBLISH_EVERY_MIN),
            )?,
        })
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = |keep: Duration| counted(keep.as_secs() / 86_400, "day");
        let start = match self.start {
            Start::Earliest => "earliest: everything that is in Kafka",
            Start::Latest => "latest: only what arrives from now on",
        };
        writeln!(f, "reads     {} from {}", self.topic, self.connection.brokers())?;
        for spec in TOPICS.iter().filter(|spec| spec.consumers != ConsumerUse::Writes) {
            match self.topic_of(spec.role) {
                Some(name) => writeln!(f, "{:<9} from {name}", spec.label())?,
                None if spec.consumers == ConsumerUse::Reads => writeln!(f, "{:<9} none", spec.label())?,
                None => {}
            }
        }
        if let Some(histograms) = self.published_hours() {
            let every = lasting(self.publish_every);
            writeln!(f, "hours     to {histograms}, each at most once in {every}")?;
        }
        match self.instance.as_str() {
            "" => writeln!(f, "group     {}", self.group)?,
            instance => writeln!(f, "group     {} as {instance}", self.group)?,
        }
        if let Some(registry) = &self.registry {
            let waits = match self.give_up {
                Some(patience) => format!("waits {} for one", lasting(patience)),
                None => "waits for one for ever".to_owned(),
            };
            writeln!(f, "schemas   from {}; {waits}", registry.url())?;
        }
        writeln!(f, "start     {start}")?;
        writeln!(f, "stores    in {}", self.store)?;
        let Retention { events, dead_letters, totals, rates, histograms } = self.retention;
        writeln!(
            f,
            "keeps     events and samples {}, dead letters {}, totals {}, rates {}, histograms {}",
            days(events),
            days(dead_letters),
            days(totals),
            days(rates),
            days(histograms)
        )?;
        writeln!(f, "agents    silent after {}", lasting(self.silent_after))
    }
}

fn patience(raw: Option<String>) -> Result<Option<Duration>, Invalid> {
    match raw {
        None => Ok(Some(GIVE_UP)),
        Some(text) if text.trim() == "0" => Ok(None),
        Some(text) => Ok(Some(duration("kafka.registry.give_up", &text)?).filter(|patience| !patience.is_zero())),
    }
}

fn at_least(key: &str, raw: Option<&str>, (default, least): (Duration, Duration)) -> Result<Duration, Invalid> {
    let Some(text) = raw else { return Ok(default) };
    let time = duration(key, text)?;
    if time < least {
        return Err(Invalid::new(key, format!("`{text}` is less than {}, the minimum", lasting(least))));
    }
    Ok(time)
}

fn location(raw: RawStore, directories: &Directories) -> Result<StoreUrl, Invalid> {
    let Some(url) = raw.url else {
        return Ok(StoreUrl::sqlite(&directories.state.as_deref().unwrap_or(Path::new("")).join(DATABASE)));
    };
    if let Some(schema) = &raw.schema
        && (schema.is_empty() || schema.len() > NAME_BYTES_MAX)
    {
        return Err(Invalid::new(
            "store.schema",
            format!("`{schema}` is not a schema name, which has 1 to {NAME_BYTES_MAX} bytes"),
        ));
    }
    let password = raw.password_file.map(|name| SecretFile::new(&name, directories.credentials.as_deref()));
    if let (Some(file), false) = (&password, url.starts_with("sqlite:")) {
        file.read().map_err(|message| Invalid::new("store.password_file", message))?;
    }
    StoreUrl::parse(&url, password, raw.schema.as_deref()).map_err(|message| Invalid::new("store.url", message))
}

fn kept(key: &str, raw: Option<String>, default: Duration) -> Result<Duration, Invalid> {
    let Some(text) = raw else { return Ok(default) };
    let keep = duration(key, &text)?;
    if keep < Duration::from_secs(86_400) {
        return Err(Invalid::new(key, format!("`{text}` is less than a day, the minimum; write it as \"400d\"")));
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let layers = Layers::from_text("consumer.toml", text);
        Settings::new(&layers, &Directories::default()).map_err(|e| e.to_string())
    }

    proptest::proptest! {
        #[test]
        fn no_damaged_file_panics_and_an_error_names_it(
            text in crate::testing::damaged_text(
                "[kafka]\nbrokers = 'k:9092'\ntopic = 't'\ngroup = 'g'\nstart = 'latest'\ninstance = 'i'\n[kafka.properties]\n\
                 'fetch.wait.max.ms' = 5\n[store]\nurl = 'sqlite:h.db'\n[retention]\nevents = '400d'\ndead_letters = '90d'\n"
            )
        ) {
            match settings(&text) {
                Ok(settings) => drop(settings.to_string()),
                Err(error) => assert!(error.starts_with("consumer.toml"), "{error}"),
            }
        }

        #[test]
        fn no_environment_panics_and_an_error_names_its_variable(
            variables in proptest::collection::vec(
                (
                    proptest::sample::select(crate::config::keys(&[crate::config::CONSUMER_KEYS])),
                    crate::testing::hostile_value()
                ),
                1..4
            )
        ) {
            let name = |key: &str| format!("HIGHWATER_{}", key.to_ascii_uppercase().replace('.', "__"));
            let variables: Vec<_> = variables.into_iter().map(|(key, value)| (name(key), value)).collect();
            let layers = Layers::read(None, variables.clone(), crate::config::CONSUMER_KEYS).unwrap();
            if let Err(error) = Settings::new(&layers, &Directories::default()) {
                let error = error.to_string();
                let named = variables.iter().any(|(name, _)| error.starts_with(name)) || error.starts_with("kafka.");
                assert!(named, "{error}");
            }
        }
    }

    #[test]
    fn defaults_shipped_file_and_documentation_agree() {
        crate::config::testing::assert_documented(&Settings::defaults(), include_str!("../../systemd/consumer.toml"));
        let (written, none) = (settings(&Settings::defaults()).unwrap(), settings("").unwrap());
        assert_eq!(format!("{written:?}"), format!("{none:?}"), "what is not written is the default");
    }

    #[test]
    fn without_a_word_all_is_on_this_host() {
        let state = Directories { state: Some("/state".into()), ..Directories::default() };
        let settings = Settings::checked(Raw::default(), &state).unwrap();
        assert_eq!(settings.connection.brokers(), "localhost:9092");
        assert_eq!(settings.store.to_string(), "sqlite:/state/highwater.db");
        assert_eq!(settings.start, Start::Earliest);
        assert_eq!(settings.retention.events, Duration::from_secs(400 * 86_400));
    }

    #[test]
    fn the_shipped_file_is_understood_as_it_is_and_with_every_key_switched_on() {
        let shipped = include_str!("../../systemd/consumer.toml");
        settings(shipped).unwrap();
        // The file has two stores to choose from, of which the second is the comment.
        let other_store = shipped.replace("\nurl = ", "\n# url = ");
        let error = settings(&crate::config::testing::all_switched_on(&other_store)).unwrap_err();
        assert!(error.ends_with("kafka.sasl.password_file: is missing"), "all but the secrets is understood: {error}");
    }

    #[test]
    fn what_cannot_work_names_its_line() {
        for (text, says) in [
            ("[store]\nurl = 'mysql://x'", "consumer.toml:2: store.url: is neither"),
            ("[store]\nurl = 'sqlite:'", "names no file"),
            (
                "[store]\nurl = 'postgres://u@localhost/d'\npassword_file = '/nowhere/p'",
                "consumer.toml:3: store.password_file: /nowhere/p cannot be read",
            ),
            ("[kafka]\ntopic = 'a b'", "consumer.toml:2: kafka.topic: `a b`"),
            ("[topics]\nsamples = 'a b'", "consumer.toml:2: topics.samples: `a b`"),
            ("[kafka]\nstart = 'middle'", "consumer.toml:2: kafka.start: `middle` is not one of earliest, latest"),
            ("[kafka]\ngroup = ''", "consumer.toml:2: kafka.group: is empty"),
            ("[kafka]\nbroker = 'a:1'", "unknown key `broker`; did you mean `brokers`?"),
            ("[retention]\nevents = '1h'", "consumer.toml:2: retention.events: `1h` is less than a day"),
            ("[retention]\nevents = 'long'", "consumer.toml:2: retention.events: `long`"),
            ("[retention]\nrates = '1h'", "consumer.toml:2: retention.rates: `1h` is less than a day"),
            ("[topics]\nrates = 'a b'", "consumer.toml:2: topics.rates: `a b`"),
            ("[topics]\nhistograms = 'a b'", "consumer.toml:2: topics.histograms: `a b`"),
            ("[agents]\nsilent_after = '1s'", "consumer.toml:2: agents.silent_after: `1s` is less than"),
            ("[histograms]\ninterval = '1ms'", "consumer.toml:2: histograms.interval: `1ms` is less than"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn whatever_is_written_for_a_key_an_error_names_it() {
        for key in crate::config::keys(&[crate::config::CONSUMER_KEYS]) {
            let (table, name) = key.rsplit_once('.').unwrap();
            for value in ["5", "-5", "1.5", "true", "''", "[5]", "{}", "bare", "2026-11-28"] {
                if let Err(error) = settings(&format!("[{table}]\n{name} = {value}\n")) {
                    let named = error.contains(&format!("{name}: ")) || error.contains("is missing");
                    assert!(named && error.starts_with("consumer.toml"), "{key} = {value}: {error}");
                    assert!(!error.contains("invalid type"), "{key} = {value}: {error}");
                }
            }
        }
        let error = settings("[retention]\nevents = 400").unwrap_err();
        assert_eq!(error, "consumer.toml:2: retention.events: write it as \"400d\"");
        let error = settings("retention = '400d'").unwrap_err();
        assert!(error.starts_with("consumer.toml:1: retention: is a table: write [retention]"), "{error}");
    }

    #[test]
    fn one_member_reads_all_topics_and_a_topic_of_two_kinds_once() {
        let topics = |text: &str| settings(text).unwrap().membership().topics;
        assert_eq!(topics(""), ["highwater.events", "highwater.rates"]);
        assert_eq!(topics("[kafka]\ntopic = 'e'\n[topics]\nsamples = 's'\nrates = ''"), ["e", "s"]);
        assert_eq!(topics("[kafka]\ntopic = 's'\n[topics]\nsamples = 's'\nrates = 's'"), ["s"]);
    }

    #[test]
    fn a_schema_is_waited_for_as_long_as_is_written() {
        let give_up = |text: &str| {
            settings(&format!("[kafka.registry]\nurl = 'http://r'\n{text}")).map(|settings| settings.give_up)
        };
        assert_eq!(give_up(""), Ok(Some(Duration::from_secs(900))));
        assert_eq!(give_up("give_up = '1h'"), Ok(Some(Duration::from_secs(3_600))));
        assert_eq!((give_up("give_up = '0'"), give_up("give_up = '0s'")), (Ok(None), Ok(None)));
        let error = give_up("give_up = 15").unwrap_err();
        assert_eq!(error, "consumer.toml:3: kafka.registry.give_up: write it as \"15s\"");
        assert!(
            give_up("give_up = 'soon'").unwrap_err().starts_with("consumer.toml:3: kafka.registry.give_up: `soon`")
        );
    }

    #[test]
    fn a_time_without_a_unit_is_answered_with_one() {
        crate::config::testing::assert_times_are_explained(&Settings::defaults(), |text| settings(text).unwrap_err());
    }

    #[test]
    fn no_password_is_shown() {
        let settings = settings("[store]\nurl = 'postgres://u:s3cret@localhost/d'").unwrap();
        assert!(!format!("{settings} {settings:?}").contains("s3cret"));
        assert!(settings.to_string().contains("stores    in postgres://u@localhost:5432/d"));
    }
}
