//! Tests of the source: imports, clocks, drivers, length of files.

use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("src can be read") {
            let path: PathBuf = entry.expect("its entries too").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("it is below src").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("source is text")));
            }
        }
    }
    assert!(found.len() > 20, "{} files", found.len());
    found
}

fn shipped(text: &str) -> &str {
    let tests = ["#[cfg(test)]", "#[cfg(all(test,"];
    let end = tests.iter().filter_map(|begin| text.find(begin)).min();
    &text[..end.unwrap_or(text.len())]
}

fn code(text: &str) -> String {
    shipped(text).lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs")
}

/// Returns the files whose code contains `word`, but for those whose name begins with one of `allowed`.
fn strays(word: &str, allowed: &[&str]) -> Vec<String> {
    let mut strays: Vec<String> = sources()
        .into_iter()
        .filter(|(name, text)| !is_test(name) && code(text).contains(word))
        .map(|(name, _)| name)
        .filter(|name| !allowed.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    strays.sort();
    strays
}

#[test]
fn agent_and_consumer_never_import_each_other() {
    for (name, text) in sources() {
        let code = code(&text);
        assert!(!(name.starts_with("agent/") && code.contains("crate::consumer")), "{name}");
        assert!(!(name.starts_with("consumer/") && code.contains("crate::agent")), "{name}");
        let shared = !name.starts_with("agent/") && !name.starts_with("consumer/") && !name.starts_with("bin/");
        assert!(!(shared && (code.contains("crate::agent") || code.contains("crate::consumer"))), "{name}");
    }
}

/// A module may not import those after it.
#[test]
fn imports_follow_the_data() {
    let order = [
        "exit",
        "failpoints",
        "logging",
        "units",
        "output",
        "clock",
        "service",
        "watchdog",
        "config",
        "event",
        "wire",
        "registry",
        "kafka",
    ];
    for (at, module) in order.iter().enumerate() {
        for (name, text) in sources() {
            if name == format!("{module}.rs") || name.starts_with(&format!("{module}/")) {
                for later in &order[at + 1..] {
                    assert!(!code(&text).contains(&format!("crate::{later}")), "{name} imports {later}");
                }
            }
        }
    }
}

/// The agent's stages do not know each other: the loop wires them, and so does the detector, which consists of the pure ones.
#[test]
fn stages_do_not_import_their_siblings() {
    let stages = ["counters", "rate", "limit", "watch", "journal", "log_observer", "publisher", "control"];
    let known: &[(&str, &str)] = &[
        ("limit", "rate"),        // a rate is bytes over time, worked out in one place
        ("limit", "counters"),    // a percentage is one of the link's speed
        ("rate", "counters"),     // a link's speed says what its counters can have counted
        ("counters", "watch"),    // filter first: what nobody watches costs nothing
        ("watch", "counters"),    // a link is described where it is read
        ("publisher", "journal"), // it empties it
        ("publisher", "control"), // its thread wakes the loop
    ];
    for (name, text) in sources() {
        let Some(rest) = name.strip_prefix("agent/") else { continue };
        if is_test(&name) {
            continue;
        }
        let stage = rest.split(['/', '.']).next().unwrap_or_default();
        if !stages.contains(&stage) {
            continue;
        }
        for other in stages.iter().filter(|other| **other != stage) {
            let imports = code(&text).contains(&format!("agent::{other}::"));
            assert!(!imports || known.contains(&(stage, other)), "{name} imports {other}");
        }
    }
}

#[test]
fn drivers_stay_in_their_files() {
    assert_eq!(strays("rdkafka", &["kafka.rs", "kafka/", "agent/publisher/", "consumer/source"]), [""; 0]);
    assert_eq!(strays("rusqlite", &["agent/journal/", "consumer/store/"]), [""; 0]);
    assert_eq!(strays("postgres::", &["consumer/store/"]), [""; 0]);
    assert_eq!(strays("ureq", &["registry.rs"]), [""; 0]);
    assert_eq!(strays("rustix::net", &["agent/counters/netlink/"]), [""; 0]);
}

#[test]
fn time_is_asked_in_one_file() {
    for word in ["Instant::now", "SystemTime::now", "Local::now", "clock_gettime"] {
        assert_eq!(strays(word, &["clock.rs"]), [""; 0], "{word}");
    }
    // The log's own time is for its readers.
    assert_eq!(strays("Utc::now", &["clock.rs", "logging.rs"]), [""; 0]);
}

#[test]
fn pure_files_touch_nothing() {
    let pure = [
        "agent/rate.rs",
        "agent/limit.rs",
        "agent/detector.rs",
        "agent/resume.rs",
        "agent/age.rs",
        "agent/watch.rs",
        "units.rs",
        "event.rs",
    ];
    for (name, text) in sources().iter().filter(|(name, _)| pure.contains(&name.as_str())) {
        for word in ["std::fs", "std::net", "std::io", "std::thread", "std::env", "log::", "Clock"] {
            assert!(!code(text).contains(word), "{name} uses {word}");
        }
    }
}

#[test]
fn files_stay_readable() {
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        let lines = shipped(text).lines().count();
        assert!(lines <= 600, "{name} has {lines} lines: it has more than one noun");
    }
}

/// A file that no module names is not compiled.
#[test]
fn no_file_is_dead() {
    let sources = sources();
    for (name, _) in &sources {
        let path = Path::new(name);
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "lib.rs" || name.starts_with("bin/") {
            continue;
        }
        let module = if stem == "mod" {
            path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned()
        } else {
            stem
        };
        let declared =
            sources.iter().any(|(_, text)| text.lines().any(|line| line.ends_with(&format!("mod {module};"))));
        assert!(declared, "{name} is compiled by nobody");
    }
}
