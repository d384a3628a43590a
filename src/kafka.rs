//! What both programs tell librdkafka: brokers, TLS, SASL, and the operator's own properties.

#[cfg(feature = "toolbox")]
pub mod admin;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode as Code;
use serde::Deserialize;

use crate::config::{Invalid, SecretFile, quoted, readable, secret};
use crate::units::{counted, lasting};

/// `[kafka.tls]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// `false` sends in the clear what would else be encrypted: SASL without TLS.
    #[serde(default, deserialize_with = "quoted")]
    pub enabled: Option<bool>,
    /// CA certificates, PEM. Default: the system's.
    pub ca_file: Option<String>,
    /// Our certificate, PEM, where the broker wants one.
    pub certificate_file: Option<String>,
    /// Its key, PEM.
    pub key_file: Option<String>,
    /// The key's passphrase.
    pub key_password_file: Option<String>,
}

/// `[kafka.sasl]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSasl {
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub mechanism: Option<String>,
    /// Who we are.
    pub username: Option<String>,
    /// Our password.
    pub password_file: Option<String>,
}

/// The part of `[kafka]` that both programs have, as written.
#[derive(Debug, Default)]
pub struct RawConnection {
    /// `host:port`, comma-separated.
    pub brokers: Option<String>,
    /// Encryption.
    pub tls: Option<RawTls>,
    /// Authentication.
    pub sasl: Option<RawSasl>,
    /// Properties of librdkafka.
    pub properties: BTreeMap<String, toml::Value>,
}

/// How to reach Kafka. Its secrets stay in their files until a client is made.
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
    identity: Option<(PathBuf, PathBuf, Option<SecretFile>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sasl {
    mechanism: String,
    username: String,
    password: SecretFile,
}

/// Properties that would break a promise, and what to use instead.
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
    ("allow.auto.create.topics", "a typing error would make a topic: make it with Kafka's own tools"),
    ("enable.auto.commit", "offsets are committed after the database has the rows"),
    ("enable.auto.offset.store", "offsets are committed after the database has the rows"),
    ("auto.offset.reset", "set kafka.start"),
    ("isolation.level", "aborted messages would become rows"),
    ("check.crcs", "a damaged message would become a row"),
    ("group.id", "set kafka.group"),
    ("group.instance.id", "set kafka.instance"),
    ("group.protocol", "the consumer is written for the classic protocol"),
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

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Connection {
    /// Understands what is written.
    ///
    /// # Errors
    /// Anything that no broker could make work, by its key.
    pub fn new(raw: RawConnection, credentials: Option<&Path>) -> Result<Self, Invalid> {
        let brokers = raw.brokers.unwrap_or_else(|| "localhost:9092".to_owned());
        if brokers.split(',').any(|broker| broker.trim().is_empty()) {
            return Err(Invalid::new(
                "kafka.brokers",
                "is empty; name one or more brokers, as in \"kafka-1:9092,kafka-2:9092\"",
            ));
        }
        let sasl = raw.sasl.map(|sasl| Sasl::new(sasl, credentials)).transpose()?;
        let tls = match raw.tls {
            Some(tls) if tls.enabled == Some(false) => None,
            Some(tls) => Some(Tls::new(tls, credentials)?),
            // A password never goes out in the clear unless that was asked for.
            None => sasl.is_some().then_some(Tls { ca_file: None, identity: None }),
        };
        let properties = raw.properties.into_iter().map(property).collect::<Result<_, _>>()?;
        Ok(Self { brokers, tls, sasl, properties })
    }

    /// The brokers, as configured.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// A client's configuration, with the secrets as their files have them now, and `ours` on top.
    ///
    /// # Errors
    /// A secret that can't be read.
    pub fn client(&self, ours: &[(&str, &str)]) -> Result<ClientConfig, String> {
        let mut client = ClientConfig::new();
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "highwater")
            .set("socket.keepalive.enable", "true")
            .set("log.connection.close", "false")
            .set("allow.auto.create.topics", "false")
            .set("security.protocol", self.protocol());
        if let Some(tls) = &self.tls {
            tls.configure(&mut client)?;
        }
        if let Some(Sasl { mechanism, username, password }) = &self.sasl {
            client
                .set("sasl.mechanisms", mechanism)
                .set("sasl.username", username)
                .set("sasl.password", password.read()?);
        }
        for (name, value) in ours {
            client.set(*name, *value);
        }
        // librdkafka repeats itself while a broker is away: what matters comes through the error callback.
        client.set_log_level(RDKafkaLogLevel::Critical);
        Ok(client)
    }

    /// What certificates and secrets hold now, as a number that differs when one of them does. A client has read them once: after
    /// a rotation only a new one knows the new ones.
    pub fn files(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let identity = self.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        let files = [
            self.tls.as_ref().and_then(|tls| tls.ca_file.as_deref()),
            identity.map(|(certificate, _, _)| certificate.as_path()),
            identity.map(|(_, key, _)| key.as_path()),
            identity.and_then(|(_, _, password)| password.as_ref()).map(SecretFile::path),
            self.sasl.as_ref().map(|sasl| sasl.password.path()),
        ];
        for file in files.into_iter().flatten() {
            std::fs::read(file).ok().hash(&mut hasher);
        }
        hasher.finish()
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
        let located = |key: &str, name: Option<String>| readable(key, name.as_deref(), credentials);
        let ca_file = located("kafka.tls.ca_file", raw.ca_file)?;
        let certificate = located("kafka.tls.certificate_file", raw.certificate_file)?;
        let key = located("kafka.tls.key_file", raw.key_file)?;
        let password = secret("kafka.tls.key_password_file", raw.key_password_file.as_deref(), credentials)?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key, password)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(Invalid::new("kafka.tls.key_file", "is missing; a certificate needs its key"));
            }
            (None, Some(_)) => {
                return Err(Invalid::new("kafka.tls.certificate_file", "is missing; a key needs its certificate"));
            }
        };
        Ok(Self { ca_file, identity })
    }

    fn configure(&self, client: &mut ClientConfig) -> Result<(), String> {
        client.set("enable.ssl.certificate.verification", "true").set("ssl.endpoint.identification.algorithm", "https");
        let system = || openssl_probe::probe().cert_file;
        if let Some(ca) = self.ca_file.clone().or_else(system) {
            client.set("ssl.ca.location", ca.display().to_string());
        }
        if let Some((certificate, key, password)) = &self.identity {
            client.set("ssl.certificate.location", certificate.display().to_string());
            client.set("ssl.key.location", key.display().to_string());
            if let Some(password) = password {
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
        let password = secret("kafka.sasl.password_file", raw.password_file.as_deref(), credentials)?;
        Ok(Self { mechanism, username, password: password.ok_or_else(|| missing("password_file"))? })
    }
}

fn property((name, value): (String, toml::Value)) -> Result<(String, String), Invalid> {
    let key = format!("kafka.properties.{name}");
    if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(Invalid::new(key, format!("is not for configuration: {instead}")));
    }
    match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(number) => Ok((name, number.to_string())),
        toml::Value::Boolean(flag) => Ok((name, flag.to_string())),
        _ => {
            Err(Invalid::new(key, "is neither text, number nor true or false; quote the property's name: \"a.b\" = 1"))
        }
    }
}

/// What an error of a client's says if one side turned the other away, and what to look at; nothing if a broker is just not there.
/// OpenSSL does not tell why a certificate is not accepted.
pub fn refusal(code: Code, reason: &str) -> Option<String> {
    let reason = without_timing(reason);
    let remedy = if matches!(code, Code::Authentication | Code::SaslAuthenticationFailed) {
        "check kafka.sasl: mechanism, username and password_file"
    } else if reason.contains("certificate verify failed") {
        "check that kafka.tls.ca_file signed the broker's certificate, and that this bears the broker's name and has not expired"
    } else if reason.contains(" alert ") {
        "the broker does not accept our certificate: check kafka.tls.certificate_file and kafka.tls.key_file"
    } else if code == Code::SSL {
        "check kafka.tls"
    } else {
        return None;
    };
    // It has two ways to say the same; and its own advice names its properties, which are not ours.
    let reason = reason.replace("SSL handshake failed: ", "");
    let reason = reason.split(": broker certificate could not be verified").next().unwrap_or(&reason);
    Some(format!("{reason}: {remedy}"))
}

/// Without what librdkafka says of how long and how often, which differs each time.
pub fn without_timing(text: &str) -> String {
    let Some((before, rest)) = text.split_once(" (after ") else { return text.to_owned() };
    // "(after 7ms in state CONNECT)", "(after 7ms in state CONNECT, 1 identical error(s) suppressed)"
    let after = rest.split_once("suppressed)").or_else(|| rest.split_once(')')).map_or("", |(_, after)| after);
    format!("{before}{after}")
}

/// Says a trouble at once when it is new, and then at a sane rate while it lasts.
#[derive(Debug, Default)]
pub struct Trouble(Mutex<Vec<Said>>);

#[derive(Debug)]
struct Said {
    message: String,
    since: Duration,
    unsaid: u32,
}

/// How long the same trouble stays unsaid after it was said.
const SILENCE: Duration = Duration::from_secs(300);
/// So many troubles are told apart.
const TROUBLES_MAX: usize = 16;

impl Trouble {
    /// The line to log, if it is time for one; `now` is a monotonic clock's.
    pub fn seen(&self, message: &str, now: Duration) -> Option<String> {
        let message = without_timing(message);
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = troubles.iter_mut().find(|said| said.message == message) {
            let silent = now.saturating_sub(said.since);
            if silent < SILENCE {
                said.unsaid += 1;
                return None;
            }
            let line = format!("{message} (and {} before, in {})", counted(said.unsaid, "time"), lasting(silent));
            (said.since, said.unsaid) = (now, 0);
            return Some(line);
        }
        if troubles.len() == TROUBLES_MAX {
            troubles.remove(0);
        }
        troubles.push(Said { message: message.clone(), since: now, unsaid: 0 });
        Some(message)
    }

    /// It is over; whether there was any.
    pub fn over(&self) -> bool {
        !std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(connection.client(&[]).unwrap().get("socket.timeout.ms"), Some("5000"));
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
                .client(&[])
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
        let tls = RawTls { ca_file: Some("/nowhere/ca.pem".into()), ..RawTls::default() };
        let error = connection(RawConnection { tls: Some(tls), ..RawConnection::default() }).unwrap_err();
        assert!(error.message.contains("/nowhere/ca.pem cannot be read"), "{error:?}");
    }

    #[test]
    fn trouble_is_said_at_once_and_then_rarely() {
        let (trouble, start) = (Trouble::default(), Duration::from_secs(7));
        assert!(trouble.seen("broker away", start).is_some());
        assert!(trouble.seen("broker away (after 7ms in state CONNECT)", start + Duration::from_secs(1)).is_none());
        assert!(trouble.seen("no such topic", start + Duration::from_secs(2)).is_some());
        assert!(trouble.seen("no such topic", start + SILENCE * 2).unwrap().contains("in 9 min 58 s"));
        assert!(trouble.over() && !trouble.over());
    }

    #[test]
    fn who_is_turned_away_is_told_what_to_look_at() {
        let verify = "ssl://b:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                      certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA \
                      certificates are installed (install ca-certificates package) (after 7ms in state SSL_HANDSHAKE)";
        let said = refusal(Code::SSL, verify).unwrap();
        assert!(
            said.contains("verify failed: check that kafka.tls.ca_file") && !said.contains("ssl.ca.location"),
            "{said}"
        );
        let alert = "ssl://b:9093/1: Receive failed: SSL alert number 116: tlsv13 alert certificate required (after 2ms in state X)";
        assert!(refusal(Code::BrokerTransportFailure, alert).unwrap().ends_with("kafka.tls.key_file"));
        let password = "sasl_ssl://b:9094/1: SASL authentication error: Authentication failed (after 300ms in state AUTH_REQ, 1 \
                        identical error(s) suppressed)";
        assert!(refusal(Code::Authentication, password).unwrap().contains("failed: check kafka.sasl"));
        let away = "ssl://b:9093/1: Disconnected (after 3ms in state SSL_HANDSHAKE)";
        assert_eq!(refusal(Code::BrokerTransportFailure, away), None);
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
