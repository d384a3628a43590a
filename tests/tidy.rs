//! Style is a test: who may import whom, where time is asked, what a name means, how long a function may be. Each rule is a function
//! over source text, so that its test can show it a planted example too.

mod imports;

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use self::imports::{Import, circles, imports};

/// A file of the library.
struct Source {
    /// Its path below `src`.
    name: String,
    /// The module it is, below `crate`.
    module: Vec<String>,
    /// Its text, with the lines of its tests blank: every other line keeps its number.
    shipped: String,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let path = name.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = path.split('/').filter(|segment| *segment != "lib").map(str::to_owned).collect();
        let mut tests = Tests::default();
        tests.visit_file(&parse(name, text));
        let is_test = |line: usize| tests.0.iter().any(|lines| lines.contains(&line));
        let shipped = text.lines().enumerate().map(|(index, line)| if is_test(index + 1) { "" } else { line });
        Self { name: name.to_owned(), module, shipped: shipped.collect::<Vec<_>>().join("\n") }
    }

    /// Its syntax, tests aside.
    fn code(&self) -> syn::File {
        parse(&self.name, &self.shipped)
    }

    /// Its text without comments too.
    fn uncommented(&self) -> String {
        self.shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

/// Returns the string literals of a file, with their lines.
fn literals(source: &Source) -> Vec<(RangeInclusive<usize>, String)> {
    fn collect(tokens: TokenStream, found: &mut Vec<(RangeInclusive<usize>, String)>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => collect(group.stream(), found),
                TokenTree::Literal(literal) => {
                    let lines = literal.span().start().line..=literal.span().end().line;
                    let text = syn::parse_str::<syn::LitStr>(&literal.to_string());
                    found.extend(text.map(|text| (lines, text.value())));
                }
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(source.shipped.parse().expect("it was parsed before"), &mut found);
    found
}

fn parse(name: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The lines of what only tests compile, wherever it is.
#[derive(Default)]
struct Tests(Vec<RangeInclusive<usize>>);

impl Tests {
    fn add(&mut self, attributes: &[syn::Attribute], span: proc_macro2::Span) {
        let condition = |attribute: &syn::Attribute| match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            _ => String::new(),
        };
        let is_test = |condition: String| condition == "test" || condition.starts_with("all (test");
        if attributes.iter().map(condition).any(is_test) {
            self.0.push(span.start().line..=span.end().line);
        }
    }
}

impl<'ast> Visit<'ast> for Tests {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => return,
        };
        self.add(attributes, item.span());
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.attrs, item.span());
    }
}

/// Every file of the library that is no test.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let found = read_sources("src");
        assert!(found.len() > 100, "{} files", found.len());
        found
    });
    &SOURCES
}

fn read_sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it can be read") {
            let path: PathBuf = entry.expect("its entries too").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("it is below").display().to_string();
                if !["tests.rs", "tests/mod.rs", "testing.rs"].iter().any(|end| name.ends_with(end)) {
                    found.push(Source::new(&name, &fs::read_to_string(&path).expect("source is text")));
                }
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn planted<const N: usize>(files: [(&str, &str); N]) -> Vec<Source> {
    files.map(|(name, text)| Source::new(name, text)).into()
}

const NONE: [&str; 0] = [];

#[test]
fn only_tests_are_left_out() {
    let text = "#[cfg(test)]\nuse a::b;\nuse a::c;\nimpl T {\n    /// Doc.\n    #[cfg(test)]\n    fn f() {\n    }\n    fn g() {}\n}\n#[cfg(all(test, unix))]\nmod tests {\n}\n#[cfg(not(test))]\nfn h() {}";
    let shipped = "\n\nuse a::c;\nimpl T {\n\n\n\n\n    fn g() {}\n}\n\n\n\n#[cfg(not(test))]\nfn h() {}";
    assert_eq!(Source::new("a.rs", text).shipped, shipped);
}

#[test]
fn no_import_comes_back() {
    assert_eq!(circles(&imports(sources())), NONE);

    let planted = planted([
        ("agent/mod.rs", "pub struct Word;"),
        ("agent/counters/mod.rs", "use super::Word; pub mod table;"),
        ("agent/counters/table.rs", "use super::Row; fn f() { log::warn!(\"{}\", crate::agent::watch::names()) }"),
        ("agent/watch.rs", "use crate::agent::{counters::{self, Speed}, Word};"),
        ("agent/limit.rs", "use super::watch; #[cfg(test)] mod tests { use super::super::run; }"),
        ("agent/run.rs", "use super::limit;"),
    ]);
    let expected = ["agent::counters::table imports agent::watch", "agent::watch imports agent::counters"];
    assert_eq!(circles(&imports(&planted)), expected);
}

/// Returns where agent and consumer meet, or where what both share knows of one.
fn meetings(imports: &[Import]) -> Vec<String> {
    let is_own = |import: &Import, program: &str| import.leads(program, program);
    let is_wiring = |import: &Import| import.from.first().is_none_or(|first| first == "bin");
    let into_one =
        |import: &&Import| import.to.first().is_some_and(|first| ["agent", "consumer"].contains(&first.as_str()));
    let meets = imports.iter().filter(into_one).filter(|import| !is_wiring(import));
    meets.filter(|import| !is_own(import, "agent") && !is_own(import, "consumer")).map(Import::to_string).collect()
}

#[test]
fn agent_and_consumer_never_meet() {
    assert_eq!(meetings(&imports(sources())), NONE);

    let planted = planted([
        ("agent/mod.rs", "use crate::consumer::Batch;"),
        ("consumer/mod.rs", "use crate::units;"),
        ("units.rs", "fn f() { crate::consumer::g() }"),
        ("bin/highwater-agent.rs", "use crate::agent;"),
    ]);
    assert_eq!(meetings(&imports(&planted)), ["agent imports consumer", "units imports consumer"]);
}

/// Stages of the data, of the agent and then of the consumer, which `run` puts together and `cli` calls.
const STAGES: [&str; 15] = [
    "config",
    "counters",
    "detector",
    "event_system",
    "journal",
    "observers",
    "publisher",
    "toolbox",
    "status",
    "source",
    "batch",
    "checkpoint",
    "store",
    "report",
    "plot",
];

/// Which of them may know another, and why.
const KNOWN: [(&str, &str, &str); 27] = [
    ("config", "counters", "it checks the choice of a source,"),
    ("config", "detector", "the limits,"),
    ("config", "publisher", "the publisher's settings,"),
    ("config", "source", "the group membership and the registry"),
    ("config", "store", "and the store's address"),
    ("detector", "counters", "it takes readings"),
    ("event_system", "journal", "it registers events there"),
    ("observers", "event_system", "they observe"),
    ("publisher", "event_system", "it observes, and takes what is pending"),
    ("publisher", "journal", "it empties it"),
    ("toolbox", "config", "its tools are configured as the agent is,"),
    ("toolbox", "counters", "make readings,"),
    ("toolbox", "detector", "have them judged,"),
    ("toolbox", "event_system", "feed one"),
    ("toolbox", "journal", "with a journal for many agents,"),
    ("toolbox", "publisher", "and publish"),
    ("status", "detector", "it reports links, their rates and breaches,"),
    ("status", "journal", "what is kept,"),
    ("status", "publisher", "and what is sent"),
    ("checkpoint", "batch", "it is the positions of batches"),
    ("source", "batch", "it reads batches,"),
    ("source", "checkpoint", "on from a checkpoint"),
    ("store", "batch", "it commits batches,"),
    ("store", "checkpoint", "and the checkpoint with them"),
    ("report", "store", "it asks it"),
    ("report", "batch", "about records, too"),
    ("plot", "report", "it draws its rows"),
];

/// Returns the imports that only `run` and `cli` may have, and those of `run` and `cli` by others.
fn wiring(imports: &[Import]) -> Vec<String> {
    fn stage(module: &[String]) -> Option<&str> {
        let stage = module.get(1)?;
        ["agent", "consumer"].contains(&module[0].as_str()).then_some(stage)
    }
    let is_wrong = |import: &&Import| {
        let (Some(from), Some(to)) = (stage(&import.from), stage(&import.to)) else { return false };
        let is_of_both = STAGES.contains(&from) && STAGES.contains(&to) && from != to;
        let is_known = KNOWN.iter().any(|(a, b, _)| (*a, *b) == (from, to));
        is_of_both && !is_known || STAGES.contains(&from) && ["run", "cli"].contains(&to)
    };
    imports.iter().filter(is_wrong).map(Import::to_string).collect()
}

#[test]
fn only_run_wires() {
    assert_eq!(wiring(&imports(sources())), NONE);

    let planted = planted([
        ("agent/detector.rs", "use super::publisher::Publisher; use super::counters::Reading;"),
        ("agent/publisher/mod.rs", "fn f() { super::run::stop() }"),
        ("agent/counters/mod.rs", ""),
        ("agent/run.rs", "use super::detector; use super::publisher;"),
        ("consumer/source.rs", "use super::store::Store;"),
        ("consumer/store/mod.rs", ""),
    ]);
    let expected = [
        "agent::detector imports agent::publisher",
        "agent::publisher imports agent::run",
        "consumer::source imports consumer::store",
    ];
    assert_eq!(wiring(&imports(&planted)), expected);
}

/// Shared modules, in the order in which they may be imported: those that come first know nothing of those that follow.
const SHARED: [&str; 8] = ["text", "units", "process", "config", "cli", "message", "wire", "kafka"];

/// Returns the imports among [`SHARED`] that go the wrong way.
fn backward(imports: &[Import]) -> Vec<String> {
    let place =
        |module: &[String]| SHARED.iter().position(|shared| module.first().is_some_and(|first| first == shared));
    let is_backward = |import: &&Import| place(&import.from).zip(place(&import.to)).is_some_and(|(from, to)| from < to);
    imports.iter().filter(is_backward).map(Import::to_string).collect()
}

#[test]
fn imports_follow_the_data() {
    assert_eq!(backward(&imports(sources())), NONE);

    let planted =
        planted([("units.rs", "use crate::message::Event;"), ("message/mod.rs", "use crate::units::BitRate;")]);
    assert_eq!(backward(&imports(&planted)), ["units imports message"]);
}

/// Names of types that more than one module may define, and why.
const COMMON_NAMES: [(&str, &str); 5] = [
    ("Cli", "the command line of each program"),
    ("Command", "its commands"),
    ("Common", "flags that its commands share"),
    ("Raw", "the configuration file of each program, before it is checked"),
    ("Settings", "the configuration, checked; publisher::Settings is a part of it"),
];

/// Returns the types that are defined more than once, with the files.
fn doubles(sources: &[Source]) -> Vec<String> {
    #[derive(Default)]
    struct Types(Vec<String>);
    impl<'ast> Visit<'ast> for Types {
        fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
            self.0.push(item.ident.to_string());
        }
        fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
            self.0.push(item.ident.to_string());
        }
        fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
            self.0.push(item.ident.to_string());
        }
        fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
            self.0.push(item.ident.to_string());
        }
    }
    let mut files: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources {
        let mut types = Types::default();
        types.visit_file(&source.code());
        for name in types.0 {
            files.entry(name).or_default().push(&source.name);
        }
    }
    files.retain(|name, files| files.len() > 1 && !COMMON_NAMES.iter().any(|(common, _)| common == name));
    files.into_iter().map(|(name, files)| format!("{name}: {}", files.join(", "))).collect()
}

#[test]
fn a_type_name_is_defined_once() {
    assert_eq!(doubles(sources()), NONE);

    let planted = planted([("a.rs", "pub struct Row; enum Kind { Row }"), ("b/mod.rs", "mod c { type Row = u8; }")]);
    assert_eq!(doubles(&planted), ["Row: a.rs, b/mod.rs"]);
}

/// The longest function: what a screen shows.
const FUNCTION_LINES_MAX: usize = 66;

/// Returns the functions that are longer.
fn long_functions(sources: &[Source]) -> Vec<String> {
    struct Functions<'a>(&'a str, Vec<String>);
    impl Functions<'_> {
        fn measure(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
            let lines = span.end().line - span.start().line + 1;
            if lines > FUNCTION_LINES_MAX {
                self.1.push(format!("{} {name}: {lines} lines", self.0));
            }
        }
    }
    impl<'ast> Visit<'ast> for Functions<'_> {
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            self.measure(&item.sig.ident, item.sig.span().join(item.block.span()).unwrap_or_else(|| item.span()));
            visit::visit_item_fn(self, item);
        }
        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            self.measure(&item.sig.ident, item.sig.span().join(item.block.span()).unwrap_or_else(|| item.span()));
            visit::visit_impl_item_fn(self, item);
        }
    }
    sources
        .iter()
        .flat_map(|source| {
            let mut functions = Functions(&source.name, Vec::new());
            functions.visit_file(&source.code());
            functions.1
        })
        .collect()
}

#[test]
fn a_function_fits_a_screen() {
    assert_eq!(long_functions(sources()), NONE);

    let long =
        format!("fn short() {{}}\nimpl T {{\n/// Long.\nfn long() {{\n{}}}\n}}", "f();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions(&planted([("a.rs", &long)])), ["a.rs long: 68 lines"]);
}

/// First words of a comment that leave its noun to be guessed.
const FRAGMENTS: [&str; 20] = [
    "All", "As", "Has", "How", "It", "Nobody", "Nothing", "Of", "One", "Set", "So", "Somebody", "The same", "They",
    "Those", "What", "Whether", "Where", "Who", "Whoever",
];

/// Returns the comments that begin with a fragment.
fn fragments(sources: &[Source]) -> Vec<String> {
    let is_fragment = |text: &str| {
        let follows = |rest: &str| rest.chars().next().is_none_or(|c| !c.is_alphabetic());
        FRAGMENTS.iter().any(|fragment| text.strip_prefix(fragment).is_some_and(follows))
    };
    let mut found = Vec::new();
    for source in sources {
        let strings = literals(source);
        let is_text =
            |index: usize| strings.iter().any(|(lines, _)| lines.start() < lines.end() && lines.contains(&index));
        let mut above = None;
        for (index, line) in source.shipped.lines().enumerate() {
            let line = line.trim_start();
            let begins = |marker: &&str| line.starts_with(marker) && !is_text(index + 1);
            let marker = ["///", "//!", "//"].into_iter().find(begins);
            let text = marker.map_or("", |marker| line[marker.len()..].trim());
            if marker != above && is_fragment(text) {
                found.push(format!("{}:{}: {text}", source.name, index + 1));
            }
            above = marker;
        }
    }
    found
}

#[test]
fn a_comment_begins_with_what_it_is_about() {
    assert_eq!(fragments(sources()), NONE);
    for folder in ["tests", "benches", "examples"] {
        assert_eq!(fragments(&read_sources(folder)), NONE, "{folder}");
    }

    let text = "//! So many rules.\n\n/// What it was.\n/// It goes on.\nstruct A;\n/// Whatever fails.\nfn f() {\n    // The same again.\n    // So it is.\n    // Settings stay.\n    f(\"\n// It is no comment.\");\n}\n";
    let expected = ["a.rs:1: So many rules.", "a.rs:3: What it was.", "a.rs:8: The same again."];
    assert_eq!(fragments(&planted([("a.rs", text)])), expected);
}

/// Returns the files whose code contains `word`, but for those whose name begins with one of `allowed`.
fn strays(sources: &[Source], word: &str, allowed: &[&str]) -> Vec<String> {
    let contains = |source: &&Source| source.uncommented().contains(word);
    let is_allowed = |source: &&Source| allowed.iter().any(|prefix| source.name.starts_with(prefix));
    sources.iter().filter(contains).filter(|source| !is_allowed(source)).map(|source| source.name.clone()).collect()
}

#[test]
fn drivers_stay_in_their_files() {
    let sources = sources();
    assert_eq!(
        strays(
            sources,
            "rdkafka",
            &["kafka/", "agent/publisher/", "consumer/hour_publisher", "consumer/source", "process/logging"]
        ),
        NONE
    );
    assert_eq!(strays(sources, "rusqlite", &["agent/journal/", "consumer/store/"]), NONE);
    assert_eq!(strays(sources, "postgres::", &["consumer/store/"]), NONE);
    assert_eq!(strays(sources, "Query::new", &["consumer/store/", "consumer/report/"]), NONE, "SQL has its places");
    assert_eq!(strays(sources, "ureq", &["kafka/schema_registry.rs"]), NONE);
    assert_eq!(strays(sources, "resvg", &["consumer/plot/png.rs"]), NONE);
    assert_eq!(strays(sources, "rustix::net", &["agent/counters/netlink/"]), NONE);

    let planted = planted([("kafka/mod.rs", "use rdkafka::x;"), ("agent/run/mod.rs", "// rdkafka\nuse rdkafka::x;")]);
    assert_eq!(strays(&planted, "rdkafka", &["kafka/"]), ["agent/run/mod.rs"]);
}

/// Returns the files that ask for the time themselves.
fn askers_of_time(sources: &[Source]) -> Vec<String> {
    let words = ["Instant::now", "SystemTime::now", "Local::now", "clock_gettime"];
    let mut found: Vec<String> = words.iter().flat_map(|word| strays(sources, word, &["process/clock.rs"])).collect();
    // A log line's own time is for its readers alone.
    found.extend(strays(sources, "Utc::now", &["process/clock.rs", "process/logging.rs"]));
    found
}

#[test]
fn time_is_asked_in_one_file() {
    assert_eq!(askers_of_time(sources()), NONE);

    let planted = planted([
        ("process/clock.rs", "fn now() { Instant::now() }"),
        ("process/logging.rs", "fn f() { Utc::now() }"),
        ("agent/rate.rs", "#[cfg(test)]\nfn f() { Instant::now() }\nfn g() { std::time::Instant::now() }"),
        ("wire/json.rs", "fn f() { chrono::Utc::now() }"),
    ]);
    assert_eq!(askers_of_time(&planted), ["agent/rate.rs", "wire/json.rs"]);
}

/// Files and folders that do no I/O, write no log and ask no clock.
const PURE: [&str; 11] = [
    "agent/detector/",
    "agent/counters/filter.rs",
    "consumer/batch.rs",
    "consumer/checkpoint.rs",
    "consumer/plot/axis.rs",
    "consumer/store/rows.rs",
    "consumer/store/sequences.rs",
    "consumer/store/tables.rs",
    "units.rs",
    "message/",
    "wire/",
];

/// Returns what pure files use of the world around them.
fn impurities(sources: &[Source]) -> Vec<String> {
    let is_pure = |source: &&Source| PURE.iter().any(|pure| source.name.starts_with(pure));
    let words = ["std::fs", "std::net", "std::io", "std::thread", "std::env", "log::", "Clock"];
    let used = |source: &Source| {
        let code = source.uncommented();
        let found = words.into_iter().filter(move |word| code.contains(word));
        found.map(|word| format!("{} uses {word}", source.name)).collect::<Vec<_>>()
    };
    sources.iter().filter(is_pure).flat_map(used).collect()
}

#[test]
fn pure_files_touch_nothing() {
    let sources = sources();
    for pure in PURE {
        assert!(sources.iter().any(|source| source.name.starts_with(pure)), "{pure} has moved");
    }
    assert_eq!(impurities(sources), NONE);

    let planted = planted([
        ("agent/detector/link.rs", "fn f() { log::warn!(\"quiet\") }"),
        ("agent/journal/files.rs", "use std::fs;"),
        ("wire/json.rs", "// std::io\nuse std::io::Write;\n#[cfg(test)]\nuse std::fs;"),
    ]);
    assert_eq!(impurities(&planted), ["agent/detector/link.rs uses log::", "wire/json.rs uses std::io"]);
}

fn is_sql(text: &str) -> bool {
    let words = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
    text.split_ascii_whitespace().next().is_some_and(|word| words.contains(&word))
}

/// Returns the files outside of the stores and reports that hold SQL.
fn sql(sources: &[Source]) -> Vec<String> {
    let places = ["agent/journal/", "consumer/store/", "consumer/report/"];
    let is_stray = |source: &&Source| {
        !places.iter().any(|place| source.name.starts_with(place))
            && literals(source).iter().any(|(_, text)| is_sql(text))
    };
    sources.iter().filter(is_stray).map(|source| source.name.clone()).collect()
}

#[test]
fn sql_is_in_stores_and_reports() {
    assert_eq!(sql(sources()), NONE);

    let planted = planted([
        ("agent/run.rs", "// SELECT\nfn f() { log(\"DELETED\", \"WITHOUT\", r\"C:\\SELECT\") }"),
        ("consumer/report/totals.rs", "const TOTALS: &str = \"SELECT 1\";"),
        ("consumer/run.rs", "fn f() { g(&format!(\"\\n  DELETE FROM {table}\")) }"),
        ("consumer/cli/lag.rs", "const LAG: &str = r#\"WITH now AS (SELECT 1)\"#;"),
    ]);
    assert_eq!(sql(&planted), ["consumer/run.rs", "consumer/cli/lag.rs"]);
}

/// Returns the files with SQL that a database of another encoding could not read: it is asked for its encoding in SQL.
fn sql_beyond_ascii(sources: &[Source]) -> Vec<String> {
    let is_beyond = |source: &&Source| literals(source).iter().any(|(_, text)| is_sql(text) && !text.is_ascii());
    sources.iter().filter(is_beyond).map(|source| source.name.clone()).collect()
}

#[test]
fn sql_is_in_ascii() {
    assert_eq!(sql_beyond_ascii(sources()), NONE);
    assert!(include_str!("../src/consumer/store/postgres/migrations/V1__tables.sql").is_ascii());

    let planted = planted([("consumer/store/a.rs", "const A: &str = \"SELECT 'é'\"; const B: &str = \"é\";")]);
    assert_eq!(sql_beyond_ascii(&planted), ["consumer/store/a.rs"]);
}

/// Returns the files that no module names: nobody compiles them.
fn dead(sources: &[Source]) -> Vec<String> {
    let is_declared = |source: &&Source| {
        source.module.last().is_none_or(|module| {
            let line = format!("mod {module};");
            sources.iter().any(|other| other.shipped.lines().any(|found| found.trim_end().ends_with(&line)))
        })
    };
    let compiled = |source: &&Source| source.name.starts_with("bin/") || is_declared(source);
    sources.iter().filter(|source| !compiled(source)).map(|source| source.name.clone()).collect()
}

#[test]
fn no_file_is_dead() {
    assert_eq!(dead(sources()), NONE);
    assert_eq!(dead(&planted([("lib.rs", "pub mod a;"), ("a/mod.rs", ""), ("a/b.rs", "")])), ["a/b.rs"]);
}

/// Returns the files beside a folder of the same name, whose place is in it, as `mod.rs`.
fn beside_their_folder(sources: &[Source]) -> Vec<String> {
    let folder = |source: &Source| format!("{}/", source.name.trim_end_matches(".rs"));
    let has_folder = |source: &&Source| sources.iter().any(|other| other.name.starts_with(&folder(source)));
    sources.iter().filter(has_folder).map(|source| source.name.clone()).collect()
}

#[test]
fn a_folder_begins_with_its_mod_file() {
    assert_eq!(beside_their_folder(sources()), NONE);
    let planted = planted([("a.rs", ""), ("a/b.rs", ""), ("c/mod.rs", ""), ("c/d.rs", ""), ("cd.rs", "")]);
    assert_eq!(beside_their_folder(&planted), ["a.rs"]);
}

/// Returns the text between the placeholders of a format string.
fn fixed_parts(format: &str) -> Vec<String> {
    let (mut parts, mut is_placeholder) = (vec![String::new()], false);
    for c in format.chars() {
        match c {
            '{' => is_placeholder = true,
            '}' => {
                is_placeholder = false;
                parts.push(String::new());
            }
            _ if is_placeholder => {}
            _ => parts.last_mut().expect("there is always one").push(c),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| part.len() > 2).collect()
}

/// Returns the format strings of a file's `warn!` and `error!`.
fn logged(source: &Source) -> Vec<String> {
    fn collect(tokens: TokenStream, found: &mut Vec<String>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            collect(group.stream(), found);
            let is_log = match tokens[..index].as_ref() {
                [.., TokenTree::Ident(name), TokenTree::Punct(mark)] => {
                    (name == "warn" || name == "error") && mark.as_char() == '!'
                }
                _ => false,
            };
            if let (true, Some(TokenTree::Literal(literal))) = (is_log, group.stream().into_iter().next()) {
                let text = syn::parse_str::<syn::LitStr>(&literal.to_string());
                found.extend(text.map(|text| text.value()));
            }
        }
    }
    let mut found = Vec::new();
    collect(source.shipped.parse().expect("it was parsed before"), &mut found);
    found
}

/// Returns the lines that `page` explains and no program writes: the rows of its tables that begin with a level, or with `problem`
/// for a line of `status`. `…` stands for what differs from line to line.
fn lines_of_nobody(page: &str, sources: &[Source]) -> Vec<String> {
    let parts: Vec<String> = sources.iter().flat_map(literals).flat_map(|(_, text)| fixed_parts(&text)).collect();
    let rows = page.lines().filter_map(|row| {
        let (level, rest) = row.strip_prefix("| ")?.split_once(" | ")?;
        let is_line = ["WARN", "ERROR", "problem"].contains(&level);
        is_line.then(|| rest.split(" | ").next().unwrap_or(rest).trim_matches(['`', ' ']).to_owned())
    });
    let is_written = |quoted: &str| parts.iter().any(|part| part.contains(quoted));
    let is_stale = |row: &String| row.split('…').map(str::trim).any(|quoted| !is_written(quoted));
    rows.filter(is_stale).collect()
}

/// Returns the lines of WARN and ERROR that `run` may log and `page` does not explain. Of each its longest fixed part is looked for;
/// a line that is composed elsewhere has none.
fn unexplained_lines(page: &str, sources: &[Source]) -> Vec<String> {
    const SHORTEST: usize = 12;
    let is_of_run = |source: &&Source| !["/cli/", "/toolbox/"].iter().any(|place| source.name.contains(place));
    let longest = |format: String| fixed_parts(&format).into_iter().max_by_key(String::len);
    let lines = sources.iter().filter(is_of_run).flat_map(|source| {
        let parts = logged(source).into_iter().filter_map(longest);
        parts.map(|part| (source.name.clone(), part)).collect::<Vec<_>>()
    });
    let unexplained = lines.filter(|(_, part)| part.len() >= SHORTEST && !page.contains(part));
    unexplained.map(|(name, part)| format!("{name}: {part}")).collect()
}

#[test]
fn the_page_for_operators_explains_what_is_logged() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let page = &fs::read_to_string(page).expect("the page is there");
    assert!(page.matches("\n| WARN | `").count() > 30, "the tables of log lines have another form");
    assert_eq!(lines_of_nobody(page, sources()), NONE);
    assert_eq!(unexplained_lines(page, sources()), NONE);

    let planted = planted([
        ("a.rs", "fn f() { log::warn!(\"{}: the disk is full; make room\", 1); error!(\"{why}\") }"),
        ("b.rs", "fn f() { log::error!(\"a fan of {host} stopped spinning\") } #[error(\"not a log line\")] struct E;"),
        ("agent/cli/c.rs", "fn f() { warn!(\"only a command says this\") }"),
    ]);
    let page = "| | line |\n| WARN | `…: the disk is full; make room` | |\n| ERROR | `a fan of … fell off` | |";
    assert_eq!(lines_of_nobody(page, &planted), ["a fan of … fell off"]);
    assert_eq!(unexplained_lines(page, &planted), ["b.rs: stopped spinning"]);
}
