use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::event::{Body, Breach, Direction, Epoch, EventId, Lifecycle, Link, Loss, Severity, Stamp};

/// An event of each kind, with numbers up to the largest that are stored.
fn events() -> impl Strategy<Value = Event> {
    let number = || 0..=i64::MAX as u64;
    let time = || (0..4_102_444_800_000_000_i64).prop_map(|us| DateTime::<Utc>::from_timestamp_micros(us).unwrap());
    let breach = (".{0,20}", time(), "[a-z-]{1,9}", number(), number(), any::<bool>(), any::<Option<u32>>()).prop_map(
        |(limit, raised_at, interface, limit_bps, rate_bps, critical, ifindex)| Breach {
            breach_id: "0123456789abcdef".into(),
            raised_at,
            limit,
            severity: if critical { Severity::Critical } else { Severity::Warning },
            interface,
            ifindex,
            direction: if critical { Direction::Rx } else { Direction::Total },
            limit_bps,
            rate_bps,
            peak_bps: rate_bps,
            mean_bps: rate_bps / 2,
            duration_ms: 1_000,
            measured_ms: 900,
            excess_bytes: rate_bps / 8,
            reason: critical.then(|| "below".into()),
        },
    );
    let link = || Link { interface: "eth0".into(), ifindex: 2, speed_bps: None, reason: Some("appeared".into()) };
    let lifecycle = || Lifecycle { version: "1".into(), reason: None };
    let body = prop_oneof![
        breach.clone().prop_map(Body::BreachRaised),
        breach.clone().prop_map(Body::BreachUpdated),
        breach.prop_map(Body::BreachCleared),
        (1..50_u64, 0..50_u64).prop_map(|(from, more)| Body::Loss(Loss {
            epoch: Epoch(from),
            ranges: vec![(from, from + more)],
            reason: "evicted".into(),
        })),
        Just(Body::LinkAdded(link())),
        Just(Body::LinkRemoved(link())),
        Just(Body::AgentStarted(lifecycle())),
        Just(Body::AgentStopped(lifecycle())),
        Just(Body::Unknown("quota_reached".into())),
    ];
    (any::<u64>(), 1..=i64::MAX as u64, ".{1,40}", time(), any::<Option<bool>>(), body).prop_map(
        |(epoch, seq, agent, observed_at, clock_synced, body)| Event {
            id: EventId { epoch: Epoch(epoch), seq },
            stamp: Stamp { agent, observed_at, boot_id: "b".into(), monotonic_ms: 7, clock_synced },
            body,
        },
    )
}

proptest! {
    #[test]
    fn an_event_survives_the_way(event in events()) {
        prop_assert_eq!(decode(&to_json(&event)).unwrap(), event);
    }

    #[test]
    fn no_message_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_damaged_event_panics(event in events(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut payload = to_json(&event);
        let at = at.index(payload.len());
        payload[at] = byte;
        let _ = decode(&payload);
    }
}

const RAISED: &str = include_str!("golden/breach_raised.json");

#[test]
fn the_golden_event_is_read_and_written_as_it_stands() {
    let event = decode(RAISED.trim().as_bytes()).unwrap();
    assert_eq!(event.body.breach().unwrap().rate_bps, 83_886_080);
    assert_eq!(String::from_utf8(to_json(&event)).unwrap(), RAISED.trim());
}

#[test]
fn what_a_newer_agent_adds_is_passed_over() {
    let newer = RAISED.replace("\"schema\":1", "\"schema\":9,\"mood\":{\"good\":true}");
    assert_eq!(decode(newer.as_bytes()).unwrap(), decode(RAISED.as_bytes()).unwrap());
    let unknown = RAISED.replace("breach_raised", "quota_reached");
    assert_eq!(decode(unknown.as_bytes()).unwrap().body, Body::Unknown("quota_reached".into()));
}

#[test]
fn what_is_no_event_says_why() {
    for (from, to, says) in [
        ("\"seq\":17", "\"seq\":9223372036854775808", "over 2^63"),
        ("\"seq\":17", "\"seq\":0", "from 1"),
        ("\"seq\":17", "\"seq\":-1", "invalid value"),
        ("\"seq\":17,", "", "missing field `seq`"),
        ("\"limit\":\"wan-down\",", "", "field `limit`: is missing"),
        ("5f0c3a1e9b7d2468", "5F0C3A1E9B7D2468", "hex digits"),
        ("\"agent\":\"gw-042\"", "\"agent\":\"\"", "field `agent`"),
        ("\"severity\":\"warning\"", "\"severity\":\"mild\"", "mild"),
    ] {
        let error = decode(RAISED.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
    assert!(matches!(decode(b""), Err(DecodeError::Empty)));
    assert!(decode(b"\xff\xfe garbage").is_err());
    let long = RAISED.replace("gw-042", &"x".repeat(256));
    assert!(decode(long.as_bytes()).unwrap_err().to_string().contains("256 bytes"));
}

#[test]
fn every_message_is_a_cloud_event() {
    let mut event = decode(RAISED.as_bytes()).unwrap();
    event.stamp.agent = "büro 1/a".into();
    let message = message(&event, to_json(&event));
    assert_eq!(message.key, "büro 1/a".as_bytes());
    let headers: Vec<_> = message.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("ce_specversion", "1.0"),
            ("ce_id", "5f0c3a1e9b7d2468-17"),
            ("ce_source", "/highwater/b%C3%BCro%201%2Fa"),
            ("ce_type", "io.highwater.breach_raised.v1"),
            ("ce_time", "2026-11-21T02:03:04.567890Z"),
            ("content-type", "application/json"),
        ]
    );
}
