//! The command line: what a person types, what comes back, and the exit codes that scripts rely on.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::bridge::command;
use crate::harness::process::folder;

pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.current_dir(env!("CARGO_MANIFEST_DIR")).spawn().expect("the bridge's binary");
    // A command that reads nothing may have ended by now.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("what it prints is text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn help_is_fine_and_a_wrong_command_is_a_usage_error() {
    let help = run(&["--help"], b"");
    assert_eq!(help.code, Some(0));
    for command in ["run", "check", "eval", "send", "source", "schema", "dev"] {
        assert!(help.out.contains(command), "{command} is not in the help:\n{}", help.out);
    }
    for wrong in [&["frobnicate"][..], &["run", "--no-such-option"], &["eval"], &[]] {
        let ran = run(wrong, b"");
        assert_eq!(ran.code, Some(2), "{wrong:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.is_empty(), "what goes wrong goes to standard error: {}", ran.out);
    }
    let version = run(&["--version"], b"");
    assert_eq!((version.code, version.out.contains(env!("CARGO_PKG_VERSION"))), (Some(0), true));
}

#[test]
fn check_is_fine_with_a_good_configuration() {
    let file = good_configuration();
    let ran = run(&["check", "--config", file.to_str().unwrap()], b"");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
}

#[test]
fn check_exits_with_78_where_the_file_is_refused_and_0_where_a_warning_is_all() {
    let file = good_configuration();
    let good = std::fs::read_to_string(&file).unwrap();
    for (text, code, told) in [
        (format!("{good}\nsurces: {{}}\n"), 78, "did you mean `sources`?"),
        (good.replace("key: .customer_id", "key: .customer_id |"), 78, "events.order_placed.key"),
        (format!("{good}\ningest: {{ max_connections: 100000 }}\n"), 0, "the limit on open files here, 256, leaves 1 "),
    ] {
        std::fs::write(&file, text).unwrap();
        let mut check = command(&["check", "--config"]);
        // Of the shell's children alone.
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\""]).arg(check.get_program()).args(check.get_args());
        check = limited;
        let ran = check.arg(&file).output().expect("`sh` starts");
        let out = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(ran.status.code(), Some(code), "{out}");
        assert!(out.contains(told), "{out}");
    }
}

#[test]
fn a_missing_configuration_is_a_configuration_error() {
    for arguments in [["run", "--config", "no-such-file.yaml"], ["check", "--config", "no-such-file.yaml"]] {
        let ran = run(&arguments, b"");
        assert_eq!(ran.code, Some(78), "{}{}", ran.out, ran.err);
        assert!(format!("{}{}", ran.out, ran.err).contains("no-such-file.yaml"));
    }
}

#[test]
fn run_refuses_by_name_what_is_not_built_yet() {
    let file = good_configuration();
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("  mirror: { preset: mirror, api_key: k, events: [order_placed], purpose: none }\n");
    std::fs::write(&file, text).unwrap();
    let ran = run(&["run", "--config", file.to_str().unwrap()], b"");
    assert_eq!(ran.code, Some(78), "{}{}", ran.out, ran.err);
    assert!(format!("{}{}", ran.out, ran.err).contains("mirror"), "{}{}", ran.out, ran.err);
}

#[test]
fn eval_prints_what_an_expression_gives() {
    let ran = run(&["eval", r#".amount | minor_units("USD")"#], br#"{"amount": 1999}"#);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), r#""19.99""#), "{}", ran.err);
    let ran = run(&["eval", ".email | normalize_email | sha256"], br#"{"email": null}"#);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), "null"), "{}", ran.err);
    for broken in [".a |", "env", "now", "def f: f; f", "no_such_function"] {
        let ran = run(&["eval", broken], b"{}");
        assert_eq!(ran.code, Some(1), "{broken}: {}{}", ran.out, ran.err);
        assert!(!ran.err.is_empty(), "{broken}");
    }
}

#[test]
fn source_test_runs_vectors_each_by_its_own_clock() {
    for vectors in ["tests/vectors/stripe.json", "tests/vectors/standard_webhooks.json"] {
        let ran = run(&["source", "test", vectors], b"");
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        let last = ran.out.lines().last().expect("a summary");
        assert!(last.ends_with("passed, 0 failed") && !last.starts_with('0'), "{last}");
    }

    // A vector that expects the opposite of what is right has to be seen.
    let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/stripe.json"));
    let mut vectors: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let expected = vectors[0]["expect"].as_str().unwrap();
    vectors[0]["expect"] = if expected == "accept" { "reject" } else { "accept" }.into();
    let file = folder("vectors").join("wrong.json");
    std::fs::write(&file, vectors.to_string()).unwrap();
    let ran = run(&["source", "test", file.to_str().unwrap()], b"");
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(vectors[0]["name"].as_str().unwrap()), "{}", ran.out);
    assert!(ran.out.trim_end().ends_with("1 failed"), "{}", ran.out);
}

#[test]
fn schema_encode_prints_the_datum_or_every_violation() {
    let schema = folder("encode").join("thing.avsc");
    let text = r#"{"type": "record", "name": "Thing", "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"], "default": null}]}"#;
    std::fs::write(&schema, text).unwrap();
    let schema = schema.to_str().unwrap();
    // By hand, from Avro 1.12's binary encoding: zigzag 1 is 02; branch 1 is 02, length 2 is 04, then "ab".
    let ran = run(&["schema", "encode", schema, "--hex"], br#"{"id": 1, "name": "ab"}"#);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), "0202046162"), "{}", ran.err);
    let ran = run(&["schema", "encode", schema, "--hex"], br#"{"id": -1}"#);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), "0100"), "{}", ran.err);

    let ran = run(&["schema", "encode", schema, "--hex"], br#"{"id": "one", "name": 2, "odd": true}"#);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    let told: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON, one a line")).collect();
    let mut pointers: Vec<&str> = told.iter().map(|violation| violation["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/id", "/name", "/odd"]);
    assert!(told.iter().all(|violation| violation["reason"].is_string() && violation["message"].is_string()));
}

/// A configuration that needs nothing but its own files.
fn good_configuration() -> PathBuf {
    let file = folder("good").join("hookbridge.yaml");
    let schemas = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemas");
    let text = format!(
        r#"
kafka: {{ bootstrap_servers: "127.0.0.1:9" }}
schemas: {}
events:
  order_placed: {{ category: commerce, owner: it@example.com, key: .customer_id }}
sources:
  shop: {{ preset: standard-webhooks, secrets: [whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0], event_type: .type, payload: .data }}
sinks:
  warehouse: {{ type: postgres, url: "postgres://127.0.0.1/x", events: [order_placed], table: orders }}
"#,
        schemas.display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// The YAML of a page's examples, without what they are indented by.
fn examples(page: &str) -> Vec<String> {
    let (mut found, mut open): (Vec<String>, Option<usize>) = (Vec::new(), None);
    for line in page.lines() {
        match (open, line.trim_start()) {
            (None, "```yaml") => {
                open = Some(line.len() - line.trim_start().len());
                found.push(String::new());
            }
            (Some(_), "```") => open = None,
            (Some(indent), _) => {
                let text = found.last_mut().expect("an open example");
                text.push_str(line.get(indent..).unwrap_or_default());
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

#[test]
fn every_example_of_the_page_of_sources_passes_check() {
    let page = include_str!("../../docs/sources.md");
    let examples = examples(page);
    assert!(examples.len() >= 10, "{examples:?}");
    let events = examples.iter().find(|example| example.starts_with("events:")).expect("the events of all examples");
    let folder = folder("examples");
    std::fs::create_dir_all(folder.join("secrets")).unwrap();
    std::fs::write(folder.join("secrets/leads"), "a-secret-of-the-page-of-sources").unwrap();
    for example in &examples {
        let sources = match example.split(':').next() {
            Some("events") => continue,
            Some("sources") => example.clone(),
            // A part of a source: the rest of one is put around it.
            _ => format!(
                "sources:\n  part:\n    signature: {{ algorithm: hmac-sha256, header: x, encoding: hex, signed: \"{{body}}\" }}\n    \
                 secrets: [\"${{PART_SECRET}}\"]\n    event_type: .type\n{}",
                example.lines().fold(String::new(), |all, line| all + "    " + line + "\n")
            ),
        };
        let rest = if example.contains("leads:") { "    event_type: .type\n" } else { "" };
        let schemas = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let text = format!("schemas: {}\n{events}\n{sources}{rest}", schemas.display());
        let file = folder.join("hookbridge.yaml");
        std::fs::write(&file, &text).unwrap();
        let mut check = command(&["check", "--config"]);
        for name in text.split("${").skip(1).filter_map(|rest| rest.split(['}', ':']).next()) {
            if name != "file" {
                check.env(name, "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0");
            }
        }
        let ran = check.arg(&file).output().expect("the bridge's binary");
        let told = String::from_utf8_lossy(&ran.stdout);
        assert_eq!((ran.status.code(), &*told), (Some(0), ""), "{text}");
    }
}
