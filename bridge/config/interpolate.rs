//! `${NAME}`, `${NAME:-default}`, `${file:path}` and `$$` inside a text.

use std::env::VarError;
use std::io;
use std::path::Path;

use super::Environment;

/// Bytes of a file that is put into a text. The largest that is of use is a chain of certificates, some 10 KiB.
const MAX_FILE: u64 = 64 * 1024;

/// Why a reference could not be filled in. It names the variable or file, never a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub message: String,
    pub hint: Option<String>,
}

impl Complaint {
    fn new(message: String, hint: impl Into<String>) -> Self {
        Self { message, hint: Some(hint.into()) }
    }
}

/// Whether filling in would change the text.
pub(super) fn has_reference(text: &str) -> bool {
    text.contains("${") || text.contains("$$")
}

/// Fills every reference in, or says what is wrong with each of them.
///
/// A relative file path starts at `folder`. What is put in is not read again: a value that holds `${` stays as it is.
pub(super) fn interpolate(text: &str, folder: &Path, env: &dyn Environment) -> Result<String, Vec<Complaint>> {
    let mut out = String::with_capacity(text.len());
    let mut complaints = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else {
                complaints
                    .push(Complaint::new("`${` has no closing `}`".to_owned(), "a dollar sign itself is written `$$`"));
                return Err(complaints);
            };
            match resolve(&after[..end], folder, env) {
                Ok(value) => out.push_str(&value),
                Err(complaint) => complaints.push(complaint),
            }
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    if complaints.is_empty() { Ok(out) } else { Err(complaints) }
}

fn resolve(reference: &str, folder: &Path, env: &dyn Environment) -> Result<String, Complaint> {
    if let Some(path) = reference.strip_prefix("file:") {
        return file(path, folder, env);
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_name(name) {
        return Err(Complaint::new(
            format!("`${{{reference}}}` is not a reference"),
            "write `${NAME}`, `${NAME:-default}` or `${file:path}`; a dollar sign itself is `$$`",
        ));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(Complaint::new(
            format!("the default of `{name}` holds another reference"),
            "a default is plain text",
        ));
    }
    match (env.variable(name), default) {
        (Ok(value), None) => Ok(value),
        // As in a shell: with `:-`, an empty variable counts as one that is not set.
        (Ok(value), Some(default)) => Ok(if value.is_empty() { default.to_owned() } else { value }),
        (Err(VarError::NotPresent), Some(default)) => Ok(default.to_owned()),
        (Err(VarError::NotPresent), None) => Err(Complaint::new(
            format!("the variable `{name}` is not set"),
            format!("set it, or write `${{{name}:-}}` where it may be missing"),
        )),
        (Err(VarError::NotUnicode(_)), _) => {
            Err(Complaint { message: format!("the variable `{name}` is not UTF-8"), hint: None })
        }
    }
}

fn file(path: &str, folder: &Path, env: &dyn Environment) -> Result<String, Complaint> {
    if path.is_empty() {
        return Err(Complaint::new("`${file:}` names no file".to_owned(), "write `${file:secrets/name}`"));
    }
    let bytes = env.read_file(&folder.join(path), MAX_FILE).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "does not exist".to_owned(),
            io::ErrorKind::PermissionDenied => "may not be read by this process".to_owned(),
            kind => format!("cannot be read: {kind}"),
        };
        Complaint::new(
            format!("the file `{path}` {why}"),
            "a relative path starts at the folder of the configuration file",
        )
    })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Complaint { message: format!("the file `{path}` is larger than {MAX_FILE} bytes"), hint: None });
    }
    let mut text = String::from_utf8(bytes)
        .map_err(|_| Complaint { message: format!("the file `{path}` is not UTF-8"), hint: None })?;
    // Editors and `echo` end a file with a newline that is no part of the secret.
    let kept = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(kept);
    Ok(text)
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::tests::FakeEnvironment;
    use super::*;

    fn filled(text: &str) -> Result<String, Vec<String>> {
        let env = FakeEnvironment::new(&[("A", "one"), ("EMPTY", ""), ("NESTED", "${A}")])
            .with_file("/etc/hookbridge/secrets/x", "s3cret\r\n");
        interpolate(text, Path::new("/etc/hookbridge"), &env)
            .map_err(|complaints| complaints.into_iter().map(|complaint| complaint.message).collect())
    }

    #[test]
    fn references_are_filled_in() {
        let cases = [
            ("plain", "plain"),
            ("${A}", "one"),
            ("<${A}-${A}>", "<one-one>"),
            ("${MISSING:-two}", "two"),
            ("${MISSING:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-two}", "two"),
            ("${A:-two}", "one"),
            ("${MISSING:-http://127.0.0.1:8081}", "http://127.0.0.1:8081"),
            ("${file:secrets/x}", "s3cret"),
            ("${file:/etc/hookbridge/secrets/x}", "s3cret"),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("$5 and 5$", "$5 and 5$"),
            ("${NESTED}", "${A}"),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn every_reference_that_cannot_be_filled_in_is_named() {
        let cases: &[(&str, &[&str])] = &[
            ("${B}${C}", &["the variable `B` is not set", "the variable `C` is not set"]),
            ("${A", &["`${` has no closing `}`"]),
            ("${}", &["`${}` is not a reference"]),
            ("${a b}", &["`${a b}` is not a reference"]),
            ("${B:-${A}}", &["the default of `B` holds another reference"]),
            ("${file:}", &["`${file:}` names no file"]),
            ("${file:nowhere}", &["the file `nowhere` does not exist"]),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text), Err(expected.iter().map(|&s| s.to_owned()).collect()), "{text}");
        }
    }
}
