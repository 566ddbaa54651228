//! Every kind of mistake, and the very words in which it is told: `mistakes.txt`.

use std::fmt::Write;
use std::path::Path;

use super::*;

/// Cases of `=== <name>`, the file's text, `*** told:`, and what a person then reads.
const CASES: &str = include_str!("mistakes.txt");

/// What `check` says of `text`.
fn told(text: &str) -> String {
    let env = FakeEnvironment::new(&[
        ("SECRET", "correct-horse-battery-staple"),
        ("SPACED", "correct-horse-battery-staple "),
        ("EMPTY", ""),
    ]);
    let problems = match parse(Path::new("h.yaml"), text, &env) {
        Ok(loaded) => loaded.warnings.into_iter().chain(loaded.not_built).collect(),
        Err(problems) => problems.all,
    };
    let mut told = String::new();
    for problem in problems {
        writeln!(told, "{problem}").unwrap();
    }
    told
}

fn check(case: &str) {
    let (name, rest) = case.split_once('\n').unwrap();
    let (text, expected) = rest.split_once("*** told:\n").unwrap();
    let told = told(text);
    assert_eq!(told, expected, "=== {name}\n{text}*** told:\n{told}");
}

#[test]
fn every_mistake_is_told_with_its_place_and_a_way_out() {
    let cases: Vec<&str> = CASES.split("=== ").skip(1).collect();
    assert!(cases.len() > 40, "the cases were not read: {}", cases.len());
    for case in cases {
        check(case);
    }
}

#[test]
fn five_mistakes_in_one_file_are_five_errors_in_the_order_of_the_lines() {
    let text = CASES.split("=== ").nth(1).and_then(|case| case.split_once('\n')?.1.split_once("***")).unwrap().0;
    let problems = parse(Path::new("h.yaml"), text, &FakeEnvironment::default()).unwrap_err();
    assert_eq!(problems.errors(), 5);
    let lines: Vec<usize> = problems.all.iter().map(|problem| problem.at.line).collect();
    assert_eq!(lines, [1, 2, 4, 8, 9]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_without_a_line() {
    let path = Path::new("h.yaml");
    let told = |env: FakeEnvironment| load(path, &env).unwrap_err().to_string();
    assert_eq!(
        told(FakeEnvironment::default()),
        "h.yaml: cannot be read: entity not found\n  \
         hint: `--config` says where it is; hookbridge.example.yaml is one to begin with"
    );
    assert_eq!(
        told(FakeEnvironment::default().with_file("h.yaml", b"a: 1\nb: \xff\n")),
        "h.yaml: is not UTF-8 (in line 2)"
    );
    assert_eq!(
        told(FakeEnvironment::default().with_file("h.yaml", vec![b'#'; 1024 * 1024 + 1])),
        "h.yaml: is larger than 1048576 bytes"
    );
}
