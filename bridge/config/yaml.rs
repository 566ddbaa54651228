//! The file as it was written: a tree of nodes, each with the line and column where it starts.
//!
//! Built from the parser's events and not by its loader, because the loader stops at the first repeated key, turns
//! `2_000_000` and `1.10` into something else than was written, and says nothing of tags.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// How deep maps and lists may nest. The deepest place of the configuration is at 6; the rest is head room.
const MAX_DEPTH: usize = 24;

/// 1-based, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug)]
pub(super) struct Node {
    pub at: Mark,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`: the same as leaving the key out.
    Null,
    Text {
        text: String,
        /// Written without quotes and in no block, so that it may stand for a number or a truth value.
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file, without repeated keys.
    Map(Vec<Entry>),
    /// Something that is not supported; the fault about it has been noted already.
    Refused,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Mark,
    pub node: Node,
}

/// Something in the YAML itself that is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: Mark,
    pub message: String,
    pub hint: Option<&'static str>,
}

/// What the text says: its one document, and every fault found in it.
#[derive(Debug)]
pub(super) struct Document {
    pub root: Node,
    pub faults: Vec<Fault>,
    /// Whether the text could be read to its end; else `root` is a part, and not worth a closer look.
    pub complete: bool,
}

/// Reads the first document of `text`.
pub(super) fn parse(text: &str) -> Document {
    let mut builder = Builder { open: Vec::new(), root: None, faults: Vec::new(), source: text };
    let complete = builder.run();
    let root = builder.root.unwrap_or(Node { at: Mark { line: 1, column: 1 }, value: Value::Null });
    Document { root, faults: builder.faults, complete }
}

/// A map or list whose end has not come yet.
struct Open {
    at: Mark,
    value: Value,
    /// In a map: the keys so far, and their lines.
    keys: HashMap<String, usize>,
    /// In a map: the key whose value comes next.
    key: Option<Key>,
}

struct Key {
    /// `None`: not a plain text, or a repetition; its value is read and dropped.
    text: Option<String>,
    at: Mark,
}

struct Builder<'t> {
    open: Vec<Open>,
    root: Option<Node>,
    faults: Vec<Fault>,
    source: &'t str,
}

impl Builder<'_> {
    fn run(&mut self) -> bool {
        let mut parser = Parser::new_from_str(self.source);
        while let Some(event) = parser.next_event() {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let at = Mark { line: error.marker().line(), column: error.marker().col() + 1 };
                    self.fault(at, format!("is not YAML: {}", error.info()), self.syntax_hint(at.line));
                    return false;
                }
            };
            if !self.on(event, span) {
                return false;
            }
        }
        true
    }

    /// Takes one event in; false where reading further makes no sense.
    fn on(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = Mark { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                if self.root.is_some() {
                    self.fault(at, "a second document begins here", Some("write one document, without `---`"));
                    return false;
                }
            }
            Event::Alias(_) => {
                self.fault(at, "aliases (`*name`) are not supported", Some("write the value out again"));
                self.place(Node { at, value: Value::Refused });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.decorations(at, anchor, tag.is_some());
                if self.awaits_key() {
                    self.key(text.into_owned(), at);
                } else {
                    let plain = style == ScalarStyle::Plain;
                    let value = match text.as_ref() {
                        "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                        _ => Value::Text { text: text.into_owned(), plain },
                    };
                    // The parser says where the first line with something in it starts; the text starts before the
                    // blank ones, which a line number within the text counts.
                    let blank = if style == ScalarStyle::Literal { leading_breaks(&value) } else { 0 };
                    let at = Mark { line: at.line.saturating_sub(blank).max(1), ..at };
                    self.place(Node { at, value });
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.decorations(at, anchor, tag.is_some());
                return self.begin(at, Value::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.decorations(at, anchor, tag.is_some());
                return self.begin(at, Value::Map(Vec::new()));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { at, value, .. }) = self.open.pop() {
                    self.place(Node { at, value });
                }
            }
        }
        true
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { value: Value::Map(_), key: None, .. }))
    }

    fn begin(&mut self, at: Mark, value: Value) -> bool {
        if self.open.len() >= MAX_DEPTH {
            self.fault(at, format!("is nested deeper than {MAX_DEPTH} levels"), None);
            return false;
        }
        if self.awaits_key() {
            self.fault(at, "a key must be a plain text", None);
        }
        self.open.push(Open { at, value, keys: HashMap::new(), key: None });
        true
    }

    fn key(&mut self, text: String, at: Mark) {
        let before = self.open.last().and_then(|open| open.keys.get(&text).copied());
        let kept = if text == "<<" {
            self.fault(at, "merge keys (`<<`) are not supported", Some("write the keys out again"));
            None
        } else if let Some(before) = before {
            self.fault(at, format!("the key `{text}` stands already in line {before}"), None);
            None
        } else {
            Some(text)
        };
        if let Some(open) = self.open.last_mut() {
            if let Some(text) = &kept {
                open.keys.insert(text.clone(), at.line);
            }
            open.key = Some(Key { text: kept, at });
        }
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                // A map or list in a key's place: the fault is noted, its value will be dropped.
                None => open.key = Some(Key { text: None, at: node.at }),
                Some(Key { text: Some(key), at }) => entries.push(Entry { key, key_at: at, node }),
                Some(Key { text: None, .. }) => {}
            },
            Value::Null | Value::Text { .. } | Value::Refused => {}
        }
    }

    fn decorations(&mut self, at: Mark, anchor: usize, tagged: bool) {
        if anchor > 0 {
            self.fault(at, "anchors (`&name`) are not supported", Some("write the value out where it is needed"));
        }
        if tagged {
            self.fault(at, "tags (`!name`) are not supported", None);
        }
    }

    fn syntax_hint(&self, line: usize) -> Option<&'static str> {
        let text = self.source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        if text.contains("${") && text.contains(['[', '{']) {
            Some("inside `[ ]` and `{ }`, put quotes around it: \"${NAME}\"")
        } else if text.contains('\t') {
            Some("YAML is indented with spaces, not tabs")
        } else {
            None
        }
    }

    fn fault(&mut self, at: Mark, message: impl Into<String>, hint: Option<&'static str>) {
        self.faults.push(Fault { at, message: message.into(), hint });
    }
}

fn leading_breaks(value: &Value) -> usize {
    match value {
        Value::Text { text, .. } => text.chars().take_while(|&c| c == '\n').count(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(text).faults.iter().map(|f| format!("{}:{} {}", f.at.line, f.at.column, f.message)).collect()
    }

    #[test]
    fn every_node_knows_where_it_stands_and_how_it_was_written() {
        let document = parse("a: 2_000_000\nb:\n  - x\n  - { c: ~ }\n");
        assert!(document.complete && document.faults.is_empty());
        let Value::Map(entries) = document.root.value else { panic!("a map") };
        assert!(matches!(&entries[0].node.value, Value::Text { text, .. } if text == "2_000_000"));
        let Value::List(items) = &entries[1].node.value else { panic!("a list") };
        assert_eq!(items[1].at, Mark { line: 4, column: 5 });
        let Value::Map(inner) = &items[1].value else { panic!("a map") };
        assert_eq!(inner[0].key_at, Mark { line: 4, column: 7 });
        assert!(matches!(inner[0].node.value, Value::Null));
    }

    #[test]
    fn the_text_of_a_literal_block_starts_behind_its_indentation() {
        let document = parse("a:\n  map: |\n\n      .x\n      | .y\n");
        let Value::Map(entries) = &document.root.value else { panic!("a map") };
        let Value::Map(inner) = &entries[0].node.value else { panic!("a map") };
        assert_eq!(inner[0].node.at, Mark { line: 3, column: 7 });
        assert!(matches!(&inner[0].node.value, Value::Text { text, .. } if text == "\n.x\n| .y\n"));
    }

    #[test]
    fn repeated_keys_are_all_named_and_the_first_value_stays() {
        assert_eq!(
            faults("a: 1\nb: { c: 1, c: 2 }\na: 3\na: [4]\n"),
            [
                "2:12 the key `c` stands already in line 2",
                "3:1 the key `a` stands already in line 1",
                "4:1 the key `a` stands already in line 1",
            ]
        );
    }

    #[test]
    fn what_is_not_supported_is_said() {
        assert_eq!(faults("a: &x 1\nb: *x\n")[0], "1:4 anchors (`&name`) are not supported");
        assert_eq!(faults("a: &x 1\nb: *x\n")[1], "2:4 aliases (`*name`) are not supported");
        assert_eq!(faults("a: !!str 1\n"), ["1:4 tags (`!name`) are not supported"]);
        assert_eq!(faults("a: 1\n---\nb: 2\n"), ["2:1 a second document begins here"]);
        assert_eq!(faults("<<: { a: 1 }\n"), ["1:1 merge keys (`<<`) are not supported"]);
        assert_eq!(faults("? [a]\n: 1\n"), ["1:3 a key must be a plain text"]);
    }

    #[test]
    fn nesting_is_bounded_whichever_style_it_is_written_in() {
        let flow = "[".repeat(10_000);
        let block = (0..200).map(|depth| format!("{}a:", " ".repeat(depth))).collect::<Vec<_>>().join("\n");
        for text in [flow.as_str(), block.as_str()] {
            let document = parse(text);
            assert!(!document.complete);
            assert_eq!(document.faults.len(), 1);
        }
    }
}
