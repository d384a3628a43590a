//! Environment variables that Kubernetes sets in each container, for each service of its namespace. For a `highwater-agent`:
//! `HIGHWATER_AGENT_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP` (a named port), `HIGHWATER_AGENT_PORT`, and
//! `HIGHWATER_AGENT_PORT_9092_TCP`, also with `_PROTO`, `_PORT` and `_ADDR`. They must not count as unknown keys.

use super::{AGENT_KEYS, CONSUMER_KEYS, ENV_PREFIX, keys, variable};

/// Maximum edit distance at which a name is a mistyped key, whatever else it looks like.
const TYPO_MAX: usize = 2;

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

pub(super) fn sets(name: &str) -> bool {
    name.strip_prefix(ENV_PREFIX).is_some_and(|rest| names_service(rest) && !is_typo(rest))
}

fn names_service(rest: &str) -> bool {
    let ends_in = |end: &str| rest.strip_suffix(end).is_some_and(ends_a_word);
    ends_in("SERVICE_HOST")
        || ends_in("PORT")
        || places(rest, "SERVICE_PORT").any(|after| after.is_empty() || after.starts_with('_'))
        || places(rest, "PORT_").any(names_port)
}

fn places<'a>(rest: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    rest.match_indices(word).filter(|(at, _)| ends_a_word(&rest[..*at])).map(|(at, _)| &rest[at + word.len()..])
}

fn ends_a_word(before: &str) -> bool {
    before.is_empty() || before.ends_with('_')
}

fn names_port(text: &str) -> bool {
    let Some((number, rest)) = text.split_once('_') else { return false };
    let protocol = rest.split('_').next().unwrap_or_default();
    number.parse::<u16>().is_ok() && PROTOCOLS.contains(&protocol)
}

fn is_typo(rest: &str) -> bool {
    keys(&[AGENT_KEYS, CONSUMER_KEYS]).into_iter().any(|key| strsim::osa_distance(&variable(key), rest) <= TYPO_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::*;

    #[test]
    fn what_kubernetes_sets_for_a_service_is_passed_over() {
        for service in ["HIGHWATER", "HIGHWATER_AGENT", "HIGHWATER_KAFKA", "HIGHWATER_STORE_0"] {
            for end in [
                "SERVICE_HOST",
                "SERVICE_PORT",
                "SERVICE_PORT_HTTP",
                "SERVICE_PORT_KAFKA_TLS",
                "PORT",
                "PORT_9092_TCP",
                "PORT_9092_TCP_PROTO",
                "PORT_9092_TCP_PORT",
                "PORT_9092_TCP_ADDR",
                "PORT_53_UDP",
                "PORT_53_UDP_ADDR",
                "PORT_9_SCTP_PROTO",
            ] {
                let variable = (format!("{service}_{end}"), "tcp://10.96.0.1:9092".to_owned());
                for own in [AGENT_KEYS, CONSUMER_KEYS] {
                    assert!(Layers::read(None, [variable.clone()], own).is_ok(), "{variable:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_service_stays_an_error() {
        for name in [
            "HIGHWATER_INTERVALL",
            "HIGHWATER_KAFKA_BROKERS",
            "HIGHWATER_REPORT",
            "HIGHWATER_PORTS",
            "HIGHWATER_SERVICE_HOSTS",
            "HIGHWATER_PORT_HTTP_TCP",
            "HIGHWATER_PORT_80_HTTP",
            "HIGHWATER_PORT_99999_TCP",
            "HIGHWATER_MYSERVICE_HOST2",
        ] {
            assert!(Layers::read(None, [(name.to_owned(), "1".to_owned())], AGENT_KEYS).is_err(), "{name}");
        }
        // Names one letter away from a key, with the end of a service's variable.
        assert!(is_typo("KAFKA__TOPICS") && is_typo("INTERVAL_") && !is_typo("PORT") && !is_typo("AGENT_PORT"));
    }

    #[test]
    fn no_key_looks_like_a_service() {
        // If one ever does, it is looked up as a key first.
        for key in keys(&[AGENT_KEYS, CONSUMER_KEYS]) {
            assert!(!sets(&format!("{ENV_PREFIX}{}", variable(key))), "{key}");
        }
    }
}
