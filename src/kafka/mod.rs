//! Configuration that both programs pass to librdkafka: brokers, TLS, SASL, and the operator's own properties.

pub mod admin;
mod advertised;
pub mod check;
mod errors;
pub mod offsets;
mod reports;
pub mod schema_registry;
mod topic_plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rdkafka::config::{ClientConfig, FromClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use serde::Deserialize;

pub use self::advertised::unreachable_broker;
pub use self::errors::{
    ClientError, closed_at_once, explained, missing_right, missing_topic, missing_topic_of_histograms, not_created,
    refusal,
};
pub use self::reports::{DRAIN, Reports};
pub use self::topic_plan::{PlannedTopic, TopicPlan};
use crate::config::{Invalid, SecretFile, check_readable, fingerprint, identity, located, quoted, secret};

/// With `enabled = false`, SASL is in plain text, without TLS. `ca_file` is PEM; the default is the system's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    #[serde(default, deserialize_with = "quoted")]
    pub enabled: Option<bool>,
    pub ca_file: Option<String>,
    pub certificate_file: Option<String>,
    pub key_file: Option<String>,
    pub key_password_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSasl {
    pub mechanism: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<String>,
}

#[derive(Debug, Default)]
pub struct RawConnection {
    pub brokers: Option<String>,
    pub tls: Option<RawTls>,
    pub sasl: Option<RawSasl>,
    pub properties: BTreeMap<String, toml::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    brokers: String,
    tls: Option<Tls>,
    sasl: Option<Sasl>,
    properties: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tls {
    ca_file: Option<PathBuf>,
    identity: Option<ClientCertificate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ClientCertificate {
    certificate: PathBuf,
    key: PathBuf,
    key_password: Option<SecretFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sasl {
    mechanism: String,
    username: String,
    password: SecretFile,
}

const REFUSED: &[(&str, &str)] = &[
    ("acks", "an event is acknowledged by all in-sync replicas, or not at all"),
    ("request.required.acks", "an event is acknowledged by all in-sync replicas, or not at all"),
    ("enable.idempotence", "without it a retry changes the order of events"),
    ("enable.gapless.guarantee", "without it a batch that is refused is overtaken by those after it"),
    ("retries", "an event that is given up is overtaken by those after it"),
    ("message.send.max.retries", "an event that is given up is overtaken by those after it"),
    ("message.timeout.ms", "the journal bounds the waiting: set journal.max_age"),
    ("delivery.timeout.ms", "the journal bounds the waiting: set journal.max_age"),
    ("transactional.id", "the agent does not use transactions"),
    ("partitioner", "events of one agent must meet in one partition"),
    ("queue.buffering.max.messages", "memory is bounded by it"),
    ("queue.buffering.max.kbytes", "memory is bounded by it"),
    ("queued.max.messages.kbytes", "memory is bounded by it"),
    ("allow.auto.create.topics", "a typing error would create a topic: create topics with `highwater-agent topics`"),
    ("enable.auto.commit", "offsets are committed after the database has the rows"),
    ("enable.auto.offset.store", "offsets are committed after the database has the rows"),
    ("auto.offset.reset", "set kafka.start"),
    ("isolation.level", "aborted messages would become rows"),
    ("check.crcs", "a damaged message would become a row"),
    ("auto.commit.enable", "offsets are committed after the database has the rows"),
    ("offset.store.method", "the database keeps what was read, and Kafka's committed offset follows it"),
    ("enable.partition.eof", "the consumer knows from the offsets where a partition ends"),
    ("topic.blacklist", "a topic that is not to be read is not named: set kafka.topic, topics.samples"),
    ("group.id", "set kafka.group"),
    ("group.instance.id", "set kafka.instance"),
    ("group.protocol", CLASSIC),
    ("group.protocol.type", CLASSIC),
    ("group.remote.assignor", CLASSIC),
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("security.protocol", "write a section [kafka.tls] or [kafka.sasl]"),
    ("enable.ssl.certificate.verification", "name your CA with kafka.tls.ca_file"),
    ("ssl.endpoint.identification.algorithm", "the broker's certificate must bear its name"),
    ("ssl.ca.location", "set kafka.tls.ca_file"),
    ("ssl.certificate.location", "set kafka.tls.certificate_file"),
    ("ssl.key.location", "set kafka.tls.key_file"),
    ("ssl.key.password", "secrets stay in files: set kafka.tls.key_password_file"),
    ("ssl.key.pem", "secrets stay in files: set kafka.tls.key_file"),
    ("sasl.mechanism", "set kafka.sasl.mechanism"),
    ("sasl.mechanisms", "set kafka.sasl.mechanism"),
    ("sasl.username", "set kafka.sasl.username"),
    ("sasl.password", "secrets stay in files: set kafka.sasl.password_file"),
];

const CLASSIC: &str = "the consumer places every partition by its database, for which it takes the classic protocol and \
                       partition.assignment.strategy";

/// Strategies that assign all partitions at each rebalance: librdkafka would read nothing after `cooperative-sticky`.
const STRATEGIES: [&str; 2] = ["range", "roundrobin"];

const TOPIC_BYTES_MAX: usize = 249;

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Connection {
    pub fn new(raw: RawConnection, credentials: Option<&Path>) -> Result<Self, Invalid> {
        let brokers = raw.brokers.unwrap_or_else(|| errors::DEFAULT_BROKERS.to_owned());
        check_brokers(&brokers)?;
        let sasl = raw.sasl.map(|sasl| Sasl::new(sasl, credentials)).transpose()?;
        let tls = match raw.tls {
            Some(tls) if tls.enabled == Some(false) => None,
            Some(tls) => Some(Tls::new(tls, credentials)?),
            // A password is never sent in plain text unless that was configured.
            None => sasl.is_some().then_some(Tls { ca_file: None, identity: None }),
        };
        let properties = raw.properties.into_iter().map(property).collect::<Result<_, _>>()?;
        let connection = Self { brokers, tls, sasl, properties };
        // librdkafka leaves out the brokers of another protocol.
        for (scheme, _) in connection.brokers.split(',').filter_map(|broker| broker.trim().split_once("://")) {
            let protocol = connection.protocol().to_ascii_uppercase();
            if !scheme.eq_ignore_ascii_case(&protocol) {
                let message = format!(
                    "`{scheme}://` is not the protocol of this connection, which is {protocol} by [kafka.tls] and [kafka.sasl]; \
                     name brokers without a protocol"
                );
                return Err(Invalid::new("kafka.brokers", message));
            }
        }
        Ok(connection)
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(set, _)| set == name).map(|(_, value)| value.as_str())
    }

    /// Checks what may change while a program runs: named files, and librdkafka's client of what `configure` returns.
    pub fn check<C: FromClientConfig>(
        &self,
        configure: impl FnOnce(&Self) -> Result<ClientConfig, ClientError>,
    ) -> Result<(), Invalid> {
        self.check_files()?;
        let refused = |why: String| Invalid::new("kafka", why);
        let mut config = configure(self).map_err(|error| refused(error.into()))?;
        config.remove("bootstrap.servers");
        config.create::<C>().map(drop).map_err(|error| refused(not_created(&error)))
    }

    fn check_files(&self) -> Result<(), Invalid> {
        self.named_files().try_for_each(|(key, file)| check_readable(key, file))
    }

    /// Returns properties of a client: `fixed` ones override the operator's, which override `defaults`.
    pub fn client(&self, fixed: &[(&str, &str)], defaults: &[(&str, &str)]) -> Result<ClientConfig, ClientError> {
        self.check_files().map_err(|Invalid { key, message }| ClientError::File(format!("{key}: {message}")))?;
        let mut client = ClientConfig::new();
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "highwater")
            .set("socket.keepalive.enable", "true")
            .set("allow.auto.create.topics", "false")
            .set("security.protocol", self.protocol());
        if client.get("enable.metrics.push").is_none() {
            // Broker-requested client metrics (KIP-714) would be traffic that the operator does not expect.
            client.set("enable.metrics.push", "false");
        }
        if let Some(tls) = &self.tls {
            tls.configure(&mut client).map_err(ClientError::File)?;
        }
        if let Some(Sasl { mechanism, username, password }) = &self.sasl {
            client
                .set("sasl.mechanisms", mechanism)
                .set("sasl.username", username)
                .set("sasl.password", password.read().map_err(ClientError::File)?);
        }
        for (name, value) in fixed {
            client.set(*name, *value);
        }
        for (name, value) in defaults {
            if client.get(name).is_none() {
                client.set(*name, *value);
            }
        }
        // For `closed_at_once`, which no error reports. Our callbacks log these lines for debugging only.
        client.set_log_level(RDKafkaLogLevel::Info);
        Ok(client)
    }

    /// Returns a fingerprint of the certificate and secret files: when it changes, the client must be recreated to use them.
    pub fn files(&self) -> u64 {
        fingerprint(self.named_files().map(|(_, file)| file))
    }

    fn named_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let tls = self.tls.as_ref();
        let identity = tls.and_then(|tls| tls.identity.as_ref());
        let files = [
            ("kafka.tls.ca_file", tls.and_then(|tls| tls.ca_file.as_deref())),
            ("kafka.tls.certificate_file", identity.map(|identity| identity.certificate.as_path())),
            ("kafka.tls.key_file", identity.map(|identity| identity.key.as_path())),
            (
                "kafka.tls.key_password_file",
                identity.and_then(|identity| identity.key_password.as_ref()).map(SecretFile::path),
            ),
            ("kafka.sasl.password_file", self.sasl.as_ref().map(|sasl| sasl.password.path())),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file?)))
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }
}

impl Tls {
    fn new(raw: RawTls, credentials: Option<&Path>) -> Result<Self, Invalid> {
        let key_password = secret("kafka.tls.key_password_file", raw.key_password_file, credentials)?;
        let identity = identity("kafka.tls", (raw.certificate_file, raw.key_file), credentials)?
            .map(|(certificate, key)| ClientCertificate { certificate, key, key_password });
        Ok(Self { ca_file: located("kafka.tls.ca_file", raw.ca_file, credentials)?, identity })
    }

    fn configure(&self, client: &mut ClientConfig) -> Result<(), String> {
        client.set("enable.ssl.certificate.verification", "true").set("ssl.endpoint.identification.algorithm", "https");
        let system = || openssl_probe::probe().cert_file;
        if let Some(ca) = self.ca_file.clone().or_else(system) {
            client.set("ssl.ca.location", ca.display().to_string());
        }
        if let Some(ClientCertificate { certificate, key, key_password }) = &self.identity {
            client.set("ssl.certificate.location", certificate.display().to_string());
            client.set("ssl.key.location", key.display().to_string());
            if let Some(password) = key_password {
                client.set("ssl.key.password", password.read()?);
            }
        }
        Ok(())
    }
}

impl Sasl {
    fn new(raw: RawSasl, credentials: Option<&Path>) -> Result<Self, Invalid> {
        let missing = |key: &str| Invalid::new(format!("kafka.sasl.{key}"), "is missing");
        let mechanism = raw.mechanism.ok_or_else(|| missing("mechanism"))?;
        if !MECHANISMS.contains(&&*mechanism) {
            let message = format!("`{mechanism}` is not one of {}", MECHANISMS.join(", "));
            return Err(Invalid::new("kafka.sasl.mechanism", message));
        }
        let username = raw.username.ok_or_else(|| missing("username"))?;
        let password = secret("kafka.sasl.password_file", raw.password_file, credentials)?;
        Ok(Self { mechanism, username, password: password.ok_or_else(|| missing("password_file"))? })
    }
}

fn property((name, value): (String, toml::Value)) -> Result<(String, String), Invalid> {
    let key = format!("kafka.properties.{name}");
    if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(Invalid::new(key, format!("is not for configuration: {instead}")));
    }
    let value = match value {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        _ => {
            let message = "is neither text, number nor true or false; quote the property's name: \"a.b\" = 1";
            return Err(Invalid::new(key, message));
        }
    };
    if name == "partition.assignment.strategy"
        && let Some(strategy) = value.split(',').map(str::trim).find(|strategy| !STRATEGIES.contains(strategy))
    {
        let message = format!(
            "`{strategy}` is not for this consumer, which has all its partitions assigned at once; write {}",
            STRATEGIES.map(|strategy| format!("\"{strategy}\"")).join(" or ")
        );
        return Err(Invalid::new(key, message));
    }
    let mut alone = ClientConfig::new();
    alone.set(&name, &value);
    match alone.create_native_config() {
        Ok(_) => Ok((name, value)),
        // The value can be a secret.
        Err(KafkaError::ClientConfig(result, ..)) => Err(Invalid::new(key, errors::property_error(result))),
        Err(error) => Err(Invalid::new(key, error.to_string())),
    }
}

fn is_topic_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=TOPIC_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) && name != "." && name != ".."
}

pub fn topic_name(key: &str, name: String) -> Result<String, Invalid> {
    if is_topic_name(&name) {
        return Ok(name);
    }
    let message =
        format!("`{name}` is not a topic name, which has up to {TOPIC_BYTES_MAX} letters, digits, `.`, `_` and `-`");
    Err(Invalid::new(key, message))
}

const BROKERS_FORM: &str = "name one or more brokers, as in \"kafka-1:9092,kafka-2:9092\"";

pub fn check_brokers(list: &str) -> Result<(), Invalid> {
    match list.trim() {
        "" => Err(Invalid::new("kafka.brokers", format!("is empty; {BROKERS_FORM}"))),
        // Not shown: a password may be in it.
        list if list.contains('@') => {
            Err(Invalid::new("kafka.brokers", "has an `@`: user and password belong into [kafka.sasl]"))
        }
        list => list.split(',').try_for_each(check_broker),
    }
}

fn check_broker(broker: &str) -> Result<(), Invalid> {
    let broker = broker.trim();
    let address = broker.split_once("://").map_or(broker, |(_, address)| address);
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or((rest, None), |(host, port)| (host, port.strip_prefix(':'))),
        None => address.rsplit_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let invalid = |message: String| Err(Invalid::new("kafka.brokers", message));
    match port.map(str::parse::<u16>) {
        _ if broker.is_empty() => invalid(format!("has an empty entry; {BROKERS_FORM}")),
        _ if broker.contains(';') => invalid(format!("`{broker}`: separate brokers by commas; {BROKERS_FORM}")),
        _ if host.contains(':') && !address.starts_with('[') => {
            invalid(format!("`{broker}`: write an IPv6 address in brackets, as in \"[2001:db8::1]:9092\""))
        }
        _ if host.is_empty() || host.contains(char::is_whitespace) => {
            invalid(format!("`{broker}` names no host; {BROKERS_FORM}"))
        }
        Some(Ok(0) | Err(_)) => invalid(format!(
            "`{broker}`: `{}` is not a port, which is a number from 1 to 65535",
            port.unwrap_or_default()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::BaseProducer;

    use super::*;

    fn check(connection: &Connection) -> Result<(), Invalid> {
        connection.check::<BaseProducer>(|connection| connection.client(&[], &[]))
    }

    fn connection(raw: RawConnection) -> Result<Connection, Invalid> {
        Connection::new(raw, None)
    }

    #[test]
    fn what_would_break_a_promise_is_refused_by_name() {
        for name in ["acks", "enable.auto.commit", "sasl.password", "isolation.level"] {
            let properties = BTreeMap::from([(name.to_owned(), toml::Value::String("1".into()))]);
            let error = connection(RawConnection { properties, ..RawConnection::default() }).unwrap_err();
            assert_eq!(error.key, format!("kafka.properties.{name}"));
        }
        let properties = BTreeMap::from([("socket.timeout.ms".to_owned(), toml::Value::Integer(5_000))]);
        let connection = connection(RawConnection { properties, ..RawConnection::default() }).unwrap();
        assert_eq!(connection.client(&[], &[]).unwrap().get("socket.timeout.ms"), Some("5000"));
    }

    #[test]
    fn what_would_change_rebalances_is_refused_by_name() {
        let with = |name: &str, value: &str| {
            let properties = BTreeMap::from([(name.to_owned(), toml::Value::String(value.into()))]);
            connection(RawConnection { properties, ..RawConnection::default() })
        };
        for (name, value, says) in [
            ("partition.assignment.strategy", "cooperative-sticky", "`cooperative-sticky` is not for this consumer"),
            ("partition.assignment.strategy", "range, cooperative-sticky", "write \"range\" or \"roundrobin\""),
            ("group.protocol", "consumer", "classic protocol"),
            ("group.protocol.type", "connect", "classic protocol"),
            ("group.remote.assignor", "uniform", "classic protocol"),
            ("group.instance.id", "one", "set kafka.instance"),
            ("enable.partition.eof", "true", "knows from the offsets"),
            ("topic.blacklist", "^high", "set kafka.topic"),
        ] {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.key, format!("kafka.properties.{name}"));
            assert!(error.message.contains(says), "{name} = {value}: {error:?}");
        }
        for strategy in ["range", "roundrobin", "range,roundrobin"] {
            assert!(with("partition.assignment.strategy", strategy).is_ok(), "{strategy}");
        }
    }

    #[test]
    fn a_password_goes_out_encrypted_unless_asked_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let password = directory.path().join("password");
        std::fs::write(&password, "s3cret\n").unwrap();
        let with = |tls| {
            let sasl = RawSasl {
                mechanism: Some("PLAIN".into()),
                username: Some("u".into()),
                password_file: Some(password.display().to_string()),
            };
            connection(RawConnection { tls, sasl: Some(sasl), ..RawConnection::default() })
                .unwrap()
                .client(&[], &[])
                .unwrap()
        };
        assert_eq!(with(None).get("security.protocol"), Some("sasl_ssl"));
        let plain = with(Some(RawTls { enabled: Some(false), ..RawTls::default() }));
        assert_eq!(plain.get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(plain.get("sasl.password"), Some("s3cret"));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let empty = RawConnection { brokers: Some("a:1, ,b:2".into()), ..RawConnection::default() };
        assert_eq!(connection(empty).unwrap_err().key, "kafka.brokers");
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_waited_for_and_found_by_the_check() {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        let tls = RawTls { ca_file: Some(ca.display().to_string()), ..RawTls::default() };
        let connection = connection(RawConnection { tls: Some(tls), ..RawConnection::default() }).unwrap();
        let Invalid { key, message } = check(&connection).unwrap_err();
        assert!(key == "kafka.tls.ca_file" && message.contains("ca.pem cannot be read"), "{key} {message}");
        assert!(
            matches!(connection.client(&[], &[]), Err(ClientError::File(why)) if why.starts_with("kafka.tls.ca_file: "))
        );
        std::fs::write(&ca, "nonsense").unwrap();
        assert!(connection.client(&[], &[]).is_ok());
        assert!(
            check(&connection).unwrap_err().message.contains("kafka.tls.ca_file cannot be used"),
            "librdkafka reads it too"
        );
    }

    #[test]
    fn an_error_says_whether_it_is_about_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        let error = |properties: &[(&str, i64)]| {
            let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), toml::Value::Integer(*value)));
            let tls = Some(RawTls { ca_file: Some(ca.display().to_string()), ..RawTls::default() });
            let raw = RawConnection { tls, properties: properties.collect(), ..RawConnection::default() };
            let config = connection(raw).unwrap().client(&[], &[])?;
            let created = config.create::<BaseProducer>();
            Err::<(), _>(ClientError::of::<BaseProducer>(&created.map(drop).unwrap_err(), &config))
        };
        let never_works = [("reconnect.backoff.ms", 5_000), ("reconnect.backoff.max.ms", 100)];
        assert!(matches!(error(&[]), Err(ClientError::File(_))), "it is not there");
        std::fs::write(&ca, "nonsense").unwrap();
        assert!(matches!(error(&[]), Err(ClientError::File(_))), "it is no certificate");
        assert!(matches!(error(&never_works), Err(ClientError::Refused(_))), "another file would not help");
        std::fs::copy(openssl_probe::probe().cert_file.expect("the system has a CA"), &ca).unwrap();
        assert!(matches!(error(&never_works), Err(ClientError::Refused(_))));
    }

    #[test]
    fn a_property_is_checked_and_its_value_not_shown() {
        for (name, value, says) in [
            ("sasl.oauthbearer.client.secrett", "s3cret", "is not a property"),
            ("socket.timeout.ms", "s3cret", "does not take this value"),
            ("socket.timeout.ms", "-7", "does not take this value"),
        ] {
            let properties = BTreeMap::from([(name.to_owned(), toml::Value::String(value.into()))]);
            let error = connection(RawConnection { properties, ..RawConnection::default() }).unwrap_err();
            assert_eq!(error.key, format!("kafka.properties.{name}"));
            assert!(error.message.contains(says) && !error.message.contains(value), "{error:?}");
        }
        // Each of the two values would be accepted alone.
        let properties = BTreeMap::from([
            ("reconnect.backoff.ms".to_owned(), toml::Value::Integer(5_000)),
            ("reconnect.backoff.max.ms".to_owned(), toml::Value::Integer(100)),
        ]);
        let together = connection(RawConnection { properties, ..RawConnection::default() }).unwrap();
        assert!(check(&together).unwrap_err().message.contains("reconnect.backoff"));
    }

    #[test]
    fn a_brokers_port_is_a_port() {
        let brokers = |list: &str| connection(RawConnection { brokers: Some(list.into()), ..RawConnection::default() });
        for list in ["a", "a:1", "a:9092, b:65535", "[::1]:9092", "[fe80::1]", "PLAINTEXT://a:9093,b"] {
            assert!(brokers(list).is_ok(), "{list}");
        }
        for (list, says) in [
            ("a:1,b:99999", "`b:99999`: `99999` is not a port"),
            ("a:0", "`0` is not a port"),
            ("a:", "`` is not a port"),
            ("a:x", "`x` is not a port"),
            ("[::1]:65536", "`65536` is not a port"),
            (":9092", "names no host"),
            ("a b:9092", "names no host"),
            ("a:9092,", "has an empty entry"),
            ("::1:9092", "in brackets"),
            ("a:9092;b:9092", "by commas"),
            ("kafka://a", "`kafka://` is not the protocol"),
            ("a,SSL://b:9093", "which is PLAINTEXT"),
            ("SASL_SSL://u:s3cret,s3cret@a:9092", "belong into [kafka.sasl]"),
        ] {
            let error = brokers(list).unwrap_err();
            assert!(error.key == "kafka.brokers" && error.message.contains(says), "{list}: {error:?}");
            assert!(!error.message.contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn a_rotated_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let password = directory.path().join("password");
        std::fs::write(&password, "old").unwrap();
        let sasl = RawSasl {
            mechanism: Some("PLAIN".into()),
            username: Some("u".into()),
            password_file: Some(password.display().to_string()),
        };
        let connection = connection(RawConnection { sasl: Some(sasl), ..RawConnection::default() }).unwrap();
        let before = connection.files();
        assert_eq!(before, connection.files());
        std::fs::write(&password, "new").unwrap();
        assert_ne!(before, connection.files());
    }
}
