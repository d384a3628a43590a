//! What others wrote, told again: no longer than anybody reads, and harmless to a terminal.

use std::borrow::Cow;

/// `text` in one line, and without what a terminal would obey: messages may come from anybody.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// So many characters of `text`, and a sign where there is more.
pub fn beginning(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_that_there_is_more() {
        assert_eq!(beginning("short", 5), "short");
        assert_eq!(beginning(&"é".repeat(99), 40), format!("{}…", "é".repeat(40)));
    }
}
