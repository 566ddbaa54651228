//! Whatever stands in the file, reading it ends, in problems or in a configuration, and never in a panic.

use std::path::Path;

use proptest::prelude::*;

use super::example::{EXAMPLE, outside};
use super::*;

fn read(text: &str) {
    if let Err(problems) = parse(Path::new("/etc/bridge/hookbridge.yaml"), text, &outside()) {
        assert!(problems.errors() > 0 && problems.all.len() <= 1_000);
        assert!(problems.all.is_sorted_by_key(|problem| problem.at.line));
        // The end of a file without a last newline counts as the line after it.
        let lines = text.chars().filter(|&c| c == '\n' || c == '\r').count() + 2;
        assert!(problems.all.iter().all(|problem| problem.at.line <= lines), "{problems}");
    }
}

/// Pieces that mean something to YAML, to interpolation or to us.
const PIECES: &[&str] = &[
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    "\"",
    "|",
    ">",
    "|2-",
    "&a ",
    "*a",
    "!!int ",
    "<<: ",
    "# ",
    "---\n",
    "...\n",
    "? ",
    "%TAG ! x\n",
    "${",
    "${A}",
    "${A:-",
    "${file:",
    "$$",
    "~",
    "null",
    "\u{feff}",
    "\u{85}",
    "0x",
    "-1",
    "1e9",
    "99999999999999999999",
    "\0",
    "\r",
    "é",
    "events",
    "sources",
    "type: http",
    "\\",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let env = FakeEnvironment::default().with_file("h.yaml", bytes);
        let _ = load(Path::new("h.yaml"), &env);
    }

    #[test]
    fn arbitrary_pieces_never_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..64)) {
        read(&pieces.concat());
    }

    #[test]
    fn the_example_with_a_few_places_changed_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, prop::sample::select(PIECES)), 1..6)
    ) {
        let mut chars: Vec<char> = EXAMPLE.chars().collect();
        for (at, removed, piece) in changes {
            let at = at.index(chars.len());
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        read(&chars.into_iter().collect::<String>());
    }
}
