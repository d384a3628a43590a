//! Checks patterns of interface names: up to 15 bytes, in an altname 127, of any characters but slashes and white space.

use crate::config::Invalid;

const NAME_BYTES_MAX: usize = 15;
const ALTERNATIVE_BYTES_MAX: usize = 127;

const OTHER_NOTATIONS: &[char] = &['[', ']', '{', '}', '(', ')', '|', '^', '$', ',', ';', '+', '!', '\\', '"', '\''];

const PATTERN: &str = "a pattern is a whole name, with `*` for any characters and `?` for one";

/// Returns a warning if `pattern` is probably a mistake; fails if no name can match it.
pub(super) fn check(key: &str, pattern: &str) -> Result<Option<Invalid>, Invalid> {
    let help = format!("{PATTERN}; {}", several(key));
    let never = |why: &str| Err(Invalid::new(key, format!("`{pattern}` matches no interface: {why}; {help}")));
    let bytes = pattern.bytes().filter(|byte| *byte != b'*').count();
    if pattern.is_empty() {
        return Err(Invalid::new(key, format!("is empty; {help}")));
    }
    if pattern.contains(char::is_whitespace) {
        return never("no name has a space");
    }
    if pattern.contains(['/', '\0']) {
        return never("no name has a slash or a NUL");
    }
    if bytes > ALTERNATIVE_BYTES_MAX {
        return never(&format!("a name has up to {NAME_BYTES_MAX} bytes, an alternative name {ALTERNATIVE_BYTES_MAX}"));
    }
    let doubt = if let Some((name, _)) = pattern.split_once('@').filter(|(_, peer)| names_peer(peer)) {
        format!("`{pattern}` is how ip(8) shows a link and its peer: the link's name is `{name}`; {help}")
    } else if pattern.contains(OTHER_NOTATIONS) {
        format!("`{pattern}` matches only what has these characters in its name; {help}")
    } else if bytes > NAME_BYTES_MAX {
        format!("`{pattern}` is longer than {NAME_BYTES_MAX} bytes, so only an alternative name can match it; {help}")
    } else {
        return Ok(None);
    };
    Ok(Some(Invalid::new(key, doubt)))
}

/// Returns true for a peer, as behind `@` in the output of ip(8): `if12`, or `NONE`.
pub(super) fn names_peer(text: &str) -> bool {
    let index = text.strip_prefix("if").filter(|index| !index.is_empty());
    text == "NONE" || index.is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
}

fn several(key: &str) -> &'static str {
    if key.starts_with("interfaces.") {
        "a list is written [\"eth0\", \"eth1\"]"
    } else {
        "for links that no pattern has in common write a [[limit]] each"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_match_is_taken() {
        for pattern in
            ["*", "eth*", "eth?", "eth0.100", "br-1a2b3c4d5e6f", "wlp3s0@x", "usb0_#2", "ünïx0", "*ovs*-very-long*"]
        {
            assert_eq!(check("limit.0.interface", pattern), Ok(None), "{pattern}");
        }
    }

    #[test]
    fn what_looks_like_another_notation_or_an_alternative_name_is_pointed_out() {
        for pattern in ["eth[0-9]", "eth0,eth1", "^eth", "eth(0|1)", "eth+", "!lo", "an-alternative-name"] {
            let doubt = check("interfaces.include.0", pattern).unwrap().expect(pattern);
            assert!(doubt.message.contains("`*` for any characters and `?` for one"), "{doubt:?}");
            assert!(doubt.message.ends_with("a list is written [\"eth0\", \"eth1\"]"), "{doubt:?}");
        }
    }

    #[test]
    fn a_peer_that_ip_shows_is_no_part_of_a_name() {
        for pattern in ["eth0@if12", "sit0@NONE", "veth*@if3"] {
            let doubt = check("limit.0.interface", pattern).unwrap().expect(pattern);
            let name = pattern.split('@').next().unwrap();
            assert!(doubt.message.contains(&format!("the link's name is `{name}`")), "{doubt:?}");
        }
        assert_eq!(check("limit.0.interface", "a@if"), Ok(None));
    }

    #[test]
    fn what_no_name_can_be_is_refused() {
        let long = "x".repeat(128);
        for pattern in ["", "eth0 eth1", " eth0", "eth0\t", "/dev/eth0", "a\0", &long] {
            let error = check("limit.0.interface", pattern).expect_err(pattern);
            assert!(error.message.contains("`*` for any characters and `?` for one"), "{error:?}");
        }
    }
}
