//! Messages that are no events, and events that no database takes: each becomes one dead letter, and the events around it rows.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;
use highwater::wire;

use crate::support::events::{produce_raw, updated};
use crate::support::pipeline::Pipeline;
use crate::support::rounds::{Fault, Outcome, rounds};
use crate::support::services::kafka_and_postgres;

/// Poison messages in a round.
const MESSAGES: usize = 1_000;
/// Poison messages in a round that are sent one by one, each to an idle topic.
const ALONE: usize = 5;

/// `None` is a tombstone.
type Payload = Option<Vec<u8>>;

/// Makes an event that would be a row, but for one thing.
fn malformed_message(from: &str, to: &str) -> Vec<u8> {
    let good = String::from_utf8(wire::to_json(&updated("poisoner", 1))).expect("JSON is text");
    assert!(good.contains(from), "{good}");
    good.replace(from, to).into_bytes()
}

fn dose(rng: &mut Rng) -> Payload {
    let observed = "2026-11-20T12:00:01.000000Z";
    let text = |from: &str, to: &str| Some(malformed_message(from, to));
    match rng.u8(..26) {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(b" \n".to_vec()),
        3 => Some(b"\xff\xfe\x00\x01".to_vec()),
        4 => Some((0..rng.usize(1..200)).map(|_| rng.u8(0x80..)).collect()),
        5 => text("wan-down", "a\\u0000b"),
        6 => text("poisoner", "poi\\u0000soner"),
        7 => text("\"limit_bps\":80000000", "\"limit_bps\":18446744073709551615"),
        8 => text("\"seq\":1,", "\"seq\":9223372036854775808,"),
        9 => text("\"seq\":1,", "\"seq\":-1,"),
        10 => text("\"epoch\":\"0", "\"epoch\":\"X"),
        11 => text("poisoner", &"x".repeat(256)),
        12 => text("poisoner", ""),
        13 => text("wan-down", "\\ud800"),
        14 => {
            let mut bytes = malformed_message("wan-down", "wan?down");
            let at = bytes.iter().position(|byte| *byte == b'?').expect("it is there");
            bytes[at] = 0xff;
            Some(bytes)
        }
        15 => Some(b"{\"order\":17,\"customer\":\"somebody else's topic\"}".to_vec()),
        16 => Some(b"\x00\x00\x00\x00\x07framed by a registry that nobody knows".to_vec()),
        17 => Some(b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08by an unknown fingerprint".to_vec()),
        18 => Some([b"\x08\x96\x01\x12\x07".as_slice(), b"testing"].concat()),
        19 => text(observed, ["0000-01-01T00:00:00Z", "+10000-01-01T00:00:00Z"][rng.usize(..2)]),
        20 => text(observed, ["+262000-01-01T00:00:00Z", "yesterday", "2026-02-30T00:00:00Z"][rng.usize(..3)]),
        21 => Some([b"{\"agent\":".as_slice(), &b"[".repeat(rng.usize(128..20_000))].concat()),
        22 => text("\"6e4f5a0e\"", &format!("{}{}", "[".repeat(20_000), "]".repeat(20_000))),
        23 => text("\"raised_at\":\"2026", "\"raised_at\":\"+12026"),
        // Too long for an index, and not to be compressed.
        24 => text("\"b1\"", &format!("\"{}\"", (0..20_000).map(|_| rng.alphanumeric()).collect::<String>())),
        // Mostly small: a gigabyte would test nothing more.
        _ if rng.u8(..16) > 0 => Some(malformed_message("}", "")),
        _ if rng.bool() => Some(vec![b'x'; 990_000]),
        _ => text("poisoner", &"x".repeat(950_000)),
    }
}

#[test]
fn poison() {
    let test = "faults::poison::poison";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let fault = Fault { name: "poison", short: 1, long: 50, fresh_every: 5 };
    let make = || (Pipeline::new(fault.name, &kafka, &postgres).named(), 0);
    rounds(&fault, make, |(pipeline, sent), rng| {
        let doses: BTreeMap<String, Payload> =
            (*sent..*sent + MESSAGES).map(|number| (format!("poison-{number:06}"), dose(rng))).collect();
        *sent += MESSAGES;
        let running = pipeline.start_consumer();
        let (alone, mixed): (Vec<_>, Vec<_>) = doses
            .iter()
            .map(|(key, payload)| (key.clone(), payload.clone()))
            .partition(|_| rng.usize(..MESSAGES) < ALONE);
        for (count, dose) in (*sent - MESSAGES + 1..).zip(&alone) {
            produce_raw(pipeline.brokers(), &pipeline.topic, [dose.clone()], None);
            pipeline.database.until("SELECT count(*) FROM dead_letters", &format!("({count})"));
        }
        let mut messages = mixed;
        for event in pipeline.events(4, rng.u64(200..800)) {
            let json = String::from_utf8(wire::to_json(&event)).expect("JSON is text");
            // Large, but valid.
            let boot_id = format!("\"boot_id\":\"{}", "long".repeat(225_000));
            let long = if rng.u16(..2_000) == 0 { json.replace("\"boot_id\":\"", &boot_id) } else { json };
            messages.push((event.stamp.agent.to_string(), Some(long.into_bytes())));
        }
        shuffle(rng, &mut messages);
        produce_raw(pipeline.brokers(), &pipeline.topic, messages, None);
        sleep(Duration::from_millis(rng.u64(0..1_000)));
        running.kill();
        let again = pipeline.start_consumer();
        let outcome = pipeline.wait_and_compare();
        let end = kafka.end_offset(&pipeline.topic);
        pipeline.database.until("SELECT next_offset FROM kafka_offsets", &format!("({end})"));
        let outcome = outcome.and(pipeline.wait_and_compare());
        drop(again);
        judge(pipeline, *sent, &doses, outcome)
    });
}

/// Mixes, and leaves each agent's events in their order.
fn shuffle(rng: &mut Rng, messages: &mut Vec<(String, Payload)>) {
    let mut events: Vec<_> = messages.extract_if(.., |(key, _)| key.starts_with("gw-")).collect();
    events.reverse();
    let mut mixed = Vec::new();
    let mut poison = std::mem::take(messages).into_iter().peekable();
    while !events.is_empty() || poison.peek().is_some() {
        let from = if poison.peek().is_none() || rng.bool() { events.pop() } else { poison.next() };
        mixed.extend(from.or_else(|| poison.next()));
    }
    *messages = mixed;
}

/// Judges events and poison: poison that is no dead letter is lost, one that is two is doubled, any other dead letter is invented.
fn judge(pipeline: &Pipeline, sent: usize, doses: &BTreeMap<String, Payload>, outcome: Outcome) -> Outcome {
    let mut letters: BTreeMap<String, Vec<Payload>> = BTreeMap::new();
    for row in
        pipeline.database.client().query("SELECT key, payload FROM dead_letters", &[]).expect("PostgreSQL answers")
    {
        let key = String::from_utf8_lossy(row.get(0)).into_owned();
        letters.entry(key).or_default().push(row.get(1));
    }
    let count = |bad: &dyn Fn(&str, &[Payload]) -> bool| {
        letters.iter().filter(|(key, payloads)| bad(key, payloads)).inspect(|(key, _)| eprintln!("{key}")).count()
            as u64
    };
    let doubled = count(&|_, payloads| payloads.len() > 1);
    let invented = count(&|key, payloads| doses.get(key).is_some_and(|dose| payloads[0] != *dose))
        + count(&|key, _| !key.starts_with("poison-"));
    let missing = sent.saturating_sub(letters.len()) as u64;
    for (key, payload) in doses.iter().filter(|(key, _)| !letters.contains_key(*key)) {
        let start = payload.as_deref().unwrap_or_default();
        eprintln!("no dead letter: {key} {}", String::from_utf8_lossy(&start[..start.len().min(800)]));
    }
    Outcome {
        events: outcome.events + doses.len() as u64,
        lost: outcome.lost + missing,
        doubled: outcome.doubled + doubled,
        invented: outcome.invented + invented,
        declared: outcome.declared + doses.len() as u64 - missing,
        ..outcome
    }
}
