use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::*;
use crate::message::fields::REASON;
use crate::message::histogram::RateHistogram;
use crate::message::{
    Body, Breach, Direction, Epoch, EventId, Lifecycle, Link, LinkRates, Loss, OverLimit, REASONS, RateWindow, Reason,
    SEQ_MAX, Sample, Severity, Stamp,
};
use crate::testing::damaged;

pub(super) fn events() -> impl Strategy<Value = Event> {
    let number = || 0..=i64::MAX as u64;
    let time = || (0..4_102_444_800_000_000_i64).prop_map(|us| DateTime::<Utc>::from_timestamp_micros(us).unwrap());
    let times = || (time(), time(), time());
    let breach = ("[^\\x00]{0,20}", times(), "[a-z-]{1,9}", number(), number(), any::<bool>(), any::<Option<u32>>())
        .prop_map(
            |(limit_name, (started_at, raised_at, ended_at), interface, limit_bps, rate_bps, critical, ifindex)| {
                Breach {
                    breach_id: "0123456789abcdef".into(),
                    started_at,
                    raised_at,
                    ended_at,
                    limit_name: limit_name.into(),
                    severity: if critical { Severity::Critical } else { Severity::Warning },
                    interface: interface.into(),
                    ifindex,
                    direction: if critical { Direction::Rx } else { Direction::Total },
                    limit_bps,
                    rate_bps,
                    peak_bps: rate_bps,
                    mean_bps: rate_bps / 2,
                    duration_ms: 1_000,
                    measured_ms: 900,
                    excess_bytes: rate_bps / 8,
                    reason: critical.then_some(Reason::Below),
                    detail: ifindex.map(|_| "the rate fell".to_owned()),
                }
            },
        );
    let sample = (any::<Option<u32>>(), proptest::option::of(number()), proptest::option::of(number())).prop_map(
        |(duration_ms, rx, tx)| Sample {
            interface: "eth0".into(),
            duration_ms: duration_ms.map(u64::from),
            rx_bytes: rx,
            tx_bytes: tx,
            rx_bps: rx.map(|bytes| bytes / 3),
            tx_bps: tx.map(|bytes| bytes / 5),
            reason: rx.is_none().then_some(Reason::First),
        },
    );
    let link = |reason| Link {
        interface: "eth0".into(),
        ifindex: 2,
        speed_bps: None,
        reason: Some(reason),
        detail: Some("wan0".into()),
    };
    let lifecycle = |reason| Lifecycle { version: "1".into(), reason, detail: None };
    let body = prop_oneof![
        breach.clone().prop_map(Body::BreachRaised),
        breach.clone().prop_map(Body::BreachUpdated),
        breach.prop_map(Body::BreachCleared),
        (1..50_u64, 0..50_u64).prop_map(|(from, more)| Body::Loss(Loss {
            epoch: Epoch(from),
            ranges: vec![(from, from + more)],
            reason: Reason::Rejected,
            detail: Some("too large".into()),
        })),
        Just(Body::LinkAdded(link(Reason::Added))),
        Just(Body::LinkRemoved(link(Reason::Removed))),
        Just(Body::LinkChanged(link(Reason::Renamed))),
        Just(Body::AgentStarted(lifecycle(None))),
        Just(Body::AgentStopped(lifecycle(Some(Reason::Other("solar_flare".into()))))),
        sample.prop_map(Body::Sample),
        Just(Body::Heartbeat(lifecycle(None))),
        (proptest::collection::vec(link_rates(), 0..4), 1..=3_600_000_u64).prop_map(|(mut links, duration_ms)| {
            links
                .iter_mut()
                .enumerate()
                .for_each(|(at, link)| link.interface = format!("{}{at}", link.interface).into());
            let started_at = DateTime::default();
            Body::Rates(RateWindow { started_at, duration_ms, version: "1".into(), links })
        }),
        Just(Body::Unknown("quota_reached".into())),
    ];
    (any::<u64>(), 1..=SEQ_MAX, "[^\\x00]{1,40}", time(), any::<Option<bool>>(), body).prop_map(
        |(epoch, seq, agent, observed_at, clock_synced, mut body)| {
            if let Body::Rates(window) = &mut body {
                window.started_at = observed_at - TimeDelta::milliseconds(window.duration_ms.cast_signed());
            }
            Event {
                id: EventId { epoch: Epoch(epoch), seq },
                stamp: Stamp { agent: agent.into(), observed_at, boot_id: "b".into(), monotonic_ms: 7, clock_synced },
                body,
            }
        },
    )
}

fn link_rates() -> impl Strategy<Value = LinkRates> {
    let number = || 0..=i64::MAX as u64;
    let over = ("[^\\x00]{1,9}", number(), any::<u32>()).prop_map(|(limit_name, limit_bps, over_s)| OverLimit {
        limit_name: limit_name.into(),
        limit_bps,
        over_s,
    });
    let rates = proptest::collection::vec(0..1_u64 << 40, 0..9);
    let direction = prop::sample::select(vec![Direction::Rx, Direction::Tx, Direction::Total]);
    let numbers = (number(), proptest::option::of(number()), any::<u32>());
    ("[a-z]{1,9}", direction, numbers, rates, proptest::collection::vec(over, 0..3)).prop_map(
        |(interface, direction, (bytes, packets, unmeasured_s), rates, over)| {
            let mut histogram = RateHistogram::<u32>::default();
            rates.iter().for_each(|rate| histogram.record(*rate, 1));
            LinkRates {
                interface: interface.into(),
                direction,
                bytes,
                packets,
                errors: packets.map(|packets| packets / 2),
                drops: None,
                measured_s: rates.len() as u32,
                unmeasured_s,
                min_bps: rates.iter().min().copied(),
                mean_bps: rates.first().copied(),
                max_bps: rates.iter().max().copied(),
                p50_bps: histogram.quantile_bps(0.5),
                p95_bps: histogram.quantile_bps(0.95),
                p99_bps: histogram.quantile_bps(0.99),
                speed_bps: packets,
                over,
                histogram: (!rates.is_empty()).then(|| histogram.encode()),
            }
        },
    )
}

/// Every way to write an event: the format, and the schema's id if a registry has one.
const WAYS: [(Format, Option<u32>); 5] = [
    (Format::Json, None),
    (Format::Avro, None),
    (Format::Avro, Some(AVRO_ID)),
    (Format::Protobuf, None),
    (Format::Protobuf, Some(PROTOBUF_ID)),
];

const AVRO_ID: u32 = 7;
const PROTOBUF_ID: u32 = 0x0102_0304;
const JSON_ID: u32 = 9;
const AWAY_ID: u32 = 10;
const NEWER_ID: u32 = 11;

struct Registry;

impl Schemas for Registry {
    fn schema(&mut self, id: u32) -> Result<Arc<WriterSchema>, Undecoded> {
        let (kind, text) = match id {
            AVRO_ID => (None, Format::Avro.schema().to_owned()),
            NEWER_ID => (Some("AVRO"), newer_schema().to_string()),
            PROTOBUF_ID => (Some("PROTOBUF"), "any".to_owned()),
            JSON_ID => (Some("JSON"), "any".to_owned()),
            AWAY_ID => {
                return Err(Undecoded::Transient { why: "away".into(), wait: Duration::ZERO, lasted: Duration::ZERO });
            }
            id => return Err(DecodeError::UnknownId { id, registry: "test".into() }.into()),
        };
        Ok(Arc::new(WriterSchema::parse(kind, &text).unwrap()))
    }
}

#[test]
fn a_schema_is_what_its_text_says_where_the_registry_tells_another_type() {
    for kind in [None, Some("AVRO"), Some("PROTOBUF")] {
        let understood = |format: Format| format!("{:?}", WriterSchema::parse(kind, format.schema()).unwrap());
        assert!(understood(Format::Avro).starts_with("WriterSchema(Avro("), "{kind:?}");
        assert_eq!(understood(Format::Protobuf), "WriterSchema(Protobuf)", "{kind:?}");
    }
}

fn decode_as(payload: &[u8], content_type: Option<&str>) -> Result<Decoded, Undecoded> {
    Decoder::new(Registry).decode(payload, || content_type.map(str::as_bytes))
}

fn decode(payload: &[u8]) -> Result<Event, DecodeError> {
    match decode_as(payload, None) {
        Ok(decoded) => Ok(decoded.event),
        Err(Undecoded::Permanent(error)) => Err(error),
        Err(Undecoded::Transient { why, .. }) => panic!("{why}"),
    }
}

fn written(event: &Event, (format, schema_id): (Format, Option<u32>)) -> Vec<u8> {
    message(event, &to_json(event), format, schema_id).payload.into_owned()
}

proptest! {
    #[test]
    fn an_event_survives_the_way_in_every_format(event in events()) {
        for way in WAYS {
            let Decoded { event: read, raw } = decode_as(&written(&event, way), None).unwrap();
            prop_assert_eq!(&read, &event, "{:?}", way);
            prop_assert_eq!(raw.is_some(), matches!(event.body, Body::Unknown(_)), "{:?}", way);
        }
    }

    #[test]
    fn no_message_panics(
        first in prop::sample::select(vec![&b""[..], b"{", b"\0\0\0\0\x07", b"\0\x01\x02\x03\x04\0", b"\xc3\x01", b"\x08"]),
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        content_type in prop::sample::select(vec![None, Some("application/protobuf"), Some("application/json")]),
    ) {
        let _ = decode_as(&[first, &bytes].concat(), content_type);
        let single = [&avro::MARKER[..], &avro::FINGERPRINT.to_le_bytes(), &bytes].concat();
        let _ = decode_as(&single, content_type);
    }

    #[test]
    fn no_damaged_event_panics(
        event in events(),
        way in prop::sample::select(WAYS.to_vec()),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut payload = written(&event, way);
        let at = at.index(payload.len());
        payload[at] = byte;
        if cut {
            payload.truncate(at);
        }
        let _ = decode_as(&payload, None);
    }
}

proptest! {
    #[test]
    fn no_blow_panics_and_what_is_still_an_event_is_the_same_when_written_again(
        payload in damaged(events().prop_map(|event| to_json(&event)))
    ) {
        if let Ok(event) = decode(&payload) {
            let again = to_json(&event);
            prop_assert!(again.len() <= 6 * payload.len() + 1_000, "{} bytes became {}", payload.len(), again.len());
            if !matches!(event.body, Body::Unknown(_)) {
                prop_assert_eq!(decode(&again).unwrap(), event);
            }
        }
    }
}

#[test]
fn a_nest_without_end_is_refused() {
    for open in ["[", "{\"a\":", "{\"agent\":[", "{\"ranges\":[["] {
        assert!(decode(open.repeat(1 << 18).as_bytes()).is_err());
        let newer = RAISED.replace("\"schema\":1", &format!("\"schema\":9,\"mood\":{}", open.repeat(1 << 16)));
        assert!(decode(newer.as_bytes()).is_err());
    }
}

const RAISED: &str = include_str!("golden/breach_raised.json");
const SAMPLE: &str = include_str!("golden/sample.json");
const RATES: &str = include_str!("golden/rates.json");

#[test]
fn the_golden_events_are_read_and_written_as_they_stand_in_every_format() {
    let golden: [(_, [&[u8]; 2]); 3] = [
        (RAISED, [include_bytes!("golden/breach_raised.avro"), include_bytes!("golden/breach_raised.pb")]),
        (SAMPLE, [include_bytes!("golden/sample.avro"), include_bytes!("golden/sample.pb")]),
        (RATES, [include_bytes!("golden/rates.avro"), include_bytes!("golden/rates.pb")]),
    ];
    for (json, [avro, protobuf]) in golden {
        let json = json.trim().as_bytes();
        let event = decode(json).unwrap();
        for (way, bytes) in [(WAYS[0], json), (WAYS[1], avro), (WAYS[3], protobuf)] {
            assert_eq!(decode(bytes).unwrap(), event, "{way:?}");
            assert_eq!(written(&event, way), bytes, "{way:?}");
        }
    }
    assert_eq!(decode(RAISED.as_bytes()).unwrap().body.breach().unwrap().rate_bps, 83_886_080);
    let Body::Sample(sample) = decode(SAMPLE.as_bytes()).unwrap().body else { panic!("no sample") };
    assert_eq!((sample.rx_bytes, sample.tx_bps), (Some(137_000_000), Some(26_666)));
    let Body::Rates(window) = decode(RATES.as_bytes()).unwrap().body else { panic!("no rates") };
    let histogram = RateHistogram::decode(window.links[0].histogram.as_deref().unwrap()).unwrap();
    assert_eq!((histogram.seconds(), histogram.quantile_bps(0.5)), (300, window.links[0].p50_bps));
    assert_eq!((window.links[1].measured_s, &window.links[1].histogram), (0, &None));
}

#[test]
fn rates_that_no_table_takes_are_refused_by_their_field() {
    let golden = decode(RATES.as_bytes()).unwrap();
    let Body::Rates(rates) = &golden.body else { panic!("no rates") };
    let with = |change: &dyn Fn(&mut RateWindow)| {
        let mut window = rates.clone();
        change(&mut window);
        Event { body: Body::Rates(window), ..golden.clone() }
    };
    let many =
        |count: usize| (0..count).map(|at| LinkRates { interface: format!("e{at}").into(), ..rates.links[1].clone() });
    let limit = rates.links[0].over[0].clone();
    let lasts = |window: &mut RateWindow, ms: u64| {
        window.duration_ms = ms;
        window.started_at = golden.stamp.observed_at - TimeDelta::milliseconds(ms.cast_signed());
    };
    for (event, says) in [
        (
            with(&|window| window.duration_ms += 1),
            "field `duration_ms`: 300001 ms after 2026-11-21 02:00:00 UTC is not",
        ),
        (with(&|window| lasts(window, 0)), "field `duration_ms`: 0 is not one of 1 to 3600000"),
        (with(&|window| lasts(window, 3_600_001)), "field `duration_ms`: 3600001 is not one of 1 to 3600000"),
        (with(&|window| window.duration_ms = 1 << 62), "field `duration_ms`: 4611686018427387904 is not one of"),
        (
            with(&|window| {
                lasts(window, 0);
                window.links.clear();
            }),
            "field `duration_ms`: 0 is not one of 1 to 3600000",
        ),
        (with(&|window| window.links.push(rates.links[0].clone())), "field `links`: has eth0 rx twice"),
        (with(&|window| window.links = many(3_013).collect()), "field `links`: has 3013 items; at most 3012"),
        (with(&|window| window.links[0].interface = "a\0".into()), "field `interface`: holds a NUL"),
        (with(&|window| window.links[0].interface = "x".repeat(1_001).into()), "field `interface`: has 1001 bytes"),
        (
            with(&|window| window.links[0].over = vec![limit.clone(); 1_001]),
            "field `over`: has 1001 items; at most 1000",
        ),
        (with(&|window| window.links[0].over[0].limit_name = "a\0".into()), "field `limit_name`: holds a NUL"),
        (with(&|window| window.links[0].histogram = Some(vec![1; 9])), "field `histogram`: is no HdrHistogram V2"),
        (with(&|window| window.links[0].histogram = Some(vec![1; 65_537])), "field `histogram`: has 65537 bytes"),
    ] {
        for way in WAYS {
            let error = decode(&written(&event, way)).unwrap_err().to_string();
            assert!(error.contains(says), "{way:?}: {error}");
        }
    }
    for (from, to, says) in [
        (r#""bytes":"#, r#""bytes":-"#, "invalid value"),
        (r#""direction":"rx""#, r#""direction":"up""#, "field `direction`: `up` is none of rx, tx, total"),
        (r#""interface":"eth0","#, "", "field `interface`: is missing"),
        (r#""interface":"eth0","#, r#""interface":"eth0","interface":"eth1","#, "duplicate field `interface`"),
        (r#""histogram":""#, r#""histogram":"!"#, "Invalid symbol"),
    ] {
        let error = decode(RATES.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
    let newer = RATES.replace(r#""interface":"eth0","#, r#""mood":{"good":[1]},"interface":"eth0","#);
    assert_eq!(decode(newer.as_bytes()).unwrap(), golden);
    for taken in [
        with(&|window| window.links.clear()),
        with(&|window| lasts(window, 1)),
        with(&|window| lasts(window, 3_600_000)),
    ] {
        for way in WAYS {
            assert_eq!(decode(&written(&taken, way)).unwrap(), taken, "{way:?}");
        }
    }
}

#[test]
fn what_a_newer_agent_adds_is_passed_over() {
    let event = decode(RAISED.as_bytes()).unwrap();
    let json = RAISED.replace("\"schema\":1", "\"schema\":9,\"mood\":{\"good\":true}");
    // A field 99 of text, at the end.
    let protobuf = [&written(&event, WAYS[3])[..], b"\x9a\x06\x04good"].concat();
    for payload in [json.into_bytes(), protobuf, by_newer_schema("breach_raised")] {
        assert_eq!(decode(&payload).unwrap(), event);
    }
}

#[test]
fn a_kind_that_is_not_known_keeps_what_it_says() {
    let json = RAISED.replace("breach_raised", "quota_reached").replace("\"schema\"", "\"mood\":\"good\",\"schema\"");
    let mut event = decode(json.as_bytes()).unwrap();
    assert_eq!(event.body, Body::Unknown("quota_reached".into()));
    event.body = Body::Unknown("quota_reached".into());
    let protobuf = [&written(&event, WAYS[3])[..], b"\x9a\x06\x04good"].concat();
    let raw = |payload: &[u8]| decode_as(payload, None).unwrap().raw.unwrap();
    assert_eq!(raw(json.as_bytes()), json);
    let avro: serde_json::Value = serde_json::from_str(&raw(&by_newer_schema("quota_reached"))).unwrap();
    assert_eq!((&avro["mood"], &avro["rate_bps"]), (&"good".into(), &83_886_080.into()));
    assert_eq!(avro["observed_at"], "2026-11-21T02:03:04.567890Z");
    let rendered: serde_json::Value = serde_json::from_str(&raw(&protobuf)).unwrap();
    assert_eq!((&rendered["kind"], &rendered["agent"]), (&"quota_reached".into(), &"gw-042".into()));
    let kept = base64::prelude::BASE64_STANDARD.decode(rendered["protobuf"].as_str().unwrap()).unwrap();
    assert_eq!(kept, protobuf);
}

fn newer_schema() -> serde_json::Value {
    let mut schema: serde_json::Value = serde_json::from_str(Format::Avro.schema()).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.retain(|field| field["name"] != "speed_bps");
    let place = r#"{"type": "record", "name": "Place", "fields": [
        {"name": "rack", "type": "string"}, {"name": "above", "type": ["null", {"type": "array", "items": "double"}]}]}"#;
    for (at, name, of) in [
        (0, "mood", r#""string""#),
        (1, "place", place),
        (2, "old_place", r#"["null", "Place"]"#),
        (5, "tags", r#"{"type": "map", "values": ["null", "bytes"]}"#),
        (9, "colour", r#"{"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}"#),
        (9, "digest", r#"{"type": "fixed", "name": "Digest", "size": 4}"#),
        (20, "ratio", r#""float""#),
    ] {
        let of: serde_json::Value = serde_json::from_str(of).unwrap();
        fields.insert(at, serde_json::json!({"name": name, "type": of}));
    }
    schema
}

/// Encodes the golden event, or one like it of another kind, as a future agent does, with Avro's own library.
fn by_newer_schema(kind: &str) -> Vec<u8> {
    use apache_avro::types::Value as Avro;
    let schema = apache_avro::Schema::parse(&newer_schema()).unwrap();
    let golden: serde_json::Value = serde_json::from_str(RAISED).unwrap();
    let micros = |name: &str| {
        let time: DateTime<Utc> = golden[name].as_str().unwrap().parse().unwrap();
        Avro::TimestampMicros(time.timestamp_micros())
    };
    let place = |name: &str| {
        let above = Avro::Union(1, Box::new(Avro::Array(vec![Avro::Double(1.5), Avro::Double(-2.0)])));
        Avro::Record(vec![("rack".into(), Avro::String(name.into())), ("above".into(), above)])
    };
    let new = |name: &str| match name {
        "mood" => Some(Avro::String("good".into())),
        "place" => Some(place("r7")),
        "old_place" => Some(Avro::Union(1, Box::new(place("r6")))),
        "tags" => {
            let tag = Avro::Union(1, Box::new(Avro::Bytes(vec![1, 2])));
            Some(Avro::Map([("a".to_owned(), tag), ("b".to_owned(), Avro::Union(0, Box::new(Avro::Null)))].into()))
        }
        "colour" => Some(Avro::Enum(1, "BLUE".into())),
        "digest" => Some(Avro::Fixed(4, vec![1, 2, 3, 4])),
        "ratio" => Some(Avro::Float(0.5)),
        "kind" => Some(Avro::String(kind.into())),
        "schema" => Some(Avro::Int(1)),
        "observed_at" => Some(micros(name)),
        "started_at" | "raised_at" | "ended_at" => Some(Avro::Union(1, Box::new(micros(name)))),
        _ => None,
    };
    let newer = newer_schema();
    let fields = newer["fields"].as_array().unwrap().iter().map(|field| {
        let name = field["name"].as_str().unwrap().to_owned();
        let old = || {
            let value = match &golden[&name] {
                serde_json::Value::Null => Avro::Null,
                serde_json::Value::Bool(value) => Avro::Boolean(*value),
                serde_json::Value::Number(value) => Avro::Long(value.as_i64().unwrap()),
                value => Avro::String(value.as_str().unwrap().into()),
            };
            let is_union = field["type"].is_array();
            if is_union { Avro::Union(u32::from(value != Avro::Null), Box::new(value)) } else { value }
        };
        let value = new(&name).unwrap_or_else(old);
        (name, value)
    });
    let record = Avro::Record(fields.collect());
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap();
    let datum = writer.write_value_to_vec(record).unwrap();
    [&[0][..], &NEWER_ID.to_be_bytes(), &datum].concat()
}

#[test]
fn what_is_no_event_says_why() {
    for (from, to, says) in [
        ("\"seq\":17", "\"seq\":9223372036854775808", "over 2^63"),
        ("\"seq\":17", "\"seq\":281474976710657", "field `seq`: 281474976710657 is over 2^48"),
        ("\"seq\":17", "\"seq\":0", "from 1"),
        ("\"seq\":17", "\"seq\":-1", "invalid value"),
        ("\"seq\":17,", "", "field `seq`: is missing"),
        ("\"limit_name\":\"wan-down\",", "", "field `limit_name`: is missing"),
        ("\"measured_ms\":1000,", "", "field `measured_ms`: is missing"),
        ("\"started_at\":\"2026-11-21T02:03:03.567890Z\",", "", "field `started_at`: is missing"),
        ("\"ended_at\":\"2026-11-21T02:03:04.567890Z\",", "", "field `ended_at`: is missing"),
        ("5f0c3a1e9b7d2468", "5F0C3A1E9B7D2468", "hex digits"),
        ("\"agent\":\"gw-042\"", "\"agent\":\"\"", "field `agent`"),
        ("\"severity\":\"warning\"", "\"severity\":\"mild\"", "mild"),
    ] {
        let error = decode(RAISED.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
    assert!(matches!(decode(b""), Err(DecodeError::Empty)));
    let long = RAISED.replace("gw-042", &"x".repeat(256));
    assert!(decode(long.as_bytes()).unwrap_err().to_string().contains("256 bytes"));

    let event = decode(RAISED.as_bytes()).unwrap();
    let (single, framed) = (written(&event, WAYS[1]), written(&event, WAYS[2]));
    let (bare, protobuf) = (written(&event, WAYS[3]), written(&event, WAYS[4]));
    let strange = [&[0xc3, 1, 8, 7, 6, 5, 4, 3, 2, 1], &single[10..]].concat();
    let other_message = [&protobuf[..5], &[2, 2], &protobuf[6..]].concat();
    for (payload, says) in [
        (&b"\xff\xfe garbage"[..], "neither JSON nor Avro nor Protobuf: it begins with ff fe 20 67 61 72 62 61"),
        (&framed[..3], "truncated: the header of Confluent's wire format takes 5 bytes, and only 3 are left"),
        (&single[..9], "truncated: the header of an Avro object takes 10 bytes, and only 9 are left"),
        (&protobuf[..5], "for Protobuf takes 6 bytes, and only 5 are left"),
        (&strange, "fingerprint 0102030405060708, which version"),
        (&[0, 0, 0, 0, 99, 1], "needs schema 99, which the schema registry at test does not have"),
        (&other_message, "its message index is not 0"),
        (&single[..40], "not an event in Avro: ends "),
        (&[&single[..], b"more"].concat(), "not an event in Avro: 4 bytes more than the schema has"),
        (&bare[..40], "not an event in Protobuf: "),
        (b"\x08\x01", "field `kind`: is missing"),
    ] {
        let error = decode(payload).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let error = Decoder::new(NoRegistry).decode(&framed, || None).unwrap_err().to_string();
    assert!(
        error.contains("needs schema 7 from a schema registry, and none is configured; set kafka.registry.url"),
        "{error}"
    );
}

#[test]
fn what_no_database_stores_is_refused_by_its_field() {
    let golden = decode(RAISED.as_bytes()).unwrap();
    let stamped = |change: &dyn Fn(&mut Stamp)| {
        let mut event = golden.clone();
        change(&mut event.stamp);
        event
    };
    let breach = |change: &dyn Fn(&mut Breach)| {
        let mut breach = golden.body.breach().unwrap().clone();
        change(&mut breach);
        Event { body: Body::BreachRaised(breach), ..golden.clone() }
    };
    let body = |body| Event { body, ..golden.clone() };
    let nul = "a\0b";
    let link = Link { interface: nul.into(), ifindex: 1, speed_bps: None, reason: None, detail: None };
    let lifecycle = Lifecycle { version: nul.into(), reason: None, detail: None };
    let loss = |last| Loss { epoch: Epoch(1), ranges: vec![(1, last)], reason: Reason::Evicted, detail: None };
    let year = |year: &str| format!("{year}-01-01T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
    for (event, says) in [
        (stamped(&|stamp| stamp.agent = nul.into()), "field `agent`: holds a NUL character"),
        (stamped(&|stamp| stamp.boot_id = nul.into()), "field `boot_id`: holds a NUL"),
        (stamped(&|stamp| stamp.observed_at = year("0000")), "field `observed_at`: the year 0 is not one of 1 to 9999"),
        (breach(&|breach| breach.limit_name = nul.into()), "field `limit_name`: holds a NUL"),
        (
            breach(&|breach| breach.limit_name = "x".repeat(1_001).into()),
            "field `limit_name`: has 1001 bytes; at most 1000",
        ),
        (breach(&|breach| breach.breach_id = nul.into()), "field `breach_id`: holds a NUL"),
        (breach(&|breach| breach.interface = nul.into()), "field `interface`: holds a NUL"),
        (breach(&|breach| breach.detail = Some(nul.into())), "field `detail`: holds a NUL"),
        (breach(&|breach| breach.reason = Some(Reason::Other(nul.into()))), "field `reason`: holds a NUL"),
        (breach(&|breach| breach.ended_at = year("+10000")), "field `ended_at`: the year 10000"),
        (body(Body::LinkAdded(link)), "field `interface`: holds a NUL"),
        (body(Body::AgentStarted(lifecycle)), "field `version`: holds a NUL"),
        (body(Body::Loss(loss(SEQ_MAX + 1))), "field `ranges`: 281474976710657 is over 2^48"),
        (body(Body::Unknown(nul.into())), "field `kind`: holds a NUL"),
        (Event { id: EventId { seq: SEQ_MAX + 1, ..golden.id }, ..golden.clone() }, "field `seq`: 281474976710657"),
    ] {
        for way in WAYS {
            let error = decode(&written(&event, way)).unwrap_err().to_string();
            assert!(error.contains(says), "{way:?}: {error}");
        }
    }
    assert!(decode(&written(&body(Body::Loss(loss(SEQ_MAX))), WAYS[0])).is_ok());
}

#[test]
fn json_of_an_unknown_kind_is_what_a_database_takes() {
    let with = |field: &str| {
        RAISED.replace("breach_raised", "quota_reached").replace("{\"schema\"", &format!("{{{field},\"schema\""))
    };
    assert!(decode(with(r#""mood":["\\u0000",{"a":1e300}]"#).as_bytes()).is_ok(), "a backslash before it: no NUL");
    for (field, says) in [
        (r#""mood":"a\u0000""#, "field `mood`: holds a NUL"),
        (r#""mood":[1,{"deep":["\u0000"]}]"#, "field `mood`: holds a NUL"),
        (r#""mood":{"\u0000":1}"#, "field `mood`: holds a NUL"),
        (r#""mo\u0000od":1"#, "field `mo\\0od`: holds a NUL"),
        (r#""mood":"\ud800""#, "not an event in JSON"),
        (r#""mood":1e999"#, "not an event in JSON"),
    ] {
        let error = decode(with(field).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{field}: {error}");
    }
}

#[test]
fn a_leap_second_is_a_normal_instant_in_every_format() {
    let json = RAISED
        .replace("2026-11-21T02:03:04.567890Z", "2026-12-31T23:59:60.1234567Z")
        .replace("2026-11-21T02:03:03.567890Z", "2026-12-31T23:59:60Z");
    let event = decode(json.as_bytes()).unwrap();
    let breach = event.body.breach().unwrap();
    assert_eq!(event.stamp.observed_at.to_rfc3339(), "2027-01-01T00:00:00.123456+00:00");
    assert_eq!(breach.started_at.to_rfc3339(), "2027-01-01T00:00:00+00:00");
    assert_eq!(breach.ended_at, event.stamp.observed_at);
    for way in WAYS {
        assert_eq!(decode(&written(&event, way)).unwrap(), event, "{way:?}");
    }
}

#[test]
fn a_registry_that_is_away_decides_nothing() {
    let framed = [&[0][..], &AWAY_ID.to_be_bytes(), b"x"].concat();
    assert!(matches!(decode_as(&framed, None), Err(Undecoded::Transient { .. })));
}

/// Other producers may frame JSON, and need not write Protobuf's fields in order.
#[test]
fn what_other_producers_write_is_told_by_bytes_and_header() {
    let event = decode(RAISED.as_bytes()).unwrap();
    let framed = [&[0][..], &JSON_ID.to_be_bytes(), RAISED.as_bytes()].concat();
    assert_eq!(decode(&framed).unwrap(), event);
    let spaced = format!(" \n{RAISED}");
    assert_eq!(decode(spaced.as_bytes()).unwrap(), event);
    let bare = written(&event, WAYS[3]);
    // The first field, which is two bytes, comes last.
    let turned = [&bare[2..], &bare[..2]].concat();
    assert!(matches!(decode(&turned), Err(DecodeError::Unrecognised(_))));
    for content_type in ["application/protobuf", "application/x-protobuf; messageType=io.highwater.Event"] {
        assert_eq!(decode_as(&turned, Some(content_type)).unwrap().event, event);
    }
    // A header that is wrong does not mislead.
    assert_eq!(decode_as(&bare, Some("application/json")).unwrap().event, event);
    let list = [&protobuf_header([2, 0])[..], &bare].concat();
    assert_eq!(decode(&list).unwrap(), event);
}

fn protobuf_header(place: [u8; 2]) -> Vec<u8> {
    [&[0][..], &PROTOBUF_ID.to_be_bytes(), &place].concat()
}

#[test]
fn every_message_is_a_cloud_event() {
    let mut event = decode(RAISED.as_bytes()).unwrap();
    event.stamp.agent = "büro 1/a".into();
    let json = to_json(&event);
    for ((format, schema_id), content_type) in WAYS.into_iter().zip([
        "application/json",
        "application/avro",
        "application/vnd.confluent.avro",
        "application/protobuf",
        "application/vnd.confluent.protobuf",
    ]) {
        let message = message(&event, &json, format, schema_id);
        assert_eq!(&*message.key, "büro 1/a".as_bytes());
        let headers = message.common_headers().into_iter().chain(message.own_headers());
        let headers: Vec<_> = headers.map(|(name, value)| (name, std::str::from_utf8(value).unwrap())).collect();
        assert_eq!(
            headers,
            [
                ("ce_specversion", "1.0"),
                ("ce_type", "io.highwater.breach_raised.v1"),
                ("content-type", content_type),
                ("ce_id", "5f0c3a1e9b7d2468-17"),
                ("ce_source", "/highwater/b%C3%BCro%201%2Fa"),
                ("ce_time", "2026-11-21T02:03:04.567890Z"),
            ]
        );
    }
}

#[test]
fn the_schemas_agree() {
    let avro: serde_json::Value = serde_json::from_str(Format::Avro.schema()).unwrap();
    let avro: Vec<_> = avro["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    let protobuf: Vec<_> = protobuf::tests::fields("Event").into_iter().map(|field| field.name).collect();
    assert_eq!(avro, protobuf);
    // The JSON Schema's order is lost by parsing; the golden event fixes the order of what is written.
    let json: serde_json::Value = serde_json::from_str(Format::Json.schema()).unwrap();
    let json: BTreeSet<_> = json["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(json, avro.into_iter().collect());
}

#[test]
fn the_schemas_list_all_reasons() {
    let words: BTreeSet<&str> = REASON.doc.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let missing: Vec<_> = REASONS.iter().filter(|(word, _)| !words.contains(word)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
