//! The rules of the house, read out of the sources: what a reviewer would otherwise have to remember.
//!
//! Every message says the rule's reason. A rule that turns out wrong is changed here, with its reason, and in no
//! single file by a trick.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot read the sources has to say so and end"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file, its path being relative to the package.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The code alone: comments and the content of strings become blanks, lines stay lines.
    fn code(&self) -> String {
        code_of(&self.text)
    }

    /// The code without the tests at its foot.
    fn code_without_tests(&self) -> String {
        let mut code = self.code();
        if let Some(at) = code.find("#[cfg(test)]\nmod ") {
            code.truncate(at);
        }
        code
    }

    fn is_test(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || file == "tests.rs"
            || file.ends_with("_tests.rs")
    }

    fn is_under(&self, place: &str) -> bool {
        self.path == place
            || self.path.strip_prefix(place.trim_end_matches(".rs")).is_some_and(|rest| rest.starts_with('/'))
            || self.path == format!("{place}.rs")
    }
}

/// Blanks comments and string contents. A small lexer, so that a word in prose breaks no rule.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => find(bytes, at + 2, b"*/"),
            b'r' if raw_string(bytes, at).is_some() => raw_string(bytes, at).unwrap(),
            b'"' => string_end(bytes, at + 1),
            b'\'' => char_end(bytes, at),
            _ => at,
        };
        if end == at {
            code.push(char::from(bytes[at]));
            at += 1;
        } else {
            code.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |length| from + length)
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|window| window == what).map_or(bytes.len(), |at| from + at + what.len())
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of `r"…"` or `r#"…"#` that begins at `at`.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    // `br"…"` is one as well; any other letter before makes it part of a name.
    if at > 0 && is_word(bytes[at - 1]) && bytes[at - 1] != b'b' {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    let quote = at + 1 + hashes;
    (bytes.get(quote) == Some(&b'"')).then(|| {
        let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        find(bytes, quote + 1, &close)
    })
}

/// The end of a character literal at `at`, or `at` itself where it is a lifetime.
fn char_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return find(bytes, at + 3, b"'");
    }
    // At most four bytes of UTF-8 stand between the quotes.
    (at + 2..=at + 5).find(|&end| bytes.get(end) == Some(&b'\'')).map_or(at, |end| {
        let inside = std::str::from_utf8(&bytes[at + 1..end]).map_or(0, |text| text.chars().count());
        if inside == 1 { end + 1 } else { at }
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the package, but for what is built, downloaded or git's own.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the package") {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                let skipped = ["target", ".git", "var"].iter().any(|skipped| name == *skipped);
                // What is built lies in a folder of that name wherever CARGO_TARGET_DIR was given one.
                if !skipped && !entry.path().join("CACHEDIR.TAG").exists() {
                    folders.push(entry.path());
                }
            } else if name != ".git" {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Text files of the package with one of these endings; an empty list means all that are UTF-8.
fn texts(endings: &[&str]) -> Vec<Source> {
    let wanted = |path: &Path| {
        endings.is_empty() || path.extension().is_some_and(|found| endings.iter().any(|ending| found == *ending))
    };
    let read = |path: PathBuf| {
        let text = String::from_utf8(fs::read(&path).expect("a file of the package")).ok()?;
        let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        Some(Source { path, text })
    };
    files().into_iter().filter(|path| wanted(path)).filter_map(read).collect()
}

fn rust(folders: &[&str]) -> Vec<Source> {
    let mut sources = texts(&["rs"]);
    sources.retain(|source| folders.iter().any(|folder| source.path.starts_with(folder)));
    assert!(!sources.is_empty(), "no sources under {folders:?}");
    sources
}

/// Whether `word` stands in `code` as a word of its own; `::` and `!` may be part of it.
fn names(code: &str, word: &str) -> Option<usize> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = code.as_bytes();
    let at = code.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = at == 0 || !is_word(bytes[at - 1]);
        let after =
            bytes.get(at + word.len()).is_none_or(|&byte| !is_word(byte) || !is_word(*word.as_bytes().last().unwrap()));
        before && after
    })?;
    Some(code[..at].matches('\n').count() + 1)
}

/// Fails with every violation, and why the rule is there.
fn keep(rule: &str, violations: &[String]) {
    let mut message = String::new();
    for violation in violations {
        write!(message, "\n  {violation}").unwrap();
    }
    assert!(violations.is_empty(), "\n{rule}{message}\n");
}

// === Layers ===

/// A crate, the places that may name it, and why.
const BORDERS: &[(&str, &[&str], &str)] = &[
    ("rdkafka", &["bridge/kafka"], "Kafka is one place: its errors, threads and offsets become plain types there"),
    (
        "prometheus",
        &["bridge/metrics.rs"],
        "metrics are a leaf: names and labels are chosen in one file, and bounded there",
    ),
    (
        "axum",
        &["bridge/console", "bridge/dev", "bridge/app.rs"],
        "HTTP ends at the edge: a rule that answers with a status code cannot be used anywhere else",
    ),
    (
        "schema_registry_converter",
        &["bridge/schema/registry.rs", "bridge/schema/answer.rs"],
        "the registry's client, and the reading of its errors, can be replaced without a change elsewhere",
    ),
    (
        "tokio_postgres",
        &["bridge/sinks/postgres", "bridge/config/read/sinks/postgres_url.rs"],
        "one sink knows its database; the configuration asks only whether an address can be read",
    ),
];

#[test]
fn each_outside_system_is_named_in_one_place() {
    for (word, places, reason) in BORDERS {
        let mut violations = Vec::new();
        for source in rust(&["bridge/"]) {
            if places.iter().any(|place| source.is_under(place)) {
                continue;
            }
            if let Some(line) = names(&source.code(), word) {
                violations.push(format!("{}:{line}", source.path));
            }
        }
        keep(&format!("`{word}` is named in {} only: {reason}", places.join(", ")), &violations);
    }
}

/// The pure rules: functions of their arguments.
const PURE: &[&str] = &[
    "bridge/event.rs",
    "bridge/outcome.rs",
    "bridge/expr",
    "bridge/ingest/verify",
    "bridge/ingest/handshake",
    "bridge/ingest/split",
    "bridge/ingest/form",
    "bridge/ingest/map",
    "bridge/ingest/dedupe/ring",
    "bridge/ingest/dedupe/shard",
    "bridge/schema/plan",
    "bridge/schema/reader",
    "bridge/schema/compat",
    "bridge/schema/drift",
    "bridge/kafka/offset",
    "bridge/kafka/transact/batch",
    "bridge/kafka/transact/doubt",
    "bridge/deliver/receipt",
    "bridge/replay/dead",
    "bridge/replay/quarantine",
    "bridge/deliver/breaker",
    "bridge/deliver/keys",
    "bridge/deliver/machine",
    "bridge/deliver/pace",
    "bridge/deliver/seen",
    "bridge/deliver/window",
    "bridge/deliver/route",
    "bridge/deliver/consent",
    "bridge/deliver/retry",
    "bridge/deliver/settle",
];

const IMPURE: &[&str] = &[
    "tokio",
    "rdkafka",
    "reqwest",
    "axum",
    "prometheus",
    "tokio_postgres",
    "SystemTime",
    "Instant",
    "crate::clock",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "new_v4",
    "rand",
];

#[test]
fn pure_rules_do_no_io_and_read_no_clock() {
    let mut violations = Vec::new();
    for source in rust(&["bridge/"]) {
        if source.is_test() || !PURE.iter().any(|place| source.is_under(place)) {
            continue;
        }
        let code = source.code_without_tests();
        for word in IMPURE {
            if let Some(line) = names(&code, word) {
                violations.push(format!("{}:{line} names `{word}`", source.path));
            }
        }
    }
    let reason = "a pure rule takes time and randomness as arguments and does no IO, so that its tests need neither \
                  services nor luck";
    keep(reason, &violations);
}

/// Who may not know whom.
const APART: &[(&str, &[&str], &str)] = &[
    ("bridge/ingest", &["deliver", "sinks", "app"], "stages meet in Kafka, not in each other"),
    ("bridge/deliver", &["ingest", "app"], "stages meet in Kafka, not in each other"),
    (
        "bridge/replay",
        &["ingest", "app", "cli"],
        "what was set aside is known from Kafka alone; who makes events of it again is ingest",
    ),
    (
        "bridge/sinks",
        &["ingest", "app"],
        "a sink gets a record and gives an outcome; where it came from is not its business",
    ),
    (
        "bridge/schema",
        &["ingest", "deliver", "sinks", "kafka", "app"],
        "what an event may be depends on nobody who carries it",
    ),
    ("bridge/kafka", &["ingest", "deliver", "sinks", "schema", "app"], "the log knows bytes and offsets, no events"),
    ("bridge/expr", &["ingest", "deliver", "sinks", "schema", "kafka", "app"], "an expression knows values only"),
    (
        "bridge/catalog",
        &["ingest", "deliver", "sinks", "kafka", "app"],
        "descriptions are data; those who use them know them",
    ),
    (
        "bridge/config",
        &["ingest", "deliver", "sinks", "kafka", "app"],
        "what was written is read before anything exists",
    ),
    (
        "bridge/event.rs",
        &["ingest", "deliver", "sinks", "schema", "kafka", "config", "app"],
        "the shared words know none of their users",
    ),
    (
        "bridge/outcome.rs",
        &["ingest", "deliver", "sinks", "schema", "kafka", "config", "app"],
        "the shared words know none of their users",
    ),
];

#[test]
fn layers_are_used_downwards_only() {
    for (place, others, reason) in APART {
        let mut violations = Vec::new();
        for source in rust(&["bridge/"]) {
            if !source.is_under(place) || source.is_test() {
                continue;
            }
            let code = source.code_without_tests();
            for other in *others {
                if let Some(line) = names(&code, &format!("crate::{other}")) {
                    violations.push(format!("{}:{line} uses `crate::{other}`", source.path));
                }
            }
        }
        keep(&format!("{place} stands apart from {}: {reason}", others.join(", ")), &violations);
    }
}

// === Files ===

/// Lines of a file. Past it, there are two ideas in it; 400 is where to begin to look for the second.
const MAX_LINES: usize = 600;

/// Longer files: the lines that each may have, why, and since when. Empty is how it should be.
const LONG: &[(&str, usize, &str)] = &[];

#[test]
fn a_file_is_one_idea_long() {
    let mut violations = Vec::new();
    for source in rust(&["bridge/", "tests/", "benches/"]) {
        let lines = source.text.lines().count();
        let exception = LONG.iter().find(|(path, ..)| *path == source.path);
        let limit = exception.map_or(MAX_LINES, |(_, limit, _)| *limit);
        if lines > limit {
            violations.push(format!("{}: {lines} lines, {limit} at most", source.path));
        } else if exception.is_some() && lines <= MAX_LINES {
            violations.push(format!("{}: {lines} lines, so that its exception can go", source.path));
        }
    }
    keep("a file holds one idea; a second one is told by its length", &violations);
}

#[test]
fn every_source_file_is_part_of_the_program() {
    let sources = rust(&["bridge/", "tests/", "benches/"]);
    let mut violations = Vec::new();
    for source in &sources {
        let path = Path::new(&source.path);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let is_root = matches!(
            source.path.as_str(),
            "bridge/lib.rs"
                | "bridge/main.rs"
                | "tests/it/main.rs"
                | "tests/sim/main.rs"
                | "tests/strangers/main.rs"
                | "tests/faults/main.rs"
        ) || [Some("tests".as_ref()), Some("benches".as_ref())].contains(&path.parent());
        if is_root {
            continue;
        }
        let (module, folder) = match stem {
            "mod" => {
                let folder = path.parent().unwrap();
                (folder.file_name().unwrap().to_str().unwrap(), folder.parent().unwrap())
            }
            _ => (stem, path.parent().unwrap()),
        };
        let declared = |other: &&Source| {
            let place = Path::new(&other.path);
            let owns = place.parent() == Some(folder) || place.with_extension("") == folder;
            let by_path = other.text.contains(&format!("\"{stem}.rs\"")) && place.parent() == path.parent();
            by_path || (owns && names(&code_of(&other.text), &format!("mod {module};")).is_some())
        };
        if !sources.iter().any(|other| declared(&other)) {
            violations.push(format!("{}: nobody says `mod {module};`", source.path));
        }
    }
    keep("a file that no module names is not compiled, and rots unseen", &violations);
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!", "unimplemented!", "dbg!", "#[ignore", "#[should_panic", "TODO", "FIXME", "XXX"];
    let mut violations = Vec::new();
    for source in rust(&["bridge/", "tests/", "benches/"]) {
        // Of prose only the three that mark a debt are looked for; of code, which has no comments here, the macros.
        let code = source.code();
        for word in words {
            let is_prose = word.chars().all(char::is_uppercase);
            let text = if is_prose { &source.text } else { &code };
            if source.path == "tests/tidy.rs" && is_prose {
                continue;
            }
            if let Some(line) = names(text, word) {
                violations.push(format!("{}:{line} says `{word}`", source.path));
            }
        }
    }
    keep("what is not done is an issue and not a note in the code; a test runs, or it is not there", &violations);
}

#[test]
fn lines_end_where_their_text_ends() {
    let mut violations = Vec::new();
    for source in texts(&["rs", "md", "toml", "yaml", "yml", "java", "avsc", "sh", "proto", "css", "js"]) {
        // Vectors and payloads are kept as they came.
        if source.path.starts_with("tests/vectors/") {
            continue;
        }
        for (at, line) in source.text.lines().enumerate() {
            if line.ends_with([' ', '\t']) {
                violations.push(format!("{}:{}: blanks at the end", source.path, at + 1));
            } else if line.contains('\t') {
                violations.push(format!("{}:{}: a tab", source.path, at + 1));
            }
        }
        if !source.text.is_empty() && !source.text.ends_with('\n') {
            violations.push(format!("{}: its last line does not end", source.path));
        }
    }
    keep("blanks that nobody sees make changes that nobody meant", &violations);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut violations = Vec::new();
    for source in texts(&[]) {
        for (at, line) in source.text.lines().enumerate() {
            for place in places {
                // Part of a longer path or address it may be.
                let absolute = line.match_indices(place).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-~}".contains(before))
                });
                if absolute {
                    violations.push(format!("{}:{}: {place}", source.path, at + 1));
                }
            }
        }
    }
    keep("a path of one machine is wrong on every other", &violations);
}

// === What comes from outside, and what is written down ===

/// Locked crates. Each is code that we ship and did not read; each costs build time on every machine.
const MAX_CRATES: usize = 300;

#[test]
fn the_dependencies_stay_within_their_budget() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is part of the package");
    let crates = lock.lines().filter(|line| *line == "[[package]]").count();
    assert!(
        crates <= MAX_CRATES,
        "{crates} locked crates, {MAX_CRATES} at most: a dependency has to be worth its tree"
    );
}

#[test]
fn every_decision_is_in_the_list_of_decisions() {
    let folder = root().join("docs/adr");
    let Ok(index) = fs::read_to_string(folder.join("README.md")) else { return };
    let mut violations = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name != "README.md" && Path::new(&name).extension() == Some("md".as_ref()) && !index.contains(&name) {
            violations.push(name);
        }
    }
    keep("docs/adr/README.md lists every decision: one that is not found is taken again", &violations);
}

#[test]
fn every_yaml_file_is_yaml() {
    let mut violations = Vec::new();
    for source in texts(&["yaml", "yml"]) {
        let mut parser = saphyr_parser::Parser::new_from_str(&source.text);
        let refused = std::iter::from_fn(|| parser.next_event()).find_map(Result::err);
        if let Some(error) = refused {
            violations.push(format!("{}: {error}", source.path));
        }
    }
    keep("a file that is started by hand only must not be broken until then", &violations);
}

#[test]
fn the_lexer_of_these_rules_knows_strings_comments_and_lifetimes() {
    let text = "let a = \"rdkafka\"; // rdkafka\nlet b = r#\"rdkafka \" \"#; /* rdkafka */ let c: &'a str = '\"'; use rdkafka;\n";
    let code = code_of(text);
    assert_eq!(code.matches("rdkafka").count(), 1);
    assert_eq!(names(&code, "rdkafka"), Some(2));
    assert!(code.contains("&'a str"));
    assert_eq!(names("rdkafka_sys", "rdkafka"), None);
}
