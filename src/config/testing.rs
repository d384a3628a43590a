//! Tests that the configuration of both programs has to pass.

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
    let docs = include_str!("../../docs/configuration.md");
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
