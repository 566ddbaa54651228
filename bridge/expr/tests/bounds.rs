//! What programs may not say, and where a run ends.

use super::*;

#[test]
fn what_may_not_be_called_is_refused_by_name_line_and_reason() {
    for (program, says) in [
        ("env", "`env` is not allowed: a program sees the event"),
        ("env.HOME", "`env` is not allowed"),
        ("$ENV.HOME", "`$ENV` is not allowed"),
        ("now", "`now` is not allowed: the answer must be the same"),
        ("localtime", "`localtime`"),
        (r#"strflocaltime("%H")"#, "`strflocaltime`"),
        ("halt", "`halt`"),
        ("halt_error", "`halt_error`"),
        ("input", "`input`"),
        ("[inputs]", "`inputs`"),
        ("debug", "`debug`"),
        ("debug(\"x\")", "`debug`"),
        ("stderr", "`stderr`"),
        ("import \"a\" as a; .", "`import`"),
        ("include \"a\"; .", "`include`"),
        ("[while(true; .)]", "`while` is not allowed: it may never end"),
        ("until(false; .)", "`until`"),
        ("[limit(1e9; repeat(1))]", "`repeat`"),
        ("recurse(.a)", "`recurse`"),
        ("recurse(.a; true)", "`recurse`"),
        ("[.[] | combinations(3)]", "`combinations`"),
        ("def f: f; f", "`f` calls itself"),
        ("def f(g): f(g | g); f(.)", "`f` calls itself"),
        ("def f: def g: f; g; f", "`f` calls itself"),
        ("input_line_number", "`input_line_number`"),
        ("tobytes", "there is no function `tobytes`"),
        ("matches(\"a\"; \"b\")", "there is no function `matches(…; …)`"),
        ("ascii_downcas", "did you mean `ascii_downcase`?"),
        ("select", "there is no function `select`; it is `select(…)`"),
        ("re_matches(0; true)", "there is no function"),
        ("hookbridge_tick", "there is no function"),
        ("hookbridge_main", "there is no function"),
        ("@csv", "there is no function `@csv`"),
        ("$x", "there is no variable `$x`"),
        ("$__loc__", "there is no variable"),
        ("{(", "expected"),
        ("", "term expected"),
        (". | }", "line 1, column 5"),
    ] {
        refused(program, says);
    }
    let problems = refused(".a |\n  env, now", "`env`");
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(2, 3), (2, 8)], "every problem, each at its place");
    check("def now: 1; def f(env): env; now, f(2)", "null", &["1", "2"]);
}

#[test]
fn a_program_and_a_sender_cannot_run_away_together() {
    let numbers = format!("[{}]", vec!["1"; 300].join(","));
    let body = format!(r#"{{"n":1000000000,"list":{numbers},"text":"{}"}}"#, "a b ".repeat(500));
    for program in [
        "[range(.n)]",
        "[range(0; 1; 1e-9)]",
        "reduce range(.n) as $i (0; . + 1)",
        "last(range(.n))",
        "[limit(.n; range(.n))]",
        r#""x" * .n"#,
        r#".n * "x""#,
        "reduce range(60) as $i (\"x\"; . + .)",
        "reduce range(60) as $i (\"x\"; . * 2)",
        "reduce range(60) as $i ([1]; . + .)",
        "reduce range(60) as $i (\"\\\"\"; tojson)",
        "reduce range(200) as $i (.text; @base64)",
        "reduce range(200) as $i (.text; @uri)",
        "reduce range(200) as $i (.text; @html \"\\(.)<\")",
        ".x[.n] = 1",
        ".list[.n] = 1",
        "setpath([\"x\", .n]; 1)",
        ".list[-.n] = 1",
        "setpath([range(9000) | \"a\"]; 1)",
        "getpath([range(9000) | \"a\"]) |= 1",
        "(reduce range(9000) as $i (.; .)) |= 1",
        "(reduce .list[] as $i (.; .)) |= 1",
        "[.list[] as $a | .list[] as $b | 1]",
        "[.list[] as $a | .list[] as $b | .list[] as $c | empty]",
        ".list as $l | [$l, $l, $l, $l] | [combinations]",
        "reduce range(9000) as $i (0; [.])",
        "reduce .list[] as $i ({}; {a: .})",
        "reduce range(40) as $i (1; [., .])",
        "reduce range(40) as $i (1; [., .]) | tojson",
        "reduce range(40) as $i (1; [., .]) | tostring",
        "reduce range(40) as $i (1; [., .]) | sort",
        "reduce range(40) as $i (1; [., .]) | [., .] | sort_by(.)",
        "reduce range(40) as $i (1; [., .]) | flatten",
        "reduce range(40) as $i (1; [., .]) | [..] | length",
        "def b: reduce range(40) as $i (1; [., .]); b == b",
        "def b: reduce range(40) as $i (1; [., .]); b < b",
        "def b: reduce range(40) as $i (1; [., .]); [b] - [b]",
        "def b: reduce range(40) as $i (1; [., .]); b | contains(b)",
        "def b: reduce range(40) as $i (1; [., .]); [b, b] | unique",
        "def b: reduce range(40) as $i (1; [., .]); [b, b] | index([b])",
        "def b: reduce range(40) as $i (1; [., .]); [b, b] | min",
        "def b: reduce range(40) as $i ({}; {a: ., b: .}); b * b",
        "def b: reduce range(40) as $i (1; [., .]); b | walk(.)",
        "def b: reduce range(40) as $i (1; [., .]); [b | paths]",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; reduce g as $x (0; .)",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; g",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; [g | empty]",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; try g catch 0",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; g |= .",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; [path(g)]",
        "reduce range(9000) as $i (.n; . * .)",
        "reduce range(9000) as $i ([]; . + [.text])  | .[0] = (.text * .n)",
        "[.list[] | [range(9000)]]",
        "[range(9000) as $i | range(9000) | try error catch .]",
        "[range(9000) as $i | (.list[] | error)?]",
        ".text | [range(9000) as $i | gsub(\" \"; \"\")]",
        ".text | [range(9000) as $i | explode]",
        ".text | [range(9000) as $i | ascii_downcase]",
        ".text | [range(9000) as $i | startswith(\"a b\") | range(9000)]",
        "[range(9000) as $i | .text | split(\"\")]",
        "(.a, .b, (.list[] as $i | .list[] as $j | .c)) = 1",
        "[foreach range(9000) as $i (0; .; range(9000))]",
        "[.list[] as $i | .list | sort]",
        "[.list[] as $i | .list | group_by(.)]",
        "[.list[] as $i | .list | indices([1])]",
        ".list | map(tostring) | reduce range(9000) as $i (.; map(. + \"x\"))",
        "[range(5000)]|.[]",
    ] {
        let program = Program::compile(program).expect(program);
        let start = std::time::Instant::now();
        let result = program.eval(&Json::new(body.as_bytes()).unwrap());
        let took = start.elapsed();
        assert!(took.as_millis() < 5_000, "{} took {took:?}", program.text());
        let error = result.map(|results| results.len());
        assert!(error.is_err(), "{} gives {error:?}", program.text());
    }
}

#[test]
fn a_program_of_the_greatest_size_fits_a_threads_stack() {
    let object = |fields: usize| {
        let fields: Vec<_> = (0..fields).map(|at| format!("f{at}: (.x + {at})")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let chain = |functions: usize| {
        let later: Vec<_> = (1..functions).map(|at| format!("def f{at}: [f{}];", at - 1)).collect();
        format!("def f0: .x; {} f{}", later.concat(), functions - 1)
    };
    let deep = 230;
    for program in [
        object(deep),
        format!("{}.x{}", "[".repeat(deep), "]".repeat(deep)),
        format!("{}.x", "-".repeat(deep / 2 * 2).replace("--", "- -")),
        format!("{}.x + 1", "1 | ".repeat(deep - 2)),
        format!(".x{}", " + 1".repeat(deep - 2)),
        format!(".x{}", " , 1".repeat(deep / 2)),
        format!("{}.x{}", "if . then ".repeat(deep / 2), " else 1 end".repeat(deep / 2)),
        format!("{}.x", "try ".repeat(deep)),
        chain(deep / 2 - 5),
    ] {
        let program = match Program::compile(&program) {
            Ok(program) => program,
            Err(problems) => panic!("{program}: {problems:?}"),
        };
        match program.eval(&Json::new(br#"{"x":1}"#).unwrap()) {
            Ok(_) | Err(Error::Limit(Limit::Stack | Limit::Nesting) | Error::Failed { .. }) => {}
            Err(other) => panic!("{}: {other}", program.text()),
        }
    }
    refused(&object(300), "nested more than 250 deep");
    refused(&chain(200), "nested more than 250 deep");
    refused(&"[".repeat(16_000), "more than 250 brackets are open");
    refused(&format!("{}1", "-".repeat(16_000)), "nested more than 250 deep");
    refused(&format!("{}1", "try ".repeat(4_000)), "nested more than 250 deep");
    refused(&format!("{}1", "if 1 then ".repeat(1_600)), "expected");
    refused(&format!("{}1", "1 as $x|".repeat(2_000)), "nested more than 250 deep");
    refused(&format!("{}1", "1|".repeat(8_000)), "nested more than 250 deep");
    refused(&format!("{}1", "def f:".repeat(2_600)), "expected");
    refused(&".".repeat(20_000), "at most 16384 bytes");
}
