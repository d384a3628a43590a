use toml::de::{DeTable, DeValue};

/// `Days` are so many (`"400d"`) that a bare number can only mean days; `Level` is `"80 Mbit/s"` or a share of the link's speed;
/// `Joined` is a list in one text, `"kafka-1:9092,kafka-2:9092"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Duration,
    Days,
    Size,
    Level,
    Joined,
    Pattern,
    Text,
}

const FORMS: &[(&str, Form)] = &[
    ("interval", Form::Duration),
    ("resume_within", Form::Duration),
    ("limit.interface", Form::Pattern),
    ("limit.for", Form::Duration),
    ("limit.clear_for", Form::Duration),
    ("limit.update_every", Form::Duration),
    ("limit.raise_at", Form::Level),
    ("limit.clear_at", Form::Level),
    ("link.speed", Form::Level),
    ("link.rx_speed", Form::Level),
    ("link.tx_speed", Form::Level),
    ("flush.interval", Form::Duration),
    ("flush.linger", Form::Duration),
    ("rates.window", Form::Duration),
    ("rates.max_delay", Form::Duration),
    ("heartbeat.interval", Form::Duration),
    ("journal.max_size", Form::Size),
    ("journal.max_age", Form::Days),
    ("kafka.brokers", Form::Joined),
    ("kafka.registry.give_up", Form::Duration),
    ("topics.retention", Form::Days),
    ("retention.events", Form::Days),
    ("retention.dead_letters", Form::Days),
    ("retention.totals", Form::Days),
    ("retention.rates", Form::Days),
    ("retention.histograms", Form::Days),
    ("agents.silent_after", Form::Duration),
    ("histograms.interval", Form::Duration),
];

const REPEATED: &[&str] = &["limit", "link"];

impl Form {
    fn of(key: &str) -> Self {
        FORMS.iter().find(|(known, _)| *known == key).map_or(Self::Text, |(_, form)| *form)
    }

    fn instead_of(self, value: &DeValue<'_>) -> String {
        match (self, value) {
            (Self::Duration, DeValue::Integer(number)) if !number.as_str().starts_with('-') => {
                format!("write it as \"{number}s\"")
            }
            (Self::Days, DeValue::Integer(number)) if !number.as_str().starts_with('-') => {
                format!("write it as \"{number}d\"")
            }
            (Self::Days, _) => "write it as \"30d\"".to_owned(),
            (Self::Duration, _) => "write it as \"5s\" or \"2m\"".to_owned(),
            (Self::Size, _) => "write it with its unit, as in \"16MiB\"".to_owned(),
            (Self::Level, _) => "write it with its unit, as in \"80 Mbit/s\" or \"80%\"".to_owned(),
            (Self::Joined, DeValue::Array(items)) if items.iter().all(|item| item.get_ref().as_str().is_some()) => {
                let items: Vec<_> = items.iter().filter_map(|item| item.get_ref().as_str()).collect();
                format!("write it as one text, with commas: \"{}\"", items.join(","))
            }
            (Self::Pattern, DeValue::Array(_)) => {
                "takes one pattern, with `*` for any characters and `?` for one; for links that no pattern has in common \
                 write a [[limit]] each"
                    .to_owned()
            }
            (_, DeValue::Integer(number)) => format!("write it in quotes: \"{number}\""),
            (_, DeValue::Float(number)) => format!("write it in quotes: \"{number}\""),
            (_, DeValue::Boolean(truth)) => format!("write it in quotes: \"{truth}\""),
            (_, DeValue::Array(_)) => "takes one text, in quotes, and no list".to_owned(),
            _ => "takes a text, in quotes".to_owned(),
        }
    }
}

/// Returns the key path of the value at `offset`, and how to write it if its type is wrong, otherwise `message`.
pub(super) fn explained(text: &str, offset: usize, message: &str) -> Option<(String, String)> {
    let table = DeTable::parse(text).ok()?;
    let (key, value) = value_at(table.get_ref(), offset)?;
    let shown = super::shown(&key);
    let right = right_form(&shown, value, message).unwrap_or_else(|| message.to_owned());
    Some((key, right))
}

fn right_form(key: &str, value: &DeValue<'_>, message: &str) -> Option<String> {
    let expected = message.strip_prefix("invalid type: ")?.split_once(", expected ")?.1;
    if expected.contains("string") {
        return Some(Form::of(key).instead_of(value));
    }
    if expected.contains("sequence") && REPEATED.contains(&key) {
        return Some(format!("write [[{key}]], with two brackets: there may be several"));
    }
    let is_table = expected.starts_with("struct") || expected.contains("map");
    is_table.then(|| table_form(key))
}

pub(super) fn table_form(key: &str) -> String {
    format!("is a table: write [{key}] in a line of its own, and its keys below")
}

/// Finds the first table of `keys` that is written as a list: serde would assign its values to the keys by position.
pub(super) fn listed_table(text: &str, keys: &[&str]) -> Option<(usize, String)> {
    let table = DeTable::parse(text).ok()?;
    keys.iter().find_map(|key| {
        let mut parts = key.split('.').peekable();
        let (mut table, mut path) = (table.get_ref(), String::new());
        while let Some(part) = parts.next() {
            parts.peek()?;
            path = if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
            let value = table.get(part)?;
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                DeValue::Array(_) => return Some((value.span().start, path)),
                _ => return None,
            }
        }
        None
    })
}

pub(super) fn unquoted(text: &str, offset: usize) -> Option<String> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    let (key, value) = text[start..].lines().next()?.split_once('=')?;
    let (key, value) = (key.trim(), value.split('#').next().unwrap_or_default().trim());
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let is_bare = value.starts_with(|c: char| c.is_alphanumeric()) && !value.contains(['"', '\'']);
    // Not shown: a URL's password may be in it.
    (is_key && is_bare).then(|| format!("{key}: write its value in quotes: {key} = \"…\""))
}

fn value_at<'a, 'text>(table: &'a DeTable<'text>, offset: usize) -> Option<(String, &'a DeValue<'text>)> {
    table.iter().find_map(|(key, value)| {
        let key = key.get_ref().as_ref();
        // The span of a table covers only its header; its values follow.
        let inner = match value.get_ref() {
            DeValue::Table(table) => value_at(table, offset),
            DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| match item.get_ref() {
                DeValue::Table(table) => {
                    value_at(table, offset).map(|(inner, value)| (format!("{index}.{inner}"), value))
                }
                other => item.span().contains(&offset).then(|| (index.to_string(), other)),
            }),
            _ => None,
        };
        match inner {
            Some((inner, value)) => Some((format!("{key}.{inner}"), value)),
            None => value.span().contains(&offset).then(|| (key.to_owned(), value.get_ref())),
        }
    })
}
