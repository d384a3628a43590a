//! For tests of several modules: the shipped examples with all their keys, and damage that aims at what valid input consists of.
//!
//! proptest prints the seed of a failure and the smallest failing input; both are kept in `proptest-regressions` beside the
//! sources.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Tokens that parsers stumble over: limits of numbers, nesting, escapes, ends of text.
const TOKENS: &[&[u8]] = &[
    b"-1",
    b"0",
    b"4294967296",
    b"9223372036854775808",
    b"18446744073709551616",
    b"99999999999999999999999999999999999999999999",
    b"1e999",
    b"-1e-999",
    b"NaN",
    b"inf",
    b"0x7f",
    b"1_0",
    b"null",
    b"\"",
    b"'''",
    b"\"\"\"",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\r\n",
    b"\n",
    b"#",
    b"%",
    b"%00",
    b"%zz",
    b",",
    b"=",
    b"@",
    b"://",
    b"[[",
    b"]]",
    b"{}",
    b"+262142-12-31T23:59:59Z",
    b"0000-00-00T00:00:00Z",
    b"584942417355y",
    b"18446744073709551615s",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
];

#[derive(Clone, Debug)]
enum Blow {
    Flip(Index, u8),
    Put(Index, u8),
    Cut(Index, Index),
    Repeat(Index, Index, usize),
    Move(Index, Index, Index),
    Token(Index, usize),
    /// Replaces a number.
    Number(Index, usize),
    Nest(Index, usize, usize),
    End(Index),
}

fn blow() -> impl Strategy<Value = Blow> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Blow::Flip(at, 1 << bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Blow::Put(at, byte)),
        2 => (at(), at()).prop_map(|(from, to)| Blow::Cut(from, to)),
        2 => (at(), at(), 1..40_usize).prop_map(|(from, to, times)| Blow::Repeat(from, to, times)),
        2 => (at(), at(), at()).prop_map(|(from, to, at)| Blow::Move(from, to, at)),
        3 => (at(), 0..TOKENS.len()).prop_map(|(at, token)| Blow::Token(at, token)),
        3 => (at(), 0..12_usize).prop_map(|(at, token)| Blow::Number(at, token)),
        1 => (at(), 0..3_usize, select(vec![10, 127, 128, 1_000, 20_000])).prop_map(|(at, kind, deep)| Blow::Nest(at, kind, deep)),
        1 => at().prop_map(Blow::End),
    ]
}

fn strike(bytes: &mut Vec<u8>, blow: Blow) {
    if bytes.is_empty() {
        return bytes.extend_from_slice(b"x");
    }
    let length = bytes.len();
    let range = |from: Index, to: Index| {
        let (from, to) = (from.index(length), to.index(length));
        from.min(to)..from.max(to)
    };
    match blow {
        Blow::Flip(at, bit) => bytes[at.index(length)] ^= bit,
        Blow::Put(at, byte) => bytes[at.index(length)] = byte,
        Blow::Cut(from, to) => drop(bytes.drain(range(from, to))),
        Blow::Repeat(from, to, times) => {
            let range = range(from, to);
            let piece = bytes[range.clone()].repeat(times);
            bytes.splice(range.end..range.end, piece);
        }
        Blow::Move(from, to, at) => {
            let piece: Vec<u8> = bytes.drain(range(from, to)).collect();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, piece);
        }
        Blow::Token(at, token) => {
            let at = at.index(length);
            bytes.splice(at..at, TOKENS[token].iter().copied());
        }
        Blow::Number(at, token) => {
            let digit = |byte: &u8| byte.is_ascii_digit();
            let start = at.index(length);
            let Some(from) = bytes[start..].iter().position(digit).map(|from| start + from) else { return };
            let to = bytes[from..].iter().position(|byte| !digit(byte)).map_or(length, |to| from + to);
            bytes.splice(from..to, TOKENS[token].iter().copied());
        }
        Blow::Nest(at, kind, deep) => {
            let at = at.index(length);
            bytes.splice(at..at, [&b"["[..], b"{\"a\":", b"{a="][kind].repeat(deep));
        }
        Blow::End(at) => bytes.truncate(at.index(length)),
    }
    bytes.truncate(1 << 20);
}

pub(crate) fn damaged(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (valid, vec(blow(), 1..=6)).prop_map(|(mut bytes, blows)| {
        blows.into_iter().for_each(|blow| strike(&mut bytes, blow));
        bytes
    })
}

/// Generates damaged text, with invalid UTF-8 replaced.
pub(crate) fn damaged_text(valid: &'static str) -> impl Strategy<Value = String> {
    damaged(Just(valid.as_bytes().to_vec())).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn hostile_value() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..TOKENS.len()).prop_map(|token| String::from_utf8_lossy(TOKENS[token]).into_owned()),
        ".{0,20}",
        "[0-9]{1,25}(s|m|h|d|y|%| Mbit/s|MiB|TiB)?",
        select(vec![0, 1 << 10, 1 << 18]).prop_map(|length| "a,".repeat(length)),
    ]
}

/// Enables every key of a shipped example that is commented out, except those that name files, which do not exist.
pub(crate) fn all_switched_on(shipped: &str) -> String {
    let is_key = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_key(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    shipped.lines().map(line).filter(|line| !line.contains("_file =")).collect::<Vec<_>>().join("\n")
}

/// Returns the values of a table and the tables below it, by their key paths.
fn leaves(prefix: &str, table: &toml::Table) -> Vec<(String, String)> {
    let each = table.iter().flat_map(|(key, value)| {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => leaves(&path, inner),
            other => vec![(path, other.to_string())],
        }
    });
    each.collect()
}

/// Asserts that a bare number where a key takes a time is answered with how to write it.
pub(crate) fn assert_times_are_explained(defaults: &str, error: impl Fn(&str) -> String) {
    let is_time = |value: &str| humantime::parse_duration(value.trim_matches('"')).is_ok();
    for (key, value) in leaves("", &defaults.parse().unwrap()).into_iter().filter(|(_, value)| is_time(value)) {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let table = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        let unit = if value.ends_with("d\"") { 'd' } else { 's' };
        let error = error(&format!("{table}{name} = 5"));
        assert!(error.ends_with(&format!("{name}: write it as \"5{unit}\"")), "{key} = 5: {error}");
    }
}

/// Asserts that a program's defaults, its shipped file and the documentation say the same.
pub(crate) fn assert_documented(defaults: &str, shipped: &str) {
    let shipped = leaves("", &all_switched_on(shipped).parse().unwrap());
    let docs = include_str!("../docs/configuration.md");
    for (key, value) in leaves("", &defaults.parse().unwrap()) {
        let shown = shipped.iter().find(|(shown, _)| *shown == key);
        assert_eq!(shown.map(|(_, value)| value), Some(&value), "{key} in the shipped file");
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let bare = value.trim_matches('"');
        let is_row = |line: &str| {
            let mut cells = line.split(" | ");
            let (first, second) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            let has = |cell: &str, what: &str| cell.contains(&format!("`{what}`"));
            has(first, name) && (has(second, bare) || second == bare || bare.is_empty())
        };
        assert!(docs.lines().any(is_row), "docs/configuration.md has no row with [{table}] {name} = {value}");
    }
}
