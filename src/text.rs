//! Text of foreign origin, cut short and made harmless for a terminal.

use std::borrow::Cow;

/// Escapes control characters, and those that turn a text around or hide in it.
pub fn escape_control(text: &str) -> Cow<'_, str> {
    if !text.chars().any(misleads) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if misleads(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Cuts a text after so many characters, and shows by `…` that there was more.
pub fn truncate(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_a_text_around_or_hides_in_it_is_shown() {
        assert_eq!(escape_control("gw-\u{202e}lmth.exe"), "gw-\\u{202e}lmth.exe");
        assert_eq!(
            escape_control("e\u{200b}th0\u{feff}\u{2066}\u{e0041}"),
            "e\\u{200b}th0\\u{feff}\\u{2066}\\u{e0041}"
        );
        assert_eq!(escape_control("a\n\u{1b}[31m"), "a\\n\\u{1b}[31m");
        assert!(matches!(escape_control("Zürich 東京 é → 80 %"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_that_there_is_more() {
        assert_eq!(truncate("short", 5), "short");
        assert_eq!(truncate(&"é".repeat(99), 40), format!("{}…", "é".repeat(40)));
    }
}
