use super::*;

fn settings(text: &str) -> Result<Settings, String> {
    let surroundings = Surroundings { hostname: "gw-042".into(), ..Surroundings::default() };
    Settings::new(&Layers::from_text("agent.toml", text), &surroundings).map_err(|error| error.to_string())
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
    let error = settings(&crate::config::all_switched_on(shipped)).unwrap_err();
    assert!(error.ends_with("kafka.sasl.password_file: is missing"), "all but the secrets is understood: {error}");
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
        ("[kafka]\nbrokers = ''\n".into(), "agent.toml:2: kafka.brokers: is empty"),
        ("[kafka]\ntopic = 'a b'\n".into(), "agent.toml:2: kafka.topic: `a b` is no topic"),
        ("[kafka.properties]\n'acks' = '1'\n".into(), "agent.toml:2: kafka.properties.acks: is not for configuration"),
        (
            "[kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'u'\npassword_file = '/nowhere/p'\n".into(),
            "agent.toml:4: kafka.sasl.password_file: /nowhere/p cannot be read",
        ),
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
fn every_key_of_the_environment_is_a_key_of_the_file() {
    for key in crate::config::KEYS.iter().chain(crate::config::AGENT_KEYS) {
        let (path, name) = key.rsplit_once('.').map_or(("", *key), |(table, name)| (table, name));
        let table = if path.is_empty() { String::new() } else { format!("[{path}]\n") };
        let error = settings(&format!("{table}{name} = []\n")).err().unwrap_or_default();
        assert!(!error.contains("unknown key"), "{key}: {error}");
    }
}
