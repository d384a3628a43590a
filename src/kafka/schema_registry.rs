//! Client of a schema registry with Confluent's HTTP interface. Calls block, for at most [`ASK_MAX`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::config::{Invalid, SecretFile, check_readable, fingerprint, identity, located, quoted, secret};
use crate::text::{escape_control, truncate};
use crate::wire::Format;

/// `url` is without `/subjects`. Without `auto_register`, an agent only looks its schema up. A consumer waits `give_up` (`0`:
/// forever) for a schema before messages become dead letters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRegistry {
    pub url: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<String>,
    pub ca_file: Option<String>,
    pub certificate_file: Option<String>,
    pub key_file: Option<String>,
    #[serde(default, deserialize_with = "quoted")]
    pub auto_register: Option<bool>,
    pub give_up: Option<String>,
}

pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAddress {
    url: String,
    login: Option<(String, SecretFile)>,
    ca_file: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

pub struct Registry {
    url: String,
    authorization: Option<String>,
    http: Agent,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Misconfigured(String),
    #[error("{0}")]
    NotFound(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// `AVRO` (the default), `PROTOBUF` or `JSON`.
    pub kind: Option<String>,
    pub text: String,
}

pub const ASK_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const JSON: &str = "application/vnd.schemaregistry.v1+json";

impl RegistryAddress {
    pub fn new(raw: RawRegistry, credentials: Option<&Path>) -> Result<Option<Self>, Invalid> {
        let key = |name: &str| format!("kafka.registry.{name}");
        let Some(url) = raw.url else {
            let others = [&raw.username, &raw.password_file, &raw.ca_file, &raw.certificate_file, &raw.key_file];
            return if others.iter().any(|other| other.is_some()) {
                Err(Invalid::new(key("url"), "is missing; write url = \"https://registry.example:8081\""))
            } else {
                Ok(None)
            };
        };
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
        let authority = host.split('/').next().unwrap_or_default();
        if authority.is_empty() || url.contains(char::is_whitespace) {
            let message = format!("`{url}` is not an address; write it as \"https://registry.example:8081\"");
            return Err(Invalid::new(key("url"), message));
        }
        if authority.contains('@') {
            return Err(Invalid::new(key("url"), "holds a name; set username and password_file in its place"));
        }
        let password = secret(&key("password_file"), raw.password_file, credentials)?;
        let login = match (raw.username, password) {
            (Some(username), _) if username.contains(':') => {
                return Err(Invalid::new(
                    key("username"),
                    "contains a colon, which basic authentication does not allow",
                ));
            }
            (Some(username), Some(password)) => Some((username, password)),
            (None, None) => None,
            (Some(_), None) => return Err(Invalid::new(key("password_file"), "is missing; a username needs it")),
            (None, Some(_)) => return Err(Invalid::new(key("username"), "is missing; a password needs it")),
        };
        let identity = identity("kafka.registry", (raw.certificate_file, raw.key_file), credentials)?;
        let ca_file = located("kafka.registry.ca_file", raw.ca_file, credentials)?;
        Ok(Some(Self { url: url.trim_end_matches('/').to_owned(), login, ca_file, identity }))
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn check(&self) -> Result<(), Invalid> {
        self.named_files().try_for_each(|(key, file)| check_readable(key, file))
    }

    pub fn files(&self) -> u64 {
        fingerprint(self.named_files().map(|(_, file)| file))
    }

    fn named_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let identity = self.identity.as_ref();
        let files = [
            ("kafka.registry.password_file", self.login.as_ref().map(|(_, password)| password.path())),
            ("kafka.registry.ca_file", self.ca_file.as_deref()),
            ("kafka.registry.certificate_file", identity.map(|(certificate, _)| certificate.as_path())),
            ("kafka.registry.key_file", identity.map(|(_, key)| key.as_path())),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file?)))
    }

    pub fn open(&self) -> Result<Registry, RegistryError> {
        self.check().map_err(|Invalid { key, message }| RegistryError::Misconfigured(format!("{key}: {message}")))?;
        let authorization = match &self.login {
            None => None,
            Some((username, password)) => {
                let password = password.read().map_err(RegistryError::Misconfigured)?;
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))
            }
        };
        let mut config = Agent::config_builder()
            .timeout_global(Some(ASK_MAX))
            .timeout_connect(Some(CONNECT_MAX))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("highwater/", env!("CARGO_PKG_VERSION")));
        if self.url.starts_with("https:") {
            config = config.tls_config(self.tls().map_err(RegistryError::Misconfigured)?);
        }
        Ok(Registry { url: self.url.clone(), authorization, http: config.build().into() })
    }

    fn tls(&self) -> Result<TlsConfig, String> {
        let mut tls = TlsConfig::builder().provider(TlsProvider::NativeTls);
        // A vendored OpenSSL does not know the location of this system's CAs.
        if let Some(file) = self.ca_file.clone().or_else(|| openssl_probe::probe().cert_file) {
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates(&file)?)));
        }
        if let Some((certificate, key)) = &self.identity {
            let parsed = PrivateKey::from_pem(&read(key)?).map_err(|error| format!("{}: {error}", key.display()))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(certificate)?, parsed)));
        }
        Ok(tls.build())
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = read(file)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(format!("{} holds no certificate in PEM", file.display())) } else { Ok(found) }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{} cannot be read: {error}; check its owner and mode", file.display()))
}

impl Registry {
    /// Registers a missing schema if `register` is true, which fails if its predecessors do not allow it; else it is [`RegistryError::NotFound`].
    pub fn id_of(&self, subject: &str, format: Format, register: bool) -> Result<u32, RegistryError> {
        let mut schema = json!({"schema": format.schema()});
        match format {
            Format::Json => schema["schemaType"] = "JSON".into(),
            Format::Avro => {}
            Format::Protobuf => schema["schemaType"] = "PROTOBUF".into(),
        }
        let path = if register { format!("/subjects/{subject}/versions") } else { format!("/subjects/{subject}") };
        let url = format!("{}{path}", self.url);
        let mut request = self.http.post(&url).header("accept", JSON).header("content-type", JSON);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let answer = self.answer(request.send(schema.to_string()))?;
        number(&answer, "id").ok_or_else(|| self.unexpected_answer("an id", &answer))
    }

    /// Fails with `NotFound` only if the registry reports that it has none.
    pub fn schema(&self, id: u32) -> Result<RegisteredSchema, RegistryError> {
        // Ids are signed numbers. A registry may answer a larger one as it would a wrong address.
        if i32::try_from(id).is_err() {
            return Err(RegistryError::NotFound(format!("{id} is not a schema id")));
        }
        let mut request = self.http.get(format!("{}/schemas/ids/{id}", self.url)).header("accept", JSON);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let answer = self.answer(request.call())?;
        let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
        let text_of_schema = text("schema").ok_or_else(|| self.unexpected_answer("a schema", &answer))?;
        Ok(RegisteredSchema { kind: text("schemaType"), text: text_of_schema })
    }

    fn answer(&self, response: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, RegistryError> {
        let whole = response.and_then(|mut response| {
            let status = response.status().as_u16();
            let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
            Ok((status, body))
        });
        let (status, body) = whole.map_err(|error| self.failure_of(&error))?;
        parse_answer(&self.url, status, &body)
    }

    fn failure_of(&self, error: &ureq::Error) -> RegistryError {
        match error {
            ureq::Error::NativeTls(_) | ureq::Error::Tls(_) | ureq::Error::Der(_) | ureq::Error::Pem(_) => {
                RegistryError::Misconfigured(self.message(&format!("{error}; check kafka.registry.ca_file")))
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::BodyExceedsLimit(_) => {
                RegistryError::Misconfigured(self.message(&format!("{error}; check kafka.registry.url")))
            }
            error => RegistryError::Unavailable(self.message(&error.to_string())),
        }
    }

    fn unexpected_answer(&self, wanted: &str, answer: &Value) -> RegistryError {
        let text = truncate(&answer.to_string(), 100);
        RegistryError::Misconfigured(
            self.message(&format!("answers `{text}` where {wanted} should be; check kafka.registry.url")),
        )
    }

    fn message(&self, what: &str) -> String {
        message_of(&self.url, what)
    }
}

fn message_of(url: &str, what: &str) -> String {
    format!("schema registry {url}: {what}")
}

/// Takes a 404 for a missing schema only with the error code for it: a wrong address gets one too.
fn parse_answer(url: &str, status: u16, body: &[u8]) -> Result<Value, RegistryError> {
    let answer = serde_json::from_slice::<Value>(body);
    let refusal = || {
        let message = answer.as_ref().ok().and_then(|answer| answer.get("message")?.as_str()).map(Cow::Borrowed);
        let text = message.unwrap_or_else(|| String::from_utf8_lossy(body));
        message_of(url, &format!("{status} {}", escape_control(&truncate(text.trim(), 300))))
    };
    let code = || answer.as_ref().ok().and_then(|answer| number(answer, "error_code"));
    match status {
        200..=299 => match answer {
            Ok(answer) => Ok(answer),
            Err(_) => {
                Err(RegistryError::Misconfigured(format!("{}, which is not JSON; check kafka.registry.url", refusal())))
            }
        },
        404 if matches!(code(), Some(40_401..=40_403)) => Err(RegistryError::NotFound(refusal())),
        401 | 403 => {
            let keys = "kafka.registry.username and password_file, and the rights of that user";
            Err(RegistryError::Misconfigured(format!("{}; check {keys}", refusal())))
        }
        409 => Err(RegistryError::Misconfigured(format!(
            "{}; the schema of this version does not fit those before it: write to another topic, or ease the subject's \
             compatibility rule",
            refusal()
        ))),
        408 | 429 | 500..=599 => Err(RegistryError::Unavailable(refusal())),
        _ => Err(RegistryError::Misconfigured(format!("{}; check kafka.registry.url", refusal()))),
    }
}

fn number(answer: &Value, key: &str) -> Option<u32> {
    answer.get(key)?.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(raw: RawRegistry) -> Result<Option<RegistryAddress>, Invalid> {
        RegistryAddress::new(raw, None)
    }

    #[test]
    fn what_cannot_work_is_named() {
        let url = |url: &str| RawRegistry { url: Some(url.into()), ..RawRegistry::default() };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(address(RawRegistry::default()), Ok(None));
        assert_eq!(address(url("http://r:8081/api/")).unwrap().unwrap().url(), "http://r:8081/api");
        for (raw, key, says) in [
            (url("registry:8081"), "url", "is not an address; write it as"),
            (url("http:///x"), "url", "is not an address"),
            (url("http://u:p@r"), "url", "set username and password_file"),
            (RawRegistry { username: some("u"), ..RawRegistry::default() }, "url", "is missing"),
            (RawRegistry { username: some("u"), ..url("http://r") }, "password_file", "is missing"),
        ] {
            let Invalid { key: found, message } = address(raw).unwrap_err();
            assert_eq!(found, format!("kafka.registry.{key}"));
            assert!(message.contains(says), "{message}");
        }
        let missing = RawRegistry { ca_file: some("/nowhere/ca"), ..url("https://r") };
        let Invalid { key, message } = address(missing).unwrap().unwrap().check().unwrap_err();
        assert!(key == "kafka.registry.ca_file" && message.contains("/nowhere/ca cannot be read"), "{message}");
    }

    #[test]
    fn answers_are_understood() {
        let answer = |status, body: &str| parse_answer("http://r", status, body.as_bytes());
        assert_eq!(answer(200, r#"{"id":7}"#), Ok(json!({"id": 7})));
        for (status, body, wanted) in [
            (
                404,
                r#"{"error_code":40403,"message":"Schema not found"}"#,
                RegistryError::NotFound("schema registry http://r: 404 Schema not found".into()),
            ),
            (503, "busy\r\n", RegistryError::Unavailable("schema registry http://r: 503 busy".into())),
        ] {
            assert_eq!(answer(status, body), Err(wanted));
        }
        for (status, body, says) in [
            (404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#, "check kafka.registry.url"),
            (404, "<html>", "check kafka.registry.url"),
            (302, "", "check kafka.registry.url"),
            (200, "<html>", "which is not JSON"),
            (401, "", "check kafka.registry.username"),
            (409, r#"{"error_code":409,"message":"Incompatible"}"#, "409 Incompatible; the schema of this version"),
        ] {
            let Err(RegistryError::Misconfigured(why)) = answer(status, body) else { panic!("{status} {body}") };
            assert!(why.contains(says), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 100..600_u16, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_answer("http://r", status, &body);
        }

        #[test]
        fn no_damaged_answer_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), status in prop::sample::select(vec![200, 404, 409])) {
            let mut body = br#"{"error_code":40403,"message":"Schema not found","id":7,"schema":"{}","schemaType":"AVRO"}"#.to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = parse_answer("http://r", status, &body);
        }
    }
}
