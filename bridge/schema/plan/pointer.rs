//! Where in the event we are: a list on the stack, so that a valid event pays nothing for the pointers
//! that an invalid one needs.

/// Containers within containers, at most. Events are flat; what is deeper was made to hurt.
/// serde_json's own limit, which is 128, is never reached.
pub(super) const MAX_DEPTH: usize = 64;

/// A pointer is cut here, since its segments are the sender's and a violation list holds a hundred of them.
const MAX_POINTER: usize = 512;

#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    up: Option<&'a Path<'a>>,
    step: Step<'a>,
    /// Containers that are open here.
    pub(super) depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(super) const ROOT: Path<'static> = Path { up: None, step: Step::Index(0), depth: 0 };

    pub(super) fn name(&'a self, name: &'a str) -> Path<'a> {
        Path { up: Some(self), step: Step::Name(name), depth: self.depth + 1 }
    }

    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        Path { up: Some(self), step: Step::Index(index), depth: self.depth + 1 }
    }

    /// The JSON Pointer (RFC 6901); one that was cut ends in an ellipsis.
    pub(super) fn pointer(&self) -> String {
        let mut steps = Vec::with_capacity(self.depth);
        let mut at = self;
        while let Some(up) = at.up {
            steps.push(at.step);
            at = up;
        }
        let mut pointer = String::new();
        for step in steps.into_iter().rev() {
            pointer.push('/');
            match step {
                Step::Index(index) => pointer.push_str(&index.to_string()),
                Step::Name(name) => push_escaped(&mut pointer, name),
            }
            if pointer.len() > MAX_POINTER {
                pointer.truncate(pointer.floor_char_boundary(MAX_POINTER));
                pointer.push('\u{2026}');
                break;
            }
        }
        pointer
    }
}

fn push_escaped(pointer: &mut String, name: &str) {
    // A name may be as long as the body; no more of it is needed than will be kept.
    for character in name.chars().take(MAX_POINTER + 1) {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// How deep containers nest in a JSON text that is known to be well formed.
pub(super) fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// A well-formed JSON text without the whitespace between its tokens.
pub(super) fn compact(json: &str, out: &mut Vec<u8>) {
    let mut bytes = json.bytes().enumerate();
    let mut kept = 0;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes.by_ref().map(|(_, byte)| byte)),
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.extend_from_slice(&json.as_bytes()[kept..at]);
                kept = at + 1;
            }
            _ => {}
        }
    }
    out.extend_from_slice(&json.as_bytes()[kept..]);
}

/// From behind a string's opening quote to behind its closing one.
fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_follow_rfc_6901() {
        let items = Path::ROOT.name("items");
        let first = items.index(0);
        assert_eq!(first.name("a/b~c").pointer(), "/items/0/a~1b~0c");
        assert_eq!(Path::ROOT.pointer(), "");
        assert_eq!(Path::ROOT.name("").pointer(), "/");
    }

    #[test]
    fn a_pointer_has_a_limit() {
        let long = "\u{e9}".repeat(10_000);
        let pointer = Path::ROOT.name(&long).pointer();
        assert!(pointer.len() < 520 && pointer.ends_with('\u{2026}'), "{}", pointer.len());
    }

    #[test]
    fn nesting_counts_containers_outside_strings() {
        for (json, depth) in [("1", 0), ("[]", 1), (r#"{"a":[{"b":"[[[\"[["}]}"#, 3), (r#"["\\",[]]"#, 2)] {
            assert_eq!(nesting(json), depth, "{json}");
        }
    }

    #[test]
    fn compacting_leaves_strings_alone() {
        let mut out = Vec::new();
        compact("{ \"a b\" : [ 1.0 ,\n\t\"c \\\" d\" ] } ", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a b":[1.0,"c \" d"]}"#);
    }
}
