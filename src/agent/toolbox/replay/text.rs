use crate::text::{escape_control, truncate};

const SHOWN_CHARS_MAX: usize = 200;

pub(super) fn shown(text: &str) -> String {
    escape_control(&truncate(text, SHOWN_CHARS_MAX)).into_owned()
}

pub(super) const STANDARD_INPUT: &str = "standard input";

pub(super) fn as_argument(file: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | '@');
    match file {
        STANDARD_INPUT => "FILE".to_owned(),
        file if file.chars().all(plain) => file.to_owned(),
        file => format!("'{}'", file.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_messages_can_be_copied() {
        assert_eq!(as_argument("data/a-1.csv"), "data/a-1.csv");
        assert_eq!(as_argument("my 'own'.csv"), r"'my '\''own'\''.csv'");
        assert_eq!(as_argument(STANDARD_INPUT), "FILE");
    }
}
