use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::agent::counters::{AddReason, Counters, LinkChange, LinkInfo, LinkKind, Reading, Speed};
use crate::agent::detector::limit::Level;
use crate::agent::detector::{Detections, Detector};
use crate::agent::publisher::Publisher;
use crate::message::{Direction, Severity, Stamp};
use crate::testing::{damaged_text, hostile_value};
use crate::units::BitRate;

fn settings(text: &str) -> Result<Settings, String> {
    let environment = ServiceEnvironment { hostname: "gw-042".into(), ..ServiceEnvironment::default() };
    Settings::new(&Layers::from_text("agent.toml", text), &environment).map_err(|error| error.to_string())
}

fn use_all_of(settings: &Settings) {
    let (start, mut reading) = (Duration::from_secs(1 << 33), Reading::default());
    let mut publisher = Publisher::new(settings.publisher.clone(), true, start);
    publisher.reconfigure(settings.publisher.clone(), start);
    let stamp = Stamp {
        agent: settings.agent.as_str().into(),
        observed_at: chrono::DateTime::from_timestamp(1 << 33, 0).unwrap(),
        boot_id: String::new(),
        monotonic_ms: 1 << 43,
        clock_synced: None,
    };
    let mut detector = Detector::new(settings.limits.clone(), settings.interval, 1);
    detector.resume(Vec::new(), settings.resume_within, &stamp);
    let speed = Speed::both(Some(BitRate::from_bps(1 << 40)));
    let info = LinkInfo { speed, ..LinkInfo::new(1, "eth0", LinkKind::Physical) };
    reading.changes.push(LinkChange::Added(info, AddReason::Appeared));
    for tick in 1..6_u32 {
        (reading.at, reading.boottime) = (start + settings.interval * tick, start + settings.interval * tick);
        let bytes = u64::from(tick) << 36;
        reading.counters = vec![Counters { ifindex: 1, rx_bytes: bytes, tx_bytes: bytes, ..Counters::default() }];
        detector.observe(&reading, &stamp, &mut Detections::default());
        reading.changes.clear();
    }
    assert!(!settings.to_string().is_empty());
}

fn keys() -> Vec<&'static str> {
    crate::config::keys(&[crate::config::AGENT_KEYS])
}

#[test]
fn a_topic_of_two_roles_is_named_once() {
    let settings = settings("[kafka]\ntopic = 'all'\n[samples]\nenabled = true\n[topics]\nsamples = 'all'\n").unwrap();
    assert_eq!(settings.topic_names(), ["all", "highwater.rates", "highwater.histograms"]);
}

proptest! {
    #[test]
    fn no_damaged_file_panics_and_what_is_understood_can_be_used(
        text in prop_oneof![
            damaged_text(include_str!("../../../systemd/agent.toml")),
            damaged_text(
                "agent='g'\ninterval='1s'\nsource='auto'\nresume_within='5m'\n[interfaces]\ninclude=['*']\n[[link]]\n\
                 interface='eth*'\nrx_speed='80 Mbit/s'\ncounter_bits=32\n[[limit]]\n\
                 name='w'\ninterface='eth*'\ndirection='rx'\nraise_at='80 Mbit/s'\nclear_at='70 Mbit/s'\nfor='3s'\n\
                 clear_for='10s'\nseverity='warning'\nupdate_every='10s'\n[[limit]]\nscope='host'\nraise_at='80%'\n\
                 [flush]\ninterval='120s'\nmax_events=500\n[journal]\nmax_size='16MiB'\nmax_age='30d'\n\
                 [kafka.properties]\n'linger.ms'=5\n"
            ),
        ]
    ) {
        match settings(&text) {
            Ok(settings) => use_all_of(&settings),
            Err(error) => prop_assert!(error.starts_with("agent.toml"), "{error}"),
        }
    }

    #[test]
    fn no_environment_panics_and_an_error_names_its_variable(
        variables in proptest::collection::vec((select(keys()), hostile_value()), 1..4)
    ) {
        let name = |key: &str| format!("HIGHWATER_{}", key.to_ascii_uppercase().replace('.', "__"));
        let variables: Vec<_> = variables.into_iter().map(|(key, value)| (name(key), value)).collect();
        let layers = Layers::read(None, variables.clone(), crate::config::AGENT_KEYS).unwrap();
        match Settings::new(&layers, &ServiceEnvironment { hostname: "h".into(), ..ServiceEnvironment::default() }) {
            Ok(settings) => use_all_of(&settings),
            Err(error) => {
                let error = error.to_string();
                let named = variables.iter().any(|(name, _)| error.starts_with(name)) || error.starts_with("kafka.");
                prop_assert!(named, "{error}");
            }
        }
    }
}

const LIMIT: &str = "[[limit]]\ninterface = 'eth*'\nraise_at = '80 Mbit/s'\n";

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let settings = settings(LIMIT).unwrap();
    assert_eq!((settings.agent.as_str(), settings.interval), ("gw-042", Duration::from_secs(1)));
    assert_eq!(settings.state_dir, Path::new("/var/lib/highwater"));
    assert_eq!(
        (settings.resume_within, settings.publisher.interval),
        (Duration::from_secs(300), Duration::from_secs(120))
    );
    let linger = |text: &str| self::settings(text).unwrap().publisher.linger.as_secs();
    assert_eq!(linger(LIMIT), 360, "three intervals");
    assert_eq!((linger("[flush]\ninterval = '1s'\n"), linger("[flush]\nlinger = '0s'\n")), (300, 0));
    assert_eq!(
        (settings.publisher.events_max, settings.publisher.urgent.as_slice()),
        (500, [Severity::Critical].as_slice())
    );
    assert_eq!((settings.journal_size.bytes(), settings.journal_age.as_secs()), (16 << 20, 30 * 86_400));
    assert_eq!(
        (settings.publisher.topic.as_str(), settings.publisher.connection.brokers()),
        ("highwater.events", "localhost:9092")
    );
    let limit = &settings.limits[0];
    assert_eq!(limit.clear_at, Level::Rate(BitRate::from_bps(72_000_000)));
    assert_eq!(
        (limit.directions.as_slice(), limit.update_every.as_secs()),
        ([Direction::Rx, Direction::Tx].as_slice(), 10)
    );
}

#[test]
fn the_shipped_file_is_understood_as_it_is_and_with_every_key_switched_on() {
    let shipped = include_str!("../../../systemd/agent.toml");
    assert!(!settings(shipped).unwrap().limits.is_empty());
    let error = settings(&crate::config::testing::all_switched_on(shipped)).unwrap_err();
    assert!(error.ends_with("kafka.sasl.password_file: is missing"), "all but the secrets is understood: {error}");
}

#[test]
fn a_host_limit_may_list_its_links() {
    let text = "[[limit]]\nscope = 'host'\ninterfaces = ['eth0', 'ppp*']\nraise_at = '80%'\n";
    let settings = settings(text).unwrap();
    let patterns = ["eth0".to_owned(), "ppp*".to_owned()];
    assert_eq!(settings.limits[0].scope, Scope::Host(patterns.to_vec()));
    let tunnel = |name: &str| LinkInfo::new(2, name, LinkKind::Other("tun".into()));
    let watched = ["eth0", "ppp7", "tun0"].map(|name| settings.selection().watches(&tunnel(name)));
    assert_eq!(watched, [true, true, false], "they are watched for it");
}

#[test]
fn what_cannot_be_right_is_named_with_its_line_and_the_remedy() {
    let limit = |more: &str| format!("{LIMIT}{more}");
    for (text, says) in [
        (limit("clear_at = '90 Mbit/s'"), "agent.toml:4: limit.clear_at: 90.0 Mbit/s is above raise_at"),
        (limit("clear_at = '50%'"), "agent.toml:4: limit.clear_at: and raise_at must both"),
        (limit("severity = 'mild'"), "agent.toml:4: limit.severity: `mild` is not one of warning, critical"),
        (limit("direction = 'up'"), "is not one of rx, tx, total, either"),
        (limit("for = '3'"), "agent.toml:4: limit.for: `3`"),
        (limit("update_every = '10m'"), "resume_within: is below the update_every"),
        (limit("rais_at = '1 bit/s'"), "agent.toml:4: unknown key `rais_at`; did you mean `raise_at`?"),
        (limit(LIMIT), "agent.toml:4: limit.name: `eth*` is the name of another limit too"),
        ("[[limit]]\nraise_at = '80 Mbit'\n".into(), "agent.toml:2: limit.raise_at: `80 Mbit` is not a bit rate"),
        ("[[limit]]\nraise_at = '0 bit/s'\n".into(), "is 0"),
        ("[[limit]]\nraise_at = '120%'\n".into(), "up to 100%"),
        ("[[limit]]\nraise_at = '80%'\n".into(), "limit.interface: is missing"),
        ("[[limit]]\nraise_at = '80%'\nscope = 'rack'\n".into(), "agent.toml:3: limit.scope: `rack`"),
        (
            "[[limit]]\nraise_at = '80%'\ninterfaces = ['eth0']\n".into(),
            "limit.interfaces: is only for scope = \"host\"",
        ),
        (
            "[[limit]]\nraise_at = '80%'\nscope = 'host'\ninterfaces = []\n".into(),
            "agent.toml:4: limit.interfaces: is empty",
        ),
        ("[kafka]\nbrokers = ''\n".into(), "agent.toml:2: kafka.brokers: is empty"),
        ("[kafka]\ntopic = 'a b'\n".into(), "agent.toml:2: kafka.topic: `a b` is not a topic name"),
        ("[kafka.properties]\n'acks' = '1'\n".into(), "agent.toml:2: kafka.properties.acks: is not for configuration"),
        ("[kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'u'\n".into(), "kafka.sasl.password_file: is missing"),
        ("[flush]\nlinger = 'long'\n".into(), "agent.toml:2: flush.linger: `long`"),
        ("[journal]\nmax_size = '100 KiB'\n".into(), "is below 1.0 MiB"),
        ("interval = '1ms'\n".into(), "agent.toml:1: interval: is below 100 ms"),
        ("source = 'psychic'\n".into(), "agent.toml:1: source: `psychic`"),
        ("[flush]\nmax_events = 0\n".into(), "agent.toml:2: flush.max_events"),
        ("agent = ''\n".into(), "agent.toml:1: agent:"),
    ] {
        let error = settings(&text).expect_err(&text);
        assert!(error.contains(says), "{text}\n{error}");
        assert!(!error.contains('\n'), "one line: {error}");
    }
}

#[test]
fn a_wrong_type_or_unit_names_the_key_and_shows_the_right_form() {
    for (text, says) in [
        ("interval = 5", "agent.toml:1: interval: write it as \"5s\""),
        ("interval = '5'", "agent.toml:1: interval: `5` has no unit; write it as \"5s\""),
        ("interval = 5s", "agent.toml:1: interval: write its value in quotes: interval = \"…\""),
        ("interval = -1", "agent.toml:1: interval: write it as \"5s\" or \"2m\""),
        ("interval = ''", "agent.toml:1: interval: is empty; write it as"),
        ("agent = 5", "agent.toml:1: agent: write it in quotes: \"5\""),
        ("state_dir = ''", "agent.toml:1: state_dir: is empty; name a directory"),
        ("interfaces = ['eth0']", "agent.toml:1: interfaces: is a table: write [interfaces]"),
        ("kafka = 'localhost:9092'", "agent.toml:1: kafka: is a table: write [kafka]"),
        ("[limit]\nraise_at = '80%'", "agent.toml:1: limit: write [[limit]], with two brackets"),
        ("[[limit]]\nfor = 3", "agent.toml:2: limit.for: write it as \"3s\""),
        (
            "[[limit]]\nraise_at = 80",
            "agent.toml:2: limit.raise_at: write it with its unit, as in \"80 Mbit/s\" or \"80%\"",
        ),
        ("[[limit]]\nraise_at = 80%", "agent.toml:2: raise_at: write its value in quotes: raise_at = \"…\""),
        ("[[limit]]\nraise_at = ''", "agent.toml:2: limit.raise_at: an empty text is not a bit rate"),
        ("[[limit]]\ninterface = ['eth0', 'eth1']", "agent.toml:2: limit.interface: takes one pattern, with `*`"),
        ("[interfaces]\ninclude = 5", "agent.toml:2: interfaces.include: takes a list, as in [\"one\", \"two\"]"),
        (
            "[interfaces]\nexclude = ['a b']",
            "agent.toml:2: interfaces.exclude: `a b` matches no interface: no name has a space",
        ),
        (
            "[flush]\nmax_events = 'x'",
            "agent.toml:2: flush.max_events: \"x\" is not a whole number of 0 or more; write it as 500",
        ),
        ("[journal]\nmax_size = 16", "agent.toml:2: journal.max_size: write it with its unit, as in \"16MiB\""),
        ("[kafka]\nbrokers = ['a:1', 'b:1']", "kafka.brokers: write it as one text, with commas: \"a:1,b:1\""),
        ("[kafka.tls]\nenabled = 'yes'", "agent.toml:2: kafka.tls.enabled: \"yes\" is not true or false"),
        ("[kafka.tls]\nca_file = ''", "agent.toml:2: kafka.tls.ca_file: is empty; name a file"),
    ] {
        let error = settings(text).expect_err(text);
        assert!(error.contains(says), "{text}\n{error}");
    }
    assert_eq!(settings("[interfaces]\ninclude = 'eth0, eth1'").unwrap().include, ["eth0", "eth1"]);
}

#[test]
fn whatever_is_written_for_a_key_an_error_names_it() {
    for key in keys() {
        let (path, name) = key.rsplit_once('.').map_or(("", key), |(table, name)| (table, name));
        let table = if path.is_empty() { String::new() } else { format!("[{path}]\n") };
        for value in ["5", "-5", "1.5", "true", "''", "[5]", "{}", "bare", "2026-11-28"] {
            if let Err(error) = settings(&format!("{table}{name} = {value}\n")) {
                // A missing key beside it may be reported first.
                let named = error.contains(&format!("{name}: ")) || error.contains("is missing");
                assert!(named && error.starts_with("agent.toml"), "{key} = {value}: {error}");
                assert!(!error.contains("invalid type"), "{key} = {value}: {error}");
            }
        }
    }
}

#[test]
fn a_time_without_a_unit_is_answered_with_one() {
    crate::config::testing::assert_times_are_explained(&Settings::defaults(), |text| settings(text).unwrap_err());
}

#[test]
fn what_is_probably_not_meant_is_a_warning_with_its_line() {
    let warnings = |text: &str| settings(text).unwrap().warnings;
    assert_eq!(warnings(LIMIT), [""; 0]);
    let limit = "[[limit]]\ninterface = 'eth[0-9]'\nraise_at = '80 Mbit/s'\n";
    let said = warnings(&format!("{limit}[interfaces]\ninclude = []\nexclude = ['^lo']\n"));
    for (warning, says) in said.iter().zip([
        "agent.toml:6: interfaces.exclude: `^lo` matches only",
        "agent.toml:5: interfaces.include: is empty",
        "agent.toml:2: limit.interface: `eth[0-9]` matches only",
    ]) {
        assert!(warning.starts_with(says), "{warning}");
    }
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn every_key_of_the_environment_is_a_key_of_the_file() {
    for key in keys() {
        let (path, name) = key.rsplit_once('.').map_or(("", key), |(table, name)| (table, name));
        let table = if path.is_empty() { String::new() } else { format!("[{path}]\n") };
        let error = settings(&format!("{table}{name} = []\n")).err().unwrap_or_default();
        assert!(!error.contains("unknown key"), "{key}: {error}");
    }
}

#[test]
fn defaults_shipped_file_and_documentation_agree() {
    crate::config::testing::assert_documented(&Settings::defaults(), include_str!("../../../systemd/agent.toml"));
    let written = settings(&Settings::defaults()).unwrap();
    let none = settings("").unwrap();
    assert_eq!(format!("{written:?}"), format!("{none:?}"), "what is not written is the default");
}

#[test]
fn the_shipped_file_judges_something_on_a_link_of_unknown_speed() {
    let settings = settings(include_str!("../../../systemd/agent.toml")).unwrap();
    let is_active = |limit: &Limit| limit.raise_at.resolve(Speed::default(), limit.directions[0]).is_some();
    assert!(settings.limits.iter().any(is_active) && !settings.limits.iter().all(is_active));
    let selection = settings.selection();
    for kind in ["", "ppp", "wwan", "bond"] {
        assert!(selection.watches(&LinkInfo::new(3, "any", LinkKind::from_kernel(kind))), "{kind}");
    }
    let (lo, eth0) =
        (LinkInfo::new(1, "lo", LinkKind::Loopback), LinkInfo::new(2, "eth0", LinkKind::from_kernel("veth")));
    assert_eq!(selection.warnings(&[&lo, &eth0]), [""; 0], "the only link of a container is watched");
    assert_eq!(selection.warnings(&[&lo]).len(), 1);
}
