//! Damage to valid input, aimed at what the input consists of, for the tests of all that parses. proptest prints the seed and the
//! smallest input of a failure; both are kept in `proptest-regressions` beside the sources.

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
enum Corruption {
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

fn corruption() -> impl Strategy<Value = Corruption> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Corruption::Flip(at, 1 << bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Corruption::Put(at, byte)),
        2 => (at(), at()).prop_map(|(from, to)| Corruption::Cut(from, to)),
        2 => (at(), at(), 1..40_usize).prop_map(|(from, to, times)| Corruption::Repeat(from, to, times)),
        2 => (at(), at(), at()).prop_map(|(from, to, at)| Corruption::Move(from, to, at)),
        3 => (at(), 0..TOKENS.len()).prop_map(|(at, token)| Corruption::Token(at, token)),
        3 => (at(), 0..12_usize).prop_map(|(at, token)| Corruption::Number(at, token)),
        1 => (at(), 0..3_usize, select(vec![10, 127, 128, 1_000, 20_000])).prop_map(|(at, kind, deep)| Corruption::Nest(at, kind, deep)),
        1 => at().prop_map(Corruption::End),
    ]
}

fn corrupt(bytes: &mut Vec<u8>, corruption: Corruption) {
    if bytes.is_empty() {
        return bytes.extend_from_slice(b"x");
    }
    let length = bytes.len();
    let range = |from: Index, to: Index| {
        let (from, to) = (from.index(length), to.index(length));
        from.min(to)..from.max(to)
    };
    match corruption {
        Corruption::Flip(at, bit) => bytes[at.index(length)] ^= bit,
        Corruption::Put(at, byte) => bytes[at.index(length)] = byte,
        Corruption::Cut(from, to) => drop(bytes.drain(range(from, to))),
        Corruption::Repeat(from, to, times) => {
            let range = range(from, to);
            let piece = bytes[range.clone()].repeat(times);
            bytes.splice(range.end..range.end, piece);
        }
        Corruption::Move(from, to, at) => {
            let piece: Vec<u8> = bytes.drain(range(from, to)).collect();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, piece);
        }
        Corruption::Token(at, token) => {
            let at = at.index(length);
            bytes.splice(at..at, TOKENS[token].iter().copied());
        }
        Corruption::Number(at, token) => {
            let digit = |byte: &u8| byte.is_ascii_digit();
            let start = at.index(length);
            let Some(from) = bytes[start..].iter().position(digit).map(|from| start + from) else { return };
            let to = bytes[from..].iter().position(|byte| !digit(byte)).map_or(length, |to| from + to);
            bytes.splice(from..to, TOKENS[token].iter().copied());
        }
        Corruption::Nest(at, kind, deep) => {
            let at = at.index(length);
            bytes.splice(at..at, [&b"["[..], b"{\"a\":", b"{a="][kind].repeat(deep));
        }
        Corruption::End(at) => bytes.truncate(at.index(length)),
    }
    bytes.truncate(1 << 20);
}

pub(crate) fn damaged(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (valid, vec(corruption(), 1..=6)).prop_map(|(mut bytes, corruptions)| {
        corruptions.into_iter().for_each(|corruption| corrupt(&mut bytes, corruption));
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
