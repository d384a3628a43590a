//! Errors of librdkafka with the remedy, and never with a secret.

use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaConfRes;

use crate::config::{EVENTS_TOPIC, TOPICS, TopicRole};
use crate::process::log_throttle::without_timing;

/// Explains an error that does not pass by itself; `None` if a broker is merely unreachable.
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
    // librdkafka has two wordings of the same, and its advice names its own properties instead of our keys.
    let reason = reason.replace("SSL handshake failed: ", "");
    let reason = reason.split(": broker certificate could not be verified").next().unwrap_or(&reason);
    Some(format!("{reason}: {remedy}"))
}

/// A build of the agent alone, as for gateways, lacks the command that creates topics.
const HAS_TOOLBOX: bool = cfg!(any(feature = "toolbox", not(feature = "agent")));

/// Explains a missing topic, with the command that creates it; for a usual name, that creates all others too.
pub fn missing_topic(name: &str, brokers: &str) -> String {
    missing(name, &topics_command(name, brokers), HAS_TOOLBOX)
}

/// Explains a missing topic of histograms: the command names it as such, so that it is created compacted.
pub fn missing_topic_of_histograms(name: &str, brokers: &str) -> String {
    let is_usual = name == TopicRole::Histograms.spec().usual;
    let environment = if is_usual { String::new() } else { format!("HIGHWATER_TOPICS__HISTOGRAMS={name} ") };
    missing(name, &format!("{environment}{}", topics_command(name, brokers)), HAS_TOOLBOX)
}

fn topics_command(name: &str, brokers: &str) -> String {
    let brokers = if brokers == DEFAULT_BROKERS { String::new() } else { format!(" -b {brokers}") };
    let which = match TOPICS.iter().find(|topic| topic.usual == name) {
        Some(topic) if topic.role == TopicRole::Samples => " --samples".to_owned(),
        None if name != EVENTS_TOPIC => format!(" -t {name}"),
        _ => String::new(),
    };
    format!("highwater-agent topics{brokers}{which}")
}

fn missing(name: &str, command: &str, has_toolbox: bool) -> String {
    match has_toolbox {
        true => format!("there is no topic {name}: `{command}` creates it"),
        false => format!(
            "there is no topic {name}: set kafka.create_topics = true, or on a host with the toolbox: `{command}`"
        ),
    }
}

/// Names the right that the broker's ACLs do not give this user, and the command that adds it. `kind` is `topic` or `group`.
pub fn missing_right(operation: &str, kind: &str, names: &[&str]) -> String {
    let options: String = names.iter().map(|name| format!(" --{kind} {name}")).collect();
    let names = names.join(" or ");
    format!(
        "this user lacks {operation} on {kind} {names}: `kafka-acls.sh --bootstrap-server BROKER --add \
         --allow-principal User:NAME --operation {operation}{options}` adds it"
    )
}

/// Explains a connection that the broker closed as soon as it was made. librdkafka logs that, and reports it as an error only where it
/// was about to send: `10.0.0.1:9093/bootstrap: Disconnected: connection closed by peer (after 3ms in state APIVERSION_QUERY)`.
pub fn closed_at_once(line: &str) -> Option<String> {
    let closed = [": Disconnected", ": Send failed", ": Receive failed"];
    let (broker, closed) = closed.iter().find_map(|words| line.split_once(words))?;
    let (ms, state) = closed.split_once(" (after ")?.1.split_once("ms in state ")?;
    let broker = broker.rsplit(' ').next().unwrap_or(broker);
    let remedy = match state.trim_end_matches(')').split(',').next()? {
        "APIVERSION_QUERY" if !broker.contains("ssl://") => "its port may expect TLS: see [kafka.tls]",
        "UP" if ms.parse::<u32>().ok()? < UP_MAX_MS && !broker.starts_with("sasl") => {
            "it may require SASL: see [kafka.sasl]"
        }
        _ => return None,
    };
    Some(format!("{broker}: the broker closes each connection; {remedy}"))
}

/// A broker that requires SASL closes a connection at the first request that needs it.
const UP_MAX_MS: u32 = 2_000;

/// Adds the likely cause if the cluster names a broker, not one of `brokers`, that cannot be resolved or reached.
pub fn explained(reason: &str, brokers: &str) -> String {
    if let Some(closed) = closed_at_once(reason) {
        return closed;
    }
    let reason = without_timing(reason);
    let hint = advertised_address(&reason)
        .filter(|address| !brokers.split(',').any(|broker| is_same_address(broker, address)))
        .map(unreachable_address);
    match hint {
        Some(hint) => format!("{reason}: {hint}"),
        None => reason,
    }
}

pub(super) fn unreachable_address(address: &str) -> String {
    format!(
        "the cluster names this broker {address}, which this host cannot reach: check advertised.listeners of the broker"
    )
}

/// Returns the address in `ssl://kafka-1:9093/7: …` or `GroupCoordinator: kafka-1:9093: …`; `…/bootstrap` has not answered yet.
fn advertised_address(reason: &str) -> Option<&str> {
    let coordinator = reason.strip_prefix("GroupCoordinator: ");
    let (broker, error) = coordinator.unwrap_or(reason).split_once(": ")?;
    let address = match coordinator {
        Some(_) => broker,
        None => {
            let (address, node) = broker.rsplit_once('/')?;
            let is_number = !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some(address)?
        }
    };
    let cannot_connect = ["Failed to resolve", "Connect to ", "Connection setup timed out"];
    let is_about_connecting = cannot_connect.iter().any(|begin| error.starts_with(begin));
    is_about_connecting.then(|| address.split_once("://").map_or(address, |(_, address)| address))
}

fn is_same_address(configured: &str, address: &str) -> bool {
    let configured = configured.trim();
    let configured = configured.split_once("://").map_or(configured, |(_, address)| address);
    let has_port = configured.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    configured.eq_ignore_ascii_case(address)
        || (!has_port && address.eq_ignore_ascii_case(&format!("{configured}:{DEFAULT_PORT}")))
}

pub(super) const DEFAULT_BROKERS: &str = "localhost:9092";

const DEFAULT_PORT: u16 = 9092;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A certificate or secret cannot be read or understood. It may still be written, as in a rotation.
    #[error("{0}")]
    File(String),
    #[error("{0}")]
    Refused(String),
}

impl From<ClientError> for String {
    fn from(error: ClientError) -> Self {
        error.to_string()
    }
}

/// Properties that name files, and the password of one of them.
const OF_FILES: [&str; 4] = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password"];

impl ClientError {
    /// Finds the cause, which librdkafka does not report: if a client can be made without the files, it is one of them.
    pub fn of<C: FromClientConfig>(error: &KafkaError, config: &ClientConfig) -> Self {
        let mut without_files = config.clone();
        for name in OF_FILES.iter().chain(&["bootstrap.servers"]) {
            without_files.remove(name);
        }
        let names_files = OF_FILES.iter().any(|name| config.get(name).is_some());
        let is_about_file = names_files && without_files.create::<C>().is_ok();
        if is_about_file { Self::File(not_created(error)) } else { Self::Refused(not_created(error)) }
    }
}

/// Explains without a property's value, which can be a secret.
pub fn not_created(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(result, _, name, _) => {
            format!("kafka.properties: `{name}` {}", property_error(*result))
        }
        KafkaError::ClientCreation(reason) => {
            unusable_file(reason).unwrap_or_else(|| format!("librdkafka refuses the configuration: {reason}"))
        }
        other => other.to_string(),
    }
}

const CERTIFICATES: &str = "it has to hold certificates in PEM, which begin with -----BEGIN CERTIFICATE-----";

/// Properties that name a file, their keys below `kafka.tls`, and the remedies.
const TLS_FILES: [(&str, &str, &str); 3] = [
    ("ssl.ca.location", "ca_file", CERTIFICATES),
    ("ssl.certificate.location", "certificate_file", CERTIFICATES),
    (
        "ssl.key.location",
        "key_file",
        "it has to be the key of kafka.tls.certificate_file, in PEM; kafka.tls.key_password_file opens one that is encrypted",
    ),
];

/// Explains an error such as `ssl.key.location failed: ssl/ssl_rsa.c:428:… error:0A080009:SSL routines::PEM lib`.
fn unusable_file(reason: &str) -> Option<String> {
    let (property, rest) = reason.split_once(" failed: ")?;
    let (_, key, remedy) = TLS_FILES.iter().find(|(name, ..)| *name == property)?;
    let cause = rest.rsplit("::").next().unwrap_or(rest);
    Some(format!("kafka.tls.{key} cannot be used ({cause}): {remedy}"))
}

pub(super) fn property_error(result: RDKafkaConfRes) -> &'static str {
    match result {
        RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "is not a property of librdkafka, or not in this build",
        _ => "does not take this value; see librdkafka's CONFIGURATION.md",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_port_that_expects_tls_or_sasl_is_told_from_a_broker_that_restarts() {
        let remedy =
            |line: &str| closed_at_once(line).map(|text| text.rsplit(' ').next().unwrap_or_default().to_owned());
        let asked = "[thrd:b:9093/bootstrap]: b:9093/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN \
                     (after 3ms in state APIVERSION_QUERY)";
        assert_eq!(remedy(asked).as_deref(), Some("[kafka.tls]"));
        let again = "b:9093/1: Disconnected (after 1ms in state APIVERSION_QUERY, 2 identical error(s) suppressed)";
        assert_eq!(remedy(again).as_deref(), Some("[kafka.tls]"));
        assert_eq!(remedy("ssl://b:9093/1: Disconnected (after 5ms in state UP)").as_deref(), Some("[kafka.sasl]"));
        let sending = "b:9092/bootstrap: Send failed: Broken pipe (after 1ms in state UP)";
        assert_eq!(remedy(sending).as_deref(), Some("[kafka.sasl]"));
        assert_eq!(closed_at_once(sending).as_deref(), Some(&*explained(sending, "b:9092")));
        assert!(closed_at_once(asked).unwrap().starts_with("b:9093/bootstrap: "));
        for other in [
            "b:9093/1: Disconnected (after 60000ms in state UP)",
            "sasl_ssl://b:9093/1: Disconnected (after 5ms in state UP)",
            "ssl://b:9093/1: Disconnected (after 3ms in state APIVERSION_QUERY)",
            "b:9093/1: Connect to ipv4#127.0.0.1:9093 failed: Connection refused (after 0ms in state CONNECT)",
        ] {
            assert_eq!(closed_at_once(other), None, "{other}");
        }
    }

    #[test]
    fn an_address_that_the_cluster_named_is_told_from_a_configured_one() {
        let resolve = "kafka.internal:9092/1: Failed to resolve 'kafka.internal:9092': Name or service not known (after 2ms in \
                       state CONNECT)";
        let said = explained(resolve, "gateway.example:9092");
        assert!(
            said.contains("names this broker kafka.internal:9092") && said.contains("check advertised.listeners"),
            "{said}"
        );
        assert!(!said.contains("after 2ms"), "{said}");
        let refused = "ssl://10.1.2.3:9093/17: Connect to ipv4#10.1.2.3:9093 failed: Connection refused (after 0ms in state CONNECT)";
        assert!(explained(refused, "a:9093,b:9093").contains("names this broker 10.1.2.3:9093,"));
        let coordinator = "GroupCoordinator: 10.1.2.3:9093: Connect to ipv4#10.1.2.3:9093 failed: Connection refused";
        assert!(explained(coordinator, "a:9093").contains("names this broker 10.1.2.3:9093,"));
        for configured in ["a:9093,10.1.2.3:9093", "SSL://10.1.2.3:9093"] {
            assert!(!explained(refused, configured).contains("advertised"), "{configured}");
        }
        let default_port = "localhost:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused";
        assert_eq!(explained(default_port, "localhost"), default_port);
        let bootstrap = "gateway:9092/bootstrap: Failed to resolve 'gateway:9092': Name or service not known";
        assert_eq!(explained(bootstrap, "other:9092"), bootstrap);
        assert_eq!(
            explained("kafka.internal:9092/1: Disconnected", "gateway:9092"),
            "kafka.internal:9092/1: Disconnected"
        );
    }

    #[test]
    fn a_missing_right_is_named_with_the_command_that_adds_it() {
        let said = missing_right("Read", "topic", &["a", "b"]);
        let command = "`kafka-acls.sh --bootstrap-server BROKER --add --allow-principal User:NAME --operation Read --topic a --topic b`";
        assert_eq!(said, format!("this user lacks Read on topic a or b: {command} adds it"));
    }

    #[test]
    fn a_missing_topic_is_made_by_one_command() {
        assert_eq!(missing("t", "make t", true), "there is no topic t: `make t` creates it");
        assert_eq!(topics_command("t", DEFAULT_BROKERS), "highwater-agent topics -t t");
        assert!(missing_topic("t", "a:1,b:2").contains("`highwater-agent topics -b a:1,b:2 -t t`"));
        let missing = missing_topic_of_histograms("site7.hours", "a:1");
        assert!(
            missing.contains("`HIGHWATER_TOPICS__HISTOGRAMS=site7.hours highwater-agent topics -b a:1 -t site7.hours`")
        );
    }

    #[test]
    fn a_topic_of_the_usual_name_is_made_with_all_others_that_are_needed() {
        for name in ["highwater.events", "highwater.rates", "highwater.histograms"] {
            assert!(missing_topic(name, "a:1").contains(": `highwater-agent topics -b a:1`"), "{name}");
        }
        assert_eq!(topics_command("highwater.samples", DEFAULT_BROKERS), "highwater-agent topics --samples");
        let missing = missing_topic_of_histograms("highwater.histograms", DEFAULT_BROKERS);
        assert_eq!(missing, missing_topic("highwater.histograms", DEFAULT_BROKERS));
    }

    #[test]
    fn a_build_without_the_command_names_the_key_first() {
        let remedy = "set kafka.create_topics = true, or on a host with the toolbox: `make t`";
        assert_eq!(missing("t", "make t", false), format!("there is no topic t: {remedy}"));
        let is_named_first = missing_topic("t", "a:1").contains("kafka.create_topics");
        assert_eq!(is_named_first, cfg!(all(feature = "agent", not(feature = "toolbox"))));
    }

    #[test]
    fn a_propertys_value_is_not_shown() {
        let unknown = RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
        let error =
            KafkaError::ClientConfig(unknown, "no such s3cret".into(), "ssl.key.passwrd".into(), "s3cret".into());
        let said = not_created(&error);
        assert!(said.contains("ssl.key.passwrd") && !said.contains("s3cret"), "{said}");
    }
}
